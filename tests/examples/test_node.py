"""S4, the shop in Node (examples/node): every route of its gateway, its documents and errors, its events, what breaks, and what its own code got wrong."""

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import sqlite3
import threading
import time

from stack import TIME, Load, Planted, Process, Stack, alike, ask, eventually, expect, registration, signed, until_refused
from kit import limit

PORTS = {"user-service": 3001, "product-service": 3002, "order-service": 3003, "payment-service": 3004}
CALLS = {"order-service": {"user-service": "USERS_PORT", "product-service": "PRODUCTS_PORT"}, "payment-service": {"order-service": "ORDERS_PORT"}}
USUAL = {"USERS_PORT": 9401, "PRODUCTS_PORT": 9402, "ORDERS_PORT": 9403}
# So that tests need not wait: half a minute for a breaker, half a minute until an emptied list is believed.
SHORTER = {"order-service": {"LICTOR_DEFAULTS_BREAKER_RECOVERY_TIMEOUT": "1s"}, "payment-service": {"LICTOR_CONSUL_GUARD_ON_EMPTY": "drop"}}
ADMIN = {"email": "admin@shop.example", "password": secrets.token_hex(12)}
WINDOW = 15 * 60


class Shop(Stack):
    """The gateway, the files beside it, and the four services behind it; two instances of those that the source has twice."""

    LOGIN, ADMIN = "/api/users/login", ADMIN

    def __init__(self, keep):
        super().__init__("node", keep)
        self.gateway_port, self.static_port = self.port(3000), self.port(8080)

    def start_service(self, name, number=1, **environment):
        usual = PORTS[name]
        ports = {"SERVICE_PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": usual + 6_900}
        ports |= {variable: USUAL[variable] for variable in CALLS.get(name, {}).values()}
        ports = {key: self.port(port) for key, port in ports.items()}
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **ports, **({} if self.keep else SHORTER.get(name, {})), **environment)

    def start_all(self):
        self.start_consul()
        self.start_redis()
        self.environment |= {
            "PATH": f"{self.directory}/node_modules/.bin:{os.environ['PATH']}", "DATA": self.data, "NODE_ENV": "production",
            "SERVICE_TOKEN": secrets.token_hex(16), "JWT_SECRET": secrets.token_hex(32), "ADMIN_EMAIL": ADMIN["email"], "ADMIN_PASSWORD": ADMIN["password"],
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}",
        }
        if not self.keep:
            self.environment |= {"CHECK_INTERVAL": "1s", "HEARTBEAT_TTL": "3s", "EVENTS_RETRY_DELAY": "10", "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s"}
        self.static = Process("static", ["node", "services/static.js"], self.environment | {"STATIC_PORT": self.static_port}, self.directory)
        self.stores.append(self.static)
        for name in PORTS:
            self.start_service(name)
        if not self.keep:
            for name in ("user-service", "product-service", "order-service"):
                self.start_service(name, 2)
        self.start("gateway", "lictor/api-gateway.yaml", GATEWAY_PORT=self.gateway_port, ADMIN_PORT=self.port(9900), STATIC_PORT=self.static_port)
        self.is_whole()
        eventually("the files are there", lambda: ask(self.static_port, "GET", "/").status == 200)

    def instances(self, name):
        return [service for key, service in self.services.items() if key.startswith(name)]

    def buyer(self):
        """A client who is registered and logged in."""
        email, password = f"{secrets.token_hex(6)}@buyer.example", secrets.token_hex(8)
        expect(self.somebody()("POST", "/api/users/register", {"name": "Buyer", "email": email, "password": password}), 201)
        return self.somebody().login(email, password)

    def product(self, **more):
        """A new product."""
        new = {"name": "Espresso cup", "description": "Stoneware", "price": 1250, "stock": 5000} | more
        return expect(self.administrator()("POST", "/api/products", new), 201)

    def order(self, buyer, **more):
        """A new order."""
        items = [{"productId": self.product(**more)["id"], "quantity": 2}]
        return expect(buyer("POST", "/api/orders", {"items": items}), 201)

    def token(self, algorithm="HS256", key=None, **claims):
        return signed(key or self.environment["JWT_SECRET"], {"exp": int(time.time()) + 60} | claims, algorithm)

    def rows(self, service, query, *values):
        """What a service has in its tables."""
        with contextlib.closing(sqlite3.connect(self.data / f"{service}.sqlite", timeout=10)) as database:
            return database.execute(query, values).fetchall()


SYSTEM = Shop


def told(shop):
    return f"""The shop is up; Ctrl-C stops it.
  gateway    http://localhost:{shop.gateway_port}/api/products, http://localhost:{shop.gateway_port}/static/
  Consul     http://localhost:{shop.consul.port}/ui
  dashboard  http://localhost:9900/ui (the gateway's; 9901 to 9904 the services')
  log in     curl localhost:{shop.gateway_port}/api/users/login -H 'Content-Type: application/json' -d '{json.dumps(ADMIN)}'"""


# Shapes of the source, and those of the business that it leaves out.
ERROR = {"error": str}  # a service's
REFUSAL = {"error": str, "message": str}  # the gateway's
DOWN = {"error": "Service temporarily unavailable"}
USER = {"id": int, "name": str, "email": str, "role": re.compile("user|admin"), "createdAt": TIME}
PRODUCT = {"id": int, "name": str, "description": str, "price": int, "stock": int, "createdAt": TIME}
ITEM = {"productId": int, "productName": str, "price": int, "quantity": int}
ORDER = {"id": int, "userId": int, "items": [ITEM], "totalAmount": int, "status": "pending", "createdAt": TIME}
PAYMENT = {"id": int, "orderId": int, "userId": int, "amount": int, "status": "completed", "completedAt": TIME}
EVENT = {"id": re.compile("msg_.+"), "topic": str, "payload": dict, "timestamp": TIME, "retryCount": 0}


