//! Every reason that lictor can answer with, produced for real; and everything that tells it, telling the same.

use std::any::Any;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use lictor_core::Reason;
use lictor_core::story::advice;
use lictor_testkit::{
    Answer, Authority, Backend, Consul, RawServer, Sidecar, connect, eventually_is, exchange, free_ports, read_head,
    request,
};

use crate::{LICTOR, caller};

const ID: &str = "told-everywhere";

/// How a reason comes about.
enum Case {
    Produced(Box<dyn Fn() -> Produced>),
    /// Of a request that is cut off with the sidecar's end: the log alone is left to tell it.
    Last(Box<dyn Fn() -> Produced>),
    /// Not of requests, whose upstream's own answer is passed on, but of what opened a breaker.
    Cause(Box<dyn Fn() -> Sidecar>),
}

/// A request that ended so.
struct Produced {
    sidecar: Sidecar,
    /// The client's, or ours for a request that came without.
    id: String,
    /// `None`: the client did not wait.
    answer: Option<Answer>,
    /// Whatever has to live as long.
    _held: Box<dyn Any>,
}

/// A new reason does not compile without a case.
fn case(reason: Reason) -> Case {
    match reason {
        Reason::AllEjected => produced(all_ejected),
        Reason::AuthUnavailable => produced(auth_unavailable),
        Reason::BadRequest => produced(bad_request),
        Reason::BodyTooLarge => produced(body_too_large),
        Reason::BreakerOpen => produced(breaker_open),
        Reason::ClientGone => produced(client_gone),
        Reason::ConnectRefused => produced(connect_refused),
        Reason::ConnectTimeout => produced(connect_timeout),
        Reason::DeadlineExceeded => produced(|| slow("", &[("X-Request-Timeout-Ms", "50")])),
        Reason::Draining => Case::Last(Box::new(draining)),
        Reason::Forbidden => produced(|| forward("http://127.0.0.1:1/")),
        Reason::HeadersTooLarge => produced(headers_too_large),
        Reason::LimitUnavailable => produced(limit_unavailable),
        Reason::LoopDetected => produced(loop_detected),
        Reason::Maintenance => produced(maintenance),
        Reason::Misdirected => produced(|| inbound("", &[("X-Lictor-To", "carts/1")])),
        Reason::NoEndpoints => produced(no_endpoints),
        Reason::NoRoute => produced(no_route),
        Reason::NotCached => produced(not_cached),
        Reason::Overloaded => produced(overloaded),
        Reason::PerTryTimeout => produced(|| slow(", per_try_timeout: 50ms", &[])),
        Reason::ProtocolError => produced(|| raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        Reason::RateLimited => produced(rate_limited),
        Reason::RequestTimeout => produced(request_timeout),
        Reason::ResetBeforeResponse => produced(|| raw(b"")),
        Reason::ResetMidResponse => produced(|| raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")),
        Reason::Status => Case::Cause(Box::new(opened_by_statuses)),
        Reason::Timeout => produced(|| slow(", timeout: 50ms", &[])),
        Reason::TlsFailed => produced(tls_failed),
        Reason::Unauthenticated => produced(|| inbound("service_token: secret-1\n", &[])),
        Reason::UnknownUpstream => produced(|| forward("http://nobody/")),
    }
}

#[test]
fn status_header_log_metric_and_explanation_tell_the_same_of_every_reason() {
    for reason in Reason::ALL {
        match case(reason) {
            Case::Produced(produce) => tells_the_same(reason, &produce()),
            Case::Last(produce) => is_logged(reason, &produce()),
            Case::Cause(produce) => is_the_cause(reason, &produce()),
        }
    }
}

fn tells_the_same(reason: Reason, produced: &Produced) {
    let (sidecar, word) = (&produced.sidecar, reason.as_str());
    // What is cut off had its status already.
    let is_mid_answer = reason == Reason::ResetMidResponse;
    let status = if is_mid_answer { 200 } else { reason.status().as_u16() };
    if let Some(answer) = &produced.answer {
        assert_eq!((answer.status, answer.header("x-request-id")), (status, &*produced.id), "{word}");
        if !is_mid_answer {
            // A gateway's clients are told in the body alone.
            let is_gateways = matches!(
                reason,
                Reason::AuthUnavailable | Reason::BodyTooLarge | Reason::Maintenance | Reason::NoRoute
            );
            let field = if is_gateways { "" } else { word };
            assert_eq!(answer.header("x-lictor-reason"), field);
            let proxy_status = answer.header("proxy-status");
            assert!(
                proxy_status.contains(&format!("lictor; error={}", reason.proxy_status())),
                "{word}: {proxy_status}"
            );
            assert!(answer.text().contains(&format!("\"reason\":\"{word}\"")), "{word}: {}", answer.text());
        }
    }
    is_logged(reason, produced);
    let labels = [("reason", word), ("code", &*status.to_string())];
    let counted = || {
        ["lictor_upstream_requests_total", "lictor_requests_refused_total"].map(|name| sidecar.metric(name, &labels))
    };
    eventually_is(&format!("{word} is counted"), || counted().iter().sum::<f64>(), |count| *count > 0.5);
    let told = eventually_is(
        &format!("{word} is explained"),
        || {
            Command::new(LICTOR)
                .args(["explain", &produced.id, "--admin", &sidecar.admin()])
                .env_clear()
                .output()
                .unwrap()
        },
        |output| output.status.success(),
    );
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("lictor says {word}")) && told.contains(advice(reason)), "{word}: {told}");
}

