"""Installing, upgrading, removing and purging, over this machine's files and without changing one: the packages are put
into an overlay, and what is in its upper half afterwards is what they did. No service manager runs there.
"""
import os
import pathlib
import subprocess

import pytest

from .debs import built, predecessor

# What dpkg and its triggers write for themselves, whatever is installed.
NOT_OURS = ("var/lib/dpkg", "var/log", "var/cache", "var/lib/systemd/deb-systemd-helper-enabled", "run", "tmp", "dev", "root",
            "etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid", "etc/.pwd.lock", "etc/ld.so.cache",
            "var/lib/systemd/deb-systemd-user-helper-enabled", "usr/share/man/index", "var/lib/man-db")


class Machine:
    """A shell in a mount namespace of its own, over the machine's files."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._script = []

    def step(self, name: str, command: str) -> None:
        """What the command prints, and then which files differ from the machine's."""
        self._script.append(f"echo '== {name}'; chroot root sh -c {self._quote(command)} 2>&1 || echo FAILED; echo '-- files'; "
                            "(cd upper && find . ! -type d -printf '%P %s\\n')")

    @staticmethod
    def _quote(text: str) -> str:
        return "'" + text.replace("'", "'\\''") + "'"

    def run(self, debs: list) -> dict:
        (self.folder / "story").write_text("\n".join([
            "set -e", f"mount -t tmpfs tmpfs {self.folder}/world", f"cd {self.folder}/world", "mkdir upper work root",
            "mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root",
            "mount -t tmpfs tmpfs root/run; mount -t proc proc root/proc; mount -t tmpfs tmpfs root/tmp; mkdir root/tmp/debs",
            "rm -f root/var/lib/man-db/auto-update", # an index of all the machine's man pages at each step
            *(f"cp {deb} root/tmp/debs/" for deb in debs), *self._script]))
        (self.folder / "world").mkdir()
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "sh", self.folder / "story"], capture_output=True, text=True,
                              timeout=300, env={"PATH": os.environ["PATH"], "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stdout + done.stderr
        steps = {}
        for part in done.stdout.split("== ")[1:]:
            name, _, rest = part.partition("\n")
            printed, _, files = rest.partition("-- files\n")
            assert "FAILED" not in printed, f"{name}:\n{printed}"
            steps[name] = (printed, {line.rsplit(" ", 1)[0] for line in files.splitlines()
                                     if not line.startswith(NOT_OURS) and not line.endswith("-")})
        return steps


@pytest.fixture
def machine(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("installing packages needs root")
    return Machine(tmp_path)


def test_install_upgrade_remove_and_purge(machine, tmp_path):
    debs = list(built().values())
    old = [predecessor(deb, tmp_path) for deb in debs]
    install = "dpkg --force-confdef --force-confold -i"
    machine.step("installed", f"{install} /tmp/debs/*_old.deb && getent passwd tailrace-control tailrace-relay")
    machine.step("configured", "echo 'hostname: kept' >>/etc/tailrace/tailraced.yaml; echo FLAGS=--no-port-mapping >/etc/default/tailraced;"
                 "mkdir -p /var/lib/tailrace; echo state >/var/lib/tailrace/tailraced.state; echo db >/var/lib/tailrace-control/control.db")
    machine.step("upgraded", f"{install} $(ls /tmp/debs/*.deb | grep -v _old) && cat /etc/tailrace/tailraced.yaml /etc/default/tailraced "
                 "/var/lib/tailrace/tailraced.state && head -1 /etc/tailrace/relay.yaml && dpkg-query -W 'tailrace*'")
    machine.step("works", "tailrace version && tailraced --version && tailrace-control --version && tailrace-relay --version && "
                 "! tailrace config check /etc/tailrace/tailraced.yaml && man -w tailrace tailraced.yaml tailrace-control >/dev/null")
    machine.step("removed", "dpkg -r tailrace tailrace-control tailrace-relay && cat /etc/tailrace/tailraced.yaml")
    machine.step("purged", "dpkg -P tailrace tailrace-control tailrace-relay; ! getent passwd tailrace-control tailrace-relay; "
                 "! ls -d /etc/tailrace /var/lib/tailrace /var/lib/tailrace-control /var/lib/tailrace-relay 2>/dev/null")
    steps = machine.run(debs + old)

    printed, _ = steps["installed"] # of the predecessor
    assert "tailrace-control" in printed and "tailrace-relay" in printed, "own users"
    _, files = steps["upgraded"]
    for path in ("usr/bin/tailrace", "usr/sbin/tailraced", "usr/bin/tailrace-control", "usr/bin/tailrace-relay", "etc/default/tailraced",
                 "etc/tailrace/tailraced.yaml", "etc/tailrace/control.yaml", "etc/tailrace/relay.yaml",
                 "lib/systemd/system/tailraced.service", "lib/systemd/system/tailraced-close.service", "lib/systemd/system/tailraced.socket", "lib/systemd/system/sys-fs-bpf.mount",
                 "lib/systemd/system/tailrace-wait-online.service", "lib/systemd/system/tailrace-online.target",
                 "lib/systemd/system/tailrace-control.service", "lib/systemd/system/tailrace-relay.service",
                 "usr/lib/systemd/network/00-tailrace.network", "usr/lib/systemd/networkd.conf.d/50-tailrace.conf",
                 "usr/lib/NetworkManager/conf.d/50-tailrace.conf", "usr/share/bash-completion/completions/tailrace",
                 "usr/share/zsh/vendor-completions/_tailrace-control", "usr/share/fish/vendor_completions.d/tailrace-relay.fish",
                 "usr/share/man/man8/tailraced.8.gz", "usr/share/man/man1/tailrace.1.gz", "usr/share/man/man5/control.yaml.5.gz"):
        assert path in files or "usr/" + path in files, path
    assert "usr/lib/systemd/network/50-tailrace.network" not in files, "it had that name before"
    for unit in ("tailraced", "tailraced-close"):
        assert any(f"multi-user.target.wants/{unit}.service" in path for path in files), f"{unit} is enabled"
    assert not any("wants/tailrace-control" in path or "wants/tailrace-relay" in path for path in files), \
        "servers wait until they are configured"

    printed, _ = steps["upgraded"]
    assert "hostname: kept" in printed and "FLAGS=--no-port-mapping" in printed and "state" in printed.split(), printed
    assert "as it was shipped before" not in printed.split("state")[-1], "an untouched conffile is replaced"
    assert "0.0.9" not in printed.splitlines()[-1]
    printed, files = steps["removed"]
    assert "hostname: kept" in printed and "var/lib/tailrace/tailraced.state" in files and "usr/sbin/tailraced" not in files
    _, files = steps["purged"]
    assert not files, f"left behind: {sorted(files)}"
