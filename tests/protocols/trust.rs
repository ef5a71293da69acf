//! What becomes of a running sidecar when certificate files change: who is believed, by what is read again, and whom a
//! file that cannot be read to its end keeps waiting.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lictor_testkit::{Authority, Backend, Pair, RawServer, Sidecar, eventually, eventually_is, get_over, read_head};
use parking_lot::Mutex;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::LICTOR;

/// `O_NONBLOCK` of Linux's open(2).
const NONBLOCK: i32 = 0o4000;

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A TLS server that answers every GET with how its handshake went, and keeps the connection where it is `kept`.
fn server(authority: &Authority, pair: &Pair, asks: bool, kept: bool) -> (RawServer, Arc<Mutex<Vec<HandshakeKind>>>) {
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&kinds);
    let server = authority.server(pair, &[b"http/1.1"], asks, move |mut stream| {
        let mut is_first = true;
        while !read_head(&mut stream).is_empty() {
            if std::mem::take(&mut is_first) {
                seen.lock().extend(stream.conn.handshake_kind());
            }
            let end = if kept { "" } else { "Connection: close\r\n" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{end}\r\nok");
            if stream.write_all(answer.as_bytes()).is_err() || !kept {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                return;
            }
        }
    });
    (server, kinds)
}

/// A caller whose upstream `users` is called by TLS.
fn caller(port: u16, tls: &str, env: &[(&str, &str)]) -> Sidecar {
    let yaml = format!(
        "registration: off\nworkers: 2\nupstreams:\n  users: {{listen: 0, static: ['localhost:{port}'], retry: off, breaker: off, ejection: off, tls: {tls}}}\n"
    );
    Sidecar::start(LICTOR, &yaml, env, &["serve"], &[]).up()
}

/// The status and reason that a call has.
fn outcome(lictor: &Sidecar) -> (u16, String) {
    let answer = lictor.get("users", "/");
    (answer.status, answer.header("x-lictor-reason").to_owned())
}

const GOOD: (u16, &str) = (200, "");
const REFUSED: (u16, &str) = (502, "tls_failed");

fn is(expected: (u16, &'static str)) -> impl Fn(&(u16, String)) -> bool {
    move |(status, reason)| (*status, reason.as_str()) == expected
}

/// As orchestrators do: readers see the old file or the new one.
fn replace(path: &Path, with: &Path) {
    let draft = path.with_extension("draft");
    std::fs::copy(with, &draft).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

/// A copy of this authority's certificate, to be replaced.
fn believed(authority: &Authority) -> PathBuf {
    let path = authority.ca().with_file_name("believed.pem");
    std::fs::copy(authority.ca(), &path).unwrap();
    path
}

#[test]
fn a_server_that_is_not_believed_any_more_resumes_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, kinds) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let ca = believed(&ours);
    let lictor = caller(secure.port(), &format!("{{ca: {}}}", ca.display()), &[]);
    eventually_is(
        "a session is resumed",
        || (outcome(&lictor).0, kinds.lock().last().copied()),
        |seen| *seen == (200, Some(HandshakeKind::Resumed)),
    );
    replace(&ca, &theirs.ca());
    eventually_is("it is believed no more", || outcome(&lictor), is(REFUSED));
    replace(&ca, &ours.ca());
    kinds.lock().clear();
    eventually_is("it is believed again", || outcome(&lictor), is(GOOD));
    assert_eq!(kinds.lock().first(), Some(&HandshakeKind::Full), "by showing its certificate");
}

