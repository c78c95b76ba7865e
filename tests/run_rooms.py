"""Builds and runs the test rooms. Started by scripts/test, which has installed the packages.

A room is made of suites: test programs, or files of tests for pytest. Suites run side by side, those that compute one a
core, those that mostly wait several; each has a network, processes and a kernel of its own where it needs them. A suite
writes its result in JUnit's form, and what is counted and listed at the end comes from those files. One that ends without (it crashed, it hung) counts as one failure.
"""
import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

from lab import stock
from lab.namespaces import end_with_parent

PROJECT = pathlib.Path(__file__).resolve().parent.parent
BUILD = PROJECT / os.environ.get("BUILD_DIR", "build")
# Pure code is tested in a build of its own, by clang and under its sanitizers; programs run as they are shipped.
SANITIZED = PROJECT / "build-sanitized"
RESULTS = BUILD / "test-results"
ROOMS = ["bpf", "vm", "package", "uml", "netns", "interop", "unit", "sim", "fuzz"] # in the order in which their suites start
LONG = ["netns_regions", "netns_hard_nat", "netns_exit_node", "netns_routers", "netns_faults", "uml_matrix", "uml_paths", "uml_hours",
        "netns_peer_relay", "netns_moving", "netns_via6", "netns_control_restart"] # and these first, lest all wait for them at the end
SANITIZED_ROOMS = {"unit", "fuzz"}
LARGE = "tests/unit/large/large" # of the room unit, and not sanitized
STOCK_PROGRAMS = ("tailscaled", "tailscale", "derper", "headscale")
PYTEST_ROOMS = {"netns", "uml", "vm", "interop", "package"}
TIMED_ROOMS = PYTEST_ROOMS | {"bpf", "sim"} # daemons and kernels that look at the clock
FUZZ_SECONDS = 20
SUITE_TIMEOUT = {"unit": 600, "sim": 300, "bpf": 600, "fuzz": 600, "netns": 600, "uml": 900, "vm": 900, "interop": 900, "package": 900}
CORES = os.cpu_count() or 1
AT_ONCE = {"compute": CORES, "wait": 3 * CORES, "fuzz": 4 * CORES}


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list = dataclasses.field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes


def give_way(level: int) -> None:
    """Called in a child with a session of its own. Linux shares processors among sessions first, and a nice value counts only
    within one; a session has another."""
    os.nice(level)
    try:
        pathlib.Path("/proc/self/autogroup").write_text(str(level))
    except OSError: # a kernel that does not do so
        pass


def start_aside(command: list, log: pathlib.Path, level: int) -> subprocess.Popen:
    """Runs beside everything else and gives way to it."""
    def in_the_child():
        end_with_parent()
        give_way(level)
    with open(log, "wb") as out:
        return subprocess.Popen([str(word) for word in command], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                start_new_session=True, preexec_fn=in_the_child)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def read_junit(path: pathlib.Path, suite: str) -> Outcome:
    outcome = Outcome()
    for case in xml.parse(path).getroot().iter("testcase"):
        name = f"{suite}: {case.get('classname', '')}.{case.get('name', '')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
            outcome.notes.append(f"FAILED  {name}")
        elif skipped is not None or case.get("status") == "notrun" or case.get("result") == "skipped":
            outcome.skipped += 1
            reason = (skipped.get("message") or "").splitlines() if skipped is not None else []
            outcome.notes.append(f"skipped {name}{': ' + reason[0] if reason else ''}")
        else:
            outcome.passed += 1
    return outcome


