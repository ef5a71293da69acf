//! How long a message's body is, by its head (RFC 9112, section 6.3; RFC 9113, section 8.1.1): what its fields say, once
//! they say one thing, and what its status and its request make of that. All of it is pure.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, Version};

use crate::digits::length;
use crate::fields::{Fields, is_chunked_at_most};

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes, perhaps none.
    Exactly(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
    /// Until the connection ends, or over HTTP/2 the stream; answers only.
    UntilClose,
}

/// What was asked, as far as it matters to how long the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HEAD: its answer has no content.
    Head,
    /// CONNECT: after a 2xx there is a tunnel. Over HTTP/2 it has a protocol (RFC 8441).
    Connect,
    /// Any other request.
    Other,
}

/// What an HTTP/1 request's fields say: one length, or chunked, never both.
pub(crate) fn of_request(headers: &HeaderMap, fields: Fields, version: Version) -> Result<Length, &'static str> {
    if fields.has(Fields::TRANSFER_ENCODING) {
        if version == Version::HTTP_10 {
            return Err("HTTP/1.0 has no transfer codings");
        }
        if fields.has(Fields::CONTENT_LENGTH) {
            return Err("the request has both Content-Length and Transfer-Encoding");
        }
        return if is_chunked_at_most(headers) {
            Ok(Length::Chunked)
        } else {
            Err("no transfer coding but chunked is understood")
        };
    }
    if !fields.has(Fields::CONTENT_LENGTH) {
        return Ok(Length::Exactly(0));
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(first) = lengths.next() else { return Ok(Length::Exactly(0)) };
    if lengths.next().is_some() {
        return Err("the request has more than one Content-Length");
    }
    length(first.as_bytes()).map(Length::Exactly).ok_or("the request's Content-Length is not a length")
}

/// What an answer's fields say, which say one thing after it: a length beside a coding is taken off, the same length again
/// too.
pub(crate) fn told(headers: &mut HeaderMap, fields: Fields, version: Version) -> Result<Length, &'static str> {
    if fields.has(Fields::TRANSFER_ENCODING) {
        if version == Version::HTTP_10 {
            return Err("a transfer coding in HTTP/1.0");
        }
        headers.remove(CONTENT_LENGTH);
        return if is_chunked_at_most(headers) {
            Ok(Length::Chunked)
        } else {
            Err("a transfer coding that nobody asked for")
        };
    }
    if !fields.has(Fields::CONTENT_LENGTH) {
        return Ok(Length::UntilClose);
    }
    let mut lengths =
        headers.get_all(CONTENT_LENGTH).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let length = lengths.next().and_then(length).ok_or("an invalid Content-Length")?;
    let mut is_single = true;
    for other in lengths {
        is_single = false;
        if self::length(other) != Some(length) {
            return Err("two lengths");
        }
    }
    if !is_single {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(Length::Exactly(length))
}

