//! Who asks.

use std::net::SocketAddr;
use std::rc::Rc;

use lictor_core::mesh::ListenerKind;

use super::worker::Worker;

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) kind: ListenerKind,
    /// `None` for a Unix socket: a process of this machine.
    pub(crate) peer: Option<SocketAddr>,
    /// TLS was spoken to us.
    pub(crate) is_encrypted: bool,
}

impl Connection {
    /// Whose address it is; `unix` for a client on a Unix socket.
    pub(crate) fn ip(&self) -> String {
        self.peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string())
    }

    /// As the access log and stories have it.
    pub(crate) fn direction(&self) -> &'static str {
        if self.kind == ListenerKind::Inbound { "inbound" } else { "outbound" }
    }
}
