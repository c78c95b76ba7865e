"""Our agent hosts a service beside a stock host in TUN mode; a stock client and ours reach whichever carries it.
Picture: lab/scenarios/services.py
"""
import pytest

from lab.scenarios.services import PATIENCE, Web, single
from lab.stock import StockClient
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

POLICY = """{
  "tagOwners": { "tag:web": ["ops@example.com"] },
  "acls": [{ "action": "accept", "src": ["alice@example.com"], "dst": ["svc:web:80"] }],
  "autoApprovers": { "services": { "svc:web": ["tag:web"] } },
}
"""


class Mixed(Web):
    def offer(self, host) -> None:
        if isinstance(host, Agent):
            return super().offer(host)
        # As its documentation wants it: the operating system has the addresses, and programs listen at them.
        for address in self.addresses:
            host.host.ip(f"address add {single(address)} dev lo")
        host.cli("serve", "--service=svc:web", "--tun", timeout=30)


@pytest.mark.needs("tailscaled", "tailscale")
def test_our_host_and_a_stock_one_stand_in_for_each_other(lab, programs):
    net = Mixed(lab, {"web1": Agent, "web2": StockClient}, {"stock": StockClient, "ours": Agent}, POLICY, ports="tcp:80-81")
    wait_for(lambda: net.states() == {"web1": "serves", "web2": "serves"}, PATIENCE, "both serve it, as the policy approves")
    first = net.primary()[0]
    for name, client in net.clients.items():
        wait_for(lambda: net.carriers(client) == [first], PATIENCE, f"{name} knows the host")
    net.everybody_fetches("the policy lets alice in", first)
    for client in net.clients.values():
        assert not tcp_opens(client.host, net.addresses[0], 8000), "not a port of the service"
        assert not tcp_opens(client.host, net.hosts["web1"].ip(), 80), "no way to the host itself"

    net.hosts[first].program.kill()
    (second,) = set(net.hosts) - {first}
    for name, client in net.clients.items():
        wait_for(lambda: net.carriers(client) == [second], PATIENCE, f"{name} is told")
    net.everybody_fetches("the other stands in", second)
    net.hosts[first].start()
    wait_for(net.hosts[first].running, PATIENCE, f"{first} is back")
    net.withdraw(net.hosts[second])
    for name, client in net.clients.items():
        wait_for(lambda: net.carriers(client) == [first], PATIENCE, f"{name} is told again")
    net.everybody_fetches("the other was drained", first)
