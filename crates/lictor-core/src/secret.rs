//! A string that no log, page or error may show.

use std::fmt;

/// A token or key. `Debug` and `Display` mask it; [`Secret::reveal`] is the only way to read it. `==` is for two of ours;
/// what a client gives is compared by [`Secret::is`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for the wire, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is this one, found out in a time that depends on lengths only.
    pub fn is(&self, given: &[u8]) -> bool {
        let differs = self.0.bytes().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b));
        std::hint::black_box(differs) == 0 && self.0.len() == given.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
