//! The keys of all issuers as they are now, for all threads: whoever judges tokens takes the [`Issuers`] as they are, whoever fetches keys
//! puts others in their place. When to fetch is [`Refresh`]'s; nobody waits here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::issuer::{Issuer, Issuers, Keys, Mistake, Trusted};
use crate::key::KeySet;
use crate::refresh::{Answer, Miss, Next, Refresh, Ticket};

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub enum Source {
    /// Here.
    Known(Arc<KeySet>),
    /// There.
    Remote(Remote),
}

/// A key set that is fetched.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where.
    pub url: Arc<str>,
    /// How long keys are used after they should have been fetched again.
    pub max_stale: Duration,
    /// Another configuration's may be the same.
    flight: OnceLock<Arc<Mutex<Flight>>>,
}

/// `None` before anybody has begun to fetch.
#[derive(Debug, Default)]
struct Flight {
    refresh: Option<Refresh>,
    /// A fetch that a token with an unknown `kid` asked for, and nobody has begun yet.
    asked: Option<Ticket>,
}

impl Remote {
    /// Keys that nobody has fetched yet.
    pub fn new(url: &str, max_stale: Duration) -> Self {
        Self { url: url.into(), max_stale, flight: OnceLock::new() }
    }

    fn flight(&self) -> &Mutex<Flight> {
        self.flight.get_or_init(Arc::default)
    }

    /// Begins: with what was remembered and for how long it has been stale, or with nothing. Whoever has begun is left as he is.
    pub fn begin(&self, remembered: Option<(Arc<KeySet>, Duration)>, now: Instant) {
        self.flight().lock().refresh.get_or_insert_with(|| match remembered {
            Some((keys, stale_for)) => Refresh::remembering(keys, stale_for, self.max_stale, now),
            None => Refresh::new(self.max_stale, now),
        });
    }

    /// Whether somebody has begun.
    pub fn has_begun(&self) -> bool {
        self.flight().lock().refresh.is_some()
    }

    /// What is to be done for it now. What is to be fetched is told once.
    pub fn next(&self, now: Instant, random: u64) -> Option<Next> {
        let mut flight = self.flight().lock();
        let asked = flight.asked.take().map(Next::Fetch);
        let refresh = flight.refresh.as_mut()?;
        asked.or_else(|| Some(refresh.next(now, random)))
    }

    /// When its keys will be too old, if they are not yet.
    pub fn gone(&self, now: Instant) -> Option<Instant> {
        self.flight().lock().refresh.as_ref()?.gone().filter(|gone| *gone >= now)
    }

    /// What came of a fetch; whether the keys are others now.
    pub fn answered(&self, ticket: Ticket, answer: Answer, now: Instant, random: u64) -> bool {
        let mut flight = self.flight().lock();
        flight.refresh.as_mut().is_some_and(|refresh| refresh.answered(ticket, answer, now, random))
    }

    fn keys(&self, now: Instant) -> Keys {
        self.flight().lock().refresh.as_ref().map_or(Keys::Unavailable, |refresh| refresh.keys(now))
    }

    fn unknown_key(&self, now: Instant, random: u64) -> Miss {
        let mut flight = self.flight().lock();
        let Some(refresh) = &mut flight.refresh else { return Miss::Refuse };
        let miss = refresh.unknown_key(now, random);
        if let Miss::Fetch(ticket) = miss {
            flight.asked = Some(ticket);
        }
        miss
    }
}

/// All issuers, and where their keys are.
#[derive(Debug)]
pub struct Keyring {
    entries: Vec<(Arc<Issuer>, Source)>,
    now: Mutex<Arc<Issuers>>,
    version: AtomicU64,
}

impl Keyring {
    /// They must be told from each other ([`Issuers::new`]).
    pub fn new(entries: Vec<(Issuer, Source)>) -> Result<Self, Mistake> {
        let entries: Vec<(Arc<Issuer>, Source)> =
            entries.into_iter().map(|(issuer, source)| (Arc::new(issuer), source)).collect();
        let trusted = |(issuer, source): &(Arc<Issuer>, Source)| {
            let keys = match source {
                Source::Known(keys) => Keys::Known(Arc::clone(keys)),
                Source::Remote(_) => Keys::Unavailable,
            };
            Trusted::new(Arc::clone(issuer), keys)
        };
        let now = Issuers::new(entries.iter().map(trusted).collect())?;
        Ok(Self { entries, now: Mutex::new(Arc::new(now)), version: AtomicU64::new(0) })
    }

