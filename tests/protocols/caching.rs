//! Answers that are kept: given again, shared by requests at the same time, or in place of a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use lictor_testkit::{Answer, Backend, RawServer, Sidecar, connect, eventually_is, exchange, read_head, request};

use parking_lot::Mutex;

use crate::{LICTOR, caller};

fn count(lictor: &Sidecar, result: &str) -> f64 {
    lictor.metric("lictor_cache_requests_total", &[("upstream", "users"), ("result", result)])
}

#[test]
fn an_answer_is_given_again_to_the_same_caller_only() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", routes: [{match: 'GET /users/{id}', cache: 60s}]");
    let ask = |path: &str, token: &str| {
        request(&lictor.address("users"), "GET", path, &[("Authorization", token)], b"").unwrap()
    };
    let first = ask("/users/1", "ann");
    let again = ask("/users/1", "ann");
    assert_eq!((first.header("age"), again.header("age")), ("", "0"));
    assert_eq!(first.body, again.body);
    assert_ne!(first.header("x-request-id"), again.header("x-request-id"));
    assert_eq!(backend.hits(), 1);
    assert!(ask("/users/1", "bob").text().contains("authorization: bob"));
    assert_eq!(backend.hits(), 2, "another caller");
    ask("/users/2", "ann");
    assert_eq!(backend.hits(), 3, "another user");
    ask("/elsewhere", "ann");
    ask("/elsewhere", "ann");
    assert_eq!(backend.hits(), 5, "another route");
    request(&lictor.address("users"), "POST", "/users/1", &[], b"x").unwrap();
    let fresh = request(&lictor.address("users"), "GET", "/users/1", &[("Cache-Control", "no-cache")], b"").unwrap();
    assert_eq!((fresh.status, backend.hits()), (200, 7));
    assert!((count(&lictor, "hit") - 1.0).abs() < 0.1);
}

#[test]
fn answers_grow_old() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", cache: 100ms");
    eventually_is(
        "it is asked again",
        || {
            lictor.get("users", "/");
            backend.hits()
        },
        |hits| *hits >= 3,
    );
    assert!(count(&lictor, "hit") >= 1.0);
}

#[test]
fn equal_requests_at_the_same_time_are_one() {
    let backend = Backend::start("a");
    backend.delays(Duration::from_millis(300));
    let lictor = caller(&[backend.port()], ", cache: {ttl: 1ms}");
    let address = lictor.address("users");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..20).map(|_| scope.spawn(|| lictor_testkit::get(&address, "/popular").unwrap())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(backend.hits(), 1);
    assert!((count(&lictor, "coalesced") - 19.0).abs() < 0.1, "{}", count(&lictor, "coalesced"));
}

#[test]
fn who_waits_for_an_answer_that_may_not_be_shared_asks_for_itself() {
    let private = RawServer::answering("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nme");
    let lictor = caller(&[private.port()], ", cache: 60s");
    let address = lictor.address("users");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(lictor_testkit::get(&address, "/").unwrap().text(), "me"));
        }
    });
    assert!((count(&lictor, "hit") + count(&lictor, "coalesced")).abs() < 0.1);
}

#[test]
fn an_old_answer_is_better_than_none() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", fallback: {stale: 5m}, retry: off, breaker: {failure_threshold: 2}");
    let good = lictor.get("users", "/users/1");
    assert_eq!((good.status, good.header("x-lictor-fallback")), (200, ""));
    backend.answers(503);
    for _ in 0..3 {
        let stale = lictor.get("users", "/users/1");
        assert_eq!((stale.status, &stale.body), (200, &good.body));
        assert!(stale.header("x-lictor-fallback").starts_with("stale;age="), "{:?}", stale.headers);
    }
    assert_eq!(backend.hits(), 3, "then the breaker opened");
    assert_eq!(lictor.get("users", "/users/2").status, 503, "nothing is known of that");
    backend.kill();
    assert_eq!(lictor.get("users", "/users/1").status, 200);
    assert!(lictor.metric("lictor_fallbacks_total", &[("upstream", "users"), ("kind", "stale")]) >= 4.0);
    let lines = eventually_is("it is logged", || lictor.lines("request"), |lines| lines.len() == 6);
    assert_eq!(lines[1]["cache"], "stale");
}

