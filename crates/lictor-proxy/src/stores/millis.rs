//! Durations, for sentences.

use std::fmt;
use std::time::Duration;

/// A duration as people write it: `250ms`, `30s`.
pub(crate) struct Millis(pub(crate) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis >= 1000 && millis.is_multiple_of(1000) {
            write!(f, "{}s", millis / 1000)
        } else {
            write!(f, "{millis}ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(Millis(Duration::from_millis(250)).to_string(), "250ms");
        assert_eq!(Millis(Duration::from_secs(30)).to_string(), "30s");
        assert_eq!(Millis(Duration::from_millis(1500)).to_string(), "1500ms");
    }
}
