//! Trace context on its way through, and spans on their way out. What an OpenTelemetry receiver makes of them is in
//! `tests/conformance/test_traces.py`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier, OnceLock};

use lictor_testkit::{Backend, RawServer, Sidecar, eventually_is, exchange, read_head, request};

use crate::LICTOR;

fn traced(backend: &Backend, otlp: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nport: {port}\ninbound: {{listen: '127.0.0.1:0'}}\noutbound: {{proxy: 0}}\n\
         trace: {{otlp: '{otlp}', sample: 0%}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n",
        port = backend.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn sampled_call(lictor: &Sidecar) {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "rojo=1"), ("tracestate", "congo=t61r")];
    let answer = request(&lictor.address("users"), "GET", "/users/1", &headers, b"").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_sampled_request_is_a_span_over_otlp_http() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let backend = Backend::start("a");
    let lictor = traced(&backend, &url);
    sampled_call(&lictor);
    let (mut stream, _) = receiver.accept().unwrap();
    let mut seen = Vec::new();
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&TRACE[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let mut chunk = [0; 4096];
    while !seen.windows(16).any(|window| window == id) {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "it ended without the trace: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("POST /v1/traces HTTP/1.1"), "{text}");
    for part in ["service.name", "orders", "url.path", "/users/1", "network.peer.address", "rojo=1,congo=t61r"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn a_sampled_request_is_a_span_over_otlp_grpc() {
    // It answers without a grpc-status, which the exporter complains about; that the call came is what counts.
    let (backend, receiver) = (Backend::start("a"), Backend::start("collector"));
    let yaml_url = format!("http://127.0.0.1:{}", receiver.port());
    let yaml = format!(
        "registration: off\nservice: orders\ntrace: {{otlp: '{yaml_url}', protocol: grpc}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    sampled_call(&lictor);
    eventually_is("the collector is called", || receiver.hits(), |hits| *hits >= 1);
}

#[test]
fn what_is_not_sampled_is_not_exported_and_a_dead_receiver_harms_nobody() {
    let [gone] = lictor_testkit::free_ports();
    let backend = Backend::start("a");
    let lictor = traced(&backend, &format!("http://127.0.0.1:{gone}"));
    for _ in 0..20 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    sampled_call(&lictor);
    eventually_is("the loss is told once", || lictor.log(), |log| log.contains("spans cannot be exported"));
    assert_eq!(lictor.get("users", "/").status, 200);
}

const ID: &str = "12345678901234567890123456789012";
const SPAN: &str = "1234567890123456";

/// What becomes of a caller's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The trace goes on.
    GoesOn,
    /// A new one begins.
    Restarts,
}
use Fate::{GoesOn, Restarts};

/// The cases of the W3C's test suite (github.com/w3c/trace-context, test/test.py) about `traceparent`.
#[test]
fn traceparent_is_understood_as_the_w3c_tests_it() {
    let (backend, [gone]) = (Backend::start("a"), lictor_testkit::free_ports());
    let lictor = traced(&backend, &format!("http://127.0.0.1:{gone}"));
    let with = |name: &str, value: &str| format!("{name}: {value}\r\n");
    let traceparent = |value: &str| with("traceparent", value);
    let good = format!("00-{ID}-{SPAN}-01");
    let swapped = |from: &str, to: &str| traceparent(&good.replacen(from, to, 1));
    let other = format!("00-{}-{SPAN}-00", ID.replace('9', "a"));
    let cases = [
        ("valid", traceparent(&good), GoesOn),
        ("duplicated", traceparent(&good) + &traceparent(&other), Restarts),
        ("name with a hyphen", with("trace-parent", &good), Restarts),
        ("name with a dot", with("trace.parent", &good), Restarts),
        ("TraceParent", with("TraceParent", &good), GoesOn),
        ("TrAcEpArEnT", with("TrAcEpArEnT", &good), GoesOn),
        ("TRACEPARENT", with("TRACEPARENT", &good), GoesOn),
        ("version 00 with a dot after it", traceparent(&format!("{good}.")), Restarts),
        ("version 00 with more after it", traceparent(&format!("{good}-what-the-future")), Restarts),
        ("version cc", swapped("00", "cc"), GoesOn),
        ("version cc with more", traceparent(&format!("cc-{ID}-{SPAN}-01-what-the-future")), GoesOn),
        ("version cc with a dot after it", traceparent(&format!("cc-{ID}-{SPAN}-01.what-the-future")), Restarts),
        ("version ff", swapped("00", "ff"), Restarts),
        ("version .0", swapped("00", ".0"), Restarts),
        ("version 0.", swapped("00", "0."), Restarts),
        ("version too long", swapped("00", "000"), Restarts),
        ("version far too long", swapped("00", "0000"), Restarts),
        ("version too short", swapped("00", "0"), Restarts),
        ("trace id of zeros", swapped(ID, &"0".repeat(32)), Restarts),
        ("trace id beginning with a dot", swapped(ID, &format!(".{}", &ID[1..])), Restarts),
        ("trace id ending with a dot", swapped(ID, &format!("{}.", &ID[1..])), Restarts),
        ("trace id in upper case", swapped(ID, &ID.replace('1', "A")), Restarts),
        ("trace id too long", swapped(ID, &format!("{ID}3")), Restarts),
        ("trace id too short", swapped(ID, &ID[1..]), Restarts),
        ("parent id of zeros", swapped(&format!("-{SPAN}-"), &format!("-{}-", "0".repeat(16))), Restarts),
        ("parent id beginning with a dot", swapped(&format!("-{SPAN}-"), &format!("-.{}-", &SPAN[1..])), Restarts),
        ("parent id ending with a dot", swapped(&format!("-{SPAN}-"), &format!("-{}.-", &SPAN[1..])), Restarts),
        ("parent id too long", swapped(&format!("-{SPAN}-"), &format!("-{SPAN}7-")), Restarts),
        ("parent id too short", swapped(&format!("-{SPAN}-"), &format!("-{}-", &SPAN[1..])), Restarts),
        ("flags .0", swapped("-01", "-.0"), Restarts),
        ("flags 0.", swapped("-01", "-0."), Restarts),
        ("flags too long", swapped("-01", "-001"), Restarts),
        ("flags too short", swapped("-01", "-1"), Restarts),
        ("a space before", traceparent(&format!(" {good}")), GoesOn),
        ("a tab before", traceparent(&format!("\t{good}")), GoesOn),
        ("a space after", traceparent(&format!("{good} ")), GoesOn),
        ("a tab after", traceparent(&format!("{good}\t")), GoesOn),
        ("both around", traceparent(&format!("\t {good} \t")), GoesOn),
        ("none", String::new(), Restarts),
    ];
    for (case, fields, fate) in &cases {
        let sent = passed_on(&lictor, fields);
        let parent = &sent["traceparent: ".len()..];
        let parts: Vec<&str> = parent.lines().next().unwrap().split('-').collect();
        assert!(parts.len() == 4 && parts[1].len() == 32 && parts[2].len() == 16, "{case}: {sent}");
        assert_eq!(parts[1] == ID, *fate == GoesOn, "{case}: {sent}");
        assert_ne!(parts[2], SPAN, "{case}: the parent is a span of ours");
        assert!(fate == &GoesOn || parts[1] != ID.replace('9', "a"), "{case}: {sent}");
    }
}

/// Its cases about `tracestate`; where it allows several behaviours, ours.
#[test]
fn tracestate_is_passed_on_whole_or_not_at_all() {
    let (backend, [gone]) = (Backend::start("a"), lictor_testkit::free_ports());
    let lictor = traced(&backend, &format!("http://127.0.0.1:{gone}"));
    let numbered = |count: usize| (1..=count).map(|at| format!("bar{at:02}=1")).collect::<Vec<_>>().join(",");
    let [exactly, too_many, long] = [numbered(32), numbered(33), format!("foo={}", "v".repeat(250))];
    let [key, value] = ["z".repeat(256), "z".repeat(257)];
    let tenant = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
    let [long_tenant, long_system] = [format!("{}@v=1", "t".repeat(242)), format!("t@{}=1", "v".repeat(254))];
    let too_long_tenant = format!("{}@v=1", "t".repeat(255));
    let (key, long_key, long_value) = (format!("{key}=1"), format!("{value}=1"), format!("foo={value}"));
    let over_512 = [long.as_str(), &long.replace("foo", "bar"), &long.replace("foo", "baz")].join(",");
    let characters =
        "foo= !\"#$%&'()*+-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
    let passes: &[&[&str]] = &[
        &["foo=1"],
        &["foo=1,bar=2"],
        &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
        &["foo=1", ""],
        &["", "foo=1"],
        &["foo=1 \t , \t bar=2, \t baz=3"],
        &["foo=1,foo=1"],
        &["0rojo@congo=1,a-b*/_9=2"],
        &[characters],
        &[&exactly],
        &[&exactly[..exactly.len() - 8], "bar99=1"],
        &[&over_512],
        &[&key],
        &[&tenant],
        &[&long_tenant],
        &[&long_system],
        &["1a=1"],
        &["foo@=1,bar=2"],
        &["foo@@bar=1,bar=2"],
        &["foo@bar@baz=1,bar=2"],
    ];
    let drops: &[&[&str]] = &[
        &["foo"],
        &["foo =1"],
        &["FOO=1"],
        &["foo.bar=1"],
        &["foo=1", "bar"],
        &["@foo=1,bar=2"],
        &["foo=bar=baz"],
        &["foo=,bar=3"],
        &["foo=\u{e9}"],
        &[&too_many],
        &[&exactly, "bar99=1"],
        &[&long_key],
        &[&long_value],
        &[&too_long_tenant],
    ];
    let good = format!("traceparent: 00-{ID}-{SPAN}-01\r\n");
    let states =
        |states: &[&str]| states.iter().map(|state| format!("tracestate: {state}\r\n")).collect::<Vec<_>>().concat();
    let members =
        |text: &str| text.split(',').map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let arrived = |fields: &str| {
        let text = passed_on(&lictor, fields);
        let all = text.lines().filter_map(|line| line.strip_prefix("tracestate: ")).collect::<Vec<_>>().join(",");
        members(&all)
    };
    for sent in passes {
        assert_eq!(arrived(&(good.clone() + &states(sent))), members(&sent.join(",")), "{sent:?}");
    }
    for sent in drops {
        assert_eq!(arrived(&(good.clone() + &states(sent))), Vec::<String>::new(), "{sent:?}");
    }
    assert_eq!(arrived(&states(&["foo=1"])), Vec::<String>::new(), "a state belongs to a traceparent");
    let broken = good.replacen("00-", "ff-", 1) + &states(&["foo=1"]);
    assert_eq!(arrived(&broken), Vec::<String>::new(), "to a valid one");
    for name in ["trace-state", "trace.state"] {
        assert_eq!(arrived(&format!("{good}{name}: foo=1\r\n")), Vec::<String>::new(), "{name}");
    }
    for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
        assert_eq!(arrived(&format!("{good}{name}: foo=1\r\n")), ["foo=1"], "{name}");
    }
}

#[test]
fn each_request_of_a_trace_is_a_span_of_its_own() {
    let (backend, [gone]) = (Backend::start("a"), lictor_testkit::free_ports());
    let lictor = traced(&backend, &format!("http://127.0.0.1:{gone}"));
    let fields = format!("traceparent: 00-{ID}-{SPAN}-01\r\n");
    let spans: std::collections::BTreeSet<String> =
        (0..5).map(|_| passed_on(&lictor, &fields)["traceparent: 00-".len() + 33..][..16].to_owned()).collect();
    assert_eq!(spans.len(), 5);
}

/// A request's ways through lictor.
const WAYS: [&str; 3] = ["users", "forward", "inbound"];

/// What the upstream or the application was sent on each, from `traceparent` on; they do not differ but by their spans.
fn passed_on(lictor: &Sidecar, fields: &str) -> String {
    let ways = WAYS.map(|way| passed_on_by(lictor, way, fields));
    let without_ids = |way: &str| {
        let states: Vec<String> = way.lines().skip(1).map(str::to_owned).collect();
        (way.get(..16).map(str::to_owned), states)
    };
    assert!(ways.iter().all(|way| without_ids(way) == without_ids(&ways[0])), "{fields}: {ways:?}");
    if let Some(id) = ways[0].get(16..48).filter(|id| fields.contains(*id)) {
        assert!(ways.iter().all(|way| way[16..48] == *id), "{fields}: {ways:?}");
    }
    ways.into_iter().next().unwrap()
}

fn passed_on_by(lictor: &Sidecar, way: &str, fields: &str) -> String {
    let head = format!("GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n{fields}\r\n");
    let answer = exchange(&lictor.address(way), head.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{way}: {fields}");
    let text = answer.text();
    let ours: Vec<&str> =
        text.lines().filter(|line| line.starts_with("traceparent: ") || line.starts_with("tracestate: ")).collect();
    let (parents, states): (Vec<&str>, Vec<&str>) = ours.into_iter().partition(|line| line.starts_with("traceparent"));
    assert_eq!(parents.len(), 1, "{text}");
    [parents, states].concat().join("\n")
}

/// An application that waits until so many requests are served, calls `users` for each, and answers with what it was asked
/// and what that was. Of the request it passes on what its path says.
fn forgetful(together: usize) -> (RawServer, Arc<OnceLock<String>>) {
    let (users, barrier) = (Arc::new(OnceLock::<String>::new()), Barrier::new(together));
    let at = Arc::clone(&users);
    let server = RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        if head.is_empty() {
            return;
        }
        barrier.wait();
        let id = field(&head, "x-request-id").unwrap_or_default();
        let headers = match head.split(' ').nth(1) {
            Some("/id") => vec![("x-request-id", id)],
            Some("/own-id") => vec![("x-request-id", "of-its-own")],
            Some("/own-trace") => vec![("traceparent", "00-12345678901234567890123456789012-1234567890123456-01")],
            Some("/own-b3") => vec![("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")],
            _ => Vec::new(),
        };
        let seen = request(at.get().unwrap(), "GET", "/", &headers, b"").unwrap().text();
        barrier.wait();
        let both = format!("{head}\n==\n{seen}");
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{both}", both.len());
    });
    (server, users)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// `traceparent`'s trace and span.
fn context(head: &str) -> (&str, &str) {
    let text = field(head, "traceparent").unwrap_or_else(|| panic!("no traceparent: {head}"));
    (&text[3..35], &text[36..52])
}

/// What is said of the only request, or by the ids of several.
#[test]
fn a_call_without_a_context_belongs_to_the_request_that_is_served() {
    let (backend, [gone]) = (Backend::start("b"), lictor_testkit::free_ports());
    let exporting = format!("infer_parent: on, sample: 0%, otlp: 'http://127.0.0.1:{gone}'");
    for (trace, together, path, ids, joins) in [
        ("sample: 0%", 1, "/", "told", false),
        ("infer_parent: off", 2, "/id", "told", false),
        ("infer_parent: on", 1, "/", "told", true),
        ("infer_parent: on", 1, "/", "none", true),
        ("infer_parent: on", 1, "/id", "told", true),
        ("infer_parent: on", 1, "/own-id", "told", true),
        ("infer_parent: on", 1, "/own-trace", "told", false),
        ("infer_parent: on", 1, "/own-b3", "told", false),
        ("infer_parent: on", 2, "/", "told", false),
        ("infer_parent: on", 2, "/id", "told", true),
        ("infer_parent: on", 2, "/id", "none", true), // lictor gave them some
        ("infer_parent: on", 2, "/id", "same", false),
        ("infer_parent: on", 2, "/own-id", "told", false),
        ("infer_parent: on", 2, "/own-trace", "told", false),
        ("infer_parent: on", 6, "/id", "told", true),
        (&exporting, 1, "/", "told", true),
        (&exporting, 2, "/id", "told", true),
    ] {
        let case = format!("{trace}; {together} at a time, {path}, ids: {ids}");
        let (app, users) = forgetful(together);
        let yaml = format!(
            "registration: off\nservice: orders\nworkers: 2\ntrace: {{{trace}}}\napp: {{port: {}, probe: off}}\n\
             inbound: {{listen: '127.0.0.1:0'}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
            app.port(),
            backend.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        users.set(lictor.address("users")).unwrap();
        let ask = |number: usize| {
            let inbound = lictor.address("inbound");
            let (parent, id) = (format!("00-{number:032x}-{number:016x}-00"), format!("req-{number}"));
            let id = match ids {
                "told" => Some(id),
                "same" => Some("the-same".to_owned()),
                _ => None,
            };
            std::thread::spawn(move || {
                let headers = id.iter().map(|id| ("x-request-id", id.as_str()));
                let headers: Vec<_> = headers.chain([("traceparent", parent.as_str())]).collect();
                request(&inbound, "GET", path, &headers, b"").unwrap().text()
            })
        };
        let asked: Vec<_> = (1..=together).map(ask).collect();
        for asked in asked {
            let both = asked.join().unwrap();
            let (served, called) = both.split_once("\n==\n").unwrap_or_else(|| panic!("{case}: {both}"));
            let ((trace_id, span_id), (called_trace, called_span)) = (context(served), context(called));
            assert_eq!(called_trace == trace_id, joins, "{case}: {both}");
            if joins && trace == exporting {
                assert_eq!(field(called, "x-parent-id"), Some(span_id), "{case}: {both}");
            } else if joins {
                assert_eq!(called_span, span_id, "no span lies between that nobody sends: {case}: {both}");
            }
        }
        let is_told = joins || path.starts_with("/own-trace") || path.starts_with("/own-b3");
        let orphans = lictor.metric("lictor_trace_orphans_total", &[]) as usize;
        assert_eq!(orphans, if is_told { 0 } else { together }, "{case}");
        eventually_is(
            &format!("nobody is served any more: {case}"),
            || lictor.get("users", "/").text(),
            |later| (1..=together).all(|number| !later.contains(&format!("{number:032x}"))),
        );
    }
}
