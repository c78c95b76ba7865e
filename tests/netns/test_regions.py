"""Clients are given the router of their own region. Picture: lab/scenarios/regions.py"""
from lab.scenarios import regions


def test_each_client_has_the_router_of_its_region(lab, programs):
    regions.run(lab)


def test_without_the_setting_all_have_the_primary(lab, programs):
    net = regions.Regions(lab)
    net.wait_for_routers("east", "east", "there is one router for all")
    net.stays_for(3, "east", "east", "regions mean nothing")
    net.answers("west", "east")
    assert net.carries_for() == {"east": ["everybody"], "west": []}
