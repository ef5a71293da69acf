"""S0, the PHP portal (examples/portal): every route of its gateway, its documents and errors, what breaks, and what its own code got wrong."""

import contextlib
import re
import secrets
import socket
import threading
import time

from stack import TIME, Client, Load, Planted, Stack, alike, ask, at_once, eventually, expect, registration, until_refused

PORTS = {"user-service": 8001, "product-service": 8002, "order-service": 8003, "inquiry-service": 8004, "purchase-service": 8005}
CALLERS = ("order-service", "inquiry-service", "purchase-service")
# So that tests need not wait: a minute for a breaker (the source's own variable), half a one until an emptied list is believed.
SHORTER = {"inquiry-service": {"CIRCUIT_BREAKER_RECOVERY_TIMEOUT": "1"}, "purchase-service": {"LICTOR_CONSUL_GUARD_ON_EMPTY": "drop"}}
FORM = "application/x-www-form-urlencoded"
ADMIN = {"email": "admin@portal.example", "password": secrets.token_hex(12)}


class Portal(Stack):
    """The gateway, and the five services behind it; two instances of those that the others need."""

    LOGIN, ADMIN = "/api/auth/login", ADMIN

    def __init__(self, keep):
        super().__init__("portal", keep)
        self.gateway_port = self.port(8080)

    def start_service(self, name, number=1, **environment):
        usual = PORTS[name]
        ports = {"PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": usual + 1_800}
        if name in CALLERS:
            ports |= {"USERS_PORT": usual % 10 * 10 + 9_001, "PRODUCTS_PORT": usual % 10 * 10 + 9_002}
        ports = {key: self.port(port) for key, port in ports.items()}
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **(ports | ({} if self.keep else SHORTER.get(name, {})) | environment))

    def start_gateway(self, name="gateway", port=None, **environment):
        ports = {"GATEWAY_PORT": port or self.port(8080), "ADMIN_PORT": self.port(9800)}
        return self.start(name, "lictor/api-gateway.yaml", **ports, **environment)

    def start_all(self):
        self.start_consul()
        self.start_redis()
        self.environment |= {
            "DATA": self.data, "INTERNAL_SERVICE_TOKEN": secrets.token_hex(16), "ADMIN_EMAIL": ADMIN["email"], "ADMIN_PASSWORD": ADMIN["password"],
            "APP_ENV": "production",
        }
        if not self.keep:
            self.environment |= {"CHECK_INTERVAL": "1s", "WORKERS": 3, "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s"}
        for name in PORTS:
            self.start_service(name)
        if not self.keep:
            for name in ("user-service", "product-service", "order-service"):
                self.start_service(name, 2)
        self.start_gateway(port=self.gateway_port)
        self.is_whole()

    def buyer(self):
        """A client who is registered and logged in."""
        client = self.somebody()
        email, password = f"{secrets.token_hex(6)}@buyer.example", secrets.token_hex(8)
        expect(client("POST", "/api/auth/register", {"name": "Buyer", "email": email, "password": password}), 201)
        return self.somebody().login(email, password)

    def product(self, **more):
        """A new product."""
        new = {"sku": secrets.token_hex(6), "name": "Steel bolt M8", "description": "Zinc plated", "price": 250, "stock": 5000} | more
        return expect(self.administrator()("POST", "/api/products", new), 201)["data"]


SYSTEM = Portal


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
}


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
    alike(wrong, ERROR | {"errors": {"email": ["email is no address"], "password": ["password is shorter than 8"]}})
    refused(client("POST", "/api/auth/register", b"name=%FF&email=b@buyer.example&password=correct+horse", Content_Type=FORM), 400, "The request is not UTF-8")
    refused(client("POST", "/api/auth/login", {"email": "ada@buyer.example", "password": "wrong"}), 401, "Invalid credentials")
    shown = expect(client("POST", "/api/auth/login", new), 200, success({"token": str, "expires_in": int, "user": USER}))["data"]
    ada = Client(portal, {"Authorization": "Bearer " + shown["token"]}, source=client.source)
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
    for words in ("%22+OR+NEAR%28", "%00%22", "%E4%B8%87%E6%96%B9"):  # FTS5's own words are words
        expect(buyer("GET", "/api/products/search?q=" + words), 200, success(list))
    for query, status in [("", 422), ("?q=+", 422), ("?q=%FF", 400)]:
        expect(buyer("GET", "/api/products/search" + query), status)
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
    ]:
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
    for path, limit in [("/api/products/search?q=bolt", 30), ("/api/users/1", 100)]:
        buyer = portal.buyer()
        refusal = until_refused(lambda: buyer("GET", path), limit)
        body = expect(refusal, 429, ERROR | {"message": "Rate limit exceeded", "retry_after": int})
        assert 1 <= body["retry_after"] <= 60 and str(body["retry_after"]) == refusal.headers["Retry-After"], (body, refusal.headers.items())
        expect(portal.buyer()("GET", path), 200)  # another user
        expect(buyer.elsewhere()("GET", path), 200)  # another address
    client = portal.somebody()
    until_refused(lambda: client("POST", "/api/auth/login", {"email": "a@b.example", "password": "wrong"}), 10)


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
        port = portal.services[f"{name}-1"].variables["PORT"]
        expect(ask(port, "GET", "/health"), 200, health(name, database=DATABASE, redis=REDIS, memory=MEMORY))


