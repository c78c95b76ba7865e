"""The packages that scripts/package has built, and their predecessors.

A predecessor has a lower version and another default configuration. What is in it are the programs of an earlier commit, where
scripts/package has kept packages of one (each time that it builds a clean tree, or when asked: `scripts/package --earlier`), and
else those of now: to build a second commit in each run of the tests would take longer than most rooms. came_from() says which.
"""
import os
import pathlib
import shutil
import subprocess

import pytest

from lab.lab import PROJECT

KEPT = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tailrace/packages" # one folder a commit
BUILT = pathlib.Path(os.environ.get("TAILRACE_PACKAGES", PROJECT / "build-package"))
NAMES = ("tailrace", "tailrace-control", "tailrace-relay")


def built() -> dict:
    found = {name: sorted(BUILT.glob(f"{name}_*.deb")) for name in NAMES}
    if not all(found.values()):
        pytest.skip("no packages: run scripts/package first")
    return {name: files[-1] for name, files in found.items()}


def sources_of(folder: pathlib.Path) -> str:
    file = folder / "sources.sha256"
    return file.read_text() if file.exists() else ""


def earlier() -> pathlib.Path | None:
    """Where the packages of the newest commit before this tree are that are kept, and of other sources. A shallow clone has few
    commits, a tree without git none."""
    log = subprocess.run(["git", "rev-list", "--max-count=1000", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    for commit in log.stdout.split() if log.returncode == 0 else []:
        folder = KEPT / commit
        if all(list(folder.glob(f"{name}_*.deb")) for name in NAMES) and sources_of(folder) != sources_of(BUILT):
            return folder
    return None


def came_from() -> str:
    folder = earlier()
    return f"packages of commit {folder.name[:12]}" if folder else "packages of this build with a lower version, for none of an earlier commit are kept"


def predecessor(deb: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    kept = earlier()
    source = next(kept.glob(f"{deb.name.split('_')[0]}_*.deb")) if kept else deb
    tree = folder / (deb.stem + ".tree")
    subprocess.run(["dpkg-deb", "--raw-extract", source, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("".join(f"{'Version: 0.0.9' if line.startswith('Version:') else line}\n" for line in lines))
    for name in ("tailraced.yaml", "control.yaml", "relay.yaml"):
        file = tree / "etc/tailrace" / name
        if file.exists():
            file.write_text("# as it was shipped before\n" + file.read_text())
    sums = tree / "DEBIAN/md5sums"
    sums.write_text("".join(line + "\n" for line in sums.read_text().splitlines() if "/etc/" not in line))
    out = folder / f"{deb.name.split('_')[0]}_0.0.9_old.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "-z0", "--build", tree, out], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return out


def dpkg_with_needs_of(debs: list, folder: pathlib.Path) -> None:
    """A database of dpkg that knows of the host's packages those that these depend on."""
    needs = {"dpkg"}
    for deb in debs:
        depends = subprocess.run(["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True, check=True).stdout
        needs |= {word.split()[0] for word in depends.replace("|", ",").split(",") if word.strip()}
    host = pathlib.Path("/var/lib/dpkg")
    for name in ("info", "updates", "alternatives"):
        (folder / name).mkdir(parents=True)
    (folder / "available").touch()
    known = [text for text in (host / "status").read_text().split("\n\n") if text.partition("\n")[0].removeprefix("Package: ") in needs]
    (folder / "status").write_text("".join(f"{text}\n\n" for text in known))
    shutil.copy(host / "info/format", folder / "info")
    for name in needs:
        for file in [*host.glob(f"info/{name}.list"), *host.glob(f"info/{name}:*.list")]:
            shutil.copy(file, folder / "info")
