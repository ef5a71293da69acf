//! Rendezvous hashing: each endpoint has a way to each key, a hash of the two, and the shortest is the key's (Thaler and
//! Ravishankar 1998); by weight, ways are shorter by that (Schindelhauer and Schomaker 2005). When one comes or goes, or its
//! weight changes, only its own keys move, and shares are the weights.
//!
//! All ways have to be looked at. That is cheap because their first 16 bits are made of 16-bit words alone, of which a
//! processor multiplies eight at once; the others decide only between equals.

use crate::hash::{fold, share_of};

/// Endpoints whose ways are made together, and of which one is looked for only when the least of all is new.
const WIDTH: usize = 16;

/// What is known of [`WIDTH`] endpoints' hashes, each third beside its like.
type Block = [[u16; WIDTH]; 3];

/// Endpoints by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    hashes: Vec<u64>,
    /// As many as are full; the last few endpoints are in none.
    blocks: Vec<Block>,
}

impl Rendezvous {
    pub(crate) fn new(hashes: impl Iterator<Item = u64>) -> Self {
        let hashes: Vec<u64> = hashes.collect();
        let blocks = hashes.as_chunks::<WIDTH>().0.iter().map(|hashes| {
            let mut block = [[0; WIDTH]; 3];
            for (place, hash) in hashes.iter().enumerate() {
                for (words, word) in block.iter_mut().zip(thirds(*hash)) {
                    words[place] = word;
                }
            }
            block
        });
        Self { blocks: blocks.collect(), hashes }
    }

    /// The endpoint with the shortest way to the key, whoever may take it.
    #[inline]
    pub(crate) fn nearest(&self, key: u64) -> usize {
        let (mut least, mut nearest) = if self.blocks.is_empty() { (u16::MAX, 0) } else { self.nearest_in_blocks(key) };
        for (index, hash) in self.hashes.iter().enumerate().skip(self.blocks.len() * WIDTH) {
            let first = first_of(key, *hash);
            if self.is_nearer(key, (first, index), (least, nearest)) {
                (least, nearest) = (first, index);
            }
        }
        nearest
    }

    /// The one of those who may take it.
    pub(crate) fn nearest_able(&self, key: u64, is_able: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut least, mut nearest) = (u64::MAX, None);
        for (index, hash) in self.hashes.iter().enumerate() {
            let way = way(key, *hash);
            if (way < least || nearest.is_none()) && is_able(index) {
                (least, nearest) = (way, Some(index));
            }
        }
        nearest
    }

    /// The one of those who may take it, by weight.
    pub(crate) fn nearest_by_weight(
        &self,
        key: u64,
        weight: impl Fn(usize) -> f64,
        is_able: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (mut least, mut nearest) = (f64::INFINITY, None);
        for (index, hash) in self.hashes.iter().enumerate() {
            let (share, weight) = (share_of(way(key, *hash)), weight(index));
            // A logarithm is dear, and no less than this.
            if share > least * weight {
                continue;
            }
            let way = -(1.0 - share).ln() / weight;
            if way < least && is_able(index) {
                (least, nearest) = (way, Some(index));
            }
        }
        nearest
    }

    /// Among those in blocks, and the first part of its way. Not where the few without blocks would have to make room for it.
    #[inline(never)]
    fn nearest_in_blocks(&self, key: u64) -> (u16, usize) {
        let (mut least, mut nearest) = (u16::MAX, 0);
        let key_thirds = thirds(key);
        for (number, block) in self.blocks.iter().enumerate() {
            let firsts = of_block(key_thirds, block);
            let lowest = firsts.iter().fold(u16::MAX, |lowest, first| lowest.min(*first));
            if lowest > least {
                continue;
            }
            for (place, first) in firsts.iter().enumerate() {
                let index = number * WIDTH + place;
                if *first == lowest && self.is_nearer(key, (lowest, index), (least, nearest)) {
                    (least, nearest) = (lowest, index);
                }
            }
        }
        (least, nearest)
    }

    /// Each by the first part of its way, and who it is.
    fn is_nearer(&self, key: u64, one: (u16, usize), other: (u16, usize)) -> bool {
        one.0 < other.0 || one.0 == other.0 && second_of(key, self.hashes[one.1]) < second_of(key, self.hashes[other.1])
    }
}

