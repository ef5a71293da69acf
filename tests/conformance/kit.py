"""lictor as a process, small servers, certificates, and conditions to wait for."""

import contextlib
import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

LICTOR = os.environ["LICTOR_BIN"]
SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="lictor-conformance-"))
SCRATCH.chmod(0o755)
_cleanup = contextlib.ExitStack()
_log = []


def limit(seconds):
    """Gives a test another time limit than the usual 30 s."""

    def mark(test):
        test.limit = seconds
        return test

    return mark


def eventually(what, look, seconds=10):
    """Looks until there is something to see, and returns it."""
    ends, seen = time.monotonic() + seconds, None
    while time.monotonic() < ends:
        try:
            if seen := look():
                return seen
        except (OSError, AssertionError) as error:
            seen = error
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds}s: {what}; last seen: {seen!r}")


def folder(name):
    """A new folder that is gone after the run."""
    return pathlib.Path(tempfile.mkdtemp(prefix=name + "-", dir=SCRATCH))


def at_end(end):
    """Calls `end` after the run."""
    _cleanup.callback(end)


def end_all():
    """Ends what lives as long as the run."""
    _cleanup.close()


def clean():
    """That, and no folder is left."""
    end_all()
    shutil.rmtree(SCRATCH, ignore_errors=True)


def last_log():
    """What the latest lictor wrote: its own lines, and the last few requests."""
    own = [line for line in _log if "lictor::access" not in line]
    return own[-20:] + ["..."] + [line for line in _log if "lictor::access" in line][-5:]


def samples(page, name, /, **labels):
    """The sum of a metric's samples on a page whose labels include all of these."""
    lines = [line for line in page.splitlines() if re.match(re.escape(name) + "[{ ]", line)]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))


class Lictor:
    """`lictor serve` with this configuration, up from `with` to its end."""

    def __init__(self, **config):
        self.file = folder("lictor") / "lictor.yaml"
        self.env = {}
        self.rewrite(**config)

    def rewrite(self, **config):
        """Changes the configuration file; a reload is another matter."""
        self.file.write_text(json.dumps({"registration": "off"} | config))

    def __enter__(self):
        global _log
        _log = self.log = []
        self.process = subprocess.Popen(
            [LICTOR, "serve", "-c", self.file, "--set", "admin.listen=127.0.0.1:0"],
            env={"PATH": os.environ["PATH"]} | self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, process_group=0,
        )
        threading.Thread(target=self._collect, daemon=True).start()
        try:
            eventually("egress is up", lambda: self.admin("/startup")[0] == 200)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):  # it may have refused its configuration
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _collect(self):
        for line in self.process.stdout:
            self.log.append(line.rstrip())

    def address(self, name):
        """Where a listener is, by its name or its kind: `host:port`."""
        return eventually(f"{name} listens", lambda: self._listening(name))

    def _listening(self, name):
        if self.process.poll() is not None:
            raise RuntimeError("lictor ended: " + " ".join(self.log[-5:]))
        for line in reversed(self.log):
            if '"listening"' in line and name in ((said := json.loads(line)).get("name"), said["kind"]):
                return said["address"].replace("0.0.0.0:", "127.0.0.1:")
        return None

    def connect(self, name):
        """A raw connection to a listener."""
        host, port = self.address(name).rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=15)

    def admin(self, path, method="GET"):
        """Status and text of an admin page."""
        request = urllib.request.Request(f"http://{self.address('admin')}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def reload(self, **config):
        """Takes another configuration."""
        self.rewrite(**config)
        status, text = self.admin("/reload", "POST")
        assert status == 200, text

    def metric(self, name, **labels):
        """The sum of a metric's samples whose labels include all of these."""
        return samples(self.admin("/metrics")[1], name, **labels)

    def memory(self, field="VmRSS"):
        """Resident memory in bytes; `VmHWM` is the highest so far."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) << 10


class Raw:
    """A server of raw connections: each is given to `serve` in a thread of its own, and closed after it."""

    def __init__(self, serve, tls=None, path=None):
        self.serve, self.tls = serve, tls
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen(512)
        else:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.port = self.listener.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=(self.listener.accept()[0],), daemon=True).start()

    def _one(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                self.serve(connection)
                if self.tls:
                    connection.settimeout(1)
                    connection.unwrap()


def read_head(connection):
    """A request's or response's head, read byte by byte so that nothing after it is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError(f"ended within a head: {head!r}")
        head += byte
    return head.decode("latin-1")


def read_all(connection):
    """Everything until the end."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def http_raw(respond, **options):
    """A server that answers each connection's first request with `respond(connection, head)`."""
    return Raw(lambda connection: respond(connection, read_head(connection)), **options)


class Echo(http.server.BaseHTTPRequestHandler):
    """Tells what it was sent as JSON; `/status/N` answers N."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        """Every method ends here."""
        body = self._chunks() if "Transfer-Encoding" in self.headers else self._sized()
        status = int(self.path.split("/")[2]) if self.path.startswith("/status/") else 200
        seen = {"method": self.command, "path": self.path, "headers": self.headers.items(), "body": len(body)}
        text = b"" if status in (204, 304) else json.dumps(seen).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(text) or 5))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _sized(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, *_):
        """Says nothing."""


class Web(http.server.ThreadingHTTPServer):
    """`Echo` (or another handler) on a free port."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler=Echo):
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.connections = set()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        """As when a process ends: kept connections are over too."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request):
        self.connections.discard(request)
        super().close_request(request)

    def handle_error(self, *_):
        """A client that leaves is no news."""


@contextlib.contextmanager
def closed_port():
    """An address where nothing listens, for as long as it is needed."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield "127.0.0.1:%d" % bound.getsockname()[1]


def run(*command, timeout=60, **options):
    """A program's standard output; its error text is in the exception when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    told = done.stderr[-2000:] + done.stdout[-2000:]
    assert done.returncode == 0, f"{command[0]}: exit code {done.returncode}: {told}"
    return done.stdout


def curl(*arguments):
    """curl's standard output."""
    return run("curl", "-sS", "--max-time", "20", "--noproxy", "", *map(str, arguments))


def daemon(*command, **options):
    """A process that ends with the run."""
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.STDOUT, **options)

    def end():
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; a killed one leaves shared memory behind
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()

    at_end(end)
    return process


def free_port():
    """A port that was free a moment ago, for servers that cannot say which one they took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def accepts(port):
    """Whether something listens."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


@functools.cache
def certificates():
    """The .pem and .key of ca, other-ca, server, second (for the same names), wrong (another name), client."""
    place = folder("pki")

    def openssl(*arguments):
        run("openssl", *arguments, cwd=place)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "30", "-subj", f"/CN={ca}")
    names = {"server": "DNS:localhost,IP:127.0.0.1", "wrong": "DNS:elsewhere.test", "client": "DNS:client"}
    for leaf, san in (names | {"second": names["server"]}).items():
        (place / "ext").write_text(f"subjectAltName={san}\nbasicConstraints=CA:FALSE\n")
        openssl("req", *key, "-keyout", f"{leaf}.key", "-out", f"{leaf}.csr", "-subj", f"/CN={leaf}")
        openssl("x509", "-req", "-in", f"{leaf}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{leaf}.pem", "-days", "30", "-extfile", "ext")
    return place
