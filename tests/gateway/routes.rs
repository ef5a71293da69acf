//! Which route a request is for, and what that does with it.

use std::sync::Arc;
use std::time::Duration;

use lictor_testkit::{Blackhole, RawServer, Sidecar, eventually_is, read_head};
use parking_lot::RwLock;

use crate::wire::{Asked, get};
use crate::{
    Ask, BOTH, LICTOR, Version, ask, begun_http2, block, configuration, echo, echo_once, frame, gateway, gateway_with,
    line_of, says, told_http2, told_on,
};

#[test]
fn the_most_specific_route_is_the_one() {
    let servers: Vec<(&str, RawServer)> =
        ["a", "b", "c", "d", "e", "f", "g"].into_iter().map(|name| (name, echo(name))).collect();
    let servers: Vec<(&str, &RawServer)> = servers.iter().map(|(name, server)| (*name, server)).collect();
    let rows = [
        "  - {path: /*, to: a}\n",
        "  - {path: /users/*, to: b}\n",
        "  - {path: '/users/{id}', to: c}\n",
        "  - {path: /users/me, to: d}\n",
        "  - {path: '/users/{id}', methods: [DELETE, PUT], to: e}\n",
        "  - {path: '/users/{id}', headers: {X-Canary: 1}, to: f}\n",
        "  - {path: '/users/{id}', query: {v: '*'}, to: g}\n",
    ];
    let backwards: Vec<&str> = rows.iter().rev().copied().collect();
    for rows in [rows.concat(), backwards.concat()] {
        let lictor = gateway(&servers, &rows);
        for version in BOTH {
            let canary = [("x-canary", "1")];
            let twice = [("x-canary", "1"), ("x-canary", "1")];
            let with = |method, target, fields| ask(&lictor, version, Ask { method, fields, ..Ask::get(target) });
            for (method, target, fields, server) in [
                ("GET", "/", &[][..], "a"),
                ("GET", "/usersx", &[], "a"),
                ("GET", "/users", &[], "b"),
                ("GET", "/users/1/orders", &[], "b"),
                ("GET", "/users/1", &[], "c"),
                ("DELETE", "/users/1", &[], "e"),
                ("GET", "/users/me", &[], "d"),
                ("DELETE", "/users/me", &canary, "d"),
                ("GET", "/users/1", &canary, "f"),
                ("GET", "/users/1", &twice, "c"),
                ("GET", "/users/1?v", &[], "g"),
                ("GET", "/users/1?w=v", &[], "c"),
            ] {
                assert_eq!(with(method, target, fields).server(), server, "{version:?} {method} {target} {fields:?}");
            }
        }
    }
}

