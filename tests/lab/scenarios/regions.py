"""Two routers of one network and clients on two continents: each client is given the router of its own region.

    control 203.0.113.1    relay east 203.0.113.2    relay west 203.0.113.3
           |                        |                        |
    -------+---------+--------------+---------+--------------+------- the internet
                     |                        |
       the east: c-east, r-east   the west: c-west, r-west

Both routers have 10.7.0.1 and serve a file there whose size says who it was. To be in the east means that STUN of the relay
in the west does not answer; its relaying does.
"""
import time

from ..lab import Lab
from ..stock import derp_map
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import WebServer, fetch
from ..wait import wait_for
from .routers import GONE_SECONDS, NOISE_SECONDS, POLICY, ROUTE

INSIDE = "10.7.0.1"
RELAYS = {"east": (900, "203.0.113.2"), "west": (901, "203.0.113.3")}
OTHER = {"east": "west", "west": "east"}
FILE_BYTES = {"east": 1000, "west": 2000}
FAR = """table inet far
delete table inet far
table inet far {
  chain out { type filter hook output priority 0; ip daddr RELAY udp dport 3478 drop; }
}
"""
GONE = FAR.replace("udp dport 3478 ", "").replace("chain out", "chain in { type filter hook input priority 0; ip saddr RELAY drop; }\n  chain out")


class Regions:
    def __init__(self, lab: Lab, client=Agent, **settings):
        self.lab = lab
        self.internet = lab.internet()
        self.relays = {}
        regions = {}
        control_host = lab.host("control", address="203.0.113.1")
        for name, (number, address) in RELAYS.items():
            relay = self.relays[name] = TailraceRelay(lab.host(f"relay-{name}", address=address))
            regions.update(derp_map(address, relay.cert_name, region=number, code=name)["Regions"])
        self.control = TailraceControl(control_host, {"Regions": regions}, policy=POLICY, **settings)
        for user in ("ops@example.com", "us@example.com"):
            self.control.create_user(user)
        key = self.control.create_key("ops@example.com", tags=["tag:router"])
        self.routers = {where: Agent(self._host(f"r-{where}", where)) for where in RELAYS}
        for where, router in self.routers.items():
            router.host.ip(f"address add {INSIDE}/32 dev lo")
            WebServer(router.host, size_bytes=FILE_BYTES[where])
            router.up(self.control.url, key, "--advertise-routes", ROUTE)
        us = self.control.create_key("us@example.com")
        self.clients = {where: client(self._host(f"c-{where}", where)) for where in RELAYS}
        for one in self.clients.values():
            one.up(self.control.url, us, "--accept-routes")
        for where in RELAYS: # the router in the east is the primary
            self.control.cli("nodes", "routes", "approve", f"r-{where}", ROUTE)
        wait_for(lambda: self.healths() == ["healthy", "healthy"], 15, "both routers are watched")

    def _host(self, name: str, where: str):
        host = self.lab.host(name)
        host.nft(FAR.replace("RELAY", RELAYS[OTHER[where]][1]))
        return host

    def healths(self) -> list:
        return [one["health"] for one in self.control.json("nodes", "routes", "list")]

    def carries_for(self) -> dict:
        """What control says, by region of the router."""
        return {one["name"].removeprefix("r-"): one["carriesFor"] for one in self.control.json("nodes", "routes", "list")}

    def router_of(self, client: str) -> list:
        """The routers through which this client reaches the route, by their regions. Both lists are the same for each of them."""
        peers = {where: self.clients[client].peer(f"r-{where}") for where in RELAYS}
        by_address, by_name = ([where for where, peer in peers.items() if ROUTE in (peer.get(member) or [])]
                               for member in ("AllowedIPs", "PrimaryRoutes"))
        return by_address if by_address == by_name else [by_address, by_name]

    def in_force(self) -> dict:
        return {client: self.router_of(client) for client in self.clients}

    def wait_for_routers(self, east: str, west: str, why: str, timeout: float = 30) -> float:
        """Seconds that it took until the clients in the east and in the west had these."""
        start = time.monotonic()
        wait_for(lambda: self.in_force() == {"east": [east], "west": [west]}, timeout, why, interval=0.05)
        return time.monotonic() - start

    def stays_for(self, seconds: float, east: str, west: str, why: str) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.in_force() == {"east": [east], "west": [west]}, why
            time.sleep(0.3)

    def answers(self, client: str, router: str) -> None:
        """Packets of the client go to that router, not only its list of peers."""
        def got():
            done = fetch(self.clients[client].host, f"http://{INSIDE}/payload", timeout=2)
            return done is not None and done[0] == FILE_BYTES[router]
        wait_for(got, 20, f"the client in the {client} is answered by the router in the {router}")

    def moves(self) -> int:
        return sum("a region has another router" in line for line in self.control.program.output().splitlines())