def refused(answer, status, error):
    return expect(answer, status, {"error": error})


# Routes


def test_users_routes(shop):
    client = shop.somebody()
    new = {"name": "Ada", "email": "ada@buyer.example", "password": "correct horse"}
    expect(client("POST", "/api/users/register", new), 201, USER | {"name": "Ada", "role": "user"})
    refused(client("POST", "/api/users/register", new), 409, "Email is taken")
    refused(client("POST", "/api/users/register", new | {"email": "ada"}), 400, "email must be an address")
    expect(client("POST", "/api/users/register", b"{", Content_Type="application/json"), 400, ERROR)
    refused(client("POST", "/api/users/login", new | {"password": "wrong"}), 401, "Invalid credentials")
    refused(client("POST", "/api/users/login", new | {"email": "b@buyer.example"}), 401, "Invalid credentials")
    shown = expect(client("POST", "/api/users/login", new), 200, {"token": str, "user": USER})
    ada = shop.somebody(Authorization=f"Bearer {shown['token']}")
    at = f"/api/users/{shown['user']['id']}"
    expect(ada("GET", "/api/users"), 200, {"users": [USER]})
    expect(ada("GET", at), 200, USER | {"email": new["email"]})
    refused(ada("GET", "/api/users/999999"), 404, "User not found")
    expect(ada("PUT", at, new | {"name": "Grace"}), 200, USER | {"name": "Grace"})
    expect(ada("GET", at), 200, USER | {"name": "Grace"})
    refused(ada("PUT", "/api/users/1", new), 403, "Another user's profile")
    refused(ada("DELETE", "/api/users/1"), 403, "Another user's profile")
    assert ada("DELETE", at).status == 204
    refused(ada("GET", at), 404, "User not found")


def test_products_routes(shop):
    product = shop.product(name="Moka pot", price=3900)
    admin, anybody = shop.administrator(), shop.somebody()
    at = f"/api/products/{product['id']}"
    expect(anybody("GET", "/api/products"), 200, {"products": [PRODUCT]})
    found = expect(anybody("GET", "/api/products?q=moka"), 200, {"products": [PRODUCT]})["products"]
    assert {one["name"] for one in found} == {"Moka pot"}, found
    for words in ("%25", "%27%20or%201=1%20--", "%00"):
        assert expect(anybody("GET", "/api/products?q=" + words), 200)["products"] == [], words
    expect(anybody("GET", at), 200, PRODUCT)
    changed = {"name": "Moka pot", "description": "for six", "price": 4900, "stock": 7}
    expect(admin("PUT", at, changed), 200, PRODUCT | changed)
    expect(anybody("GET", at), 200, PRODUCT | changed)
    refused(admin("POST", "/api/products", changed | {"price": 1.5}), 400, "price must be an integer from 1 to 1000000000")
    assert admin("DELETE", at).status == 204
    refused(anybody("GET", at), 404, "Product not found")


def test_orders_routes(shop):
    buyer, cup, pot = shop.buyer(), shop.product(), shop.product(name="Pot", price=100, stock=3)
    items = [{"productId": cup["id"], "quantity": 4}, {"productId": pot["id"], "quantity": 2}]
    order = expect(buyer("POST", "/api/orders", {"items": items, "userId": 1}), 201, ORDER | {"totalAmount": 5200, "userId": buyer.user["id"]})
    assert order["items"][0] == {"productId": cup["id"], "productName": "Espresso cup", "price": 1250, "quantity": 4}, order
    at = f"/api/orders/{order['id']}"
    assert expect(buyer("GET", at), 200) == order
    expect(buyer("GET", f"/api/orders/user/{buyer.user['id']}"), 200, {"orders": [ORDER]})
    refused(buyer("GET", "/api/orders/user/1"), 403, "Another user's orders")
    refused(shop.buyer()("GET", at), 404, "Order not found")
    refused(buyer("POST", "/api/orders", {"items": [{"productId": 999999, "quantity": 1}]}), 404, "Product 999999 not found")
    refused(buyer("POST", "/api/orders", {"items": [{"productId": pot["id"], "quantity": 4}]}), 400, "Insufficient stock for product Pot")
    for items in ([], [{"productId": cup["id"]}], [{"productId": cup["id"], "quantity": 0}], "none"):
        expect(buyer("POST", "/api/orders", {"items": items}), 400, ERROR)
    gone = shop.somebody(Authorization=f"Bearer {shop.token(id=999999, role='user')}")  # the source answered 500: axios throws at a 404
    refused(gone("POST", "/api/orders", {"items": [{"productId": cup["id"], "quantity": 1}]}), 404, "User not found")
    refused(buyer("PUT", f"{at}/status", {"status": "shipped"}), 403, "An order can only be cancelled")
    expect(buyer("PUT", f"{at}/status", {"status": "lost"}), 400, ERROR)
    expect(buyer("PUT", f"{at}/status", {"status": "cancelled"}), 200, ORDER | {"status": "cancelled"})
    expect(shop.administrator()("PUT", f"{at}/status", {"status": "delivered"}), 200, ORDER | {"status": "delivered"})


def test_payments_routes(shop):
    buyer = shop.buyer()
    order = shop.order(buyer)
    asked = {"orderId": order["id"], "token": "tok_visa"}
    refused(buyer("POST", "/api/payments", asked | {"token": "tok_declined"}), 402, "Payment declined")
    payment = expect(buyer("POST", "/api/payments", asked), 201, PAYMENT | {"orderId": order["id"], "amount": 2500})
    assert buyer("POST", "/api/payments", asked).status == 409
    refused(buyer("POST", "/api/payments", asked | {"orderId": 999999}), 404, "Order not found")
    refused(shop.buyer()("POST", "/api/payments", asked), 404, "Order not found")
    at = f"/api/payments/{payment['id']}"
    expect(buyer("GET", at), 200, payment)
    refused(shop.buyer()("GET", at), 404, "Payment not found")
    expect(buyer("POST", f"{at}/refund"), 200, PAYMENT | {"status": "refunded"})
    refused(buyer("POST", f"{at}/refund"), 409, "The payment is refunded")