#[test]
fn a_route_redirects_or_answers_by_itself() {
    let one = echo("one");
    let routes = "  - {path: /old/*, redirect: /new/*}
  - {path: '/shop/{id}', redirect: {to: 'https://shop.example/items/{id}', status: 302}}
  - {path: /away/*, redirect: 'https://other.example'}
  - {path: /ping, respond: {body: pong, content_type: text/plain}}
  - {path: /gone/*, respond: {status: 410, body: ''}}
  - {path: /*, to: one}\n";
    let lictor = gateway(&[("one", &one)], routes);
    for (target, status, location) in [
        ("/old/a?b=c", 308, "/new/a?b=c"),
        ("/old//evil.example/x", 308, "/new/evil.example/x"),
        ("/old", 308, "/new"),
        ("/shop/7", 302, "https://shop.example/items/7"),
        ("/away/a/b?c", 308, "https://other.example/away/a/b?c"),
        ("/old/\\evil.example", 400, ""),
        ("/old/%2fevil.example", 400, ""),
        ("/old/%0d%0aX-A:b", 400, ""),
    ] {
        for version in BOTH {
            let got = get(&lictor, version, Asked::get(target, &[]));
            assert_eq!((got.status, &*got.field("location")), (status, location), "{version:?} {target}: {got:?}");
        }
    }
    for version in BOTH {
        let ping = ask(&lictor, version, Ask::get("/ping"));
        assert_eq!((ping.status, &*ping.body), (200, "pong"));
        let head = ask(&lictor, version, Ask { method: "HEAD", ..Ask::get("/ping") });
        assert_eq!((head.status, &*head.body), (200, ""));
        assert_eq!(ask(&lictor, version, Ask::get("/gone/x")).status, 410);
    }
    let told = ask(&lictor, Version::Http1, Ask { method: "HEAD", ..Ask::get("/ping") });
    assert!(told.head.to_lowercase().contains("content-length: 4"), "{told:?}");
    let line = line_of(&lictor, |line| line["path"] == "/ping");
    assert_eq!((line["route"].as_str(), line["upstream"].as_str()), (Some("/ping"), None), "{line}");
    assert_eq!(one.connections(), 0);
}

/// A server that breaks off each connection after its request.
fn broken() -> RawServer {
    RawServer::start(|mut stream| drop(read_head(&mut stream)))
}

#[test]
fn a_route_has_a_policy_of_its_own_and_else_its_upstreams() {
    let (broken, silent) = (broken(), RawServer::start(|mut stream| while !read_head(&mut stream).is_empty() {}));
    let more = format!(
        "  broken: {{static: ['127.0.0.1:{}'], retry: {{delays: [1ms]}}, ejection: off, breaker: off,
    routes: [{{match: POST /safe, idempotent: true}}]}}\n",
        broken.port()
    );
    let routes = "  - {path: /default, to: broken}
  - {path: /never, to: broken, retry: off}
  - {path: /twice, to: broken, retry: {attempts: 2}}
  - {path: /harmless, methods: [POST], to: broken, idempotent: true}
  - {path: /api/*, to: broken, strip: /api}
  - {path: /silent, to: silent, timeout: 100ms}\n";
    let lictor = gateway_with(&[("silent", &silent)], &more, routes);
    for version in BOTH {
        for (method, target, times) in [
            ("GET", "/default", 3),
            ("GET", "/never", 1),
            ("GET", "/twice", 2),
            ("POST", "/harmless", 3),
            ("POST", "/api/other", 1),
            // What the upstream's own routes say counts for what goes on.
            ("POST", "/api/safe", 3),
        ] {
            let before = broken.connections();
            let told = ask(&lictor, version, Ask { method, ..Ask::get(target) });
            assert_eq!((told.status, broken.connections() - before), (502, times), "{version:?} {target}: {told:?}");
        }
        let started = std::time::Instant::now();
        assert_eq!(ask(&lictor, version, Ask::get("/silent")).status, 504, "{version:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "not the 30 s of the upstream");
    }
    // The route's template is the label, whatever the path that goes on.
    let counted = |route| lictor.metric("lictor_upstream_requests_total", &[("upstream", "broken"), ("route", route)]);
    eventually_is("requests are counted by their route", || counted("/api/*"), |count| (*count - 4.0).abs() < 0.1);
    assert!((counted("/default") - 2.0).abs() < 0.1 && counted("/safe") < 0.1);
    let line = line_of(&lictor, |line| line["path"] == "/api/safe");
    assert_eq!((line["route"].as_str(), line["upstream"].as_str()), (Some("/api/*"), Some("broken")), "{line}");
}

#[test]
fn a_route_is_as_patient_as_it_says() {
    let (hole, silent) = (Blackhole::new(), RawServer::start(|mut stream| while !read_head(&mut stream).is_empty() {}));
    let events = RawServer::saying(
        |_| "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n",
    );
    let patient =
        "connect_timeout: 25s, per_try_timeout: 25s, idle_timeout: 1h, retry: off, ejection: off, breaker: off";
    let upstream = |(name, port): (&str, u16)| format!("  {name}: {{static: ['127.0.0.1:{port}'], {patient}}}\n");
    let more = [("hole", hole.port()), ("silent", silent.port()), ("events", events.port())].map(upstream).concat();
    let routes = "  - {path: /connect, to: hole, connect_timeout: 100ms}
  - {path: /try, to: silent, per_try_timeout: 100ms}
  - {path: /idle, to: events, idle_timeout: 200ms}\n";
    let lictor = gateway_with(&[], &more, routes);
    for version in BOTH {
        for (target, status, says) in [
            ("/connect", 504, "\"reason\":\"connect_timeout\""),
            ("/try", 504, "\"reason\":\"per_try_timeout\""),
            ("/idle", 200, "data: 1"),
        ] {
            let began = std::time::Instant::now();
            let told = ask(&lictor, version, Ask::get(target));
            assert!(told.status == status && told.body.contains(says), "{version:?} {target}: {told:?}");
            assert!(began.elapsed() < Duration::from_secs(15), "{version:?} {target}: after {:?}", began.elapsed());
        }
    }
}

fn reload(lictor: &Sidecar, yaml: &str) -> u16 {
    lictor.rewrite(yaml);
    lictor.post("/reload").status
}

#[test]
fn a_reload_swaps_all_routes_at_once_or_none() {
    let (one, two) = (echo("one"), echo("two"));
    let servers = [("one", &one), ("two", &two)];
    let with = |routes: &str| {
        configuration(&servers, "", "", routes).replace("listen: 127.0.0.1:0", "listen: {address: 127.0.0.1:0}")
    };
    let lictor = Sidecar::serve(LICTOR, &with("  - {path: /a, to: one}\n")).up();
    let server = |target| {
        let [told, other] = BOTH.map(|version| ask(&lictor, version, Ask::get(target)).server().to_owned());
        if told == other { told } else { format!("{told}, {other} over HTTP/2") }
    };
    assert_eq!((server("/a"), server("/b")), ("one".to_owned(), String::new()));
    // A connection that is open sees the new routes too.
    let mut kept = lictor_testkit::connect(&lictor.address("gateway"));
    let mut on_kept = |target: &str| {
        use std::io::Write;
        write!(kept, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        told_on(&mut kept).server().to_owned()
    };
    let mut kept_http2 = lictor_testkit::connect(&lictor.address("gateway"));
    std::io::Write::write_all(&mut kept_http2, &begun_http2()).unwrap();
    let mut on_kept_http2 = |id: u32, target: &str| {
        let asked = frame(1, 5, id, &block(Ask::get(target)));
        std::io::Write::write_all(&mut kept_http2, &asked).unwrap();
        told_http2(&mut kept_http2).server().to_owned()
    };
    assert_eq!((on_kept("/a"), on_kept_http2(1, "/a")), ("one".to_owned(), "one".to_owned()));
    let address = lictor.address("gateway");
    assert_eq!(reload(&lictor, &with("  - {path: /a, to: two}\n  - {path: /b, to: one, retry: off}\n")), 200);
    eventually_is("the new routes are in force", || server("/a"), |server| server == "two");
    assert_eq!((server("/b"), lictor.address("gateway")), ("one".to_owned(), address), "the listener stays");
    assert_eq!((on_kept("/a"), on_kept_http2(3, "/a")), ("two".to_owned(), "two".to_owned()));
    assert_eq!(on_kept_http2(5, "/b"), "one");
    let clashing = with("  - {path: /a, to: one}\n  - {path: /a, to: two}\n");
    assert!(reload(&lictor, &clashing) >= 400);
    assert_eq!((server("/a"), server("/b")), ("two".to_owned(), "one".to_owned()), "all or nothing");
}

#[test]
fn explain_and_routes_tell_the_route() {
    let one = echo("one");
    let routes = "  - {host: shop.example, path: '/api/users/{id}', methods: [GET], to: one, rewrite: '/users/{id}'}
  - {path: /old/*, redirect: /new/*}
  - {path: /*, to: one}\n";
    let lictor = gateway(&[("one", &one)], routes);
    let explain = |url: &str| says(&["explain", "GET", url, "--admin", &lictor.admin()]);
    let told = explain("https://SHOP.example:443/api/./users/1?x");
    assert!(told.contains("the route shop.example/api/users/{id}, to one as /users/1?x"), "{told}");
    let told = explain("https://other.example/api/users/1");
    assert!(told.contains("the route /*, to one as /api/users/1"), "{told}");
    let told = explain("https://other.example/old/a");
    assert!(told.contains("answers by itself") && told.contains("/new/a"), "{told}");
    let told = explain("https://other.example/a%2fb");
    assert!(told.contains("encoded slash"), "{told}");
    let table = says(&["routes", "-c", lictor.file().to_str().unwrap()]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[1].starts_with("shop.example") && lines[1].contains("GET") && lines[1].ends_with("one, as /users/{3}"),
        "{table}"
    );
    assert!(lines[2].contains("/old/*") && lines[2].contains("308"), "{table}");
    assert!(lines[3].starts_with('*') && lines[3].ends_with("one"), "{table}");
}

#[test]
fn a_route_says_who_goes_first_where_not_all_can() {
    for version in BOTH {
        let gate = Arc::new(RwLock::new(()));
        let (shut, door) = (gate.write(), Arc::clone(&gate));
        let slow = RawServer::saying(move |_| {
            drop(door.read());
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslow\n"
        });
        let yaml = format!(
            "registration: off\ngateway: {{listen: 127.0.0.1:0, routes: [{{path: /*, to: slow}}, {{path: /high, to: slow, priority: high}}, {{path: /low, to: slow, priority: low}}]}}\nupstreams: {{slow: {{static: ['127.0.0.1:{}'], limits: {{max_in_flight: 1, max_pending: 1, pending_timeout: 20s}}}}}}\n",
            slow.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let status = |target| ask(&lictor, version, Ask::get(target)).status;
        let pending = || lictor.metric("lictor_upstream_pending", &[("upstream", "slow")]);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| status("/"));
            slow.await_connections(1);
            let low = scope.spawn(|| status("/low"));
            eventually_is("one waits", pending, |pending| *pending > 0.5);
            let high = scope.spawn(|| status("/high"));
            assert_eq!(low.join().unwrap(), 503, "it has to go");
            assert_eq!(status("/low"), 503, "nobody who waits is less important");
            drop(shut);
            assert_eq!([running, high].map(|asked| asked.join().unwrap()), [200, 200]);
        });
    }
}

#[test]
fn an_upgrade_passes_on_the_route_that_get_has() {
    use std::io::{Read, Write};
    let echoing = RawServer::start(|mut stream| {
        let head = read_head(&mut stream);
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\nX-Lictor-Inner: 1\r\n\r\n";
        let _ = stream.write_all(format!("{answer}{target} ").as_bytes());
        let mut bytes = [0; 5];
        let _ = stream.read_exact(&mut bytes).and_then(|()| stream.write_all(&bytes));
    });
    let lictor = gateway(&[("echoing", &echoing)], "  - {path: /chat/*, methods: [GET], to: echoing, strip: /chat}\n");
    let upgrade = |target: &str| {
        let mut stream = lictor_testkit::connect(&lictor.address("gateway"));
        write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").unwrap();
        let head = read_head(&mut stream);
        (stream, head)
    };
    let (mut stream, head) = upgrade("/x/../chat/room");
    assert!(head.starts_with("HTTP/1.1 101") && !head.to_lowercase().contains("x-lictor"), "{head}");
    stream.write_all(b"hello").unwrap();
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, *b"/room hello");
    let (_, head) = upgrade("/other");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

/// What HTTP came in again would be asked past every route.
#[test]
fn no_route_leads_to_another_http() {
    let one = echo_once("one");
    let lictor = gateway(&[("one", &one)], "  - {path: /public, to: one, retry: off}\n");
    for version in BOTH {
        for (protocol, is_one) in [("websocket", true), ("h2c", false), ("H2C", false), ("websocket, h2c", false)] {
            let before = one.connections();
            let told = match version {
                Version::Http1 => {
                    let text = format!(
                        "GET /public HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
                    );
                    let mut stream = lictor_testkit::connect(&lictor.address("gateway"));
                    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
                    told_on(&mut stream)
                }
                Version::Http2 => {
                    let fields = [(":protocol", protocol), ("http2-settings", "AAMAAABkAAQAAP__")];
                    ask(&lictor, version, Ask { method: "CONNECT", fields: &fields, ..Ask::get("/public") })
                }
            };
            let what = format!("{version:?} {protocol}: {told:?}");
            // That server switches to nothing: to a client that may only be told so or no, it is a failure.
            let (status, asked) = match (version, is_one) {
                (Version::Http1, _) => (200, 1),
                (Version::Http2, true) => (502, 1),
                (Version::Http2, false) => (0, 0),
            };
            assert_eq!((told.status, one.connections() - before), (status, asked), "{what}");
            let seen = told.body.to_lowercase();
            assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{what}");
            assert_eq!(seen.contains("upgrade: websocket"), version == Version::Http1 && is_one, "{what}");
        }
    }
}
