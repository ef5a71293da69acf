//! All TLS settings that are in use, by what the configuration says.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;

use lictor_core::tls::{ClientTls, ListenerTls, ServerTls};
use parking_lot::Mutex;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::task::spawn_blocking;

use crate::client::{Client, ClientSpec};
use crate::file::TlsError;
use crate::listener::Servers;
use crate::made::{Latest, Source};
use crate::proof::Proofs;
use crate::server::Server;

/// A certificate that is shown to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Its file.
    pub path: PathBuf,
    /// Seconds since the epoch at which the first of its chain ends; `None`: that is not known.
    pub not_after: Option<u64>,
    /// The files cannot be used as they are now; what was read before them is in use.
    pub is_rejected: bool,
}

/// All that listeners and upstreams use, each once. No lock of it is held while a file is read.
#[derive(Debug, Default)]
pub struct Credentials {
    servers: Mutex<HashMap<ServerTls, Arc<Server>>>,
    clients: Mutex<HashMap<ClientSpec, Arc<Client>>>,
    proofs: Arc<Proofs>,
}

impl Credentials {
    /// TLS on a listener; its files are read first, on one of tokio's threads for blocking work.
    pub async fn listener(&self, tls: &ListenerTls) -> Result<Servers, TlsError> {
        let mut servers = Vec::with_capacity(tls.policies().len());
        for policy in tls.policies() {
            servers.push(self.server(policy).await?);
        }
        Ok(Servers::new(tls.clone(), servers, Arc::clone(&self.proofs)))
    }

