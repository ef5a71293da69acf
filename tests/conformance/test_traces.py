"""Spans, as an OpenTelemetry receiver of its own makes (grpcio and OpenTelemetry's protobuf messages) sees them."""

import concurrent.futures
import contextlib
import http.server
import json
import queue
import ssl
import threading
import urllib.request

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

import kit

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
INTERNAL, SERVER, CLIENT = 1, 2, 3


class Receiver:
    """What arrived, and what the next exports are answered with (the last answer is repeated)."""

    def __init__(self, *answers):
        self.exports, self.answers, self.calls = queue.Queue(), list(answers), []

    def take(self, request, headers):
        """Notes an export and says how it is answered."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [None])[0]
        self.calls.append((headers, answer))
        if answer is None or not isinstance(answer, Refusal):
            self.exports.put((request, headers))
        return answer

    def spans(self, count):
        """The next `count` spans, by their ids, with their resource's attributes."""
        found = {}
        while len(found) < count:
            request, headers = self.exports.get(timeout=20)
            for group in request.resource_spans:
                resource = values(group.resource.attributes)
                for scope in group.scope_spans:
                    assert scope.scope.name == "lictor", scope.scope
                    found |= {span.span_id.hex(): Span(span, resource, headers) for span in scope.spans}
        return list(found.values())


class Refusal(Exception):
    """A status, in HTTP's and gRPC's terms, and how long to wait."""

    def __init__(self, http_status, code=None, after=None):
        super().__init__(http_status)
        self.http, self.code, self.after = http_status, code, after


class Span:
    """One span with its attributes as a dictionary."""

    def __init__(self, span, resource, headers):
        self.span, self.resource, self.headers = span, resource, headers
        self.attributes, self.kind, self.name = values(span.attributes), span.kind, span.name
        self.id, self.parent, self.trace = span.span_id.hex(), span.parent_span_id.hex(), span.trace_id.hex()

    def __getitem__(self, name):
        return self.attributes.get(name)


def values(attributes):
    """Attributes as a dictionary."""
    assert len({pair.key for pair in attributes}) == len(attributes), f"a key twice: {attributes}"
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextlib.contextmanager
def over_http(receiver, tls=None):
    """An OTLP/HTTP receiver."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            """An export."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/x-protobuf", self.headers
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            answer = receiver.take(request, {"path": self.path} | {k.lower(): v for k, v in self.headers.items()})
            refused = isinstance(answer, Refusal)
            text = b"" if refused else (answer or trace_service_pb2.ExportTraceServiceResponse()).SerializeToString()
            self.send_response(answer.http if refused else 200)
            if refused and answer.after is not None:
                self.send_header("Retry-After", str(answer.after))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a lictor that is killed is no news
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def over_grpc(receiver, credentials=None):
    """An OTLP/gRPC receiver."""

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            """An export."""
            answer = receiver.take(request, dict(context.invocation_metadata()))
            if isinstance(answer, Refusal):
                status = status_pb2.Status(code=answer.code, message="later")
                if answer.after is not None:
                    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=answer.after))
                    status.details.add().Pack(info)
                context.abort_with_status(rpc_status.to_status(status))
            return answer or trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    port = (server.add_secure_port("localhost:0", credentials) if credentials
            else server.add_insecure_port("127.0.0.1:0"))
    server.start()
    yield f"{'https' if credentials else 'http'}://{'localhost' if credentials else '127.0.0.1'}:{port}"
    server.stop(0)


def traced(otlp, backend, upstream=None, trace=None, **config):
    """A lictor whose upstream `users` is the backend."""
    users = {"listen": 0, "static": [backend]} | (upstream or {})
    trace = {"otlp": otlp, "headers": {"x-token": "t0ken"}, "resource": {"deployment.environment.name": "test"}} | (trace or {})
    return kit.Lictor(service="orders", trace=trace, upstreams={"users": users}, **config)


