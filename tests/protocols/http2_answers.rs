//! What lictor makes of HTTP/2 servers beyond what the wire does: what is sent again, to whom, and who is given up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_testkit::{Sidecar, eventually_is};
use parking_lot::Mutex;

use crate::LICTOR;
use crate::corpora::frames::*;
use crate::corpora::http2_answers::{ENDS, Link, Server, ask, head_and};

#[test]
fn what_speaks_no_http2_is_named() {
    for (greeting, reason, why) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "protocol_error", "HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "protocol_error", "larger than allowed"),
        (&head_and(1, b"x"), "protocol_error", "SETTINGS come first"),
        (&frame(SETTINGS, ACK, 0, b""), "protocol_error", "SETTINGS come first"),
        (b"", "reset_before_response", "closed the connection"),
    ] {
        let greeting = greeting.to_vec();
        let server = Server::start(move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&greeting);
        });
        let lictor = caller_of(&[server.port], ", retry: off");
        let got = ask(&lictor.address("users"), "GET", "/", b"");
        assert_eq!((got.status, got.told().only("x-lictor-reason")), (502, Some(reason)), "{got:?}");
        assert!(got.body.contains(why), "{why}: {got:?}");
    }
}

/// Which failures are tried again: what was not looked at always, another only when that does no harm (section 8.7).
#[test]
fn requests_that_were_not_looked_at_are_sent_again() {
    type Once = fn(&mut Link, u32);
    let acts: [(&str, u32, u32, Once); 5] = [
        ("REFUSED_STREAM", 2, 2, |link, id| link.send(&[frame(RST_STREAM, 0, id, &7_u32.to_be_bytes())])),
        ("GOAWAY below", 2, 2, |link, _| link.send(&[frame(GOAWAY, 0, 0, &[0; 8])])),
        ("INTERNAL_ERROR", 2, 1, |link, id| link.send(&[frame(RST_STREAM, 0, id, &2_u32.to_be_bytes())])),
        ("the end", 2, 1, |link, _| link.is_over = true),
        ("a malformed answer", 2, 1, |link, id| link.send(&[frame(HEADERS, ENDS, id, b"\x88\x88")])),
    ];
    for (name, gets, posts, act) in acts {
        for (method, due) in [("GET", gets), ("POST", posts)] {
            let hits = Arc::new(Mutex::new(0));
            let counted = Arc::clone(&hits);
            let server = Server::http2(move |link, id, _| {
                *counted.lock() += 1;
                if *counted.lock() == 1 { act(link, id) } else { link.send(&[head_and(id, b"second")]) }
            });
            let lictor = caller_of(&[server.port], "");
            let got = ask(&lictor.address("users"), method, "/", b"");
            let expected = if due == 2 { 200 } else { 502 };
            assert_eq!((got.status, *hits.lock()), (expected, due), "{name} {method}: {got:?}");
        }
    }
}

/// A kernel takes connections that its server, which is about to stop, never accepts. What must not be done twice is
/// therefore not sent before the server has said anything.
#[test]
fn posts_wait_for_a_server_that_is_there() {
    let dying = Server::start(|stream| {
        let mut link = Link::new(stream);
        link.is_mute = true;
        link.next();
    });
    let good = Server::http2(|link, id, _| link.send(&[head_and(id, b"")]));
    let lictor = caller_of(&[dying.port, good.port], ", balance: round_robin");
    for _ in 0..4 {
        let got = ask(&lictor.address("users"), "POST", "/", b"once");
        assert_eq!(got.status, 200, "{got:?}");
    }
    assert!(dying.accepted() > 0);
    assert_eq!(good.asked(), 4);
}

