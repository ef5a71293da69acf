//! Times, audiences and issuers of every type and extreme.

use std::time::Duration;

use lictor_jose::{Algorithm, Family, Issuer, Why, verify};
use serde_json::{Value, json};

use super::signer::{encode, sealed, token, usual};
use super::{NOW, at, believed, claims, issuer, keys, now, of, only, refused, with};

/// A token whose payload has this text after the claims that are needed; for numbers that serde_json would not write.
fn raw(more: &str) -> String {
    token(Algorithm::HS256, r#"{"alg":"HS256"}"#, &format!(r#"{{"iss":"https://id.example","aud":"shop",{more}}}"#))
}

#[test]
fn a_time_is_a_finite_number_or_the_token_is_refused() {
    let issuers = of(Family::Hmac);
    let later = NOW + 300;
    let wrong_types = [
        format!("\"{later}\""),
        "\"\"".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        "false".to_owned(),
        format!("[{later}]"),
        "[]".to_owned(),
        format!("{{\"a\":{later}}}"),
        "{}".to_owned(),
    ];
    for wrong in &wrong_types {
        assert_eq!(refused(&raw(&format!("\"exp\":{wrong}")), &issuers), Some(Why::ClaimType), "exp {wrong}");
        assert_eq!(
            refused(&raw(&format!("\"exp\":{later},\"nbf\":{wrong}")), &issuers),
            Some(Why::ClaimType),
            "nbf {wrong}"
        );
        assert_eq!(
            refused(&raw(&format!("\"exp\":{later},\"iat\":{wrong}")), &issuers),
            Some(Why::ClaimType),
            "iat {wrong}"
        );
    }
    for no_json in ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "01", "1.", ".5", "+1", "0x7fffffff", "1_000"] {
        assert_eq!(refused(&raw(&format!("\"exp\":{no_json}")), &issuers), Some(Why::Json), "{no_json}");
    }
    assert_eq!(refused(&raw("\"sub\":\"u\""), &issuers), Some(Why::MissingClaim), "without exp");
    let table = [
        ("exp", format!("{later}"), None),
        ("exp", format!("{later}.75"), None),
        ("exp", format!("{}e-2", later * 100), None),
        ("exp", "1e300".to_owned(), None),
        ("exp", "1.7976931348623157e308".to_owned(), None),
        ("exp", "18446744073709551615".to_owned(), None),
        ("exp", "18446744073709551616".to_owned(), None),
        ("exp", "9223372036854775808".to_owned(), None),
        ("exp", "0".to_owned(), Some(Why::Expired)),
        ("exp", "-0".to_owned(), Some(Why::Expired)),
        ("exp", "-1".to_owned(), Some(Why::Expired)),
        ("exp", "-1e300".to_owned(), Some(Why::Expired)),
        ("exp", "-9223372036854775808".to_owned(), Some(Why::Expired)),
        ("exp", "1e-300".to_owned(), Some(Why::Expired)),
        ("nbf", "0".to_owned(), None),
        ("nbf", "-1e300".to_owned(), None),
        ("nbf", format!("{NOW}.5"), None),
        ("nbf", "1e300".to_owned(), Some(Why::NotYetValid)),
        ("nbf", "18446744073709551615".to_owned(), Some(Why::NotYetValid)),
        ("iat", "1e300".to_owned(), None),
        ("iat", "-1".to_owned(), None),
    ];
    for (name, number, expected) in table {
        let exp = if name == "exp" { String::new() } else { format!(",\"exp\":{later}") };
        assert_eq!(refused(&raw(&format!("\"{name}\":{number}{exp}")), &issuers), expected, "{name} {number}");
    }
}

#[test]
fn leeway_is_given_once_on_either_side() {
    for leeway in [0_u64, 5, 60] {
        let entry = Issuer { leeway: Duration::from_secs(leeway), ..issuer(Family::Hmac) };
        let issuers = only(entry, keys(Family::Hmac));
        let span = leeway as i64;
        // RFC 7519, section 4.1.4: not accepted on that moment or after it.
        for (exp, expected) in
            [(1, None), (-span + 1, None), (-span, Some(Why::Expired)), (-span - 1, Some(Why::Expired))]
        {
            let token = usual(Algorithm::HS256, &with(json!({"exp": NOW as i64 + exp})));
            assert_eq!(refused(&token, &issuers), expected, "leeway {leeway}, exp {exp}");
        }
        // Section 4.1.5: not before it.
        for (nbf, expected) in [(0, None), (span, None), (span + 1, Some(Why::NotYetValid))] {
            let token = usual(Algorithm::HS256, &with(json!({"nbf": NOW as i64 + nbf})));
            assert_eq!(refused(&token, &issuers), expected, "leeway {leeway}, nbf {nbf}");
        }
        let token = believed(&usual(Algorithm::HS256, &claims()), &issuers);
        assert_eq!(token.remaining(now()), Duration::from_secs(300 + leeway));
        assert_eq!(token.remaining(at(300 + span - 1)), Duration::from_secs(1));
        assert_eq!(token.remaining(at(300 + span)), Duration::ZERO);
    }
    let forever = believed(&usual(Algorithm::HS256, &with(json!({"exp": 1e300}))), &of(Family::Hmac));
    assert_eq!(forever.remaining(now()), Duration::from_secs(365 * 86_400), "a sum that cannot overflow");
}

