"""S1, services of gRPC in PHP and Go (examples/hybrid): REST in front of them, calls between them, alerts, what breaks, and what its own code got wrong."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

from kit import limit
from stack import INHERITED, TIME, Answer, Client, Load, Stack, alike, at_once, eventually, expect, free_port, registration, signed, until_refused
from stores import MariaDB, Postgres, Prometheus

PORTS = {"user-service": 50051, "order-service": 50052, "product-service": 50053, "payment-service": 50054}
# What a message is called where it is not the method's own.
HEALTH = ("health.proto", "grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")


@dataclasses.dataclass
class Called:
    """What became of a call: gRPC's status, and the answer as protoc writes it."""

    status: int
    message: str
    text: str


class Buyer(Client):
    """Over TLS, as all that ask the gateway; orders for itself."""

    @contextlib.contextmanager
    def kept(self):
        """What asks for a path, all the time on one connection."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, source_address=(self.source, 0), context=self.stack.tls)

        def asked(path):
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

        with contextlib.closing(connection):
            yield asked

    def orders(self, product, quantity=1):
        body = {"user_id": self.user["id"], "items": [{"product_id": product, "quantity": quantity}]}
        return self("POST", "/api/v1/orders", body)


class Hybrid(Stack):
    """The gateway, and two instances of each of the four services."""

    def __init__(self, keep):
        super().__init__("hybrid", keep)
        self.gateway_port, self.prometheus = self.port(8443), None
        self.tls = ssl.create_default_context(cafile=self.directory / "build/gateway.crt")

    def start_service(self, name, number=1, **environment):
        usual = PORTS[name]
        ports = {"PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": usual - 40_100}
        if name == "order-service":
            ports |= {"USERS_PORT": 9151, "PRODUCTS_PORT": 9153, "PAYMENTS_PORT": 9154}
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **{key: self.port(port) for key, port in ports.items()}, **environment)

    def start_all(self):
        self.start_consul()
        self.start_redis()
        password = secrets.token_hex(12)
        self.mariadb = MariaDB(self.port(3306), "shop", password)
        self.stores.append(self.mariadb)
        self.postgres = Postgres(self.port(5432), "shop", "shop")
        self.stores.append(self.postgres)
        self.environment |= {
            "DATA": self.data, "DB_HOST": "127.0.0.1", "DB_PORT": self.mariadb.port, "DB_PASSWORD": password, "POSTGRES_PORT": self.postgres.port,
            "INTERNAL_SERVICE_TOKEN": secrets.token_hex(16), "JWT_SECRET": secrets.token_hex(32),
            "LICTOR_BUILDING_BLOCKS_TOKEN": secrets.token_hex(16),
        }
        if not self.keep:
            self.environment |= {"CHECK_INTERVAL": "1s", "WORKERS": 3, "SAGA_TIMEOUT": 10, "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s"}
        for name in PORTS:
            for number in (1,) if self.keep else (1, 2):
                self.start_service(name, number)
        self.start("gateway", "lictor/api-gateway.yaml", GATEWAY_PORT=self.gateway_port, ADMIN_PORT=self.port(9950))
        self.is_whole()

    def token(self, **claims):
        """As whoever logs people in would sign it."""
        return signed(self.environment["JWT_SECRET"], {"exp": int(time.time()) + 3600} | claims)

    def somebody(self, user=None, **claims):
        """A client with these claims, or without a token."""
        return Buyer(self, {"Authorization": f"Bearer {self.token(**claims)}"} if claims else {}, user)

    def administrator(self, user=None):
        return self.somebody(user, sub="0", role="admin")

    def user(self):
        """A new user."""
        new = {"name": "Ada", "email": f"{secrets.token_hex(6)}@shop.example", "password": secrets.token_hex(8)}
        return expect(self.administrator()("POST", "/api/v1/users", new), 201)["user"]

    def buyer(self):
        """A new user's client."""
        user = self.user()
        return self.somebody(user, sub=str(user["id"]), role="buyer")

    def product(self, price=250, stock=5000):
        """The id of a new product; the source has no route that makes one."""
        made = self.postgres.ask(f"""insert into products (doc) values ('{{"name": "Cable", "price": {price}, "stock": {stock}}}') returning id""")
        return int(made.splitlines()[0])

    def stock(self, product):
        return expect(self.administrator()("GET", f"/api/v1/products/{product}"), 200)["product"]["stock"]

    def events(self, topic):
        """What has been published."""
        text = self.ask_redis("--json", "xrange", topic, "-", "+")
        return [json.loads(dict(zip(fields[::2], fields[1::2]))["payload"]) for _, fields in json.loads(text)]

    def call(self, port, method, request="", names=None, **headers):
        """A call of gRPC, its message as protoc reads texts; without any where that is None, which whoever answers before having read it needs."""
        package, name = method.split(".")[0], method.split("/")[1]
        file, asks, answers = names or (f"{package}.proto", f"{package}.{name}Request", f"{package}.{name}Response")
        command = ["curl", "-sS", "--max-time", "40", "--http2-prior-knowledge", "--ignore-content-length", "--dump-header", "/dev/stderr", "-X", "POST"]
        for key, value in ({"content-type": "application/grpc", "te": "trailers"} | headers).items():
            command += ["-H", f"{key.replace('_', '-')}: {value}"]
        frame = b""
        if request is not None:
            coded = self.protoc(request.encode(), f"--encode={asks}", file)
            command, frame = [*command, "--data-binary", "@-"], b"\0" + len(coded).to_bytes(4, "big") + coded
        done = subprocess.run([*command, f"http://127.0.0.1:{port}/{method}"], input=frame, env=INHERITED, capture_output=True, timeout=60)
        told = dict(re.findall(r"^(grpc-\w+): *(.*?)\r?$", done.stderr.decode(), re.MULTILINE))
        assert "grpc-status" in told, (port, method, done.stderr)
        text = self.protoc(done.stdout[5:], f"--decode={answers}", file).decode() if done.stdout else ""
        return Called(int(told["grpc-status"]), urllib.parse.unquote(told.get("grpc-message", "")), text)

    def protoc(self, text, what, file):
        command = ["protoc", "-I", self.directory / "proto", what, file]
        return subprocess.run(command, input=text, capture_output=True, check=True, timeout=20).stdout


