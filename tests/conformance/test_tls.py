"""TLS: Python's ssl, openssl and curl, with certificates that openssl made."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess

import kit
from kit import Lictor, Web, certificates, curl, http_raw, limit, read_all


def server_context(name="server", client_ca=None):
    """For a Python server with this certificate; with a CA, clients need one too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates() / f"{name}.pem", certificates() / f"{name}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates() / f"{client_ca}.pem")
    return context


def whoami(connection, head):
    """Says what TLS it came by, and with whose certificate."""
    subject = dict(part[0] for part in (connection.getpeercert() or {}).get("subject", ()))
    said = json.dumps({"tls": connection.version(), "client": subject.get("commonName")}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said) + said)


@contextlib.contextmanager
def origination(context, host="127.0.0.1", **tls):
    """A lictor that calls a Python TLS server; the URL."""
    with http_raw(whoami, tls=context) as server:
        upstream = {"listen": 0, "static": [f"{host}:{server.port}"], "tls": tls}
        with Lictor(upstreams={"secure": upstream}) as lictor:
            yield f"http://{lictor.address('secure')}/"


def refused(url):
    """The text of a 502 that lictor made."""
    got = curl("-i", url)
    assert " 502 " in got.splitlines()[0], got
    return got.lower()


def ca(name="ca"):
    """The path of a certificate."""
    return str(certificates() / f"{name}.pem")


def key(name):
    """The path of its key."""
    return str(certificates() / f"{name}.key")


def test_origination_with_the_ca():
    """The name that is verified is the address's host, or the one that is given."""
    for options in ({"host": "localhost"}, {"host": "127.0.0.1"}, {"server_name": "localhost"}):
        with origination(server_context(), ca=ca(), **options) as url:
            for version in ("--http1.1", "--http2-prior-knowledge"):
                assert json.loads(curl(version, url))["tls"] == "TLSv1.3"


def test_origination_with_tls_1_2():
    context = server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with origination(context, ca=ca()) as url:
        assert json.loads(curl(url))["tls"] == "TLSv1.2"


def test_origination_with_the_wrong_ca_is_502():
    with origination(server_context(), ca=ca("other-ca"), server_name="localhost") as url:
        got = refused(url)
        assert "tls" in got and "certificate" in got, got


def test_origination_to_another_name_is_502():
    with origination(server_context("wrong"), ca=ca(), server_name="localhost") as url:
        got = refused(url)
        assert "certificate" in got and "name" in got, got


def test_server_name_is_what_is_verified():
    with origination(server_context("wrong"), ca=ca(), server_name="elsewhere.test") as url:
        assert json.loads(curl(url))["tls"]


def test_origination_to_a_server_without_tls_is_502():
    with kit.Raw(lambda connection: connection.sendall(b"220 ready\r\n")) as server:
        upstream = {"listen": 0, "static": [server.address], "tls": {"ca": ca()}}
        with Lictor(upstreams={"secure": upstream}) as lictor:
            assert "tls" in refused(f"http://{lictor.address('secure')}/")


def test_client_certificate_is_given():
    with origination(server_context(client_ca="ca"), ca=ca(), cert=ca("client"), key=key("client")) as url:
        assert json.loads(curl(url))["client"] == "client"


def test_client_certificate_that_is_required_but_missing_is_502():
    with origination(server_context(client_ca="ca"), ca=ca()) as url:
        assert "reason" in refused(url)


def test_tcp_over_tls():
    def serve(connection):
        connection.sendall(b"hello " + connection.recv(100))
        connection.sendall(read_all(connection)[::-1])

    with kit.Raw(serve, tls=server_context()) as server:
        upstream = {"listen": 0, "protocol": "tcp", "static": [f"localhost:{server.port}"], "tls": {"ca": ca()}}
        with Lictor(upstreams={"db": upstream}) as lictor, lictor.connect("db") as client:
            client.sendall(b"you")
            assert client.recv(100) == b"hello you"
            client.sendall(b"abc" * 100_000)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"cba" * 100_000


