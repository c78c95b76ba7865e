"""The one lab of a machine that stays up between commands: scripts/quickstart makes it, scripts/lab uses and ends it."""
import pathlib
import shutil

from .lab import Lab

DIRECTORY = pathlib.Path("/var/lib/tailrace-lab")
SAVED = DIRECTORY / "lab.json"


def find() -> Lab:
    """The lab that stands, or None."""
    return Lab.load(SAVED)


def new() -> Lab:
    """Space for a new one; an earlier one is ended."""
    take_down()
    DIRECTORY.mkdir(mode=0o700, parents=True)
    return Lab(DIRECTORY, outlives_us=True)


def take_down() -> None:
    lab = find()
    if lab is not None:
        lab.destroy()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
