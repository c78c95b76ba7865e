"""Every kind of network against every other, with stock programs in it. Picture: lab/scenarios/matrix.py"""
import pytest

from lab.scenarios.matrix import KINDS, every_kind_meets_every_other
from lab.stock import Derper, Headscale, StockClient
from lab.tailrace import Agent, TailraceControl, TailraceRelay

V4 = [kind for kind in KINDS if kind != "v6-only"] # Headscale is given its address in IPv4
NEEDS_DERPER, NEEDS_HEADSCALE = pytest.mark.needs("derper"), pytest.mark.needs("headscale")


@pytest.mark.needs("tailscaled", "tailscale")
@pytest.mark.parametrize("control", ["tailrace-control", pytest.param("headscale", marks=NEEDS_HEADSCALE)])
@pytest.mark.parametrize("relay", ["tailrace-relay", pytest.param("derper", marks=NEEDS_DERPER)])
@pytest.mark.parametrize("begins", ["ours", "stock"])
def test_ours_and_stock_clients_meet(lab, programs, begins, relay, control):
    a_is, b_is = (Agent, StockClient) if begins == "ours" else (StockClient, Agent)
    every_kind_meets_every_other(
        lab, f"paths-matrix-{begins}-first-{relay}-{control}", a_is=a_is, b_is=b_is, kinds=V4 if control == "headscale" else KINDS,
        relay_is={"tailrace-relay": TailraceRelay, "derper": Derper}[relay],
        control_is={"tailrace-control": TailraceControl, "headscale": Headscale}[control])
