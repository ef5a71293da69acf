//! What a proxy does to a head: hop-by-hop fields off (RFC 9110, section 7.6.1), its own on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, LOCATION, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use lictor_core::{Failure, Reason};

pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
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

/// Refuses a head that names its host in no way, or in two (RFC 9112, section 3.2), or `*` for more than OPTIONS
/// (section 3.2.4).
pub(crate) fn check<B>(request: &Request<B>, fields: Fields) -> Result<(), Failure> {
    let refused = |sentence: &str| Err(Failure::new(Reason::BadRequest, sentence));
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target == "*" && *request.method() != Method::OPTIONS {
        return refused("only OPTIONS may be about `*`");
    }
    if !target.is_ascii() {
        return refused("the request's target has bytes that must be percent-encoded (RFC 3986, section 2.1)");
    }
    if fields.has(Fields::TRANSFER_ENCODING) && !is_chunked_at_most(request.headers()) {
        return refused("no transfer coding but chunked is understood");
    }
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return refused("the request has more than one Host");
    }
    match first {
        Some(host) if host.is_empty() => Ok(()),
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        Some(_) => refused("the request's Host is not a host and port"),
        None if request.version() == Version::HTTP_11 => refused("an HTTP/1.1 request needs a Host"),
        None => Ok(()),
    }
}

/// A registered name or IP literal, and perhaps a port (RFC 9110, section 7.2), without the oddities that RFC 3986
/// would allow.
fn is_host(value: &[u8]) -> bool {
    let is_name = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~');
    let length = match value.strip_prefix(b"[") {
        Some(literal) => {
            let length = literal.iter().position(|byte| *byte == b']').unwrap_or(literal.len());
            let is_literal = str::from_utf8(&literal[..length]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
            if is_literal { length + 2 } else { 0 }
        }
        None => value.iter().position(|byte| !is_name(byte)).unwrap_or(value.len()),
    };
    match value.get(length..) {
        _ if length == 0 => false,
        Some([]) => true,
        Some([b':', port @ ..]) => is_port(port),
        _ => false,
    }
}

/// Decimal digits, or none at all (RFC 3986, section 3.2.3), of a number that ports have.
fn is_port(port: &[u8]) -> bool {
    let add = |number: u16, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    port.iter().try_fold(0, add).is_some()
}

/// Whether nothing but `chunked` was applied on the way: what else it was would be lost (RFC 9112, section 6.1).
fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TRANSFER_ENCODING);
    codings.iter().all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.iter().count() <= 1
}

/// Makes an answer's head say one thing about its body's length, or refuses it (RFC 9112, section 6.3).
pub(crate) fn check_answer(headers: &mut HeaderMap, fields: Fields) -> Result<Option<u64>, &'static str> {
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return if is_chunked_at_most(headers) { Ok(None) } else { Err("a transfer coding that nobody asked for") };
    }
    if !fields.has(Fields::CONTENT_LENGTH) {
        return Ok(None);
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
    Ok(Some(length))
}

/// Digits only, and not absurd.
pub(crate) fn length(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |length, digit| Some(length * 10 + u64::from(char::from(*digit).to_digit(10)?)))
}

/// Takes off what may not come after a body: what frames, routes, authenticates, says what the content is, or belongs to
/// the connection (RFC 9110, section 6.5.1).
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 24] = [
        AGE,
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        FORWARDED,
        HOST,
        KEEP_ALIVE,
        LOCATION,
        MAX_FORWARDS,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PROXY_CONNECTION,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        VIA,
    ];
    for name in FORBIDDEN {
        trailers.remove(name);
    }
}

/// HTTP/2 clients may send a Cookie in crumbs; elsewhere it is one field (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).into_iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("made of values and `; `");
    headers.insert(COOKIE, whole);
}

/// Which of the fields that lictor looks for a head has: one pass over its names, instead of a search for each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields(u32);

