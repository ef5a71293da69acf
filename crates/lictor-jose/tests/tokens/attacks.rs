//! The usual attacks, each beside a token that passes.

use std::sync::Arc;

use lictor_jose::{
    Algorithm, Family, Issuers, KeySet, Keys, Kind, MAX_DEPTH, MAX_KEY_ID, MAX_MEMBERS, MAX_TOKEN, Trusted, Why, jwks,
    verify,
};
use ring::hmac::HMAC_SHA256;
use serde_json::{Value, json};

use super::signer::{self, encode, sealed, sign, token, usual};
use super::{claims, issuer, now, of, only, refused};

const ALL: [Family; 4] = [Family::Hmac, Family::Rsa, Family::Ec, Family::Ed];

#[test]
fn each_algorithm_is_believed_from_its_key_and_from_no_other() {
    for family in ALL {
        let issuers = of(family);
        for algorithm in Algorithm::ALL {
            let good = usual(algorithm, &claims());
            let expected = (algorithm.family() != family).then_some(Why::Algorithm);
            assert_eq!(refused(&good, &issuers), expected, "{algorithm} to {family:?}");
        }
        // A header that says one, signed as another.
        for (said, signed) in Algorithm::ALL.iter().flat_map(|one| Algorithm::ALL.map(|other| (*one, other))) {
            if said == signed || said.family() != family {
                continue;
            }
            let header = json!({"alg": said.name(), "kid": signer::kid(said)}).to_string();
            let wrong = token(signed, &header, &claims().to_string());
            assert_eq!(refused(&wrong, &issuers), Some(Why::Signature), "{signed} said to be {said}");
        }
    }
}

#[test]
fn both_names_of_ed25519_are_one() {
    let issuers = of(Family::Ed);
    for (name, expected) in
        [("EdDSA", None), ("Ed25519", None), ("Ed448", Some(Why::Algorithm)), ("eddsa", Some(Why::Algorithm))]
    {
        let header = json!({"alg": name, "kid": "ed"}).to_string();
        assert_eq!(refused(&token(Algorithm::Ed25519, &header, &claims().to_string()), &issuers), expected, "{name}");
    }
}

#[test]
fn nothing_is_believed_without_a_signature() {
    let payload = encode(claims().to_string());
    for family in ALL {
        let issuers = of(family);
        for name in ["none", "None", "NONE", "nOnE"] {
            let header = encode(json!({"alg": name}).to_string());
            for signature in [String::new(), "AAAA".to_owned(), encode(sign(Algorithm::HS256, b"x"))] {
                let wrong = format!("{header}.{payload}.{signature}");
                assert_eq!(refused(&wrong, &issuers), Some(Why::Unsigned), "{name} {family:?}");
            }
        }
        for (header, expected) in [
            (json!({"alg": "none "}), Why::Algorithm),
            (json!({"alg": ""}), Why::Algorithm),
            (json!({"alg": null}), Why::Header),
            (json!({"alg": ["none"]}), Why::Header),
            (json!({"alg": 0}), Why::Header),
            (json!({}), Why::Header),
            (json!({"ALG": "HS256"}), Why::Header),
            (json!({"typ": "JWT"}), Why::Header),
        ] {
            let wrong = format!("{}.{payload}.", encode(header.to_string()));
            assert_eq!(refused(&wrong, &issuers), Some(expected), "{header}");
        }
        for algorithm in family.algorithms() {
            let good = usual(algorithm, &claims());
            let (message, signature) = good.rsplit_once('.').unwrap();
            for wrong in ["", "AA", &signature[..signature.len() - 4], &encode(vec![0; 64]), &encode(vec![0; 256])] {
                assert_eq!(
                    refused(&format!("{message}.{wrong}"), &issuers),
                    Some(Why::Signature),
                    "{algorithm} {wrong}"
                );
            }
            assert_eq!(refused(message, &issuers), Some(Why::NotCompact), "{algorithm}");
        }
    }
}

