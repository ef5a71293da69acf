//! What `lictor explain` says of a request that shows who it is from, in each way; and that it repeats no credential.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lictor_testkit::{Authority, RawServer, Sidecar};
use serde_json::json;

use crate::issuer::{SECRET, claims, shared};
use crate::keys::hash;
use crate::{echo, gateway_of, says};

const KEY: &str = "partner-0123456789abcdefghij";
/// Nobody's.
const WRONG: &str = "reader-0123456789abcdefghij";

fn explain(lictor: &Sidecar, url: &str, fields: &[&str]) -> String {
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    says(&[&["explain", "GET", url, "--admin", &lictor.admin()], &fields[..]].concat())
}

#[test]
fn each_way_says_what_it_takes_and_what_it_refuses() {
    let (one, judge) = (echo("one"), RawServer::saying(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    // `secret`, by crypt(3).
    let password = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let auth = format!(
        "  auth:\n    jwt: {{name: idp, secret: {SECRET}}}\n    from: {{query: token}}\n    keys: {{query: key, clients: {{partner: {{keys: '{}', roles: [partner]}}}}}}\n    basic: {{users: {{ada: '{password}'}}}}\n    forward: {{to: judge, path: /check, headers_out: [X-Session]}}\n",
        hash(KEY)
    );
    let routes = "    - {path: /*, to: one}
    - {path: /keys, to: one, auth: {by: [keys]}}
    - {path: /words, to: one, auth: {by: [basic, jwt]}}
    - {path: /partners, to: one, auth: {require: {roles: [partner]}}}
    - {path: /guest, to: one, auth: {mode: optional, by: [keys]}}
    - {path: /open, to: one, auth: none}
    - {path: /told, respond: {body: told}}
    - {path: /whose, to: judge, when: {role: partner}}
    - {path: /whose, to: one}
    - {path: /mine, to: one, when: {role: partner, tenant: acme}}\n";
    let lictor = gateway_of(&[("one", &one), ("judge", &judge)], &auth, routes);
    let key = format!("X-API-Key: {KEY}");
    let wrong = format!("X-API-Key: {WRONG}");
    let basic = |pair: &str| format!("Authorization: Basic {}", BASE64_STANDARD.encode(pair));
    let (ada, eve) = (basic("ada:secret"), basic("ada:wrong-password"));
    let token = shared(&claims(json!({"role": "partner"})));
    let bearer = format!("Authorization: Bearer {token}");
    let session = "X-Session: session-0123456789";
    let in_query = format!("/x?a=b&key={KEY}");
    let token_in_query = format!("/x?token={token}&a=b");
    let secrets = [KEY, WRONG, "session-0123456789", token.as_str(), &ada[21..], &eve[21..], "wrong-password"];
    for (target, fields, parts) in [
        ("/x", &[key.as_str()][..], &["to one as /x", "this is partner, by keys."][..]),
        (&in_query, &[], &["to one as /x?a=b.", "this is partner, by keys."]),
        (
            "/x",
            &[&wrong],
            &["refuses (keys): unknown_key: nobody's API key", "an API key (x-api-key, the parameter key)"],
        ),
        (
            "/keys",
            &[],
            &[
                "refuses (all ways): missing: no credential",
                "what passes is an API key (x-api-key, the parameter key), where",
            ],
        ),
        ("/keys", &[&bearer], &["refuses (all ways): missing"]),
        ("/x", &[&ada], &["this is ada, by basic."]),
        ("/x", &[&eve], &["refuses (basic): unknown_key", "a name and a password (Authorization: Basic)"]),
        (
            "/words",
            &[],
            &["what passes is a token of idp (Authorization: Bearer, the parameter token), or a name and a password"],
        ),
        ("/x", &[&bearer], &["this is alice, by jwt."]),
        (&token_in_query, &[], &["to one as /x?a=b.", "this is alice, by jwt."]),
        ("/x", &["Authorization: Bearer no.to.ken"], &["refuses (jwt): base64"]),
        ("/x", &[&key, &bearer], &["refuses (all ways): several_credentials"]),
        (
            "/partners",
            &[&ada],
            &["refuses (basic): role: none of the roles is there", "what passes: required, roles partner"],
        ),
        ("/partners", &[&key], &["this is partner, by keys."]),
        ("/x", &[session], &["Auth: required; judge would be asked, and its answer decides."]),
        ("/x", &[session, session], &["refuses (forward): several_credentials"]),
        ("/x", &[], &["what judge says yes to (x-session)"]),
        ("/guest", &[], &["Auth: optional."]),
        ("/guest", &[&wrong], &["refuses (keys): unknown_key"]),
        ("/open", &[&wrong], &["Auth: none."]),
        ("/told", &[&key], &["the route /told answers by itself: 200 OK"]),
        ("/told", &[], &["refuses (all ways): missing"]),
        ("/whose", &[&key], &["the route /whose (when role = partner), to judge"]),
        ("/whose", &[&ada], &["the route /whose, to one"]),
        ("/whose", &[session], &["the route /whose, to one", "judge would be asked, and its answer decides"]),
        ("/mine", &[session], &["(when role = partner, tenant = acme), to one", "judge would be asked"]),
        ("/mine", &[&key], &["refuses (keys): claim: ", "when role = partner, tenant = acme"]),
    ] {
        let told = explain(&lictor, &format!("http://shop.example{target}"), fields);
        assert!(parts.iter().all(|part| told.contains(part)), "{target} {fields:?} {parts:?}: {told}");
        assert!(secrets.iter().all(|secret| !told.contains(secret)), "{target} {fields:?}: {told}");
    }
    assert_eq!(judge.connections(), 0, "nobody is asked");
}

#[test]
fn a_certificate_is_told_to_decide() {
    let (authority, one) = (Authority::new(), echo("one"));
    let pair = authority.issue("server", &["shop.example"]);
    let keys = format!(
        "  tls: {{cert: '{}', key: '{}', client_ca: '{}', require: false}}\n  auth: {{certificates: true, keys: {{clients: {{partner: '{}'}}}}}}\n",
        pair.cert.display(),
        pair.key.display(),
        authority.ca().display(),
        hash(KEY)
    );
    let lictor = gateway_of(&[("one", &one)], &keys, "    - {path: /*, to: one}\n");
    let wrong = format!("X-API-Key: {WRONG}");
    for (fields, parts) in [
        (&[][..], &["Auth: required; the certificate of the client's connection decides."][..]),
        (&[wrong.as_str()], &["refuses (keys): unknown_key", "an API key (x-api-key), or a client certificate"]),
    ] {
        let told = explain(&lictor, "https://shop.example/x", fields);
        assert!(parts.iter().all(|part| told.contains(part)), "{fields:?}: {told}");
    }
}
