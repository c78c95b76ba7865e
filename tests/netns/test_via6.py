"""Sites with the same network. Picture: lab/scenarios/via6.py"""
from lab.scenarios import via6


def test_two_sites_with_the_same_network_are_told_apart(lab, programs):
    via6.ends(via6.run(lab))
