//! Who asks, and may he? Where a route asks nothing, nobody looks.
//!
//! A client hears one fixed sentence for each kind of refusal, and `WWW-Authenticate` as RFC 6750, section 3 has it; what exactly was wrong is
//! in the log and the story.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use lictor_core::gateway::auth::{Auth, How, Identity, Mode, Tokens};
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_jose::forward::{Field, field};
use lictor_jose::refresh::Miss;
use lictor_jose::source::{self, Found, Place};
use lictor_jose::{Kind, Refusal, Verified, Why};
use tokio::time::timeout_at;
use tracing::debug;

use super::{Stop, Visit};
use crate::admission::cache::Untold;
use crate::world::client::Connection;

/// Whom a challenge speaks for (RFC 9110, section 11.5).
const REALM: &str = "gateway";
/// A token whose key may be on its way waits no longer for it.
const KEY_WITHIN: Duration = Duration::from_secs(1);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Finds out who asks, and whether he may; what those behind us are told of him is in the head afterwards.
pub(super) async fn check(
    visit: &mut Visit,
    connection: &Rc<Connection>,
    request: &mut Request<RequestBody>,
) -> Result<(), Stop> {
    let Some(auth) = visit.rules.auth.clone().filter(|auth| auth.mode != Mode::None) else { return Ok(()) };
    let shown = identify(&auth, visit, connection, request).await;
    let identity = match shown {
        Ok(identity) => identity,
        Err(No::Token(refusal)) if refusal.kind() == Kind::Missing && auth.mode == Mode::Optional => return Ok(()),
        Err(No::Token(refusal)) => return Err(visit.refuse(&refusal)),
        Err(No::Other(stop)) => return Err(stop),
    };
    auth.rules.judge(&identity.known).map_err(|refusal| visit.refuse(&refusal))?;
    tell(&auth, &identity, request.headers_mut());
    if visit.is_private {
        request.extensions_mut().insert(Untold);
    }
    visit.identity = Some(identity);
    Ok(())
}

/// Why nobody is known.
enum No {
    /// What was shown, or that nothing was.
    Token(Refusal),
    Other(Stop),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Token(refusal)
    }
}

impl Visit {
    fn refuse(&mut self, refusal: &Refusal) -> Stop {
        let kind = refusal.kind();
        self.challenge = kind.challenge(REALM).and_then(|text| HeaderValue::try_from(text).ok());
        self.has_failed = kind == Kind::InvalidToken;
        let reason = match kind {
            Kind::Missing | Kind::InvalidToken => Reason::Unauthenticated,
            Kind::InvalidRequest => Reason::BadRequest,
            Kind::InsufficientScope => Reason::Forbidden,
            Kind::Unavailable => Reason::AuthUnavailable,
        };
        Stop::Refused(Failure::new(reason, refusal.to_string()), kind.message())
    }
}

/// Who asks, by the one thing that he shows.
async fn identify(
    auth: &Auth,
    visit: &mut Visit,
    connection: &Connection,
    request: &Request<RequestBody>,
) -> Result<Identity, No> {
    let Some(tokens) = &auth.methods.tokens else {
        return Err(No::Other(Stop::Refused(
            Failure::new(Reason::AuthUnavailable, "nobody is believed here"),
            Kind::Unavailable.message(),
        )));
    };
    let headers = request.headers();
    let (shown, cookies) = (headers.get_all(AUTHORIZATION), headers.get_all(COOKIE));
    let found = source::find(
        &tokens.sources,
        shown.into_iter().map(HeaderValue::as_bytes),
        cookies.into_iter().map(HeaderValue::as_bytes),
        visit.query.as_deref(),
    )?;
    if found.place == Place::Cookie && changes_something(request) && !is_own_page(request) {
        let failure = Failure::new(
            Reason::Forbidden,
            "the token is in a cookie, and neither Sec-Fetch-Site nor Origin says that a page of this host asks",
        );
        return Err(No::Other(Stop::Refused(failure, "the request must come from a page of this site")));
    }
    visit.is_private = found.place == Place::Query;
    Ok(Identity { how: How::Token, known: believed(connection, tokens, &found).await? })
}

/// What the token says. Where a key for it may be on its way, that is waited for.
async fn believed(connection: &Connection, tokens: &Tokens, found: &Found<'_>) -> Result<Verified, Refusal> {
    let worker = &connection.worker;
    let verify = || worker.tokens.borrow_mut().verify(found.token, &tokens.keyring, SystemTime::now());
    match verify() {
        Err(refusal) if refusal.why == Why::UnknownKey && refusal.issuer.is_some() => {
            Box::pin(awaited(connection, tokens, refusal, &verify)).await
        }
        judged => judged,
    }
}

async fn awaited(
    connection: &Connection,
    tokens: &Tokens,
    mut refusal: Refusal,
    verify: &impl Fn() -> Result<Verified, Refusal>,
) -> Result<Verified, Refusal> {
    let (bell, until) = (&connection.worker.shared.keys, Instant::now() + KEY_WITHIN);
    loop {
        let mut ended = pin!(bell.ended.notified());
        ended.as_mut().enable(); // before the question, so that no end is missed
        let entry = refusal.issuer.unwrap_or(usize::MAX);
        match tokens.keyring.unknown_key(entry, Instant::now(), connection.worker.random()) {
            Miss::Refuse => return verify(),
            Miss::Fetch(_) => bell.wanted.notify_one(),
            Miss::Pending(_) => (),
        }
        if timeout_at(until.into(), ended).await.is_err() {
            return Err(refusal);
        }
        match verify() {
            Err(again) if again.why == Why::UnknownKey => refusal = again,
            judged => return judged,
        }
    }
}

