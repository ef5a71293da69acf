//! Tokens that were believed, so that the same one costs a look the next time: a signature costs up to 0.1 ms.
//!
//! It keeps **facts** (signature good, claims), never verdicts: rules are judged on every request (a verdict that was found by one rule and used
//! under another was an advisory in several gateways). What influenced a fact is in its key: all of the token, and the
//! issuer's entry as it was ([`crate::Trusted::entry`]), so that another key set or a reload finds nothing of what was before. What is
//! not believed is not kept: whoever sends it pays with a check each time, and can push nobody out.
//!
//! Of a token its hash is kept, and not the token, which is worth something to whoever reads our memory: SipHash-2-4 with 128 bits under a
//! key of this cache that nobody is told, nor any hash made by it, so that who chooses tokens meets another's hash by luck alone, once in 2^128.
//!
//! One worker's, so without a lock. Its memory is bounded: two halves, of which the older one goes whole when the younger one is full;
//! what is used moves to the younger one.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use siphasher::sip128::SipHasher24;

use crate::claims::Moment;
use crate::fingerprint::Fingerprint;
use crate::issuer::Issuers;
use crate::refusal::Refusal;
use crate::verify::{MAX_TOKEN, Verified, verify};

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// How long a token is known at most; it never is beyond its `exp`.
    pub ttl: Duration,
    /// How much memory it may take, in bytes: the table, and all that claims take on the heap.
    pub bytes: usize,
}

impl Default for CacheLimits {
    /// 5 minutes, 8 MiB.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(300), bytes: 8 << 20 }
    }
}

/// The tokens that are known.
#[derive(Debug)]
pub struct Cache {
    limits: CacheLimits,
    secret: Secret,
    young: Half,
    old: Half,
}

/// Not shown: who knows the key can make two tokens of one hash.
struct Secret(SipHasher24);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[derive(Debug, Default)]
struct Half {
    known: HashMap<Key, Known, BuildHasherDefault<First>>,
    bytes: usize,
}

/// Which token, under which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    token: u128,
    entry: Fingerprint,
}

/// Equal ones hash alike, and their bits are as good as random.
impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.token as u64 ^ self.entry.first());
    }
}

/// What is a hash already.
#[derive(Default)]
struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Clone, Debug)]
struct Known {
    token: Verified,
    /// A clock that was set back finds nothing: what was true later may not be true yet.
    from: SystemTime,
    until: SystemTime,
    bytes: usize,
}

/// An entry's place, and a byte of the table's for it. A table that has just grown is 7/16 full.
const PLACE: usize = (size_of::<(Key, Known)>() + 1) * 16 / 7;

impl Cache {
    /// Nothing is known.
    pub fn new(limits: CacheLimits) -> Self {
        let random = RandomState::new();
        let secret = Secret(SipHasher24::new_with_keys(random.hash_one(0), random.hash_one(1)));
        Self { limits, secret, young: Half::default(), old: Half::default() }
    }

    /// What the token says, by memory or by [`verify`]; whether by memory, too.
    pub fn verify(&mut self, token: &[u8], issuers: &Issuers, now: SystemTime) -> Result<(Verified, bool), Refusal> {
        if token.len() > MAX_TOKEN {
            return verify(token, issuers, now).map(|verified| (verified, false));
        }
        let digest = self.secret.0.hash(token).as_u128();
        for entry in issuers.entries() {
            if let Some(verified) = self.find(Key { token: digest, entry: entry.entry() }, now) {
                return Ok((verified, true));
            }
        }
        let verified = verify(token, issuers, now)?;
        self.keep(Key { token: digest, entry: verified.entry }, &verified, now);
        Ok((verified, false))
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.young.known.len() + self.old.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much memory they take.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    fn find(&mut self, key: Key, now: SystemTime) -> Option<Verified> {
        if let Some(known) = self.young.known.get(&key) {
            if known.is_good(now) {
                return Some(known.token.clone());
            }
            self.young.forget(&key);
            return None;
        }
        let known = self.old.forget(&key)?;
        let token = known.token.clone();
        known.is_good(now).then(|| {
            self.put(key, known);
            token
        })
    }

    fn keep(&mut self, key: Key, token: &Verified, now: SystemTime) {
        let ttl = self.limits.ttl.min(token.expires.after(Moment::of(now)));
        let Some(until) = now.checked_add(ttl).filter(|_| !ttl.is_zero()) else { return };
        let bytes = PLACE + weight(&token.claims);
        self.put(key, Known { token: token.clone(), from: now, until, bytes });
    }

    fn put(&mut self, key: Key, known: Known) {
        let half = self.limits.bytes / 2;
        if known.bytes > half {
            return;
        }
        if self.young.bytes + known.bytes > half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += known.bytes;
        if let Some(before) = self.young.known.insert(key, known) {
            self.young.bytes -= before.bytes;
        }
    }
}

impl Half {
    fn forget(&mut self, key: &Key) -> Option<Known> {
        let known = self.known.remove(key)?;
        self.bytes -= known.bytes;
        Some(known)
    }
}

impl Known {
    fn is_good(&self, now: SystemTime) -> bool {
        self.from <= now && now < self.until
    }
}

/// What claims take on the heap: their map's nodes, texts and lists, each as an allocator gives it.
pub fn weight(claims: &Map<String, Value>) -> usize {
    allocated(size_of::<(usize, usize, Map<String, Value>)>()) + members(claims)
}

/// What an object's members take beside the place of the object itself. A map is a B-tree: a node has room for 11 members, however few there
/// are, and where there are several each has 5 at least.
fn members(object: &Map<String, Value>) -> usize {
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 14 * size_of::<usize>();
    let nodes = match object.len() {
        0 => 0,
        1..=11 => 1,
        many => 1 + (many - 1) / 5,
    };
    let inner = object.iter().map(|(name, value)| allocated(name.capacity()) + inner(value)).sum::<usize>();
    nodes * allocated(NODE) + inner
}

/// What a value takes beside its own place.
fn inner(value: &Value) -> usize {
    match value {
        Value::String(text) => allocated(text.capacity()),
        Value::Array(list) => allocated(list.capacity() * size_of::<Value>()) + list.iter().map(inner).sum::<usize>(),
        Value::Object(object) => members(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// What an allocator takes for so many bytes, as glibc's does: 8 more, in steps of 16, and 32 at least.
fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}
