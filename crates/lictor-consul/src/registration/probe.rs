//! Asking the application itself whether it is well, over loopback or its Unix socket, as Consul's own checks would ask
//! and judge: 2xx is passing, 429 a warning, everything else critical; a redirect is followed while it leads nowhere else.

use std::fmt::Display;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, LOCATION, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lictor_core::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

/// What Consul keeps of a check's output.
const OUTPUT: usize = 4096;
/// As Go's client, which Consul uses.
const REDIRECTS: usize = 10;
const AGENT: &str = "lictor-probe";

/// What the application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: a connection is enough.
    Connect,
    /// `GET` for a path.
    Get(String),
    /// `grpc.health.v1.Health/Check` for a service; empty: the server as a whole.
    Grpc(String),
}

/// What Consul's checks make of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Passing,
    /// It says itself that it is asked too much.
    Warning,
    /// It is not well, or nobody answers.
    Critical,
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether that is good.
    pub verdict: Verdict,
    /// In a sentence.
    pub words: String,
    /// The beginning of what it said itself; empty where it said nothing.
    pub output: String,
}

impl Question {
    /// A path, or, without one, a connection.
    pub fn of(path: Option<&str>) -> Self {
        path.map_or(Self::Connect, |path| Self::Get(path.to_owned()))
    }
}

impl Verdict {
    /// Consul's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Said {
    /// As Consul shows what its own checks found.
    pub(super) fn shown(self) -> String {
        if self.output.is_empty() { self.words } else { format!("{} Output: {}", self.words, self.output) }
    }
}

/// Asks, and waits for the answer for `at_most`.
pub async fn probe(address: &Address, question: &Question, at_most: Duration) -> Said {
    let until = Instant::now() + at_most;
    let mut question = question.clone();
    for _ in 0..=REDIRECTS {
        match timeout_at(until, once(address, &question, until)).await {
            Ok(Ok(Answer::Said(said))) => return said,
            Ok(Ok(Answer::Elsewhere(path))) => question = Question::Get(path),
            Ok(Err(words)) => return critical(words),
            Err(_) => return critical(format!("{address} has not answered within {at_most:?}")),
        }
    }
    critical(format!("{address} redirects more than {REDIRECTS} times"))
}

enum Answer {
    Said(Said),
    /// Another path of the application has it.
    Elsewhere(String),
}

async fn once(address: &Address, question: &Question, until: Instant) -> Result<Answer, String> {
    match address {
        Address::Tcp(socket) => ask(TcpStream::connect(socket).await, address, question, until).await,
        Address::Unix(socket) => ask(UnixStream::connect(socket).await, address, question, until).await,
    }
}

async fn ask<S>(
    stream: std::io::Result<S>,
    address: &Address,
    question: &Question,
    until: Instant,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: &dyn Display| format!("{address}: {error}");
    let stream = stream.map_err(|error| failed(&error))?;
    let host = address.tcp().map_or_else(|| "localhost".to_owned(), |address| address.to_string());
    match question {
        Question::Connect => Ok(said(Verdict::Passing, format!("{address} accepts connections"), String::new())),
        Question::Get(path) => get(stream, &host, path, until).await.map_err(|error| failed(&error)),
        Question::Grpc(service) => health(stream, &host, service).await.map_err(|error| failed(&error)),
    }
}

async fn get<S>(stream: S, host: &str, path: &str, until: Instant) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::get(path).header(HOST, host).header(USER_AGENT, AGENT).body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if status.is_redirection()
        && let Some(path) = redirect(answer.headers(), host, path)
    {
        return Ok(Answer::Elsewhere(path));
    }
    let verdict = match status {
        status if status.is_success() => Verdict::Passing,
        StatusCode::TOO_MANY_REQUESTS => Verdict::Warning,
        _ => Verdict::Critical,
    };
    // The verdict stands, whatever becomes of the body.
    let output = beginning(answer.into_body(), until).await;
    Ok(said(verdict, format!("GET {path}: {status}"), output))
}

