//! Copies of a route's requests: who gets them has no way to make the caller wait, or lictor grow.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};
use parking_lot::Mutex;

use crate::{
    Ask, BOTH, LICTOR, Version, ask, begun_http2, block, configuration, echo, field, frame, gateway, gateway_with,
    lines, told_http1, told_http2, told_on,
};

/// A server that notes each request, head and body.
fn noting() -> (RawServer, Arc<Mutex<Vec<String>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    let server = RawServer::start(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            notes.lock().push(format!("{head}{}", String::from_utf8_lossy(&body)));
            if stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nwrong").is_err() {
                return;
            }
        }
    });
    (server, noted)
}

fn mirrored(lictor: &Sidecar, outcome: &str) -> f64 {
    lictor.metric("lictor_gateway_mirrored_total", &[("outcome", outcome)])
}

/// Posts a body of so many pieces; `length` says how long it is, where that is said.
fn post(lictor: &Sidecar, version: Version, pieces: &[&str], length: Option<usize>) -> crate::Told {
    let length = length.map(|length| length.to_string()).unwrap_or_default();
    let mut fields = vec![("content-length", &*length)];
    fields.retain(|(_, length)| !length.is_empty());
    let mut stream = connect(&lictor.address("gateway"));
    match version {
        Version::Http1 => {
            let is_chunked = fields.is_empty();
            let chunk = |piece: &&str| format!("{:x}\r\n{piece}\r\n", piece.len());
            let body =
                if is_chunked { pieces.iter().map(chunk).collect::<String>() + "0\r\n\r\n" } else { pieces.concat() };
            fields.extend(is_chunked.then_some(("transfer-encoding", "chunked")));
            let text = format!("POST /x HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n{body}", lines(&fields));
            told_http1(stream, text.as_bytes())
        }
        Version::Http2 => {
            let head = block(Ask { method: "POST", fields: &fields, ..Ask::get("/x") });
            let mut frames = [begun_http2(), frame(1, 4, 1, &head)].concat();
            for (number, piece) in pieces.iter().enumerate() {
                frames.extend(frame(0, u8::from(number + 1 == pieces.len()), 1, piece.as_bytes()));
            }
            stream.write_all(&frames).unwrap();
            told_http2(stream)
        }
    }
}

