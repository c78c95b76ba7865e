"""A small internet on one kernel: hosts, links and NAT boxes, each host in namespaces of its own.

    with Lab(directory) as lab:
        internet = lab.internet()
        alice = lab.host("alice", internet)                 # 203.0.113.x, default route into the internet
        home = lab.nat("home", internet, "easy")            # a NAT box with a LAN behind it
        bob = lab.host("bob", home.lan)
        alice.run("ping -c 1 203.0.113.1")

Everything ends with the lab, also when the program that made it is killed; a lab made with outlives_us=True stays until
destroy(), and Lab.load() finds it again.
"""
import functools
import ipaddress
import json
import os
import pathlib
import shlex
import shutil
import subprocess

from .namespaces import HostNamespaces, Sandbox, started_at
from .program import CommandFailed, Program

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = PROJECT / os.environ.get("BUILD_DIR", "build")
INTERNET = "203.0.113.0/24"
INTERNET6 = "2001:db8::/64" # who wants IPv6 there asks for it: Host.add_v6()
PATH = ":".join([str(BUILD / "agent"), str(BUILD / "control"), "/usr/local/sbin", "/usr/local/bin",
                 "/usr/sbin", "/usr/bin", "/sbin", "/bin"])

# A NAT box that keeps one outside port for each inside socket. Unsolicited packets to itself are dropped before
# connection tracking can remember them: they would take the port that a later flow should get.
EASY_NAT = """
table ip nat_box {
    chain leave { type nat hook postrouting priority srcnat; oifname "eth0" masquerade persistent; }
    chain pass  { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname . oifname { "lan0" . "lan1", "lan1" . "lan0" } drop; iifname "lan*" accept; }
    chain box   { type filter hook input priority filter; iifname "eth0" ct state new drop; }
}
"""
# As above with another outside port for each destination.
HARD_NAT = EASY_NAT.replace("masquerade persistent", "masquerade random")
# As above with the chains in which miniupnpd (lab/miniupnpd.py) lets in what it forwards.
PORT_MAPPED_NAT = HARD_NAT.replace("policy drop;", "policy drop; ct status dnat accept;") + """
table inet miniupnpd {
    chain prerouting { type nat hook prerouting priority dstnat; jump in_map; }
    chain postrouting { type nat hook postrouting priority srcnat - 1; jump out_map; }
    chain forwarded { }
    chain in_map { }
    chain out_map { }
}
"""
# TCP and ICMP as in the easy one; UDP is led to tests/fakes/hairpin_nat by HAIRPIN_ROUTES.
HAIRPIN_NAT = EASY_NAT.replace("policy drop;", """policy drop; iifname "nat0" accept; oifname "nat0" accept;""") + """
table ip by_program {
    chain early { type filter hook prerouting priority raw; meta l4proto udp notrack; }
}
"""
NAT_RULES = {"easy": EASY_NAT, "hard": HARD_NAT, "port-mapped": PORT_MAPPED_NAT, "hairpin": HAIRPIN_NAT}
HAIRPIN_NAT_PROGRAM = BUILD / "tests/fakes/hairpin_nat"
# What is for the box itself from inside stays with it, what is for its outside address goes to the program: so ours come
# before the rule of local addresses, which is put behind them.
HAIRPIN_ROUTES = ["tuntap add dev nat0 mode tun", "link set nat0 up", "route add default dev nat0 table 7", "rule add pref 4 lookup local",
                  "rule add pref 3 iif eth0 ipproto udp lookup 7", "rule del pref 0"]
HAIRPIN_ROUTES_OF_A_LAN = ["rule add pref 1 iif {device} to {gateway} lookup local", "rule add pref 2 iif {device} ipproto udp lookup 7"]


@functools.cache
def find_program(name: str) -> str:
    """Where a host has it."""
    path = shutil.which(name, path=PATH)
    if path is None:
        raise CommandFailed(f"there is no program {name}")
    return path


def new_bridge(name: str) -> str:
    """With a hardware address that stays: else it is the lowest of its ports' addresses, and hosts that asked for it before
    the last port came send to nobody for a while."""
    return f"link add {name} address 02:{os.urandom(5).hex(':')} type bridge"


class Link:
    """A bridge that hosts are plugged into, with an address range."""

    def __init__(self, lab: "Lab", switch: "Host", bridge: str, prefix: str, gateway: str):
        self.lab = lab
        self.switch = switch # the host that the bridge is on
        self.bridge = bridge
        self.prefix = ipaddress.ip_network(prefix)
        self.gateway = gateway # default route of the hosts here
        self._free = (str(a) for a in list(self.prefix.hosts())[9:])

    def next_address(self) -> str:
        return next(self._free)


