//! Variables: older services', the platform's, and lictor's own.

use lictor_config::Place;

use super::*;

/// Every variable that is read under a name that others use too, with a value that works; what it needs beside it.
const OTHERS: [(&str, &str); 46] = [
    ("SERVICE_NAME", "orders"),
    ("APP_NAME", "orders"),
    ("SERVICE_PORT", "8080"),
    ("PORT", "8080"),
    ("SERVICE_HOST", "127.0.0.1"),
    ("SERVICE_VERSION", "1.2"),
    ("SERVICE_TOKEN", "s3cret"),
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
    ("RATE_LIMIT_DEFAULT_REQUESTS", "200"),
    ("RATE_LIMIT_DEFAULT_WINDOW", "30"),
    ("RATE_LIMIT_AUTH_REQUESTS", "10"),
    ("RATE_LIMIT_AUTH_WINDOW", "60"),
];

/// Files that say more and less; each is good by itself.
const FILES: [&str; 6] = [
    "registration: off\nupstreams: {users: 3001}\n",
    "service: orders\nport: 8080\nupstreams: {users: 3001}\nregistration: {address: orders, meta: {version: v2}}\n",
    "service: orders\napp: {address: 'unix:/run/app.sock'}\ninbound: {listen: 18080}\nupstreams: {users: 3001}\n",
    "registration: off\ndefaults: {retry: off, breaker: off}\nupstreams: {users: 3001}\nconsul: {token_file: /t}\n",
    "upstreams: {users: 3001}\n",
    "registration: off\nupstreams: {users: 3001}\ngateway: {listen: 8088, routes: {/*: users}}\n",
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

/// No link has its name: whatever it is, `inbound` asks for it.
#[test]
fn a_token_that_looks_like_a_link_of_kubernetes_keeps_shut_what_it_keeps_shut() {
    let file = "service: orders\nport: 8080\nregistration: off\ninbound: {listen: 18080}\nupstreams: {users: 3001}\n";
    for (name, value) in [
        ("INTERNAL_SERVICE_TOKEN", "tcp://10.96.12.3:9902"),
        ("INTERNAL_SERVICE_TOKEN", " UDP://x "),
        ("LICTOR_SERVICE_TOKEN", "tcp://10.96.12.3:9902"),
    ] {
        let loaded = load(Some(&text(file)), &env(&[(name, value)]), &[]).unwrap_or_else(|report| panic!("{report}"));
        let inbound = loaded.config.inbound.unwrap();
        let tokens: Vec<&str> = inbound.tokens.iter().map(lictor_core::Secret::reveal).collect();
        assert_eq!(tokens, [value.trim()], "{name}={value}: {}", loaded.warnings);
    }
}

#[test]
fn the_gateways_limit_may_come_from_older_services_variables() {
    let (requests, window) = ("RATE_LIMIT_DEFAULT_REQUESTS", "RATE_LIMIT_DEFAULT_WINDOW");
    let limit = |file: &str, pairs: &[(&str, &str)]| {
        let loaded = load(Some(&text(file)), &env(pairs), &[]).unwrap_or_else(|report| panic!("{report}"));
        let rules = &loaded.config.gateway.as_ref().unwrap().routes.rules;
        let rates: Vec<_> =
            rules.limits.iter().map(|limit| (limit.quota.requests, limit.quota.window.as_secs())).collect();
        (rates, loaded.warnings.0.len(), loaded.compat_env_used.len())
    };
    let file = FILES[5];
    for (pairs, rates, told, used) in [
        (&[][..], &[][..], 0, 0),
        (&[(requests, "200"), (window, "30")], &[(200, 30)], 0, 2),
        (&[(requests, "200")], &[(200, 60)], 0, 1),
        (&[(window, "5m")], &[(100, 300)], 0, 1),
        (&[(requests, "0"), (window, "30")], &[(100, 30)], 1, 1),
        (&[(requests, "many")], &[], 1, 0),
        (&[("RATE_LIMIT_AUTH_REQUESTS", "10")], &[], 1, 0),
    ] {
        assert_eq!(limit(file, pairs), (rates.to_vec(), told, used), "{pairs:?}");
    }
    let logins = [("RATE_LIMIT_AUTH_REQUESTS", "10"), ("RATE_LIMIT_AUTH_WINDOW", "60")];
    for (rate, told) in [
        ("10/60s", 2),
        ("10/60s # ${RATE_LIMIT_AUTH_REQUESTS}", 2),
        ("'${RATE_LIMIT_AUTH_REQUESTS:-5}/${RATE_LIMIT_AUTH_WINDOW:-30}s'", 0),
        ("'${RATE_LIMIT_AUTH_REQUESTS:-5}/60s'", 1),
        ("'10/${RATE_LIMIT_AUTH_WINDOW:-60}s'", 1),
    ] {
        let routes = format!("  - path: /login\n    to: users\n    limit: {rate}\n");
        let file = format!("registration: off\ngateway:\n  listen: 8088\n  routes:\n{routes}");
        assert_eq!((limit(&file, &logins).1, limit(&file, &[]).1), (told, 0), "{rate}");
    }
    let own = file.replace("listen: 8088", "listen: 8088, limit: 7/1s");
    assert_eq!(limit(&own, &[(requests, "200")]).0, [(7, 1)], "the file's stands");
    let off = file.replace("listen: 8088", "listen: 8088, limit: off");
    assert_eq!(limit(&off, &[(requests, "200")]).0, []);
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

/// `POD_IP` and its like come with brackets or without, of both families.
#[test]
fn addresses_of_both_families_come_from_variables() {
    for (name, value, yaml, expected) in [
        ("POD_IP", "[fd00::5]", "registration: {address: 'env:POD_IP'}", Some("fd00::5")),
        ("POD_IP", " fd00::5 ", "registration: {address: 'env:POD_IP'}", Some("fd00::5")),
        ("POD_IP", "10.0.0.5", "registration: {address: 'env:POD_IP'}", Some("10.0.0.5")),
        ("POD_IP", "fd00::5:80:x", "registration: {address: 'env:POD_IP'}", None),
        ("POD_IP", "::", "registration: {address: 'env:POD_IP'}", None),
        ("SERVICE_HOST", "[::1]", "registration: {}", Some("::1")),
    ] {
        let loaded = load(Some(&text(&format!("service: a\nport: 1\n{yaml}\n"))), &env(&[(name, value)]), &[]);
        let address = loaded.ok().map(|loaded| loaded.config.registration.unwrap().address.unwrap());
        assert_eq!(address.as_deref(), expected, "{name}={value}");
    }
    for (value, port, host) in [
        ("fd00::5", "8500", "fd00::5"),
        ("[fd00::5]", "8500", "fd00::5"),
        ("fd00::5:8500", "8500", "fd00::5"),
        ("[fd00::5]:8600", "8600", "fd00::5"),
        ("http://fd00::5:8500", "8500", "fd00::5"),
    ] {
        for name in ["CONSUL_HOST", "CONSUL_HTTP_ADDR"] {
            let loaded = load(Some(&text("service: a\nport: 1\n")), &env(&[(name, value)]), &[]).unwrap();
            let expected = ConsulAddress::Http(host.to_owned(), port.parse().unwrap());
            assert_eq!(loaded.config.consul.address, Some(expected), "{name}={value}");
        }
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
