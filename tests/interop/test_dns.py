"""Stock clients and ours know each other by name. Picture: lab/scenarios/mesh.py"""
import pytest

from lab.nameserver import dig
from lab.scenarios.mesh import Mesh
from lab.stock import BASE_DOMAIN
from lab.tailrace import Agent
from lab.wait import wait_for


def know_each_other(lab, control: str, alice: str, bob: str) -> None:
    mesh = Mesh(lab, control, alice, bob)
    mesh.join()
    for host, node, other, peer in mesh.pairs():
        name = f"{other}.{BASE_DOMAIN}"
        wait_for(lambda: dig(host, "+short", name).split() == [peer.ip()], 20, f"{host.name} asks for {other}")
        assert dig(host, "+short", "-x", peer.ip()).split() == [f"{name}."]
        # The stock client is up with --accept-dns=false: nobody owns other names then.
        assert ("NXDOMAIN" if isinstance(node, Agent) else "SERVFAIL") in dig(host, f"nobody.{BASE_DOMAIN}")


@pytest.mark.needs("tailscaled", "tailscale")
def test_on_our_control(lab, programs):
    know_each_other(lab, "tailrace", "tailrace", "stock")


@pytest.mark.needs("headscale", "tailscaled", "tailscale")
def test_on_headscale(lab, programs):
    know_each_other(lab, "headscale", "tailrace", "stock")
