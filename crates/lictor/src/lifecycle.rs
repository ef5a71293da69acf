//! What others say of the time that we have.

use std::time::Duration;

/// A duration, or seconds as orchestrators have them.
pub(crate) fn grace(text: &str) -> Option<Duration> {
    let text = text.trim();
    text.parse().map(Duration::from_secs).ok().or_else(|| humantime::parse_duration(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orchestrators_grace_is_seconds_or_a_duration() {
        assert_eq!(grace("30"), Some(Duration::from_secs(30)));
        assert_eq!(grace(" 1m "), Some(Duration::from_secs(60)));
        assert_eq!(grace("soon"), None);
    }
}
