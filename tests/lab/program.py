"""A program on a host: started by us, killed by its pid, its output in a file."""
import pathlib
import re
import signal
import subprocess

from .wait import wait_for


class CommandFailed(AssertionError):
    pass


class Program:
    def __init__(self, name: str, process: subprocess.Popen, log: pathlib.Path, log_begins_at: int = 0):
        self.name = name
        self.pid = process.pid # as seen from outside the lab
        self.log = log
        self._process = process
        self._log_begins_at = log_begins_at # bytes; before it stands what an earlier program of that name wrote

    def alive(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        return self.log.read_bytes()[self._log_begins_at:].decode(errors="replace")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{self.name} did not end within {timeout:g} s:\n{self.output()[-2000:]}") from None

    def kill(self) -> None:
        """As kill -9: the program gets no chance to say goodbye."""
        if self.alive():
            self._process.kill()
        self._process.wait(10)

    def stop(self, timeout: float = 5) -> int:
        """An orderly stop; a program that does not follow is killed."""
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)

    def wait_for_output(self, pattern: str, timeout: float = 10) -> re.Match:
        def found():
            match = re.search(pattern, self.output())
            if match is None and not self.alive():
                raise CommandFailed(f"{self.name} ended with {self._process.returncode}:\n{self.output()[-2000:]}")
            return match
        return wait_for(found, timeout, f"{self.name} writes {pattern!r}")