fn is_logged(reason: Reason, produced: &Produced) {
    let (sidecar, word) = (&produced.sidecar, reason.as_str());
    let lines = || [sidecar.lines("request"), sidecar.lines("refused")].concat();
    let line = eventually_is(
        &format!("{word} is logged"),
        || lines().into_iter().find(|line| line["request_id"] == *produced.id && line["reason"] == word),
        Option::is_some,
    )
    .unwrap();
    let status = if reason == Reason::ResetMidResponse { 200 } else { reason.status().as_u16() };
    let is_strangers = line["direction"] == "gateway" && (400..500).contains(&status);
    let level = if line["message"] == "refused" {
        "INFO"
    } else if is_strangers {
        "WARN"
    } else {
        "ERROR"
    };
    assert_eq!((line["status"].as_u64(), line["level"].as_str()), (Some(u64::from(status)), Some(level)), "{word}");
    assert_eq!(line["flag"].as_str().unwrap_or_default(), reason.envoy_flag(), "{word}");
}

fn is_the_cause(reason: Reason, sidecar: &Sidecar) {
    let labels = [("name", "users"), ("to", "open"), ("cause", reason.as_str())];
    assert!((sidecar.metric("lictor_breaker_transitions_total", &labels) - 1.0).abs() < 0.1);
    assert_eq!(sidecar.page("/breakers")["users"]["cause"], reason.as_str());
}

fn produced(produce: impl Fn() -> Produced + 'static) -> Case {
    Case::Produced(Box::new(produce))
}

