//! Who asks.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use lictor_core::mesh::ListenerKind;
use lictor_core::{Failure, Reason};
use lictor_tls::Peer;

use super::generation::Generation;
use super::worker::Worker;

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    /// What admitted it.
    pub(crate) generation: Rc<Generation>,
    /// `None` for a Unix socket: a process of this machine.
    pub(crate) peer: Option<SocketAddr>,
    /// Who asks: the peer, or whom it brings, where a gateway believes it ([`Connection::brings`]).
    pub(crate) client: Option<IpAddr>,
    /// TLS was spoken to us, or, as is believed, to who brings the client.
    pub(crate) is_encrypted: bool,
    /// Who it has shown to be, where it was asked.
    pub(crate) shown: Option<Rc<Peer>>,
    /// By which of the listener's TLS policies it was admitted.
    pub(crate) policy: usize,
}

impl Connection {
    /// Refuses what comes by a connection that would not be admitted any more.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let (service, shown) = (&self.generation.service, &self.shown);
        let is_believed = || service.tls.as_ref().is_some_and(|tls| tls.believes(self.policy, shown.as_deref()));
        self.generation.check(is_believed)
    }

    /// Refuses a request for a host whose TLS policy is another than the handshake's: what was asked of the client there was
    /// not asked of this one (RFC 9110, section 15.5.20).
    pub(crate) fn check_host(&self, host: &str) -> Result<(), Failure> {
        let Some(tls) = &self.generation.service.tls else { return Ok(()) };
        if tls.policy(host) == Some(self.policy) {
            return Ok(());
        }
        let sentence = "this host has another TLS policy than the name that the connection was made for; connect again, for the host";
        Err(Failure::new(Reason::Misdirected, sentence))
    }

    /// Where it came in.
    pub(crate) fn kind(&self) -> &ListenerKind {
        &self.generation.service.kind
    }

    /// The same for a request that its peer brings for somebody else.
    pub(crate) fn brings(&self, client: Option<IpAddr>, is_encrypted: bool) -> Self {
        let (worker, generation) = (Rc::clone(&self.worker), Rc::clone(&self.generation));
        Self {
            worker,
            generation,
            peer: self.peer,
            client,
            is_encrypted,
            shown: self.shown.clone(),
            policy: self.policy,
        }
    }

    /// The client's address; `unix` for one on a Unix socket.
    pub(crate) fn ip(&self) -> String {
        self.client.map_or_else(|| "unix".to_owned(), |client| client.to_string())
    }

    /// As the access log and stories have it.
    pub(crate) fn direction(&self) -> &'static str {
        match self.kind() {
            ListenerKind::Inbound => "inbound",
            ListenerKind::Gateway | ListenerKind::Redirect => "gateway",
            ListenerKind::Upstream(_) | ListenerKind::Forward => "outbound",
        }
    }

    /// Whether we are its client's proxy (RFC 9110, section 3.7).
    pub(crate) fn is_forward(&self) -> bool {
        match self.kind() {
            ListenerKind::Forward => true,
            ListenerKind::Upstream(_) | ListenerKind::Inbound | ListenerKind::Gateway | ListenerKind::Redirect => false,
        }
    }

    /// Whether it leads to our own application.
    pub(crate) fn is_inbound(&self) -> bool {
        match self.kind() {
            ListenerKind::Inbound => true,
            ListenerKind::Upstream(_) | ListenerKind::Forward | ListenerKind::Gateway | ListenerKind::Redirect => false,
        }
    }

    /// Whether it is our own application that calls.
    pub(crate) fn is_applications(&self) -> bool {
        match self.kind() {
            ListenerKind::Upstream(_) | ListenerKind::Forward => true,
            ListenerKind::Inbound | ListenerKind::Gateway | ListenerKind::Redirect => false,
        }
    }

    /// Whether whoever asks is nobody of ours: he is believed nothing, and told nothing of us.
    pub(crate) fn is_edge(&self) -> bool {
        matches!(self.kind(), ListenerKind::Gateway | ListenerKind::Redirect)
    }

    /// Whether its client is to go on elsewhere: somebody from outside, while we are out of circulation.
    pub(crate) fn shall_leave(&self) -> bool {
        !self.is_applications() && self.worker.shared.is_draining.load(Relaxed)
    }

    /// Whether what is still open of it was ended without waiting any longer.
    pub(crate) fn is_cut(&self) -> bool {
        self.worker.shared.is_cut.load(Relaxed) || self.generation.is_cut()
    }
}
