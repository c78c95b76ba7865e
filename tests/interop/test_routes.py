"""Stock clients use our routers and exit nodes, and ours use theirs. Pictures: lab/scenarios/subnet_router.py, exit_node.py"""
import pytest

from interop import UNDER_EITHER
from lab.scenarios.exit_node import EXITS, PRINTER, ExitNet
from lab.scenarios.subnet_router import LAN, POLICY, SERVER, SERVER6, RoutedNet, joined, two_sites
from lab.stock import Headscale, StockClient
from lab.tailrace import Agent
from lab.traffic import tcp_opens
from lab.wait import wait_for

BOTH = pytest.mark.parametrize("ours", ["router", "client"])


@BOTH
@UNDER_EITHER
@pytest.mark.needs("tailscaled", "tailscale")
def test_a_network_behind_a_router(lab, programs, ours, control_is):
    net = RoutedNet(lab, *((Agent, StockClient) if ours == "router" else (StockClient, Agent)), control_is=control_is)
    net.forward()
    net.join()
    for address in (SERVER, SERVER6):
        wait_for(lambda: net.fetches(address), 30, f"the client fetches from {address}")
        assert not tcp_opens(net.client_host, address, 8080)
    assert net.seen_by_server() == "fd00:7::1"


@BOTH
@UNDER_EITHER
@pytest.mark.needs("tailscaled", "tailscale")
def test_an_exit_node(lab, programs, ours, control_is):
    exit_is, client_is = (Agent, StockClient) if ours == "router" else (StockClient, None)
    net = ExitNet(lab, exit_is=exit_is, client_is=client_is, control_is=control_is)
    net.join()
    for name in ("exit-a", "exit-b"):
        net.client.cli("set", f"--exit-node={name}")
        net.goes_by(name)
    assert not net.fetches(PRINTER)
    net.client.cli("set", "--exit-node-allow-lan-access")
    wait_for(lambda: net.fetches(PRINTER), 15, "the network at home is reached when that is asked for")
    net.goes_by("exit-b")
    net.client.cli("set", "--exit-node-allow-lan-access=false")
    wait_for(lambda: not net.fetches(PRINTER), 15, "and not any more")
    net.client.cli("set", "--exit-node=")
    wait_for(lambda: net.fetches() and net.seen_by_site() == net.home.box.address, 15, "the client is itself again")


@UNDER_EITHER
@pytest.mark.needs("tailscaled", "tailscale")
def test_two_networks_one_behind_a_stock_router(lab, programs, control_is):
    two_sites(joined(lab, control_is=control_is), other_is=StockClient)


@pytest.mark.needs("tailscaled", "tailscale", "headscale")
def test_a_route_that_headscale_approves_by_hand(lab, programs):
    net = RoutedNet(lab, Agent, StockClient, control_is=Headscale)
    net.forward()
    net.control.set_policy(POLICY.replace('"192.168.0.0/16": ["tag:router"], "fd00::/8": ["tag:router"]', ""))
    net.join()
    wait_for(lambda: net.client.peer("router"), 20, "the client knows the router")
    assert not net.fetches(), "nobody has approved the route"
    net.control.approve_route("router", LAN)
    wait_for(net.fetches, 30, "an approved route is a way")


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_client_asks_for_names_by_our_exit_node(lab, programs):
    net = ExitNet(lab, client_is=StockClient)
    net.join()
    net.client.cli("set", "--accept-dns", "--exit-node=exit-a")
    asks = lambda: net.client.cli("dns", "query", "secret.example", "a", check=False).stdout # noqa: E731
    said = wait_for(lambda: (text := asks()) and EXITS["exit-a"][0] in text and text, 30, "the exit node's resolver answers")
    assert EXITS["exit-a"][0] in said and "udp secret.example" in net.names["exit-a"].asked()

    exit_node = net.client.peer("exit-a")
    url = exit_node["PeerAPIURL"][0]
    curl = ["curl", "-s", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "-w", "%{http_code}"]
    question = f"{url}/dns-query?dns=AAABAAABAAAAAAAABnNlY3JldARzaXRlAAABAAE"
    assert net.client_host.run([*curl, question]).stdout == "200"
    assert net.client_host.run([*curl, f"{url}/dns-query?dns=AAAB"]).stdout == "400"
    net.control.set_policy(POLICY.replace(', "autogroup:internet:*"', ""))
    wait_for(lambda: net.client_host.run([*curl, question], check=False).stdout == "403", 15, "who may not use the exit node may not ask it")
