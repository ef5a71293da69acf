//! SipHash-2-4 with 128 bits (Aumasson and Bernstein, 2012; the authors' `siphash.c`): what a thing is to whoever has the key.

use std::fmt;

/// A hash that nobody can foretell without the key.
pub(crate) struct Sip {
    key: [u64; 2],
}

/// Not shown: who knows the key can make two texts of one hash.
impl fmt::Debug for Sip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sip(***)")
    }
}

impl Sip {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    pub(crate) fn hash(&self, bytes: &[u8]) -> u128 {
        let [k0, k1] = self.key;
        let mut state = State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.take(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state.take(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
        state.0[2] ^= 0xee;
        let low = state.end();
        state.0[1] ^= 0xdd;
        u128::from(state.end()) << 64 | u128::from(low)
    }
}

struct State([u64; 4]);

impl State {
    fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    fn end(&mut self) -> u64 {
        (0..4).for_each(|_| self.round());
        self.0.iter().fold(0, |all, part| all ^ part)
    }

    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v3 = v3.rotate_left(21) ^ v0;
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.0 = [v0, v1, v2, v3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authors' `vectors.h`: the key is 0, 1, .. 15, and so is the text, which gets longer.
    #[test]
    fn the_authors_examples() {
        let bytes: Vec<u8> = (0..64).collect();
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let sip = Sip::new([word(0), word(8)]);
        for (length, hash) in [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
            (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
            (8, "3b62a9ba6258f5610f83e264f31497b4"),
            (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
            (63, "5150d1772f50834a503e069a973fbd7c"),
        ] {
            let made: String =
                sip.hash(&bytes[..length]).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(made, hash, "{length}");
        }
    }
}
