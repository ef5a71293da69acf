//! Requests that are malformed or want to be read in two ways. Whatever a client sends, the backend must get exactly
//! one well-formed message for each request that it answers, and nothing that was hidden in another.
//!
//! Every case goes out on a connection of its own. Once it is answered, a good request follows on the same connection:
//! when they disagree about where the first one ended, that one comes out mangled.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Between, Speaks, Tables, chosen, eventually_is};
use Expect::{Cut, Harmless, Last, Passed, Pipelined, Refused};

/// By what they are about.
const TABLES: Tables<Case> = &[
    ("a length beside a coding hides nothing", lengths_and_codings),
    ("obfuscated codings hide nothing", obfuscated_codings),
    ("lengths are digits and agree", content_lengths),
    ("chunks are strict", chunks),
    ("trailers neither frame nor route", trailers),
    ("line ends and controls do not pass", line_ends_and_controls),
    ("field lines are strict", field_lines),
    ("there is one valid host", hosts),
    ("request lines are strict", request_lines),
    ("methods are tokens", methods),
    ("targets are normalised or refused", targets),
    ("heads have a size", sizes),
    ("connection options and upgrades hide nothing", connections_and_upgrades),
    ("requests in a row stay apart", rows),
];

/// One request, and what may come of it.
struct Case {
    name: &'static str,
    /// The RFC's section, or the name by which the attack is known.
    rule: &'static str,
    expect: Expect,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// It must not reach the backend: an error status, or the connection is closed.
    Refused,
    /// Refused, or it reaches the backend once and unambiguously.
    Harmless,
    /// The same, and the connection ends with it.
    Last,
    /// It reaches the backend and is answered: the check that the others are not refused for a reason of their own.
    Passed,
    /// Two requests, both of which reach the backend.
    Pipelined,
    /// It is not whole when the client closes: no whole request may be made of it.
    Cut,
}

/// In or behind the body of the request under test; it must never be seen as a request.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: users\r\nX-Smuggled: yes\r\n\r\n";

/// What follows on the same connection.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n";

const REFUSALS: [u16; 11] = [400, 408, 411, 413, 414, 417, 421, 426, 431, 501, 505];

/// RFC 9110, section 6.5.1: framing, routing, and how content is to be read.
const NO_TRAILERS: [&str; 8] = [
    "transfer-encoding",
    "content-length",
    "host",
    "trailer",
    "content-encoding",
    "content-type",
    "connection",
    "authorization",
];

/// How long an answer may take. Nothing waits this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends the cases through what stands between, and panics with everything that was wrong; says how many there were.
pub(crate) fn run<B: Between>() -> usize {
    let cases: Vec<(&str, Case)> =
        TABLES.iter().flat_map(|(table, cases)| cases().into_iter().map(|case| (*table, case))).collect();
    let cases = chosen(cases, B::ONE_IN, |(_, case)| case.expect);
    let backend = Strict::start();
    let between = B::before(backend.port, Speaks::Http1);
    let address = between.address();
    let mut complaints = Vec::new();
    for (table, case) in &cases {
        let outcome = send(&address, case);
        eventually_is("the backend is idle", || backend.seen.lock().busy, |busy| *busy == 0);
        let seen = std::mem::take(&mut *backend.seen.lock());
        let mut wrong = judge(case, &outcome, &seen);
        wrong.dedup();
        if !wrong.is_empty() {
            let bytes = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(400)]);
            let requests: Vec<String> = seen.requests.iter().map(Request::to_string).collect();
            complaints.push(format!(
                "{table}: {} ({}, {:?}): {}\n    sent {bytes:?}\n    client {outcome:?}\n    backend {requests:?}",
                case.name,
                case.rule,
                case.expect,
                wrong.join("; ")
            ));
        }
    }
    let last = Case { name: "a good request", rule: "", expect: Passed, bytes: AFTER.to_vec() };
    let outcome = send(&address, &last);
    assert_eq!(outcome.statuses, [200], "others are still answered");
    complaints.extend(between.complaints());
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
    cases.len()
}

/// What the client saw.
#[derive(Debug, Default)]
struct Outcome {
    statuses: Vec<u16>,
    is_closed: bool,
    /// The good request was sent.
    has_followed: bool,
}

fn send(address: &str, case: &Case) -> Outcome {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(&case.bytes); // it may be closed already
    if case.expect == Cut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut outcome = Outcome::default();
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some((status, is_last)) = answer(&mut read) {
            if status >= 200 {
                outcome.statuses.push(status);
            }
            if status >= 200 && !is_last && !outcome.has_followed && case.expect != Cut {
                outcome.has_followed = true;
                let _ = stream.write_all(AFTER);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return outcome,
            Err(_) => break,
        }
    }
    outcome.is_closed = true;
    outcome
}

/// Takes a whole answer off: its status, and whether it says that it is the last.
fn answer(read: &mut Vec<u8>) -> Option<(u16, bool)> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = field("content-length:").map_or(0, |value| value.parse().unwrap());
    if read.len() < end + length {
        return None;
    }
    let is_last = field("connection:") == Some("close");
    read.drain(..end + length);
    Some((status, is_last))
}

fn judge(case: &Case, outcome: &Outcome, seen: &Seen) -> Vec<String> {
    let mut complaints = seen.violations.clone();
    let (after, others): (Vec<&Request>, Vec<&Request>) =
        seen.requests.iter().partition(|request| request.target == "/after");
    let wanted = match case.expect {
        Refused | Cut => 0..=0,
        Harmless | Last => 0..=1,
        Passed => 1..=1,
        Pipelined => 2..=2,
    };
    // The good request at the end of a group is its own follower.
    if !wanted.contains(&others.len()) && case.bytes != AFTER {
        complaints.push(format!("{} requests reached the backend, not {wanted:?}", others.len()));
    }
    let is_smuggled = |request: &&Request| request.target.contains("/smuggled") || request.has("x-smuggled");
    if case.expect != Pipelined && seen.requests.iter().any(|request| is_smuggled(&request)) {
        complaints.push("the hidden request, or its field, reached the backend".to_owned());
    }
    if after.iter().any(|request| request.method != "GET" || !request.body.is_empty()) {
        complaints.push("the request after it came out mangled".to_owned());
    }
    if case.expect == Last && (outcome.statuses.len() > 1 || !after.is_empty() || !outcome.is_closed) {
        complaints.push("the connection was kept".to_owned());
    }
    let first = outcome.statuses.first().copied();
    let is_refused = first.map_or(outcome.is_closed, |status| REFUSALS.contains(&status));
    let is_fine = match case.expect {
        Refused => is_refused,
        Cut => is_refused || first == Some(499), // which nobody reads: the client is gone
        Harmless | Last => is_refused || first == Some(200),
        Passed | Pipelined => first == Some(200),
    };
    if !is_fine {
        complaints.push(match first {
            Some(status) => format!("answered {status}"),
            None => "neither answered nor closed".to_owned(),
        });
    }
    complaints
}

/// A backend that takes nothing but exact HTTP/1.1, one request at a time.
struct Strict {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    violations: Vec<String>,
    /// Connections within a message.
    busy: usize,
}

#[derive(Debug)]
struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)?;
        for name in ["host", "x-forwarded-host", "content-length", "transfer-encoding", "connection", "upgrade", "x"] {
            for value in self.values(name) {
                write!(f, " | {name}: {value}")?;
            }
        }
        write!(f, " | body {:?}", String::from_utf8_lossy(&self.body[..self.body.len().min(80)]))
    }
}

enum Broken {
    /// The connection ended within a message.
    Closed,
    /// Something that is not exact HTTP/1.1.
    Violation(String),
}

