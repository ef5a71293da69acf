//! Whole files in, configurations or complaints out.

use std::time::Duration;

use lictor_config::{
    Check, Config, ConsulAddress, Environment, Origin, Place, Query, Report, Source, Sources, Text, Upstream, changes,
    json_schema, load,
};
use lictor_core::mesh::Protocol;
use lictor_core::policy::{Algorithm, CachePolicy, Hedge, HedgeDelay};
use lictor_core::tls::ClientTls;
use proptest::prelude::*;

fn env(pairs: &[(&str, &str)]) -> Environment {
    let vars = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Environment { vars, hostname: "host-1".to_owned() }
}

fn text(yaml: &str) -> Text {
    Text { name: "lictor.yaml".to_owned(), text: yaml.to_owned() }
}

fn good(yaml: &str) -> Config {
    load(Some(&text(yaml)), &env(&[]), &[]).unwrap_or_else(|report| panic!("{report}")).config
}

fn bad(yaml: &str) -> Report {
    load(Some(&text(yaml)), &env(&[]), &[]).err().unwrap_or_else(|| panic!("accepted:\n{yaml}"))
}

const MINIMAL: &str = "\
service: order-service
port: 8082
check: /health
upstreams:
  user-service: 3001
  product-service: 3002
";

#[test]
fn every_balancer_has_its_words_and_all_of_them_are_documented() {
    let schema = json_schema().to_string();
    for algorithm in Algorithm::ALL {
        for word in algorithm.words().iter().filter(|_| !matches!(algorithm, Algorithm::RingHash(_))) {
            let config = good(&format!("registration: off\nupstreams: {{users: {{listen: 3001, balance: {word}}}}}\n"));
            assert_eq!(config.upstreams[0].policy.balance.algorithm, algorithm, "{word}");
            assert!(schema.contains(&format!("\"{word}\"")), "{word}");
        }
    }
}

#[test]
fn seven_lines_are_enough() {
    let config = good(MINIMAL);
    let registration = config.registration.unwrap();
    assert_eq!(registration.id, "order-service-host-1-8082");
    assert_eq!(registration.port, 8082);
    let (interval, timeout) = (Duration::from_secs(10), Duration::from_secs(5));
    assert_eq!(registration.checks, [Check::Http { target: "/health".to_owned(), interval, timeout }]);
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("127.0.0.1".to_owned(), 8500)));
    let [users, products] = &config.upstreams[..] else { panic!() };
    assert_eq!(users.listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3001");
    assert_eq!(products.source, Source::Consul(Query { service: "product-service".to_owned(), ..Query::default() }));
    assert_eq!(users.policy, lictor_core::Policy::default());
}

#[test]
fn listeners_and_endpoints_may_have_tls_and_unix_sockets() {
    let config = good(
        "service: a
app: {address: 'unix:/run/app.sock'}
check: /health
inbound: {listen: {address: 18080, tls: {cert: /c.pem, key: /k.pem, client_ca: /ca.pem}, max_connection_age: 10m}}
outbound: {proxy: 'unix:/run/proxy.sock'}
upstreams:
  users: {listen: 'unix:/run/users.sock', tls: {ca: /ca.pem, server_name: users.internal}, hedge: p90, fallback: {stale: 5m}}
  carts: {listen: {address: 3002}, tls: true, cache: 2s, hedge: {after: 50ms, max: 2}}
  db: {listen: 3306, protocol: tcp}
",
    );
    let inbound = config.inbound.as_ref().unwrap();
    assert_eq!(inbound.listen.address.to_string(), "0.0.0.0:18080");
    assert_eq!(inbound.listen.max_connection_age, Some(Duration::from_secs(600)));
    assert_eq!(config.server_tls().next().unwrap().client_ca, Some("/ca.pem".into()));
    let registration = config.registration.as_ref().unwrap();
    assert_eq!(registration.port, 18080);
    let [users, carts, db] = &config.upstreams[..] else { panic!() };
    assert_eq!(users.listen.as_ref().unwrap().address.to_string(), "unix:/run/users.sock");
    assert_eq!(users.tls.as_ref().unwrap().server_name.as_deref(), Some("users.internal"));
    assert_eq!(users.policy.hedge, Some(Hedge { after: HedgeDelay::Quantile(0.9), max: 1 }));
    assert_eq!(users.policy.stale, Some(Duration::from_secs(300)));
    assert_eq!(carts.tls, Some(ClientTls::default()));
    assert_eq!(carts.policy.cache, Some(CachePolicy { ttl: Duration::from_secs(2), coalesce: true }));
    assert_eq!(carts.policy.hedge, Some(Hedge { after: HedgeDelay::Fixed(Duration::from_millis(50)), max: 2 }));
    assert_eq!((db.protocol, db.policy.hedge, db.policy.cache), (Some(Protocol::Tcp), None, None));
}

#[test]
fn a_flag_may_add_to_a_shorthand() {
    let flags = [
        ("upstreams.users.listen.tls.cert", "/c"),
        ("upstreams.users.listen.tls.key", "/k"),
        ("upstreams.carts.tls", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let yaml = text("registration: off\nupstreams: {users: {listen: 3001}, carts: 3002}\n");
    let config = load(Some(&yaml), &env(&[]), &flags).unwrap_or_else(|report| panic!("{report}")).config;
    let [users, carts] = &config.upstreams[..] else { panic!() };
    assert!(users.listen.as_ref().unwrap().tls.is_some());
    assert_eq!(carts.listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3002");
    assert!(carts.tls.is_some());
}

#[test]
fn no_file_at_all_is_enough() {
    let env = env(&[
        ("SERVICE_NAME", "order-service"),
        ("SERVICE_PORT", "8082"),
        ("LICTOR_UPSTREAMS", "user-service:3001, legacy:9001=10.0.0.7:80|10.0.0.8:80"),
        ("CONSUL_HOST", "consul"),
        ("RETRY_MAX_ATTEMPTS", "5"),
        ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "30"),
        ("LICTOR_DEFAULTS_TIMEOUT", "7s"),
    ]);
    let loaded = load(None, &env, &[]).unwrap_or_else(|report| panic!("{report}"));
    let config = loaded.config;
    assert_eq!(config.service.as_deref(), Some("order-service"));
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("consul".to_owned(), 8500)));
    assert_eq!(config.defaults.retry.attempts, 5);
    assert_eq!(config.defaults.breaker.recovery_timeout, Duration::from_secs(30));
    assert_eq!(config.upstreams[0].policy.timeouts.total, Some(Duration::from_secs(7)));
    assert_eq!(config.upstreams[1].source, Source::Static(vec!["10.0.0.7:80".to_owned(), "10.0.0.8:80".to_owned()]));
    assert!(loaded.compat_env_used.contains(&"RETRY_MAX_ATTEMPTS".to_owned()));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn precedence_is_older_variables_file_standard_variables_flags() {
    let yaml = text("service: a\nport: 1\nconsul: {address: 'http://file:1'}\ndefaults: {retry: {attempts: 2}}\n");
    let both = env(&[("SERVICE_NAME", "b"), ("RETRY_MAX_ATTEMPTS", "9"), ("CONSUL_HTTP_ADDR", "env:2")]);
    let config = load(Some(&yaml), &both, &[]).unwrap().config;
    assert_eq!((config.service.as_deref(), config.defaults.retry.attempts), (Some("a"), 2));
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("env".to_owned(), 2)));
    let flag = ("defaults.retry.attempts".to_owned(), "4".to_owned());
    let loaded = load(Some(&yaml), &both, &[flag]).unwrap();
    assert_eq!(loaded.config.defaults.retry.attempts, 4);
    let origin = |path: &str| loaded.values.iter().find(|value| value.path == path).unwrap().origin.clone();
    assert_eq!(origin("defaults.retry.attempts"), Origin::Flag);
    assert_eq!(origin("consul.address"), Origin::Env("CONSUL_HTTP_ADDR".to_owned()));
    assert_eq!(origin("service"), Origin::File { name: "lictor.yaml".to_owned(), line: 1, column: 10 });
    assert_eq!(origin("defaults.timeout"), Origin::Default);
}

