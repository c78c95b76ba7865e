"""A hard NAT whose box forwards a port on request (miniupnpd). Picture: lab/scenarios/paths.py, lab/miniupnpd.py"""
import json
import pathlib
import re

import pytest

import lab as lab_package
from lab.miniupnpd import ALL
from lab.scenarios.paths import Net
from lab.traffic import Ping, ping
from lab.wait import wait_for

NAMES = {"pmp": "NAT-PMP", "pcp": "PCP", "upnp": "UPnP"}
FAKE_GATEWAY = pathlib.Path(lab_package.__file__).parent / "fake_gateway.py"
# Counts what leaves beside TCP, and lets it not.
OTHER_THAN_443 = """
table inet other {
    chain out {
        type filter hook output priority 0
        oifname "lo" accept
        oifname "tailrace0" accept
        meta l4proto udp counter drop
        meta l4proto icmp counter drop
    }
}
"""
# What is asked of the gateway and of the group of UPnP, counted on the NAT box.
COUNT = """
table ip asked {
    chain in { type filter hook prerouting priority -200; iifname "lan0" udp dport { 5351, 1900 } counter; }
}
"""


def asked(box) -> int:
    for line in box.run("nft list table ip asked").stdout.splitlines():
        if "counter packets" in line:
            return int(line.split("packets")[1].split()[0])
    raise AssertionError("no counter")


@pytest.mark.parametrize("protocol", ALL)
def test_with_each_protocol_two_hard_nats_are_no_obstacle(lab, programs, protocol):
    net = Net(lab, "port-mapped", "hard", speaks=(protocol,))
    gateway = net.gateways["alice"]
    wait_for(gateway.forwards, 10, f"{NAMES[protocol]} gives a mapping")
    net.reaches()
    wait_for(lambda: net.bob.direct_to("alice") == f"{gateway.address}:41641", 15, "bob sends to the forwarded port")
    wait_for(lambda: net.alice.direct_to("bob").startswith("203.0.113."), 15, "alice is direct, too")
    steady = Ping(net.hosts["bob"], net.alice.ip(), interval=0.02)
    steady.wait_for_reply()
    steady.finish()
    wait_for(lambda: f"PortMapping: {NAMES[protocol]}\n" in net.alice.cli("netcheck").stdout, 15, "netcheck names it") # within its window
    assert f"{gateway.address}:41641" in json.dumps(net.control.nodes()), "control was told"


def test_down_gives_the_mapping_back_and_up_gets_one_again(lab, programs):
    for protocol in ("upnp", "pcp", "pmp"):
        if protocol == "upnp":
            net = Net(lab, "port-mapped", "public", speaks=(protocol,))
            gateway = net.gateways["alice"]
        else:
            gateway.speak((protocol,))
            gateway.restart()
            net.alice.cli("up")
        wait_for(gateway.forwards, 15, f"{protocol}: forwarded")
        net.alice.cli("down")
        wait_for(lambda: not gateway.forwards(), 10, f"{protocol}: given back")


@pytest.mark.parametrize("protocol", ALL)
def test_a_gateway_that_has_forgotten_is_asked_again(lab, programs, protocol):
    net = Net(lab, "port-mapped", "public", speaks=(protocol,))
    gateway = net.gateways["alice"]
    wait_for(gateway.forwards, 10, "forwarded")
    wait_for(lambda: gateway.age() > 5, 10, "the gateway's clock shows what it lost") # RFC 6886 3.6 allows for 2 s
    gateway.restart()
    if protocol == "upnp": # which announces nothing that we listen to
        net.alice.cli("netcheck")
    wait_for(gateway.forwards, 15, "forwarded again")


POLICY = """{
  "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ],
  "nodeAttrs": [ { "target": ["*"], "attr": [%s] } ],
}"""


