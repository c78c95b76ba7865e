"""The flow table is in few kernels; the one of this room has it. Picture: lab/scenarios/subnet_router.py"""
import pytest

from lab.scenarios import fast_path


@pytest.mark.guest(mem="2G", timeout=300)
def test_accepted_flows_are_fast_until_anything_changes(lab, programs):
    fast_path.run(lab)


@pytest.mark.guest(mem="2G", timeout=240)
def test_rules_that_ask_the_time_are_asked_for_every_packet(lab, programs):
    fast_path.rules_that_change_without_a_word(lab)


@pytest.mark.guest(mem="2G", timeout=240)
def test_what_is_accepted_in_one_direction_only_is_never_fast(lab, programs):
    fast_path.one_way(lab)


@pytest.mark.guest(mem="2G", timeout=240)
def test_datagrams_and_ipv6_are_fast_until_anything_changes(lab, programs):
    fast_path.other_flows(lab)
