"""S3, the shop in Go with Gin (examples/gin): every route of its gateway, its documents and errors, its transactions, what breaks, and what its own code got wrong."""

import contextlib
import http.client
import json
import re
import secrets
import threading
import time

from kit import limit
from stack import TIME, Client, Load, Planted, Stack, alike, ask, at_once, eventually, expect, registration, signed, until_refused
from stores import Postgres, RabbitMq

PORTS = {"user-service": 8081, "order-service": 8082, "product-service": 8083}
STORES = {"postgres": 5432, "redis": 6379, "rabbitmq": 5672}
DATABASES = {"user-service": "userdb", "order-service": "orderdb", "product-service": "productdb"}
ADMIN = {"email": "admin@shop.example", "password": secrets.token_hex(12)}
SAGA = "?by=saga"
TRANSACTION_LIMIT = 3  # seconds, of which the service itself gives 30


class Buyer(Client):
    def balance(self):
        return expect(self.elsewhere()("GET", f"/api/users/{self.user['id']}/balance"), 200)["balance"]

    def order(self, product, quantity=1, by="", **headers):
        return self("POST", "/api/orders" + by, {"items": [{"product_id": product["id"], "quantity": quantity}]}, **headers)


class Shop(Stack):
    """The gateway, two instances of each service, and the stores that they find in Consul."""

    LOGIN, ADMIN = "/api/users/login", ADMIN
    GATEWAY, CLIENT = "gateway", Buyer

    def __init__(self, keep):
        super().__init__("gin", keep)
        self.gateway_port = self.port(8080)

    def start_service(self, name, number=1, **more):
        usual = PORTS[name]
        ports = {"PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": usual + 1_800, "DB_PORT": usual + 1_250, "CACHE_PORT": usual + 1_290}
        if name == "order-service":
            ports |= {"USERS_PORT": 9301, "PRODUCTS_PORT": 9302, "PRODUCTS_GRPC_PORT": 9352, "BROKER_PORT": 9362}
        ports = {key: self.port(port) for key, port in ports.items()}
        # lictor gives the address of each store.
        stores = {
            "DB_URL": f"postgres://user:{self.password}@$POSTGRES_HOST:$POSTGRES_PORT/{DATABASES[name]}?sslmode=disable",
            "RABBITMQ_URL": f"amqp://user:{self.password}@$AMQP_HOST:$AMQP_PORT/",
        }
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **ports, **stores, **more)

    def start_gateway(self, name="gateway", port=None, **environment):
        ports = {"GATEWAY_PORT": port or self.port(8080), "ADMIN_PORT": self.port(9880)}
        return self.start(name, "lictor/gateway.yaml", **ports, **environment)

    def start_stores(self):
        self.password = secrets.token_hex(12)
        ports = {name: self.port(usual) for name, usual in STORES.items() if name != "redis"}
        self.rabbitmq = RabbitMq(ports["rabbitmq"], "user", self.password)
        self.stores.append(self.rabbitmq)
        self.postgres = Postgres(ports["postgres"], "user", *DATABASES.values(), password=self.password)
        self.stores.append(self.postgres)
        self.start_redis()
        for name in ("REDIS_HOST", "REDIS_PORT"):  # services are told by lictor
            del self.environment[name]
        for name, port in (ports | {"redis": self.redis_port}).items():
            self.start(name, "lictor/store.yaml", STORE=name, STORE_PORT=port, ADMIN_PORT=self.port(STORES[name] + 4_000))

    def start_all(self):
        self.start_consul()
        if not self.keep:
            self.environment |= {
                "CHECK_TTL": "3s", "CHECK_INTERVAL": "1s", "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s", "RATE_LIMIT": "100/60s",
                "TCC_TIMEOUT": f"{TRANSACTION_LIMIT}s", "SALES_EVERY": "500ms", "CIRCUIT_BREAKER_RECOVERY_TIMEOUT": "1",
            }
        self.start_stores()
        self.environment |= {
            "INTERNAL_SERVICE_TOKEN": secrets.token_hex(16), "JWT_SECRET": secrets.token_hex(24),
            "ADMIN_EMAIL": ADMIN["email"], "ADMIN_PASSWORD": ADMIN["password"], "LICTOR_BUILDING_BLOCKS_TOKEN": secrets.token_hex(16),
        }
        for name in PORTS:
            self.start_service(name)
            if not self.keep:
                self.start_service(name, 2)
        self.start_gateway(port=self.gateway_port)
        eventually("RabbitMQ is up", self.rabbitmq.is_up, 60)  # orders wait for it
        self.is_whole()
        eventually("all are well in Consul", self.all_pass, 30)

    def all_pass(self):
        return all(len(self.consul.instances(name)) == (1 if self.keep else 2) for name in PORTS)

    def instances(self, name):
        return [self.services[f"{name}-{number}"] for number in (1, 2)]

    def buyer(self):
        """A client who is registered and logged in, with a balance of 1000000."""
        email, password = f"{secrets.token_hex(6)}@buyer.example", secrets.token_hex(8)
        expect(self.somebody()("POST", "/api/users/register", {"name": "Buyer", "email": email, "password": password}), 201)
        return self.somebody().login(email, password)

    def product(self, **more):
        """A new product."""
        return expect(self.administrator()("POST", "/api/products", {"name": "Steel bolt M8", "description": "Zinc plated", "price": 250, "stock": 5000} | more), 201)

    def stock(self, product):
        return expect(self.administrator()("GET", f"/api/products/{product['id']}"), 200)["stock"]

    def inside(self, name):
        """Asks an instance as other services do."""
        headers = {"X-Service-Auth": self.environment["INTERNAL_SERVICE_TOKEN"]}
        return lambda method, path, body=None, **more: ask(self.services[name].variables["INBOUND_PORT"], method, path, body, headers | more)


