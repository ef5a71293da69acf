//! TLS on a listener that shows each client what is its: a policy for each name that clients ask for.
//!
//! Each policy is a [`Server`] of its own, with sessions and tickets of its own: a session that was begun under one is not
//! resumed under another.

use std::sync::Arc;
use std::time::Duration;

use lictor_core::tls::ListenerTls;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::client::HandshakeError;
use crate::proof::Proofs;
use crate::server::{Peer, Server};

/// A client must have finished its handshake within this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A fatal alert (RFC 8446, section 6), before any key is known: its record, and `unrecognized_name` (RFC 6066, section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The same with `missing_extension`, for who names nobody (RFC 8446, section 9.2).
const MISSING_EXTENSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 109];

/// The policies of a listener.
#[derive(Debug)]
pub struct Servers {
    tls: ListenerTls,
    /// By the policies' indices.
    each: Vec<Arc<Server>>,
    proofs: Arc<Proofs>,
}

impl Servers {
    /// For each policy its server.
    pub(crate) fn new(tls: ListenerTls, each: Vec<Arc<Server>>, proofs: Arc<Proofs>) -> Self {
        debug_assert_eq!(tls.policies().len(), each.len());
        Self { tls, each, proofs }
    }

    /// The server's side of the handshake, with what the policy of the client's name had read last, and which policy that
    /// is. It takes at most 10 s. Why it failed is for the log: the client has its alert.
    pub async fn accept<S>(&self, socket: S) -> Result<(TlsStream<S>, usize), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            if let [only] = &self.each[..]
                && self.tls.is_one_for_all()
            {
                return Ok((only.accept(socket).await?, 0));
            }
            self.accept_by_name(socket).await
        };
        tokio::time::timeout(HANDSHAKE, handshake).await.unwrap_or(Err(HandshakeError::Late(HANDSHAKE)))
    }

    async fn accept_by_name<S>(&self, socket: S) -> Result<(TlsStream<S>, usize), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        if let Some(proof) = self.proofs.of(&begun.client_hello()) {
            // Nothing is said on such a connection (RFC 8737, section 3).
            begun.into_stream(proof).await?.shutdown().await?;
            return Err(HandshakeError::Proof);
        }
        let name = begun.client_hello().server_name().map(str::to_owned);
        let found = self.tls.policy_of_name(name.as_deref()).and_then(|policy| Some((policy, self.each.get(policy)?)));
        let Some((policy, server)) = found else {
            let alert = if name.is_some() { &UNRECOGNIZED_NAME } else { &MISSING_EXTENSION };
            refuse(&mut begun.io, alert).await?;
            return Err(HandshakeError::NoPolicy(name));
        };
        let made = match server.0.ready().await {
            Ok(made) => made,
            Err(why) => {
                refuse(&mut begun.io, &UNRECOGNIZED_NAME).await?;
                return Err(HandshakeError::Unusable(why));
            }
        };
        Ok((begun.into_stream(Arc::clone(&made.config)).await?, policy))
    }

    /// Whose policy it is, by a host as it was read.
    pub fn policy(&self, host: &str) -> Option<usize> {
        self.tls.policy(Some(host))
    }

    /// What a client has shown, where this policy asks for it.
    pub fn peer<S>(&self, policy: usize, stream: &TlsStream<S>) -> Option<Peer> {
        self.each.get(policy)?.peer(stream)
    }

    /// Whether a client of this policy that was believed once would be believed now.
    pub fn believes(&self, policy: usize, shown: Option<&Peer>) -> bool {
        self.each.get(policy).is_some_and(|server| match shown {
            Some(shown) => server.believes(shown),
            None => !server.requires_certificates(),
        })
    }

    /// Grows when a CA of clients that was believed is not any more. Ask before accepting: whoever shows a certificate was
    /// believed rightly while this is still what it was then.
    pub fn generation(&self) -> u64 {
        self.each.iter().map(|server| server.generation()).sum()
    }
}

async fn refuse<S: AsyncWrite + Unpin>(socket: &mut S, alert: &[u8]) -> std::io::Result<()> {
    socket.write_all(alert).await?;
    socket.shutdown().await
}
