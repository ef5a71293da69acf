"""A service that answers itself, or, with USER_SERVICE_URL, asks user-service. Standard library only."""

import os
import socket
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORWARDED = ("traceparent", "tracestate", "x-request-id", "x-request-timeout-ms", "x-lictor-attempt")
USERS = os.environ.get("USER_SERVICE_URL")


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body, status = f"{self.path} from {socket.gethostname()}\n".encode(), 200
        if USERS and self.path != "/health":
            headers = {name: self.headers[name] for name in FORWARDED if self.headers[name]}
            try:
                with urllib.request.urlopen(urllib.request.Request(USERS + self.path, headers=headers), timeout=35) as answer:
                    body = b"order-service asked: " + answer.read()
            except urllib.error.HTTPError as error:
                body, status = error.read(), error.code
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8082"))), Service).serve_forever()
