//! Why a call to the agent gave nothing to work with.

use std::time::Duration;

use thiserror::Error;

/// Why a call gave nothing to work with.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConsulError {
    /// No connection.
    #[error("the agent cannot be reached: {0}")]
    Unreachable(String),
    /// The connection ended before a whole answer.
    #[error("the connection to the agent broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("the agent has not answered within {0:?}")]
    Timeout(Duration),
    /// An answer that says no.
    #[error("the agent answered {code}: {text}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// The body, shortened.
        text: String,
    },
    /// The address leads to another agent than the one that has our registration, which is not to be found.
    #[error("the agent that has our registration is not there; the address leads to {0}")]
    Elsewhere(String),
    /// An answer of more bytes than are read.
    #[error("the agent's answer is larger than {} MiB and is not read", .0 >> 20)]
    TooLarge(usize),
    /// A folder of KV with more keys than are read at once.
    #[error("there are more than {0} keys")]
    TooMany(usize),
    /// An answer that is not what it should be.
    #[error("the agent's answer makes no sense: {0}")]
    Decode(String),
}

impl ConsulError {
    /// The kind, for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Elsewhere(_) => "elsewhere",
            Self::Timeout(_) => "timeout",
            Self::Status { code: 403 | 401, .. } => "denied",
            Self::Status { code: 429, .. } => "rate_limited",
            Self::Status { .. } => "status",
            Self::Decode(_) => "decode",
            Self::TooLarge(_) | Self::TooMany(_) => "too_large",
        }
    }

    /// Whether the token was refused.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Status { code: 401 | 403, .. })
    }

    /// Whether Consul could not read what it was asked: a name with characters that it does not take, or a filter, about
    /// which 1.8 answers 500.
    pub fn is_mistaken(&self) -> bool {
        match self {
            Self::Status { code: 400, .. } => true,
            Self::Status { code: 500, text } => text.contains("boolean expression"),
            _ => false,
        }
    }

    /// Whether Consul as a whole is in trouble, rather than this one call wrong.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Elsewhere(_) | Self::Timeout(_) | Self::Decode(_) => true,
            Self::Status { code, .. } => *code == 429 || *code >= 500,
            Self::TooLarge(_) | Self::TooMany(_) => false,
        }
    }
}
