"""Logins begin and end, and what administrators do to nodes, all by commands.

      control 203.0.113.1     alice     bob     carol
             |                  |        |        |
    ---------+------------------+--------+--------+---- the internet
"""
import pytest

from lab.stock import StockClient, binary
from lab.tailrace import Agent, TailraceControl
from lab.traffic import ping
from lab.wait import wait_for


@pytest.fixture
def host(lab, programs):
    return lab.host("control", address="203.0.113.1")


def node(control, name: str) -> dict:
    return next((one for one in control.nodes() if one["name"] == name), {})


def state(agent: Agent) -> str:
    return agent.status()["BackendState"]


def refused(done, *words) -> None:
    text = done.stderr + done.stdout
    assert done.returncode == 1, text
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"


def test_administrators_change_nodes_while_they_run(lab, host):
    control = TailraceControl(host, ephemeral_timeout="2s")
    for user in ("alice", "bob"):
        control.create_user(user)
    key = control.create_key("alice")
    alice, bob, carol = [Agent(lab.host(name)) for name in ("alice", "bob", "carol")]
    alice.up(control.url, key)
    bob.up(control.url, control.create_key("bob"))
    carol.up(control.url, control.create_key("alice", ephemeral=True))
    wait_for(lambda: bob.peer("alice") and bob.peer("carol"), 15, "bob knows both")
    fetched = {page: host.run(["curl", "-s", "--noproxy", "*", "--max-time", "5", f"http://127.0.0.1:{page}"]).stdout for page in ("9090/metrics", "9090/health", "8080/health")}
    assert "\ntailrace_control_nodes_online 3\n" in fetched["9090/metrics"]
    assert fetched["9090/health"] == "ok\n" and fetched["8080/health"] == '{"status":"pass"}'
    stranger = bob.host.run(["curl", "-s", "--noproxy", "*", "--max-time", "5", "http://203.0.113.1:9090/metrics"], check=False)
    assert stranger.returncode == 7, "metrics are where the operator put them, and not where clients come"

    # A name that an administrator gave stays, and peers hear of it.
    control.cli("nodes", "rename", "alice", "gateway")
    wait_for(lambda: bob.peer("gateway").get("DNSName") == "gateway.tail.lab.", 15, "bob sees the new name")
    refused(control.cli("nodes", "rename", "bob", "gateway", check=False), "already named gateway")

    # Who is expired must log in again, and is then who it was.
    before = node(control, "gateway")
    control.cli("nodes", "expire", "gateway")
    wait_for(lambda: state(alice) == "NeedsLogin", 15, "alice is told that its key has expired")
    wait_for(lambda: bob.peer("gateway").get("Expired"), 15, "bob sees that it is expired")
    assert node(control, "gateway")["expired"]
    alice.up(control.url, key)
    after = node(control, "gateway")
    assert not after["expired"]
    assert {k: after[k] for k in ("id", "name", "addresses", "machineKey", "created")} == {k: before[k] for k in ("id", "name", "addresses", "machineKey", "created")}
    wait_for(lambda: ping(bob.host, alice.ip()), 20, "they talk again")

    # An ephemeral node that has gone is forgotten by everybody.
    carol.program.kill()
    wait_for(lambda: not bob.peer("carol"), 30, "bob has lost carol")
    assert not node(control, "carol")

    # A user goes after its nodes.
    refused(control.cli("users", "delete", "bob", check=False), "still owns 1 node")
    control.cli("nodes", "delete", "bob")
    wait_for(lambda: not alice.peer("bob"), 15, "alice has lost bob")
    control.cli("users", "delete", "bob")
    assert [user["name"] for user in control.json("users", "list")] == ["alice"]
    assert all(one["user"] == "alice" for one in control.json("keys", "list")), "its keys went with it"
    refused(control.cli("users", "delete", "bob", check=False), "no user named bob")

    # What a key was made with is kept.
    made = control.json("keys", "create", "--user", "alice", "--expiry", "90s", "--preapproved")
    listed = next(one for one in control.json("keys", "list") if one["id"] == made["id"])
    assert listed["preapproved"] and not listed["reusable"] and listed["state"] == "valid"
    assert "expires" not in control.json("keys", "create", "--user", "alice", "--expiry", "0")
    refused(control.cli("keys", "create", "--user", "alice", "--expiry", "-5s", check=False), "expir")
    refused(control.cli("keys", "create", "--user", "bob", check=False), "users create bob")


