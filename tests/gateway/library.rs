//! A service of gRPC, `examples/library.pb`: an HTTP/2 server that knows nothing of lictor.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use lictor_testkit::root;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::Served;

/// What a service has seen of a call.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Gives back the message that it got, unless its text says otherwise.
pub(crate) struct Service {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// A stream of seven waits for it after its first message.
    pub(crate) go: Arc<Semaphore>,
    pub(crate) served: Served,
}

impl Service {
    pub(crate) fn start() -> Self {
        let (seen, go) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (saw, goes) = (Arc::clone(&seen), Arc::clone(&go));
        let served = Served::by(move |stream| serve(stream, Arc::clone(&saw), Arc::clone(&goes)));
        Self { seen, go, served }
    }

    /// How often it was called, and the last call.
    pub(crate) fn calls(&self) -> (usize, Option<Seen>) {
        let seen = self.seen.lock();
        (seen.len(), seen.last().cloned())
    }
}

async fn serve(stream: tokio::net::TcpStream, seen: Arc<Mutex<Vec<Seen>>>, go: Arc<Semaphore>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (seen, go) = (Arc::clone(&seen), Arc::clone(&go));
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut asked = Vec::new();
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                asked.extend_from_slice(&data);
            }
            let path = head.uri.path().to_owned();
            seen.lock().push(Seen { path: path.clone(), headers: head.headers, body: asked.clone() });
            answer(&path, asked, respond, &go).await;
        });
    }
}

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

async fn answer(path: &str, asked: Vec<u8>, mut respond: h2::server::SendResponse<Bytes>, go: &Semaphore) {
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    let text = String::from_utf8_lossy(asked.get(7..).unwrap_or_default()).into_owned();
    let told = text.strip_prefix("shelves/").unwrap_or_default().to_owned();
    let ok = || Response::builder().header("content-type", "application/grpc").header("x-inner", "1");
    let mut status = fields(&[("grpc-status", "0"), ("x-trailing", "1")]);
    let ended = |response: Response<()>, respond: &mut h2::server::SendResponse<Bytes>| {
        let _ = respond.send_response(response, true);
    };
    let pieces = match (&*method, &*told) {
        ("ListShelves", _) => {
            let inner = [&[0x0a, 1][..], b"a", &[0x18, 5]].concat();
            let one = [&[0x0a, inner.len() as u8][..], &inner].concat();
            vec![message(&[&one[..], &one, &[0x12, 1], b"x"].concat())]
        }
        ("DeleteShelf", _) => vec![message(b"")],
        ("WatchShelves", _) => {
            let count = asked.get(6).copied().unwrap_or(0);
            if count == 3 {
                status = fields(&[("grpc-status", "13"), ("grpc-message", "lost")]);
            }
            if count == 100 {
                status = fields(&[("grpc-status", "5"), ("grpc-message", "none%20at%20all")]);
            }
            (0..if count == 100 { 0 } else { count }).map(|number| shelf(&format!("s{number}"))).collect()
        }
        ("GetShelf", "missing") => {
            let told = "no%20shelf%20%C3%A9";
            return ended(ok().header("grpc-status", "5").header("grpc-message", told).body(()).unwrap(), &mut respond);
        }
        ("GetShelf", "late") => {
            status = fields(&[("grpc-status", "7"), ("grpc-message", "not%20yours")]);
            vec![]
        }
        ("GetShelf", "after") => {
            status = fields(&[("grpc-status", "8")]);
            vec![shelf("a")]
        }
        ("GetShelf", "503") => return ended(Response::builder().status(503).body(()).unwrap(), &mut respond),
        ("GetShelf", "html") => {
            let head = Response::builder().header("content-type", "text/html").body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            return body.send_data(Bytes::from_static(b"<html>"), true).unwrap();
        }
        ("GetShelf", "nostatus") => {
            let mut body = respond.send_response(ok().body(()).unwrap(), false).unwrap();
            return body.send_data(shelf("a").into(), true).unwrap();
        }
        ("GetShelf", "reset") => {
            let mut body = respond.send_response(ok().body(()).unwrap(), false).unwrap();
            body.send_data(shelf("a")[..6].to_vec().into(), false).unwrap();
            tokio::task::yield_now().await;
            return body.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        ("GetShelf", "coded") => {
            let head = ok().header("content-encoding", "gzip").header("grpc-encoding", "identity").body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(shelf("a").into(), false).unwrap();
            return body.send_trailers(status).unwrap();
        }
        ("GetShelf", "stall") => {
            let _body = respond.send_response(ok().body(()).unwrap(), false).unwrap();
            return std::future::pending().await;
        }
        ("GetShelf", "hang") => return std::future::pending().await,
        ("GetShelf", _) => odd(&told).unwrap_or_else(|| vec![asked]),
        _ => vec![asked],
    };
    let Ok(mut body) = respond.send_response(ok().body(()).unwrap(), false) else { return };
    let waits = pieces.len() == 7;
    for (number, piece) in pieces.into_iter().enumerate() {
        if waits && number == 1 {
            go.acquire().await.unwrap().forget();
        }
        let _ = body.send_data(piece.into(), false);
        tokio::task::yield_now().await;
    }
    let _ = body.send_trailers(status);
}

/// What comes instead of a shelf of this name, in pieces.
fn odd(name: &str) -> Option<Vec<Vec<u8>>> {
    Some(match name {
        // Each byte of it is six of JSON.
        "controls" => vec![message(&[&[0x0a, 0x80, 0x80, 0xc0, 5][..], &vec![1; 11 << 20]].concat())],
        "cut" => vec![shelf("a")[..6].to_vec()],
        "two" => vec![shelf("a"), shelf("b")],
        "none" => vec![],
        "garbage" => vec![message(&[0xff])],
        "compressed" => vec![[&[1], &message(b"")[1..]].concat()],
        "long" => vec![message(&[&[0x0a, 0xd0, 0x0f][..], &[b'x'; 2000]].concat())],
        _ => return None,
    })
}

fn shelf(name: &str) -> Vec<u8> {
    message(&[&[0x0a, name.len() as u8][..], name.as_bytes(), &[0x18, 5]].concat())
}

pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

pub(crate) fn descriptor() -> String {
    root().join("examples/library.pb").to_str().unwrap().to_owned()
}
