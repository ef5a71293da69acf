//! A client's HTTP/1.1 connection: requests one after the other, each answered before the next is read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::body::Decoder;
use super::buffers::{self, ReadAhead};
use super::head::{self, Refused, RequestHead, Spelling};
use super::write::{Framing, Outgoing, TURN_MAX};
use crate::body::ResponseBody;
use crate::forward::forward;
use crate::headers::{self, Fields};
use crate::incoming::{BodyError, RequestBody};
use crate::refused;
use crate::respond;
use crate::serve::Connection;
use crate::stall::{Stall, poll_until};
use crate::stream::Stream;

/// A client must have sent its whole head within this: slow heads cost memory (slowloris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection may be idle between requests for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// What is read ahead of a request that is being answered: the ones that follow it (pipelining).
const PIPELINE_MAX: usize = 64 << 10;
/// What a client still sends when its answer says why not is read up to this, so that it reads the answer.
const LINGER_MAX: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);
/// Interim answers that wait for a client that does not read.
const INTERIM_MAX: usize = 64 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection, as its requests' bodies share it.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    read: ReadAhead,
    /// Of the request that is being answered.
    decoder: Decoder,
    to_continue: &'static [u8],
    /// Interim answers that are not written yet.
    interim: BytesMut,
    /// Requests so far: a body of an earlier one has nothing to read any more.
    number: u64,
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct Body {
    wire: Rc<RefCell<Wire>>,
    number: u64,
    size: SizeHint,
    pub(crate) spelling: Spelling,
    /// HTTP/1.0 has no interim answers.
    interim: Option<Interim>,
    /// The connection itself, once it has been told that it is upgraded.
    handover: Option<oneshot::Receiver<Stream>>,
}

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub(crate) struct Interim {
    wire: Weak<RefCell<Wire>>,
    number: u64,
}

impl Interim {
    /// The client gets it before the final answer, unless it has not read the ones before.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
        let Some(wire) = self.wire.upgrade() else { return };
        let wire = &mut *wire.borrow_mut();
        if wire.number != self.number || wire.interim.len() > INTERIM_MAX {
            return;
        }
        let mut headers = headers.clone();
        let fields = Fields::of(&headers);
        headers::strip_hop_by_hop(&mut headers, fields, false);
        let mut out = Outgoing::new();
        out.status_line(status, spelling);
        out.fields(&headers, spelling);
        out.end_head(Framing::None);
        wire.interim.extend_from_slice(out.gathered());
    }
}

/// What is known of a request when its answer is written.
struct Asked {
    is_head: bool,
    is_connect: bool,
    is_http10: bool,
    keeps_alive: bool,
    takes_trailers: bool,
}

/// Serves requests until one side has enough.
pub(crate) async fn serve(
    connection: Rc<Connection>,
    stream: Stream,
    read: ReadAhead,
    max_age: Option<Duration>,
    mut drain: watch::Receiver<bool>,
) {
    let is_draining = drain.clone();
    let draining = pin!(drain.wait_for(|is_draining| *is_draining));
    let wire = Wire { stream, read, decoder: Decoder::Done, to_continue: b"", interim: BytesMut::new(), number: 0 };
    let wire = Rc::new(RefCell::new(wire));
    let born = Instant::now();
    let mut waiting = Waiting { draining, sleep: None, limit: born };
    loop {
        let RequestHead { request, fields, spelling, length, keeps_alive, expects_continue, takes_trailers } =
            match waiting.head(&wire).await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(refused) => {
                    let id = refused::tell(&connection, "HTTP/1.1", refused.status, refused.why);
                    let mut out = Outgoing::new();
                    respond::refuse(&mut out, &refused, &id);
                    let _ = poll_fn(|context| out.poll_write(&mut wire.borrow_mut().stream, context)).await;
                    return linger(&wire).await;
                }
            };
        let asked = Asked {
            is_head: *request.method() == Method::HEAD,
            is_connect: *request.method() == Method::CONNECT,
            is_http10: request.version() == Version::HTTP_10,
            keeps_alive,
            takes_trailers,
        };
        let may_switch = asked.is_connect || fields.has(Fields::UPGRADE);
        let (give, handover) = if may_switch { Some(oneshot::channel()).unzip() } else { (None, None) };
        let body = {
            let mut wire_now = wire.borrow_mut();
            wire_now.decoder = Decoder::new(length);
            wire_now.to_continue = if expects_continue { CONTINUE } else { b"" };
            wire_now.number += 1;
            let interim = (!asked.is_http10).then(|| Interim { wire: Rc::downgrade(&wire), number: wire_now.number });
            Body {
                interim,
                number: wire_now.number,
                size: wire_now.decoder.size_hint(),
                wire: Rc::clone(&wire),
                spelling,
                handover,
            }
        };
        let request = request.map(|()| RequestBody::Http1(body));
        let response = {
            // Pinned where it is made: it is large, and moving it would cost more than most of what it does.
            let forwarding = pin!(forward(Rc::clone(&connection), request));
            unless_gone(&wire, forwarding).await
        };
        let Some(response) = response else { return };
        let is_last = *is_draining.borrow() || max_age.is_some_and(|age| born.elapsed() >= age) || !asked.keeps_alive;
        match answer(&wire, response, &asked, is_last).await {
            Ok(After::Next) => (),
            Ok(After::Close) => return linger(&wire).await,
            Ok(After::Over) => return over(&wire).await,
            Ok(After::Switch) => {
                let Some(wire) = Rc::into_inner(wire) else { return };
                let Wire { stream, mut read, .. } = wire.into_inner();
                if let Some(give) = give {
                    let _ = give.send(stream.after(std::mem::take(&mut read.bytes)));
                }
                return;
            }
            Err(_) => return,
        }
    }
}