def test_ready_documents(portal):
    for name in PORTS:
        needed = ("user-service", "product-service") if name in CALLERS else ()
        body = expect(portal.services[f"{name}-1"].admin("/ready"), 200)
        assert {"status", "timestamp", "checks"} <= set(body) and body["status"] == "ready", body
        for service in needed:
            check = body["checks"][service]
            assert (check["status"], check["message"], check["required"]) == ("ready", "2 healthy instances found", True), check


def test_gateway_has_documents_too(portal):
    body = expect(portal.services["gateway"].admin("/health"), 200)
    assert {"status", "timestamp", "service", "version", "checks"} <= set(body), body
    assert (body["status"], body["service"]) == ("healthy", "api-gateway"), body


# Between services


def a_product(request):
    """What the product service says of a product."""
    request.reply(200, {"status": "success", "data": {"id": 7, "name": "Planted", "price": 100, "stock": 9, "sku": "p", "description": "", "created_at": ""}})


def upstream_port(service, upstream):
    return service.variables[{"user-service": "USERS_PORT", "product-service": "PRODUCTS_PORT"}[upstream]]


def test_services_show_the_internal_token_and_ask_for_it(portal):
    inbound, token = portal.services["user-service-1"].variables["INBOUND_PORT"], portal.environment["INTERNAL_SERVICE_TOKEN"]
    for headers, status in [({}, 401), ({"X-Service-Auth": "internal-service-secret"}, 401), ({"X-Service-Auth": token}, 200)]:
        expect(ask(inbound, "GET", "/api/users/1", headers=headers), status)
    with Planted(portal.consul, "product-service", a_product) as planted, portal.services["inquiry-service-1"].calls_only("product-service", planted.id):
        expect(portal.buyer()("POST", "/api/inquiries", {"product_id": 7, "quantity": 1, "message": "?"}), 201)
        assert [asked.headers["X-Service-Auth"] for asked in planted.asked] == [token]


def test_who_has_asked_is_passed_on(portal):
    buyer = portal.buyer()
    with Planted(portal.consul, "product-service", a_product) as planted, portal.services["gateway"].calls_only("product-service", planted.id):
        expect(buyer("GET", "/api/products/7", X_Forwarded_For="6.6.6.6"), 200)
        headers = planted.asked[-1].headers
        assert headers["X-Forwarded-For"].split(",")[0].strip() == buyer.source, headers.items()
        assert headers["X-User-ID"] == str(buyer.user["id"]), headers.items()


def test_request_log_and_trace_headers(portal):
    """6.1: `X-Trace-ID` is kept or made and comes back with `X-Span-ID`; the log has its fields, ERROR from 400 on."""
    buyer, trace = portal.buyer(), secrets.token_hex(16)
    answer = buyer("GET", "/api/users/1", X_Trace_ID=trace, User_Agent="portal-test")
    expect(answer, 200)
    assert answer.headers["X-Trace-ID"] == trace and answer.headers["X-Span-ID"], answer.headers.items()
    own = expect_made(buyer("GET", "/api/users/999999"))
    gateway = portal.services["gateway"]
    for wanted, path, status, level in [(trace, "/api/users/1", 200, "INFO"), (own, "/api/users/999999", 404, "ERROR")]:
        lines = eventually("it is in the log", lambda: gateway.said(trace_id=wanted, path=path, status=status))  # the question about the token has its own line
        fields = {"trace_id", "span_id", "method", "path", "status", "duration", "ip", "service", "level"}
        assert fields <= set(lines[0]) and lines[0]["level"] == level, lines
    assert gateway.said(trace_id=trace, path="/api/users/1", status=200)[0]["user_agent"] == "portal-test"
    services = [portal.services[f"user-service-{number}"] for number in (1, 2)]
    eventually("the service's log has the trace", lambda: any(service.said(trace_id=trace, path="/api/users/1") for service in services))


