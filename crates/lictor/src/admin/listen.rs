//! The admin listeners' sockets. Strangers reach them, so a connection is there only while it is used: what is slow to
//! say, or to take what it has asked for, ends, and a place is always left for a probe.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::answer::answer;
use super::guard::{self, Access};
use super::places::{Place, Places, Purpose};
use super::reply::{self, Body, refuse};
use super::socket::Socket;
use super::state::Admin;

/// For a head, from the connection's or the last answer's end on.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Of what a client says before it is read, and of what is written before it is taken; the kernel has its own of each.
const BUFFER: usize = 64 << 10;
const BACKLOG: u32 = 1024;

/// Opens a listener; it serves until the process ends.
pub(crate) fn listen(admin: &Arc<Admin>, address: SocketAddr, access: Access) -> anyhow::Result<SocketAddr> {
    let key = if access == Access::Full { "admin.listen" } else { "admin.public" };
    let listener = bind(address).with_context(|| format!("cannot listen on {address} for {key}"))?;
    let bound = listener.local_addr()?;
    tokio::spawn(accept(Arc::clone(admin), listener, access));
    Ok(bound)
}

/// Somebody else listens there. Any other error is of the address, and so of the ports beside it.
pub(crate) fn is_taken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Accepted connections have the listener's options: the kernel would otherwise take megabytes for whoever reads nothing.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a port is free again as soon as the process before has ended
    socket.set_send_buffer_size(BUFFER as u32)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(admin: Arc<Admin>, listener: TcpListener, access: Access) {
    let places = Arc::new(Places::default());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let place = places.take(peer.ip()).await;
                tokio::spawn(serve(Arc::clone(&admin), stream, peer.ip(), access, place));
            }
            Err(_) => sleep(Duration::from_millis(50)).await, // out of descriptors: they come back
        }
    }
}

async fn serve(admin: Arc<Admin>, stream: TcpStream, peer: IpAddr, access: Access, mut place: Place) {
    let (purpose, pace) = (place.purpose, Arc::clone(&place.pace));
    let socket = Socket::new(stream, Arc::clone(&pace));
    let is_further = Cell::new(false);
    let service = service_fn(move |request: Request<Incoming>| {
        let (admin, answering, is_further) = (Arc::clone(&admin), pace.asked(), is_further.replace(true));
        async move {
            let answer = match purpose {
                Purpose::Probe => probed(&admin, request, peer, access).await,
                Purpose::Anything => {
                    if is_further {
                        yield_now().await; // one a turn, however many are asked for at once: others have theirs between
                    }
                    answer(&admin, request, peer, access).await
                }
            };
            Ok::<_, Infallible>(answer.map(|body| reply::until_sent(body, answering)))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(BUFFER);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        biased;
        () = place.lost() => (),
        _ = connection => (), // the client's business
    }
}

/// In a place that is kept for probes, and free again after one.
async fn probed(admin: &Arc<Admin>, request: Request<Incoming>, peer: IpAddr, access: Access) -> Response<Body> {
    let mut response = if guard::is_probe(request.uri().path()) {
        answer(admin, request, peer, access).await
    } else {
        let sentence = "too many connections to this listener, or from your address; /live /startup /ready /health are \
                        answered all the same";
        let mut refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, sentence);
        refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        refusal
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