class Suite:
    """One test program: started with its output in a log, judged by its JUnit file and its exit status."""

    def __init__(self, room: str, name: str, command: list, environment=None, junit: bool = True):
        self.room = room
        self.kind = "wait" if room in PYTEST_ROOMS else "fuzz" if room == "fuzz" else "compute"
        self.name = name
        self.junit = RESULTS / f"{name}.xml" if junit else None
        self.log = RESULTS / f"{name}.log"
        self._command = command
        self._environment = {**os.environ, **(environment or {})}

    def start(self) -> None:
        for old in (self.junit, self.log):
            if old is not None:
                old.unlink(missing_ok=True)
        self._started = time.monotonic()
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen([str(word) for word in self._command], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=subprocess.STDOUT, env=self._environment, start_new_session=True,
                                             preexec_fn=self._in_the_child)

    def _in_the_child(self) -> None:
        end_with_parent()
        if self.kind == "fuzz": # takes its time whatever runs beside it, and must not take it from a test that looks at the clock
            give_way(15)

    def ended(self) -> bool:
        if time.monotonic() - self._started > SUITE_TIMEOUT[self.room]:
            os.killpg(self._process.pid, signal.SIGKILL)
        pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._status = os.waitstatus_to_exitcode(status)
        self._cpu_seconds = used.ru_utime + used.ru_stime # with those of all whom it waited for
        return True

    def judge(self) -> Outcome:
        seconds = time.monotonic() - self._started
        status = self._status
        outcome = Outcome()
        if self.junit is not None:
            try:
                outcome = read_junit(self.junit, self.name)
            except (OSError, xml.ParseError):
                status = status or -1
        elif status == 0:
            outcome.passed = 1
        if status != 0 and outcome.failed == 0 and not (status == 5 and self.room in PYTEST_ROOMS): # 5: pytest found no tests
            outcome.failed += 1
            why = "took too long and was killed" if status == -signal.SIGKILL else f"ended with {status}"
            outcome.notes.append(f"FAILED  {self.name} {why}")
        if outcome.failed:
            lines = self.log.read_text(errors="replace").splitlines()
            # The logs of many programs, or the tests after it, may follow what was asserted: pytest's lines, and GoogleTest's with what they say.
            early = lines[:-150]
            assertions = [line for at, line in enumerate(early)
                          if line.startswith("E   ") or any(": Failure" in before for before in early[max(0, at - 5):at + 1])][:40]
            sys.stdout.write("".join(f"    {line}\n" for line in [*assertions, *lines[-150:]]))
        say(f"{self.name}: {outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped, {seconds:.1f} s, CPU {self._cpu_seconds:.1f} s")
        return outcome


def run_all(waiting: list, ready) -> Outcome:
    """Runs suites side by side, in their order, of each kind so many; those of a room that is not ready(room) wait. What
    looks at the clock is judged without company when it failed in it; that it did is told."""
    total, running, again = Outcome(), [], []
    while waiting or running:
        for suite in [s for s in running if s.ended()]:
            running.remove(suite)
            outcome = suite.judge()
            if outcome.failed and suite.room in TIMED_ROOMS:
                again.append(suite)
            else:
                total.add(outcome)
        for suite in list(waiting):
            if sum(other.kind == suite.kind for other in running) < AT_ONCE[suite.kind] and ready(suite.room):
                waiting.remove(suite)
                suite.start()
                running.append(suite)
        time.sleep(0.05)
    for suite in again:
        say(f"{suite.name} once more, alone")
        suite.log.replace(suite.log.with_suffix(".beside-others.log"))
        suite.start()
        while not suite.ended():
            time.sleep(0.05)
        total.add(suite.judge())
        total.notes.append(f"again   {suite.name}: failed beside other suites, so it was run alone")
    return total


def in_good_order(suites: list) -> list:
    """Those of uml compute and those of netns mostly wait, so they take turns."""
    by_room = {room: [suite for suite in suites if suite.room == room] for room in ("uml", "netns")}
    turns = [suite for pair in itertools.zip_longest(*by_room.values()) for suite in pair if suite is not None]
    ordered = [turns.pop(0) if suite.room in by_room else suite for suite in suites]
    return sorted(ordered, key=lambda suite: suite.name not in LONG)


