"""How much a gateway costs: packets of tailnet peers to a network behind it, by WireGuard alone, with our policy, and with the
fast path for forwarded flows; beside a stock router when TAILSCALED and TAILSCALE name one.

      client-0 ... client-N        gateway
          |            |             |
    ------+------------+-------------+------ the internet
                                     | lan0, masquerade
                                  server

Everything runs on this one machine, both ends of the tunnel included, so what counts is one row beside another. Throughput is
what iperf3 got; cost is the processor's time of the whole way, less what it takes when nothing is sent. The way of WireGuard
alone is the same tailnet with its agents dead and every program and rule of theirs taken away. Who encrypts is the kernel, with
--uml or where this machine's kernel has WireGuard, else wireguard-go; a stock router does it by itself. With the kernel's, the
time is that of the whole machine, else of the lab's processes.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from lab import stock # noqa: E402
from lab.lab import Lab # noqa: E402
from lab.scenarios.subnet_router import LAN, LAN6, POLICY, SERVER, US, RoutedNet # noqa: E402
from lab.tailrace import Agent # noqa: E402
from lab.traffic import ping # noqa: E402
from lab.wait import wait_for # noqa: E402

FIRST_PORT = 5201
SIZES = (64, 512, 1400) # bytes of a packet in the tunnel; 1400 stands for as large as fits (1280)
UDP_HEADERS = 28
LARGEST = 1280
RULES = "table ip plain {\n chain post {\n type nat hook postrouting priority 100\n oifname lan0 masquerade\n }\n}\n"


def seconds_of_machine() -> float:
    words = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(word) for word in words[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def seconds_of_lab(host) -> float:
    """Of all processes that live in the lab of this host now, with what the kernel does in their name."""
    lab = os.readlink(f"/proc/{host.namespaces.keeper_pid}/ns/pid")
    total = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/pid") == lab:
                total += sum(int((thread / "schedstat").read_text().split()[0]) for thread in (process / "task").iterdir())
        except OSError: # it has ended
            continue
    return total / 1e9


class Room:
    def __init__(self, lab: Lab, peers: int, router_is=Agent):
        self.net = RoutedNet(lab, router_is=router_is)
        self.net.forward()
        ports = f"{FIRST_PORT}-{FIRST_PORT + peers}"
        self.net.control.set_policy(POLICY.replace('"192.168.7.0/24:80"', f'"192.168.7.0/24:80,{ports}"'))
        self.net.join()
        self.clients = [self.net.client_host]
        self.agents = [self.net.router, self.net.client]
        crowd = [Agent(lab.host(f"client-{number}"), wait=False) for number in range(1, peers)]
        key = self.net.control.create_key(US)
        for agent in crowd:
            agent.wait_until_up()
        for up in [agent.start_up(self.net.control.url, key, "--accept-routes", timeout=120) for agent in crowd]:
            if up.wait(150) != 0:
                sys.exit(f"a client could not join:\n{up.output()[-2000:]}")
        self.clients += [agent.host for agent in crowd]
        self.agents += crowd
        for number, client in enumerate(self.clients):
            self.net.server.start(f"iperf3-{number}", ["iperf3", "-s", "-p", FIRST_PORT + number])
            wait_for(lambda: self._is_through(client), 60, f"{client.name} reaches the network")
        wait_for(self._paths_are_direct, 120, "all paths are direct")
        self.is_userspace = self.net.client.device_kind() == "wireguard-go"

    def _is_through(self, client) -> bool:
        return client.run(["curl", "-so", "/dev/null", "--noproxy", "*", "--max-time", "2", f"http://{SERVER}/payload"], check=False).returncode == 0

    def _paths_are_direct(self) -> bool:
        """In both directions, all at once. Whoever has been silent for long has none, and sends something."""
        found = {peer["HostName"] for peer in self.net.router.status()["Peer"].values() if peer["CurAddr"]}
        late = [agent for agent in self.agents[1:] if not agent.direct_to("router") or agent.host.name not in found]
        for agent in late:
            ping(agent.host, SERVER, timeout=1)
        return not late

    def busy_seconds(self) -> float:
        """Kernel WireGuard works in threads of the kernel: then the machine should have nothing else to do."""
        return seconds_of_lab(self.net.router_host) if self.is_userspace else seconds_of_machine()

    def has_fast_path(self) -> bool:
        return self.net.router_host.run("nft list table inet tailrace-tailrace0-fast", check=False).returncode == 0

    def lose_fast_path(self) -> None:
        router = self.net.router
        router.program.stop()
        router.more = ("--no-fast-path",)
        router.start()
        wait_for(lambda: router.running() and not self.has_fast_path(), 60, "the router forwards without a fast path")
        wait_for(self._paths_are_direct, 120, "all paths are direct")

    def strip(self) -> None:
        """Leaves WireGuard, its peers and routes, and one masquerade rule. All agents go at once: one that outlives its peer's
        for some seconds would take to the relay."""
        for agent in self.agents:
            agent.program.kill()
        for agent in self.agents:
            agent.detach_packet_programs()
            agent.host.run("nft flush ruleset")
        self.net.router_host.nft(RULES)

    def run(self, words: list, seconds: float) -> dict:
        """One transfer a client, all at once; again when one could not begin, for iperf3 may still be at the end of the last."""
        for _ in range(4):
            got = self._run(words, seconds)
            if not got["error"]:
                return got
            time.sleep(3)
        sys.exit(f"iperf3: {got['error']}")

    def _run(self, words: list, seconds: float) -> dict:
        before = self.busy_seconds()
        started = time.monotonic()
        running = [client.start(f"iperf3-{number}-{time.monotonic_ns()}", ["iperf3", "-c", SERVER, "-p", FIRST_PORT + number, "-t", seconds, "-J", *words])
                   for number, client in enumerate(self.clients)]
        reports = []
        for program in running:
            program.wait(seconds + 30)
            try:
                reports.append(json.loads("{" + program.output().partition("{")[2])) # after warnings
            except ValueError:
                sys.exit(f"iperf3 gave no report:\n{program.output()[-2000:]}")
        elapsed = time.monotonic() - started
        spent = self.busy_seconds() - before
        if self.is_userspace: # what the clients' iperf3 took went with them
            spent += sum(report["end"].get("cpu_utilization_percent", {}).get("host_total", 0) / 100 * seconds for report in reports)
        got = {"bytes": 0, "packets": 0, "sent": 0, "seconds": elapsed, "cpu": spent, "error": next((report["error"] for report in reports if "error" in report), "")}
        for end in (report["end"] for report in reports):
            if "sum" in end: # UDP
                got["sent"] += end["sum"]["packets"]
                got["packets"] += end["sum"]["packets"] - end["sum"]["lost_packets"]
                got["bytes"] += (end["sum"]["packets"] - end["sum"]["lost_packets"]) * end["sum"]["bytes"] / max(1, end["sum"]["packets"])
            elif "sum_received" in end:
                got["bytes"] += end["sum_received"]["bytes"]
        return got


def per_byte(runs: list, rest: float) -> dict:
    """`rest`: seconds of the processor a second when nothing is sent."""
    return {"gbit_s": statistics.median(run["bytes"] * 8 / run["seconds"] / 1e9 for run in runs),
            "cpu_s_gb": statistics.median((run["cpu"] - rest * run["seconds"]) / (max(1, run["bytes"]) / 1e9) for run in runs)}


def measure(room: Room, what: str, args) -> list:
    print(f"measuring {what}, {len(room.clients)} peers", file=sys.stderr)
    rows = []
    idle = []
    for _ in range(args.rounds):
        before = room.busy_seconds()
        time.sleep(1)
        idle.append(room.busy_seconds() - before)
    rest = statistics.median(idle)
    tcp = [room.run([], args.seconds) for _ in range(args.rounds)]
    rows.append({"what": what, "peers": len(room.clients), "bytes": "TCP", **per_byte(tcp, rest)})
    for size in SIZES:
        payload = min(size, LARGEST) - UDP_HEADERS
        rate = args.packets / len(room.clients) * payload * 8 # a rate that the machine can bear, so that cost is what differs
        udp = [room.run(["-u", "-l", payload, "-b", int(rate)], args.seconds) for _ in range(args.rounds)]
        rows.append({"what": what, "peers": len(room.clients), "bytes": size, **per_byte(udp, rest),
                     "packets_s": statistics.median(u["packets"] / u["seconds"] for u in udp),
                     "lost": statistics.median(1 - u["packets"] / max(1, u["sent"]) for u in udp),
                     "cpu_us_packet": statistics.median((u["cpu"] - rest * u["seconds"]) / max(1, u["packets"]) * 1e6 for u in udp)})
    return rows


def table(rows: list) -> None:
    print(f"{'':<22} {'peers':>5} {'bytes':>6} {'Gbit/s':>8} {'CPU s/GB':>9} {'packets/s':>10} {'lost':>6} {'CPU us/packet':>14}")
    for row in rows:
        def shown(name, form):
            return format(row[name], form) if name in row else ""
        print(f"{row['what']:<22} {row['peers']:>5} {row['bytes']:>6} {shown('gbit_s', '8.4f'):>8} {shown('cpu_s_gb', '9.2f'):>9} "
              f"{shown('packets_s', '10.0f'):>10} {shown('lost', '6.1%'):>6} {shown('cpu_us_packet', '14.1f'):>14}")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/bench gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", type=int, nargs="+", default=[1, 64])
    arguments.add_argument("--seconds", type=int, default=3, help="of one transfer")
    arguments.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    arguments.add_argument("--packets", type=int, default=2000, help="a second, of all peers together, where packets are counted")
    arguments.add_argument("--quick", action="store_true", help="one round of a second: whether it works, and a first look; with many peers most of it is the start of iperf3")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    if args.quick:
        args.seconds = args.rounds = 1
    rows = []
    for peers in args.peers:
        with tempfile.TemporaryDirectory(prefix="tailrace-bench.") as directory, Lab(directory) as lab:
            room = Room(lab, peers)
            kind = room.net.router.device_kind()
            if room.has_fast_path():
                rows += measure(room, "policy and fast path", args)
            else:
                print("this kernel has no flow table (CONFIG_NF_FLOW_TABLE), so there is no fast path to measure", file=sys.stderr)
            room.lose_fast_path()
            rows += measure(room, "policy", args)
            room.strip()
            rows += measure(room, f"{kind} alone", args)
        if stock.binary("tailscaled") and stock.binary("tailscale"):
            with tempfile.TemporaryDirectory(prefix="tailrace-bench.") as directory, Lab(directory) as lab:
                rows += measure(Room(lab, peers, router_is=stock.StockClient), "stock router", args)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        table(rows)


if __name__ == "__main__":
    main()
