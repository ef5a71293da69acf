//! TLS by the name that a client asks for: certificates, what clients have to show, and which hosts a connection is for; and
//! whoever comes without it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use lictor_testkit::{Authority, Pair, Sidecar, connect, connect_from, eventually, eventually_is};
use parking_lot::Mutex;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, StreamOwned, SupportedProtocolVersion};

use crate::{Ask, BOTH, LICTOR, Told, Version, ask_over, echo};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// TLS over this connection, shaken hands.
pub(crate) fn tls_over(mut socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    assert!(connection.early_data().is_none(), "no session lets anything be said before its end");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

fn policy(hosts: &str, pair: &Pair, more: &str) -> String {
    let hosts = if hosts.is_empty() { String::new() } else { format!("hosts: {hosts}, ") };
    format!("    - {{{hosts}cert: '{}', key: '{}'{more}}}\n", pair.cert.display(), pair.key.display())
}

fn serving(policies: &str, port: u16) -> Sidecar {
    let yaml = format!(
        "registration: off\ngateway:\n  listen: 127.0.0.1:0\n  tls:\n{policies}  routes: {{/*: one}}\nupstreams: {{one: {{static: ['127.0.0.1:{port}']}}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// A client of one version of HTTP, which it asks for (RFC 7301).
fn client(authority: &Authority, version: Version, shown: Option<&Pair>) -> Arc<ClientConfig> {
    let alpn: &[u8] = if version == Version::Http2 { b"h2" } else { b"http/1.1" };
    authority.client_config(&[alpn], &[&TLS12, &TLS13], shown)
}

/// The status of a request for this host on a connection that was made for that name; 0 without an answer.
fn status(lictor: &Sidecar, config: &Arc<ClientConfig>, version: Version, name: &str, host: &str) -> u16 {
    let Ok(stream) = tls_over(connect(&lictor.address("gateway")), config, name) else { return 0 };
    ask_over(stream, version, Ask { host, ..Ask::get("/") }).status
}

#[test]
fn a_connection_is_for_the_hosts_of_its_own_policy() {
    let (ours, theirs, one) = (Authority::new(), Authority::new(), echo("one"));
    let (shop, admin) =
        (ours.issue("shop", &["shop.example", "*.shop.example"]), ours.issue("admin", &["admin.example"]));
    let (maybe, rest) = (ours.issue("maybe", &["maybe.example"]), ours.issue("rest", &["other.example", "127.0.0.1"]));
    let asks = format!(", client_ca: '{}'", ours.ca().display());
    let policies = policy("[shop.example, '*.shop.example']", &shop, "")
        + &policy("[admin.example]", &admin, &asks)
        + &policy("[maybe.example]", &maybe, &format!("{asks}, require: false"));
    let (without, with) = (serving(&policies, one.port()), serving(&(policies + &policy("", &rest, "")), one.port()));
    let (known, unknown) = (ours.issue("client", &["orders"]), theirs.issue("client", &["orders"]));
    for version in BOTH {
        let nobody = client(&ours, version, None);
        let somebody = client(&ours, version, Some(&known));
        let stranger = client(&ours, version, Some(&unknown));
        let rows = [
            ("its own", &nobody, "shop.example", "shop.example", 200),
            ("spelled otherwise", &nobody, "shop.example", "SHOP.example.:443", 200),
            ("another of the policy", &nobody, "shop.example", "a.shop.example", 200),
            ("the other way round", &nobody, "a.shop.example", "shop.example", 200),
            ("another policy's", &nobody, "shop.example", "admin.example", 421),
            ("spelled otherwise", &nobody, "shop.example", "ADMIN.example.:443", 421),
            ("another policy's, by who would be believed", &somebody, "shop.example", "admin.example", 421),
            ("no certificate", &nobody, "admin.example", "admin.example", 0),
            ("another CA's", &stranger, "admin.example", "admin.example", 0),
            ("a certificate", &somebody, "admin.example", "admin.example", 200),
            ("a less strict policy's", &somebody, "admin.example", "shop.example", 421),
            ("none where it may be", &nobody, "maybe.example", "maybe.example", 200),
            ("one where it may be", &somebody, "maybe.example", "maybe.example", 200),
            ("another CA's where none must be", &stranger, "maybe.example", "maybe.example", 0),
            ("from there on", &nobody, "maybe.example", "admin.example", 421),
        ];
        for lictor in [&without, &with] {
            for (what, config, name, host, expected) in rows {
                // The second time the session is resumed.
                for _ in 0..2 {
                    assert_eq!(
                        status(lictor, config, version, name, host),
                        expected,
                        "{version:?} {what}: {name} {host}"
                    );
                }
            }
        }
        for (lictor, name, host, expected) in [
            (&without, "other.example", "other.example", 0),
            (&without, "127.0.0.1", "shop.example", 0),
            (&without, "shop.example", "other.example", 421),
            (&with, "other.example", "other.example", 200),
            (&with, "127.0.0.1", "other.example", 200),
            (&with, "127.0.0.1", "127.0.0.1", 200),
            (&with, "127.0.0.1", "shop.example", 421),
            (&with, "127.0.0.1", "admin.example", 421),
            (&with, "other.example", "admin.example", 421),
            (&with, "shop.example", "other.example", 421),
        ] {
            assert_eq!(status(lictor, &nobody, version, name, host), expected, "{version:?} {name} {host}");
        }
    }
    let config = client(&ours, Version::Http1, None);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = tls_over(connect(&without.address("gateway")), &config, "shop.example").unwrap();
        kinds.push(stream.conn.handshake_kind());
        assert_eq!(ask_over(stream, Version::Http1, Ask::get("/")).status, 200);
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
    for (name, alert) in [("other.example", "UnrecognisedName"), ("127.0.0.1", "MissingExtension")] {
        let error = tls_over(connect(&without.address("gateway")), &config, name).unwrap_err();
        assert!(error.to_string().contains(alert), "{name}: {error}");
    }
}

/// Shows every name the sessions that it has, whoever they are of.
#[derive(Default)]
struct OneForAll {
    older: Mutex<Option<Tls12ClientSessionValue>>,
    newer: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl std::fmt::Debug for OneForAll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneForAll").finish_non_exhaustive()
    }
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        *self.older.lock() = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.older.lock().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.newer.lock().push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.newer.lock().pop()
    }
}

/// A client that shows its sessions everywhere.
fn carrier(
    authority: &Authority,
    version: Version,
    tls: &'static SupportedProtocolVersion,
    shown: Option<&Pair>,
) -> Arc<ClientConfig> {
    let alpn: &[u8] = if version == Version::Http2 { b"h2" } else { b"http/1.1" };
    let mut config = ClientConfig::clone(&authority.client_config(&[alpn], &[tls], shown));
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::new(OneForAll::default()));
    Arc::new(config)
}

