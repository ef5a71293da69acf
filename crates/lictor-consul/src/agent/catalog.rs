//! The list of all services, and what they claim by their tags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lictor_config::{Consistency, Names, Tagged};
use lictor_core::gateway::claim::TEXT_MAX;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::blocking::Ask;
use super::connection::{Answer, Connection};
use super::error::ConsulError;

/// No more claims are taken of those who may claim something.
const CLAIMS_MAX: usize = 20_000;
/// Nor of the others, which are no routes and are told.
const STRANGERS_MAX: usize = 1000;
/// Nor of one service.
const OF_A_SERVICE: usize = 32;
/// How Consul calls the sidecar of a service, to which it copies the service's tags.
const SIDECAR: &str = "-sidecar-proxy";

/// Tags that begin as it was asked for.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Those that are kept, by service and text.
    pub(crate) list: Vec<Tagged>,
    /// How many more there are.
    pub(crate) cut: usize,
}

/// All services, with the tags of all their instances.
pub(crate) async fn services(
    connection: &mut Connection,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
) -> Result<BTreeMap<String, Option<Vec<String>>>, ConsulError> {
    let more: Vec<(&str, &str)> = datacenter.map(|datacenter| ("dc", datacenter)).into_iter().collect();
    let answer = connection.query("/v1/catalog/services", ask, consistency, &more).await?.accepted()?;
    serde_json::from_slice(&answer.body).map_err(|error| ConsulError::Decode(error.to_string()))
}

/// The tags of all services that begin with `tag` and `=`, once they are others.
pub(crate) async fn get(
    connection: &mut Connection,
    (tag, may): (&str, &Names),
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, Claimed), ConsulError> {
    let more: Vec<(&str, &str)> = datacenter.map(|datacenter| ("dc", datacenter)).into_iter().collect();
    let answer = connection.query("/v1/catalog/services", ask, consistency, &more).await?.accepted()?;
    let claims = parse(&answer.body, tag, may).map_err(|error| ConsulError::Decode(error.to_string()))?;
    Ok((answer, claims))
}

/// `{"orders": ["lictor.route=/api/orders/*", ..], ..}`: whatever else is in it is never there at once. Which claims are kept
/// does not hang on the order in which Consul has services and tags, and strangers take no room from those who may claim.
pub(crate) fn parse(body: &[u8], tag: &str, may: &Names) -> Result<Claimed, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let Reading { mut own, mut strangers, sidecars, .. } = Reading::new(tag, may).deserialize(&mut deserializer)?;
    deserializer.end()?;
    for claim in sidecars.kept {
        let of = claim.service.strip_suffix(SIDECAR).unwrap_or_default();
        let original = Tagged { service: of.to_owned(), text: claim.text.clone() };
        if !own.kept.contains(&original) && !strangers.kept.contains(&original) {
            let kept = if may.has(&claim.service) { &mut own } else { &mut strangers };
            kept.add(claim);
        }
    }
    let cut = own.cut + strangers.cut + sidecars.cut;
    own.kept.append(&mut strangers.kept);
    Ok(Claimed { list: own.kept.into_iter().collect(), cut })
}

/// The first claims by service and text, up to so many.
struct First {
    most: usize,
    kept: BTreeSet<Tagged>,
    cut: usize,
}

impl First {
    fn new(most: usize) -> Self {
        Self { most, kept: BTreeSet::new(), cut: 0 }
    }

    fn add(&mut self, claim: Tagged) {
        self.kept.insert(claim);
        if self.kept.len() > self.most {
            self.kept.pop_last();
            self.cut += 1;
        }
    }
}

struct Reading<'a> {
    tag: &'a str,
    /// Who may claim something.
    may: &'a Names,
    own: First,
    strangers: First,
    /// Which of them are copies shows at the end.
    sidecars: First,
}

