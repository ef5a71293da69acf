//! Limits on rates: what they admit, what they tell, whom they take for whom; here, and shared by gateways.

use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_testkit::{
    Consul, RawServer, Sidecar, connect, eventually, eventually_is, free_ports, read_head, request, scratch,
};
use serde_json::{Value as Json, json};

use crate::issuer::{SECRET, claims, shared};
use crate::open::{Kind, Open, echoing};
use crate::wire::{Asked, get};
use crate::{Ask, BOTH, LICTOR, Told, Version, ask, ask_over, echo};

/// A gateway that answers everything itself, with this limit and these further routes and sections.
pub(crate) fn limited(limit: &str, routes: &str, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: edge\n{more}gateway:\n  listen: 127.0.0.1:0\n  limit: {limit}\n  routes:\n{routes}    - {{path: /*, respond: {{body: hello}}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// A field's value: HTTP/2's are literals behind one byte of length.
pub(crate) fn field(told: &Told, version: Version, name: &str) -> Option<String> {
    match version {
        Version::Http1 => crate::field(&told.head, name).map(str::to_owned),
        Version::Http2 => {
            let rest = &told.head[told.head.rfind(name)? + name.len()..];
            let length = usize::from(*rest.as_bytes().first()?);
            rest.get(1..=length).map(str::to_owned)
        }
    }
}

pub(crate) fn statuses(lictor: &Sidecar, version: Version, what: Ask<'_>, times: usize) -> Vec<u16> {
    (0..times).map(|_| ask(lictor, version, what).status).collect()
}

#[test]
fn a_limit_of_so_many_admits_so_many_and_tells_it() {
    for algo in ["token_bucket", "sliding_window", "fixed_window"] {
        for version in BOTH {
            let lictor = limited(&format!("{{rate: 3/1h, by: [header: X-Id], algo: {algo}, fields: both}}"), "", "");
            let by = |id: &'static [(&str, &str)]| Ask { fields: id, ..Ask::get("/") };
            for left in ["2", "1", "0"] {
                let told = ask(&lictor, version, by(&[("x-id", "a")]));
                assert_eq!(told.status, 200, "{algo} {told:?}");
                let of = |name| field(&told, version, name).unwrap_or_default();
                assert_eq!((of("ratelimit-limit"), of("ratelimit-remaining")), ("3".to_owned(), left.to_owned()));
                let reset: u64 = of("ratelimit-reset").parse().unwrap();
                assert!((1..=7200).contains(&reset), "{algo} {told:?}");
                assert_eq!(of("ratelimit"), format!("\"default\";r={left};t={reset}"), "{algo} {told:?}");
                assert_eq!(of("ratelimit-policy"), "\"default\";q=3;w=3600");
            }
            let told = ask(&lictor, version, by(&[("x-id", "a")]));
            assert_eq!(told.status, 429, "{algo}");
            assert!(told.body.contains("\"reason\":\"rate_limited\""), "{told:?}");
            let of = |name| field(&told, version, name).unwrap_or_default();
            assert_eq!((of("ratelimit-limit"), of("ratelimit-remaining")), ("3".to_owned(), "0".to_owned()));
            let refused = get(&lictor, version, Asked::get("/", &[("x-id", "a")]));
            let (wait, reset) = (refused.field("retry-after"), refused.field("ratelimit-reset"));
            assert_eq!((refused.status, &wait), (429, &reset), "{algo} {version:?}: they name one instant");
            // A tenth more, so that not all come at once.
            assert!(wait.parse().is_ok_and(|wait: u64| (1..=2 * 3600).contains(&wait)), "{algo} {version:?} {wait}");
            assert_eq!(ask(&lictor, version, by(&[("x-id", "b")])).status, 200, "{algo}: another key has its own");
            let refused = [("limit", "gateway"), ("decision", "refused")];
            assert!(lictor.metric("lictor_limit_decisions_total", &refused) >= 1.0);
        }
    }
}

#[test]
fn a_limit_tells_by_the_fields_that_are_asked_for() {
    for (fields, is_old, is_new) in
        [("old", true, false), ("new", false, true), ("both", true, true), ("off", false, false)]
    {
        let lictor = limited(&format!("{{rate: 4/1h, by: [], fields: {fields}}}"), "", "");
        for version in BOTH {
            for _ in 0..3 {
                let got = get(&lictor, version, Asked::get("/", &[]));
                let has = |name| got.headers.contains_key(name);
                for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
                    assert_eq!(has(name), is_old, "{fields} {version:?} {name}: {got:?}");
                }
                for name in ["ratelimit", "ratelimit-policy"] {
                    assert_eq!(has(name), is_new, "{fields} {version:?} {name}: {got:?}");
                }
                assert_eq!(has("retry-after"), got.status == 429, "{fields} {version:?}: {got:?}");
            }
        }
        assert_eq!(ask(&lictor, Version::Http1, Ask::get("/")).status, 429, "{fields}: it is in force");
    }
}

/// An answer that is kept was told to another, when more was left.
#[test]
fn a_kept_answer_tells_what_is_left_now() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let one = RawServer::saying(move |_| {
        counted.fetch_add(1, Relaxed);
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\nRateLimit-Limit: 900\r\nRateLimit-Remaining: 900\r\nRateLimit-Reset: 1\r\n\r\nhi"
    });
    let more = format!("upstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n", one.port());
    let routes = "    - {path: /kept, to: one, cache: 60s}\n";
    for version in BOTH {
        let lictor = limited("{rate: 3/1h, by: []}", routes, &more);
        for left in ["2", "1", "0"] {
            let got = get(&lictor, version, Asked::get("/kept", &[]));
            let told = (got.status, got.field("ratelimit-limit"), got.field("ratelimit-remaining"));
            assert_eq!(told, (200, "3".to_owned(), left.to_owned()), "{version:?}: {got:?}");
        }
        assert_eq!(get(&lictor, version, Asked::get("/kept", &[])).status, 429, "{version:?}");
        assert_eq!(asked.swap(0, Relaxed), 1, "{version:?}: the others were kept answers");
    }
}

#[test]
fn an_upgrade_counts_once_whatever_goes_through_it() {
    let one = echoing();
    let more = format!("upstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n", one.port());
    for version in BOTH {
        let lictor = limited("{rate: 3/1h, by: []}", "    - {path: /socket, to: one}\n", &more);
        let mut open = [(); 2].map(|()| {
            Open::ask(&lictor, (Kind::Socket, version), "/socket", None).unwrap_or_else(|told| panic!("{told:?}"))
        });
        (0..5).for_each(|_| open.iter_mut().for_each(Open::talk));
        assert_eq!(statuses(&lictor, version, Ask::get("/"), 2), [200, 429], "{version:?}: two, and one more");
        let refused = Open::ask(&lictor, (Kind::Socket, version), "/socket", None);
        assert!(refused.is_err_and(|told| told.status == 429), "{version:?}");
        open.iter_mut().for_each(Open::talk);
    }
}

#[test]
fn keys_are_what_their_parts_are_and_nothing_is_a_key_too() {
    let lictor = limited("{rate: 1/1h, by: [header: X-A, header: X-B]}", "", "");
    for (version, mark) in [(Version::Http1, "1"), (Version::Http2, "2")] {
        let keys: [&[(&str, &str)]; 9] = [
            &[],
            &[("x-a", "")],
            &[("x-b", "")],
            &[("x-a", "a:b"), ("x-b", "c")],
            &[("x-a", "a"), ("x-b", "b:c")],
            &[("x-a", "a"), ("x-a", "b")],
            &[("x-a", "a,b")],
            &[("x-a", "a"), ("x-b", "b")],
            &[("x-a", "é"), ("x-b", "b")],
        ];
        for fields in keys {
            let marked: Vec<(&str, &str)> = fields.iter().copied().chain([("x-b", mark)]).collect();
            let what = Ask { fields: &marked, ..Ask::get("/") };
            assert_eq!(statuses(&lictor, version, what, 2), [200, 429], "{version:?} {fields:?}");
        }
    }
}

#[test]
fn whoever_is_nobody_shares_what_nobody_has() {
    let lictor = limited("{rate: 2/1h, by: [user, key, claim: sub]}", "", "");
    let told: Vec<u16> = BOTH.iter().flat_map(|version| statuses(&lictor, *version, Ask::get("/"), 2)).collect();
    assert_eq!(told, [200, 200, 429, 429]);
}

/// A gateway that believes the shared secret, and has this limit.
fn known(limit: &str, mode: &str) -> Sidecar {
    let auth = format!("  auth: {{mode: {mode}, jwt: {{secret: {SECRET}}}}}\n");
    let yaml = format!(
        "registration: off\nservice: edge\ngateway:\n  listen: 127.0.0.1:0\n  limit: {limit}\n{auth}  routes: [{{path: /*, respond: {{body: hello}}}}]\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn with_token(lictor: &Sidecar, version: Version, token: &str) -> u16 {
    ask(lictor, version, Ask { fields: &[("authorization", &format!("Bearer {token}"))], ..Ask::get("/") }).status
}

#[test]
fn who_shows_who_he_is_has_a_limit_of_his_own() {
    for (by, same, other) in [
        ("[user]", json!({"sub": "ann", "iss": "a"}), json!({"sub": "bob", "iss": "a"})),
        ("[user]", json!({"sub": "ann", "iss": "a"}), json!({"sub": "ann", "iss": "b"})),
        ("[claim: tenant]", json!({"sub": "ann", "tenant": "1"}), json!({"sub": "ann", "tenant": 1})),
        ("[claim: tenant]", json!({"sub": "ann", "tenant": ["a", "b"]}), json!({"sub": "ann"})),
        ("[route, user, ip]", json!({"sub": "ann"}), json!({"sub": ""})),
    ] {
        let lictor = known(&format!("{{rate: 2/1h, by: {by}}}"), "optional");
        let token = |more: &Json| shared(&claims(more.clone()));
        for version in BOTH {
            // Another token of the same person is the same person.
            let mut again = same.clone();
            again["jti"] = json!(format!("{version:?}"));
            let expected = if version == Version::Http1 { [200, 200] } else { [429, 429] };
            assert_eq!(
                [with_token(&lictor, version, &token(&same)), with_token(&lictor, version, &token(&again))],
                expected
            );
        }
        assert_eq!(with_token(&lictor, Version::Http1, &token(&other)), 200, "{by} {other}");
    }
    // Nobody is somebody too.
    let lictor = known("{rate: 1/1h, by: [user]}", "optional");
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429]);
    assert_eq!(with_token(&lictor, Version::Http2, &shared(&claims(json!({"sub": "ann"})))), 200);
}

#[test]
fn who_fails_too_often_is_not_asked_any_more_who_he_is() {
    let lictor = known("{rate: 3/1h, by: [user]}", "required");
    let good = |name: &str| shared(&claims(json!({"sub": name})));
    for version in BOTH {
        // To show nothing is no failure.
        assert_eq!(statuses(&lictor, version, Ask::get("/"), 4), [401; 4]);
        assert_eq!(with_token(&lictor, version, &good("ann")), 200);
    }
    let failed: Vec<u16> = (0..5).map(|_| with_token(&lictor, Version::Http2, "a.b.c")).collect();
    assert_eq!(failed, [401, 401, 401, 429, 429]);
    assert_eq!(with_token(&lictor, Version::Http1, &good("bob")), 429, "it is his network that has failed");
    // What is counted by the address comes before all that, tokens or none.
    let lictor = known("{rate: 2/1h, by: [ip]}", "required");
    let told: Vec<u16> = (0..4).map(|_| with_token(&lictor, Version::Http1, "a.b.c")).collect();
    assert_eq!(told, [401, 401, 429, 429]);
}

#[test]
fn a_route_has_the_gateways_limit_or_its_own_or_none() {
    let routes = "    - {path: /login, respond: {body: in}, limit: 1/1h}
    - {path: /login, methods: [POST], respond: {body: in}, limit: 1/1h}
    - {path: /free, respond: {body: free}, limit: off}
    - {path: /two, respond: {body: two}, limit: [{rate: 5/1h, by: [header: X-Id]}, {rate: 2/1h, by: []}]}\n";
    let lictor = limited("2/1h", routes, "");
    for (version, id) in [(Version::Http1, "1"), (Version::Http2, "2")] {
        let of = |target, times| statuses(&lictor, version, Ask::get(target), times);
        let is_first = version == Version::Http1;
        assert_eq!(of("/login", 2), if is_first { [200, 429] } else { [429, 429] });
        let post = Ask { method: "POST", ..Ask::get("/login") };
        assert_eq!(statuses(&lictor, version, post, 1), [if is_first { 200 } else { 429 }]);
        assert_eq!(of("/free", 9), [200; 9]);
        // The template of the route, not the path: all of these are one key.
        assert_eq!(of("/a", 1), [if is_first { 200 } else { 429 }]);
        assert_eq!(of("/b", 1), [if is_first { 200 } else { 429 }]);
        assert_eq!(of("/c", 1), [429]);
        let told = ask(&lictor, version, Ask { fields: &[("x-id", id)], ..Ask::get("/two") });
        let remaining = field(&told, version, "ratelimit-remaining");
        let limit = field(&told, version, "ratelimit-limit");
        let nearest = if is_first { "1" } else { "0" };
        assert_eq!((limit.as_deref(), remaining.as_deref()), (Some("2"), Some(nearest)), "{told:?}");
    }
    // What one limit refuses is not counted by the others: all of `by: []` is gone, and each id has its own left.
    for _ in 0..9 {
        assert_eq!(ask(&lictor, Version::Http1, Ask { fields: &[("x-id", "3")], ..Ask::get("/two") }).status, 429);
    }
    let admitted = [("limit", "/two"), ("decision", "admitted")];
    assert!(lictor.metric("lictor_limit_decisions_total", &admitted) >= 4.0);
}

#[test]
fn a_limit_of_the_gateway_without_a_route_in_its_key_is_one_for_all_routes() {
    let routes = "    - {path: /a, respond: {body: a}}\n    - {path: /b, respond: {body: b}}\n";
    let lictor = limited("{rate: 2/1h, by: [ip]}", routes, "");
    for target in ["/a", "/b"] {
        assert_eq!(ask(&lictor, Version::Http1, Ask::get(target)).status, 200);
    }
    for target in ["/a", "/b", "/c"] {
        assert_eq!(ask(&lictor, Version::Http2, Ask::get(target)).status, 429);
    }
}

#[test]
fn a_client_is_who_trusted_proxies_say_and_nobody_else() {
    for (trusted, texts, statuses) in [
        // Forged by a stranger: he himself is the client, whatever he says.
        ("", ["203.0.113.1", "203.0.113.2", ""], [200, 429, 429]),
        ("127.0.0.1", ["203.0.113.1", "203.0.113.2", "203.0.113.1"], [200, 200, 429]),
        // What the client has put before it is his own text.
        ("127.0.0.1", ["203.0.113.9, 203.0.113.1", "203.0.113.8, 203.0.113.1", "203.0.113.1"], [200, 429, 429]),
        (
            "127.0.0.1, 198.51.100.7",
            ["203.0.113.1, 198.51.100.7", "203.0.113.1", "203.0.113.2, 198.51.100.7"],
            [200, 429, 200],
        ),
        ("127.0.0.1", ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"], [200, 429, 200]),
        ("127.0.0.1", ["::ffff:203.0.113.1", "203.0.113.1", "203.0.113.2"], [200, 429, 200]),
    ] {
        for version in BOTH {
            let yaml = format!(
                "registration: off\nservice: edge\ngateway:\n  listen: 127.0.0.1:0\n  trusted_proxies: [{trusted}]\n  limit: {{rate: 1/1h, by: [ip]}}\n  routes: [{{path: /*, respond: {{body: x}}}}]\n"
            );
            let lictor = Sidecar::serve(LICTOR, &yaml).up();
            let told = texts.map(|text| {
                ask(&lictor, version, Ask { fields: &[("x-forwarded-for", text)], ..Ask::get("/") }).status
            });
            assert_eq!(told, statuses, "{version:?} {trusted}: {texts:?}");
        }
    }
}

#[test]
fn a_preflight_is_not_counted_where_it_is_answered_here() {
    let lictor =
        limited("{rate: 1/1h, by: []}\n  cors: {origins: ['https://app.example'], methods: [GET, PUT]}", "", "");
    let fields = [("origin", "https://app.example"), ("access-control-request-method", "PUT")];
    let preflight = Ask { method: "OPTIONS", fields: &fields, ..Ask::get("/") };
    for version in BOTH {
        assert_eq!(statuses(&lictor, version, preflight, 3), [204; 3]);
    }
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429]);
    // A request with this method that is no preflight is one like others.
    assert_eq!(ask(&lictor, Version::Http2, Ask { method: "OPTIONS", ..Ask::get("/") }).status, 429);
}

#[test]
fn a_limit_that_is_not_enforced_counts_and_tells_nothing() {
    let lictor = limited("{rate: 1/1h, by: [], enforce: false}", "", "");
    for version in BOTH {
        for _ in 0..3 {
            let told = ask(&lictor, version, Ask::get("/"));
            assert!(told.status == 200 && !told.head.to_lowercase().contains("ratelimit"), "{told:?}");
        }
    }
    assert!(lictor.metric("lictor_limit_decisions_total", &[("decision", "would_refuse")]) >= 5.0);
}

#[test]
fn who_was_refused_comes_again_when_he_was_told_to() {
    for algo in ["token_bucket", "sliding_window", "fixed_window"] {
        for version in BOTH {
            let lictor = limited(&format!("{{rate: 2/2s, by: [], algo: {algo}}}"), "", "");
            let begin = Instant::now();
            assert_eq!(statuses(&lictor, version, Ask::get("/"), 2), [200, 200]);
            // Nobody stops asking: refused requests are not counted, or nobody would ever come in again.
            let again = eventually(&format!("{algo} {version:?}: it is admitted again"), || {
                let told = ask(&lictor, version, Ask::get("/"));
                if told.status == 200 { Ok(begin.elapsed()) } else { Err(told.status) }
            });
            assert!(again >= Duration::from_millis(900), "{algo} {version:?}: after {again:?}");
        }
    }
}

#[test]
fn an_upstreams_own_fields_pass_only_where_they_are_stricter() {
    let answer = |left: &'static str| {
        RawServer::answering(format!(
            "HTTP/1.1 200 OK\r\nRateLimit-Limit: 9\r\nRateLimit-Remaining: {left}\r\nRateLimit-Reset: 77\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
    };
    let (strict, lax) = (answer("1"), answer("9000"));
    let more = format!(
        "upstreams:\n  strict: {{static: ['127.0.0.1:{}']}}\n  lax: {{static: ['127.0.0.1:{}']}}\n",
        strict.port(),
        lax.port()
    );
    let lictor = limited("1000/1h", "    - {path: /strict, to: strict}\n    - {path: /lax, to: lax}\n", &more);
    for version in BOTH {
        for (target, limit, is_theirs) in [("/strict", "9", true), ("/lax", "1000", false)] {
            let told = ask(&lictor, version, Ask::get(target));
            assert_eq!(told.status, 200, "{told:?}");
            assert_eq!(field(&told, version, "ratelimit-limit").as_deref(), Some(limit), "{target} {told:?}");
            assert_eq!(field(&told, version, "ratelimit-reset").as_deref() == Some("77"), is_theirs, "{target}");
            assert_eq!(told.head.to_lowercase().matches("ratelimit-limit").count(), 1);
        }
    }
}

#[test]
fn a_request_counts_once_however_often_it_is_sent() {
    let broken = RawServer::start(|mut stream| drop(read_head(&mut stream)));
    let refusing =
        RawServer::answering("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let more = format!(
        "upstreams:\n  broken: {{static: ['127.0.0.1:{}'], retry: {{attempts: 3, delays: [1ms]}}, ejection: off, breaker: off}}\n  refusing: {{static: ['127.0.0.1:{}'], retry: {{attempts: 3, delays: [1ms]}}, breaker: {{failure_threshold: 1}}}}\n",
        broken.port(),
        refusing.port()
    );
    let routes = "    - {path: /broken, to: broken}\n    - {path: /refusing, to: refusing}\n";
    let lictor = limited("4/1h", routes, &more);
    let told = statuses(&lictor, Version::Http1, Ask::get("/broken"), 5);
    assert_eq!((told, broken.connections()), (vec![502, 502, 502, 502, 429], 12));
    // Somebody else's refusal passes, is not asked for again, and opens no breaker.
    let told = statuses(&lictor, Version::Http2, Ask::get("/refusing"), 4);
    assert_eq!((told, refusing.connections()), (vec![429; 4], 4));
    assert!(lictor.metric("lictor_breaker_transitions_total", &[]).abs() < 0.5);
}

#[test]
fn a_request_that_is_hedged_counts_once() {
    let silent = [(); 2].map(|()| RawServer::start(|mut stream| while !read_head(&mut stream).is_empty() {}));
    let more = format!(
        "upstreams: {{silent: {{static: ['127.0.0.1:{}', '127.0.0.1:{}'], hedge: {{after: 1ms}}, timeout: 300ms, retry: {{attempts: 1, budget: {{ratio: 100%}}}}, ejection: off, breaker: off}}}}\n",
        silent[0].port(),
        silent[1].port()
    );
    let connections = || silent.iter().map(RawServer::connections).sum::<usize>();
    for version in BOTH {
        let before = connections();
        let lictor = limited("{rate: 3/1h, by: []}", "    - {path: /silent, to: silent}\n", &more);
        assert_eq!(statuses(&lictor, version, Ask::get("/silent"), 4), [504, 504, 504, 429], "{version:?}");
        let calls = connections() - before;
        assert!(calls > 3, "{version:?}: the control: some were sent twice: {calls}");
    }
}

#[test]
fn grpc_is_told_in_its_own_words() {
    let lictor = limited("1/1h", "", "");
    let call = Ask {
        method: "POST",
        fields: &[("content-type", "application/grpc"), ("te", "trailers")],
        ..Ask::get("/shop.Cart/Add")
    };
    assert_eq!(ask(&lictor, Version::Http2, call).status, 200);
    let told = ask(&lictor, Version::Http2, call);
    assert_eq!((told.status, field(&told, Version::Http2, "grpc-status").as_deref()), (200, Some("8")), "{told:?}");
}

#[test]
fn a_changed_limit_is_in_force_at_once_and_one_that_stays_keeps_what_it_counted() {
    let [port] = free_ports();
    let yaml = |limit: &str, more: &str| {
        format!(
            "registration: off\nservice: edge\n{more}gateway:\n  listen: 127.0.0.1:{port}\n  limit: {limit}\n  routes: [{{path: /*, respond: {{body: x}}}}]\n"
        )
    };
    let lictor = Sidecar::serve(LICTOR, &yaml("2/1h", "")).up();
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 3), [200, 200, 429]);
    lictor.rewrite(&yaml("2/1h", "log: {level: warn}\n"));
    assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
    for version in BOTH {
        assert_eq!(ask(&lictor, version, Ask::get("/")).status, 429, "{version:?}: what was counted stays");
    }
    lictor.rewrite(&yaml("3/1h", ""));
    assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
    assert_eq!(statuses(&lictor, Version::Http2, Ask::get("/"), 4), [200, 200, 200, 429]);
}

#[test]
fn a_restart_forgets() {
    let folder = scratch("restart");
    let snapshot = folder.join("snapshot").display().to_string();
    let more = format!("consul: {{snapshot: {{path: '{snapshot}'}}}}\nlifecycle: {{drain_delay: 0s}}\n");
    for version in BOTH {
        let mut lictor = limited("{rate: 1/1h, by: []}", "", &more);
        assert_eq!(statuses(&lictor, version, Ask::get("/"), 2), [200, 429], "{version:?}");
        assert!(lictor.terminate().success());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn inbound_has_limits_too() {
    let app = echo("app");
    let yaml = format!(
        "service: orders\nregistration: off\nport: {}\nservice_token: secret-token\ninbound: {{listen: '127.0.0.1:0', limit: [{{rate: 2/1h, by: [header: X-Id]}}, {{rate: 90/1h, by: [], algo: fixed_window, fields: off}}, {{rate: 90/1h, by: [], burst: 1, enforce: false}}]}}\n",
        app.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let get = |id: &str, more: &[(&str, &str)]| {
        let headers = [&[("X-Service-Auth", "secret-token"), ("X-Id", id)], more].concat();
        request(&lictor.address("inbound"), "GET", "/", &headers, b"").unwrap()
    };
    let told = get("a", &[]);
    assert_eq!((told.status, told.header("ratelimit-limit"), told.header("ratelimit-remaining")), (200, "2", "1"));
    // What is for somebody else is not ours to count.
    for _ in 0..3 {
        assert_eq!(get("a", &[("X-Lictor-To", "carts/1")]).status, 421);
    }
    assert_eq!(get("a", &[]).status, 200);
    let told = get("a", &[]);
    assert_eq!((told.status, told.header("x-lictor-reason")), (429, "rate_limited"));
    assert!(told.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1), "{told:?}");
    assert_eq!(get("b", &[]).status, 200);
    // Those who have no token are counted before they are refused.
    let stranger = || request(&lictor.address("inbound"), "GET", "/", &[("X-Id", "c")], b"").unwrap().status;
    assert_eq!([stranger(), stranger(), stranger()], [401, 401, 429]);
}

#[test]
fn what_makes_no_limit_is_refused_with_its_place() {
    for (limit, says) in [
        ("fast", "is not a rate"),
        ("0/60s", "at least 1"),
        ("10/0s", "from 1s"),
        ("10/9000h", "from 1s"),
        ("5000000/1s", "more than a million a second"),
        ("-1/60s", "at least 1"),
        ("{by: [ip]}", "needs a `rate`"),
        ("{rate: 1/60s, by: [ip, ip]}", "there twice"),
        ("{rate: 1/60s, by: [header: 'a b']}", "not a header name"),
        ("{rate: 1/60s, algo: fixed_window, burst: 5}", "a token bucket's"),
        ("{rate: 1/60s, if_unreachable: refuse}", "about `mode: redis`"),
        ("{rate: 1/60s, mode: redis}", "there is no `redis`"),
        ("{rate: 1/60s, mode: shared}", "not registered"),
        ("[1/60s, 2/60s, 3/60s, 4/60s, 5/60s, 6/60s, 7/60s, 8/60s, 9/60s]", "more than 8 limits"),
    ] {
        let yaml = format!(
            "registration: off\nservice: edge\ngateway:\n  listen: 127.0.0.1:0\n  limit: {limit}\n  routes: [{{path: /*, respond: {{body: x}}}}]\n"
        );
        let file = scratch("limit").join("lictor.yaml");
        std::fs::write(&file, yaml).unwrap();
        let output = Command::new(LICTOR).arg("check").arg("-c").arg(&file).env_clear().output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && told.contains(says) && told.contains("gateway"), "{limit}: {told}");
    }
}

/// What is taken off each request tells nobody apart: a limit that goes by it would be one for all, a route or a variant that
/// asks for it nobody's.
#[test]
fn what_nothing_sees_chooses_nothing() {
    let check = |auth: &str, limit: &str, route: &str| {
        let yaml = format!(
            "registration: off\nservice: edge\nupstreams: {{one: {{static: ['127.0.0.1:9']}}, two: {{static: ['127.0.0.1:9']}}}}\ngateway:\n  listen: 127.0.0.1:0\n  limit: {limit}\n{auth}  routes: [{{path: /x, {route}}}, {{path: /*, respond: {{body: x}}}}]\n"
        );
        let file = scratch("unseen").join("lictor.yaml");
        std::fs::write(&file, yaml).unwrap();
        let output = Command::new(LICTOR).arg("check").arg("-c").arg(&file).env_clear().output().unwrap();
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), told)
    };
    let keys = format!(
        "  auth: {{jwt: {{secret: {SECRET}}}, keys: {{clients: {{a: 'sha256:{}'}}}}, claims_to_headers: {{X-Who: sub}}}}\n",
        "0".repeat(64)
    );
    let plain = "to: one";
    for (auth, limit, route, says) in [
        (&*keys, "{rate: 1/1s, by: [header: X-API-Key]}", plain, "where API keys are"),
        (&keys, "{rate: 1/1s, by: [ip, header: x_api_key]}", plain, "where API keys are"),
        (&keys, "{rate: 1/1s, by: [key, header: X-API-Key]}", plain, "where API keys are"),
        (&keys, "off", "to: one, limit: {rate: 1/1s, by: [header: X-API-Key]}", "where API keys are"),
        (&keys, "off", "to: one, headers: {X-API-Key: '*'}", "where API keys are"),
        (&keys, "off", "split: {one: 1, two: 1}, split_by: {header: X-Api-Key}", "where API keys are"),
        (&keys, "{rate: 1/1s, by: [header: X-Who]}", plain, "once it is known who asks"),
        (&keys, "off", "to: one, headers: {X-Who: ann}", "once it is known who asks"),
        ("", "{rate: 1/1s, by: [header: X-Forwarded-For]}", plain, "anybody could say it"),
        ("", "{rate: 1/1s, by: [header: X-Real-IP]}", plain, "anybody could say it"),
        ("", "[{rate: 1/1s}, {rate: 1/1s, by: [header: X-User-ID]}]", plain, "anybody could say it"),
        ("", "off", "to: one, headers: {X-User-Role: admin}", "anybody could say it"),
        (
            "  trusted_proxies: [127.0.0.1]\n",
            "off",
            "to: one, headers: {X-Forwarded-Proto: https}",
            "anybody could say it",
        ),
        ("", "off", "split: {one: 1, two: 1}, split_by: {header: X-User-Plan}", "anybody could say it"),
    ] {
        let (is_good, told) = check(auth, limit, route);
        assert!(!is_good && told.contains(says), "{limit} {route}: {told}");
    }
    for (auth, limit, route) in [
        (&*keys, "{rate: 1/1s, by: [key, header: X-Tenant]}", "to: one, headers: {X-Tenant: '*'}"),
        (&keys, "{rate: 1/1s, by: [user, header: X-Who]}", "split: {one: 1, two: 1}, split_by: {header: X-Who}"),
        ("", "{rate: 1/1s, by: [header: X-API-Key]}", "to: one, headers: {X-API-Key: '*'}"),
        (
            "  trusted_proxies: [127.0.0.1]\n",
            "{rate: 1/1s, by: [header: X-Forwarded-For]}",
            "to: one, headers: {X-Forwarded-Host: a}",
        ),
        ("  forwarded: true\n", "{rate: 1/1s, by: [header: Forwarded]}", plain),
    ] {
        let (is_good, told) = check(auth, limit, route);
        assert!(is_good, "the control: {limit} {route}: {told}");
    }
}

/// Asks with this many keys that nobody has had, on one connection, and counts who is admitted.
fn flood(lictor: &Sidecar, keys: u32, line_of: impl Fn(u32) -> String + Send + 'static) -> u32 {
    let mut stream = connect(&lictor.address("gateway"));
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        for batch in (0..keys).collect::<Vec<_>>().chunks(50) {
            let ask = |key: &u32| format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{}\r\n\r\n", line_of(*key));
            stream.write_all(batch.iter().map(ask).collect::<String>().as_bytes()).unwrap();
        }
        stream
    });
    let (mut admitted, mut line) = (0, String::new());
    let mut heads = 0;
    while heads < keys && reader.read_line(&mut line).unwrap() > 0 {
        heads += u32::from(line.contains("HTTP/1.1 "));
        admitted += u32::from(line.contains("HTTP/1.1 200"));
        line.clear();
    }
    drop(writer.join());
    admitted
}

#[test]
fn a_flood_of_keys_costs_bounded_memory_and_makes_nobody_be_forgotten() {
    let keys = flooding();
    let lictor = limited("{rate: 2/1h, by: [header: X-Id]}", "", "workers: 1\nlog: {access: off}\n");
    let known = Ask { fields: &[("x-id", "me")], ..Ask::get("/") };
    assert_eq!(statuses(&lictor, Version::Http1, known, 3), [200, 200, 429]);
    let before = lictor.resident();
    let admitted = flood(&lictor, keys, |key| format!("X-Id: key-{key}"));
    assert_bounded("header", keys, admitted, lictor.resident().saturating_sub(before));
    assert_eq!(ask(&lictor, Version::Http1, known).status, 429, "who was counted before still is");
}

/// Whoever may sign in can have as many names as he makes, and each token is verified and kept for a while besides.
#[test]
fn a_flood_of_keys_of_users_who_are_believed_is_bounded_too() {
    let keys = flooding() / 4;
    for by in ["[user]", "[claim: tenant]", "[route, ip, user]"] {
        let auth = format!("  auth: {{jwt: {{secret: {SECRET}}}}}\n");
        let yaml = format!(
            "registration: off\nservice: edge\nworkers: 1\nlog: {{access: off}}\ngateway:\n  listen: 127.0.0.1:0\n  limit: {{rate: 2/1h, by: {by}}}\n{auth}  routes: [{{path: /*, respond: {{body: hello}}}}]\n"
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let of = |name: &str| shared(&claims(json!({"sub": name, "tenant": name})));
        let known = of("me");
        let me = || with_token(&lictor, Version::Http1, &known);
        assert_eq!([me(), me(), me()], [200, 200, 429], "{by}");
        let before = lictor.resident();
        let admitted = flood(&lictor, keys, move |key| format!("Authorization: Bearer {}", of(&format!("user-{key}"))));
        assert_bounded(by, keys, admitted, lictor.resident().saturating_sub(before));
        assert_eq!(me(), 429, "{by}: who was counted before still is");
        assert_eq!(with_token(&lictor, Version::Http2, &known), 429, "{by}");
    }
}

/// How many keys; `LICTOR_TEST_KEYS` says more than a test that runs each time has.
fn flooding() -> u32 {
    std::env::var("LICTOR_TEST_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(40_000)
}

fn assert_bounded(by: &str, keys: u32, admitted: u32, grown: u64) {
    eprintln!("{by}: {keys} keys: {admitted} admitted, {} MiB more", grown >> 20);
    assert!(f64::from(admitted) > 0.99 * f64::from(keys), "{by}: {admitted} of {keys}");
    assert!(grown < 64 << 20, "{by}: {} MiB for {keys} keys", grown >> 20);
}

/// Asks as fast as it can for a while; how many were admitted, and whatever was neither 200 nor 429.
fn press(lictor: &str, version: Version, time: Duration) -> (u32, Vec<u16>) {
    let (mut admitted, mut others) = (0, Vec::new());
    let end = Instant::now() + time;
    while Instant::now() < end {
        match ask_over(connect(lictor), version, Ask::get("/")).status {
            200 => admitted += 1,
            429 => (),
            other => others.push(other),
        }
    }
    (admitted, others)
}

/// Two gateways under load from several clients each: how many they admit together, and in what time.
pub(crate) fn press_both(gateways: &[Sidecar; 2], version: Version, time: Duration) -> (u32, Duration) {
    let begin = Instant::now();
    let threads: Vec<_> = gateways
        .iter()
        .flat_map(|gateway| [gateway.address("gateway"), gateway.address("gateway")])
        .map(|address| std::thread::spawn(move || press(&address, version, time)))
        .collect();
    let mut all = 0;
    for thread in threads {
        let (admitted, others) = thread.join().unwrap();
        assert_eq!(others, Vec::<u16>::new(), "only 200 and 429");
        all += admitted;
    }
    (all, begin.elapsed())
}

/// Whether so many in that time are what the rate says, within a twentieth: a second's worth at once, and then so many a
/// second.
pub(crate) fn assert_rate(admitted: u32, per_second: f64, time: Duration) {
    let expected = per_second * (1.0 + time.as_secs_f64());
    let ratio = f64::from(admitted) / expected;
    assert!((0.95..=1.05).contains(&ratio), "{admitted} admitted in {time:?}, {expected:.0} expected");
}

#[test]
fn two_gateways_admit_together_what_is_shared() {
    let consul = Consul::dev();
    let gateway = |id: u16| {
        let [port] = free_ports();
        let yaml = format!(
            "service: edge\nconsul: {{address: '{}'}}\nregistration: {{id: edge-{id}, address: 127.0.0.1, checks: []}}\ngateway:\n  listen: 127.0.0.1:{port}\n  limit: {{rate: 40/1s, by: [], mode: shared}}\n  routes: [{{path: /*, respond: {{body: x}}}}]\n",
            consul.url()
        );
        Sidecar::serve(LICTOR, &yaml).up()
    };
    let parts = |lictor: &Sidecar| lictor.metric("lictor_limit_gateways", &[]);
    let first = gateway(1);
    eventually_is("it is alone", || consul.passing("edge").len(), |count| *count == 1);
    let both = [first, gateway(2)];
    for gateway in &both {
        eventually_is("there are two", || parts(gateway), |parts| (*parts - 2.0).abs() < 0.1);
    }
    let (admitted, time) = press_both(&both, Version::Http1, Duration::from_secs(4));
    assert_rate(admitted, 40.0, time);
    // One more that is not well does not count, one that is does; nobody begins anew for that.
    consul.register("edge", "edge-3", 1);
    for gateway in &both {
        eventually_is("there are three", || parts(gateway), |parts| (*parts - 3.0).abs() < 0.1);
    }
    let (admitted, time) = press_both(&both, Version::Http2, Duration::from_secs(2));
    // What was counted stays: it is not known how much of a second's worth is there at once.
    let (least, most) = (26.0 * 2.0 * 0.9, 26.0 * (1.0 + time.as_secs_f64()) * 1.05);
    assert!((least..=most).contains(&f64::from(admitted)), "{admitted} in {time:?}: two thirds of 40 a second");
    // It is gone, and only when it stays so is its part divided anew.
    consul.deregister("edge-3");
    let begin = Instant::now();
    eventually_is("there are two again", || parts(&both[0]), |parts| (*parts - 2.0).abs() < 0.1);
    assert!(begin.elapsed() > Duration::from_secs(5), "after {:?}", begin.elapsed());
}
