//! What a stranger may say, and what he may learn.

use std::io::Write;

use lictor_testkit::{RawServer, connect, free_ports, read_head};

use crate::{Ask, BOTH, Served, ask, echo, gateway, gateway_with, line_of, post_trailing, told_http1};

const MANAGED: [&str; 24] = [
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Uri",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "X-User-ID",
    "X-User-Role",
    "X-Gateway-Request-ID",
    "X-Lictor-From",
    "X-Lictor-To",
    "X-Lictor-Attempt",
    "X-Lictor-Anything",
    "X-Service-Auth",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Envoy-Original-Path",
    "X-SSL-Client-Verify",
];

#[test]
fn no_stranger_says_who_he_is_or_what_else_he_asks_for() {
    let one = echo("one");
    let lictor = gateway(&[("one", &one)], "  - {path: /*, to: one}\n");
    for version in BOTH {
        for name in MANAGED {
            for spelled in [name.to_owned(), name.to_uppercase(), name.replace('-', "_"), name.replace('-', ".")] {
                for fields in [
                    vec![(&*spelled, "spoofed"), ("X-Custom", "kept")],
                    vec![(&*spelled, "spoofed"), (&*spelled, "spoofed"), ("X-Custom", "kept")],
                ] {
                    let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/") });
                    assert_eq!(told.server(), "one", "{version:?} {spelled}: {told:?}");
                    assert!(!told.body.contains("spoofed"), "{version:?} {spelled}: {}", told.body);
                    assert!(
                        told.body.to_lowercase().contains("x-custom: kept"),
                        "{version:?} {spelled}: {}",
                        told.body
                    );
                }
            }
        }
        let told = ask(&lictor, version, Ask::get("/"));
        for line in
            ["x-forwarded-for: 127.0.0.1\r\n", "x-forwarded-host: shop.example\r\n", "x-forwarded-proto: http\r\n"]
        {
            assert_eq!(told.body.to_lowercase().matches(line).count(), 1, "{version:?} {line}: {}", told.body);
        }
    }
}

#[test]
fn a_field_that_connection_names_takes_nothing_of_ours_away() {
    let one = echo("one");
    let lictor = gateway(&[("one", &one)], "  - {path: /*, to: one}\n");
    for name in ["X-Forwarded-For", "x-forwarded-host", "X-Request-ID", "X-Lictor-From", "X-User-ID", "Host"] {
        let text = format!(
            "GET / HTTP/1.1\r\nHost: shop.example\r\n{}Connection: close, {name}\r\n\r\n",
            if name == "Host" { String::new() } else { format!("{name}: spoofed\r\n") }
        );
        let told = told_http1(connect(&lictor.address("gateway")), text.as_bytes());
        assert_eq!(told.status, 200, "{name}: {told:?}");
        let seen = told.body.to_lowercase();
        assert!(!seen.contains("spoofed"), "{name}: {seen}");
        for own in ["x-forwarded-for: 127.0.0.1", "x-forwarded-host: shop.example", "x-request-id: ", "host: one"] {
            assert!(seen.contains(own), "{name}: {own} in {seen}");
        }
    }
}

/// Speaks HTTP/2, and answers with its name and the trailers that it got.
async fn http2_echo(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            let mut text = "two\n".to_owned();
            for (name, value) in &body.trailers().await.unwrap().unwrap_or_default() {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(bytes::Bytes::from(text), true).unwrap();
        });
    }
}

#[test]
fn trailers_say_no_more_than_fields() {
    let (one, two) = (echo("one"), Served::by(http2_echo));
    let more = format!("  two: {{static: ['127.0.0.1:{}'], protocol: h2c}}\n", two.port);
    let lictor = gateway_with(&[("one", &one)], &more, "  - {path: /one, to: one}\n  - {path: /two, to: two}\n");
    for version in BOTH {
        for (target, server) in [("/one", "one"), ("/two", "two")] {
            for name in MANAGED {
                for spelled in [name.to_owned(), name.replace('-', "_"), name.replace('-', ".")] {
                    let trailers = [(&*spelled, "spoofed"), ("X-Custom", "kept"), (&*spelled, "spoofed")];
                    let told = post_trailing(&lictor, version, Ask::get(target), &trailers);
                    let what = format!("{version:?} {target} {spelled}: {told:?}");
                    assert_eq!(told.server(), server, "{what}");
                    assert!(!told.body.contains("spoofed"), "{what}");
                    assert!(told.body.to_lowercase().contains("x-custom: kept"), "{what}");
                }
            }
        }
    }
}

