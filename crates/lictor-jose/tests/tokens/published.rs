//! Vectors that others published, and jsonwebtoken's own checks as a second opinion.

use lictor_jose::{Algorithm, Family, Issuer, KeySet, Why, jwks, verify};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

use super::signer::{self, decode, usual};
use super::{NOW, claims, issuer, now, of, only, with};

/// RFC 7515, appendices A.1 to A.3: one set of claims (RFC 7519, section 3.1 has it too), signed in three ways.
#[test]
fn rfc_7515_and_rfc_7519() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
    let read = |jwk: Value| jwks::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap().keys;
    let without_kid = |algorithm| {
        let mut jwk = signer::jwk(algorithm);
        jwk.as_object_mut().unwrap().remove("kid");
        read(jwk)
    };
    let vectors = [
        (
            Algorithm::HS256,
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            KeySet::secret(&secret, &[Algorithm::HS256]).unwrap(),
        ),
        (
            Algorithm::RS256,
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            without_kid(Algorithm::RS256),
        ),
        (
            Algorithm::ES256,
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            without_kid(Algorithm::ES256),
        ),
    ];
    for (algorithm, header, signature, keys) in vectors {
        let entry = Issuer {
            iss: Some("joe".to_owned()),
            algorithms: vec![algorithm],
            leeway: Duration::ZERO,
            ..Issuer::default()
        };
        let issuers = only(entry, keys);
        let token = format!("{header}.{payload}.{signature}");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let verified = verify(token.as_bytes(), &issuers, at(1_300_819_379)).unwrap();
        assert_eq!(verified.claims["http://example.com/is_root"], true, "{algorithm}");
        assert_eq!(verify(token.as_bytes(), &issuers, at(1_300_819_380)).unwrap_err().why, Why::Expired, "{algorithm}");
        let wrong = token.replacen("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Ug", 1);
        assert!(verify(wrong.as_bytes(), &issuers, at(1_300_819_379)).is_err(), "{algorithm}");
    }
    // RFC 7519, section 6.1: an unsecured token; RFC 7515, appendix A.5.
    let unsecured = format!("eyJhbGciOiJub25lIn0.{payload}.");
    assert_eq!(verify(unsecured.as_bytes(), &of(Family::Hmac), now()).unwrap_err().why, Why::Unsigned);
    // RFC 7519, appendix A.1 begins so: encrypted, of five parts.
    let encrypted = "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8.AxY8DCtDaGlsbGljb3RoZQ.MKOle7UQrG6nSxTLX6Mqwt0o.fiK51VwhsxJ-siBMR-YFiA";
    assert_eq!(verify(encrypted.as_bytes(), &of(Family::Rsa), now()).unwrap_err().why, Why::Encrypted);
    // RFC 7519, appendix A.2: a nested token's header.
    let nested = signer::token(Algorithm::RS256, r#"{"alg":"RS256","cty":"JWT"}"#, &claims().to_string());
    assert_eq!(verify(nested.as_bytes(), &of(Family::Rsa), now()).unwrap_err().why, Why::Nested);
    // RFC 7515, appendix E: critical names that nobody knows.
    let critical =
        r#"{"alg":"HS256","crit":["http://example.invalid/UNDEFINED"],"http://example.invalid/UNDEFINED":true}"#;
    let critical = signer::token(Algorithm::HS256, critical, &claims().to_string());
    assert_eq!(verify(critical.as_bytes(), &of(Family::Hmac), now()).unwrap_err().why, Why::Critical);
}

/// What is believed here, jsonwebtoken believes with all of its checks on; and where it is known to be too kind, we are not.
#[test]
fn jsonwebtoken_says_so_too_where_it_is_strict() {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    let issuers = only(Issuer { leeway: Duration::ZERO, ..issuer(Family::Hmac) }, super::keys(Family::Hmac));
    let key = DecodingKey::from_secret(signer::SECRET).unwrap();
    // It reads the clock, so times are far from any.
    let (past, future) = (1, 99_999_999_999_u64);
    let mut validation = Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.algorithms = vec![jsonwebtoken::Algorithm::HS256];
    validation.set_issuer(&["https://id.example"]);
    validation.set_audience(&["shop", "api"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    let theirs = |token: &str| decode::<Value>(token, &key, &validation).is_ok();
    let ours = |token: &str| verify(token.as_bytes(), &issuers, now()).is_ok();
    assert!(ours(&usual(Algorithm::HS256, &with(json!({"exp": future})))), "installs the provider that theirs needs");
    let table = [
        (json!({}), true, true),
        (json!({"aud": ["api"]}), true, true),
        (json!({"nbf": past}), true, true),
        (json!({"exp": past}), false, false),
        (json!({"exp": "99999999999"}), false, false),
        (json!({"exp": null}), false, false),
        (json!({"nbf": future}), false, false),
        (json!({"nbf": "1"}), false, false),
        (json!({"aud": null}), false, false),
        (json!({"aud": "other"}), false, false),
        (json!({"aud": 1}), false, false),
        (json!({"iss": null}), false, false),
        (json!({"iss": "https://id.example/"}), false, false),
        // Where they differ: it takes a list of issuers, and a number that is no date for one.
        (json!({"iss": ["https://id.example"]}), false, true),
        (json!({"iat": "x"}), false, true),
    ];
    for (changes, we, they) in table {
        let mut all = json!({"exp": future});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = usual(Algorithm::HS256, &with(all));
        assert_eq!((ours(&token), theirs(&token)), (we, they), "{changes}");
    }
    // Its defaults: no audience needed, no nbf looked at.
    let mut kind = Validation::new(jsonwebtoken::Algorithm::HS256);
    kind.set_audience(&["shop"]);
    for changes in [json!({"aud": null, "exp": future}), json!({"nbf": future, "exp": future})] {
        let token = usual(Algorithm::HS256, &with(changes.clone()));
        assert_eq!((ours(&token), decode::<Value>(&token, &key, &kind).is_ok()), (false, true), "{changes}");
    }
    // A claim that it does not know, twice: it takes the last one.
    let twice = format!(r#"{{"iss":"https://id.example","aud":"shop","exp":{future},"role":"a","role":"b"}}"#);
    let twice = signer::token(Algorithm::HS256, r#"{"alg":"HS256"}"#, &twice);
    assert_eq!((ours(&twice), theirs(&twice)), (false, true));
    assert!(NOW < future);
}
