//! What went wrong, as a closed set, and the tables that turn it into an answer.
//!
//! [`Reason`] is the word that users see (log field, header, metric label). [`Failure`] is what one attempt, or the
//! request as a whole, ended with. Adding a reason does not compile until every table answers for it.

use std::fmt;

use http::StatusCode;
use serde::{Serialize, Serializer};

/// Why lictor answered instead of the upstream, or why an attempt failed. A bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Every endpoint is ejected (and panic is off).
    AllEjected,
    /// Who asks cannot be found out: no keys to judge by, no answer of the service that is asked, or no time to compare a password.
    AuthUnavailable,
    /// The request is not HTTP that may be passed on.
    BadRequest,
    /// A request's body is longer than its route takes.
    BodyTooLarge,
    /// The service's breaker is open.
    BreakerOpen,
    /// The client went away.
    ClientGone,
    /// The connection was refused or could not be routed.
    ConnectRefused,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The caller's own deadline passed.
    DeadlineExceeded,
    /// Cut off: it still ran when the drain timeout was over, of this sidecar or of a listener that a reload took away.
    Draining,
    /// The caller may not do this.
    Forbidden,
    /// A request's head is longer than is read.
    HeadersTooLarge,
    /// Where requests are counted cannot be asked, and without it nobody may pass.
    LimitUnavailable,
    /// Our own hop is in `Via` already.
    LoopDetected,
    /// The gateway, or the route, is in maintenance.
    Maintenance,
    /// The callee's sidecar said that it is not the service we wanted, or that the connection is older than its listener
    /// (421).
    Misdirected,
    /// No healthy instance is known.
    NoEndpoints,
    /// None of the gateway's routes is for this request.
    NoRoute,
    /// The client wants a kept answer or none (`only-if-cached`), and there is none.
    NotCached,
    /// Limits on requests in flight or waiting.
    Overloaded,
    /// One attempt took too long.
    PerTryTimeout,
    /// The peer broke its protocol.
    ProtocolError,
    /// The client stopped sending the request's body.
    RequestTimeout,
    /// The client asks more often than it may.
    RateLimited,
    /// The connection ended before a response head.
    ResetBeforeResponse,
    /// The connection ended within a response.
    ResetMidResponse,
    /// The upstream's answer had a status that the retry policy names.
    Status,
    /// The whole request took too long.
    Timeout,
    /// The TLS handshake failed: a certificate, a name, a protocol version.
    TlsFailed,
    /// Missing or wrong credentials.
    Unauthenticated,
    /// No such upstream, or not on the forward proxy's list.
    UnknownUpstream,
}

/// What went wrong, roughly: as much as a history of each second has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The upstream answered, and that was no good.
    Answer,
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The answer, or the connection, broke off or was none.
    Broken,
    /// Refused here, without an attempt or after one.
    Refused,
}

impl Kind {
    /// All of them; one's place here is its number.
    pub const ALL: [Self; 5] = [Self::Answer, Self::Connect, Self::Timeout, Self::Broken, Self::Refused];

    /// The word for pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Refused => "refused",
        }
    }

    /// Of a request that ended so; without a reason the upstream's answer was passed on.
    pub fn of(reason: Option<Reason>) -> Self {
        let Some(reason) = reason else { return Self::Answer };
        match reason {
            Reason::Status => Self::Answer,
            Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => Self::Connect,
            Reason::DeadlineExceeded | Reason::PerTryTimeout | Reason::RequestTimeout | Reason::Timeout => {
                Self::Timeout
            }
            Reason::Misdirected | Reason::ProtocolError | Reason::ResetBeforeResponse | Reason::ResetMidResponse => {
                Self::Broken
            }
            Reason::AllEjected
            | Reason::AuthUnavailable
            | Reason::BadRequest
            | Reason::BodyTooLarge
            | Reason::BreakerOpen
            | Reason::ClientGone
            | Reason::Draining
            | Reason::Forbidden
            | Reason::HeadersTooLarge
            | Reason::LimitUnavailable
            | Reason::LoopDetected
            | Reason::Maintenance
            | Reason::NoEndpoints
            | Reason::NoRoute
            | Reason::NotCached
            | Reason::Overloaded
            | Reason::RateLimited
            | Reason::Unauthenticated
            | Reason::UnknownUpstream => Self::Refused,
        }
    }
}

