//! A kept answer's head: whether it may be kept, what it may be used for, and how it is confirmed.

use std::time::{Duration, Instant};

use http::header::{AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::conditions;
use super::dates;
use super::directives::Told;
use super::question::Question;
use super::terms::{Exchanged, Keeper, Terms, Use};

/// Not kept: they are of one connection or one request (RFC 9111, section 3.1).
const NOT_KEPT: [HeaderName; 4] = [
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("x-lictor-draining"),
    HeaderName::from_static("x-lictor-fallback"),
    HeaderName::from_static("x-lictor-no-retry"),
];
/// They describe the bytes that are kept, which a 304 does not bring (section 3.2).
const OF_THE_BODY: [HeaderName; 4] =
    [CONTENT_ENCODING, CONTENT_LENGTH, HeaderName::from_static("content-md5"), CONTENT_RANGE];
/// More variants are not told apart by more fields than these.
const VARY_MAX: usize = 16;

/// A field of the request, and its value there.
type Choice = (HeaderName, Option<Box<[u8]>>);

/// The head of an answer, and the terms on which it may be used.
#[derive(Clone, Debug)]
pub struct Head {
    /// Of the answer.
    pub status: StatusCode,
    /// Of the answer, without what belongs to one connection.
    pub headers: HeaderMap,
    terms: Terms,
    /// The request's fields that chose it, as `Vary` names them (section 4.1).
    chosen_by: Vec<Choice>,
}

impl Head {
    /// The head of an answer that may be kept (section 3), and is worth it; `headers` without what belongs to the
    /// connection, and `request` as the question was asked.
    pub fn keep(
        question: &Question,
        request: &HeaderMap,
        status: StatusCode,
        headers: HeaderMap,
        keeper: &Keeper,
        when: &Exchanged,
    ) -> Option<Self> {
        if question.is_head || !Self::may_keep(question, status, &headers) {
            return None;
        }
        let head = Self::of(request, status, headers, when)?;
        head.is_worth_keeping(keeper).then_some(head)
    }

    /// Whether this answer may be kept (section 3). What a request's `Authorization` asks for is in the key and the terms.
    fn may_keep(question: &Question, status: StatusCode, headers: &HeaderMap) -> bool {
        let told = Told::of(headers);
        let is_understood = UNDERSTOOD.contains(&status.as_u16());
        // `must-understand` is the condition on which an answer is let off its `no-store` (section 5.2.2.3).
        let is_refused = if told.must_understand { !is_understood } else { told.no_store };
        let is_part = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        !question.is_secret()
            && !status.is_informational()
            && !is_part
            && !is_refused
            && !told.private
            && !told.is_unclear
            && !headers.contains_key(SET_COOKIE)
    }

    /// None where no request can be told to mean it (`Vary: *`).
    fn of(request: &HeaderMap, status: StatusCode, mut headers: HeaderMap, when: &Exchanged) -> Option<Self> {
        let chosen_by = chosen_by(&headers, request)?;
        let told = Told::of(&headers);
        let is_capped = request.contains_key(AUTHORIZATION) && !told.is_for_all();
        let terms = Terms::of(status, &headers, &told, is_capped, when);
        for name in NOT_KEPT {
            headers.remove(name);
        }
        // RFC 9110, section 6.6.1.
        if !headers.contains_key(DATE)
            && let Some(date) = dates::shown(when.date)
        {
            headers.insert(DATE, date);
        }
        Some(Self { status, headers, terms, chosen_by })
    }

    fn is_worth_keeping(&self, keeper: &Keeper) -> bool {
        self.terms.is_of_use(keeper) || self.has_validator()
    }

    /// Whether this is what a request means, of all answers with its key (section 4.1).
    pub fn answers(&self, request: &HeaderMap) -> bool {
        self.chosen_by.iter().all(|(name, value)| normal(request, name).as_deref() == value.as_deref())
    }

    /// Whether the same requests mean the other.
    pub fn is_same_variant(&self, other: &Self) -> bool {
        self.chosen_by == other.chosen_by
    }

    /// Whether it may be used now (section 4).
    pub fn usable(&self, question: &Question, keeper: &Keeper, now: Instant) -> Use {
        self.terms.usable(&question.asked, keeper.ttl, now)
    }

    /// Whether an equal request that waited for it may have it.
    pub fn is_shared(&self, question: &Question, keeper: &Keeper) -> bool {
        self.terms.is_shared(&question.asked, keeper.ttl)
    }

    /// Whether it may stand in for a failure (section 4.2.4).
    pub fn usable_instead(&self, question: &Question, keeper: &Keeper, now: Instant) -> bool {
        !self.status.is_server_error() && self.terms.usable_instead(&question.asked, keeper, now)
    }

    /// Its `Age`, in seconds (section 5.1).
    pub fn age(&self, now: Instant) -> u64 {
        self.terms.age(now).as_secs()
    }

    /// The seconds of life that it has left, or has been without (RFC 9211, section 2.3).
    pub fn ttl(&self, keeper: &Keeper, now: Instant) -> i64 {
        let (left, over) = self.terms.left(keeper.ttl, now);
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        if over.is_zero() { seconds(left) } else { -seconds(over) }
    }

    /// Something that the upstream can compare (section 4.3.1).
    pub fn has_validator(&self) -> bool {
        self.conditions().next().is_some()
    }

    /// What a request that is to confirm it asks by.
    pub fn conditions(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        conditions::of(&self.headers)
    }

    /// The head after a 304 that confirms it (sections 3.2, 4.3.4), and whether that may still be kept. None where the
    /// 304 is about something else: then the whole answer must be asked for.
    pub fn freshened(
        &self,
        question: &Question,
        request: &HeaderMap,
        told: &HeaderMap,
        keeper: &Keeper,
        when: &Exchanged,
    ) -> Option<(Self, bool)> {
        if !conditions::confirms(&self.headers, told) {
            return None;
        }
        let mut headers = self.headers.clone();
        headers.remove(AGE);
        headers.remove(DATE);
        for name in told.keys().filter(|name| !OF_THE_BODY.contains(name)) {
            headers.remove(name);
            for value in told.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let may_keep = Self::may_keep(question, self.status, &headers);
        let Some(head) = Self::of(request, self.status, headers.clone(), when) else {
            // It says `Vary: *` now: for this request only.
            let only = Self { headers, ..self.clone() };
            return Some((only, false));
        };
        let is_kept = may_keep && head.is_worth_keeping(keeper);
        Some((head, is_kept))
    }

    /// Whether what the client has is still good, as far as its request asks that (section 4.3.2).
    pub fn is_what_the_client_has(&self, request: &HeaderMap) -> bool {
        self.status == StatusCode::OK && conditions::are_met(&self.headers, request)
    }

    /// The head of a 304 about it (RFC 9110, section 15.4.5).
    pub fn not_modified(&self) -> HeaderMap {
        conditions::not_modified(&self.headers)
    }

    /// Whether the answer to HEAD says that it is something else by now (section 4.3.5).
    pub fn is_contradicted(&self, head: &HeaderMap) -> bool {
        conditions::differ(&self.headers, head)
    }

    /// About what it takes of memory.
    pub fn cost(&self) -> usize {
        // Of a map with room to grow, each field is an entry of its own, a name and a value.
        let fields = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 256);
        let chosen = self
            .chosen_by
            .iter()
            .map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |value| value.len()) + 128);
        512 + fields.sum::<usize>() + chosen.sum::<usize>()
    }
}

