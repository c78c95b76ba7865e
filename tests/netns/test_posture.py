"""Who may reach what goes by attributes of nodes and roles of users, which are changed while packets flow.
Picture: lab/scenarios/quickstart.py"""
import json

from lab.scenarios.quickstart import ALICE, Tailnet
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

POLICY = """{
  "postures": { "posture:trusted": ["node:os == 'linux'", "custom:tier == 'gold'"] },
  "acls": [
    { "action": "accept", "src": ["autogroup:member"], "srcPosture": ["posture:trusted"], "dst": ["*:80"] },
    { "action": "accept", "src": ["autogroup:admin"], "dst": ["*:8080"] },
  ],
}
"""


def test_attributes_and_roles_open_and_close(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.control.set_policy(POLICY)
    for name, host in net.hosts.items():
        net.agents[name] = Agent(host)
        net.agents[name].up(net.control.url, net.control.create_key(ALICE))
    net.serve_web()
    alice, bob, address = net.hosts["alice"], net.hosts["bob"], net.gateway.ip()
    assert not tcp_opens(alice, address, 80, 1) and not tcp_opens(alice, address, 8080, 1)

    net.control.cli("nodes", "attributes", "alice", "--set", "custom:tier=gold")
    wait_for(lambda: tcp_opens(alice, address, 80, 1), 15, "alice's node is trusted")
    assert not tcp_opens(bob, address, 80, 1)
    net.control.cli("nodes", "attributes", "bob", "--set", "custom:tier=gold", "--expiry", "6s")
    wait_for(lambda: tcp_opens(bob, address, 80, 1), 5, "bob's node is trusted for a while")
    wait_for(lambda: not tcp_opens(bob, address, 80, 1), 15, "and then no longer")
    assert tcp_opens(alice, address, 80, 1)
    shown = {one["name"]: one for one in json.loads(net.control.cli("nodes", "attributes", "alice", "--json").stdout)}
    assert shown["node:os"]["value"] == "linux" and shown["node:os"]["source"] == "reported"
    assert shown["custom:tier"]["source"] == "set" and "custom:tier" not in net.control.cli("nodes", "attributes", "bob").stdout
    net.control.cli("nodes", "attributes", "alice", "--unset", "custom:tier")
    wait_for(lambda: not tcp_opens(alice, address, 80, 1), 15, "alice's node is trusted no more")

    net.control.cli("users", "role", ALICE, "admin")
    wait_for(lambda: tcp_opens(alice, address, 8080, 1), 15, "an administrator may more")
    net.control.cli("users", "role", ALICE, "member")
    wait_for(lambda: not tcp_opens(alice, address, 8080, 1), 15, "a member may not")


def test_what_is_no_attribute_is_refused(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    Agent(net.hosts["alice"]).up(net.control.url, net.control.create_key(ALICE))
    for words, sentence in [(("alice", "--set", "tier=gold"), "write custom:name"), (("alice", "--set", "custom:tier"), "want custom:NAME=VALUE"),
                            (("alice", "--set", "custom:tier=a b"), "can't be the value"), (("alice", "--unset", "custom:tier"), "has no attribute"),
                            (("nobody", "--set", "custom:tier=gold"), "nobody"), (("alice", "--expiry", "1h"), "--expiry is for")]:
        done = net.control.cli("nodes", "attributes", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr, done
    done = net.control.cli("users", "role", ALICE, "king", check=False)
    assert done.returncode == 1 and "want member, auditor" in done.stderr
