//! Until when the callers of our application wait, by the names that it passes on. What the application calls meanwhile is
//! told what is left of that, though it knows nothing of deadlines: by the request's id or its trace.
//!
//! One lock of sixteen is taken where a request came in with a deadline, and where one goes out with a name while there are
//! such. An entry goes with its request. One whose time ran out stays a little longer: an application that does not
//! notice works on for nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_core::balance::hash_bytes;
use parking_lot::Mutex;

use super::request_id::RequestId;

const SHARDS: usize = 16;
/// Entries in each. All have two for each request.
const SHARD_MAX: usize = 512;
/// How long an entry stays whose time ran out.
const LINGER: Duration = Duration::from_secs(5);

/// All that are awaited, of the process.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    shards: [Mutex<HashMap<u64, Wait>>; SHARDS],
    count: AtomicUsize,
}

/// What a request is known by: its id and its trace, hashed.
pub(crate) type Names = [u64; 2];

/// When the callers of those with one name wait no longer.
#[derive(Debug)]
struct Wait {
    /// Of several the last: none of them is cut short.
    ends: Instant,
    /// Requests with this name that are being served.
    served: u32,
}

/// The name that is a request's id.
pub(crate) fn of_id(id: &RequestId) -> u64 {
    hash_bytes(id.as_bytes())
}

/// The name that is a trace's id.
pub(crate) fn of_trace(trace: u128) -> u64 {
    hash_bytes(&trace.to_be_bytes())
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Served {
    awaited: Arc<Awaited>,
    names: Names,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.awaited.forget(self.names, Instant::now());
    }
}

impl Awaited {
    /// A request with these names is served from now on, until what this gives is dropped.
    pub(crate) fn serve(self: &Arc<Self>, names: Names, ends: Instant, now: Instant) -> Served {
        self.note(names, ends, now);
        Served { awaited: Arc::clone(self), names }
    }

    /// A request with these names is served, whose caller waits until then.
    fn note(&self, names: Names, ends: Instant, now: Instant) {
        for name in names {
            let mut waits = self.shard(name).lock();
            if waits.len() >= SHARD_MAX && !waits.contains_key(&name) {
                self.make_room(&mut waits, now);
                if waits.len() >= SHARD_MAX {
                    continue; // its calls are not told, as if nobody remembered
                }
            }
            match waits.entry(name) {
                Entry::Occupied(mut known) if known.get().served > 0 => {
                    let known = known.get_mut();
                    known.ends = known.ends.max(ends);
                    known.served += 1;
                }
                entry => {
                    if let Entry::Vacant(_) = &entry {
                        self.count.fetch_add(1, Relaxed);
                    }
                    entry.insert_entry(Wait { ends, served: 1 });
                }
            }
        }
    }

    /// One of them is not served any more.
    fn forget(&self, names: Names, now: Instant) {
        for name in names {
            let mut waits = self.shard(name).lock();
            let Some(known) = waits.get_mut(&name) else { continue };
            known.served = known.served.saturating_sub(1);
            if known.served == 0 && known.ends > now {
                waits.remove(&name);
                self.count.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Whether anybody is awaited at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Until when somebody waits for what goes by this name.
    pub(crate) fn ends(&self, name: u64, now: Instant) -> Option<Instant> {
        let mut waits = self.shard(name).lock();
        let known = waits.get(&name)?;
        if known.is_over(now) {
            waits.remove(&name);
            self.count.fetch_sub(1, Relaxed);
            return None;
        }
        Some(known.ends)
    }

    fn make_room(&self, waits: &mut HashMap<u64, Wait>, now: Instant) {
        let before = waits.len();
        waits.retain(|_, wait| !wait.is_over(now));
        if waits.len() >= SHARD_MAX {
            waits.retain(|_, wait| wait.served > 0);
        }
        self.count.fetch_sub(before - waits.len(), Relaxed);
    }

    fn shard(&self, name: u64) -> &Mutex<HashMap<u64, Wait>> {
        &self.shards[name as usize % SHARDS]
    }
}

impl Wait {
    fn is_over(&self, now: Instant) -> bool {
        self.served == 0 && now.saturating_duration_since(self.ends) > LINGER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn an_entry_goes_with_its_request() {
        let (awaited, now) = (Awaited::default(), Instant::now());
        assert!(awaited.is_empty());
        awaited.note([1, 2], now + secs(3), now);
        assert_eq!((awaited.ends(1, now), awaited.ends(2, now)), (Some(now + secs(3)), Some(now + secs(3))));
        assert_eq!(awaited.ends(3, now), None);
        awaited.forget([1, 2], now + secs(1));
        assert!(awaited.is_empty() && awaited.ends(1, now).is_none());
    }

    #[test]
    fn of_those_who_share_a_trace_the_last_counts() {
        let (awaited, now) = (Awaited::default(), Instant::now());
        awaited.note([1, 9], now + secs(5), now);
        awaited.note([2, 9], now + secs(3), now);
        assert_eq!((awaited.ends(9, now), awaited.ends(2, now)), (Some(now + secs(5)), Some(now + secs(3))));
        awaited.forget([1, 9], now);
        assert_eq!(awaited.ends(9, now), Some(now + secs(5)), "known to be too long, and not too short");
        awaited.forget([2, 9], now);
        assert!(awaited.is_empty());
    }

    #[test]
    fn what_ran_out_lingers_unless_it_is_asked_again() {
        let (awaited, now) = (Awaited::default(), Instant::now());
        awaited.note([1, 2], now + secs(1), now);
        awaited.forget([1, 2], now + secs(1));
        assert_eq!(awaited.ends(1, now + secs(2)), Some(now + secs(1)), "the application may work on for nobody");
        awaited.note([1, 3], now + secs(9), now + secs(2));
        assert_eq!(awaited.ends(1, now + secs(2)), Some(now + secs(9)), "the caller tries again with the same id");
        assert_eq!(awaited.ends(2, now + secs(7)), None, "forgotten after a while");
        awaited.forget([1, 3], now + secs(3));
        assert!(awaited.is_empty());
    }

    #[test]
    fn it_does_not_grow() {
        let (awaited, now) = (Awaited::default(), Instant::now());
        for name in 0..20_000_u64 {
            awaited.note([name * 2, name * 2 + 1], now, now);
            if name % 2 == 0 {
                awaited.forget([name * 2, name * 2 + 1], now); // lingers
            }
        }
        let all: usize = awaited.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(all <= SHARDS * SHARD_MAX && all == awaited.count.load(Relaxed), "{all}");
        for name in 0..20_000_u64 {
            awaited.forget([name * 2, name * 2 + 1], now + secs(1));
            assert_eq!(awaited.ends(name * 2, now + secs(9)), None);
            assert_eq!(awaited.ends(name * 2 + 1, now + secs(9)), None);
        }
        assert!(awaited.is_empty());
    }
}
