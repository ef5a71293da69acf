"""S0, the PHP portal (examples/portal): every route of its gateway, its documents and errors, what breaks, and what its own code got wrong."""

import contextlib
import itertools
import json
import re
import secrets
import socket
import subprocess
import time

from stack import INHERITED, LICTOR, Load, Planted, Stack, alike, ask, eventually, expect

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
PORTS = {"user-service": 8001, "product-service": 8002, "order-service": 8003, "inquiry-service": 8004, "purchase-service": 8005}
CALLERS = ("order-service", "inquiry-service", "purchase-service")
ADMIN = {"email": "admin@portal.example", "password": secrets.token_hex(12)}


class Portal(Stack):
    """The gateway, and the five services behind it; two instances of those that the others need."""

    def __init__(self, keep):
        super().__init__("portal", keep)
        self.gateway_port = self.port(8080)

    def start_service(self, name, number=1):
        usual = PORTS[name]
        ports = {"PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": usual + 1_800}
        if name in CALLERS:
            ports |= {"USERS_PORT": usual % 10 * 10 + 9_001, "PRODUCTS_PORT": usual % 10 * 10 + 9_002}
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **{key: self.port(port) for key, port in ports.items()})

    def start_gateway(self, name="gateway", port=None, **environment):
        ports = {"GATEWAY_PORT": port or self.port(8080), "ADMIN_PORT": self.port(9800)}
        return self.start(name, "lictor/api-gateway.yaml", **ports, **environment)

    def start_all(self):
        self.start_consul()
        self.start_redis()
        self.environment |= {
            "DATA": self.data, "INTERNAL_SERVICE_TOKEN": secrets.token_hex(16), "ADMIN_EMAIL": ADMIN["email"], "ADMIN_PASSWORD": ADMIN["password"],
            "APP_ENV": "production",
        }  # fmt: skip
        if not self.keep:
            self.environment |= {"CHECK_INTERVAL": "1s", "WORKERS": 3, "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s"}
        for name in PORTS:
            self.start_service(name)
        if not self.keep:
            for name in ("user-service", "product-service", "order-service"):
                self.start_service(name, 2)
        self.start_gateway(port=self.gateway_port)
        self.is_whole()

    def somebody(self, **more):
        """A client at an address of its own, which no limit knows."""
        return Client(self, self.address(), **more)

    def buyer(self):
        """A client who is registered and logged in."""
        client = self.somebody()
        email, password = f"{secrets.token_hex(6)}@buyer.example", secrets.token_hex(8)
        expect(client("POST", "/api/auth/register", {"name": "Buyer", "email": email, "password": password}), 201)
        return self.somebody().login(email, password)

    def administrator(self):
        return self.somebody().login(**ADMIN)

    def product(self, **more):
        """A new product."""
        new = {"sku": secrets.token_hex(6), "name": "Steel bolt M8", "description": "Zinc plated", "price": 250, "stock": 5000} | more
        return expect(self.administrator()("POST", "/api/products", new), 201)["data"]


class Client:
    def __init__(self, portal, source, port=None, headers=None):
        self.portal, self.source, self.port, self.headers = portal, source, port or portal.gateway_port, headers or {}

    def __call__(self, method, path, body=None, **headers):
        return ask(self.port, method, path, body, self.headers | {key.replace("_", "-"): text for key, text in headers.items()}, self.source)

    def login(self, email, password):
        shown = expect(self("POST", "/api/auth/login", {"email": email, "password": password}), 200)["data"]
        self.user, self.headers = shown["user"], {"Authorization": f"Bearer {shown['token']}"}
        return self

    def elsewhere(self, port=None):
        """The same user, at another address or gateway."""
        return Client(self.portal, self.portal.address(), port or self.port, self.headers)


@contextlib.contextmanager
def start(keep=False):
    with Portal(keep) as portal:
        portal.start_all()
        yield portal


