"""How lictor grows with services, endpoints, connections and changes, and what a fleet asks of Consul; see docs/scale.md.

Start it by `scripts/scale.sh`. Endpoints are addresses of 127.0.0.0/8, all served by one nginx that answers with the address.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import types

import peers
import run

NODE = "scale"
ADMIN = "admin"  # among the ports of a sidecar
BODY = "a" * 100
SIZES = [(1, 10), (1, 1_000), (1, 10_000), (100, 100), (100, 1_000), (100, 10_000), (1_000, 1_000), (1_000, 10_000)]
CHANGES_A_SECOND = 100
CORE, OTHER_CORE = 0, 1


def main():
    parser = argparse.ArgumentParser()
    for name in ["lictor", "consul", "rate-driver"]:
        parser.add_argument(f"--{name}", required=True, help="the binary")
    parser.add_argument("--what", type=lambda text: text.split(","), default=list(Scale.PARTS), help=",".join(Scale.PARTS))
    parser.add_argument("--updates", type=int, default=20, help="changes for each figure of an update")
    parser.add_argument("--seconds", type=int, default=30, help="of a storm")
    parser.add_argument("--rounds", type=int, default=2, help="of storms")
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second beside a storm")
    args = parser.parse_args()
    run.raise_limit()
    with contextlib.ExitStack() as stack:
        scale = Scale(args, stack)
        for part in args.what:
            print(f"\n{part}", flush=True)
            Scale.PARTS[part](scale)


class Scale:
    def __init__(self, args, stack):
        self.args = args
        self.folder = tempfile.mkdtemp(prefix="lictor-scale-")
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        self.port, self.consul_port, server, lan, wan = run.free_ports(5)
        shape = types.SimpleNamespace(folder=self.folder, file=self.write)
        answers = f'server {{ listen {self.port}; location = /100 {{ return 200 "{BODY}"; }} location / {{ return 200 "$server_addr"; }} }}'
        self.backend_process = stack.enter_context(run.process(peers.nginx_command(shape, "nginx", "backend", 1, answers), self.path("backend.out")))
        config = self.write("consul.hcl", f'bind_addr = "127.0.0.1"\nlog_level = "warn"\nlimits {{ http_max_conns_per_client = 10000 }}\n'
                            f"ports {{ dns = -1 grpc = -1 http = {self.consul_port} server = {server} serf_lan = {lan} serf_wan = {wan} }}\n")
        self.consul_process = stack.enter_context(run.process([args.consul, "agent", "-dev", "-config-file", config], self.path("consul.out")))
        self.consul = f"http://127.0.0.1:{self.consul_port}"
        run.eventually("Consul knows itself", lambda: len(run.get(f"{self.consul}/v1/catalog/nodes")) > 3)
        run.put(f"{self.consul}/v1/catalog/register", {"Node": NODE, "Address": "127.0.0.1", "SkipNodeUpdate": False})
        self.calls = http.client.HTTPConnection("127.0.0.1", self.consul_port, timeout=10)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def change(self, changes):
        """Registers (True) or deregisters (False) endpoints, given as (service, number, bool)."""
        for first in range(0, len(changes), 64):
            body = []
            for service, number, is_there in changes[first:first + 64]:
                entry = {"ID": f"{service}-{number}", "Service": service, "Address": address(number), "Port": self.port}
                body.append({"Service": {"Verb": "set" if is_there else "delete", "Node": NODE, "Service": entry}})
            self.calls.request("PUT", "/v1/txn", json.dumps(body))
            answer = self.calls.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise run.Failure(f"Consul says {answer.status}: {text[:300]}")

    @contextlib.contextmanager
    def lictor(self, services, expected, more=""):
        """A sidecar that has learnt `expected` endpoints of all its services; with it, the ports of the services."""
        ports = dict(zip([*services, ADMIN], run.free_ports(len(services) + 1)))
        upstreams = "".join(f"  {service}: {{listen: 127.0.0.1:{ports[service]}}}\n" for service in services)
        config = self.write("lictor.yaml", f"""\
