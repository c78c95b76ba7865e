"""A UPnP gateway of bad manners, run on a NAT box: `python3 fake_gateway.py ADDRESS LOCATION REDIRECT BODY_BYTES`.

Answers every search with LOCATION, and every HTTP request on ADDRESS:5000 with a redirect to REDIRECT, or with BODY_BYTES of
endless XML where REDIRECT is "-". Says on standard output what it was asked.
"""
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, LOCATION, REDIRECT, BODY_BYTES = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
ANSWER = ("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
          "USN: uuid:bad::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
          f"SERVER: bad\r\nLOCATION: {LOCATION}\r\n\r\n").encode()


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        print("GET", self.path, flush=True)
        if REDIRECT != "-":
            self.send_response(302)
            self.send_header("Location", REDIRECT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        sent = self.wfile.write(b"<?xml version=\"1.0\"?><root>")
        while sent < BODY_BYTES:
            sent += self.wfile.write(b"<a>" * 4096)

    def log_message(self, *_):
        pass


threading.Thread(target=ThreadingHTTPServer((ADDRESS, 5000), Web).serve_forever, daemon=True).start()
search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
search.bind((ADDRESS, 1900))
print("ready", flush=True)
while True:
    _, sender = search.recvfrom(2048)
    print("search", flush=True)
    search.sendto(ANSWER, sender)
