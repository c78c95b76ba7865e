"""Two routers of one site, and who of them carries its route: approval, fail-over, and what does not move it.

      control 203.0.113.1    relay 203.0.113.2    alice      r1        r2
             |                      |               |         |         |
    ---------+----------------------+---------------+---------+---------+---- the internet
                                                              :         :
                                                   10.7.0.0/24 behind both
"""
import signal
import time

from ..lab import Lab
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import SlowStream, ping
from ..wait import wait_for

ROUTE, OTHER = "10.7.0.0/24", "10.8.0.0/16"
POLICY = """{
  "tagOwners": { "tag:router": ["ops@example.com"] },
  "acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }],
}
"""
STEERING = """{
  "tagOwners": { "tag:router": ["ops@example.com"], "tag:east": ["ops@example.com"] },
  "grants": [
    { "src": ["*"], "dst": ["tag:router", "tag:east"], "ip": ["*"] },
    { "src": ["alice@example.com"], "dst": ["10.7.0.0/24"], "ip": ["*"], "via": ["tag:east"] },
  ],
}
"""
KNOWS_EAST = POLICY.replace('"tag:router": ', '"tag:east": ["ops@example.com"], "tag:router": ')
APPROVING = POLICY.replace('"acls"', '"autoApprovers": { "routes": { "10.8.0.0/16": ["tag:router"] } },\n  "acls"')
CUT_OFF = """table inet cut {
  chain out { type filter hook output priority 0; ip daddr 203.0.113.1 drop; }
  chain in { type filter hook input priority 0; ip saddr 203.0.113.1 drop; }
}
"""
APART = """table inet apart {
  chain in { type filter hook prerouting priority -500; ip saddr ROUTER drop; }
  chain out { type filter hook output priority -500; ip daddr ROUTER drop; }
}
"""
ALL_BUT_CONTROL = """table inet deaf {
  chain in { type filter hook prerouting priority -500; ip saddr 203.0.113.1 accept; iifname "eth0" drop; }
  chain out { type filter hook output priority -500; ip daddr 203.0.113.1 accept; oifname "eth0" drop; }
}
"""
UNREACHED_SECONDS = 3 + 9 + 1.2 # a client trusts a dead direct path for 6.5 s before it takes the relay
GONE_SECONDS = 5.0 # what we promise; other programs on the machine are given some more below
NOISE_SECONDS = 5.0


class Routers:
    def __init__(self, lab: Lab, r1=Agent, r2=Agent, alice=Agent, control_is=TailraceControl):
        """Each is an Agent or a StockClient. What it asks control about health and primary routers only ours knows."""
        self.lab = lab
        internet = lab.internet()
        self.internet = internet
        control_host = lab.host("control", address="203.0.113.1")
        self.relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = control_is(control_host, self.relay.derp_map, policy=POLICY)
        for user in ("ops@example.com", "alice@example.com"):
            self.control.create_user(user)
        self.moved = {} # seconds that each fail-over took
        key = self.control.create_key("ops@example.com", tags=["tag:router"])
        self.routers = {name: make(lab.host(name)) for name, make in (("r1", r1), ("r2", r2))}
        for router in self.routers.values():
            router.up(self.control.url, key, "--advertise-routes", ROUTE)
        self.alice = alice(lab.host("alice"))
        self.alice.up(self.control.url, self.control.create_key("alice@example.com"))
        wait_for(lambda: self.alice.peer("r1") and self.alice.peer("r2"), 15, "alice knows both routers")

    def routes(self, *node) -> dict:
        """What control says of each route, by node and prefix."""
        return {(one["name"], one["route"]): one for one in self.control.json("nodes", "routes", "list", *node)}

    def carriers(self, route: str = ROUTE) -> list:
        """The routers through which alice reaches the route."""
        return [name for name in self.routers if route in (self.alice.peer(name).get("AllowedIPs") or [])]

    def primary(self, route: str = ROUTE) -> list:
        return [name for (name, prefix), one in self.routes().items() if prefix == route and one["primary"]]

    def health(self, name: str) -> str:
        return self.routes()[(name, ROUTE)]["health"]

    def comes_back(self, name: str) -> None:
        """Control sees it. Asked seldom: each time a program is started."""
        wait_for(lambda: self.health(name) in ("on probation", "healthy"), 60, f"{name} is there", interval=0.5)

    def carrier_and_other(self) -> tuple:
        """The names, when both may carry the route and are there."""
        for name in self.routers:
            self.control.cli("nodes", "routes", "approve", name, ROUTE)
        first = wait_for(self.carriers, 15, "somebody carries the route")[0]
        second = "r2" if first == "r1" else "r1"
        self.comes_back(second)
        self.wait_for_carrier(first, "as before")
        return first, second

    def wait_for_carrier(self, name: str, why: str, timeout: float = 15) -> None:
        wait_for(lambda: self.carriers() == [name], timeout, f"alice uses {name}: {why}")
        assert self.primary() == [name]

    def fails_over(self, how: str, to: str, cut, within: float = GONE_SECONDS) -> None:
        start = time.monotonic()
        cut()
        wait_for(lambda: self.carriers() == [to], within + NOISE_SECONDS, f"alice uses {to} after {how}", interval=0.05)
        self.moved[how] = time.monotonic() - start

    def stays_for(self, seconds: float, name: str, why: str) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.carriers() == [name], why
            time.sleep(0.3)


