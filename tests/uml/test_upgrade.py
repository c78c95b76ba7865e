"""The agent of the gateway is upgraded to another schema of packet programs while packets flow. Picture: lab/scenarios/quickstart.py"""
import json
import re
import time

import pytest

from lab.lab import PROJECT
from lab.scenarios.quickstart import Tailnet, refused
from lab.traffic import Knocking, Ping, Transfer, ping
from lab.wait import wait_for

CLOSED = 9999
OLD = int(re.search(r"define TR_SCHEMA_VERSION (\d+)", (PROJECT / "bpf/shared/base.h").read_text())[1])
NEW = OLD + 1
POLICY = """{
  "tagOwners": { "tag:gateway": ["ops@example.com"] },
  "acls": [
    { "action": "accept", "src": ["alice@example.com"], "dst": ["tag:gateway:80,5201"] },
    { "action": "accept", "src": ["tag:gateway"], "dst": ["bob@example.com:*"] }, // so that he sees whom he may not reach
  ],
}"""


@pytest.fixture
def net(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.control.set_policy(POLICY)
    net.join()
    wait_for(lambda: ping(net.hosts["alice"], net.gateway.ip(), timeout=1) and net.alice.direct_to("gateway"), 30, "the path is direct")
    return net


def schemas(net) -> list:
    """Those that have pins on the gateway."""
    pins = net.hosts["gateway"].run("ls /sys/fs/bpf/tailrace", check=False).stdout.split()
    return sorted(int(name[1:]) for name in pins)


def start_as(net, schema: int, wait: bool = True) -> None:
    net.gateway.more = ("--schema", schema)
    net.gateway.start(wait)


class Watch:
    """Traffic that must go on, and traffic that must not come through."""

    def __init__(self, net, seconds: float):
        alice, gateway, address = net.hosts["alice"], net.hosts["gateway"], net.gateway.ip()
        self.knocking = Knocking(alice, gateway, [address, net.gateway.ip(6)], CLOSED)
        self.stranger = Knocking(net.hosts["bob"], gateway, [address], 5201) # where alice may
        self.pings = Ping(alice, address)
        self.pings.wait_for_reply()
        self.transfer = Transfer(alice, gateway, address, seconds)

    def finish(self) -> None:
        assert self.transfer.running(), "the transfer spans all that was done"
        each_second = self.transfer.finish()["each_second"]
        self.pings.finish()
        assert all(each_second), f"bits in each second: {each_second}"
        assert self.knocking.finish() == 0
        assert self.stranger.finish() == 0


@pytest.mark.guest(mem="2G", timeout=240)
def test_an_upgrade_loses_nothing_and_there_is_no_way_back(net):
    before = net.gateway.packet_programs()
    address = net.gateway.ip()
    watch = Watch(net, seconds=20)
    net.gateway.program.kill()
    assert refused(net.hosts["alice"], address, 8080), "the policy holds without the agent"
    start_as(net, NEW)
    net.gateway.program.wait_for_output("packet programs of an older schema replaced", 15)
    wait_for(lambda: schemas(net) == [NEW], 10, "the old pins are gone")
    after = net.gateway.packet_programs()
    assert [name for name, _ in after] == ["tr_egress", "tr_policy"]
    assert not {number for _, number in before} & {number for _, number in after}
    assert refused(net.hosts["alice"], address, 8080)

    net.gateway.program.kill()
    start_as(net, OLD, wait=False)
    assert net.gateway.program.wait(15) == 78
    told = net.gateway.program.output()
    assert re.search(r"^tailraced: the packets of tailrace0 are judged by .* newer tailraced .*; start the newer tailraced", told, re.M), told
    assert (schemas(net), net.gateway.packet_programs()) == ([NEW], after), "everything is as it was"
    assert refused(net.hosts["alice"], address, 8080)
    watch.finish()

    start_as(net, NEW)
    wait_for(net.gateway.running, 15, "the newer agent is back")
    assert net.gateway.packet_programs() == after
    net.gateway.cli("down")
    assert schemas(net) == [], "down leaves no pins"


@pytest.mark.guest(mem="2G", timeout=240)
def test_an_agent_that_is_killed_again_and_again_gets_there(net):
    watch = Watch(net, seconds=25)
    for tries in range(8):
        net.gateway.program.kill()
        start_as(net, NEW, wait=False)
        time.sleep(0.1 * tries) # wherever that is
    net.gateway.program.kill()
    start_as(net, NEW)
    wait_for(lambda: schemas(net) == [NEW], 15, "the old pins are gone")
    assert [name for name, _ in net.gateway.packet_programs()] == ["tr_egress", "tr_policy"]
    watch.finish()
