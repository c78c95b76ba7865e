"""Stock clients use our routers and exit nodes, and ours use theirs. Pictures: lab/scenarios/subnet_router.py, exit_node.py"""
import pytest

from lab.scenarios.exit_node import ExitNet
from lab.scenarios.subnet_router import SERVER, SERVER6, RoutedNet
from lab.stock import StockClient
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

BOTH = pytest.mark.parametrize("ours", ["router", "client"])


@BOTH
@pytest.mark.needs("tailscaled", "tailscale")
def test_a_network_behind_a_router(lab, programs, ours):
    net = RoutedNet(lab, *((Agent, StockClient) if ours == "router" else (StockClient, Agent)))
    net.forward()
    net.join()
    for address in (SERVER, SERVER6):
        wait_for(lambda: net.fetches(address), 30, f"the client fetches from {address}")
        assert not tcp_opens(net.client_host, address, 8080)
    assert net.seen_by_server() == "fd00:7::1"


@BOTH
@pytest.mark.needs("tailscaled", "tailscale")
def test_an_exit_node(lab, programs, ours):
    net = ExitNet(lab, exit_is=Agent if ours == "router" else StockClient, client_is=StockClient if ours == "router" else None)
    net.join()
    for name in ("exit-a", "exit-b"):
        net.client.cli("set", f"--exit-node={name}")
        net.goes_by(name)
    net.client.cli("set", "--exit-node=")
    wait_for(lambda: net.fetches() and net.seen_by_site() == net.home.box.address, 15, "the client is itself again")
