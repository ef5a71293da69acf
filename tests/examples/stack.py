"""A system of examples/ as it runs: Consul, its stores, and each service under `lictor run`; what asks it, what breaks it, and what compares answers.

    python3 stack.py [WORD ..]     runs the tests of every test_*.py whose name has a word; many on two stacks at once, as most of their time is waiting
    python3 stack.py --keep NAME   starts one system on the ports of its source, and stops it on Ctrl-C

A system is a file test_NAME.py: `SYSTEM`, a class of `Stack` whose `start_all` returns when its services are up; `told(stack)`, what people are told of one
that is kept; and tests, each of which gets the same running stack and leaves it whole. Nothing is installed here (scripts/examples.sh does that)."""

import base64
import collections
import contextlib
import dataclasses
import functools
import hashlib
import hmac
import http.client
import http.server
import importlib
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))
from kit import LICTOR, Web, clean, end_all, eventually, folder, samples
from run import expire, run

# Everything that is started gets these variables and what its system says, nothing else of ours.
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# Below what the kernel gives to clients, and the second of two stacks has others.
_ports = itertools.count(random.randrange(12_000, 19_000))
SECOND = 8_000
MANY = 12  # tests, of which two stacks do half each


def free_port():
    """A port that nobody has."""
    for port in _ports:
        with socket.socket() as bound, contextlib.suppress(OSError):
            bound.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclasses.dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


@dataclasses.dataclass
class Asked:
    method: str
    path: str
    headers: http.client.HTTPMessage
    body: bytes
    at: float


def fields(words):
    """Header fields of keyword arguments: X_User_ID is X-User-ID."""
    return {key.replace("_", "-"): text for key, text in words.items()}


