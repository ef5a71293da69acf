//! `lictor init`: whatever it finds, `lictor check` accepts what it writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lictor_testkit::{Backend, Consul, eventually_is, free_ports};
use serde_json::json;

use crate::LICTOR;

/// A folder that is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("lictor-init-{}-{}", std::process::id(), free_ports::<1>()[0]);
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, words: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(LICTOR);
        command.args(words).current_dir(&self.0).env_clear().envs(env.iter().copied());
        command.output().unwrap()
    }

    /// What `--stdout` prints; `lictor check` has to like it.
    fn init(&self, words: &[&str], env: &[(&str, &str)]) -> String {
        let output = self.run(&[&["init", "--stdout"], words].concat(), env);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let yaml = String::from_utf8(output.stdout).unwrap();
        let file = self.file("checked.yaml", &yaml);
        let checked = self.run(&["check", "-c", file.to_str().unwrap()], &[]);
        assert!(checked.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&checked.stderr));
        yaml
    }

    fn from(&self, compose: &str, service: &str) -> String {
        let file = self.file("compose.yml", compose);
        self.init(&["--from", file.to_str().unwrap(), "--service", service], &[])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Each of these begins a line.
#[track_caller]
fn has(yaml: &str, beginnings: &[&str]) {
    for beginning in beginnings {
        assert!(yaml.lines().any(|line| line.starts_with(beginning)), "no `{beginning}` in\n{yaml}");
    }
}

/// A gateway with dependencies, stores in another file, and variables as a list.
const LIST: &str = "
version: '3.8'
services:
  api-gateway:
    build: {context: ., dockerfile: docker/gateway/Dockerfile}
    ports: ['8080:8080']
    environment: [APP_NAME=api-gateway, APP_ENV=production, CONSUL_HOST=consul, CONSUL_PORT=8500]
    depends_on: [consul, user-service, product-service]
  user-service:
    build: {context: .}
    ports: ['8001:8001']
    environment:
      - APP_NAME=user-service
      - DB_HOST=mysql-user
      - DB_PORT=3306
      - REDIS_HOST=redis
      - CONSUL_HOST=consul
    depends_on: [mysql-user, redis, consul]
  product-service:
    build: {context: .}
    ports: ['8002:8002']
    environment: [APP_NAME=product-service, ELASTICSEARCH_HOST=elasticsearch]
    depends_on: [mysql-product, redis, elasticsearch, consul]
networks: {microservices: {driver: bridge}}
";

#[test]
fn dependencies_become_upstreams_on_their_own_ports() {
    let yaml = Folder::new().from(LIST, "api-gateway");
    has(&yaml, &["service: api-gateway ", "port: 8080 ", "  user-service: 8001 ", "  product-service: 8002 "]);
    has(&yaml, &["consul: {address: http://consul:8500} "]);
    let yaml = Folder::new().from(LIST, "user-service");
    has(&yaml, &["service: user-service ", "port: 8001 ", "# upstreams:"]);
    has(&yaml, &["# Called as before, not through lictor: mysql-user, redis."]);
}

#[test]
fn a_service_without_a_port_is_not_registered() {
    let compose = "
services:
  user-service: {image: hybridphp/user-service, environment: [CONSUL_HOST=consul, DB_HOST=mysql-user], depends_on: [consul, mysql-user]}
  consul: {image: 'consul:latest', ports: ['8500:8500']}
  jaeger: {image: 'jaegertracing/all-in-one:latest'}
";
    let folder = Folder::new();
    let file = folder.file("compose.yml", compose);
    let yaml = folder.init(&["--from", file.to_str().unwrap()], &[]); // the only one that is no infrastructure
    has(&yaml, &["service: user-service ", "registration: off", "# Called as before, not through lictor: mysql-user."]);
}

#[test]
fn a_registry_of_ones_own_and_stores_are_no_upstreams() {
    let compose = "
services:
  gateway: {build: ./gateway, ports: ['8080:8080'], environment: ['REGISTRY_URL=http://discovery:8080', 'REDIS_URL=redis://redis:6379'], depends_on: [discovery, redis]}
  discovery: {build: ./discovery, ports: ['8080:8080']}
  order-service:
    build: ./order-service
    ports: ['8082:8082']
    environment:
      - REGISTRY_URL=http://discovery:8080
      - DB_URL=postgres://user:password@postgres:5432/orderdb
      - RABBITMQ_URL=amqp://rabbitmq:5672
    depends_on: [discovery, postgres, rabbitmq]
  postgres: {image: 'postgres:15'}
";
    let yaml = Folder::new().from(compose, "order-service");
    has(
        &yaml,
        &["port: 8082 ", "# upstreams:", "# Called as before, not through lictor: discovery, postgres, rabbitmq."],
    );
    assert!(!yaml.contains("password"), "{yaml}");
}

#[test]
fn urls_ports_health_checks_and_maps_are_read() {
    let compose = "
x-environment: &environment {CONSUL_HOST: consul, SERVICE_VERSION: '2.1'}
services:
  order-service:
    build: {context: ./services/order}
    environment:
      <<: *environment
      SERVICE_NAME: order-service
      SERVICE_PORT: 3003
      USER_SERVICE_URL: http://user-service:3001
      PRODUCT_SERVICE_URL: ${PRODUCT_SERVICE_URL:-http://product-service:3002/api}
      STOCK_HOST: stock
      STOCK_PORT: 3003
      MONGODB_URI: mongodb://mongo:27017/orderdb
    depends_on: {consul: {condition: service_started}, user-service: {condition: service_healthy}, mongo: {condition: service_started}}
    healthcheck: {test: [CMD, curl, -f, 'http://localhost:3003/health']}
    deploy: {replicas: 2}
  user-service: {build: ./user, environment: {SERVICE_PORT: 3001}}
  stock: {build: ./stock, expose: [3003]}
  mongo: {image: 'mongo:6.0', ports: ['27017:27017']}
  consul: {image: 'consul:1.15'}
";
    let yaml = Folder::new().from(compose, "order-service");
    has(
        &yaml,
        &["service: order-service ", "port: 3003 ", "check: /health ", "registration: {meta: {version: '2.1'}} "],
    );
    has(&yaml, &["  user-service: 3001 ", "  product-service: 3002 ", "  stock: 3004 "]);
    assert!(yaml.contains("3003 is not free here"), "{yaml}");
    has(&yaml, &["# Called as before, not through lictor: mongo."]);
}

#[test]
fn several_services_have_to_be_chosen_from() {
    let folder = Folder::new();
    let file = folder.file("compose.yml", LIST);
    let words = ["init", "--stdout", "--from", file.to_str().unwrap()];
    let refused = folder.run(&words, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--service") && said.contains("product-service"), "{said}");
    let chosen = folder.init(&words[2..], &[("SERVICE", "product-service")]);
    has(&chosen, &["service: product-service ", "port: 8002 "]);
}

#[test]
fn a_file_that_is_there_stays() {
    let folder = Folder::new();
    let env = [("SERVICE_NAME", "web"), ("PORT", "8080")];
    assert!(folder.run(&["init"], &env).status.success());
    let path = folder.0.join("lictor.yaml");
    let written = std::fs::read_to_string(&path).unwrap();
    has(&written, &["service: web ", "port: 8080 "]);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    let refused = folder.run(&["init"], &env);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(read(&path), "mine");
    assert!(folder.run(&["init", "--force"], &env).status.success());
    assert_eq!(read(&path), written);
}

#[test]
fn a_registered_service_is_a_source() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    let url = format!("http://127.0.0.1:{}/healthz", app.port());
    let body = json!({ "Name": "orders", "ID": "o", "Port": app.port(), "Meta": { "version": "1.2", "lictor-upstreams": "carts" },
        "Check": { "HTTP": url, "Interval": "1s" },
        "Connect": { "SidecarService": { "Proxy": { "Upstreams": [{ "DestinationName": "users", "LocalBindPort": 9191 }] } } } });
    consul.put("/v1/agent/service/register", &body);
    let health = || consul.json("/v1/health/service/orders")[0]["Checks"].to_string();
    eventually_is("its check has run", health, |checks| checks.contains("HTTP GET"));
    eventually_is("its proxy is known", || consul.json("/v1/health/connect/orders"), |list| list[0].is_object());
    let (folder, env) = (Folder::new(), [("CONSUL_HTTP_ADDR", consul.url())]);
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let yaml = folder.init(&["--from-consul", "orders"], &env);
    let (port, agent) = (format!("port: {} ", app.port()), format!("consul: {{address: {}}} ", consul.url()));
    has(&yaml, &["service: orders ", &port, "check: /healthz ", "  users: 9191 ", "  carts: 3001 ", &agent]);
    let unknown = folder.run(&["init", "--stdout", "--from-consul", "order"], &env);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean `orders`?"));
}

const OPENAPI: &str = r#"
openapi: 3.1.0
info: {title: "User Service (v2)", version: "2"}
servers: [{url: "http://{host}:8001/api/v1", variables: {host: {default: users.internal}}}, {url: "https://spare.example"}]
security: [{bearer: []}]
paths:
  /users:
    parameters: []
    get: {operationId: listUsers, security: []}
    post: {operationId: createUser}
  /users/{user-id}:
    get: {operationId: getUser, security: [{}]}
  /users/{id}.json:
    get: {operationId: getUserAsJson, security: []}
  x-internal: {a: 1}
webhooks: {changed: {post: {}}}
"#;

const SWAGGER: &str = r#"{"swagger": "2.0", "info": {"title": "Pets"}, "host": "pets:9000", "basePath": "/v2",
  "paths": {"/pets": {"get": {}}, "/": {"head": {}}}}"#;

#[test]
fn an_openapi_document_becomes_a_gateways_routes() {
    let folder = Folder::new();
    let file = folder.file("openapi.yml", OPENAPI);
    let yaml = folder.init(&["--from", file.to_str().unwrap()], &[]);
    has(
        &yaml,
        &[
            "service: api-gateway",
            "  listen: 8080 ",
            "    - {path: /api/v1/users, methods: [GET, POST], to: user-service-v2} # listUsers, createUser",
            "    - {path: '/api/v1/users/{user_id}', methods: [GET], to: user-service-v2} # getUser",
            "  user-service-v2: {static: [users.internal:8001]} ",
            "# Not carried over:",
            "# - `servers`: 1 of 2 ",
            "# - POST /users: `security`",
            "# - getUserAsJson: ",
            "# - `webhooks`",
        ],
    );
    assert!(!yaml.contains("GET /users") && !yaml.contains("x-internal"), "{yaml}");
    let file = folder.file("swagger.json", SWAGGER);
    let yaml = folder.init(&["--from", file.to_str().unwrap()], &[]);
    has(
        &yaml,
        &[
            "    - {path: /v2/pets, methods: [GET], to: pets} # /pets",
            "    - {path: /v2/, methods: [HEAD], to: pets} # /",
            "  pets: {static: [pets:9000]} ",
        ],
    );
}

const NGINX: &str = r#"
# the shop
worker_processes auto;
events { worker_connections 1024; }
http {
  include mime.types;
  upstream users { least_conn; server 127.0.0.1:8001; server users-2:8001 weight=2; }
  server {
    listen 80;
    server_name shop.example *.shop.example ~^www\d+\.shop\.example$;
    location /api/users/ { proxy_pass http://users/users/; proxy_read_timeout 30; }
    location = /api/ping { return 200 "pong; 'it' {works}"; }
    location ^~ /old { return 301 https://shop.example$request_uri; }
    location ~ \.php$ { fastcgi_pass unix:/run/php.sock; }
    location /orders { proxy_pass http://orders:8002; client_max_body_size 10m; proxy_set_header X-Real-IP $remote_addr; }
    location / { root /srv/www; try_files $uri ${uri}/ =404; }
    rewrite ^/a/(.*)$ /b/$1 last;
  }
  server { listen 8443 ssl; return 301 http://elsewhere.example/; }
  server {
    listen 80; server_name b.example *.;
    location = /motd { return 200 "a\n\"b\" \.c"; proxy_read_timeout 60; }
    location = /old { return 308 https://new.example$request_uri; }
    location /x { proxy_pass http://app_blue; proxy_read_timeout "1s, cache: on"; }
    location /y { proxy_pass http://app-blue; }
  }
  upstream app_blue { server 127.0.0.1:1; }
  upstream app-blue { server 127.0.0.1:2; }
}
"#;

#[test]
fn an_nginx_configuration_becomes_a_gateways_routes() {
    let folder = Folder::new();
    let file = folder.file("nginx.conf", NGINX);
    let yaml = folder.init(&["--from", file.to_str().unwrap()], &[]);
    has(
        &yaml,
        &[
            "  listen: 80 ",
            "    - {host: shop.example, path: '/api/users/*', to: users, rewrite: '/users/*', idle_timeout: 30s} # line 11",
            "    - {host: '*.shop.example', path: '/api/users/*', ",
            "    - {host: shop.example, path: /api/ping, respond: {status: 200, body: 'pong; ''it'' {works}', ",
            "    - {host: shop.example, path: '/old/*', redirect: {to: 'https://shop.example/*', status: 301}} ",
            "    - {host: shop.example, path: '/orders/*', to: orders} ",
            "    - {path: '/*', redirect: {to: http://elsewhere.example/, status: 301}} ",
            "  orders: {static: [orders:8002]} ",
            "  users: {static: [",
            "# - line 6: `include mime.types`",
            "# - line 7: `weight=2` of a server",
            r"# - line 10: the name `~^www\d+\.shop\.example$`",
            r"# - line 14: `location ~ \.php$`",
            "# - line 15: `client_max_body_size 10m`",
            "# - line 15: `proxy_set_header X-Real-IP $remote_addr`",
            "# - line 16: `root /srv/www`",
            "# - line 16: `location /` sends nothing on",
            "# - line 17: `rewrite ^/a/(.*)$ /b/$1 last`",
            "# - line 19: `listen 8443`; there is one listener, 80",
            r#"    - {host: b.example, path: /motd, respond: {status: 200, body: "a\n\"b\" \\.c", content_type: text/plain}} "#,
            "    - {host: b.example, path: /old, redirect: {to: https://new.example/old, status: 308}} ",
            "    - {host: b.example, path: '/x/*', to: app-blue} ",
            "    - {host: b.example, path: '/y/*', to: app-blue-2} ",
            "  app-blue: {static: [",
            "  app-blue-2: {static: [",
            "# - line 24: `proxy_read_timeout 1s, cache: on`",
            "# - line 24: `*.` is not a host",
        ],
    );
    for (text, why) in [
        ("worker_processes 1;", "has no `server` block"),
        ("server { listen 80; ", "it ends within a directive or block"),
        ("server { } }", "line 1: `}` where none is expected"),
        ("server { listen \"80; }", "line 1: a quote that does not end"),
    ] {
        let file = folder.file("bad.conf", text);
        let refused = folder.run(&["init", "--stdout", "--from", file.to_str().unwrap()], &[]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{text}: {said}");
    }
}
