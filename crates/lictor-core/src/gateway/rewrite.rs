//! What the path becomes on its way to the upstream.

use std::fmt;
use std::sync::Arc;

use super::path::{self, ReadPath};
use super::pattern::{PathPattern, Segment};

/// How a route changes the path. Made for a pattern, and applied only to paths that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// So many segments are taken off its begin: these.
    Strip(usize, Arc<str>),
    /// It is made anew.
    Template(Box<[Part]>),
}

/// What a rewritten path is made of: its segments, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As written.
    Literal(Box<str>),
    /// The segment of the request's path at this place, from 0.
    Segment(usize),
    /// The request's path from this segment on.
    Rest(usize),
}

impl Rewrite {
    /// Takes off a prefix that the pattern begins with: `/api` of `/api/users/*`.
    pub fn strip(prefix: &str, pattern: &PathPattern) -> Result<Self, String> {
        let prefix_pattern = PathPattern::parse(prefix, pattern.ignores_case).map_err(|why| why.to_string())?;
        let is_literal = !prefix_pattern.takes_rest() && prefix_pattern.names().next().is_none();
        if !is_literal || !pattern.begins_with(&prefix_pattern) {
            return Err(format!("`{}` does not begin with `{prefix}`", pattern.as_str()));
        }
        let mut taken = String::new();
        append(&mut taken, prefix_pattern.segments.iter().map(Segment::literal));
        Ok(Self::Strip(prefix_pattern.segments.len(), taken.into()))
    }

    /// What it takes off; `None`: nothing, or it makes the path anew.
    pub fn stripped(&self) -> Option<&Arc<str>> {
        match self {
            Self::Strip(_, taken) if !taken.is_empty() => Some(taken),
            Self::Strip(..) | Self::Template(_) => None,
        }
    }

    /// Makes the path of a template: `/users/{id}` for `/api/users/{id}`, `/v1/*` for `/api/*`.
    pub fn template(text: &str, pattern: &PathPattern) -> Result<Self, String> {
        let template = PathPattern::parse(text, false).map_err(|why| why.to_string())?;
        if template.takes_rest() && !pattern.takes_rest() {
            return Err(format!("`{text}` ends in `*`, and `{}` does not", pattern.as_str()));
        }
        let part = |segment: &Segment| match segment {
            Segment::Literal(literal) => Ok(Part::Literal(literal.clone())),
            Segment::Any(name) => {
                let is_it = |own: &Segment| matches!(own, Segment::Any(own) if own == name);
                let at = pattern.segments.iter().position(is_it).map(Part::Segment);
                at.ok_or_else(|| format!("`{}` has no `{{{name}}}`", pattern.as_str()))
            }
        };
        let mut parts: Vec<Part> = template.segments.iter().map(part).collect::<Result<_, _>>()?;
        if template.takes_rest() {
            parts.push(Part::Rest(pattern.segments.len()));
        }
        Ok(Self::Template(parts.into()))
    }

    /// The path that goes on. It is read again, like one that came; `None` where it has not one reading.
    pub fn apply(&self, read: &ReadPath<'_>) -> Option<String> {
        let path = read.as_str();
        let mut made = String::with_capacity(path.len());
        match self {
            Self::Strip(many, _) => append(&mut made, path::segments(path).skip(*many)),
            Self::Template(parts) => {
                for part in parts {
                    match part {
                        Part::Literal(literal) => append(&mut made, [&**literal].into_iter()),
                        Part::Segment(at) => append(&mut made, path::segments(path).skip(*at).take(1)),
                        Part::Rest(at) => append(&mut made, path::segments(path).skip(*at)),
                    }
                }
            }
        }
        let takes_rest = match self {
            Self::Strip(..) => true,
            Self::Template(parts) => matches!(parts.last(), Some(Part::Rest(_))),
        };
        if made.is_empty() || (takes_rest && path.ends_with('/')) {
            made.push('/');
        }
        let is_normal = path::read_allowing(&made, read.odd()).is_ok_and(|again| again.as_str() == made);
        is_normal.then_some(made)
    }
}

impl fmt::Display for Rewrite {
    /// `without its first 2 segments`, `as /users/{1}`: segments by their number, from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strip(1, _) => f.write_str("without its first segment"),
            Self::Strip(many, _) => write!(f, "without its first {many} segments"),
            Self::Template(parts) => {
                f.write_str(if parts.is_empty() { "as /" } else { "as " })?;
                parts.iter().try_for_each(|part| match part {
                    Part::Literal(literal) => write!(f, "/{literal}"),
                    Part::Segment(at) => write!(f, "/{{{}}}", at + 1),
                    Part::Rest(_) => f.write_str("/*"),
                })
            }
        }
    }
}

fn append<'a>(made: &mut String, segments: impl Iterator<Item = &'a str>) {
    for segment in segments {
        made.push('/');
        made.push_str(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_rewritten_by_segments() {
        for (pattern, rewrite, path, made) in [
            ("/api/users/{id}", "/users/{id}", "/api/users/1", "/users/1"),
            ("/api/users/{id}", "/users/{id}", "/api/users/1/", "/users/1"),
            ("/api/users/{id}", "/{id}/a/{id2}", "/api/users/1", "no"),
            ("/a/{x}/{y}", "/{y}/{x}", "/a/1/2", "/2/1"),
            ("/a/{x}", "/caf\u{e9}/{x}", "/a/%2e%2e%41", "/caf%C3%A9/..A"),
            ("/a/{x}", "/{x}", "/a/%40b%20c", "/%40b%20c"),
            ("/api/*", "/v1/*", "/api/users/1", "/v1/users/1"),
            ("/api/*", "/v1/*", "/api", "/v1"),
            ("/api/*", "/v1/*", "/api/", "/v1/"),
            ("/api/*", "/", "/api/users", "/"),
            ("/api/{v}/*", "/*", "/api/1/users/", "/users/"),
            ("/api", "/x/*", "/api", "no"),
            ("/api/*", "x", "/api", "no"),
            ("/api/*", "/../x", "/api", "no"),
            ("/api/*", "/a?b", "/api", "no"),
        ] {
            let pattern = PathPattern::parse(pattern, false).unwrap();
            let read = path::read(path).unwrap();
            let result = Rewrite::template(rewrite, &pattern).ok().and_then(|rewrite| rewrite.apply(&read));
            assert_eq!(result.as_deref().unwrap_or("no"), made, "{rewrite} of {path}");
        }
        for (pattern, prefix, path, made) in [
            ("/api/users/*", "/api", "/api/users/1", "/users/1"),
            ("/api/*", "/api", "/api", "/"),
            ("/api/*", "/api", "/api/", "/"),
            ("/api/*", "/api/", "/api/a/", "/a/"),
            ("/api/{id}", "/api", "/api/1", "/1"),
            ("/api/{id}", "/api/{id}", "/api/1", "no"),
            ("/api/*", "/ap", "/api/a", "no"),
            ("/api/*", "/api/users", "/api/a", "no"),
            ("/api/*", "/api/*", "/api/a", "no"),
        ] {
            let pattern = PathPattern::parse(pattern, false).unwrap();
            let read = path::read(path).unwrap();
            let result = Rewrite::strip(prefix, &pattern).ok().and_then(|rewrite| rewrite.apply(&read));
            assert_eq!(result.as_deref().unwrap_or("no"), made, "{prefix} off {path}");
        }
    }
}
