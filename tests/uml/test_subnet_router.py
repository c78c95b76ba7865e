"""Routers of networks, on kernel WireGuard. Pictures: lab/scenarios/subnet_router.py"""
import pytest

from lab.scenarios import subnet_router


@pytest.mark.guest(timeout=240)
def test_a_router_gives_its_network_to_the_tailnet_and_leaves_nothing_behind(lab, programs):
    subnet_router.goes_down(subnet_router.run(lab))


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=400)
def test_behind_a_hard_nat_with_overlapping_routes_a_second_site_and_two_hundred_clients(lab, programs):
    net = subnet_router.behind_nat(lab, "hard", "")
    subnet_router.overlapping(net, count=30)
    subnet_router.two_sites(net)
    subnet_router.crowd(net)
