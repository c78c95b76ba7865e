"""The main job of tailrace on one machine: a tailnet of a control server, a relay, a gateway and two clients.

      control 203.0.113.1    relay 203.0.113.2    gateway     alice       bob
             |                      |                |          |          |
    ---------+----------------------+----------------+----------+----------+---- the internet, 203.0.113.0/24
"""
from ..lab import Lab
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import WebServer, fetch, tcp_opens
from ..wait import PATIENCE, wait_for

OPS, ALICE, BOB = "ops@example.com", "alice@example.com", "bob@example.com"
FIRST_POLICY = """{
  // Everybody may use the web server of the gateway; its admin port is closed.
  "groups": { "group:staff": ["alice@example.com", "bob@example.com"] },
  "tagOwners": { "tag:gateway": ["ops@example.com"] },
  "acls": [
    { "action": "accept", "src": ["group:staff"], "dst": ["tag:gateway:80"] },
  ],
}
"""
SECOND_POLICY = """{
  // Alice became an administrator. Bob left for the project that only needs port 443.
  "groups": { "group:staff": ["alice@example.com", "bob@example.com"] },
  "tagOwners": { "tag:gateway": ["ops@example.com"] },
  "acls": [
    { "action": "accept", "src": ["alice@example.com"], "dst": ["tag:gateway:80,8080"] },
    { "action": "accept", "src": ["bob@example.com"],   "dst": ["tag:gateway:443"] },
  ],
}
"""
PAYLOAD_BYTES = 4_000_000 // PATIENCE


class Tailnet:
    """The lab of the picture, joined and ready."""

    def __init__(self, lab: Lab, wireguard: str = "auto"):
        self.lab = lab
        lab.internet()
        self.control_host = lab.host("control", address="203.0.113.1")
        self.relay_host = lab.host("relay", address="203.0.113.2")
        self.hosts = {name: lab.host(name) for name in ("gateway", "alice", "bob")}
        self.relay = None
        self.wireguard = wireguard
        self.control = None
        self.agents = {}

    def start_control(self) -> None:
        self.relay = TailraceRelay(self.relay_host)
        self.control = TailraceControl(self.control_host, self.relay.derp_map, policy=FIRST_POLICY)
        for user in (OPS, ALICE, BOB):
            self.control.create_user(user)

    def join(self) -> None:
        keys = {"gateway": self.control.create_key(OPS, tags=["tag:gateway"]),
                "alice": self.control.create_key(ALICE), "bob": self.control.create_key(BOB)}
        for name, host in self.hosts.items():
            self.agents[name] = Agent(host, self.wireguard)
        for name, agent in self.agents.items():
            agent.up(self.control.url, keys[name])
        for name in ("alice", "bob"):
            wait_for(lambda: self.agents[name].peer("gateway"), 10, f"{name} knows the gateway")

    def serve_web(self) -> None:
        WebServer(self.hosts["gateway"], (80, 8080), PAYLOAD_BYTES)

    def url(self, port: int) -> str:
        return f"http://{self.agents['gateway'].ip()}:{port}/payload"

    @property
    def alice(self) -> Agent:
        return self.agents["alice"]

    @property
    def bob(self) -> Agent:
        return self.agents["bob"]

    @property
    def gateway(self) -> Agent:
        return self.agents["gateway"]


def transfers(host, url: str, timeout: float = 5):
    """(bytes, seconds) of a transfer that is complete, else None."""
    got = fetch(host, url, timeout * PATIENCE)
    return got if got and got[0] == PAYLOAD_BYTES else None


def refused(host, address: str, port: int) -> bool:
    return not tcp_opens(host, address, port, timeout=1)


def run(lab: Lab, tell, wireguard: str = "auto") -> Tailnet:
    """The whole story. `tell` gets (sentence) before each step and `tell.show(text)` what there is to see; a step that does not hold raises."""
    net = Tailnet(lab, wireguard)
    tell("A small internet: control, relay, gateway, alice, bob, in network namespaces")
    net.start_control()
    tell("tailrace-control and tailrace-relay serve the tailnet", f"{net.control.url}, SQLite store, base domain tail.lab")
    net.join()
    tell("gateway, alice and bob joined by auth key", f"data plane: {net.gateway.device_kind()} with the policy in eBPF")
    net.serve_web()

    gateway_ip = net.gateway.ip()
    tell("alice sees her peers", show=[("alice", "tailrace status", net.alice.cli("status").stdout)])
    pong = net.alice.cli("ping", "-c", "3", gateway_ip, timeout=30)
    tell("alice pings the gateway over the tunnel", show=[("alice", f"tailrace ping {gateway_ip}", pong.stdout)])
    size, seconds = wait_for(lambda: transfers(net.hosts["alice"], net.url(80)), 10, "alice fetches from the gateway's port 80")
    tell("alice fetches a file from the gateway", f"{size / 1e6:.0f} MB in {seconds:.2f} s ({size * 8 / seconds / 1e6:.0f} Mbit/s) from port 80")
    wait_for(lambda: transfers(net.hosts["bob"], net.url(80)), 10, "bob fetches from the gateway's port 80")
    tell("bob may do the same")

    before = sum(net.gateway.drops().values())
    if not refused(net.hosts["alice"], gateway_ip, 8080):
        raise AssertionError("the first policy must refuse alice on port 8080")
    tell("alice is refused on port 8080", "no rule allows it; the gateway's eBPF program dropped her packets")

    net.control.set_policy(SECOND_POLICY)
    wait_for(lambda: transfers(net.hosts["alice"], net.url(8080)), 10, "alice passes on port 8080 after the change")
    tell("The policy changes live: now alice passes on port 8080")
    wait_for(lambda: refused(net.hosts["bob"], gateway_ip, 80), 10, "bob is refused on port 80 after the change")
    tell("and bob is refused on port 80", "nothing was restarted")

    drops = net.gateway.cli("debug", "drops").stdout
    if sum(net.gateway.drops().values()) <= before:
        raise AssertionError(f"the gateway counted no drops:\n{drops}")
    tell("Every refusal was counted, by reason", show=[("gateway", "tailrace debug drops", drops)])
    return net
