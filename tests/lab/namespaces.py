"""Namespaces of the kernel, as far as a lab needs them.

A lab is one PID namespace: when its first process dies, the kernel kills everything in it, daemons that left their
parent included. A host is a network and a mount namespace in it, with /run, /sys and /sys/fs/bpf of its own, so that
several agents on one kernel never see each other's sockets or pins.
"""
import concurrent.futures
import contextlib
import ctypes
import fcntl
import os
import pathlib
import signal
import socket
import struct
import subprocess

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments) -> None:
    """A call of the C library that says with 0 that it went well."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def setns(fd: int, kind: int) -> None:
    _call("setns", fd, kind)


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
            [*([] if outlives_us else ["setpriv", "--pdeathsig", "KILL"]), "unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
             "busybox", "sh", "-c", "trap '' CHLD; echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/")
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


def _mount(what: str, where, kind: str = None, flags: int = 0, options: str = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (what, where, kind, options)]
    _call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


def _set_lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags, = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def _set_up_host(name: str, directory: pathlib.Path, resolv_conf: str) -> None:
    """What a host has of its own, in namespaces that are new. `resolv_conf`: where /etc/resolv.conf really is."""
    cgroup = directory / "cgroup"
    cgroup.mkdir(parents=True, exist_ok=True)
    _mount("/sys/fs/cgroup", cgroup, flags=MS_BIND | MS_REC)
    _mount("sysfs", "/sys", "sysfs")
    _mount(cgroup, "/sys/fs/cgroup", flags=MS_BIND | MS_REC)
    _call("umount2", os.fsencode(cgroup), MNT_DETACH)
    cgroup.rmdir()
    _mount("bpf", "/sys/fs/bpf", "bpf")
    _mount("tmpfs", "/run", "tmpfs", options="mode=755")
    os.mkdir("/run/lock")
    own = directory / "resolv.conf"
    own.write_text("nameserver 127.0.0.1\n")
    target = pathlib.Path(resolv_conf)
    if target.is_relative_to("/run"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    if target.is_file():
        _mount(own, target, flags=MS_BIND)
    else: # a machine without the file does not get one from an agent of a lab
        _mount("/etc", "/etc", flags=MS_BIND)
        _mount("none", "/etc", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    socket.sethostname(name)
    for family in ("all", "default"):
        for setting in ("ipv6/conf/{}/accept_dad", "ipv6/conf/{}/accept_ra", "ipv4/conf/{}/rp_filter"):
            with contextlib.suppress(FileNotFoundError): # a kernel without IPv6
                pathlib.Path("/proc/sys/net", setting.format(family)).write_text("0")
    _set_lo_up()


class HostNamespaces:
    """The network, mount and UTS namespace of one host. A sleeping process keeps them, and a thread of ours lives in them: what
    it starts is there from its first moment. Linux has namespaces a thread, and a thread costs much less than a program that
    enters them to become another one."""

    def __init__(self, sandbox: Sandbox, set_up, keeper_pid: int = 0):
        self._sandbox = sandbox
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self.do(set_up)
        self.keeper_pid = keeper_pid or self._start_keeper()

    @classmethod
    def create(cls, sandbox: Sandbox, name: str, directory: pathlib.Path) -> "HostNamespaces":
        def set_up():
            _call("unshare", CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWNS)
            _mount("none", "/", flags=MS_REC | MS_PRIVATE)
        host = cls(sandbox, set_up)
        host.do(_set_up_host, name, directory, os.path.realpath("/etc/resolv.conf"))
        return host

    def _start_keeper(self) -> int:
        """/proc shows those whom the one who mounts it sees: that is the keeper, and not we."""
        keeper = self.popen(["busybox", "sh", "-c", "mount -t proc proc /proc && echo ready && exec sleep infinity"], start_new_session=True,
                            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if keeper.stdout.readline() != b"ready\n":
            raise RuntimeError(f"could not mount /proc: {keeper.stderr.read().decode()}")
        keeper.stdout.close() # whoever reads our output must not wait for the keeper's end
        keeper.stderr.close()
        return keeper.pid

    @classmethod
    def of_keeper(cls, sandbox: Sandbox, keeper_pid: int) -> "HostNamespaces":
        """Those of a host that somebody else made."""
        def set_up():
            _call("unshare", CLONE_NEWNS) # a thread enters another's mounts only when it shares its own with no other thread
            for name, kind in (("net", CLONE_NEWNET), ("uts", CLONE_NEWUTS), ("mnt", CLONE_NEWNS)):
                with open(f"/proc/{keeper_pid}/ns/{name}", encoding="ascii") as namespace:
                    setns(namespace.fileno(), kind)
        return cls(sandbox, set_up, keeper_pid)

    def do(self, function, *arguments, **options):
        """Calls it on this host."""
        return self._thread.submit(function, *arguments, **options).result()

    def popen(self, argv, **options) -> subprocess.Popen:
        """Starts a program on this host, in the sandbox."""
        return self.do(self._sandbox.popen, argv, **options)

    def close(self) -> None:
        self._thread.shutdown()
