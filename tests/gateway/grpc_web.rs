//! gRPC-Web in front, gRPC behind: an HTTP/2 server that knows nothing of lictor.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Response};
use lictor_testkit::Sidecar;
use serde_json::json;

use crate::issuer::{SECRET, claims, sealed, shared};
use crate::wire::{Asked, Got, get};
use crate::{BOTH, LICTOR, Served, Version, configuration, gateway_with};

/// Speaks gRPC as its methods' names say, and tells in its trailers what it was asked.
async fn serve(stream: tokio::net::TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut asked = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                asked.extend_from_slice(&data);
            }
            let saw = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("grpc-message", "all%20is%20well".parse().unwrap());
            trailers.insert("x-saw", format!("{} {}", saw("content-type"), saw("te")).parse().unwrap());
            let method = head.uri.path().rsplit('/').next().unwrap_or_default();
            let ok = || Response::builder().header("content-type", "application/grpc+proto");
            let ended = |response: Response<()>, respond: &mut h2::server::SendResponse<Bytes>| {
                let _ = respond.send_response(response, true);
            };
            let pieces: Vec<Vec<u8>> = match method {
                "Unary" => vec![asked],
                "Stream" => (0..5).map(|number| message(format!("message {number}").as_bytes())).collect(),
                "Empty" => vec![],
                "Cut" => vec![message(b"hello")[..7].to_vec()],
                "TrailersOnly" => return ended(ok().header("grpc-status", "5").body(()).unwrap(), &mut respond),
                "Unavailable" => return ended(Response::builder().status(503).body(()).unwrap(), &mut respond),
                "Html" => {
                    let head = Response::builder().header("content-type", "text/html").header("content-length", "5");
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    return body.send_data(Bytes::from_static(b"hello"), true).unwrap();
                }
                "NoTrailers" => {
                    let mut body = respond.send_response(ok().body(()).unwrap(), false).unwrap();
                    return body.send_data(message(b"hello").into(), true).unwrap();
                }
                other => panic!("{other}"),
            };
            // Whose request broke off is not answered.
            let Ok(mut body) = respond.send_response(ok().body(()).unwrap(), false) else { return };
            for piece in pieces {
                let _ = body.send_data(piece.into(), false);
                tokio::task::yield_now().await;
            }
            let _ = body.send_trailers(trailers);
        });
    }
}

