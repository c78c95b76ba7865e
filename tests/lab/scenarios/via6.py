"""Two sites with the same IPv4 network: each router gives it to the tailnet under its site's number, and translates.

      control .1    relay .2     client .10      north .11          south .12
          |            |            |               |                  |
    ------+------------+------------+---------------+------------------+------ the internet
                                        lan0 192.168.7.1        lan0 192.168.7.1
                                                    |                  |
                           site 7: server 192.168.7.10        site 8: server 192.168.7.10

Ports 80, 81 and 9 of site 7 and port 80 of site 8 are for everybody in the tailnet, 8080 is not. Nothing listens on 81.
"""
import re
import time

from ..lab import Lab
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import Transfer, WebServer, fetch, ping, tcp_opens
from ..wait import wait_for
from .fast_path import FIREWALL
from .subnet_router import is_clean, left_behind

US = "us@example.com"
LAN, SERVER = "192.168.7.0/24", "192.168.7.10"
PAYLOAD_BYTES = {"north": 300_000, "south": 200_000} # by which they are told apart
SITES = {"north": 7, "south": 8}
NORTH_ROUTE = "fd7a:115c:a1e0:b1a:0:7::/96" # all of IPv4, so that what must not be reached is offered too
POLICY = """{
  "tagOwners": { "tag:router": ["us@example.com"] },
  "autoApprovers": { "routes": { "fd7a:115c:a1e0:b1a::/64": ["tag:router"] } },
  "acls": [
    { "action": "accept", "src": ["us@example.com"], "dst": ["fd7a:115c:a1e0:b1a:0:7::/96:80,81,9,5201", "fd7a:115c:a1e0:b1a:0:8:c0a8:700/120:80", "tag:router:*"] },
  ],
}
"""
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(data, peer)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect((sys.argv[1], int(sys.argv[2])))
data = bytes(i % 251 for i in range(int(sys.argv[3])))
for attempt in range(3):
    try:
        s.send(data)
        print("echo" if s.recv(65535) == data else "something else")
        break
    except socket.timeout:
        pass
    except ConnectionRefusedError:
        print("refused")
        break
else:
    print("nothing")
