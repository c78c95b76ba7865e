"""The units as they are shipped, under a real systemd on this room's kernel: the sandbox lets everything work that must.

One machine, on which both programs run; systemd is the first process of a PID namespace of the guest.
"""
import json
import os
import pathlib
import subprocess

import pytest

from lab.lab import PROJECT
from lab.tailrace import TAILRACE, TAILRACE_CONTROL, TAILRACED

UNITS = pathlib.Path("/run/systemd/system")
SOURCES = {"tailraced": "tailrace.tailraced.service", "tailraced-close": "tailrace.tailraced-close.service",
           "tailrace-control": "tailrace-control.service"}
CONFIG = """
server_url: http://127.0.0.1:8080
listen: 127.0.0.1:8080
listen_tls: 127.0.0.1:443
metrics_listen: 127.0.0.1:9090
state_dir: /var/lib/tailrace-control
"""
RESOLV_CONF = "# of this machine\nnameserver 192.0.2.1\n"
STORY = """
set -eu
step() { echo; echo "== $1"; }
devices() { ip -j link show tailrace0 | busybox grep -o '"ifindex":[0-9]*'; }
systemctl start systemd-journald
systemctl start tailrace-control tailraced || journalctl --no-pager
tailrace-control users create alice
tailrace-control keys create --user alice > /root/key
step up;       tailrace up --login-server http://127.0.0.1:8080 --auth-key file:/root/key --timeout 20s; tailrace status
step device;   devices; nft list tables
step names;    cat /etc/resolv.conf
step stopped;  systemctl stop tailraced; devices
step given;    cat /etc/resolv.conf
step started;  systemctl start tailraced; tailrace wait --timeout 20s; devices
step killed;   systemctl kill -s KILL tailraced; sleep 2; tailrace wait --timeout 20s; devices; systemctl is-active tailraced
step replaced; echo nameserver 192.0.2.2 >/etc/new; mv /etc/new /etc/resolv.conf; sleep 3; tailrace status
step written;  systemctl restart tailraced; tailrace wait --timeout 20s; sleep 1; cat /etc/resolv.conf
step control;  systemctl restart tailrace-control; tailrace-control nodes list --json
step journal;  journalctl -u tailraced -o json --no-pager
step boot;     systemctl stop tailraced; tailraced --cleanup; mv /var/lib/tailrace /root/state; ip route show table 52
cp /root/fleet /etc/tailrace/tailraced.yaml
step closed;   systemctl start tailraced-close; systemctl show --property Result tailraced-close; ip route show table 52; ip -6 route show table 52; ls -ld /var/lib/tailrace
step end
"""
FLEET = "login-server: http://127.0.0.1:8080\nexit-node: gw1\n"


@pytest.mark.guest(timeout=180)
def test_the_units_work_in_their_sandboxes(programs, tmp_path):
    UNITS.mkdir(parents=True, exist_ok=True)
    pathlib.Path("/etc/resolv.conf").write_text(RESOLV_CONF)
    for unit in SOURCES:
        (UNITS / f"{unit}.service").write_bytes((PROJECT / f"debian/{SOURCES[unit]}").read_bytes())
    for program, place in ((TAILRACED, "/usr/sbin"), (TAILRACE, "/usr/bin"), (TAILRACE_CONTROL, "/usr/bin")):
        subprocess.run(["cp", program, place], check=True)
    subprocess.run(["useradd", "--system", "tailrace-control"], check=True)
    os.makedirs("/etc/tailrace", exist_ok=True)
    pathlib.Path("/etc/tailrace/control.yaml").write_text(CONFIG)
    pathlib.Path("/root/story").write_text(STORY)
    pathlib.Path("/root/fleet").write_text(FLEET)
    (UNITS / "story.service").write_text("""[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c "/bin/sh /root/story >/root/told 2>&1"
ExecStopPost=/bin/systemctl exit
""")
    subprocess.run(["unshare", "--pid", "--fork", "--mount", "--mount-proc", "env", "container=other", "/lib/systemd/systemd", "--system",
                    "--unit=story.service", "--show-status=false"], timeout=150, stdout=subprocess.DEVNULL)
    told = pathlib.Path("/root/told").read_text()
    steps = {name: text for name, _, text in (part.partition("\n") for part in told.split("\n== "))}
    assert "end" in steps, told
    assert "100.64.0.1" in steps["up"], told
    assert "tailrace-tailrace0" in steps["device"], "the backstop stands"
    index = steps["device"].split()[0]
    assert "ifindex" in index and all(steps[name].split()[0] == index for name in ("stopped", "started", "killed")), told
    assert "active" in steps["killed"].split()
    assert "nameserver 100.100.100.100" in steps["names"] and steps["given"].strip() == RESOLV_CONF.strip(), told
    # Who replaces the file takes it out of the sandbox, and that is told with its cure.
    assert "systemctl restart tailraced" in steps["replaced"] and "nameserver 100.100.100.100" in steps["written"], told
    assert json.loads(steps["control"])[0]["name"], "the tailnet is still there"
    # A machine that was never in a tailnet, with an exit node in its configuration.
    assert "unreachable" not in steps["boot"]
    assert "Result=success" in steps["closed"] and "drwx------" in steps["closed"], told
    assert steps["closed"].count("unreachable default") == 2, steps["closed"]
    entries = [json.loads(line) for line in steps["journal"].splitlines() if line]
    adopted = [entry for entry in entries if entry["MESSAGE"].startswith("WireGuard device adopted")]
    assert len(adopted) == 3 and all(entry["TAILRACE_DEVICE"] == "tailrace0" and entry["PRIORITY"] == "6" for entry in adopted)
