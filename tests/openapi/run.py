"""Starts a Consul, an application, and a lictor that has everything on, and lets schemathesis ask what /openapi.json says may be asked.

Services, keys and a gateway are there, so that answers have something in them. What it does to requests, and what it looks at besides, is in hooks.py; what it may
not find is in schemathesis.toml. /quit is left out: it ends the process that is tested (tests/blocks/openapi.rs gives that order)."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
TOKEN = "0123456789abcdef"


def eventually(what, look, seconds=30):
    """Looks until there is something to see, and returns it."""
    ends, seen = time.monotonic() + seconds, None
    while time.monotonic() < ends:
        try:
            if seen := look():
                return seen
        except OSError as error:
            seen = error
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds}s: {what}; last seen: {seen!r}")


def call(url, method="GET", body=None, headers=()):
    request = urllib.request.Request(url, method=method, data=body, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=15) as answer:
        return answer.read()


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [it.getsockname()[1] for it in sockets]


class Application(http.server.BaseHTTPRequestHandler):
    """Answers everything; what begins with /bad badly."""

    def do_GET(self):
        self.send_response(500 if self.path.startswith("/bad") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_):
        pass


def application(stack):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return server.server_address[1]


def started(stack, command, log, environment=None):
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0)
    stack.callback(ended, process)
    return process


def ended(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def consul(stack, folder):
    """An agent of its own; where it is."""
    names = ["http", "server", "serf_lan", "serf_wan"]
    ports = dict(zip(names, free_ports(len(names)))) | {"dns": -1, "grpc": -1, "https": -1}
    file = folder / "agent.json"
    file.write_text(json.dumps({"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn", "ports": ports, "performance": {"raft_multiplier": 1}}))
    started(stack, [os.environ["CONSUL_BIN"], "agent", "-dev", "-config-file", file], open(folder / "consul.log", "wb"))
    url = f"http://127.0.0.1:{ports['http']}"
    eventually("Consul has a leader", lambda: len(call(f"{url}/v1/status/leader")) > 3)
    eventually("Consul knows itself", lambda: json.loads(call(f"{url}/v1/catalog/nodes")))
    return url


def seed(consul, port):
    """Services and keys."""
    for number, more in enumerate(({"version": "v1"}, {"version": "v2", "zone": "a"})):
        service = {"Name": "users", "ID": f"users-{number}", "Address": "127.0.0.1", "Port": port, "Tags": ["v1", "eu"], "Meta": more}
        call(f"{consul}/v1/agent/service/register", "PUT", json.dumps(service).encode())
    for key, value in {"database": b'{"host": "db", "port": 5432}', "motd": "Grüß Gott".encode(), "logo": bytes(range(256)), "folder/a": b"1", "folder/b": b"", "locked": b"x"}.items():
        call(f"{consul}/v1/kv/config/{key}", "PUT", value)


def lictor(stack, folder, consul, port):
    """Everything on; where its admin listener is, and the process."""
    config = {
        "service": "orders",
        "app": {"port": port},
        "consul": {"address": consul, "snapshot": {"path": str(folder / "snapshot")}},
        "registration": {"meta": {"version": "v1"}},
        "inbound": {"listen": f"127.0.0.1:{free_ports(1)[0]}"},
        "upstreams": {
            "users": {"listen": "127.0.0.1:0", "routes": [{"match": "GET /slow", "timeout": "2s"}]},
            "fixed": {"listen": "127.0.0.1:0", "static": [f"127.0.0.1:{port}"]},
        },
        "gateway": {
            "listen": "127.0.0.1:0",
            "routes": [
                {"path": "/api/users/*", "to": "users", "limit": "1000/1m"},
                {"path": "/fixed/*", "methods": ["GET", "POST"], "to": "fixed"},
                {"path": "/gone", "respond": {"status": 410, "body": ""}},
            ],
        },
        "building_blocks": {"services": True, "config": "write", "locks": True, "saga": True, "meta": True, "token": TOKEN},
    }
    file, log = folder / "lictor.yaml", folder / "lictor.log"
    file.write_text(json.dumps(config))
    process = started(stack, [os.environ["LICTOR_BIN"], "serve", "-c", file, "--set", "admin.listen=127.0.0.1:0"], open(log, "wb"), {"PATH": os.environ["PATH"]})

    def address(name):
        if process.poll() is not None:
            raise AssertionError(f"lictor ended:\n{log.read_text()[-4000:]}")
        for line in log.read_text().splitlines():
            if '"listening"' in line and name in ((said := json.loads(line)).get("name"), said["kind"]):
                return said["address"].replace("0.0.0.0:", "127.0.0.1:")
        return None

    addresses = {name: eventually(f"{name} listens", lambda name=name: address(name)) for name in ("admin", "users", "gateway")}
    admin = f"http://{addresses['admin']}"
    eventually("both instances are known", lambda: len(json.loads(call(f"{admin}/endpoints"))["users"]["endpoints"]) == 2)
    eventually("it is registered", lambda: json.loads(call(f"{admin}/consul"))["registration"] == "registered")
    for name, path in (("users", "/"), ("users", "/bad"), ("gateway", "/api/users/1"), ("gateway", "/nowhere"), ("gateway", "/gone")):
        with contextlib.suppress(urllib.error.HTTPError):
            call(f"http://{addresses[name]}{path}", headers={"X-Request-ID": "seeded", "X-Lictor-Debug": "1"})
    return admin, process


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lictor-openapi-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = application(stack)
        agent = consul(stack, folder)
        seed(agent, port)
        admin, process = lictor(stack, folder, agent, port)
        only = ["--include-path-regex", re.escape(word)] if (word := os.environ.get("ONLY")) else []
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "--no-color", "run", f"{admin}/openapi.json",
            "--max-examples", os.environ.get("EXAMPLES") or "50", *only,
        ]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "TOKEN": TOKEN, "OPENAPI_TALLY": str(folder / "tally")}
        result = subprocess.run(command, env=environment, cwd=folder).returncode
        if process.poll() is not None:
            print(f"lictor ended with {process.returncode}:\n{(folder / 'lictor.log').read_text()[-4000:]}")
            result = 1
        if result:
            print("".join(line for line in (folder / "lictor.log").read_text().splitlines(True) if "panic" in line))
        tally = json.loads((folder / "tally").read_text())
        print(f"{tally['operations']} operations of /openapi.json, {tally['requests']} requests, {tally['events']} events of streams")
        return result


if __name__ == "__main__":
    sys.exit(main())
