//! What is told as it comes: server-sent events (HTML, section 9.2).

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use lictor_consul::{ConsulError, Ended, Held, Looking as Known};
use lictor_core::plain;
use lictor_proxy::Tapping;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::admin::live::Looking;
use crate::admin::reply::{self, Body};
use crate::events::{Event, Subscription};

/// A comment this often tells that the connection works.
const HEARTBEAT: Duration = Duration::from_secs(15);
const STILL_HERE: &[u8] = b": still here\n\n";
const AHEAD: usize = 16;

/// What who is answered for long is told when a reload ends that.
pub(super) const CLOSED: &str = "the configuration allows it no more";

/// Those kept, then those to come, for as long as the client listens.
pub(super) fn events(subscription: Subscription) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(feed(subscription, sender));
    reply::of("text/event-stream", Receiver(receiver).boxed_unsync())
}

/// Requests as they end, for as long as the client listens.
pub(super) fn tap(tapping: Tapping) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(feed_tap(tapping, sender));
    reply::of("text/event-stream", Receiver(receiver).boxed_unsync())
}

/// A frame a second, for as long as the client looks.
pub(super) fn live(looking: Looking) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(feed_live(looking, sender));
    reply::of("text/event-stream", Receiver(receiver).boxed_unsync())
}

/// What is known, whenever it is shown as something else than before (in one line), for as long as the client listens, Consul does
/// not refuse, and it is not closed.
pub(super) fn documents<V: Clone + Send + Sync + 'static>(
    looking: Known<V>,
    kind: &'static str,
    show: impl Fn(&V) -> String + Send + 'static,
    closed: impl Future<Output = ()> + Send + 'static,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1); // they may be large, and the latest is the one that counts
    tokio::spawn(feed_documents(looking, kind, show, closed, sender));
    reply::of("text/event-stream", Receiver(receiver).boxed_unsync())
}

/// That a lock is held, and then its end, for as long as the client holds it by listening and it is not closed.
pub(super) fn lock(held: Held, page: Json, closed: impl Future<Output = ()> + Send + 'static) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(feed_lock(held, page, closed, sender));
    reply::of("text/event-stream", Receiver(receiver).boxed_unsync())
}

async fn feed_documents<V: Clone>(
    mut looking: Known<V>,
    kind: &'static str,
    show: impl Fn(&V) -> String,
    closed: impl Future<Output = ()>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut closed = pin!(closed);
    let mut last = None;
    let end = |message: &str| event("", "error", &json!({ "status": "error", "message": message }));
    loop {
        let (next, is_end) = tokio::select! {
            biased;
            () = sender.closed() => return,
            () = &mut closed => (end(CLOSED), true),
            known = looking.next() => match known {
                Ok(known) => {
                    let next = event("", kind, &show(&known));
                    if last.replace(next.clone()).as_ref() == Some(&next) {
                        continue;
                    }
                    (next, false)
                }
                Err(error) => (end(&words(&error)), true),
            },
            () = sleep(HEARTBEAT) => (Bytes::from_static(STILL_HERE), false),
        };
        // Who does not read is not waited for when it ends.
        let is_sent = tokio::select! {
            sent = sender.send(next) => sent.is_ok(),
            () = &mut closed, if !is_end => false,
        };
        if is_end || !is_sent {
            return;
        }
    }
}

async fn feed_lock(mut held: Held, page: Json, closed: impl Future<Output = ()>, sender: mpsc::Sender<Bytes>) {
    let mut closed = pin!(closed);
    let mut next = event("", "held", &page);
    loop {
        // Who does not read holds it no longer than others.
        let is_sent = tokio::select! {
            sent = sender.send(next) => sent.is_ok(),
            () = &mut closed => return,
        };
        if !is_sent {
            return;
        }
        let ended = tokio::select! {
            biased;
            () = sender.closed() => return,
            ended = held.ended() => ended,
            () = &mut closed => Ended::Lost(CLOSED.to_owned()),
            () = sleep(HEARTBEAT) => {
                next = Bytes::from_static(STILL_HERE);
                continue;
            }
        };
        let end = match ended {
            Ended::Released => event("", "released", &json!({ "name": page["name"] })),
            Ended::Lost(reason) => event("", "lost", &json!({ "name": page["name"], "reason": reason })),
        };
        let _ = sender.send(end).await; // the client may have gone
        return;
    }
}

