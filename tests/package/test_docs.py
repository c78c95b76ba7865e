"""Man pages and completions say what the programs say: each option of each command, and each key of each file."""
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from lab.lab import BUILD, PROJECT
from lab.tailrace import TAILRACE, TAILRACE_CONTROL, TAILRACE_RELAY, TAILRACED

DOCS = BUILD / "doc"
PAGES = {TAILRACE: ["tailrace.1"], TAILRACED: ["tailraced.8"], TAILRACE_CONTROL: ["tailrace-control.1", "tailrace-control.8"],
         TAILRACE_RELAY: ["tailrace-relay.8"]}
ALWAYS = {"--help", "-h", "--version"} # in every program's help; the root of each page need not repeat them


def help_of(program: pathlib.Path, path: list) -> str:
    return subprocess.run([program, *path, "--help"], check=True, capture_output=True, text=True).stdout


def parse_help(text: str):
    """(options, commands) as CLI11 prints them: one a line, two spaces in."""
    options, commands, section = set(), [], ""
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            section = line
        entry = re.match(r"  (\S+)", line)
        if not entry or line.startswith("   "):
            continue
        if section == "Subcommands:":
            commands.append(entry[1])
        elif section == "Options:":
            options |= set(re.findall(r"--?[\w-]+", entry[1]))
    return options, commands


def commands_of(program: pathlib.Path, path=()):
    options, commands = parse_help(help_of(program, list(path)))
    yield list(path), options, commands
    for command in commands:
        yield from commands_of(program, [*path, command])


def plain(page: str) -> str:
    return (DOCS / page).read_text().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\&", "")


