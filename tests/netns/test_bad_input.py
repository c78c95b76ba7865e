"""What is wrong is said in one sentence: what, where, and what to do; with a status that scripts see; and nothing is lost.

      control 203.0.113.1     alice
             |                  |
    ---------+------------------+---- the internet
"""
import base64
import json
import pathlib

import pytest

from lab.tailrace import AGENT_SOCKET, CONTROL_SOCKET, TAILRACE, TAILRACE_CONTROL, TAILRACE_RELAY, TAILRACED, Agent, TailraceControl
from lab.wait import wait_for

ZERO_KEY = "mkey:" + "0" * 64


def said(done, *words, cure: str = "") -> str:
    """What a failed command printed; all words must be in it, what to do among them, and it must not be an essay."""
    text = (done.stderr or "") + (done.stdout or "")
    print(text)
    assert done.returncode not in (0, None), f"succeeded: {text}"
    assert done.returncode < 125, f"crashed: {done.returncode} {text}"
    for word in (*words, cure):
        assert word in text, f"{word!r} is not in: {text}"
    assert 0 < len(text.strip().splitlines()) <= 3, text
    return text


@pytest.fixture
def control(lab, programs):
    control = TailraceControl(lab.host("control", address="203.0.113.1"))
    control.create_user("alice")
    return control


@pytest.fixture
def alice(lab, programs):
    return Agent(lab.host("alice"))


def up(agent: Agent, url: str, key: str, timeout: float = 8):
    key_file = agent.host.directory / "auth-key"
    key_file.write_text(key)
    return agent.cli("up", "--login-server", url, "--auth-key", f"file:{key_file}", f"--timeout={timeout:g}s", check=False, timeout=timeout + 15)


class FakeControl:
    """Answers GET /key with the text given, and nothing else."""

    def __init__(self, host, answer: str):
        self.url = f"http://{host.address}:8080"
        page = host.directory / "answer"
        page.write_text(answer)
        host.start("fake", ["/usr/bin/python3", "-c", """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pathlib.Path(sys.argv[1]).read_bytes()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(('', 8080), Handler).serve_forever()
""", page])
        wait_for(lambda: ":8080 " in host.run("ss -Hltn").stdout, 10, "the fake server listens")


# -- joining

def test_a_url_that_is_none(alice):
    said(up(alice, "nonsense", "x"), "nonsense", "http")
    said(up(alice, "ftp://203.0.113.1", "x"), "ftp://203.0.113.1", "http")


def test_a_url_where_nobody_answers(lab, alice):
    lab.host("control", address="203.0.113.1")
    said(up(alice, "http://203.0.113.1:8080", "x", timeout=10), "http://203.0.113.1:8080", "--login-server")


def test_an_auth_key_that_is_none(control, alice):
    said(up(alice, control.url, "tskey-auth-wrong"), control.url, "invalid authkey", "another auth key")
    missing = alice.cli("up", "--login-server", control.url, "--auth-key", "file:/nowhere/key", check=False)
    said(missing, "/nowhere/key", "No such file")


def test_an_auth_key_that_is_used_up(lab, control, alice):
    key = control.create_key("alice", reusable=False)
    alice.up(control.url, key)
    said(up(Agent(lab.host("bob")), control.url, key), "used", cure="another auth key")


def test_a_revoked_auth_key(control, alice):
    key = control.create_key("alice")
    control.cli("keys", "revoke", str(control.json("keys", "list")[0]["id"]))
    said(up(alice, control.url, key), "revoked", cure="another auth key")


def test_a_server_whose_key_is_all_zero(lab, alice):
    fake = FakeControl(lab.host("control", address="203.0.113.1"), json.dumps({"legacyPublicKey": ZERO_KEY, "publicKey": ZERO_KEY}))
    said(up(alice, fake.url, "x", timeout=10), fake.url, cure="check --login-server")


def test_a_server_whose_json_ends_early(lab, alice):
    fake = FakeControl(lab.host("control", address="203.0.113.1"), '{"publicKey":"mkey:ab')
    said(up(alice, fake.url, "x", timeout=10), fake.url, cure="check --login-server")


# -- privileges and resources

def test_without_privileges_the_agent_does_not_start(lab, programs):
    host = lab.host("alice")
    done = host.run(["setpriv", "--reuid", "65534", "--clear-groups", TAILRACED, "--state-dir", host.directory / "state",
                     "--socket", "/run/tailraced.sock"], check=False)
    said(done, "root")


