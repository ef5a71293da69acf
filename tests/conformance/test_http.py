"""HTTP: curl, node, h2load, httpx and raw sockets against Python's http.server and raw servers."""

import asyncio
import contextlib
import json
import pathlib
import re
import subprocess
import threading
import time

import httpx

import kit
from kit import Echo, Lictor, Web, curl, http_raw, limit, read_all, read_head

OK = b"HTTP/1.1 200 OK\r\n"
HERE = pathlib.Path(__file__).parent


def users(address, **options):
    """A lictor with one HTTP upstream."""
    return Lictor(upstreams={"users": {"listen": 0, "static": [address], **options}})


@contextlib.contextmanager
def echo(**options):
    """A lictor before `Echo`, and its URL."""
    with Web() as web, users(web.address, **options) as lictor:
        yield lictor, f"http://{lictor.address('users')}"


@contextlib.contextmanager
def before(respond, **options):
    """A lictor before a raw server, and its URL."""
    with http_raw(respond) as server, users(server.address, **options) as lictor:
        yield lictor, f"http://{lictor.address('users')}"


def exchange(lictor, request):
    """What comes back for raw bytes, until the end."""
    with lictor.connect("users") as client:
        client.sendall(request)
        return read_all(client).decode("latin-1")


def read_chunked(connection):
    """A chunked body and its trailers as they came."""
    got = b""
    while not got.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in b"\r\n" + got:
        piece = connection.recv(65536)
        assert piece, got
        got += piece
    return got


def test_curl_http_1_1_and_1_0_and_2():
    with echo() as (_, url):
        # curl writes 1.0 as 1; a server may answer a 1.0 client with 1.1 (RFC 9110, section 2.5).
        for option, versions in (("--http1.1", "1.1"), ("--http1.0", "1 1.1"), ("--http2-prior-knowledge", "2")):
            got = curl(option, "-w", "\n%{http_code} %{http_version}", f"{url}/users/1?q=%20a", "-H", "X-Mine: yes")
            text, told = got.rsplit("\n", 1)
            seen = json.loads(text)
            assert seen["path"] == "/users/1?q=%20a", seen
            assert {name.lower(): value for name, value in seen["headers"]}["x-mine"] == "yes", seen
            assert told.split()[0] == "200" and told.split()[1] in versions.split(), told


def test_http_1_0_client_gets_a_body_it_can_end():
    """No chunks for a client that does not know them, and the connection is closed after it."""

    def stream(connection, head):
        connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")

    with before(stream) as (lictor, _):
        head, body = exchange(lictor, b"GET / HTTP/1.0\r\nHost: users\r\n\r\n").split("\r\n\r\n", 1)
        assert body == "hello" and "chunked" not in head.lower(), (head, body)


def test_every_method():
    with echo() as (_, url):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert json.loads(curl("-X", method, f"{url}/x"))["method"] == method
        seen = json.loads(curl("-d", "a=1&b=2", f"{url}/form"))
        assert (seen["method"], seen["body"]) == ("POST", 7)


def test_head_204_and_304():
    with echo() as (_, url):
        for option in ("--http1.1", "--http2-prior-knowledge"):
            head = curl(option, "--head", f"{url}/x")
            assert " 200" in head.splitlines()[0] and re.search(r"(?i)^content-length: \d\d", head, re.M), head
            assert " 204" in curl(option, "-i", f"{url}/status/204").splitlines()[0]
            head = curl(option, "-i", f"{url}/status/304")
            # RFC 9110, section 8.6: it may be missing, but is never another length than that of a 200.
            assert " 304" in head.splitlines()[0], head
            assert re.findall(r"(?i)content-length: (\d+)", head) in ([], ["5"]), head


def test_304_with_content_length_leaves_the_connection_usable():
    with echo() as (lictor, _):
        request = "GET %s HTTP/1.1\r\nHost: users\r\n%s\r\n"
        got = exchange(lictor, (request % ("/status/304", "") + request % ("/next", "Connection: close\r\n")).encode())
        assert re.findall(r"HTTP/1.1 (\d+)", got) == ["304", "200"], got


