//! The least that a proxy is: what comes goes to one backend, whichever version either side speaks.

use std::cell::RefCell;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE, VIA};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use lictor_http::buffers::ReadAhead;
use lictor_http::fields::{self, Answered, Fields};
use lictor_http::http1::{self, Framing, HeadFields, Outgoing};
use lictor_http::http2::{self, client::Kind};
use lictor_http::sniff::{self, Spoken};
use lictor_http::stream::{Socket, Stream};
use lictor_http::{Answer, AnswerBody, Answerer, BodyError, Refused, RequestBody, Spelling, WriteHead};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::corpora::{Between, Fault, Speaks, Told};

/// Its threads have this name, by which its panics are told from those of tests.
const THREAD: &str = "proxy";
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// The proxy, on a thread of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Between for Proxy {
    const ONE_IN: usize = 1;

    fn before(port: u16, speaks: Speaks) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                HAS_PANICKED.fetch_or(std::thread::current().name() == Some(THREAD), Relaxed);
                usual(panic);
            }));
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let accepting = async {
                let forward = Rc::new(Forward {
                    backend,
                    speaks,
                    idle: RefCell::default(),
                    shared: tokio::sync::Mutex::default(),
                });
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    spawn_local(serve(Rc::clone(&forward), stream));
                }
            };
            LocalSet::new().block_on(&runtime, async {
                tokio::select! { _ = stopped => (), () = accepting => () }
            });
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(run).unwrap();
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    fn is_refusal(answer: &Told<'_>, fault: Option<Fault>) -> bool {
        match answer.only("x-fault") {
            Some("malformed") => fault != Some(Fault::Ended),
            Some("ended") => fault != Some(Fault::Malformed),
            _ => false,
        }
    }

    fn resident(&self) -> Option<u64> {
        None // the tests' memory is in the same process
    }

    fn complaints(&self) -> Vec<String> {
        HAS_PANICKED.load(Relaxed).then(|| "the proxy panicked".to_owned()).into_iter().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok(), "the proxy panicked");
    }
}

async fn serve(forward: Rc<Forward>, stream: TcpStream) {
    let (mut stream, mut read) = (Stream::Plain(Socket::Tcp(stream)), ReadAhead::default());
    let (_drain, is_draining) = watch::channel(false);
    match sniff::version(&mut stream, &mut read).await {
        Ok(Some(Spoken::Http1)) => http1::server::serve(forward, stream, read, None, is_draining).await,
        Ok(Some(Spoken::Http2)) => http2::server::serve(forward, stream, read, pending()).await,
        Ok(None) | Err(_) => (),
    }
}

/// Sends on what it is asked.
struct Forward {
    backend: SocketAddr,
    speaks: Speaks,
    idle: RefCell<Vec<http1::client::Connection>>,
    /// Locked while one is made: others wait for it.
    shared: tokio::sync::Mutex<Option<Rc<http2::client::Connection>>>,
}

/// Why not.
struct Failure(StatusCode, &'static str, &'static str);

const fn ended(why: &'static str) -> Failure {
    Failure(StatusCode::BAD_GATEWAY, "ended", why)
}

const fn malformed(why: &'static str) -> Failure {
    Failure(StatusCode::BAD_GATEWAY, "malformed", why)
}

const fn refused(why: &'static str) -> Failure {
    Failure(StatusCode::BAD_REQUEST, "", why)
}

impl Answerer for Forward {
    type Marks = ();
    type Body = Reply;

    async fn answer(self: Rc<Self>, request: Request<RequestBody>, fields: Fields) -> Response<Reply> {
        match self.forward(request, fields).await {
            Ok(response) => response,
            Err(failure) => said(failure).map(|text| Reply { text, ..Reply::default() }),
        }
    }

    fn refuse(&self, _: &'static str, refused: &Refused) -> Response<Bytes> {
        said(Failure(refused.status, "", refused.why))
    }
}

fn said(Failure(status, fault, why): Failure) -> Response<Bytes> {
    Response::builder().status(status).header("x-fault", fault).body(Bytes::from(why)).unwrap()
}

