//! What becomes of a head on its way: fields that mean nothing, that are lictor's, that are set, and whom a request is for.

use lictor_testkit::{Answer, Backend, RawServer, Sidecar, eventually_is, exchange, free_ports};

use crate::{LICTOR, caller};

/// One request with these lines, on a connection of its own.
fn ask(address: &str, line: &str, fields: &str) -> Answer {
    let head = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    exchange(address, head.as_bytes()).unwrap_or_else(|error| panic!("{head}: {error}"))
}

/// What the backend was told in the fields of this name, in order.
fn told(answer: &Answer, name: &str) -> Vec<String> {
    let text = answer.text();
    text.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned).collect()
}

/// RFC 9110, section 7.6.1, and what is sent without a value: neither says anything to lictor.
#[test]
fn what_connection_names_or_what_is_empty_means_nothing() {
    let [gone] = free_ports();
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller(&[backend.port()], ", breaker: off, ejection: off, timeout: 9s");
    let users = lictor.address("users");
    let hits = |line: &str, fields: &str| {
        let before = backend.hits();
        ask(&users, line, &format!("Host: users\r\nContent-Length: 0\r\n{fields}"));
        backend.hits() - before
    };
    assert_eq!(hits("POST /", "Idempotency-Key: a\r\n"), 3, "a key makes it safe to repeat");
    for fields in [
        "Idempotency-Key:\r\n",
        "Idempotency-Key: \t\r\n",
        "Idempotency-Key: a\r\nConnection: Idempotency-Key\r\n",
        "idempotency-key: a\r\nConnection: keep-alive, IDEMPOTENCY-key\r\n",
    ] {
        assert_eq!(hits("POST /", fields), 1, "{fields}");
    }
    assert_eq!(hits("POST /", "Idempotency-Key:\r\nIdempotency-Key: a\r\n"), 3, "an empty line hides no other");
    assert_eq!(hits("GET /", "X-Lictor-Retry: off\r\n"), 1);
    for fields in ["X-Lictor-Retry: off\r\nConnection: X-Lictor-Retry\r\n", "X-Lictor-Retry:\r\n"] {
        assert_eq!(hits("GET /", fields), 3, "{fields}");
    }

    backend.answers(200);
    let id = |fields: &str| {
        let answer = ask(&users, "GET /", &format!("Host: users\r\n{fields}"));
        let [sent] = &told(&answer, "x-request-id")[..] else { panic!("{}", answer.text()) };
        assert_eq!(answer.header("x-request-id"), sent);
        sent.clone()
    };
    assert_eq!(id("X-Request-ID: mine\r\n"), "mine");
    for fields in ["X-Request-ID:\r\n", "X-Request-ID: mine\r\nConnection: x-request-id\r\n"] {
        let (one, two) = (id(fields), id(fields));
        assert!(one.len() == 36 && two.len() == 36 && one != two, "{fields}: {one}, {two}");
    }
    let ignored = "X-Request-Timeout-Ms: 0\r\nConnection: X-Request-Timeout-Ms\r\n";
    assert_eq!(ask(&users, "GET /", &format!("Host: users\r\n{ignored}")).status, 200, "no deadline");
    assert_eq!(ask(&users, "GET /", "Host: users\r\nX-Request-Timeout-Ms: 0\r\n").status, 504);
    let answer = ask(&users, "GET /", "Host: a\r\nX-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(
        (told(&answer, "x-forwarded-host"), told(&answer, "x-forwarded-proto")),
        (vec!["b".into()], vec!["https".into()])
    );
    for fields in [
        "X-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\nConnection: X-Forwarded-Host, X-Forwarded-Proto\r\n",
        "X-Forwarded-Host:\r\nX-Forwarded-Proto:\r\n",
    ] {
        let answer = ask(&users, "GET /", &format!("Host: a\r\n{fields}"));
        let said = (told(&answer, "x-forwarded-host"), told(&answer, "x-forwarded-proto"));
        assert_eq!(said, (vec!["a".into()], vec!["http".into()]), "{fields}");
    }

    let yaml = format!(
        "service: users\nport: {}\nregistration: off\ninbound: {{listen: '127.0.0.1:0'}}\nservice_token: s3cret-token\n\
         trace: {{otlp: 'http://127.0.0.1:{gone}'}}\n",
        backend.port()
    );
    let callee = Sidecar::serve(LICTOR, &yaml).up();
    let inbound = |fields: &str| ask(&callee.address("inbound"), "GET /", &format!("Host: users\r\n{fields}")).status;
    let token = "X-Service-Auth: s3cret-token\r\n";
    assert_eq!(inbound(token), 200);
    assert_eq!(inbound(&format!("{token}Connection: X-Service-Auth\r\n")), 401);
    assert_eq!(inbound(&format!("{token}X-Lictor-To: carts/1\r\n")), 421);
    assert_eq!(inbound(&format!("{token}X-Lictor-To: carts/1\r\nConnection: X-Lictor-To\r\n")), 200);
    assert_eq!(inbound(&format!("{token}X-Lictor-To:\r\n")), 200);
    assert_eq!(inbound(&format!("{token}X-Lictor-To: USERS/1\r\n")), 200, "a service has its name in any case");
}

