//! Reloads that change listeners: whose connection is whose, and what a refused one leaves as it was.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lictor_testkit::{Authority, Backend, RawServer, Sidecar, connect, eventually_is, free_ports, get, read_head};
use rustix::process::Signal;

use crate::LICTOR;

/// An answer on a connection that is kept: its status, its reason and whether it says that it was the last.
fn read_answer(stream: &mut impl Read) -> (u16, String, bool) {
    let head = read_head(stream).to_lowercase();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default().to_owned()
    };
    let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, field("x-lictor-reason"), field("connection") == "close")
}

fn ask(stream: &mut (impl Read + Write), target: &str, more: &str) -> (u16, String, bool) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: users\r\n{more}\r\n").unwrap();
    read_answer(stream)
}

/// Whether the other side ends it; an answer to a request that was on its way is no end.
fn is_ended(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

fn reload(lictor: &Sidecar, yaml: &str) {
    lictor.rewrite(yaml);
    let answer = lictor.post("/reload");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn refused(lictor: &Sidecar, yaml: &str) -> String {
    lictor.rewrite(yaml);
    let answer = lictor.post("/reload");
    assert_eq!(answer.status, 422, "{yaml}: {}", answer.text());
    answer.text()
}

/// A row: a listener, what a reload makes of the configuration, and what a request says that had begun before it.
struct Row<'a> {
    name: &'a str,
    listener: &'a str,
    before: String,
    after: String,
    /// The request's fields.
    fields: &'a str,
    expected: (u16, &'a str, bool),
}

/// Every kind of listener, and all that may change of it.
#[test]
fn a_kept_connection_is_judged_by_the_rules_in_force() {
    let (app, users, authority) = (Backend::start("app"), Backend::start("users"), Authority::new());
    let [port, other] = free_ports();
    let pair = authority.issue("server", &["localhost"]);
    let tls = format!("tls: {{cert: {}, key: {}}}", pair.cert.display(), pair.key.display());
    let own = format!(
        "registration: off\nservice: app\nport: {}\nlifecycle: {{drain_timeout: 30s}}\nupstreams:\n  users: {{static: ['127.0.0.1:{}'], headers: {{set: {{X-Service-Auth: our-own-token}}}}}}\n",
        app.port(),
        users.port()
    );
    let at = |name: &str, listen: &dyn Display| {
        format!("{own}  {name}: {{listen: {listen}, static: ['127.0.0.1:{}']}}\n", users.port())
    };
    let inbound = |more: &str| format!("{own}inbound: {{listen: '127.0.0.1:{port}'{more}}}\n");
    let proxy = |more: &str| format!("{own}outbound: {{proxy: {port}{more}}}\n");
    let gone = (421, "misdirected", true);
    let ending = (200, "", true);
    let stays = (200, "", false);
    let row = |name, listener, before, after, expected| Row { name, listener, before, after, fields: "", expected };
    let token = "X-Service-Auth: token-number-one\r\n";
    let rows = [
        row("inbound is off", "inbound", inbound(""), own.clone(), gone),
        row("the forward proxy instead", "inbound", inbound(""), proxy(""), gone),
        row(
            "inbound elsewhere",
            "inbound",
            inbound(""),
            inbound("").replace(&port.to_string(), &other.to_string()),
            gone,
        ),
        row(
            "inbound wants a token",
            "inbound",
            inbound(""),
            inbound("") + "service_token: token-number-one\n",
            (401, "unauthenticated", true),
        ),
        Row {
            fields: token,
            ..row(
                "its token is in force",
                "inbound",
                inbound(""),
                inbound("") + "service_token: token-number-one\n",
                ending,
            )
        },
        Row {
            fields: token,
            ..row(
                "its token is not in force",
                "inbound",
                inbound("") + "service_token: token-number-one\n",
                inbound("") + "service_token: token-number-two\n",
                (401, "unauthenticated", true),
            )
        },
        row(
            "inbound speaks TLS",
            "inbound",
            inbound(""),
            format!("{own}inbound: {{listen: {{address: '127.0.0.1:{port}', {tls}}}}}\n"),
            gone,
        ),
        row("other limits", "inbound", inbound(""), inbound(", max_in_flight: 7"), ending),
        row(
            "an age",
            "inbound",
            inbound(""),
            format!("{own}inbound: {{listen: {{address: '127.0.0.1:{port}', max_connection_age: 1h}}}}\n"),
            ending,
        ),
        row("something else", "inbound", inbound(""), inbound("") + "log: {level: debug}\n", stays),
        row("the forward proxy is off", "forward", proxy(""), own.clone(), gone),
        row("it is inbound now", "forward", proxy(""), inbound(""), gone),
        row("a shorter list", "forward", proxy(", allow: ['a-*', b]"), proxy(", allow: [b]"), ending),
        row("something else", "forward", proxy(""), proxy("") + "log: {level: debug}\n", stays),
        row(
            "another upstream",
            "forward",
            proxy(""),
            proxy("").replace("outbound:", &format!("  more: {{static: ['127.0.0.1:{}']}}\noutbound:", users.port())),
            stays,
        ),
        row("no listener", "carts", at("carts", &port), own.clone(), gone),
        row(
            "an upstream without one",
            "carts",
            at("carts", &port),
            at("carts", &port).replace(&format!("listen: {port}, "), ""),
            gone,
        ),
        row("another one there", "carts", at("carts", &port), at("more", &port), gone),
        row("elsewhere", "carts", at("carts", &port), at("carts", &other), gone),
        row("TLS", "carts", at("carts", &port), at("carts", &format!("{{address: {port}, {tls}}}")), gone),
        row("another protocol", "carts", at("carts", &port), at("carts", &format!("{port}, protocol: auto")), ending),
        row("another timeout", "carts", at("carts", &port), at("carts", &format!("{port}, timeout: 7s")), stays),
    ];
    for Row { name, listener, before, after, fields, expected } in rows {
        for workers in [1, 3] {
            let with = |yaml: &str| format!("workers: {workers}\n{yaml}");
            let lictor = Sidecar::serve(LICTOR, &with(&before)).up();
            let address = lictor.address(listener);
            let case = format!("{listener}, {workers} workers: {name}");
            let (mut idle, mut busy) = (connect(&address), connect(&address));
            assert_eq!(ask(&mut idle, "http://users/", fields), stays_as(), "{case}");
            // Not idle: half a head.
            write!(busy, "GET http://users/ HTTP/1.1\r\nHost: users\r\n").unwrap();
            assert_eq!(ask(&mut connect(&address), "http://users/", fields).0, 200, "{case}: it was read");
            let hits = users.hits() + app.hits();
            reload(&lictor, &with(&after));
            write!(busy, "{fields}\r\n").unwrap();
            let (status, reason, is_last) = read_answer(&mut busy);
            assert_eq!((status, reason.as_str(), is_last), expected, "{case}");
            if is_last {
                assert!(is_ended(&mut busy) && is_ended(&mut idle), "{case}: both are ended");
                assert_eq!(users.hits() + app.hits(), hits + u64::from(status == 200), "{case}: nobody else has it");
            } else {
                assert_eq!(ask(&mut idle, "http://users/", fields), stays_as(), "{case}: it is kept");
            }
        }
    }
}

fn stays_as() -> (u16, String, bool) {
    (200, String::new(), false)
}

#[test]
fn unix_sockets_are_no_exception() {
    let users = Backend::start("users");
    let path = std::env::temp_dir().join(format!("lictor-listeners-{}.sock", std::process::id()));
    let at = |name: &str, listen: &str| {
        format!("upstreams:\n  {name}: {{{listen}static: ['127.0.0.1:{}']}}\n", users.port())
    };
    let there = format!("'unix:{}'", path.display());
    let listen = format!("listen: {there}, ");
    let proxy = format!("{}outbound: {{proxy: {there}}}\n", at("users", ""));
    for (before, after, is_open) in [
        (at("users", &listen), at("users", ""), false),
        (at("users", &listen), at("carts", &listen), true),
        (at("users", &listen), proxy.clone(), true),
        (proxy.clone(), at("users", ""), false),
        (proxy, at("users", &listen), true),
    ] {
        let with = |yaml: &str| format!("registration: off\n{yaml}");
        let lictor = Sidecar::serve(LICTOR, &with(&before)).up();
        let (mut idle, mut busy) = (UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap());
        assert_eq!(ask(&mut idle, "http://users/", ""), stays_as());
        busy.write_all(b"GET http://users/ HTTP/1.1\r\nHost: users\r\n").unwrap();
        assert_eq!(ask(&mut idle, "http://users/", ""), stays_as(), "it was read");
        reload(&lictor, &with(&after));
        busy.write_all(b"\r\n").unwrap();
        let (status, reason, is_last) = read_answer(&mut busy);
        assert_eq!((status, reason.as_str(), is_last), (421, "misdirected", true), "{after}");
        assert!(is_ended(&mut busy) && is_ended(&mut idle), "{after}");
        assert_eq!(path.exists(), is_open, "{after}");
    }
}

const MARGIN: Duration = Duration::from_secs(10);

/// A WebSocket server that echoes.
fn echo() -> RawServer {
    RawServer::start(|mut stream| {
        if read_head(&mut stream).to_lowercase().contains("upgrade: websocket") {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
            stream.write_all(switch).unwrap();
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
        }
        let mut back = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut back);
    })
}

/// What is carried as bytes, and answers without an end, go on for the grace and not for longer.
#[test]
fn tunnels_of_a_closed_listener_are_cut_after_the_grace() {
    let (echo, bytes) = (echo(), RawServer::echo());
    let upgrade = "GET / HTTP/1.1\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let stream = "GET / HTTP/1.1\r\nHost: users\r\n\r\n";
    let connect_to = "CONNECT bytes:80 HTTP/1.1\r\nHost: bytes:80\r\n\r\n";
    let app = format!("service: app\nport: {}\n", echo.port());
    let upstream = |more: &str| format!("upstreams:\n  users: {{{more}static: ['127.0.0.1:{}']}}\n", echo.port());
    let raw = |more: &str| format!("upstreams:\n  bytes: {{{more}static: ['127.0.0.1:{}']}}\n", bytes.port());
    let inbound = "inbound: {listen: '127.0.0.1:0'}\n";
    let rows = [
        ("inbound", "101", upgrade, format!("{app}{inbound}"), app.clone()),
        (
            "inbound",
            "101",
            upgrade,
            format!("{app}{inbound}"),
            format!("{app}{inbound}service_token: token-number-one\n"),
        ),
        ("inbound", "200", stream, format!("{app}{inbound}"), app),
        ("users", "101", upgrade, upstream("listen: 0, "), upstream("")),
        ("users", "200", stream, upstream("listen: 0, "), upstream("")),
        ("forward", "101", upgrade, format!("{}outbound: {{proxy: 0}}\n", upstream("")), upstream("")),
        ("forward", "200", connect_to, format!("{}outbound: {{proxy: 0}}\n", raw("")), raw("")),
        (
            "forward",
            "200",
            connect_to,
            format!("{}outbound: {{proxy: 0}}\n", raw("")),
            "outbound: {proxy: 0}\n".to_owned(),
        ),
        ("bytes", "", "", raw("listen: 0, protocol: tcp, "), raw("protocol: tcp, ")),
        ("bytes", "", "", raw("listen: 0, protocol: tcp, "), raw("listen: 0, ")),
        (
            "inbound",
            "",
            "",
            format!("service: app\napp: {{port: {}, protocol: tcp}}\n{inbound}", bytes.port()),
            "service: app\n".to_owned(),
        ),
    ];
    for (listener, status, first, before, after) in rows {
        let with = |yaml: &str| format!("registration: off\nlifecycle: {{drain_timeout: 700ms}}\n{yaml}");
        let case = format!("{listener}: {before} -> {after}");
        let lictor = Sidecar::serve(LICTOR, &with(&before)).up();
        let mut client = connect(&lictor.address(listener));
        client.write_all(first.as_bytes()).unwrap();
        if !status.is_empty() {
            let head = read_head(&mut client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{case}: {head}");
        }
        let is_stream = first == stream;
        if is_stream {
            client.read_exact(&mut [0; 14]).unwrap();
        } else {
            client.write_all(b"one").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
        }
        let began = Instant::now();
        reload(&lictor, &with(&after));
        if !is_stream {
            client.write_all(b"two").unwrap();
            client.read_exact(&mut [0; 3]).unwrap_or_else(|error| panic!("{case}: within the grace: {error}"));
        }
        assert!(is_ended(&mut client), "{case}");
        let took = began.elapsed();
        assert!((Duration::from_millis(700)..MARGIN).contains(&took), "{case}: {took:?}");
        let told = || lictor.log().lines().filter(|line| line.contains("\"reason\":\"draining\"")).count();
        eventually_is(&format!("{case}: the log says why"), told, |count| *count >= 1);
    }
}

/// What is carried as bytes is a request like others when the sidecar leaves: it may end by itself, and is waited for.
#[test]
fn tunnels_may_end_when_the_sidecar_leaves() {
    let (echo, bytes) = (echo(), RawServer::echo());
    let upgrade = "GET / HTTP/1.1\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let connect_to = "CONNECT bytes:80 HTTP/1.1\r\nHost: bytes:80\r\n\r\n";
    let yaml = format!(
        "registration: off\nlifecycle: {{drain_delay: 0s, drain_timeout: 60s}}\noutbound: {{proxy: 0}}\nservice: app\nport: {}\ninbound: {{listen: '127.0.0.1:0'}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n  bytes: {{listen: 0, protocol: tcp, static: ['127.0.0.1:{}']}}\n",
        echo.port(),
        echo.port(),
        bytes.port()
    );
    for (listener, first) in [("users", upgrade), ("inbound", upgrade), ("forward", connect_to), ("bytes", "")] {
        let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
        let address = lictor.address(listener);
        let mut client = connect(&address);
        client.write_all(first.as_bytes()).unwrap();
        if !first.is_empty() {
            read_head(&mut client);
        }
        let mut echoes = |case: &str| {
            client.write_all(b"one").unwrap();
            client.read_exact(&mut [0; 3]).unwrap_or_else(|error| panic!("{listener}: {case}: {error}"));
        };
        echoes("before");
        lictor.signal(Signal::TERM);
        eventually_is(
            &format!("{listener} is closed"),
            || TcpStream::connect(&address).is_err(),
            |is_closed| *is_closed,
        );
        echoes("while the sidecar leaves");
        drop(client);
        let began = Instant::now();
        assert!(lictor.wait().success());
        assert!(began.elapsed() < MARGIN, "{listener}: nothing is waited for any more");
    }
}

#[test]
fn http2_connections_of_a_closed_listener_end_in_order() {
    let (app, users) = (Backend::start("app"), Backend::start("users"));
    app.delays(Duration::from_millis(500));
    let own = format!(
        "registration: off\nservice: app\nport: {}\nupstreams:\n  users: {{static: ['127.0.0.1:{}']}}\n",
        app.port(),
        users.port()
    );
    let lictor = Sidecar::serve(LICTOR, &format!("{own}inbound: {{listen: '127.0.0.1:0'}}\n")).up();
    let address = lictor.address("inbound");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let ended = tokio::spawn(connection);
        let request = || http::Request::get("http://users/").body(()).unwrap();
        let (running, _) = sender.send_request(request(), true).unwrap();
        while app.hits() == 0 {
            tokio::task::yield_now().await;
        }
        reload(&lictor, &own);
        // Whether this one is still read or not, the application and the upstream do not see it.
        if let Ok((late, _)) = sender.send_request(request(), true) {
            let _ = late.await.map(|answer| assert_eq!(answer.status(), 421));
        }
        assert_eq!(running.await.unwrap().status(), 200, "what runs is finished");
        tokio::time::timeout(MARGIN, ended).await.expect("and then it is closed").unwrap().unwrap();
    });
    assert_eq!((app.hits(), users.hits()), (1, 0));
}

