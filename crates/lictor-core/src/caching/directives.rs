//! `Cache-Control` (RFC 9111, section 5.2): all its lines, names in any case, values as tokens or quoted, any bytes.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// What larger numbers of seconds are taken for (section 1.2.2).
const FOREVER: u64 = 1 << 31;

/// What an answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) proxy_revalidate: bool,
    /// None at all where it is no number, or more than one (section 4.2.1).
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_while_revalidate: Duration,
    pub(super) stale_if_error: Duration,
    /// A quoted string has no end: nobody knows what is said.
    pub(super) is_unclear: bool,
}

/// What a request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    pub(super) max_stale: Option<Duration>,
}

impl Told {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut told = Self::default();
        // With a list of fields `private` and `no-cache` mean these only; they are taken for the whole answer, as
        // sections 5.2.2.4 and 5.2.2.7 allow.
        told.is_unclear = !each(headers, |name, value| match name {
            b"no-store" => told.no_store = true,
            b"no-cache" => told.no_cache = true,
            b"private" => told.private = true,
            b"public" => told.public = true,
            b"must-revalidate" => told.must_revalidate = true,
            b"must-understand" => told.must_understand = true,
            b"proxy-revalidate" => told.proxy_revalidate = true,
            b"max-age" => agree(&mut told.max_age, value),
            b"s-maxage" => agree(&mut told.s_maxage, value),
            b"stale-while-revalidate" => told.stale_while_revalidate = seconds(value).unwrap_or_default(),
            b"stale-if-error" => told.stale_if_error = seconds(value).unwrap_or_default(),
            _ => (),
        });
        told
    }

    /// Whether a shared cache may keep the answer to a request with `Authorization` (section 3.5).
    pub(super) fn is_for_all(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Whether it must not be used past its life (sections 4.2.4, 5.2.2.2, 5.2.2.8, 5.2.2.10).
    pub(super) fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        // What is not understood is taken for the stricter wish.
        let is_clear = each(headers, |name, value| match name {
            b"no-store" => asked.no_store = true,
            b"no-cache" => asked.no_cache = true,
            b"only-if-cached" => asked.only_if_cached = true,
            b"max-age" => agree(&mut asked.max_age, value),
            b"min-fresh" => {
                let wanted = seconds(value).unwrap_or(Duration::from_secs(FOREVER));
                asked.min_fresh = Some(asked.min_fresh.map_or(wanted, |other| other.max(wanted)));
            }
            b"max-stale" => {
                let any = value.is_none().then_some(Duration::from_secs(FOREVER));
                let allowed = any.or_else(|| seconds(value)).unwrap_or_default();
                asked.max_stale = Some(asked.max_stale.map_or(allowed, |other| other.min(allowed)));
            }
            _ => (),
        });
        asked.no_cache |= !is_clear;
        asked
    }
}

/// A number of seconds that is given twice counts where both are the same; otherwise, and where it is no number, there is
/// no time at all.
fn agree(known: &mut Option<Duration>, value: Option<&[u8]>) {
    let given = seconds(value).unwrap_or_default();
    *known = Some(if known.is_none_or(|known| known == given) { given } else { Duration::ZERO });
}

/// `delta-seconds` (section 1.2.2).
pub(super) fn seconds(value: Option<&[u8]>) -> Option<Duration> {
    let digits = value.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    let add = |number: u64, digit: &u8| (number * 10 + u64::from(digit - b'0')).min(FOREVER);
    Some(Duration::from_secs(digits.iter().fold(0, add)))
}

/// Tells each directive: its name in lower case, and its value without quotes. False where a quoted string has no end.
fn each(headers: &HeaderMap, mut tell: impl FnMut(&[u8], Option<&[u8]>)) -> bool {
    let mut is_clear = true;
    for line in headers.get_all(CACHE_CONTROL) {
        is_clear &= members(line.as_bytes(), |member| {
            let (name, value) = match member.iter().position(|byte| *byte == b'=') {
                Some(at) => (&member[..at], Some(&member[at + 1..])),
                None => (member, None),
            };
            let value = value.map(unquoted);
            tell(&name.trim_ascii().to_ascii_lowercase(), value.as_deref());
        });
    }
    is_clear
}

/// Splits at commas that are outside of quotes.
fn members(line: &[u8], mut tell: impl FnMut(&[u8])) -> bool {
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                tell(line[start..at].trim_ascii());
                start = at + 1;
            }
            _ => (),
        }
    }
    tell(line[start..].trim_ascii());
    !is_quoted
}

fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut is_escape = false;
    let plain = inner.iter().copied().filter(|byte| {
        is_escape = *byte == b'\\' && !is_escape;
        !is_escape
    });
    Cow::Owned(plain.collect())
}