fn message(text: &[u8]) -> Vec<u8> {
    [&[0], &(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn lictor(service: &Served, routes: &str) -> Sidecar {
    let more = format!("  echo: {{static: ['127.0.0.1:{}'], protocol: grpc}}\n", service.port);
    gateway_with(&[], &more, routes)
}

fn call(lictor: &Sidecar, version: Version, target: &str, kind: &str, body: &[u8]) -> Got {
    let fields = [("content-type", kind), ("x-grpc-web", "1")];
    get(lictor, version, Asked { method: "POST", target, fields: &fields, body })
}

/// Messages, and the trailers' block.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut messages, mut trailers) = (Vec::new(), None);
    while let [kind, a, b, c, d, rest @ ..] = body {
        let (frame, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        assert!(trailers.is_none(), "nothing follows the trailers");
        match kind {
            0 => messages.push(frame.to_vec()),
            0x80 => trailers = Some(String::from_utf8(frame.to_vec()).unwrap()),
            other => panic!("{other}"),
        }
        body = rest;
    }
    assert!(body.is_empty(), "{body:?}");
    (messages, trailers)
}

/// Of base64 that is padded wherever a frame ends.
fn unpadded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|four| BASE64_STANDARD.decode(four).unwrap()).collect()
}

#[test]
fn a_browser_calls_what_speaks_grpc() {
    let service = Served::by(serve);
    let lictor = lictor(&service, "    - {path: /echo.Echo/*, to: echo, grpc_web: true}\n");
    for version in BOTH {
        for (kind, goes) in [
            ("application/grpc-web", "application/grpc"),
            ("application/grpc-web+proto", "application/grpc+proto"),
            ("application/grpc-web-text", "application/grpc"),
            ("application/grpc-web-text+proto", "application/grpc+proto"),
        ] {
            let is_text = kind.contains("text");
            for length in [0, 1, 2, 3, 100, 70_000] {
                let sent = message(&vec![b'x'; length]);
                let body = if is_text { BASE64_STANDARD.encode(&sent).into_bytes() } else { sent.clone() };
                let got = call(&lictor, version, "/echo.Echo/Unary", kind, &body);
                let what = format!("{version:?} {kind} {length}: {:?}", got.headers);
                let came = if is_text { unpadded(&got.body) } else { got.body.clone() };
                let (messages, trailers) = frames(&came);
                assert!(got.status == 200 && got.is_whole && got.trailers.is_empty(), "{what}");
                assert!(messages == [vec![b'x'; length]], "{what}");
                let own = if is_text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
                assert_eq!(got.field("content-type"), own, "{what}");
                let trailers = trailers.unwrap();
                assert!(trailers.contains("grpc-status: 0\r\ngrpc-message: all%20is%20well\r\n"), "{trailers}");
                assert!(trailers.contains(&format!("x-saw: {goes} trailers\r\n")), "{trailers}");
                assert!(!got.headers.contains_key("grpc-status"));
            }
            let body = if is_text { BASE64_STANDARD.encode(message(b"x")).into_bytes() } else { message(b"x") };
            let got = call(&lictor, version, "/echo.Echo/Stream", kind, &body);
            let (messages, trailers) = frames(&if is_text { unpadded(&got.body) } else { got.body });
            let expected: Vec<_> = (0..5).map(|number| format!("message {number}").into_bytes()).collect();
            assert!(messages == expected && trailers.unwrap().contains("grpc-status: 0\r\n"), "{version:?} {kind}");
        }
    }
}

#[test]
fn what_a_call_came_to_is_said_once_and_never_by_nothing() {
    let service = Served::by(serve);
    let routes = "    - {path: /echo.Echo/*, to: echo, grpc_web: true}\n    - {path: /dead.Echo/*, to: dead, grpc_web: true}\n    - {path: /told.Echo/*, grpc_web: true, respond: {status: 401, body: no}}\n    - {path: /long.Echo/*, to: echo, grpc_web: true, head_max: 60}\n";
    let [closed] = lictor_testkit::free_ports();
    let more = format!(
        "  echo: {{static: ['127.0.0.1:{}'], protocol: grpc}}\n  dead: {{static: ['127.0.0.1:{closed}'], protocol: grpc, retry: off}}\n",
        service.port
    );
    let lictor = gateway_with(&[], &more, routes);
    let kind = "application/grpc-web+proto";
    for version in BOTH {
        // target, what the head says, what the trailers' frame says
        for (target, head, frame) in [
            ("/echo.Echo/Empty", "", "0"),
            ("/echo.Echo/TrailersOnly", "5", ""),
            ("/echo.Echo/NoTrailers", "", "13"),
            ("/echo.Echo/Unavailable", "14", ""),
            ("/echo.Echo/Html", "2", ""),
            ("/told.Echo/Any", "16", ""),
            ("/dead.Echo/Any", "14", ""),
        ] {
            let got = call(&lictor, version, target, kind, &message(b"x"));
            let (_, trailers) = frames(&got.body);
            let what = format!("{version:?} {target}: {got:?} {trailers:?}");
            assert!(got.status == 200 && got.is_whole && got.field("content-type") == kind, "{what}");
            assert_eq!(got.field("grpc-status"), head, "{what}");
            let said = trailers.unwrap_or_default();
            assert!(
                frame.is_empty() == said.is_empty()
                    && (frame.is_empty() || said.contains(&format!("grpc-status: {frame}\r\n"))),
                "{what}"
            );
        }
        let got = call(&lictor, version, "/long.Echo/Unary", kind, &message(b"x"));
        assert_eq!(
            (got.status, got.field("content-type").as_str(), got.field("grpc-status").is_empty()),
            (200, kind, false),
            "the gateway's own refusal: {got:?}"
        );
        let cut = call(&lictor, version, "/echo.Echo/Cut", kind, &message(b"x"));
        assert!(!cut.is_whole, "a message that breaks off has no end: {cut:?}");
        for wrong in [&b"AAAA*AAA"[..], b"AAAAA"] {
            let got = call(&lictor, version, "/echo.Echo/Unary", "application/grpc-web-text", wrong);
            assert!(
                got.status == 200 && !got.field("grpc-status").is_empty() && got.field("grpc-status") != "0",
                "{got:?}"
            );
        }
        // What is not gRPC-Web goes on as it is, and a route that does not translate does not.
        let got = get(
            &lictor,
            version,
            Asked {
                method: "POST",
                target: "/echo.Echo/Unary",
                fields: &[("content-type", "application/grpc"), ("te", "trailers")],
                body: &message(b"x"),
            },
        );
        assert_eq!(
            (got.field("content-type").as_str(), got.body.clone()),
            ("application/grpc+proto", message(b"x")),
            "{got:?}"
        );
        if version == Version::Http2 {
            let status = got.trailers.get("grpc-status").map(|status| status.to_str().unwrap());
            assert_eq!(status, Some("0"), "{got:?}");
        }
    }
    let lictor = self::lictor(&service, "    - {path: /echo.Echo/*, to: echo}\n");
    for version in BOTH {
        let got = call(&lictor, version, "/echo.Echo/Unary", kind, &message(b"x"));
        assert_eq!(
            (got.field("content-type").as_str(), got.body.clone()),
            ("application/grpc+proto", message(b"x")),
            "{got:?}"
        );
    }
}

#[test]
fn what_the_gateway_refuses_is_a_status_of_grpc() {
    const APP: &str = "https://app.example";
    let service = Served::by(serve);
    let [redis, keys] = lictor_testkit::free_ports();
    let more =
        format!("  echo: {{static: ['127.0.0.1:{}'], protocol: grpc}}\nredis: 127.0.0.1:{redis}\n", service.port);
    let own = format!(
        "  grpc_web: true\n  cors: {{origins: ['{APP}']}}\n  auth:\n    mode: none\n    jwt:\n      - {{name: own, secret: {SECRET}}}\n      - {{name: idp, issuer: 'https://idp.example', jwks: 'http://127.0.0.1:{keys}/'}}\n"
    );
    let routes = "  - {path: /in.Echo/*, to: echo, auth: required}
  - {path: /admin.Echo/*, to: echo, auth: {mode: required, require: {roles: admin}}}
  - {path: /often.Echo/*, to: echo, limit: {rate: 1/1h, by: []}}
  - {path: /counted.Echo/*, to: echo, limit: {rate: 1/1h, by: [], mode: redis, if_unreachable: refuse}}\n";
    let lictor = Sidecar::serve(LICTOR, &configuration(&[], &more, &own, routes)).up();
    let ann = format!("Bearer {}", shared(&claims(json!({}))));
    let theirs = claims(json!({"iss": "https://idp.example"})).to_string();
    let theirs = format!("Bearer {}", sealed(SECRET, r#"{"alg":"RS256","kid":"a"}"#, &theirs));
    let call = |version, target: &str, kind: &str, token: &str| {
        let body = if kind == "application/grpc-web-text" {
            BASE64_STANDARD.encode(message(b"x")).into_bytes()
        } else {
            message(b"x")
        };
        let fields = [("content-type", kind), ("te", "trailers"), ("origin", APP), ("authorization", token)];
        let fields = if token.is_empty() { &fields[..3] } else { &fields };
        get(&lictor, version, Asked { method: "POST", target, fields, body: &body })
    };
    let first = call(Version::Http2, "/often.Echo/Unary", "application/grpc", "");
    assert_eq!(first.trailers["grpc-status"], "0", "what comes next is refused: {first:?}");
    for (version, kind) in [
        (Version::Http2, "application/grpc"),
        (Version::Http1, "application/grpc-web"),
        (Version::Http2, "application/grpc-web"),
        (Version::Http1, "application/grpc-web-text"),
        (Version::Http2, "application/grpc-web-text"),
    ] {
        for (target, token, status) in [
            ("/in.Echo/Unary", "", "16"),
            ("/in.Echo/Unary", "Bearer a.b.c", "16"),
            ("/in.Echo/Unary", &*theirs, "14"),
            ("/admin.Echo/Unary", &*ann, "7"),
            ("/often.Echo/Unary", "", "8"),
            ("/counted.Echo/Unary", "", "14"),
        ] {
            let got = call(version, target, kind, token);
            let what = format!("{version:?} {kind} {target}: {got:?}");
            assert!(got.status == 200 && got.is_whole && got.body.is_empty(), "{what}");
            assert_eq!(
                (got.field("grpc-status").as_str(), got.field("grpc-message").is_empty()),
                (status, false),
                "{what}"
            );
            assert!(got.field("content-type").starts_with(kind), "{what}");
            assert_eq!(got.field("access-control-allow-origin"), APP, "{what}");
            let exposed =
                if kind == "application/grpc" { "" } else { "grpc-status, grpc-message, grpc-status-details-bin" };
            assert_eq!(got.field("access-control-expose-headers"), exposed, "{what}");
        }
        let got = call(version, "/in.Echo/Unary", kind, &ann);
        assert!(got.status == 200 && !got.body.is_empty() && !got.headers.contains_key("grpc-status"), "{got:?}");
    }
}