#[test]
fn policies_are_inherited_key_by_key() {
    let config = good(
        "registration: off
defaults:
  timeout: 10s
  retry: {attempts: 2, delays: [50ms], on: [503, reset]}
  balance: round-robin
upstreams:
  users:
    listen: 3001
    timeout: 5s
    breaker: {error_rate: {threshold: 60%}}
    version: v2
    filter: 'Service.Meta.zone==\"a\"'
    routes:
      - {match: 'POST /users', idempotent: true, timeout: 1s, retry: {max_retries: 4}}
  carts:
    listen: 3002
    balance: {ring_hash: {header: X-User-ID}}
    retry: off
    breaker: off
  legacy: {listen: 9001, static: ['10.0.0.7:80']}
",
    );
    let users = &config.upstreams[0];
    assert_eq!(users.policy.timeouts.total, Some(Duration::from_secs(5)));
    assert_eq!(users.policy.retry.attempts, 2);
    assert_eq!(users.policy.retry.statuses, [http::StatusCode::SERVICE_UNAVAILABLE]);
    assert_eq!(users.policy.balance.algorithm, Algorithm::RoundRobin);
    assert!((users.policy.breaker.error_rate.unwrap().threshold - 0.6).abs() < 1e-9);
    let Source::Consul(query) = &users.source else { panic!() };
    assert_eq!(query.filter.as_deref(), Some("(Service.Meta.zone==\"a\") and Service.Meta.version == \"v2\""));
    let route = users.routes.iter().next().unwrap();
    assert_eq!((route.policy.retry.attempts, route.is_idempotent), (5, Some(true)));
    let carts = &config.upstreams[1].policy;
    assert!(matches!(carts.balance.algorithm, Algorithm::RingHash(_)));
    assert_eq!((carts.retry.attempts, carts.breaker.enabled), (1, false));
}

#[test]
fn secrets_appear_in_no_output() {
    let yaml = text(
        "registration: off
consul: {token: canary-1}
service_token: canary-2
upstreams: {users: {listen: 3001, headers: {set: {Authorization: canary-3}}}}
",
    );
    let loaded = load(Some(&yaml), &env(&[]), &[]).unwrap();
    let everything = format!("{:?}\n{}", loaded.config, lictor_config::render(&loaded.values, true));
    assert!(!everything.contains("canary"), "{everything}");
}

#[test]
fn an_admin_listener_for_other_machines_wants_a_token() {
    let warnings = |yaml: &str| load(Some(&text(yaml)), &env(&[]), &[]).unwrap().warnings.to_string();
    let open = warnings("registration: off\nadmin: {listen: '0.0.0.0:9901'}\n");
    assert!(open.contains("health and metrics only") && open.contains("admin.token"), "{open}");
    let closed = warnings("registration: off\nadmin: {listen: '0.0.0.0:9901', token: 0123456789abcdef}\n");
    assert!(!closed.contains("admin"), "{closed}");
    let vars = env(&[("LICTOR_ADMIN_TOKEN", "0123456789abcdef")]);
    let loaded = load(Some(&text("registration: off\n")), &vars, &[]).unwrap();
    assert_eq!(loaded.config.admin.token.unwrap().reveal(), "0123456789abcdef");
}

