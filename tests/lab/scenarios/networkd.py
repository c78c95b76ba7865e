"""systemd-networkd is restarted on a machine whose agent uses an exit node: what is of the agent stays, or is back at once.

Picture: exit_node.py; systemd-networkd is on the client. When it configures a link it removes the policy rules, and the
routes without a device, that are not from its own files, unless it is told not to; our package tells it.
"""
import re
import signal
import time

from ..networkd import Networkd
from ..traffic import LeakWatch, Ping, Probes
from ..wait import NotInTime, wait_for
from .exit_node import CONTROL, PRINTER, RELAY, SITE, SITE6, ExitNet, NothingLeaks

OURS = """ip rule; ip -6 rule; ip route show table 52; ip -6 route show table 52
ip -br address show dev tailrace0 | busybox sed 's, fe80::[^ ]*,,'"""
CATCH_ALL = "20-all.network", "[Match]\nName=!sit0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n" # sit0, where a kernel has it, has a network of its own once it is up
LANS = ("192.168.1.0/24", "fd00:1::/64")
INTERVAL = 0.02


class Story:
    def __init__(self, lab, shipped: bool, files=()):
        self.net = ExitNet(lab)
        host = self.host = self.net.client_host
        self.networkd = Networkd(host, {"192.168.1.10/24": "192.168.1.1", "fd00:1::10/64": "fd00:1::1"}, shipped, files)
        self.net.join()
        Probes(host, [(SITE, 9), (SITE6, 9), (PRINTER, 9)])
        self.watch = LeakWatch(host, (CONTROL, RELAY))
        begin = time.time()
        wait_for(lambda: len(self.watch.seen_since(begin)) > 20, 10, "the watch sees what leaves without an exit node")
        self.net.client.cli("set", "--exit-node=exit-a")
        self.closed = NothingLeaks(self.watch)
        self.net.goes_by("exit-a")
        self.before = self.ours()
        assert self.before.count("5270:") == 2 and self.before.count("unreachable default") == 2, self.before
        self.ping = Ping(host, self.net.client.peer("exit-a")["TailscaleIPs"][0], INTERVAL)
        self.ping.wait_for_reply()
        self.monitor = host.start("monitor", "ip monitor rule route address link")

    def ours(self) -> str:
        return self.host.run(["sh", "-c", OURS]).stdout

    def is_as_before(self) -> None:
        differences = lambda: set(self.ours().splitlines()) ^ set(self.before.splitlines()) # noqa: E731
        try:
            wait_for(lambda: not differences(), 10, "rules, routes and addresses are those from before")
        except NotInTime:
            raise AssertionError(f"otherwise than before: {differences()}") from None

    def gone(self) -> list:
        """What of ours was taken away, for however long. The routes of the networks at home come and go with those."""
        lines = [line for line in self.monitor.output().splitlines() if line.startswith("Deleted")]
        return [line for line in lines if re.search(r"52|0x80000|tailrace0", line) and not any(lan in line for lan in LANS)]

    def restarts(self) -> dict:
        """Twice, in both ways. Returns the pings through the tunnel that were lost."""
        for by in (signal.SIGUSR2, signal.SIGTERM):
            self.networkd.restart(by)
            self.is_as_before()
            self.net.goes_by("exit-a")
        return self.ping.lost()


def told(lab) -> None:
    """With the files of our package nothing of ours is gone at any moment, also where another file is for all devices."""
    story = Story(lab, shipped=True, files=[CATCH_ALL])
    lost = story.restarts()
    assert story.gone() == [], f"taken away: {story.gone()}"
    story.closed.check("systemd-networkd was restarted")
    assert lost["lost"] * INTERVAL < 1, lost
    print(f"with our files: {lost['lost']} of {lost['sent']} pings lost")


def not_told(lab) -> None:
    """Without them it takes away what it can, and the agent puts it back."""
    story = Story(lab, shipped=False)
    lost = story.restarts()
    gone = story.gone()
    assert sum("52" in line for line in gone) >= 2, f"nothing was taken away, and so nothing was tried: {gone}"
    assert lost["lost"] * INTERVAL < 5, lost
    print(f"without our files: {len(gone)} rules and routes were taken away and put back, {lost['lost']} of {lost['sent']} pings lost")
