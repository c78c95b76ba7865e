"""A router gives the tailnet the network behind it.

      control .1    relay .2     client .10      router .11
          |            |            |               |
    ------+------------+------------+---------------+------ the internet
                                                    | lan0 192.168.7.1, fd00:7::1
                                                    |
                                  server 192.168.7.10, fd00:7::10

Port 80 of the network is for everybody in the tailnet, 8080 is not.
"""
import json
import time

from ..lab import BUILD, Lab
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import SlowStream, WebServer, fetch, tcp_opens
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
    """`prepare` is called with the router's host before its agent starts. `behind`: the kinds of NAT that router and client
    are behind, if any."""

    def __init__(self, lab: Lab, router_is=Agent, client_is=Agent, control_is=TailraceControl, prepare=lambda host: None, behind=("", "")):
        self.lab = lab
        lab.internet()
        self.relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = control_is(lab.host("control", address="203.0.113.1"), self.relay.derp_map)
        self.control.create_user(US)
        self.control.set_policy(POLICY)
        self.client_host, self.router_host = (lab.host(name, lab.nat(f"nat-{name}", lab.internet(), nat).lan if nat else None)
                                              for name, nat in (("client", behind[1]), ("router", behind[0])))
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
    commands = {"rules": "nft --stateless --terse list ruleset", "policy rules": "ip rule", "IPv6 policy rules": "ip -6 rule", "routes": "ip route show table all",
                "IPv6 routes": "ip -6 route show table all", "devices": "ip -br link", "pins": "find /sys/fs/bpf -mindepth 1", "resolvers": "cat /etc/resolv.conf",
                "settings": "sysctl -e net.ipv4.conf.all.src_valid_mark net.ipv4.conf.all.rp_filter", "notes": "find /run/tailrace -name '*.src_valid_mark'"}
    # The kernel makes anycast addresses by itself where IPv6 is forwarded.
    return {what: sorted(line for line in host.run(command, check=False).stdout.splitlines() if not line.startswith("anycast"))
            for what, command in commands.items()}


def run(lab: Lab) -> RoutedNet:
    """The whole story, but for the router's going down."""
    net = RoutedNet(lab)
    said = net.router.cli("up", "--login-server", net.control.url, "--auth-key", net.control.create_key(US, tags=["tag:router"]),
                          "--hostname", "router", f"--advertise-routes={LAN},{LAN6}", "--timeout=30s", timeout=40).stdout
    assert said.count("IP forwarding is disabled, subnet routing/exit nodes will not work.") == 1, said
    assert "UDP GRO" not in said, "first things first"
    assert any("IP forwarding is disabled" in text for text in net.router.status()["Health"])
    net.forward()
    assert not any("forwarding" in text for text in net.router.status()["Health"] or [])
    advice = json.loads(net.router.cli("debug", "localapi", "GET", "/localapi/v0/check-udp-gro-forwarding").stdout).get("Warning", "")
    assert advice == "" or advice.startswith("UDP GRO forwarding is suboptimally configured on eth0, "), advice
    said = net.router.cli("set", f"--advertise-routes={LAN},{LAN6}").stdout
    assert said == (f"Warning: {advice}\n" if advice else ""), said
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
    """Nothing of ours is left on the router; nor where the agent ended in the midst of it and somebody cleans up, and once more."""
    net.router.cli("down")
    is_clean(net.router_host, net.before)
    net.router.cli("up", timeout=40)
    wait_for(net.fetches, 20, "all is there again")
    net.router.program.kill()
    for _ in range(2):
        net.router_host.run([*net.router.program_words(), "--cleanup"])
        is_clean(net.router_host, net.before)


def is_clean(host, before: dict) -> None:
    def differences() -> list:
        now = left_behind(host)
        return [f"{what}: {line}" for what in now for line in set(now[what]) ^ set(before[what])]
    try:
        wait_for(lambda: not differences(), 10, "the machine is as it was before")
    except NotInTime:
        raise AssertionError(f"left behind, or gone:\n" + "\n".join(differences())) from None


def joined(lab: Lab, **more) -> RoutedNet:
    net = RoutedNet(lab, **more)
    net.forward()
    net.join()
    return net


