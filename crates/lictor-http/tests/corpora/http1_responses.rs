//! Answers that are malformed, or that want to be read in two ways. Whatever a backend sends, the client gets a 502
//! that says so, an answer that visibly ends too early, or a well-formed one; and the next request gets its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::{Between, Speaks, Tables, Told, chosen};
use Expect::{Broken, Harmless, Passed, Refused, Safe};

/// By what they are about.
const TABLES: Tables<Case> = &[
    ("status lines are strict", status_lines),
    ("answers field lines are strict", field_lines),
    ("answers have one length", lengths),
    ("answers codings are known and final", codings),
    ("answers chunks are strict", chunks),
    ("a cut answer is seen to be cut", cuts),
    ("interim answers come before the final one", interim),
    ("answers without content have none", without_content),
    ("bytes behind an answer are nobodys", extra_bytes),
    ("answers heads have a size", sizes),
];

/// One answer, and what may become of it.
struct Case {
    name: String,
    /// The RFC's section, or the name by which the attack is known.
    rule: &'static str,
    expect: Expect,
    method: &'static str,
    bytes: Vec<u8>,
    /// Whether the backend leaves the connection open.
    is_kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// 502.
    Refused,
    /// 502, or an answer that ends before its length or without its last chunk. It may end before its first byte: the
    /// head waits for the first of the body, and is lost when that is bad.
    Broken,
    /// 502, cut, or a well-formed answer.
    Harmless,
    /// 502, cut, or this status and this body.
    Safe(u16, &'static str),
    /// This status and this body: the check that the others are not refused for a reason of their own.
    Passed(u16, &'static str),
}

/// Nobody has asked for this one.
const HIDDEN: &str = "HTTP/1.1 200 OK\r\nX-Smuggled: yes\r\nContent-Length: 8\r\n\r\nsmuggled";

/// RFC 9110, section 6.5.1; and the hidden answer's.
const NO_TRAILERS: [&str; 6] =
    ["transfer-encoding", "content-length", "connection", "set-cookie", "trailer", "x-smuggled"];

/// How long an answer may take. Nothing waits this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets a backend give these answers through what stands between, and panics with everything that was wrong; says how
/// many there were.
pub(crate) fn run<B: Between>() -> usize {
    let cases: Vec<(&str, Case)> =
        TABLES.iter().flat_map(|(table, cases)| cases().into_iter().map(|case| (*table, case))).collect();
    let cases = Arc::new(chosen(cases, B::ONE_IN, |(_, case)| std::mem::discriminant(&case.expect)));
    let between = B::before(backend(&cases), Speaks::Http1);
    let address = between.address();
    let mut complaints = Vec::new();
    for (index, (table, case)) in cases.iter().enumerate() {
        let mut client = Client::connect(&address);
        let got = client.ask(case.method, &format!("/case/{index}"));
        let mut wrong: Vec<String> = judge::<B>(case, &got).into_iter().collect();
        if matches!(&got, Got::Answer(answer) if answer.is_whole && answer.field("connection") != Some("close")) {
            wrong.extend(good(&mut client, &format!("/good/{index}/same")));
        }
        for number in 1..=2 {
            wrong.extend(good(&mut Client::connect(&address), &format!("/good/{index}/{number}")));
        }
        if !wrong.is_empty() {
            let bytes = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(400)]);
            complaints.push(format!(
                "{table}: {} ({}, {:?}, {}, {}): {}\n    backend {bytes:?}\n    client {got:?}",
                case.name,
                case.rule,
                case.expect,
                case.method,
                if case.is_kept { "kept" } else { "closed" },
                wrong.join("; ")
            ));
        }
    }
    complaints.extend(between.complaints());
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
    cases.len()
}

/// What is wrong with what the client got.
fn judge<B: Between>(case: &Case, got: &Got) -> Option<String> {
    let answer = match got {
        Got::Answer(answer) => answer,
        Got::Malformed(what) => return Some(format!("the client got {what}")),
        Got::Closed if case.expect == Broken => return None,
        Got::Closed => return Some("the connection was closed without an answer".to_owned()),
        Got::Silence => return Some("no answer".to_owned()),
    };
    if answer.field("x-smuggled").is_some() {
        return Some("the hidden answer was passed on".to_owned());
    }
    let told = Told { status: answer.status, fields: &answer.fields, body: &answer.body };
    let is_refusal = answer.status == 502 && answer.is_whole && B::is_refusal(&told, None);
    let is_fine = match case.expect {
        Refused => is_refusal,
        Broken => is_refusal || !answer.is_whole,
        Harmless => true,
        Safe(status, body) => is_refusal || !answer.is_whole || answer.is(status, body),
        Passed(status, body) => answer.is(status, body),
    };
    let whole = if answer.is_whole { "whole" } else { "cut" };
    if is_fine { None } else { Some(format!("passed on with {}, {whole}", answer.status)) }
}

/// Asks for something that has an answer of its own.
fn good(client: &mut Client, target: &str) -> Option<String> {
    match client.ask("GET", target) {
        Got::Answer(answer) if answer.is(200, target) => None,
        other => Some(format!("the next request, {target}, got {other:?}")),
    }
}

/// Gives the answer of `/case/INDEX` as it is, and an answer of its own to everything else.
fn backend(cases: &Arc<Vec<(&'static str, Case)>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cases = Arc::clone(cases);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let cases = Arc::clone(&cases);
            std::thread::spawn(move || answer(stream, &cases));
        }
    });
    port
}

fn answer(mut stream: TcpStream, cases: &[(&str, Case)]) {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = read.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head);
            let target = head.split(' ').nth(1).unwrap_or_default();
            let index: Option<usize> = target.strip_prefix("/case/").and_then(|index| index.parse().ok());
            let case = index.and_then(|index| cases.get(index)).map(|(_, case)| case);
            let own = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
            let bytes = case.map_or(own.as_bytes(), |case| &case.bytes);
            if stream.write_all(bytes).is_err() || case.is_some_and(|case| !case.is_kept) {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}

