"""Measures proxies beside each other in interleaved rounds, one table a workload. Start it by `make bench`; see README.md here."""

import argparse
import contextlib
import functools
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass

import gateway
import peers

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")
MB = 1_000_000
WARM_UP = 1  # seconds
NOISE_LIMIT = 10  # percent of the machine, stolen or used by other processes; a round above it is repeated once


@dataclass(frozen=True)
class Workload:
    about: str
    tool: str  # wrk, h2load, s_time or rate
    down: str = "h1"
    up: str = "h1"
    path: str = "/100"
    connections: int = 64
    options: tuple = ()  # the tool's own
    workers: int = 1
    is_idle_measured: bool = False
    is_gateway: bool = False

    @property
    def headers(self):
        """Fields that the requests have, as arguments of curl and wrk."""
        return [word for header in gateway.HEADERS if self.is_gateway for word in ("-H", header)]

    @property
    def answer(self):
        return peers.GRPC_MESSAGE if self.up == "grpc" else peers.ANSWERS[self.path]


WORKLOADS = {
    "get100": Workload("GET 100 B, HTTP/1.1, 64 kept connections", "wrk", is_idle_measured=True),
    "get10k": Workload("GET 10 KB, HTTP/1.1, 64 kept connections", "wrk", path="/10k"),
    "post4k": Workload("POST 4 KB, HTTP/1.1, 64 kept connections", "wrk", options=("post",)),
    "body1m": Workload("GET 1 MB, HTTP/1.1, 16 kept connections", "wrk", path="/1m", connections=16),
    "h2c-h1": Workload("GET 100 B, h2c to HTTP/1.1, 16 connections x 8 streams", "h2load", down="h2c", connections=16),
    "h2c-h2c": Workload("GET 100 B, h2c to h2c, 16 connections x 8 streams", "h2load", down="h2c", up="h2c", connections=16),
    "grpc": Workload("gRPC unary 100 B, 16 connections x 8 streams", "h2load", down="h2c", up="grpc", path=peers.GRPC_PATH,
                     connections=16, options=("-H", "content-type: application/grpc", "-H", "te: trailers")),
    "tls-h1": Workload("GET 100 B, TLS downstream, 64 kept connections", "wrk", down="tls", is_idle_measured=True),
    "tls-tls": Workload("GET 100 B, TLS on both sides, 64 kept connections", "wrk", down="tls", up="tls"),
    "tls-churn": Workload("GET 100 B, a new TLS session each, 4 at a time", "s_time", down="tls", connections=4, options=("-new",)),
    "tls-resume": Workload("GET 100 B, a resumed TLS session each, 4 at a time", "s_time", down="tls", connections=4, options=("-reuse",)),
    "churn": Workload("GET 100 B, a new connection each, 64 at a time", "wrk", options=("close",)),
    "workers2": Workload("GET 100 B, HTTP/1.1, 64 kept connections, 2 workers", "wrk", workers=2),
    "gateway": Workload("GET 100 B at a gateway: a token, a limit, CORS; `sidecar` asks nothing, `many` has 10,000 routes", "wrk", is_gateway=True),
    "rate": Workload("GET 100 B at a constant rate, open loop, 64 kept connections", "rate"),
}
AT_GATEWAY = ["lictor", "before", "envoy", "sidecar", "many"]
NOT_HAD = {("nginx", "h2c"), ("nginx", "grpc")}  # no HTTP/2 to backends; its grpc_pass loses a few calls beside nginx backends


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_limit()
    with contextlib.ExitStack() as stack:
        bench = Bench(args, stack)
        results = {}
        for name in args.what:
            results[name] = bench.run(name)
            print_table(name, results[name], args)
            if args.json:
                with open(args.json, "w", encoding="utf-8") as file:
                    json.dump(results, file, indent=1)
    return 1 if any(cell["bad"] for result in results.values() for round in result["rounds"] for cell in round["cells"].values()) else 0