SYSTEM = Shop


def told(shop):
    return f"""The shop is up; Ctrl-C stops it.
  gateway    http://localhost:{shop.gateway_port}/health
  Consul     http://localhost:{shop.consul.port}/ui
  dashboard  http://localhost:9880/ui (the gateway's; 9881 to 9883 the services')
  log in     curl localhost:{shop.gateway_port}/api/users/login -d '{json.dumps(ADMIN)}'"""


# Shapes of the source, and those of the business that it leaves out.
ERROR = {"error": str}
USER = {"id": int, "name": str, "email": str, "role": re.compile("user|admin")}
PRODUCT = {"id": int, "name": str, "description": str, "price": int, "stock": int}
ORDER = {"id": int, "user_id": int, "status": re.compile("created|completed|canceling|cancelled"), "total": int, "created_at": TIME}
ITEM = {"product_id": int, "name": str, "price": int, "quantity": int}
DETAILS = ORDER | {"items": [ITEM], "customer": str, "history": list}


def refused(answer, status, text):
    return expect(answer, status, {"error": text})


# Routes


def test_users_routes(shop):
    client, new = shop.somebody(), {"name": "Ada", "email": "Ada@buyer.example", "password": "correct horse"}
    expect(client("POST", "/api/users/register", new), 201, USER | {"name": "Ada", "email": "ada@buyer.example", "role": "user"})
    refused(client("POST", "/api/users/register", new), 409, "email is taken")
    refused(client("POST", "/api/users/register", {"name": "Ada", "email": "ada", "password": "short"}), 400, "invalid email, password")
    refused(client("POST", "/api/users/register", new | {"name": "A\0a", "email": "b@buyer.example"}), 400, "invalid request")
    refused(client("POST", "/api/users/register", b"{"), 400, "invalid request")
    refused(client("POST", "/api/users/login", {"email": "ada@buyer.example", "password": "wrong"}), 401, "invalid credentials")
    shown = expect(client("POST", "/api/users/login", new), 200, {"token": str, "expires_in": 3600, "user": USER})
    ada = Client(shop, {"Authorization": "Bearer " + shown["token"]})
    at = f"/api/users/{shown['user']['id']}"
    expect(ada("GET", "/api/users"), 200, [USER])
    expect(ada("GET", at), 200, shown["user"])
    expect(ada("GET", at + "/balance"), 200, {"id": shown["user"]["id"], "balance": 1_000_000})
    expect(ada("PUT", at, {"name": "Grace"}), 200, USER | {"name": "Grace"})
    expect(ada("GET", at), 200, USER | {"name": "Grace"})
    for path in ("/api/users/999999", "/api/users/x"):
        refused(ada("GET", path), 404, "user not found")


def test_products_routes(shop):
    product, buyer, admin = shop.product(name="Hexagon nut"), shop.buyer(), shop.administrator()
    alike(product, PRODUCT | {"name": "Hexagon nut"})
    at = f"/api/products/{product['id']}"
    expect(buyer("GET", "/api/products"), 200, [PRODUCT])
    expect(buyer("GET", "/api/products?q=HEXAGON"), 200, [PRODUCT | {"name": re.compile("Hexagon.*")}])  # that gateway dropped the query
    assert expect(buyer("GET", "/api/products?q=" + secrets.token_hex(8)), 200) == []
    expect(buyer("GET", at), 200, product)
    changed = {"name": "Nut", "description": "steel", "price": 30, "stock": 7}
    expect(admin("PUT", at, changed), 200, PRODUCT | changed)
    expect(buyer("GET", at), 200, PRODUCT | changed)
    refused(admin("POST", "/api/products", changed | {"price": 0, "name": ""}), 400, "invalid name, price")
    refused(admin("PUT", "/api/products/999999", changed), 404, "product not found")
    refused(buyer("GET", "/api/products/999999"), 404, "product not found")


def test_orders_routes(shop):
    buyer, bolt, nut = shop.buyer(), shop.product(), shop.product(name="Nut", price=100, stock=3)
    items = [{"product_id": bolt["id"], "quantity": 4}, {"product_id": nut["id"], "quantity": 2}]
    order = expect(buyer("POST", "/api/orders", {"items": items}), 201, ORDER | {"items": [ITEM], "total": 1200, "status": "completed", "user_id": buyer.user["id"]})
    at = f"/api/orders/{order['id']}"
    expect(buyer("GET", "/api/orders"), 200, [ORDER | {"id": order["id"]}])
    expect(buyer("GET", at), 200, DETAILS | {"customer": "Buyer", "total": 1200})
    assert (shop.stock(bolt), shop.stock(nut), buyer.balance()) == (4996, 1, 998_800)
    refused(shop.buyer()("GET", at), 404, "order not found")
    refused(buyer("POST", "/api/orders", {"items": [{"product_id": 999999, "quantity": 1}]}), 404, "product not found")
    refused(buyer("POST", "/api/orders", {"items": []}), 400, "invalid items")
    refused(buyer("POST", "/api/orders", {"items": [{"product_id": bolt["id"], "quantity": -1}]}), 400, "invalid quantity")


def test_paths_without_a_route(shop):
    """What only services ask each other is not there for clients."""
    for path in ("/", "/api", "/api/nothing/1", "/api/stock/try", "/api/credit/cancel", "/ready", "/metrics"):
        expect(shop.administrator()("POST", path, {}), 404, ERROR)


# Who asks, and how often


