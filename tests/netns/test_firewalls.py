"""Relayed traffic beside other people's firewalls. Picture: lab/scenarios/paths.py, both NATs hard: nobody is ever direct.

The firewall is on bob. WireGuard sends what is relayed to 127.64.x.y on lo, and the agent brings there what it received.
"""
import shutil

import pytest

from lab.lab import PATH
from lab.scenarios.paths import Net
from lab.tailrace import Agent
from lab.traffic import Ping, WebServer, fetch, ping
from lab.wait import wait_for

MASQUERADE_ALL = """
table ip somebody {
    chain leave { type nat hook postrouting priority srcnat; masquerade; }
}
"""
PAYLOAD_BYTES = 3_000_000


def with_own_copy(host, *folders: str) -> None:
    """The host's own copy of folders that its programs write to."""
    for folder in folders:
        copy = host.directory / folder.strip("/").replace("/", "-")
        host.run(["cp", "-a", folder, copy])
        host.run(["mount", "--bind", copy, folder])


def skip_without(program: str) -> None:
    if shutil.which(program, path=PATH) is None:
        pytest.skip(f"{program} is not installed (scripts/packages-test.txt)")


def masquerade(host) -> None:
    host.nft(MASQUERADE_ALL)


def ufw(host) -> None:
    skip_without("ufw")
    with_own_copy(host, "/etc/ufw", "/etc/default")
    host.run("ufw --force enable", timeout=60)
    assert "Status: active" in host.run("ufw status").stdout


def firewalld(host) -> None:
    skip_without("firewalld")
    skip_without("dbus-daemon")
    with_own_copy(host, "/etc/firewalld", "/var/log")
    host.run("mkdir -p /run/dbus")
    bus = host.start("dbus", ["dbus-daemon", "--system", "--nofork", "--nopidfile", "--print-address"])
    bus.wait_for_output("unix:path")
    host.start("firewalld", ["firewalld", "--nofork", "--nopid"])
    wait_for(lambda: host.run("firewall-cmd --state", check=False).stdout.strip() == "running", 60, "firewalld runs")
    assert "public" in host.run("firewall-cmd --get-default-zone").stdout


def exchange(net) -> None:
    """Pings both ways, bob's first: NAT is decided by the first packet of a flow. And bob fetches from alice, for what he
    asks for comes through his firewall."""
    wait_for(lambda: ping(net.hosts["bob"], net.alice.ip(), timeout=1), 20, "bob pings alice")
    net.reaches()
    got = fetch(net.hosts["bob"], f"http://{net.alice.ip()}:80/payload", 60)
    assert got and got[0] == PAYLOAD_BYTES, got
    assert net.relayed()


@pytest.mark.parametrize("firewall", [masquerade, ufw, firewalld])
def test_relayed_traffic_passes_beside(lab, programs, firewall):
    net = Net(lab, "hard", "hard", prepare=lambda hosts: firewall(hosts["bob"]))
    WebServer(net.hosts["alice"], (80,), PAYLOAD_BYTES)
    exchange(net)
    pings = Ping(net.hosts["bob"], net.alice.ip(), interval=0.05)
    pings.wait_for_reply()
    net.bob.program.kill() # what the next agent adopts is right as well
    net.bob = Agent(net.hosts["bob"])
    pings.stop()
    exchange(net)


def test_a_flushed_ruleset_is_repaired(lab, programs):
    net = Net(lab, "hard", "hard", prepare=lambda hosts: masquerade(hosts["bob"]))
    WebServer(net.hosts["alice"], (80,), PAYLOAD_BYTES)
    exchange(net)
    bob = net.hosts["bob"]
    rules = lambda: bob.run("nft list ruleset", check=False).stdout # noqa: E731
    assert rules().count("notrack") >= 2
    net.bob.program.kill() # else its table is its own
    bob.run("nft flush ruleset")
    assert "notrack" not in rules()
    masquerade(bob)
    net.bob = Agent(bob)
    wait_for(lambda: rules().count("notrack") >= 2, 10, "the rules are there again")
    exchange(net)
    bob.run("nft flush ruleset", check=False) # with the agent alive
    masquerade(bob)
    wait_for(lambda: rules().count("notrack") >= 2, 10, "the rules are there again")
    exchange(net)
