//! The laws that fuzzing tries to break: each function takes any bytes, and panics when one does not hold. `fuzz/` runs
//! them on new inputs, and the tests here on those that are kept in `fuzz/corpus`. What needs the inside of a module is
//! in a `laws` below it.

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};

pub use crate::http1::head::{Length, RequestHead};
pub use crate::http2::laws::{hpack, http2_client, http2_server, request_of_block};
pub use crate::proxied::law as proxied;

use crate::error::{BodyError, Refused};
use crate::fields::{Fields, HTTP2_SETTINGS, KEEP_ALIVE, Marks, PROXY_CONNECTION, strip_hop_by_hop, strip_trailers};
use crate::http1::body::Decoder;
use crate::http1::head;
use crate::http1::{Framing, Outgoing};
use crate::prelude::Prelude;
use crate::spelling::Spelling;

/// What nobody but the next hop may see.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
];

/// A head with more may have more than 100 after we have added ours, which is refused.
pub const FIELDS: usize = 70;

/// A body and what is after it, as far as it came.
#[derive(Debug, PartialEq)]
struct Read {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    rest: Vec<u8>,
    is_whole: bool,
}

/// A body is the same wherever it is split; a chunked one is what a naive reading of RFC 9112, section 7.1, says; by
/// length it has that length. The first byte chooses the framing, the second where it is split.
pub fn chunked(bytes: &[u8]) {
    let [kind, seed, bytes @ ..] = bytes else { return };
    let length = match kind % 8 {
        0 => Length::UntilClose,
        1 => Length::Exactly(u64::from(*seed)),
        _ => Length::Chunked,
    };
    let whole = body(length, bytes, bytes.len());
    for step in [1, 2, 3, 1 + usize::from(*seed)] {
        let split = body(length, bytes, step);
        assert_eq!(whole.is_ok(), split.is_ok(), "in steps of {step}: {whole:?}, {split:?}");
        if let (Ok(whole), Ok(split)) = (&whole, &split) {
            assert_eq!(whole, split, "in steps of {step}");
        }
    }
    let Ok(read) = whole else { return };
    match length {
        Length::UntilClose => assert_eq!((&read.data[..], &read.rest[..]), (bytes, &b""[..])),
        Length::Exactly(length) => {
            let at = bytes.len().min(length as usize);
            assert_eq!((&read.data[..], &read.rest[..]), bytes.split_at(at));
        }
        Length::Chunked if read.is_whole => {
            let (data, rest) = naive(bytes).expect("nobody else would call this chunked");
            assert_eq!((&read.data, &read.rest[..]), (&data, rest));
            read.trailers.iter().for_each(assert_plain);
            let mut trailers = read.trailers.unwrap_or_default();
            strip_trailers(&mut trailers);
            assert!(HOP_BY_HOP.iter().all(|name| !trailers.contains_key(name)));
            rewritten(&read.data, &trailers);
        }
        Length::Chunked => (),
    }
}

/// Decodes what comes in pieces of this size.
fn body(length: Length, bytes: &[u8], step: usize) -> Result<Read, BodyError> {
    let (mut decoder, mut buffer) = (Decoder::new(length), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), None);
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut buffer)? {
            match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
    }
    let is_whole = decoder.end().is_ok();
    // What a body that is not whole leaves in the buffer depends on the pieces.
    let rest = if is_whole { buffer.to_vec() } else { Vec::new() };
    Ok(Read { data, trailers, rest, is_whole })
}

/// The data of a chunked body and what follows it, read line by line.
fn naive(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &bytes[..end];
        *bytes = &bytes[end + 2..];
        Some(line)
    }
    let mut data = Vec::new();
    loop {
        let size = std::str::from_utf8(line(&mut bytes)?.split(|byte| *byte == b';').next()?).ok()?;
        let size = usize::from_str_radix(size.trim_end_matches([' ', '\t']), 16).ok()?;
        if size == 0 {
            while !line(&mut bytes)?.is_empty() {}
            return Some((data, bytes));
        }
        data.extend_from_slice(bytes.get(..size)?);
        bytes = &bytes[size..];
        if !line(&mut bytes)?.is_empty() {
            return None;
        }
    }
}

/// What was read can be written in chunks, and is read as the same.
fn rewritten(data: &[u8], trailers: &HeaderMap) {
    let (mut out, mut framing) = (Outgoing::default(), Framing::Chunked);
    if !data.is_empty() {
        out.data(&mut framing, data.to_vec().into()).expect("chunks have any length");
    }
    out.end(framing, Some(trailers)).expect("chunks have any length");
    let again = body(Length::Chunked, out.gathered(), usize::MAX).expect("what is written is valid");
    let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
    assert_eq!((&again.data[..], again.trailers.as_ref(), &again.rest[..]), (data, trailers, &b""[..]));
}

/// An answer as it was understood.
#[derive(Debug, PartialEq)]
struct Answer {
    interim: Vec<StatusCode>,
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    length: Length,
    keeps_alive: bool,
    body: Result<Read, ()>,
}