impl Fields {
    pub(crate) const CONNECTION: u32 = 1;
    pub(crate) const UPGRADE: u32 = 1 << 1;
    pub(crate) const TE: u32 = 1 << 2;
    pub(crate) const VIA: u32 = 1 << 3;
    /// Any of `X-Forwarded-*`.
    pub(crate) const FORWARDED: u32 = 1 << 4;
    /// Any that carries a trace.
    pub(crate) const TRACE: u32 = 1 << 5;
    /// Any that carries a deadline.
    pub(crate) const DEADLINE: u32 = 1 << 6;
    /// Any of `X-Lictor-*`.
    pub(crate) const LICTOR: u32 = 1 << 7;
    pub(crate) const CONTENT_LENGTH: u32 = 1 << 8;
    pub(crate) const CONTENT_TYPE: u32 = 1 << 9;
    pub(crate) const TRANSFER_ENCODING: u32 = 1 << 10;
    pub(crate) const EXPECT: u32 = 1 << 11;
    /// Any of the ids that answers tell.
    pub(crate) const IDS: u32 = 1 << 12;
    /// Those of the connection that are none of the above.
    const OTHER_HOPS: u32 = 1 << 13;

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        headers.keys().for_each(|name| fields.add(name));
        fields
    }

    pub(crate) fn add(&mut self, name: &HeaderName) {
        self.0 |= Self::bit(name.as_str());
    }

    pub(crate) fn has(self, any: u32) -> bool {
        self.0 & any != 0
    }

    fn bit(name: &str) -> u32 {
        match name {
            "content-length" => Self::CONTENT_LENGTH,
            "content-type" => Self::CONTENT_TYPE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "expect" => Self::EXPECT,
            "connection" => Self::CONNECTION,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "via" => Self::VIA,
            "keep-alive" | "proxy-authenticate" | "proxy-authorization" | "proxy-connection" => Self::OTHER_HOPS,
            "b3" | "traceparent" | "tracestate" => Self::TRACE,
            "grpc-timeout" | "l5d-timeout" => Self::DEADLINE,
            name if !name.starts_with("x-") => 0,
            "x-request-timeout-ms" | "x-envoy-upstream-rq-timeout-ms" => Self::DEADLINE,
            "x-lictor-timeout" => Self::DEADLINE | Self::LICTOR,
            "x-request-id" => Self::IDS,
            "x-trace-id" | "x-span-id" => Self::TRACE | Self::IDS,
            "x-parent-id" => Self::TRACE,
            name if name.starts_with("x-b3-") => Self::TRACE,
            name if name.starts_with("x-forwarded-") => Self::FORWARDED,
            name if name.starts_with("x-lictor-") => Self::LICTOR,
            _ => 0,
        }
    }
}

/// Whether the answer is to tell how it came about: somebody on this machine asks, and not for somebody else. A
/// forwarded request is an outsider's, whoever brings it.
pub(crate) fn asks_for_debug(headers: &HeaderMap, peer: Option<SocketAddr>) -> bool {
    let is_local = peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
    let is_forwarded = [FORWARDED, VIA, X_FORWARDED_FOR].iter().any(|name| headers.contains_key(name));
    let is_asked = headers.get(X_LICTOR_DEBUG).is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"off"));
    is_asked && is_local && !is_forwarded
}

/// Takes off an answer what belongs to the connection it came on. With `keeps_upgrade` the `Upgrade` stays.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, fields: Fields, keeps_upgrade: bool) {
    if fields.has(Fields::CONNECTION) {
        strip_named(headers);
        headers.remove(CONNECTION);
    }
    if fields.has(Fields::UPGRADE) && !keeps_upgrade {
        headers.remove(UPGRADE);
    }
    if fields.has(Fields::TE) {
        headers.remove(TE);
    }
    if fields.has(Fields::OTHER_HOPS) {
        for name in [KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, PROXY_CONNECTION] {
            headers.remove(name);
        }
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(TRANSFER_ENCODING);
    }
}

