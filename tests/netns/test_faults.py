"""Every call to the kernel fails once. Picture and story: lab/scenarios/faults.py"""
from lab.scenarios import faults


def test_every_call_of_a_first_start(lab, programs):
    faults.first_start(lab)


def test_every_call_of_a_start_that_adopts(lab, programs):
    faults.adopting_start(lab)


def test_every_call_of_a_change(lab, programs):
    faults.changes(lab)


def test_every_call_of_down_and_up(lab, programs):
    faults.down_and_up(lab)


def test_where_forwarding_cannot_be_made_nothing_is_forwarded_and_the_rest_works(lab, programs):
    faults.without_nat(lab)
