//! What is remembered of keys, for all threads, in a room of fixed size.
//!
//! A key has sixteen places that may be its own. One is free, or holds what nothing is lost with: a key that is as new. If
//! none is, the table grows, and at its full size the key is not remembered ([`Table::with`] is `None`): whoever floods it
//! with keys makes nobody be forgotten who was counted.

use parking_lot::Mutex;

use super::State;

const SHARDS: usize = 64;
/// Places that one key may have.
const WAYS: usize = 16;
/// How much a shard grows at a time.
const GROWTH: usize = 8;
/// Keys of all shards: 2,097,152, at 24 bytes each 48 MiB. With a million keys two of a thousand find no place.
pub(super) const KEYS_MAX: usize = 1 << 21;

/// Keys, by their digests.
#[derive(Debug)]
pub struct Table {
    shards: Box<[Shard]>,
}

#[derive(Debug, Default)]
#[repr(align(64))] // its own cache line
struct Shard(Mutex<Sets>);

/// As many sets as a power of two; in each [`WAYS`] places.
#[derive(Debug, Default)]
struct Sets {
    /// 0: free.
    tags: Vec<u64>,
    states: Vec<State>,
    most: usize,
}

impl Table {
    /// An empty one.
    pub fn new() -> Self {
        Self::holding(KEYS_MAX)
    }

    fn holding(keys: usize) -> Self {
        let most = (keys / SHARDS / WAYS).max(1);
        let shard = || Shard(Mutex::new(Sets { most, ..Sets::default() }));
        Self { shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    /// Does something with a key's state; `None`: there is no room for one more key.
    pub fn with<T>(&self, digest: u64, now: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut sets = self.shards[digest as usize % SHARDS].0.lock();
        let place = sets.place(digest, now)?;
        Some(change(&mut sets.states[place]))
    }

    /// Keys that are remembered now, a walk over all of it.
    pub fn len(&self, now: u64) -> usize {
        let of = |shard: &Shard| shard.0.lock().states.iter().filter(|state| !state.is_as_new(now)).count();
        self.shards.iter().map(of).sum()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let place = size_of::<u64>() + size_of::<State>();
        self.shards.iter().map(|shard| shard.0.lock().tags.capacity() * place + size_of::<Shard>()).sum()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Sets {
    fn place(&mut self, digest: u64, now: u64) -> Option<usize> {
        let tag = digest.max(1);
        loop {
            if !self.tags.is_empty() {
                let begin = self.begin(tag);
                let tags = &self.tags[begin..begin + WAYS];
                if let Some(found) = tags.iter().position(|known| *known == tag) {
                    return Some(begin + found);
                }
                let is_free = |way: &usize| tags[*way] == 0 || self.states[begin + *way].is_as_new(now);
                if let Some(free) = (0..WAYS).find(is_free) {
                    self.tags[begin + free] = tag;
                    self.states[begin + free] = State::default();
                    return Some(begin + free);
                }
            }
            if !self.grow(now) {
                return None;
            }
        }
    }

    /// Where a key's set begins.
    fn begin(&self, tag: u64) -> usize {
        ((tag as usize / SHARDS) & (self.tags.len() / WAYS - 1)) * WAYS
    }

    /// Into more sets. Each of them gets keys of one set alone, and so has room for them.
    fn grow(&mut self, now: u64) -> bool {
        let sets = self.tags.len() / WAYS;
        if sets >= self.most {
            return false;
        }
        let sets = (sets * GROWTH).clamp(1, self.most);
        let tags = std::mem::replace(&mut self.tags, vec![0; sets * WAYS]);
        let states = std::mem::replace(&mut self.states, vec![State::default(); sets * WAYS]);
        for (tag, state) in tags.into_iter().zip(states) {
            if tag == 0 || state.is_as_new(now) {
                continue;
            }
            let begin = self.begin(tag);
            if let Some(free) = (begin..begin + WAYS).find(|place| self.tags[*place] == 0) {
                (self.tags[free], self.states[free]) = (tag, state);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_bytes;
    use crate::limit::{Algorithm, Quota};
    use std::time::Duration;

    const QUOTA: Quota =
        Quota { algorithm: Algorithm::TokenBucket, requests: 10, window: Duration::from_secs(10), burst: 10 };

    fn digest(key: u64) -> u64 {
        hash_bytes(&key.to_be_bytes())
    }

    fn take(table: &Table, key: u64, now: u64) -> Option<u32> {
        table.with(digest(key), now, |state| QUOTA.take(state, now)).map(|told| told.remaining)
    }

    #[test]
    fn a_million_keys_have_room_and_none_is_forgotten_for_another() {
        let table = Table::new();
        assert!(table.bytes() < 1 << 16, "an empty one is small: {}", table.bytes());
        let known: Vec<u64> = (0..1000).collect();
        for key in &known {
            assert_eq!(take(&table, *key, 1), Some(9));
        }
        let mut without = 0;
        for key in 1000..1_000_000 {
            without += usize::from(take(&table, key, 1).is_none());
        }
        assert!(without < 5_000, "{without} of a million found no place");
        assert!(table.bytes() < 64 << 20, "{}", table.bytes());
        assert_eq!(table.len(1) + without, 1_000_000);
        for key in 1_000_000..4_000_000 {
            take(&table, key, 1);
        }
        assert!(table.bytes() < 64 << 20, "{}", table.bytes());
        for key in &known {
            assert_eq!(take(&table, *key, 1), Some(8), "{key} is still counted");
        }
    }

    #[test]
    fn keys_that_are_as_new_leave_first_and_a_full_table_has_room_again_later() {
        let table = Table::holding(SHARDS * WAYS);
        let mut keys = 0..;
        while keys.next().is_some_and(|key| take(&table, key, 1).is_some() || table.len(1) < SHARDS * WAYS) {}
        let next = keys.start;
        assert_eq!(table.len(1), SHARDS * WAYS);
        assert_eq!(take(&table, next, 1), None);
        // One request of ten in ten seconds is forgotten after one.
        let later = 1_000_000_001;
        assert_eq!(table.len(later), 0);
        assert_eq!(take(&table, next, later), Some(9));
    }

    #[test]
    fn a_key_is_itself_whatever_its_digest() {
        let table = Table::holding(SHARDS * WAYS);
        for digest in [0, 1, 2, u64::MAX] {
            let told = |now| table.with(digest, now, |state| QUOTA.take(state, now)).map(|told| told.remaining);
            assert!(told(1).is_some_and(|left| left >= 8), "{digest}");
        }
    }
}
