//! What pebble cannot be made to say, said by a scripted directory.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_core::acme::rest;
use lictor_testkit::{Authority, RawServer, eventually, eventually_is, read_head};
use parking_lot::Mutex;
use rustls::version::TLS13;
use serde_json::{Value as Json, json};

use crate::acme::{Folder, events, rename, serving, shown};
use crate::{echo, field};

/// What was asked of a directory: a path, and what was said there.
type Asked = Arc<Mutex<Vec<(String, Json)>>>;

/// A directory that says what pebble does not: scripted, it issues nothing. Each answer is for one POST to a path; with a window
/// it says when it wants certificates renewed.
fn scripted(answers: Vec<(&'static str, &'static str, &'static str)>, window: Option<[u64; 2]>) -> (RawServer, Asked) {
    let asked = Asked::default();
    let (seen, turns) = (Arc::clone(&asked), Arc::new(Mutex::new(vec![0; answers.len()])));
    let server = RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let host = field(&head, "host").unwrap_or_default();
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let (status, fields, body) = match (method, path) {
            ("GET", "/dir") => {
                let at = |path: &str| format!("http://{host}/{path}");
                let mut body = json!({ "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order") });
                if window.is_some() {
                    body["renewalInfo"] = at("ari").into();
                }
                ("200 OK", "", body.to_string())
            }
            ("GET", path) => {
                seen.lock().push((path.to_owned(), Json::Null));
                let at = |time: u64| humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(time)).to_string();
                let window = window.map(|[start, end]| json!({ "start": at(start), "end": at(end) }));
                ("200 OK", "Retry-After: 21600", json!({ "suggestedWindow": window }).to_string())
            }
            ("HEAD", _) => ("200 OK", "", String::new()),
            (_, path) => {
                let signed: Json = serde_json::from_slice(&body).unwrap_or_default();
                let said = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default()).unwrap();
                seen.lock().push((path.to_owned(), serde_json::from_slice(&said).unwrap_or_default()));
                let mut turns = turns.lock();
                let next = answers.iter().enumerate().find(|(index, (of, ..))| *of == path && turns[*index] == 0);
                match next {
                    Some((index, (_, status, problem))) => {
                        turns[index] = 1;
                        let (fields, problem) = problem.split_once("\n\n").unwrap_or(("", problem));
                        (*status, fields, problem.to_owned())
                    }
                    None => ("500 Internal Server Error", "", json!({ "type": "urn:ietf:params:acme:error:serverInternal", "detail": "nothing is left to say" }).to_string()),
                }
            }
        };
        let [fields, body] = [fields, &body].map(|text| text.replace("DIRECTORY", host));
        let more = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nReplay-Nonce: n{length}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    });
    (server, asked)
}

/// A policy with that directory.
fn of_scripted(server: &RawServer, hosts: &str, storage: &Folder) -> String {
    format!(
        "    - {{hosts: {hosts}, acme: {{directory: 'http://127.0.0.1:{}/dir', storage: '{}', terms_agreed: true, challenge: tls-alpn-01}}}}\n",
        server.port(),
        storage.0.display()
    )
}