async fn feed_live(mut looking: Looking, sender: mpsc::Sender<Bytes>) {
    loop {
        let next = tokio::select! {
            biased;
            () = sender.closed() => return,
            frame = looking.next() => frame,
        };
        let Some(frame) = next else { return };
        let event = [b"event: frame\ndata: ", frame.json.as_ref(), b"\n\n"].concat();
        if sender.send(event.into()).await.is_err() {
            return;
        }
    }
}

async fn feed_tap(mut tapping: Tapping, sender: mpsc::Sender<Bytes>) {
    // At once: the client sees that it listens.
    let mut next = Bytes::from_static(b": listening\n\n");
    while sender.send(next).await.is_ok() {
        let missed = tapping.missed();
        next = if missed > 0 {
            Bytes::from(format!("event: dropped\ndata: {{\"dropped\":{missed}}}\n\n"))
        } else {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                tapped = tapping.next() => match tapped {
                    Some(tapped) => event("", "request", &serde_json::json!(*tapped)),
                    None => return,
                },
                () = sleep(HEARTBEAT) => Bytes::from_static(STILL_HERE),
            }
        };
    }
}

async fn feed(mut subscription: Subscription, sender: mpsc::Sender<Bytes>) {
    loop {
        let next = match subscription.next() {
            Some((missed, event)) => frame(missed, &subscription.mark(&event), &event),
            None => tokio::select! {
                biased;
                () = sender.closed() => return,
                () = subscription.changed() => continue,
                () = sleep(HEARTBEAT) => Bytes::from_static(STILL_HERE),
            },
        };
        if sender.send(next).await.is_err() {
            return;
        }
    }
}

/// What the application is told of Consul's word.
pub(super) fn words(error: &ConsulError) -> String {
    match error {
        error if error.is_denied() => format!("the Consul token of this sidecar may not: {error}"),
        error if error.is_mistaken() => {
            format!("Consul cannot read a name or the filter (it takes no characters that cannot be printed): {error}")
        }
        _ => error.to_string(),
    }
}

/// The data is JSON of one line.
fn event(id: &str, kind: &str, data: &(impl Display + ?Sized)) -> Bytes {
    Bytes::from(plain::lines(&format!("{id}event: {kind}\ndata: {data}\n\n")).into_owned())
}

fn frame(missed: u64, mark: &str, event: &Event) -> Bytes {
    let missed = if missed > 0 { format!(": {missed} events were missed\n\n") } else { String::new() };
    self::event(&format!("{missed}id: {mark}\n"), &event.kind, &event.json)
}

/// A body that is sent as it comes.
struct Receiver(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Receiver {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::events::{EventLayer, Events, KEPT};

    async fn next(body: &mut Body) -> String {
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn happen(events: &Events, times: usize) {
        let subscriber = tracing_subscriber::registry().with(EventLayer::filtered(events.clone()));
        tracing::subscriber::with_default(subscriber, || {
            (0..times).for_each(|_| tracing::info!(target: "lictor::event", kind = "test", "happened"));
        });
    }

    #[tokio::test]
    async fn kept_events_come_first_and_then_the_live_ones() {
        let kept = Events::new();
        happen(&kept, 1);
        let mut body = events(kept.subscribe(None).unwrap()).into_body();
        let first = next(&mut body).await;
        assert!(first.starts_with(&format!("id: {}\nevent: test\ndata: {{", kept.mark(1))), "{first}");
        assert!(first.contains("\"id\":1,") && first.ends_with("}\n\n"), "{first}");
        happen(&kept, KEPT + 3);
        let later = next(&mut body).await;
        let expected = format!(": 3 events were missed\n\nid: {}\nevent: test\n", kept.mark(5));
        assert!(later.starts_with(&expected), "{later}");
    }

    #[tokio::test]
    async fn a_listener_that_goes_frees_its_place() {
        let kept = Events::new();
        while let Some(subscription) = kept.subscribe(None) {
            drop(events(subscription));
        }
        while kept.subscribe(None).is_none() {
            tokio::task::yield_now().await;
        }
    }
}
