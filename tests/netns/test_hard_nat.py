"""One node behind an easy NAT, one behind a hard one, and a direct path all the same: the hard side opens many mappings,
the easy side looks for one of them. HARD_NAT_TRIES=10 makes ten tries each way. Picture: lab/scenarios/hard_nat.py"""
import json
import os
import re
import time

import pytest

from lab.lab import PROJECT
from lab.scenarios.hard_nat import HardNet, a_path_ends_when_it_is_switched_off, other
from lab.stock import StockClient
from lab.traffic import Ping, WebServer, fetch, ping
from lab.wait import wait_for

TRIES = int(os.environ.get("HARD_NAT_TRIES", "2"))
WITHIN = 10 # seconds
SCHEMA = int(re.search(r"define TR_SCHEMA_VERSION (\d+)", (PROJECT / "bpf/shared/base.h").read_text())[1])


@pytest.mark.parametrize("alice, bob", [("easy", "hard"), ("hard", "easy")])
def test_easy_and_hard_become_direct(lab, programs, alice, bob):
    net = HardNet(lab, alice, bob)
    took = []
    for number in range(TRIES):
        if number:
            net.start_over()
        pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
        pings.wait_for_reply()
        started = time.monotonic()
        if net.becomes_direct(WITHIN + 5):
            took.append(time.monotonic() - started)
        pings.stop()
    print(f"direct after {', '.join(f'{t:.1f}' for t in took)} s; {len(took)} of {TRIES} tries")
    assert sum(t <= WITHIN for t in took) >= 0.9 * TRIES, took


def test_nothing_is_lost_by_the_change_and_much_goes_through(lab, programs):
    net = HardNet(lab, "easy", "hard")
    net.reaches()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.02)
    pings.wait_for_reply()
    assert net.becomes_direct(15)
    time.sleep(1)
    pings.finish()
    WebServer(net.hosts["bob"], (80,), 20_000_000)
    size, _ = wait_for(lambda: fetch(net.hosts["alice"], f"http://{net.bob.ip()}:80/payload", timeout=30), 60, "alice fetches from bob")
    assert size == 20_000_000 and net.is_direct()
    pong = net.alice.cli("ping", "-c", "3", "bob").stdout
    assert f"via {net.nats['bob'].box.address}:" in pong.splitlines()[-1], pong


def test_a_killed_agent_costs_nothing_and_the_next_adopts_what_it_left(lab, programs):
    net = HardNet(lab, "easy", "hard")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    assert net.becomes_direct(15)
    moved, found = net.moves("bob"), net.alice.direct_to("bob")
    assert len(moved) == 1
    for node in (net.bob, net.alice):
        node.program.kill()
        time.sleep(2)
        node.start()
    time.sleep(8) # longer than a path is trusted
    assert net.is_direct() and net.moves("bob") == moved and net.alice.direct_to("bob") == found
    pings.finish()
    net.bob.cli("down")
    wait_for(lambda: net.moves("bob") == [], 5, "nothing is left")


def test_an_upgrade_to_another_schema_of_programs_keeps_the_path(lab, programs):
    net = HardNet(lab, "easy", "hard")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    assert net.becomes_direct(15)
    moved = net.moves("bob")
    net.bob.program.kill()
    net.bob.more = ("--schema", SCHEMA + 1)
    net.bob.start()
    net.bob.program.wait_for_output("packet programs of an older schema replaced", 15)
    wait_for(lambda: net.hosts["bob"].run("ls /sys/fs/bpf/tailrace").stdout.split() == [f"v{SCHEMA + 1}"], 10, "the old pins are gone")
    time.sleep(8) # longer than a path is trusted
    assert net.is_direct() and net.moves("bob") == moved
    pings.finish() # none was lost


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_switched_off_a_path_that_stands_goes_back_to_the_relay_and_loses_nothing(lab, programs, side):
    a_path_ends_when_it_is_switched_off(HardNet(lab, "easy", "hard"), side, by_the_next_agent=True)


def test_the_setting_turns_it_off(lab, programs):
    net = HardNet(lab, "easy", "hard")
    net.alice.cli("set", "--hard-nat-traversal=false")
    assert json.loads(net.alice.cli("debug", "prefs").stdout)["HardNATTraversal"] is False
    net.reaches()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.2)
    seen = net.watch_nat("bob")
    assert not net.becomes_direct(9)
    assert net.relayed()
    assert net.count(seen) < 40, "nobody opens mappings or probes"
    net.alice.cli("set", "--hard-nat-traversal=true")
    net.bob.cli("set", "--hard-nat-traversal=false")
    assert not net.becomes_direct(6)
    assert net.count(seen) < 60
    pings.stop()


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_who_answers_with_icmp_errors_is_left_in_peace(lab, programs, side):
    """alice's NAT refuses what the hard side opens, or bob's refuses probes."""
    net = HardNet(lab, "easy", "hard")
    net.refuse(side)
    net.reaches()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.2)
    seen = net.watch_nat(side)
    wait_for(lambda: "stopped looking for a direct path" in net.node(other(side)).program.output(), 15, "it is noticed")
    sent = net.count(seen)
    assert sent < (300 if side == "alice" else 40), "one ping from each socket, or a few probes to feel"
    assert not net.becomes_direct(12)
    assert net.relayed() and net.count(seen) - sent < 40, "and that was all"
    pings.stop()


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_client_is_asked_and_nothing_comes_of_it(lab, programs):
    net = HardNet(lab, "hard", "easy", bob_is=StockClient)
    net.reaches(20)
    seen = net.watch_nat("bob")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.2)
    pings.wait_for_reply()
    time.sleep(8)
    pings.finish()
    assert net.relayed() and net.count(seen) < 40, "no mapping is opened towards who does not answer"
