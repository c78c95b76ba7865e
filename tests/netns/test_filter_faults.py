"""A map of the packet filter that cannot be written: what the new policy revokes stops all the same.
Picture: lab/scenarios/paths.py"""
from lab.scenarios.paths import Net
from lab.tailrace import pins_of
from lab.traffic import Knocking, ping
from lab.wait import wait_for

NARROW = """{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:1"]}]}"""


def health(agent) -> str:
    return "\n".join(agent.status()["Health"] or [])


def test_a_revocation_takes_effect_although_no_policy_can_be_written(lab, programs):
    net = Net(lab, "public", "public")
    net.reaches(20)
    bob = net.hosts["bob"]
    bob.run(["bpftool", "map", "freeze", "pinned", f"{pins_of(bob)}/tr_settings"])
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=5), "the policy in force stays"
    net.control.set_policy(NARROW)
    wait_for(lambda: "nothing from the tailnet passes, for no policy could be written" in health(net.bob), 15, "health says so")
    knocking = Knocking(net.hosts["alice"], bob, [net.bob.ip()], 9999)
    wait_for(lambda: net.bob.drops().get("no-policy", 0) > 20, 10, "what comes is dropped")
    assert knocking.finish() == 0
    assert "write map tr_settings" in net.bob.cli("status").stdout
