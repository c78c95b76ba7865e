"""A restart of control under 50 connected clients, some of them stock ones when given, and kills of control at any moment.

      control 203.0.113.1     node-0   node-1  ...  node-49
             |                  |        |             |
    ---------+------------------+--------+-------------+---- the internet
"""
import json
import os
import random
import re
import time

from lab.stock import StockClient, binary
from lab.tailrace import TAILRACE_CONTROL, Agent, TailraceControl
from lab.traffic import Ping
from lab.wait import wait_for

NODES, STOCK = 50, 4
STAYS = ("id", "created", "nodeKey", "machineKey", "addresses")


def online(control) -> int:
    return sum(node["online"] for node in control.nodes())


def identity(control) -> dict:
    return {node["name"]: {key: node[key] for key in STAYS} for node in control.nodes()}


def talk_by_the_router_only(host) -> None:
    """Its only neighbour is the router: the kernel keeps 1,024 neighbours for all its namespaces together, and fifty
    hosts on one link would have more."""
    router = host.lab.internet()
    router.switch.sysctl("net.ipv4.conf.all.send_redirects", 0)
    router.switch.sysctl("net.ipv4.conf.br0.send_redirects", 0)
    host.ip(f"route add {router.gateway}/32 dev eth0", f"route del {router.prefix} dev eth0")


def routing_sizes(client: StockClient) -> list:
    """How many addresses it could reach, after each change of its peers."""
    return [int(size) for size in re.findall(r"bart table size: (\d+)", client.program.output())]


def test_fifty_clients_are_back_within_five_seconds(lab, programs):
    lab.internet()
    control = TailraceControl(lab.host("control", address="203.0.113.1"))
    control.create_user("alice")
    key = control.create_key("alice")
    hosts = [lab.host(f"node-{i}") for i in range(NODES)]
    for host in hosts:
        talk_by_the_router_only(host)
    stock = STOCK if binary("tailscaled") and binary("tailscale") else 0
    agents = [Agent(host, wait=False) for host in hosts[:NODES - stock]]
    clients = [StockClient(host) for host in hosts[NODES - stock:]]
    for agent in agents:
        agent.wait_until_up()
    ups = [agent.start_up(control.url, key) for agent in agents]
    for up in ups:
        assert up.wait(90) == 0, up.output()
    for client in clients:
        client.up(control.url, key)
    wait_for(lambda: online(control) == NODES, 20, "all are online")
    wait_for(lambda: all(len(client.status()["Peer"]) == NODES - 1 for client in clients), 20, "stock clients know everybody")
    before, sizes = identity(control), [routing_sizes(client) for client in clients]
    first = Ping(agents[0].host, agents[-1].ip(), interval=0.05)
    first.wait_for_reply(20) # what the two lose while they find each other is another test's question
    first.finish()
    pings = Ping(agents[0].host, agents[-1].ip(), interval=0.05)

    control.program.kill()
    control.start()
    wait_for(lambda: online(control) == NODES, 5, "all are online again")

    assert identity(control) == before
    pings.finish()
    assert all(node.running() for node in [*agents, *clients])
    for client, known in zip(clients, sizes):
        assert set(routing_sizes(client)[len(known):]) <= {known[-1]}, "no peer was taken away, not for a moment"


# Each worker does one kind of change again and again, $i counts, and writes down what was acknowledged.
WORKERS = {
    "users": '{control} users create "user-$i" && echo "user-$i" >> {acknowledged}',
    "keys": '{control} keys create --user first --json > {acknowledged}.one'
            ' && tr -d "\\n" < {acknowledged}.one >> {acknowledged} && echo >> {acknowledged}',
    "revoked": 'id=$({control} keys create --user first --json | tr -d " \\n" | sed "s/.*\\"id\\":\\([0-9]*\\).*/\\1/")'
               ' && {control} keys revoke "$id" && echo "$id" >> {acknowledged}',
    "names": '{control} nodes rename 1 "name-$i" && echo "$i" >> {acknowledged}',
    "tags": '{control} nodes tag 1 "tag:t$i" && echo "$i" >> {acknowledged}',
    "policies": 'echo "// $i\n{policy}" > {acknowledged}.hujson && {control} policy set {acknowledged}.hujson && echo "$i" >> {acknowledged}',
}
KILLS = 10
TAGS = json.dumps({"tagOwners": {f"tag:t{i}": [] for i in range(1, 1000)}}) # more than a worker gives in that time


def test_a_kill_at_any_moment_loses_nothing_acknowledged(lab, programs):
    control = TailraceControl(lab.host("control", address="203.0.113.1"))
    control.create_user("first")
    agents = [Agent(lab.host(f"node-{i}")) for i in range(3)]
    key = control.create_key("first")
    Agent(lab.host("changed")).up(control.url, key) # node 1
    control.set_policy("// 0\n" + TAGS)
    acknowledged = {name: control.folder / f"acknowledged-{name}" for name in WORKERS}
    for name, line in WORKERS.items():
        acknowledged[name].touch()
        work = line.format(control=f"{TAILRACE_CONTROL} --socket {control.socket}", acknowledged=acknowledged[name], policy=TAGS.replace('"', '\\"'))
        control.host.start(f"worker-{name}", ["sh", "-c", f"exec >/dev/null 2>&1; i=0; while :; do i=$((i+1)); {{ {work}; }}; sleep 0.03; done"])
    seed = int(os.environ.get("TAILRACE_SEED", random.randrange(1 << 32)))
    print(f"again: TAILRACE_SEED={seed}")
    dice = random.Random(seed)
    ups, joined = [], []
    for kill in range(KILLS):
        time.sleep(dice.uniform(0.02, 0.6))
        if kill % 4 == 1: # a registration is under way
            ups.append((agents[kill // 4], agents[kill // 4].start_up(control.url, key)))
            time.sleep(dice.uniform(0, 0.3))
        control.program.kill()
        control.start()
    for agent, up in ups:
        assert up.wait(60) == 0, up.output()
        joined.append((agent.host.name, agent.ip()))
    control.program.kill()
    control.start()

    told = {name: path.read_text() for name, path in acknowledged.items()} # first this: the workers go on
    users = {user["name"] for user in control.json("users", "list")}
    keys = {str(one["id"]) for one in control.json("keys", "list")}
    nodes = {(node["name"], address) for node in control.nodes() for address in node["addresses"]}
    lost_users = [name for name in told["users"].split() if name not in users]
    told_keys = [json.loads(line) for line in told["keys"].splitlines()]
    lost_keys = [one["id"] for one in told_keys if str(one["id"]) not in keys]
    assert len(told_keys) > KILLS and all(told.values()), "the workers worked"
    assert not lost_users and not lost_keys
    assert set(joined) <= nodes
    revoked = {str(one["id"]) for one in control.json("keys", "list") if one["state"] == "revoked"}
    assert set(told["revoked"].split()) <= revoked
    changed, policy = control.json("nodes", "show", "1"), control.cli("policy", "get").stdout
    for name, text in (("names", changed["name"]), ("tags", changed["tags"][0]), ("policies", policy)):
        # What came after the last acknowledged one may be there, too.
        assert int(re.search(r"\d+", text)[0]) >= int(told[name].split()[-1]), f"{name}: {text}"
