//! The workers as the rest of the program sees them: start, open listeners, drain, report. What each of them does with its
//! connections is its `office`'s.

mod office;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lictor_core::breaker::Transition;
use lictor_core::limit::Limit;
use lictor_core::mesh::{Listener, ListenerKind};
use lictor_core::story::{Filter, Refusals, Story};
use lictor_core::{Address, Mesh};
use lictor_http::stream::Detached;
use lictor_tls::{Credentials, Servers, Shown, TlsError};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::office::run;
use crate::calls::explain::{Explanation, Question, Refusal};
use crate::net::listen::{BindError, Bound, Spot, Unattached, bind};
use crate::stores::exemplar::Exemplar;
use crate::stores::flow::Flowed;
use crate::stores::metrics::Metrics;
use crate::stores::passwords::Turns;
use crate::stores::span::Span;
use crate::stores::tap::Tapping;
use crate::stores::tokens::KeyBell;
use crate::world::generation::{Service, Standing, Terms};
use crate::world::shared::{CODERS, Live, MESSAGES_HELD, Shared};

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
    /// To whoever fetches keys, and from him.
    pub keys: Arc<KeyBell>,
}

/// The running data plane.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    mesh: watch::Receiver<Arc<Mesh>>,
    /// By socket.
    open: Mutex<BTreeMap<u64, Open>>,
    /// Generations and sockets so far.
    numbers: AtomicU64,
}

/// A listener that is open.
#[derive(Debug)]
struct Open {
    /// Where it really is.
    spot: Spot,
    terms: Terms,
    service: Arc<Service>,
}

/// Listeners that could be opened: [`DataPlane::adopt`] makes them those that are open. Until then nothing has changed;
/// dropped, nothing has.
#[derive(Debug)]
pub struct Prepared(Vec<Wanted>);

#[derive(Debug)]
struct Wanted {
    listener: Listener,
    tls: Option<Arc<Servers>>,
    place: Place,
}

/// Where a wanted listener is to listen.
#[derive(Debug)]
enum Place {
    /// At this socket, which is open.
    Kept(u64),
    Fresh(Fresh),
}

/// Sockets that are bound, one for each worker, and of which no worker knows yet.
#[derive(Debug)]
struct Fresh {
    spot: Spot,
    sockets: Vec<Unattached>,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.sockets.is_empty() {
            self.spot.clear(); // nobody took them
        }
    }
}

/// What a worker does to a listener.
#[derive(Debug)]
enum Change {
    Open {
        service: Arc<Service>,
        socket: Unattached,
    },
    /// Another generation begins at an open socket; this becomes of the one before.
    Replace {
        service: Arc<Service>,
        standing: Standing,
    },
    Close(u64),
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those from elsewhere: to our own application, and to the gateway.
    Inbound,
    /// All.
    All,
}

impl Which {
    fn covers(self, kind: &ListenerKind) -> bool {
        match (self, kind) {
            (Self::All, _)
            | (Self::Inbound, ListenerKind::Inbound | ListenerKind::Gateway | ListenerKind::Redirect) => true,
            (Self::Inbound, ListenerKind::Upstream(_) | ListenerKind::Forward) => false,
        }
    }
}