/// What an answer's `Connection` names is not obeyed either.
#[test]
fn what_an_answers_connection_names_means_nothing() {
    for (named, is_drained) in [("", true), ("Connection: X-Lictor-Draining\r\n", false)] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Lictor-Draining: 1\r\n{named}\r\n");
        let server = RawServer::answering(head);
        let lictor = caller(&[server.port()], "");
        assert_eq!(lictor.get("users", "/").status, 200);
        let page = lictor.page("/endpoints/users");
        let state = page["users"]["endpoints"][0]["state"].as_str();
        assert_eq!(state == Some("draining"), is_drained, "{named}: {page}");
    }
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_is_told_as_ipv4() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: '[::]:0', static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let port = lictor.address("users").rsplit_once(':').unwrap().1.to_owned();
    let answer = ask(&format!("127.0.0.1:{port}"), "GET /", "Host: a\r\nX-Forwarded-For: b\r\nX-Forwarded-For: c\r\n");
    assert_eq!(told(&answer, "x-forwarded-for"), ["b", "c"], "this machine's own is nobody's hop");
    let lines = eventually_is("it is logged", || lictor.lines("request"), |lines| lines.len() == 1);
    assert_eq!(lines[0]["ip"], "127.0.0.1", "{lines:?}");
}

/// One line each, the configuration's.
#[test]
fn what_is_set_stands_in_place_of_what_lictor_says() {
    let backend = Backend::start("a");
    let set = "Host: 'api.example:8443', traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, \
               X-Request-ID: fixed, X-Forwarded-Host: h, X-Forwarded-Proto: p, X-Trace-ID: t, User-Agent: u, \
               x-request-timeout-ms: '7'";
    for (protocol, host) in [("http1", "host"), ("h2c", ":authority")] {
        let lictor =
            caller(&[backend.port()], &format!(", timeout: 9s, protocol: {protocol}, headers: {{set: {{{set}}}}}"));
        let fields = "Host: users\r\nUser-Agent: mine\r\nX-Request-ID: mine\r\ntraceparent: mine\r\nX-Forwarded-Host: mine\r\n\
                      x-request-timeout-ms: 5000\r\n";
        let answer = ask(&lictor.address("users"), "GET /", fields);
        for (name, value) in [
            (host, "api.example:8443"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("x-request-id", "fixed"),
            ("x-forwarded-host", "h"),
            ("x-forwarded-proto", "p"),
            ("x-trace-id", "t"),
            ("user-agent", "u"),
            ("x-request-timeout-ms", "7"),
        ] {
            assert_eq!(told(&answer, name), [value], "{protocol} {name}: {}", answer.text());
        }
        assert_eq!(told(&answer, "host").len() + told(&answer, ":authority").len(), 1, "{}", answer.text());
    }
}

/// RFC 3986, section 3.2.2.
#[test]
fn hosts_do_not_differ_by_case() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{static: ['127.0.0.1:{port}']}}\n  \
         Carts: {{static: ['127.0.0.1:{port}']}}\n",
        port = backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let forward = lictor.address("forward");
    for host in ["users", "Users", "USERS:80", "Users.Service.Consul", "carts", "CARTS", "Carts"] {
        assert_eq!(ask(&forward, &format!("GET http://{host}/"), &format!("Host: {host}\r\n")).status, 200, "{host}");
        assert_eq!(ask(&forward, "GET /", &format!("Host: {host}\r\n")).status, 200, "{host}");
        let target = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let mut stream = lictor_testkit::connect(&forward);
        std::io::Write::write_all(
            &mut stream,
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes(),
        )
        .unwrap();
        let head = lictor_testkit::read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {head}");
    }
}

