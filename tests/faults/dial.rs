//! Whom a client can make the sidecar talk to, and who may give it orders: nobody but known services, and nobody but
//! programs of this machine.

use std::io::{Read, Write};

use lictor_testkit::{Backend, RawServer, Sidecar, connect, exchange, lictor, request};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nforbidden";

/// A sidecar with every listener, and a server on loopback that nobody may reach through it.
struct Scene {
    users: Backend,
    app: Backend,
    forbidden: RawServer,
    lictor: Sidecar,
}

impl Scene {
    fn new() -> Self {
        let (users, app, forbidden) = (Backend::start("users"), Backend::start("app"), RawServer::answering(OK));
        let yaml = format!(
            "registration: off
service: orders
port: {}
inbound: {{listen: '127.0.0.1:0'}}
outbound: {{proxy: '127.0.0.1:0', allow: ['pay-*']}}
upstreams:
  users: {{listen: 0, static: ['127.0.0.1:{}'], timeout: 2s}}
",
            app.port(),
            users.port()
        );
        let lictor = Sidecar::serve(lictor(), &yaml).up();
        Self { users, app, forbidden, lictor }
    }

    /// Every way to write the forbidden address, and others that are nobody's business.
    fn authorities(&self) -> Vec<String> {
        let port = self.forbidden.port();
        let admin = self.lictor.admin();
        let hosts = [
            "127.0.0.1",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "127.000.000.001",
            "0.0.0.0",
            "0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
            "[::127.0.0.1]",
            "127.0.0.1.nip.io",
            "localhost.localdomain",
            "users.localhost",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "metadata.google.internal",
            "0xa9fea9fe",
            "2852039166",
            "users.service.consul.evil.example",
            "%31%32%37.0.0.1",
            "users%00.evil",
        ];
        let with_port = hosts.iter().map(|host| format!("{host}:{port}"));
        let others = [
            "169.254.169.254".to_owned(),
            "169.254.169.254:80".to_owned(),
            admin.clone(),
            admin.replace("127.0.0.1", "localhost"),
            admin.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
            format!("users@127.0.0.1:{port}"),
            format!("users:80@127.0.0.1:{port}"),
            format!("127.0.0.1:{port}@127.0.0.1:{port}"),
        ];
        with_port.chain(others).collect()
    }

    fn forward(&self, request: &str) -> (u16, String) {
        self.send("forward", request)
    }

    fn send(&self, listener: &str, request: &str) -> (u16, String) {
        let answer = exchange(&self.lictor.address(listener), request.as_bytes()).unwrap();
        (answer.status, answer.text())
    }

    fn assert_untouched(&self) {
        assert_eq!(self.forbidden.connections(), 0, "the forbidden server was reached");
    }
}

