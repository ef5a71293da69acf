//! Asking the application itself whether it is well, over loopback or its Unix socket.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use lictor_core::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A 2xx for `path`, or, without one, a connection. Either way the words are for Consul's check output.
pub async fn probe(address: &Address, path: Option<&str>, at_most: Duration) -> Result<String, String> {
    let asking = async {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        match address {
            Address::Tcp(socket) => ask(TcpStream::connect(socket).await.map_err(failed)?, address, path).await,
            Address::Unix(socket) => ask(UnixStream::connect(socket).await.map_err(failed)?, address, path).await,
        }
    };
    match tokio::time::timeout(at_most, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{address} has not answered within {at_most:?}")),
    }
}

async fn ask<S>(stream: S, address: &Address, path: Option<&str>) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let Some(path) = path else { return Ok(format!("{address} accepts connections")) };
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.tcp().map_or_else(|| "localhost".to_owned(), |address| address.to_string()))
        .header(USER_AGENT, "lictor-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer.map_err(|error| failed(&error))?.status();
    let words = format!("GET {path}: {status}");
    if status.is_success() { Ok(words) } else { Err(words) }
}
