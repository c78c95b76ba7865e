"""Stock programs and ours in one tailnet, in every mixture. Picture: lab/scenarios/mesh.py"""
import pytest

from lab.scenarios import mesh


@pytest.mark.needs("tailscaled", "tailscale")
def test_two_stock_clients_on_our_control(lab, programs):
    mesh.run(lab, control="tailrace", alice="stock", bob="stock")


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_client_and_our_agent_on_our_control(lab, programs):
    mesh.run(lab, control="tailrace", alice="stock", bob="tailrace")


@pytest.mark.needs("headscale", "tailscaled", "tailscale")
def test_a_stock_client_and_our_agent_on_headscale(lab, programs):
    mesh.run(lab, control="headscale", alice="tailrace", bob="stock")


@pytest.mark.needs("headscale")
def test_two_of_our_agents_on_headscale(lab, programs):
    mesh.run(lab, control="headscale", alice="tailrace", bob="tailrace")


@pytest.mark.needs("headscale", "tailscaled", "tailscale")
def test_stock_programs_alone(lab):
    """Shows that the lab is right when a mixture fails."""
    mesh.run(lab, control="headscale", alice="stock", bob="stock")
