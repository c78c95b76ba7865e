"""Routes are approved, and the second router takes over when the first is gone. Picture: lab/scenarios/routers.py"""
from lab.scenarios import routers


def test_a_route_is_where_a_router_is(lab, programs):
    routers.run(lab)


def test_a_power_cut_and_a_router_that_only_control_hears(lab, programs):
    net = routers.Routers(lab)
    routers.power_cut(net, hours=0)
    routers.heard_by_control_alone(net)


def test_a_router_that_flaps_and_one_that_only_the_client_does_not_reach(lab, programs):
    net = routers.Routers(lab)
    routers.flapping(net)
    routers.cut_from_the_client(net)
    routers.a_flow_over_a_fail_over(net)
