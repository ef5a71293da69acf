//! A service of a saga's steps: it does each key once, refuses what was undone before it was done, and its store outlives it.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use lictor_testkit::{RawServer, eventually, eventually_is, free_ports, read_head};
use parking_lot::{Condvar, Mutex};
use serde_json::Value as Json;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// This is answered, without an effect.
    Says(u16),
    /// Nothing is answered, before the effect or after it.
    Breaks { is_after: bool },
    /// It has its effect, and this is answered.
    DoneBut(u16),
    /// It waits, before the effect or after it, until it may go on; then it is done.
    Waits { is_after: bool },
}

/// A call as it came.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) path: String,
    pub(super) key: String,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

/// What outlives the process.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Keys that had their effect.
    done: HashSet<String>,
    /// Orders and paths, as they had their effect.
    pub(super) effects: Vec<(String, String)>,
    pub(super) calls: Vec<Called>,
    keys: HashSet<String>,
    /// Of the calls of a path (of an order, or of all: ``), from the first on.
    fates: HashMap<(String, String), Vec<Fate>>,
    /// Orders and paths that wait.
    waiting: HashSet<(String, String)>,
    /// Whoever waits may go on.
    is_open: bool,
    connections: Vec<TcpStream>,
}

type Shared = Arc<(Mutex<Store>, Condvar)>;

#[derive(Debug)]
pub(super) struct Service {
    port: u16,
    shared: Shared,
    server: Mutex<Option<RawServer>>,
}

impl Service {
    pub(super) fn start() -> Self {
        let [port] = free_ports();
        let service = Self { port, shared: Shared::default(), server: Mutex::default() };
        service.run();
        service
    }

    /// Like a start after SIGKILL, on the same port and with the same store.
    pub(super) fn run(&self) {
        let listener = eventually("the port is free", || TcpListener::bind(("127.0.0.1", self.port)));
        let shared = Arc::clone(&self.shared);
        *self.server.lock() = Some(RawServer::on(listener, move |stream| serve(&shared, stream)));
    }

    /// Like SIGKILL: its sockets are closed, whatever they were doing, and nothing that waits is done.
    pub(super) fn kill(&self) {
        drop(self.server.lock().take());
        let (store, changed) = &*self.shared;
        let mut store = store.lock();
        for connection in store.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        store.waiting.clear();
        changed.notify_all();
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn store<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut self.shared.0.lock())
    }

    /// What happens to the next calls of a path.
    pub(super) fn will(&self, path: &str, fates: &[Fate]) {
        self.will_of("", path, fates);
    }

    pub(super) fn will_of(&self, order: &str, path: &str, fates: &[Fate]) {
        self.store(|store| store.fates.insert((order.to_owned(), path.to_owned()), fates.to_vec()));
    }

    pub(super) fn effects(&self) -> Vec<String> {
        self.store(|store| store.effects.iter().map(|(_, path)| path.clone()).collect())
    }

    pub(super) fn calls(&self) -> Vec<Called> {
        self.store(|store| store.calls.clone())
    }

    pub(super) fn await_waiting(&self, count: usize) {
        eventually_is("calls wait", || self.store(|store| store.waiting.len()), |waiting| *waiting >= count);
    }

    /// Whether it was called with this key.
    pub(super) fn was_called(&self, key: &str) -> bool {
        self.store(|store| store.keys.contains(key))
    }

    /// Whether this call waits.
    pub(super) fn waits(&self, order: &str, path: &str) -> bool {
        self.store(|store| store.waiting.contains(&(order.to_owned(), path.to_owned())))
    }

    /// Lets those go on that wait, and that will.
    pub(super) fn open(&self, is_open: bool) {
        self.store(|store| store.is_open = is_open);
        self.shared.1.notify_all();
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    if let Ok(copy) = stream.try_clone() {
        shared.0.lock().connections.push(copy);
    }
    while let Some(called) = read(&mut stream) {
        let Some(status) = answer(shared, called) else {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        };
        let body = if status < 300 { "{}" } else { r#"{"error":"no"}"# };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        let answer = format!("{head}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Called> {
    let head = read_head(stream);
    let mut lines = head.split("\r\n");
    let path = lines.next()?.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(Called {
        path,
        key: header("idempotency-key"),
        kind: header("content-type"),
        id: header("x-request-id"),
        body,
    })
}

/// The status; `None`: none.
fn answer(shared: &Shared, called: Called) -> Option<u16> {
    let order =
        serde_json::from_slice::<Json>(&called.body).ok().and_then(|body| body["order"].as_str().map(str::to_owned));
    let (order, path, key) = (order.unwrap_or_default(), called.path.clone(), called.key.clone());
    let (store, changed) = &**shared;
    let mut store = store.lock();
    store.keys.insert(key.clone());
    store.calls.push(called);
    let fate = [order.as_str(), ""].into_iter().find_map(|order| {
        let fates = store.fates.get_mut(&(order.to_owned(), path.clone())).filter(|fates| !fates.is_empty())?;
        Some(fates.remove(0))
    });
    match fate {
        None => Some(store.does(&order, &path, &key)),
        Some(Fate::Says(status)) => Some(status),
        Some(Fate::DoneBut(status)) => {
            store.does(&order, &path, &key);
            Some(status)
        }
        Some(Fate::Breaks { is_after }) => {
            if is_after {
                store.does(&order, &path, &key);
            }
            None
        }
        Some(Fate::Waits { is_after }) => {
            if is_after {
                store.does(&order, &path, &key);
            }
            let place = (order.clone(), path.clone());
            store.waiting.insert(place.clone());
            changed.wait_while(&mut store, |store| !store.is_open && store.waiting.contains(&place));
            let is_alive = store.waiting.remove(&place); // else it was killed
            is_alive.then(|| store.does(&order, &path, &key))
        }
    }
}

impl Store {
    /// Does it, if it was not done; what it answers.
    fn does(&mut self, order: &str, path: &str, key: &str) -> u16 {
        let undo = key.strip_suffix(":do").map(|step| format!("{step}:undo"));
        if undo.is_some_and(|undo| self.done.contains(&undo)) {
            return 410; // it comes after its own compensation
        }
        if !self.done.insert(key.to_owned()) {
            return 200;
        }
        // To undo what was never done is nothing, and is remembered.
        let is_done = key.strip_suffix(":undo").is_none_or(|step| self.done.contains(&format!("{step}:do")));
        if is_done {
            self.effects.push((order.to_owned(), path.to_owned()));
        }
        200
    }
}
