//! Which answers are compressed on their way to a client, by what it accepts (RFC 9110, section 12.5.3), and what an
//! answer's head becomes then. The compressing itself is the data plane's.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::vary::vary;
use crate::caching;

/// They describe the bytes that go, and these are others by then (RFC 9110, section 14.3; RFC 9530).
const OF_THE_BYTES: [HeaderName; 6] = [
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];
/// What is text, whatever it is called.
const TYPES: [&str; 10] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
];

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    #[cfg(feature = "zstd")]
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All, the better ones first.
    pub const ALL: &'static [Self] = &[
        #[cfg(feature = "zstd")]
        Self::Zstd,
        Self::Brotli,
        Self::Gzip,
    ];

    /// As `Content-Encoding` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        let other: &[u8] = if self == Self::Gzip { b"x-gzip" } else { b"" }; // RFC 9110, section 8.4.1.3
        name.eq_ignore_ascii_case(self.as_str().as_bytes()) || name.eq_ignore_ascii_case(other)
    }
}

/// A type of content: `text/html`, all of one kind (`text/*`), or all that are made of another (`*+json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(Box<str>);

impl MediaType {
    /// As it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_token = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        let is_one = match text.split_once('/') {
            Some((kind, rest)) => is_token(kind) && (rest == "*" || is_token(rest)),
            None => text.strip_prefix("*+").is_some_and(is_token),
        };
        if !is_one {
            return Err(format!("`{text}` is not a media type: write `text/html`, `text/*` or `*+json`"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_of(&self, essence: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if let Some(kind) = own.strip_suffix(b"*") {
            return essence.len() > kind.len() && essence[..kind.len()].eq_ignore_ascii_case(kind);
        }
        match own.strip_prefix(b"*") {
            Some(end) => essence.len() > end.len() && essence[essence.len() - end.len()..].eq_ignore_ascii_case(end),
            None => essence.eq_ignore_ascii_case(own),
        }
    }
}

/// Which answers are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// How, the ones that are liked better first.
    pub codings: Vec<Coding>,
    /// A shorter answer is sent as it is.
    pub min_size: usize,
    /// What is compressed, by its type.
    pub types: Vec<MediaType>,
    /// Also what somebody gets who shows who he is. What an attacker can make a page repeat tells him, by the length of
    /// the answer, what else is in it (BREACH, CVE-2013-3587).
    pub with_credentials: bool,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            codings: Coding::ALL.to_vec(),
            min_size: 1 << 10,
            types: TYPES.map(|text| MediaType(text.into())).to_vec(),
            with_credentials: false,
        }
    }
}

/// What a request says of how its answer may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// HEAD: the answer has the head that GET's has.
    pub is_head: bool,
    /// The coding that it likes best.
    coding: Option<Coding>,
    /// It does not take what is not coded (`identity;q=0`).
    refuses_identity: bool,
    /// Nothing on the way is to change the answer.
    forbids: bool,
    /// It shows who asks.
    is_secret: bool,
    /// What the client has already.
    known: Vec<HeaderValue>,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes as it is.
    Never(Plain),
    /// The same, to this client.
    Identity(Plain),
    /// So it goes, if it is as long as this.
    Code(Coding, usize),
}

/// Why an answer goes as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// It has no body, or a part of one.
    Status,
    /// It is coded already.
    Coded,
    /// `no-transform`.
    Forbidden,
    /// It is of another type.
    Type,
    /// It comes as a stream.
    Stream,
    /// Its client takes no coding that there is.
    Unwanted,
    /// It is for somebody who has shown who he is (BREACH).
    Secret,
    /// It is too short.
    Small,
    /// As many as may be were just being compressed.
    Full,
}

