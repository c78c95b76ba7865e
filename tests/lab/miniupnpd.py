"""miniupnpd on a NAT box of kind "port-mapped": forwards a port to whoever on the LAN asks by NAT-PMP, PCP or UPnP.

    internet                                  hard NAT                    LAN
    192.41.0.N --- route by the switch --- eth0 (203.0.113.x)  nat  lan0 (192.168.n.1, miniupnpd) --- alice

miniupnpd serves only where it has a public address, and thinks rightly that 203.0.113.0/24 is none: the box has another
one, which leads to it by a route of the internet's switch.
"""
import time

from .lab import Nat
from .wait import wait_for

PUBLIC_NET = "192.41.0"
ALL = ("pmp", "pcp", "upnp")
VERSIONS = {"pmp": 0, "pcp": 2} # the first byte of a request; miniupnpd itself switches both at once

SILENCED = """
table ip silenced
delete table ip silenced
table ip silenced {{
    chain in {{ type filter hook input priority -10; {} }}
}}
"""


class Miniupnpd:
    def __init__(self, nat: Nat, speaks=ALL):
        self.box = nat.box
        self.inside = nat.lan.gateway
        self.address = f"{PUBLIC_NET}.{self.inside.split('.')[2]}" # outside
        self.box.ip(f"address add {self.address}/32 dev eth0")
        nat.lan.lab.internet().switch.ip(f"route add {self.address}/32 via {self.box.address}")
        self._config = self.box.directory / "miniupnpd.conf"
        self.program = None
        self.speak(speaks)
        self.start()

    def speak(self, speaks) -> None:
        """From its next start."""
        yes = {True: "yes", False: "no"}
        by_pmp = "pmp" in speaks or "pcp" in speaks
        self._config.write_text("\n".join([
            "ext_ifname=eth0", f"ext_ip={self.address}", "listening_ip=lan0", "port=5000",
            f"enable_natpmp={yes[by_pmp]}", f"enable_upnp={yes['upnp' in speaks]}",
            "secure_mode=yes", "system_uptime=no", "min_lifetime=120", "max_lifetime=86400",
            "upnp_table_name=miniupnpd", "upnp_nat_table_name=miniupnpd", "upnp_forward_chain=forwarded", "upnp_nat_chain=in_map",
            "upnp_nat_postrouting_chain=out_map", "uuid=4d696e69-5550-4e50-4400-000000000001", "serial=1", "model_number=1",
            "allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535", ""]))
        self._last_words = "Listening for NAT-PMP" if by_pmp else "HTTP listening"
        silenced = [f"iifname lan0 udp dport 5351 @th,64,8 {version} drop;" for name, version in VERSIONS.items() if name not in speaks]
        self.box.nft(SILENCED.format(" ".join(silenced)))

    def start(self) -> None:
        self._started = time.monotonic()
        self.program = self.box.start("miniupnpd", ["/usr/sbin/miniupnpd", "-d", "-f", self._config, "-P", self.box.directory / "miniupnpd.pid"])
        wait_for(lambda: self._last_words in self.program.output(), 10, "miniupnpd serves")

    def age(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self._started

    def restart(self) -> None:
        """It comes back knowing nothing, as after a power cut."""
        self.program.kill()
        self.box.run("nft 'flush chain inet miniupnpd in_map; flush chain inet miniupnpd out_map; flush chain inet miniupnpd forwarded'")
        self.start()

    def forwards(self) -> list:
        """The rules by which it forwards."""
        shown = self.box.run("nft list chain inet miniupnpd in_map").stdout
        return [line.strip() for line in shown.splitlines() if "dnat" in line]