#[derive(Debug)]
enum Command {
    /// Changes listeners; what that ends may go on for the grace. Answers when it is done and closed sockets are closed.
    Change {
        changes: Vec<Change>,
        grace: Duration,
        done: oneshot::Sender<()>,
    },
    Serve {
        service: Arc<Service>,
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
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::new(Shared {
            number: since.as_nanos() as u64,
            metrics: Metrics::new(
                &settings.registry,
                settings.compat_metrics,
                settings.otel_metrics,
                settings.max_label_values,
            ),
            access_log: settings.access_log,
            spans: settings.spans,
            traced_inbound: AtomicUsize::default(),
            coders: Arc::new(Semaphore::new(CODERS)),
            messages: Arc::new(Semaphore::new(MESSAGES_HELD)),
            demand: settings.demand,
            keys: settings.keys,
            passwords: Turns::new(),
            is_draining: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            tls: Credentials::default(),
            challenges: crate::stores::challenges::Challenges::default(),
            awaited: Arc::default(),
            causes: Arc::default(),
            cache: crate::stores::kept::Cache::default(),
            limiter: crate::stores::limiter::Limiter::default(),
            redis: Arc::default(),
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
        let (open, numbers) = Default::default();
        Ok(Self { shared, workers: senders, mesh: settings.mesh, open, numbers })
    }

    /// Opens what these need that is not open yet. A listener at an address that is open, whatever it leads to, keeps
    /// its socket; one at a port of the kernel's choice keeps it while it leads to the same.
    pub async fn prepare(&self, listeners: &[Listener]) -> Result<Prepared, BindError> {
        let mut secured = Vec::with_capacity(listeners.len());
        for listener in listeners {
            secured.push(self.tls(listener).await?);
        }
        let open = self.open.lock();
        let there = || open.iter().filter(|(_, open)| open.spot.is_there());
        let mut free: HashMap<&Address, u64> = there().map(|(socket, open)| (&open.spot.address, *socket)).collect();
        let places = there()
            .map(|(_, Open { spot, terms, .. })| ((&terms.listener.address, &terms.listener.kind), &spot.address));
        let places: HashMap<_, _> = places.collect();
        let mut wanted = Vec::with_capacity(listeners.len());
        for (listener, tls) in listeners.iter().zip(secured) {
            let at = places.get(&(&listener.address, &listener.kind)).copied().unwrap_or(&listener.address);
            let place = match free.remove(at) {
                Some(socket) => Place::Kept(socket),
                None => {
                    let beside_own = own_there(&open, listener).is_some();
                    let (spot, sockets) = bind(listener, self.workers.len(), beside_own)
                        .map_err(|error| in_the_way(&open, listener, error))?;
                    Place::Fresh(Fresh { spot, sockets })
                }
            };
            wanted.push(Wanted { listener: listener.clone(), tls, place });
        }
        Ok(Prepared(wanted))
    }

    /// Makes these the open listeners, under the mesh that is published. Connections that were admitted by something
    /// else than what is in force now end in order, and after `grace` at once.
    pub async fn adopt(&self, prepared: Prepared, grace: Duration) -> Vec<Bound> {
        let mesh = Arc::clone(&self.mesh.borrow());
        self.shared.cache.forget_all(); // an upstream may lead elsewhere, and routes have other rules
        let mut changes: Vec<Vec<Change>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut bound = Vec::with_capacity(prepared.0.len());
        {
            let mut open = self.open.lock();
            let mut before = std::mem::take(&mut *open);
            for wanted in prepared.0 {
                let now = self.take(wanted, &mesh, &mut before, &mut changes);
                let listener = &now.terms.listener;
                let (kind, is_tls) = (listener.kind.clone(), listener.tls.is_some());
                bound.push(Bound { kind, address: now.spot.address.clone(), is_tls });
                open.insert(now.service.socket, now);
            }
            for (socket, gone) in before {
                gone.service.is_closed.store(true, Relaxed);
                gone.spot.clear(); // while it listens: after that another process may have bound there
                for changes in &mut changes {
                    changes.push(Change::Close(socket));
                }
            }
        }
        self.change(changes, grace).await;
        bound
    }

    /// A wanted listener as it is open from now on, and what workers have to do for that.
    fn take(&self, wanted: Wanted, mesh: &Mesh, before: &mut BTreeMap<u64, Open>, changes: &mut [Vec<Change>]) -> Open {
        let Wanted { listener, tls, place } = wanted;
        let terms = Terms::of(&listener, mesh);
        match place {
            Place::Kept(socket) => {
                let kept = before.remove(&socket);
                let Open { spot, terms: old, service } =
                    kept.expect("nothing closes a listener between `prepare` and `adopt`");
                let standing = old.under(&terms);
                let service = match standing {
                    Standing::InForce => service,
                    Standing::Ending | Standing::Over => {
                        let service = self.service(socket, &listener, tls);
                        replace(&service, standing, changes);
                        service
                    }
                };
                Open { spot, terms, service }
            }
            Place::Fresh(mut fresh) => {
                let service = self.service(self.number(), &listener, tls);
                for (changes, socket) in changes.iter_mut().zip(std::mem::take(&mut fresh.sockets)) {
                    changes.push(Change::Open { service: Arc::clone(&service), socket });
                }
                Open { spot: fresh.spot.clone(), terms, service }
            }
        }
    }

    /// A generation.
    fn service(&self, socket: u64, listener: &Listener, tls: Option<Arc<Servers>>) -> Arc<Service> {
        let (kind, max_age) = (listener.kind.clone(), listener.max_connection_age);
        let trust = tls.as_ref().map_or(0, |tls| tls.generation());
        Arc::new(Service {
            number: self.number(),
            socket,
            kind,
            tls,
            proxies: listener.proxies.clone(),
            trust,
            max_age,
            is_closed: AtomicBool::new(false),
        })
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    async fn tls(&self, listener: &Listener) -> Result<Option<Arc<Servers>>, BindError> {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let read = self.shared.tls.listener(tls).await;
        let read = read.map_err(|error| BindError {
            kind: listener.kind.clone(),
            address: listener.address.clone(),
            source: io::Error::other(error),
        })?;
        Ok(Some(Arc::new(read)))
    }

    /// Tells each worker its own; returns when all have done it.
    async fn change(&self, changes: Vec<Vec<Change>>, grace: Duration) {
        let mut changes = changes.into_iter();
        self.ask(|done| Command::Change { changes: changes.next().unwrap_or_default(), grace, done }).await;
    }

    /// Begins to read again the files of certificates that have changed. Connections to listeners that have learnt since
    /// the call before that a CA of clients is believed no more end as in [`DataPlane::adopt`]; what they ask until then
    /// is refused already.
    pub async fn refresh_certificates(&self, grace: Duration) {
        self.shared.tls.refresh();
        let mut changes: Vec<Vec<Change>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut is_narrowed = false;
        for open in self.open.lock().values_mut() {
            if open.service.is_outdated() {
                is_narrowed = true;
                open.service = self.service(open.service.socket, &open.terms.listener, open.service.tls.clone());
                // Whoever came before is refused by that already, and whoever came since is believed.
                replace(&open.service, Standing::Ending, &mut changes);
            }
        }
        if is_narrowed {
            self.change(changes, grace).await;
        }
    }

    /// Where a program of this machine reaches the upstream without TLS: at its own listener, else at the forward proxy, which
    /// goes by the host that a request names.
    pub fn way_to(&self, upstream: &str) -> Option<Address> {
        let open = self.open.lock();
        let plain = || open.values().filter(|open| open.service.tls.is_none() && open.service.proxies.is_none());
        let is_own = |kind: &ListenerKind| matches!(kind, ListenerKind::Upstream(name) if &**name == upstream);
        let own = plain().find(|open| is_own(&open.service.kind));
        let way = own.or_else(|| plain().find(|open| open.service.kind == ListenerKind::Forward));
        way.map(|open| open.spot.address.clone())
    }

    /// The certificates that are shown, to clients and to endpoints.
    pub fn certificates(&self) -> Vec<Shown> {
        self.shared.tls.shown()
    }

    /// Until it is forgotten, a CA that asks (http-01; RFC 8555, section 8.3) for this token of the host is told this.
    pub fn answer_challenge(&self, host: &str, token: &str, authorization: &str) {
        self.shared.challenges.put(host, token, authorization);
    }

    /// Until it is forgotten, a CA that looks by a handshake (tls-alpn-01; RFC 8737) is shown this certificate.
    pub fn show_proof(&self, host: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<(), TlsError> {
        self.shared.tls.prove(host, certificate, key)
    }

    /// No CA looks any more whether this host is ours.
    pub fn forget_challenge(&self, host: &str) {
        self.shared.challenges.forget(host);
        self.shared.tls.forget_proof(host);
    }

    /// The latest sampled requests, by upstream and bucket of `lictor_upstream_request_duration_seconds`.
    pub fn exemplars(&self) -> BTreeMap<String, Vec<Option<Exemplar>>> {
        self.shared.metrics.exemplars()
    }

    /// How many requests took how long so far, by upstream; for [`crate::quantile`].
    pub fn latencies(&self) -> BTreeMap<String, Vec<u64>> {
        self.shared.metrics.latencies()
    }

    /// What became of the requests so far, by upstream.
    pub fn flowed(&self) -> Vec<(Arc<str>, Flowed)> {
        self.shared.metrics.flowed()
    }

    /// The same of the requests that a gateway's route has sent on.
    pub fn route_latencies(&self, label: &str) -> Option<Vec<u64>> {
        self.shared.metrics.route_latencies(label)
    }

    /// So much had no label of its own in this family.
    pub fn overflowed(&self, family: &str, count: u64) {
        self.shared.metrics.overflowed(family, count);
    }

    /// How much of a limit is taken, 0 to 1, where all requests of a route share it and this process counts them.
    pub fn limit_taken(&self, limit: &Limit, route: &str) -> Option<f64> {
        self.shared.limiter.taken(limit, route, Instant::now())
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
        self.open.lock().retain(|_, open| {
            let is_covered = which.covers(&open.service.kind);
            if is_covered {
                open.spot.clear();
            }
            !is_covered
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

    /// How many requests failed before anything was sent, by upstream and reason, the latest first.
    pub fn refusals(&self) -> Vec<Refusals> {
        self.shared.recorder.refusals()
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

    async fn ask<T>(&self, mut command: impl FnMut(oneshot::Sender<T>) -> Command) -> Vec<T> {
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

/// Where this process itself listens on more or fewer of the machine's addresses.
fn own_there(open: &BTreeMap<u64, Open>, wanted: &Listener) -> Option<SocketAddr> {
    let wanted = wanted.address.tcp().filter(|wanted| wanted.port() != 0)?;
    let is_there =
        |own: &SocketAddr| own.port() == wanted.port() && (own.ip().is_unspecified() || wanted.ip().is_unspecified());
    open.values().filter_map(|open| open.spot.address.tcp()).find(is_there)
}

/// Says so when it is this process itself that is in the way: a kernel may not let it share.
fn in_the_way(open: &BTreeMap<u64, Open>, wanted: &Listener, error: BindError) -> BindError {
    match own_there(open, wanted).filter(|_| error.source.kind() == io::ErrorKind::AddrInUse) {
        Some(own) => {
            let sentence = format!("this sidecar itself listens on {own}; take another port, or restart it");
            BindError { source: io::Error::other(sentence), ..error }
        }
        None => error,
    }
}

fn replace(service: &Arc<Service>, standing: Standing, changes: &mut [Vec<Change>]) {
    for changes in changes {
        changes.push(Change::Replace { service: Arc::clone(service), standing });
    }
}