/// How hands were shaken, and the status of a request for that host.
fn shaken(lictor: &Sidecar, config: &Arc<ClientConfig>, version: Version, name: &str) -> (Option<HandshakeKind>, u16) {
    let Ok(stream) = tls_over(connect(&lictor.address("gateway")), config, name) else { return (None, 0) };
    let kind = stream.conn.handshake_kind();
    (kind, ask_over(stream, version, Ask { host: name, ..Ask::get("/") }).status)
}

#[test]
fn no_session_opens_another_policys_door() {
    let (ours, theirs, one) = (Authority::new(), Authority::new(), echo("one"));
    let ca = ours.ca().with_file_name("clients.pem");
    let asks = format!(", client_ca: '{}'", ca.display());
    let pairs = ["shop", "admin", "maybe"].map(|name| ours.issue(name, &[&format!("{name}.example")]));
    let [shop, admin, maybe] = &pairs;
    let policies = |require: bool| {
        policy("[shop.example]", shop, "")
            + &policy("[admin.example]", admin, &asks)
            + &policy("[maybe.example]", maybe, &format!("{asks}, require: {require}"))
    };
    let known = ours.issue("client", &["orders"]);
    let replace = |authority: &Authority| {
        let draft = ca.with_extension("draft");
        std::fs::copy(authority.ca(), &draft).unwrap();
        std::fs::rename(&draft, &ca).unwrap();
    };
    for (version, tls) in BOTH.into_iter().flat_map(|version| [(version, &TLS12), (version, &TLS13)]) {
        replace(&ours);
        let lictor = serving(&policies(false), one.port());
        let carrier = |shown| carrier(&ours, version, tls, shown);
        for (made, shown, opens, is_let_in) in [
            ("shop.example", None, "admin.example", false),
            ("maybe.example", None, "admin.example", false),
            ("shop.example", None, "maybe.example", true),
            ("shop.example", Some(&known), "admin.example", true),
            ("maybe.example", Some(&known), "admin.example", true),
            ("admin.example", Some(&known), "maybe.example", true),
            ("admin.example", Some(&known), "shop.example", true),
        ] {
            let what = format!("{version:?} {tls:?} {made} at {opens}");
            let config = carrier(shown);
            assert_eq!(shaken(&lictor, &config, version, made), (Some(HandshakeKind::Full), 200), "{what}");
            let (kind, status) = shaken(&lictor, &config, version, opens);
            assert!(kind != Some(HandshakeKind::Resumed), "{what}: {kind:?}, {status}");
            assert_eq!(status, if is_let_in { 200 } else { 0 }, "{what}: {kind:?}");
        }
        for name in ["shop.example", "maybe.example", "admin.example"] {
            let config = carrier(Some(&known));
            let kinds = [(); 2].map(|()| shaken(&lictor, &config, version, name));
            let expected = [HandshakeKind::Full, HandshakeKind::Resumed].map(|kind| (Some(kind), 200));
            assert_eq!(kinds, expected, "{version:?} {tls:?} {name}: the control");
        }
        // What was asked of nobody is asked now, and whoever was believed is not any more.
        let (guest, member) = (carrier(None), carrier(Some(&known)));
        let (guests, members) = ("maybe.example", "admin.example");
        assert_eq!(shaken(&lictor, &guest, version, guests).1, 200);
        assert_eq!(shaken(&lictor, &member, version, members).1, 200);
        lictor.rewrite(&std::fs::read_to_string(lictor.file()).unwrap().replace("require: false", "require: true"));
        assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
        let (kind, status) = shaken(&lictor, &guest, version, guests);
        assert!(kind != Some(HandshakeKind::Resumed) && status == 0, "{version:?} {tls:?}: {kind:?}, {status}");
        replace(&theirs);
        let is_out = || shaken(&lictor, &member, version, members);
        eventually_is("its CA is gone", is_out, |(kind, status)| *kind != Some(HandshakeKind::Resumed) && *status == 0);
    }
}

