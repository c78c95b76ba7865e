"""Alice and bob have a network of their own beside the internet, on a device that stands on another one; what comes in is
filtered by a firewall that knows WireGuard's port and nothing else. Picture: paths.py, with this between alice and bob:

      under0 198.51.100.5 ------ a bridge, or VLAN 7 of the cable ------ under0 198.51.100.6    or 2001:db8:7::5 and ::6
"""
from .paths import Net
from ..traffic import ping
from ..wait import wait_for

ONLY_WIREGUARD = """
table inet only_wireguard {
    chain in {
        type filter hook input priority 0; policy drop;
        iifname { "lo", "tailrace0" } accept
        ct state established meta l4proto tcp accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
        udp dport 41641 accept
    }
    chain out {
        type filter hook output priority 0;
        udp dport 41641 ip daddr 203.0.113.0/24 drop
    }
}
"""


def on_a_bridge(host, device: str) -> None:
    """As hosts of virtual machines have it: the cable is a port of a bridge, and the bridge has the addresses."""
    host.ip(f"link add {device} type bridge", f"link set {device} up", f"address delete {host.address}/24 dev eth0",
            f"link set eth0 master {device}", f"address add {host.address}/24 dev {device}", f"route add default via 203.0.113.254")


def on_a_vlan(host, device: str) -> None:
    host.ip(f"link add link eth0 name {device} type vlan id 7", f"link set {device} up")


def discovery_by_wireguards_port_alone(lab, underlay, family: int) -> None:
    def prepare(hosts):
        for number, host in enumerate(hosts.values(), 5):
            underlay(host, "under0")
            address = f"198.51.100.{number}/24 dev under0" if family == 4 else f"2001:db8:7::{number}/64 dev under0 nodad"
            host.ip(f"address add {address}")
            host.nft(ONLY_WIREGUARD)
    net = Net(lab, "public", "public", prepare=prepare)
    wanted = "198.51.100." if family == 4 else "[2001:db8:7::"
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        wait_for(lambda: ping(one.host, other.ip(), timeout=1) and one.direct_to(other.host.name).startswith(wanted), 20, "the path is direct")
        assert not any("steering" in text for text in one.status()["Health"] or []), "disco comes by the program"
    assert "UDP: true" in net.alice.cli("netcheck").stdout, "STUN's answers come in as well"
