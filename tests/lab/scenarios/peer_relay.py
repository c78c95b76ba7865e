"""Two nodes behind NATs that no direct path gets through, and a node that relays UDP for them.

      control 203.0.113.1    relay 203.0.113.2 (DERP)      rita 203.0.113.5: a node, with a UDP relay server
             |                     |                         |
    ---------+---------------------+------------+------------+----+------ the internet
                                                |                 |
                                             nat-a             nat-b        both hard
                                                |                 |
                                              alice              bob
"""
from .paths import Net
from ..lab import Lab
from ..stock import StockClient
from ..tailrace import Agent
from ..traffic import Ping, WebServer, fetch
from ..wait import wait_for

RITA, PORT = "203.0.113.5", 40000
POLICY = """{
  "grants": [
    { "src": ["*"], "dst": ["*"], "ip": ["*"] },
    { "src": ["*"], "dst": ["tag:relay"], "app": { "tailscale.com/cap/relay": [{}] } },
  ],
  "tagOwners": { "tag:relay": [] },
}
"""


class PeerRelayNet(Net):
    def __init__(self, lab: Lab, rita_is, bob_is=Agent):
        super().__init__(lab, "hard", "hard", bob_is=bob_is)
        self.control.set_policy(POLICY)
        self.rita = rita_is(lab.host("rita", address=RITA))
        self.rita.up(self.control.url, self.control.create_key("us", tags=("tag:relay",)))
        self.rita.cli("set", f"--relay-server-port={PORT}")
        for node in (self.alice, self.bob):
            wait_for(lambda: node.peer("rita"), 10, f"{node.host.name} knows rita")

    def through_rita(self) -> bool:
        """Whether both say so."""
        return all(node.peer(other).get("PeerRelay", "").startswith(f"{RITA}:{PORT}:vni:") and not node.direct_to(other)
                   for node, other in ((self.alice, "bob"), (self.bob, "alice")))

    def forwarded(self) -> int:
        """Bytes that have come to rita's relay server, by its host's count."""
        shown = self.rita.host.run(["nft", "-j", "list", "counter", "ip", "watch", "seen"]).stdout
        return int(shown.split('"bytes":')[1].split("}")[0])

    def watch(self) -> None:
        self.rita.host.nft(f"""
            table ip watch {{
                counter seen {{ packets 0 bytes 0 }}
                chain in {{ type filter hook input priority 0; udp dport {PORT} counter name seen; }}
            }}""")


def run(lab: Lab, rita_is=StockClient, bob_is=Agent) -> PeerRelayNet:
    net = PeerRelayNet(lab, rita_is, bob_is)
    net.watch()
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply(20)
    wait_for(net.through_rita, 45, "both meet at rita")
    before = net.forwarded()
    WebServer(net.hosts["bob"], (80,), 5_000_000)
    size, _ = wait_for(lambda: fetch(net.hosts["alice"], f"http://{net.bob.ip()}:80/payload", timeout=30), 60, "alice fetches from bob")
    assert size == 5_000_000
    assert net.forwarded() - before >= 5_000_000, "it did not go through rita"
    assert f"peer-relay {RITA}:{PORT}:vni:" in net.alice.cli("status").stdout
    assert f"via peer-relay({RITA}:{PORT}:vni:" in net.alice.cli("ping", "-c", "1", "bob", check=False).stdout
    assert f"peer relay: {RITA}:{PORT}:vni:" in net.alice.cli("debug", "paths", "bob").stdout
    lost = pings.lost()
    print(f"{lost['lost']} of {lost['sent']} pings lost on the way there")

    net.relay.program.kill() # the route needs no DERP, once it is there
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    wait_for(lambda: pings.answered() >= 200, 30, "pings go on without DERP")
    pings.stop()
    assert net.through_rita()
    net.relay.start()
    wait_for(lambda: net.relay_clients() >= 2, 60, "both are back at DERP")

    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    net.rita.program.kill()
    wait_for(lambda: pings.unanswered() > 0, 20, "rita is gone")
    lost_by = pings.answered()
    wait_for(lambda: pings.answered() > lost_by + 20, 30, "DERP carries on")
    assert not net.through_rita()
    lost = pings.lost()
    print(f"{lost['lost'] * 0.05:.1f} s lost with rita")
    assert lost["lost"] * 0.05 < 9, lost # 6.5 s of trust, and what a busy machine adds
    return net