impl Strict {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || Wire { stream, buffer: Vec::new() }.serve(&seen));
            }
        });
        Self { port, seen }
    }
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn serve(mut self, seen: &Mutex<Seen>) {
        while self.fill().is_ok() {
            seen.lock().busy += 1;
            let received = self.request();
            let mut seen = seen.lock();
            seen.busy = seen.busy.saturating_sub(1);
            match received {
                Ok(request) => seen.requests.push(request),
                Err(Broken::Closed) => return,
                Err(Broken::Violation(what)) => {
                    seen.violations.push(format!("the backend got {what}"));
                    return;
                }
            }
            drop(seen);
            if self.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }

    fn request(&mut self) -> Result<Request, Broken> {
        let line = self.line()?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return violation(format!("the request line {line:?}"));
        };
        if !is_token(method) || !is_target(method, target) {
            return violation(format!("the request line {line:?}"));
        }
        let (method, target) = (method.to_owned(), target.to_owned());
        let fields = self.fields()?;
        let mut request = Request { method, target, fields, body: Vec::new() };
        let hosts: Vec<&str> = request.values("host").collect();
        if !matches!(hosts[..], [host] if is_host(host)) {
            return violation(format!("the hosts {hosts:?}"));
        }
        let lengths: Vec<&str> = request.values("content-length").collect();
        let codings: Vec<&str> = request.values("transfer-encoding").collect();
        request.body = match (&lengths[..], &codings[..]) {
            ([], []) => Vec::new(),
            ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let too_long = |_| Broken::Violation(format!("the length {length}"));
                self.exactly(length.parse().map_err(too_long)?)?
            }
            ([], ["chunked"]) => self.chunked()?,
            _ => return violation(format!("the lengths {lengths:?} and the codings {codings:?}")),
        };
        // Nobody pipelines here: what is there now is not the next request.
        if !self.buffer.is_empty() {
            return violation(format!("{:?} after a whole request", String::from_utf8_lossy(&self.buffer)));
        }
        Ok(request)
    }

    fn fields(&mut self) -> Result<Vec<(String, String)>, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            match line.split_once(':') {
                Some((name, value)) if is_token(name) && !value.chars().any(is_control) => {
                    fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
                }
                _ => return violation(format!("the field line {line:?}")),
            }
        }
    }

    fn chunked(&mut self) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let is_size = !line.is_empty() && line.len() < 9 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_size {
                return violation(format!("the chunk size {line:?}"));
            }
            let size = usize::from_str_radix(&line, 16).expect("up to 8 hexadecimal digits");
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            let end = self.line()?;
            if !end.is_empty() {
                return violation(format!("{end:?} after a chunk"));
            }
        }
        let trailers = self.fields()?;
        match trailers.iter().find(|(name, _)| NO_TRAILERS.contains(&name.to_lowercase().as_str())) {
            Some(trailer) => violation(format!("the trailer {trailer:?}")),
            None if trailers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-smuggled")) => {
                violation("the hidden request's field as a trailer".to_owned())
            }
            None => Ok(body),
        }
    }

    /// A line as Latin-1, without its CRLF, which has to be whole.
    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let Some(line) = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r')) else {
                    return violation(format!("a bare CR or LF in {:?}", String::from_utf8_lossy(&line)));
                };
                return Ok(line.iter().map(|byte| char::from(*byte)).collect());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Waits for at least one byte.
    fn fill(&mut self) -> Result<(), Broken> {
        if self.buffer.is_empty() { self.more() } else { Ok(()) }
    }

    fn more(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => Err(Broken::Closed),
            Ok(count) => {
                self.buffer.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

fn violation<T>(what: String) -> Result<T, Broken> {
    Err(Broken::Violation(what))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_control(char: char) -> bool {
    char != '\t' && char.is_ascii_control()
}

/// Origin form, or `*` with OPTIONS. Printable characters that should have been escaped are let through, as every
/// server does; spaces, controls, fragments and what is not ASCII are not.
fn is_target(method: &str, target: &str) -> bool {
    let is_form = target.starts_with('/') || (method == "OPTIONS" && target == "*");
    is_form && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// `name` or `name:port`, without user.
fn is_host(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(&byte))
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn case(name: &'static str, rule: &'static str, expect: Expect, bytes: impl Into<Vec<u8>>) -> Case {
    Case { name, rule, expect, bytes: bytes.into() }
}

/// A POST with these field lines, each with its line end, and this body.
fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /main HTTP/1.1\r\nHost: users\r\n", fields, b"\r\n", body].concat()
}

/// A GET with these field lines.
fn get(fields: &[u8]) -> Vec<u8> {
    [b"GET /main HTTP/1.1\r\nHost: users\r\n", fields, b"\r\n"].concat()
}

/// A request line and a Host.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: users\r\n\r\n"].concat()
}

/// A chunked body, and the hidden request behind it.
fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked\r\n", &[body, HIDDEN.as_bytes()].concat())
}

/// By its length the body ends behind the hidden request, by its coding before it.
fn by_length(field: &[u8]) -> Vec<u8> {
    let body = format!("0\r\n\r\n{HIDDEN}");
    post(&[format!("Content-Length: {}\r\n", body.len()).as_bytes(), field].concat(), body.as_bytes())
}

/// The same with the length below the coding.
fn by_length_below(field: &[u8]) -> Vec<u8> {
    let body = format!("0\r\n\r\n{HIDDEN}");
    post(&[field, format!("Content-Length: {}\r\n", body.len()).as_bytes()].concat(), body.as_bytes())
}

/// By its coding the body ends behind the hidden request, by its length before it.
fn by_coding(fields: &[u8]) -> Vec<u8> {
    post(fields, format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()).as_bytes())
}

/// Five bytes of body, the hidden request behind them, and these lengths.
fn five(fields: &[u8]) -> Vec<u8> {
    post(fields, format!("12345{HIDDEN}").as_bytes())
}

/// A GET with a line among its fields, and the hidden request behind it.
fn field(line: &[u8]) -> Vec<u8> {
    [&get(line)[..], HIDDEN.as_bytes()].concat()
}

/// So many field lines.
fn many(count: usize) -> String {
    let mut lines = String::new();
    for number in 0..count {
        lines += &format!("X{number}: y\r\n");
    }
    lines
}

fn lengths_and_codings() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 6.1: the connection ends with such a request";
    let hex = |fields: &str| by_coding(fields.as_bytes());
    vec![
        case("CL.TE", RULE, Last, by_length(b"Transfer-Encoding: chunked\r\n")),
        case("CL.TE, the coding first", RULE, Last, by_length_below(b"Transfer-Encoding: chunked\r\n")),
        case("TE.CL", RULE, Last, hex("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n")),
        case("TE.CL, the coding first", RULE, Last, hex("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n")),
        case("0.CL", "0.CL", Last, hex("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
        case(
            "lengths around the coding",
            RULE,
            Last,
            hex("Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n"),
        ),
        case("codings around the length", RULE, Last, {
            hex("Transfer-Encoding: chunked\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n")
        }),
        case(
            "a bad length below the coding",
            RULE,
            Last,
            hex("Transfer-Encoding: chunked\r\nContent-Length: banana\r\n"),
        ),
        case(
            "a bad length above the coding",
            RULE,
            Last,
            hex("Content-Length: banana\r\nTransfer-Encoding: chunked\r\n"),
        ),
        case("a negative length with a coding", RULE, Last, {
            hex("Transfer-Encoding: chunked\r\nContent-Length: -1\r\n")
        }),
        case(
            "a length and an unknown coding",
            "RFC 9112, 6.3, item 4",
            Refused,
            by_length(b"Transfer-Encoding: x\r\n"),
        ),
        case("a length and an empty coding", "RFC 9112, 6.3, item 4", Refused, by_length(b"Transfer-Encoding:\r\n")),
        case("a GET with both", RULE, Last, {
            let body = format!("0\r\n\r\n{HIDDEN}");
            let fields = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}", body.len());
            [b"GET /main HTTP/1.1\r\nHost: users\r\n", fields.as_bytes()].concat()
        }),
        case("HTTP/1.0 with a coding", "RFC 9112, 6.1: faulty framing in HTTP/1.0", Last, {
            format!("POST /main HTTP/1.0\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}")
        }),
        case("HTTP/1.0 with both", "RFC 9112, 6.1: faulty framing in HTTP/1.0", Last, {
            let body = format!("0\r\n\r\n{HIDDEN}");
            let head = "POST /main HTTP/1.0\r\nHost: users\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n";
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
        }),
        case("HTTP/1.0 with both, kept alive", "RFC 9112, 6.1: faulty framing in HTTP/1.0", Last, {
            let head = "POST /main HTTP/1.0\r\nHost: users\r\nConnection: keep-alive\r\nContent-Length: 4\r\n";
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
        }),
        case("a coding alone", "RFC 9112, 7.1", Passed, by_coding(b"Transfer-Encoding: chunked\r\n")),
        case("a length alone", "RFC 9112, 6.2", Passed, by_length(b"")),
    ]
}

