//! The merged tree of values, and the calls that read it. Each call notes the value in force with its origin, the
//! mistake if there is one, and the key's page in the schema.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lictor_core::balance::hash_bytes;
use lictor_core::{Address, Secret};
use serde_json::{Value as Json, json};

use crate::Text;
use crate::diagnose::{Diagnostic, Place, Report, Severity, suggest};
use crate::source::{Step, Value, find, show};
use crate::values;

/// Keys that the product will have: said so, rather than "unknown".
const PLANNED: [&str; 8] =
    ["gateway", "building_blocks", "chaos", "slow_call", "failover", "merge_app", "restart", "infer_parent"];

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
        Node { tree: self, path: Vec::new(), value: Some(&self.root), help: "" }
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

/// A key with its value, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    tree: &'t Tree,
    path: Vec<Step>,
    value: Option<&'t Value>,
    help: &'static str,
}

impl<'t> Node<'t> {
    /// Whether anything was written.
    pub(crate) fn is_set(&self) -> bool {
        self.value.is_some_and(|value| *value != Value::Null)
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Some(Value::Map(_)))
    }

    /// The text of a single value.
    pub(crate) fn scalar(&self) -> Option<&'t str> {
        match self.value {
            Some(Value::Scalar(text, _)) => Some(text),
            _ => None,
        }
    }

    /// `off`, `false` or `none`.
    pub(crate) fn is_off(&self) -> bool {
        self.scalar().is_some_and(is_off)
    }

    /// The value as that of a key within it, which it is short for.
    pub(crate) fn short_for(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()), self.value)
    }

    /// The key as if nothing had been written.
    pub(crate) fn unset(&self) -> Self {
        Self { value: None, ..self.clone() }
    }

    /// The last key of the path.
    pub(crate) fn name(&self) -> String {
        match self.path.last() {
            Some(Step::Key(key)) => key.clone(),
            _ => String::new(),
        }
    }

    pub(crate) fn path(&self) -> String {
        show(&self.path)
    }

    pub(crate) fn error(&self, message: impl Into<String>, help: Option<String>) {
        self.say(Severity::Error, message.into(), help, false);
    }

    pub(crate) fn key_error(&self, message: impl Into<String>, help: Option<String>) {
        self.say(Severity::Error, message.into(), help, true);
    }

    pub(crate) fn warn(&self, message: impl Into<String>, help: Option<String>) {
        self.say(Severity::Warning, message.into(), help, false);
    }

    /// Opens a map. `shorthand` are the schemas of what may be written instead of it.
    pub(crate) fn section(&self, shorthand: &[Json]) -> Section<'t> {
        let mut object = json!({ "type": "object", "additionalProperties": false });
        if !shorthand.is_empty() {
            object =
                json!({ "type": ["object", "string", "number", "boolean", "array"], "additionalProperties": false });
        }
        self.describe(object, None);
        match self.value {
            None | Some(Value::Map(_) | Value::Null) => (),
            Some(other) => self.error(format!("expected a map, found {}", other.kind()), None),
        }
        Section { node: self.clone(), asked: RefCell::default() }
    }

    /// The entries of a map with free keys.
    pub(crate) fn entries(&self) -> Vec<Self> {
        self.describe(json!({ "type": "object" }), None);
        match self.value {
            _ if self.tree.is_describing => vec![self.step(Step::Key("*".to_owned()), None)],
            Some(Value::Map(entries)) => {
                entries.iter().map(|(key, value)| self.step(Step::Key(key.clone()), Some(value))).collect()
            }
            None | Some(Value::Null) => Vec::new(),
            Some(other) => {
                self.error(format!("expected a map, found {}", other.kind()), None);
                Vec::new()
            }
        }
    }

    /// The elements of a list; one value alone is a list of one.
    pub(crate) fn elements(&self) -> Vec<Self> {
        self.describe(json!({ "type": ["array", "string", "number"] }), None);
        match self.value {
            _ if self.tree.is_describing => vec![self.step(Step::Index(0), None)],
            Some(Value::List(values)) => {
                values.iter().enumerate().map(|(index, value)| self.step(Step::Index(index), Some(value))).collect()
            }
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Scalar(..)) => vec![self.clone()],
            Some(other @ Value::Map(_)) => {
                self.error(format!("expected a list, found {}", other.kind()), None);
                Vec::new()
            }
        }
    }

    /// One value, read with `parse`; `default` is what is in force without one.
    pub(crate) fn parsed<T>(
        &self,
        schema: Json,
        default: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.describe(schema, default);
        match self.value {
            None | Some(Value::Null) => {
                if let Some(default) = default {
                    self.effective(default.to_owned());
                }
                None
            }
            Some(Value::Scalar(text, _)) => match parse(text) {
                Ok(value) => {
                    self.effective(text.clone());
                    Some(value)
                }
                Err(message) => {
                    self.error(message, None);
                    None
                }
            },
            Some(other) => {
                self.error(format!("expected one value, found {}", other.kind()), None);
                None
            }
        }
    }

    pub(crate) fn duration(&self, default: Duration) -> Duration {
        let schema = json!({ "type": "string", "examples": ["500ms", "10s", "1m"] });
        self.parsed(schema, Some(&values::show_duration(default)), values::duration).unwrap_or(default)
    }

    /// A duration, or `none`.
    pub(crate) fn limit(&self, default: Option<Duration>) -> Option<Duration> {
        let shown = default.map_or_else(|| "none".to_owned(), values::show_duration);
        let schema = json!({ "type": "string", "examples": ["10s", "none"] });
        let parse = |text: &str| match text {
            "none" | "off" => Ok(None),
            text => values::duration(text).map(Some),
        };
        self.parsed(schema, Some(&shown), parse).unwrap_or(default)
    }

    pub(crate) fn share(&self, default: f64) -> f64 {
        let schema = json!({ "type": ["string", "number"], "examples": ["20%", 0.2] });
        self.parsed(schema, Some(&values::show_share(default)), values::share).unwrap_or(default)
    }

    pub(crate) fn size(&self, default: usize) -> usize {
        let schema = json!({ "type": ["string", "integer"], "examples": ["64KiB"] });
        self.parsed(schema, Some(&values::show_size(default)), values::size).unwrap_or(default)
    }

    pub(crate) fn boolean(&self, default: bool) -> bool {
        let parse = |text: &str| match text {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        };
        self.parsed(json!({ "type": "boolean" }), Some(if default { "true" } else { "false" }), parse)
            .unwrap_or(default)
    }

    /// A whole number of at least `least`.
    pub(crate) fn integer(&self, default: u32, least: u32) -> u32 {
        let parse = |text: &str| match text.trim().parse::<u32>() {
            Ok(number) if number >= least => Ok(number),
            Ok(number) => Err(format!("{number} is too small: at least {least}")),
            Err(_) => Err(format!("`{text}` is not a whole number of at least {least}")),
        };
        let schema = json!({ "type": ["integer", "string"], "minimum": least });
        self.parsed(schema, Some(&default.to_string()), parse).unwrap_or(default)
    }

    pub(crate) fn number(&self, default: f64, least: f64) -> f64 {
        let parse = |text: &str| match text.trim().parse::<f64>() {
            Ok(number) if number >= least && number.is_finite() => Ok(number),
            _ => Err(format!("`{text}` is not a number of at least {least}")),
        };
        self.parsed(json!({ "type": "number", "minimum": least }), Some(&default.to_string()), parse).unwrap_or(default)
    }

    pub(crate) fn text(&self, default: Option<&str>) -> Option<String> {
        let parse =
            |text: &str| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) };
        self.parsed(json!({ "type": ["string", "number"] }), default, parse).or_else(|| default.map(str::to_owned))
    }

    /// Text that no page shows; `file:/path` is read from there.
    pub(crate) fn secret(&self) -> Option<Secret> {
        self.describe(json!({ "type": "string", "examples": ["${TOKEN}", "file:/run/secrets/token"] }), None);
        let text = match self.value {
            None | Some(Value::Null) => return None,
            Some(Value::Scalar(text, _)) => text,
            Some(other) => {
                self.error(format!("expected one value, found {}", other.kind()), None);
                return None;
            }
        };
        let secret = match text.strip_prefix("file:").map(|path| (path, std::fs::read_to_string(path))) {
            None => Some(Secret::new(text)),
            Some((_, Ok(content))) => Some(Secret::new(content.trim_end())),
            Some((path, Err(error))) => {
                self.error(format!("cannot read {path}: {error}"), None);
                None
            }
        };
        let revealed = secret.as_ref().map_or("", Secret::reveal);
        self.in_force(MASKED.to_owned(), Some(hash_bytes(revealed.as_bytes())));
        secret
    }

    pub(crate) fn socket(&self, default: Option<SocketAddr>, host: IpAddr) -> Option<SocketAddr> {
        let shown = default.map(|address| address.to_string());
        let schema = json!({ "type": ["integer", "string"], "examples": [3001, "127.0.0.1:3001"] });
        self.parsed(schema, shown.as_deref(), |text| values::socket(text, host)).or(default)
    }

    /// A port, an address, or `unix:/path`.
    pub(crate) fn address(&self, default: Option<Address>, host: IpAddr) -> Option<Address> {
        let shown = default.as_ref().map(ToString::to_string);
        let schema =
            json!({ "type": ["integer", "string"], "examples": [3001, "127.0.0.1:3001", "unix:/run/users.sock"] });
        self.parsed(schema, shown.as_deref(), |text| values::address(text, host)).or(default)
    }

    /// A file's path.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let parse = |text: &str| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.into()) };
        self.parsed(json!({ "type": "string", "examples": ["/certs/tls.crt"] }), None, parse)
    }

    /// One of a closed set, in any of its spellings.
    pub(crate) fn choice<T: Clone>(&self, choices: &[(&str, T)], default: Option<&str>) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.describe(json!({ "type": "string", "enum": words }), default);
        let Some(text) = self.scalar() else {
            match default {
                Some(default) if !self.is_set() => self.effective(default.to_owned()),
                _ if self.is_set() => self.error(format!("expected one of {}", words.join(", ")), None),
                _ => (),
            }
            return default.and_then(|default| choose(choices, default));
        };
        let chosen = choose(choices, text);
        if chosen.is_none() {
            let help = suggest(text, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
            let known = format!("known: {}", words.join(", "));
            self.error(
                format!("unknown value `{text}`"),
                Some(help.map_or(known.clone(), |help| format!("{help} {known}"))),
            );
        } else {
            self.effective(text.to_owned());
        }
        chosen
    }

    fn step(&self, step: Step, value: Option<&'t Value>) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { tree: self.tree, path, value, help: "" }
    }

    fn effective(&self, value: String) {
        self.in_force(value, None);
    }

    fn in_force(&self, value: String, fingerprint: Option<u64>) {
        if self.tree.is_describing {
            return;
        }
        let origin = self.tree.origin(&self.path, self.is_set());
        self.tree.effective.borrow_mut().push(Effective { path: self.path(), value, origin, fingerprint });
    }

    fn describe(&self, mut schema: Json, default: Option<&str>) {
        if !self.tree.is_describing || self.path.is_empty() {
            return;
        }
        if !self.help.is_empty() {
            schema["description"] = json!(self.help);
        }
        if let Some(default) = default {
            schema["default"] = json!(default);
        }
        self.tree.fields.borrow_mut().push(Field { path: self.path.clone(), schema });
    }

    fn say(&self, severity: Severity, message: String, help: Option<String>, at_key: bool) {
        let place = self.tree.place(&self.path, at_key);
        self.tree.note(Diagnostic { severity, message, path: self.path(), place, help });
    }
}

