"""Nodes that move and boxes that forget while packets flow. Bob may be a stock client. Picture: paths.py"""
import time

from .paths import CUT, Net
from ..tailrace import Agent
from ..traffic import Ping, Transfer, ping
from ..wait import wait_for

TRUST_SECONDS = 6.5


def direct_at(net, address: str) -> bool:
    return net.bob.direct_to("alice").startswith(f"{address}:") and bool(net.alice.direct_to("bob"))


def a_client_roams_during_a_transfer(lab, bob_is=Agent) -> None:
    net = Net(lab, "public", "easy", bob_is=bob_is)
    net.reaches()
    alice = net.hosts["alice"]
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1) and direct_at(net, alice.address), 10, "the path is direct")
    pings = Ping(alice, net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    transfer = Transfer(alice, net.hosts["bob"], net.bob.ip(), seconds=14)
    time.sleep(3)
    alice.ip(f"address delete {alice.address}/24 dev eth0", "address add 203.0.113.99/24 dev eth0",
             "route replace default via 203.0.113.254")
    wait_for(lambda: direct_at(net, "203.0.113.99"), 12, "the path is direct from the new address")
    each_second = transfer.finish()["each_second"]
    assert sum(each_second[-3:]) > 0, f"the transfer goes on: {each_second}"
    assert pings.lost()["lost"] * pings.interval < TRUST_SECONDS + 1


def a_path_is_lost_in_one_direction(lab, bob_is=Agent) -> None:
    net = Net(lab, "easy", "easy", bob_is=bob_is)
    net.reaches()
    alice, bob = net.hosts["alice"], net.bob.ip()
    wait_for(lambda: ping(alice, bob, timeout=1) and net.alice.direct_to("bob"), 10, "the path is direct")
    for side in ("alice", "bob"): # one direction at a time
        pings = Ping(alice, bob, interval=0.1)
        pings.wait_for_reply()
        box = net.nats[side].box
        box.nft(CUT)
        time.sleep(1)
        wait_for(lambda: ping(alice, bob, timeout=1), 10, "packets flow over the relay")
        assert net.relayed()
        assert pings.unanswered() * pings.interval < TRUST_SECONDS + 1
        pings.stop()
        box.run("nft delete table ip cut")
        wait_for(lambda: ping(alice, bob, timeout=1) and net.alice.direct_to("bob"), 20, "the path is direct again")


def an_address_comes_beside_the_others(lab) -> None:
    net = Net(lab, "public", "easy")
    net.reaches()
    alice = net.hosts["alice"]
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1) and direct_at(net, alice.address), 10, "the path is direct")
    changes = net.alice.program.output().count("peer path changed")
    pings = Ping(alice, net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    alice.ip("link add containers type bridge", "address add 172.31.7.1/24 dev containers", "link set containers up")
    wait_for(lambda: "172.31.7.1:41641" in net.bob.cli("debug", "paths", "alice").stdout, 10, "others are told of it")
    time.sleep(1)
    assert net.alice.program.output().count("peer path changed") == changes, "the path stays as it is"
    pings.finish()


def start_over(box) -> None:
    """The box of a NAT forgets its mappings, and WireGuard's port of the host behind it is 50000 outside from now on."""
    box.nft("flush ruleset")
    box.nft("""table ip nat_box {
        chain leave { type nat hook postrouting priority srcnat; oifname "eth0" udp sport 41641 masquerade to :50000; oifname "eth0" masquerade persistent; }
        chain pass  { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname "lan0" accept; }
        chain box   { type filter hook input priority filter; iifname "eth0" ct state new drop; }
    }""")
    box.run("conntrack -F")


def a_nat_box_starts_over(lab, bob_is=Agent) -> None:
    net = Net(lab, "easy", "easy", bob_is=bob_is)
    net.reaches()
    bob = net.hosts["bob"]
    wait_for(lambda: ping(bob, net.alice.ip(), timeout=1) and net.bob.direct_to("alice"), 10, "the path is direct")
    pings = Ping(bob, net.alice.ip(), interval=0.05)
    pings.wait_for_reply()
    box = net.nats["alice"].box
    start_over(box)
    wait_for(lambda: net.bob.direct_to("alice").startswith(f"{box.address}:50000"), 20, "the path is direct by the new mapping")
    time.sleep(1)
    assert pings.lost()["lost"] * pings.interval < TRUST_SECONDS + 1


def control_is_away_while_a_relay_starts_over(lab, bob_is=Agent) -> None:
    net = Net(lab, "hard", "hard", bob_is=bob_is)
    net.reaches()
    net.control.program.kill()
    net.relay.program.kill()
    net.relay.start()
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 5.5, "packets flow again")
    net.control.start()
    wait_for(lambda: all(node["online"] for node in net.control.nodes()), 20, "control is found again")


def nats_forget_after_half_a_minute(lab, bob_is=Agent) -> None:
    net = Net(lab, "easy", "easy", bob_is=bob_is)
    for nat in net.nats.values():
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            nat.box.sysctl(f"net.netfilter.{name}", 30)
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 20, "the path is direct")
    for pause in (20, 20, 60): # the last one outlives the mappings
        time.sleep(pause)
        assert ping(alice, net.bob.ip(), timeout=3), "the first packet arrives, by whatever way"
        assert ping(bob, net.alice.ip(), timeout=3)
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 20, "the path is direct again")