/// The folder of what is kept of it.
fn folder_of(server: &RawServer, storage: &Folder) -> PathBuf {
    let folder = storage.0.join(format!("127.0.0.1_{}_dir", server.port()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

const ACCOUNT: (&str, &str, &str) = ("/account", "201 Created", "Location: http://127.0.0.1/account/1\n\n{}");

#[test]
fn a_certificate_is_renewed_when_its_ca_wants_that() {
    const DAY: u64 = 86_400;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (authority, far) = (Authority::new(), UNIX_EPOCH + Duration::from_secs(now + 5 * 365 * DAY));
    for (what, ends, window, is_renewed) in [
        ("it is good for long, and is to be renewed now", None, [now - DAY, now - 60], true),
        ("it is good for long, and so the CA says", None, [now + DAY, now + 2 * DAY], false),
        ("two thirds of its life are over, and there is time", Some(far), [now + DAY, now + 2 * DAY], false),
    ] {
        let (storage, one) = (Folder::new(), echo("one"));
        let refused =
            ("/order", "403 Forbidden", r#"{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no"}"#);
        let (server, seen) = scripted(vec![ACCOUNT, refused], Some(window));
        let folder = folder_of(&server, &storage);
        let pair = match ends {
            Some(ends) => authority.issue_until("shop", &["shop.example"], ends),
            None => authority.issue("shop", &["shop.example"]),
        };
        let parts = [&pair.key, &pair.cert].map(|path| fs::read_to_string(path).unwrap());
        fs::write(folder.join("shop.example.pem"), parts.concat()).unwrap();
        // As it was written down when the certificate came, three days ago, and what the CA has said since.
        let life =
            rest(now - 3 * DAY, ends.map_or(u64::MAX, |ends| ends.duration_since(UNIX_EPOCH).unwrap().as_secs()));
        let known = json!({ "window": ends.map(|_| window), "not_before": now - 3 * DAY + life.as_secs() });
        fs::write(folder.join("shop.example.json"), known.to_string()).unwrap();
        let policies = of_scripted(&server, "shop.example", &storage);
        let lictor = serving(&policies, "  listen: 127.0.0.1:0\n", &one);
        let noted = eventually_is(
            "the window is known",
            || storage.progress("shop.example"),
            |noted| noted["asked_again"].as_u64() >= Some(now + 21_000) || noted["failures"] == 1,
        );
        assert!(seen.lock()[0].0.starts_with("/ari/") && seen.lock()[0].0.contains('.'), "{what}: {seen:?}");
        if is_renewed {
            let told =
                eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
            let id = seen.lock()[0].0.trim_start_matches("/ari/").to_owned();
            let order = seen.lock().iter().find(|(path, _)| path == "/order").unwrap().1.clone();
            assert_eq!(order["replaces"], id.as_str(), "{what}: {order} {told:?}");
        } else {
            assert_eq!(noted["window"], json!(window), "{what}");
            // Another host's turn comes after this one's would have.
            rename(&lictor, "[shop.example, new.example]", "");
            eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
            eventually_is("the order is noted", || storage.progress("new.example"), |noted| noted["failures"] == 1);
            let orders: Vec<Json> =
                seen.lock().iter().filter(|(path, _)| path == "/order").map(|(_, said)| said.clone()).collect();
            assert_eq!(orders.len(), 1, "{what}: {orders:?}");
            assert_eq!(orders[0]["identifiers"][0]["value"], "new.example", "{what}: {orders:?}");
        }
    }
}

#[test]
fn what_a_ca_says_of_itself_is_followed() {
    const BAD: (&str, &str, &str) =
        ("/account", "400 Bad Request", r#"{"type": "urn:ietf:params:acme:error:badNonce", "detail": "stale"}"#);
    const LIMITED: &str = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
    const REFUSED: &str = r#"{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no"}"#;
    const LATER: &str =
        "Retry-After: 7200\n\n{\"type\": \"urn:ietf:params:acme:error:rateLimited\", \"detail\": \"too many\"}";
    const BUSY: &str =
        "Retry-After: 300\n\n{\"type\": \"urn:ietf:params:acme:error:serverInternal\", \"detail\": \"later\"}";
    const ENDLESS: &str = concat!(
        "Location: http://DIRECTORY/order/1\r\nRetry-After: 18446744073709551615\n\n",
        r#"{"status": "pending", "identifiers": [], "authorizations": [], "finalize": "http://DIRECTORY/finalize"}"#
    );
    const PLACED: &[&str] = &["/account", "/order"];
    let order = |status, says| ("/order", status, says);
    let many = "the CA says rateLimited: too many";
    for (what, answers, asked, said, waits) in [
        (
            "a stale nonce",
            vec![BAD, BAD, ACCOUNT, order("429 Too Many Requests", LATER)],
            &["/account", "/account", "/account", "/order"][..],
            many,
            7200..7201,
        ),
        ("too many, for so long", vec![ACCOUNT, order("429 Too Many Requests", LATER)], PLACED, many, 7200..7201),
        ("too many", vec![ACCOUNT, order("429 Too Many Requests", LIMITED)], PLACED, many, 3600..3601),
        ("a refusal", vec![ACCOUNT, order("403 Forbidden", REFUSED)], PLACED, "the CA says unauthorized: no", 60..76),
        (
            "out of order",
            vec![ACCOUNT, order("503 Service Unavailable", BUSY)],
            PLACED,
            "serverInternal: later",
            300..301,
        ),
        ("no word", vec![ACCOUNT], PLACED, "serverInternal: nothing is left to say", 60..76),
        ("no order", vec![ACCOUNT, order("201 Created", "{}")], PLACED, "JSON", 60..76),
        (
            "a wait without end",
            vec![ACCOUNT, order("201 Created", ENDLESS), ("/order/1", "200 OK", ENDLESS)],
            &["/account", "/order", "/order/1"],
            "timed out",
            60..76,
        ),
    ] {
        let (storage, one) = (Folder::new(), echo("one"));
        let (server, seen) = scripted(answers, None);
        let policies = of_scripted(&server, "shop.example", &storage);
        let lictor = serving(&policies, "  listen: 127.0.0.1:0\n", &one);
        let told = eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
        assert!(told[0]["why"].as_str().unwrap().contains(said), "{what}: {told:?}");
        assert_eq!(seen.lock().iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), asked, "{what}");
        let wait = humantime::parse_duration(told[0]["again"].as_str().unwrap()).unwrap().as_secs();
        assert!(waits.contains(&wait), "{what}: {told:?}");
    }
}

#[test]
fn a_ca_is_not_asked_for_what_cannot_be_written_down() {
    let (storage, one) = (Folder::new(), echo("one"));
    let (server, seen) = scripted(vec![ACCOUNT], None);
    // Where it is written down how far the order is, nothing can be.
    let blocked = folder_of(&server, &storage).join("shop.example.json");
    fs::create_dir(&blocked).unwrap();
    let lictor = serving(&of_scripted(&server, "shop.example", &storage), "  listen: 127.0.0.1:0\n", &one);
    let told = |least: usize| {
        eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| told.len() >= least)
    };
    let again = |line: &Json| humantime::parse_duration(line["again"].as_str().unwrap()).unwrap().as_secs();
    let first = told(1);
    assert!(first[0]["why"].as_str().unwrap().contains("cannot be written down"), "{first:?}");
    let second = told(2);
    assert_eq!((second.len(), again(&second[0]) >= 5, again(&second[1]) >= 10), (2, true, true), "{second:?}");
    assert!(seen.lock().is_empty(), "{seen:?}");
    // And then it can.
    fs::remove_dir(&blocked).unwrap();
    eventually_is("it is asked", || seen.lock().clone(), |seen| seen.iter().any(|(path, _)| path == "/account"));
}

#[test]
fn an_order_that_a_ca_has_lost_is_not_asked_for_again() {
    const PROBLEM: &str = r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "no such order"}"#;
    for (what, status, body, is_over, said) in [
        ("its problem", "404 Not Found", PROBLEM, true, "the CA says malformed: no such order"),
        ("a page", "404 Not Found", "<html>", true, "the CA says 404 Not Found: no detail"),
        ("no word", "410 Gone", "", true, "the CA says 410 Gone: no detail"),
        ("a request that is bad", "400 Bad Request", "<html>", true, "the CA says 400 Bad Request: no detail"),
        ("too many", "429 Too Many Requests", "<html>", false, "the CA says rateLimited: 429 Too Many Requests"),
        ("what is in front of it", "502 Bad Gateway", "<html>", false, "the CA answers 502 Bad Gateway"),
    ] {
        let (storage, one) = (Folder::new(), echo("one"));
        let (server, _) = scripted(vec![ACCOUNT, ("/order/1", status, body)], None);
        let url = format!("http://127.0.0.1:{}/order/1", server.port());
        let known = json!({ "order": url, "key": "none", "failures": 1 });
        fs::write(folder_of(&server, &storage).join("shop.example.json"), known.to_string()).unwrap();
        let lictor = serving(&of_scripted(&server, "shop.example", &storage), "  listen: 127.0.0.1:0\n", &one);
        let told = eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
        assert!(told[0]["why"].as_str().unwrap().contains(said), "{what}: {told:?}");
        let progress = storage.progress("shop.example");
        let kept = (progress["order"].as_str(), progress["key"].as_str());
        assert_eq!(kept, if is_over { (None, None) } else { (Some(&*url), Some("none")) }, "{what}");
    }
}

#[test]
fn an_account_that_its_ca_does_not_know_is_made_anew() {
    const UNKNOWN: (&str, &str, &str) =
        ("/order", "400 Bad Request", r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist", "detail": "who"}"#);
    let (storage, one) = (Folder::new(), echo("one"));
    let (server, seen) = scripted(vec![ACCOUNT, UNKNOWN, ACCOUNT], None);
    let policies = of_scripted(&server, "shop.example", &storage);
    let lictor = serving(&policies, "  listen: 127.0.0.1:0\n", &one);
    let told = eventually_is("it is told", || events(&lictor, "certificate_not_issued"), |told| !told.is_empty());
    assert!(told[0]["why"].as_str().unwrap().contains("accountDoesNotExist"), "{seen:?}");
    assert!(storage.file("_account.lost").exists() && !storage.file("_account.json").exists());
    // Another host's order makes another one.
    rename(&lictor, "[shop.example, new.example]", "");
    eventually_is("it is there", || storage.file("_account.json").exists(), |is_there| *is_there);
    assert_eq!(seen.lock().iter().filter(|(path, _)| path == "/account").count(), 2);
}

#[test]
fn a_certificate_that_is_gone_is_told() {
    let (authority, storage, one) = (Authority::new(), Folder::new(), echo("one"));
    let (server, _) = scripted(Vec::new(), None);
    let pair = authority.issue("shop", &["shop.example"]);
    let file = folder_of(&server, &storage).join("shop.example.pem");
    fs::write(&file, [&pair.key, &pair.cert].map(|path| fs::read_to_string(path).unwrap()).concat()).unwrap();
    let lictor = serving(&of_scripted(&server, "shop.example", &storage), "  listen: 127.0.0.1:0\n", &one);
    let ours = authority.client_config(&[b"http/1.1"], &[&TLS13], None);
    eventually("it is shown", || shown(&lictor, &ours, "shop.example"));
    fs::remove_file(&file).unwrap();
    let told = eventually_is("it is told", || events(&lictor, "certificate_rejected"), |told| !told.is_empty());
    assert!(told[0]["message"].as_str().unwrap().contains("the earlier certificate stays in use"), "{told:?}");
    assert!(lictor.metric("lictor_certificate_rejected", &[]) > 0.5);
    assert!(shown(&lictor, &ours, "shop.example").is_ok());
}

#[test]
fn what_is_written_down_holds_up_what_has_failed_and_nothing_else() {
    const DAY: u64 = 86_400;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (storage, one) = (Folder::new(), echo("one"));
    let (server, _) = scripted(vec![ACCOUNT], None);
    let folder = folder_of(&server, &storage);
    for (host, known) in [
        ("waits", json!({ "failures": 1, "not_before": now + DAY })),
        ("gone", json!({ "failures": 0, "not_before": now + DAY })),
        // By a clock that was ahead.
        ("ahead", json!({ "failures": 1, "not_before": now + 30 * DAY })),
    ] {
        fs::write(folder.join(format!("{host}.example.json")), known.to_string()).unwrap();
    }
    let policies = of_scripted(&server, "[waits.example, gone.example, ahead.example]", &storage);
    let lictor = serving(&policies, "  listen: 127.0.0.1:0\n", &one);
    let told = eventually_is("both are told", || events(&lictor, "certificate_not_issued"), |told| told.len() >= 2);
    let mut hosts: Vec<_> = told.iter().map(|line| line["host"].as_str().unwrap()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["ahead.example", "gone.example"]);
}
