//! One worker at its work: it takes commands, accepts connections, keeps them or hands them on, and ends them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lictor_core::Mesh;
use lictor_core::mesh::{Listener, ListenerKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tracing::{error, warn};

use lictor_http::stream::Socket;

use super::{Command, Report, Which};
use crate::calls::explain::explain;
use crate::net::listen::{ACCEPT_PAUSE, ACCEPT_TOLD, Listening, Unattached};
use crate::serve::{Service, serve};
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
            Command::Serve { service, socket, peer } => match Socket::attach(socket) {
                Ok(socket) => self.serve(service, socket, peer),
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
        self.listeners.borrow_mut().insert(listener, accepting);
    }

    /// Keeps the connection or hands it to the worker with the fewest.
    fn place(self: &Rc<Self>, service: &Service, socket: Socket, peer: Option<SocketAddr>) {
        let live = &self.worker.shared.live;
        let own = self.worker.index;
        let fewest = (0..live.len()).min_by_key(|index| (live[*index].count(), *index != own)).unwrap_or(own);
        live[fewest].add(); // now, so that the next accept sees it
        if fewest == own {
            return self.serve(service.clone(), socket, peer);
        }
        match socket.detach() {
            Ok(socket) => {
                let _ = self.peers[fewest].send(Command::Serve { service: service.clone(), socket, peer });
            }
            Err(error) => {
                live[fewest].remove();
                warn!(%error, "a connection was lost between two workers");
            }
        }
    }

    fn serve(self: &Rc<Self>, service: Service, socket: Socket, peer: Option<SocketAddr>) {
        let office = Rc::clone(self);
        let kind = service.kind.clone();
        let group = self.groups.of(&kind);
        group.open.send_modify(|open| *open += 1);
        let drain = group.drain.subscribe();
        let own = (kind == ListenerKind::Inbound).then(|| self.worker.view().mesh.local.service.clone());
        if let Some(own) = &own {
            self.worker.shared.metrics.connections(own, 1);
        }
        let number = group.accepted.get();
        group.accepted.set(number + 1);
        let served = Served { office, kind, own, number };
        let task = spawn_local(async move {
            serve(Rc::clone(&served.office.worker), service, socket, peer, drain).await;
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
    /// Our service's name when it came to our application.
    own: Option<String>,
    number: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        let Self { office, kind, own, number } = self;
        let (worker, group) = (&office.worker, office.groups.of(kind));
        if let Some(own) = own {
            worker.shared.metrics.connections(own, -1);
        }
        worker.shared.live[worker.index].remove();
        group.tasks.borrow_mut().remove(number);
        group.open.send_modify(|open| *open -= 1);
    }
}
