"""Machines of a fleet join with the secret of an OAuth client, which makes an auth key for each of them.

      control 203.0.113.1          fleet            other
              |                      |                |
    ----------+----------------------+----------------+---- the internet, 203.0.113.0/24
"""
import base64
import json

import pytest

from lab.tailrace import Agent, TailraceControl
from lab.wait import wait_for

POLICY = """{
  "tagOwners": { "tag:fleet": [], "tag:fleet-web": ["tag:fleet"], "tag:other": [] },
  "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ],
}
"""


class Fleet:
    def __init__(self, lab):
        lab.internet()
        self.control = TailraceControl(lab.host("control", address="203.0.113.1"), policy=POLICY)
        self.hosts = {name: lab.host(name) for name in ("fleet", "other")}

    def create_client(self, tags: str = "tag:fleet") -> str:
        return self.control.cli("oauth", "create", "--tags", tags).stdout.strip()

    def declare(self, name: str, secret: str, tags: str = "[tag:fleet]") -> Agent:
        """A machine whose files say how it joins, as cloud-init leaves it."""
        host = self.hosts[name]
        file, config = host.directory / "oauth-client", host.directory / "tailraced.yaml"
        file.write_text(secret + "\n")
        file.chmod(0o600)
        config.write_text(f"login-server: {self.control.url}\noauth-client-file: {file}\nhostname: {name}\nadvertise-tags: {tags}\n")
        return Agent(host, more=("--config", config))

    def node(self, name: str) -> dict:
        return next((n for n in self.control.nodes() if n["name"] == name), {})

    def post(self, path: str, body: str, *more):
        """(status, object) of a request to the public API."""
        done = self.hosts["other"].run(["curl", "-sS", "--noproxy", "*", "--max-time", "10", "-w", "\n%{http_code}", "--data-binary", body,
                                        *more, f"{self.control.url}/api/v2{path}"])
        text, status = done.stdout.rsplit("\n", 1)
        return int(status), json.loads(text)


def no_secret_in(text: str, secret: str) -> bool:
    return secret.split("?")[0].rsplit("-", 1)[1] not in text


def test_a_declared_machine_joins_and_comes_back_without_its_client(lab, programs):
    net = Fleet(lab)
    secret = net.create_client()
    agent = net.declare("fleet", secret + "?ephemeral=false", "[tag:fleet-web, tag:fleet]")
    wait_for(agent.running, 20, "the machine is in")
    node = net.node("fleet")
    assert node["tags"] == ["tag:fleet", "tag:fleet-web"] and not node["ephemeral"], node
    (client,), (key,) = net.control.json("oauth", "list"), net.control.json("keys", "list")
    assert key["state"] == "used" and key["oauthClient"] == client["client"] and key["user"] == "", key

    net.control.cli("oauth", "revoke", str(client["id"]))
    agent.program.kill()
    agent.start()
    wait_for(agent.running, 20, "the machine is in again")
    assert len(net.control.json("keys", "list")) == 1, "who is known needs no new key"
    assert net.node("fleet")["id"] == node["id"]
    for text in (agent.program.output(), net.control.program.output(), agent.cli("status", "--json").stdout, agent.cli("bugreport", check=False).stdout,
                 net.control.cli("oauth", "list", "--json").stdout, net.control.cli("oauth", "list").stdout):
        assert no_secret_in(text, secret)
    database = (net.control.folder / "state/control.db").read_bytes() + (net.control.folder / "state/control.db-wal").read_bytes()
    assert no_secret_in(database.decode(errors="replace"), secret)


def test_a_machine_that_is_up_before_its_server_joins_later(lab, programs):
    net = Fleet(lab)
    secret = net.create_client()
    net.control.program.kill()
    agent = net.declare("fleet", secret)
    wait_for(lambda: "the OAuth client's auth key: " in agent.program.output() and "control is away" in agent.program.output(), 20, "the machine tries")
    net.control.start()
    wait_for(agent.running, 30, "the machine is in")
    assert net.node("fleet")["tags"] == ["tag:fleet"] and no_secret_in(agent.program.output(), secret)


def test_up_takes_the_secret_where_an_auth_key_may_stand(lab, programs):
    net = Fleet(lab)
    secret = net.create_client()
    agent = Agent(net.hosts["fleet"])
    done = agent.cli("up", "--login-server", net.control.url, "--auth-key", f"file:{_file(net.hosts['fleet'], secret)}", "--timeout=20s", check=False, timeout=30)
    assert done.returncode == 1 and "lets in nodes with tags only" in done.stderr and "--advertise-tags" in done.stderr, done
    agent.up(net.control.url, f"{secret}?baseURL={net.control.url}", "--advertise-tags=tag:fleet")
    assert net.node("fleet")["tags"] == ["tag:fleet"] and net.node("fleet")["ephemeral"]
    # Deleted meanwhile, and logged in by the same words: another key is made.
    net.control.cli("nodes", "delete", "fleet")
    agent.up(net.control.url, secret, "--advertise-tags=tag:fleet")
    assert net.node("fleet")["tags"] == ["tag:fleet"]
    assert len(net.control.json("keys", "list")) == 2
    # Once more as it is, and with another tag.
    agent.up(net.control.url, secret, "--advertise-tags=tag:fleet")
    assert len(net.control.json("keys", "list")) == 2
    node = net.node("fleet")["id"]
    agent.up(net.control.url, secret, "--advertise-tags=tag:fleet,tag:fleet-web")
    assert net.node("fleet")["tags"] == ["tag:fleet", "tag:fleet-web"] and net.node("fleet")["id"] == node
    assert len(net.control.json("keys", "list")) == 3


