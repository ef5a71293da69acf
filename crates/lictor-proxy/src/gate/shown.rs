//! The one thing by which a request shows who it is from. What it is worth is found out by whoever asks.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request};
use lictor_core::gateway::Gateway;
use lictor_core::gateway::asking::Asking;
use lictor_core::gateway::auth::{Auth, How, Identity, Tokens};
use lictor_core::gateway::basic::Users;
use lictor_core::gateway::cors::Cors;
use lictor_core::gateway::location::plain;
use lictor_core::{Failure, Reason};
use lictor_jose::source::{self, Found, Place};
use lictor_jose::{Refusal, Why};

use super::keys::{self, Taken};
use super::refusal::{No, refusal};
use super::{Stop, basic, query};
use crate::names;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What was taken off a request.
#[derive(Debug)]
pub(super) struct Shows {
    pub(super) key: Taken,
    /// The query as it came, where it had a token.
    pub(super) query: Option<Box<str>>,
}

/// What is shown in a way that the route takes, and is judged here.
pub(super) enum Shown<'r> {
    Nothing,
    Key(Box<[u8]>),
    /// As it stands after `Basic`.
    Password(&'r Users, &'r [u8]),
    Token(&'r Tokens, Found<'r>),
}

/// Takes off a request what only the gateway says, and what only the gateway is told, whatever its route asks.
pub(super) fn take<B>(gateway: &Gateway, request: &mut Request<B>) -> Shows {
    names::strip_managed(request.headers_mut(), &gateway.managed);
    let methods = gateway.rules.auth.as_ref().map(|auth| &auth.methods);
    let parameter = methods.and_then(|methods| methods.tokens.as_ref()?.sources.query.as_deref());
    let query = parameter.and_then(|name| query::take_query(name, request));
    let keys = methods.and_then(|methods| methods.keys.as_ref());
    Shows { key: keys.map(|keys| keys::take(keys, request)).unwrap_or_default(), query }
}

/// What a request shows; two things are refused, whatever they are. `query` is as it was before tokens were taken out of it.
pub(super) fn shown<'r, B>(
    auth: &'r Auth,
    key: Taken,
    query: Option<&'r str>,
    request: &'r Request<B>,
) -> Result<Shown<'r>, Refusal> {
    let key = if auth.takes(How::Key) { key } else { Taken::Nothing };
    let methods = &auth.methods;
    let password = match &methods.users {
        Some(users) if auth.takes(How::Password) => basic::shown(request.headers())?.map(|shown| (users, shown)),
        _ => None,
    };
    let token = match &methods.tokens {
        Some(tokens) if auth.takes(How::Token) && password.is_none() => token(tokens, query, request)?,
        _ => None,
    };
    let asks_about = |asking: &Arc<Asking>| asking.headers_out.contains(&AUTHORIZATION);
    let is_asked_about = auth.takes(How::Service)
        && methods.asking.as_ref().is_some_and(asks_about)
        && request.headers().contains_key(AUTHORIZATION);
    match (key, token, password) {
        (Taken::Nothing, None, None) => Ok(Shown::Nothing),
        (Taken::One(key), None, None) if !is_asked_about => Ok(Shown::Key(key)),
        (Taken::Nothing, None, Some((users, shown))) => Ok(Shown::Password(users, shown)),
        (Taken::Nothing, Some((tokens, found)), None) => Ok(Shown::Token(tokens, found)),
        _ => Err(refusal(Why::SeveralCredentials, "more than one credential")),
    }
}

/// The token of a request, if it has one.
fn token<'r, B>(
    tokens: &'r Tokens,
    query: Option<&'r str>,
    request: &'r Request<B>,
) -> Result<Option<(&'r Tokens, Found<'r>)>, Refusal> {
    let headers = request.headers();
    let shown = headers.get_all(AUTHORIZATION);
    let cookies = tokens.sources.cookie.iter().flat_map(|_| headers.get_all(COOKIE));
    let found = source::find(
        &tokens.sources,
        shown.into_iter().map(HeaderValue::as_bytes),
        cookies.map(HeaderValue::as_bytes),
        query,
    );
    match found {
        Ok(found) => Ok(Some((tokens, found))),
        Err(refusal) if refusal.why == Why::Missing => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Whose key it is.
pub(super) fn by_key(auth: &Auth, key: &[u8]) -> Result<Identity, Refusal> {
    let client = auth.methods.keys.as_ref().and_then(|keys| keys::client(keys, key));
    let client = client.ok_or_else(|| refusal(Why::UnknownKey, "nobody's API key"))?;
    Ok(Identity { how: How::Key, known: client.known.clone() })
}

/// Refuses a token that a browser may have sent by itself, for a page of somebody else.
pub(super) fn check_page<B>(cors: Option<&Cors>, found: &Found<'_>, request: &Request<B>) -> Result<(), No> {
    let is_trusted = || is_own_page(request) || cors.is_some_and(|cors| cors.trusts(request.headers()));
    if found.place != Place::Cookie || !changes_something(request) || is_trusted() {
        return Ok(());
    }
    let failure = Failure::new(
        Reason::Forbidden,
        "the token is in a cookie, and neither Sec-Fetch-Site nor Origin says that a page of this host asks, or one that `cors` lists with `credentials`",
    );
    Err(No::other("foreign_page", Stop::Refused(failure, "the request must come from a page of this site")))
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
    !page.is_empty() && plain(page, port) == plain(host, port)
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
}