#[test]
fn nothing_of_it_is_in_answers_of_the_gateways_own_nor_at_who_stands_in() {
    let (spare, [closed]) = (echo("spare"), free_ports());
    let dead = format!("  dead: {{static: ['127.0.0.1:{closed}'], retry: off, fallback: {{upstream: spare}}}}\n");
    let made = |route: &str| {
        let names = ["X-User-ID", "X_User_ID", "X.User.ID", "X-Lictor-From", "X_Lictor_From", "X-Real-IP"];
        let echo = |(at, name): (usize, &&str)| format!("X-Echo-{at}: '{{header:{name}}}', ");
        let set = names.iter().enumerate().map(echo).collect::<Vec<_>>().concat();
        format!("  - {{{route}, response_headers: {{set: {{{set}X-Told: '{{header:X-Custom}}'}}}}}}\n")
    };
    let routes = ["path: /told, respond: {body: told}", "path: /moved, redirect: /told", "path: /dead, to: dead"]
        .map(made)
        .concat();
    let lictor = gateway_with(&[("spare", &spare)], &dead, &routes);
    let spoofed = ["x-user-id", "X_User_ID", "x.user.id", "X-Lictor-From", "x_lictor_from", "X-Real-IP", "x_user_role"];
    for version in BOTH {
        for (target, status) in [("/told", 200), ("/moved", 308), ("/dead", 200)] {
            let fields: Vec<_> =
                spoofed.map(|name| (name, "spoofed")).into_iter().chain([("x-custom", "kept")]).collect();
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
            let all = format!("{}{}", told.head, told.body).to_lowercase();
            assert_eq!(told.status, status, "{version:?} {target}: {told:?}");
            assert!(!all.contains("spoofed") && !all.contains("x-echo"), "{version:?} {target}: {told:?}");
            assert!(all.contains("x-told") && all.contains("kept"), "the control: {version:?} {target}: {told:?}");
            let is_spares = target != "/dead" || told.server() == "spare" && all.contains("x-custom: kept");
            assert!(is_spares, "{version:?} {target}: {told:?}");
        }
    }
}

#[test]
fn nothing_between_sidecars_and_no_address_reaches_a_stranger() {
    let [closed] = free_ports();
    let telling = RawServer::start(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Lictor-Early: 127.0.0.9\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kept: kept\r\nX-Lictor-Reason: inner\r\nx_lictor_upstream: inner\r\nX-Lictor-Attempts: 127.0.0.9:1=503\r\nProxy-Status: lictor; error=connection_refused; next-hop=\"127.0.0.9:1\"\r\n\r\n2\r\nhi\r\n0\r\nX-Lictor-Late: 127.0.0.9\r\n\r\n";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let dead = format!("  dead: {{static: ['127.0.0.1:{closed}'], retry: {{delays: [1ms]}}}}\n");
    let routes = "  - {path: /told, to: telling}\n  - {path: /dead, to: dead}\n";
    let lictor = gateway_with(&[("telling", &telling)], &dead, routes);
    let secrets = ["x-lictor", "x_lictor", "127.0.0.", "next-hop", "dead:", "inner"];
    for version in BOTH {
        for (target, status) in [("/told", 200), ("/dead", 502), ("/none", 404), ("/%2f", 400)] {
            let fields = [("X-Lictor-Debug", "1"), ("TE", "trailers")];
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
            assert_eq!(told.status, status, "{version:?} {target}: {told:?}");
            assert!(status != 200 || told.head.contains("</a>"), "the interim answer is there too: {told:?}");
            let all = format!("{}{}", told.head, told.body).to_lowercase();
            for secret in secrets {
                assert!(!all.contains(secret), "{version:?} {target}: {secret} in {all}");
            }
            assert!(status != 200 || all.contains("x-kept"), "the control: {all}");
            assert!(status != 502 || all.contains("connect_refused"), "the reason is told: {all}");
        }
    }
    let line = line_of(&lictor, |line| line["status"] == 502);
    assert!(line["attempts"].as_str().unwrap().contains("127.0.0.1:"), "the log tells all: {line}");
    // A head that cannot be read is refused by the wire.
    let told = told_http1(connect(&lictor.address("gateway")), b"GET / HTTP/1.1\r\nbad field\r\n\r\n");
    assert!(told.status == 400 && !told.head.to_lowercase().contains("x-lictor"), "{told:?}");
}