/// Takes off what `Connection` names (RFC 9110, section 7.6.1), but for what has a meaning of its own here.
pub(crate) fn strip_named(headers: &mut HeaderMap) {
    const USUAL: [&str; 4] = ["close", "keep-alive", "te", "upgrade"];
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter(|token| !USUAL.iter().any(|usual| token.eq_ignore_ascii_case(usual)))
        .filter_map(|token| HeaderName::try_from(token).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Whether the client wants trailers. Nothing else of its `TE` goes further.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// `Connection` may not be used to take these off a request: they decide where it goes and how long it is.
fn is_end_to_end(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER, FORWARDED, VIA].contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("x-lictor-")
}

/// Whether this is gRPC: `application/grpc`, with or without `+proto`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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

/// The comma-separated members of all fields of this name.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
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

    fn strip(map: &mut HeaderMap, keeps_upgrade: bool) {
        strip_hop_by_hop(map, Fields::of(map), keeps_upgrade);
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
    fn fields_of_the_connection_are_taken_off() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip(&mut map, false);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn connection_cannot_name_fields_that_route_or_frame() {
        let mut map = headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")]);
        strip(&mut map, false);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn an_upgrade_is_kept_where_it_is_one() {
        let mut map = headers(&[("connection", "Upgrade, X-Mine"), ("upgrade", "websocket"), ("x-mine", "1")]);
        strip(&mut map, true);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["upgrade"]);
    }

    #[test]
    fn one_pass_finds_what_is_there() {
        let fields = Fields::of(&headers(&[("x-b3-traceid", "1"), ("via", "a"), ("x-lictor-timeout", "1s")]));
        assert!(fields.has(Fields::TRACE) && fields.has(Fields::VIA) && fields.has(Fields::LICTOR));
        assert!(fields.has(Fields::DEADLINE) && !fields.has(Fields::CONNECTION | Fields::FORWARDED | Fields::TE));
    }

    #[test]
    fn our_own_hop_in_via_is_a_loop() {
        let hop = HeaderValue::from_static("1.1 lictor-a");
        assert!(is_loop(&headers(&[("via", "1.0 fred, 1.1 lictor-a")]), &hop));
        assert!(!is_loop(&headers(&[("via", "1.0 fred, 1.1 lictor-b")]), &hop));
    }

    #[test]
    fn an_answer_says_one_thing_about_its_length() {
        let checked = |pairs: &[(&str, &str)]| {
            let mut map = headers(pairs);
            let fields = Fields::of(&map);
            check_answer(&mut map, fields)
                .map(|_| map.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned()))
        };
        assert_eq!(checked(&[("content-length", "5, 5")]), Ok(Some("5".to_owned())));
        assert_eq!(checked(&[("content-length", "2"), ("transfer-encoding", "Chunked")]), Ok(None));
        for wrong in [
            [("content-length", "5"), ("content-length", "6")],
            [("content-length", "+5"), ("x", "y")],
            [("content-length", ""), ("x", "y")],
            [("transfer-encoding", "gzip, chunked"), ("x", "y")],
            [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(checked(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cookie_crumbs_are_put_together() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "c=2")]);
        join_cookies(&mut map);
        assert_eq!(map.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; c=2"]);
    }

    #[test]
    fn a_request_names_one_host() {
        let with = |hosts: &[&'static str]| {
            let mut request = Request::get("/").body(()).unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, HeaderValue::from_static(host));
            }
            check(&request, Fields::of(request.headers())).is_ok()
        };
        assert!(with(&["a"]) && with(&["a:80"]) && with(&["[::1]:80"]) && with(&[""]));
        assert!(!with(&[]) && !with(&["a", "a"]) && !with(&["a b"]) && !with(&["u@a"]) && !with(&["a/b"]));
        assert!(!with(&["a:http"]) && !with(&["a:99999"]) && !with(&["a, b"]) && !with(&["[::1"]) && !with(&["a:1:2"]));
    }

    #[test]
    fn the_peer_is_appended_to_forwarded_for() {
        let map = headers(&[("x-forwarded-for", "203.0.113.7")]);
        assert_eq!(forwarded_for(&map, "10.0.0.2".parse().unwrap()), "203.0.113.7, 10.0.0.2");
    }
}
