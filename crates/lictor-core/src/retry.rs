//! Whether, and when, a request is sent again: the whole truth table, without a clock.

use std::time::{Duration, Instant, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Method};

use crate::budget::RetryBudget;
use crate::outcome::{Failure, Reason, Retryable};
use crate::policy::{Backoff, RetryClasses, RetryMethods, RetryPolicy};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after this wait.
    Retry(Duration),
    /// None.
    Stop(Denied),
}

/// Why no attempt follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// All were made.
    Attempts,
    /// The request body is gone or too large to have been kept.
    Body,
    /// The retry budget is spent.
    Budget,
    /// Failures of this class are not retried.
    Class,
    /// The wait does not fit in the time left.
    Deadline,
    /// A second processing might do harm.
    Method,
}

impl Denied {
    /// The word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Body => "body",
            Self::Budget => "budget",
            Self::Class => "class",
            Self::Deadline => "deadline",
            Self::Method => "method",
        }
    }
}

/// An attempt that failed, and what is known of its request.
#[derive(Debug)]
pub struct Tried<'a> {
    /// How it ended. A status was matched against the policy's list already.
    pub failure: &'a Failure,
    /// Attempts made so far.
    pub attempts: u32,
    /// See [`is_idempotent`].
    pub is_idempotent: bool,
    /// The body can be sent again.
    pub is_replayable: bool,
    /// What the upstream's answer asks for.
    pub asked: Asked,
    /// Of the request's time.
    pub remaining: Option<Duration>,
    /// An endpoint that was not tried yet exists.
    pub has_other: bool,
}

/// What an answer asks of who would send again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// To wait at least this long: `Retry-After` (RFC 9110, section 10.2.3).
    NotBefore(Duration),
    /// To wait this long, and no longer: `grpc-retry-pushback-ms` (gRFC A6).
    After(Duration),
    /// Not to: the same, negative or malformed.
    Not,
}

impl Asked {
    /// What an answer's head says.
    pub fn of(headers: &HeaderMap, is_grpc: bool, now: SystemTime) -> Self {
        if is_grpc && headers.contains_key(&GRPC_PUSHBACK) {
            return pushback(headers).map_or(Self::Not, Self::After);
        }
        retry_after(headers, now).map_or(Self::Nothing, Self::NotBefore)
    }
}

/// The rest that an answer, or the end of one, asks for whoever gave it: with 429 and 503 by `Retry-After`, with gRPC's
/// RESOURCE_EXHAUSTED and UNAVAILABLE by `grpc-retry-pushback-ms` too.
pub fn rest(status: u16, grpc: Option<u16>, headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    if !matches!(status, 429 | 503) && !matches!(grpc, Some(8 | 14)) {
        return None;
    }
    match Asked::of(headers, grpc.is_some(), now()) {
        Asked::NotBefore(rest) | Asked::After(rest) => Some(rest),
        Asked::Nothing | Asked::Not => None,
    }
}

/// `Retry-After` as seconds or as a date; nothing where it is neither, or said twice.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let mut lines = headers.get_all(RETRY_AFTER).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let text = line.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let mut lines = headers.get_all(&GRPC_PUSHBACK).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let millis: i32 = line.to_str().ok()?.parse().ok()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}

/// Decides what follows. `random` is uniform in 0 to 1. The budget is charged last, when the retry is certain.
pub fn next(policy: &RetryPolicy, tried: &Tried<'_>, budget: &RetryBudget, now: Instant, random: f64) -> Next {
    match wish(policy, tried, random) {
        Next::Retry(_) if !budget.withdraw(now) => Next::Stop(Denied::Budget),
        next => next,
    }
}

/// The same, with all the budget in the world.
pub fn wish(policy: &RetryPolicy, tried: &Tried<'_>, random: f64) -> Next {
    let retryable = tried.failure.retryable();
    if retryable == Retryable::Never || !is_enabled(policy.classes, tried.failure) {
        return Next::Stop(Denied::Class);
    }
    if tried.asked == Asked::Not {
        return Next::Stop(Denied::Class);
    }
    if tried.attempts >= policy.attempts {
        return Next::Stop(Denied::Attempts);
    }
    if retryable == Retryable::IfIdempotent && !tried.is_idempotent {
        return Next::Stop(Denied::Method);
    }
    if !tried.is_replayable {
        return Next::Stop(Denied::Body);
    }
    let wait = if retryable == Retryable::Always && tried.has_other {
        Duration::ZERO // nobody saw it, and somebody else is there
    } else {
        policy.backoff.wait(tried.attempts, random)
    };
    let wait = match tried.asked {
        Asked::Nothing | Asked::Not => wait,
        Asked::NotBefore(asked) => wait.max(asked),
        Asked::After(asked) => asked,
    };
    if tried.remaining.is_some_and(|remaining| wait >= remaining) {
        return Next::Stop(Denied::Deadline);
    }
    Next::Retry(wait)
}

