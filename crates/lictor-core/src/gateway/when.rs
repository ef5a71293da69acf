//! `when`: of routes that stand at one place, the one for whoever asks, by what is known of him. It is asked once he has shown
//! who he is, and changes nothing of how he does.

use std::cmp::Reverse;
use std::fmt;

use lictor_jose::rules::{Claim, Test};
use serde_json::{Map, Value};

/// What a route asks of claims, each claim once. All of it must hold; nothing is asked of nobody too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When(pub Box<[(Claim, Test)]>);

/// Why no route of a place is for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchosen {
    /// Each asks for something else.
    None,
    /// Two do, which nothing puts in an order: a list of claims may have what either asks for.
    Several,
}

impl When {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is said of whoever asks; `None`: he is nobody.
    pub fn holds(&self, claims: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|(claim, test)| claims.is_some_and(|claims| test.holds(claim.of(claims))))
    }

    /// More claims before fewer, values before mere presence, and what asks for nothing last.
    pub(super) fn order(&self) -> impl Ord + use<> {
        let exact = self.0.iter().filter(|(_, test)| matches!(test, Test::OneOf(_))).count();
        (Reverse(self.0.len()), Reverse(exact))
    }

    /// Whether both may be said of somebody each of whose claims is one value.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        self.0.iter().all(|(claim, wanted)| {
            let theirs = other.0.iter().find(|(known, _)| known == claim).map(|(_, wanted)| wanted);
            match (wanted, theirs) {
                (Test::OneOf(own), Some(Test::OneOf(other))) => own.iter().any(|value| other.contains(value)),
                _ => true,
            }
        })
    }
}

/// `plan = gold | silver, tenant = *`
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (claim, test)) in self.0.iter().enumerate() {
            write!(f, "{}{} = ", if number == 0 { "" } else { ", " }, claim.text())?;
            match test {
                Test::Exists => f.write_str("*")?,
                Test::OneOf(values) => {
                    f.write_str(&values.iter().map(shown).collect::<Vec<_>>().join(" | "))?;
                }
            }
        }
        Ok(())
    }
}

/// As the configuration has it: a text that could be taken for something else in quotes.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text != "*" && serde_json::from_str::<Value>(text).is_err() => text.to_owned(),
        _ => value.to_string(),
    }
}

impl fmt::Display for Unchosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "the claims are not what `when` of any route here asks for",
            Self::Several => "the claims are what `when` of two routes here asks for, and nothing says which is meant",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn when(asked: &[(&str, Value)]) -> When {
        let test = |value: &Value| match value {
            Value::String(text) if text == "*" => Test::Exists,
            Value::Array(values) => Test::OneOf(values.clone()),
            value => Test::OneOf(vec![value.clone()]),
        };
        When(asked.iter().map(|(name, value)| (Claim::parse(name).unwrap(), test(value))).collect())
    }

    #[test]
    fn all_that_is_asked_must_be_said() {
        let gold = when(&[("plan", json!("gold")), ("/org/id", json!([7, 8]))]);
        for (claims, holds) in [
            (json!({"plan": "gold", "org": {"id": 7}}), true),
            (json!({"plan": ["silver", "gold"], "org": {"id": [1, 8]}}), true),
            (json!({"plan": "gold", "org": {"id": "7"}}), false),
            (json!({"plan": "Gold", "org": {"id": 7}}), false),
            (json!({"plan": "gold"}), false),
            (json!({"plan": null, "org": {"id": 7}}), false),
            (json!({}), false),
        ] {
            assert_eq!(gold.holds(claims.as_object()), holds, "{claims}");
        }
        assert!(!gold.holds(None) && !when(&[("plan", json!("*"))]).holds(None), "nobody has no claims");
        assert!(When::default().holds(None) && When::default().holds(json!({}).as_object()));
        assert_eq!(gold.to_string(), "plan = gold, /org/id = 7 | 8");
        assert_eq!(when(&[("a", json!("*")), ("b", json!(true))]).to_string(), "a = *, b = true");
    }

    #[test]
    fn what_asks_for_more_is_before_what_asks_for_less() {
        let order = [
            when(&[("a", json!("1")), ("b", json!("2"))]),
            when(&[("a", json!("1")), ("b", json!("*"))]),
            when(&[("a", json!("*")), ("b", json!("*"))]),
            when(&[("c", json!("1"))]),
            when(&[("c", json!("*"))]),
            When::default(),
        ];
        for pair in order.windows(2) {
            assert!(pair[0].order() < pair[1].order(), "{} before {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn values_of_one_claim_tell_apart_and_other_claims_do_not() {
        for (one, other, may) in [
            (when(&[("a", json!("1"))]), when(&[("a", json!("2"))]), false),
            (when(&[("a", json!(["1", "2"]))]), when(&[("a", json!(["2", "3"]))]), true),
            (when(&[("a", json!(true))]), when(&[("a", json!("true"))]), false),
            (when(&[("a", json!("1"))]), when(&[("b", json!("2"))]), true),
            (when(&[("a", json!("1"))]), when(&[("/a", json!("2"))]), true),
            (when(&[("a", json!("1"))]), when(&[("a", json!("*"))]), true),
            (when(&[("a", json!("1")), ("b", json!("1"))]), when(&[("b", json!("2")), ("c", json!("1"))]), false),
        ] {
            assert_eq!((one.may_meet(&other), other.may_meet(&one)), (may, may), "{one} and {other}");
        }
    }
}
