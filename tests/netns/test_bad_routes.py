"""Routes that nobody should offer: wrong ones, too many, and such as lead to control, relay or everywhere. The agent stays
connected, says what they do, and takes what it can. Picture: lab/scenarios/subnet_router.py
"""
import json
import time

import pytest

from lab.scenarios.subnet_router import LAN, LAN6, POLICY, SERVER, RoutedNet
from lab.tailrace import Agent
from lab.traffic import WebServer, fetch
from lab.wait import wait_for

ANY_ROUTE = POLICY.replace('"192.168.0.0/16": ["tag:router"], "fd00::/8"', '"0.0.0.0/0": ["tag:router"], "::/0"').replace(
    '"dst": ["192.168.7.0/24:80"', '"dst": ["0.0.0.0/1:*", "128.0.0.0/1:*", "::/1:*", "8000::/1:*", "192.168.7.0/24:80"')
CONTROL, RELAY, ROUTER = "203.0.113.1", "203.0.113.2", "203.0.113.11"


@pytest.fixture
def net(lab, programs):
    net = RoutedNet(lab)
    net.forward()
    net.control.set_policy(ANY_ROUTE)
    return net


def table(host) -> str:
    return host.run("ip route show table 52").stdout


def stays_connected(net) -> None:
    """Control and relay are asked anew, by both, and answer; no socket of the agent is led into the tunnel."""
    net.control.program.kill()
    net.control.start()
    for agent in (net.client, net.router):
        wait_for(lambda: agent.status()["Self"]["Online"], 60, f"{agent.host.name} finds control again")
    net.relay.program.kill()
    net.relay.start()
    for agent in (net.client, net.router):
        said = wait_for(lambda: (text := agent.cli("netcheck", timeout=40).stdout) and "* UDP: true" in text and text, 60, f"{agent.host.name} finds the relay again")
        assert "Nearest DERP: unknown" not in said, said
        for address in (CONTROL, RELAY):
            assert "dev eth0" in agent.host.run(f"ip route get {address} mark 0x80000").stdout
    wait_for(lambda: fetch(net.client_host, f"http://{SERVER}/payload", 3), 20, "and the routes work")


MALFORMED = {
    "10.0.0.1/8": ("10.0.0.1/8 has non-address bits set", "10.0.0.0/8"),
    "300.0.0.0/8": ('"300.0.0.0/8" is not a valid',),
    "10.0.0.0/33": ('"10.0.0.0/33" is not a valid',),
    "0.0.0.0/0": ("0.0.0.0/0 advertised without its IPv6 counterpart", "please also advertise ::/0"),
    "fd7a:115c:a1e0:b1a:1::/96": ("fd7a:115c:a1e0:b1a:1::/96",),
    "office": ('"office" is not a valid',),
}


def test_a_malformed_route_is_refused_and_changes_nothing(net):
    net.join()
    before = net.router.cli("get", "advertise-routes").stdout
    for route, words in MALFORMED.items():
        done = net.router.cli("set", f"--advertise-routes={LAN},{route}", check=False)
        assert done.returncode == 1 and all(word in done.stderr for word in words), done.stderr
        body = json.dumps({"AdvertiseRoutes": [LAN, route], "AdvertiseRoutesSet": True})
        refused = net.router.cli("debug", "localapi", "PATCH", "/localapi/v0/prefs", body, check=False)
        if route == "0.0.0.0/0": # half an exit node is for the command line to ask about
            net.router.cli("set", f"--advertise-routes={LAN},{LAN6}")
        else:
            assert refused.returncode != 0, refused.stdout
        assert net.router.cli("get", "advertise-routes").stdout == before, route


def test_half_and_half_is_no_exit_node_and_cuts_nobody_off(net):
    net.join(router=(f"--advertise-routes={LAN},{LAN6},0.0.0.0/1,128.0.0.0/1,::/1,8000::/1",), client=())
    said = wait_for(lambda: (text := net.client.cli("set", "--accept-routes").stdout) and "half of all IPv4" in text and text
                    or not net.client.cli("set", "--accept-routes=false"), 15, "the client is told before")
    assert "though no exit node was chosen" in said, said
    net.client.cli("set", "--accept-routes")
    wait_for(lambda: "0.0.0.0/1 " in table(net.client_host) and "128.0.0.0/1 " in table(net.client_host), 10, "both halves are in force")
    for family in ("IPv4", "IPv6"):
        assert any(f"half of all {family} addresses" in text for text in net.client.status()["Health"]), family
    assert "tailrace0" in net.client_host.run("ip route get 198.51.100.1").stdout, "whoever has no mark goes there"
    assert not net.client.peer("router")["ExitNodeOption"]
    stays_connected(net)


