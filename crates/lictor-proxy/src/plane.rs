//! The workers as the rest of the program sees them: start, bind, drain, report. What each of them does with its
//! connections is its `office`'s.

mod office;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use lictor_core::breaker::Transition;
use lictor_core::mesh::{Listener, ListenerKind};
use lictor_core::story::{Filter, Story};
use lictor_core::{Address, Mesh};
use lictor_http::stream::Detached;
use lictor_tls::{Credentials, Shown};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use self::office::run;
use crate::calls::explain::{Explanation, Question, Refusal};
use crate::net::listen::{BindError, Bound, Unattached, bind, unbind};
use crate::serve::Service;
use crate::stores::exemplar::Exemplar;
use crate::stores::metrics::Metrics;
use crate::stores::span::Span;
use crate::stores::tap::Tapping;
use crate::world::shared::{Live, Shared};

pub use self::report::{EndpointReport, Report, UpstreamReport};

/// What the data plane is given.
#[derive(Debug)]
pub struct Settings {
    /// Threads, at least 1.
    pub workers: usize,
    /// The mesh, now and later.
    pub mesh: watch::Receiver<Arc<Mesh>>,
    /// Where its metrics are registered.
    pub registry: Registry,
    /// Also the names that older services use.
    pub compat_metrics: bool,
    /// Also OpenTelemetry's histograms.
    pub otel_metrics: bool,
    /// Distinct values of a label that callers choose.
    pub max_label_values: usize,
    /// One JSON object a request, without a newline; a full channel drops the line and counts it.
    pub access_log: Option<SyncSender<Vec<u8>>>,
    /// Finished spans of sampled traces; a full channel drops the span and counts it.
    pub spans: Option<mpsc::Sender<Span>>,
    /// Services that the forward proxy was asked for and does not know yet.
    pub demand: mpsc::UnboundedSender<Arc<str>>,
}

/// The running data plane.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    open: Mutex<Vec<(Listener, Address)>>,
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those to our own application.
    Inbound,
    /// All.
    All,
}

impl Which {
    fn covers(self, kind: &ListenerKind) -> bool {
        self == Self::All || *kind == ListenerKind::Inbound
    }
}

#[derive(Debug)]
enum Command {
    Open {
        listener: Listener,
        service: Service,
        socket: Unattached,
    },
    /// Answers when the socket is closed.
    Close {
        listener: Listener,
        done: oneshot::Sender<()>,
    },
    Serve {
        service: Service,
        socket: Detached,
        peer: Option<SocketAddr>,
    },
    /// End all of these; answers when none is left.
    Drain {
        which: Which,
        done: oneshot::Sender<()>,
    },
    /// End all at once, whatever they do; answers when none is left.
    Cut(oneshot::Sender<()>),
    /// Connections of these that are still open.
    Count {
        which: Which,
        answer: oneshot::Sender<usize>,
    },
    Report(oneshot::Sender<Report>),
    Explain {
        question: Arc<Question>,
        answer: oneshot::Sender<Result<Explanation, Refusal>>,
    },
}

