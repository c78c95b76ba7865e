"""Every pair of nodes finds each other, as directly as their networks allow. Picture: lab/scenarios/paths.py"""
import time

import pytest

from lab.scenarios.paths import CUT, Mesh, Net
from lab.stock import Derper, StockClient
from lab.tailrace import TailraceRelay
from lab.traffic import Ping, WebServer, fetch, ping
from lab.wait import wait_for

SECOND_ROUND_AFTER = 5 # of pings; who needs one has missed the moment


@pytest.mark.parametrize("alice, bob", [("public", "public"), ("public", "easy"), ("easy", "public"), ("public", "hard"), ("easy", "easy")])
def test_who_can_be_direct_is(lab, programs, alice, bob):
    net = Net(lab, alice, bob)
    started = time.monotonic()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.02)
    wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 10, "the path is direct")
    assert time.monotonic() - started < SECOND_ROUND_AFTER - 1
    time.sleep(1)
    pings.finish() # not one is lost, the very first included
    pong = net.alice.cli("ping", "-c", "3", "bob").stdout
    assert "via 203.0.113." in pong.splitlines()[-1], pong
    pong = net.alice.cli("ping", "--icmp", "-c", "1", "bob").stdout
    assert pong.startswith(f"pong from bob ({net.bob.ip()}) via ICMP in "), pong


@pytest.mark.parametrize("alice, bob", [("easy", "hard"), ("hard", "hard")]) # with one STUN server nobody knows that his NAT is hard
def test_who_cannot_is_relayed(lab, programs, alice, bob):
    net = Net(lab, alice, bob)
    net.reaches()
    WebServer(net.hosts["bob"], (80,), 1_000_000)
    wait_for(lambda: fetch(net.hosts["alice"], f"http://{net.bob.ip()}:80/payload"), 20, "alice fetches from bob over the relay")
    assert net.relayed(), net.alice.peer("bob")
    done = net.alice.cli("ping", "-c", "2", "bob", check=False)
    assert done.returncode == 1 and "via DERP(lab)" in done.stdout and "direct connection not established" in done.stderr


def test_from_the_relay_to_a_direct_path_no_packet_is_lost(lab, programs):
    net = Net(lab, "easy", "easy")
    box = net.nats["alice"].box
    box.nft(CUT)
    net.reaches()
    assert net.relayed()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.02)
    pings.wait_for_reply()
    box.run("nft delete table ip cut")
    wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 15, "the path is direct")
    time.sleep(1)
    pings.finish()


@pytest.mark.needs("tailscaled", "tailscale")
@pytest.mark.parametrize("bob", ["easy", "hard"])
def test_a_stock_client_behind_a_nat(lab, programs, bob):
    net = Net(lab, "easy", bob, bob_is=StockClient)
    net.reaches(20)
    wait_for(lambda: ping(net.hosts["bob"], net.alice.ip(), timeout=1), 10, "bob pings alice")
    if bob == "hard":
        assert net.relayed()
        return

    def both_direct():
        ping(net.hosts["alice"], net.bob.ip(), timeout=1)
        return net.alice.direct_to("bob").startswith("203.0.113.") and net.bob.direct_to("alice").startswith("203.0.113.")
    wait_for(both_direct, 20, "both are on a direct path")


@pytest.mark.needs("derper")
@pytest.mark.parametrize("bob", ["easy", "hard"])
def test_with_a_stock_relay(lab, programs, bob):
    net = Net(lab, "easy", bob, relay_is=Derper)
    net.reaches()
    if bob == "hard":
        assert net.relayed()
    else:
        wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 10, "the path is direct")


def test_a_relay_that_starts_over_or_moves_is_found_again(lab, programs):
    net = Net(lab, "hard", "hard")
    net.reaches()

    def flows_again(what: str) -> None:
        answered = pings.answered()
        wait_for(lambda: pings.answered() > answered, 5.5, what)
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.1)
    pings.wait_for_reply()
    net.relay.program.stop(timeout=15) # in good order: it says that it goes
    net.relay.start()
    flows_again("packets flow again")
    net.relay.program.kill()
    net.relay.start()
    flows_again("packets flow again after a kill")
    # Elsewhere. The nodes hear of it from control, which reads its map of relays when it starts.
    net.relay.program.kill()
    elsewhere = TailraceRelay(lab.host("elsewhere", address="203.0.113.4"))
    net.control.set_relays(elsewhere.derp_map)
    net.control.program.stop()
    net.control.start()
    flows_again("packets flow over the new relay")
    pings.stop()


def test_two_relays_of_a_region_are_one(lab, programs):
    def without_the_first(hosts):
        hosts["bob"].nft("table ip block { chain out { type filter hook output priority 0; ip daddr 203.0.113.2 reject; }\n}")
    net = Net(lab, "hard", "hard", relay_is=Mesh, prepare=without_the_first)
    net.reaches(20)
    assert net.relayed()
    for relay in (net.relay, net.relay.second):
        seen = relay.metrics()
        assert seen["packets_forwarded_out_total"] > 0 and seen["packets_forwarded_in_total"] > 0
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    net.relay.program.stop(timeout=15) # alice is with the other one before it has gone
    wait_for(lambda: net.relay.second.metrics()["clients"] == 2, 5, "both are at the second relay")
    answered = pings.answered()
    wait_for(lambda: pings.answered() > answered, 5, "packets flow")
    assert pings.lost()["lost"] * pings.interval < 1.5


def test_the_agent_killed_costs_relayed_peers_three_seconds(lab, programs):
    net = Net(lab, "hard", "hard")
    net.reaches()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    net.alice.program.kill()
    net.alice.start()
    before = pings.unanswered()
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 3.5, "packets flow again")
    assert pings.unanswered() - before < 60
    pings.stop()


def test_an_orderly_stop_parks_idle_peers_where_they_can_do_without_us(lab, programs):
    net = Net(lab, "public", "easy")
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    time.sleep(1)
    net.alice.program.stop()
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=2), "without the agent"


def test_netcheck_tells_what_stun_says(lab, programs):
    net = Net(lab, "easy", "hard")
    text = net.alice.cli("netcheck").stdout
    assert "UDP: true" in text and f"IPv4: yes, {net.nats['alice'].box.address}:" in text and "Nearest DERP: Lab" in text