def call(lictor, path="/users/1?secret=1", listener="users", traceparent=TRACEPARENT, **headers):
    """A request in the trace; the status, and the headers that the backend saw."""
    request = urllib.request.Request(f"http://{lictor.address(listener)}{path}", headers={"traceparent": traceparent} | headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            text = answer.read()
            seen = json.loads(text)["headers"] if text else []
            return answer.status, {name.lower(): value for name, value in seen}
    except urllib.error.HTTPError as error:
        error.read()  # who goes before the end has gone
        return error.code, {}


def shape(spans, count=1):
    """The request's span and those of its attempts, in order."""
    [whole] = [span for span in spans if span.kind == INTERNAL]
    attempts = sorted((span for span in spans if span.kind == CLIENT), key=lambda span: span.span.start_time_unix_nano)
    assert len(attempts) == count, attempts
    assert (whole.trace, whole.parent) == (TRACE, PARENT), (whole.trace, whole.parent)
    for span in attempts:
        assert (span.trace, span.parent) == (TRACE, whole.id), (span.trace, span.parent)
        began, ended = span.span.start_time_unix_nano, span.span.end_time_unix_nano
        assert whole.span.start_time_unix_nano <= began <= ended <= whole.span.end_time_unix_nano
    return whole, attempts


def check_export(receiver, url, trace=None):
    """One request: its spans, the resource, the headers of the export; the callee's parent is the attempt."""
    with kit.Web() as web, traced(url, web.address, trace=trace) as lictor:
        status, seen = call(lictor)
        assert status == 200
        whole, [attempt] = shape(receiver.spans(2))
        assert seen["traceparent"] == f"00-{TRACE}-{attempt.id}-01", seen["traceparent"]
        assert whole.resource == {"service.name": "orders", "deployment.environment.name": "test"}, whole.resource
        assert whole.headers["x-token"] == "t0ken"
        assert whole.name == attempt.name == "GET", whole.name
        host, port = web.address.split(":")
        for span in (whole, attempt):
            assert span["http.request.method"] == "GET" and span["http.response.status_code"] == 200
            assert span["url.path"] == "/users/1" and span["server.address"] == "users"
            assert span["error.type"] is None and span.span.status.code == 0
            assert "secret" not in str(span.attributes)
        assert attempt["network.peer.address"] == host and attempt["network.peer.port"] == attempt["server.port"] == int(port)
        assert attempt["network.protocol.version"] == "1.1" and attempt["url.full"] == "http://users/users/1"
        assert attempt["http.request.resend_count"] is None
        assert whole.span.flags == 0x301 and attempt.span.flags == 0x101, "sampled; the parent is remote, or not"
        kit.eventually("it is counted", lambda: lictor.metric("lictor_spans_exported_total", outcome="taken") == 2)
        return whole.headers


def test_spans_over_http():
    """Protobuf to /v1/traces."""
    receiver = Receiver()
    with over_http(receiver) as url:
        assert check_export(receiver, url)["path"] == "/v1/traces"


def test_spans_over_grpc():
    """The same over gRPC."""
    receiver = Receiver()
    with over_grpc(receiver) as url:
        check_export(receiver, url, {"protocol": "grpc"})


def test_spans_over_https():
    """With the CA that is configured."""
    pki, receiver = kit.certificates(), Receiver()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "server.pem", pki / "server.key")
    with over_http(receiver, tls) as url:
        check_export(receiver, url, {"ca": str(pki / "ca.pem")})


def test_spans_over_grpc_with_tls():
    """The same over gRPC."""
    pki, receiver = kit.certificates(), Receiver()
    pair = tuple((pki / f"server.{kind}").read_bytes() for kind in ("key", "pem"))
    with over_grpc(receiver, grpc.ssl_server_credentials([pair])) as url:
        check_export(receiver, url, {"protocol": "grpc", "ca": str(pki / "ca.pem")})


def test_a_receiver_of_another_ca_gets_nothing():
    """And the log says why."""
    pki, receiver = kit.certificates(), Receiver()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "server.pem", pki / "server.key")
    with over_http(receiver, tls) as url, kit.Web() as web:
        with traced(url, web.address, trace={"ca": str(pki / "other-ca.pem")}) as lictor:
            call(lictor)
            kit.eventually("it is told", lambda: [line for line in lictor.log if "traces_failing" in line and "certificate" in line])
            assert not receiver.calls


def test_tracestate_is_on_every_span():
    """The caller's, where it is one."""
    receiver = Receiver()
    with over_http(receiver) as url, kit.Web() as web, traced(url, web.address) as lictor:
        assert call(lictor, tracestate="rojo=1,congo=t61r")[0] == 200
        spans = receiver.spans(2)
        assert [span.span.trace_state for span in spans] == ["rojo=1,congo=t61r"] * 2, spans
        assert call(lictor, tracestate="not a list")[0] == 200
        assert [span.span.trace_state for span in receiver.spans(2)] == ["", ""]


