//! Keys of issuers (JWKS): when they are fetched, what holds while they cannot be had, and how long they are believed.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine;
use lictor_testkit::{Authority, Delays, Sidecar, connect, eventually_is, free_ports, read_head};
use serde_json::{Value as Json, json};

use crate::issuer::{Idp, Key, Says, claims, in_seconds, set};
use crate::jwt::get;
use crate::{
    Ask, BOTH, LICTOR, Version, ask, begun_http2, block, configuration, echo, frame, gateway_of, next_frame, pipelined,
    status,
};

/// The gateway of these tests: an issuer whose keys are at `idp`.
fn issuers(idp: &str, more: &str) -> String {
    format!("  auth:\n    jwt: {{name: idp, jwks: '{idp}', algorithms: [EdDSA]{more}}}\n")
}

#[test]
fn keys_that_cannot_be_had_are_503_and_keys_that_were_had_stay() {
    let one = echo("one");
    let (key, other) = (Key::new("a", 1), Key::new("c", 2));
    let [good, of_other] = [&key, &other].map(|key| key.token(&claims(json!({}))));
    let usual = set(&[&key]);
    let bad = json!({"keys": [{"kty": "AKP", "kid": "pq"}, {"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"}]});
    let mixed = json!({"keys": [{"kty": "AKP", "kid": "pq"}, key.jwk()]});
    let [closed] = free_ports();
    let too_long = format!("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n{}", " ".repeat(2_000_000));
    let elsewhere = Idp::start(Says::Set(usual.clone(), ""));
    let leads = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    let bad_ways = [
        ("500", Says::Status(500)),
        ("garbage", Says::Raw(b"\x00\x01SSH-2.0\r\n\r\n".to_vec())),
        ("no JSON", Says::Set("<html>".to_owned(), "")),
        ("empty", Says::Set("{\"keys\":[]}".to_owned(), "")),
        ("no usable key", Says::Set(bad.to_string(), "")),
        ("too long", Says::Raw(too_long.into_bytes())),
        ("elsewhere", Says::Raw(leads.into_bytes())),
        ("slow", Says::Nothing),
    ];
    let closed = format!("http://127.0.0.1:{closed}/");
    let with = |url: &str, routes: &str| {
        let usual = "    - {path: /*, to: one}\n    - {path: /guest, to: one, auth: optional}\n    - {path: /public, to: one, auth: none}\n";
        configuration(&[("one", &one)], "", &issuers(url, ""), &format!("{usual}{routes}"))
    };
    let start = |url: &str| Sidecar::serve(LICTOR, &with(url, "")).up();
    let reload = |lictor: &Sidecar, url: &str| {
        lictor.rewrite(&with(url, "    - {path: /other, to: one}\n"));
        let answer = lictor.post("/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let is_503 = |lictor: &Sidecar, name: &str| {
        let told = BOTH.map(|version| get(lictor, version, "/other", &good));
        assert!(told.iter().all(|told| told.status == 503), "{name}: {told:?}");
    };
    let best_p99 = |lictor: &Sidecar| (0..4).map(|_| p99(lictor, &good)).min().unwrap();
    let delays = Delays::measure();
    let mut longest = Duration::ZERO;
    let mut is_unavailable = |lictor: &Sidecar, name: &str| {
        for version in BOTH {
            for target in ["/", "/guest"] {
                let began = Instant::now();
                let told = get(lictor, version, target, &good);
                assert_eq!(told.status, 503, "{name} {version:?} {target}: {told:?}");
                assert!(told.body.contains("\"reason\":\"auth_unavailable\""), "{name}: {told:?}");
                longest = longest.max(began.elapsed());
                let asks = told.head.to_lowercase().contains("www-authenticate") || told.head.contains("realm=");
                assert!(!asks, "{name} {version:?}: nothing that he could show would help: {told:?}");
            }
            assert_eq!(ask(lictor, version, Ask::get("/public")).status, 200, "{name}");
            assert_eq!(ask(lictor, version, Ask::get("/guest")).status, 200, "{name}");
            assert_eq!(ask(lictor, version, Ask::get("/")).status, 401, "{name}");
        }
    };
    is_unavailable(&start(&closed), "nobody there");
    for (name, says) in &bad_ways {
        // At the start; a reload changes nothing of that.
        let idp = Idp::start(says.clone());
        let lictor = start(&idp.url());
        is_unavailable(&lictor, name);
        reload(&lictor, &idp.url());
        is_503(&lictor, name);
        // It comes back; a slow one is given up after 10 s.
        idp.says(Says::Set(mixed.to_string(), ""));
        eventually_is(name, || get(&lictor, Version::Http1, "/", &good).status, |status| *status == 200);
        // While it runs: a kid that nobody knows has the keys fetched, and those from before stay.
        let idp = Idp::start(Says::Set(usual.clone(), ""));
        let lictor = start(&idp.url());
        eventually_is(name, || get(&lictor, Version::Http1, "/", &good).status, |status| *status == 200);
        let is_slow = *name == "slow";
        let undisturbed = is_slow.then(|| best_p99(&lictor));
        idp.says(says.clone());
        let before = idp.asked();
        assert_eq!(get(&lictor, Version::Http1, "/", &key.named("b", &claims(json!({})))).status, 401, "{name}");
        eventually_is(name, || idp.asked(), |asked| *asked > before);
        for version in BOTH {
            assert_eq!(get(&lictor, version, "/", &good).status, 200, "{name}: the keys from before stay");
        }
        if let Some(undisturbed) = undisturbed {
            let beside = best_p99(&lictor);
            let figures = format!("p99 {undisturbed:?}, {beside:?} while the issuer says nothing");
            assert!(beside < undisturbed * 3 + Duration::from_millis(10), "{figures}");
        }
        // A reload takes them along.
        reload(&lictor, &idp.url());
        for version in BOTH {
            assert_eq!(get(&lictor, version, "/other", &good).status, 200, "{name} {version:?}: after a reload");
        }
        // And not to another place, whose keys they are not.
        let moved = Idp::start(says.clone());
        reload(&lictor, &moved.url());
        is_503(&lictor, name);
        if *name == "500" {
            moved.says(Says::Set(set(&[&other]), ""));
            eventually_is(name, || get(&lictor, Version::Http1, "/", &of_other).status, |status| *status == 200);
            for version in BOTH {
                assert_eq!(get(&lictor, version, "/", &good).status, 401, "{name} {version:?}");
            }
        }
    }
    let delay = *delays.finish().last().unwrap();
    assert!(longest < Duration::from_millis(1_200) + 6 * delay, "{longest:?}, the machine's delays {delay:?}");
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
}

#[test]
fn another_key_is_fetched_as_its_first_token_comes_and_one_that_is_gone_is_not_believed() {
    let one = echo("one");
    let (old, new) = (Key::new("old", 1), Key::new("new", 2));
    let idp = Idp::start(Says::Set(set(&[&old]), "Cache-Control: max-age=3600\r\n"));
    let lictor = gateway_of(&[("one", &one)], &issuers(&idp.url(), ""), "    - {path: /*, to: one}\n");
    let (of_old, of_new) = (old.token(&claims(json!({}))), new.token(&claims(json!({}))));
    eventually_is("keys", || get(&lictor, Version::Http1, "/", &of_old).status, |status| *status == 200);
    idp.says(Says::Set(set(&[&new]), "Cache-Control: max-age=3600\r\n"));
    assert_eq!(get(&lictor, Version::Http2, "/", &of_new).status, 200, "the first token waits for its key");
    for version in BOTH {
        assert_eq!(get(&lictor, version, "/", &of_old).status, 401, "known, and its key is gone");
        assert_eq!(get(&lictor, version, "/", &of_new).status, 200);
    }
    assert_eq!(idp.asked(), 2);
}

/// The time that all but one of a hundred took at most, by a token that is known, on one connection.
fn p99(lictor: &Sidecar, token: &str) -> Duration {
    let mut stream = connect(&lictor.address("gateway"));
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(pipelined(&mut stream, text.as_bytes(), 1), [200]);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[297]
}

/// So many refused requests, one after the other, until it is over.
fn flood(address: &str, version: Version, is_over: &AtomicBool, token: impl Fn(usize) -> String) -> usize {
    let mut stream = connect(address);
    if version == Version::Http2 {
        stream.write_all(&begun_http2()).unwrap();
    }
    let mut count = 0;
    while count < 10_000 || !is_over.load(Relaxed) {
        let statuses: Vec<u16> = match version {
            Version::Http1 => {
                let ask =
                    |number| format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", token(number));
                let text: String = (count..count + 10).map(ask).collect();
                pipelined(&mut stream, text.as_bytes(), 10)
            }
            Version::Http2 => {
                let ask = |number| {
                    let bearer = format!("Bearer {}", token(number));
                    let fields = [("authorization", &*bearer)];
                    frame(1, 5, number as u32 * 2 + 1, &block(Ask { fields: &fields, ..Ask::get("/") }))
                };
                // The window of the whole connection (RFC 9113, section 6.9.1).
                let room = frame(8, 0, 0, &10_000_u32.to_be_bytes());
                stream.write_all(&(count..count + 10).flat_map(ask).chain(room).collect::<Vec<u8>>()).unwrap();
                let heads = std::iter::from_fn(|| next_frame(&mut stream)).filter(|frame| frame.kind == 1);
                heads.take(10).map(|head| status(&head.payload)).collect()
            }
        };
        assert_eq!(statuses.len(), 10, "{version:?}");
        assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
        count += 10;
    }
    count
}

#[test]
fn a_flood_of_unknown_keys_is_one_fetch_and_nobody_waits_for_it() {
    let one = echo("one");
    let key = Key::new("a", 1);
    let idp = Idp::start(Says::Set(set(&[&key]), ""));
    let lictor = gateway_of(&[("one", &one)], &issuers(&idp.url(), ""), "    - {path: /*, to: one}\n");
    let good = key.token(&claims(json!({})));
    eventually_is("keys", || get(&lictor, Version::Http1, "/", &good).status, |status| *status == 200);
    let address = lictor.address("gateway");
    // The best of a few: other tests run on this machine too. What a flood costs that has nothing to do with keys is measured
    // likewise, by tokens that are none.
    let beside = |version: Version, token: &(dyn Fn(usize) -> String + Sync)| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| flood(&address, version, &is_over, token));
            let best = (0..4).map(|_| p99(&lictor, &good)).min().unwrap();
            is_over.store(true, Relaxed);
            (best, flooding.join().unwrap())
        })
    };
    let before = (0..4).map(|_| p99(&lictor, &good)).min().unwrap();
    let began = Instant::now();
    for version in BOTH {
        let (beside_nonsense, _) = beside(version, &|number| format!("a.b.c{number}"));
        let kid = |kid: usize| key.named(&format!("{version:?}{kid}"), &json!({"exp": 9_999_999_999_u64}));
        let (beside_flood, count) = beside(version, &kid);
        let figures = format!(
            "{version:?}: p99 {before:?}, {beside_nonsense:?} beside nonsense, {beside_flood:?} beside {count} kids"
        );
        eprintln!("{figures}");
        assert!(beside_flood < before.max(beside_nonsense) * 3 + Duration::from_millis(10), "{figures}");
    }
    let cooldowns = began.elapsed().as_secs() as usize / 30 + 1;
    assert!(idp.asked() <= 1 + cooldowns, "{} fetches within {:?}", idp.asked(), began.elapsed());
    assert!(idp.unchanged() <= cooldowns);
}

