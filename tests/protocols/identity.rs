//! What whoever is behind us may rely on: no field that a stranger sends is taken for one that lictor writes, checks or takes
//! off, whatever its name is made of, in both versions and both directions.

use std::io::{Read, Write};

use lictor_testkit::{Authority, Backend, RawServer, Sidecar, connect, eventually_is, get_over, read_head};
use parking_lot::Mutex;
use rustls::version::{TLS12, TLS13};
use std::sync::Arc;

use crate::LICTOR;
use crate::corpora::frames::{AUTHORITY, METHOD, PATH, PREFACE, SCHEME, block, fields, settings};

const FORGED: &str = "forged";

/// Names that a program may take for one that lictor vouches for; none of them goes on, from whomever.
const SHADOWS: [&str; 20] = [
    "X_Forwarded_For",
    "x_forwarded_for",
    "X-Forwarded_For",
    "X_Forwarded-Proto",
    "X_Forwarded_Host",
    "X.Forwarded.For",
    "X~Forwarded!For",
    "X_Service_Auth",
    "X-Service_Auth",
    "X_Service-Auth",
    "X_Request_ID",
    "X_Lictor_From",
    "X_Lictor_To",
    "X_User_ID",
    "X-User_Role",
    "X_User.Role",
    "Content_Length",
    "Transfer_Encoding",
    "Proxy_Authorization",
    "X_Partner_Key", // `headers.set` of the upstream
];
/// Signs that mean nothing go on as they are.
const OTHERS: [&str; 5] = ["X_Custom", "api_key", "X_Forwarded", "X_Userid", "sec-ch_ua"];
/// Who somebody is.
const IDENTITY: [&str; 6] =
    ["X-Lictor-From", "X-Lictor-Anything", "X-User-ID", "X-User-Role", "X-User-Email", "X-Gateway-Request-ID"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Other machines' to our application, whoever they are.
    Open,
    /// The same, by the service token.
    Token,
    /// Our application's to a callee.
    Out,
}

/// The names, in lower case, that got through with the value that was sent.
fn passed(way: Way, is_client_http2: bool, protocol: &str) -> Vec<String> {
    let app = Backend::start("app");
    let yaml = format!(
        "registration: off\nservice: orders\nport: {port}\napp: {{protocol: {protocol}}}\ninbound: {{listen: '127.0.0.1:0'}}\n{token}upstreams:\n  \
         users: {{listen: 0, protocol: {protocol}, static: ['127.0.0.1:{port}'], headers: {{set: {{X-Partner-Key: ours}}}}}}\n",
        port = app.port(),
        token = if way == Way::Token { "service_token: a-token-of-ours\n" } else { "" },
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let address = lictor.address(if way == Way::Out { "users" } else { "inbound" });
    let sent: Vec<(&str, &str)> = SHADOWS
        .iter()
        .chain(&OTHERS)
        .chain(&IDENTITY)
        .map(|name| (*name, FORGED))
        .chain([("X-Service-Auth", "a-token-of-ours")])
        .collect();
    let text = if is_client_http2 { over_http2(&address, &sent) } else { over_http1(&address, &sent) };
    assert!(text.contains("app GET / "), "{way:?}: {text}");
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(_, value)| value.contains(FORGED)).map(|(name, _)| name.to_owned()).collect()
}

fn over_http1(address: &str, sent: &[(&str, &str)]) -> String {
    let answer = lictor_testkit::request(address, "GET", "/", sent, b"").unwrap();
    answer.text()
}

fn over_http2(address: &str, sent: &[(&str, &str)]) -> String {
    let mut stream = connect(address);
    let lower: Vec<(String, &str)> = sent.iter().map(|(name, value)| (name.to_lowercase(), *value)).collect();
    let all: Vec<(&str, &str)> = [METHOD, SCHEME, PATH, AUTHORITY]
        .into_iter()
        .chain(lower.iter().map(|(name, value)| (name.as_str(), *value)))
        .collect();
    stream.write_all(&[PREFACE, &settings(&[]), &block(1, &fields(&all))].concat()).unwrap();
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 0 {
            body.extend(payload);
        }
        if head[3] <= 1 && head[4] & 1 == 1 {
            return String::from_utf8(body).unwrap();
        }
    }
}