def test_retries_are_spans_and_events():
    """Each attempt with its number, error and endpoint."""
    receiver = Receiver()
    retry = {"retry": {"attempts": 3, "delays": ["1ms"]}, "breaker": {"failure_threshold": 1, "recovery_timeout": "60s"}}
    with over_http(receiver) as url, kit.Web() as web, traced(url, web.address, retry) as lictor:
        assert call(lictor, "/status/503")[0] == 503
        whole, attempts = shape(receiver.spans(4), 3)
        assert [span["http.request.resend_count"] for span in attempts] == [None, 1, 2]
        for span in attempts:
            assert span["error.type"] == "503" and span.span.status.code == 2
        assert whole["error.type"] == "503" and whole.span.status.code == 2
        events = [(event.name, values(event.attributes)) for event in whole.span.events]
        assert events[:2] == [
            ("retry", {"http.request.resend_count": 1, "lictor.before": "503"}),
            ("retry", {"http.request.resend_count": 2, "lictor.before": "503"}),
        ], events
        assert events[2:] == [("breaker", {"lictor.breaker": "open"})], events
        assert call(lictor)[0] == 503
        [rejected] = receiver.spans(1)
        assert rejected.kind == INTERNAL and rejected["error.type"] == "breaker_open"
        assert [event.name for event in rejected.span.events] == ["breaker"]


def test_no_answer_is_an_error_with_its_reason():
    """There is a span though there is no status."""
    receiver = Receiver()
    with over_http(receiver) as url, kit.closed_port() as nobody, traced(url, nobody, {"retry": "off"}) as lictor:
        assert call(lictor)[0] == 502
        whole, [attempt] = shape(receiver.spans(2))
        assert attempt["error.type"] == whole["error.type"] == "connect_refused", attempt.attributes
        assert attempt["http.response.status_code"] is None and whole["http.response.status_code"] == 502


def test_inbound_requests_are_server_spans():
    """Of our application; what it is sent has our span for a parent."""
    receiver = Receiver()
    with over_http(receiver) as url, kit.Web() as web:
        port = int(web.address.split(":")[1])
        inbound = {"port": port, "inbound": {"listen": "127.0.0.1:0"}}
        with kit.Lictor(service="orders", trace={"otlp": url}, **inbound) as lictor:
            status, seen = call(lictor, listener="inbound")
            [span] = receiver.spans(1)
            assert (status, span.kind, span.parent) == (200, SERVER, PARENT)
            assert seen["traceparent"] == f"00-{TRACE}-{span.id}-01"
            assert span["url.scheme"] == "http" and span["client.address"] == "127.0.0.1"
            assert span["network.protocol.version"] == "1.1" and span["http.response.status_code"] == 200
            assert call(lictor, "/status/404", listener="inbound")[0] == 404
            [span] = receiver.spans(1)
            assert span.span.status.code == 0 and span["error.type"] is None, "the caller's fault is no error of a server"


def test_grpc_calls_are_rpc_spans():
    """Named by their method, with the status of the trailers."""
    receiver = Receiver()

    def handler(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, dict(context.invocation_metadata())["traceparent"])

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Users", {"Get": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with over_http(receiver) as url, traced(url, f"127.0.0.1:{port}", {"protocol": "grpc"}) as lictor:
        with grpc.insecure_channel(lictor.address("users")) as channel:
            try:
                channel.unary_unary("/shop.Users/Get")(b"", metadata=[("traceparent", TRACEPARENT)], timeout=10)
                raise RuntimeError("it must fail")
            except grpc.RpcError as error:
                details = error.details()
        whole, [attempt] = shape(receiver.spans(2))
        assert details == f"00-{TRACE}-{attempt.id}-01", details
        for span in (whole, attempt):
            assert span.name == "shop.Users/Get" and span["rpc.system"] == "grpc"
            assert (span["rpc.service"], span["rpc.method"], span["rpc.grpc.status_code"]) == ("shop.Users", "Get", 5)
        assert attempt["network.protocol.version"] == "2"
        assert attempt.span.status.code == 2 and whole.span.status.code == 0
    server.stop(0)


def test_coalesced_requests_link_to_the_one_that_asked():
    """As the answer belongs to another trace."""
    receiver, asked, go = Receiver(), threading.Event(), threading.Event()

    def respond(connection, _):
        asked.set()
        go.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    cache = {"routes": [{"match": "GET /{page}", "cache": {"ttl": "5s", "coalesce": True}}]}
    with over_http(receiver) as url, kit.http_raw(respond) as backend, traced(url, backend.address, cache) as lictor:
        first, second = (threading.Thread(target=call, args=(lictor, "/a", "users", parent), daemon=True)
                         for parent in (TRACEPARENT, TRACEPARENT.replace("4bf9", "5bf9")))
        first.start()
        assert asked.wait(10)
        second.start()
        threading.Timer(0.3, go.set).start()  # it must have come by then; if not, it is a hit, which links too
        spans = receiver.spans(3)
        [other] = [span for span in spans if span.trace != TRACE]
        asking, _ = shape([span for span in spans if span.trace == TRACE])
        [link] = other.span.links
        assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, asking.id)
        assert other["lictor.cache"] in ("coalesced", "hit") and other["http.route"] == "/{page}", other.attributes


