"""Flows through a router skip the host's rules once these have accepted them. Picture: subnet_router.py"""
import json
import time

from ..tailrace import AGENT_SOCKET, TAILRACE
from ..traffic import Ping, Transfer
from ..wait import NotInTime, wait_for
from .subnet_router import LAN, POLICY, SERVER, SERVER6, RoutedNet

PORT = 5201
OPEN_POLICY = POLICY.replace('"192.168.7.0/24:80"', f'"192.168.7.0/24:80,{PORT}"')
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    s.sendto(*s.recvfrom(65535))
"""
# The firewall of the host's owner, which counts what it sees.
FIREWALL = """
table inet site {
    chain pass {
        type filter hook forward priority 0
        tcp dport 5201 counter
    }
}
"""


# The same for datagrams too.
FIREWALL_OF_ALL = FIREWALL.replace("tcp dport 5201", "meta l4proto { tcp, udp } th dport { 5201, 5202 }")


class FastNet:
    def __init__(self, lab, policy: str = OPEN_POLICY, firewall: str = FIREWALL):
        self.net = RoutedNet(lab)
        self.net.forward()
        self.net.control.set_policy(policy)
        self.router = self.net.router_host
        self.router.nft(firewall)
        self.net.join()
        wait_for(self.net.fetches, 15, "the client fetches from the network")

    def has_table(self) -> bool:
        return self.router.run("nft list table inet tailrace-tailrace0-fast", check=False).returncode == 0

    def seen(self) -> int:
        """Packets of transfers that the host's firewall has seen."""
        return int(self.router.run("nft list table inet site").stdout.split("counter packets ")[1].split()[0])

    def arrived(self) -> int:
        return int(self.net.server.run("cat /sys/class/net/eth0/statistics/rx_packets").stdout)

    def transfer(self, seconds: float, address: str = SERVER) -> Transfer:
        transfer = Transfer(self.net.client_host, self.net.server, address, seconds, PORT, "20M")
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

    transfer = fast.transfer(20)
    time.sleep(0.5)
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen < arrived / 20, f"{seen} of {arrived} packets of an accepted flow took the long way"
    fast.router.run("nft add table inet other") # a change of rules, whatever it says
    fast.router.run("nft add chain inet other look { type filter hook forward priority 5; }")
    time.sleep(0.5)
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen < arrived / 20, "accepted again, it is fast again"
    through = Ping(fast.net.client_host, SERVER)
    through.wait_for_reply()
    fast.net.router.program.kill()
    wait_for(lambda: not fast.has_table(), 5, "nobody watches the rules, so there is no fast path")
    arrived, seen = fast.passed_in(2)
    assert arrived > 500 and seen > arrived / 4, "it goes on, the long way"
    fast.net.router.start()
    wait_for(fast.has_table, 15, "the agent is back, and with it the fast path")
    fast.net.router.program.stop()
    fast.net.router.start()
    wait_for(fast.has_table, 15, "the same after an orderly restart")
    assert "\ntailrace_fast_path_in_force 1\n" in fast.net.router.cli("metrics").stdout
    print(f"{through.finish()} pings through the router, over the death of its agent and a restart")
    assert transfer.finish()["bits_per_second"] > 15e6

    slow_packets(fast)

    # Of a rule for one direction the other's packets that are under way know nothing: more than once.
    # What answers a packet of ours goes on passing, fast or not: so all is revoked, and the client is nobody's peer.
    revoked = ("a policy that revokes", lambda: fast.net.control.set_policy(POLICY.split('"acls"')[0] + '"acls": [] }'), lambda: fast.net.control.set_policy(OPEN_POLICY))
    route = ("a route", lambda: fast.router.ip(f"route add prohibit {SERVER}/32"), lambda: fast.router.ip(f"route delete prohibit {SERVER}/32"))
    rule = ("a rule", lambda: fast.router.run("nft insert rule inet site pass tcp dport 5201 drop"),
            lambda: fast.router.nft("delete table inet site\n" + FIREWALL))
    # Of an object that routes name these tell nothing where the kernel is set so.
    fast.router.sysctl("net.ipv4.nexthop_compat_mode", 0)
    fast.router.ip("nexthop add id 7 dev lan0", f"route add {SERVER}/32 nhid 7 src 192.168.7.1")
    nexthop = ("a nexthop object", lambda: fast.router.ip("nexthop replace id 7 blackhole"), lambda: fast.router.ip("nexthop delete id 7")) # and its route
    for what, close, reopen in (nexthop, rule, rule, revoked, route, ("a lost filter", fast.lose_filter, fast.go_on)):
        transfer = fast.transfer(30)
        time.sleep(1)
        close()
        time.sleep(1)
        arrived, _ = fast.passed_in(2)
        assert arrived < 30, f"{what} closes a flow that was fast, and {arrived} packets passed"
        reopen()
        fast.give_up(transfer)
        wait_for(fast.net.fetches, 20, f"after {what}, all is as before")