#[test]
fn a_refused_reload_changes_nothing() {
    let (a, b, authority) = (Backend::start("a"), Backend::start("b"), Authority::new());
    let pair = authority.issue("server", &["localhost"]);
    let tls = format!("tls: {{cert: {}, key: {}}}", pair.cert.display(), pair.key.display());
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let [first, second, third] = free_ports();
    let upstreams = |users: &dyn Display, carts: &dyn Display, more: &str| {
        format!(
            "registration: off\nservice: app\nport: {}\nupstreams:\n  users: {{listen: {users}, static: ['127.0.0.1:{}']}}\n  carts: {{listen: {carts}, static: ['127.0.0.1:{}']}}\n{more}",
            a.port(),
            a.port(),
            b.port()
        )
    };
    let last = |more: &dyn Display| format!("  zed: {{listen: {more}, static: ['127.0.0.1:1']}}\n");
    let fails = last(&taken);
    for workers in [1, 3] {
        let before = format!("workers: {workers}\n{}", upstreams(&first, &second, ""));
        let lictor = Sidecar::serve(LICTOR, &before).up();
        let socket = lictor.path("new.sock");
        let rows = [
            ("a port that is taken", upstreams(&first, &second, &fails)),
            ("instead of one of them", upstreams(&first, &taken, "")),
            ("one goes, one moves", upstreams(&third, &second, &fails).replace("  carts", "  other")),
            ("two change places", upstreams(&second, &first, &fails)),
            ("TLS on a port that stays", upstreams(&format!("{{address: {first}, {tls}}}"), &second, &fails)),
            (
                "certificates that are not there",
                upstreams(&first, &format!("{{address: {second}, tls: {{cert: /no.pem, key: /no.pem}}}}"), ""),
            ),
            (
                "another kind on a port",
                upstreams(&third, &second, &format!("{fails}inbound: {{listen: '127.0.0.1:{first}'}}\n")),
            ),
            (
                "a Unix socket, and then the failure",
                upstreams(&format!("'unix:{}'", socket.display()), &second, &fails),
            ),
            ("a Unix socket in no folder", upstreams(&third, &"'unix:/no/such/folder/s.sock'", "")),
            (
                "a token, and then the failure",
                upstreams(&first, &second, &format!("{fails}service_token: token-number-one\n")),
            ),
        ];
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (mut users, mut carts) = (connect(&at(first)), connect(&at(second)));
        for (name, yaml) in rows {
            let case = format!("{name}, {workers} workers");
            assert_eq!(ask(&mut users, "/", ""), stays_as(), "{case}");
            let made = || lictor.page("/config/changes").to_string().matches("\"type\"").count();
            let before = made();
            refused(&lictor, &format!("workers: {workers}\n{yaml}"));
            assert_eq!(made(), before, "{case}: it made no change");
            assert_eq!(ask(&mut users, "/", ""), stays_as(), "{case}: kept connections");
            assert_eq!(ask(&mut carts, "/", ""), stays_as(), "{case}: kept connections");
            assert_eq!(get(&at(first), "/").unwrap().header("x-backend"), "a", "{case}: new ones");
            assert_eq!(get(&at(second), "/").unwrap().header("x-backend"), "b", "{case}: new ones");
            assert!(TcpStream::connect(at(third)).is_err() && !socket.exists(), "{case}: nothing else is open");
        }
        assert_eq!(lictor.lines("listening").len(), 3, "nothing was opened or announced");
    }
}

