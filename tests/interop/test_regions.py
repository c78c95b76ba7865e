"""Stock clients are given the router of their own region by our coordination server. Picture: lab/scenarios/regions.py"""
import pytest

from lab.scenarios import regions
from lab.stock import StockClient


@pytest.mark.needs("tailscaled", "tailscale")
def test_stock_clients_have_the_router_of_their_region(lab, programs):
    net = regions.Regions(lab, client=StockClient, route_choice="region")
    regions.each_its_own(net)
    regions.fails_over_and_back(net)
