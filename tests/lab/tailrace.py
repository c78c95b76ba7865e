"""Our own programs on the hosts of a lab."""
import json
import pathlib
import re
import signal
import socket

from .lab import BUILD, PROJECT, Host
from .program import CommandFailed
from .stock import BASE_DOMAIN, derp_map
from .wait import wait_for

TAILRACED = BUILD / "agent/tailraced"
TAILRACE = BUILD / "agent/tailrace"
TAILRACE_CONTROL = BUILD / "control/tailrace-control"
TAILRACE_RELAY = BUILD / "relay/tailrace-relay"
CONTROL_SOCKET = "/run/tailrace-control/control.sock"
AGENT_SOCKET = "/run/tailrace/tailraced.sock"


def missing_programs() -> list:
    return [str(p) for p in (TAILRACED, TAILRACE, TAILRACE_CONTROL, TAILRACE_RELAY) if not p.exists()]


class TailraceControl:
    """tailrace-control on a host: cleartext on 8080, TLS on 443, both at the host's address."""

    def __init__(self, host: Host, relays: dict = None, policy: str = "", **settings):
        self.host = host
        self.socket = CONTROL_SOCKET
        self.url = f"http://{host.address}:8080"
        self.folder = host.directory / "control"
        self.folder.mkdir(exist_ok=True)
        self._config = self.folder / "config.yaml"
        (self.folder / "derp.json").write_text(json.dumps(relays or derp_map()))
        if settings.get("relay") == "embedded" and relays is None:
            settings["derp_map_file"] = ""
        lines = {"server_url": self.url, "listen": "0.0.0.0:8080", "listen_tls": "0.0.0.0:443", "metrics_listen": "127.0.0.1:9090",
                 "state_dir": str(self.folder / "state"), "socket": CONTROL_SOCKET, "base_domain": BASE_DOMAIN,
                 "derp_map_file": str(self.folder / "derp.json"), **settings}
        self._settings = lines
        self._write_config()
        host.run(["mkdir", "-p", str(pathlib.Path(CONTROL_SOCKET).parent), self.folder / "state"])
        self.program = None
        self.start()
        if policy:
            self.set_policy(policy)

    def _write_config(self) -> None:
        self._config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in self._settings.items()))

    def reload(self, **settings) -> None:
        """With other settings, as far as a reload heeds them."""
        self._settings.update(settings)
        self._write_config()
        self.program.signal(signal.SIGHUP)

    def set_relays(self, relays: dict) -> None:
        """From its next start on."""
        (self.folder / "derp.json").write_text(json.dumps(relays))

    def start(self) -> None:
        self.program = self.host.start("tailrace-control", [TAILRACE_CONTROL, "serve", "--config", self._config])
        self.wait_until_up()

    def wait_until_up(self) -> None:
        def answers():
            if not self.program.alive():
                raise CommandFailed(f"tailrace-control ended:\n{self.program.output()[-2000:]}")
            return self.cli("users", "list", "--json").returncode == 0
        wait_for(answers, 15, "tailrace-control answers on its socket")

    def cli(self, *words, check: bool = True, timeout: float = 15):
        return self.host.run([TAILRACE_CONTROL, "--socket", CONTROL_SOCKET, *words], check=check, timeout=timeout)

    def json(self, *words):
        return json.loads(self.cli(*words, "--json").stdout)

    def create_user(self, name: str) -> None:
        self.cli("users", "create", name)

    def create_key(self, user: str, tags=(), reusable: bool = True, ephemeral: bool = False) -> str:
        words = ["keys", "create", "--user", user]
        words += ["--reusable"] if reusable else []
        words += ["--ephemeral"] if ephemeral else []
        words += ["--tags", ",".join(tags)] if tags else []
        return self.json(*words)["key"]

    def set_policy(self, text: str) -> None:
        path = self.folder / "policy.hujson"
        path.write_text(text)
        self.cli("policy", "set", path)

    def nodes(self) -> list:
        return self.json("nodes", "list")

    def approve_route(self, node: str, route: str) -> None:
        self.cli("nodes", "routes", "approve", node, route)