/// What an answer with this status has, whatever its version, whose fields say that it has `told` (RFC 9112, section 6.3).
pub(crate) fn of_answer(asked: Kind, status: StatusCode, told: Length) -> Length {
    let has_none = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match asked {
        Kind::Head => Length::Exactly(0),                              // item 1
        Kind::Connect | Kind::Other if has_none => Length::Exactly(0), // item 1
        Kind::Connect if status.is_success() => Length::UntilClose,    // item 2, and RFC 9110, section 9.3.6
        Kind::Connect | Kind::Other => told,                           // items 4, 6 and 8
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        headers
    }

    const CHUNKED: &str = "transfer-encoding: chunked";
    const NONE: Length = Length::Exactly(0);

    /// What a head's fields are, and what they say.
    type Row<'a, Of> = (&'a str, Of, &'a [&'a str], Result<Length, &'a str>);

    /// RFC 9112, section 6.3, by its items.
    #[test]
    fn an_answer_is_as_long_as_its_request_its_status_and_its_fields_say() {
        use Kind::{Connect, Head, Other};
        let five: &[&str] = &["content-length: 5"];
        let rows: &[Row<'_, (Kind, u16)>] = &[
            ("1: HEAD", (Head, 200), five, Ok(NONE)),
            ("1: HEAD, chunked", (Head, 200), &[CHUNKED], Ok(NONE)),
            ("1: HEAD, nothing said", (Head, 404), &[], Ok(NONE)),
            ("1: 1xx", (Other, 101), &[], Ok(NONE)),
            ("1: 204", (Other, 204), five, Ok(NONE)),
            ("1: 304", (Other, 304), five, Ok(NONE)),
            ("1: 304, chunked", (Other, 304), &[CHUNKED], Ok(NONE)),
            ("1: CONNECT, 204", (Connect, 204), &[], Ok(NONE)),
            ("2: CONNECT", (Connect, 200), five, Ok(Length::UntilClose)),
            ("2: CONNECT, chunked", (Connect, 200), &[CHUNKED], Ok(Length::UntilClose)),
            ("2: CONNECT that is refused", (Connect, 403), five, Ok(Length::Exactly(5))),
            ("3: a length beside a coding", (Other, 200), &["content-length: 2", CHUNKED], Ok(Length::Chunked)),
            ("3: a bad length beside a coding", (Other, 200), &["content-length: x", CHUNKED], Ok(Length::Chunked)),
            ("4: chunked", (Other, 200), &["transfer-encoding: Chunked"], Ok(Length::Chunked)),
            (
                "4: another coding",
                (Other, 200),
                &["transfer-encoding: gzip, chunked"],
                Err("a transfer coding that nobody asked for"),
            ),
            ("4: chunked twice", (Other, 200), &[CHUNKED, CHUNKED], Err("a transfer coding that nobody asked for")),
            ("5: two that differ", (Other, 200), &["content-length: 5", "content-length: 6"], Err("two lengths")),
            ("5: a list that differs", (Other, 200), &["content-length: 5, 6"], Err("two lengths")),
            ("5: a sign", (Other, 200), &["content-length: +5"], Err("an invalid Content-Length")),
            ("5: nothing", (Other, 200), &["content-length: "], Err("an invalid Content-Length")),
            (
                "5: the same again",
                (Other, 200),
                &["content-length: 5, 5", "content-length: 05"],
                Ok(Length::Exactly(5)),
            ),
            ("6: a length", (Other, 200), five, Ok(Length::Exactly(5))),
            ("6: none", (Other, 200), &["content-length: 0"], Ok(NONE)),
            ("8: nothing said", (Other, 200), &[], Ok(Length::UntilClose)),
        ];
        for (name, (asked, status), lines, expected) in rows {
            let mut map = headers(lines);
            let fields = Fields::of::<()>(&map);
            let said = told(&mut map, fields, Version::HTTP_11);
            let got = said.map(|said| of_answer(*asked, StatusCode::from_u16(*status).unwrap(), said));
            assert_eq!(got, *expected, "{name}");
            if let Ok(Length::Exactly(5)) = said {
                assert_eq!(map.get_all(CONTENT_LENGTH).iter().collect::<Vec<_>>(), ["5"], "{name}");
            }
        }
        let mut old = headers(&[CHUNKED]);
        let fields = Fields::of::<()>(&old);
        assert_eq!(
            told(&mut old, fields, Version::HTTP_10),
            Err("a transfer coding in HTTP/1.0"),
            "RFC 9112, section 6.1"
        );
    }

    /// RFC 9112, section 6.3, by its items.
    #[test]
    fn a_request_has_one_length_or_chunks() {
        let coded = "no transfer coding but chunked is understood";
        let rows: &[Row<'_, ()>] = &[
            (
                "3: both",
                (),
                &["content-length: 2", CHUNKED],
                Err("the request has both Content-Length and Transfer-Encoding"),
            ),
            ("4: chunked", (), &["transfer-encoding: CHUNKED"], Ok(Length::Chunked)),
            ("4: not final", (), &["transfer-encoding: chunked, gzip"], Err(coded)),
            ("4: another", (), &["transfer-encoding: gzip"], Err(coded)),
            ("4: chunked twice", (), &[CHUNKED, CHUNKED], Err(coded)),
            (
                "5: two",
                (),
                &["content-length: 5", "content-length: 5"],
                Err("the request has more than one Content-Length"),
            ),
            ("5: a list", (), &["content-length: 5, 5"], Err("the request's Content-Length is not a length")),
            ("5: a word", (), &["content-length: five"], Err("the request's Content-Length is not a length")),
            ("6: a length", (), &["content-length: 5"], Ok(Length::Exactly(5))),
            ("7: nothing said", (), &[], Ok(NONE)),
        ];
        for (name, (), lines, expected) in rows {
            let map = headers(lines);
            assert_eq!(of_request(&map, Fields::of::<()>(&map), Version::HTTP_11), *expected, "{name}");
        }
        let old = headers(&[CHUNKED]);
        let got = of_request(&old, Fields::of::<()>(&old), Version::HTTP_10);
        assert_eq!(got, Err("HTTP/1.0 has no transfer codings"), "RFC 9112, section 6.1");
    }
}
