"""A router of a network, on kernel WireGuard. Picture: lab/scenarios/subnet_router.py"""
import pytest

from lab.scenarios import subnet_router


@pytest.mark.guest(timeout=240)
def test_a_router_gives_its_network_to_the_tailnet_and_leaves_nothing_behind(lab, programs):
    subnet_router.goes_down(subnet_router.run(lab))