def test_401(shop):
    secret, good = shop.environment["JWT_SECRET"], {"sub": "1", "role": "user", "exp": int(time.time()) + 600}
    wrong = [
        "wrong", signed("another secret of at least thirty-two bytes", good), signed(secret, good | {"exp": int(time.time()) - 60}),
        signed(secret, good, "none"), signed(secret, {"role": "admin", "exp": good["exp"]}),
    ]
    for method, path in [("GET", "/api/users/1"), ("GET", "/api/products"), ("POST", "/api/products"), ("GET", "/api/orders"), ("POST", "/api/orders")]:
        client = shop.somebody()
        refused(client(method, path), 401, "missing token")
        for text in wrong:
            refused(client(method, path, Authorization="Bearer " + text), 401, "invalid token")
    expect(shop.somebody()("GET", "/api/products", Authorization="Bearer " + signed(secret, good)), 200)


def test_403(shop):
    buyer, product = shop.buyer(), shop.product()
    for method, path in [("POST", "/api/products"), ("PUT", f"/api/products/{product['id']}"), ("DELETE", f"/api/products/{product['id']}")]:
        expect(buyer(method, path, {}), 403, ERROR)
    refused(buyer("PUT", "/api/users/1", {"name": "Grace"}), 403, "another user")


def test_429(shop):
    client = shop.somebody()
    refusal = until_refused(lambda: client("POST", "/api/users/login", b""), 100)
    refused(refusal, 429, "rate limit exceeded")
    assert 1 <= int(refusal.headers["Retry-After"]) <= 60, refusal.headers.items()


def test_who_asks_is_told_to_services_and_by_nobody_else(shop):
    """`c.Set("user_id", claims.Subject)` is a field that only the gateway can write."""
    buyer, other, product = shop.buyer(), shop.buyer(), shop.product()
    order = expect(buyer.order(product, X_User_ID=str(other.user["id"]), X_User_Role="admin"), 201)
    assert order["user_id"] == buyer.user["id"], order
    refused(buyer("PUT", f"/api/users/{other.user['id']}", {"name": "Grace"}, X_User_Role="admin"), 403, "another user")
    port = shop.services["order-service-1"].variables["INBOUND_PORT"]
    assert ask(port, "GET", "/api/orders", headers={"X-User-ID": "1"}).status == 401  # nobody but services is let in


# Documents


WELL = {"healthy": True, "message": "ok"}


def checks(name):
    return {"database": WELL, "redis": WELL} | ({"rabbitmq": WELL} if name == "order-service" else {})


def test_health_documents(shop):
    for name in PORTS:
        port = shop.services[f"{name}-1"].variables["PORT"]
        expect(ask(port, "GET", "/health"), 200, {"status": "healthy", "timestamp": TIME, "checks": checks(name)})
    body = expect(shop.somebody()("GET", "/health"), 200)  # the gateway's, where the source's probes ask
    assert {"status", "timestamp", "checks"} <= set(body) and body["status"] == "healthy", body


def test_ready_documents(shop):
    for name, needed in {"user-service": {"postgres": 1}, "order-service": {"postgres": 1, "user-service": 2, "product-service": 2}}.items():
        body = expect(shop.services[f"{name}-1"].admin("/ready"), 200)
        for upstream, count in needed.items():
            check = body["checks"][upstream]
            assert (check["status"], check["required"]) == ("ready", True) and check["message"].startswith(f"{count} healthy instance"), check


def test_stores_are_found_in_consul(shop):
    orders = shop.services["order-service-1"]
    for upstream, store in {"postgres": "postgres", "redis": "redis", "amqp": "rabbitmq"}.items():
        assert orders.endpoints(upstream) == shop.consul.instances(store) != set(), upstream


# Transactions and messages


def test_all_or_nothing(shop):
    """What one of the two services refuses, the other gives back."""
    poor, product = shop.buyer(), shop.product(price=300_000, stock=10)
    refused(poor.order(product, 11), 409, f"insufficient stock of product {product['id']}")
    refused(poor.order(product, 4), 409, "insufficient balance")
    assert (shop.stock(product), poor.balance()) == (10, 1_000_000)
    expect(poor.order(product, 3), 201)
    assert (shop.stock(product), poor.balance()) == (7, 100_000)
    statuses = [order["status"] for order in expect(poor("GET", "/api/orders"), 200, [ORDER])]
    assert statuses == ["completed", "cancelled", "cancelled"], statuses


def test_each_step_has_its_effect_once(shop):
    """Asked twice, in another order, or after the end."""
    product, buyer = shop.product(stock=10), shop.buyer()
    cases = {
        "product-service": ("/api/stock", {"items": [{"product_id": product["id"], "quantity": 4}]}, lambda: 10 - shop.stock(product), 4),
        "user-service": ("/api/credit", {"user_id": buyer.user["id"], "amount": 500}, lambda: 1_000_000 - buyer.balance(), 500),
    }
    for name, (path, payload, taken, amount) in cases.items():
        steps = {number: shop.inside(f"{name}-{number}") for number in (1, 2)}
        step = lambda what, transaction, number=1: steps[number]("POST", f"{path}/{what}", {"transaction": transaction, "payload": payload})
        first, second, third = (f"once-{name}-{number}-{secrets.token_hex(6)}" for number in (1, 2, 3))
        for what, status, effect in [("try", 200, amount), ("try", 200, amount), ("cancel", 200, 0), ("cancel", 200, 0), ("try", 409, 0), ("confirm", 409, 0)]:
            for number in (1, 2):
                expect(step(what, first, number), status)
            assert taken() == effect, (name, what)
        expect(step("cancel", second), 200)  # before its try
        refused(step("try", second), 409, "transaction is cancelled")
        assert taken() == 0, name
        assert sorted(answer.status for answer in at_once(6, lambda: step("try", third))) == [200] * 6
        for what, status in [("confirm", 200), ("confirm", 200), ("cancel", 409), ("try", 409)]:
            expect(step(what, third), status)
            assert taken() == amount, (name, what)
        refused(step("confirm", "never-tried"), 409, "transaction is not known")
        expect(steps[1]("POST", path + "/try", {"payload": payload}), 400, ERROR)


