"""`tailrace debug explain` says what real packets then find. Picture: lab/scenarios/paths.py"""
import json
import re

from lab.scenarios.paths import Net
from lab.tailrace import AGENT_SOCKET, TAILRACE
from lab.traffic import ping, tcp_opens
from lab.wait import wait_for


def counted(node, reason):
    counters = json.loads(node.cli("debug", "drops", "--json").stdout)["Reasons"]
    return next(c["Packets"] for c in counters if c["Reason"] == reason)


def test_a_question_gets_the_verdict_that_packets_get(lab, programs):
    net = Net(lab, "easy", "easy")
    net.reaches()
    alice, bob = net.alice, net.bob
    before = {reason: counted(bob, reason) for reason in ("rule", "not-local")}
    answer = json.loads(bob.cli("debug", "explain", "alice", f"{bob.ip()}/icmp", "--json").stdout)
    assert answer["Passes"] and answer["Reason"] == "rule" and answer["Rule"] == 0 and answer["RuleText"], answer
    refused = bob.cli("debug", "explain", alice.ip(), "192.0.2.1:22", check=False)
    text = refused.stdout
    assert refused.returncode == 1 and not refused.stderr, "for scripts"
    assert text.startswith("dropped: ") and "reason not-local" in text, text
    assert counted(bob, "not-local") == before["not-local"], "a question is not counted"
    assert ping(net.hosts["alice"], bob.ip(), timeout=5)
    assert counted(bob, "rule") > before["rule"]
    assert bob.cli("debug", "explain", "nobody", "bob:22", check=False).returncode == 1
    assert bob.cli("debug", "explain", "alice", "bob", check=False).returncode == 1


# The lines count: 23 and 24 become one rule of bob's filter, for they have the same sources.
POLICY = "\n" * 20 + """{ "acls": [

    { "action": "accept", "src": ["us@"], "dst": ["us@:80"] },
    { "action": "accept", "src": ["us@"], "dst": ["us@:443,9000"] },
    { "action": "accept", "src": ["100.64.0.99"], "proto": "udp", "dst": ["*:53"] } ] }
"""


def lines_of(net, destination):
    return json.loads(net.bob.cli("debug", "explain", "alice", destination, "--json", check=False).stdout).get("PolicyLines")


def filter_generation(node):
    return re.search(r"^tailrace_filter_generation (\d+)$", node.cli("metrics").stdout, re.MULTILINE)[1]


def test_verdicts_name_the_lines_of_the_policy(lab, programs):
    net = Net(lab, "easy", "easy")
    net.control.set_policy(POLICY)
    net.reaches()
    bob = net.bob
    wait_for(lambda: lines_of(net, f"{bob.ip()}:80") == [23], 15, "the line of the rule")
    allowed = bob.cli("debug", "explain", "alice", f"{bob.ip()}:9000").stdout
    assert "allowed by line 24 of the policy, rule 0: " in allowed, allowed
    dropped = bob.cli("debug", "explain", "alice", f"{bob.ip()}:53/udp", check=False).stdout
    assert dropped.startswith("dropped: ") and "lines 23 and 24 of the policy, rule 0: " in dropped, dropped
    assert "line 25 of the policy, rule 1: " in dropped and "for other sources" in dropped, dropped
    assert [rule.get("PolicyLines") for rule in json.loads(bob.cli("debug", "filter").stdout)] == [[23, 24], [25]]
    people = net.hosts["bob"].start("drops", [TAILRACE, "--socket", AGENT_SOCKET, "debug", "drops", "--follow"])

    def told():
        tcp_opens(net.hosts["alice"], bob.ip(), 22, timeout=1)
        return next((line for line in people.output().splitlines() if "near: " in line), None)

    drop = wait_for(told, 20, "a drop")
    assert " alice " in drop and "near: lines 23 and 24 of the policy, rule 0: " in drop, drop
    people.stop()

    # An edit that moves lines and nothing else brings new lines and no new filter.
    before = filter_generation(bob)
    net.control.set_policy("// moved\n" + POLICY)
    wait_for(lambda: lines_of(net, f"{bob.ip()}:80") == [24], 15, "the lines have moved")
    assert filter_generation(bob) == before

    # What is known outlives control and the agent.
    cache = next((bob.state / "profile-data").glob("*/netmap-cache"))
    wait_for(lambda: '"Line":24' in cache.read_text() and '"Line":23' not in cache.read_text(), 15, "the netmap is written")
    net.control.program.kill()
    bob.program.kill()
    bob.start()
    wait_for(lambda: lines_of(net, f"{bob.ip()}:80") == [24], 15, "the lines, without control")