def arguments():
    parser = argparse.ArgumentParser()
    for name in ["lictor", "envoy", "consul", "rate-driver"]:
        parser.add_argument(f"--{name}", required=True, help="the binary")
    parser.add_argument("--before", help="another lictor, which --proxies lictor,before measures beside this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--what", type=lambda text: text.split(","), default=list(WORKLOADS), help=",".join(WORKLOADS))
    parser.add_argument("--proxies", type=lambda text: text.split(","), default=[name for name in peers.PROXIES if name not in ("relay", "before")], help=",".join(peers.PROXIES))
    parser.add_argument("--rate", type=int, help="requests a second; default: 60 %% of what the slowest of the proxies carries")
    parser.add_argument("--patience", type=int, default=30, help="seconds that a round waits for a quiet machine")
    parser.add_argument("--json", help="every round's figures go there")
    args = parser.parse_args()
    for names, known in [(args.what, WORKLOADS), (args.proxies, peers.PROXIES)]:
        if unknown := [name for name in names if name not in known]:
            parser.error(f"{unknown} not among {list(known)}")
    if "before" in args.proxies and not args.before:
        parser.error("--proxies before needs --before, the path of that lictor")
    return args


def raise_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Bench:
    def __init__(self, args, stack):
        self.args, self.rate = args, args.rate
        self.folder = tempfile.mkdtemp(prefix="lictor-bench-")
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        self.binaries = {name: getattr(args, name, None) or name for name in peers.PROXIES} | {"relay": "haproxy", "sidecar": args.lictor, "many": args.lictor}
        make_certificate(self.folder)
        self.request_body = self.path("request")
        with open(self.request_body, "wb") as file:
            file.write(peers.GRPC_MESSAGE)
        self.consul = f"http://127.0.0.1:{self.start_consul(stack)}"
        self.backends, self.backend_pids = {}, []
        for up in ["h1", "h2c", "grpc", "tls"]:
            self.backends[up] = free_ports(3)
            for number, port in enumerate(self.backends[up]):
                command = peers.backend(self.shape(up, up, 1, port), "nginx")
                self.backend_pids.append(stack.enter_context(process(command, self.path("backend.out"))).pid)
                put(f"{self.consul}/v1/agent/service/register", {"Name": up, "ID": f"{up}-{number}", "Address": "127.0.0.1", "Port": port})
                eventually(f"backend {up}-{number} listens", lambda port=port: listens(port))

    def path(self, name):
        return os.path.join(self.folder, name)

    def shape(self, down, up, workers, port, is_gateway=False):
        return peers.Shape(down, up, workers, port, self.backends[up], self.consul, self.folder, is_gateway)

    def start_consul(self, stack):
        http, server, lan, wan = free_ports(4)
        config = self.path("consul.hcl")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'bind_addr = "127.0.0.1"\nlog_level = "warn"\nports {{ dns = -1 grpc = -1 http = {http} server = {server} '
                       f"serf_lan = {lan} serf_wan = {wan} }}\n")
        stack.enter_context(process([self.args.consul, "agent", "-dev", "-config-file", config], self.path("consul.out")))
        eventually("Consul knows itself", lambda: len(get(f"http://127.0.0.1:{http}/v1/catalog/nodes")) > 3)
        return http

    def run(self, name):
        """All rounds of a workload."""
        workload = WORKLOADS[name]
        is_had = lambda proxy: (proxy, workload.up) not in NOT_HAD and (proxy != "relay" or workload.down == workload.up)
        is_there = lambda proxy: proxy in AT_GATEWAY if workload.is_gateway else proxy not in ("sidecar", "many")
        proxies = [proxy for proxy in self.args.proxies if is_had(proxy) and is_there(proxy)]
        if workload.tool == "rate":
            self.rate = self.rate or self.calibrate(proxies)
            proxies.append("direct")
        rounds = []
        for number in range(self.args.rounds):
            noise = lambda row: row["steal"] + row["others"]
            self.await_quiet()
            row = self.round(name, workload, proxies, number)
            if noise(row) > NOISE_LIMIT:
                say("  the machine is busy: repeated, the quieter one counts")
                self.await_quiet()
                row = min(row, self.round(name, workload, proxies, number), key=noise)
            rounds.append(row)
        return {"about": workload.about, "rate": self.rate if workload.tool == "rate" else None, "rounds": rounds}

    def await_quiet(self):
        end = time.monotonic() + self.args.patience
        while time.monotonic() < end:
            machine, before = Machine(), self.cpu_of_ours()
            time.sleep(1)
            if sum(machine.since(self.cpu_of_ours() - before)) <= NOISE_LIMIT:
                return

    def round(self, name, workload, proxies, number):
        cells, machine, before = {}, Machine(), self.cpu_of_ours()
        for proxy in proxies:
            cells[proxy] = self.cell(proxy, workload)
        steal, others = machine.since(self.cpu_of_ours() - before)
        times = "  ".join(f"{proxy} {cell['cpu']:.1f}" for proxy, cell in cells.items() if cell["cpu"])
        say(f"{name} round {number + 1}: {times}  (CPU s/M)  steal {steal:.1f} %, other processes {others:.0f} %")
        return {"cells": cells, "steal": steal, "others": others}

    def cell(self, proxy, workload):
        """One proxy, fresh, under one workload."""
        if proxy == "direct":
            load = self.load(workload, self.backends["h1"][0], WARM_UP) and self.load(workload, self.backends["h1"][0], self.args.seconds)
            nothing = dict.fromkeys(["cpu", "user", "sys", "rss_idle", "rss_load", "rss_per_1000", "start"])
            return {**nothing, **load, "bad": load["errors"] > 0}
        with self.proxy(proxy, workload) as (running, port, start):
            time.sleep(0.3)
            idle = rss(running.pid)
            is_right = self.check(workload, port)
            self.load(workload, port, WARM_UP)
            user, system = cpu(running.pid)
            with sampled(lambda: rss(running.pid)) as peak:
                load = self.load(workload, port, self.args.seconds)
            used = [after - before for after, before in zip(cpu(running.pid), (user, system))]
            is_right = self.check(workload, port) and is_right
        millions = max(load["requests"], 1) / 1e6
        return {
            **load,
            "cpu": sum(used) / millions,
            "user": used[0] / millions,
            "sys": used[1] / millions,
            "rss_idle": idle,
            "rss_load": max(peak),
            "rss_per_1000": self.idle_connections(proxy, workload) if workload.is_idle_measured else None,
            "start": start,
            "bad": load["errors"] > 0 or load["requests"] == 0 or not is_right,
        }

    def cpu_of_ours(self):
        """Seconds that the backends, the load generators and the proxies that have ended have used."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(sum(cpu(pid)) for pid in self.backend_pids) + children.ru_utime + children.ru_stime + time.process_time()

    @contextlib.contextmanager
    def proxy(self, name, workload):
        """Starts it; with it come its port and the milliseconds to its first good answer."""
        port = free_ports(1)[0]
        command = peers.PROXIES[name](self.shape(workload.down, workload.up, workload.workers, port, workload.is_gateway), self.binaries[name])
        began = time.monotonic()
        with process(command, self.path(f"{name}.out")) as running:
            if workload.down == "h1" and not workload.is_gateway:
                is_up, pause = lambda: answers(port), 0.0005
            else:
                is_up, pause = lambda: self.check(workload, port, True), 0.02
            try:
                eventually(f"{name} answers", is_up, running, pause)
            except Failure as failure:
                raise Failure(f"{failure}\n{read(self.path(f'{name}.out'))[-2000:].decode(errors='replace')}") from None
            yield running, port, (time.monotonic() - began) * 1e3 if workload.down == "h1" else None

    def check(self, workload, port, is_quiet=False):
        """Whether each backend's answer through `port` is a 200 with the right body, as a client sees it that is not the load."""
        if workload.up == "grpc":
            return all(self.check_grpc(port) for _ in range(3))
        scheme = "https" if workload.down == "tls" else "http"
        command = ["curl", "-sk", "--noproxy", "*", "--max-time", "10", "--http2-prior-knowledge" if workload.down == "h2c" else "--http1.1"]
        command += workload.headers
        if "post" in workload.options:
            command += ["--data-binary", "p" * 4096]
        command += ["-o", self.path("answer"), "-w", "%{http_code}", f"{scheme}://127.0.0.1:{port}{workload.path}"]
        for _ in range(3):
            run = subprocess.run(command, capture_output=True, check=False)
            if run.returncode != 0 or run.stdout != b"200" or read(self.path("answer")) != workload.answer:
                is_quiet or say(f"  wrong answer: curl exits with {run.returncode}, status {run.stdout.decode()}")
                return False
        return workload.tool != "s_time" or check_s_time(workload, port)

    def check_grpc(self, port):
        """By nghttp: curl 7.88 loses the head of an answer that comes while it still sends."""
        run = subprocess.run(["nghttp", "-v", "-d", self.request_body, "-H:method: POST", "-H", "content-type: application/grpc", "-H", "te: trailers",
                              f"http://127.0.0.1:{port}{peers.GRPC_PATH}"], capture_output=True, check=False)
        return all(part in run.stdout for part in [b":status: 200", b"grpc-status: 0", peers.GRPC_MESSAGE])

    def calibrate(self, proxies):
        """60 % of what the slowest of these carries in a closed loop."""
        capacity = []
        for proxy in proxies:
            with self.proxy(proxy, WORKLOADS["get100"]) as (_, port, _):
                self.load(WORKLOADS["get100"], port, WARM_UP)
                capacity.append(self.load(WORKLOADS["get100"], port, 2)["rps"])
        return int(min(capacity) * 0.6 // 100 * 100)

    def idle_connections(self, proxy, workload):
        """Growth of a fresh process by 1,000 connections that have had one answer each."""
        with self.proxy(proxy, workload) as (running, port, _), contextlib.ExitStack() as stack:
            self.check(workload, port)
            before = rss(running.pid)
            for _ in range(1000):
                stack.enter_context(one_answer(port, workload.down == "tls"))
            time.sleep(0.3)
            return rss(running.pid) - before

    def load(self, workload, port, seconds):
        """Drives the load; requests, errors, requests a second, latencies in milliseconds."""
        result = getattr(self, f"load_by_{workload.tool}")(workload, port, seconds)
        result["rps"] = result["requests"] / result["seconds"]
        if result["bytes"] < result["requests"] * len(workload.answer):
            say(f"  {result['bytes']} bytes are too few for {result['requests']} answers")
            result["errors"] += 1
        return result

    def load_by_wrk(self, workload, port, seconds):
        scheme = "https" if workload.down == "tls" else "http"
        output = run_tool(["wrk", "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--timeout", "10s", *workload.headers, "-s", f"{HERE}/wrk.lua",
                           f"{scheme}://127.0.0.1:{port}{workload.path}", "--", *workload.options])
        return json.loads(output.splitlines()[-1])

    def load_by_rate(self, workload, port, seconds):
        return json.loads(run_tool([self.args.rate_driver, f"127.0.0.1:{port}", workload.path, str(len(workload.answer)),
                                    str(workload.connections), str(self.rate), str(seconds)]))

    def load_by_h2load(self, workload, port, seconds):
        log = self.path("h2load.log")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        body = ["-d", self.request_body] if workload.up == "grpc" else []
        output = run_tool(["h2load", "-t1", f"-c{workload.connections}", "-m8", "-D", str(seconds), f"--log-file={log}", *body,
                           *workload.options, f"http://127.0.0.1:{port}{workload.path}"])
        counts = {what: int(count) for count, what in re.findall(r"(\d+) (done|failed|errored|timeout|2xx|3xx|4xx|5xx)\b", output)}
        data = int(re.search(r"\((\d+)\) data", output).group(1))
        with open(log, encoding="ascii") as file:
            times = sorted(int(line.rsplit("\t", 1)[1]) for line in file)
        at = lambda share: times[min(int(len(times) * share), len(times) - 1)] / 1e3 if times else 0
        errors = sum(counts[what] for what in ["failed", "errored", "timeout", "3xx", "4xx", "5xx"])
        return {"requests": counts["done"], "seconds": seconds, "bytes": data, "errors": errors,
                "p50": at(0.5), "p99": at(0.99), "p999": at(0.999)}

    def load_by_s_time(self, workload, port, seconds):
        """s_time prints a letter a connection: `r` for a resumed session, another for a new one. It knows no latencies."""
        command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", workload.path, *workload.options, "-time", str(seconds)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(workload.connections)]
        total = {"requests": 0, "seconds": seconds, "bytes": 0, "errors": 0, "p50": None, "p99": None, "p999": None}
        for one in running:
            output = one.communicate()[0]
            summary = re.search(r"(\d+) connections in \d+ real seconds, (\d+) bytes read per connection", output)
            if one.returncode != 0 or not summary:
                say(f"  s_time: {output[-300:]}")
                total["errors"] += 1
                continue
            count, size = map(int, summary.groups())
            letters = max(re.findall(r"^[rt*]+$", output, re.M), key=len, default="")
            right = letters.count("r") if "-reuse" in workload.options else len(letters) - letters.count("r")
            total["requests"] += count
            total["bytes"] += count * size
            total["errors"] += abs(count - right)
        return total


class Machine:
    """What the machine did beside us since it was made."""

    def __init__(self):
        self.before = self.now()

    @staticmethod
    def now():
        return [int(field) / TICK for field in read("/proc/stat").split(b"\n", 1)[0].split()[1:9]]

    def since(self, ours):
        """Percent of all CPU time: stolen by the hypervisor, used by processes that are not ours."""
        user, nice, system, idle, wait, irq, softirq, steal = [b - a for a, b in zip(self.before, self.now())]
        busy = user + nice + system + irq + softirq
        total = max(busy + idle + wait + steal, 1e-9)
        return 100 * steal / total, max(0, 100 * (busy - ours) / total)


def print_table(name, result, args):
    rounds = result["rounds"]
    rate = f" ({result['rate']:,} a second)" if result["rate"] else ""
    print(f"\n{name}: {result['about']}{rate}; {len(rounds)} rounds of {args.seconds} s, median (min-max)")
    lines = [["", "CPU s/M requests", "user", "sys", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "errors",
              "RSS MB idle", "load", "MB/1,000 idle", "start ms"]]
    proxies = list(rounds[0]["cells"])
    for proxy in proxies:
        cells = [row["cells"][proxy] for row in rounds]
        values = lambda key: [cell[key] for cell in cells if cell[key] is not None]
        middle = lambda key, form, scale=1: form.format(statistics.median(values(key)) / scale) if values(key) else "-"
        spread = lambda key, form: f"{middle(key, form)} ({form.format(min(values(key)))}-{form.format(max(values(key)))})" if values(key) else "-"
        bad = " BAD" if any(cell["bad"] for cell in cells) else ""
        lines.append([proxy, spread("cpu", "{:.1f}"), middle("user", "{:.1f}"), middle("sys", "{:.1f}"), spread("rps", "{:,.0f}"),
                      middle("p50", "{:.2f}"), spread("p99", "{:.2f}"), spread("p999", "{:.2f}"), f"{sum(values('errors'))}{bad}",
                      middle("rss_idle", "{:.1f}", MB), middle("rss_load", "{:.1f}", MB), middle("rss_per_1000", "{:.1f}", 1e6),
                      spread("start", "{:.0f}")])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))))
    for peer in proxies:
        if "lictor" in proxies and peer not in ("lictor", "direct"):
            print(f"lictor/{peer}: CPU {ratio(rounds, peer, 'cpu')}" + (f", p99 {ratio(rounds, peer, 'p99')}" if rounds[0]["cells"][peer]["p99"] else ""))
    if "direct" in proxies:
        added = {proxy: statistics.median(row["cells"][proxy]["p50"] - row["cells"]["direct"]["p50"] for row in rounds) for proxy in proxies}
        print("p50 over direct, ms: " + ", ".join(f"{proxy} {by:.3f}" for proxy, by in added.items() if proxy != "direct"))
    steals, others = [row["steal"] for row in rounds], [row["others"] for row in rounds]
    print(f"steal {max(steals):.1f} % at most; other processes {min(others):.0f} to {max(others):.0f} % of the machine", flush=True)


