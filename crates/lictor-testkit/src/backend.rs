//! A backend in this process: an HTTP/1.1 and h2c server on a thread of its own that does as it is told.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::watch;

use crate::{eventually, free_ports};

/// A server that answers with its name, what it was asked, and the request's headers.
#[derive(Debug)]
pub struct Backend {
    name: String,
    address: SocketAddr,
    state: Arc<State>,
    running: Option<(watch::Sender<Stop>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct State {
    status: AtomicU16,
    delay_ms: AtomicU64,
    /// Of a hundred requests, how many get a 500.
    failing: AtomicU64,
    hits: AtomicU64,
    marks_misdirected: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    Gracefully,
    Now,
}

impl Backend {
    /// A backend on a port of its own that answers 200.
    pub fn start(name: &str) -> Self {
        let [port] = free_ports();
        Self::on(name, port)
    }

    /// The same on a port that was free a moment ago.
    pub fn on(name: &str, port: u16) -> Self {
        // A process that another test is just starting has, between fork and exec, a copy of a socket that we closed.
        let listener = eventually("the port is free", || TcpListener::bind(("127.0.0.1", port)));
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            status: AtomicU16::new(200),
            delay_ms: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            marks_misdirected: AtomicBool::new(false),
        });
        let stop = watch::Sender::new(Stop::No);
        let (label, served, stopped) = (Arc::<str>::from(name), Arc::clone(&state), stop.subscribe());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(label, listener, served, stopped));
        });
        Self { name: name.to_owned(), address, state, running: Some((stop, thread)) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests so far, health checks aside.
    pub fn hits(&self) -> u64 {
        self.state.hits.load(Relaxed)
    }

    /// Answers with this status from now on.
    pub fn answers(&self, status: u16) {
        self.state.status.store(status, Relaxed);
    }

    /// Answers so many of a hundred requests with 500 from now on, spread evenly.
    pub fn fails(&self, percent: u64) {
        self.state.failing.store(percent, Relaxed);
    }

    /// Takes this long from now on.
    pub fn delays(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Relaxed);
    }

    /// Answers as the sidecar of another service.
    pub fn is_somebody_else(&self) {
        self.answers(421);
        self.state.marks_misdirected.store(true, Relaxed);
    }

    /// Like SIGKILL: its sockets are closed, whatever they were doing.
    pub fn kill(mut self) {
        self.end(Stop::Now);
    }

    /// Refuses new connections and lets requests in flight end.
    pub fn stop(mut self) {
        self.end(Stop::Gracefully);
    }

    fn end(&mut self, how: Stop) {
        if let Some((stop, thread)) = self.running.take() {
            stop.send_replace(how);
            thread.join().expect("the backend's thread does not panic");
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end(Stop::Now);
    }
}

async fn serve(name: Arc<str>, listener: TcpListener, state: Arc<State>, mut stop: watch::Receiver<Stop>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a non-blocking listener");
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let (name, state, mut stop) = (Arc::clone(&name), Arc::clone(&state), stop.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&name), Arc::clone(&state), request));
            let builder = auto::Builder::new(TokioExecutor::new()).preserve_header_case(true);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop != Stop::No) => (),
                _ = connection.as_mut() => return,
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    drop(listener);
    let how = *stop.borrow();
    if how == Stop::Gracefully {
        while connections.join_next().await.is_some() {}
    }
}

async fn answer(
    name: Arc<str>,
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/health" {
        return Ok(Response::new(Full::from("ok")));
    }
    let (hits, failing) = (state.hits.fetch_add(1, Relaxed), state.failing.load(Relaxed));
    let is_failing = hits.wrapping_mul(failing) % 100 < failing;
    let (head, body) = request.into_parts();
    let received = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let delay = state.delay_ms.load(Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut text = format!("{name} {} {} {:?} {received}\n", head.method, head.uri.path(), head.version);
    if let Some(authority) = head.uri.authority() {
        text += &format!(":authority: {authority}\n");
    }
    for (key, value) in &head.headers {
        text += &format!("{key}: {}\n", value.to_str().unwrap_or("?"));
    }
    let mut response = Response::new(Full::from(text));
    let status = if is_failing { 500 } else { state.status.load(Relaxed) };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert("x-backend", name.parse().expect("names are header values"));
    if state.marks_misdirected.load(Relaxed) {
        headers.insert("x-lictor-reason", "misdirected".parse().expect("a constant"));
    }
    Ok(response)
}
