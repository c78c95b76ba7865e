"""The agent of the gateway is killed while packets flow. Picture: lab/scenarios/quickstart.py"""
import json
import time

import pytest

from lab.scenarios.quickstart import PAYLOAD_BYTES, Tailnet, refused
from lab.traffic import Knocking, Ping, Transfer, fetch, ping
from lab.wait import wait_for

OPEN, CLOSED = 80, 9999


@pytest.fixture
def net(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.control.set_policy("""{
      "tagOwners": { "tag:gateway": ["ops@example.com"] },
      "acls": [ { "action": "accept", "src": ["alice@example.com", "bob@example.com"], "dst": ["tag:gateway:80,5201"] } ],
    }""")
    net.join()
    net.serve_web()
    wait_for(lambda: ping(net.hosts["alice"], net.gateway.ip(), timeout=1), 10, "the tunnel works")
    wait_for(lambda: ping(net.hosts["alice"], net.gateway.ip(), timeout=1) and net.alice.direct_to("gateway"), 30, "the path is direct")
    return net


def device(net) -> dict:
    """What must be the same device and the same session afterwards."""
    host = net.hosts["gateway"]
    link = json.loads(host.run("ip -j -d link show tailrace0").stdout)[0]
    lines = host.run("wg show tailrace0 latest-handshakes").stdout.splitlines()
    return {"ifindex": link["ifindex"], "sessions": {line for line in lines if not line.endswith("\t0")}}


@pytest.mark.guest(mem="2G", timeout=240)
def test_nothing_is_lost_and_nothing_passes_that_should_not(net):
    gateway = net.gateway
    address, url = gateway.ip(), net.url(OPEN)
    knocking = Knocking(net.hosts["alice"], net.hosts["gateway"], [address, gateway.ip(6)], CLOSED)
    pings = Ping(net.hosts["alice"], address)
    pings.wait_for_reply()
    before, programs_before = device(net), gateway.packet_programs()
    transfer = Transfer(net.hosts["alice"], net.hosts["gateway"], address, seconds=18)
    time.sleep(2)
    gateway.program.kill()
    time.sleep(3)
    assert transfer.running()
    assert ping(net.hosts["alice"], address), "the tunnel works without the agent"
    assert refused(net.hosts["alice"], address, 8080), "the policy holds without the agent"
    assert fetch(net.hosts["bob"], url)[0] == PAYLOAD_BYTES, "a new connection that the policy allows comes about"

    gateway.start()
    wait_for(gateway.running, 15, "the agent is back")
    time.sleep(1)
    assert device(net)["ifindex"] == before["ifindex"]
    assert before["sessions"] and device(net)["sessions"] >= before["sessions"], "the sessions are the same"
    assert len(programs_before) == 2 and gateway.packet_programs() == programs_before, "the programs are adopted, not loaded again"
    assert refused(net.hosts["alice"], address, 8080)

    pings.finish()
    each_second = transfer.finish()["each_second"]
    assert all(each_second), f"bits in each second: {each_second}"
    assert knocking.finish() == 0


@pytest.mark.guest(mem="2G", timeout=240)
def test_an_orderly_restart_loses_nothing_either(net):
    pings = Ping(net.hosts["alice"], net.gateway.ip())
    pings.wait_for_reply()
    net.gateway.program.stop()
    time.sleep(1)
    net.gateway.start()
    wait_for(net.gateway.running, 15, "the agent is back")
    pings.finish()
    assert refused(net.hosts["alice"], net.gateway.ip(), 8080)