@contextlib.contextmanager
def termination(**options):
    """A lictor whose listener has a certificate of its own copy: `(lictor, https URL, folder)`."""
    place = kit.folder("listener")
    for end in ("pem", "key"):
        shutil.copy(certificates() / f"server.{end}", place / f"own.{end}")
    listen = {"address": 0, "tls": {"cert": str(place / "own.pem"), "key": str(place / "own.key"), **options}}
    with Web() as web, Lictor(upstreams={"users": {"listen": listen, "static": [web.address]}}) as lictor:
        yield lictor, "https://localhost:" + lictor.address("users").rsplit(":", 1)[1], place


def test_termination_with_both_http_versions_by_alpn():
    with termination() as (_, url, _):
        for option, version in (("--http1.1", "1.1"), ("--http2", "2")):
            got = curl(option, "--cacert", ca(), "-w", "\n%{http_version}", f"{url}/x")
            text, told = got.rsplit("\n", 1)
            seen = json.loads(text)
            assert (seen["path"], told) == ("/x", version)
            assert {name.lower(): value for name, value in seen["headers"]}["x-forwarded-proto"] == "https", seen


def s_client(url, *options):
    """What `openssl s_client` says about a handshake."""
    done = subprocess.run(["openssl", "s_client", "-connect", url.removeprefix("https://"), "-CAfile", ca(), *options],
                          input="", capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def test_tls_1_2_and_1_3_only():
    with termination() as (_, url, _):
        for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            told = s_client(url, option)
            assert f"New, {version}" in told and "Verify return code: 0" in told, told
        lenient = server_context()
        lenient.minimum_version = ssl.TLSVersion.TLSv1
        lenient.set_ciphers("ALL:@SECLEVEL=0")
        with kit.Raw(lambda connection: None, tls=lenient) as control:
            for option, version in (("-tls1", "TLSv1"), ("-tls1_1", "TLSv1.1")):
                old = (option, "-cipher", "ALL:@SECLEVEL=0")
                told = s_client(f"localhost:{control.port}", *old)
                assert f"Protocol  : {version}\n" in told and "New, (NONE)" not in told, told
                told = s_client(url, *old)
                assert "New, (NONE)" in told and "no peer certificate" in told, told


def test_plain_text_to_a_tls_listener_is_refused():
    with termination() as (lictor, url, _):
        done = subprocess.run(["curl", "-sS", "--max-time", "5", url.replace("https", "http")], capture_output=True)
        assert done.returncode in (1, 52, 56), done
        assert json.loads(curl("--cacert", ca(), f"{url}/x"))["path"] == "/x"


@limit(60)
def test_replaced_certificate_is_used_within_5_s():
    """Without a reload; a connection from before stays."""

    def shown(port):
        context = ssl.create_default_context(cafile=ca())
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                return dict(part[0] for part in secure.getpeercert()["subject"])["commonName"]

    with termination() as (_, url, place):
        port = int(url.rsplit(":", 1)[1])
        assert shown(port) == "server"
        context = ssl.create_default_context(cafile=ca())
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as before:
                for end in ("key", "pem"):
                    shutil.copy(certificates() / f"second.{end}", place / "new")
                    (place / "new").rename(place / f"own.{end}")
                kit.eventually("the new certificate is shown", lambda: shown(port) == "second", 5)
                before.sendall(b"GET /x HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n")
                assert before.recv(100).startswith(b"HTTP/1.1 200")


def test_both_ends():
    """TLS on the listener and towards the upstream."""
    with http_raw(whoami, tls=server_context()) as server:
        listen = {"address": 0, "tls": {"cert": ca("server"), "key": key("server")}}
        upstream = {"listen": listen, "static": [f"localhost:{server.port}"], "tls": {"ca": ca()}}
        with Lictor(upstreams={"secure": upstream}) as lictor:
            url = "https://localhost:" + lictor.address("secure").rsplit(":", 1)[1]
            assert json.loads(curl("--cacert", ca(), url))["tls"] == "TLSv1.3"