@pytest.mark.parametrize("program", PAGES, ids=lambda program: program.name)
def test_the_man_page_has_every_command_and_option(programs, program):
    text = "".join(plain(page) for page in PAGES[program])
    sections = dict(re.findall(r"^\.SS ([^\n]*)\n(.*?)(?=^\.S[SH] |\Z)", text, re.M | re.S))
    seen = 0
    for path, options, commands in commands_of(program):
        if commands or not path:
            where = text
        else:
            heading = [name for name in sections if name.split(" [")[0].startswith(" ".join(path))]
            assert heading, f"no section for {' '.join(path)}"
            where = "".join(sections[name] for name in heading)
        for option in options - ALWAYS:
            assert re.search(rf"(^|[ ,]){re.escape(option)}([ ,]|$)", where, re.M), f"{program.name} {' '.join(path)}: {option}"
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("program", PAGES, ids=lambda program: program.name)
def test_bash_completes_every_command_and_option(programs, program):
    script = [f"source {DOCS}/{program.name}.bash"]
    expected = []
    for path, options, commands in commands_of(program):
        words = [program.name, *path, ""]
        script.append(f"COMP_WORDS=({' '.join(words[:-1])} ''); COMP_CWORD={len(words) - 1}; COMPREPLY=(); "
                      f"_{program.name.replace('-', '_')}; echo \"${{COMPREPLY[*]}}\"")
        expected.append((path, options | set(commands)))
    told = subprocess.run(["bash", "-c", "\n".join(script)], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(told) == len(expected)
    for line, (path, words) in zip(told, expected):
        assert set(line.split()) == words, " ".join(path)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(programs, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    for program in PAGES:
        file = DOCS / (f"_{program.name}" if shell == "zsh" else f"{program.name}.fish")
        subprocess.run([shell, "-n", file], check=True)
        for path, options, commands in commands_of(program):
            assert all(command in file.read_text() for command in commands)


def known_keys(check, tmp_path, within="") -> set:
    """What a program names when it is given a key that nobody knows."""
    file = tmp_path / "config.yaml"
    file.write_text(f"{within}: {{nobody-knows: 1}}\n" if within else "nobody-knows: 1\n")
    told = subprocess.run([*check, file], capture_output=True, text=True).stderr
    return set(re.search(r"known here: ([^)]*)\)", told)[1].split(", "))


@pytest.mark.parametrize("page, check, example", [
    ("tailraced.yaml.5", [TAILRACE, "config", "check"], "tailraced.yaml"),
    ("control.yaml.5", [TAILRACE_CONTROL, "serve", "--config"], "control.yaml"),
    ("relay.yaml.5", [TAILRACE_RELAY, "--config"], "relay.yaml")])
def test_the_man_page_of_a_file_has_every_key(programs, tmp_path, page, check, example):
    keys = known_keys(check, tmp_path)
    told = set(re.findall(r"^\.TP\n([\w-]+)", plain(page), re.M))
    assert told == keys
    assert known_keys(check, tmp_path, "log") == {"level", "format"}
    shipped = (PROJECT / "debian" / example).read_text()
    assert set(re.findall(r"^#?([a-z][\w-]*):", shipped, re.M)) <= keys, "the file that is shipped has only keys that exist"
    yaml.safe_load(shipped)


def test_examples_are_what_they_should_be(programs, tmp_path):
    for file in sorted((PROJECT / "debian/examples").glob("*.yaml")):
        documents = list(yaml.safe_load_all(file.read_text()))
        assert documents and documents[0], file
    cloud = yaml.safe_load((PROJECT / "debian/examples/cloud-init.yaml").read_text())
    written = {entry["path"]: entry["content"] for entry in cloud["write_files"]}
    config = tmp_path / "tailraced.yaml"
    config.write_text(written["/etc/tailrace/tailraced.yaml"])
    subprocess.run([TAILRACE, "config", "check", config], check=True)


def test_the_cloud_init_example_keeps_its_schema():
    # Not among the packages that the rooms install: on a real machine its services would set up the host anew at the next boot.
    if not shutil.which("cloud-init"):
        pytest.skip("cloud-init is not installed")
    subprocess.run(["cloud-init", "schema", "--config-file", PROJECT / "debian/examples/cloud-init.yaml"], check=True)


def test_the_ansible_example_is_a_playbook(tmp_path):
    if not shutil.which("ansible-playbook"):
        pytest.skip("ansible-core is not installed")
    subprocess.run(["ansible-playbook", "--syntax-check", "-i", "localhost,", PROJECT / "debian/examples/ansible-playbook.yaml"], check=True,
                   cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})


def test_units_are_good(tmp_path):
    """For systemd, with programs and other units where a package puts them."""
    system = tmp_path / "usr/lib/systemd/system"
    system.mkdir(parents=True)
    names = []
    for file in sorted((PROJECT / "debian").iterdir()):
        if file.suffix in (".service", ".socket", ".target"): # the mount is systemd's own, it takes no unit for it unseen
            names.append(file.name.removeprefix("tailrace."))
            (system / names[-1]).write_bytes(file.read_bytes())
    assert {"tailrace-online.target", "tailrace-wait-online.service", "tailraced.service"} <= set(names)
    for name in ("sysinit.target", "shutdown.target", "basic.target", "sockets.target", "network-pre.target", "local-fs.target", "umount.target",
                 "multi-user.target"):
        (system / name).write_text(f"[Unit]\nDescription={name}\n")
    for program in ("usr/bin/tailrace", "usr/sbin/tailraced", "usr/bin/tailrace-control", "usr/bin/tailrace-relay", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    told = subprocess.run(["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *names], capture_output=True, text=True)
    assert told.returncode == 0 and not told.stderr, told


UNITS = {"tailrace.tailraced.service": 3.5, "tailrace.tailrace-wait-online.service": 1.5, "tailrace.tailraced-close.service": 3.5, "tailrace-control.service": 1.5, "tailrace-relay.service": 1.5}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_well_locked_up(unit, tmp_path):
    file = tmp_path / unit.removeprefix("tailrace.")
    file.write_bytes((PROJECT / "debian" / unit).read_bytes())
    told = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", file], capture_output=True, text=True)
    figure = float(re.search(r"exposure level for \S+: ([\d.]+)", told.stdout)[1])
    print(f"{file.name}: exposure {figure}, at most {UNITS[unit]}")
    assert figure <= UNITS[unit]
    assert "Unknown key" not in told.stderr, told.stderr
