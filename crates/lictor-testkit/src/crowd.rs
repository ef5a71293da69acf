//! Clients of several gateways, as they come by a balancer of connections: each keeps its connection until it is told that it
//! ends, and makes the next to a gateway that says that it is ready.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

/// How often a gateway is asked whether it is ready.
const LOOKS: Duration = Duration::from_millis(50);
/// Clients of each kind; those of HTTP/2 send several requests at a time.
const HTTP1: usize = 20;
const HTTP2: usize = 4;
const STREAMS: usize = 5;
const SOCKETS: usize = 10;
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a gateway is.
#[derive(Clone, Debug)]
pub struct Front {
    /// Its listener.
    pub gateway: String,
    /// Its admin listener.
    pub admin: String,
}

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GET and POST in turn on a connection that is kept.
    Http1,
    /// The same, several at a time on one connection.
    Http2,
    /// A message, and its echo.
    WebSocket,
}

/// What has come of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests and messages that were answered.
    pub answered: BTreeMap<Kind, u64>,
    /// What failed, and how.
    pub failed: Vec<String>,
    /// Connections, by the gateway that they were made to.
    pub connections: Vec<u64>,
    /// Close frames, by their status.
    pub closed: BTreeMap<u16, u64>,
}

impl Seen {
    /// All that were answered.
    pub fn total(&self) -> u64 {
        self.answered.values().sum()
    }
}

