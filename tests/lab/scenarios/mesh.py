"""Two nodes of any make on any coordination server, both on public addresses.

      control 203.0.113.1     relay 203.0.113.2    alice     bob
             |                      |                |        |
    ---------+----------------------+----------------+--------+---- the internet
"""
from ..lab import Lab
from ..stock import Derper, Headscale, StockClient, binary, derp_map
from ..tailrace import Agent, TailraceControl
from ..traffic import WebServer, fetch, ping, tcp_opens
from ..wait import wait_for

PORT_OPEN, PORT_CLOSED = 80, 8080
POLICY = """{
  "acls": [
    { "action": "accept", "src": ["alice@"], "dst": ["bob@:80"] },
    { "action": "accept", "src": ["bob@"],   "dst": ["alice@:80"] },
  ],
}
"""


class Mesh:
    def __init__(self, lab: Lab, control: str, alice: str, bob: str):
        """control is "tailrace" or "headscale", alice and bob are "tailrace" or "stock"."""
        lab.internet()
        control_host = lab.host("control", address="203.0.113.1")
        self.relay = Derper(lab.host("relay", address="203.0.113.2")) if binary("derper") else None
        relays = self.relay.derp_map if self.relay else derp_map()
        self.control = (TailraceControl if control == "tailrace" else Headscale)(control_host, relays)
        self.hosts = {"alice": lab.host("alice"), "bob": lab.host("bob")}
        self.nodes = {}
        for name, make in (("alice", alice), ("bob", bob)):
            self.control.create_user(name)
            self.nodes[name] = (Agent if make == "tailrace" else StockClient)(self.hosts[name])

    def join(self) -> None:
        for name, node in self.nodes.items():
            node.up(self.control.url, self.control.create_key(name))
            assert node.running(), f"{name} is {node.status()['BackendState']}"

    def pairs(self):
        """(host, node, name of the other, its node), both ways."""
        alice, bob = self.nodes["alice"], self.nodes["bob"]
        return [(self.hosts["alice"], alice, "bob", bob), (self.hosts["bob"], bob, "alice", alice)]


def run(lab: Lab, control: str, alice: str, bob: str) -> Mesh:
    """They see each other, ping each other on a direct path, and the policy holds, both ways."""
    mesh = Mesh(lab, control, alice, bob)
    mesh.join()
    for _, node, other, _ in mesh.pairs():
        wait_for(lambda: node.peer(other), 10, f"{node.host.name} lists {other}")
    for host, _, other, peer in mesh.pairs():
        for family in (4, 6):
            wait_for(lambda: ping(host, peer.ip(family), timeout=1), 15, f"{host.name} pings {other} by IPv{family}")
    for host, node, other, peer in mesh.pairs():
        def direct():
            ping(host, peer.ip(), timeout=1)
            return node.direct_to(other).startswith("203.0.113.")
        wait_for(direct, 20, f"{host.name} has a direct path to {other}")

    for host in mesh.hosts.values():
        WebServer(host, (PORT_OPEN, PORT_CLOSED), 100_000)
    for host, _, other, peer in mesh.pairs(): # without a policy everybody may reach everybody
        wait_for(lambda: fetch(host, f"http://{peer.ip()}:{PORT_CLOSED}/payload"), 10, f"{host.name} reaches {other} before the policy")
    mesh.control.set_policy(POLICY)
    for host, _, other, peer in mesh.pairs():
        address = peer.ip()
        wait_for(lambda: not tcp_opens(host, address, PORT_CLOSED, 1), 15, f"the policy refuses {host.name} on a closed port of {other}")
        wait_for(lambda: fetch(host, f"http://{address}:{PORT_OPEN}/payload"), 10, f"the policy lets {host.name} use an open port of {other}")
        v6 = peer.ip(6)
        assert not tcp_opens(host, v6, PORT_CLOSED, 1), f"{host.name} reaches a closed port of {other} by IPv6"
        assert tcp_opens(host, v6, PORT_OPEN, 5), f"{host.name} does not reach an open port of {other} by IPv6"
    return mesh
