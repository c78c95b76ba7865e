"""Between an easy and a hard NAT on kernel WireGuard, and with the agent killed. Picture: lab/scenarios/hard_nat.py"""
import time

import pytest

from lab.scenarios.hard_nat import HardNet, a_path_ends_when_it_is_switched_off
from lab.traffic import Ping
from lab.wait import wait_for


@pytest.mark.guest(mem="2G", timeout=240)
def test_a_direct_path_is_found_and_outlives_the_agent(lab, programs):
    net = HardNet(lab, "easy", "hard")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    assert net.alice.device_kind() == "kernel WireGuard" and net.relayed()
    started = time.monotonic()
    assert net.becomes_direct(20)
    assert time.monotonic() - started < 10
    time.sleep(2)
    moved = net.moves("bob")
    assert len(moved) == 1
    net.bob.program.kill()
    time.sleep(3)
    net.bob.start()
    wait_for(net.bob.running, 15, "the agent is back")
    time.sleep(8) # longer than a path is trusted
    assert net.is_direct() and net.moves("bob") == moved
    pings.finish() # none was lost
    net.bob.cli("down")
    wait_for(lambda: net.moves("bob") == [], 5, "nothing is left")


@pytest.mark.guest(mem="2G", timeout=240)
def test_switched_off_the_path_ends_though_wireguard_follows_the_peer(lab, programs):
    a_path_ends_when_it_is_switched_off(HardNet(lab, "easy", "hard"), "bob")
