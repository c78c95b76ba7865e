"""`ping --peerapi`: one agent's small HTTP server asked by another. Picture: lab/scenarios/paths.py, no NATs."""
import json
import re

import pytest

from lab.scenarios.paths import Net
from lab.stock import StockClient
from lab.traffic import tcp_opens
from lab.wait import wait_for


def hits(agent, target: str) -> str:
    done = agent.cli("ping", "--peerapi", "--timeout=3s", "-c", "1", target, check=False)
    return done.stdout if done.returncode == 0 else ""


def test_agents_hit_each_other(lab, programs):
    net = Net(lab, "public", "public")
    net.reaches()
    line = wait_for(lambda: hits(net.alice, "bob"), 15, "alice hits bob's peer API")
    address = re.escape(net.bob.ip())
    assert re.fullmatch(rf"hit peerapi of {address} \(bob\) at http://{address}:\d+ in \S+m?s\n", line), line
    assert wait_for(lambda: hits(net.bob, "alice"), 15, "bob hits alice's peer API")
    port = int(re.search(r":(\d+) in", line)[1])
    assert net.alice.peer("bob")["PeerAPIURL"][0] == f"http://{net.bob.ip()}:{port}"
    assert f"{net.bob.ip()}, {port}) via TSMP" in net.alice.cli("ping", "--tsmp", "-c", "1", "bob").stdout
    curl = ["curl", "-s", "--noproxy", "*", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"]
    assert net.alice.host.run([*curl, "-H", "Origin: http://evil.example", f"http://{net.bob.ip()}:{port}/"]).stdout == "403"
    assert net.alice.host.run([*curl, f"http://{net.bob.ip()}:{port}/v0/env"]).stdout == "404"

    net.bob.cli("set", "--shields-up=true")
    assert wait_for(lambda: hits(net.alice, "bob"), 15, "shields do not close the peer API")
    assert not tcp_opens(net.alice.host, net.bob.ip(), port ^ 1)
    net.bob.program.kill()
    net.bob.start()
    assert wait_for(lambda: hits(net.alice, "bob"), 15, "after a restart")


@pytest.mark.needs("tailscaled", "tailscale")
def test_stock_clients_hit_ours_and_are_hit(lab, programs):
    net = Net(lab, "public", "public", bob_is=StockClient)
    net.reaches(20)
    assert wait_for(lambda: hits(net.alice, "bob"), 20, "ours hits theirs")
    stock = lambda: net.bob.cli("ping", "--peerapi", "-c", "1", "--timeout=5s", net.alice.ip(), check=False) # noqa: E731
    wait_for(lambda: "hit peerapi of" in stock().stdout, 20, "theirs hits ours")
    me = next(p for p in json.loads(net.bob.cli("status", "--json").stdout)["Peer"].values() if p["HostName"] == "alice")
    assert me["PeerAPIURL"]