/// May an attempt that failed like this be followed by another?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryable {
    /// Never.
    Never,
    /// When the method (or key, or route) makes a second processing harmless.
    IfIdempotent,
    /// Always: the upstream never saw the request.
    Always,
}

impl Reason {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 31] = [
        Self::AllEjected,
        Self::AuthUnavailable,
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::BreakerOpen,
        Self::ClientGone,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::DeadlineExceeded,
        Self::Draining,
        Self::Forbidden,
        Self::HeadersTooLarge,
        Self::LimitUnavailable,
        Self::LoopDetected,
        Self::Maintenance,
        Self::Misdirected,
        Self::NoEndpoints,
        Self::NoRoute,
        Self::NotCached,
        Self::Overloaded,
        Self::PerTryTimeout,
        Self::ProtocolError,
        Self::RateLimited,
        Self::RequestTimeout,
        Self::ResetBeforeResponse,
        Self::ResetMidResponse,
        Self::Status,
        Self::Timeout,
        Self::TlsFailed,
        Self::Unauthenticated,
        Self::UnknownUpstream,
    ];

    /// The word: log field, header value, metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllEjected => "all_ejected",
            Self::AuthUnavailable => "auth_unavailable",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::BreakerOpen => "breaker_open",
            Self::ClientGone => "client_gone",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Draining => "draining",
            Self::Forbidden => "forbidden",
            Self::HeadersTooLarge => "headers_too_large",
            Self::LimitUnavailable => "limit_unavailable",
            Self::LoopDetected => "loop_detected",
            Self::Maintenance => "maintenance",
            Self::Misdirected => "misdirected",
            Self::NoEndpoints => "no_endpoints",
            Self::NoRoute => "no_route",
            Self::NotCached => "not_cached",
            Self::Overloaded => "overloaded",
            Self::PerTryTimeout => "per_try_timeout",
            Self::ProtocolError => "protocol_error",
            Self::RateLimited => "rate_limited",
            Self::RequestTimeout => "request_timeout",
            Self::ResetBeforeResponse => "reset_before_response",
            Self::ResetMidResponse => "reset_mid_response",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::TlsFailed => "tls_failed",
            Self::Unauthenticated => "unauthenticated",
            Self::UnknownUpstream => "unknown_upstream",
        }
    }

    /// The status of lictor's own answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // Only ever logged: nginx's "client closed request".
            Self::ClientGone => StatusCode::from_u16(499).expect("499 is within 100..=999"),
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ConnectTimeout | Self::DeadlineExceeded | Self::NotCached | Self::PerTryTimeout | Self::Timeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::AllEjected
            | Self::AuthUnavailable
            | Self::BreakerOpen
            | Self::Draining
            | Self::LimitUnavailable
            | Self::Maintenance
            | Self::NoEndpoints
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectRefused
            | Self::LoopDetected
            | Self::ProtocolError
            | Self::ResetBeforeResponse
            | Self::ResetMidResponse
            | Self::Status
            | Self::TlsFailed
            | Self::UnknownUpstream => StatusCode::BAD_GATEWAY,
        }
    }

    /// `grpc-status` of lictor's own answer to a gRPC caller (the gRPC status codes page).
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::ClientGone => 1,
            Self::BadRequest => 3,
            Self::ConnectTimeout
            | Self::AllEjected
            | Self::AuthUnavailable
            | Self::BreakerOpen
            | Self::ConnectRefused
            | Self::Draining
            | Self::LimitUnavailable
            | Self::LoopDetected
            | Self::Maintenance
            | Self::Misdirected
            | Self::NoEndpoints
            | Self::NotCached
            | Self::ProtocolError
            | Self::ResetBeforeResponse
            | Self::ResetMidResponse
            | Self::Status
            | Self::TlsFailed => 14,
            Self::DeadlineExceeded | Self::PerTryTimeout | Self::RequestTimeout | Self::Timeout => 4,
            Self::Forbidden => 7,
            Self::BodyTooLarge | Self::HeadersTooLarge | Self::Overloaded | Self::RateLimited => 8,
            Self::Unauthenticated => 16,
            Self::NoRoute | Self::UnknownUpstream => 12,
        }
    }

    /// The `error` parameter of `Proxy-Status` (RFC 9209, section 2.3).
    pub fn proxy_status(self) -> &'static str {
        match self {
            Self::AllEjected | Self::BreakerOpen | Self::Draining | Self::NoEndpoints => "destination_unavailable",
            Self::BadRequest | Self::BodyTooLarge | Self::HeadersTooLarge | Self::RequestTimeout => {
                "http_request_error"
            }
            Self::ClientGone | Self::ResetBeforeResponse => "connection_terminated",
            Self::ConnectRefused => "connection_refused",
            Self::ConnectTimeout => "connection_timeout",
            Self::DeadlineExceeded | Self::PerTryTimeout | Self::Timeout => "http_response_timeout",
            Self::Forbidden | Self::Misdirected | Self::RateLimited | Self::Unauthenticated => "http_request_denied",
            Self::LoopDetected => "proxy_loop_detected",
            Self::Overloaded => "connection_limit_reached",
            Self::ProtocolError => "http_protocol_error",
            Self::ResetMidResponse => "http_response_incomplete",
            Self::AuthUnavailable | Self::LimitUnavailable | Self::Maintenance | Self::NotCached | Self::Status => {
                "proxy_internal_response"
            }
            Self::TlsFailed => "tls_protocol_error",
            Self::NoRoute | Self::UnknownUpstream => "destination_not_found",
        }
    }

    /// Envoy's response flag, for people who know them; empty where Envoy has none.
    pub fn envoy_flag(self) -> &'static str {
        match self {
            Self::AllEjected | Self::NoEndpoints => "UH",
            Self::BreakerOpen | Self::Overloaded => "UO",
            Self::ClientGone => "DC",
            Self::ConnectRefused | Self::ConnectTimeout | Self::TlsFailed => "UF",
            Self::DeadlineExceeded | Self::PerTryTimeout | Self::Timeout => "UT",
            Self::AuthUnavailable | Self::Forbidden | Self::Unauthenticated => "UAEX",
            Self::ProtocolError => "UPE",
            Self::LimitUnavailable | Self::RateLimited => "RL",
            Self::RequestTimeout => "SI",
            Self::ResetBeforeResponse | Self::ResetMidResponse => "UC",
            Self::NoRoute | Self::UnknownUpstream => "NR",
            Self::BadRequest
            | Self::BodyTooLarge
            | Self::Draining
            | Self::HeadersTooLarge
            | Self::LoopDetected
            | Self::Maintenance
            | Self::Misdirected
            | Self::NotCached
            | Self::Status => "",
        }
    }

    /// Whether another attempt may follow.
    pub fn retryable(self) -> Retryable {
        match self {
            Self::ConnectRefused | Self::ConnectTimeout | Self::Misdirected | Self::TlsFailed => Retryable::Always,
            Self::PerTryTimeout | Self::ProtocolError | Self::ResetBeforeResponse | Self::Status => {
                Retryable::IfIdempotent
            }
            Self::AllEjected
            | Self::AuthUnavailable
            | Self::BadRequest
            | Self::BodyTooLarge
            | Self::BreakerOpen
            | Self::ClientGone
            | Self::DeadlineExceeded
            | Self::Draining
            | Self::Forbidden
            | Self::HeadersTooLarge
            | Self::LimitUnavailable
            | Self::LoopDetected
            | Self::Maintenance
            | Self::NoEndpoints
            | Self::NoRoute
            | Self::NotCached
            | Self::Overloaded
            | Self::RateLimited
            | Self::RequestTimeout
            | Self::ResetMidResponse
            | Self::Timeout
            | Self::Unauthenticated
            | Self::UnknownUpstream => Retryable::Never,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a request, or one attempt of it, ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub reason: Reason,
    /// One sentence for a person, without a trailing dot.
    pub detail: String,
    /// For `Retry-After`.
    pub retry_after: Option<std::time::Duration>,
    /// The upstream certainly never processed the request, whatever the reason
    /// (nothing was written, or HTTP/2 said so: RFC 9113, section 8.7).
    pub is_unprocessed: bool,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None, is_unprocessed: false }
    }

    /// Marks that the upstream never processed the request.
    #[must_use]
    pub fn unprocessed(mut self) -> Self {
        self.is_unprocessed = true;
        self
    }

    /// Adds when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether another attempt may follow.
    pub fn retryable(&self) -> Retryable {
        if self.is_unprocessed { Retryable::Always } else { self.reason.retryable() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