def ratio(rounds, peer, key):
    """Of lictor and a peer, paired within each round."""
    ratios = [row["cells"]["lictor"][key] / max(row["cells"][peer][key], 1e-9) for row in rounds]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


@contextlib.contextmanager
def process(command, output):
    """Runs it in a session of its own, all of which is told to end, and killed if it does not."""
    with open(output, "ab") as file:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(running.pid, signal.SIGTERM)
            running.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


class Failure(Exception):
    """What did not come about."""


def eventually(what, is_so, running=None, pause=0.02):
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            if is_so():
                return
        if time.monotonic() > end or (running and running.poll() is not None):
            raise Failure(f"not so: {what}")
        time.sleep(pause)


@contextlib.contextmanager
def sampled(read_value):
    """A list that grows by a value every 0.2 s, from a thread that sleeps in between."""
    values, over = [read_value()], threading.Event()

    def sample():
        while not over.wait(0.2):
            values.append(read_value())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield values
    finally:
        over.set()
        thread.join()


def run_tool(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{command[0]} exits with {done.returncode}: {done.stdout[-1000:]}")
    return done.stdout


def tree(pid):
    """A process and its descendants."""
    children = read(f"/proc/{pid}/task/{pid}/children").split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def cpu(pid):
    """User and system seconds of all threads of a process and of its children."""
    pairs = [read(f"/proc/{one}/stat").rsplit(b")", 1)[1].split()[11:13] for one in tree(pid)]
    return tuple(sum(int(pair[which]) for pair in pairs) / TICK for which in (0, 1))


def rss(pid):
    """Resident bytes of a process and of its children."""
    pages = sum(int(read(f"/proc/{one}/statm").split()[1]) for one in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def free_ports(count):
    """Below the kernel's ephemeral range, so that no outgoing connection takes one meanwhile."""
    ports = []
    while len(ports) < count:
        free_ports.next = (free_ports.next + 1) % 12_000
        port = 20_000 + free_ports.next
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


free_ports.next = os.getpid() * 211 % 12_000


def listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def answers(port):
    with one_answer(port, False) as head:
        return head.startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def one_answer(port, is_tls):
    """A connection that has had one answer and stays open."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        stream = tls_context().wrap_socket(plain) if is_tls else plain
        with stream:
            stream.sendall(b"GET /100 HTTP/1.1\r\nHost: bench\r\n\r\n")
            yield stream.recv(65_536)


def check_s_time(workload, port):
    """Whether the very request that s_time sends is answered, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain, tls_context().wrap_socket(plain) as stream:
        stream.sendall(f"GET {workload.path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    return bool(re.match(rb"HTTP/1.\d 200 ", answer)) and answer.endswith(workload.answer)


@functools.cache
def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def make_certificate(folder):
    """An authority, and what it has issued for this machine."""
    path = lambda name: os.path.join(folder, name)
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    run_tool([*make, "-subj", "/CN=bench", "-keyout", path("ca-key.pem"), "-out", path("ca.pem")])
    run_tool([*make, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
              "-CA", path("ca.pem"), "-CAkey", path("ca-key.pem"), "-keyout", path("key.pem"), "-out", path("cert.pem")])
    with open(path("both.pem"), "wb") as file:
        file.write(read(path("cert.pem")) + read(path("key.pem")))


def get(url):
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).read()


def put(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).read()


def say(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
