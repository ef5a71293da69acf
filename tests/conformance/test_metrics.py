"""Metrics, as Prometheus' own parsers read them."""

import contextlib
import http.server
import re
import threading
import time
import urllib.request

import prometheus_client
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

import kit

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape(lictor, accept):
    """The content type and the text."""
    request = urllib.request.Request(f"http://{lictor.address('admin')}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_openmetrics_with_exemplars():
    """The same families in both forms; a sampled request is the example of its bucket, another is not."""
    with kit.Web() as web, kit.closed_port() as nobody:
        upstreams = {"users": {"listen": 0, "static": [web.address]}, "bad": {"listen": 0, "static": [nobody]},
                     'odd': {"listen": 0, "static": [web.address], "routes": [{"match": 'GET /a"b'}]}}
        with kit.Lictor(upstreams=upstreams, trace={"sample": "0%"}) as lictor:
            for name, path, parent in (("users", "/", TRACEPARENT), ("odd", '/a"b', ""), ("bad", "/", "")):
                kit.curl("-o", "/dev/null", "-H", f"traceparent: {parent}", f"http://{lictor.address(name)}{path}")
            kind, text = scrape(lictor, ACCEPT)
            assert kind.startswith("application/openmetrics-text; version=1.0.0"), kind
            families = {family.name: family for family in openmetrics(text)}
            plain_kind, plain_text = scrape(lictor, "text/plain")
            assert plain_kind.startswith("text/plain; version=0.0.4"), plain_kind
            names = {re.sub("_total$", "", family.name) for family in plain(plain_text)}
            assert set(families) == names, set(families) ^ names
            duration = families["lictor_upstream_request_duration_seconds"]
            examples = [(sample.labels["upstream"], sample.exemplar) for sample in duration.samples if sample.exemplar]
            [(upstream, example)] = examples
            assert upstream == "users" and example.labels["trace_id"] == TRACEPARENT.split("-")[1], examples
            count = next(s.value for s in duration.samples if s.name.endswith("_count") and s.labels["upstream"] == "users")
            assert count == 1 and 0 < example.value < 5, duration


@kit.limit(240)
def test_distinct_paths_end_at_the_ceiling_of_the_process():
    """100,000 gRPC methods, on four workers, are 200 labels and `other`."""
    uris = kit.folder("uris") / "uris"
    with kit.closed_port() as nobody:
        upstreams = {"calls": {"listen": 0, "protocol": "grpc", "static": [nobody], "retry": "off"}}
        with kit.Lictor(workers=4, upstreams=upstreams, log={"access": "off"}) as lictor:
            address = lictor.address("calls")
            uris.write_text("".join(f"http://{address}/shop.Users/M{number}\n" for number in range(100_000)))
            told = kit.run("h2load", "--h1", "-n", "100000", "-c", "16", "-t", "2", "-i", uris, "-H", "content-type: application/grpc",
                           "-H", "te: trailers", timeout=200)
            assert "100000 succeeded" in told, told
            _, text = scrape(lictor, "text/plain")
            samples = [s for family in plain(text) for s in family.samples if s.name == "grpc_requests_total"]
            assert sum(sample.value for sample in samples) == 100_000, samples[:3]
            assert len({sample.labels["method"] for sample in samples}) == 201, len(samples)
            other = sum(sample.value for sample in samples if sample.labels["method"] == "other")
            overflow = lictor.metric("lictor_label_overflow_total")
            assert other == overflow >= 100_000 - 200 * 16, (other, overflow)
            assert len(text) < 2 << 20, len(text)


@contextlib.contextmanager
def application(answer):
    """An application whose metrics are what `answer(accept)` gives: status, content type, bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            """A scrape."""
            status, kind, text = answer(self.headers["Accept"]) if self.path == "/metrics" else (404, "text/plain", b"")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            with contextlib.suppress(OSError):  # lictor has had enough
                self.wfile.write(text)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_applications_metrics_are_behind_ours():
    """Those of Prometheus' own library, in both forms; what lictor has too is left out."""
    registry = prometheus_client.CollectorRegistry()
    orders = prometheus_client.Counter("shop_orders", 'Orders {"all"}', ["kind"], registry=registry)
    orders.labels('a } " b').inc(3, {"trace_id": "abc"})
    prometheus_client.Histogram("shop_seconds", "Durations", registry=registry).observe(0.2)
    prometheus_client.Gauge("process_open_fds", "Ours too", registry=registry).set(-7)

    def answer(accept):
        generate, kind = prometheus_client.exposition.choose_encoder(accept)
        return 200, kind, generate(registry)

    with application(answer) as app, kit.Lictor(metrics={"merge_app": app}) as lictor:
        for accept, kind, parse in ((ACCEPT, "application/openmetrics-text", openmetrics), ("text/plain", "text/plain", plain)):
            told, text = scrape(lictor, accept)
            assert told.startswith(kind), told
            assert text.count("# EOF") == (1 if parse is openmetrics else 0)
            families = list(parse(text))
            names = [family.name for family in families]
            assert len(set(names)) == len(names), sorted(names)
            samples = {(sample.name, *sample.labels.values()): sample for family in families for sample in family.samples}
            assert samples["shop_orders_total", 'a } " b'].value == 3
            assert samples["shop_seconds_count",].value == 1 and samples["process_open_fds",].value > 0
            assert samples["lictor_app_metrics_up",].value == 1 and samples["lictor_app_metrics_dropped",].value == 1
            if parse is openmetrics:
                assert samples["shop_orders_total", 'a } " b'].exemplar.labels == {"trace_id": "abc"}


def test_an_application_that_speaks_only_text_is_answered_for_in_text():
    """As one answer has one form."""
    text = b"shop_orders_total 3\n"
    with application(lambda _: (200, "text/plain", text)) as app, kit.Lictor(metrics={"merge_app": app}) as lictor:
        kind, told = scrape(lictor, ACCEPT)
        assert kind.startswith("text/plain"), kind
        assert "shop_orders_total" in [family.name for family in plain(told)], told


@kit.limit(60)
def test_an_applications_faults_do_not_cost_our_metrics():
    """Whatever it says, or does not."""
    go = threading.Event()
    faults = {
        "500": lambda: (500, "text/plain", b"shop_orders_total 3\n"),
        "text/html": lambda: (200, "text/html", b"<h1>Hello</h1>"),
        "line 2 is neither": lambda: (200, "text/plain", b"shop_orders_total 3\nHello, world\n"),
        "UTF-8": lambda: (200, "text/plain", b'shop_orders_total{a="\xff"} 3\n'),
        "length limit": lambda: (200, "text/plain", b"shop_orders_total 3\n" * 300_000),
        "no answer within 1s": lambda: go.wait(20) and (200, "text/plain", b""),
        "": lambda: (200, "text/plain", b"shop_orders_total 3\n"),
    }
    doing = []
    with application(lambda _: doing[-1]()) as app, kit.Lictor(metrics={"merge_app": app}) as lictor:
        for why, does in faults.items():
            doing.append(does)
            for _ in range(2):
                began = time.monotonic()
                families = {family.name: family for family in openmetrics(scrape(lictor, ACCEPT)[1])} if why else {
                    family.name: family for family in plain(scrape(lictor, "text/plain")[1])}
                assert time.monotonic() - began < 4, why
                assert "lictor_build_info" in families and ("shop_orders_total" in families) == (why == ""), (why, sorted(families))
                assert families["lictor_app_metrics_up"].samples[0].value == (why == ""), why
            lines = [line for line in lictor.log if "app_metrics_failing" in line]
            assert len(lines) == 1, lines  # told once, with the first reason
        kit.eventually("it is told", lambda: [line for line in lictor.log if "app_metrics_back" in line])
        go.set()
    for why, does in list(faults.items())[1:6]:
        go.clear()
        with application(lambda _, does=does: does()) as app, kit.Lictor(metrics={"merge_app": app}) as lictor:
            scrape(lictor, ACCEPT)
            kit.eventually(why, lambda why=why, lictor=lictor: [line for line in lictor.log if "app_metrics_failing" in line and why in line])
            go.set()


def test_opentelemetrys_histograms():
    """Requests in and out by their names, and only where they are wanted."""
    with kit.Web() as web, kit.closed_port() as nobody:
        port = int(web.address.split(":")[1])
        upstreams = {"users": {"listen": 0, "static": [web.address], "routes": [{"match": "GET /users/{id}"}]},
                     "bad": {"listen": 0, "static": [nobody], "retry": "off"}}
        config = {"service": "orders", "port": port, "inbound": {"listen": "127.0.0.1:0"}, "upstreams": upstreams}
        for wanted in (True, False):
            with kit.Lictor(metrics={"otel": wanted}, **config) as lictor:
                for name, path in (("users", "/users/1"), ("users", "/users/2"), ("users", "/status/404"), ("bad", "/"),
                                   ("inbound", "/"), ("inbound", "/status/500"), ("inbound", "/status/404")):
                    kit.curl("-o", "/dev/null", f"http://{lictor.address(name)}{path}")
                kit.curl("-o", "/dev/null", "-X", "BREW", f"http://{lictor.address('users')}/")
                families = {family.name: family for family in openmetrics(scrape(lictor, ACCEPT)[1])}
                names = [f"http_{side}_request_duration_seconds" for side in ("client", "server")]
                if not wanted:
                    assert not set(names) & set(families)
                    continue
                client, server = (counts(families[name]) for name in names)
                assert client == {
                    ("GET", "200", "/users/{id}", "users", ""): 2, ("GET", "404", "", "users", "404"): 1,
                    ("GET", "502", "", "bad", "connect_refused"): 1, ("_OTHER", *client_other(client)): 1,
                }, client
                assert server == {("GET", "200", "", "orders", ""): 1, ("GET", "500", "", "orders", "500"): 1,
                                  ("GET", "404", "", "orders", ""): 1}, server
                series = [sample for sample in families[names[0]].samples if sample.labels["server_address"] == "bad"]
                assert len(series) == 17, series  # 15 buckets, sum, count: as docs/metrics.md has it


def client_other(client):
    """What Python's server makes of an unknown method, in the other labels."""
    [other] = [labels[1:] for labels in client if labels[0] == "_OTHER"]
    return other


def counts(family):
    """The number of requests by labels."""
    order = ("http_request_method", "http_response_status_code", "http_route", "server_address", "error_type")
    return {tuple(sample.labels[name] for name in order): sample.value
            for sample in family.samples if sample.name.endswith("_count")}