/// An answer frames the same wherever it is split, in one way only; what goes on is one answer, without the fields of
/// its connection. The first byte says whether it is to a HEAD.
pub fn response(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let is_head = choice & 1 == 1;
    let whole = answer(is_head, bytes, bytes.len());
    for step in [1, 2, 1 + usize::from(*choice)] {
        assert_eq!(whole, answer(is_head, bytes, step), "in steps of {step}");
    }
    let Ok(Some(mut answer)) = whole else { return };
    assert_plain(&answer.headers);
    let lengths: Vec<_> = answer.headers.get_all(CONTENT_LENGTH).into_iter().collect();
    assert!(lengths.len() <= 1 && (lengths.is_empty() || !answer.headers.contains_key(TRANSFER_ENCODING)));
    assert!(answer.status == 101 || !answer.status.is_informational(), "an interim answer is none");
    match answer.length {
        Length::Chunked => {
            assert!(answer.headers.contains_key(TRANSFER_ENCODING) && answer.version == Version::HTTP_11);
        }
        Length::Exactly(0) => (),
        Length::Exactly(length) => {
            assert_eq!(lengths[0].to_str().ok().and_then(|text| text.parse().ok()), Some(length));
        }
        Length::UntilClose => assert!(lengths.is_empty()),
    }

    if answer.headers.len() > FIELDS {
        return;
    }
    let fields = Fields::of::<()>(&answer.headers);
    strip_hop_by_hop(&mut answer.headers, fields, false);
    assert!(HOP_BY_HOP.iter().all(|name| !answer.headers.contains_key(name)));
    let mut out = Outgoing::default();
    out.status_line(answer.status, &Spelling::default());
    out.fields(&answer.headers, &Spelling::default());
    out.end_head(Framing::Length(0));
    let mut written = BytesMut::from(out.gathered());
    let again = head::response::<()>(&mut written, false, &mut Prelude::default(), |_, _, _| ());
    let again = again.expect("what is written is valid").filter(|_| written.is_empty()).map(|head| head.response);
    let mut headers = again.expect("what is written is one answer").into_parts().0.headers;
    headers.remove(CONTENT_LENGTH);
    answer.headers.remove(CONTENT_LENGTH);
    assert_eq!(headers, answer.headers);
}

/// Reads an answer that comes in pieces of this size. `None` while its head is not whole.
fn answer(is_head: bool, bytes: &[u8], step: usize) -> Result<Option<Answer>, &'static str> {
    let mut buffer = BytesMut::new();
    let (mut interim, mut prelude) = (Vec::new(), Prelude::default());
    let mut pieces = bytes.chunks(step.max(1));
    let head = loop {
        if !buffer.is_empty()
            && let Some(head) = head::response::<()>(&mut buffer, is_head, &mut prelude, |status, headers, _| {
                assert_plain(headers);
                interim.push(status);
            })?
        {
            break head;
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None => return Ok(None),
        }
    };
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    let body = body(head.length, &buffer, step).map_err(|_| ());
    let (parts, ()) = head.response.into_parts();
    let (status, version, headers) = (parts.status, parts.version, parts.headers);
    Ok(Some(Answer { interim, status, version, headers, length: head.length, keeps_alive: head.keeps_alive, body }))
}

/// No field can be taken for two.
pub fn assert_plain(headers: &HeaderMap) {
    for (name, value) in headers {
        assert!(
            !name.as_str().is_empty() && name.as_str().bytes().all(|byte| byte > b' ' && byte != b':' && byte < 0x7f)
        );
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}: {value:?}");
    }
}

/// A request that was read in any pieces is the same request.
pub fn request_of<M: Marks>(bytes: &[u8], step: usize) -> Result<Option<(RequestHead, Vec<u8>)>, Refused> {
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        if let Some(head) = head::request::<M>(&mut buffer)? {
            return Ok(Some((head, buffer.to_vec())));
        }
    }
    Ok(None)
}

/// A request's head frames in one way: with a length or chunked, never both, and named at most one host.
pub fn assert_framed(head: &RequestHead) {
    let headers = head.request.headers();
    assert_plain(headers);
    let count = |name: HeaderName| headers.get_all(name).iter().count();
    let (lengths, codings) = (count(CONTENT_LENGTH), count(TRANSFER_ENCODING));
    match head.length {
        Length::Chunked => assert_eq!((lengths, codings), (0, 1)),
        Length::Exactly(0) => assert!(lengths <= 1 && codings == 0),
        Length::Exactly(_) => assert_eq!((lengths, codings), (1, 0)),
        Length::UntilClose => panic!("a request has an end"),
    }
    assert!(head.request.method() != Method::CONNECT || count(HOST) <= 1 || head.request.uri().authority().is_some());
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn every_kept_input_keeps_the_laws() {
        replay("chunked", chunked);
        replay("proxied", proxied);
        replay("response", response);
        replay("hpack", hpack);
        replay("http2_client", http2_client);
        replay("http2_server", http2_server);
    }
}