def test_logout_ends_a_login_here_and_at_control(lab, host):
    control = TailraceControl(host)
    control.create_user("alice")
    key = control.create_key("alice")
    place = lab.host("alice")
    disk = place.directory / "tailraced"
    disk.mkdir()
    place.run(["mount", "-t", "tmpfs", "tmpfs", disk])
    alice = Agent(place)

    def restarted() -> str:
        alice.program.kill()
        alice.start()
        return state(alice)

    alice.up(control.url, key)
    alice.cli("logout")
    assert node(control, "alice")["expired"]
    assert state(alice) == "NeedsLogin" and restarted() == "NeedsLogin"
    done = alice.cli("status", check=False)
    assert done.returncode == 1 and done.stdout.startswith("Logged out.")

    # After `down` nobody talks with control; the key must not outlive the logout all the same.
    alice.up(control.url, key)
    alice.cli("down")
    assert not node(control, "alice")["expired"]
    alice.cli("logout")
    assert node(control, "alice")["expired"] and state(alice) == "NeedsLogin"

    # The login cannot be erased: that is said, and tried again by the next logout.
    alice.up(control.url, key)
    place.run(["mount", "-o", "remount,ro", disk])
    refused(alice.cli("logout", check=False), "Read-only", str(disk), "tailrace logout")
    assert state(alice) == "NeedsLogin" and node(control, "alice")["expired"]
    place.run(["mount", "-o", "remount,rw", disk])
    alice.cli("logout")
    assert restarted() == "NeedsLogin"

    # Control is away: out here, and whoever asked hears what remains to be done.
    alice.up(control.url, key)
    control.program.kill()
    refused(alice.cli("logout", check=False, timeout=30), "control was not told", "nodes expire alice")
    assert state(alice) == "NeedsLogin" and restarted() == "NeedsLogin"
    control.start()
    assert not node(control, "alice")["expired"]
    control.cli("nodes", "expire", "alice.tail.lab")
    assert node(control, "alice")["expired"]


def test_with_device_approval_a_new_node_waits(lab, host):
    control = TailraceControl(host, device_approval=True)
    control.create_user("alice")
    plain, preapproved = control.create_key("alice"), control.json("keys", "create", "--user", "alice", "--preapproved")["key"]
    alice, bob = Agent(lab.host("alice")), Agent(lab.host("bob"))
    alice.up(control.url, preapproved)
    up = bob.start_up(control.url, plain)
    wait_for(lambda: state(bob) == "NeedsMachineAuth", 15, "bob waits for approval")
    carol = None
    if binary("tailscaled") and binary("tailscale"):
        carol = StockClient(lab.host("carol"))
        carol_up = carol.host.start("stock up", [
            binary("tailscale"), f"--socket={carol.socket}", "up", f"--login-server={control.url}", f"--auth-key={plain}", "--hostname=carol",
            "--accept-dns=false", "--timeout=60s"])
        wait_for(lambda: carol.status()["BackendState"] == "NeedsMachineAuth", 20, "a stock client waits, too")

    done = bob.cli("status", check=False)
    assert done.returncode == 1 and "not yet approved" in done.stdout and "tailrace-control nodes approve bob.tail.lab" in done.stdout
    up.wait_for_output("This machine needs approval.*nodes approve bob", 10)
    assert not alice.status().get("Peer") and not bob.status().get("Peer")
    assert [one["name"] for one in control.nodes() if not one["approved"]] == ["bob"] + (["carol"] if carol else [])
    assert "needs approval" in control.cli("nodes", "list").stdout

    control.cli("nodes", "approve", "bob")
    assert up.wait(30) == 0, up.output()
    wait_for(lambda: alice.peer("bob") and bob.peer("alice"), 15, "they know each other")
    # WireGuard begins again after 5 s where its first word came too early for the other side.
    wait_for(lambda: ping(bob.host, alice.ip(), timeout=1) and ping(alice.host, bob.ip(), timeout=1), 15, "they reach each other")
    if carol:
        assert not alice.peer("carol")
        control.cli("nodes", "approve", "carol")
        assert carol_up.wait(30) == 0, carol_up.output()
        wait_for(lambda: alice.peer("carol"), 15, "alice knows carol")
    refused(control.cli("nodes", "approve", "nobody", check=False), "no node")