/// Waiting for the next request.
struct Waiting<'a, D> {
    draining: Pin<&'a mut D>,
    /// Made when there is something to wait for, and set again only when it fires.
    sleep: Option<Pin<Box<Sleep>>>,
    limit: Instant,
}

impl<D: Future> Waiting<'_, D> {
    /// The next head; `None` when there is none any more.
    async fn head(&mut self, wire: &RefCell<Wire>) -> Result<Option<RequestHead>, Refused> {
        let mut has_begun = false;
        let mut is_timed = false;
        poll_fn(|context| {
            let wire = &mut *wire.borrow_mut();
            loop {
                if !wire.read.bytes.is_empty()
                    && let Some(head) = head::request(&mut wire.read.bytes)?
                {
                    return Poll::Ready(Ok(Some(head)));
                }
                let is_idle = wire.read.bytes.is_empty();
                match wire.read.poll_fill(&mut wire.stream, context) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                    Poll::Pending => (),
                }
                if is_idle && self.draining.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                if !is_timed || (!is_idle && !has_begun) {
                    (is_timed, has_begun) = (true, !is_idle);
                    self.limit = Instant::now() + if is_idle { IDLE_TIMEOUT } else { HEAD_TIMEOUT };
                    if !is_idle && let Some(sleep) = &mut self.sleep {
                        sleep.as_mut().reset(self.limit.into());
                    }
                }
                if is_idle {
                    wire.read.rest();
                }
                let late = Refused { status: StatusCode::REQUEST_TIMEOUT, why: "the request's head took too long" };
                return poll_until(&mut self.sleep, self.limit, context)
                    .map(|()| if is_idle { Ok(None) } else { Err(late) });
            }
        })
        .await
    }
}

/// The future's output, unless the client goes away before it is there.
async fn unless_gone<T>(wire: &RefCell<Wire>, mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let wire = &mut *wire.borrow_mut();
        match wire.poll_interim(context) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => wire.poll_gone(context).map(|()| None),
        }
    })
    .await
}

/// What follows an answer.
enum After {
    Next,
    /// The client may still be sending.
    Close,
    /// The client said that it sends no more.
    Over,
    /// The connection is not HTTP's any more.
    Switch,
}