def ask(port, method, path, body=None, headers=None, source="127.0.0.1", timeout=40, tls=None):
    """One request on a connection of its own, over TLS if there is a context for it. A body that is not bytes goes as JSON."""
    kind = functools.partial(http.client.HTTPSConnection, context=tls) if tls else http.client.HTTPConnection
    connection = kind("127.0.0.1", port, timeout=timeout, source_address=(source, 0))
    with contextlib.closing(connection):
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent = {"Content-Type": "application/json"} | sent
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def alike(value, shape, at="it"):
    """Whether JSON is as described: a type, a pattern for all of a text, `[shape]` for each of at least one, these keys and no others, or the value itself."""
    if isinstance(shape, type):
        assert type(value) is shape, f"{at} is {value!r}, not {shape.__name__}"
    elif isinstance(shape, re.Pattern):
        assert isinstance(value, str) and shape.fullmatch(value), f"{at} is {value!r}, not {shape.pattern!r}"
    elif isinstance(shape, dict):
        assert isinstance(value, dict) and set(value) == set(shape), f"{at} has {sorted(value)}, not {sorted(shape)}: {value!r}"
        for key in shape:
            alike(value[key], shape[key], f"{at}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list) and value, f"{at} is {value!r}, not a list of something"
        for index, one in enumerate(value):
            alike(one, shape[0], f"{at}[{index}]")
    else:
        assert value == shape and type(value) is type(shape), f"{at} is {value!r}, not {shape!r}"


def expect(answer, status, shape=None):
    """An answer with this status and JSON, as described; returns the JSON."""
    assert answer.status == status, f"{answer!r}, not {status}"
    assert answer.headers.get_content_type() == "application/json", answer.headers.items()
    if shape is not None:
        alike(answer.json(), shape)
    return answer.json()


def at_once(count, ask):
    """The answers to so many requests that are made at the same time."""
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(answers) == count, f"{count - len(answers)} of {count} have no answer"
    return answers


def until_refused(ask, limit, seconds=60):
    """Asks until it is too often: that answer. What passed is the limit, and what has come back meanwhile."""
    began, passed = time.monotonic(), 0
    while (answer := ask()).status != 429:
        passed += 1
        assert passed < 3 * limit, (passed, answer)
    assert limit <= passed <= limit + (time.monotonic() - began) * limit / seconds + 1, passed
    return answer


def signed(secret, claims, algorithm="HS256"):
    """A token, as whoever has the secret makes it."""
    coded = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    text = b".".join(coded(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, claims))
    return (text + b"." + coded(hmac.new(secret.encode(), text, hashlib.sha256).digest())).decode()


def registration(asked):
    """The one registration in what Consul was asked, and its one check."""
    (body,) = [json.loads(body) for _, path, body in asked if path.startswith("/v1/agent/service/register")]
    (check,) = body["Checks"] if "Checks" in body else [body["Check"]]
    return body, check


class Client:
    """Who asks a gateway, from an address that no limit knows."""

    def __init__(self, stack, headers=None, user=None, port=None, source=None):
        self.stack, self.headers, self.user = stack, headers or {}, user
        self.port, self.source = port or stack.gateway_port, source or stack.address()

    def __call__(self, method, path, body=None, **headers):
        return ask(self.port, method, path, body, self.headers | fields(headers), self.source, tls=self.stack.tls)

    def login(self, email, password):
        shown = expect(self("POST", self.stack.LOGIN, {"email": email, "password": password}), 200)
        shown = shown.get("data", shown)  # the portal's answers have an envelope
        self.user, self.headers = shown["user"], {"Authorization": f"Bearer {shown['token']}"}
        return self

    def elsewhere(self):
        """The same user, at another address."""
        return type(self)(self.stack, self.headers, self.user, self.port)


class Process:
    """A program in a session of its own, with what it says."""

    def __init__(self, name, command, environment=None, directory=None):
        self.name, self.log = name, []
        self.process = subprocess.Popen(
            list(map(str, command)), env=INHERITED | {key: str(value) for key, value in (environment or {}).items()}, cwd=directory, text=True,
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.log.append(line.rstrip())

    def is_alive(self):
        return self.process.poll() is None

    def said(self, **fields):
        """The lines of its JSON log that have these fields."""
        lines = [json.loads(line) for line in list(self.log) if line.startswith("{")]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]

    def end(self, how=signal.SIGTERM):
        """Asks it to stop; its exit code."""
        if self.is_alive():
            self.process.send_signal(how)
        try:
            return self.process.wait(60)
        finally:
            self.kill()

    def kill(self):
        """As when its machine is gone: it and all that it has started, at once."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @contextlib.contextmanager
    def paused(self):
        """It and all that it has started stand still, as when its machine does."""
        family = self.family()
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(family):
                os.kill(pid, signal.SIGCONT)

    def family(self):
        """Whoever descends from it or has its session (PHP-FPM makes one of its own), parents first."""
        family, grown = {self.process.pid} if self.is_alive() else set(), True
        while grown:
            grown = False
            for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    pid, (parent, _, session) = int(stat.parent.name), map(int, stat.read_text().rpartition(")")[2].split()[1:4])
                    if pid not in family and (parent in family or session == self.process.pid):
                        grown = not family.add(pid)
        return sorted(family)


class Service(Process):
    """A lictor, and the service that it runs."""

    def __init__(self, name, config, environment, directory):
        self.config, self.variables = config, environment
        command = "run" if "command:" in (directory / config).read_text() else "serve"
        super().__init__(name, [LICTOR, command, "-c", config], environment, directory)

    def kill_application(self):
        """What it runs is killed; it is not."""
        for pid in self.family():
            if pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def kind(self):
        return self.name.rsplit("-", 1)[0]

    @property
    def id(self):
        """Its id in Consul."""
        return f"{self.kind}-{socket.gethostname()}-{self.variables['INBOUND_PORT']}"

    def admin(self, path, method="GET"):
        return ask(self.variables["ADMIN_PORT"], method, path)

    def is_up(self):
        """Whether it is ready, and Consul knows it."""
        if not self.is_alive():
            raise RuntimeError(f"{self.name} has ended: " + "\n".join(self.log[-20:]))
        answer = self.admin("/ready")
        assert answer.status == 200, answer
        return self.metric("lictor_registration_state", state="registered") == 1

    def metric(self, metric, /, **labels):
        """The sum of a metric's samples that have these labels."""
        return samples(self.admin("/metrics").body.decode(), metric, **labels)

    def endpoints(self, upstream):
        """The ids of an upstream's instances, as it knows them."""
        return {endpoint["id"] for endpoint in self.admin(f"/endpoints/{upstream}").json()[upstream]["endpoints"]}

    @contextlib.contextmanager
    def calls_only(self, upstream, endpoint):
        """Everything that it sends to an upstream goes to this instance."""
        eventually(f"{self.name} knows {endpoint}", lambda: endpoint in self.endpoints(upstream))
        others = self.endpoints(upstream) - {endpoint}
        for other in others:
            self._order(other, "eject", upstream)
        try:
            yield
        finally:
            for other in others:
                self._order(other, "undo", upstream)

    def _order(self, endpoint, what, upstream):
        answer = self.admin(f"/endpoints/{endpoint}/{what}?upstream={upstream}", "POST")
        assert answer.status == 200, answer


class Consul(Process):
    """An agent that remembers nothing when it ends."""

    def __init__(self, port):
        self.port, self.others = port, [free_port() for _ in range(3)]
        self._start()

    def _start(self):
        binary = subprocess.run([ROOT / "scripts/consul.sh"], capture_output=True, text=True, check=True).stdout.strip()
        server, lan, wan = self.others
        super().__init__("consul", [
            binary, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=err", "-dns-port=-1", "-grpc-port=-1", f"-http-port={self.port}",
            f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}",
        ])
        eventually("Consul answers", lambda: self.ask("/v1/catalog/nodes"))

    def start_again(self):
        """From nothing, at the same port."""
        self._start()

    def ask(self, path, method="GET", body=None):
        answer = ask(self.port, method, path, body)
        assert answer.status == 200, answer
        return answer.json() if answer.body else None

    def instances(self, name, passing=True):
        """The ids of a service's instances."""
        return {entry["Service"]["ID"] for entry in self.ask(f"/v1/health/service/{name}" + ("?passing" if passing else ""))}


    @contextlib.contextmanager
    def maintenance(self, name, but):
        """All instances of a service but one are in maintenance, for whoever calls it."""
        instances = self.instances(name) - {but}
        for instance in instances:
            self.ask(f"/v1/agent/service/maintenance/{instance}?enable=true", "PUT")
        try:
            yield
        finally:
            for instance in instances:
                self.ask(f"/v1/agent/service/maintenance/{instance}?enable=false", "PUT")

    @contextlib.contextmanager
    def recorded(self):
        """A port where it is to be had too, and what is asked there: method, path, body."""
        asked, agent_port = [], self.port

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append((self.command, self.path, body))
                answer = ask(agent_port, self.command, self.path, body or None, {"Content-Type": "application/json"}, timeout=700)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower().startswith("x-consul") or name == "Content-Type":
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_PUT = do_GET

            def log_message(self, *_):
                """Says nothing."""

        with Web(Handler) as agent:
            yield agent.server_port, asked


