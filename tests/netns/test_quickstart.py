"""The quickstart's story with agents on this machine's kernel. Picture: lab/scenarios/quickstart.py"""
import os
import re
import subprocess

from lab.lab import PROJECT
from lab.scenarios import quickstart


def silent(*_, **__):
    pass


def test_the_whole_story_holds(lab, programs):
    quickstart.run(lab, silent)


def told(tmp_path, *words: str):
    """The program behind scripts/quickstart."""
    command = ["/usr/bin/python3", *words]
    done = subprocess.run(command, cwd=PROJECT / "tests", env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=120)
    print(done.stdout + done.stderr)
    return done


def test_it_is_told_and_cleaned_up(tmp_path, programs):
    done = told(tmp_path, "-m", "lab.quickstart", "--once")
    assert done.returncode == 0
    assert re.search(r"^All 11 steps held, in [\d.]+ s\. Encryption: (wireguard-go|kernel WireGuard)", done.stdout, re.M)
    assert "drop no-rule" in done.stdout and done.stdout.count(" ok ") == 11
    assert not list(tmp_path.iterdir()), "the files of the lab are gone"


def test_a_step_that_does_not_hold_is_an_exit_status(tmp_path, programs):
    """Both policies are the first: nobody passes who was refused."""
    done = told(tmp_path, "-c", "import sys; from lab import quickstart; from lab.scenarios import quickstart as story;"
                "story.SECOND_POLICY = story.FIRST_POLICY; sys.exit(quickstart.main(['--once']))")
    assert done.returncode == 1 and "FAILED after step 8" in done.stdout
    assert list(tmp_path.glob("*/alice/*.log")), "the logs are kept"
