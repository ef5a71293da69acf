//! A claim as the value of a header field, for who is behind us. What cannot be one without becoming something else is none: a field that is
//! not there refuses by itself, a value that two users share does not.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As it is; only what a field can carry (RFC 9110, section 5.5): visible ASCII, and spaces inside.
    Plain,
    /// Each byte of UTF-8 but letters, digits, `-._~` as `%XX` (RFC 3986, section 2.1), for names of people.
    Percent,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The claim is not there, null or empty: no field.
    Absent,
    /// The value.
    Value(String),
    /// No field, and the log says why.
    Unfit(Unfit),
}

/// Why a claim is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// An object, or a list with something other than texts, numbers and booleans.
    Shape,
    /// A member of a list with a comma, or an empty one: the list would be read as another.
    Comma,
    /// Characters that a field cannot carry, or spaces at an end, which readers take away.
    Characters,
    /// A number that JSON's readers do not all take for the same: not a whole one within 64 bits, and beyond 2^53.
    Number,
}

/// The value of a claim's field.
pub fn field(claim: Option<&Value>, spelling: Spelling) -> Field {
    match claim.map_or(Ok(String::new()), |value| written(value, spelling)) {
        Ok(value) if value.is_empty() => Field::Absent,
        Ok(value) => Field::Value(value),
        Err(unfit) => Field::Unfit(unfit),
    }
}

fn written(value: &Value, spelling: Spelling) -> Result<String, Unfit> {
    let Value::Array(list) = value else { return single(value, spelling) };
    let mut written = String::new();
    for member in list {
        let one = if member.is_null() { return Err(Unfit::Shape) } else { single(member, spelling)? };
        if one.is_empty() || one.contains(',') {
            return Err(Unfit::Comma);
        }
        if !written.is_empty() {
            written.push(',');
        }
        written.push_str(&one);
    }
    Ok(written)
}

fn single(value: &Value, spelling: Spelling) -> Result<String, Unfit> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => number(value),
        Value::String(text) if spelling == Spelling::Percent => Ok(percent(text)),
        Value::String(text) if is_field(text) => Ok(text.clone()),
        Value::String(_) => Err(Unfit::Characters),
        Value::Array(_) | Value::Object(_) => Err(Unfit::Shape),
    }
}

fn number(value: &Number) -> Result<String, Unfit> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value.is_f64() && value.as_f64().is_none_or(|value| value.abs() >= EXACT) {
        return Err(Unfit::Number);
    }
    Ok(value.to_string())
}

fn is_field(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.starts_with(' ') && !text.ends_with(' ')
}

fn percent(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            let _ = write!(written, "%{byte:02X}");
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_says_what_the_claim_says_or_is_not_there() {
        let value = |text: &str| Field::Value(text.to_owned());
        let unfit = Field::Unfit;
        let table = [
            (json!("u-1"), value("u-1")),
            (json!("a b"), value("a b")),
            (json!("a,b"), value("a,b")),
            (json!(7), value("7")),
            (json!(-7), value("-7")),
            (json!(18_446_744_073_709_551_615_u64), value("18446744073709551615")),
            (json!(1.5), value("1.5")),
            (json!(1e300), unfit(Unfit::Number)),
            (json!(18_446_744_073_709_551_616_f64), unfit(Unfit::Number)),
            (json!(true), value("true")),
            (json!(false), value("false")),
            (json!(null), Field::Absent),
            (json!(""), Field::Absent),
            (json!([]), Field::Absent),
            (json!(["a", 1, true]), value("a,1,true")),
            (json!(["admin,root"]), unfit(Unfit::Comma)),
            (json!(["a", ""]), unfit(Unfit::Comma)),
            (json!(["a", null]), unfit(Unfit::Shape)),
            (json!([["a"]]), unfit(Unfit::Shape)),
            (json!([{}]), unfit(Unfit::Shape)),
            (json!({}), unfit(Unfit::Shape)),
            (json!("a\r\nX-Admin: 1"), unfit(Unfit::Characters)),
            (json!("a\n"), unfit(Unfit::Characters)),
            (json!("a\0"), unfit(Unfit::Characters)),
            (json!("a\tb"), unfit(Unfit::Characters)),
            (json!("a\u{7f}"), unfit(Unfit::Characters)),
            (json!("J\u{fc}rgen"), unfit(Unfit::Characters)),
            (json!("admin "), unfit(Unfit::Characters)),
            (json!(" admin"), unfit(Unfit::Characters)),
            (json!(["a", "b\r"]), unfit(Unfit::Characters)),
        ];
        for (claim, expected) in table {
            assert_eq!(field(Some(&claim), Spelling::Plain), expected, "{claim}");
        }
        assert_eq!(field(None, Spelling::Plain), Field::Absent);
        for (claim, expected) in [
            (json!("J\u{fc}rgen M"), value("J%C3%BCrgen%20M")),
            (json!("100%\r\n"), value("100%25%0D%0A")),
            (json!(["a,b", "c"]), value("a%2Cb,c")),
            (json!(""), Field::Absent),
        ] {
            assert_eq!(field(Some(&claim), Spelling::Percent), expected, "{claim}");
        }
    }
}
