//! The server side.

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is, request};

use crate::{LICTOR, caller};

fn beside(backend: &Backend, more: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: {}\nregistration: off\ninbound: {{listen: '127.0.0.1:0', max_in_flight: 1}}\n{more}",
        backend.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

#[test]
fn requests_pass_and_are_counted_under_the_old_names() {
    let backend = Backend::start("app");
    let lictor = beside(&backend, "");
    let answer = request(&lictor.address("inbound"), "GET", "/users/1", &[("host", "users.example")], b"").unwrap();
    assert!(answer.text().starts_with("app GET /users/1"), "{}", answer.text());
    assert!(answer.text().contains("host: users.example"), "our application keeps its name: {}", answer.text());
    let labels = [("method", "GET"), ("status_code", "200"), ("service", "users")];
    assert!((lictor.metric("http_requests_total", &labels) - 1.0).abs() < 0.1);
    assert!(lictor.metric("http_request_duration_seconds_count", &labels) >= 1.0);
}

#[test]
fn the_service_token_is_checked_and_both_of_a_rotation_are_taken() {
    let backend = Backend::start("app");
    let lictor = beside(&backend, "service_token: [old-token, new-token]\n");
    let inbound = lictor.address("inbound");
    let with = |token: &str| request(&inbound, "GET", "/", &[("X-Service-Auth", token)], b"").unwrap();
    assert_eq!((with("").status, with("").header("x-lictor-reason")), (401, "unauthenticated"));
    assert_eq!(with("wrong").status, 401);
    assert_eq!((with("old-token").status, with("new-token").status), (200, 200));
    assert!(!with("old-token").text().contains("x-service-auth"), "the application does not see it");
}

/// What everybody has read is a token on a developer's machine alone, and he is told; elsewhere lictor does not start.
#[test]
fn a_token_of_a_tutorial_is_for_a_developers_machine() {
    let backend = Backend::start("app");
    let said = "this token stands in public tutorials";
    let yaml = |token: &str| {
        format!(
            "service: users\nport: {}\nregistration: off\ninbound: {{listen: '127.0.0.1:0'}}\nservice_token: {token}\n",
            backend.port()
        )
    };
    for token in ["internal-service-secret", "your-secret-key"] {
        let both = format!("[our-own, {token}]");
        for (value, env, flags) in [
            (token, None, &[][..]),
            (&both, None, &[]),
            (token, Some("0"), &[]),
            (token, Some("no"), &[]),
            (token, Some(""), &[]),
        ] {
            let env: Vec<_> = env.into_iter().map(|value| ("LICTOR_DEV", value)).collect();
            let mut lictor = Sidecar::start(LICTOR, &yaml(value), &env, &["serve"], flags);
            assert_eq!(lictor.wait().code(), Some(1), "{value} {env:?}: {}", lictor.log());
            eventually_is("it says why", || lictor.log(), |log| log.contains(said));
        }
        for (value, env, flags) in [
            (token, Some("1"), &[][..]),
            (token, Some("true"), &[]),
            (token, None, &["--dev"]),
            (token, Some("0"), &["--dev"]),
            (&both, None, &["--dev"]),
        ] {
            let env: Vec<_> = env.into_iter().map(|value| ("LICTOR_DEV", value)).collect();
            let lictor = Sidecar::start(LICTOR, &yaml(value), &env, &["serve"], flags).up();
            let log = lictor.log();
            assert!(log.contains(said) && !log.contains(token), "{value} {env:?} {flags:?}: he is told: {log}");
            let with = |token: &str| {
                request(&lictor.address("inbound"), "GET", "/", &[("X-Service-Auth", token)], b"").unwrap().status
            };
            assert_eq!([with(token), with("")], [200, 401], "{value} {env:?} {flags:?}");
            assert_eq!(lictor.post("/reload").status, 200, "it is one after a reload too: {}", lictor.log());
        }
    }
    let lictor = Sidecar::start(LICTOR, &yaml("our-own"), &[], &["serve"], &["--dev"]).up();
    assert!(!lictor.log().contains(said), "the control: {}", lictor.log());
    // What opens more than one service is never one of those.
    for key in ["admin: {token: T}", "building_blocks: {locks: true, token: T}"] {
        for (token, is_good) in [("internal-service-secret", false), ("internal-service-secret-2", true)] {
            let more = key.replace('T', token);
            let text = format!("service: users\nregistration: off\n{more}\nconsul: {{address: '127.0.0.1:1'}}\n");
            let mut lictor = Sidecar::start(LICTOR, &text, &[("LICTOR_DEV", "1")], &["check"], &["--dev"]);
            assert_eq!(lictor.wait().success(), is_good, "{more}: {}", lictor.log());
            let ends = if is_good { "ok: " } else { said };
            let log = eventually_is("it says so", || lictor.log(), |log| log.contains(ends));
            assert_eq!(log.contains(said), !is_good, "{more}: {log}");
        }
    }
}

#[test]
fn what_is_meant_for_another_service_is_misdirected() {
    let backend = Backend::start("app");
    let lictor = beside(&backend, "");
    let to = |service: &str| request(&lictor.address("inbound"), "GET", "/", &[("X-Lictor-To", service)], b"").unwrap();
    assert_eq!((to("carts/1").status, to("carts/1").header("x-lictor-reason")), (421, "misdirected"));
    assert_eq!(to("users/1").status, 200);
}

#[test]
fn two_sidecars_speak_through_the_registered_inbound_port() {
    let consul = Consul::dev();
    let backend = Backend::start("app");
    let [inbound] = lictor_testkit::free_ports();
    let yaml = format!(
        "service: users\nport: {}\ncheck: /health\ninbound: {{listen: '127.0.0.1:{inbound}'}}\nservice_token: secret-1\nconsul: {{address: '{}'}}\n",
        backend.port(),
        consul.url()
    );
    let _callee = Sidecar::serve(LICTOR, &yaml).up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    let lictor = caller(&consul, ", headers: {set: {X-Service-Auth: secret-1}}");
    lictor.await_endpoints("users", 1);
    let endpoints = lictor.page("/endpoints/users");
    assert_eq!(endpoints["users"]["endpoints"][0]["address"], format!("127.0.0.1:{inbound}"));
    let answer = lictor.get("users", "/users/1");
    assert!(answer.status == 200 && answer.text().starts_with("app GET /users/1"), "{}", answer.text());
}