def told(portal):
    return f"""The portal is up; Ctrl-C stops it.
  gateway    http://localhost:{portal.gateway_port}/api/products
  Consul     http://localhost:{portal.consul.port}/ui
  dashboard  http://localhost:9800/ui (the gateway's; 9801 to 9805 the services')
  log in     curl localhost:{portal.gateway_port}/api/auth/login -d email={ADMIN['email']} -d password={ADMIN['password']}"""


# Shapes of the source (2.1 to 2.3, 4.2), and those of the business that it leaves out.
ERROR = {"status": "error", "message": str, "timestamp": TIME}
USER = {"id": int, "name": str, "email": str, "role": re.compile("buyer|admin"), "created_at": TIME}
PRODUCT = {"id": int, "sku": str, "name": str, "description": str, "price": int, "stock": int, "created_at": TIME}
ORDER = {"id": int, "user_id": int, "status": "pending", "total": int, "created_at": TIME}
ITEM = {"product_id": int, "name": str, "price": int, "quantity": int}
INQUIRY = {"id": int, "user_id": int, "contact": str, "product_id": int, "product": str, "quantity": int, "message": str, "status": "open", "created_at": TIME}
PURCHASE = {
    "id": int, "user_id": int, "product_id": int, "quantity": int, "discount": int, "total": int, "delivery_date": "2030-01-31", "status": "requested",
    "created_at": TIME,
}  # fmt: skip


def success(data):
    return {"status": "success", "data": data}


def refused(answer, status, message):
    return expect(answer, status, ERROR | {"message": message})


# Routes


def test_auth_routes(portal):
    client = portal.somebody()
    new = {"name": "Ada", "email": "ada@buyer.example", "password": "correct horse"}
    expect(client("POST", "/api/auth/register", new), 201, success(USER | {"name": "Ada", "role": "buyer"}))
    refused(client("POST", "/api/auth/register", new), 409, "Email is taken")
    wrong = expect(client("POST", "/api/auth/register", {"name": "Ada", "email": "ada", "password": "short"}), 422)
    assert set(wrong) == {*ERROR, "errors"} and set(wrong["errors"]) == {"email", "password"}, wrong
    refused(client("POST", "/api/auth/login", {"email": "ada@buyer.example", "password": "wrong"}), 401, "Invalid credentials")
    shown = expect(client("POST", "/api/auth/login", new), 200, success({"token": str, "expires_in": int, "user": USER}))["data"]
    ada = Client(portal, client.source, headers={"Authorization": "Bearer " + shown["token"]})
    expect(ada("POST", "/api/auth/validate"), 200, USER | {"email": "ada@buyer.example"})
    expect(ada("POST", "/api/auth/logout"), 200, success(None))
    eventually("the token is over", lambda: ada("POST", "/api/auth/validate").status == 401)


def test_users_routes(portal):
    buyer = portal.buyer()
    me = buyer.user["id"]
    expect(buyer("GET", "/api/users"), 200, success([USER]))  # the source's own router had no route for it
    expect(buyer("GET", f"/api/users/{me}"), 200, success(USER | {"id": me}))
    refused(buyer("GET", "/api/users/999999"), 404, "User not found")  # its gateway made 503 of every 4xx
    expect(buyer("PUT", f"/api/users/{me}", {"name": "Grace"}), 200, success(USER | {"name": "Grace"}))
    expect(buyer("GET", f"/api/users/{me}"), 200, success(USER | {"name": "Grace"}))
    refused(buyer("PUT", "/api/users/1", {"name": "Grace"}), 403, "Another user's profile")
    refused(buyer("PATCH", f"/api/users/{me}"), 405, "Method not allowed")


