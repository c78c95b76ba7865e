"""Which exit node carries a client: one that is there, and one that the policy gives it. Picture: exit_node.py

The client sends all the time to the site and to the network that it is in, and everything is watched that leaves its eth0.
"""
import base64
import threading
import time

from ..traffic import LeakWatch, Probes
from ..wait import wait_for
from .exit_node import CONTROL, EXITS, PRINTER, RELAY, SITE, SITE6, ExitNet, NothingLeaks
from .subnet_router import POLICY, US

AUTO = "--exit-node=auto:any"
AWAY_SECONDS = 10 # control gives one who is away so long to come back
UNANSWERED_SECONDS = 45 # twice what WireGuard takes to answer, after what was under way
SILENT_SECONDS = 59 + 60 + AWAY_SECONDS # the next keep-alive, and that nobody confirms it for a minute (TCP_USER_TIMEOUT)
NOISE_SECONDS = 20
BARRED = POLICY.replace(', "autogroup:internet:*"', "")
OWN = '"tag:router:*"'
VIA = """{
  "tagOwners": { "tag:router": ["us@example.com"], "tag:east": ["us@example.com"] },
  "grants": [
    { "src": ["us@example.com"], "dst": ["tag:router", "tag:east"], "ip": ["*"] },
    { "src": ["us@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:WHICH"] },
  ],
}
"""


class Choice:
    def __init__(self, lab, probe_interval: float = 0.01):
        self.net = ExitNet(lab)
        self.net.join()
        self.client, self.control = self.net.client, self.net.control
        Probes(self.net.client_host, [(SITE, 9), (SITE6, 9), (PRINTER, 9)], probe_interval)
        self.watch = LeakWatch(self.net.client_host, (CONTROL, RELAY))
        begin = time.time()
        wait_for(lambda: len(self.watch.seen_since(begin)) > 20, 10, "the watch sees what leaves without an exit node")

    def use(self, setting: str) -> NothingLeaks:
        self.client.cli("set", setting)
        return NothingLeaks(self.watch)

    def chosen(self) -> str:
        return next((name for name in EXITS if self.client.peer(name).get("ExitNode")), "")

    def offered(self) -> list:
        return [name for name in EXITS if self.client.peer(name).get("ExitNodeOption")]

    def listed(self) -> dict:
        """State of each exit node by `exit-node list`; nothing where it fails because there are none."""
        done = self.client.cli("exit-node", "list", check=False)
        if done.returncode != 0:
            assert "no exit nodes found" in done.stderr, done.stderr
            return {}
        rows = (line.split(maxsplit=4) for line in done.stdout.splitlines())
        return {row[1].split(".")[0]: row[4].strip() for row in rows if len(row) == 5 and row[0].startswith("100.")}

    def told(self) -> str:
        return " ".join(self.client.status()["Health"] or [])

    def refused(self, name: str) -> str:
        done = self.client.cli("set", f"--exit-node={name}", check=False)
        assert done.returncode != 0, f"{name} was taken: {done.stdout}"
        return done.stderr


class Ends:
    """Exit nodes end, and the client uses auto:any. Without a word: their connections with control are cut, and do not end."""

    def __init__(self, lab, without_a_word: bool):
        self.lab, self.without_a_word = lab, without_a_word
        self.within = (SILENT_SECONDS if without_a_word else AWAY_SECONDS) + NOISE_SECONDS
        self.story = Choice(lab, 0.1 if without_a_word else 0.01) # minutes, that is
        self.net = self.story.net
        self.closed = self.story.use(AUTO)
        self.first = wait_for(self.story.chosen, 15, "auto:any chooses")
        self.second = next(name for name in EXITS if name != self.first)
        self.net.goes_by(self.first)

    def cut(self, name: str) -> None:
        agent = self.net.exits[name]
        if self.without_a_word:
            agent.host.set_plugged(self.lab.internet(), "eth0", "down")
        agent.program.kill()
        agent.host.run("ip link delete tailrace0", check=False) # a machine that is gone, and not an agent

    def back(self, name: str) -> None:
        agent, internet = self.net.exits[name], self.lab.internet()
        if self.without_a_word:
            agent.host.set_plugged(internet, "eth0", "up")
            agent.host.ip(f"route replace default via {internet.gateway}", f"address replace 2001:db8::{EXITS[name][1]:x}/64 dev eth0 nodad",
                          "route replace default via 2001:db8::ffff")
        agent.start()

    def the_other_one_carries_on(self) -> None:
        began = time.monotonic()
        self.cut(self.first)
        wait_for(lambda: self.story.chosen() == self.second, self.within, f"{self.second} is chosen when {self.first} is gone", interval=0.2)
        chosen = time.monotonic() - began
        self.net.goes_by(self.second)
        print(f"another exit node was chosen after {chosen:.1f} s, and carried IPv4 and IPv6 after {time.monotonic() - began:.1f} s")
        self.closed.check("the chosen exit node is gone")
        listed = self.story.listed()
        assert listed[self.second] == "selected", listed
        if self.without_a_word:
            assert chosen < UNANSWERED_SECONDS, "control does not know yet, but it did not answer"
        else:
            assert listed[self.first].startswith("offline"), listed
        assert "exit node" not in self.story.told(), self.story.told()

    def nobody_is_left(self) -> None:
        """And then one comes back."""
        self.cut(self.second)
        wait_for(lambda: "does not answer" in self.story.told(), UNANSWERED_SECONDS, "health says first that it does not answer")
        wait_for(lambda: "is offline" in self.story.told(), self.within, "there is none any more, and health says so")
        listed = self.story.listed()
        assert listed[self.second].startswith("selected but offline"), listed
        assert "offline" in next(line for line in self.net.client.cli("status").stdout.splitlines() if f" {self.second} " in line)
        assert not self.net.fetches() and not self.net.fetches(SITE6)
        self.closed.check("no exit node is there")
        self.back(self.first)
        self.net.goes_by(self.first)
        assert self.story.chosen() == self.first
        self.closed.check("one is back")


