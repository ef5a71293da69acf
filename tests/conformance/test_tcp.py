"""TCP: Redis, PostgreSQL and raw sockets."""

import contextlib
import functools
import glob
import os
import pathlib
import shutil
import socket
import threading
import time

import psycopg
import redis

import kit
from kit import Lictor, Raw, closed_port, eventually, limit, read_all


@contextlib.contextmanager
def tcp(*addresses, **options):
    """A lictor with one TCP upstream, and the host and port of its listener."""
    with Lictor(upstreams={"db": {"listen": 0, "protocol": "tcp", "static": list(addresses), **options}}) as lictor:
        host, port = lictor.address("db").rsplit(":", 1)
        yield lictor, host, int(port)


@functools.cache
def redis_server():
    """The port of a Redis that lives as long as the run."""
    port = kit.free_port()
    kit.daemon("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", kit.folder("redis"))
    eventually("redis listens", lambda: kit.accepts(port))
    return port


@functools.cache
def postgres():
    """The port of a PostgreSQL that lives as long as the run; it refuses to be root."""
    place, port = kit.folder("postgres"), kit.free_port()
    account = {}
    if os.getuid() == 0:
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(place, "nobody", "nogroup")
    found = shutil.which("initdb") or max(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    binaries = pathlib.Path(found).parent
    kit.run(binaries / "initdb", "-D", place / "data", "-U", "test", "-A", "trust", "--no-sync", cwd=place, **account)
    kit.daemon(binaries / "postgres", "-D", place / "data", "-p", port, "-h", "127.0.0.1", "-k", "", "-F",
               cwd=place, **account)

    def answers():
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=test dbname=postgres connect_timeout=2").close()
        except psycopg.OperationalError as error:
            raise AssertionError(error) from None
        return True

    eventually("postgres answers", answers, 20)
    return port


@contextlib.contextmanager
def redis_client(**options):
    """A Redis client through lictor."""
    with tcp(f"127.0.0.1:{redis_server()}") as (_, host, port):
        with redis.Redis(host=host, port=port, socket_timeout=10, **options) as client:
            yield client


@contextlib.contextmanager
def database():
    """A PostgreSQL connection through lictor."""
    port = postgres()
    with tcp(f"127.0.0.1:{port}") as (_, host, port):
        with psycopg.connect(host=host, port=port, user="test", dbname="postgres", connect_timeout=5) as connection:
            connection.execute("drop table if exists item")
            connection.execute("create table item (id int primary key, name text)")
            connection.commit()
            yield connection


def test_redis_set_and_get():
    with redis_client() as client:
        assert client.ping()
        assert client.set("key", b"\x00\r\n\xff") and client.get("key") == b"\x00\r\n\xff"
        assert client.get("none") is None


def test_redis_pipeline():
    with redis_client() as client, client.pipeline(transaction=False) as pipeline:
        for n in range(1000):
            pipeline.set(f"n{n}", n)
            pipeline.get(f"n{n}")
        assert pipeline.execute()[1::2] == [b"%d" % n for n in range(1000)]


def test_redis_publish_and_subscribe():
    with redis_client() as client, client.pubsub() as listener:
        listener.subscribe("news")
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        for n in range(10):
            assert client.publish("news", n) == 1
            assert listener.get_message(timeout=5)["data"] == b"%d" % n


def test_redis_value_of_10_mb():
    with redis_client() as client:
        value = os.urandom(10 << 20)
        client.set("large", value)
        assert client.get("large") == value


def test_redis_error_is_passed_on():
    with redis_client() as client:
        client.set("text", "x")
        try:
            got = client.incr("text")
        except redis.ResponseError as error:
            assert "not an integer" in str(error)
        else:
            raise AssertionError(got)


@limit(60)
def test_postgres_thousand_rows():
    with database() as connection, connection.cursor() as cursor:
        cursor.executemany("insert into item values (%s, %s)", [(n, f"item {n}") for n in range(1000)])
        assert cursor.execute("select count(*), sum(id), max(name) from item").fetchone() == (1000, 499500, "item 999")


def test_postgres_copy_both_ways():
    with database() as connection, connection.cursor() as cursor:
        with cursor.copy("copy item from stdin") as copy:
            for n in range(20_000):
                copy.write_row((n, f"copied {n}"))
        with cursor.copy("copy (select * from item order by id) to stdout") as copy:
            rows = list(copy.rows())
        assert len(rows) == 20_000 and rows[-1] == ("19999", "copied 19999")


def test_postgres_transaction():
    with database() as connection:
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            connection.execute("insert into item values (1, 'lost')")
            1 / 0
        with connection.transaction():
            connection.execute("insert into item values (2, 'kept')")
        assert connection.execute("select id, name from item").fetchall() == [(2, "kept")]


def test_postgres_error_leaves_the_connection_usable():
    with database() as connection:
        connection.autocommit = True
        try:
            connection.execute("select * from missing")
        except psycopg.errors.UndefinedTable as error:
            assert 'relation "missing" does not exist' in str(error)
        else:
            raise AssertionError("no error")
        assert connection.execute("select 1").fetchone() == (1,)


def test_postgres_notices_come_while_idle():
    with database() as listener, psycopg.connect(f"host=127.0.0.1 port={postgres()} user=test dbname=postgres",
                                                 autocommit=True) as other:
        listener.autocommit = True
        listener.execute("listen news")
        other.execute("notify news, 'hello'")
        assert next(listener.notifies(timeout=5)).payload == "hello"


def test_half_closed_by_the_client():
    """The server answers only after it has seen the end, and the answer still arrives."""

    def serve(connection):
        got = read_all(connection)
        connection.sendall(b"%d bytes" % len(got))

    with Raw(serve) as server, tcp(server.address) as (lictor, _, _), lictor.connect("db") as client:
        client.sendall(b"x" * 300_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"300000 bytes"


def test_half_closed_by_the_server():
    """The client sends only after it has seen the end, and the server still gets it."""
    got, done = [], threading.Event()

    def serve(connection):
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        got.append(read_all(connection))
        done.set()

    with Raw(serve) as server, tcp(server.address) as (lictor, _, _), lictor.connect("db") as client:
        assert read_all(client) == b"bye"
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert done.wait(5) and got == [b"last words"]


def test_server_speaks_first():
    def serve(connection):
        connection.sendall(b"220 ready\r\n")
        connection.sendall(connection.recv(100).upper())

    with Raw(serve) as server, tcp(server.address) as (lictor, _, _), lictor.connect("db") as client:
        assert client.recv(100) == b"220 ready\r\n"
        client.sendall(b"quit")
        assert client.recv(100) == b"QUIT"


def test_dead_instance_is_passed_over():
    with closed_port() as dead, Raw(lambda connection: connection.sendall(b"here")) as server:
        with tcp(dead, server.address, balance="round_robin") as (lictor, _, _):
            for _ in range(20):
                with lictor.connect("db") as client:
                    assert read_all(client) == b"here"


def test_no_instance_closes_the_connection():
    with closed_port() as dead, tcp(dead) as (lictor, _, _), lictor.connect("db") as client:
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_connections_are_balanced():
    counts = [0, 0, 0]

    def serve(index, connection):
        counts[index] += 1
        connection.sendall(b"x")

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Raw(functools.partial(serve, index))) for index in range(3)]
        lictor, _, _ = stack.enter_context(tcp(*(server.address for server in servers), balance="round_robin"))
        for _ in range(60):
            with lictor.connect("db") as client:
                assert read_all(client) == b"x"
        assert sum(counts) == 60 and all(16 <= count <= 24 for count in counts), counts