/// The certificate that a client gets, and what is answered.
fn shown(lictor: &Sidecar, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let stream = tls_over(connect(&lictor.address("gateway")), config, name).unwrap();
    let certificate = stream.conn.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(ask_over(stream, Version::Http1, Ask { host: name, ..Ask::get("/") }).status, 200);
    certificate
}

#[test]
fn a_pair_is_read_again_by_itself_and_a_bad_one_changes_nothing() {
    let (ours, one) = (Authority::new(), echo("one"));
    let (shop, other) = (ours.issue("shop", &["shop.example"]), ours.issue("other", &["other.example"]));
    let lictor = serving(&(policy("[shop.example]", &shop, "") + &policy("[other.example]", &other, "")), one.port());
    let see = |name: &str| shown(&lictor, &ours.client_config(&[], &[&TLS12, &TLS13], None), name);
    let first = (see("shop.example"), see("other.example"));
    let is_rejected = |why: &str| {
        let lines = lictor.lines("the earlier certificate stays in use");
        lines.iter().any(|line| line["error"].as_str().is_some_and(|error| error.contains(why)))
    };
    // A key of another, then one that has ended.
    std::fs::copy(&other.key, &shop.key).unwrap();
    eventually_is("a pair that does not fit is told", || is_rejected("shop.pem cannot be used"), |told| *told);
    assert_eq!((see("shop.example"), see("other.example")), first);
    ours.issue_expired("shop", &["shop.example"]);
    eventually_is("one that has ended too", || is_rejected("has ended"), |told| *told);
    assert_eq!((see("shop.example"), see("other.example")), first);
    // What a chain has besides may have ended.
    let (next, old) = (ours.issue("next", &["shop.example"]), ours.issue_expired("old", &["lictor's tests"]));
    std::fs::copy(&next.key, &shop.key).unwrap();
    std::fs::write(&shop.cert, [&next.cert, &old.cert].map(|path| std::fs::read_to_string(path).unwrap()).concat())
        .unwrap();
    eventually("a good one is shown", || if see("shop.example") == first.0 { Err("not yet") } else { Ok(()) });
    assert_eq!(see("other.example"), first.1);
}

/// Asks on a connection that stays.
fn again(stream: &mut TlsStream, host: &str) -> u16 {
    use std::io::Write;
    let sent = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    if sent.is_err() {
        return 0;
    }
    crate::told_on(stream).status
}