SYSTEM = Hybrid


def told(shop):
    return f"""The shop is up; Ctrl-C stops it.
  gateway    curl --cacert examples/hybrid/build/gateway.crt https://localhost:{shop.gateway_port}/api/v1/products -H 'Authorization: Bearer {shop.token(sub="1", role="admin")}'
  Consul     http://localhost:{shop.consul.port}/ui
  dashboard  http://localhost:9950/ui (the gateway's; 9951 to 9953 the services')"""


# Shapes of the source: the messages of its services as JSON, with their names there; of gRPC's statuses; of what lictor says itself.
USER = {"id": int, "name": str, "email": str}
ITEM = {"product_id": int, "quantity": int}
ORDER = {"id": int, "user_id": int, "items": [ITEM], "total_amount": int, "status": "pending"}
PRODUCT = {"id": int, "name": str, "price": int, "stock": int}
OWN = {"status": "error", "message": str, "reason": str, "request_id": str, "timestamp": TIME}


def failed(answer, status, code, message):
    """A call that ended so: HTTP's status, gRPC's, and its message."""
    return expect(answer, status, {"code": code, "message": message, "details": list})


def refused(answer, status, reason):
    """What lictor answers itself."""
    return expect(answer, status, OWN | {"reason": reason})


# Routes


def test_users_routes(shop):
    admin = shop.administrator()
    email = f"{secrets.token_hex(6)}@shop.example"
    new = {"name": "Grace", "email": email, "password": "correct horse"}
    user = expect(admin("POST", "/api/v1/users", new), 201, {"user": USER | {"name": "Grace", "email": email}})["user"]
    expect(admin("GET", f"/api/v1/users/{user['id']}"), 200, {"user": user})
    expect(admin("GET", "/api/v1/users"), 200, {"users": [USER]})
    expect(admin("GET", "/api/v1/users/"), 200, {"users": [USER]})  # its router has it so
    later = expect(admin("GET", f"/api/v1/users?page_size=1&after={user['id'] - 1}"), 200, {"users": [USER]})
    assert later["users"] == [user], later
    failed(admin("GET", "/api/v1/users/999999"), 404, 5, "User not found")
    failed(admin("POST", "/api/v1/users", new), 409, 6, "Email is taken")
    for wrong, text in [
        ({"name": " "}, "name has 1 to 100 characters"), ({"email": "ada"}, "email is no address"), ({"password": "short"}, "password has 8 to 72 bytes"),
    ]:
        failed(admin("POST", "/api/v1/users", new | wrong), 400, 3, text)
    for body in ({"nick": "g"}, {"name": 7}, b"{", b"name=g"):  # what is no message never comes to the service
        refused(admin("POST", "/api/v1/users", body), 400, "bad_request")
    refused(admin("GET", "/api/v1/users/ada"), 400, "bad_request")
    stored = shop.mariadb.ask(f"select password from user_service.users where id = {user['id']}")
    assert stored.startswith("$2y$") and "correct" not in stored, stored


def test_orders_routes(shop):
    buyer, cable, plug = shop.buyer(), shop.product(price=250), shop.product(price=100, stock=3)
    items = [{"product_id": cable, "quantity": 4}, {"product_id": plug, "quantity": 2}]
    made = expect(buyer("POST", "/api/v1/orders", {"user_id": buyer.user["id"], "items": items}), 201, {"order": ORDER | {"user_id": buyer.user["id"], "total_amount": 1200}})
    assert made["order"]["items"] == items, made
    at = f"/api/v1/orders/{made['order']['id']}"
    assert expect(buyer("GET", at), 200) == made
    assert expect(buyer("GET", "/api/v1/orders"), 200) == {"orders": [made["order"]]}
    assert expect(shop.administrator()("GET", f"/api/v1/orders?user_id={buyer.user['id']}"), 200) == {"orders": [made["order"]]}
    expect(shop.buyer()("GET", "/api/v1/orders"), 200, {"orders": list})
    assert (shop.stock(cable), shop.stock(plug)) == (4996, 1)
    failed(shop.buyer()("GET", at), 404, 5, "Order not found")
    failed(buyer("GET", "/api/v1/orders/999999"), 404, 5, "Order not found")
    failed(buyer.orders(plug, 2), 400, 9, f"Product {plug} out of stock")
    failed(buyer.orders(999999), 400, 3, "Product 999999 not found")
    failed(buyer.orders(cable, 0), 400, 3, "quantity is 1 to 10000")
    failed(buyer("POST", "/api/v1/orders", {"user_id": buyer.user["id"], "items": []}), 400, 3, "items has 1 to 20 products")
    nobody = shop.administrator({"id": 999999})
    failed(nobody.orders(cable), 400, 3, "User not found")  # NOT_FOUND of the user service is INVALID_ARGUMENT here
    assert shop.stock(plug) == 1


