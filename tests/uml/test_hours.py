"""Hours of a tailnet, with a clock that jumps over the time in which nothing happens. Picture: lab/scenarios/quickstart.py"""
import time

import pytest

from lab.scenarios.quickstart import Tailnet
from lab.traffic import Ping, ping
from lab.wait import wait_for

REKEY_AFTER_SECONDS = 120


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=400)
def test_an_hour_with_rekeys_loses_no_ping(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.join()
    alice, gateway_ip = net.hosts["alice"], net.gateway.ip()
    wait_for(lambda: ping(alice, gateway_ip, timeout=1), 15, "the tunnel works")
    pings = Ping(alice, gateway_ip, interval=1)
    pings.wait_for_reply()
    handshakes = set()
    for _ in range(60):
        time.sleep(60)
        handshakes.add(alice.run("wg show tailrace0 latest-handshakes").stdout.split()[-1])
    assert pings.finish() > 3400, "one a second, less the rounding of ping's own timer"
    assert len(handshakes) >= 3600 / REKEY_AFTER_SECONDS / 2, "there were rekeys"
    assert net.alice.running()
    assert all(node["online"] for node in net.control.nodes()), "nobody lost control in that time"


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=300)
def test_agents_work_on_while_control_is_away_and_find_it_again(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.join()
    alice, gateway_ip = net.hosts["alice"], net.gateway.ip()
    wait_for(lambda: ping(alice, gateway_ip, timeout=1), 15, "the tunnel works")
    net.control.program.kill()
    pings = Ping(alice, gateway_ip, interval=1)
    pings.wait_for_reply()
    time.sleep(300)
    pings.finish()
    net.control.start()
    wait_for(lambda: all(node["online"] for node in net.control.nodes()), 60, "all agents are back")
