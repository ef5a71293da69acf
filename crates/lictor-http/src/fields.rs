//! What RFC 9110 and 9112 ask of an intermediary about a head's fields, beyond framing: one host, one length, nothing of
//! one connection on another (RFC 9110, section 7.6.1). All of it is pure.

use std::time::Duration;

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, LOCATION, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};

use crate::digits::length;
use crate::target;

/// A head with more fields is refused, in either version, of a request and of an answer.
pub(crate) const FIELDS_MAX: usize = 100;

/// `Keep-Alive` (RFC 9112, appendix C.2.2).
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Proxy-Connection` (the same).
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `HTTP2-Settings` (RFC 7540, section 3.2.1, which RFC 9113 has dropped).
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// How long a head, whose framing was checked, says that its content is.
pub fn told_length(headers: &HeaderMap) -> Option<u64> {
    length(headers.get(CONTENT_LENGTH)?.as_bytes())
}

/// Refuses a head that names its host in no way, or in two, whose target is none (RFC 9112, section 3.2), or whose body
/// is coded in a way that nobody understands here.
pub fn check<B>(request: &Request<B>, fields: Fields) -> Result<(), &'static str> {
    target::check(request)?;
    if fields.has(Fields::TRANSFER_ENCODING) && !is_chunked_at_most(request.headers()) {
        return Err("no transfer coding but chunked is understood");
    }
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("the request has more than one Host");
    }
    match first {
        Some(host) if host.is_empty() => Ok(()),
        Some(host) if target::is_host(host.as_bytes()) => Ok(()),
        Some(_) => Err("the request's Host is not a host and port"),
        None if request.version() == Version::HTTP_11 => Err("an HTTP/1.1 request needs a Host"),
        None => Ok(()),
    }
}

/// Takes off what has nothing to say to whoever reads the head, before anybody does: the fields that `Connection` names,
/// which are the connection's (RFC 9110, section 7.6.1), and empty ones that would say something to `M`. Returns which
/// fields are left.
pub fn clean<M: Marks>(headers: &mut HeaderMap, fields: Fields) -> Fields {
    if !fields.has(Fields::CONNECTION | Fields::EMPTY) {
        return fields;
    }
    let before = headers.len();
    if fields.has(Fields::CONNECTION) {
        strip_named(headers);
    }
    if fields.has(Fields::EMPTY) {
        let is_empty =
            |(name, value): &(&HeaderName, &HeaderValue)| value.is_empty() && M::of(name.as_str()) & M::SAYING != 0;
        let empty: Vec<HeaderName> = headers.iter().filter(is_empty).map(|(name, _)| name.clone()).collect();
        for name in empty {
            let said: Vec<_> = headers.get_all(&name).into_iter().filter(|value| !value.is_empty()).cloned().collect();
            headers.remove(&name);
            for value in said {
                headers.append(&name, value);
            }
        }
    }
    if headers.len() == before { fields } else { Fields::of::<M>(headers) }
}

/// Takes off what may not come after a body: what frames, routes, authenticates, says what the content is, or belongs to
/// the connection (RFC 9110, section 6.5.1). What the head's `Connection` names has not been taken for a trailer at all.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 25] = [
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
        HTTP2_SETTINGS,
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
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).into_iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("made of values and `; `");
    headers.insert(COOKIE, whole);
}

/// Which of the fields that somebody looks for a head has: one pass over its names, instead of a search for each. The
/// lower half are those that the wire itself needs; the upper half is for the [`Marks`] of whoever answers or asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields(u32);

/// Fields that a user of this crate looks for in a head.
pub trait Marks: 'static {
    /// The bits of fields that are as good as not there when they are empty ([`clean`]).
    const SAYING: u32 = u32::MAX;

    /// The bits for a field with this name, in lower case: any from [`Fields::MARKS`] up, none for what nobody looks for.
    /// Asked for each name that the wire itself does not look for.
    fn of(name: &str) -> u32;
}

/// An answer whose head has come, and what that has.
#[derive(Debug)]
pub struct Answered<B> {
    /// The head; the body is on its way.
    pub response: Response<B>,
    /// Which fields the head has.
    pub fields: Fields,
}

impl Marks for () {
    fn of(_: &str) -> u32 {
        0
    }
}

impl Fields {
    /// `Connection`, where it says more than `close` and `keep-alive`.
    pub const CONNECTION: u32 = 1;
    /// `Upgrade`.
    pub const UPGRADE: u32 = 1 << 1;
    /// `TE`.
    pub const TE: u32 = 1 << 2;
    /// `Via`.
    pub const VIA: u32 = 1 << 3;
    /// `Content-Length`.
    pub const CONTENT_LENGTH: u32 = 1 << 4;
    /// `Content-Type`.
    pub const CONTENT_TYPE: u32 = 1 << 5;
    /// `Transfer-Encoding`.
    pub const TRANSFER_ENCODING: u32 = 1 << 6;
    /// `Expect`.
    pub const EXPECT: u32 = 1 << 7;
    /// Those of the connection that are none of the above.
    pub(crate) const OTHER_HOPS: u32 = 1 << 8;
    /// Some field has no value.
    const EMPTY: u32 = 1 << 9;
    /// `Date`.
    pub const DATE: u32 = 1 << 10;
    /// The lowest of sixteen bits that [`Marks`] may use.
    pub const MARKS: u32 = 1 << 16;

    /// What these have.
    pub fn of<M: Marks>(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        headers.iter().for_each(|(name, value)| fields.add::<M>(name, value));
        fields
    }

    fn add<M: Marks>(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.note(Self::bit::<M>(name.as_str()), value);
    }

    /// A field that is one of these.
    pub(crate) fn note(&mut self, bits: u32, value: &HeaderValue) {
        self.0 |= bits;
        if value.is_empty() {
            self.0 |= Self::EMPTY;
        }
    }

    /// Whether any of these is there.
    pub fn has(self, any: u32) -> bool {
        self.0 & any != 0
    }

    /// Which of those that somebody looks for a field with this name is.
    pub(crate) fn bit<M: Marks>(name: &str) -> u32 {
        match name {
            "content-length" => Self::CONTENT_LENGTH,
            "content-type" => Self::CONTENT_TYPE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "expect" => Self::EXPECT,
            "connection" => Self::CONNECTION,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "via" => Self::VIA,
            "date" => Self::DATE,
            "http2-settings" | "keep-alive" | "proxy-authenticate" | "proxy-authorization" | "proxy-connection" => {
                Self::OTHER_HOPS
            }
            name => M::of(name),
        }
    }
}

/// Takes off a message what belongs to the connection it came on; what `Connection` names is off already ([`clean`]).
/// With `keeps_upgrade` the `Upgrade` stays.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, fields: Fields, keeps_upgrade: bool) {
    if fields.has(Fields::CONNECTION) {
        headers.remove(CONNECTION);
    }
    if fields.has(Fields::UPGRADE) && !keeps_upgrade {
        headers.remove(UPGRADE);
    }
    if fields.has(Fields::TE) {
        headers.remove(TE);
    }
    if fields.has(Fields::OTHER_HOPS) {
        for name in [HTTP2_SETTINGS, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, PROXY_CONNECTION] {
            headers.remove(name);
        }
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(TRANSFER_ENCODING);
    }
}

/// What goes on of an interim answer's fields.
pub(crate) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let fields = Fields::of::<()>(&headers);
    let fields = clean::<()>(&mut headers, fields);
    strip_hop_by_hop(&mut headers, fields, false);
    headers
}

/// Takes off what `Connection` names (RFC 9110, section 7.6.1), but for what decides where a message goes and how long it
/// is, and for what the connection itself is governed by.
fn strip_named(headers: &mut HeaderMap) {
    for name in named(headers) {
        headers.remove(name);
    }
}

/// What `Connection` names of a message's own: fields of its head, and of its trailers.
pub(crate) fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    const KEPT: [HeaderName; 10] =
        [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, KEEP_ALIVE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA];
    let names = tokens(headers, &CONNECTION).filter_map(|token| HeaderName::try_from(token).ok());
    names.filter(|name| !KEPT.contains(name)).collect()
}

/// Whether a client may ask for this in place of HTTP: a protocol's name, maybe with a version (RFC 9110, section 7.8). Not
/// for what HTTP comes in again (`h2c`, `HTTP`, `TLS`): its requests would go past everything that is checked.
pub fn is_protocol(text: &[u8]) -> bool {
    let (name, version) = text.split_at(text.iter().position(|byte| *byte == b'/').unwrap_or(text.len()));
    let is_token = |text: &[u8]| HeaderName::from_bytes(text).is_ok();
    let carries_http = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
        || [&b"http"[..], b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known));
    is_token(name) && (version.is_empty() || is_token(&version[1..])) && !carries_http
}

/// Whether the client wants trailers. Nothing else of its `TE` goes further.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Whether the client waits for a 100 before it sends its content (RFC 9110, section 10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// How long a server says that it keeps a connection on which nothing is asked: `Keep-Alive: timeout=5` (RFC 2068, section
/// 19.7.1.1).
pub(crate) fn keeps_for(headers: &HeaderMap) -> Option<Duration> {
    let name = KEEP_ALIVE;
    let said = tokens(headers, &name).filter_map(|parameter| parameter.split_once('='));
    let mut timeouts = said.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    let seconds = length(timeouts.next()?.1.trim().trim_matches('"').as_bytes())?;
    Some(Duration::from_secs(seconds))
}

/// The comma-separated members of all fields of this name.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Whether nothing but `chunked` was applied on the way: what else it was would be lost (RFC 9112, section 6.1).
pub(crate) fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let is_chunked =
        codings.next().is_none_or(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
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
        let fields = Fields::of::<()>(map);
        let fields = clean::<()>(map, fields);
        strip_hop_by_hop(map, fields, keeps_upgrade);
    }

    /// Names and values.
    type Lines<'a> = &'a [(&'a str, &'a str)];

    /// What somebody looks for.
    struct Looked;
    impl Marks for Looked {
        fn of(name: &str) -> u32 {
            if name.starts_with("x-ours") { Fields::MARKS } else { 0 }
        }
    }

    #[test]
    fn what_connection_names_and_what_is_empty_is_not_there() {
        let rows: &[(&str, Lines<'_>, Lines<'_>)] = &[
            ("named", &[("connection", "X-Ours"), ("x-ours", "1")], &[("connection", "X-Ours")]),
            (
                "named on the second line, in other case, twice there",
                &[("connection", "keep-alive"), ("connection", "a,x-OURS-2"), ("x-ours-2", "1"), ("x-ours-2", "2")],
                &[("connection", "keep-alive"), ("connection", "a,x-OURS-2")],
            ),
            (
                "named, and nobody looks for it",
                &[
                    ("connection", "forwarded, x-forwarded-for, cookie"),
                    ("forwarded", "for=a"),
                    ("x-forwarded-for", "a"),
                ],
                &[("connection", "forwarded, x-forwarded-for, cookie")],
            ),
            (
                "what frames, routes or governs the connection stays",
                &[
                    ("connection", "host, content-length, via, upgrade"),
                    ("host", "a"),
                    ("via", "1.1 a"),
                    ("upgrade", "b"),
                ],
                &[
                    ("connection", "host, content-length, via, upgrade"),
                    ("host", "a"),
                    ("via", "1.1 a"),
                    ("upgrade", "b"),
                ],
            ),
            ("empty", &[("x-ours", ""), ("x-b", "1")], &[("x-b", "1")]),
            ("one of two empty", &[("x-ours", ""), ("x-ours", "1")], &[("x-ours", "1")]),
            ("both empty", &[("x-ours", ""), ("x-ours", "")], &[]),
            ("empty, and nobody looks for it", &[("x-b", "")], &[("x-b", "")]),
            ("not named", &[("connection", "close"), ("x-ours", "1")], &[("connection", "close"), ("x-ours", "1")]),
        ];
        for (name, came, left) in rows {
            let mut map = headers(came);
            let fields = Fields::of::<Looked>(&map);
            let fields = clean::<Looked>(&mut map, fields);
            assert_eq!(map, headers(left), "{name}");
            assert_eq!(fields.has(Fields::MARKS), map.keys().any(|name| name.as_str().starts_with("x-ours")), "{name}");
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
    fn no_protocol_is_one_that_carries_http() {
        for name in ["websocket", "WebSocket", "websocket/13", "chat", "connect-udp", "httpx", "tlsx", "h3"] {
            assert!(is_protocol(name.as_bytes()), "{name}");
        }
        let carriers = ["h2c", "H2C", "h2", "h2c-14", "h2c/1", "HTTP", "http/2.0", "TLS/1.0"];
        let none =
            ["", "websocket, h2c", "h2c,websocket", " h2c", "websocket h2c", "\"h2c\"", "a/", "a/b/c", "/", "\u{fc}"];
        for name in carriers.iter().chain(&none) {
            assert!(!is_protocol(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn one_pass_finds_what_is_there() {
        struct Colours;
        impl Marks for Colours {
            fn of(name: &str) -> u32 {
                if name == "x-red" { Fields::MARKS } else { 0 }
            }
        }
        let fields = Fields::of::<Colours>(&headers(&[("x-red", "1"), ("via", "a"), ("x-green", "1s")]));
        assert!(fields.has(Fields::MARKS) && fields.has(Fields::VIA));
        assert!(!fields.has(Fields::CONNECTION | Fields::TE | Fields::MARKS << 1));
    }

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let rows = [
            ("timeout=5", Some(5)),
            ("max=100, Timeout=7", Some(7)),
            ("timeout = 9", Some(9)),
            ("timeout=\"3\"", Some(3)),
            ("timeout=0", Some(0)),
            ("timeout", None),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=5s", None),
            ("max=5", None),
            ("", None),
        ];
        for (said, seconds) in rows {
            assert_eq!(keeps_for(&headers(&[("keep-alive", said)])), seconds.map(Duration::from_secs), "{said}");
        }
        assert_eq!(
            keeps_for(&headers(&[("keep-alive", "max=1"), ("keep-alive", "timeout=2")])),
            Some(Duration::from_secs(2))
        );
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
            check(&request, Fields::of::<()>(request.headers())).is_ok()
        };
        assert!(with(&["a"]) && with(&["a:80"]) && with(&[""]));
        assert!(!with(&[]) && !with(&["a", "a"]) && !with(&["a b"]));
    }
}
