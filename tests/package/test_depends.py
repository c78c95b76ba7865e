"""What the packages say they depend on is enough: they are installed, used and purged in a root that has of this machine's
packages the essential ones and those declared, with what these depend on, and no other file.
"""
import os
import pathlib
import re
import subprocess

import pytest

from .debs import built

DPKG = pathlib.Path("/var/lib/dpkg")
# Of no use to a program, and most of what is to copy.
NOT_NEEDED = re.compile(r"/usr/share/(doc|man|info|locale|i18n|lintian|zoneinfo|bash-completion)/.|/usr/include/.")
# What others make of what the packages have.
MADE = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/nsswitch.conf", "/etc/ld.so.conf", "/usr/bin/awk", "/usr/bin/which"]


def paragraphs(text: str) -> list:
    fields = re.compile(r"^([A-Za-z-]+): ?(.*(?:\n[ \t].*)*)", re.M)
    return [dict(fields.findall(part)) | {"text": part} for part in text.split("\n\n") if part.strip()]


class Installed:
    """The packages of this machine, as dpkg knows them."""

    def __init__(self):
        self.packages = {one["Package"]: one for one in paragraphs((DPKG / "status").read_text()) if one["Status"].endswith(" installed")}
        self.providers = {}
        for name, one in self.packages.items():
            for provided in [name, *(word.split()[0] for word in one.get("Provides", "").split(",") if word.strip())]:
                self.providers.setdefault(provided, name)

    def needs(self, fields: dict) -> set:
        """The packages that these fields name; of alternatives the first one that is here."""
        needed = set()
        for group in ",".join(fields.get(name, "") for name in ("Pre-Depends", "Depends")).split(","):
            names = [re.split(r"[\s:(]", word.strip())[0] for word in group.split("|") if word.strip()]
            here = [self.providers[name] for name in names if name in self.providers]
            if names and not here:
                pytest.skip(f"not installed here: {' | '.join(names)}")
            needed |= set(here[:1])
        return needed

    def closure(self, fields: dict) -> set:
        """With the essential ones."""
        found, left = set(), self.needs(fields) | {name for name, one in self.packages.items() if one.get("Essential") == "yes"}
        while left:
            found |= left
            left = set().union(*(self.needs(self.packages[name]) for name in left)) - found
        return found

    def info(self, name: str) -> list:
        return [*DPKG.glob(f"info/{name}.*"), *DPKG.glob(f"info/{name}:*.*")]

    def files(self, name: str) -> list:
        return [line for path in self.info(name) if path.suffix == ".list" for line in path.read_text().splitlines()]


class BareRoot:
    """The files of these packages in a mount namespace of its own. What it is told to do it does in one go."""

    def __init__(self, folder: pathlib.Path, installed: Installed, names: set):
        self.folder = folder
        files = {"/"} | {file for name in names for file in installed.files(name)} | set(MADE)
        files |= {str(path) for path in pathlib.Path("/etc/alternatives").iterdir()}
        (folder / "files").write_text("".join(f"{file.lstrip('/')}\0" for file in sorted(files) if file != "/." and os.path.lexists(file) and not NOT_NEEDED.match(file)))
        database = folder / "dpkg"
        for part in ("info", "updates", "alternatives", "triggers", "parts"):
            (database / part).mkdir(parents=True)
        (database / "available").touch()
        (database / "status").write_text("".join(installed.packages[name]["text"].strip() + "\n\n" for name in sorted(names)))
        (database / "info/format").write_text((DPKG / "info/format").read_text())
        for name in names:
            for path in installed.info(name):
                if path.suffix == ".list":
                    (database / "info" / path.name).write_bytes(path.read_bytes())

    def run(self, script: str, debs: list) -> str:
        root = self.folder / "root"
        root.mkdir()
        (self.folder / "script").write_text(script)
        (self.folder / "story").write_text("\n".join([
            "set -e", f"mount -t tmpfs tmpfs {root}", f"cd {root}", "mkdir -p usr var/lib dev proc run tmp/debs",
            "for part in bin sbin lib lib32 lib64 libx32; do mkdir -p usr/$part; ln -s usr/$part $part; done",
            f"tar -C / --null --no-recursion -T {self.folder}/files -cf - 2>/dev/null | tar -xpf - --keep-directory-symlink",
            "ip link set lo up", f"rm -rf var/lib/dpkg; cp -r {self.folder}/dpkg var/lib/dpkg", "mount -t proc proc proc; mount --bind /dev dev",
            *(f"cp {deb} tmp/debs/" for deb in debs), f"cp {self.folder}/script tmp/script", "chroot . /sbin/ldconfig", "exec chroot . sh /tmp/script"]))
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "sh", self.folder / "story"], capture_output=True, text=True,
                              timeout=120, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout


# Each ELF file finds its libraries; each program that a service runs is there; each of ours starts.
TRY = """
exec 2>&1
dpkg -i /tmp/debs/*.deb || exit 1
for file in $(dpkg -L {name}); do
    [ -f "$file" ] && [ -x "$file" ] || continue
    case $file in */bin/*|*/sbin/*) "$file" --version >/tmp/said 2>&1 || {{ echo "FAILED: $file --version"; cat /tmp/said; }};; esac
    ldd "$file" 2>/dev/null | sed -n "s|^\\s*\\(\\S*\\) => not found|LIBRARY $file \\1|p"
done
for unit in $(dpkg -L {name} | grep '\\.service$'); do
    sed -n 's/^Exec[A-Za-z]*=[-@:+!]*\\([^ ]*\\).*/\\1/p' "$unit" | while read -r program; do
        [ -x "$program" ] || echo "PROGRAM $unit $program"
    done
done
{more}
dpkg -P {name} || exit 1
echo done
"""
# The control server opens its database and answers.
MORE = {
    "tailrace-control": """
        sed 's|^#* *server_url:.*|server_url: http://127.0.0.1:8080|' /etc/tailrace/control.yaml >/tmp/control.yaml
        timeout 5 tailrace-control serve --config /tmp/control.yaml >/tmp/said & serving=$!
        for i in $(seq 40); do [ -S /run/tailrace-control/control.sock ] && break; sleep 0.1; done
        tailrace-control users create somebody && kill $serving || { echo 'FAILED: tailrace-control'; cat /tmp/said; }""",
}


def owner(file: str) -> str:
    """The package of this machine that has such a file."""
    done = subprocess.run(["dpkg", "-S", f"*/{os.path.basename(file)}"], capture_output=True, text=True)
    return ", ".join(sorted({line.split(":")[0] for line in done.stdout.splitlines() if line.endswith(f"/{os.path.basename(file)}")})) or "no package here"


@pytest.mark.parametrize("name", ("tailrace", "tailrace-control", "tailrace-relay"))
def test_what_is_declared_is_enough(tmp_path, name):
    if os.geteuid() != 0:
        pytest.skip("installing packages needs root")
    deb, installed = built()[name], Installed()
    fields = paragraphs(subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout)[0]
    names = installed.closure(fields)
    said = BareRoot(tmp_path, installed, names).run(TRY.format(name=name, more=MORE.get(name, "")), [deb])
    missing = [f"{line}: Depends lacks {owner(line.split()[2])}" for line in said.splitlines() if line.startswith(("LIBRARY ", "PROGRAM "))]
    assert not missing, "\n".join(missing)
    assert "FAILED" not in said and "not found" not in said and said.endswith("done\n"), said
    print(f"{name}: installed, started and purged with {len(names)} packages")
