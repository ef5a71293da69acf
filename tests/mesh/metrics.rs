//! `docs/metrics.md` has every family that is exported, as it is, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lictor_testkit::{
    Authority, Backend, Consul, Sidecar, eventually, eventually_is, exchange, free_ports, get, request, root, scratch,
};

use crate::{LICTOR, caller};

/// What is said of a family: its type and the names of its labels.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

type Families = BTreeMap<String, Family>;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

#[test]
fn the_page_has_every_family_with_its_type_and_labels() {
    let page = documented(&std::fs::read_to_string(root().join("docs/metrics.md")).unwrap());
    let mut live = Families::new();
    outbound(&mut live);
    inbound_and_consul(&mut live);
    gateway(&mut live);
    edge(&mut live);
    let named = |families: &Families| families.keys().cloned().collect::<BTreeSet<_>>();
    let (written, exported) = (named(&page), named(&live));
    assert_eq!(exported.difference(&written).collect::<Vec<_>>(), Vec::<&String>::new(), "missing from the page");
    assert_eq!(written.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new(), "on the page, not exported");
    for (name, family) in &live {
        assert_eq!(&page[name], family, "{name}");
    }
}

/// Upstreams that answer, fail, are slow, are cached, speak gRPC, are bytes.
fn outbound(live: &mut Families) {
    let (good, slow) = (Backend::start("good"), Backend::start("slow"));
    let [nobody] = free_ports();
    slow.delays(Duration::from_secs(5));
    let (good_at, slow_at) = (good.port(), slow.port());
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let yaml = format!(
        "registration: off
service: orders
workers: 1
metrics: {{max_label_values: 1, otel: true, merge_app: 'http://127.0.0.1:{good_at}/metrics'}}
trace: {{otlp: 'http://127.0.0.1:{nobody}'}}
upstreams:
  good: {{listen: 0, static: ['127.0.0.1:{good_at}'], cache: 1m}}
  safe: {{listen: {{address: 0, tls: {{cert: {cert}, key: {key}}}}}, static: ['127.0.0.1:{good_at}']}}
  old: {{listen: 0, static: ['127.0.0.1:{good_at}'], fallback: {{stale: 5m}}, retry: off}}
  bad: {{listen: 0, static: ['127.0.0.1:{nobody}'], retry: {{delays: [1ms]}}, breaker: {{failure_threshold: 3}}}}
  slow: {{listen: 0, static: ['127.0.0.1:{slow_at}', '127.0.0.1:{good_at}'], balance: round_robin, hedge: {{after: 20ms}}}}
  late: {{listen: 0, static: ['127.0.0.1:{slow_at}'], timeout: 50ms}}
  calls: {{listen: 0, protocol: grpc, static: ['127.0.0.1:{nobody}']}}
  bytes: {{listen: 0, protocol: tcp, static: ['127.0.0.1:{good_at}']}}
"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(lictor.get("good", "/").status, 200);
    assert_eq!(lictor.get("good", "/").status, 200);
    for _ in 0..3 {
        lictor.get("bad", "/");
    }
    assert_eq!(lictor.get("bad", "/").header("x-lictor-reason"), "breaker_open");
    assert_eq!(lictor.get("slow", "/").status, 200);
    assert_eq!(lictor.get("slow", "/").status, 200);
    assert_eq!(lictor.get("late", "/").status, 504);
    for method in ["/a.A/One", "/a.A/Two"] {
        assert_eq!(request(&lictor.address("calls"), "POST", method, &GRPC, b"").unwrap().status, 200);
    }
    for (service, method) in [("a.A", "One"), ("other", "other")] {
        let labels = [("rpc_system", "grpc"), ("rpc_service", service), ("rpc_method", method)];
        let labels = [&labels[..], &[("rpc_grpc_status_code", "14"), ("server_address", "calls")]].concat();
        let calls = lictor.metric("rpc_client_duration_seconds_count", &labels);
        assert!((calls - 1.0).abs() < 0.1, "{service}: {calls}");
    }
    assert_eq!(lictor.get("bytes", "/").status, 200);
    assert_eq!(lictor.post("/breakers/calls?state=open").status, 200);
    assert_eq!(exchange(&lictor.address("good"), b"nothing\r\n\r\n").unwrap().status, 400);
    assert_eq!(lictor.get("old", "/").status, 200);
    good.kill();
    assert_eq!(lictor.get("old", "/").status, 200);
    eventually_is("the connection ended", || lictor.metric("lictor_tcp_connections_total", &[]), |count| *count > 0.5);
    scrape(&lictor, live);
}

/// A gateway that counts in a Redis that is not there, asks who it is, copies and compresses.
fn gateway(live: &mut Families) {
    let [nobody] = free_ports();
    let body = "x".repeat(2000);
    let yaml = format!(
        "registration: off
redis: 127.0.0.1:{nobody}
upstreams: {{gone: {{static: ['127.0.0.1:{nobody}'], retry: off}}}}
gateway:
  listen: '127.0.0.1:0'
  limit: {{rate: 9/1h, mode: redis}}
  compress: on
  cors: {{origins: ['https://app.example']}}
  auth: {{jwt: {{secret: a-secret-of-thirty-two-bytes-or-more}}}}
  routes:
    - {{path: /page, respond: {{body: {body}, content_type: text/plain}}, auth: none}}
    - {{path: /copied, to: gone, mirror: {{to: gone}}, auth: none}}
    - {{path: /*, to: gone}}
"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let asked = |path: &str| {
        let fields = [("accept-encoding", "gzip"), ("origin", "https://app.example")];
        request(&lictor.address("gateway"), "GET", path, &fields, b"").unwrap().status
    };
    assert_eq!(["/page", "/copied", "/private"].map(asked), [200, 502, 401]);
    let text = || get(&lictor.admin(), "/metrics").unwrap().text();
    let late = ["lictor_limit_redis_up{", "lictor_gateway_mirrored_total{"];
    eventually_is("workers say that Redis is down, and the copy is counted", text, |text| {
        late.iter().all(|family| text.contains(family))
    });
    scrape(&lictor, live);
}

/// Routes and certificates that the file has not: Consul knows of none, and the CA is not there.
fn edge(live: &mut Families) {
    let (consul, storage, [nobody]) = (Consul::dev(), scratch("edge"), free_ports());
    let yaml = format!(
        "registration: off
service: edge
consul: {{address: '{}'}}
gateway:
  listen: '127.0.0.1:0'
  from_consul: {{allow: {{'*': /api/*}}}}
  tls: {{hosts: shop.example, acme: {{directory: 'http://127.0.0.1:{nobody}/dir', storage: '{}', terms_agreed: true, challenge: tls-alpn-01}}}}
  routes: [{{path: /, respond: {{body: ''}}}}]
",
        consul.url(),
        storage.display(),
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let text = || get(&lictor.admin(), "/metrics").unwrap().text();
    eventually_is("an order has failed", text, |text| text.contains("lictor_certificate_orders_total{"));
    scrape(&lictor, live);
    std::fs::remove_dir_all(&storage).unwrap();
}

/// Our own application, a registration that is lost, and a Consul that goes away.
fn inbound_and_consul(live: &mut Families) {
    let (mut consul, backend, [inbound]) = (Consul::dev(), Backend::start("app"), free_ports());
    let yaml = format!(
        "service: users
port: {}
registration: {{id: users-1, checks: [{{http: /health}}]}}
inbound: {{listen: '127.0.0.1:{inbound}'}}
metrics: {{otel: true, endpoints: true}}
consul: {{address: '{}'}}
building_blocks: {{token: a-token-of-the-application, saga: true}}
upstreams: {{carts: 0, shop: {{listen: 0, static: ['127.0.0.1:{}']}}}}
",
        backend.port(),
        consul.url(),
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(lictor.get("inbound", "/").status, 200);
    orphan(&lictor, &backend);
    let token = [("authorization", "Bearer a-token-of-the-application")];
    let saga = br#"{"steps": [{"name": "a", "service": "shop", "action": "a"}]}"#;
    assert_eq!(request(&lictor.admin(), "POST", "/v1/saga", &token, saga).unwrap().status, 200);
    let measured = || get(&lictor.admin(), "/metrics").unwrap().text();
    eventually_is("a second is over", measured, |text| text.contains("lictor_endpoint_latency_seconds{"));
    eventually_is("it is registered", || consul.passing("users").len(), |count| *count == 1);
    consul.deregister("users-1");
    let again = || lictor.metric("lictor_reregistrations_total", &[("cause", "forgotten")]);
    eventually_is("it is registered again", again, |count| *count > 0.5);
    let other = caller(&consul, "");
    consul.kill();
    let missed = || other.metric("lictor_consul_errors_total", &[]) + lictor.metric("lictor_consul_errors_total", &[]);
    eventually_is("its absence is seen", missed, |count| *count > 0.5);
    scrape(&lictor, live);
    scrape(&other, live);
}

/// Our application calls without the trace of the request that it serves.
fn orphan(lictor: &Sidecar, app: &Backend) {
    let (before, inbound) = (app.hits(), lictor.address("inbound"));
    app.delays(Duration::from_secs(2));
    let serving = std::thread::spawn(move || request(&inbound, "GET", "/", &[("traceparent", PARENT)], b""));
    eventually_is("it is being served", || app.hits(), |hits| *hits > before);
    lictor.get("carts", "/");
    app.delays(Duration::ZERO);
    assert_eq!(serving.join().unwrap().unwrap().status, 200);
}

#[test]
fn calls_without_the_trace_that_is_served_are_orphans_and_others_are_not() {
    let (app, users, [inbound]) = (Backend::start("app"), Backend::start("users"), free_ports());
    let yaml = format!(
        "registration: off
service: orders
port: {}
inbound: {{listen: '127.0.0.1:{inbound}'}}
upstreams: {{carts: {{listen: 0, static: ['127.0.0.1:{}'], routes: [{{match: 'GET /'}}, {{match: 'GET /{{id}}'}}]}}}}
",
        app.port(),
        users.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let orphans = || lictor.metric("lictor_trace_orphans_total", &[]);
    lictor.get("carts", "/");
    assert_eq!(lictor.get("inbound", "/").status, 200);
    lictor.get("carts", "/");
    assert!(orphans() < 0.5, "nobody's trace is being served");
    orphan(&lictor, &app);
    let named = || lictor.metric("lictor_trace_orphans_total", &[("upstream", "carts"), ("route", "/")]);
    assert!((named() - 1.0).abs() < 0.5);
    let told: Vec<_> = lictor
        .lines("requests come without the trace of those being served: the application does not forward traceparent");
    assert_eq!(told.len(), 1);
    app.delays(Duration::from_secs(2));
    let (before, inbound) = (app.hits(), lictor.address("inbound"));
    let serving = std::thread::spawn(move || request(&inbound, "GET", "/", &[("traceparent", PARENT)], b""));
    eventually_is("it is being served", || app.hits(), |hits| *hits > before);
    request(&lictor.address("carts"), "GET", "/7", &[("traceparent", PARENT)], b"").unwrap();
    assert!((orphans() - 1.0).abs() < 0.5, "it came with its trace");
    app.delays(Duration::ZERO);
    serving.join().unwrap().unwrap();
    lictor.get("carts", "/");
    assert!((orphans() - 1.0).abs() < 0.5, "that request is over");
}

#[test]
fn a_certificates_end_and_its_rejection_are_seen() {
    let (backend, authority) = (Backend::start("a"), Authority::new());
    let pair = authority.issue("server", &["localhost"]);
    let (path, key) = (pair.cert.display().to_string(), pair.key.display());
    let yaml = format!(
        "registration: off\nupstreams: {{users: {{listen: {{address: 0, tls: {{cert: {path}, key: {key}}}}}, static: ['127.0.0.1:{}']}}}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let seen = |name: &str| lictor.metric(name, &[("path", path.as_str())]);
    let told =
        std::process::Command::new("openssl").args(["x509", "-noout", "-enddate", "-in", &path]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let date =
        std::process::Command::new("date").args(["+%s", "-d", text.trim().trim_start_matches("notAfter=")]).output();
    let expected: f64 = String::from_utf8(date.unwrap().stdout).unwrap().trim().parse().unwrap();
    assert!((seen("lictor_certificate_not_after_timestamp_seconds") - expected).abs() < 0.5, "{text}");
    std::fs::write(&pair.cert, "nonsense").unwrap();
    eventually_is("it is rejected", || seen("lictor_certificate_rejected"), |value| *value > 0.5);
    assert!((seen("lictor_certificate_not_after_timestamp_seconds") - expected).abs() < 0.5, "of the one in use");
}

/// Adds what it exports.
fn scrape(lictor: &Sidecar, live: &mut Families) {
    let text = eventually("it is scraped", || get(&lictor.admin(), "/metrics")).text();
    let mut name = "";
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (family, kind) = declared.split_once(' ').unwrap();
            name = family;
            kind.clone_into(&mut live.entry(name.to_owned()).or_default().kind);
        } else if let Some((_, labels)) = line.strip_prefix(name).and_then(|sample| sample.split_once('{')) {
            live.get_mut(name).unwrap().labels.extend(label_names(labels));
        }
    }
}

/// The names in `a="x",b="y"} 1`, histograms' `le` aside.
fn label_names(mut labels: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    while let Some((name, rest)) = labels.split_once("=\"") {
        names.insert(name.trim_start_matches(',').to_owned());
        let ends = rest.match_indices('"').find(|(at, _)| !rest[..*at].ends_with('\\'));
        labels = ends.map_or("", |(at, _)| &rest[at + 1..]);
    }
    names.remove("le");
    names
}

/// The rows of the page's tables.
fn documented(page: &str) -> Families {
    let mut families = Families::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{row}");
        let labels = cells[2].split_whitespace().map(|label| label.trim_matches('`').to_owned()).collect();
        let family = Family { kind: cells[1].to_owned(), labels };
        assert!(families.insert(cells[0].trim_matches('`').to_owned(), family).is_none(), "twice: {row}");
    }
    families
}
