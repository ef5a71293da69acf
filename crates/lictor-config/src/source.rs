//! YAML: the one module that knows its crate. One walk over what the parser reports makes the value and notes its places,
//! within the bounds; what is beyond them ends the walk, and nothing behind it is read.

use std::collections::HashMap;
use std::rc::Rc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::bounds::{self, At, Spent};
use crate::diagnose::{Diagnostic, Severity};
use crate::places::{Places, Spot, Text, place};
use crate::value::{Step, Value};

/// The key whose maps are laid under the one it stands in (YAML 1.1, "Merge Key").
const MERGE: &str = "<<";

/// Parses a text; what is wrong with it is one diagnostic with its place.
pub(crate) fn parse(text: &Text) -> Result<(Value, Places), Diagnostic> {
    let broken = |(at, message): (At, String)| Diagnostic {
        severity: Severity::Error,
        message: format!("not valid YAML: {message}"),
        path: String::new(),
        place: place(text, at, false),
        help: None,
    };
    let refused = |(at, message): (At, String)| Diagnostic { message, ..broken((at, String::new())) };
    bounds::look(&text.text).map_err(refused)?;
    let mut reader = Reader::default();
    for event in Parser::new_from_str(&text.text) {
        let (event, span) = event.map_err(|error| {
            let message = error.info();
            // Its own bound is met first where one line has it all.
            let message = if message.starts_with("recursion limit") { bounds::too_deep() } else { message.to_owned() };
            broken((position(*error.marker()), message))
        })?;
        let at = position(span.start);
        reader.take(event, at).map_err(|message| broken((reader.fault.unwrap_or(at), message)))?;
    }
    let Node { value, spot, .. } = reader.root.unwrap_or_default();
    Ok((value, Places { text: text.clone(), root: spot }))
}

fn position(marker: Marker) -> At {
    (marker.line().max(1), marker.col() + 1)
}

/// A value with its place, and how many values it is.
#[derive(Clone, Debug)]
struct Node {
    value: Value,
    spot: Spot,
    size: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self { value: Value::Null, spot: Spot { at: (1, 1), ..Spot::default() }, size: 0 }
    }
}

/// A list or map that has not ended.
#[derive(Debug)]
struct Open {
    anchor: usize,
    spot: Spot,
    size: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    List(Vec<Value>),
    Map { entries: IndexMap<String, Value>, key: Option<(String, At)>, merges: Vec<Node> },
}

#[derive(Debug, Default)]
struct Reader {
    open: Vec<Open>,
    /// Whole values with an anchor, by the parser's number.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Node>,
    documents: usize,
    spent: Spent,
    /// Where it is wrong, when that is not where the parser is.
    fault: Option<At>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: At) -> Result<(), String> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err("a second document: one is read".to_owned()) } else { Ok(()) }
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or("the anchor of this alias has not ended")?;
                let node = Rc::clone(node);
                self.spent.on(node.size)?;
                self.whole(Node::clone(&node), 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.spent.on(1)?;
                let value = scalar(&text, style, tag.as_deref());
                self.whole(Node { value, spot: Spot { at, ..Spot::default() }, size: 1 }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, at, Held::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(anchor, at, Held::Map { entries: IndexMap::new(), key: None, merges: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(&mut self, anchor: usize, at: At, held: Held) -> Result<(), String> {
        bounds::depth(self.open.len() + 1)?;
        self.spent.on(1)?;
        self.open.push(Open { anchor, spot: Spot { at, ..Spot::default() }, size: 1, held });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { anchor, mut spot, size, held }) = self.open.pop() else { return Ok(()) };
        let value = match held {
            Held::List(values) => Value::List(values),
            Held::Map { mut entries, merges, .. } => {
                for merged in merges {
                    merge(&mut entries, &mut spot, merged)?;
                }
                Value::Map(entries)
            }
        };
        self.whole(Node { value, spot, size }, anchor)
    }

    /// A value is whole, and goes to where it belongs.
    fn whole(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            // Anchors in one another are kept apart, so what they hold counts for each.
            self.spent.on(node.size)?;
            self.anchors.insert(anchor, Rc::new(node.clone()));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size += node.size;
        match &mut open.held {
            Held::List(values) => {
                open.spot.below.insert(Step::Index(values.len()), node.spot);
                values.push(node.value);
            }
            Held::Map { entries, key, merges } => match key.take() {
                None => {
                    let (text, at) = (key_text(node.value), node.spot.at);
                    bounds::key(&text)?;
                    if entries.contains_key(&text) || (text == MERGE && !merges.is_empty()) {
                        self.fault = Some(at);
                        return Err(format!("duplicate entry with key {text:?}"));
                    }
                    *key = Some((text, at));
                }
                Some((name, _)) if name == MERGE => merges.push(node),
                Some((name, at)) => {
                    open.spot.below.insert(Step::Key(name.clone().into()), Spot { key: Some(at), ..node.spot });
                    entries.insert(name, node.value);
                }
            },
        }
        Ok(())
    }
}

/// Lays a map, or a list of maps, under what is there.
fn merge(entries: &mut IndexMap<String, Value>, spot: &mut Spot, merged: Node) -> Result<(), String> {
    let Node { value, spot: mut from, size } = merged;
    match value {
        Value::Map(more) => {
            for (key, value) in more {
                let step = Step::Key(key.clone().into());
                if let Entry::Vacant(entry) = entries.entry(key) {
                    entry.insert(value);
                    spot.below.extend(from.below.remove(&step).map(|below| (step, below)));
                }
            }
            Ok(())
        }
        Value::List(values) => values.into_iter().enumerate().try_for_each(|(index, value)| match value {
            Value::Map(_) => {
                let spot_of = from.below.remove(&Step::Index(index)).unwrap_or_default();
                merge(entries, spot, Node { value, spot: spot_of, size })
            }
            other => Err(format!("expected a map for merging, found {}", other.kind())),
        }),
        other => Err(format!("expected a map or a list of maps for merging, found {}", other.kind())),
    }
}

fn key_text(value: Value) -> String {
    match value {
        Value::Scalar(text) => text,
        other => other.kind().to_owned(),
    }
}

/// By the core schema (YAML 1.2.2, section 10.3.2), of which whoever reads the value needs this much: what is nothing, and
/// one spelling for what has several.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Value::text(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::text("true"),
        "false" | "False" | "FALSE" => Value::text("false"),
        text => whole_number(text).map_or_else(|| Value::text(text), |number| Value::text(number.to_string())),
    }
}