    /// Takes over what an earlier one has fetched from the same places, before anybody has begun here.
    pub fn inherit(&self, earlier: &Self) {
        for remote in self.remotes() {
            let same = earlier.remotes().find(|it| it.url == remote.url && it.max_stale == remote.max_stale);
            if let Some(flight) = same.and_then(|same| same.flight.get()) {
                let _ = remote.flight.set(Arc::clone(flight));
            }
        }
    }

    /// Who is believed now, by which keys.
    pub fn issuers(&self) -> Arc<Issuers> {
        Arc::clone(&self.now.lock())
    }

    /// Grows when [`issuers`](Self::issuers) are others than before.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The issuers, and where their keys are.
    pub fn entries(&self) -> impl Iterator<Item = (&Issuer, &Source)> {
        self.entries.iter().map(|(issuer, source)| (&**issuer, source))
    }

    /// What is fetched; one for each issuer, also where two have one place.
    pub fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.entries.iter().filter_map(|(_, source)| match source {
            Source::Known(_) => None,
            Source::Remote(remote) => Some(remote),
        })
    }

    /// A token of this entry ([`crate::Refusal::issuer`]) came with a `kid` that no key has.
    pub fn unknown_key(&self, entry: usize, now: Instant, random: u64) -> Miss {
        match self.entries.get(entry) {
            Some((_, Source::Remote(remote))) => remote.unknown_key(now, random),
            _ => Miss::Refuse,
        }
    }

    /// Shows all threads the keys that are there now; whether they are others than before.
    pub fn publish(&self, at: Instant) -> bool {
        let mut now = self.now.lock();
        let entries: Vec<Trusted> =
            self.entries.iter().zip(now.entries()).map(|(entry, was)| fresh(entry, was, at)).collect();
        let is_other = entries.iter().zip(now.entries()).any(|(is, was)| is.entry() != was.entry());
        if is_other && let Ok(issuers) = Issuers::new(entries) {
            *now = Arc::new(issuers);
            self.version.fetch_add(1, Ordering::Release);
        }
        is_other
    }
}

fn fresh((issuer, source): &(Arc<Issuer>, Source), was: &Trusted, now: Instant) -> Trusted {
    match source {
        Source::Known(_) => was.clone(),
        Source::Remote(remote) => Trusted::new(Arc::clone(issuer), remote.keys(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;

    fn issuer(name: &str) -> Issuer {
        Issuer {
            name: name.into(),
            iss: Some(name.to_owned()),
            algorithms: vec![Algorithm::HS256],
            ..Issuer::default()
        }
    }

    fn keys(byte: u8) -> Arc<KeySet> {
        Arc::new(KeySet::secret(&[byte; 32], &[Algorithm::HS256]).unwrap())
    }

    #[test]
    fn keys_are_shown_as_they_come_and_go_and_survive_another_configuration() {
        let (start, stale) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let made = || {
            let remote = Source::Remote(Remote::new("https://idp.example/keys", stale));
            Keyring::new(vec![(issuer("a"), Source::Known(keys(1))), (issuer("b"), remote)]).unwrap()
        };
        let is_known = |ring: &Keyring| matches!(ring.issuers().entries()[1].keys(), Keys::Known(_));
        let ring = made();
        assert!(!is_known(&ring) && ring.unknown_key(1, start, 0) == Miss::Refuse, "nobody has begun");
        let remote = ring.remotes().next().unwrap();
        remote.begin(None, start);
        let Some(Next::Fetch(ticket)) = remote.next(start, 0) else { panic!("nothing to fetch") };
        assert!(remote.answered(ticket, Answer::Keys(keys(2), Some(Duration::from_secs(60))), start, 0));
        assert!(!is_known(&ring) && ring.version() == 0, "nobody is shown them yet");
        assert!(ring.publish(start) && is_known(&ring) && ring.version() == 1);
        assert!(!ring.publish(start), "nothing is new");

        let Miss::Fetch(asked) = ring.unknown_key(1, at(1), 0) else { panic!("a fetch") };
        assert_eq!(ring.unknown_key(1, at(1), 0), Miss::Pending(asked));
        assert_eq!(remote.next(at(1), 0), Some(Next::Fetch(asked)), "whoever fetches is told once");
        assert!(matches!(remote.next(at(1), 0), Some(Next::Wait(_))));
        assert_eq!(ring.unknown_key(0, at(1), 0), Miss::Refuse, "a secret has no kid");
        remote.answered(asked, Answer::Failed, at(1), 0);

        let next = made();
        next.inherit(&ring);
        assert!(next.publish(at(1)) && is_known(&next));
        assert_eq!(next.remotes().next().unwrap().gone(at(1)), Some(at(120)));
        assert!(ring.publish(at(121)) && !is_known(&ring), "too old");
        assert_eq!(remote.gone(at(121)), None);
    }
}
