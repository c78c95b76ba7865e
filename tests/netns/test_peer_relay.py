"""A node relays UDP for two others. Picture: lab/scenarios/peer_relay.py"""
import json
import time

from lab.scenarios import peer_relay
from lab.scenarios.peer_relay import POLICY, PORT, RITA, PeerRelayNet
from lab.tailrace import Agent
from lab.traffic import ping
from lab.wait import wait_for


def test_two_nodes_meet_at_a_third_until_it_dies(lab, programs):
    peer_relay.run(lab, rita_is=Agent)


def test_who_may_and_when(lab, programs):
    net = PeerRelayNet(lab, Agent)
    alice = net.hosts["alice"]

    def meet():
        ping(alice, net.bob.ip(), timeout=1)
        return net.through_rita()
    wait_for(meet, 45, "both meet at rita")
    told = net.rita.cli("debug", "peer-relay-sessions").stdout
    assert f"Server port: {PORT}" in told and "alice.tail.lab. (" in told and "bob.tail.lab. (" in told, told
    sessions = json.loads(net.rita.cli("debug", "peer-relay-sessions", "--json").stdout)["Sessions"]
    assert len(sessions) == 1 and all(sessions[0][client]["PacketsTx"] > 0 for client in ("Client1", "Client2")), sessions

    net.rita.cli("set", "--relay-server-port=")
    wait_for(lambda: not net.through_rita(), 15, "DERP carries on when rita relays no more")
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1), 10, "packets flow")
    assert "does not relay" in net.rita.cli("debug", "peer-relay-sessions").stdout

    for host in net.hosts.values(): # they do not hear that they may ask rita no more
        host.nft("table inet deaf { chain in { type filter hook input priority 0; ip saddr 203.0.113.1 drop; }; }")
    net.control.set_policy(POLICY.replace("tailscale.com/cap/relay", "example.com/cap/nothing"))
    net.rita.cli("set", f"--relay-server-port={PORT}", f"--relay-server-static-endpoints={RITA}:{PORT}")

    def asks():
        ping(alice, net.bob.ip(), timeout=1)
        return "of 1 relay servers 1 is asked now" in net.alice.cli("debug", "paths", "bob").stdout
    wait_for(asks, 45, "alice asks rita")
    time.sleep(1)
    assert json.loads(net.rita.cli("debug", "peer-relay-sessions", "--json").stdout)["Sessions"] == [], "the policy lets nobody"


def test_a_port_in_use_is_told_and_taken_when_it_is_free(lab, programs):
    net = PeerRelayNet(lab, Agent)
    rita = net.rita
    said = rita.cli("set", "--relay-server-port=70000", check=False)
    assert said.returncode != 0 and "--relay-server-port=70000" in said.stderr, said
    said = rita.cli("set", "--relay-server-static-endpoints=192.0.2.1", check=False)
    assert said.returncode != 0 and "192.0.2.1 is not an address with a port" in said.stderr, said
    squatter = rita.host.start("squatter", ["/usr/bin/python3", "-c",
                               "import socket,time; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 40001)); time.sleep(1000)"])
    wait_for(lambda: ":40001 " in rita.host.run("ss -Hlun").stdout, 10, "the port is taken")
    rita.cli("set", "--relay-server-port=40001")

    def health() -> str:
        return "\n".join(rita.status()["Health"] or [])
    wait_for(lambda: "UDP port 40001 is in use by another program" in health(), 10, "it is told")
    squatter.stop()
    wait_for(lambda: "40001" not in health(), 15, "the port is free")
    assert ":40001 " in rita.host.run("ss -Hlun").stdout
