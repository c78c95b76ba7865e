"""`tailrace debug explain` says what real packets then find. Picture: lab/scenarios/paths.py"""
import json

from lab.scenarios.paths import Net
from lab.traffic import ping


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
    text = bob.cli("debug", "explain", alice.ip(), "192.0.2.1:22").stdout
    assert text.startswith("dropped: ") and "reason not-local" in text, text
    assert counted(bob, "not-local") == before["not-local"], "a question is not counted"
    assert ping(net.hosts["alice"], bob.ip(), timeout=5)
    assert counted(bob, "rule") > before["rule"]
    assert bob.cli("debug", "explain", "nobody", "bob:22", check=False).returncode == 1
    assert bob.cli("debug", "explain", "alice", "bob", check=False).returncode == 1
