"""The quickstart's story with agents on this machine's kernel. Picture: lab/scenarios/quickstart.py"""
from lab.scenarios import quickstart


def silent(*_, **__):
    pass


def test_the_whole_story_holds(lab, programs):
    quickstart.run(lab, silent)