/// RFC 9112, section 3.2; RFC 9110, sections 4.2 and 9.3.6.
#[test]
fn a_target_that_is_none_is_refused_and_reaches_nobody() {
    let backend = Backend::start("a");
    let yaml = format!(
        "service: orders\nport: {port}\nregistration: off\noutbound: {{proxy: 0}}\ninbound: {{listen: '127.0.0.1:0'}}\n\
         upstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n",
        port = backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let nobody = [
        "DELETE items",
        "POST user-service",
        "GET users",
        "GET users:80",
        "OPTIONS users",
        "GET http://users:http/",
        "GET http://:80/",
        "GET http:///",
        "GET http://u@users/",
        "GET ftp://users/",
        "GET https://users/",
        "GET *",
        "CONNECT users",
        "CONNECT users:",
        "CONNECT /users:80",
        "CONNECT http://users:80/",
    ];
    for listener in ["users", "forward", "inbound"] {
        for line in nobody {
            let answer = ask(&lictor.address(listener), line, "Host: users\r\n");
            assert_eq!((answer.status, answer.header("x-lictor-reason")), (400, "bad_request"), "{listener}: {line}");
        }
        assert_eq!(backend.hits(), 0, "{listener}");
    }
    let forward = lictor.address("forward");
    let answer = ask(&forward, "GET https://users/", "Host: users\r\n");
    assert!(answer.text().contains("would go on in the clear"), "{}", answer.text());
}

/// As every server takes it and every proxy passes it on, over HTTP/1.1 and HTTP/2.
#[test]
fn what_should_have_been_encoded_passes_as_it_came() {
    for (protocol, target) in [("http1", "/a?q=\"b\"&<c>"), ("http1", "/<a>?`"), ("http1", "/a?%22%zz\"")] {
        let seen = RawServer::saying(|head| {
            let line = head.lines().next().unwrap_or_default();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len())
        });
        let lictor = caller(&[seen.port()], &format!(", protocol: {protocol}"));
        let answer = ask(&lictor.address("users"), &format!("GET {target}"), "Host: users\r\n");
        assert_eq!((answer.status, answer.text()), (200, format!("GET {target} HTTP/1.1")));
    }
}

/// RFC 9112, section 3.2.4.
#[test]
fn options_of_a_whole_server_is_about_the_asterisk() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for (target, path) in
        [("http://users", "*"), ("http://users:80", "*"), ("http://users/", "/"), ("http://users?a", "/")]
    {
        let answer = ask(&lictor.address("forward"), &format!("OPTIONS {target}"), "Host: users\r\n");
        assert!(answer.text().starts_with(&format!("a OPTIONS {path} ")), "{target}: {}", answer.text());
    }
}

