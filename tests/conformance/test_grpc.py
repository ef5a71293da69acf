"""gRPC: grpcio on both sides."""

import collections
import contextlib
import pathlib
import queue
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

import grpc_echo
from kit import Lictor, closed_port, eventually, limit

SAFE = [{"match": "POST /conformance.Echo/*", "idempotent": True}]


@contextlib.contextmanager
def pair(servers=1, **options):
    """Servers, a lictor in front of them, and a client: `(client, servers, lictor)`."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(grpc_echo.Server()) for _ in range(servers)]
        lictor = stack.enter_context(billing([server.address for server in running], **options))
        yield stack.enter_context(grpc_echo.Client(lictor.address("billing"))), running, lictor


def billing(addresses, **options):
    """A lictor with one gRPC upstream."""
    return Lictor(upstreams={"billing": {"listen": 0, "protocol": "grpc", "static": addresses, **options}})


def failure(call):
    """The error that a call ends with."""
    try:
        got = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"no error but {got!r}")


def test_unary():
    with pair() as (client, _, _):
        assert client.Unary(b"hello", timeout=5) == b"hello"
        assert client.Unary(b"", timeout=5) == b""


def test_client_streaming():
    with pair() as (client, _, _):
        assert client.Collect((b"%d," % n for n in range(100)), timeout=5) == b"".join(b"%d," % n for n in range(100))
        assert client.Collect(iter(()), timeout=5) == b""


def test_server_streaming():
    with pair() as (client, _, _):
        assert b"".join(client.Spread(bytes(range(200)), timeout=5)) == bytes(range(200))
        assert list(client.Spread(b"", timeout=5)) == []


def test_bidirectional_streaming_is_not_held_back():
    with pair() as (client, _, _):
        asked = queue.Queue()
        answers = client.Chat(iter(asked.get, None), timeout=10)
        for n in range(50):
            asked.put(b"%d" % n)
            assert next(answers) == b"%d" % n
        asked.put(None)
        assert list(answers) == []
        assert answers.code() == grpc.StatusCode.OK


def test_error_with_code_and_percent_encoded_message():
    with pair() as (client, _, _):
        for message in ("plain", "50 % of größe\n日本語", "%41"):
            error = failure(lambda: client.Fail(message.encode(), timeout=5))
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, message)


def test_unknown_method_is_unimplemented():
    with pair() as (client, _, _):
        assert failure(lambda: client.Nothing(b"", timeout=5)).code() == grpc.StatusCode.UNIMPLEMENTED


def test_rich_status_survives():
    with pair() as (client, _, _):
        status = rpc_status.from_call(failure(lambda: client.Rich(b"", timeout=5)))
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (status.message, info.reason, info.metadata["sku"]) == ("no stock", "STOCK", "7")


def test_metadata_both_ways_byte_exact():
    with pair() as (client, _, _):
        sent = {"echo-text": "a value, with: signs", "echo-all-bin": bytes(range(256)), "echo-empty-bin": b"",
                "echo-one-bin": b"\x00"}
        _, call = client.Metadata.with_call(b"", metadata=list(sent.items()), timeout=5)
        for half, got in (("first", dict(call.initial_metadata())), ("last", dict(call.trailing_metadata()))):
            assert {key: got.get(f"{half}-{key}") for key in sent} == sent


def test_messages_of_4_mb_both_ways():
    with pair() as (client, _, _):
        large = bytes(range(256)) * (4 << 12)
        assert client.Unary(large, timeout=20) == large
        assert list(client.Chat(iter([large, large]), timeout=20)) == [large, large]
        assert len(client.Sized(b"%d" % (4 << 20), timeout=20)) == 4 << 20


def test_cancellation_reaches_the_server_within_a_second():
    with pair() as (client, [server], _):
        call = client.Wait.future(b"")
        assert server.entered.wait(5)
        call.cancel()
        assert server.cancelled.wait(1)


def test_cancellation_of_a_stream_reaches_the_server_within_a_second():
    with pair() as (client, [server], _):
        asked = queue.Queue()
        answers = client.Chat(iter(asked.get, None))
        asked.put(b"1")
        assert next(answers) == b"1"
        answers.cancel()
        assert server.cancelled.wait(1)
        asked.put(None)


def test_client_that_vanishes_is_a_cancellation():
    with pair() as (client, [server], _):
        call = client.Wait.future(b"")
        assert server.entered.wait(5)
        client.channel.close()
        assert server.cancelled.wait(1) and call.done()


def test_abort_within_a_stream_reaches_the_client():
    with pair() as (client, _, _):
        answers = client.AbortMidway(b"", timeout=5)
        assert next(answers) == b"one"
        error = failure(lambda: next(answers))
        assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "the rest is gone")


def call_by_hand(lictor, method, **headers):
    """One call with exactly these headers; the answer's head, and how long it took."""
    headers = {"content-type": "application/grpc", "te": "trailers"} | headers
    began = time.monotonic()
    with httpx.Client(http1=False, http2=True) as client:
        url = f"http://{lictor.address('billing')}/conformance.Echo/{method}"
        answer = client.post(url, headers=headers, content=bytes(5), timeout=10)
    return answer.headers, time.monotonic() - began