#[test]
fn keys_by_https_are_those_of_whom_the_system_believes() {
    let one = echo("one");
    let key = Key::new("a", 1);
    let good = key.token(&claims(json!({})));
    let authority = Authority::new();
    let ca = authority.ca().display().to_string();
    let of = |name| authority.issue(name, &["127.0.0.1"]);
    for (name, pair, is_believed, is_had) in [
        ("its own", of("good"), true, true),
        ("of a CA that nobody knows", of("unknown"), false, false),
        ("of another name", authority.issue("other", &["idp.example"]), true, false),
        ("that is over", authority.issue_expired("over", &["127.0.0.1"]), true, false),
    ] {
        let body = set(&[&key]);
        let idp = authority.server(&pair, &[], false, move |mut stream| {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            while !read_head(&mut stream).is_empty() && stream.write_all(answer.as_bytes()).is_ok() {}
        });
        let auth = issuers(&format!("https://127.0.0.1:{}/keys", idp.port()), "");
        let text = configuration(&[("one", &one)], "", &auth, "    - {path: /*, to: one}\n");
        let env = [("SSL_CERT_FILE", &*ca)];
        let lictor = Sidecar::start(LICTOR, &text, &env[..usize::from(is_believed)], &["serve"], &[]).up();
        let (event, status) = if is_had { ("keys_fetched", 200) } else { ("keys_unfetched", 503) };
        eventually_is(name, || lictor.log(), |log| log.contains(event));
        // They are told just before they are in use.
        for version in BOTH {
            let told = || get(&lictor, version, "/", &good);
            eventually_is(&format!("{name} {version:?}"), told, |told| told.status == status);
        }
    }
}

