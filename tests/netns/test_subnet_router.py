"""Routers of networks. Pictures: lab/scenarios/subnet_router.py"""
from lab.scenarios import subnet_router


def test_a_router_gives_its_network_to_the_tailnet_and_leaves_nothing_behind(lab, programs):
    subnet_router.goes_down(subnet_router.run(lab))


def test_two_networks_become_one(lab, programs):
    subnet_router.two_sites(lab)


def test_modes_and_stateful_filtering(lab, programs):
    subnet_router.modes(lab)


def test_a_thousand_routes_and_one_that_covers_our_own_network(lab, programs):
    subnet_router.many_routes(lab)