class Host:
    """A machine: programs are started on it and files of it live in `directory`."""

    def __init__(self, lab: "Lab", name: str, namespaces: HostNamespaces, directory: pathlib.Path, address: str = ""):
        self.lab = lab
        self.name = name
        self.namespaces = namespaces
        self.directory = directory
        self.address = address # on its first link
        self._logs = 0

    def environment(self, extra=None) -> dict:
        kept = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TERM", "USER")}
        return {**kept, "PATH": PATH, **(extra or {})}

    def popen(self, argv, env=None, **options) -> subprocess.Popen:
        if isinstance(argv, str):
            argv = shlex.split(argv)
        return self.namespaces.popen([find_program(str(argv[0])), *(str(a) for a in argv[1:])], env=self.environment(env), cwd="/", **options)

    def run(self, argv, timeout: float = 15, check: bool = True, env=None, input: str = None) -> subprocess.CompletedProcess:
        """Runs a command to its end. Fails with what it printed, unless check is False."""
        process = self.popen(argv, env=env, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            try:
                out, err = process.communicate(timeout=1)
            except subprocess.TimeoutExpired: # a child of it holds the pipe
                out, err = "", ""
            raise CommandFailed(f"{self.name}: {_text(argv)}: not finished within {timeout:g} s\n{out}{err}") from None
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode != 0:
            raise CommandFailed(f"{self.name}: {_text(argv)}: exit status {done.returncode}\n{out}{err}")
        return done

    def start(self, name: str, argv, env=None) -> Program:
        """Starts a program that runs on; its output goes to DIRECTORY/NAME.log (appended when started again)."""
        log = self.directory / f"{name}.log"
        with open(log, "ab") as sink:
            begins_at = sink.tell()
            process = self.popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        return Program(f"{self.name}/{name}", process, log, begins_at)

    def ip(self, *commands: str) -> None:
        """Several `ip` commands in one go. They know processes by the pids that we see, not by those of the sandbox."""
        done = self.namespaces.do(subprocess.run, [find_program("ip"), "-force", "-batch", "-"], input="\n".join(commands) + "\n",
                                  text=True, capture_output=True, timeout=20)
        if done.returncode != 0:
            raise CommandFailed(f"{self.name}: ip: {done.stderr}{commands}")

    def nft(self, rules: str) -> None:
        self.run(["nft", "-f", "-"], input=rules)

    def sysctl(self, name: str, value) -> None:
        self.namespaces.do(pathlib.Path("/proc/sys", name.replace(".", "/")).write_text, str(value))

    def set_netem(self, device: str, rule: str) -> None:
        """For example "delay 20ms loss 1%". The kernel of the netns room may lack netem."""
        self.run(f"tc qdisc replace dev {device} root netem {rule}")

    def plug_into(self, link: Link, device: str, address: str = "", is_default: bool = False) -> str:
        """A cable from a device of this host to the link. Returns the address that the device got."""
        address = address or link.next_address()
        end = self._plug(device)
        link.switch.ip(f"link add {end} type veth peer name {device} netns {self.namespaces.keeper_pid}",
                       f"link set {end} master {link.bridge} up")
        route = [f"route add default via {link.gateway}"] if is_default else []
        self.ip(f"address add {address}/{link.prefix.prefixlen} dev {device}", f"link set {device} up", *route)
        return address

    def add_v6(self, number: int) -> str:
        """A public IPv6 address beside the one that this host has in the internet."""
        net = ipaddress.ip_network(INTERNET6)
        address = str(net[number])
        self.ip(f"address add {address}/{net.prefixlen} dev eth0 nodad", f"route add default via {net[0xffff]}")
        return address

    def without_v4(self) -> None:
        self.ip(f"address delete {self.address}/24 dev eth0")

    def _plug(self, device: str) -> str:
        """Name of the other end of the cable, on the switch."""
        return f"{self.name}-{device}"[:15]

    def set_plugged(self, link: Link, device: str, state: str) -> None:
        """Pulls the cable out ("down") or puts it back ("up")."""
        link.switch.ip(f"link set {self._plug(device)} {state}")

    def pid_inside(self, program: Program) -> int:
        """The pid that programs on this host see."""
        for line in pathlib.Path(f"/proc/{program.pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise CommandFailed(f"{program.name} has no pid")


class Nat:
    """A NAT box: `box` has eth0 in the outside link and a LAN bridge inside, lan0; or several, lan0, lan1, that reach each
    other at most by outside addresses."""

    def __init__(self, box: Host, lans: list):
        self.box = box
        self.lans = lans
        self.lan = lans[0]


class Lab:
    def __init__(self, directory, outlives_us: bool = False):
        self.directory = pathlib.Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.sandbox = Sandbox.create(outlives_us)
        self.hosts = {}
        self._internet = None
        self._nats = 0

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_):
        self.destroy()

    def destroy(self) -> None:
        """Kills every program of the lab; the kernel then takes down its namespaces, mounts and pins."""
        self.sandbox.destroy()
        for host in self.hosts.values():
            host.namespaces.close()
        self.hosts = {}

    # -- making things

    def _new_host(self, name: str) -> Host:
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        host = Host(self, name, HostNamespaces.create(self.sandbox, name, directory), directory)
        self.hosts[name] = host
        return host

    def internet(self) -> Link:
        """The link of public addresses. Its switch routes, and is everybody's default gateway: what leads nowhere is refused quickly."""
        if self._internet is None:
            switch = self._new_host("internet")
            gateway = str(list(ipaddress.ip_network(INTERNET).hosts())[-1])
            switch.ip(new_bridge("br0"), f"address add {gateway}/24 dev br0", "link set br0 up")
            switch.sysctl("net.ipv4.ip_forward", 1)
            switch.ip(f"address add {ipaddress.ip_network(INTERNET6)[0xffff]}/64 dev br0 nodad")
            self._internet = Link(self, switch, "br0", INTERNET, gateway)
        return self._internet

    def host(self, name: str, link: Link = None, address: str = "") -> Host:
        """A machine with eth0 in the link (the internet when none is named) and its default route there."""
        link = link or self.internet()
        host = self._new_host(name)
        host.address = host.plug_into(link, "eth0", address, is_default=True)
        return host

    def nat(self, name: str, outside: Link, kind: str, lan_prefix: str = "", lans: int = 1) -> Nat:
        """A NAT box: "easy" (one port for an inside socket, whoever it talks to), "hard" (another port each time),
        "port-mapped" (hard, and ready for miniupnpd), or "hairpin" (easy, and those behind it reach each other's outside ports)."""
        box = self.host(name, outside)
        links = []
        for number in range(lans):
            self._nats += 1
            links.append(self.lan(box, lan_prefix or f"192.168.{self._nats}.0/24", f"lan{number}"))
            lan_prefix = "" # is of the first
        box.sysctl("net.ipv4.ip_forward", 1)
        box.nft(NAT_RULES[kind])
        if kind == "hairpin":
            self._start_hairpin_nat(box, links)
        return Nat(box, links)

    def _start_hairpin_nat(self, box: Host, lans: list) -> None:
        box.ip(*HAIRPIN_ROUTES, *(line.format(device=lan.bridge, gateway=lan.gateway) for lan in lans for line in HAIRPIN_ROUTES_OF_A_LAN))
        box.sysctl("net.ipv4.conf.nat0.accept_local", 1) # what left comes from the box's own address
        inside = [word for lan in lans for word in ("--inside", lan.prefix)]
        box.start("hairpin-nat", [HAIRPIN_NAT_PROGRAM, "--device", "nat0", "--outside", box.address, *inside]).wait_for_output("ready")

    def lan(self, host: Host, prefix: str, device: str = "lan0") -> Link:
        """A network behind a host, on a bridge of it. The host is its gateway, if it forwards."""
        inside = str(list(ipaddress.ip_network(prefix).hosts())[0])
        host.ip(new_bridge(device), f"address add {inside}/24 dev {device}", f"link set {device} up")
        return Link(self, host, device, prefix, inside)

    # -- a lab that stays when we go

    def save(self, path: pathlib.Path) -> None:
        hosts = {name: {"keeper": host.namespaces.keeper_pid, "address": host.address} for name, host in self.hosts.items()}
        keeper = self.sandbox.keeper_pid
        path.write_text(json.dumps({"directory": str(self.directory), "keeper": keeper, "keeper_started": started_at(keeper),
                                    "hosts": hosts}, indent=1) + "\n")

    @classmethod
    def load(cls, path: pathlib.Path):
        """The saved lab, or None when it is no longer there."""
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        if not saved["keeper_started"] or started_at(saved["keeper"]) != saved["keeper_started"]:
            return None
        lab = cls.__new__(cls)
        lab.directory = pathlib.Path(saved["directory"])
        lab.sandbox = Sandbox(saved["keeper"])
        lab.hosts, lab._internet, lab._nats = {}, None, 0
        for name, host in saved["hosts"].items():
            lab.hosts[name] = Host(lab, name, HostNamespaces.of_keeper(lab.sandbox, host["keeper"]), lab.directory / name, host["address"])
        return lab

    def remove_files(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _text(argv) -> str:
    return argv if isinstance(argv, str) else shlex.join(str(a) for a in argv)