@pytest.mark.parametrize("why", ["revoked", "foreign tags", "a stranger"])
def test_who_may_not_join_is_told_why(lab, programs, why):
    net = Fleet(lab)
    secret, tags = net.create_client(), "[tag:fleet]"
    sentence = "this OAuth client has been revoked"
    if why == "revoked":
        net.control.cli("oauth", "revoke", "1")
    elif why == "foreign tags":
        tags, sentence = "[tag:fleet, tag:other]", "requested tags [tag:fleet tag:other] are invalid or not permitted"
    else:
        secret, sentence = secret[:-1] + ("0" if secret[-1] != "0" else "1"), "no OAuth client of this server has this secret"
    agent = net.declare("fleet", secret, tags)
    health = wait_for(lambda: [line for line in agent.status()["Health"] or [] if sentence in line], 20, "the machine says why it is not in")
    assert len(health) == 1 and net.control.nodes() == []
    assert agent.status()["BackendState"] == "NeedsLogin" and no_secret_in(agent.program.output(), secret)
    done = Agent(net.hosts["other"]).cli("up", "--login-server", net.control.url, "--auth-key", f"file:{_file(net.hosts['other'], secret)}",
                                         "--advertise-tags", tags.strip("[]").replace(" ", ""), "--timeout=30s", check=False, timeout=40)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and sentence in done.stderr, done


def test_the_api_gives_tokens_and_keys_as_tools_expect(lab, programs):
    net = Fleet(lab)
    secret = net.create_client()
    basic = base64.b64encode(f"some-client-id:{secret}".encode()).decode()
    for body, more in ((f"client_secret={secret}&client_id=x&grant_type=client_credentials", ()), (f"client_secret={secret}", ()),
                       ("grant_type=client_credentials", ("-H", f"Authorization: Basic {basic}"))):
        status, token = net.post("/oauth/token", body, *more)
        assert status == 200 and token["token_type"] == "Bearer" and token["expires_in"] == 3600 and token["scope"] == "auth_keys", token
    wish = {"capabilities": {"devices": {"create": {"preauthorized": True, "tags": ["tag:fleet-web"]}}}, "expirySeconds": 600}
    for more in (("-H", f"Authorization: Bearer {token['access_token']}"), ("-u", token["access_token"] + ":")):
        status, key = net.post("/tailnet/-/keys", json.dumps(wish), *more)
        assert status == 200 and key["key"].startswith("trkey-auth-" + key["id"]) and key["keyType"] == "auth", key
        assert key["expirySeconds"] == 600 and not key["invalid"] and key["capabilities"]["devices"]["create"]["tags"] == ["tag:fleet-web"]
    bearer = ("-H", f"Authorization: Bearer {token['access_token']}")
    # A restart forgets tokens, and only these.
    net.control.program.kill()
    net.control.start()
    assert net.post("/tailnet/-/keys", json.dumps(wish), *bearer) == (401, {"message": "API token invalid"})
    status, token = net.post("/oauth/token", f"client_secret={secret}")
    bearer = ("-H", f"Authorization: Bearer {token['access_token']}")
    assert net.post("/tailnet/-/keys", json.dumps(wish), *bearer)[0] == 200
    assert len(net.control.json("keys", "list")) == 3
    net.control.cli("oauth", "revoke", "1")
    assert net.post("/tailnet/-/keys", json.dumps(wish), *bearer)[0] == 401
    assert net.post("/oauth/token", f"client_secret={secret}")[0] == 401
    assert net.post("/tailnet/-/keys", "x" * 70_000, *bearer)[0] == 413
    assert net.post("/nothing", "{}")[0] == 404


def test_config_check_knows_the_file(lab, programs):
    net = Fleet(lab)
    agent, host = Agent(net.hosts["fleet"]), net.hosts["fleet"]
    config, file = host.directory / "c.yaml", host.directory / "oauth-client"
    config.write_text(f"login-server: https://c.example\noauth-client-file: {file}\nadvertise-tags: [tag:fleet]\n")
    secret = net.create_client()
    for content, sentence in ((secret + "?ephemeral=false", "as a node that stays"), (secret, "?ephemeral=false: that stays"),
                              (secret + "?tag=x", "and nothing else"), ("trkey-auth-1", "begins with tskey-client-")):
        file.write_text(content)
        file.chmod(0o644)
        said = agent.cli("config", "check", config).stdout
        told = json.loads(agent.cli("config", "check", "--json", config).stdout)
        assert told["Good"] and told["Settings"]["advertise-tags"] == "tag:fleet" and sentence in f"{told.get('Login')} {told['Notes']}", told
        assert sentence in said and f"chmod 600 {file}" in said and no_secret_in(said, secret), said
    config.write_text("nonsense: 1\n")
    wrong = agent.cli("config", "check", "--json", config, check=False)
    assert wrong.returncode == 1 and json.loads(wrong.stdout) == {"File": str(config), "Good": False, "Error": json.loads(wrong.stdout)["Error"]}, wrong


def _file(host, content: str):
    path = host.directory / "secret"
    path.write_text(content)
    path.chmod(0o600)
    return path
