"""A node and a peer that speaks WireGuard and nothing else, which control names with two addresses.

      control 203.0.113.1      alice            vpn
             |                   |          near | | far, each on a cable of its own
    ---------+-------------------+--------------+-+------ the internet

No control server of ours has such peers: alice knows it from the network map that she kept.
"""
import base64
import json

from ..program import CommandFailed
from ..tailrace import AGENT_SOCKET, TAILRACE, Agent, TailraceControl
from ..wait import wait_for

PEER = "100.64.0.99" # in the tailnet
PORT = 51820
NEAR, FAR, NEAR6 = "203.0.113.20", "203.0.113.21", "2001:db8::20"
NO_ECHO = "table inet mute_{name} {{ chain in {{ type filter hook prerouting priority -400; ip daddr {address} icmp type echo-request drop; }}\n}}"
DEAD = "table inet dead_{name} {{ chain in {{ type filter hook prerouting priority -400; ip daddr {address} drop; }}\n}}"


def endpoint(address: str) -> str:
    return f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"


def to_hex(key: str) -> str:
    return base64.b64decode(key).hex()


def to_base64(node_key: str) -> str:
    return base64.b64encode(bytes.fromhex(node_key.removeprefix("nodekey:"))).decode()


class PlainWireGuard:
    """A host with WireGuard as people set it up by hand."""

    def __init__(self, host):
        self.host = host
        private = host.run("wg genkey").stdout.strip()
        self.public_key = host.run("wg pubkey", input=private + "\n").stdout.strip()
        key = host.directory / "wg.key"
        key.write_text(private)
        try:
            host.ip("link add wg0 type wireguard")
        except CommandFailed:
            host.start("wireguard-go", ["wireguard-go", "-f", "wg0"])
            wait_for(lambda: host.run("wg show wg0", check=False).returncode == 0, 10, "wireguard-go is there")
        host.run(["wg", "set", "wg0", "listen-port", PORT, "private-key", key])
        host.ip(f"address add {PEER}/32 dev wg0", "link set wg0 mtu 1280 up", "route add 100.64.0.0/10 dev wg0")

    def add_peer(self, public_key: str, address: str) -> None:
        self.host.run(["wg", "set", "wg0", "peer", public_key, "allowed-ips", f"{address}/32"])


class Net:
    """`prepare` is called with the peer's host before alice knows it; `first` is the address that control names first, `second` the other."""

    def __init__(self, lab, prepare=lambda host: None, first=NEAR, second=""):
        self.lab = lab
        lab.internet()
        control = TailraceControl(lab.host("control", address="203.0.113.1"))
        control.create_user("us")
        vpn = lab.host("vpn", address=NEAR)
        vpn.plug_into(lab.internet(), "eth1", FAR)
        # What comes to an address is answered from it, by its own cable.
        vpn.ip(f"rule add from {FAR} table 7", "route add 203.0.113.0/24 dev eth1 table 7")
        vpn.sysctl("net.ipv4.conf.all.arp_ignore", 1)
        vpn.sysctl("net.ipv4.conf.all.arp_announce", 2)
        self.vpn = PlainWireGuard(vpn)
        prepare(vpn)
        self.host = lab.host("alice")
        if NEAR6 in (first, second):
            vpn.add_v6(0x20)
            self.host.add_v6(0x11)
        self.alice = Agent(self.host)
        self.alice.up(control.url, control.create_key("us"))
        kept = lambda: [file for file in self.alice.state.glob("profile-data/*/netmap-cache") if '"Key"' in file.read_text()] # noqa: E731
        file = wait_for(kept, 10, "the network map is kept")[0]
        self.alice.program.stop()
        control.program.kill()
        netmap = json.loads(file.read_text())
        second = second or (FAR if first == NEAR else NEAR)
        peer = {"ID": 99, "StableID": "n99", "Name": "vpn.tail.lab.", "Key": f"nodekey:{to_hex(self.vpn.public_key)}", "Addresses": [f"{PEER}/32"],
                "AllowedIPs": [f"{PEER}/32"], "Endpoints": [endpoint(first), endpoint(second)], "IsWireGuardOnly": True,
                "MachineAuthorized": True, "Hostinfo": {"Hostname": "vpn"}}
        netmap["Peers"] = [*(netmap.get("Peers") or []), peer]
        file.write_text(json.dumps(netmap))
        own = netmap["Node"]
        self.vpn.add_peer(to_base64(own["Key"]), next(a for a in own["Addresses"] if "." in a).split("/")[0])
        self.alice.start()
        wait_for(lambda: "tailrace0" in self.host.run(["ip", "route", "get", PEER], check=False).stdout, 10,
                 "alice has a way to the peer")

    def paths(self) -> dict:
        text = self.host.run([TAILRACE, "--socket", AGENT_SOCKET, "debug", "paths", "vpn", "--json"]).stdout
        return json.loads(text)["Peers"][0]

    def used(self) -> str:
        return self.alice.direct_to("vpn").rpartition(":")[0].strip("[]")