def test_static_files(shop):
    answer = shop.somebody()("GET", "/static/shop.js")
    assert answer.status == 200 and answer.body == (shop.directory / "web/shop.js").read_bytes(), answer
    assert shop.somebody()("GET", "/static/nothing.js").status == 404


def test_paths_without_a_route(shop):
    for path in ("/", "/api", "/api/nothing", "/users/1", "/gateway/stats"):
        expect(shop.somebody()("GET", path), 404, REFUSAL | {"error": "Not Found"})


# Who asks, and how often

ASKED_FOR = [
    ("GET", "/api/users/1"), ("PUT", "/api/users/1"), ("DELETE", "/api/users/1"), ("GET", "/api/users"), ("GET", "/api/orders/1"), ("POST", "/api/orders"),
    ("PUT", "/api/orders/1/status"), ("POST", "/api/payments"), ("POST", "/api/payments/1/refund"), ("POST", "/api/products"), ("DELETE", "/api/products/1"),
]


def test_401(shop):
    for method, path in ASKED_FOR:
        client = shop.somebody()
        expect(client(method, path), 401, {"error": "Unauthorized", "message": "No token provided"})
        expect(client(method, path, Authorization="Bearer wrong"), 401, {"error": "Unauthorized", "message": "Invalid token"})


def test_tokens_that_are_not_believed(shop):
    """One without the claim `id` ended the source's gateway; one without "Bearer" passed there."""
    good = shop.token(id=1, role="admin")
    at = lambda authorization: shop.somebody()("GET", "/api/users/1", Authorization=authorization)
    expect(at(f"Bearer {good}"), 200, USER)
    header, claims, signature = good.split(".")
    bad = {
        "no id": shop.token(role="admin"), "over": shop.token(id=1, exp=int(time.time()) - 60), "another's": shop.token(key="x" * 64, id=1),
        "unsigned": shop.token("none", id=1), "changed": ".".join([header, claims[:-2] + "AA", signature]),
    }
    for name, token in bad.items():
        assert at(f"Bearer {token}").json() == {"error": "Unauthorized", "message": "Invalid token"}, name
    expect(at(good), 401, {"error": "Unauthorized", "message": "No token provided"})


def test_403(shop):
    buyer, product = shop.buyer(), shop.product()
    at = f"/api/products/{product['id']}"
    for method, path in [("POST", "/api/products"), ("PUT", at), ("DELETE", at)]:
        expect(buyer(method, path), 403, REFUSAL | {"error": "Forbidden"})
    expect(buyer("GET", at), 200)


def test_429(shop):
    admin = shop.administrator()
    for path, limit in [("/api/users/1", 50), ("/api/products/1", 100), ("/api/orders/999999", 30), ("/api/payments/999999", 10), ("/static/shop.js", 100)]:
        client = admin.elsewhere()
        first = client("GET", path)
        assert first.headers["RateLimit-Limit"] == str(limit) and first.headers["RateLimit-Remaining"] == str(limit - 1), first.headers.items()
        refusal = until_refused(lambda: client("GET", path), limit - 1, WINDOW)
        expect(refusal, 429, {"error": "Too Many Requests", "message": "Too many requests, please try again later"})
        assert 1 <= int(refusal.headers["Retry-After"]) <= WINDOW and refusal.headers["RateLimit-Remaining"] == "0", refusal.headers.items()
        assert client.elsewhere()("GET", path).status != 429
        refused(client("POST", "/api/users/login", ADMIN | {"password": "wrong"}), 401, "Invalid credentials")  # another route


def test_who_asks_is_told_to_services_and_by_nobody_else(shop):
    """`req.body.userId = req.user.id` is a field that only the gateway can write. D23: on public routes a client wrote it itself."""
    buyer = shop.buyer()
    with Planted(shop.consul, "product-service", a_product) as planted, shop.services["gateway"].calls_only("product-service", planted.id):
        for headers in ({"X_User_ID": "1", "X_User_Role": "admin"}, {"x_user_id": "1"}):
            expect(shop.somebody()("GET", "/api/products/7", **headers), 200)
            assert not [name for name in planted.asked[-1].headers if name.lower().startswith("x-user")], planted.asked[-1].headers.items()
        admin = shop.administrator()
        expect(admin("PUT", "/api/products/7", {}, X_User_ID="999"), 200)
        seen = planted.asked[-1].headers
        assert (seen["X-User-ID"], seen["X-User-Role"]) == (str(admin.user["id"]), "admin"), seen.items()
    order = expect(buyer("POST", "/api/orders", {"items": [{"productId": shop.product()["id"], "quantity": 1}]}, X_User_ID="1"), 201)
    assert order["userId"] == buyer.user["id"], order
    inbound = shop.services["order-service-1"].variables["INBOUND_PORT"]
    assert ask(inbound, "GET", f"/orders/{order['id']}", headers={"X-User-ID": str(order["userId"])}).status == 401  # past the gateway


def test_d24_pages_of_others_read_what_is_public(shop):
    """D24: `Access-Control-Allow-Origin: *` for every route."""
    ours, other = "https://shop.example", "https://evil.example"
    allowed = lambda path, origin: shop.somebody()("GET", path, Origin=origin).headers["Access-Control-Allow-Origin"]
    assert allowed("/api/products", other) == allowed("/api/products", ours) == "*"
    assert allowed("/api/users/1", ours) == ours and allowed("/api/users/1", other) is None
    preflight = shop.somebody()("OPTIONS", "/api/orders", Origin=ours, Access_Control_Request_Method="POST", Access_Control_Request_Headers="content-type, authorization")
    assert preflight.status == 204 and preflight.body == b"" and preflight.headers["Access-Control-Allow-Origin"] == ours, preflight.headers.items()
    words = lambda name: {word.strip().lower() for word in preflight.headers[name].split(",")}
    assert words("Access-Control-Allow-Methods") == {"get", "put", "post", "delete"}, preflight.headers.items()
    assert words("Access-Control-Allow-Headers") >= {"content-type", "authorization"}, preflight.headers.items()


