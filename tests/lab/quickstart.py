"""Tells the quickstart's story on a terminal. Started by scripts/quickstart as root, after the build.

usage: scripts/quickstart [--once]      --once cleans up at the end; otherwise the lab stays to play with
"""
import os
import pathlib
import signal
import sys
import tempfile
import time

from . import standing
from .lab import Lab
from .scenarios import quickstart
from .tailrace import missing_programs

WIDTH = 92


class Narrator:
    """Prints a line for each step that held, with the time it took and what there is to see."""

    def __init__(self):
        self.steps = 0
        self.started = self._last = time.monotonic()
        colour = sys.stdout.isatty()
        self._green, self._grey, self._red, self._off = ("\033[32m", "\033[90m", "\033[31m", "\033[0m") if colour else ("",) * 4

    def __call__(self, sentence: str, detail: str = "", show=()) -> None:
        now = time.monotonic()
        self.steps += 1
        print(f" {self._green}ok{self._off}  {sentence:<{WIDTH - 12}}{self._grey}{now - self._last:5.1f} s{self._off}")
        if detail:
            print(f"     {self._grey}{detail}{self._off}")
        for host, command, output in show:
            print(f"     {self._grey}{host}${self._off} {command}")
            for line in output.rstrip().splitlines():
                print(f"     {self._grey}|{self._off} {line.rstrip()}")
        sys.stdout.flush()
        self._last = now

    def failed(self, error: BaseException) -> None:
        print(f" {self._red}FAILED{self._off} after step {self.steps}: {error}")


def why_not_kernel(kind: str) -> str:
    if kind == "wireguard-go":
        return "wireguard-go in userspace, for this kernel has no WireGuard module"
    return kind


def tell(lab: Lab) -> bool:
    narrator = Narrator()
    try:
        net = quickstart.run(lab, narrator)
    except Exception as error: # whatever it is, the reader wants to know after which step
        narrator.failed(error)
        print(f"     logs: {lab.directory}/HOST/PROGRAM.log")
        return False
    seconds = time.monotonic() - narrator.started
    print(f"\nAll {narrator.steps} steps held, in {seconds:.1f} s. Encryption: {why_not_kernel(net.gateway.device_kind())}.")
    return True


def main(words: list) -> int:
    if words not in ([], ["--once"]):
        print(__doc__, file=sys.stderr)
        return 2
    if missing_programs():
        print(f"error: not built: {', '.join(missing_programs())}", file=sys.stderr)
        return 1
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print("tailrace quickstart: a tailnet on this machine\n")
    if words == ["--once"]:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="tailrace-quickstart."))
        with Lab(directory) as lab:
            held = tell(lab)
        if held:
            lab.remove_files() # after a failure the logs are wanted
        return 0 if held else 1

    lab = standing.new()
    held = False
    try:
        held = tell(lab)
        lab.save(standing.SAVED)
    finally:
        if not held:
            lab.destroy()
    if held:
        print("""
The lab stays up:
  scripts/lab exec alice tailrace status
  scripts/lab exec bob curl http://$(scripts/lab exec gateway tailrace ip -4)/payload     # refused now
  scripts/lab exec control tailrace-control policy get
  scripts/lab status
  scripts/lab down""")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
