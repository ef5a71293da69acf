//! Dates in heads (RFC 9110, section 5.6.7), and `Age` (RFC 9111, section 5.1).

use std::time::{Duration, SystemTime};

use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::seconds;

/// A date field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Date {
    Absent,
    /// No date, or several different ones.
    Unclear,
    At(SystemTime),
}

impl Date {
    pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut lines = headers.get_all(name).iter();
        let Some(first) = lines.next() else { return Self::Absent };
        match parsed(first) {
            Some(date) if lines.all(|line| parsed(line) == Some(date)) => Self::At(date),
            _ => Self::Unclear,
        }
    }

    pub(super) fn known(self) -> Option<SystemTime> {
        match self {
            Self::At(date) => Some(date),
            Self::Absent | Self::Unclear => None,
        }
    }
}

/// All three forms that were ever allowed.
fn parsed(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

/// As a head has it.
pub(super) fn shown(date: SystemTime) -> Option<HeaderValue> {
    // The library's range: before 1970 and after 9999 there is no such date.
    let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since < Duration::from_secs(253_402_300_800)).then(|| HeaderValue::try_from(httpdate::fmt_http_date(date)).ok())?
}

/// What caches before us say of an answer's age: the first number of a list; what is no number says nothing.
pub(super) fn age(headers: &HeaderMap) -> Duration {
    let first = headers.get(AGE).and_then(|age| age.as_bytes().split(|byte| *byte == b',').next());
    seconds(first.map(<[u8]>::trim_ascii)).unwrap_or_default()
}
