"""The lab itself: what every other test stands on.

    alice ---+                       +--- carol
             +-- internet -- home ---+
    bob -----+               (NAT)
"""
import os
import signal
import subprocess
import sys

import pytest

from lab.lab import PROJECT
from lab.namespaces import started_at
from lab.traffic import PacketsLost, Ping, WebServer, fetch, ping
from lab.wait import wait_for


def test_hosts_reach_each_other_and_a_nat_lets_only_answers_in(lab):
    internet = lab.internet()
    alice = lab.host("alice")
    home = lab.nat("home", internet, "easy")
    carol = lab.host("carol", home.lan)
    assert ping(carol, alice.address)
    alice.run(f"ip route add {home.lan.prefix} via {home.box.address}")
    assert not ping(alice, carol.address, timeout=1)
    WebServer(alice, size_bytes=1000)
    assert fetch(carol, f"http://{alice.address}/payload")[0] == 1000


@pytest.mark.parametrize("kind,same", [("easy", True), ("hard", False), ("hairpin", True)])
def test_a_nat_box_keeps_or_changes_the_port(lab, kind, same):
    home = lab.nat("home", lab.internet(), kind)
    carol = lab.host("carol", home.lan)
    servers = [lab.host("alice"), lab.host("bob")]
    catch = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7000)); print(s.recvfrom(99)[1][1], flush=True)"
    seen = [host.start("catch", ["/usr/bin/python3", "-c", catch]) for host in servers]
    for host in servers:
        wait_for(lambda: ":7000 " in host.run("ss -Hlun").stdout, 10, "the catcher listens")
    send = "import socket,sys; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 41641)); [s.sendto(b'x', (a, 7000)) for a in sys.argv[1:]]"
    carol.run(["/usr/bin/python3", "-c", send, *(host.address for host in servers)])
    ports = [int(catcher.wait_for_output(r"(\d+)\n")[1]) for catcher in seen]
    assert (ports[0] == ports[1]) is same


# Tells a server where to find us and asks it for the other one; then each writes to the other and says what it heard from whom.
MEET = """
import socket, sys, time
server, me, other = sys.argv[1], *sys.argv[2:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 41641))
s.settimeout(0.1)
end, address = time.monotonic() + 5, None
while time.monotonic() < end:
    s.sendto(f"{me} {other}".encode(), (server, 7000))
    if address:
        s.sendto(b"hello", address)
    try:
        said, sender = s.recvfrom(99)
    except OSError:
        continue
    if said == b"hello":
        print("heard from", *sender, flush=True)
        s.sendto(b"hello", sender)
        break
    host, port = said.decode().split()
    address = host, int(port)
"""
SERVE = """
import socket
s, seen = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), {}
s.bind(("", 7000))
print("ready", flush=True)
while True:
    said, sender = s.recvfrom(99)
    me, other = said.decode().split()
    if me not in seen:
        seen[me] = sender
        print(me, *sender, flush=True)
    if other in seen:
        s.sendto("{} {}".format(*seen[other]).encode(), sender)
"""


@pytest.mark.parametrize("kind", ["hairpin", "easy"])
def test_two_lans_behind_a_box_meet_at_its_outside_address_or_not_at_all(lab, kind):
    box = lab.nat("box", lab.internet(), kind, lans=2)
    server, hosts = lab.host("server"), [lab.host(name, lan) for name, lan in zip(("alice", "bob"), box.lans)]
    seen = server.start("serve", ["/usr/bin/python3", "-c", SERVE])
    seen.wait_for_output("ready")
    python = ["/usr/bin/python3", "-c", MEET, server.address]
    meeting = [host.start("meet", [*python, host.name, other.name]) for host, other in zip(hosts, reversed(hosts))]
    for program in meeting:
        program.wait(15)
    outside = {host.name: seen.wait_for_output(rf"{host.name} ({box.box.address} \d+)\n")[1] for host in hosts}
    heard = [program.output() for program in meeting]
    if kind == "hairpin":
        assert heard == [f"heard from {outside['bob']}\n", f"heard from {outside['alice']}\n"]
    else:
        assert heard == ["", ""]
    assert not ping(hosts[0], hosts[1].address, timeout=1)
    assert ping(hosts[0], server.address)


def test_each_host_has_its_own_run_and_pins(lab):
    alice, bob = lab.host("alice"), lab.host("bob")
    alice.run("touch /run/mine")
    alice.run("bpftool map create /sys/fs/bpf/mine type array key 4 value 4 entries 1 name mine")
    assert bob.run("ls /run/mine", check=False).returncode != 0
    assert "mine" not in bob.run("ls /sys/fs/bpf").stdout
    assert "eth0" in alice.run("ls /sys/class/net").stdout.split()
    assert alice.run("cat /proc/1/comm").stdout == "sleep\n" # of the machine's processes it sees those of the lab


def test_losses_are_counted(lab):
    alice, bob = lab.host("alice"), lab.host("bob")
    counted = Ping(alice, bob.address)
    counted.wait_for_reply()
    bob.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1") # not the plug: packets would wait for the neighbour to come back
    wait_for(lambda: counted.unanswered() > 50, 10, "pings are lost")
    with pytest.raises(PacketsLost):
        counted.finish()


def test_everything_ends_when_the_maker_is_killed(tmp_path):
    """Also a daemon that left its parent."""
    maker = subprocess.Popen([sys.executable, "-c", f"""
import sys, time; sys.path.insert(0, {str(PROJECT / 'tests')!r})
from lab.lab import Lab
lab = Lab({str(tmp_path / 'lab')!r})
host = lab.host("alice")
host.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo started"])
print(lab.sandbox.keeper_pid, host.namespaces.keeper_pid, flush=True)
time.sleep(1000)
"""], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in maker.stdout.readline().split()]
    namespace = os.readlink(f"/proc/{pids[1]}/ns/pid")
    maker.send_signal(signal.SIGKILL)
    maker.wait()

    def all_gone():
        alive = [p for p in os.listdir("/proc") if p.isdigit() and _pid_namespace(p) == namespace]
        return not alive and not any(started_at(pid) and _pid_namespace(pid) for pid in pids)
    wait_for(all_gone, 10, "no process of the lab is left")


def _pid_namespace(pid) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
