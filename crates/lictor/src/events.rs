//! State changes that a person should see, kept for `/events` and `lictor events`: whatever is logged to the target
//! `lictor::event`. They are kept as the JSON that they are told as, bounded in number and in bytes, and nobody who listens
//! has a queue of his own: he has a place among those that are kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lictor_core::story::cut;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event as Line, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The target that makes a log line an event.
const TARGET: &str = "lictor::event";
pub(crate) const KEPT: usize = 500;
/// Of all that are kept, as they are told.
const BYTES: usize = 256 << 10;
/// The longest text of a member, in bytes.
const TEXT: usize = 1 << 10;
const LISTENERS: usize = 16;

/// The latest events, and whoever listens for more.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    kept: Arc<Mutex<Ring>>,
    /// The newest one's id.
    newest: watch::Sender<u64>,
    /// Seconds since 1970: ids begin anew with each process.
    began: u64,
}

/// They are in the order of their ids, without gaps.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    newest: u64,
    bytes: usize,
    /// When the last of those was that are kept no more.
    forgotten: Option<Instant>,
}

/// One change.
#[derive(Debug)]
pub(crate) struct Event {
    /// Grows by one.
    pub(crate) id: u64,
    pub(crate) kind: Box<str>,
    /// All of it, in one line.
    pub(crate) json: Box<str>,
    at: Instant,
}

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// After the event with this id.
    Id(u64),
    /// So long ago.
    Time(Duration),
}

/// Some of those that are kept.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) newest: u64,
    /// None of what was asked for is kept no more.
    pub(crate) is_whole: bool,
}

/// Somebody's place among them.
#[derive(Debug)]
pub(crate) struct Subscription {
    events: Events,
    after: u64,
    newest: watch::Receiver<u64>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { kept: Arc::default(), newest: watch::Sender::new(0), began }
    }

    /// Those that are kept and those to come, as somebody asks; `None` when too many listen already.
    pub(crate) fn subscribe(&self, since: Option<Since>) -> Option<Subscription> {
        let kept = self.kept.lock();
        let is_free = self.newest.receiver_count() < LISTENERS;
        let after = || kept.after(since);
        is_free.then(|| Subscription { events: self.clone(), after: after(), newest: self.newest.subscribe() })
    }

    /// Those that are kept, the oldest first.
    pub(crate) fn told(&self, since: Option<Since>) -> Told {
        let kept = self.kept.lock();
        let after = kept.after(since);
        let is_whole = match since {
            Some(Since::Time(time)) => kept.forgotten.is_none_or(|at| at.elapsed() > time),
            Some(Since::Id(id)) if id <= kept.newest => kept.oldest() <= id + 1,
            Some(Since::Id(_)) | None => kept.forgotten.is_none(),
        };
        Told { events: kept.events.iter().skip(kept.place(after)).cloned().collect(), newest: kept.newest, is_whole }
    }

    /// As a listener is told it, and says it when he comes again (`Last-Event-ID`): to another process it means nothing.
    pub(crate) fn mark(&self, id: u64) -> String {
        format!("{}-{id}", self.began)
    }

    /// `17`, `1796083200-17` or `10m`.
    pub(crate) fn since(&self, text: &str) -> Option<Since> {
        let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some((began, id)) = text.split_once('-') {
            let (began, id): (u64, u64) = (number(began)?, number(id)?);
            return Some(Since::Id(if began == self.began { id } else { 0 }));
        }
        number(text).map(Since::Id).or_else(|| humantime::parse_duration(text).ok().map(Since::Time))
    }

    fn add(&self, mut event: Map<String, Json>) {
        let mut kept = self.kept.lock();
        let id = kept.newest + 1;
        // What the line is about may have an id of its own: a saga, a registration.
        if let Some(subject) = event.insert("id".to_owned(), json!(id)) {
            event.insert("subject".to_owned(), subject);
        }
        event.insert("timestamp".to_owned(), json!(humantime::format_rfc3339_millis(SystemTime::now()).to_string()));
        let kind = event.get("kind").and_then(Json::as_str).unwrap_or("event").into();
        let json = Json::Object(event).to_string().into_boxed_str();
        kept.push(Event { id, kind, json, at: Instant::now() });
        self.newest.send_replace(id);
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        self.newest = event.id;
        self.bytes += event.json.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > KEPT || self.bytes > BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.json.len();
            self.forgotten = Some(oldest.at);
        }
    }

    fn oldest(&self) -> u64 {
        self.newest + 1 - self.events.len() as u64
    }

    /// The id before the first that is asked for. One that there never was is of an earlier process: then it is all of them.
    fn after(&self, since: Option<Since>) -> u64 {
        let before_all = self.oldest() - 1;
        match since {
            None => before_all,
            Some(Since::Id(id)) if id > self.newest => before_all,
            Some(Since::Id(id)) => id,
            Some(Since::Time(time)) => {
                before_all + self.events.partition_point(|event| event.at.elapsed() > time) as u64
            }
        }
    }

    /// Where the first after this id stands.
    fn place(&self, after: u64) -> usize {
        (after + 1).saturating_sub(self.oldest()) as usize
    }
}

