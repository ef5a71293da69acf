//! One accepted connection: TLS if the listener has it, then HTTP/1.1, HTTP/2 (told apart by its first bytes, RFC
//! 9113, section 3.3) or plain bytes.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use lictor_core::mesh::{ListenerKind, Protocol};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tracing::debug;

use crate::forward::forward;
use crate::stream::{Socket, Stream};
use crate::tls;
use crate::tunnel;
use crate::worker::Worker;

/// A client must have sent its whole head within this: slow heads cost memory (slowloris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that is read ahead of a client's request: its head must fit. hyper's own is 400 KiB.
const READ_AHEAD: usize = 128 << 10;
/// The most of an answer that is kept for one stream of a client that does not read. hyper's own is 400 KiB.
const SEND_AHEAD: usize = 64 << 10;
/// `protocol: auto` waits no longer for bytes that tell: a server that speaks first must be let.
const DETECTION: Duration = Duration::from_millis(100);
/// A request line that is longer than this is none.
const LINE_MAX: usize = 8 << 10;

/// How a listener's connections are served.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) kind: ListenerKind,
    pub(crate) tls: Option<Arc<tls::Server>>,
    pub(crate) max_age: Option<Duration>,
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) kind: ListenerKind,
    /// `None` for a Unix socket: a process of this machine.
    pub(crate) peer: Option<SocketAddr>,
    /// TLS was spoken to us.
    pub(crate) is_encrypted: bool,
    /// The next answer of HTTP/1.1 is the last.
    is_old: Cell<bool>,
}

/// Serves the connection until either side ends it, or, once `drain` is set, until its requests are done.
pub(crate) async fn serve(worker: Rc<Worker>, service: Service, socket: Socket, drain: watch::Receiver<bool>) {
    let peer = socket.peer();
    let stream = match &service.tls {
        None => Stream::Plain(socket),
        Some(tls) => match tls.accept(socket).await {
            Ok(stream) => stream,
            Err(error) => {
                worker.shared.metrics.handshake_failed();
                return debug!(?peer, error, "a client's TLS handshake failed");
            }
        },
    };
    let (is_http, stream) = match protocol(&worker, &service.kind) {
        Protocol::Tcp => (false, stream),
        Protocol::Auto => match detect(stream).await {
            Ok(detected) => detected,
            Err(error) => return debug!(?peer, %error, "a client left before it said anything"),
        },
        Protocol::Grpc | Protocol::H2c | Protocol::Http1 => (true, stream),
    };
    let is_encrypted = stream.is_encrypted();
    let connection = Connection { worker, kind: service.kind, peer, is_encrypted, is_old: Cell::new(false) };
    if is_http {
        http(connection, stream, service.max_age, drain).await;
    } else {
        tunnel::carry(&connection, stream).await;
    }
}

/// What is spoken on a listener: what its upstream speaks, and HTTP to the others.
fn protocol(worker: &Worker, kind: &ListenerKind) -> Protocol {
    let view = worker.view();
    match kind {
        ListenerKind::Upstream(name) => view.upstreams.get(name).map(|upstream| upstream.upstream.protocol),
        ListenerKind::Inbound => view.inbound.as_ref().map(|inbound| inbound.app.upstream.protocol),
        ListenerKind::Forward => None,
    }
    .unwrap_or(Protocol::Http1)
}

/// Whether a client speaks HTTP: by what TLS agreed on, else by its first line.
async fn detect(stream: Stream) -> std::io::Result<(bool, Stream)> {
    if let Some(b"h2" | b"http/1.1") = stream.alpn() {
        return Ok((true, stream));
    }
    let (ahead, stream) = stream.peek(|bytes| looks_like_http(bytes).is_some(), LINE_MAX, DETECTION).await?;
    Ok((looks_like_http(&ahead) == Some(true), stream))
}

/// Whether these are the first bytes of HTTP; `None` while more are needed to tell. A method alone is not enough:
/// other protocols start with words too.
fn looks_like_http(bytes: &[u8]) -> Option<bool> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    if !line.iter().all(|byte| (0x20..0x7f).contains(byte) || matches!(byte, b'\r' | b'\t')) {
        return Some(false);
    }
    let is_whole = line.len() < bytes.len();
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let method = words.next()?;
    let is_token = method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'));
    if !is_token || (method.is_empty() && !bytes.is_empty()) {
        return Some(false);
    }
    is_whole.then(|| words.next_back().is_some_and(|version| version.starts_with(b"HTTP/")))
}

async fn http(connection: Connection, stream: Stream, max_age: Option<Duration>, mut drain: watch::Receiver<bool>) {
    let builder = builder();
    let shared = Rc::new(connection);
    let is_http2 = Rc::new(Cell::new(false));
    let age = max_age.map(|age| age.mul_f64(0.9 + 0.2 * shared.worker.chance()));
    let service = {
        let (shared, is_http2) = (Rc::clone(&shared), Rc::clone(&is_http2));
        service_fn(move |request: Request<Incoming>| {
            let shared = Rc::clone(&shared);
            is_http2.set(request.version() == Version::HTTP_2);
            async move {
                let is_http1 = request.version() != Version::HTTP_2;
                let mut response = forward(Rc::clone(&shared), request).await;
                if is_http1 && shared.is_old.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut aging = pin!(grow_old(age));
    loop {
        tokio::select! {
            biased;
            _ = serving.as_mut() => return, // a broken connection has told its requests already
            _ = drain.wait_for(|is_draining| *is_draining) => break,
            () = aging.as_mut() => {
                if is_http2.get() {
                    break;
                }
                // An idle HTTP/1.1 client could be sending just now: it is told with its next answer.
                shared.is_old.set(true);
                aging.set(grow_old(age));
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

async fn grow_old(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

fn builder() -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .preserve_header_case(true)
        .max_buf_size(READ_AHEAD)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(1000)
        .max_header_list_size(64 << 10)
        .max_send_buf_size(SEND_AHEAD)
        .enable_connect_protocol() // RFC 8441: WebSocket over HTTP/2
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Spawns on this worker's own thread: nothing needs to be `Send`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_tells_http_from_other_protocols() {
        for http in ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "M-SEARCH * HTTP/1.1\n"] {
            assert_eq!(looks_like_http(http.as_bytes()), Some(true), "{http}");
        }
        let others: [&[u8]; 6] = [
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"AMQP\x00\x00\x09\x01",
            b"GET key\r\n",
            b"\x16\x03\x01\x02\x00",
        ];
        for other in others {
            assert_eq!(looks_like_http(other), Some(false), "{other:?}");
        }
        for unclear in ["", "G", "GET /users/1 HT"] {
            assert_eq!(looks_like_http(unclear.as_bytes()), None, "{unclear}");
        }
    }
}
