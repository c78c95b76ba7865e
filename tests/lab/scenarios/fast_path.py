"""Flows through a router skip the host's rules once these have accepted them. Picture: subnet_router.py"""
import time

from ..traffic import Transfer
from ..wait import wait_for
from .subnet_router import LAN, POLICY, SERVER, RoutedNet

PORT = 5201
OPEN_POLICY = POLICY.replace('"192.168.7.0/24:80"', f'"192.168.7.0/24:80,{PORT}"')
# The firewall of the host's owner, which counts what it sees.
FIREWALL = """
table inet site {
    chain pass {
        type filter hook forward priority 0
        tcp dport 5201 counter
    }
}
"""


class FastNet:
    def __init__(self, lab):
        self.net = RoutedNet(lab)
        self.net.forward()
        self.net.control.set_policy(OPEN_POLICY)
        self.router = self.net.router_host
        self.router.nft(FIREWALL)
        self.net.join()
        wait_for(self.net.fetches, 15, "the client fetches from the network")

    def has_table(self) -> bool:
        return self.router.run("nft list table inet tailrace-tailrace0-fast", check=False).returncode == 0

    def seen(self) -> int:
        """Packets of transfers that the host's firewall has seen."""
        return int(self.router.run("nft list table inet site").stdout.split("counter packets ")[1].split()[0])

    def arrived(self) -> int:
        return int(self.net.server.run("cat /sys/class/net/eth0/statistics/rx_packets").stdout)

    def transfer(self, seconds: float) -> Transfer:
        transfer = Transfer(self.net.client_host, self.net.server, SERVER, seconds, PORT, "20M")
        before = self.arrived()
        wait_for(lambda: self.arrived() - before > 200, 10, "the transfer is under way")
        return transfer

    def passed_in(self, seconds: float) -> tuple:
        """(arrived at the server, seen by the firewall) in that time."""
        before = self.arrived(), self.seen()
        time.sleep(seconds)
        return self.arrived() - before[0], self.seen() - before[1]

    def lose_filter(self) -> None:
        """Neither the packet programs nor their agent are there."""
        self.router.run(f"kill -STOP {self.router.pid_inside(self.net.router.program)}")
        self.net.router.detach_packet_programs()

    def go_on(self) -> None:
        self.router.run(f"kill -CONT {self.router.pid_inside(self.net.router.program)}")

    def give_up(self, transfer: Transfer) -> None:
        transfer.client.kill()
        transfer._server.stop()


def run(lab) -> None:
    fast = FastNet(lab)
    assert fast.has_table()

    transfer = fast.transfer(12)
    time.sleep(0.5)
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen < arrived / 20, f"{seen} of {arrived} packets of an accepted flow took the long way"
    fast.router.run("nft add table inet other") # a change of rules, whatever it says
    fast.router.run("nft add chain inet other look { type filter hook forward priority 5; }")
    time.sleep(0.5)
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen < arrived / 20, "accepted again, it is fast again"
    fast.net.router.program.kill()
    wait_for(lambda: not fast.has_table(), 5, "nobody watches the rules, so there is no fast path")
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen > arrived / 4, "it goes on, the long way"
    fast.net.router.start()
    wait_for(fast.has_table, 15, "the agent is back, and with it the fast path")
    assert transfer.finish()["bits_per_second"] > 15e6

    # Of a rule for one direction the other's packets that are under way know nothing: more than once.
    rule = ("a rule", lambda: fast.router.run("nft insert rule inet site pass tcp dport 5201 drop"),
            lambda: fast.router.nft("delete table inet site\n" + FIREWALL))
    for what, close, reopen in (rule, rule, rule, ("a lost filter", fast.lose_filter, fast.go_on)):
        transfer = fast.transfer(30)
        time.sleep(1)
        close()
        time.sleep(1)
        arrived, _ = fast.passed_in(2)
        assert arrived < 30, f"{what} closes a flow that was fast, and {arrived} packets passed"
        reopen()
        fast.give_up(transfer)
        wait_for(fast.net.fetches, 20, f"after {what}, all is as before")


def one_way(lab) -> None:
    """A firewall that lets requests out and no replies in: nothing becomes fast."""
    fast = FastNet(lab)
    fast.router.nft("table inet oneway { \n chain replies { \n type filter hook forward priority 1; \n iifname lan0 udp sport 9 drop \n } \n }")
    python = "/usr/bin/python3"
    fast.net.control.set_policy(POLICY.replace('"192.168.7.0/24:80"', '"192.168.7.0/24:80,9"'))
    echo = fast.net.server.start("echo", [python, "-c", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 9))\nprint('ready', flush=True)\nwhile True:\n    d, a = s.recvfrom(2000)\n    s.sendto(d, a)"])
    echo.wait_for_output("ready")
    heard = fast.net.client_host.start("ask", [python, "-c", f"import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(0.01)\nn = 0\nfor i in range(300):\n    s.sendto(b'?', ('{SERVER}', 9))\n    try:\n        s.recv(100)\n        n += 1\n    except OSError:\n        pass\nprint('heard', n, flush=True)"])
    heard.wait_for_output(r"heard (\d+)", 30)
    assert heard.output().split()[-1] == "0", heard.output()
