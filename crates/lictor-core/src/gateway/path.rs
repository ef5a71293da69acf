//! A request's path, read once.
//!
//! Normalised as RFC 3986, section 6.2.2 allows: hexadecimal digits in upper case, escapes of unreserved characters decoded,
//! dot segments removed; and empty segments too, because many servers do. Whatever some server behind us could read in
//! another way is refused: an encoded separator, a second layer of escapes, a backslash, path parameters. Some of that a route may
//! allow ([`Odd`]): it is a part of one segment then, and goes on as it came.

use std::borrow::Cow;

use thiserror::Error;

/// A path that means the same to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPath<'a> {
    /// Normalised; this is what goes on.
    sent: Cow<'a, str>,
    /// The same with the escapes of `!$&'()*+,=:@` decoded, where it has any. Their escaped and plain forms are two
    /// paths (RFC 3986, section 2.2), but no server has a rule for one and not the other.
    folded: Option<String>,
    /// What it has that a route must allow.
    odd: Odd,
}

/// Escapes that some servers take for a sign of the path's own: `%2F`, `%5C`, `%3B`, `%3F`, `%23`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odd(u8);

impl Odd {
    /// Their bytes, one for each bit.
    const BYTES: [u8; 5] = *b"/\\;?#";
    const ALL: Self = Self(0b1_1111);

    /// One of them, as it is written: `%2F`, `%2f`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let byte = text.strip_prefix('%').filter(|digits| digits.len() == 2);
        let byte = byte.and_then(|digits| escaped(digits.as_bytes()));
        let of = byte.map(Self::of).filter(|odd| !odd.is_none());
        of.ok_or_else(|| format!("`{text}` is none of %2F, %5C, %3B, %3F, %23"))
    }

    fn of(byte: u8) -> Self {
        Self::BYTES.iter().position(|odd| *odd == byte).map_or(Self(0), |bit| Self(1 << bit))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is empty.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these are among them; if not, why the first of the others is refused.
    pub fn allows(self, odd: Self) -> Result<(), PathError> {
        let refused = odd.0 & !self.0;
        match refused & refused.wrapping_neg() {
            0 => Ok(()),
            1 => Err(PathError::Slash),
            2 => Err(PathError::Backslash),
            4 => Err(PathError::Parameters),
            _ => Err(PathError::End),
        }
    }
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// No slash begins it.
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a `%` that begins no escape (RFC 3986, section 2.1)")]
    Escape,
    /// `%2F`: a separator to those who decode first.
    #[error("the path has an encoded slash (`%2F`), which some servers take for a separator")]
    Slash,
    /// `\` and `%5C`: a separator to some.
    #[error("the path has a backslash, which some servers take for a slash")]
    Backslash,
    /// `;` and `%3B`: what follows is no part of the path to some.
    #[error("the path has a `;`, after which some servers read parameters and no path")]
    Parameters,
    /// `%3F`, `%23` and `#`: the path's end to those who decode first.
    #[error("the path has an encoded `?` or a `#`, at which it ends for some servers")]
    End,
    /// Beside an escape that its route allows there would be nothing, or dots.
    #[error("the path has an encoded separator beside an empty segment, or one of dots")]
    Parts,
    /// `%25` before two hexadecimal digits.
    #[error("the path is encoded twice: `%25` stands before two hexadecimal digits")]
    Twice,
    /// NUL and other control characters, however written.
    #[error("the path has a control character")]
    Control,
    /// What is encoded is not UTF-8: overlong forms among others.
    #[error("the path's escapes are not UTF-8")]
    NotUtf8,
    /// A byte that no path has.
    #[error("the path has a character that must be encoded (RFC 3986, section 3.3)")]
    Character,
}

/// Reads the path of a request's target, without its query.
pub fn read(path: &str) -> Result<ReadPath<'_>, PathError> {
    read_allowing(path, Odd::default())
}

/// One that was read before and let through: what its route allows is not asked again.
pub fn read_again(path: &str) -> Result<ReadPath<'_>, PathError> {
    read_allowing(path, Odd::ALL)
}

