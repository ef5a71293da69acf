//! Routes to a URL: upstreams that nobody declared.

use std::io::Write;

use lictor_testkit::{Authority, Sidecar, read_head};

use crate::{Ask, BOTH, LICTOR, ask, echo};

#[test]
fn a_url_is_called_as_it_says_and_shown_nothing_of_ours() {
    let (one, named) = (echo("one"), echo("named"));
    let yaml = format!(
        "registration: off
service: edge
service_token: a-token-of-our-own
auth: {{outbound: {{bearer: another-of-ours}}}}
gateway:
  listen: 127.0.0.1:0
  routes:
  - {{path: /static/*, to: 'http://127.0.0.1:{0}', strip: /static}}
  - {{path: /again, to: 'HTTP://127.0.0.1:{0}', methods: [GET]}}
  - {{path: /localhost, to: 'http://LocalHost:{0}'}}
  - {{path: /named, to: named}}
upstreams:
  named: {{static: ['127.0.0.1:{1}']}}
",
        one.port(),
        named.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for version in BOTH {
        for (target, host, path) in [
            ("/static/a/b?c=d", format!("127.0.0.1:{}", one.port()), "/a/b?c=d"),
            ("/again", format!("127.0.0.1:{}", one.port()), "/again"),
            ("/localhost", format!("localhost:{}", one.port()), "/localhost"),
        ] {
            let told = ask(&lictor, version, Ask::get(target));
            assert_eq!((told.server(), told.target()), ("one", path), "{told:?}");
            let field = |name| crate::field(&told.body, name).map(str::to_owned);
            assert_eq!(field("host"), Some(host), "{told:?}");
            assert_eq!(field("x-forwarded-host").as_deref(), Some("shop.example"));
            assert!(!told.body.contains("of-our"), "it is nobody of ours: {told:?}");
        }
        let told = ask(&lictor, version, Ask::get("/named"));
        assert!(told.body.contains("x-service-auth: a-token-of-our-own"), "a control: {told:?}");
    }
    // Both routes have one upstream, with one name.
    let name = format!("127.0.0.1:{}", one.port());
    let counted = |route| lictor.metric("lictor_upstream_requests_total", &[("upstream", &name), ("route", route)]);
    lictor_testkit::eventually_is("they are counted", || counted("/static/*") + counted("/again"), |all| *all > 3.5);
    assert_eq!(lictor.endpoints(&name), 1);
}

#[test]
fn https_is_believed_by_the_systems_authorities() {
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.issue("server", &["localhost"]);
    let server = authority.server(&pair, &[], false, |mut stream| {
        loop {
            let head = read_head(&mut stream);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            if head.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let yaml = format!(
        "registration: off\ngateway: {{listen: 127.0.0.1:0, routes: {{/*: 'https://localhost:{}'}}}}\n",
        server.port()
    );
    let bundle = |authority: &Authority| authority.ca().display().to_string();
    for (ca, status) in [(bundle(&authority), 200), (bundle(&other), 502)] {
        let lictor = Sidecar::start(LICTOR, &yaml, &[("SSL_CERT_FILE", &ca)], &["serve"], &[]).up();
        for version in BOTH {
            let told = ask(&lictor, version, Ask::get("/x"));
            assert_eq!(told.status, status, "{told:?}");
            if status == 200 {
                let host = format!("localhost:{}", server.port());
                assert_eq!(crate::field(&told.body, "host"), Some(&*host), "{told:?}");
            }
        }
    }
}
