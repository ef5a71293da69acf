//! One worker at its work: it takes commands, accepts connections, keeps them or hands them on, and ends them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use lictor_core::Mesh;
use lictor_core::mesh::ListenerKind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_local};
use tracing::{error, warn};

use lictor_http::stream::Socket;

use super::{Change, Command, Report, Which};
use crate::calls::explain::explain;
use crate::gate::explain::admitted;
use crate::net::listen::{ACCEPT_PAUSE, ACCEPT_TOLD, Listening, Unattached};
use crate::serve::serve;
use crate::world::generation::{Generation, Service, Standing};
use crate::world::shared::Shared;
use crate::world::worker::Worker;

/// A worker, from its start to the end of the process.
pub(super) async fn run(
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
    spawn_local(Rc::clone(&worker).follow(mesh.clone()));
    spawn_local(Rc::clone(&worker).sweep());
    spawn_local(Rc::clone(&worker).yield_idle());
    let (listeners, generations, draining) = Default::default();
    Office { worker, mesh, peers, listeners, generations, draining }.work(commands).await;
}

/// Where a worker takes commands.
struct Office {
    worker: Rc<Worker>,
    mesh: watch::Receiver<Arc<Mesh>>,
    peers: Vec<mpsc::UnboundedSender<Command>>,
    /// By socket.
    listeners: RefCell<HashMap<u64, Accepting>>,
    /// By [`Generation::key`]: those in force, and those that are ending.
    generations: RefCell<HashMap<(u64, u64), Rc<Generation>>>,
    /// What of the process is leaving.
    draining: Cell<Option<Which>>,
}

