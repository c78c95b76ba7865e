"""Stock clients that cannot reach each other directly talk through our relay.

        control 203.0.113.x    relay 203.0.113.x
               |                  |
    -----------+------------------+-------------- the internet
               |                  |
          [hard NAT]         [hard NAT]
               |                  |
             alice               bob
"""
import json
import signal
import time

import pytest

from lab.lab import BUILD
from lab.stock import StockClient, binary, derp_map
from lab.tailrace import TailraceControl, TailraceRelay
from lab.traffic import Ping, WebServer, fetch, ping
from lab.wait import wait_for

RELAY_LOAD = BUILD / "bench/relay_load"


def two_behind_hard_nats(lab) -> tuple:
    internet = lab.internet()
    return tuple(lab.host(name, lab.nat(f"{name}-nat", internet, "hard").lan) for name in ("alice", "bob"))


class Tailnet:
    """Control, and alice and bob with stock clients, on the relays given."""

    def __init__(self, lab, relays: dict, control_host=None, hosts=None):
        self.control = TailraceControl(control_host or lab.host("control"), relays)
        self.control.create_user("lab")
        self.key = self.control.create_key("lab")
        self.hosts = hosts or two_behind_hard_nats(lab)
        self.alice, self.bob = (StockClient(host) for host in self.hosts)
        for client in (self.alice, self.bob):
            client.up(self.control.url, self.key)

    def wait_for_ping(self, timeout: float = 20) -> None:
        wait_for(lambda: ping(self.hosts[0], self.bob.ip(), timeout=2), timeout, "alice reaches bob")


@pytest.mark.needs("tailscaled", "tailscale")
def test_two_clients_that_cannot_be_direct(lab, programs):
    relay = TailraceRelay(lab.host("relay"))
    tailnet = Tailnet(lab, relay.derp_map)
    tailnet.wait_for_ping()

    server = WebServer(tailnet.hosts[1], size_bytes=8_000_000)
    size, _ = fetch(tailnet.hosts[0], f"http://{tailnet.bob.ip()}/payload", timeout=30)
    assert size == 8_000_000
    assert server.program.alive()
    assert tailnet.alice.direct_to("bob") == ""
    assert tailnet.alice.peer("bob")["Relay"] == "lab"
    seen = relay.metrics()
    assert seen["clients"] == 2 and seen["home_clients"] == 2
    assert seen["packets_sent_total"] > 6000
    assert seen["stun_answered_total"] > 0
    # What its own report says of us.
    report = json.loads(tailnet.alice.cli("netcheck", "--format=json", timeout=30).stdout)
    assert report["UDP"] and report["PreferredDERP"] == 900
    examined = json.loads(tailnet.alice.cli("debug", "derp", "900", timeout=60).stdout)
    assert not [e for e in examined.get("Errors") or [] if "over IPv6" not in e], examined # the lab's relay has none
    assert any("Successfully established a DERP connection" in i for i in examined.get("Info") or []), examined


@pytest.mark.needs("tailscaled", "tailscale")
def test_restart_of_the_relay(lab, programs):
    """An orderly restart and a kill: the clients come back by themselves."""
    relay = TailraceRelay(lab.host("relay"))
    tailnet = Tailnet(lab, relay.derp_map)
    tailnet.wait_for_ping()
    for end in (lambda: relay.program.stop(timeout=15), lambda: relay.program.kill()):
        status = end()
        assert status in (0, None)
        relay.start()
        tailnet.wait_for_ping(timeout=20)
        assert relay.metrics()["clients"] >= 2


