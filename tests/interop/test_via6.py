"""Stock clients reach sites through our 4via6 routers, and ours through theirs. Picture: lab/scenarios/via6.py"""
import pytest

from interop import UNDER_EITHER
from lab.scenarios.via6 import TwoSites
from lab.stock import StockClient
from lab.tailrace import Agent


@pytest.mark.parametrize("ours", ["router", "client"])
@UNDER_EITHER
@pytest.mark.needs("tailscaled", "tailscale")
def test_two_sites_with_the_same_network(lab, programs, ours, control_is):
    net = TwoSites(lab, *((Agent, StockClient) if ours == "router" else (StockClient, Agent)), control_is=control_is)
    net.join()
    net.reaches_both()