#[test]
fn a_listener_at_the_same_address_keeps_its_socket() {
    let (a, b, authority) = (Backend::start("a"), Backend::start("b"), Authority::new());
    let pair = authority.issue("server", &["localhost"]);
    let [first, second] = free_ports();
    for workers in [1, 3] {
        let yaml = |users: &dyn Display, carts: &dyn Display| {
            format!(
                "workers: {workers}\nregistration: off\nupstreams:\n  users: {{listen: {users}, static: ['127.0.0.1:{}']}}\n  carts: {{listen: {carts}, static: ['127.0.0.1:{}']}}\n",
                a.port(),
                b.port()
            )
        };
        let lictor = Sidecar::serve(LICTOR, &yaml(&first, &second)).up();
        let who = |port: u16| get(&format!("127.0.0.1:{port}"), "/").unwrap().header("x-backend").to_owned();
        let sockets = listening(&lictor);
        assert_eq!((who(first), who(second)), ("a".into(), "b".into()));
        reload(&lictor, &yaml(&second, &first));
        assert_eq!((who(first), who(second)), ("b".into(), "a".into()), "the two have changed places");
        assert_eq!(listening(&lictor), sockets, "and no socket was opened for that");
        let tls = format!("{{address: {first}, tls: {{cert: {}, key: {}}}}}", pair.cert.display(), pair.key.display());
        reload(&lictor, &yaml(&tls, &second));
        let mut client =
            authority.client(&format!("127.0.0.1:{first}"), "localhost", &[], &[&rustls::version::TLS13], None);
        assert!(lictor_testkit::get_over(&mut client, "/").unwrap().contains("a GET /"), "TLS is spoken there now");
        reload(&lictor, &yaml(&first, &second));
        assert_eq!((who(first), who(second)), ("a".into(), "b".into()), "and not any more");
        assert_eq!(listening(&lictor), sockets, "nor for that");
        let path = lictor.path("one.sock");
        let unix = format!("'unix:{}'", path.display());
        reload(&lictor, &yaml(&unix, &second));
        assert!(path.exists() && TcpStream::connect(("127.0.0.1", first)).is_err());
        reload(&lictor, &yaml(&first, &unix));
        assert!(path.exists(), "it leads elsewhere, and is the same");
        reload(&lictor, &yaml(&first, &second));
        assert!(!path.exists(), "a closed one leaves nothing behind");
        assert_eq!(listening(&lictor).len(), sockets.len());
    }
}