UDP_PORT = 5202
POLICY_OF_ALL = POLICY.replace('"192.168.7.0/24:80"', f'"192.168.7.0/24:80,{UDP_PORT}"').replace('"fd00:7::/64:80"', f'"fd00:7::/64:80,{PORT},{UDP_PORT}"')
ECHO_OF_BOTH = ECHO.replace("AF_INET,", "AF_INET6,")
# 250 datagrams a second, and whatever comes back is read.
TALK = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
s.connect((sys.argv[1], int(sys.argv[2])))
while True:
    for call in (lambda: s.send(bytes(500)), lambda: s.recv(2000)):
        try:
            call()
        except OSError:
            pass
    time.sleep(0.004)
"""


def other_flows(lab) -> None:
    """TCP over IPv6, and datagrams over both: fast, fast again after a change, and ended by a firewall or a policy that ends them."""
    fast = FastNet(lab, POLICY_OF_ALL, FIREWALL_OF_ALL)
    net, python = fast.net, "/usr/bin/python3"
    net.server.start("echo", [python, "-c", ECHO_OF_BOTH, UDP_PORT]).wait_for_output("ready")
    wait_for(lambda: net.fetches(SERVER6), 15, "the same over IPv6")

    def datagrams(address: str):
        talk = net.client_host.start(f"talk-{address.replace(':', '.')}", [python, "-c", TALK, address, UDP_PORT])
        before = fast.arrived()
        wait_for(lambda: fast.arrived() - before > 100, 10, "datagrams arrive")
        return talk.kill

    def stream():
        transfer = fast.transfer(90, SERVER6)
        return lambda: fast.give_up(transfer)

    def is_fast(what: str) -> None:
        def passes() -> bool:
            counted[:] = fast.passed_in(1)
            return counted[0] > 100 and counted[1] < counted[0] / 20
        counted = []
        try:
            wait_for(passes, 10, "")
        except NotInTime:
            raise AssertionError(f"{what}: of {counted[0]} packets {counted[1]} took the long way") from None
        print(f"{what}: of {counted[0]} packets {counted[1]} took the long way")

    drop = (lambda: fast.router.run(f"nft insert rule inet site pass meta l4proto {{ tcp, udp }} th dport {{ {PORT}, {UDP_PORT} }} drop"),
            lambda: fast.router.nft("delete table inet site\n" + FIREWALL_OF_ALL))
    revoke = (lambda: net.control.set_policy(POLICY.split('"acls"')[0] + '"acls": [] }'), lambda: net.control.set_policy(POLICY_OF_ALL))
    for what, begin in (("TCP over IPv6", stream), ("UDP", lambda: datagrams(SERVER)), ("UDP over IPv6", lambda: datagrams(SERVER6))):
        end = begin()
        is_fast(what)
        fast.router.run("nft add table inet other") # a change of rules, whatever it says
        fast.router.run("nft add chain inet other look { type filter hook forward priority 5; }")
        is_fast(f"{what}, accepted again")
        fast.router.run("nft delete table inet other")
        for how, (close, reopen) in (("the firewall", drop), ("the policy", revoke)):
            close()
            wait_for(lambda: fast.passed_in(1)[0] < 15, 10, f"{how} ends what was fast: {what}")
            reopen()
            wait_for(lambda: net.fetches() and net.fetches(SERVER6), 20, "all is as before")
            if begin is stream: # TCP may wait for long before it tries again
                end()
                end = begin()
            is_fast(f"{what}, after {how}")
        end()


# A UDP flow to the echo of the server, fast after some datagrams, and what of it is out of the ordinary: with options, in
# fragments, with an answer that is larger than the tunnel (the server is told, and the next one is in fragments), with TTL 1
# (an ICMP error is the right answer), for a neighbour that the router does not know any more.
_FLOW = """
import errno, os, socket, sys, time
server, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((server, port))
s.settimeout(2)
def echoed(data):
    for _ in range(3):
        try:
            s.send(data)
            while True:
                got = s.recv(65535)
                if got == data:
                    return True
        except (TimeoutError, OSError):
            pass
    return False
def plain(what):
    for i in range(40):
        if not echoed(b"%s %d" % (what.encode(), i)):
            sys.exit("lost: " + what)
