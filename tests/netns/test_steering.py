"""How path discovery hears on WireGuard's port, which is the kernel's. Picture: lab/scenarios/paths.py"""
import os

import pytest

from lab.scenarios import underlays
from lab.scenarios.paths import Net
from lab.stock import StockClient
from lab.tailrace import Agent, pins_of
from lab.traffic import ping
from lab.wait import wait_for

STEER = "tailrace0-steer"
IN_USE = "The steering program is not in use"


def by_sockets(host):
    return Agent(host, more=("--steering", "socket"))


def health(agent) -> str:
    return "\n".join(agent.status()["Health"] or [])


def goes_direct(net) -> None:
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1) and net.alice.direct_to("bob").startswith("203.0.113."),
             15, "the path is direct")
    pong = net.bob.cli("ping", "-c", "3", "alice").stdout
    assert "via 203.0.113." in pong.splitlines()[-1], pong


def test_raw_sockets_do_when_they_are_asked_for(lab, programs):
    net = Net(lab, "easy", "easy", bob_is=by_sockets)
    goes_direct(net)
    assert f"{IN_USE} (--steering socket was given)" in health(net.bob)
    assert IN_USE in net.bob.cli("status").stdout
    assert IN_USE not in health(net.alice)
    assert "UDP: true" in net.bob.cli("netcheck").stdout


@pytest.mark.needs("tailscaled", "tailscale")
def test_raw_sockets_do_for_a_stock_peer(lab, programs):
    net = Net(lab, "easy", "easy", bob_is=StockClient)
    net.alice.program.stop()
    net.alice = by_sockets(net.hosts["alice"])
    net.reaches(20)

    def both_direct():
        ping(net.hosts["alice"], net.bob.ip(), timeout=1)
        return net.alice.direct_to("bob").startswith("203.0.113.") and net.bob.direct_to("alice").startswith("203.0.113.")
    wait_for(both_direct, 20, "both are on a direct path")


@pytest.mark.parametrize("family", [4, 6])
def test_discovery_works_where_the_firewall_knows_wireguards_port_only(lab, programs, family):
    underlays.discovery_by_wireguards_port_alone(lab, underlays.on_a_bridge, family)


def test_a_program_that_cannot_be_kept_is_done_without(lab, programs):
    def spoil(hosts):
        pins = pins_of(hosts["bob"], STEER)
        hosts["bob"].run(["mkdir", "-p", os.path.dirname(pins)])
        hosts["bob"].run(["ln", "-s", "/nowhere", pins])
    net = Net(lab, "easy", "easy", prepare=spoil)
    goes_direct(net)
    assert IN_USE in health(net.bob)
    assert "no steering program; disco and STUN are received by raw sockets" in net.bob.program.output()

    net.hosts["bob"].run(["rm", pins_of(net.hosts["bob"], STEER)])
    net.bob.cli("down")
    net.bob.cli("up")
    wait_for(lambda: IN_USE not in health(net.bob), 15, "the steering program is in use")
    goes_direct(net)


def test_a_program_that_was_taken_away_comes_back(lab, programs):
    net = Net(lab, "easy", "easy")
    goes_direct(net)
    bob = net.hosts["bob"]
    if bob.run("tc filter show dev eth0 ingress").stdout:
        pytest.skip("this kernel has no TCX links")
    interface = bob.run("cat /sys/class/net/eth0/ifindex").stdout.strip()
    bob.run(["bpftool", "link", "detach", "pinned", f"{pins_of(bob, STEER)}/steer_link_{interface}"])
    net.bob.program.wait_for_output("the steering program was detached from an interface", 10)
    goes_direct(net)
    assert IN_USE not in health(net.bob)
