//! JSON that says one thing: RFC 8259 by serde_json, and no member twice, no deeper and no wider than a token may be.
//!
//! RFC 7515, section 4 and RFC 7519, section 4 let a reader refuse a name that stands twice or take the last; who verifies and who uses a
//! token may differ, so it is refused (RFC 8725, section 2.4 has the kind). Names are compared after their escapes are read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::refusal::Why;

/// How deep objects and lists may stand in one another, the outermost one counted.
pub const MAX_DEPTH: usize = 16;
/// How many members all objects of one text may have together.
pub const MAX_MEMBERS: usize = 256;

/// The members of an object.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, Why> {
    match read(text, MAX_DEPTH, MAX_MEMBERS)? {
        Value::Object(members) => Ok(members),
        _ => Err(Why::Json),
    }
}

/// Any value, no deeper than that, and no wider.
pub(crate) fn read(text: &[u8], max_depth: usize, max_members: usize) -> Result<Value, Why> {
    let state = State { max_depth, max_members, members: Cell::new(0), broke: Cell::new(None) };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = At { state: &state, depth: 0 }.deserialize(&mut reader);
    let read = value.and_then(|value| reader.end().map(|()| value));
    read.map_err(|_| state.broke.get().unwrap_or(Why::Json))
}

/// What is known of the whole text while it is read.
struct State {
    max_depth: usize,
    max_members: usize,
    members: Cell<usize>,
    /// Which rule of ours was broken; serde_json's error has only text.
    broke: Cell<Option<Why>>,
}

/// A value that stands in so many others.
#[derive(Clone, Copy)]
struct At<'s> {
    state: &'s State,
    depth: usize,
}

impl At<'_> {
    fn broke<E: serde::de::Error>(self, why: Why) -> E {
        self.state.broke.set(Some(why));
        E::custom(why.word())
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == self.state.max_depth {
            Err(self.broke(Why::TooDeep))
        } else {
            Ok(Self { depth: self.depth + 1, ..self })
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            self.state.members.set(self.state.members.get() + 1);
            if self.state.members.get() > self.state.max_members {
                return Err(self.broke(Why::TooManyMembers));
            }
            if members.contains_key(&name) {
                return Err(self.broke(Why::Duplicate));
            }
            let value = object.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_one_thing_or_is_refused() {
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let wide = |count: usize| {
            let members: Vec<_> = (0..count).map(|number| format!("\"{number}\":1")).collect();
            format!("{{{}}}", members.join(","))
        };
        let table = [
            ("{}".to_owned(), None),
            (r#" {"a": [1, -2, 2.5, "x", null, true, {"a": {}}]} "#.to_owned(), None),
            (deep(MAX_DEPTH), None),
            (deep(MAX_DEPTH + 1), Some(Why::TooDeep)),
            (deep(4000), Some(Why::TooDeep)),
            (wide(MAX_MEMBERS), None),
            (wide(MAX_MEMBERS + 1), Some(Why::TooManyMembers)),
            (format!(r#"{{"a":{},"b":{}}}"#, wide(127), wide(128)), Some(Why::TooManyMembers)),
            (r#"{"a":1,"a":1}"#.to_owned(), Some(Why::Duplicate)),
            (r#"{"exp":1,"\u0065xp":2}"#.to_owned(), Some(Why::Duplicate)),
            (r#"{"a":{"b":1,"b":2}}"#.to_owned(), Some(Why::Duplicate)),
            (r#"{"a":[{"b":{"c":1,"c":2}}]}"#.to_owned(), Some(Why::Duplicate)),
            (r#"{"":1,"":2}"#.to_owned(), Some(Why::Duplicate)),
            (r#"{"a":1,"A":2}"#.to_owned(), None),
            (String::new(), Some(Why::Json)),
            ("[]".to_owned(), Some(Why::Json)),
            ("1".to_owned(), Some(Why::Json)),
            ("null".to_owned(), Some(Why::Json)),
            (r#""{}""#.to_owned(), Some(Why::Json)),
            (r#"{"a":1}x"#.to_owned(), Some(Why::Json)),
            (r#"{"a":1}{}"#.to_owned(), Some(Why::Json)),
            (r#"{"a":1,}"#.to_owned(), Some(Why::Json)),
            ("{a:1}".to_owned(), Some(Why::Json)),
            ("{'a':1}".to_owned(), Some(Why::Json)),
            (r#"{"a":01}"#.to_owned(), Some(Why::Json)),
            (r#"{"a":NaN}"#.to_owned(), Some(Why::Json)),
            (r#"{"a":1e400}"#.to_owned(), Some(Why::Json)),
            (r#"{"a":"\ud800"}"#.to_owned(), Some(Why::Json)),
            ("{\"a\":\"\n\"}".to_owned(), Some(Why::Json)),
            ("\u{feff}{}".to_owned(), Some(Why::Json)),
            ("{} // x".to_owned(), Some(Why::Json)),
        ];
        for (text, refused) in table {
            assert_eq!(object(text.as_bytes()).err(), refused, "{}", &text[..text.len().min(80)]);
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(Why::Json), "not UTF-8");
    }
}
