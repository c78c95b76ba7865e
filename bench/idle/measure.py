"""What a node costs that knows many peers and talks to none: memory, and processor time; beside a stock client when TAILSCALED
and TAILSCALE name one.

      control    relay    node    crowd: N nodes that registered, followed the map for a while, and are gone
         |         |        |       |
    -----+---------+--------+-------+------ the internet
"""
import argparse
import json
import os
import pathlib
import re
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from lab import stock # noqa: E402
from lab.lab import BUILD, Lab # noqa: E402
from lab.tailrace import Agent, TailraceControl, TailraceRelay # noqa: E402
from lab.wait import wait_for # noqa: E402


def memory_mb(pid: int) -> dict:
    """Resident: all of it, what belongs to nobody else, and what is mapped from files, which others may share."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = {name: int(kb) / 1024 for name, kb in re.findall(r"^(VmRSS|RssAnon|RssFile):\s+(\d+) kB", text, re.MULTILINE)}
    return {"memory_mb": found["VmRSS"], "own_mb": found["RssAnon"], "files_mb": found["RssFile"]}


def cpu_ms(pid: int) -> float:
    """Of all its threads; finer than the ticks in /proc/PID/stat."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e6


def measure(node_is, peers: int, seconds: float) -> dict:
    with tempfile.TemporaryDirectory(prefix="tailrace-bench.") as directory, Lab(directory) as lab:
        lab.internet()
        relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        control = TailraceControl(lab.host("control", address="203.0.113.1"), relay.derp_map)
        control.create_user("us")
        node = node_is(lab.host("node"))
        node.up(control.url, control.create_key("us"))
        lab.host("crowd").run([BUILD / "bench/storm", "--url", control.url, "--key", control.create_key("us"), "--nodes", peers, "--changes", 0],
                              timeout=300)
        wait_for(lambda: len(node.status().get("Peer") or {}) == peers, 60, "the node knows them all")
        time.sleep(15) # what that stirred up settles
        pid = node.program.pid
        before = cpu_ms(pid)
        time.sleep(seconds)
        spent = cpu_ms(pid) - before
        return {"peers": peers, **memory_mb(pid), "cpu_ms": spent, "seconds": seconds}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/bench idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", type=int, nargs="+", default=[10, 1000])
    arguments.add_argument("--seconds", type=float, default=10, help="in which processor time is counted")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    whom = [("tailraced", Agent)]
    if stock.binary("tailscaled") and stock.binary("tailscale"):
        whom.append(("stock", stock.StockClient))
    rows = [{"node": name, **measure(node_is, peers, args.seconds)} for peers in args.peers for name, node_is in whom]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'node':<10} {'peers':>6} {'memory, MB':>11} {'its own':>8} {'of files':>9} {'CPU ms in ' + format(args.seconds, 'g') + ' s':>16}")
    for row in rows:
        print(f"{row['node']:<10} {row['peers']:>6} {row['memory_mb']:>11.1f} {row['own_mb']:>8.1f} {row['files_mb']:>9.1f} {row['cpu_ms']:>16.1f}")


if __name__ == "__main__":
    main()
