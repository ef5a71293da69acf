"""WebSocket: the `websockets` library on both sides."""

import contextlib
import socket
import threading
import time

import websockets.sync.client
import websockets.sync.server
from websockets.exceptions import ConnectionClosed, InvalidStatus

import kit
from kit import Lictor, http_raw


def echo(connected):
    """Sends everything back, or closes when it is told to."""
    for message in connected:
        if message == "close":
            return connected.close(4001, "as you wish")
        connected.send(message)


@contextlib.contextmanager
def chat(handler=echo, server=None, upstream=None, **client):
    """A server, a lictor, and a connected client: `(client, lictor)`."""
    running = websockets.sync.server.serve(handler, "127.0.0.1", 0, **(server or {}))
    address = "127.0.0.1:%d" % running.socket.getsockname()[1]
    with running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with Lictor(upstreams={"chat": {"listen": 0, "static": [address], **(upstream or {})}}) as lictor:
            url = f"ws://{lictor.address('chat')}/talk"
            with websockets.sync.client.connect(url, proxy=None, open_timeout=5, **client) as connected:
                yield connected, lictor


def test_text_and_binary():
    with chat() as (client, _):
        for message in ("hello", "größe 日本", "", b"\x00\xff" * 100, b""):
            client.send(message)
            assert client.recv(5) == message


def test_many_messages_in_order():
    with chat() as (client, _):
        threading.Thread(target=lambda: [client.send(str(n)) for n in range(2000)], daemon=True).start()
        assert [client.recv(5) for _ in range(2000)] == [str(n) for n in range(2000)]


def test_message_of_1_mb():
    with chat(max_size=None, compression=None, server={"max_size": None}) as (client, _):
        message = bytes(range(256)) * (4 << 10)
        client.send(message)
        assert client.recv(10) == message


def test_fragments():
    with chat() as (client, _):
        client.send(iter(["a", "b", "c"]))
        assert client.recv(5) == "abc"


def test_ping_and_pong_from_both_sides():
    answered = threading.Event()

    def pinging(connected):
        if connected.ping(b"from the server").wait(5):
            answered.set()
        echo(connected)

    with chat(pinging) as (client, _):
        assert client.ping(b"from the client").wait(5)
        assert answered.wait(5)


def test_close_by_the_client_with_its_code():
    seen = []

    def noting(connected):
        with contextlib.suppress(ConnectionClosed):
            connected.recv()
        seen.append((connected.protocol.close_code, connected.protocol.close_reason))

    with chat(noting) as (client, _):
        client.close(4002, "enough")
        kit.eventually("the server has the code", lambda: seen == [(4002, "enough")])
        assert client.protocol.close_code == 4002


def test_close_by_the_server_with_its_code():
    with chat() as (client, _):
        client.send("close")
        try:
            got = client.recv(5)
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish")
        else:
            raise AssertionError(got)


def test_server_that_vanishes_closes_the_client():
    def vanish(connected):
        connected.recv()
        connected.socket.shutdown(socket.SHUT_RDWR)

    with chat(vanish) as (client, _):
        client.send("now")
        try:
            got = client.recv(5)
        except ConnectionClosed as closed:
            assert closed.rcvd is None
        else:
            raise AssertionError(got)


def test_client_that_vanishes_closes_the_server():
    ended = threading.Event()

    def noting(connected):
        with contextlib.suppress(ConnectionClosed):
            connected.recv()
        ended.set()

    with chat(noting) as (client, _):
        client.socket.shutdown(socket.SHUT_RDWR)
        assert ended.wait(5)


def test_head_of_the_101():
    with chat() as (client, _):
        head = client.response.headers
        assert client.response.status_code == 101
        assert (head["Upgrade"].lower(), head["Connection"].lower()) == ("websocket", "upgrade")
        assert len(head["Sec-WebSocket-Accept"]) == 28
        assert "Transfer-Encoding" not in head and "Content-Length" not in head


def test_subprotocol():
    with chat(server={"subprotocols": ["v2.chat", "v1.chat"]}, subprotocols=["v1.chat", "v3.chat"]) as (client, _):
        assert client.subprotocol == "v1.chat"


def test_headers_and_query_reach_the_server():
    seen = []

    def noting(connected):
        seen.append((connected.request.path, connected.request.headers.get("Authorization")))
        connected.send("noted")

    with chat(noting, additional_headers={"Authorization": "Bearer token"}) as (client, _):
        assert client.recv(5) == "noted"
        assert seen == [("/talk", "Bearer token")]


def test_permessage_deflate():
    with chat() as (client, _):
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        client.send("compressible " * 10_000)
        assert client.recv(5) == "compressible " * 10_000


def test_refused_upgrade_is_passed_on():
    def refuse(connected, request):
        return connected.respond(403, "not you\n")

    try:
        with chat(server={"process_request": refuse}):
            raise AssertionError("it was upgraded")
    except InvalidStatus as refused:
        assert (refused.response.status_code, refused.response.body) == (403, b"not you\n")


def test_quiet_connection_outlives_the_timeout():
    """`timeout` is for requests; the quiet period is what is tested."""
    with chat(upstream={"timeout": "1s"}, ping_interval=None, server={"ping_interval": None}) as (client, _):
        for _ in range(2):
            time.sleep(3)
            client.send("still there?")
            assert client.recv(5) == "still there?"


def test_bytes_right_after_the_101_are_not_lost():
    """The server's first frame is in the same packet as its head, and the client's in the same as its own."""

    def serve(connection, head):
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\nhello ")
        connection.sendall(connection.recv(5))

    with http_raw(serve) as server, Lictor(upstreams={"chat": {"listen": 0, "static": [server.address]}}) as lictor:
        with lictor.connect("chat") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\nearly")
            assert " 101 " in kit.read_head(client).splitlines()[0]
            assert kit.read_all(client) == b"hello early"
