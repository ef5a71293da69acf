"""S2, the Go services (examples/laravel-go): every route, their documents and errors, what breaks, and what the source's own code got wrong."""

import re
import secrets
import subprocess
import threading
import time

from stack import INHERITED, TIME, Load, Planted, Stack, alike, ask, at_once, eventually, expect, fields, folder, free_port
from stores import Postgres

PORTS = {"user-service": 8081, "user-grpc": 50051, "order-service": 8082}
UNAVAILABLE = "Service not available\n"


class Shop(Stack):
    """The gateway, and the services behind it, two instances of each; the first of the users weighs three times as much."""

    def __init__(self, keep):
        super().__init__("laravel-go", keep)
        self.gateway_port = self.port(8080)

    def start_service(self, name, number=1, **environment):
        usual = PORTS[name]
        ports = {"PORT": usual, "INBOUND_PORT": usual + 10_000, "ADMIN_PORT": 9_800 + usual % 1_000}
        if name == "order-service":
            ports |= {"USERS_PORT": 9201, "USERS_GRPC_PORT": 9251}
        return self.start(f"{name}-{number}", f"lictor/{name}.yaml", **{key: self.port(port) for key, port in ports.items()}, **environment)

    def start_all(self):
        self.start_consul()
        self.postgres = Postgres(self.port(5432), "shop", "shop")
        self.stores.append(self.postgres)
        self.environment |= {"DB_PORT": self.postgres.port}
        if not self.keep:
            self.environment |= {"CHECK_INTERVAL": "1s", "LICTOR_LIFECYCLE_DRAIN_DELAY": "1s"}
        for name in PORTS:
            weight = {"WEIGHT": 3} if name == "user-service" else {}
            self.start_service(name, 1, **weight)
            if not self.keep:
                self.start_service(name, 2)
        self.start("gateway", "lictor/api-gateway.yaml", GATEWAY_PORT=self.gateway_port, ADMIN_PORT=self.port(9880))
        self.is_whole()

    def get(self, path, **headers):
        """A client of the gateway's."""
        return ask(self.gateway_port, "GET", path, headers=fields(headers))

    def users(self, method, path, body=None, **headers):
        """What the order service would be told by the user service."""
        return ask(self.services["order-service-1"].variables["USERS_PORT"], method, path, body, fields(headers))

    def orders(self, method, path, body=None, **headers):
        """What a caller of the order service would be told by its first instance."""
        return ask(self.services["order-service-1"].variables["INBOUND_PORT"], method, path, body, fields(headers))

    def user(self):
        """A new one."""
        return expect(self.users("POST", "/users", {"name": "Ada", "email": f"{secrets.token_hex(6)}@shop.example"}), 201, USER)

    def order(self, user):
        """A new one."""
        return expect(self.orders("POST", "/orders", an_order(user)), 201, ORDER)

    def checks(self, name):
        """What Consul's agent has last heard of a service's instances."""
        return [check["Output"] for check in self.consul.ask("/v1/agent/checks").values() if check["ServiceName"] == name]


SYSTEM = Shop


def told(shop):
    return f"""The shop is up; Ctrl-C stops it.
  gateway    http://localhost:{shop.gateway_port}/api/users
  Consul     http://localhost:{shop.consul.port}/ui
  dashboard  http://localhost:9880/ui (the gateway's; 9881, 9851 and 9882 the services')
  a user     curl localhost:8081/users -d '{{"name": "Ada", "email": "ada@shop.example"}}'
  an order   curl localhost:8082/orders -d '{{"user_id": 1, "item": "Bolt", "quantity": 4, "price": 25}}'"""


# Shapes of the source, and those of orders, which it leaves out.
USER = {"id": int, "name": str, "email": re.compile(r"\S+@\S+")}
ORDER = {"id": int, "user_id": int, "item": str, "quantity": int, "total": int, "created_at": TIME}


def an_order(user, **more):
    return {"user_id": user["id"], "item": "Steel bolt", "quantity": 4, "price": 25} | more


def refused(answer, status, text):
    """By a service."""
    return expect(answer, status, {"error": text})


def is_text(answer, status, text):
    """`http.Error` of Go, which is what the source's gateway says."""
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (status, "text/plain; charset=utf-8", text.encode()), (answer, answer.headers.items())


