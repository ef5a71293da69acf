//! Who asks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use lictor_core::mesh::ListenerKind;

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
    /// TLS was spoken to us.
    pub(crate) is_encrypted: bool,
}

impl Connection {
    /// Where it came in.
    pub(crate) fn kind(&self) -> &ListenerKind {
        &self.generation.service.kind
    }

    /// Whose address it is; `unix` for a client on a Unix socket.
    pub(crate) fn ip(&self) -> String {
        self.peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string())
    }

    /// As the access log and stories have it.
    pub(crate) fn direction(&self) -> &'static str {
        if self.is_inbound() { "inbound" } else { "outbound" }
    }

    /// Whether it leads to our own application.
    pub(crate) fn is_inbound(&self) -> bool {
        match self.kind() {
            ListenerKind::Inbound => true,
            ListenerKind::Upstream(_) | ListenerKind::Forward => false,
        }
    }

    /// Whether what is still open of it was ended without waiting any longer.
    pub(crate) fn is_cut(&self) -> bool {
        self.worker.shared.is_cut.load(Relaxed) || self.generation.is_cut()
    }
}
