"""Stock programs, when their binaries are given by environment: TAILSCALED, TAILSCALE, HEADSCALE, DERPER."""
import json
import os
import pathlib
import re

from .lab import Host
from .wait import wait_for

BASE_DOMAIN = "tail.lab"
CONTROL_PRIVATE = "10.99.0.1" # a private address: stock clients of a public http:// URL insist on 443 after a restart


def binary(name: str) -> str:
    """Path of a stock program, or empty."""
    path = os.environ.get(name.upper(), "")
    return path if path and os.access(path, os.X_OK) else ""


def derp_map(host_name: str = "203.0.113.2", cert_name: str = "", derp_port: int = 443, stun_port: int = 3478,
             region: int = 900, code: str = "lab") -> dict:
    """A DERP map with one region, in the wire form. Clients need one to come up, also when nothing answers there."""
    node = {"Name": f"{region}a", "RegionID": region, "HostName": host_name, "IPv4": host_name, "IPv6": "none",
            "DERPPort": derp_port, "STUNPort": stun_port}
    if cert_name:
        node["CertName"] = cert_name
    return {"Regions": {str(region): {"RegionID": region, "RegionCode": code, "RegionName": code.title(), "Nodes": [node]}}}


class Derper:
    """A stock relay with STUN on its host."""

    def __init__(self, host: Host):
        self.host = host
        self._folder = host.directory / "derper"
        self._folder.mkdir(exist_ok=True)
        self.program = None
        self.start()

    def start(self) -> None:
        """A second start finds its key and certificate again."""
        self.program = self.host.start("derper", [
            binary("derper"), "-a", ":443", "-http-port", "80", "-stun-port", "3478", "-certmode", "manual", "-certdir", self._folder,
            "-hostname", self.host.address, "-c", self._folder / "derper.key"])
        found = self.program.wait_for_output(r'\\?"CertName\\?":\s*\\?"(sha256-raw:[0-9a-f]+)', 20)
        self.derp_map = derp_map(self.host.address, cert_name=found[1])


class Headscale:
    """A stock coordination server, reached at a private address of its host."""

    def __init__(self, host: Host, relays: dict, policy: str = ""):
        self.host = host
        self.url = f"http://{CONTROL_PRIVATE}:8080"
        host.ip(f"address add {CONTROL_PRIVATE}/32 dev lo")
        host.lab.internet().switch.ip(f"route add {CONTROL_PRIVATE}/32 via {host.address}")
        self._folder = host.directory / "headscale"
        self._folder.mkdir(exist_ok=True)
        self._config = self._folder / "config.yaml"
        self._write_configuration(relays)
        self.program = None
        self.start()
        if policy:
            self.set_policy(policy)

    def _write_configuration(self, relays: dict) -> None:
        regions = {}
        for number, region in relays["Regions"].items():
            nodes = [{"name": n["Name"], "regionid": n["RegionID"], "hostname": n["HostName"], "ipv4": n["IPv4"],
                      "certname": n.get("CertName", ""), "stunport": n["STUNPort"], "derpport": n["DERPPort"]} for n in region["Nodes"]]
            regions[int(number)] = {"regionid": region["RegionID"], "regioncode": region["RegionCode"],
                                    "regionname": region["RegionName"], "nodes": nodes}
        # JSON is YAML, except that the keys of the map must be numbers.
        text = re.sub(r'"(\d+)": \{', r"\1: {", json.dumps({"regions": regions}))
        (self._folder / "derp.yaml").write_text(text)
        self._config.write_text(json.dumps({
            "server_url": self.url, "listen_addr": "0.0.0.0:8080", "metrics_listen_addr": "127.0.0.1:9090",
            "grpc_listen_addr": "127.0.0.1:50443", "noise": {"private_key_path": str(self._folder / "noise.key")},
            "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
            "derp": {"urls": [], "paths": [str(self._folder / "derp.yaml")], "server": {"enabled": False}},
            "disable_check_updates": True, "database": {"type": "sqlite", "sqlite": {"path": str(self._folder / "db.sqlite")}},
            "dns": {"magic_dns": True, "base_domain": BASE_DOMAIN, "override_local_dns": False},
            "unix_socket": "/run/headscale.sock", "policy": {"mode": "database"}}))

    def start(self) -> None:
        self.program = self.host.start("headscale", [binary("headscale"), "serve", "-c", self._config])
        wait_for(lambda: self.command("users", "list") is not None, 30, "headscale answers on its socket")

    def command(self, *words):
        """One command of its command line, read as JSON."""
        done = self.host.run([binary("headscale"), "-c", self._config, *words, "-o", "json"], timeout=30)
        return json.loads(done.stdout or "null") or []

    def create_user(self, name: str) -> None:
        self.command("users", "create", name)

    def create_key(self, user: str, tags=()) -> str:
        ids = {u["name"]: str(u["id"]) for u in self.command("users", "list")}
        more = ["--tags", ",".join(tags)] if tags else []
        return self.command("preauthkeys", "create", "--user", ids[user], "--reusable", *more)["key"]

    def set_policy(self, text: str) -> None:
        path = self._folder / "policy.hujson"
        path.write_text(text)
        self.host.run([binary("headscale"), "-c", self._config, "policy", "set", "-f", path], timeout=30)

    def nodes(self) -> list:
        return self.command("nodes", "list")

    def approve_route(self, node: str, route: str) -> None:
        """And no other route of that node."""
        number = next(str(one["id"]) for one in self.nodes() if node in (one["name"], one.get("given_name")))
        self.command("nodes", "approve-routes", "--identifier", number, "--routes", route)


class StockClient:
    """tailscaled and tailscale on a host."""

    def __init__(self, host: Host, port: int = 41641):
        self.host = host
        self.port = port
        self.state = host.directory / "tailscaled"
        self.state.mkdir(exist_ok=True)
        self.socket = "/run/ts.sock"
        self.program = None
        self.start()

    def start(self) -> None:
        self.program = self.host.start("tailscaled", [
            binary("tailscaled"), f"--statedir={self.state}", f"--socket={self.socket}", "--tun=tailscale0", f"--port={self.port}",
            "--no-logs-no-support"])
        wait_for(lambda: self.status(), 20, f"tailscaled answers on {self.host.name}")

    def cli(self, *words, timeout: float = 15, check: bool = True):
        return self.host.run([binary("tailscale"), f"--socket={self.socket}", *words], timeout=timeout, check=check)

    def up(self, url: str, key: str, *more, timeout: float = 30) -> None:
        key_file = self.state / "auth-key"
        key_file.write_text(key)
        self.cli("up", f"--login-server={url}", f"--auth-key=file:{key_file}", f"--hostname={self.host.name}", "--accept-dns=false",
                 f"--timeout={timeout:g}s", *more, timeout=timeout + 10)

    def status(self) -> dict:
        return json.loads(self.cli("status", "--json").stdout)

    def running(self) -> bool:
        return self.status()["BackendState"] == "Running"

    def ip(self, family: int = 4) -> str:
        return self.cli("ip", f"-{family}").stdout.strip()

    def peer(self, host_name: str) -> dict:
        """What its status says about a peer; empty when it knows none of that name."""
        peers = (self.status().get("Peer") or {}).values()
        return next((p for p in peers if p["HostName"] == host_name or p["DNSName"].split(".")[0] == host_name), {})

    def direct_to(self, host_name: str) -> str:
        """The endpoint in use for a peer, empty while it is relayed or idle."""
        return self.peer(host_name).get("CurAddr", "")

    def filter_ready(self) -> bool:
        return self.running()


def text_of(path: pathlib.Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