def test_a_crash_within_a_transaction_leaves_nothing_half_done(shop):
    """The instance that runs it is killed between two tries, and after its decision: another one finds it."""
    buyer, product = shop.buyer(), shop.product(stock=10)
    for step, status, left in [("try", "cancelled", 10), ("confirm", "completed", 6)]:
        held, users = threading.Event(), shop.inside("user-service-1")

        def answer(request):
            if request.path == f"/api/credit/{step}" and not held.is_set():
                held.wait(30)
                return request.reply(503, {})  # nobody hears it
            passed = users(request.command, request.path, planted.asked[-1].body)
            request.reply(passed.status, passed.json())

        with Planted(shop.consul, "user-service", answer) as planted, shop.consul.maintenance("user-service", but=planted.id):
            first = shop.services["order-service-1"]
            eventually("it has one user service", lambda: first.endpoints("user-service") == {planted.id}, 40)
            client = threading.Thread(target=order_at, args=(shop, "order-service-1", buyer, product))
            client.start()
            eventually("it waits for that step", lambda: [asked for asked in planted.asked if asked.path == f"/api/credit/{step}"])
            assert shop.stock(product) == 6, step
            first.kill()
            held.set()
            client.join()
            shop.start_again("order-service-1")
            newest = lambda: expect(buyer.elsewhere()("GET", "/api/orders"), 200, [ORDER])[0]["status"]
            eventually(f"it is {status}", lambda: newest() == status and shop.stock(product) == left, 30)
        eventually("it is back", shop.services["order-service-1"].is_up, 30)
    eventually("nothing is left to do", lambda: unsettled(shop) == "0", 20)
    assert buyer.balance() == 1_000_000 - 4 * product["price"]


def order_at(shop, instance, buyer, product, by=""):
    """An order that nobody waits for to its end."""
    asked = {"items": [{"product_id": product["id"], "quantity": 4}]}
    with contextlib.suppress(OSError, http.client.HTTPException):
        shop.inside(instance)("POST", "/api/orders" + by, asked, **{"X-User-ID": str(buyer.user["id"])})


def test_an_order_by_saga(shop):
    """Each step has its effect, or all are undone in reverse. (Compensations of the source were sent without what they were to undo.)"""
    buyer, product = shop.buyer(), shop.product(price=300_000, stock=10)
    order = expect(buyer.order(product, 3, SAGA), 201, ORDER | {"items": [ITEM], "total": 900_000, "status": "completed", "user_id": buyer.user["id"]})
    assert (shop.stock(product), buyer.balance()) == (7, 100_000)
    eventually("it is heard", lambda: history(shop, buyer, order) == ["order.created"], 20)
    refused(buyer.order(product, 1, SAGA), 409, "insufficient balance")
    refused(buyer.order(shop.product(price=1, stock=2), 3, SAGA), 409, "insufficient stock")
    assert (shop.stock(product), buyer.balance()) == (7, 100_000)
    orders = expect(buyer("GET", "/api/orders"), 200, [ORDER])
    assert [one["status"] for one in orders] == ["cancelled", "cancelled", "completed"], orders
    eventually("it is heard", lambda: history(shop, buyer, orders[0]) == ["order.cancelled"], 20)
    expect(buyer("POST", "/api/stock/deduct", {}), 404)  # only sagas ask for steps


def test_each_step_of_a_saga_has_its_effect_once(shop):
    """Asked again with its key, by another instance, or once it is undone."""
    product, buyer = shop.product(stock=10), shop.buyer()
    cases = {
        "product-service": ("/api/stock", "deduct", "restore", {"items": [{"product_id": product["id"], "quantity": 4}]}, lambda: 10 - shop.stock(product), 4),
        "user-service": ("/api/credit", "charge", "refund", {"user_id": buyer.user["id"], "amount": 500}, lambda: 1_000_000 - buyer.balance(), 500),
    }
    for name, (path, do, undo, payload, taken, amount) in cases.items():
        services = [shop.inside(f"{name}-{number}") for number in (1, 2)]
        first, second = (f"once-{secrets.token_hex(6)}:step" for _ in range(2))
        asked = lambda service, what, key: service("POST", f"{path}/{what}", payload, **{"Idempotency-Key": key})
        for what, key, status, effect in [
            (do, f"{first}:do", 200, amount), (undo, f"{first}:undo", 200, 0), (do, f"{first}:do", 422, 0), (undo, f"{second}:undo", 200, 0), (do, f"{second}:do", 422, 0),
        ]:
            for service in [*services, services[0]]:
                expect(asked(service, what, key), status)
            assert taken() == effect, (name, what)
        for key in ("", "step", f"{first}:undo", "x" * 300 + ":do"):
            refused(asked(services[0], do, key), 400, "invalid Idempotency-Key")
        refused(services[0]("POST", f"{path}/{do}", payload), 400, "invalid Idempotency-Key")


