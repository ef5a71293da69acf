//! Who may have a connection to an admin listener, which asks strangers for nothing: how many there are, how many of one
//! peer, and who goes when somebody else needs the place. No connection waits for another one's end.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// For whatever is asked.
const PLACES: usize = 112;
/// Of these, for one peer: others have the rest.
const OF_A_PEER: usize = 56;
/// Beyond them, for whoever asks nothing but how we are.
const KEPT_FOR_PROBES: usize = 16;
/// Whoever has said nothing for this long may have to go. Whoever has just come may be about to ask.
const SILENT: Duration = Duration::from_millis(100);
/// Whoever has not taken what is written for this long, likewise.
const BEHIND: Duration = Duration::from_secs(1);

/// The connections to one listener.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    freed: Notify,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) purpose: Purpose,
    pub(super) pace: Arc<Pace>,
    number: u64,
    /// Ends when the place is somebody else's.
    lost: oneshot::Receiver<()>,
    places: Arc<Places>,
}

/// What a connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Anything,
    /// One question how we are.
    Probe,
}

/// How a connection gets on.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Pace>);

#[derive(Debug)]
struct State {
    answering: usize,
    silent_since: Instant,
    /// Since when something has been left to write.
    behind_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Taken {
    list: Vec<Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    peer: IpAddr,
    purpose: Purpose,
    pace: Arc<Pace>,
    /// Dropped with the entry, which tells the connection.
    _keeps: oneshot::Sender<()>,
}

impl Places {
    /// The next one, at once or nearly so: while nobody can be sent away yet.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Place {
        loop {
            let (keeps, lost) = oneshot::channel();
            let now = Instant::now();
            let taken = self.taken.lock().take(peer_of(peer), keeps, now);
            if let Some((number, purpose, pace)) = taken {
                return Place { purpose, pace, number, lost, places: Arc::clone(self) };
            }
            let _ = timeout(SILENT / 4, self.freed.notified()).await;
        }
    }
}

impl Place {
    /// Until the place is somebody else's.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().list.retain(|entry| entry.number != self.number);
        self.places.freed.notify_one();
    }
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(State { answering: 0, silent_since: now, behind_since: None }))
    }

    /// A request is there.
    pub(super) fn asked(self: &Arc<Self>) -> Answering {
        self.0.lock().answering += 1;
        Answering(Arc::clone(self))
    }

    /// The client takes nothing at the moment.
    pub(super) fn behind(&self, now: Instant) {
        self.0.lock().behind_since.get_or_insert(now);
    }

    /// Nothing is left to write.
    pub(super) fn caught_up(&self) {
        self.0.lock().behind_since = None;
    }

    pub(super) fn is_behind(&self) -> bool {
        self.0.lock().behind_since.is_some()
    }

    fn is_wasted(&self, now: Instant, behind: Duration) -> bool {
        let state = self.0.lock();
        let lasts = |since: Instant, at_least: Duration| now.saturating_duration_since(since) >= at_least;
        let is_silent = state.answering == 0 && lasts(state.silent_since, SILENT);
        is_silent || state.behind_since.is_some_and(|since| lasts(since, behind))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.answering -= 1;
        state.silent_since = Instant::now();
    }
}

impl Taken {
    /// `None` for as long as whoever has come just before may be about to ask.
    fn take(&mut self, peer: IpAddr, keeps: oneshot::Sender<()>, now: Instant) -> Option<(u64, Purpose, Arc<Pace>)> {
        let purpose = self.purpose(peer, now)?;
        let number = self.next;
        self.next += 1;
        let pace = Arc::new(Pace::new(now));
        self.list.push(Entry { number, peer, purpose, pace: Arc::clone(&pace), _keeps: keeps });
        Some((number, purpose, pace))
    }

    /// What there is a place for, when somebody who wastes one has gone.
    fn purpose(&mut self, peer: IpAddr, now: Instant) -> Option<Purpose> {
        let of = |purpose| move |entry: &&Entry| entry.purpose == purpose;
        let is_peers_limit =
            self.list.iter().filter(of(Purpose::Anything)).filter(|it| it.peer == peer).count() >= OF_A_PEER;
        let is_full = self.list.iter().filter(of(Purpose::Anything)).count() >= PLACES;
        if !is_peers_limit && !is_full {
            return Some(Purpose::Anything);
        }
        let may_go = |entry: &Entry| {
            let is_meant = entry.purpose == Purpose::Anything && (!is_peers_limit || entry.peer == peer);
            is_meant && entry.pace.is_wasted(now, BEHIND)
        };
        if self.free(may_go) {
            return Some(Purpose::Anything);
        }
        let is_room = self.list.iter().filter(of(Purpose::Probe)).count() < KEPT_FOR_PROBES;
        let may_go = |entry: &Entry| entry.purpose == Purpose::Probe && entry.pace.is_wasted(now, SILENT);
        (is_room || self.free(may_go)).then_some(Purpose::Probe)
    }

    /// Of those who may go, the peer's with the most places goes, and of these the newest: who came first meant it.
    fn free(&mut self, may_go: impl Fn(&Entry) -> bool) -> bool {
        let places_of = |peer| self.list.iter().filter(|entry| entry.peer == peer).count();
        let candidates = self.list.iter().enumerate().filter(|(_, entry)| may_go(entry));
        let gone = candidates.max_by_key(|(_, entry)| (places_of(entry.peer), entry.number)).map(|(at, _)| at);
        gone.map(|at| self.list.remove(at)).is_some()
    }
}

