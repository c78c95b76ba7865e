"""A stock client joins our control server with the secret of an OAuth client: it asks our API for an auth key.

      control 203.0.113.1          stock
              |                      |
    ----------+----------------------+---- the internet, 203.0.113.0/24
"""
import pytest

from lab.stock import StockClient
from lab.tailrace import TailraceControl
from lab.wait import wait_for

POLICY = """{
  "tagOwners": { "tag:fleet": [], "tag:fleet-web": ["tag:fleet"] },
  "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ],
}
"""


@pytest.mark.needs("tailscaled", "tailscale")
@pytest.mark.parametrize("more, ephemeral", [("", True), ("ephemeral=false&preauthorized=true&", False)])
def test_a_stock_client_joins_by_an_oauth_client(lab, programs, more, ephemeral):
    lab.internet()
    control = TailraceControl(lab.host("control", address="203.0.113.1"), policy=POLICY)
    secret = control.cli("oauth", "create", "--tags", "tag:fleet").stdout.strip()
    stock = StockClient(lab.host("stock"))
    stock.up(control.url, f"{secret}?{more}baseURL={control.url}", "--advertise-tags=tag:fleet,tag:fleet-web")
    wait_for(stock.running, 20, "the stock client is in")
    (node,), (key,) = control.nodes(), control.json("keys", "list")
    assert node["tags"] == ["tag:fleet", "tag:fleet-web"] and node["ephemeral"] == ephemeral, node
    assert key["state"] == "used" and key["oauthClient"] and key["preapproved"] != ephemeral, key


@pytest.mark.needs("tailscaled", "tailscale")
def test_a_stock_client_of_a_revoked_oauth_client_is_told_so(lab, programs):
    lab.internet()
    control = TailraceControl(lab.host("control", address="203.0.113.1"), policy=POLICY)
    secret = control.cli("oauth", "create", "--tags", "tag:fleet").stdout.strip()
    control.cli("oauth", "revoke", "1")
    stock = StockClient(lab.host("stock"))
    key_file = stock.state / "key"
    key_file.write_text(f"{secret}?baseURL={control.url}")
    done = stock.cli("up", f"--login-server={control.url}", f"--auth-key=file:{key_file}", "--advertise-tags=tag:fleet", "--timeout=20s",
                     timeout=30, check=False)
    assert done.returncode != 0 and "this OAuth client has been revoked" in done.stderr, done
    assert control.nodes() == []
