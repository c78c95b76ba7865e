"""As paths.py, where every node can ask two STUN servers and so knows what kind of NAT it is behind.

      control 203.0.113.1    relay 203.0.113.2, relay-2 203.0.113.3
             |                     |
    ---------+---------------------+------------+-----------------+------ the internet
                                                |                 |
                                             nat-a             nat-b        one easy, the other hard
                                                |                 |
                                              alice              bob
"""
import json
import time

from .paths import Net
from ..tailrace import Agent, TailraceRelay
from ..traffic import Ping
from ..wait import wait_for

SECOND = "203.0.113.3"

# For the box of a NAT: an ICMP error for everything that nobody inside asked for.
REFUSE = """
table ip refuse {
    chain in { type filter hook input priority -10; iifname "eth0" ip protocol udp ct state new reject with icmp port-unreachable; }
}
"""
# Counts the UDP datagrams that reach a NAT's box from outside, but for the relay's.
WATCH = """
table ip watch {
    counter seen { packets 0 bytes 0 }
    chain in { type filter hook prerouting priority -400; iifname "eth0" ip protocol udp ip saddr != { 203.0.113.2, 203.0.113.3 } counter name seen; }
}
"""


# What `conntrack -F` does: IPCTNL_MSG_CT_DELETE of everything.
FORGET = """
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))
assert struct.unpack_from("=i", s.recv(4096), 16)[0] == 0
"""


class TwoRelays(TailraceRelay):
    """The second one is nobody's home and only asked by STUN."""

    def __init__(self, host):
        super().__init__(host)
        self.second = TailraceRelay(host.lab.host("relay-2", address=SECOND))
        region = self.second.derp_map["Regions"]["900"]
        node = {**region["Nodes"][0], "Name": "901a", "RegionID": 901}
        self.derp_map["Regions"]["901"] = {**region, "RegionID": 901, "Nodes": [node]}
        self.derp_map["HomeParams"] = {"RegionScore": {"901": 1000}}


class HardNet(Net):
    def __init__(self, lab, alice: str, bob: str, bob_is=Agent):
        super().__init__(lab, alice, bob, bob_is=bob_is, relay_is=TwoRelays)

    def node(self, name: str):
        return {"alice": self.alice, "bob": self.bob}[name]

    def is_direct(self) -> bool:
        return self.alice.direct_to("bob").startswith("203.0.113.") and self.bob.direct_to("alice").startswith("203.0.113.")

    def becomes_direct(self, timeout: float) -> bool:
        try:
            wait_for(self.is_direct, timeout, "both are direct")
        except AssertionError:
            return False
        return True

    def start_over(self) -> None:
        """The NATs forget, and so do the nodes."""
        for node in (self.alice, self.bob):
            node.cli("down")
            node.program.stop()
        for nat in self.nats.values():
            nat.box.run(["/usr/bin/python3", "-c", FORGET])
        for node in (self.alice, self.bob):
            node.start()
            node.up(self.control.url, self.control.create_key("us"))
        wait_for(lambda: self.relay_clients() == 2, 20, "both are connected to the relay")

    def refuse(self, side: str) -> None:
        self.nats[side].box.nft(REFUSE)

    def watch_nat(self, side: str):
        self.nats[side].box.nft(WATCH)
        return self.nats[side].box

    def count(self, box) -> int:
        listed = json.loads(box.run("nft -j list counter ip watch seen").stdout)["nftables"]
        return next(entry["counter"]["packets"] for entry in listed if "counter" in entry)

    def moves(self, name: str) -> list:
        """The ports that the programs move on a host, from the pinned map."""
        host = self.hosts[name]
        pin = host.run(["busybox", "sh", "-c", "ls -d /sys/fs/bpf/tailrace/v*/tailrace0*-steer*/tr_moves 2>/dev/null"], check=False).stdout.split()
        if not pin:
            return []
        return [entry["value"] for entry in json.loads(host.run(["bpftool", "-j", "map", "dump", "pinned", pin[0]]).stdout)]


def other(side: str) -> str:
    return {"alice": "bob", "bob": "alice"}[side]


def a_path_ends_when_it_is_switched_off(net: HardNet, side: str, by_the_next_agent: bool = False) -> None:
    pings = Ping(net.hosts["alice"], net.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    assert net.becomes_direct(20)
    if by_the_next_agent:
        net.node(side).program.kill()
        net.node(side).start()
        net.node(side).program.wait_for_output("connected to a relay", 10) # or what it relays has nowhere to go
        assert net.becomes_direct(5)
    net.node(side).cli("set", "--hard-nat-traversal=false")
    wait_for(lambda: not net.node(side).direct_to(other(side)), 5, "who was told is relayed at once")
    # The other when its trust has ended, after 6.5 s; until then its packets draw the first one's WireGuard after them.
    def both_relay_for_a_while() -> bool:
        return all(time.sleep(0.2) or not net.node(name).direct_to(other(name)) for _ in range(5) for name in ("alice", "bob"))
    wait_for(both_relay_for_a_while, 20, "both are relayed")
    assert not net.becomes_direct(8)
    pings.finish() # none was lost