@limit(120)
def test_a_saga_goes_on_where_an_instance_ends(shop):
    """A deploy, and a crash, while a step runs: another instance goes on. After the crash it asks for that step with the same key, which has had its effect."""
    buyer, product = shop.buyer(), shop.product(stock=100)
    for turn, how in [(1, "terminate"), (2, "kill")]:
        held, users, first = threading.Event(), shop.inside("user-service-1"), shop.services["order-service-1"]

        def answer(request):
            asked = planted.asked[-1]
            names = [name for name in ("Content-Type", "Idempotency-Key", "X-User-ID", "X-User-Role") if name in asked.headers]
            passed = users(request.command, request.path, asked.body or None, **{name: asked.headers[name] for name in names})
            if request.path == "/api/credit/charge":
                held.wait(60)  # it is done
            request.reply(passed.status, passed.json())

        with Planted(shop.consul, "user-service", answer) as planted, shop.consul.maintenance("user-service", but=planted.id):
            for orders in shop.instances("order-service"):
                eventually("it has one user service", lambda: orders.endpoints("user-service") == {planted.id}, 40)
            client = threading.Thread(target=order_at, args=(shop, first.name, buyer, product, SAGA))
            client.start()
            balance = lambda: int(shop.postgres.ask(f"select balance from users where id = {buyer.user['id']}", "userdb"))
            eventually("it waits for that step", lambda: balance() == 1_000_000 - 1000 * turn)
            {"terminate": first.process.terminate, "kill": first.kill}[how]()
            eventually("it leaves", lambda: first.said(kind="stopping") or not first.is_alive())
            held.set()
            client.join()
            first.end()
            newest = lambda: expect(buyer.elsewhere()("GET", "/api/orders"), 200, [ORDER])[0]["status"]
            eventually("it is whole", lambda: newest() == "completed", 60)
            keys = [asked.headers["Idempotency-Key"] for asked in planted.asked if asked.path == "/api/credit/charge"]
            assert len(set(keys)) == 1 and len(keys) == turn, keys
        shop.back(first.name)
        assert (shop.stock(product), buyer.balance()) == (100 - 4 * turn, 1_000_000 - 1000 * turn)


def unsettled(shop):
    return shop.postgres.ask("select count(*) from orders where not settled", "orderdb")


def history(shop, buyer, order):
    return expect(buyer.elsewhere()("GET", f"/api/orders/{order['id']}"), 200, DETAILS)["history"]


def test_what_happened_is_told_by_rabbitmq(shop):
    buyer, product = shop.buyer(), shop.product(price=600_000, stock=2)
    order = expect(buyer.order(product), 201)
    eventually("it is heard", lambda: history(shop, buyer, order) == ["order.created"], 20)
    refused(buyer.order(product), 409, "insufficient balance")
    cancelled = expect(buyer("GET", "/api/orders"), 200, [ORDER])[0]
    eventually("the end of the other, too", lambda: history(shop, buyer, cancelled) == ["order.cancelled"], 20)


# One at a time


SUM = {"at": TIME, "orders": int, "revenue": int}


def tokens(shop):
    """Of those who have added up, as they wrote."""
    return list(map(int, shop.postgres.ask("select token from sales order by id", "orderdb").split()))


def test_sales_are_added_up(shop):
    buyer, product = shop.buyer(), shop.product(price=7)
    newest = lambda: expect(shop.administrator()("GET", "/api/orders/sales"), 200, [SUM])[0]
    before = eventually("there is a sum", newest)
    expect(buyer.order(product, 3), 201)
    # Orders of before may come in with it.
    has_it = lambda after: after["orders"] > before["orders"] and after["revenue"] >= before["revenue"] + 21
    eventually("it is in the next one", lambda: has_it(newest()), 40)  # whoever had the lock may have been killed just now
    refused(buyer("GET", "/api/orders/sales"), 403, "administrators only")
    refused(shop.somebody()("GET", "/api/orders/sales"), 401, "missing token")


@limit(150)
def test_one_instance_has_the_lock(shop):
    """One at a time. The next one has it at once where an instance stops, after the delay where its service is killed, and once its session is over where all of it
    is paused; what that one had begun to write is refused. (The lock of the source had an end that whoever worked longer did not see.)"""
    holds = lambda name, token: f"lock sales: held, token {token}" in "\n".join(shop.services[name].log)
    holder = lambda: next((name for name in ("order-service-1", "order-service-2") if holds(name, tokens(shop)[-1])), None)
    first = eventually("somebody has it", holder, 40)
    seen = tokens(shop)
    eventually("it goes on", lambda: len(tokens(shop)) >= len(seen) + 4)
    assert set(tokens(shop)) <= set(seen), tokens(shop)
    assert shop.services[first].end() == 0, shop.services[first].log[-5:]
    second = eventually("the other one has it", lambda: tokens(shop)[-1] > seen[-1] and holder(), 5)
    assert second != first
    shop.back(first)
    token = tokens(shop)[-1]
    shop.services[second].kill_application()
    third = eventually("it is somebody's again", lambda: tokens(shop)[-1] > token and holder(), 15)
    shop.is_whole()
    token = tokens(shop)[-1]
    with contextlib.ExitStack() as ends:
        with shop.postgres.locked("fences", "orderdb"):
            waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into fences%'"
            eventually("it writes", lambda: shop.postgres.ask(waits, "orderdb") == "1")
            ends.enter_context(shop.services[third].paused())
        eventually("another one has it", lambda: tokens(shop)[-1] > token and holder() != third, 45)
        seen = tokens(shop)
    late = f"sales, token {token}: a later holder of the lock has written"
    eventually("what comes late is refused", lambda: [line for line in shop.services[third].log if late in line])
    written = tokens(shop)
    assert written[: len(seen)] == seen and written == sorted(written), written
    eventually("all are well", shop.all_pass, 30)


# Numbers, metrics, the log


