"""Our agents host a service: programs of the host answer at its addresses, to whom the policy lets in, until it is withdrawn.
Picture: lab/scenarios/services.py
"""
import json
import signal
import time

from lab.scenarios.services import MALLORY, PATIENCE, Web, single
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

# Mallory may ask for the service too, at another port: her packets come as far as the host.
POLICY = """{
  "tagOwners": { "tag:web": ["ops@example.com"] },
  "acls": [
    { "action": "accept", "src": ["alice@example.com"], "dst": ["svc:web:80"] },
    { "action": "accept", "src": ["mallory@example.com"], "dst": ["svc:web:81"] },
    { "action": "accept", "src": ["tag:web"], "dst": ["svc:web:*"] },
  ],
}
"""
BOTH = {"web1": Agent, "web2": Agent}
AWAY_SECONDS = 5 # longer than control waits for a host that said nothing, half of what it waits for one that did


def complains(host) -> bool:
    return any("svc:web" in line and "services list" in line for line in host.status().get("Health") or [])


def approved(lab) -> Web:
    """Both hosts serve it, web1 for everybody."""
    net = Web(lab, BOTH, {"alice": Agent}, POLICY, ports="tcp:80-81")
    wait_for(lambda: net.states() == dict.fromkeys(BOTH, "waits for approval"), PATIENCE, "both say that they serve it")
    for name in BOTH:
        net.control.cli("services", "approve", "svc:web", name)
    wait_for(lambda: net.states() == dict.fromkeys(BOTH, "serves"), PATIENCE, "both serve it")
    wait_for(lambda: all(net.held(host) == set(net.addresses) for host in net.hosts.values()), PATIENCE, "both have its addresses")
    wait_for(lambda: net.carriers(net.clients["alice"]) == net.primary() == ["web1"], PATIENCE, "alice is led to web1")
    return net


def test_programs_of_a_host_answer_whom_the_policy_lets_in(lab, programs):
    net = Web(lab, {"web1": Agent}, {"alice": Agent}, POLICY, ports="tcp:80-81")
    web1, alice = net.hosts["web1"], net.clients["alice"]
    wait_for(lambda: net.states() == {"web1": "waits for approval"}, PATIENCE, "web1 says that it serves it")
    wait_for(lambda: complains(web1), PATIENCE, "web1 says that it may not")
    assert not net.held(web1) and not net.routed(web1), "nobody has approved it"
    assert not net.answers(web1, net.addresses[0], 3), "nor do its own programs find it there"

    net.control.cli("services", "approve", "svc:web", "web1")
    wait_for(lambda: net.held(web1) == net.routed(web1) == set(net.addresses), PATIENCE, "it has the addresses, and they are in table 52")
    assert not complains(web1)
    quiet = {one["local"]: one for link in json.loads(web1.host.run(["ip", "-j", "address", "show", "dev", "tailrace0"]).stdout)
             for one in link["addr_info"]}
    for address in net.addresses:
        assert net.answers(web1, address) == "web1", "asked from the host itself"
        assert quiet[address]["scope"] == "host" or quiet[address].get("deprecated"), f"the host chooses {address} as its own"
    net.everybody_fetches("the policy lets alice in")
    for word in ("web", "svc:web", "web.tail.lab"):
        assert alice.cli("ip", word).stdout.split() == net.addresses, "its addresses go by its name"
    assert net.addresses[0] in alice.cli("dns", "query", "web.tail.lab").stdout
    assert web1.cli("debug", "explain", "alice", f"{net.addresses[0]}:80").stdout.startswith("passes"), "and explains it"

    # What the policy does not open stays shut, here and at the node's own addresses, though programs listen.
    mallory = net.add_client("mallory", Agent, MALLORY)
    wait_for(lambda: net.carriers(mallory) == ["web1"], PATIENCE, "mallory knows the host")
    before = web1.drops().get("no-rule", 0)
    for address in net.addresses:
        assert not tcp_opens(mallory.host, address, 80), "mallory is refused by the host"
        assert not tcp_opens(alice.host, address, 81), "alice's rule has another port"
    assert web1.drops()["no-rule"] >= before + 4, web1.drops()
    for family in (4, 6):
        assert not tcp_opens(alice.host, web1.ip(family), 80), "a service is no way to the host itself"
    # A program at the service's address alone is reached as well.
    web1.host.start("one-address", ["/usr/bin/python3", "-m", "http.server", 81, "--bind", net.addresses[0]])
    wait_for(lambda: tcp_opens(mallory.host, net.addresses[0], 81), PATIENCE, "a program at that address answers mallory")
    assert not tcp_opens(mallory.host, web1.ip(), 81)

    # Somebody takes an address away: it comes back.
    web1.host.run(["ip", "address", "delete", single(net.addresses[0]), "dev", "tailrace0"])
    wait_for(lambda: net.held(web1) == set(net.addresses), PATIENCE, "the address is there again")
    wait_for(lambda: net.answers(alice, net.addresses[0]) == "web1", PATIENCE, "and alice reaches it")

    # Without the agent all stays, and its next life changes nothing.
    web1.program.kill()
    assert net.held(web1) == set(net.addresses) and net.answers(web1, net.addresses[0]) == "web1"
    web1.start()
    wait_for(web1.running, PATIENCE, "web1 runs again")
    assert net.held(web1) == set(net.addresses)
    wait_for(lambda: net.answers(alice, net.addresses[0]) == "web1", PATIENCE, "and alice reaches it")

    # Down, and nothing is left; up, and it is back.
    web1.cli("down")
    wait_for(lambda: not net.held(web1) and not net.routed(web1), PATIENCE, "nothing is left behind")
    assert not net.answers(web1, net.addresses[0], 3)
    web1.cli("up")
    wait_for(lambda: net.held(web1) == set(net.addresses), PATIENCE, "the service is back")

    net.control.cli("services", "revoke", "svc:web", "web1")
    wait_for(lambda: not net.held(web1) and not net.routed(web1), PATIENCE, "what is revoked goes")
    wait_for(lambda: complains(web1), PATIENCE, "and web1 says so")
    answer = json.loads(web1.cli("debug", "explain", alice.ip(), f"{net.addresses[0]}:80", "--json", check=False).stdout)
    assert not answer["Passes"] and answer["Reason"] == "not-local", answer
    assert not net.answers(alice, net.addresses[0], 3)


