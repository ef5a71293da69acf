//! What a client speaks, by its first bytes: HTTP/1.1, HTTP/2 or something else.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::buffers::ReadAhead;
use crate::http2::PREFACE;
use crate::stream::Stream;

/// A client may take its time before it says anything: some connect before they have to.
const FIRST_BYTES: Duration = Duration::from_secs(3600);
/// But not once it has begun: what speaks HTTP says so at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A request line that is longer than this is none.
const LINE_MAX: usize = 8 << 10;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// HTTP/1.1 or HTTP/2: told apart by what TLS agreed on (RFC 7301), else by the first bytes (RFC 9113, section 3.3).
/// `None` if the client ended without a word. What was read is in `read`.
pub async fn version(stream: &mut Stream, read: &mut ReadAhead) -> io::Result<Option<Spoken>> {
    if stream.alpn() == Some(b"h2") {
        return Ok(Some(Spoken::Http2));
    }
    if read.bytes.is_empty() {
        let comes = poll_fn(|context| stream.poll_readable(context));
        tokio::time::timeout(FIRST_BYTES, comes).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
    let is_told = |bytes: &[u8]| bytes.len() >= PREFACE.len() || !PREFACE.starts_with(bytes);
    read.fill_until(stream, is_told, PREFACE.len(), HEAD_TIMEOUT).await?;
    Ok(match () {
        () if read.bytes.starts_with(PREFACE) => Some(Spoken::Http2),
        () if read.bytes.is_empty() => None,
        () => Some(Spoken::Http1),
    })
}

/// Whether a client speaks HTTP at all: by what TLS agreed on, else by its first line, for which it has `at_most` this
/// long. It is short, because in other protocols the server may speak first, and such a client waits for that.
pub async fn is_http(stream: &mut Stream, read: &mut ReadAhead, at_most: Duration) -> io::Result<bool> {
    if let Some(b"h2" | b"http/1.1") = stream.alpn() {
        return Ok(true);
    }
    read.fill_until(stream, |bytes| looks_like_http(bytes).is_some(), LINE_MAX, at_most).await?;
    Ok(looks_like_http(&read.bytes) == Some(true))
}

/// Whether these are the first bytes of HTTP; `None` while more are needed to tell. A method alone is not enough:
/// other protocols start with words too.
fn looks_like_http(bytes: &[u8]) -> Option<bool> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    if !line.iter().all(|byte| (0x20..0x7f).contains(byte) || matches!(byte, b'\r' | b'\t')) {
        return Some(false);
    }
    let is_whole = line.len() < bytes.len();
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let method = words.next()?;
    let is_token = method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'));
    if !is_token || (method.is_empty() && !bytes.is_empty()) {
        return Some(false);
    }
    is_whole.then(|| words.next_back().is_some_and(|version| version.starts_with(b"HTTP/")))
}

/// Whether the first line is another protocol's: it says another version than one of HTTP, or none and is no text.
pub(crate) fn is_anothers(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.trim_ascii_end().split(|byte| *byte == b' ').skip(2).last() {
        Some(version) => !version.starts_with(b"HTTP/"),
        None => !line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f || matches!(byte, b'\r' | b'\t')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_tells_http_from_other_protocols() {
        for http in ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "M-SEARCH * HTTP/1.1\n"] {
            assert_eq!(looks_like_http(http.as_bytes()), Some(true), "{http}");
        }
        let others: [&[u8]; 6] = [
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"AMQP\x00\x00\x09\x01",
            b"GET key\r\n",
            b"\x16\x03\x01\x02\x00",
        ];
        for other in others {
            assert_eq!(looks_like_http(other), Some(false), "{other:?}");
        }
        for unclear in ["", "G", "GET /users/1 HT"] {
            assert_eq!(looks_like_http(unclear.as_bytes()), None, "{unclear}");
        }
    }

    #[test]
    fn a_client_of_another_protocol_is_told_from_one_that_errs() {
        let others: [&[u8]; 4] =
            [b"INVALID CONNECTION PREFACE\r\n\r\n", b"OPTIONS * RTSP/1.0\r\n", b"\x16\x03\x01\x02", b"GET / \x01\r\n"];
        let errs: [&[u8]; 7] = [
            b"GET /\x00 HTTP/1.1\r\n",
            b"nothing\r\n\r\n",
            b"DELETE items\r\n",
            b"GET / HTTP/9.9\r\n",
            b"GET  /  HTTP/1.1\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\n",
            b"",
        ];
        assert_eq!(others.map(is_anothers), [true; 4]);
        assert_eq!(errs.map(is_anothers), [false; 7]);
    }
}