/// The same, where some route allows these.
pub fn read_allowing(path: &str, allowed: Odd) -> Result<ReadPath<'_>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let Seen { has_escapes, has_segments_to_remove } = check_bytes(path)?;
    if !has_escapes && !has_segments_to_remove {
        return Ok(ReadPath { sent: Cow::Borrowed(path), folded: None, odd: Odd::default() });
    }
    let decoded = if has_escapes { decode(path, is_unreserved)? } else { path.to_owned() };
    let odd = if has_escapes { check_escapes(&decoded)? } else { Odd::default() };
    allowed.allows(odd)?;
    if !odd.is_none() {
        check_parts(&decoded)?;
    }
    let sent = remove_segments(&decoded);
    // What is left of escapes is in order, so folding cannot fail.
    let folded =
        if sent.contains('%') { Some(decode(&sent, is_plain)?).filter(|folded| *folded != sent) } else { None };
    Ok(ReadPath { sent: Cow::Owned(sent), folded, odd })
}

impl ReadPath<'_> {
    /// What goes on.
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// What routes are compared with: it has the same segments.
    pub fn folded(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.sent)
    }

    /// Whether it is what it was before it was read.
    pub fn is_as_it_came(&self) -> bool {
        matches!(self.sent, Cow::Borrowed(_))
    }

    /// What a route must allow.
    pub fn odd(&self) -> Odd {
        self.odd
    }

    /// What servers make of it that take odd escapes for what they stand for: separators, the begin of parameters, or the
    /// path's end; one of these or all.
    pub fn views(&self) -> [String; 3] {
        let cut = |path: &str| {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            segments.collect::<Vec<_>>().join("/")
        };
        let separated = plain(&self.sent, b"/\\").replace('\\', "/");
        [cut(&plain(&self.sent, b";?#")), cut(&plain(&separated, b";?#")), separated]
    }

    /// The same, on its own.
    pub fn into_owned(self) -> ReadPath<'static> {
        ReadPath { sent: Cow::Owned(self.sent.into_owned()), ..self }
    }
}

/// The segments of a path that was read. A slash at its end makes none: `/a/` is `/a` to most servers.
pub fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = path;
    // Segments are short: nothing that is good at long texts finds their ends sooner.
    std::iter::from_fn(move || {
        while let Some(after) = rest.strip_prefix('/') {
            rest = after;
        }
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        let (segment, after) = rest.split_at(end);
        rest = after;
        (!segment.is_empty()).then_some(segment)
    })
}

/// What a path has.
struct Seen {
    has_escapes: bool,
    /// An empty segment, or one that begins with a dot.
    has_segments_to_remove: bool,
}

/// Refuses what no path has.
fn check_bytes(path: &str) -> Result<Seen, PathError> {
    let mut seen = Seen { has_escapes: false, has_segments_to_remove: false };
    let mut before = b' ';
    for byte in path.bytes() {
        match byte {
            b'%' => seen.has_escapes = true,
            b'/' | b'.' => seen.has_segments_to_remove |= before == b'/',
            byte if is_plain(byte) => (),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'\\' => return Err(PathError::Backslash),
            b';' => return Err(PathError::Parameters),
            b'?' | b'#' => return Err(PathError::End),
            _ => return Err(PathError::Character),
        }
        before = byte;
    }
    Ok(seen)
}

