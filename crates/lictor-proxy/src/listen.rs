//! Sockets: binding them, accepting on them, and giving each connection to the worker with the fewest.
//!
//! With several workers each has a listening socket of its own on the same port (`SO_REUSEPORT`), so accepting is
//! parallel; the kernel's hash spreads a sidecar's few long-lived connections badly, so the accepting worker hands a
//! connection over when another one has fewer.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lictor_core::mesh::{Listener, ListenerKind};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// A listener that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it leads to.
    pub kind: ListenerKind,
    /// Where it really is (port 0 was replaced by the kernel's choice).
    pub address: SocketAddr,
}

/// A listener could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {}: {}", describe(.kind), explain(.source))]
pub struct BindError {
    /// What it was for.
    pub kind: ListenerKind,
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn describe(kind: &ListenerKind) -> String {
    match kind {
        ListenerKind::Upstream(name) => format!("upstream {name}"),
        ListenerKind::Forward => "the forward proxy".to_owned(),
        ListenerKind::Inbound => "inbound".to_owned(),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    }
}

/// One listening socket for each worker, all on the same address.
pub(crate) fn bind(listener: &Listener, workers: usize) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let error = |source| BindError { kind: listener.kind.clone(), address: listener.address, source };
    let mut address = listener.address;
    if workers > 1 {
        // Sockets that share a port do not notice another process on it that shares too: ask without sharing first.
        let alone = socket(address, false).map_err(error)?;
        address = local(&alone).map_err(error)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(address, workers > 1).map_err(error)?;
        socket.listen(1024).map_err(error)?;
        address = local(&socket).map_err(error)?;
        sockets.push(socket.into());
    }
    Ok((address, sockets))
}

fn socket(address: SocketAddr, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// How long to wait after a failed accept: out of file descriptors, mostly, which pass as connections end.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
