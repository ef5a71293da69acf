//! The calls that read the tree. Each notes the value in force with its origin, the mistake if there is one, and the
//! key's page in the schema.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lictor_core::balance::hash_bytes;
use lictor_core::{Address, Secret};
use serde_json::{Value as Json, json};

use super::{Effective, Field, MASKED, Tree, is_off};
use crate::diagnose::{Place, Severity, suggest};
use crate::value::{Step, Value, show};
use crate::values;

/// Keys that the product will have: said so, rather than "unknown".
const PLANNED: [&str; 2] = ["chaos", "near"];

/// A key with its value, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    tree: &'t Tree,
    path: Vec<Step>,
    value: Option<&'t Value>,
    help: &'static str,
    /// It is off: it is read for its schema, and nothing of it is in force.
    is_idle: bool,
}

impl<'t> Node<'t> {
    /// The whole tree.
    pub(super) fn root(tree: &'t Tree, value: &'t Value) -> Self {
        Self { tree, path: Vec::new(), value: Some(value), help: "", is_idle: false }
    }

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
            Some(Value::Scalar(text)) => Some(text),
            _ => None,
        }
    }

    /// `off`, `false` or `none`.
    pub(crate) fn is_off(&self) -> bool {
        self.scalar().is_some_and(is_off)
    }

    /// The value as that of a key within it, which it is short for.
    pub(crate) fn short_for(&self, key: &'static str) -> Self {
        self.step(Step::Key(key.into()), self.value)
    }

    /// What is written at a key within it, whoever reads it otherwise.
    pub(crate) fn below(&self, key: &'static str) -> Self {
        self.step(Step::Key(key.into()), self.value.and_then(|value| value.entry(key)))
    }

    /// Reads once more what was read before: nothing of it is told again.
    pub(crate) fn again<T>(&self, read: impl FnOnce() -> T) -> T {
        let was = self.tree.is_again.replace(true);
        let value = read();
        self.tree.is_again.set(was);
        value
    }

    /// Whether keys are read for their schema.
    pub(crate) fn is_describing(&self) -> bool {
        self.tree.is_describing
    }

    /// The key of something that is off unless it is written, or `is_on` without that: then none of its values is in force.
    pub(crate) fn off_unless(&self, is_on: bool) -> Self {
        Self { is_idle: self.is_idle || !(is_on || self.is_set()), ..self.clone() }
    }

    /// The key as if nothing had been written.
    pub(crate) fn unset(&self) -> Self {
        Self { value: None, ..self.clone() }
    }

    /// Of keys that say the same in different ways, those of the last of the sources that say any of them: flags come after
    /// variables, those after KV, and that after the files. The others are as if nothing had been written.
    pub(crate) fn of_the_last_source<const N: usize>(nodes: [Self; N]) -> [Self; N] {
        let rank = |node: &Self| node.is_set().then(|| node.tree.rank(&node.path));
        let last = nodes.iter().filter_map(rank).max();
        nodes.map(|node| if rank(&node) < last { node.unset() } else { node })
    }

    /// The last key of the path.
    pub(crate) fn name(&self) -> String {
        match self.path.last() {
            Some(Step::Key(key)) => key.to_string(),
            _ => String::new(),
        }
    }

    /// Whether a variable says it whose name is not lictor's alone.
    pub(crate) fn is_others(&self) -> bool {
        self.is_set() && self.tree.is_others(&self.path)
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

    pub(crate) fn key_warn(&self, message: impl Into<String>, help: Option<String>) {
        self.say(Severity::Warning, message.into(), help, true);
    }

    /// Where the key is.
    pub(crate) fn place(&self) -> Place {
        self.tree.place(&self.path, true)
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
        Section { node: self.clone(), short: None, asked: RefCell::default() }
    }

    /// The same, where a single value is short for a map with that at this key.
    pub(crate) fn section_or_short(&self, key: &'static str, shorthand: &[Json]) -> Section<'t> {
        match self.value {
            Some(value @ Value::Scalar(..)) => Section { short: Some((key, value)), ..self.unset().section(shorthand) },
            _ => self.section(shorthand),
        }
    }

    /// The entries of a map with free keys.
    pub(crate) fn entries(&self) -> Vec<Self> {
        self.describe(json!({ "type": "object" }), None);
        match self.value {
            _ if self.tree.is_describing => vec![self.step(Step::Key("*".into()), None)],
            Some(Value::Map(entries)) => {
                entries.iter().map(|(key, value)| self.step(Step::Key(key.clone().into()), Some(value))).collect()
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
        self.elements_of(json!({ "type": ["array", "string", "number"] }))
    }

    /// The same; where nothing is written, so many that are not.
    pub(crate) fn elements_or(&self, usual: usize) -> Vec<Self> {
        if self.is_set() || self.is_describing() {
            return self.elements();
        }
        (0..usual).map(|index| self.step(Step::Index(index), None)).collect()
    }

    /// The elements of a list, or the entries of a map with free keys, which is short for it.
    pub(crate) fn elements_or_entries(&self) -> Vec<Self> {
        if self.is_map() { self.entries() } else { self.elements_of(json!({ "type": ["array", "object"] })) }
    }

    /// The elements of a list of maps; one map alone is a list of one.
    pub(crate) fn maps(&self) -> Vec<Self> {
        let schema = json!({ "type": ["array", "object"] });
        if self.is_map() {
            self.describe(schema, None);
            return vec![self.clone()];
        }
        self.elements_of(schema)
    }

    fn elements_of(&self, schema: Json) -> Vec<Self> {
        self.describe(schema, None);
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
        self.parsed_as(schema, default, |text| parse(text).map(|value| (value, None)))
    }

    /// The same of a value that may hold a secret, and is then shown in other words.
    pub(crate) fn parsed_as<T>(
        &self,
        schema: Json,
        default: Option<&str>,
        parse: impl FnOnce(&str) -> Result<(T, Option<String>), String>,
    ) -> Option<T> {
        self.describe(schema, default);
        match self.value {
            None | Some(Value::Null) => {
                if let Some(default) = default {
                    self.effective(default.to_owned());
                }
                None
            }
            Some(Value::Scalar(text)) => match parse(text) {
                Ok((value, None)) => {
                    self.effective(text.clone());
                    Some(value)
                }
                Ok((value, Some(shown))) => {
                    self.in_force(shown, Some(hash_bytes(text.as_bytes())));
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
        self.integer_within(default, least, u32::MAX)
    }

    /// The same, and at most `most`.
    pub(crate) fn integer_within(&self, default: u32, least: u32, most: u32) -> u32 {
        let parse = |text: &str| match text.trim().parse::<u32>() {
            Ok(number) if number > most => Err(format!("{number} is too large: at most {most}")),
            Ok(number) if number >= least => Ok(number),
            Ok(number) => Err(format!("{number} is too small: at least {least}")),
            Err(_) => Err(format!("`{text}` is not a whole number of at least {least}")),
        };
        let mut schema = json!({ "type": ["integer", "string"], "minimum": least });
        if most < u32::MAX {
            schema["maximum"] = json!(most);
        }
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

    /// Refuses what a rule does.
    pub(crate) fn obeys(&self, rule: Result<(), String>) {
        if let Err(message) = rule {
            self.error(message, None);
        }
    }

    /// Text that no page shows; `file:/path` is read from there.
    pub(crate) fn secret(&self) -> Option<Secret> {
        self.describe(json!({ "type": "string", "examples": ["${TOKEN}", "file:/run/secrets/token"] }), None);
        let text = match self.value {
            None | Some(Value::Null) => return None,
            Some(Value::Scalar(text)) => text,
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

    /// The content of a file that a value names, of at most so many bytes. Another content is another value in force.
    pub(crate) fn content(&self, most: usize) -> Option<Vec<u8>> {
        self.describe(json!({ "type": "string", "examples": ["/etc/lictor/api.pb"] }), None);
        let text = self.scalar().filter(|text| !text.is_empty());
        if self.is_set() && text.is_none() {
            self.error("expected a file's path", None);
        }
        let text = text?;
        let mut content = Vec::new();
        // One byte more says enough of what has no end, such as a device.
        let read = File::open(text).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut content));
        if let Err(error) = read {
            self.error(format!("cannot read {text}: {error}"), None);
            return None;
        }
        if content.len() > most {
            self.error(format!("{text} is too long: {most} bytes are read"), None);
            return None;
        }
        self.in_force(text.to_owned(), Some(hash_bytes(&content)));
        Some(content)
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
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.extend_from_slice(&self.path);
        path.push(step);
        Self { tree: self.tree, path, value, help: "", is_idle: self.is_idle }
    }

    fn effective(&self, value: String) {
        self.in_force(value, None);
    }

    fn in_force(&self, value: String, fingerprint: Option<u64>) {
        if self.tree.is_describing || self.tree.is_again.get() || self.is_idle {
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
        self.tree.say(severity, &self.path, message, help, || self.tree.place(&self.path, at_key));
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
    /// The key that the whole is short for, and its value.
    short: Option<(&'static str, &'t Value)>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'t> Section<'t> {
    pub(crate) fn field(&self, name: &'static str, help: &'static str) -> Node<'t> {
        self.asked.borrow_mut().push(name);
        let short = self.short.filter(|(key, _)| *key == name).map(|(_, value)| value);
        let value = short.or_else(|| self.node.value.and_then(|value| value.entry(name)));
        Node { help, ..self.node.step(Step::Key(name.into()), value) }
    }

    pub(crate) fn node(&self) -> &Node<'t> {
        &self.node
    }

    /// Whether a single value was written, which is short for the map.
    pub(crate) fn is_short(&self) -> bool {
        self.short.is_some()
    }

    /// Whatever was not asked for is a mistake.
    pub(crate) fn finish(self) {
        let Some(Value::Map(entries)) = self.node.value else { return };
        let asked = self.asked.borrow();
        for (key, value) in entries.iter().filter(|(key, _)| !asked.contains(&key.as_str())) {
            let node = self.node.step(Step::Key(key.clone().into()), Some(value));
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
