"""Every call to the kernel fails once, on kernel WireGuard. Picture and story: lab/scenarios/faults.py"""
import pytest

from lab.scenarios import faults


@pytest.mark.guest(mem="2G", timeout=300)
def test_every_call_of_a_first_start(lab, programs):
    faults.first_start(lab, samples=3)


@pytest.mark.guest(mem="2G", timeout=300)
def test_every_call_of_a_start_that_adopts(lab, programs):
    faults.adopting_start(lab, samples=3)