def test_hosts_stand_in_for_each_other(lab, programs):
    net = approved(lab)
    web1, web2, alice = net.hosts["web1"], net.hosts["web2"], net.clients["alice"]
    net.everybody_fetches("web1 was there first", "web1")
    for name, host in net.hosts.items():
        assert net.answers(host, net.addresses[0]) == name, "each host finds the service at itself"

    # A restart in good order moves nothing: it said that it would be back, and its kernel goes on meanwhile.
    web1.program.signal(signal.SIGTERM)
    web1.program.wait(15)
    end = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < end:
        assert net.carriers(alice) == ["web1"] and net.answers(alice, net.addresses[0]) == "web1"
        time.sleep(0.3)
    web1.start()
    wait_for(web1.running, PATIENCE, "web1 runs again")
    net.everybody_fetches("after the restart", "web1")
    assert net.primary() == ["web1"]

    web1.program.kill()
    wait_for(lambda: net.carriers(alice) == ["web2"], PATIENCE, "alice is led to web2")
    net.everybody_fetches("web2 stands in", "web2")
    web1.start()
    wait_for(web1.running, PATIENCE, "web1 runs again")

    # Withdrawn: web2 itself is now led to web1, by the tunnel.
    net.withdraw(web2)
    wait_for(lambda: net.states()["web2"] != "serves" and not net.held(web2), PATIENCE, "web2 does not serve it any more")
    wait_for(lambda: net.carriers(alice) == ["web1"], PATIENCE, "alice is led to web1")
    net.everybody_fetches("web1 serves it again", "web1")
    wait_for(lambda: net.answers(web2, net.addresses[0]) == "web1", PATIENCE, "web2 is a client like others")
    assert not complains(web2)

    net.offer(web2)
    wait_for(lambda: net.states() == dict.fromkeys(BOTH, "serves"), PATIENCE, "it is still approved")
    wait_for(lambda: net.answers(web2, net.addresses[0]) == "web2", PATIENCE, "web2 finds the service at itself again")
    net.control.cli("services", "delete", "svc:web")
    wait_for(lambda: not net.held(web1) and not net.held(web2), PATIENCE, "a service that is deleted leaves nothing behind")
    assert not net.routed(web1) and not net.routed(web2)
    wait_for(lambda: not net.routed(alice) and not net.answers(alice, net.addresses[0], 3), PATIENCE, "nor with alice")