/// Those who wait have their places: a connection is not given more than it may have.
#[test]
fn posts_that_wait_for_settings_are_counted() {
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let server = Server::start(move |stream| {
        let mut link = Link::new(stream);
        may_go.lock().recv().unwrap();
        link.send(&[settings(&[])]);
        while let Some(frame) = link.next() {
            if frame.kind == DATA && frame.flags & END_STREAM != 0 {
                link.send(&[head_and(frame.stream, b"")]);
            }
        }
    });
    let lictor = caller_of(&[server.port], ", pool: {max_streams: 2}");
    let address = lictor.address("users");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(&address, "POST", "/", b"once"))).collect();
        eventually_is("two connections are made for four requests", || server.accepted(), |count| *count == 2);
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        for asked in asking {
            let got = asked.join().unwrap();
            assert_eq!(got.status, 200, "{got:?}");
        }
    });
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_server_that_answers_no_ping_is_given_up() {
    // It takes all requests and says nothing. The other one is asked instead as soon as that is known.
    let silent = Server::http2(|link, _, _| link.is_mute = true);
    let lictor = caller_of(&[silent.port], ", timeout: off, retry: off");
    let began = Instant::now();
    let got = ask(&lictor.address("users"), "GET", "/", b"");
    assert_eq!((got.status, got.told().only("x-lictor-reason")), (502, Some("reset_before_response")), "{got:?}");
    assert!((20..45).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn a_request_that_is_given_up_asks_whether_its_server_is_there() {
    let links = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&links);
    let server = Server::http2(move |link, id, path| match path {
        "/silent" => {
            link.is_mute = true;
            *counted.lock() += 1;
        }
        _ => link.send(&[head_and(id, b"here")]),
    });
    let lictor =
        caller_of(&[server.port], ", timeout: 1500ms, retry: off, ejection: off, breaker: off, pool: {idle: 1h}");
    let address = lictor.address("users");
    assert_eq!(ask(&address, "GET", "/silent", b"").status, 504);
    // Nobody asks for anything meanwhile; the connection ends 10 s after the request was given up.
    let began = Instant::now();
    eventually_is("the connection ends", || server.open(), |open| *open == 0);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!(ask(&address, "GET", "/", b"").body, "here");
}

#[test]
fn the_servers_limit_of_streams_is_kept() {
    let worst = Arc::new(Mutex::new((0_i32, 0_i32)));
    let seen = Arc::clone(&worst);
    let server = Server::start(move |stream| {
        let mut link = Link::new(stream);
        link.send(&[settings(&[(3, 2)])]);
        let mut open: Vec<u32> = Vec::new();
        let mut answered = false;
        while let Some(frame) = link.next() {
            if frame.kind == HEADERS {
                open.push(frame.stream);
                if link.acks > 0 {
                    let mut worst = seen.lock();
                    worst.0 = worst.0.max(open.len() as i32);
                }
            }
            if frame.kind == SETTINGS && frame.flags & ACK != 0 {
                answered = true;
            }
            if answered {
                open.drain(..).for_each(|id| link.send(&[head_and(id, b"x")]));
            }
        }
    });
    let lictor = caller_of(&[server.port], ", retry: off");
    let address = lictor.address("users");
    assert_eq!(ask(&address, "GET", "/", b"").status, 200);
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(&address, "GET", "/", b"").status)).collect();
        for asked in asks {
            assert_eq!(asked.join().unwrap(), 200);
        }
    });
    assert!(worst.lock().0 <= 2, "{:?}", worst.lock());
}

#[test]
fn a_thousand_streams_share_one_connection() {
    let server = Server::start(|stream| {
        let mut link = Link::new(stream);
        link.send(&[settings(&[(3, 1000)])]);
        let mut open = Vec::new();
        let mut is_first = true;
        while let Some(frame) = link.next() {
            if frame.kind == HEADERS {
                open.push(frame.stream);
            }
            // The first one alone, the others all together.
            if (is_first && open.len() == 1) || open.len() == 1000 {
                is_first = false;
                open.drain(..).for_each(|id| link.send(&[head_and(id, format!("answer {id}").as_bytes())]));
            }
        }
    });
    let lictor = caller_of(&[server.port], ", retry: off, pool: {max_streams: 1000}");
    let address = lictor.address("users");
    assert_eq!(ask(&address, "GET", "/", b"").status, 200);
    let mut client = Link::of(TcpStream::connect(&address).unwrap());
    let get = fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "users")]);
    let asks: Vec<Vec<u8>> = (0..1000).map(|index| block(2 * index + 1, &get)).collect();
    client.send(&[PREFACE.into(), settings(&[]), window(0, 1 << 20), asks.concat()]);
    let (mut ended, mut bytes) = (0, 0);
    while ended < 1000 {
        let frame = client.next().expect("all are answered");
        assert!(frame.kind != RST_STREAM && frame.kind != GOAWAY, "{frame:?}");
        if frame.kind == DATA {
            bytes += frame.payload.len();
            ended += usize::from(frame.flags & END_STREAM != 0);
        }
    }
    assert!(bytes > 1000 * "answer 3".len());
    assert_eq!(server.accepted(), 1);
}

