"""What `tailrace debug top`, `debug drops --follow` and the metrics say while packets flow. Picture: lab/scenarios/paths.py"""
import json
import re

from lab.lab import PROJECT
from lab.scenarios.paths import Net
from lab.tailrace import AGENT_SOCKET, TAILRACE
from lab.traffic import WebServer, fetch, ping, tcp_opens
from lab.wait import wait_for

POLICY = """{ "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:80"] } ] }"""
LISTEN = "127.0.0.1:9442"
SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*\})? ([0-9.e+-]+|NaN)$')


def parse_prometheus(text: str) -> dict:
    """As strict as promtool: {name and labels: value}. Each family has HELP and TYPE once, before its samples, together."""
    assert text.endswith("\n")
    kinds, helps, samples, done, family = {}, set(), {}, set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helps, f"{name} has HELP twice"
            assert len(line.split(" ", 3)) == 4 and line.split(" ", 3)[3], line
            helps.add(name)
            done.add(family)
            family = name
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and name not in kinds and kind in ("counter", "gauge"), line
            assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
            kinds[name] = kind
            continue
        match = SAMPLE.match(line)
        assert match, f"no sample: {line!r}"
        assert match[1] == family and match[1] in kinds and match[1] not in done, line
        key = match[1] + (match[2] or "")
        assert key not in samples, f"{key} twice"
        samples[key] = float(match[3])
    assert helps == set(kinds)
    return {"samples": samples, "kinds": kinds}


def net_with_web(lab, prepare=lambda hosts: None) -> Net:
    net = Net(lab, "easy", "easy", prepare=prepare)
    net.control.set_policy(POLICY)
    net.reaches()
    return net


def watchers(node) -> int:
    return parse_prometheus(node.cli("metrics").stdout)["samples"]["tailrace_packet_watchers"]


def start(net, name: str, *words):
    return net.hosts["bob"].start(name, [TAILRACE, "--socket", AGENT_SOCKET, "debug", *words])


def test_top_shows_who_moves_how_much_by_which_rule(lab, programs):
    net = net_with_web(lab)
    WebServer(net.hosts["bob"])
    live, plain = start(net, "top-json", "top", "--json"), start(net, "top", "top")

    def tcp_flow():
        fetch(net.hosts["alice"], f"http://{net.bob.ip()}/")
        lines = [json.loads(line) for line in live.output().splitlines()]
        return next((f for line in lines for f in line["Flows"] if f["Protocol"] == "tcp" and f["Closed"]), None)

    flow = wait_for(tcp_flow, 20, "a connection in `debug top`")
    assert flow["Peer"] == "alice" and flow["OpenedBy"] == "peer", flow
    assert flow["Local"] == f"{net.bob.ip()}:80" and flow["Remote"].startswith(net.alice.ip() + ":"), flow
    assert flow["InPackets"] >= 3 and flow["OutPackets"] >= 2 and flow["InBytes"] > 100, flow
    assert flow["Rule"] == 0 and ":80" in flow["RuleText"], flow
    wait_for(lambda: "alice" in plain.output() and ":80 " in plain.output() and "PEER" in plain.output(), 10, "the same for people")
    assert "\x1b" not in plain.output(), "no terminal, no escape sequences"
    once = net.bob.cli("debug", "top", "--once").stdout
    assert "PEER" in once and once.count("RULE") == 1
    wait_for(lambda: watchers(net.bob) == 2, 10, "two clients watch")
    live.kill()
    plain.stop()
    wait_for(lambda: watchers(net.bob) == 0, 10, "the watch ends with the clients, killed or not")
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=5) and net.bob.running()


def test_drops_are_followed_with_names_and_reasons(lab, programs):
    net = net_with_web(lab)
    alice, bob = net.hosts["alice"], net.bob
    drops, people = start(net, "drops-json", "drops", "--follow", "--json"), start(net, "drops", "drops", "--follow")

    def seen():
        tcp_opens(alice, bob.ip(), 81, timeout=1)
        lines = [json.loads(line) for line in drops.output().splitlines()]
        return next((d for d in lines if d.get("Reason") == "no-rule"), None)

    drop = wait_for(seen, 20, "a drop")
    assert drop["Peer"] == "alice" and drop["Direction"] == "in" and drop["Protocol"] == "tcp", drop
    assert drop["Destination"] == f"{bob.ip()}:81" and drop["Source"].startswith(net.alice.ip() + ":"), drop
    assert drop["Near"]["Rule"] == 0 and "another port: 80" in drop["Near"]["Why"], drop
    wait_for(lambda: " < alice " in people.output() and "no-rule" in people.output() and "near: line 1 of the policy, rule 0" in people.output(), 10, "the same for people")
    text = bob.cli("debug", "drops").stdout
    assert "drop no-rule" in text
    drops.stop()
    people.stop()
    wait_for(lambda: watchers(bob) == 0, 10, "the watch ends with the clients")


