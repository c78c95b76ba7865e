"""Names of the tailnet: answered at the service addresses, forwarded where they are others', and asked for by the whole host.

      control .1    relay .2    resolver .53     alice     bob
          |            |            |              |        |
    ------+------------+------------+--------------+--------+---- the internet
"""
import hashlib
import json
import pathlib
import re

import pytest

from lab.nameserver import SERVICE, SERVICE6, NameServer, dig
from lab.stock import BASE_DOMAIN
from lab.tailrace import Agent, TailraceControl
from lab.traffic import ping
from lab.wait import wait_for

RESOLVER = "203.0.113.53"
BEFORE = f"# of this machine\nnameserver {RESOLVER}\nsearch home.example\noptions timeout:1 attempts:1\n"
MACHINE = pathlib.Path("/etc/resolv.conf")


def short(host, *words, server: str = SERVICE) -> list:
    return [line for line in dig(host, "+short", *words, server=server).splitlines() if not line.startswith(";")]


def status_of(said: str) -> str:
    return re.search(r"status: (\w+)", said)[1]


def resolv_conf(host) -> str:
    return host.run(["cat", "/etc/resolv.conf"]).stdout


class Net:
    def __init__(self, lab, **settings):
        self.machine = hashlib.sha256(MACHINE.read_bytes()).hexdigest() if MACHINE.exists() else ""
        lab.internet()
        self.resolver_host = lab.host("resolver", address=RESOLVER)
        self.resolver = NameServer(self.resolver_host, RESOLVER, "198.51.100.1")
        self.control = TailraceControl(lab.host("control", address="203.0.113.1"), **settings)
        self.hosts = {name: lab.host(name) for name in ("alice", "bob")}
        for host in self.hosts.values():
            (host.directory / "resolv.conf").write_text(BEFORE)
        self.alice, self.bob = (Agent(host, more=["--no-port-mapping"]) for host in self.hosts.values())
        self.host = self.hosts["alice"]

    def join(self, *more) -> None:
        for agent in (self.alice, self.bob):
            self.control.create_user(agent.host.name)
            agent.up(self.control.url, self.control.create_key(agent.host.name), *more)
        wait_for(lambda: self.alice.peer("bob") and self.bob.peer("alice"), 15, "they know each other")

    def machine_is_as_before(self) -> None:
        now = hashlib.sha256(MACHINE.read_bytes()).hexdigest() if MACHINE.exists() else ""
        assert now == self.machine, "an agent of a lab wrote the machine's own file"


@pytest.fixture
def net(lab, programs):
    net = Net(lab)
    yield net
    net.machine_is_as_before()