/// Of another base than ten.
fn whole_number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let bases = [("0x", 16), ("0o", 8), ("0b", 2)];
    let (digits, base) = bases.into_iter().find_map(|(mark, base)| Some((digits.strip_prefix(mark)?, base)))?;
    let number = u64::from_str_radix(digits, base).ok().filter(|_| !digits.starts_with('+'))?;
    Some(sign * i128::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> Result<String, String> {
        let text = Text { name: "test.yaml".to_owned(), text: yaml.to_owned() };
        parse(&text).map(|(value, _)| value.into_json().to_string()).map_err(|mistake| mistake.sentence())
    }

    #[test]
    fn scalars_read_as_they_are_written() {
        for (yaml, value) in [
            ("a: 1.10", "1.10"),
            ("a: 007", "007"),
            ("a: 0x10", "16"),
            ("a: -0o17", "-15"),
            ("a: 0x+1", "0x+1"),
            ("a: 12345678901234567890123", "12345678901234567890123"),
            ("a: True", "true"),
            ("a: yes", "yes"),
            ("a: 'null'", "null"),
            ("a: !!str null", "null"),
            ("a: !mine x", "x"),
            ("a: |\n  x\n", "x\\n"),
        ] {
            assert_eq!(json(yaml), Ok(format!("{{\"a\":\"{value}\"}}")), "{yaml}");
        }
        for nothing in ["a:", "a: ~", "a: NULL", "a: # b", "\u{feff}a:\r\n"] {
            assert_eq!(json(nothing), Ok("{\"a\":null}".to_owned()), "{nothing:?}");
        }
        for empty in ["", "# a", "---", "--- \n..."] {
            assert_eq!(json(empty), Ok("null".to_owned()), "{empty:?}");
        }
    }

    #[test]
    fn merges_lie_under_the_map_that_they_stand_in_and_over_their_own() {
        let yaml = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {z: 3, x: 3}], w: 4}\n";
        let merged = r#"{"a":{"x":"1","y":"1"},"b":{"x":"1","y":"2"},"c":{"w":"4","x":"1","y":"2","z":"3"}}"#;
        assert_eq!(json(yaml), Ok(merged.to_owned()));
        let text = Text { name: "test.yaml".to_owned(), text: yaml.to_owned() };
        let path = ["c", "x"].map(|key| Step::Key(key.into()));
        assert_eq!(parse(&text).unwrap().1.at(&path), (1, 11), "where it is written");
    }

    #[test]
    fn what_is_not_read_is_refused_where_it_is() {
        for (yaml, at) in [
            ("a: 1\nb: 2\na: 3\n", "3:1: not valid YAML: duplicate entry with key \"a\""),
            ("a: 1\n'a': 3\n", "2:1: not valid YAML: duplicate"),
            ("1: 1\n'1': 3\n", "2:1: not valid YAML: duplicate"),
            ("{<<: {}, <<: {}}\n", "1:10: not valid YAML: duplicate"),
            ("a: {<<: 5}\n", "1:"),
            ("a: {<<: [[]]}\n", "1:"),
            ("a: &a [*a]\n", "1:8: not valid YAML: the anchor of this alias"),
            ("a: *b\n", "1:4: not valid YAML"),
            ("a: 1\n---\nb: 2\n", "2:1: not valid YAML: a second document"),
            ("a: 1\n]\n", "2:1: not valid YAML"),
            ("{a: 1} @\n", "1:8: not valid YAML"),
            ("a\0: b", "1:2: the character U+0000"),
        ] {
            let mistake = json(yaml).unwrap_err();
            assert!(mistake.starts_with(&format!("test.yaml:{at}")), "{yaml}: {mistake}");
        }
    }
}
