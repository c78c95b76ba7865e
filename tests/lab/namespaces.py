"""Namespaces of the kernel, as far as a lab needs them.

A lab is one PID namespace: when its first process dies, the kernel kills everything in it, daemons that left their
parent included. A host is a network and a mount namespace in it, with /run, /sys and /sys/fs/bpf of its own, so that
several agents on one kernel never see each other's sockets or pins.
"""
import ctypes
import os
import pathlib
import signal
import subprocess

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def end_with_parent(by: int = signal.SIGKILL) -> None:
    """In a child: the kernel sends it this signal when its parent is gone, killed too."""
    _libc.prctl(PR_SET_PDEATHSIG, by)


def started_at(pid: int) -> str:
    """Start time of a process: tells it from a later one with the same number. Empty when there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


class Sandbox:
    """The PID namespace that all programs of a lab live in. Everything in it dies with it."""

    def __init__(self, keeper_pid: int, keeper=None):
        self.keeper_pid = keeper_pid
        self._keeper = keeper
        self._children = []
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._inside = os.open(f"/proc/{keeper_pid}/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def create(cls, outlives_us: bool = False) -> "Sandbox":
        # The first process of the namespace ignores SIGCHLD, so that orphans that end leave no zombies.
        keeper = subprocess.Popen(
            ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", "trap '' CHLD; echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/",
            preexec_fn=None if outlives_us else end_with_parent)
        if keeper.stdout.readline() != b"ready\n":
            raise RuntimeError(f"could not create a PID namespace: {keeper.stderr.read().decode()}")
        keeper.stdout.close() # whoever reads our output must not wait for the keeper's end
        keeper.stderr.close()
        return cls(keeper.pid, keeper)

    def popen(self, argv, **options) -> subprocess.Popen:
        """Starts a program in the sandbox; its pid is the one that we see from outside."""
        setns(self._inside, CLONE_NEWPID) # for children only
        try:
            child = subprocess.Popen(argv, **options)
        finally:
            setns(self._own, CLONE_NEWPID)
        self._children = [old for old in self._children if old.poll() is None] + [child]
        return child

    def destroy(self) -> None:
        try:
            os.kill(self.keeper_pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if self._keeper is not None:
            self._keeper.wait()
        for child in self._children:
            child.wait() # the kernel has killed it
        for fd in (self._own, self._inside):
            os.close(fd)


# Runs as the first process of a host, before anything else on it: a directory of the host, its name, where resolv.conf really is.
HOST_SETUP = r"""
set -e
busybox mount --make-rprivate /
busybox mount -t proc proc /proc
busybox mkdir -p "$1/cgroup"
busybox mount --rbind /sys/fs/cgroup "$1/cgroup"
busybox mount -t sysfs sysfs /sys
busybox mount --rbind "$1/cgroup" /sys/fs/cgroup
busybox umount -l "$1/cgroup" && busybox rmdir "$1/cgroup"
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tmpfs -o mode=755 tmpfs /run
busybox mkdir -p /run/lock
echo "nameserver 127.0.0.1" > "$1/resolv.conf"
resolv=$3
case $resolv in /run/*) mkdir -p "${resolv%/*}"; : > "$resolv" ;; esac
# A machine without the file does not get one from an agent of a lab.
if [ -f "$resolv" ]; then mount --bind "$1/resolv.conf" "$resolv"; else mount --bind /etc /etc; mount -o remount,bind,ro /etc; fi
hostname "$2" 2>/dev/null || echo "$2" > /proc/sys/kernel/hostname
for family in all default; do
    echo 0 > /proc/sys/net/ipv6/conf/$family/accept_dad
    echo 0 > /proc/sys/net/ipv6/conf/$family/accept_ra
    echo 0 > /proc/sys/net/ipv4/conf/$family/rp_filter
done 2>/dev/null || true
busybox ip link set lo up
echo ready
trap '' CHLD
exec sleep infinity
"""


class HostNamespaces:
    """The network, mount and UTS namespace of one host, kept by a sleeping process."""

    def __init__(self, keeper_pid: int):
        self.keeper_pid = keeper_pid
        self._fds = [(os.open(f"/proc/{keeper_pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
                     for name, kind in (("net", CLONE_NEWNET), ("uts", CLONE_NEWUTS), ("mnt", CLONE_NEWNS))]

    @classmethod
    def create(cls, sandbox: Sandbox, name: str, directory: pathlib.Path) -> "HostNamespaces":
        keeper = sandbox.popen(
            ["busybox", "unshare", "-n", "-m", "-u", "busybox", "sh", "-c", HOST_SETUP, "sh", str(directory), name,
             os.path.realpath("/etc/resolv.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        if keeper.stdout.readline() != b"ready\n":
            raise RuntimeError(f"could not create host {name}: {keeper.stderr.read().decode()}")
        keeper.stdout.close()
        keeper.stderr.close()
        return cls(keeper.pid)

    def enter(self) -> None:
        """For a process that is about to become a program of this host."""
        for fd, kind in self._fds:
            setns(fd, kind)

    def entering(self, argv) -> list:
        """The command line that enters and becomes argv, a full path first: else busybox takes its own ip for ip.

        One static program and no fork of Python, for forks are what costs time in user-mode Linux.
        """
        return ["busybox", "nsenter", "-t", str(self.keeper_pid), "-n", "-m", "-u", *argv]

    def entering_network(self, argv) -> list:
        return ["busybox", "nsenter", "-t", str(self.keeper_pid), "-n", *argv]

    def close(self) -> None:
        for fd, _ in self._fds:
            os.close(fd)
