"""Routers that share a route, on kernel WireGuard. Picture: lab/scenarios/routers.py"""
import pytest

from lab.scenarios import routers


@pytest.mark.guest(timeout=300)
def test_a_route_is_where_a_router_is(lab, programs):
    routers.run(lab)