def test_a_stranger_may_look_and_not_touch(control, alice):
    as_nobody = ["setpriv", "--reuid", "65534", "--clear-groups", TAILRACE, "--socket", AGENT_SOCKET]
    assert alice.host.run([*as_nobody, "status", "--json"]).returncode == 0
    done = alice.host.run([*as_nobody, "set", "--hostname", "mine"], check=False)
    assert done.returncode == 1 and "sudo tailrace set" in done.stderr, done.stderr


def test_without_bpf_nothing_comes_up_and_the_cause_is_named(lab, control):
    host = lab.host("alice")
    agent = Agent.__new__(Agent)
    agent.host, agent.state = host, host.directory / "tailraced"
    agent.program = host.start("tailraced", [
        "setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon", "--inh-caps", "-bpf,-sys_admin,-perfmon",
        TAILRACED, "--state-dir", agent.state, "--socket", AGENT_SOCKET])
    agent.wait_until_up()
    said(up(agent, control.url, control.create_key("alice"), timeout=10), "BPF")
    assert not agent.running()
    assert "BPF" in json.dumps(agent.status()["Health"])


def test_no_socket_of_the_agent_takes_wireguards_port(lab, control):
    """Which is among those that the kernel chooses from, and free until the device is up."""
    for number in range(4): # by chance each of them would escape
        agent = Agent(lab.host(f"node-{number}"), wait=False)
        agent.program.kill()
        agent.host.sysctl("net.ipv4.ip_local_port_range", "41639 41644")
        agent.start()
        agent.up(control.url, control.create_key("alice"))
        assert agent.running()


def test_a_port_in_use(lab, control):
    other = control.folder / "other.yaml"
    other.write_text(f"listen: 0.0.0.0:8080\nlisten_tls: 0.0.0.0:444\nmetrics_listen: 127.0.0.1:9091\nstate_dir: {control.folder}/other\nsocket: /run/other.sock\n")
    said(control.host.run([TAILRACE_CONTROL, "serve", "--config", other], check=False), "another program listens on 0.0.0.0:8080", "another listen")
    host = lab.host("alice")
    host.start("squatter", ["/usr/bin/python3", "-c", "import socket,time; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 41641)); time.sleep(1000)"])
    wait_for(lambda: ":41641 " in host.run("ss -Hlun").stdout, 10, "the port is taken")
    said(host.run([TAILRACED, "--state-dir", host.directory / "state", "--socket", AGENT_SOCKET], check=False), "41641", "--port")


def test_no_control_server_to_speak_to(lab, programs):
    done = lab.host("control").run([TAILRACE_CONTROL, "users", "list"], check=False)
    said(done, CONTROL_SOCKET, "--socket")
    said(lab.host("alice").run([TAILRACE, "status"], check=False), "tailraced", "systemctl start tailraced")


def small_disk(host, folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    host.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder])


def fill(host, folder: pathlib.Path) -> None:
    host.run(["sh", "-c", f"cat /dev/zero > {folder}/filler"], check=False)


def test_a_full_disk_under_control(lab, programs):
    host = lab.host("control", address="203.0.113.1")
    state = host.directory / "small"
    small_disk(host, state)
    control = TailraceControl(host, state_dir=str(state))
    control.create_user("alice")
    fill(host, state)
    failed = None
    for i in range(200): # what was allocated before can still be filled
        failed = control.cli("users", "create", f"user-{i}", check=False)
        if failed.returncode != 0:
            break
    said(failed, "full", cure="make room")
    before = {user["name"] for user in control.json("users", "list")}
    host.run(["rm", f"{state}/filler"])
    control.create_user("late")
    control.program.kill()
    control.start()
    assert {user["name"] for user in control.json("users", "list")} == before | {"late"}


def test_a_full_disk_under_the_agent(lab, control):
    host = lab.host("alice")
    state = host.directory / "tailraced"
    small_disk(host, state)
    agent = Agent(host)
    fill(host, state)
    said(up(agent, control.url, control.create_key("alice")), "space", cure='make room and run "tailrace up" again')


# -- files

