//! Tokens as they come, from friends and from others: tables of what is believed and what is refused, and why.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod attacks;
mod cache;
mod claims;
mod issuers;
mod keys;
mod published;
mod refresh;
mod rules;
mod signer;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lictor_jose::{Algorithm, Family, Issuer, Issuers, KeySet, Keys, Trusted, Verified, Why, jwks, verify};
use serde_json::{Value, json};

/// What time it is.
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    at(0)
}

/// So many seconds from now.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW.saturating_add_signed(seconds))
}

/// Claims that everybody believes who knows the issuer.
fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "shop", "sub": "u-1", "exp": NOW + 300, "scope": "read write", "role": "user"})
}

/// The same with others in place of some; null takes one away.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// One entry of the algorithms of a family.
fn issuer(family: Family) -> Issuer {
    Issuer {
        name: "id".into(),
        iss: Some("https://id.example".to_owned()),
        audiences: vec!["shop".to_owned(), "api".to_owned()],
        algorithms: family.algorithms().collect(),
        leeway: Duration::from_secs(5),
        ..Issuer::default()
    }
}

/// The keys of a family.
fn keys(family: Family) -> KeySet {
    if family == Family::Hmac {
        return KeySet::secret(signer::SECRET, &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]).unwrap();
    }
    let mut known: Vec<Value> = Vec::new();
    for key in family.algorithms().map(signer::jwk) {
        if !known.contains(&key) {
            known.push(key);
        }
    }
    jwks::parse(json!({"keys": known}).to_string().as_bytes()).unwrap().keys
}

fn trusted(issuer: Issuer, keys: KeySet) -> Trusted {
    Trusted::new(Arc::new(issuer), Keys::Known(Arc::new(keys)))
}

fn only(issuer: Issuer, keys: KeySet) -> Issuers {
    Issuers::new(vec![trusted(issuer, keys)]).unwrap()
}

/// The one entry of a family.
fn of(family: Family) -> Issuers {
    only(issuer(family), keys(family))
}

/// What was wrong, if anything.
fn refused(token: &str, issuers: &Issuers) -> Option<Why> {
    verify(token.as_bytes(), issuers, now()).err().map(|refusal| refusal.why)
}

fn believed(token: &str, issuers: &Issuers) -> Verified {
    verify(token.as_bytes(), issuers, now()).unwrap()
}
