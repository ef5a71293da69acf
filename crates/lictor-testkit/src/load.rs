//! Requests at a constant rate, whatever the answers do (an open loop: a slow answer delays no later request).

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Load in the background.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, and why.
    pub broken: Vec<String>,
    /// Bodies of answers that were not 200, the first few.
    pub samples: Vec<String>,
    /// Answers by backend.
    pub backends: BTreeMap<String, u64>,
    /// Times to the end of the answer.
    pub latencies: Vec<Duration>,
}

impl Tally {
    /// All requests that ended.
    pub fn total(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.broken.len() as u64
    }

    /// Those without a 200.
    pub fn errors(&self) -> u64 {
        self.total() - self.statuses.get(&200).copied().unwrap_or(0)
    }

    /// Panics with what went wrong, if anything did.
    pub fn assert_flawless(&self) {
        let broken = &self.broken[..self.broken.len().min(5)];
        assert_eq!(self.errors(), 0, "{:?}, broken {broken:?}, samples {:?}", self.statuses, self.samples);
    }

    /// A percentile of the latencies, 0 to 1.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }
}

impl Load {
    /// Starts `rate` requests a second; methods take turns.
    pub fn start(address: &str, methods: &'static [Method], rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (address, ended, counted) = (Arc::<str>::from(address), Arc::clone(&stop), Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(address, methods, rate, ended, counted));
        });
        Self { stop, tally, thread: Some(thread) }
    }

    /// What has come of it so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Waits until so many more requests have ended.
    pub fn await_more(&self, count: u64) {
        let from = self.tally.lock().total();
        crate::eventually_is("more requests end", || self.tally.lock().total() - from, |more| *more >= count);
    }

    /// Lets the last requests end.
    pub fn finish(mut self) -> Tally {
        self.end();
        self.tally.lock().clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load's thread does not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

type Idle = Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>;

async fn run(
    address: Arc<str>,
    methods: &'static [Method],
    rate: u32,
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
) {
    let idle: Idle = Arc::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut requests = tokio::task::JoinSet::new();
    for method in methods.iter().cycle() {
        tick.tick().await;
        if stop.load(Relaxed) {
            break;
        }
        let (address, idle, tally, method) =
            (Arc::clone(&address), Arc::clone(&idle), Arc::clone(&tally), method.clone());
        requests.spawn(async move {
            let began = Instant::now();
            let outcome = one(&address, method, &idle).await;
            count(&mut tally.lock(), began.elapsed(), outcome);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

type Outcome = Result<(u16, String, String), Box<dyn Error + Send + Sync>>;

fn count(tally: &mut Tally, took: Duration, outcome: Outcome) {
    tally.latencies.push(took);
    match outcome {
        Ok((status, backend, text)) => {
            *tally.statuses.entry(status).or_default() += 1;
            *tally.backends.entry(backend).or_default() += 1;
            if status != 200 && tally.samples.len() < 5 {
                tally.samples.push(text);
            }
        }
        Err(error) => tally.broken.push(error.to_string()),
    }
}

async fn one(address: &str, method: Method, idle: &Idle) -> Outcome {
    let kept = idle.lock().pop().filter(SendRequest::is_ready);
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    let body = if method == Method::POST { Bytes::from_static(b"an order") } else { Bytes::new() };
    let request = Request::builder().method(method).uri("/orders/1").header("host", address).body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let backend = response.headers().get("x-backend").and_then(|name| name.to_str().ok()).unwrap_or("").to_owned();
    let text = String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned();
    idle.lock().push(sender);
    Ok((status, backend, text))
}
