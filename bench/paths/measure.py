"""How long two nodes need to find each other directly, for each pair of kinds of networks, and what is lost of 50 pings a
second from the very first on; beside stock clients when TAILSCALED and TAILSCALE name them. Picture: lab/scenarios/matrix.py

Both are asked over their local API, 20 times a second, so that they are measured alike. The relay and the coordination server are
ours in both runs; a second STUN server lets nodes see whether their NAT is hard.
"""
import argparse
import http.client
import json
import pathlib
import socket
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from lab import stock # noqa: E402
from lab.lab import Lab # noqa: E402
from lab.scenarios.hard_nat import TwoRelays # noqa: E402
from lab.scenarios.matrix import KINDS, Matrix # noqa: E402
from lab.tailrace import AGENT_SOCKET, Agent # noqa: E402
from lab.traffic import Ping # noqa: E402

LOOK_EVERY = 0.05


class LocalApi(http.client.HTTPConnection):
    """Of an agent in a lab, reached through the root of its process."""

    def __init__(self, agent):
        super().__init__("local-tailscaled.sock", timeout=5)
        self._path = f"/proc/{agent.program.pid}/root{getattr(agent, 'socket', AGENT_SOCKET)}"

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def direct_to(agent, name: str) -> str:
    api = LocalApi(agent)
    try:
        api.request("GET", "/localapi/v0/status")
        peers = json.loads(api.getresponse().read()).get("Peer") or {}
    finally:
        api.close()
    return next((peer["CurAddr"] for peer in peers.values() if peer["HostName"] == name), "")


def meet(pairs: list, seconds: float) -> list:
    """All pairs at once, each node in one pair only; `seconds` after the first packet it is over."""
    found = [{} for _ in pairs] # by side: when it was direct first
    pings, began = [], []
    for a, b in pairs:
        began.append(time.monotonic())
        pings.append(Ping(a.host, b.agent.ip(), interval=0.02))
    while time.monotonic() < began[-1] + seconds:
        for number, (a, b) in enumerate(pairs):
            for me, other in ((a, b), (b, a)):
                if me.host.name not in found[number] and direct_to(me.agent, other.host.name):
                    found[number][me.host.name] = time.monotonic() - began[number]
        time.sleep(LOOK_EVERY)
    rows = []
    for number, (a, b) in enumerate(pairs):
        is_direct = all(direct_to(me.agent, other.host.name) for me, other in ((a, b), (b, a)))
        rows.append({"from": a.kind, "to": b.kind, "path": "direct" if is_direct else "relay",
                     "seconds": round(max(found[number].values()), 2) if is_direct and len(found[number]) == 2 else None,
                     **pings[number].lost()})
    return rows


def measure(name: str, agent_is, kinds: list, seconds: float) -> list:
    with tempfile.TemporaryDirectory(prefix="tailrace-bench.") as directory, Lab(directory) as lab:
        matrix = Matrix(lab, kinds=kinds, a_is=agent_is, b_is=agent_is, relay_is=TwoRelays)
        rows = []
        for shift in range(len(kinds)):
            pairs = [(matrix.nodes["a", kind], matrix.nodes["b", kinds[(i + shift) % len(kinds)]]) for i, kind in enumerate(kinds)]
            rows += [{"nodes": name, **row} for row in meet(pairs, seconds)]
        return rows


def table(rows: list, names: list) -> None:
    by = {(row["nodes"], row["from"], row["to"]): row for row in rows}
    print(f"{'from':12} {'to':12}" + "".join(f" {name + ': direct after':>22} {'lost of sent':>13}" for name in names))
    for start, end in [(row["from"], row["to"]) for row in rows if row["nodes"] == names[0]]:
        line = f"{start:12} {end:12}"
        for name in names:
            row = by[name, start, end]
            after = "relay" if row["path"] == "relay" else "direct" if row["seconds"] is None else f"{row['seconds']:.2f} s"
            line += f" {after:>22} {'{}/{}'.format(row['lost'], row['sent']):>13}"
        print(line)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/bench paths", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments.add_argument("--seconds", type=float, default=12, help="for which a pair talks")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    whom = [("tailrace", Agent)]
    if stock.binary("tailscaled") and stock.binary("tailscale"):
        whom.append(("stock", stock.StockClient))
    rows = []
    for name, agent_is in whom:
        rows += measure(name, agent_is, args.kinds, args.seconds)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        table(rows, [name for name, _ in whom])


if __name__ == "__main__":
    main()
