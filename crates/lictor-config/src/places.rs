//! Where things are written: noted once for a whole text when it is read, so that a place costs the steps to it.

use std::collections::HashMap;

use crate::bounds::At;
use crate::diagnose::Place;
use crate::value::Step;

/// A file's name and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// For messages.
    pub name: String,
    /// The YAML.
    pub text: String,
}

/// A line that is longer helps nobody who is shown it.
const LINE_MAX: usize = 500;

/// A text, and where in it each value is.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) text: Text,
    pub(crate) root: Spot,
}

/// Where a value is, with what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) at: At,
    /// Of a map's value: where its key is.
    pub(crate) key: Option<At>,
    pub(crate) below: HashMap<Step, Self>,
}

impl Places {
    /// The place of a path's value, or of its key, or of the nearest thing above it that is in the text.
    pub(crate) fn find(&self, path: &[Step], wants_key: bool) -> Place {
        let is_veiled = path.iter().any(|step| matches!(step, Step::Key(key) if SECRET.contains(&&**key)));
        let spot = self.nearest(path);
        place(&self.text, spot.key.filter(|_| wants_key).unwrap_or(spot.at), is_veiled)
    }

    /// The same without the line itself, which costs as much as the text is long.
    pub(crate) fn at(&self, path: &[Step]) -> At {
        self.nearest(path).at
    }

    fn nearest(&self, path: &[Step]) -> &Spot {
        let mut spot = &self.root;
        for step in path {
            match spot.below.get(step) {
                Some(next) => spot = next,
                None => break,
            }
        }
        spot
    }
}

/// Keys whose values, or what is in them, are secrets.
const SECRET: [&str; 10] =
    ["add", "basic", "clients", "headers", "http_auth", "password", "secret", "service_token", "set", "token"];

/// A line as it may be shown: what is printed when a start fails is in a container's log. Where a secret may be in it,
/// values become stars, one for each letter, so that the rest stays in its column.
fn veil(line: &str, is_veiled: bool) -> String {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let may_name_user = line.contains('@'); // `user:password@`, with a scheme or without
    if !is_veiled && !may_name_user && !words.any(|word| SECRET.contains(&word)) {
        return line.to_owned();
    }
    let chars: Vec<char> = line.chars().collect();
    let is_mark = |at: usize| matches!(chars[at], '{' | '}' | '[' | ']' | ',' | ' ' | '#' | '\'' | '"');
    let ends_key = |at: usize| chars[at] == ':' && chars.get(at + 1).is_none_or(|next| next.is_whitespace());
    let is_key = |at: usize| (at..chars.len()).find(|at| is_mark(*at) || ends_key(*at)).is_some_and(ends_key);
    let is_dash = |at: usize| chars[at] == '-' && chars.get(at + 1) == Some(&' ');
    (0..chars.len()).map(|at| if is_mark(at) || is_key(at) || is_dash(at) { chars[at] } else { '*' }).collect()
}

pub(crate) fn place(file: &Text, (line, column): At, is_veiled: bool) -> Place {
    let source = file.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let source = if source.len() > LINE_MAX { String::new() } else { source.to_owned() };
    let rest: Vec<char> = source.chars().skip(column.saturating_sub(1)).collect();
    let width = match rest.first() {
        Some(quote @ ('"' | '\'')) => rest.iter().skip(1).position(|c| c == quote).map_or(rest.len(), |end| end + 2),
        Some('[' | '{') => 1,
        _ => {
            let is_end = |at: usize| {
                let next_is_space = rest.get(at + 1).is_none_or(|c| c.is_whitespace());
                matches!(rest[at], ',' | ']' | '}')
                    || (rest[at] == ':' && next_is_space)
                    || (rest[at] == ' ' && rest.get(at + 1) == Some(&'#'))
            };
            (0..rest.len()).find(|at| is_end(*at)).unwrap_or(rest.len())
        }
    };
    let source = veil(&source, is_veiled);
    Place::File { name: file.name.clone(), line, column: column.max(1), source, width }
}