def barred(lab) -> None:
    """Who may not use the internet through exit nodes is offered none, is told so, and reaches nothing through one that it
    insists on; nor does anything leave past it."""
    story = Choice(lab)
    net, client = story.net, story.client
    assert set(story.listed()) == set(EXITS)
    story.control.set_policy(BARRED)
    wait_for(lambda: not story.offered(), 15, "there is no exit node for the client")
    assert story.listed() == {}
    assert client.peer("exit-a")["Online"], "as any other node it is there"
    assert "exit node" not in client.cli("status").stdout
    assert "not advertising an exit node" in story.refused("exit-a")
    assert "not advertising an exit node" in story.refused(client.peer("exit-a")["TailscaleIPs"][0])

    story.control.set_policy(POLICY)
    wait_for(lambda: len(story.offered()) == 2, 15, "it may again")
    for turn in range(10): # while the agent puts a policy in force that it learned of when it had no exit node
        other = threading.Timer(0.005 * turn, story.control.set_policy, [POLICY.replace(OWN, f'{OWN}, "us@example.com:{8000 + turn}"')])
        other.start()
        chosen = story.use("--exit-node=exit-a")
        other.join()
        chosen.check(f"chosen beside a new policy, turn {turn}")
        client.cli("set", "--exit-node=")
    story.control.set_policy(POLICY)
    closed = story.use("--exit-node=exit-a")
    net.goes_by("exit-a")
    story.control.set_policy(BARRED)
    wait_for(lambda: not net.fetches(), 15, "it may not any more, in the midst of it")
    wait_for(lambda: "is no exit node for us any more" in story.told(), 10, "health says so")
    assert story.listed() == {}
    assert not net.fetches(SITE6)
    closed.check("an exit node that the policy took away")

    # An agent that does not heed what control says: the exit node has the same rules.
    exit_a = next(key for key, peer in client.status()["Peer"].items() if peer["HostName"] == "exit-a")
    address = client.peer("exit-a")["TailscaleIPs"]
    before = net.exits["exit-a"].drops().get("no-rule", 0)
    force_allowed_ips(net.client_host, exit_a, [*(f"{one}/{128 if ':' in one else 32}" for one in address), "0.0.0.0/0", "::/0"])
    wait_for(lambda: net.exits["exit-a"].drops().get("no-rule", 0) > before, 10, "what it sends by force is dropped")
    assert not net.fetches()

    client.cli("set", "--exit-node=")
    wait_for(lambda: net.fetches() and net.seen_by_site() == net.home.box.address, 10, "without one, it is itself")
    client.cli("set", AUTO)
    wait_for(lambda: "No exit node is there for --exit-node=auto:any" in story.told(), 10, "there is none to choose, and that is told")
    closed = NothingLeaks(story.watch)
    assert not net.fetches()
    closed.check("auto:any without anybody to choose")
    story.control.set_policy(POLICY)
    net.goes_by(wait_for(story.chosen, 20, "it may again, and somebody is chosen"))
    closed.check("somebody to choose again")


def force_allowed_ips(host, key: str, prefixes: list) -> None:
    """What the agent would not do. It mends that at its next look."""
    public = base64.b64encode(bytes.fromhex(key.removeprefix("nodekey:"))).decode()
    host.run(["wg", "set", "tailrace0", "peer", public, "allowed-ips", ",".join(prefixes)])


def via(lab) -> None:
    """A grant with `via` says which exit nodes its sources have, to those who choose themselves and to auto:any."""
    story = Choice(lab)
    net = story.net
    closed = story.use(AUTO)
    net.goes_by(wait_for(story.chosen, 15, "auto:any chooses"))
    story.control.set_policy(VIA.replace("WHICH", "east"))
    wait_for(lambda: not story.offered(), 15, "nobody has that tag")
    story.control.cli("nodes", "tag", "exit-b", "tag:east")
    for tag, name, other in (("east", "exit-b", "exit-a"), ("router", "exit-a", "exit-b")):
        story.control.set_policy(VIA.replace("WHICH", tag))
        wait_for(lambda: story.offered() == [name] and story.chosen() == name, 20, f"{name} it is, by the policy")
        net.goes_by(name)
        assert list(story.listed()) == [name] and story.listed()[name] == "selected", story.listed()
        assert "not advertising an exit node" in story.refused(other)
        closed.check(f"only {name} may carry the client")
    assert story.client.status()["Health"] in (None, []) or "exit node" not in story.told(), story.told()