def test_server_sees_what_is_left_of_the_deadline():
    """grpcio rounds a deadline up before it sends it, so the exact one is sent by hand."""
    with pair() as (client, [server], lictor):
        call_by_hand(lictor, "Unary", **{"grpc-timeout": "800m"})
        call_by_hand(lictor, "Unary", **{"grpc-timeout": "5S"})
        client.Unary(b"", timeout=2)
        short, long, rounded = server.remaining
        assert 0.3 < short < 0.8 and 4 < long < 5 and 1 < rounded < 2.05, server.remaining


def test_a_retry_has_what_the_attempts_before_left_of_the_deadline():
    """One endpoint never accepts: when it is picked first, a second of three is gone before the other is asked."""
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0)).getsockname()
        stack.enter_context(socket.create_connection(address))
        server = stack.enter_context(grpc_echo.Server())
        lictor = stack.enter_context(billing(["127.0.0.1:%d" % address[1], server.address], balance="round_robin"))
        while not server.remaining or server.remaining[-1] > 2.5:
            call_by_hand(lictor, "Unary", **{"grpc-timeout": "3S"})
        assert 1 < server.remaining[-1] < 2.1, server.remaining


def test_deadline_exceeded_at_the_client_and_cancelled_at_the_server():
    with pair() as (client, [server], _):
        assert failure(lambda: client.Wait(b"", timeout=0.5)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < server.remaining[0] < 0.55
        assert server.cancelled.wait(1)


def test_lictor_itself_ends_a_call_at_its_deadline():
    """A client that sends a deadline but does not watch it."""
    with pair() as (_, [server], lictor):
        head, took = call_by_hand(lictor, "Wait", **{"grpc-timeout": "500m"})
        assert head["grpc-status"] == "4" and 0.4 < took < 2, (head, took)
        assert server.cancelled.wait(1)


def test_health_check_and_watch():
    with pair() as (client, [server], _):
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        server.health.set("billing", serving)
        request = health_pb2.HealthCheckRequest(service="billing")
        assert client.health.Check(request, timeout=5).status == serving
        watch = client.health.Watch(request, timeout=10)
        assert next(watch).status == serving
        server.health.set("billing", not_serving)
        assert next(watch).status == not_serving
        watch.cancel()
        unknown = failure(lambda: client.health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5))
        assert unknown.code() == grpc.StatusCode.NOT_FOUND


def test_one_channel_is_balanced_by_round_robin():
    with pair(servers=4, balance="round_robin") as (client, servers, _):
        for _ in range(400):
            client.Unary(b"x", timeout=5)
        calls = [server.calls for server in servers]
        assert sum(calls) == 400 and all(80 <= count <= 120 for count in calls), calls


def test_one_channel_is_balanced_by_default():
    with pair(servers=4) as (client, servers, _):
        for _ in range(20):
            for call in [client.Unary.future(b"x", timeout=5) for _ in range(20)]:
                assert call.result() == b"x"
        calls = [server.calls for server in servers]
        assert sum(calls) == 400 and all(count >= 20 for count in calls), calls