fn choose<T: Clone>(choices: &[(&str, T)], text: &str) -> Option<T> {
    let plain = |word: &str| word.replace(['-', '_', ' '], "").to_lowercase();
    choices.iter().find(|(word, _)| plain(word) == plain(text)).map(|(_, value)| value.clone())
}

/// A map with known keys.
#[derive(Debug)]
pub(crate) struct Section<'t> {
    node: Node<'t>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'t> Section<'t> {
    pub(crate) fn field(&self, name: &'static str, help: &'static str) -> Node<'t> {
        self.asked.borrow_mut().push(name);
        let value = self.node.value.and_then(|value| value.entry(name));
        Node { help, ..self.node.step(Step::Key(name.to_owned()), value) }
    }

    pub(crate) fn node(&self) -> &Node<'t> {
        &self.node
    }

    /// Whatever was not asked for is a mistake.
    pub(crate) fn finish(self) {
        let Some(Value::Map(entries)) = self.node.value else { return };
        let asked = self.asked.borrow();
        for (key, value) in entries.iter().filter(|(key, _)| !asked.contains(&key.as_str())) {
            let node = self.node.step(Step::Key(key.clone()), Some(value));
            if PLANNED.contains(&key.as_str()) {
                node.key_error(format!("`{key}` is not in this version yet"), None);
                continue;
            }
            let meant = suggest(key, asked.iter().copied()).map(|name| format!("did you mean `{name}`? "));
            let help = format!("{}fields here: {}", meant.unwrap_or_default(), asked.join(", "));
            node.key_error(format!("unknown field `{key}`"), Some(help));
        }
    }
}

/// Text by text, for maps such as `meta`.
pub(crate) fn texts(node: &Node<'_>) -> BTreeMap<String, String> {
    node.entries().into_iter().filter_map(|entry| Some((entry.name(), entry.text(None)?))).collect()
}