impl Forward {
    async fn forward(
        self: Rc<Self>,
        request: Request<RequestBody>,
        fields: Fields,
    ) -> Result<Response<Reply>, Failure> {
        fields::check(&request, fields).map_err(refused)?;
        if *request.method() == Method::CONNECT {
            return Err(Failure(StatusCode::NOT_IMPLEMENTED, "", "no tunnels here"));
        }
        let (mut head, mut body) = request.into_parts();
        let (spelling, interim) = (body.take_spelling(), body.interim());
        let takes_trailers = fields.has(Fields::TE) && fields::takes_trailers(&head.headers);
        fields::strip_hop_by_hop(&mut head.headers, fields, false);
        let Answered { response, fields } = match self.speaks {
            Speaks::Http1 => {
                fields::join_cookies(&mut head.headers);
                let tell = |status, headers: &HeaderMap, spelling: &Spelling| {
                    if let Some(interim) = &interim {
                        interim.tell(status, headers, spelling);
                    }
                };
                self.http1(&head, Stripped(Some(body)), &spelling, takes_trailers, tell).await?
            }
            Speaks::Http2 => {
                let tell = |status, headers: &HeaderMap| {
                    if let Some(interim) = &interim {
                        interim.tell(status, headers, &Spelling::default());
                    }
                };
                self.http2(&head, Stripped(Some(body)), takes_trailers, tell).await?
            }
        };
        let (mut head, mut body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(malformed("nobody asked to switch"));
        }
        fields::strip_hop_by_hop(&mut head.headers, fields, false);
        let spelling = body.take_spelling();
        let size = body.size_hint();
        let mut reply =
            Reply { passed: Some(body), spelling, size: Some(size), forward: Some(self), ..Reply::default() };
        reply.give_back();
        Ok(Response::from_parts(head, reply))
    }

    async fn http1(
        &self,
        head: &Parts,
        mut body: Stripped,
        spelling: &Spelling,
        takes_trailers: bool,
        mut tell: impl FnMut(StatusCode, &HeaderMap, &Spelling),
    ) -> Result<Answered<AnswerBody<Stripped>>, Failure> {
        use http1::client::{Connection, SendError};
        let is_head = head.method == Method::HEAD;
        let framing = framing(head, &body);
        loop {
            let kept = std::iter::from_fn(|| self.idle.borrow_mut().pop())
                .find_map(|mut kept| (!kept.is_stale()).then_some(kept));
            let is_kept = kept.is_some();
            let connection = match kept {
                Some(connection) => connection,
                None => Connection::new(self.dial().await?),
            };
            let mut out = Outgoing::default();
            out.request_line(&head.method, &target(head));
            let mut to = HeadFields { out: &mut out, spelling };
            to.own(&HOST, host(head).as_bytes());
            write(head, takes_trailers, &mut to);
            out.end_head(framing);
            let is_empty = body.is_end_stream();
            match connection.send::<(), _>(out, framing, body, is_head, &mut tell).await {
                Ok(Answered { response, fields }) => {
                    return Ok(Answered { response: response.map(AnswerBody::Http1), fields });
                }
                // It ended when it was taken: that is no answer yet.
                Err(SendError::Unsent | SendError::Closed) if is_kept && is_empty => body = Stripped(None),
                Err(SendError::Unsent | SendError::Closed) => return Err(ended("no answer")),
                Err(SendError::Malformed(why)) => return Err(malformed(why)),
                Err(SendError::Body) => return Err(refused("the body")),
            }
        }
    }

