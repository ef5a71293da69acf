//! What was found out of credentials, for as long as it holds: by a digest of everything that it was found out from.
//!
//! Its memory is bounded: two halves, of which the older one goes whole when the younger one is full; what is used moves to the younger one.

use std::collections::HashMap;
use std::time::Instant;

/// A digest that nobody can make two texts for: SHA-256, keyed or not.
pub type Digest = [u8; 32];

/// Facts by digest.
#[derive(Debug)]
pub struct Remembered<V> {
    /// Of both halves, as far as we can count it.
    most: usize,
    young: Half<V>,
    old: Half<V>,
}

#[derive(Debug)]
struct Half<V> {
    known: HashMap<Digest, Known<V>>,
    bytes: usize,
}

#[derive(Debug)]
struct Known<V> {
    value: V,
    until: Instant,
    bytes: usize,
}

impl<V> Default for Half<V> {
    fn default() -> Self {
        Self { known: HashMap::new(), bytes: 0 }
    }
}

impl<V: Clone> Remembered<V> {
    /// Nothing is known, and at most so many bytes will be.
    pub fn new(most: usize) -> Self {
        Self { most, young: Half::default(), old: Half::default() }
    }

    /// What is known by this digest.
    pub fn get(&mut self, digest: &Digest, now: Instant) -> Option<V> {
        if let Some(known) = self.young.known.get(digest) {
            if now < known.until {
                return Some(known.value.clone());
            }
            self.young.forget(digest);
            return None;
        }
        let known = self.old.forget(digest).filter(|known| now < known.until)?;
        let value = known.value.clone();
        self.put(*digest, known);
        Some(value)
    }

    /// Keeps it until then. `bytes` is what it takes beside its place here.
    pub fn keep(&mut self, digest: Digest, value: V, bytes: usize, until: Instant) {
        let bytes = bytes + 2 * size_of::<(Digest, Known<V>)>(); // a table is at least half full, or nearly so
        self.old.forget(&digest);
        self.put(digest, Known { value, until, bytes });
    }

    /// How much memory it takes, as far as we can count it.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    fn put(&mut self, digest: Digest, known: Known<V>) {
        let half = self.most / 2;
        if known.bytes > half {
            return;
        }
        self.young.forget(&digest);
        if self.young.bytes + known.bytes > half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += known.bytes;
        self.young.known.insert(digest, known);
    }
}

impl<V> Half<V> {
    fn forget(&mut self, digest: &Digest) -> Option<Known<V>> {
        let known = self.known.remove(digest)?;
        self.bytes -= known.bytes;
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(number: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_ne_bytes());
        digest
    }

    #[test]
    fn what_is_known_is_known_until_its_end() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut known = Remembered::new(1 << 20);
        assert_eq!(known.get(&digest(1), now), None);
        known.keep(digest(1), "one", 0, at(10));
        assert_eq!(known.get(&digest(1), at(9)), Some("one"));
        assert_eq!(known.get(&digest(2), at(9)), None);
        known.keep(digest(1), "other", 0, at(20));
        assert_eq!(known.get(&digest(1), at(10)), Some("other"));
        assert_eq!(known.get(&digest(1), at(20)), None, "from its end on");
        assert_eq!((known.bytes(), known.get(&digest(1), at(0))), (0, None), "and it is forgotten then");
    }

    #[test]
    fn a_flood_takes_no_more_than_it_may_and_what_is_used_outlives_it() {
        let now = Instant::now();
        let mut known = Remembered::new(64 << 10);
        known.keep(digest(0), 0, 100, now + Duration::from_secs(60));
        for number in 1..100_000 {
            known.keep(digest(number), number, 100, now + Duration::from_secs(60));
            assert!(known.bytes() <= 64 << 10);
            if number % 50 == 0 {
                assert_eq!(known.get(&digest(0), now), Some(0), "after {number}");
            }
        }
        assert_eq!(known.get(&digest(1), now), None);
        known.keep(digest(1), 1, 64 << 10, now + Duration::from_secs(60));
        assert_eq!(known.get(&digest(1), now), None, "what is too large is not kept");
    }
}