def test_a_damaged_state_file_is_kept_aside(control, alice):
    alice.up(control.url, control.create_key("alice"))
    alice.program.kill()
    file = alice.state / "tailraced.state"
    whole = file.read_text()
    damages = {"cut": whole[:len(whole) // 2], "empty object": "[]", "zero key": None}
    state = json.loads(whole)
    state["_machinekey"] = base64.b64encode(b"privkey:" + b"0" * 64).decode()
    damages["zero key"] = json.dumps(state)
    for name, damaged in damages.items():
        file.write_text(damaged)
        done = alice.host.run([TAILRACED, "--state-dir", alice.state, "--socket", AGENT_SOCKET], check=False)
        text = said(done, str(file), cure="tailrace up")
        kept = [path for path in alice.state.glob("tailraced.state*") if path.read_text() == damaged]
        assert kept and str(kept[0]) in text, f"{name}: {text}"
        for path in kept:
            path.unlink()
    file.write_text(whole)
    alice.start()
    wait_for(alice.running, 15, "the backup that was put in place works")


def test_a_damaged_or_used_database_is_left_alone(lab, control):
    said(control.host.run([TAILRACE_CONTROL, "serve", "--config", control._config], check=False), "another tailrace-control", cure="another state_dir")
    other = control.folder / "other.yaml"
    other.write_text(f"state_dir: {control.folder}/other\nsocket: {CONTROL_SOCKET}\n")
    said(control.host.run([TAILRACE_CONTROL, "serve", "--config", other], check=False), CONTROL_SOCKET, cure="another socket")
    control.program.kill()
    files = list((control.folder / "state").iterdir())
    database = next(path for path in files if path.read_bytes()[:6] == b"SQLite")
    for file in files:
        if file.name.startswith(database.name + "-"):
            file.unlink()
    damaged = b"not a database at all" * 300
    database.write_bytes(damaged)
    done = control.host.run([TAILRACE_CONTROL, "serve", "--config", control._config], check=False)
    said(done, str(database), cure="restore a backup")
    assert any(path.read_bytes() == damaged for path in database.parent.iterdir())


def test_a_damaged_key_of_the_server_is_left_alone(control):
    control.program.kill()
    file = control.folder / "state/noise_private.key"
    whole = file.read_text()
    for damaged in ("", "privkey:" + "0" * 64 + "\n", whole[:40], "rubbish\n"):
        file.write_text(damaged)
        done = control.host.run([TAILRACE_CONTROL, "serve", "--config", control._config], check=False)
        said(done, str(file), "damaged", cure="restore it from a backup")
        assert file.read_text() == damaged
    file.write_text(whole)
    control.start()


@pytest.mark.parametrize("text, place", [
    ('{\n  "acls": [ { "action": "accept", "src": ["alice@"], "dst": ["bob@:99999"] } ]\n}', "line 2, column"),
    ('{\n  "aclz": []\n}', "line 2, column 3"),
    ('{\n  "acls": [\n', "line 3, column 1"),
    ('{ "acls": [ { "action": "accept", "src": ["group:none"], "dst": ["*:*"] } ] }', "group:none"),
])
def test_a_policy_with_an_error_changes_nothing(control, text, place):
    before = control.cli("policy", "get").stdout
    file = control.folder / "bad.hujson"
    file.write_text(text)
    said(control.cli("policy", "check", file, check=False), place)
    said(control.cli("policy", "set", file, check=False), place, cure="correct it there: the policy in force stays")
    assert control.cli("policy", "get").stdout == before


@pytest.mark.parametrize("line, words", [
    ("listenn: ':80'", ("config.yaml:2", "listenn", "known here")),
    ("listen: [1", ("config.yaml:",)),
    ("prefixes: {v4: 300.0.0.0/8}", ("config.yaml:2", "300.0.0.0/8")),
    ("derp_map_file: /nowhere.json", ("/nowhere.json", "name a file that can be read")),
    ("policy_file: /nowhere.hujson", ("/nowhere.hujson", "name a file that can be read")),
    ("log: {level: loud}", ("config.yaml:2", "loud")),
])
def test_a_configuration_with_an_error(lab, programs, line, words):
    host = lab.host("control")
    config = host.directory / "config.yaml"
    config.write_text(f"state_dir: {host.directory}/state\n{line}\n")
    said(host.run([TAILRACE_CONTROL, "serve", "--config", config], check=False), *words)


@pytest.mark.parametrize("words", [[TAILRACE_CONTROL, "serve", "--config"], [TAILRACE_RELAY, "--config"], [TAILRACED, "--config"], [TAILRACE, "config", "check"]])
def test_a_configuration_that_is_not_there(lab, programs, words):
    said(lab.host("alice").run([*words, "/nowhere.yaml"], check=False), "/nowhere.yaml: No such file", cure="name a file that can be read")


def test_a_derp_map_that_ends_early(lab, programs):
    host = lab.host("control")
    (host.directory / "derp.json").write_text('{"Regions": {"900": {')
    config = host.directory / "config.yaml"
    config.write_text(f"state_dir: {host.directory}/state\nderp_map_file: {host.directory}/derp.json\n")
    said(host.run([TAILRACE_CONTROL, "serve", "--config", config], check=False), "derp.json", cure="correct the file")


def test_json_that_ends_early_on_the_agents_socket(alice):
    done = alice.cli("debug", "localapi", "PATCH", "/localapi/v0/prefs", '{"WantRunning":', check=False)
    said(done, "JSON")
    assert alice.status()["BackendState"] == "NeedsLogin"