class Planted(Web):
    """A further instance of a service, without a lictor, that answers as a test says and keeps what it was asked."""

    def __init__(self, consul, name, answer):
        planted = self
        self.consul, self.asked = consul, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                planted.asked.append(Asked(self.command, self.path, self.headers, body, time.monotonic()))
                answer(self)

            def reply(self, status, value, **headers):
                body = json.dumps(value).encode()
                self.send_response(status)
                for key, text in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, text)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one

            def log_message(self, *_):
                """Says nothing."""

        super().__init__(Handler)
        self.id = f"{name}-planted-{self.server_port}"  # one that comes and goes under one name is damped
        self.service = {"ID": self.id, "Name": name, "Address": "127.0.0.1", "Port": self.server_port}

    def __enter__(self):
        super().__enter__()
        self.consul.ask("/v1/agent/service/register", "PUT", self.service)
        return self

    def kill(self):
        """As when its process ends: Consul has it still."""
        super().__exit__()

    def __exit__(self, *_):
        self.consul.ask(f"/v1/agent/service/deregister/{self.id}", "PUT")
        super().__exit__()


class Load:
    """Clients that ask until the end of `with`, one after the other each; `ask(client)` returns an answer."""

    def __init__(self, ask, clients=4, pause=0.02):
        self.ask, self.pause, self.over = ask, pause, threading.Event()
        self.answers, self.failed = 0, []
        self.clients = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def _run(self, number):
        while not self.over.wait(self.pause):  # its pace: the machine is not what is tested
            try:
                answer = self.ask(number)
                problem = None if answer.status < 400 else repr(answer)
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            self.answers += 1
            if problem:
                self.failed.append(problem)

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for client in self.clients:
            client.join()

    def goes_on(self, answers=20):
        """Waits for so many more answers."""
        wanted = self.answers + answers
        eventually(f"{answers} more answers", lambda: self.answers >= wanted, 60)