/// Whose connections are counted together: an address, or a network of IPv6 that one machine has for itself (RFC 4291,
/// section 2.5.4).
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(2);

    fn peer(number: usize) -> IpAddr {
        IpAddr::from([192, 0, 2, number as u8])
    }

    /// Takes a place; the other end of it is kept or not.
    fn take(taken: &mut Taken, who: usize, now: Instant) -> Option<(u64, Purpose, Arc<Pace>)> {
        taken.take(peer(who), oneshot::channel().0, now)
    }

    /// So many places of one peer, all at work.
    fn busy(taken: &mut Taken, who: usize, count: usize, now: Instant) -> Vec<(u64, Purpose, Answering)> {
        let take = |_| {
            let (number, purpose, pace) = take(taken, who, now).expect("there is a place");
            (number, purpose, pace.asked())
        };
        (0..count).map(take).collect()
    }

    #[test]
    fn a_peer_has_half_of_the_places_and_then_those_for_probes() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let ones = busy(&mut taken, 1, OF_A_PEER + KEPT_FOR_PROBES, now);
        let (anything, probes) = ones.split_at(OF_A_PEER);
        assert!(anything.iter().all(|(_, purpose, _)| *purpose == Purpose::Anything));
        assert!(probes.iter().all(|(_, purpose, _)| *purpose == Purpose::Probe));
        assert_eq!(busy(&mut taken, 2, 1, now)[0].1, Purpose::Anything);
        assert!(take(&mut taken, 1, now + LATER).is_none(), "all are being answered");
    }

    #[test]
    fn whoever_says_nothing_goes_the_newest_first_and_of_the_peer_with_the_most_places() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let few: Vec<u64> = (0..2).map(|_| take(&mut taken, 1, now).unwrap().0).collect();
        let many: Vec<u64> = (0..OF_A_PEER).map(|_| take(&mut taken, 2, now).unwrap().0).collect();
        let _rest = busy(&mut taken, 3, PLACES - OF_A_PEER - 2, now);
        assert_eq!(take(&mut taken, 4, now).unwrap().1, Purpose::Probe, "whoever has just come may be about to ask");
        assert_eq!(take(&mut taken, 4, now + SILENT).unwrap().1, Purpose::Anything);
        let is_there = |taken: &Taken, number: u64| taken.list.iter().any(|entry| entry.number == number);
        assert!(!is_there(&taken, many[OF_A_PEER - 1]));
        assert!(is_there(&taken, many[0]) && few.iter().all(|number| is_there(&taken, *number)));
    }

    #[test]
    fn at_its_limit_a_peer_sends_only_its_own_away() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let silent = take(&mut taken, 1, now).unwrap().0;
        let mut ones = busy(&mut taken, 2, OF_A_PEER, now);
        assert_eq!(take(&mut taken, 2, now + LATER).unwrap().1, Purpose::Probe);
        drop(ones.remove(0));
        assert_eq!(take(&mut taken, 2, now + LATER).unwrap().1, Purpose::Anything);
        assert!(taken.list.iter().any(|entry| entry.number == silent));
    }

    #[test]
    fn whoever_is_behind_for_a_second_goes_though_it_is_being_answered() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let ones = busy(&mut taken, 1, OF_A_PEER, now);
        let slow = Arc::clone(&taken.list[7].pace);
        slow.behind(now);
        slow.behind(now + BEHIND / 2); // as long as it takes some of it
        assert_eq!(take(&mut taken, 1, now + BEHIND).unwrap().1, Purpose::Anything);
        assert!(taken.list.iter().all(|entry| entry.number != ones[7].0));
        let caught_up = Arc::clone(&taken.list[9].pace);
        caught_up.behind(now);
        caught_up.caught_up();
        // The one that has just come says nothing; the other one goes on.
        assert_eq!(take(&mut taken, 1, now + BEHIND).unwrap().1, Purpose::Probe);
        assert!(taken.list.iter().any(|entry| entry.number == ones[9].0 || entry.number == ones[10].0));
    }

    #[test]
    fn a_place_for_probes_is_taken_from_whoever_does_not_ask() {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let _busy = busy(&mut taken, 1, OF_A_PEER, now);
        let probes: Vec<u64> = (0..KEPT_FOR_PROBES).map(|_| take(&mut taken, 1, now).unwrap().0).collect();
        assert!(take(&mut taken, 1, now).is_none());
        let (number, purpose, _) = take(&mut taken, 1, now + SILENT).unwrap();
        assert_eq!(purpose, Purpose::Probe);
        let left: Vec<u64> = taken.list.iter().map(|entry| entry.number).filter(|it| probes.contains(it)).collect();
        assert_eq!(left, probes[..KEPT_FOR_PROBES - 1]);
        assert!(number > probes[0]);
    }

    #[test]
    fn a_machine_is_one_peer_by_either_spelling_and_with_all_its_addresses() {
        let one = |text: &str| peer_of(text.parse().unwrap());
        assert_eq!(one("::ffff:192.0.2.1"), one("192.0.2.1"));
        assert_eq!(one("2001:db8::1"), one("2001:db8::2:0:0:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_ne!(one("192.0.2.1"), one("192.0.2.2"));
        assert_ne!(one("::1"), one("::2"));
    }
}