#[test]
fn a_ca_that_is_gone_puts_out_its_own_clients_alone() {
    let (ours, theirs, one) = (Authority::new(), Authority::new(), echo("one"));
    let (shop, admin) = (ours.issue("shop", &["shop.example"]), ours.issue("admin", &["admin.example"]));
    let ca = ours.ca().with_file_name("clients.pem");
    std::fs::copy(ours.ca(), &ca).unwrap();
    let [shop, admin] = [shop, admin].map(|pair| (pair.cert.display().to_string(), pair.key.display().to_string()));
    let yaml = format!(
        "registration: off\ngateway: {{listen: '127.0.0.1:0', routes: {{/*: one}}, tls: [{{hosts: [shop.example], cert: '{}', key: '{}'}}, {{hosts: [admin.example], cert: '{}', key: '{}', client_ca: '{}', require: true}}]}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n",
        shop.0,
        shop.1,
        admin.0,
        admin.1,
        ca.display(),
        one.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let known = ours.issue("client", &["orders"]);
    let config = client(&ours, Version::Http1, Some(&known));
    let open = |name: &str| tls_over(connect(&lictor.address("gateway")), &config, name).unwrap();
    let (mut shops, mut admins) = (open("shop.example"), open("admin.example"));
    assert_eq!((again(&mut shops, "shop.example"), again(&mut admins, "admin.example")), (200, 200));
    let draft = ca.with_extension("draft");
    std::fs::copy(theirs.ca(), &draft).unwrap();
    std::fs::rename(&draft, &ca).unwrap();
    eventually("who was believed is put out", || {
        let told = again(&mut admins, "admin.example");
        if matches!(told, 421 | 0) { Ok(()) } else { Err(told) }
    });
    let told = again(&mut shops, "shop.example");
    assert!(matches!(told, 200 | 0), "it may end in order, and is refused nothing: {told}");
    assert_eq!(again(&mut open("shop.example"), "shop.example"), 200);
}

/// The answer's `Location`.
fn location(told: &Told, version: Version) -> String {
    match version {
        Version::Http1 => crate::field(&told.head, "location").unwrap_or_default().to_owned(),
        Version::Http2 => told.head.split("https://").nth(1).map_or_else(String::new, |rest| {
            let end = rest.find(|sign: char| sign.is_control() || !sign.is_ascii()).unwrap_or(rest.len());
            format!("https://{}", &rest[..end])
        }),
    }
}

#[test]
fn whoever_comes_without_tls_is_sent_to_the_same_url_with_it() {
    let one = echo("one");
    for (port, shown) in [("", ""), (", port: 8443", ":8443")] {
        let yaml = format!(
            "registration: off\ngateway:\n  listen: 127.0.0.1:0\n  redirect_http: {{address: '127.0.0.1:0', max_connection_age: 1h{port}}}\n  trusted_proxies: [127.0.0.2]\n  routes: {{/*: one}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\n",
            one.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let from = |source: &str| connect_from(source, &lictor.address("redirect_http"));
        for version in BOTH {
            for (method, host, target, status, path) in [
                ("GET", "shop.example", "/", 301, "/"),
                ("HEAD", "shop.example", "/a", 301, "/a"),
                ("POST", "shop.example", "/a?x=1&y=%2f", 308, "/a?x=1&y=%2f"),
                ("DELETE", "Shop.Example.:8080", "/a", 308, "/a"),
                ("GET", "shop.example", "//evil.example/x", 301, "/evil.example/x"),
                ("GET", "shop.example", "/a/../b/./c", 301, "/b/c"),
                ("GET", "shop.example", "/\\evil.example", 400, ""),
                ("GET", "shop.example", "/%5cevil.example", 400, ""),
                ("GET", "shop.example@evil", "/", 400, ""),
                ("GET", "shop.example/evil", "/", 400, ""),
                ("GET", "shop.example", "/.well-known/acme-challenge/token", 200, ""),
                ("GET", "shop.example", "/.well-known/acme-challenge/../../x", 301, "/x"),
                ("GET", "shop.example", "/.well-known/acme-challenges", 301, "/.well-known/acme-challenges"),
            ] {
                let told = ask_over(from("127.0.0.1"), version, Ask { method, host, target, fields: &[] });
                let told_status = if told.status == 0 { 400 } else { told.status };
                assert_eq!(told_status, status, "{version:?} {method} {host}{target}: {told:?}");
                if matches!(status, 301 | 308) {
                    let expected = format!("https://shop.example{shown}{path}");
                    let own = location(&told, version);
                    assert!(own == expected || own.starts_with(&expected), "{version:?} {method} {target}: {told:?}");
                }
            }
            // Who has taken TLS off says so; nobody else may.
            let fields = [("X-Forwarded-Proto", "https")];
            for (source, status) in [("127.0.0.2", 200), ("127.0.0.1", 301)] {
                let told = ask_over(from(source), version, Ask { fields: &fields, ..Ask::get("/") });
                assert_eq!(told.status, status, "{version:?} {source}: {told:?}");
            }
            let plain = ask_over(connect(&lictor.address("gateway")), version, Ask::get("/"));
            assert_eq!(plain.status, 200, "the control: {plain:?}");
        }
    }
}
