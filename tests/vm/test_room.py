"""A guest with Debian's own kernel: what scripts/vm promises, that it runs a command, hands back its status and lets nothing
escape; and the quickstart's story: kernel WireGuard, eBPF with a JIT. Emulated, so one boot for both, and the story is told by its
own program: pytest alone takes ten seconds to begin there."""
import re
import subprocess

import pytest

from lab.lab import PROJECT

pytestmark = pytest.mark.host_only


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """What the guest said, and where it tried to leave something."""
    outside = tmp_path_factory.mktemp("outside")
    work = f"echo hello; echo gone > {outside}/escaped; modprobe wireguard && cd {PROJECT}/tests && /usr/bin/python3 -m lab.quickstart --once && exit 7"
    done = subprocess.run([str(PROJECT / "scripts/vm"), "--mem", "2G", "--timeout", "600", "--", "sh", "-c", work], capture_output=True, text=True, timeout=800)
    return done, outside


def test_output_and_status_come_back_and_nothing_else(room):
    done, outside = room
    assert re.fullmatch(r"hello\n\s*tailrace quickstart: .*\nAll 11 steps held.*WireGuard\.\n", done.stdout, re.S), "what the command said, and no kernel"
    assert done.returncode == 7
    assert not (outside / "escaped").exists()


def test_the_quickstarts_story_holds(programs, room):
    done, _ = room
    print(done.stdout + done.stderr)
    assert "All 11 steps held" in done.stdout and "Encryption: kernel WireGuard" in done.stdout