/// The path that it redirects to, if that is here.
fn redirect(headers: &HeaderMap, host: &str, from: &str) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    if location.contains("://") {
        let to: Uri = location.parse().ok()?;
        let is_here = to.scheme_str() == Some("http") && to.authority()?.as_str().eq_ignore_ascii_case(host);
        return is_here.then(|| to.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    }
    // `health/` is beside the path that was asked for (RFC 3986, 5.2.3).
    let folder = from.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder);
    (!location.contains(':') && !location.starts_with("//")).then(|| format!("{folder}/{location}"))
}

/// What Consul would keep of a body, as far as it comes in time.
async fn beginning(mut body: Incoming, until: Instant) -> String {
    let mut kept: Vec<u8> = Vec::new();
    while kept.len() < OUTPUT {
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else { break };
        kept.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    kept.truncate(OUTPUT);
    String::from_utf8_lossy(&kept).into_owned()
}

/// `grpc.health.v1.Health/Check` (the gRPC Health Checking Protocol), over HTTP/2 without TLS.
async fn health<S>(stream: S, host: &str, service: &str) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(Full::new(question(service)))?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let (mut fields, mut message, mut body) = (head.headers, BytesMut::new(), body);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if message.len() + data.len() <= OUTPUT => message.put(data),
            Ok(_) => return Err("the answer is no health".into()),
            Err(frame) => fields.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let field = |name| fields.get(name).and_then(|value| value.to_str().ok());
    let (verdict, state) = match (head.status, field("grpc-status")) {
        (StatusCode::OK, Some("0")) => match serving(&message) {
            Some(1) => (Verdict::Passing, "SERVING".to_owned()),
            Some(2) => (Verdict::Critical, "NOT_SERVING".to_owned()),
            state => (Verdict::Critical, format!("status {}", state.unwrap_or_default())),
        },
        (StatusCode::OK, code) => (Verdict::Critical, format!("grpc-status {}", code.unwrap_or("missing"))),
        (status, _) => (Verdict::Critical, status.to_string()),
    };
    let output = field("grpc-message").unwrap_or_default().to_owned();
    Ok(said(verdict, format!("grpc.health.v1 {service:?}: {state}"), output))
}