#[test]
fn an_audience_is_text_or_texts() {
    let issuers = of(Family::Hmac);
    let open = only(Issuer { audiences: Vec::new(), ..issuer(Family::Hmac) }, keys(Family::Hmac));
    // What an entry with audiences says, and one without.
    for (aud, asked, unasked) in [
        (json!("shop"), None, None),
        (json!("api"), None, None),
        (json!(["shop"]), None, None),
        (json!(["other", "api"]), None, None),
        (json!("other"), Some(Why::Audience), None),
        (json!("Shop"), Some(Why::Audience), None),
        (json!("shop "), Some(Why::Audience), None),
        (json!("shop api"), Some(Why::Audience), None),
        (json!("shop,api"), Some(Why::Audience), None),
        (json!(""), Some(Why::Audience), None),
        (json!("*"), Some(Why::Audience), None),
        (json!([]), Some(Why::Audience), None),
        (json!(["other"]), Some(Why::Audience), None),
        (Value::Null, Some(Why::MissingClaim), None),
        (json!(1), Some(Why::ClaimType), Some(Why::ClaimType)),
        (json!(true), Some(Why::ClaimType), Some(Why::ClaimType)),
        (json!({"shop": true}), Some(Why::ClaimType), Some(Why::ClaimType)),
        (json!(["shop", 1]), Some(Why::ClaimType), Some(Why::ClaimType)),
        (json!([["shop"]]), Some(Why::ClaimType), Some(Why::ClaimType)),
        (json!([null, "shop"]), Some(Why::ClaimType), Some(Why::ClaimType)),
    ] {
        let token = usual(Algorithm::HS256, &with(json!({"aud": aud})));
        assert_eq!(refused(&token, &issuers), asked, "{aud}");
        assert_eq!(refused(&token, &open), unasked, "{aud}, where none is asked for");
    }
    assert_eq!(refused(&raw(&format!("\"exp\":{},\"x\":1", NOW + 300)), &issuers), None);
    let null = format!(r#"{{"iss":"https://id.example","exp":{},"aud":null}}"#, NOW + 300);
    let null = token(Algorithm::HS256, r#"{"alg":"HS256"}"#, &null);
    assert_eq!(refused(&null, &issuers), Some(Why::MissingClaim));
    assert_eq!(refused(&null, &open), Some(Why::ClaimType), "null is a type like any");
}

#[test]
fn an_issuer_is_itself_byte_for_byte() {
    let issuers = of(Family::Hmac);
    for iss in [
        json!("https://id.example/"),
        json!("https://ID.example"),
        json!("HTTPS://id.example"),
        json!("https://id.example:443"),
        json!("http://id.example"),
        json!(" https://id.example"),
        json!("https://id.example\0"),
        json!("https://id.example.evil.example"),
        json!("https://id.exampl"),
        json!(""),
        json!(["https://id.example"]),
        json!({"https://id.example": 1}),
        json!(1),
        json!(true),
    ] {
        assert_eq!(refused(&usual(Algorithm::HS256, &with(json!({"iss": iss}))), &issuers), Some(Why::Issuer), "{iss}");
    }
    assert_eq!(refused(&usual(Algorithm::HS256, &with(json!({"iss": null}))), &issuers), Some(Why::Issuer));
    let escaped = r#"{"alg":"HS256"}.{"iss":"https:\/\/id.ex\u0061mple","aud":"shop","exp":9999999999}"#;
    let (header, payload) = escaped.split_once("}.").unwrap();
    let escaped = sealed(Algorithm::HS256, &format!("{}.{}", encode(format!("{header}}}")), encode(payload)));
    assert_eq!(refused(&escaped, &issuers), None, "another spelling in JSON is the same text");
}

#[test]
fn claims_and_types_that_an_entry_asks_for_must_be_there() {
    let asks = |required: &[&str], typ: Option<&str>| {
        let required = required.iter().map(|name| (*name).to_owned()).collect();
        only(Issuer { required, typ: typ.map(str::to_owned), ..issuer(Family::Hmac) }, keys(Family::Hmac))
    };
    for (changes, expected) in
        [(json!({}), None), (json!({"jti": ""}), None), (json!({"sub": null}), Some(Why::MissingClaim))]
    {
        assert_eq!(
            refused(&usual(Algorithm::HS256, &with(changes.clone())), &asks(&["sub"], None)),
            expected,
            "{changes}"
        );
    }
    let null = format!(r#"{{"iss":"https://id.example","aud":"shop","exp":{},"sub":null}}"#, NOW + 300);
    let null = token(Algorithm::HS256, r#"{"alg":"HS256"}"#, &null);
    assert_eq!(refused(&null, &asks(&["sub"], None)), Some(Why::MissingClaim), "null is not there");
    // RFC 9068, section 4.
    for (typ, expected) in [
        (json!("at+jwt"), None),
        (json!("AT+JWT"), None),
        (json!("application/at+jwt"), None),
        (json!("JWT"), Some(Why::Type)),
        (json!("at+jwt "), Some(Why::Type)),
        (json!(""), Some(Why::Type)),
        (Value::Null, Some(Why::Type)),
    ] {
        let header = if typ.is_null() { json!({"alg": "HS256"}) } else { json!({"alg": "HS256", "typ": typ}) };
        let token = token(Algorithm::HS256, &header.to_string(), &claims().to_string());
        assert_eq!(refused(&token, &asks(&[], Some("at+jwt"))), expected, "{typ}");
        assert_eq!(refused(&token, &asks(&[], None)), None, "{typ}, where none is asked for");
    }
}

#[test]
fn a_clock_before_1970_is_a_clock() {
    let before = std::time::UNIX_EPOCH - Duration::from_secs(10);
    let issuers = of(Family::Hmac);
    let token = |exp: i64| usual(Algorithm::HS256, &with(json!({"exp": exp})));
    assert!(verify(token(-1).as_bytes(), &issuers, before).is_ok());
    assert_eq!(verify(token(-20).as_bytes(), &issuers, before).unwrap_err().why, Why::Expired);
}
