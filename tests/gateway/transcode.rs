//! REST and JSON in front, gRPC behind.

use std::io::{Read, Write};

use lictor_testkit::{Sidecar, connect};
use serde_json::{Value as Json, json};

use crate::library::{Service, descriptor, message};
use crate::wire::{Asked, Got, get};
use crate::{BOTH, Version, gateway_with, says};

/// With a route for each service's paths, and what else its translation says.
fn lictor(service: &Service, more: &str) -> Sidecar {
    let file = descriptor();
    let routes = format!(
        "    - {{path: /v1/*, to: library, retry: off, transcode: {{descriptor: {file}, services: [library.v1.Library]{more}}}}}\n"
    );
    gateway(service, &routes)
}

pub(crate) fn gateway(service: &Service, routes: &str) -> Sidecar {
    gateway_with(
        &[],
        &format!("  library: {{static: ['127.0.0.1:{}'], protocol: grpc}}\n", service.served.port),
        routes,
    )
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

pub(crate) fn ask(lictor: &Sidecar, version: Version, method: &str, target: &str, body: &str) -> Got {
    let fields = if body.is_empty() { &[] } else { JSON };
    get(lictor, version, Asked { method, target, fields, body: body.as_bytes() })
}

fn json_of(got: &Got) -> Json {
    serde_json::from_slice(&got.body).unwrap_or_else(|error| panic!("{error}: {got:?}"))
}

#[test]
fn rest_becomes_grpc_and_its_answers_json() {
    let service = Service::start();
    let lictor = lictor(&service, "");
    for version in BOTH {
        for (method, target, body, call, answer) in [
            ("GET", "/v1/shelves/1", "", "GetShelf", json!({"name": "shelves/1"})),
            ("GET", "/v1/shelf/a%20b", "", "GetShelf", json!({"name": "a b"})),
            ("PURGE", "/v1/shelves/1", "", "PurgeShelf", json!({"name": "shelves/1"})),
            ("GET", "/v1/files/a/b", "", "ReadFile", json!({"name": "a/b"})),
            ("DELETE", "/v1/shelves/1", "", "DeleteShelf", json!({})),
            (
                "GET",
                "/v1/shelves?page_size=2",
                "",
                "ListShelves",
                json!([{"name": "a", "size": "5"}, {"name": "a", "size": "5"}]),
            ),
            (
                "POST",
                "/v1/shelves?shelfId=7",
                r#"{"name": "x", "size": 9007199254740993}"#,
                "CreateShelf",
                json!({"shelf": {"name": "x", "size": "9007199254740993"}, "shelfId": "7"}),
            ),
            (
                "PATCH",
                "/v1/shelves/1/books/2?update_mask=title",
                r#"{"title": "t"}"#,
                "UpdateBook",
                json!({"book": {"name": "shelves/1/books/2", "title": "t"}, "updateMask": "title"}),
            ),
            (
                "POST",
                "/v1/shelves/1/books/2:move",
                r#"{"to": "x"}"#,
                "MoveBook",
                json!({"name": "shelves/1/books/2", "to": "x"}),
            ),
            (
                "POST",
                "/v1/types",
                r#"{"color": 1, "bytes": "-_8=", "int64": "-1", "snake_case": "a"}"#,
                "Echo",
                json!({"color": "COLOR_RED", "bytes": "+/8=", "int64": "-1", "snakeCase": "a"}),
            ),
            (
                "GET",
                "/v1/types?nested.text=a&texts=b&texts=c",
                "",
                "Echo",
                json!({"nested": {"text": "a"}, "texts": ["b", "c"]}),
            ),
        ] {
            let got = ask(&lictor, version, method, target, body);
            let what = format!("{version:?} {method} {target}: {got:?}");
            assert!(got.status == 200 && got.is_whole && got.trailers.is_empty(), "{what}");
            assert_eq!((got.field("content-type").as_str(), json_of(&got)), ("application/json", answer), "{what}");
            assert_eq!(got.field("x-inner"), "1", "{what}");
            for gone in ["grpc-status", "grpc-message", "trailer", "x-trailing"] {
                assert!(!got.headers.contains_key(gone), "{gone} {what}");
            }
            let (_, seen) = service.calls();
            let seen = seen.unwrap();
            assert_eq!(seen.path, format!("/library.v1.Library/{call}"), "{what}");
            assert_eq!(
                (&seen.headers["content-type"], &seen.headers["te"]),
                (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
            );
            assert!(seen.headers.contains_key("grpc-timeout"), "a call of one message has our time: {seen:?}");
            assert_eq!(seen.body.len(), 5 + u32::from_be_bytes(seen.body[1..5].try_into().unwrap()) as usize, "{what}");
        }
    }
    let line = crate::line_of(&lictor, |line| line["path"] == "/v1/shelves/1" && line["method"] == "DELETE");
    assert_eq!(
        (&line["status"], &line["grpc_status"], &line["route"]),
        (&json!(200), &json!(0), &json!("/v1/*")),
        "{line}"
    );
    let labels = [("method", "/library.v1.Library/DeleteShelf"), ("status", "success")];
    assert_eq!(lictor.metric("grpc_requests_total", &labels) as u64, 2, "it is counted as the call that it is");
}

#[test]
fn what_no_method_takes_never_comes_to_the_service() {
    let service = Service::start();
    let lictor = lictor(&service, ", message_max: 1000B");
    let echo = |length: usize| format!(r#"{{"string": "{}"}}"#, "x".repeat(length - 14));
    // Ten bytes each in the message, and three here.
    let negative = |count: usize| format!(r#"{{"nested": {{"numbers": [{}]}}}}"#, vec!["-1"; count].join(","));
    for version in BOTH {
        for (method, target, fields, body, status, reason) in [
            ("GET", "/v1/nobody/1", &[][..], "", 404, "no_route"),
            ("POST", "/v1/shelves/1", &[], "", 404, "no_route"),
            ("HEAD", "/v1/shelves/1", &[], "", 404, ""),
            ("POST", "/v1/uploads", &[], "{}", 404, "no_route"),
            ("POST", "/v1/shelves/1%3Amove", &[], "", 404, "no_route"),
            ("GET", "/v1/shelves?no_such=1", &[], "", 400, "bad_request"),
            ("GET", "/v1/shelves?page_size=x", &[], "", 400, "bad_request"),
            ("GET", "/v1/shelves/1?name=shelves/2", &[], "", 400, "bad_request"),
            ("GET", "/v1/shelves/1", JSON, "{}", 400, "bad_request"),
            ("POST", "/v1/types", JSON, "{", 400, "bad_request"),
            ("POST", "/v1/types", JSON, r#"{"no_such": 1}"#, 400, "bad_request"),
            ("POST", "/v1/types", JSON, r#"{"int32": 1, "int32": 1}"#, 400, "bad_request"),
            ("POST", "/v1/types", JSON, r#"{"color": "COLOR_BLUE"}"#, 400, "bad_request"),
            ("POST", "/v1/shelves/1/books/2:move", JSON, r#"{"name": "shelves/3/books/4"}"#, 400, "bad_request"),
            ("POST", "/v1/types", &[], "{}", 400, "bad_request"),
            ("POST", "/v1/types", &[("content-type", "text/plain")], "{}", 400, "bad_request"),
            ("POST", "/v1/types", &[("content-type", "application/x-www-form-urlencoded")], "a=b", 400, "bad_request"),
            (
                "POST",
                "/v1/types",
                &[("content-type", "application/json"), ("content-encoding", "gzip")],
                "{}",
                400,
                "bad_request",
            ),
            ("POST", "/v1/types", JSON, &echo(1001), 413, "body_too_large"),
            ("POST", "/v1/types", JSON, &negative(101), 413, "body_too_large"),
        ] {
            let before = service.calls().0;
            let got = get(&lictor, version, Asked { method, target, fields, body: body.as_bytes() });
            let what = format!("{version:?} {method} {target} {body}: {got:?}");
            assert_eq!((got.status, service.calls().0), (status, before), "{what}");
            if !reason.is_empty() {
                assert_eq!(json_of(&got)["reason"], reason, "{what}");
            }
        }
        let got = ask(&lictor, version, "POST", "/v1/types", r#"{"no_such": 1}"#);
        assert!(
            json_of(&got)["message"].as_str().unwrap().contains("no field `no_such`"),
            "it says what is wrong: {got:?}"
        );
        // Each with a control.
        for (fields, body) in [
            (&[("content-type", "application/json; charset=utf-8")][..], "{}".to_owned()),
            (&[("content-type", "application/merge-patch+json")], "{}".to_owned()),
            (&[("content-type", "application/json"), ("content-encoding", "identity")], "{}".to_owned()),
            (&[], String::new()),
            (JSON, echo(990)),
            (JSON, negative(95)),
            (&[("content-type", "application/json"), ("expect", "100-continue")], "{}".to_owned()),
        ] {
            let got =
                get(&lictor, version, Asked { method: "POST", target: "/v1/types", fields, body: body.as_bytes() });
            assert!(got.status == 200 || got.status == 100, "{version:?} {fields:?}: {got:?}");
        }
    }
}

#[test]
fn a_call_is_no_second_door() {
    let service = Service::start();
    let file = descriptor();
    let lictor = gateway(
        &service,
        &format!(
            "    - {{path: /*, to: library, transcode: {{descriptor: {file}, services: [library.v1.Library]}}}}\n    - {{path: /plain.Service/*, to: library}}\n"
        ),
    );
    let call = |version, target: &str, kind: &str| {
        let fields = [("content-type", kind), ("te", "trailers")];
        get(&lictor, version, Asked { method: "POST", target, fields: &fields, body: &message(b"") })
    };
    for version in BOTH {
        for kind in ["application/grpc", "application/grpc-web", "application/grpc+proto", "application/json"] {
            for target in
                ["/library.v1.Library/DeleteShelf", "/library.v1.Library/Reset", "/v1/../library.v1.Library/Reset"]
            {
                let got = call(version, target, kind);
                let is_refused = got.status == 404 || got.field("grpc-status") == "12";
                assert!(is_refused && service.calls().0 == 0, "{version:?} {target} {kind}: {got:?}");
            }
        }
    }
    let got = call(Version::Http2, "/plain.Service/Echo", "application/grpc");
    assert_eq!((got.status, service.calls().0), (200, 1), "a route that does not translate is one: {got:?}");
}

#[test]
fn a_failure_has_the_status_of_https() {
    let service = Service::start();
    let lictor = lictor(&service, ", message_max: 1KiB");
    let rows = [
        ("missing", 404, 5, "no shelf \u{e9}", None),
        ("late", 403, 7, "not yours", None),
        ("after", 429, 8, "", None),
        ("503", 503, 14, "the service answered 503", None),
        ("html", 502, 2, "the service answered 200", Some("protocol_error")),
        ("nostatus", 502, 13, "without a status", Some("protocol_error")),
        ("none", 502, 13, "without a message", Some("protocol_error")),
        ("cut", 502, 13, "within a message", Some("protocol_error")),
        ("two", 502, 13, "more than one", Some("protocol_error")),
        ("garbage", 502, 13, "no `library.v1.Shelf`", Some("protocol_error")),
        ("compressed", 502, 13, "compressed", Some("protocol_error")),
        ("long", 502, 13, "longer", Some("protocol_error")),
        ("reset", 502, 14, "the service broke off", Some("reset_mid_response")),
    ];
    for version in BOTH {
        for (shelf, status, code, said, _) in rows {
            let got = ask(&lictor, version, "GET", &format!("/v1/shelves/{shelf}"), "");
            let what = format!("{version:?} {shelf}: {got:?}");
            assert!(got.status == status && got.is_whole && got.trailers.is_empty(), "{what}");
            assert_eq!(
                (got.field("content-type").as_str(), &json_of(&got)["code"]),
                ("application/json", &json!(code)),
                "{what}"
            );
            assert!(json_of(&got)["message"].as_str().unwrap().contains(said), "{what}");
            assert!(!got.headers.contains_key("grpc-status") && json_of(&got)["details"] == json!([]), "{what}");
        }
        let coded = ask(&lictor, version, "GET", "/v1/shelves/coded", "");
        let has_left = ["content-encoding", "grpc-encoding"].iter().any(|name| coded.headers.contains_key(*name));
        assert!(!has_left && json_of(&coded)["name"] == "a", "a body of JSON is not coded: {coded:?}");
        assert_eq!(ask(&lictor, version, "GET", "/v1/shelves/fine", "").status, 200, "a control");
    }
    for (shelf, status, _, _, reason) in rows {
        let line = crate::line_of(&lictor, |line| line["path"] == format!("/v1/shelves/{shelf}"));
        let logged = (line["status"].as_u64(), line["reason"].as_str());
        assert_eq!(logged, (Some(status.into()), reason), "the log has what the client saw: {line}");
    }
}

#[test]
fn an_answer_for_which_there_is_no_room_is_503_and_holds_none() {
    let service = Service::start();
    let lictor = lictor(&service, ", message_max: 16MiB");
    for version in BOTH {
        // Had they kept what they held, all the room would be gone.
        for _ in 0..4 {
            let got = ask(&lictor, version, "GET", "/v1/shelves/controls", "");
            assert_eq!((got.status, &json_of(&got)["code"]), (503, &json!(8)), "{version:?} {got:?}");
            assert_eq!(got.headers["retry-after"], "1", "{version:?}");
            assert_eq!(ask(&lictor, version, "GET", "/v1/shelves/fine", "").status, 200, "a control");
        }
    }
    let line = crate::line_of(&lictor, |line| line["path"] == "/v1/shelves/controls");
    assert_eq!((&line["status"], &line["reason"]), (&json!(503), &json!("overloaded")), "{line}");
}

#[test]
fn the_gateways_own_failures_are_as_on_any_route() {
    let service = Service::start();
    let file = descriptor();
    let [closed] = lictor_testkit::free_ports();
    let transcode = format!("transcode: {{descriptor: {file}, services: [library.v1.Library]}}");
    let lictor = gateway_with(
        &[],
        &format!(
            "  library: {{static: ['127.0.0.1:{}'], protocol: grpc}}\n  dead: {{static: ['127.0.0.1:{closed}'], protocol: grpc, retry: off}}\n",
            service.served.port
        ),
        &format!(
            "    - {{path: /v1/*, to: dead, errors: problem, {transcode}}}\n    - {{host: slow.example, path: /v1/*, to: library, timeout: 300ms, retry: off, {transcode}}}\n    - {{host: few.example, path: /v1/*, to: library, limit: 1/1h, {transcode}}}\n"
        ),
    );
    for version in BOTH {
        let got = ask(&lictor, version, "GET", "/v1/shelves/1", "");
        assert_eq!((got.status, got.field("content-type").as_str()), (502, "application/problem+json"), "{got:?}");
        assert_eq!(json_of(&got)["reason"], "connect_refused", "{got:?}");
        let got = ask(&lictor, version, "GET", "/v1/nobody", "");
        assert_eq!((got.status, got.field("content-type").as_str()), (404, "application/problem+json"), "{got:?}");
        let of_host = |host: &'static str, target: &str| {
            let told = crate::ask(&lictor, version, crate::Ask { method: "GET", host, target, fields: &[] });
            (told.status, told.body)
        };
        // A call of one message has a time of its own, as any request has.
        let (status, body) = of_host("slow.example", "/v1/shelves/hang");
        assert!(status == 504 && body.contains("\"reason\":\"timeout\""), "{version:?} {status} {body}");
        // And within its answer.
        let (status, body) = of_host("slow.example", "/v1/shelves/stall");
        assert!(status == 504 && body.contains("\"code\":4"), "{version:?} {status} {body}");
        assert_eq!(of_host("slow.example", "/v1/shelves/1").0, 200, "a control");
    }
    let line = crate::line_of(&lictor, |line| line["path"] == "/v1/shelves/stall");
    assert_eq!((&line["status"], &line["reason"]), (&json!(504), &json!("timeout")), "{line}");
    let first = crate::ask(
        &lictor,
        Version::Http1,
        crate::Ask { method: "GET", host: "few.example", target: "/v1/shelves/1", fields: &[] },
    );
    let second = crate::ask(
        &lictor,
        Version::Http1,
        crate::Ask { method: "GET", host: "few.example", target: "/v1/shelves/1", fields: &[] },
    );
    assert!(
        first.status == 200 && second.status == 429 && second.body.contains("rate_limited"),
        "{first:?} {second:?}"
    );
}

#[test]
fn a_body_is_read_however_it_comes_and_not_for_ever() {
    let service = Service::start();
    let file = descriptor();
    let lictor = gateway(
        &service,
        &format!(
            "    - {{path: /v1/*, to: library, timeout: 300ms, transcode: {{descriptor: {file}, services: [library.v1.Library], message_max: 100B}}}}\n"
        ),
    );
    let told = |framing: &str, body: &str| {
        let request = format!(
            "POST /v1/types HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n{framing}\r\n\r\n{body}"
        );
        crate::told_http1(connect(&lictor.address("gateway")), request.as_bytes())
    };
    let chunked = |pieces: &[&str]| {
        let chunks: Vec<String> = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
        told("Transfer-Encoding: chunked", &format!("{}0\r\n\r\n", chunks.concat()))
    };
    let whole = chunked(&["{\"str", "ing\": \"a\"", "}"]);
    assert_eq!((whole.status, whole.body.as_str()), (200, r#"{"string":"a"}"#), "{whole:?}");
    let seen = service.calls().0;
    let long = "x".repeat(60);
    for told in [
        chunked(&["{\"string\": \"", &long, &long, "\"}"]),
        told("Content-Length: 101", ""),
        told("Content-Length: 101\r\nExpect: 100-continue", ""),
    ] {
        assert_eq!(told.status, 413, "{told:?}");
    }
    // Its client says nothing more.
    for told in [told("Content-Length: 20", "{\"string\""), told("Transfer-Encoding: chunked", "5\r\n{\"str\r\n")] {
        assert!(told.status == 408 && told.body.contains("request_timeout"), "{told:?}");
    }
    // It says a little now and then.
    let mut stream = connect(&lictor.address("gateway"));
    let head = "POST /v1/types HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let mut answer = [0; 1024];
    let pieces = (0..90).find_map(|_| {
        stream.write_all(b" ").unwrap();
        stream.read(&mut answer).ok()
    });
    let trickled = String::from_utf8_lossy(&answer[..pieces.expect("an answer before it is all there")]);
    assert!(trickled.starts_with("HTTP/1.1 408"), "{trickled}");
    let fields = "Content-Length: 2\r\nX-Request-Timeout-Ms: 20";
    let late = told(fields, "{");
    assert!(late.status == 504 && late.body.contains("deadline_exceeded"), "{late:?}");
    assert_eq!(service.calls().0, seen, "none of them has come to the service");
    let waits = told("Content-Length: 2\r\nExpect: 100-continue", "{}");
    assert!(waits.status == 200 || waits.body.contains("200 OK"), "{waits:?}");
}

#[test]
fn a_call_is_no_tunnel() {
    let service = Service::start();
    let lictor = lictor(&service, "");
    let socket = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let request: Vec<String> = socket.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET /v1/shelves/1 HTTP/1.1\r\nHost: a\r\n{}\r\n", request.concat());
    let mut stream = connect(&lictor.address("gateway"));
    stream.write_all(request.as_bytes()).unwrap();
    let head = lictor_testkit::read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (_, seen) = service.calls();
    let seen = seen.unwrap();
    assert!(
        seen.path.ends_with("/GetShelf")
            && !seen.headers.contains_key("upgrade")
            && !seen.headers.contains_key("sec-websocket-accept"),
        "{seen:?}"
    );
}

#[test]
fn other_rules_of_the_route_hold_for_json() {
    let service = Service::start();
    let file = descriptor();
    let lictor = gateway(
        &service,
        &format!(
            "    - path: /v1/*\n      to: library\n      transcode: {{descriptor: {file}, services: [library.v1.Library]}}\n      cors: {{origins: ['https://a.example']}}\n      compress: {{min_size: 1B}}\n      body_max: 50B\n      request_headers: {{set: {{X-Set: '1'}}}}\n      response_headers: {{set: {{X-Route: '{{route}}'}}}}\n"
        ),
    );
    for version in BOTH {
        let fields = [("origin", "https://a.example"), ("accept-encoding", "gzip")];
        for target in ["/v1/shelves/1", "/v1/shelves:watch?page_size=5", "/v1/shelves/missing", "/v1/nobody"] {
            let got = get(&lictor, version, Asked::get(target, &fields));
            let what = format!("{version:?} {target}: {got:?}");
            assert_eq!(
                (got.field("access-control-allow-origin").as_str(), got.field("x-route").as_str()),
                ("https://a.example", "/v1/*"),
                "{what}"
            );
            assert_eq!(got.field("content-encoding"), "gzip", "{what}");
            let mut plain = String::new();
            flate2::read::GzDecoder::new(&got.body[..]).read_to_string(&mut plain).unwrap();
            assert!(serde_json::from_str::<Json>(&plain).is_ok(), "{what} {plain}");
        }
        let (_, seen) = service.calls();
        assert_eq!(seen.unwrap().headers["x-set"], "1");
        let preflight = [("origin", "https://a.example"), ("access-control-request-method", "DELETE")];
        let got =
            get(&lictor, version, Asked { method: "OPTIONS", target: "/v1/shelves/1", fields: &preflight, body: b"" });
        assert!(got.status == 204 || got.status == 200, "{got:?}");
        let long = format!(r#"{{"string": "{}"}}"#, "x".repeat(50));
        assert_eq!(
            ask(&lictor, version, "POST", "/v1/types", &long).status,
            413,
            "the shorter of the two bounds holds"
        );
    }
}

#[test]
fn a_stream_is_an_array_or_lines() {
    let service = Service::start();
    let lictor = lictor(&service, "");
    let elements =
        |count: u8| (0..count).map(|number| json!({"name": format!("s{number}"), "size": "5"})).collect::<Vec<_>>();
    for version in BOTH {
        let watch = |count: u8, accept: &str| {
            let target = format!("/v1/shelves:watch?page_size={count}");
            let fields = [("accept", accept)];
            get(&lictor, version, Asked::get(&target, if accept.is_empty() { &[] } else { &fields }))
        };
        for count in [0, 1, 2, 20] {
            let got = watch(count, "");
            assert!(got.status == 200 && got.is_whole && got.trailers.is_empty(), "{version:?} {count} {got:?}");
            assert_eq!(
                (got.field("content-type").as_str(), json_of(&got)),
                ("application/json", json!(elements(count)))
            );
            let got = watch(count, "application/x-ndjson");
            let lines: Vec<Json> = got
                .body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            assert!(got.status == 200 && got.is_whole && lines == elements(count), "{version:?} {count} {got:?}");
            assert_eq!(got.field("content-type"), "application/x-ndjson");
            assert!(got.body.is_empty() || got.body.ends_with(b"\n"));
        }
        for accept in ["", "application/x-ndjson"] {
            let got = watch(3, accept);
            assert!(
                got.status == 200 && !got.is_whole,
                "it fails after its first message, and has no end: {version:?} {got:?}"
            );
            assert!(!got.body.ends_with(b"]"), "{got:?}");
            let got = watch(100, accept);
            assert_eq!(
                (got.status, json_of(&got)),
                (404, json!({"code": 5, "message": "none at all", "details": []})),
                "{version:?} {got:?}"
            );
        }
    }
}

#[test]
fn a_message_of_a_stream_is_there_when_it_has_come() {
    let service = Service::start();
    let lictor = lictor(&service, "");
    let mut stream = connect(&lictor.address("gateway"));
    stream.write_all(b"GET /v1/shelves:watch?page_size=7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut came = Vec::new();
    let mut byte = [0];
    while !came.ends_with(br#"[{"name":"s0","size":"5"}"#) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&came));
        came.push(byte[0]);
    }
    service.go.add_permits(1);
    stream.read_to_end(&mut came).unwrap();
    assert!(String::from_utf8_lossy(&came).contains(r#"{"name":"s6","size":"5"}"#));
}

#[test]
fn a_map_needs_no_annotations_and_says_how_answers_look() {
    let service = Service::start();
    let file = descriptor();
    let lictor = gateway(
        &service,
        &format!(
            r"    - path: /api/*
      to: library
      strip: /api
      transcode:
        descriptor: {file}
        map:
          GET /users/{{name}}: library.v1.Library/GetShelf
          POST /users: {{call: library.v1.Library/CreateShelf, body: shelf, response_body: shelf, status: 201}}
          POST /types: library.v1.Library/Echo
        proto_names: true
        defaults: true
"
        ),
    );
    for version in BOTH {
        let got = ask(&lictor, version, "GET", "/api/users/7", "");
        assert_eq!((got.status, json_of(&got)), (200, json!({"name": "7", "theme": "", "size": "0"})), "{got:?}");
        let got = ask(&lictor, version, "POST", "/api/users", r#"{"name": "x"}"#);
        assert_eq!((got.status, json_of(&got)), (201, json!({"name": "x", "theme": "", "size": "0"})), "{got:?}");
        let got = ask(&lictor, version, "POST", "/api/types", r#"{"snakeCase": "x"}"#);
        assert_eq!(
            (got.status, &json_of(&got)["snake_case"], &json_of(&got)["texts"]),
            (200, &json!("x"), &json!([])),
            "{got:?}"
        );
        assert_eq!(ask(&lictor, version, "GET", "/api/v1/shelves/1", "").status, 404, "its annotations are not asked");
    }
    let line = crate::line_of(&lictor, |line| line["path"] == "/api/users" && line["method"] == "POST");
    assert_eq!(line["status"], 201, "{line}");
}

#[test]
fn explain_says_which_method_a_request_is_for_or_why_it_is_for_none() {
    let service = Service::start();
    let lictor = lictor(&service, "");
    for (method, target, expected) in [
        ("GET", "/v1/shelves/1", "to library as /library.v1.Library/GetShelf."),
        ("GET", "/v1/shelves:watch?page_size=2", "to library as /library.v1.Library/WatchShelves."),
        ("DELETE", "/v1/shelves/1", "to library as /library.v1.Library/DeleteShelf."),
        ("POST", "/v1/shelves/1", "no method of the service is for POST /v1/shelves/1"),
        ("GET", "/v1/shelves?no_such=1", "no field `no_such`"),
    ] {
        let url = format!("http://a{target}");
        let told = says(&["explain", method, &url, "--admin", &lictor.admin()]);
        assert!(told.contains(expected), "{method} {target}: {told}");
    }
    assert_eq!(service.calls().0, 0, "nothing is sent");
}
