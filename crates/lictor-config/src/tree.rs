//! The merged tree of values: its layers, and what is known of each value's origin. It is read through its nodes.

mod node;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::{Value as Json, json};

pub(crate) use self::node::{Node, Section, texts};
use crate::diagnose::{Diagnostic, Notes, Place, Report, Severity};
use crate::environment::{is_others, is_under};
use crate::places::Places;
use crate::value::{Step, Value, show};

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its key, as `defaults.retry.attempts`.
    pub path: String,
    /// As it would be written; secrets as `***`.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// Of a secret or a file's content, to tell another one from the same.
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
    /// The paths of those, and what is above them.
    set: HashSet<Vec<Step>>,
    is_describing: bool,
    /// What is read was read before.
    is_again: Cell<bool>,
    notes: RefCell<Notes>,
    effective: RefCell<Vec<Effective>>,
    fields: RefCell<Vec<Field>>,
}

/// A text that was laid into the tree.
#[derive(Debug)]
struct Layer {
    places: Places,
    value: Value,
    is_kv: bool,
}

/// Keys whose value is a file's content ([`Node::content`]).
const CONTENTS: [&str; 1] = ["descriptor"];

/// What names of KV keys begin with in messages.
const KV: &str = "kv:";

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

    /// The files that values are in: those of `file:/path`, and those whose content is a value.
    pub(crate) fn files(&self) -> Vec<&str> {
        let (mut files, mut ahead) = (Vec::new(), vec![("", &self.root)]);
        while let Some((key, value)) = ahead.pop() {
            match value {
                Value::Null => (),
                Value::Scalar(text) if CONTENTS.contains(&key) => files.push(text.as_str()),
                Value::Scalar(text) => files.extend(text.strip_prefix("file:")),
                Value::List(values) => ahead.extend(values.iter().map(|value| ("", value))),
                Value::Map(entries) => ahead.extend(entries.iter().map(|(key, value)| (key.as_str(), value))),
            }
        }
        files
    }

    /// Whether something is said at a path, or above it by a single value such as `off`.
    pub(crate) fn decides(&self, path: &[&str]) -> bool {
        self.root.reach(&steps(path)).0
    }

    /// Whether what is in force at a path is from a variable whose name is not lictor's alone.
    pub(crate) fn is_others(&self, path: &[Step]) -> bool {
        matches!(self.origin(path, true), Origin::Env(name) if is_others(&name))
    }

    /// Lays a text over what is there.
    pub(crate) fn lay(&mut self, mut value: Value, places: Places, is_kv: bool) {
        merge(&mut self.root, &mut value, &mut Vec::new());
        self.layers.push(Layer { places, value, is_kv });
    }

    /// Where the value at these keys came from, if there is one.
    pub(crate) fn origin_of(&self, path: &[&str]) -> Origin {
        self.origin(&steps(path), true)
    }

    /// Whether KV says anything.
    pub(crate) fn has_kv(&self) -> bool {
        self.layers.iter().any(|layer| layer.is_kv)
    }

    /// Whether KV would switch something on that nobody else did.
    pub(crate) fn is_only_in_kv(&self, key: &str) -> bool {
        let is_on = |value: &Value| match value {
            Value::Scalar(text) => !is_off(text),
            Value::Map(_) | Value::List(_) => true,
            Value::Null => false,
        };
        let says = |layer: &&Layer| layer.value.entry(key).is_some_and(is_on);
        let (in_kv, in_file): (Vec<_>, Vec<_>) = self.layers.iter().filter(says).partition(|layer| layer.is_kv);
        !in_kv.is_empty() && in_file.is_empty() && !self.set.contains(&steps(&[key]))
    }

    /// Whether KV alone names it: no file, variable or flag of this machine does.
    pub(crate) fn is_kvs_own(&self, path: &[Step]) -> bool {
        self.layers.iter().any(|layer| layer.is_kv && layer.value.at(path).is_some())
            && !self.layers.iter().any(|layer| !layer.is_kv && layer.value.at(path).is_some())
            && !self.set.contains(path)
    }

    /// Whether KV says there what is in force, and what this machine's file does not say.
    pub(crate) fn is_changed_by_kv(&self, path: &[Step]) -> bool {
        let is_over_it = |end: usize| self.origins.contains_key(&path[..end]);
        self.said(path, true).is_some_and(|value| self.said(path, false) != Some(value))
            && !(1..=path.len()).any(is_over_it)
    }

    /// The keys of the map that KV has there.
    pub(crate) fn keys_in_kv(&self, path: &[Step]) -> Vec<String> {
        let entries = match self.said(path, true) {
            Some(Value::Map(entries)) => Some(entries),
            Some(Value::Null | Value::Scalar(_) | Value::List(_)) | None => None,
        };
        entries.into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// Of the list that KV has there.
    pub(crate) fn length_in_kv(&self, path: &[Step]) -> usize {
        match self.said(path, true) {
            Some(Value::List(values)) => values.len(),
            Some(Value::Map(_)) => 1,
            Some(Value::Null | Value::Scalar(_)) | None => 0,
        }
    }

    /// What this machine's file says there, whatever KV says.
    pub(crate) fn said_in_file(&self, path: &[Step]) -> Option<&str> {
        match self.said(path, false)? {
            Value::Scalar(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn said(&self, path: &[Step], in_kv: bool) -> Option<&Value> {
        let mut layers = self.layers.iter().rev().filter(|layer| layer.is_kv == in_kv);
        layers.find_map(|layer| layer.value.at(path)).filter(|value| **value != Value::Null)
    }

    /// Whether something is wrong there, or above it, already.
    pub(crate) fn is_refused(&self, path: &[Step]) -> bool {
        let notes = self.notes.borrow();
        (1..=path.len()).any(|end| notes.has_error_at(&show(&path[..end])))
    }

    pub(crate) fn refuse(&self, path: &[Step], message: String, help: Option<String>) {
        self.say(Severity::Error, path, message, help, || self.place(path, false));
    }

    /// A mistake at a place, which is looked for only if the mistake is kept.
    pub(crate) fn say(
        &self,
        severity: Severity,
        path: &[Step],
        message: String,
        help: Option<String>,
        place: impl FnOnce() -> Place,
    ) {
        if !self.is_again.get() && self.notes.borrow_mut().takes(severity) {
            let place = place();
            self.notes.borrow_mut().keep(Diagnostic { severity, message, path: show(path), place, help });
        }
    }

    /// Whether there is such a key at all.
    pub(crate) fn describes(&self, path: &[Step]) -> bool {
        self.fields.borrow().iter().any(|field| field.path == path)
    }

    /// Writes a value over whatever is there.
    pub(crate) fn set(&mut self, path: &[String], value: Value, origin: Origin) {
        let steps: Vec<Step> = path.iter().map(|key| Step::Key(key.clone().into())).collect();
        insert(&mut self.root, "", path, value);
        self.set.extend((1..=steps.len()).map(|end| steps[..end].to_vec()));
        self.origins.insert(steps, origin);
    }

    pub(crate) fn note(&self, diagnostic: Diagnostic) {
        let mut notes = self.notes.borrow_mut();
        if notes.takes(diagnostic.severity) {
            notes.keep(diagnostic);
        }
    }

    pub(crate) fn into_results(self) -> (Vec<Effective>, Report) {
        (self.effective.into_inner(), self.notes.into_inner().into_report())
    }

    /// Keys of single values outside of maps and lists, for `LICTOR_<SECTION>_<KEY>`.
    pub(crate) fn scalar_paths(&self) -> Vec<Vec<String>> {
        let plain = |field: &Field| {
            let keys: Option<Vec<String>> = field
                .path
                .iter()
                .map(|step| match step {
                    Step::Key(key) if key != "*" => Some(key.to_string()),
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

    /// How late the source comes that says the last word at a path, or below it.
    fn rank(&self, path: &[Step]) -> usize {
        let of = |origin: &Origin| match origin {
            Origin::Default => 0,
            Origin::Env(name) if is_under(name) => 1,
            // One file lies over another.
            Origin::File { name, .. } => {
                2 + self.layers.iter().position(|it| it.places.text.name == *name).unwrap_or(0)
            }
            Origin::Kv { .. } => 2 + self.layers.len(),
            Origin::Env(_) => 3 + self.layers.len(),
            Origin::Flag => 4 + self.layers.len(),
        };
        let below = self.origins.iter().filter(|(at, _)| at.starts_with(path)).map(|(_, origin)| of(origin));
        below.chain([of(&self.origin(path, true))]).max().unwrap_or_default()
    }

    fn origin(&self, path: &[Step], is_set: bool) -> Origin {
        if !self.origins.is_empty()
            && let Some(origin) = (1..=path.len()).rev().find_map(|end| self.origins.get(&path[..end]))
        {
            return origin.clone();
        }
        let Some(layer) = self.layer(path).filter(|_| is_set) else { return Origin::Default };
        let ((line, column), name) = (layer.places.at(path), layer.places.text.name.clone());
        match name.strip_prefix(KV) {
            key if layer.is_kv => Origin::Kv { key: key.unwrap_or(&name).to_owned(), line, column },
            _ => Origin::File { name, line, column },
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
        self.layer(path).map_or(Place::Missing, |layer| layer.places.find(path, wants_key))
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
            *at = Value::of(meant, earlier);
        }
    }
    let Value::Map(entries) = at else { return };
    insert(entries.entry(key.clone()).or_default(), key, rest, value);
}

/// Lays a value over another: maps are merged, anything else replaces what was there, nothing says nothing. A listener's
/// shorthand over a map, and under one, is the key that it is short for: what else the map says stays.
fn merge(below: &mut Value, over: &mut Value, path: &mut Vec<String>) {
    let short_for = |value: &Value| match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upstreams", _] if matches!(value, Value::Scalar(_)) => Some("listen"),
        [.., "listen" | "proxy"] if matches!(value, Value::Scalar(_)) => Some("address"),
        _ => None,
    };
    match (&below, &over) {
        (_, Value::Null) => return,
        (Value::Map(_), Value::Map(_)) => (),
        (Value::Map(_), shorthand) => match short_for(shorthand) {
            Some(meant) => *over = Value::of(meant, std::mem::take(over)),
            None => return *below = over.clone(),
        },
        (shorthand, Value::Map(_)) => {
            let meant = short_for(shorthand);
            let earlier = std::mem::take(below);
            if let Some(meant) = meant {
                *below = Value::of(meant, earlier);
            }
        }
        _ => return *below = over.clone(),
    }
    let (Value::Map(known), Value::Map(entries)) = (below, over) else { return };
    for (key, value) in entries {
        if let Some(next) = known.get_mut(key) {
            path.push(key.clone());
            merge(next, value, path);
            path.pop();
        } else {
            known.insert(key.clone(), value.clone());
        }
    }
}

pub(crate) fn steps(path: &[&str]) -> Vec<Step> {
    path.iter().map(|key| Step::Key((*key).to_owned().into())).collect()
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
        Step::Key(key) => &mut at["properties"][&**key],
        Step::Index(_) => &mut at["items"],
    };
    if !next.is_object() {
        *next = json!({});
    }
    place_field(next, rest, schema);
}
