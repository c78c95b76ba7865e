"""The guard against floods of forged handshakes. alice has it, mallory sends them.

    control 203.0.113.1    relay 203.0.113.2    alice    bob    mallory
           |                     |                |       |        |
    -------+---------------------+----------------+-------+--------+------ the internet
"""
import json
import re

import pytest

from lab.flood import FLOOD, Flood
from lab.lab import BUILD
from lab.scenarios.paths import Net
from lab.tailrace import Agent
from lab.traffic import Ping, ping
from lab.wait import wait_for

GUARD = ("--guard", "--guard-rate", "50", "--guard-burst", "200")


def restart(net, *words) -> None:
    net.alice.program.stop()
    net.alice = Agent(net.hosts["alice"], more=words)
    wait_for(net.alice.running, 20, "alice runs again")


def xdp_id(host, interface: str = "eth0"):
    """Number of the program in the driver; 0 for none."""
    link = json.loads(host.run(["ip", "-j", "-d", "link", "show", interface]).stdout)[0]
    return link["xdp"]["prog"]["id"] if link.get("xdp", {}).get("mode") == 1 else 0


def guard_counts(agent) -> dict:
    shown = json.loads(agent.cli("debug", "drops", "--json").stdout)
    return {entry["Reason"]: entry["Packets"] for entry in shown.get("Guard", [])}


def health(agent) -> str:
    return "\n".join(agent.status()["Health"] or [])


@pytest.fixture
def net(lab, programs):
    net = Net(lab, "public", "public")
    net.mallory = lab.host("mallory")
    return net


def goes_direct(net) -> None:
    wait_for(lambda: ping(net.hosts["bob"], net.alice.ip(), timeout=1) and net.bob.direct_to("alice").startswith("203.0.113."),
             20, "the path is direct")


@pytest.mark.skipif(not FLOOD.exists(), reason=f"{FLOOD} is not built")
def test_peers_do_not_notice_a_flood(net):
    restart(net, *GUARD)
    wait_for(lambda: xdp_id(net.hosts["alice"]), 10, "the guard is on eth0")
    goes_direct(net)
    before = guard_counts(net.alice)
    flood = Flood(net.mallory, net.alice, seconds=120, rate=20_000)
    wait_for(lambda: guard_counts(net.alice)["initiations"] > 1000, 20, "the flood is dropped")
    stream = Ping(net.hosts["bob"], net.alice.ip(), interval=0.05)
    wait_for(lambda: stream.answered() > 60, 30, "pings are answered")
    stream.stop()
    assert stream.answered() > 4 * stream.unanswered()
    # A new session, from where bob is known to be.
    net.bob.cli("down")
    net.bob.cli("up")
    wait_for(lambda: ping(net.hosts["bob"], net.alice.ip(), timeout=1), 30, "bob shakes hands again")
    # And from where he was not: his own messages of path discovery come first.
    net.bob.program.stop()
    net.bob = Agent(net.hosts["bob"], port=41700)
    wait_for(lambda: ping(net.hosts["bob"], net.alice.ip(), timeout=1) and net.bob.direct_to("alice").startswith("203.0.113."), 40,
             "bob is direct again")
    assert flood.program.alive()
    sent = flood.finish()
    after = guard_counts(net.alice)
    new = after["new-handshake"] - before["new-handshake"]
    # The budget is what it may be, and the flood found it empty.
    assert 200 <= new <= 200 + 50 * (sent["seconds"] + 5), (sent, after)
    assert after["initiations"] - before["initiations"] > 0.5 * (sent["sent"] - new), (sent, after)
    shown = net.alice.cli("metrics").stdout
    assert re.search(r'tailrace_guard_packets_total\{[^}]*reason="initiations"[^}]*\} [1-9]', shown), shown
    assert re.search(r"tailrace_guard_interfaces 1\b", shown), shown
    assert "drop initiations" in net.alice.cli("debug", "drops").stdout


def test_it_stays_with_the_traffic_and_goes_with_it(net):
    alice = net.hosts["alice"]
    assert not xdp_id(alice), "off by default"
    restart(net, *GUARD)
    wait_for(lambda: xdp_id(alice), 10, "the guard is on eth0")
    goes_direct(net)
    assert not xdp_id(alice, "lo") and not xdp_id(alice, "tailrace0")
    first = xdp_id(alice)
    net.alice.program.kill()
    assert xdp_id(alice) == first
    net.alice.start()
    wait_for(net.alice.running, 20, "alice runs again")
    goes_direct(net)
    assert xdp_id(alice) == first, "adopted"

    # Taken away, and an interface that goes and comes.
    def xdp_links(): # of her guard: other hosts of this kernel have theirs
        program = xdp_id(alice)
        return {link["id"] for link in json.loads(alice.run("bpftool -j link show").stdout) if link.get("prog_id") == program}
    taken = xdp_links()
    assert taken
    for link in taken:
        alice.run(["bpftool", "link", "detach", "id", link])
    wait_for(lambda: xdp_links() - taken, 15, "it is put back, by another link")
    alice.ip("link add cable0 type veth peer name cable1", "address add 10.9.0.1/24 dev cable0", "link set cable0 up", "link set cable1 up")
    wait_for(lambda: xdp_id(alice, "cable0"), 15, "a new interface has it too")
    alice.ip("link delete cable0")

    net.alice.cli("down")
    wait_for(lambda: not xdp_id(alice), 10, "it went with the tunnel")
    net.alice.cli("up")
    wait_for(lambda: xdp_id(alice), 15, "and came with it")
    restart(net)
    wait_for(lambda: not xdp_id(alice), 10, "a start without it takes it away")
    restart(net, *GUARD)
    wait_for(lambda: xdp_id(alice), 10, "the guard is on eth0")
    net.alice.program.stop()
    assert xdp_id(alice), "an orderly stop leaves it"
    alice.run([*net.alice.program_words(), "--cleanup"])
    wait_for(lambda: not xdp_id(alice), 10, "--cleanup takes it away")


def test_an_interface_that_has_another_program_is_named(net):
    alice = net.hosts["alice"]
    alice.run(["bpftool", "prog", "load", BUILD / "bpf/guard.bpf.o", "/sys/fs/bpf/other"])
    alice.run("bpftool net attach xdpdrv pinned /sys/fs/bpf/other dev eth0")
    theirs = xdp_id(alice)
    restart(net, *GUARD)
    goes_direct(net)
    wait_for(lambda: "The guard is not on eth0 (another XDP program is there)" in health(net.alice), 10, "health says so")
    assert xdp_id(alice) == theirs
    alice.run("bpftool net detach xdpdrv dev eth0")
    net.alice.cli("down")
    net.alice.cli("up")
    wait_for(lambda: xdp_id(alice) not in (0, theirs) and "The guard is not" not in health(net.alice), 15, "the guard took the place")
    goes_direct(net)
