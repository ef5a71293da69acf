//! Whole files in, configurations or complaints out.

mod blocks;
mod edge;
mod failover;
mod gateway;
mod kv;
mod policy;
mod sources;
mod variables;

use std::time::Duration;

use lictor_config::{
    Check, Config, ConsulAddress, Environment, Query, Report, Restart, Source, Text, Upstream, json_schema, load,
};
use lictor_core::mesh::{AccessLevels, Level, Protocol};
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
fn values_in_force_are_those_of_what_is_on() {
    const BARE: &str = "registration: off\nservice: a\nupstreams: {users: {listen: 3001}}\n";
    let shown = |yaml: &str| {
        let loaded = load(Some(&text(yaml)), &env(&[]), &[]).unwrap_or_else(|report| panic!("{report}"));
        loaded.values.into_iter().map(|value| format!("{}: {}", value.path, value.value)).collect::<Vec<_>>()
    };
    let bare = shown(BARE);
    let of = |lines: &[String], key: &str| lines.iter().filter(|line| line.contains(key)).cloned().collect::<Vec<_>>();
    // What is off, how it is switched on, and one of its values then.
    for (key, on, value) in [
        ("upstreams.users.hedge", "defaults: {hedge: {}}", "upstreams.users.hedge.after: p95"),
        ("defaults.hedge", "defaults: {hedge: p90}", "defaults.hedge: p90"),
        ("slow_call", "defaults: {breaker: {slow_call: {over: 2s}}}", "defaults.breaker.slow_call.ratio: 50%"),
        (".cache", "defaults: {cache: {}}", "upstreams.users.cache.ttl: 1s"),
        ("app.restart", "app: {restart: {on_failure: {}}}", "app.restart.on_failure.delay: 5s"),
        ("inbound", "port: 8080\ninbound: {}", "inbound.listen.address: 0.0.0.0:18080"),
        ("outbound.proxy.", "outbound: {proxy: {address: 3128}}", "outbound.proxy.max_connection_age: none"),
        ("snapshot", "consul: {snapshot: {path: /s}}", "consul.snapshot.max_age: 24h"),
        ("redis", "redis: 127.0.0.1:6379", "redis.timeout: 50ms"),
        ("gateway", "gateway: {listen: 8088, routes: {/*: users}}", "gateway.head_max: 128KiB"),
    ] {
        assert!(of(&bare, key).is_empty(), "{:?}", of(&bare, key));
        let lines = shown(&format!("{BARE}{on}\n"));
        assert!(lines.iter().any(|line| line == value), "{on}: {:?}", of(&lines, key));
    }
    let gateway = |keys: &str| shown(&format!("{BARE}gateway: {{listen: 8088{keys}, routes: {{/*: users}}}}\n"));
    let plain = gateway("");
    for (key, on, value) in [
        ("auth", ", auth: {forward: {to: users, path: /x}}", "gateway.auth.mode: required"),
        ("auth.forward", ", auth: {forward: {to: users, path: /x}}", "gateway.auth.forward.cache: none"),
        ("auth.jwt", ", auth: {jwt: {jwks: 'https://idp.example/keys'}}", "gateway.auth.jwt.max_stale: 24h"),
        ("auth.from", ", auth: {jwt: {jwks: 'https://idp.example/keys'}}", "gateway.auth.from.header: true"),
        ("cors", ", cors: {origins: '*'}", "gateway.cors.max_age: 10m"),
        ("security_headers", ", security_headers: true", "gateway.security_headers.frame: deny"),
        ("compress", ", compress: {}", "gateway.compress.min_size: 1KiB"),
        ("redirect_http", ", redirect_http: {address: 8089}", "gateway.redirect_http.port: 443"),
    ] {
        assert!(of(&plain, key).is_empty(), "{:?}", of(&plain, key));
        let lines = gateway(on);
        assert!(lines.iter().any(|line| line == value), "{on}: {:?}", of(&lines, key));
    }
    let forward = gateway(", auth: {forward: {to: users, path: /x}}");
    assert!(of(&forward, "auth.jwt").is_empty() && of(&forward, "auth.keys").is_empty(), "{:?}", of(&forward, "auth"));
}