#[test]
fn two_issuers_with_one_kid_are_not_taken_for_each_other() {
    let one = echo("one");
    let (mine, theirs) = (Key::new("k", 1), Key::new("k", 2));
    let idps = [&mine, &theirs].map(|key| Idp::start(Says::Set(set(&[key]), "")));
    let auth = format!(
        "  auth:\n    jwt:\n      - {{name: a, issuer: 'https://a.example', jwks: '{}', algorithms: EdDSA}}\n      - {{name: b, issuer: 'https://b.example', jwks: '{}', algorithms: EdDSA}}\n",
        idps[0].url(),
        idps[1].url()
    );
    let lictor = gateway_of(
        &[("one", &one)],
        &auth,
        "    - {path: /*, to: one}\n    - {path: /a, to: one, auth: {require: {issuers: a}}}\n",
    );
    let by = |key: &Key, iss: &str| key.token(&claims(json!({"iss": iss})));
    let (a, b) = (by(&mine, "https://a.example"), by(&theirs, "https://b.example"));
    for token in [&a, &b] {
        eventually_is("keys", || get(&lictor, Version::Http1, "/", token).status, |status| *status == 200);
    }
    for version in BOTH {
        for (target, token, status) in [
            ("/", &a, 200),
            ("/", &b, 200),
            ("/a", &a, 200),
            ("/a", &b, 401),
            ("/", &by(&mine, "https://b.example"), 401),
            ("/", &by(&theirs, "https://a.example"), 401),
            ("/", &by(&mine, "https://c.example"), 401),
        ] {
            assert_eq!(get(&lictor, version, target, token).status, status, "{version:?} {target} {token}");
        }
    }
}

