"""A machine sleeps, and wakes in another place. Picture: lab/scenarios/paths.py

No kernel of these rooms can be suspended: user-mode Linux is built without, the host's is not ours to suspend, and the offset of a
time namespace is fixed once a program runs in it. So what sleep is to a program is made by hand: it is stopped, and when it goes on
the boot-time clock has run ahead of the monotonic one (a library between the agent and libc says so). No link, address or route
changes, so that nothing else can tell."""
import signal

import pytest

from lab.scenarios.hard_nat import FORGET
from lab.scenarios.paths import Net
from lab.tailrace import Agent
from lab.traffic import Ping, ping
from lab.wait import wait_for

AHEAD = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, id, now);
    FILE *file = !failed && id == CLOCK_BOOTTIME ? fopen(getenv("AHEAD_BY"), "r") : NULL;
    long seconds = 0;

    if (!file)
        return failed;
    if (fscanf(file, "%ld", &seconds) == 1)
        now->tv_sec += seconds;
    fclose(file);
    return 0;
}
"""
# STUN requests that reach the relay from bob's NAT.
WATCH = """
table ip watch {
    counter asked { }
    chain in { type filter hook prerouting priority -400; udp dport 3478 ip saddr { %s, %s } counter name asked; }
}
"""
AWAKE_AT = "203.0.113.77" # bob's NAT, after the sleep


class Sleeper(Agent):
    """An agent whose machine can sleep."""

    def start(self, wait: bool = True) -> None:
        folder = self.host.directory
        source, library, self.ahead_by = folder / "ahead.c", folder / "ahead.so", folder / "ahead-by"
        source.write_text(AHEAD)
        self.ahead_by.write_text("0")
        self.host.run(["cc", "-shared", "-fPIC", "-o", library, source], timeout=60)
        self.environment = {"LD_PRELOAD": str(library), "AHEAD_BY": str(self.ahead_by)}
        super().start(wait)

    def sleep(self, seconds: int, meanwhile) -> None:
        self.program.signal(signal.SIGSTOP)
        meanwhile()
        self.ahead_by.write_text(str(int(self.ahead_by.read_text()) + seconds))
        self.program.signal(signal.SIGCONT)


@pytest.fixture
def net(lab, programs):
    net = Net(lab, "public", "easy", bob_is=Sleeper)
    net.relay.host.nft(WATCH % (net.nats["bob"].box.address, AWAKE_AT))
    net.reaches()
    wait_for(lambda: net.bob.direct_to("alice"), 10, "the path is direct")
    return net


def asked(net) -> int:
    text = net.relay.host.run("nft list counter ip watch asked").stdout
    return int(text.partition("packets ")[2].split()[0])


def test_after_a_sleep_it_finds_out_where_it_is(net):
    box = net.nats["bob"].box

    before = asked(net)

    def carried_elsewhere():
        nonlocal before
        box.ip(f"address delete {box.address}/24 dev eth0", f"address add {AWAKE_AT}/24 dev eth0",
               f"route add default via {net.lab.internet().gateway}")
        box.run(["/usr/bin/python3", "-c", FORGET])
        before = asked(net)
    net.bob.sleep(3600, carried_elsewhere)
    net.bob.program.wait_for_output(r"the machine was asleep .*seconds=(3599|3600)", 10)
    wait_for(lambda: asked(net) > before, 5, "STUN servers are asked again")
    wait_for(lambda: AWAKE_AT in str(net.control.nodes()), 15, "control hears of the new address")
    wait_for(lambda: ping(net.hosts["alice"], net.bob.ip(), timeout=1), 10, "alice reaches bob") # she trusts where he was for 6.5 s
    wait_for(lambda: net.alice.direct_to("bob").startswith(AWAKE_AT), 20, "alice finds the new path")
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    pings.finish()


def test_a_nap_leaves_everything_alone(net):
    net.bob.sleep(4, lambda: None) # SleepWatch::kShortest is 5 s
    wait_for(lambda: net.bob.status(), 10, "it goes on")
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=5)
    assert "the machine was asleep" not in net.bob.program.output()
    assert net.bob.direct_to("alice")