/// A server that answers as it is told, and remembers what it was asked.
struct Origin {
    server: RawServer,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// `answer` gets a request's head in lower case and how many came before.
    fn start(answer: impl Fn(&str, usize) -> String + Send + Sync + 'static) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let server = RawServer::start(move |mut stream| {
            loop {
                let head = read_head(&mut stream).to_lowercase();
                if head.is_empty() {
                    return;
                }
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                if stream.read_exact(&mut body).is_err() {
                    return;
                }
                let count = {
                    let mut seen = seen.lock();
                    seen.push(head.clone());
                    seen.len() - 1
                };
                let answer = answer(&head, count);
                if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { server, heads }
    }

    /// Always 200 with these fields, and the number of the request.
    fn saying(fields: &'static str) -> Self {
        Self::start(move |head, count| ok(head, fields, &format!("answer {count}")))
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn hits(&self) -> usize {
        self.heads.lock().len()
    }

    fn last(&self) -> String {
        self.heads.lock().last().cloned().unwrap_or_default()
    }
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(head: &str, fields: &str, body: &str) -> String {
    let answer = answer("200 OK", fields, body);
    if head.starts_with("head ") { answer.replace(body, "") } else { answer }
}

fn ask(lictor: &Sidecar, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    request(&lictor.address("users"), method, path, fields, b"").unwrap()
}

#[test]
fn what_the_answer_says_goes_before_the_routes_ttl() {
    for (fields, is_kept) in [
        ("", true),
        ("Cache-Control: max-age=60\r\n", true),
        ("Cache-Control: MAX-AGE=60, s-maxage=0\r\n", false),
        ("Cache-Control: max-age=0\r\n", false),
        ("Cache-Control: No-Store\r\n", false),
        ("Cache-Control: max-age=60\r\nCache-Control: PRIVATE=\"x\"\r\n", false),
        ("Cache-Control: \u{fc}, no-store\r\n", false),
        ("Cache-Control: no-cache\r\n", false),
        ("Expires: 0\r\n", false),
        ("Vary: \u{fc}\r\n", false),
        ("Vary: Accept\r\nVary: *\r\n", false),
        ("Vary: X-Tenant\r\n", true),
        ("Set-Cookie: a=b\r\n", false),
        ("Cache-Control: max-age=60\r\nAge: 70, 20\r\n", false),
        ("Connection: Cache-Control\r\nCache-Control: no-store\r\n", true),
    ] {
        let origin = Origin::saying(fields);
        let lictor = caller(&[origin.port()], ", cache: 60s");
        let (first, second) = (lictor.get("users", "/"), lictor.get("users", "/"));
        assert_eq!((first.status, second.status), (200, 200), "{fields}");
        assert_eq!(first.body == second.body, is_kept, "{fields}");
        assert_eq!(origin.hits(), if is_kept { 1 } else { 2 }, "{fields}");
    }
}

#[test]
fn upgrades_are_never_answered_from_it() {
    let origin = RawServer::saying(|head| {
        if head.to_lowercase().contains("upgrade: websocket") {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
        } else {
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nkept"
        }
    });
    let lictor = caller(&[origin.port()], ", cache: 60s, fallback: {stale: 5m}");
    assert_eq!(
        (lictor.get("users", "/chat").text(), lictor.get("users", "/chat").text()),
        ("kept".into(), "kept".into())
    );
    assert!((count(&lictor, "hit") - 1.0).abs() < 0.1);
    let mut client = connect(&lictor.address("users"));
    client
        .write_all(b"GET /chat HTTP/1.1\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101"));
    let mut hello = [0; 5];
    client.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    let head = by_extended_connect(&lictor.address("users"));
    assert_eq!((head.status().as_u16(), head.headers().get("age")), (200, None), "granted, not kept");
    assert!((count(&lictor, "hit") - 1.0).abs() < 0.1);
}

/// The head that answers an extended CONNECT (RFC 8441).
fn by_extended_connect(address: &str) -> http::Response<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await; // until the server's SETTINGS are there
        }
        let mut request = http::Request::connect("http://users/chat").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, _bytes) = sender.send_request(request, false).unwrap();
        response.await.unwrap().map(drop)
    })
}

