//! The addresses of a host name, by the system's resolver (`getaddrinfo`, so that `/etc/hosts`, search domains and
//! nsswitch count), which keeps a thread for as long as it likes.
//!
//! At most [`THREADS`] names are looked up at a time, and one name once for all who ask. A name that was slow the last
//! time takes none of the places that are kept for others: a domain whose servers do not answer holds up nobody else.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

/// Look-ups at a time of names that were not slow.
pub const THREADS: usize = 16;
/// Of names that were.
const SLOW_THREADS: usize = 8;
/// It was slow if it took longer.
const SLOW: Duration = Duration::from_secs(1);
/// No more slow names are remembered.
const SLOW_MAX: usize = 1024;
/// No more addresses of one name are used, so that an answer does not decide about memory.
pub const ADDRESSES_MAX: usize = 128;

/// The addresses of a name, or of a literal address, in the order in which the system prefers them (RFC 6724), each once;
/// never none. The limit of time is the caller's, and a look-up that nobody waits for goes on: whoever asks next has it.
pub async fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(ask_system));
    SYSTEM.look_up(host).await
}

fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    (host, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
}

/// What a look-up found, for all who wait for it. `io::Error` cannot be copied.
type Found = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

/// A way to look names up, and who is at it.
#[derive(Clone)]
struct Resolver(Arc<Inner>);

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

struct Inner {
    ask: Box<Ask>,
    quick: Semaphore,
    slow: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<String, watch::Receiver<Option<Found>>>,
    slow: HashSet<String>,
}

impl Resolver {
    fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let (quick, slow) = (Semaphore::new(THREADS), Semaphore::new(SLOW_THREADS));
        Self(Arc::new(Inner { ask: Box::new(ask), quick, slow, state: Mutex::default() }))
    }

    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let mut found = self.running(host);
        let found = found.wait_for(Option::is_some).await;
        let found = found.map_err(|_| io::Error::other("the look-up was given up"))?; // the process ends
        match found.as_ref().expect("it was waited for") {
            Ok(addresses) => Ok(addresses.clone()),
            Err((kind, words)) => Err(io::Error::new(*kind, words.clone())),
        }
    }

    /// The look-up of this name that is running, or one that begins now.
    fn running(&self, host: &str) -> watch::Receiver<Option<Found>> {
        let mut state = self.0.state.lock();
        if let Some(found) = state.running.get(host) {
            return found.clone();
        }
        let (tell, found) = watch::channel(None);
        state.running.insert(host.to_owned(), found.clone());
        let is_slow = state.slow.contains(host);
        drop(state);
        let (inner, host) = (Arc::clone(&self.0), host.to_owned());
        tokio::spawn(async move {
            let answer = inner.place_and_ask(&host, is_slow).await;
            inner.state.lock().running.remove(&host);
            tell.send_replace(Some(answer));
        });
        found
    }
}

impl Inner {
    async fn place_and_ask(self: &Arc<Self>, host: &str, is_slow: bool) -> Found {
        let places = if is_slow { &self.slow } else { &self.quick };
        let _place = places.acquire().await.expect("it is never closed");
        let (asked, inner, name) = (Instant::now(), Arc::clone(self), host.to_owned());
        let found = tokio::task::spawn_blocking(move || (inner.ask)(&name)).await;
        self.note(host, asked.elapsed() > SLOW);
        let found = found.unwrap_or_else(|_| Err(io::Error::other("the look-up failed")));
        let found = found.map_err(|error| (error.kind(), error.to_string()))?;
        let addresses = each_once(found);
        if addresses.is_empty() {
            return Err((io::ErrorKind::NotFound, "the name has no address".to_owned()));
        }
        Ok(addresses)
    }

    fn note(&self, host: &str, was_slow: bool) {
        let slow = &mut self.state.lock().slow;
        if !was_slow {
            slow.remove(host);
        } else if slow.len() < SLOW_MAX {
            slow.insert(host.to_owned());
        }
    }
}

/// In their order; of too many always the same ones, however they are turned round.
fn each_once(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut sorted = found.clone();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.truncate(ADDRESSES_MAX);
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(sorted.len());
    for ip in found {
        if let Ok(at) = sorted.binary_search(&ip) {
            sorted.remove(at);
            addresses.push(ip);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn names_and_addresses_are_found_by_the_systems_rules() {
        assert!(look_up("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        for literal in ["10.0.0.1", "::1"] {
            assert_eq!(look_up(literal).await.unwrap(), [literal.parse::<IpAddr>().unwrap()]);
        }
        assert!(look_up("no such name").await.is_err());
    }

    #[tokio::test]
    async fn one_name_is_asked_once_for_all_who_want_it() {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Barrier::new(2)));
        let resolver = Resolver::new({
            let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
            move |_| {
                asked.fetch_add(1, SeqCst);
                gate.wait();
                Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 1].into()])
            }
        });
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move { resolver.look_up("a").await })
            })
            .collect();
        // One that does not wait to the end takes nothing from the others.
        assert!(tokio::time::timeout(Duration::from_millis(1), resolver.look_up("a")).await.is_err());
        tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        }
        assert_eq!(asked.load(SeqCst), 1);
        assert!(resolver.0.state.lock().running.is_empty(), "what has ended is asked anew");
    }

    /// However many names hang, one that did not the last time is found.
    #[tokio::test]
    async fn names_that_hang_hold_up_no_other() {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolver = Resolver::new(move |name| {
            if name.starts_with("hangs") {
                let _ = held.lock().recv(); // one after the other, when the test ends
            }
            Ok(vec![[127, 0, 0, 1].into()])
        });
        for name in 0..100 {
            resolver.0.note(&format!("hangs-{name}"), true);
        }
        for name in 0..100 {
            let name = format!("hangs-{name}");
            let found = resolver.look_up(&name);
            assert!(tokio::time::timeout(Duration::from_millis(1), found).await.is_err());
        }
        let others = (0..100).map(|name| resolver.look_up(if name % 2 == 0 { "good" } else { "fine" }));
        for found in others {
            assert!(tokio::time::timeout(SOON, found).await.expect("it is held up").is_ok());
        }
        drop(release);
    }

    #[test]
    fn of_too_many_addresses_the_same_ones_are_used_however_they_come() {
        let many: Vec<IpAddr> = (0..1000_u32).map(|number| IpAddr::from(number.to_be_bytes())).collect();
        let mut turned = many.clone();
        turned.rotate_left(500);
        let (mut one, mut other) = (each_once(many), each_once(turned));
        assert_eq!(one.len(), ADDRESSES_MAX);
        one.sort_unstable();
        other.sort_unstable();
        assert_eq!(one, other);
        let few: Vec<IpAddr> = ["::1", "10.0.0.1", "::1"].iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(each_once(few.clone()), few[..2]);
    }
}
