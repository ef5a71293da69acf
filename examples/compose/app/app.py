"""A stand-in for a service, in Python's standard library. It listens where SERVICE_PORT or PORT says. What other services
answer it gets from wherever <NAME>_SERVICE_URL says: a gateway passes /api/users/.. on to USER_SERVICE_URL, a service that
answers itself asks all of them. That these are lictor's listeners, or names behind its HTTP_PROXY, it does not know.
"""

import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORWARDED = ("traceparent", "tracestate", "x-request-id", "x-request-timeout-ms", "x-lictor-attempt")
NAME = os.environ.get("SERVICE_NAME") or os.environ.get("APP_NAME") or "service"
PORT = int(os.environ.get("SERVICE_PORT") or os.environ.get("PORT") or "8082")
SUFFIX = "_SERVICE_URL"
OTHERS = {f"{name[:-len(SUFFIX)].lower()}s": url for name, url in os.environ.items() if name.endswith(SUFFIX)}


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, _, other, *rest = (self.path + "///").split("/")
        if self.path == "/health":
            self.reply(200, b"healthy\n")
        elif other in OTHERS:
            self.reply(*self.ask(OTHERS[other], self.path))
        else:
            answers = [self.ask(url, f"/api/{other}/1") for other, url in sorted(OTHERS.items())]
            text = f"{self.path} from {NAME} on {socket.gethostname()}\n".encode() + b"".join(body for _, body in answers)
            self.reply(max([200, *(status for status, _ in answers)]), text)

    def ask(self, url, path):
        headers = {name: self.headers[name] for name in FORWARDED if self.headers[name]}
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=35) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as PID 1 nothing ends it otherwise
ThreadingHTTPServer(("0.0.0.0", PORT), Service).serve_forever()
