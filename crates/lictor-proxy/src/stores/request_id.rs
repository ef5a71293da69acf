//! A request's name: the client's, or one of ours.

use std::time::SystemTime;

use http::HeaderValue;

/// The request's name.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// The client has given it one.
    Told(HeaderValue),
    /// A UUID of version 7 (RFC 9562, section 5.7).
    Ours([u8; 36]),
}

impl RequestId {
    /// A new one, from a source of random numbers.
    pub(crate) fn new(random: impl FnMut() -> u64) -> Self {
        let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::Ours(lictor_core::trace::request_id(random, millis as u64))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Told(value) => value.as_bytes(),
            Self::Ours(text) => text,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn to_value(&self) -> HeaderValue {
        match self {
            Self::Told(value) => value.clone(),
            Self::Ours(text) => HeaderValue::from_bytes(text).expect("a UUID is a valid value"),
        }
    }
}