def expect_made(answer):
    expect(answer, 404)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Trace-ID"]), answer.headers.items()
    return answer.headers["X-Trace-ID"]


def test_numbers_and_variables_of_the_source(portal):
    """3.1 to 3.3, 4.1 and 5.1: its numbers are the defaults, its variables are understood."""
    code, text = portal.lictor("config", "-c", "lictor/order-service.yaml")
    assert code == 0, text
    for line in ("retry.attempts: 3", "breaker.failure_threshold: 5", "breaker.recovery_timeout: 1m", "timeout: 30s"):
        assert f"\ndefaults.{line}\n" in text, line
    variables = {
        "CONSUL_HOST": ("consul", "consul.address: http://consul:8501"), "CONSUL_PORT": ("8501", "consul.address: http://consul:8501"),
        "RETRY_MAX_ATTEMPTS": ("4", "defaults.retry.attempts: 4"), "SERVICE_DISCOVERY_CACHE_TTL": ("31", "consul.max_stale: 31s"),
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD": ("7", "defaults.breaker.failure_threshold: 7"),
        "CIRCUIT_BREAKER_RECOVERY_TIMEOUT": ("61", "defaults.breaker.recovery_timeout: 61s"),
    }
    code, text = portal.lictor("config", "-c", "lictor/order-service.yaml", **{name: value for name, (value, _) in variables.items()})
    assert code == 0, text
    for name, (_, line) in variables.items():
        assert f"\n{line}\n" in text, (name, text)
    code, text = portal.lictor("config", "-c", "lictor/api-gateway.yaml", RATE_LIMIT_DEFAULT_REQUESTS="50", RATE_LIMIT_AUTH_WINDOW="30")
    assert code == 0 and "50/60s" in text and "10/30s" in text, text
    for balance in ("round_robin", "random", "least_connections", "weighted"):
        code, text = portal.lictor("check", "-c", "lictor/order-service.yaml", "--set", f"defaults.balance={balance}")
        assert code == 0, text
    code, text = portal.lictor("check", "-c", "lictor/order-service.yaml", "--set", "defaults.balance=weigthed")
    assert code == 1 and "did you mean `weighted`" in text, text  # its own balancer took round_robin without a word


def test_ports_of_the_source(portal):
    """5.2: 8080, 8001, 8002; the other three have none there. (Tests run on others.)"""
    for name, port in PORTS.items():
        code, text = portal.lictor("config", "-c", f"lictor/{name}.yaml")
        assert code == 0 and f"\nport: {port}\n" in text, (name, text)
    code, text = portal.lictor("config", "-c", "lictor/api-gateway.yaml")
    assert code == 0 and re.search(r"^gateway\.listen\S*: 127\.0\.0\.1:8080$", text, re.MULTILINE), text


# What the source's own code got wrong


def test_d1_d20_a_service_is_registered_for_as_long_as_it_is_there(portal):
    """D1: removed after 30 s of silence, which Consul does not do. D20: deregistered at another agent than it was registered with."""
    with portal.consul.recorded() as (port, asked):
        paths = lambda: [path for method, path, _ in asked if method == "PUT"]
        with portal.another("purchase-service", 2, CONSUL_PORT=port) as service:
            body, check = registration(asked)
            ports = service.variables
            alike({key: body[key] for key in ("Name", "Address", "Port")}, {"Name": "purchase-service", "Address": "127.0.0.1", "Port": ports["INBOUND_PORT"]})
            wanted = {"HTTP": f"http://127.0.0.1:{ports['PORT']}/health", "Interval": "1000ms", "Timeout": "5000ms", "DeregisterCriticalServiceAfter": "60000ms"}
            alike({key: check[key] for key in wanted}, wanted)
            assert body["ID"] == service.id, body["ID"]
            assert body["ID"] in portal.consul.instances("purchase-service")
        assert f"/v1/agent/service/deregister/{body['ID']}" in paths(), paths()
        assert body["ID"] not in portal.consul.instances("purchase-service", passing=False)
    code, text = portal.lictor("check", "-c", "lictor/order-service.yaml", "--set", "registration.deregister_after=30s")
    assert code == 0 and "LIC-C101" in text and "1m is used" in text, text