#[test]
fn what_may_have_changed_an_answer_takes_it_away() {
    for (method, path, status, fields, is_taken) in [
        ("PUT", "/a", "200 OK", "", true),
        ("POST", "/a", "201 Created", "", true),
        ("DELETE", "/a", "204 No Content", "", true),
        ("PATCH", "/a", "303 See Other", "", true),
        ("M-SEARCH", "/a", "200 OK", "", true),
        ("POST", "/b", "201 Created", "Location: /a\r\n", true),
        ("POST", "/b", "200 OK", "Content-Location: http://users/a\r\n", true),
        ("POST", "/b", "200 OK", "Location: http://other/a\r\n", false),
        ("POST", "/b", "200 OK", "", false),
        ("PUT", "/a", "409 Conflict", "", false),
        ("OPTIONS", "/a", "200 OK", "", false),
    ] {
        let origin = Origin::start(move |head, count| {
            if head.starts_with("get ") {
                return ok(head, "Cache-Control: max-age=60\r\n", &format!("answer {count}"));
            }
            let answer = answer(status, fields, "");
            if status.starts_with("204") { answer.replace("Content-Length: 0\r\n", "") } else { answer }
        });
        // The route that writes has no cache of its own.
        let lictor = caller(&[origin.port()], ", retry: off, routes: [{match: 'GET /*', cache: 60s}]");
        for who in ["ann", "bob"] {
            ask(&lictor, "GET", "/a", &[("Authorization", who)]);
            ask(&lictor, "GET", "/a", &[("Authorization", who)]);
        }
        assert_eq!(origin.hits(), 2, "{method}: one for each");
        ask(&lictor, method, path, &[("Host", "users")]);
        let before = origin.hits();
        for who in ["ann", "bob"] {
            ask(&lictor, "GET", "/a", &[("Authorization", who)]);
        }
        assert_eq!(origin.hits() - before, if is_taken { 2 } else { 0 }, "{method} {path} {status} {fields}");
    }
}

#[test]
fn what_must_not_outlive_its_life_does_not_stand_in_for_a_failure_either() {
    for (fields, stands_in) in [
        ("", true),
        ("Cache-Control: max-age=1\r\n", true),
        ("Cache-Control: max-age=1, must-revalidate\r\n", false),
        ("Cache-Control: max-age=1, Proxy-Revalidate\r\n", false),
        ("Cache-Control: s-maxage=1\r\n", false),
        ("Cache-Control: max-age=0\r\nETag: \"a\"\r\n", false),
        ("Cache-Control: no-cache\r\nETag: \"a\"\r\n", false),
        ("Expires: 0\r\nETag: \"a\"\r\n", false),
    ] {
        let origin = Origin::start(move |head, count| match count {
            0 => ok(head, fields, "good"),
            _ => answer("503 Service Unavailable", "", "bad"),
        });
        let lictor = caller(&[origin.port()], ", cache: 1ms, fallback: {stale: 5m}, retry: off, breaker: off");
        assert_eq!(lictor.get("users", "/").text(), "good");
        let reached =
            eventually_is("its life is over", || (lictor.get("users", "/"), origin.hits()), |(_, hits)| *hits > 1);
        let (answer, _) = reached;
        assert_eq!(answer.status == 200, stands_in, "{fields}: {answer:?}");
        assert_eq!(answer.header("x-lictor-fallback").starts_with("stale;age="), stands_in, "{fields}");
        assert_eq!(answer.header("cache-status").contains("detail=stale"), stands_in, "{fields}");
        // A client that wants no old answer gets none.
        assert_eq!(ask(&lictor, "GET", "/", &[("Cache-Control", "no-cache")]).status, 503, "{fields}");
    }
}

#[test]
fn an_answer_may_say_itself_that_it_stands_in_for_a_failure() {
    let origin = Origin::start(|head, count| match count {
        0 => ok(head, "Cache-Control: max-age=1, stale-if-error=600\r\nAge: 1\r\nETag: \"a\"\r\n", "good"),
        _ => answer("500 Oh", "", "bad"),
    });
    let lictor = caller(&[origin.port()], ", cache: 1s, retry: off, breaker: off");
    assert_eq!(lictor.get("users", "/").text(), "good");
    let stale = lictor.get("users", "/");
    assert_eq!((stale.status, stale.text().as_str(), origin.hits()), (200, "good", 2));
}

