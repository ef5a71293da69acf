//! A caller's deadline, as headers carry it.

use std::time::Duration;

use http::HeaderMap;

/// What the caller's headers leave: the smallest of `grpc-timeout`, `X-Request-Timeout-Ms`, `X-Lictor-Timeout`, and
/// (for migration) `x-envoy-upstream-rq-timeout-ms` and `l5d-timeout`. Malformed values are ignored.
pub fn callers_deadline(headers: &HeaderMap) -> Option<Duration> {
    type Parse = fn(&[u8]) -> Option<Duration>;
    const PARSERS: [(&str, Parse); 5] = [
        ("x-request-timeout-ms", parse_millis),
        ("grpc-timeout", parse_grpc_timeout),
        ("x-lictor-timeout", parse_duration),
        ("x-envoy-upstream-rq-timeout-ms", parse_millis),
        ("l5d-timeout", parse_duration),
    ];
    PARSERS.iter().filter_map(|(name, parse)| parse(headers.get(*name)?.as_bytes())).min()
}

/// A whole number of milliseconds.
pub fn parse_millis(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
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

/// Digits only, so that no sign, space or overflow gets through.
fn number(digits: &[u8]) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit);
    is_plain.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_smallest_header_counts_and_nonsense_does_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("grpc-timeout", "2S"), ("x-request-timeout-ms", "1500"), ("l5d-timeout", "-1s")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(callers_deadline(&headers), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn grpc_timeouts_survive_the_round_trip_rounded_down() {
        for (text, expected) in [("1H", 3_600_000), ("5M", 300_000), ("99999999m", 99_999_999), ("7u", 0)] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()).unwrap().as_millis(), expected);
        }
        for wrong in ["", "S", "123456789S", "1x", "+1S", "1 S"] {
            assert_eq!(parse_grpc_timeout(wrong.as_bytes()), None, "{wrong}");
        }
        for left in [Duration::from_nanos(1_500), Duration::from_secs(200), Duration::from_secs(200_000)] {
            let parsed = parse_grpc_timeout(format_grpc_timeout(left).as_bytes()).unwrap();
            assert!(parsed <= left && left.checked_sub(parsed).unwrap() < Duration::from_secs(1));
        }
    }
}
