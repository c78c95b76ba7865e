"""Calls to the kernel that fail, or are the agent's last, at a position of our choice. See tests/faults/faults.c."""
import mmap
import struct

from .lab import BUILD, Host
from .tailrace import AGENT_SOCKET, TAILRACED, Agent

LIBRARY = BUILD / "tests/faults/libtailrace_faults.so"
_LAYOUT = struct.Struct("III52s") # struct faults, but for its end
_WORD = struct.Struct("16s")
_KILLS = struct.Struct("I")


class FaultyAgent(Agent):
    """An agent whose calls about netlink, BPF and WireGuard are counted, and one of which can be made to fail."""

    def __init__(self, host: Host, *words, **named):
        path = host.directory / "faults"
        path.write_bytes(bytes(mmap.PAGESIZE))
        self._file = open(path, "r+b")
        self._page = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)
        super().__init__(host, *words, **named)

    def start(self, wait: bool = True) -> None:
        self.program = self.host.start("tailraced", [
            TAILRACED, "--state-dir", self.state, "--socket", AGENT_SOCKET, "--device", self.device, "--port", self.port,
            "--wireguard", self.wireguard, *self.more], env={"LD_PRELOAD": str(LIBRARY), "TAILRACE_FAULTS": str(self.host.directory / "faults")})
        if wait:
            self.wait_until_up()

    def fail_at(self, position: int) -> None:
        """The call of that number from now on fails; 0: none does, and calls are counted from now on."""
        self._set_kills(0)
        self._page[:_LAYOUT.size] = _LAYOUT.pack(position, 0, 0, b"")

    def kill_at(self, position: int) -> None:
        """Instead of the call of that number from now on the agent is killed."""
        self.fail_at(position)
        self._set_kills(1)

    def _set_kills(self, whether: int) -> None:
        at = _LAYOUT.size + _WORD.size
        self._page[at:at + _KILLS.size] = _KILLS.pack(whether)

    def without(self, word: str) -> None:
        """Netlink messages with this word in them fail from now on, "": none does."""
        self._page[_LAYOUT.size:_LAYOUT.size + _WORD.size] = _WORD.pack(word.encode())

    def calls(self) -> int:
        return _LAYOUT.unpack_from(self._page)[1]

    def failed_call(self) -> str:
        """Which it was; empty when none has failed."""
        _, _, fired, what = _LAYOUT.unpack_from(self._page)
        return what.split(b"\0")[0].decode() if fired else ""
