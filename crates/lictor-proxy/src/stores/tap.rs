//! The tap: requests as they end, with their heads, for whoever listens just now. While nobody does, a request costs one
//! relaxed load. A listener that is too slow misses requests, and is told how many; nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use http::HeaderMap;
use lictor_core::redact;
use lictor_core::story::{self, Filter, Story};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;

/// At a time.
const LISTENERS: usize = 8;
/// What waits for a listener.
const AHEAD: usize = 256;
/// The most of a field's value that is shown, and the most fields.
const VALUE_MAX: usize = 256;
const FIELDS_MAX: usize = 64;

/// Who listens.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    listening: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    filter: Filter,
    sender: mpsc::Sender<Arc<Tapped>>,
    dropped: Arc<AtomicU64>,
}

/// A request that is over.
#[derive(Clone, Debug, Serialize)]
pub struct Tapped {
    /// What became of it.
    #[serde(flatten)]
    pub story: Story,
    /// As the client sent it; secrets as `***`.
    pub request_headers: Fields,
    /// As the client got it, less what was added as it was written.
    pub response_headers: Fields,
}

/// Names and values.
pub type Fields = Vec<(String, String)>;

/// What a listener gets.
#[derive(Debug)]
pub struct Tapping {
    tapped: mpsc::Receiver<Arc<Tapped>>,
    dropped: Arc<AtomicU64>,
}

impl Tapping {
    /// The next one; `None` when the data plane is gone.
    pub async fn next(&mut self) -> Option<Arc<Tapped>> {
        self.tapped.recv().await
    }

    /// How many were missed since this was last asked.
    pub fn missed(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }
}

/// The heads of a request that is tapped.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    request: Fields,
    response: Fields,
}

impl Heads {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        Self { request: redacted(request), response: Fields::new() }
    }

    pub(crate) fn answered(&mut self, response: &HeaderMap) {
        self.response = redacted(response);
    }
}

impl Tap {
    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.listening.load(Relaxed) != 0
    }

    /// From now on; `None` when too many listen already.
    pub(crate) fn listen(&self, filter: Filter) -> Option<Tapping> {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        if listeners.len() == LISTENERS {
            return None;
        }
        let (sender, tapped) = mpsc::channel(AHEAD);
        let dropped = Arc::<AtomicU64>::default();
        listeners.push(Listener { filter, sender, dropped: Arc::clone(&dropped) });
        self.listening.store(listeners.len(), Relaxed);
        Some(Tapping { tapped, dropped })
    }

    /// A tapped request is over. Listeners that are gone are forgotten.
    pub(crate) fn tell(&self, story: Story, heads: Heads) {
        let mut listeners = self.listeners.lock();
        let before = listeners.len();
        listeners.retain(|listener| !listener.sender.is_closed());
        if listeners.len() < before {
            self.listening.store(listeners.len(), Relaxed);
        }
        if !listeners.iter().any(|listener| listener.filter.takes(&story)) {
            return;
        }
        let tapped = Arc::new(Tapped { story, request_headers: heads.request, response_headers: heads.response });
        for listener in listeners.iter().filter(|listener| listener.filter.takes(&tapped.story)) {
            if listener.sender.try_send(Arc::clone(&tapped)).is_err() {
                listener.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The fields, with secrets left out.
fn redacted(headers: &HeaderMap) -> Fields {
    let shown = headers.iter().take(FIELDS_MAX).map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        (name.as_str().to_owned(), story::cut(&redact::field(name.as_str(), &text), VALUE_MAX).into())
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use lictor_core::story::Kept;

    use super::*;

    #[test]
    fn values_and_fields_are_bounded() {
        let mut headers = HeaderMap::new();
        for number in 0..200 {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            headers.insert(name, HeaderValue::try_from("v".repeat(5000)).unwrap());
        }
        let fields = redacted(&headers);
        assert!(fields.len() == FIELDS_MAX && fields.iter().all(|(_, value)| value.len() <= VALUE_MAX));
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_misses_requests_and_is_told_how_many() {
        let tap = Tap::default();
        let (mut slow, mut other) = (tap.listen(Filter::default()).unwrap(), tap.listen(Filter::default()).unwrap());
        for number in 0..AHEAD + 10 {
            tap.tell(Story::empty(&number.to_string(), Kept::Sampled), Heads::default());
            assert_eq!(&*other.next().await.unwrap().story.id, number.to_string());
        }
        assert_eq!((slow.missed(), slow.missed(), other.missed()), (10, 0, 0));
        assert_eq!(&*slow.next().await.unwrap().story.id, "0");
    }

    #[test]
    fn listeners_are_bounded_and_their_places_free_when_they_go() {
        let tap = Tap::default();
        let mut all: Vec<_> = (0..LISTENERS).map(|_| tap.listen(Filter::default()).unwrap()).collect();
        assert!(tap.is_on() && tap.listen(Filter::default()).is_none());
        all.pop();
        assert!(tap.listen(Filter::default()).is_some());
    }
}
