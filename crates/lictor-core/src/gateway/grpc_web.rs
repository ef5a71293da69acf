//! gRPC-Web ("PROTOCOL-WEB" of gRPC) to gRPC and back: heads and bytes. Messages are the same in both; a browser cannot read
//! trailers, so that they are a last frame of the body, and some browsers' bodies are base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    TE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::grpc::{self, Broken, GRPC, MESSAGE, Place, STATUS, suffix};

const WEB: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"application/grpc-web-text";
/// What a browser's script must be allowed to read.
const SHOWN: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
/// In a frame's first byte: what follows are trailers.
const TRAILERS: u8 = 0x80;

/// A request of gRPC-Web, and how its client wants to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `+proto`, or what else the messages are in.
    suffix: Box<[u8]>,
    /// Its body is base64.
    pub is_text: bool,
    /// The answer is to be.
    wants_text: bool,
}

/// What an answer's head makes of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Messages, then trailers.
    Messages,
    /// Its status is in the head; there are neither.
    Nothing,
}

impl Call {
    /// `None` where the request is something else.
    pub fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE).filter(|_| *method == Method::POST)?.as_bytes();
        let (is_text, suffix) = match (suffix(kind, TEXT), suffix(kind, WEB)) {
            (Some(suffix), _) => (true, suffix),
            (None, suffix) => (false, suffix?),
        };
        let accepts = |wanted| {
            let mut lines = headers.get_all(ACCEPT).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
            lines.any(|member| self::suffix(member.trim_ascii(), wanted).is_some())
        };
        let wants_text = accepts(TEXT) || (is_text && !accepts(WEB));
        Some(Self { suffix: suffix.into(), is_text, wants_text })
    }

    /// Makes the request's head one of gRPC.
    pub fn enter(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, kind(GRPC, &self.suffix));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.remove(ACCEPT);
        if self.is_text {
            headers.remove(CONTENT_LENGTH);
        }
    }

    /// Makes an answer's head one of gRPC-Web. What is no answer of gRPC becomes its status.
    pub fn leave(&self, status: &mut StatusCode, headers: &mut HeaderMap) -> Content {
        let is_grpc = grpc::is_answer(*status, headers);
        if !is_grpc {
            headers.insert(STATUS, HeaderValue::from(grpc::meaning(*status)));
            if let Ok(told) = HeaderValue::try_from(grpc::not_grpc(*status)) {
                headers.insert(MESSAGE, told);
            }
            headers.remove(CONTENT_ENCODING);
            *status = StatusCode::OK;
        }
        let own = headers.get(CONTENT_TYPE).filter(|_| is_grpc).and_then(|kind| suffix(kind.as_bytes(), GRPC));
        let suffix = own.filter(|suffix| !suffix.is_empty()).unwrap_or(&self.suffix);
        let kind = kind(if self.wants_text { TEXT } else { WEB }, suffix);
        headers.insert(CONTENT_TYPE, kind);
        headers.remove(CONTENT_LENGTH);
        if headers.contains_key(STATUS) { Content::Nothing } else { Content::Messages }
    }

    /// What writes the answer's body.
    pub fn writer(&self) -> Writer {
        Writer { is_text: self.wants_text, at: Place::default(), carry: [0; 2], carried: 0 }
    }
}

