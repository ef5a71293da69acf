//! What a text says, whoever wrote it in which form, and the paths to it.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::Value as Json;

/// A value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, or `null`.
    Null,
    /// Text, number or boolean, as it reads.
    Scalar(String),
    /// In order.
    List(Vec<Self>),
    /// In order; keys are unique.
    Map(IndexMap<String, Self>),
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Scalar(text.into())
    }

    /// A map of one.
    pub(crate) fn of(key: &str, value: Self) -> Self {
        Self::Map([(key.to_owned(), value)].into())
    }

    /// What is at a path.
    pub(crate) fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match (value, step) {
            (Self::Map(entries), Step::Key(key)) => entries.get(&**key),
            (Self::List(values), Step::Index(index)) => values.get(*index),
            _ => None,
        })
    }

    /// Scalars become strings, whatever they were.
    pub(crate) fn into_json(self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Scalar(text) => Json::String(text),
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
            Self::Scalar(_) | Self::List(_) => false,
            Self::Map(entries) => entries.values().all(|value| *value == Self::Null),
        }
    }

    /// Keys without a value.
    pub(crate) fn empty_keys(&self) -> impl Iterator<Item = Vec<Step>> {
        let entries = match self {
            Self::Map(entries) => Some(entries),
            Self::Null | Self::Scalar(_) | Self::List(_) => None,
        };
        entries
            .into_iter()
            .flatten()
            .filter(|(_, value)| **value == Self::Null)
            .map(|(key, _)| vec![Step::Key(key.clone().into())])
    }

    /// Where it ends, if nothing is there.
    pub(crate) fn end(&self) -> Option<Vec<Step>> {
        let (mut path, mut value) = (Vec::new(), self);
        loop {
            (path, value) = match value {
                Self::Null => return Some(path),
                Self::Scalar(_) => return None,
                Self::List(values) => {
                    path.push(Step::Index(values.len().checked_sub(1)?));
                    (path, values.last()?)
                }
                Self::Map(entries) => {
                    let (key, last) = entries.last()?;
                    path.push(Step::Key(key.clone().into()));
                    (path, last)
                }
            };
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(key),
            _ => None,
        }
    }
}

impl Default for Value {
    fn default() -> Self {
        Self::Map(IndexMap::new())
    }
}

/// A step of a path. Most keys are lictor's own, and cost nothing to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Key(Cow<'static, str>),
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
