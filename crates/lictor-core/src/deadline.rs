//! A request's one deadline, and the fields that carry it.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

use crate::outcome::Reason;

/// With less than this left nothing is sent: what is told is in milliseconds, and to some a 0 means no limit at all.
const LEAST: Duration = Duration::from_millis(1);

/// Until when anything may be done for a request. Made once, as it arrives; everything that waits for the sake of the
/// request is given it, or an [`End`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    arrival: Instant,
    callers: Option<Instant>,
}

/// The end of a request's time, and why it is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The instant.
    pub at: Instant,
    /// Whose limit it is: `timeout` is ours, `deadline_exceeded` the caller's.
    pub reason: Reason,
}

/// What to do with a caller's deadline (`grpc-timeout`, `X-Request-Timeout-Ms`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadlineMode {
    /// Honour it, and pass on what remains.
    #[default]
    Propagate,
    /// Neither.
    Ignore,
}

impl Deadline {
    /// Of a request that has just arrived, and whose caller waits this long, if it says so.
    pub fn new(arrival: Instant, callers: Option<Duration>) -> Self {
        Self { arrival, callers: callers.and_then(|callers| arrival.checked_add(callers)) }
    }

    /// Not later than this: it is sent on behalf of another request, which ends then.
    #[must_use]
    pub fn no_later_than(self, at: Instant) -> Self {
        Self { callers: Some(self.callers.map_or(at, |callers| callers.min(at))), ..self }
    }

    /// As a policy has it.
    #[must_use]
    pub fn under(self, mode: DeadlineMode) -> Self {
        match mode {
            DeadlineMode::Propagate => self,
            DeadlineMode::Ignore => Self { callers: None, ..self },
        }
    }

    /// When the request came.
    pub fn arrival(self) -> Instant {
        self.arrival
    }

    /// The caller's end.
    pub fn callers(self) -> Option<Instant> {
        self.callers
    }

    /// How long the caller waits, from the request's arrival.
    pub fn given(self) -> Option<Duration> {
        self.callers.map(|callers| callers.saturating_duration_since(self.arrival))
    }

    /// The least of the caller's limit and of ours, which counts from the arrival, or from `since` if that is later.
    pub fn end(self, ours: Option<Duration>, since: Instant) -> Option<End> {
        let ours = ours.and_then(|ours| since.max(self.arrival).checked_add(ours));
        let ours = ours.map(|at| End { at, reason: Reason::Timeout });
        let callers = self.callers.map(|at| End { at, reason: Reason::DeadlineExceeded });
        sooner(callers, ours)
    }
}

impl End {
    /// What is left.
    pub fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Whether it is too late to send anything.
    pub fn is_over(self, now: Instant) -> bool {
        self.at < now + LEAST
    }
}

