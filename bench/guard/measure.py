"""What a flood of forged handshakes costs the traffic of a peer, without the guard and with it.

    control, relay    alice    bob    mallory    bystander
          |             |       |        |           |
    ------+-------------+-------+--------+-----------+------ the internet

bob sends to alice through the tunnel as fast as TCP does; mallory floods alice. Everything runs on this one machine, the
flood's maker included, so the row that counts the guard's worth is the one beside it in which mallory floods a bystander
without WireGuard: what the machine has left then is all that a guard could leave. Forged initiations are right up to their
mac1, and cost WireGuard a key agreement each; --rate 0 is as many as the machine gives.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from lab.flood import Flood # noqa: E402
from lab.lab import Lab # noqa: E402
from lab.scenarios.paths import Net # noqa: E402
from lab.tailrace import Agent # noqa: E402
from lab.traffic import ping # noqa: E402
from lab.wait import wait_for # noqa: E402

QUIET, BYSTANDER, WITHOUT, WITH = "no flood", "flood at a bystander", "flood, no guard", "flood, guard"


class Room:
    def __init__(self, lab: Lab, rate: int, seconds: float):
        self.net = Net(lab, "public", "public")
        self.mallory, self.bystander = lab.host("mallory"), lab.host("bystander")
        self.rate, self.seconds = rate, seconds
        self.guarded = False
        self.server = self.net.hosts["alice"].start("iperf3-server", ["iperf3", "-s", "--forceflush"])
        self.server.wait_for_output("Server listening")
        self.settle()

    def settle(self) -> None:
        wait_for(lambda: ping(self.net.hosts["bob"], self.net.alice.ip(), timeout=1) and self.net.bob.direct_to("alice").startswith("203."), 60,
                 "the path is direct")
        time.sleep(3)

    def set_guard(self, wanted: bool) -> None:
        if wanted == self.guarded:
            return
        self.net.alice.program.stop()
        self.net.alice = Agent(self.net.hosts["alice"], more=("--guard",) if wanted else ())
        wait_for(self.net.alice.running, 30, "alice runs again")
        self.guarded = wanted
        self.settle()

    def dropped(self) -> int:
        shown = json.loads(self.net.alice.cli("debug", "drops", "--json", timeout=60).stdout)
        return sum(entry["Packets"] for entry in shown.get("Guard", []) if not entry["Passes"])

    def run(self, what: str) -> dict:
        self.set_guard(what == WITH)
        before = self.dropped()
        flood = None
        if what != QUIET:
            flood = Flood(self.mallory, self.net.alice, seconds=self.seconds + 60, rate=self.rate, at=self.bystander if what == BYSTANDER else None)
            time.sleep(1)
        client = self.net.hosts["bob"].start(f"iperf3-{time.monotonic_ns()}", ["iperf3", "-c", self.net.alice.ip(), "-t", self.seconds, "--json",
                                                                              "--connect-timeout", 10000])
        client.wait(self.seconds + 60)
        sent = flood.finish() if flood else {"sent": 0, "seconds": 1}
        try:
            report = json.loads(client.output())
            bits = report["end"]["sum_received"]["bits_per_second"]
        except (ValueError, KeyError):
            bits = 0 # nothing came through
        return {"bits": bits, "flood": sent["sent"] / sent["seconds"], "dropped": (self.dropped() - before) / max(1, sent["sent"])}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/bench guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=5, help="of one transfer")
    arguments.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    arguments.add_argument("--rate", type=int, default=0, help="of the flood, a second; 0: what the machine gives")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    got = {what: [] for what in (QUIET, BYSTANDER, WITHOUT, WITH)}
    with tempfile.TemporaryDirectory(prefix="tailrace-bench.") as directory, Lab(directory) as lab:
        room = Room(lab, args.rate, args.seconds)
        kind = room.net.alice.device_kind()
        for _ in range(args.rounds):
            for what, runs in got.items():
                runs.append(room.run(what))
    rows = []
    for what, runs in got.items():
        rows.append({"what": what, "wireguard": kind, **{name: statistics.median(run[name] for run in runs) for name in ("bits", "flood", "dropped")}})
    free = rows[1]["bits"] or 1
    for row in rows:
        row["of_bystander"] = row["bits"] / free
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{kind}, median of {args.rounds}\n{'':<22} {'Mbit/s':>8} {'of bystander':>13} {'flood/s':>10} {'dropped':>8}")
    for row in rows:
        print(f"{row['what']:<22} {row['bits'] / 1e6:>8.1f} {row['of_bystander']:>13.0%} {row['flood']:>10.0f} {row['dropped']:>8.1%}")


if __name__ == "__main__":
    main()
