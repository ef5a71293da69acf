//! Routes that share a place: who asks decides which is his.

use lictor_testkit::{RawServer, Sidecar, connect};
use serde_json::{Value as Json, json};

use crate::issuer::{SECRET, claims, shared};
use crate::keys::hash;
use crate::{Ask, BOTH, Told, Version, ask, echo, field, gateway_of, says, told_http1};

const KEY: &str = "partner-0123456789abcdefghij";

fn jwt(more: &str) -> String {
    format!("  auth:\n    jwt: {{secret: {SECRET}}}\n{more}")
}

fn with(lictor: &Sidecar, version: Version, target: &str, says: &Json) -> Told {
    let token = format!("Bearer {}", shared(&claims(says.clone())));
    ask(lictor, version, Ask { fields: &[("authorization", &token)], ..Ask::get(target) })
}

fn servers() -> Vec<(&'static str, RawServer)> {
    ["a", "b", "c", "d"].into_iter().map(|name| (name, echo(name))).collect()
}

fn named<'a>(servers: &'a [(&'static str, RawServer)]) -> Vec<(&'static str, &'a RawServer)> {
    servers.iter().map(|(name, server)| (*name, server)).collect()
}

#[test]
fn claims_choose_among_the_routes_of_a_place() {
    let servers = servers();
    let rows = [
        "    - {path: /api/*, to: a, when: {plan: gold}, strip: /api, request_headers: {set: {X-Plan: '{claim:plan}'}}}\n",
        "    - {path: /api/*, to: b, when: {plan: [silver, free]}}\n",
        "    - {path: /api/*, to: c, when: {plan: gold, /org/id: 7}, auth: {require: {roles: admin}}}\n",
        "    - {path: /api/*, to: d}\n",
        "    - {path: /told, redirect: /gold, when: {plan: gold, beta: '*'}}\n",
        "    - {path: /told, respond: {body: told}, when: {beta: true}}\n",
        "    - {path: /only, to: a, when: {plan: '*'}}\n",
        "    - {path: /lists, to: a, when: {groups: x}}\n",
        "    - {path: /lists, to: b, when: {groups: y}}\n",
        "    - {path: /lists, to: c, when: {groups: '*'}}\n",
        "    - {path: /read, methods: [GET], to: a, when: {plan: gold}}\n",
        "    - {path: /read, to: b}\n",
    ];
    let backwards: Vec<&str> = rows.iter().rev().copied().collect();
    for rows in [rows.concat(), backwards.concat()] {
        let lictor = gateway_of(&named(&servers), &jwt(""), &rows);
        for version in BOTH {
            for (target, says, status, server) in [
                ("/api/x", json!({"plan": "gold"}), 200, "a"),
                ("/api/x", json!({"plan": "gold", "org": {"id": 8}}), 200, "a"),
                ("/api/x", json!({"plan": "gold", "org": {"id": "7"}}), 200, "a"),
                ("/api/x", json!({"plan": "gold", "org": {"id": 7}}), 403, ""),
                ("/api/x", json!({"plan": "gold", "org": {"id": 7}, "role": "admin"}), 200, "c"),
                ("/api/x", json!({"plan": "free"}), 200, "b"),
                ("/api/x", json!({"plan": ["x", "silver"]}), 200, "b"),
                ("/api/x", json!({"plan": ["silver", "gold"]}), 403, ""),
                ("/api/x", json!({"plan": ["silver", "gold"], "org": {"id": 7}, "role": "admin"}), 200, "c"),
                ("/api/x", json!({"plan": "Gold"}), 200, "d"),
                ("/api/x", json!({"plan": null}), 200, "d"),
                ("/api/x", json!({}), 200, "d"),
                ("/told", json!({"plan": "gold", "beta": false}), 308, ""),
                ("/told", json!({"beta": true}), 200, "told"),
                ("/told", json!({"beta": "true"}), 403, ""),
                ("/told", json!({}), 403, ""),
                ("/only", json!({"plan": 0}), 200, "a"),
                ("/only", json!({"plan": null}), 403, ""),
                ("/lists", json!({"groups": ["x"]}), 200, "a"),
                ("/lists", json!({"groups": ["y", "z"]}), 200, "b"),
                ("/lists", json!({"groups": ["x", "y"]}), 403, ""),
                ("/lists", json!({"groups": []}), 200, "c"),
                ("/read", json!({"plan": "gold"}), 200, "a"),
                ("/read", json!({"plan": "free"}), 403, ""),
            ] {
                let told = with(&lictor, version, target, &says);
                assert_eq!((told.status, told.server()), (status, server), "{version:?} {target} {says}: {told:?}");
                if status == 403 {
                    assert!(told.head.contains("error=\"insufficient_scope\""), "{told:?}");
                    assert!(told.body.contains("\"reason\":\"forbidden\"") && !told.body.contains("plan"), "{told:?}");
                }
            }
            let gold = with(&lictor, version, "/api/./x?q=1", &json!({"plan": "gold"}));
            assert_eq!(gold.target(), "/x?q=1", "{gold:?}");
            assert!(gold.body.to_lowercase().contains("x-plan: gold\r\n"), "{gold:?}");
            let free = with(&lictor, version, "/api/./x?q=1", &json!({"plan": "free"}));
            assert_eq!(free.target(), "/api/x?q=1", "{free:?}");
            assert!(!free.body.to_lowercase().contains("x-plan"), "{free:?}");
            for fields in [&[][..], &[("authorization", "Bearer no.to.ken")]] {
                let told = ask(&lictor, version, Ask { fields, ..Ask::get("/api/x") });
                assert_eq!(told.status, 401, "nobody is let in by it: {told:?}");
            }
        }
    }
}

#[test]
fn nobody_has_no_claims_and_what_nobody_could_tell_is_not_guessed() {
    let servers = servers();
    let routes = "    - {path: /a, to: a, when: {plan: gold}}\n    - {path: /a, to: b}\n    - {path: /b, to: a, when: {plan: gold}}\n";
    let lictor = gateway_of(&named(&servers), &jwt("    mode: optional\n"), routes);
    for version in BOTH {
        let guest = |target| ask(&lictor, version, Ask::get(target));
        assert_eq!(guest("/a").server(), "b");
        let told = guest("/b");
        assert!(told.status == 401 && told.head.contains("Bearer realm=\"gateway\""), "{told:?}");
        assert!(!told.head.contains("\"gateway\", error"), "he has shown nothing: {told:?}");
        assert_eq!(with(&lictor, version, "/a", &json!({"plan": "gold"})).server(), "a");
        assert_eq!(with(&lictor, version, "/a", &json!({"plan": "free"})).server(), "b");
        assert_eq!(with(&lictor, version, "/b", &json!({"plan": "free"})).status, 403);
        let wrong = [("authorization", "Bearer no.to.ken")];
        assert_eq!(ask(&lictor, version, Ask { fields: &wrong, ..Ask::get("/a") }).status, 401, "no guest");
    }
    let counted = |provider, decision| {
        lictor.metric("lictor_auth_decisions_total", &[("provider", provider), ("decision", decision)]) as u64
    };
    let all = [("default", "allowed"), ("default", "claim"), ("", "anonymous"), ("", "missing")];
    assert_eq!(all.map(|(provider, decision)| counted(provider, decision)), [4, 2, 2, 2]);
}

/// A service whose answer is what the token says.
fn judge() -> RawServer {
    RawServer::saying(|head| {
        let token =
            field(head, "authorization").and_then(|it| it.split(' ').next_back()).unwrap_or_default().to_owned();
        let (status, body) = match &*token {
            "gold" => (200, "{\"plan\":\"gold\"}"),
            "free" => (200, "{\"plan\":\"free\"}"),
            "bare" => (200, ""),
            "html" => (200, "<html>"),
            _ => (500, ""),
        };
        format!("HTTP/1.1 {status} OK\r\nX-Tenant: {token}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
}

#[test]
fn whatever_shows_who_asks_chooses() {
    let (servers, judge) = (servers(), judge());
    let auth = format!(
        "  auth:\n    keys: {{clients: {{partner: {{keys: '{}', roles: [gold]}}}}}}\n    forward: {{to: judge, path: /check, fail_open: true, headers_to_upstream: [X-Tenant]}}\n",
        hash(KEY)
    );
    let routes = "    - {path: /*, to: a, when: {role: gold, sub: partner}}\n    - {path: /*, to: b, when: {plan: gold}, auth: {claims_to_headers: {X-P: plan}}}\n    - {path: /*, to: c}\n";
    let all: Vec<_> = named(&servers).into_iter().chain([("judge", &judge)]).collect();
    let lictor = gateway_of(&all, &auth, routes);
    for version in BOTH {
        for (fields, status, server) in [
            (&[("x-api-key", KEY)][..], 200, "a"),
            (&[("x-api-key", "wrong")], 401, ""),
            (&[("authorization", "Bearer gold")], 200, "b"),
            (&[("authorization", "Bearer free")], 200, "c"),
            (&[("authorization", "Bearer bare")], 200, "c"),
            (&[("authorization", "Bearer html")], 503, ""),
            // The service is not there for it, and nobody is anybody.
            (&[("authorization", "Bearer late")], 503, ""),
            (&[], 401, ""),
        ] {
            let told = ask(&lictor, version, Ask { fields, ..Ask::get("/x") });
            assert_eq!((told.status, told.server()), (status, server), "{version:?} {fields:?}: {told:?}");
            let has = |line: &str| told.body.to_lowercase().contains(line);
            assert_eq!(has("x-p: gold\r\n"), server == "b", "{told:?}");
            assert_eq!(has("x-tenant: "), server == "b" || (server == "c" && status == 200), "{told:?}");
        }
    }
}

#[test]
fn limits_and_bodies_are_those_of_whoever_asks() {
    let servers = servers();
    let routes = "    - {path: /*, to: a, when: {plan: gold}, limit: {rate: 3/744h, by: [user]}}\n    - {path: /*, to: b, body_max: 2, limit: {rate: 1/744h, by: [user]}}\n";
    for version in BOTH {
        let lictor = gateway_of(&named(&servers), &jwt(""), routes);
        let statuses = |says: &Json| (0..4).map(|_| with(&lictor, version, "/", says).status).collect::<Vec<_>>();
        assert_eq!(statuses(&json!({"sub": "ada", "plan": "gold"})), [200, 200, 200, 429]);
        assert_eq!(statuses(&json!({"sub": "bob"})), [200, 429, 429, 429]);
        let equal = gateway_of(&named(&servers), &jwt(""), &routes.replace("3/744h", "1/744h"));
        let ada = |says: &Json| with(&equal, version, "/", says).status;
        let (plain, gold) = (json!({"sub": "ada"}), json!({"sub": "ada", "plan": "gold"}));
        assert_eq!([&plain, &plain, &gold, &gold].map(ada), [200, 429, 200, 429], "each route has its own counter");
        for (says, status) in [(json!({"sub": "eve", "plan": "gold"}), 200), (json!({"sub": "dan"}), 413)] {
            let token = shared(&claims(says));
            let request = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: 3\r\n\r\nabc"
            );
            let told = told_http1(connect(&lictor.address("gateway")), request.as_bytes());
            assert_eq!(told.status, status, "{told:?}");
        }
    }
}

#[test]
fn who_guesses_is_braked_whichever_route_of_the_place_has_limits() {
    let servers = servers();
    let keys = format!("  auth: {{keys: {{clients: {{ada: {{keys: '{}'}}}}}}}}\n", hash(KEY));
    let (few, many) = ("limit: {rate: 3/744h, by: [user]}", "limit: {rate: 1000/1s, by: [user]}");
    for (gateway, gold, other) in [
        ("", format!("when: {{plan: gold}}, {few}"), few.to_owned()),
        (few, "when: {plan: gold}, limit: off".to_owned(), "body_max: 1KiB".to_owned()),
        ("", format!("when: {{plan: gold}}, {many}"), few.to_owned()),
        ("", format!("when: {{plan: gold}}, {few}"), "limit: off".to_owned()),
        ("", "when: {plan: gold}".to_owned(), format!("when: {{plan: '*'}}, {few}")),
        (
            "",
            "when: {plan: gold}, limit: {rate: 1000/1s, by: [ip]}".to_owned(),
            format!("limit: [{{rate: 1000/1s, by: [ip]}}, {}]", &few[7..]),
        ),
    ] {
        let keys = format!("{keys}{}", if gateway.is_empty() { String::new() } else { format!("  {gateway}\n") });
        let routes = format!("    - {{path: /*, to: a, {gold}}}\n    - {{path: /*, to: b, {other}}}\n");
        for version in BOTH {
            let lictor = gateway_of(&named(&servers), &keys, &routes);
            let with = |key| ask(&lictor, version, Ask { fields: &[("x-api-key", key)], ..Ask::get("/") }).status;
            let wrong: Vec<u16> = (0..5).map(|_| with("wrong")).collect();
            assert_eq!(wrong, [401, 401, 401, 429, 429], "{version:?} {keys} {routes}");
            assert_eq!(with(KEY), 429, "it is his network that has failed");
        }
    }
}

#[test]
fn explain_and_routes_tell_whose_route_it_is() {
    let servers = servers();
    let routes = "    - {path: /a, to: a, when: {plan: gold}}\n    - {path: /a, to: b, when: {plan: [silver, '\"1\"'], beta: true}}\n    - {path: /a, methods: [PUT], to: c, when: {plan: '*'}}\n    - {path: /a, to: d}\n    - {path: /b, to: a, when: {plan: gold}}\n";
    let lictor = gateway_of(&named(&servers), &jwt(""), routes);
    let table = says(&["routes", "-c", lictor.file().to_str().unwrap()]);
    let plain = table.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in [
        "* /a PUT; when plan = * required c",
        "* /a when plan = silver | \"1\", beta = true required b * /a when plan = gold required a * /a required d",
        "* /b when plan = gold required a",
    ] {
        assert!(plain.contains(row), "{row}: {table}");
    }
    let explain = |target: &str, claimed: &Json| {
        let header = format!("Authorization: Bearer {}", shared(&claims(claimed.clone())));
        let url = format!("http://shop.example{target}");
        let told = says(&["explain", "GET", &url, "-H", &header, "--admin", &lictor.admin()]);
        assert!(!told.contains(&header[15..]), "{told}");
        told
    };
    for (target, claimed, parts) in [
        ("/a", json!({"plan": "gold"}), &["the route /a (when plan = gold), to a", "this is alice, by jwt"][..]),
        ("/a", json!({}), &["the route /a, to d"]),
        ("/b", json!({"plan": "free"}), &["the route /b refuses (jwt): claim: ", "when plan = gold"]),
        ("/b", json!({"plan": ["gold"]}), &["the route /b (when plan = gold), to a"]),
    ] {
        let told = explain(target, &claimed);
        assert!(parts.iter().all(|part| told.contains(part)), "{target} {claimed}: {told}");
    }
}
