//! The bearer token of our calls: shown where the application shows nothing, and another one after a 401.

use std::path::PathBuf;

use lictor_testkit::{Backend, RawServer, Sidecar, eventually_is, request};

use crate::{LICTOR, caller};

/// A service that takes `Authorization: Bearer good` alone.
fn guarded() -> RawServer {
    RawServer::saying(|head| {
        let is_good = head.to_lowercase().contains("\r\nauthorization: bearer good\r\n");
        let status = if is_good { "200 OK" } else { "401 Unauthorized" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    })
}

/// A caller whose token is in a file, and that file.
fn holding(token: &str, port: u16) -> (Sidecar, PathBuf) {
    let file = std::env::temp_dir().join(format!("lictor-bearer-{}-{port}", std::process::id()));
    std::fs::write(&file, token).unwrap();
    let auth = format!("auth: {{outbound: {{bearer: 'file:{}'}}}}\n", file.display());
    let upstream = format!("upstreams: {{users: {{listen: 0, static: ['127.0.0.1:{port}']}}}}\n");
    (Sidecar::serve(LICTOR, &format!("registration: off\n{auth}{upstream}")).up(), file)
}

#[test]
fn a_token_is_shown_where_the_application_shows_nothing() {
    let backend = Backend::start("a");
    let [one, two, three, four] = lictor_testkit::free_ports();
    let endpoint = format!("static: ['127.0.0.1:{}']", backend.port());
    let yaml = format!(
        "registration: off\nauth: {{outbound: {{bearer: t0ken}}}}\nupstreams:\n  users: {{listen: {one}, {endpoint}}}\n  \
         carts: {{listen: {two}, {endpoint}, auth: off}}\n  \
         shops: {{listen: {four}, {endpoint}, auth: {{bearer: 0ther}}}}\n  \
         bank: {{listen: {three}, {endpoint}, headers: {{set: {{Authorization: Basic abc}}}}}}\n"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let seen = |upstream: &str, headers: &[(&str, &str)]| {
        let answer = request(&lictor.address(upstream), "GET", "/", headers, b"").unwrap();
        let text = answer.text().to_lowercase();
        let lines: Vec<String> =
            text.lines().filter(|line| line.starts_with("authorization:")).map(str::to_owned).collect();
        lines
    };
    assert_eq!(seen("users", &[]), ["authorization: bearer t0ken"]);
    assert_eq!(seen("users", &[("Authorization", "Bearer mine")]), ["authorization: bearer mine"]);
    assert_eq!(seen("users", &[("Authorization", "Digest x")]), ["authorization: digest x"]);
    assert_eq!(seen("users", &[("Connection", "authorization"), ("Authorization", "Bearer mine")]).len(), 1);
    assert!(seen("carts", &[]).is_empty());
    assert_eq!(seen("shops", &[]), ["authorization: bearer 0ther"]);
    assert_eq!(seen("bank", &[]), ["authorization: basic abc"]);
    for page in ["/config", "/upstreams", "/requests", "/metrics"] {
        assert!(!lictor.get("admin", page).text().contains("t0ken"), "{page}");
    }
    assert!(!lictor.log().contains("t0ken") && !lictor.log().contains("0ther"));
}

#[test]
fn after_a_401_the_file_is_read_again_and_the_request_sent_once_more() {
    let backend = guarded();
    let (lictor, file) = holding("old", backend.port());
    let ask = |method: &str, body: &[u8]| request(&lictor.address("users"), method, "/", &[], body).unwrap().status;
    assert_eq!(ask("GET", b""), 401, "the file says the same");
    std::fs::write(&file, "good\n").unwrap();
    assert_eq!(ask("POST", b"x"), 401, "a second processing might do harm");
    eventually_is("the file is looked at once a second", || ask("GET", b""), |status| *status == 200);
    assert_eq!(ask("POST", b"x"), 200, "the new one is everybody's");
    let retried = lictor.metric("lictor_retries_total", &[("upstream", "users")]);
    assert!((retried - 1.0).abs() < 0.1, "{retried}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_401_to_somebody_elses_token_is_his() {
    let backend = guarded();
    let (lictor, file) = holding("good", backend.port());
    let own = request(&lictor.address("users"), "GET", "/", &[("Authorization", "Bearer mine")], b"").unwrap();
    assert_eq!((own.status, request(&lictor.address("users"), "GET", "/", &[], b"").unwrap().status), (401, 200));
    let plain = caller(&[backend.port()], "");
    assert_eq!(plain.get("users", "/").status, 401);
    assert!(lictor.metric("lictor_retries_total", &[("upstream", "users")]) < 0.1);
    std::fs::remove_file(file).unwrap();
}