/// Both are open for a moment, and nobody else is let in beside them.
#[test]
fn a_listener_moves_from_one_address_to_all_and_back() {
    let a = Backend::start("a");
    for workers in [1, 3] {
        let [port] = free_ports();
        let yaml = |listen: &str| {
            format!(
                "workers: {workers}\nregistration: off\nupstreams:\n  users: {{listen: '{listen}:{port}', static: ['127.0.0.1:{}']}}\n",
                a.port()
            )
        };
        let lictor = Sidecar::serve(LICTOR, &yaml("127.0.0.1")).up();
        for listen in ["0.0.0.0", "127.0.0.1", "[::]", "127.0.0.1", "0.0.0.0", "[::]", "127.0.0.1"] {
            reload(&lictor, &yaml(listen));
            for _ in 0..4 {
                let answer = get(&format!("127.0.0.1:{port}"), "/").unwrap();
                assert_eq!(answer.header("x-backend"), "a", "{listen}, {workers} workers");
            }
            let is_open = TcpStream::connect(("127.0.0.2", port)).is_ok();
            assert_eq!(is_open, listen != "127.0.0.1", "{listen}, {workers} workers");
            if listen == "127.0.0.1" {
                let other = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
                refused(&lictor, &yaml("0.0.0.0"));
                assert_eq!(get(&format!("127.0.0.1:{port}"), "/").unwrap().status, 200);
                drop(other);
            }
        }
    }
}

