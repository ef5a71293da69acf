//! `gateway:`.

use lictor_config::load;
use lictor_core::Address;
use lictor_core::gateway::{Action, Gateway};

use crate::{bad, env, good, text};

fn gateway(routes: &str) -> String {
    format!(
        "registration: off\ngateway:\n  listen: 8080\n  routes:\n{routes}upstreams:\n  users: {{static: ['127.0.0.1:1']}}\n"
    )
}

fn leads(gateway: &Gateway) -> Vec<(String, String)> {
    let each = gateway.routes.iter().map(|route| match &route.action {
        Action::Send(send) => (route.label.to_string(), send.upstream.to_string()),
        other => panic!("{other:?}"),
    });
    each.collect()
}

#[test]
fn one_line_is_enough_and_makes_the_upstreams_that_it_names() {
    let config = good(
        "registration: off\ndefaults: {timeout: 7s}\ngateway: {listen: 8080, routes: {/api/users/*: user-service, /api/orders/*: order-service}}\n",
    );
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.listen.address, "0.0.0.0:8080".parse::<std::net::SocketAddr>().map(Address::Tcp).unwrap());
    let pair = |path: &str, upstream: &str| (path.to_owned(), upstream.to_owned());
    assert_eq!(leads(&gateway.routes), [pair("/api/users/*", "user-service"), pair("/api/orders/*", "order-service")]);
    let names: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["user-service", "order-service"]);
    let upstream = &config.upstreams[0];
    assert!(upstream.listen.is_none() && upstream.policy.timeouts.total == Some(std::time::Duration::from_secs(7)));
    assert_eq!(upstream.queries().next().unwrap().service, "user-service");
    assert_eq!(&*upstream.routes.get(0).unwrap().label, "/api/users/*");
}

#[test]
fn a_service_needs_no_entry_in_upstreams_and_is_doubted_where_it_may_be_a_slip() {
    let warned = |upstreams: &str, keys: &str, routes: &str| {
        let yaml = format!(
            "registration: off\nupstreams: {{{upstreams}}}\ngateway: {{listen: 8080, {keys}routes: {routes}}}\n"
        );
        load(Some(&text(&yaml)), &env(&[]), &[]).unwrap_or_else(|report| panic!("{report}")).warnings.to_string()
    };
    let forward = "auth: {forward: {to: user-service, path: /check}}, ";
    let (orders, users) = ("{/*: order-service}", "{/api/*: user-service, /*: order-service, /a/*: inquiry-service}");
    for (upstreams, keys, routes) in [
        ("", "", orders),
        ("", "", users),
        ("", forward, orders),
        ("", forward, users),
        ("", forward, "{/*: user-servce}"), // nobody declared the one that is asked, either
        ("user-service: {}", forward, users),
        (
            "user-service: {}",
            "",
            "[{path: /*, split: {order-service@v2: 1, order-service: 9}, mirror: users-services}]",
        ),
    ] {
        assert_eq!(warned(upstreams, keys, routes), "", "{upstreams} {keys} {routes}");
    }
    for (upstreams, routes) in [
        ("user-service: {}", "{/*: user-servce}"),
        ("user-service: {}", "{/*: usre-service}"),
        ("user-service: {}", "{/*: User-Service}"),
        ("user-service: {}", "[{path: /*, to: user-services@v2}]"),
    ] {
        let told = warned(upstreams, "", routes);
        assert!(told.contains("did you mean `user-service`?"), "{upstreams} {routes}: {told}");
    }
}

