//! One accepted connection: TLS if the listener has it, then HTTP/1.1, HTTP/2 (told apart by its first bytes, RFC
//! 9113, section 3.3) or plain bytes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lictor_core::mesh::{ListenerKind, Protocol};
use tokio::sync::watch;
use tracing::debug;

use crate::http1::{self, buffers::ReadAhead};
use crate::http2::{self, PREFACE};
use crate::stream::{Socket, Stream};
use crate::tunnel;
use crate::worker::Worker;

/// A client may take its time before it says anything: some connect before they have to.
const FIRST_BYTES: Duration = Duration::from_secs(3600);
/// But not once it has begun: what speaks HTTP says so at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// `protocol: auto` waits no longer for bytes that tell: a server that speaks first must be let.
const DETECTION: Duration = Duration::from_millis(100);
/// A request line that is longer than this is none.
const LINE_MAX: usize = 8 << 10;

/// How a listener's connections are served.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) kind: ListenerKind,
    pub(crate) tls: Option<Arc<lictor_tls::Server>>,
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
}

impl Connection {
    /// As the access log and stories have it.
    pub(crate) fn direction(&self) -> &'static str {
        if self.kind == ListenerKind::Inbound { "inbound" } else { "outbound" }
    }
}

/// What a client speaks, as far as its first bytes were read to tell.
enum Spoken {
    Http1,
    Http2,
    Other,
}

/// Serves the connection until either side ends it, or, once `drain` is set, until its requests are done.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    service: Service,
    socket: Socket,
    peer: Option<SocketAddr>,
    mut drain: watch::Receiver<bool>,
) {
    let max_age = service.max_age;
    let mut read = ReadAhead::default();
    let (connection, stream, spoken) = match listen(worker, service, socket, peer, &mut read, &mut drain).await {
        Ok(Some(listened)) => listened,
        Ok(None) => return,
        Err(error) => return debug!(?peer, %error, "a client left before it said anything"),
    };
    // Those that came together do not go together.
    let max_age = max_age.map(|age| age.mul_f64(0.9 + 0.2 * connection.worker.chance()));
    match spoken {
        Spoken::Http1 => http1::server::serve(Rc::new(connection), stream, read, max_age, drain).await,
        Spoken::Http2 => http2::server::serve(Rc::new(connection), stream, read, stop(max_age, drain)).await,
        Spoken::Other => tunnel::carry(&connection, stream.after(std::mem::take(&mut read.bytes))).await,
    }
}

/// Finds out what a client speaks; `None` if it does not come to that.
async fn listen(
    worker: Rc<Worker>,
    service: Service,
    socket: Socket,
    peer: Option<SocketAddr>,
    read: &mut ReadAhead,
    drain: &mut watch::Receiver<bool>,
) -> io::Result<Option<(Connection, Stream, Spoken)>> {
    let mut stream = match &service.tls {
        None => Stream::Plain(socket),
        Some(tls) => match tls.accept(socket).await {
            Ok(stream) => Stream::Accepted(Box::new(stream)),
            Err(error) => {
                worker.shared.metrics.handshake_failed();
                debug!(?peer, %error, "a client's TLS handshake failed");
                return Ok(None);
            }
        },
    };
    let is_http = match protocol(&worker, &service.kind) {
        Protocol::Tcp => false,
        Protocol::Auto => detect(&mut stream, read).await?,
        Protocol::Grpc | Protocol::H2c | Protocol::Http1 => true,
    };
    let is_encrypted = stream.is_encrypted();
    let connection = Connection { worker, kind: service.kind, peer, is_encrypted };
    let spoken = if is_http { http(&mut stream, read, drain).await? } else { Some(Spoken::Other) };
    Ok(spoken.map(|spoken| (connection, stream, spoken)))
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
async fn detect(stream: &mut Stream, read: &mut ReadAhead) -> io::Result<bool> {
    if let Some(b"h2" | b"http/1.1") = stream.alpn() {
        return Ok(true);
    }
    read.fill_until(stream, |bytes| looks_like_http(bytes).is_some(), LINE_MAX, DETECTION).await?;
    Ok(looks_like_http(&read.bytes) == Some(true))
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

/// HTTP/1.1 or HTTP/2: told apart by what TLS agreed on, else by the first bytes.
async fn http(
    stream: &mut Stream,
    read: &mut ReadAhead,
    drain: &mut watch::Receiver<bool>,
) -> io::Result<Option<Spoken>> {
    if stream.alpn() == Some(b"h2") {
        return Ok(Some(Spoken::Http2));
    }
    let is_told = |bytes: &[u8]| bytes.len() >= PREFACE.len() || !PREFACE.starts_with(bytes);
    let first_bytes = async {
        if read.bytes.is_empty() {
            let comes = poll_fn(|context| stream.poll_readable(context));
            tokio::time::timeout(FIRST_BYTES, comes).await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        read.fill_until(stream, is_told, PREFACE.len(), HEAD_TIMEOUT).await
    };
    tokio::select! {
        biased;
        _ = drain.wait_for(|is_draining| *is_draining) => return Ok(None),
        first = first_bytes => first?,
    };
    Ok(match () {
        () if read.bytes.starts_with(PREFACE) => Some(Spoken::Http2),
        () if read.bytes.is_empty() => None,
        () => Some(Spoken::Http1),
    })
}

/// What ends a connection in order: the process, or its age.
async fn stop(max_age: Option<Duration>, mut drain: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = drain.wait_for(|is_draining| *is_draining) => (),
        () = grow_old(max_age) => (),
    }
}

async fn grow_old(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
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