def test_routes_of_control_relay_and_the_router_itself(net):
    net.join(router=(f"--advertise-routes={LAN},{LAN6},203.0.113.0/24,{CONTROL}/32,{RELAY}/32,{ROUTER}/32,203.0.113.254/32",))
    told = lambda: " ".join(net.client.status()["Health"] or []) # noqa: E731
    wait_for(lambda: net.fetches() and "covers the network 203.0.113.0/24 of eth0" in told(), 15, "they are there")
    assert not any(f"{one} dev" in table(net.client_host) for one in ("203.0.113.0/24", CONTROL, RELAY, ROUTER)), "the client's own network is not given away"
    net.client.cli("set", "--routes-over-lan")
    wait_for(lambda: all(one in table(net.client_host) for one in ("203.0.113.0/24", CONTROL, RELAY, ROUTER)), 15, "they are in force")
    assert "this host reaches 203.0.113.0/24 through the tunnel" in told()
    wait_for(lambda: net.fetches() and net.client.direct_to("router") == f"{ROUTER}:41641", 30, "the router is reached directly all the same")
    stays_connected(net)
    net.client.cli("set", "--accept-routes=false")
    wait_for(lambda: CONTROL not in table(net.client_host), 10, "given up")


def test_of_two_routers_the_more_specific_route_decides(net):
    other_host = net.lab.host("other")
    lan = net.lab.lan(other_host, "192.168.9.0/24")
    other_host.sysctl("net.ipv4.ip_forward", 1)
    special = net.lab.host("special", lan, "192.168.9.10")
    WebServer(special, (80,), 1000)
    net.control.set_policy(ANY_ROUTE)
    net.join(router=(f"--advertise-routes={LAN},{LAN6},192.168.0.0/16",))
    other = Agent(other_host)
    other.up(net.control.url, net.control.create_key("us@example.com", tags=["tag:router"]), "--advertise-routes=192.168.9.0/24")
    size = lambda address: (fetch(net.client_host, f"http://{address}/payload", 3) or (0,))[0] # noqa: E731
    wait_for(lambda: size("192.168.9.10") == 1000, 20, "the smaller network is reached by its own router")
    wait_for(net.fetches, 15, "the larger one by the other")
    other.cli("set", "--advertise-routes=")
    wait_for(lambda: "192.168.9.0/24" not in table(net.client_host), 15, "the smaller route is gone")
    before = net.router.drops()
    assert size("192.168.9.10") == 0, "the packets go to the other router, who has no such network"
    assert net.fetches() and net.router.running() and before is not None


def cached_netmap(agent):
    return next((agent.state / "profile-data").glob("*/netmap-cache"))


def restarted_with(net, change):
    """The client without control, from a network map that `change` has worked on: what a control server may send."""
    file = cached_netmap(net.client)
    net.control.program.kill()
    net.client.program.kill()
    netmap = json.loads(file.read_text())
    change(netmap)
    file.write_text(json.dumps(netmap))
    net.client.start()


def test_a_hundred_thousand_routes_of_a_server_have_an_end(net):
    net.join()
    wait_for(lambda: cached_netmap(net.client) and SERVER.rpartition(".")[0] in cached_netmap(net.client).read_text(), 10, "the map is kept")
    many = [f"{10 + (i >> 20)}.{i >> 12 & 255}.{i >> 4 & 255}.{(i & 15) << 4}/28" for i in range(100_000)]

    def change(netmap):
        router = next(peer for peer in netmap["Peers"] if peer["Name"].startswith("router"))
        router["AllowedIPs"] = router["AllowedIPs"] + many
    began = time.monotonic()
    restarted_with(net, change)
    wait_for(net.client.running, 60, "it runs")
    seconds = time.monotonic() - began
    health = net.client.status()["Health"]
    assert any("20000" in text and "too many" in text for text in health), health
    count = len(table(net.client_host).splitlines())
    assert 20_000 <= count <= 20_100, count
    resident = int(next(line for line in open(f"/proc/{net.client.program.pid}/status") if line.startswith("VmHWM")).split()[1])
    print(f"100,000 routes: running after {seconds:.1f} s, {count} in force, at most {resident // 1024} MB")
    net.control.start()
    wait_for(lambda: len(table(net.client_host).splitlines()) < 100, 60, "control sends a smaller map")
    wait_for(net.fetches, 30, "and all is well")


def test_a_route_of_a_server_that_is_none(net):
    net.join()
    for route in ("10.0.0.1/8", "0.0.0.0/33", "::ffff:10.0.0.0/104", "10.0.0.0/8 ", "", "nonsense", 7, None):
        wait_for(net.fetches, 60, "the client fetches")
        wait_for(lambda: cached_netmap(net.client) and "192.168.7.0/24" in cached_netmap(net.client).read_text(), 10, "the map is kept")

        def change(netmap):
            router = next(peer for peer in netmap["Peers"] if peer["Name"].startswith("router"))
            router["AllowedIPs"] = router["AllowedIPs"] + [route]
        restarted_with(net, change)
        left_out = lambda: net.client.running() and net.fetches() # noqa: E731
        told = lambda: "cached netmap cannot be read" in net.client.program.output() or "cached netmap makes no sense" in net.client.program.output() # noqa: E731
        wait_for(lambda: told() or left_out(), 30, f"the route {route!r} is left out, or the map refused with a reason")
        assert "default" not in table(net.client_host)
        net.control.start()
        wait_for(left_out, 60, "a right map is taken")
