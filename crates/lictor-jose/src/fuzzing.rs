//! The laws that fuzzing tries to break: each function takes any bytes, and panics when one does not hold. `fuzz/` runs them on new inputs,
//! and the tests here on those that are kept in `fuzz/corpus`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation};
use ring::{hmac, signature};
use serde_json::Value;

use crate::cache::{Cache, CacheLimits};
use crate::jwks::{JwksError, MAX_KEYS};
use crate::source::{Place, Sources};
use crate::{
    Algorithm, Family, Issuer, Issuers, KeySet, Keys, MAX_KEY_ID, Trusted, base64url, crypto, jwks, source, verify,
};

const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// RFC 7515, appendix A.3.1, and RFC 8037, appendix A.1.
const KEYS: &str = r#"{"keys":[
    {"kty":"EC","crv":"P-256","kid":"p256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A secret's tokens have the issuer `hs`, a curve's `ec`, and Ed25519's any other.
fn issuers() -> Issuers {
    let all = |family: Family| family.algorithms().collect::<Vec<_>>();
    let secret = KeySet::secret(SECRET, &all(Family::Hmac)).expect("it is long enough");
    let public = jwks::parse(KEYS.as_bytes()).expect("they are good").keys;
    let entry = |name: &str, iss: Option<&str>, family, keys: &KeySet| {
        let issuer =
            Issuer { name: name.into(), iss: iss.map(str::to_owned), algorithms: all(family), ..Issuer::default() };
        Trusted::new(Arc::new(issuer), Keys::Known(Arc::new(keys.clone())))
    };
    let entries = vec![
        entry("hs", Some("hs"), Family::Hmac, &secret),
        entry("ec", Some("ec"), Family::Ec, &public),
        entry("ed", None, Family::Ed, &public),
    ];
    Issuers::new(entries).expect("they can be told apart")
}

/// What is believed was signed, by a naive reading of it; says what it said; is in its time; is believed by jsonwebtoken as well; and is so each
/// time, known or not. The first byte chooses: a token as it comes, or a header and a payload (two lines) that are signed first.
pub fn token(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let token = if choice % 2 == 0 { rest.to_vec() } else { signed(rest) };
    let issuers = issuers();
    let first = verify(&token, &issuers, now());
    let again = verify(&token, &issuers, now());
    assert_eq!(first.as_ref().err(), again.as_ref().err(), "twice the same");
    let mut cache = Cache::new(CacheLimits::default());
    for _ in 0..2 {
        let (known, again) = (cache.verify(&token, &issuers, now()), first.as_ref());
        assert_eq!(known.as_ref().err(), again.err(), "as without a memory");
        assert_eq!(known.ok().map(|(token, _)| token.claims), again.ok().map(|token| Arc::clone(&token.claims)));
    }
    let Ok(verified) = first else { return };

    let text = std::str::from_utf8(&token).expect("what is believed is text");
    let (message, signature) = text.rsplit_once('.').expect("three parts");
    let (header, payload) = message.split_once('.').expect("three parts");
    let read =
        |part: &str| serde_json::from_slice::<Value>(&base64url::decode(part).expect("base64url")).expect("JSON");
    let (header, payload) = (read(header), read(payload));
    assert_eq!(payload, Value::Object((*verified.claims).clone()));
    assert!(payload["exp"].as_f64().is_some_and(|exp| exp + 5.0 > 1.8e9), "{payload}");
    assert!(payload.get("nbf").is_none_or(|nbf| nbf.as_f64().is_some_and(|nbf| nbf <= 1.8e9 + 5.0)), "{payload}");
    for refused in ["crit", "zip", "enc"] {
        assert!(header.get(refused).is_none(), "{header}");
    }
    let algorithm = header["alg"].as_str().expect("alg");
    let bytes = base64url::decode(signature).expect("base64url");
    assert!(is_ours(algorithm, message.as_bytes(), &bytes, payload["iss"].as_str()), "{header} {payload}");
    is_their_opinion(algorithm, &token);

    let mut wrong = token;
    let last = wrong.len() - 2;
    wrong[last] = if wrong[last] == b'A' { b'B' } else { b'A' };
    assert!(verify(&wrong, &issuers, now()).is_err(), "another signature");
}

/// Two lines: a header and a payload, signed as HS256.
fn signed(lines: &[u8]) -> Vec<u8> {
    let cut = lines.iter().position(|byte| *byte == b'\n').unwrap_or(lines.len());
    let (header, payload) = (&lines[..cut], lines.get(cut + 1..).unwrap_or_default());
    let message = format!("{}.{}", base64url::encode(header), base64url::encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", base64url::encode(tag)).into_bytes()
}

/// By ring alone, with the key of whose it says it is.
fn is_ours(algorithm: &str, message: &[u8], signature: &[u8], iss: Option<&str>) -> bool {
    let mac = |algorithm| hmac::verify(&hmac::Key::new(algorithm, SECRET), message, signature).is_ok();
    let jwks: Value = serde_json::from_str(KEYS).expect("JSON");
    let part =
        |key: usize, name: &str| base64url::decode(jwks["keys"][key][name].as_str().expect("text")).expect("base64url");
    match (algorithm, iss) {
        ("HS256", Some("hs")) => mac(hmac::HMAC_SHA256),
        ("HS384", Some("hs")) => mac(hmac::HMAC_SHA384),
        ("HS512", Some("hs")) => mac(hmac::HMAC_SHA512),
        ("ES256", Some("ec")) => {
            let point = [vec![4], part(0, "x"), part(0, "y")].concat();
            let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
            key.verify(message, signature).is_ok()
        }
        ("EdDSA" | "Ed25519", iss) if !matches!(iss, Some("hs" | "ec")) => {
            signature::UnparsedPublicKey::new(&signature::ED25519, part(1, "x")).verify(message, signature).is_ok()
        }
        _ => false,
    }
}

/// jsonwebtoken reads the clock, knows no `Ed25519` and wants text of members that nobody knows; about the rest it says the same.
fn is_their_opinion(algorithm: &str, token: &[u8]) {
    let Some(known) = Algorithm::parse(algorithm).filter(|known| known.family() == Family::Hmac) else { return };
    crypto::install();
    let mut validation = Validation::new(known.library());
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(SECRET).expect("it is a secret");
    let theirs = jsonwebtoken::decode::<Value>(token, &key, &validation);
    let is_unread = |error: &jsonwebtoken::errors::Error| matches!(error.kind(), ErrorKind::Json(_));
    assert!(theirs.as_ref().err().is_none_or(is_unread), "jsonwebtoken refuses it: {theirs:?}");
}

/// A key of a set is used or told; what is used is for signatures of one family, is no secret, has a name of its own, and checks any
/// signature without a panic.
pub fn keys(bytes: &[u8]) {
    let (first, again) = (jwks::parse(bytes), jwks::parse(bytes));
    let count = |keys: &KeySet, skipped: &[jwks::Skipped]| {
        assert!(keys.len() + skipped.len() <= MAX_KEYS + 1);
        assert!(skipped.windows(2).all(|pair| pair[0].position < pair[1].position));
        // 32 characters of the key, each of which may take ten to be shown.
        assert!(skipped.iter().all(|one| one.why.len() < 400 && !one.why.is_empty()), "{skipped:?}");
    };
    match (&first, &again) {
        (Ok(first), Ok(again)) => {
            assert_eq!((&first.keys, &first.skipped), (&again.keys, &again.skipped));
            count(&first.keys, &first.skipped);
            assert!(!first.keys.is_empty());
        }
        (Err(first), Err(again)) => {
            assert_eq!(first, again);
            if let JwksError::Unusable(skipped) = first {
                count(&KeySet { keys: Vec::new() }, skipped);
            }
        }
        _ => panic!("once this, once that"),
    }
    let Ok(parsed) = first else { return };
    for (at, key) in parsed.keys.keys.iter().enumerate() {
        let family = key.algorithms[0].family();
        assert!(family != Family::Hmac && key.algorithms.iter().all(|algorithm| algorithm.family() == family));
        assert!(key.id.as_deref().is_none_or(|id| id.len() <= MAX_KEY_ID));
        let is_like = |other: &crate::key::Key| {
            other.id.is_some() && other.id == key.id && other.algorithms.iter().any(|one| key.algorithms.contains(one))
        };
        assert!(!parsed.keys.keys[..at].iter().any(is_like), "one name for two");
        for algorithm in Algorithm::ALL {
            for len in [0, 1, 64, 96, 256] {
                assert!(!key.is_signed(b"a.b", &base64url::encode(vec![1; len]), algorithm), "nobody signed that");
            }
        }
    }
}

/// There is one credential or none: what is found stands in the request, is made of a token's characters, and is the only one. Lines: fields of
/// `Authorization` (the first byte of the input says how many), then of `Cookie`, and the last one is the query.
pub fn credentials(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
    let query = lines.pop().and_then(|query| std::str::from_utf8(query).ok());
    let (fields, cookies) = lines.split_at(usize::from(choice % 4).min(lines.len()));
    let sources = Sources { authorization: true, cookie: Some("t".to_owned()), query: Some("t".to_owned()) };
    let ask = |sources: &Sources, query| source::find(sources, fields.iter().copied(), cookies.iter().copied(), query);
    let found = ask(&sources, query);
    if let Ok(found) = found {
        assert!(
            !found.token.is_empty()
                && found.token.bytes().all(|byte| byte.is_ascii_graphic() && !b",;\"\\".contains(&byte))
        );
        let text = found.token.as_bytes();
        let stands_in = |line: &&[u8]| line.windows(text.len()).any(|window| window == text);
        assert!(lines.iter().any(stands_in) || query.is_some_and(|query| query.contains(found.token)));
        // Without the place where it was, there is nothing left.
        let others = match found.place {
            Place::Authorization => Sources { authorization: false, ..sources.clone() },
            Place::Cookie => Sources { cookie: None, ..sources.clone() },
            Place::Query => Sources { query: None, ..sources.clone() },
        };
        assert!(ask(&others, query).is_err(), "a second one");
    }
    if let Some(query) = query {
        let kept = source::without(query, "t");
        assert_eq!(kept.as_deref().and_then(|kept| source::without(kept, "t")), kept, "nothing of it is left");
        let only = Sources { authorization: false, cookie: None, query: Some("t".to_owned()) };
        assert!(ask(&only, kept.as_deref()).is_err());
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn every_kept_input_keeps_the_laws() {
        replay("token", token);
        replay("keys", keys);
        replay("credentials", credentials);
    }
}