#[test]
fn a_copy_goes_under_its_own_name_without_what_shows_who_somebody_is() {
    let (one, (other, noted)) = (echo("one"), noting());
    let more = format!(
        "  other: {{static: ['127.0.0.1:{}'], headers: {{set: {{X-Partner-Key: k, X-Kind: b}}}}, retry: {{attempts: 3}}, fallback: {{body: no}}}}\n",
        other.port()
    );
    let routes = "  - {path: /a/*, to: one, strip: /a, mirror: other}
  - {path: /b/*, to: one, mirror: {to: other, credentials: true}}
  - {path: /none, to: one, mirror: {to: other, percent: 0%}}
  - {path: /plain, to: one}\n";
    let lictor = gateway_with(&[("one", &one)], &more, routes);
    let secrets = [
        ("authorization", "Bearer abc"),
        ("cookie", "session=1"),
        ("x-api-key", "k"),
        ("x-plain", "yes"),
        ("expect", ""),
    ];
    let mut count = 0;
    for version in BOTH {
        for target in ["/none", "/plain", "/a/x?y=z", "/b/x"] {
            let told = ask(&lictor, version, Ask { fields: &secrets[..4], ..Ask::get(target) });
            assert_eq!(told.server(), "one", "its own answer, whatever the copy's: {told:?}");
            assert!(told.body.contains("Bearer abc") && !told.body.contains("x-lictor-mirror"), "{told:?}");
            if matches!(target, "/none" | "/plain") {
                continue;
            }
            count += 1;
            eventually_is("the copy comes", || noted.lock().len(), |copies| *copies == count);
            let copy = noted.lock()[count - 1].to_ascii_lowercase();
            let path = if target == "/b/x" { "get /b/x http" } else { "get /x?y=z http" };
            assert!(copy.starts_with(path), "what goes on is copied: {copy}");
            for needed in
                ["host: other\r\n", "x-lictor-mirror: 1", "x-plain: yes", "x-kind: b", "x-forwarded-host: shop.example"]
            {
                assert!(copy.contains(needed), "{needed} in {copy}");
            }
            for secret in ["authorization", "cookie", "x-api-key", "x-partner-key"] {
                assert_eq!(copy.contains(secret), target == "/b/x", "{secret} in {copy}");
            }
            let of = |text: &str| field(text, "x-request-id").map(str::to_owned);
            assert_eq!(of(&copy), of(&told.body.to_ascii_lowercase()), "the same id");
        }
    }
    // It is no request of the caller's upstream, nor of the other's own, and has no line.
    let counted = |upstream| lictor.metric("lictor_upstream_requests_total", &[("upstream", upstream)]);
    eventually_is("all are counted", || counted("one"), |count| (*count - 8.0).abs() < 0.1);
    eventually_is("copies are counted", || counted("mirror:other"), |count| (*count - 2.0).abs() < 0.1);
    let with_credentials = || counted("mirror+credentials:other");
    eventually_is("and those with credentials", with_credentials, |count| (*count - 2.0).abs() < 0.1);
    assert!(counted("other") < 0.1);
    assert_eq!(noted.lock().len(), count, "500 is not retried");
    let lines = eventually_is("all are logged", || lictor.lines("request"), |lines| lines.len() >= 8);
    assert!(lines.iter().all(|line| line["upstream"] == "one"), "{lines:?}");
}

#[test]
fn bodies_are_copied_up_to_their_bound() {
    for version in BOTH {
        let (one, (other, noted)) = (echo("one"), noting());
        let routes = "  - {path: /*, to: one, mirror: {to: other, body_max: 1KiB}}\n";
        let lictor = gateway(&[("one", &one), ("other", &other)], routes);
        for length in [1, 1023, 1024] {
            let body = "b".repeat(length);
            assert_eq!(post(&lictor, version, &[&*body], Some(length)).status, 200);
            let is_it = |copy: &Option<String>| copy.as_ref().is_some_and(|copy| copy.ends_with(&body));
            eventually_is("the copy comes", || noted.lock().pop(), is_it);
        }
        assert_eq!(post(&lictor, version, &[&*"b".repeat(1025)], Some(1025)).status, 200);
        // In pieces, and nobody has said how long they will be.
        let piece = "c".repeat(256);
        for (pieces, is_copied) in [(3, true), (5, false)] {
            assert_eq!(post(&lictor, version, &vec![&*piece; pieces], None).status, 200);
            if is_copied {
                let body = piece.repeat(pieces);
                let is_it = |copy: &Option<String>| copy.as_ref().is_some_and(|copy| copy.ends_with(&body));
                let copy = eventually_is("the copy comes", || noted.lock().pop(), is_it).unwrap();
                assert_eq!(field(&copy.to_ascii_lowercase(), "content-length"), Some("768"), "{copy}");
            }
        }
        eventually_is("too long is counted", || mirrored(&lictor, "too_long"), |count| (*count - 2.0).abs() < 0.1);
        // A client that goes before its body is whole.
        let mut gone = connect(&lictor.address("gateway"));
        let begun = match version {
            Version::Http1 => b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".to_vec(),
            Version::Http2 => {
                let head = block(Ask { method: "POST", fields: &[("content-length", "10")], ..Ask::get("/x") });
                [begun_http2(), frame(1, 4, 1, &head), frame(0, 0, 1, b"abc")].concat()
            }
        };
        gone.write_all(&begun).unwrap();
        one.await_connections(1);
        drop(gone);
        eventually_is("it is not copied", || mirrored(&lictor, "unread"), |count| *count > 0.5);
        assert!((mirrored(&lictor, "sent") - 4.0).abs() < 0.1 && noted.lock().is_empty(), "{version:?}");
    }
}

#[test]
fn so_many_of_a_hundred_are_copied_as_the_route_says() {
    let (one, (other, _noted)) = (echo("one"), noting());
    let routes = "  - {path: /*, to: one, mirror: {to: other, percent: 50%}}\n";
    let lictor = gateway(&[("one", &one), ("other", &other)], routes);
    for _ in 0..200 {
        for version in BOTH {
            assert_eq!(ask(&lictor, version, Ask::get("/x")).server(), "one");
        }
    }
    let copies = lictor.metric("lictor_gateway_mirrored_total", &[]);
    // Of 400 throws of a coin: the mean, and four times their deviation of 10.
    assert!((160.0..=240.0).contains(&copies), "{copies} of 400");
}

#[test]
fn what_the_cache_answers_is_not_copied() {
    let (one, (other, noted)) = (echo("one"), noting());
    let routes = "  - {path: /*, to: one, cache: 60s, mirror: other}\n";
    let lictor = gateway(&[("one", &one), ("other", &other)], routes);
    for version in BOTH {
        let target = format!("/{version:?}");
        let told = [(); 3].map(|()| ask(&lictor, version, Ask::get(&target)));
        assert!(told.iter().all(|it| it.server() == "one" && it.body == told[0].body), "{version:?}: {told:?}");
        // What comes after them is copied after them.
        assert_eq!(ask(&lictor, version, Ask::get(&format!("{target}/last"))).server(), "one");
        eventually_is("the last is copied", || noted.lock().iter().any(|copy| copy.contains("/last ")), |is| *is);
        let copies = std::mem::take(&mut *noted.lock());
        assert_eq!(copies.len(), 2, "{version:?}: {copies:?}");
    }
}

#[test]
fn no_more_than_a_megabyte_of_a_copys_answer_is_read() {
    let (sent, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (counted, ended) = (Arc::clone(&sent), Arc::clone(&is_over));
    let floods = RawServer::start(move |mut stream| {
        if read_head(&mut stream).is_empty() {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'f'; 1 << 16];
        while stream.write_all(&piece).is_ok() {
            counted.fetch_add(1 << 16, Relaxed);
        }
        ended.store(true, Relaxed);
    });
    let one = echo("one");
    let lictor = gateway(&[("one", &one), ("floods", &floods)], "  - {path: /*, to: one, mirror: floods}\n");
    assert_eq!(ask(&lictor, Version::Http1, Ask::get("/x")).server(), "one");
    eventually_is("it is given up", || is_over.load(Relaxed), |is_over| *is_over);
    // And what the kernel has taken on both sides.
    let sent = sent.load(Relaxed);
    assert!((1 << 20..24 << 20).contains(&sent), "{sent} bytes");
}

#[test]
fn streams_and_upgrades_are_not_copied() {
    let (other, noted) = noting();
    let chat = RawServer::start(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        let _ = stream.read(&mut [0]);
    });
    let one = echo("one");
    let routes = "  - {path: /chat, to: chat, mirror: other}\n  - {path: /*, to: one, mirror: other}\n";
    let lictor = gateway(&[("one", &one), ("chat", &chat), ("other", &other)], routes);
    let mut stream = connect(&lictor.address("gateway"));
    stream.write_all(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101"));
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    ask(&lictor, Version::Http2, Ask { method: "POST", fields: &grpc, ..Ask::get("/pkg.Service/Method") });
    assert_eq!(ask(&lictor, Version::Http2, Ask::get("/x")).server(), "one");
    eventually_is("a control is copied", || noted.lock().len(), |copies| *copies == 1);
    assert!(noted.lock()[0].starts_with("GET /x"), "{noted:?}");
}

/// The time that all but one of a hundred took at most, of two that are asked in turn, each on a connection of its own.
fn p99(lictor: &Sidecar, targets: [&str; 2]) -> [Duration; 2] {
    let mut streams = targets.map(|_| connect(&lictor.address("gateway")));
    let mut times = [const { Vec::new() }; 2];
    for number in 0..600 {
        let which = number % 2;
        let (stream, target) = (&mut streams[which], targets[which]);
        let began = Instant::now();
        write!(stream, "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").unwrap();
        assert_eq!(told_on(stream).status, 200);
        times[which].push(began.elapsed());
    }
    times.map(|mut times: Vec<Duration>| {
        times.sort();
        times[297]
    })
}

#[test]
fn whoever_hangs_floods_or_closes_costs_the_caller_nothing() {
    let hangs = RawServer::start(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let floods = RawServer::start(|mut stream| {
        let _ = read_head(&mut stream);
        let piece = format!("10000\r\n{}\r\n", "f".repeat(1 << 16));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(piece.as_bytes()).is_ok() {}
    });
    let closes = RawServer::start(|mut stream| drop(read_head(&mut stream)));
    let one = echo("one");
    let mirror = |to: &str| format!("  - {{path: /{to}, to: one, mirror: {{to: {to}, max_running: 20}}}}\n");
    let routes = ["hangs", "floods", "closes", "nobody"].map(mirror).concat() + "  - {path: /plain, to: one}\n";
    let servers = [("one", &one), ("hangs", &hangs), ("floods", &floods), ("closes", &closes)];
    let more = "  nobody: {static: ['127.0.0.1:1']}\n";
    let lictor = Sidecar::serve(LICTOR, &configuration(&servers, more, "", &routes)).up();
    p99(&lictor, ["/plain", "/plain"]);
    let before = lictor.resident();
    for to in ["hangs", "floods", "closes", "nobody"] {
        // In turn with requests without copies, and the best of a few: other tests run on this machine too.
        let target = format!("/{to}");
        let rounds = [(); 4].map(|()| p99(&lictor, [&target, "/plain"]));
        let best = |which: usize| rounds.iter().map(|round| round[which]).min().unwrap();
        let (with, without) = (best(0), best(1));
        assert!(with < without * 2 + Duration::from_millis(5), "{to}: {with:?} with copies, {without:?} without");
    }
    // Each has half a minute: on a busy machine the first may be over before the last is asked for.
    let busy = lictor.metric("lictor_gateway_mirrored_total", &[("upstream", "mirror:hangs"), ("outcome", "busy")]);
    assert!(busy > 500.0 && (20..=100).contains(&hangs.connections()), "{busy}, {}", hangs.connections());
    let grown = lictor.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert!(mirrored(&lictor, "sent") > 100.0);
}
