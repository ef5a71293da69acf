"""Instructions of a whole request, for scripts/instructions.sh: `request.py LICTOR KIND COUNT` carries COUNT requests over one
connection, one after the other, by a lictor under callgrind, and prints the instructions that it took from its start to its end.
KIND is `get` or `post` through a sidecar's upstream; or get through a gateway: `gateway` with one route, `gateway_10000` with so
many, `gateway_asked` with one that has a token verified, a limit counted and CORS said."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

import gateway


def get(*fields):
    return "\r\n".join([
        "GET /users/42 HTTP/1.1", "Host: user-service", "User-Agent: curl/8.5.0", "Accept: application/json", "Accept-Encoding: gzip, deflate, br", *fields,
        "X-Tenant: 42", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", ""]).encode()


TOKEN = "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.XmNK3GpH3Ys_7wsYBfq4C3M6goz71I7dTgUkuIa5lyQ"
GET = get(TOKEN)
POST = GET.replace(b"GET /users/42", b"POST /users")[:-2] + b"Content-Type: application/json\r\nContent-Length: 4096\r\n\r\n" + b"p" * 4096
# Of each kind what is sent and what listens, by the address.
KINDS = {
    "get": (GET, None),
    "post": (POST, None),
    "gateway": (GET, lambda address: gateway.lictor(address, "user-service", is_asked=False)),
    "gateway_10000": (GET, lambda address: gateway.lictor(address, "user-service", gateway.ROUTES, is_asked=False)),
    "gateway_asked": (get(*gateway.HEADERS), lambda address: gateway.lictor(address, "user-service")),
}
ANSWER = b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: 100\r\n\r\n" + b"a" * 100


def read(connection, rest):
    """A whole message and what followed it; None at the end."""
    while True:
        head, found, body = rest.partition(b"\r\n\r\n")
        if found:
            length = re.search(rb"(?i)content-length: (\d+)", head)
            length = int(length.group(1)) if length else 0
            if len(body) >= length:
                return head, body[length:]
        more = connection.recv(65536)
        if not more:
            return None
        rest += more


def answer(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer_all, args=[connection], daemon=True).start()


def answer_all(connection):
    rest = b""
    while message := read(connection, rest):
        rest = message[1]
        connection.sendall(ANSWER)


def connect(port, process):
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 60)
        except ConnectionRefusedError:
            time.sleep(0.05)  # nothing else tells that it listens
    raise SystemExit("lictor does not listen")


def main():
    lictor, count = sys.argv[1], int(sys.argv[3])
    request, at_gateway = KINDS[sys.argv[2]]
    backend = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=answer, args=[backend], daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "lictor.yaml")
        with open(config, "w", encoding="utf-8") as file:
            listen = "" if at_gateway else f"listen: {port}, "
            file.write(f"service: bench\nregistration: off\nworkers: 1\nlog: {{access: off}}\nadmin: {{listen: '127.0.0.1:0'}}\n"
                       f"upstreams: {{user-service: {{{listen}static: ['127.0.0.1:{backend.getsockname()[1]}']}}}}\n"
                       + (at_gateway(f"127.0.0.1:{port}") if at_gateway else ""))
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", lictor, "serve", "-c", config]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            connection, rest = connect(port, process), b""
            for _ in range(count):
                connection.sendall(request)
                head, rest = read(connection, rest)
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise SystemExit(head.decode())
            connection.close()
            process.terminate()
            said = process.communicate(timeout=120)[1].decode()
    print(re.search(r"Collected : (\d+)", said).group(1))


if __name__ == "__main__":
    main()
