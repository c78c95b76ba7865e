"""Every kind of network against every other, on kernel WireGuard. Picture: lab/scenarios/matrix.py"""
import pytest

from lab.scenarios.matrix import every_kind_meets_every_other


@pytest.mark.time_travel
@pytest.mark.guest(mem="3G", timeout=400)
def test_every_kind_meets_every_other(lab, programs):
    every_kind_meets_every_other(lab)
