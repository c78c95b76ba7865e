"""Relaying and finding direct paths on kernel WireGuard, which follows the source of what it receives by itself.
Picture: lab/scenarios/paths.py"""
import json
import time

import pytest

from lab.scenarios import moving, underlays
from lab.scenarios.paths import CUT, Net
from lab.tailrace import AGENT_SOCKET, TAILRACE
from lab.traffic import Ping, ping
from lab.wait import wait_for


@pytest.mark.guest(mem="2G", timeout=240)
def test_from_the_relay_to_a_direct_path_and_back(lab, programs):
    net = Net(lab, "easy", "easy")
    net.nats["alice"].box.nft(CUT)
    net.reaches()
    assert net.alice.device_kind() == "kernel WireGuard" and net.relayed()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    net.nats["alice"].box.run("nft delete table ip cut")
    wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 15, "the path is direct")
    pings.finish() # none is lost by the change
    for side in ("alice", "bob"):
        pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.1)
        pings.wait_for_reply()
        net.nats[side].box.nft(CUT)
        wait_for(net.relayed, 12, "the relay carries on")
        wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 10, "packets flow over the relay")
        assert pings.unanswered() < 80
        pings.stop()
        net.nats[side].box.run("nft delete table ip cut")
        wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 20, "the path is direct again")


@pytest.mark.guest(mem="2G", timeout=240)
def test_relayed_peers_survive_a_kill_of_the_agent(lab, programs):
    net = Net(lab, "hard", "hard")
    net.reaches()
    assert net.relayed()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    net.alice.program.kill()
    net.alice.start()
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 5, "packets flow again")
    assert pings.unanswered() < 70
    pings.stop()


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=300)
def test_a_quiet_hour_costs_nothing_and_a_packet_wakes_the_peer(lab, programs):
    net = Net(lab, "easy", "easy")
    net.reaches()
    time.sleep(120)

    def sent() -> int:
        return int(net.hosts["alice"].run("cat /sys/class/net/eth0/statistics/tx_packets").stdout)
    before = sent()
    time.sleep(3600)
    assert sent() - before < 700, "what control and the relay need to know that we live, and nothing for the peer"
    assert net.relayed()

    moving.start_over(net.nats["alice"].box)
    alice = net.hosts["alice"]
    capture = alice.start("capture", [TAILRACE, "--socket", AGENT_SOCKET, "debug", "capture", "--json"])
    net.reaches(5)

    def calls():
        frames = [json.loads(line) for line in capture.output().splitlines()]
        return [frame for frame in frames if frame["Type"] == "call-me-maybe" and frame["Direction"] == "out"]
    wait_for(calls, 10, "alice calls bob")
    here = net.nats["alice"].box.address
    outside = [endpoint for endpoint in calls()[0]["Endpoints"] if endpoint.startswith(f"{here}:")]
    assert outside == [f"{here}:50000"], "she has looked how the world sees her before she calls"
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    capture.stop()


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=300)
def test_nats_that_forget_after_half_a_minute(lab, programs):
    net = Net(lab, "easy", "easy")
    for nat in net.nats.values():
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            nat.box.run(f"sysctl -qw net.netfilter.{name}=30")
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    for _ in range(30): # a loop of ours: with long intervals ping(8) asks for the time until the time has come
        time.sleep(20)
        assert ping(net.hosts["alice"], net.bob.ip(), timeout=2), "a peer that one talks to now and then is never lost"
    for _ in range(3):
        time.sleep(120) # nothing keeps the mappings
        assert ping(net.hosts["alice"], net.bob.ip(), timeout=2), "the first packet arrives, by whatever way"
        wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 10, "the path is direct again")


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=300)
def test_how_long_nats_remember_a_silent_path_is_found_out(lab, programs):
    net = Net(lab, "easy", "easy")
    net.control.set_policy("""{
        "nodeAttrs": [ { "target": ["*"], "attr": ["probe-udp-lifetime"] } ],
        "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ]
    }""")
    for nat in net.nats.values():
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            nat.box.run(f"sysctl -qw net.netfilter.{name}=20")
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    time.sleep(45 + 8 + 28 + 20) # heartbeats end, two pings, and what is lost takes 5 s to be so

    def found(agent, peer):
        return json.loads(agent.cli("debug", "paths", peer, "--json").stdout)["Peers"][0]["UDPLifetime"]
    both = [found(net.alice, "bob"), found(net.bob, "alice")]
    one = [lifetime for lifetime in both if lifetime]
    assert len(one) == 1 and one[0]["OutlivedSeconds"] == 10 and one[0]["LostWithinSeconds"] == 30, both
    prober, peer = (net.alice, "bob") if both[0] else (net.bob, "alice")
    assert "outlived 10 s of it, and was lost within 30 s" in prober.cli("debug", "paths", peer).stdout
    assert 'tailrace_udp_lifetime_cycles_total{outlived_seconds="10"} 1' in prober.cli("metrics").stdout
    assert net.relayed() and ping(net.hosts["alice"], net.bob.ip(), timeout=2)


# For a host: nothing of its peers comes by the LAN.
LAN_CUT = """
table ip lan_cut {
    chain in { type filter hook prerouting priority -500; iifname "eth1" udp dport 41641 drop; }
}
"""


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=300)
@pytest.mark.parametrize("starts_over", [False, True])
def test_a_better_path_is_taken_when_there_is_one(lab, programs, starts_over):
    """Alice and bob share a LAN too, which carries nothing at first."""
    def plug_in(hosts):
        lan = lab.lan(lab.host("switch"), "192.168.77.0/24")
        for host in hosts.values():
            host.plug_into(lan, "eth1")
            host.set_netem("eth0", "delay 10ms")
            host.nft(LAN_CUT)
    net = Net(lab, "public", "public", prepare=plug_in)
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 10, "the path is direct")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.2)
    pings.wait_for_reply()
    if starts_over: # and knows only what WireGuard knows
        net.alice.program.kill()
    for host in net.hosts.values():
        host.run("nft delete table ip lan_cut")
    if starts_over:
        net.alice.start()
    # Path rounds of a slow path come each minute, and an agent that has just started makes one at once.
    wait_for(lambda: net.alice.direct_to("bob").startswith("192.168.77."), 15 if starts_over else 70, "the path is the LAN")
    pings.finish() # none is lost by the change


@pytest.mark.guest(mem="2G", timeout=120)
@pytest.mark.parametrize("family", [4, 6])
def test_discovery_works_on_a_vlan_where_the_firewall_knows_wireguards_port_only(lab, programs, family):
    underlays.discovery_by_wireguards_port_alone(lab, underlays.on_a_vlan, family)
