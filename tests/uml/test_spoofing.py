"""Nobody sends as somebody else, on kernel WireGuard. Picture: lab/scenarios/spoofing.py"""
import pytest

from lab.scenarios import spoofing


@pytest.mark.guest(timeout=240)
def test_kernel_wireguard_refuses_forged_sources(lab, programs):
    net = spoofing.run(lab)
    assert net.gateway.device_kind() == "kernel WireGuard"
