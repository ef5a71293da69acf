//! Who may use them.

use lictor_testkit::{Backend, Consul, Sidecar, get, request};

use super::{AUTHORIZATION, LICTOR, Stream, TOKEN, ask, sidecar, sidecar_with, yaml};

const ALL: [(&str, &str); 9] = [
    ("GET", "/v1/services"),
    ("GET", "/v1/services/users"),
    ("GET", "/v1/watch/services/users"),
    ("GET", "/v1/config/a"),
    ("PUT", "/v1/config/a?cas=0"),
    ("PUT", "/v1/locks/a"),
    ("DELETE", "/v1/locks/a?owner=x"),
    ("GET", "/v1/saga/a"),
    ("PATCH", "/v1/self/meta"),
];

#[test]
fn nothing_is_there_unless_asked_for() {
    let backend = Backend::start("users");
    let yaml =
        format!("registration: off\nupstreams: {{users: {{listen: 0, static: ['127.0.0.1:{}']}}}}\n", backend.port());
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for (method, path) in ALL {
        let answer = ask(&lictor, method, path, b"");
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    // One block opens no other.
    let consul = Consul::dev();
    for (keys, open) in [("services: true", 3), ("config: read", 1), ("locks: true", 2), ("saga: true", 1)] {
        let lictor = sidecar(&consul, keys);
        let refused = ALL.iter().filter(|(method, path)| ask_once(&lictor, method, path) == 403).count();
        assert_eq!(refused, ALL.len() - open, "{keys}");
    }
}

/// The status, without waiting for the end of a stream.
fn ask_once(lictor: &Sidecar, method: &str, path: &str) -> u16 {
    match Stream::try_open(lictor, method, path) {
        Ok(_) => 200,
        Err(head) => head.split(' ').nth(1).unwrap().parse().unwrap(),
    }
}

#[test]
fn only_programs_that_show_the_token_and_no_browsers() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let more =
        format!("app: {{port: {}}}\nadmin: {{public: '127.0.0.1:0', token: fedcba9876543210}}\n", backend.port());
    let keys = "services: true, config: write, locks: true";
    let yaml = yaml(&consul, &format!("{keys}, meta: true"), &more).replace("registration: off\n", "");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let of = |method: &str, path: &str, headers: &[(&str, &str)]| {
        request(&lictor.admin(), method, path, headers, b"").unwrap().status
    };
    let shown = ("Authorization", AUTHORIZATION);
    for (method, path) in ALL {
        assert_eq!(of(method, path, &[]), 401, "{method} {path}");
        assert_eq!(
            of(method, path, &[("Authorization", "Bearer fedcba9876543210")]),
            401,
            "the admin token is another"
        );
        assert_eq!(of(method, path, &[("Authorization", "Basic MDEyMzQ1Njc4OWFiY2RlZg==")]), 401);
        for foreign in [("Origin", "http://localhost:9901"), ("Sec-Fetch-Site", "cross-site"), ("Host", "evil.example")]
        {
            assert_eq!(of(method, path, &[shown, foreign]), 403, "{method} {path} {foreign:?}");
        }
        let public = request(&lictor.address("public"), method, path, &[shown], b"").unwrap().status;
        assert!(matches!(public, 404 | 405), "{method} {path}: {public}");
        assert_eq!(of("POST", path, &[shown]), 405, "{path}");
    }
    assert_eq!(of("GET", "/v1/services", &[shown]), 200);
    assert_eq!(of("GET", "/v1/nothing", &[shown]), 404);
    assert_eq!(get(&lictor.admin(), "/config").unwrap().status, 200, "pages need no token here");
    assert!(!get(&lictor.admin(), "/config").unwrap().text().contains(TOKEN));
    assert!(!lictor.log().contains(TOKEN));
}

#[test]
fn a_reload_changes_the_token_and_ends_what_the_other_one_opened() {
    let consul = Consul::dev();
    let lictor = sidecar_with(&consul, "services: true, locks: true", "");
    let mut watch = Stream::open(&lictor, "GET", "/v1/watch/services/users");
    let mut lock = Stream::open(&lictor, "PUT", "/v1/locks/a");
    watch.data("instances");
    lock.data("held");
    lictor.rewrite(&yaml(&consul, "services: true, locks: true", "").replace(TOKEN, "another-0123456789"));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(ask(&lictor, "GET", "/v1/services", b"").status, 401);
    let lost = lock.data("lost");
    assert!(lost["reason"].as_str().unwrap().contains("configuration"), "{lost}");
    watch.data("error");
    assert_eq!(watch.next(), None);
}
