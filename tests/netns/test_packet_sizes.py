"""How large packets to a peer may be is found out where that is asked for. Picture: lab/scenarios/paths.py"""
import json

import pytest

from lab.scenarios.paths import Net
from lab.stock import StockClient
from lab.tailrace import AGENT_SOCKET, TAILRACE, Agent
from lab.traffic import Ping
from lab.wait import wait_for

POLICY = """{
  "nodeAttrs": [ { "target": ["*"], "attr": ["peer-mtu-enable"] } ],
  "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ]
}"""
# Pings with padding that leave, by whether routers may cut them.
COUNT = """
table ip sizes {
    counter whole {}
    counter cut {}
    chain out {
        type filter hook output priority 0
        udp sport 41641 udp length > 1000 ip frag-off & 0x4000 != 0 counter name whole
        udp sport 41641 udp length > 1000 ip frag-off & 0x4000 == 0 counter name cut
    }
}
"""


def path_mtu(net) -> int:
    text = net.hosts["alice"].run([TAILRACE, "--socket", AGENT_SOCKET, "debug", "paths", "bob", "--json"]).stdout
    return json.loads(text)["Peers"][0]["PathMTU"] or 0


def counted(host, name: str) -> int:
    shown = host.run(["nft", "-j", "list", "counter", "ip", "sizes", name]).stdout
    return next(one["counter"]["packets"] for one in json.loads(shown)["nftables"] if "counter" in one)


@pytest.mark.parametrize("narrow, expected", [(1500, 1500), (1450, 1400), (1300, 1280)])
def test_what_arrives_is_shown(lab, programs, narrow, expected):
    net = Net(lab, "easy", "public", prepare=lambda hosts: hosts["alice"].nft(COUNT))
    net.nats["alice"].box.ip(f"link set eth0 mtu {narrow}")
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    assert path_mtu(net) == 0 and counted(net.hosts["alice"], "whole") == 0, "nobody has asked for it"
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.1)
    net.control.set_policy(POLICY)
    wait_for(lambda: path_mtu(net) == expected, 15, f"packets of {expected} bytes arrive")
    text = net.alice.cli("debug", "paths", "bob").stdout
    assert text.splitlines()[2].endswith(" MTU") and f" {expected}\n" in text, text
    assert counted(net.hosts["alice"], "whole") > 0 and counted(net.hosts["alice"], "cut") == 0
    assert net.hosts["alice"].run("cat /sys/class/net/tailrace0/mtu").stdout.strip() == "1280"
    pings.finish()


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_peer_answers_pings_of_all_sizes(lab, programs):
    class Asking(Net):
        """Alice is told by her administrator."""
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            self.alice.program.stop()
            self.alice = Agent(self.hosts["alice"], more=("--probe-path-mtu=on",))
    net = Asking(lab, "easy", "public", bob_is=StockClient)
    net.nats["alice"].box.ip("link set eth0 mtu 1450")
    net.reaches(20)
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.2)
    wait_for(lambda: path_mtu(net) == 1400, 20, "packets of 1400 bytes arrive")
    pings.stop()
