//! A finished span, ready to be exported by somebody else.

use std::time::SystemTime;

/// One request as a trace sees it. Names follow OpenTelemetry's semantic conventions for HTTP spans.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace.
    pub trace_id: u128,
    /// This span.
    pub span_id: u64,
    /// The span that caused it.
    pub parent: Option<u64>,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// `METHOD route`.
    pub name: String,
    /// When the request came.
    pub start: SystemTime,
    /// When the last byte of the answer was out.
    pub end: SystemTime,
    /// Attributes, in no order.
    pub attributes: Vec<(&'static str, Value)>,
    /// Attempts and retries.
    pub events: Vec<SpanEvent>,
    /// A 5xx, or no answer.
    pub is_error: bool,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Our application calls.
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