#[test]
fn no_way_to_write_an_address_reaches_what_is_no_known_service() {
    let scene = Scene::new();
    let authorities = scene.authorities();
    for authority in &authorities {
        let end = "Connection: close\r\n\r\n";
        let refused = [
            format!("GET http://{authority}/ HTTP/1.1\r\nHost: users\r\n{end}"),
            format!("GET https://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n{end}"),
            format!("GET http://{authority}/ HTTP/1.1\r\nHost: users\r\nX-Lictor-To: users/1\r\n{end}"),
            format!("POST http://{authority}/quit HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\n{end}"),
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\n{end}"),
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{end}"),
            format!("CONNECT {authority} HTTP/1.1\r\nHost: users\r\n{end}"),
        ];
        for request in refused {
            let (status, text) = scene.forward(&request);
            let reasons = ["bad_request", "forbidden", "unknown_upstream"];
            let is_refused = reasons.iter().any(|reason| text.contains(&format!("\"reason\":\"{reason}\"")));
            assert!(status >= 400 && is_refused, "{request:?}: {status} {text}");
        }
    }
    scene.assert_untouched();
    assert_eq!(scene.users.hits(), 0);
    // The same way a known service is reached, by its name and by its instance's address.
    let instance = format!("127.0.0.1:{}", scene.users.port());
    for known in ["users", "users.service.consul", &instance] {
        let (status, text) =
            scene.forward(&format!("GET http://{known}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(status == 200 && text.starts_with("users GET /"), "{known}: {status} {text}");
    }
    eprintln!("{} ways to write an address, 7 requests each: none reached it", authorities.len());
}

#[test]
fn on_other_listeners_the_url_and_host_choose_nothing() {
    let scene = Scene::new();
    for authority in scene.authorities().iter().filter(|authority| !authority.contains(['@', '%'])) {
        for (listener, owner) in [("users", "users GET"), ("inbound", "app GET")] {
            let to = if listener == "users" { "X-Lictor-To: evil/1\r\n" } else { "" };
            let url = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n{to}Connection: close\r\n\r\n");
            let host = format!("GET / HTTP/1.1\r\nHost: {authority}\r\n{to}Connection: close\r\n\r\n");
            for request in [url, host] {
                let (status, text) = scene.send(listener, &request);
                assert!((status == 200 && text.starts_with(owner)) || status == 400, "{request:?}: {status} {text}");
            }
        }
    }
    for listener in ["users", "inbound"] {
        let connect =
            format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", scene.forbidden.port());
        let (status, text) = scene.send(listener, &connect);
        assert!(status >= 400, "{listener}: {status} {text}");
    }
    scene.assert_untouched();
    assert!(scene.users.hits() > 0 && scene.app.hits() > 0);
}

#[test]
fn a_redirect_is_the_clients_to_follow() {
    let forbidden = RawServer::answering(OK);
    let location = format!("Location: http://127.0.0.1:{}/\r\n", forbidden.port());
    let redirect = format!("HTTP/1.1 302 Found\r\n{location}Refresh: 0\r\nContent-Length: 0\r\n\r\n");
    let server = RawServer::answering(redirect.into_bytes());
    let lictor = crate::caller(&[server.port()], "");
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, forbidden.connections()), (302, 0));
}

#[test]
fn orders_are_taken_from_programs_of_this_machine_only() {
    let scene = Scene::new();
    let admin = scene.lictor.admin();
    let orders = ["/drain", "/undrain", "/reload", "/log-level?level=trace", "/quit"];
    let strange: [&[(&str, &str)]; 6] = [
        &[("Origin", "http://localhost")],
        &[("Origin", "null")],
        &[("Host", "evil.example")],
        &[("Host", "localhost.evil.example:9901")],
        &[("Host", "evil.example@localhost")],
        &[("Origin", "https://evil.example"), ("Content-Type", "text/plain")],
    ];
    for order in orders {
        for headers in strange {
            let status = request(&admin, "POST", order, headers, b"").unwrap().status;
            assert!(matches!(status, 400 | 403), "{order} {headers:?}: {status}");
        }
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(request(&admin, method, order, &[], b"").unwrap().status, 405, "{method} {order}");
        }
    }
    for page in ["/config", "/endpoints", "/events", "/consul"] {
        assert_eq!(request(&admin, "GET", page, &[("Origin", "null")], b"").unwrap().status, 403, "{page}");
    }
    assert_eq!(scene.lictor.page("/ready")["status"], "ready", "nothing of it was carried out");
    assert_eq!(scene.lictor.post("/log-level?level=info").status, 200, "an order that may be given");
}

#[test]
fn a_tunnel_to_a_known_service_ends_there() {
    let scene = Scene::new();
    let mut stream = connect(&scene.lictor.address("forward"));
    stream.write_all(b"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\n\r\n").unwrap();
    assert!(lictor_testkit::read_head(&mut stream).starts_with("HTTP/1.1 200"));
    // Inside the tunnel a URL is the instance's business.
    let inside =
        format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", scene.forbidden.port());
    stream.write_all(inside.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("users GET /"), "{answer}");
    scene.assert_untouched();
}
