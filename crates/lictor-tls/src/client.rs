//! TLS towards others.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lictor_core::tls::{ClientTls, KeyPair};
use lictor_os::files::{LOOK_EVERY, Look};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::file::{TlsError, key_pair};
use crate::made::{Latest, Made, Source};
use crate::suites::provider;
use crate::trust::{Trust, Unverified};

/// Sessions that are remembered, by servers' names.
const SESSIONS: usize = 1024;

/// Whom a client believes, and who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientSpec {
    /// Who is believed.
    pub trust: Trust,
    /// What we show when we are asked.
    pub identity: Option<KeyPair>,
    /// For SNI (RFC 6066, section 3), and what the certificate must name (its SAN; RFC 9525); `None`: the host that is
    /// connected to.
    pub server_name: Option<String>,
}

impl From<&ClientTls> for ClientSpec {
    fn from(tls: &ClientTls) -> Self {
        Self {
            trust: tls.ca.clone().map_or(Trust::System, Trust::File),
            identity: tls.identity.clone(),
            server_name: tls.server_name.clone(),
        }
    }
}

/// What a connection is for (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`: a server that does not take it is refused.
    Http2,
    /// Nothing is said.
    None,
}

/// Why there is no TLS on a connection.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The files: what [`TlsError`] says.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// Not a name that a certificate could have.
    #[error("`{0}` is not a name that a certificate can have; set tls.server_name")]
    Name(String),
    /// A client that asks for a name that the listener has nothing for, or for none where it has to.
    #[error("no policy is for {}", .0.as_ref().map_or_else(|| "a client that names no host".to_owned(), |name| format!("`{name}`")))]
    NoPolicy(Option<String>),
    /// A CA looked whether a host is ours; nothing else is said.
    #[error("a CA has seen that the host is ours")]
    Proof,
    /// The other side, or the connection to it.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// The other side takes its time.
    #[error("no TLS handshake within {0:?}")]
    Late(Duration),
    /// It is good for something else.
    #[error("the server does not offer HTTP/2 (ALPN h2)")]
    NoHttp2,
}

/// The client's side: whom we believe, and who we are.
#[derive(Debug)]
pub struct Client(pub(crate) Latest<ClientSpec>);

/// One for each protocol that may be asked for.
#[derive(Debug)]
pub(crate) struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl Configs {
    fn get(&self, alpn: Alpn) -> &Arc<ClientConfig> {
        match alpn {
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
            Alpn::None => &self.bytes,
        }
    }
}

/// Whether a certificate can name this: a DNS name or an IP address.
pub fn is_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

/// Looks at a client's files each second, for as long as somebody has it; they are read on tokio's threads for blocking work.
pub async fn follow(client: Weak<Client>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(client) = client.upgrade() else { return };
        tokio::task::spawn_blocking(move || client.refresh()); // one that still waits does not wait twice
    }
}

impl Client {
    /// Reads the files. It waits for the disk.
    pub fn read(spec: ClientSpec) -> Result<Self, TlsError> {
        Latest::read(spec).map(Self)
    }

    /// Looks at the files, and reads them if they have changed. It waits for the disk.
    pub(crate) fn refresh(&self) {
        self.0.refresh();
    }

    /// Grows when somebody who was believed is not any more. Ask before connecting: a connection is good for new requests
    /// while this is still what it was then.
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Changes when the files say something else: other roots, or another certificate of ours.
    pub fn made_anew(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.made_anew()
    }

    /// What was read last, for who makes connections by himself; `None` before anything was.
    pub fn config(&self, alpn: Alpn) -> Option<Arc<ClientConfig>> {
        Some(Arc::clone(self.0.get()?.config.get(alpn)))
    }

    /// The client's side of the handshake, with what was read last. `host` is the server's name or IP address, which its
    /// certificate must have unless the configuration names another. There is no limit of time: whoever calls has one.
    pub async fn connect<S>(&self, socket: S, host: &str, alpn: Alpn) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.0.source.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| HandshakeError::Name(name.to_owned()))?;
        let made = self.0.ready().await.map_err(HandshakeError::Unusable)?;
        let stream = TlsConnector::from(Arc::clone(made.config.get(alpn))).connect(name, socket).await?;
        if alpn == Alpn::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(HandshakeError::NoHttp2);
        }
        Ok(stream)
    }
}

impl Source for ClientSpec {
    type Config = Configs;

    /// Nothing of an earlier one lives on: a session that is resumed shows no certificate.
    fn make(&self, _: Option<&Made<Configs>>) -> Result<Made<Configs>, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let roots = self.trust.roots()?;
        let builder = match &roots {
            Some(roots) => builder.with_root_certificates(Arc::clone(roots)),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        };
        let (mut config, chain) = match &self.identity {
            Some(identity) => {
                let (chain, key) = key_pair(identity)?;
                let config = builder.with_client_auth_cert(chain.clone(), key);
                (config.map_err(|error| TlsError::unusable(&identity.cert, &error))?, chain)
            }
            None => (builder.with_no_client_auth(), Vec::new()),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let speaking = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        let configs = Configs { http1: speaking(&[b"http/1.1"]), http2: speaking(&[b"h2"]), bytes: speaking(&[]) };
        Ok(Made { config: configs, roots, chain })
    }

    fn look(&self, look: &mut Look) {
        self.trust.look(look);
        for file in self.identity.iter().flat_map(|pair| [&pair.cert, &pair.key]) {
            look.at(file);
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let (file, folders) = self.trust.places();
        let identity = self.identity.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]);
        file.into_iter().chain(folders).chain(identity).collect()
    }

    fn identity(&self) -> Option<&KeyPair> {
        self.identity.as_ref()
    }
}
