//! Names of fields that came lately, kept by the thread: nearly every head has the same few, and to find one again costs less
//! than to read it, to keep it in memory of its own and to find out who looks for it.

use std::any::TypeId;
use std::cell::RefCell;

use http::HeaderName;
use http::header::InvalidHeaderName;

use crate::fields::{Fields, Marks};

/// A name has one of two places; this many pairs of them.
const PAIRS: usize = 64;

thread_local! {
    static KNOWN: RefCell<Vec<[Option<Known>; 2]>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Known {
    written: Written,
    name: HeaderName,
    looked_for_by: TypeId,
    bits: u32,
}

/// A name as it was written, up to 32 bytes, in words that compare at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    words: [u64; 4],
    length: usize,
}

impl Written {
    /// The words overlap where the name ends between two. A longer name is none of these.
    fn of(name: &[u8]) -> Option<Self> {
        let word = |at: usize| name.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let words = match name.len() {
            length @ 17..=32 => [word(0)?, word(8)?, word(length - 16)?, word(length - 8)?],
            length @ 8..=16 => [word(0)?, word(length - 8)?, 0, 0],
            ..8 => [name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0, 0, 0],
            _ => return None,
        };
        Some(Self { words, length: name.len() })
    }

    /// Multiplying by an odd number spreads words that differ in a few bits (Knuth's multiplicative hashing).
    fn place(self) -> usize {
        let [first, second, third, fourth] = self.words;
        let word = first ^ second.rotate_left(17) ^ third.rotate_left(31) ^ fourth.rotate_left(47);
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PAIRS.ilog2())) as usize
    }
}

/// A field's name, and which of those it is that the wire or `M` looks for.
pub(crate) fn name<M: Marks>(written: &[u8]) -> Result<(HeaderName, u32), InvalidHeaderName> {
    let read = || HeaderName::from_bytes(written).map(|name| (Fields::bit::<M>(name.as_str()), name));
    let Some(key) = Written::of(written) else { return read().map(|(bits, name)| (name, bits)) };
    KNOWN.with_borrow_mut(|known| {
        if known.is_empty() {
            known.resize_with(PAIRS, Default::default);
        }
        let pair = &mut known[key.place()];
        let is_it = |known: &&Known| known.written == key && known.looked_for_by == TypeId::of::<M>();
        if let Some(known) = pair.iter().flatten().find(is_it) {
            return Ok((known.name.clone(), known.bits));
        }
        let (bits, name) = read()?;
        pair.swap(0, 1);
        pair[0] = Some(Known { written: key, name: name.clone(), looked_for_by: TypeId::of::<M>(), bits });
        Ok((name, bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ours;
    impl Marks for Ours {
        fn of(name: &str) -> u32 {
            if name.starts_with("x-") { Fields::MARKS } else { 0 }
        }
    }

    #[test]
    fn a_name_is_what_it_would_be_if_nobody_had_seen_it() {
        let alike = ["host", "Host", "hosT", "hos", "x-abcdefgh", "x-abcdefgi", "x-abcdefg", "content-length"];
        let long =
            (1..60).map(|length| "x-a-long-name-that-goes-on-and-on-and-on-for-as-long-as-it-may"[..length].to_owned());
        let middles = (b'a'..=b'z').map(|letter| format!("x-in-the-mid{}le-they-differ", char::from(letter)));
        let many = (0..1000).map(|number| format!("x-{number}"));
        let names: Vec<String> = alike.into_iter().map(str::to_owned).chain(long).chain(middles).chain(many).collect();
        for _ in 0..3 {
            for written in &names {
                let expected = HeaderName::from_bytes(written.as_bytes()).unwrap();
                let bits = Fields::bit::<Ours>(expected.as_str());
                assert_eq!(name::<Ours>(written.as_bytes()).unwrap(), (expected.clone(), bits));
                assert_eq!(name::<()>(written.as_bytes()).unwrap().1, Fields::bit::<()>(expected.as_str()));
            }
        }
        for wrong in ["", "a b", "a:", "\u{e4}", "a-name-longer-than-thirty-two-bytes\r"] {
            assert!(name::<()>(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
