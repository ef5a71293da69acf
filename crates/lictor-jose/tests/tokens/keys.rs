//! Keys: which are used, which are left out, and which one a token is checked by.

use lictor_jose::jwks::{JwksError, MAX_KEYS, MAX_SET, parse};
use lictor_jose::{Algorithm, Family, Issuer, KeySet, SecretError, Why};
use serde_json::{Value, json};

use super::signer::{self, encode, usual};
use super::{claims, issuer, only, refused};

fn set(keys: &[Value]) -> Result<lictor_jose::jwks::Parsed, JwksError> {
    parse(json!({"keys": keys}).to_string().as_bytes())
}

/// The key with others in place of some members; null takes one away.
fn but(algorithm: Algorithm, changes: Value) -> Value {
    let mut jwk = signer::jwk(algorithm);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

#[test]
fn a_secret_is_as_long_as_its_hash_and_no_pem() {
    let all = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    for (len, algorithms, expected) in [
        (32, &all[..1], None),
        (31, &all[..1], Some(SecretError::TooShort(32))),
        (0, &all[..1], Some(SecretError::TooShort(32))),
        (48, &all[..2], None),
        (47, &all[..2], Some(SecretError::TooShort(48))),
        (47, &all[1..2], Some(SecretError::TooShort(48))),
        (64, &all, None),
        (63, &all, Some(SecretError::TooShort(64))),
        (64, &[], Some(SecretError::Algorithm)),
        (64, &[Algorithm::RS256], Some(SecretError::Algorithm)),
        (64, &[Algorithm::HS256, Algorithm::ES256], Some(SecretError::Algorithm)),
    ] {
        assert_eq!(KeySet::secret(&vec![b's'; len], algorithms).err(), expected, "{len} {algorithms:?}");
    }
    for pem in [
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        " \n\t-----BEGIN RSA PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        "\u{feff}-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        "Bag Attributes\n    friendlyName: x\n-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQEF",
        "-----BEGIN EC PRIVATE KEY-----\r\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
    ] {
        assert_eq!(KeySet::secret(pem.as_bytes(), &all[..1]).err(), Some(SecretError::Pem), "{pem}");
    }
}

#[test]
fn a_key_is_used_for_what_it_says_and_left_out_for_anything_else() {
    let rsa = |changes: Value| but(Algorithm::RS256, changes);
    let p256 = |changes: Value| but(Algorithm::ES256, changes);
    let ed = |changes: Value| but(Algorithm::Ed25519, changes);
    let number = |bytes: usize, first: u8, last: u8| {
        let mut number = vec![0x55; bytes];
        (number[0], number[bytes - 1]) = (first, last);
        encode(number)
    };
    let table = [
        (rsa(json!({})), true),
        (rsa(json!({"kid": null, "use": null})), true),
        (rsa(json!({"alg": "RS256"})), true),
        (rsa(json!({"alg": "PS512"})), true),
        (rsa(json!({"key_ops": ["verify"]})), true),
        (rsa(json!({"key_ops": ["sign", "verify", "other"]})), true),
        (rsa(json!({"x5c": ["MIIB"], "x5t": "a", "unknown": {"a": 1}})), true),
        (rsa(json!({"use": "enc"})), false),
        (rsa(json!({"use": "SIG"})), false),
        (rsa(json!({"use": ["sig"]})), false),
        (rsa(json!({"key_ops": []})), false),
        (rsa(json!({"key_ops": ["encrypt"]})), false),
        (rsa(json!({"key_ops": ["Verify"]})), false),
        (rsa(json!({"key_ops": "verify"})), false),
        (rsa(json!({"key_ops": ["verify", "verify"]})), false),
        (rsa(json!({"key_ops": ["verify", 1]})), false),
        (rsa(json!({"alg": "ES256"})), false),
        (rsa(json!({"alg": "HS256"})), false),
        (rsa(json!({"alg": "RSA-OAEP"})), false),
        (rsa(json!({"alg": "none"})), false),
        (rsa(json!({"alg": "rs256"})), false),
        (rsa(json!({"alg": ["RS256"]})), false),
        (rsa(json!({"kid": 1})), false),
        (rsa(json!({"kid": "k".repeat(257)})), false),
        (rsa(json!({"kty": "rsa"})), false),
        (rsa(json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"})), false),
        (rsa(json!({"kty": 1})), false),
        (rsa(json!({"kty": null})), false),
        (rsa(json!({"kty": "oct", "k": "AAAA"})), false),
        (rsa(json!({"d": signer::RSA[1]})), false),
        (rsa(json!({"n": null})), false),
        (rsa(json!({"n": "!"})), false),
        (rsa(json!({"n": format!("{}=", signer::RSA[0])})), false),
        (rsa(json!({"n": format!("AA{}", signer::RSA[0])})), false), // shifted: not 2048 bits with that low end
        (rsa(json!({"n": encode([&[0], signer::decode(signer::RSA[0]).as_slice()].concat())})), true), // a zero in front
        (rsa(json!({"n": number(256, 0x80, 1)})), true),
        (rsa(json!({"n": number(256, 0x7f, 1)})), false), // 2047 bits
        (rsa(json!({"n": number(128, 0x80, 1)})), false),
        (rsa(json!({"n": number(1024, 0x80, 1)})), true),
        (rsa(json!({"n": number(1025, 0x01, 1)})), false), // 8193 bits
        (rsa(json!({"n": number(2048, 0x80, 1)})), false),
        (rsa(json!({"n": number(256, 0x80, 2)})), false), // even
        (rsa(json!({"n": ""})), false),
        (rsa(json!({"e": encode([3])})), true),
        (rsa(json!({"e": encode([0, 1, 0, 1])})), true),
        (rsa(json!({"e": encode([0xff, 0xff, 0xff, 0xff])})), true),
        (rsa(json!({"e": encode([1, 0, 0, 0, 1])})), false), // 2^32 + 1
        (rsa(json!({"e": encode([1])})), false),
        (rsa(json!({"e": encode([2])})), false),
        (rsa(json!({"e": encode([1, 0])})), false),
        (rsa(json!({"e": encode([0])})), false),
        (rsa(json!({"e": ""})), false),
        (rsa(json!({"e": encode([1; 9])})), false),
        (rsa(json!({"e": encode([1; 300])})), false),
        (rsa(json!({"e": 65537})), false),
        (p256(json!({})), true),
        (p256(json!({"alg": "ES256"})), true),
        (but(Algorithm::ES384, json!({"alg": "ES384"})), true),
        (p256(json!({"alg": "ES384"})), false),
        (p256(json!({"alg": "RS256"})), false),
        (p256(json!({"crv": "P-384"})), false),
        (p256(json!({"crv": "P-521", "alg": "ES512"})), false),
        (p256(json!({"crv": "secp256k1"})), false),
        (p256(json!({"crv": "p-256"})), false),
        (p256(json!({"crv": null})), false),
        (p256(json!({"x": null})), false),
        (p256(json!({"y": null})), false),
        (p256(json!({"x": encode([7; 31])})), false),
        (p256(json!({"x": encode([7; 33])})), false),
        (p256(json!({"y": encode([7; 31])})), false),
        (p256(json!({"x": encode([7; 33]), "y": encode([7; 31])})), false),
        (p256(json!({"d": signer::EC[2]})), false),
        (ed(json!({})), true),
        (ed(json!({"alg": "EdDSA"})), true),
        (ed(json!({"alg": "Ed25519"})), true),
        (ed(json!({"alg": "ES256"})), false),
        (ed(json!({"crv": "Ed448"})), false),
        (ed(json!({"crv": "X25519"})), false),
        (ed(json!({"x": encode([7; 31])})), false), // jsonwebtoken takes any length
        (ed(json!({"x": encode([7; 33])})), false),
        (ed(json!({"x": ""})), false),
        (json!({}), false),
        (json!([]), false),
        (json!("RSA"), false),
        (json!(null), false),
    ];
    for (jwk, is_used) in table {
        let mut beside = signer::jwk(Algorithm::ES256);
        beside["kid"] = "beside".into();
        let parsed = set(&[jwk.clone(), beside]).unwrap();
        assert_eq!(parsed.keys.len(), 1 + usize::from(is_used), "{jwk}: {:?}", parsed.skipped);
        assert_eq!(parsed.skipped.len(), usize::from(!is_used), "{jwk}");
        assert!(parsed.skipped.iter().all(|skipped| skipped.position == 0 && !skipped.why.is_empty()));
        let alone = set(std::slice::from_ref(&jwk));
        assert_eq!(alone.is_ok(), is_used, "{jwk}");
        if !is_used {
            assert!(matches!(alone, Err(JwksError::Unusable(_))), "{jwk}");
        }
    }
}

#[test]
fn a_set_is_an_object_with_keys() {
    let key = signer::jwk(Algorithm::ES256).to_string();
    for (text, is_set) in [
        (format!("{{\"keys\":[{key}]}}"), true),
        (format!("{{\"keys\":[{key}],\"x\":{{\"y\":[1]}}}}"), true),
        (format!(" {{\"keys\" : [ {key} ] }}\n"), true),
        (format!("{{\"keys\":[{key}],\"keys\":[]}}"), false),
        (format!("{{\"keys\":[{key}]}}x"), false),
        (format!("[{key}]"), false),
        (key.clone(), false),
        ("{\"keys\":[]}".to_owned(), false),
        ("{\"keys\":{}}".to_owned(), false),
        ("{}".to_owned(), false),
        ("null".to_owned(), false),
        (String::new(), false),
        ("<html>404</html>".to_owned(), false),
        (format!("{{\"keys\":[{}]}}", "[".repeat(100_000)), false),
        (format!("{{\"keys\":[{key}],\"x\":\"{}\"}}", "x".repeat(MAX_SET)), false),
    ] {
        assert_eq!(parse(text.as_bytes()).is_ok(), is_set, "{}", &text[..text.len().min(200)]);
    }
    // One key with a member twice, or too deep, is left out, and the others are used.
    for wrong in
        [key.replace("\"kty\"", "\"kty\":\"RSA\",\"kty\""), format!("{{\"a\":{}1{}}}", "[".repeat(50), "]".repeat(50))]
    {
        let parsed = parse(format!("{{\"keys\":[{wrong},{key}]}}").as_bytes()).unwrap();
        assert_eq!((parsed.keys.len(), parsed.skipped.len()), (1, 1), "{wrong}");
    }
    let many: Vec<_> =
        (0..MAX_KEYS + 50).map(|number| but(Algorithm::ES256, json!({"kid": number.to_string()}))).collect();
    let parsed = set(&many).unwrap();
    assert_eq!((parsed.keys.len(), parsed.skipped.len()), (MAX_KEYS, 1));
}

#[test]
fn a_token_is_checked_by_the_one_key_that_fits() {
    let rs = |kid: Option<&str>, alg: Option<&str>| but(Algorithm::RS256, json!({"kid": kid, "alg": alg}));
    let token = |kid: Option<&str>| {
        let header = kid.map_or(json!({"alg": "RS256"}), |kid| json!({"alg": "RS256", "kid": kid}));
        signer::token(Algorithm::RS256, &header.to_string(), &claims().to_string())
    };
    let table = [
        (vec![rs(Some("a"), None)], Some("a"), None),
        (vec![rs(Some("a"), None)], Some("b"), Some(Why::UnknownKey)),
        (vec![rs(Some("a"), None)], None, None),
        (vec![rs(None, None)], None, None),
        (vec![rs(None, None)], Some("a"), Some(Why::UnknownKey)),
        (vec![rs(Some("a"), None), rs(Some("b"), None)], None, Some(Why::AmbiguousKey)),
        (vec![rs(Some("a"), None), rs(Some("b"), None)], Some("b"), None),
        (vec![rs(Some("a"), Some("PS256")), rs(Some("b"), Some("RS256"))], None, None),
        (vec![rs(Some("a"), Some("PS256"))], Some("a"), Some(Why::Algorithm)),
        (vec![rs(Some("a"), Some("PS256"))], None, Some(Why::UnknownKey)),
        (vec![rs(Some("a"), Some("PS256")), rs(Some("a"), Some("RS256"))], Some("a"), None),
        (vec![rs(Some("a"), Some("RS384")), signer::jwk(Algorithm::ES256)], None, Some(Why::UnknownKey)),
        (vec![rs(None, None), rs(None, None)], None, Some(Why::AmbiguousKey)),
    ];
    for (keys, kid, expected) in table {
        let issuers = only(Issuer { ..issuer(Family::Rsa) }, set(&keys).unwrap().keys);
        assert_eq!(refused(&token(kid), &issuers), expected, "{kid:?} of {keys:?}");
    }
    // A name that stands twice is the first one's.
    let mut other = rs(Some("a"), None);
    other["n"] = encode([&[0x80], [0x55; 254].as_slice(), &[1]].concat()).into();
    let parsed = set(&[rs(Some("a"), None), other.clone()]).unwrap();
    assert_eq!((parsed.keys.len(), parsed.skipped.len()), (1, 1));
    assert_eq!(refused(&token(Some("a")), &only(issuer(Family::Rsa), parsed.keys)), None);
    let parsed = set(&[other, rs(Some("a"), None)]).unwrap();
    assert_eq!(refused(&token(Some("a")), &only(issuer(Family::Rsa), parsed.keys)), Some(Why::Signature));
}

#[test]
fn a_point_that_is_not_on_its_curve_believes_nothing() {
    for (x, y) in [
        (encode([0; 32]), encode([0; 32])),
        (signer::EC[0].to_owned(), signer::EC[0].to_owned()),
        (encode([0xff; 32]), encode([0xff; 32])),
    ] {
        let keys = set(&[but(Algorithm::ES256, json!({"x": x, "y": y}))]).unwrap().keys;
        assert_eq!(refused(&usual(Algorithm::ES256, &claims()), &only(issuer(Family::Ec), keys)), Some(Why::Signature));
    }
}

#[test]
fn sets_are_equal_when_they_answer_alike() {
    let (a, b) = (signer::jwk(Algorithm::RS256), signer::jwk(Algorithm::ES256));
    let read = |keys: &[Value]| set(keys).unwrap().keys;
    assert_eq!(read(&[a.clone(), b.clone()]), read(&[a.clone(), b.clone()]));
    assert_eq!(
        read(std::slice::from_ref(&a)),
        read(&[but(Algorithm::RS256, json!({"x5t": "x"}))]),
        "what is not looked at"
    );
    for other in
        [vec![a.clone()], vec![b.clone(), a.clone()], vec![a.clone(), but(Algorithm::ES256, json!({"kid": "x"}))]]
    {
        assert_ne!(read(&[a.clone(), b.clone()]), read(&other));
    }
    assert_ne!(read(std::slice::from_ref(&a)), read(&[but(Algorithm::RS256, json!({"alg": "RS256"}))]));
    assert_ne!(read(&[a]), read(&[but(Algorithm::RS256, json!({"e": encode([3])}))]));
    let secret = |byte: u8| KeySet::secret(&[byte; 32], &[Algorithm::HS256]).unwrap();
    assert_eq!(secret(1), secret(1));
    assert_ne!(secret(1), secret(2));
}