def test_products_routes(portal):
    product = portal.product(name="Hexagon nut", description="brass, M10")
    admin, buyer, anybody = portal.administrator(), portal.buyer(), portal.somebody()
    at = f"/api/products/{product['id']}"
    expect(anybody("GET", "/api/products"), 200, success([PRODUCT]))
    expect(buyer("GET", at), 200, success(PRODUCT | {"id": product["id"]}))
    for words in ("q=hexagon", "q=bras", "q=nut+brass", "q=HEX"):
        found = expect(buyer("GET", "/api/products/search?" + words), 200, success([PRODUCT]))["data"]
        assert product["id"] in [one["id"] for one in found], (words, found)
    expect(buyer("GET", "/api/products/search?q=%22+OR+NEAR%28"), 200, success(list))  # FTS5's own words are words
    expect(buyer("GET", "/api/products/search"), 422)
    changed = {"name": "Hexagon nut", "description": "steel", "price": 30, "stock": 7}
    expect(admin("PUT", at, changed), 200, success(PRODUCT | changed))
    expect(buyer("GET", at), 200, success(PRODUCT | changed))
    assert expect(buyer("GET", "/api/products/search?q=brass"), 200, success(list))["data"] == []
    assert admin("DELETE", at).status == 204
    refused(buyer("GET", at), 404, f"Product {product['id']} not found")


def test_orders_routes(portal):
    buyer, bolt, nut = portal.buyer(), portal.product(), portal.product(name="Nut", price=100, stock=3)
    items = [{"product_id": bolt["id"], "quantity": 4}, {"product_id": nut["id"], "quantity": 2}]
    order = expect(buyer("POST", "/api/orders", {"items": items}), 201, success(ORDER | {"items": [ITEM], "total": 1200, "user_id": buyer.user["id"]}))["data"]
    at = f"/api/orders/{order['id']}"
    expect(buyer("GET", "/api/orders"), 200, success([ORDER]))
    expect(buyer("GET", at), 200, success(ORDER | {"items": [ITEM]}))
    refused(portal.buyer()("GET", at), 404, "Order not found")
    refused(buyer("POST", "/api/orders", {"items": [{"product_id": 999999, "quantity": 1}]}), 404, "Product 999999 not found")
    refused(buyer("POST", "/api/orders", {"items": [{"product_id": nut["id"], "quantity": 4}]}), 409, "Insufficient stock of Nut")
    expect(buyer("POST", "/api/orders", {"items": []}), 422)
    expect(buyer("POST", at + "/cancel"), 200, success(ORDER | {"items": [ITEM], "status": "cancelled"}))
    refused(buyer("POST", at + "/cancel"), 409, "The order is cancelled")


def test_inquiries_routes(portal):
    buyer, product = portal.buyer(), portal.product()
    asked = {"product_id": product["id"], "quantity": 20, "message": "In black?"}
    inquiry = expect(buyer("POST", "/api/inquiries", asked), 201, success(INQUIRY | {"contact": buyer.user["email"]}))["data"]
    expect(buyer("GET", "/api/inquiries"), 200, success([INQUIRY]))
    expect(buyer("GET", f"/api/inquiries/{inquiry['id']}"), 200, success(INQUIRY))
    refused(portal.buyer()("GET", f"/api/inquiries/{inquiry['id']}"), 404, "Inquiry not found")
    expect(buyer("POST", "/api/inquiries", asked | {"quantity": 0}), 422)


def test_bulk_purchase_routes(portal):
    buyer, product = portal.buyer(), portal.product(price=200, stock=2000)
    asked = {"product_id": product["id"], "quantity": 1000, "delivery_date": "2030-01-31"}
    purchase = expect(buyer("POST", "/api/bulk-purchase", asked), 201, success(PURCHASE | {"discount": 10, "total": 180_000}))["data"]
    expect(buyer("GET", "/api/bulk-purchase"), 200, success([PURCHASE]))
    expect(buyer("GET", f"/api/bulk-purchase/{purchase['id']}"), 200, success(PURCHASE))
    refused(buyer("POST", "/api/bulk-purchase", asked | {"quantity": 3000}), 409, "Insufficient stock of Steel bolt M8")
    expect(buyer("POST", "/api/bulk-purchase", asked | {"quantity": 99}), 422)


def test_paths_without_a_route(portal):
    for path in ("/", "/api", "/api/config", "/api/health", "/api/nothing/1", "/health"):
        expect(portal.somebody()("GET", path), 404, ERROR)


# Who asks, and how often


