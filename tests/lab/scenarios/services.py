"""A service of the tailnet and its hosts, each an agent or a stock client, and clients of it.

      control 203.0.113.1    relay 203.0.113.2    web1     web2    clients
             |                      |               |        |       |  |
    ---------+----------------------+---------------+--------+-------+--+---- the internet, 203.0.113.0/24
                                                    :        :
                                       svc:web, TCP port 80, behind both
"""
import json

from ..stock import StockClient
from ..tailrace import Agent, TailraceControl, TailraceRelay
from ..traffic import WebServer, fetch
from ..wait import wait_for

OPERATOR, ALICE, MALLORY = "ops@example.com", "alice@example.com", "mallory@example.com"
PAYLOAD = {"web1": 100_000, "web2": 200_000} # so that a client knows who answered
# A connection that finds no host now asks again after 1, 3 and 7 s; the machine may be busy with other things too.
PATIENCE = 30


def single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


class Web:
    """svc:web, with hosts that serve it and clients of alice."""

    def __init__(self, lab, hosts: dict, clients: dict, policy: str, ports: str = "tcp:80"):
        """Hosts and clients by name: Agent or StockClient. What hosts serve they say at once."""
        lab.internet()
        self.lab = lab
        self.relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = TailraceControl(lab.host("control", address="203.0.113.1"), self.relay.derp_map, policy=policy)
        for user in (OPERATOR, ALICE, MALLORY):
            self.control.create_user(user)
        self.control.cli("services", "create", "svc:web", "--tags", "tag:web", "--ports", ports)
        self.addresses = self.service()["addresses"]
        key = self.control.create_key(OPERATOR, tags=["tag:web"])
        self.hosts = {name: make(lab.host(name)) for name, make in hosts.items()}
        for name, host in self.hosts.items():
            WebServer(host.host, ports=(80, 8000), size_bytes=PAYLOAD[name]) # 8000: for stock clients to pass connections on to
            host.up(self.control.url, key)
            self.offer(host)
        self.clients = {}
        for name, make in clients.items():
            self.add_client(name, make, ALICE)

    def add_client(self, name: str, make, user: str):
        self.clients[name] = make(self.lab.host(name))
        self.clients[name].up(self.control.url, self.control.create_key(user))
        return self.clients[name]

    def offer(self, host) -> None:
        if isinstance(host, Agent):
            host.cli("set", "--advertise-services=svc:web")
        else:
            host.cli("serve", "--service=svc:web", "--tcp=80", "tcp://127.0.0.1:8000", timeout=30)

    def withdraw(self, host) -> None:
        if isinstance(host, Agent):
            host.cli("set", "--advertise-services=")
        else:
            host.cli("serve", "drain", "svc:web")

    def service(self) -> dict:
        (service,) = self.control.json("services", "list")
        return service

    def states(self) -> dict:
        return {host["name"]: host["state"] for host in self.service()["hosts"]}

    def primary(self) -> list:
        return [host["name"] for host in self.service()["hosts"] if host["primary"]]

    def carriers(self, client) -> list:
        """The hosts through which a client reaches the service."""
        wanted = {single(address) for address in self.addresses}
        return [name for name in self.hosts if wanted <= set(client.peer(name).get("AllowedIPs") or [])]

    def answers(self, client, address: str, timeout: float = 10) -> str:
        """The host that serves a client at an address; none: ""."""
        url = f"http://[{address}]/payload" if ":" in address else f"http://{address}/payload"
        got = fetch(client.host, url, timeout=timeout)
        return next((name for name, size in PAYLOAD.items() if got and got[0] == size), "")

    def everybody_fetches(self, why: str, host: str = "") -> None:
        """Each client at each address; from that host, if one is named."""
        for name, client in self.clients.items():
            for address in self.addresses:
                def fetches() -> bool:
                    who = self.answers(client, address)
                    return who == host if host else who != ""
                wait_for(fetches, PATIENCE, f"{name} fetches from {address}: {why}")

    def held(self, host) -> set:
        """Which of the service's addresses a host has on its tunnel."""
        links = json.loads(host.host.run(["ip", "-j", "address", "show", "dev", "tailrace0"], check=False).stdout or "[]")
        there = {address["local"] for link in links for address in link.get("addr_info", [])}
        return there & set(self.addresses)

    def routed(self, host) -> set:
        """Which of the service's addresses stand in a host's table 52."""
        lines = host.host.run("ip route show table 52", check=False).stdout + host.host.run("ip -6 route show table 52", check=False).stdout
        return {line.split()[0] for line in lines.splitlines() if line} & set(self.addresses)