def test_d2_all_checks_of_an_instance_count(portal):
    """D2: it looked at `Checks[1]` alone; a further check said nothing, and none at all was an error."""
    gateway, consul, service = portal.services["gateway"], portal.consul, portal.services["user-service-1"]
    both, id = consul.instances("user-service"), "d2-" + secrets.token_hex(8)
    (sick,) = [instance for instance in both if instance.endswith(f"-{service.variables['INBOUND_PORT']}")]
    consul.ask("/v1/agent/check/register", "PUT", {"ID": "zz-disk", "Name": "disk", "ServiceID": sick, "TTL": "10m", "Status": "critical"})
    try:
        eventually("the sick one is left out", lambda: gateway.endpoints("user-service") == both - {sick})
        for _ in range(6):
            expect(portal.somebody()("POST", "/api/auth/login", ADMIN, X_Request_ID=id), 200)
        eventually("the other has them", lambda: len(portal.services["user-service-2"].said(request_id=id)) == 6)
    finally:
        consul.ask("/v1/agent/check/deregister/zz-disk", "PUT")
    eventually("both are back", lambda: gateway.endpoints("user-service") == both)
    with Planted(consul, "product-service", a_product) as planted:
        eventually("one without checks is used", lambda: portal.somebody()("GET", "/api/products").status == 200 and planted.asked)


def test_d3_every_request_is_balanced(portal):
    """D3: one instance, picked by chance, had every request for 30 s, also when it had gone."""
    services = [portal.services[f"product-service-{number}"] for number in (1, 2)]
    before = [service.metric("http_requests_total") for service in services]
    shares = lambda: [service.metric("http_requests_total") - count for service, count in zip(services, before)]
    eventually("both have some", lambda: expect(portal.somebody()("GET", "/api/products"), 200) and min(shares()) >= 5, 20)


def test_d4_failures_are_retried_and_counted(portal):
    """D4: `http_errors => false` beside retries by exceptions: an answer of 500 was neither retried nor counted."""
    gateway = portal.services["gateway"]
    retries = lambda: gateway.metric("lictor_retries_total", upstream="product-service")
    for status in (500, 502, 503, 504):
        before, id = retries(), f"d4-{status}"
        with Planted(portal.consul, "product-service", lambda request: request.reply(status, {})) as planted:
            eventually("the broken one is asked", lambda: expect(portal.somebody()("GET", "/api/products", X_Request_ID=id), 200) and planted.asked, 30)
        assert retries() > before, status
        retried = re.compile(rf"={status}\(\d+ms\), \S+=200\(")
        eventually("it is in the log", lambda: any(retried.search(line["attempts"]) for line in gateway.said(request_id=id)))


def test_d5_a_breaker_that_is_half_open_lets_one_through(portal):
    """D5: half open, all got through, and its count began at 0 again."""
    inquiries, buyer = portal.services["inquiry-service-1"], portal.buyer()
    port, released, running, most = upstream_port(inquiries, "product-service"), threading.Event(), [], []
    healed = threading.Event()

    def answer(request):
        if not healed.is_set():
            return request.reply(500, {})
        running.append(request)
        most.append(len(running))
        released.wait(30)
        running.remove(request)
        a_product(request)

    state = lambda: inquiries.metric("circuit_breaker_state", name="product-service")
    call = lambda: ask(port, "GET", "/api/products/7")
    with Planted(portal.consul, "product-service", answer) as planted, portal.consul.maintenance("product-service", but=planted.id):
        eventually("there is nobody else", lambda: inquiries.endpoints("product-service") == {planted.id}, 40)
        expect(call(), 500)
        waits = [later.at - earlier.at for earlier, later in zip(planted.asked, planted.asked[1:])]
        assert len(waits) == 2 and waits[0] >= 0.08 and waits[1] >= 0.4, waits  # 100 and 500 ms, 20 % less or more
        eventually("five failures open it", lambda: call().status >= 500 and state() == 1)
        count = len(planted.asked)
        refusal = call()
        assert expect(refusal, 503)["reason"] == "breaker_open" and len(planted.asked) == count, refusal
        assert int(refusal.headers["Retry-After"]) >= 1, refusal.headers.items()
        eventually("it is in the log", lambda: inquiries.said(kind="breaker_changed", upstream="product-service", to="open"))
        refused(buyer("POST", "/api/inquiries", {"product_id": 7, "quantity": 1, "message": "?"}), 503, "Service temporarily unavailable")
        eventually("one is let through, fails, and it is open again", lambda: call() and len(planted.asked) > count, 30)
        assert len({asked.headers["X-Request-ID"] for asked in planted.asked[count:]}) == 1 and state() == 1, state()
        healed.set()
        first = threading.Thread(target=lambda: eventually("it is half open", lambda: call().status == 200, 40))
        first.start()
        eventually("one got through", lambda: running, 40)
        assert state() == 2, state()
        others = at_once(8, call)
        assert [answer.status for answer in others] == [503] * 8 and max(most) == 1, (others, most)
        released.set()
        first.join()
        eventually("three that go well close it", lambda: call().status == 200 and state() == 0)
        assert len(most) >= 3, most
    eventually("the others are used again", lambda: call().status in (200, 404) and state() == 0)


