"""Routes are approved, and the second router takes over when the first is gone. Picture: lab/scenarios/routers.py"""
from lab.scenarios import routers


def test_a_route_is_where_a_router_is(lab, programs):
    routers.run(lab)
