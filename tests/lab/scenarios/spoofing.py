"""Alice sends under addresses that are not hers: bob's, and one of a subnet that nobody gave her. The gateway's WireGuard
refuses what does not come from the address's own peer, before the packet programs see it: row 55 of the verdict table.
Picture: quickstart.py
"""
import json

from ..lab import Lab
from ..traffic import ping
from ..wait import wait_for
from .quickstart import Tailnet

CLOSED = 9999 # what reaches the packet programs is counted there, as refused
SPOOFED = 20
_SEND = """
import socket, sys
source, target, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_IP, 19, 1) # IP_TRANSPARENT: any source
out.bind((source, 0))
for _ in range(count):
    out.sendto(b"knock", (target, port))
"""


def run(lab: Lab) -> Tailnet:
    net = Tailnet(lab)
    net.start_control()
    net.join()
    alice, target = net.hosts["alice"], net.gateway.ip()
    wait_for(lambda: ping(alice, target, timeout=1), 15, "alice pings the gateway")

    def send(source: str, count: int) -> None:
        alice.run(["/usr/bin/python3", "-c", _SEND, source, target, CLOSED, count])

    def refused() -> int:
        return net.gateway.drops().get("no-rule", 0)

    def sent() -> int:
        return json.loads(alice.run(["ip", "-j", "-s", "link", "show", net.alice.device]).stdout)[0]["stats64"]["tx"]["packets"]

    before = refused()
    send(net.alice.ip(), 3)
    wait_for(lambda: refused() == before + 3, 10, "the gateway refuses what alice sends as herself")

    left = sent()
    for source in (net.bob.ip(), "192.168.1.7"):
        send(source, SPOOFED)
    assert sent() >= left + 2 * SPOOFED, "the forged packets did not leave alice"
    send(net.alice.ip(), 1) # behind them on the same path: when it is there, they would be
    wait_for(lambda: refused() > before + 3, 10, "alice's own packet arrives")
    assert refused() == before + 4, "a forged packet came through WireGuard"
    return net
