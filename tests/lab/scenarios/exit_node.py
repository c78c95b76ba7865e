"""A client's internet traffic goes by an exit node, and nothing ever leaves past it.

      site 198.51.100.50, 2001:db8:f::50
          |
    ------+------+------------+------------+-------------+-------+--- the internet
                 |            |            |             |       |
             control .1    relay .2    exit-a .20    exit-b .21  |
                                                                 |
                                                         home (NAT) 192.168.1.1, fd00:1::1
                                                                 |
                                          client, printer 192.168.1.20, fd00:1::20

The site is in a network of its own, for an exit node gives nobody the networks that it is attached to.

The client sends all the time to the site, the printer and the resolver at 192.168.1.1, and everything is watched that
leaves its eth0. The names that it looks up are those that the exit node's resolver knows; its own, at 192.168.1.1, is there
to hear it.
"""
import time

from ..lab import Lab
from ..nameserver import NameServer
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import LeakWatch, Probes, WebServer, fetch
from ..wait import wait_for
from .subnet_router import POLICY, US, is_clean, left_behind

SITE, SITE6, PRINTER, RESOLVER = "198.51.100.50", "2001:db8:f::50", "192.168.1.20", "192.168.1.1"
EXITS = {"exit-a": ("203.0.113.20", 0x20), "exit-b": ("203.0.113.21", 0x21)}
CONTROL, RELAY = "203.0.113.1", "203.0.113.2"
PAYLOAD_BYTES = 50_000
FORGET = """ip link delete tailrace0
for family in -4 -6; do
    ip $family route flush table 52
    for pref in 5210 5230 5250 5270; do ip $family rule delete pref $pref; done
done"""


