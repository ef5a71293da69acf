//! Answers that are kept: for routes that say so, given again for a while, to requests that came at the same time, or
//! in place of a failure.
//!
//! Small on purpose. Kept are whole answers to GET with status 200 that their headers do not forbid to share
//! (`Cache-Control: no-store, private, no-cache`, `Set-Cookie`, a `Vary` on anything outside the key). The key has
//! everything that says who asks and for what form, so that an answer never crosses from one caller to another.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, COOKIE, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use lictor_core::policy::Policy;
use lictor_core::trace::TraceContext;
use lictor_http::fields::tokens;
use tokio::sync::watch;

use super::collapse;
use crate::names::{self, X_REQUEST_ID, X_SPAN_ID, X_TRACE_ID, X_USER_ID, X_USER_ROLE};
use crate::stores::kept::{Kept, Looked};
use crate::world::shared::Shared;

/// A larger answer is passed on and not kept.
const ENTRY_MAX: usize = 256 << 10;
/// What of a request's head is part of the key.
const KEY_FIELDS: [HeaderName; 7] =
    [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, X_USER_ID, X_USER_ROLE];
/// A request with one of these wants something special: it is passed on.
const SPECIAL: [HeaderName; 7] =
    [CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// What the cache has for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// The answer, and how it was come by: `hit` or `coalesced`.
    Answer(Arc<Kept>, &'static str),
    /// The upstream must be asked.
    Ask(Asking),
}

/// What to do with the upstream's answer.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// Where a good one goes.
    pub(crate) ticket: Option<Ticket>,
    /// What is given in place of a bad one.
    pub(crate) stale: Option<Arc<Kept>>,
}

/// The right to keep the answer to a request. Dropped without one, those who wait ask for themselves.
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    key: Arc<str>,
    told: Option<watch::Sender<Option<Arc<Kept>>>>,
}

/// An answer that is being kept while it passes.
#[derive(Debug)]
pub(crate) struct Keeping {
    ticket: Ticket,
    headers: HeaderMap,
    body: BytesMut,
    asked_by: Option<(u128, u64)>,
}

/// Looks a request up, where its policy keeps answers at all.
pub(crate) async fn look<B>(shared: &Arc<Shared>, upstream: &str, policy: &Policy, request: &Request<B>) -> Found {
    if policy.cache.is_none() && policy.stale.is_none() {
        return Found::Ask(Asking::default());
    }
    let Some(key) = key(upstream, request) else {
        shared.metrics.cached(upstream, "bypass");
        return Found::Ask(Asking::default());
    };
    let ttl = policy.cache.map_or(Duration::ZERO, |cache| cache.ttl);
    let coalesces = policy.cache.is_some_and(|cache| cache.coalesce);
    let Looked { kept, asked: mut waiting, told } = shared.cache.look(&key, |kept| kept.age() < ttl, coalesces);
    if let Some(kept) = kept.as_ref().filter(|kept| kept.age() < ttl) {
        shared.metrics.cached(upstream, "hit");
        return Found::Answer(Arc::clone(kept), "hit");
    }
    let stale = policy.stale.map_or(Duration::ZERO, |stale| ttl + stale);
    let stale = kept.filter(|kept| kept.age() < stale);
    let asking = Asking { ticket: Some(Ticket { shared: Arc::clone(shared), key, told }), stale };
    if let Some(waiting) = &mut waiting
        && let Some(kept) = collapse::wait(waiting, policy).await
    {
        shared.metrics.cached(upstream, "coalesced");
        return Found::Answer(kept, "coalesced");
    }
    shared.metrics.cached(upstream, "miss");
    Found::Ask(asking)
}

/// Everything that decides the answer; `None` for a request that wants more than a plain answer.
fn key<B>(upstream: &str, request: &Request<B>) -> Option<Arc<str>> {
    let headers = request.headers();
    if *request.method() != Method::GET || SPECIAL.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut key = format!("{upstream}\n{path}");
    for name in &KEY_FIELDS {
        for value in headers.get_all(name) {
            let _ = write!(key, "\n{name}:{}", value.to_str().ok()?);
        }
    }
    Some(key.into())
}

impl Keeping {
    /// Begins to keep an answer, if its head allows that.
    pub(crate) fn begin(
        ticket: Option<Ticket>,
        status: StatusCode,
        headers: &HeaderMap,
        trace: &TraceContext,
    ) -> Option<Self> {
        let ticket = ticket.filter(|_| status == StatusCode::OK && may_share(headers))?;
        let mut headers = headers.clone();
        for of_one_request in [&X_REQUEST_ID, &X_TRACE_ID, &X_SPAN_ID] {
            headers.remove(of_one_request);
        }
        let asked_by = trace.is_sampled.then_some((trace.trace_id, trace.span_id));
        Some(Self { ticket, headers, body: BytesMut::new(), asked_by })
    }

    /// Adds what has just passed; gives up when it becomes too much.
    pub(crate) fn add(mut self, data: &Bytes) -> Option<Self> {
        if self.body.len() + data.len() > ENTRY_MAX {
            return None;
        }
        self.body.extend_from_slice(data);
        Some(self)
    }

    /// The answer was whole.
    pub(crate) fn finish(self) {
        let Self { mut ticket, headers, body, asked_by } = self;
        let kept = Arc::new(Kept { headers, body: body.freeze(), asked_by, at: Instant::now() });
        ticket.shared.cache.keep(&ticket.key, &kept);
        if let Some(told) = ticket.told.take() {
            ticket.shared.cache.forget_asked(&ticket.key);
            let _ = told.send(Some(kept)); // perhaps nobody waits
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.told.take().is_some() {
            self.shared.cache.forget_asked(&self.key);
        }
    }
}

fn may_share(headers: &HeaderMap) -> bool {
    let forbids =
        |value: &str| ["no-store", "private", "no-cache"].iter().any(|word| value.to_ascii_lowercase().contains(word));
    let fits = |name: &str| KEY_FIELDS.iter().any(|known| known.as_str().eq_ignore_ascii_case(name));
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    !headers.contains_key(SET_COOKIE)
        && !names::is_stream(headers)
        && length.is_none_or(|length| length <= ENTRY_MAX)
        && !headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).any(forbids)
        && tokens(headers, &VARY).all(fits)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn answers_for_one_caller_are_not_shared() {
        assert!(may_share(&headers(&[(VARY, "Accept, accept-encoding")])));
        for private in [
            (VARY, "x-tenant"),
            (VARY, "*"),
            (SET_COOKIE, "a=b"),
            (CACHE_CONTROL, "max-age=5, Private"),
            (CACHE_CONTROL, "no-store"),
            (CONTENT_LENGTH, "9999999"),
        ] {
            assert!(!may_share(&headers(std::slice::from_ref(&private))), "{private:?}");
        }
    }

    #[test]
    fn who_asks_is_part_of_the_key() {
        let request = |name: HeaderName, value: &str| Request::get("/a?b").header(name, value).body(()).unwrap();
        let of = |request: &Request<()>| key("users", request);
        let one = of(&request(AUTHORIZATION, "one")).unwrap();
        assert_ne!(Some(&one), of(&request(AUTHORIZATION, "two")).as_ref());
        assert_eq!(Some(&one), of(&request(AUTHORIZATION, "one")).as_ref());
        assert_eq!(of(&request(RANGE, "bytes=0-1")), None);
        assert_eq!(of(&Request::post("/a").body(()).unwrap()), None);
    }
}
