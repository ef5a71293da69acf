//! Several issuers: each token is judged by one entry, whatever the others would say.

use std::sync::Arc;
use std::time::Duration;

use lictor_jose::{Algorithm, Family, Issuer, Issuers, KeySet, Keys, Mistake, Trusted, Why, jwks, verify};
use serde_json::{Value, json};

use super::signer::{self, encode, mac, usual};
use super::{at, claims, issuer, keys, now, refused, with};

fn entry(name: &str, iss: Option<&str>, algorithm: Algorithm, keys: KeySet) -> Trusted {
    let issuer = Issuer {
        name: name.into(),
        iss: iss.map(str::to_owned),
        algorithms: vec![algorithm],
        audiences: vec![name.to_owned()],
        ..Issuer::default()
    };
    Trusted::new(Arc::new(issuer), Keys::Known(Arc::new(keys)))
}

fn set(jwk: Value) -> KeySet {
    jwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap().keys
}

#[test]
fn one_kid_of_two_issuers_is_two_keys() {
    let named = |algorithm: Algorithm| {
        let mut jwk = signer::jwk(algorithm);
        jwk["kid"] = "1".into();
        set(jwk)
    };
    let a = entry("a", Some("https://a.example"), Algorithm::ES256, named(Algorithm::ES256));
    let b = entry("b", Some("https://b.example"), Algorithm::Ed25519, named(Algorithm::Ed25519));
    for entries in [vec![a.clone(), b.clone()], vec![b, a]] {
        let issuers = Issuers::new(entries).unwrap();
        for (signed, iss, aud, expected) in [
            (Algorithm::ES256, "https://a.example", "a", None),
            (Algorithm::Ed25519, "https://b.example", "b", None),
            (Algorithm::ES256, "https://b.example", "b", Some(Why::Algorithm)),
            (Algorithm::Ed25519, "https://a.example", "a", Some(Why::Algorithm)),
            (Algorithm::ES256, "https://a.example", "b", Some(Why::Audience)),
            (Algorithm::ES256, "https://c.example", "a", Some(Why::Issuer)),
        ] {
            let header = json!({"alg": signed.name(), "kid": "1"}).to_string();
            let token = signer::token(signed, &header, &with(json!({"iss": iss, "aud": aud})).to_string());
            assert_eq!(refused(&token, &issuers), expected, "{signed} {iss} {aud}");
        }
    }
}

/// Two secrets: who has one cannot speak for the other.
#[test]
fn a_secret_speaks_for_its_own_issuer() {
    let secret = |byte: u8| KeySet::secret(&[byte; 32], &[Algorithm::HS256]).unwrap();
    let issuers = Issuers::new(vec![
        entry("a", Some("a"), Algorithm::HS256, secret(b'a')),
        entry("b", Some("b"), Algorithm::HS256, secret(b'b')),
        entry("rest", None, Algorithm::HS256, secret(b'r')),
    ])
    .unwrap();
    for (key, iss, aud, expected) in [
        (b'a', Some("a"), "a", Ok("a")),
        (b'b', Some("b"), "b", Ok("b")),
        (b'b', Some("a"), "a", Err(Why::Signature)),
        (b'r', Some("a"), "rest", Err(Why::Signature)),
        (b'a', None, "a", Err(Why::Signature)),
        (b'a', Some("c"), "a", Err(Why::Signature)),
        // What nobody else takes is the entry's without iss.
        (b'r', None, "rest", Ok("rest")),
        (b'r', Some("c"), "rest", Ok("rest")),
        (b'r', Some(""), "rest", Ok("rest")),
    ] {
        let payload = with(json!({"iss": iss, "aud": aud})).to_string();
        let message = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(payload));
        let token = format!("{message}.{}", encode(mac(ring::hmac::HMAC_SHA256, &[key; 32], message.as_bytes())));
        let found = verify(token.as_bytes(), &issuers, now()).map(|token| token.issuer.name.to_string());
        assert_eq!(found.map_err(|refusal| refusal.why), expected.map(str::to_owned), "{key} {iss:?}");
    }
}