/// Lets a script from elsewhere read what a call came to, where it may read the answer at all.
pub fn expose(headers: &mut HeaderMap) {
    if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let is_said = |name: &&str| {
        let mut lines = headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter();
        lines.any(|line| {
            let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            names.any(|own| own.eq_ignore_ascii_case(name.as_bytes()))
        })
    };
    let missing: Vec<&str> = SHOWN.into_iter().filter(|name| !is_said(name)).collect();
    if let Ok(names) = HeaderValue::try_from(missing.join(", "))
        && !missing.is_empty()
    {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

fn kind(name: &[u8], suffix: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(&[name, suffix].concat()).unwrap_or(HeaderValue::from_static("application/grpc"))
}

/// Writes an answer's body: messages as they come, then the trailers.
#[derive(Debug)]
pub struct Writer {
    is_text: bool,
    at: Place,
    /// What is not yet three bytes.
    carry: [u8; 2],
    carried: usize,
}

impl Writer {
    /// Adds what comes of a piece of the upstream's body.
    pub fn data(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        while !data.is_empty() {
            let (taken, is_end) = self.at.advance(data);
            let (part, rest) = data.split_at(taken);
            self.write(part, is_end, out);
            data = rest;
        }
    }

    /// Adds the trailers. What has no status has failed, whatever came before.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Broken> {
        if !self.at.is_between() {
            return Err(Broken);
        }
        let mut block = Vec::new();
        for (name, value) in trailers.into_iter().flatten() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                block.extend_from_slice(part);
            }
        }
        if trailers.is_none_or(|trailers| !trailers.contains_key(STATUS)) {
            let told = format!("grpc-status: {}\r\ngrpc-message: {}\r\n", grpc::INTERNAL, grpc::NO_STATUS);
            block.extend_from_slice(told.as_bytes());
        }
        let length = u32::try_from(block.len()).map_err(|_| Broken)?;
        let frame = [&[TRAILERS], &length.to_be_bytes()[..], &block].concat();
        self.write(&frame, true, out);
        Ok(())
    }

    /// Base64 is padded at the end of each message, so that a client can read it before the next one comes.
    fn write(&mut self, mut part: &[u8], is_end: bool, out: &mut Vec<u8>) {
        if !self.is_text {
            return out.extend_from_slice(part);
        }
        if self.carried > 0 {
            let missing = (3 - self.carried).min(part.len());
            let mut three = [0; 3];
            three[..self.carried].copy_from_slice(&self.carry[..self.carried]);
            three[self.carried..self.carried + missing].copy_from_slice(&part[..missing]);
            part = &part[missing..];
            let length = self.carried + missing;
            if length < 3 && !is_end {
                self.carry[..length].copy_from_slice(&three[..length]);
                self.carried = length;
                return;
            }
            encode(&three[..length], out);
            self.carried = 0;
        }
        let whole = if is_end { part.len() } else { part.len() / 3 * 3 };
        encode(&part[..whole], out);
        self.carried = part.len() - whole;
        self.carry[..self.carried].copy_from_slice(&part[whole..]);
    }
}

fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.expect("four digits for each three bytes"));
}

/// It is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

/// Reads a body of base64, each of whose pieces may be padded for itself.
#[derive(Debug, Default)]
pub struct Reader {
    four: [u8; 4],
    got: usize,
}

impl Reader {
    /// Adds what a piece of the client's body says.
    pub fn data(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        if self.got > 0 {
            let missing = (4 - self.got).min(data.len());
            self.four[self.got..self.got + missing].copy_from_slice(&data[..missing]);
            self.got += missing;
            data = &data[missing..];
            if self.got < 4 {
                return Ok(());
            }
            self.got = 0;
            decode(&self.four, out)?;
        }
        let (mut whole, rest) = data.split_at(data.len() / 4 * 4);
        while !whole.is_empty() {
            let padded = whole.iter().position(|byte| *byte == b'=');
            let end = padded.map_or(whole.len(), |at| at / 4 * 4 + 4);
            decode(&whole[..end], out)?;
            whole = &whole[end..];
        }
        self.four[..rest.len()].copy_from_slice(rest);
        self.got = rest.len();
        Ok(())
    }

    /// The body is over.
    pub fn end(&self) -> Result<(), NotBase64> {
        if self.got == 0 { Ok(()) } else { Err(NotBase64) }
    }
}

