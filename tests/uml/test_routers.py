"""Routers that share a route, on kernel WireGuard and by a clock that nothing else moves. Picture: lab/scenarios/routers.py"""
import pytest

from lab.scenarios import routers


def in_time(net) -> None:
    late = {how: took for how, took in net.moved.items() if took >= routers.GONE_SECONDS}
    assert not late, f"of {net.moved}"


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=400)
def test_a_route_is_where_a_router_is(lab, programs):
    in_time(routers.run(lab))


@pytest.mark.time_travel
@pytest.mark.guest(mem="2G", timeout=400)
def test_a_power_cut_and_one_without_peers_flapping_and_one_without_its_client(lab, programs):
    net = routers.Routers(lab)
    routers.power_cut(net, hours=0.15)
    in_time(net)
    routers.heard_by_control_alone(net)
    routers.flapping(net)
    routers.cut_from_the_client(net)
    routers.a_flow_over_a_fail_over(net)
    print("seconds until the other router carried the route:", {how: round(took, 2) for how, took in net.moved.items()})