impl Subscription {
    /// The next one, if there is one already, and how many before it were forgotten unseen.
    pub(crate) fn next(&mut self) -> Option<(u64, Arc<Event>)> {
        let kept = self.events.kept.lock();
        let event = Arc::clone(kept.events.get(kept.place(self.after))?);
        let missed = event.id - self.after - 1;
        self.after = event.id;
        Some((missed, event))
    }

    /// Waits until there may be one.
    pub(crate) async fn changed(&mut self) {
        let after = self.after;
        let _ = self.newest.wait_for(|newest| *newest > after).await; // whom it listens to it has itself
    }

    /// See [`Events::mark`].
    pub(crate) fn mark(&self, event: &Event) -> String {
        self.events.mark(event.id)
    }
}

/// Collects them.
#[derive(Debug)]
pub(crate) struct EventLayer(Events);

impl EventLayer {
    /// Sees events only: what it would ignore is not even put together, whatever is logged elsewhere.
    pub(crate) fn filtered<S>(events: Events) -> impl Layer<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_event = FilterFn::new(|metadata| metadata.target() == TARGET);
        Self(events).with_filter(is_event.with_max_level_hint(LevelFilter::INFO))
    }
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Line<'_>, _: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        fields.0.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        event.record(&mut fields);
        self.0.add(fields.0);
    }
}