impl<'a> Reading<'a> {
    fn new(tag: &'a str, may: &'a Names) -> Self {
        let (own, strangers, sidecars) =
            (First::new(CLAIMS_MAX), First::new(STRANGERS_MAX), First::new(CLAIMS_MAX + STRANGERS_MAX));
        Self { tag, may, own, strangers, sidecars }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of services to their tags")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        while let Some((service, tags)) = entries.next_entry::<String, Option<Vec<String>>>()? {
            let texts = tags.iter().flatten().filter_map(|tag| tag.strip_prefix(self.tag)?.strip_prefix('='));
            // One byte more than it may have is enough to see that it is too long.
            let mut texts: Vec<&str> = texts.map(|text| &text[..text.ceil_char_boundary(TEXT_MAX + 1)]).collect();
            texts.sort_unstable();
            texts.dedup();
            let kept = if service.ends_with(SIDECAR) {
                &mut self.sidecars
            } else if self.may.has(&service) {
                &mut self.own
            } else {
                &mut self.strangers
            };
            kept.cut += texts.len().saturating_sub(OF_A_SERVICE);
            for text in texts.into_iter().take(OF_A_SERVICE) {
                kept.add(Tagged { service: service.clone(), text: text.to_owned() });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Vec<(String, String)> {
        let claims = parse(body.as_bytes(), "lictor.route", &["own"].into_iter().collect()).unwrap().list;
        claims.into_iter().map(|claim| (claim.service, claim.text)).collect()
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
            assert!(parse(wrong.as_bytes(), "lictor.route", &Names::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let tag = |number: usize| format!("\"lictor.route=/{number}\"");
        let many = (0..100).map(tag).collect::<Vec<_>>().join(",");
        assert_eq!(read(&format!("{{\"a\":[{many}]}}")).len(), OF_A_SERVICE);
        let long = read(&format!("{{\"a\":[\"lictor.route=/{}\"]}}", "\u{fc}".repeat(9999)));
        assert!((TEXT_MAX + 1..TEXT_MAX + 5).contains(&long[0].1.len()), "{}", long[0].1.len());
        let services = |name: &str, count: usize| {
            let all: Vec<_> = (0..count).map(|number| format!("\"{name}{number}\":[{}]", tag(number))).collect();
            all.join(",")
        };
        for (body, own, strangers, cut) in [
            (services("own", CLAIMS_MAX), CLAIMS_MAX, 0, 0),
            (services("own", CLAIMS_MAX + 1), CLAIMS_MAX, 0, 1),
            (services("a", STRANGERS_MAX), 0, STRANGERS_MAX, 0),
            // Whoever may claim keeps what is his, wherever he stands.
            (format!("{},{}", services("a", 30_000), services("own", 2)), 2, STRANGERS_MAX, 29_000),
            (format!("{},{}", services("own", 2), services("z", 30_000)), 2, STRANGERS_MAX, 29_000),
        ] {
            let read =
                parse(format!("{{{body}}}").as_bytes(), "lictor.route", &["own*"].into_iter().collect()).unwrap();
            let of_own = read.list.iter().filter(|claim| claim.service.starts_with("own")).count();
            assert_eq!((of_own, read.list.len() - of_own, read.cut), (own, strangers, cut));
        }
    }

    #[test]
    fn the_order_of_services_and_tags_says_nothing() {
        let tags = |numbers: &mut dyn Iterator<Item = usize>| {
            let all: Vec<_> = numbers.map(|number| format!("\"lictor.route=/{number}\"")).collect();
            all.join(",")
        };
        for name in ["own", "stranger", "own-sidecar-proxy"] {
            let [forth, back] = [tags(&mut (0..100)), tags(&mut (0..100).rev())].map(|tags| {
                let service = format!("\"{name}\":[{tags}]");
                [
                    format!("{{{service},\"b\":[\"lictor.route=/b\"]}}"),
                    format!("{{\"b\":[\"lictor.route=/b\"],{service}}}"),
                ]
            });
            let all = [&forth[0], &forth[1], &back[0], &back[1]].map(|body| read(body));
            assert!(all.iter().all(|one| *one == all[0]) && all[0].len() == OF_A_SERVICE + 1, "{name}: {all:?}");
        }
        let copy = r#"{"own-sidecar-proxy":["lictor.route=/a"],"own":["lictor.route=/a"]}"#;
        assert_eq!(read(copy), [("own".to_owned(), "/a".to_owned())]);
    }
}