#[test]
fn whoever_we_were_resumes_nothing() {
    let authority = Authority::new();
    let (secure, kinds) = server(&authority, &authority.issue("server", &["localhost"]), true, false);
    let identity = authority.issue("client", &["orders"]);
    let (ca, cert, key) = (authority.ca(), identity.cert.display(), identity.key.display());
    let lictor = caller(secure.port(), &format!("{{ca: {}, cert: {cert}, key: {key}}}", ca.display()), &[]);
    eventually_is(
        "a session is resumed",
        || (outcome(&lictor).0, kinds.lock().last().copied()),
        |seen| *seen == (200, Some(HandshakeKind::Resumed)),
    );
    authority.issue("client", &["orders"]);
    eventually_is("the new certificate is read", || lictor.log(), |log| log.contains("certificate_reloaded"));
    kinds.lock().clear();
    assert_eq!(outcome(&lictor).0, 200);
    assert_eq!(kinds.lock().first(), Some(&HandshakeKind::Full), "our new certificate is shown");
}

#[test]
fn a_kept_connection_carries_no_request_once_its_server_is_not_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, _) = server(&ours, &ours.issue("server", &["localhost"]), false, true);
    let ca = believed(&ours);
    let lictor = caller(secure.port(), &format!("{{ca: {}}}", ca.display()), &[]);
    for _ in 0..8 {
        assert_eq!(outcome(&lictor).0, 200);
    }
    replace(&ca, &theirs.ca());
    eventually_is("the new CA is read", || lictor.log(), |log| log.contains("certificate_reloaded"));
    for _ in 0..8 {
        let (status, reason) = outcome(&lictor);
        assert_eq!((status, reason.as_str()), REFUSED);
    }
}

#[test]
fn kept_connections_stay_while_their_server_is_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, _) = server(&ours, &ours.issue("server", &["localhost"]), false, true);
    let ca = believed(&ours);
    let yaml = format!(
        "registration: off\nworkers: 1\nupstreams:\n  users: {{listen: 0, static: ['localhost:{}'], retry: off, breaker: off, ejection: off, tls: {{ca: {}}}}}\n",
        secure.port(),
        ca.display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(outcome(&lictor).0, 200);
    let both = ca.with_file_name("both.pem");
    let text = [ours.ca(), theirs.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    replace(&ca, &both);
    eventually_is("the new CAs are read", || lictor.log(), |log| log.contains("certificate_reloaded"));
    assert_eq!((outcome(&lictor).0, secure.connections()), (200, 1), "another CA beside it changes nothing for it");
}

#[test]
fn the_systems_roots_are_read_again() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, _) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let bundle = believed(&ours).with_file_name("bundle.crt");
    std::fs::copy(theirs.ca(), &bundle).unwrap();
    let lictor = caller(secure.port(), "true", &[("SSL_CERT_FILE", bundle.to_str().unwrap())]);
    assert!(is(REFUSED)(&outcome(&lictor)), "another's CA");
    replace(&bundle, &ours.ca());
    eventually_is("our CA came into the bundle", || outcome(&lictor), is(GOOD));
    replace(&bundle, &theirs.ca());
    eventually_is("our CA left the bundle", || outcome(&lictor), is(REFUSED));
}

/// `..data` names the folder of the moment, as Kubernetes mounts Secrets and ConfigMaps.
#[test]
fn a_folder_of_the_systems_roots_is_read_again_when_its_link_is_swapped() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, _) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let folder = ours.ca().with_file_name("roots");
    for (version, authority) in [("..1", &theirs), ("..2", &ours)] {
        std::fs::create_dir_all(folder.join(version)).unwrap();
        std::fs::copy(authority.ca(), folder.join(version).join("ca.pem")).unwrap();
    }
    let point = |version: &str| {
        symlink(version, folder.join("..draft")).unwrap();
        std::fs::rename(folder.join("..draft"), folder.join("..data")).unwrap();
    };
    point("..1");
    symlink("..data/ca.pem", folder.join("ca.pem")).unwrap();
    let lictor = caller(secure.port(), "true", &[("SSL_CERT_DIR", folder.to_str().unwrap())]);
    assert!(is(REFUSED)(&outcome(&lictor)), "another's CA");
    point("..2");
    eventually_is("our CA came into the folder", || outcome(&lictor), is(GOOD));
}

