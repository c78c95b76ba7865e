"""Every kind of network against every other, with stock programs in it. Picture: lab/scenarios/matrix.py"""
import pytest

from lab.scenarios.matrix import KINDS, every_kind_meets_every_other
from lab.stock import Derper, Headscale, StockClient
from lab.tailrace import Agent

V4 = [kind for kind in KINDS if kind != "v6-only"] # Headscale is given its address in IPv4


@pytest.mark.needs("tailscaled", "tailscale")
def test_stock_clients_answer_ours(lab, programs):
    every_kind_meets_every_other(lab, "paths-matrix-ours-to-stock", b_is=StockClient)


@pytest.mark.needs("tailscaled", "tailscale", "derper")
def test_stock_clients_begin_over_a_stock_relay(lab, programs):
    every_kind_meets_every_other(lab, "paths-matrix-stock-to-ours", a_is=StockClient, b_is=Agent, relay_is=Derper)


@pytest.mark.needs("tailscaled", "tailscale", "headscale")
def test_under_headscale(lab, programs):
    every_kind_meets_every_other(lab, "paths-matrix-headscale", kinds=V4, b_is=StockClient, control_is=Headscale)
