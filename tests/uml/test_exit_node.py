"""Internet traffic by exit nodes, on kernel WireGuard. Picture: lab/scenarios/exit_node.py"""
import pytest

from lab.scenarios import exit_node


@pytest.mark.guest(timeout=400)
def test_nothing_leaves_past_the_exit_node(lab, programs):
    exit_node.leaves_nothing(exit_node.run(lab))