/// A browser sends cookies by itself: with a method that changes something, or for a socket, somebody else's page may have asked (CSRF).
fn changes_something<B>(request: &Request<B>) -> bool {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    !is_safe || request.headers().contains_key(http::header::UPGRADE)
}

/// Whether the browser says that the page that asks is of the host that is asked (Fetch Metadata; RFC 6454, section 7.3).
fn is_own_page<B>(request: &Request<B>) -> bool {
    let one = |name: &HeaderName| {
        let mut values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.next().filter(|_| values.next().is_none())
    };
    if request.headers().contains_key(SEC_FETCH_SITE) {
        return matches!(one(&SEC_FETCH_SITE), Some("same-origin" | "none"));
    }
    let Some((scheme, page)) = one(&ORIGIN).and_then(|origin| origin.split_once("://")) else { return false };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let host = request.uri().authority().map(Authority::as_str).or_else(|| one(&HOST)).unwrap_or_default();
    let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    !page.is_empty() && plain(page) == plain(host)
}

/// Writes what those behind us are told. Nobody else has written these fields: they were taken off every head.
fn tell(auth: &Auth, identity: &Identity, headers: &mut HeaderMap) {
    for told in &auth.fields {
        match field(told.claim.of(&identity.known.claims), told.spelling) {
            Field::Absent => (),
            Field::Value(value) => {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(told.name.clone(), value);
                }
            }
            Field::Unfit(why) => debug!(field = %told.name, claim = told.claim.text(), ?why, "a claim is not sent"),
        }
    }
}

/// Takes the parameter with a token out of the query, before anything else sees it; what the query was.
pub(super) fn take_query<B>(name: &str, request: &mut Request<B>) -> Option<Box<str>> {
    let query = request.uri().query()?;
    let rest = source::without(query, name);
    if rest.as_deref() == Some(query) {
        return None;
    }
    let (path, whole) = (request.uri().path(), query.into());
    let target = rest.map_or_else(|| path.to_owned(), |rest| format!("{path}?{rest}"));
    request.extensions_mut().remove::<lictor_http::target::Raw>();
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = target.parse().ok();
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
    Some(whole)
}

/// The answer to a request whose token was in its query is nobody else's (RFC 6750, section 2.3).
pub(super) fn make_private(headers: &mut HeaderMap) {
    let fields = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let is_public = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "private", "s-maxage"].iter().any(|public| name.eq_ignore_ascii_case(public))
    };
    let kept = fields.flat_map(|field| field.split(',')).map(str::trim).filter(|it| !it.is_empty() && !is_public(it));
    let value = ["private"].into_iter().chain(kept).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri("/").header("host", "shop.example:443");
        fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn a_page_of_ours_is_told_by_the_browser() {
        for (fields, is_ours) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://shop.example")], true),
            (&[("origin", "https://SHOP.example:443")], true),
            (&[("origin", "https://shop.example:8443")], false),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "https://shop.example.evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://shop.example"), ("origin", "https://shop.example")], false),
        ] {
            assert_eq!(is_own_page(&request("POST", fields)), is_ours, "{fields:?}");
        }
        for (method, changes) in [("GET", false), ("HEAD", false), ("POST", true), ("DELETE", true), ("CONNECT", true)]
        {
            assert_eq!(changes_something(&request(method, &[])), changes, "{method}");
        }
        assert!(changes_something(&request("GET", &[("upgrade", "websocket")])));
    }

    #[test]
    fn no_cache_between_gives_the_answer_to_others() {
        for (said, becomes) in [
            (&[][..], "private"),
            (&["max-age=60"], "private, max-age=60"),
            (&["Public, max-age=60", "s-maxage=5"], "private, max-age=60"),
            (&["no-store"], "private, no-store"),
            (&["private"], "private"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            make_private(&mut headers);
            assert_eq!(headers.get_all(CACHE_CONTROL).into_iter().collect::<Vec<_>>(), [becomes], "{said:?}");
        }
    }

    #[test]
    fn the_token_is_no_part_of_the_query_afterwards() {
        for (target, left, was) in [
            ("/a?token=x", "/a", Some("token=x")),
            ("/a?b=1&token=x&c=2", "/a?b=1&c=2", Some("b=1&token=x&c=2")),
            ("/a?t%6fken=x&token=y", "/a", Some("t%6fken=x&token=y")),
            ("/a?tokens=x", "/a?tokens=x", None),
            ("/a", "/a", None),
        ] {
            let mut request = Request::get(format!("http://shop.example{target}")).body(()).unwrap();
            assert_eq!(take_query("token", &mut request).as_deref(), was, "{target}");
            assert_eq!(request.uri().to_string(), format!("http://shop.example{left}"));
        }
    }
}