#[test]
fn waits_between_attempts_are_shown_as_they_are_in_force() {
    let waits = |retry: &str, own: &str| {
        let yaml = format!(
            "registration: off\ndefaults: {{retry: {{{retry}}}}}\nupstreams: {{users: {{listen: 3001, retry: {{{own}}}}}}}\n"
        );
        let loaded = load(Some(&text(&yaml)), &env(&[]), &[]).unwrap_or_else(|report| panic!("{report}"));
        let shown: Vec<String> = loaded
            .values
            .iter()
            .filter_map(|value| Some(format!("{}={}", value.path.strip_prefix("upstreams.users.retry.")?, value.value)))
            .filter(|line| ["delays", "backoff", "jitter"].iter().any(|key| line.starts_with(key)))
            .collect();
        (shown.join(" "), loaded.config.upstreams[0].policy.retry.backoff.clone())
    };
    for (defaults, own, shown) in [
        ("", "", "jitter=20% delays[0]=100ms delays[1]=500ms delays[2]=1s"),
        ("", "jitter: 10%", "jitter=10% delays[0]=100ms delays[1]=500ms delays[2]=1s"),
        ("", "delays: [2s]", "jitter=20% delays[0]=2s"),
        ("delays: [1s, 2s]", "", "jitter=20% delays[0]=1s delays[1]=2s"),
        ("delays: [1s, 2s], jitter: 0%", "delays: 3s", "jitter=0% delays=3s"),
        ("", "backoff: {max: 1s}", "backoff.initial=100ms backoff.factor=2 backoff.max=1s"),
        ("backoff: {initial: 1s}", "", "backoff.initial=1s backoff.factor=2 backoff.max=5s"),
        ("backoff: {initial: 1s}", "backoff: {max: 9s}", "backoff.initial=1s backoff.factor=2 backoff.max=9s"),
        ("backoff: {initial: 1s}", "delays: [2s]", "jitter=20% delays[0]=2s"),
    ] {
        let (lines, backoff) = waits(defaults, own);
        assert_eq!(lines, shown, "{defaults}; {own}");
        let is_exponential = matches!(backoff, lictor_core::policy::Backoff::Exponential { .. });
        assert_eq!(is_exponential, shown.contains("backoff"), "{defaults}; {own}: {backoff:?}");
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
fn a_requests_line_has_the_level_of_its_status() {
    let of = |levels: &str| good(&format!("registration: off\nlog: {{levels: {levels}}}\n")).log.levels;
    let is = |levels: &AccessLevels, statuses: &[u16]| -> Vec<&'static str> {
        statuses.iter().map(|status| levels.of(*status, false, false).as_str()).collect()
    };
    let statuses = [101, 200, 304, 404, 499, 503];
    assert_eq!(is(&of("{}"), &statuses), ["INFO", "INFO", "INFO", "ERROR", "ERROR", "ERROR"]);
    let quiet = of("{4xx: warn, 404: info, 2xx: debug, 503: warn}");
    assert_eq!(is(&quiet, &statuses), ["INFO", "DEBUG", "INFO", "INFO", "WARN", "WARN"]);
    assert_eq!(quiet.of(200, true, false), Level::Error, "it broke off");
    assert_eq!(of("{5xx: warn, 200: info}").of(200, true, false), Level::Warn);
    // Of a gateway: what it refuses, what it fails to do, and what a service answers so.
    let at_gateway = |levels: &str| {
        let levels = of(levels);
        [(401, true), (503, true), (404, false), (200, false), (200, true)]
            .map(|(status, is_failed)| levels.of(status, is_failed, true).as_str())
    };
    assert_eq!(at_gateway("{}"), ["WARN", "ERROR", "ERROR", "INFO", "ERROR"]);
    assert_eq!(at_gateway("{4xx: error}"), ["ERROR", "ERROR", "ERROR", "INFO", "ERROR"]);
    assert_eq!(at_gateway("{4xx: info, 401: debug}"), ["DEBUG", "ERROR", "INFO", "INFO", "ERROR"]);
    assert_eq!(at_gateway("{5xx: info}"), ["WARN", "INFO", "ERROR", "INFO", "INFO"]);
    for (levels, complaint) in [
        ("{6xx: warn}", "neither a status nor one of"),
        ("{99: warn}", "neither a status nor one of"),
        ("{xx: warn}", "neither a status nor one of"),
        ("{4XX: warn}", "neither a status nor one of"),
        ("{4xx: loud}", "unknown value `loud`"),
        ("warn", "expected a map"),
    ] {
        let said = bad(&format!("registration: off\nlog: {{levels: {levels}}}\n")).to_string();
        assert!(said.contains(complaint), "{levels}: {said}");
    }
}

#[test]
fn the_token_of_our_calls_is_of_all_upstreams_but_those_that_say_otherwise() {
    let upstreams =
        "upstreams: {users: 3001, carts: {listen: 3002, auth: off}, bank: {listen: 3003, auth: {bearer: b}}}\n";
    let tokens = |file: &str, pairs: &[(&str, &str)]| {
        let file = text(&format!("registration: off\n{upstreams}{file}"));
        let loaded = load(Some(&file), &env(pairs), &[]).unwrap_or_else(|report| panic!("{report}"));
        let token = |upstream: &Upstream| upstream.bearer.as_ref().map(|it| it.header().to_str().unwrap().to_owned());
        let tokens: Vec<_> = loaded.config.upstreams.iter().map(token).map(Option::unwrap_or_default).collect();
        (tokens, loaded.compat_env_used, loaded.values)
    };
    let file = "auth: {outbound: {bearer: '${TOKEN}'}}\n";
    assert_eq!(tokens("", &[]).0, ["", "", "Bearer b"]);
    let (said, used, values) = tokens(file, &[("TOKEN", "a"), ("SERVICE_TOKEN", "c")]);
    assert_eq!((said, used.len()), (vec!["Bearer a".to_owned(), String::new(), "Bearer b".to_owned()], 0));
    let shown = values.iter().find(|value| value.path == "auth.outbound.bearer").unwrap();
    assert_eq!(shown.value, "***");
    let (said, used, _) = tokens("", &[("SERVICE_TOKEN", "c")]);
    assert_eq!((said[0].as_str(), used), ("Bearer c", vec!["SERVICE_TOKEN".to_owned()]));
    assert_eq!(tokens("", &[("SERVICE_TOKEN", "not a token")]).0[0], "", "somebody else's");
    let said = bad("registration: off\nauth: {outbound: {bearer: a b}}\n").to_string();
    assert!(said.contains("not a token"), "{said}");
    let tcp = bad("registration: off\nupstreams: {db: {listen: 1, protocol: tcp, auth: {bearer: a}}}\n").to_string();
    assert!(tcp.contains("`auth` is about HTTP"), "{tcp}");
}

#[test]
fn what_stands_in_for_a_failure_is_said_key_by_key() {
    let file = |users: &str| {
        format!(
            "registration: off\ndefaults: {{fallback: {{stale: 5m, body: later}}}}\nupstreams:\n  users: {{listen: 3001{users}}}\n  \
             backup: {{listen: 3002}}\n  db: {{listen: 3306, protocol: tcp}}\n  rpc: {{listen: 3003, protocol: grpc}}\n"
        )
    };
    let of = |users: &str| {
        let policy = good(&file(users)).upstreams[0].policy.clone();
        let fallback = policy.fallback.as_deref().cloned().unwrap_or_default();
        let answer = fallback.answer.map(|it| format!("{} {}", it.status.as_u16(), String::from_utf8_lossy(&it.body)));
        (policy.stale.map(|stale| stale.as_secs()), fallback.upstream.as_deref().map(str::to_owned), answer)
    };
    let answer = |text: &str| Some(text.to_owned());
    for (users, expected) in [
        ("", (Some(300), None, answer("200 later"))),
        (", fallback: none", (None, None, None)),
        (", fallback: {stale: none}", (None, None, answer("200 later"))),
        (", fallback: {upstream: backup}", (Some(300), answer("backup"), answer("200 later"))),
        (", fallback: {status: 503}", (Some(300), None, answer("503 later"))),
        (", fallback: {body: ''}", (Some(300), None, answer("200 "))),
        (", fallback: {body: '{}', status: 201, content_type: text/plain}", (Some(300), None, answer("201 {}"))),
    ] {
        assert_eq!(of(users), expected, "{users}");
    }
    for (users, complaint) in [
        (", fallback: {upstream: users}", "an upstream cannot stand in for itself"),
        (", fallback: {upstream: backpu}", "there is no upstream `backpu`"),
        (", fallback: {upstream: db}", "`db` carries bytes"),
        (", routes: [{match: /x, fallback: {upstream: nope}}]", "there is no upstream `nope`"),
        (", routes: [{match: /x, fallback: {upstream: users}}]", "cannot stand in for itself"),
        (", fallback: {status: 99}", "not a status from 200 to 599"),
        (", fallback: {status: 204}", "an answer with status 204 has no body"),
        (", fallback: {content_type: \"a\\nb\"}", "not a header value"),
        (", fallback: 5m", "expected a map"),
        (", fallback: {boddy: x}", "did you mean `body`?"),
    ] {
        let said = bad(&file(users)).to_string();
        assert!(said.contains(complaint), "{users}: {said}");
    }
    let long = format!(", fallback: {{body: {}}}", "x".repeat((64 << 10) + 1));
    assert!(bad(&file(&long)).to_string().contains("longer than 65536 bytes"));
    let plain = |more: &str| {
        bad(&format!("registration: off\nupstreams: {{rpc: {{listen: 1025, protocol: grpc, fallback: {more}}}}}\n"))
    };
    assert!(plain("{body: x}").to_string().contains("a body is no answer to gRPC"));
    assert!(plain("{status: 500}").to_string().contains("there is no `body`"));
    let everybody =
        good("registration: off\ndefaults: {fallback: {upstream: backup}}\nupstreams: {users: 3001, backup: 3002}\n");
    assert!(
        everybody.upstreams.iter().all(|upstream| upstream.policy.fallback.is_some()),
        "backup asks nobody for itself"
    );
}

#[test]
fn an_application_is_started_again_only_where_that_is_said_plainly() {
    let of = |app: &str| {
        let file = text(&format!("registration: off\napp: {app}\n"));
        load(Some(&file), &env(&[]), &[]).map(|loaded| loaded.config.app.restart).map_err(|report| report.to_string())
    };
    let on_failure = |seconds, max| Ok(Restart::OnFailure { delay: Duration::from_secs(seconds), max });
    for (app, expected) in [
        ("{}", Ok(Restart::Never)),
        ("{restart: }", Ok(Restart::Never)),
        ("{restart: never}", Ok(Restart::Never)),
        ("{restart: off}", Ok(Restart::Never)),
        ("{restart: 'no'}", Ok(Restart::Never)),
        ("{restart: on_failure}", on_failure(5, 3)),
        ("{restart: on-failure}", on_failure(5, 3)),
        ("{restart: {on_failure: {}}}", on_failure(5, 3)),
        ("{restart: {on_failure: {delay: 1s, max: 9}}}", on_failure(1, 9)),
        ("{restart: {on_failure: {max: 1}}}", on_failure(5, 1)),
    ] {
        assert_eq!(of(app), expected, "{app}");
    }
    for (app, complaint) in [
        ("{restart: always}", "unknown value `always`"),
        ("{restart: {on_failure: {max: 0}}}", "0 is too small"),
        ("{restart: {delay: 5s}}", "unknown field `delay`"),
        ("{restart: {}}", "`restart` needs a condition"),
        ("{restart: {on_failure: {max_attempts: 3}}}", "unknown field `max_attempts`"),
    ] {
        let said = of(app).unwrap_err();
        assert!(said.contains(complaint), "{app}: {said}");
    }
}

#[test]
fn callers_dial_what_the_registration_says() {
    let env = env(&[("POD_IP", "10.1.2.3")]);
    let of = |address: &str| {
        let file = text(&format!("service: a\nport: 1\nregistration: {{address: '{address}'}}\n"));
        load(Some(&file), &env, &[]).map(|loaded| loaded.config.registration.unwrap().address)
    };
    for (address, expected) in [
        ("auto", None),
        ("192.0.2.1", Some("192.0.2.1")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("order_service", Some("order_service")),
        ("env:POD_IP", Some("10.1.2.3")),
        ("interface:lo", Some("127.0.0.1")),
    ] {
        assert_eq!(of(address).unwrap().as_deref(), expected, "{address}");
    }
    for (address, complaint) in [
        ("env:NONE", "the environment has no NONE"),
        ("0.0.0.0", "unspecified"),
        ("interface:nope", "there is no interface `nope`; this machine has "),
        ("interface:", "there is no interface ``"),
        ("10.0.0.1:80", "is not an address"),
    ] {
        let said = of(address).unwrap_err().to_string();
        assert!(said.contains(complaint) && said.contains("lictor.yaml:3:"), "{address}: {said}");
    }
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
        ("registration: off\nchaos: {}\n", 2, "not in this version yet"),
        ("registration: off\nupstreams:\n  db: {listen: 3306, protocol: tcp, cache: 5s}\n", 3, "carries bytes"),
        ("registration: off\nupstreams:\n  db: {listen: 3306, protocol: tcp, deadline: ignore}\n", 3, "carries bytes"),
        (
            "registration: off\nupstreams:\n  db: {listen: 3306, protocol: tcp, per_try_timeout: 5s}\n",
            3,
            "carries bytes",
        ),
        ("registration: off\nupstreams:\n  a: {listen: 1, protocol: grpc, cache: 5s}\n", 3, "gRPC asks by POST"),
        ("registration: off\nupstreams:\n  a: {listen: 1, protocol: grpc, fallback: {stale: 1m}}\n", 3, "asks by POST"),
        (
            "registration: off\nupstreams:\n  a:\n    listen: 1\n    protocol: grpc\n    routes:\n    - {match: /a.B/C, fallback: {stale: 1m}}\n",
            7,
            "asks by POST",
        ),
        (
            "registration: off\nupstreams:\n  a:\n    listen: 1\n    routes:\n    - {match: POST /a, fallback: {stale: 1m}}\n",
            6,
            "this route is for POST",
        ),
        ("registration: off\nupstreams:\n  a: {listen: {tls: {cert: /c, key: /k}}}\n", 3, "needs an `address`"),
        ("registration: off\nupstreams:\n  a: {listen: {address: 1, tls: {cert: /c}}}\n", 3, "belong together"),
        ("registration: off\nupstreams:\n  a: {listen: 1, tls: {key: /k}}\n", 3, "belong together"),
        ("registration: off\nupstreams:\n  a: {listen: 'unix:a.sock'}\n", 3, "absolute path"),
        ("registration: off\nupstreams:\n  a: {listen: 1, hedge: {after: p100}}\n", 3, "not a percentile"),
        ("service: a\napp: {address: 'unix:/a.sock'}\n", 1, "callers cannot reach the application's Unix socket"),
        ("service: a\nport: 80\nregistration: {advertise: inbound}\n", 3, "there is no `inbound` whose port could"),
        ("service: a\napp: {address: 'unix:/a.sock'}\ninbound: true\n", 3, "needs a port of its own"),
        ("service: a\nport: 1\ninbound: {listen: 'unix:/a.sock'}\n", 3, "cannot reach a Unix socket"),
        ("registration: off\nservice: a\nport: 1\napp: {address: '127.0.0.1:2'}\n", 3, "are both given"),
        ("registration: off\nupstreams:\n  a: {static: ['x:1'], tag: b}\n", 3, "asks Consul"),
        ("registration: off\nupstreams:\n  a: {static: [nowhere]}\n", 3, "not `host:port`"),
        ("registration: off\nupstreams:\n  a:\n    routes:\n      - {match: users}\n", 5, "must start with `/`"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Content-Length: '7'}}}\n", 3, "lictor alone writes it"),
        (
            "registration: off\nupstreams:\n  a: {headers: {set: {TRANSFER-Encoding: chunked}}}\n",
            3,
            "lictor alone writes it",
        ),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Connection: X-A}}}\n", 3, "lictor alone writes it"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {upgrade: h2c}}}\n", 3, "lictor alone writes it"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {TE: trailers}}}\n", 3, "lictor alone writes it"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Via: 1.1 a}}}\n", 3, "how sidecars know each other"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {X-Lictor-To: b}}}\n", 3, "how sidecars know each other"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {X-A: b, x-a: c}}}\n", 3, "set twice"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Host: 'a b'}}}\n", 3, "not a host"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Host: 'u@a'}}}\n", 3, "not a host"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {Host: 'a:http'}}}\n", 3, "not a host"),
        (
            "upstreams:\n  a:\n    routes:\n      - {match: /u, limits: {max_connections: 9}}\n",
            4,
            "shared by all routes",
        ),
        ("upstreams:\n  a:\n    routes:\n      - {match: /u, priority: urgent}\n", 4, "urgent"),
        ("upstreams:\n  a: {priority: high}\n", 2, "priority"),
        ("registration: off\nupstreams:\n  a: {headers: {set: {'b c': d}}}\n", 3, "not a header name"),
        ("registration: off\nupstreams: [a]\n", 2, "expected a map"),
        ("registration: off\nconsul: {address: 'ftp://x'}\n", 2, "not a scheme"),
        ("registration: off\nconsul: {token: a, token_file: b}\n", 2, "both given"),
        ("registration: off\nconsul: {wait: 1h}\n", 2, "between 1s and 10m"),
        ("registration: off\nservice_token: internal-service-secret\n", 2, "public tutorials"),
        ("registration: off\nconsul: {kv: true}\n", 2, "needs to know whose it is"),
        ("registration: off\nservice: a\nconsul: {kv: {config: '/a b'}}\n", 3, "not a KV key"),
        ("registration: off\nservice: a\nconsul: {kv: {maintenance: lictor/a/config}}\n", 3, "are one key"),
        ("registration: off\nservice: a\nconsul: {kv: {maintenance: 'x/${service}', config: x/a}}\n", 3, "are one key"),
        ("registration: off\nservice: a\nconsul: {kv: {config: 'lictor/${service}/maintenance'}}\n", 3, "are one key"),
        ("registration: off\nconsul: {snapshot: {max_age: 1h}}\n", 2, "needs a `path`"),
        ("registration: off\ndefaults: {timeout: '${NO_SUCH}'}\n", 2, "the environment has no NO_SUCH"),
        ("service: a\nport: 1\nregistration: {address: 'interface:nope'}\n", 3, "no interface"),
        ("service: a\nport: 1\nregistration: {weights: {passing: 0}}\n", 3, "at least 1"),
        ("service: a\nport: 1\nregistration: {weights: {passing: 70000}}\n", 3, "at most 65535"),
        ("service: a\nport: 1\nregistration: {weights: {warning: 65536}}\n", 3, "at most 65535"),
        ("service: a\nport: 1\nregistration: {meta: {a.b: c}}\n", 3, "no key of Consul's Meta"),
        ("service: a\nport: 1\nregistration: {meta: {consul-a: c}}\n", 3, "Consul's own"),
        ("service: a\nport: 1\nregistration: {id: a/../b}\n", 3, "neither find nor deregister"),
        ("service: a\nport: 1\nregistration: {address: '[::]'}\n", 3, "unspecified"),
        ("service: a\nport: 1\nregistration: {address: '127.0.0.1:80'}\n", 3, "without a port"),
        ("service: a\nport: 1\nregistration: {checks: [{http: /x, interval: 0s}]}\n", 3, "without an interval"),
        ("service: a\nport: 1\ncheck: {tcp: true, interval: 500us}\n", 3, "without an interval"),
        ("registration: off\nconsul: {address: 'http://fd00::5:80'}\n", 2, "could mean port 80"),
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