def test_d6_d21_what_is_asked_and_answered_passes_as_it_is(portal):
    """D6: each body went as JSON and as a form, the query twice, hop-by-hop fields along. D21: answers were taken apart, and could not stream."""
    seen, more = threading.Event(), threading.Event()

    def answer(request):
        if request.path.endswith("/stream"):
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"5\r\nfirst\r\n")
            more.wait(20)
            request.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")
        else:
            request.reply(418, {"as": "it is"}, **{"X-Kept": "yes", "Connection": "keep-alive, x-inner", "X-Inner": "no"})

    admin = portal.administrator()
    with Planted(portal.consul, "product-service", answer) as planted, portal.services["gateway"].calls_only("product-service", planted.id):
        hops = {"Connection": "x-hop", "X_Hop": "no", "Keep_Alive": "5", "Proxy_Authorization": "no"}
        bodies = {"application/json": b'{"price": 1}', FORM: b"price=1&price=2", "image/png": bytes(range(256)) * 40}
        for kind, body in bodies.items():
            answer = admin("PUT", "/api/products/7?a=1&b=%20", body, Content_Type=kind, **hops)
            asked = planted.asked[-1]
            assert (asked.method, asked.path, asked.body, asked.headers["Content-Type"]) == ("PUT", "/api/products/7?a=1&b=%20", body, kind), asked.path
            for name in ("X-Hop", "Keep-Alive", "Proxy-Authorization", "Connection"):
                assert name not in asked.headers, asked.headers.items()
            assert expect(answer, 418) == {"as": "it is"} and answer.headers["X-Kept"] == "yes" and "X-Inner" not in answer.headers, answer.headers.items()
        admin("GET", "/api/products/7")
        assert planted.asked[-1].body == b"" and "Content-Length" not in planted.asked[-1].headers, planted.asked[-1].headers.items()
        with socket.create_connection(("127.0.0.1", portal.gateway_port), 20, (admin.source, 0)) as connection:
            connection.sendall(f"GET /api/products/stream HTTP/1.1\r\nHost: portal\r\nAuthorization: {admin.headers['Authorization']}\r\n\r\n".encode())
            text = b""
            while b"first" not in text:
                text += connection.recv(4096)
            assert b"last" not in text
            more.set()
            while b"last" not in text:
                text += connection.recv(4096)


def test_d7_limits_end_and_have_no_edge(portal):
    """D7: INCR, then EXPIRE: a counter without an end when the second is lost; and twice the limit where two windows meet."""
    second = portal.start_gateway("gateway-2", RATE_LIMIT_AUTH_REQUESTS="5", RATE_LIMIT_AUTH_WINDOW="5")
    try:
        eventually("the second gateway is up", second.is_up, 30)
        counted_by_two(portal, second)
    finally:
        second.end()
        del portal.services["gateway-2"]