def two_sites(net: RoutedNet, other_is=Agent) -> None:
    """A second router, at a site of its own: machines of both networks, which know nothing of a tailnet, talk to each other
    under their own addresses. Each network's gateway is its router."""
    other_host = net.lab.host("other")
    other_lan = net.lab.lan(other_host, "192.168.8.0/24")
    other_host.sysctl("net.ipv4.ip_forward", 1)
    desk = net.lab.host("desk", other_lan, "192.168.8.10")
    net.control.set_policy(POLICY.replace('"acls": [', '"acls": [ { "action": "accept", "src": ["192.168.7.0/24", "192.168.8.0/24"], "dst": ["192.168.7.0/24:80", "192.168.8.0/24:80"] },'))
    WebServer(desk, (80,), PAYLOAD_BYTES)
    other = other_is(other_host)
    settings = ("--accept-routes", "--snat-subnet-routes=false")
    other.up(net.control.url, net.control.create_key(US, tags=["tag:router"]), "--advertise-routes=192.168.8.0/24", *settings)
    net.router.cli("set", *settings)
    for host, address, seen in ((desk, SERVER, "192.168.8.10"), (net.server, "192.168.8.10", SERVER)):
        wait_for(lambda: fetch(host, f"http://{address}/payload", 3), 20, f"{host.name} fetches from {address}")
    assert net.seen_by_server() == "192.168.8.10"
    assert not tcp_opens(desk, SERVER, 8080)


def behind_nat(lab: Lab, router: str, client: str) -> RoutedNet:
    """A router at somebody's home; direct where the client can be reached, over the relay where both are behind hard NATs."""
    net = joined(lab, behind=(router, client))
    for address in (SERVER, SERVER6):
        wait_for(lambda: net.fetches(address), 20, f"the client fetches from {address}")
        assert not tcp_opens(net.client_host, address, 8080), "the policy closes port 8080 of the network"
    return net


def crowd(net: RoutedNet, count: int = 200) -> None:
    """Many clients of one router: they hold their sessions with control (bench/storm), one of them is real. What the packet
    program in force says of each of them is what the policy says."""
    wait_for(net.fetches, 20, "the client fetches")
    known = set(net.router.status()["Peer"])
    storm = net.lab.host("crowd").start("storm", [BUILD / "bench/storm", "--url", net.control.url, "--key", net.control.create_key(US), "--nodes", count])
    began = time.monotonic()
    peers = lambda: net.router_host.run("wg show tailrace0 peers").stdout.split() # noqa: E731
    wait_for(lambda: len(peers()) == len(known) + count, 60, "all are peers of the router", interval=0.5)
    took = time.monotonic() - began
    addresses = [peer["TailscaleIPs"][0] for key, peer in net.router.status()["Peer"].items() if key not in known]
    assert len(addresses) == count and storm.alive()

    def verdicts(port: int) -> list:
        """Whether a packet of each address passes."""
        return [net.router.ask(f"debug-explain?src={address}&dst={SERVER}&port={port}")["Passes"] for address in addresses]
    assert verdicts(80) == [True] * count
    assert verdicts(8080) == [False] * count
    assert net.fetches() and net.fetches(SERVER6), "the real one is served as before"
    assert not tcp_opens(net.client_host, SERVER, 8080)
    resident = next(int(line.split()[1]) for line in open(f"/proc/{net.router.program.pid}/status") if line.startswith("VmRSS"))
    print(f"{count} clients: peers of the router after {took:.1f} s; its agent has {resident // 1024} MB")

    net.control.set_policy(POLICY.replace("192.168.7.0/24:80", "192.168.7.0/24:443"))
    wait_for(lambda: not net.fetches(), 10, "the network is shut to everybody")
    assert verdicts(80) == [False] * count


