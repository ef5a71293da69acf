//! Tokens at the gateway: who is let in, what is said to who is not, and what those behind see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is};
use serde_json::{Value as Json, json};

use crate::issuer::{SECRET, claims, encode, in_seconds, sealed, shared};
use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask, configuration, echo, gateway_of, post_trailing, says, told_http1, whole_log,
};

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub(crate) fn get(lictor: &Sidecar, version: Version, target: &str, token: &str) -> Told {
    ask(lictor, version, Ask { fields: &[("authorization", &bearer(token))], ..Ask::get(target) })
}

/// A gateway that believes the shared secret, with this besides.
fn secret_gateway(one: &RawServer, more: &str, routes: &str) -> Sidecar {
    gateway_of(&[("one", one)], &format!("  auth:\n    jwt: {{secret: {SECRET}}}\n{more}"), routes)
}

#[test]
fn what_is_not_a_good_token_is_refused_and_not_told_why() {
    let one = echo("one");
    let lictor = gateway_of(
        &[("one", &one)],
        &format!(
            "  auth:\n    jwt: {{secret: {SECRET}, issuer: 'https://idp.example', audience: [shop, till], leeway: 0s}}\n"
        ),
        "    - {path: /*, to: one}\n",
    );
    let usual = || claims(json!({"iss": "https://idp.example", "aud": "shop"}));
    let with = |more: Json| {
        let mut claims = usual();
        more.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        claims
    };
    let without = |name: &str| {
        let mut claims = usual();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let good = shared(&usual());
    let [head, body, mac] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let deep = format!("{{\"a\":{}1{},\"exp\":9999999999}}", "[".repeat(40), "]".repeat(40));
    let wrong = [
        ("no signature", format!("{}.{body}.", encode(r#"{"alg":"none"}"#))),
        ("None", format!("{}.{body}.{mac}", encode(r#"{"alg":"None"}"#))),
        ("two parts", format!("{head}.{body}")),
        ("five parts", format!("{head}.{body}.{mac}.{mac}.{mac}")),
        ("another secret", sealed("another-secret-another-secret-12", HS256, &usual().to_string())),
        ("the empty secret", sealed("", HS256, &usual().to_string())),
        ("another algorithm", sealed(SECRET, r#"{"alg":"HS512"}"#, &usual().to_string())),
        ("a public key's algorithm", sealed(SECRET, r#"{"alg":"RS256"}"#, &usual().to_string())),
        ("crit", sealed(SECRET, r#"{"alg":"HS256","crit":["x"],"x":1}"#, &usual().to_string())),
        ("b64", sealed(SECRET, r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &usual().to_string())),
        ("zip", sealed(SECRET, r#"{"alg":"HS256","zip":"DEF"}"#, &usual().to_string())),
        ("alg twice", sealed(SECRET, r#"{"alg":"none","alg":"HS256"}"#, &usual().to_string())),
        ("a claim twice", sealed(SECRET, HS256, &format!("{{\"exp\":9999999999,{}", &usual().to_string()[1..]))),
        ("deep", sealed(SECRET, HS256, &deep)),
        ("no object", sealed(SECRET, HS256, "[1]")),
        ("long", shared(&with(json!({"x": "x".repeat(9000)})))),
        ("expired", shared(&with(json!({"exp": in_seconds(-2)})))),
        ("exp as text", shared(&with(json!({"exp": "9999999999"})))),
        ("exp null", shared(&with(json!({"exp": null})))),
        ("no exp", shared(&without("exp"))),
        ("negative exp", shared(&with(json!({"exp": -1e300})))),
        ("not yet", shared(&with(json!({"nbf": in_seconds(600)})))),
        ("nbf as text", shared(&with(json!({"nbf": "1"})))),
        ("iat as text", shared(&with(json!({"iat": "now"})))),
        ("no audience", shared(&without("aud"))),
        ("another audience", shared(&with(json!({"aud": "shops"})))),
        ("audiences of others", shared(&with(json!({"aud": ["a", "b"]})))),
        ("an audience of no text", shared(&with(json!({"aud": {"shop": 1}})))),
        ("no issuer", shared(&without("iss"))),
        ("another issuer", shared(&with(json!({"iss": "https://idp.example/"})))),
        ("padding", format!("{head}.{body}.{mac}=")),
        ("not base64", format!("{head}.{body}~.{mac}")),
    ];
    let accepted = [
        ("usual", good.clone()),
        ("several audiences", shared(&with(json!({"aud": ["other", "till"]})))),
        ("far away", shared(&with(json!({"exp": 1e300})))),
        ("a fraction", shared(&with(json!({"exp": in_seconds(60) as f64 + 0.5})))),
        ("a kid", sealed(SECRET, r#"{"alg":"HS256","kid":"../../etc/passwd' OR 1=1"}"#, &usual().to_string())),
        ("jku", sealed(SECRET, r#"{"alg":"HS256","jku":"http://127.0.0.1:1/"}"#, &usual().to_string())),
    ];
    for version in BOTH {
        for (name, token) in &accepted {
            assert_eq!(get(&lictor, version, "/", token).server(), "one", "{version:?} {name}");
        }
        for (name, token) in &wrong {
            let told = get(&lictor, version, "/", token);
            assert_eq!(told.status, 401, "{version:?} {name}: {told:?}");
            assert!(
                told.head.contains("Bearer realm=\"gateway\", error=\"invalid_token\""),
                "{version:?} {name}: {told:?}"
            );
            let body: Json = serde_json::from_str(&told.body).unwrap();
            assert_eq!(body["message"], "Invalid authentication token", "{version:?} {name}");
            assert_eq!(body["reason"], "unauthenticated", "{version:?} {name}");
        }
        let told = ask(&lictor, version, Ask::get("/"));
        assert_eq!(told.status, 401, "{told:?}");
        assert!(
            told.head.contains("Bearer realm=\"gateway\"") && !told.head.contains("\"gateway\", error"),
            "{told:?}"
        );
        let scheme = bearer(&good).replace("Bearer", "bEARER");
        assert_eq!(ask(&lictor, version, Ask { fields: &[("authorization", &scheme)], ..Ask::get("/") }).status, 200);
        let other = [("authorization", "Basic YTpi")];
        assert_eq!(ask(&lictor, version, Ask { fields: &other, ..Ask::get("/") }).status, 401, "another scheme");
        let twice = bearer(&good);
        for fields in [
            &[("authorization", &*twice), ("authorization", &*twice)][..],
            &[("authorization", &format!("{twice}, {twice}"))],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer a b")],
        ] {
            let told = ask(&lictor, version, Ask { fields, ..Ask::get("/") });
            assert_eq!(told.status, 400, "{version:?} {fields:?}: {told:?}");
            assert!(told.head.contains("error=\"invalid_request\""), "{told:?}");
        }
    }
}

#[test]
fn rules_are_each_routes_own_also_for_a_token_that_is_known() {
    let one = echo("one");
    let routes = "    - {path: /any, to: one}
    - {path: /public, to: one, auth: none}
    - {path: /guest, to: one, auth: optional}
    - {path: /read, to: one, auth: {require: {scopes: read}}}
    - {path: /scp, to: one, auth: {require: {scopes: read, scope_claim: scp}}}
    - {path: /write, to: one, auth: {require: {scopes: [read, write]}}}
    - {path: /admin, to: one, auth: {require: {roles: [admin, root]}}}
    - {path: /nested, to: one, auth: {require: {roles: ops, role_claim: /realm_access/roles}}}
    - {path: /acme, to: one, auth: {require: {claims: {tenant: acme, verified: true}}}}
    - {path: /text, to: one, auth: {require: {claims: {flag: '\"true\"', many: ['\"3\"', 4]}}}}
    - {path: /typed, to: one, auth: {require: {claims: {flag: true, many: 3}}}}
    - {path: /till, to: one, auth: {require: {audiences: till}}}
    - {path: /told, respond: {body: told}, auth: {require: {roles: admin}}}
";
    let lictor = secret_gateway(&one, "", routes);
    let user = shared(&claims(
        json!({"flag": "true", "many": ["2", "3"], "scope": "read other", "scp": ["read"], "role": "user", "realm_access": {"roles": ["ops"]}, "tenant": "acme", "verified": true, "aud": "shop"}),
    ));
    let admin = shared(&claims(
        json!({"flag": true, "many": [3], "scope": ["read", "write"], "role": ["admin"], "tenant": "acme", "verified": "no", "aud": ["till"]}),
    ));
    let wrong = sealed("another-secret-another-secret-12", HS256, &claims(json!({})).to_string());
    // Of the route: without a token, with the user's, with the admin's, with one that is not good.
    let table = [
        ("/any", [401, 200, 200, 401]),
        ("/public", [200, 200, 200, 200]),
        ("/guest", [200, 200, 200, 401]),
        ("/read", [401, 200, 200, 401]),
        ("/scp", [401, 200, 403, 401]),
        ("/write", [401, 403, 200, 401]),
        ("/admin", [401, 403, 200, 401]),
        ("/nested", [401, 200, 403, 401]),
        ("/acme", [401, 200, 403, 401]),
        ("/text", [401, 200, 403, 401]),
        ("/typed", [401, 403, 200, 401]),
        ("/till", [401, 401, 200, 401]),
        ("/told", [401, 403, 200, 401]),
    ];
    for round in 0..2 {
        for version in BOTH {
            for (target, statuses) in table {
                let told = [
                    ask(&lictor, version, Ask::get(target)),
                    get(&lictor, version, target, &user),
                    get(&lictor, version, target, &admin),
                    get(&lictor, version, target, &wrong),
                ];
                assert_eq!(told.clone().map(|told| told.status), statuses, "{round} {version:?} {target}: {told:?}");
                for told in told.iter().filter(|told| told.status == 403) {
                    assert!(told.head.contains("error=\"insufficient_scope\""), "{told:?}");
                    assert!(told.body.contains("\"reason\":\"forbidden\""), "{told:?}");
                }
            }
        }
    }
}

#[test]
fn a_token_that_is_known_is_known_until_its_time_is_over() {
    let one = echo("one");
    let auth = format!("  auth:\n    jwt: {{secret: {SECRET}, leeway: 0s}}\n");
    let lictor = gateway_of(&[("one", &one)], &auth, "    - {path: /*, to: one}\n");
    let [short, long] = [5, 3600].map(|seconds| shared(&claims(json!({"exp": in_seconds(seconds)}))));
    for token in [&short, &long] {
        for version in BOTH {
            assert_eq!(get(&lictor, version, "/", token).server(), "one", "{version:?}");
        }
    }
    for version in BOTH {
        let told = || get(&lictor, version, "/", &short);
        let is_over = |told: &Told| told.status == 401 && told.head.contains("error=\"invalid_token\"");
        eventually_is("its time is over", told, is_over);
        assert_eq!(get(&lictor, version, "/", &long).server(), "one", "{version:?}: the control");
    }
}

const FIELDS: &str = "    claims_to_headers: {X-User-ID: sub, X-Org: /org/name, X-Groups: groups, X-Name: {claim: name, encode: percent}}\n";

#[test]
fn those_behind_see_the_claims_and_no_client_sets_them() {
    let one = echo("one");
    let routes = "    - {path: /in, to: one}
    - {path: /guest, to: one, auth: optional}
    - {path: /public, to: one, auth: none}
    - {path: /told, respond: {body: told}}
";
    let auth = format!("  auth:\n    jwt: {{secret: {SECRET}}}\n{FIELDS}");
    let lictor = gateway_of(&[("one", &one)], &auth, routes);
    let token = shared(&claims(json!({"org": {"name": "acme"}, "groups": ["a", "b"], "name": "J\u{fc}rgen M"})));
    let bare = shared(&claims(json!({"groups": ["a,b"], "name": ""})));
    let names = ["X-User-ID", "X-Org", "X-Groups", "X-Name"];
    for version in BOTH {
        let seen = get(&lictor, version, "/in", &token).body.to_lowercase();
        for line in ["x-user-id: alice\r\n", "x-org: acme\r\n", "x-groups: a,b\r\n", "x-name: j%c3%bcrgen%20m\r\n"] {
            assert_eq!(seen.matches(line).count(), 1, "{version:?} {line}: {seen}");
        }
        let seen = get(&lictor, version, "/in", &bare).body.to_lowercase();
        assert!(seen.contains("x-user-id: alice\r\n"), "{seen}");
        for absent in ["x-org", "x-groups", "x-name"] {
            assert!(!seen.contains(absent), "{version:?} {absent}: {seen}");
        }
        for (target, shown) in [
            ("/in", Some(&bare)),
            ("/guest", Some(&bare)),
            ("/guest", None),
            ("/public", Some(&bare)),
            ("/public", None),
        ] {
            for name in names {
                for spelled in [name.to_owned(), name.to_uppercase(), name.replace('-', "_"), name.replace('-', ".")] {
                    let authorization = shown.map(|token| bearer(token));
                    let mut fields = vec![(&*spelled, "spoofed"), (&*spelled, "spoofed"), ("x-custom", "kept")];
                    fields.extend(authorization.as_deref().map(|value| ("authorization", value)));
                    let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
                    assert_eq!(told.server(), "one", "{version:?} {target} {spelled}: {told:?}");
                    assert!(!told.body.contains("spoofed"), "{version:?} {target} {spelled}: {}", told.body);
                    assert!(told.body.to_lowercase().contains("x-custom: kept"), "{}", told.body);
                }
            }
        }
    }
    for name in names {
        let text = format!(
            "POST /in HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {bare}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n{name}: spoofed\r\nConnection: close, {name}\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        );
        let spelled = name.replace('-', "_");
        let trailers = [(name, "spoofed"), (&*spelled, "spoofed"), ("X-Custom", "kept")];
        for version in BOTH {
            let authorization = bearer(&bare);
            let fields = [("authorization", &*authorization)];
            let told = post_trailing(&lictor, version, Ask { fields: &fields, ..Ask::get("/in") }, &trailers);
            let seen = told.body.to_lowercase();
            assert!(
                told.server() == "one" && !seen.contains("spoofed") && seen.contains("x-custom: kept"),
                "{version:?} {name}: {told:?}"
            );
        }
        let told = told_http1(connect(&lictor.address("gateway")), text.as_bytes());
        assert_eq!(told.server(), "one", "{name}: {told:?}");
        assert!(!told.body.contains("spoofed"), "{name}: {}", told.body);
        assert_eq!(told.body.to_lowercase().matches("x-user-id: alice\r\n").count(), 1, "{name}: {}", told.body);
    }
    let told = ask(&lictor, Version::Http1, Ask { fields: &[("x-user-id", "spoofed")], ..Ask::get("/in") });
    assert_eq!(told.status, 401, "{told:?}");
}

#[test]
fn a_token_is_taken_from_one_place_and_goes_no_further_than_it_must() {
    let one = echo("one");
    let auth = format!("  auth:\n    jwt: {{secret: {SECRET}}}\n    from: {{cookie: session, query: token}}\n");
    let lictor =
        gateway_of(&[("one", &one)], &auth, "    - {path: /*, to: one}\n    - {path: /public, to: one, auth: none}\n");
    let token = shared(&claims(json!({})));
    let cookie = format!("a=b; session={token}");
    let authorization = bearer(&token);
    let (by_field, by_cookie) = (("authorization", &*authorization), ("cookie", &*cookie));
    let target = format!("/a?b=1&token={token}&c=2");
    for version in BOTH {
        let asked = |method, target: &str, fields: &[(&str, &str)]| {
            ask(&lictor, version, Ask { method, fields, ..Ask::get(target) })
        };
        assert_eq!(asked("GET", "/", &[by_field]).status, 200);
        assert_eq!(asked("GET", "/", &[by_cookie]).status, 200);
        assert_eq!(asked("GET", "/", &[by_field, by_cookie]).status, 400);
        assert_eq!(asked("GET", &target, &[by_field]).status, 400);
        let told = asked("GET", &target, &[]);
        assert_eq!((told.status, told.target()), (200, "/a?b=1&c=2"), "{told:?}");
        assert!(told.head.contains("private"), "{told:?}");
        assert_eq!(asked("GET", &format!("/public?token={token}"), &[]).target(), "/public");
        // Somebody else's page has the browser ask.
        for (fields, status) in [
            (&[][..], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("origin", "https://evil.example")], 403),
            (&[("sec-fetch-site", "same-origin")], 200),
            (&[("origin", "http://shop.example")], 200),
        ] {
            let fields = [&[by_cookie], fields].concat();
            let told = asked("POST", "/", &[&fields[..], &[("content-length", "0")]].concat());
            assert_eq!(told.status, status, "{version:?} {fields:?}: {told:?}");
        }
        assert_eq!(
            asked("POST", "/", &[by_field, ("content-length", "0"), ("origin", "https://evil.example")]).status,
            200
        );
    }
    assert!(!whole_log(&lictor).contains(&token), "the token is in the log");
}

#[test]
fn nothing_is_kept_for_who_asks_by_the_query() {
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    let one = RawServer::saying(move |_| {
        counted.fetch_add(1, Relaxed);
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi"
    });
    let auth = format!("  auth:\n    jwt: {{secret: {SECRET}}}\n    from: {{query: token}}\n");
    let upstreams = format!("  kept: {{cache: 1m, static: ['127.0.0.1:{}']}}\n", one.port());
    let text = configuration(
        &[],
        &upstreams,
        &auth,
        "    - {path: /*, to: kept}\n    - {path: /public, to: kept, auth: none}\n",
    );
    let lictor = Sidecar::serve(LICTOR, &text).up();
    let before = |version: Version, target: &str| {
        let before = seen.load(Relaxed);
        assert_eq!(ask(&lictor, version, Ask::get(target)).status, 200, "{version:?} {target}");
        seen.load(Relaxed) - before
    };
    let target = format!("/a?token={}", shared(&claims(json!({}))));
    for version in BOTH {
        let public = format!("/public?{version:?}");
        assert_eq!([before(version, &public), before(version, &public)], [1, 0], "a control");
        assert_eq!([before(version, &target), before(version, &target)], [1, 1], "{version:?}");
    }
}

#[test]
fn a_kept_answer_stays_its_clients_where_a_cookie_says_who_that_is() {
    let one = echo("one");
    for (from, more) in
        [("{cookie: session}", None), ("{header: false, cookie: session}", Some(("authorization", "Basic YTpi")))]
    {
        let auth = format!(
            "  auth:\n    jwt: {{secret: {SECRET}}}\n    from: {from}\n    claims_to_headers: {{X-Account: sub}}\n"
        );
        let routes = "    - {path: /*, to: one, cache: 1m, request_headers: {remove: [Cookie]}}\n    - {path: /open, to: one, cache: 1m, auth: none}\n";
        let lictor = gateway_of(&[("one", &one)], &auth, routes);
        for version in BOTH {
            for name in ["ada", "bob", "ada"] {
                let cookie = format!("session={}", shared(&claims(json!({"sub": name}))));
                let fields: Vec<_> = [("cookie", &*cookie)].into_iter().chain(more).collect();
                let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/mine") });
                let seen = told.body.to_lowercase();
                assert!(seen.contains(&format!("x-account: {name}\r\n")), "{version:?} {from} {name}: {told:?}");
                assert!(!seen.contains("cookie"), "{told:?}");
            }
            let open = [(); 2].map(|()| ask(&lictor, version, Ask::get("/open")));
            assert!(open[0].server() == "one" && open[0].body == open[1].body, "the control: {open:?}");
        }
    }
}

#[test]
fn a_page_that_cors_lists_with_credentials_asks_with_its_cookie() {
    let one = echo("one");
    let auth = format!("  auth:\n    jwt: {{secret: {SECRET}}}\n    from: {{cookie: session}}\n");
    let routes = "    - {path: /open, to: own, cors: {origins: ['https://app.example'], credentials: true}}
    - {path: /read, to: own, cors: {origins: ['https://app.example']}}
    - {path: /all, to: own, cors: '*'}
    - {path: /own, to: own}\n";
    let own = format!("  own: {{static: ['127.0.0.1:{}'], retry: off, ejection: off, breaker: off}}\n", one.port());
    let lictor = Sidecar::serve(LICTOR, &configuration(&[], &own, &auth, routes)).up();
    let cookie = format!("session={}", shared(&claims(json!({}))));
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    for version in BOTH {
        for (target, page, status) in [
            ("/open", &[("origin", "https://app.example")][..], 200),
            ("/open", &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], 200),
            ("/open", &[("origin", "https://APP.example")], 403),
            ("/open", &[("origin", "https://evil.example")], 403),
            ("/open", &[("origin", "https://app.example"), ("origin", "https://app.example")], 403),
            ("/open", &[("sec-fetch-site", "cross-site")], 403),
            ("/open", &[("origin", "null")], 403),
            ("/open", &[("origin", "http://shop.example")], 200),
            ("/open", &[], 403),
            ("/read", &[("origin", "https://app.example")], 403),
            ("/all", &[("origin", "https://app.example")], 403),
            ("/own", &[("origin", "https://app.example")], 403),
            ("/own", &[("origin", "http://shop.example")], 200),
        ] {
            let fields = [&[("cookie", &*cookie), ("content-length", "0")], page].concat();
            let told = ask(&lictor, version, Ask { method: "POST", fields: &fields, ..Ask::get(target) });
            assert_eq!(told.status, status, "{version:?} {target} {page:?}: {told:?}");
            let wish: &[_] = match version {
                Version::Http1 => &upgrade,
                Version::Http2 => &[(":protocol", "websocket")],
            };
            let fields = [wish, &[("cookie", &*cookie)], page].concat();
            let method = if version == Version::Http1 { "GET" } else { "CONNECT" };
            let told = ask(&lictor, version, Ask { method, fields: &fields, ..Ask::get(target) });
            // `cors` lists whoever opens sockets, pages of the host's own too; and that server's 200 is no socket.
            let is_listed = target != "/open" || page != [("origin", "http://shop.example")];
            let status = match (version, status) {
                _ if !is_listed => 403,
                (Version::Http2, 200) => 502,
                _ => status,
            };
            assert_eq!(told.status, status, "{version:?}, a socket of {target} {page:?}: {told:?}");
        }
    }
}

#[test]
fn what_an_issuer_asks_of_its_tokens_is_asked() {
    let one = echo("one");
    let auth = format!(
        "  auth: {{mode: optional, jwt: {{name: own, secret: {SECRET}, required: sub, typ: at+jwt}}, from: {{header: false, cookie: s}}}}\n"
    );
    let lictor = gateway_of(
        &[("one", &one)],
        &auth,
        "    - {path: /*, to: one}\n    - {path: /in, to: one, auth: {mode: required}}\n",
    );
    let access = r#"{"alg":"HS256","typ":"at+jwt"}"#;
    let good = sealed(SECRET, access, &claims(json!({})).to_string());
    let plain = shared(&claims(json!({})));
    let nobodys = sealed(SECRET, access, &json!({"exp": in_seconds(60)}).to_string());
    for version in BOTH {
        for (token, status) in [(&good, 200), (&plain, 401), (&nobodys, 401)] {
            let cookie = format!("s={token}");
            for target in ["/", "/in"] {
                let told = ask(&lictor, version, Ask { fields: &[("cookie", &cookie)], ..Ask::get(target) });
                assert_eq!(told.status, status, "{version:?} {target}: {told:?}");
            }
        }
        assert_eq!(get(&lictor, version, "/", &plain).status, 200, "nobody looks at Authorization");
        assert_eq!(get(&lictor, version, "/in", &good).status, 401, "nobody looks at Authorization");
    }
}

#[test]
fn the_table_says_who_may_ask() {
    let one = echo("one");
    let routes = "    - {path: /a, to: one, auth: none}\n    - {path: /b, to: one, auth: {mode: optional, require: {roles: [x, y], claims: {tenant: '*'}}}}\n    - {path: /c, to: one}\n";
    let lictor = secret_gateway(&one, "", routes);
    let output =
        std::process::Command::new(LICTOR).args(["routes", "-c"]).arg(lictor.file()).env_clear().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in ["* /a none one", "* /b optional, roles x y, claims tenant one", "* /c required one"] {
        assert!(plain.contains(row), "{text}");
    }
}

#[test]
fn explain_says_which_rule_refuses_and_what_would_pass() {
    let one = echo("one");
    let routes = "    - {path: /in, to: one}\n    - {path: /admin, to: one, auth: {require: {roles: [admin, root]}}}\n";
    let lictor = secret_gateway(&one, "", routes);
    let token = bearer(&shared(&claims(json!({"role": "user"}))));
    let explain = |target: &str, header: Option<String>| {
        let fields: Vec<&str> = header.iter().flat_map(|header| ["-H", header]).collect();
        let url = format!("http://shop.example{target}");
        says(&[&["explain", "GET", &url, "--admin", &lictor.admin()], &fields[..]].concat())
    };
    let shown = Some(format!("Authorization: {token}"));
    for (target, header, expected) in [
        ("/in", shown.clone(), &["Auth: required; this is alice, by jwt."][..]),
        ("/in", None, &["refuses (all ways): missing: no credential", "a token of default (Authorization: Bearer)"]),
        ("/admin", shown, &["refuses (jwt): role: none of the roles is there", "required, roles admin root"]),
    ] {
        let told = explain(target, header);
        assert!(expected.iter().all(|part| told.contains(part)), "{target}: {told}");
        assert!(!told.contains(&token), "{told}");
    }
    get(&lictor, Version::Http1, "/in", token.strip_prefix("Bearer ").unwrap());
    get(&lictor, Version::Http1, "/in", "no.to.ken");
    let counted = |provider, decision| {
        lictor.metric("lictor_auth_decisions_total", &[("provider", provider), ("decision", decision)])
    };
    assert_eq!([counted("default", "allowed"), counted("", "base64")].map(|count| count as u64), [1, 1]);
}

#[test]
fn a_secret_in_a_file_is_followed_and_what_everybody_knows_is_refused() {
    let one = echo("one");
    let folder = lictor_testkit::scratch("secret");
    let file = folder.join("jwt");
    std::fs::write(&file, SECRET).unwrap();
    let auth = format!("  auth: {{jwt: {{secret: 'file:{}'}}}}\n", file.display());
    let lictor = gateway_of(&[("one", &one)], &auth, "    - {path: /*, to: one}\n");
    let (old, new) = (claims(json!({})), "another-secret-another-secret-12");
    let (old, new) = (shared(&old), sealed(new, HS256, &old.to_string()));
    let both = || [&old, &new].map(|token| get(&lictor, Version::Http1, "/", token).status);
    assert_eq!(both(), [200, 401]);
    std::fs::write(&file, "another-secret-another-secret-12\n").unwrap();
    eventually_is("the new secret", both, |statuses| *statuses == [401, 200]);
    let shown = lictor.get("admin", "/config").text();
    assert!(!shown.contains("another-secret"), "{shown}");

    let check = |auth: &str, env: &[(&str, &str)]| {
        let text = configuration(&[("one", &one)], "", &format!("  auth: {auth}\n"), "    - {path: /*, to: one}\n");
        let path = folder.join("lictor.yaml");
        std::fs::write(&path, text).unwrap();
        let output = std::process::Command::new(LICTOR)
            .args(["check", "-c", path.to_str().unwrap()])
            .env_clear()
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&all).into_owned())
    };
    for (auth, says) in [
        ("{jwt: {secret: your-secret-key}}", "this token stands in public tutorials"),
        ("{jwt: {secret: short}}", "too short"),
        ("{jwt: {secret: ''}}", "too short"),
        ("{jwt: {}}", "one of `jwks` and `secret`"),
        ("{jwt: {jwks: 'http://idp.example/keys'}}", "fetched by https"),
        ("{jwt: {jwks: 'https://user:pass@idp.example/keys'}}", "may name no user"),
        ("{jwt: {jwks: 'ftp://127.0.0.1/keys'}}", "fetched by https"),
        (
            "{jwt: {jwks: 'https://idp.example/', secret: 0123456789abcdef0123456789abcdef}}",
            "one of `jwks` and `secret`",
        ),
        ("{jwt: {jwks: 'https://idp.example/', algorithms: [RS256, ES256]}}", "one family"),
        ("{jwt: {jwks: 'https://idp.example/', algorithms: [none]}}", "is not built"),
        ("{jwt: {jwks: 'https://idp.example/', leeway: 61s}}", "60s"),
        ("{jwt: [{jwks: 'https://a.example/'}, {name: b, jwks: 'https://b.example/'}]}", "cannot be told"),
        ("{require: {roles: admin}}", "whom to believe"),
        ("{jwt: {jwks: 'https://idp.example/'}, from: {header: off}}", "no place is left"),
        ("{jwt: {jwks: 'https://idp.example/'}, claims_to_headers: {Host: sub}}", "says something else"),
        ("{jwt: {jwks: 'https://idp.example/'}, claims_to_headers: {X_User: sub}}", "no name of a field"),
        ("{jwt: {jwks: 'https://idp.example/'}, claims_to_headers: {X-Lictor-From: sub}}", "says something else"),
    ] {
        let (is_good, text) = check(auth, &[]);
        assert!(!is_good && text.contains(says), "{auth}: {text}");
        assert!(!text.contains("0123456789abcdef") && !text.contains("user:pass"), "{auth}: {text}");
    }
    // On a developer's machine too: no key of tokens is that short.
    for (secret, says) in [("your-secret-key", "public tutorials"), ("internal-service-secret", "too short")] {
        let (is_good, text) = check(&format!("{{jwt: {{secret: {secret}}}}}"), &[("LICTOR_DEV", "1")]);
        assert!(!is_good && text.contains(says) && !text.contains("LICTOR_DEV"), "{secret}: {text}");
    }
    assert!(check(&format!("{{jwt: {{secret: {SECRET}}}}}"), &[]).0, "the control");
    assert!(check("{jwt: {jwks: 'https://idp.example/', algorithms: [RS256, PS256]}}", &[]).0);
}
