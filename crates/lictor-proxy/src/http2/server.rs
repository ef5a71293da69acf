//! A client's HTTP/2 connection: each request is answered by a task of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::body::{Body, Channel, Outgoing, Tunnel};
use super::driver::Driver;
use super::frame::Code;
use super::wire::{Event, Fatal, Wire};
use crate::body::ResponseBody;
use crate::forward::forward;
use crate::headers::{self, Fields};
use crate::http1::buffers::{self, ReadAhead};
use crate::incoming::RequestBody;
use crate::refused;
use crate::serve::Connection;
use crate::stall::Stall;
use crate::stream::Stream;

/// A client that is silent for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves requests until the client ends it, or, once `stop` is over, until those that it has sent are answered.
/// `read` is what was read from it before.
pub(crate) async fn serve(connection: Rc<Connection>, socket: Stream, read: ReadAhead, stop: impl Future<Output = ()>) {
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
                spawn_local(respond(Rc::clone(&connection), request, channel));
            }
            Some(Event::Refused(status, why, unanswered)) => {
                let id = refused::tell(&connection, "HTTP/2", status, why);
                if let Some(unanswered) = unanswered {
                    wire.borrow_mut().decline(unanswered, status, refused::reason(status), id.as_bytes());
                }
            }
        }
    }
    // A field block, and so a head, that could not be decoded ends the connection (RFC 9113, section 4.3).
    let fault = wire.borrow().fault;
    if let Some(Fatal(Code::COMPRESSION_ERROR, why)) = fault {
        refused::tell(&connection, "HTTP/2", StatusCode::BAD_REQUEST, why);
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

async fn respond(connection: Rc<Connection>, request: Request<()>, channel: Channel) {
    let channel = &channel;
    let is_head = *request.method() == Method::HEAD;
    let is_connect = *request.method() == Method::CONNECT;
    let (give, handover) = if is_connect { Some(oneshot::channel()).unzip() } else { (None, None) };
    let expects_continue =
        request.headers().get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body = Body::request(channel.clone(), expects_continue, handover);
    let response = {
        // Pinned where it is made: it is large.
        let mut forwarding = pin!(forward(connection, request.map(|()| RequestBody::Http2(body))));
        // First whether it is still wanted: a client that took it back at once has caused nothing then.
        poll_fn(|context| match channel.poll_broken(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => forwarding.as_mut().poll(context).map(Some),
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
        head(channel, &response, None, false);
        if let Some(give) = give {
            let _ = give.send(Stream::Http2(Box::new(Tunnel::new(channel.clone()))));
        }
        return;
    }
    let _ending = Ending(channel);
    answer(channel, response, is_head, stall).await;
}

async fn answer(channel: &Channel, mut response: Response<ResponseBody>, is_head: bool, mut stall: Stall) {
    let ids = response.body_mut().take_ids();
    let is_bodiless = is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_end = is_bodiless || response.body().is_end_stream();
    head(channel, &response, ids, is_end);
    buffers::give_fields(std::mem::take(response.headers_mut()));
    if !is_end {
        let mut body = Outgoing::new(response.into_body());
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

/// Writes an answer's head.
fn head(channel: &Channel, response: &Response<ResponseBody>, ids: Option<crate::body::Ids>, is_end: bool) {
    let (wire, stream) = (&mut *channel.wire.borrow_mut(), &mut *channel.stream.borrow_mut());
    wire.write_fields(stream, is_end, |fields| {
        fields.status(response.status());
        let length = response.body().size_hint().exact().filter(|length| *length > 0);
        if let Some(length) = length.filter(|_| !response.headers().contains_key(http::header::CONTENT_LENGTH)) {
            fields.number(b"content-length", length);
        }
        for (name, value) in response.headers() {
            fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
        if let Some(ids) = ids {
            ids.write(response.headers(), |name, value| fields.field(name.as_str().as_bytes(), value, false));
        }
    });
}

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub(crate) struct Interim(Channel);

impl Interim {
    pub(super) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// The client gets it before the final answer.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        let mut headers = headers.clone();
        let fields = Fields::of(&headers);
        headers::strip_hop_by_hop(&mut headers, fields, false);
        self.write(status, &headers);
    }

    pub(super) fn status(&self, status: StatusCode) {
        self.write(status, &HeaderMap::new());
    }

    fn write(&self, status: StatusCode, headers: &HeaderMap) {
        let (wire, stream) = (&mut *self.0.wire.borrow_mut(), &mut *self.0.stream.borrow_mut());
        if stream.broken.is_some() || stream.is_sent() || !wire.has_room() {
            return;
        }
        wire.write_fields(stream, false, |fields| {
            fields.status(status);
            for (name, value) in headers {
                fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            }
        });
    }
}
