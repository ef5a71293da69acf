//! What goes on of a request's head, whatever came.

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lictor_core::trace::{TraceContext, TraceSettings};
use lictor_http::Spelling;
use lictor_http::fields::{Fields, check};
use lictor_http::http1::head::{Length, RequestHead};
use lictor_http::http1::{Framing, HeadFields, Outgoing};
use lictor_http::http2::Encoder;
use lictor_http::laws::{FIELDS, HOP_BY_HOP, assert_framed, assert_plain, request_of, request_of_block};

use super::{Rewrite, Setting};
use crate::names::{self, Looked};
use crate::stores::request_id::RequestId;

/// A request's head is the same wherever it is split; what goes on of it is one head, in HTTP/1.1 and in HTTP/2, that
/// frames the same body, with one host, without the fields of the client's connection and those that `Connection`
/// names. The first byte chooses how it is rewritten.
pub fn header_pass(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let whole = request_of::<Looked>(bytes, bytes.len());
    for step in [1, 2, 1 + usize::from(*choice)] {
        let split = request_of::<Looked>(bytes, step);
        let shown = |read: &Result<Option<(RequestHead, Vec<u8>)>, _>| {
            format!(
                "{:?}",
                read.as_ref().map(|read| read.as_ref().map(|(head, _)| (&head.request, head.length, head.keeps_alive)))
            )
        };
        assert_eq!(shown(&whole), shown(&split), "in steps of {step}");
    }
    let Ok(Some((head, _))) = whole else { return };
    assert_framed(&head);
    let target = head.request.uri().path_and_query().map_or("/", |target| target.as_str());
    let is_forwarded = check(&head.request, head.fields).is_ok()
        && *head.request.method() != Method::CONNECT
        && head.request.headers().len() <= FIELDS
        && !target.starts_with('?');
    if is_forwarded {
        passed(&head, target, *choice);
    }
}

fn passed(head: &RequestHead, target: &str, choice: u8) {
    let settings = TraceSettings { legacy: choice & 8 != 0, ..TraceSettings::default() };
    let set_headers: Vec<_> = [(HeaderName::from_static("x-set"), HeaderValue::from_static("ours"))]
        .into_iter()
        .filter(|_| choice & 16 != 0)
        .collect();
    let headers = head.request.headers().clone();
    let rewrite = rewrite(head, &headers, &settings, choice);
    let write = |rewrite: &Rewrite, headers: &HeaderMap, spelling: &Spelling| {
        let mut out = Outgoing::default();
        out.request_line(head.request.method(), target);
        let mut fields = HeadFields { out: &mut out, spelling };
        let mut setting = Setting::new(&mut fields, &set_headers);
        rewrite.write(headers, &HeaderValue::from_static("users"), &settings, 1, &mut setting);
        setting.end();
        out.end_head(framing(head));
        out.gathered().to_vec()
    };
    let read = |written: &[u8]| {
        let (head, rest) =
            request_of::<Looked>(written, written.len()).expect("what is written is valid").expect("and whole");
        assert!(rest.is_empty(), "what is written is one head");
        head
    };
    let sent = read(&write(&rewrite, &headers, &head.spelling));
    let ours = read(&write(&rewrite, &HeaderMap::new(), &Spelling::default()));
    assert_framed(&sent);
    check(&sent.request, sent.fields).expect("the next one takes it");
    assert_eq!((sent.request.method(), sent.length), (head.request.method(), head.length));
    assert_eq!(sent.request.uri().path_and_query().map(http::uri::PathAndQuery::as_str), Some(target));
    let is_ours = |name: &HeaderName| ours.request.headers().contains_key(name);
    only_what_may_pass(head, sent.request.headers(), is_ours);

    if rewrite.keeps_upgrade {
        return;
    }
    let rewrite = Rewrite { is_http2: true, ..rewrite };
    let mut block = BytesMut::new();
    let mut encoder = Encoder::of(&mut block);
    encoder.method(head.request.method());
    encoder.scheme(false);
    encoder.authority(b"users");
    encoder.path(target.as_bytes());
    let mut setting = Setting::new(&mut encoder, &set_headers);
    rewrite.write(&headers, &HeaderValue::from_static("users"), &settings, 1, &mut setting);
    setting.end();
    let http2 = request_of_block(&block).expect("the same in HTTP/2 is valid");
    assert_plain(http2.headers());
    assert_eq!(http2.uri().authority().map(http::uri::Authority::as_str), Some("users"));
    let mut expected = sent.request.headers().clone();
    expected.remove(CONNECTION);
    let mut passed = http2.headers().clone();
    // The key of a WebSocket is none of HTTP/2's (RFC 8441, section 5).
    for name in [HOST, TRANSFER_ENCODING, CONTENT_LENGTH, SEC_WEBSOCKET_KEY] {
        expected.remove(&name);
        passed.remove(&name);
    }
    assert_eq!(passed, expected, "both versions get the same fields");
}

