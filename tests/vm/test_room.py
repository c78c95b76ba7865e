"""What the room itself promises: scripts/vm runs a command on Debian's kernel and hands back its status; nothing escapes."""
import subprocess

import pytest

from lab.lab import PROJECT


@pytest.mark.host_only
def test_output_and_status_come_back_and_nothing_else(tmp_path):
    done = subprocess.run([str(PROJECT / "scripts/vm"), "--timeout", "200", "--", "sh", "-c",
                           f"echo hello; echo gone > {tmp_path}/escaped; modprobe wireguard && exit 7"], capture_output=True, text=True, timeout=400)
    assert done.stdout == "hello\n"
    assert done.returncode == 7
    assert not (tmp_path / "escaped").exists()
