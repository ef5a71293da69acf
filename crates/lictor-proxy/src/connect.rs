//! Dialling an endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lictor_core::{Failure, Reason};
use tokio::net::TcpStream;

/// Connects within `at_most`. The request that wants the connection has sent nothing yet.
pub(crate) async fn connect(address: SocketAddr, at_most: Duration) -> Result<TcpStream, Failure> {
    let stream = match tokio::time::timeout(at_most, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(refused(address, &error)),
        Err(_) => {
            let sentence = format!("no connection to {address} within {}", Millis(at_most));
            return Err(Failure::new(Reason::ConnectTimeout, sentence));
        }
    };
    // Small writes (a head, then a body) must not wait for the peer's delayed acknowledgement.
    stream.set_nodelay(true).map_err(|error| refused(address, &error))?;
    Ok(stream)
}

fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    let sentence = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
        io::ErrorKind::TimedOut => format!("no answer from {address} to the connection request"),
        _ => format!("cannot connect to {address}: {error}"),
    };
    let reason = if error.kind() == io::ErrorKind::TimedOut { Reason::ConnectTimeout } else { Reason::ConnectRefused };
    Failure::new(reason, sentence)
}

/// A duration as people write it: `250ms`, `30s`.
pub(crate) struct Millis(pub(crate) Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis();
        if millis >= 1000 && millis.is_multiple_of(1000) {
            write!(f, "{}s", millis / 1000)
        } else {
            write!(f, "{millis}ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(Millis(Duration::from_millis(250)).to_string(), "250ms");
        assert_eq!(Millis(Duration::from_secs(30)).to_string(), "30s");
        assert_eq!(Millis(Duration::from_millis(1500)).to_string(), "1500ms");
    }

    #[tokio::test]
    async fn a_closed_port_is_named_in_the_sentence() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failure = connect(address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ConnectRefused);
        assert_eq!(failure.detail, format!("connection refused by {address}"));
    }
}