/// `HealthCheckRequest { string service = 1; }` as a message of gRPC: a byte, the length, and the fields.
fn question(service: &str) -> Bytes {
    let mut fields = BytesMut::new();
    if !service.is_empty() {
        fields.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            fields.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        fields.put_u8((length & 0x7f) as u8);
        fields.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
    message.put(fields);
    message.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: 1 is SERVING; what is not written is 0.
fn serving(message: &[u8]) -> Option<u8> {
    match message.get(5..)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

fn said(verdict: Verdict, words: String, output: String) -> Answer {
    Answer::Said(Said { verdict, words, output })
}

fn critical(words: String) -> Said {
    Said { verdict: Verdict::Critical, words, output: String::new() }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A connection's task, which ends with the question.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Response};
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// An application that gives these answers, one a connection.
    async fn app(answers: Vec<String>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let mut stream = listener.accept().await.unwrap().0;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                std::mem::forget(stream); // it says no more, and does not close either
            }
        });
        address
    }

    fn answer(status: &str, more: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{more}\r\n")
    }

    #[tokio::test]
    async fn an_answer_is_judged_as_consul_would() {
        for (status, verdict) in [
            ("200 OK", Verdict::Passing),
            ("299 Odd", Verdict::Passing),
            ("429 Too Many Requests", Verdict::Warning),
            ("301 Moved", Verdict::Critical),
            ("404 Not Found", Verdict::Critical),
            ("503 Service Unavailable", Verdict::Critical),
        ] {
            let app = app(vec![answer(status, "Content-Length: 4\r\n") + "why?"]).await;
            let said = probe(&app, &Question::Get("/up".to_owned()), SOON).await;
            assert_eq!(said.verdict, verdict, "{status}");
            assert!(said.words.starts_with(&format!("GET /up: {}", &status[..3])), "{said:?}");
            assert!(said.shown().ends_with(" Output: why?"));
        }
        let moved = |to: &str| answer("302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n"));
        let two = app(vec![moved("/up/"), answer("200 OK", "Content-Length: 0\r\n")]).await;
        let said = probe(&two, &Question::Get("/up".to_owned()), SOON).await;
        assert_eq!((said.verdict, said.shown()), (Verdict::Passing, "GET /up/: 200 OK".to_owned()));
        let circle = app((0..20).map(|_| moved("/up")).collect()).await;
        let said = probe(&circle, &Question::Get("/up".to_owned()), SOON).await;
        assert!(said.verdict == Verdict::Critical && said.words.contains("more than 10 times"), "{said:?}");
    }

    #[tokio::test]
    async fn a_body_without_end_does_not_change_the_verdict() {
        let long = "x".repeat(3 * OUTPUT);
        for body in [long.as_str(), "short"] {
            let app = app(vec![answer("200 OK", "Content-Length: 99999999\r\n") + body]).await;
            let said = probe(&app, &Question::Get("/".to_owned()), Duration::from_millis(500)).await;
            assert_eq!(said.verdict, Verdict::Passing);
            assert_eq!(said.output, body[..body.len().min(OUTPUT)]);
        }
        let silent = app(vec![String::new()]).await;
        let said = probe(&silent, &Question::Get("/".to_owned()), Duration::from_millis(50)).await;
        assert!(said.verdict == Verdict::Critical && said.words.contains("has not answered within 50ms"), "{said:?}");
    }

    /// An HTTP/2 server that answers with this message and these trailers, to one connection.
    async fn grpc(status: u16, message: &'static [u8], code: Option<&'static str>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            let service = service_fn(move |request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, question("shop"));
                let trailers = code.map(|code| {
                    let name = HeaderName::from_static("grpc-status");
                    Ok(HeaderMap::from_iter([(name, HeaderValue::from_static(code))]))
                });
                let body = Full::new(Bytes::from_static(message)).with_trailers(async move { trailers });
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
        address
    }

    #[tokio::test]
    async fn grpc_health_is_asked_for_by_name() {
        for (status, message, code, verdict, words) in [
            (200, &b"\0\0\0\0\x02\x08\x01"[..], Some("0"), Verdict::Passing, "SERVING"),
            (200, b"\0\0\0\0\x02\x08\x02", Some("0"), Verdict::Critical, "NOT_SERVING"),
            (200, b"\0\0\0\0\x00", Some("0"), Verdict::Critical, "status 0"),
            (200, b"", Some("12"), Verdict::Critical, "grpc-status 12"),
            (200, b"\0\0\0\0\x02\x08\x01", None, Verdict::Critical, "grpc-status missing"),
            (503, b"", None, Verdict::Critical, "503"),
        ] {
            let app = grpc(status, message, code).await;
            let said = probe(&app, &Question::Grpc("shop".to_owned()), SOON).await;
            assert_eq!(said.verdict, verdict, "{said:?}");
            assert!(said.words.starts_with("grpc.health.v1 \"shop\": ") && said.words.contains(words), "{said:?}");
        }
        let http1 = app(vec![answer("200 OK", "Content-Length: 0\r\n")]).await;
        let said = probe(&http1, &Question::Grpc(String::new()), Duration::from_millis(500)).await;
        assert_eq!(said.verdict, Verdict::Critical, "{said:?}");
    }

    #[test]
    fn redirects_are_followed_where_they_stay() {
        let to = |location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            redirect(&headers, "127.0.0.1:80", "/a/health?x=/y")
        };
        for (location, path) in [
            ("/health/", Some("/health/")),
            ("health/", Some("/a/health/")),
            ("http://127.0.0.1:80/x?y", Some("/x?y")),
            ("HTTP://127.0.0.1:80", Some("/")),
            ("https://127.0.0.1:80/x", None),
            ("http://elsewhere/x", None),
            ("//elsewhere/x", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(to(location).as_deref(), path, "{location}");
        }
        assert_eq!(redirect(&HeaderMap::new(), "a", "/"), None);
    }

    #[test]
    fn health_is_spelled_as_protobuf() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
        assert_eq!(&question(&"n".repeat(300))[..9], b"\0\0\0\x01\x2f\x0a\xac\x02n");
        assert_eq!(serving(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(serving(b"\0\0\0\0\x00"), Some(0), "UNKNOWN is not written");
        assert_eq!((serving(b""), serving(b"\0\0\0\0\x02\x10\x01")), (None, None));
    }
}
