"""An app connector gives the tailnet what the names of an application resolve to, and nothing else.

      control .1    relay .2     client .10     connector .11
          |            |            |               |
    ------+------------+------------+---------------+------ the internet
                                                    | lan0 198.51.100.1
                                                    |
                             servers a .10, b .20 in 198.51.100.0/24, and the resolver .53

Nobody else has a way to the servers. The policy names *.app.example; a.app.example leads to server a, b.app.example to server b,
and local.app.example to 127.0.0.1.
"""
import json

from ..lab import Lab
from ..nameserver import NameServer, dig
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import WebServer, fetch, tcp_opens
from ..wait import wait_for

US = "us@example.com"
NET, RESOLVER, A, B = "198.51.100.0/24", "198.51.100.53", "198.51.100.10", "198.51.100.20"
NAMES = {"b.app.example": B, "local.app.example": "127.0.0.1"}
PAYLOAD_BYTES = 200_000


def policy(domains, attributes=(), ports: str = "80", extra=()) -> str:
    app = {"name": "app", "connectors": ["tag:connector"], "domains": list(domains), "routes": list(extra)}
    return json.dumps({
        "tagOwners": {"tag:connector": [US]},
        "autoApprovers": {"routes": {"198.51.100.0/24": ["tag:connector"]}},
        "nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [app]}}, {"target": ["tag:connector"], "attr": list(attributes)}],
        "acls": [{"action": "accept", "src": [US], "dst": [f"autogroup:internet:53,{ports}"]}],
    })