# Documents

WELL = {"status": "healthy", "responseTime": int, "details": {"connected": True}}
HEALTH = {"status": "healthy", "timestamp": TIME, "checks": {"database": WELL, "redis": WELL}}


def test_health_documents(shop):
    for service in shop.services.values():
        if "SERVICE_PORT" in service.variables:
            expect(ask(service.variables["SERVICE_PORT"], "GET", "/health"), 200, HEALTH)


def test_d14_ready_documents(shop):
    """D14: Kubernetes asked for `/ready`, and the service had `/health` alone: no pod was ever ready."""
    for name in PORTS:
        body = expect(shop.services[f"{name}-1"].admin("/ready"), 200)
        assert {"status", "timestamp", "checks"} <= set(body) and body["status"] == "ready", body
        for needed in CALLS.get(name, {}):
            check = body["checks"][needed]
            assert (check["status"], check["message"], check["required"]) == ("ready", "2 healthy instances found", True), check
    code, text = shop.lictor("health", "-c", "lictor/user-service.yaml", ADMIN_PORT=str(shop.services["user-service-1"].variables["ADMIN_PORT"]), SERVICE_TOKEN="x" * 32)
    assert code == 0, text


def test_gateway_documents(shop):
    gateway = shop.services["gateway"]
    body = expect(gateway.admin("/health"), 200)
    alike({key: body[key] for key in ("status", "timestamp", "routes")}, {"status": "healthy", "timestamp": TIME, "routes": 8})
    assert type(body["uptime"]) in (int, float), body
    stats = expect(gateway.admin("/gateway/stats"), 200)
    assert {"routes", "uptime", "memoryUsage"} <= set(stats) and stats["memoryUsage"]["rss"] > 1 << 20, stats
    by_route = {one["route"]: one for one in stats["routes"]}
    for route, service, auth in [("ALL /api/users/*", "user-service", True), ("ALL /api/orders/*", "order-service", True), ("ALL /api/payments/*", "payment-service", True)]:
        one = by_route[route]
        assert (one["serviceName"], one["auth"]) == (service, auth), one
    assert (by_route["ALL /static/*"]["target"], by_route["ALL /static/*"]["auth"]) == (f"http://127.0.0.1:{shop.static_port}", False), by_route
    assert (by_route["GET /api/products/*"]["auth"], by_route["ALL /api/products/*"]["auth"]) == (False, True), by_route


def test_statistics_of_the_registry(shop):
    stats = expect(shop.services["order-service-1"].admin("/stats"), 200)
    assert (stats["totalServices"], stats["serviceTypes"]) == (4, 2), stats
    for one in stats["services"]:
        assert (one["totalInstances"], one["healthyInstances"], one["unhealthyInstances"]) == (2, 2, 0), one


