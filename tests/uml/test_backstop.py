"""Somebody takes the filter away. Whatever they do, nothing passes that the policy forbids. Picture: lab/scenarios/quickstart.py"""
import time

import pytest

from lab.scenarios.quickstart import Tailnet
from lab.traffic import Knocking, ping, tcp_opens
from lab.wait import wait_for

CLOSED = 9999


def flush_nftables(agent) -> None:
    agent.host.run("nft flush ruleset", check=False) # a table with an owner refuses: fine


# Else the programs have not been put back since the last time.
def delete_qdisc(agent) -> None:
    if agent.packet_programs():
        agent.host.run("tc qdisc del dev tailrace0 clsact")


def delete_filters(agent) -> None:
    if agent.packet_programs():
        agent.host.run("tc filter del dev tailrace0 ingress")


def detach_programs(agent) -> None:
    if agent.packet_programs():
        agent.detach_packet_programs()


LINKS = {"nft flush": flush_nftables, "detach": detach_programs}
FILTERS = {"qdisc del": delete_qdisc, "filter del": delete_filters} # how kernels before 6.6 have them


@pytest.fixture
def net(lab, programs):
    net = Tailnet(lab)
    net.start_control()
    net.join()
    net.serve_web()
    wait_for(lambda: ping(net.hosts["alice"], net.gateway.ip(), timeout=1), 10, "the tunnel works")
    return net


@pytest.mark.guest(timeout=400)
def test_nothing_forbidden_passes(net):
    withstand(net, LINKS)
    net.gateway.cli("down")
    net.gateway.program.stop()
    net.gateway.more = ("--clsact",)
    net.gateway.start()
    net.gateway.cli("up")
    wait_for(net.gateway.running, 15, "the agent is back")
    withstand(net, FILTERS)


def withstand(net, attacks: dict) -> None:
    gateway, host, alice = net.gateway, net.hosts["gateway"], net.hosts["alice"]
    address = gateway.ip()
    wait_for(lambda: tcp_opens(alice, address, 80, 1), 15, "the way is open")
    assert gateway.packet_programs()
    for attack, strike in attacks.items():
        knocking = Knocking(alice, host, [address], CLOSED)
        for agent in ("alive", "dead"):
            if agent == "dead":
                gateway.program.kill()
            for _ in range(2):
                strike(gateway)
                time.sleep(1)
                assert not tcp_opens(alice, address, 8080, 1), f"{attack}, the agent is {agent}"
            if agent == "dead":
                gateway.start()
                wait_for(gateway.running, 15, "the agent is back")
            wait_for(lambda: tcp_opens(alice, address, 80, 1), 15, f"the agent, {agent} meanwhile, repairs what {attack} took away")
            assert not tcp_opens(alice, address, 8080, 1)
        assert knocking.finish() == 0, attack


def test_down_takes_the_device_and_a_dead_agent_leaves_the_backstop(net):
    host, address = net.hosts["gateway"], net.gateway.ip()
    net.gateway.program.kill()
    assert "tailrace" in host.run("nft list ruleset").stdout
    net.gateway.start()
    wait_for(net.gateway.running, 15, "the agent is back")
    net.gateway.cli("down")
    assert not ping(net.hosts["alice"], address, timeout=2)
