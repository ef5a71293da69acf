//! What a thing is, in 32 bytes: SHA-256 over its parts, each after its length, so that no two lists of parts are written alike.

use std::fmt;

use ring::digest::{Context, SHA256};

/// Two are equal when what they were made of is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Not shown: a secret may be among the parts, and who guesses it could tell by this that he is right.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(***)")
    }
}

impl Fingerprint {
    pub(crate) fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As good as a random number.
    pub(crate) fn first(self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_part_ends_matters() {
        let of = |parts: &[&[u8]]| Fingerprint::of(parts.iter().copied());
        let lists: [&[&[u8]]; 6] = [&[], &[b""], &[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""]];
        for (at, one) in lists.iter().enumerate() {
            assert_eq!(of(one), of(one));
            assert!(lists[..at].iter().all(|other| of(one) != of(other)), "{one:?}");
        }
    }
}
