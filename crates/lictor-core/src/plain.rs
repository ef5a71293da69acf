//! Text from elsewhere, as a terminal and a line of a log may have it. What Consul's catalog, KV, a client or an instance
//! says may hold what moves a terminal's cursor (ESC, and the C1 controls of ECMA-48), ends a line, turns the direction of what follows
//! (U+202E and its kin: CVE-2021-42574) or is not seen at all. Each such character becomes `\uXXXX`, as in JSON (RFC 8259, section 7), so
//! that JSON stays what it was.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One line: its ends become `\n`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain)
}

/// Lines, whose ends are ours, and JSON.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || is_plain(c))
}

/// JSON, whose white space is whoever's who wrote it.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\r' | '\t') || is_plain(c))
}

/// The same for what we have painted: a colour is left.
pub fn painted(text: &str) -> Cow<'_, str> {
    if !text.contains('\x1b') {
        return lines(text);
    }
    let mut parts = text.split('\x1b');
    let mut whole = lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        whole.push_str(if is_colour(part) { "\x1b" } else { "\\u001b" });
        whole.push_str(&lines(part));
    }
    Cow::Owned(whole)
}

/// `[31m`: Select Graphic Rendition (ECMA-48, section 8.3.117).
fn is_colour(after_escape: &str) -> bool {
    let digits =
        after_escape.strip_prefix('[').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    digits.is_some_and(|rest| rest.starts_with('m'))
}

/// Whether it is seen where it stands, and does nothing else.
pub fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !stays(c)) else { return Cow::Borrowed(text) };
    let mut plain = String::with_capacity(text.len() + 16);
    plain.push_str(&text[..first]);
    for c in text[first..].chars() {
        match c {
            c if stays(c) => plain.push(c),
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                write!(plain, "\\u{unit:04x}").expect("writing to a string cannot fail");
            }),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_more_than_be_seen_is_written_out() {
        for (text, expected) in [
            ("users/1 (ok)", "users/1 (ok)"),
            ("Grüße, 世界 🦀", "Grüße, 世界 🦀"),
            ("a\x1b[2Jb", "a\\u001b[2Jb"),
            ("a\u{9b}2Jb", "a\\u009b2Jb"),
            ("a\u{202e}b", "a\\u202eb"),
            ("a\u{2066}b\u{200b}c\u{feff}", "a\\u2066b\\u200bc\\ufeff"),
            ("a\nb\r\tc\x07\x7f\0", "a\\nb\\r\\tc\\u0007\\u007f\\u0000"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\nb\r\u{202e}"), "a\nb\\r\\u202e");
    }

    #[test]
    fn a_colour_of_ours_is_left_and_nothing_else_that_begins_so() {
        for (text, expected) in [
            ("\x1b[31;1mred\x1b[0m\n", "\x1b[31;1mred\x1b[0m\n"),
            ("\x1b[2J", "\\u001b[2J"),
            ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
            ("a\x1b", "a\\u001b"),
            ("\x1b\x1b[0m", "\\u001b\x1b[0m"),
        ] {
            assert_eq!(painted(text), expected);
        }
    }
}