#[test]
fn keys_outlive_the_process_and_not_max_stale() {
    let one = echo("one");
    let key = Key::new("a", 1);
    let good = key.token(&claims(json!({})));
    let idp = Idp::start(Says::Set(set(&[&key]), "Cache-Control: max-age=60\r\n"));
    let folder = lictor_testkit::scratch("keys");
    let text = |more: &str| {
        let text = configuration(&[("one", &one)], "", &issuers(&idp.url(), more), "    - {path: /*, to: one}\n");
        let snapshot = folder.join("snapshot").display().to_string();
        format!("{text}consul: {{snapshot: {{path: {snapshot}}}}}\nlifecycle: {{drain_delay: 0s}}\n")
    };
    let mut first = Sidecar::serve(LICTOR, &text("")).up();
    eventually_is("keys", || get(&first, Version::Http1, "/", &good).status, |status| *status == 200);
    first.terminate();
    idp.says(Says::Status(500));
    let mut second = Sidecar::serve(LICTOR, &text("")).up();
    for version in BOTH {
        eventually_is("remembered", || get(&second, version, "/", &good).status, |status| *status == 200);
    }
    second.terminate();
    // They are good for 60 s, and may be stale for an hour: so long ago is too long, and while it runs they become so.
    let file = folder.join("snapshot");
    for (ago, is_used) in [(7200, false), (1800, true)] {
        written(&file, ago);
        let lictor = Sidecar::serve(LICTOR, &text(", max_stale: 1h")).up();
        let expected = if is_used { 200 } else { 503 };
        eventually_is("old keys", || get(&lictor, Version::Http1, "/", &good).status, |status| *status == expected);
        assert_eq!(get(&lictor, Version::Http2, "/", &good).status, expected);
    }
    written(&file, 60 + 3600 - 8);
    let lictor = Sidecar::serve(LICTOR, &text(", max_stale: 1h")).up();
    eventually_is("old keys", || get(&lictor, Version::Http1, "/", &good).status, |status| *status == 200);
    eventually_is("too old", || get(&lictor, Version::Http1, "/", &good).status, |status| *status == 503);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Makes the snapshot's keys so many seconds old.
fn written(file: &std::path::Path, ago: u64) {
    let text =
        std::fs::read_to_string(file).or_else(|_| std::fs::read_to_string(file.with_extension("rejected"))).unwrap();
    let mut contents: Json = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    contents["keys"][0]["at_ms"] = json!(in_seconds(0) as u64 * 1000 - ago * 1000);
    let body = contents.to_string();
    let sum =
        base64::engine::general_purpose::STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, body.as_bytes()));
    std::fs::write(file, format!("lictor snapshot 1 {sum} {}\n{body}", body.len())).unwrap();
}