def each_its_own(net: Regions) -> None:
    net.wait_for_routers("east", "west", "each client has the router of its region")
    for where in RELAYS:
        net.answers(where, where)
    assert net.carries_for() == {"east": ["east", "others"], "west": ["west"]}
    table = net.control.cli("nodes", "routes", "list").stdout.splitlines()
    assert "CARRIES FOR" in table[0] and "east, others" in table[1] and "yes" in table[1]
    for where, router in net.routers.items():
        own = router.status()["Self"].get("PrimaryRoutes")
        assert own == [ROUTE], f"the router in the {where} knows that it carries the route: {own}"


def fails_over_and_back(net: Regions) -> None:
    west = net.routers["west"]
    before = net.moves()
    west.program.kill()
    took = net.wait_for_routers("east", "east", "the west goes through the east", GONE_SECONDS + NOISE_SECONDS)
    print(f"the clients of a dead router had the other one after {took:.2f} s")
    net.answers("west", "east")
    net.answers("east", "east")
    assert net.carries_for() == {"east": ["everybody"], "west": []}

    west.start()
    wait_for(lambda: "on probation" in net.healths(), 30, "the router in the west is back")
    assert net.router_of("west") == ["east"], "it has to stay before it is given clients"
    net.wait_for_routers("east", "west", "its clients come back to it", 60)
    net.answers("west", "west")
    assert net.moves() == before + 2, "there and back"

    net.routers["east"].program.kill() # the primary
    net.wait_for_routers("west", "west", "the east goes through the west", GONE_SECONDS + NOISE_SECONDS)
    net.routers["east"].start()
    net.wait_for_routers("east", "west", "and back, although the primary is in the west now", 60)
    assert net.carries_for() == {"east": ["east"], "west": ["west", "others"]}


def restarts_of_control(net: Regions) -> None:
    """They move nobody, and end no probation."""
    def restart():
        net.control.program.kill()
        net.control.start()
    before = net.in_force()
    restart()
    wait_for(lambda: set(net.healths()) <= {"healthy", "on probation"}, 45, "both routers are back")
    assert net.in_force() == before and net.moves() == 0, "routes stay where they were"
    wait_for(lambda: net.healths() == ["healthy", "healthy"], 60, "both are steady")
    west = net.routers["west"]
    for seconds in (20, 40): # the router had gone once before: these are its next probations
        west.program.kill()
        net.wait_for_routers("east", "east", "the west goes through the east", GONE_SECONDS + NOISE_SECONDS)
        west.start()
        wait_for(lambda: "on probation" in net.healths(), 30, f"the router in the west is back, for {seconds} s on probation")
    restart()
    assert net.moves() == 0, "a restart is no reason to give it clients"
    wait_for(lambda: "on probation" in net.healths(), 15, "it is still on probation", interval=0.05)
    assert net.router_of("west") == ["east"]
    net.wait_for_routers("east", "west", "its clients come back to it when that is over", 90)
    assert net.moves() == 1

    west.program.kill()
    net.wait_for_routers("east", "east", "the west goes through the east", GONE_SECONDS + NOISE_SECONDS)
    restart()
    net.stays_for(5, "east", "east", "a dead router is given no clients because control forgot that it is dead")
    west.start()
    net.wait_for_routers("east", "west", "and in the end they come back", 180)


def moves_house(net: Regions) -> None:
    """A client goes west. Its flows stay for half a minute: it might go back."""
    before = net.moves()
    net.clients["east"].host.nft(GONE.replace("RELAY", RELAYS["east"][1])) # where it hears its relay, a node stays at home
    wait_for(lambda: net.clients["west"].peer("c-east")["Relay"] == "west", 90, "its home is in the west", interval=0.5)
    net.stays_for(15, "east", "west", "it has only just come")
    net.wait_for_routers("west", "west", "it has settled", 60)
    net.answers("east", "west")
    assert net.moves() == before, "the regions have the routers that they had"


def run(lab: Lab) -> None:
    net = Regions(lab, route_choice="region")
    each_its_own(net)
    fails_over_and_back(net)
    restarts_of_control(net)
    moves_house(net)
