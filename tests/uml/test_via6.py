"""Sites with the same network, on kernel WireGuard. Picture: lab/scenarios/via6.py"""
import pytest

from lab.scenarios import via6


@pytest.mark.guest(mem="2G", timeout=300)
def test_two_sites_with_the_same_network_are_told_apart(lab, programs):
    via6.ends(via6.run(lab))


@pytest.mark.guest(mem="2G", timeout=240)
def test_translated_flows_are_fast_and_end_with_their_route(lab, programs):
    via6.fast(lab)
