//! The header of a token (RFC 7515, section 4). Nothing in it is fetched or believed: `jku`, `x5u`, `jwk`, `x5c` and `x5t` are not looked at,
//! because a token does not say which key it is checked by. What would change the meaning of the rest is refused.

use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::refusal::{Refusal, Why};

/// What of it matters.
#[derive(Debug)]
pub(crate) struct Header<'h> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<&'h str>,
    pub(crate) typ: Option<&'h str>,
}

impl<'h> Header<'h> {
    pub(crate) fn read(members: &'h Map<String, Value>) -> Result<Self, Refusal> {
        let refuse = |why, detail: &str| Err(Refusal::new(why, detail));
        if members.contains_key("crit") {
            return refuse(Why::Critical, "crit: no extension is built");
        }
        if members.get("b64").is_some_and(|b64| *b64 != true) {
            return refuse(Why::Unencoded, "b64 is not true");
        }
        if members.contains_key("zip") {
            return refuse(Why::Compressed, "zip: compressed tokens are not read");
        }
        if members.contains_key("enc") {
            return refuse(Why::Encrypted, "enc: encrypted tokens are not read");
        }
        if text(members, "cty")?.is_some_and(|cty| is_type(cty, "JWT")) {
            return refuse(Why::Nested, "cty: a token in a token is not read");
        }
        let Some(name) = text(members, "alg")? else { return refuse(Why::Header, "alg is not there") };
        if name.eq_ignore_ascii_case("none") {
            return refuse(Why::Unsigned, "alg is none");
        }
        let Some(algorithm) = Algorithm::parse(name) else { return refuse(Why::Algorithm, "alg is not known") };
        Ok(Self { algorithm, key_id: text(members, "kid")?, typ: text(members, "typ")? })
    }
}

fn text<'h>(members: &'h Map<String, Value>, name: &str) -> Result<Option<&'h str>, Refusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::new(Why::Header, format!("{name} is not text"))),
    }
}

/// Whether one media type is the other: without regard to case, and with `application/` left out or not (RFC 7515, section 4.1.9).
pub(crate) fn is_type(one: &str, other: &str) -> bool {
    fn short(name: &str) -> &str {
        match name.split_at_checked(12) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") && !rest.contains('/') => rest,
            _ => name,
        }
    }
    short(one).eq_ignore_ascii_case(short(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_several_spellings() {
        for (one, other, expected) in [
            ("JWT", "jwt", true),
            ("application/JWT", "jwt", true),
            ("APPLICATION/at+JWT", "at+jwt", true),
            ("at+jwt", "application/at+jwt", true),
            ("at+jwt", "jwt", false),
            ("text/jwt", "jwt", false),
            ("application/a/jwt", "a/jwt", false),
            ("", "jwt", false),
            ("\u{e4}pplication/jwt", "jwt", false),
        ] {
            assert_eq!(is_type(one, other), expected, "{one} {other}");
        }
    }
}
