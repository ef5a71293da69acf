//! The workers as the rest of the program sees them: start, bind, drain, report.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lictor_core::breaker::Transition;
use lictor_core::mesh::{Listener, ListenerKind};
use lictor_core::story::{Filter, Story};
use lictor_core::{Address, Mesh};
use parking_lot::Mutex;
use prometheus::Registry;
use serde::Serialize;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tracing::{error, warn};

use crate::exemplar::Exemplar;
use crate::explain::{Explanation, Question, Refusal, explain};
use crate::listen::{ACCEPT_PAUSE, ACCEPT_TOLD, BindError, Bound, Listening, Unattached, bind, unbind};
use crate::metrics::Metrics;
use crate::serve::{Service, serve};
use crate::span::Span;
use crate::stream::{Detached, Socket};
use crate::tap::Tapping;
use crate::tls::Shown;
use crate::worker::{Live, Shared, UpstreamState, Worker};

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
            tls: crate::tls::Settings::default(),
            cache: crate::cache::Cache::default(),
            spent: crate::spent::Spent::default(),
            recorder: crate::recorder::Recorder::default(),
            tap: crate::tap::Tap::default(),
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
            let service = self.service(listener)?;
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

    fn service(&self, listener: &Listener) -> Result<Service, BindError> {
        let tls = listener.tls.as_ref().map(|tls| self.shared.tls.server(tls)).transpose();
        let tls = tls.map_err(|error| BindError {
            kind: listener.kind.clone(),
            address: listener.address.clone(),
            source: io::Error::other(error),
        })?;
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

    /// Reads the files of certificates again that have changed.
    pub fn refresh_certificates(&self) {
        self.shared.tls.refresh();
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
        crate::permit::tell(&self.shared.metrics, upstream, change);
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

/// A worker, from its start to the end of the process.
async fn run(
    index: usize,
    shared: Arc<Shared>,
    mut mesh: watch::Receiver<Arc<Mesh>>,
    peers: Vec<mpsc::UnboundedSender<Command>>,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let first = Arc::clone(&mesh.borrow_and_update());
    let worker = Worker::new(index, shared, &first, seed);
    drop(first);
    spawn_local(Rc::clone(&worker).follow(mesh));
    spawn_local(Rc::clone(&worker).sweep());
    Office { worker, peers, listeners: RefCell::default(), groups: Groups::default() }.work(commands).await;
}

/// Where a worker takes commands.
struct Office {
    worker: Rc<Worker>,
    peers: Vec<mpsc::UnboundedSender<Command>>,
    listeners: RefCell<HashMap<Listener, JoinHandle<()>>>,
    groups: Groups,
}

/// Connections by what ends them.
#[derive(Default)]
struct Groups {
    inbound: Group,
    egress: Group,
}

/// Connections that end together: `drain` tells them, `open` counts them, `tasks` ends them.
struct Group {
    drain: watch::Sender<bool>,
    open: watch::Sender<usize>,
    /// By number; one that is over is not here any more.
    tasks: RefCell<HashMap<u64, AbortHandle>>,
    accepted: Cell<u64>,
}

impl Default for Group {
    fn default() -> Self {
        let (tasks, accepted) = Default::default();
        Self { drain: watch::Sender::new(false), open: watch::Sender::new(0), tasks, accepted }
    }
}

impl Groups {
    fn of(&self, kind: &ListenerKind) -> &Group {
        if *kind == ListenerKind::Inbound { &self.inbound } else { &self.egress }
    }

    fn covered(&self, which: Which) -> impl Iterator<Item = &Group> {
        [Some(&self.inbound), (which == Which::All).then_some(&self.egress)].into_iter().flatten()
    }
}

impl Office {
    async fn work(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let office = Rc::new(self);
        while let Some(command) = commands.recv().await {
            office.obey(command);
        }
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Open { listener, service, socket } => self.open(listener, service, socket),
            Command::Close { listener, done } => {
                let accepting = self.listeners.borrow_mut().remove(&listener);
                spawn_local(async move {
                    if let Some(accepting) = accepting {
                        accepting.abort();
                        let _ = accepting.await; // aborted, as asked
                    }
                    let _ = done.send(());
                });
            }
            Command::Serve { service, socket } => match Socket::attach(socket) {
                Ok(socket) => self.serve(service, socket),
                Err(error) => {
                    self.worker.shared.live[self.worker.index].remove();
                    warn!(%error, "a connection was lost between two workers");
                }
            },
            Command::Drain { which, done } => self.drain(which, done),
            Command::Cut(done) => self.cut(done),
            Command::Count { which, answer } => {
                let _ = answer.send(self.groups.covered(which).map(|group| *group.open.borrow()).sum());
            }
            Command::Explain { question, answer } => {
                let _ = answer.send(explain(&self.worker, &question));
            }
            Command::Report(answer) => {
                let _ = answer.send(Report::of(&self.worker));
            }
        }
    }

    fn open(self: &Rc<Self>, listener: Listener, service: Service, socket: Unattached) {
        let listening = match Listening::attach(socket) {
            Ok(listening) => listening,
            Err(error) => return error!(%error, address = %listener.address, "cannot listen"),
        };
        let office = Rc::clone(self);
        let accepting = spawn_local(async move {
            let mut told: Option<Instant> = None;
            loop {
                match listening.accept().await {
                    Ok(socket) => office.place(&service, socket),
                    Err(error) => {
                        office.worker.shared.metrics.accept_failed();
                        if told.is_none_or(|told| told.elapsed() >= ACCEPT_TOLD) {
                            told = Some(Instant::now());
                            warn!(%error, kind = ?service.kind, "cannot accept connections");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        self.listeners.borrow_mut().insert(listener, accepting);
    }

    /// Keeps the connection or hands it to the worker with the fewest.
    fn place(self: &Rc<Self>, service: &Service, socket: Socket) {
        let live = &self.worker.shared.live;
        let own = self.worker.index;
        let fewest = (0..live.len()).min_by_key(|index| (live[*index].count(), *index != own)).unwrap_or(own);
        live[fewest].add(); // now, so that the next accept sees it
        if fewest == own {
            return self.serve(service.clone(), socket);
        }
        match socket.detach() {
            Ok(socket) => {
                let _ = self.peers[fewest].send(Command::Serve { service: service.clone(), socket });
            }
            Err(error) => {
                live[fewest].remove();
                warn!(%error, "a connection was lost between two workers");
            }
        }
    }

    fn serve(self: &Rc<Self>, service: Service, socket: Socket) {
        let office = Rc::clone(self);
        let kind = service.kind.clone();
        let group = self.groups.of(&kind);
        group.open.send_modify(|open| *open += 1);
        let drain = group.drain.subscribe();
        let own = self.worker.view().mesh.local.service.clone();
        let is_inbound = kind == ListenerKind::Inbound;
        if is_inbound {
            self.worker.shared.metrics.connections(&own, 1);
        }
        let number = group.accepted.get();
        group.accepted.set(number + 1);
        let served = Served { office, kind, own, number };
        let task = spawn_local(async move {
            let _ = socket.set_nodelay(); // a connection that refuses it works all the same
            serve(Rc::clone(&served.office.worker), service, socket, drain).await;
        });
        group.tasks.borrow_mut().insert(number, task.abort_handle());
    }

    fn cut(self: &Rc<Self>, done: oneshot::Sender<()>) {
        let office = Rc::clone(self);
        spawn_local(async move {
            for group in office.groups.covered(Which::All) {
                let tasks = std::mem::take(&mut *group.tasks.borrow_mut());
                tasks.values().for_each(AbortHandle::abort);
                let mut open = group.open.subscribe();
                let _ = open.wait_for(|open| *open == 0).await;
            }
            tokio::task::yield_now().await; // HTTP/2's requests are tasks of their own, which have been told now
            let _ = done.send(());
        });
    }

    fn drain(self: &Rc<Self>, which: Which, done: oneshot::Sender<()>) {
        self.listeners.borrow_mut().retain(|listener, accepting| {
            if which.covers(&listener.kind) {
                accepting.abort();
            }
            !which.covers(&listener.kind)
        });
        let office = Rc::clone(self);
        spawn_local(async move {
            for group in office.groups.covered(which) {
                group.drain.send_replace(true);
                let mut open = group.open.subscribe();
                let _ = open.wait_for(|open| *open == 0).await;
            }
            let _ = done.send(());
        });
    }
}

/// A connection that is served: counted until it is over, also when it is cut.
struct Served {
    office: Rc<Office>,
    kind: ListenerKind,
    /// Our service's name when it came.
    own: String,
    number: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        let Self { office, kind, own, number } = self;
        let (worker, group) = (&office.worker, office.groups.of(kind));
        if *kind == ListenerKind::Inbound {
            worker.shared.metrics.connections(own, -1);
        }
        worker.shared.live[worker.index].remove();
        group.tasks.borrow_mut().remove(number);
        group.open.send_modify(|open| *open -= 1);
    }
}

/// What the workers know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// By name.
    pub upstreams: Vec<UpstreamReport>,
}

/// One upstream.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub name: Arc<str>,
    /// Mean of the workers', 0 to 1.
    pub retry_budget_remaining: f64,
    /// In the mesh's order.
    pub endpoints: Vec<EndpointReport>,
    #[serde(skip)]
    workers: u32,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointReport {
    /// Consul's service id.
    pub id: Arc<str>,
    /// What is dialled.
    pub address: Address,
    /// Requests now.
    pub in_flight: u32,
    /// Peak EWMA of the time to the response head; the largest of the workers'.
    pub ewma_ms: Option<f64>,
    /// Connections now open.
    pub connections: u32,
    /// Of those, how many wait for a request (HTTP/1.1).
    pub idle_connections: usize,
    /// Time left of its ejection.
    pub ejected_for_ms: Option<u64>,
    /// Ejections so far that still count.
    pub ejections: u32,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// It said that it is stopping.
    pub is_draining: bool,
}

impl Report {
    fn of(worker: &Worker) -> Self {
        let view = worker.view();
        let now = Instant::now();
        let mut upstreams: Vec<_> = view.upstreams.values().map(|state| UpstreamReport::of(state, now)).collect();
        upstreams.sort_by(|a, b| a.name.cmp(&b.name));
        Self { upstreams }
    }

    fn add(&mut self, part: Self) {
        for upstream in part.upstreams {
            match self.upstreams.iter_mut().find(|known| known.name == upstream.name) {
                Some(known) => known.add(upstream),
                None => self.upstreams.push(upstream),
            }
        }
    }
}

impl UpstreamReport {
    fn of(state: &UpstreamState, now: Instant) -> Self {
        let endpoints = state.endpoints.iter().map(|endpoint| {
            let health = &endpoint.endpoint.health;
            let (connections, idle_connections) = endpoint.pool.counts();
            EndpointReport {
                id: Arc::clone(&endpoint.endpoint.key.id),
                address: endpoint.endpoint.address.clone(),
                in_flight: endpoint.load.in_flight(),
                ewma_ms: endpoint.load.ewma(now).map(|ewma| ewma.as_secs_f64() * 1e3),
                connections,
                idle_connections,
                ejected_for_ms: health.ejected_for(now).map(|left| left.as_millis() as u64),
                ejections: health.ejections(),
                consecutive_failures: health.consecutive_failures(),
                is_draining: health.is_draining(now),
            }
        });
        Self {
            name: Arc::clone(&state.upstream.name),
            retry_budget_remaining: state.budget.remaining_ratio(now),
            endpoints: endpoints.collect(),
            workers: 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.workers += 1;
        self.retry_budget_remaining +=
            (other.retry_budget_remaining - self.retry_budget_remaining) / f64::from(self.workers);
        for endpoint in other.endpoints {
            let known =
                self.endpoints.iter_mut().find(|known| known.address == endpoint.address && known.id == endpoint.id);
            if let Some(known) = known {
                known.in_flight += endpoint.in_flight;
                known.connections += endpoint.connections;
                known.idle_connections += endpoint.idle_connections;
                known.ewma_ms = known.ewma_ms.into_iter().chain(endpoint.ewma_ms).reduce(f64::max);
            } else {
                self.endpoints.push(endpoint);
            }
        }
    }
}
