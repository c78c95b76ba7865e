"""The quickstart's story on Debian's own kernel: kernel WireGuard, eBPF with a JIT. Emulated, so only this one, and told by its
own program: pytest alone takes ten seconds to begin there."""
import subprocess

import pytest

from lab.lab import PROJECT


@pytest.mark.host_only
def test_the_whole_story_holds(programs):
    done = subprocess.run([str(PROJECT / "scripts/vm"), "--mem", "2G", "--timeout", "600", "--", "sh", "-c",
                           f"cd {PROJECT}/tests && exec /usr/bin/python3 -m lab.quickstart --once"], capture_output=True, text=True, timeout=800)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    assert "All 11 steps held" in done.stdout and "Encryption: kernel WireGuard" in done.stdout
