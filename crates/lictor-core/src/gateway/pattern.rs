//! What a route says of the path: `/users`, `/users/{id}`, `/users/*`.

use std::borrow::Cow;

use thiserror::Error;

use super::path;

/// The most segments of a pattern: a look-up takes no longer than this.
pub const SEGMENTS_MAX: usize = 32;

/// A path pattern. Segments are compared whole, in order; a last `*` is the rest, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// As written.
    text: Box<str>,
    pub(super) segments: Box<[Segment]>,
    pub(super) takes_rest: bool,
    /// Letters match in either case.
    pub(super) ignores_case: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// As paths are when they were read; in small letters where case is ignored.
    Literal(Box<str>),
    /// One segment, whatever it is, with its name.
    Any(Box<str>),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// The path does not start at the root.
    #[error("the path `{0}` must start with `/`")]
    NotAbsolute(String),
    /// A star that is not the whole last segment.
    #[error("`*` may only be the last segment of `{0}`")]
    Star(String),
    /// Braces that do not enclose a whole segment.
    #[error("`{0}`: `{{name}}` must be a whole segment, and its name letters, digits and `_`")]
    Brace(String),
    /// One name for two segments.
    #[error("`{0}` has two segments with the name `{1}`")]
    Twice(String, String),
    /// No request has such a path once it was read.
    #[error("no request matches `{0}`: a path is compared without empty and dot segments, and {1}")]
    Never(String, String),
    /// More segments than are compared.
    #[error("`{0}` has more than {SEGMENTS_MAX} segments")]
    TooLong(String),
}

impl PathPattern {
    /// Parses `/users`, `/users/{id}`, `/users/*`.
    pub fn parse(text: &str, ignores_case: bool) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else { return Err(PatternError::NotAbsolute(text.to_owned())) };
        if rest.starts_with('/') || rest.ends_with("//") {
            return Err(PatternError::Never(text.to_owned(), "it has an empty one".to_owned()));
        }
        let (body, takes_rest) = match rest.strip_suffix('*') {
            Some(body) if body.is_empty() || body.ends_with('/') => (body, true),
            _ => (rest, false),
        };
        let body = body.strip_suffix('/').unwrap_or(body);
        let parts = body.split('/').filter(|_| !body.is_empty());
        let segments: Box<[Segment]> = parts.map(|part| segment(part, text, ignores_case)).collect::<Result<_, _>>()?;
        if segments.len() > SEGMENTS_MAX {
            return Err(PatternError::TooLong(text.to_owned()));
        }
        let names: Vec<&str> = segments.iter().filter_map(Segment::name).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(PatternError::Twice(text.to_owned(), (*name).to_owned()));
        }
        // Where there are no letters, case is nothing to ignore.
        let ignores_case = ignores_case && segments.iter().any(Segment::has_letters);
        Ok(Self { text: text.into(), segments, takes_rest, ignores_case })
    }

    /// As written: also the metric label.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its segments `{name}`, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Where among its segments the one with this name stands, from 0.
    pub fn position_of(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| segment.name() == Some(name))
    }

    /// Whether letters match in either case.
    pub fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// Whether `*` is its last segment.
    pub fn takes_rest(&self) -> bool {
        self.takes_rest
    }

    /// Whether each path that it matches begins with these segments.
    pub fn begins_with(&self, other: &Self) -> bool {
        let is_same = |(own, other): (&Segment, &Segment)| match (own, other) {
            (Segment::Literal(own), Segment::Literal(other)) => own == other,
            (Segment::Any(_) | Segment::Literal(_), _) => false,
        };
        self.segments.len() >= other.segments.len() && self.segments.iter().zip(&other.segments).all(is_same)
    }

    /// Whether it matches each path that the other matches.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let other_ignores_case = other.ignores_case;
        let is_as_long = if self.takes_rest { own <= others } else { own == others && !other.takes_rest };
        let is_in = |(own, other): (&Segment, &Segment)| match (own, other) {
            (Segment::Any(_), _) => true,
            (Segment::Literal(own), Segment::Literal(other)) if self.ignores_case => own.eq_ignore_ascii_case(other),
            (Segment::Literal(own), Segment::Literal(other)) => own == other && !other_ignores_case,
            (Segment::Literal(_), Segment::Any(_)) => false,
        };
        is_as_long && self.segments.iter().zip(&other.segments).all(is_in)
    }

    /// Whether some path is matched by both.
    pub fn may_meet(&self, other: &Self) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let reach = |takes_rest: bool, own: usize, other: usize| own == other || (own < other && takes_rest);
        let is_as_long = reach(self.takes_rest, own, others) || reach(other.takes_rest, others, own);
        let ignores_case = self.ignores_case || other.ignores_case;
        let may_be_one = |(own, other): (&Segment, &Segment)| match (own, other) {
            (Segment::Literal(own), Segment::Literal(other)) if ignores_case => own.eq_ignore_ascii_case(other),
            (Segment::Literal(own), Segment::Literal(other)) => own == other,
            (Segment::Any(_), _) | (_, Segment::Any(_)) => true,
        };
        is_as_long && self.segments.iter().zip(&other.segments).all(may_be_one)
    }

    /// Whether it matches this path, as routes see it.
    pub fn matches(&self, path: &str) -> bool {
        let mut given = path::segments(path);
        for segment in &self.segments {
            if !given.next().is_some_and(|given| segment.is(given, self.ignores_case)) {
                return false;
            }
        }
        self.takes_rest || given.next().is_none()
    }

    /// Which of two is asked first: the exact one, then the one with names, then the one with the longer beginning; then the
    /// one that has a literal where the other has a name, from the left; then the one that minds case.
    pub(super) fn order(&self) -> impl Ord + use<> {
        let kind = match (self.takes_rest, self.names().next()) {
            (false, None) => 0,
            (false, Some(_)) => 1,
            (true, _) => 2,
        };
        let is_any: Vec<bool> = self.segments.iter().map(|segment| segment.name().is_some()).collect();
        let literals: Vec<Box<str>> = self.segments.iter().map(|segment| segment.literal().into()).collect();
        (kind, std::cmp::Reverse(self.segments.len()), is_any, self.ignores_case, literals)
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Any(name) => Some(name),
        }
    }

    pub(super) fn literal(&self) -> &str {
        match self {
            Self::Literal(literal) => literal,
            Self::Any(_) => "",
        }
    }

    fn has_letters(&self) -> bool {
        self.literal().bytes().any(|byte| byte.is_ascii_alphabetic())
    }

    fn is(&self, given: &str, ignores_case: bool) -> bool {
        match self {
            Self::Literal(literal) if ignores_case => literal.eq_ignore_ascii_case(given),
            Self::Literal(literal) => **literal == *given,
            Self::Any(_) => true,
        }
    }
}

