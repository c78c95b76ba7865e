"""Every call to the kernel fails once: the agent ends in the right state, and what is forbidden passes at no moment.

Picture: subnet_router.py; the router's agent is the one whose calls fail. By default some of the positions are
tried, the same ones each time; TAILRACE_FAULTS=all tries all of them, TAILRACE_FAULTS=40-60 these, TAILRACE_FAULTS=100 that many.
"""
import json
import os
import signal
import time

from ..faults import FaultyAgent
from ..lab import Lab
from ..traffic import Knocking, LeakWatch, Probes, tcp_opens
from ..wait import NotInTime, wait_for
from .exit_node import CONTROL, RELAY, SITE, NothingLeaks
from .subnet_router import LAN, LAN6, POLICY, SERVER, RoutedNet, is_clean

ASKED = os.environ.get("TAILRACE_FAULTS", "")
PATIENCE, LOSS_LASTS = 30, 6 # seconds
OPEN, SHUT = 4001, 4002 # ports of datagrams: the one that the policy opens, the one that it does not
FAULTS_POLICY = POLICY.replace('"acls": [', '"acls": [ { "action": "accept", "src": ["tag:router"], "dst": ["autogroup:internet:*"] },').replace('"tag:router:*"', f'"tag:router:{OPEN}"').replace("192.168.7.0/24:80", f"192.168.7.0/24:80,{OPEN}")
OTHER_POLICY = FAULTS_POLICY.replace(f"192.168.7.0/24:80,{OPEN}", "192.168.7.0/24:80")
# What the agent makes of the machine, in one go: rules, routes, addresses, peers; the numbers of packets left out.
PICTURE = """
nft --stateless --terse list ruleset; ip rule; ip -6 rule; ip route show table 52; ip -6 route show table 52
ip -br address show dev tailrace0 | busybox sed 's, fe80::[^ ]*,,'; wg show tailrace0 allowed-ips | sort; wg show tailrace0 fwmark; wg show tailrace0 listen-port
"""


