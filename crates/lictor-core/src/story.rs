//! The story of one request, told afterwards: where it went, what each attempt ended with, and why another one followed
//! or did not.
//!
//! The data plane fills it in when a request's books are closed; pages and `lictor explain` show it. What a client can
//! make long is cut, so that a number of kept stories is a bound on memory.

use std::str::FromStr;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::{Serialize, Serializer};

use crate::address::Address;
use crate::breaker::BreakerView;
use crate::outcome::{Failure, Reason, Retryable};
use crate::policy::{Policy, RetryMethods};
use crate::redact;
use crate::retry::{Denied, Next};

/// The longest id, path and sentence that are kept, in bytes.
pub const ID_MAX: usize = 128;
const PATH_MAX: usize = 256;
const SENTENCE_MAX: usize = 256;
/// Further attempts are only counted.
pub const ATTEMPTS_MAX: usize = 8;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// `X-Request-ID`.
    pub id: Box<str>,
    /// The trace that it belongs to.
    pub trace_id: String,
    /// When it was over.
    pub timestamp: String,
    /// Why it was kept.
    pub kept: Kept,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Which worker served it.
    pub worker: usize,
    /// The client's address, or `unix`.
    pub client: String,
    /// Its method.
    pub method: Box<str>,
    /// Its path, without the query.
    pub path: Box<str>,
    /// The upstream's name, once it was found.
    pub upstream: Option<Arc<str>>,
    /// The pattern of the route that matched.
    pub route: Option<Arc<str>>,
    /// How it was called.
    #[serde(serialize_with = "policy")]
    pub policy: Option<Arc<Policy>>,
    /// What the client got; 499 when it did not wait. Of a connection that is carried as bytes: what a request would have got.
    pub status: u16,
    /// Of a gRPC answer.
    pub grpc_status: Option<u16>,
    /// lictor's word, when it was not the upstream's answer that was passed on whole.
    pub reason: Option<Reason>,
    /// The sentence that goes with it.
    pub detail: Option<Box<str>>,
    /// `hit`, `coalesced` or `stale`, when it was not the upstream that answered.
    pub cache: Option<&'static str>,
    /// `stale`, `static`, or `upstream` (whose name is `upstream`), when that stood in for a failure.
    pub fallback: Option<&'static str>,
    /// From its arrival to the last byte.
    pub took_ms: f64,
    /// From its arrival to the answer's head.
    pub head_ms: Option<f64>,
    /// Of the answer's body.
    pub bytes: u64,
    /// The time that its caller gave it.
    pub deadline_ms: Option<u64>,
    /// The breaker, when it was over.
    pub breaker: Option<BreakerView>,
    /// The share of the worker's retry budget that was left then.
    pub retry_budget_remaining: Option<f64>,
    /// In the order in which they ended.
    pub attempts: Vec<AttemptStory>,
    /// Further attempts.
    pub attempts_left_out: usize,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptStory {
    /// The endpoint's id.
    pub endpoint: Arc<str>,
    /// What was dialled.
    pub address: Address,
    /// A status, `connected`, `abandoned`, or a reason.
    pub outcome: String,
    /// What went wrong.
    pub detail: Option<Box<str>>,
    /// Since the request's arrival.
    pub began_ms: f64,
    /// To the answer's head.
    pub took_ms: f64,
    /// After a failure.
    pub then: Option<Then>,
}

/// What followed a failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Then {
    /// Another attempt.
    pub is_retried: bool,
    /// The wait before it.
    pub wait_ms: Option<f64>,
    /// Why, or why not.
    pub why: String,
}

/// Why a story was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It failed.
    Failed,
    /// Its head could not be read.
    Refused,
    /// Somebody asked, with `X-Lictor-Debug`.
    Asked,
    /// It took more than one attempt.
    Retried,
    /// Its answer was long in coming.
    Slow,
    /// One of many.
    Sampled,
}

impl Story {
    /// One about which nothing is known yet.
    pub fn empty(id: &str, kept: Kept) -> Self {
        Self {
            id: cut(id, ID_MAX),
            trace_id: String::new(),
            timestamp: String::new(),
            kept,
            direction: "outbound",
            worker: 0,
            client: String::new(),
            method: "".into(),
            path: "".into(),
            upstream: None,
            route: None,
            policy: None,
            status: 0,
            grpc_status: None,
            reason: None,
            detail: None,
            cache: None,
            fallback: None,
            took_ms: 0.0,
            head_ms: None,
            bytes: 0,
            deadline_ms: None,
            breaker: None,
            retry_budget_remaining: None,
            attempts: Vec::new(),
            attempts_left_out: 0,
        }
    }

