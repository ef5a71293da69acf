//! Where a WebSocket's frames begin (RFC 6455, section 5.2), so that a word of ours can be put between two of them.

/// What has passed of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 14],
    /// Bytes of a head that have come.
    have: usize,
    /// Bytes of a payload that have not.
    left: u64,
}

impl Frames {
    /// These have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let part = self.left.min(bytes.len() as u64);
                self.left -= part;
                bytes = &bytes[part as usize..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            let wide = match self.head[1] & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
            if self.have < 2 || self.have < 2 + wide + mask {
                continue;
            }
            let length = &self.head[2..2 + wide];
            let length = length.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
            self.left = if wide == 0 { u64::from(self.head[1] & 0x7f) } else { length };
            (self.head, self.have) = ([0; 14], 0);
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

/// Why a server closes (section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It stops.
    GoingAway = 1001,
    PolicyViolation = 1008,
}

/// A server's last frame, which says why in words too.
pub(super) fn closing(closing: Closing, why: &str) -> Vec<u8> {
    let why = &why.as_bytes()[..why.len().min(120)];
    [&[0x88, why.len() as u8 + 2], &(closing as u16).to_be_bytes()[..], why].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_where_the_one_before_ends_however_the_bytes_come() {
        let frames: [(&[u8], usize); 6] = [
            (&[0x81, 0x00], 0),
            (&[0x81, 0x05], 5),
            (&[0x81, 0x85, 1, 2, 3, 4], 5),
            (&[0x82, 126, 0x01, 0x00], 256),
            (&[0x02, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            (&[0x82, 0xfe, 0x00, 0x7e, 9, 9, 9, 9], 126),
        ];
        for size in [1, 3, 7, 100_000] {
            let mut seen = Frames::default();
            for (head, length) in frames {
                let whole = [head, &vec![0x88; length]].concat();
                for (at, part) in whole.chunks(size).enumerate() {
                    assert_eq!(seen.is_between(), at == 0, "{head:x?} {at}");
                    seen.pass(part);
                }
            }
            assert!(seen.is_between());
        }
        let mut seen = Frames::default();
        seen.pass(&closing(Closing::GoingAway, &"x".repeat(200)));
        assert!(seen.is_between());
        assert_eq!(closing(Closing::GoingAway, "a"), [0x88, 3, 0x03, 0xe9, b'a']);
        assert_eq!(closing(Closing::PolicyViolation, ""), [0x88, 2, 0x03, 0xf0]);
    }
}
