"""How the tests of all rooms run.

Tests in tests/uml and tests/vm run in a guest: here we only start the guest, which runs pytest on tests of one file and
reports back. In the guest, and in the other rooms, a test gets the fixture `lab`.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
PROJECT = TESTS.parent
sys.path.insert(0, str(TESTS))

from lab import stock, tailrace # noqa: E402
from lab.lab import Lab # noqa: E402
from lab.namespaces import end_with_parent # noqa: E402

ROOM = os.environ.get("TAILRACE_ROOM", "") # "uml" or "vm" in a guest
OUTCOME = "TAILRACE-GUEST-OUTCOME "
LOG_TAIL_LINES = 40


# -- in a guest: say how each test went

def pytest_runtest_logreport(report):
    if not ROOM or not (report.when == "call" or report.outcome != "passed"):
        return
    reason = report.longrepr[2] if report.outcome == "skipped" else ""
    told = {"test": report.nodeid, "outcome": report.outcome, "reason": reason, "seconds": report.duration}
    sys.__stdout__.write("\n" + OUTCOME + json.dumps(told) + "\n")
    sys.__stdout__.flush()


# -- on the host: tests of a guest's room go to a guest

def room_of(item) -> str:
    folder = item.path.relative_to(TESTS).parts[0]
    is_guest = folder in ("uml", "vm") and not ROOM and item.get_closest_marker("host_only") is None
    return folder if is_guest else ""


def wishes_of(item) -> dict:
    asked = item.get_closest_marker("guest")
    return {"mem": "1G", "timeout": 120, **(asked.kwargs if asked else {}), "time_travel": item.get_closest_marker("time_travel") is not None}


def shares_guest(item, other) -> bool:
    """Tests of one file that want the same machine share one: a boot and a start of pytest cost as much as a short test."""
    mine, theirs = wishes_of(item), wishes_of(other)
    return item.path == other.path and room_of(item) == room_of(other) and all(mine[name] == theirs[name] for name in ("mem", "time_travel"))


def run_in_guest(items: list, room: str) -> None:
    """Runs tests up to the first that fails, and leaves at those that it came to `guest_outcome`: (what was told, output)."""
    timeout = sum(wishes_of(item)["timeout"] for item in items)
    command = [str(PROJECT / "scripts" / room), "--timeout", str(timeout), "--mem", wishes_of(items[0])["mem"]]
    if wishes_of(items[0])["time_travel"]:
        command.append("--time-travel")
    command += ["--", "/usr/bin/python3", "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", *(item.nodeid for item in items)]
    guest = subprocess.Popen(command, cwd=items[0].config.rootpath, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace", preexec_fn=lambda: end_with_parent(signal.SIGTERM))
    try:
        output, _ = guest.communicate(timeout=timeout + 900) # the first use may build a kernel
    except BaseException:
        guest.terminate() # it clears up after itself
        guest.wait(30)
        raise
    told = [json.loads(line[len(OUTCOME):]) for line in output.splitlines() if line.startswith(OUTCOME)]
    for outcome in told: # of two for one test, the failed clearing up after it is the second
        for item in items:
            if item.nodeid == outcome["test"]:
                item.guest_outcome = (outcome, output)
    unheard = next((item for item in items if not hasattr(item, "guest_outcome")), None)
    if unheard is not None and not any(outcome["outcome"] == "failed" for outcome in told):
        why = f"the guest ended with {guest.returncode} and no outcome:\n{output[-6000:]}"
        unheard.guest_outcome = ({"outcome": "failed", "reason": "", "seconds": 0}, why)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    room = room_of(item)
    if not room:
        return None
    report_log = item.ihook.pytest_runtest_logreport
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    start = time.time()
    if not hasattr(item, "guest_outcome"):
        run_in_guest([other for other in item.session.items if not hasattr(other, "guest_outcome") and shares_guest(item, other)], room)
    told, output = item.guest_outcome
    longrepr = {"failed": output, "skipped": (str(item.path), 0, told["reason"])}.get(told["outcome"])

    def report(when, outcome, longrepr):
        return pytest.TestReport(item.nodeid, item.location, {name: 1 for name in item.keywords}, outcome, longrepr, when,
                                 start=start, stop=time.time(), duration=told["seconds"] if when == "call" else 0)
    report_log(report=report("setup", "passed", None))
    report_log(report=report("call", told["outcome"], longrepr))
    report_log(report=report("teardown", "passed", None))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem) # what a test on the host has left for others of its file
    return True


# -- everywhere

def pytest_runtest_setup(item):
    needed = [name for marker in item.iter_markers("needs") for name in marker.args]
    missing = [name for name in needed if not stock.binary(name)]
    if missing:
        pytest.skip(f"set {', '.join(name.upper() for name in missing)} to the stock program{'s' if len(missing) > 1 else ''}")


@pytest.fixture
def lab(tmp_path, request):
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Lab(tmp_path / "lab") as lab:
        request.node.lab = lab
        yield lab


@pytest.fixture
def programs():
    """Our daemons must be built."""
    missing = tailrace.missing_programs()
    if missing:
        pytest.skip(f"not built yet: {', '.join(missing)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of every program's log."""
    result = yield
    report = result.get_result()
    lab = getattr(item, "lab", None)
    if report.when == "call" and report.failed and lab is not None:
        for log in sorted(lab.directory.glob("*/*.log")):
            tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            if tail:
                report.sections.append((str(log.relative_to(lab.directory)), "\n".join(tail)))