def test_names_of_the_tailnet(net):
    net.join()
    host, bob4, bob6 = net.host, net.bob.ip(), net.bob.ip(6)
    wait_for(lambda: short(host, f"bob.{BASE_DOMAIN}") == [bob4], 15, "alice asks for bob")

    # Row 98 of the verdict table: the host itself answers at the service addresses, and speaks from others.
    assert ping(host, SERVICE) and ping(host, SERVICE6)
    shown = host.run("ip -4 address show dev tailrace0").stdout
    assert f"inet {SERVICE}/32 scope host" in shown, shown
    assert "deprecated" in host.run("ip -6 address show dev tailrace0").stdout.split(SERVICE6)[1].splitlines()[0]
    for target, own in ((bob4, net.alice.ip()), (bob6, net.alice.ip(6))):
        assert f" src {own} " in host.run(f"ip route get {target}").stdout
    assert "100.100.100.100" not in host.run("ip route get 203.0.113.53").stdout
    for target in (SERVICE, SERVICE6): # nobody sends them to a peer, and a peer that does is refused
        assert net.hosts["bob"].run(f"ip route get {target}").stdout.startswith("local ")

    said = dig(host, "bob")
    assert re.search(rf"^bob\.\s+5\s+IN\s+A\s+{re.escape(bob4)}$", said, re.M) and " aa " in said.replace(";", " "), said
    assert short(host, f"BOB.{BASE_DOMAIN}".upper()) == [bob4]
    assert short(host, "alice") == [net.alice.ip()]
    empty = dig(host, f"bob.{BASE_DOMAIN}", "AAAA")
    assert status_of(empty) == "NOERROR" and "ANSWER: 0" in empty and "SOA" in empty and " 10\n" in empty, empty
    nobody = dig(host, f"nobody.{BASE_DOMAIN}")
    assert status_of(nobody) == "NXDOMAIN" and re.search(rf"^{re.escape(BASE_DOMAIN)}\.\s+10\s+IN\s+SOA", nobody, re.M), nobody
    assert short(host, "-x", bob4) == short(host, "-x", bob6) == [f"bob.{BASE_DOMAIN}."]
    assert status_of(dig(host, "-x", "100.64.0.254")) == "NXDOMAIN"
    assert short(host, "-x", SERVICE) == ["magicdns.localhost-tailscale-daemon."]
    assert short(host, "10-1-1-16-via-7", "AAAA") == ["fd7a:115c:a1e0:b1a:0:7:a01:110"]
    assert status_of(dig(host, "foo.onion")) == "NXDOMAIN"
    assert status_of(dig(host, f"bob.{BASE_DOMAIN}", "SOA")) == "NOTIMP"
    assert short(host, "+tcp", "bob") == short(host, "+tcp", "bob", server=SERVICE6) == [bob4]

    # The networks that we are in are not ours: who sends a question here by hand gets no answer, nor a peer by the tunnel.
    net.resolver_host.ip(f"route add {SERVICE} via {host.address}")
    assert ping(net.resolver_host, SERVICE), "it gets there"
    assert not short(net.resolver_host, "bob") and not short(net.resolver_host, "+tcp", "bob")

    # Others' names go to who was asked before.
    assert short(host, "www.example") == ["198.51.100.1"]
    assert status_of(dig(host, "nobody.invalid")) == "NXDOMAIN"
    assert len(short(host, "big.example")) == 60, "cut over UDP, whole over TCP"
    assert "tcp big.example" in net.resolver.asked()
    asked = net.resolver.asked()
    assert not [line for line in asked if re.search(r"lab$|bob|alice|onion|via-7|arpa", line)], asked

    # And programs that know nothing of all this.
    text = resolv_conf(host)
    assert re.findall(r"^nameserver (\S+)$", text, re.M) == [SERVICE, SERVICE6], text
    assert re.search(rf"^search {re.escape(BASE_DOMAIN)} home\.example$", text, re.M) and "options timeout:1 attempts:1" in text, text
    assert host.run(["getent", "ahostsv4", "bob"]).stdout.split()[0] == bob4
    assert host.run(["getent", "hosts", bob4]).stdout.split() == [bob4, f"bob.{BASE_DOMAIN}"]
    assert host.run(["getent", "ahostsv4", "www.example"]).stdout.split()[0] == "198.51.100.1"


def test_the_file_of_the_machine_is_given_back(net):
    net.join()
    host, agent = net.host, net.alice
    ours = lambda: SERVICE in resolv_conf(host) # noqa: E731
    wait_for(ours, 10, "the host asks us")
    agent.program.kill()
    assert ours()
    agent.start()
    wait_for(lambda: short(host, "bob") == [net.bob.ip()], 15, "it goes on after a crash")

    host.ip(f"address del {SERVICE}/32 dev tailrace0")
    wait_for(lambda: ping(host, SERVICE, timeout=1), 15, "the service address comes back")
    wait_for(lambda: short(host, "bob") == [net.bob.ip()], 15, "and answers")

    other = BEFORE.replace("home.example", "other.example").replace("# of this machine", "# Generated by NetworkManager")
    (host.directory / "resolv.conf").write_text(other) # somebody else writes it: in place, for it is a mount
    wait_for(lambda: ours() and "other.example" in resolv_conf(host), 15, "we write it again, over what is new")
    assert any("NetworkManager writes /etc/resolv.conf" in text for text in agent.status()["Health"]), agent.status()["Health"]

    agent.cli("set", "--accept-dns=false")
    wait_for(lambda: resolv_conf(host) == other, 10, "--accept-dns=false gives it back")
    assert agent.cli("get", "accept-dns").stdout.strip() == "false"
    assert short(host, "bob") == [net.bob.ip()], "who asks is answered all the same"
    agent.cli("set", "--accept-dns=true")
    wait_for(ours, 10, "and again")
    host.sysctl("net.ipv6.conf.tailrace0.disable_ipv6", 1)
    host.ip("link set tailrace0 down") # the kernel tells nobody of the setting, but of this
    wait_for(lambda: ours() and SERVICE6 not in resolv_conf(host), 15, "without IPv6 it is IPv4 alone")
    assert short(host, "bob") == [net.bob.ip()]
    agent.cli("down")
    wait_for(lambda: resolv_conf(host) == other, 10, "down gives it back")
    assert SERVICE not in host.run("ip address").stdout
    agent.cli("up", timeout=40)
    wait_for(ours, 10, "up takes it")
    agent.program.stop()
    assert resolv_conf(host) == other, "an orderly stop gives it back"
    agent.start()
    wait_for(ours, 15, "a start takes it")
    agent.program.kill()
    host.run([*agent.program_words(), "--cleanup"])
    assert resolv_conf(host) == other, "--cleanup gives it back"
    agent.start()
    wait_for(ours, 15, "a start takes it")
    agent.program.kill()
    host.run([*agent.program_words(), "--restore-dns"])
    assert resolv_conf(host) == other and SERVICE in host.run("ip address").stdout


