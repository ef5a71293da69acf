//! TLS on a listener.

use std::path::PathBuf;
use std::sync::Arc;

use lictor_core::tls::{KeyPair, ServerTls};
use lictor_os::files::Look;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::client::HandshakeError;
use crate::file::{TlsError, key_pair};
use crate::made::{Latest, Made, Source};
use crate::suites::{has_aes, provider};
use crate::trust::Trust;

/// Sessions that are remembered, for clients without tickets.
const SESSIONS: usize = 1024;

/// The server's side of one policy: what we show, and whom we ask for what.
#[derive(Debug)]
pub(crate) struct Server(pub(crate) Latest<ServerTls>);

/// Who a client is: its certificate, and those between it and a CA.
#[derive(Debug)]
pub struct Peer(Vec<CertificateDer<'static>>);

/// The names of a certificate (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Such as SPIFFE's: `spiffe://shop.example/orders`.
    pub uris: Vec<String>,
    /// Such as `orders.shop.example`.
    pub dns: Vec<String>,
}

impl Peer {
    /// Whom its certificate names; a subject without alternative names is nobody's name (RFC 9525, section 2).
    pub fn names(&self) -> Names {
        let Some(Ok(own)) = self.0.first().map(EndEntityCert::try_from) else { return Names::default() };
        Names {
            uris: own.valid_uri_names().map(str::to_owned).collect(),
            dns: own.valid_dns_names().map(str::to_owned).collect(),
        }
    }
}

impl Server {
    /// Reads the files; what is ordered may come later. It waits for the disk.
    pub(crate) fn read(tls: ServerTls) -> Result<Self, TlsError> {
        if !tls.is_awaited {
            return Latest::read(tls).map(Self);
        }
        client_roots(&tls)?;
        let latest = Latest::new(tls);
        latest.refresh();
        Ok(Self(latest))
    }

    /// Whether whoever comes has shown a certificate that is believed.
    pub(crate) fn requires_certificates(&self) -> bool {
        self.0.source.client_ca.is_some() && self.0.source.requires
    }

    /// What a client has shown, where it was asked to.
    pub(crate) fn peer<S>(&self, stream: &TlsStream<S>) -> Option<Peer> {
        let chain = stream.get_ref().1.peer_certificates().filter(|_| self.0.source.client_ca.is_some())?;
        Some(Peer(chain.to_vec()))
    }

    /// Whether a CA that is believed now vouches for a client that was believed once.
    pub(crate) fn believes(&self, peer: &Peer) -> bool {
        let Some(roots) = self.0.get().and_then(|made| made.roots.clone()) else { return false };
        let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(roots, provider()).build() else { return false };
        let Some((own, rest)) = peer.0.split_first() else { return false };
        verifier.verify_client_cert(own, rest, UnixTime::now()).is_ok()
    }

    /// Grows when a CA of clients that was believed is not any more. Ask before accepting: whoever shows a certificate was
    /// believed rightly while this is still what it was then.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// The server's side of the handshake, with what was read last; HTTP/2 and HTTP/1.1 are offered (RFC 7301).
    pub(crate) async fn accept<S>(&self, socket: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let made = self.0.ready().await.map_err(HandshakeError::Unusable)?;
        Ok(TlsAcceptor::from(Arc::clone(&made.config)).accept(socket).await?)
    }
}

/// Who vouches for clients, where they are asked.
pub(crate) fn client_roots(tls: &ServerTls) -> Result<Option<Arc<RootCertStore>>, TlsError> {
    let read = |ca: &PathBuf| Trust::File(ca.clone()).roots()?.ok_or(TlsError::NoRoots);
    tls.client_ca.as_ref().map(read).transpose()
}

impl Source for ServerTls {
    type Config = Arc<ServerConfig>;

    fn make(&self, earlier: Option<&Made<Self::Config>>) -> Result<Made<Self::Config>, TlsError> {
        if self.is_awaited && !self.identity.cert.exists() {
            return Err(TlsError::Awaited(self.identity.cert.clone()));
        }
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let (builder, roots) = match (&self.client_ca, client_roots(self)?) {
            (Some(ca), Some(roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
                let verifier = if self.requires { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| TlsError::unusable(ca, &error))?;
                (builder.with_client_cert_verifier(verifier), Some(roots))
            }
            (_, _) => (builder.with_no_client_auth(), None),
        };
        let (chain, key) = key_pair(&self.identity)?;
        let mut config = builder
            .with_single_cert(chain.clone(), key)
            .map_err(|error| TlsError::unusable(&self.identity.cert, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets need no memory (RFC 8446, section 4.6.1; RFC 5077); the store is for clients that take none.
        // Where clients must show certificates a session says who was believed: it ends with what it was based on.
        let lasting = earlier.filter(|_| self.client_ca.is_none());
        (config.session_storage, config.ticketer) = match lasting {
            Some(made) => (Arc::clone(&made.config.session_storage), Arc::clone(&made.config.ticketer)),
            None => {
                let ticketer = ring::Ticketer::new().expect("the system has random numbers");
                (ServerSessionMemoryCache::new(SESSIONS) as Arc<dyn StoresServerSessions>, ticketer)
            }
        };
        config.send_tls13_tickets = 1; // as Go does: each connection gives the next one its ticket
        config.ignore_client_order = has_aes();
        Ok(Made { config: Arc::new(config), roots, chain })
    }

    fn look(&self, look: &mut Look) {
        for file in self.files() {
            look.at(&file);
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        [&self.identity.cert, &self.identity.key].into_iter().chain(&self.client_ca).cloned().collect()
    }

    fn identity(&self) -> Option<&KeyPair> {
        Some(&self.identity)
    }
}
