//! The fields that have a meaning to lictor: their names, one pass that finds which of them a head has, and what some of
//! them say. What belongs to HTTP itself is `lictor_http::fields`'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{CONTENT_TYPE, FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use lictor_core::gateway::headers::{OUTSIDERS, OUTSIDERS_BEGIN};
use lictor_http::decimal;
use lictor_http::fields::{Fields, Marks, clean, tokens};
use smallvec::SmallVec;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
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
/// Any with a sign that is not `-` in its name: it may be taken for another (see [`VOUCHED`]).
pub(crate) const ODD: u32 = Fields::MARKS << 5;
/// Any that carries a trace, but `traceparent`.
pub(crate) const TRACE_OTHERS: u32 = Fields::MARKS << 6;
/// Another that says something to lictor.
const OTHER: u32 = Fields::MARKS << 7;

impl Marks for Looked {
    /// An odd name says nothing by itself.
    const SAYING: u32 = !ODD;

    fn of(name: &str) -> u32 {
        match name {
            "traceparent" => TRACE,
            "b3" | "tracestate" => TRACE | TRACE_OTHERS,
            "idempotency-key" => OTHER,
            "grpc-timeout" | "l5d-timeout" => DEADLINE,
            name if !name.starts_with("x-") => odd(name),
            "x-request-timeout-ms" | "x-envoy-upstream-rq-timeout-ms" => DEADLINE,
            "x-lictor-timeout" => DEADLINE | LICTOR,
            "x-request-id" => IDS,
            "x-trace-id" | "x-span-id" => TRACE | TRACE_OTHERS | IDS,
            "x-parent-id" => TRACE | TRACE_OTHERS,
            "x-service-auth" => OTHER,
            name if name.starts_with("x-b3-") => TRACE | TRACE_OTHERS,
            name if name.starts_with("x-forwarded-") => FORWARDED_BY | odd(name),
            name if name.starts_with("x-lictor-") => LICTOR | odd(name),
            name => odd(name),
        }
    }
}

/// Which fields a head has that did not come over the wire, once it is clean like one that did.
pub(crate) fn fields_of(headers: &mut HeaderMap) -> Fields {
    let fields = Fields::of::<Looked>(headers);
    clean::<Looked>(headers, fields)
}

fn odd(name: &str) -> u32 {
    if is_made_of_words(name.as_bytes()) || name.bytes().all(is_plain) { 0 } else { ODD }
}

