//! A breaker's states, and what is told and shown of them.

use serde::Serialize;

use super::opening::OpeningView;

/// The states, in the encoding of the older services' gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl BreakerState {
    /// The word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// `circuit_breaker_state`.
    pub fn as_gauge(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// A change of state, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: BreakerState,
    /// After.
    pub to: BreakerState,
    /// Why.
    pub cause: &'static str,
    /// The last time that it opened by itself: this one, if it opens.
    pub opening: Option<OpeningView>,
}

/// The breaker for a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Now.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Since the last change.
    pub since_ms: u64,
    /// Until a probe may go, while open.
    pub next_probe_ms: Option<u64>,
    /// Until a connection is tried again, while open because none was to be had.
    pub next_connect_ms: Option<u64>,
    /// Connections that were tried since it opened.
    pub connects_tried: u32,
    /// Of the last change.
    pub cause: &'static str,
    /// How often it has opened.
    pub opened_total: u64,
    /// The last time that it did by itself, and what led to it.
    pub last_opened: Option<OpeningView>,
    /// What an operator has ordered, if it is that.
    pub forced: Option<Forced>,
    /// How long the order still holds.
    pub forced_for_ms: Option<u64>,
}

/// What an operator can order, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forced {
    /// Every request is refused, and none is a probe.
    Open,
    /// No request is refused, whatever fails.
    Closed,
}