def test_numbers_of_the_source(shop):
    """Client: 10 s, 3 retries after the first, 100 ms doubled up to 5 s. Balancers by their names. The gateway: 30 s."""
    hidden = {"JWT_SECRET": secrets.token_hex(24), "LICTOR_BUILDING_BLOCKS_TOKEN": secrets.token_hex(16)}
    code, text = shop.lictor("config", "-c", "lictor/order-service.yaml", **hidden)
    assert code == 0, text
    lines = ("timeout: 10s", "balance: round_robin", "retry.attempts: 4", "retry.backoff.initial: 100ms", "retry.backoff.factor: 2", "retry.backoff.max: 5s",
             "breaker.success_threshold: 3")
    for line in lines:
        assert f"\ndefaults.{line}\n" in text, (line, text)
    code, text = shop.lictor("config", "-c", "lictor/gateway.yaml", **hidden)
    assert code == 0 and "\ndefaults.timeout: 30s\n" in text and "100/1s" in text, text
    for balance in ("RoundRobin", "Random", "LeastConnections"):
        code, text = shop.lictor("check", "-c", "lictor/order-service.yaml", "--set", f"defaults.balance={balance}", **hidden)
        assert code == 0, text


def test_ports_of_the_source(shop):
    """8080 to 8083. (Tests run on others.)"""
    for name, port in PORTS.items():
        code, text = shop.lictor("config", "-c", f"lictor/{name}.yaml", LICTOR_BUILDING_BLOCKS_TOKEN=secrets.token_hex(16))
        assert code == 0 and f"\nport: {port}\n" in text, (name, text)
    code, text = shop.lictor("config", "-c", "lictor/gateway.yaml", JWT_SECRET=secrets.token_hex(24))
    assert code == 0 and re.search(r"^gateway\.listen\S*: 127\.0\.0\.1:8080$", text, re.MULTILINE), text


def test_request_log(shop):
    """Its fields: method, path, status, duration, client_ip, user_agent."""
    id = "log-" + secrets.token_hex(8)
    client = shop.somebody()
    client("GET", "/api/users/1", X_Request_ID=id, User_Agent="shop-test")
    (line,) = eventually("it is in the log", lambda: shop.services["gateway"].said(request_id=id))
    alike({key: line[key] for key in ("method", "path", "status", "ip", "user_agent")},
          {"method": "GET", "path": "/api/users/1", "status": 401, "ip": client.source, "user_agent": "shop-test"})
    assert {"timestamp", "level", "duration"} <= set(line), line


# What the source's own code got wrong


def test_an_instance_is_well_as_long_as_its_heart_beats(shop):
    """The client of its registry never learned its id: beats went to `/heartbeat/`, and every instance was dead after 30 s."""
    with shop.consul.recorded() as (port, asked):
        service = shop.start_service("user-service", 3, CONSUL_PORT=port)
        try:
            eventually("it is up", service.is_up, 30)
            body, check = registration(asked)
            alike({key: body[key] for key in ("Name", "Address", "Port")}, {"Name": "user-service", "Address": "127.0.0.1", "Port": service.variables["INBOUND_PORT"]})
            assert body["Meta"]["version"] == "1.0.0" and body["ID"] == service.id, body
            assert check["TTL"] == "3000ms" and check["DeregisterCriticalServiceAfter"] == "60000ms", check
            beats = lambda: [path for method, path, _ in asked if method == "PUT" and path.startswith("/v1/agent/check/")]
            count = len(beats())
            eventually("its heart beats", lambda: len(beats()) >= count + 4, 20)
            assert body["ID"] in shop.consul.instances("user-service")
        finally:
            service.kill()
            del shop.services[service.name]
        eventually("it is dead to others", lambda: body["ID"] not in shop.consul.instances("user-service"), 20)
    shop.consul.ask(f"/v1/agent/service/deregister/{body['ID']}", "PUT")


def test_d9_each_grpc_call_is_balanced(shop):
    """D9: `instances[0]`, one connection for ever: neither balanced, nor replaced."""
    buyer, product, id = shop.buyer(), shop.product(), "d9-" + secrets.token_hex(8)
    order = expect(buyer.order(product), 201)
    for _ in range(12):
        expect(buyer("GET", f"/api/orders/{order['id']}", X_Request_ID=id), 200)
    calls = lambda service: len(service.said(request_id=id, path="/product.ProductService/GetProduct", direction="inbound"))
    eventually("each has its share", lambda: min(map(calls, shop.instances("product-service"))) >= 3)
    orders = shop.instances("order-service")
    assert sum(service.metric("grpc_requests_total", service="product-grpc", status="success") for service in orders) >= 12


def test_d10_one_request_is_one_trace(shop):
    """D10: `X-Trace-ID` was read and forgotten; each hop began a trace of its own."""
    buyer, product, trace = shop.buyer(), shop.product(), secrets.token_hex(16)
    order = expect(buyer.order(product), 201)
    answer = buyer("GET", f"/api/orders/{order['id']}", X_Trace_ID=trace)
    expect(answer, 200)
    assert answer.headers["X-Trace-ID"] == trace and answer.headers["X-Span-ID"], answer.headers.items()
    seen = {"user-service": f"/api/users/{buyer.user['id']}", "product-service": "/product.ProductService/GetProduct", "order-service": f"/api/orders/{order['id']}"}
    for name, path in seen.items():
        eventually(f"{name} has it", lambda: any(one.said(trace_id=trace, path=path, direction="inbound") for one in shop.instances(name)))


