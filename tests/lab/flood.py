"""Forged handshakes, as many as the machine gives."""
import json
import signal

from .lab import BUILD
from .program import CommandFailed

FLOOD = BUILD / "bench/flood"


class Flood:
    """Initiations with a right mac1 for the node of `agent`, each from another address, to where `at` is (its host when not given)."""

    def __init__(self, sender, agent, seconds: float = 60, rate: int = 0, at=None):
        victim = at or agent.host
        key = agent.status()["Self"]["PublicKey"].removeprefix("nodekey:")
        mac = victim.run("cat /sys/class/net/eth0/address").stdout.strip()
        self.seconds = seconds
        self.program = sender.start("flood", [FLOOD, "--interface", "eth0", "--to", victim.address, "--mac", mac, "--port", agent.port,
                                              "--key", key, "--rate", rate, "--seconds", seconds])

    def finish(self, stop: bool = True) -> dict:
        """{"sent", "seconds"}"""
        if stop:
            self.program.signal(signal.SIGINT)
        self.program.wait(self.seconds + 15)
        try:
            return json.loads(self.program.output())
        except ValueError:
            raise CommandFailed(f"flood: {self.program.output()}") from None
