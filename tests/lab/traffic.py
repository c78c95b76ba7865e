"""Traffic that tests send and measure: pings with loss counted, iperf3, a small web server, plain datagrams."""
import json
import re
import signal

from .program import CommandFailed, Program
from .wait import NotInTime, wait_for


IN_FLIGHT_SECONDS = 0.2


class PacketsLost(AssertionError):
    pass


class Ping:
    """A ping that runs until it is asked for its losses."""

    def __init__(self, host, target: str, interval: float = 0.01):
        self.interval = interval
        self._program: Program = host.start(f"ping-{target.replace(':', '.')}", ["ping", "-n", "-i", str(interval), "-O", target])

    def wait_for_reply(self, timeout: float = 10) -> None:
        wait_for(lambda: "bytes from" in self._program.output(), timeout, f"{self._program.name} gets a reply")

    def unanswered(self) -> int:
        return self._program.output().count("no answer yet")

    def answered(self) -> int:
        return self._program.output().count("bytes from")

    def stop(self) -> None:
        """Whatever was lost."""
        self._program.signal(signal.SIGINT)
        self._program.wait(15)

    def lost(self) -> dict:
        """Stops it and counts: {"sent", "lost", "first_lost"}. Those still on their way at the end are not lost."""
        self._program.signal(signal.SIGINT)
        self._program.wait(15)
        text = self._program.output()
        counted = re.search(r"(\d+) packets transmitted", text)
        if counted is None:
            raise CommandFailed(f"{self._program.name} printed no statistics:\n{text[-1000:]}")
        sent = int(counted[1])
        replied = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", text)}
        last = max(replied, default=0)
        lost = [number for number in range(1, last) if number not in replied]
        if sent - last > max(1, IN_FLIGHT_SECONDS / self.interval):
            lost += range(last + 1, sent + 1)
        return {"sent": sent, "lost": len(lost), "first_lost": lost[:50]}

    def finish(self) -> int:
        """Stops it and returns how many it sent. Fails when one was lost."""
        counted = self.lost()
        if counted["lost"]:
            raise PacketsLost(f"{self._program.name}: {counted['lost']} of {counted['sent']} lost: {counted['first_lost']}")
        return counted["sent"]


def ping(host, target: str, count: int = 1, timeout: float = 5) -> bool:
    """Whether a reply comes within the time."""
    done = host.run(["ping", "-n", "-c", str(count), "-w", str(max(1, round(timeout))), "-i", "0.2", target],
                    check=False, timeout=timeout + 10)
    return done.returncode == 0


def tcp_opens(host, target: str, port: int, timeout: int = 2) -> bool:
    """Whether a TCP connection comes about."""
    return host.run(["busybox", "nc", "-w", timeout, target, port, "-e", "/bin/true"], check=False, timeout=timeout + 15).returncode == 0


_SERVE = """
import functools, http.server, socket, sys, threading
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return super().server_bind()
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
for port in sys.argv[2:]:
    threading.Thread(target=Server(("::", int(port)), handler).serve_forever).start()
print("serving")
"""


class WebServer:
    """Serves one file, `payload`, of the size asked for, on several ports."""

    def __init__(self, host, ports=(80,), size_bytes: int = 1_000_000):
        folder = host.directory / "www"
        folder.mkdir(exist_ok=True)
        with open(folder / "payload", "wb") as payload:
            payload.truncate(size_bytes)
        self.program = host.start("http", ["/usr/bin/python3", "-u", "-c", _SERVE, folder, *ports])
        self.program.wait_for_output("serving")


def fetch(host, url: str, timeout: float = 5):
    """(bytes received, seconds) of one HTTP transfer; None when it fails."""
    done = host.run(["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", str(timeout), "--output", "/dev/null",
                     "--write-out", "%{size_download} %{time_total}", url], check=False, timeout=timeout + 10)
    if done.returncode != 0:
        return None
    size, seconds = done.stdout.split()
    return int(size), float(seconds)


class Transfer:
    """An iperf3 transfer that runs beside the test, slow enough that no queue overflows on its account."""

    def __init__(self, client, server, address: str, seconds: float, port: int = 5201, bits_per_second: str = "8M"):
        self.seconds = seconds
        self._server = server.start(f"iperf3-server-{port}", ["iperf3", "-s", "-p", port, "--forceflush"])
        self._server.wait_for_output("Server listening")
        self.client = client.start(f"iperf3-client-{port}", ["iperf3", "-c", address, "-p", port, "-t", round(seconds), "-i", 1, "-b", bits_per_second, "--json"])

    def running(self) -> bool:
        return self.client.alive()

    def finish(self) -> dict:
        """Its result: bits_per_second on the receiver's side, and of each second (seconds without data stand out). A machine
        that stood still makes iperf3 tell of several seconds at once, the later ones of no length: those are left out."""
        status = self.client.wait(self.seconds + 30)
        self._server.stop()
        try:
            report = json.loads(self.client.output())
        except ValueError:
            raise CommandFailed(f"iperf3 ended with {status}:\n{self.client.output()[-2000:]}") from None
        if status != 0 or "error" in report:
            raise CommandFailed(f"iperf3 failed: {report.get('error')}")
        return {"bits_per_second": report["end"]["sum_received"]["bits_per_second"],
                "each_second": [round(i["sum"]["bits_per_second"]) for i in report["intervals"] if i["sum"]["seconds"] > 0.5]}


