"""Two nodes behind NATs, a coordination server, and a relay.

      control 203.0.113.1    relay 203.0.113.2
             |                     |
    ---------+---------------------+------------+-----------------+------ the internet
                                                |                 |
                                             nat-a             nat-b        easy, hard, port-mapped, or none
                                                |                 |
                                              alice              bob
"""
from ..miniupnpd import ALL, Miniupnpd
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import ping
from ..wait import wait_for

# For the box of a NAT: nothing but the relay's UDP comes in.
CUT = """
table ip cut {
    chain in {
        type filter hook prerouting priority -500
        iifname "eth0" ip protocol udp ip saddr != 203.0.113.2 drop
    }
}
"""


class Mesh(TailraceRelay):
    """Two relays, 203.0.113.2 and .3, that are one region."""

    def __init__(self, host):
        key = host.directory / "mesh.key"
        key.write_text("00112233445566778899aabbccddeeff" * 2 + "\n")
        key.chmod(0o600)
        super().__init__(host, "--mesh-key", key)
        self.second = TailraceRelay(host.lab.host("relay-2", address="203.0.113.3"), "--mesh-key", key)
        both = (self, self.second)
        self._links = ["--mesh-with", *(f"https://{relay.host.address}#{relay.cert_name}" for relay in both)]
        for relay in both: # each finds that one of the two is itself
            relay.program.kill()
            relay.start(*self._links)
        node = self.second.derp_map["Regions"]["900"]["Nodes"][0]
        self.derp_map["Regions"]["900"]["Nodes"].append({**node, "Name": "900b"})


class Net:
    """`prepare` is called with the hosts before their agents start."""

    def __init__(self, lab, alice: str, bob: str, bob_is=Agent, relay_is=TailraceRelay, prepare=lambda hosts: None, speaks=ALL):
        self.lab = lab
        lab.internet()
        self.relay = relay_is(lab.host("relay", address="203.0.113.2"))
        self.control = TailraceControl(lab.host("control", address="203.0.113.1"), self.relay.derp_map)
        self.control.create_user("us")
        self.nats = {}
        self.gateways = {} # of NATs of kind port-mapped, which speak these protocols
        self._speaks = speaks
        self.hosts = {name: lab.host(name, self._behind(name, kind)) for name, kind in (("alice", alice), ("bob", bob))}
        prepare(self.hosts)
        self.alice, self.bob = Agent(self.hosts["alice"]), bob_is(self.hosts["bob"])
        for node in (self.alice, self.bob):
            node.up(self.control.url, self.control.create_key("us"))
        wait_for(lambda: self.relay_clients() == 2, 5, "both are connected to the relay")

    def relay_clients(self) -> int:
        shown = self.relay.host.run("ss -Htn state established sport = :443").stdout
        return len(shown.splitlines())

    def _behind(self, name: str, kind: str):
        if kind == "public":
            return None
        self.nats[name] = self.lab.nat(f"nat-{name}", self.lab.internet(), kind)
        if kind == "port-mapped":
            self.gateways[name] = Miniupnpd(self.nats[name], self._speaks)
        return self.nats[name].lan

    def reaches(self, timeout: float = 10) -> None:
        wait_for(lambda: ping(self.hosts["alice"], self.bob.ip(), timeout=1), timeout, "alice pings bob")

    def relayed(self) -> bool:
        peer = self.alice.peer("bob")
        return peer["Relay"] == "lab" and not peer["CurAddr"]
