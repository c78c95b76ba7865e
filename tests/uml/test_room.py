"""What the room itself promises: scripts/uml runs a command, hands back its status, and lets nothing escape."""
import subprocess
import time

import pytest

from lab.lab import PROJECT

UML = str(PROJECT / "scripts/uml")


def uml(*words, timeout=60):
    return subprocess.run([UML, "--timeout", str(timeout), *words], capture_output=True, text=True, timeout=timeout + 60)


@pytest.mark.host_only
def test_output_and_status_come_back_and_nothing_else(tmp_path):
    done = uml("--", "sh", "-c", f"echo hello; echo gone > {tmp_path}/escaped; cat {tmp_path}/escaped; exit 7")
    assert done.stdout == "hello\ngone\n"
    assert done.returncode == 7
    assert not (tmp_path / "escaped").exists()


@pytest.mark.host_only
def test_a_command_that_does_not_end_is_ended():
    assert uml("--", "sleep", "1000", timeout=3).returncode == 124


@pytest.mark.host_only
def test_programs_keep_their_registers(tmp_path):
    program = tmp_path / "registers"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, PROJECT / "tests/uml/registers.c"], check=True)
    assert uml("--", str(program)).stdout == "right\n"


@pytest.mark.host_only
def test_with_time_travel_an_hour_takes_seconds():
    start = time.monotonic()
    assert uml("--time-travel", "--", "sleep", "3600").returncode == 0
    assert time.monotonic() - start < 60


def test_the_kernel_has_wireguard(lab):
    """Two hosts, one tunnel, made with the kernel's own tools: what the agent's tests stand on."""
    ends = {"alice": ("10.0.0.1", "10.0.0.2"), "bob": ("10.0.0.2", "10.0.0.1")}
    keys = {name: subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip() for name in ends}
    public = {name: subprocess.run(["wg", "pubkey"], input=key, capture_output=True, text=True, check=True).stdout.strip()
              for name, key in keys.items()}
    hosts = {name: lab.host(name) for name in ends}
    for name, other in (("alice", "bob"), ("bob", "alice")):
        hosts[name].ip("link add wg0 type wireguard")
        hosts[name].run(["wg", "set", "wg0", "listen-port", "51820", "private-key", "/dev/stdin", "peer", public[other],
                         "allowed-ips", ends[name][1] + "/32", "endpoint", f"{hosts[other].address}:51820"], input=keys[name])
        hosts[name].ip(f"address add {ends[name][0]}/24 dev wg0", "link set wg0 up")
    assert "1 received" in hosts["alice"].run("ping -c 1 10.0.0.2").stdout
