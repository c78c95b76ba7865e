"""A restart of control under connected stock clients: they come back, as they were.

      control 203.0.113.1    relay    alice     bob
             |                 |        |        |
    ---------+-----------------+--------+--------+---- the internet
"""
import time

import pytest

from lab.scenarios.mesh import Mesh
from lab.traffic import Ping, ping
from lab.wait import wait_for


@pytest.mark.needs("tailscaled", "tailscale")
def test_stock_clients_of_a_public_http_server_come_back(lab, programs):
    """The URL is http:// at a public address: such clients insist on TLS at port 443 after a loss."""
    mesh = Mesh(lab, control="tailrace", alice="stock", bob="stock")
    mesh.join()
    wait_for(lambda: len([n for n in mesh.control.nodes() if n["online"]]) == 2, 10, "both are online")
    before = {n["name"]: n for n in mesh.control.nodes()}
    for host, node, other, peer in mesh.pairs(): # a change of path may cost a packet by itself
        wait_for(lambda: ping(host, peer.ip(), timeout=1) and node.direct_to(other), 20, f"{host.name} has a direct path")
    pings = Ping(mesh.hosts["alice"], mesh.nodes["bob"].ip())
    pings.wait_for_reply()

    mesh.control.program.kill()
    mesh.control.start()
    wait_for(lambda: len([n for n in mesh.control.nodes() if n["online"]]) == 2, 5, "both are online again")
    time.sleep(3) # what the new map stream tells them takes effect

    pings.finish()
    after = {n["name"]: n for n in mesh.control.nodes()}
    for name, node in before.items():
        assert {k: after[name][k] for k in ("id", "created", "nodeKey", "machineKey", "addresses")} \
            == {k: node[k] for k in ("id", "created", "nodeKey", "machineKey", "addresses")}
