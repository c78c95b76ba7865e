"""A node whose network lets nothing out but what goes through an HTTP proxy.

      control 203.0.113.1    relay 203.0.113.2     proxy 203.0.113.9     bob
             |                     |                     |                |
    ---------+---------------------+----------+----------+----------------+---
                                              | to the proxy's port only
                                            alice
"""
import pytest

from lab.tailrace import Agent, TailraceControl, TailraceRelay
from lab.traffic import ping
from lab.wait import wait_for

CLOSED = """
table inet closed {
    chain out {
        type filter hook output priority 0; policy drop;
        oifname { "lo", "tailrace0" } accept
        ip daddr 203.0.113.9 tcp dport 3128 accept
    }
}
"""


class Proxy:
    """tinyproxy, with a name and a password."""

    def __init__(self, host):
        config = host.directory / "tinyproxy.conf"
        config.write_text("Port 3128\nTimeout 600\nMaxClients 50\nLogLevel Connect\nBasicAuth me sesame\nConnectPort 443\nConnectPort 8080\n")
        self.host = host
        self.program = host.start("tinyproxy", ["tinyproxy", "-d", "-c", config])
        wait_for(lambda: host.run("ss -Htln sport = :3128").stdout, 10, "the proxy listens")

    def connections(self) -> set:
        """Whom it is connected with now."""
        shown = self.host.run("ss -Htn state established").stdout.split()
        return {word for word in shown if word.endswith((":443", ":8080"))}


@pytest.fixture
def net(lab, programs):
    class Net:
        relay = TailraceRelay(lab.host("relay", address="203.0.113.2"))
        control = TailraceControl(lab.host("control", address="203.0.113.1"), relay.derp_map)
        proxy = Proxy(lab.host("proxy", address="203.0.113.9"))
        hosts = {name: lab.host(name) for name in ("alice", "bob")}
    Net.control.create_user("us")
    Net.bob = Agent(Net.hosts["bob"])
    Net.bob.up(Net.control.url, Net.control.create_key("us"))
    Net.hosts["alice"].nft(CLOSED)
    return Net


def start_behind(net, user: str, **more) -> Agent:
    agent = Agent(net.hosts["alice"], wait=False)
    agent.program.kill()
    url = f"http://{user}203.0.113.9:3128"
    agent.environment = {"HTTPS_PROXY": url, "http_proxy": url, **more}
    agent.start()
    return agent


def test_control_and_relay_are_reached_through_the_proxy(net):
    alice = start_behind(net, "me:se%73ame@")
    alice.up(net.control.url, net.control.create_key("us"))
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 20, "alice pings bob")
    assert alice.peer("bob")["CurAddr"] == "" and alice.peer("bob")["Relay"], "over the relay"
    assert {"203.0.113.1:8080", "203.0.113.2:443"} <= net.proxy.connections()
    report = alice.cli("netcheck", timeout=30).stdout
    assert "UDP: false" in report and "Nearest DERP: " in report and "unknown" not in report, report
    net.proxy.program.kill()
    net.proxy = Proxy(net.proxy.host)
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 30, "alice is back when the proxy is")


def test_a_proxy_that_refuses_is_named(net):
    alice = start_behind(net, "")
    alice.start_up(net.control.url, net.control.create_key("us"))
    told = "proxy 203.0.113.9:3128: CONNECT 203.0.113.1:8080: it wants a name and password"
    wait_for(lambda: any(told in text for text in alice.status()["Health"] or []), 20, "status says so")


def test_an_exception_is_reached_directly(net):
    alice = start_behind(net, "me:se%73ame@", NO_PROXY="203.0.113.0/28")
    net.hosts["alice"].run("nft delete table inet closed")
    alice.up(net.control.url, net.control.create_key("us"))
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 20, "alice pings bob")
    assert net.proxy.connections() == set()