def test_the_tailnet_says_who_is_asked(lab, programs):
    other = "203.0.113.54"
    split = {"nameservers": {"split": {"corp.example": [other]}}, "search_domains": ["corp.example"],
             "extra_records": [{"name": "wiki.corp.example", "value": "10.0.0.9"}]}
    net = Net(lab, dns=split)
    net.resolver_host.ip(f"address add {other}/24 dev eth0")
    corp = NameServer(net.resolver_host, other, "198.51.100.54")
    net.join()
    host, agent = net.host, net.alice
    wait_for(lambda: short(host, "www.corp.example") == ["198.51.100.54"], 15, "names below corp.example have a resolver of their own")
    assert short(host, "www.example") == ["198.51.100.1"] and corp.asked() == ["udp www.corp.example"]
    assert short(host, "wiki.corp.example") == ["10.0.0.9"]
    assert host.run(["getent", "ahostsv4", "printer"]).stdout.split()[0] == "198.51.100.54", "by the search domain"

    said = agent.cli("dns", "status").stdout
    for line in ("Tailscale DNS: enabled.", f"MagicDNS: enabled tailnet-wide (suffix = {BASE_DOMAIN})", "  - corp.example", f"  - {SERVICE}"):
        assert line in said, said
    assert re.search(rf"corp\.example +-> {re.escape(other)}", said) and "arpa" not in said, said
    assert "wiki.corp.example" in agent.cli("dns", "status", "--all").stdout
    facts = json.loads(agent.cli("dns", "status", "--json").stdout)
    assert facts["SplitDNSRoutes"]["corp.example"] == [{"Addr": other}] and facts["TailscaleDNS"] is True, facts
    assert facts["SystemDNS"]["Nameservers"] == [SERVICE, SERVICE6], facts
    said = agent.cli("dns", "query", "bob").stdout
    assert "Response code: RCodeSuccess" in said and re.search(rf"bob\. +5 +ClassINET +TypeA +{re.escape(net.bob.ip())}", said), said
    told = json.loads(agent.cli("dns", "query", "--json", "www.corp.example", "A").stdout)
    assert told["Resolvers"] == [{"Addr": other}] and told["Answers"][0]["Body"] == "198.51.100.54", told
    assert agent.cli("dns", "query", "bob", "what", check=False).returncode == 1

    net.control.reload(dns={"nameservers": {"global": [other]}})
    wait_for(lambda: short(host, "www.example") == ["198.51.100.54"], 15, "a reload names a resolver for everything")
    net.control.reload(dns={"nameservers": {"global": ["nonsense"]}})
    net.control.program.wait_for_output("the configuration is not in order")
    assert short(host, "www.example") == ["198.51.100.54"] and short(host, "bob") == [net.bob.ip()]
    net.control.reload(dns={"magic_dns": False})
    wait_for(lambda: not short(host, "bob"), 15, "MagicDNS is off: no short names")
    assert short(host, f"bob.{BASE_DOMAIN}") == [net.bob.ip()]
    net.machine_is_as_before()