/// Writes an answer.
async fn answer(
    wire: &Rc<RefCell<Wire>>,
    response: Response<ResponseBody>,
    asked: &Asked,
    is_last: bool,
) -> io::Result<After> {
    let (head, mut body) = response.into_parts();
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS || (asked.is_connect && head.status.is_success());
    let is_bodiless = asked.is_head
        || head.status.is_informational()
        || is_switch
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // What comes is as long as it says, but where nothing comes it is not what comes that says so.
    let told = if is_bodiless {
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
    } else {
        None
    };
    let mut framing = match told.or(body.size_hint().exact()) {
        Some(length) => Framing::Length(length),
        None if asked.is_http10 => Framing::UntilClose,
        None => Framing::Chunked,
    };
    let mut is_last = is_last || framing == Framing::UntilClose && !is_bodiless;
    // A body that nobody wanted to read stays in the way of what follows it.
    is_last |= !is_read(wire);
    poll_fn(|context| wire.borrow_mut().poll_interim(context)).await?;
    let mut out = Outgoing::new();
    out.status_line(head.status, body.spelling());
    out.fields(&head.headers, body.spelling());
    if let Some(ids) = body.take_ids() {
        ids.write(&head.headers, |name, value| out.line(name.as_str().as_bytes(), value));
    }
    if is_last && !is_switch {
        out.keep_alive(false);
    } else if asked.is_http10 && !is_switch {
        out.keep_alive(true);
    }
    // An answer without a body may still say how long the body of another would be.
    let is_known = told.is_some() || (asked.is_head && body.size_hint().exact().is_some_and(|length| length > 0));
    let shows_length = is_known && !is_switch && head.status != StatusCode::NO_CONTENT;
    out.end_head(if !is_bodiless || shows_length { framing } else { Framing::None });
    buffers::give_fields(head.headers);
    if is_bodiless {
        framing = Framing::None;
    }
    let mut is_whole = is_bodiless && body.is_end_stream();
    let mut is_broken = false;
    let mut stall = Stall::new(body.silence());
    poll_fn(|context| {
        let turn = out.written() + TURN_MAX;
        loop {
            let mut is_waiting = false;
            while !is_whole && !is_broken && !out.is_full() {
                match Pin::new(&mut body).poll_frame(context) {
                    Poll::Pending => {
                        is_waiting = true;
                        break;
                    }
                    Poll::Ready(Some(Ok(frame))) => match add(&mut out, &mut framing, frame, asked.takes_trailers) {
                        Ok(is_end) => is_whole |= is_end,
                        Err(_) => is_broken = true,
                    },
                    Poll::Ready(Some(Err(_))) => is_broken = true,
                    Poll::Ready(None) => {
                        is_broken = out.end(framing, None).is_err();
                        is_whole = true;
                    }
                }
            }
            let wire = &mut *wire.borrow_mut();
            let Poll::Ready(written) = out.poll_write(&mut wire.stream, context) else {
                ready!(stall.poll(out.written(), context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            written?;
            if is_whole || is_broken {
                return Poll::Ready(io::Result::Ok(()));
            }
            if out.written() > turn {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if is_waiting {
                ready!(wire.poll_gone(context));
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    })
    .await?;
    drop(body);
    Ok(match () {
        () if is_broken => return Err(io::ErrorKind::UnexpectedEof.into()),
        () if is_switch => After::Switch,
        () if !is_read(wire) => After::Close,
        () if !asked.keeps_alive => After::Over,
        () if is_last => After::Close,
        () => After::Next,
    })
}

/// Whether the request's body is read to its end; what has come of one that nobody wants is thrown away.
fn is_read(wire: &Rc<RefCell<Wire>>) -> bool {
    let is_unwanted = Rc::strong_count(wire) == 1;
    let wire = &mut *wire.borrow_mut();
    while is_unwanted && matches!(wire.decoder.decode(&mut wire.read.bytes), Ok(Some(_))) {}
    wire.decoder.is_done()
}

/// Adds a part of the body; true when it was the last.
fn add(
    out: &mut Outgoing,
    framing: &mut Framing,
    frame: Frame<Bytes>,
    takes_trailers: bool,
) -> Result<bool, super::write::WrongLength> {
    match frame.into_data() {
        Ok(data) => out.data(framing, data).map(|()| false),
        Err(frame) => {
            let trailers = frame.into_trailers().ok().filter(|_| takes_trailers);
            out.end(*framing, trailers.as_ref()).map(|()| true)
        }
    }
}

/// Closing is all that is left, where TLS need not say so first (RFC 8446, section 6.1).
async fn over(wire: &RefCell<Wire>) {
    let is_encrypted = wire.borrow().stream.is_encrypted();
    if is_encrypted {
        let _ = tokio::time::timeout(LINGER, shutdown(wire)).await; // it has its answer, or does not read it
    }
}

async fn shutdown(wire: &RefCell<Wire>) -> io::Result<()> {
    use tokio::io::AsyncWrite;
    poll_fn(|context| Pin::new(&mut wire.borrow_mut().stream).poll_shutdown(context)).await
}

/// Lets the client read its answer before what it still sends makes the kernel reset the connection.
async fn linger(wire: &RefCell<Wire>) {
    let mut left = LINGER_MAX;
    let lingering = async {
        if shutdown(wire).await.is_err() {
            return;
        }
        poll_fn(|context| {
            let wire = &mut *wire.borrow_mut();
            while left > 0 {
                wire.read.bytes.clear();
                match ready!(wire.read.poll_fill(&mut wire.stream, context)) {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    Ok(0) | Err(_) => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    };
    let _ = tokio::time::timeout(LINGER, lingering).await; // it had its time
}

impl Wire {
    /// Writes what there is of interim answers.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        use tokio::io::AsyncWrite;
        while !self.interim.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.interim))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has gone. Until its body is read that is the body's reader's to find out.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.decoder.is_done() && self.read.bytes.len() < PIPELINE_MAX {
            match ready!(self.read.poll_fill(&mut self.stream, context)) {
                Ok(1..) => (),
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        use tokio::io::AsyncWrite;
        while !self.to_continue.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, self.to_continue)) {
                Ok(count @ 1..) => self.to_continue = &self.to_continue[count..],
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BodyError::Cut))),
            }
        }
        loop {
            match self.decoder.decode(&mut self.read.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => (),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.read.poll_fill(&mut self.stream, context)) {
                Ok(1..) => (),
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BodyError::Cut))),
            }
        }
    }
}

impl Body {
    /// Where interim answers go.
    pub(crate) fn interim(&mut self) -> Option<Interim> {
        self.interim.take()
    }

    /// The connection's bytes, once an upgrade or CONNECT was granted.
    pub(crate) fn handover(&mut self) -> Option<oneshot::Receiver<Stream>> {
        self.handover.take()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let wire = &mut *self.wire.borrow_mut();
        if wire.number == self.number {
            wire.poll_frame(context)
        } else {
            Poll::Ready(Some(Err(BodyError::Superseded)))
        }
    }

    fn is_end_stream(&self) -> bool {
        let wire = self.wire.borrow();
        wire.number != self.number || wire.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
