"""A gRPC server without generated code, in this process or (`python grpc_echo.py`) as one of its own to be killed."""

import concurrent.futures
import contextlib
import threading

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status

SERVICE = "conformance.Echo"
SIZES = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]


class Server:
    """What the calls do, and what they saw."""

    def __init__(self):
        self.calls = 0
        self.is_unavailable = False
        self.remaining = []
        self.entered, self.cancelled = threading.Event(), threading.Event()
        self.health = health.HealthServicer()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=SIZES)
        unary = {name: grpc.unary_unary_rpc_method_handler(getattr(self, name))
                 for name in ("Unary", "Fail", "Rich", "Metadata", "Wait", "Sized")}
        streams = {
            "Collect": grpc.stream_unary_rpc_method_handler(self.Collect),
            "Spread": grpc.unary_stream_rpc_method_handler(self.Spread),
            "Chat": grpc.stream_stream_rpc_method_handler(self.Chat),
            "AbortMidway": grpc.unary_stream_rpc_method_handler(self.AbortMidway),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, unary | streams),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = "127.0.0.1:%d" % self.server.add_insecure_port("127.0.0.1:0")

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(None).wait()

    def Unary(self, request, context):
        """The request again, unless the server is to be unavailable."""
        self.calls += 1
        if self.is_unavailable:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.remaining.append(context.time_remaining())
        return request

    def Fail(self, request, context):
        """An error with the request as its message."""
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    def Rich(self, request, context):
        """An error with details."""
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason="STOCK", domain="shop.test", metadata={"sku": "7"}))
        status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="no stock", details=[detail])
        context.abort_with_status(rpc_status.to_status(status))

    def Metadata(self, request, context):
        """The client's metadata again, half of it first and half of it last."""
        sent = {key: value for key, value in context.invocation_metadata() if key.startswith("echo-")}
        context.send_initial_metadata([(f"first-{key}", value) for key, value in sent.items()])
        context.set_trailing_metadata([(f"last-{key}", value) for key, value in sent.items()])
        return b""

    def Wait(self, request, context):
        """Does not return before the call is cancelled."""
        self.remaining.append(context.time_remaining())
        context.add_callback(self.cancelled.set)
        self.entered.set()
        self.cancelled.wait(20)
        return b""

    def Sized(self, request, context):
        """So many bytes."""
        return b"x" * int(request)

    def Collect(self, requests, context):
        """All requests in one."""
        return b"".join(requests)

    def Spread(self, request, context):
        """One answer a byte."""
        for byte in request:
            yield bytes([byte])

    def Chat(self, requests, context):
        """Each request again, at once."""
        context.add_callback(self.cancelled.set)
        yield from requests

    def AbortMidway(self, request, context):
        """One answer, then an error."""
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")


class Client:
    """One channel."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[*SIZES, ("grpc.enable_http_proxy", 0)])
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def __getattr__(self, method):
        """A method of the service, of the kind it has."""
        kind = {"Collect": "stream_unary", "Chat": "stream_stream", "Spread": "unary_stream",
                "AbortMidway": "unary_stream"}.get(method, "unary_unary")
        return getattr(self.channel, kind)(f"/{SERVICE}/{method}")


if __name__ == "__main__":
    with Server() as echo:
        print(echo.address, flush=True)
        with contextlib.suppress(EOFError):
            input()