impl Plain {
    /// All, with their words in metrics.
    pub const ALL: [(&str, Self); 9] = [
        ("status", Self::Status),
        ("coded", Self::Coded),
        ("no_transform", Self::Forbidden),
        ("type", Self::Type),
        ("stream", Self::Stream),
        ("unwanted", Self::Unwanted),
        ("credentials", Self::Secret),
        ("small", Self::Small),
        ("full", Self::Full),
    ];

    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

impl Compress {
    /// What the client's own head says, before anything of ours is added to it.
    pub fn wish(&self, method: &Method, request: &HeaderMap) -> Wish {
        let (coding, refuses_identity) = choose(request, &self.codings);
        Wish {
            is_head: *method == Method::HEAD,
            coding,
            refuses_identity,
            forbids: forbids_transform(request),
            is_secret: request.keys().any(|name| caching::tells_who(name.as_str())),
            known: request.get_all(IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// What becomes of an answer with this head, which is no stream. `is_known` is whether the gateway knows who asks.
    pub fn judge(&self, wish: &Wish, is_known: bool, status: StatusCode, headers: &HeaderMap) -> Verdict {
        let has_body = !status.is_informational()
            && !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let is_part = status == StatusCode::PARTIAL_CONTENT;
        let is_coded = headers.contains_key(CONTENT_ENCODING) || (headers.contains_key(CONTENT_RANGE) && !is_part);
        let never = match () {
            () if !has_body => Some(Plain::Status),
            () if is_coded => Some(Plain::Coded),
            () if wish.forbids || forbids_transform(headers) => Some(Plain::Forbidden),
            () if !self.is_for(headers, wish) => Some(Plain::Type),
            () => None,
        };
        if let Some(why) = never {
            return Verdict::Never(why);
        }
        if is_part {
            return Verdict::Identity(Plain::Status); // with the `Vary` of the whole (RFC 9110, section 15.3.7)
        }
        let is_secret = wish.is_secret || is_known || headers.contains_key(SET_COOKIE);
        match wish.coding {
            Some(coding) if self.with_credentials || !is_secret => {
                Verdict::Code(coding, if wish.refuses_identity { 1 } else { self.min_size })
            }
            Some(_) => Verdict::Identity(Plain::Secret),
            None => Verdict::Identity(Plain::Unwanted),
        }
    }

    fn is_for(&self, headers: &HeaderMap, wish: &Wish) -> bool {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return wish.refuses_identity };
        let essence = line.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        wish.refuses_identity || self.types.iter().any(|own| own.is_of(essence))
    }
}

impl Wish {
    /// The head of an answer that is coded so.
    pub fn dress(coding: Coding, headers: &mut HeaderMap) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        for name in OF_THE_BYTES {
            headers.remove(name);
        }
        weaken(headers, |_| true);
    }

    /// The head of a 304: the entity tag has the form in which the client has it.
    pub fn confirm(&self, headers: &mut HeaderMap) {
        varies(headers);
        let has_weak = |tag: &[u8]| {
            let weak = [b"W/", tag].concat();
            self.known.iter().any(|line| line.as_bytes().windows(weak.len()).any(|part| part == weak))
        };
        weaken(headers, has_weak);
    }

    /// Takes off a body's trailers what describes other bytes than those that went.
    pub fn undress(trailers: &mut HeaderMap) {
        for name in OF_THE_BYTES {
            trailers.remove(name);
        }
    }
}

/// Says that another client may get another form of this (RFC 9110, section 12.5.5).
pub fn varies(headers: &mut HeaderMap) {
    vary(headers, "Accept-Encoding");
}

/// A strong entity tag is that of other bytes (RFC 9110, section 8.8.1). What is none goes.
fn weaken(headers: &mut HeaderMap, is_meant: impl Fn(&[u8]) -> bool) {
    let Some(tag) = headers.get(ETAG).map(HeaderValue::as_bytes) else { return };
    if tag.starts_with(b"W/\"") || (tag.starts_with(b"\"") && !is_meant(tag)) {
        return;
    }
    let weak = HeaderValue::from_bytes(&[b"W/", tag].concat()).ok().filter(|_| tag.starts_with(b"\""));
    match weak {
        Some(weak) => headers.insert(ETAG, weak),
        None => headers.remove(ETAG),
    };
}

/// `no-transform` (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
fn forbids_transform(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        let mut said = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        said.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    })
}