registration: off
service: scale
consul: {{address: '{self.consul}'}}
log: {{access: off, format: json}}
admin: {{listen: 127.0.0.1:{ports[ADMIN]}}}
workers: 1
defaults: {{balance: round_robin, slow_start: 0s{more}}}
upstreams:
{upstreams}""")
        out = self.path(f"lictor-{time.monotonic_ns()}.out")
        with run.process([self.args.lictor, "serve", "-c", config], out) as running:
            try:
                run.eventually(f"{expected} endpoints are known", lambda: known(out) == expected, running, pause=0.2)
            except run.Failure as failure:
                raise run.Failure(f"{failure}; {known(out)} are\n{run.read(out)[-1000:].decode()}") from None
            time.sleep(2)
            yield running.pid, ports, out

    def sizes(self):
        """Memory, CPU of an update and time to routed, by services and endpoints."""
        rows = []
        print_row("services", "endpoints", "RSS MB", "after updates", "ms CPU/small update", "ms CPU/update of one service",
                  "ms of the worker", "at most", "ms to routed", "worst")
        self.change([("probe", number, True) for number in range(3)])
        for services, endpoints in SIZES:
            names = [f"s{services}-{endpoints}-{number}" for number in range(services)]
            self.change([(names[number % services], number, True) for number in range(endpoints)])
            with self.lictor([*names, "probe"], endpoints + 3) as (pid, ports, _):
                idle = run.rss(pid)
                small, earlier = self.cost(pid, "probe"), adoptions(ports[ADMIN])
                large, (mean, most) = self.cost(pid, names[0]), since(earlier, adoptions(ports[ADMIN]))
                routed = self.times_to_routed(ports["probe"])
                rows.append((services + 1, endpoints + 3, idle))
                print_row(services, endpoints, f"{idle / 1e6:.1f}", f"{run.rss(pid) / 1e6:.1f}", f"{small:.2f}", f"{large:.2f}",
                          f"{mean:.2f}", most, f"{statistics.median(routed):.1f}", f"{max(routed):.1f}")
        a, s, b = least_squares(rows)
        print(f"RSS bytes = {a:,.0f} + {s:,.0f} * services + {b:,.0f} * endpoints; residuals "
              + ", ".join(f"{(rss - a - s * x - b * y) / 1e6:+.1f} MB" for x, y, rss in rows), flush=True)

    def cost(self, pid, service):
        """Milliseconds of CPU for a change of one endpoint, without what idling costs."""
        seconds = self.args.updates * 0.25
        before = cpu_ms(pid)
        time.sleep(seconds)
        idle = cpu_ms(pid) - before
        for number in range(self.args.updates):
            at = time.monotonic() + 0.25
            self.change([(service, 20_000, number % 2 == 0)])
            time.sleep(max(0, at - time.monotonic()))
        return (cpu_ms(pid) - before - 2 * idle) / self.args.updates

    def times_to_routed(self, port):
        """Milliseconds from before Consul is told of an endpoint until it answers a request."""
        client, times = http.client.HTTPConnection("127.0.0.1", port, timeout=5), []
        for _ in range(self.args.updates):
            began = time.monotonic()
            self.change([("probe", 20_000, True)])
            while True:
                client.request("GET", "/")
                if client.getresponse().read().decode() == address(20_000):
                    break
            times.append((time.monotonic() - began) * 1e3)
            self.change([("probe", 20_000, False)])
            time.sleep(0.3)
        return times

    def storms(self):
        """Latency at a constant rate, calm and in a storm that lictor sees, or that only Consul sees. The worker, the backend and the load
        have a core of their own: what is slow there is lictor's doing, not that of Consul, the storm or the control thread."""
        backend, others = run.tree(self.backend_process.pid), [os.getpid(), self.consul_process.pid]
        with on_cores({CORE: backend, OTHER_CORE: others}):
            self.storm_rounds([f"storm-{number}" for number in range(100)])

    def storm_rounds(self, names):
        self.change([(name, number, True) for name in names for number in range(10)])
        self.change([("load", number, True) for number in range(3)])
        print_row("round", "mode", "changes/s", "seen/s", "requests", "errors", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "over 10 ms",
                  "CPU %", "Consul CPU %", "RSS MB")
        for number in range(self.args.rounds):
            for mode in ["calm", "unseen", "seen"]:
                watched = [] if mode == "unseen" else names
                with self.lictor([*watched, "load"], 10 * len(watched) + 3) as (pid, ports, out):
                    pin(pid, {CORE}, "worker-")
                    self.rate(ports["load"], 2)
                    seen, cpu, consul = lines(out), cpu_ms(pid), sum(run.cpu(self.consul_process.pid))
                    storm = Storm(self, names, mode == "seen") if mode != "calm" else contextlib.nullcontext()
                    with storm:
                        load = self.rate(ports["load"], self.args.seconds)
                    seconds = self.args.seconds
                    cpu, consul = cpu_ms(pid) - cpu, sum(run.cpu(self.consul_process.pid)) - consul
                    print_row(number + 1, mode, f"{storm.done / seconds:.0f}" if mode != "calm" else 0, f"{(lines(out) - seen) / seconds:.0f}",
                              load["requests"], load["errors"], *(f"{load[key]:.2f}" for key in ["p50", "p99", "p999", "worst"]),
                              load["over_10_ms"], f"{cpu / seconds / 10:.1f}", f"{100 * consul / seconds:.0f}", f"{run.rss(pid) / 1e6:.1f}")

    def rate(self, port, seconds):
        return json.loads(run.run_tool(["taskset", "-c", str(CORE), self.args.rate_driver, f"127.0.0.1:{port}", "/100", "100", "16",
                                        str(self.args.rate), str(seconds)]))

    def connections(self):
        """Memory of 10,000 connections that wait, and of 2,000 that work."""
        self.change([("load", number, True) for number in range(3)])
        limits = ", limits: {max_in_flight: 10000, max_connections: 4000}"
        with self.lictor(["load"], 3, limits) as (pid, ports, _), contextlib.ExitStack() as stack:
            before, bad = run.rss(pid), 0
            for count in range(1, 10_001):
                bad += not stack.enter_context(run.one_answer(ports["load"], False)).startswith(b"HTTP/1.1 200")
                if count in (1_000, 5_000, 10_000):
                    time.sleep(1)
                    grown = run.rss(pid) - before
                    print_row("idle", f"{count:,}", f"{grown / 1e6:.1f} MB", f"{grown / count:,.0f} bytes each", f"{bad} errors")
        for count in (100, 1_000, 2_000):
            with self.lictor(["load"], 3, limits) as (pid, ports, _):
                before = run.rss(pid)
                with run.sampled(lambda pid=pid: run.rss(pid)) as peak:
                    output = run.run_tool(["wrk", "-t1", f"-c{count}", "-d8s", "--timeout", "10s", "-s", f"{run.HERE}/wrk.lua",
                                           f"http://127.0.0.1:{ports['load']}/100"])
                load, grown = json.loads(output.splitlines()[-1]), max(peak) - before
                print_row("active", f"{count:,}", f"{grown / 1e6:.1f} MB", f"{grown / count:,.0f} bytes each", f"{load['errors']} errors",
                          f"{load['requests'] / load['seconds']:,.0f} requests/s", f"p99 {load['p99']:.1f} ms")

    def fleet(self, sidecars=20, services=5, endpoints=20, wait=10, seconds=64):
        """What registered sidecars ask of their agent, and what a change costs it, through a relay that counts."""
        names = [f"fleet-{number}" for number in range(services)]
        self.change([(name, number, True) for name in names for number in range(endpoints)])
        with contextlib.ExitStack() as stack:
            relay = stack.enter_context(Relay(self.consul_port))
            outs = []
            for number in range(sidecars):
                upstreams = "".join(f"  {name}: {{listen: 127.0.0.1:{port}}}\n" for name, port in zip(names, run.free_ports(services)))
                config = self.write(f"fleet-{number}.yaml", f"""\
service: sidecar-{number}
registration: {{address: 127.0.0.1, checks: [{{ttl: 30s}}]}}
app: {{port: {self.port}}}
consul: {{address: 'http://127.0.0.1:{relay.port}', wait: {wait}s}}
log: {{access: off, format: json}}
admin: {{listen: 127.0.0.1:0}}
workers: 1
upstreams:
{upstreams}""")
                outs.append(self.path(f"fleet-{number}.out"))
                stack.enter_context(run.process([self.args.lictor, "serve", "-c", config], outs[-1]))
            run.eventually("the fleet knows its endpoints", lambda: all(known(out) == services * endpoints for out in outs), pause=0.2)
            time.sleep(8)
            before, cpu = relay.totals(), sum(run.cpu(self.consul_process.pid))
            time.sleep(seconds)
            after = relay.totals()
            by_kind = {kind: (count - before["kinds"].get(kind, 0)) / seconds for kind, count in after["kinds"].items()}
            print(f"{sidecars} sidecars, {services} services of {endpoints} endpoints each, wait {wait} s, {seconds} s:")
            print(f"  {after['open']} connections, {after['open'] / sidecars:.1f} each")
            for kind, count in sorted(by_kind.items()):
                print(f"  {count:.2f} queries/s  {kind}")
            print(f"  {sum(by_kind.values()):.2f} queries/s in all; by the rules {sidecars * services / (wait * (1 + 1 / 32)):.2f} of services")
            print(f"  bytes/s to Consul {(after['up'] - before['up']) / seconds:,.0f}, from it {(after['down'] - before['down']) / seconds:,.0f}; "
                  f"Consul's CPU {100 * (sum(run.cpu(self.consul_process.pid)) - cpu) / seconds:.1f} %")
            size = len(run.get(f"{self.consul}/v1/health/service/{names[0]}"))
            before = relay.totals()
            for number in range(10):
                self.change([(names[0], 20_000, number % 2 == 0)])
                time.sleep(1)
            after = relay.totals()
            print(f"  10 changes of one service: {(after['requests'] - before['requests']) / 10 / sidecars:.2f} queries and "
                  f"{(after['down'] - before['down']) / 10 / sidecars:,.0f} bytes each for a sidecar, the idle second's among them; "
                  f"an answer's body is {size:,} bytes ({size / endpoints:,.0f} an endpoint)")

    PARTS = {"sizes": sizes, "storms": storms, "connections": connections, "fleet": fleet}