def counted_by_two(portal, second):
    client = Client(portal, port=second.variables["GATEWAY_PORT"])
    login = lambda: client("POST", "/api/auth/login", {}).status
    began = time.monotonic()
    assert login() == 422
    eventually("the window is nearly over", lambda: time.monotonic() > began + 4.8)
    edge, statuses = time.monotonic(), []
    while time.monotonic() < edge + 0.4:
        statuses += at_once(8, login)
    admitted, back = statuses.count(422), time.monotonic() - edge
    assert 1 <= admitted <= 5 + back + 1 and 429 in statuses, (statuses, back)
    eventually("it may ask again", lambda: login() == 422)
    # What one gateway has counted holds at the other; and each counter has an end.
    buyer = portal.buyer()
    until_refused(lambda: buyer("GET", "/api/products/search?q=bolt"), 30)
    there = Client(portal, buyer.headers, port=client.port, source=buyer.source)
    assert there("GET", "/api/products/search?q=bolt").status == 429
    keys = portal.ask_redis("--scan").split()
    limits = [key for key in keys if not key.startswith(("user:", "product:"))]
    ends = [int(portal.ask_redis("pttl", key)) for key in limits]
    assert limits and all(end > 0 or end == -2 for end in ends), list(zip(limits, ends))


def test_d8_what_is_public_is_so_by_its_route(portal):
    """D8: public was what equalled a text: `/api/products` was open, and whoever changed a letter of it decided."""
    anybody = portal.somebody
    for path in ("/api/products", "/api/products/", "//api//products", "/api/./products", "/api/%70roducts", "/api/products?page=1"):
        assert anybody()("GET", path).status == 200, path
    for path in ("/api/products/1", "/api/products/search?q=x", "/api/products/../users/1", "/api/auth/login/../validate", "/api/auth/login/x"):
        refused(anybody()("GET", path), 401, "Authentication required")
    code, text = portal.lictor("routes", "-c", "lictor/api-gateway.yaml")
    assert code == 0, text
    table = {tuple(line.split()[1:2]) + tuple(re.findall("GET, HEAD", line)): re.search("none|required", line)[0] for line in text.splitlines()[1:]}
    assert table["/api/products", "GET, HEAD"] == "none" and table["/api/products/*", "GET, HEAD"] == "required", text
    assert [path[0] for path, auth in table.items() if auth == "none"] == ["/api/auth/login", "/api/auth/register", "/api/products"], text


def test_d11_one_request_has_one_id(portal):
    """D11: each call had a new `X-Request-ID`."""
    buyer, product, id = portal.buyer(), portal.product(), "portal-" + secrets.token_hex(8)
    items = [{"product_id": product["id"], "quantity": 1}]
    answer = buyer("POST", "/api/orders", {"items": items}, X_Request_ID=id)
    expect(answer, 201)
    assert answer.headers["X-Request-ID"] == id, answer.headers.items()
    seen = {"order-service": "/api/orders", "user-service": f"/api/users/{buyer.user['id']}", "product-service": f"/api/products/{product['id']}"}
    for service, path in seen.items():
        instances = [portal.services[f"{service}-{number}"] for number in (1, 2)]
        eventually(f"{service} has it", lambda: any(one.said(request_id=id, path=path, direction="inbound") for one in instances))


def test_d25_the_secret_of_the_document_is_refused(portal):
    """D25: `internal-service-secret` where no other was set."""
    for command in (["check"], ["serve"], ["run"]):
        code, text = portal.lictor(*command, "-c", "lictor/user-service.yaml", INTERNAL_SERVICE_TOKEN="internal-service-secret")
        assert code == 1 and "INTERNAL_SERVICE_TOKEN" in text and "public tutorials" in text and "application" not in text, (command, text)


# What breaks


def reads(portal, buyer, order):
    """What clients read all the while: each from many addresses, so that no limit is in the way."""
    paths = ["/api/products", f"/api/orders/{order}", "/api/users/1", "/api/inquiries"]
    return lambda number: buyer.elsewhere()("GET", paths[number % len(paths)])


def an_order(portal, buyer):
    product = portal.product()
    return expect(buyer("POST", "/api/orders", {"items": [{"product_id": product["id"], "quantity": 1}]}), 201)["data"]["id"]


