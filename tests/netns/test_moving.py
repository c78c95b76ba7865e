"""Nodes that move and boxes that forget while packets flow. Picture: lab/scenarios/paths.py"""
import time

from lab.scenarios import moving
from lab.scenarios.paths import Net
from lab.traffic import Ping, ping
from lab.wait import wait_for


def test_a_client_roams_during_a_transfer(lab, programs):
    moving.a_client_roams_during_a_transfer(lab)


def test_a_path_that_is_lost_in_one_direction_costs_no_more_than_its_trust(lab, programs):
    moving.a_path_is_lost_in_one_direction(lab)


def test_an_address_comes_beside_the_others(lab, programs):
    moving.an_address_comes_beside_the_others(lab)


def test_a_nat_box_that_starts_over(lab, programs):
    moving.a_nat_box_starts_over(lab)


def test_control_away_while_a_relay_starts_over(lab, programs):
    moving.control_is_away_while_a_relay_starts_over(lab)


def test_a_node_that_left_and_came_back_is_reached_at_once(lab, programs):
    """Its peers still have sessions with a device that is gone, which WireGuard by itself notices after 15 s."""
    net = Net(lab, "easy", "easy")
    net.reaches()
    alice = net.hosts["alice"]
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 10, "the path is direct")
    address = net.bob.ip()
    pings = Ping(alice, address, interval=0.1)
    pings.wait_for_reply()
    net.bob.cli("down")
    time.sleep(1)
    answered = pings.answered()
    net.bob.cli("up")
    wait_for(lambda: pings.answered() > answered, 8, "packets flow again")
    pings.stop()