#[test]
fn who_asks_for_what_where_is_told_apart() {
    let origin = Origin::saying("Cache-Control: max-age=60\r\n");
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{listen: 0, cache: 60s, static: ['127.0.0.1:{}']}}\n",
        origin.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let named = |head: &str| {
        let bytes = format!("GET /a HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        exchange(&lictor.address("users"), bytes.as_bytes()).unwrap().text()
    };
    let plain = named("Host: users\r\n");
    assert_eq!(plain, named("Host: USERS\r\n"));
    let mut seen = vec![plain.clone()];
    for head in [
        "Host: users.example\r\n",
        "Host: users\r\nX-Forwarded-Host: evil\r\n",
        "Host: users\r\nX-Forwarded-Proto: https\r\n",
        "Host: users\r\nAuthorization: a\r\n",
        "Host: users\r\nCookie: a=b\r\n",
        "Host: users\r\nX-User-ID: 1\r\n",
        "Host: users\r\nX-Api-Key: 1\r\n",
        "Host: users\r\nAccept: text/html\r\n",
    ] {
        let answer = named(head);
        assert_eq!(answer, named(head), "{head}");
        assert!(!seen.contains(&answer), "{head}");
        seen.push(answer);
    }
    // What `Connection` nominates does not reach the upstream: it tells nothing of who asks.
    assert_eq!(plain, named("Host: users\r\nAuthorization: b\r\nConnection: authorization\r\n"));
    assert!(!origin.heads.lock().iter().any(|head| head.contains("authorization: b")));
    let forward =
        |host: &str| request(&lictor.address("forward"), "GET", &format!("http://{host}/a"), &[("Host", host)], b"");
    assert_eq!(forward("users").unwrap().text(), plain, "the same service by the same name");
    let instance = forward(&format!("127.0.0.1:{}", origin.port())).unwrap().text();
    assert!(!seen.contains(&instance), "the instance that was named answers");
}

#[test]
fn a_get_with_a_body_is_neither_answered_nor_kept() {
    let origin = Origin::saying("Cache-Control: max-age=60\r\n");
    let lictor = caller(&[origin.port()], ", cache: 60s");
    for hits in 1..3 {
        request(&lictor.address("users"), "GET", "/a", &[], b"body").unwrap();
        assert_eq!(origin.hits(), hits);
    }
    for _ in 0..2 {
        assert_eq!(lictor.get("users", "/a").text(), "answer 2");
    }
    assert_eq!(request(&lictor.address("users"), "GET", "/a", &[], b"body").unwrap().text(), "answer 3");
}

#[test]
fn an_old_answer_is_confirmed_and_given_again() {
    // No answer lives: each use asks.
    let origin = Origin::start(|head, count| {
        let fields = format!("Cache-Control: no-cache\r\nETag: \"a\"\r\nX-Count: {count}\r\n");
        if head.contains("if-none-match: \"a\"\r\n") {
            let fields = if count == 1 { fields.replace("ETag: \"a\"\r\n", "") } else { fields };
            return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
        }
        ok(head, &fields, "whole")
    });
    let lictor = caller(&[origin.port()], ", cache: 60s");
    for number in 0..3 {
        let answer = lictor.get("users", "/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"));
        assert_eq!(answer.header("x-count"), number.to_string(), "fields are those of the latest");
    }
    assert_eq!((origin.hits(), count(&lictor, "miss") as u32), (3, 3));
    // The client's own condition is answered by what is confirmed, and never sent on.
    let known = ask(&lictor, "GET", "/", &[("If-None-Match", "\"b\", \"a\"")]);
    assert_eq!((known.status, known.text().as_str(), known.header("etag")), (304, "", "\"a\""));
    assert!(!origin.last().contains("\"b\""), "{}", origin.last());
    let other = ask(&lictor, "GET", "/", &[("If-None-Match", "\"b\"")]);
    assert_eq!((other.status, other.text().as_str()), (200, "whole"));
    assert!(other.header("cache-status").contains("fwd-status=304"), "{:?}", other.headers);
}

