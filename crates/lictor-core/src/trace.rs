//! Trace context: W3C `traceparent`, B3, and the `X-Trace-ID` / `X-Span-ID` pair of older services.

/// Trace headers and sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// W3C `traceparent` and `tracestate`. Always understood; sent unless this is false. Default true.
    pub w3c: bool,
    /// B3, single and multiple headers, understood and sent. Default true: understood; sent only when the caller did.
    pub b3: bool,
    /// `X-Trace-ID`, `X-Span-ID`, `X-Parent-ID` understood, sent and echoed. Default true.
    pub legacy: bool,
    /// Share of new traces that are sampled, 0 to 1. A caller's decision is kept. Default 0.1.
    pub sample: f64,
    /// Whether spans are exported at all.
    pub export: bool,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { w3c: true, b3: true, legacy: true, sample: 0.1, export: false }
    }
}
