"""Stock clients as routers and as users of routes, on our coordination server; and ours beside them on Headscale. Picture:
lab/scenarios/routers.py"""
import pytest

from lab.scenarios.routers import ROUTE, Routers, Site
from lab.stock import Headscale, StockClient
from lab.tailrace import Agent
from lab.traffic import ping
from lab.wait import wait_for


@pytest.mark.needs("tailscaled", "tailscale")
def test_stock_routers_answer_and_a_stock_client_follows(lab, programs):
    net = Routers(lab, r1=StockClient, r2=StockClient, alice=StockClient)
    for name in net.routers:
        net.control.cli("nodes", "routes", "approve", name, ROUTE)
    net.wait_for_carrier("r1", "it was there first")
    wait_for(lambda: (net.health("r1"), net.health("r2")) == ("healthy", "healthy"), 10, "both are watched")
    net.stays_for(8, "r1", "both answer, so nothing moves")
    assert net.health("r1") == net.health("r2") == "healthy", "a stock client answers what we ask in its stream"

    net.fails_over("kill -9", "r2", net.routers["r1"].program.kill)
    net.routers["r1"].start()
    wait_for(lambda: net.health("r1") in ("on probation", "healthy"), 60, "r1 is back")
    net.stays_for(2, "r2", "nobody who comes back takes over")
    r2 = net.routers["r2"].host
    net.fails_over("a pulled cable", "r1", lambda: r2.set_plugged(net.internet, "eth0", "down"))
    print("seconds until the other router carried the route:", {how: round(took, 2) for how, took in net.moved.items()})


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_client_speaks_for_our_router(lab, programs):
    """Control is cut off from the router, and asks the stock client whether it reaches it."""
    net = Routers(lab, r1=Agent, r2=StockClient, alice=StockClient)
    for name in net.routers:
        net.control.cli("nodes", "routes", "approve", name, ROUTE)
    net.wait_for_carrier("r1", "it was there first")
    wait_for(lambda: (net.health("r1"), net.health("r2")) == ("healthy", "healthy"), 10, "both are watched")
    net.routers["r1"].host.nft("""table inet cut {
      chain out { type filter hook output priority 0; ip daddr 203.0.113.1 drop; }
      chain in { type filter hook input priority 0; ip saddr 203.0.113.1 drop; }
    }
    """)
    wait_for(lambda: net.health("r1") == "reached by peers", 15, "the stock client speaks for r1")
    net.stays_for(6, "r1", "only control is cut off from it")
    net.fails_over("silence on both ways", "r2", net.routers["r1"].program.kill)


HEADSCALE_SECONDS = 45 # it gives one who is away ten seconds to come back
PROBED_SECONDS = 17 # it asks every ten seconds, and waits five for the answer


@pytest.mark.parametrize("ours", ["routers", "client"])
@pytest.mark.needs("tailscaled", "tailscale", "headscale")
def test_headscale_moves_a_route_and_everybody_follows(lab, programs, ours):
    router, client = (Agent, StockClient) if ours == "routers" else (StockClient, Agent)
    net = Routers(lab, r1=router, r2=router, alice=client, control_is=Headscale)
    site = approved(net)
    reaches_site = lambda: ping(net.alice.host, site.SERVER, timeout=1) # noqa: E731
    first = wait_for(net.carriers, 20, "somebody carries the route")[0]
    second = "r2" if first == "r1" else "r1"
    wait_for(reaches_site, 30, f"alice reaches the network by {first}")
    net.fails_over(f"the end of {first}", second, net.routers[first].program.kill, HEADSCALE_SECONDS)
    sent = lambda: int(net.routers[second].host.run(f"cat /sys/class/net/{site.devices[second]}/statistics/tx_packets").stdout) # noqa: E731
    before = sent()
    wait_for(reaches_site, 30, f"alice reaches the network by {second}")
    assert sent() > before
    net.routers[first].start()
    wait_for(lambda: net.alice.peer(first).get("Online"), 40, f"{first} is back")
    net.stays_for(2, second, "nobody who comes back takes over")
    print("seconds until the other router carried the route:", {how: round(took, 2) for how, took in net.moved.items()})


@pytest.mark.needs("tailscaled", "tailscale", "headscale")
def test_headscale_hears_that_our_router_lives(lab, programs):
    """A stock one stands ready, and would have the route if ours did not answer what Headscale asks."""
    net = Routers(lab, r1=Agent, r2=StockClient, alice=StockClient, control_is=Headscale)
    approved(net)
    net.stays_for(PROBED_SECONDS, wait_for(net.carriers, 20, "somebody carries the route")[0], "both answer")


def approved(net: Routers) -> Site:
    for name in ("r1", "r2"):
        net.control.approve_route(name, ROUTE)
        wait_for(net.carriers, 20, "somebody carries the route")
    net.alice.cli("set", "--accept-routes")
    return Site(net)