class AppNet:
    def __init__(self, lab: Lab, connector_is=Agent, client_is=Agent, control_is=TailraceControl):
        lab.internet()
        relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = control_is(lab.host("control", address="203.0.113.1"), relay.derp_map)
        self.control.create_user(US)
        self.control.set_policy(policy(["*.app.example"]))
        self.client_host, self.host = lab.host("client"), lab.host("connector")
        lan = lab.lan(self.host, NET)
        resolver = lab.host("resolver", lan, RESOLVER)
        self.resolver = NameServer(resolver, RESOLVER, A, NAMES)
        self.webs = {address: WebServer(lab.host(name, lan, address), (80, 8080), PAYLOAD_BYTES) for name, address in (("server-a", A), ("server-b", B))}
        (self.host.directory / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        self.connector, self.client = connector_is(self.host), client_is(self.client_host)

    def forward(self) -> None:
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.host.sysctl("net.ipv6.conf.all.forwarding", 1)

    def join(self) -> None:
        self.connector.up(self.control.url, self.control.create_key(US, tags=["tag:connector"]), "--advertise-connector")
        self.client.up(self.control.url, self.control.create_key(US), "--accept-routes")

    def looks_up(self, name: str) -> list:
        said = dig(self.client_host, "+short", name)
        return [line for line in said.splitlines() if not line.startswith(";")]

    def fetches(self, address: str) -> bool:
        got = fetch(self.client_host, f"http://{address}/payload", 3)
        return bool(got) and got[0] == PAYLOAD_BYTES

    def offers(self) -> list:
        return json.loads(self.connector.cli("debug", "prefs").stdout)["AdvertiseRoutes"] or []


def run(lab: Lab) -> AppNet:
    net = AppNet(lab)
    said = net.connector.cli("up", "--login-server", net.control.url, "--auth-key", net.control.create_key(US, tags=["tag:connector"]),
                             "--hostname", "connector", "--advertise-connector", "--timeout=30s", timeout=40).stdout
    assert said.count("IP forwarding is disabled, subnet routing/exit nodes will not work.") == 1, said
    net.forward()
    assert net.connector.cli("appc-routes").stdout == ""
    net.client.up(net.control.url, net.control.create_key(US), "--accept-routes")
    assert net.client.cli("appc-routes").stdout == "not a connector\n"
    assert not net.fetches(A) and net.offers() == []

    wait_for(lambda: net.looks_up("a.app.example") == [A], 15, "the client's names of the application are asked at the connector")
    wait_for(lambda: net.fetches(A), 15, "the client reaches what the name led to")
    assert net.offers() == [f"{A}/32"]
    assert not tcp_opens(net.client_host, A, 8080), "the policy closes port 8080"
    assert not net.fetches(B), "what no name led to"
    assert net.looks_up("local.app.example") == ["127.0.0.1"] and net.looks_up("c.other.example") == []
    assert net.offers() == [f"{A}/32"]
    assert [line.split()[1] for line in net.resolver.asked()].count("c.other.example") == 0, "others' names are not asked there"
    assert net.looks_up("b.app.example") == [B]
    wait_for(lambda: net.fetches(B), 15, "and the other server")
    assert net.connector.cli("appc-routes", "-n").stdout == "2\n"
    assert net.connector.cli("appc-routes").stdout.split() == ["a.app.example", "1", "b.app.example", "1"]
    assert json.loads(net.connector.cli("appc-routes", "--map").stdout)["b.app.example"] == [B]

    net.connector.program.kill()
    net.connector.start()
    wait_for(net.connector.running, 15, "the connector is back")
    assert net.offers() == [f"{A}/32", f"{B}/32"] and net.fetches(A)
    return net


def is_declared(lab: Lab) -> None:
    """Routes chosen by hand stand until a name is asked for again. Where a file declares everything, what was learned is still
    there after a restart, whatever the policy says of keeping it."""
    net = AppNet(lab)
    net.forward()
    net.join()
    site = "192.168.50.0/24"
    wait_for(lambda: net.looks_up("a.app.example") == [A] and net.looks_up("b.app.example") == [B], 15, "both names are asked for")
    net.connector.cli("set", f"--advertise-routes={site}")
    assert net.offers() == [site]
    assert net.looks_up("a.app.example") == [A]
    wait_for(lambda: net.offers() == [site, f"{A}/32"], 5, "a name that is asked for again has its route")
    wait_for(lambda: net.fetches(A), 15, "and is reached")

    file = net.host.directory / "tailraced.yaml"
    file.write_text(f"login-server: {net.control.url}\nhostname: connector\nadvertise-tags: [tag:connector]\n"
                    f"advertise-connector: true\nadvertise-routes: [{site}]\n")
    net.connector.more = ["--config", file]
    for _ in range(2):
        net.connector.program.kill()
        net.connector.start()
        wait_for(net.connector.running, 15, "the connector is back")
        assert net.offers() == [site, f"{A}/32"] and net.fetches(A)
    assert net.connector.cli("set", "--advertise-connector=false", check=False).returncode == 1


def follows_the_policy(net: AppNet) -> None:
    """Routes of the policy replace addresses in them, and what is asked for no more is taken back where that is wanted."""
    net.control.set_policy(policy(["a.app.example"]))
    wait_for(lambda: net.connector.cli("appc-routes").stdout.split() == ["a.app.example", "1"], 10, "the connector knows the new names")
    assert net.offers() == [f"{A}/32", f"{B}/32"], "routes only ever come"
    net.control.set_policy(policy(["*.app.example"], ["store-appc-routes"]))
    wait_for(lambda: net.looks_up("b.app.example") == [B] and "b.app.example" in net.connector.cli("appc-routes").stdout, 10, "b is learned again")
    net.control.set_policy(policy(["a.app.example"], ["store-appc-routes"]))
    wait_for(lambda: net.offers() == [f"{A}/32"], 10, "what the policy names no more is taken back")
    wait_for(lambda: not net.fetches(B), 10, "and reached no more")
    net.control.set_policy(policy(["a.app.example"], ["store-appc-routes"], extra=["198.51.100.0/28"]))
    wait_for(lambda: net.offers() == ["198.51.100.0/28"], 10, "a route of the policy stands for the addresses in it")
    wait_for(lambda: net.fetches(A), 15, "it leads there too")
    net.control.set_policy(policy([], ["store-appc-routes"]))
    wait_for(lambda: net.offers() == [], 10, "nothing is left")
    net.control.set_policy(policy(["*.app.example"], ports="8080"))
    net.connector.cli("set", "--advertise-connector=false")
    wait_for(lambda: net.looks_up("a.app.example") == [], 10, "who is no connector is not asked")
