"""Bodies byte for byte: curl's uploads, h2load's POSTs, and nghttpd as an h2c callee."""

import contextlib
import hashlib
import os
import re
import subprocess

import kit
from kit import Echo, Lictor, Web, curl, limit

# None, one byte, what is kept for another attempt and a byte more, and far more than any buffer.
SIZES = (0, 1, 64 << 10, (64 << 10) + 1, 8 << 20)


class Digest(Echo):
    """Answers with the hash of the body, and how its length was told; 400 where the body is not what `X-Hash` says."""

    def do_POST(self):
        """Uploads of any method."""
        chunked = "Transfer-Encoding" in self.headers
        seen = hashlib.sha256(self._chunks() if chunked else self._sized()).hexdigest()
        text = f"{seen} {'chunked' if chunked else 'sized'} {self.headers.get('Expect', '-')}".encode()
        self.send_response(200 if self.headers.get("X-Hash", seen) == seen else 400)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST


def random_file(size):
    """A file of random bytes, and its hash."""
    path, content = kit.folder("body") / "body", os.urandom(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def digest():
    """The URL of a lictor before `Digest`."""
    with Web(Digest) as web, Lictor(upstreams={"users": {"listen": 0, "static": [web.address]}}) as lictor:
        yield f"http://{lictor.address('users')}"


def test_curl_uploads_with_a_length():
    with digest() as url:
        for size in SIZES:
            path, expected = random_file(size)
            for option in ("--http1.1", "--http1.0", "--http2-prior-knowledge"):
                for upload in (["-T", path], ["--data-binary", f"@{path}"]):
                    got = curl(option, "-H", "Expect:", "-H", f"X-Hash: {expected}", *upload, f"{url}/upload")
                    assert got.split()[:2] == [expected, "sized"], (size, option, upload[0], got)


def test_curl_uploads_of_unknown_length():
    """From standard input: chunks in HTTP/1.1, nothing but DATA frames in HTTP/2."""
    with digest() as url:
        for size in SIZES:
            path, expected = random_file(size)
            for option in ("--http1.1", "--http2-prior-knowledge"):
                with path.open("rb") as body:
                    got = kit.run("curl", "-sS", option, "-H", "Expect:", "-T", "-", f"{url}/upload", stdin=body)
                # A small body may be whole, and its length known, before lictor sends the head.
                forms = ["chunked"] if size == SIZES[-1] else ["chunked", "sized"]
                assert got.split()[0] == expected and got.split()[1] in forms, (size, option, got)


def test_curl_uploads_that_wait_for_100():
    """The body is held back for 30 s unless somebody says 100."""
    with digest() as url:
        for size in SIZES[1:]:
            path, expected = random_file(size)
            for upload in (["-T", path], ["-T", "-"]):
                with path.open("rb") as body:
                    told = subprocess.run(
                        ["curl", "-sSv", "--http1.1", "--max-time", "20", "-H", "Expect: 100-continue", "--expect100-timeout", "30",
                         *map(str, upload), f"{url}/upload"], stdin=body, capture_output=True, text=True, timeout=30)
                assert told.returncode == 0 and told.stdout.split()[0] == expected, (size, upload, told)
                assert re.search(r"^< HTTP/1.1 100", told.stderr, re.M), told.stderr


@limit(60)
def test_h2load_posts():
    """The callee answers 400 to a body that is not the one that was sent."""
    with digest() as url:
        for size in SIZES[1:4]:
            path, expected = random_file(size)
            for options in (["-n300", "-c4", "-m10"], ["-n300", "-c4", "--h1"]):
                told = kit.run("h2load", *options, "-d", path, "-H", f"X-Hash: {expected}", f"{url}/upload")
                assert_all(300, told)


def assert_all(count, told):
    """h2load saw this many answers, all of them 2xx."""
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    assert counts and counts.groups() == (str(count), "0", "0", "0"), told
    assert re.search(rf"status codes: {count} 2xx, 0 3xx", told), told


@contextlib.contextmanager
def nghttpd(*options):
    """A lictor before nghttpd, which speaks nothing but HTTP/2, and the folder that it serves."""
    place, port = kit.folder("htdocs"), kit.free_port()
    server = subprocess.Popen(["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={place}", *options, str(port)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kit.eventually("nghttpd listens", lambda: kit.accepts(port))
        upstream = {"listen": 0, "protocol": "h2c", "static": [f"127.0.0.1:{port}"]}
        with Lictor(upstreams={"users": upstream}) as lictor:
            yield f"http://{lictor.address('users')}", place
    finally:
        server.terminate()
        server.wait()


def test_nghttpd_answers():
    with nghttpd() as (url, place):
        for size in SIZES:
            path, _ = random_file(size)
            (place / str(size)).write_bytes(path.read_bytes())
            for option in ("--http1.1", "--http1.0", "--http2-prior-knowledge"):
                got = path.with_name("got")
                told = curl(option, "-o", got, "-w", "%{http_code} %{size_download}", f"{url}/{size}")
                assert told == f"200 {size}" and got.read_bytes() == path.read_bytes(), (size, option, told)
                head = curl(option, "--head", f"{url}/{size}")
                assert re.search(rf"(?i)^content-length: {size}\r?$", head, re.M), head
        assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{url}/nothing") == "404"


def test_nghttpd_gives_uploads_back():
    with nghttpd("--echo-upload") as (url, _):
        for size in SIZES:
            path, _ = random_file(size)
            for option in ("--http1.1", "--http2-prior-knowledge"):
                for upload in ("@" + str(path), "-"):
                    assert echoed(url, path, option, upload) == path.read_bytes(), (size, option, upload)


def echoed(url, path, option, upload):
    """What comes back for a POST from a file, or for a PUT from standard input."""
    what = ["-T", "-"] if upload == "-" else ["--data-binary", upload]
    with path.open("rb") as body:
        done = subprocess.run(["curl", "-sS", "--fail", "--max-time", "20", option, *what, f"{url}/echo"], stdin=body,
                              capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nghttpd_trailers():
    with nghttpd("--trailer=x-sum: 12") as (url, place):
        (place / "file").write_bytes(b"hello")
        node = """
            const client = require("node:http2").connect(process.argv[1]);
            const stream = client.request({ ":path": "/file", te: "trailers" });
            stream.resume();
            stream.on("trailers", (trailers) => { console.log(trailers["x-sum"]); client.close(); });
        """
        assert kit.run("node", "-e", node, url) == "12\n"
        # In HTTP/1.1 a body whose length was told has no place for trailers.
        assert curl("--http1.1", "-H", "TE: trailers", "-H", "Connection: TE", f"{url}/file") == "hello"


@limit(60)
def test_h2load_through_to_nghttpd():
    """Many streams on few connections, both ways, with and without a body."""
    with nghttpd() as (url, place):
        path, _ = random_file(20_000)
        (place / "file").write_bytes(path.read_bytes())
        for options in (["-m20"], ["--h1"], ["-m20", "-d", path], ["--h1", "-d", path]):
            told = kit.run("h2load", "-n1000", "-c4", *options, f"{url}/file")
            assert_all(1000, told)
            assert int(re.search(r"\((\d+)\) data$", told, re.M)[1]) == 1000 * 20_000, told