def test_401(portal):
    for method, path in [
        ("GET", "/api/users/1"), ("GET", "/api/products/1"), ("GET", "/api/products/search?q=bolt"), ("POST", "/api/auth/validate"), ("POST", "/api/products"),
        ("GET", "/api/orders"), ("POST", "/api/orders"), ("GET", "/api/inquiries"), ("GET", "/api/bulk-purchase"), ("DELETE", "/api/products"),
    ]:  # fmt: skip
        client = portal.somebody()
        refused(client(method, path), 401, "Authentication required")
        refused(client(method, path, Authorization="Bearer wrong"), 401, "Invalid authentication token")


def test_403(portal):
    buyer, product = portal.buyer(), portal.product()
    at = f"/api/products/{product['id']}"
    for method, path in [("POST", "/api/products"), ("PUT", at), ("DELETE", at)]:
        expect(buyer(method, path), 403, ERROR)
    expect(buyer("GET", at), 200)


def test_429(portal):
    buyer = portal.buyer()
    for path, limit in [("/api/products/search?q=bolt", 30), ("/api/users/1", 100)]:
        answers = [buyer("GET", path) for _ in range(limit + 4)]
        passed = [answer.status for answer in answers].count(200)
        assert limit <= passed <= limit + 3, (path, passed)  # some came back meanwhile
        body = refused_by_limit(answers)
        assert 1 <= body["retry_after"] <= 60, body
        other = portal.buyer()
        expect(other("GET", path), 200)  # another user
        expect(buyer.elsewhere()("GET", path), 200)  # another address
    client = portal.somebody()
    answers = [client("POST", "/api/auth/login", {"email": "a@b.example", "password": "wrong"}) for _ in range(12)]
    assert [answer.status for answer in answers[:10]] == [401] * 10, answers
    refused_by_limit(answers)


def refused_by_limit(answers):
    """The body of the refusal that is among them, which tells when to come again twice."""
    refusals = [answer for answer in answers if answer.status == 429]
    assert refusals, answers[-1]
    body = expect(refusals[0], 429, ERROR | {"message": "Rate limit exceeded", "retry_after": int})
    assert body["retry_after"] == int(refusals[0].headers["Retry-After"]), refusals[0].headers.items()
    return body


def test_who_asks_is_told_to_services_and_by_nobody_else(portal):
    """`$request->merge(['user' => ..])` is a field that only the gateway can write."""
    buyer, other = portal.buyer(), portal.buyer()
    product = portal.product()
    order = expect(buyer("POST", "/api/orders", {"items": [{"product_id": product["id"], "quantity": 1}]}, X_User_ID=str(other.user["id"])), 201)["data"]
    assert order["user_id"] == buyer.user["id"], order


# Documents


def health(service, **checks):
    return {"status": "healthy", "timestamp": TIME, "service": service, "version": "1.0.0", "checks": checks}


DATABASE = {"status": "healthy", "message": "Database connection successful"}
REDIS = {"status": "healthy", "message": "Redis connection successful"}
MEMORY = {"status": "healthy", "message": re.compile(r"Memory usage: [\d.]+MB")}


def test_health_documents(portal):
    for name in PORTS:
        port = portal.services[f"{name}-1"].made_of[2]["PORT"]
        expect(ask(port, "GET", "/health"), 200, health(name, database=DATABASE, redis=REDIS, memory=MEMORY))


def test_ready_documents(portal):
    for name in PORTS:
        needed = ("user-service", "product-service") if name in CALLERS else ()
        body = expect(portal.services[f"{name}-1"].admin("/ready"), 200)
        assert {"status", "timestamp", "checks"} <= set(body) and body["status"] == "ready", body
        for service in needed:
            check = body["checks"][service]
            assert (check["status"], check["message"]) == ("ready", "2 healthy instances found"), check


def test_gateway_has_documents_too(portal):
    body = expect(portal.services["gateway"].admin("/health"), 200)
    assert {"status", "timestamp", "service", "version", "checks"} <= set(body), body
    assert (body["status"], body["service"]) == ("healthy", "api-gateway"), body
