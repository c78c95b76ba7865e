"""The same on kernel WireGuard, with addresses of different delay. Picture: lab/scenarios/wireguard_only.py"""
import time

import pytest

from lab.scenarios.wireguard_only import FAR, NEAR, Net
from lab.traffic import Ping, ping
from lab.wait import wait_for


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=180)
def test_the_nearer_address_is_used_though_it_is_named_last(lab, programs):
    net = Net(lab, lambda host: (host.set_netem("eth0", "delay 5ms"), host.set_netem("eth1", "delay 60ms")), first=FAR)
    assert net.alice.device_kind() == "kernel WireGuard"
    assert ping(net.host, "100.64.0.99", timeout=5)
    assert net.used() == FAR
    wait_for(lambda: net.used() == NEAR, 9, "the nearer one is used after a pause")
    candidates = {c["Endpoint"].rpartition(":")[0]: c["RoundTripMs"] for c in net.paths()["Candidates"]}
    assert candidates[NEAR] < 30 < candidates[FAR], candidates
    pings = Ping(net.host, "100.64.0.99", interval=0.2)
    pings.wait_for_reply()
    time.sleep(20)
    assert net.used() == NEAR
    pings.finish()
    # The delays change places; the next conversations are enough to hear of it.
    net.vpn.host.set_netem("eth0", "delay 90ms")
    for _ in range(3):
        time.sleep(15)
        assert ping(net.host, "100.64.0.99", timeout=2)
    wait_for(lambda: net.used() == FAR, 9, "the other one is nearer now")
