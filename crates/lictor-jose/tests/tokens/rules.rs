//! What routes ask.

use lictor_jose::rules::{Claim, Rules, Test};
use lictor_jose::{Algorithm, Family, Issuer, Kind, Verified, Why};
use serde_json::{Value, json};

use super::signer::usual;
use super::{believed, issuer, keys, only, with};

fn token(changes: Value) -> Verified {
    let entry = Issuer { audiences: Vec::new(), ..issuer(Family::Hmac) };
    believed(&usual(Algorithm::HS256, &with(changes)), &only(entry, keys(Family::Hmac)))
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn judged(rules: &Rules, changes: Value) -> Option<Why> {
    rules.judge(&token(changes)).err().map(|refusal| refusal.why)
}

#[test]
fn scopes_are_whole_words() {
    for (scope, wanted, is_let) in [
        (json!("read write"), &["read"][..], true),
        (json!("read write"), &["write", "read"], true),
        (json!("read write"), &["read", "admin"], false),
        (json!("readwrite"), &["read"], false),
        (json!("read:all"), &["read"], false),
        (json!("read,write"), &["read"], false),
        (json!("read\twrite"), &["read"], false),
        (json!(" read  write "), &["read", "write"], true),
        (json!("READ"), &["read"], false),
        (json!(["read", "write"]), &["read"], true),
        (json!(["read write"]), &["read"], false),
        (json!([["read"]]), &["read"], false),
        (json!({"read": true}), &["read"], false),
        (json!(""), &[""], false),
        (json!("a  b"), &[""], false),
        (json!(1), &["1"], false),
        (json!(null), &["read"], false),
        (json!(null), &[], true),
    ] {
        let rules = Rules { scopes: texts(wanted), ..Rules::default() };
        assert_eq!(judged(&rules, json!({"scope": scope})), (!is_let).then_some(Why::Scope), "{scope} {wanted:?}");
    }
}

#[test]
fn roles_are_whole_texts_wherever_they_are() {
    let rules = |place: &str, roles: &[&str]| Rules {
        roles: texts(roles),
        role_claim: Claim::parse(place).unwrap(),
        ..Rules::default()
    };
    for (changes, place, roles, is_let) in [
        (json!({"role": "admin"}), "role", &["admin", "root"][..], true),
        (json!({"role": "root"}), "role", &["admin", "root"], true),
        (json!({"role": "admins"}), "role", &["admin"], false),
        (json!({"role": "admin user"}), "role", &["admin"], false),
        (json!({"role": ["user", "admin"]}), "role", &["admin"], true),
        (json!({"role": true}), "role", &["true"], false),
        (json!({"role": null}), "role", &["admin"], false),
        (json!({"realm_access": {"roles": ["admin"]}}), "/realm_access/roles", &["admin"], true),
        (json!({"realm_access": {"roles": ["admin"]}}), "realm_access.roles", &["admin"], false),
        (json!({"realm_access.roles": ["admin"]}), "realm_access.roles", &["admin"], true),
        (json!({"realm_access.roles": ["admin"]}), "/realm_access/roles", &["admin"], false),
        (json!({"https://shop.example/roles": ["admin"]}), "https://shop.example/roles", &["admin"], true),
        (json!({"https://shop.example/roles": ["admin"]}), "/https:~1~1shop.example~1roles", &["admin"], true),
        (json!({"a~b": {"": "admin"}}), "/a~0b/", &["admin"], true),
        (json!({"list": ["user", "admin"]}), "/list/1", &["admin"], true),
        (json!({"list": ["user", "admin"]}), "/list/01", &["admin"], false),
        (json!({"list": ["user", "admin"]}), "/list/+1", &["admin"], false),
        (json!({"list": ["admin"]}), "/list/0", &["admin"], true),
        (json!({"list": ["admin"]}), "/list/-", &["admin"], false),
        (json!({"role": "admin"}), "/role/x", &["admin"], false),
    ] {
        let expected = (!is_let).then_some(Why::Role);
        assert_eq!(judged(&rules(place, roles), changes.clone()), expected, "{changes} {place} {roles:?}");
    }
    for wrong in ["", "/a~", "/a~2", "/~"] {
        assert_eq!(Claim::parse(wrong), None, "{wrong:?}");
    }
    assert_eq!(Claim::parse("a~b").unwrap().text(), "a~b", "a name is no pointer");
}

#[test]
fn a_claim_is_of_the_type_that_is_asked_for() {
    let one_of = |values: &[Value]| Test::OneOf(values.to_vec());
    for (value, test, is_let) in [
        (json!(true), one_of(&[json!(true)]), true),
        (json!("true"), one_of(&[json!(true)]), false),
        (json!(true), one_of(&[json!("true")]), false),
        (json!(1), one_of(&[json!(1)]), true),
        (json!("1"), one_of(&[json!(1)]), false),
        (json!("gold"), one_of(&[json!("gold"), json!("silver")]), true),
        (json!("Gold"), one_of(&[json!("gold")]), false),
        (json!(["bronze", "gold"]), one_of(&[json!("gold")]), true),
        (json!([["gold"]]), one_of(&[json!("gold")]), false),
        (json!({"gold": 1}), one_of(&[json!("gold")]), false),
        (json!("x"), one_of(&[]), false),
        (json!(null), one_of(&[json!(null)]), false),
        (json!(""), Test::Exists, true),
        (json!(false), Test::Exists, true),
        (json!(null), Test::Exists, false),
    ] {
        let rules = Rules { claims: vec![(Claim::parse("plan").unwrap(), test.clone())], ..Rules::default() };
        assert_eq!(judged(&rules, json!({"plan": value})), (!is_let).then_some(Why::ClaimRule), "{value} {test:?}");
    }
}

#[test]
fn what_is_for_others_is_401_and_what_lacks_something_403() {
    let table = [
        (Rules { issuers: texts(&["id"]), ..Rules::default() }, None),
        (Rules { issuers: texts(&["other"]), ..Rules::default() }, Some((Why::NotForRoute, Kind::InvalidToken))),
        (Rules { audiences: texts(&["shop"]), ..Rules::default() }, None),
        (Rules { audiences: texts(&["admin"]), ..Rules::default() }, Some((Why::NotForRoute, Kind::InvalidToken))),
        (Rules { scopes: texts(&["admin"]), ..Rules::default() }, Some((Why::Scope, Kind::InsufficientScope))),
        (Rules { roles: texts(&["admin"]), ..Rules::default() }, Some((Why::Role, Kind::InsufficientScope))),
        (Rules::default(), None),
    ];
    for (rules, expected) in table {
        let found = rules.judge(&token(json!({}))).err().map(|refusal| (refusal.why, refusal.kind()));
        assert_eq!(found, expected, "{rules:?}");
    }
    let audience = Rules { audiences: texts(&["shop"]), ..Rules::default() };
    assert_eq!(judged(&audience, json!({"aud": null})), Some(Why::NotForRoute), "no audience is none of ours");
}