def test_products_routes(shop):
    buyer, product = shop.buyer(), shop.product(price=4900, stock=7)
    wanted = {"id": product, "name": "Cable", "price": 4900, "stock": 7}
    expect(buyer("GET", f"/api/v1/products/{product}"), 200, {"product": wanted})
    expect(buyer("GET", "/api/v1/products"), 200, {"products": [PRODUCT]})
    expect(buyer("GET", f"/api/v1/products?after={product}"), 200, {"products": list})
    failed(buyer("GET", "/api/v1/products/999999"), 404, 5, "Product 999999 not found")
    for method in ("POST", "PUT", "DELETE"):  # its router has none
        refused(buyer(method, "/api/v1/products", {}), 404, "no_route")


def test_paths_without_a_route(shop):
    admin = shop.administrator()
    for path in ("/", "/api/v1", "/api/v1/payments", "/api/v2/users", "/api/v1/users/1/orders", "/health"):
        refused(admin("GET", path), 404, "no_route")
    for path in ("/user.UserService/GetUser", "/api/v1/users/user.UserService/GetUser", "/order.OrderService/CancelOrder"):  # no second door
        refused(admin("POST", path, {"id": 1}), 404, "no_route")


# Who asks, how often, and how


def test_401(shop):
    wrong = shop.token(sub="1")[:-4] + "AAAA"
    for method, path in [("GET", "/api/v1/users"), ("POST", "/api/v1/users"), ("GET", "/api/v1/orders/1"), ("POST", "/api/v1/orders"), ("GET", "/api/v1/products")]:
        client = shop.somebody()
        answer = client(method, path)
        refused(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), answer.headers.items()
        for token in (wrong, shop.token(sub="1", exp=int(time.time()) - 60)):
            refused(client(method, path, Authorization=f"Bearer {token}"), 401, "unauthenticated")


def test_403(shop):
    """By a rule of the gateway, and by the service's own: it knows who asks, from nobody but the gateway."""
    buyer, other, product = shop.buyer(), shop.buyer(), shop.product()
    refused(buyer("POST", "/api/v1/users", {"name": "Eve", "email": "eve@shop.example", "password": "12345678"}), 403, "forbidden")
    foreign = {"user_id": other.user["id"], "items": [{"product_id": product, "quantity": 1}]}
    failed(buyer("POST", "/api/v1/orders", foreign, X_User_ID=str(other.user["id"]), X_User_Role="admin"), 403, 7, "Another user's order")
    failed(buyer("GET", f"/api/v1/orders?user_id={other.user['id']}"), 403, 7, "Another user's orders")
    assert shop.stock(product) == 5000


@limit(120)
def test_429(shop):
    """1000 in 60 s. An address is counted before anybody is asked who he is, as whoever guesses tokens asks often."""
    with shop.somebody().kept() as asked:
        refusal = until_refused(lambda: asked("/api/v1/users"), 1000)
    refused(refusal, 429, "rate_limited")
    assert int(refusal.headers["Retry-After"]) >= 1 and refusal.headers["RateLimit-Limit"] == "1000", refusal.headers.items()
    refused(shop.somebody()("GET", "/api/v1/users"), 401, "unauthenticated")  # another address


