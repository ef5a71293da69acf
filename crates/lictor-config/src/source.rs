//! The file: the one module that knows the YAML crate. It parses, and finds the place of a path again.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use crate::Text;
use crate::diagnose::{Diagnostic, Place, Severity};

/// A value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, or `null`.
    Null,
    /// Text, number or boolean, as it reads; the flag says that it was written as text.
    Scalar(String, bool),
    /// In order.
    List(Vec<Self>),
    /// In order; keys are unique.
    Map(Vec<(String, Self)>),
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Scalar(text.into(), true)
    }

    /// Scalars become strings, whatever they were.
    pub(crate) fn into_json(self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Scalar(text, _) => Json::String(text),
            Self::List(values) => Json::Array(values.into_iter().map(Self::into_json).collect()),
            Self::Map(entries) => Json::Object(entries.into_iter().map(|(key, it)| (key, it.into_json())).collect()),
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(..) => "a value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// How much it says about a path: whether it decides it, and how many steps it knows of.
    pub(crate) fn reach(&self, path: &[Step]) -> (bool, usize) {
        let mut at = self;
        for (steps, step) in path.iter().enumerate() {
            let next = match (at, step) {
                (Self::Map(_), Step::Key(key)) => at.entry(key),
                (Self::List(values), Step::Index(index)) => values.get(*index),
                (Self::Null, _) => return (false, steps.saturating_sub(1)),
                _ => return (true, steps), // a shorthand
            };
            let Some(next) = next else { return (false, steps) };
            at = next;
        }
        (*at != Self::Null, path.len())
    }

    /// Whether no key of it has a value.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Scalar(..) | Self::List(_) => false,
            Self::Map(entries) => entries.iter().all(|(_, value)| *value == Self::Null),
        }
    }

    /// Keys without a value.
    pub(crate) fn empty_keys(&self) -> impl Iterator<Item = &str> {
        let entries = match self {
            Self::Map(entries) => entries.as_slice(),
            Self::Null | Self::Scalar(..) | Self::List(_) => &[],
        };
        entries.iter().filter(|(_, value)| *value == Self::Null).map(|(key, _)| key.as_str())
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(known, _)| known == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// `upstreams.user-service.routes[1].match`
pub(crate) fn show(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Parses the file; a syntax error is one diagnostic with its place.
pub(crate) fn parse(file: &Text) -> Result<Value, Diagnostic> {
    let broken = |error: &serde_yaml::Error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        Diagnostic {
            severity: Severity::Error,
            message: format!("not valid YAML: {message}"),
            path: String::new(),
            place: place(file, line, column, false),
            help: None,
        }
    };
    let yaml: Yaml = serde_yaml::from_str(&file.text).map_err(|error| broken(&error))?;
    let mut yaml = yaml;
    yaml.apply_merge().map_err(|error| broken(&error))?;
    Ok(convert(yaml))
}

fn convert(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Scalar(value.to_string(), false),
        Yaml::Number(value) => Value::Scalar(value.to_string(), false),
        Yaml::String(value) => Value::Scalar(value, true),
        Yaml::Sequence(values) => Value::List(values.into_iter().map(convert).collect()),
        Yaml::Mapping(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = match convert(key) {
                        Value::Scalar(text, _) => text,
                        other => other.kind().to_owned(),
                    };
                    (key, convert(value))
                })
                .collect(),
        ),
        Yaml::Tagged(tagged) => convert(tagged.value),
    }
}

/// The place of a path's value, or of its key, or of the nearest thing above it that is in the file.
pub(crate) fn find(file: &Text, path: &[Step], wants_key: bool) -> Place {
    let is_veiled = path.iter().any(|step| matches!(step, Step::Key(key) if SECRET.contains(&key.as_str())));
    let mut path = path;
    loop {
        let found = Cell::new(false);
        let seed = Locate { path, wants_key, found: &found };
        if let Err(error) = seed.deserialize(serde_yaml::Deserializer::from_str(&file.text))
            && found.get()
            && let Some(at) = error.location()
        {
            return place(file, at.line(), at.column(), is_veiled);
        }
        match path.split_last() {
            Some((_, above)) => path = above,
            None => return place(file, 1, 1, is_veiled),
        }
    }
}

/// Keys whose values, or what is in them, are secrets.
const SECRET: [&str; 5] = ["headers", "http_auth", "service_token", "set", "token"];

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

fn place(file: &Text, line: usize, column: usize, is_veiled: bool) -> Place {
    let source = file.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().to_owned();
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

/// Walks to a path and fails there on purpose: the parser stamps its place on the error.
#[derive(Clone, Copy)]
struct Locate<'a> {
    path: &'a [Step],
    wants_key: bool,
    found: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Locate<'_> {
    fn here<E: Error>(&self) -> Result<(), E> {
        if self.path.is_empty() {
            self.found.set(true);
            return Err(E::custom("here"));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.here()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.here()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.here()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.here()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.here()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.here()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.here()?;
        let Some((Step::Index(wanted), rest)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        let next = Locate { path: rest, ..self };
        list.next_element_seed(next)?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.here()?;
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else { return Ok(()) };
        let fails = self.wants_key && rest.is_empty();
        while let Some(is_wanted) = map.next_key_seed(Key { wanted, fails: fails.then_some(self.found) })? {
            if is_wanted {
                map.next_value_seed(Locate { path: rest, ..self })?;
                break;
            }
            map.next_value::<IgnoredAny>()?;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A map's key: is it the one? With `fails`, says so by failing.
struct Key<'a> {
    wanted: &'a str,
    fails: Option<&'a Cell<bool>>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        if let (true, Some(found)) = (key == self.wanted, self.fails) {
            found.set(true);
            return Err(E::custom("here"));
        }
        Ok(key == self.wanted)
    }
}
