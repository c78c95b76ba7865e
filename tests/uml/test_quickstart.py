"""The quickstart's story on kernel WireGuard. Picture: lab/scenarios/quickstart.py"""
import pytest

from lab.scenarios import quickstart
from lab.stock import StockClient, binary
from lab.traffic import ping
from lab.wait import wait_for


@pytest.mark.guest(timeout=240)
def test_the_whole_story_holds_on_kernel_wireguard(lab, programs):
    net = quickstart.run(lab, lambda *_, **__: None)
    assert net.gateway.device_kind() == "kernel WireGuard"


@pytest.mark.needs("tailscaled", "tailscale")
@pytest.mark.guest(mem="2G", timeout=240)
def test_a_stock_client_takes_part(lab, programs):
    net = quickstart.Tailnet(lab)
    net.start_control()
    net.join()
    net.serve_web()
    carol_host = lab.host("carol")
    carol = StockClient(carol_host)
    carol.up(net.control.url, net.control.create_key(quickstart.BOB), timeout=60)
    address = net.gateway.ip()
    wait_for(lambda: ping(carol_host, address, timeout=2), 30, "the stock client pings the gateway")
    # A userspace tunnel does 15 to 20 Mbit/s here.
    wait_for(lambda: quickstart.transfers(carol_host, net.url(80), 20), 40, "the stock client fetches from the gateway")
    assert quickstart.refused(carol_host, net.gateway.ip(), 8080)
