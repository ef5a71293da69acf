//! How a head was written: peers should not care about the case of names, but some do, so that what is passed on is
//! written as it came.

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use memchr::memchr;

/// How the names of fields were written, and the reason phrase, where it is unusual.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    head: Bytes,
    /// In the line of the field that was asked for last: names are asked for in the order they came in.
    last: Cell<u32>,
    /// A bit for each name of the head, by [`bit`]; 0: nobody has asked yet. Most of the names that are asked for here are not in it:
    /// they are ours.
    names: Cell<u32>,
    reason: Range,
}

/// A part of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range {
    from: u32,
    to: u32,
}

impl Range {
    pub(crate) fn of(part: &[u8], whole: &[u8]) -> Self {
        let from = part.as_ptr().addr() - whole.as_ptr().addr();
        Self { from: from as u32, to: (from + part.len()) as u32 }
    }

    pub(crate) fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.from as usize..self.to as usize)
    }

    pub(crate) fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.from as usize..self.to as usize]
    }
}

impl Spelling {
    /// Of this head.
    pub(crate) fn of_head(head: Bytes) -> Self {
        Self { head, ..Self::default() }
    }

    /// With the reason phrase, which is an unusual one.
    pub(crate) fn with_reason(mut self, reason: Range) -> Self {
        self.reason = reason;
        self
    }

    /// The whole line, its end too, of a field that is as it came, if it was written in the usual way.
    pub(crate) fn line(&self, name: &HeaderName, value: &HeaderValue) -> Option<&[u8]> {
        // Values are parts of the head: where this one is, tells where its line is.
        let name = name.as_str().as_bytes();
        let from = value.as_bytes().as_ptr().addr().checked_sub(self.head.as_ptr().addr())?;
        let at = from.checked_sub(name.len() + 2)?;
        let line = self.head.get(at..from + value.len() + 2)?;
        let (before, rest) = line.split_at(name.len());
        let is_usual = rest.starts_with(b": ") && rest.ends_with(b"\r\n");
        if !is_usual || !is_alike(before, name) {
            return None;
        }
        self.last.set(at as u32);
        Some(line)
    }

    /// The name as it was written.
    pub(crate) fn of<'a>(&'a self, name: &'a HeaderName) -> &'a [u8] {
        let name = name.as_str().as_bytes();
        if self.names() & bit(name) == 0 {
            return name;
        }
        let Some(at) = self.after(self.last.get() as usize, name).or_else(|| self.after(0, name)) else { return name };
        self.last.set(at as u32);
        &self.head[at..at + name.len()]
    }

    /// The bits of all names.
    fn names(&self) -> u32 {
        if self.names.get() == 0 {
            let (mut rest, mut names) = (&self.head[..], 0);
            while let Some(end) = memchr(b'\n', rest) {
                rest = &rest[end + 1..];
                names |= bit(&rest[..memchr(b':', rest).unwrap_or(0)]);
            }
            self.names.set(names | bit(b""));
        }
        self.names.get()
    }

    /// Where, in one of the lines after this place, the field is.
    fn after(&self, mut at: usize, name: &[u8]) -> Option<usize> {
        loop {
            at += memchr(b'\n', &self.head[at..])? + 1;
            let line = &self.head[at..];
            if line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name) {
                return Some(at);
            }
        }
    }

    /// The reason phrase, if it is not the usual one.
    pub(crate) fn reason(&self) -> Option<&[u8]> {
        (self.reason.to > 0).then(|| self.reason.get(&self.head))
    }
}

/// One of 32, by the length and the last sign, so that few names share one; letters of either case are alike.
fn bit(name: &[u8]) -> u32 {
    let last = name.last().map_or(0, u8::to_ascii_lowercase);
    1 << ((name.len() * 7 + usize::from(last)) % 32)
}

/// Whether these names of one length differ in nothing but the case of letters: eight signs at a time, the last eight perhaps
/// again. (`^` and `~` are alike too, which the place of the value rules out.)
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let differs = |(one, other): (&[u8; 8], &[u8; 8])| (u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other)) & !CASE;
    match one.last_chunk().zip(other.last_chunk()) {
        Some(last) => {
            one.as_chunks().0.iter().zip(other.as_chunks().0).fold(differs(last), |all, eight| all | differs(eight))
                == 0
        }
        None => one.eq_ignore_ascii_case(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_came_and_one_that_did_not_come_as_it_is() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\nX-lower: 1:2\r\nX-CAPS: \r\nA: b: c\r\n\r\n";
        let spelling = Spelling::of_head(Bytes::from_static(head));
        for (name, written) in [
            ("x-caps", "X-CAPS"),
            ("host", "host"),
            ("x-lower", "X-lower"),
            ("b", "b"),
            ("a", "A"),
            ("x-caps", "X-CAPS"),
            ("x-upper", "x-upper"),
        ] {
            assert_eq!(spelling.of(&HeaderName::from_static(name)), written.as_bytes());
        }
        assert_eq!(Spelling::default().of(&HeaderName::from_static("host")), b"host");
    }

    #[test]
    fn names_that_differ_by_case_are_alike_whatever_their_length() {
        let name = b"x-a-name-that-is-rather-long";
        for length in 0..=name.len() {
            let name = &name[..length];
            assert!(is_alike(name, &name.to_ascii_uppercase()), "{length}");
            for at in 0..length {
                let mut other = name.to_vec();
                other[at] = b'Q';
                assert!(!is_alike(name, &other), "{length}, {at}");
            }
        }
    }
}