    /// Until it is forgotten, who looks by tls-alpn-01 (RFC 8737) whether this host is ours is shown this certificate (DER),
    /// with its key (PKCS #8).
    pub fn prove(&self, host: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<(), TlsError> {
        self.proofs.put(host, certificate.into(), PrivatePkcs8KeyDer::from(key).into())
    }

    /// Nobody looks any more.
    pub fn forget_proof(&self, host: &str) {
        self.proofs.forget(host);
    }

    async fn server(&self, tls: &ServerTls) -> Result<Arc<Server>, TlsError> {
        if let Some(known) = self.servers.lock().get(tls) {
            return Ok(Arc::clone(known));
        }
        let spec = tls.clone();
        let read = spawn_blocking(|| Server::read(spec)).await.expect("reading does not panic")?;
        Ok(Arc::clone(self.servers.lock().entry(tls.clone()).or_insert_with(|| Arc::new(read))))
    }

    /// TLS towards an upstream. Where it is new its files are being read, on one of tokio's threads for blocking work, when
    /// this returns; connections wait for that. So it must be called on a runtime of tokio.
    pub fn client(&self, tls: &ClientTls) -> Arc<Client> {
        let spec = ClientSpec::from(tls);
        let mut clients = self.clients.lock();
        if let Some(known) = clients.get(&spec) {
            return Arc::clone(known);
        }
        let client = Arc::new(Client(Latest::new(spec.clone())));
        clients.insert(spec, Arc::clone(&client));
        drop(clients);
        let read = Arc::clone(&client);
        spawn_blocking(move || read.refresh());
        client
    }

    /// The certificates that are shown, in the order of their files.
    pub fn shown(&self) -> Vec<Shown> {
        let servers: Vec<_> = self.servers.lock().values().cloned().collect();
        let clients: Vec<_> = self.clients.lock().values().cloned().collect();
        let servers = servers.iter().filter_map(|server| shown(&server.0));
        let mut shown: Vec<Shown> = servers.chain(clients.iter().filter_map(|client| shown(&client.0))).collect();
        shown.sort();
        shown.dedup_by(|one, other| one.path == other.path);
        shown
    }

    /// Forgets what nobody uses, and begins to look at the files of the rest, on tokio's threads for blocking work: one
    /// that hangs holds up no other. So it must be called on a runtime of tokio.
    pub fn refresh(&self) {
        for server in used(&self.servers) {
            spawn_blocking(move || server.0.refresh());
        }
        for client in used(&self.clients) {
            spawn_blocking(move || client.refresh());
        }
    }
}

fn used<S: Eq + Hash, T>(known: &Mutex<HashMap<S, Arc<T>>>) -> Vec<Arc<T>> {
    let mut known = known.lock();
    known.retain(|_, one| Arc::strong_count(one) > 1);
    known.values().cloned().collect()
}

fn shown<S: Source>(latest: &Latest<S>) -> Option<Shown> {
    let path = latest.source.identity()?.cert.clone();
    let not_after = latest.get().and_then(|made| made.not_after());
    Some(Shown { path, not_after, is_rejected: latest.is_rejected() })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use lictor_core::tls::KeyPair;
    use lictor_testkit::{Authority, Pair, eventually, eventually_is};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::rustls::HandshakeKind;

    use super::*;
    use crate::{Alpn, HandshakeError};

    /// `O_NONBLOCK` of Linux's open(2).
    const NONBLOCK: i32 = 0o4000;

    /// A disk that hangs, in small: whoever reads a pipe that nobody writes to waits.
    fn hang(path: &Path) {
        let pipe = path.with_extension("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::rename(&pipe, path).unwrap();
    }

    /// Opens it for writing, once somebody reads.
    fn reader_comes(path: &Path) -> File {
        eventually("somebody reads", || OpenOptions::new().write(true).custom_flags(NONBLOCK).open(path))
    }

    fn replace(path: &Path, with: &Path) {
        let draft = path.with_extension("draft");
        std::fs::copy(with, &draft).unwrap();
        std::fs::rename(&draft, path).unwrap();
    }

    fn shows(pair: &Pair) -> KeyPair {
        KeyPair { cert: pair.cert.clone(), key: pair.key.clone() }
    }

    fn believes(ca: &Path) -> ClientTls {
        ClientTls { ca: Some(ca.to_owned()), ..ClientTls::default() }
    }

    /// A handshake between the two, and the ticket that follows it.
    async fn meet(server: &Server, client: &Client) -> Result<HandshakeKind, HandshakeError> {
        let (ours, theirs): (DuplexStream, DuplexStream) = duplex(1 << 16);
        let accepting = async {
            let mut stream = server.accept(theirs).await?;
            stream.write_all(b"!").await?;
            stream.flush().await?;
            Ok::<_, HandshakeError>(stream)
        };
        let connecting = async {
            let mut stream = client.connect(ours, "localhost", Alpn::Http1).await?;
            stream.read_exact(&mut [0]).await?;
            Ok::<_, HandshakeError>(stream.get_ref().1.handshake_kind().unwrap())
        };
        let (accepted, connected) = tokio::join!(accepting, connecting);
        drop(accepted);
        connected
    }

    /// Looks at the files as often as it takes, without the clock.
    async fn refreshed(credentials: &Credentials, mut is_done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if is_done() {
                return;
            }
            credentials.refresh();
            spawn_blocking(|| ()).await.unwrap();
        }
        panic!("it is never seen");
    }

    #[tokio::test]
    async fn who_asks_for_a_client_waits_for_no_file() {
        let authority = Authority::new();
        let (credentials, server) = (Credentials::default(), Server::read(listener(&authority)).unwrap());
        let good = credentials.client(&believes(&authority.ca()));
        assert_eq!(meet(&server, &good).await.unwrap(), HandshakeKind::Full);
        let hanging = authority.ca().with_file_name("hanging.pem");
        hang(&hanging);
        let waiting = credentials.client(&believes(&hanging));
        let mut writer = reader_comes(&hanging);
        // It is being read, and everything else goes on: on this very thread, which is the only one.
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&waiting, &credentials.client(&believes(&hanging))));
            assert!(Arc::ptr_eq(&good, &credentials.client(&believes(&authority.ca()))));
            assert!(meet(&server, &good).await.is_ok());
            credentials.refresh();
            assert_eq!(credentials.shown(), []);
        }
        assert!(waiting.config(Alpn::Http1).is_none());
        // A handshake waits for its own files, as long as whoever wants it does.
        let (ours, _theirs) = duplex(64);
        let handshake = waiting.connect(ours, "localhost", Alpn::Http1);
        let late = tokio::time::timeout(Duration::from_millis(1), handshake).await;
        assert!(late.is_err(), "it is not there yet");
        writer.write_all(&std::fs::read(authority.ca()).unwrap()).unwrap();
        drop(writer);
        assert_eq!(meet(&server, &waiting).await.unwrap(), HandshakeKind::Full);
    }

    fn listener(authority: &Authority) -> ServerTls {
        let identity = shows(&authority.issue("server", &["localhost"]));
        ServerTls { identity, client_ca: None, requires: true, is_awaited: false }
    }

    #[tokio::test]
    async fn one_file_that_hangs_keeps_no_other_from_being_read() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (credentials, server) = (Credentials::default(), Server::read(listener(&ours)).unwrap());
        let hanging = ours.ca().with_file_name("hanging.pem");
        let other = ours.ca().with_file_name("other.pem");
        std::fs::copy(ours.ca(), &hanging).unwrap();
        std::fs::copy(theirs.ca(), &other).unwrap();
        let first = credentials.client(&believes(&hanging));
        let second = credentials.client(&believes(&other));
        assert!(meet(&server, &first).await.is_ok());
        assert!(meet(&server, &second).await.is_err());
        hang(&hanging);
        credentials.refresh();
        let writer = reader_comes(&hanging);
        replace(&other, &ours.ca());
        refreshed(&credentials, || second.generation() > 0).await;
        assert!(meet(&server, &second).await.is_ok());
        assert!(meet(&server, &first).await.is_ok(), "what was read last stays");
        drop(writer);
    }

    #[tokio::test]
    async fn sessions_and_generations_follow_who_is_believed() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (credentials, server) = (Credentials::default(), Server::read(listener(&ours)).unwrap());
        let ca = ours.ca().with_file_name("believed.pem");
        std::fs::copy(ours.ca(), &ca).unwrap();
        let client = credentials.client(&believes(&ca));
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Full);
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Resumed);
        let config = || client.config(Alpn::Http1).unwrap();

        // The same content in another file.
        let before = config();
        replace(&ca, &ours.ca());
        credentials.refresh();
        spawn_blocking(|| ()).await.unwrap();
        assert!(Arc::ptr_eq(&before, &config()));
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Resumed);

        // One more.
        let both = ca.with_file_name("both.pem");
        std::fs::write(&both, [ours.ca(), theirs.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat())
            .unwrap();
        replace(&ca, &both);
        refreshed(&credentials, || !Arc::ptr_eq(&before, &config())).await;
        assert_eq!(client.generation(), 0, "nobody is put out");
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Full);

        // Something that is none.
        std::fs::write(&ca, "half a certif").unwrap();
        let before = config();
        refreshed(&credentials, || client.0.is_rejected()).await;
        assert!(Arc::ptr_eq(&before, &config()) && client.generation() == 0);

        // One less.
        replace(&ca, &theirs.ca());
        refreshed(&credentials, || client.generation() == 1).await;
        assert!(!client.0.is_rejected());
        assert!(meet(&server, &client).await.unwrap_err().to_string().starts_with("invalid peer certificate"));
    }

    #[tokio::test]
    async fn a_pair_that_does_not_fit_is_rejected_until_it_does() {
        let authority = Authority::new();
        let credentials = Credentials::default();
        let pair = authority.issue("server", &["localhost"]);
        let tls = ServerTls { identity: shows(&pair), ..listener(&authority) };
        let server = credentials.server(&tls).await.unwrap();
        assert!(Arc::ptr_eq(&server, &credentials.server(&tls).await.unwrap()));
        let client = Client::read((&believes(&authority.ca())).into()).unwrap();
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Full);
        let other = authority.issue("other", &["localhost"]);
        let is_rejected = || credentials.shown().iter().any(|shown| shown.is_rejected);
        replace(&pair.cert, &other.cert);
        refreshed(&credentials, is_rejected).await;
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Resumed, "the earlier pair is in use");
        replace(&pair.key, &other.key);
        refreshed(&credentials, || !is_rejected()).await;
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Resumed, "a new certificate keeps sessions");
        drop(server);
        eventually_is(
            "what nobody uses is forgotten",
            || (credentials.refresh(), credentials.shown()).1,
            Vec::is_empty,
        );
    }

    #[tokio::test]
    async fn a_server_forgets_sessions_with_the_ca_that_they_were_based_on() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let credentials = Credentials::default();
        let ca = ours.ca().with_file_name("believed.pem");
        std::fs::copy(ours.ca(), &ca).unwrap();
        let tls = ServerTls { client_ca: Some(ca.clone()), ..listener(&ours) };
        let server = credentials.server(&tls).await.unwrap();
        let identity = Some(shows(&ours.issue("client", &["orders"])));
        let spec = ClientSpec { identity, ..(&believes(&ours.ca())).into() };
        let client = Client::read(spec).unwrap();
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Full);
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Resumed);
        replace(&ca, &theirs.ca());
        refreshed(&credentials, || server.generation() == 1).await;
        assert!(meet(&server, &client).await.is_err());
        replace(&ca, &ours.ca());
        refreshed(&credentials, || server.generation() == 2).await;
        assert_eq!(meet(&server, &client).await.unwrap(), HandshakeKind::Full, "not by a ticket from before");
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_once_it_can() {
        let authority = Authority::new();
        let (credentials, server) = (Credentials::default(), Server::read(listener(&authority)).unwrap());
        let late = authority.ca().with_file_name("late.pem");
        let client = credentials.client(&believes(&late));
        let error = meet(&server, &client).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot read CA certificates from"), "{error}");
        replace(&late, &authority.ca());
        refreshed(&credentials, || client.config(Alpn::Http1).is_some()).await;
        assert!(meet(&server, &client).await.is_ok());
    }
}
