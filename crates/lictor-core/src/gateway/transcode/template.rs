//! Paths as `google/api/http.proto` writes them: `/v1/{name=shelves/*/books/*}:move`.
//!
//! `*` is one segment and `**` the rest of them, `{field}` is `{field=*}`, and behind the last `:` stands a verb. What a
//! variable takes is decoded; `%2F` stays where a variable takes several segments, because there a slash parts them.

use std::borrow::Cow;

use super::super::path::escaped;

/// More of any kind is no path of an API.
const SEGMENTS_MAX: usize = 64;

/// A path with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) verb: Option<Box<str>>,
    pub(super) variables: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    Any,
    /// What follows, which may be nothing.
    Rest,
}

/// What some segments are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// `book.name`
    pub(super) field: Box<str>,
    from: usize,
    /// The first that is not its own; `None`: it goes to the end.
    to: Option<usize>,
    /// It takes one segment, whatever that is.
    is_single: bool,
}

impl Template {
    /// Reads one; in words why not.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is no path of an API: {why}");
        let path = text.strip_prefix('/').ok_or_else(|| wrong("it begins with no `/`"))?;
        let (path, verb) = verb(path);
        if verb.is_some_and(|verb| !is_literal(verb)) {
            return Err(wrong("behind the `:` stands no word"));
        }
        let mut template = Self { segments: Vec::new(), verb: verb.map(Into::into), variables: Vec::new() };
        let mut rest = path;
        loop {
            let after = match rest.strip_prefix('{') {
                Some(inner) => {
                    let (variable, after) = inner.split_once('}').ok_or_else(|| wrong("a `{` has no `}`"))?;
                    template.variable(variable).map_err(wrong)?;
                    after
                }
                None => {
                    let (segment, after) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                    template.segments.push(Segment::parse(segment).ok_or_else(|| wrong("a segment is no word"))?);
                    after
                }
            };
            match after.strip_prefix('/') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(wrong("behind a `}` comes a `/`, a `:` or nothing")),
            }
        }
        let ends = template.segments.iter().position(|segment| *segment == Segment::Rest);
        if ends.is_some_and(|at| at + 1 < template.segments.len()) {
            return Err(wrong("nothing follows `**`"));
        }
        if template.segments.len() > SEGMENTS_MAX {
            return Err(wrong("it has more than 64 segments"));
        }
        Ok(template)
    }

    fn variable(&mut self, text: &str) -> Result<(), &'static str> {
        let (field, pattern) = text.split_once('=').unwrap_or((text, "*"));
        let is_field =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        if !field.split('.').all(is_field) {
            return Err("a variable is named as a field is: `{book.name}`");
        }
        if self.variables.iter().any(|known| *known.field == *field) {
            return Err("a variable stands twice");
        }
        let from = self.segments.len();
        for segment in pattern.split('/') {
            self.segments.push(Segment::parse(segment).ok_or("a segment is no word")?);
        }
        let takes_rest = self.segments.last() == Some(&Segment::Rest);
        let to = (!takes_rest).then_some(self.segments.len());
        self.variables.push(Variable { field: field.into(), from, to, is_single: pattern == "*" });
        Ok(())
    }

    /// What each variable takes of the segments of a path, as they came.
    pub(super) fn values(&self, segments: &[&str]) -> Vec<String> {
        let value = |variable: &Variable| {
            let own = segments.get(variable.from..variable.to.unwrap_or(segments.len())).unwrap_or_default();
            let own: Vec<_> = own.iter().map(|segment| decode(segment, !variable.is_single)).collect();
            own.join("/")
        };
        self.variables.iter().map(value).collect()
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::Any),
            "**" => Some(Self::Rest),
            literal => is_literal(literal).then(|| Self::Literal(literal.into())),
        }
    }
}

/// What stands for itself in a segment (RFC 3986, section 3.3), but what means something in a template.
fn is_literal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,@".contains(&byte))
}

/// Takes a verb off a path, or off a template, in which a variable may stand last.
pub(super) fn verb(path: &str) -> (&str, Option<&str>) {
    let last = path.rfind(['/', '}']).map_or(0, |at| at + 1);
    match path[last..].rfind(':') {
        Some(at) => (&path[..last + at], Some(&path[last + at + 1..])),
        None => (path, None),
    }
}

/// With what its escapes stand for; those of slashes may stay.
pub(super) fn decode(text: &str, keeps_slash: bool) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = if *first == b'%' { escaped(after) } else { None };
        let escape = escape.filter(|byte| !(keeps_slash && *byte == b'/'));
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    // The gateway has refused what is not UTF-8 once it is decoded.
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_what_they_name() {
        for (template, path, expected) in [
            ("/v1/{name}", &["v1", "a"][..], &["a"][..]),
            ("/v1/{name=shelves/*}", &["v1", "shelves", "1"], &["shelves/1"]),
            ("/v1/{name=shelves/*}/books/{book.id}", &["v1", "shelves", "1", "books", "2"], &["shelves/1", "2"]),
            ("/v1/{name=**}", &["v1", "a", "b"], &["a/b"]),
            ("/v1/{name=**}", &["v1"], &[""]),
            ("/v1/{name=a/**}:move", &["v1", "a", "b%2Fc"], &["a/b%2Fc"]),
            ("/v1/{name}", &["v1", "b%2Fc%20d"], &["b/c d"]),
            ("/v1/{name=*}", &["v1", "%C3%A9"], &["\u{e9}"]),
            ("/v1/{name=a/*}", &["v1", "a", "%20%2f"], &["a/ %2f"]),
            ("/v1/shelves", &["v1", "shelves"], &[]),
        ] {
            assert_eq!(Template::parse(template).unwrap().values(path), expected, "{template}");
        }
    }

    #[test]
    fn a_verb_stands_last() {
        for (template, verb, segments) in [
            ("/v1/{name}:move", Some("move"), 2),
            ("/v1/{name=a/*}:move", Some("move"), 3),
            ("/v1/shelves:watch", Some("watch"), 2),
            ("/v1/shelves", None, 2),
            ("/v1/**:x", Some("x"), 2),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!((template.verb.as_deref(), template.segments.len()), (verb, segments));
        }
        assert_eq!(verb("/a:b/c"), ("/a:b/c", None));
        assert_eq!(verb("/a/c:"), ("/a/c", Some("")));
        assert_eq!(verb("/a/b:c:d"), ("/a/b:c", Some("d")));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let long = format!("/{}", ["a"; 65].join("/"));
        for wrong in [
            "",
            "v1",
            "/",
            "//",
            "/v1/",
            "/v1//a",
            "/v1/{",
            "/v1/{}",
            "/v1/{a",
            "/v1/a}",
            "/v1/{a}b",
            "/v1/a{b}",
            "/v1/{a=}",
            "/v1/{a=b//c}",
            "/v1/{a.}",
            "/v1/{a..b}",
            "/v1/{a-b}",
            "/v1/{a}/{a}",
            "/v1/**/a",
            "/v1/{a=**}/b",
            "/v1/***",
            "/v1/a:",
            "/v1/a b",
            "/v1/%41",
            "/v1/a?b",
            "/v1/\u{e9}",
            "/v1:a/b",
            "/v1/{a=b}:c/d",
            &long,
        ] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