def modes(lab: Lab) -> None:
    """From the network into the tailnet, with all that keeps it from there; and a client with strict source checks."""
    net = RoutedNet(lab)
    net.forward()
    net.client_host.sysctl("net.ipv4.conf.all.rp_filter", 1)
    net.join(client=())
    WebServer(net.client_host, (80,), PAYLOAD_BYTES)
    net.client.cli("set", "--accept-routes")
    wait_for(net.fetches, 15, "the client fetches from the network")

    reaches_client = lambda: bool(fetch(net.server, f"http://{net.client.ip()}/payload", 2)) # noqa: E731
    net.router.cli("set", "--snat-subnet-routes=false")
    wait_for(reaches_client, 15, "the network reaches the client")
    net.router.cli("set", "--stateful-filtering")
    wait_for(lambda: not reaches_client(), 10, "with stateful filtering it does not")
    assert net.fetches(), "and replies pass"
    net.router.cli("set", "--stateful-filtering=false")
    wait_for(reaches_client, 10, "it does again")

    net.server.ip("address add 100.64.9.9/32 dev lo") # nobody gave it that
    forged = "ping -c 3 -i 0.2 -w 2 -I 100.64.9.9"
    net.server.run(f"{forged} {net.client.ip()}", check=False)
    net.server.run(f"{forged} 192.168.7.1", check=False)
    rules = net.router_host.run("nft list table inet tailrace-tailrace0-forward").stdout
    counted = [int(line.split("packets ")[1].split()[0]) for line in rules.splitlines() if "saddr 100.64.0.0/10" in line]
    assert len(counted) == 2 and min(counted) >= 3, rules

    # The virtual machines of ChromeOS have addresses in the midst of that range.
    net.server.ip("address add 100.115.92.5/32 dev lo")
    net.server.run("ping -c 3 -i 0.2 -w 2 -I 100.115.92.5 192.168.7.1", check=False)
    rules = net.router_host.run("nft list table inet tailrace-tailrace0-forward").stdout
    count = lambda what: next(int(line.split("packets ")[1].split()[0]) for line in rules.split("chain input")[1].splitlines() if what in line) # noqa: E731
    assert count("saddr 100.115.92.0/23") >= 3 and count("saddr 100.64.0.0/10") == counted[0], rules
    guards = lambda: "chain input" in net.router_host.run("nft list table inet tailrace-tailrace0-forward").stdout # noqa: E731
    net.control.set_policy(POLICY.replace('"acls"', '"nodeAttrs": [{ "target": ["tag:router"], "attr": ["disable-linux-cgnat-drop-rule"] }],\n  "acls"'))
    wait_for(lambda: not guards(), 10, "an attribute takes the rules about such sources away")
    net.control.set_policy(POLICY)
    wait_for(guards, 10, "and without it they are back")

    rules_of_client = lambda: net.client_host.run("ip rule").stdout # noqa: E731
    assert "5270:" in rules_of_client()
    net.client_host.run("ip rule delete pref 5270")
    wait_for(lambda: "5270:" in rules_of_client() and net.fetches(), 10, "a rule that somebody took away is there again")
    changes = net.client_host.start("rule-changes", ["ip", "-4", "-o", "monitor", "rule"])
    began = time.monotonic()
    net.client_host.run(["sh", "-c", "for i in $(seq 60); do ip rule delete pref 5270; sleep 0.05; done"], check=False)
    quarrelled = time.monotonic() - began
    wait_for(lambda: "5270:" in rules_of_client() and net.fetches(), 10, "who takes it away again and again gives up at last")
    changes.stop()
    again = [line for line in changes.output().splitlines() if "5270:" in line and "Deleted" not in line]
    assert 5 <= len(again) <= 10 + 2 * quarrelled + 3, f"repaired {len(again)} times in {quarrelled:.1f} s"

    said = net.router.cli("set", "--netfilter-mode=nodivert").stdout
    rules = wait_for(lambda: (text := net.router_host.run("nft list table inet tailrace-tailrace0-forward").stdout) and "hook" not in text and text, 10, "nothing passes through our table")
    assert "saddr 100.64.0.0/10" in rules
    net.router.cli("set", "--netfilter-mode=off")
    wait_for(lambda: "tailrace0-forward" not in net.router_host.run("nft list tables").stdout, 10, "there is no table")
    net.router_host.run("nft list table inet tailrace-tailrace0") # the backstop is no part of it
    net.router.cli("set", "--netfilter-mode=on", "--snat-subnet-routes=true")
    wait_for(net.fetches, 10, "all is as before")
    net.router_host.run("nft delete table inet tailrace-tailrace0-forward")
    wait_for(lambda: net.fetches() and net.seen_by_server() == "192.168.7.1", 10, "what somebody took away is there again")


