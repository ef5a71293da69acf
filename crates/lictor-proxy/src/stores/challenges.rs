//! What a CA asks for that looks by a request whether a host is ours (http-01; RFC 8555, section 8.3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// By host: at most one for each host that has a certificate ordered.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    /// Whether there is any: nearly always there is none, and no request takes the lock.
    is_any: AtomicBool,
    known: Mutex<HashMap<Box<str>, Challenge>>,
}

#[derive(Debug)]
struct Challenge {
    token: Box<str>,
    authorization: Bytes,
}

impl Challenges {
    pub(crate) fn put(&self, host: &str, token: &str, authorization: &str) {
        let challenge =
            Challenge { token: token.into(), authorization: Bytes::copy_from_slice(authorization.as_bytes()) };
        self.known.lock().insert(host.into(), challenge);
        self.is_any.store(true, Ordering::Release);
    }

    pub(crate) fn forget(&self, host: &str) {
        let mut known = self.known.lock();
        known.remove(host);
        self.is_any.store(!known.is_empty(), Ordering::Release);
    }

    /// Whether a CA may be looking.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// The answer, where this host has that very token.
    pub(crate) fn answer(&self, host: &str, token: &str) -> Option<Bytes> {
        let known = self.known.lock();
        known.get(host).filter(|challenge| *challenge.token == *token).map(|challenge| challenge.authorization.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hosts_own_token_is_answered() {
        let challenges = Challenges::default();
        assert!(!challenges.is_any());
        challenges.put("a.example", "one", "one.thumb");
        challenges.put("b.example", "two", "two.thumb");
        for (host, token, expected) in [
            ("a.example", "one", Some("one.thumb")),
            ("b.example", "two", Some("two.thumb")),
            ("a.example", "two", None),
            ("a.example", "on", None),
            ("a.example", "one/", None),
            ("a.example", "", None),
            ("c.example", "one", None),
        ] {
            assert_eq!(challenges.answer(host, token).as_deref(), expected.map(str::as_bytes), "{host} {token}");
        }
        challenges.put("a.example", "three", "three.thumb");
        assert!(challenges.answer("a.example", "one").is_none() && challenges.answer("a.example", "three").is_some());
        challenges.forget("a.example");
        assert!(challenges.is_any() && challenges.answer("a.example", "three").is_none());
        challenges.forget("b.example");
        assert!(!challenges.is_any());
    }
}
