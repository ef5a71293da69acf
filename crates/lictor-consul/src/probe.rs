//! Asking the application itself whether it is well, over loopback.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A 2xx for `path`, or, without one, a connection. Either way the words are for Consul's check output.
pub(crate) async fn probe(address: SocketAddr, path: Option<&str>, at_most: Duration) -> Result<String, String> {
    match tokio::time::timeout(at_most, ask(address, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{address} has not answered within {at_most:?}")),
    }
}

async fn ask(address: SocketAddr, path: Option<&str>) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let Some(path) = path else { return Ok(format!("{address} accepts connections")) };
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(USER_AGENT, "lictor-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer.map_err(|error| failed(&error))?.status();
    let words = format!("GET {path}: {status}");
    if status.is_success() { Ok(words) } else { Err(words) }
}
