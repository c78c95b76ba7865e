"""Which relay is near, where UDP does not come through, and whether somebody answers in the name of others.

   control .1     relay "dead" .2     relay "alive" .3
        |               |                   |
    ----+---------------+---------+---------+-------+--- the internet 203.0.113.0/24
                                  |                 |
                                alice              bob   no UDP gets out of either
"""
import json

import pytest

from lab.tailrace import Agent, TailraceControl, TailraceRelay
from lab.traffic import ping
from lab.wait import wait_for

NO_UDP = """
table inet no_udp {
    chain leave { type filter hook output priority 0; oifname "eth0" udp dport != 53 drop; %s }
}
"""
NO_ICMP = 'oifname "eth0" icmp type echo-request drop;'
SILENT = "table inet silent { chain come { type filter hook input priority 0; drop; }; }"
PORTAL = """
import http.server
class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://hotel.example/pay")
        self.end_headers()
print("serving", flush=True)
http.server.HTTPServer(("", 8081), Portal).serve_forever()
"""
TO_PORTAL = """
table ip hotel {
    chain come { type nat hook prerouting priority dstnat; iifname "lan0" tcp dport 80 redirect to :8081; }
}
"""


def two_regions(lab, alive):
    """The first region of the map does not answer."""
    lab.host("dead", address="203.0.113.2").nft(SILENT)
    node = alive.derp_map["Regions"]["900"]["Nodes"][0]
    return {"Regions": {
        "900": {"RegionID": 900, "RegionCode": "dead", "RegionName": "Dead", "Nodes": [{**node, "Name": "900a", "IPv4": "203.0.113.2"}]},
        "901": {"RegionID": 901, "RegionCode": "live", "RegionName": "Alive", "Nodes": [{**node, "Name": "901a", "RegionID": 901}]}}}


@pytest.mark.parametrize("also", ["", NO_ICMP])
def test_without_udp_the_relay_that_answers_is_home(lab, programs, also):
    lab.internet()
    relay = TailraceRelay(lab.host("relay", address="203.0.113.3"))
    control = TailraceControl(lab.host("control", address="203.0.113.1"), two_regions(lab, relay))
    control.create_user("us")
    agents = []
    for name in ("alice", "bob"):
        host = lab.host(name)
        host.nft(NO_UDP % also)
        agents.append(Agent(host))
        agents[-1].up(control.url, control.create_key("us"))
    alice, bob = agents
    report = json.loads(alice.cli("netcheck", "--format", "json", timeout=30).stdout)
    assert not report["UDP"] and report["PreferredDERP"] == 901
    assert list(report["RegionLatency"]) == ["901"] and 0 < report["RegionLatency"]["901"] < 3e9
    assert report["ICMPv4"] == (not also)
    assert report["IPv4"] and report["CaptivePortal"] is None
    text = alice.cli("netcheck", timeout=30).stdout
    assert "* UDP: false" in text and "* Nearest DERP: Alive" in text and "- live: " in text
    assert alice.cli("netcheck", "--format", "json-line", timeout=30).stdout.count("\n") == 1
    wait_for(lambda: ping(alice.host, bob.ip(), timeout=1), 20, "alice reaches bob by the relay that is alive")
    assert alice.peer("bob")["Relay"] == "live"


def test_a_captive_portal_is_noticed(lab, programs):
    home = lab.nat("hotel", lab.internet(), "easy")
    relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
    relay.derp_map["Regions"]["900"]["Nodes"][0]["CanPort80"] = True
    control = TailraceControl(lab.host("control", address="203.0.113.1"), relay.derp_map)
    control.create_user("us")
    alice = Agent(lab.host("alice", home.lan))
    alice.up(control.url, control.create_key("us"))
    report = lambda: json.loads(alice.cli("netcheck", "--format", "json", timeout=30).stdout) # noqa: E731
    assert report()["CaptivePortal"] is None, "nobody looks while UDP works"
    alice.host.nft(NO_UDP % "")
    assert report()["CaptivePortal"] is False, "the relay answers the challenge"
    home.box.start("portal", ["/usr/bin/python3", "-c", PORTAL]).wait_for_output("serving")
    home.box.nft(TO_PORTAL)
    assert report()["CaptivePortal"] is True
    assert "* CaptivePortal: true" in alice.cli("netcheck", timeout=30).stdout