#[test]
fn five_mistakes_are_five_errors_with_their_lines_and_suggestions() {
    let report = bad("\
service: order-service
port: 8082
upstreams:
  user-service:
    listen: 3001
    retrys: {attempts: 3}
  product-service:
    listen: 3001
    breaker:
      failure_threshold: 0
    balance: round_robbin
defaults:
  timeout: 30
");
    let rendered = report.to_string();
    assert_eq!(report.0.len(), 5, "{rendered}");
    for expected in [
        "error: unknown field `retrys`\n   --> lictor.yaml:6:5   upstreams.user-service.retrys",
        "did you mean `retry`?",
        "port 3001 is taken already by upstream user-service\n   --> lictor.yaml:8:13",
        "0 is too small: at least 1\n   --> lictor.yaml:10:26",
        "unknown value `round_robbin`\n   --> lictor.yaml:11:14",
        "did you mean `round_robin`?",
        "`30` has no unit: write `30s` or `30ms`\n   --> lictor.yaml:13:12",
        " 13 |   timeout: 30\n    |            ^^",
        "lictor: 5 errors in lictor.yaml",
    ] {
        assert!(rendered.contains(expected), "no `{expected}` in\n{rendered}");
    }
}

#[test]
fn each_mistake_is_found_where_it_is() {
    for (yaml, line, message) in [
        ("service: a\nport: 8082\nworkres: 2\n", 3, "unknown field `workres`"),
        ("service: a\nport: 99999\n", 2, "not a port"),
        ("service: a b\nport: 1\n", 1, "not a service name"),
        ("service: a\n", 1, "needs the application's port"),
        ("service: a\nport: 1\ncheck: health\n", 3, "not a path"),
        ("service: a\nport: 1\ncheck: {http: /a, tcp: true}\n", 3, "one of http, tcp, grpc and ttl"),
        ("service: a\nport: 1\ncheck: {ttl: 1s}\n", 3, "too short"),
        ("registration: off\nadmin: {listen: '0.0.0.0:9901', token: short}\n", 2, "at least 16 characters"),
        ("registration: off\nconsul: {token: [secret]}\n", 2, "expected one value, found a list"),
        ("registration: off\nservice_token: [secret, {a: b}]\n", 2, "expected one value, found a map"),
        ("registration: off\nadmin: {token: 'sixteen characters'}\n", 2, "no spaces"),
        ("registration: off\nadmin: {token: 'file:/no/such'}\n", 2, "cannot read /no/such"),
        ("registration: off\nlog: {level: inof}\n", 2, "did you mean `info`?"),
        ("registration: off\nlog: {access: som}\n", 2, "none of"),
        ("registration: off\ntrace: {sample: 20}\n", 2, "20%"),
        ("registration: off\ntrace: {otlp: otel}\n", 2, "not a URL"),
        ("registration: off\nmetrics: {merge_app: 8082}\n", 2, "not a URL"),
        ("registration: off\nmetrics: {merge_app: 'https://127.0.0.1/metrics'}\n", 2, "not a URL"),
        ("registration: off\nmetrics: {merge_app: 'http://10.0.0.7:8082'}\n", 2, "not on this machine"),
        ("registration: off\nmetrics: {merge_app: 'http://127.0.0.1.evil.example'}\n", 2, "not on this machine"),
        ("registration: off\nmetrics: {merge_app: 'http://127.0.0.1@evil.example:80'}\n", 2, "may name no user"),
        ("registration: off\nconsul: {address: 'http://me:x@consul:8500'}\n", 2, "`consul.http_auth`"),
        ("registration: off\nconsul: {address: 'me:x@consul:8500'}\n", 2, "`consul.http_auth`"),
        ("registration: off\ntrace: {otlp: 'https://me:x@otel'}\n", 2, "`trace.headers`"),
        ("registration: off\ndefaults: {retry: {attempts: 0}}\n", 2, "at least 1"),
        ("registration: off\ndefaults: {retry: {delays: []}}\n", 2, "at least one delay"),
        ("registration: off\ndefaults: {retry: {backoff: {factor: 0.5}}}\n", 2, "at least 1"),
        ("registration: off\ndefaults: {retry: {on: [600]}}\n", 2, "neither a status"),
        ("registration: off\ndefaults: {retry: {methods: [get]}}\n", 2, "not a method"),
        ("registration: off\ndefaults: {balance: ring_hash}\n", 2, "something to hash on"),
        ("registration: off\ndefaults: {breaker: {success_threshold: 0}}\n", 2, "at least 1"),
        ("registration: off\ndefaults: {ejection: {max_percent: 150}}\n", 2, "between 0% and 100%"),
        ("registration: off\ngateway: {listen: 8080}\n", 2, "not in this version yet"),
        ("registration: off\nupstreams:\n  db: {listen: 3306, protocol: tcp, cache: 5s}\n", 3, "carries bytes"),
        ("registration: off\nupstreams:\n  a: {listen: {tls: {cert: /c, key: /k}}}\n", 3, "needs an `address`"),
        ("registration: off\nupstreams:\n  a: {listen: {address: 1, tls: {cert: /c}}}\n", 3, "belong together"),
        ("registration: off\nupstreams:\n  a: {listen: 1, tls: {key: /k}}\n", 3, "belong together"),
        ("registration: off\nupstreams:\n  a: {listen: 'unix:a.sock'}\n", 3, "absolute path"),
        ("registration: off\nupstreams:\n  a: {listen: 1, hedge: {after: p100}}\n", 3, "not a percentile"),
        ("service: a\napp: {address: 'unix:/a.sock'}\n", 1, "callers cannot reach the application's Unix socket"),
        ("service: a\napp: {address: 'unix:/a.sock'}\ninbound: true\n", 3, "needs a port of its own"),
        ("service: a\nport: 1\ninbound: {listen: 'unix:/a.sock'}\n", 3, "cannot reach a Unix socket"),
        ("registration: off\nservice: a\nport: 1\napp: {address: '127.0.0.1:2'}\n", 3, "are both given"),
        ("registration: off\nupstreams:\n  a: {static: ['x:1'], tag: b}\n", 3, "asks Consul"),
        ("registration: off\nupstreams:\n  a: {static: [nowhere]}\n", 3, "not `host:port`"),
        ("registration: off\nupstreams:\n  a:\n    routes:\n      - {match: users}\n", 5, "must start with `/`"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {'b c': d}}}\n", 3, "not a header name"),
        ("registration: off\nupstreams: [a]\n", 2, "expected a map"),
        ("registration: off\nconsul: {address: 'ftp://x'}\n", 2, "not a scheme"),
        ("registration: off\nconsul: {token: a, token_file: b}\n", 2, "both given"),
        ("registration: off\nconsul: {wait: 1h}\n", 2, "between 1s and 10m"),
        ("registration: off\nservice_token: internal-service-secret\n", 2, "public tutorials"),
        ("registration: off\nconsul: {kv: true}\n", 2, "needs to know whose it is"),
        ("registration: off\nservice: a\nconsul: {kv: {config: '/a b'}}\n", 3, "not a KV key"),
        ("registration: off\nconsul: {snapshot: {max_age: 1h}}\n", 2, "needs a `path`"),
        ("registration: off\ndefaults: {timeout: '${NO_SUCH}'}\n", 2, "the environment has no NO_SUCH"),
        ("service: a\nport: 1\nregistration: {address: 'interface:eth0'}\n", 3, "not in this version yet"),
        ("service: a\nport: 1\nregistration: {weights: {passing: 0}}\n", 3, "at least 1"),
        ("registration: off\ninbound: true\n", 2, "where the application listens"),
        ("registration: off\noutbound: {allow: ['a b']}\n", 2, "not a service name"),
        ("registration: off\nlifecycle: {drain_delay: soon}\n", 2, "not a duration"),
        ("version: 2\nregistration: off\n", 1, "only version 1"),
        ("registration: off\nservice: [\n", 3, "not valid YAML"),
        ("registration: off\nregistration: off\n", 2, "duplicate"),
    ] {
        let report = bad(yaml);
        let rendered = report.to_string();
        assert!(rendered.contains(message), "no `{message}` in\n{rendered}");
        assert!(rendered.contains(&format!("--> lictor.yaml:{line}:")), "not line {line}:\n{rendered}");
    }
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    let env = env(&[("LICTOR_UPSTREAMS", "users"), ("LICTOR_WORKERS", "many"), ("LICTOR_WROKERS", "2")]);
    let report = load(None, &env, &[]).unwrap_err().to_string();
    for expected in
        ["environment variable LICTOR_UPSTREAMS", "environment variable LICTOR_WORKERS", "did you mean LICTOR_WORKERS?"]
    {
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn an_applications_metrics_have_a_path_by_default() {
    let url =
        |text: &str| good(&format!("registration: off\nmetrics: {{merge_app: '{text}'}}\n")).metrics.merge_app.unwrap();
    assert_eq!(url("http://localhost:8082"), "http://localhost:8082/metrics");
    assert_eq!(url("http://[::1]:8082/stats?all"), "http://[::1]:8082/stats?all");
}

#[test]
fn the_schema_has_every_key_with_its_page() {
    let schema = json_schema();
    assert_eq!(schema["properties"]["defaults"]["properties"]["retry"]["properties"]["attempts"]["default"], "3");
    let upstream = &schema["properties"]["upstreams"]["additionalProperties"];
    assert_eq!(upstream["properties"]["listen"]["properties"]["address"]["type"][0], "integer");
    assert_eq!(upstream["properties"]["routes"]["items"]["properties"]["match"]["type"][0], "string");
    assert!(schema["properties"]["service"]["description"].as_str().unwrap().contains("Consul"));
}

/// The file and the value of the KV key.
fn over(file: &str, kv: &str) -> Sources {
    let kv = Text { name: "kv:lictor/orders/config".to_owned(), text: kv.to_owned() };
    Sources { file: Some(text(file)), kv: Some(kv), env: env(&[]), flags: Vec::new() }
}

const ORDERS: &str = "service: orders\nport: 8080\nregistration: off\nconsul: {kv: true}\nupstreams:\n  users: 3001\n  carts: {listen: 3002, timeout: 3s, retry: {on: [503, reset]}}\n";

#[test]
fn kv_is_over_the_file_and_under_the_environment() {
    let mut sources = over(
        ORDERS,
        "defaults: {timeout: 9s}\nupstreams:\n  users: {timeout: 5s}\n  carts: {retry: {on: [500]}}\n  pay: 3003\n",
    );
    sources.flags = vec![("upstreams.carts.timeout".to_owned(), "2s".to_owned())];
    let loaded = sources.load().unwrap_or_else(|report| panic!("{report}"));
    let seen = |name: &str| loaded.config.upstreams.iter().find(|upstream| upstream.name == name).unwrap();
    let seconds = |name| seen(name).policy.timeouts.total.unwrap().as_secs();
    assert_eq!((seconds("users"), seconds("carts"), seconds("pay")), (5, 2, 9));
    assert_eq!(seen("users").listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3001", "the shorthand stays");
    assert_eq!(seen("carts").policy.retry.statuses, [http::StatusCode::INTERNAL_SERVER_ERROR], "a list is replaced");
    let origin = |path: &str| loaded.values.iter().find(|value| value.path == path).unwrap().origin.to_string();
    assert_eq!(origin("defaults.timeout"), "kv:lictor/orders/config:1:21");
    assert_eq!(origin("upstreams.users.timeout"), "kv:lictor/orders/config:3:20");
    assert_eq!(origin("upstreams.users.listen"), "lictor.yaml:6:10");
    assert_eq!(origin("upstreams.carts.timeout"), "--set");
    let by_variable = env(&[("LICTOR_CONSUL_KV", "true"), ("LICTOR_CONSUL_SNAPSHOT_PATH", "/s")]);
    let consul = load(Some(&text("service: a\nregistration: off\n")), &by_variable, &[]).unwrap().config.consul;
    assert_eq!(
        (consul.kv.unwrap().config.as_str(), consul.snapshot.unwrap().path.to_str()),
        ("lictor/a/config", Some("/s"))
    );
    assert!(consul.address.is_some(), "that needs Consul");
    let keys = loaded.config.consul.kv.unwrap();
    assert_eq!((keys.config.as_str(), keys.status.as_str()), ("lictor/orders/config", "lictor/orders/status"));
    assert!(over(ORDERS, "").load().is_ok() && over(ORDERS, "upstreams:\n").load().is_ok(), "nothing says nothing");
}

#[test]
fn kv_may_not_say_who_we_are_nor_reach_out() {
    for (kv, place, message) in [
        ("admin: {listen: 9902}\n", "1:1", "KV may not change `admin`"),
        ("defaults: {timeout: 1s}\nconsul: {address: 'http://x'}\n", "2:1", "KV may not change `consul`"),
        ("service: carts\n", "1:1", "KV may not change `service`"),
        ("port: 1\n", "1:1", "KV may not change `port`"),
        ("check: /x\n", "1:1", "KV may not change `check`"),
        ("registration: {id: x}\n", "1:1", "KV may not change `registration`"),
        ("app: {command: [sh]}\n", "1:1", "KV may not change `app`"),
        ("workers: 1\n", "1:1", "KV may not change `workers`"),
        ("service_token: x\n", "1:1", "KV may not change `service_token`"),
        ("metrics: {compat: false}\n", "1:1", "KV may not change `metrics`"),
        ("inbound: {listen: 5000}\n", "1:11", "KV may not change `inbound.listen`"),
        ("inbound: {verify_service_token: false}\n", "1:11", "KV may not change `inbound.verify_service_token`"),
        ("inbound: true\n", "1:1", "KV may not change `inbound`"),
        ("inbound: {max_in_flight: 5}\n", "1:10", "no inbound listener"),
        ("trace: {otlp: 'http://x:4318'}\n", "1:9", "KV may not change `trace.otlp`"),
        ("log: {format: text}\n", "1:7", "KV may not change `log.format`"),
        ("upstreams: {pay: '0.0.0.0:3003'}\n", "1:18", "KV may not listen on 0.0.0.0:3003"),
        ("upstreams: {pay: 80}\n", "1:18", "KV may not listen on 127.0.0.1:80"),
        ("upstreams:\n  pay: {listen: {address: 'unix:/run/x'}}\n", "2:27", "KV may not listen on unix:/run/x"),
        ("outbound: {proxy: '10.0.0.1:3003'}\n", "1:19", "KV may not listen on 10.0.0.1:3003"),
        ("upstreams:\n  users: {tls: off}\n", "2:11", "KV may not change TLS"),
        ("upstreams:\n  pay: {listen: {address: 3003, tls: {key: /k}}}\n", "2:33", "KV may not change TLS"),
        ("upstreams: {users: {headers: {set: {A: 'file:/etc/shadow'}}}}\n", "1:40", "this machine's files"),
        ("upstreams: {users: {headers: {set: {A: '${HOME}'}}}}\n", "1:40", "this machine's environment"),
        ("defaults: {timeuot: 1s}\n", "1:12", "unknown field `timeuot`"),
        ("defualts: {timeout: 1s}\n", "1:1", "did you mean `defaults`?"),
        ("upstreams: {pay: 3001}\n", "1:18", "port 3001 is taken already by upstream users"),
        ("upstreams: {\n", "2:1", "not valid YAML"),
        ("hello\n", "1:1", "expected a map"),
    ] {
        let report = over(ORDERS, kv).load().expect_err(kv);
        let said = report.sentences();
        let expected = format!("kv:lictor/orders/config:{place}:");
        assert!(said.iter().any(|line| line.starts_with(&expected) && line.contains(message)), "{kv}: {said:#?}");
        assert_eq!(said.len(), 1, "{kv}: {said:#?}");
    }
    let inbound = "service: orders\nport: 8080\nregistration: off\ninbound: true\n";
    let loaded = over(inbound, "inbound: {max_in_flight: 5}\n").load().unwrap_or_else(|report| panic!("{report}"));
    let inbound = loaded.config.inbound.unwrap();
    assert_eq!((inbound.max_in_flight, inbound.listen.address.to_string().as_str()), (5, "0.0.0.0:18080"));
    let off = "service: orders\nport: 8080\nregistration: off\ninbound: off\n";
    assert!(over(off, "inbound: {max_in_flight: 5}\n").load().is_err());
}

/// Whom this machine's sources name, each in another way.
fn with_secrets() -> Sources {
    let file = "service: orders
registration: off
consul: {kv: true}
service_token: s3cret
outbound: {proxy: 3000, allow: [allowed, team-*]}
upstreams:
  short: 3001
  named:
  payments: {listen: {address: 3002, tls: {cert: /c, key: /k}}, service: pay, tag: [blue], headers: {set: {X-Partner-Key: s3cret}}}
  legacy: {listen: 3003, static: ['a:1']}
";
    let mut sources = over(file, "");
    sources.env = env(&[("LICTOR_UPSTREAMS", "variable:3004")]);
    sources.flags = vec![("upstreams.flag.listen".to_owned(), "3005".to_owned())];
    sources
}

#[test]
fn kv_never_chooses_who_gets_what_this_machine_sends() {
    let names = ["short", "named", "payments", "legacy", "variable", "flag", "PAYMENTS", "allowed", "team-a"];
    for key in [
        "service: evil",
        "datacenter: evil",
        "tag: evil",
        "tag: []",
        "filter: 'Node == evil'",
        "version: evil",
        "near: evil",
        "static: ['evil:80']",
        "service: evil, headers: {set: {X-Partner-Key: mine, X-Service-Auth: mine}}",
        "headers: {set: {Host: evil}}",
        "headers: {set: {hOsT: evil}}",
    ] {
        for name in names {
            for kv in [
                format!("upstreams: {{{name}: {{{key}}}}}\n"),
                format!("x: &x {{{key}}}\nupstreams: {{{name}: {{<<: *x}}}}\n"),
            ] {
                let mut sources = with_secrets();
                sources.kv.as_mut().unwrap().text.clone_from(&kv);
                let said = sources.load().expect_err(&kv).sentences();
                let expected = format!("KV may not change whom this machine's `{name}` leads to");
                assert!(said.iter().any(|line| line.contains(&expected)), "{kv}: {said:#?}");
            }
        }
    }
}

#[test]
fn what_kv_may_say_of_an_upstream_leaves_whom_it_leads_to_and_what_is_sent() {
    let before = with_secrets().load().unwrap_or_else(|report| panic!("{report}")).config;
    for kv in [
        "upstreams: {payments: {timeout: 3s, service: pay, tag: [blue]}}\n",
        "upstreams: {payments: 3009}\n",
        "upstreams: {payments: {listen: 3009}}\n",
        "upstreams: {payments: ~, short: {timeout: 3s}, named: 3007}\n",
        "upstreams: {legacy: {listen: 3009, retry: off}, variable: {timeout: 1s}, flag: 3008}\n",
        "upstreams: {own: {listen: 3008, service: evil}, other: {static: ['evil:80']}}\n",
    ] {
        let mut sources = with_secrets();
        sources.kv.as_mut().unwrap().text = kv.to_owned();
        let after = sources.load().unwrap_or_else(|report| panic!("{kv}: {report}")).config;
        let secrets = |upstream: &Upstream| {
            let is_secret = |(_, value): &&(_, http::HeaderValue)| value == "s3cret";
            upstream.set_headers.iter().filter(is_secret).count()
        };
        for upstream in &after.upstreams {
            match before.upstreams.iter().find(|known| known.name == upstream.name) {
                Some(known) => {
                    assert_eq!((&upstream.source, secrets(upstream)), (&known.source, secrets(known)), "{kv}");
                    let tls = |upstream: &Upstream| upstream.listen.as_ref().and_then(|listen| listen.tls.clone());
                    assert_eq!(tls(upstream), tls(known), "{kv}");
                }
                None => assert_eq!(secrets(upstream), 0, "{}: KV's own gets nothing of this machine's", upstream.name),
            }
        }
    }
    let wide = "upstreams: {payments: '0.0.0.0:3009'}\n";
    let mut sources = with_secrets();
    sources.kv.as_mut().unwrap().text = wide.to_owned();
    assert!(sources.load().unwrap_err().to_string().contains("KV may not listen on 0.0.0.0:3009"));
}

/// What this machine's programs say goes to a port: whoever else listens there hears it, also where `localhost` is another
/// address than the one that was meant.
#[test]
fn kv_listens_on_no_port_that_means_something_to_this_machine() {
    let file = "service: orders
port: 8080
registration: off
consul: {kv: true, address: 'http://127.0.0.1:8501'}
admin: {listen: 9902, public: '127.0.0.1:9903'}
inbound: {listen: '127.0.0.1:8081'}
outbound: {proxy: 3000}
upstreams:
  short: 3001
  long: {listen: {address: '127.0.0.1:3002'}}
  middle: {listen: 3003}
  legacy: {static: ['localhost:5432', '[::1]:5433', 'elsewhere:5434']}
";
    let load = |kv: &str| {
        let mut sources = over(file, kv);
        sources.env = env(&[("LICTOR_UPSTREAMS", "variable:3004")]);
        sources.flags = vec![("upstreams.flag.listen".to_owned(), "3005".to_owned())];
        sources.load()
    };
    let rows = [
        ("upstreams: {evil: '[::1]:3001'}", "short"),
        ("upstreams: {evil: '127.0.0.2:3002'}", "long"),
        ("upstreams: {short: 3009, evil: 3001}", "short"),
        ("upstreams: {long: 3009, evil: {listen: {address: 3002}}}", "long"),
        ("upstreams: {middle: {listen: {address: 3009}}, evil: {listen: '[::1]:3003'}}", "middle"),
        ("upstreams: {middle: {listen: off}, evil: 0xbbb}", "middle"),
        ("upstreams: {short: 3002, long: 3001}", "short"),
        ("upstreams: {evil: '[::1]:3004'}", "variable"),
        ("upstreams: {evil: '[::1]:3005'}", "flag"),
        ("outbound: {proxy: 3009}\nupstreams: {evil: 3000}", "the forward proxy"),
        ("outbound: {proxy: '[::1]:3001'}", "short"),
        ("upstreams: {evil: '[::1]:8080'}", "the application"),
        ("upstreams: {evil: '[::1]:8081'}", "inbound"),
        ("upstreams: {evil: '[::1]:9902'}", "the admin listener"),
        ("upstreams: {evil: '[::1]:9903'}", "the public admin listener"),
        ("upstreams: {evil: 8501}", "Consul's agent"),
        ("upstreams: {evil: 5432}", "legacy"),
        ("upstreams: {evil: '127.0.0.9:5433'}", "legacy"),
    ];
    for (kv, owner) in rows {
        let said = load(kv).expect_err(kv).sentences();
        assert!(
            said.iter().any(|line| line.contains("KV may not listen on") && line.contains(owner)),
            "{kv}: {said:#?}"
        );
    }
    for kv in [
        "upstreams: {short: '127.0.0.2:3001', own: 3010}",
        "upstreams: {long: 3009, middle: 3011}",
        "upstreams: {own: 5434, other: 0}",
        "outbound: {proxy: 3009}",
    ] {
        load(kv).unwrap_or_else(|report| panic!("{kv}: {report}"));
    }
}

#[test]
fn what_kv_says_in_vain_shows_no_secret() {
    let kv = "upstreams: {users: {timeuot: 1s, headers: {set: {Authorization: canary}}}}\n";
    let report = over(ORDERS, kv).load().unwrap_err();
    assert!(report.to_string().contains("timeuot"), "a person at the file sees the line");
    assert!(!report.to_string().contains("canary"), "but not the values in it");
}

#[test]
fn changes_are_what_somebody_said_and_name_secrets_by_their_key_alone() {
    let values = |kv: &str| over(ORDERS, kv).load().unwrap_or_else(|report| panic!("{report}")).values;
    let shown = |before: &str, after: &str| -> Vec<String> {
        changes(&values(before), &values(after)).iter().map(ToString::to_string).collect()
    };
    assert_eq!(shown("", "defaults: {timeout: 9s}\n"), ["defaults.timeout: 30s -> 9s"]);
    assert_eq!(shown("upstreams: {pay: 3003}\n", ""), ["upstreams.pay.listen: 3003 -> (none)"]);
    assert_eq!(shown("", "upstreams: {users: {timeout: 9s}}\n"), ["upstreams.users.timeout: 30s -> 9s"]);
    let secret = |value: &str| format!("upstreams: {{users: {{headers: {{set: {{Authorization: {value}}}}}}}}}\n");
    let key = "upstreams.users.headers.set.Authorization";
    assert_eq!(shown(&secret("canary-1"), &secret("canary-2")), [format!("{key}: *** -> ***")]);
    assert_eq!(shown(&secret("canary-1"), &secret("canary-1")), [""; 0]);
    assert_eq!(shown("", &secret("canary-1")), [format!("{key}: (none) -> ***")]);
}

proptest! {
    #[test]
    fn no_value_of_the_kv_key_is_a_panic(yaml in "[a-z:{}\\[\\]\\-0-9 \n'\"$%&*!|>#,]{0,200}") {
        let _ = over(ORDERS, &yaml).load();
    }

    #[test]
    fn no_text_is_a_panic(yaml in "[a-z:{}\\[\\]\\-0-9 \n'\"$%&*!|>#,]{0,200}") {
        let _ = load(Some(&text(&yaml)), &env(&[]), &[]);
    }

    #[test]
    fn no_value_of_a_known_key_is_a_panic(value in "[ -~]{0,24}", key in 0_usize..8) {
        let key = ["timeout", "balance", "retry", "breaker", "listen", "static", "routes", "limits"][key];
        let quoted = value.replace('\'', "''");
        let yaml = format!("registration: off\nupstreams:\n  a:\n    {key}: '{quoted}'\n");
        let _ = load(Some(&text(&yaml)), &env(&[]), &[]);
    }
}

#[test]
fn a_file_that_is_lost_or_half_written_is_told_from_one_that_says_less() {
    let sources = |text: Option<&str>| {
        let file = text.map(|text| Text { name: "lictor.yaml".to_owned(), text: text.to_owned() });
        Sources { file, ..Sources::default() }
    };
    let full = sources(Some("service: a\nupstreams: {users: 3001}\n"));
    for lost in ["", " \n", "# nothing\n", "---\n", "{}", "null", "~", "service:", "service: a\nupstreams:\n"] {
        let told = sources(Some(lost)).emptied(&full).unwrap_or_else(|| panic!("{lost:?}"));
        assert!(told.starts_with("lictor.yaml"), "{told}");
    }
    assert!(sources(None).emptied(&full).is_some());
    let blocks = sources(Some(
        "service: a\nupstreams:\n  carts: 3000\n  users:\n    listen: 3001\n    static:\n    - a:1\n    - b:1\n",
    ));
    for cut in ["listen:", "listen: 3001\n    static:", "static:\n    - a:1\n    -", ""] {
        let lost = format!("service: a\nupstreams:\n  users:\n    {cut}");
        assert!(sources(Some(&lost)).emptied(&blocks).is_some_and(|told| told.contains("upstreams.users")), "{lost:?}");
    }
    for said in ["upstreams:\n  users:\n  carts: 3000\n", "upstreams:\n  users: {}\n", "upstreams:\n  pay:\n"] {
        assert_eq!(sources(Some(said)).emptied(&blocks), None, "{said:?}");
    }
    for said in ["service: a\n", "service: a\nupstreams: {}\n", "defaults:\nservice: a\n", "upstreams: [", "- a\n"] {
        assert_eq!(sources(Some(said)).emptied(&full), None, "{said:?}");
    }
    // Nothing is lost where nothing was said.
    for before in [None, Some(""), Some("service:\n"), Some("# nothing")] {
        for after in [None, Some(""), Some("upstreams:\n"), Some("service: a\n")] {
            assert_eq!(sources(after).emptied(&sources(before)), None, "{before:?} {after:?}");
        }
    }
}

/// Every variable that is read under a name that others use too, with a value that works; what it needs beside it.
const OTHERS: [(&str, &str); 41] = [
    ("SERVICE_NAME", "orders"),
    ("APP_NAME", "orders"),
    ("SERVICE_PORT", "8080"),
    ("PORT", "8080"),
    ("SERVICE_HOST", "127.0.0.1"),
    ("SERVICE_VERSION", "1.2"),
    ("LOG_LEVEL", "debug"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "7"),
    ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "30"),
    ("RETRY_MAX_ATTEMPTS", "5"),
    ("CONSUL_HOST", "consul"),
    ("CONSUL_PORT", "8500"),
    ("SERVICE_DISCOVERY_CACHE_TTL", "60"),
    ("INTERNAL_SERVICE_TOKEN", "0123456789abcdef"),
    ("CONSUL_HTTP_ADDR", "127.0.0.1:8500"),
    ("CONSUL_HTTP_TOKEN", "0123456789abcdef"),
    ("CONSUL_HTTP_TOKEN_FILE", "/run/token"),
    ("CONSUL_HTTP_AUTH", "user:password"),
    ("CONSUL_HTTP_SSL", "true"),
    ("CONSUL_HTTP_SSL_VERIFY", "false"),
    ("CONSUL_CACERT", "/ca.pem"),
    ("CONSUL_CAPATH", "/cas"),
    ("CONSUL_CLIENT_CERT", "/crt.pem"),
    ("CONSUL_CLIENT_KEY", "/key.pem"),
    ("CONSUL_TLS_SERVER_NAME", "consul"),
    ("CONSUL_NAMESPACE", "a"),
    ("CONSUL_PARTITION", "a"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ("OTEL_SERVICE_NAME", "orders"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel:4318/v1/traces"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b"),
    ("OTEL_PROPAGATORS", "b3"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b"),
    ("OTEL_SDK_DISABLED", "true"),
    ("OTEL_TRACES_SAMPLER", "always_on"),
    ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ("NODE_ENV", "production"),
];

/// Files that say more and less; each is good by itself.
const FILES: [&str; 5] = [
    "registration: off\nupstreams: {users: 3001}\n",
    "service: orders\nport: 8080\nupstreams: {users: 3001}\nregistration: {address: orders, meta: {version: v2}}\n",
    "service: orders\napp: {address: 'unix:/run/app.sock'}\ninbound: {listen: 18080}\nupstreams: {users: 3001}\n",
    "registration: off\ndefaults: {retry: off, breaker: off}\nupstreams: {users: 3001}\nconsul: {token_file: /t}\n",
    "upstreams: {users: 3001}\n",
];

#[test]
fn variables_that_are_not_lictors_never_stop_it() {
    let odd = [
        "tcp://10.96.12.3:9902",
        "UDP://10.96.12.3:53",
        "",
        "   ",
        "0.0.0.0",
        "::",
        "*",
        "WARNING",
        "30",
        "0",
        "3001",
        "9901",
        "99999",
        "https://u:p@host",
        "unix:relative",
        "My Application",
        "info,lictor=louder",
        "${HOME}",
        "%zz=%zz,,=",
        "not \u{FFFD} UTF-8",
        "\u{1F980}",
    ];
    let mut stopped = Vec::new();
    for file in FILES {
        load(Some(&text(file)), &env(&[]), &[]).unwrap_or_else(|report| panic!("{file}{report}"));
        for (name, good) in OTHERS {
            let spaced = format!(" {good} ");
            let (upper, lower) = (good.to_uppercase(), good.to_lowercase());
            // Beside what makes it count.
            let beside = match name {
                "CONSUL_PORT" => ("CONSUL_HOST", "agent"),
                "OTEL_TRACES_SAMPLER_ARG" => ("OTEL_TRACES_SAMPLER", "traceidratio"),
                "SERVICE_NAME" | "APP_NAME" => ("PORT", "8081"),
                "CONSUL_HTTP_TOKEN" => ("CONSUL_HTTP_TOKEN_FILE", "/t"),
                _ => ("NODE_ENV", "production"),
            };
            let values = odd.iter().copied().chain([good, &spaced, &upper, &lower]);
            // Not to heed a token would open what it keeps shut.
            for value in values.filter(|value| name != "INTERNAL_SERVICE_TOKEN" || !value.contains('\u{FFFD}')) {
                if let Err(report) = load(Some(&text(file)), &env(&[beside, (name, value)]), &[]) {
                    stopped.push(format!("{name}={value} over\n{file}{report}"));
                }
            }
        }
    }
    assert!(stopped.is_empty(), "{} times:\n{}", stopped.len(), stopped.join("\n"));
}

#[test]
fn what_is_not_heeded_is_told_with_its_name_and_what_else_was_said_stands() {
    let loaded = |file: &str, pairs: &[(&str, &str)]| {
        load(Some(&text(file)), &env(pairs), &[]).unwrap_or_else(|report| panic!("{pairs:?}: {report}"))
    };
    let caller = FILES[0];
    for (name, value) in [
        ("SERVICE_NAME", "/web/service"),
        ("PORT", "\\\\.\\pipe\\1234"),
        ("PORT", "3001"), // an upstream's
        ("PORT", "9901"), // the admin listener's
        ("LOG_LEVEL", "30"),
        ("LOG_LEVEL", "info,lictor=louder"),
        ("RETRY_MAX_ATTEMPTS", "three"),
        ("CONSUL_HTTP_ADDR", "ftp://consul"),
        ("CONSUL_HTTP_SSL", "maybe"),
        ("CONSUL_CLIENT_CERT", "/c"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317"),
        ("LICTOR_PORT", "tcp://10.96.12.3:9902"),
        ("LICTOR_APP_PORT", "tcp://10.96.12.3:9902"),
        ("CONSUL_PORT", "tcp://10.96.12.3:8500"),
        ("OTEL_SERVICE_NAME", "\u{FFFD}"),
    ] {
        let warnings = loaded(caller, &[(name, value)]).warnings.0;
        let [told] = &warnings[..] else { panic!("{name}={value}: {warnings:?}") };
        assert!(told.message.starts_with(&format!("{name} is ignored: ")), "{told:?}");
        assert_eq!(told.place, Place::Env(name.to_owned()));
    }
    // Empty is not set, and what the file says is not overridden by what makes no sense.
    for (name, _) in OTHERS {
        assert!(
            loaded(caller, &[(name, "")]).warnings.is_empty() && loaded(caller, &[(name, "  ")]).warnings.is_empty()
        );
    }
    let file = "service: a\nport: 1\nconsul: {address: 'http://file:1'}\ntrace: {sample: 50%}\nlog: {level: warn}\n";
    let config =
        loaded(file, &[("CONSUL_HTTP_ADDR", "gopher://x"), ("LOG_LEVEL", "loud"), ("CONSUL_HTTP_SSL", "2")]).config;
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("file".to_owned(), 1)));
    // The next of several names has its turn.
    let config = loaded(caller, &[("SERVICE_PORT", "http"), ("PORT", "8080")]).config;
    assert_eq!(config.app.address.unwrap().to_string(), "127.0.0.1:8080");
}

#[test]
fn a_level_by_another_name_is_that_level() {
    let level = |value: &str| {
        let loaded = load(Some(&text(FILES[0])), &env(&[("LOG_LEVEL", value)]), &[]).unwrap();
        (loaded.config.log.level, loaded.warnings.0.len())
    };
    for (values, meant) in [
        (&["trace", "VERBOSE", "Silly"][..], "trace"),
        (&["debug", "DEBUG"], "debug"),
        (&["info", "Information", "Notice", " INFO "], "info"),
        (&["warn", "WARN", "warning", "WARNING", "Warning"], "warn"),
        (&["error", "ERR", "critical", "Fatal", "SEVERE"], "error"),
        (&["off", "silent"], "off"),
    ] {
        for value in values {
            assert_eq!(level(value), (meant.to_owned(), 0), "{value}");
        }
    }
    for value in ["30", "loud", "app:*"] {
        assert_eq!(level(value), ("info".to_owned(), 1), "{value}");
    }
}

#[test]
fn the_agent_is_found_however_it_is_written() {
    for (host, port, expected) in [
        ("consul", "8500", ConsulAddress::Http("consul".to_owned(), 8500)),
        ("consul:8501", "8500", ConsulAddress::Http("consul".to_owned(), 8501)),
        ("https://consul:8501", "8500", ConsulAddress::Https("consul".to_owned(), 8501)),
        (" consul ", "tcp://10.96.12.3:8500", ConsulAddress::Http("consul".to_owned(), 8500)),
        ("consul", "8600.0", ConsulAddress::Http("consul".to_owned(), 8500)),
    ] {
        let env = env(&[("CONSUL_HOST", host), ("CONSUL_PORT", port)]);
        let loaded = load(Some(&text(FILES[4])), &env, &[]).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.config.consul.address, Some(expected), "{host} {port}");
    }
    let flag = |value: &str| {
        let env = env(&[("CONSUL_HTTP_SSL", value), ("CONSUL_HTTP_SSL_VERIFY", value)]);
        let consul = load(Some(&text(FILES[4])), &env, &[]).unwrap().config.consul;
        (matches!(consul.address, Some(ConsulAddress::Https(..))), !consul.tls.skip_verify)
    };
    for (value, expected) in [("TRUE", true), ("True", true), ("t", true), ("1", true), ("F", false), ("False", false)]
    {
        assert_eq!(flag(value), (expected, expected), "{value}");
    }
}

#[test]
fn what_kubernetes_sets_beside_a_service_named_lictor_is_one_line() {
    let links = [
        ("LICTOR_PORT", "tcp://10.96.12.3:9902"),
        ("LICTOR_PORT_9902_TCP", "tcp://10.96.12.3:9902"),
        ("LICTOR_PORT_9902_TCP_ADDR", "10.96.12.3"),
        ("LICTOR_PORT_9902_TCP_PORT", "9902"),
        ("LICTOR_PORT_9902_TCP_PROTO", "tcp"),
        ("LICTOR_SERVICE_HOST", "10.96.12.3"),
        ("LICTOR_SERVICE_PORT", "9902"),
        ("LICTOR_SERVICE_PORT_HTTP", "9902"),
    ];
    let loaded = load(Some(&text(FILES[0])), &env(&links), &[]).unwrap();
    assert_eq!(loaded.warnings.0.len(), 1, "{}", loaded.warnings);
}

#[test]
fn a_mistake_in_lictors_own_variable_stays_one() {
    for (name, value) in [
        ("LICTOR_PORT", "http"),
        ("LICTOR_WORKERS", ""),
        ("LICTOR_WORKERS", "\u{FFFD}"),
        ("LICTOR_LOG", "loud"),
        ("LICTOR_ADMIN", "here"),
        ("LICTOR_CONSUL_ADDRESS", "ftp://consul"),
        ("INTERNAL_SERVICE_TOKEN", "your-secret-key"), // not to heed it would open what it keeps shut
        ("INTERNAL_SERVICE_TOKEN", "\u{FFFD}"),
    ] {
        let report = load(Some(&text(FILES[0])), &env(&[(name, value)]), &[]).unwrap_err();
        let places: Vec<_> = report.errors().map(|mistake| mistake.place.clone()).collect();
        assert_eq!(places, [Place::Env(name.to_owned())], "{name}={value}: {report}");
    }
}

#[test]
fn names_that_collide_as_variables_are_told_with_both_places() {
    let told = |yaml: &str| load(Some(&text(yaml)), &env(&[]), &[]).unwrap_or_else(|it| panic!("{it}")).warnings.0;
    for second in ["user_service", "User-Service", "user.service"] {
        let yaml = format!("registration: off\nupstreams:\n  user-service: 3001\n  {second}:\n    listen: 3002\n");
        let [warning] = &told(&yaml)[..] else { panic!("{second}") };
        let message =
            format!("`{second}` is USER_SERVICE_URL for the application, and so is `user-service` (lictor.yaml:3:3)");
        assert_eq!(warning.message, message);
        assert!(matches!(warning.place, Place::File { line: 4, column: 3, .. }), "{warning:?}");
    }
    for fine in [
        "registration: off\nupstreams: {user-service: 3001, user-services: 3002}\n",
        "registration: off\noutbound: {env: false}\nupstreams: {user-service: 3001, user_service: 3002}\n",
        "registration: off\noutbound: {proxy: 15001}\nupstreams: {user-service: 3001, user_service: {timeout: 1s}}\n",
    ] {
        assert!(told(fine).is_empty(), "{fine}");
    }
}
