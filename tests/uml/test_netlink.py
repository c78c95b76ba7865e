"""The tests of netlink/ on a kernel that has everything they ask for: none is skipped here."""
import subprocess

import pytest

from lab.lab import BUILD


@pytest.mark.guest(timeout=120)
def test_the_kernel_takes_every_request():
    done = subprocess.run([BUILD / "tests/unit/netlink/unit_netlink"], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