#[test]
fn a_304_about_something_else_is_never_passed_on_nor_believed() {
    for told in
        ["ETag: \"other\"\r\n", "ETag: \"a\"\r\nETag: \"b\"\r\n", "Last-Modified: Sun, 01 Nov 2020 11:00:00 GMT\r\n"]
    {
        let origin = Origin::start(move |head, count| {
            if head.contains("if-none-match") {
                return format!("HTTP/1.1 304 Not Modified\r\n{told}\r\n");
            }
            ok(head, "Cache-Control: no-cache\r\nETag: \"a\"\r\n", &format!("answer {count}"))
        });
        let lictor = caller(&[origin.port()], ", cache: 60s");
        assert_eq!(lictor.get("users", "/").text(), "answer 0");
        let again = lictor.get("users", "/");
        assert_eq!((again.status, again.text().as_str(), origin.hits()), (200, "answer 2", 3), "{told}");
    }
}

#[test]
fn the_client_and_head_are_answered_from_what_is_fresh() {
    let origin = Origin::saying("Cache-Control: max-age=60\r\nETag: \"a\"\r\n");
    let lictor = caller(&[origin.port()], ", cache: 60s");
    assert_eq!(ask(&lictor, "GET", "/", &[("Cache-Control", "only-if-cached")]).status, 504);
    assert_eq!(origin.hits(), 0);
    lictor.get("users", "/");
    assert_eq!(ask(&lictor, "GET", "/", &[("Cache-Control", "only-if-cached")]).status, 200);
    let known = ask(&lictor, "GET", "/", &[("If-None-Match", "W/\"a\"")]);
    assert_eq!((known.status, known.text().as_str(), known.header("etag")), (304, "", "\"a\""));
    assert!(known.header("cache-status").starts_with("lictor; hit; ttl="), "{:?}", known.headers);
    let head = ask(&lictor, "HEAD", "/", &[]);
    assert_eq!((head.status, head.text().as_str(), head.header("content-length")), (200, "", "8"));
    assert_eq!(origin.hits(), 1);
    assert_eq!(ask(&lictor, "GET", "/", &[("Range", "bytes=0-1")]).status, 200);
    assert_eq!(ask(&lictor, "GET", "/", &[("Cache-Control", "no-store")]).text(), "answer 2");
    assert_eq!(origin.hits(), 3, "passed on");
    assert_eq!(ask(&lictor, "GET", "/", &[]).text(), "answer 0");
}

#[test]
fn an_answer_to_head_that_says_otherwise_takes_the_kept_one_away() {
    let origin = Origin::start(|head, _| {
        let tag = if head.starts_with("head ") { "b" } else { "a" };
        ok(head, &format!("Cache-Control: max-age=60\r\nETag: \"{tag}\"\r\n"), "body")
    });
    let lictor = caller(&[origin.port()], ", cache: 60s");
    lictor.get("users", "/");
    ask(&lictor, "HEAD", "/", &[("Cache-Control", "no-cache")]);
    lictor.get("users", "/");
    assert_eq!(origin.hits(), 3);
}

#[test]
fn what_has_trailers_is_passed_on_with_them_and_not_kept() {
    let origin = Origin::start(|_, _| {
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
            .to_owned()
    });
    let lictor = caller(&[origin.port()], ", cache: 60s");
    lictor.get("users", "/");
    lictor.get("users", "/");
    assert_eq!(origin.hits(), 2);
}