/// The coding that a request likes best of these, and whether it takes nothing that is not coded. Without
/// `Accept-Encoding` nothing is coded: who says nothing is likely to read nothing but the content itself.
fn choose(request: &HeaderMap, offered: &[Coding]) -> (Option<Coding>, bool) {
    let members = || {
        let lines =
            request.get_all(ACCEPT_ENCODING).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        lines.filter_map(member)
    };
    let of = |is_it: &dyn Fn(&[u8]) -> bool| members().find(|(name, _)| is_it(name)).map(|(_, weight)| weight);
    let others = of(&|name| name == b"*");
    let identity = of(&|name| name.eq_ignore_ascii_case(b"identity")).or(others.filter(|weight| *weight == 0));
    let mut best: Option<(Coding, u16)> = None;
    for coding in offered {
        let weight = of(&|name| coding.is_named(name)).or(others).unwrap_or_default();
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    let best = best.filter(|(_, weight)| identity.is_none_or(|identity| identity <= *weight));
    (best.map(|(coding, _)| coding), identity == Some(0))
}

/// A coding and its weight in thousandths; `None` where it cannot be understood.
fn member(text: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let is_weight = |part: &&[u8]| part.len() >= 2 && part[..2].eq_ignore_ascii_case(b"q=");
    let weight = parts.find(is_weight).map_or(Some(1000), |part| thousandths(&part[2..]))?;
    Some((name, weight))
}

/// A `qvalue` (RFC 9110, section 12.4.2): `1`, `0.5`, at most three digits behind the point.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] | [whole @ (b'0' | b'1'), b'.'] => (u16::from(whole - b'0'), &b""[..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (u16::from(whole - b'0'), digits),
        _ => return None,
    };
    let mut part = 0;
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        part = part * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(whole * 1000 + part).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn the_client_says_what_it_takes() {
        let br = Some(Coding::Brotli);
        let gzip = Some(Coding::Gzip);
        let first = Coding::ALL.first().copied();
        let zstd = first.filter(|first| first.as_str() == "zstd");
        for (accepts, coding, refuses_identity) in [
            (&[][..], None, false),
            (&[""], None, false),
            (&["gzip"], gzip, false),
            (&["GZip"], gzip, false),
            (&["x-gzip"], gzip, false),
            (&["br"], br, false),
            (&["gzip, deflate, br"], br, false),
            (&["gzip, deflate, br, zstd"], first, false),
            (&["gzip, br, zstd;q=0.9"], br, false),
            (&["gzip, br, zstd;q=0"], br, false),
            (&["ZSTD"], zstd, false),
            (&["zstd;q=0.001"], zstd, false),
            (&["zstandard, xzstd"], None, false),
            (&["gzip", "br"], br, false),
            (&["gzip;q=1.0, br;q=0.5"], gzip, false),
            (&["gzip ; q=1.0 ,br ; Q=0.5"], gzip, false),
            (&["gzip;q=0.001"], gzip, false),
            (&["gzip;q=0"], None, false),
            (&["gzip;q=0.0"], None, false),
            (&["gzip;q=0.000, br"], br, false),
            (&["gzip;q=0, gzip"], None, false), // what is said first
            (&["*"], first, false),
            (&["*;q=0.5, br;q=0, zstd;q=0"], gzip, false),
            (&["*;q=0"], None, true),
            (&["*;q=0, gzip"], gzip, true),
            (&["*;q=0, identity"], None, false),
            (&["identity"], None, false),
            (&["identity;q=0"], None, true),
            (&["identity;q=0, gzip;q=0.1"], gzip, true),
            (&["gzip;q=0.5, identity;q=0.6"], None, false),
            (&["gzip;q=0.5, identity;q=0.5"], gzip, false),
            (&["gzip;q=0.5, *;q=0.6"], first, false),
            (&["deflate, compress, dcb, dcz"], None, false),
            (&["gzip;q=2"], None, false),
            (&["gzip;q=1.001"], None, false),
            (&["gzip;q=0.1234"], None, false),
            (&["gzip;q=-1"], None, false),
            (&["gzip;q="], None, false),
            (&["gzip;q=.5"], None, false),
            (&["gzip;q=0.x"], None, false),
            (&["gzip;q=1."], gzip, false),
            (&["gzip;level=9;q=0"], None, false),
            (&[",, ;q=1, gzip,"], gzip, false),
            (&["gzips, xbr"], None, false),
            (&["\u{e4}, gzip"], gzip, false),
        ] {
            let lines: Vec<_> = accepts.iter().map(|line| ("accept-encoding", *line)).collect();
            assert_eq!(choose(&headers(&lines), Coding::ALL), (coding, refuses_identity), "{accepts:?}");
        }
        let takes_both = headers(&[("accept-encoding", "gzip, br")]);
        assert_eq!(choose(&takes_both, &[Coding::Gzip, Coding::Brotli]).0, gzip, "the gateway's own order");
        assert_eq!(choose(&takes_both, &[Coding::Gzip]).0, gzip);
        assert_eq!(choose(&takes_both, &[]).0, None);
    }

    #[test]
    fn types_are_named_whole_by_kind_or_by_what_they_are_made_of() {
        for (own, came, is_of) in [
            ("text/html", "text/html", true),
            ("Text/HTML", "tEXT/htmL", true),
            ("text/html", "text/htmlx", false),
            ("text/*", "text/css", true),
            ("text/*", "text/", false),
            ("text/*", "texts/css", false),
            ("*+json", "application/problem+json", true),
            ("*+json", "application/json", false),
            ("*+json", "+json", false),
        ] {
            assert_eq!(MediaType::parse(own).unwrap().is_of(came.as_bytes()), is_of, "{own} {came}");
        }
        for wrong in
            ["", "text", "*", "*/*", "text/", "/html", "text/a b", "te*t/html", "text/html;charset=utf-8", "*+"]
        {
            assert!(MediaType::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Names and values.
    type Lines<'a> = &'a [(&'a str, &'a str)];

    /// What becomes of an answer to a client that takes gzip.
    fn judged(compress: &Compress, request: &[(&str, &str)], status: u16, answer: &[(&str, &str)]) -> Verdict {
        let mut request = headers(request);
        request.entry("accept-encoding").or_insert(HeaderValue::from_static("gzip"));
        let wish = compress.wish(&Method::GET, &request);
        compress.judge(&wish, false, StatusCode::from_u16(status).unwrap(), &headers(answer))
    }

    #[test]
    fn what_may_not_be_changed_goes_as_it_is() {
        use Plain::{Coded, Forbidden, Secret, Status, Type, Unwanted};
        use Verdict::{Identity, Never};
        let compress = Compress::default();
        let json = ("content-type", "application/json; charset=utf-8");
        let gzip = Verdict::Code(Coding::Gzip, 1024);
        let rows: &[(Lines<'_>, u16, Lines<'_>, Verdict)] = &[
            (&[], 200, &[json], gzip),
            (&[], 404, &[json], gzip),
            (&[], 200, &[("content-type", "Image/SVG+xml")], gzip),
            (&[], 200, &[("content-type", " text/html ;x=y")], gzip),
            (&[], 200, &[], Never(Type)),
            (&[], 200, &[("content-type", "image/png")], Never(Type)),
            (&[], 200, &[json, json], Never(Type)),
            (&[], 200, &[json, ("content-encoding", "br")], Never(Coded)),
            (&[], 200, &[json, ("content-encoding", "identity")], Never(Coded)),
            (&[], 200, &[json, ("content-range", "bytes 0-1/2")], Never(Coded)),
            (&[], 200, &[json, ("cache-control", "max-age=1, No-Transform")], Never(Forbidden)),
            (&[], 200, &[json, ("cache-control", "max-age=1"), ("cache-control", "no-transform")], Never(Forbidden)),
            (&[("cache-control", "no-transform")], 200, &[json], Never(Forbidden)),
            (&[], 101, &[json], Never(Status)),
            (&[], 204, &[json], Never(Status)),
            (&[], 205, &[json], Never(Status)),
            (&[], 206, &[json, ("content-range", "bytes 0-1/2")], Identity(Status)),
            (&[("accept-encoding", "identity")], 206, &[json], Identity(Status)),
            (&[], 206, &[("content-type", "image/png")], Never(Type)),
            (&[], 206, &[json, ("content-encoding", "br")], Never(Coded)),
            (&[], 206, &[json, ("cache-control", "no-transform")], Never(Forbidden)),
            (&[], 304, &[json], Never(Status)),
            (&[("accept-encoding", "identity")], 200, &[json], Identity(Unwanted)),
            (&[("accept-encoding", "deflate")], 200, &[json], Identity(Unwanted)),
            (&[("accept-encoding", "gzip, identity;q=0")], 200, &[json], Verdict::Code(Coding::Gzip, 1)),
            (
                &[("accept-encoding", "gzip, *;q=0")],
                200,
                &[("content-type", "image/png")],
                Verdict::Code(Coding::Gzip, 1),
            ),
            (&[("accept-encoding", "gzip, *;q=0")], 200, &[json, ("content-encoding", "br")], Never(Coded)),
            (&[("cookie", "a=b")], 200, &[json], Identity(Secret)),
            (&[("authorization", "Bearer x")], 200, &[json], Identity(Secret)),
            (&[("x-api-key", "x")], 200, &[json], Identity(Secret)),
            (&[("x_csrf_token", "x")], 200, &[json], Identity(Secret)),
            (&[], 200, &[json, ("set-cookie", "a=b")], Identity(Secret)),
        ];
        for (request, status, answer, verdict) in rows {
            assert_eq!(judged(&compress, request, *status, answer), *verdict, "{request:?} {status} {answer:?}");
        }
        let asked = Compress { with_credentials: true, ..compress.clone() };
        assert_eq!(judged(&asked, &[("cookie", "a=b")], 200, &[json, ("set-cookie", "a=b")]), gzip);
        let wish = compress.wish(&Method::GET, &headers(&[("accept-encoding", "gzip")]));
        let ok = StatusCode::OK;
        assert_eq!(compress.judge(&wish, true, ok, &headers(&[json])), Identity(Secret), "the gateway knows who asks");
        assert_eq!(asked.judge(&wish, true, ok, &headers(&[json])), gzip);
        assert!(Plain::ALL.iter().enumerate().all(|(place, (_, why))| *why as usize == place), "they stand in order");
        assert!(Coding::ALL.iter().enumerate().all(|(place, coding)| *coding as usize == place));
    }

    #[test]
    fn a_head_says_what_its_bytes_are() {
        let mut head = headers(&[
            ("content-type", "text/html"),
            ("content-length", "5"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "x"),
            ("content-digest", "x"),
            ("repr-digest", "x"),
            ("last-modified", "x"),
        ]);
        Wish::dress(Coding::Gzip, &mut head);
        let expected = [("content-type", "text/html"), ("etag", "W/\"a\""), ("last-modified", "x")];
        let mut expected = headers(&expected);
        expected.insert("content-encoding", HeaderValue::from_static("gzip"));
        assert_eq!(head, expected);
        for (tag, becomes) in [("W/\"a\"", Some("W/\"a\"")), ("\"\"", Some("W/\"\"")), ("a", None), ("w/\"a\"", None)] {
            let mut head = headers(&[("etag", tag)]);
            Wish::dress(Coding::Brotli, &mut head);
            assert_eq!(head.get("etag").map(|tag| tag.to_str().unwrap()), becomes, "{tag}");
        }
    }

    #[test]
    fn a_confirmation_has_the_tag_that_the_client_has() {
        let compress = Compress::default();
        for (known, tag, told) in [
            ("W/\"a\"", "\"a\"", "W/\"a\""),
            ("\"a\"", "\"a\"", "\"a\""),
            ("\"b\", W/\"a\"", "\"a\"", "W/\"a\""),
            ("W/\"b\", \"a\"", "\"a\"", "\"a\""),
            ("W/\"a\"", "W/\"a\"", "W/\"a\""),
            ("*", "\"a\"", "\"a\""),
        ] {
            let mut head = headers(&[("etag", tag)]);
            compress.wish(&Method::GET, &headers(&[("if-none-match", known)])).confirm(&mut head);
            assert_eq!(head["etag"], told, "{known} {tag}");
            assert_eq!(head["vary"], "Accept-Encoding");
        }
    }

    #[test]
    fn vary_is_said_once() {
        for (lines, told) in [
            (&[][..], &["Accept-Encoding"][..]),
            (&["Origin"], &["Origin, Accept-Encoding"]),
            (&["Origin, accept-encoding"], &["Origin, accept-encoding"]),
            (&["*"], &["*"]),
            (&["Accept"], &["Accept, Accept-Encoding"]),
        ] {
            let mut head = headers(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>());
            varies(&mut head);
            assert_eq!(head.get_all("vary").iter().collect::<Vec<_>>(), told, "{lines:?}");
        }
    }
}
