//! TLS on listeners and towards endpoints: rustls with the ring provider, TLS 1.2 and 1.3, its safe suites only; of
//! those AES-128-GCM first where the processor has instructions for it, as Go does.
//!
//! Files are read when a name is first used, and again when they change; what cannot be read then changes nothing.
//! Sessions, and the keys of their tickets, outlive a change of certificate, but where clients must show theirs: there
//! a session says who was believed.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_core::tls::{ClientTls, KeyPair, ServerTls};
use lictor_core::{Address, Failure, Reason};
use lictor_http::stream::{Socket, Stream};
use parking_lot::{Mutex, RwLock};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{info, warn};

use crate::certificate::first_end;

/// A client must have finished its handshake within this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Sessions that are remembered: a listener's for clients without tickets, and those with endpoints.
const SESSIONS: usize = 1024;

/// TLS cannot be set up as configured.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file.
    #[error("cannot read {what} from {}: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system has no CA certificates.
    #[error("this system has no CA certificates: set `tls.ca`")]
    NoRoots,
    /// The certificate and key do not fit, or the like.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Tries to read all files that these name.
pub fn check<'a>(
    servers: impl IntoIterator<Item = &'a ServerTls>,
    clients: impl IntoIterator<Item = &'a ClientTls>,
) -> Result<(), TlsError> {
    for tls in servers {
        server_config(tls, &Lasting::default())?;
    }
    for tls in clients {
        client_config(tls, &Lasting::default())?;
    }
    Ok(())
}

/// The client's side for one who speaks for himself: HTTP/2 or HTTP/1.1.
pub fn client(tls: &ClientTls, is_http2: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let configs = client_config(tls, &Lasting::default())?;
    Ok(if is_http2 { configs.http2 } else { configs.http1 })
}

/// A certificate that is shown to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Its file.
    pub path: PathBuf,
    /// Seconds since the epoch at which the first of its chain ends; `None`: that is not known.
    pub not_after: Option<i64>,
    /// The files have changed since, and cannot be used.
    pub is_rejected: bool,
}

/// All TLS settings in use, by what the configuration says.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    servers: Mutex<HashMap<ServerTls, Arc<Server>>>,
    clients: Mutex<HashMap<ClientTls, Arc<Client>>>,
}

/// TLS on a listener.
pub(crate) type Server = Reloading<ServerTls, ServerConfig>;
/// TLS towards endpoints.
pub(crate) type Client = Reloading<ClientTls, ClientConfigs>;

/// Something made of files, made again when they change.
#[derive(Debug)]
pub(crate) struct Reloading<S, C> {
    spec: S,
    lasting: Lasting,
    current: RwLock<Current<C>>,
}

#[derive(Debug)]
struct Current<C> {
    /// Of the files, at the last look.
    stamps: Vec<Option<SystemTime>>,
    config: Arc<C>,
    not_after: Option<i64>,
    is_rejected: bool,
}

/// What outlives a change of certificate.
#[derive(Clone, Debug)]
struct Lasting {
    sessions: Arc<dyn StoresServerSessions>,
    /// Tickets need no memory (RFC 8446, section 4.6.1; RFC 5077).
    ticketer: Arc<dyn ProducesTickets>,
    resumption: Resumption,
}

impl Default for Lasting {
    fn default() -> Self {
        Self {
            sessions: ServerSessionMemoryCache::new(SESSIONS),
            ticketer: ring::Ticketer::new().expect("the system has random numbers"),
            resumption: Resumption::in_memory_sessions(SESSIONS),
        }
    }
}

/// One for each protocol that may be asked for.
#[derive(Debug)]
pub(crate) struct ClientConfigs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

/// What the connection is for (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
    /// Nothing is said.
    None,
}

impl Settings {
    pub(crate) fn server(&self, tls: &ServerTls) -> Result<Arc<Server>, TlsError> {
        known_or_made(&mut self.servers.lock(), tls, server_config)
    }

