"""The command line and the local API of a live agent: exit statuses, refusals, and what programs read of them.

      control 203.0.113.1     alice     bob
             |                  |        |
    ---------+------------------+--------+---- the internet
"""
import http.client
import json
import socket

import pytest

from lab.tailrace import AGENT_SOCKET, TAILRACE, Agent, TailraceControl
from lab.wait import wait_for

# Present in every PeerStatus of the reference client, whatever their values.
PEER_KEYS = {"ID", "NodeID", "PublicKey", "HostName", "DNSName", "OS", "UserID", "TailscaleIPs", "AllowedIPs", "Addrs", "CurAddr", "Relay",
             "PeerRelay", "RxBytes", "TxBytes", "Created", "LastWrite", "LastSeen", "LastHandshake", "Online", "ExitNode", "ExitNodeOption",
             "Active", "PeerAPIURL", "TaildropTarget", "NoFileSharingReason", "InNetworkMap", "InMagicSock", "InEngine"}

# And these only when there is something to say.
OPTIONAL = {"AltSharerUserID", "Capabilities", "CapMap", "Expired", "KeyExpiry", "Location", "PrimaryRoutes", "ShareeNode", "Tags", "sshHostKeys"}
WHOIS_NODE_KEYS = {"ID", "StableID", "Name", "User", "Key", "Machine", "DiscoKey", "Addresses", "AllowedIPs", "Hostinfo", "Created", "Cap", "Online",
                   "MachineAuthorized"}


@pytest.fixture
def control(lab, programs):
    control = TailraceControl(lab.host("control", address="203.0.113.1"))
    control.create_user("alice")
    return control


def connect(agent: Agent) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(15)
    connection.connect(f"/proc/{agent.host.namespaces.keeper_pid}/root{AGENT_SOCKET}")
    return connection


class Local(http.client.HTTPConnection):
    """HTTP to an agent's socket. `host` is what the Host header says."""

    def __init__(self, agent: Agent, host: str = "local-tailscaled.sock"):
        super().__init__(host)
        self._agent = agent

    def connect(self) -> None:
        self.sock = connect(self._agent)


def ask(agent: Agent, method: str, path: str, body=None, headers=None, host: str = "local-tailscaled.sock"):
    """(status, body)"""
    local = Local(agent, host)
    local.request(method, "/localapi/v0/" + path, body, headers or {})
    answer = local.getresponse()
    text = answer.read().decode()
    local.close()
    return answer.status, text


def fails(done, status: int, *words) -> str:
    text = done.stdout + done.stderr
    assert done.returncode == status, f"{done.returncode}: {text}"
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    return text


