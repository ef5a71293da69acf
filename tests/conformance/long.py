"""What takes minutes: `make conformance LONG=1`. MINUTES=1 tries the streams out."""

import contextlib
import os
import queue
import re
import threading
import time

import httpx
import websockets.sync.client
import websockets.sync.server

import grpc_echo
from kit import Lictor, Web, http_raw, limit, read_head
from test_http import MIB, OK, users
from test_websocket import echo

MINUTES = int(os.environ.get("MINUTES", "10"))


@limit(60 * MINUTES + 120)
def test_quiet_streams_survive_reloads_and_endpoint_changes():
    """SSE, WebSocket and gRPC, a message a minute; the quiet minutes are what is tested."""
    events, asked = queue.Queue(), queue.Queue()

    def stream(connection, head):
        connection.sendall(OK + b"Content-Type: text/event-stream\r\n\r\n")
        for event in iter(events.get, None):
            connection.sendall(b"data: %s\n\n" % event)

    with contextlib.ExitStack() as stack:
        source = stack.enter_context(http_raw(stream))
        chat = stack.enter_context(websockets.sync.server.serve(echo, "127.0.0.1", 0, ping_interval=None))
        threading.Thread(target=chat.serve_forever, daemon=True).start()
        billing, spare = stack.enter_context(grpc_echo.Server()), stack.enter_context(Web())

        def config(other, more=()):
            """Three upstreams that have streams, with further endpoints, and one that has none."""
            quiet = {"listen": 0, "timeout": "5s"}
            chat_address = "127.0.0.1:%d" % chat.socket.getsockname()[1]
            return {"upstreams": {
                "events": quiet | {"static": [source.address, *more]},
                "chat": quiet | {"static": [chat_address, *more]},
                "billing": quiet | {"static": [billing.address, *more], "protocol": "grpc"},
                "other": {"listen": 0, "static": other},
            }}

        lictor = stack.enter_context(Lictor(**config([spare.address])))
        http = stack.enter_context(httpx.Client(timeout=None))
        answer = stack.enter_context(http.stream("GET", f"http://{lictor.address('events')}/"))
        lines = (line for line in answer.iter_lines() if line)
        socket = stack.enter_context(websockets.sync.client.connect(
            f"ws://{lictor.address('chat')}/", proxy=None, ping_interval=None))
        client = stack.enter_context(grpc_echo.Client(lictor.address("billing")))
        stack.callback(events.put, None)
        stack.callback(asked.put, None)
        answers = client.Chat(iter(asked.get, None))

        changes = [config(["127.0.0.1:1"]), config([spare.address], [spare.address]), config([spare.address])]
        for minute in range(MINUTES + 1):
            text = f"minute {minute}"
            events.put(text.encode())
            assert next(lines) == f"data: {text}"
            socket.send(text)
            assert socket.recv(10) == text
            asked.put(text.encode())
            assert next(answers) == text.encode()
            if minute < MINUTES:
                lictor.reload(**changes[minute % len(changes)])
                time.sleep(60)


def slowly(connection, head):
    """Reads an upload at about 20 MiB a second, or sends 1 GiB."""
    if head.startswith("GET"):
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % (1 << 30))
        for _ in range(1024):
            connection.sendall(bytes(MIB))
        return
    connection.sendall(OK + b"Content-Length: 10\r\n\r\n%10d" % drain(connection))


def drain(connection):
    """Reads 1 GiB at about 20 MiB a second."""
    buffer, got = bytearray(MIB), 0
    while got < 1 << 30:
        count = connection.recv_into(buffer, min(MIB, (1 << 30) - got))
        assert count, got
        got += count
        time.sleep(count / (20 * MIB))
    return got


@limit(400)
def test_memory_with_a_reader_that_is_slow_all_the_way():
    with http_raw(slowly) as server, users(server.address) as lictor, lictor.connect("users") as client:
        start = lictor.memory()
        client.sendall(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n")
        assert re.search(r"(?i)content-length: 1073741824", read_head(client))
        drain(client)
        client.settimeout(120)
        client.sendall(b"PUT / HTTP/1.1\r\nHost: users\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        for _ in range(1024):
            client.sendall(bytes(MIB))
        read_head(client)
        assert int(client.recv(10)) == 1 << 30
        grown = lictor.memory("VmHWM") - start
        assert grown < 8 * MIB, f"grew by {grown / MIB:.1f} MiB"