plain("first")
s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0])) # record route
print("options", echoed(b"with options"), flush=True)
s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
plain("after options")
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_RECVERR = 10, 0, 11
s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
print("large", echoed(b"l" * 1400), flush=True)
print("fragments", echoed(b"f" * 3000), flush=True)
plain("after fragments")
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
print("near", echoed(b"TTL 2"), flush=True)
s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
s.send(b"TTL 1")
try:
    s.recv(100)
    print("expired no", flush=True)
except OSError as error: # told by the router
    print("expired", error.errno == errno.EHOSTUNREACH, flush=True)
s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
plain("after TTL 1")
print("go", flush=True)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
print("neighbour", echoed(b"whom nobody knows at the moment"), flush=True)
"""


EXCHANGED_BYTES = 2_000_000
# That much to the server and back, over a connection that the server ends when the client has no more to say. The client tells
# what its kernel has counted until then (struct tcp_info: segs_out, segs_in), and whether anything was sent twice.
_EXCHANGE = """
import socket, struct, sys, time
SIZE, PORT = int(sys.argv[1]), int(sys.argv[2])
def receive_all(s):
    left = SIZE
    while left:
        left -= len(s.recv(min(left, 1 << 20))) or sys.exit("ended")
def info(s, layout, offset):
    return struct.unpack_from(layout, s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), offset)
if len(sys.argv) == 3:
    listener = socket.create_server(("", PORT))
    print("serving", flush=True)
    while True:
        s, _ = listener.accept()
        receive_all(s)
        s.sendall(bytes(SIZE))
        s.recv(1)
        print("sent twice", *info(s, "Q", 208), flush=True)
        s.close()
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[4])))
s.settimeout(20)
s.connect((sys.argv[3], PORT))
s.sendall(bytes(SIZE))
receive_all(s)
time.sleep(0.3) # acknowledgements that wait for company
print("counted", *info(s, "II", 136), *info(s, "Q", 208), flush=True)
s.shutdown(socket.SHUT_WR)
s.recv(1)
"""
SYN_HEADERS, HEADERS = 20 + 40, 20 + 32 # IPv4 and TCP: with all options of a first segment; with time stamps only


class LargePackets:
    """Packets of transfers that are several segments in one: what GRO joined, GSO keeps together."""

    def __init__(self, host, device: str, direction: str, name: str):
        self._program = host.start(name, ["tcpdump", "-i", device, "-Q", direction, "-n", "-q", "-l", "--immediate-mode", f"tcp port {PORT} and greater 3000"])
        self._program.wait_for_output("listening on")

    def finish(self) -> int:
        self._program.stop()
        return self._program.output().count(" > ")


def flow_events(fast: FastNet, is_fast: bool) -> None:
    """Who watches flows is told the same of one that is fast: that it begins and ends, and each packet and byte."""
    net = fast.net
    net.client_host.sysctl("net.ipv4.tcp_tw_reuse", 1) # the same ports again
    # On a machine with one processor each packet is decrypted and handed over by itself, and GRO has nothing to join: wait for some.
    fast.router.run(["sh", "-c", "echo 2000000 >/sys/class/net/tailrace0/gro_flush_timeout"])
    python = "/usr/bin/python3"
    server = net.server.start(f"exchange-{is_fast}", [python, "-c", _EXCHANGE, EXCHANGED_BYTES, PORT])
    server.wait_for_output("serving")
    for attempt in range(4):
        name, port = f"{is_fast}-{attempt}", 40000 + attempt
        watch = fast.router.start(f"top-{name}", [TAILRACE, "--socket", AGENT_SOCKET, "debug", "top", "--json"])
        watch.wait_for_output("FlowCount")
        large = [LargePackets(net.server, "eth0", "in", f"large-up-{name}"), LargePackets(fast.router, "tailrace0", "out", f"large-down-{name}")]
        before = fast.seen()
        client = net.client_host.start(f"exchange-{name}", [python, "-c", _EXCHANGE, EXCHANGED_BYTES, PORT, SERVER, port])
        client.wait_for_output("counted", 30)
        assert client.wait(10) == 0, client.output()

        def told():
            lines = [json.loads(line) for line in watch.output().splitlines()]
            found = [(line, flow) for line in lines for flow in line["Flows"] if flow["Remote"] == f"{net.client.ip()}:{port}" and flow["Closed"]]
            return found[-1] if len(found) > 1 else None # once more, for what came after the first FIN
        line, flow = wait_for(told, 10, "the flow begins and ends")
        watch.stop()
        kept = [one.finish() for one in large]
        passed = fast.seen() - before
        sent, received, twice = (int(word) for word in client.output().split()[1:])
        twice += int(server.output().split()[-1])
        if twice == 0:
            break
        print(f"{twice} bytes were sent twice: of that the two ends and the middle know different things, so once more")
    else:
        raise AssertionError("never without a segment sent twice")
    server.kill()
    print(f"{'fast' if is_fast else 'the long way'}: the client counted {sent} out, {received} in; {passed} seen by the firewall; of several segments, up and down: {kept}; told: {flow}")
    assert (passed < sent / 20) == is_fast, f"{passed} packets took the long way"
    assert line["EventsLost"] == line["PacketsUncounted"] == 0, line
    assert (flow["Protocol"], flow["Local"], flow["Peer"], flow["OpenedBy"]) == ("tcp", f"{SERVER}:{PORT}", "client", "peer"), flow
    assert flow["RuleText"] and flow["Rule"] is not None, flow
    # Since the client told: its FIN and the acknowledgement of the server's; that FIN, and maybe an acknowledgement before it.
    assert flow["InPackets"] - sent == 2 and flow["OutPackets"] - received in (1, 2), flow
    for direction in ("In", "Out"):
        headers = HEADERS * (flow[direction + "Packets"] - 1) + SYN_HEADERS
        assert flow[direction + "Bytes"] - headers == EXCHANGED_BYTES, flow
    assert min(kept) > 20, f"packets of several segments that the router sent to its network and into the tunnel: {kept}"


def slow_packets(fast: FastNet) -> None:
    """What the fast path does not take goes the long way in the midst of a fast flow; and the tailnet's counters are the same."""
    python, net = "/usr/bin/python3", fast.net
    net.control.set_policy(OPEN_POLICY.replace(f"80,{PORT}", f"80,{PORT},7"))
    net.server.start("echo-7", [python, "-c", ECHO, 7]).wait_for_output("ready")
    net.client_host.run("ping -c 1 -W 5 " + net.router.ip())
    rules = lambda: sum(one["Packets"] for one in json.loads(net.router.cli("debug", "drops", "--json").stdout)["Rules"]) # noqa: E731
    counted = {}
    for is_fast in (True, False):
        if not is_fast:
            net.router.program.kill()
            net.router.more = ("--no-fast-path",)
            net.router.start()
            wait_for(lambda: net.fetches() and not fast.has_table(), 20, "without a fast path")
        flow_events(fast, is_fast)
        before = rules()
        sign = net.client_host.directory / f"flushed-{is_fast}"
        flow = net.client_host.start(f"flow-{is_fast}", [python, "-c", _FLOW, SERVER, 7, sign])
        flow.wait_for_output("go", 40)
        fast.router.run("ip neigh flush dev lan0")
        sign.touch()
        flow.wait_for_output("neighbour (True|False)", 20)
        counted[is_fast] = rules() - before
        said = flow.output().split()
        assert said == "options True large True fragments True near True expired True go neighbour True".split(), said
    print("packets that the rules of the policy counted, fast and not:", counted)
    assert abs(counted[True] - counted[False]) <= 6, counted # a datagram may have been repeated
    net.router.program.kill()
    net.router.more = ()
    net.router.start()
    net.control.set_policy(OPEN_POLICY)
    wait_for(lambda: net.fetches() and fast.has_table(), 20, "all is as before")


