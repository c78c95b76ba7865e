"""Every kind of network against every other: one tailnet with two nodes of each kind.

      control .1   relay .2     (both with IPv6)
          |           |
    ------+-----------+----+-----------+--------+--------+---------+----------+------------+------------- the internet
                           |           |        |        |         |          |            |
     a,b: public, v6-only          easy NAT  hard NAT  easy NAT  hard NAT   easy NAT   easy NAT that
                                       |        |        |       + miniupnpd  - UDP    hairpins, one for both
                                       |        |     easy NAT     |          |         |          |
                                     easy     hard     double  port-mapped  no-udp   a-hairpin  b-hairpin

The two behind the NAT that hairpins are on LANs that do not reach each other: they meet at their outside addresses or not
at all. A pair meets once: idle before, then 50 pings a second from the very first packet on.
"""
import base64
import datetime
import json
import os
import re
import time

from ..lab import BUILD
from ..miniupnpd import Miniupnpd
from ..stock import derp_map
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import Ping
from ..wait import wait_for

KINDS = ["public", "easy", "hard", "double", "port-mapped", "no-udp", "v6-only", "hairpin"]
NO_UDP = """
table ip blocked {
    chain pass { type filter hook forward priority -10; ip protocol udp drop; }
}
"""
MEETING_SECONDS = 3 if os.environ.get("TAILRACE_ROOM") == "uml" else 4 # there the clock stands still while others compute
MEETING_SECONDS_WITH_STOCK = 14 # its second round of pings comes after 5 s


def is_direct_possible(a: str, b: str) -> bool:
    """What stock clients reach, too: two that choose another port for each destination find no path, nor do those of
    different address families. "hairpin" is as good as "easy", to its like behind the same box, too."""
    kinds = {a, b}
    if "no-udp" in kinds:
        return False
    if "v6-only" in kinds:
        return kinds <= {"v6-only", "public"}
    if "hard" in kinds:
        return bool(kinds & {"public", "port-mapped"})
    return True


class Node:
    def __init__(self, matrix: "Matrix", name: str, kind: str, number: int, agent_is=Agent):
        lab = matrix.lab
        link = None
        url = matrix.control.url
        if kind in ("easy", "hard", "port-mapped", "no-udp", "double"):
            nat = lab.nat(f"n{number}", lab.internet(), {"double": "easy", "no-udp": "easy"}.get(kind, kind))
            if kind == "double":
                nat = lab.nat(f"m{number}", nat.lan, "easy")
            if kind == "port-mapped":
                Miniupnpd(nat)
            if kind == "no-udp":
                nat.box.nft(NO_UDP)
            link = nat.lan
        if kind == "hairpin":
            link = matrix.hairpin_lan()
        self.kind = kind
        self.host = lab.host(name, link)
        if kind in ("public", "v6-only"):
            self.host.add_v6(0x100 + number)
        if kind == "v6-only":
            self.host.without_v4()
            url = matrix.url6
        self.agent = agent_is(self.host)
        self.agent.up(url, matrix.key)

    def first_direct(self, peer: "Node", since: datetime.datetime):
        """Seconds from `since` to the first direct path to the peer, by this node's log; None for never."""
        key = self.agent.peer(peer.host.name)["PublicKey"].removeprefix("nodekey:")
        short = base64.b64encode(bytes.fromhex(key)).decode()[:5]
        for line in (self.host.directory / "tailraced.log").read_text().splitlines():
            found = re.match(r"(\S+)Z +info +peer path changed peer=\[(.....)\] via=(\S+)", line)
            if found and found[2] == short and not found[3].startswith("127."):
                when = datetime.datetime.fromisoformat(found[1][:26]).replace(tzinfo=datetime.timezone.utc)
                if when >= since:
                    return (when - since).total_seconds()
        return None