    /// Whether it belongs among the failures.
    pub fn is_failure(&self) -> bool {
        matches!(self.kept, Kept::Failed | Kept::Refused)
    }

    /// Whether it failed before anything was sent: most of such are alike, and say nothing of an instance.
    pub fn is_unsent(&self) -> bool {
        self.kept == Kept::Failed && self.reason.is_some() && self.attempts.is_empty()
    }
}

/// Requests of one upstream that failed for one reason before anything was sent.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// So far.
    pub count: u64,
    /// The first that is known of.
    pub first: Arc<Story>,
    /// The last.
    pub last: Arc<Story>,
}

/// Which stories are asked for. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The upstream's name.
    pub upstream: Option<String>,
    /// The status that the client got.
    pub status: Option<StatusFilter>,
    /// lictor's word.
    pub reason: Option<String>,
    /// How the path begins.
    pub path: Option<String>,
}

/// A status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// `503`
    Is(u16),
    /// `5xx`
    Class(u16),
}

impl Filter {
    /// Whether a story is among them.
    pub fn takes(&self, story: &Story) -> bool {
        let is_status = |filter: &StatusFilter| match filter {
            StatusFilter::Is(status) => story.status == *status,
            StatusFilter::Class(class) => story.status / 100 == *class,
        };
        self.upstream.as_deref().is_none_or(|name| story.upstream.as_deref() == Some(name))
            && self.status.as_ref().is_none_or(is_status)
            && self.reason.as_deref().is_none_or(|word| story.reason.is_some_and(|reason| reason.as_str() == word))
            && self.path.as_deref().is_none_or(|path| story.path.starts_with(path))
    }
}

impl FromStr for StatusFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is neither a status such as 503 nor a class such as 5xx");
        let (digits, is_class) = text.strip_suffix("xx").map_or((text, false), |digit| (digit, true));
        let number: u16 = digits.parse().map_err(|_| wrong())?;
        match number {
            1..=9 if is_class => Ok(Self::Class(number)),
            100..=999 if !is_class => Ok(Self::Is(number)),
            _ => Err(wrong()),
        }
    }
}

impl Then {
    /// Tells it in words.
    pub fn of(next: Next, failure: &Failure, method: &Method) -> Self {
        match next {
            Next::Retry(wait) => {
                let why = match failure.retryable() {
                    Retryable::Always => "the upstream never processed it, so it may always be sent again".to_owned(),
                    Retryable::IfIdempotent | Retryable::Never => {
                        format!("this {method} may be processed twice without harm")
                    }
                };
                Self { is_retried: true, wait_ms: Some(millis(wait)), why }
            }
            Next::Stop(denied) => Self { is_retried: false, wait_ms: None, why: why_not(denied, failure, method) },
        }
    }
}

fn why_not(denied: Denied, failure: &Failure, method: &Method) -> String {
    let reason = failure.reason;
    match denied {
        Denied::Attempts => "all attempts that the policy allows were made".to_owned(),
        Denied::Body => "the request's body was not kept: larger than retry.max_body, or still coming".to_owned(),
        Denied::Budget => "the retry budget is spent: too much fails for retries to help".to_owned(),
        Denied::Class if failure.retryable() == Retryable::Never => format!("{reason} is never retried"),
        Denied::Class => format!("the policy, or the upstream's own X-Lictor-No-Retry, excludes {reason}"),
        Denied::Deadline => "the wait before another attempt does not fit in the time that is left".to_owned(),
        Denied::Method => format!("{method} without Idempotency-Key: a second processing might do harm"),
    }
}