/// The sooner of two ends, where there are such.
pub fn sooner(one: Option<End>, other: Option<End>) -> Option<End> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.at < one.at { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// A field that carries a deadline.
#[derive(Debug)]
pub struct Field {
    /// Its name, in lower case.
    pub name: HeaderName,
    parse: fn(&[u8]) -> Option<Duration>,
    /// How it is written.
    pub format: fn(Duration) -> String,
}

/// All of them: ours, gRPC's, and for migration Envoy's and Linkerd's.
pub static FIELDS: [Field; 5] = [
    Field { name: HeaderName::from_static("x-request-timeout-ms"), parse: parse_millis, format: format_millis },
    Field { name: HeaderName::from_static("grpc-timeout"), parse: parse_grpc_timeout, format: format_grpc_timeout },
    Field { name: HeaderName::from_static("x-lictor-timeout"), parse: parse_duration, format: format_duration },
    Field {
        name: HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
        parse: parse_envoy,
        format: format_millis,
    },
    Field { name: HeaderName::from_static("l5d-timeout"), parse: parse_duration, format: format_duration },
];

/// What the caller's fields leave it: the least of them all, each line of each. What is malformed is ignored.
pub fn callers_deadline(headers: &HeaderMap) -> Option<Duration> {
    let lines = |field: &'static Field| headers.get_all(&field.name).into_iter().map(move |line| (field, line));
    FIELDS.iter().flat_map(lines).filter_map(|(field, line)| (field.parse)(line.as_bytes())).min()
}

/// A whole number of milliseconds.
pub fn parse_millis(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

/// The same, but 0 is no limit (Envoy's router filter, `x-envoy-upstream-rq-timeout-ms`).
fn parse_envoy(value: &[u8]) -> Option<Duration> {
    parse_millis(value).filter(|limit| !limit.is_zero())
}

fn format_millis(left: Duration) -> String {
    left.as_millis().to_string()
}

/// At most eight digits and one of `H M S m u n` (gRPC over HTTP/2, "Requests").
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let count = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The most exact form that fits in eight digits; never longer than what is left.
pub fn format_grpc_timeout(left: Duration) -> String {
    const MAX: u128 = 99_999_999;
    if left.as_micros() <= MAX {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= MAX {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MAX))
    }
}

/// `2s`, `100ms`, or milliseconds.
fn parse_duration(value: &[u8]) -> Option<Duration> {
    if let Some(digits) = value.strip_suffix(b"ms") {
        return parse_millis(digits);
    }
    match value.strip_suffix(b"s") {
        Some(digits) => number(digits).map(Duration::from_secs),
        None => parse_millis(value),
    }
}

fn format_duration(left: Duration) -> String {
    format!("{}ms", left.as_millis())
}

/// Digits only, so that no sign, space or overflow gets through.
fn number(digits: &[u8]) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit);
    is_plain.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_least_line_of_all_fields_counts_and_nonsense_does_not() {
        type Row = (&'static [(&'static str, &'static str)], Option<u64>);
        let table: &[Row] = &[
            (&[], None),
            (&[("grpc-timeout", "2S"), ("x-request-timeout-ms", "1500"), ("l5d-timeout", "-1s")], Some(1500)),
            (&[("x-request-timeout-ms", "900"), ("x-request-timeout-ms", "300")], Some(300)),
            (&[("x-request-timeout-ms", "300"), ("x-request-timeout-ms", "900")], Some(300)),
            (&[("grpc-timeout", "1S"), ("grpc-timeout", "20m")], Some(20)),
            (&[("l5d-timeout", "2s"), ("l5d-timeout", "1s")], Some(1000)),
            (&[("x-lictor-timeout", "soon"), ("x-lictor-timeout", "250ms")], Some(250)),
            (&[("x-request-timeout-ms", "")], None),
            (&[("x-request-timeout-ms", "1e3"), ("x-request-timeout-ms", "5,6")], None),
            (&[("x-request-timeout-ms", "0")], Some(0)),
            (&[("grpc-timeout", "0m")], Some(0)),
            (&[("x-envoy-upstream-rq-timeout-ms", "0")], None),
            (&[("x-envoy-upstream-rq-timeout-ms", "0"), ("l5d-timeout", "4s")], Some(4000)),
            (&[("x-envoy-upstream-rq-timeout-ms", "0"), ("x-envoy-upstream-rq-timeout-ms", "70")], Some(70)),
        ];
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(callers_deadline(&headers), expected.map(millis), "{fields:?}");
        }
    }

    #[test]
    fn what_goes_on_is_read_as_no_more_than_was_left() {
        for field in &FIELDS {
            for left in [millis(1), Duration::from_micros(1_999), millis(1500), Duration::from_secs(200_000)] {
                let text = (field.format)(left);
                let read = (field.parse)(text.as_bytes()).unwrap_or_else(|| panic!("{}: {text}", field.name));
                assert!(read <= left && left.checked_sub(read).unwrap() < Duration::from_secs(1), "{text}");
            }
        }
    }

    #[test]
    fn grpc_timeouts_survive_the_round_trip_rounded_down() {
        for (text, expected) in [("1H", 3_600_000), ("5M", 300_000), ("99999999m", 99_999_999), ("7u", 0)] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()).unwrap().as_millis(), expected);
        }
        for wrong in ["", "S", "123456789S", "1x", "+1S", "1 S"] {
            assert_eq!(parse_grpc_timeout(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_end_is_the_least_of_all_limits() {
        let arrival = Instant::now();
        let at = |after| arrival + millis(after);
        let end = |deadline: Deadline, ours: Option<u64>| {
            deadline.end(ours.map(millis), arrival).map(|end| (end.at.duration_since(arrival).as_millis(), end.reason))
        };
        let (none, given) = (Deadline::new(arrival, None), Deadline::new(arrival, Some(millis(300))));
        assert_eq!(end(none, None), None);
        assert_eq!(end(none, Some(500)), Some((500, Reason::Timeout)));
        assert_eq!(end(given, None), Some((300, Reason::DeadlineExceeded)));
        assert_eq!(end(given, Some(500)), Some((300, Reason::DeadlineExceeded)));
        assert_eq!(end(given, Some(200)), Some((200, Reason::Timeout)));
        assert_eq!(end(given.no_later_than(at(100)), Some(200)), Some((100, Reason::DeadlineExceeded)));
        assert_eq!(end(given.no_later_than(at(400)), None), Some((300, Reason::DeadlineExceeded)));
        assert_eq!(end(none.no_later_than(at(400)), None), Some((400, Reason::DeadlineExceeded)));
        assert_eq!(end(given.under(DeadlineMode::Ignore), None), None);
        let moved = given.end(Some(millis(200)), at(150)).unwrap();
        assert_eq!(
            (moved.at, moved.reason),
            (at(300), Reason::DeadlineExceeded),
            "ours begins later, the caller's not"
        );
        assert_eq!(Deadline::new(arrival, Some(Duration::MAX)).callers(), None, "no clock goes so far");
    }

    #[test]
    fn with_less_than_a_millisecond_left_it_is_over() {
        let now = Instant::now();
        let end = End { at: now + millis(1), reason: Reason::Timeout };
        assert!(!end.is_over(now) && end.is_over(now + Duration::from_micros(1)) && end.is_over(now + millis(2)));
    }
}
