//! Requests that a cache has a say in, and which of them are equal (RFC 9111, sections 2 and 4).

use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, FORWARDED, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, Method};

use super::directives::Asked;

/// With one of these a request wants something else than the whole answer, or another method: it is passed on.
const SPECIAL: [HeaderName; 7] = [
    IF_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];
/// Servers choose an answer's form by these, also where they forget to say so by `Vary`.
const FORM: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, FORWARDED];
/// Servers believe fields with these beginnings about what was asked, and where; but for `X-Forwarded-For`, which tells
/// whose connection it came by.
const WHERE: [&str; 4] = ["x-forwarded-", "x-host", "x-original-", "x-rewrite-"];
/// A field whose name has one of these tells who asks.
const WHO: [&str; 16] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "api-key",
    "apikey",
    "session",
    "credential",
    "subscription-key",
    "jwt",
    "tenant",
    "user-id",
    "userid",
    "x-user-",
];
/// Our callee's name for its caller.
const FROM: &str = "x-lictor-from";

/// A request that a cache has a say in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub(super) asked: Asked,
    /// HEAD: only an answer's head is wanted.
    pub is_head: bool,
    /// The client has an answer, and asks whether it is still good (RFC 9110, section 13).
    pub is_conditional: bool,
}

/// Where a request goes, besides what its head says.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The service that answers: what changes it, changes it for all who call it.
    pub service: &'a str,
    /// The upstream by which it is called: nothing of one is ever given in place of another's.
    pub upstream: &'a str,
    /// What the request says of who somebody is reaches whoever answers.
    pub is_believed: bool,
    /// `http` or `https`, as the client spoke.
    pub scheme: &'a str,
    /// The host that the client named.
    pub authority: &'a [u8],
    /// The instance that it named.
    pub instance: &'a str,
    /// Path and query.
    pub target: &'a str,
}

/// What equal requests have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What is asked for; a request that changes it makes all its answers invalid.
    pub resource: Arc<[u8]>,
    /// By whom, through which name, and in what form.
    pub asker: Arc<[u8]>,
}

impl Question {
    /// None where the request is neither answered from the cache nor its answer kept. Fields that `Connection` nominates
    /// must be gone from the head.
    pub fn of(method: &Method, headers: &HeaderMap, has_body: bool) -> Option<Self> {
        let is_head = *method == Method::HEAD;
        if has_body || (*method != Method::GET && !is_head) || SPECIAL.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let is_conditional = headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
        Some(Self { asked: Asked::of(headers), is_head, is_conditional })
    }

    /// Neither may be kept for it, nor may it be given what is kept (section 5.2.1.5).
    pub fn is_secret(&self) -> bool {
        self.asked.no_store
    }

    /// Without a kept answer it wants none (section 5.2.1.7).
    pub fn is_for_the_cache_only(&self) -> bool {
        self.asked.only_if_cached
    }

    /// The client does not want what is kept, unless it was validated.
    pub fn wants_validation(&self) -> bool {
        self.asked.no_cache
    }

    /// What equal requests have in common. Values are apart by a byte that no field can have (RFC 9110, section 5.5).
    pub fn key(place: &Place<'_>, headers: &HeaderMap) -> Key {
        let mut asker = Vec::with_capacity(128);
        let authority = place.authority.to_ascii_lowercase();
        asker.push(u8::from(place.is_believed));
        for part in [place.upstream.as_bytes(), place.scheme.as_bytes(), place.instance.as_bytes(), &authority] {
            asker.extend_from_slice(part);
            asker.push(0);
        }
        for name in headers.keys().filter(|name| FORM.contains(name) || tells_who_asks(name)) {
            for value in headers.get_all(name) {
                asker.extend_from_slice(name.as_str().as_bytes());
                asker.push(0);
                asker.extend_from_slice(value.as_bytes());
                asker.push(0);
            }
        }
        Key { resource: Self::resource(place.service, place.target), asker: asker.into() }
    }

    /// What a request asks for, whoever asks.
    pub fn resource(service: &str, target: &str) -> Arc<[u8]> {
        let path = if target.starts_with('?') { "/" } else { "" }; // RFC 9112, section 3.2.1
        [service.as_bytes(), &[0], path.as_bytes(), target.as_bytes()].concat().into()
    }
}

/// Who asks, for what, or through which name.
fn tells_who_asks(name: &HeaderName) -> bool {
    let tells = |name: &str| {
        let is_where = name != "x-forwarded-for" && WHERE.iter().any(|start| name.starts_with(start));
        is_where || name == FROM || tells_who(name)
    };
    // Some programs take `_` for `-`.
    tells(name.as_str()) || (name.as_str().contains('_') && tells(&name.as_str().replace('_', "-")))
}

/// Whether a field of this name, in lower case, shows who asks: a cookie, a key, a token.
pub fn tells_who(name: &str) -> bool {
    let tells = |name: &str| WHO.iter().any(|word| name.contains(word));
    tells(name) || (name.contains('_') && tells(&name.replace('_', "-")))
}