def test_a_life_of_the_command_line(lab, control):
    alice, bob = Agent(lab.host("alice")), Agent(lab.host("bob"))
    key = control.create_key("alice")
    alice.up(control.url, key)

    # `up --json` of a person who logs in: an object with the page to visit, and one at the end.
    login = bob.host.start("login", [TAILRACE, "--socket", AGENT_SOCKET, "up", "--login-server", control.url, "--hostname", "bob", "--json", "--timeout=60s"])
    page = login.wait_for_output(r'"AuthURL": "([^"]+)"', 20)[1]
    control.cli("nodes", "register", page.rsplit("/", 1)[1], "--user", "alice")
    assert login.wait(30) == 0, login.output()
    decoder, objects, text = json.JSONDecoder(), [], login.output().lstrip()
    while text:
        one, end = decoder.raw_decode(text)
        objects.append(one)
        text = text[end:].lstrip()
    assert objects == [{"AuthURL": page, "BackendState": "NeedsLogin"}, {"BackendState": "Running"}]

    # Another server needs --force-reauth.
    fails(alice.cli("up", "--login-server", "http://203.0.113.9", "--hostname", "alice", check=False), 1, "--force-reauth")
    assert alice.running() and json.loads(alice.cli("debug", "prefs").stdout)["ControlURL"] == control.url

    # Mistakes in the line itself.
    fails(alice.cli("status", "--json", "--json", check=False), 2, "provided multiple times")
    fails(alice.cli("status", "--nonsense", check=False), 2, "--nonsense")
    fails(alice.cli("nonsense", check=False), 1, "unknown subcommand: nonsense")
    fails(alice.cli("debug", "nonsense", check=False), 1, "tailrace debug: unknown subcommand: nonsense")
    fails(alice.cli("exit-node", check=False), 1, "tailrace exit-node: missing subcommand: list, suggest")
    for command in ("up", "set"):
        fails(alice.cli(command, "--accept-routes=maybe", check=False), 2, '--accept-routes: "maybe" is neither true nor false')
    fails(alice.cli("whois", "nobody", check=False), 1, "want an address")
    assert json.loads(alice.cli("exit-node", "list", "--json").stdout) == []
    fails(alice.cli("exit-node", "suggest", "--json", check=False), 1, "no preferred DERP") # there is no relay here
    assert json.loads(alice.cli("appc-routes", "--json").stdout) is None
    fails(control.cli("nodes", check=False), 2, "tailrace-control nodes: missing subcommand: list")
    control.set_policy('{ "acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }], } // all\n')
    assert json.loads(control.cli("policy", "get", "--json").stdout)["acls"]
    control.set_policy('{ "acls": [{ "action": "accept", "src": ["alice@"], "dst": ["alice@:80"] }] }\n')
    assert control.cli("policy", "explain", "alice@", "alice@:80").returncode == 0
    denied = control.cli("policy", "explain", "alice@", "alice@:81", check=False)
    assert denied.returncode == 1 and not denied.stderr and denied.stdout, denied
    control.set_policy('{ "acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }] }\n')
    fails(control.cli("nodes", "tag", "alice", "tag:nope", check=False), 1, "the policy does not know tag:nope", "tagOwners")
    assert "tags" not in control.json("nodes", "show", "alice") or not control.json("nodes", "show", "alice")["tags"]

    # What is always there for a program that reads the status.
    wait_for(lambda: alice.peer("bob"), 15, "alice knows bob")
    status = json.loads(alice.cli("status", "--json").stdout)
    assert {"Version", "TUN", "BackendState", "HaveNodeKey", "AuthURL", "TailscaleIPs", "Self", "Health", "MagicDNSSuffix", "CurrentTailnet",
            "CertDomains", "Peer", "User", "ClientVersion"} <= set(status)
    assert all(key.startswith("nodekey:") for key in status["Peer"])
    for one in [status["Self"], *status["Peer"].values()]:
        assert PEER_KEYS <= set(one) <= PEER_KEYS | OPTIONAL, PEER_KEYS ^ set(one)
    whois = json.loads(alice.cli("whois", "--json", bob.ip()).stdout)
    assert list(whois) == ["Node", "UserProfile", "CapMap"] and WHOIS_NODE_KEYS <= set(whois["Node"]), whois
    assert {"ID", "LoginName", "DisplayName"} <= set(whois["UserProfile"]) and whois["UserProfile"]["LoginName"] == "alice"

    # Addresses.
    v4 = alice.cli("ip", "-4").stdout
    assert v4 == alice.ip() + "\n" and alice.cli("ip", "-6").stdout == alice.ip(6) + "\n"
    assert alice.cli("ip", "-4", "bob").stdout == bob.ip() + "\n"
    fails(alice.cli("ip", "-4", "-6", check=False), 1, "mutually exclusive")
    assert alice.cli("ip", "--assert", alice.ip()).returncode == 0
    fails(alice.cli("ip", "--assert", bob.ip(), check=False), 1, "assertion failed")
    fails(alice.cli("whois", "100.99.99.99", check=False), 1, "no match for 100.99.99.99:0")
    assert ask(alice, "GET", "whois?addr=100.99.99.99:80") == (404, "no match for 100.99.99.99:80\n")

    # Pings of a size, in one piece: the network here carries 1500 bytes. And netcheck again and again.
    large = alice.cli("ping", "--verbose", "--size", "1400", "bob").stdout
    assert f'lookup "bob" => "{bob.ip()}"' in large and f"pong from bob ({bob.ip()}) via " in large, large
    fails(alice.cli("ping", "--size=1500", "-c=1", "--timeout=1s", "bob", check=False), 1, "no reply")
    fails(alice.cli("ping", "--size=100", "--icmp", "bob", check=False), 2, "path discovery only")
    assert ask(alice, "POST", f"ping?ip={bob.ip()}&type=disco&size=9000") == (400, "maximum value for 'size' is 8972\n")
    checks = alice.host.start("netcheck", [TAILRACE, "--socket", AGENT_SOCKET, "netcheck", "--every=500ms", "--verbose"])
    checks.wait_for_output(r"Report:(.|\n)*Report:", 40)
    checks.kill()

    # A browser does not get in, and a person without rights looks only, until told otherwise.
    assert ask(alice, "GET", "status", headers={"Origin": "http://evil.example"})[0] == 403
    assert ask(alice, "GET", "status", host="localhost")[0] == 403
    assert ask(alice, "GET", "status")[0] == 200
    nobody = ["setpriv", "--reuid", "nobody", "--clear-groups", TAILRACE, "--socket", AGENT_SOCKET]
    fails(alice.host.run([*nobody, "set", "--hostname", "mine"], check=False), 1, "Access denied", "--operator=$USER")
    for command in (["set"], ["up", "--login-server", control.url, "--hostname", "alice"]):
        fails(alice.cli(*command, "--operator=nobodyuser", check=False), 1, 'no user named "nobodyuser"')
    assert "OperatorUser" not in json.loads(alice.cli("debug", "prefs").stdout)
    alice.cli("set", "--operator=nobody")
    alice.host.run([*nobody, "set", "--hostname", "mine"])
    wait_for(lambda: bob.peer("mine"), 15, "the operator's change is in force")
    alice.cli("set", "--operator=", "--hostname=alice")
    fails(alice.host.run([*nobody, "set", "--hostname", "mine"], check=False), 1, "Access denied")

    # Who came in over the tailnet does not cut that off by mistake; nobody is at a terminal here to be asked.
    by_tailnet = ["env", f"SSH_CLIENT={bob.ip()} 40000 22", TAILRACE, "--socket", AGENT_SOCKET, "down"]
    fails(alice.host.run(by_tailnet, check=False), 1, "--accept-risk=lose-ssh", "aborted, no changes made")
    assert alice.running()
    alice.host.run([*by_tailnet, "--accept-risk=lose-ssh", "--reason=a new disk"])
    wait_for(lambda: not alice.running(), 10, "alice is down")
    assert "a new disk" in alice.program.output()
    fails(alice.cli("wait", "--timeout=1s", check=False), 1, "timeout; the agent's state is Stopped")
    waiting = alice.host.start("wait", [TAILRACE, "--socket", AGENT_SOCKET, "wait", "--timeout=20s"])
    alice.cli("up", timeout=40)
    assert waiting.wait(20) == 0 and f"inet {alice.ip()}/" in alice.host.run("ip address show tailrace0").stdout
    assert alice.cli("set").stdout.startswith("Change specified preferences\nUsage: tailrace set")

    # Down, and down again.
    assert alice.cli("down").stderr == ""
    fails(alice.host.run("ip link show tailrace0", check=False), 1, "does not exist")
    assert alice.status()["BackendState"] == "Stopped"
    fails(alice.cli("status", check=False), 1, "stopped")
    assert json.loads(alice.cli("status", "--json").stdout)["BackendState"] == "Stopped"
    again = alice.cli("down")
    assert "already stopped" in again.stderr