/// Whether a name is small letters and `-` alone, as nearly all are: eight signs at a time, the last eight perhaps again.
fn is_made_of_words(name: &[u8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let is_plain = |signs: &[u8; 8]| {
        let signs = u64::from_le_bytes(*signs);
        // The high bit of each says: at least `a` and not more than `z`; or `-`. Others than ASCII are in no name.
        let letters = signs.wrapping_add(EACH * 0x1f) & !signs.wrapping_add(EACH * 0x05);
        let dashes = !(signs ^ (EACH * 0x2d)).wrapping_add(EACH * 0x7f);
        !(letters | dashes) & (EACH * 0x80) == 0
    };
    let (eights, _) = name.as_chunks::<8>();
    eights.iter().all(is_plain) && name.last_chunk::<8>().is_some_and(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Names of fields, whole or by how they begin.
struct Names {
    whole: &'static [&'static str],
    prefixes: &'static [&'static str],
    /// The letters that they begin with, after `x-` if they have that, a bit each: most fields of a head are none of these by one letter.
    begins: Begins,
}

#[derive(Clone, Copy)]
struct Begins {
    plain: u32,
    after_x: u32,
}

impl Names {
    const fn new(whole: &'static [&'static str], prefixes: &'static [&'static str]) -> Self {
        Self { whole, prefixes, begins: Begins::new().with(whole).with(prefixes) }
    }

    /// Whatever sign stands in the place of `-`.
    fn may_have(&self, name: &str) -> bool {
        match name.as_bytes() {
            [b'x', sign, letter, ..] if !sign.is_ascii_alphanumeric() => self.begins.after_x & bit(*letter) != 0,
            [letter, ..] => self.begins.plain & bit(*letter) != 0,
            [] => false,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.may_have(name)
            && (self.whole.contains(&name) || self.prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

impl Begins {
    const fn new() -> Self {
        Self { plain: 0, after_x: 0 }
    }

    const fn with(mut self, names: &[&str]) -> Self {
        let mut at = 0;
        while at < names.len() {
            match names[at].as_bytes() {
                [b'x', b'-', letter, ..] => self.after_x |= bit(*letter),
                [letter, ..] => self.plain |= bit(*letter),
                [] => (),
            }
            at += 1;
        }
        self
    }
}

const fn bit(letter: u8) -> u32 {
    if letter.is_ascii_lowercase() { 1 << (letter - b'a') } else { 0 }
}

/// What whoever is behind us may rely on, as lictor writes it, checks it, or takes it off: what a body's end is told by, who
/// somebody is, whom a request came by.
const VOUCHED: Names = Names::new(
    &[
        "content-length",
        "forwarded",
        "grpc-timeout",
        "keep-alive",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "x-gateway-request-id",
        "x-parent-id",
        "x-request-id",
        "x-request-timeout-ms",
        "x-service-auth",
        "x-span-id",
        "x-trace-id",
    ],
    &["proxy-", "x-b3-", "x-forwarded-", "x-lictor-", "x-user-"],
);

/// What nobody from outside may say.
const FOR_PEERS: Names = Names::new(OUTSIDERS, OUTSIDERS_BEGIN);

/// What lictors tell each other.
const LICTORS: Names = Names::new(&[], &["x-lictor-"]);

/// Whether a program that makes every sign of a name one may take this field for another, that lictor vouches for or that
/// is `ours`: `X_Service_Auth` is `HTTP_X_SERVICE_AUTH` to CGI and all that follows it (RFC 3875, section 4.1.18).
pub(crate) fn shadows(name: &HeaderName, ours: impl Fn(&str) -> bool) -> bool {
    if name.as_str().bytes().all(is_plain) {
        return false;
    }
    let plain = name.as_str().replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
    VOUCHED.has(&plain) || ours(&plain)
}

/// Who somebody is, or what only lictor says: a peer may say so, because whoever gets it believes it, and nobody else. A
/// deadline is anybody's.
pub(crate) fn is_identity(name: &str) -> bool {
    name.strip_prefix("x-").is_some_and(|rest| {
        rest.starts_with("user-")
            || rest == "gateway-request-id"
            || (rest.starts_with("lictor-") && rest != "lictor-timeout")
    })
}

/// Takes off a head from outside what only peers may say, however it is spelled.
pub(crate) fn strip_outsiders(headers: &mut HeaderMap) {
    strip(headers, &[FOR_PEERS]);
}

/// Takes off a head from outside what a gateway itself says to those behind it, however it is spelled.
pub(crate) fn strip_managed(headers: &mut HeaderMap, managed: &[HeaderName]) {
    if !managed.is_empty() {
        let is_as_long = |name: &str| managed.iter().any(|own| own.as_str().len() == name.len());
        strip_those(headers, |name| {
            is_as_long(name) && is_spelled(name, |plain| managed.iter().any(|own| own.as_str() == plain))
        });
    }
}

/// Takes off an answer's head what is nobody's business outside: what lictors tell each other, and addresses.
pub(crate) fn seal(headers: &mut HeaderMap) {
    strip(headers, &[LICTORS]);
    let tells = |value: &HeaderValue| value.as_bytes().windows(8).any(|part| part.eq_ignore_ascii_case(b"next-hop"));
    if headers.get_all(PROXY_STATUS).iter().any(tells) {
        headers.remove(PROXY_STATUS);
    }
}

/// Takes off the fields whose names, once every sign of them is `-`, are these.
fn strip(headers: &mut HeaderMap, these: &[Names]) {
    let may_be = |name: &str| these.iter().any(|names| names.may_have(name));
    strip_those(headers, |name| may_be(name) && is_spelled(name, |plain| these.iter().any(|names| names.has(plain))));
}

/// Whether a name is one of those once every sign of it is `-`.
fn is_spelled(name: &str, is_one: impl Fn(&str) -> bool) -> bool {
    if name.bytes().all(is_plain) {
        return is_one(name);
    }
    is_one(&name.replace(|sign: char| !sign.is_ascii_alphanumeric(), "-"))
}

fn strip_those(headers: &mut HeaderMap, is_one: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| is_one(name.as_str())).cloned();
    for name in names.collect::<SmallVec<[_; 4]>>() {
        headers.remove(name);
    }
}

/// Takes off a request's trailers what lictor vouches for, however it is spelled: some programs put trailers among fields.
pub(crate) fn strip_vouched(trailers: &mut HeaderMap) {
    strip(trailers, &[VOUCHED, FOR_PEERS]);
}

/// Whether the answer is to tell how it came about: somebody on this machine asks, and not for somebody else. A
/// forwarded request is an outsider's, whoever brings it.
pub(crate) fn asks_for_debug(headers: &HeaderMap, peer: Option<SocketAddr>) -> bool {
    let is_local = peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
    let is_forwarded = [FORWARDED, VIA, X_FORWARDED_FOR].iter().any(|name| headers.contains_key(name));
    let is_asked = headers.get(X_LICTOR_DEBUG).is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"off"));
    is_asked && is_local && !is_forwarded
}