def test_filter_shows_what_each_rule_let_in(lab, programs):
    net = net_with_web(lab)
    WebServer(net.hosts["bob"])
    fetch(net.hosts["alice"], f"http://{net.bob.ip()}/")
    rules = json.loads(net.bob.cli("debug", "filter").stdout)
    assert rules[0]["Packets"] >= 1 and rules[0]["Bytes"] >= 40 and rules[0]["SrcIPs"], rules
    before = rules[0]["Packets"]
    net.control.set_policy(POLICY.replace('"*:80"', '"*:80", "*:7777"'))
    wait_for(lambda: len(json.loads(net.bob.cli("debug", "filter").stdout)[0]["DstPorts"]) > len(rules[0]["DstPorts"]), 15, "the other policy")
    after = json.loads(net.bob.cli("debug", "filter").stdout)[0]["Packets"]
    assert after >= before, "counters go on through a change of the policy"


def test_metrics_are_what_prometheus_reads(lab, programs):
    net = net_with_web(lab)
    alice, bob = net.hosts["alice"], net.bob
    WebServer(net.hosts["bob"])
    bob.program.stop()
    bob.more = ("--metrics-listen", LISTEN)
    bob.start()
    wait_for(lambda: ping(alice, bob.ip(), timeout=1), 15, "bob is back")
    wait_for(lambda: net.alice.direct_to("bob"), 20, "the path is direct")

    def scrape():
        return parse_prometheus(net.hosts["bob"].run(["curl", "-sS", "--fail", f"http://{LISTEN}/metrics"]).stdout)

    first = scrape()
    fetch(alice, f"http://{bob.ip()}/")
    tcp_opens(alice, bob.ip(), 81, timeout=1)
    second = scrape()
    assert first["kinds"] == second["kinds"]
    for key, value in first["samples"].items():
        if second["kinds"][key.split("{")[0]] == "counter":
            assert second["samples"][key] >= value, f"{key} went back"
    now, before = second["samples"], first["samples"]
    assert now['tailscaled_inbound_bytes_total{path="direct_ipv4"}'] > before['tailscaled_inbound_bytes_total{path="direct_ipv4"}']
    assert now['tailscaled_outbound_bytes_total{path="direct_ipv4"}'] > before['tailscaled_outbound_bytes_total{path="direct_ipv4"}']
    assert now['tailscaled_inbound_dropped_packets_total{reason="acl"}'] > before['tailscaled_inbound_dropped_packets_total{reason="acl"}']
    assert now['tailrace_filter_packets_total{direction="in",verdict="pass",reason="rule"}'] > 0
    assert now["tailrace_peers"] == 1 and now["tailrace_backend_state"] == 6 and now["tailrace_control_connected"] == 1
    assert now['tailrace_peer_paths{path="direct_ipv4"}'] == 1 and now["tailrace_relay_connected"] == 1
    assert now["tailrace_filter_generation"] >= 1 and now["tailrace_flow_table_capacity"] > 0
    assert now["tailrace_packet_events_lost_total"] == 0
    names = {key.split("{")[0] for key in now}
    dashboard = json.loads((PROJECT / "debian/examples/grafana-dashboard.json").read_text())
    drawn = {name for panel in dashboard["panels"] for target in panel.get("targets", []) for name in re.findall(r"tail(?:race|scaled)_\w+", target["expr"])}
    assert len(drawn) > 10 and drawn <= names, f"the dashboard draws what there is not: {drawn - names}"
    assert {"tailscaled_health_messages", "tailscaled_advertised_routes", "tailscaled_approved_routes", "tailscaled_home_derp_region_id"} <= names
    assert parse_prometheus(bob.cli("metrics").stdout)["kinds"] == parse_prometheus(bob.cli("metrics", "print").stdout)["kinds"]
    path = net.hosts["bob"].directory / "metrics.prom"
    bob.cli("metrics", "write", path)
    assert parse_prometheus(path.read_text())["kinds"] == second["kinds"]
    assert path.stat().st_mode & 0o777 == 0o644
    host = net.hosts["bob"]
    assert host.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{LISTEN}/"]).stdout == "404"
    assert host.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Origin: http://x", f"http://{LISTEN}/metrics"]).stdout == "403"

