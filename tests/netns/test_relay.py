"""Our relay on a host with several addresses, and a client on the same link."""
import pytest

from lab.tailrace import TailraceRelay

ASK = """
import os, socket, sys, zlib
host = sys.argv[1]
request = b"\\x00\\x01\\x00\\x14\\x21\\x12\\xa4\\x42" + os.urandom(12) + b"\\x80\\x22\\x00\\x08tailnode"
request += b"\\x80\\x28\\x00\\x04" + (zlib.crc32(request) ^ 0x5354554e).to_bytes(4, "big")
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((host, 3478)) # answers from elsewhere are not taken, as by a NAT
s.send(request)
answer = s.recv(100)
assert answer[:2] == b"\\x01\\x01" and answer[8:20] == request[8:20], answer
print("answered")
"""


@pytest.mark.parametrize("address", ["203.0.113.2", "203.0.113.77", "2001:db8::2", "2001:db8::77"])
def test_stun_answers_from_where_it_was_asked(lab, programs, address):
    host = lab.host("relay", address="203.0.113.2")
    host.add_v6(2)
    host.ip("address add 203.0.113.77/24 dev eth0", "address add 2001:db8::77/64 dev eth0 nodad")
    TailraceRelay(host)
    client = lab.host("client")
    client.add_v6(5)
    assert client.run(["/usr/bin/python3", "-c", ASK, address]).stdout == "answered\n"
