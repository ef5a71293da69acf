//! A connection's bytes, whatever carries them: TCP or a Unix socket, with or without TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// What carries bytes and is neither a socket nor TLS on one: a stream of HTTP/2 that was upgraded.
pub trait Carried: AsyncRead + AsyncWrite + fmt::Debug + Unpin {}

/// Nobody: nothing comes, and what is written is gone.
impl Carried for tokio::io::Empty {}

/// A socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A socket on its way from one worker to another.
#[derive(Debug)]
pub enum Detached {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A socket, or TLS on it.
#[derive(Debug)]
pub enum Stream {
    /// A socket as it is.
    Plain(Socket),
    /// We are the server.
    Accepted(Box<server::TlsStream<Socket>>),
    /// We are the client.
    Dialled(Box<client::TlsStream<Socket>>),
    /// Bytes that were read ahead come first.
    Peeked(Bytes, Box<Self>),
    /// What was HTTP/2's before it was upgraded.
    Carried(Box<dyn Carried>),
}

/// Connections within this machine cannot be congested: where the kernel's default is BBR, it would pace what is written, and
/// the timers for that cost as much as the writing. Reno is in every kernel and allowed to everybody (tcp(7),
/// `tcp_allowed_congestion_control`).
pub fn unpace_loopback(socket: SockRef<'_>, address: &SocketAddr) {
    if address.ip().is_loopback() {
        let _ = socket.set_tcp_congestion(b"reno"); // it works without
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Plain(Socket::Unix(stream))
    }
}

impl Socket {
    /// Takes it off this thread's runtime.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Self::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }

    /// Puts it on this thread's runtime.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        Ok(match detached {
            Detached::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            Detached::Unix(stream) => Self::Unix(UnixStream::from_std(stream)?),
        })
    }

    /// Small writes (a head, then a body) must not wait for the peer's delayed acknowledgement.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }
}

impl Stream {
    /// The same stream with these bytes before what it has.
    #[must_use]
    pub fn after(self, ahead: BytesMut) -> Self {
        if ahead.is_empty() { self } else { Self::Peeked(ahead.freeze(), Box::new(self)) }
    }

    /// Ready when there may be something to read. Only a socket can tell without a buffer.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(Socket::Tcp(stream)) => stream.poll_read_ready(context),
            Self::Plain(Socket::Unix(stream)) => stream.poll_read_ready(context),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// What TLS agreed on, if anything (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) | Self::Carried(_) => None,
            Self::Accepted(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Dialled(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Peeked(_, stream) => stream.alpn(),
        }
    }

    /// Whether there is TLS on it.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Carried(_) => false,
            Self::Accepted(_) | Self::Dialled(_) => true,
            Self::Peeked(_, stream) => stream.is_encrypted(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Accepted(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Dialled(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Carried(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Peeked(ahead, stream) if ahead.is_empty() => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Peeked(ahead, _) => {
                let count = ahead.len().min(buffer.remaining());
                buffer.put_slice(&ahead[..count]);
                ahead.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Accepted(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Dialled(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Peeked(_, stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Self::Carried(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Accepted(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Dialled(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Peeked(_, stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Self::Carried(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true // sockets and rustls both gather
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Accepted(stream) => Pin::new(stream).poll_flush(context),
            Self::Dialled(stream) => Pin::new(stream).poll_flush(context),
            Self::Peeked(_, stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Carried(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Accepted(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Dialled(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Peeked(_, stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Carried(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
