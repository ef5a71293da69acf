//! The merged tree of values: its layers, and what is known of each value's origin. It is read through its nodes.

mod node;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use serde_json::{Value as Json, json};

pub(crate) use self::node::{Node, Section, texts};
use crate::Text;
use crate::diagnose::{Diagnostic, Place, Report, Severity};
use crate::source::{Step, Value, find, show};

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its key, as `defaults.retry.attempts`.
    pub path: String,
    /// As it would be written; secrets as `***`.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// Of a secret, to tell another one from the same.
    pub(crate) fingerprint: Option<u64>,
}

impl Effective {
    /// A value in force elsewhere, as it is shown there.
    pub fn shown(path: String, value: String, origin: Origin) -> Self {
        Self { path, value, origin, fingerprint: None }
    }
}

/// How a secret is shown.
pub(crate) const MASKED: &str = "***";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// A place in the file.
    File {
        /// Its name.
        name: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A place in the value of the KV key.
    Kv {
        /// The key.
        key: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An environment variable.
    Env(String),
    /// `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Kv { key, line, column } => write!(f, "{KV}{key}:{line}:{column}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Value,
    /// What the root is made of, later ones over earlier ones.
    layers: Vec<Layer>,
    /// What did not come from a layer, by path.
    origins: HashMap<Vec<Step>, Origin>,
    is_describing: bool,
    diagnostics: RefCell<Vec<Diagnostic>>,
    effective: RefCell<Vec<Effective>>,
    fields: RefCell<Vec<Field>>,
}

/// A text that was laid into the tree.
#[derive(Debug)]
struct Layer {
    text: Text,
    value: Value,
    is_kv: bool,
}

/// What names of KV keys begin with in messages.
const KV: &str = "kv:";

impl Default for Value {
    fn default() -> Self {
        Self::Map(Vec::new())
    }
}

/// A key's page in the schema.
#[derive(Clone, Debug)]
struct Field {
    path: Vec<Step>,
    schema: Json,
}

impl Tree {
    /// A tree without values that every key is read from once, for the schema.
    pub(crate) fn describing() -> Self {
        Self { is_describing: true, ..Self::default() }
    }

    pub(crate) fn root(&self) -> Node<'_> {
        Node::root(self, &self.root)
    }

    pub(crate) fn has(&self, path: &[&str]) -> bool {
        path.iter().try_fold(&self.root, |value, key| value.entry(key)).is_some()
    }

    /// Lays a text over what is there.
    pub(crate) fn lay(&mut self, text: &Text, value: Value, is_kv: bool) {
        merge(&mut self.root, &value, &mut Vec::new());
        self.layers.push(Layer { text: text.clone(), value, is_kv });
    }

    /// Where the value at these keys came from, if there is one.
    pub(crate) fn origin_of(&self, path: &[&str]) -> Origin {
        self.origin(&steps(path), true)
    }

    /// Whether KV would switch something on that nobody else did.
    pub(crate) fn is_only_in_kv(&self, key: &str) -> bool {
        let is_on = |value: &Value| match value {
            Value::Scalar(text, _) => !is_off(text),
            Value::Map(_) | Value::List(_) => true,
            Value::Null => false,
        };
        let says = |layer: &&Layer| layer.value.entry(key).is_some_and(is_on);
        let (in_kv, in_file): (Vec<_>, Vec<_>) = self.layers.iter().filter(says).partition(|layer| layer.is_kv);
        let is_in_env = self.origins.keys().any(|path| path[0] == Step::Key(key.to_owned()));
        !in_kv.is_empty() && in_file.is_empty() && !is_in_env
    }

    /// The keys that KV has there.
    pub(crate) fn keys_in_kv(&self, path: &[&str]) -> Vec<&str> {
        let mut layers = self.layers.iter().filter(|layer| layer.is_kv);
        let found = layers.find_map(|layer| path.iter().try_fold(&layer.value, |value, key| value.entry(key)));
        match found {
            Some(Value::Map(entries)) => entries.iter().map(|(key, _)| key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn refuse(&self, path: &[&str], message: String, help: Option<String>) {
        let path = steps(path);
        let place = self.place(&path, false);
        self.note(Diagnostic { severity: Severity::Error, message, path: show(&path), place, help });
    }

    /// Whether there is such a key at all.
    pub(crate) fn describes(&self, path: &[Step]) -> bool {
        self.fields.borrow().iter().any(|field| field.path == path)
    }

    /// Writes a value over whatever is there.
    pub(crate) fn set(&mut self, path: &[String], value: Value, origin: Origin) {
        let steps = path.iter().cloned().map(Step::Key).collect();
        insert(&mut self.root, "", path, value);
        self.origins.insert(steps, origin);
    }

    pub(crate) fn note(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    pub(crate) fn into_results(self) -> (Vec<Effective>, Report) {
        let mut diagnostics = self.diagnostics.into_inner();
        diagnostics.sort_by_key(|diagnostic| match diagnostic.place {
            Place::File { line, column, .. } => (line, column),
            _ => (0, 0),
        });
        (self.effective.into_inner(), Report(diagnostics))
    }

    /// Keys of single values outside of maps and lists, for `LICTOR_<SECTION>_<KEY>`.
    pub(crate) fn scalar_paths(&self) -> Vec<Vec<String>> {
        let plain = |field: &Field| {
            let keys: Option<Vec<String>> = field
                .path
                .iter()
                .map(|step| match step {
                    Step::Key(key) if key != "*" => Some(key.clone()),
                    _ => None,
                })
                .collect();
            keys.filter(|keys| !keys.is_empty() && field.schema["type"] != "object")
        };
        self.fields.borrow().iter().filter_map(plain).collect()
    }

    pub(crate) fn into_schema(self) -> Json {
        let mut root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "lictor",
            "description": "Configuration of the lictor sidecar",
            "type": "object",
            "additionalProperties": false,
            "properties": {},
        });
        for field in self.fields.into_inner() {
            place_field(&mut root, &field.path, field.schema);
        }
        root
    }

    fn origin(&self, path: &[Step], is_set: bool) -> Origin {
        for end in (1..=path.len()).rev() {
            if let Some(origin) = self.origins.get(&path[..end]) {
                return origin.clone();
            }
        }
        let layer = self.layer(path).filter(|_| is_set);
        match layer.map(|layer| (layer.is_kv, find(&layer.text, path, false))) {
            Some((true, Place::File { name, line, column, .. })) => {
                let key = name.strip_prefix(KV).unwrap_or(&name).to_owned();
                Origin::Kv { key, line, column }
            }
            Some((false, Place::File { name, line, column, .. })) => Origin::File { name, line, column },
            _ => Origin::Default,
        }
    }

    /// The text that says most about a path; of two that say as much, the one that is over the other.
    fn layer(&self, path: &[Step]) -> Option<&Layer> {
        self.layers.iter().max_by_key(|layer| layer.value.reach(path))
    }

    fn place(&self, path: &[Step], wants_key: bool) -> Place {
        for end in (1..=path.len()).rev() {
            match self.origins.get(&path[..end]) {
                Some(Origin::Env(name)) => return Place::Env(name.clone()),
                Some(Origin::Flag) => return Place::Flag,
                _ => (),
            }
        }
        self.layer(path).map_or(Place::Missing, |layer| find(&layer.text, path, wants_key))
    }
}

fn insert(at: &mut Value, name: &str, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *at = value;
        return;
    };
    if !matches!(at, Value::Map(_)) {
        // A shorthand keeps its meaning when something is added to it.
        let earlier = std::mem::take(at);
        if matches!(earlier, Value::Scalar(..)) {
            let meant = match (name, key.as_str()) {
                ("listen" | "proxy", _) => "address",
                (_, "version") => "name",
                _ => "listen",
            };
            *at = Value::Map(vec![(meant.to_owned(), earlier)]);
        }
    }
    let Value::Map(entries) = at else { return };
    match entries.iter_mut().find(|(known, _)| known == key) {
        Some((_, next)) => insert(next, key, rest, value),
        None => {
            let mut next = Value::default();
            insert(&mut next, key, rest, value);
            entries.push((key.clone(), next));
        }
    }
}

/// Lays a value over another: maps are merged, anything else replaces what was there, nothing says nothing.
fn merge(below: &mut Value, over: &Value, path: &mut Vec<String>) {
    let Value::Map(entries) = over else {
        if *over != Value::Null {
            *below = over.clone();
        }
        return;
    };
    if !matches!(below, Value::Map(_)) {
        // A listener's shorthand keeps its meaning when something is added to it.
        let meant = match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["upstreams", _] => Some("listen"),
            [.., "listen" | "proxy"] => Some("address"),
            _ => None,
        };
        let earlier = std::mem::take(below);
        if let (Some(meant), Value::Scalar(..)) = (meant, &earlier) {
            *below = Value::Map(vec![(meant.to_owned(), earlier)]);
        }
    }
    let Value::Map(known) = below else { return };
    for (key, value) in entries {
        path.push(key.clone());
        match known.iter_mut().find(|(name, _)| name == key) {
            Some((_, next)) => merge(next, value, path),
            None => known.push((key.clone(), value.clone())),
        }
        path.pop();
    }
}

pub(crate) fn steps(path: &[&str]) -> Vec<Step> {
    path.iter().map(|key| Step::Key((*key).to_owned())).collect()
}

fn is_off(text: &str) -> bool {
    matches!(text, "off" | "false" | "none" | "no")
}

fn place_field(at: &mut Json, path: &[Step], schema: Json) {
    let Some((step, rest)) = path.split_first() else {
        if let (Json::Object(known), Json::Object(more)) = (at, schema) {
            for (key, value) in more {
                known.entry(key).or_insert(value);
            }
        }
        return;
    };
    let next = match step {
        Step::Key(key) if key == "*" => &mut at["additionalProperties"],
        Step::Key(key) => &mut at["properties"][key.as_str()],
        Step::Index(_) => &mut at["items"],
    };
    if !next.is_object() {
        *next = json!({});
    }
    place_field(next, rest, schema);
}