/// The public key, in every form that it is published in, is no secret (RFC 8725, section 2.1).
#[test]
fn a_public_key_does_not_sign_as_a_secret() {
    let rsa_jwk = signer::jwk(Algorithm::RS256);
    let pem = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n";
    let secrets = [
        pem.as_bytes().to_vec(),
        pem.trim().as_bytes().to_vec(),
        rsa_jwk.to_string().into_bytes(),
        json!({"keys": [rsa_jwk]}).to_string().into_bytes(),
        signer::decode(signer::RSA[0]),
        signer::RSA[0].as_bytes().to_vec(),
        [&[4], signer::decode(signer::EC[0]).as_slice(), &signer::decode(signer::EC[1])].concat(),
        signer::decode(signer::ED[0]),
        Vec::new(),
    ];
    for family in [Family::Rsa, Family::Ec, Family::Ed] {
        let issuers = of(family);
        for secret in &secrets {
            for kid in [Some("rsa"), Some("p256"), Some("ed"), None] {
                let header = kid.map_or(json!({"alg": "HS256"}), |kid| json!({"alg": "HS256", "kid": kid}));
                let message = format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
                let wrong = format!("{message}.{}", encode(signer::mac(HMAC_SHA256, secret, message.as_bytes())));
                assert_eq!(refused(&wrong, &issuers), Some(Why::Algorithm), "{family:?} {kid:?}");
            }
        }
    }
}

/// A header may bring a key, or say where one is: nobody looks.
#[test]
fn a_token_does_not_bring_its_key() {
    let ed = signer::jwk(Algorithm::Ed25519);
    let names = [
        ("jwk", ed),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("jwk", json!(7)),
        ("url", json!("https://evil.example")),
        ("nonce", json!("n")),
        ("unknown", json!({"a": [1]})),
    ];
    let issuers = of(Family::Ec);
    for (name, value) in names {
        let header = json!({"alg": "ES256", "kid": "p256", name: value}).to_string();
        let good = token(Algorithm::ES256, &header, &claims().to_string());
        assert_eq!(refused(&good, &issuers), None, "{name}: signed by the issuer's key all the same");
        let header = json!({"alg": "Ed25519", "kid": "ed", name: value}).to_string();
        let wrong = token(Algorithm::Ed25519, &header, &claims().to_string());
        assert_eq!(refused(&wrong, &issuers), Some(Why::Algorithm), "{name}");
        let header = json!({"alg": "ES256", "kid": "evil", name: value}).to_string();
        let wrong = token(Algorithm::ES256, &header, &claims().to_string());
        assert_eq!(refused(&wrong, &issuers), Some(Why::UnknownKey), "{name}");
    }
}