/// The agent is asked over TLS, too.
#[test]
fn consuls_ca_is_read_again() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (agent, asked) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let ca = believed(&theirs);
    let yaml = format!(
        "registration: off\nconsul: {{address: 'https://localhost:{}', ca_file: {}}}\nupstreams: {{users: {{listen: 0}}}}\n",
        agent.port(),
        ca.display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml);
    agent.await_connections(2);
    assert_eq!(*asked.lock(), [], "another's CA");
    replace(&ca, &ours.ca());
    eventually_is("the agent is believed", || (asked.lock().len(), lictor.log()), |(asked, _)| *asked > 0);
}

/// And so is a receiver of spans.
#[test]
fn a_receivers_ca_is_read_again() {
    let (ours, theirs, backend) = (Authority::new(), Authority::new(), Backend::start("a"));
    let (receiver, asked) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let ca = believed(&theirs);
    let yaml = format!(
        "registration: off\ntrace: {{otlp: 'https://localhost:{}', protocol: http/protobuf, ca: {}, sample: 100%}}\nupstreams: {{users: {{listen: 0, static: ['127.0.0.1:{}']}}}}\n",
        receiver.port(),
        ca.display(),
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(lictor.get("users", "/").status, 200);
    // The second one begins when the first is over.
    let tried = || (lictor.get("users", "/").status, receiver.connections());
    eventually_is("it is tried again", tried, |(_, count)| *count >= 2);
    assert_eq!(*asked.lock(), [], "another's CA");
    replace(&ca, &ours.ca());
    let exported = || (lictor.get("users", "/").status, asked.lock().len());
    eventually_is("the receiver is believed", exported, |(_, asked)| *asked > 0);
}

/// `cp -p`, `rsync -t` and images give files the time that they had elsewhere.
#[test]
fn a_new_file_is_read_also_when_it_is_no_younger() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (secure, _) = server(&ours, &ours.issue("server", &["localhost"]), false, false);
    let ca = believed(&theirs);
    let modified = std::fs::metadata(&ca).unwrap().modified().unwrap();
    let lictor = caller(secure.port(), &format!("{{ca: {}}}", ca.display()), &[]);
    assert!(is(REFUSED)(&outcome(&lictor)), "another's CA");
    let next = ca.with_extension("next");
    std::fs::copy(ours.ca(), &next).unwrap();
    File::options().write(true).open(&next).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&next, &ca).unwrap();
    eventually_is("the new CA is read", || outcome(&lictor), is(GOOD));
}

/// A disk that hangs, in small: whoever reads a pipe that nobody writes to waits.
#[test]
fn a_file_that_hangs_stops_nobody() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["localhost"]);
    let yaml = |carts: &str| {
        format!(
            "registration: off\nworkers: 2\nupstreams:\n  users: {{listen: {{address: 0, tls: {{cert: {}, key: {}}}}}, static: ['127.0.0.1:{}']}}\n{carts}",
            pair.cert.display(),
            pair.key.display(),
            backend.port(),
        )
    };
    let mut lictor = Sidecar::serve(LICTOR, &yaml("")).up();
    let reached = || {
        let mut client = authority.client(&lictor.address("users"), "localhost", &[], &BOTH, None);
        get_over(&mut client, "/").is_ok_and(|answer| answer.contains("a GET / "))
    };
    assert!(reached());
    let pipe = pair.cert.with_file_name("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, &pair.cert).unwrap();
    // It can be opened for writing, without waiting, once somebody reads from it.
    let writer = eventually("the new certificate is being read", || {
        OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&pair.cert)
    });
    for _ in 0..4 {
        assert!(reached(), "the earlier certificate is shown meanwhile");
        assert_eq!(lictor_testkit::get(&lictor.admin(), "/live").unwrap().status, 200);
        let shown = lictor.metric("lictor_certificate_not_after_timestamp_seconds", &[]);
        assert!(shown > 0.0, "what is known of the earlier certificate");
    }
    drop(writer);
    eventually_is("what it said is no certificate", || lictor.log(), |log| log.contains("certificate_rejected"));
    assert!(reached());
    assert!(lictor.terminate().success());
}
