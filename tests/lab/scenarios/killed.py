"""An agent with an exit node is killed in the midst of its start, of a change of exit nodes and of its stop: nothing leaves past
the tunnel, and the next agent goes on from there. Picture: exit_node.py

Between two calls to the kernel nothing changes for a packet, so it is killed at calls: some of each change, by chance,
TAILRACE_SEED=NUMBER other ones. A stop makes few of them, or none; there it is killed at moments.
"""
import os
import random
import signal
import time

from ..faults import FaultyAgent
from ..traffic import LeakWatch, Probes
from ..wait import NotInTime, wait_for
from .exit_node import CONTROL, PRINTER, RELAY, RESOLVER, SITE, SITE6, ExitNet

SEED = int(os.environ.get("TAILRACE_SEED", "1"))
DEAD_SECONDS = 0.2 # in which a hundred packets want to leave
PATIENCE = 20


class Story:
    def __init__(self, lab):
        self.net = ExitNet(lab, client_is=lambda host: FaultyAgent(host, more=["--no-port-mapping"]))
        self.host, self.agent = self.net.client_host, self.net.client
        self.net.join()
        Probes(self.host, [(SITE, 9), (SITE6, 9), (PRINTER, 9), (RESOLVER, 53), ("fd00:1::20", 9)])
        self.watch = LeakWatch(self.host, (CONTROL, RELAY))
        begin = time.time()
        wait_for(lambda: len(self.watch.seen_since(begin)) > 20, 10, "the watch sees what leaves without an exit node")
        self.agent.cli("set", "--exit-node=exit-a")
        self.since = time.time()
        self.net.goes_by("exit-a")
        self.chance = random.Random(SEED)
        self.moments = [] # (when it was tried, what)
        self.tried = self.reached = 0

    def dies_in(self, what: str, change, prepare, samples: int) -> None:
        """`change` begins in the state that `prepare` makes, with an agent running or not, as it likes."""
        prepare()
        self.agent.fail_at(0)
        change()
        count = self.settled()
        for position in sorted(self.chance.sample(range(1, count + 1), samples)):
            self.alive()
            prepare()
            self.agent.kill_at(position)
            self.moments.append((time.time(), f"{what}, call {position} of {count}"))
            change()
            try:
                wait_for(lambda: not self.agent.program.alive(), 3, "it is killed")
            except NotInTime: # fewer calls than before
                pass
            self.tried += 1
            self.reached += bool(self.agent.failed_call())
            print(f"{self.moments[-1][1]}: {self.agent.failed_call() or 'not reached'}")
            time.sleep(DEAD_SECONDS)
        self.alive()

    def dies_in_its_stop(self, samples: int) -> None:
        self.alive()
        began = time.monotonic()
        self.agent.program.stop()
        took = time.monotonic() - began
        for moment in sorted(self.chance.uniform(0, took) for _ in range(samples)):
            self.alive()
            self.moments.append((time.time(), f"a stop, {moment * 1000:.1f} ms of {took * 1000:.1f}"))
            self.agent.program.signal(signal.SIGTERM)
            time.sleep(moment)
            self.agent.program.kill()
            print(self.moments[-1][1])
            time.sleep(DEAD_SECONDS)
        self.alive()

    def settled(self) -> int:
        """Calls since they are counted, when there are no more for a while, or the agent has ended."""
        counted = []
        wait_for(lambda: counted.append(self.agent.calls()) or len(counted) > 3 and len(set(counted[-3:])) == 1, PATIENCE, "all calls are made", interval=0.2)
        assert counted[-1] > 20, f"only {counted[-1]} calls are made"
        return counted[-1]

    def alive(self) -> None:
        """An agent that nobody kills, and the client is carried by an exit node."""
        self.agent.fail_at(0)
        if self.agent.program.alive():
            self.agent.program.kill()
        self.agent.start()
        wait_for(lambda: self.net.fetches() and self.net.seen_by_site() != self.net.home.box.address, PATIENCE, "an exit node carries the client")

    def verdict(self) -> None:
        time.sleep(0.5) # so that what left is printed
        assert self.watch.alive()
        leaked = self.watch.seen_since(self.since)
        told = [f"{line}  [{self.at(float(line.split()[0]))}]" for line in leaked[:10]]
        assert not leaked, f"TAILRACE_SEED={SEED}: {len(leaked)} packets left past the tunnel, the first ones:\n" + "\n".join(told)
        print(f"TAILRACE_SEED={SEED}: killed at {self.reached} of {self.tried} positions, and nothing left past the tunnel")
        assert self.reached >= self.tried // 2, f"only {self.reached} of {self.tried} positions were reached"

    def at(self, moment: float) -> str:
        return next((what for when, what in reversed(self.moments) if when <= moment), "before the first")


def run(lab, samples: int = 5) -> None:
    """So many positions of each change."""
    story = Story(lab)
    agent, host = story.agent, story.host

    def without_device() -> None:
        """As after a boot and `tailraced --close`."""
        agent.program.kill()
        host.ip("link delete tailrace0")
    wanted = []

    def the_other_one() -> None:
        wanted.append("exit-a" if agent.peer("exit-b").get("ExitNode") else "exit-b")
    story.dies_in("a start that adopts", lambda: agent.start(wait=False), prepare=lambda: agent.program.kill(), samples=samples)
    story.dies_in("a change of exit nodes", lambda: agent.cli("set", f"--exit-node={wanted[-1]}", check=False), prepare=the_other_one, samples=samples)
    story.dies_in_its_stop(samples)
    story.dies_in("a start without a device", lambda: agent.start(wait=False), prepare=without_device, samples=samples)
    story.verdict()