"""


def via(site: int, address: str) -> str:
    parts = [int(part) for part in address.split(".")]
    return f"fd7a:115c:a1e0:b1a:0:{site:x}:{parts[0] << 8 | parts[1]:x}:{parts[2] << 8 | parts[3]:x}"


class TwoSites:
    def __init__(self, lab: Lab, router_is=Agent, client_is=Agent, control_is=TailraceControl):
        lab.internet()
        relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = control_is(lab.host("control", address="203.0.113.1"), relay.derp_map)
        self.control.create_user(US)
        self.control.set_policy(POLICY)
        self.client_host = lab.host("client")
        self.hosts, self.servers, self.webs, self.routers = {}, {}, {}, {}
        for name in SITES:
            self.hosts[name] = host = lab.host(name)
            lan = lab.lan(host, LAN)
            host.sysctl("net.ipv4.ip_forward", 1) # of IPv6 nothing is forwarded
            self.servers[name] = server = lab.host(f"server-{name}", lan, SERVER)
            self.webs[name] = WebServer(server, (80, 8080), PAYLOAD_BYTES[name])
        self.echo = self.servers["north"].start("echo", ["/usr/bin/python3", "-c", ECHO])
        self.echo.wait_for_output("ready")
        self.before = left_behind(self.hosts["north"])
        self.routers = {name: router_is(host) for name, host in self.hosts.items()}
        self.client = client_is(self.client_host)

    def join(self) -> None:
        for name, router in self.routers.items():
            route = NORTH_ROUTE if name == "north" else via(SITES[name], "192.168.7.0") + "/120"
            router.up(self.control.url, self.control.create_key(US, tags=["tag:router"]), f"--advertise-routes={route}")
        self.client.up(self.control.url, self.control.create_key(US), "--accept-routes")

    def fetches(self, name: str) -> bool:
        got = fetch(self.client_host, f"http://[{via(SITES[name], SERVER)}]/payload", 5)
        return bool(got) and got[0] == PAYLOAD_BYTES[name]

    def seen_by_server(self, name: str) -> str:
        asked = [line for line in self.webs[name].program.output().splitlines() if "GET /payload" in line]
        return asked[-1].split()[0].removeprefix("::ffff:")

    def is_refused(self, address: str, port: int = 80) -> bool:
        """A reset, not silence."""
        return self.client_host.run(["curl", "-s", "--noproxy", "*", "--max-time", "5", f"http://[{via(7, address)}]:{port}/"], check=False).returncode == 7

    def asks(self, port: int = 9, size_bytes: int = 500) -> str:
        return self.client_host.run(["/usr/bin/python3", "-c", ASK, via(7, SERVER), port, size_bytes], timeout=20).stdout.strip()

    def reaches_both(self) -> None:
        for name, site in SITES.items():
            wait_for(lambda: self.fetches(name), 30, f"the client fetches from the server at site {site}")
            assert self.seen_by_server(name) == "192.168.7.1"
            assert ping(self.client_host, via(site, SERVER), count=2)
        assert not tcp_opens(self.client_host, via(7, SERVER), 8080), "the policy closes port 8080 of the site"
        assert not tcp_opens(self.client_host, via(8, SERVER), 9), "each site has its own rules"
        assert self.asks() == "echo"
        assert self.is_refused("127.0.0.1") and self.is_refused("169.254.169.254"), "what a router must not hand out"
        assert self.is_refused(SERVER, 81), "what the server itself refuses is refused"


def run(lab: Lab) -> TwoSites:
    net = TwoSites(lab)
    said = net.routers["north"].cli("debug", "via", "8", "192.168.7.0/24").stdout.strip()
    assert said == via(8, "192.168.7.0") + "/120", said
    net.join()
    net.reaches_both()
    north = net.routers["north"]
    assert not any("4via6" in text or "forwarding" in text for text in north.status()["Health"] or [])
    assert not ping(net.client_host, via(7, "127.0.0.1"), timeout=1)
    drops = north.drops()
    assert drops["via-reset"] >= 2 and drops["via-refused"] >= 1 and drops["no-rule"] >= 1, drops

    assert net.asks(size_bytes=3000) == "echo", "datagrams in pieces, both ways"
    # An answer of 1,280 bytes is translated to 1,300, 20 more than the tunnel's MTU. WireGuard makes 1,360 of it, what the
    # reference client takes every wire to carry.
    net.hosts["north"].ip("link set eth0 mtu 1360")
    for size in (1232, 1233, 1252, 1253):
        assert net.asks(size_bytes=size) == "echo", f"datagrams of {size} bytes on a narrow wire"
    net.hosts["north"].ip("link set eth0 mtu 1500")
    assert net.asks(port=81) == "refused", "the server's ICMP error comes back"
    said = net.client_host.run(["ping", "-n", "-c", "1", "-w", "3", "-t", "1", via(7, SERVER)], check=False).stdout
    assert re.search(rf"From {north.ip(6)} .*Time exceeded", said), said

    address = via(7, SERVER)
    programs = north.packet_programs()
    assert [name for name, _ in programs].count("tr_via_in") == 1 and len(programs) == 4, programs
    transfer = Transfer(net.client_host, net.servers["north"], address, 10)
    time.sleep(1)
    north.program.kill()
    assert net.fetches("north") and net.asks() == "echo", "new flows come about without the agent"
    assert net.is_refused("127.0.0.1")
    assert not tcp_opens(net.client_host, address, 8080)
    north.start()
    wait_for(north.running, 15, "the agent is back")
    assert net.fetches("north")
    assert north.packet_programs() == programs, "the programs are adopted, not loaded again"
    each_second = transfer.finish()["each_second"]
    assert all(each_second), f"bits in each second: {each_second}"

    north.cli("set", "--snat-subnet-routes=false")
    wait_for(lambda: net.fetches("north") and net.seen_by_server("north") == net.client.ip(), 15, "the server sees the client's own address")
    north.cli("set", "--snat-subnet-routes=true")
    wait_for(lambda: net.fetches("north") and net.seen_by_server("north") == "192.168.7.1", 15, "the router's address again")
    return net


def ends(net: TwoSites) -> None:
    """Without via routes there is no translator, and after "down" there is nothing."""
    north = net.routers["north"]
    north.cli("set", "--advertise-routes=")
    wait_for(lambda: len(north.packet_programs()) == 2, 10, "nothing is translated without routes")
    assert not net.fetches("north") and net.fetches("south")
    north.cli("set", f"--advertise-routes={NORTH_ROUTE}")
    wait_for(lambda: net.fetches("north"), 15, "the route is offered again")
    north.cli("down")
    is_clean(net.hosts["north"], net.before)


def fast(lab: Lab) -> None:
    """Where the kernel has a flow table: translated flows skip the host's rules too, and end with their route."""
    net = TwoSites(lab)
    router, server = net.hosts["north"], net.servers["north"]
    router.nft(FIREWALL)
    net.join()
    wait_for(lambda: net.fetches("north"), 30, "the client fetches from the server")
    arrived = lambda: int(server.run("cat /sys/class/net/eth0/statistics/rx_packets").stdout) # noqa: E731
    seen = lambda: int(router.run("nft list table inet site").stdout.split("counter packets ")[1].split()[0]) # noqa: E731

    def passed_in(seconds: float) -> tuple:
        before = arrived(), seen()
        time.sleep(seconds)
        return arrived() - before[0], seen() - before[1]

    transfer = Transfer(net.client_host, server, via(7, SERVER), 60)
    before = arrived()
    wait_for(lambda: arrived() - before > 200, 10, "the transfer is under way")
    time.sleep(0.5)
    packets, by_the_long_way = passed_in(2)
    assert packets > 500 and by_the_long_way < packets / 20, f"{by_the_long_way} of {packets} packets took the long way"
    north = net.routers["north"]
    north.cli("set", "--advertise-routes=")
    wait_for(lambda: passed_in(1)[0] < 15, 10, "a route that is offered no more ends a flow that was fast")
    north.cli("set", f"--advertise-routes={NORTH_ROUTE}")
    wait_for(lambda: net.fetches("north"), 30, "the route is there again")
    transfer.client.kill()
    transfer._server.stop()
