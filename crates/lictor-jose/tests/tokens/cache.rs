//! Tokens that are known.

use std::sync::Arc;
use std::time::Duration;

use lictor_jose::cache::{Cache, CacheLimits};
use lictor_jose::rules::Rules;
use lictor_jose::{Algorithm, Family, Issuer, Issuers, Keys, Trusted, Why, jwks};
use serde_json::json;

use super::signer::{self, usual};
use super::{at, claims, issuer, keys, now, of, only, with};

fn cache() -> Cache {
    Cache::new(CacheLimits { ttl: Duration::from_secs(60), ..CacheLimits::default() })
}

/// When it is asked for, and what is said.
type Asks = &'static [(i64, Result<bool, Why>)];

/// Whether it was known, or why it is refused.
fn asked(cache: &mut Cache, token: &str, issuers: &Issuers, seconds: i64) -> Result<bool, Why> {
    cache.verify(token.as_bytes(), issuers, at(seconds)).map(|(_, was_known)| was_known).map_err(|refusal| refusal.why)
}

#[test]
fn a_token_is_known_until_its_time_is_over() {
    let entry = Issuer { leeway: Duration::from_secs(5), ..issuer(Family::Hmac) };
    let issuers = only(entry, keys(Family::Hmac));
    // ttl is 60 s. exp in seconds from now, then when it is asked for and what is said.
    let table: [(i64, Asks); 4] = [
        (300, &[(0, Ok(false)), (1, Ok(true)), (59, Ok(true)), (60, Ok(false)), (61, Ok(true)), (120, Ok(false))]),
        (30, &[(0, Ok(false)), (29, Ok(true)), (30, Ok(false)), (34, Ok(false)), (35, Err(Why::Expired))]),
        (-3, &[(0, Ok(false)), (0, Ok(false)), (2, Err(Why::Expired))]),
        // A clock that is set back finds nothing.
        (300, &[(10, Ok(false)), (11, Ok(true)), (9, Ok(false)), (10, Ok(true))]),
    ];
    for (exp, asks) in table {
        let mut cache = cache();
        let token = usual(Algorithm::HS256, &with(json!({"exp": super::NOW as i64 + exp})));
        for (seconds, expected) in asks {
            assert_eq!(asked(&mut cache, &token, &issuers, *seconds), *expected, "exp {exp}, at {seconds}");
        }
    }
}

#[test]
fn what_is_refused_is_not_kept_and_says_the_same_each_time() {
    let (issuers, mut cache) = (of(Family::Hmac), cache());
    for (token, why) in [
        (usual(Algorithm::HS256, &with(json!({"exp": 1}))), Why::Expired),
        (usual(Algorithm::RS256, &claims()), Why::Algorithm),
        (format!("{}A", usual(Algorithm::HS256, &claims())), Why::Signature),
        ("x".repeat(1 << 20), Why::TooLong),
    ] {
        assert_eq!(asked(&mut cache, &token, &issuers, 0), Err(why));
        assert_eq!(asked(&mut cache, &token, &issuers, 0), Err(why));
    }
    assert!(cache.is_empty());
}

/// Facts are kept, verdicts are not: one token, two routes.
#[test]
fn each_route_judges_for_itself() {
    let (issuers, mut cache) = (of(Family::Hmac), cache());
    let token = usual(Algorithm::HS256, &claims());
    let read = Rules { scopes: vec!["read".to_owned()], ..Rules::default() };
    let admin = Rules { scopes: vec!["admin".to_owned()], ..Rules::default() };
    for round in 0..2 {
        let (verified, was_known) = cache.verify(token.as_bytes(), &issuers, now()).unwrap();
        assert_eq!(was_known, round == 1);
        assert!(read.judge(&verified).is_ok());
        assert_eq!(admin.judge(&verified).unwrap_err().why, Why::Scope);
        assert!(read.judge(&verified).is_ok());
    }
}

