//! Whose request it is: who connects, or whom a trusted proxy brings.

use std::io::Write;
use std::net::TcpStream;

use lictor_testkit::{Sidecar, connect_from, eventually};

use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask_over, begun_http2, block, configuration, echo, frame, gateway_of, told_http1,
    told_http2, told_on,
};

const TRUSTED: &str = "  trusted_proxies: [127.0.0.2, 127.0.0.3/32, '::1', 192.0.2.0/24]\n";

/// Names and values.
type Lines<'a> = &'a [(&'a str, &'a str)];

fn from(lictor: &Sidecar, source: &str) -> TcpStream {
    connect_from(source, &lictor.address("gateway"))
}

/// The values of a field that a service got, one for each line.
pub(crate) fn seen(told: &Told, name: &str) -> Vec<String> {
    let of = |line: &str| {
        let (own, value) = line.split_once(": ")?;
        own.eq_ignore_ascii_case(name).then(|| value.to_owned())
    };
    told.body.lines().filter_map(of).collect()
}

#[test]
fn a_trusted_proxy_says_who_the_client_is_and_nobody_else() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], TRUSTED, "    - {path: /*, to: one}\n");
    let rows: &[(&str, Lines<'_>, &str)] = &[
        ("127.0.0.1", &[("X-Forwarded-For", "203.0.113.7")], "127.0.0.1"),
        ("127.0.0.4", &[("X-Forwarded-For", "127.0.0.2"), ("Forwarded", "for=203.0.113.7")], "127.0.0.4"),
        ("127.0.0.2", &[], "127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "203.0.113.7")], "203.0.113.7, 127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "1.1.1.1, 203.0.113.7")], "203.0.113.7, 127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7, 127.0.0.2"),
        (
            "127.0.0.3",
            &[("X-Forwarded-For", "127.0.0.9, 203.0.113.7, 192.0.2.8"), ("X-Forwarded-For", "127.0.0.2")],
            "203.0.113.7, 192.0.2.8, 127.0.0.2, 127.0.0.3",
        ),
        ("127.0.0.2", &[("X-Forwarded-For", "::ffff:203.0.113.7")], "203.0.113.7, 127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "[2001:db8::7]:4711")], "2001:db8::7, 127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "203.0.113.7, nonsense")], "127.0.0.2"),
        ("127.0.0.2", &[("X_Forwarded_For", "203.0.113.7")], "127.0.0.2"),
        ("127.0.0.2", &[("X-Real-IP", "203.0.113.7"), ("X-Client-IP", "203.0.113.7")], "127.0.0.2"),
        ("127.0.0.2", &[("Forwarded", "for=1.1.1.1, For=\"203.0.113.7:80\";proto=http")], "203.0.113.7, 127.0.0.2"),
        (
            "127.0.0.2",
            &[("Forwarded", "for=203.0.113.7"), ("X-Forwarded-For", "203.0.113.7")],
            "203.0.113.7, 127.0.0.2",
        ),
        ("127.0.0.2", &[("Forwarded", "for=203.0.113.7"), ("X-Forwarded-For", "203.0.113.8")], "127.0.0.2"),
        ("127.0.0.2", &[("Forwarded", "for=203.0.113.7:80"), ("X-Forwarded-For", "203.0.113.7")], "127.0.0.2"),
    ];
    for version in BOTH {
        for (source, fields, expected) in rows {
            let told = ask_over(from(&lictor, source), version, Ask { fields, ..Ask::get("/") });
            assert_eq!(told.server(), "one", "{version:?} {source} {fields:?}: {told:?}");
            assert_eq!(seen(&told, "x-forwarded-for"), [*expected], "{version:?} {source} {fields:?}");
            for gone in ["forwarded", "x-real-ip", "x_forwarded_for", "x-client-ip"] {
                assert!(seen(&told, gone).is_empty(), "{version:?} {source} {fields:?}: {}", told.body);
            }
            let id = seen(&told, "x-request-id").remove(0);
            let client = expected.split(", ").next().unwrap();
            eventually("its line is there", || {
                let lines = lictor.lines("request");
                let line = lines.into_iter().find(|line| line["request_id"] == id.as_str()).ok_or("none")?;
                if line["ip"] == client { Ok(()) } else { Err("of another client") }
            });
        }
    }
}

#[test]
fn what_was_asked_of_a_trusted_proxy_goes_on_once_and_of_nobody_else() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], TRUSTED, "    - {path: /*, to: one}\n");
    let fields = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Host", "www.example:8443"),
        ("X-Forwarded-Port", "8443"),
        ("X-Forwarded-Prefix", "/spoofed"),
        ("X-Forwarded-Client-Cert", "spoofed"),
        ("X-User-ID", "spoofed"),
    ];
    let standard = [("Forwarded", "for=203.0.113.7;proto=https;host=\"www.example:8443\"")];
    let broken = [("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a/b"), ("X-Forwarded-Port", "x")];
    let ours = ["http", "shop.example", ""];
    for version in BOTH {
        for (source, fields, expected) in [
            ("127.0.0.2", &fields[..], ["https", "www.example:8443", "8443"]),
            ("127.0.0.2", &standard[..], ["https", "www.example:8443", ""]),
            ("127.0.0.1", &fields[..], ours),
            ("127.0.0.1", &standard[..], ours),
            ("127.0.0.2", &broken[..], ours),
        ] {
            let told = ask_over(from(&lictor, source), version, Ask { fields, ..Ask::get("/") });
            let names = ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];
            let lines = names.map(|name| seen(&told, name).join(" and "));
            assert_eq!(lines, expected, "{version:?} {source}: {told:?}");
            assert!(!told.body.contains("spoofed"), "{version:?} {source}: {told:?}");
        }
    }
}

