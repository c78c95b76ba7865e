"""A small DNS server that tests have asked, and how they ask themselves."""
SERVICE, SERVICE6 = "100.100.100.100", "fd7a:115c:a1e0::53"

_PROGRAM = r"""
import socket, socketserver, struct, sys, threading
address, value = sys.argv[1], socket.inet_aton(sys.argv[2])
others = dict(pair.split("=") for pair in sys.argv[3:])
def answer(query, udp):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    name, question = ".".join(labels), query[12:at + 5]
    print("udp" if udp else "tcp", name, flush=True)
    if name == "mute.example":
        return b""
    count = 60 if name == "big.example" else 1
    code = 0 if name.endswith("example") else 3
    flags = 0x8180 | code
    if udp and count > 1:
        return query[:2] + struct.pack(">HHHHH", flags | 0x0200, 1, 0, 0, 0) + question
    if code or question[-3] != 1:
        return query[:2] + struct.pack(">HHHHH", flags, 1, 0, 0, 0) + question
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4)
    first = socket.inet_aton(others[name]) if name in others else value
    records = b"".join(record + (first if i == 0 else bytes([198, 51, 100, i])) for i in range(count))
    return query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + question + records
class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(answer(self.request[0], True), self.client_address)
class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        size = self.rfile.read(2)
        if len(size) == 2:
            said = answer(self.rfile.read(struct.unpack(">H", size)[0]), False)
            self.wfile.write(struct.pack(">H", len(said)) + said)
socketserver.TCPServer.allow_reuse_address = True
threading.Thread(target=socketserver.ThreadingTCPServer((address, 53), Tcp).serve_forever, daemon=True).start()
udp = socketserver.UDPServer((address, 53), Udp)
print("ready", flush=True)
udp.serve_forever()
"""


class NameServer:
    """Knows the names below "example", with the addresses of `others` or all with `value`; says what it was asked, and how. big.example has 60 addresses
    and is cut over UDP, mute.example gets no answer, all else does not exist."""

    def __init__(self, host, address: str = "127.0.0.1", value: str = "198.51.100.1", others=None):
        self.program = host.start(f"nameserver-{address}", ["/usr/bin/python3", "-c", _PROGRAM, address, value, *(f"{name}={at}" for name, at in (others or {}).items())])
        self.program.wait_for_output("ready")

    def asked(self) -> list:
        """"udp www.example", ...; what is no question leaves other traces."""
        return [line for line in self.program.output().splitlines() if line.startswith(("udp ", "tcp "))]


def dig(host, *words, server: str = SERVICE) -> str:
    return host.run(["dig", "+time=2", "+tries=1", f"@{server}", *map(str, words)], check=False, timeout=15).stdout
