"""Stock clients use our app connectors, and ours theirs. Picture: lab/scenarios/app_connector.py"""
import pytest

from lab.scenarios.app_connector import A, AppNet
from lab.stock import StockClient
from lab.tailrace import Agent
from lab.wait import wait_for


@pytest.mark.parametrize("ours", ["connector", "client"])
@pytest.mark.needs("tailscaled", "tailscale")
def test_names_lead_to_what_they_resolve_to(lab, programs, ours):
    net = AppNet(lab, *((Agent, StockClient) if ours == "connector" else (StockClient, Agent)))
    net.forward()
    (net.client_host.directory / "resolv.conf").write_text("nameserver 203.0.113.53\n")
    net.join()
    if ours == "connector":
        net.client.cli("set", "--accept-dns=true")
    wait_for(lambda: net.looks_up("a.app.example") == [A], 30, "the name is asked for at the connector")
    wait_for(lambda: net.fetches(A), 30, "the client reaches what it led to")
    assert net.connector.cli("appc-routes", "-n").stdout == "1\n"
    assert net.connector.cli("appc-routes").stdout.split() == (["a.app.example", "1"] if ours == "connector" else [])