/// Nothing answers where the keys are to be.
fn auth_unavailable() -> Produced {
    let [closed] = free_ports();
    let yaml = format!(
        "registration: off\ngateway: {{listen: '127.0.0.1:0', auth: {{jwt: {{jwks: 'http://127.0.0.1:{closed}/'}}}}, routes: {{/api/*: users}}}}\nupstreams:\n  users: {{static: ['127.0.0.1:1']}}\n"
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    // {"alg":"RS256"} and {"exp":99999999999}
    let token = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjk5OTk5OTk5OTk5fQ.AAAA";
    let answer = get(&sidecar, "gateway", "/api/x", &[("Authorization", token)]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

fn no_route() -> Produced {
    let yaml = "registration: off\ngateway: {listen: '127.0.0.1:0', routes: {/api/*: users}}\nupstreams:\n  users: {static: ['127.0.0.1:1']}\n";
    let sidecar = Sidecar::serve(LICTOR, yaml).up();
    let answer = get(&sidecar, "gateway", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

fn maintenance() -> Produced {
    let yaml = "registration: off\ngateway: {listen: '127.0.0.1:0', maintenance: true, routes: {/api/*: users}}\nupstreams:\n  users: {static: ['127.0.0.1:1']}\n";
    let sidecar = Sidecar::serve(LICTOR, yaml).up();
    let answer = get(&sidecar, "gateway", "/api/x", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

/// Asks the inbound side of a sidecar whose limit is like this.
fn limited(limit: &str, more: &str, times: usize) -> Produced {
    let app = Backend::start("app");
    let yaml = format!(
        "registration: off\nservice: orders\nport: {}\n{more}inbound: {{listen: '127.0.0.1:0', limit: {limit}}}\n",
        app.port()
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 1..times {
        request(&sidecar.address("inbound"), "GET", "/", &[], b"").unwrap();
    }
    let answer = get(&sidecar, "inbound", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(app) }
}

fn rate_limited() -> Produced {
    limited("1/1h", "", 2)
}

fn limit_unavailable() -> Produced {
    limited("{rate: 1/1h, mode: redis, if_unreachable: refuse}", "redis: 127.0.0.1:1\n", 1)
}

fn body_too_large() -> Produced {
    let yaml = "registration: off\ngateway: {listen: '127.0.0.1:0', body_max: 3, routes: {/api/*: users}}\nupstreams:\n  users: {static: ['127.0.0.1:1']}\n";
    let sidecar = Sidecar::serve(LICTOR, yaml).up();
    let answer = request(&sidecar.address("gateway"), "POST", "/api", &[("X-Request-ID", ID)], b"four").unwrap();
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

/// Asks a sidecar with one upstream, `users`, that is as `more` says.
fn ask(endpoint: &str, more: &str, headers: &[(&str, &str)], held: impl Any) -> Produced {
    let sidecar = caller_at(endpoint, more);
    let answer = get(&sidecar, "users", "/", headers);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(held) }
}

fn caller_at(endpoint: &str, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, retry: off, static: ['{endpoint}']{more}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn get(sidecar: &Sidecar, listener: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("X-Request-ID", ID)], headers].concat();
    request(&sidecar.address(listener), "GET", path, &headers, b"").unwrap()
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn all_ejected() -> Produced {
    let backend = Backend::start("a");
    let sidecar = caller_at(&at(backend.port()), "");
    assert_eq!(sidecar.post(&format!("/endpoints/{}/eject", at(backend.port()))).status, 200);
    let answer = get(&sidecar, "users", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(backend) }
}

fn bad_request() -> Produced {
    let sidecar = caller_at("127.0.0.1:1", "");
    let headers = [("X-Request-ID", ID), ("Host", "users:80")];
    let answer = request(&sidecar.address("users"), "CONNECT", "users:80", &headers, b"").unwrap();
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

fn breaker_open() -> Produced {
    let sidecar = caller_at("127.0.0.1:1", "");
    assert_eq!(sidecar.post("/breakers/users?state=open").status, 200);
    let answer = get(&sidecar, "users", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

fn client_gone() -> Produced {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(20));
    let sidecar = caller_at(&at(backend.port()), "");
    let mut client = connect(&sidecar.address("users"));
    write!(client, "GET / HTTP/1.1\r\nHost: users\r\nX-Request-ID: {ID}\r\n\r\n").unwrap();
    eventually_is("the request is on its way", || backend.hits(), |hits| *hits == 1);
    drop(client);
    Produced { sidecar, id: ID.to_owned(), answer: None, _held: Box::new(backend) }
}

/// A client that stops within its upload.
fn request_timeout() -> Produced {
    let backend = Backend::start("waits");
    let sidecar = caller_at(&at(backend.port()), ", timeout: 300ms");
    let mut client = connect(&sidecar.address("users"));
    write!(client, "POST / HTTP/1.1\r\nHost: users\r\nX-Request-ID: {ID}\r\nContent-Length: 9\r\n\r\nsome").unwrap();
    Produced { sidecar, id: ID.to_owned(), answer: None, _held: Box::new((backend, client)) }
}

/// A sidecar that stops before a request is answered.
fn draining() -> Produced {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(20));
    let yaml = format!(
        "registration: off\nlifecycle: {{drain_timeout: 100ms}}\nupstreams:\n  users: {{listen: 0, static: ['{}']}}\n",
        at(backend.port())
    );
    let mut sidecar = Sidecar::serve(LICTOR, &yaml).up();
    let mut client = connect(&sidecar.address("users"));
    write!(client, "GET / HTTP/1.1\r\nHost: users\r\nX-Request-ID: {ID}\r\n\r\n").unwrap();
    eventually_is("the request is on its way", || backend.hits(), |hits| *hits == 1);
    assert!(sidecar.terminate().success());
    Produced { sidecar, id: ID.to_owned(), answer: None, _held: Box::new((backend, client)) }
}

/// Five answers of 500 in a row.
fn opened_by_statuses() -> Sidecar {
    let backend = Backend::start("broken");
    backend.answers(500);
    let sidecar = caller_at(&at(backend.port()), "");
    for _ in 0..5 {
        assert_eq!(get(&sidecar, "users", "/", &[]).status, 500);
    }
    sidecar
}

/// More fields than are read.
fn headers_too_large() -> Produced {
    let sidecar = caller_at("127.0.0.1:1", "");
    let head = format!("GET / HTTP/1.1\r\nHost: users\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let answer = exchange(&sidecar.address("users"), head.as_bytes()).unwrap();
    let id = answer.header("x-request-id").to_owned();
    Produced { sidecar, id, answer: Some(answer), _held: Box::new(()) }
}

fn connect_refused() -> Produced {
    let [port] = free_ports();
    ask(&at(port), "", &[], ())
}

/// A listener that accepts nothing, and whose queue is full.
fn connect_timeout() -> Produced {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(0).unwrap()
    });
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    ask(&address.to_string(), ", connect_timeout: 100ms", &[], (runtime, listener, queued))
}

fn slow(more: &str, headers: &[(&str, &str)]) -> Produced {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(20));
    ask(&at(backend.port()), more, headers, backend)
}

/// Whatever the forward proxy is asked for.
fn forward(url: &str) -> Produced {
    let sidecar = Sidecar::serve(LICTOR, "registration: off\noutbound: {proxy: 0}\n").up();
    let answer = get(&sidecar, "forward", url, &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

/// An upstream whose endpoint is its own listener.
fn loop_detected() -> Produced {
    let [port] = free_ports();
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: {port}, retry: off, static: ['{}']}}\n",
        at(port)
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    let answer = get(&sidecar, "users", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(()) }
}

fn inbound(more: &str, headers: &[(&str, &str)]) -> Produced {
    let backend = Backend::start("app");
    let yaml = format!(
        "service: users\nport: {}\nregistration: off\ninbound: {{listen: '127.0.0.1:0'}}\n{more}",
        backend.port()
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    let answer = get(&sidecar, "inbound", "/", headers);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(backend) }
}

fn no_endpoints() -> Produced {
    let consul = Consul::dev();
    let sidecar = caller(&consul, "");
    let answer = get(&sidecar, "users", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new(consul) }
}

fn not_cached() -> Produced {
    let backend = Backend::start("a");
    ask(&at(backend.port()), ", cache: 5s", &[("Cache-Control", "only-if-cached")], backend)
}

fn overloaded() -> Produced {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(20));
    let sidecar = caller_at(&at(backend.port()), ", limits: {max_in_flight: 1, max_pending: 0}");
    let mut first = connect(&sidecar.address("users"));
    first.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
    eventually_is("its only place is taken", || backend.hits(), |hits| *hits == 1);
    let answer = get(&sidecar, "users", "/", &[]);
    Produced { sidecar, id: ID.to_owned(), answer: Some(answer), _held: Box::new((backend, first)) }
}

/// A server that answers with these bytes and closes.
fn raw(bytes: &'static [u8]) -> Produced {
    let server = RawServer::start(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(bytes);
    });
    ask(&at(server.port()), "", &[], server)
}

fn tls_failed() -> Produced {
    let (authority, plain) = (Authority::new(), Backend::start("plain"));
    let more = format!(", tls: {{ca: {}}}", authority.ca().display());
    ask(&at(plain.port()), &more, &[], (authority, plain))
}