struct Fields(Map<String, Json>);

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(cut(value, TEXT)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(cut(&format!("{value:?}"), TEXT)));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn add(events: &Events, text: &str) {
        events.add(Map::from_iter([("kind".to_owned(), json!("test")), ("message".to_owned(), json!(text))]));
    }

    fn ids(told: &Told) -> Vec<u64> {
        told.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn only_events_are_kept_and_only_so_many() {
        let events = Events::new();
        let subscriber = tracing_subscriber::registry().with(EventLayer::filtered(events.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("an ordinary line");
            for number in 0..600_u64 {
                tracing::warn!(target: "lictor::event", kind = "test", number, "happened");
            }
        });
        let kept = events.told(None);
        assert_eq!((kept.events.len(), kept.newest, kept.is_whole), (KEPT, 600, false));
        let last: Json = serde_json::from_str(&kept.events[KEPT - 1].json).unwrap();
        assert_eq!((last["id"].as_u64(), last["number"].as_u64()), (Some(600), Some(599)));
        assert_eq!((last["kind"].as_str(), last["level"].as_str()), (Some("test"), Some("WARN")));
    }

    #[test]
    fn what_a_line_calls_its_id_is_its_subject() {
        let events = Events::new();
        events.add(Map::from_iter([("kind".to_owned(), json!("saga_left")), ("id".to_owned(), json!("order-7"))]));
        let told: Json = serde_json::from_str(&events.told(None).events[0].json).unwrap();
        assert_eq!((&told["id"], &told["subject"]), (&json!(1), &json!("order-7")));
    }

    #[test]
    fn what_is_long_is_cut_and_all_of_it_has_a_bound_in_bytes() {
        let events = Events::new();
        let subscriber = tracing_subscriber::registry().with(EventLayer::filtered(events.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..KEPT {
                let (text, other) = ("\u{1}".repeat(100_000), "x".repeat(100_000));
                tracing::warn!(target: "lictor::event", kind = "test", text, %other, "happened");
            }
        });
        let kept = events.told(None);
        let bytes: usize = kept.events.iter().map(|event| event.json.len()).sum();
        assert!(bytes <= BYTES && bytes > BYTES / 2 && !kept.is_whole, "{bytes}");
        assert_eq!((kept.newest, kept.events.last().unwrap().id), (KEPT as u64, KEPT as u64));
    }

    #[test]
    fn since_when_is_an_id_or_a_time() {
        let events = Events::new();
        for (text, since) in [
            ("17", Some(Since::Id(17))),
            ("0", Some(Since::Id(0))),
            ("10m", Some(Since::Time(Duration::from_secs(600)))),
            (events.mark(5).as_str(), Some(Since::Id(5))),
            ("1-5", Some(Since::Id(0))), // another process said so
            ("", None),
            ("soon", None),
            ("-5", None),
            ("5-", None),
            ("+5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(events.since(text), since, "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_told_and_whether_that_is_all_of_it() {
        let events = Events::new();
        let hour = Some(Since::Time(Duration::from_secs(3600)));
        for since in [None, hour, Some(Since::Id(0)), Some(Since::Id(7))] {
            let told = events.told(since);
            assert!(told.events.is_empty() && told.is_whole && told.newest == 0, "{since:?}: {told:?}");
        }
        (0..3).for_each(|_| add(&events, ""));
        for (since, expected) in [
            (None, &[1, 2, 3][..]),
            (hour, &[1, 2, 3]),
            (Some(Since::Time(Duration::ZERO)), &[]),
            (Some(Since::Id(0)), &[1, 2, 3]),
            (Some(Since::Id(2)), &[3]),
            (Some(Since::Id(3)), &[]),
            (Some(Since::Id(4)), &[1, 2, 3]), // of an earlier process
        ] {
            let told = events.told(since);
            assert_eq!((ids(&told).as_slice(), told.is_whole), (expected, true), "{since:?}");
        }
        (0..KEPT).for_each(|_| add(&events, ""));
        for (since, is_whole) in [(None, false), (hour, false), (Some(Since::Id(2)), false), (Some(Since::Id(3)), true)]
        {
            let told = events.told(since);
            assert_eq!((told.is_whole, told.events.len(), told.newest), (is_whole, KEPT, 503), "{since:?}");
        }
        assert!(events.told(Some(Since::Time(Duration::ZERO))).is_whole);
    }

    #[test]
    fn listeners_see_what_comes_and_what_they_missed_and_are_not_too_many() {
        let events = Events::new();
        let mut listeners: Vec<_> = (0..LISTENERS).map(|_| events.subscribe(None).unwrap()).collect();
        assert!(events.subscribe(None).is_none());
        assert!(listeners[3].next().is_none());
        add(&events, "first");
        let (missed, event) = listeners[3].next().unwrap();
        assert_eq!((missed, event.id, &*event.kind), (0, 1, "test"));
        (0..=KEPT).for_each(|_| add(&events, ""));
        assert_eq!(listeners[3].next().map(|(missed, event)| (missed, event.id)), Some((1, 3)));
        listeners.pop();
        let mut late = events.subscribe(Some(Since::Id(1))).unwrap();
        assert_eq!(late.next().map(|(missed, event)| (missed, event.id)), Some((1, 3)), "he has missed one");
    }
}