/// A listening socket, and what is done with its connections now.
struct Accepting {
    service: Rc<RefCell<Arc<Service>>>,
    task: JoinHandle<()>,
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
            Command::Change { changes, grace, done } => self.change(changes, grace, done),
            Command::Serve { service, socket, peer } => match Socket::attach(socket) {
                Ok(socket) => self.serve(&service, socket, peer),
                Err(error) => {
                    self.worker.shared.live[self.worker.index].remove();
                    warn!(%error, "a connection was lost between two workers");
                }
            },
            Command::Drain { which, done } => self.drain(which, done),
            Command::Cut(done) => self.cut(done),
            Command::Count { which, answer } => {
                let _ = answer.send(self.covered(which).iter().map(|generation| generation.open()).sum());
            }
            Command::Explain { question, answer } => {
                let worker = Rc::clone(&self.worker);
                spawn_local(async move {
                    let view = worker.view();
                    let admitted = admitted(&worker, &view, &question).await;
                    let _ = answer.send(admitted.and_then(|admitted| explain(&worker, &view, &question, admitted)));
                });
            }
            Command::Report(answer) => {
                let _ = answer.send(Report::of(&self.worker));
            }
        }
    }

    /// Changes listeners, all in one turn.
    fn change(self: &Rc<Self>, changes: Vec<Change>, grace: Duration, done: oneshot::Sender<()>) {
        // What is admitted from now on is judged by the mesh that these changes come with.
        let mesh = Arc::clone(&self.mesh.borrow());
        self.worker.catch_up(&mesh);
        let (mut ends, mut closing) = (HashMap::new(), Vec::new());
        for change in changes {
            match change {
                Change::Open { service, socket } => self.open(service, socket),
                Change::Replace { service, standing } => {
                    ends.insert(service.socket, (service.number, standing));
                    if let Some(accepting) = self.listeners.borrow().get(&service.socket) {
                        *accepting.service.borrow_mut() = service;
                    }
                }
                Change::Close(socket) => {
                    ends.insert(socket, (u64::MAX, Standing::Over));
                    closing.extend(self.listeners.borrow_mut().remove(&socket));
                }
            }
        }
        self.end(&ends, grace);
        spawn_local(async move {
            for Accepting { task, .. } in closing {
                task.abort();
                let _ = task.await; // aborted, as asked
            }
            let _ = done.send(());
        });
    }

    fn open(self: &Rc<Self>, service: Arc<Service>, socket: Unattached) {
        let number = service.socket;
        let listening = match Listening::attach(socket) {
            Ok(listening) => listening,
            Err(error) => return error!(%error, kind = ?service.kind, "cannot listen"),
        };
        let service = Rc::new(RefCell::new(service));
        let (office, current) = (Rc::clone(self), Rc::clone(&service));
        let task = spawn_local(async move {
            let mut told: Option<Instant> = None;
            loop {
                let accepted = listening.accept().await;
                let service = Arc::clone(&current.borrow());
                match accepted {
                    Ok((socket, peer)) => office.place(&service, socket, peer),
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
        self.listeners.borrow_mut().insert(number, Accepting { service, task });
    }

    /// Ends generations, of each socket those before this one: in order, and after a grace at once. Many changes within
    /// one grace cost no more than the connections that are open: one that nobody has goes now, and one that ends is not
    /// ended again.
    fn end(self: &Rc<Self>, ends: &HashMap<u64, (u64, Standing)>, grace: Duration) {
        let becomes = |known: &Generation| {
            let (before, standing) = ends.get(&known.service.socket)?;
            (known.service.number < *before).then_some(*standing)
        };
        let mut generations = self.generations.borrow_mut();
        // Connections have it, and tunnels, which may outlive theirs.
        generations.retain(|_, known| becomes(known).is_none() || Rc::strong_count(known) > 1);
        for generation in generations.values() {
            let Some(standing) = becomes(generation) else { continue };
            generation.end(standing);
            if generation.ends_by(Instant::now() + grace) {
                continue;
            }
            let (office, generation) = (Rc::clone(self), Rc::clone(generation));
            spawn_local(async move {
                tokio::time::sleep(grace).await;
                generation.cut().await;
                generation.until_empty().await;
                office.generations.borrow_mut().remove(&generation.key());
            });
        }
    }

    /// Keeps the connection or hands it to the worker with the fewest: the kernel's hash spreads a sidecar's few long-lived
    /// connections badly.
    fn place(self: &Rc<Self>, service: &Arc<Service>, socket: Socket, peer: Option<SocketAddr>) {
        let live = &self.worker.shared.live;
        let own = self.worker.index;
        let fewest = (0..live.len()).min_by_key(|index| (live[*index].count(), *index != own)).unwrap_or(own);
        live[fewest].add(); // now, so that the next accept sees it
        if fewest == own {
            return self.serve(service, socket, peer);
        }
        match socket.detach() {
            Ok(socket) => {
                let _ = self.peers[fewest].send(Command::Serve { service: Arc::clone(service), socket, peer });
            }
            Err(error) => {
                live[fewest].remove();
                warn!(%error, "a connection was lost between two workers");
            }
        }
    }

    /// Serves a connection by what is in force now: it may have been accepted by another worker, before a change that
    /// this one knows of, or after one that it does not.
    fn serve(self: &Rc<Self>, service: &Arc<Service>, socket: Socket, peer: Option<SocketAddr>) {
        if service.is_closed.load(Relaxed) {
            return self.worker.shared.live[self.worker.index].remove();
        }
        let known = self.listeners.borrow().get(&service.socket).map(|known| Arc::clone(&known.service.borrow()));
        let newer = known.filter(|known| known.number > service.number);
        let generation = self.generation(newer.as_ref().unwrap_or(service));
        let own = match generation.service.kind {
            ListenerKind::Inbound => Some(self.worker.view().mesh.local.service.clone()),
            ListenerKind::Upstream(_) | ListenerKind::Forward | ListenerKind::Gateway | ListenerKind::Redirect => None,
        };
        if let Some(own) = &own {
            self.worker.shared.metrics.connections(own, 1);
        }
        let number = generation.enter();
        let (served, worker) = (Rc::clone(&generation), Rc::clone(&self.worker));
        let guard = Served { worker: Rc::clone(&worker), generation: Rc::clone(&generation), own, number };
        let task = spawn_local(async move {
            let _guard = guard;
            serve(worker, served, socket, peer).await;
        });
        generation.keep(number, task.abort_handle());
    }

    /// This worker's share of one; the first connection begins it.
    fn generation(&self, service: &Arc<Service>) -> Rc<Generation> {
        let mut generations = self.generations.borrow_mut();
        let is_draining = || self.draining.get().is_some_and(|which| which.covers(&service.kind));
        let trust = service.trust_now();
        let begun = || Rc::new(Generation::new(Arc::clone(service), trust, is_draining()));
        Rc::clone(generations.entry((service.number, trust)).or_insert_with(begun))
    }

    fn covered(&self, which: Which) -> Vec<Rc<Generation>> {
        let generations = self.generations.borrow();
        generations.values().filter(|known| which.covers(&known.service.kind)).cloned().collect()
    }

    fn cut(self: &Rc<Self>, done: oneshot::Sender<()>) {
        let cut = |generation: Rc<Generation>| {
            spawn_local(async move {
                generation.cut().await;
                generation.until_empty().await;
            })
        };
        let ending: Vec<_> = self.covered(Which::All).into_iter().map(cut).collect(); // all at the same time
        spawn_local(async move {
            for cut in ending {
                let _ = cut.await; // nobody aborts it
            }
            tokio::task::yield_now().await; // HTTP/2's requests are tasks of their own, which have been told now
            let _ = done.send(());
        });
    }

    fn drain(self: &Rc<Self>, which: Which, done: oneshot::Sender<()>) {
        self.draining.set(Some(which));
        self.listeners.borrow_mut().retain(|_, accepting| {
            let is_covered = which.covers(&accepting.service.borrow().kind);
            if is_covered {
                accepting.task.abort();
            }
            !is_covered
        });
        let ending = self.covered(which);
        for generation in &ending {
            generation.drain();
        }
        spawn_local(async move {
            for generation in ending {
                generation.until_empty().await;
            }
            let _ = done.send(());
        });
    }
}

/// A connection that is served: counted until it is over, also when it is cut.
struct Served {
    worker: Rc<Worker>,
    generation: Rc<Generation>,
    /// Our service's name when it came to our application.
    own: Option<String>,
    number: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        let Self { worker, generation, own, number } = self;
        if let Some(own) = own {
            worker.shared.metrics.connections(own, -1);
        }
        worker.shared.live[worker.index].remove();
        generation.leave(*number);
    }
}
