"""Routers that share a route, on kernel WireGuard. Picture: lab/scenarios/routers.py"""
import pytest

from lab.scenarios import routers


@pytest.mark.guest(timeout=300)
def test_a_route_is_where_a_router_is(lab, programs):
    routers.run(lab)


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=400)
def test_a_power_cut(lab, programs):
    net = routers.Routers(lab)
    routers.power_cut(net, hours=0.15)
    print("seconds until the other router carried the route:", round(net.moved["a power cut"], 2))
    assert net.moved["a power cut"] < routers.GONE_SECONDS, "by a clock that nothing else moves"
    net.control.cli("nodes", "routes", "revoke", "r2", routers.ROUTE)
    net.wait_for_carrier("r1", "r2 may no more")
    net.control.cli("nodes", "routes", "approve", "r2", routers.ROUTE)
    routers.failures(net)
    late = {how: took for how, took in net.moved.items() if took >= routers.GONE_SECONDS}
    assert not late, f"of {net.moved}"
    routers.heard_by_control_alone(net)
    routers.a_flow_over_a_fail_over(net)
    print("seconds until the other router carried the route:", {how: round(took, 2) for how, took in net.moved.items()})
