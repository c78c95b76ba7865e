"""Nobody sends as somebody else. Picture: lab/scenarios/spoofing.py"""
from lab.scenarios import spoofing


def test_wireguard_refuses_forged_sources(lab, programs):
    spoofing.run(lab)
