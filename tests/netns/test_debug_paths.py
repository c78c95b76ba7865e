"""What `tailrace debug paths` and `tailrace debug capture` show. Picture: lab/scenarios/paths.py"""
import json

from lab.scenarios.paths import Net
from lab.tailrace import AGENT_SOCKET, TAILRACE
from lab.traffic import ping
from lab.wait import wait_for


def test_paths_say_where_addresses_come_from_and_why_one_is_used(lab, programs):
    net = Net(lab, "easy", "easy")
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 10, "the path is direct")
    text = net.alice.cli("debug", "paths", "bob").stdout
    assert "direct: it answered " in text and f"* {net.nats['bob'].box.address}:" in text and "control" in text, text
    peers = json.loads(net.alice.cli("debug", "paths", "--json").stdout)["Peers"]
    assert [p["Name"] for p in peers] == ["bob.tail.lab."]
    best = next(c for c in peers[0]["Candidates"] if c["Endpoint"] == peers[0]["Endpoint"])
    assert best["RoundTripMs"] > 0 and best["PongAgoMs"] < 6500 and best["LearntFrom"]
    assert net.alice.cli("debug", "paths", "nobody", check=False).returncode == 1


def test_a_capture_shows_disco_opened(lab, programs):
    net = Net(lab, "easy", "easy")
    show = [TAILRACE, "--socket", AGENT_SOCKET, "debug", "capture"]
    host = net.hosts["alice"]
    text, lines = host.start("capture", show), host.start("capture-json", [*show, "--json"])
    wait_for(lambda: ping(host, net.bob.ip(), timeout=1) and net.alice.direct_to("bob"), 15, "the path is direct")
    outside = net.nats["bob"].box.address
    for part in (" > bob ", " < bob ", " ping ", " pong ", f" {outside}:", "seen from "):
        wait_for(lambda: part in text.output(), 10, f"{part!r} in the capture")

    def an_answered_ping():
        frames = [json.loads(line) for line in lines.output().splitlines()]
        sent = {f["TxID"] for f in frames if f["Type"] == "ping" and f["Direction"] == "out"}
        return sent & {f["TxID"] for f in frames if f["Type"] == "pong" and f["Direction"] == "in"}
    wait_for(an_answered_ping, 10, "an answered ping in the capture as JSON")
    assert "priv" not in lines.output()
    text.stop()
    lines.stop()
    assert ping(host, net.bob.ip(), timeout=5) and net.alice.running(), "the agent goes on without watchers"
