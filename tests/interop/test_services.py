"""Stock clients host a service of our coordination server; a stock client and our agent reach it as the policy says.

      control 203.0.113.1    relay 203.0.113.2    web1     web2    stock    ours
             |                      |               |        |       |        |
    ---------+----------------------+---------------+--------+-------+--------+---- the internet, 203.0.113.0/24
                                                    :        :
                                       svc:web, TCP port 80, behind both
"""
import pytest

from lab.stock import StockClient
from lab.tailrace import Agent, TailraceControl, TailraceRelay
from lab.traffic import WebServer, fetch, tcp_opens
from lab.wait import wait_for

POLICY = """{
  "tagOwners": { "tag:web": ["ops@example.com"] },
  "acls": [{ "action": "accept", "src": ["alice@example.com"], "dst": ["svc:web:*"] }],
  AUTO
}
"""
AUTO = '"autoApprovers": { "services": { "svc:web": ["tag:web"] } },'
NOBODY = POLICY.replace('"alice@example.com"', '"ops@example.com"')
PAYLOAD = 100_000
# A connection that finds no host now asks again after 1, 3 and 7 s; the machine may be busy with other things too.
PATIENCE = 30


class Web:
    """svc:web, with hosts that serve it and clients of alice."""

    def __init__(self, lab, hosts, policy):
        lab.internet()
        self.relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        self.control = TailraceControl(lab.host("control", address="203.0.113.1"), self.relay.derp_map, policy=policy)
        for user in ("ops@example.com", "alice@example.com"):
            self.control.create_user(user)
        self.control.cli("services", "create", "svc:web", "--tags", "tag:web", "--ports", "tcp:80")
        self.addresses = self.service()["addresses"]
        key = self.control.create_key("ops@example.com", tags=["tag:web"])
        self.hosts = {name: StockClient(lab.host(name)) for name in hosts}
        for host in self.hosts.values():
            WebServer(host.host, ports=(8000,), size_bytes=PAYLOAD)
            host.up(self.control.url, key)
            host.cli("serve", "--service=svc:web", "--tcp=80", "tcp://127.0.0.1:8000", timeout=30)
        key = self.control.create_key("alice@example.com")
        self.clients = {"stock": StockClient(lab.host("stock")), "ours": Agent(lab.host("ours"))}
        for client in self.clients.values():
            client.up(self.control.url, key)

    def service(self) -> dict:
        (service,) = self.control.json("services", "list")
        return service

    def states(self) -> dict:
        return {host["name"]: host["state"] for host in self.service()["hosts"]}

    def primary(self) -> list:
        return [host["name"] for host in self.service()["hosts"] if host["primary"]]

    def carriers(self, client) -> list:
        """The hosts through which a client reaches the service."""
        wanted = {f"{address}/{128 if ':' in address else 32}" for address in self.addresses}
        return [name for name in self.hosts if wanted <= set(client.peer(name).get("AllowedIPs") or [])]

    def fetches(self, client, address) -> bool:
        url = f"http://[{address}]/payload" if ":" in address else f"http://{address}/payload"
        return fetch(client.host, url, timeout=10) is not None

    def everybody_fetches(self, why: str) -> None:
        for name, client in self.clients.items():
            for address in self.addresses:
                wait_for(lambda: self.fetches(client, address), PATIENCE, f"{name} fetches from {address}: {why}")


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_host_that_the_policy_approves_until_it_lets_nobody_in(lab, programs):
    net = Web(lab, ["web1"], POLICY.replace("AUTO", AUTO))
    wait_for(lambda: net.states() == {"web1": "serves"}, PATIENCE, "web1 says that it serves it and is approved")
    assert net.service()["hosts"][0]["decidedBy"] == "policy"
    for name, client in net.clients.items():
        wait_for(lambda: net.carriers(client) == ["web1"], PATIENCE, f"{name} knows the host")
    net.everybody_fetches("the policy lets alice in")
    web1 = net.hosts["web1"].ip()
    for client in net.clients.values():
        assert not tcp_opens(client.host, web1, 8000), "that is no way to the host itself"
    records = {(r["Name"], r["Value"]) for r in net.clients["stock"].status()["ExtraRecords"]}
    assert records == {("web.tail.lab", address) for address in net.addresses}

    net.control.set_policy(NOBODY.replace("AUTO", AUTO))
    for name, client in net.clients.items():
        wait_for(lambda: net.carriers(client) == [], PATIENCE, f"{name} has no host any more")
        for address in net.addresses:
            assert not net.fetches(client, address), f"{name} is refused"
    assert not net.clients["stock"].status()["ExtraRecords"]
    assert net.states() == {"web1": "serves"}, "others may still reach it"


@pytest.mark.needs("tailscaled", "tailscale")
def test_hosts_approved_by_hand_stand_in_for_each_other(lab, programs):
    net = Web(lab, ["web1", "web2"], POLICY.replace("AUTO", ""))
    wait_for(lambda: net.states() == {"web1": "waits for approval", "web2": "waits for approval"}, PATIENCE, "both say that they serve it")
    stock = net.clients["stock"]
    assert net.carriers(stock) == [] and not net.fetches(stock, net.addresses[0])
    for name in net.hosts:
        net.control.cli("services", "approve", "svc:web", name)
    assert net.states() == {"web1": "serves", "web2": "serves"} and net.primary() == ["web1"], net.service()
    net.everybody_fetches("both are approved")

    net.control.program.kill()
    net.control.start()
    wait_for(lambda: net.states() == {"web1": "serves", "web2": "serves"}, PATIENCE, "a new server knows them")
    assert net.primary() == ["web1"] and net.service()["addresses"] == net.addresses
    net.everybody_fetches("nothing has changed")

    net.hosts["web1"].program.kill()
    wait_for(lambda: net.primary() == ["web2"], PATIENCE, "web2 stands in")
    for client in net.clients.values():
        wait_for(lambda: net.carriers(client) == ["web2"], PATIENCE, "clients are told")
    net.everybody_fetches("web2 serves it")
    net.hosts["web2"].cli("serve", "drain", "svc:web")
    wait_for(lambda: net.states()["web2"] == "drained", PATIENCE, "web2 takes no new connections")
