//! The fields that have a meaning to lictor: their names, one pass that finds which of them a head has, and what some of
//! them say. What belongs to HTTP itself is `lictor_http::fields`'s.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONTENT_TYPE, FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use lictor_http::fields::{Fields, Marks, tokens};

pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_LICTOR_ATTEMPT: HeaderName = HeaderName::from_static("x-lictor-attempt");
pub(crate) const X_LICTOR_ATTEMPTS: HeaderName = HeaderName::from_static("x-lictor-attempts");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
pub(crate) const X_LICTOR_DEBUG: HeaderName = HeaderName::from_static("x-lictor-debug");
pub(crate) const X_LICTOR_DRAINING: HeaderName = HeaderName::from_static("x-lictor-draining");
pub(crate) const X_LICTOR_FALLBACK: HeaderName = HeaderName::from_static("x-lictor-fallback");
pub(crate) const X_LICTOR_FROM: HeaderName = HeaderName::from_static("x-lictor-from");
pub(crate) const X_LICTOR_NO_RETRY: HeaderName = HeaderName::from_static("x-lictor-no-retry");
pub(crate) const X_LICTOR_REASON: HeaderName = HeaderName::from_static("x-lictor-reason");
pub(crate) const X_LICTOR_RETRY: HeaderName = HeaderName::from_static("x-lictor-retry");
pub(crate) const X_LICTOR_TO: HeaderName = HeaderName::from_static("x-lictor-to");
pub(crate) const X_LICTOR_UPSTREAM: HeaderName = HeaderName::from_static("x-lictor-upstream");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
pub(crate) const X_SERVICE_AUTH: HeaderName = HeaderName::from_static("x-service-auth");
pub(crate) const X_SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");
pub(crate) const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
pub(crate) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
pub(crate) const X_USER_ROLE: HeaderName = HeaderName::from_static("x-user-role");
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What lictor looks for in heads, besides what the wire does.
#[derive(Debug)]
pub(crate) struct Looked;

/// Any of `X-Forwarded-*`.
pub(crate) const FORWARDED_BY: u32 = Fields::MARKS;
/// Any that carries a trace.
pub(crate) const TRACE: u32 = Fields::MARKS << 1;
/// Any that carries a deadline.
pub(crate) const DEADLINE: u32 = Fields::MARKS << 2;
/// Any of `X-Lictor-*`.
pub(crate) const LICTOR: u32 = Fields::MARKS << 3;
/// Any of the ids that answers tell.
pub(crate) const IDS: u32 = Fields::MARKS << 4;

impl Marks for Looked {
    fn of(name: &str) -> u32 {
        match name {
            "b3" | "traceparent" | "tracestate" => TRACE,
            "grpc-timeout" | "l5d-timeout" => DEADLINE,
            name if !name.starts_with("x-") => 0,
            "x-request-timeout-ms" | "x-envoy-upstream-rq-timeout-ms" => DEADLINE,
            "x-lictor-timeout" => DEADLINE | LICTOR,
            "x-request-id" => IDS,
            "x-trace-id" | "x-span-id" => TRACE | IDS,
            "x-parent-id" => TRACE,
            name if name.starts_with("x-b3-") => TRACE,
            name if name.starts_with("x-forwarded-") => FORWARDED_BY,
            name if name.starts_with("x-lictor-") => LICTOR,
            _ => 0,
        }
    }
}

/// Which fields a head has.
pub(crate) fn fields_of(headers: &HeaderMap) -> Fields {
    Fields::of::<Looked>(headers)
}

/// What `Connection` may not be used to take off a request, as it says where it goes.
pub(crate) fn is_lictors(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-lictor-")
}

/// Whether the answer is to tell how it came about: somebody on this machine asks, and not for somebody else. A
/// forwarded request is an outsider's, whoever brings it.
pub(crate) fn asks_for_debug(headers: &HeaderMap, peer: Option<SocketAddr>) -> bool {
    let is_local = peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
    let is_forwarded = [FORWARDED, VIA, X_FORWARDED_FOR].iter().any(|name| headers.contains_key(name));
    let is_asked = headers.get(X_LICTOR_DEBUG).is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"off"));
    is_asked && is_local && !is_forwarded
}

/// Whether this is gRPC: `application/grpc`, with or without `+proto`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// `grpc-status`, where there is one.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether a response is a stream by its type: it may be silent for long, and has no end to wait for.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    const STREAMS: [&[u8]; 5] = [
        b"text/event-stream",
        b"application/grpc",
        b"application/x-ndjson",
        b"application/stream+json",
        b"multipart/x-mixed-replace",
    ];
    headers.get(CONTENT_TYPE).is_some_and(|value| STREAMS.iter().any(|stream| value.as_bytes().starts_with(stream)))
}

/// `X-Forwarded-For` with the peer appended.
pub(crate) fn forwarded_for(headers: &HeaderMap, peer: IpAddr) -> String {
    match headers.get(X_FORWARDED_FOR).and_then(|earlier| earlier.to_str().ok()) {
        Some(earlier) => format!("{earlier}, {peer}"),
        None => peer.to_string(),
    }
}

/// Whether our own hop is in `Via` (RFC 9110, section 7.6.3): the request came back to us.
pub(crate) fn is_loop(headers: &HeaderMap, hop: &HeaderValue) -> bool {
    let own = hop.to_str().unwrap_or_default();
    tokens(headers, &VIA).any(|entry| entry == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn one_pass_finds_what_is_there() {
        let fields = fields_of(&headers(&[("x-b3-traceid", "1"), ("via", "a"), ("x-lictor-timeout", "1s")]));
        assert!(fields.has(TRACE) && fields.has(Fields::VIA) && fields.has(LICTOR));
        assert!(fields.has(DEADLINE) && !fields.has(Fields::CONNECTION | FORWARDED_BY | Fields::TE));
    }

    #[test]
    fn only_this_machine_may_ask_for_debugging_and_only_for_itself() {
        let of = |fields: &[(&'static str, &'static str)]| {
            fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect()
        };
        let asks = |fields: &[(&'static str, &'static str)], peer: &str| {
            asks_for_debug(&of(fields), Some(SocketAddr::new(peer.parse().unwrap(), 1)))
        };
        let asked = ("x-lictor-debug", "1");
        assert!(asks(&[asked], "127.0.0.1") && asks(&[asked], "::1") && asks(&[asked], "::ffff:127.0.0.1"));
        assert!(asks_for_debug(&of(&[asked]), None), "a Unix socket");
        assert!(!asks(&[], "127.0.0.1") && !asks(&[("x-lictor-debug", "0")], "127.0.0.1"));
        assert!(!asks(&[asked], "10.0.0.1"));
        for forwarded in ["x-forwarded-for", "forwarded", "via"] {
            assert!(!asks(&[asked, (forwarded, "10.0.0.1")], "127.0.0.1"), "{forwarded}");
        }
    }

    #[test]
    fn our_own_hop_in_via_is_a_loop() {
        let hop = HeaderValue::from_static("1.1 lictor-a");
        assert!(is_loop(&headers(&[("via", "1.0 fred, 1.1 lictor-a")]), &hop));
        assert!(!is_loop(&headers(&[("via", "1.0 fred, 1.1 lictor-b")]), &hop));
    }

    #[test]
    fn the_peer_is_appended_to_forwarded_for() {
        let map = headers(&[("x-forwarded-for", "203.0.113.7")]);
        assert_eq!(forwarded_for(&map, "10.0.0.2".parse().unwrap()), "203.0.113.7, 10.0.0.2");
    }
}
