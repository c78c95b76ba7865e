"""Public addresses that only a cloud's metadata service knows. Picture: lab/scenarios/paths.py; the service is on alice's
loopback interface, as it is no farther than the hypervisor."""
import time

import pytest

from lab.scenarios.paths import Net
from lab.traffic import ping
from lab.wait import wait_for

ELASTIC = "198.51.100.9" # nobody has it here, so it is a candidate and no more
SERVICE = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "EC2ws", ""
    def version_string(self):
        return "EC2ws"
    def answer(self):
        print(self.command, self.path, flush=True)
        if sys.argv[1] == "silent":
            time.sleep(3600)
        root = "/latest/meta-data/network/interfaces/macs/"
        pages = {"/latest/api/token": b"token", root: b"0e:49:61:0f:c3:11/", root + "0e:49:61:0f:c3:11/public-ipv4s": b"%s"}
        body = pages.get(self.path)
        if self.path != "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token") != "token":
            body = None
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")
    do_GET = do_PUT = answer
    def log_message(self, *_):
        pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("169.254.169.254", 80), Handler).serve_forever()
""" % ELASTIC


class Cloud:
    def __init__(self, host, vendor: str, manner: str = "answers"):
        # A machine without firmware tables has no such folder, and sysfs takes none from us.
        host.run(["busybox", "mount", "-t", "tmpfs", "tmpfs", "/sys/class"])
        host.run(["mkdir", "-p", "/sys/class/dmi/id"])
        host.run(["busybox", "sh", "-c", f"echo '{vendor}' > /sys/class/dmi/id/bios_vendor"])
        host.ip("address add 169.254.169.254/32 dev lo")
        self.service = host.start("metadata", ["/usr/bin/python3", "-c", SERVICE, manner])
        self.service.wait_for_output("serving")

    def asked(self) -> int:
        return self.service.output().count("PUT ")


def knows(net) -> bool:
    return f"{ELASTIC}:41641" in net.bob.cli("debug", "paths", "alice").stdout


@pytest.mark.parametrize("vendor, is_asked", [("Amazon EC2", True), ("Google", False)])
def test_an_instance_says_where_it_can_be_reached(lab, programs, vendor, is_asked):
    clouds = []
    net = Net(lab, "public", "public", prepare=lambda hosts: clouds.append(Cloud(hosts["alice"], vendor)))
    net.reaches()
    if is_asked:
        wait_for(lambda: knows(net), 10, "bob knows alice's address in the cloud")
        assert "GET /latest/meta-data/network/interfaces/macs/0e:49:61:0f:c3:11/ipv6s" in clouds[0].service.output()
    else:
        time.sleep(1)
        assert clouds[0].asked() == 0 and not knows(net)


def test_a_service_that_does_not_answer_holds_nothing_up(lab, programs):
    clouds = []
    net = Net(lab, "public", "public", prepare=lambda hosts: clouds.append(Cloud(hosts["alice"], "4.2.amazon", "silent")))
    begun = time.monotonic()
    net.alice.cli("netcheck")
    assert time.monotonic() - begun < 5
    net.reaches()
    wait_for(lambda: net.alice.direct_to("bob"), 5, "the path is direct")
    assert ping(net.hosts["alice"], net.bob.ip(), timeout=2) and clouds[0].asked() > 0 and not knows(net)