def test_d15_each_client_has_a_bucket(shop):
    """D15: one bucket for all, though the address was read; and refilled by whole seconds."""
    gateway = shop.start_gateway("gateway-2", RATE_LIMIT="5/2s")
    try:
        eventually("the second gateway is up", gateway.is_up, 30)
        greedy, other = (Client(shop, port=gateway.variables["GATEWAY_PORT"]) for _ in range(2))
        status = lambda client: client("GET", "/api/users/1").status
        assert 429 in [answer.status for answer in at_once(30, lambda: greedy("GET", "/api/users/1"))]
        assert [status(other) for _ in range(5)] == [401] * 5
        waits = []
        for _ in range(6):  # the first of these may find a token of before
            began = time.monotonic()
            eventually("it may ask again", lambda: status(greedy) == 401)
            waits.append(time.monotonic() - began)
        assert min(waits[1:]) < 0.9 and sum(waits[1:]) > 5 * 0.4 * 0.5, waits
        liar = Client(shop, {"X-Forwarded-For": "127.9.9.9"}, port=greedy.port, source=greedy.source)  # whom Gin believed
        assert [answer.status for answer in at_once(30, lambda: liar("GET", "/api/users/1"))].count(401) < 15
    finally:
        gateway.end()
        del shop.services["gateway-2"]


def test_d19_a_status_is_a_label(shop):
    """D19: `http_responses_total_404`: a name for each status."""
    buyer = shop.buyer()
    expect(buyer("GET", "/api/users/999999"), 404)
    users = shop.instances("user-service")
    for status in ("201", "404"):
        assert sum(service.metric("http_requests_total", status_code=status) for service in users) >= 1, status
    for service in shop.services.values():
        names = set(re.findall(r"^# TYPE (\S+)", service.admin("/metrics").body.decode(), re.MULTILINE))
        assert names and not [name for name in names if re.search(r"_[1-5]\d\d$", name)], names
    for service in users:
        assert service.metric("http_request_duration_seconds_count", status_code="200") >= 1


def test_d22_what_is_sent_again_has_its_body(shop):
    """D22: the body was read by the first attempt; the second one had none."""
    product, admin = shop.product(), shop.administrator()
    body = {"name": "Bolt", "description": "x" * 900, "price": 1, "stock": 1}
    with Planted(shop.consul, "product-service", lambda request: request.reply(503, {})) as planted:
        look = lambda: expect(admin.elsewhere()("PUT", f"/api/products/{product['id']}", body), 200, body | {"id": product["id"]}) and planted.asked
        eventually("the broken one is asked, and then another", look, 30)
        assert {asked.body for asked in planted.asked} == {json.dumps(body).encode()}


def test_a_breaker_that_is_half_open(shop):
    """A failure then did not open it again; and 4 attempts with growing waits, each at an instance that is picked anew."""
    orders, healed = shop.services["order-service-1"], threading.Event()
    port = orders.variables["USERS_PORT"]
    user = {"id": 7, "name": "Planted", "email": "p@b.example", "role": "user"}
    state = lambda: orders.metric("circuit_breaker_state", name="user-service")
    call = lambda: ask(port, "GET", "/api/users/7")
    answer = lambda request: request.reply(200, user) if healed.is_set() else request.reply(500, {})
    with Planted(shop.consul, "user-service", answer) as planted, shop.consul.maintenance("user-service", but=planted.id):
        eventually("there is nobody else", lambda: orders.endpoints("user-service") == {planted.id}, 40)
        expect(call(), 500)
        assert len(planted.asked) == 4, planted.asked
        eventually("five failures open it", lambda: call().status >= 500 and state() == 1)
        count = len(planted.asked)
        refusal = call()
        assert expect(refusal, 503)["reason"] == "breaker_open" and len(planted.asked) == count and int(refusal.headers["Retry-After"]) >= 1, refusal
        refused(shop.inside("order-service-1")("GET", "/api/orders/1", **{"X-User-ID": "0"}), 404, "order not found")  # who needs nobody is served
        eventually("one is let through, fails, and it is open again", lambda: call() and len(planted.asked) > count, 30)
        assert state() == 1, state()
        healed.set()
        eventually("it is half open", lambda: call().status == 200, 40)
        assert state() == 2, state()
        eventually("three that go well close it", lambda: call().status == 200 and state() == 0)
        eventually("it is in the log", lambda: orders.said(kind="breaker_closed", upstream="user-service", to="closed"))
    eventually("the others are used again", lambda: call().status in (200, 404) and state() == 0)


# What breaks


def everything(buyer, order, product):
    """Reads of all services, and orders: each from another address, so that no limit is in the way."""
    asks = [
        lambda client: client("GET", f"/api/orders/{order['id']}"), lambda client: client("GET", "/api/products"),
        lambda client: client("GET", f"/api/users/{buyer.user['id']}"), lambda client: client.order(product),
    ]
    return lambda number: asks[number % len(asks)](buyer.elsewhere())


def reads(buyer, order):
    paths = [f"/api/orders/{order['id']}", "/api/orders", "/api/products", "/api/users/1"]
    return lambda number: buyer.elsewhere()("GET", paths[number % len(paths)])


def adds_up(shop, product, before=5000):
    """No order is half done: what is gone from the stock is in orders."""
    eventually("nothing is left to do", lambda: unsettled(shop) == "0", 30)
    sold = shop.postgres.ask(f"select coalesce(sum(quantity), 0) from items join orders on id = order_id where product_id = {product['id']} and status = 'completed'", "orderdb")
    assert shop.stock(product) == before - int(sold), (shop.stock(product), sold)
    states = shop.postgres.ask("select distinct state from reservations where transaction like 'order-%' order by 1", "productdb").split()
    assert "tried" not in states, states


@limit(90)
def test_an_instance_is_killed_under_load(shop):
    """No call fails, of those that place orders neither; and each order is one."""
    buyer, product = shop.buyer(), shop.product(price=1)
    order = expect(buyer.order(product), 201)
    with Load(everything(buyer, order, product)) as load:
        for name in ("product-service-1", "user-service-2"):
            shop.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])
    adds_up(shop, product)