def refuses(control: TailraceControl, *words) -> str:
    done = control.cli("nodes", "routes", *words, check=False)
    assert done.returncode != 0, f"{words} was accepted: {done.stdout}"
    return done.stderr


def approvals(net: Routers) -> None:
    """By hand, by the policy, and what is refused."""
    control = net.control
    assert net.carriers() == [] and not net.routes()[("r1", ROUTE)]["approved"], "an offer alone gives nothing"
    assert "the route is 10.7.0.0/24" in refuses(control, "approve", "r1", "10.7.0.9/24")
    assert "is not a route" in refuses(control, "approve", "r1", "office")
    assert 'no node "r9"' in refuses(control, "approve", "r9", ROUTE)
    assert "own nodes have their addresses" in refuses(control, "approve", "r1", "100.64.0.0/24")
    assert "is not approved" in refuses(control, "revoke", "r1", ROUTE)

    assert "10.7.0.0/24 of r1 is approved" in control.cli("nodes", "routes", "approve", "r1", ROUTE).stdout
    net.wait_for_carrier("r1", "it is the only one")
    assert "10.7.0.0/24 of r2 is approved" in control.cli("nodes", "routes", "approve", "r2", "--all").stdout
    wait_for(lambda: (net.health("r1"), net.health("r2")) == ("healthy", "healthy"), 10, "both are watched", interval=0.5)
    net.wait_for_carrier("r1", "it was there first")
    table = control.cli("nodes", "routes", "list").stdout
    assert [line.split() for line in table.splitlines()] == [
        ["NODE", "ROUTE", "OFFERED", "APPROVED", "PRIMARY", "CARRIES", "FOR", "ROUTER"],
        ["r1", ROUTE, "yes", "by", "hand", "yes", "everybody", "healthy"], ["r2", ROUTE, "yes", "by", "hand", "no", "-", "healthy"]]
    assert ROUTE in control.cli("nodes", "list").stdout and f"Primary router of:  {ROUTE}" in control.cli("nodes", "show", "r1").stdout

    control.cli("nodes", "routes", "approve", "r2", "::/0")
    exits = net.routes("r2")
    assert exits[("r2", "0.0.0.0/0")]["approved"] and exits[("r2", "::/0")]["approved"]
    control.cli("nodes", "routes", "revoke", "r2", "0.0.0.0/0")

    net.routers["r2"].cli("set", "--advertise-routes", f"{ROUTE},{OTHER}")
    wait_for(lambda: ("r2", OTHER) in net.routes(), 10, "r2 offers another route")
    assert net.carriers(OTHER) == []
    control.set_policy(APPROVING)
    wait_for(lambda: net.carriers(OTHER) == ["r2"], 10, "the policy approves it")
    assert net.routes()[("r2", OTHER)]["decidedBy"] == "policy"
    control.cli("nodes", "routes", "revoke", "r2", OTHER)
    wait_for(lambda: net.carriers(OTHER) == [], 10, "it is revoked")
    net.routers["r1"].cli("set", "--advertise-routes", f"{ROUTE},{OTHER}") # makes control look again
    wait_for(lambda: net.carriers(OTHER) == ["r1"], 10, "the policy approves what is offered anew")
    assert not net.routes()[("r2", OTHER)]["approved"], "and does not bring back what a person revoked"
    control.set_policy(POLICY)
    assert net.routes()[("r1", OTHER)]["approved"], "a policy that is withdrawn takes nothing away"
    net.routers["r1"].cli("set", "--advertise-routes", ROUTE)
    net.routers["r2"].cli("set", "--advertise-routes", ROUTE)
    wait_for(lambda: net.carriers(OTHER) == [], 10, "nobody offers it any more")
    assert net.routes()[("r1", OTHER)]["approved"], "but it stays approved"


