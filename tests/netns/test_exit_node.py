"""Internet traffic by exit nodes. Picture: lab/scenarios/exit_node.py"""
from lab.scenarios import exit_node


def test_nothing_leaves_past_the_exit_node(lab, programs):
    exit_node.leaves_nothing(exit_node.run(lab))