fn rewrite(head: &RequestHead, headers: &HeaderMap, settings: &TraceSettings, choice: u8) -> Rewrite {
    let mut numbers = 1_u64..;
    let trace = TraceContext::extract(headers, true, settings, &mut || numbers.next().unwrap_or_default());
    Rewrite {
        host: None,
        is_http2: false,
        via: HeaderValue::from_static("1.1 lictor-a"),
        forwarded_host: headers.get(HOST).filter(|host| !host.is_empty()).cloned(),
        forwarded_proto: Some("http"),
        forwarded_for: (choice & 32 != 0).then(|| names::forwarded_for(headers, head.fields, [10, 0, 0, 2].into())),
        from: (choice & 64 != 0).then(|| HeaderValue::from_static("orders")),
        request_id: RequestId::Ours([b'0'; 36]),
        trace,
        has_attempt_spans: choice & 128 != 0,
        is_inbound: choice & 1 != 0,
        is_peer: choice & 1 == 0 || choice & 64 != 0,
        has_odd: head.fields.has(names::ODD),
        keeps_upgrade: choice & 2 != 0 && head.fields.has(Fields::UPGRADE),
        takes_trailers: head.takes_trailers,
        expects: head.expects_continue,
    }
}

fn framing(head: &RequestHead) -> Framing {
    match head.length {
        Length::Exactly(0) if !head.fields.has(Fields::CONTENT_LENGTH) => Framing::None,
        Length::Exactly(length) => Framing::Length(length),
        Length::Chunked | Length::UntilClose => Framing::Chunked,
    }
}

fn only_what_may_pass(head: &RequestHead, sent: &HeaderMap, is_ours: impl Fn(&HeaderName) -> bool) {
    let came = head.request.headers();
    assert_eq!(sent.get_all(HOST).iter().collect::<Vec<_>>(), ["users"]);
    for name in HOP_BY_HOP.iter().filter(|name| sent.contains_key(*name)) {
        let is_own = match *name {
            CONNECTION => {
                let said = sent[CONNECTION].as_bytes();
                let said: Vec<&[u8]> = said.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
                said.iter().all(|option| match *option {
                    b"upgrade" => sent.contains_key(UPGRADE),
                    b"te" => sent.contains_key(TE),
                    _ => false,
                })
            }
            TE => sent[TE] == "trailers" && head.takes_trailers,
            TRANSFER_ENCODING => head.length == Length::Chunked,
            _ => false,
        };
        assert!(is_own && sent.get_all(name).iter().count() == 1, "{name} goes on");
    }
    for name in sent.keys().filter(|name| !is_ours(name) && **name != CONTENT_LENGTH) {
        assert!(came.contains_key(name), "{name} was made up, or named by Connection");
    }
    for name in ["traceparent", "x-request-id", "x-forwarded-for"] {
        assert!(!is_ours(&HeaderName::from_static(name)) || sent.get_all(name).iter().count() == 1, "{name} twice");
    }
}

#[cfg(test)]
#[path = "../../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::header_pass;
    use super::replay::replay;

    #[test]
    fn every_kept_input_keeps_the_law() {
        replay("header_pass", header_pass);
    }
}
