//! Connections that others bring: the PROXY protocol, before everything else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lictor_testkit::{Authority, Sidecar, connect_from, eventually_is};
use rustls::version::{TLS12, TLS13};

use crate::client::seen;
use crate::tls::tls_over;
use crate::{Ask, BOTH, LICTOR, ask_over, echo, line_of};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// From 203.0.113.7:4711.
const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, kind], &length, rest].concat()
}

/// RFC 9260, appendix A: bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let turn = |sum: u32, _: u32| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), turn))
}

/// A gateway that expects a header, of 127.0.0.2 and whoever 203.0.113.0/24 would be.
fn expecting(port: u16, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\ngateway:\n  listen: {{address: '127.0.0.1:0', proxy_protocol: true}}\n  trusted_proxies: [127.0.0.2, 198.51.100.0/24]\n{more}  routes: {{/*: one}}\nupstreams: {{one: {{static: ['127.0.0.1:{port}']}}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn from(lictor: &Sidecar, source: &str) -> TcpStream {
    connect_from(source, &lictor.address("gateway"))
}

/// What comes back before the end, of a connection that may be closed at any time.
fn answered(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a reset is an end too
    answer
}

#[test]
fn a_header_says_whose_the_connection_is() {
    let one = echo("one");
    let lictor = expecting(one.port(), "");
    let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 16], &V4[8..]].concat();
    let tlvs = [&V4[..], &[4, 0, 2, 9, 9, 0xe0, 0, 0]].concat();
    let long = [&V4[..], &[0xe1, 0x20, 0], &vec![7; 0x2000]].concat();
    let zeroed = v2(0x21, 0x11, &[&V4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let with_checksum = [&zeroed[..zeroed.len() - 4], &crc32c(&zeroed).to_be_bytes()].concat();
    let trusted = [198, 51, 100, 1, 10, 0, 0, 1, 0, 1, 0, 1];
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.2"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.2"),
        (v2(0x21, 0x11, &V4), "203.0.113.7"),
        (v2(0x21, 0x21, &v6), "2001:db8::7"),
        (v2(0x21, 0x11, &tlvs), "203.0.113.7"),
        (v2(0x21, 0x11, &long), "203.0.113.7"),
        (with_checksum, "203.0.113.7"),
        (v2(0x21, 0x31, &[0; 216]), "127.0.0.2"),
        (v2(0x21, 0x00, &[]), "127.0.0.2"),
        (v2(0x20, 0x00, &[]), "127.0.0.2"),
        (v2(0x20, 0x11, &V4), "127.0.0.2"),
        (v2(0x21, 0x11, &trusted), "198.51.100.1"),
    ];
    for version in BOTH {
        for (header, client) in &rows {
            let mut stream = from(&lictor, "127.0.0.2");
            stream.write_all(header).unwrap();
            // Whom it brings is no proxy, or is one that says so by its fields.
            let fields = [("X-Forwarded-For", "192.0.2.9")];
            let told = ask_over(stream, version, Ask { fields: &fields, ..Ask::get("/") });
            let expected = match *client {
                "203.0.113.7" | "2001:db8::7" => (*client).to_owned(),
                trusted => format!("192.0.2.9, {trusted}"),
            };
            assert_eq!(seen(&told, "x-forwarded-for"), [expected], "{version:?} {header:?}: {told:?}");
        }
    }
    for (version, header) in BOTH.into_iter().flat_map(|version| [0, 7].map(|row| (version, &rows[row].0))) {
        let mut stream = from(&lictor, "127.0.0.2");
        for byte in header {
            stream.write_all(&[*byte]).unwrap();
        }
        let told = ask_over(stream, version, Ask::get("/"));
        assert_eq!(seen(&told, "x-forwarded-for"), ["203.0.113.7"], "byte by byte, {version:?}: {told:?}");
    }
}

#[test]
fn without_a_header_from_a_proxy_nothing_is_answered() {
    let one = echo("one");
    let lictor = expecting(one.port(), "");
    let good = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let with_checksum = |sum: [u8; 4]| v2(0x21, 0x11, &[&V4[..], &[3, 0, 4], &sum].concat());
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("127.0.0.2", Vec::new()),
        ("127.0.0.1", Vec::new()),
        ("127.0.0.1", good.clone()),
        ("127.0.0.3", v2(0x21, 0x11, &V4)),
        ("127.0.0.2", b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n".to_vec()),
        ("127.0.0.2", b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 66443\r\n".to_vec()),
        ("127.0.0.2", b"PROXY TCP6 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec()),
        ("127.0.0.2", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200], b"\r\n".to_vec()].concat()),
        ("127.0.0.2", v2(0x31, 0x11, &V4)),
        ("127.0.0.2", v2(0x22, 0x11, &V4)),
        ("127.0.0.2", v2(0x21, 0x11, &V4[..8])),
        ("127.0.0.2", v2(0x21, 0x11, &[&V4[..], &[4, 0, 99]].concat())),
        ("127.0.0.2", with_checksum([1, 2, 3, 4])),
    ];
    for (source, header) in &rows {
        let answer = answered(from(&lictor, source), &[header, &request[..]].concat());
        assert!(answer.is_empty(), "{source} {header:?}: {}", String::from_utf8_lossy(&answer));
    }
    let refused = || lictor.metric("lictor_proxy_protocol_refused_total", &[]) as usize;
    eventually_is("each is counted", refused, |count| *count == rows.len());
    let served = answered(from(&lictor, "127.0.0.2"), &[&good, &request[..]].concat());
    assert!(served.starts_with(b"HTTP/1.1 200"), "the control: {}", String::from_utf8_lossy(&served));
    // A second header is the client's own.
    let twice = answered(from(&lictor, "127.0.0.2"), &[&good, &good, &request[..]].concat());
    assert!(twice.is_empty() || twice.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&twice));
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let one = echo("one");
    let lictor = expecting(one.port(), "");
    for begun in [&b""[..], b"PROXY TCP4 203.0", SIGNATURE] {
        let mut stream = from(&lictor, "127.0.0.2");
        stream.write_all(begun).unwrap();
        let since = Instant::now();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{begun:?}");
        let took = since.elapsed();
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(20), "{begun:?}: {took:?}");
    }
}

#[test]
fn tls_comes_after_the_header() {
    let (one, authority) = (echo("one"), Authority::new());
    let pair = authority.issue("server", &["shop.example"]);
    let tls = format!("  tls: {{cert: '{}', key: '{}'}}\n", pair.cert.display(), pair.key.display());
    let lictor = expecting(one.port(), &tls);
    let config = authority.client_config(&[], &[&TLS12, &TLS13], None);
    for header in [b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(), v2(0x21, 0x11, &V4)] {
        let mut stream = from(&lictor, "127.0.0.2");
        stream.write_all(&header).unwrap();
        let told = ask_over(tls_over(stream, &config, "shop.example").unwrap(), BOTH[0], Ask::get("/"));
        assert_eq!(seen(&told, "x-forwarded-for"), ["203.0.113.7"], "{told:?}");
        assert_eq!(seen(&told, "x-forwarded-proto"), ["https"], "{told:?}");
    }
    // Not the other way round.
    assert!(tls_over(from(&lictor, "127.0.0.2"), &config, "shop.example").is_err());
}

#[test]
fn who_is_sent_to_https_comes_by_the_same_proxies() {
    let one = echo("one");
    let yaml = format!(
        "registration: off\ngateway: {{listen: '127.0.0.1:0', trusted_proxies: [127.0.0.2], redirect_http: {{address: '127.0.0.1:0', proxy_protocol: true, port: 8443}}, routes: {{/*: one}}}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n",
        one.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n";
    let redirect = || connect_from("127.0.0.2", &lictor.address("redirect_http"));
    assert!(answered(redirect(), request).is_empty());
    let told = answered(redirect(), &[&header[..], request].concat());
    let told = String::from_utf8_lossy(&told).to_lowercase();
    assert!(told.starts_with("http/1.1 301") && told.contains("location: https://a:8443/a\r\n"), "{told}");
    assert_eq!(line_of(&lictor, |line| line["status"] == 301)["ip"], "203.0.113.7");
    let other = answered(connect_from("127.0.0.2", &lictor.address("gateway")), request);
    assert!(other.starts_with(b"HTTP/1.1 200"), "a header is expected where it is said");
}