class TailraceRelay:
    """tailrace-relay on a host: DERP by TLS on 443 with a certificate of its own, STUN on 3478."""

    def __init__(self, host: Host, *more):
        self.host = host
        self.folder = host.directory / "relay"
        self.folder.mkdir(exist_ok=True)
        self._words = [TAILRACE_RELAY, "--listen", ":443", "--listen-http", ":80", "--hostname", host.address, "--state-dir", self.folder / "state", *more]
        self.program = None
        self.start()

    def start(self, *more) -> None:
        self.program = self.host.start("tailrace-relay", [*self._words, *more])
        wait_for(lambda: "ready" in self.program.output(), 15, "tailrace-relay is ready")
        found = self.program.wait_for_output(r'"CertName":"(sha256-raw:[0-9a-f]{64})"', 5)
        self.cert_name = found[1]
        self.derp_map = derp_map(self.host.address, cert_name=self.cert_name)

    def metrics(self) -> dict:
        """Every counter and gauge by its name without prefix, labels included."""
        text = self.host.run(["curl", "-sk", "--noproxy", "*", "--max-time", "5", "https://127.0.0.1/metrics"]).stdout
        lines = [line.split(" ") for line in text.splitlines() if line.startswith("tailrace_relay_")]
        return {name.removeprefix("tailrace_relay_"): int(value) for name, value in lines}


# Debian's bpftool knows no TCX links. 46, 47: BPF_TCX_INGRESS, BPF_TCX_EGRESS.
_PROGRAMS_BY_LINKS = """
import ctypes, socket, sys
libbpf, device = ctypes.CDLL("libbpf.so.1"), socket.if_nametoindex(sys.argv[1])
for hook in (46, 47):
    ids, count = (ctypes.c_uint32 * 16)(), ctypes.c_uint32(16)
    if libbpf.bpf_prog_query(device, hook, 0, None, ids, ctypes.byref(count)) == 0:
        print(*ids[:count.value])
"""


def pins_of(host: Host, what: str = "tailrace0") -> str:
    """Where an agent of a host keeps what shall outlive it: of a device, or of a part beside it ("tailrace0-steer")."""
    version = re.search(r"define TR_SCHEMA_VERSION (\d+)", (PROJECT / "bpf/shared/base.h").read_text())[1]
    namespace = host.run("stat -Lc %i /proc/self/ns/net").stdout.strip()
    return f"/sys/fs/bpf/tailrace/v{version}/{what}@{namespace}"