_STREAM = """
import socket, sys, time
if sys.argv[1] == "serve":
    listener = socket.create_server(("", int(sys.argv[2])))
    print("serving", flush=True)
    peer, _ = listener.accept()
    while True:
        peer.sendall(peer.recv(100) or sys.exit(0))
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
connection.settimeout(60)
for i in range(1 << 30):
    connection.sendall(b"%08d" % i)
    received = b""
    while len(received) < 8:
        received += connection.recv(8 - len(received)) or sys.exit("ended")
    if int(received) != i:
        sys.exit("something else arrived")
    print(i, flush=True)
    time.sleep(0.05)
"""


class SlowStream:
    """One TCP connection, on which a number goes to the other side and back, one after the other."""

    def __init__(self, client, server, address: str, port: int):
        python = "/usr/bin/python3"
        server.start(f"stream-{port}", [python, "-c", _STREAM, "serve", port]).wait_for_output("serving")
        self._client = client.start(f"stream-{port}", [python, "-c", _STREAM, address, port])

    def goes_on(self, timeout: float) -> bool:
        """Whether ten more numbers are back within the time."""
        count = lambda: self._client.output().count("\n") # noqa: E731
        begin = count()
        try:
            wait_for(lambda: count() >= begin + 10 or not self._client.alive(), timeout, "the stream goes on")
        except NotInTime:
            pass
        return count() >= begin + 10


_COUNT_DATAGRAMS = """
import signal, socket, sys
counted = 0
def tell(*_):
    print(counted, flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, tell)
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", int(sys.argv[1])))
print("listening", flush=True)
while True:
    s.recv(2000)
    counted += 1
"""
_SEND_DATAGRAMS = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        s.sendto(b"may I?", (sys.argv[1], int(sys.argv[2])))
    except OSError:
        pass
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0.01)
"""


class Knocking:
    """A steady 100 datagrams a second to a port, counted where they arrive: one that passes when it should not is seen."""

    def __init__(self, sender, receiver, addresses, port: int):
        python = "/usr/bin/python3"
        self._counter = receiver.start(f"count-{port}", [python, "-c", _COUNT_DATAGRAMS, port])
        self._counter.wait_for_output("listening")
        self._senders = [sender.start(f"knock-{port}-{i}", [python, "-c", _SEND_DATAGRAMS, address, port])
                         for i, address in enumerate(addresses)]

    def finish(self) -> int:
        """How many arrived."""
        for sender in self._senders:
            if not sender.alive():
                raise CommandFailed(f"{sender.name} ended early:\n{sender.output()}")
            sender.kill()
        self._counter.signal(signal.SIGINT)
        self._counter.wait(10)
        return int(self._counter.output().split()[-1])


class LeakWatch:
    """Everything that leaves a host by a device and is neither the tunnel itself (`port`), nor for `allowed` addresses, nor
    what links need to live (ARP, neighbour discovery, group reports)."""

    def __init__(self, host, allowed=(), device: str = "eth0", port: int = 41641, name: str = "leak-watch"):
        words = ["not arp", f"not (udp and src port {port})", "not igmp", "not (icmp6 and ip6[40] >= 130 and ip6[40] <= 137)",
                 "not (ip6 and ip6[6] = 0)", *(f"not host {address}" for address in allowed)]
        self._program = host.start(name, ["tcpdump", "-i", device, "-Q", "out", "-n", "-l", "--immediate-mode", "-tt", "-p",
                                                  " and ".join(words)])
        self._program.wait_for_output("listening on")

    def seen_since(self, moment: float) -> list:
        """Lines of packets from that moment (time.time()) on. Asked for after a while: it takes one to print them."""
        lines = []
        for line in self._program.output().splitlines():
            found = re.match(r"(\d+\.\d+) ", line)
            if found and float(found[1]) > moment:
                lines.append(line)
        return lines

    def alive(self) -> bool:
        return self._program.alive()


class Probes:
    """A steady 100 datagrams a second to each target, (address, port), whatever becomes of them."""

    def __init__(self, host, targets, interval: float = 0.01):
        self._senders = [host.start(f"probe-{i}", ["/usr/bin/python3", "-c", _SEND_DATAGRAMS, address, port, interval])
                         for i, (address, port) in enumerate(targets)]

    def stop(self) -> None:
        for sender in self._senders:
            sender.kill()
