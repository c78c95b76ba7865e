"""Stock clients host a service of our coordination server; a stock client and our agent reach it as the policy says.
Picture: lab/scenarios/services.py
"""
import pytest

from lab.scenarios.services import PATIENCE, Web
from lab.stock import StockClient
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

POLICY = """{
  "tagOwners": { "tag:web": ["ops@example.com"] },
  "acls": [{ "action": "accept", "src": ["alice@example.com"], "dst": ["svc:web:*"] }],
  AUTO
}
"""
AUTO = '"autoApprovers": { "services": { "svc:web": ["tag:web"] } },'
NOBODY = POLICY.replace('"alice@example.com"', '"ops@example.com"')
CLIENTS = {"stock": StockClient, "ours": Agent}


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_host_that_the_policy_approves_until_it_lets_nobody_in(lab, programs):
    net = Web(lab, {"web1": StockClient}, CLIENTS, POLICY.replace("AUTO", AUTO))
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
            assert not net.answers(client, address), f"{name} is refused"
    assert not net.clients["stock"].status()["ExtraRecords"]
    assert net.states() == {"web1": "serves"}, "others may still reach it"


@pytest.mark.needs("tailscaled", "tailscale")
def test_hosts_approved_by_hand_stand_in_for_each_other(lab, programs):
    net = Web(lab, {"web1": StockClient, "web2": StockClient}, CLIENTS, POLICY.replace("AUTO", ""))
    wait_for(lambda: net.states() == {"web1": "waits for approval", "web2": "waits for approval"}, PATIENCE, "both say that they serve it")
    stock = net.clients["stock"]
    assert net.carriers(stock) == [] and not net.answers(stock, net.addresses[0])
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
    net.withdraw(net.hosts["web2"])
    wait_for(lambda: net.states()["web2"] == "drained", PATIENCE, "web2 takes no new connections")
