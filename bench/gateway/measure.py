"""How much a gateway costs: packets of tailnet peers to a network behind it, by WireGuard alone, with our policy, and with the
fast path for forwarded flows; beside a stock router when TAILSCALED and TAILSCALE name one.

      client-0 ... client-N        gateway
          |            |             |
    ------+------------+-------------+------ the internet
                                     | lan0, masquerade
                                  server

Everything runs on this one machine, both ends of the tunnel included, so what counts is one row beside another. Throughput is
what arrives at the server's interface while all clients send; cost is the processor's time of the whole way, less what it
takes when nothing is sent. The way of WireGuard alone is the same tailnet with its agents dead and every program and rule of
theirs taken away. Who encrypts is the kernel, with --uml or where this machine's kernel has WireGuard, else wireguard-go; a
stock router does it by itself. With the kernel's, the time is that of the whole machine, else of the lab's processes. The
clients' agents are a part of it that no gateway has to bear, and where WireGuard is alone there are none: "gateway" is the cost
without them, and is what the ratio compares. With --uml a second that somebody else has the processor is one of ours: what is
measured wants a core for itself.
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
LONG_ENOUGH = 600 # seconds of a transfer, which ends before by our hand
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


def seconds_of(programs: list) -> float:
    """Of these programs, with what the kernel does in their name; of one that has ended none."""
    ticks = 0
    for program in programs:
        if program.alive():
            words = pathlib.Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12]) # utime and stime, proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


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
        self.servers = [self.net.server.start(f"iperf3-{number}", ["iperf3", "-s", "-p", FIRST_PORT + number]) for number in range(peers)]
        for client in self.clients:
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

    def clients_seconds(self) -> float:
        """What of that the clients' agents took."""
        return seconds_of([agent.program for agent in self.agents[1:]])

    def reading(self) -> dict:
        """What was spent and what the server received until now."""
        got = {"seconds": time.monotonic(), "cpu": self.busy_seconds(), "clients": self.clients_seconds(), "bytes": 0, "packets": 0}
        for line in pathlib.Path(f"/proc/{self.servers[0].pid}/net/dev").read_text().splitlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                received = counters.split()
                got["bytes"] += int(received[0])
                got["packets"] += int(received[1])
        return got

    def window(self, seconds: float) -> dict:
        """The difference of two readings."""
        before = self.reading()
        time.sleep(seconds)
        after = self.reading()
        return {what: after[what] - before[what] for what in before}

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

    def _connections(self) -> int:
        """Of the transfers' servers."""
        lines = [line.split() for kind in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/{self.servers[0].pid}/net/{kind}").read_text().splitlines()[1:]]
        established = [int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "01"]
        return sum(FIRST_PORT <= port < FIRST_PORT + len(self.clients) for port in established)

    def _start(self, number: int, words: list):
        return self.clients[number].start(f"iperf3-{number}-{time.monotonic_ns()}", ["iperf3", "-c", SERVER, "-p", FIRST_PORT + number, "-t", LONG_ENOUGH, *words])

    def run(self, words: list, seconds: float) -> dict:
        """A part of one transfer a client while all run: their start costs more than what they carry meanwhile."""
        running = [self._start(number, words) for number in range(len(self.clients))]

        def all_run() -> bool:
            for number, program in enumerate(running):
                if not program.alive(): # its server was still at the end of the last one
                    running[number] = self._start(number, words)
            return self._connections() == len(running) * (1 if "-u" in words else 2) # UDP has one for control only
        wait_for(all_run, 120, "all transfers run")
        time.sleep(1)
        got = self.window(seconds)
        for program in running:
            program.kill()
        wait_for(lambda: self._connections() == 0, 60, "all transfers have ended")
        return got


def per_byte(runs: list, idle: list) -> dict:
    """Medians. What `idle` runs take is taken off."""
    rest = {what: statistics.median(run[what] / run["seconds"] for run in idle) for what in ("cpu", "clients")}
    for run in runs:
        run["cost"] = run["cpu"] - rest["cpu"] * run["seconds"]
        run["gateway"] = run["cost"] - (run["clients"] - rest["clients"] * run["seconds"])
    return {"gbit_s": statistics.median(run["bytes"] * 8 / run["seconds"] / 1e9 for run in runs),
            "cpu_s_gb": statistics.median(run["cost"] / (max(1, run["bytes"]) / 1e9) for run in runs),
            "gateway_cpu_s_gb": statistics.median(run["gateway"] / (max(1, run["bytes"]) / 1e9) for run in runs)}


def measure(room: Room, what: str, args) -> list:
    print(f"measuring {what}, {len(room.clients)} peers", file=sys.stderr)
    rows = []
    idle = [room.window(args.seconds) for _ in range(args.rounds)]
    tcp = [room.run([], args.seconds) for _ in range(args.rounds)]
    rows.append({"what": what, "peers": len(room.clients), "bytes": "TCP", **per_byte(tcp, idle)})
    for size in SIZES:
        payload = min(size, LARGEST) - UDP_HEADERS
        rate = args.packets / len(room.clients) # that the machine can bear, so that cost is what differs
        words = ["-u", "-l", payload, "-b", int(rate * payload * 8), "--pacing-timer", int(1e6 / rate)] # else it wakes every millisecond
        udp = [room.run(words, args.seconds) for _ in range(args.rounds)]
        rows.append({"what": what, "peers": len(room.clients), "bytes": size, **per_byte(udp, idle),
                     "packets_s": statistics.median(u["packets"] / u["seconds"] for u in udp),
                     "cpu_us_packet": statistics.median(u["cost"] / max(1, u["packets"]) * 1e6 for u in udp)})
    return rows


def add_ratios(rows: list) -> None:
    """To the same with WireGuard alone: of throughput more is better, of cost less."""
    alone = {(row["peers"], row["bytes"]): row for row in rows if row["what"].endswith(" alone")}
    for row in rows:
        base = alone[row["peers"], row["bytes"]]
        row["gbit_s_ratio"] = row["gbit_s"] / base["gbit_s"]
        row["gateway_cpu_ratio"] = row["gateway_cpu_s_gb"] / base["gateway_cpu_s_gb"]


def table(rows: list) -> None:
    print(f"{'':<22} {'peers':>5} {'bytes':>6} {'Gbit/s':>8} {'ratio':>6} {'CPU s/GB':>9} {'gateway':>9} {'ratio':>6} "
          f"{'packets/s':>10} {'CPU us/packet':>14}")
    for row in rows:
        def shown(name, form):
            return format(row[name], form) if name in row else ""
        print(f"{row['what']:<22} {row['peers']:>5} {row['bytes']:>6} {shown('gbit_s', '8.4f'):>8} {shown('gbit_s_ratio', '6.3f'):>6} "
              f"{shown('cpu_s_gb', '9.2f'):>9} {shown('gateway_cpu_s_gb', '9.2f'):>9} {shown('gateway_cpu_ratio', '6.3f'):>6} "
              f"{shown('packets_s', '10.0f'):>10} {shown('cpu_us_packet', '14.1f'):>14}")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/bench gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", type=int, nargs="+", default=[1, 64])
    arguments.add_argument("--seconds", type=int, default=3, help="of one measurement")
    arguments.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    arguments.add_argument("--packets", type=int, default=800, help="a second, of all peers together, where packets are counted; user-mode Linux has no idle time left at 1300 from 64 peers")
    arguments.add_argument("--quick", action="store_true", help="one round of a second: whether it works, and a first look")
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
    add_ratios(rows)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        table(rows)


if __name__ == "__main__":
    main()