#[test]
fn services_are_told_by_the_standard_field_where_it_is_asked_for() {
    let one = echo("one");
    let keys = format!("{TRUSTED}  forwarded: true\n");
    let lictor = gateway_of(&[("one", &one)], &keys, "    - {path: /*, to: one}\n");
    for version in BOTH {
        for (source, xff, expected) in [
            ("127.0.0.1", "203.0.113.7", "for=127.0.0.1;host=shop.example;proto=http"),
            ("127.0.0.2", "1.1.1.1, 203.0.113.7", "for=203.0.113.7;host=shop.example;proto=http, for=127.0.0.2"),
            ("127.0.0.2", "2001:db8::7", "for=\"[2001:db8::7]\";host=shop.example;proto=http, for=127.0.0.2"),
        ] {
            let fields = [("X-Forwarded-For", xff)];
            let told = ask_over(from(&lictor, source), version, Ask { fields: &fields, ..Ask::get("/") });
            assert_eq!(seen(&told, "forwarded"), [expected], "{version:?} {source} {xff}: {told:?}");
        }
    }
}

#[test]
fn no_client_takes_its_proxys_word_away() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], TRUSTED, "    - {path: /*, to: one}\n");
    for (source, named, status) in [
        ("127.0.0.2", "x-forwarded-for", 400),
        ("127.0.0.2", "X-Forwarded-Proto", 400),
        ("127.0.0.2", "Forwarded", 400),
        ("127.0.0.2", "x-custom", 200),
        ("127.0.0.1", "x-forwarded-for", 200),
    ] {
        let text = format!(
            "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close, {named}\r\n\r\n"
        );
        let told = told_http1(from(&lictor, source), text.as_bytes());
        assert_eq!(told.status, status, "{source} {named}: {told:?}");
    }
    // HTTP/2 has no such field (RFC 9113, section 8.2.2).
    let fields = [("x-forwarded-for", "203.0.113.7"), ("connection", "x-forwarded-for")];
    let told = ask_over(from(&lictor, "127.0.0.2"), Version::Http2, Ask { fields: &fields, ..Ask::get("/") });
    assert_ne!(told.status, 200, "{told:?}");
    let told = ask_over(from(&lictor, "127.0.0.2"), Version::Http2, Ask { fields: &fields[..1], ..Ask::get("/") });
    assert_eq!(seen(&told, "x-forwarded-for"), ["203.0.113.7, 127.0.0.2"], "the control: {told:?}");
    // Trailers are fields too.
    let text = "POST / HTTP/1.1\r\nHost: shop.example\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    let told = told_http1(from(&lictor, "127.0.0.2"), text.as_bytes());
    assert!(told.status == 200 && !told.body.contains("203.0.113.7"), "{told:?}");
}

#[test]
fn an_address_is_one_however_its_family_is_written() {
    let one = echo("one");
    for (listen, source, connects) in [("[::]:0", "127.0.0.2", "127.0.0.1"), ("[::1]:0", "::1", "[::1]")] {
        let yaml = format!(
            "registration: off\ngateway:\n  listen: '{listen}'\n{TRUSTED}  routes: {{/*: one}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n",
            one.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let address = lictor.address("gateway");
        let port = address.rsplit(':').next().unwrap();
        let fields = [("X-Forwarded-For", "203.0.113.7")];
        for version in BOTH {
            let stream = connect_from(source, &format!("{connects}:{port}"));
            let told = ask_over(stream, version, Ask { fields: &fields, ..Ask::get("/") });
            let client = [format!("203.0.113.7, {source}")];
            assert_eq!(seen(&told, "x-forwarded-for"), client, "{listen} {version:?}: {told:?}");
        }
    }
}

#[test]
fn a_proxy_that_is_trusted_no_more_is_believed_no_more() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], TRUSTED, "    - {path: /*, to: one}\n");
    let mut kept = from(&lictor, "127.0.0.2");
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    let mut xff = || {
        kept.write_all(ask.as_bytes()).unwrap();
        seen(&told_on(&mut kept), "x-forwarded-for").remove(0)
    };
    let mut kept_http2 = from(&lictor, "127.0.0.2");
    kept_http2.write_all(&begun_http2()).unwrap();
    let mut last = 1;
    let mut xff_http2 = || {
        let asked = block(Ask { fields: &[("x-forwarded-for", "203.0.113.7")], ..Ask::get("/") });
        kept_http2.write_all(&frame(1, 5, last, &asked)).unwrap();
        last += 2;
        seen(&told_http2(&mut kept_http2), "x-forwarded-for").remove(0)
    };
    assert_eq!((xff(), xff_http2()), ("203.0.113.7, 127.0.0.2".to_owned(), "203.0.113.7, 127.0.0.2".to_owned()));
    lictor.rewrite(&configuration(&[("one", &one)], "", "", "    - {path: /*, to: one}\n"));
    assert_eq!(lictor.post("/reload").status, 200);
    eventually("it is forgotten on a connection that stays", || match xff() {
        told if told == "127.0.0.2" => Ok(()),
        told => Err(told),
    });
    assert_eq!(xff_http2(), "127.0.0.2", "and on one of HTTP/2");
}