@kit.limit(60)
def test_a_receiver_that_asks_for_patience_gets_all_spans():
    """Retry-After and RetryInfo are kept to; what is refused for good is not sent again."""
    for serve, protocol, later, no in (
        (over_http, "http/protobuf", Refusal(503, after=2), Refusal(400)),
        (over_grpc, "grpc", Refusal(0, code_pb2.RESOURCE_EXHAUSTED, after=2), Refusal(0, code_pb2.INVALID_ARGUMENT)),
    ):
        receiver = Receiver(later, None, no, None)
        with serve(receiver) as url, kit.Web() as web, traced(url, web.address, trace={"protocol": protocol}) as lictor:
            call(lictor)
            kit.eventually("the first export", lambda: receiver.calls)
            began = kit.time.monotonic()
            assert len(receiver.spans(2)) == 2
            waited = kit.time.monotonic() - began
            assert 1.5 < waited < 4, f"{protocol}: {waited}"
            kit.eventually("taken", lambda: lictor.metric("lictor_spans_exported_total", outcome="taken") == 2)
            call(lictor)
            kit.eventually("failed", lambda: lictor.metric("lictor_spans_exported_total", outcome="failed") == 2)
            assert len(receiver.calls) == 3, receiver.calls


def test_partial_success_is_counted():
    """And told."""
    partial = trace_service_pb2.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans, partial.partial_success.error_message = 1, "too old"
    for serve, protocol in ((over_http, "http/protobuf"), (over_grpc, "grpc")):
        receiver = Receiver(partial)
        with serve(receiver) as url, kit.Web() as web, traced(url, web.address, trace={"protocol": protocol}) as lictor:
            call(lictor)
            kit.eventually("counted", lambda: lictor.metric("lictor_spans_exported_total", outcome="rejected") == 1)
            assert lictor.metric("lictor_spans_exported_total", outcome="taken") == 1
            assert [line for line in lictor.log if "too old" in line]


def test_the_queue_is_bounded_and_losses_are_counted():
    """A receiver that never answers costs spans, not memory or requests."""
    with kit.Raw(lambda connection: kit.read_all(connection)) as deaf, kit.Web() as web:
        with traced(f"http://{deaf.address}", web.address, trace={"sample": "100%"}) as lictor:
            kit.run("h2load", "--h1", "-n", "6000", "-c", "4", f"http://{lictor.address('users')}/")
            made = 12000
            dropped = lictor.metric("lictor_spans_dropped_total")
            assert made - 2048 - 2 * 512 <= dropped < made, dropped


def test_environment_variables_set_it_up():
    """OpenTelemetry's own, as every SDK has them."""
    receiver = Receiver()
    with over_http(receiver) as url, kit.Web() as web:
        lictor = kit.Lictor(upstreams={"users": {"listen": 0, "static": [web.address]}})
        lictor.env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url + "/base", "OTEL_EXPORTER_OTLP_HEADERS": "x-token=a%20b",
            "OTEL_RESOURCE_ATTRIBUTES": "team=mesh", "OTEL_SERVICE_NAME": "named",
            "OTEL_TRACES_SAMPLER": "always_on", "OTEL_PROPAGATORS": "tracecontext,b3multi",
        }
        with lictor:
            _, seen = call(lictor, traceparent=TRACEPARENT[:-1] + "0")
            whole, [attempt] = shape(receiver.spans(2))
            assert whole.headers["path"] == "/base/v1/traces" and whole.headers["x-token"] == "a b"
            assert whole.resource == {"team": "mesh", "service.name": "named"}
            assert seen["traceparent"].endswith("-01"), "always_on does not ask the caller"
            assert (seen["x-b3-traceid"], seen["x-b3-spanid"], seen["x-b3-sampled"]) == (TRACE, attempt.id, "1")
        lictor.env["OTEL_TRACES_SAMPLER"] = "always_off"
        with lictor:
            _, seen = call(lictor)
            assert seen["traceparent"].endswith("-00"), seen["traceparent"]