/// What somebody who is woken by it should look at.
pub fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::AllEjected => {
            "every endpoint failed repeatedly and rests: `lictor endpoints` says until when; mend the instances"
        }
        Reason::AuthUnavailable => {
            "the message says what is missing: an issuer's keys (`jwks`), the answer of the service of `auth.forward`, or time to compare passwords"
        }
        Reason::BadRequest => "the client's request is not valid HTTP; the message names the rule",
        Reason::BodyTooLarge => "the client sends a body that is longer than the route's `body_max`",
        Reason::BreakerOpen => {
            "the service failed before this request: the breaker's cause says how; a probe goes by itself, or `lictor breaker close`"
        }
        Reason::ClientGone => "the client closed or gave up: its timeout may be shorter than the answer takes",
        Reason::ConnectRefused => "nothing listens there: is the process up, and its port the one that is registered?",
        Reason::ConnectTimeout => "no answer to the connect: a machine that is gone, or a firewall that drops",
        Reason::DeadlineExceeded => {
            "the caller's own time was over: the first caller gives too little, or the chain is slow"
        }
        Reason::Draining => {
            "it was cut off when this sidecar stopped, or a reload closed its listener: give `lifecycle.drain_timeout` what the longest request takes"
        }
        Reason::Forbidden => {
            "at a gateway: what the route requires of a token is not in this one, see `lictor explain`; at the forward proxy: it takes names of services, not other addresses"
        }
        Reason::HeadersTooLarge => "the client sends a head that is longer than is read here: cookies, mostly",
        Reason::LimitUnavailable => {
            "a limit is counted in Redis, which cannot be asked: is it there? `if_unreachable: local` lets this process count"
        }
        Reason::LoopDetected => "an endpoint of the upstream is this sidecar itself: see its registration, or `static`",
        Reason::Misdirected => {
            "that address belongs to another service by now, and Consul's list is old; or its listener has changed: connect again"
        }
        Reason::NoEndpoints => {
            "no instance can be used: `lictor endpoints` counts what was left out and why; then look at Consul's checks"
        }
        Reason::Maintenance => "`lictor maintenance off`, or `maintenance` of the gateway or the route, ends it",
        Reason::NoRoute => "add a route to `gateway.routes`, or see `lictor routes` for those there are",
        Reason::NotCached => "the client wants a kept answer or none (`only-if-cached`): ask without, or keep answers",
        Reason::Overloaded => "more in flight than `limits` allows: is the upstream slow? Else raise the limit",
        Reason::PerTryTimeout => "one attempt took longer than `per_try_timeout`: a slow instance",
        Reason::ProtocolError => "the answer is not the HTTP that was expected: see the upstream's `protocol`",
        Reason::RateLimited => "the client asks more often than `limit` lets it: it is told when to come back",
        Reason::RequestTimeout => "the client stopped within its upload: a slow or broken network on its side",
        Reason::ResetBeforeResponse => "the instance crashed, or closed an idle connection as it was used: see its log",
        Reason::ResetMidResponse => "the instance broke its answer off: a crash or a worker's timeout; see its log",
        Reason::Status => "the upstream answered so itself: see its log at that time",
        Reason::Timeout => "the upstream was slower than `timeout`: a longer one for that route, or a faster upstream",
        Reason::TlsFailed => "the TLS handshake failed; the message names the fault: certificate, name, or plain text",
        Reason::Unauthenticated => {
            "at a gateway: no token, or one that is not believed, and the message says why; at `inbound`: X-Service-Auth is missing or not one of `service_token`: set it at the caller"
        }
        Reason::UnknownUpstream => "that name is no upstream here: declare it, or add it to `outbound.allow`",
    }
}

/// Cut at a character's end.
pub fn cut(text: &str, max: usize) -> Box<str> {
    if text.len() <= max { text.into() } else { format!("{}..", &text[..text.floor_char_boundary(max - 2)]).into() }
}

/// A path as a story keeps it.
pub fn cut_path(path: &str) -> Box<str> {
    cut(&redact::path(path), PATH_MAX)
}

/// A sentence as a story keeps it.
pub fn cut_sentence(sentence: &str) -> Box<str> {
    cut(sentence, SENTENCE_MAX)
}