/// What came back.
#[derive(Debug)]
enum Got {
    Answer(Answer),
    /// Bytes that are not exact HTTP/1.1.
    Malformed(String),
    /// The end, before a whole head.
    Closed,
    /// Nothing, for too long.
    Silence,
}

struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    /// It has its whole length or its last chunk.
    is_whole: bool,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    fn is(&self, status: u16, body: &str) -> bool {
        self.is_whole && self.status == status && self.body == body.as_bytes()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        let (length, coding) = (self.all("content-length"), self.all("transfer-encoding"));
        write!(f, "{} length {length:?} coding {coding:?} whole {} body {body:?}", self.status, self.is_whole)
    }
}

/// A client that takes nothing but exact HTTP/1.1.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Why there is no more.
enum End {
    Closed,
    Silence,
}

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    fn ask(&mut self, method: &str, target: &str) -> Got {
        let _ = self.stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: users\r\n\r\n").as_bytes());
        loop {
            let head = match self.until(b"\r\n\r\n") {
                Ok(head) => head,
                Err(End::Silence) => return Got::Silence,
                Err(End::Closed) if self.buffer.is_empty() => return Got::Closed,
                Err(End::Closed) => return Got::Malformed(format!("a cut head {:?}", text(&self.buffer))),
            };
            let mut answer = match parse(&head) {
                Ok(answer) => answer,
                Err(what) => return Got::Malformed(what),
            };
            if answer.status < 200 && answer.status != 101 {
                continue;
            }
            return match self.body(method, &mut answer) {
                Ok(()) => Got::Answer(answer),
                Err(what) => Got::Malformed(what),
            };
        }
    }

    fn body(&mut self, method: &str, answer: &mut Answer) -> Result<(), String> {
        answer.is_whole = true;
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return Ok(());
        }
        let lengths: Vec<String> = answer.all("content-length").into_iter().map(str::to_owned).collect();
        if answer.field("transfer-encoding").is_some() {
            return self.chunked(answer);
        }
        let wanted = match lengths.first() {
            Some(length) => length.parse().map_err(|_| format!("the length {length:?}"))?,
            None => usize::MAX,
        };
        while self.buffer.len() < wanted {
            match self.more() {
                Ok(()) => (),
                Err(End::Silence) => return Err("a body that does not go on".to_owned()),
                Err(End::Closed) => break,
            }
        }
        answer.is_whole = wanted == usize::MAX || self.buffer.len() >= wanted;
        answer.body = self.buffer.drain(..wanted.min(self.buffer.len())).collect();
        Ok(())
    }

    fn chunked(&mut self, answer: &mut Answer) -> Result<(), String> {
        answer.is_whole = false;
        loop {
            let Ok(line) = self.until(b"\r\n") else { return Ok(()) };
            let size = line.trim_end_matches("\r\n");
            let size = usize::from_str_radix(size, 16).map_err(|_| format!("the chunk size {size:?}"))?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if self.more().is_err() {
                    answer.body.append(&mut self.buffer);
                    return Ok(());
                }
            }
            answer.body.extend(self.buffer.drain(..size));
            if self.buffer.drain(..2).collect::<Vec<u8>>() != b"\r\n" {
                return Err("a chunk without its CRLF".to_owned());
            }
        }
        loop {
            let Ok(line) = self.until(b"\r\n") else { return Ok(()) };
            if line == "\r\n" {
                answer.is_whole = true;
                return Ok(());
            }
            let (name, _) = line.split_once(':').ok_or_else(|| format!("the trailer {line:?}"))?;
            if NO_TRAILERS.contains(&name.to_lowercase().as_str()) {
                return Err(format!("the trailer {line:?}"));
            }
        }
    }

    /// Everything up to these bytes, and they.
    fn until(&mut self, end: &[u8]) -> Result<String, End> {
        loop {
            if let Some(found) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..found + end.len()).map(char::from).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), End> {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                self.buffer.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(End::Silence),
            Err(_) => Err(End::Closed),
        }
    }
}