def test_events_of_the_registry(shop):
    """The source's emitted serviceRegistered, serviceDeregistered, serviceHealthy, serviceUnhealthy in the process that had them; nobody else heard it."""
    orders = shop.services["order-service-1"]
    connection = http.client.HTTPConnection("127.0.0.1", orders.variables["ADMIN_PORT"], timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
        underneath, stream, heard = connection.sock, connection.getresponse(), []
        assert stream.status == 200 and stream.headers.get_content_type() == "text/event-stream", stream.headers.items()
        listener = threading.Thread(target=listen, args=(stream, heard), daemon=True)
        listener.start()
        eventually("what was before is told too", lambda: "registered" in heard)
        before = heard.count("endpoints_changed")
        with Planted(shop.consul, "product-service", a_product):
            eventually("an instance came", lambda: heard.count("endpoints_changed") > before)
            before = heard.count("endpoints_changed")
        eventually("and went", lambda: heard.count("endpoints_changed") > before)
        underneath.shutdown(socket.SHUT_RDWR)
        listener.join(10)


def listen(stream, heard):
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        for line in stream:
            if line.startswith(b"event: "):
                heard.append(line[7:].strip().decode())


def test_metrics_of_the_source(shop):
    """`http_requests_total`, `http_request_duration_seconds` and `active_connections` are lictor's; what only the service knows is put behind them."""
    users = shop.services["user-service-1"]
    expect(ask(users.variables["INBOUND_PORT"], "GET", "/users/1", headers={"X-Service-Auth": shop.environment["SERVICE_TOKEN"]}), 200)
    assert users.metric("http_requests_total", method="GET", status_code="200", service="user-service") >= 1
    assert users.metric("http_request_duration_seconds_count", method="GET", status_code="200", service="user-service") >= 1
    text = users.admin("/metrics").body.decode()
    for sample in (r'active_connections\{[^}]*service="user-service"', r'http_requests_total\{[^}]*route="', r'database_queries_total\{[^}]*collection="users"', "nodejs_version_info"):
        assert re.search(sample, text), sample


# Between services


def a_product(request):
    """What the product service says of a product."""
    request.reply(200, {"id": 7, "name": "Planted", "description": "", "price": 100, "stock": 9, "createdAt": "2026-01-01T00:00:00Z"})


def upstream_port(service, upstream):
    return service.variables[CALLS[service.kind][upstream]]


def test_services_show_their_token(shop):
    """`Authorization: Bearer SERVICE_TOKEN` where the application shows none, and `X-Service-Auth`, which is asked for: in the source nobody did."""
    orders, token = shop.services["order-service-1"], shop.environment["SERVICE_TOKEN"]
    with Planted(shop.consul, "product-service", a_product) as planted, orders.calls_only("product-service", planted.id):
        for shown, headers in [(f"Bearer {token}", {}), ("Bearer mine", {"Authorization": "Bearer mine"})]:
            expect(ask(upstream_port(orders, "product-service"), "GET", "/products/7", headers=headers), 200)
            seen = planted.asked[-1].headers
            assert (seen["Authorization"], seen["X-Service-Auth"]) == (shown, token), seen.items()
    inbound = shop.services["user-service-1"].variables["INBOUND_PORT"]
    for headers, status in [({}, 401), ({"X-Service-Auth": "wrong"}, 401), ({"X-Service-Auth": token}, 200)]:
        expect(ask(inbound, "GET", "/users/1", headers=headers), status)


def test_what_is_asked_passes_as_it_is(shop):
    """The source's services saw the path `/` without a query, and never a JSON body: it had been read before."""
    admin = shop.administrator()
    with Planted(shop.consul, "product-service", a_product) as planted, shop.services["gateway"].calls_only("product-service", planted.id):
        for method, path, body in [("GET", "/products/7?a=1&b=%20", b""), ("GET", "/products", b""), ("PUT", "/products/7", b'{"price": 1 }'), ("POST", "/products?x", b'{"a":"\xc3\xa9"}')]:
            expect(admin(method, "/api" + path, body or None, **({"Content_Type": "application/json"} if body else {})), 200)
            asked = planted.asked[-1]
            assert (asked.method, asked.path, asked.body) == (method, path, body), asked
        expect(shop.somebody()("GET", "/api/products/7", X_Forwarded_For="6.6.6.6"), 200)
        assert "6.6.6.6" not in planted.asked[-1].headers["X-Forwarded-For"], planted.asked[-1].headers.items()


def test_d11_one_request_has_one_id(shop):
    """D11: each call had a new `X-Request-ID`, and the gateway another one for itself."""
    buyer, product, id = shop.buyer(), shop.product(), "shop-" + secrets.token_hex(8)
    answer = buyer("POST", "/api/orders", {"items": [{"productId": product["id"], "quantity": 1}]}, X_Request_ID=id)
    expect(answer, 201)
    assert answer.headers["X-Request-ID"] == id, answer.headers.items()
    seen = {"order-service": "/orders", "user-service": f"/users/{buyer.user['id']}", "product-service": f"/products/{product['id']}"}
    for service, path in seen.items():
        eventually(f"{service} has it", lambda: any(one.said(request_id=id, path=path, direction="inbound") for one in shop.instances(service)))
    made = shop.somebody()("GET", "/api/products").headers["X-Request-ID"]
    lines = eventually("each call is in the log", lambda: shop.services["gateway"].said(request_id=made))
    assert {"method", "path", "status", "duration", "level"} <= set(lines[0]) and lines[0]["status"] == 200, lines


def test_a_call_takes_three_seconds_at_most(shop):
    """opossum cut every call at 3.0 s, whatever axios was told (5, 3 and 10 s)."""
    orders, over = shop.services["order-service-1"], threading.Event()
    with Planted(shop.consul, "product-service", lambda request: over.wait(30)) as planted, orders.calls_only("product-service", planted.id):
        try:
            began = time.monotonic()
            answer = ask(upstream_port(orders, "product-service"), "GET", "/products/7")
            took = time.monotonic() - began
        finally:
            over.set()
        assert expect(answer, 504)["reason"] == "timeout" and 2.8 < took < 9, (answer, took)
    code, text = shop.lictor("config", "-c", "lictor/order-service.yaml", SERVICE_TOKEN="x" * 32)
    assert code == 0 and "\ndefaults.timeout: 3s\n" in text, text


def test_a_breaker_opens_by_the_share_of_failures(shop):
    """Half of 20 calls at least; 60 % for the user service. A 404 is an answer: in the source the first one opened it."""
    orders = shop.services["order-service-1"]
    state = lambda: orders.metric("circuit_breaker_state", name=name)
    statuses = []

    def answer(request):
        request.reply(statuses[len(planted.asked) % len(statuses)], {"id": 7})

    for name, opens in [("product-service", True), ("user-service", False)]:
        with Planted(shop.consul, name, answer) as planted, shop.consul.maintenance(name, but=planted.id):
            eventually("there is nobody else", lambda: orders.endpoints(name) == {planted.id}, 40)  # what one of several does opens no breaker
            call = lambda: ask(upstream_port(orders, name), "POST", "/x", {})  # a POST is asked once
            statuses[:] = [404]
            assert [call().status for _ in range(30)] == [404] * 30 and state() == 0
            statuses[:] = [500, 200]
            if not opens:
                assert {call().status for _ in range(60)} == {200, 500} and state() == 0
                continue
            eventually("the 404s are 10 s ago, and it opens", lambda: call().status in (200, 500, 503) and state() == 1, 40)
            count = len(planted.asked)
            assert count >= 50, count
            refusal = call()
            assert expect(refusal, 503)["reason"] == "breaker_open" and len(planted.asked) == count, refusal
            eventually("it is in the log", lambda: orders.said(kind="breaker_changed", upstream=name, to="open"))
            statuses[:] = [200]
            eventually("what goes well closes it", lambda: call().status == 200 and state() == 0, 30)
            eventually("that too", lambda: orders.said(kind="breaker_closed", upstream=name))


def test_balancers_and_variables_of_the_source(shop):
    variables = {"SERVICE_TOKEN": "x" * 32, "CONSUL_HOST": "consul", "CONSUL_PORT": "8501", "SERVICE_PORT": "4003", "SERVICE_VERSION": "2.0.0"}
    code, text = shop.lictor("config", "-c", "lictor/order-service.yaml", **variables)
    assert code == 0, text
    for line in ("consul.address: http://consul:8501", "registration.meta.version: 2.0.0", "port: 4003", "defaults.breaker.error_rate.threshold: 50%", "defaults.breaker.recovery_timeout: 30s"):
        assert f"\n{line}\n" in text, (line, text)
    assert "upstreams.user-service.breaker.error_rate.threshold: 60%" in text and "x" * 32 not in text, text
    for balance in ("random", "round-robin", "least-connections"):
        code, text = shop.lictor("check", "-c", "lictor/order-service.yaml", "--set", f"defaults.balance={balance}", SERVICE_TOKEN="x" * 32)
        assert code == 0, text
    code, text = shop.lictor("check", "-c", "lictor/order-service.yaml", "--set", "defaults.balance=fastest", SERVICE_TOKEN="x" * 32)
    assert code == 1 and "defaults.balance" in text, text  # its own balancer took the first instance without a word


def test_ports_of_the_source(shop):
    """3000 to 3003; payment has none there. (Tests run on others.)"""
    for name, port in PORTS.items():
        code, text = shop.lictor("config", "-c", f"lictor/{name}.yaml", SERVICE_TOKEN="x" * 32)
        assert code == 0 and f"\nport: {port}\n" in text, (name, text)
    code, text = shop.lictor("config", "-c", "lictor/api-gateway.yaml", SERVICE_TOKEN="x" * 32, JWT_SECRET="y" * 64)
    assert code == 0 and re.search(r"^gateway\.listen\S*: 127\.0\.0\.1:3000$", text, re.MULTILINE), text


# Configuration


def test_configuration_in_layers(shop):
    """`default.json` < `{NODE_ENV}.json` < `local.json` < environment; here the file, the one of NODE_ENV, KV, the environment, `--set`."""
    given = {"SERVICE_TOKEN": "x" * 32, "JWT_SECRET": "y" * 64}
    origins = lambda *arguments, **more: shop.lictor("config", "-c", "lictor/api-gateway.yaml", *arguments, **given, **more)
    for stage, origin in [("development", "http://localhost:8080"), ("production", "https://shop.example")]:
        code, text = origins(NODE_ENV=stage)
        assert code == 0 and origin in text, (stage, text)
    for arguments, more, value in [([], {}, "5s"), ([], {"LICTOR_DEFAULTS_TIMEOUT": "6s"}, "6s"), (["--set", "defaults.timeout=7s"], {"LICTOR_DEFAULTS_TIMEOUT": "6s"}, "7s")]:
        code, text = origins(*arguments, NODE_ENV="production", **more)
        assert code == 0 and f"\ndefaults.timeout: {value}\n" in text, (value, text)
    for wrong in ("defaults.timeout=soon", "defaults.retry.attempts=many", "defaults.nothing=1"):  # texts became whatever they looked like
        code, text = origins("--set", wrong)
        assert code == 1 and wrong.split("=")[0] in text, text


def test_configuration_of_kv_and_its_changes(shop):
    """Keys below `{service}/`, and records of what has changed: `{type, key, oldValue, newValue}`, `{type, key, value}`."""
    orders, key = shop.services["order-service-2"], "/v1/kv/order-service/lictor"
    changes = lambda: [record for entry in expect(orders.admin("/config/changes"), 200) for record in entry["changes"]]
    expect_record = lambda **wanted: eventually(f"{wanted}", lambda: any(wanted.items() <= record.items() for record in changes()))
    shop.consul.ask(key, "PUT", b"defaults: {timeout: 2s}\nupstreams: {product-service: {routes: [{match: 'GET /products', timeout: 1s}]}}")
    try:
        expect_record(type="modified", key="defaults.timeout", oldValue="3s", newValue="2s")
        added = eventually("what is new is told", lambda: [record for record in changes() if record["type"] == "added"])
        assert all("product-service.routes" in record["key"] and "value" in record for record in added), added
    finally:
        shop.consul.ask(key, "DELETE")
    expect_record(type="modified", key="defaults.timeout", oldValue="2s", newValue="3s")
    assert eventually("what has gone is told", lambda: [record for record in changes() if record["type"] == "deleted"])


def test_d12_d20_waiting_for_changes_and_one_agent(shop):
    """D12: an index without a wait, cut after 5 s as an error, and a 304 that Consul does not send. D20: deregistered at another agent than it was registered with."""
    with shop.consul.recorded() as (port, asked):
        with shop.another("payment-service", 2, CONSUL_PORT=port) as service:
            reads = lambda: [path for method, path, _ in asked if method == "GET" and path.startswith("/v1/kv/payment-service/lictor")]
            for seconds in (7, 8):  # more than one round, each at once
                shop.consul.ask("/v1/kv/payment-service/lictor", "PUT", f"defaults: {{timeout: {seconds}s}}".encode())
                eventually("it is in force", lambda: expect(service.admin("/config"), 200).get("defaults.timeout") == f"{seconds}s")
            shop.consul.ask("/v1/kv/payment-service/lictor", "DELETE")
            waiting = [path for path in reads() if "index=" in path]
            assert len(waiting) >= 2 and all("wait=" in path for path in waiting), reads()
            indexes = [int(re.search(r"index=(\d+)", path)[1]) for path in waiting]
            assert indexes == sorted(indexes) and len(indexes) < 12, indexes
            body, check = registration(asked)
            ports = service.variables
            alike({key: body[key] for key in ("Name", "Address", "Port")}, {"Name": "payment-service", "Address": "127.0.0.1", "Port": ports["INBOUND_PORT"]})
            assert body["ID"] == service.id, body["ID"]
            assert check["TTL"] == "3000ms" and "HTTP" not in check, check
            beats = lambda: [path for method, path, _ in asked if method == "PUT" and path.startswith("/v1/agent/check/")]
            eventually("it beats", lambda: len(beats()) >= 3, 20)
            assert body["ID"] in shop.consul.instances("payment-service")
        assert f"/v1/agent/service/deregister/{body['ID']}" in [path for method, path, _ in asked if method == "PUT"]
        assert body["ID"] not in shop.consul.instances("payment-service", passing=False)


def test_d13_services_see_one_another(shop):
    """D13: the registry was a Map in each process: nobody saw anybody, whatever CONSUL_HOST said."""
    for name in PORTS:
        ids = {service.id for service in shop.instances(name)}
        assert shop.consul.instances(name) == ids, (name, shop.consul.instances(name))
        for caller, upstreams in CALLS.items():
            if name in upstreams:
                assert shop.services[f"{caller}-1"].endpoints(name) == ids, caller
                for one in expect(shop.services[f"{caller}-1"].admin(f"/endpoints/{name}"), 200)[name]["endpoints"]:
                    assert {"id", "address", "service", "status", "tags", "meta"} <= set(one) and one["status"] == "passing", one
        assert shop.services["gateway"].endpoints(name) == ids
    before = [service.metric("http_requests_total") for service in shop.instances("product-service")]
    shares = lambda: [service.metric("http_requests_total") - count for service, count in zip(shop.instances("product-service"), before)]
    eventually("both have some", lambda: expect(shop.somebody()("GET", "/api/products"), 200) and min(shares()) >= 5, 20)


def test_d25_the_secret_of_the_document_is_refused(shop):
    """D25: `your-secret-key` where no other was set."""
    good = {"SERVICE_TOKEN": "x" * 32, "JWT_SECRET": "y" * 64}
    wrong = [
        ("JWT_SECRET", "your-secret-key", "gateway.auth.jwt.secret", "public tutorials"), ("JWT_SECRET", "short", "gateway.auth.jwt.secret", "32 bytes"),
        ("JWT_SECRET", None, "gateway.auth.jwt.secret", "no JWT_SECRET"), ("SERVICE_TOKEN", "your-secret-key", "service_token", "public tutorials"),
    ]
    for variable, value, key, words in wrong:
        given = {name: text for name, text in (good | {variable: value}).items() if text}
        for command in ("check", "serve"):
            code, text = shop.lictor(command, "-c", "lictor/api-gateway.yaml", **given)
            assert code == 1 and key in text and words in text, (command, variable, value, text)


# Events of the business


def told_of(shop, topic, **payload):
    """The events of a topic whose payload has this."""
    messages = [json.loads(line) for line in shop.ask_redis("xrange", topic, "-", "+").splitlines() if line.startswith("{")]
    return [message for message in messages if payload.items() <= message["payload"].items()]


def tell(shop, topic, text):
    assert shop.ask_redis("xadd", topic, "*", "message", text), (topic, text)


def test_events_are_heard_once(shop):
    """In the source subscribers got nothing. Here one instance of each service handles each event, also when it comes twice."""
    buyer, product = shop.buyer(), shop.product(stock=100)
    stock = lambda: expect(shop.somebody()("GET", f"/api/products/{product['id']}"), 200)["stock"]
    (registered,) = eventually("the user is told", lambda: told_of(shop, "user.registered", userId=buyer.user["id"]))
    alike(registered, EVENT | {"topic": "user.registered", "payload": {"userId": int, "email": buyer.user["email"], "registeredAt": TIME}})
    order = expect(buyer("POST", "/api/orders", {"items": [{"productId": product["id"], "quantity": 7}]}), 201)
    (created,) = eventually("the order is told", lambda: told_of(shop, "order.created", orderId=order["id"]))
    wanted = {"orderId": int, "userId": buyer.user["id"], "items": [ITEM], "totalAmount": 7 * 1250, "createdAt": TIME}
    alike(created, EVENT | {"topic": "order.created", "payload": wanted})
    eventually("the stock is less", lambda: stock() == 93)
    eventually("that is told too", lambda: told_of(shop, "inventory.updated", productId=product["id"], stock=93))
    paid = expect(buyer("POST", "/api/payments", {"orderId": order["id"], "token": "tok_visa"}), 201)
    (payment,) = eventually("the payment is told", lambda: told_of(shop, "payment.completed", paymentId=paid["id"]))
    alike(payment["payload"], {"paymentId": int, "orderId": order["id"], "amount": 7 * 1250, "completedAt": TIME})
    eventually("the order is paid", lambda: expect(buyer("GET", f"/api/orders/{order['id']}"), 200)["status"] == "paid")
    eventually("that is told", lambda: told_of(shop, "order.updated", orderId=order["id"], status="paid"))
    tell(shop, "order.created", json.dumps(created))  # the same once more
    expect(buyer("POST", "/api/orders", {"items": [{"productId": product["id"], "quantity": 1}]}), 201)
    eventually("the next is handled", lambda: stock() != 93)
    assert stock() == 92
    changed = expect(buyer("PUT", f"/api/users/{buyer.user['id']}", buyer.user | {"name": "New"}), 200)
    eventually("a change of a user is told", lambda: told_of(shop, "user.updated", userId=changed["id"]))


def test_events_that_fail_are_kept(shop):
    """Three further attempts, then a dead letter: `{message, subscriber, error, timestamp}`."""
    broken = {"id": "msg_" + secrets.token_hex(8), "topic": "order.created", "payload": {"items": 7}, "timestamp": "2026-01-01T00:00:00Z", "retryCount": 0}
    tell(shop, "order.created", json.dumps(broken))
    query = "select message, subscriber, error, timestamp from dead_letters where id = ?"
    ((message, subscriber, error, when),) = eventually("it is kept", lambda: shop.rows("product-service", query, broken["id"]))
    alike(json.loads(message), broken | {"retryCount": 4})
    assert subscriber == "product-service" and "iterable" in error and TIME.fullmatch(when), (subscriber, error, when)
    for text in ("{", "[]", "null", '{"payload":{}}'):
        tell(shop, "order.created", text)
    product, buyer = shop.product(stock=9), shop.buyer()
    expect(buyer("POST", "/api/orders", {"items": [{"productId": product["id"], "quantity": 1}]}), 201)
    eventually("others go on", lambda: expect(shop.somebody()("GET", f"/api/products/{product['id']}"), 200)["stock"] == 8)


# What breaks


def reads(shop, buyer, order):
    """What clients read all the while: each from many addresses, so that no limit is in the way."""
    paths = ["/api/products", f"/api/orders/{order['id']}", f"/api/users/{buyer.user['id']}", f"/api/orders/user/{buyer.user['id']}"]
    return lambda number: buyer.elsewhere()("GET", paths[number % len(paths)])


@limit(180)
def test_an_instance_is_killed_under_load(shop):
    buyer = shop.buyer()
    with Load(reads(shop, buyer, shop.order(buyer))) as load:
        for name in ("product-service-1", "user-service-2", "order-service-1"):
            shop.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


@limit(180)
def test_an_instance_is_replaced_under_load(shop):
    """Orders too, which nobody may send twice."""
    buyer, product = shop.buyer(), shop.product()
    items = {"items": [{"productId": product["id"], "quantity": 1}]}
    with Load(lambda number: buyer.elsewhere()("POST", "/api/orders", items), 2) as load:
        for name in ("product-service-2", "order-service-2", "user-service-1"):
            shop.replaced(name, load)
    assert not load.failed, (load.answers, load.failed[:5])
    (count,) = shop.rows("order-service", "select count(*) from orders where userId = ?", buyer.user["id"])[0]
    assert count == load.answers, (count, load.answers)


def test_the_user_service_is_down(shop):
    """Orders are refused in the source's own words, which it never came to say: the breaker's error became a 500. Who needs no user is served."""
    buyer, product = shop.buyer(), shop.product()
    order = shop.order(buyer)
    with shop.gone("user-service-1", "user-service-2"):
        asked = {"items": [{"productId": product["id"], "quantity": 1}]}
        expect(buyer("POST", "/api/orders", asked), 503, DOWN)
        login = shop.somebody()("POST", "/api/users/login", ADMIN)  # refused connections, or an open breaker
        words = {502: "Bad Gateway", 503: "Service Unavailable"}
        expect(login, login.status, {"error": words[login.status], "message": "Service temporarily unavailable"})
        expect(buyer("GET", f"/api/orders/{order['id']}"), 200)  # a token needs nobody
        expect(shop.somebody()("GET", "/api/products"), 200, {"products": [PRODUCT]})
    eventually("orders are taken again", lambda: buyer.elsewhere()("POST", "/api/orders", asked).status == 201, 30)


def test_the_order_service_is_gone(shop):
    """`/ready` of who needs it says so, as soon as an emptied list is believed."""
    payments, buyer = shop.services["payment-service-1"], shop.buyer()
    order = shop.order(buyer)
    with shop.gone("order-service-1", "order-service-2"):
        eventually("it has nobody to call", lambda: payments.endpoints("order-service") == set(), 30)
        check = expect(payments.admin("/ready"), 503)["checks"]["order-service"]
        assert (check["status"], check["message"]) == ("not_ready", "No healthy instances of order-service found"), check
        answer = ask(upstream_port(payments, "order-service"), "GET", "/orders/1")
        assert expect(answer, 503)["reason"] == "no_endpoints", answer
        expect(buyer("POST", "/api/payments", {"orderId": order["id"], "token": "tok_visa"}), 503, DOWN)
    eventually("payments are taken again", lambda: buyer.elsewhere()("POST", "/api/payments", {"orderId": order["id"], "token": "tok_visa"}).status == 201, 30)


def test_a_service_is_gone(shop):
    """Its only instance is killed: 502 as long as nobody has noticed, then 503, both in the source's shape. (Its own said 500 for the second.)"""
    buyer = shop.buyer()
    expect(buyer("GET", "/api/payments/999999"), 404)
    shop.services["payment-service-1"].kill()
    call = lambda: buyer.elsewhere()("GET", "/api/payments/1")
    expect(call(), 502, {"error": "Bad Gateway", "message": "Service temporarily unavailable"})
    refusal = eventually("it is given a rest", lambda: (answer := call()).status == 503 and answer, 30)
    expect(refusal, 503, {"error": "Service Unavailable", "message": "Service temporarily unavailable"})
    shop.back("payment-service-1")
    eventually("it is called again", lambda: call().status == 404, 30)


def test_redis_is_down(shop):
    """`/health` says so in the source's words. What is to be told is told when it is back; nothing fails."""
    buyer, product = shop.buyer(), shop.product(stock=50)
    order = shop.order(buyer)
    stock = lambda: expect(shop.somebody()("GET", f"/api/products/{product['id']}"), 200)["stock"]
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: shop.redis.is_alive() or shop.redis_again())
        load = ends.enter_context(Load(reads(shop, buyer, order)))
        load.goes_on()
        shop.redis.kill()
        lost = HEALTH | {"status": "unhealthy", "checks": {"database": WELL, "redis": {"status": "unhealthy", "error": str}}}
        for name in PORTS:
            port = shop.services[f"{name}-1"].variables["SERVICE_PORT"]
            eventually("it knows", lambda: expect(ask(port, "GET", "/health"), 503, lost))
        expect(buyer("POST", "/api/orders", {"items": [{"productId": product["id"], "quantity": 1}]}), 201)
        eventually("Consul calls all of them critical", lambda: not shop.consul.instances("user-service"))
        load.goes_on()  # an emptied list is not believed for 30 s
        assert stock() == 50
        shop.redis_again()
        eventually("they are well", lambda: len(shop.consul.instances("user-service")) == 2, 20)
        eventually("it is told late", lambda: stock() == 49, 20)
        load.goes_on()
    assert not load.failed, (load.answers, load.failed[:5])


def test_consul_is_restarted(shop):
    buyer = shop.buyer()
    shop.consul_is_restarted(reads(shop, buyer, shop.order(buyer)))