impl DataPlane {
    /// Starts the worker threads.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let live = (0..settings.workers.max(1)).map(|_| Live::default()).collect();
        let shared = Arc::new(Shared {
            metrics: Metrics::new(
                &settings.registry,
                settings.compat_metrics,
                settings.otel_metrics,
                settings.max_label_values,
            ),
            access_log: settings.access_log,
            spans: settings.spans,
            traced_inbound: AtomicUsize::default(),
            demand: settings.demand,
            is_draining: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            tls: Credentials::default(),
            cache: crate::stores::kept::Cache::default(),
            spent: crate::stores::spent::Spent::default(),
            recorder: crate::stores::recorder::Recorder::default(),
            tap: crate::stores::tap::Tap::default(),
            live,
        });
        let (senders, receivers): (Vec<_>, Vec<_>) = shared.live.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let (started, starts) = std::sync::mpsc::channel();
        for (index, commands) in receivers.into_iter().enumerate() {
            let (shared, mesh, peers) = (Arc::clone(&shared), settings.mesh.clone(), senders.clone());
            let started = started.clone();
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        drop(started);
                        runtime.block_on(run(index, shared, mesh, peers, commands));
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })?;
        }
        drop(started);
        starts.into_iter().collect::<io::Result<()>>()?;
        Ok(Self { shared, workers: senders, open: Mutex::default() })
    }

    /// Makes the open listeners equal to this list: new ones are opened first, removed ones closed then, the others
    /// stay as they are. Only an address that leads elsewhere now is closed before it is opened again. When one cannot
    /// be opened the others stay.
    pub async fn bind(&self, listeners: &[Listener]) -> Result<Vec<Bound>, BindError> {
        let before = self.open.lock().clone();
        let is_open = |listener: &Listener| before.iter().any(|(known, _)| known == listener);
        let (mut replaced, mut removed) = (Vec::new(), Vec::new());
        for (known, _) in before.iter().filter(|(known, _)| !listeners.contains(known)) {
            let is_chosen = known.address.tcp().is_none_or(|address| address.port() != 0);
            let is_replaced = is_chosen && listeners.iter().any(|listener| listener.address == known.address);
            if is_replaced { replaced.push(known.clone()) } else { removed.push(known.clone()) }
        }
        self.close(&replaced).await;
        let mut fresh = Vec::new();
        for listener in listeners.iter().filter(|listener| !is_open(listener)) {
            let service = self.service(listener).await?;
            let (address, sockets) = bind(listener, self.workers.len())?;
            fresh.push((listener.clone(), service, address, sockets));
        }
        self.close(&removed).await;
        let mut open = self.open.lock();
        for (listener, service, address, sockets) in fresh {
            for (worker, socket) in self.workers.iter().zip(sockets) {
                let _ = worker.send(Command::Open { listener: listener.clone(), service: service.clone(), socket });
            }
            open.push((listener, address));
        }
        let bound = |listener: &Listener| {
            let (_, address) = open.iter().find(|(known, _)| known == listener)?;
            Some(Bound { kind: listener.kind.clone(), address: address.clone(), is_tls: listener.tls.is_some() })
        };
        Ok(listeners.iter().filter_map(bound).collect())
    }

    async fn service(&self, listener: &Listener) -> Result<Service, BindError> {
        let tls = match &listener.tls {
            Some(tls) => Some(self.shared.tls.server(tls).await.map_err(|error| BindError {
                kind: listener.kind.clone(),
                address: listener.address.clone(),
                source: io::Error::other(error),
            })?),
            None => None,
        };
        Ok(Service { kind: listener.kind.clone(), tls, max_age: listener.max_connection_age })
    }

    /// Closes listeners; returns when their sockets are.
    async fn close(&self, listeners: &[Listener]) {
        for listener in listeners {
            self.open.lock().retain(|(known, _)| known != listener);
            self.ask(|done| Command::Close { listener: listener.clone(), done }).await;
            unbind(&listener.address);
        }
    }

    /// Reads the files of certificates again when they change, for ever.
    pub async fn follow_certificates(&self) {
        self.shared.tls.follow().await;
    }

    /// The certificates that are shown, to clients and to endpoints.
    pub fn certificates(&self) -> Vec<Shown> {
        self.shared.tls.shown()
    }

    /// The latest sampled requests, by upstream and bucket of `lictor_upstream_request_duration_seconds`.
    pub fn exemplars(&self) -> BTreeMap<String, Vec<Option<Exemplar>>> {
        self.shared.metrics.exemplars()
    }

    /// How many requests took how long so far, by upstream; for [`crate::quantile`].
    pub fn latencies(&self) -> BTreeMap<String, Vec<u64>> {
        self.shared.metrics.latencies()
    }

    /// Marks answers of the inbound listener, so that callers turn to other instances.
    pub fn set_draining(&self, is_draining: bool) {
        self.shared.is_draining.store(is_draining, Relaxed);
    }

    /// Ends what still runs: it is told as `draining`.
    pub async fn cut(&self) {
        self.shared.is_cut.store(true, Relaxed);
        self.ask(Command::Cut).await;
    }

    /// Stops accepting and lets requests end, at most this long; returns how many connections are still open then.
    pub async fn finish(&self, which: Which, at_most: Duration) -> usize {
        self.open.lock().retain(|(listener, address)| {
            if which.covers(&listener.kind) {
                unbind(address);
            }
            !which.covers(&listener.kind)
        });
        let drained = self.ask(|done| Command::Drain { which, done });
        if tokio::time::timeout(at_most, drained).await.is_ok() {
            return 0;
        }
        self.ask(|answer| Command::Count { which, answer }).await.into_iter().sum()
    }

    /// Tells a change of an upstream's breaker that was not a request's doing.
    pub fn breaker_changed(&self, upstream: &str, change: &Transition) {
        crate::admission::permit::tell(&self.shared.metrics, upstream, change);
    }

    /// The stories that are kept, the newest first.
    pub fn stories(&self) -> Vec<Arc<Story>> {
        self.shared.recorder.stories()
    }

    /// Requests as they end, from now on; `None` when too many listen already.
    pub fn tap(&self, filter: Filter) -> Option<Tapping> {
        self.shared.tap.listen(filter)
    }

    /// Those of requests with this id.
    pub fn stories_of(&self, id: &str) -> Vec<Arc<Story>> {
        self.shared.recorder.with_id(id)
    }

    /// What each worker would do with this request; or why it is for nobody.
    pub async fn explain(&self, question: Question) -> Result<Vec<Explanation>, Refusal> {
        let question = Arc::new(question);
        let answers = self.ask(|answer| Command::Explain { question: Arc::clone(&question), answer }).await;
        answers.into_iter().collect()
    }

    /// Whether every worker still answers; one that hangs is waited for.
    pub async fn is_alive(&self) -> bool {
        let answers = self.ask(|answer| Command::Count { which: Which::All, answer }).await;
        answers.len() == self.workers.len()
    }

    /// What the workers know, added up.
    pub async fn report(&self) -> Report {
        let mut report = Report::default();
        for part in self.ask(Command::Report).await {
            report.add(part);
        }
        report
    }

    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.workers.len());
        let asked: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (sender, answer) = oneshot::channel();
                let _ = worker.send(command(sender));
                answer
            })
            .collect();
        for answer in asked {
            if let Ok(answer) = answer.await {
                answers.push(answer);
            }
        }
        answers
    }
}
