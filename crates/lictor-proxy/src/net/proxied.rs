//! Connections that others bring, and say whose they are before anything else (`lictor_http::proxied`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lictor_core::cidr::Cidrs;
use lictor_http::proxied::{Brings, Header, read};
use lictor_http::stream::Socket;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A header must be whole within this: its proxy sends it with the first packet (`proxy-protocol.txt`, section 2).
const WAIT: Duration = Duration::from_secs(3);

/// Whose a connection is: whom its header says, or its peer where it brings nobody. It must have a header, and its peer must
/// be one of the proxies. Nothing behind the header is read.
pub(crate) async fn client(
    socket: &mut Socket,
    peer: Option<SocketAddr>,
    proxies: &Cidrs,
) -> Result<SocketAddr, &'static str> {
    let peer = peer.filter(|peer| proxies.has(peer.ip())).ok_or("it does not come from one of `trusted_proxies`")?;
    let Socket::Tcp(socket) = socket else { return Err("it does not come from one of `trusted_proxies`") };
    let brings = tokio::time::timeout(WAIT, header(socket)).await.map_err(|_| "no header within 3 s")??;
    Ok(match brings {
        Brings::Client(client) => client,
        Brings::Itself => peer,
    })
}

async fn header(socket: &mut TcpStream) -> Result<Brings, &'static str> {
    let mut header = Vec::new();
    loop {
        let taken = header.len();
        header.resize(taken + 512, 0);
        let seen = socket.peek(&mut header[taken..]).await.map_err(|_| "it ended before its header")?;
        header.truncate(taken + seen);
        let (is_over, length) = match read(&header)? {
            _ if seen == 0 => return Err("it ended before its header"),
            Header::Part => (None, header.len()),
            Header::Whole(length, brings) => (Some(brings), length),
        };
        take(socket, &mut header[taken..length]).await.map_err(|_| "it ended before its header")?;
        if let Some(brings) = is_over {
            return Ok(brings);
        }
    }
}

/// What was seen is there.
async fn take(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    socket.read_exact(bytes).await.map(drop)
}
