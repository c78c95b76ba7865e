"""Our relay on a host with several addresses, and a client on the same link."""
import json
import signal
import time

import pytest

from lab.lab import BUILD
from lab.tailrace import TAILRACE_RELAY, TailraceRelay
from lab.wait import wait_for

RELAY_LOAD = BUILD / "bench/relay_load"

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


FORGE = """
import os, socket, struct, zlib
def request():
    out = b"\\x00\\x01\\x00\\x14\\x21\\x12\\xa4\\x42" + os.urandom(12) + b"\\x80\\x22\\x00\\x08tailnode"
    return out + b"\\x80\\x28\\x00\\x04" + (zlib.crc32(out) ^ 0x5354554e).to_bytes(4, "big")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for i in range(10):
    udp = struct.pack("!HHHH", 4000 + i, 3478, 48, 0) + request()
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 68, 0, 0, 64, 17, 0, socket.inet_aton("198.51.100.5"), socket.inet_aton("203.0.113.2"))
    raw.sendto(ip + udp, ("203.0.113.2", 0))
"""


def test_who_cannot_be_answered_costs_the_others_nothing(lab, programs):
    """Requests with a forged source, to which there is no way, come in one batch with an honest one behind them."""
    host, client = lab.host("relay", address="203.0.113.2"), lab.host("client")
    host.ip("route add unreachable 198.51.100.0/24")
    relay = TailraceRelay(host)
    relay.program.signal(signal.SIGSTOP)
    client.run(["/usr/bin/python3", "-c", FORGE])
    asking = client.start("ask", ["/usr/bin/python3", "-c", ASK, "203.0.113.2"])
    time.sleep(0.5) # it waits for 3 s
    relay.program.signal(signal.SIGCONT)
    asking.wait_for_output("answered", 5)
    assert relay.metrics()["stun_answered_total"] == 1


def test_a_reload_changes_what_can_change(lab, programs):
    host, client = lab.host("relay", address="203.0.113.2"), lab.host("client")
    config, keys = host.directory / "relay.yaml", host.directory / "keys"
    config.write_text("")
    relay = TailraceRelay(host, "--config", config)

    def reload(text: str, until: str) -> str:
        before = len(relay.program.output())
        config.write_text(text)
        relay.program.signal(signal.SIGHUP)
        wait_for(lambda: until in relay.program.output()[before:], 15, until)
        return relay.program.output()[before:]

    def is_let_in() -> bool:
        return client.run([RELAY_LOAD, "--url", "https://203.0.113.2", "--hello"], check=False).returncode == 0

    def packets_a_second() -> float:
        done = client.run([RELAY_LOAD, "--url", "https://203.0.113.2", "--pairs", "1", "--seconds", "1", "--json"], timeout=30)
        return json.loads(done.stdout)["packets_per_second"]

    assert is_let_in()
    unlimited = packets_a_second()
    reload("rate_limit: {bytes_per_second: 65568}\n", "reloaded")
    assert packets_a_second() < 200 < unlimited, "a packet has 1000 bytes"

    # What is wrong changes nothing, and the place is named.
    said = reload("rate_limit: {bytes_per_second: 1000000000}\nlsiten: x\n", "what is in force stays")
    assert 'relay.yaml:2: unknown key \\"lsiten\\"' in said or 'relay.yaml:2: unknown key "lsiten"' in said, said
    assert packets_a_second() < 200

    # What cannot change is named, and the rest changes.
    keys.write_text("# nobody\n")
    said = reload(f"cores: 3\nlisten_http: ':81'\nstun_port: -1\nverify_clients: {{key_file: {keys}}}\n", "reloaded")
    assert "systemctl restart tailrace-relay" in said and "stun_port, cores" in said, said
    assert "listen_http" not in said, "a flag stands above it"
    assert not is_let_in()
    keys.write_text("nonsense\n")
    said = reload(config.read_text(), "the old list of clients stays in force")
    assert f"{keys}:1:" in said and not is_let_in()
    keys.write_text("# nobody\n")
    said = reload("", "reloaded")
    assert "verify_clients.key_file" in said and not is_let_in(), "that nobody is asked after any more takes a restart"
    relay.program.stop(timeout=15)
    relay.start()
    assert is_let_in() and packets_a_second() > 200


def test_a_reload_reads_the_certificate_again(lab, programs):
    host = lab.host("relay", address="203.0.113.2")
    relay = TailraceRelay(host)
    state = relay.folder / "state"

    def shown() -> str:
        return host.run(["sh", "-c", "openssl s_client -connect 203.0.113.2:443 </dev/null 2>/dev/null | openssl x509 -noout -subject"]).stdout.strip()

    def reload(until: str) -> None:
        before = len(relay.program.output())
        relay.program.signal(signal.SIGHUP)
        wait_for(lambda: until in relay.program.output()[before:], 5, until)

    def make(name: str, key: str, certificate: str) -> None:
        host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9", "-subj", f"/CN={name}",
                  "-keyout", state / key, "-out", state / certificate])

    make("renewed", "certificate.key", "certificate.pem")
    reload("reloaded")
    assert shown().endswith("renewed")
    make("half-written", "another.key", "certificate.pem") # whose key is not there yet
    reload("the old certificate stays in force")
    assert shown().endswith("renewed")


def test_a_wrong_command_line_ends_as_everywhere(lab, programs):
    host = lab.host("relay")
    for words in (["--cores=many"], ["--nonsense"]):
        done = host.run([TAILRACE_RELAY, *words], check=False)
        assert done.returncode == 2 and words[0].split("=")[0] in done.stderr, (done.returncode, done.stderr)
    assert host.run([TAILRACE_RELAY, "--help"]).returncode == 0