class Agent:
    """tailraced and tailrace on a host."""

    def __init__(self, host: Host, wireguard: str = "auto", device: str = "tailrace0", port: int = 41641, wait: bool = True, more=()):
        self.host = host
        self.wireguard = wireguard
        self.device = device
        self.port = port
        self.more = more # words for tailraced
        self.environment = None # beside what programs of a lab get
        self.state = host.directory / "tailraced"
        self.program = None
        self.start(wait)

    def start(self, wait: bool = True) -> None:
        self.program = self.host.start("tailraced", self.program_words(), env=self.environment)
        if wait:
            self.wait_until_up()

    def program_words(self) -> list:
        return [TAILRACED, "--state-dir", self.state, "--socket", AGENT_SOCKET, "--device", self.device, "--port", self.port,
                "--wireguard", self.wireguard, *self.more]

    def wait_until_up(self) -> None:
        def answers():
            if not self.program.alive():
                raise CommandFailed(f"tailraced ended:\n{self.program.output()[-2000:]}")
            return self.status()
        wait_for(answers, 20, f"tailraced answers on {self.host.name}")

    def cli(self, *words, timeout: float = 15, check: bool = True):
        return self.host.run([TAILRACE, "--socket", AGENT_SOCKET, *words], timeout=timeout, check=check)

    def _up_words(self, url: str, key: str, timeout: float) -> list:
        key_file = self.host.directory / "auth-key"
        key_file.write_text(key)
        return ["up", "--login-server", url, "--auth-key", f"file:{key_file}", "--hostname", self.host.name, f"--timeout={timeout:g}s"]

    def up(self, url: str, key: str, *more, timeout: float = 30) -> None:
        self.cli(*self._up_words(url, key, timeout), *more, timeout=timeout + 10)

    def start_up(self, url: str, key: str, *more, timeout: float = 60):
        """The same, not waited for."""
        return self.host.start("up", [TAILRACE, "--socket", AGENT_SOCKET, *self._up_words(url, key, timeout), *more])

    def status(self) -> dict:
        """What `tailrace status --json` prints."""
        return self.ask("status")

    def ask(self, what: str) -> dict:
        """What the agent says on its socket, asked from here: tests look often, and starting a program costs many times as much,
        most of all in user-mode Linux."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(15)
            connection.connect(f"/proc/{self.host.namespaces.keeper_pid}/root{AGENT_SOCKET}")
            connection.sendall(f"GET /localapi/v0/{what} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n\r\n".encode())
            head, _, body = b"".join(iter(lambda: connection.recv(1 << 20), b"")).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise CommandFailed(f"{self.host.name}: {what}: {(head + body).decode(errors='replace')}")
        return json.loads(body)

    def running(self) -> bool:
        return self.status()["BackendState"] == "Running"

    def ip(self, family: int = 4) -> str:
        """As `tailrace ip -4` or `-6` prints it."""
        return next(a for a in self.status()["TailscaleIPs"] if (":" in a) == (family == 6))

    def peer(self, host_name: str) -> dict:
        """What its status says about a peer; empty when it knows none of that name."""
        peers = (self.status().get("Peer") or {}).values()
        return next((p for p in peers if p["HostName"] == host_name or p["DNSName"].split(".")[0] == host_name), {})

    def direct_to(self, host_name: str) -> str:
        return self.peer(host_name).get("CurAddr", "")

    def drops(self) -> dict:
        """Dropped packets by reason, since the programs were loaded."""
        reasons = json.loads(self.cli("debug", "drops", "--json").stdout)["Reasons"]
        return {r["Reason"]: r["Packets"] for r in reasons if not r["Passes"] and r["Packets"]}

    def packet_programs(self) -> list:
        """(name, id) of every packet program on the tunnel, by links and by filters, sorted. One may have been loaded without a name."""
        ids = self.host.run(["/usr/bin/python3", "-c", _PROGRAMS_BY_LINKS, self.device]).stdout.split()
        filters = json.loads(self.host.run(["bpftool", "-j", "net", "show", "dev", self.device]).stdout)[0]["tc"]
        ids += [str(entry.get("id", entry.get("prog_id"))) for entry in filters if str(entry.get("kind", "")).startswith("clsact")]
        return sorted((json.loads(self.host.run(["bpftool", "-j", "prog", "show", "id", one]).stdout).get("name", ""), int(one)) for one in ids)

    def detach_packet_programs(self) -> None:
        """As somebody with too many rights might: the links are pinned and stay, and lead nowhere."""
        ours = {program for _, program in self.packet_programs()}
        links = [link["id"] for link in json.loads(self.host.run("bpftool -j link show").stdout or "[]") if link.get("prog_id") in ours]
        for link in links:
            self.host.run(["bpftool", "link", "detach", "id", link])
        if not links: # before Linux 6.6: filters of a qdisc
            self.host.run(f"tc qdisc del dev {self.device} clsact")
        # Judged by these links: a living agent may have put others in their place by now.
        for link in links:
            left = self.host.run(["bpftool", "-j", "link", "show", "id", link], check=False)
            assert left.returncode != 0 or json.loads(left.stdout).get("ifindex", 0) == 0, f"link {link} leads nowhere"

    def device_kind(self) -> str:
        """Who encrypts: "kernel WireGuard" or "wireguard-go"."""
        links = json.loads(self.host.run(["ip", "-j", "-d", "link", "show", self.device]).stdout)
        kind = links[0].get("linkinfo", {}).get("info_kind", "")
        return {"wireguard": "kernel WireGuard", "tun": "wireguard-go"}.get(kind, kind)
