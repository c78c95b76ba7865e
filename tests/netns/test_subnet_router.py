"""Routers of networks. Pictures: lab/scenarios/subnet_router.py"""
import pytest

from lab.scenarios import subnet_router
from lab.wait import wait_for


def test_a_router_gives_its_network_to_the_tailnet_and_leaves_nothing_behind(lab, programs):
    subnet_router.goes_down(subnet_router.run(lab))


def test_two_networks_become_one(lab, programs):
    subnet_router.two_sites(subnet_router.joined(lab))


@pytest.mark.parametrize("client", ["", "easy", "hard"])
def test_a_router_behind_a_hard_nat(lab, programs, client):
    net = subnet_router.behind_nat(lab, "hard", client)
    if not client:
        wait_for(lambda: net.fetches() and net.client.direct_to("router"), 30, "the router finds the client, who is nowhere behind")
    if client == "hard":
        assert net.client.direct_to("router") == "", "nothing leads from one hard NAT to the other but the relay"


def test_modes_and_stateful_filtering(lab, programs):
    subnet_router.modes(lab)


def test_a_thousand_routes_and_such_as_cover_our_own_network(lab, programs):
    subnet_router.overlapping(subnet_router.joined(lab))


def test_two_hundred_clients_on_one_router(lab, programs):
    subnet_router.crowd(subnet_router.joined(lab))