def test_http2_over_tls(shop):
    """Its gateway speaks HTTP/2 over TLS on 8443; who speaks HTTP/1.1 over TLS is served too, and nobody without."""
    own = ssl.create_default_context(cafile=shop.directory / "build/gateway.crt")
    for offered, chosen in [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")]:
        own.set_alpn_protocols(offered)
        with socket.create_connection(("127.0.0.1", shop.gateway_port), 10) as plain, own.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.selected_alpn_protocol() == chosen, (offered, secure.selected_alpn_protocol())
    command = [
        "curl", "-sS", "--max-time", "20", "--http2", "--cacert", shop.directory / "build/gateway.crt", "-w", "\n%{http_version} %{http_code}",
        "-H", f"Authorization: Bearer {shop.token(sub='1')}", f"https://localhost:{shop.gateway_port}/api/v1/products?page_size=1",
    ]
    done = subprocess.run(command, env=INHERITED, capture_output=True, text=True, timeout=30)
    body, _, how = done.stdout.rpartition("\n")
    assert how == "2 200", done
    alike(json.loads(body), {"products": [PRODUCT]})
    with socket.create_connection(("127.0.0.1", shop.gateway_port), 10) as plain:
        plain.sendall(b"GET /api/v1/products HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"products" not in plain.recv(4096)


# Between services


def test_calls_of_grpc(shop):
    """Statuses and messages as the services give them, through the listener that order calls at and at the services themselves."""
    orders = shop.services["order-service-1"].variables
    user, product = shop.user(), shop.product(stock=2)
    called = shop.call(orders["USERS_PORT"], "user.UserService/GetUser", f"id: {user['id']}")
    assert called.status == 0 and f'email: "{user["email"]}"' in called.text, called
    called = shop.call(orders["USERS_PORT"], "user.UserService/GetUser", "id: 999999")
    assert (called.status, called.message) == (5, "User not found"), called
    called = shop.call(orders["PRODUCTS_PORT"], "product.ProductService/CheckInventory", f"product_id: {product} quantity: 2")
    assert called.status == 0 and "available: true" in called.text, called
    called = shop.call(orders["PRODUCTS_PORT"], "product.ProductService/CheckInventory", f"product_id: {product} quantity: 3")
    assert called.status == 0 and "available" not in called.text, called
    for name in PORTS:
        port = shop.services[f"{name}-1"].variables["PORT"]
        called = shop.call(port, "grpc.health.v1.Health/Check", names=HEALTH)
        assert (called.status, called.text.strip()) == (0, "status: SERVING"), called
        package, service = name.split("-")[0], name.split("-")[0].capitalize()
        called = shop.call(port, f"{package}.{service}Service/No", None, names=HEALTH)
        assert called.status == 12, called


def test_an_order_is_cancelled_once(shop):
    """What its saga would undo: cancelling gives back what was deducted, once, and asking again for the order is too late."""
    buyer, product = shop.buyer(), shop.product(stock=10)
    order = expect(buyer.orders(product, 4), 201)["order"]["id"]
    variables = shop.services["order-service-1"].variables
    for _ in range(2):
        called = shop.call(variables["PORT"], "order.OrderService/CancelOrder", f"id: {order}")
        assert called.status == 0 and 'status: "cancelled"' in called.text, called
        assert shop.stock(product) == 10
    late = f"order_id: {order} items {{ product_id: {product} quantity: 4 }}"
    called = shop.call(variables["PRODUCTS_PORT"], "product.ProductService/DeductInventory", late)
    assert (called.status, called.message) == (9, f"Order {order} is cancelled"), called
    first = f"order_id: {10**9 + order} items {{ product_id: {product} quantity: 3 }}"
    for _ in range(2):  # sent again, it is done once
        assert shop.call(variables["PRODUCTS_PORT"], "product.ProductService/DeductInventory", first).status == 0
    assert shop.stock(product) == 7


def test_an_order_that_cannot_be_filled_does_not_stay_pending(shop):
    """Many find the last ones in stock, and one gets them. (The source's order stayed pending then.)"""
    buyer, product = shop.buyer(), shop.product(stock=5)
    answers = at_once(6, lambda: buyer.elsewhere().orders(product, 5))
    assert sorted(answer.status for answer in answers) == [201] + [400] * 5, answers
    for answer in answers:
        if answer.status == 400:
            failed(answer, 400, 9, f"Product {product} out of stock")
    orders = expect(buyer("GET", "/api/v1/orders"), 200)["orders"]
    assert [order["status"] for order in orders].count("pending") == 1, orders
    assert {order["status"] for order in orders} <= {"pending", "cancelled"} and shop.stock(product) == 0


def test_an_order_that_cannot_be_paid_is_undone(shop):
    """The last step of its saga is refused: the items are in stock again, and the order is cancelled. How much may be paid is configuration."""
    buyer, product, key = shop.buyer(), shop.product(stock=1000), "/v1/kv/config/payment-service"
    payments = lambda: shop.mariadb.ask(f"select amount, status from payment_service.payments where user_id = {buyer.user['id']}").split("\n")
    expect(buyer.orders(product, 5), 201)
    shop.consul.ask(key, "PUT", {"max_amount": 1000})
    try:
        answer = eventually("it is in force", lambda: (answer := buyer.orders(product, 5)).status != 201 and answer)
        failed(answer, 400, 9, "Payment of 1250 is refused")
        expect(buyer.orders(product, 4), 201)
    finally:
        shop.consul.ask(key, "DELETE")
    orders = expect(buyer("GET", "/api/v1/orders"), 200)["orders"]
    whole = [order for order in orders if order["status"] == "pending"]
    assert shop.stock(product) == 1000 - sum(order["items"][0]["quantity"] for order in whole), orders
    assert [order["status"] for order in orders][-2:] == ["cancelled", "pending"], orders
    charged = [f"{order['total_amount']}\tcharged" for order in whole]
    assert [line for line in payments() if "charged" in line] == charged, payments()


@limit(120)
def test_an_instance_ends_within_a_saga(shop):
    """A deploy lets it come to its end; after a crash another instance undoes what was done. (The source's saga was gone with its process.)"""
    for how, status, payment, left in [("terminate", "pending", "1000\tcharged", 6), ("kill", "cancelled", "", 10)]:
        buyer, product, first = shop.buyer(), shop.product(stock=10), shop.services["order-service-1"]
        asked, called = f"user_id: {buyer.user['id']} items {{ product_id: {product} quantity: 4 }}", []
        with contextlib.ExitStack() as ends:
            for number in (1, 2):
                ends.enter_context(shop.services[f"payment-service-{number}"].paused())
            client = threading.Thread(target=lambda: called.append(order_at(shop, first, asked)))
            client.start()
            eventually("it waits to be paid", lambda: shop.stock(product) == 6)
            {"terminate": first.process.terminate, "kill": first.kill}[how]()
            eventually("it leaves", lambda: first.said(kind="stopping") or not first.is_alive())
        client.join()
        assert called == [0 if how == "terminate" else None], called
        first.end()
        shop.back(first.name)
        orders = lambda: [order["status"] for order in expect(buyer.elsewhere()("GET", "/api/v1/orders"), 200)["orders"]]
        paid = lambda: shop.mariadb.ask(f"select amount, status from payment_service.payments where user_id = {buyer.user['id']} and status = 'charged'")
        eventually("it is whole", lambda: (orders(), paid(), shop.stock(product)) == ([status], payment, left), 40)


def order_at(shop, service, asked):
    """gRPC's status of an order at an instance; None: nobody has answered."""
    with contextlib.suppress(AssertionError):
        shown = {"X-Service-Auth": shop.environment["INTERNAL_SERVICE_TOKEN"]}
        return shop.call(service.variables["INBOUND_PORT"], "order.OrderService/CreateOrder", asked, **shown).status


def test_events_are_published(shop):
    buyer, product = shop.buyer(), shop.product(price=300)
    order = expect(buyer.orders(product, 2), 201)["order"]
    alike([event for event in shop.events("user.created") if event["user_id"] == buyer.user["id"]], [{"user_id": buyer.user["id"], "email": str}])
    (event,) = [event for event in shop.events("order.created") if event["order_id"] == order["id"]]
    alike(event, {"order_id": order["id"], "user_id": buyer.user["id"], "total_amount": 600})


def test_one_trace_and_one_id_through_metadata(shop):
    """`traceparent` goes along in the metadata of each call; the source's own began a trace where it had none."""
    buyer, product, trace, id = shop.buyer(), shop.product(), secrets.token_hex(16), "hybrid-" + secrets.token_hex(8)
    body = {"user_id": buyer.user["id"], "items": [{"product_id": product, "quantity": 1}]}
    expect(buyer("POST", "/api/v1/orders", body, traceparent=f"00-{trace}-00f067aa0ba902b7-01", X_Request_ID=id), 201)
    methods = {
        "order-service": ["order.OrderService/CreateOrder"], "user-service": ["user.UserService/GetUser"],
        "product-service": ["product.ProductService/CheckInventory", "product.ProductService/DeductInventory"],
        "payment-service": ["payment.PaymentService/Charge"],
    }
    eventually("the gateway has it", lambda: shop.services["gateway"].said(trace_id=trace, request_id=id, path="/api/v1/orders", status=201))
    for service, paths in methods.items():
        instances = [shop.services[f"{service}-{number}"] for number in (1, 2)]
        for path in paths:
            wanted = {"trace_id": trace, "request_id": id, "path": f"/{path}", "direction": "inbound"}
            eventually(f"{service} has {path}", lambda: any(one.said(**wanted) for one in instances))


def test_metrics_of_the_source(shop):
    buyer, product = shop.buyer(), shop.product()
    orders = [shop.services[f"order-service-{number}"] for number in (1, 2)]
    total = lambda metric, **labels: sum(one.metric(metric, **labels) for one in orders)
    user = {"service": "user-service", "method": "/user.UserService/GetUser"}
    before = [total("grpc_requests_total", **user, status=status) for status in ("success", "error")]
    expect(buyer.orders(product), 201)
    nobody = shop.administrator({"id": 999999})
    expect(nobody.orders(product), 400)
    now = lambda: [total("grpc_requests_total", **user, status=status) for status in ("success", "error")]
    eventually("both are counted", lambda: now() == [before[0] + 1, before[1] + 1])
    assert total("grpc_request_duration_seconds_count", **user) == sum(before) + 2
    assert total("grpc_requests_total", service="product-service", method="/product.ProductService/CheckInventory", status="success") >= 1
    for name in ("user-service", "product-service"):
        assert f'circuit_breaker_state{{name="{name}"}} 0' in orders[0].admin("/metrics").body.decode(), name


def test_every_call_is_balanced(shop):
    """Clients that live long: calls of one connection go to all instances, on connections that are kept."""
    services = [shop.services[f"product-service-{number}"] for number in (1, 2)]
    counts = lambda: [service.metric("grpc_requests_total", method="/product.ProductService/ListProducts") for service in services]
    before = counts()
    with shop.administrator().kept() as asked:
        for _ in range(40):
            expect(asked("/api/v1/products?page_size=1"), 200)
    eventually("all are counted", lambda: sum(counts()) - sum(before) == 40)
    assert min(now - then for now, then in zip(counts(), before)) >= 5, (before, counts())
    assert shop.services["gateway"].metric("lictor_upstream_connections", upstream="product-service") <= 8  # a few of each worker


# Documents, registration, configuration


def test_health_and_ready_documents(shop):
    """The source has gRPC's health check alone; lictor's pages are beside it."""
    for name in PORTS:
        service = shop.services[f"{name}-1"]
        body = expect(service.admin("/health"), 200)
        assert (body["status"], body["service"]) == ("healthy", name) and body["version"] == "1.0.0", body
        expect(service.admin("/ready"), 200)
    body = expect(shop.services["order-service-1"].admin("/ready"), 200)
    for needed in ("user-service", "product-service"):
        check = body["checks"][needed]
        assert (check["status"], check["message"], check["required"]) == ("ready", "2 healthy instances found", True), check


def test_d20_a_service_is_registered_for_as_long_as_it_is_there(shop):
    """D20: deregistered at another agent than it was registered with. And its shutdown function did not run on SIGTERM: each stop left a ghost."""
    with shop.consul.recorded() as (port, asked):
        with shop.another("user-service", CONSUL_PORT=port) as service:
            body, check = registration(asked)
            ports = service.variables
            alike({key: body[key] for key in ("Name", "Address", "Port")}, {"Name": "user-service", "Address": "127.0.0.1", "Port": ports["INBOUND_PORT"]})
            assert {"grpc", "user"} <= set(body["Tags"]) and (body["Meta"]["version"], body["Meta"]["protocol"]) == ("1.0.0", "grpc"), body
            wanted = {"GRPC": f"127.0.0.1:{ports['PORT']}", "Interval": "1000ms", "Timeout": "5000ms"}
            alike({key: check[key] for key in wanted}, wanted)
            assert body["ID"] == service.id and body["ID"] in shop.consul.instances("user-service"), body["ID"]
        assert f"/v1/agent/service/deregister/{body['ID']}" in [path for method, path, _ in asked if method == "PUT"], asked
        assert body["ID"] not in shop.consul.instances("user-service", passing=False)


def test_numbers_and_ports_of_the_source(shop):
    for name, port in PORTS.items():
        code, text = shop.lictor("config", "-c", f"lictor/{name}.yaml", LICTOR_BUILDING_BLOCKS_TOKEN=secrets.token_hex(16))
        assert code == 0 and re.search(rf"^app\.port: {port}$", text, re.MULTILINE), (name, text)
        assert "\nregistration.checks[0].interval: 10s\n" in text and "\nregistration.checks[0].timeout: 5s\n" in text, text
    code, text = shop.lictor("config", "-c", "lictor/order-service.yaml", CONSUL_HOST="consul", LICTOR_BUILDING_BLOCKS_TOKEN=secrets.token_hex(16))
    assert code == 0, text
    for line in ("breaker.failure_threshold: 5", "breaker.success_threshold: 3", "breaker.recovery_timeout: 30s"):
        assert f"\ndefaults.{line}\n" in text, (line, text)
    assert "\nconsul.address: http://consul:8500\n" in text, text
    code, text = shop.lictor("config", "-c", "lictor/api-gateway.yaml", JWT_SECRET=shop.environment["JWT_SECRET"])
    assert code == 0 and "127.0.0.1:8443" in text and "1000/60s" in text, text


def test_configuration_from_kv(shop):
    """A key of Consul's changes how calls are made, while they are; its removal takes that back."""
    orders, key = shop.services["order-service-1"], "/v1/kv/lictor/order-service/config"
    threshold = lambda: orders.admin("/config?origin=1").json()["defaults.breaker.failure_threshold"]
    assert str(threshold()["value"]) == "5", threshold()
    shop.consul.ask(key, "PUT", b"defaults: {breaker: {failure_threshold: 7}}")
    try:
        eventually("it is in force", lambda: str(threshold()["value"]) == "7" and threshold()["origin"].startswith("kv:"))
    finally:
        shop.consul.ask(key, "DELETE")
    eventually("it is as it was", lambda: str(threshold()["value"]) == "5")


def test_a_service_watches_its_configuration(shop):
    """`config/order-service`: what is changed there is in force in each instance, and nothing is started again. What does not do is as if it were not there."""
    product, services = shop.product(), [shop.services[f"order-service-{number}"] for number in (1, 2)]
    before = [service.family() for service in services]
    asked = f"user_id: {shop.user()['id']} items {{ product_id: {product} quantity: 20000 }}"
    refusals = lambda: {shop.call(service.variables["PORT"], "order.OrderService/CreateOrder", asked).message for service in services}
    assert refusals() == {"quantity is 1 to 10000"}
    try:
        for value, most in [({"max_quantity": 3}, 3), ({"max_quantity": 4, "other": None}, 4), ({"max_quantity": "many"}, 10000), ({"max_quantity": 5}, 5), ("text", 10000)]:
            shop.consul.ask("/v1/kv/config/order-service", "PUT", value if isinstance(value, dict) else value.encode())
            eventually(f"{value} is in force", lambda: refusals() == {f"quantity is 1 to {most}"})
        shop.consul.ask("/v1/kv/config/order-service", "PUT", {"max_quantity": 6})
        eventually("it is in force", lambda: refusals() == {"quantity is 1 to 6"})
    finally:
        shop.consul.ask("/v1/kv/config/order-service", "DELETE")
    eventually("the default is", lambda: refusals() == {"quantity is 1 to 10000"})
    assert [service.family() for service in services] == before


# Alerts, in a Prometheus


def watching(shop):
    """The Prometheus of these tests, once it sees all services and nothing to complain about."""
    if not shop.prometheus:
        services = [service.variables["ADMIN_PORT"] for name, service in shop.services.items() if name != "gateway"]
        targets = {"grpc-services": services, "lictor": [shop.services["gateway"].variables["ADMIN_PORT"]]}
        shop.prometheus = Prometheus(shop.port(9090), [shop.directory / "alerts.yml"], targets)
        shop.stores.append(shop.prometheus)
    eventually("it sees all, and is content", lambda: shop.prometheus.value("sum(up)") == len(shop.services) and not THREE & shop.prometheus.known(), 60)
    return shop.prometheus


THREE = {"ServiceDown", "HighErrorRate", "CircuitBreakerOpen"}


@limit(180)
def test_three_alerts_of_the_source(shop):
    prometheus, buyer, product = watching(shop), shop.buyer(), shop.product()
    expect(buyer.orders(product), 201)  # so that it may be done without the user service
    names = ("user-service-1", "user-service-2")
    ports = {f"127.0.0.1:{shop.services[name].variables['ADMIN_PORT']}" for name in names}
    with users_down(shop), Load(lambda number: buyer.elsewhere().orders(product), clients=2, pause=0.1):
        eventually("all three fire", lambda: THREE <= {alert["alertname"] for alert in prometheus.firing()}, 60)
        alerts = prometheus.firing()
        assert {alert["instance"] for alert in alerts if alert["alertname"] == "ServiceDown"} == ports, alerts
        assert {alert["severity"] for alert in alerts if alert["alertname"] == "ServiceDown"} == {"critical"}, alerts
        assert {alert["service"] for alert in alerts if alert["alertname"] == "HighErrorRate"} == {"user-service"}, alerts
        assert {alert["name"] for alert in alerts if alert["alertname"] == "CircuitBreakerOpen"} == {"user-service"}, alerts
    eventually("they are over", lambda: not THREE & prometheus.known(), 60)


@limit(120)
def test_d18_errors_are_a_share_of_the_calls(shop):
    """D18: `rate(..{status="error"}[5m]) > 0.1` is errors a second, so a busy service that is well has it. Its own rule is kept; the share is beside it."""
    prometheus, admin, user = watching(shop), shop.administrator(), shop.user()["id"]
    calls = itertools.count(1)

    def one_of_many(_):
        answer = admin.elsewhere()("GET", f"/api/v1/users/{999999 if next(calls) % 40 == 0 else user}")
        return dataclasses.replace(answer, status=200 if answer.status == 404 else answer.status)

    with Load(one_of_many) as load:
        eventually("errors a second are many", lambda: "HighErrorRate" in {alert["alertname"] for alert in prometheus.firing()}, 60)
        assert "GrpcErrorRatioHigh" not in prometheus.known(), prometheus.firing()
    assert not load.failed, load.failed[:5]
    with Load(lambda _: dataclasses.replace(admin.elsewhere()("GET", "/api/v1/users/999999"), status=200), clients=2):
        eventually("the share is large", lambda: "GrpcErrorRatioHigh" in {alert["alertname"] for alert in prometheus.firing()}, 60)


# What breaks


@contextlib.contextmanager
def users_down(shop):
    """Both instances of the user service are killed, and nobody is where Consul knows a third; at the end they are back, and called."""
    port = free_port()
    gone = {"ID": f"user-service-gone-{port}", "Name": "user-service", "Address": "127.0.0.1", "Port": port, "Meta": {"protocol": "grpc"}}
    shop.consul.ask("/v1/agent/service/register", "PUT", gone)
    with shop.gone("user-service-1", "user-service-2"):
        try:
            yield
        finally:
            shop.consul.ask(f"/v1/agent/service/deregister/{gone['ID']}", "PUT")
    admin = shop.administrator()
    eventually("users are there again", lambda: admin("GET", "/api/v1/users?page_size=1").status == 200, 40)
    for number in (1, 2):
        orders = shop.services[f"order-service-{number}"]
        port = orders.variables["USERS_PORT"]
        closed = lambda: shop.call(port, "user.UserService/ListUsers").status == 0 and orders.metric("circuit_breaker_state", name="user-service") == 0
        eventually("its breaker is closed", closed, 40)


def bought(buyer, product):
    """One order after the other, from many addresses."""
    return lambda number: buyer.elsewhere().orders(product)


@limit(120)
def test_an_instance_is_killed_under_load(shop):
    """Orders are taken all the while, and each is deducted once: calls that may be sent again are."""
    buyer, product = shop.buyer(), shop.product(stock=100_000)
    with Load(bought(buyer, product)) as load:
        for name in ("product-service-1", "user-service-2"):
            shop.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])
    assert shop.stock(product) == 100_000 - load.answers


