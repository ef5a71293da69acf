//! Stable hashes: equal in every worker, every sidecar and every process.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Where FNV-1a begins.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, finished with splitmix64's mixer. Never a randomly seeded one, or everybody would choose another endpoint for a
/// key.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(fnv(OFFSET, bytes))
}

/// A map by names that are the configuration's or Consul's. Whoever asks only looks in it, so that its hash need not be one that nobody
/// can foretell, which costs several times as much.
pub type ByName<Name, Value> = HashMap<Name, Value, BuildHasherDefault<NameHasher>>;

/// FNV-1a.
#[derive(Debug)]
pub struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = fnv(self.0, bytes);
    }
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A word as a share of all words, 0 to 1.
pub(crate) fn share_of(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// One multiplication, of which both halves count: enough where the word is made of hashes (as in wyhash).
pub(crate) fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// Splitmix64's mixer.
pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
