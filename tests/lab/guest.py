"""What scripts/uml and scripts/vm share: running one command in a guest that sees the host's files and changes none."""
import argparse
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

from .namespaces import end_with_parent

NOT_PASSED_ON = {"_", "SHLVL", "OLDPWD", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"}
TIMED_OUT = 124
DIED = 125


def parser(text: str) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mem", default="1G", help="memory of the guest")
    arguments.add_argument("--timeout", type=float, default=300, help="give up after this many seconds of the host's time")
    arguments.add_argument("command", nargs="+")
    return arguments


class Guest:
    """One start of a guest. `exchange` is the directory that host and guest share."""

    def __init__(self, room: str, mount: str, world: str = ""):
        self.room = room
        self.exchange = pathlib.Path(tempfile.mkdtemp(prefix=f"tailrace-{room}."))
        template = (pathlib.Path(__file__).parent / "guest-init.sh").read_text()
        init = (template.replace("@MOUNT@", mount.replace("@EXCHANGE@", str(self.exchange)))
                .replace("@WORLD@", world).replace("@HOSTNAME@", f"tailrace-{room}"))
        (self.exchange / "init").write_text(init)
        (self.exchange / "init").chmod(0o755)
        (self.exchange / "status").touch()

    def write_command(self, command: list) -> None:
        environment = {k: v for k, v in os.environ.items() if k.isidentifier() and k not in NOT_PASSED_ON}
        environment["TAILRACE_ROOM"] = self.room
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
        lines += [f"cd {shlex.quote(os.getcwd())} || exit 126", "exec " + " ".join(shlex.quote(word) for word in command)]
        (self.exchange / "command.sh").write_text("\n".join(lines) + "\n")

    def run(self, boot: list, timeout: float, environment=None) -> int:
        """Boots it, waits for its end and returns the command's exit status."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        machine = None
        try:
            with open(self.exchange / "machine.log", "wb") as log:
                machine = subprocess.Popen([str(word) for word in boot], stdin=subprocess.DEVNULL, stderr=log, start_new_session=True,
                                           env={**os.environ, "HOME": str(self.exchange), **(environment or {})},
                                           preexec_fn=end_with_parent)
                try:
                    machine.wait(timeout=timeout)
                except subprocess.TimeoutExpired:
                    print(f"scripts/{self.room}: the command did not end within {timeout:g} s", file=sys.stderr)
                    return TIMED_OUT
            status = (self.exchange / "status").read_text().strip()
            if not status:
                sys.stderr.write((self.exchange / "machine.log").read_text(errors="replace"))
                print(f"scripts/{self.room}: the guest ended before its command did", file=sys.stderr)
                return DIED
            return int(status)
        except KeyboardInterrupt:
            return 130
        finally:
            if machine is not None:
                try:
                    os.killpg(machine.pid, signal.SIGKILL) # for UML also the host processes that its programs run in
                except ProcessLookupError:
                    pass
                machine.wait()
            shutil.rmtree(self.exchange, ignore_errors=True)
