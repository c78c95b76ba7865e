"""A host that goes over to another network. Picture: lab/scenarios/paths.py; alice has a cable into a second NAT as well.

    internet --- nat-alice --- eth0
                                    alice
    internet --- second ------ eth1
"""
import time

from lab.scenarios.paths import Net
from lab.traffic import ping
from lab.wait import wait_for


def two_networks(lab, bob: str):
    net = Net(lab, "easy", bob)
    second = lab.nat("second", lab.internet(), "easy", "192.168.77.0/24")
    alice = net.hosts["alice"]
    alice.plug_into(second.lan, "eth1")
    net.reaches()
    return net, second


def sees_alice_at(net, box) -> bool:
    ping(net.hosts["alice"], net.bob.ip(), timeout=1)
    return net.bob.direct_to("alice").startswith(f"{box.address}:")


def test_another_default_route_is_another_path(lab, programs):
    net, second = two_networks(lab, "easy")
    wait_for(lambda: sees_alice_at(net, net.nats["alice"].box), 10, "bob sees alice behind her first NAT")
    net.hosts["alice"].ip(f"route replace default via {second.lan.gateway}") # all addresses stay
    net.alice.program.wait_for_output("the network changed", 5)
    wait_for(lambda: sees_alice_at(net, second.box), 15, "bob sees alice behind her second NAT")
    assert f"yes, {second.box.address}:" in net.alice.cli("netcheck", timeout=30).stdout


def test_relay_connections_that_no_longer_work_are_made_anew(lab, programs):
    net, second = two_networks(lab, "hard")
    alice = net.hosts["alice"]
    first = net.nats["alice"].box
    first.nft("table ip cut { chain pass { type filter hook forward priority -1; policy drop; }; }")
    alice.ip(f"route replace default via {second.lan.gateway}")
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1), 10, "packets flow over a new connection to the relay")
    shown = alice.run("ss -Htn state established dport = :443").stdout
    assert "192.168.77." in shown, shown


def test_an_address_that_goes_takes_its_relay_connection_along(lab, programs):
    net, second = two_networks(lab, "hard")
    alice = net.hosts["alice"]
    alice.ip(f"route replace default via {second.lan.gateway}", "address flush dev eth0")
    wait_for(lambda: ping(alice, net.bob.ip(), timeout=1), 10, "packets flow over a new connection to the relay")


def test_a_login_at_a_relay_needs_no_answer(lab, programs):
    net = Net(lab, "public", "public")
    assert "connected to a relay region=900 code=lab fast_start=yes" in net.alice.program.output()


def test_an_address_that_comes_and_goes_is_looked_at_once_a_second(lab, programs):
    net = Net(lab, "public", "public")
    net.reaches()
    alice = net.hosts["alice"]

    def looks() -> int:
        return next(int(line.split()[1]) for line in net.alice.cli("metrics").stdout.splitlines() if line.startswith("tailrace_address_looks_total "))
    before, began = looks(), time.monotonic()
    alice.run(["sh", "-c", "for i in $(seq 40); do ip address add 192.168.99.1/24 dev eth0; sleep 0.025; ip address delete 192.168.99.1/24 dev eth0; sleep 0.025; done"])
    lasted = time.monotonic() - began
    alice.ip("address add 192.168.98.1/24 dev eth0")
    wait_for(lambda: "192.168.98.1:" in net.alice.cli("debug", "localapi", "GET", "/localapi/v0/status").stdout, 5, "the last one is known")
    took = time.monotonic() - began
    assert 2 <= looks() - before <= took + 1, f"{looks() - before} looks in {took:.1f} s"
    print(f"{looks() - before} looks at addresses in {took:.1f} s, in which 40 came and went in {lasted:.1f} s")
