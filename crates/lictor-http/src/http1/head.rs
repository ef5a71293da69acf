//! Heads of requests and answers: parsed, and what they say about the body after them.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::str;

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use memchr::memchr;

use crate::buffers;
use crate::error::Refused;
use crate::fields::{FIELDS_MAX, Fields, Marks, clean, expects_continue, takes_trailers};
use crate::framing::{self, Kind};
use crate::known;
use crate::prelude::Prelude;
use crate::spelling::{Range, Spelling};
use crate::target;

pub use crate::framing::Length;

/// A longer head is refused.
const HEAD_MAX: usize = 128 << 10;

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and fields. A `Connection` that says nothing but `close` or `keep-alive` is not among them,
    /// and neither is what one names ([`clean`]).
    pub request: Request<()>,
    /// Which fields that somebody looks for it has.
    pub fields: Fields,
    /// How it was written.
    pub spelling: Spelling,
    /// What follows it.
    pub length: Length,
    /// Another request may follow on the connection (RFC 9112, section 9.3).
    pub keeps_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// The client takes trailers (`TE: trailers`; RFC 9110, section 10.1.4).
    pub takes_trailers: bool,
}

/// An answer's head, not of an interim one.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and fields.
    pub response: Response<()>,
    /// Which fields that somebody looks for it has.
    pub fields: Fields,
    /// How it was written, and its reason phrase.
    pub spelling: Spelling,
    /// What follows it.
    pub length: Length,
    /// Another request may follow on the connection (RFC 9112, section 9.3).
    pub keeps_alive: bool,
}

/// A head longer than this is parsed again when a line of it has ended, not for each byte that comes.
const LONG: usize = 4 << 10;

/// Whether a head may be whole that was not when there were `seen` bytes of it. Who sends a long one byte by byte would have
/// all of it parsed for each.
pub fn may_be_whole(buffer: &[u8], seen: usize) -> bool {
    let is_short = buffer.len() <= LONG || seen == 0;
    !buffer.is_empty()
        && (is_short || buffer.len() >= HEAD_MAX || memchr(b'\n', &buffer[seen.min(buffer.len())..]).is_some())
}

/// Takes a request's head from the buffer; `None` while it is not whole. It may have 100 fields and 128 KiB, and its target
/// 64 KiB; what has more, or could be understood in two ways, is refused.
pub fn request<M: Marks>(buffer: &mut BytesMut) -> Result<Option<RequestHead>, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, buffer, &mut fields);
    let (Some(length), Some(method), Some(target), Some(version)) =
        (whole(status, buffer)?, parsed.method, parsed.path, parsed.version)
    else {
        return Ok(None);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::bad("the method is not a token"))?;
    let target = Range::of(target.as_bytes(), buffer);
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let ranges = Ranges::of(parsed.headers, buffer);
    let head = buffer.split_to(length).freeze();
    let (mut headers, spelling, says) = fields_of::<M>(&head, ranges)?;
    let target = target.slice(&head);
    let is_long = target.len() > usize::from(u16::MAX) - 2;
    let (uri, raw) = target::parse(&method, target).map_err(|_| {
        if is_long {
            Refused { status: StatusCode::URI_TOO_LONG, why: "the request's target is longer than 64 KiB" }
        } else {
            Refused::bad("the request's target is not a URI")
        }
    })?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Refused::bad("the request's target names a user")); // RFC 9110, section 4.2.4: nobody may see it
    }
    let fields = says.fields;
    let length = framing::of_request(&headers, fields, version).map_err(Refused::bad)?;
    let is_http11 = version == Version::HTTP_11;
    if !is_http11 && fields.has(Fields::UPGRADE) {
        headers.remove(UPGRADE); // HTTP/1.0 has no 101 (RFC 9110, section 7.8)
    }
    let keeps_alive = says.keeps_alive(is_http11);
    let expects_continue = is_http11 && fields.has(Fields::EXPECT) && expects_continue(&headers);
    let takes_trailers = fields.has(Fields::TE) && takes_trailers(&headers);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    if let Some(raw) = raw {
        request.extensions_mut().insert(raw);
    }
    Ok(Some(RequestHead { request, fields, spelling, length, keeps_alive, expects_continue, takes_trailers }))
}