#[test]
fn a_refusal_says_whose_keys_to_fetch() {
    let issuers = Issuers::new(vec![
        entry("a", Some("a"), Algorithm::Ed25519, keys(Family::Ed)),
        entry("b", Some("b"), Algorithm::ES256, keys(Family::Ec)),
    ])
    .unwrap();
    let header = json!({"alg": "ES256", "kid": "new"}).to_string();
    let token = signer::token(Algorithm::ES256, &header, &with(json!({"iss": "b", "aud": "b"})).to_string());
    let refusal = verify(token.as_bytes(), &issuers, now()).unwrap_err();
    assert_eq!((refusal.why, refusal.issuer), (Why::UnknownKey, Some(1)));
}

#[test]
fn entries_that_cannot_be_told_apart_are_a_mistake() {
    let good = || entry("a", Some("a"), Algorithm::Ed25519, keys(Family::Ed));
    let changed = |change: &dyn Fn(&mut Issuer)| {
        let mut issuer = issuer(Family::Ed);
        change(&mut issuer);
        Issuers::new(vec![Trusted::new(Arc::new(issuer), good().keys().clone())])
    };
    assert!(changed(&|_| ()).is_ok());
    assert!(matches!(changed(&|issuer| issuer.algorithms.clear()), Err(Mistake::NoAlgorithm(_))));
    for (one, other) in [
        (Algorithm::HS256, Algorithm::RS256),
        (Algorithm::RS256, Algorithm::ES256),
        (Algorithm::ES256, Algorithm::Ed25519),
        (Algorithm::Ed25519, Algorithm::HS512),
    ] {
        let found = changed(&|issuer| issuer.algorithms = vec![one, other]);
        assert!(matches!(found, Err(Mistake::Families(..))), "{one} {other}");
    }
    for (one, other) in [
        (Algorithm::RS256, Algorithm::PS512),
        (Algorithm::HS256, Algorithm::HS384),
        (Algorithm::ES256, Algorithm::ES384),
    ] {
        assert!(changed(&|issuer| issuer.algorithms = vec![one, other]).is_ok(), "{one} {other}");
    }
    for (seconds, is_good) in [(0, true), (60, true), (61, false), (u64::MAX, false)] {
        assert_eq!(changed(&|issuer| issuer.leeway = Duration::from_secs(seconds)).is_ok(), is_good, "{seconds}");
    }
    assert!(matches!(changed(&|issuer| issuer.iss = Some(String::new())), Err(Mistake::Empty(_))));
    assert!(matches!(changed(&|issuer| issuer.audiences.push(String::new())), Err(Mistake::Empty(_))));
    assert!(matches!(changed(&|issuer| issuer.required.push(String::new())), Err(Mistake::Empty(_))));
    assert!(matches!(changed(&|issuer| issuer.typ = Some(String::new())), Err(Mistake::Empty(_))));
    let others = [
        entry("b", Some("a"), Algorithm::Ed25519, keys(Family::Ed)),
        entry("a", Some("b"), Algorithm::Ed25519, keys(Family::Ed)),
    ];
    for other in others {
        assert!(matches!(Issuers::new(vec![good(), other]), Err(Mistake::Twice(..))));
    }
    let without = |name: &str| entry(name, None, Algorithm::Ed25519, keys(Family::Ed));
    assert!(matches!(Issuers::new(vec![without("b"), good(), without("c")]), Err(Mistake::Twice(..))));
    assert!(Issuers::new(vec![good(), without("b")]).is_ok());
}

#[test]
fn nobody_is_believed_where_nobody_is_named() {
    let issuers = Issuers::new(Vec::new()).unwrap();
    assert_eq!(refused(&usual(Algorithm::HS256, &claims()), &issuers), Some(Why::Issuer));
    assert!(verify(usual(Algorithm::HS256, &claims()).as_bytes(), &issuers, at(0)).is_err());
}