    async fn http2(
        &self,
        head: &Parts,
        mut body: Stripped,
        takes_trailers: bool,
        mut tell: impl FnMut(StatusCode, &HeaderMap),
    ) -> Result<Answered<AnswerBody<Stripped>>, Failure> {
        use http2::client::{Connection, SendError};
        let kind = if head.method == Method::HEAD { Kind::Head } else { Kind::Other };
        let is_once = !head.method.is_idempotent();
        loop {
            let mut shared = self.shared.lock().await;
            let kept = shared.take().filter(|kept| !kept.is_closed());
            let is_kept = kept.is_some();
            let connection = match kept {
                Some(connection) => connection,
                None => Rc::new(Connection::new(self.dial().await?, ())),
            };
            *shared = Some(Rc::clone(&connection));
            drop(shared);
            let write_head = |fields: &mut http2::Encoder<'_>| {
                fields.method(&head.method);
                fields.scheme(false);
                fields.authority(host(head).as_bytes());
                fields.path(target(head).as_bytes());
                write(head, takes_trailers, fields);
            };
            let is_empty = body.is_end_stream();
            match connection.send::<(), _>(kind, is_once, write_head, body, &mut tell).await {
                Ok(Answered { response, fields }) => {
                    return Ok(Answered { response: response.map(AnswerBody::Http2), fields });
                }
                Err(SendError::Unsent) if is_kept && is_empty => body = Stripped(None),
                Err(SendError::Unsent | SendError::Refused(_) | SendError::Reset(_) | SendError::Closed) => {
                    return Err(ended("no answer"));
                }
                Err(SendError::Unfit(why) | SendError::Malformed(why)) => return Err(malformed(why)),
                Err(SendError::Body) => return Err(refused("the body")),
            }
        }
    }

    async fn dial(&self) -> Result<Stream, Failure> {
        let stream = TcpStream::connect(self.backend).await.map_err(|_| ended("nobody is there"))?;
        stream.set_nodelay(true).unwrap();
        Ok(Stream::Plain(Socket::Tcp(stream)))
    }
}

/// The path and the query; a path is never empty (RFC 9112, section 3.2.1).
fn target(head: &Parts) -> String {
    let target = lictor_http::target::passed(&head.uri, head.extensions.get());
    if target.starts_with('?') { format!("/{target}") } else { target.to_owned() }
}

/// Whom the request is for: where the target says so, it counts (RFC 9112, section 3.2.2).
fn host(head: &Parts) -> &str {
    let told = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(Authority::as_str).or(told).filter(|host| !host.is_empty()).unwrap_or("backend")
}

/// The fields that go on, but for the host.
fn write(head: &Parts, takes_trailers: bool, to: &mut impl WriteHead) {
    for (name, value) in head.headers.iter().filter(|(name, _)| ![HOST, EXPECT].contains(name)) {
        to.pass(name, value);
    }
    to.own(&VIA, b"1.1 proxy");
    if takes_trailers {
        to.own(&TE, b"trailers");
    }
}

/// How the body is written in HTTP/1.1.
fn framing(head: &Parts, body: &Stripped) -> Framing {
    match body.size_hint().exact() {
        Some(0) if !head.headers.contains_key(CONTENT_LENGTH) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// A request's body without trailers that may not be there; nothing when it is sent again.
struct Stripped(Option<RequestBody>);

fn strip(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            fields::strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

impl Body for Stripped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map(strip))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What is answered with: the backend's body, or words of our own.
#[derive(Default)]
pub(crate) struct Reply {
    text: Bytes,
    passed: Option<AnswerBody<Stripped>>,
    spelling: Spelling,
    size: Option<SizeHint>,
    forward: Option<Rc<Forward>>,
}

impl Reply {
    /// A connection whose answer is whole may be used again.
    fn give_back(&mut self) {
        if self.passed.as_ref().is_some_and(Body::is_end_stream)
            && let Some(AnswerBody::Http1(body)) = self.passed.take()
            && let (Some(connection), Some(forward)) = (body.into_connection(), &self.forward)
        {
            forward.idle.borrow_mut().push(connection);
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.passed else {
            let text = std::mem::take(&mut self.text);
            return Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))));
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        self.give_back();
        Poll::Ready(frame.map(|frame| frame.map(strip)))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty() && self.passed.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.size.unwrap_or_else(|| SizeHint::with_exact(self.text.len() as u64))
    }
}

impl Answer for Reply {
    fn spelling(&self) -> Option<&Spelling> {
        Some(&self.spelling)
    }

    fn write_own(&mut self, _: &HeaderMap, mut write: impl FnMut(&HeaderName, &[u8])) {
        write(&VIA, b"1.1 proxy");
    }
}
