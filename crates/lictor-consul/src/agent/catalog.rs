//! What services claim by their tags, of the list of all services.

use std::collections::HashSet;
use std::fmt;

use lictor_config::{Consistency, Tagged};
use lictor_core::gateway::claim::TEXT_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::blocking::Ask;
use super::connection::{Answer, Connection};
use super::error::ConsulError;

/// No more claims of all services are taken.
const CLAIMS_MAX: usize = 20_000;
/// Nor of one.
const OF_A_SERVICE: usize = 32;
/// How Consul calls the sidecar of a service, to which it copies the service's tags.
const SIDECAR: &str = "-sidecar-proxy";

/// The tags of all services that begin with `tag` and `=`, once they are others.
pub(crate) async fn get(
    connection: &mut Connection,
    tag: &str,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, Vec<Tagged>), ConsulError> {
    let more: Vec<(&str, &str)> = datacenter.map(|datacenter| ("dc", datacenter)).into_iter().collect();
    let answer = connection.query("/v1/catalog/services", ask, consistency, &more).await?.accepted()?;
    let claims = parse(&answer.body, tag).map_err(|error| ConsulError::Decode(error.to_string()))?;
    Ok((answer, claims))
}

/// `{"orders": ["lictor.route=/api/orders/*", ..], ..}`: whatever else is in it is never there at once.
pub(crate) fn parse(body: &[u8], tag: &str) -> Result<Vec<Tagged>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut claims = Reading { tag }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    claims.sort_by(|a, b| (&a.service, &a.text).cmp(&(&b.service, &b.text)));
    claims.dedup();
    let own: HashSet<Tagged> = claims.iter().cloned().collect();
    claims.retain(|claim| {
        let of = claim.service.strip_suffix(SIDECAR);
        !of.is_some_and(|of| own.contains(&Tagged { service: of.to_owned(), text: claim.text.clone() }))
    });
    Ok(claims)
}

struct Reading<'a> {
    tag: &'a str,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Vec<Tagged>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Tagged>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Vec<Tagged>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of services to their tags")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vec<Tagged>, A::Error> {
        let mut claims = Vec::new();
        while let Some((service, tags)) = entries.next_entry::<String, Option<Vec<String>>>()? {
            let texts = tags.iter().flatten().filter_map(|tag| tag.strip_prefix(self.tag)?.strip_prefix('='));
            // One character more than it may have is enough to see that it is too long.
            let claim =
                |text: &str| Tagged { service: service.clone(), text: text.chars().take(TEXT_MAX + 1).collect() };
            claims.extend(texts.take(OF_A_SERVICE).map(claim));
            if claims.len() > CLAIMS_MAX {
                return Err(A::Error::custom(format!("services claim more than {CLAIMS_MAX} routes by their tags")));
            }
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Vec<(String, String)> {
        parse(body.as_bytes(), "lictor.route").unwrap().into_iter().map(|claim| (claim.service, claim.text)).collect()
    }

    #[test]
    fn of_all_tags_those_are_taken_that_claim_a_route() {
        for (body, expected) in [
            ("{}", &[][..]),
            (r#"{"consul":[],"a":null,"b":["v1","lictor.route","lictor.routes=/x","Lictor.route=/x"]}"#, &[]),
            (
                r#"{"b":["lictor.route=/b","v1"],"a":["lictor.route=/a strip=/a"]}"#,
                &[("a", "/a strip=/a"), ("b", "/b")],
            ),
            (r#"{"a":["lictor.route="]}"#, &[("a", "")]),
            // Consul gives a sidecar its service's tags.
            (r#"{"a":["lictor.route=/a"],"a-sidecar-proxy":["lictor.route=/a"]}"#, &[("a", "/a")]),
            (r#"{"a-sidecar-proxy":["lictor.route=/a"]}"#, &[("a-sidecar-proxy", "/a")]),
            (
                r#"{"a":["lictor.route=/a"],"a-sidecar-proxy":["lictor.route=/b"]}"#,
                &[("a", "/a"), ("a-sidecar-proxy", "/b")],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|(one, two)| ((*one).to_owned(), (*two).to_owned())).collect();
            assert_eq!(read(body), expected, "{body}");
        }
        for wrong in ["", "null", "[]", r#"{"a":"b"}"#, r#"{"a":[1]}"#, r#"{"a":[]"#, "{} {}"] {
            assert!(parse(wrong.as_bytes(), "lictor.route").is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let tag = |number: usize| format!("\"lictor.route=/{number}\"");
        let many = (0..100).map(tag).collect::<Vec<_>>().join(",");
        assert_eq!(read(&format!("{{\"a\":[{many}]}}")).len(), OF_A_SERVICE);
        let long = read(&format!("{{\"a\":[\"lictor.route=/{}\"]}}", "\u{fc}".repeat(9999)));
        assert_eq!(long[0].1.chars().count(), TEXT_MAX + 1);
        let services = |count: usize| {
            let all: Vec<_> = (0..count).map(|number| format!("\"s{number}\":[{}]", tag(number))).collect();
            format!("{{{}}}", all.join(","))
        };
        assert_eq!(read(&services(CLAIMS_MAX)).len(), CLAIMS_MAX);
        assert!(parse(services(CLAIMS_MAX + 1).as_bytes(), "lictor.route").is_err());
    }
}