fn obfuscated_codings() -> Vec<Case> {
    const FINAL: &str = "RFC 9112, 6.3, item 4: chunked is not final";
    const LEFT: &str = "RFC 9110, 2.2: a coding that stays on the content keeps its name";
    const NAME: &str = "RFC 9112, 5.1: no white space before the colon";
    const BARE: &str = "RFC 9112, 2.2: a bare CR";
    const VALUE: &str = "RFC 9110, 5.5: controls in a value";
    const FOLD: &str = "RFC 9112, 5.2: obs-fold";
    const BOTH: &str = "TE.TE; RFC 9112, 6.1";
    let te = |name, rule, expect, field: &[u8]| case(name, rule, expect, by_length(field));
    vec![
        te("xchunked", FINAL, Refused, b"Transfer-Encoding: xchunked\r\n"),
        te("chunkedx", FINAL, Refused, b"Transfer-Encoding: chunkedx\r\n"),
        te("chunk", FINAL, Refused, b"Transfer-Encoding: chunk\r\n"),
        te("identity", FINAL, Refused, b"Transfer-Encoding: identity\r\n"),
        te("cow", FINAL, Refused, b"Transfer-Encoding: cow\r\n"),
        te("gzip", FINAL, Refused, b"Transfer-Encoding: gzip\r\n"),
        te("chunked, identity", FINAL, Refused, b"Transfer-Encoding: chunked, identity\r\n"),
        te("chunked, gzip", FINAL, Refused, b"Transfer-Encoding: chunked, gzip\r\n"),
        te("chunked, then identity on a line", FINAL, Refused, {
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"
        }),
        te("chunked, then cow on a line", FINAL, Refused, b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n"),
        te("chunked, then nothing on a line", BOTH, Last, b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        te("identity, chunked", BOTH, Last, b"Transfer-Encoding: identity, chunked\r\n"),
        te("identity, then chunked on a line", BOTH, Last, {
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"
        }),
        te("chunked, chunked", BOTH, Last, b"Transfer-Encoding: chunked, chunked\r\n"),
        te("chunked on two lines", BOTH, Last, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        te("chunked with a comma behind", BOTH, Last, b"Transfer-Encoding: chunked,\r\n"),
        te("chunked with a comma before", BOTH, Last, b"Transfer-Encoding: ,chunked\r\n"),
        te("chunked with a parameter", "RFC 9112, 7.1: chunked has none", Last, b"Transfer-Encoding: chunked;q=1\r\n"),
        te("chunked with a semicolon", BOTH, Last, b"Transfer-Encoding: chunked;\r\n"),
        te("chunked in quotes", FINAL, Refused, b"Transfer-Encoding: \"chunked\"\r\n"),
        te("chunked in single quotes", FINAL, Refused, b"Transfer-Encoding: 'chunked'\r\n"),
        te("chunked in brackets", FINAL, Refused, b"Transfer-Encoding: [chunked]\r\n"),
        te("chunked with a colon", FINAL, Refused, b"Transfer-Encoding: :chunked\r\n"),
        te("a space within chunked", FINAL, Refused, b"Transfer-Encoding: chun ked\r\n"),
        te("two words", FINAL, Refused, b"Transfer-Encoding: chunked identity\r\n"),
        te("upper case", BOTH, Last, b"Transfer-Encoding: CHUNKED\r\n"),
        te("mixed case", BOTH, Last, b"tRANSFER-ENCODING: ChUnKeD\r\n"),
        te("no space behind the colon", BOTH, Last, b"Transfer-Encoding:chunked\r\n"),
        te("a tab behind the colon", BOTH, Last, b"Transfer-Encoding:\tchunked\r\n"),
        te("a tab behind chunked", BOTH, Last, b"Transfer-Encoding: chunked\t\r\n"),
        te("spaces behind chunked", BOTH, Last, b"Transfer-Encoding: chunked   \r\n"),
        te("vertical tab before chunked", VALUE, Refused, b"Transfer-Encoding: \x0bchunked\r\n"),
        te("vertical tab behind chunked", VALUE, Refused, b"Transfer-Encoding: chunked\x0b\r\n"),
        te("form feed before chunked", VALUE, Refused, b"Transfer-Encoding: \x0cchunked\r\n"),
        te("backspaces behind chunked", VALUE, Refused, b"Transfer-Encoding: chunkedx\x08\r\n"),
        te("NUL before chunked", VALUE, Last, b"Transfer-Encoding: \0chunked\r\n"),
        te("NUL behind chunked", VALUE, Last, b"Transfer-Encoding: chunked\0\r\n"),
        te("DEL behind chunked", VALUE, Refused, b"Transfer-Encoding: chunked\x7f\r\n"),
        te("no-break space before chunked", FINAL, Refused, b"Transfer-Encoding: \xa0chunked\r\n"),
        te("a Kelvin sign for the k", FINAL, Refused, "Transfer-Encoding: chun\u{212a}ed\r\n".as_bytes()),
        te("a byte order mark", FINAL, Refused, b"Transfer-Encoding: \xef\xbb\xbfchunked\r\n"),
        te("bare CR before chunked", BARE, Last, b"Transfer-Encoding: \rchunked\r\n"),
        te("bare CR behind chunked", BARE, Last, b"Transfer-Encoding: chunked\r\r\n"),
        te("bare CR before the name", BARE, Last, b"X: y\r\n\rTransfer-Encoding: chunked\r\n"),
        te("bare CR for a line end", BARE, Harmless, b"X: y\rTransfer-Encoding: chunked\r\n"),
        te("bare LF for a line end", "RFC 9112, 2.2: LF", Last, b"X: y\nTransfer-Encoding: chunked\r\n"),
        te("a space before the colon", NAME, Refused, b"Transfer-Encoding : chunked\r\n"),
        te("a tab before the colon", NAME, Refused, b"Transfer-Encoding\t: chunked\r\n"),
        te("vertical tab before the colon", NAME, Refused, b"Transfer-Encoding\x0b: chunked\r\n"),
        te("NUL before the colon", NAME, Refused, b"Transfer-Encoding\0: chunked\r\n"),
        te("a space within the name", NAME, Refused, b"Transfer Encoding: chunked\r\n"),
        te("NUL within the name", NAME, Refused, b"Transfer\0-Encoding: chunked\r\n"),
        te("no colon", "RFC 9112, 5", Refused, b"Transfer-Encoding chunked\r\n"),
        te("a line that starts with a space", FOLD, Harmless, b"X: y\r\n Transfer-Encoding: chunked\r\n"),
        te("a line that starts with a tab", FOLD, Harmless, b"X: y\r\n\tTransfer-Encoding: chunked\r\n"),
        te("folded behind the colon", FOLD, Last, b"Transfer-Encoding:\r\n chunked\r\n"),
        te("folded with a tab", FOLD, Last, b"Transfer-Encoding:\r\n\tchunked\r\n"),
        te("folded with LF", FOLD, Last, b"Transfer-Encoding:\n chunked\r\n"),
        te("folded, not final", FOLD, Refused, b"Transfer-Encoding: chunked\r\n , identity\r\n"),
        te("an underscore", "a field of another name", Harmless, b"Transfer_Encoding: chunked\r\n"),
        te("another name", "a field of another name", Passed, b"X-Transfer-Encoding: chunked\r\n"),
        te("a longer name", "a field of another name", Passed, b"Transfer-Encodings: chunked\r\n"),
        te("Content-Encoding", "a field of another name", Passed, b"Content-Encoding: chunked\r\n"),
        case("gzip, chunked", LEFT, Refused, by_coding(b"Transfer-Encoding: gzip, chunked\r\n")),
        case("x, chunked", LEFT, Refused, by_coding(b"Transfer-Encoding: x, chunked\r\n")),
        case("deflate, then chunked on a line", LEFT, Refused, {
            by_coding(b"Transfer-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n")
        }),
        case("no length, xchunked", FINAL, Refused, by_coding(b"Transfer-Encoding: xchunked\r\n")),
        case("no length, identity", FINAL, Refused, by_coding(b"Transfer-Encoding: identity\r\n")),
        case("no length, nothing", FINAL, Refused, by_coding(b"Transfer-Encoding: \r\n")),
    ]
}

fn content_lengths() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 6.3, item 5: an invalid length";
    const SAME: &str = "RFC 9110, 8.6: the same length again";
    let cl = |name, rule, expect, fields: &[u8]| case(name, rule, expect, five(fields));
    vec![
        cl("two that differ", RULE, Refused, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
        cl("two that differ, shorter below", RULE, Refused, b"Content-Length: 64\r\nContent-Length: 5\r\n"),
        cl("three of which one differs", RULE, Refused, {
            b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 0\r\n"
        }),
        cl("a bad one above a good one", RULE, Refused, b"Content-Length: x\r\nContent-Length: 5\r\n"),
        cl("a bad one below a good one", RULE, Refused, b"Content-Length: 5\r\nContent-Length: x\r\n"),
        cl("an empty one below a good one", RULE, Refused, b"Content-Length: 5\r\nContent-Length:\r\n"),
        cl("a list that differs", RULE, Refused, b"Content-Length: 5, 6\r\n"),
        cl("a list that differs, without space", RULE, Refused, b"Content-Length: 6,5\r\n"),
        cl("empty", RULE, Refused, b"Content-Length:\r\n"),
        cl("a space", RULE, Refused, b"Content-Length:  \r\n"),
        cl("negative", RULE, Refused, b"Content-Length: -5\r\n"),
        cl("minus zero", RULE, Refused, b"Content-Length: -0\r\n"),
        cl("plus", RULE, Refused, b"Content-Length: +5\r\n"),
        cl("hexadecimal", RULE, Refused, b"Content-Length: 0x5\r\n"),
        cl("a hexadecimal digit", RULE, Refused, b"Content-Length: a\r\n"),
        cl("octal", RULE, Refused, b"Content-Length: 0o5\r\n"),
        cl("a fraction", RULE, Refused, b"Content-Length: 5.0\r\n"),
        cl("an exponent", RULE, Refused, b"Content-Length: 5e0\r\n"),
        cl("an underscore", RULE, Refused, b"Content-Length: 0_5\r\n"),
        cl("digits apart", RULE, Refused, b"Content-Length: 0 5\r\n"),
        cl("a tab within", RULE, Refused, b"Content-Length: 0\t5\r\n"),
        cl("a unit", RULE, Refused, b"Content-Length: 5 bytes\r\n"),
        cl("a semicolon", RULE, Refused, b"Content-Length: 5;\r\n"),
        cl("quotes", RULE, Refused, b"Content-Length: \"5\"\r\n"),
        cl("a full-width digit", RULE, Refused, "Content-Length: \u{ff15}\r\n".as_bytes()),
        cl("a superscript digit", RULE, Refused, b"Content-Length: \xb9\r\n"),
        cl("no-break space", RULE, Refused, b"Content-Length: \xa05\r\n"),
        cl("vertical tab", RULE, Refused, b"Content-Length: \x0b5\r\n"),
        cl("NUL", RULE, Harmless, b"Content-Length: 5\x00\r\n"),
        cl("2 to the 64", RULE, Refused, b"Content-Length: 18446744073709551616\r\n"),
        cl("2 to the 64 and 5", RULE, Refused, b"Content-Length: 18446744073709551621\r\n"),
        cl("the largest of 64 bits", "a length that no server has", Refused, {
            b"Content-Length: 18446744073709551615\r\n"
        }),
        cl("the largest but one", "a length that no server has", Refused, b"Content-Length: 18446744073709551614\r\n"),
        cl("a hundred digits", RULE, Refused, format!("Content-Length: {}\r\n", "5".repeat(100)).as_bytes()),
        cl("a space before the colon", "RFC 9112, 5.1", Refused, b"Content-Length : 5\r\n"),
        cl("folded", "RFC 9112, 5.2", Refused, b"Content-Length: 5\r\n 0\r\n"),
        case("the same twice", SAME, Harmless, post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"12345")),
        case("a list of the same", SAME, Harmless, post(b"Content-Length: 5, 5\r\n", b"12345")),
        case("a list with an empty member", SAME, Harmless, post(b"Content-Length: 5,\r\n", b"12345")),
        case(
            "the same in other digits",
            SAME,
            Harmless,
            post(b"Content-Length: 5\r\nContent-Length: 05\r\n", b"12345"),
        ),
        case("leading zeros", "RFC 9110, 8.6: 1*DIGIT", Harmless, post(b"Content-Length: 0000000005\r\n", b"12345")),
        case("many leading zeros", "RFC 9110, 8.6: 1*DIGIT", Harmless, {
            post(format!("Content-Length: {}5\r\n", "0".repeat(50)).as_bytes(), b"12345")
        }),
        case("spaces around", "RFC 9112, 5", Passed, post(b"Content-Length: \t 5 \t \r\n", b"12345")),
        case("zero", "RFC 9112, 6.2", Passed, post(b"Content-Length: 0\r\n", b"")),
        case("longer than the body", "RFC 9112, 8", Cut, five(b"Content-Length: 500\r\n")),
        case("a GET whose body is a request", "RFC 9110, 9.3.1", Harmless, {
            [&get(format!("Content-Length: {}\r\n", HIDDEN.len()).as_bytes())[..], HIDDEN.as_bytes()].concat()
        }),
        case("a POST whose body is a request", "RFC 9112, 6.2", Passed, {
            post(format!("Content-Length: {}\r\n", HIDDEN.len()).as_bytes(), HIDDEN.as_bytes())
        }),
    ]
}

fn chunks() -> Vec<Case> {
    const SIZE: &str = "RFC 9112, 7.1: chunk-size";
    const DATA: &str = "RFC 9112, 7.1: chunk-data CRLF";
    const EXT: &str = "RFC 9112, 7.1.1: chunk-ext";
    let bad = |name, rule, body: &[u8]| case(name, rule, Refused, chunked(body));
    let extended = format!("1;{}\r\nx\r\n", "a".repeat(200));
    let odd = |name, rule, body: &[u8]| case(name, rule, Harmless, post(b"Transfer-Encoding: chunked\r\n", body));
    vec![
        bad("2 to the 64", SIZE, b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
        bad("2 to the 64 and 5", SIZE, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("2 to the 68 and 5", SIZE, b"100000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("2 to the 32 and 5", SIZE, b"f00000000000000000005\r\nhello\r\n0\r\n\r\n"),
        case("the largest of 64 bits", SIZE, Cut, chunked(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        case("the largest of 32 bits and 6", SIZE, Cut, chunked(b"100000005\r\nhello\r\n0\r\n\r\n")),
        bad("negative", SIZE, b"-5\r\nhello\r\n0\r\n\r\n"),
        bad("minus zero", SIZE, b"5\r\nhello\r\n-0\r\n\r\n"),
        bad("plus", SIZE, b"+5\r\nhello\r\n0\r\n\r\n"),
        bad("0x", SIZE, b"0x5\r\nhello\r\n0\r\n\r\n"),
        bad("0X", SIZE, b"0X5\r\nhello\r\n0\r\n\r\n"),
        bad("an h behind", SIZE, b"5h\r\nhello\r\n0\r\n\r\n"),
        bad("a g", SIZE, b"g\r\nhello\r\n0\r\n\r\n"),
        bad("an underscore", SIZE, b"0_5\r\nhello\r\n0\r\n\r\n"),
        bad("a fraction", SIZE, b"5.0\r\nhello\r\n0\r\n\r\n"),
        bad("a comma", SIZE, b"5,5\r\nhello\r\n0\r\n\r\n"),
        bad("quotes", SIZE, b"\"5\"\r\nhello\r\n0\r\n\r\n"),
        bad("no size", SIZE, b"\r\nhello\r\n0\r\n\r\n"),
        bad("no size, an extension", SIZE, b";a=b\r\nhello\r\n0\r\n\r\n"),
        bad("a space before", SIZE, b" 5\r\nhello\r\n0\r\n\r\n"),
        bad("a tab before", SIZE, b"\t5\r\nhello\r\n0\r\n\r\n"),
        bad("CRLF before", SIZE, b"\r\n5\r\nhello\r\n0\r\n\r\n"),
        bad("digits apart", SIZE, b"0 5\r\nhello\r\n0\r\n\r\n"),
        bad("NUL behind", SIZE, b"5\0\r\nhello\r\n0\r\n\r\n"),
        bad("vertical tab behind", SIZE, b"5\x0b\r\nhello\r\n0\r\n\r\n"),
        bad("a high byte before", SIZE, b"\xa05\r\nhello\r\n0\r\n\r\n"),
        bad("full-width digit", SIZE, "\u{ff15}\r\nhello\r\n0\r\n\r\n".as_bytes()),
        bad("LF behind the size", SIZE, b"5\nhello\r\n0\r\n\r\n"),
        bad("CR behind the size", SIZE, b"5\rhello\r\n0\r\n\r\n"),
        bad("CR CR LF behind the size", SIZE, b"5\r\r\nhello\r\n0\r\n\r\n"),
        bad("LF CR behind the size", SIZE, b"5\n\rhello\r\n0\r\n\r\n"),
        bad("LF behind the last size", SIZE, b"5\r\nhello\r\n0\n\r\n"),
        bad("LF everywhere", SIZE, b"5\nhello\n0\n\n"),
        bad("nothing behind the data", DATA, b"5\r\nhello0\r\n\r\n"),
        bad("LF behind the data", DATA, b"5\r\nhello\n0\r\n\r\n"),
        bad("CR behind the data", DATA, b"5\r\nhello\r0\r\n\r\n"),
        bad("CR CR LF behind the data", DATA, b"5\r\nhello\r\r\n0\r\n\r\n"),
        bad("two other bytes behind the data", DATA, b"5\r\nhelloXX0\r\n\r\n"),
        bad("CR and another byte behind the data", DATA, b"5\r\nhello\rX0\r\n\r\n"),
        bad("more data than its size", DATA, b"5\r\nhello world\r\n0\r\n\r\n"),
        bad("less data than its size", DATA, b"8\r\nhello\r\n0\r\n\r\n"),
        bad("LF in an extension", EXT, b"5;a=b\nhello\r\n0\r\n\r\n"),
        bad("LF in the last chunk's extension (TERM.EXT)", EXT, b"5\r\nhello\r\n0;a=b\n\r\n"),
        bad("CR in an extension", EXT, b"5;a\r=b\r\nhello\r\n0\r\n\r\n"),
        bad("CR CR LF behind an extension", EXT, b"5;a=b\r\r\nhello\r\n0\r\n\r\n"),
        bad("LF in a quoted extension", EXT, b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        bad("CRLF in a quoted extension", EXT, b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
        bad("an extension of 20 KB", EXT, format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)).as_bytes()),
        bad("extensions of 20 KB together", EXT, format!("{}0\r\n\r\n", extended.repeat(100)).as_bytes()),
        bad("no CRLF behind the last chunk", DATA, b"5\r\nhello\r\n0\r\n"),
        bad("CR at the end", DATA, b"5\r\nhello\r\n0\r\n\r"),
        odd("LF at the end", DATA, b"5\r\nhello\r\n0\r\n\n\r\n\r\n"),
        odd("LF at the end, a request behind it", DATA, format!("5\r\nhello\r\n0\r\n\n{HIDDEN}").as_bytes()),
        odd("NUL in an extension", EXT, b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
        odd("a control in an extension", EXT, b"5;a=\x0b\r\nhello\r\n0\r\n\r\n"),
        odd("a space behind the size", SIZE, b"5 \r\nhello\r\n0\r\n\r\n"),
        odd("a tab behind the size", SIZE, b"5\t\r\nhello\r\n0\r\n\r\n"),
        odd("a space before the extension", EXT, b"5 ;a=b\r\nhello\r\n0\r\n\r\n"),
        odd("an extension", EXT, b"5;a=b;c=\"d e\"\r\nhello\r\n0\r\n\r\n"),
        odd("an empty extension", EXT, b"5;\r\nhello\r\n0;\r\n\r\n"),
        odd("an unfinished quote", EXT, b"5;a=\"\r\nhello\r\n0\r\n\r\n"),
        odd("leading zeros", SIZE, b"000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        odd("many zeros at the end", SIZE, b"5\r\nhello\r\n00000000000000000000\r\n\r\n"),
        case(
            "upper-case digits",
            SIZE,
            Passed,
            post(b"Transfer-Encoding: chunked\r\n", b"A\r\n0123456789\r\n0\r\n\r\n"),
        ),
        case("a request in a chunk", SIZE, Passed, by_coding(b"Transfer-Encoding: chunked\r\n")),
        case("no chunk at all", "RFC 9112, 8", Cut, post(b"Transfer-Encoding: chunked\r\n", b"")),
        case("cut within the size", "RFC 9112, 8", Cut, post(b"Transfer-Encoding: chunked\r\n", b"5")),
        case("cut behind the size", "RFC 9112, 8", Cut, post(b"Transfer-Encoding: chunked\r\n", b"5\r\n")),
        case("cut within the data", "RFC 9112, 8", Cut, post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhel")),
        case("cut behind the data", "RFC 9112, 8", Cut, post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n")),
        case("cut within the last chunk", "RFC 9112, 8", Cut, {
            post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n")
        }),
        case("cut within a trailer", "RFC 9112, 8", Cut, {
            post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n")
        }),
    ]
}

fn trailers() -> Vec<Case> {
    const FORBIDDEN: &str = "RFC 9110, 6.5.1: not a trailer";
    const GRAMMAR: &str = "RFC 9112, 7.1.2: trailers are field lines";
    let with = |trailers: &[u8]| {
        let named = b"Transfer-Encoding: chunked\r\nTrailer: X, Content-Length, Transfer-Encoding, Host, \
          Trailer, Connection, X-Forwarded-For, Authorization, Content-Type\r\n";
        post(named, &[b"5\r\nhello\r\n0\r\n", trailers, b"\r\n"].concat())
    };
    let hiding = |trailers: &[u8]| [&with(trailers)[..], HIDDEN.as_bytes()].concat();
    vec![
        case("Transfer-Encoding", FORBIDDEN, Harmless, with(b"Transfer-Encoding: chunked\r\n")),
        case("Content-Length", FORBIDDEN, Harmless, with(b"Content-Length: 500\r\n")),
        case("Host", FORBIDDEN, Harmless, with(b"Host: evil\r\n")),
        case("Connection", FORBIDDEN, Harmless, with(b"Connection: close\r\n")),
        case("Trailer", FORBIDDEN, Harmless, with(b"Trailer: X\r\n")),
        case("Authorization", FORBIDDEN, Harmless, with(b"Authorization: Basic eA==\r\n")),
        case("Content-Type", FORBIDDEN, Harmless, with(b"Content-Type: text/plain\r\n")),
        case("not named in Trailer", "RFC 9110, 6.6.2", Harmless, {
            post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nY: z\r\n\r\n")
        }),
        case("named in Trailer", "RFC 9110, 6.6.2", Passed, with(b"X: y\r\n")),
        case("a space before the colon", GRAMMAR, Refused, hiding(b"X : y\r\n")),
        case("no colon", GRAMMAR, Refused, hiding(b"X\r\n")),
        case("an empty name", GRAMMAR, Refused, hiding(b": y\r\n")),
        case("NUL in the name", GRAMMAR, Refused, hiding(b"X\0: y\r\n")),
        case("NUL in the value", GRAMMAR, Refused, hiding(b"X: \0\r\n")),
        case("bare CR in the value", GRAMMAR, Refused, hiding(b"X: y\rX-Smuggled: yes\r\n")),
        case("bare LF in the value", "RFC 9112, 2.2: LF", Harmless, with(b"X: y\nZ: z\r\n")),
        case("obs-fold", GRAMMAR, Refused, hiding(b"X: y\r\n z\r\n")),
        case("a space before the first", GRAMMAR, Refused, hiding(b" X: y\r\n")),
        case("a request for a trailer (TRAIL.REQ)", GRAMMAR, Refused, {
            post(b"Transfer-Encoding: chunked\r\n", format!("5\r\nhello\r\n0\r\n{HIDDEN}").as_bytes())
        }),
        case("120 trailers", GRAMMAR, Harmless, with(many(120).as_bytes())),
        case("a trailer of 40 KB", GRAMMAR, Harmless, with(format!("X: {}\r\n", "y".repeat(40_000)).as_bytes())),
    ]
}

fn line_ends_and_controls() -> Vec<Case> {
    const LF: &str = "RFC 9112, 2.2: LF";
    const CR: &str = "RFC 9112, 2.2: a bare CR";
    const VALUE: &str = "RFC 9110, 5.5: CR, LF and NUL in a value";
    const NAME: &str = "RFC 9110, 5.1: a name is a token";
    const TARGET: &str = "RFC 9112, 3: the request line";
    vec![
        case("LF everywhere", LF, Harmless, "GET /main HTTP/1.1\nHost: users\n\n"),
        case("LF behind the request line", LF, Harmless, "GET /main HTTP/1.1\nHost: users\r\n\r\n"),
        case("LF behind a field", LF, Harmless, "GET /main HTTP/1.1\r\nHost: users\nX: y\r\n\r\n"),
        case("LF at the end", LF, Harmless, "GET /main HTTP/1.1\r\nHost: users\r\n\n"),
        case("LF and a length", LF, Harmless, "POST /main HTTP/1.1\nHost: users\nContent-Length: 5\n\n12345"),
        case("LF LF in a value", LF, Harmless, {
            let body = format!("\r\n{HIDDEN}");
            format!("POST /main HTTP/1.1\r\nHost: users\r\nContent-Length: {}\r\n\n{body}", body.len())
        }),
        case("LF CR behind a field", CR, Refused, field(b"X: y\n\rX-Smuggled: yes\r\n")),
        case("CR for all line ends", CR, Cut, "GET /main HTTP/1.1\rHost: users\r\r"),
        case("CR behind the request line", CR, Refused, "GET /main HTTP/1.1\rHost: users\r\n\r\n"),
        case("CR CR LF behind the request line", CR, Harmless, "GET /main HTTP/1.1\r\r\nHost: users\r\n\r\n"),
        case("CR behind the target", CR, Refused, "GET /main\r HTTP/1.1\r\nHost: users\r\n\r\n"),
        case("CR behind a field", CR, Harmless, field(b"X: y\rX-Smuggled: yes\r\n")),
        case("CR CR LF behind a field", CR, Harmless, field(b"X: y\r\r\n")),
        case("CR at the end of a value", CR, Harmless, field(b"X: y \r \r\n")),
        case("CR in a name", CR, Refused, field(b"X\rY: z\r\n")),
        case("CR before a name", CR, Refused, field(b"\rX: z\r\n")),
        case("CR before the empty line", CR, Refused, "GET /main HTTP/1.1\r\nHost: users\r\n\rX: y\r\n\r\n"),
        case("NUL in a value", VALUE, Harmless, field(b"X: a\0b\r\n")),
        case("NUL before a value", VALUE, Harmless, field(b"X: \0a\r\n")),
        case("NUL behind a value", VALUE, Harmless, field(b"X: a\0\r\n")),
        case("NUL and a line in a value", VALUE, Harmless, field(b"X: a\0X-Smuggled: yes\r\n")),
        case("SOH in a value", VALUE, Harmless, field(b"X: a\x01b\r\n")),
        case("backspace in a value", VALUE, Harmless, field(b"X: a\x08b\r\n")),
        case("vertical tab in a value", VALUE, Harmless, field(b"X: a\x0bb\r\n")),
        case("form feed in a value", VALUE, Harmless, field(b"X: a\x0cb\r\n")),
        case("escape in a value", VALUE, Harmless, field(b"X: a\x1b[0mb\r\n")),
        case("DEL in a value", VALUE, Harmless, field(b"X: a\x7fb\r\n")),
        case("NUL in a name", NAME, Refused, field(b"X\0Y: z\r\n")),
        case("a control in a name", NAME, Refused, field(b"X\x01: z\r\n")),
        case("DEL in a name", NAME, Refused, field(b"X\x7f: z\r\n")),
        case("vertical tab in a name", NAME, Refused, field(b"X\x0b: z\r\n")),
        case("NUL in the target", TARGET, Refused, line(b"GET /ma\0in HTTP/1.1")),
        case("NUL in the method", TARGET, Refused, line(b"G\0ET /main HTTP/1.1")),
        case("NUL in the version", TARGET, Refused, line(b"GET /main HTTP/1.1\0")),
        case("NUL first", TARGET, Refused, line(b"\0GET /main HTTP/1.1")),
        case("high bytes in a value", "RFC 9110, 5.5: obs-text", Passed, get(b"X: \xe9\xff\r\n")),
        case("a tab in a value", "RFC 9110, 5.5", Passed, get(b"X: a\tb\r\n")),
        case("CRLF CRLF by code points", "a line end that is none", Passed, {
            get("X: a\u{560d}\u{560a}X-Smuggled: yes\r\n".as_bytes())
        }),
    ]
}

fn field_lines() -> Vec<Case> {
    const COLON: &str = "RFC 9112, 5.1: no white space before the colon";
    const FIRST: &str = "RFC 9112, 2.2: white space before the first field";
    const FOLD: &str = "RFC 9112, 5.2: obs-fold";
    const NAME: &str = "RFC 9110, 5.1: a name is a token";
    let first = |line: &str| format!("GET /main HTTP/1.1\r\n{line}\r\nHost: users\r\n\r\n{HIDDEN}");
    let bad = |name, rule, line: &[u8]| case(name, rule, Refused, field(line));
    vec![
        bad("a space before the colon", COLON, b"X : y\r\n"),
        bad("a tab before the colon", COLON, b"X\t: y\r\n"),
        bad("two spaces before the colon", COLON, b"X  : y\r\n"),
        case("a space before Host's colon", COLON, Refused, "GET /main HTTP/1.1\r\nHost : users\r\n\r\n"),
        case("a space before the first name", FIRST, Refused, first(" X-Smuggled: yes")),
        case("a tab before the first name", FIRST, Refused, first("\tX-Smuggled: yes")),
        case("a first line of spaces", FIRST, Refused, first("  ")),
        case("a space before Host, first", FIRST, Refused, "GET /main HTTP/1.1\r\n Host: users\r\n\r\n"),
        bad("folded with a space", FOLD, b"X: y\r\n z\r\n"),
        bad("folded with a tab", FOLD, b"X: y\r\n\tz\r\n"),
        bad("folded twice", FOLD, b"X: y\r\n z\r\n z\r\n"),
        bad("folded, a field", FOLD, b"X: y\r\n X-Smuggled: yes\r\n"),
        bad("folded, nothing", FOLD, b"X: y\r\n \r\n"),
        bad("folded with LF", FOLD, b"X: y\n z\r\n"),
        case("Host folded", FOLD, Refused, "GET /main HTTP/1.1\r\nHost:\r\n users\r\n\r\n"),
        bad("an empty name", NAME, b": y\r\n"),
        bad("only a colon", NAME, b":\r\n"),
        bad("no colon", NAME, b"X\r\n"),
        bad("no colon, a space", NAME, b"X y\r\n"),
        bad("a space in a name", NAME, b"X Y: z\r\n"),
        bad("a slash", NAME, b"X/Y: z\r\n"),
        bad("a parenthesis", NAME, b"X(: z\r\n"),
        bad("an at sign", NAME, b"X@: z\r\n"),
        bad("brackets", NAME, b"X[]: z\r\n"),
        bad("braces", NAME, b"{X}: z\r\n"),
        bad("a comma", NAME, b"X,Y: z\r\n"),
        bad("a semicolon", NAME, b"X;Y: z\r\n"),
        bad("an equals sign", NAME, b"X=Y: z\r\n"),
        bad("a question mark", NAME, b"X?: z\r\n"),
        bad("quotes", NAME, b"\"X\": z\r\n"),
        bad("a backslash", NAME, b"X\\: z\r\n"),
        bad("a less-than sign", NAME, b"<X>: z\r\n"),
        bad("a high byte", NAME, b"X\xe9: z\r\n"),
        bad("UTF-8", NAME, "\u{fc}ber: z\r\n".as_bytes()),
        bad("a no-break space before the colon", NAME, b"X\xa0: z\r\n"),
        case("a second request line for a field", NAME, Refused, field(b"GET /smuggled HTTP/1.1\r\n")),
        case("all other token characters", NAME, Passed, get(b"!#$%&'*+-.^_`|~09azAZ: y\r\n")),
        case("an empty value", "RFC 9110, 5.5", Passed, get(b"X:\r\n")),
        case("colons in a value", "RFC 9110, 5.5", Passed, get(b"X: a:b: c\r\n")),
    ]
}

fn hosts() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 3.2: 400 without exactly one valid Host";
    const NAME: &str = "RFC 3986, 3.2.2: reg-name";
    const ABSOLUTE: &str = "RFC 9112, 3.2.2: the target's authority counts";
    let hosts = |name, lines: &str| case(name, RULE, Refused, format!("GET /main HTTP/1.1\r\n{lines}\r\n"));
    vec![
        hosts("none", ""),
        hosts("none, but X-Forwarded-Host", "X-Forwarded-Host: users\r\n"),
        hosts("two that differ", "Host: users\r\nHost: evil\r\n"),
        hosts("two alike", "Host: users\r\nHost: users\r\n"),
        hosts("two, in other case", "Host: users\r\nhOST: evil\r\n"),
        hosts("two, one empty", "Host: users\r\nHost:\r\n"),
        hosts("two apart", "Host: users\r\nX: y\r\nHost: evil\r\n"),
        hosts("a list", "Host: users, evil\r\n"),
        hosts("a space within", "Host: users evil\r\n"),
        hosts("a path", "Host: users/main\r\n"),
        hosts("a URL", "Host: http://users\r\n"),
        hosts("a query", "Host: users?x\r\n"),
        hosts("a fragment", "Host: users#x\r\n"),
        hosts("a user", "Host: evil@users\r\n"),
        hosts("a port that is no number", "Host: users:http\r\n"),
        hosts("a negative port", "Host: users:-80\r\n"),
        hosts("two ports", "Host: users:80:80\r\n"),
        hosts("an open bracket", "Host: [::1\r\n"),
        hosts("no address in brackets", "Host: [users]\r\n"),
        hosts("a backslash", "Host: users\\evil\r\n"),
        hosts("quotes", "Host: \"users\"\r\n"),
        hosts("markup", "Host: <users>\r\n"),
        hosts("not ASCII", "Host: \u{fc}sers\r\n"),
        hosts("a bad escape", "Host: users%zz\r\n"),
        case("empty", "RFC 9112, 3.2: no authority", Harmless, "GET /main HTTP/1.1\r\nHost:\r\n\r\n"),
        case("an empty port", "RFC 3986, 3.2.3: *DIGIT", Harmless, "GET /main HTTP/1.1\r\nHost: users:\r\n\r\n"),
        case("a port beyond 65535", "RFC 3986, 3.2.3", Harmless, "GET /main HTTP/1.1\r\nHost: users:99999\r\n\r\n"),
        case("an IPv6 address", RULE, Passed, "GET /main HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        case("HTTP/1.0 without", "RFC 9112, 3.2", Harmless, "GET /main HTTP/1.0\r\n\r\n"),
        case("absolute and another Host", ABSOLUTE, Harmless, "GET http://users/main HTTP/1.1\r\nHost: evil\r\n\r\n"),
        case("absolute and the same Host", ABSOLUTE, Passed, "GET http://users/main HTTP/1.1\r\nHost: users\r\n\r\n"),
        case("absolute and no Host", RULE, Refused, "GET http://users/main HTTP/1.1\r\n\r\n"),
        case("absolute and two Hosts", RULE, Refused, {
            "GET http://users/main HTTP/1.1\r\nHost: users\r\nHost: evil\r\n\r\n"
        }),
        case("absolute and a bad Host", RULE, Refused, "GET http://users/main HTTP/1.1\r\nHost: a b\r\n\r\n"),
        case(
            "absolute without authority",
            "RFC 9110, 4.2.1: an empty host",
            Refused,
            line(b"GET http:///main HTTP/1.1"),
        ),
        case("absolute with a user", "RFC 9110, 4.2.4", Refused, line(b"GET http://evil@users/main HTTP/1.1")),
        case("absolute with a bad port", ABSOLUTE, Refused, line(b"GET http://users:http/main HTTP/1.1")),
        case("absolute with a port and no host", ABSOLUTE, Refused, line(b"GET http://:80/main HTTP/1.1")),
        case("sub-delims", NAME, Passed, "GET /main HTTP/1.1\r\nHost: a+b\r\n\r\n"),
        case("sub-delims and digits", NAME, Passed, "GET /main HTTP/1.1\r\nHost: 0.0.0.0=5000\r\n\r\n"),
        case("an escape", NAME, Passed, "GET /main HTTP/1.1\r\nHost: a%20b\r\n\r\n"),
        case("absolute without a path", "RFC 9112, 3.2.1", Harmless, line(b"GET http://users HTTP/1.1")),
        case("absolute with a query only", "RFC 9112, 3.2.1", Harmless, line(b"GET http://users?x HTTP/1.1")),
    ]
}

fn request_lines() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 3: method SP target SP version";
    const VERSION: &str = "RFC 9112, 2.3: HTTP/1.x";
    let bad = |name, rule, text: &[u8]| case(name, rule, Refused, [&line(text)[..], HIDDEN.as_bytes()].concat());
    vec![
        bad("no version", RULE, b"GET /main"),
        bad("no version, a space", RULE, b"GET /main "),
        case("HTTP/0.9", "HTTP/0.9", Refused, "GET /main\r\n"),
        case("HTTP/0.9 with LF", "HTTP/0.9", Refused, "GET /main\n"),
        bad("HTTP/0.9 by name", VERSION, b"GET /main HTTP/0.9"),
        bad("no target", RULE, b"GET HTTP/1.1"),
        bad("an empty target", RULE, b"GET  HTTP/1.1"),
        bad("no method", RULE, b" /main HTTP/1.1"),
        bad("only a method", RULE, b"GET"),
        bad("two spaces before the target", RULE, b"GET  /main HTTP/1.1"),
        bad("two spaces before the version", RULE, b"GET /main  HTTP/1.1"),
        bad("a space first", RULE, b" GET /main HTTP/1.1"),
        bad("a space last", RULE, b"GET /main HTTP/1.1 "),
        bad("a tab first", RULE, b"\tGET /main HTTP/1.1"),
        bad("a tab before the target", RULE, b"GET\t/main HTTP/1.1"),
        bad("a tab before the version", RULE, b"GET /main\tHTTP/1.1"),
        bad("vertical tab before the target", RULE, b"GET\x0b/main HTTP/1.1"),
        bad("form feed before the version", RULE, b"GET /main\x0cHTTP/1.1"),
        bad("a fourth part", RULE, b"GET /main HTTP/1.1 HTTP/1.1"),
        bad("a fourth part before the version", RULE, b"GET /main /smuggled HTTP/1.1"),
        bad("HTTP/2.0", VERSION, b"GET /main HTTP/2.0"),
        bad("HTTP/2", VERSION, b"GET /main HTTP/2"),
        bad("HTTP/3", VERSION, b"GET /main HTTP/3"),
        bad("HTTP/3.0", VERSION, b"GET /main HTTP/3.0"),
        bad("HTTP/1", VERSION, b"GET /main HTTP/1"),
        bad("HTTP/1.", VERSION, b"GET /main HTTP/1."),
        bad("HTTP/1.10", VERSION, b"GET /main HTTP/1.10"),
        bad("HTTP/01.1", VERSION, b"GET /main HTTP/01.1"),
        bad("HTTP/1,1", VERSION, b"GET /main HTTP/1,1"),
        bad("HTTP/-1.1", VERSION, b"GET /main HTTP/-1.1"),
        bad("HTTP/ 1.1", VERSION, b"GET /main HTTP/ 1.1"),
        bad("HTTP /1.1", VERSION, b"GET /main HTTP /1.1"),
        bad("HTTP1.1", VERSION, b"GET /main HTTP1.1"),
        bad("HTTP//1.1", VERSION, b"GET /main HTTP//1.1"),
        bad("http/1.1", VERSION, b"GET /main http/1.1"),
        bad("Http/1.1", VERSION, b"GET /main Http/1.1"),
        bad("HTTPS/1.1", VERSION, b"GET /main HTTPS/1.1"),
        bad("ICAP/1.0", VERSION, b"GET /main ICAP/1.0"),
        bad("junk for a version", VERSION, b"GET /main banana"),
        bad("a full-width digit", VERSION, "GET /main HTTP/1.\u{ff11}".as_bytes()),
        case("HTTP/1.2", "RFC 9110, 2.5: a higher minor version", Harmless, line(b"GET /main HTTP/1.2")),
        case("HTTP/1.9", "RFC 9110, 2.5: a higher minor version", Harmless, line(b"GET /main HTTP/1.9")),
        case("HTTP/1.0", "RFC 9112, 2.3", Passed, line(b"GET /main HTTP/1.0")),
        case("CRLF before it", "RFC 9112, 2.2: at least one empty line", Passed, line(b"\r\nGET /main HTTP/1.1")),
        case("many CRLF before it", "RFC 9112, 2.2", Harmless, {
            [&b"\r\n".repeat(100)[..], &line(b"GET /main HTTP/1.1")].concat()
        }),
        case("LF before it", "RFC 9112, 2.2", Harmless, line(b"\nGET /main HTTP/1.1")),
        case("CR before it", "RFC 9112, 2.2: a bare CR", Refused, line(b"\rGET /main HTTP/1.1")),
        case("a field first", RULE, Refused, "Host: users\r\nGET /main HTTP/1.1\r\n\r\n"),
        case("an answer", RULE, Refused, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        case("TLS", RULE, Refused, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        case("a PROXY protocol line", RULE, Refused, {
            "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /main HTTP/1.1\r\nHost: users\r\n\r\n"
        }),
        case("an HTTP/2 preface that goes wrong", "RFC 9113, 3.4", Refused, "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n"),
        case("cut within the line", "RFC 9112, 8", Cut, "GET /main HT"),
        case("cut behind the line", "RFC 9112, 8", Cut, "GET /main HTTP/1.1\r\n"),
        case("cut within a field", "RFC 9112, 8", Cut, "GET /main HTTP/1.1\r\nHost: us"),
        case("cut before the empty line", "RFC 9112, 8", Cut, "GET /main HTTP/1.1\r\nHost: users\r\n"),
        case("cut within the empty line", "RFC 9112, 8", Cut, "GET /main HTTP/1.1\r\nHost: users\r\n\r"),
    ]
}

fn methods() -> Vec<Case> {
    const RULE: &str = "RFC 9110, 9.1: a method is a token";
    let bad = |name, text: &[u8]| case(name, RULE, Refused, line(text));
    vec![
        bad("an at sign", b"G@T /main HTTP/1.1"),
        bad("a colon", b"GET: /main HTTP/1.1"),
        bad("a slash", b"GET/ /main HTTP/1.1"),
        bad("parentheses", b"GET() /main HTTP/1.1"),
        bad("quotes", b"\"GET\" /main HTTP/1.1"),
        bad("brackets", b"[GET] /main HTTP/1.1"),
        bad("braces", b"{GET} /main HTTP/1.1"),
        bad("a comma", b"GET,POST /main HTTP/1.1"),
        bad("an equals sign", b"a=b /main HTTP/1.1"),
        bad("a high byte", b"G\xc9T /main HTTP/1.1"),
        bad("UTF-8", "G\u{c9}T /main HTTP/1.1".as_bytes()),
        bad("a control", b"G\x01T /main HTTP/1.1"),
        bad("DEL", b"GET\x7f /main HTTP/1.1"),
        case("lower case", "RFC 9110, 9.1: another method", Harmless, line(b"get /main HTTP/1.1")),
        case("all token characters", RULE, Harmless, line(b"!#$%&'*+-.^_`|~aA0 /main HTTP/1.1")),
        case("a method of 10 KB", RULE, Harmless, line(format!("{} /main HTTP/1.1", "X".repeat(10_000)).as_bytes())),
        case("CONNECT", "RFC 9110, 9.3.6", Refused, line(b"CONNECT users:80 HTTP/1.1")),
        case("CONNECT to a path", "RFC 9112, 3.2.3", Refused, line(b"CONNECT /main HTTP/1.1")),
        case("CONNECT with a request behind it", "RFC 9110, 9.3.6", Refused, {
            [&line(b"CONNECT users:80 HTTP/1.1")[..], AFTER].concat()
        }),
        case("TRACE with content", "RFC 9110, 9.3.8", Harmless, {
            "TRACE /main HTTP/1.1\r\nHost: users\r\nContent-Length: 5\r\n\r\n12345"
        }),
        case("DELETE with content", "RFC 9110, 9.3.5", Harmless, {
            let head = "DELETE /main HTTP/1.1\r\nHost: users\r\nContent-Length";
            format!("{head}: {}\r\n\r\n{HIDDEN}", HIDDEN.len())
        }),
        case("OPTIONS *", "RFC 9112, 3.2.4", Harmless, line(b"OPTIONS * HTTP/1.1")),
    ]
}

fn targets() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 3.2: the target's grammar";
    const FORM: &str = "RFC 9112, 3.2: four forms";
    const SENT: &str = "RFC 9110, 2.2: what is sent matches the grammar";
    let odd = |name, rule, target: &[u8]| case(name, rule, Harmless, line(&[b"GET ", target, b" HTTP/1.1"].concat()));
    let bad = |name, target: &[u8]| case(name, RULE, Refused, line(&[b"GET ", target, b" HTTP/1.1"].concat()));
    // Every server takes these and every proxy passes them on.
    let as_is = |name, target: &[u8]| case(name, RULE, Passed, line(&[b"GET ", target, b" HTTP/1.1"].concat()));
    vec![
        bad("a space", b"/ma in"),
        bad("SOH", b"/ma\x01in"),
        bad("a tab", b"/ma\tin"),
        bad("vertical tab", b"/ma\x0bin"),
        bad("escape", b"/ma\x1bin"),
        bad("DEL", b"/ma\x7fin"),
        bad("CR", b"/ma\rin"),
        bad("not UTF-8", b"/ma\xffin"),
        bad("overlong UTF-8", b"/ma\xc0\xafin"),
        odd("UTF-8", SENT, "/m\u{e4}in".as_bytes()),
        odd("UTF-8 in the query", SENT, "/main?\u{e4}".as_bytes()),
        odd("a no-break space", SENT, "/ma\u{a0}in".as_bytes()),
        odd("code points of CRLF", SENT, "/ma\u{560d}\u{560a}in".as_bytes()),
        odd("a fragment", FORM, b"/main#fragment"),
        odd("a fragment that hides a path", FORM, b"/main#/../smuggled"),
        odd("only a fragment", FORM, b"#fragment"),
        odd("a backslash first", FORM, b"\\main"),
        odd("a backslash", RULE, b"/ma\\in"),
        odd("quotes", RULE, b"/\"main\""),
        odd("a pipe", RULE, b"/a|b"),
        odd("a caret", RULE, b"/a^b"),
        odd("braces", RULE, b"/{a}"),
        odd("brackets", RULE, b"/[a]"),
        odd("a percent sign alone", RULE, b"/%"),
        odd("a bad escape", RULE, b"/%zz"),
        odd("an escaped NUL", RULE, b"/%00"),
        odd("an escaped CRLF", RULE, b"/%0d%0aX-Smuggled:%20yes"),
        odd("an asterisk", "RFC 9112, 3.2.4: OPTIONS only", b"*"),
        odd("an asterisk and more", "RFC 9112, 3.2.4: OPTIONS only", b"*/main"),
        bad("an authority", b"users:80"),
        bad("a name", b"main"),
        odd("a dot", FORM, b"./main"),
        odd("a query", FORM, b"?main"),
        odd("an at sign", FORM, b"@evil/main"),
        odd("a semicolon", FORM, b";main"),
        odd("no scheme", FORM, b"://users/main"),
        odd("a scheme only", FORM, b"http:"),
        odd("a scheme without slashes", FORM, b"http:main"),
        odd("https", "RFC 9110, 7.4", b"https://users/main"),
        odd("ftp", "RFC 9110, 7.4", b"ftp://users/main"),
        odd("file", "RFC 9110, 7.4", b"file:///etc/passwd"),
        odd("javascript", "RFC 9110, 7.4", b"javascript:alert(1)"),
        as_is("quotes in the query", b"/main?q=\"a\""),
        as_is("markup in the query", b"/main?<a>"),
        as_is("markup", b"/<main>"),
        as_is("a backtick", b"/a`b"),
        case("two slashes", FORM, Passed, line(b"GET //evil/main HTTP/1.1")),
        case("a URL for a path", FORM, Passed, line(b"GET /http://evil/main HTTP/1.1")),
        case("two question marks", FORM, Passed, line(b"GET /main?a?b HTTP/1.1")),
        case("dots", FORM, Passed, line(b"GET /a/../main HTTP/1.1")),
    ]
}

fn sizes() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 3 and RFC 6585, 5: 414 and 431";
    let long = |length: usize| "x".repeat(length);
    vec![
        case("a target of 64 KB", RULE, Harmless, line(format!("GET /{} HTTP/1.1", long(65_534)).as_bytes())),
        case("a target of 1 MB", RULE, Refused, line(format!("GET /{} HTTP/1.1", long(1 << 20)).as_bytes())),
        case("a target of 8 KB", "RFC 9112, 3", Passed, line(format!("GET /{} HTTP/1.1", long(7_900)).as_bytes())),
        case("a field of 1 MB", RULE, Refused, get(format!("X: {}\r\n", long(1 << 20)).as_bytes())),
        case("a field of 100 KB", RULE, Harmless, get(format!("X: {}\r\n", long(100_000)).as_bytes())),
        case("a name of 64 KB", RULE, Harmless, get(format!("{}: y\r\n", long(65_535)).as_bytes())),
        case("a name of 64 KB and one", RULE, Harmless, get(format!("{}: y\r\n", long(65_536)).as_bytes())),
        case("a name of 32 KB", RULE, Harmless, get(format!("{}: y\r\n", long(32_768)).as_bytes())),
        case("a value of spaces", RULE, Harmless, get(format!("X:{}y\r\n", " ".repeat(60_000)).as_bytes())),
        case("99 fields", RULE, Harmless, get(many(99).as_bytes())),
        case("100 fields", RULE, Harmless, get(many(100).as_bytes())),
        case("1000 fields", RULE, Harmless, get(many(1000).as_bytes())),
        case("40000 fields", RULE, Refused, get(many(40_000).as_bytes())),
        case("100 KB of empty lines", RULE, Harmless, {
            [&b"\r\n".repeat(50_000)[..], &line(b"GET /main HTTP/1.1")].concat()
        }),
        case("a version of 1 MB", RULE, Refused, line(format!("GET /main HTTP/1.1{}", long(1 << 20)).as_bytes())),
    ]
}

fn connections_and_upgrades() -> Vec<Case> {
    const OPTION: &str = "RFC 9110, 7.6.1: Connection names it";
    const EXPECT: &str = "RFC 9110, 10.1.1";
    const H2C: &str = "h2c smuggling";
    let body = format!("12345{HIDDEN}");
    let long = |fields: &str| post(format!("Content-Length: {}\r\n{fields}", body.len()).as_bytes(), body.as_bytes());
    let coded = |fields: &str| by_coding(format!("Transfer-Encoding: chunked\r\n{fields}").as_bytes());
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    vec![
        case("Content-Length", OPTION, Harmless, long("Connection: Content-Length\r\n")),
        case("Content-Length, to close", OPTION, Last, long("Connection: close, Content-Length\r\n")),
        case("Content-Length in other case", OPTION, Harmless, long("Connection: cONTENT-lENGTH\r\n")),
        case("Transfer-Encoding", OPTION, Harmless, coded("Connection: Transfer-Encoding\r\n")),
        case("Transfer-Encoding, kept alive", OPTION, Harmless, coded("Connection: keep-alive, transfer-encoding\r\n")),
        case("both", OPTION, Last, coded("Content-Length: 4\r\nConnection: Transfer-Encoding, Content-Length\r\n")),
        case("Host", OPTION, Harmless, get(b"Connection: Host\r\n")),
        case("Host, on the second line", OPTION, Harmless, get(b"Connection: keep-alive\r\nConnection: Host\r\n")),
        case("Connection", OPTION, Harmless, get(b"Connection: Connection\r\n")),
        case("Expect", OPTION, Harmless, long("Expect: 100-continue\r\nConnection: Expect\r\n")),
        case("Trailer", OPTION, Harmless, coded("Trailer: X\r\nConnection: Trailer\r\n")),
        case("Via", OPTION, Harmless, get(b"Connection: Via\r\nVia: 1.1 x\r\n")),
        case("X-Forwarded-For", "hop-by-hop abuse", Harmless, get(b"Connection: X-Forwarded-For\r\n")),
        case("a name that is no token", OPTION, Harmless, get(b"Connection: a b, (, \"\"\r\n")),
        case("an empty list", OPTION, Harmless, get(b"Connection: , ,,\r\n")),
        case("close and keep-alive", OPTION, Last, field(b"Connection: close, keep-alive\r\n")),
        case(
            "keep-alive, then close on a line",
            OPTION,
            Last,
            field(b"Connection: keep-alive\r\nConnection: close\r\n"),
        ),
        case(
            "close, then keep-alive on a line",
            OPTION,
            Last,
            field(b"Connection: close\r\nConnection: keep-alive\r\n"),
        ),
        case("its field is dropped", OPTION, Passed, get(b"Connection: X-Smuggled\r\nX-Smuggled: yes\r\n")),
        case("Proxy-Connection", "RFC 9112, appendix C.2.2", Harmless, get(b"Proxy-Connection: keep-alive\r\n")),
        case("Keep-Alive", "RFC 9112, appendix C.2.2", Harmless, get(b"Keep-Alive: timeout=5\r\n")),
        case("HTTP/1.0 kept alive", "RFC 9112, 9.3", Harmless, {
            "GET /main HTTP/1.0\r\nHost: users\r\nConnection: keep-alive\r\n\r\n"
        }),
        case("an unknown expectation", EXPECT, Harmless, long("Expect: banana\r\n")),
        case("two expectations", EXPECT, Harmless, long("Expect: 100-continue, banana\r\n")),
        case("an expectation twice", EXPECT, Harmless, long("Expect: 100-continue\r\nExpect: 100-continue\r\n")),
        case("an expectation in other case", EXPECT, Harmless, long("Expect: 100-CONTINUE\r\n")),
        case("an expectation without content", "Expect-based desync", Harmless, get(b"Expect: 100-continue\r\n")),
        case("an expectation with zero content", "Expect-based desync", Harmless, {
            post(b"Content-Length: 0\r\nExpect: 100-continue\r\n", b"")
        }),
        case("an expectation and a length", "Expect-based desync", Passed, long("Expect: 100-continue\r\n")),
        case("an expectation and chunks", "Expect-based desync", Passed, coded("Expect: 100-continue\r\n")),
        case("an expectation, both framings", "Expect-based desync", Last, {
            by_coding(b"Expect: 100-continue\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n")
        }),
        case("an obfuscated expectation", "Expect-based desync", Harmless, long("Expect: y 100-continue\r\n")),
        case("h2c", H2C, Harmless, {
            get(format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}").as_bytes())
        }),
        case("h2c, Connection names half of it", H2C, Harmless, {
            get(format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{settings}").as_bytes())
        }),
        case("h2c, Connection names none of it", H2C, Harmless, get(format!("Upgrade: h2c\r\n{settings}").as_bytes())),
        case("h2c with content", H2C, Harmless, {
            long(&format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}"))
        }),
        case("h2c with chunks", H2C, Harmless, {
            coded(&format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}"))
        }),
        case("an upgrade with both framings", H2C, Last, {
            let fields =
                b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n";
            by_coding(fields)
        }),
        case("an upgrade in HTTP/1.0", "RFC 9110, 7.8", Harmless, {
            "GET /main HTTP/1.0\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        }),
        case("an upgrade to nothing", "RFC 9110, 7.8", Harmless, get(b"Connection: Upgrade\r\nUpgrade:\r\n")),
        case("an upgrade that is refused", "RFC 9110, 7.8", Passed, {
            get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
        }),
        case("TE with more than trailers", "RFC 9110, 10.1.4", Harmless, get(b"TE: trailers, chunked, gzip\r\n")),
    ]
}

fn rows() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 9.3.2: pipelining";
    let first = |first: Vec<u8>| [&first[..], HIDDEN.as_bytes()].concat();
    vec![
        case("behind a GET", RULE, Pipelined, first(get(b""))),
        case("behind a length", RULE, Pipelined, first(post(b"Content-Length: 5\r\n", b"12345"))),
        case("behind a length of zero", RULE, Pipelined, first(post(b"Content-Length: 0\r\n", b""))),
        case("behind a POST without content", "CL.0", Pipelined, first(post(b"", b""))),
        case("behind chunks", RULE, Pipelined, {
            first(post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
        }),
        case("behind trailers", RULE, Pipelined, {
            first(post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"))
        }),
        case("behind an empty line", RULE, Pipelined, first([&get(b"")[..], b"\r\n"].concat())),
        case(
            "behind the last request",
            "RFC 9112, 9.6: nothing behind close",
            Last,
            first(get(b"Connection: close\r\n")),
        ),
        case("behind HTTP/1.0", "RFC 9112, 9.3", Last, first(b"GET /main HTTP/1.0\r\nHost: users\r\n\r\n".to_vec())),
        case("behind a refused request", "RFC 9112, 6.3", Refused, first(get(b"X : y\r\n"))),
        case("behind a refused length", "RFC 9112, 6.3", Refused, first(post(b"Content-Length: x\r\n", b""))),
        case("junk behind it", RULE, Harmless, [&get(b"")[..], b"\0\x01junk\r\n\r\n"].concat()),
    ]
}