#[test]
fn our_application_is_called_by_its_callers_name_in_both_versions() {
    let backend = Backend::start("app");
    for (protocol, name) in [("http1", "host"), ("h2c", ":authority")] {
        let yaml = format!(
            "service: users\napp: {{port: {}, protocol: {protocol}}}\nregistration: off\ninbound: {{listen: '127.0.0.1:0'}}\n",
            backend.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let answer = ask(&lictor.address("inbound"), "GET /", "Host: shop.example:8080\r\n");
        assert_eq!(told(&answer, name), ["shop.example:8080"], "{protocol}: {}", answer.text());
        let answer = ask(&lictor.address("inbound"), "GET http://shop.example/", "Host: other\r\n");
        assert_eq!(told(&answer, name), ["shop.example"], "{protocol}: {}", answer.text());
    }
}

/// gRPC-Web is answered in HTTP's own terms; media types do not differ by case (RFC 9110, section 8.3.1).
#[test]
fn only_grpc_is_answered_as_grpc() {
    let [gone] = free_ports();
    let lictor = caller(&[gone], ", retry: off");
    for (said, status, kind) in [
        ("application/grpc", 200, "application/grpc"),
        ("Application/GRPC+proto", 200, "application/grpc"),
        ("application/grpc-web", 502, "application/json"),
        ("application/grpc-web-text+proto", 502, "application/json"),
        ("application/json", 502, "application/json"),
    ] {
        let answer = ask(
            &lictor.address("users"),
            "POST /a.B/C",
            &format!("Host: a\r\nContent-Length: 0\r\nContent-Type: {said}\r\n"),
        );
        assert_eq!((answer.status, answer.header("content-type")), (status, kind), "{said}");
    }
}

/// RFC 9110, section 7.6.3: a proxy in both directions, a gateway in requests, each by the version that came.
#[test]
fn via_says_the_version_that_came_and_a_proxys_answers_have_it() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\nservice: orders\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n  \
         new: {{static: ['127.0.0.1:{port}'], protocol: h2c}}\n",
        port = backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let (users, forward) = (lictor.address("users"), lictor.address("forward"));
    let via = |answer: &Answer| told(answer, "via").join(", ");
    let old = exchange(&users, b"GET / HTTP/1.0\r\nHost: users\r\n\r\n").unwrap();
    assert!(via(&old).starts_with("1.0 lictor-"), "{}", old.text());
    let usual = ask(&users, "GET /", "Host: users\r\nVia: 1.0 fred\r\n");
    assert!(via(&usual).starts_with("1.0 fred, 1.1 lictor-"), "{}", usual.text());
    assert_eq!(usual.header("via"), "", "a gateway's answers need none");
    for (host, version) in [("users", "1.1"), ("new", "2.0")] {
        let answer = ask(&forward, &format!("GET http://{host}/"), &format!("Host: {host}\r\n"));
        assert!(answer.header("via").starts_with(&format!("{version} lictor-")), "{host}: {:?}", answer.headers);
    }
    let again = ask(&users, "GET /", &format!("Host: users\r\nVia: {}\r\n", via(&old).replace("1.0", "2.0")));
    assert_eq!((again.status, again.header("x-lictor-reason")), (502, "loop_detected"));
    let over_http2 = over_http2(&users, &[]);
    assert!(over_http2.1.contains("via: 2.0 lictor-"), "{}", over_http2.1);
}

/// Its instances are its endpoints, and the balancer may take the one that asks. It may also send on the fields that it got.
#[test]
fn a_service_may_call_itself() {
    let backend = Backend::start("a");
    for protocol in ["http1", "h2c"] {
        let [inbound] = free_ports();
        let yaml = format!(
            "registration: off\nservice: orders\nport: {port}\ninbound: {{listen: '127.0.0.1:{inbound}'}}\noutbound: {{proxy: 0}}\n\
             upstreams:\n  orders: {{listen: 0, static: ['127.0.0.1:{inbound}'], protocol: {protocol}}}\n  \
             users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n",
            port = backend.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let mut of_inbound = String::new();
        for (listener, target) in [("orders", "/"), ("forward", "http://orders/")] {
            let answer = ask(&lictor.address(listener), &format!("GET {target}"), "Host: orders\r\n");
            assert_eq!(answer.status, 200, "{protocol} {listener}: {}", answer.text());
            let via = told(&answer, "via").join(", ");
            let (first, second) = via.split_once(", ").unwrap();
            assert!(!first.ends_with("-inbound") && second.ends_with("-inbound"), "{protocol} {listener}: {via}");
            of_inbound = second.to_owned();
        }
        for (listener, status) in [("users", 200), ("orders", 502)] {
            let answer = ask(&lictor.address(listener), "GET /", &format!("Host: orders\r\nVia: {of_inbound}\r\n"));
            assert_eq!(answer.status, status, "{protocol} {listener}: {}", answer.text());
        }
    }
}

/// A request over HTTP/2: the answer's head, and its text.
fn over_http2(address: &str, fields: &[(&str, &str)]) -> (http::HeaderMap, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = fields
            .iter()
            .fold(http::Request::get("http://users/"), |request, (name, value)| request.header(*name, *value));
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        (head.headers, String::from_utf8(text).unwrap())
    })
}