/// Statuses whose rules for caches are known here (RFC 9110, section 15; RFC 9111, section 3).
const UNDERSTOOD: [u16; 20] =
    [200, 201, 202, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 451, 500, 501];

/// The request's fields that `Vary` names, on all its lines. None where it is `*`, no list of names, or names what is
/// another one in each request as the upstream gets it.
fn chosen_by(headers: &HeaderMap, request: &HeaderMap) -> Option<Vec<Choice>> {
    let mut chosen: Vec<Choice> = Vec::new();
    for line in headers.get_all(VARY) {
        for name in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
        {
            let name =
                HeaderName::from_bytes(name).ok().filter(|name| name.as_str() != "*" && !is_of_one_request(name))?;
            if !chosen.iter().any(|(known, _)| *known == name) {
                let value = normal(request, &name);
                chosen.push((name, value));
            }
        }
    }
    (chosen.len() <= VARY_MAX).then_some(chosen)
}

/// Fields that lictor writes for each request, or that are the connection's.
fn is_of_one_request(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_ours = matches!(
        name,
        "b3" | "connection"
            | "grpc-timeout"
            | "te"
            | "traceparent"
            | "tracestate"
            | "upgrade"
            | "via"
            | "x-forwarded-for"
            | "x-request-id"
            | "x-request-timeout-ms"
    );
    is_ours || name.starts_with("x-b3-") || (name.starts_with("x-lictor-") && name != "x-lictor-from")
}

/// A field's lines as one, without the space around its commas (section 4.1). Where there are quotes space may mean
/// something, and stays.
fn normal(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = request.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut whole = lines.next()?.trim_ascii().to_vec();
    for line in lines {
        whole.push(b',');
        whole.extend_from_slice(line.trim_ascii());
    }
    if whole.contains(&b'"') {
        return Some(whole.into());
    }
    let members: Vec<&[u8]> = whole.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    Some(members.join(&b',').into())
}