def overlapping(net: RoutedNet, count: int = 1000) -> None:
    """Many routes, and such as cover the network of the client itself: whoever works on it from there is not cut off, be the route
    there when routes are accepted or come later. Not before somebody asked for that."""
    net.client.cli("set", "--accept-routes=false")
    net.control.set_policy(POLICY.replace('"192.168.0.0/16": ["tag:router"]', '"0.0.0.0/0": ["tag:router"]').replace('"dst": ["192.168.7.0/24:80"', '"dst": ["10.0.0.0/8:*", "203.0.0.0/16:*", "198.51.100.0/24:*", "192.168.7.0/24:80"'))
    far = net.lab.lan(net.lab.internet().switch, "198.51.100.0/24")
    abroad = net.lab.host("abroad", far, "198.51.100.50") # and of somebody who does from elsewhere
    desk = net.lab.host("visitor") # of whoever works on the client, in the same network
    many = [f"10.{i // 256}.{i % 256}.0/24" for i in range(count)]
    offered = [*many, LAN, LAN6, "203.0.113.0/24"]
    net.router.cli("set", f"--advertise-routes={','.join(offered)}")
    session, from_abroad = (SlowStream(host, net.client_host, net.client_host.address, port) for host, port in ((desk, 2222), (abroad, 2223)))
    assert session.goes_on(20) and from_abroad.goes_on(20)
    said = wait_for(lambda: (text := net.client.cli("set", "--accept-routes").stdout) or "Warning" in text and text or net.client.cli("set", "--accept-routes=false").stdout,
                    15, "the client is told before it is done")
    assert "203.0.113.0/24 of router covers the network 203.0.113.0/24 of eth0: this host goes on reaching 203.0.113.0/24 directly" in said, said
    net.client.cli("set", "--accept-routes")
    table = lambda: net.client_host.run("ip route show table 52").stdout # noqa: E731
    way_to_desk = lambda: net.client_host.run(f"ip route get {desk.address}").stdout # noqa: E731
    wait_for(lambda: all(route in table() for route in ("10.0.0.0/24", many[-1], LAN, "throw 203.0.113.0/24")), 20, "all routes are in force but for the one")
    assert table().count("10.") >= count
    wait_for(net.fetches, 15, "among them the one of the network")
    assert any("directly, not through the tunnel" in text for text in net.client.status()["Health"])
    assert "dev eth0" in way_to_desk() and session.goes_on(20), "the session goes on"

    net.router.cli("set", f"--advertise-routes={','.join([*offered, '203.0.0.0/16', desk.address + '/32', '198.51.100.0/24'])}")
    wait_for(lambda: "203.0.0.0/16 dev tailrace0" in table(), 15, "a larger one comes, and one for the very desk")
    assert "tailrace0" in net.client_host.run("ip route get 203.0.7.1").stdout, "what is not of the network goes there"
    assert "dev eth0" in way_to_desk() and session.goes_on(20), "the session goes on"
    wait_for(lambda: "198.51.100.0/24 dev tailrace0" in table(), 10, "and one for abroad")
    assert "tailrace0" in net.client_host.run(f"ip route get {abroad.address}").stdout
    assert from_abroad.goes_on(20), "who came from there is answered there"
    assert SlowStream(abroad, net.client_host, net.client_host.address, 2224).goes_on(20), "and so is who comes now"
    net.client.cli("set", "--netfilter-mode=off")
    assert not from_abroad.goes_on(3), "our rules do that"
    net.client.cli("set", "--netfilter-mode=on")
    assert from_abroad.goes_on(30), "TCP has waited"
    assert net.client.running() and net.client.peer("router")["Online"], "control and the router are reached as before"
    net.client_host.ip("address add 203.0.7.9/24 dev eth0") # it moves into a network that a route covers
    wait_for(lambda: "throw 203.0.7.0/24" in table(), 10, "that one is the host's own at once")
    net.client_host.ip("address delete 203.0.7.9/24 dev eth0")
    wait_for(lambda: "203.0.7.0/24" not in table(), 10, "and no longer")

    said = net.client.cli("set", "--routes-over-lan").stdout
    assert "this host reaches 203.0.113.0/24 through the tunnel, not directly" in said, said
    wait_for(lambda: "tailrace0" in way_to_desk(), 10, "who asks for it gets it")
    assert net.client.running() and net.client.peer("router")["Online"], "control and the router are reached all the same"
    net.client.cli("set", "--routes-over-lan=false")
    wait_for(lambda: "dev eth0" in way_to_desk(), 10, "and back")
    assert session.goes_on(30), "TCP has waited"
    net.client.cli("set", "--accept-routes=false")
    wait_for(lambda: "10.0.0.0/24" not in table(), 10, "no route is left")
    net.router.cli("set", f"--advertise-routes={LAN},{LAN6}")
    net.client.cli("set", "--accept-routes")