fn decode(digits: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
    BASE64_STANDARD.decode_vec(digits, out).map_err(|_| NotBase64)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn call(kind: &str) -> Option<Call> {
        Call::of(&Method::POST, &headers(&[("content-type", kind)]))
    }

    fn message(text: &str) -> Vec<u8> {
        [&[0], &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn a_request_becomes_one_of_grpc() {
        for (came, goes, is_text) in [
            ("application/grpc-web", "application/grpc", false),
            ("application/grpc-web+proto", "application/grpc+proto", false),
            ("Application/gRPC-Web+thrift; charset=x", "application/grpc+thrift", false),
            ("application/grpc-web-text", "application/grpc", true),
            ("application/grpc-web-text+proto", "application/grpc+proto", true),
        ] {
            let call = call(came).unwrap();
            let mut head = headers(&[("content-type", came), ("content-length", "8"), ("accept", "x"), ("x-a", "1")]);
            call.enter(&mut head);
            assert_eq!(
                (&head["content-type"], &head["te"], call.is_text),
                (&goes.parse().unwrap(), &"trailers".parse().unwrap(), is_text)
            );
            assert_eq!(head.contains_key("content-length"), !is_text, "base64 is longer than what it says");
            assert!(!head.contains_key("accept") && head.contains_key("x-a"));
        }
        for other in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-webby",
            "application/grpc-web-texts",
            "text/html",
            "",
        ] {
            assert_eq!(call(other), None, "{other}");
        }
        assert_eq!(Call::of(&Method::GET, &headers(&[("content-type", "application/grpc-web")])), None);
    }

    #[test]
    fn an_answer_is_of_the_type_that_was_asked_for() {
        for (asked, accepts, came, told) in [
            ("application/grpc-web", "", "application/grpc", "application/grpc-web"),
            ("application/grpc-web+proto", "", "application/grpc", "application/grpc-web+proto"),
            ("application/grpc-web", "", "application/grpc+proto", "application/grpc-web+proto"),
            ("application/grpc-web-text", "", "application/grpc+proto", "application/grpc-web-text+proto"),
            ("application/grpc-web-text", "application/grpc-web", "application/grpc", "application/grpc-web"),
            ("application/grpc-web", "application/grpc-web-text", "application/grpc", "application/grpc-web-text"),
            ("application/grpc-web-text", "*/*", "Application/GRPC", "application/grpc-web-text"),
        ] {
            let call = Call::of(&Method::POST, &headers(&[("content-type", asked), ("accept", accepts)])).unwrap();
            let (mut status, mut head) = (StatusCode::OK, headers(&[("content-type", came)]));
            assert_eq!(call.leave(&mut status, &mut head), Content::Messages);
            assert_eq!(head["content-type"], told, "{asked} {accepts} {came}");
        }
    }

    #[test]
    fn what_is_no_grpc_becomes_its_status() {
        let call = call("application/grpc-web+proto").unwrap();
        for (status, kind, meaning) in [
            (200, "text/html", "2"),
            (400, "application/json", "13"),
            (401, "application/json", "16"),
            (403, "application/json", "7"),
            (404, "", "12"),
            (418, "", "2"),
            (429, "text/plain", "14"),
            (500, "", "2"),
            (502, "", "14"),
            (503, "application/grpc", "14"),
            (504, "application/grpc-web", "14"),
        ] {
            let mut head = headers(&[("content-type", kind), ("content-length", "9"), ("content-encoding", "br")]);
            let mut status = StatusCode::from_u16(status).unwrap();
            assert_eq!(call.leave(&mut status, &mut head), Content::Nothing);
            assert_eq!((status, head["grpc-status"].to_str().unwrap()), (StatusCode::OK, meaning));
            assert_eq!(head["content-type"], "application/grpc-web+proto");
            assert!(!head.contains_key("content-length") && !head.contains_key("content-encoding"));
        }
        let mut head = headers(&[("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "x")]);
        assert_eq!(call.leave(&mut StatusCode::OK.clone(), &mut head), Content::Nothing, "trailers only");
        assert_eq!((&head["grpc-status"], &head["grpc-message"]), (&"5".parse().unwrap(), &"x".parse().unwrap()));
    }

    #[test]
    fn a_script_may_read_the_status_where_it_may_read_at_all() {
        let mut none = headers(&[("x-a", "1")]);
        expose(&mut none);
        assert_eq!(none, headers(&[("x-a", "1")]));
        for (said, more) in [
            (None, Some("grpc-status, grpc-message, grpc-status-details-bin")),
            (Some("x-a, Grpc-Status"), Some("grpc-message, grpc-status-details-bin")),
            (Some("grpc-status, grpc-message,grpc-status-details-bin"), None),
        ] {
            let mut head = headers(&[("access-control-allow-origin", "https://a.example")]);
            let said = said.map(HeaderValue::from_static);
            head.extend(said.clone().map(|said| (ACCESS_CONTROL_EXPOSE_HEADERS, said)));
            expose(&mut head);
            let told: Vec<_> = head.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().cloned().collect();
            assert_eq!(told, said.into_iter().chain(more.map(HeaderValue::from_static)).collect::<Vec<_>>());
        }
    }

    /// The body that comes of these pieces, before the trailers' frame.
    fn written(kind: &str, pieces: &[&[u8]], trailers: Option<&HeaderMap>) -> Result<Vec<u8>, Broken> {
        let mut writer = call(kind).unwrap().writer();
        let mut out = Vec::new();
        for piece in pieces {
            writer.data(piece, &mut out);
        }
        writer.end(trailers, &mut out).map(|()| out)
    }

    #[test]
    fn a_body_is_the_same_wherever_it_is_cut() {
        let body = [message("hello"), message(""), message("gRPC-Web"), message("x"), message("yz")].concat();
        let mut trailers = headers(&[("grpc-status", "0"), ("x-more", "a"), ("x-more", "b")]);
        trailers.insert("grpc-message", HeaderValue::from_static("it%20is"));
        let block = "grpc-status: 0\r\nx-more: a\r\nx-more: b\r\ngrpc-message: it%20is\r\n";
        let frame = [&[0x80], &(block.len() as u32).to_be_bytes()[..], block.as_bytes()].concat();
        let whole = [&body[..], &frame].concat();
        let text: String = [message("hello"), message(""), message("gRPC-Web"), message("x"), message("yz"), frame]
            .iter()
            .map(|frame| BASE64_STANDARD.encode(frame))
            .collect();
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let pieces = [&body[..first], &body[first..second], &body[second..]];
                assert_eq!(written("application/grpc-web", &pieces, Some(&trailers)).unwrap(), whole);
                let told = written("application/grpc-web-text", &pieces, Some(&trailers)).unwrap();
                assert_eq!(String::from_utf8(told).unwrap(), text, "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(written("application/grpc-web-text", &bytes, Some(&trailers)).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_message_is_readable_when_it_is_there() {
        let mut writer = call("application/grpc-web-text").unwrap().writer();
        for text in ["a", "ab", "abc", "abcd", ""] {
            let mut out = Vec::new();
            writer.data(&message(text), &mut out);
            assert_eq!(BASE64_STANDARD.decode(&out).unwrap(), message(text), "{text}");
        }
    }

    #[test]
    fn who_ends_without_a_status_has_failed() {
        let body = message("hello");
        for trailers in [None, Some(&HeaderMap::new()), Some(&headers(&[("x-a", "1")]))] {
            let told = written("application/grpc-web", &[&body], trailers).unwrap();
            let told = String::from_utf8_lossy(&told).into_owned();
            assert!(told.contains("grpc-status: 13\r\n"), "{told}");
        }
        let ok = headers(&[("grpc-status", "0")]);
        for cut in 1..body.len() {
            assert_eq!(written("application/grpc-web", &[&body[..cut]], Some(&ok)), Err(Broken), "{cut}");
        }
        assert!(written("application/grpc-web", &[], Some(&ok)).is_ok(), "no message at all");
    }

    #[test]
    fn base64_is_read_wherever_it_is_cut_and_padded() {
        let parts: [&[u8]; 5] = [b"\0\0\0\0\x01a", b"", b"bc", b"d", b"efgh"];
        let text: String = parts.iter().map(|part| BASE64_STANDARD.encode(part)).collect();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (mut reader, mut out) = (Reader::default(), Vec::new());
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    reader.data(piece.as_bytes(), &mut out).unwrap();
                }
                assert_eq!((reader.end(), &out), (Ok(()), &parts.concat()));
            }
        }
        for wrong in ["a", "ab", "abc", "ab=c", "=abc", "a===", "====", "ab c", "ab\nc", "\u{e4}bc", "YQ==Y", "YR=="] {
            let (mut reader, mut out) = (Reader::default(), Vec::new());
            let read = reader.data(wrong.as_bytes(), &mut out).and_then(|()| reader.end());
            assert_eq!(read, Err(NotBase64), "{wrong}");
        }
    }
}
