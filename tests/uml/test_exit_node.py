"""Internet traffic by exit nodes, on kernel WireGuard. Pictures: lab/scenarios/exit_node.py, exit_choice.py"""
import pytest

from lab.scenarios import exit_choice, exit_node


@pytest.mark.guest(timeout=400)
def test_nothing_leaves_past_the_exit_node(lab, programs):
    exit_node.leaves_nothing(exit_node.run(lab))


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=240)
def test_the_other_exit_node_carries_on_after_a_power_cut(lab, programs):
    ends = exit_choice.Ends(lab, without_a_word=True)
    ends.the_other_one_carries_on()
    ends.nobody_is_left()