@pytest.mark.needs("tailscaled", "tailscale")
def test_only_nodes_of_the_tailnet_are_served(lab, programs):
    """Control is asked about each client: nodes are served, others turned away; when it is down, it depends."""
    control_host = lab.host("control")
    relay = TailraceRelay(lab.host("relay"), "--verify-clients", f"http://{control_host.address}:8080/verify")
    tailnet = Tailnet(lab, relay.derp_map, control_host=control_host)
    tailnet.wait_for_ping()
    assert relay.metrics()["logins_refused_total"] == 0

    stranger = lab.host("stranger")
    url = f"https://{relay.host.address}"
    done = stranger.run([RELAY_LOAD, "--url", url, "--hello"], check=False)
    assert done.returncode != 0, done.stdout
    assert relay.metrics()["logins_refused_total"] == 1
    tailnet.control.program.kill() # unreachable: the relay stays open by default, as the stock one does
    done = stranger.run([RELAY_LOAD, "--url", url, "--hello"], check=False, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("tailscaled", "tailscale")
def test_two_relays_of_a_region_are_one(lab, programs):
    """bob cannot reach the first relay of the region and uses the second; packets cross between the two."""
    hosts = [lab.host("relay1"), lab.host("relay2")]
    mesh_key = lab.directory / "mesh.key"
    mesh_key.write_text("00112233445566778899aabbccddeeff" * 2 + "\n")
    mesh_key.chmod(0o600)
    first, second = (TailraceRelay(host, "--mesh-key", mesh_key) for host in hosts)
    for relay in (first, second):
        relay.program.stop(timeout=10)
        # Both have the same list, and each finds that one of the two is itself.
        relay.start("--mesh-with", *(f"https://{r.host.address}#{r.cert_name}" for r in (first, second)))
    relays = first.derp_map
    node = dict(second.derp_map["Regions"]["900"]["Nodes"][0], Name="900b")
    relays["Regions"]["900"]["Nodes"].append(node)

    alice_host, bob_host = two_behind_hard_nats(lab)
    bob_host.nft(f"table ip block {{ chain out {{ type filter hook output priority 0; ip daddr {first.host.address} reject; }}\n}}")
    tailnet = Tailnet(lab, relays, hosts=(alice_host, bob_host))
    tailnet.wait_for_ping(timeout=30)

    pings = Ping(alice_host, tailnet.bob.ip(), interval=0.05)
    pings.wait_for_reply()
    time.sleep(3)
    assert pings.finish() > 20
    assert tailnet.alice.direct_to("bob") == ""
    for relay in (first, second):
        seen = relay.metrics()
        assert seen["mesh_links"] == 1 and seen["forwarded_keys"] >= 1
        assert seen["packets_forwarded_out_total"] > 20 and seen["packets_forwarded_in_total"] > 20

    # bob's relay goes: alice hears of it, and traffic is back when it is.
    second.program.signal(signal.SIGTERM)
    second.program.wait(15)
    wait_for(lambda: first.metrics()["forwarded_keys"] == 0, 10, "the first relay forgets what the second had")
    second.start("--mesh-with", f"https://{first.host.address}#{first.cert_name}")
    tailnet.wait_for_ping(timeout=30)


@pytest.mark.needs("tailscaled", "tailscale", "derper")
def test_our_relay_and_a_stock_one_make_a_region(lab, programs):
    """bob cannot reach our relay and uses the stock one; packets cross between the two makes, both ways."""
    mesh_key = lab.directory / "mesh.key"
    mesh_key.write_text("8899aabbccddeeff0011223344556677" * 2 + "\n")
    mesh_key.chmod(0o600)
    ours_host, stock_host = lab.host("ours"), lab.host("stock")
    ours = TailraceRelay(ours_host, "--mesh-key", mesh_key)
    folder = stock_host.directory / "derper"
    folder.mkdir()
    # A stock relay checks certificates by the authorities that it knows: ours is made one of them.
    derper = stock_host.start("derper", [
        binary("derper"), "-a", ":443", "-http-port", "-1", "-stun-port", "3478", "-certmode", "manual", "-certdir", folder,
        "-hostname", stock_host.address, "-c", folder / "derper.key", "-mesh-psk-file", mesh_key, "-mesh-with", ours_host.address],
        env={"SSL_CERT_FILE": str(ours.folder / "state/certificate.pem")})
    stock_cert = derper.wait_for_output(r'\\?"CertName\\?":\s*\\?"(sha256-raw:[0-9a-f]+)', 20)[1]
    ours.program.stop(timeout=10)
    ours.start("--mesh-with", f"https://{stock_host.address}#{stock_cert}")
    wait_for(lambda: ours.metrics()["mesh_links"] == 1 and ours.metrics()["watchers"] == 1, 15, "both links are up")

    relays = ours.derp_map
    relays["Regions"]["900"]["Nodes"].append(dict(derp_map(stock_host.address, cert_name=stock_cert)["Regions"]["900"]["Nodes"][0], Name="900b"))
    alice_host, bob_host = two_behind_hard_nats(lab)
    bob_host.nft(f"table ip block {{ chain out {{ type filter hook output priority 0; ip daddr {ours_host.address} reject; }}\n}}")
    tailnet = Tailnet(lab, relays, hosts=(alice_host, bob_host))
    tailnet.wait_for_ping(timeout=30)
    seen = ours.metrics()
    assert seen["packets_forwarded_out_total"] > 0 and seen["packets_forwarded_in_total"] > 0
    assert seen["forwarded_keys"] >= 1
    assert tailnet.alice.direct_to("bob") == ""