/// How far it is from a key to an endpoint.
fn way(key: u64, hash: u64) -> u64 {
    u64::from(first_of(key, hash)) << 48 | second_of(key, hash)
}

fn first_of(key: u64, hash: u64) -> u16 {
    let [a, b, c] = thirds(key ^ hash);
    first(a, b, c)
}

fn second_of(key: u64, hash: u64) -> u64 {
    fold(key ^ hash) >> 16
}

/// What the first part of a way is made of.
fn thirds(word: u64) -> [u16; 3] {
    [word as u16, (word >> 16) as u16, (word >> 48) as u16]
}

/// The first part of a way: of hashes this is as even as chance, and less is not (half of the product alone, or its upper one).
fn first(a: u16, b: u16, c: u16) -> u16 {
    a.wrapping_mul(b).wrapping_add(c)
}

/// Those of a block.
fn of_block([a, b, c]: [u16; 3], block: &Block) -> [u16; WIDTH] {
    let mut firsts = [0; WIDTH];
    // So written, compilers make one loop of words side by side of it.
    for (((word, x), y), z) in firsts.iter_mut().zip(&block[0]).zip(&block[1]).zip(&block[2]) {
        *word = first(x ^ a, y ^ b, z ^ c);
    }
    firsts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::hash_bytes;

    fn of(count: usize) -> Rendezvous {
        Rendezvous::new((0..count as u64).map(|number| hash_bytes(&number.to_le_bytes())))
    }

    proptest! {
        /// Blocks, those in none, and the three ways to ask.
        #[test]
        fn the_nearest_is_the_one_with_the_shortest_way(
            mut hashes in prop::collection::vec(any::<u64>(), 1..150),
            // Such as have the first part of their ways in common, whatever the key.
            twins in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 0..20),
            key in any::<u64>(),
        ) {
            for (of, bits) in twins {
                let twin = hashes[of.index(hashes.len())] ^ u64::from(bits) << 32;
                hashes.push(twin);
            }
            hashes.sort_unstable();
            hashes.dedup();
            let rendezvous = Rendezvous::new(hashes.iter().copied());
            let nearest = (0..hashes.len()).min_by_key(|index| way(key, hashes[*index]));
            prop_assert_eq!(Some(rendezvous.nearest(key)), nearest);
            prop_assert_eq!(rendezvous.nearest_able(key, |_| true), nearest);
            prop_assert_eq!(rendezvous.nearest_by_weight(key, |_| 3.0, |_| true), nearest);
            let (_, others) = (nearest, |index: usize| Some(index) != nearest);
            let next = (0..hashes.len()).filter(|index| others(*index)).min_by_key(|index| way(key, hashes[*index]));
            prop_assert_eq!(rendezvous.nearest_able(key, others), next);
            prop_assert_eq!(rendezvous.nearest_by_weight(key, |_| 0.5, others), next);
        }
    }

    /// What chance makes of the shares, and no more: the sum of squares over what it has to be is 1 on average, and differs
    /// from it by the root of two over the number of endpoints.
    fn assert_even(counts: &[u32], told: &str) {
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        let squares: f64 = counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
        let freedom = (counts.len() - 1) as f64;
        let most = freedom + 6.0 * (2.0 * freedom).sqrt() + 6.0;
        assert!(squares < most, "{told}: {squares} of at most {most}");
    }

    #[test]
    fn shares_are_even_of_all_keys_and_of_those_that_somebody_leaves() {
        for (count, keys) in
            [(2, 40_000), (3, 40_000), (7, 40_000), (8, 40_000), (20, 60_000), (65, 60_000), (1000, 60_000)]
        {
            let rendezvous = of(count);
            let (mut counts, mut heirs) = (vec![0; count], vec![0; count]);
            for number in 0..keys {
                let key = hash_bytes(format!("user-{number}").as_bytes());
                let nearest = rendezvous.nearest(key);
                counts[nearest] += 1;
                if nearest == 0 && count > 2 {
                    heirs[rendezvous.nearest_able(key, |index| index != 0).unwrap()] += 1;
                }
            }
            assert_even(&counts, &format!("{count} endpoints"));
            if count > 2 && count < 100 {
                assert_even(&heirs[1..], &format!("{count} endpoints, the keys of one"));
            }
        }
    }
}