/// Decodes the escapes of these bytes, and writes the others in upper case.
fn decode(path: &str, decodes: fn(u8) -> bool) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('%') {
        decoded.push_str(plain);
        let byte = escaped(escape.as_bytes()).ok_or(PathError::Escape)?;
        if decodes(byte) {
            decoded.push(char::from(byte));
        } else {
            decoded.push('%');
            decoded.push(digit(byte >> 4));
            decoded.push(digit(byte & 15));
        }
        rest = &escape[2..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// Refuses escapes that nobody may rely on, and finds those that not everybody reads alike. The unreserved ones are
/// decoded already.
fn check_escapes(decoded: &str) -> Result<Odd, PathError> {
    let mut odd = Odd::default();
    let mut bytes = Vec::with_capacity(decoded.len());
    let mut rest = decoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = if *first == b'%' { escaped(after).ok_or(PathError::Escape)? } else { *first };
        if *first == b'%' {
            match byte {
                0..=0x1f | 0x7f => return Err(PathError::Control),
                b'%' if escaped(&after[2..]).is_some() => return Err(PathError::Twice),
                byte => odd = odd.and(Odd::of(byte)),
            }
        }
        bytes.push(byte);
        rest = if *first == b'%' { &after[2..] } else { after };
    }
    let text = str::from_utf8(&bytes).map_err(|_| PathError::NotUtf8)?;
    // U+0080 to U+009F are controls too.
    if text.chars().any(char::is_control) { Err(PathError::Control) } else { Ok(odd) }
}

/// Refuses what becomes another path where odd escapes are decoded before segments are removed: `..%2F`, and `..%3B`,
/// which is `..` to Java's servers.
fn check_parts(decoded: &str) -> Result<(), PathError> {
    let is_nothing = |part: &str| matches!(part.split([';', '?', '#']).next(), None | Some("" | "." | ".."));
    for segment in decoded.split('/').filter(|segment| segment.contains('%')) {
        let plain = plain(segment, &Odd::BYTES);
        if plain != *segment && plain.split(['/', '\\']).any(is_nothing) {
            return Err(PathError::Parts);
        }
    }
    Ok(())
}

/// With the escapes of these bytes as what they stand for.
fn plain(path: &str, bytes: &[u8]) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, escape)) = rest.split_once('%') {
        plain.push_str(before);
        match escaped(escape.as_bytes()).filter(|byte| bytes.contains(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &escape[2..];
            }
            None => {
                plain.push('%');
                rest = escape;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// The byte whose two hexadecimal digits these begin with.
pub(super) fn escaped(digits: &[u8]) -> Option<u8> {
    let of = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let [high, low, ..] = digits else { return None };
    Some(of(high)? << 4 | of(low)?)
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// What stands for itself in a segment (RFC 3986, section 3.3: `pchar`), but `;`.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b'=' | b':' | b'@')
}

/// Removes empty segments, then `.` and `..` (RFC 3986, section 5.2.4). A slash that ends it stays, and nothing is above
/// the root.
pub(super) fn remove_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => (),
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let ends_in_slash = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let mut removed = String::with_capacity(path.len());
    for segment in &kept {
        removed.push('/');
        removed.push_str(segment);
    }
    if kept.is_empty() || ends_in_slash {
        removed.push('/');
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<String, PathError> {
        read(path).map(|read| read.as_str().to_owned())
    }

    #[test]
    fn paths_are_normalised() {
        for (path, normal) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b.c/.d/..e/f..", "/a/b.c/.d/..e/f.."),
            ("/%61%7E%2d", "/a~-"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a/./b", "/a/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/../../a", "/a"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/.", "/"),
            ("/..", "/"),
            ("/100%25", "/100%25"),
            ("/%25%20", "/%25%20"),
            ("/a%20b", "/a%20b"),
            ("/a%2Bb", "/a%2Bb"),
            ("/@a/(b)/c=d,e", "/@a/(b)/c=d,e"),
            ("/...", "/..."),
        ] {
            assert_eq!(of(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn routes_see_plain_what_is_sent_escaped() {
        for (path, sent, folded) in [
            ("/%40scope/a", "/%40scope/a", "/@scope/a"),
            ("/a%2bb%3a", "/a%2Bb%3A", "/a+b:"),
            ("/a%20%c3%a9", "/a%20%C3%A9", "/a%20%C3%A9"),
            ("/%61dmin", "/admin", "/admin"),
        ] {
            let read = read(path).unwrap();
            assert_eq!((read.as_str(), read.folded()), (sent, folded), "{path}");
        }
    }

    #[test]
    fn what_a_route_may_allow_is_part_of_one_segment_and_goes_on_as_it_came() {
        let all = ["%2F", "%5c", "%3B", "%3f", "%23"].map(|text| Odd::parse(text).unwrap());
        let all = all.into_iter().fold(Odd::default(), Odd::and);
        for (path, sent, segments_of_it) in [
            ("/group%2fproject/x", "/group%2Fproject/x", 2),
            ("/@scope%2Fname", "/@scope%2Fname", 1),
            ("/a%5cb%3Bc%3fd%23e/", "/a%5Cb%3Bc%3Fd%23e/", 1),
            ("/x/../a%2Fb", "/a%2Fb", 1),
            ("/a%2F%40b", "/a%2F%40b", 1),
        ] {
            let read = read_allowing(path, all).unwrap();
            assert_eq!((read.as_str(), segments(read.folded()).count()), (sent, segments_of_it), "{path}");
            assert_eq!(read_allowing(read.as_str(), all).unwrap().as_str(), read.as_str(), "{path}");
            assert!(of(path).is_err(), "{path} is for those who allow it");
        }
        for path in [
            "/a%2F",
            "/%2Fa",
            "/a%2F%2Fb",
            "/a%2F../b",
            "/a%2F..%2Fb",
            "/..%2Fb",
            "/%2e%2e%2fb",
            "/.%2Fb",
            "/a%5c..",
            "/..%3Bx/b",
            "/a%2F..%3Bx",
            "/%3Bx",
            "/..%3Fx",
            "/..%23",
            "/%3F",
        ] {
            assert_eq!(read_allowing(path, all), Err(PathError::Parts), "{path}");
        }
        for path in ["/a%00", "/a%252Fb", "/a%25%32%46", "/a;b", "/a\\b", "/a#b", "/a%c0%af", "/a%2"] {
            assert!(read_allowing(path, all).is_err(), "{path} is refused whatever is allowed");
        }
        let slash = Odd::parse("%2f").unwrap();
        assert_eq!(read_allowing("/a%2Fb%3Bc", slash), Err(PathError::Parameters));
        for wrong in ["%2E", "%25", "%00", "2F", "%2", "%2FF", "/", "%", ""] {
            assert!(Odd::parse(wrong).is_err(), "{wrong}");
        }
        let views = read_allowing("/a%2Fb%3Bc/d%3Fe", all).unwrap().views();
        assert_eq!(views, ["/a%2Fb/d", "/a/b/d", "/a/b%3Bc/d%3Fe"]);
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        use PathError::{Backslash, Character, Control, End, Escape, NotAbsolute, NotUtf8, Parameters, Slash, Twice};
        for (path, why) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("%2Fa", NotAbsolute),
            ("/%2f", Slash),
            ("/a%2Fb", Slash),
            ("/a/..%2fb", Slash),
            ("/%5c", Backslash),
            ("/a\\b", Backslash),
            ("/a;b", Parameters),
            ("/a/;/b", Parameters),
            ("/a%3bb", Parameters),
            ("/a%3Fb", End),
            ("/a%23b", End),
            ("/a#b", End),
            ("/a?b", End),
            ("/%252e%252e/a", Twice),
            ("/%25%32%65", Twice),
            ("/%252F", Twice),
            ("/%2525", Twice),
            ("/%00", Control),
            ("/%0a", Control),
            ("/%7f", Control),
            ("/\u{1}", Control),
            ("/%c2%85", Control),
            ("/%", Escape),
            ("/%2", Escape),
            ("/%zz", Escape),
            ("/%u002e", Escape),
            ("/a%2/b", Escape),
            ("/%c0%ae", NotUtf8),
            ("/%c0%af", NotUtf8),
            ("/%e0%80%af", NotUtf8),
            ("/%ff", NotUtf8),
            ("/%ed%a0%80", NotUtf8),
            ("/%c3", NotUtf8),
            ("/\u{e9}", Character),
            ("/a b", Character),
            ("/a\"", Character),
            ("/a|b", Character),
            ("/{a}", Character),
        ] {
            assert_eq!(of(path), Err(why), "{path}");
        }
    }
}