@limit(120)
def test_an_instance_that_clients_ask_is_killed_under_load(shop):
    buyer, product = shop.buyer(), shop.product()
    order = expect(buyer.orders(product), 201)["order"]["id"]
    paths = [f"/api/v1/orders/{order}", f"/api/v1/users/{buyer.user['id']}", f"/api/v1/products/{product}", "/api/v1/orders"]
    with Load(lambda number: buyer.elsewhere()("GET", paths[number % 4])) as load:
        for name in ("order-service-1", "product-service-2"):
            shop.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


@limit(120)
def test_instances_are_replaced_under_load(shop):
    """Nobody notices: neither who orders, which may not be sent twice, nor the stock."""
    buyer, product = shop.buyer(), shop.product(stock=100_000)
    with Load(bought(buyer, product)) as load:
        for name in ("user-service-1", "order-service-2", "product-service-2"):
            shop.replaced(name, load)
    assert not load.failed, (load.answers, load.failed[:5])
    assert shop.stock(product) == 100_000 - load.answers


@limit(120)
def test_the_user_service_is_down(shop):
    """Whoever was seen here may order, as the source's fallback has it; others are told 503. The breaker opens after five."""
    known, unknown, product = shop.buyer(), shop.buyer(), shop.product()
    expect(known.orders(product), 201)
    gateway = shop.services["gateway"]
    with users_down(shop):
        refusal = shop.administrator()("GET", f"/api/v1/users/{known.user['id']}")
        assert refusal.status in (502, 503), refusal
        expect(refusal, refusal.status)
        expect(unknown.orders(product), 503, {"code": 14, "message": str, "details": list})
        open_at = lambda: [number for number in (1, 2) if shop.services[f"order-service-{number}"].metric("circuit_breaker_state", name="user-service") == 1]
        ordered = lambda: expect(known.elsewhere().orders(product), 201, {"order": ORDER})
        eventually("a breaker opens, and orders are taken", lambda: ordered() and open_at(), 30)
        ordered()
        admin = shop.administrator()
        state = lambda: gateway.metric("circuit_breaker_state", name="user-service")
        eventually("the gateway's breaker is open", lambda: admin("GET", "/api/v1/users").status == 503 and state() == 1)
        refusal = admin("GET", "/api/v1/users")
        refused(refusal, 503, "breaker_open")
        assert int(refusal.headers["Retry-After"]) >= 1, refusal.headers.items()
        expect(known("GET", f"/api/v1/products/{product}"), 200)  # who needs no user is served


