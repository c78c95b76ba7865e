"""Internet traffic by exit nodes. Pictures: lab/scenarios/exit_node.py, exit_choice.py, killed.py"""
from lab.scenarios import exit_choice, exit_node, killed


def test_nothing_leaves_past_the_exit_node(lab, programs):
    exit_node.leaves_nothing(exit_node.run(lab))


def test_the_other_exit_node_carries_on_when_the_chosen_one_ends(lab, programs):
    exit_choice.Ends(lab, without_a_word=False).the_other_one_carries_on()


def test_who_is_barred_from_the_internet_has_no_exit_node(lab, programs):
    exit_choice.barred(lab)


def test_a_grant_says_which_exit_node_it_is(lab, programs):
    exit_choice.via(lab)


def test_an_agent_that_is_killed_anywhere_lets_nothing_past(lab, programs):
    killed.run(lab)
