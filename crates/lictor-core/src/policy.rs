//! Policy as values: parsed once from the configuration, read on every request.
//!
//! The `Default` of each struct *is* the product's default; nothing else in the workspace repeats these numbers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};

pub use crate::balance::{Algorithm, Balance, HashOn};
pub use crate::deadline::DeadlineMode;
use crate::deadline::{Deadline, End};

/// Everything that decides how one upstream is called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// When the whole service is given a rest.
    pub breaker: BreakerPolicy,
    /// Which answers are kept and given again. Default: none.
    pub cache: Option<CachePolicy>,
    /// What to do with a caller's deadline.
    pub deadline: DeadlineMode,
    /// When one endpoint is given a rest.
    pub ejection: EjectionPolicy,
    /// When a slow request is sent a second time. Default: never.
    pub hedge: Option<Hedge>,
    /// How much may be in flight.
    pub limits: Limits,
    /// How connections are kept.
    pub pool: PoolPolicy,
    /// Which requests go first, and which have to go, when not all can be sent.
    pub priority: Priority,
    /// When and how a request is sent again.
    pub retry: RetryPolicy,
    /// When there is no good answer, an earlier one stands in for so long past its life. Default: none.
    pub stale: Option<Duration>,
    /// And what else is answered then. Default: nothing.
    pub fallback: Option<Arc<Fallback>>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Policy {
    /// When the time of a request ends that was not sent yet.
    pub fn end(&self, deadline: Deadline) -> Option<End> {
        deadline.under(self.deadline).end(self.timeouts.total, deadline.arrival())
    }

    /// How copies of its requests are called: each once, and nobody waits for them.
    #[must_use]
    pub fn for_copies(&self) -> Self {
        Self {
            cache: None,
            stale: None,
            fallback: None,
            hedge: None,
            priority: Priority::Low,
            retry: RetryPolicy { attempts: 1, ..self.retry.clone() },
            limits: Limits { max_pending: 0, ..self.limits.clone() },
            ..self.clone()
        }
    }
}

/// What is answered in place of a failure: 5xx, or no answer at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// The upstream that is asked instead.
    pub upstream: Option<Arc<str>>,
    /// Given when that has no good answer either, or is not there.
    pub answer: Option<FixedAnswer>,
}

/// An answer of the configuration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedAnswer {
    /// Its status. Default 200.
    pub status: StatusCode,
    /// Of its body. Default `application/json`.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For one TCP (and TLS) connect. Default 1 s: another endpoint is usually better than a longer wait.
    pub connect: Duration,
    /// From an attempt's start to its response head. Default: none.
    pub per_try: Option<Duration>,
    /// From the request's arrival to the end of a unary response, all attempts and waits included.
    /// For streams (SSE, gRPC streaming, upgrades) it ends with the response head. Default 30 s; `None` is no limit.
    pub total: Option<Duration>,
    /// Silence allowed on a stream, both ways. Default 1 h.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            per_try: None,
            total: Some(Duration::from_secs(30)),
            idle: Duration::from_secs(3600),
        }
    }
}

/// When and how a request is sent again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. Default 3; 1 is "never retry".
    pub attempts: u32,
    /// The wait before each further attempt. Default 100 ms, 500 ms, 1 s, each +-20 %.
    pub backoff: Backoff,
    /// Statuses that are retried. Default 500, 502, 503, 504.
    pub statuses: Vec<StatusCode>,
    /// Failure classes that are retried. Default all.
    pub classes: RetryClasses,
    /// Methods that may be sent again once bytes were sent. Default idempotent ones (RFC 9110, section 9.2.2).
    pub methods: RetryMethods,
    /// The share of retries to requests.
    pub budget: BudgetPolicy,
    /// The largest request body that is kept for sending again, in bytes. Default 64 KiB.
    pub max_body: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            statuses: vec![
                StatusCode::INTERNAL_SERVER_ERROR,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            classes: RetryClasses::default(),
            methods: RetryMethods::Idempotent,
            budget: BudgetPolicy::default(),
            max_body: 64 * 1024,
        }
    }
}

/// The wait before a further attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Backoff {
    /// These delays in turn, the last one again when they run out, each changed by up to +-`jitter` (0 to 1) of itself.
    Delays {
        /// The delays, never empty.
        delays: Vec<Duration>,
        /// The share of a delay that is random.
        jitter: f64,
    },
    /// A uniformly random wait up to `min(max, initial * factor^n)` ("full jitter").
    Exponential {
        /// The first bound.
        initial: Duration,
        /// What it is multiplied with each time.
        factor: f64,
        /// The last bound.
        max: Duration,
    },
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Delays {
            delays: vec![Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1)],
            jitter: 0.2,
        }
    }
}

/// Failure classes that are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryClasses {
    /// The connection was not made.
    pub connect_failure: bool,
    /// The connection ended, or the protocol broke, before a response head.
    pub reset: bool,
    /// The per-try timeout.
    pub timeout: bool,
    /// HTTP/2 `REFUSED_STREAM` or a `GOAWAY` that did not cover the stream (RFC 9113, section 8.7): never processed.
    pub refused_stream: bool,
}

impl Default for RetryClasses {
    fn default() -> Self {
        Self { connect_failure: true, reset: true, timeout: true, refused_stream: true }
    }
}

/// Methods that may be sent again once bytes were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    Idempotent,
    /// All.
    Any,
    /// Just these.
    List(Vec<Method>),
}

