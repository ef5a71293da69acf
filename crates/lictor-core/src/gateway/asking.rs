//! A service that is asked whether a request may go on, by a request of our own: what is asked, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, FORWARDED, HOST,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::PathAndQuery;
use http::{HeaderName, Method, StatusCode};

/// Never of what a client sent: what frames a message, belongs to a connection, or makes an answer depend on what somebody has kept.
const UNFIT: [HeaderName; 20] = [
    ACCEPT_RANGES,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    EXPECT,
    FORWARDED,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    PROXY_AUTHORIZATION,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What is asked of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The upstream's name.
    pub to: Arc<str>,
    /// What is asked for there.
    pub path: PathAndQuery,
    /// How.
    pub method: Method,
    /// The request's fields that go along: its credentials. Without any of them nobody is asked.
    pub headers_out: Vec<HeaderName>,
    /// `X-Forwarded-Method`, `-Uri` and `-Host` go along: the answer is about one request, not about a credential.
    pub tells_request: bool,
    /// The answer's fields that go on with the request.
    pub headers_in: Vec<HeaderName>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long a yes holds; `None`: it is asked each time.
    pub keep: Option<Duration>,
    /// A request goes on, as nobody's, when there is no answer.
    pub fail_open: bool,
    /// A longer answer is none.
    pub answer_max: usize,
}

/// A no holds for so long at most: whoever is let in a moment later must not wait.
pub const KEEP_NO: Duration = Duration::from_secs(1);

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It may go on.
    Yes,
    /// It may not, and its client is told so in the service's words.
    No,
    /// The service could not say.
    Nothing,
    /// It said what is neither: it is not asked rightly.
    Nonsense,
}

impl Said {
    /// Of an answer with this status. A 429 is about how often we ask, not about who asks.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Yes,
            301 | 302 | 303 | 307 | 308 | 401 | 403 => Self::No,
            429 | 500..=599 => Self::Nothing,
            _ => Self::Nonsense,
        }
    }
}

/// Whether a field of a client's may go along.
pub fn may_go_along(name: &HeaderName) -> bool {
    let text = name.as_str();
    !UNFIT.contains(name) && *name != VIA && !["x-forwarded-", "x-lictor-"].iter().any(|begin| text.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_means_one_thing() {
        let of = |status| Said::of(StatusCode::from_u16(status).unwrap());
        for (statuses, said) in [
            (&[200, 201, 202, 204, 206, 299][..], Said::Yes),
            (&[301, 302, 303, 307, 308, 401, 403], Said::No),
            (&[429, 500, 502, 503, 504, 599], Said::Nothing),
            (&[300, 304, 305, 306, 400, 404, 405, 407, 409, 410, 421, 422, 451, 600], Said::Nonsense),
        ] {
            for status in statuses {
                assert_eq!(of(*status), said, "{status}");
            }
        }
    }

    #[test]
    fn nothing_that_frames_or_forges_goes_along() {
        let may = |name: &'static str| may_go_along(&HeaderName::from_static(name));
        assert!(["authorization", "cookie", "x-api-key", "x-tenant", "accept", "origin"].into_iter().all(may));
        for name in [
            "content-length",
            "transfer-encoding",
            "expect",
            "upgrade",
            "connection",
            "range",
            "if-none-match",
            "if-range",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-prefix",
            "x-lictor-to",
            "host",
            "te",
            "via",
        ] {
            assert!(!may(name), "{name}");
        }
    }
}
