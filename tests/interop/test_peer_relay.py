"""A stock node relays UDP for ours, and ours for stock nodes. Picture: lab/scenarios/peer_relay.py"""
import pytest

from lab.scenarios import peer_relay
from lab.stock import StockClient
from lab.tailrace import Agent

pytestmark = pytest.mark.needs("tailscaled", "tailscale")


def test_two_of_our_agents_meet_at_a_stock_relay_server(lab, programs):
    peer_relay.run(lab)


def test_our_agent_and_a_stock_client_meet_at_a_stock_relay_server(lab, programs):
    peer_relay.run(lab, bob_is=StockClient)


def test_an_agent_without_the_steering_program_hears_a_stock_relay_server(lab, programs):
    peer_relay.run(lab, bob_is=lambda host: Agent(host, more=("--steering", "socket")))


def test_our_agent_and_a_stock_client_meet_at_ours(lab, programs):
    peer_relay.run(lab, rita_is=Agent, bob_is=StockClient)