/// With its fraction.
pub fn millis(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A policy for a page: what decides on one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyView {
    /// For everything.
    pub timeout_ms: Option<u64>,
    /// For one attempt.
    pub per_try_timeout_ms: Option<u64>,
    /// For one connect.
    pub connect_timeout_ms: u64,
    /// In all.
    pub attempts: u32,
    /// Statuses that are retried.
    pub retry_on: Vec<u16>,
    /// Which methods are sent again.
    pub retry_methods: String,
    /// Retries to requests.
    pub retry_budget: f64,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Failures in a row that open the breaker; `None`: there is none.
    pub breaker_failures: Option<u32>,
    /// Failures in a row that eject an endpoint; 0: never.
    pub ejection_failures: u32,
    /// Requests at a time.
    pub max_in_flight: u32,
    /// Slow requests are sent twice.
    pub is_hedged: bool,
    /// Answers are kept.
    pub is_cached: bool,
    /// What is answered in place of a failure, in the order in which it is tried.
    pub fallback: Vec<String>,
}

impl From<&Policy> for PolicyView {
    fn from(policy: &Policy) -> Self {
        let millis = |limit: std::time::Duration| limit.as_millis() as u64;
        let timeouts = &policy.timeouts;
        Self {
            timeout_ms: timeouts.total.map(millis),
            per_try_timeout_ms: timeouts.per_try.map(millis),
            connect_timeout_ms: millis(timeouts.connect),
            attempts: policy.retry.attempts,
            retry_on: policy.retry.statuses.iter().map(StatusCode::as_u16).collect(),
            retry_methods: match &policy.retry.methods {
                RetryMethods::Idempotent => "idempotent".to_owned(),
                RetryMethods::Any => "any".to_owned(),
                RetryMethods::List(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" "),
            },
            retry_budget: policy.retry.budget.ratio,
            balance: policy.balance.algorithm.to_string(),
            breaker_failures: policy.breaker.enabled.then_some(policy.breaker.failure_threshold),
            ejection_failures: policy.ejection.consecutive,
            max_in_flight: policy.limits.max_in_flight,
            is_hedged: policy.hedge.is_some(),
            is_cached: policy.cache.is_some(),
            fallback: fallback(policy),
        }
    }
}

/// `stale up to 300000 ms`, `upstream users-backup`, `static 200`
fn fallback(policy: &Policy) -> Vec<String> {
    let stale = policy.stale.map(|stale| format!("stale up to {} ms", stale.as_millis()));
    let fallback = policy.fallback.as_deref();
    let upstream = fallback.and_then(|it| it.upstream.as_ref()).map(|name| format!("upstream {name}"));
    let fixed = fallback.and_then(|it| it.answer.as_ref()).map(|answer| format!("static {}", answer.status.as_u16()));
    stale.into_iter().chain(upstream).chain(fixed).collect()
}

#[expect(clippy::ref_option, reason = "what serde calls")]
fn policy<S: Serializer>(policy: &Option<Arc<Policy>>, serializer: S) -> Result<S::Ok, S::Error> {
    policy.as_deref().map(PolicyView::from).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_followed_is_told_in_words() {
        let refused = Failure::new(Reason::ConnectRefused, "refused");
        let status = Failure::new(Reason::Status, "answered 503");
        let late = Failure::new(Reason::Timeout, "late");
        let then = Then::of(Next::Retry(Duration::from_micros(1500)), &refused, &Method::POST);
        assert_eq!((then.is_retried, then.wait_ms), (true, Some(1.5)));
        assert!(then.why.contains("never processed"), "{then:?}");
        assert!(Then::of(Next::Retry(Duration::ZERO), &status, &Method::GET).why.contains("this GET"));
        let why = |denied, failure| Then::of(Next::Stop(denied), failure, &Method::POST).why;
        assert_eq!(why(Denied::Method, &status), "POST without Idempotency-Key: a second processing might do harm");
        assert_eq!(why(Denied::Class, &late), "timeout is never retried");
        assert!(why(Denied::Class, &status).contains("excludes status"));
    }

    #[test]
    fn a_status_is_a_number_or_a_class() {
        assert_eq!("503".parse(), Ok(StatusFilter::Is(503)));
        assert_eq!("5xx".parse(), Ok(StatusFilter::Class(5)));
        for wrong in ["", "5", "5x", "xx", "50xx", "soon", "-5xx"] {
            assert!(wrong.parse::<StatusFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_clients_make_long_is_cut_between_characters() {
        assert_eq!(&*cut("short", 8), "short");
        assert_eq!(&*cut("ééééé", 8), "ééé..");
        assert!(cut_path(&"/é".repeat(1000)).len() <= PATH_MAX);
    }
}