/// Whether this is gRPC: `application/grpc`, with or without `+proto`, but not `application/grpc-web`, whose clients are
/// answered in HTTP's own terms (gRPC over HTTP/2, "Requests").
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| is_media_type(value.as_bytes(), b"application/grpc"))
}

/// Whether a `Content-Type` is of this type, or of one that is made of it by a suffix (RFC 9110, section 8.3.1: case does
/// not matter, and parameters follow a `;`).
pub(crate) fn is_media_type(value: &[u8], wanted: &[u8]) -> bool {
    value.len() >= wanted.len()
        && value[..wanted.len()].eq_ignore_ascii_case(wanted)
        && matches!(value.get(wanted.len()), None | Some(b';' | b'+' | b' ' | b'\t'))
}

/// `grpc-status`, where there is one.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether a response is a stream by its type: it may be silent for long, and has no end to wait for.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    const STREAMS: [&[u8]; 7] = [
        b"text/event-stream",
        b"application/grpc",
        b"application/grpc-web",
        b"application/grpc-web-text",
        b"application/x-ndjson",
        b"application/stream+json",
        b"multipart/x-mixed-replace",
    ];
    let is_one = |value: &HeaderValue| STREAMS.iter().any(|stream| is_media_type(value.as_bytes(), stream));
    headers.get(CONTENT_TYPE).is_some_and(is_one)
}

/// `X-Forwarded-For` with the peer appended: all lines as one list, in their order (RFC 9110, section 5.3).
pub(crate) fn forwarded_for(headers: &HeaderMap, fields: Fields, peer: IpAddr) -> Vec<u8> {
    let mut chain = Vec::with_capacity(64);
    let earlier = fields.has(FORWARDED_BY).then(|| headers.get_all(X_FORWARDED_FOR));
    for line in earlier.into_iter().flatten().filter(|line| !line.is_empty()) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    match peer {
        IpAddr::V4(ip) => write_ipv4(&mut chain, ip),
        IpAddr::V6(ip) => chain.extend_from_slice(ip.to_string().as_bytes()),
    }
    chain
}

/// As `Display` has it, for a fifth of the work: each request at a gateway is told whose it is.
fn write_ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(decimal(octet.into(), &mut [0; 20]));
    }
}

