//! Spans, ready to be exported by somebody else. Names and values follow OpenTelemetry's semantic conventions.

use std::time::SystemTime;

/// One operation as a trace sees it.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace.
    pub trace_id: u128,
    /// This span.
    pub span_id: u64,
    /// The span that caused it.
    pub parent: Option<u64>,
    /// The caller's `tracestate`; empty where there is none.
    pub trace_state: String,
    /// Whether that one is another process's.
    pub is_parent_remote: bool,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// `METHOD route`, or a gRPC method.
    pub name: String,
    /// When the request came, or the attempt began.
    pub start: SystemTime,
    /// When the last byte of the answer was out.
    pub end: SystemTime,
    /// Attributes, in no order.
    pub attributes: Vec<(&'static str, Value)>,
    /// Retries, hedges, what the breaker did.
    pub events: Vec<SpanEvent>,
    /// Whoever had asked for the answer that was given again: trace and span.
    pub link: Option<(u128, u64)>,
    /// A 5xx, or no answer; for a client also a 4xx.
    pub is_error: bool,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Our application wants something; how it is got is in its children.
    Internal,
    /// Somebody is called.
    Client,
    /// Our application is called.
    Server,
}

/// Something that happened within a span.
#[derive(Clone, Debug)]
pub struct SpanEvent {
    /// What.
    pub name: &'static str,
    /// When.
    pub at: SystemTime,
    /// Attributes.
    pub attributes: Vec<(&'static str, Value)>,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(i64::from(number))
    }
}