/// Takes the head of a final answer to a request from the buffer; `None` while it is not whole. Interim ones before it
/// (1xx) are told as far as the prelude goes. 101 is final.
pub fn response<M: Marks>(
    buffer: &mut BytesMut,
    is_head: bool,
    prelude: &mut Prelude,
    mut interim: impl FnMut(StatusCode, &HeaderMap, &Spelling),
) -> Result<Option<ResponseHead>, &'static str> {
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields);
        let (Some(length), Some(code), Some(version)) =
            (whole(status, buffer).map_err(|refused| refused.why)?, parsed.code, parsed.version)
        else {
            return Ok(None);
        };
        let status = StatusCode::from_u16(code).map_err(|_| "the status is not one")?;
        let reason = parsed.reason.unwrap_or_default();
        let is_usual = status.canonical_reason() == Some(reason);
        let reason =
            if is_usual || reason.is_empty() { Range::default() } else { Range::of(reason.as_bytes(), buffer) };
        let ranges = Ranges::of(parsed.headers, buffer);
        let head = buffer.split_to(length).freeze();
        let (mut headers, spelling, says) = fields_of::<M>(&head, ranges).map_err(|refused| refused.why)?;
        let spelling = spelling.with_reason(reason);
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            prelude.hear(length)?;
            interim(status, &headers, &spelling);
            continue;
        }
        let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let keeps_alive = says.keeps_alive(version == Version::HTTP_11);
        let told = framing::told(&mut headers, says.fields, version)?;
        let length = framing::of_answer(if is_head { Kind::Head } else { Kind::Other }, status, told);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = version;
        *response.headers_mut() = headers;
        return Ok(Some(ResponseHead { response, fields: says.fields, spelling, length, keeps_alive }));
    }
}

/// The fields after a chunked body, up to their empty line; `None` while they are not whole.
pub fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    match buffer[..] {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => {
            let _ = buffer.split_to(2);
            return Ok(Some(HeaderMap::new()));
        }
        _ => (),
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(Status::Complete((length, _))) if !buffer[..length].ends_with(b"\r\n\r\n") => {
            Err("the trailers do not end with an empty line")
        }
        Ok(Status::Complete((length, parsed))) => {
            let ranges = Ranges::of(parsed, buffer);
            let head = buffer.split_to(length).freeze();
            fields_of::<()>(&head, ranges).map(|(headers, ..)| Some(headers)).map_err(|refused| refused.why)
        }
        Ok(Status::Partial) if buffer.len() > HEAD_MAX / 4 => Err("the trailers are too long"),
        Ok(Status::Partial) => Ok(None),
        Err(error) => Err(refused(error).why),
    }
}

