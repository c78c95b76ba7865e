"""systemd-networkd beside the agent. Picture: lab/scenarios/networkd.py"""
import pytest

from lab.networkd import PROGRAM
from lab.scenarios import networkd

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"there is no {PROGRAM}")


def test_a_restart_takes_nothing_away_where_our_package_is_installed(lab, programs):
    networkd.told(lab)


def test_what_a_restart_takes_away_is_back_at_once(lab, programs):
    networkd.not_told(lab)