def test_an_instance_that_takes_orders_is_killed_under_load(shop):
    buyer, product = shop.buyer(), shop.product(price=1)
    order = expect(buyer.order(product), 201)
    with Load(reads(buyer, order)) as load:
        shop.killed("order-service-2", load)
    assert not load.failed, (load.answers, load.failed[:5])


@limit(90)
def test_instances_are_replaced_under_load(shop):
    """As a deploy does, with orders all the while."""
    buyer, product = shop.buyer(), shop.product(price=1)
    order = expect(buyer.order(product), 201)
    with Load(everything(buyer, order, product)) as load:
        for name in ("order-service-1", "product-service-2", "user-service-1"):
            shop.replaced(name, load)
    assert not load.failed, (load.answers, load.failed[:5])
    adds_up(shop, product)


def test_502(shop):
    """An instance that breaks off: in the source's shape, without the addresses that it told."""
    hangs_up = lambda request: setattr(request, "close_connection", True)
    with Planted(shop.consul, "product-service", hangs_up) as planted, shop.services["gateway"].calls_only("product-service", planted.id):
        refused(shop.administrator()("POST", "/api/products", {}), 502, "bad gateway")
        assert len(planted.asked) == 1, planted.asked


def test_the_user_service_is_down(shop):
    buyer, product = shop.buyer(), shop.product()
    order = expect(buyer.order(product), 201)
    with shop.another("order-service", LICTOR_CONSUL_GUARD_ON_EMPTY="drop") as strict:  # it believes at once that nobody is there
        with shop.gone("user-service-1", "user-service-2"):
            refusal = shop.somebody()("POST", "/api/users/login", ADMIN)
            assert refusal.status in (502, 503), refusal
            refused(refusal, refusal.status, {502: "bad gateway", 503: "service unavailable"}[refusal.status])
            refused(buyer.order(product), 503, "service unavailable")
            expect(buyer("GET", "/api/orders"), 200, [ORDER])  # who needs no user is served
            refused(buyer("GET", f"/api/orders/{order['id']}"), 503, "service unavailable")
            expect(buyer("GET", "/api/products"), 200, [PRODUCT])
            eventually("it has nobody to call", lambda: strict.endpoints("user-service") == set(), 30)
            body = expect(strict.admin("/ready"), 503)
            assert body["status"] == "not_ready" and body["checks"]["user-service"]["message"] == "No healthy instances of user-service found", body
            assert expect(ask(strict.variables["USERS_PORT"], "GET", "/api/users/1"), 503)["reason"] == "no_endpoints"
    eventually("orders are taken again", lambda: buyer.elsewhere().order(product).status == 201, 30)


def test_postgres_is_down(shop):
    """503 in the source's shape, `/health` says so, and all goes on once it is back: no connection of before is used."""
    buyer, product = shop.buyer(), shop.product()
    shop.postgres.end()
    try:
        refused(buyer("GET", "/api/orders"), 503, "service unavailable")
        refused(buyer("GET", "/api/products"), 503, "service unavailable")
        for name in PORTS:
            body = expect(ask(shop.services[f"{name}-1"].variables["PORT"], "GET", "/health"), 503)
            alike(body, {"status": "unhealthy", "timestamp": TIME, "checks": checks(name) | {"database": {"healthy": False, "message": str}}})
    finally:
        shop.postgres.start_again()
    eventually("orders are taken again", lambda: buyer.elsewhere().order(product).status == 201, 40)
    eventually("all are well", shop.all_pass, 30)


def test_redis_is_down(shop):
    """What it was for is slower meanwhile; nothing fails."""
    buyer, product = shop.buyer(), shop.product(price=1)
    order = expect(buyer.order(product), 201)
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: shop.redis.is_alive() or shop.redis_again())
        load = ends.enter_context(Load(everything(buyer, order, product)))
        load.goes_on()
        shop.redis.kill()
        load.goes_on()
        for name in PORTS:
            body = expect(ask(shop.services[f"{name}-1"].variables["PORT"], "GET", "/health"), 503)
            alike(body["checks"], checks(name) | {"redis": {"healthy": False, "message": str}})
        eventually("Consul calls all of them critical", lambda: not shop.consul.instances("user-service"), 20)
        load.goes_on()  # an emptied list is not believed for 30 s
        shop.redis_again()
        eventually("they are well", shop.all_pass, 30)
        load.goes_on()
    assert not load.failed, (load.answers, load.failed[:5])
    adds_up(shop, product)


@limit(200)
def test_rabbitmq_is_down(shop):
    """Orders are taken; what is to be told of them is told once it is back. (The source's producer lost it, and its consumer acknowledged before it worked.)"""
    buyer, product = shop.buyer(), shop.product()
    shop.rabbitmq.kill()
    try:
        order = expect(buyer.order(product), 201)
        lost = lambda: ask(shop.services["order-service-1"].variables["PORT"], "GET", "/health")
        eventually("its health says so", lambda: not expect(lost(), 503)["checks"]["rabbitmq"]["healthy"])
        assert history(shop, buyer, order) == []
    finally:
        shop.rabbitmq.start_again()
    eventually("it is told", lambda: history(shop, buyer, order) == ["order.created"], 150)
    eventually("all are well", shop.all_pass, 30)


def test_consul_is_restarted(shop):
    """The stores are registered again, too."""
    buyer, product = shop.buyer(), shop.product(price=1)
    shop.consul_is_restarted(everything(buyer, expect(buyer.order(product), 201), product))
    adds_up(shop, product)