class Stack:
    """A system of examples/NAME: started in order, stopped in order."""

    LOGIN, ADMIN, admin = None, None, None  # where clients log in, and as whom to do what only an administrator may
    GATEWAY, CLIENT, tls = "api-gateway", Client, None  # the gateway's name in Consul, and how clients ask it

    def __init__(self, name, keep=False):
        self.directory, self.keep = ROOT / "examples" / name, keep
        self.data = folder(name)
        self.data.chmod(0o755)
        self.services, self.stores = {}, []
        self.environment = {}
        self.last_address = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        running = list(self.services.values())
        for service in running:  # all drain at once
            if service.is_alive():
                service.process.terminate()
        for process in [*running, *reversed(self.stores)]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.end()

    def port(self, usual):
        """The source's own port where it is kept for people, else a free one."""
        return usual if self.keep else free_port()

    def start_consul(self):
        self.consul = Consul(self.port(8500))
        self.stores.append(self.consul)
        self.environment |= {"CONSUL_HOST": "127.0.0.1", "CONSUL_PORT": self.consul.port}

    def start_redis(self):
        self.redis_port = self.port(6379)
        self.redis = None
        self.environment |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": self.redis_port}
        self.redis_again()

    def redis_again(self):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", self.redis_port, "--dir", self.data, "--save", "", "--appendonly", "no"]
        if self.redis:
            self.stores.remove(self.redis)
        self.redis = Process("redis", command)
        self.stores.append(self.redis)
        eventually("Redis answers", lambda: self.ask_redis("ping") == "PONG")

    def ask_redis(self, *command):
        done = subprocess.run(["redis-cli", "-p", str(self.redis_port), *command], capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    def start(self, name, config, **environment):
        """One more service; it is not waited for."""
        service = Service(name, config, self.environment | environment, self.directory)
        self.services[name] = service
        return service

    def start_again(self, name):
        """The same, at its ports, once it has ended."""
        service = self.services[name]
        assert not service.is_alive(), f"{name} runs"
        return self.start(name, service.config, **service.variables)

    def back(self, *names):
        """They have ended, and are started again."""
        for service in [self.start_again(name) for name in names]:
            eventually(f"{service.name} is back", service.is_up, 60)

    @contextlib.contextmanager
    def gone(self, *names):
        """They are killed, and come back at the end."""
        for name in names:
            self.services[name].kill()
        try:
            yield
        finally:
            self.back(*names)

    def killed(self, name, load):
        """Under this load; and it comes back."""
        load.goes_on()
        with self.gone(name):
            load.goes_on(40)
        load.goes_on()

    def replaced(self, name, load):
        """As a deploy does, under this load."""
        load.goes_on()
        assert self.services[name].end() == 0, self.services[name].log[-5:]
        load.goes_on()
        self.back(name)
        load.goes_on()

    @contextlib.contextmanager
    def another(self, name, number=3, **environment):
        """A further instance, as long as it is needed; a test may end it itself."""
        service = self.start_service(name, number, **environment)
        try:
            eventually(f"{service.name} is up", service.is_up, 30)
            yield service
        finally:
            del self.services[service.name]
            assert service.end() == 0, service.log[-5:]

    def lictor(self, *arguments, **environment):
        """A command of lictor's in the system's folder, with no more than these variables: its exit code, and what it said."""
        command = [LICTOR, *arguments]
        done = subprocess.run(command, env=INHERITED | environment, cwd=self.directory, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout + done.stderr

    def is_whole(self):
        """Waits until every service is ready, and registered."""
        for service in self.services.values():
            eventually(f"{service.name} is up", service.is_up, 60)

    def address(self):
        """Another client's address on this machine."""
        number = next(self.last_address)
        return f"127.0.{1 + number // 250}.{1 + number % 250}"

    def consul_is_restarted(self, ask):
        """It comes back knowing nobody: calls go on, and everybody registers again. How many answers there were meanwhile."""
        with Load(ask) as load:
            load.goes_on()
            self.consul.kill()
            try:
                load.goes_on()
            finally:
                self.consul.start_again()
            for kind, count in collections.Counter(service.kind for service in self.services.values()).items():
                name = self.GATEWAY if kind == "gateway" else kind
                eventually(f"{name} is registered again", lambda: len(self.consul.instances(name)) == count, 40)
            load.goes_on()
        assert not load.failed, (load.answers, load.failed[:5])
        return load.answers

    def somebody(self, **headers):
        """A client who has not said who he is."""
        return self.CLIENT(self, fields(headers))

    def administrator(self):
        """Logged in once."""
        self.admin = self.admin or self.somebody().login(**self.ADMIN)
        return self.admin.elsewhere()

    def last_words(self):
        """What its services have complained about lately."""
        for service in self.services.values():
            complaints = [line for line in service.log[-60:] if not re.search('"level":"INFO"|lictor::access|NOTICE', line)]
            yield from (f"{service.name}: {line[:300]}" for line in complaints[-2:])


@contextlib.contextmanager
def started(module, keep=False):
    """A module's system, up."""
    with module.SYSTEM(keep) as system:
        system.start_all()
        yield system


def tests_of(module):
    return [(f"{module.__name__}.{name}", test) for name, test in vars(module).items() if name.startswith("test_")]


def run_system(module, words):
    """Its tests that were asked for; how many there were, and which failed."""
    chosen = [(name, test) for name, test in tests_of(module) if not words or any(word in name for word in words)]
    if not chosen:
        return 0, []
    forked = multiprocessing.get_context("fork")
    taken, bad = forked.Value("i", 0), forked.SimpleQueue()
    stacks = [forked.Process(target=run_stack, args=(module, chosen, second, taken, bad), daemon=True) for second in range(1 + (len(chosen) >= MANY))]
    for stack in stacks:
        stack.start()
    failed = []
    for stack in stacks:
        stack.join()
        if stack.exitcode != 0:
            failed.append(f"{module.__name__}: its stack ended with {stack.exitcode}")
    while not bad.empty():
        failed.append(bad.get())
    return len(chosen), failed + [name for name, _ in chosen[taken.value:]]


def run_stack(module, chosen, second, taken, bad):
    """Takes one test after another, on a system of its own."""
    global _ports
    _ports = itertools.count(next(_ports) + second * SECOND)
    with contextlib.ExitStack() as ends:
        ends.callback(end_all)
        up = []
        start = lambda: up.append(ends.enter_context(started(module)))
        start.limit = 120
        if not run(f"{module.__name__}: it starts", start):
            bad.put(f"{module.__name__}: it starts")
            return
        while True:
            with taken.get_lock():
                if taken.value == len(chosen):
                    return
                name, test = chosen[taken.value]
                taken.value += 1
            case = lambda: test(up[0])
            case.limit = getattr(test, "limit", 60)
            if not run(name, case):
                bad.put(name)
                for line in up[0].last_words():
                    print("      | " + line, flush=True)
                with contextlib.suppress(AssertionError, RuntimeError):
                    up[0].is_whole()


def keep(name):
    """A system for people, until Ctrl-C."""
    module, over = importlib.import_module("test_" + name.replace("-", "_")), threading.Event()
    with started(module, keep=True) as system:
        for ends in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ends, lambda *_: over.set())
        print(module.told(system), flush=True)
        over.wait()


def main(arguments):
    if arguments[:1] == ["--keep"]:
        keep(arguments[1])
        return 0
    words = [word.replace("-", "_") for word in arguments]  # laravel-go is test_laravel_go.py
    signal.signal(signal.SIGALRM, expire)
    began, count, failed = time.monotonic(), 0, []
    for file in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        ran, bad = run_system(importlib.import_module(file.stem), words)
        count, failed = count + ran, failed + bad
    print(f"{count - len(failed)} of {count} passed in {time.monotonic() - began:.0f}s")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed or not count else 0


def stop(*_):
    """Ends the run as SIGTERM asks: what it has started is ended too."""
    signal.alarm(0)  # that takes as long as it takes
    sys.exit(143)


def program():
    code = 1
    signal.signal(signal.SIGTERM, stop)
    try:
        code = main(sys.argv[1:])
    finally:
        clean()
    sys.exit(code)


if __name__ == "__main__":
    importlib.import_module("stack").program()  # the one that its tests know
