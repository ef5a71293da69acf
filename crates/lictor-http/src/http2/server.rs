//! A client's HTTP/2 connection: each request is answered by a task of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::body::Body;
use super::channel::Channel;
use super::driver::Driver;
use super::frame::Code;
use super::outgoing::Outgoing;
use super::tunnel::Tunnel;
use super::wire::{Event, Fatal, Wire};
use crate::buffers::{self, ReadAhead};
use crate::error::Refused;
use crate::fields::{Fields, clean, expects_continue};
use crate::message::RequestBody;
use crate::service::{Answer, Answerer};
use crate::stall::Stall;
use crate::stream::Stream;

/// A client that is silent for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves requests until the client ends it, or, once `stop` is over, until those that it has sent are answered (GOAWAY; RFC
/// 9113, section 6.8). `read` is what was read from it before. Each request is answered on a task of its own, on the thread's
/// `LocalSet`; the connection may have 1000 at a time. A client that is silent for 30 s, and for 10 s more after a PING, is
/// left. Fields of an answer go out as they are: what belongs to HTTP/1.1's connections must be off before
/// ([`strip_hop_by_hop`](crate::fields::strip_hop_by_hop)).
pub async fn serve<A: Answerer>(answerer: Rc<A>, socket: Stream, read: ReadAhead, stop: impl Future<Output = ()>) {
    let mut driver = Driver::new(Wire::new(false), socket, read, SILENCE, false);
    let wire = Rc::clone(driver.wire());
    let mut stop = pin!(stop);
    let mut is_stopping = false;
    loop {
        let event = poll_fn(|context| {
            if !is_stopping && stop.as_mut().poll(context).is_ready() {
                is_stopping = true;
                wire.borrow_mut().shut_down();
            }
            driver.poll(context)
        });
        match event.await {
            None => break,
            Some(Event::Request(request, stream)) => {
                let channel = Channel { wire: Rc::clone(&wire), stream };
                spawn_local(respond(Rc::clone(&answerer), request, channel));
            }
            Some(Event::Refused(status, why, unanswered)) => {
                let response = answerer.refuse("HTTP/2", &Refused { status, why });
                if let Some(unanswered) = unanswered {
                    wire.borrow_mut().decline(unanswered, response.status(), response.headers());
                }
            }
        }
    }
    // A field block, and so a head, that could not be decoded ends the connection (RFC 9113, section 4.3).
    let fault = wire.borrow().fault;
    if let Some(Fatal(Code::COMPRESSION_ERROR, why)) = fault {
        let _ = answerer.refuse("HTTP/2", &Refused::bad(why)); // nobody can be answered any more
    }
    driver.close().await;
}

/// Whatever happens to an answer, the stream ends with it.
struct Ending<'a>(&'a Channel);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // To a client that has its answer, and still sends, NO_ERROR says that it may stop (RFC 9113, section 8.1).
        let is_sent = self.0.stream.borrow().is_sent();
        self.0.cancel(if is_sent { Code::NO_ERROR } else { Code::INTERNAL_ERROR });
    }
}

async fn respond<A: Answerer>(answerer: Rc<A>, mut request: Request<()>, channel: Channel) {
    let channel = &channel;
    let fields = Fields::of::<A::Marks>(request.headers());
    let fields = clean::<A::Marks>(request.headers_mut(), fields);
    let is_head = *request.method() == Method::HEAD;
    let is_connect = *request.method() == Method::CONNECT;
    let (give, handover) = if is_connect { Some(oneshot::channel()).unzip() } else { (None, None) };
    let expects_continue = fields.has(Fields::EXPECT) && expects_continue(request.headers());
    let body = Body::request(channel.clone(), expects_continue, handover);
    let response = {
        // Pinned where it is made: it is large.
        let mut answering = pin!(answerer.answer(request.map(|()| RequestBody::Http2(body)), fields));
        // First whether it is still wanted: a client that took it back at once has caused nothing then.
        poll_fn(|context| match channel.poll_broken(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => answering.as_mut().poll(context).map(Some),
        })
        .await
    };
    let Some(response) = response else { return channel.cancel(Code::CANCEL) };
    let mut stall = Stall::new(response.body().silence());
    let has_room = poll_fn(|context| match channel.poll_room(context) {
        Poll::Pending => stall.poll(0, context).map(|()| false),
        Poll::Ready(room) => Poll::Ready(room.is_ok()),
    });
    if !has_room.await {
        return channel.cancel(Code::CANCEL);
    }
    if is_connect && response.status().is_success() {
        let (head, body) = response.into_parts();
        write_head(channel, &head, body.size_hint().exact(), None::<&mut A::Body>, false);
        if let Some(give) = give {
            let _ = give.send(Tunnel::stream(channel.clone()));
        }
        return;
    }
    let _ending = Ending(channel);
    answer(channel, response, is_head, stall).await;
}

async fn answer(channel: &Channel, response: Response<impl Answer>, is_head: bool, mut stall: Stall) {
    let (head, mut body) = response.into_parts();
    let is_bodiless = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_end = is_bodiless || body.is_end_stream();
    write_head(channel, &head, body.size_hint().exact(), Some(&mut body), is_end);
    buffers::give_fields(head.headers);
    if !is_end {
        let mut body = Outgoing::new(body);
        // What else ended it early, the stream knows.
        poll_fn(|context| match body.poll(channel, context) {
            Poll::Pending if body.is_blocked() => {
                stall.poll(body.written(), context).map(|()| channel.cancel(Code::CANCEL))
            }
            ended => ended.map(|_| ()),
        })
        .await;
    }
}

/// Writes an answer's head, whose body, if it is known, is so long, and may have something to add.
fn write_head(channel: &Channel, head: &Parts, length: Option<u64>, body: Option<&mut impl Answer>, is_end: bool) {
    let (wire, stream) = (&mut *channel.wire.borrow_mut(), &mut *channel.stream.borrow_mut());
    stream.answered();
    wire.write_fields(stream, is_end, |fields| {
        fields.status(head.status);
        let length = length.filter(|length| *length > 0 && !head.headers.contains_key(CONTENT_LENGTH));
        if let Some(length) = length {
            fields.number(b"content-length", length);
        }
        for (name, value) in &head.headers {
            fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
        if let Some(body) = body {
            body.write_own(&head.headers, |name, value| fields.field(name.as_str().as_bytes(), value, false));
        }
    });
}