fn segment(part: &str, whole: &str, ignores_case: bool) -> Result<Segment, PatternError> {
    let of = |make: fn(String) -> PatternError| Err(make(whole.to_owned()));
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return if is_name { Ok(Segment::Any(name.into())) } else { of(PatternError::Brace) };
    }
    if part.contains(['{', '}']) {
        return of(PatternError::Brace);
    }
    if part.contains('*') {
        return of(PatternError::Star);
    }
    let never = |why: String| PatternError::Never(whole.to_owned(), why);
    let encoded = format!("/{}", encoded(part));
    let read = path::read(&encoded).map_err(|why| never(why.to_string()))?;
    let folded = read.folded();
    let literal = folded.strip_prefix('/').filter(|literal| !literal.is_empty() && !literal.contains('/'));
    let literal = literal.ok_or_else(|| never(format!("`{part}` is such a segment")))?;
    Ok(Segment::Literal(if ignores_case { literal.to_ascii_lowercase().into() } else { literal.into() }))
}

/// What is not ASCII, in escapes, as requests have it.
fn encoded(part: &str) -> Cow<'_, str> {
    if part.is_ascii() {
        return Cow::Borrowed(part);
    }
    let each = part.bytes().map(|byte| match byte {
        byte if byte.is_ascii() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    Cow::Owned(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/users", "/users", true),
            ("/users", "/users/", true),
            ("/users/", "/users", true),
            ("/users", "/usersx", false),
            ("/users", "/Users", false),
            ("/users", "/users/1", false),
            ("/users/{id}", "/users/1", true),
            ("/users/{id}", "/users/1/", true),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users/1/2", false),
            ("/{a}/{b}/c", "/1/2/c", true),
            ("/users/*", "/users", true),
            ("/users/*", "/users/", true),
            ("/users/*", "/users/1/2", true),
            ("/users/*", "/usersx", false),
            ("/users/{id}/*", "/users/1", true),
            ("/users/{id}/*", "/users", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/caf\u{e9}", "/caf%C3%A9", true),
            ("/caf%c3%a9", "/caf%C3%A9", true),
            ("/@scope", "/@scope", true),
            ("/%40scope", "/@scope", true),
            ("/%61", "/a", true),
        ] {
            assert_eq!(PathPattern::parse(pattern, false).unwrap().matches(path), expected, "{pattern} {path}");
        }
        let either = PathPattern::parse("/Admin/{id}/X", true).unwrap();
        assert!(either.matches("/aDMIN/1/x") && !either.matches("/aDMIN/1/y"));
    }

    #[test]
    fn wrong_patterns_are_refused_in_words() {
        let long = "/a".repeat(SEGMENTS_MAX + 1);
        for wrong in [
            "",
            "users",
            "*",
            "/a*",
            "/*/a",
            "/a/*b",
            "/u{id}",
            "/{}",
            "/{a b}",
            "/{a}/{a}",
            "/a//",
            "/a//b",
            "//",
            "//*",
            "/./a",
            "/a/..",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a;b",
            "/a b",
            "/a?b",
            "/a#b",
            "/%zz",
            "/a\\b",
            "/%252e",
            "/{a*}",
            &long,
        ] {
            assert!(PathPattern::parse(wrong, false).is_err(), "{wrong}");
        }
    }
}