class Matrix:
    """The nodes of one side may be stock clients, the relay and the coordination server stock ones too."""

    def __init__(self, lab, kinds=None, a_is=Agent, b_is=Agent, relay_is=TailraceRelay, control_is=TailraceControl):
        self.lab = lab
        self.kinds = kinds or KINDS
        self.ours_only = a_is is Agent and b_is is Agent
        self.seconds = MEETING_SECONDS if self.ours_only else MEETING_SECONDS_WITH_STOCK
        lab.internet()
        relay_host = lab.host("relay", address="203.0.113.2")
        relay_host.add_v6(2)
        self.relay = relay_is(relay_host)
        relays = self.relay.derp_map
        relays["Regions"]["900"]["Nodes"][0]["IPv6"] = "2001:db8::2"
        control_host = lab.host("control", address="203.0.113.1")
        self.url6 = f"http://[{control_host.add_v6(1)}]:8080"
        more = {"listen": ":8080", "listen_tls": ":443"} if control_is is TailraceControl else {}
        self.control = control_is(control_host, relays, **more)
        self.control.create_user("us")
        self.key = self.control.create_key("us")
        self._hairpin_lans = []
        self.nodes = {}
        for side, agent_is in (("a", a_is), ("b", b_is)):
            for kind in self.kinds:
                number = len(self.nodes) + 1
                self.nodes[side, kind] = Node(self, f"{side}-{kind}", kind, number, agent_is)
        count = len(self.nodes)
        wait_for(lambda: self.relay_clients() == count, 20, "all are connected to the relay")
        time.sleep(2)

    def hairpin_lan(self):
        """The next one behind the NAT that both sides share."""
        if not self._hairpin_lans:
            self._hairpin_lans = self.lab.nat("n-hairpin", self.lab.internet(), "hairpin", lans=2).lans
        return self._hairpin_lans.pop(0)

    def relay_clients(self) -> int:
        return len(self.relay.host.run("ss -Htn state established sport = :443").stdout.splitlines())

    def meet(self, pairs: list) -> list:
        """All pairs at once, each node in one pair only."""
        since = datetime.datetime.now(datetime.timezone.utc)
        pings = [Ping(a.host, b.agent.ip(), interval=0.02) for a, b in pairs]
        time.sleep(self.seconds)
        met = []
        for (a, b), ping in zip(pairs, pings):
            lost = ping.lost()
            sides = ((a, b), (b, a)) if isinstance(a.agent, Agent) else () # stock clients take their time to begin
            seconds = [one.first_direct(other, since) for one, other in sides if isinstance(one.agent, Agent)]
            seconds = max((s for s in seconds if s is not None), default=None) # of the later side
            is_direct = bool(a.agent.direct_to(b.host.name)) and bool(b.agent.direct_to(a.host.name))
            met.append({"a": a.kind, "b": b.kind, "path": "direct" if is_direct else "relay",
                        "seconds": round(seconds, 2) if is_direct and seconds is not None else None, **lost})
        return met

    def allowed_seconds(self, row: dict) -> float:
        return 1.5 if self.ours_only and {row["a"], row["b"]} == {"easy"} else 2.5

    def meet_all(self) -> list:
        """Each kind with each, in rounds of disjoint pairs."""
        rows = []
        for shift in range(len(self.kinds)):
            rows += self.meet([(self.nodes["a", kind], self.nodes["b", self.kinds[(i + shift) % len(self.kinds)]])
                               for i, kind in enumerate(self.kinds)])
        return rows


def table(rows: list) -> str:
    lines = [f"{'from':12} {'to':12} {'path':7} {'direct after':>12} {'sent':>5} {'lost':>5}"]
    for row in rows:
        after = "" if row["seconds"] is None else f"{row['seconds']:.2f} s"
        lines.append(f"{row['a']:12} {row['b']:12} {row['path']:7} {after:>12} {row['sent']:5} {row['lost']:5}")
    return "\n".join(lines)


def every_kind_meets_every_other(lab, name: str = "paths-matrix", **members) -> None:
    started = time.monotonic()
    matrix = Matrix(lab, **members)
    rows = matrix.meet_all()
    print("\n" + table(rows))
    results = BUILD / "test-results"
    if results.is_dir():
        (results / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    wrong = [row for row in rows if is_direct_possible(row["a"], row["b"]) and row["path"] != "direct"]
    assert not wrong, table(wrong)
    lossy = [row for row in rows if row["lost"] or not row["sent"]]
    assert not lossy, table(lossy)
    slow = [row for row in rows if row["path"] == "direct" and row["seconds"] is not None and row["seconds"] > matrix.allowed_seconds(row)]
    assert not slow, table(slow)
    print(f"{len(rows)} pairs in {time.monotonic() - started:.0f} s")
