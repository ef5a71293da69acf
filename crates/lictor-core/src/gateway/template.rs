//! Text of the configuration with places that are filled in for each request: `{name}`, or `{name:what}`.
//!
//! It is read once, when the configuration is. What fills a place is never read again: whatever a client sends is a value and
//! nothing more. Braces around anything else than a name are text, as in JSON.

/// Longer text is refused.
const LENGTH_MAX: usize = 64 << 10;
/// More places are refused.
const PLACES_MAX: usize = 100;

/// Text with places; `V` is what may fill one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<V> {
    parts: Box<[Part<V>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<V> {
    Text(Box<str>),
    Place(V),
}

impl<V> Template<V> {
    /// Reads text; `variable` knows what may stand in a place, by its name and what follows the `:`. In words why not.
    pub fn parse(text: &str, variable: impl Fn(&str, Option<&str>) -> Result<V, String>) -> Result<Self, String> {
        if text.len() > LENGTH_MAX {
            return Err(format!("longer than {LENGTH_MAX} bytes"));
        }
        let (mut parts, mut rest, mut places) = (Vec::new(), text, 0);
        let mut plain = String::new();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            let Some(inner) = place(from) else {
                plain.push('{');
                rest = &from[1..];
                continue;
            };
            let (name, what) = inner.split_once(':').map_or((inner, None), |(name, what)| (name, Some(what)));
            places += 1;
            if places > PLACES_MAX {
                return Err(format!("more than {PLACES_MAX} places"));
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Place(variable(name, what)?));
            rest = &from[inner.len() + 2..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// Writes it. `value` writes what fills a place, or says that there is nothing; then the whole has no meaning: `None`.
    pub fn write(&self, mut value: impl FnMut(&V, &mut Vec<u8>) -> bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Place(variable) if value(variable, &mut out) => (),
                Part::Place(_) => return None,
            }
        }
        Some(out)
    }

    /// What fills its places.
    pub fn places(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// Its text between the places.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(&**text),
            Part::Place(_) => None,
        })
    }
}

/// What stands between the braces that `text` begins with, if it is a name: `a` to `z` and `_`, then perhaps a `:` and no brace.
fn place(text: &str) -> Option<&str> {
    let inner = text[1..].split_once('}')?.0;
    let name = inner.split(':').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_what = |what: &str| !what.is_empty() && what.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
    let what = inner.get(name.len() + 1..);
    (is_name && what.is_none_or(is_what)).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let known = |name: &str, what: Option<&str>| match (name, what) {
            ("a" | "none", None) | ("of", Some(_)) => Ok((name.to_owned(), what.map(str::to_owned))),
            _ => Err(format!("`{{{name}}}` is unknown")),
        };
        let template = Template::parse(text, known)?;
        let made = template.write(|(name, what), out| {
            out.extend_from_slice(what.as_deref().unwrap_or("{a}").as_bytes()); // never read again
            name != "none"
        });
        Ok(made.map_or_else(|| "nothing".to_owned(), |made| String::from_utf8(made).unwrap()))
    }

    #[test]
    fn places_are_filled_once_and_other_braces_are_text() {
        for (text, made) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("{a}", Ok("{a}")),
            ("x{a}y{a}", Ok("x{a}y{a}")),
            ("{of:X-Y}", Ok("X-Y")),
            ("{{a}}", Ok("{{a}}")),
            (r#"{"code": {a}, "of": {}}"#, Ok(r#"{"code": {a}, "of": {}}"#)),
            ("a{color:red;top:0}", Err("`{color}` is unknown")),
            ("p { color: red }", Ok("p { color: red }")),
            ("{", Ok("{")),
            ("{a", Ok("{a")),
            ("}{", Ok("}{")),
            ("{A}", Ok("{A}")),
            ("{of:}", Ok("{of:}")),
            ("{of:a b}", Ok("{of:a b}")),
            ("x{none}y", Ok("nothing")),
            ("{b}", Err("`{b}` is unknown")),
            ("{a:1}", Err("`{a}` is unknown")),
            ("{of}", Err("`{of}` is unknown")),
        ] {
            assert_eq!(filled(text).as_deref(), made.map_err(str::to_owned).as_deref(), "{text}");
        }
        assert!(filled(&"x".repeat(LENGTH_MAX + 1)).is_err());
        assert!(filled(&"{a}".repeat(PLACES_MAX)).is_ok() && filled(&"{a}".repeat(PLACES_MAX + 1)).is_err());
    }
}