/// Inodes of its listening sockets.
fn listening(lictor: &Sidecar) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", lictor.pid())).unwrap();
    let listening = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(3) == Some(&"0A")).then(|| format!("socket:[{}]", fields[9]))
    });
    let all: Vec<String> = listening.collect();
    let own = std::fs::read_dir(format!("/proc/{}/fd", lictor.pid())).unwrap();
    let own = own.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned));
    let mut own: Vec<String> = own.filter(|target| all.contains(target)).collect();
    own.sort();
    own
}

#[test]
fn a_file_that_says_nothing_takes_nothing_away() {
    let backend = Backend::start("a");
    let yaml =
        format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n", backend.port());
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let address = lictor.address("users");
    let mut kept = connect(&address);
    for nothing in [
        "",
        " \n\n",
        "# only a comment\n",
        "---\n",
        "--- {}\n",
        "{}",
        "null",
        "~\n",
        "registration:\n",
        "registration: off\nupstreams:",
        "upstreams:\n",
    ] {
        let told = refused(&lictor, nothing);
        assert!(told.contains("lictor.yaml"), "{nothing:?}: it names the file: {told}");
        assert_eq!(ask(&mut kept, "/", ""), stays_as(), "{nothing:?}");
        assert_eq!(get(&address, "/").unwrap().status, 200, "{nothing:?}");
    }
    lictor.rewrite("");
    lictor.signal(Signal::HUP);
    eventually_is("the log says why", || lictor.log(), |log| log.matches("config_rejected").count() > 11);
    assert_eq!(ask(&mut kept, "/", ""), stays_as());
    std::fs::remove_file(lictor.file()).unwrap();
    assert_eq!(lictor.post("/reload").status, 422);
    assert_eq!(ask(&mut kept, "/", ""), stays_as());
    // Whoever means it says so.
    reload(&lictor, "registration: off\nupstreams: {}\n");
    assert!(is_ended(&mut kept) && TcpStream::connect(&address).is_err());
}

