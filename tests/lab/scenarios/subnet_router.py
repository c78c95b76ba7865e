"""A router gives the tailnet the network behind it.

      control .1    relay .2     client .10      router .11
          |            |            |               |
    ------+------------+------------+---------------+------ the internet
                                                    | lan0 192.168.7.1, fd00:7::1
                                                    |
                                  server 192.168.7.10, fd00:7::10

Port 80 of the network is for everybody in the tailnet, 8080 is not.
"""
from ..lab import Lab
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import WebServer, fetch, tcp_opens
from ..wait import NotInTime, wait_for

US = "us@example.com"
LAN, LAN6 = "192.168.7.0/24", "fd00:7::/64"
SERVER, SERVER6 = "192.168.7.10", "fd00:7::10"
PAYLOAD_BYTES = 300_000
POLICY = """{
  "tagOwners": { "tag:router": ["us@example.com"] },
  "autoApprovers": { "routes": { "192.168.0.0/16": ["tag:router"], "fd00::/8": ["tag:router"] }, "exitNode": ["tag:router"] },
  "acls": [
    { "action": "accept", "src": ["us@example.com"], "dst": ["192.168.7.0/24:80", "fd00:7::/64:80", "tag:router:*", "autogroup:internet:*"] },
    { "action": "accept", "src": ["192.168.7.0/24", "fd00:7::/64"], "dst": ["us@example.com:*"] },
  ],
}
"""


class RoutedNet:
    """`prepare` is called with the router's host before its agent starts."""

    def __init__(self, lab: Lab, router_is=Agent, client_is=Agent, control_is=TailraceControl, prepare=lambda host: None):
        self.lab = lab
        lab.internet()
        self.relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = control_is(lab.host("control", address="203.0.113.1"), self.relay.derp_map)
        self.control.create_user(US)
        self.control.set_policy(POLICY)
        self.client_host, self.router_host = lab.host("client"), lab.host("router")
        self.lan = lab.lan(self.router_host, LAN)
        self.router_host.ip("address add fd00:7::1/64 dev lan0 nodad")
        self.server = lab.host("server", self.lan, SERVER)
        self.server.ip(f"address add {SERVER6}/64 dev eth0 nodad", "route add default via fd00:7::1")
        self.web = WebServer(self.server, (80, 8080), PAYLOAD_BYTES)
        prepare(self.router_host)
        self.before = left_behind(self.router_host)
        self.router, self.client = router_is(self.router_host), client_is(self.client_host)

    def forward(self) -> None:
        self.router_host.sysctl("net.ipv4.ip_forward", 1)
        self.router_host.sysctl("net.ipv6.conf.all.forwarding", 1)

    def join(self, router=(f"--advertise-routes={LAN},{LAN6}",), client=("--accept-routes",)) -> None:
        self.router.up(self.control.url, self.control.create_key(US, tags=["tag:router"]), *router)
        self.client.up(self.control.url, self.control.create_key(US), *client)

    def fetches(self, address: str = SERVER, port: int = 80) -> bool:
        host = f"[{address}]" if ":" in address else address
        got = fetch(self.client_host, f"http://{host}:{port}/payload", 3)
        return bool(got) and got[0] == PAYLOAD_BYTES

    def seen_by_server(self) -> str:
        """Who asked for something last, by the server's own log."""
        asked = [line for line in self.web.program.output().splitlines() if "GET /payload" in line]
        return asked[-1].split()[0].removeprefix("::ffff:")


def left_behind(host) -> dict:
    """What an agent may leave on a machine."""
    commands = {"rules": "nft list ruleset", "policy rules": "ip rule", "IPv6 policy rules": "ip -6 rule", "routes": "ip route show table all",
                "IPv6 routes": "ip -6 route show table all", "devices": "ip -br link", "pins": "find /sys/fs/bpf -mindepth 1"}
    # The kernel makes anycast addresses by itself where IPv6 is forwarded.
    return {what: sorted(line for line in host.run(command, check=False).stdout.splitlines() if not line.startswith("anycast"))
            for what, command in commands.items()}


def run(lab: Lab) -> RoutedNet:
    """The whole story, but for the router's going down."""
    net = RoutedNet(lab)
    said = net.router.cli("up", "--login-server", net.control.url, "--auth-key", net.control.create_key(US, tags=["tag:router"]),
                          "--hostname", "router", f"--advertise-routes={LAN},{LAN6}", "--timeout=30s", timeout=40).stdout
    assert "IP forwarding is disabled, subnet routing/exit nodes will not work." in said, said
    assert any("IP forwarding is disabled" in text for text in net.router.status()["Health"])
    net.forward()
    assert not any("forwarding" in text for text in net.router.status()["Health"] or [])
    net.client.up(net.control.url, net.control.create_key(US))
    wait_for(lambda: net.client.peer("router"), 10, "the client knows the router")
    assert not net.fetches(), "routes were taken without --accept-routes"
    assert LAN not in net.client_host.run("ip route show table 52").stdout

    net.client.cli("set", "--accept-routes")
    for address in (SERVER, SERVER6):
        wait_for(lambda: net.fetches(address), 15, f"the client fetches from {address}")
        assert net.seen_by_server() == {SERVER: "192.168.7.1", SERVER6: "fd00:7::1"}[address]
        assert not tcp_opens(net.client_host, address, 8080), "the policy closes port 8080 of the network"

    net.router.cli("set", "--snat-subnet-routes=false")
    for address, own in ((SERVER, net.client.ip()), (SERVER6, net.client.ip(6))):
        wait_for(lambda: net.fetches(address) and net.seen_by_server() == own, 10, f"{address} sees the client's own address")
    net.router.cli("set", "--snat-subnet-routes=true")
    wait_for(lambda: net.fetches() and net.seen_by_server() == "192.168.7.1", 10, "the router's address again")
    return net


def goes_down(net: RoutedNet) -> None:
    """Nothing of ours is left on the router."""
    net.router.cli("down")
    is_clean(net.router_host, net.before)


def is_clean(host, before: dict) -> None:
    def differences() -> list:
        now = left_behind(host)
        return [f"{what}: {line}" for what in now for line in set(now[what]) ^ set(before[what])]
    try:
        wait_for(lambda: not differences(), 10, "the machine is as it was before")
    except NotInTime:
        raise AssertionError(f"left behind, or gone:\n" + "\n".join(differences())) from None
