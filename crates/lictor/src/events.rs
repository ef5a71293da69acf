//! State changes that a person should see, kept for `/events`: whatever is logged to the target `lictor::event`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The target that makes a log line an event.
const TARGET: &str = "lictor::event";
const KEPT: usize = 256;
const LISTENERS: usize = 16;

/// The latest events, and whoever listens for more.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    kept: Arc<Mutex<(u64, VecDeque<Arc<Json>>)>>,
    live: broadcast::Sender<Arc<Json>>,
}

/// What a listener gets.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) kept: Vec<Arc<Json>>,
    pub(crate) live: broadcast::Receiver<Arc<Json>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { kept: Arc::default(), live: broadcast::Sender::new(KEPT) }
    }

    /// The latest ones, and those to come; none is missed between the two. `None` when too many listen already.
    pub(crate) fn subscribe(&self) -> Option<Subscription> {
        let kept = self.kept.lock();
        let is_free = self.live.receiver_count() < LISTENERS;
        is_free.then(|| Subscription { kept: kept.1.iter().cloned().collect(), live: self.live.subscribe() })
    }

    fn add(&self, mut event: Map<String, Json>) {
        let mut kept = self.kept.lock();
        kept.0 += 1;
        event.insert("id".to_owned(), json!(kept.0));
        event.insert("timestamp".to_owned(), json!(humantime::format_rfc3339_millis(SystemTime::now()).to_string()));
        let event = Arc::new(Json::Object(event));
        if kept.1.len() == KEPT {
            kept.1.pop_front();
        }
        kept.1.push_back(Arc::clone(&event));
        let _ = self.live.send(event); // nobody may be listening
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
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
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
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn only_events_are_kept_and_only_so_many() {
        let events = Events::new();
        let subscriber = tracing_subscriber::registry().with(EventLayer::filtered(events.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("an ordinary line");
            for number in 0..300_u64 {
                tracing::warn!(target: "lictor::event", kind = "test", number, "happened");
            }
        });
        let kept = events.subscribe().unwrap().kept;
        assert_eq!(kept.len(), KEPT);
        let last = &kept[KEPT - 1];
        assert_eq!((last["id"].as_u64(), last["number"].as_u64()), (Some(300), Some(299)));
        assert_eq!((last["kind"].as_str(), last["level"].as_str()), (Some("test"), Some("WARN")));
    }

    #[test]
    fn listeners_see_what_comes_and_are_not_too_many() {
        let events = Events::new();
        let mut listeners: Vec<_> = (0..LISTENERS).map(|_| events.subscribe().unwrap().live).collect();
        assert!(events.subscribe().is_none());
        events.add(Map::from_iter([("kind".to_owned(), json!("test"))]));
        assert_eq!(listeners[3].try_recv().unwrap()["kind"], "test");
        listeners.pop();
        assert_eq!(events.subscribe().unwrap().kept.len(), 1, "the kept one comes first");
    }
}