@limit(120)
def test_a_service_is_gone(shop):
    """Its instances are killed: 502 as long as nobody has noticed, then 503; an order is not half done."""
    buyer, product = shop.buyer(), shop.product()
    orders = lambda: len(expect(buyer("GET", "/api/v1/orders"), 200)["orders"])
    expect(buyer.orders(product), 201)
    with shop.gone("product-service-1", "product-service-2"):
        refused(buyer("GET", "/api/v1/products"), 502, "connect_refused")
        eventually("it is given a rest", lambda: buyer("GET", "/api/v1/products").status == 503)
        expect(buyer.orders(product), 503, {"code": 14, "message": str, "details": list})
        assert orders() == 1
    eventually("products are there again", lambda: buyer("GET", f"/api/v1/products/{product}").status == 200, 40)
    eventually("orders are taken again", lambda: buyer.orders(product).status == 201, 40)
    assert shop.stock(product) == 5000 - orders()


def test_redis_is_down(shop):
    """Nobody hears of it, and orders are taken."""
    buyer, product = shop.buyer(), shop.product()
    shop.redis.kill()
    try:
        for _ in range(4):
            expect(buyer.orders(product), 201)
        expect(buyer("GET", f"/api/v1/users/{buyer.user['id']}"), 200)
    finally:
        shop.redis_again()
    order = expect(buyer.orders(product), 201)["order"]["id"]
    assert [event["order_id"] for event in shop.events("order.created")] == [order]  # it remembers nothing