#[test]
fn routes_stand_behind_their_upstreams_own() {
    let config = good(
        "registration: off\nupstreams:\n  users:\n    static: ['127.0.0.1:1']\n    routes: [{match: /a}]\ngateway:\n  listen: {address: '127.0.0.1:0'}\n  routes:\n  - {path: /x, to: users}\n  - {host: '*.Shop.example', path: '/y/{id}', to: users, timeout: 1s}\n",
    );
    let gateway = config.gateway.unwrap();
    let sends: Vec<_> = gateway
        .routes
        .routes
        .iter()
        .map(|route| match &route.action {
            Action::Send(send) => (send.index, send.has_policy),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sends, [(1, false), (2, true)]);
    let routes = &config.upstreams[0].routes;
    assert_eq!(routes.iter().map(|route| &*route.label).collect::<Vec<_>>(), ["/a", "/x", "*.shop.example/y/{id}"]);
    assert_eq!(routes.get(2).unwrap().policy.timeouts.total, Some(std::time::Duration::from_secs(1)));
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (routes, line, message) in [
        ("  - {path: users, to: users}\n", 5, "must start with `/`"),
        ("  - {path: '/a*', to: users}\n", 5, "only be the last segment"),
        ("  - {path: '/a/../b', to: users}\n", 5, "no request matches"),
        ("  - {path: '/a;b', to: users}\n", 5, "no request matches"),
        ("  - {path: '/{a}/{a}', to: users}\n", 5, "two segments with the name"),
        ("  - {to: users}\n", 5, "needs a `path`"),
        ("  - {path: /a}\n", 5, "one of `to`, `split`, `redirect` and `respond`"),
        ("  - {path: /a, to: users, redirect: /b}\n", 5, "one of `to`, `split`, `redirect` and `respond`"),
        ("  - {path: /a, redirect: /b, respond: {body: a}}\n", 5, "one of `to`, `split`, `redirect` and `respond`"),
        ("  - {path: /a, redirect: /b, timeout: 1s}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, redirect: /b, retry: off}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, redirect: /b, idempotent: true}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, respond: {body: a}, strip: /a}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, respond: {body: a}, rewrite: /b}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, redirect: b}\n", 5, "neither a path nor a URL"),
        ("  - {path: /a, redirect: 'https:///b'}\n", 5, "names no host"),
        ("  - {path: /a, redirect: 'https://u@b/'}\n", 5, "names no host"),
        ("  - {path: /a, redirect: {to: /b, status: 200}}\n", 5, "none of 301"),
        ("  - {path: /a, redirect: {status: 301}}\n", 5, "needs `to`"),
        ("  - {path: /a, redirect: '/{id}'}\n", 5, "has no `{id}`"),
        ("  - {path: /a, respond: {status: 410}}\n", 5, "no `body`"),
        ("  - {path: /a, respond: {}}\n", 5, "needs a `body`"),
        ("  - {path: /a, to: users, strip: /b}\n", 5, "does not begin with `/b`"),
        ("  - {path: /a, to: users, rewrite: /b/*}\n", 5, "ends in `*`"),
        ("  - {path: '/a/{id}', to: users, rewrite: '/b/{name}'}\n", 5, "has no `{name}`"),
        ("  - {path: /a/*, to: users, strip: /a, rewrite: /b}\n", 5, "both given"),
        ("  - {path: /a, to: 'http://127.0.0.1:1/'}\n", 5, "`strip` and `rewrite` say"),
        ("  - {path: /a, to: 'http://127.0.0.1:1/b'}\n", 5, "`strip` and `rewrite` say"),
        ("  - {path: /a, to: 'http://127.0.0.1:1?b'}\n", 5, "`strip` and `rewrite` say"),
        ("  - {path: /a, to: 'http://me:secret@127.0.0.1:1'}\n", 5, "names a user"),
        ("  - {path: /a, to: 'ftp://127.0.0.1'}\n", 5, "`http://` or `https://`"),
        ("  - {path: /a, to: 'http://'}\n", 5, "names no host"),
        ("  - {path: /a, to: 'http://a b'}\n", 5, "names no host"),
        ("  - {path: /a, to: 'http://127.0.0.1:99999'}\n", 5, "names no host"),
        ("  - {path: /a, to: 'http://b\u{fc}cher.example'}\n", 5, "names no host"),
        ("  - {path: /a, to: 'http://a.example:443'}\n  - {path: /b, to: 'https://a.example'}\n", 6, "with TLS by one"),
        ("  - {path: /a, to: 'users@v2'}\n", 5, "are static, and have no version"),
        ("  - {path: /a, to: 'orders@'}\n", 5, "not a version"),
        ("  - {path: /a, to: 'orders@\"'}\n", 5, "not a version"),
        ("  - {path: /a, to: '@v2'}\n", 5, "not a service name"),
        ("  - {path: /a, split: {users: 0}}\n", 5, "not 0"),
        ("  - {path: /a, split: {}}\n", 5, "not 0"),
        ("  - {path: /a, split: {users: -1, b: 1}}\n", 5, "at least 0"),
        ("  - {path: /a, split: {users: many, b: 1}}\n", 5, "at least 0"),
        ("  - {path: /a, split: {'users@v2': 1, b: 1}}\n", 5, "are static, and have no version"),
        ("  - {path: /a, split: {'a b': 1}}\n", 5, "not a service name"),
        ("  - {path: /a, split: [users, b]}\n", 5, "expected a map"),
        ("  - {path: /a, to: c, split: {users: 1, b: 1}}\n", 5, "none of the variants"),
        ("  - {path: /a, to: [users], split: {users: 1, b: 1}}\n", 5, "none of the variants"),
        ("  - {path: /a, to: {users: 1}, split: {users: 1, b: 1}}\n", 5, "none of the variants"),
        ("  - {path: /a, redirect: /b, split: {users: 1}}\n", 5, "one of `to`, `split`, `redirect`"),
        ("  - {path: /a, to: users, split_by: {header: X-A}}\n", 5, "no `split`"),
        ("  - {path: /a, split: {users: 1}, split_by: {header: 'a b'}}\n", 5, "not a header name"),
        ("  - {path: /a, split: {users: 1}, split_by: {cookie: 'a b'}}\n", 5, "not a cookie's name"),
        ("  - {path: /a, split: {users: 1}, split_by: {cookie: {max_age: 1h}}}\n", 5, "needs a `name`"),
        ("  - {path: /a, split: {users: 1}, split_by: {cookie: {name: a, max_age: 401d}}}\n", 5, "400d"),
        ("  - {path: /a, split: {users: 1}, split_by: {cookie: {name: a, max_age: 0s}}}\n", 5, "400d"),
        ("  - {path: /a, to: users, mirror: {percent: 10%}}\n", 5, "a mirror needs `to`"),
        ("  - {path: /a, to: users, mirror: {to: b, percent: 10}}\n", 5, "write `10%`"),
        ("  - {path: /a, to: users, mirror: {to: b, body_max: 17MiB}}\n", 5, "at most 16MiB"),
        ("  - {path: /a, to: users, mirror: {to: b, max_running: 0}}\n", 5, "at least 1"),
        ("  - {path: /a, redirect: /b, mirror: users}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, redirect: /b, priority: low}\n", 5, "requests that go to an upstream"),
        ("  - {path: /a, to: users, allow_encoded: ['%2E']}\n", 5, "none of %2F"),
        ("  - {path: /a, to: users, priority: urgent}\n", 5, "unknown value `urgent`"),
        ("  - {path: /a, to: 'a b'}\n", 5, "not a service name"),
        ("  - {path: /a, to: users, methods: [get]}\n", 5, "not a method"),
        ("  - {path: /a, to: users, methods: [CONNECT]}\n", 5, "not a method"),
        ("  - {path: /a, to: users, methods: []}\n", 5, "at least one method"),
        ("  - {path: /a, to: users, host: 'shop.example:80'}\n", 5, "has a port"),
        ("  - {path: /a, to: users, host: 'b\u{fc}cher.example'}\n", 5, "A-label"),
        ("  - {path: /a, to: users, host: 'a.*'}\n", 5, "whole first label"),
        ("  - {path: /a, to: users, headers: {Host: a}}\n", 5, "what is asked of the host is `host`"),
        ("  - {path: /a, to: users, headers: {X-A: 1, x-a: 1}}\n", 5, "there twice"),
        ("  - {path: /a, to: users, headers: {'a b': 1}}\n", 5, "not a header name"),
        ("  - {path: /a, to: users, retry: {budget: {ratio: 50%}}}\n", 5, "shared by all routes"),
        ("  - {path: /a, to: users, limit: fast}\n", 5, "`fast` is not a rate"),
        ("  - {path: /a, to: users, auth: required}\n", 5, "the gateway has no `auth`"),
        ("  - {path: /a, to: users, pats: 1}\n", 5, "unknown field `pats`"),
        ("    /a: users\n    b: users\n", 6, "must start with `/`"),
        ("    /a: [users]\n", 5, "expected one value"),
    ] {
        let report = bad(&gateway(routes));
        let found = report.0.iter().find(|found| found.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{routes}: no `{message}` in {report}"));
        assert!(found.place.to_string().starts_with(&format!("lictor.yaml:{line}")), "{routes}: {}", found.place);
    }
    for (yaml, message) in [
        ("registration: off\ngateway: {routes: {/a: b}}\n", "needs `listen`"),
        ("registration: off\ngateway: {listen: 8080}\n", "needs `routes`"),
        ("registration: off\ngateway: {listen: 8080, routes: {/a: b}, from_consul: true}\n", "expected a map"),
        (
            "registration: off\ngateway: {listen: 8080, routes: {/a: b}}\nadmin: {listen: 8080}\n",
            "port 8080 is taken already",
        ),
        (
            "registration: off\ngateway: {listen: 8080, routes: {/a: db}}\nupstreams: {db: {listen: 1, protocol: tcp}}\n",
            "carries bytes",
        ),
    ] {
        assert!(bad(yaml).to_string().contains(message), "{yaml}: {}", bad(yaml));
    }
}

#[test]
fn lists_are_as_long_as_their_bounds() {
    let issuers = |count: usize| {
        let each = |number| {
            format!("{{name: n{number}, issuer: 'https://{number}.example', jwks: 'https://{number}.example/keys'}}")
        };
        let list: Vec<String> = (0..count).map(each).collect();
        format!(
            "registration: off\ngateway: {{listen: 8080, auth: {{jwt: [{}]}}, routes: {{/a: b}}}}\n",
            list.join(", ")
        )
    };
    let variants = |count: usize| {
        let list: Vec<String> = (0..count).map(|number| format!("s{number}: 1")).collect();
        gateway(&format!("  - {{path: /a, split: {{{}}}}}\n", list.join(", ")))
    };
    let running =
        |count: usize| gateway(&format!("  - {{path: /a, to: users, mirror: {{to: b, max_running: {count}}}}}\n"));
    for ([most, more], message) in [
        ([32, 33].map(issuers), "more than 32 issuers"),
        ([16, 17].map(variants), "at most 16 variants"),
        ([10_000, 10_001].map(running), "at most 10000"),
    ] {
        good(&most);
        let report = bad(&more).to_string();
        assert!(report.contains(message), "{message}: {report}");
    }
}

/// Each key at the gateway and at a route.
fn keys(text: &str) -> [String; 2] {
    let at_gateway = format!(
        "registration: off\ngateway:\n  listen: 8080\n  {text}\n  routes: [{{path: '/a/{{id}}', to: users}}]\n"
    );
    [at_gateway, gateway(&format!("  - {{path: '/a/{{id}}', to: users, {text}}}\n"))]
}

#[test]
fn what_would_not_be_what_it_looks_like_is_refused() {
    for (text, message) in [
        ("cors: {origins: ['*'], credentials: true}", "let any page act"),
        ("cors: {origins: ['null'], credentials: true}", "not with `credentials`"),
        ("cors: {origins: ['https://a.example'], credentials: true, headers: ['*']}", "means nothing to browsers"),
        ("cors: {origins: []}", "names no origin"),
        ("cors: {methods: [GET]}", "needs `origins`"),
        ("cors: {origins: [null]}", "in quotes"),
        ("cors: app.example", "write `https://app.example`"),
        ("cors: {origins: ['https://app.example/x']}", "has no path"),
        ("cors: {origins: ['https://*']}", "stands for the names before a host"),
        ("cors: {origins: ['https://app.*']}", "stands for the names before a host"),
        ("cors: {origins: ['https://a.example'], methods: [get]}", "is not a method"),
        ("cors: {origins: ['https://a.example'], headers: ['a b']}", "not a header name"),
        ("cors: {origins: ['https://a.example'], max_age: 10}", "has no unit"),
        ("errors: xml", "unknown value `xml`"),
        ("errors: template", "needs a `template`"),
        ("errors: {content_type: text/html}", "needs a `format`"),
        ("errors: {format: text, template: x}", "is for `format: template`"),
        ("errors: {template: '{mesage}'}", "no `{mesage}`"),
        ("body_max: 10 Parsecs", "body_max"),
        ("request_headers: {set: {Host: a}}", "lictor alone writes it"),
        ("request_headers: {set: {X_Forwarded_For: a}}", "lictor alone writes it"),
        ("request_headers: {add: {X-User-ID: a}}", "lictor alone writes it"),
        ("request_headers: {remove: [Content-Length]}", "lictor alone writes it"),
        ("request_headers: {rename: {X-A: X-Lictor-From}}", "lictor alone writes it"),
        ("request_headers: {rename: {Transfer-Encoding: X-A}}", "lictor alone writes it"),
        ("request_headers: {rename: {X-A: X_HTTP_Method_Override}}", "lictor alone writes it"),
        ("request_headers: {rename: {X-A: X-Real-IP}}", "would say what the client says"),
        ("request_headers: {rename: {X-A: X-B, x-a: X-C}}", "there twice"),
        ("request_headers: {set: {X-A: '{nothing}'}}", "there is no `{nothing}`"),
        ("request_headers: {set: {X-A: '{env:HOME}'}}", "there is no `{env:HOME}`"),
        ("request_headers: {set: {X-A: '{param:name}'}}", "has no `{name}`"),
        ("request_headers: {set: {X-A: '{claim:/a~2}'}}", "names no claim"),
        ("request_headers: {set: {X-A: \"a\\r\\nb\"}}", "no line breaks"),
        ("request_headers: {set: {X-A: 1, x-a: 2}}", "there twice"),
        ("request_headers: {set: {'a b': 1}}", "not a header name"),
        ("request_headers: {put: {X-A: 1}}", "unknown field `put`"),
        ("response_headers: {set: {X-A: '{claim:sub}'}}", "nothing to tell in answers"),
        ("response_headers: {set: {Access-Control-Allow-Origin: '*'}}", "what `cors` says"),
        ("security_headers: {frame: all}", "unknown value `all`"),
        ("security_headers: {hsts: 10ms}", "has browsers forget it"),
        ("security_headers: yes please", "expected a map"),
    ] {
        for yaml in keys(text) {
            let report = bad(&yaml).to_string();
            assert!(report.contains(message), "{text}: {report}");
        }
    }
}

#[test]
fn what_tells_who_somebody_is_is_nothing_that_operations_make() {
    let auth = "auth: {jwt: {secret: 0123456789abcdef0123456789abcdef}, claims_to_headers: {X-Tenant: tenant}, mode: optional}";
    let yaml = |gateway: &str, route: &str| {
        format!(
            "registration: off\ngateway:\n  listen: 8080\n  {auth}\n  request_headers: {gateway}\n  routes:\n  - {{path: /a, to: users, request_headers: {route}}}\n  - {{path: /b, to: users}}\nupstreams: {{users: {{static: ['127.0.0.1:1']}}}}\n"
        )
    };
    for operations in [
        "{rename: {X-A: X-Tenant}}",
        "{rename: {X-A: X_Tenant}}",
        "{rename: {X-Tenant: X-A}}",
        "{set: {x-tenant: a}}",
        "{add: {X.Tenant: a}}",
        "{remove: [X-Tenant]}",
    ] {
        for yaml in [yaml(operations, "off"), yaml("off", operations)] {
            let report = bad(&yaml).to_string();
            assert!(report.contains("tells who somebody is"), "{yaml}: {report}");
        }
    }
    good(&yaml("{rename: {X-A: X-Tenant-Name}}", "{set: {X-B: '{header:X-Tenant} {claim:/a/b}'}}"));
}

#[test]
fn fields_are_at_most_fifty() {
    let names = |count: usize| (0..count).map(|at| format!("X-{at}")).collect::<Vec<_>>().join(", ");
    for (count, is_taken) in [(50, true), (51, false)] {
        for yaml in keys(&format!("response_headers: {{remove: [{}]}}", names(count))) {
            if is_taken { drop(good(&yaml)) } else { assert!(bad(&yaml).to_string().contains("more than 50 fields")) }
        }
    }
}

#[test]
fn a_route_says_it_instead_of_the_gateway_or_switches_it_off() {
    let config = good(
        "registration: off\nupstreams: {users: {static: ['127.0.0.1:1']}}\ngateway:\n  listen: 8080\n  cors: 'https://app.example'\n  errors: problem\n  body_max: 1MiB\n  response_headers: {remove: [Server]}\n  security_headers: true\n  routes:\n  - {path: /a, to: users}\n  - {path: /b, to: users, cors: off, errors: off, body_max: none, response_headers: off, security_headers: off}\n  - {path: /c, to: users, cors: '*', errors: text, body_max: 5}\n",
    );
    let gateway = config.gateway.unwrap().routes;
    let [a, b, c] = &gateway.routes[..] else { panic!("{gateway:?}") };
    assert!(std::sync::Arc::ptr_eq(&a.rules, &gateway.rules), "what says nothing shares it");
    assert!(a.rules.cors.is_some() && a.rules.errors.is_some() && a.rules.body_max == Some(1 << 20));
    assert!(a.rules.response_headers.is_some() && a.rules.security.is_some());
    assert_eq!((&b.rules.cors, &b.rules.errors, b.rules.body_max), (&None, &None, None));
    assert!(b.rules.response_headers.is_none() && b.rules.security.is_none());
    assert!(c.rules.cors.is_some() && c.rules.cors != a.rules.cors && c.rules.body_max == Some(5));
}

#[test]
fn two_routes_that_nothing_tells_apart_name_each_other() {
    for (first, second) in [
        ("{path: /a, to: users}", "{path: /a/, to: users}"),
        ("{path: '/a/{b}', to: users}", "{path: '/a/{c}', to: users}"),
        ("{path: /a, methods: [GET, PUT], to: users}", "{path: /a, methods: [PUT], to: users}"),
        ("{host: Shop.example, path: /a, to: users}", "{host: shop.example., path: /a, redirect: /b}"),
        ("{path: /a, headers: {X-A: 1}, to: users}", "{path: /a, query: {b: 1}, to: users}"),
    ] {
        let report =
            bad(&gateway(&format!("  - {{path: /other, to: users}}\n  - {first}\n  - {second}\n"))).to_string();
        assert!(
            report.contains("may match one request") && report.contains("lictor.yaml:6"),
            "{first} {second}: {report}"
        );
        assert!(report.contains("lictor.yaml:7"), "{first} {second}: {report}");
    }
}

#[test]
fn a_url_a_version_and_copies_are_upstreams_of_their_own() {
    let config = good(
        "registration: off
service_token: a-token-of-our-own
upstreams:
  orders: {filter: 'Service.Meta.zone == \"a\"', timeout: 7s, headers: {set: {X-Partner-Key: k, X-Kind: b}}, routes: [{match: /x, timeout: 1s}]}
gateway:
  listen: 8080
  routes:
  - {path: /static/*, to: 'HTTP://Localhost:8080'}
  - {path: /again/*, to: 'http://localhost:8080', timeout: 2s}
  - {path: /far, to: 'https://api.example'}
  - {path: /six, to: 'http://[::1]'}
  - {path: /v2, to: orders@v2}
  - {path: /split, to: orders, split: {orders: 95, orders@v2: 4.5, orders@v3: 0.5}, timeout: 3s, mirror: orders@v2}
  - {path: /other, split: {orders: 1, carts: 1}, retry: off, mirror: {to: 'http://localhost:8080', percent: 10%, body_max: 1KiB, max_running: 5, credentials: true}}
",
    );
    let of =
        |name: &str| config.upstreams.iter().find(|upstream| upstream.name == name).unwrap_or_else(|| panic!("{name}"));
    let names: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    let host = |name| {
        of(name)
            .set_headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>()
    };
    for (name, endpoint, shown, is_tls) in [
        ("localhost:8080", "localhost:8080", "host: localhost:8080", false),
        ("api.example:443", "api.example:443", "host: api.example", true),
        ("[::1]:80", "[::1]:80", "host: [::1]", false),
    ] {
        assert_eq!(of(name).source, lictor_config::Source::Static(vec![endpoint.to_owned()]));
        assert_eq!((host(name), of(name).tls.is_some()), (vec![shown.to_owned()], is_tls), "no token is shown to it");
    }
    let filter = |name: &str| of(name).queries().next().unwrap().filter.clone().unwrap_or_default();
    let zone = "(Service.Meta.zone == \"a\") and ";
    assert_eq!(filter("orders@v2"), format!("{zone}Service.Meta.version == \"v2\""));
    assert_eq!(
        filter("orders@!v2!v3"),
        format!("{zone}Service.Meta.version != \"v2\" and Service.Meta.version != \"v3\"")
    );
    let total = |name: &str, route: usize| of(name).routes.get(route).unwrap().policy.timeouts.total.unwrap().as_secs();
    assert_eq!((of("orders@v2").policy.timeouts.total.unwrap().as_secs(), total("orders@v2", 0)), (7, 1));
    assert_eq!((total("orders@v2", 1), total("orders@v2", 2), total("orders@!v2!v3", 1)), (7, 3, 3));
    let gateway = config.gateway.as_ref().unwrap();
    let sends: Vec<_> = gateway
        .routes
        .routes
        .iter()
        .map(|route| match &route.action {
            Action::Send(send) => send,
            other => panic!("{other:?}"),
        })
        .collect();
    let split = sends[5].split.as_ref().unwrap();
    assert_eq!(split.to_string(), "orders 95, orders@v2 4.5, orders@v3 0.5");
    let variants: Vec<_> = split.variants.iter().map(|it| (&*it.upstream, it.index, it.has_policy)).collect();
    assert_eq!(variants, [("orders@!v2!v3", 1, true), ("orders@v2", 2, true), ("orders@v3", 1, true)]);
    // The route says how both are called; each has its own timeout besides.
    let both = sends[6].split.as_ref().unwrap();
    for (variant, timeout) in both.variants.iter().zip([7, 30]) {
        let policy = &of(&variant.upstream).routes.get(variant.index).unwrap().policy;
        assert_eq!((policy.retry.attempts, policy.timeouts.total.unwrap().as_secs()), (1, timeout), "{variant:?}");
    }
    let mirror = sends[6].mirror.as_ref().unwrap();
    assert_eq!(&*mirror.upstream, "mirror+credentials:localhost:8080");
    assert_eq!((mirror.share, mirror.body_max, mirror.max_running, mirror.shows_credentials), (0.1, 1024, 5, true));
    let mirror = sends[5].mirror.as_ref().unwrap();
    assert_eq!(
        (mirror.share, mirror.body_max, mirror.max_running, mirror.shows_credentials),
        (1.0, 65_536, 100, false)
    );
    let copies = of(&mirror.upstream);
    assert_eq!(host(&mirror.upstream), ["x-kind: b", "x-lictor-mirror: 1"], "neither a partner's key nor our token");
    assert_eq!((copies.policy.retry.attempts, copies.policy.limits.max_pending, copies.routes.own()), (1, 0, 0));
}

#[test]
fn a_translation_is_whole_or_says_what_is_wrong() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/library.pb");
    let of = |route: &str| {
        format!(
            "registration: off\nupstreams:\n  library: {{static: ['127.0.0.1:1'], protocol: grpc}}\n  plain: {{static: ['127.0.0.1:1'], protocol: http1}}\n  found: {{}}\nconsul: {{address: 'http://127.0.0.1:8500'}}\ngateway:\n  listen: 8080\n  routes:\n    - {{path: /v1/*, {}}}\n",
            route.replace("FILE", file)
        )
    };
    let whole = "transcode: {descriptor: FILE, services: [library.v1.Library]}";
    for good_one in [
        format!("to: library, {whole}"),
        format!("to: found, {whole}"),
        format!("to: library, {whole}, cache: off, grpc_web: off"),
        "to: library, transcode: {descriptor: FILE, map: {'GET /a/{name}': library.v1.Library/GetShelf}}".to_owned(),
        "to: library, transcode: {descriptor: FILE, map: {'POST /a': {call: library.v1.Library/GetShelf, body: none, status: 201}}}".to_owned(),
    ] {
        let config = good(&of(&good_one));
        assert!(config.gateway.unwrap().routes.routes[0].rules.transcode.is_some(), "{good_one}");
    }
    let mapped = |entry: &str| format!("to: library, transcode: {{descriptor: FILE, map: {{{entry}}}}}");
    for (route, why) in [
        (format!("to: plain, {whole}"), "`plain` speaks `http1`"),
        (format!("to: 'http://127.0.0.1:8080', {whole}"), "speaks `http1`"),
        (format!("redirect: /x, {whole}"), "about requests that go to an upstream"),
        (format!("to: library, cache: 5s, {whole}"), "answers of gRPC are not kept"),
        (format!("to: library, grpc_web: true, {whole}"), "its paths are those of the descriptor"),
        (format!("to: library, mirror: plain, {whole}"), "calls of gRPC are not copied"),
        ("to: library, transcode: {services: [library.v1.Library]}".to_owned(), "needs a `descriptor`"),
        ("to: library, transcode: {descriptor: FILE}".to_owned(), "needs `services` or a `map`"),
        ("to: library, transcode: FILE".to_owned(), "expected a map"),
        (
            "to: library, transcode: {descriptor: [FILE], services: [library.v1.Library]}".to_owned(),
            "expected a file's path",
        ),
        (
            "to: library, transcode: {descriptor: FILE, services: [library.v1.Library], message_max: 17MiB}".to_owned(),
            "at most 16MiB",
        ),
        (mapped("'/a': library.v1.Library/GetShelf"), "no method and path"),
        (mapped("'get /a': library.v1.Library/GetShelf"), "`get` is not a method"),
        (mapped("'CONNECT /a': library.v1.Library/GetShelf"), "`CONNECT` is not a method"),
        (mapped("'GET /a': {status: 201}"), "needs the method that is called"),
        (mapped("'GET /a': {call: library.v1.Library/GetShelf, status: 404}"), "no status of success"),
        (mapped("'GET /a': {call: library.v1.Library/GetShelf, status: 204}"), "there is none"),
        (
            mapped("'GET /a': {call: library.v1.Library/NoSuch}"),
            "does not do: `library.v1.Library` has no method `NoSuch`",
        ),
    ] {
        let why = why.replace("no status of success", "is not a status of success");
        let said = bad(&of(&route)).to_string();
        assert!(said.contains(&why), "{route}: {said}");
    }
    let gateways = "registration: off\ngateway: {listen: 8080, transcode: {}, routes: {/a: users}}\n";
    assert!(bad(gateways).to_string().contains("transcode"), "it is a route's");
}

/// Two routes of `/a`, at a gateway with this beside.
fn two(gateway: &str, first: &str, second: &str) -> String {
    let auth = "auth: {jwt: {secret: 0123456789abcdef0123456789abcdef}}";
    format!(
        "registration: off\ngateway:\n  listen: 8080\n  {auth}\n  limit: 10/1s\n  {gateway}\n  routes:\n  - {{path: /a, {first}}}\n  - {{path: /a, {second}}}\nupstreams: {{users: {{static: ['127.0.0.1:1']}}}}\n"
    )
}

#[test]
fn routes_of_a_place_differ_by_when_and_by_nothing_that_acts_before() {
    let gold = "to: users, when: {plan: gold}";
    // What one says and the other does not: at either of them.
    for (key, says) in [
        ("auth", "auth: optional"),
        ("auth", "auth: {by: [jwt], mode: optional}"),
        ("allow_encoded", "allow_encoded: ['%2F']"),
        ("head_max", "head_max: 1KiB"),
        ("cors", "cors: 'https://a.example'"),
        ("limit", "limit: {rate: 5/1s, by: [ip]}"),
        ("grpc_web", "grpc_web: true"),
        ("errors", "errors: text"),
        ("response_headers", "response_headers: {remove: [Server]}"),
        ("security_headers", "security_headers: true"),
        ("compress", "compress: on"),
        ("maintenance", "maintenance: true"),
        ("maintenance", "maintenance: {allow: [192.0.2.1]}"),
    ] {
        for (first, second) in
            [(format!("{gold}, {says}"), "to: users".to_owned()), (gold.to_owned(), format!("to: users, {says}"))]
        {
            for yaml in [two("head_max: 2KiB", &first, &second), two("head_max: 2KiB", &second, &first)] {
                let report = bad(&yaml).to_string();
                let named = format!("`{key}` must be the same for both");
                let has_places = report.contains("lictor.yaml:8") && report.contains("lictor.yaml:9");
                assert!(report.contains(&named) && has_places, "{first} / {second}: {report}");
            }
            let both = two("head_max: 2KiB", &format!("{gold}, {says}"), &format!("to: users, {says}"));
            good(&both);
        }
    }
    // What acts once it is known who asks.
    for says in [
        "auth: {require: {roles: admin}, claims_to_headers: {X-Plan: plan}, stream_expiry: ignore}",
        "auth: {by: [jwt]}",
        "limit: {rate: 5/1s, by: [user]}",
        "body_max: 1KiB",
        "request_headers: {set: {X-A: b}}",
        "timeout: 1s",
        "rewrite: /b",
        "cache: 5s",
        "mirror: users",
        "when: {plan: silver}",
    ] {
        good(&two("head_max: 2KiB", gold, &format!("to: users, {says}")));
    }
    good(&two("head_max: 2KiB", gold, "redirect: /b"));
    // Beside `transcode`, which acts then too, nothing is gRPC-Web.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/library.pb");
    let own = format!("transcode: {{descriptor: {file}, services: [library.v1.Library]}}");
    let of = |gateway: &str, second: &str| {
        two(gateway, &format!("{gold}, {own}"), second).replace("['127.0.0.1:1']", "['127.0.0.1:1'], protocol: grpc")
    };
    good(&of("head_max: 2KiB", "to: users"));
    good(&of("grpc_web: true", &format!("to: users, {own}")));
    let report = bad(&of("grpc_web: true", "to: users")).to_string();
    assert!(report.contains("`grpc_web` must be the same for both"), "{report}");
    // The same limit before, in other words.
    let (ip, user) = ("{rate: 5/1s, by: [ip]}", "{rate: 9/1s, by: [user]}");
    for (own, theirs) in [
        (format!("limit: [{ip}]"), format!("limit: [{user}, {ip}]")),
        (format!("limit: {ip}, methods: [GET, PUT]"), format!("limit: {ip}, methods: [PUT, GET]")),
    ] {
        good(&two("head_max: 2KiB", &format!("{gold}, {own}"), &format!("to: users, {theirs}")));
    }
}

#[test]
fn what_when_asks_is_told_apart_or_refused() {
    for (first, second) in [
        ("when: {plan: gold}", "when: {plan: [silver, gold]}"),
        ("when: {plan: gold}", "when: {tenant: acme}"),
        ("when: {plan: gold}", "when: {plan: gold}, methods: [GET]"),
        ("when: {plan: gold}, headers: {X-A: 1}", "headers: {X-B: 1}"),
        ("when: {plan: '*'}", "when: {tenant: '*'}"),
    ] {
        let yaml = two("head_max: 2KiB", &format!("to: users, {first}"), &format!("to: users, {second}"));
        if second.contains("methods") {
            drop(good(&yaml)); // a control: the method tells them apart
            continue;
        }
        let report = bad(&yaml).to_string();
        let has_places = report.contains("lictor.yaml:8") && report.contains("lictor.yaml:9");
        assert!(report.contains("may match one request") && has_places, "{first} {second}: {report}");
    }
    for (says, message) in [
        ("when: {}", "needs a claim"),
        ("when: gold", "expected a map"),
        ("when: {plan: }", "needs a value"),
        ("when: {plan: []}", "needs a value"),
        ("when: {'': gold}", "is no claim"),
        ("when: {/a~2: gold}", "is no claim"),
        ("when: {plan: {a: b}}", "expected a list"),
        ("when: {plan: gold}, auth: none", "nobody is asked here"),
    ] {
        let report = bad(&two("head_max: 2KiB", &format!("to: users, {says}"), "redirect: /b")).to_string();
        assert!(report.contains(message), "{says}: {report}");
    }
    let report = bad(&gateway("  - {path: /a, to: users, when: {plan: gold}}\n")).to_string();
    assert!(report.contains("nobody is asked here"), "{report}");
}

#[test]
fn a_claims_value_has_the_type_that_it_is_written_with() {
    let yaml = two(
        "head_max: 2KiB",
        "to: users, when: {a: true, b: 3, c: ['\"true\"', '\"3\"', yes, 0x1], d: ['\"*\"', null]}",
        "to: users, auth: {require: {claims: {a: [1.5, -2, 'x y'], b: '*', c: [d, '*']}}}",
    );
    let gateway = good(&yaml).gateway.unwrap().routes;
    let when = gateway.table.iter().map(|(_, matcher)| matcher.when.to_string()).collect::<Vec<_>>();
    assert_eq!(when, ["a = true, b = 3, c = \"true\" | \"3\" | yes | 1, d = \"*\"", ""]);
    let rules = &gateway.routes[1].rules.auth.as_ref().unwrap().rules.claims;
    let shown = rules.iter().map(|(claim, test)| format!("{}: {test:?}", claim.text())).collect::<Vec<_>>();
    assert_eq!(shown, ["a: OneOf([Number(1.5), Number(-2), String(\"x y\")])", "b: Exists", "c: Exists"]);
}

#[test]
fn maintenance_is_the_gateways_where_a_route_says_nothing() {
    use lictor_core::gateway::maintenance::Switch::{Never, On, Ordered};
    let more = "maintenance: {retry_after: 7s, allow: 192.0.2.1}";
    for (gateway, route, expected) in [
        ("", "", None),
        ("maintenance: true", "", Some((On, 60, false))),
        ("maintenance: on", "maintenance: off", Some((Never, 60, false))),
        ("", "maintenance: off", Some((Never, 60, false))),
        ("maintenance: off", "", Some((Ordered, 60, false))),
        (more, "", Some((Ordered, 7, true))),
        (more, "maintenance: true", Some((On, 7, true))),
        (more, "maintenance: {enabled: true, retry_after: 1m}", Some((On, 60, true))),
        (more, "maintenance: {allow: []}", Some((Ordered, 7, false))),
        (more, "maintenance: {allow: {headers: {X-Preview: sesame}}}", Some((Ordered, 7, false))),
        (more, "maintenance: {enabled: false}", Some((Never, 7, true))),
        ("maintenance: {enabled: true}", more, Some((On, 7, true))),
    ] {
        let yaml = format!(
            "registration: off\ngateway:\n  listen: 8080\n  {gateway}\n  routes:\n  - {{path: /a, to: users, {route}}}\nupstreams: {{users: {{static: ['127.0.0.1:1']}}}}\n"
        );
        let gateway = good(&yaml).gateway.unwrap().routes;
        let address = "192.0.2.1".parse().unwrap();
        let read = gateway.routes[0]
            .rules
            .maintenance
            .as_ref()
            .map(|own| (own.switch, own.retry_after.as_secs(), own.allow.addresses.has(address)));
        assert_eq!(read, expected, "{yaml}");
    }
}

#[test]
fn what_maintenance_cannot_be_is_refused_wherever_it_is_said() {
    for (says, message) in [
        ("maintenance: perhaps", "`perhaps` is neither true nor false"),
        ("maintenance: [true]", "expected a map"),
        ("maintenance: {enable: true}", "unknown field `enable`"),
        ("maintenance: {enabled: 7}", "neither true nor false"),
        ("maintenance: {retry_after: 0s}", "between 1s and 24h"),
        ("maintenance: {retry_after: 25h}", "between 1s and 24h"),
        ("maintenance: {retry_after: soon}", "`soon`"),
        ("maintenance: {allow: office}", "not a range of addresses"),
        ("maintenance: {allow: [192.0.2.1/24]}", "did you mean `192.0.2.0/24`"),
        ("maintenance: {allow: {address: 192.0.2.1}}", "unknown field `address`"),
        ("maintenance: {allow: {headers: {'X A': b}}}", "not a header name"),
        ("maintenance: {allow: {headers: {X-A: '*'}}}", "would let in everybody"),
        ("maintenance: {allow: {headers: {X-A: ''}}}", "would let in everybody"),
        ("maintenance: {allow: {headers: {X-A: }}}", "would let in everybody"),
        ("maintenance: {allow: {headers: {X-A: b, x-a: c}}}", "is there twice"),
        ("maintenance: {allow: {headers: {X-A: 'b '}}}", "of ASCII"),
        ("maintenance: {allow: {headers: {X-A: 'file:/nowhere/at/all'}}}", "cannot read /nowhere/at/all"),
        ("maintenance: {allow: {claims: {'': ops}}}", "is no claim"),
        ("maintenance: {allow: {claims: {role: ops}}}", "nobody is asked here"),
    ] {
        for yaml in [
            format!(
                "registration: off\ngateway: {{listen: 8080, {says}, routes: {{/a: users}}}}\nupstreams: {{users: {{static: ['127.0.0.1:1']}}}}\n"
            ),
            gateway(&format!("  - {{path: /a, to: users, {says}}}\n")),
        ] {
            let report = bad(&yaml).to_string();
            assert!(report.contains(message), "{yaml}: {report}");
        }
    }
    good(&two("maintenance: {allow: {claims: {role: ops}}}", "to: users", "to: users, when: {plan: gold}"));
    let report = bad(&two(
        "",
        "to: users, auth: none, maintenance: {allow: {claims: {role: ops}}}",
        "redirect: /b, methods: [GET]",
    ));
    assert!(report.to_string().contains("nobody is asked here"), "{report}");
}