/// A head as Latin-1, if it is exact.
fn parse(head: &str) -> Result<Answer, String> {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next());
    let status = status.filter(|status| status.len() == 3).and_then(|status| status.parse().ok());
    let Some(status) = status.filter(|status| (100..=999).contains(status)) else {
        return Err(format!("the status line {line:?}"));
    };
    let mut fields = Vec::new();
    for line in [line].into_iter().chain(lines.clone()) {
        if line.chars().any(|char| char.is_ascii_control() && char != '\t') {
            return Err(format!("a control in {line:?}"));
        }
    }
    for line in lines {
        match line.split_once(':') {
            Some((name, value)) if is_token(name) => fields.push((name.to_owned(), value.trim().to_owned())),
            _ => return Err(format!("the field line {line:?}")),
        }
    }
    let answer = Answer { status, fields, body: Vec::new(), is_whole: false };
    let (lengths, codings) = (answer.all("content-length"), answer.all("transfer-encoding"));
    let is_framed = match (&lengths[..], &codings[..]) {
        ([], [] | ["chunked"]) => true,
        ([length], []) => length.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    // RFC 9110, section 8.6 and RFC 9112, section 6.1.
    if !is_framed || (matches!(status, 100..=199 | 204) && lengths.len() + codings.len() > 0) {
        return Err(format!("{status} with the lengths {lengths:?} and the codings {codings:?}"));
    }
    Ok(answer)
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// The backend closes behind it.
fn closed(name: impl Into<String>, rule: &'static str, expect: Expect, bytes: impl Into<Vec<u8>>) -> Case {
    Case { name: name.into(), rule, expect, method: "GET", bytes: bytes.into(), is_kept: false }
}

/// The backend waits for the next request behind it.
fn kept(name: impl Into<String>, rule: &'static str, expect: Expect, bytes: impl Into<Vec<u8>>) -> Case {
    Case { is_kept: true, ..closed(name, rule, expect, bytes) }
}

/// An answer to HEAD.
fn to_head(name: &str, rule: &'static str, expect: Expect, bytes: impl Into<Vec<u8>>) -> Case {
    Case { method: "HEAD", ..kept(name, rule, expect, bytes) }
}

/// An answer with these field lines, each with its line end, and this body.
fn with(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", fields, b"\r\n", body].concat()
}

/// So many field lines.
fn many(count: usize) -> String {
    let mut lines = String::new();
    for number in 0..count {
        lines += &format!("X{number}: y\r\n");
    }
    lines
}

fn status_lines() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 4: version SP 3DIGIT SP reason";
    const STATUS: &str = "RFC 9110, 15: 100 to 599";
    let line = |line: &[u8]| [line, b"\r\nContent-Length: 5\r\n\r\nhello"].concat();
    let bad = |name: &str, rule, text: &[u8]| kept(name, rule, Refused, line(text));
    vec![
        bad("99", STATUS, b"HTTP/1.1 99 Low"),
        bad("099", STATUS, b"HTTP/1.1 099 Low"),
        bad("000", STATUS, b"HTTP/1.1 000 Low"),
        bad("1000", STATUS, b"HTTP/1.1 1000 High"),
        bad("2000", STATUS, b"HTTP/1.1 2000 OK"),
        bad("abc", STATUS, b"HTTP/1.1 abc OK"),
        bad("2OO", STATUS, b"HTTP/1.1 2OO OK"),
        bad("2x0", STATUS, b"HTTP/1.1 2x0 OK"),
        bad("-200", STATUS, b"HTTP/1.1 -200 OK"),
        bad("+200", STATUS, b"HTTP/1.1 +200 OK"),
        bad("200.0", STATUS, b"HTTP/1.1 200.0 OK"),
        bad("20", STATUS, b"HTTP/1.1 20 OK"),
        bad("full-width digits", STATUS, "HTTP/1.1 \u{ff12}00 OK".as_bytes()),
        bad("no status", RULE, b"HTTP/1.1 OK"),
        bad("nothing behind the version", RULE, b"HTTP/1.1"),
        bad("a space behind the version", RULE, b"HTTP/1.1 "),
        bad("no space behind the version", RULE, b"HTTP/1.1200 OK"),
        bad("two spaces behind the version", RULE, b"HTTP/1.1  200 OK"),
        bad("a tab behind the version", RULE, b"HTTP/1.1\t200 OK"),
        bad("no space behind the status", RULE, b"HTTP/1.1 200OK"),
        bad("a space first", RULE, b" HTTP/1.1 200 OK"),
        bad("HTTP/2.0", RULE, b"HTTP/2.0 200 OK"),
        bad("HTTP/2", RULE, b"HTTP/2 200 OK"),
        bad("HTTP/3", RULE, b"HTTP/3 200 OK"),
        bad("HTTP/0.9", RULE, b"HTTP/0.9 200 OK"),
        bad("HTTP/1", RULE, b"HTTP/1 200 OK"),
        bad("HTTP/1.10", RULE, b"HTTP/1.10 200 OK"),
        bad("HTTP/11", RULE, b"HTTP/11 200 OK"),
        bad("http/1.1", RULE, b"http/1.1 200 OK"),
        bad("ICY", RULE, b"ICY 200 OK"),
        bad("SIP/2.0", RULE, b"SIP/2.0 200 OK"),
        bad("no version", RULE, b"200 OK"),
        bad("NUL in the version", RULE, b"HTTP/1.1\0 200 OK"),
        bad("a request", RULE, b"GET / HTTP/1.1"),
        kept("NUL in the reason", RULE, Safe(200, "hello"), line(b"HTTP/1.1 200 O\0K")),
        kept(
            "bare CR in the reason",
            "RFC 9112, 2.2: a bare CR",
            Safe(200, "hello"),
            line(b"HTTP/1.1 200 O\rX-Smuggled: yes"),
        ),
        kept("bare LF in the reason", "RFC 9112, 2.2: LF", Safe(200, "hello"), line(b"HTTP/1.1 200 OK\nX: yes")),
        kept("a control in the reason", RULE, Safe(200, "hello"), line(b"HTTP/1.1 200 O\x01K")),
        kept("high bytes in the reason", RULE, Safe(200, "hello"), line(b"HTTP/1.1 200 \xe9\xff")),
        kept("a tab in the reason", RULE, Safe(200, "hello"), line(b"HTTP/1.1 200 O\tK")),
        kept("no reason", RULE, Passed(200, "hello"), line(b"HTTP/1.1 200 ")),
        kept("no reason and no space", RULE, Safe(200, "hello"), line(b"HTTP/1.1 200")),
        kept("600", STATUS, Harmless, line(b"HTTP/1.1 600 High")),
        kept("999", STATUS, Harmless, line(b"HTTP/1.1 999 High")),
        kept("HTTP/1.2", "RFC 9110, 2.5: a higher minor version", Safe(200, "hello"), line(b"HTTP/1.2 200 OK")),
        kept("HTTP/1.0", "RFC 9112, 2.3", Passed(200, "hello"), line(b"HTTP/1.0 200 OK")),
        kept("CRLF before it", "RFC 9112, 2.2", Safe(200, "hello"), line(b"\r\nHTTP/1.1 200 OK")),
        kept(
            "LF for all line ends",
            "RFC 9112, 2.2: LF",
            Safe(200, "hello"),
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        ),
        closed("HTTP/0.9", "HTTP/0.9", Refused, "hello"),
        closed("HTTP/0.9, markup", "HTTP/0.9", Refused, "<html><body>hello</body></html>\r\n"),
        closed("a long line", RULE, Refused, "hello ".repeat(10_000)),
        closed("nothing", "RFC 9112, 8", Refused, ""),
        closed("an empty line", RULE, Refused, "\r\n"),
        closed("empty lines", RULE, Refused, "\r\n\r\n\r\n\r\n"),
        closed("zeros", RULE, Refused, [0; 100]),
        closed("all bytes", RULE, Refused, (0..=255).collect::<Vec<u8>>()),
        closed("TLS", RULE, Refused, b"\x15\x03\x01\x00\x02\x02\x46"),
        closed("HTTP/2 frames", RULE, Refused, b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
        closed("only fields", RULE, Refused, "Content-Length: 5\r\n\r\nhello"),
        closed("bare CR for all line ends", "RFC 9112, 2.2: a bare CR", Refused, "HTTP/1.1 200 OK\rX: y\r\r"),
    ]
}

fn field_lines() -> Vec<Case> {
    const NAME: &str = "RFC 9110, 5.1: a name is a token";
    const COLON: &str = "RFC 9112, 5.1: the space is taken off, or 502";
    const FOLD: &str = "RFC 9112, 5.2: one line, or 502";
    const VALUE: &str = "RFC 9110, 5.5: CR, LF and NUL";
    let answer = |line: &[u8]| with(&[b"Content-Length: 5\r\n", line].concat(), b"hello");
    let bad = |name: &str, rule, line: &[u8]| kept(name, rule, Refused, answer(line));
    let odd = |name: &str, rule, line: &[u8]| kept(name, rule, Safe(200, "hello"), answer(line));
    vec![
        bad("no colon", NAME, b"X\r\n"),
        bad("an empty name", NAME, b": y\r\n"),
        bad("a space in a name", NAME, b"X Y: z\r\n"),
        bad("NUL in a name", NAME, b"X\0Y: z\r\n"),
        bad("a control in a name", NAME, b"X\x01: z\r\n"),
        bad("a high byte in a name", NAME, b"X\xe9: z\r\n"),
        bad("a slash in a name", NAME, b"X/Y: z\r\n"),
        bad("brackets in a name", NAME, b"[X]: z\r\n"),
        bad("CR in a name", NAME, b"X\rY: z\r\n"),
        bad("a second status line for a field", NAME, b"HTTP/1.1 200 OK\r\n"),
        odd("a space before the colon", COLON, b"X : y\r\n"),
        odd("a tab before the colon", COLON, b"X\t: y\r\n"),
        odd("a space before a length's colon", COLON, b"Content-Length : 6\r\n"),
        odd("a space before a coding's colon", COLON, b"Transfer-Encoding : chunked\r\n"),
        odd("folded with a space", FOLD, b"X: y\r\n z\r\n"),
        odd("folded with a tab", FOLD, b"X: y\r\n\tz\r\n"),
        odd("folded, a field", FOLD, b"X: y\r\n X-Smuggled: yes\r\n"),
        odd("folded, nothing", FOLD, b"X:\r\n \r\n"),
        odd("NUL in a value", VALUE, b"X: a\0b\r\n"),
        odd("bare CR in a value", VALUE, b"X: a\rX-Smuggled: yes\r\n"),
        odd("CR CR LF", VALUE, b"X: a\r\r\n"),
        odd("bare LF in a value", "RFC 9112, 2.2: LF", b"X: a\nY: z\r\n"),
        odd("a control in a value", VALUE, b"X: a\x01b\r\n"),
        odd("DEL in a value", VALUE, b"X: a\x7fb\r\n"),
        kept(
            "LF behind a field ends the head",
            "RFC 9112, 2.2: LF",
            Harmless,
            answer(
                b"X: a

",
            ),
        ),
        kept(
            "a space before the first name",
            "RFC 9112, 2.2",
            Safe(200, "hello"),
            with(b" X: y\r\nContent-Length: 5\r\n", b"hello"),
        ),
        kept("high bytes in a value", "RFC 9110, 5.5: obs-text", Passed(200, "hello"), answer(b"X: \xe9\r\n")),
        kept("Connection names the length", "RFC 9110, 7.6.1", Passed(200, "hello"), {
            answer(b"Connection: Content-Length\r\n")
        }),
        kept("Connection names a field", "RFC 9110, 7.6.1", Passed(200, "hello"), {
            answer(b"Connection: X-Smuggled\r\nX-Smuggled: yes\r\n")
        }),
        kept("Connection names no token", "RFC 9110, 7.6.1", Safe(200, "hello"), answer(b"Connection: a b, (\r\n")),
        kept("Upgrade, unasked", "RFC 9110, 7.8", Passed(200, "hello"), {
            answer(b"Connection: Upgrade\r\nUpgrade: h2c\r\n")
        }),
    ]
}

fn lengths() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 6.3, item 5: 502";
    const SAME: &str = "RFC 9110, 8.6: one length, or 502";
    const BOTH: &str = "RFC 9112, 6.3, item 3: the coding, without the length";
    let bad = |name: &str, fields: &[u8]| kept(name, RULE, Refused, with(fields, b"hello"));
    vec![
        bad("two that differ", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
        bad("two that differ, the longer first", b"Content-Length: 6\r\nContent-Length: 5\r\n"),
        bad("a bad one below a good one", b"Content-Length: 5\r\nContent-Length: x\r\n"),
        bad("an empty one below a good one", b"Content-Length: 5\r\nContent-Length:\r\n"),
        bad("a list that differs", b"Content-Length: 5, 6\r\n"),
        bad("empty", b"Content-Length:\r\n"),
        bad("negative", b"Content-Length: -5\r\n"),
        bad("plus", b"Content-Length: +5\r\n"),
        bad("hexadecimal", b"Content-Length: 0x5\r\n"),
        bad("a fraction", b"Content-Length: 5.0\r\n"),
        bad("an exponent", b"Content-Length: 5e0\r\n"),
        bad("a unit", b"Content-Length: 5 bytes\r\n"),
        bad("digits apart", b"Content-Length: 0 5\r\n"),
        bad("an underscore", b"Content-Length: 0_5\r\n"),
        bad("quotes", b"Content-Length: \"5\"\r\n"),
        bad("a word", b"Content-Length: five\r\n"),
        bad("a superscript digit", b"Content-Length: \xb9\r\n"),
        bad("a full-width digit", "Content-Length: \u{ff15}\r\n".as_bytes()),
        bad("vertical tab", b"Content-Length: \x0b5\r\n"),
        bad("NUL", b"Content-Length: 5\0\r\n"),
        bad("2 to the 64", b"Content-Length: 18446744073709551616\r\n"),
        bad("2 to the 64 and 5", b"Content-Length: 18446744073709551621\r\n"),
        closed("the largest of 64 bits", RULE, Broken, with(b"Content-Length: 18446744073709551615\r\n", b"hello")),
        closed("the largest but two", RULE, Broken, with(b"Content-Length: 18446744073709551613\r\n", b"hello")),
        closed("2 to the 63", RULE, Broken, with(b"Content-Length: 9223372036854775808\r\n", b"hello")),
        kept("the same twice", SAME, Safe(200, "hello"), with(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello")),
        kept("a list of the same", SAME, Safe(200, "hello"), with(b"Content-Length: 5, 5\r\n", b"hello")),
        kept(
            "the same in other digits",
            SAME,
            Safe(200, "hello"),
            with(b"Content-Length: 5\r\nContent-Length: 05\r\n", b"hello"),
        ),
        kept("leading zeros", SAME, Safe(200, "hello"), with(b"Content-Length: 0005\r\n", b"hello")),
        kept("zero", "RFC 9112, 6.2", Passed(200, ""), with(b"Content-Length: 0\r\n", b"")),
        kept("a length", "RFC 9112, 6.2", Passed(200, "hello"), with(b"Content-Length: 5\r\n", b"hello")),
        closed("none, to the end", "RFC 9112, 6.3, item 8", Passed(200, "hello"), with(b"", b"hello")),
        closed(
            "none, with a hidden answer",
            "RFC 9112, 6.3, item 8",
            Passed(200, HIDDEN),
            with(b"", HIDDEN.as_bytes()),
        ),
        kept("a short length and a coding", BOTH, Safe(200, "hello"), {
            with(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        }),
        kept("a long length and a coding", BOTH, Safe(200, "hello"), {
            with(b"Content-Length: 50\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        }),
        kept("a coding and a short length", BOTH, Safe(200, "hello"), {
            with(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        }),
        kept("a coding and its right length", BOTH, Safe(200, "hello"), {
            with(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        }),
        kept("a coding and a bad length", BOTH, Safe(200, "hello"), {
            with(b"Transfer-Encoding: chunked\r\nContent-Length: x\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        }),
        kept("a coding, two lengths", BOTH, Safe(200, "hello"), {
            with(
                b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
                b"5\r\nhello\r\n0\r\n\r\n",
            )
        }),
        kept("a coding and a length of zero", BOTH, Safe(200, HIDDEN), {
            let body = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
            with(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", body.as_bytes())
        }),
    ]
}

fn codings() -> Vec<Case> {
    const FINAL: &str = "RFC 9112, 6.3, item 4: to the end of the connection";
    const LEFT: &str = "RFC 9110, 2.2: a coding that stays on the content keeps its name";
    const OLD: &str = "RFC 9112, 6.1: faulty framing in HTTP/1.0";
    let chunked = b"5\r\nhello\r\n0\r\n\r\n";
    let te = |name: &str, rule, expect, field: &[u8]| closed(name, rule, expect, with(field, chunked));
    vec![
        te("chunked", "RFC 9112, 7.1", Passed(200, "hello"), b"Transfer-Encoding: chunked\r\n"),
        te("CHUNKED", "RFC 9112, 7", Passed(200, "hello"), b"TRANSFER-ENCODING: CHUNKED\r\n"),
        te("gzip, chunked", LEFT, Refused, b"Transfer-Encoding: gzip, chunked\r\n"),
        te("x, then chunked on a line", LEFT, Refused, b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"),
        te("gzip", LEFT, Refused, b"Transfer-Encoding: gzip\r\n"),
        te("x", LEFT, Refused, b"Transfer-Encoding: x\r\n"),
        te("chunked, gzip", LEFT, Refused, b"Transfer-Encoding: chunked, gzip\r\n"),
        te("xchunked", LEFT, Refused, b"Transfer-Encoding: xchunked\r\n"),
        te("identity", FINAL, Harmless, b"Transfer-Encoding: identity\r\n"),
        te("chunked, identity", FINAL, Harmless, b"Transfer-Encoding: chunked, identity\r\n"),
        te("identity, chunked", FINAL, Harmless, b"Transfer-Encoding: identity, chunked\r\n"),
        te("chunked, chunked", FINAL, Harmless, b"Transfer-Encoding: chunked, chunked\r\n"),
        te("chunked on two lines", FINAL, Harmless, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        te("chunked with a comma", FINAL, Harmless, b"Transfer-Encoding: chunked,\r\n"),
        te("chunked with a parameter", FINAL, Harmless, b"Transfer-Encoding: chunked;q=1\r\n"),
        te("chunked in quotes", FINAL, Harmless, b"Transfer-Encoding: \"chunked\"\r\n"),
        te("nothing", FINAL, Harmless, b"Transfer-Encoding:\r\n"),
        te("vertical tab", "RFC 9110, 5.5", Harmless, b"Transfer-Encoding: \x0bchunked\r\n"),
        te("a space before the colon", "RFC 9112, 5.1", Harmless, b"Transfer-Encoding : chunked\r\n"),
        te("folded", "RFC 9112, 5.2", Harmless, b"Transfer-Encoding:\r\n chunked\r\n"),
        te(
            "not final, with a length",
            FINAL,
            Safe(200, "5\r\nhello\r\n0\r\n\r\n"),
            b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        ),
        closed(
            "HTTP/1.0",
            OLD,
            Harmless,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        kept("HTTP/1.0, kept alive", OLD, Harmless, {
            let head = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}5\r\nhello\r\n0\r\n\r\n{HIDDEN}")
        }),
    ]
}

fn chunks() -> Vec<Case> {
    const SIZE: &str = "RFC 9112, 7.1: chunk-size";
    const DATA: &str = "RFC 9112, 7.1: chunk-data CRLF";
    const EXT: &str = "RFC 9112, 7.1.1: chunk-ext";
    const TRAILER: &str = "RFC 9110, 6.5.1: not a trailer";
    let chunked = |body: &[u8]| {
        with(
            b"Transfer-Encoding: chunked\r\nTrailer: X, Content-Length, Transfer-Encoding, \
              Connection, Set-Cookie, Trailer\r\n",
            body,
        )
    };
    let bad = |name: &str, rule, body: &[u8]| kept(name, rule, Broken, chunked(&[body, HIDDEN.as_bytes()].concat()));
    let odd = |name: &str, rule, body: &[u8]| kept(name, rule, Safe(200, "hello"), chunked(body));
    let behind = |trailers: &[u8]| [b"5\r\nhello\r\n0\r\n", trailers, b"\r\n"].concat();
    vec![
        bad("2 to the 64", SIZE, b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
        bad("2 to the 64 and 5", SIZE, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("negative", SIZE, b"-5\r\nhello\r\n0\r\n\r\n"),
        bad("plus", SIZE, b"+5\r\nhello\r\n0\r\n\r\n"),
        bad("0x", SIZE, b"0x5\r\nhello\r\n0\r\n\r\n"),
        bad("no hexadecimal digit", SIZE, b"g\r\nhello\r\n0\r\n\r\n"),
        bad("no size", SIZE, b"\r\nhello\r\n0\r\n\r\n"),
        bad("a space before", SIZE, b" 5\r\nhello\r\n0\r\n\r\n"),
        bad("digits apart", SIZE, b"0 5\r\nhello\r\n0\r\n\r\n"),
        bad("NUL", SIZE, b"5\0\r\nhello\r\n0\r\n\r\n"),
        bad("LF behind the size", SIZE, b"5\nhello\r\n0\r\n\r\n"),
        bad("CR behind the size", SIZE, b"5\rhello\r\n0\r\n\r\n"),
        bad("CR CR LF behind the size", SIZE, b"5\r\r\nhello\r\n0\r\n\r\n"),
        bad("bad in the second chunk", SIZE, b"5\r\nhello\r\n-5\r\nhello\r\n0\r\n\r\n"),
        bad("nothing behind the data", DATA, b"5\r\nhello0\r\n\r\n"),
        bad("LF behind the data", DATA, b"5\r\nhello\n0\r\n\r\n"),
        bad("more data than its size", DATA, b"5\r\nhello world\r\n0\r\n\r\n"),
        bad("less data than its size", DATA, b"8\r\nhello\r\n0\r\n\r\n"),
        bad("CR at the end", DATA, b"5\r\nhello\r\n0\r\n\rx"),
        bad("LF in an extension", EXT, b"5;a=b\nhello\r\n0\r\n\r\n"),
        bad("CR in an extension", EXT, b"5;a\r=b\r\nhello\r\n0\r\n\r\n"),
        bad("an extension of 20 KB", EXT, format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)).as_bytes()),
        bad("a trailer without colon", "RFC 9112, 7.1.2", &behind(b"X\r\n")),
        bad("a trailer with a space before the colon", "RFC 9112, 7.1.2", &behind(b"X : y\r\n")),
        bad("a trailer with NUL", "RFC 9112, 7.1.2", &behind(b"X: \0\r\n")),
        bad("a folded trailer", "RFC 9112, 7.1.2", &behind(b"X: y\r\n z\r\n")),
        bad("a status line for a trailer", "RFC 9112, 7.1.2", b"5\r\nhello\r\n0\r\n"),
        odd("LF at the end", DATA, b"5\r\nhello\r\n0\r\n\n\r\n\r\n"),
        odd("NUL in an extension", EXT, b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
        odd("an extension", EXT, b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
        odd("a space behind the size", SIZE, b"5 \r\nhello\r\n0\r\n\r\n"),
        odd("leading zeros", SIZE, b"00000000000000000005\r\nhello\r\n0\r\n\r\n"),
        odd("Transfer-Encoding", TRAILER, &behind(b"Transfer-Encoding: chunked\r\n")),
        odd("Content-Length", TRAILER, &behind(b"Content-Length: 50\r\n")),
        odd("Connection", TRAILER, &behind(b"Connection: close\r\n")),
        odd("Set-Cookie", TRAILER, &behind(b"Set-Cookie: a=b\r\n")),
        odd("Trailer", TRAILER, &behind(b"Trailer: X\r\n")),
        odd("a trailer", "RFC 9110, 6.5", &behind(b"X: y\r\n")),
        odd("120 trailers", "RFC 9110, 6.5", &behind(many(120).as_bytes())),
        odd("a trailer of 40 KB", "RFC 9110, 6.5", &behind(format!("X: {}\r\n", "y".repeat(40_000)).as_bytes())),
        closed("a chunk of nearly 64 bits", SIZE, Broken, chunked(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        closed("a chunk of 32 bits and more", SIZE, Broken, chunked(b"100000005\r\nhello\r\n0\r\n\r\n")),
    ]
}

/// Closed after every single byte.
fn cuts() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 8: incomplete";
    let length = with(b"Content-Length: 5\r\n", b"hello");
    let chunked = with(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n");
    let trailers = with(b"Transfer-Encoding: chunked\r\nTrailer: X\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n");
    let mut cases = Vec::new();
    for (kind, whole) in [("a length", length), ("chunks", chunked), ("trailers", trailers)] {
        let head = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        for end in 0..whole.len() {
            let expect = if end < head { Refused } else { Broken };
            cases.push(closed(format!("{kind}, cut after {end} bytes"), RULE, expect, &whole[..end]));
        }
        cases.push(closed(format!("{kind}, whole"), RULE, Passed(200, "hello"), whole));
    }
    let long = with(b"Content-Length: 1000000\r\n", &b"x".repeat(500_000));
    cases.push(closed("a long body, cut in its middle", RULE, Broken, long));
    cases
}

fn interim() -> Vec<Case> {
    const RULE: &str = "RFC 9110, 15.2: interim answers";
    const SWITCH: &str = "RFC 9110, 15.2.2: nobody asked to switch";
    let before = |interim: &[u8]| [interim, &with(b"Content-Length: 5\r\n", b"hello")].concat();
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    vec![
        kept("100", RULE, Passed(200, "hello"), before(b"HTTP/1.1 100 Continue\r\n\r\n")),
        kept("102", RULE, Passed(200, "hello"), before(b"HTTP/1.1 102 Processing\r\n\r\n")),
        kept("103", RULE, Passed(200, "hello"), before(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
        kept("199", RULE, Passed(200, "hello"), before(b"HTTP/1.1 199 What\r\n\r\n")),
        kept("100 twice", RULE, Passed(200, "hello"), before(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(2))),
        kept("100 with fields of a body", RULE, Safe(200, "hello"), {
            before(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n")
        }),
        kept("100 with a coding", RULE, Safe(200, "hello"), {
            before(b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        }),
        kept("100 with a body", RULE, Refused, before(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello")),
        kept("100 a thousand times", RULE, Safe(200, "hello"), before(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))),
        kept("103 of 1 MB together", RULE, Safe(200, "hello"), {
            before(format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(1000)).repeat(1000).as_bytes())
        }),
        closed("only 100", RULE, Refused, "HTTP/1.1 100 Continue\r\n\r\n"),
        closed("only 100, a thousand times", RULE, Refused, "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)),
        closed("100, then nothing whole", RULE, Refused, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2"),
        kept("100, then junk", RULE, Refused, "HTTP/1.1 100 Continue\r\n\r\njunk\r\n\r\n"),
        closed("101", SWITCH, Refused, switch),
        closed("101 without Upgrade", SWITCH, Refused, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        kept("101, kept", SWITCH, Refused, switch),
        kept("101 with an answer behind it", SWITCH, Refused, format!("{switch}{HIDDEN}")),
        kept("101 with a length", SWITCH, Refused, {
            format!("HTTP/1.1 101 Switching Protocols\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())
        }),
        kept("100, then 101", SWITCH, Refused, format!("HTTP/1.1 100 Continue\r\n\r\n{switch}")),
        Case { method: "HEAD", ..kept("101 to HEAD", SWITCH, Refused, switch) },
    ]
}

fn without_content() -> Vec<Case> {
    const NONE: &str = "RFC 9112, 6.3, item 1: no body";
    const LENGTH: &str = "RFC 9110, 8.6: no length in 204";
    let answer = |line: &str, fields: &str, body: &str| format!("HTTP/1.1 {line}\r\n{fields}\r\n{body}");
    let (five, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        kept("204", NONE, Passed(204, ""), answer("204 No Content", "", "")),
        kept("204 with a body", NONE, Safe(204, ""), answer("204 No Content", "", "hello")),
        kept("204 with a length", LENGTH, Safe(204, ""), answer("204 No Content", five, "")),
        kept("204 with a length of zero", LENGTH, Safe(204, ""), answer("204 No Content", "Content-Length: 0\r\n", "")),
        kept("204 with a length and a body", LENGTH, Safe(204, ""), answer("204 No Content", five, "hello")),
        kept(
            "204 with a coding",
            "RFC 9112, 6.1: no coding in 204",
            Safe(204, ""),
            answer("204 No Content", chunked, ""),
        ),
        kept(
            "204 with chunks",
            "RFC 9112, 6.1: no coding in 204",
            Safe(204, ""),
            answer("204 No Content", chunked, chunks),
        ),
        kept("204 with an answer behind it", NONE, Safe(204, ""), answer("204 No Content", "", HIDDEN)),
        kept("304", NONE, Passed(304, ""), answer("304 Not Modified", "", "")),
        kept(
            "304 with a length",
            "RFC 9110, 8.6: allowed in 304",
            Passed(304, ""),
            answer("304 Not Modified", five, ""),
        ),
        kept("304 with a body", NONE, Safe(304, ""), answer("304 Not Modified", "", "hello")),
        kept("304 with a length and a body", NONE, Safe(304, ""), answer("304 Not Modified", five, "hello")),
        kept("304 with a coding", NONE, Safe(304, ""), answer("304 Not Modified", chunked, "")),
        kept("304 with chunks", NONE, Safe(304, ""), answer("304 Not Modified", chunked, chunks)),
        kept("304 with an answer behind it", NONE, Safe(304, ""), answer("304 Not Modified", "", HIDDEN)),
        kept("205 with a body", "RFC 9110, 15.3.6", Harmless, answer("205 Reset Content", five, "hello")),
        to_head("HEAD, a length", NONE, Passed(200, ""), answer("200 OK", five, "")),
        to_head("HEAD, a coding", NONE, Passed(200, ""), answer("200 OK", chunked, "")),
        to_head("HEAD, nothing", NONE, Passed(200, ""), answer("200 OK", "", "")),
        to_head("HEAD, a large length", NONE, Passed(200, ""), answer("200 OK", "Content-Length: 9999999999\r\n", "")),
        to_head("HEAD, a length and a body", NONE, Safe(200, ""), answer("200 OK", five, "hello")),
        to_head("HEAD, chunks", NONE, Safe(200, ""), answer("200 OK", chunked, chunks)),
        to_head("HEAD, a body", NONE, Safe(200, ""), answer("200 OK", "", "hello")),
        to_head("HEAD, an answer for a body", NONE, Safe(200, ""), {
            answer("200 OK", &format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN)
        }),
        to_head(
            "HEAD, an invalid length",
            "RFC 9112, 6.3, item 5",
            Refused,
            answer("200 OK", "Content-Length: x\r\n", ""),
        ),
        to_head("HEAD, two lengths", "RFC 9112, 6.3, item 5", Refused, {
            answer("200 OK", "Content-Length: 5\r\nContent-Length: 6\r\n", "")
        }),
        to_head("HEAD, a length and a coding", "RFC 9112, 6.3, item 3", Safe(200, ""), {
            answer("200 OK", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "")
        }),
        to_head("HEAD, 204", NONE, Passed(204, ""), answer("204 No Content", "", "")),
        to_head("HEAD, 404 with a body", NONE, Safe(404, ""), answer("404 Not Found", five, "hello")),
    ]
}

fn extra_bytes() -> Vec<Case> {
    const RULE: &str = "RFC 9112, 9.2: an answer that nobody asked for";
    let behind = |name: &str, extra: &[u8]| {
        let bytes = [&with(b"Content-Length: 5\r\n", b"hello"), extra].concat();
        kept(name, RULE, Passed(200, "hello"), bytes)
    };
    let chunked = |name: &str, extra: &[u8]| {
        let bytes = [&with(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), extra].concat();
        kept(name, RULE, Passed(200, "hello"), bytes)
    };
    let half = &HIDDEN.as_bytes()[..40];
    vec![
        behind("an answer", HIDDEN.as_bytes()),
        behind("two answers", HIDDEN.repeat(2).as_bytes()),
        behind("half an answer", half),
        behind(
            "a head whose body would be the next answer",
            b"HTTP/1.1 200 OK\r\nX-Smuggled: yes\r\nContent-Length: 500\r\n\r\n",
        ),
        behind("a field that would swallow the next answer", b"HTTP/1.1 200 OK\r\nX-Smuggled: "),
        behind("an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n"),
        behind(
            "an interim and another answer",
            [b"HTTP/1.1 100 Continue\r\n\r\n", HIDDEN.as_bytes()].concat().as_slice(),
        ),
        behind("CRLF", b"\r\n"),
        behind("CRLF and an answer", format!("\r\n{HIDDEN}").as_bytes()),
        behind("one byte", b"x"),
        behind("NUL", b"\0"),
        behind("the rest of a longer body", b" world, and more"),
        behind(
            "408, as if it were idle",
            b"HTTP/1.1 408 Request Timeout\r\nX-Smuggled: yes\r\nContent-Length: 0\r\n\r\n",
        ),
        behind("64 KB", &b"x".repeat(65_536)),
        behind("an answer behind 9 KB", format!("{}{HIDDEN}", "x".repeat(9000)).as_bytes()),
        chunked("chunks, an answer", HIDDEN.as_bytes()),
        chunked("chunks, half an answer", half),
        chunked("chunks, another last chunk", b"0\r\n\r\n"),
        chunked("chunks, CRLF", b"\r\n"),
        chunked("chunks, one byte", b"x"),
        kept("a length of zero, an answer", RULE, Passed(200, ""), {
            with(b"Content-Length: 0\r\n", HIDDEN.as_bytes())
        }),
        kept("close, an answer", RULE, Passed(200, "hello"), {
            with(b"Connection: close\r\nContent-Length: 5\r\n", format!("hello{HIDDEN}").as_bytes())
        }),
        kept("500, an answer", RULE, Passed(500, "hello"), {
            format!("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello{HIDDEN}")
        }),
        kept("HTTP/1.0 kept alive, an answer", RULE, Passed(200, "hello"), {
            format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello{HIDDEN}")
        }),
    ]
}

fn sizes() -> Vec<Case> {
    const RULE: &str = "RFC 9110, 5.4: no more than one can process";
    let answer = |fields: String| with(format!("{fields}Content-Length: 5\r\n").as_bytes(), b"hello");
    let long = |length: usize| "x".repeat(length);
    vec![
        kept("a field of 1 MB", RULE, Refused, answer(format!("X: {}\r\n", long(1 << 20)))),
        kept("a field of 100 KB", RULE, Safe(200, "hello"), answer(format!("X: {}\r\n", long(100_000)))),
        kept("a name of 64 KB", RULE, Safe(200, "hello"), answer(format!("{}: y\r\n", long(65_536)))),
        kept("a name of 64 KB but one", RULE, Safe(200, "hello"), answer(format!("{}: y\r\n", long(65_535)))),
        kept("a reason of 1 MB", RULE, Refused, format!("HTTP/1.1 200 {}\r\n\r\n", long(1 << 20))),
        kept("a reason of 10 KB", RULE, Safe(200, "hello"), {
            format!("HTTP/1.1 200 {}\r\nContent-Length: 5\r\n\r\nhello", long(10_000))
        }),
        kept("99 fields and a length", RULE, Safe(200, "hello"), answer(many(99))),
        kept("100 fields and a length", RULE, Safe(200, "hello"), answer(many(100))),
        kept("1000 fields", RULE, Safe(200, "hello"), answer(many(1000))),
        kept("40000 fields", RULE, Refused, answer(many(40_000))),
        kept("Set-Cookie 90 times", RULE, Passed(200, "hello"), answer("Set-Cookie: a=b\r\n".repeat(90))),
        closed("fields without end", RULE, Refused, format!("HTTP/1.1 200 OK\r\n{}", many(100_000))),
        closed("one field without end", RULE, Refused, format!("HTTP/1.1 200 OK\r\nX: {}", long(2 << 20))),
    ]
}
