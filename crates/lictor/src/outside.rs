//! A question to a server that is none of the mesh: to who issues tokens, or certificates. Each has a connection of its own: they
//! are rare. How long it may take is for who asks to say, and how long its answer may be.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lictor_os::{dial, names};
use lictor_tls::{Alpn, Client, ClientSpec};

/// Of an answer's head.
const HEAD_MAX: usize = 64 << 10;

/// Asks the server that the URL names; `client` says who is believed to be it, where that is `https`.
pub(crate) async fn ask(
    mut request: Request<Full<Bytes>>,
    client: impl Future<Output = Result<Arc<Client>, String>>,
) -> Result<Response<Incoming>, String> {
    let uri = request.uri().clone();
    let is_https = uri.scheme_str() == Some("https");
    let authority = uri.authority().ok_or("the URL has no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(authority.as_str()).map_err(|why| why.to_string())?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lictor/", env!("CARGO_PKG_VERSION"))));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::try_from(path).map_err(|why| why.to_string())?;
    let addresses = names::look_up(host).await.map_err(|why| format!("{host}: {why}"))?;
    let addresses: Vec<_> = addresses.into_iter().map(|ip| (ip, port).into()).collect();
    let stream = dial::connect(&addresses).await.map_err(|why| format!("cannot connect to {host}:{port}: {why}"))?;
    if !is_https {
        return exchange(stream, request).await;
    }
    let stream = client.await?.connect(stream, host, Alpn::Http1).await;
    exchange(stream.map_err(|why| format!("TLS with {host}: {why}"))?, request).await
}

/// Believes whom this says, as its files are now and later.
pub(crate) async fn client(spec: ClientSpec) -> Result<Arc<Client>, String> {
    let read = tokio::task::spawn_blocking(|| Client::read(spec)).await;
    let client = Arc::new(read.map_err(|why| why.to_string())?.map_err(|why| why.to_string())?);
    tokio::spawn(lictor_tls::follow(Arc::downgrade(&client)));
    Ok(client)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|why| why.to_string())?;
    tokio::spawn(connection); // its error reaches the request
    sender.send_request(request).await.map_err(|why| why.to_string())
}
