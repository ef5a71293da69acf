//! What failures of the gateway's own look like.

use serde_json::Value;

use lictor_testkit::{RawServer, Sidecar, connect, free_ports};

use crate::wire::{Asked, get};
use crate::{Ask, BOTH, LICTOR, Version, ask, configuration, echo, told_http1};

fn members(body: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {body}"));
    value.as_object().unwrap().keys().cloned().collect()
}

fn lictor(format: &str, servers: &[(&str, &RawServer)]) -> Sidecar {
    let [closed] = free_ports();
    let more =
        format!("  dead: {{static: ['127.0.0.1:{closed}'], retry: off, breaker: {{failure_threshold: 1000}}}}\n");
    let routes = "  - {path: /dead, to: dead}\n  - {path: /own/*, to: dead, errors: problem}\n  - {path: /plain, to: dead, errors: off}\n  - {path: /one, to: one}\n";
    Sidecar::serve(LICTOR, &configuration(servers, &more, &format!("  errors: {format}\n"), routes)).up()
}

#[test]
fn each_failure_has_the_shape_that_the_api_has() {
    let one = echo("one");
    for (format, kind, dead, names) in [
        (
            "problem",
            "application/problem+json",
            "the service could not be reached",
            &["detail", "reason", "request_id", "status", "timestamp", "title", "type"][..],
        ),
        ("status_message", "application/json", "Service temporarily unavailable", &["message", "status", "timestamp"]),
        ("error", "application/json", "bad gateway", &["error"]),
        ("{format: error_message}", "application/json", "Service temporarily unavailable", &["error", "message"]),
        ("text", "text/plain; charset=utf-8", "Service not available\n", &[]),
        (
            "{template: '{\"c\":{status},\"m\":\"{message}\",\"r\":\"{route}\"}'}",
            "application/json",
            "could not be reached",
            &["c", "m", "r"],
        ),
    ] {
        let lictor = lictor(format, &[("one", &one)]);
        for version in BOTH {
            for (target, status) in [("/dead", 502), ("/none", 404), ("/%2f", 400)] {
                let told = ask(&lictor, version, Ask::get(target));
                assert!(told.status == status && told.head.contains(kind), "{version:?} {format} {target}: {told:?}");
                assert!(target != "/dead" || told.body.contains(dead), "{version:?} {format}: {told:?}");
                if !names.is_empty() {
                    let mut own = members(&told.body);
                    own.sort();
                    assert_eq!(own, names, "{version:?} {format} {target}");
                }
            }
            // A route has its own, or lictor's; the service's answers are nobody's to change.
            let own = ask(&lictor, version, Ask::get("/own/x"));
            assert!(own.head.contains("application/problem+json") && own.body.contains("\"status\":502"), "{own:?}");
            let plain = ask(&lictor, version, Ask::get("/plain"));
            assert!(plain.body.contains("\"reason\":\"connect_refused\""), "{plain:?}");
            assert_eq!(ask(&lictor, version, Ask::get("/one")).server(), "one");
            // gRPC has a shape of its own.
            let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
            let told = ask(&lictor, version, Ask { method: "POST", fields: &grpc, ..Ask::get("/none") });
            assert!(told.status == 200 && told.head.contains("grpc-status"), "{version:?} {format}: {told:?}");
            // A HEAD has no body, whatever its GET has.
            if version == Version::Http1 {
                let head = ask(&lictor, version, Ask { method: "HEAD", ..Ask::get("/none") });
                assert!(head.status == 404 && head.body.is_empty() && head.head.contains(kind), "{format}: {head:?}");
            }
        }
        let told = told_http1(connect(&lictor.address("gateway")), b"GET / HTTP/1.1\r\nbad field\r\n\r\n");
        assert!(told.status == 400 && told.head.contains(kind), "{format}: {told:?}");
    }
}

#[test]
fn what_a_client_sends_does_not_break_the_shape() {
    let one = echo("one");
    for format in
        ["problem", "{template: '{\"m\":\"{message}\"}'}", "{template: '<p>{message}</p>', content_type: text/html}"]
    {
        let lictor = lictor(format, &[("one", &one)]);
        for version in BOTH {
            for target in ["/none\"}", "/none'<script>", "/none%22%7d", "/none%3cscript%3e"] {
                let told = ask(&lictor, version, Ask::get(target));
                assert!(matches!(told.status, 400 | 404), "{version:?} {format} {target}: {told:?}");
                assert!(!told.body.contains("<script>"), "{version:?} {format} {target}: {told:?}");
                if !format.contains("html") {
                    members(&told.body);
                }
            }
            let id = [("x-request-id", "a\"}<b>")];
            let told = ask(&lictor, version, Ask { fields: &id, ..Ask::get("/none") });
            assert!(format.contains("html") || !members(&told.body).is_empty(), "{told:?}");
        }
    }
}

#[test]
fn a_wait_is_told_in_the_body_as_in_the_field() {
    let [closed] = free_ports();
    let more = format!("  dead: {{static: ['127.0.0.1:{closed}'], retry: off}}\n");
    let lictor =
        Sidecar::serve(LICTOR, &configuration(&[], &more, "  errors: status_message\n", "  - {path: /*, to: dead}\n"))
            .up();
    assert_eq!(lictor.post("/breakers/dead?state=open").status, 200);
    for version in BOTH {
        let got = get(&lictor, version, Asked::get("/", &[]));
        let body: Value = serde_json::from_slice(&got.body).unwrap();
        let told = (got.status, got.field("retry-after"));
        assert_eq!(told, (503, body["retry_after"].to_string()), "{version:?}: {got:?}");
    }
}