/// RFC 9110, section 6.6.1.
#[test]
fn an_answer_has_a_date() {
    let is_date = |date: &str| httpdate::parse_http_date(date).is_ok();
    for (theirs, expected) in
        [("", None), ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some("Sun, 06 Nov 1994 08:49:37 GMT"))]
    {
        let server = RawServer::answering(format!("HTTP/1.1 200 OK\r\n{theirs}Content-Length: 0\r\n\r\n"));
        let lictor = caller(&[server.port()], "");
        let answer = lictor.get("users", "/");
        let dates: Vec<_> = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("date")).collect();
        assert!(dates.len() == 1 && is_date(&dates[0].1), "{dates:?}");
        assert!(expected.is_none_or(|expected| dates[0].1 == expected), "{dates:?}");
        let (head, _) = over_http2(&lictor.address("users"), &[]);
        assert!(is_date(head["date"].to_str().unwrap()), "{head:?}");
        let unread = exchange(&lictor.address("users"), b"GET / HTTP/1.1\r\nBad Name: a\r\n\r\n").unwrap();
        assert!(unread.status == 400 && is_date(unread.header("date")), "{unread:?}");
    }
    let [gone] = free_ports();
    let failed = caller(&[gone], ", retry: off").get("users", "/");
    assert!(failed.status == 502 && is_date(failed.header("date")), "{failed:?}");
}

/// RFC 9110, section 10.1.4.
#[test]
fn who_sends_te_says_so_in_connection() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], "");
    let answer = ask(&lictor.address("users"), "GET /", "Host: users\r\nTE: trailers, deflate\r\n");
    assert_eq!((told(&answer, "te"), told(&answer, "connection")), (vec!["trailers".into()], vec!["te".into()]));
    let answer = ask(&lictor.address("users"), "GET /", "Host: users\r\nTE: deflate\r\n");
    assert!(told(&answer, "te").is_empty() && told(&answer, "connection").is_empty(), "{}", answer.text());
}

/// What a server says of its idle connections is believed, where the policy would keep them longer.
#[test]
fn a_connection_is_not_used_beyond_what_its_server_keeps_it_for() {
    for (said, is_reused) in [("", true), ("Keep-Alive: timeout=0\r\n", false), ("Keep-Alive: timeout=600\r\n", true)] {
        let server = RawServer::answering(format!("HTTP/1.1 200 OK\r\n{said}Content-Length: 0\r\n\r\n"));
        let lictor = caller(&[server.port()], ", pool: {idle: 1h}");
        let mut client = lictor_testkit::connect(&lictor.address("users"));
        for _ in 0..2 {
            std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
            let head = lictor_testkit::read_head(&mut client);
            assert!(head.starts_with("HTTP/1.1 200") && !head.to_lowercase().contains("keep-alive"), "{head}");
        }
        assert_eq!(server.connections(), if is_reused { 1 } else { 2 }, "{said}");
    }
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = std::sync::Arc::clone(&ended);
    let server = RawServer::start(move |mut stream| {
        lictor_testkit::read_head(&mut stream);
        let _ = std::io::Write::write_all(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n",
        );
        let is_end = matches!(std::io::Read::read(&mut stream, &mut [0]), Ok(0));
        end.store(is_end, std::sync::atomic::Ordering::Relaxed);
    });
    let lictor = caller(&[server.port()], ", pool: {idle: 1h}");
    assert_eq!(lictor.get("users", "/").status, 200);
    eventually_is("it is closed first", || ended.load(std::sync::atomic::Ordering::Relaxed), |ended| *ended);
}