/// Another key set, other settings, another entry: nothing of before is found.
#[test]
fn what_an_entry_was_is_no_ground_any_more() {
    let mut cache = cache();
    let token = usual(Algorithm::ES256, &claims());
    let entry = |issuer: Issuer, keys: Keys| Issuers::new(vec![Trusted::new(Arc::new(issuer), keys)]).unwrap();
    let ec = || issuer(Family::Ec);
    let known = || Keys::Known(Arc::new(keys(Family::Ec)));
    let mut other = signer::jwk(Algorithm::ES256);
    other["kid"] = "other".into();
    let without = jwks::parse(json!({"keys": [other]}).to_string().as_bytes()).unwrap().keys;
    for (issuers, expected) in [
        (entry(ec(), known()), Ok(false)),
        (entry(ec(), known()), Ok(true)), // read again, and the same
        (entry(ec(), Keys::Known(Arc::new(without))), Err(Why::UnknownKey)),
        (entry(ec(), Keys::Unavailable), Err(Why::NoKeys)),
        (entry(Issuer { audiences: vec!["other".to_owned()], ..ec() }, known()), Err(Why::Audience)),
        (entry(Issuer { algorithms: vec![Algorithm::ES384], ..ec() }, known()), Err(Why::Algorithm)),
        (entry(Issuer { iss: Some("https://other.example".to_owned()), ..ec() }, known()), Err(Why::Issuer)),
        (entry(Issuer { required: vec!["jti".to_owned()], ..ec() }, known()), Err(Why::MissingClaim)),
        (entry(Issuer { typ: Some("at+jwt".to_owned()), ..ec() }, known()), Err(Why::Type)),
        (entry(Issuer { leeway: Duration::from_secs(6), ..ec() }, known()), Ok(false)),
        (entry(Issuer { name: "other".into(), ..ec() }, known()), Ok(false)),
        (entry(Issuer { audiences: vec!["sho".to_owned(), "papi".to_owned()], ..ec() }, known()), Err(Why::Audience)),
        (entry(ec(), known()), Ok(true)),
        (Issuers::new(Vec::new()).unwrap(), Err(Why::Issuer)),
    ] {
        assert_eq!(asked(&mut cache, &token, &issuers, 0), expected, "{issuers:?}");
    }
}

#[test]
fn tokens_that_differ_in_a_byte_are_two() {
    let (issuers, mut cache) = (of(Family::Hmac), cache());
    let token = usual(Algorithm::HS256, &claims());
    assert_eq!(asked(&mut cache, &token, &issuers, 0), Ok(false));
    for position in 0..token.len() {
        let mut wrong = token.clone().into_bytes();
        wrong[position] ^= 1;
        assert!(cache.verify(&wrong, &issuers, now()).is_err(), "{position}");
    }
    assert_eq!(asked(&mut cache, &token[..token.len() - 1], &issuers, 0), Err(Why::Signature));
    assert_eq!(asked(&mut cache, &token, &issuers, 0), Ok(true));
    assert_eq!(cache.len(), 1);
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let limits = CacheLimits { ttl: Duration::from_secs(60), bytes: 200_000 };
    let (issuers, mut cache) = (of(Family::Hmac), Cache::new(limits));
    let token = |number: usize| {
        usual(Algorithm::HS256, &with(json!({"sub": format!("u-{number}"), "fill": "x".repeat(number % 700)})))
    };
    let used = token(1_000_000);
    assert_eq!(asked(&mut cache, &used, &issuers, 0), Ok(false));
    let mut most = 0;
    for number in 0..2000 {
        assert_eq!(asked(&mut cache, &token(number), &issuers, 0), Ok(false), "{number}");
        if number % 20 == 0 {
            assert_eq!(asked(&mut cache, &used, &issuers, 0), Ok(true), "{number}");
        }
        assert!(cache.bytes() <= limits.bytes);
        most = most.max(cache.len());
    }
    assert!((20..1000).contains(&most), "{most}");
    assert_eq!(asked(&mut cache, &token(0), &issuers, 0), Ok(false), "long gone");
    // Nothing fits into nothing, and everything is believed all the same.
    let mut none = Cache::new(CacheLimits { bytes: 0, ..limits });
    for _ in 0..2 {
        assert_eq!(asked(&mut none, &used, &issuers, 0), Ok(false));
    }
    assert!(none.is_empty() && none.bytes() == 0);
    let mut off = Cache::new(CacheLimits { ttl: Duration::ZERO, ..limits });
    assert_eq!([asked(&mut off, &used, &issuers, 0), asked(&mut off, &used, &issuers, 0)], [Ok(false); 2]);
}