/// Whether we are in `Via` (RFC 9110, section 7.6.3) by this name, whatever version the request came to us in: it came
/// back to us.
pub(crate) fn is_loop(headers: &HeaderMap, own: &str) -> bool {
    tokens(headers, &VIA).any(|entry| entry.split_ascii_whitespace().nth(1) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn one_pass_finds_what_is_there() {
        let fields = fields_of(&mut headers(&[("x-b3-traceid", "1"), ("via", "a"), ("x-lictor-timeout", "1s")]));
        assert!(fields.has(TRACE) && fields.has(Fields::VIA) && fields.has(LICTOR));
        assert!(fields.has(DEADLINE) && !fields.has(Fields::CONNECTION | FORWARDED_BY | Fields::TE));
    }

    #[test]
    fn names_are_found_whole_and_by_how_they_begin() {
        for names in [VOUCHED, FOR_PEERS, LICTORS] {
            assert!(names.whole.iter().all(|name| names.has(name) && !names.has(&format!("{name}-"))));
            assert!(names.prefixes.iter().all(|prefix| names.has(prefix) && names.has(&format!("{prefix}a"))));
            assert!(["", "-", "host", "x", "via", "_x-lictor-a", "é"].iter().all(|name| !names.has(name)));
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_everywhere() {
        for octet in 0..=u8::MAX {
            let ip = Ipv4Addr::new(octet, 0, 255 - octet, 9);
            let mut written = Vec::new();
            write_ipv4(&mut written, ip);
            assert_eq!(written, ip.to_string().into_bytes());
        }
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
    fn a_name_that_may_be_taken_for_one_of_ours_is_found_whatever_its_signs() {
        let is = |name: &str| shadows(&HeaderName::try_from(name).unwrap(), |plain| plain == "x-partner-key");
        for name in [
            "x_forwarded_for",
            "x-forwarded_for",
            "x_forwarded-proto",
            "x.forwarded.host",
            "x_forwarded_client_cert",
            "x_service_auth",
            "x|service~auth",
            "x_request_id",
            "x_lictor_from",
            "x-lictor_anything",
            "x_user_id",
            "x_b3_traceid",
            "content_length",
            "transfer_encoding",
            "grpc_timeout",
            "proxy_authorization",
            "x_partner_key",
        ] {
            assert!(is(name), "{name}");
            assert!(Looked::of(name) & ODD != 0, "{name}");
        }
        for name in ["x-forwarded-for", "x-partner-key", "x_custom", "api_key", "x_forwarded", "user_id", "sec-ch_ua"] {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn nobody_from_outside_says_who_he_is_or_what_else_he_asks_for() {
        let of = |names: &[&str]| headers(&names.iter().map(|name| (*name, "x")).collect::<Vec<_>>());
        let taken = [
            "forwarded",
            "x-forwarded-for",
            "X-Forwarded-Client-Cert",
            "x_forwarded_for",
            "x.forwarded-uri",
            "x-real-ip",
            "x_real_ip",
            "x-lictor-from",
            "x-lictor-timeout",
            "X_Lictor_Debug",
            "x-service-auth",
            "x_service_auth",
            "x-user-id",
            "x_user_role",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x_http_method_override",
            "x-method-override",
            "x-envoy-original-path",
            "x-ssl-client-verify",
        ];
        let passes =
            ["accept", "authorization", "x-request-id", "traceparent", "x-user", "x_custom", "idempotency-key"];
        for name in taken {
            let mut head = of(&[name, "accept"]);
            strip_outsiders(&mut head);
            assert_eq!(head, of(&["accept"]), "{name}");
            strip_vouched(&mut head);
        }
        let mut head = of(&passes);
        strip_outsiders(&mut head);
        assert_eq!(head, of(&passes));
    }

    #[test]
    fn no_address_and_nothing_between_lictors_goes_outside() {
        let mut head = headers(&[
            ("x-lictor-attempts", "127.0.0.1:1=503"),
            ("x_lictor_upstream", "a"),
            ("proxy-status", "lictor; error=connection_refused; Next-Hop=\"127.0.0.1:1\""),
            ("x-request-id", "1"),
        ]);
        seal(&mut head);
        assert_eq!(head, headers(&[("x-request-id", "1")]));
        let own = headers(&[("proxy-status", "lictor; error=connection_refused")]);
        let mut head = own.clone();
        seal(&mut head);
        assert_eq!(head, own);
    }

    #[test]
    fn our_own_hop_in_via_is_a_loop() {
        for via in ["1.0 fred, 1.1 lictor-a", "2.0 lictor-a", "HTTP/1.1 lictor-a (old)", "1.1\tlictor-a"] {
            assert!(is_loop(&headers(&[("via", via)]), "lictor-a"), "{via}");
        }
        assert!(is_loop(&headers(&[("via", "1.0 fred"), ("via", "1.1 lictor-a")]), "lictor-a"));
        for via in ["1.0 fred, 1.1 lictor-b", "lictor-a", "1.1 fred (1.1 lictor-a)", "1.1 lictor-a:80"] {
            assert!(!is_loop(&headers(&[("via", via)]), "lictor-a"), "{via}");
        }
    }

    #[test]
    fn the_peer_is_appended_to_all_lines_of_forwarded_for() {
        let rows: [(&[&str], &str); 6] = [
            (&[], "10.0.0.2"),
            (&["203.0.113.7"], "203.0.113.7, 10.0.0.2"),
            (&["198.51.100.1", "203.0.113.7"], "198.51.100.1, 203.0.113.7, 10.0.0.2"),
            (&["a, b", "c"], "a, b, c, 10.0.0.2"),
            (&["a", "", "b"], "a, b, 10.0.0.2"),
            (&["\u{e4}", "b"], "\u{e4}, b, 10.0.0.2"),
        ];
        for (lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let mut headers = headers(&lines);
            let fields = fields_of(&mut headers);
            let chain = forwarded_for(&headers, fields, "10.0.0.2".parse().unwrap());
            assert_eq!(String::from_utf8(chain).unwrap(), expected);
        }
    }

    #[test]
    fn media_types_do_not_differ_by_case_and_have_parameters() {
        let of = |value: &str| headers(&[("content-type", value)]);
        for value in ["application/grpc", "Application/gRPC", "application/grpc+proto", "application/grpc; a=b"] {
            assert!(is_grpc(&of(value)) && is_stream(&of(value)), "{value}");
        }
        for value in
            ["application/grpc-web", "application/grpc-web+proto", "application/GRPC-Web-Text", "text/event-stream"]
        {
            assert!(!is_grpc(&of(value)) && is_stream(&of(value)), "{value}");
        }
        for value in
            ["Text/Event-Stream;charset=utf-8", "MULTIPART/X-Mixed-Replace; boundary=a", "application/x-NDJSON"]
        {
            assert!(is_stream(&of(value)), "{value}");
        }
        for value in ["text/event-streams", "text/html", "", "application/grpcs", "application/grpc-webby"] {
            assert!(!is_grpc(&of(value)) && !is_stream(&of(value)), "{value}");
        }
    }
}
