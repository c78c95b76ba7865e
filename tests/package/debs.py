"""The packages that scripts/package has built, and their predecessors: the same with a lower version and another default."""
import os
import pathlib
import shutil
import subprocess

import pytest

from lab.lab import PROJECT

BUILT = pathlib.Path(os.environ.get("TAILRACE_PACKAGES", PROJECT / "build-package"))
NAMES = ("tailrace", "tailrace-control", "tailrace-relay")


def built() -> dict:
    found = {name: sorted(BUILT.glob(f"{name}_*.deb")) for name in NAMES}
    if not all(found.values()):
        pytest.skip("no packages: run scripts/package first")
    return {name: files[-1] for name, files in found.items()}


def predecessor(deb: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    tree = folder / (deb.stem + ".tree")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
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