/// When a slow request is sent a second time, to another endpoint; the first good answer counts. Only GET, HEAD and
/// OPTIONS without a body, and only as the retry budget allows (Dean and Barroso, "The Tail at Scale", 2013).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// How long to wait for the first answer. Default: the 95th percentile.
    pub after: HedgeDelay,
    /// Further copies. Default 1.
    pub max: u32,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { after: HedgeDelay::Quantile(0.95), max: 1 }
    }
}

/// When a request is slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeDelay {
    /// Slower than this share (0 to 1) of the upstream's recent answers; never while too few are known.
    Quantile(f64),
    /// Slower than this.
    Fixed(Duration),
}

/// Which answers are kept and given again, by the rules of [`caching`](crate::caching).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// The life of an answer with status 200 that tells none itself. Default 1 s.
    pub ttl: Duration,
    /// Of equal requests at the same time one is sent, and the others wait for its answer. Default true.
    pub coalesce: bool,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(1), coalesce: true }
    }
}

/// The share of retries to requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetPolicy {
    /// Retries allowed per request, over the window. Default 0.2.
    pub ratio: f64,
    /// How far back requests count. Default 10 s.
    pub window: Duration,
    /// Retries a second that are always allowed. Default 3.
    pub min_per_second: f64,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self { ratio: 0.2, window: Duration::from_secs(10), min_per_second: 3.0 }
    }
}

/// When the whole service is given a rest.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Off: never opens.
    pub enabled: bool,
    /// Consecutive failures that open it. Default 5.
    pub failure_threshold: u32,
    /// Consecutive successful probes that close it. Default 3.
    pub success_threshold: u32,
    /// The longest that it stays open before a probe: 5 s at first, then twice as long each time. Default 60 s.
    pub recovery_timeout: Duration,
    /// Probes at a time while half-open. Default 1.
    pub half_open_max: u32,
    /// Opens by share of failures, besides the consecutive count. Default 50 % of at least 20 in 10 s.
    pub error_rate: Option<ErrorRate>,
    /// Opens by share of slow answers. Default: never.
    pub slow_call: Option<SlowCall>,
    /// What counts as a failure.
    pub failure: BreakerFailures,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            success_threshold: 3,
            recovery_timeout: Duration::from_secs(60),
            half_open_max: 1,
            error_rate: Some(ErrorRate::default()),
            slow_call: None,
            failure: BreakerFailures::default(),
        }
    }
}

/// The share of failures that opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorRate {
    /// Failures / requests, 0 to 1. Default 0.5.
    pub threshold: f64,
    /// How far back. Default 10 s.
    pub window: Duration,
    /// Requests needed in the window before it is believed. Default 20.
    pub min_requests: u32,
}

impl Default for ErrorRate {
    fn default() -> Self {
        Self { threshold: 0.5, window: Duration::from_secs(10), min_requests: 20 }
    }
}

/// The share of slow answers that opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowCall {
    /// From admission to the response head: longer is slow. Default 3 s.
    pub over: Duration,
    /// The share of slow answers among good ones, and what it is of. Default 50 % of at least 20 in 10 s.
    pub rate: ErrorRate,
}

impl Default for SlowCall {
    fn default() -> Self {
        Self { over: Duration::from_secs(3), rate: ErrorRate::default() }
    }
}

/// What counts as a failure for the breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerFailures {
    /// Any 5xx (and for gRPC: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS).
    pub server_errors: bool,
    /// Further statuses.
    pub statuses: Vec<StatusCode>,
    /// No connection.
    pub connect_failure: bool,
    /// Connection ended or protocol broken before a response.
    pub reset: bool,
    /// Any timeout of ours.
    pub timeout: bool,
}

impl Default for BreakerFailures {
    fn default() -> Self {
        Self { server_errors: true, statuses: Vec::new(), connect_failure: true, reset: true, timeout: true }
    }
}

/// When one endpoint is given a rest. The last endpoint never is: that is the breaker's decision.
#[derive(Clone, Debug, PartialEq)]
pub struct EjectionPolicy {
    /// Consecutive failures that eject; 0 is off. Default 5.
    pub consecutive: u32,
    /// The first ejection's length; it doubles with each further one. Default 1 s.
    pub base: Duration,
    /// The longest ejection. Default 60 s.
    pub max: Duration,
    /// The largest share of endpoints (0 to 1) ejected at a time. Default 0.5.
    pub max_share: f64,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self { consecutive: 5, base: Duration::from_secs(1), max: Duration::from_secs(60), max_share: 0.5 }
    }
}

/// How much may be in flight, for the whole process, whatever the number of its workers. Who finds no place waits for
/// one, no longer than the request's own time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time. Default 1024.
    pub max_in_flight: u32,
    /// Requests that may wait for a place, and as many for a connection to one endpoint. Default 256.
    pub max_pending: u32,
    /// How long they may wait for each. Default 1 s.
    pub pending_timeout: Duration,
    /// Connections to one endpoint. Default 256.
    pub max_connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_in_flight: 1024, max_pending: 256, pending_timeout: Duration::from_secs(1), max_connections: 256 }
    }
}

/// How important a request is, among those that wait for a place. The lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Waits behind all others, and is refused first.
    Low,
    /// As most are.
    #[default]
    Normal,
    /// Goes before all others, and takes the place of one of them where the queue is full.
    High,
}

/// How connections are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// An idle connection is closed after this. Default 3 s: shorter than servers' own keep-alive timeouts.
    pub idle: Duration,
    /// A connection is replaced after this. Default 10 min.
    pub max_age: Duration,
    /// Streams on one HTTP/2 connection before another is opened. Default 100.
    pub max_streams: u32,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self { idle: Duration::from_secs(3), max_age: Duration::from_secs(600), max_streams: 100 }
    }
}
