//! Why nobody is known, in whatever way he was to be.

use std::time::Duration;

use lictor_core::gateway::auth::How;
use lictor_core::{Failure, Reason};
use lictor_jose::{Kind, Refusal, Why};

use super::Stop;

/// How it is counted that nobody could say who it is.
pub(super) const UNAVAILABLE: &str = "unavailable";

/// Why nobody is known.
pub(super) struct No {
    /// In which way somebody tried; `None`: by a token, by nothing or by several.
    pub(super) how: Option<How>,
    pub(super) why: Because,
}

pub(super) enum Because {
    /// What was shown, or that nothing was.
    Refused(Refusal),
    /// Something else, with the word that it is counted by.
    Other(&'static str, Stop),
}

impl No {
    /// He has tried in this way.
    pub(super) fn by(self, how: How) -> Self {
        Self { how: Some(how), ..self }
    }

    pub(super) fn other(word: &'static str, stop: Stop) -> Self {
        Self { how: None, why: Because::Other(word, stop) }
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { how: None, why: Because::Refused(refusal) }
    }
}

/// One that no token has caused.
pub(super) fn refusal(why: Why, detail: &str) -> Refusal {
    Refusal { why, detail: detail.into(), issuer: None }
}

/// Nobody can say who it is, for a moment.
pub(super) fn busy(detail: &str) -> No {
    let failure = Failure::new(Reason::AuthUnavailable, detail).retry_after(Duration::from_secs(1));
    No::other(UNAVAILABLE, Stop::Refused(failure, Kind::Unavailable.message()))
}