@limit(120)
def test_the_documents_are_down(shop):
    """Postgres, in MongoDB's place: 503 about products, nothing else; its service says NOT_SERVING, so Consul takes it out."""
    buyer, product = shop.buyer(), shop.product()
    port = shop.services["product-service-1"].variables["PORT"]
    shop.postgres.kill()
    try:
        failed(buyer("GET", f"/api/v1/products/{product}"), 503, 14, "The database is away")
        assert "NOT_SERVING" in shop.call(port, "grpc.health.v1.Health/Check", names=HEALTH).text
        expect(buyer.orders(product), 503, {"code": 14, "message": str, "details": list})
        expect(buyer("GET", f"/api/v1/users/{buyer.user['id']}"), 200)
        eventually("Consul knows", lambda: not shop.consul.instances("product-service"), 20)
    finally:
        shop.postgres.start_again()
    eventually("Consul knows", lambda: len(shop.consul.instances("product-service")) == 2, 20)
    eventually("products are there again", lambda: buyer("GET", f"/api/v1/products/{product}").status == 200, 40)
    eventually("orders are taken again", lambda: buyer.orders(product).status == 201, 40)
    assert shop.stock(product) < 5000


@limit(120)
def test_the_tables_are_down(shop):
    """MariaDB, in MySQL's place: 503 about users and orders; products are there."""
    buyer, product = shop.buyer(), shop.product()
    shop.mariadb.kill()
    try:
        failed(buyer("GET", f"/api/v1/users/{buyer.user['id']}"), 503, 14, "The database is away")
        failed(buyer("GET", "/api/v1/orders"), 503, 14, "The database is away")
        expect(buyer("GET", f"/api/v1/products/{product}"), 200)
        eventually("Consul knows", lambda: not shop.consul.instances("order-service"), 20)
    finally:
        shop.mariadb.start_again()
    for name in ("user-service", "order-service"):
        eventually("Consul knows", lambda: len(shop.consul.instances(name)) == 2, 20)
    eventually("users are there again", lambda: buyer("GET", f"/api/v1/users/{buyer.user['id']}").status == 200, 40)
    eventually("orders are taken again", lambda: buyer.orders(product).status == 201, 40)


@limit(120)
def test_consul_is_restarted(shop):
    buyer, product = shop.buyer(), shop.product(stock=100_000)
    answers = shop.consul_is_restarted(bought(buyer, product))
    assert shop.stock(product) == 100_000 - answers