# gRPC


def varint(number):
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def field(number, value):
    """Of a message: a number, a text, or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def get_user(port, id, *headers):
    """`GetUser`: its grpc-status, its grpc-message, and the message."""
    message, at = field(1, id), folder("grpc")
    (at / "asked").write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    headers = ["content-type: application/grpc", "te: trailers", *headers]
    # With a Content-Length, curl does not wait for the trailers.
    command = ["curl", "-sS", "--http2-prior-knowledge", "--ignore-content-length", "-m", "40", "-D", at / "head", "-o", at / "body", "--data-binary", f"@{at}/asked"]
    done = subprocess.run([*command, *(f"-H{line}" for line in headers), f"http://127.0.0.1:{port}/user.UserService/GetUser"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head = dict(line.split(": ", 1) for line in (at / "head").read_text().splitlines() if ": " in line)
    body = (at / "body").read_bytes() if (at / "body").exists() else b""
    return int(head["grpc-status"]), head.get("grpc-message", ""), body[5:]


# Routes


def test_users_routes(shop):
    new = {"name": "Ada", "email": f"{secrets.token_hex(6)}@shop.example"}
    user = expect(shop.users("POST", "/users", new), 201, USER | new)
    at = f"/users/{user['id']}"
    assert user in expect(shop.users("GET", "/users"), 200, [USER])
    expect(shop.users("GET", at), 200, user)
    refused(shop.users("POST", "/users", new), 409, "email is taken")
    changed = {"name": "Grace Hopper", "email": "grace-" + new["email"]}
    expect(shop.users("PUT", at, changed), 200, USER | changed | {"id": user["id"]})
    expect(shop.users("GET", at), 200, USER | changed)
    refused(shop.users("PUT", at, changed | {"email": shop.user()["email"]}), 409, "email is taken")
    gone = shop.users("DELETE", at)
    assert (gone.status, gone.body) == (204, b""), gone
    for method, body in [("GET", None), ("PUT", changed), ("DELETE", None)]:
        refused(shop.users(method, at, body), 404, "User not found")


def test_users_that_are_none(shop):
    good = {"name": "Ada", "email": "ada-none@shop.example"}
    for wrong, status in [
        ({"name": ""}, 422), ({"name": " "}, 422), ({"name": "a\0b"}, 422), ({"name": "é" * 101}, 422), ({"email": "ada"}, 422), ({"email": "a@b, c@d"}, 422),
        ({"name": 7}, 400), ({"role": "admin"}, 400),
    ]:
        expect(shop.users("POST", "/users", good | wrong), status, {"error": str})
    expect(shop.users("POST", "/users", b"{", Content_Type="application/json"), 400, {"error": str})
    expect(shop.users("POST", "/users", {"name": "a" * 70_000}), 400, {"error": str})
    for path in ("/users/0", "/users/ada", "/users/-1", "/users/99999999999999999999", "/users/", "/user"):
        refused(shop.users("GET", path), 404, "not found")
    refused(shop.users("PATCH", "/users"), 405, "method not allowed")


def test_users_by_grpc(shop):
    user = shop.user()
    message = field(1, field(1, user["id"]) + field(2, user["name"]) + field(3, user["email"]))
    for port in (shop.services["user-grpc-1"].variables["PORT"], shop.services["order-service-1"].variables["USERS_GRPC_PORT"]):
        assert get_user(port, user["id"]) == (0, "", message)
        assert get_user(port, 999_999_999) == (5, "User not found", b"")
    eventually("Consul has asked both for grpc.health.v1", lambda: len([said for said in shop.checks("user-grpc") if re.fullmatch("gRPC check .*: success", said)]) == 2)


def test_orders_routes(shop):
    user = shop.user()
    order = expect(shop.orders("POST", "/orders", an_order(user)), 201, ORDER | {"user_id": user["id"], "quantity": 4, "total": 100})
    assert order in expect(shop.orders("GET", "/orders"), 200, [ORDER])
    expect(shop.orders("GET", f"/orders/{order['id']}"), 200, {"order": order, "user": user})
    refused(shop.orders("GET", "/orders/999999999"), 404, "Order not found")
    refused(shop.orders("POST", "/orders", an_order({"id": 999_999_999})), 422, "User not found")
    for wrong in ({"quantity": 0}, {"quantity": 10_001}, {"price": 0}, {"item": ""}, {"user_id": 0}):
        expect(shop.orders("POST", "/orders", an_order(user, **wrong)), 422, {"error": str})
    refused(shop.orders("DELETE", f"/orders/{order['id']}"), 405, "method not allowed")
    shop.users("DELETE", f"/users/{user['id']}")
    refused(shop.orders("GET", f"/orders/{order['id']}"), 404, "service call failed: 404")


def test_gateway_routes(shop):
    """Its four routes, GET only. (Written as in the source it does not compile; mended, it sends `/api/users/7` on as it is.)"""
    user = shop.user()
    order = shop.order(user)
    assert user in expect(shop.get("/api/users"), 200, [USER])
    expect(shop.get(f"/api/users/{user['id']}"), 200, user)
    assert order in expect(shop.get("/api/orders"), 200, [ORDER])
    expect(shop.get(f"/api/orders/{order['id']}"), 200, {"order": order, "user": user})
    refused(shop.get("/api/users/999999999"), 404, "User not found")
    for path in ("/", "/users", "/api", "/api/users/1/orders", "/api/products", "/health"):
        answer = shop.get(path)
        assert (answer.status, answer.headers.get_content_type()) == (404, "text/plain") and answer.body.endswith(b"\n"), (path, answer)
    for method in ("POST", "PUT", "DELETE"):
        answer = ask(shop.gateway_port, method, f"/api/users/{user['id']}", {"name": "x"})
        assert answer.status == 404 and answer.headers.get_content_type() == "text/plain", (method, answer)
    expect(shop.get(f"/api/users/{user['id']}"), 200, user)


def test_what_the_gateway_sends_on(shop):
    """The path without `/api`, its query, its fields; nothing of its own between one hop and the next."""
    with Planted(shop.consul, "user-service", lambda request: request.reply(200, [])) as planted, shop.services["gateway"].calls_only("user-service", planted.id):
        for path, sent in [("/api/users?a=1&b=%20", "/users?a=1&b=%20"), ("/api/users/7?x", "/users/7?x"), ("/api/users/a%20b", "/users/a%20b")]:
            expect(shop.get(path, X_Kept="yes", Connection="x-hop", X_Hop="no"), 200)
            asked = planted.asked[-1]
            assert (asked.method, asked.path, asked.headers["X-Kept"], asked.headers["X-Hop"]) == ("GET", sent, "yes", None), (asked.path, asked.headers.items())
            assert asked.headers["X-Forwarded-For"] == "127.0.0.1", asked.headers.items()


# Documents


def test_health_documents(shop):
    for name in ("user-service", "order-service"):
        answer = ask(shop.services[f"{name}-1"].variables["PORT"], "GET", "/health")
        expect(answer, 200)
        assert answer.body.decode() == f'{{"status": "healthy", "service": "{name}"}}', answer  # byte by byte


def test_ready_documents(shop):
    for name, needed in [("user-service-1", ()), ("user-grpc-1", ()), ("order-service-1", ("user-service", "user-grpc")), ("gateway", ("user-service",))]:
        body = expect(shop.services[name].admin("/ready"), 200)
        assert body["status"] == "ready", body
        for service in needed:
            check = body["checks"][service]
            assert (check["status"], check["message"], check["required"]) == ("ready", "2 healthy instances found", True), check


def test_metrics(shop):
    """`request_count`, `error_count` (from 400 on) and `response_time`, of whoever calls and of whoever is called. (The source's panic at the first request.)"""
    with shop.another("user-service") as service:
        port = service.variables["INBOUND_PORT"]
        numbers = lambda: (
            service.metric("http_requests_total", service="user-service"),
            sum(service.metric("http_requests_total", service="user-service", status_code=str(status)) for status in (404, 405)),
            service.metric("http_request_duration_seconds_count"),
            service.metric("http_request_duration_seconds_sum") > 0,
        )
        before = numbers()
        assert before[:3] == (0, 0, 0), before
        for method, path, status in [("GET", "/users", 200), ("GET", "/users", 200), ("GET", "/users/999999999", 404), ("PATCH", "/users", 405)]:
            expect(ask(port, method, path), status)
        assert eventually("they are counted", lambda: (seen := numbers())[0] == 4 and seen) == (4, 2, 4, True)
    orders = shop.services["order-service-1"]
    stats = lambda: next(one for one in expect(orders.admin("/stats"), 200)["services"] if one["name"] == "user-service")
    alike(stats(), {
        "name": "user-service", "totalInstances": int, "healthyInstances": int, "unhealthyInstances": int,
        "requests": {"total": int, "failed": int, "retries": int},
    })
    total = stats()["requests"]["total"]
    for _ in range(3):
        expect(shop.users("GET", "/users"), 200)
    eventually("calls are counted too", lambda: stats()["requests"]["total"] == total + 3)


# Between services


def test_a_registration_says_what_the_source_says(shop):
    """Tags, version, protocol, health and weight; checked by HTTP; gone when it ends."""
    with shop.another("user-service", WEIGHT=5) as service:
        (told,) = [one["Service"] for one in shop.consul.ask("/v1/health/service/user-service?passing") if one["Service"]["ID"] == service.id]
        assert (told["Tags"], told["Address"], told["Port"]) == (["user", "api"], "127.0.0.1", service.variables["INBOUND_PORT"]), told
        wanted = {"version": "1.0.0", "protocol": "http", "health": "/health", "weight": "5"}
        alike({key: told["Meta"][key] for key in wanted}, wanted)
        at = f"HTTP GET http://127.0.0.1:{service.variables['PORT']}/health: 200 OK"
        eventually("Consul has asked for its health", lambda: any(said.startswith(at) for said in shop.checks("user-service")))
        gateway = shop.services["gateway"]
        eventually("who calls knows it", lambda: service.id in gateway.endpoints("user-service"))
        (endpoint,) = [one for one in gateway.admin("/endpoints/user-service").json()["user-service"]["endpoints"] if one["id"] == service.id]
        assert (endpoint["address"], endpoint["weight"]) == (f"127.0.0.1:{told['Port']}", 5), endpoint
    assert service.id not in shop.consul.instances("user-service", passing=False)
    eventually("nobody calls it any more", lambda: service.id not in gateway.endpoints("user-service"))


def test_one_request_has_one_id_and_one_trace(shop):
    """`X-Trace-ID` is kept, or made, and comes back with an `X-Span-ID` that is new. (The source takes the caller's span for its own.)"""
    user = shop.user()
    order, trace, span, id = shop.order(user), secrets.token_hex(16), secrets.token_hex(8), "shop-" + secrets.token_hex(8)
    answer = shop.get(f"/api/orders/{order['id']}", X_Trace_ID=trace, X_Span_ID=span, X_Request_ID=id)
    expect(answer, 200)
    assert (answer.headers["X-Trace-ID"], answer.headers["X-Request-ID"]) == (trace, id) and answer.headers["X-Span-ID"] not in (None, span), answer.headers.items()
    for name, path in [("order-service", f"/orders/{order['id']}"), ("user-service", f"/users/{user['id']}")]:
        services = [shop.services[f"{name}-{number}"] for number in (1, 2)]
        eventually(f"{name} has both", lambda: any(one.said(request_id=id, trace_id=trace, path=path, direction="inbound") for one in services))
    made = shop.get("/api/users")
    assert re.fullmatch("[0-9a-f]{32}", made.headers["X-Trace-ID"]) and made.headers["X-Trace-ID"] != trace, made.headers.items()
    id = "shop-" + secrets.token_hex(8)
    expect(shop.orders("POST", "/orders", an_order(user), X_Trace_ID=trace, X_Request_ID=id), 201)
    services = [shop.services[f"user-grpc-{number}"] for number in (1, 2)]
    eventually("gRPC has both", lambda: any(one.said(request_id=id, trace_id=trace, path="/user.UserService/GetUser") for one in services))


def test_a_span_names_its_parent(shop):
    """`X-Parent-ID`: a service is told a span of its caller's, under the span that its caller was told; so is whoever asked."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    with Planted(shop.consul, "user-service", lambda request: request.reply(200, [])) as planted, shop.services["gateway"].calls_only("user-service", planted.id):
        answer = shop.get("/api/users", X_Trace_ID=trace, X_Span_ID=span)
        expect(answer, 200)
        told = planted.asked[-1].headers
        assert (told["X-Trace-ID"], told["X-Parent-ID"]) == (trace, span) and told["X-Span-ID"] == answer.headers["X-Span-ID"] != span, told.items()
        assert told["traceparent"].split("-")[1:3] == [trace, told["X-Span-ID"]], told.items()


def test_whoever_is_no_longer_awaited_for_is_not_worked_for(shop):
    """A deadline, by HTTP and by gRPC, ends a call that hangs in the database; what does not need that table goes on."""
    user, orders = shop.user(), shop.services["order-service-1"]
    message = get_user(orders.variables["USERS_GRPC_PORT"], user["id"])[2]
    with shop.postgres.locked("users"):
        assert expect(shop.users("GET", f"/users/{user['id']}", X_Request_Timeout_Ms="500"), 504)["reason"] == "deadline_exceeded"
        assert get_user(orders.variables["USERS_GRPC_PORT"], user["id"], "grpc-timeout: 500m")[0] == 4
        expect(shop.get("/api/orders"), 200)
    assert get_user(orders.variables["USERS_GRPC_PORT"], user["id"]) == (0, "", message)
    expect(shop.users("GET", f"/users/{user['id']}"), 200, user)


def test_numbers_of_the_source(shop):
    """30 s for a call; its balancers have their names here, and no other is taken for one."""
    code, text = shop.lictor("config", "-c", "lictor/order-service.yaml")
    assert code == 0 and "\ndefaults.timeout: 30s\n" in text and "\nupstreams.user-service.balance: weighted\n" in text, text
    for balance in ("round_robin", "random", "weighted", "weighted_round_robin"):
        code, text = shop.lictor("check", "-c", "lictor/order-service.yaml", "--set", f"defaults.balance={balance}")
        assert code == 0, text
    code, text = shop.lictor("check", "-c", "lictor/order-service.yaml", "--set", "defaults.balance=weigthed")
    assert code == 1 and "did you mean `weighted`" in text, text


def test_environments(shop):
    """`ENVIRONMENT` chooses a file: config/NAME.json of the services, as in the source, and api-gateway.NAME.yaml."""
    for environment, host in [({}, "127.0.0.1"), ({"ENVIRONMENT": "production"}, "0.0.0.0")]:
        code, text = shop.lictor("config", "-c", "lictor/api-gateway.yaml", **environment)
        assert code == 0 and re.search(rf"^gateway\.listen\S*: {host}:8080$", text, re.MULTILINE), text
    service = lambda **environment: subprocess.run(
        [shop.directory / "build/user-service"], env=INHERITED | environment, cwd=shop.directory, capture_output=True, text=True, timeout=30,
    )
    nowhere = service(ENVIRONMENT="nowhere")
    assert nowhere.returncode == 1 and "config/nowhere.json: no such file" in nowhere.stderr, nowhere
    port = free_port()
    for environment, name in [({}, "shop@127.0.0.1"), ({"ENVIRONMENT": "production", "DB_HOST": "127.0.0.2"}, "shop@127.0.0.2")]:
        ended = service(DB_PORT=str(port), DB_PASSWORD="hidden", **environment)
        assert ended.returncode == 1 and f"{name}:{port}/shop" in ended.stderr.replace(":xxxxx@", "@") and "hidden" not in ended.stderr, ended


def test_ports_of_the_source(shop):
    """8080, 8081 and 50051; orders have none there. (Tests run on others.)"""
    for name, port in PORTS.items():
        code, text = shop.lictor("config", "-c", f"lictor/{name}.yaml")
        assert code == 0 and re.search(rf"^(app\.)?port: {port}$", text, re.MULTILINE), (name, text)
    code, text = shop.lictor("config", "-c", "lictor/api-gateway.yaml")
    assert code == 0 and re.search(r"^gateway\.listen\S*: 127\.0\.0\.1:8080$", text, re.MULTILINE), text


# What the source's own code got wrong


def test_d16_shares_are_the_weights(shop):
    """D16: it added the weights up and took the next; its gateway took the first instance, each time."""
    first, second = (shop.services[f"user-service-{number}"] for number in (1, 2))
    for port, path in [(shop.gateway_port, "/api/users"), (shop.services["order-service-1"].variables["USERS_PORT"], "/users")]:

        def share():
            before = [service.metric("http_requests_total") for service in (first, second)]
            for _ in range(80):
                expect(ask(port, "GET", path), 200)
            counts = [service.metric("http_requests_total") - count for service, count in zip((first, second), before)]
            assert sum(counts) == 80 and 57 <= counts[0] <= 63, counts
            return True

        eventually(f"three of four at {path}", share, 40)


def test_d17_a_breaker_counts_right_whoever_asks_at_once(shop):
    """D17: it changed its state under a lock for readers: many at once could open it twice, or all be let through when it was half open."""
    healed, released, running, most = threading.Event(), threading.Event(), [], []

    def answer(request):
        if request.path == "/users/404":
            return request.reply(404, {})
        if not healed.is_set():
            return request.reply(500, {})
        running.append(request)
        most.append(len(running))
        released.wait(30)
        running.remove(request)
        request.reply(200, {"id": 7, "name": "Planted", "email": "a@b"})

    order = shop.order(shop.user())
    with shop.another("order-service", CIRCUIT_BREAKER_RECOVERY_TIMEOUT=3, LICTOR_WORKERS=4) as orders, Planted(shop.consul, "user-service", answer) as planted:
        call = lambda path="/users/7": ask(orders.variables["USERS_PORT"], "GET", path)
        state = lambda: orders.metric("circuit_breaker_state", name="user-service")
        turned = lambda to: orders.metric("lictor_breaker_transitions_total", name="user-service", to=to)
        with shop.consul.maintenance("user-service", but=planted.id):
            eventually("there is nobody else", lambda: orders.endpoints("user-service") == {planted.id}, 40)
            assert {answer.status for answer in at_once(20, lambda: call("/users/404"))} == {404}
            assert (state(), turned("open")) == (0, 0)  # what a caller got wrong is no failure
            answers = at_once(20, call)
            assert {answer.status for answer in answers} <= {500, 503}, answers
            assert eventually("it has opened", lambda: turned("open")) == 1
            refusals = [answer for answer in at_once(12, call) if answer.status != 500]  # but for a probe or two
            assert len(refusals) >= 9 and {answer.json()["reason"] for answer in refusals} == {"breaker_open"}, refusals
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals)
            own = lambda: ask(orders.variables["PORT"], "GET", f"/orders/{order['id']}")
            eventually("the service says so", lambda: refused(own(), 503, "service call failed: 503"))
            healed.set()
            first = threading.Thread(target=lambda: eventually("it is half open", lambda: call().status == 200, 40))
            first.start()
            eventually("one got through", lambda: running, 40)
            others = at_once(20, call)
            assert [answer.status for answer in others] == [503] * 20 and (max(most), state()) == (1, 2), (others, most, state())
            released.set()
            first.join()
            eventually("three that go well close it", lambda: call().status == 200 and state() == 0)
            assert turned("closed") == 1 and turned("open") >= 1, (turned("closed"), turned("open"))


# What breaks


def reads(shop):
    user = shop.user()
    paths = ["/api/users", f"/api/users/{user['id']}", "/api/orders", f"/api/orders/{shop.order(user)['id']}"]
    return lambda number: shop.get(paths[number % len(paths)])


def test_an_instance_is_killed_under_load(shop):
    with Load(reads(shop)) as load:
        for name in ("user-service-1", "order-service-2"):
            shop.killed(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_a_grpc_instance_is_killed_under_load(shop):
    user = shop.user()
    with Load(lambda number: shop.orders("POST", "/orders", an_order(user))) as load:
        shop.killed("user-grpc-1", load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_an_instance_is_replaced_under_load(shop):
    with Load(reads(shop)) as load:
        for name in ("user-service-2", "order-service-1"):
            shop.replaced(name, load)
    assert not load.failed, (load.answers, load.failed[:5])


def test_the_user_service_is_down(shop):
    """503 at the gateway, in the source's words; an order without its user is "service call failed"; what needs no user goes on."""
    order = shop.order(shop.user())
    with shop.another("order-service", LICTOR_CONSUL_GUARD_ON_EMPTY="drop") as orders:
        at = lambda method, path, body=None: ask(orders.variables["PORT"], method, path, body)
        expect(at("GET", f"/orders/{order['id']}"), 200)
        with shop.gone("user-service-1", "user-service-2"):
            lost = shop.get("/api/users")  # refused connections, then an open breaker
            is_text(lost, lost.status if lost.status in (502, 503) else 503, UNAVAILABLE)
            eventually("the gateway gives it a rest", lambda: shop.get("/api/users").status == 503)
            is_text(shop.get("/api/users"), 503, UNAVAILABLE)
            assert int(shop.get("/api/users").headers["Retry-After"]) >= 1
            eventually("it has nobody to call", lambda: orders.endpoints("user-service") == set(), 20)
            assert expect(ask(orders.variables["USERS_PORT"], "GET", "/users"), 503)["reason"] == "no_endpoints"
            refused(at("GET", f"/orders/{order['id']}"), 503, "service call failed: 503")
            body = expect(orders.admin("/ready"), 503)
            assert body["status"] == "not_ready" and body["checks"]["user-grpc"]["status"] == "ready", body
            check = body["checks"]["user-service"]
            assert (check["status"], check["message"]) == ("not_ready", "No healthy instances of user-service found"), check
            expect(at("GET", "/orders"), 200, [ORDER])
            expect(at("POST", "/orders", an_order({"id": order["user_id"]})), 201, ORDER)  # asked by gRPC
            expect(shop.get("/api/orders"), 200, [ORDER])
        eventually("users are shown again", lambda: shop.get("/api/users").status == 200, 30)
        eventually("orders have their users again", lambda: at("GET", f"/orders/{order['id']}").status == 200, 30)
    eventually("at the gateway too", lambda: shop.get(f"/api/orders/{order['id']}").status == 200, 30)


def test_nobody_is_there_for_grpc(shop):
    """UNAVAILABLE, which is 503 for whoever orders; reading goes on."""
    user = shop.user()
    order = shop.order(user)
    with shop.gone("user-grpc-1", "user-grpc-2"):
        refused(shop.orders("POST", "/orders", an_order(user)), 503, "service call failed: Unavailable")
        status, message, _ = get_user(shop.services["order-service-1"].variables["USERS_GRPC_PORT"], user["id"])
        assert status == 14 and message, (status, message)
        expect(shop.get(f"/api/orders/{order['id']}"), 200)
    eventually("orders are taken again", lambda: shop.orders("POST", "/orders", an_order(user)).status == 201, 30)


def test_a_service_is_gone(shop):
    """502 as long as nobody has noticed, as by `httputil.ReverseProxy`, which says nothing with it."""
    gateway = shop.services["gateway"]
    with Planted(shop.consul, "user-service", lambda request: request.reply(200, [])) as planted, gateway.calls_only("user-service", planted.id):
        assert expect(shop.get("/api/users"), 200) == []
        planted.kill()
        is_text(shop.get("/api/users"), 502, UNAVAILABLE)
    eventually("the others are called", lambda: shop.get("/api/users").status == 200, 30)


def test_the_database_is_down(shop):
    """503 of the services; their `/health` stays what it is in the source, so nobody is taken out for what is nobody's fault."""
    user = shop.user()
    port = {name: shop.services[f"{name}-1"].variables["PORT"] for name in PORTS}
    shop.postgres.kill()
    try:
        for name, path in [("user-service", "/users"), ("user-service", f"/users/{user['id']}"), ("order-service", "/orders")]:
            refused(ask(port[name], "GET", path), 503, "database is not available")
        assert get_user(port["user-grpc"], user["id"]) == (14, "database is not available", b"")
        assert shop.get("/api/users").status == 503
        test_health_documents(shop)
        checked = time.monotonic() + 3
        eventually("all have been checked again", lambda: time.monotonic() > checked)
        for name in PORTS:
            assert len(shop.consul.instances(name)) == 2, name
    finally:
        shop.postgres.start_again()
    for path in ("/api/users", "/api/orders"):
        eventually(f"{path} is there again", lambda: shop.get(path).status == 200, 40)
    eventually("orders are taken again", lambda: shop.orders("POST", "/orders", an_order(user)).status == 201, 40)
    expect(shop.get(f"/api/users/{user['id']}"), 200, user)


def test_consul_is_restarted(shop):
    shop.consul_is_restarted(reads(shop))