def run(*command) -> None:
    done = subprocess.run([str(word) for word in command], cwd=PROJECT)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(str(word) for word in command)} failed")


def targets(build: pathlib.Path, folder: str, prefix: str) -> list:
    """Executables of a build whose path is FOLDER/.../PREFIX_*."""
    found = []
    for target in json.loads((build / "meson-info/intro-targets.json").read_text(encoding="utf-8")):
        path = pathlib.Path(target["filename"][0])
        relative = str(path.relative_to(build))
        if target["type"] == "executable" and relative.startswith(folder + "/") and path.name.startswith(prefix):
            found.append(relative)
    return sorted(found)


def start_sanitized_configuration() -> subprocess.Popen:
    say("configuring the build with sanitizers")
    return start_aside(["env", "CC=ccache clang-14", "CXX=ccache clang++-14", "meson", "setup", SANITIZED, "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Doptimization=0",
                        "-Dcpp_args=-fsanitize=fuzzer-no-link", "-Dc_args=-fsanitize=fuzzer-no-link"], RESULTS / "configure-sanitized.log", 0)


def start_sanitized_build() -> subprocess.Popen:
    wanted = targets(SANITIZED, "tests/unit", "unit_") + targets(SANITIZED, "tests/fuzz", "fuzz_")
    return start_aside(["ninja", "-C", SANITIZED, *wanted, "tests/policy_vectors"], RESULTS / "build-sanitized.log", 1)


