//! TLS on listeners and towards endpoints, with certificates of our own authority.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use lictor_testkit::{Authority, Backend, Pair, RawServer, Sidecar, eventually_is, get_over, read_head, tls_client};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, HandshakeKind};

use crate::LICTOR;

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A TLS server with this certificate that answers every GET.
fn server(authority: &Authority, pair: &Pair, asks: bool) -> RawServer {
    authority.server(pair, &[b"http/1.1"], asks, |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let name = stream.conn.server_name().unwrap_or("no name").to_owned();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A caller whose upstream `users` is called by TLS.
fn origin(port: u16, tls: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nworkers: 1\nupstreams:\n  users: {{listen: 0, static: ['localhost:{port}'], retry: off, tls: {tls}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

#[test]
fn endpoints_are_called_by_tls_and_their_names_checked() {
    let authority = Authority::new();
    let secure = server(&authority, &authority.issue("server", &["localhost"]), false);
    let ca = authority.ca();
    let lictor = origin(secure.port(), &format!("{{ca: {}}}", ca.display()));
    for _ in 0..3 {
        let answer = lictor.get("users", "/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "localhost"), "the name is sent (SNI)");
    }
    assert_eq!(secure.connections(), 1, "connections are kept");
    let other = server(&authority, &authority.issue("other", &["somebody.else"]), false);
    let named = origin(other.port(), &format!("{{ca: {}, server_name: somebody.else}}", ca.display()));
    assert_eq!(named.get("users", "/").text(), "somebody.else");
    let misnamed = origin(other.port(), &format!("{{ca: {}}}", ca.display()));
    let answer = misnamed.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (502, "tls_failed"));
    assert!(
        answer.text().contains("TLS with 127.0.0.1") && answer.text().contains("not valid for name"),
        "{}",
        answer.text()
    );
    assert!(answer.header("proxy-status").contains("error=tls_protocol_error"));
}

#[test]
fn strangers_are_not_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let secure = server(&theirs, &theirs.issue("server", &["localhost"]), false);
    let lictor = origin(secure.port(), &format!("{{ca: {}}}", ours.ca().display()));
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (502, "tls_failed"));
    assert!(answer.text().contains("invalid peer certificate"), "{}", answer.text());
    let plain = Backend::start("plain");
    let lictor = origin(plain.port(), &format!("{{ca: {}}}", ours.ca().display()));
    assert_eq!(lictor.get("users", "/").header("x-lictor-reason"), "tls_failed", "it does not speak TLS");
    assert_eq!(plain.hits(), 0);
}

#[test]
fn a_client_certificate_is_shown_when_it_is_asked_for() {
    let authority = Authority::new();
    let secure = server(&authority, &authority.issue("server", &["localhost"]), true);
    let client = authority.issue("client", &["orders"]);
    let (ca, cert, key) = (authority.ca(), client.cert.display(), client.key.display());
    let lictor = origin(secure.port(), &format!("{{ca: {}, cert: {cert}, key: {key}}}", ca.display()));
    assert_eq!(lictor.get("users", "/").status, 200);
    let without = origin(secure.port(), &format!("{{ca: {}}}", ca.display()));
    let answer = without.get("users", "/");
    assert_eq!(answer.status, 502, "{}", answer.text());
}

#[test]
fn bytes_are_carried_over_tls_too() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let echo = authority.server(&pair, &[], false, |mut stream| {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).unwrap();
        }
    });
    let yaml = format!(
        "registration: off\nupstreams:\n  db: {{listen: 0, protocol: tcp, static: ['localhost:{}'], tls: {{ca: {}}}}}\n",
        echo.port(),
        authority.ca().display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut client = lictor_testkit::connect(&lictor.address("db"));
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

/// A caller whose listener speaks TLS.
fn secured(pair: &Pair, backend: &Backend, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nupstreams:\n  users: {{listen: {{address: 0, tls: {{cert: {}, key: {}{more}}}}}, static: ['127.0.0.1:{}']}}\n",
        pair.cert.display(),
        pair.key.display(),
        backend.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

#[test]
fn listeners_speak_tls_1_2_and_1_3_with_both_protocols() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["localhost"]);
    let lictor = secured(&pair, &backend, "");
    let address = lictor.address("users");
    for version in BOTH {
        let mut client = authority.client(&address, "localhost", &[b"http/1.1"], &[version], None);
        let answer = get_over(&mut client, "/users/1").unwrap();
        assert!(answer.contains("a GET /users/1 HTTP/1.1"), "{answer}");
        assert!(answer.to_lowercase().contains("x-forwarded-proto: https"), "{answer}");
        assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let mut client = authority.client(&address, "localhost", &[b"h2", b"http/1.1"], &BOTH, None);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).unwrap();
    assert_eq!((client.conn.alpn_protocol(), frame[3]), (Some(&b"h2"[..]), 4), "SETTINGS");
    // Neither plain text nor other authorities' clients get anywhere.
    let plain = lictor_testkit::get(&address, "/");
    assert!(plain.is_err(), "{plain:?}");
    let stranger = Authority::new();
    let mut client = stranger.client(&address, "localhost", &[], &BOTH, None);
    assert!(get_over(&mut client, "/").unwrap_err().to_string().contains("invalid peer certificate"));
    let failed = || lictor.metric("lictor_tls_handshakes_failed_total", &[]);
    eventually_is("failed handshakes are counted", failed, |failed| (*failed - 2.0).abs() < 0.1);
}

#[test]
fn clients_must_show_a_certificate_where_the_listener_says_so() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["localhost"]);
    let lictor = secured(&pair, &backend, &format!(", client_ca: {}", authority.ca().display()));
    let address = lictor.address("users");
    let mut without = authority.client(&address, "localhost", &[], &BOTH, None);
    let refused = get_over(&mut without, "/");
    assert!(!refused.as_ref().is_ok_and(|answer| answer.contains("a GET")), "{refused:?}");
    let mut without = authority.client(&address, "localhost", &[], &[&TLS12], None);
    let refused = get_over(&mut without, "/").unwrap_err().to_string();
    assert!(refused.contains("fatal alert"), "it is told why: {refused}");
    let identity = authority.issue("client", &["orders"]);
    let mut with = authority.client(&address, "localhost", &[], &BOTH, Some(&identity));
    assert!(get_over(&mut with, "/").unwrap().contains("a GET / "));
}