def test_down_says_what_the_kernel_keeps(lab, control):
    """Nothing can be taken out of a file system that is mounted read-only."""
    alice = Agent(lab.host("alice"))
    alice.up(control.url, control.create_key("alice"))
    alice.host.run("mount -o remount,ro /sys/fs/bpf")
    fails(alice.cli("down", check=False, timeout=30), 1, "/sys/fs/bpf/tailrace", "Read-only file system")
    alice.host.run("mount -o remount,rw /sys/fs/bpf")
    wait_for(lambda: alice.host.run("ls /sys/fs/bpf/tailrace", check=False).returncode != 0, 30, "it is tried again")
    fails(alice.host.run("ip link show tailrace0", check=False), 1, "does not exist")


def test_the_bus_and_its_watchers(lab, programs):
    agent = Agent(lab.host("alice"))
    status, text = ask(agent, "GET", "watch-ipn-bus?mask=4352") # a rate limit and changes of peers
    assert status == 400, text
    watcher = Local(agent)
    watcher.request("GET", "/localapi/v0/watch-ipn-bus?mask=6")
    first = json.loads(watcher.getresponse().readline())
    assert first["SessionID"] and first["State"] == 2 and first["Prefs"]["WantRunning"] is False
    watcher.close()

    # One that does not read is let go, and told why; nobody else waits for it.
    slow = Local(agent)
    slow.request("GET", "/localapi/v0/watch-ipn-bus?mask=0")
    stream = slow.getresponse()
    changes = Local(agent)
    for i in range(2000):
        body = json.dumps({"Hostname": f"host-{i}", "HostnameSet": True})
        changes.request("PATCH", "/localapi/v0/prefs", body)
        answer = changes.getresponse()
        answer.read()
        assert answer.status == 200
    lines = stream.read().splitlines()
    assert "fell behind" in json.loads(lines[-1])["ErrMessage"]
    assert len(lines) < 2000 and json.loads(lines[0])["Prefs"]["Hostname"] == "host-0"
    assert ask(agent, "GET", "status")[0] == 200


def test_an_agent_of_another_version_is_noticed(lab, programs):
    host = lab.host("alice")
    host.start("other", ["/usr/bin/python3", "-c", """
import socketserver, http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b'{"Version":"0.0.0-other","BackendState":"Running"}'
        self.send_response(200); self.send_header("Tailscale-Version", "0.0.0-other"); self.send_header("Content-Length", str(len(body)))
        self.end_headers(); self.wfile.write(body)
    def address_string(self): return "unix"
    def log_message(self, *_): pass
class Server(socketserver.UnixStreamServer):
    def get_request(self):
        return self.socket.accept()[0], ("unix", 0)
Server("/run/other.sock", Handler).serve_forever()
"""])
    wait_for(lambda: host.run(["test", "-S", "/run/other.sock"], check=False).returncode == 0, 10, "the other agent listens")
    done = wait_for(lambda: host.run([TAILRACE, "--socket", "/run/other.sock", "status", "--json"], check=False), 10, "an answer")
    assert done.returncode == 0 and json.loads(done.stdout)["BackendState"] == "Running"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning: client version ")]
    assert len(warnings) == 1 and '!= tailraced server version "0.0.0-other"' in warnings[0]
