//! Copies of a gateway's requests, to somebody whose answers nobody waits for.
//!
//! A copy is sent once its request's body is whole, by a task of its own, as a request to an upstream of its own: with `Host`,
//! counts, breaker and connections of that, once, and not logged. What may wait is bounded: bodies by `body_max`, copies by
//! `max_running`, their time and what is read of their answers by what is here. Neither streams nor upgrades are copied.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use lictor_core::deadline::End;
use lictor_core::gateway::Mirror;
use lictor_core::{Reason, redact};
use lictor_http::RequestBody;
use lictor_http::fields::{Fields, told_length};

use super::call::Call;
use super::ending::ResponseBody;
use super::replay::Sees;
use crate::admission::routed::{Mirrored, Routed};
use crate::books::record::Record;
use crate::clock;
use crate::names::{self, X_REQUEST_ID};
use crate::world::client::Connection;

/// From its begin to its answer's end.
const WITHIN: Duration = Duration::from_secs(30);
/// What is read of an answer, in bytes; then its connection is closed.
const ANSWER_MAX: usize = 1 << 20;

/// An answer on its way.
pub(super) type Forwarding = Pin<Box<dyn Future<Output = Response<ResponseBody>>>>;
/// Who sends a copy.
type Forward = fn(Rc<Connection>, Request<RequestBody>, Fields, Box<Routed>) -> Forwarding;

/// A copy whose body still comes.
#[derive(Debug)]
struct Copy {
    label: Arc<str>,
    request: Request<()>,
    body: BytesMut,
    /// `None` once it is too long.
    place: Option<Place>,
    forward: Forward,
}

/// A place among the copies.
#[derive(Debug)]
struct Place {
    connection: Rc<Connection>,
    mirror: Arc<Mirror>,
    is_counted: bool,
}

impl Place {
    fn count(&mut self, outcome: &'static str) {
        self.connection.worker.shared.metrics.mirrored(&self.mirror.upstream, outcome);
        self.is_counted = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_counted {
            self.count("unread"); // its request's body had no end
        }
        self.mirror.running.leave();
    }
}

/// Begins a copy of a request that is about to be sent, if it is one of those and there is room.
pub(super) fn begin(connection: &Rc<Connection>, mirrored: Mirrored, call: &Call, record: &Record, forward: Forward) {
    let (worker, mirror) = (&connection.worker, &mirrored.mirror);
    if call.upgrade.is_some() || call.is_grpc || worker.chance() >= mirror.share {
        return;
    }
    if told_length(&call.head.headers).is_some_and(|length| length > mirror.body_max as u64) {
        return worker.shared.metrics.mirrored(&mirror.upstream, "too_long");
    }
    if !mirror.running.enter(mirror.max_running) {
        return worker.shared.metrics.mirrored(&mirror.upstream, "busy");
    }
    let place = Some(Place { connection: Rc::clone(connection), mirror: Arc::clone(mirror), is_counted: false });
    let mut request = Request::new(());
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = call.head.uri.clone();
    *request.version_mut() = call.head.version;
    *request.headers_mut() = head(&call.head.headers, mirror.shows_credentials);
    // It is told by the same id, and is a child of the same trace.
    let headers = request.headers_mut();
    headers.insert(X_REQUEST_ID, record.request_id.to_value());
    record.trace.fields(&worker.view().mesh.trace, |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name.clone(), value);
        }
    });
    call.body.show(Box::new(Copy { label: mirrored.label, request, body: BytesMut::new(), place, forward }));
}

/// The client's fields that go along.
fn head(headers: &HeaderMap, shows_credentials: bool) -> HeaderMap {
    let is_framing =
        |name: &HeaderName| [CONNECTION, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING].contains(name);
    let is_shown = |name: &HeaderName| shows_credentials || redact::field(name.as_str(), "") != redact::STARS;
    let fields = headers.iter().filter(|(name, _)| !is_framing(name) && is_shown(name));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Sees for Copy {
    fn data(&mut self, data: &Bytes) {
        let Some(place) = &mut self.place else { return };
        if self.body.len() + data.len() <= place.mirror.body_max {
            return self.body.extend_from_slice(data);
        }
        place.count("too_long");
        (self.place, self.body) = (None, BytesMut::new());
    }

    fn end(self: Box<Self>) {
        let Self { label, request, body, place, forward } = *self;
        if let Some(place) = place {
            let body = RequestBody::Whole(body.freeze());
            tokio::task::spawn_local(send(place, label, request.map(|()| body), forward));
        }
    }
}

/// Sends a copy, and lets its answer go.
async fn send(mut place: Place, label: Arc<str>, mut request: Request<RequestBody>, forward: Forward) {
    place.count("sent");
    let fields = names::fields_of(request.headers_mut());
    let Some(target) = request.uri().path_and_query().cloned() else { return };
    let Mirror { upstream, index, .. } = &*place.mirror;
    let (upstream, index) = (Arc::clone(upstream), *index);
    let routed = Box::new(Routed {
        call: None,
        upstream,
        label,
        index,
        has_policy: true,
        expires: None,
        target,
        stripped: None,
        split: None,
        mirror: None,
        is_copy: true,
    });
    let end = End { at: Instant::now() + WITHIN, reason: Reason::Timeout };
    let _ = clock::within(Some(end), async {
        let mut body = forward(Rc::clone(&place.connection), request, fields, routed).await.into_body();
        let mut read = 0;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > ANSWER_MAX {
                return;
            }
        }
    })
    .await;
}