#[test]
fn what_would_change_the_meaning_of_a_token_is_refused() {
    let issuers = of(Family::Hmac);
    for (more, expected) in [
        (json!({}), None),
        (json!({"crit": ["exp"]}), Some(Why::Critical)),
        (json!({"crit": []}), Some(Why::Critical)),
        (json!({"crit": ["b64"], "b64": true}), Some(Why::Critical)),
        (json!({"crit": ["b64"], "b64": false}), Some(Why::Critical)),
        (json!({"crit": ["x", "x"], "x": 1}), Some(Why::Critical)),
        (json!({"crit": ["alg"]}), Some(Why::Critical)),
        (json!({"crit": null}), Some(Why::Critical)),
        (json!({"b64": false}), Some(Why::Unencoded)),
        (json!({"b64": "true"}), Some(Why::Unencoded)),
        (json!({"b64": null}), Some(Why::Unencoded)),
        (json!({"b64": true}), None),
        (json!({"zip": "DEF"}), Some(Why::Compressed)),
        (json!({"zip": null}), Some(Why::Compressed)),
        (json!({"enc": "A128GCM"}), Some(Why::Encrypted)),
        (json!({"cty": "JWT"}), Some(Why::Nested)),
        (json!({"cty": "jwt"}), Some(Why::Nested)),
        (json!({"cty": "application/jwt"}), Some(Why::Nested)),
        (json!({"cty": "application/json"}), None),
        (json!({"cty": 7}), Some(Why::Header)),
        (json!({"typ": 7}), Some(Why::Header)),
        (json!({"kid": 7}), Some(Why::Header)),
        (json!({"kid": null}), Some(Why::Header)),
        (json!({"alg": "PBES2-HS256+A128KW", "p2c": 2_000_000_000}), Some(Why::Algorithm)),
        (json!({"alg": "dir", "enc": "A128GCM"}), Some(Why::Encrypted)),
        (json!({"alg": "RSA-OAEP"}), Some(Why::Algorithm)),
    ] {
        let mut header = json!({"alg": "HS256"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let token = token(Algorithm::HS256, &header.to_string(), &claims().to_string());
        assert_eq!(refused(&token, &issuers), expected, "{more}");
    }
}

#[test]
fn a_member_stands_once() {
    let issuers = of(Family::Hmac);
    let header = r#"{"alg":"HS256"}"#;
    let payload = claims().to_string();
    let and = |more: &str| format!("{},{more}}}", payload.strip_suffix('}').unwrap());
    for (header, payload) in [
        (r#"{"alg":"HS256","alg":"HS256"}"#, payload.clone()),
        (r#"{"alg":"none","alg":"HS256"}"#, payload.clone()),
        (r#"{"alg":"HS256","\u0061lg":"none"}"#, payload.clone()),
        (r#"{"alg":"HS256","x":{"y":1,"y":2}}"#, payload.clone()),
        (header, and(r#""exp":9999999999"#)),
        (header, and(r#""sub":"admin""#)),
        (header, and(r#""\u0073ub":"admin""#)),
        (header, and(r#""realm_access":{"roles":["user"],"roles":["admin"]}"#)),
        (header, and(r#""a":[[{"b":1,"b":1}]]"#)),
    ] {
        assert_eq!(
            refused(&token(Algorithm::HS256, header, &payload), &issuers),
            Some(Why::Duplicate),
            "{header} {payload}"
        );
    }
    for more in [r#""Sub":"admin""#, r#""realm_access":{"roles":["user"]},"other":{"roles":[]}"#] {
        assert_eq!(refused(&token(Algorithm::HS256, header, &and(more)), &issuers), None, "{more}");
    }
}

#[test]
fn a_token_is_bounded_before_it_is_read() {
    let issuers = of(Family::Hmac);
    let padded = |len: usize| usual(Algorithm::HS256, &super::with(json!({"x": "a".repeat(len)})));
    let largest = (4000..MAX_TOKEN).rev().find(|len| padded(*len).len() <= MAX_TOKEN).unwrap();
    assert!(padded(largest).len() > MAX_TOKEN - 4);
    assert_eq!(refused(&padded(largest), &issuers), None);
    assert_eq!(refused(&padded(largest + 3), &issuers), Some(Why::TooLong));
    assert_eq!(refused(&padded(10 << 20), &issuers), Some(Why::TooLong));
    assert_eq!(refused(&".".repeat(MAX_TOKEN), &issuers), Some(Why::NotCompact));
    assert_eq!(refused(&".".repeat(MAX_TOKEN + 1), &issuers), Some(Why::TooLong));

    let deep = |depth: usize| -> Value { (0..depth).fold(json!(1), |inner, _| json!([inner])) };
    for (depth, expected) in [(MAX_DEPTH - 1, None), (MAX_DEPTH, Some(Why::TooDeep)), (127, Some(Why::TooDeep))] {
        assert_eq!(
            refused(&usual(Algorithm::HS256, &super::with(json!({"x": deep(depth)}))), &issuers),
            expected,
            "{depth}"
        );
    }
    let deepest = format!("{{\"x\":{}", "[".repeat(5000));
    assert_eq!(refused(&token(Algorithm::HS256, r#"{"alg":"HS256"}"#, &deepest), &issuers), Some(Why::TooDeep));
    assert_eq!(refused(&token(Algorithm::HS256, &deepest, "{}"), &issuers), Some(Why::TooDeep));

    let wide = |count: usize| -> Value {
        (0..count).map(|number| (number.to_string(), json!(1))).collect::<serde_json::Map<_, _>>().into()
    };
    for (count, expected) in [(MAX_MEMBERS - 7, None), (MAX_MEMBERS - 6, Some(Why::TooManyMembers))] {
        assert_eq!(
            refused(&usual(Algorithm::HS256, &super::with(json!({"x": wide(count)}))), &issuers),
            expected,
            "{count}"
        );
    }
}

#[test]
fn a_token_has_one_spelling() {
    let issuers = of(Family::Hmac);
    let good = usual(Algorithm::HS256, &claims());
    assert_eq!(refused(&good, &issuers), None);
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let last = |part: &str| {
        // The same bytes with bits that say nothing, if this length has any.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let place = alphabet.find(part.chars().last().unwrap()).unwrap();
        format!("{}{}", &part[..part.len() - 1], alphabet.chars().nth(place + 1).unwrap())
    };
    for (wrong, expected) in [
        (String::new(), Why::NotCompact),
        (".".to_owned(), Why::NotCompact),
        ("..".to_owned(), Why::Json),
        ("...".to_owned(), Why::NotCompact),
        ("....".to_owned(), Why::Encrypted),
        (format!("{header}.{payload}"), Why::NotCompact),
        (format!("{header}.{payload}.{signature}.{signature}"), Why::NotCompact),
        (format!("{header}.{payload}.{signature}.a.b"), Why::Encrypted),
        (format!("{header}.{payload}.{signature}.a.b.c"), Why::NotCompact),
        (format!("{good}."), Why::NotCompact),
        (format!(".{good}"), Why::NotCompact),
        (format!("{header}..{signature}"), Why::Json),
        (format!(".{payload}.{signature}"), Why::Json),
        (format!("{header}=.{payload}.{signature}"), Why::Base64),
        (format!("{header}.{payload}=.{signature}"), Why::Base64),
        (format!("{header}.{payload}.{signature}="), Why::Signature),
        (format!("{header}.{payload}.{}", last(signature)), Why::Signature),
        (format!(" {good}"), Why::Base64),
        (format!("{good} "), Why::Signature),
        (format!("{good}\n"), Why::Signature),
        (format!("{header}\n.{payload}.{signature}"), Why::Base64),
        (format!("{header}.{payload} .{signature}"), Why::Base64),
        (format!("{header}%2E{payload}.{signature}"), Why::NotCompact),
        (format!("{header}.{payload}\0.{signature}"), Why::Base64),
        (good.replace('.', ":"), Why::NotCompact),
        (good.to_uppercase(), Why::Base64),
        (json!({"protected": header, "payload": payload, "signature": signature}).to_string(), Why::NotCompact),
        (encode(&good), Why::NotCompact),
    ] {
        let found = refused(&wrong, &issuers);
        // Upper case may be base64 of something that is no JSON; what matters is that it is not believed.
        let is_expected = found == Some(expected) || expected == Why::Base64 && found == Some(Why::Json);
        assert!(is_expected, "{wrong}: {found:?}, not {expected:?}");
    }
    let bytes = [good.as_bytes(), &[0xff]].concat();
    assert!(verify(&bytes, &issuers, now()).is_err());
    // The parts that are signed are refused as well where they are not canonical, also when they are signed so.
    let header = encode(r#"{"alg":"HS256" }"#);
    assert_eq!(header.len() % 4, 2, "a length with bits to spare");
    for header in [format!("{header}=="), last(&header), header.replace('e', " e")] {
        assert_eq!(
            refused(&sealed(Algorithm::HS256, &format!("{header}.{payload}")), &issuers),
            Some(Why::Base64),
            "{header}"
        );
    }
}

#[test]
fn every_part_is_signed() {
    for family in ALL {
        let issuers = of(family);
        let algorithm = family.algorithms().next().unwrap();
        let good = usual(algorithm, &claims());
        let other = usual(algorithm, &super::with(json!({"sub": "u-2"})));
        let parts: Vec<_> = good.split('.').collect();
        let others: Vec<_> = other.split('.').collect();
        assert_eq!(refused(&format!("{}.{}.{}", parts[0], others[1], parts[2]), &issuers), Some(Why::Signature));
        assert_eq!(refused(&format!("{}.{}.{}", parts[0], parts[1], others[2]), &issuers), Some(Why::Signature));
        // Another byte anywhere.
        for position in 0..good.len() {
            let mut wrong = good.clone().into_bytes();
            wrong[position] = if wrong[position] == b'A' { b'B' } else { b'A' };
            if wrong != good.as_bytes() {
                assert!(verify(&wrong, &issuers, now()).is_err(), "{algorithm} at {position}");
            }
        }
    }
}

/// A `kid` is bytes that are compared: not a path, not a query, not a pattern.
#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let issuers = of(Family::Rsa);
    let strange = [
        "../../../../dev/null",
        "/etc/passwd",
        "' UNION SELECT 'x' --",
        "*",
        ".*",
        "rs?",
        "RSA",
        "rsa ",
        "rsa\0",
        "",
        "https://evil.example/key",
        "|/bin/sh",
        "\u{202e}asr",
    ];
    for kid in strange {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        assert_eq!(
            refused(&token(Algorithm::RS256, &header, &claims().to_string()), &issuers),
            Some(Why::UnknownKey),
            "{kid:?}"
        );
        // A set may have such a name; then it is that key's.
        let mut jwk = signer::jwk(Algorithm::RS256);
        jwk["kid"] = kid.into();
        let keys = jwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap().keys;
        let issuers = only(issuer(Family::Rsa), keys);
        assert_eq!(refused(&token(Algorithm::RS256, &header, &claims().to_string()), &issuers), None, "{kid:?}");
    }
    for (len, expected) in [(MAX_KEY_ID, Why::UnknownKey), (MAX_KEY_ID + 1, Why::KeyId), (3000, Why::KeyId)] {
        let header = json!({"alg": "RS256", "kid": "k".repeat(len)}).to_string();
        assert_eq!(
            refused(&token(Algorithm::RS256, &header, &claims().to_string()), &issuers),
            Some(expected),
            "{len}"
        );
    }
    // Of a shared secret there is one, whatever a token calls it.
    let header = json!({"alg": "HS256", "kid": "../../dev/null"}).to_string();
    assert_eq!(refused(&token(Algorithm::HS256, &header, &claims().to_string()), &of(Family::Hmac)), None);
}

#[test]
fn another_ones_key_is_nobodys() {
    let message = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims().to_string()));
    let issuers = of(Family::Hmac);
    for secret in [&b"secret"[..], b"", b"your-256-bit-secret", &[0; 64], &signer::SECRET[..63]] {
        let wrong = format!("{message}.{}", encode(signer::mac(HMAC_SHA256, secret, message.as_bytes())));
        assert_eq!(refused(&wrong, &issuers), Some(Why::Signature), "{secret:?}");
    }
    // CVE-2022-21449: r and s of 0 were everybody's signature.
    let message = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"p256"}"#), encode(claims().to_string()));
    for signature in
        [vec![0; 64], vec![], vec![0; 63], vec![0; 65], vec![0xff; 64], sign(Algorithm::Ed25519, message.as_bytes())]
    {
        assert_eq!(refused(&format!("{message}.{}", encode(signature)), &of(Family::Ec)), Some(Why::Signature));
    }
}

#[test]
fn without_keys_nothing_is_said_of_a_token() {
    let entry = Trusted::new(Arc::new(issuer(Family::Rsa)), Keys::Unavailable);
    let issuers = Issuers::new(vec![entry]).unwrap();
    for (token, kind) in [
        (usual(Algorithm::RS256, &claims()), Kind::Unavailable),
        (usual(Algorithm::RS256, &super::with(json!({"exp": 1}))), Kind::Unavailable),
        // What is wrong whatever the keys are is wrong.
        (usual(Algorithm::HS256, &claims()), Kind::InvalidToken),
        (usual(Algorithm::RS256, &super::with(json!({"iss": "https://evil.example"}))), Kind::InvalidToken),
        ("x".to_owned(), Kind::InvalidToken),
    ] {
        assert_eq!(verify(token.as_bytes(), &issuers, now()).unwrap_err().kind(), kind, "{token}");
    }
}

/// What the client is told does not depend on what was wrong, and the log has nothing of the token's values.
#[test]
fn a_refusal_gives_nothing_away() {
    let issuers = of(Family::Hmac);
    let planted = "planted-value-8f2c";
    let tokens = [
        usual(Algorithm::HS256, &super::with(json!({"iss": planted}))),
        usual(Algorithm::HS256, &super::with(json!({"aud": planted}))),
        usual(Algorithm::HS256, &super::with(json!({"exp": planted}))),
        usual(Algorithm::HS256, &super::with(json!({"exp": 1, "sub": planted}))),
        token(Algorithm::HS256, &json!({"alg": planted}).to_string(), &claims().to_string()),
        token(Algorithm::HS256, &json!({"alg": "HS256", "cty": [planted]}).to_string(), &claims().to_string()),
        token(Algorithm::RS256, r#"{"alg":"HS256"}"#, &super::with(json!({"sub": planted})).to_string()),
        planted.to_owned(),
    ];
    for token in tokens {
        let refusal = verify(token.as_bytes(), &issuers, now()).unwrap_err();
        assert_eq!(refusal.kind().message(), "Invalid authentication token");
        assert!(!format!("{refusal} {refusal:?}").contains(planted), "{refusal}");
    }
    let shown = format!("{issuers:?}");
    assert!(!shown.contains("0123456789abcdef"), "the secret is shown: {shown}");
    assert!(
        KeySet::secret(b"short-secret", &[Algorithm::HS256])
            .is_err_and(|error| !error.to_string().contains("short-secret"))
    );
}
