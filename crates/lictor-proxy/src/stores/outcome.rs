//! How an attempt went.

use std::fmt;

use lictor_core::Reason;

/// What an attempt ended with: the upstream's status class, or no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    /// Of a connection that is carried as bytes.
    Connected,
    /// Nobody waits for it any more: another copy was faster, or the client went away.
    Abandoned,
    Failed(Reason),
}

impl fmt::Display for Outcome {
    /// As users see it, in `X-Lictor-Attempts` for one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Connected => f.write_str("connected"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::Failed(reason) => f.write_str(reason.as_str()),
        }
    }
}
