"""The quickstart's story on Debian's own kernel: kernel WireGuard, eBPF with a JIT. Emulated, so only this one."""
import pytest

from lab.scenarios import quickstart


@pytest.mark.guest(mem="2G", timeout=600)
def test_the_whole_story_holds(lab, programs):
    net = quickstart.run(lab, lambda *_, **__: None)
    assert net.gateway.device_kind() == "kernel WireGuard"
