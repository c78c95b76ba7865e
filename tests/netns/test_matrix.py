"""Every kind of network against every other, on userspace WireGuard. Picture: lab/scenarios/matrix.py"""
from lab.scenarios.matrix import every_kind_meets_every_other


def test_every_kind_meets_every_other(lab, programs):
    every_kind_meets_every_other(lab)