class ExitNet:
    def __init__(self, lab: Lab, exit_is=Agent, client_is=None, control_is=TailraceControl):
        self.lab = lab
        internet = lab.internet()
        self.relay = TailraceRelay(lab.host("relay", address=RELAY))
        self.control = control_is(lab.host("control", address=CONTROL), self.relay.derp_map)
        self.control.create_user(US)
        self.control.set_policy(POLICY)
        far = lab.lan(internet.switch, "198.51.100.0/24")
        internet.switch.ip("address add 2001:db8:f::1/64 dev lan0 nodad")
        internet.switch.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.site = lab.host("site", far, SITE)
        self.site.ip(f"address add {SITE6}/64 dev eth0 nodad", "route add default via 2001:db8:f::1")
        self.web = WebServer(self.site, (80,), PAYLOAD_BYTES)
        self.exits, self.names = {}, {}
        for name, (address, number) in EXITS.items():
            host = lab.host(name, address=address)
            host.add_v6(number)
            for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter"):
                host.sysctl(setting, 1)
            self.names[name] = NameServer(host, value=address)
            self.exits[name] = exit_is(host)
        self.home = lab.nat("home", internet, "easy", "192.168.1.0/24")
        self.home.box.ip("address add fd00:1::1/64 dev lan0 nodad")
        self.client_host = lab.host("client", self.home.lan)
        (self.client_host.directory / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        self.home_names = NameServer(self.home.box, RESOLVER, "192.0.2.1")
        self.printer = lab.host("printer", self.home.lan, PRINTER)
        for host, number in ((self.client_host, 10), (self.printer, 20)):
            host.ip(f"address add fd00:1::{number}/64 dev eth0 nodad", "route add default via fd00:1::1")
        self.client_host.sysctl("net.ipv4.conf.all.rp_filter", 1)
        WebServer(self.printer, (80,), PAYLOAD_BYTES)
        self.before = left_behind(self.client_host)
        self.client = client_is(self.client_host) if client_is else Agent(self.client_host, more=["--no-port-mapping"])

    def join(self) -> None:
        for name, agent in self.exits.items():
            agent.up(self.control.url, self.control.create_key(US, tags=["tag:router"]), "--advertise-exit-node")
        self.client.up(self.control.url, self.control.create_key(US))
        for name in EXITS:
            wait_for(lambda: self.client.peer(name).get("ExitNodeOption"), 15, f"{name} is an exit node for the client")

    def fetches(self, address: str = SITE) -> bool:
        host = f"[{address}]" if ":" in address else address
        got = fetch(self.client_host, f"http://{host}/payload", 3)
        return bool(got) and got[0] == PAYLOAD_BYTES

    def looks_up(self, name: str) -> str:
        """The address that the client's own programs find; a name asked for once may be kept for a while."""
        found = self.client_host.run(["getent", "ahostsv4", name], check=False, timeout=30).stdout.split()
        return found[0] if found else ""

    def seen_by_site(self) -> str:
        asked = [line for line in self.web.program.output().splitlines() if "GET /payload" in line]
        return asked[-1].split()[0].removeprefix("::ffff:")

    def goes_by(self, name: str) -> None:
        """The client's traffic reaches the site, both families, from that exit node."""
        address, number = EXITS[name]
        wait_for(lambda: self.fetches() and self.seen_by_site() == address, 30, f"the client is seen as {name}")
        wait_for(lambda: self.fetches(SITE6) and self.seen_by_site() == f"2001:db8::{number:x}", 15, f"the same with IPv6")

    def asks(self, name: str) -> None:
        """The client's questions about names are answered by the resolver of that exit node, and heard by no other."""
        wait_for(lambda: self.looks_up("www.example") == EXITS[name][0], 20, f"the client looks names up at {name}")


class NothingLeaks:
    """From its making on. `check(what)` fails with what left."""

    def __init__(self, watch: LeakWatch):
        self.watch, self.since = watch, time.time()

    def check(self, what: str) -> None:
        time.sleep(0.5) # so that what left is printed
        assert self.watch.alive()
        leaked = self.watch.seen_since(self.since)
        assert not leaked, f"{what}: {len(leaked)} packets left past the tunnel, the first ones:\n" + "\n".join(leaked[:5])


def run(lab: Lab) -> ExitNet:
    net = ExitNet(lab)
    net.join()
    host, client = net.client_host, net.client
    probes = Probes(host, [(SITE, 9), (SITE6, 9), (PRINTER, 9), (RESOLVER, 53), ("fd00:1::20", 9)])
    watch = LeakWatch(host, (CONTROL, RELAY))
    begin = time.time()
    wait_for(lambda: len(watch.seen_since(begin)) > 20, 10, "the watch sees what leaves without an exit node")
    assert net.fetches() and net.seen_by_site() == net.home.box.address
    wait_for(lambda: net.looks_up("before.example") == "192.0.2.1", 10, "names are asked for at home")

    client.cli("set", "--exit-node=exit-a")
    closed = NothingLeaks(watch)
    net.goes_by("exit-a")
    net.asks("exit-a")
    closed.check("switched on")
    table = host.run("ip route show table 52").stdout + host.run("ip -6 route show table 52").stdout
    assert table.count("unreachable default") == 2, table
    assert "throw 127.0.0.0/8" in table and "192.168.1.0/24 dev tailrace0" in table, table
    assert "exit node" in next(line for line in client.cli("status").stdout.splitlines() if " exit-a " in line)
    listed = client.cli("exit-node", "list").stdout
    assert any("exit-a" in line and line.rstrip().endswith("selected") for line in listed.splitlines()), listed
    assert not net.fetches(PRINTER), "the network at home is reached without --exit-node-allow-lan-access"

    client.cli("set", "--exit-node=auto:any")
    chosen = wait_for(lambda: next((name for name in EXITS if client.peer(name).get("ExitNode")), None), 15, "auto:any chooses")
    assert f"--exit-node={chosen}" in client.cli("exit-node", "suggest").stdout
    net.goes_by(chosen)
    closed.check("somebody is chosen")
    client.cli("set", "--exit-node", client.peer("exit-b")["TailscaleIPs"][0])
    net.goes_by("exit-b")
    net.asks("exit-b")
    assert net.looks_up("exit-b") == client.peer("exit-b")["TailscaleIPs"][0], "those of the tailnet are answered here"
    closed.check("changed to another exit node")

    wait_for(lambda: client.direct_to("exit-b"), 20, "there is a direct path, which does not need the agent")
    client.program.kill()
    time.sleep(1.5)
    wait_for(net.fetches, 10, "the tunnel outlives the agent")
    client.start()
    net.goes_by("exit-b")
    closed.check("the agent was killed and came back")

    host.ip("link set tailrace0 down")
    net.goes_by("exit-b")
    closed.check("somebody took the device down")

    host.ip("link delete tailrace0")
    net.goes_by("exit-b")
    closed.check("somebody deleted the device")

    host.sysctl("net.ipv6.conf.tailrace0.disable_ipv6", 1)
    wait_for(net.fetches, 15, "IPv4 goes on")
    assert not net.fetches(SITE6)
    closed.check("the device lost IPv6")
    host.sysctl("net.ipv6.conf.tailrace0.disable_ipv6", 0)
    wait_for(lambda: client.ip(6) in host.run("ip -6 address show tailrace0").stdout, 2.5, "the address is back at once, and not when all is looked at")
    net.goes_by("exit-b")
    closed.check("it has IPv6 again")

    client.program.kill()
    host.run(["sh", "-c", FORGET], check=False)
    assert net.fetches(), "as after a boot everything is open"
    fleet = host.directory / "fleet.yaml"
    fleet.write_text(f"login-server: {net.control.url}\nexit-node: exit-b\n")
    never_started = [host.directory / "never" if word == client.state else word for word in client.program_words()]
    host.run([*never_started, "--config", fleet, "--close"])
    assert not net.fetches(), "an exit node that only a configuration names"
    host.run(["sh", "-c", FORGET], check=False)
    assert net.fetches()
    host.run([*client.program_words(), "--close"])
    closed = NothingLeaks(watch)
    time.sleep(1)
    assert not net.fetches() and not net.fetches(SITE6)
    closed.check("a boot, before the agent starts")
    client.start()
    net.goes_by("exit-b")
    closed.check("the agent starts after a boot")

    client.program.kill()
    host.ip("link delete tailrace0")
    time.sleep(1.5)
    assert not net.fetches() and not net.fetches(SITE6)
    closed.check("neither agent nor device")

    net.control.program.kill()
    client.start()
    net.goes_by("exit-b")
    net.asks("exit-b")
    closed.check("the agent came back without control")

    client.program.kill()
    host.ip("link delete tailrace0")
    for cache in client.state.glob("profile-data/*/netmap-cache"):
        cache.unlink()
    client.start()
    time.sleep(1.5)
    assert not net.fetches()
    assert any("exit node is chosen" in text for text in client.status()["Health"]), client.status()["Health"]
    closed.check("the agent knows nothing of the tailnet yet")
    net.control.start()
    net.goes_by("exit-b")
    closed.check("control is back")

    host.ip("link set eth0 down", "link set eth0 up", f"route replace default via {RESOLVER}", "address replace fd00:1::10/64 dev eth0 nodad",
            "route replace default via fd00:1::1")
    net.goes_by("exit-b")
    closed.check("the cable was out")

    client.cli("set", "--exit-node-allow-lan-access")
    wait_for(lambda: net.fetches(PRINTER), 10, "the printer is reached with --exit-node-allow-lan-access")
    net.goes_by("exit-b")
    assert "throw 192.168.1.0/24" in host.run("ip route show table 52").stdout
    closed = NothingLeaks(LeakWatch(host, (CONTROL, RELAY, PRINTER, RESOLVER, "fd00:1::20"), name="leak-watch-2"))
    time.sleep(1)
    closed.check("but for the network at home")
    client.program.stop()
    host.run([*client.program_words(), "--restore-dns"]) # as the unit does it after every end
    assert "nameserver 100.100.100.100" in host.run("cat /etc/resolv.conf").stdout, "the resolver at home would be asked past the exit node"
    host.run("getent hosts stopped.example", check=False, timeout=30)
    closed.check("the agent is stopped, and the resolver at home near")
    client.start()
    net.goes_by("exit-b")
    net.asks("exit-b")
    client.cli("set", "--exit-node-allow-lan-access=false")
    wait_for(lambda: not net.fetches(PRINTER), 10, "the printer is not reached any more")
    client.program.stop()
    assert f"nameserver {RESOLVER}" in host.run("cat /etc/resolv.conf").stdout, "it is behind the tunnel now, like everything"
    client.start()
    net.goes_by("exit-b")

    client.cli("set", "--exit-node=")
    wait_for(lambda: net.fetches() and net.seen_by_site() == net.home.box.address, 10, "the client is itself again")
    client.cli("exit-node", "connect")
    assert client.cli("get", "exit-node").stdout.strip() == client.peer("exit-b")["TailscaleIPs"][0]
    net.goes_by("exit-b")
    client.cli("exit-node", "disconnect")
    wait_for(lambda: net.fetches() and net.seen_by_site() == net.home.box.address, 10, "and itself once more")
    asked = {line.split()[1] for line in net.home_names.asked()}
    assert asked == {"before.example"}, f"heard at home while an exit node was in use: {asked}"
    assert not any("exit-b" in line for names in net.names.values() for line in names.asked())
    probes.stop()
    return net


def leaves_nothing(net: ExitNet) -> None:
    net.client.cli("set", "--exit-node=exit-a")
    net.goes_by("exit-a")
    net.client.cli("down")
    is_clean(net.client_host, net.before)
    assert net.fetches() and net.seen_by_site() == net.home.box.address