#[test]
fn no_field_is_taken_for_one_that_lictor_vouches_for() {
    let (mut failures, mut tried) = (Vec::new(), 0);
    for way in [Way::Open, Way::Token, Way::Out] {
        for is_client_http2 in [false, true] {
            for protocol in ["http", "h2c"] {
                let got = passed(way, is_client_http2, protocol);
                let expected = |name: &&&str| match (way, **name) {
                    // `headers.set` is the upstream's; to our application nothing is set.
                    (Way::Open | Way::Token, "X_Partner_Key") => true,
                    (_, name) if SHADOWS.contains(&name) => false,
                    (_, name) if OTHERS.contains(&name) => true,
                    (Way::Open, _) => false,
                    (Way::Token, _) => true,
                    (Way::Out, name) => name != "X-Lictor-From",
                };
                let mut names: Vec<_> = SHADOWS.iter().chain(&OTHERS).chain(&IDENTITY).filter(expected).collect();
                names.sort_unstable_by_key(|name| name.to_lowercase());
                names.dedup_by_key(|name| name.to_lowercase());
                let names: Vec<String> = names.into_iter().map(|name| name.to_lowercase()).collect();
                let mut got = got;
                got.sort_unstable();
                got.dedup();
                if got != names {
                    failures.push(format!("{way:?} HTTP/2: {is_client_http2}, {protocol}: {got:?}, not {names:?}"));
                }
                tried += 1;
            }
        }
    }
    assert!(failures.is_empty() && tried == 12, "{}", failures.join("\n"));
}

#[test]
fn a_client_that_shows_a_certificate_says_who_it_speaks_for() {
    let (authority, app) = (Authority::new(), Backend::start("app"));
    let (server, client) = (authority.issue("server", &["localhost"]), authority.issue("client", &["orders"]));
    let yaml = format!(
        "registration: off\nservice: users\nport: {}\ninbound: {{listen: {{address: '127.0.0.1:0', tls: {{cert: {}, key: {}, client_ca: {}}}}}}}\n",
        app.port(),
        server.cert.display(),
        server.key.display(),
        authority.ca().display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut stream = authority.client(&lictor.address("inbound"), "localhost", &[], &[&TLS12, &TLS13], Some(&client));
    let answer =
        get_over(&mut stream, "/ HTTP/1.1\r\nX-User-ID: 7\r\nX_User_ID: 8\r\nX-Lictor-From: orders/1\r\nX-Rest:")
            .unwrap();
    assert!(answer.contains("x-user-id: 7") && answer.contains("x-lictor-from: orders/1"), "{answer}");
    assert!(!answer.contains("x_user_id"), "{answer}");
}

#[test]
fn no_trailer_is_one_that_lictor_vouches_for() {
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    let server = RawServer::start(move |mut stream| {
        read_head(&mut stream);
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            bytes.push(byte[0]);
        }
        *kept.lock() = String::from_utf8(bytes).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let lictor = crate::caller(&[server.port()], "");
    let mut client = connect(&lictor.address("users"));
    let trailers = "X-Service-Auth: forged\r\nX-Forwarded-For: forged\r\nX_Forwarded_For: forged\r\nX-User-ID: forged\r\n\
                    X_Lictor_From: forged\r\nTraceparent: forged\r\nX-Checksum: kept\r\nx_checksum: kept\r\n";
    write!(client, "POST / HTTP/1.1\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{trailers}\r\n")
        .unwrap();
    read_head(&mut client);
    let seen = eventually_is("the body has come", || seen.lock().to_lowercase(), |seen| !seen.is_empty());
    assert!(!seen.contains("forged"), "{seen}");
    assert_eq!(seen.matches("kept").count(), 2, "{seen}");
}