/// A file that hangs (a disk, in small: a pipe that nobody writes to) or has no end is refused, and holds nothing up.
#[test]
fn a_file_that_hangs_or_never_ends_takes_nothing_away() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\nlifecycle: {{drain_delay: 0s}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
    let address = lictor.address("users");
    let mut kept = connect(&address);
    std::fs::remove_file(lictor.file()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", lictor.file()).unwrap();
    let told = lictor.post("/reload");
    assert!(told.status == 422 && told.text().contains("too long"), "{}", told.text());
    std::fs::remove_file(lictor.file()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(lictor.file()).status().unwrap().success());
    lictor.signal(Signal::HUP);
    for _ in 0..10 {
        assert_eq!(get(&lictor.admin(), "/live").unwrap().status, 200, "nobody waits for it");
        assert_eq!(ask(&mut kept, "/", ""), stays_as());
    }
    eventually_is("the log says why", || lictor.log(), |log| log.contains("a file hangs"));
    let told = lictor.post("/reload");
    assert!(told.status == 422 && told.text().contains("it hangs"), "no second one hangs: {}", told.text());
    assert_eq!(ask(&mut kept, "/", ""), stays_as());
    lictor.signal(Signal::HUP);
    lictor.signal(Signal::TERM);
    assert!(lictor.wait().success(), "and it ends");
}