def test_expect_continue_answered_with_200():
    """curl holds the body back for 30 s unless it is told to go on."""
    body = kit.folder("body") / "body"
    body.write_bytes(b"x" * 100_000)
    with echo() as (_, url):
        began = time.monotonic()
        got = curl("-H", "Expect: 100-continue", "--expect100-timeout", 30, "-T", body, f"{url}/upload")
        assert json.loads(got)["body"] == 100_000 and time.monotonic() - began < 5


def test_expect_continue_answered_with_417():
    def refuse(connection, head):
        assert "expect: 100-continue" in head.lower(), head
        connection.sendall(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    with before(refuse) as (lictor, _):
        with lictor.connect("users") as client:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: users\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            head = read_head(client)
            if " 100 " in head.splitlines()[0]:
                client.sendall(b"hello")
                head = read_head(client)
            assert " 417 " in head.splitlines()[0], head


def test_chunked_upload_with_trailers():
    seen = []

    def collect(connection, head):
        seen.append((head, read_chunked(connection)))
        connection.sendall(OK + b"Content-Length: 2\r\n\r\nok")

    with before(collect) as (lictor, _):
        got = exchange(lictor, b"POST / HTTP/1.1\r\nHost: users\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
                               b"Connection: close\r\n\r\n5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n")
        assert got.endswith("ok"), got
        head, body = seen[0]
        assert b"hello" in body and b", world" in body and b"x-sum: 12" in body.lower(), body
        assert "transfer-encoding: chunked" in head.lower() and "content-length" not in head.lower(), head


def test_trailers_of_an_answer():
    def respond(connection, head):
        connection.sendall(OK + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")

    with before(respond) as (lictor, _):
        got = exchange(lictor, b"GET / HTTP/1.1\r\nHost: users\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
        assert "x-sum: 2" in got.lower().split("\r\n0\r\n")[1], got


def test_forward_proxy_in_absolute_form():
    with Web() as web, Lictor(upstreams={"users": {"static": [web.address]}}, outbound={"proxy": 0}) as lictor:
        seen = json.loads(curl("-x", f"http://{lictor.address('forward')}", "http://users/a?b=c"))
        assert seen["path"] == "/a?b=c", seen
        got = curl("-i", "-x", f"http://{lictor.address('forward')}", "http://strangers/")
        assert " 502 " in got.splitlines()[0] and "unknown_upstream" in got, got


def test_forward_proxy_with_connect():
    """`curl -p` opens a tunnel even for http."""
    with Web() as web, Lictor(upstreams={"users": {"static": [web.address]}}, outbound={"proxy": 0}) as lictor:
        proxy = f"http://{lictor.address('forward')}"
        assert json.loads(curl("-p", "-x", proxy, "http://users/a?b=c"))["path"] == "/a?b=c"
        many = curl("-p", "-x", proxy, "http://users/1", "http://users/2")
        assert '"/1"' in many and '"/2"' in many, many
        strangers = ["curl", "-sS", "-p", "-x", proxy, "http://strangers/"]
        refused = subprocess.run(strangers, capture_output=True, text=True, timeout=20)
        assert refused.returncode == 56 and "CONNECT" in refused.stderr, refused


def test_connection_close_is_honoured_and_not_passed_on():
    with echo() as (lictor, _):
        got = exchange(lictor, b"GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n")
        head, body = got.split("\r\n\r\n", 1)
        assert "connection: close" in head.lower(), head
        assert "Connection" not in dict(json.loads(body)["headers"]), body


def test_server_that_closes_each_connection():
    with before(lambda connection, head: connection.sendall(
            OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")) as (_, url):
        assert curl(*[f"{url}/{n}" for n in range(20)]) == "ok" * 20


def test_early_hints_never_break_an_answer():
    def respond(connection, head):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")
        connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")

    with before(respond) as (_, url):
        for option in ("--http1.1", "--http1.0", "--http2-prior-knowledge"):
            assert curl(option, "-w", "%{http_code}", url) == "ok200"


def test_node_clients():
    with echo() as (_, url):
        assert kit.run("node", HERE / "node_clients.js", "h1", url) == "fine\n"
        assert kit.run("node", HERE / "node_clients.js", "h2", url) == "fine\n"


def test_node_fetch():
    with echo() as (_, url):
        script = "fetch(process.argv[1]).then(r => r.json()).then(j => console.log(j.method, j.path))"
        assert kit.run("node", "-e", script, f"{url}/x") == "GET /x\n"


def test_pipelined_requests_are_answered_in_order():
    with echo() as (lictor, _):
        request = "GET /%d HTTP/1.1\r\nHost: users\r\n%s\r\n"
        got = exchange(lictor, "".join(request % (n, "Connection: close\r\n" * (n == 9)) for n in range(10)).encode())
        assert [int(n) for n in re.findall(r'"path": "/(\d)"', got)] == list(range(10)), got


def test_server_sent_events_arrive_one_by_one():
    """The second event is not sent before the first has been read."""
    go_on = threading.Event()

    def respond(connection, head):
        connection.sendall(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"a\r\ndata: one\n\r\n")
        assert go_on.wait(10)
        connection.sendall(b"a\r\ndata: two\n\r\n0\r\n\r\n")

    for options in ({"http1": True}, {"http1": False, "http2": True}):
        go_on.clear()
        with before(respond) as (_, url), httpx.Client(**options) as client, client.stream("GET", url) as answer:
            events = answer.iter_text()
            assert next(events) == "data: one\n"
            go_on.set()
            assert "".join(events) == "data: two\n"


def test_server_sent_events_outlive_the_timeout():
    """`timeout` is for requests; the quiet period is what is tested."""

    def respond(connection, head):
        connection.sendall(OK + b"Content-Type: text/event-stream\r\n\r\ndata: one\n\n")
        time.sleep(3)
        connection.sendall(b"data: two\n\n")

    with before(respond, timeout="1s") as (_, url):
        assert curl("-N", url) == "data: one\n\ndata: two\n\n"


def test_headers_of_60_kib():
    fields = [arg for n in range(60) for arg in ("-H", f"X-Large-{n}: {'v' * 1000}")]
    with echo() as (_, url):
        for option in ("--http1.1", "--http2-prior-knowledge"):
            seen = dict((name.lower(), value) for name, value in json.loads(curl(option, *fields, url))["headers"])
            assert all(seen[f"x-large-{n}"] == "v" * 1000 for n in range(60))


def test_answer_headers_of_60_kib():
    def respond(connection, head):
        connection.sendall(OK + b"".join(b"X-Large-%d: %s\r\n" % (n, b"v" * 1000) for n in range(60)))
        connection.sendall(b"Content-Length: 2\r\nConnection: close\r\n\r\nok")

    with before(respond) as (_, url):
        for option in ("--http1.1", "--http2-prior-knowledge"):
            assert curl(option, "-i", url).lower().count("x-large-") == 60


def test_header_case_is_kept():
    heads = []

    def respond(connection, head):
        heads.append(head)
        connection.sendall(OK + b"X-ODD-Case: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    with before(respond) as (lictor, _):
        got = exchange(lictor, b"GET / HTTP/1.1\r\nHost: users\r\nX-mIxEd: 1\r\nConnection: close\r\n\r\n")
        assert "X-ODD-Case: 1" in got and "X-mIxEd: 1" in heads[0], (got, heads)


def test_repeated_headers_stay_apart():
    def respond(connection, head):
        connection.sendall(OK + b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with before(respond) as (_, url):
        for option in ("--http1.1", "--http2-prior-knowledge"):
            assert curl(option, "-i", url).lower().count("set-cookie: ") == 2


def test_http_1_0_server_whose_body_ends_with_the_connection():
    def respond(connection, head):
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 200_000)

    with before(respond) as (_, url):
        for option in ("--http1.1", "--http1.0", "--http2-prior-knowledge"):
            assert curl(option, url) == "x" * 200_000


def test_truncated_answer_is_not_passed_off_as_whole():
    def respond(connection, head):
        connection.sendall(OK + b"Content-Length: 1000\r\n\r\npartial")

    with before(respond) as (_, url):
        for option, code in (("--http1.1", (18, 56)), ("--http2-prior-knowledge", (18, 56, 92))):
            done = subprocess.run(["curl", "-sS", option, url], capture_output=True, text=True, timeout=20)
            assert done.returncode in code, done


def test_python_http_server():
    class Old(Echo):
        protocol_version = "HTTP/1.0"

    with Web(Old) as web, users(web.address) as lictor, httpx.Client() as client:
        for n in range(50):
            assert client.get(f"http://{lictor.address('users')}/{n}").json()["path"] == f"/{n}"


def test_httpx_on_one_http2_connection():
    with echo() as (_, url), httpx.Client(http1=False, http2=True) as client:
        for n in range(50):
            assert client.post(f"{url}/{n}", content=b"x" * n).json()["body"] == n


def test_two_lictors_in_a_row():
    with echo() as (first, _), users(first.address("users")) as second:
        url = f"http://{second.address('users')}/x"
        assert json.loads(curl(url))["path"] == "/x"
        assert json.loads(curl("--http2-prior-knowledge", "-d", "abc", url))["body"] == 3


@limit(60)
def test_h2load_without_a_failure():
    with before(keep_answering) as (_, url):
        for options in (["-n2000", "-c4", "-m20"], ["-n2000", "-c4", "--h1"]):
            told = kit.run("h2load", *options, f"{url}/")
            counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
            assert counts and counts.groups() == ("2000", "0", "0", "0"), told
            assert re.search(r"status codes: 2000 2xx, 0 3xx", told), told


def keep_answering(connection, head):
    """One connection, many small answers: faster than http.server."""
    while True:
        connection.sendall(OK + b"Content-Length: 2\r\n\r\nok")
        read_head(connection)


@limit(60)
async def paths(url, options):
    """Not with threads: in those httpx may give two requests the same stream."""
    async with httpx.AsyncClient(**options, limits=httpx.Limits(max_connections=20)) as client:
        answers = await asyncio.gather(*(client.get(f"{url}/{n}", timeout=30) for n in range(300)))
        return [answer.json()["path"] for answer in answers]


def test_mixed_load_on_three_servers():
    """Twenty requests at a time; every answer is the one that was asked for."""
    with Web() as one, Web() as two, Web() as three:
        addresses = [one.address, two.address, three.address]
        with Lictor(upstreams={"users": {"listen": 0, "static": addresses}}) as lictor:
            url = f"http://{lictor.address('users')}"
            for options in ({"http1": True}, {"http1": False, "http2": True}):
                assert asyncio.run(paths(url, options)) == [f"/{n}" for n in range(300)]
            got = curl("--parallel", "--parallel-max", 20, f"{url}/[1-300]")
            assert sorted(map(int, re.findall(r'"path": "/(\d+)"', got))) == list(range(1, 301))


MIB = 1 << 20
BLOCK = bytes(MIB)


def swallow(connection, head):
    """Reads an upload, the first 64 MiB slowly, and says how much it was; or sends 1 GiB."""
    if head.startswith("GET"):
        connection.sendall(OK + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        for _ in range(1024):
            connection.sendall(BLOCK)
        return
    buffer = bytearray(MIB)
    got, length = 0, int(re.search(r"(?i)content-length: (\d+)", head)[1])
    while got < length:
        got += connection.recv_into(buffer)
        if got < 64 * MIB:
            time.sleep(0.001)
    connection.sendall(OK + b"Content-Length: 10\r\n\r\n%10d" % got)


@limit(180)
def test_memory_while_1_gib_goes_up_and_down():
    """Resident memory stays within 8 MiB of the start: a slow reader holds the sender back."""
    with before(swallow) as (lictor, url), lictor.connect("users") as client:
        start = lictor.memory()
        client.sendall(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n")
        head, buffer, got = read_head(client), bytearray(MIB), 0
        assert f"content-length: {1 << 30}" in head.lower(), head
        while got < 1 << 30:
            got += client.recv_into(buffer)
            if got < 64 * MIB:
                time.sleep(0.001)
        down = lictor.memory("VmHWM") - start
        client.sendall(b"PUT / HTTP/1.1\r\nHost: users\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        for _ in range(1024):
            client.sendall(BLOCK)
        read_head(client)
        assert int(client.recv(10)) == 1 << 30
        up = lictor.memory("VmHWM") - start
        assert down < 8 * MIB and up < 8 * MIB, f"grew by {down / MIB:.1f} MiB down, {up / MIB:.1f} MiB in all"
