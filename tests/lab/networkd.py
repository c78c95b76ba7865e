"""systemd-networkd on a host of a lab, which has no systemd: its links are made to look as if udev had seen them."""
import pathlib
import signal

from .lab import PROJECT, Host
from .wait import wait_for

PROGRAM = pathlib.Path("/lib/systemd/systemd-networkd")
SHIPPED = PROJECT / "debian/lib/systemd" # what our package puts into /usr/lib/systemd
FOLDER = "/run/systemd"


class Networkd:
    """Gives eth0 the addresses that it is told to, each with its gateway."""

    def __init__(self, host: Host, addresses: dict, shipped: bool, files=()):
        """`shipped`: with the files of our package. `files`: others, (name, text)."""
        self.host = host
        host.run(["mkdir", "-p", f"{FOLDER}/network", f"{FOLDER}/networkd.conf.d", *(f"{FOLDER}/netif/{name}" for name in ("links", "leases", "lldp")), "/run/udev/data"])
        host.run(["chown", "-R", "systemd-network", f"{FOLDER}/netif"])
        host.run("touch /run/udev/control")
        lines = [line for address, gateway in addresses.items() for line in (f"Address={address}", f"Gateway={gateway}")]
        self._write("network/10-eth0.network", "\n".join(["[Match]", "Name=eth0", "[Network]", "IPv6AcceptRA=no", *lines, ""]))
        for name, text in files:
            self._write(f"network/{name}", text)
        for file in [*SHIPPED.glob("network/*"), *SHIPPED.glob("networkd.conf.d/*")] if shipped else []:
            self._write(str(file.relative_to(SHIPPED)), file.read_text())
        host.ip("address flush dev eth0 scope global")
        self.program = None
        self.start()

    def _write(self, name: str, text: str) -> None:
        self.host.run(["busybox", "sh", "-c", f"cat > {FOLDER}/{name}"], input=text)

    def start(self) -> None:
        self.host.run(["busybox", "sh", "-c", "for link in /sys/class/net/*; do echo I:1 >/run/udev/data/n$(cat $link/ifindex); done"])
        self.program = self.host.start("networkd", [PROGRAM], env={"SYSTEMD_LOG_LEVEL": "debug"})
        wait_for(lambda: "eth0: State changed: configuring -> configured" in self.program.output(), 15, "systemd-networkd has configured eth0")

    def restart(self, by: signal.Signals) -> None:
        """SIGUSR2: as `systemctl restart` does it; SIGTERM: as `systemctl stop` does."""
        self.program.signal(by)
        self.program.wait(10)
        self.start()