fn caller_of(ports: &[u16], more: &str) -> Sidecar {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nupstreams:\n  users: {{listen: 0, protocol: h2c, static: [{}]{more}}}\n",
        endpoints.join(", ")
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// gRPC's failures are the endpoint's, wherever they stand: it is given a rest, the service is not.
#[test]
fn a_grpc_instance_that_always_fails_is_ejected_and_the_breaker_stays_closed() {
    type Fail = fn(&mut Link, u32);
    fn status(code: &str) -> Vec<u8> {
        [&b"\x00\x0bgrpc-status"[..], &[code.len() as u8], code.as_bytes()].concat()
    }
    fn with_trailers(link: &mut Link, id: u32, code: &str) {
        link.send(&[frame(HEADERS, END_HEADERS, id, b"\x88"), frame(DATA, 0, id, b"x")]);
        link.send(&[frame(HEADERS, ENDS, id, &status(code))]);
    }
    let forms: [(&str, Fail); 2] = [
        ("in the head", |link, id| link.send(&[frame(HEADERS, ENDS, id, &[b"\x88", &status("14")[..]].concat())])),
        ("in the trailers", |link, id| with_trailers(link, id, "13")),
    ];
    for (form, fail) in forms {
        for balance in ["p2c_ewma", "round_robin", "random", "least_request"] {
            let hits = Arc::new(Mutex::new(0));
            let counted = Arc::clone(&hits);
            let bad = Server::http2(move |link, id, _| {
                *counted.lock() += 1;
                fail(link, id);
            });
            let good = Server::http2(|link, id, _| with_trailers(link, id, "0"));
            let yaml = format!(
                "registration: off\nworkers: 1\nupstreams:\n  users: {{listen: 0, protocol: grpc, retry: off, balance: {balance}, ejection: {{base: 1m}}, static: ['127.0.0.1:{}', '127.0.0.1:{}']}}\n",
                bad.port, good.port
            );
            let lictor = Sidecar::serve(LICTOR, &yaml).up();
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            for _ in 0..60 {
                let answer = lictor_testkit::request(&lictor.address("users"), "POST", "/a/b", &headers, b"x").unwrap();
                assert_eq!(answer.status, 200);
            }
            assert!((1..=5).contains(&*hits.lock()), "{form}, {balance}: {} of 60", hits.lock());
            assert_eq!(lictor.page("/breakers")["users"]["state"], "closed", "{form}, {balance}");
        }
    }
}

/// As many fields as over HTTP/1.1, and no more.
#[test]
fn an_answer_has_as_many_fields_over_either_version() {
    for (fields, status) in [(100, 200), (101, 502)] {
        let block: Vec<u8> = std::iter::once(0x88)
            .chain(
                (0..fields)
                    .flat_map(|number: u32| [&b"\x00\x05x-"[..], format!("{number:03}\x011").as_bytes()].concat()),
            )
            .collect();
        let http2 = Server::http2(move |link, id, _| link.send(&[frame(HEADERS, ENDS, id, &block)]));
        // Content-Length is one of them.
        let lines: String = (1..fields).map(|number| format!("x-{number:03}: 1\r\n")).collect::<Vec<_>>().concat();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
        let http1 = lictor_testkit::RawServer::answering(answer);
        let yaml = format!(
            "registration: off\nupstreams:\n  two: {{listen: 0, protocol: h2c, static: ['127.0.0.1:{}']}}\n  one: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
            http2.port,
            http1.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        for upstream in ["one", "two"] {
            let got = ask(&lictor.address(upstream), "GET", "/", b"");
            assert_eq!(got.status, status, "{upstream}: {got:?}");
            assert!(status == 200 || got.body.contains("more than 100 fields"), "{upstream}: {got:?}");
        }
    }
}