def test_an_instance_is_killed_under_load(portal):
    buyer = portal.buyer()
    order = an_order(portal, buyer)
    with Load(reads(portal, buyer, order)) as load:
        for name in ("product-service-1", "order-service-2"):
            portal.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_an_instance_that_knows_tokens_is_killed_under_load(portal):
    """What it was asked about a token another one is asked."""
    buyer = portal.buyer()
    order = an_order(portal, buyer)
    with Load(reads(portal, buyer, order)) as load:
        portal.killed("user-service-1", load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_an_instance_is_replaced_under_load(portal):
    buyer = portal.buyer()
    order = an_order(portal, buyer)
    with Load(reads(portal, buyer, order)) as load:
        for name in ("product-service-2", "user-service-2"):
            portal.replaced(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_the_user_service_is_down(portal):
    """503 in the source's shape: nobody can be asked who somebody is. (Its own gateway said 401 then, as if the token were wrong.)"""
    buyer, anybody = portal.buyer(), portal.somebody()
    product = portal.product()
    with portal.gone("user-service-1", "user-service-2"):
        down = ERROR | {"message": "Service temporarily unavailable"}
        refusal = anybody("POST", "/api/auth/login", ADMIN)  # refused connections, then an open breaker, then no instance
        assert refusal.status in (502, 503), refusal
        expect(refusal, refusal.status, down | ({"retry_after": int} if "retry_after" in refusal.json() else {}))
        eventually("known tokens are forgotten", lambda: buyer("GET", "/api/orders").status == 503)
        refused(buyer("GET", "/api/products/1"), 503, down["message"])
        refused(portal.somebody()("GET", "/api/users/1"), 401, "Authentication required")
        expect(anybody("GET", "/api/products"), 200, success([PRODUCT]))  # who needs no user is served
        assert product
        purchases = portal.services["purchase-service-1"]
        eventually("it has nobody to call", lambda: purchases.endpoints("user-service") == set())
        body = expect(purchases.admin("/ready"), 503)
        assert body["status"] == "not_ready" and body["checks"]["product-service"]["status"] == "ready", body
        check = body["checks"]["user-service"]
        assert (check["status"], check["message"]) == ("not_ready", "No healthy instances of user-service found"), check
        assert expect(ask(upstream_port(purchases, "user-service"), "GET", "/api/users/1"), 503)["reason"] == "no_endpoints"
    eventually("orders are taken again", lambda: buyer.elsewhere()("GET", "/api/orders").status == 200, 30)


def test_a_service_is_gone(portal):
    """Its only instance is killed: 502 in the source's shape as long as Consul has not noticed. (Its own gateway said 503.)"""
    buyer = portal.buyer()
    expect(buyer("GET", "/api/inquiries"), 200)
    portal.services["inquiry-service-1"].kill()
    refused(buyer("GET", "/api/inquiries"), 502, "Service temporarily unavailable")
    portal.back("inquiry-service-1")
    eventually("it is called again", lambda: buyer("GET", "/api/inquiries").status == 200)


def test_redis_is_down(portal):
    """`/health` says so in the source's words. What it was for is slower or local meanwhile; nothing fails."""
    buyer, product = portal.buyer(), portal.product()
    order = an_order(portal, buyer)
    gateway = portal.services["gateway"]
    connected = lambda: gateway.metric("lictor_limit_redis_up")
    workers = eventually("it has connections", connected)
    paths = [f"/api/products/{product['id']}", f"/api/users/{buyer.user['id']}", f"/api/orders/{order}"]
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: portal.redis.is_alive() or portal.redis_again())
        load = ends.enter_context(Load(lambda number: buyer.elsewhere()("GET", paths[number % 3])))
        load.goes_on()
        portal.redis.kill()
        eventually("the gateway knows", lambda: connected() == 0)
        load.goes_on()
        lost = {"status": "unhealthy", "message": re.compile("Redis connection failed: .+")}
        for name in PORTS:
            body = health(name, database=DATABASE, redis=lost, memory=MEMORY) | {"status": "unhealthy"}
            expect(ask(portal.services[f"{name}-1"].variables["PORT"], "GET", "/health"), 503, body)
        client = portal.somebody()
        until_refused(lambda: client("POST", "/api/auth/login", {}), 10)
        eventually("Consul calls all of them critical", lambda: not portal.consul.instances("user-service"))
        load.goes_on()  # an emptied list is not believed for 30 s
        portal.redis_again()
        eventually("they are well", lambda: len(portal.consul.instances("user-service")) == 2, 20)
        eventually("the gateway counts there again", lambda: connected() == workers, 20)
        load.goes_on()
    assert not load.failed, (load.answers, load.failed[:5])


def test_consul_is_restarted(portal):
    buyer = portal.buyer()
    portal.consul_is_restarted(reads(portal, buyer, an_order(portal, buyer)))
