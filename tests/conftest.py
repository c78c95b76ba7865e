"""How the tests of all rooms run.

A test in tests/uml or tests/vm runs in a guest: here we only start the guest, which runs pytest on that one test and
reports back. In the guest, and in the other rooms, a test gets the fixture `lab`.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
PROJECT = TESTS.parent
sys.path.insert(0, str(TESTS))

from lab import stock, tailrace # noqa: E402
from lab.lab import Lab # noqa: E402

ROOM = os.environ.get("TAILRACE_ROOM", "") # "uml" or "vm" in a guest
OUTCOME = "TAILRACE-GUEST-OUTCOME "
LOG_TAIL_LINES = 40


# -- in a guest: say how the test went

def pytest_terminal_summary(terminalreporter):
    if not ROOM:
        return
    for outcome in ("error", "failed", "skipped", "passed"):
        for report in terminalreporter.stats.get(outcome, []):
            reason = report.longrepr[2] if outcome == "skipped" else ""
            sys.__stdout__.write("\n" + OUTCOME + json.dumps({"outcome": "failed" if outcome == "error" else outcome, "reason": reason}) + "\n")
            sys.__stdout__.flush()
            return


# -- on the host: a test of a guest's room goes to a guest

def room_of(item) -> str:
    folder = item.path.relative_to(TESTS).parts[0]
    is_guest = folder in ("uml", "vm") and not ROOM and item.get_closest_marker("host_only") is None
    return folder if is_guest else ""


def run_in_guest(item, room: str):
    """(outcome, longrepr, output)"""
    asked = item.get_closest_marker("guest")
    wishes = asked.kwargs if asked else {}
    timeout = wishes.get("timeout", 120)
    command = [str(PROJECT / "scripts" / room), "--timeout", str(timeout), "--mem", wishes.get("mem", "1G")]
    if room == "uml" and item.get_closest_marker("time_travel"):
        command.append("--time-travel")
    command += ["--", "/usr/bin/python3", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", item.nodeid]
    done = subprocess.run(command, cwd=item.config.rootpath, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=timeout + 900) # the first use may build a kernel
    told = [line for line in done.stdout.splitlines() if line.startswith(OUTCOME)]
    if not told:
        return "failed", f"the guest ended with {done.returncode} and no outcome:\n{done.stdout[-6000:]}", ""
    outcome = json.loads(told[-1][len(OUTCOME):])
    if outcome["outcome"] == "skipped":
        return "skipped", (str(item.path), 0, outcome["reason"]), ""
    return outcome["outcome"], done.stdout if outcome["outcome"] == "failed" else None, done.stdout


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    room = room_of(item)
    if not room:
        return None
    report_log = item.ihook.pytest_runtest_logreport
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    start = time.time()
    outcome, longrepr, output = run_in_guest(item, room)
    stop = time.time()

    def report(when, outcome, longrepr):
        return pytest.TestReport(item.nodeid, item.location, {name: 1 for name in item.keywords}, outcome, longrepr, when,
                                 start=start, stop=stop, duration=stop - start if when == "call" else 0)
    report_log(report=report("setup", "passed", None))
    report_log(report=report("call", outcome, longrepr))
    report_log(report=report("teardown", "passed", None))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
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
