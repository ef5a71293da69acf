//! How much a text may be. Whoever may write the KV key need not wish this machine well, and a text that costs more than
//! its length stops whoever reads it.
//!
//! The whole text is looked at once, before anything is parsed; depth, number and keys are looked at as they are read, so
//! that nothing deeper than the bound, nor more than it, is ever held. What is legal is far below: configurations are about
//! eight deep, and ten thousand upstreams with ten keys each are 200,000 values.

/// Bytes of a text. Consul's own bound of a value is 512 KiB.
pub const TEXT_MAX: usize = 4 << 20;
/// Lists and maps in one another.
pub(crate) const DEPTH_MAX: usize = 64;
/// Keys and values, with aliases written out.
const VALUES_MAX: usize = 500_000;
/// Bytes of a key. A key without a question mark is not longer (YAML 1.2.2, section 7.4.2).
const KEY_MAX: usize = 1024;
/// Upstreams and routes together: each has some sixty values in force.
pub(crate) const CALLED_MAX: usize = 20_000;

/// A line and a column, both from 1.
pub(crate) type At = (usize, usize);

/// Looks at all of it: how long it is, and whether there is a character in it that YAML does not have (YAML 1.2.2,
/// section 5.1), such as the zeros of UTF-16.
pub(crate) fn look(text: &str) -> Result<(), (At, String)> {
    if text.len() > TEXT_MAX {
        return Err(((1, 1), format!("too long: {} bytes, and {TEXT_MAX} are read", text.len())));
    }
    let (mut line, mut column) = (1, 1);
    for c in text.chars() {
        match c {
            '\n' => (line, column) = (line + 1, 0),
            '\t' | '\r' | '\u{85}' => (),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                return Err(((line, column), format!("the character U+{:04X} may not be there", u32::from(c))));
            }
            _ => (),
        }
        column += 1;
    }
    Ok(())
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    values: usize,
}

impl Spent {
    /// Further values, those of an alias at once.
    pub(crate) fn on(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES_MAX {
            return Err(format!("too much: {VALUES_MAX} keys and values are read, with aliases written out"));
        }
        Ok(())
    }
}

/// A list or map within so many others.
pub(crate) fn depth(depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX { Err(too_deep()) } else { Ok(()) }
}

pub(crate) fn too_deep() -> String {
    format!("too deep: {DEPTH_MAX} lists and maps in one another are read")
}

pub(crate) fn too_many_called() -> String {
    format!("too much: {CALLED_MAX} upstreams and routes are read")
}

pub(crate) fn key(key: &str) -> Result<(), String> {
    let length = key.len();
    if length > KEY_MAX { Err(format!("a key of {length} bytes: {KEY_MAX} are read")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_yamls_characters_and_is_not_too_long() {
        for (text, place) in [
            ("a: b\n", None),
            ("\u{feff}a: b\r\nc:\td\u{85}\u{2028}\u{10ffff}\n", None),
            ("a\0:\0b\0", Some((1, 2))),
            ("a: b\nc: \u{1b}[31m", Some((2, 4))),
            ("é\u{9b}", Some((1, 2))),
            ("a\u{7f}", Some((1, 2))),
            ("\u{ffff}", Some((1, 1))),
        ] {
            assert_eq!(look(text).err().map(|(place, _)| place), place, "{text:?}");
        }
        assert!(look(&"#".repeat(TEXT_MAX)).is_ok() && look(&"#".repeat(TEXT_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_just_enough_is_not_too_much() {
        assert!(depth(DEPTH_MAX).is_ok() && depth(DEPTH_MAX + 1).is_err());
        assert!(key(&"k".repeat(KEY_MAX)).is_ok() && key(&"k".repeat(KEY_MAX + 1)).is_err());
        let mut spent = Spent::default();
        assert!(spent.on(VALUES_MAX).is_ok() && spent.on(1).is_err() && spent.on(usize::MAX).is_err());
    }
}
