//! Dialling an endpoint.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::deadline::End;
use lictor_core::{Address, Failure, Reason};
use lictor_http::stream::{Socket, Stream, unpace_loopback};
use lictor_tls::{Alpn, HandshakeError};
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::clock;
use crate::stores::millis::Millis;

/// Where and how an endpoint is dialled.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) address: Address,
    /// The host as registered: a certificate must name it.
    pub(crate) host: Arc<str>,
    pub(crate) tls: Option<Arc<lictor_tls::Client>>,
}

impl Destination {
    /// Connects within `at_most`, TLS included; without `alpn` there is none. The request that wants the connection has
    /// sent nothing yet.
    pub(crate) async fn connect(&self, alpn: Option<Alpn>, at_most: Duration) -> Result<Stream, Failure> {
        let dial = async {
            let socket = self.dial().await?;
            match (&self.tls, alpn) {
                (None, _) | (_, None) => Ok(Stream::Plain(socket)),
                (Some(tls), Some(alpn)) => tls
                    .connect(socket, &self.host, alpn)
                    .await
                    .map(|stream| Stream::Dialled(Box::new(stream)))
                    .map_err(|error| self.no_tls(&error)),
            }
        };
        let end = End { at: Instant::now() + at_most, reason: Reason::ConnectTimeout };
        clock::within(Some(end), dial).await.unwrap_or_else(|end| {
            let sentence = format!("no connection to {} within {}", self.address, Millis(at_most));
            Err(Failure::new(end.reason, sentence))
        })
    }

    fn no_tls(&self, error: &HandshakeError) -> Failure {
        Failure::new(Reason::TlsFailed, format!("TLS with {} failed: {error}", self.address))
    }

    /// Changes when somebody who was believed is not any more: connections from before are for no new request.
    pub(crate) fn generation(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.generation())
    }

    async fn dial(&self) -> Result<Socket, Failure> {
        let socket = match &self.address {
            Address::Tcp(address) => TcpStream::connect(address)
                .await
                .inspect(|stream| unpace_loopback(SockRef::from(stream), address))
                .map(Socket::Tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        };
        let socket = socket.map_err(|error| refused(&self.address, &error))?;
        socket.set_nodelay().map_err(|error| refused(&self.address, &error))?;
        Ok(socket)
    }
}

fn refused(address: &Address, error: &io::Error) -> Failure {
    if is_ours(error) {
        let sentence = format!("no connection to {address} can be made here: {error}");
        return Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1));
    }
    let sentence = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
        io::ErrorKind::TimedOut => format!("no answer from {address} to the connection request"),
        io::ErrorKind::NotFound => format!("{address} does not exist"),
        _ => format!("cannot connect to {address}: {error}"),
    };
    let reason = if error.kind() == io::ErrorKind::TimedOut { Reason::ConnectTimeout } else { Reason::ConnectRefused };
    Failure::new(reason, sentence)
}

/// Whether this process or machine has run out of something (files, ports, memory): no fault of the endpoint's.
fn is_ours(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_here_is_no_endpoints_fault() {
        let address: Address = "10.0.0.1:80".parse().unwrap();
        let reason = |errno: Errno| refused(&address, &errno.into()).reason;
        assert_eq!(reason(Errno::MFILE), Reason::Overloaded);
        assert_eq!(reason(Errno::ADDRNOTAVAIL), Reason::Overloaded);
        assert_eq!(reason(Errno::CONNREFUSED), Reason::ConnectRefused);
        assert_eq!(reason(Errno::HOSTUNREACH), Reason::ConnectRefused);
    }

    #[tokio::test]
    async fn what_is_written_within_this_machine_is_not_paced() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let destination = Destination { address, host: "localhost".into(), tls: None };
        let socket = destination.dial().await.unwrap();
        let Socket::Tcp(stream) = socket else { panic!("not TCP") };
        assert!(SockRef::from(&stream).tcp_congestion().unwrap().starts_with(b"reno"));
    }

    #[tokio::test]
    async fn what_is_not_there_is_named_in_the_sentence() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = |address: Address| async {
            let destination = Destination { address, host: "localhost".into(), tls: None };
            destination.connect(None, Duration::from_secs(5)).await.unwrap_err()
        };
        let failure = refused(address.into()).await;
        assert_eq!(failure.reason, Reason::ConnectRefused);
        assert_eq!(failure.detail, format!("connection refused by {address}"));
        let failure = refused("unix:/does/not/exist".parse().unwrap()).await;
        assert_eq!(failure.detail, "unix:/does/not/exist does not exist");
    }
}
