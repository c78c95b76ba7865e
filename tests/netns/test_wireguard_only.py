"""Which address of a peer is used that speaks WireGuard and nothing else. Picture: lab/scenarios/wireguard_only.py"""
import time

import pytest

from lab.scenarios.wireguard_only import DEAD, FAR, NEAR, NEAR6, NO_ECHO, Net
from lab.traffic import ping
from lab.wait import wait_for


@pytest.mark.parametrize("other", [FAR, NEAR6])
def test_the_address_that_answers_echoes_is_used_from_the_next_pause_on(lab, programs, other):
    net = Net(lab, lambda host: host.nft(NO_ECHO.format(name="near", address=NEAR)), second=other)
    assert ping(net.host, "100.64.0.99", timeout=5)
    assert net.used() == NEAR, "the first that control named; what works is not left under way"
    wait_for(lambda: net.used() == other, 9, "after five silent seconds the other one is used")
    assert ping(net.host, "100.64.0.99", timeout=2), "and works"
    peer = net.paths()
    assert "WireGuard only: it answers an echo there in " in peer["Why"] and "1 of 2 addresses answer" in peer["Why"], peer
    time.sleep(6)
    assert net.used() == other


def test_of_two_that_say_nothing_the_one_that_works_is_found(lab, programs):
    def prepare(host):
        host.nft(DEAD.format(name="near", address=NEAR))
        host.nft(NO_ECHO.format(name="far", address=FAR))
    net = Net(lab, prepare)
    wait_for(lambda: ping(net.host, "100.64.0.99", timeout=1), 15, "alice reaches the peer")
    assert net.used() == FAR
    time.sleep(7)
    assert net.used() == FAR, "where it was heard, though it is silent now"
    assert ping(net.host, "100.64.0.99", timeout=2)


def test_where_nobody_answers_echoes_what_works_is_kept(lab, programs):
    def prepare(host):
        for name, address in (("near", NEAR), ("far", FAR)):
            host.nft(NO_ECHO.format(name=name, address=address))
    net = Net(lab, prepare)
    for _ in range(3):
        assert ping(net.host, "100.64.0.99", timeout=5)
        time.sleep(6) # long enough to be silent
        assert net.used() == NEAR


def test_a_peer_that_moves_is_followed(lab, programs):
    net = Net(lab)
    assert ping(net.host, "100.64.0.99", timeout=5)
    assert net.used() == NEAR
    vpn = net.vpn.host
    vpn.run("wg set wg0 listen-port 40000") # no candidate of control's
    vpn.run(["ping", "-c", "2", "-W", "1", net.alice.ip()], check=False) # whether the policy lets it in or not
    wait_for(lambda: net.alice.direct_to("vpn") == f"{NEAR}:40000", 5, "what is authentic shows where the peer is")
    assert ping(net.host, "100.64.0.99", timeout=2)
    assert "its packets come from there" in net.paths()["Why"]


def test_nothing_is_measured_while_nobody_sends(lab, programs):
    net = Net(lab, lambda host: host.nft("table inet count { chain in { type filter hook prerouting priority -300; icmp type echo-request counter; }\n}"))
    time.sleep(3)
    assert "packets 0 " in net.vpn.host.run("nft list table inet count").stdout
    assert ping(net.host, "100.64.0.99", timeout=5)
    wait_for(lambda: sum(c["PongAgoMs"] is not None for c in net.paths()["Candidates"]) == 2, 5, "both addresses are measured")