SANITIZER_OPTIONS = {"ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


def pytest_suite(room: str, name: str, what: pathlib.Path) -> Suite:
    return Suite(room, name, ["/usr/bin/python3", "-m", "pytest", what.relative_to(PROJECT), "-v", "--tb=short", "-rs",
                              f"--junitxml={RESULTS}/{name}.xml"])


def suites_of(room: str) -> list:
    if room in ("unit", "sim", "bpf"):
        build, environment = (SANITIZED, SANITIZER_OPTIONS) if room in SANITIZED_ROOMS else (BUILD, None)
        suites = [Suite(room, pathlib.Path(t).name, [build / t, f"--gtest_output=xml:{RESULTS}/{pathlib.Path(t).name}.xml"], environment)
                  for t in targets(build, f"tests/{room}", f"{room}_")]
        if room == "unit":
            suites.append(Suite(room, "unit_large", [BUILD / LARGE, f"--gtest_output=xml:{RESULTS}/unit_large.xml"]))
            suites.append(Suite(room, "policy_vectors", [build / "tests/policy_vectors", PROJECT / "tests/vectors/policy"], environment, junit=False))
            recorded = PROJECT.parent / "shared/vectors/policy" # all answers of the real service, where somebody has put them beside us
            if recorded.is_dir():
                suites.append(Suite(room, "policy_vectors_recorded", [build / "tests/policy_vectors", recorded], environment, junit=False))
        return suites
    if room == "fuzz":
        suites = []
        for target in targets(SANITIZED, "tests/fuzz", "fuzz_"):
            name = pathlib.Path(target).name
            corpus = PROJECT / "tests/fuzz/corpus" / name.removeprefix("fuzz_")
            found = RESULTS / f"{name}.corpus" # what this run discovers stays out of the checkout
            found.mkdir(exist_ok=True)
            suites.append(Suite(room, name, [SANITIZED / target, f"-max_total_time={FUZZ_SECONDS}", "-timeout=60", "-rss_limit_mb=1024",
                                             f"-artifact_prefix={RESULTS}/{name}.", found, *([corpus] if corpus.is_dir() else [])],
                                SANITIZER_OPTIONS, junit=False))
        return suites
    if room == "interop" and not any(stock.binary(name) for name in STOCK_PROGRAMS): # all that they do then is to say so
        return [pytest_suite(room, room, PROJECT / "tests/interop")]
    files = sorted((PROJECT / "tests" / room).glob("test_*.py"), key=lambda file: -file.read_text().count("@pytest.mark.parametrize"))
    return [pytest_suite(room, f"{room}_{file.stem.removeprefix('test_')}", file) for file in files]


class Preparation:
    """A program that must have ended well before some of the rooms can begin."""

    def __init__(self, what: str, rooms: set, process: subprocess.Popen, log: pathlib.Path):
        self.rooms = rooms
        self._what = what
        self._process = process
        self._log = log

    def wait(self) -> None:
        self._process.wait()
        self.done()

    def done(self) -> bool:
        if self._process.poll() is None:
            return False
        if self._process.returncode != 0:
            sys.stdout.write(self._log.read_text(encoding="utf-8", errors="replace")[-6000:])
            sys.exit(f"error: {self._what} failed")
        return True


def start_kernel_build() -> subprocess.Popen:
    """Some minutes on a new machine, so it begins first and runs beside our own build."""
    return start_aside([PROJECT / "tests/uml/build-kernel"], RESULTS / "build-kernel.log", 1)


def start_package_build() -> subprocess.Popen:
    """Has nothing to do when the packages of these sources are there. Those with debugging symbols are not tested."""
    os.environ.setdefault("DEB_BUILD_OPTIONS", "noautodbgsym")
    os.environ.setdefault("DPKG_DEB_COMPRESSOR_LEVEL", "1") # packed for a test, not for a mirror
    return start_aside([PROJECT / "scripts/package"], RESULTS / "build-package.log", 1)


def main() -> int:
    # A fresh clone finds what another clone on this machine has compiled already.
    os.environ.update(CCACHE_BASEDIR=str(PROJECT), CCACHE_NOHASHDIR="1", LC_ALL="C.UTF-8")
    parser = argparse.ArgumentParser(prog="scripts/test", description="Builds and runs the tests of the rooms named, or of all.")
    parser.add_argument("room", nargs="*", choices=[*ROOMS, []], help=", ".join(ROOMS))
    rooms = [room for room in ROOMS if room in (parser.parse_args().room or ROOMS)]
    started = time.monotonic()

    RESULTS.mkdir(parents=True, exist_ok=True)
    preparations = []
    if {"uml", "package"} & set(rooms):
        preparations.append(Preparation("the build of the user-mode Linux kernel", {"uml", "package"}, start_kernel_build(), RESULTS / "build-kernel.log"))
    configuration = None
    if SANITIZED_ROOMS & set(rooms) and not (SANITIZED / "build.ninja").exists():
        configuration = Preparation("the configuration of the build with sanitizers", SANITIZED_ROOMS, start_sanitized_configuration(),
                                    RESULTS / "configure-sanitized.log")
    if set(rooms) - SANITIZED_ROOMS:
        run(PROJECT / "scripts/build")
    elif "unit" in rooms:
        run(PROJECT / "scripts/build", LARGE)
    if "package" in rooms:
        preparations.append(Preparation("the build of the packages", {"package"}, start_package_build(), RESULTS / "build-package.log"))
    suites = [suite for room in rooms if room not in SANITIZED_ROOMS for suite in suites_of(room)]
    if SANITIZED_ROOMS & set(rooms):
        if configuration:
            configuration.wait()
        preparations.append(Preparation("the build with sanitizers", SANITIZED_ROOMS, start_sanitized_build(), RESULTS / "build-sanitized.log"))
        suites += [suite for room in rooms if room in SANITIZED_ROOMS for suite in suites_of(room)]
    say(f"{len(suites)} suites of the rooms {', '.join(rooms)}")
    total = run_all(in_good_order(suites), lambda room: all(preparation.done() for preparation in preparations if room in preparation.rooms))

    print()
    for note in total.notes:
        print(note)
    print(f"{time.monotonic() - started:.0f} s; logs and results in {RESULTS.relative_to(PROJECT)}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or total.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