def failures(net: Routers) -> None:
    """Each time the other one takes over, and keeps the route when the first is back."""
    r1, r2 = net.routers["r1"], net.routers["r2"]
    net.wait_for_carrier("r1", "before anything fails")

    net.fails_over("kill -9", "r2", r1.program.kill)
    r1.start()
    net.comes_back("r1")
    net.stays_for(2, "r2", "nobody who comes back takes over")

    net.fails_over("a pulled cable", "r1", lambda: r2.host.set_plugged(net.internet, "eth0", "down"))
    r2.host.set_plugged(net.internet, "eth0", "up")
    r2.host.ip(f"route replace default via {net.internet.gateway}")
    net.comes_back("r2")
    net.stays_for(2, "r1", "nobody who comes back takes over")

    r1.program.signal(signal.SIGTERM)
    r1.program.wait(10)
    net.stays_for(4, "r1", "an orderly restart is announced")
    r1.start()
    net.comes_back("r1")
    net.stays_for(1, "r1", "it was away for a moment only")

    r1.host.nft(CUT_OFF)
    wait_for(lambda: net.health("r1") == "reached by peers", 15, "peers speak for r1, which control does not hear", interval=0.5)
    net.stays_for(8, "r1", "only control is cut off from it")
    net.fails_over("silence on both ways", "r2", r1.program.kill)
    r1.host.run(["nft", "delete", "table", "inet", "cut"])
    r1.start()
    net.comes_back("r1")


class Site:
    """The network behind both routers, and a machine in it whose gateway is an address that one of them has at a time: what
    VRRP does for a site, here done by hand.

        r1 10.7.0.1    r2 10.7.0.2    server 10.7.0.10
             |              |              |
        -----+------+-------+--------------+-----
                    | gateway 10.7.0.254
    """
    SERVER, GATEWAY = "10.7.0.10", "10.7.0.254"

    def __init__(self, net: Routers):
        self.net = net
        r1, r2 = (net.routers[name].host for name in ("r1", "r2"))
        self.lan = net.lab.lan(r1, ROUTE)
        self.devices = {"r1": "lan0", "r2": "site0"}
        r2.plug_into(self.lan, "site0", "10.7.0.2")
        for host in (r1, r2):
            host.sysctl("net.ipv4.ip_forward", 1)
        self.server = net.lab.host("server", self.lan, self.SERVER)
        self.server.ip(f"route replace default via {self.GATEWAY}")

    def gateway_is(self, name: str) -> None:
        for router, device in self.devices.items():
            host = self.net.routers[router].host
            host.run(["ip", "address", "add" if router == name else "del", f"{self.GATEWAY}/24", "dev", device], check=False)
        self.server.run("ip neigh flush dev eth0") # as a gratuitous ARP of the new one does


def a_flow_over_a_fail_over(net: Routers) -> None:
    """An established TCP flow goes on by the other router where it has no NAT, and does not where it has."""
    site = Site(net)
    for name in ("r1", "r2"):
        net.control.cli("nodes", "routes", "approve", name, ROUTE)
    net.alice.cli("set", "--accept-routes")
    for nat in (False, True):
        for router in net.routers.values():
            router.cli("set", f"--snat-subnet-routes={str(nat).lower()}")
        first = wait_for(net.carriers, 15, "somebody carries the route")[0]
        second = "r2" if first == "r1" else "r1"
        site.gateway_is(first)
        wait_for(lambda: ping(net.alice.host, site.SERVER, timeout=1), 20, "alice reaches the network")
        wait_for(lambda: ping(net.alice.host, net.routers[second].ip(), timeout=1), 20, "and the other router")
        stream = SlowStream(net.alice.host, site.server, site.SERVER, 7000 + nat)
        assert stream.goes_on(20), "it goes by the first router"

        def cut():
            net.routers[first].program.kill()
            net.routers[first].host.run("ip link set tailrace0 down") # a machine that is gone, not an agent
            site.gateway_is(second)
        net.fails_over(f"kill -9 {'with' if nat else 'without'} NAT", second, cut)
        if nat:
            wait_for(lambda: ping(net.alice.host, site.SERVER, timeout=1), 20, "the network is reached by the second router")
            assert not stream.goes_on(10), "with NAT the flow belongs to the router that is gone"
            assert SlowStream(net.alice.host, site.server, site.SERVER, 7002).goes_on(20), "a new one does"
        else:
            assert stream.goes_on(30), "the flow lives on"
        net.routers[first].start()
        net.comes_back(first)


def moves(net: Routers) -> int:
    """How often the route has gone to another router, by control's own log."""
    return sum("a route has another primary router" in line and f"route={ROUTE}" in line for line in net.control.program.output().splitlines())


