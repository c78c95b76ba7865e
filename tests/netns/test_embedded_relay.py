"""A coordination server with a relay of its own.

     control 203.0.113.1 (with relay)
           |
    -------+--------+--------------- the internet
               |          |
          [hard NAT]  [hard NAT]
               |          |
             alice       bob
"""
import re
import time

import pytest

from lab.stock import StockClient
from lab.tailrace import Agent, TailraceControl
from lab.traffic import WebServer, fetch, ping
from lab.wait import wait_for
from .test_relay import ASK


class Net:
    def __init__(self, lab, bob_is=Agent, **settings):
        internet = lab.internet()
        self.host = lab.host("control", address="203.0.113.1")
        self.control = TailraceControl(self.host, relay="embedded", **settings)
        self.control.create_user("us")
        self.hosts = {name: lab.host(name, lab.nat(f"nat-{name}", internet, "hard").lan) for name in ("alice", "bob")}
        self.alice, self.bob = Agent(self.hosts["alice"]), bob_is(self.hosts["bob"])
        for node in (self.alice, self.bob):
            node.up(self.control.url, self.control.create_key("us"))

    def relay_pids(self) -> list:
        return self.host.run(["pgrep", "-f", "tailrace-relay --cert-mode=plain"], check=False).stdout.split()

    def reaches(self, timeout: float = 20) -> None:
        wait_for(lambda: ping(self.hosts["alice"], self.bob.ip(), timeout=1), timeout, "alice reaches bob")


@pytest.mark.parametrize("bob_is", [Agent, pytest.param(StockClient, marks=pytest.mark.needs("tailscaled", "tailscale"))])
def test_nodes_meet_at_the_control_server(lab, programs, bob_is):
    net = Net(lab, bob_is)
    net.reaches()
    WebServer(net.hosts["bob"], (80,), 3_000_000)
    size, _ = wait_for(lambda: fetch(net.hosts["alice"], f"http://{net.bob.ip()}/payload", timeout=20), 30, "a transfer over the relay")
    assert size == 3_000_000
    peer = net.alice.peer("bob")
    assert peer["Relay"] == "embedded" and not peer["CurAddr"], peer
    assert net.alice.status()["Self"]["Relay"] == "embedded", "and it knows its own"


def test_the_relay_sees_its_clients_and_they_know_it(lab, programs):
    net = Net(lab, log={"level": "debug"})
    net.reaches()
    certificates = net.hosts["alice"].run(["sh", "-c", "openssl s_client -connect 203.0.113.1:443 -showcerts </dev/null 2>&1"]).stdout
    assert re.search(r"CN\s?=\s?derpkey[0-9a-f]{64}", certificates), certificates
    # A client that came before the relay had said its key goes the longer way once.
    net.alice.program.kill()
    net.alice.start()
    net.reaches()
    net.alice.program.wait_for_output(r"connected to a relay .*fast_start=yes", 10)
    seen = set(re.findall(r'client is in.* peer="?\[?([0-9a-f.:]+?)\]?:\d+', net.control.program.output()))
    assert len(seen) == 2 and all(a.startswith("203.0.113.") and a != "203.0.113.1" for a in seen), seen # alice's NAT and bob's
    assert net.hosts["alice"].run(["/usr/bin/python3", "-c", ASK, "203.0.113.1"]).stdout == "answered\n"


def test_a_relay_that_dies_is_started_again_and_one_that_should_stop_stops(lab, programs):
    net = Net(lab)
    net.reaches()
    (old,) = net.relay_pids()
    net.host.run(["kill", "-9", old])
    wait_for(lambda: net.relay_pids() not in ([], [old]), 10, "there is a relay again")
    net.reaches()
    net.control.program.stop(10)
    assert net.relay_pids() == []
    net.control.start()
    net.reaches()
    net.control.program.kill()
    wait_for(lambda: net.relay_pids() == [], 10, "the relay ends with a server that was killed")


def test_strangers_are_not_served_and_pages_are(lab, programs):
    net = Net(lab)
    net.reaches()
    net.control.cli("nodes", "delete", str(next(n["id"] for n in net.control.nodes() if n["name"] == "bob")))
    wait_for(lambda: not ping(net.hosts["alice"], net.bob.ip(), timeout=1), 10, "bob is out")
    answer = net.hosts["alice"].run("curl -sk --noproxy * --max-time 5 -i https://203.0.113.1/derp/probe")
    assert answer.stdout.startswith("HTTP/1.1 200"), answer.stdout
    challenge = net.hosts["alice"].run(["curl", "-s", "--noproxy", "*", "--max-time", "5", "-i", "-H", "X-Tailscale-Challenge: ts_203.0.113.1",
                                        "http://203.0.113.1:8080/generate_204"]).stdout
    assert challenge.startswith("HTTP/1.1 204") and "response ts_203.0.113.1" in challenge, challenge


def test_the_policy_adds_and_removes_relays(lab, programs):
    net = Net(lab)
    net.reaches()

    def regions() -> list:
        return [line.split(":")[0].strip("\t -") for line in net.alice.cli("netcheck").stdout.splitlines() if line.startswith("\t\t- ")]
    wait_for(lambda: regions() == ["embedded"], 10, "alice knows the region of the server")
    net.control.set_policy("""{
        "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "derpMap": {"Regions": {"901": {"RegionID": 901, "RegionCode": "more", "RegionName": "More",
            "Nodes": [{"Name": "901a", "RegionID": 901, "HostName": "203.0.113.77"}]}}},
    }""")
    wait_for(lambda: regions() == ["embedded", "more"], 10, "alice hears of the other region")
    net.control.set_policy('{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}')
    wait_for(lambda: regions() == ["embedded"], 10, "and that it is gone")
    time.sleep(0.5)
    net.reaches()
