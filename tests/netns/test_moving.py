"""Nodes that move and boxes that forget while packets flow. Picture: lab/scenarios/paths.py"""
import time

from lab.scenarios.paths import Net
from lab.traffic import Ping, Transfer, ping
from lab.wait import wait_for

TRUST_SECONDS = 6.5


def direct_at(net, address: str) -> bool:
    return net.bob.direct_to("alice").startswith(f"{address}:") and bool(net.alice.direct_to("bob"))


def test_a_client_roams_during_a_transfer(lab, programs):
    net = Net(lab, "public", "easy")
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


def test_a_nat_box_that_starts_over(lab, programs):
    net = Net(lab, "easy", "easy")
    net.reaches()
    bob = net.hosts["bob"]
    wait_for(lambda: ping(bob, net.alice.ip(), timeout=1) and net.bob.direct_to("alice"), 10, "the path is direct")
    pings = Ping(bob, net.alice.ip(), interval=0.05)
    pings.wait_for_reply()
    box = net.nats["alice"].box
    box.nft("flush ruleset")
    box.nft("""table ip nat_box {
        chain leave { type nat hook postrouting priority srcnat; oifname "eth0" udp sport 41641 masquerade to :50000; oifname "eth0" masquerade persistent; }
        chain pass  { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname "lan0" accept; }
        chain box   { type filter hook input priority filter; iifname "eth0" ct state new drop; }
    }""") # another outside port than before
    box.run("conntrack -F")
    wait_for(lambda: net.bob.direct_to("alice").startswith(f"{box.address}:50000"), 20, "the path is direct by the new mapping")
    time.sleep(1)
    assert pings.lost()["lost"] * pings.interval < TRUST_SECONDS + 1


def test_control_away_while_a_relay_starts_over(lab, programs):
    net = Net(lab, "hard", "hard")
    net.reaches()
    net.control.program.kill()
    net.relay.program.kill()
    net.relay.start()
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 5.5, "packets flow again")
    net.control.start()
    wait_for(lambda: all(node["online"] for node in net.control.nodes()), 20, "control is found again")


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