/// They ask as long as this lives.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    fronts: Mutex<Vec<Front>>,
    is_ready: Vec<AtomicBool>,
    next: AtomicUsize,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Crowd {
    /// So many requests and messages a second, to all of these.
    pub fn start(fronts: Vec<Front>, rate: u32) -> Self {
        let count = fronts.len();
        let seen = Seen { connections: vec![0; count], ..Seen::default() };
        let shared = Arc::new(Shared {
            fronts: Mutex::new(fronts),
            is_ready: (0..count).map(|_| AtomicBool::new(false)).collect(),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            seen: Mutex::new(seen),
        });
        let asking = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(asking, rate));
        });
        Self { shared, thread: Some(thread) }
    }

    /// The gateway with this number is somewhere else now.
    pub fn moved(&self, number: usize, front: Front) {
        self.shared.fronts.lock()[number] = front;
    }

    /// Whether new connections go there.
    pub fn is_ready(&self, number: usize) -> bool {
        self.shared.is_ready[number].load(Relaxed)
    }

    /// What has come of it so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().clone()
    }

    /// Waits until so many more are answered.
    pub fn await_more(&self, count: u64) {
        let from = self.seen().total();
        crate::eventually_is("more are answered", || self.seen().total() - from, |more| *more >= count);
    }

    /// Lets the last answers come.
    pub fn finish(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the crowd's thread does not panic");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

/// Each kind has its share of the rate.
async fn run(shared: Arc<Shared>, rate: u32) {
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..shared.is_ready.len() {
        clients.spawn(look(Arc::clone(&shared), number));
    }
    let pace = |clients: usize, share: u32| Duration::from_secs(clients as u64) * 100 / (rate * share);
    for number in 0..HTTP1 {
        clients.spawn(keep(Arc::clone(&shared), Http1(number), pace(HTTP1, 60)));
    }
    for number in 0..HTTP2 {
        clients.spawn(keep(Arc::clone(&shared), Http2(number), pace(HTTP2 * STREAMS, 30)));
    }
    for _ in 0..SOCKETS {
        clients.spawn(keep(Arc::clone(&shared), WebSocket, pace(SOCKETS, 10)));
    }
    while clients.join_next().await.is_some() {}
}

/// A balancer's look at a gateway.
async fn look(shared: Arc<Shared>, number: usize) {
    let mut tick = interval(LOOKS);
    while !shared.is_over.load(Relaxed) {
        tick.tick().await;
        let admin = shared.fronts.lock()[number].admin.clone();
        let is_ready = timeout(Duration::from_secs(1), ready(&admin)).await.is_ok_and(|ready| ready.unwrap_or(false));
        shared.is_ready[number].store(is_ready, Relaxed);
    }
}

async fn ready(admin: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let ask = format!("GET /ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(text.starts_with(b"HTTP/1.1 200"))
}

impl Shared {
    /// A connection to the next gateway that is ready.
    async fn connect(&self) -> Result<(TcpStream, String), Failure> {
        let count = self.is_ready.len();
        let mut tick = interval(LOOKS);
        let number = loop {
            let from = self.next.fetch_add(1, Relaxed);
            let found =
                (0..count).map(|step| (from + step) % count).find(|number| self.is_ready[*number].load(Relaxed));
            if let Some(number) = found {
                break number;
            }
            tick.tick().await;
        };
        let address = self.fronts.lock()[number].gateway.clone();
        self.seen.lock().connections[number] += 1;
        let stream = TcpStream::connect(&address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }
}

/// What a client does with a connection.
trait Client: Send + Sync + 'static {
    const KIND: Kind;
    type Connection: Send;

    fn connect(&self, stream: TcpStream, host: &str) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Asks; how many were answered. A connection that is over, and was told to be, is taken away: nothing was asked then.
    fn ask(
        &mut self,
        kept: &mut Option<Self::Connection>,
        shared: &Shared,
        host: &str,
    ) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// Asks at this pace, on one connection after the other.
async fn keep<C: Client>(shared: Arc<Shared>, mut client: C, pace: Duration) {
    let mut tick = interval(pace);
    let (mut kept, mut host) = (None, String::new());
    while !shared.is_over.load(Relaxed) {
        tick.tick().await;
        let asked = async {
            loop {
                if kept.is_none() {
                    let (stream, address) = shared.connect().await?;
                    kept = Some(client.connect(stream, &address).await?);
                    host = address;
                }
                let answered = client.ask(&mut kept, &shared, &host).await?;
                if answered > 0 {
                    return Ok::<u64, Failure>(answered);
                }
                kept = None;
            }
        };
        let asked = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".into()));
        let mut seen = shared.seen.lock();
        match asked {
            Ok(answered) => *seen.answered.entry(C::KIND).or_default() += answered,
            Err(failure) => {
                seen.failed.push(format!("{:?} at {host}: {failure}", C::KIND));
                drop(seen);
                kept = None;
            }
        }
    }
}

fn asked(number: usize, host: &str) -> Request<Full<Bytes>> {
    let (method, body) = if number.is_multiple_of(2) { (Method::GET, "") } else { (Method::POST, "an order") };
    let uri = format!("http://{host}/orders/{number}");
    let request = Request::builder().method(method).uri(uri).header("host", host);
    request.body(Full::from(body)).expect("a request")
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<(), Failure> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| in_full("its body", &error))?.to_bytes();
    if status == 200 { Ok(()) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into()) }
}

fn in_full(what: &str, error: &dyn Error) -> Failure {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text.into()
}

/// What hyper says of a request that it was given after GOAWAY had come, without giving it back; whoever asks may send it on
/// the next connection (RFC 9113, section 6.8).
const TOLD_TO_GO: &str = "connection error received: not a result of an error";

/// Whether it was answered; what was not sent, as the connection was over, was not asked.
async fn answered(
    sent: Result<Response<hyper::body::Incoming>, TrySendError<Request<Full<Bytes>>>>,
) -> Result<bool, Failure> {
    match sent {
        Ok(response) => read(response).await.map(|()| true),
        Err(mut error) => match error.take_message() {
            Some(_) => Ok(false),
            None => {
                let failure = in_full("no answer", &error.into_error());
                if failure.to_string().ends_with(TOLD_TO_GO) { Ok(false) } else { Err(failure) }
            }
        },
    }
}

struct Http1(usize);

impl Client for Http1 {
    const KIND: Kind = Kind::Http1;
    type Connection = http1::SendRequest<Full<Bytes>>;

    async fn connect(&self, stream: TcpStream, _: &str) -> Result<Self::Connection, Failure> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn ask(&mut self, kept: &mut Option<Self::Connection>, _: &Shared, host: &str) -> Result<u64, Failure> {
        let Some(sender) = kept.as_mut() else { return Ok(0) };
        if sender.ready().await.is_err() {
            return Ok(0);
        }
        let is_answered = answered(sender.try_send_request(asked(self.0, host)).await).await?;
        self.0 += usize::from(is_answered);
        Ok(u64::from(is_answered))
    }
}

struct Http2(usize);

impl Client for Http2 {
    const KIND: Kind = Kind::Http2;
    type Connection = http2::SendRequest<Full<Bytes>>;

    async fn connect(&self, stream: TcpStream, _: &str) -> Result<Self::Connection, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn ask(&mut self, kept: &mut Option<Self::Connection>, _: &Shared, host: &str) -> Result<u64, Failure> {
        let Some(sender) = kept.as_mut() else { return Ok(0) };
        if sender.ready().await.is_err() {
            return Ok(0);
        }
        let mut asking = tokio::task::JoinSet::new();
        for stream in 0..STREAMS {
            let (mut sender, request) = (sender.clone(), asked(self.0 + stream, host));
            asking.spawn(async move { answered(sender.try_send_request(request).await).await });
        }
        let mut count = 0;
        while let Some(asked) = asking.join_next().await {
            count += u64::from(asked??);
        }
        if count < STREAMS as u64 {
            *kept = None; // the others go by the next one
        }
        self.0 += 1;
        Ok(count)
    }
}

struct WebSocket;

impl Client for WebSocket {
    const KIND: Kind = Kind::WebSocket;
    type Connection = TcpStream;

    async fn connect(&self, mut stream: TcpStream, host: &str) -> Result<TcpStream, Failure> {
        let text = format!(
            "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|error| format!("no handshake: {error}"))?);
        }
        if head.starts_with(b"HTTP/1.1 101") { Ok(stream) } else { Err(String::from_utf8_lossy(&head).into()) }
    }

    /// RFC 6455, section 5.2: what a client sends is masked, here by zeros, and what a server sends is not.
    async fn ask(&mut self, kept: &mut Option<TcpStream>, shared: &Shared, _: &str) -> Result<u64, Failure> {
        let Some(stream) = kept.as_mut() else { return Ok(0) };
        let written = stream.write_all(b"\x81\x85\0\0\0\0hello").await; // who was closed may have said so
        let mut frame = [0; 2];
        stream.read_exact(&mut frame).await.map_err(|error| format!("cut without a word: {error}"))?;
        let mut payload = vec![0; usize::from(frame[1] & 0x7f)];
        stream.read_exact(&mut payload).await.map_err(|error| format!("cut within a frame: {error}"))?;
        match (frame[0], &payload[..]) {
            (0x81, b"hello") => written.map(|()| 1).map_err(Into::into),
            (0x88, [high, low, ..]) => {
                *shared.seen.lock().closed.entry(u16::from_be_bytes([*high, *low])).or_default() += 1;
                Ok(0)
            }
            other => Err(format!("not an echo: {other:x?}").into()),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, failed, connections, closed } = self;
        write!(f, "{answered:?} answered, {} failed, {connections:?} connections, closed {closed:?}", failed.len())?;
        failed.iter().take(5).try_for_each(|failure| write!(f, "; {failure}"))
    }
}