#[test]
fn a_new_certificate_is_taken_up_and_a_broken_one_is_not() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["before"]);
    let lictor = secured(&pair, &backend, "");
    let address = lictor.address("users");
    let reaches = |name: &str| {
        let mut client = authority.client(&address, name, &[], &BOTH, None);
        get_over(&mut client, "/").is_ok_and(|answer| answer.contains("a GET / "))
    };
    assert!(reaches("before") && !reaches("after"));
    authority.issue("server", &["after"]);
    let began = Instant::now();
    eventually_is("the new certificate is shown", || reaches("after"), |is_reached| *is_reached);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    std::fs::write(&pair.cert, "half a certif").unwrap();
    eventually_is("the broken one is told of", || lictor.log(), |log| log.contains("certificate_rejected"));
    assert!(reaches("after"), "the one before it stays");
}

#[test]
fn sessions_are_resumed_also_after_a_new_certificate() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["localhost"]);
    let lictor = secured(&pair, &backend, "");
    let address = lictor.address("users");
    let clients = BOTH.map(|version| authority.client_config(&[], &[version], None));
    let handshake = |client: &Arc<ClientConfig>| {
        let mut client = tls_client(client, &address, "localhost");
        assert!(get_over(&mut client, "/").unwrap().contains("a GET / "));
        (client.conn.handshake_kind().unwrap(), client.conn.negotiated_cipher_suite().unwrap().suite())
    };
    let suites = [CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256];
    for (client, expected) in clients.iter().zip(suites) {
        let (kind, suite) = handshake(client);
        assert_eq!(kind, HandshakeKind::Full);
        // The client prefers AES-256.
        #[cfg(target_arch = "x86_64")]
        assert_eq!(suite == expected, std::arch::is_x86_feature_detected!("aes"), "{suite:?}");
        assert_eq!(handshake(client), (HandshakeKind::Resumed, suite));
    }
    authority.issue("server", &["localhost"]);
    eventually_is("the new certificate is read", || lictor.log(), |log| log.contains("certificate_reloaded"));
    for client in &clients {
        assert_eq!(handshake(client).0, HandshakeKind::Resumed);
    }
}