/// The head's length, once it is whole.
fn whole(status: httparse::Result<usize>, buffer: &[u8]) -> Result<Option<usize>, Refused> {
    match status {
        Ok(Status::Complete(length)) if length <= HEAD_MAX => Ok(Some(length)),
        Ok(Status::Partial) if buffer.len() < HEAD_MAX => Ok(None),
        Ok(_) if !buffer.contains(&b'\n') => {
            Err(Refused { status: StatusCode::URI_TOO_LONG, why: "the first line is longer than 128 KiB" })
        }
        Ok(_) => {
            Err(Refused { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head is longer than 128 KiB" })
        }
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: httparse::Error) -> Refused {
    match error {
        httparse::Error::HeaderName => Refused::bad("a field's name is not a token, or there is space around it"),
        httparse::Error::HeaderValue => Refused::bad("a field's value has a control character"),
        httparse::Error::NewLine => Refused::bad("a line does not end as lines do"),
        httparse::Error::Status => Refused::bad("the status line is not one"),
        httparse::Error::Token => Refused::bad("the first line has a character that may not be there"),
        httparse::Error::TooManyHeaders => {
            Refused { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "there are more than 100 fields" }
        }
        httparse::Error::Version => Refused {
            status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            why: "the version is neither HTTP/1.0 nor HTTP/1.1",
        },
    }
}

/// Where each field's name and value are: a list that the thread uses again and again.
#[derive(Debug, Default)]
struct Ranges(Vec<(Range, Range)>);

thread_local! {
    static RANGES: RefCell<Ranges> = const { RefCell::new(Ranges(Vec::new())) };
}

impl Ranges {
    fn of(fields: &[Header<'_>], buffer: &[u8]) -> Self {
        let mut ranges = RANGES.take().0;
        ranges.clear();
        ranges.extend(
            fields.iter().map(|field| (Range::of(field.name.as_bytes(), buffer), Range::of(field.value, buffer))),
        );
        Self(ranges)
    }

    fn give_back(self) {
        RANGES.set(self);
    }
}

/// What the fields of a head say, that is needed at once.
#[derive(Clone, Copy, Debug, Default)]
struct Says {
    fields: Fields,
    closes: bool,
    keeps: bool,
}

impl Says {
    /// Whether another message may follow (RFC 9112, section 9.3).
    fn keeps_alive(self, is_http11: bool) -> bool {
        if is_http11 { !self.closes } else { self.keeps }
    }

    /// Notes what a `Connection` says. True when that was all: nobody else needs to know.
    fn connection(&mut self, value: &[u8]) -> bool {
        let mut is_all = true;
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match token {
                token if token.eq_ignore_ascii_case(b"keep-alive") => self.keeps = true,
                token if token.eq_ignore_ascii_case(b"close") => self.closes = true,
                _ => is_all = false,
            }
        }
        is_all
    }
}

fn fields_of<M: Marks>(head: &Bytes, ranges: Ranges) -> Result<(HeaderMap, Spelling, Says), Refused> {
    let mut says = Says::default();
    let mut headers = buffers::take_fields();
    let spelling = Spelling::of_head(head.clone());
    for (name, value) in &ranges.0 {
        let (name, bits) =
            known::name::<M>(name.get(head)).map_err(|_| Refused::bad("a field's name is not a token"))?;
        let value = HeaderValue::from_maybe_shared(value.slice(head))
            .map_err(|_| Refused::bad("a field's value has a control character"))?;
        if bits == Fields::CONNECTION && says.connection(value.as_bytes()) {
            continue;
        }
        says.fields.note(bits, &value);
        headers.append(name, value);
    }
    ranges.give_back();
    says.fields = clean::<M>(&mut headers, says.fields);
    Ok((headers, spelling, says))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn parsed(text: &str) -> Result<Option<RequestHead>, Refused> {
        request::<()>(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_taken_and_what_follows_stays() {
        let mut buffer =
            BytesMut::from("POST /a HTTP/1.1\r\nHost: x\r\nX-CamelCase: y\r\nContent-Length: 3\r\n\r\nabcGET");
        let head = request::<()>(&mut buffer).unwrap().unwrap();
        assert_eq!((&buffer[..], head.length, head.keeps_alive), (&b"abcGET"[..], Length::Exactly(3), true));
        assert_eq!(head.spelling.of(&HeaderName::from_static("x-camelcase")), b"X-CamelCase");
        assert_eq!(head.spelling.of(&HeaderName::from_static("via")), b"via");
        assert!(parsed("GET / HTTP/1.1\r\nHost:").unwrap().is_none());
    }

    #[test]
    fn a_line_is_what_its_field_was_written_as() {
        let head = parsed("GET / HTTP/1.1\r\nX-One: 1\r\nx-two:2\r\nX-Three: 3 \r\nX-ONE: 1\r\nEmpty: \r\n\r\n");
        let RequestHead { request, spelling, .. } = head.unwrap().unwrap();
        let lines: Vec<_> = request.headers().iter().map(|(name, value)| spelling.line(name, value)).collect();
        assert_eq!(lines, [Some(&b"X-One: 1\r\n"[..]), Some(b"X-ONE: 1\r\n"), None, None, Some(b"Empty: \r\n")]);
        let (name, elsewhere) = (HeaderName::from_static("x-one"), HeaderValue::from_static("1"));
        assert_eq!(spelling.line(&name, &elsewhere), None, "it is not what came");
        let other = HeaderName::from_static("x-six");
        assert_eq!(spelling.line(&other, &request.headers()["x-one"]), None);
        assert_eq!(Spelling::default().line(&name, &elsewhere), None);
    }

    #[test]
    fn a_target_that_names_a_user_is_refused() {
        for line in ["GET http://a:b@users/ HTTP/1.1", "GET http://a@users HTTP/1.1", "CONNECT a:b@users:80 HTTP/1.1"] {
            let mut buffer = BytesMut::from(format!("{line}\r\nHost: users\r\n\r\n").as_str());
            assert_eq!(request::<()>(&mut buffer).unwrap_err().status, StatusCode::BAD_REQUEST, "{line}");
        }
        for line in ["GET http://users/@me HTTP/1.1", "GET /a@b HTTP/1.1", "GET http://users?a@b HTTP/1.1"] {
            let mut buffer = BytesMut::from(format!("{line}\r\nHost: users\r\n\r\n").as_str());
            assert!(request::<()>(&mut buffer).unwrap().is_some(), "{line}");
        }
    }

    #[test]
    fn every_split_of_a_head_is_the_same_head() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
        for end in 0..text.len() {
            assert!(parsed(&text[..end]).unwrap().is_none(), "{end}");
        }
        let head = parsed(text).unwrap().unwrap();
        assert!(!head.keeps_alive && head.takes_trailers);
    }

    #[test]
    fn a_long_head_is_not_parsed_again_for_each_byte() {
        let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(3 * LONG));
        let parses = (1..=head.len()).filter(|end| may_be_whole(&head.as_bytes()[..*end], end - 1)).count();
        assert_eq!(parses, LONG + 3);
        for (seen, length) in [(0, 3 * LONG), (HEAD_MAX - 1, HEAD_MAX)] {
            assert!(may_be_whole(&vec![b'a'; length], seen), "what came at once, and what is too long");
        }
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let mut buffer = BytesMut::from(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok",
        );
        let mut told = Vec::new();
        let mut prelude = Prelude::default();
        let tell = |status, headers: &HeaderMap, _: &Spelling| told.push((status, headers.clone()));
        let head = response::<()>(&mut buffer, false, &mut prelude, tell).unwrap().unwrap();
        assert_eq!((told[0].0.as_u16(), &told[0].1["link"]), (103, &HeaderValue::from_static("</a>")));
        assert_eq!((head.response.status(), head.length), (StatusCode::OK, Length::Exactly(2)));
        assert_eq!((head.spelling.reason(), &buffer[..]), (Some(&b"Fine"[..]), &b"ok"[..]));
    }

    #[test]
    fn interim_answers_without_end_are_refused_in_any_pieces() {
        for (what, most) in
            [("100", 481), ("102", 481), ("103", 481), ("103 Early Hints\r\nLink: </a>; rel=preload", 428)]
        {
            let one = format!("HTTP/1.1 {what}\r\n\r\n");
            for step in [1, 64, 64 << 10] {
                let (mut buffer, mut prelude) = (BytesMut::new(), Prelude::default());
                let all = one.repeat(2 * most).into_bytes();
                let refused = all.chunks(step).position(|piece| {
                    buffer.extend_from_slice(piece);
                    response::<()>(&mut buffer, false, &mut prelude, |_, _, _| ()).is_err()
                });
                let read = (refused.unwrap() + 1) * step / one.len();
                assert!(step > 64 || (most - 4..most + 4).contains(&read), "{what} in steps of {step}: {read}");
            }
        }
    }
}