def some(count: int, samples: int) -> list:
    """Positions from 1 to count: the middles of that many equal parts, or those that were asked for."""
    if "-" in ASKED:
        first, last = map(int, ASKED.split("-"))
        return list(range(first, min(last, count) + 1))
    samples = int(ASKED) if ASKED.isdigit() else samples
    if ASKED == "all" or samples >= count:
        return list(range(1, count + 1))
    return sorted({1 + count * (2 * i + 1) // (2 * samples) for i in range(samples)})


class Story:
    def __init__(self, lab):
        self.net = RoutedNet(lab, router_is=lambda host: FaultyAgent(host, more=("--on-stop", "down", "--no-port-mapping")))
        self.host, self.agent, self.control = self.net.router_host, self.net.router, self.net.control
        self.net.forward()
        self.control.set_policy(FAULTS_POLICY)
        self.net.join(router=(f"--advertise-routes={LAN},{LAN6}", "--accept-routes"))
        wait_for(self.net.fetches, 20, "the client fetches from the network")
        # A new device has no session until one of its side speaks: so that the client's packets come at once.
        self.host.start("speaks", ["sh", "-c", f"while :; do ping -n -i 0.2 -w 2 {self.net.client.ip()}; busybox sleep 0.1; done >/dev/null 2>&1"])
        ways = (self.host, self.agent.ip()), (self.net.server, SERVER)
        self.open = [Knocking(self.net.client_host, host, [address], OPEN) for host, address in ways]
        self.shut = [Knocking(self.net.client_host, host, [address], SHUT) for host, address in ways]
        self.right = self.picture()
        self.tried = self.fired = self.ended = self.said = 0
        self.failures = []

    def count(self, change) -> int:
        """Calls of a change during which none fails."""
        self.agent.fail_at(0)
        change()
        wait_for(self.agent.running, PATIENCE, "nothing fails, and it runs")
        count = self.agent.calls()
        differences = self.differences(self.right)
        assert not differences, differences
        return count

    def count_settled(self, change) -> int:
        """Calls of a change during which none fails and after which all stays as it is: what a look every few seconds makes
        is left out."""
        self.agent.fail_at(0)
        change()
        counted = []
        wait_for(lambda: counted.append(self.agent.calls()) or len(counted) > 3 and len(set(counted[-3:])) == 1, PATIENCE, "all calls are made", interval=0.2)
        assert counted[-1] > 0, "a change makes no call to the kernel"
        return counted[-1]

    def picture(self) -> tuple:
        seen = self.host.run(["sh", "-c", PICTURE], check=False).stdout
        status = self.agent.status()
        return (seen, len(self.agent.packet_programs()), status["BackendState"], status["Health"],
                self.says(OPEN), self.says(SHUT))

    def says(self, port: int) -> bool:
        """What the packet program in force says of the client and a port of the network."""
        return json.loads(self.agent.cli("debug", "explain", "client", f"{SERVER}:{port}/udp", "--json", check=False).stdout)["Passes"]

    def differences(self, wanted) -> list:
        """Between what is and what should be, as soon as there are none, or when time is over."""
        last = []
        lost_since = None
        def right():
            nonlocal lost_since
            last[:] = ["the agent does not answer"]
            lost_since = (lost_since or time.monotonic()) if self.is_at_a_loss() else None
            if lost_since and time.monotonic() - lost_since > LOSS_LASTS:
                return True
            last[:] = [(seen, shall) for seen, shall in zip(self.picture(), wanted) if seen != shall]
            return not last
        try:
            wait_for(right, PATIENCE, "", interval=0.1)
        except NotInTime as late:
            return last + [str(late)]
        return last

    def is_at_a_loss(self) -> bool:
        """libbpf finds out once what the kernel can do, by loading something small. Where just that fails it takes the kernel
        for one without, as long as the process lives; the agent says so, and nothing from the tailnet is let in."""
        small = self.agent.failed_call() in ("bpf 0", "bpf 5")
        return small and any("the packet programs cannot be loaded" in text for text in self.agent.status()["Health"] or [])

    def tries(self, what: str, position: int, change, wanted) -> None:
        """With a call that fails at that position a change leads to the same picture."""
        self.tried += 1
        self.agent.fail_at(position)
        began = time.monotonic()
        change()
        differences = self.differences(wanted)
        self.fired += bool(self.agent.failed_call())
        told = f"{what}: call {position}, {self.agent.failed_call() or 'none'}: {'right' if not differences else differences} after {time.monotonic() - began:.1f} s"
        print(told)
        if differences:
            if self.is_at_a_loss():
                self.said += 1
            else:
                self.failures.append(told)
            self.agent.program.kill()
            self.agent.fail_at(0)
            self.agent.start()
            assert not self.differences(wanted), f"{told}; and a new agent does not mend it"

    def start(self) -> None:
        """An agent whose call fails may end, if it says why: it is started again by whoever started it."""
        self.agent.start(wait=False)
        try:
            wait_for(lambda: not self.agent.program.alive() or self.agent.status(), PATIENCE, "the agent answers, or ends")
        except NotInTime:
            return
        if not self.agent.program.alive():
            said = self.agent.program.output()
            assert self.agent.program.wait(1) > 0 and "tailraced: " in said, said
            self.ended += 1
            self.agent.start()

    def verdict(self) -> None:
        print(f"{self.tried} positions, of which {self.fired} were reached, {self.ended} ended the agent, at {self.said} it said what is wrong, {len(self.failures)} were not mended")
        # What an agent asks for depends on when it looks; mostly a change makes as many calls as it did before.
        assert self.fired >= self.tried * 3 // 4, f"only {self.fired} of {self.tried} positions were reached"
        passed = [knocking.finish() for knocking in self.shut]
        assert passed == [0, 0], f"something forbidden passed, to the router and to the network: {passed}"
        assert not self.failures, "\n".join(self.failures)
        assert all(knocking.finish() > 0 for knocking in self.open), "nothing would have been seen"


def first_start(lab: Lab, samples: int = 5) -> None:
    story = Story(lab)
    def stop_and_start():
        story.agent.program.signal(signal.SIGTERM)
        story.agent.program.wait(20)
        is_clean(story.host, story.net.before)
        story.start()
    count = story.count(stop_and_start)
    for position in some(count, samples):
        story.tries("first start", position, stop_and_start, story.right)
    story.verdict()


def adopting_start(lab: Lab, samples: int = 5) -> None:
    story = Story(lab)
    def kill_and_start():
        story.agent.program.kill()
        story.start()
    count = story.count(kill_and_start)
    adopted = story.agent.packet_programs()
    for position in some(count, samples):
        story.tries("adopting start", position, kill_and_start, story.right)
        if story.agent.packet_programs() != adopted:
            story.failures.append(f"position {position}: what is right was made anew")
            adopted = story.agent.packet_programs()
    story.verdict()


class ExitNodeToAndFro:
    """The client is the router's exit node, and the router sends all the time to somebody in the internet."""

    def __init__(self, story: Story):
        self.cli, client = story.agent.cli, story.net.client
        for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            client.host.sysctl(setting, 1)
        client.cli("set", "--advertise-exit-node")
        wait_for(lambda: story.control.cli("nodes", "routes", "approve", "client", "0.0.0.0/0", check=False).returncode == 0, 15, "the client is an exit node")
        wait_for(lambda: story.agent.peer("client").get("ExitNodeOption"), 15, "the router knows it")
        Probes(story.host, [(SITE, 9)])
        begin = time.time()
        self.watch = LeakWatch(story.host, (CONTROL, RELAY))
        wait_for(lambda: len(self.watch.seen_since(begin)) > 20, 10, "the watch sees what leaves")
        self.closed = None

    def on(self) -> None:
        """A refused wish is repeated, as people do; when it is granted nothing leaves."""
        wait_for(lambda: self.cli("set", "--exit-node=client", check=False).returncode == 0, PATIENCE, "the exit node is chosen")
        self.closed = NothingLeaks(self.watch)

    def off(self) -> None:
        self.closed.check("an exit node, although a call failed")
        self.cli("set", "--exit-node=")


def changes(lab: Lab) -> None:
    """Of policy, routes, NAT and exit node, to and fro, in one life of an agent."""
    story = Story(lab)
    cli, set_policy = story.agent.cli, story.control.set_policy
    exit_node = ExitNodeToAndFro(story)
    story.right = story.picture()
    to_and_fro = {
        "port closed": (lambda: set_policy(OTHER_POLICY), lambda: set_policy(FAULTS_POLICY)),
        "without NAT": (lambda: cli("set", "--snat-subnet-routes=false"), lambda: cli("set", "--snat-subnet-routes=true")),
        "stateful": (lambda: cli("set", "--stateful-filtering"), lambda: cli("set", "--stateful-filtering=false")),
        "no routes": (lambda: cli("set", "--advertise-routes="), lambda: cli("set", f"--advertise-routes={LAN},{LAN6}")),
        "exit node": (exit_node.on, exit_node.off),
    }
    for what, (there, back) in to_and_fro.items():
        story.agent.fail_at(0)
        there()
        wait_for(lambda: story.picture() != story.right, PATIENCE, f"{what}: something changes")
        pictures = []
        wait_for(lambda: pictures.append(story.picture()) or len(pictures) > 5 and len(set(map(str, pictures[-5:]))) == 1, PATIENCE, "and no more")
        changed = pictures[-1]
        back()
        assert not story.differences(story.right), what
        counts = story.count_settled(there), story.count_settled(back)
        print(f"{what}: {counts[0]} calls, {counts[1]} back")
        for go, come in zip(some(counts[0], 2), some(counts[1], 2)):
            story.tries(what, go, there, changed)
            story.tries(f"back from: {what}", come, back, story.right)
    story.verdict()


def down_and_up(lab: Lab) -> None:
    story = Story(lab)

    def down():
        story.agent.cli("down")
        is_clean(story.host, story.net.before)

    def up():
        story.agent.cli("up", timeout=30)
    story.agent.fail_at(0)
    down()
    count = story.agent.calls()
    up()
    for position in some(count, 6):
        story.tried += 1
        story.agent.fail_at(position)
        down()
        story.fired += bool(story.agent.failed_call())
        print(f"down: call {position}, {story.agent.failed_call()}: nothing is left")
        story.tries("up again", position, up, story.right)
    story.verdict()


def without_nat(lab: Lab) -> None:
    """Where forwarding cannot be made nothing is forwarded, and the rest works."""
    story = Story(lab)
    agent, net = story.agent, story.net
    client = lab.hosts["client"]
    opens = lambda: tcp_opens(client, SERVER, 80) # noqa: E731
    wait_for(opens, 10, "the network is open to the client")
    agent.without("masq") # as in a kernel without NAT
    agent.cli("set", "--snat-subnet-routes=false")
    agent.cli("set", "--snat-subnet-routes=true")
    told = lambda: [text for text in agent.status()["Health"] or [] if "Nothing is forwarded" in text] # noqa: E731
    assert "make nftables table" in wait_for(told, 15, "health says so")[0]
    assert agent.running()
    assert not opens(), "the network is shut"
    assert agent.cli("ping", "-c", "1", "--tsmp", net.client.ip()).returncode == 0, "and the tunnel works"
    rules = story.host.run("nft list table inet tailrace-tailrace0-forward").stdout
    assert rules.count("drop") == 2, rules
    agent.fail_at(0)
    time.sleep(2)
    assert agent.calls() < 1500, "it does not try all the time"
    agent.program.kill()
    agent.start()
    wait_for(lambda: agent.running() and told(), 30, "a start ends in the same")
    assert not opens()
    agent.without("")
    wait_for(lambda: not told() and opens(), 60, "it is tried again")
    assert not story.differences(story.right)
    story.verdict()