#[test]
fn who_is_not_believed_any_more_resumes_nothing() {
    let (ours, theirs, backend) = (Authority::new(), Authority::new(), Backend::start("a"));
    let (pair, identity) = (ours.issue("server", &["localhost"]), ours.issue("client", &["orders"]));
    let believed = pair.cert.with_file_name("believed.pem");
    std::fs::copy(ours.ca(), &believed).unwrap();
    let lictor = secured(&pair, &backend, &format!(", client_ca: {}", believed.display()));
    let address = lictor.address("users");
    for version in BOTH {
        let client = ours.client_config(&[], &[version], Some(&identity));
        let asks = || {
            let mut client = tls_client(&client, &address, "localhost");
            let answer = get_over(&mut client, "/");
            (answer.is_ok_and(|answer| answer.contains("a GET / ")), client.conn.handshake_kind())
        };
        eventually_is("it is believed", &asks, |(is_answered, _)| *is_answered);
        assert_eq!(asks(), (true, Some(HandshakeKind::Resumed)));
        std::fs::copy(theirs.ca(), &believed).unwrap();
        eventually_is("it is not believed any more", &asks, |(is_answered, _)| !*is_answered);
        std::fs::copy(ours.ca(), &believed).unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_told_before_anything_starts() {
    let yaml = "registration: off\nupstreams:\n  users: {listen: {address: 0, tls: {cert: /no/cert.pem, key: /no/key.pem}}, static: ['127.0.0.1:1']}\n";
    let mut lictor = Sidecar::serve(LICTOR, yaml);
    assert!(!lictor.wait().success());
    assert!(lictor.log().contains("cannot read a certificate from /no/cert.pem"), "{}", lictor.log());
}

#[test]
fn connections_of_who_is_not_believed_any_more_are_ended() {
    let (ours, theirs, backend) = (Authority::new(), Authority::new(), Backend::start("a"));
    let (pair, identity) = (ours.issue("server", &["localhost"]), ours.issue("client", &["orders"]));
    let other = theirs.issue("client", &["orders"]);
    let believed = pair.cert.with_file_name("believed.pem");
    std::fs::copy(ours.ca(), &believed).unwrap();
    let lictor = secured(&pair, &backend, &format!(", client_ca: {}", believed.display()));
    let mut kept = ours.client(&lictor.address("users"), "localhost", &[], &BOTH, Some(&identity));
    let mut asks = || {
        let is_sent = kept.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").is_ok();
        let head = if is_sent { read_head(&mut kept).to_lowercase() } else { String::new() };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        kept.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        head.starts_with("http/1.1 200")
    };
    assert!(asks());
    let told = || lictor.log().matches("certificate_reloaded").count();
    // One more authority, and another certificate of ours, take nothing from who is believed.
    let both = [ours.ca(), theirs.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&believed, both).unwrap();
    eventually_is("both are believed", told, |count| *count == 1);
    ours.issue("server", &["localhost"]);
    eventually_is("the new certificate is read", told, |count| *count == 2);
    assert!(asks());
    std::fs::copy(theirs.ca(), &believed).unwrap();
    eventually_is("it is not believed any more", told, |count| *count == 3);
    let hits = backend.hits();
    assert!(!asks());
    assert_eq!(backend.hits(), hits);
    let mut new = ours.client(&lictor.address("users"), "localhost", &[], &BOTH, Some(&other));
    let answer = get_over(&mut new, "/").unwrap();
    assert!(answer.contains("a GET / "), "who comes then, and is believed, is none of those: {answer}");
}

/// Each client is judged by the CA that vouched for it.
#[test]
fn a_ca_that_leaves_a_bundle_puts_out_its_own_clients_alone() {
    let (ours, theirs, backend) = (Authority::new(), Authority::new(), Backend::start("a"));
    let pair = ours.issue("server", &["localhost"]);
    let believed = pair.cert.with_file_name("believed.pem");
    let both = [ours.ca(), theirs.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&believed, both).unwrap();
    let lictor = secured(&pair, &backend, &format!(", client_ca: {}", believed.display()));
    let mut kept: Vec<_> = [(true, &ours), (false, &theirs)]
        .into_iter()
        .flat_map(|of| BOTH.map(|version| (of, version)))
        .map(|((is_ours, of), version)| {
            let identity = of.issue("client", &["orders"]);
            // Whoever they are, it is our server that they call.
            let mut config = (*ours.client_config(&[], &[version], Some(&identity))).clone();
            config.alpn_protocols.clear();
            (is_ours, tls_client(&Arc::new(config), &lictor.address("users"), "localhost"))
        })
        .collect();
    let mut asks = |is_last: bool| -> Vec<(bool, String)> {
        let ask = |(is_ours, client): &mut (bool, _)| {
            let client: &mut rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> = client;
            let sent = client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n");
            let head = if sent.is_ok() { read_head(client).to_lowercase() } else { String::new() };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if !is_last {
                client.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            }
            (*is_ours, head)
        };
        kept.iter_mut().map(ask).collect()
    };
    for (_, head) in asks(false) {
        assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    }
    let hits = backend.hits();
    std::fs::copy(ours.ca(), &believed).unwrap();
    eventually_is("it is read", || lictor.log(), |log| log.contains("certificate_reloaded"));
    for (is_ours, head) in asks(true) {
        // Or it was closed in order while it was idle.
        assert!(head.is_empty() || head.contains("connection: close"), "{is_ours}: {head}");
        assert!(head.is_empty() || head.starts_with("http/1.1 200") == is_ours, "{is_ours}: {head}");
        assert!(!(is_ours && head.contains(" 421 ")), "{head}");
    }
    assert!(backend.hits() <= hits + 2, "the other's reach nobody");
    let identity = ours.issue("client", &["orders"]);
    let mut again = ours.client(&lictor.address("users"), "localhost", &[], &BOTH, Some(&identity));
    assert!(get_over(&mut again, "/").unwrap().contains("a GET / "));
}
