"""Routers beside other people's firewalls. Picture: lab/scenarios/subnet_router.py; the firewall is on the router."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from lab.lab import PATH

from lab.scenarios.subnet_router import SERVER, SERVER6, RoutedNet, is_clean
from lab.traffic import ping
from lab.wait import wait_for

from .test_firewalls import firewalld, masquerade, ufw

DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -N DOCKER-FORWARD
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
ip6tables -P FORWARD DROP
"""


def docker(host) -> None:
    """What dockerd does to the rules of a host."""
    for line in DOCKER.strip().splitlines():
        host.run(line)


def dockerd(host):
    """The daemon itself, installed, named by DOCKERD, or fetched; beside containerd and runc. Without a container: it makes its
    rules when it starts."""
    program = os.environ.get("DOCKERD") or shutil.which("dockerd", path=PATH)
    if not program:
        fetched = subprocess.run([pathlib.Path(__file__).parent / "fetch-docker"], capture_output=True, text=True, timeout=300)
        if fetched.returncode != 0:
            pytest.skip(f"dockerd is not installed and cannot be fetched: {fetched.stderr.strip()[-200:]}")
        program = fetched.stdout.strip()
    folder = pathlib.Path(program).parent
    settings = host.directory / "daemon.json"
    settings.write_text(json.dumps({"deprecated-key-path": str(host.directory / "docker-key.json")})) # else in /etc/docker
    daemon = host.start("dockerd", [program, "--config-file", settings, "--iptables=true", "--ip6tables=true", "--experimental", "--storage-driver=vfs", "--data-root", host.directory / "docker"],
                        env={"PATH": f"{folder}:{folder.parent / 'bin'}:{PATH}",
                             "LD_LIBRARY_PATH": str(folder.parent.parent / "lib/x86_64-linux-gnu")})
    daemon.wait_for_output("API listen on", 60)
    assert "FORWARD DROP" in host.run("iptables -S FORWARD").stdout.replace("-P ", "")
    return daemon


def closed_input(host) -> None:
    host.run("iptables -P INPUT DROP")
    host.run("iptables -A INPUT -i lo -j ACCEPT")
    host.run("iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    docker(host)


@pytest.mark.parametrize("firewall", [docker, dockerd, closed_input, masquerade, ufw])
def test_a_router_forwards_beside(lab, programs, firewall):
    net = RoutedNet(lab, prepare=lambda host: setattr(host, "firewall", firewall(host)))
    net.forward()
    net.join()
    for address in (SERVER, SERVER6):
        wait_for(lambda: net.fetches(address), 15, f"the client fetches from {address}")
    assert not any("nftables chain" in text for text in net.router.status()["Health"] or [])
    wait_for(lambda: ping(net.client_host, net.router.ip(), timeout=1), 10, "the router itself answers")
    wait_for(lambda: net.client.direct_to("router"), 20, "nothing keeps path discovery from its port")
    if firewall is dockerd: # puts its own rules to the head of the chain when it starts
        net.router_host.firewall.stop(20)
        firewall(net.router_host)
        for address in (SERVER, SERVER6):
            wait_for(lambda: net.fetches(address), 15, f"the client fetches from {address} with the daemon started anew")
        net.router_host.run("iptables -F FORWARD")
        wait_for(net.fetches, 15, "the rules are there again")
    if firewall is docker:
        shown = net.router_host.run("iptables -S FORWARD").stdout
        assert "-i tailrace0" in shown and "-o tailrace0" in shown, shown
        net.router_host.run("iptables -F FORWARD") # as a firewall does that is loaded anew
        wait_for(lambda: net.fetches(), 15, "the rules are there again")
    net.router.cli("down")
    if firewall is not ufw: # which counts, and logs, in chains of its own
        wait_for(lambda: "tailrace" not in net.router_host.run("nft list ruleset").stdout, 10, "no rule of ours is left")
    if firewall is closed_input:
        is_clean(net.router_host, net.before)


def test_firewalld_that_refuses_is_named_with_the_cure(lab, programs):
    net = RoutedNet(lab, prepare=firewalld)
    net.forward()
    net.join()
    told = wait_for(lambda: [text for text in net.router.status()["Health"] or [] if "firewalld" in text], 10, "health names firewalld")
    assert "--zone=trusted --add-interface=tailrace0" in told[0]
    net.router_host.run("firewall-cmd --zone=trusted --add-interface=tailrace0", timeout=30)
    wait_for(net.fetches, 20, "the cure helps")


def test_a_chain_that_drops_is_named_with_the_cure(lab, programs):
    rules = "table inet mine {\n chain pass { type filter hook forward priority 0; policy drop; }\n}\n"
    net = RoutedNet(lab, prepare=lambda host: host.nft(rules))
    net.forward()
    net.join()
    told = wait_for(lambda: [text for text in net.router.status()["Health"] or [] if "inet mine pass" in text], 10, "health names the chain")
    assert not net.fetches()
    for direction in ("iifname", "oifname"):
        cure = f"nft insert rule inet mine pass {direction} tailrace0 accept"
        assert cure in told[0], told
        net.router_host.run(cure)
    wait_for(net.fetches, 15, "the cure helps")
