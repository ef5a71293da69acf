"""Unix sockets: as a listener, and as where the application is."""

import json
import socket
import stat

import kit
from kit import Lictor, Web, curl


def test_unix_listener():
    path = kit.folder("unix") / "users.sock"
    with Web() as web, Lictor(upstreams={"users": {"listen": f"unix:{path}", "static": [web.address]}}):
        kit.eventually("the socket is there", path.exists)
        assert stat.S_ISSOCK(path.stat().st_mode)
        for option in ("--http1.1", "--http2-prior-knowledge"):
            assert json.loads(curl(option, "--unix-socket", path, "http://users/x?y=z"))["path"] == "/x?y=z"
        assert json.loads(curl("--unix-socket", path, "-d", "x" * 100_000, "http://users/"))["body"] == 100_000


def test_unix_listener_replaces_a_stale_socket():
    path = kit.folder("unix") / "users.sock"
    with Web() as web:
        config = {"upstreams": {"users": {"listen": f"unix:{path}", "static": [web.address]}}}
        for _ in range(2):  # the first is killed and leaves its socket behind
            with Lictor(**config):
                kit.eventually("it answers", lambda: answers(path))


def answers(path):
    """Whether a request through a unix socket gets an answer."""
    try:
        return json.loads(curl("--unix-socket", path, "http://users/x"))["path"] == "/x"
    except ValueError as error:
        raise AssertionError(error) from None


def test_application_on_a_unix_socket_behind_inbound():
    path = kit.folder("unix") / "app.sock"

    def respond(connection, head):
        line = head.splitlines()[0].encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(line) + line)

    with kit.http_raw(respond, path=path):
        with Lictor(service="users", app={"address": f"unix:{path}"}, inbound={"listen": 0}) as lictor:
            for n in range(5):
                assert curl(f"http://{lictor.address('inbound')}/item/{n}") == f"GET /item/{n} HTTP/1.1"


def test_tcp_through_a_unix_listener():
    path = kit.folder("unix") / "db.sock"
    with kit.Raw(lambda connection: connection.sendall(connection.recv(100).upper())) as server:
        upstream = {"listen": f"unix:{path}", "protocol": "tcp", "static": [server.address]}
        with Lictor(upstreams={"db": upstream}), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