fn is_enabled(classes: RetryClasses, failure: &Failure) -> bool {
    match failure.reason {
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => classes.connect_failure,
        _ if failure.is_unprocessed => classes.refused_stream,
        Reason::ProtocolError | Reason::ResetBeforeResponse => classes.reset,
        Reason::PerTryTimeout => classes.timeout,
        _ => true,
    }
}

/// Whether a second processing is harmless: the route says so, or the request has an `Idempotency-Key`, or the
/// policy's methods have its own.
pub fn is_idempotent(policy: &RetryPolicy, method: &Method, headers: &HeaderMap, route: Option<bool>) -> bool {
    if let Some(is_idempotent) = route {
        return is_idempotent;
    }
    match &policy.methods {
        RetryMethods::Any => true,
        RetryMethods::Idempotent if method.is_idempotent() => true,
        RetryMethods::List(methods) if methods.contains(method) => true,
        _ => headers.contains_key(&IDEMPOTENCY_KEY),
    }
}

impl Backoff {
    /// The wait before the `retry`th further attempt (from 1). `random` is uniform in 0 to 1.
    pub fn wait(&self, retry: u32, random: f64) -> Duration {
        let earlier = retry.saturating_sub(1);
        match self {
            Self::Delays { delays, jitter } => {
                let delay = delays.get(earlier as usize).or(delays.last()).copied().unwrap_or_default();
                delay.mul_f64(1.0 + jitter * (2.0 * random - 1.0))
            }
            Self::Exponential { initial, factor, max } => {
                let bound = initial.as_secs_f64() * factor.powi(earlier.min(64).cast_signed());
                Duration::from_secs_f64(bound.min(max.as_secs_f64()) * random)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: f64 = 0.5; // no jitter

    fn decide(reason: Reason, change: impl FnOnce(&mut Tried<'_>)) -> Next {
        let (policy, now) = (RetryPolicy::default(), Instant::now());
        let budget = RetryBudget::new(policy.budget, 1, now);
        let failure = Failure::new(reason, "it failed");
        let mut tried = Tried {
            failure: &failure,
            attempts: 1,
            is_idempotent: true,
            is_replayable: true,
            asked: Asked::Nothing,
            remaining: Some(Duration::from_secs(30)),
            has_other: true,
        };
        change(&mut tried);
        next(&policy, &tried, &budget, now, HALF)
    }

    const DELAY: Next = Next::Retry(Duration::from_millis(100));

    #[test]
    fn the_truth_table() {
        let now_elsewhere = Next::Retry(Duration::ZERO);
        assert_eq!(decide(Reason::Status, |_| ()), DELAY);
        assert_eq!(decide(Reason::ResetBeforeResponse, |_| ()), DELAY);
        assert_eq!(decide(Reason::PerTryTimeout, |_| ()), DELAY);
        assert_eq!(decide(Reason::ConnectRefused, |_| ()), now_elsewhere);
        assert_eq!(decide(Reason::ConnectRefused, |tried| tried.is_idempotent = false), now_elsewhere);
        assert_eq!(decide(Reason::ConnectRefused, |tried| tried.has_other = false), DELAY);
        assert_eq!(decide(Reason::Status, |tried| tried.is_idempotent = false), Next::Stop(Denied::Method));
        assert_eq!(decide(Reason::Status, |tried| tried.is_replayable = false), Next::Stop(Denied::Body));
        assert_eq!(decide(Reason::Status, |tried| tried.attempts = 3), Next::Stop(Denied::Attempts));
        assert_eq!(decide(Reason::Timeout, |_| ()), Next::Stop(Denied::Class));
        assert_eq!(decide(Reason::BreakerOpen, |_| ()), Next::Stop(Denied::Class));
        assert_eq!(
            decide(Reason::Status, |tried| tried.remaining = Some(Duration::from_millis(50))),
            Next::Stop(Denied::Deadline)
        );
    }

    #[test]
    fn retry_after_is_waited_for_unless_it_is_too_long() {
        let after =
            |seconds| decide(Reason::Status, |tried| tried.asked = Asked::NotBefore(Duration::from_secs(seconds)));
        assert_eq!(after(2), Next::Retry(Duration::from_secs(2)));
        assert_eq!(after(60), Next::Stop(Denied::Deadline));
    }

    #[test]
    fn a_grpc_server_pushes_back_by_waits_of_its_own() {
        let asks = |asked| decide(Reason::Status, |tried| tried.asked = asked);
        assert_eq!(
            asks(Asked::After(Duration::from_millis(3))),
            Next::Retry(Duration::from_millis(3)),
            "not the backoff"
        );
        assert_eq!(asks(Asked::After(Duration::ZERO)), Next::Retry(Duration::ZERO));
        assert_eq!(asks(Asked::After(Duration::from_secs(60))), Next::Stop(Denied::Deadline));
        assert_eq!(asks(Asked::Not), Next::Stop(Denied::Class));
    }

    #[test]
    fn answers_ask_for_time_in_seconds_dates_and_milliseconds() {
        type Row = (&'static [(&'static str, &'static str)], Asked, Asked);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let (nothing, secs) = (Asked::Nothing, |secs| Asked::NotBefore(Duration::from_secs(secs)));
        let millis = |millis| Asked::After(Duration::from_millis(millis));
        let table: &[Row] = &[
            (&[], nothing, nothing),
            (&[("retry-after", "120")], secs(120), secs(120)),
            (&[("retry-after", " 0 ")], secs(0), secs(0)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], secs(10), secs(10)),
            (&[("retry-after", "Sunday, 06-Nov-94 08:49:47 GMT")], secs(10), secs(10)),
            (&[("retry-after", "Sun Nov  6 08:49:47 1994")], secs(10), secs(10)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], secs(0), secs(0)),
            (&[("retry-after", "99999999999999999999999")], secs(u64::MAX), secs(u64::MAX)),
            (&[("retry-after", "soon")], nothing, nothing),
            (&[("retry-after", "-1")], nothing, nothing),
            (&[("retry-after", "")], nothing, nothing),
            (&[("retry-after", "1"), ("retry-after", "2")], nothing, nothing),
            (&[("grpc-retry-pushback-ms", "2000")], nothing, millis(2000)),
            (&[("grpc-retry-pushback-ms", "0")], nothing, millis(0)),
            (&[("grpc-retry-pushback-ms", "-1")], nothing, Asked::Not),
            (&[("grpc-retry-pushback-ms", "soon")], nothing, Asked::Not),
            (&[("grpc-retry-pushback-ms", "")], nothing, Asked::Not),
            (&[("grpc-retry-pushback-ms", "99999999999")], nothing, Asked::Not),
            (&[("grpc-retry-pushback-ms", "1"), ("grpc-retry-pushback-ms", "1")], nothing, Asked::Not),
            (&[("grpc-retry-pushback-ms", "5"), ("retry-after", "9")], secs(9), millis(5)),
        ];
        for (fields, http, grpc) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            let of = |is_grpc| Asked::of(&headers, is_grpc, now);
            assert_eq!((of(false), of(true)), (*http, *grpc), "{fields:?}");
        }
    }

    #[test]
    fn a_spent_budget_ends_it() {
        let (policy, now) = (RetryPolicy::default(), Instant::now());
        let budget = RetryBudget::new(policy.budget, 1, now);
        while budget.withdraw(now) {}
        let failure = Failure::new(Reason::Status, "answered 503");
        let tried = Tried {
            failure: &failure,
            attempts: 1,
            is_idempotent: true,
            is_replayable: true,
            asked: Asked::Nothing,
            remaining: None,
            has_other: true,
        };
        assert_eq!(next(&policy, &tried, &budget, now, HALF), Next::Stop(Denied::Budget));
    }

    #[test]
    fn posts_are_idempotent_only_by_key_route_or_policy() {
        let mut policy = RetryPolicy::default();
        let mut headers = HeaderMap::new();
        assert!(is_idempotent(&policy, &Method::PUT, &headers, None));
        assert!(!is_idempotent(&policy, &Method::POST, &headers, None));
        assert!(is_idempotent(&policy, &Method::POST, &headers, Some(true)));
        assert!(!is_idempotent(&policy, &Method::GET, &headers, Some(false)));
        headers.insert("idempotency-key", http::HeaderValue::from_static("k"));
        assert!(is_idempotent(&policy, &Method::POST, &headers, None));
        policy.methods = RetryMethods::List(vec![Method::POST]);
        assert!(is_idempotent(&policy, &Method::POST, &HeaderMap::new(), None));
        assert!(!is_idempotent(&policy, &Method::GET, &HeaderMap::new(), None));
    }

    #[test]
    fn waits_follow_the_list_or_the_exponent() {
        let list = Backoff::default();
        assert_eq!(list.wait(2, HALF), Duration::from_millis(500));
        assert_eq!(list.wait(9, HALF), Duration::from_secs(1));
        assert_eq!(list.wait(1, 1.0), Duration::from_millis(120));
        let full =
            Backoff::Exponential { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(5) };
        assert_eq!(full.wait(3, 1.0), Duration::from_millis(400));
        assert_eq!(full.wait(50, 1.0), Duration::from_secs(5));
        assert_eq!(full.wait(3, 0.0), Duration::ZERO);
    }
}