class Load:
    """Calls from four threads on one channel, from `with` to its end."""

    def __init__(self, client):
        self.client, self.ends = client, threading.Event()
        self.codes, self.details = collections.Counter(), set()

    def __enter__(self):
        self.threads = [threading.Thread(target=self._call, daemon=True) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        self.more(100)
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def _call(self):
        while not self.ends.is_set():
            try:
                self.client.Unary(b"x", timeout=5)
                self.codes["OK"] += 1
            except grpc.RpcError as error:
                self.codes[error.code().name] += 1
                self.details.add(error.details())

    def more(self, count):
        """Waits for so many further calls."""
        goal = self.codes.total() + count
        eventually(f"{count} more calls", lambda: self.codes.total() >= goal)


@contextlib.contextmanager
def separate(*command):
    """A server as a process of its own that prints its address: `(process, address)`."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@limit(60)
def test_goaway_under_load_loses_no_call():
    here = pathlib.Path(__file__).parent
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(separate("node", here / "goaway.js")) for _ in range(3)]
        lictor = stack.enter_context(billing([address for _, address in servers], routes=SAFE))
        client = stack.enter_context(grpc_echo.Client(lictor.address("billing")))
        with Load(client) as load:
            for process, _ in servers[:2]:
                print("stop", file=process.stdin, flush=True)
                assert process.wait(10) == 0
                load.more(300)
        assert set(load.codes) == {"OK"}, (load.codes, load.details)


@limit(60)
def test_graceful_stop_of_grpcio_under_load_loses_no_call():
    """A grpcio server itself says CANCELLED to calls that come just before its GOAWAY is read, to any client; one in
    some hundred stops forgets a call, to any client too, until its time of grace is over."""
    with pair(servers=3) as (client, servers, _):
        with Load(client) as load:
            for server in servers[:2]:
                server.server.stop(2).wait()
                load.more(300)
        assert load.codes.total() - load.codes["OK"] <= 16, (load.codes, load.details)
        assert load.details <= {"CANCELLED", "Cancelling all calls"}, (load.codes, load.details)


@limit(60)
def test_calls_go_on_when_a_server_is_killed():
    with contextlib.ExitStack() as stack:
        doomed, address = stack.enter_context(separate(sys.executable, grpc_echo.__file__))
        addresses = [address] + [stack.enter_context(grpc_echo.Server()).address for _ in range(2)]
        lictor = stack.enter_context(billing(addresses, routes=SAFE))
        client = stack.enter_context(grpc_echo.Client(lictor.address("billing")))
        with Load(client) as load:
            doomed.kill()
            doomed.wait()
            load.more(300)
        assert set(load.codes) == {"OK"}, (load.codes, load.details)


def test_unavailable_is_tried_elsewhere_when_that_is_safe_and_passed_on_when_not():
    with pair(servers=2, routes=SAFE, balance="round_robin") as (client, servers, _):
        servers[0].is_unavailable = True
        assert [client.Unary(b"x", timeout=5) for _ in range(4)] == [b"x"] * 4
        assert servers[0].calls and servers[1].calls == 4
    with pair() as (client, [server], _):
        server.is_unavailable = True
        error = failure(lambda: client.Unary(b"x", timeout=5))
        assert (error.code(), error.details(), server.calls) == (grpc.StatusCode.UNAVAILABLE, "not now", 1)


def test_no_instance_is_unavailable_with_a_readable_message():
    with closed_port() as dead, billing([dead]) as lictor, grpc_echo.Client(lictor.address("billing")) as client:
        error = failure(lambda: client.Unary(b"", timeout=10))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "billing" in error.details() and f"refused by {dead}" in error.details(), error.details()


def test_metrics_have_service_method_and_status():
    with pair() as (client, _, lictor):
        for _ in range(3):
            client.Unary(b"", timeout=5)
        failure(lambda: client.Fail(b"no", timeout=5))
        list(client.Spread(b"12", timeout=5))

        def count(name, **labels):
            return lictor.metric(name, service="billing", **labels)

        unary, fail, spread = (f"/conformance.Echo/{method}" for method in ("Unary", "Fail", "Spread"))
        eventually("5 calls are counted", lambda: count("grpc_requests_total") == 5)
        assert count("grpc_requests_total", method=unary, status="success") == 3
        assert count("grpc_requests_total", method=fail, status="error") == 1
        assert count("grpc_requests_total", method=spread, status="success") == 1
        assert count("grpc_request_duration_seconds_count", method=unary) == 3
        assert count("grpc_request_duration_seconds_bucket", method=unary, le="+Inf") == 3


def test_binary_metadata_padded_or_not():
    with pair() as (_, _, lictor):
        for encoded in ("/wBh", "/w==", "/w"):
            head, _ = call_by_hand(lictor, "Metadata", **{"echo-x-bin": encoded})
            assert head["first-echo-x-bin"].rstrip("=") == encoded.rstrip("="), head
