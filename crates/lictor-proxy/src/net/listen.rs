//! Sockets: binding them, accepting on them, and removing what they leave.
//!
//! With several workers each has a listening socket of its own on the same port (`SO_REUSEPORT`), so accepting is
//! parallel. A Unix socket has one queue, which all workers take from.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use lictor_core::Address;
use lictor_core::mesh::{Listener, ListenerKind};
use lictor_http::stream::{Socket, unpace_loopback};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use thiserror::Error;

/// A listener that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it leads to.
    pub kind: ListenerKind,
    /// Where it really is (port 0 was replaced by the kernel's choice).
    pub address: Address,
    /// TLS is spoken there.
    pub is_tls: bool,
}

/// A listener could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {}: {}", describe(.kind), explain(.source))]
pub struct BindError {
    /// What it was for.
    pub kind: ListenerKind,
    /// Where.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}

fn describe(kind: &ListenerKind) -> String {
    match kind {
        ListenerKind::Upstream(name) => format!("upstream {name}"),
        ListenerKind::Forward => "the forward proxy".to_owned(),
        ListenerKind::Inbound => "inbound".to_owned(),
        ListenerKind::Gateway => "the gateway".to_owned(),
        ListenerKind::Redirect => "the gateway's redirects".to_owned(),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not permitted: ports below 1024 need CAP_NET_BIND_SERVICE, a Unix socket a folder that can be written"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// A listening socket that no runtime knows yet.
#[derive(Debug)]
pub(crate) enum Unattached {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listening {
    pub(crate) fn attach(socket: Unattached) -> io::Result<Self> {
        Ok(match socket {
            Unattached::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Unattached::Unix(socket) => Self::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    /// A connection, and whose it is; a Unix socket's peer has no address that says anything.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                (Socket::Tcp(socket), Some(peer))
            }
            Self::Unix(listener) => (Socket::Unix(listener.accept().await?.0), None),
        })
    }
}

/// Where a listener listens. A Unix socket is a file, which somebody may remove or replace: that is another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) address: Address,
    /// Its device and number.
    file: Option<(u64, u64)>,
}

impl Spot {
    fn of(address: Address) -> Self {
        let file = address.path().and_then(|path| std::fs::symlink_metadata(path).ok());
        let file = file.map(|metadata| (metadata.dev(), metadata.ino()));
        Self { address, file }
    }

    /// Whether whoever asks for the address still finds this one there.
    pub(crate) fn is_there(&self) -> bool {
        Self::of(self.address.clone()) == *self
    }

    /// Removes what a closed listener leaves behind, and nothing of anybody else's.
    pub(crate) fn clear(&self) {
        if let Some(path) = self.address.path()
            && self.is_there()
        {
            let _ = std::fs::remove_file(path); // gone already is as good
        }
    }
}

/// One listening socket for each worker, all on the same address. With `beside_own` the same process may listen there
/// already, on more or fewer of the machine's addresses.
pub(crate) fn bind(
    listener: &Listener,
    workers: usize,
    beside_own: bool,
) -> Result<(Spot, Vec<Unattached>), BindError> {
    let bound = match &listener.address {
        Address::Tcp(address) => bind_tcp(*address, workers, beside_own),
        Address::Unix(path) => bind_unix(path, workers).map(|sockets| (listener.address.clone(), sockets)),
    };
    let bound = bound.map(|(address, sockets)| (Spot::of(address), sockets));
    bound.map_err(|source| BindError { kind: listener.kind.clone(), address: listener.address.clone(), source })
}

fn bind_tcp(mut address: SocketAddr, workers: usize, beside_own: bool) -> io::Result<(Address, Vec<Unattached>)> {
    if workers > 1 && !beside_own {
        // Sockets that share a port do not notice another process on it that shares too: ask without sharing first.
        let alone = socket(address, false)?;
        address = local(&alone)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(address, workers > 1 || beside_own)?;
        let _ = socket.set_reuse_port(true); // so that a later listener of ours may be beside it
        socket.listen(1024)?;
        address = local(&socket)?;
        sockets.push(Unattached::Tcp(socket.into()));
    }
    Ok((address.into(), sockets))
}

/// Any process may connect that reaches the folder, as with a loopback port.
fn bind_unix(path: &Path, workers: usize) -> io::Result<Vec<Unattached>> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    socket.listen(1024)?;
    (0..workers).map(|_| Ok(Unattached::Unix(socket.try_clone()?.into()))).collect()
}

/// A process that was killed leaves its socket: nobody answers there. Anything else is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("a file that is not a socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn socket(address: SocketAddr, shares_port: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // What it accepts inherits this (Linux): small writes do not wait for the client's delayed acknowledgement.
    socket.set_tcp_nodelay(true)?;
    unpace_loopback(SockRef::from(&socket), &address); // this too
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &socket2::Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// How long to wait after a failed accept: out of file descriptors, mostly, which pass as connections end.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often that is said: it may go on for long, on many listeners.
pub(crate) const ACCEPT_TOLD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_is_not_held_back() {
        for workers in [1, 2] {
            let (address, sockets) = bind_tcp(([127, 0, 0, 1], 0).into(), workers, false).unwrap();
            let clients: Vec<_> =
                (0..8).map(|_| std::net::TcpStream::connect(address.tcp().unwrap()).unwrap()).collect();
            let mut listening: Vec<_> = sockets.into_iter().map(|socket| Listening::attach(socket).unwrap()).collect();
            let (one, mut other) = (listening.remove(0), listening.pop());
            for _ in 0..clients.len() {
                let (socket, peer) = match &mut other {
                    Some(other) => {
                        tokio::select! { accepted = one.accept() => accepted, accepted = other.accept() => accepted }
                    }
                    None => one.accept().await,
                }
                .unwrap();
                let Socket::Tcp(socket) = socket else { panic!("not TCP") };
                assert!(socket.nodelay().unwrap());
                assert!(SockRef::from(&socket).tcp_congestion().unwrap().starts_with(b"reno"));
                assert_eq!(peer, socket.peer_addr().ok());
                assert!(clients.iter().any(|client| client.local_addr().ok() == peer));
            }
        }
    }
}