/// Asks so often at once that some wait for others, and says what came.
fn crowd(lictor: &Sidecar, fields: &(dyn Fn(usize) -> (&'static str, String) + Sync)) -> Vec<String> {
    let address = lictor.address("users");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..12)
            .map(|number| {
                let address = &address;
                scope.spawn(move || {
                    let (name, value) = fields(number);
                    request(address, "GET", "/", &[(name, &value)], b"").unwrap().text()
                })
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    })
}

fn slowly(fields: &'static str) -> Origin {
    Origin::start(move |head, count| {
        #[expect(clippy::disallowed_methods, reason = "the others come meanwhile")]
        std::thread::sleep(Duration::from_millis(300));
        let kind = head.split("x-kind: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("none").to_owned();
        ok(head, fields, &format!("{kind} {count}"))
    })
}

#[test]
fn who_waits_gets_what_it_might_have_had_by_itself() {
    // Not to be used without asking: nobody gets another's.
    let origin = slowly("Cache-Control: max-age=0\r\n");
    let lictor = caller(&[origin.port()], ", cache: 60s");
    crowd(&lictor, &|_| ("X-Kind", "a".to_owned()));
    assert_eq!(origin.hits(), 12);
    // Chosen by a field that is only known once it is there.
    let origin = slowly("Cache-Control: max-age=60\r\nVary: X-Kind\r\n");
    let lictor = caller(&[origin.port()], ", cache: 60s");
    let answers = crowd(&lictor, &|number| ("X-Kind", format!("kind-{number}")));
    for (number, answer) in answers.iter().enumerate() {
        assert!(answer.starts_with(&format!("kind-{number} ")), "{answers:?}");
    }
}

#[test]
fn while_one_asks_the_others_get_the_old_one_where_it_says_so() {
    let gate = Arc::new(Mutex::new(()));
    let closed = Arc::clone(&gate);
    let origin = Origin::start(move |head, count| {
        drop((count > 0).then(|| closed.lock())); // until it is opened
        let fields = "Cache-Control: max-age=5, stale-while-revalidate=600\r\nAge: 5\r\nETag: \"a\"\r\n";
        ok(head, fields, &format!("answer {count}"))
    });
    let lictor = caller(&[origin.port()], ", cache: 60s");
    assert_eq!(lictor.get("users", "/").text(), "answer 0");
    let held = gate.lock();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| lictor.get("users", "/").text());
        eventually_is("it is asked", || origin.hits(), |hits| *hits == 2);
        for _ in 0..5 {
            assert_eq!(lictor.get("users", "/").text(), "answer 0");
        }
        drop(held);
        assert_eq!(slow.join().unwrap(), "answer 1");
    });
    assert_eq!(origin.hits(), 2);
}

#[test]
fn a_reload_empties_it() {
    let (one, other) =
        (Origin::saying("Cache-Control: max-age=600\r\n"), Origin::start(|head, _| ok(head, "", "other")));
    let yaml = |port: u16| {
        format!("registration: off\nupstreams:\n  users: {{listen: 0, cache: 60s, static: ['127.0.0.1:{port}']}}\n")
    };
    let lictor = Sidecar::serve(LICTOR, &yaml(one.port())).up();
    assert_eq!(
        (lictor.get("users", "/").text(), lictor.get("users", "/").text()),
        ("answer 0".into(), "answer 0".into())
    );
    lictor.rewrite(&yaml(other.port()));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(lictor.get("users", "/").text(), "other");
}

/// Keys, heads and bodies count: whatever an answer is large by, the process stays small.
#[test]
fn memory_is_bounded_whatever_is_large() {
    let origin = Origin::start(|head, _| {
        let (fields, body) = match () {
            () if head.starts_with("get /head") => {
                ("X-Large: ".to_owned() + &"h".repeat(15_000) + "\r\n", String::new())
            }
            () if head.starts_with("get /many") => ("X-A: 1\r\n".repeat(90), String::new()),
            () if head.starts_with("get /body") => (String::new(), "b".repeat(100_000)),
            () => (String::new(), String::new()),
        };
        ok(head, &fields, &body)
    });
    let lictor = caller(&[origin.port()], ", cache: 600s, timeout: 60s");
    let mut client = connect(&lictor.address("users"));
    let mut answers = BufReader::new(client.try_clone().unwrap());
    let mut ask = |target: &str| {
        client.write_all(format!("GET {target} HTTP/1.1\r\nHost: users\r\n\r\n").as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line).unwrap();
            let of = line.to_lowercase();
            length = of.strip_prefix("content-length: ").map_or(length, |value| value.trim().parse().unwrap());
        }
        answers.read_exact(&mut vec![0; length]).unwrap();
    };
    ask("/first");
    let before = lictor.resident();
    for number in 0..1_200 {
        ask(&format!("/head/{number}"));
        ask(&format!("/key/{number}/{}", "k".repeat(3_000)));
        ask(&format!("/many/{number}"));
        if number % 8 == 0 {
            ask(&format!("/body/{number}"));
        }
    }
    let grown = lictor.resident().saturating_sub(before) >> 20;
    assert!(grown < 40, "{grown} MiB more, of 16 that are allowed and what an allocator adds");
    ask("/many/1199");
    assert!(count(&lictor, "hit") >= 1.0);
}