    pub(crate) fn client(&self, tls: &ClientTls) -> Result<Arc<Client>, TlsError> {
        known_or_made(&mut self.clients.lock(), tls, client_config)
    }

    /// The certificates that are shown.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let servers = self.servers.lock();
        let clients = self.clients.lock();
        let servers = servers.values().map(|server| server.shown());
        let clients = clients.values().map(|client| client.shown());
        let mut shown: Vec<Shown> = servers.chain(clients).flatten().collect();
        shown.sort();
        shown.dedup_by(|one, other| one.path == other.path);
        shown
    }

    /// Reads again whatever has changed, and forgets what nobody uses.
    pub(crate) fn refresh(&self) {
        let mut servers = self.servers.lock();
        servers.retain(|_, server| Arc::strong_count(server) > 1);
        servers.values().for_each(|server| server.refresh(server.spec.files(), server_config));
        let mut clients = self.clients.lock();
        clients.retain(|_, client| Arc::strong_count(client) > 1);
        clients.values().for_each(|client| client.refresh(client.spec.files(), client_config));
    }
}

fn known_or_made<S: Clone + Eq + Hash + Files, C>(
    known: &mut HashMap<S, Arc<Reloading<S, C>>>,
    spec: &S,
    make: impl Fn(&S, &Lasting) -> Result<C, TlsError>,
) -> Result<Arc<Reloading<S, C>>, TlsError> {
    if let Some(known) = known.get(spec) {
        return Ok(Arc::clone(known));
    }
    let (stamps, lasting) = (stamps(&spec.files()), Lasting::default());
    let config = Arc::new(make(spec, &lasting)?);
    let current = RwLock::new(Current { stamps, config, not_after: spec.not_after(), is_rejected: false });
    let made = Arc::new(Reloading { spec: spec.clone(), lasting, current });
    known.insert(spec.clone(), Arc::clone(&made));
    Ok(made)
}

impl<S: Files, C> Reloading<S, C> {
    fn current(&self) -> Arc<C> {
        Arc::clone(&self.current.read().config)
    }

    fn shown(&self) -> Option<Shown> {
        let current = self.current.read();
        let path = self.spec.identity()?.cert.clone();
        Some(Shown { path, not_after: current.not_after, is_rejected: current.is_rejected })
    }

    fn refresh(&self, files: Vec<&Path>, make: impl Fn(&S, &Lasting) -> Result<C, TlsError>) {
        let stamps = stamps(&files);
        if self.current.read().stamps == stamps {
            return;
        }
        let files = files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match make(&self.spec, &self.lasting) {
            Ok(made) => {
                let (config, not_after) = (Arc::new(made), self.spec.not_after());
                *self.current.write() = Current { stamps, config, not_after, is_rejected: false };
                info!(target: "lictor::event", kind = "certificate_reloaded", files, "the certificate files were read again");
            }
            // Perhaps only half written: the next look tries again, but says nothing more until they change.
            Err(error) => {
                let mut current = self.current.write();
                (current.stamps, current.is_rejected) = (stamps, true);
                drop(current);
                warn!(target: "lictor::event", kind = "certificate_rejected", files, %error, "the earlier certificate stays in use");
            }
        }
    }
}

/// The files that something is made of.
pub(crate) trait Files {
    fn files(&self) -> Vec<&Path>;

    /// What is shown, if anything.
    fn identity(&self) -> Option<&KeyPair>;

    /// When the first certificate of what is shown ends.
    fn not_after(&self) -> Option<i64> {
        first_end(&key_pair(self.identity()?).ok()?.0)
    }
}

impl Files for ServerTls {
    fn files(&self) -> Vec<&Path> {
        [&self.identity.cert, &self.identity.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path).collect()
    }

    fn identity(&self) -> Option<&KeyPair> {
        Some(&self.identity)
    }
}

