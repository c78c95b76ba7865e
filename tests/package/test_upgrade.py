"""The packages on a machine with systemd and WireGuard of its own (user-mode Linux): traffic goes on over an upgrade, a stop
leaves it, and a removal takes it down. All the while a peer sends what the policy lets nobody send, and another what it lets
only others send.

      gw1 (the machine; control too)
       | 192.0.2.1           | 192.0.2.5
     peer (alice's)        stranger (bob's)

What an upgrade begins with: see debs.py.
"""
import json
import re
import subprocess

from lab.lab import PROJECT

from .debs import built, came_from, dpkg_with_needs_of, predecessor

STORY = """
set -eu
step() { echo; echo "== $1"; }
devices() { ip -j link show tailrace0 | busybox grep -o '"ifindex":[0-9]*'; }
export DEBIAN_FRONTEND=noninteractive
systemctl start systemd-journald
dpkg -i /root/debs/*_old.deb >/root/dpkg.log 2>&1
step installed; systemctl is-active tailraced.service tailraced.socket; systemctl is-active tailrace-control || true
cp /root/control.yaml /etc/tailrace/control.yaml
systemctl start tailrace-control
for user in alice bob; do tailrace-control users create $user@example.com; done
tailrace-control policy set /root/policy.hujson
tailrace-control keys create --user alice@example.com --reusable >/root/key
tailrace-control keys create --user bob@example.com --reusable >/root/key-of-bob
step declared
printf 'login-server: http://127.0.0.1:8080\\nauth-key-file: /root/key\\nhostname: gw1\\n' >/etc/tailrace/tailraced.yaml
systemctl reload tailraced; tailrace wait --timeout 30s; tailrace status; devices; nft list tables
step peer
node() { # name, number, key
    ip netns add $1; ip link add v$2 type veth peer name eth0 netns $1
    ip address add 192.0.2.$((4 * $2 + 1))/30 dev v$2; ip link set v$2 up
    ip netns exec $1 sh -c "ip link set lo up; ip address add 192.0.2.$((4 * $2 + 2))/30 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.$((4 * $2 + 1))"
    ip netns exec $1 /usr/sbin/tailraced --config /dev/null --state-dir /root/$1 --socket /root/$1.sock >/root/$1.log 2>&1 &
    for i in $(busybox seq 100); do [ -S /root/$1.sock ] && break; busybox sleep 0.1; done
    tailrace --socket /root/$1.sock up --login-server http://192.0.2.$((4 * $2 + 1)):8080 --auth-key file:$3 --hostname $1 --timeout 30s
}
node peer 0 /root/key; node stranger 1 /root/key-of-bob
gw1=$(tailrace ip -4)
for i in $(busybox seq 100); do ip netns exec peer ping -n -c 1 -w 1 $gw1 >/dev/null 2>&1 && break; done
step forbidden
sed "s/STRANGER/$(tailrace --socket /root/stranger.sock ip -4)/" /root/arrived.nft | nft -f -
arrived() { nft -j list counter inet watch arrived | busybox grep -o '"packets": [0-9]*'; }
ip netns exec peer /usr/bin/python3 /root/knock $gw1 9999 >/root/knock-of-peer 2>&1 & knocks=$!
ip netns exec stranger /usr/bin/python3 /root/knock $gw1 80 >/root/knock-of-stranger 2>&1 & knocks="$knocks $!"
flood() { ip netns exec peer ping -n -i 0.01 $gw1 >/root/pings 2>&1 & pings=$!; busybox sleep 1; }
told() { busybox sleep 1; kill -INT $pings; wait $pings || true; busybox tail -3 /root/pings; }
step locked; tailrace set --hostname other 2>&1 || true
step wrong; echo 'hostnmae: x' >>/etc/tailrace/tailraced.yaml; systemctl reload tailraced; busybox sleep 1; tailrace status | tail -3 || true
sed -i '/hostnmae/d' /etc/tailrace/tailraced.yaml; systemctl reload tailraced
step report; tailrace bugreport --output - >/root/report 2>&1; wc -c </root/report
for secret in $(cat /root/key) $(grep -o 'privkey:[0-9a-f]*' /var/lib/tailrace/tailraced.state) \\
    $(busybox grep -o '"[A-Za-z0-9+/=]*"' /var/lib/tailrace/tailraced.state | busybox tr -d '"' | busybox grep -E '.{40}') \\
    $(wg show tailrace0 private-key); do
    if busybox grep -qF -- "$secret" /root/report; then echo "LEAKED $secret"; fi
done
step doctor; status=0; tailrace doctor --json >/root/doctor || status=$?; echo "status $status"
step upgraded; pid=$(systemctl show -P MainPID tailraced)
ip -o monitor link >/root/watched & watcher=$!
flood; dpkg --force-confold -i $(ls /root/debs/*.deb | busybox grep -v _old) >>/root/dpkg.log 2>&1
tailrace wait --timeout 30s; devices; busybox sleep 0.2; kill $watcher; busybox grep Deleted.*tailrace0: /root/watched && echo gone || true
[ "$pid" != "$(systemctl show -P MainPID tailraced)" ] && echo restarted
told
dpkg-query -W tailrace; cat /etc/tailrace/tailraced.yaml
step restarted; flood; systemctl restart tailraced; tailrace wait --timeout 30s; systemctl restart tailraced; tailrace wait --timeout 30s; told
step refused; arrived; nft list table inet watch >/root/watch; tailrace debug drops --json; kill -INT $knocks; wait $knocks || true; busybox cat /root/knock-of-peer /root/knock-of-stranger /root/watch
ip netns exec peer /usr/bin/python3 /root/knock $gw1 9999 >/dev/null & knocks=$!
step counts; tailrace-control policy set /root/open.hujson; for i in $(busybox seq 100); do arrived | busybox grep -qv ' 0$' && break; busybox sleep 0.1; done
arrived; kill $knocks; tailrace-control policy set /root/policy.hujson
step stopped; systemctl stop tailraced tailraced.socket; devices; ip netns exec peer ping -n -c 3 -i 0.2 -w 3 $gw1 >/dev/null && echo passes; systemctl start tailraced.socket; tailrace wait --timeout 30s; devices
step down; systemctl stop tailraced tailraced.socket; echo 'on-stop: down' >>/etc/tailrace/tailraced.yaml
systemctl start tailraced; tailrace wait --timeout 30s; ip -br link show tailrace0
systemctl stop tailraced.socket tailraced; ip link show tailrace0 2>&1 || true; nft list tables
sed -i '/on-stop/d' /etc/tailrace/tailraced.yaml; systemctl start tailraced; tailrace wait --timeout 30s
step watchdog; systemctl show -P WatchdogUSec tailraced; journalctl -u tailraced --no-pager | busybox grep -ci watchdog || true
step removed; dpkg -r tailrace >>/root/dpkg.log 2>&1; ip link show tailrace0 2>&1 || true; nft list tables; busybox find /sys/fs/bpf -type f
step purged; dpkg -P tailrace tailrace-control tailrace-relay >>/root/dpkg.log 2>&1; ls /etc/tailrace /var/lib/tailrace 2>&1 || true
step end
"""
CONTROL = """
server_url: http://127.0.0.1:8080
listen: 0.0.0.0:8080
listen_tls: ""
metrics_listen: ""
"""
POLICY = """{
  "acls": [
    { "action": "accept", "proto": "icmp", "src": ["alice@example.com"], "dst": ["*:*"] }, // also bob's, so that he sees hers
    { "action": "accept", "proto": "tcp", "src": ["alice@example.com"], "dst": ["alice@example.com:80"] },
  ],
}
"""
OPEN = """{ "acls": [ { "action": "accept", "src": ["*"], "dst": ["*:*"] } ] }"""
# What has come past the policy and the backstop.
ARRIVED = """table inet watch {
    counter arrived { }
    chain arrive {
        type filter hook input priority 10
        iifname "tailrace0" ip saddr STRANGER icmp type echo-request counter name arrived
        iifname "tailrace0" meta l4proto tcp counter name arrived
        iifname "tailrace0" meta l4proto udp counter name arrived
        iifname "tailrace0" meta l4proto icmpv6 counter
    }
}
"""
# Sixty packets a second: to a port that is closed to all, one that is open to TCP only, and a connection to the port given.
KNOCK = """
import signal, socket, sys, time
sent = 0
def tell(*_):
    print("sent", sent)
    sys.exit(0)
signal.signal(signal.SIGINT, tell)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    tcp = socket.socket()
    tcp.setblocking(False)
    tcp.connect_ex((sys.argv[1], int(sys.argv[2])))
    tcp.close()
    for port in (9999, 80):
        try:
            udp.sendto(b"may I?", (sys.argv[1], port))
        except OSError:
            pass
    sent += 3
    time.sleep(0.05)
"""
UNIT = """[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c "/bin/sh /root/story >/root/told 2>&1 || (journalctl --no-pager -u tailraced -u tailrace-control -n 30; busybox tail -25 /root/dpkg.log) >>/root/told"
ExecStopPost=/bin/systemctl exit
"""
INIT = """
mkdir -p /run/systemd/system /root
# Services are started, as on a real machine; and no index of all man pages is made for each of ours.
rm -f /usr/sbin/policy-rc.d /var/lib/man-db/auto-update
# Nothing new can be renamed to a directory on this overlay, which has no extended attributes: dpkg finds them made.
cd /
# None of the host's units and packages, but those that ours need: to look through all of them takes longer than all else.
for folder in /lib/systemd/system-generators /usr/lib/systemd/system-environment-generators /var/lib/dpkg; do mount -t tmpfs tmpfs $folder; done
cp -r {folder}/dpkg/. /var/lib/dpkg/
for deb in {folder}/debs/*; do dpkg-deb --fsys-tarfile $deb | tar t | busybox grep '/$' | xargs mkdir -p; done
cp -r {folder}/story {folder}/debs {folder}/control.yaml {folder}/policy.hujson {folder}/open.hujson {folder}/arrived.nft {folder}/knock /root/ # systemd empties /tmp
cp {folder}/story.service /run/systemd/system/
unshare --pid --fork --mount --mount-proc env container=other /lib/systemd/systemd --system --unit=story.service --show-status=false >/dev/null
cat /root/told
"""