def test_quiet_connection_outlives_the_timeout():
    """`timeout` is for requests; the quiet period is what is tested."""

    def serve(connection):
        while got := connection.recv(100):
            connection.sendall(got)

    with Raw(serve) as server, tcp(server.address, timeout="1s") as (lictor, _, _), lictor.connect("db") as client:
        for _ in range(2):
            time.sleep(2)
            client.sendall(b"still there?")
            assert client.recv(100) == b"still there?"


def test_many_connections_at_once():
    def serve(connection):
        while got := connection.recv(65536):
            connection.sendall(got)

    with Raw(serve) as server, tcp(server.address) as (lictor, _, _), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lictor.connect("db")) for _ in range(100)]
        for n, client in enumerate(clients):
            client.sendall(b"%03d" % n)
        for n, client in enumerate(clients):
            assert client.recv(3) == b"%03d" % n


def test_detection_tells_http_from_tcp():
    """`protocol: auto` on one listener: HTTP goes as requests, the rest as bytes."""

    def serve(connection):
        got = connection.recv(65536)
        if got.startswith(b"GET"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        else:
            connection.sendall(got[::-1])

    with Raw(serve) as server, Lictor(upstreams={"any": {"listen": 0, "protocol": "auto",
                                                         "static": [server.address]}}) as lictor:
        assert "x-request-id" in kit.curl("-i", f"http://{lictor.address('any')}/").lower()
        with lictor.connect("any") as client:
            client.sendall(b"\x00\x01\x02binary")
            assert client.recv(100) == b"yranib\x02\x01\x00"
