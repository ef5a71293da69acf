//! One accepted connection: TLS if the listener has it, then HTTP/1.1, HTTP/2 (told apart by its first bytes, RFC
//! 9113, section 3.3) or plain bytes.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use lictor_core::mesh::{ListenerKind, Protocol};
use lictor_http::buffers::ReadAhead;
use lictor_http::fields::Fields;
use lictor_http::sniff::{self, Spoken};
use lictor_http::stream::{Socket, Stream};
use lictor_http::{Answerer, Refused, RequestBody, http1, http2};
use lictor_tls::HandshakeError;
use tokio::sync::watch;
use tracing::debug;

use crate::books::refused;
use crate::calls::ending::ResponseBody;
use crate::calls::forward::forward;
use crate::calls::{respond, tunnel};
use crate::edge::Edge;
use crate::gate::inbound;
use crate::names::Looked;
use crate::net::proxied;
use crate::world::client::Connection;
use crate::world::generation::Generation;
use crate::world::worker::Worker;

/// How long `protocol: auto` waits for a client's first bytes, which tell whether it speaks HTTP. In other protocols the
/// server may speak first: such a client says nothing until it is connected.
const DETECTION: Duration = Duration::from_millis(100);

impl Answerer for Connection {
    type Body = ResponseBody;
    type Marks = Looked;

    fn answer(
        self: Rc<Self>,
        request: Request<RequestBody>,
        fields: Fields,
    ) -> impl Future<Output = Response<ResponseBody>> {
        forward(self, request, fields, None)
    }

    fn refuse(&self, version: &'static str, refused: &Refused) -> Response<Bytes> {
        let id = refused::tell(self, version, refused.status, refused.why);
        respond::refuse(refused, &id, self.worker.date.now(Instant::now()))
    }

    fn is_leaving(&self) -> bool {
        self.shall_leave()
    }
}

/// Serves the connection until either side ends it, or, once its generation drains, until its requests are done.
pub(crate) async fn serve(worker: Rc<Worker>, generation: Rc<Generation>, socket: Socket, peer: Option<SocketAddr>) {
    let max_age = generation.service.max_age;
    let mut drain = generation.draining();
    let mut read = ReadAhead::default();
    let (connection, stream, spoken) = match listen(worker, generation, socket, peer, &mut read, &mut drain).await {
        Ok(Some(listened)) => listened,
        Ok(None) => return,
        Err(error) => return debug!(?peer, %error, "a client left before it said anything"),
    };
    // A tenth more or less, so that connections that came at the same time do not all end at the same time.
    let max_age = max_age.map(|age| age.mul_f64(0.9 + 0.2 * connection.worker.chance()));
    // Boxed is what is larger than a sidecar's HTTP/1.1, or every connection would have room for it.
    if connection.is_edge() {
        let edge = Rc::new(Edge(Rc::new(connection)));
        return match spoken {
            Some(Spoken::Http1) => Box::pin(http1::server::serve(edge, stream, read, max_age, drain)).await,
            Some(Spoken::Http2) => http2::server::serve(edge, stream, read, stop(max_age, drain)).await,
            None => (), // HTTP is spoken there
        };
    }
    if inbound::is_limited(&connection) {
        let limited = Rc::new(inbound::Limited(Rc::new(connection)));
        return match spoken {
            Some(Spoken::Http1) => Box::pin(http1::server::serve(limited, stream, read, max_age, drain)).await,
            Some(Spoken::Http2) => http2::server::serve(limited, stream, read, stop(max_age, drain)).await,
            None => Box::pin(tunnel::carry(&limited.0, stream.after(std::mem::take(&mut read.bytes)))).await,
        };
    }
    match spoken {
        Some(Spoken::Http1) => http1::server::serve(Rc::new(connection), stream, read, max_age, drain).await,
        Some(Spoken::Http2) => http2::server::serve(Rc::new(connection), stream, read, stop(max_age, drain)).await,
        None => Box::pin(tunnel::carry(&connection, stream.after(std::mem::take(&mut read.bytes)))).await,
    }
}

/// Finds out what a client speaks, with `None` for what is not HTTP; nothing at all if it does not come to that.
async fn listen(
    worker: Rc<Worker>,
    generation: Rc<Generation>,
    mut socket: Socket,
    mut peer: Option<SocketAddr>,
    read: &mut ReadAhead,
    drain: &mut watch::Receiver<bool>,
) -> io::Result<Option<(Connection, Stream, Option<Spoken>)>> {
    if let Some(proxies) = &generation.service.proxies {
        match proxied::client(&mut socket, peer, proxies).await {
            Ok(client) => peer = Some(client),
            Err(why) => {
                worker.shared.metrics.proxied_refused();
                debug!(?peer, why, "a connection does not say rightly whose it is");
                return Ok(None);
            }
        }
    }
    let (mut stream, shown, policy) = match &generation.service.tls {
        None => (Stream::Plain(socket), None, 0),
        Some(tls) => match tls.accept(socket).await {
            Ok((stream, policy)) => {
                let shown = tls.peer(policy, &stream).map(Rc::new);
                (Stream::Accepted(Box::new(stream)), shown, policy)
            }
            Err(HandshakeError::Proof) => {
                debug!(?peer, "a CA looked whether a host is ours");
                return Ok(None);
            }
            Err(error) => {
                worker.shared.metrics.handshake_failed();
                debug!(?peer, %error, "a client's TLS handshake failed");
                return Ok(None);
            }
        },
    };
    let is_http = match protocol(&worker, &generation.service.kind) {
        Protocol::Tcp => false,
        Protocol::Auto => sniff::is_http(&mut stream, read, DETECTION).await?,
        Protocol::Grpc | Protocol::H2c | Protocol::Http1 => true,
    };
    let is_encrypted = stream.is_encrypted();
    // An IPv4 client of a socket that takes both is told as IPv4 (RFC 4291, section 2.5.5.2), by everything that tells it.
    let peer = peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()));
    let client = peer.map(|peer| peer.ip());
    let connection = Connection { worker, generation, peer, client, is_encrypted, shown, policy };
    if !is_http {
        return Ok(Some((connection, stream, None)));
    }
    Ok(version(&mut stream, read, drain).await?.map(|spoken| (connection, stream, Some(spoken))))
}

/// What is spoken on a listener: what its upstream speaks, and HTTP to the others.
fn protocol(worker: &Worker, kind: &ListenerKind) -> Protocol {
    let view = worker.view();
    match kind {
        ListenerKind::Upstream(name) => view.upstreams.get(name).map(|upstream| upstream.upstream.protocol),
        ListenerKind::Inbound => view.inbound.as_ref().map(|inbound| inbound.app.upstream.protocol),
        ListenerKind::Forward | ListenerKind::Gateway | ListenerKind::Redirect => None,
    }
    .unwrap_or(Protocol::Http1)
}

/// HTTP/1.1 or HTTP/2; `None` if the client, or we, have nothing to say any more.
async fn version(
    stream: &mut Stream,
    read: &mut ReadAhead,
    drain: &mut watch::Receiver<bool>,
) -> io::Result<Option<Spoken>> {
    tokio::select! {
        biased;
        _ = drain.wait_for(|is_draining| *is_draining) => Ok(None),
        version = sniff::version(stream, read) => version,
    }
}

/// What ends a connection in order: its generation, or its age.
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
