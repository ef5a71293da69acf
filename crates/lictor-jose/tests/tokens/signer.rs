//! Who signs the tests' tokens: ring, with the keys that RFC 7515 (appendix A) and RFC 8037 (appendix A) print. Nobody believes these keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_jose::Algorithm;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

/// A secret long enough for each of them.
pub(crate) const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// RFC 7515, appendix A.2.1: n, d, p, q, dp, dq, qi.
pub(crate) const RSA: [&str; 7] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
];
/// RFC 7515, appendix A.3.1: x, y, d.
pub(crate) const EC: [&str; 3] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
];
/// RFC 8037, appendix A.1: x, d.
pub(crate) const ED: [&str; 2] =
    ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"];

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// A token of exactly this header and payload, signed as `algorithm` is whatever the header says.
pub(crate) fn token(algorithm: Algorithm, header: &str, payload: &str) -> String {
    sealed(algorithm, &format!("{}.{}", encode(header), encode(payload)))
}

/// The usual header, and these claims.
pub(crate) fn usual(algorithm: Algorithm, claims: &Value) -> String {
    let header = json!({"alg": algorithm.name(), "kid": kid(algorithm), "typ": "JWT"});
    token(algorithm, &header.to_string(), &claims.to_string())
}

/// The message, a dot, and its signature.
pub(crate) fn sealed(algorithm: Algorithm, message: &str) -> String {
    format!("{message}.{}", encode(sign(algorithm, message.as_bytes())))
}

pub(crate) fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::HS256 => mac(hmac::HMAC_SHA256, SECRET, message),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384, SECRET, message),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512, SECRET, message),
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_SHA256, message),
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_SHA384, message),
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_SHA512, message),
        Algorithm::PS256 => rsa(&signature::RSA_PSS_SHA256, message),
        Algorithm::PS384 => rsa(&signature::RSA_PSS_SHA384, message),
        Algorithm::PS512 => rsa(&signature::RSA_PSS_SHA512, message),
        Algorithm::ES256 => {
            let [x, y, d] = EC.map(decode);
            let point = [&[4], x.as_slice(), &y].concat();
            let signing = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            let key = EcdsaKeyPair::from_private_key_and_public_key(signing, &d, &point, &random).unwrap();
            key.sign(&random, message).unwrap().as_ref().to_vec()
        }
        Algorithm::ES384 => p384().0.sign(&random, message).unwrap().as_ref().to_vec(),
        Algorithm::Ed25519 => {
            Ed25519KeyPair::from_seed_unchecked(&decode(ED[1])).unwrap().sign(message).as_ref().to_vec()
        }
    }
}

pub(crate) fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

fn rsa(padding: &'static dyn signature::RsaEncoding, message: &[u8]) -> Vec<u8> {
    let [n, d, p, q, dp, dq, qi] = RSA.map(decode);
    let public_key = PublicKeyComponents { n, e: vec![1, 0, 1] };
    let parts = KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
    let key = RsaKeyPair::from_components(&parts).unwrap();
    let mut signed = vec![0; key.public().modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signed).unwrap();
    signed
}

/// A key of this run, with its x and y.
fn p384() -> &'static (EcdsaKeyPair, String, String) {
    static KEY: std::sync::LazyLock<(EcdsaKeyPair, String, String)> = std::sync::LazyLock::new(|| {
        let (random, signing) = (SystemRandom::new(), &signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(signing, key.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(48);
        let (x, y) = (encode(x), encode(y));
        (key, x, y)
    });
    &KEY
}

/// What the key of an algorithm is called.
pub(crate) fn kid(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "p256",
        Algorithm::ES384 => "p384",
        Algorithm::Ed25519 => "ed",
        _ => "rsa",
    }
}

/// The public key of an algorithm, as a JWK without `alg`.
pub(crate) fn jwk(algorithm: Algorithm) -> Value {
    let kid = kid(algorithm);
    match algorithm {
        Algorithm::ES256 => json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": EC[0], "y": EC[1]}),
        Algorithm::ES384 => {
            json!({"kty": "EC", "crv": "P-384", "kid": kid, "use": "sig", "x": p384().1, "y": p384().2})
        }
        Algorithm::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": ED[0]}),
        _ => json!({"kty": "RSA", "kid": kid, "use": "sig", "n": RSA[0], "e": "AQAB"}),
    }
}