def rules_that_change_without_a_word(lab) -> None:
    fast = FastNet(lab)
    wait_for(fast.has_table, 10, "there is a fast path")
    fast.router.nft("table inet hours { \n chain pass { \n type filter hook forward priority 1; \n meta hour 00:00-23:59 accept \n } \n }")
    wait_for(lambda: not fast.has_table(), 10, "a rule asks the time")
    assert "asks the time" in fast.net.router.program.output()
    fast.router.nft("delete table inet hours")
    wait_for(fast.has_table, 10, "nothing is in the way any more")


def one_way(lab) -> None:
    """A firewall that lets requests out and no replies in: nothing becomes fast."""
    fast = FastNet(lab)
    fast.router.nft("table inet oneway { \n chain replies { \n type filter hook forward priority 1; \n iifname lan0 udp sport 9 drop \n } \n }")
    python = "/usr/bin/python3"
    fast.net.control.set_policy(POLICY.replace('"192.168.7.0/24:80"', '"192.168.7.0/24:80,9"'))
    fast.net.server.start("echo", [python, "-c", ECHO, 9]).wait_for_output("ready")
    heard = fast.net.client_host.start("ask", [python, "-c", f"import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(0.01)\nn = 0\nfor i in range(300):\n    s.sendto(b'?', ('{SERVER}', 9))\n    try:\n        s.recv(100)\n        n += 1\n    except OSError:\n        pass\nprint('heard', n, flush=True)"])
    heard.wait_for_output(r"heard (\d+)", 30)
    assert heard.output().split()[-1] == "0", heard.output()