def none_lost(told: str) -> int:
    """How many pings were sent, a hundred a second, each of which was answered."""
    sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", told).groups())
    assert sent - received <= 1, f"{sent - received} of {sent} lost; the last may be on its way"
    return sent


def test_traffic_goes_on_over_an_upgrade_and_ends_with_a_removal(tmp_path):
    debs = list(built().values())
    debs += [predecessor(deb, tmp_path) for deb in debs]
    folder = tmp_path / "debs"
    folder.mkdir()
    for deb in debs:
        (folder / deb.name).write_bytes(deb.read_bytes())
    dpkg_with_needs_of(debs, tmp_path / "dpkg")
    for name, text in (("control.yaml", CONTROL), ("policy.hujson", POLICY), ("open.hujson", OPEN), ("arrived.nft", ARRIVED), ("knock", KNOCK)):
        (tmp_path / name).write_text(text)
    (tmp_path / "story").write_text(STORY)
    (tmp_path / "story.service").write_text(UNIT)
    (tmp_path / "init").write_text(INIT.format(folder=tmp_path))
    done = subprocess.run([PROJECT / "scripts/uml", "--timeout", "400", "--", "sh", tmp_path / "init"], capture_output=True, text=True,
                          errors="replace", timeout=900)
    told = done.stdout + done.stderr
    steps = {name: text for name, _, text in (part.partition("\n") for part in told.split("\n== "))}
    assert "end" in steps, told
    assert steps["installed"].split()[:3] == ["active", "active", "inactive"], told
    assert "100.64.0.1" in steps["declared"] and "gw1" in steps["declared"] and "tailrace-tailrace0" in steps["declared"], told
    index = next(word for word in steps["declared"].split() if word.startswith('"ifindex"'))
    assert "are declared in /etc/tailrace/tailraced.yaml" in steps["locked"], told
    assert "unknown key" in steps["wrong"] and "hostnmae" in steps["wrong"], told
    assert int(steps["report"].split()[0]) > 5000 and "LEAKED" not in told, told
    assert "status" in steps["doctor"], told
    assert index in steps["upgraded"].split() and "gone" not in steps["upgraded"] and "restarted" in steps["upgraded"], told
    assert "0.0.9" not in steps["upgraded"] and "hostname: gw1" in steps["upgraded"], told
    counted = none_lost(steps["upgraded"]), none_lost(steps["restarted"])
    print(f"pings, a hundred a second, none lost: {counted[0]} over an upgrade, {counted[1]} over two restarts")
    assert min(counted) > 100, told
    arrived, _, drops = steps["refused"].partition("\n")
    dropped = sum(reason["Packets"] for reason in json.JSONDecoder().raw_decode(drops)[0]["Reasons"] if not reason["Passes"])
    knocked = [int(count) for count in re.findall(r"^sent (\d+)$", steps["refused"], re.M)]
    print(f"upgraded from {came_from()}; of {knocked} forbidden packets of a peer and a stranger 0 arrived, {dropped} are counted as dropped")
    assert len(knocked) == 2 and min(knocked) > 300 and dropped > 300, told
    assert arrived == '"packets": 0', told
    assert steps["counts"].split()[-1] != "0", f"what arrives is counted: {told}"
    assert steps["stopped"].split() == [index, "passes", index], told
    assert "does not exist" in steps["down"] and "tailrace-tailrace0" not in steps["down"], told
    assert steps["watchdog"].split() == ["1min", "0"], told
    assert "does not exist" in steps["removed"] and "tailrace" not in steps["removed"].split("does not exist")[1], told
    assert "tailraced.yaml" not in steps["purged"], told