def test_control_may_forbid_upnp_or_everything_but_tcp_443(lab, programs):
    net = Net(lab, "port-mapped", "public", speaks=("upnp",))
    gateway = net.gateways["alice"]
    wait_for(gateway.forwards, 15, "forwarded")
    net.control.set_policy(POLICY % '"debug-disable-upnp"')
    wait_for(lambda: not gateway.forwards(), 15, "given back")
    wait_for(lambda: "UPnP" not in port_mapping(net.alice), 15, "netcheck does not find it any more")
    net.control.set_policy(POLICY % "")
    wait_for(gateway.forwards, 15, "forwarded again")

    steady = Ping(net.hosts["bob"], net.alice.ip(), interval=0.1)
    steady.wait_for_reply()
    wait_for(lambda: net.alice.direct_to("bob"), 15, "the path is direct")
    net.control.set_policy(POLICY % '"only-tcp-443"')
    wait_for(lambda: not gateway.forwards(), 15, "given back")
    wait_for(lambda: not net.alice.direct_to("bob") and not net.bob.direct_to("alice"), 20, "both are relayed")
    net.alice.host.nft(OTHER_THAN_443)
    net.alice.cli("netcheck", timeout=30)
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=3)
    assert left_beside_tcp(net.alice.host) == 0
    assert not ping(net.hosts["alice"], "203.0.113.2", timeout=1)
    assert left_beside_tcp(net.alice.host) > 0, "it is counted"
    steady.finish() # nothing was lost
    net.alice.host.run("nft delete table inet other")
    net.control.set_policy(POLICY % "")
    wait_for(gateway.forwards, 15, "forwarded again")
    wait_for(lambda: net.alice.direct_to("bob"), 20, "the path is direct again")


def left_beside_tcp(host) -> int:
    return sum(int(packets) for packets in re.findall(r"counter packets (\d+)", host.run("nft list table inet other").stdout))


def port_mapping(node) -> str:
    return next(line for line in node.cli("netcheck", timeout=30).stdout.splitlines() if "PortMapping" in line)


def test_the_agent_killed_finds_its_own_mapping_again(lab, programs):
    net = Net(lab, "port-mapped", "public", speaks=("pcp",)) # which refuses others than the owner
    gateway = net.gateways["alice"]
    wait_for(gateway.forwards, 10, "forwarded")
    net.alice.program.kill()
    assert gateway.forwards(), "the mapping outlives the agent"
    net.alice.start()
    wait_for(lambda: "forwards a port to us at=192.41.0.1:41641" in net.alice.program.output(), 10,
             "the same mapping")
    assert len(gateway.forwards()) == 1


def test_without_a_gateway_that_forwards_little_is_asked(lab, programs):
    net = Net(lab, "hard", "hard")
    box = net.nats["alice"].box
    box.nft(COUNT)
    net.alice.program.kill()
    net.alice.start()
    wait_for(lambda: asked(box) == 5, 10, "one search: NAT-PMP, PCP, and UPnP three times")
    net.reaches()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05) # measures every 20 s
    pings.wait_for_reply()
    assert net.relayed()
    net.bob.cli("netcheck")
    wait_for(lambda: pings.answered() > 100, 20, "a hundred pings")
    pings.stop()
    assert asked(box) == 5, "no second search so soon"
    assert "PortMapping: \n" in net.alice.cli("netcheck").stdout
    assert asked(box) == 10, "somebody wants to know"


def test_it_can_be_switched_off(lab, programs):
    net = Net(lab, "port-mapped", "public")
    wait_for(net.gateways["alice"].forwards, 10, "forwarded")
    net.alice.program.stop()
    net.nats["alice"].box.nft(COUNT)
    net.alice.more = ["--no-port-mapping"]
    net.alice.start()
    net.reaches()
    assert "PortMapping: not checked" in net.alice.cli("netcheck").stdout
    assert asked(net.nats["alice"].box) == 0


@pytest.mark.parametrize("location, redirect", [
    ("http://{mallory}:8080/root.xml", "-"), ("http://{gateway}:5000/root.xml", "http://{mallory}:8080/root.xml"),
    ("http://{gateway}:5000/root.xml", "-")], ids=["foreign location", "redirect", "endless XML"])
def test_a_bad_gateway_leads_us_nowhere(lab, programs, location, redirect):
    net = Net(lab, "hard", "public")
    box, lan = net.nats["alice"].box, net.nats["alice"].lan
    mallory = lab.host("mallory", lan)
    places = {"mallory": mallory.address, "gateway": lan.gateway}
    web = mallory.start("web", ["/usr/bin/python3", "-u", "-m", "http.server", "8080"])
    bad = box.start("bad", ["/usr/bin/python3", FAKE_GATEWAY, lan.gateway, location.format(**places), redirect.format(**places), 1 << 30])
    wait_for(lambda: "ready" in bad.output(), 10, "the bad gateway serves")
    wait_for(lambda: "Serving" in web.output(), 10, "mallory serves")
    wait_for(lambda: "PortMapping: UPnP" in net.alice.cli("netcheck", timeout=30).stdout, 30, "the bad gateway is found")
    assert "search" in bad.output()
    if "{gateway}" in location:
        assert "GET /root.xml" in bad.output()
    assert "GET" not in web.output(), web.output()
    assert net.alice.running() and "forwards a port" not in net.alice.program.output()
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=5)