impl Files for ClientTls {
    fn files(&self) -> Vec<&Path> {
        let identity = self.identity.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        self.ca.iter().chain(identity).map(PathBuf::as_path).collect()
    }

    fn identity(&self) -> Option<&KeyPair> {
        self.identity.as_ref()
    }
}

/// When each file was changed last; symbolic links are followed, as Kubernetes swaps those.
fn stamps(files: &[&Path]) -> Vec<Option<SystemTime>> {
    files.iter().map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if has_aes() {
        // ring has AES-256 first. AES-128 is cheaper, also by its handshake's SHA-256 instead of SHA-384.
        provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    }
    Arc::new(provider)
}

/// Whether this processor has instructions for AES; one without is better off with ChaCha20, if the client thinks so.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn rank(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 1,
        _ => 2,
    }
}

fn server_config(tls: &ServerTls, lasting: &Lasting) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let builder = match &tls.client_ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider())
                .build()
                .map_err(|error| TlsError::Unusable { path: ca.clone(), reason: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = key_pair(&tls.identity)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&tls.identity, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let lasting = if tls.client_ca.is_some() { Lasting::default() } else { lasting.clone() };
    (config.session_storage, config.ticketer) = (lasting.sessions, lasting.ticketer);
    config.send_tls13_tickets = 1; // as Go does: each connection gives the next one its ticket
    config.ignore_client_order = has_aes();
    Ok(config)
}

fn client_config(tls: &ClientTls, lasting: &Lasting) -> Result<ClientConfigs, TlsError> {
    let roots = match &tls.ca {
        Some(ca) => roots(ca)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        Some(identity) => {
            let (chain, key) = key_pair(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(identity, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = lasting.resumption.clone();
    let speaking = |alpn: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    };
    Ok(ClientConfigs { http1: speaking(&[b"http/1.1"]), http2: speaking(&[b"h2"]), bytes: speaking(&[]) })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "CA certificates")? {
        let unusable = |error: rustls::Error| TlsError::Unusable { path: path.to_owned(), reason: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn key_pair(pair: &KeyPair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&pair.cert, "a certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| TlsError::File {
        what: "a private key",
        path: pair.key.clone(),
        reason: error.to_string(),
    })?;
    Ok((chain, key))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|reason| error(reason.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| error(reason.to_string()))?;
    if found.is_empty() { Err(error("it has no PEM certificate".to_owned())) } else { Ok(found) }
}

fn unusable(pair: &KeyPair, error: &rustls::Error) -> TlsError {
    TlsError::Unusable { path: pair.cert.clone(), reason: error.to_string() }
}

impl Server {
    /// The server's side of the handshake. The words are for the log: the client has its alert.
    pub(crate) async fn accept(&self, socket: Socket) -> Result<Stream, String> {
        let handshake = TlsAcceptor::from(self.current()).accept(socket);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Ok(Stream::Accepted(Box::new(stream))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no TLS handshake within {HANDSHAKE:?}")),
        }
    }
}

impl Client {
    /// The client's side. `host` is the endpoint's name or IP address, which its certificate must have unless the
    /// configuration names another.
    pub(crate) async fn connect(
        &self,
        socket: Socket,
        address: &Address,
        host: &str,
        alpn: Alpn,
    ) -> Result<Stream, Failure> {
        let failed = |why: String| Failure::new(Reason::TlsFailed, format!("TLS with {address} failed: {why}"));
        let name = self.spec.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| failed(format!("`{name}` is not a name that a certificate can have; set tls.server_name")))?;
        let configs = self.current();
        let config = match alpn {
            Alpn::Http1 => &configs.http1,
            Alpn::Http2 => &configs.http2,
            Alpn::None => &configs.bytes,
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, socket)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let stream = Stream::Dialled(Box::new(stream));
        if alpn == Alpn::Http2 && stream.alpn() != Some(b"h2") {
            return Err(failed("the server does not offer HTTP/2 (ALPN h2)".to_owned()));
        }
        Ok(stream)
    }
}