def flapping(net: Routers) -> None:
    """Up and down, ten times: who flaps loses the route once, and whoever has it keeps it."""
    first, second = net.carrier_and_other()
    flapper = net.routers[first]
    before = moves(net)
    for _ in range(10):
        flapper.cli("down")
        wait_for(lambda: net.carriers() == [second], GONE_SECONDS + NOISE_SECONDS, f"{second} has the route while {first} is down", interval=0.05)
        flapper.cli("up", timeout=30)
        assert net.carriers() == [second], "and while it is up again"
    assert moves(net) == before + 1, "one move in ten times"
    net.comes_back(first)
    net.stays_for(3, second, f"{first} is not trusted yet")
    net.fails_over("the end of the steady one", first, net.routers[second].program.kill)
    net.routers[second].start()
    net.comes_back(second)
    assert moves(net) == before + 2, "who flapped is better than nobody"


def cut_from_the_client(net: Routers) -> None:
    """Only alice does not reach the router, directly: she does over the relay, and nothing moves."""
    carrier = net.primary()[0]
    router = net.routers[carrier]
    before = moves(net)
    wait_for(lambda: ping(net.alice.host, router.ip(), timeout=1) and net.alice.direct_to(carrier), 30, "alice reaches it directly")
    net.alice.host.nft(APART.replace("ROUTER", router.host.address))
    wait_for(lambda: ping(net.alice.host, router.ip(), timeout=1), 20, "alice reaches it over the relay")
    assert net.alice.direct_to(carrier) == ""
    net.stays_for(8, carrier, "everybody else reaches it")
    net.alice.host.run("nft delete table inet apart")
    wait_for(lambda: ping(net.alice.host, router.ip(), timeout=1) and net.alice.direct_to(carrier), 60, "alice reaches it directly again")
    assert moves(net) == before


def heard_by_control_alone(net: Routers) -> None:
    """The carrier's UDP and its relay are cut off, its stream from control is not: its clients are asked, and it goes."""
    carrier, other = net.carrier_and_other()
    router = net.routers[carrier]
    wait_for(lambda: ping(net.alice.host, router.ip(), timeout=1), 20, "alice reaches the carrier")
    net.fails_over("all is cut off but control", other, lambda: router.host.nft(ALL_BUT_CONTROL), UNREACHED_SECONDS)
    assert net.health(carrier) == "not reached by peers", net.routes()
    router.host.run("nft delete table inet deaf")
    net.comes_back(carrier)
    net.stays_for(2, other, "nobody who comes back takes over")


def power_cut(net: Routers, hours: float) -> None:
    """A router without power is gone, its kernel too. For long, where the clock jumps and that takes no time at all."""
    for name in ("r1", "r2"):
        net.control.cli("nodes", "routes", "approve", name, ROUTE)
    first = wait_for(net.carriers, 15, "somebody carries the route")[0]
    second = "r2" if first == "r1" else "r1"
    net.comes_back(second)
    router = net.routers[first]

    def cut():
        router.host.set_plugged(net.internet, "eth0", "down")
        router.program.kill()
    net.fails_over("a power cut", second, cut)
    time.sleep(hours * 3600)
    assert net.carriers() == [second] and net.health(first) not in ("on probation", "healthy")
    router.host.run("ip link delete tailrace0") # what a boot starts without
    router.host.set_plugged(net.internet, "eth0", "up")
    router.host.ip(f"route replace default via {net.internet.gateway}")
    router.start()
    net.comes_back(first)
    time.sleep(hours * 3600)
    assert not hours or net.health(first) == "healthy"
    net.stays_for(2, second, "nobody who comes back takes over")


def restart_of_control(net: Routers) -> None:
    net.wait_for_carrier("r2", "before control restarts")
    net.control.program.kill()
    net.control.start()
    wait_for(lambda: {net.health("r1"), net.health("r2")} <= {"healthy", "on probation"}, 45, "both routers are back", interval=0.5)
    assert net.primary() == ["r2"], "it was r2 before control restarted"
    net.stays_for(2, "r2", "the choice is stored")
    net.control.cli("nodes", "routes", "revoke", "r2", ROUTE)
    net.wait_for_carrier("r1", "r2 may no more")


def steering(net: Routers) -> None:
    """A grant with `via` leads its sources through the routers that it names, whoever is primary."""
    net.control.cli("nodes", "routes", "approve", "r2", ROUTE)
    net.wait_for_carrier("r1", "it kept the route while r2 was not approved")
    net.control.set_policy(KNOWS_EAST)
    net.control.cli("nodes", "tag", "r2", "tag:east")
    net.control.set_policy(STEERING)
    wait_for(lambda: net.carriers() == ["r2"], 10, "the grant leads alice through r2")
    assert net.primary() == ["r1"]
    net.control.set_policy(KNOWS_EAST)
    net.wait_for_carrier("r1", "without the grant she goes where everybody goes")


def run(lab: Lab) -> Routers:
    net = Routers(lab)
    approvals(net)
    failures(net)
    restart_of_control(net)
    steering(net)
    print("seconds until the other router carried the route:", {how: round(took, 2) for how, took in net.moved.items()})
    return net