class Storm:
    """Changes endpoints in the background, every other time those of the loaded service, if that is among them."""

    def __init__(self, scale, names, is_load_hit):
        self.scale, self.names, self.is_load_hit = scale, names, is_load_hit
        self.over, self.done, self.failure = threading.Event(), 0, None
        self.thread = threading.Thread(target=self.blow)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.failure:
            raise self.failure

    def blow(self):
        there, began = set(), time.monotonic()
        try:
            while not self.over.is_set():
                is_load = self.is_load_hit and self.done % 2 == 0
                one = ("load", 20_000 + self.done // 2 % 5) if is_load else (self.names[self.done // 2 % len(self.names)], 20_000)
                self.scale.change([(*one, one not in there)])
                there ^= {one}
                self.done += 1
                self.over.wait(max(0, began + self.done / CHANGES_A_SECOND - time.monotonic()))
            self.scale.change([(*one, False) for one in there])
        except (OSError, run.Failure) as failure:
            self.failure = failure


class Relay:
    """Passes bytes between sidecars and the agent, and counts them, connections, and requests by what they ask."""

    KINDS = {"health/service/id": "own health", "health/service": "services", "agent/service": "own registration",
             "agent/check/update": "beats", "agent/checks": "own checks"}

    def __init__(self, to):
        self.to, self.counts, self.kinds = to, {"up": 0, "down": 0, "open": 0, "requests": 0}, {}

    def totals(self):
        return {**self.counts, "kinds": dict(self.kinds)}

    def __enter__(self):
        self.loop, is_up = asyncio.new_event_loop(), threading.Event()

        async def serve():
            server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            is_up.set()

        def work():
            self.loop.create_task(serve())
            self.loop.run_forever()

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        is_up.wait(5)
        return self

    def __exit__(self, *_):
        def end():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_later(0.1, self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self.thread.join()

    async def accept(self, reader, writer):
        upstream = await asyncio.open_connection("127.0.0.1", self.to)
        self.counts["open"] += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self.copy(reader, upstream[1], "up"), self.copy(upstream[0], writer, "down"))
        self.counts["open"] -= 1

    async def copy(self, reader, writer, way):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.counts[way] += len(data)
                for path in re.findall(rb"(?:GET|PUT) /v1/(\S*) HTTP/1.1\r\n", data) if way == "up" else []:
                    kind = next((kind for part, kind in self.KINDS.items() if part in path.decode()), "other")
                    self.kinds[kind] = self.kinds.get(kind, 0) + 1
                    self.counts["requests"] += 1
                writer.write(data)
                await writer.drain()
        writer.close()


def address(number):
    return f"127.1.{number // 250}.{number % 250 + 1}"


def known(out):
    """Endpoints of all upstreams, by the log."""
    latest = dict(re.findall(rb'"endpoints_changed".*?"upstream":"([^"]+)".*?"endpoints":(\d+)', run.read(out)))
    return sum(map(int, latest.values()))


def adoptions(port):
    """The worker's times for changes, as its histogram has them: sum and count in all, and the count up to each limit."""
    text = run.get(f"http://127.0.0.1:{port}/metrics").decode()
    return dict(re.findall(r'^lictor_mesh_adoption_seconds_(sum|count|bucket\{le="[^"]+"\}) (\S+)', text, re.M))


def since(earlier, later):
    """Mean in ms, and the limit in ms that all kept."""
    grown = {name: float(value) - float(earlier[name]) for name, value in later.items()}
    limits = [name[11:-2] for name, count in grown.items() if name.startswith("bucket") and count == grown["count"]]
    return 1e3 * grown["sum"] / grown["count"], "more" if limits == ["+Inf"] else f"{1e3 * float(limits[0]):g}"


def lines(out):
    return run.read(out).count(b"endpoints_changed")


@contextlib.contextmanager
def on_cores(places):
    """Keeps processes, by core, on it until the end; what they start meanwhile is there too."""
    cores = os.sched_getaffinity(0)
    for core, pids in places.items():
        for pid in pids:
            pin(pid, {core})
    try:
        yield
    finally:
        for pid in (pid for pids in places.values() for pid in pids):
            pin(pid, cores)


def pin(pid, cores, name=""):
    """Keeps the threads of a process on these cores, or those of a name."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        if run.read(f"/proc/{pid}/task/{thread}/comm").decode().startswith(name):
            os.sched_setaffinity(int(thread), cores)


def cpu_ms(pid):
    """Of all threads, to the nanosecond; a thread that ends takes its time with it, but none does here."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(run.read(f"/proc/{pid}/task/{task}/schedstat").split()[0]) for task in tasks) / 1e6


def least_squares(rows):
    """(a, s, b) of rss = a + s * services + b * endpoints with the least relative error."""
    equations = [[0.0] * 4 for _ in range(3)]
    for services, endpoints, rss in rows:
        terms = [1 / rss, services / rss, endpoints / rss, 1]
        for i in range(3):
            for j in range(4):
                equations[i][j] += terms[i] * terms[j]
    for i in range(3):
        equations[i] = [value / equations[i][i] for value in equations[i]]
        for j in range(3):
            if j != i:
                equations[j] = [value - equations[j][i] * pivot for value, pivot in zip(equations[j], equations[i])]
    return [equation[3] for equation in equations]


def print_row(*cells):
    print(" | ".join(str(cell) for cell in cells), flush=True)


if __name__ == "__main__":
    try:
        main()
    except run.Failure as failure:
        sys.exit(f"scale: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
