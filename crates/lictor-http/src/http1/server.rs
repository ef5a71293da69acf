//! A client's HTTP/1.1 connection: requests one after the other, each answered before the next is read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Frame;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use super::body::Decoder;
use super::head::{self, RequestHead};
use super::incoming::{Body, Wire};
use super::write::{Framing, Outgoing, TURN_MAX, WrongLength};
use crate::buffers::{self, ReadAhead};
use crate::error::Refused;
use crate::fields::{Fields, Marks, told_length};
use crate::message::RequestBody;
use crate::service::{Answer, Answerer};
use crate::sniff::is_anothers;
use crate::spelling::Spelling;
use crate::stall::{Stall, poll_until};
use crate::stream::Stream;

/// A client must have sent its whole head within this: slow heads cost memory (slowloris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection may be idle between requests for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// What a client still sends when its answer says why not is read up to this, so that it reads the answer.
const LINGER_MAX: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);
/// Requests in a row, after which the worker's other tasks have their turn: what was sent ahead, and is answered at once, waits
/// for nothing.
const TURN: u32 = 32;

/// What is known of a request when its answer is written.
struct Asked {
    is_head: bool,
    is_connect: bool,
    is_http10: bool,
    keeps_alive: bool,
    takes_trailers: bool,
}

/// Serves requests until one side has enough: the client, or, once `drain` says so (or has no sender any more), the
/// [`Answerer`] leaves or the connection is older than `max_age` (`None`: never), we, with the answer to the request that runs
/// then; at `drain` also without one, where none runs. `read` is what was
/// read from it before. A head has 30 s, a connection may be idle for an hour, and a client that takes nothing of its answer
/// is left after [`Answer::silence`].
pub async fn serve<A: Answerer>(
    answerer: Rc<A>,
    stream: Stream,
    read: ReadAhead,
    max_age: Option<Duration>,
    mut drain: watch::Receiver<bool>,
) {
    let is_draining = drain.clone();
    let draining = pin!(drain.wait_for(|is_draining| *is_draining));
    let wire = Rc::new(RefCell::new(Wire::new(stream, read)));
    let born = Instant::now();
    let mut waiting = Waiting { draining, sleep: None, limit: born };
    let mut answered = 0_u32;
    loop {
        let RequestHead { request, fields, spelling, length, keeps_alive, expects_continue, takes_trailers } =
            match waiting.head::<A::Marks>(&wire).await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(refused) => {
                    let mut out = refusal(answerer.refuse("HTTP/1.1", &refused));
                    // Who speaks another protocol would take an answer for something of that one.
                    let is_other = answered == 0 && is_anothers(&wire.borrow().read.bytes);
                    if !is_other {
                        let _ = poll_fn(|context| out.poll_write(&mut wire.borrow_mut().stream, context)).await;
                    }
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
        let decoder = Decoder::of(length, request.headers(), fields);
        let body = Body::next(&wire, decoder, expects_continue, spelling, !asked.is_http10, handover);
        let request = request.map(|()| RequestBody::Http1(body));
        let response = {
            // Pinned where it is made: it is large, and moving it would cost more than most of what it does.
            let answering = pin!(Rc::clone(&answerer).answer(request, fields));
            unless_gone(&wire, answering).await
        };
        let Some(response) = response else { return };
        let is_ending = *is_draining.borrow() || answerer.is_leaving();
        let is_last = is_ending || max_age.is_some_and(|age| born.elapsed() >= age) || !asked.keeps_alive;
        match answer(&wire, response, &asked, is_last).await {
            Ok(After::Next) => {
                answered = answered.wrapping_add(1);
                if answered.is_multiple_of(TURN) {
                    tokio::task::yield_now().await;
                }
            }
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
    async fn head<M: Marks>(&mut self, wire: &RefCell<Wire>) -> Result<Option<RequestHead>, Refused> {
        let mut has_begun = false;
        let mut is_timed = false;
        let mut seen = 0;
        poll_fn(|context| {
            let wire = &mut *wire.borrow_mut();
            loop {
                if head::may_be_whole(&wire.read.bytes, seen)
                    && let Some(head) = head::request::<M>(&mut wire.read.bytes)?
                {
                    return Poll::Ready(Ok(Some(head)));
                }
                seen = wire.read.bytes.len();
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
                        sleep.as_mut().reset(self.limit);
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

/// What an answer's status and the request say about its body.
#[derive(Clone, Copy)]
struct Shape {
    /// The connection is not HTTP's after it.
    is_switch: bool,
    /// Nobody expects a body.
    is_bodiless: bool,
    /// The length that a head without a body tells of another's.
    told: Option<u64>,
}

impl Shape {
    fn of(head: &Parts, asked: &Asked) -> Self {
        let is_switch =
            head.status == StatusCode::SWITCHING_PROTOCOLS || (asked.is_connect && head.status.is_success());
        let is_bodiless = asked.is_head
            || head.status.is_informational()
            || is_switch
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // What comes is as long as it says, but where nothing comes it is not what comes that says so.
        let told = if is_bodiless { told_length(&head.headers) } else { None };
        Self { is_switch, is_bodiless, told }
    }

    /// How a body is written that is so long, if that is known.
    fn framing(self, length: Option<u64>, asked: &Asked) -> Framing {
        match self.told.or(length) {
            Some(length) => Framing::Length(length),
            None if asked.is_http10 => Framing::UntilClose,
            None => Framing::Chunked,
        }
    }
}

/// Writes an answer.
async fn answer(
    wire: &Rc<RefCell<Wire>>,
    response: Response<impl Answer>,
    asked: &Asked,
    is_last: bool,
) -> io::Result<After> {
    let (head, body) = response.into_parts();
    let shape = Shape::of(&head, asked);
    let length = body.size_hint().exact();
    let framing = shape.framing(length, asked);
    let mut is_last = is_last || framing == Framing::UntilClose && !shape.is_bodiless;
    // A body that nobody wanted to read stays in the way of what follows it.
    is_last |= !is_read(wire);
    let mut stall = Stall::new(body.silence());
    // Before the first wait: it is large, and is moved no more.
    let mut sending = Sending {
        out: Outgoing::default(),
        framing: if shape.is_bodiless { Framing::None } else { framing },
        is_whole: shape.is_bodiless && body.is_end_stream(),
        body,
        takes_trailers: asked.takes_trailers,
        is_broken: false,
    };
    poll_fn(|context| wire.borrow_mut().poll_interim(context)).await?;
    wire.borrow_mut().answered();
    sending.write_head(&head, asked, is_last, shape.is_switch);
    // An answer without a body may still say how long the body of another would be.
    let is_known = shape.told.is_some() || (asked.is_head && length.is_some_and(|length| length > 0));
    let shows_length = is_known && !shape.is_switch && head.status != StatusCode::NO_CONTENT;
    sending.out.end_head(if !shape.is_bodiless || shows_length { framing } else { Framing::None });
    buffers::give_fields(head.headers);
    poll_fn(|context| sending.poll(wire, &mut stall, context)).await?;
    let is_broken = sending.is_broken;
    drop(sending);
    Ok(match () {
        () if is_broken => return Err(io::ErrorKind::UnexpectedEof.into()),
        () if shape.is_switch => After::Switch,
        () if !is_read(wire) => After::Close,
        () if !asked.keeps_alive => After::Over,
        () if is_last => After::Close,
        () => After::Next,
    })
}

/// An answer on its way.
struct Sending<B> {
    out: Outgoing,
    framing: Framing,
    body: B,
    takes_trailers: bool,
    /// All of the body is in `out`.
    is_whole: bool,
    /// It has no end, or not the one that its head says.
    is_broken: bool,
}

impl<B: Answer> Sending<B> {
    /// Writes the head, but for what says how long the body is.
    fn write_head(&mut self, head: &Parts, asked: &Asked, is_last: bool, is_switch: bool) {
        let Self { out, body, .. } = self;
        match body.spelling() {
            Some(spelling) => out.answer(head.status, &head.headers, spelling),
            None => out.answer(head.status, &head.headers, &Spelling::default()),
        }
        body.write_own(&head.headers, |name, value| out.line(name.as_str().as_bytes(), value));
        if is_last && !is_switch {
            out.keep_alive(false);
        } else if asked.is_http10 && !is_switch {
            out.keep_alive(true);
        }
    }

    /// Writes as much as there is and as the client takes; ready when that was all. The body may read the request's, and so
    /// borrow the connection.
    fn poll(&mut self, wire: &RefCell<Wire>, stall: &mut Stall, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.out.written() + TURN_MAX;
        loop {
            let is_waiting = self.gather(context);
            let wire = &mut *wire.borrow_mut();
            let Poll::Ready(written) = self.out.poll_write(&mut wire.stream, context) else {
                ready!(stall.poll(self.out.written(), context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            written?;
            if self.is_whole || self.is_broken {
                return Poll::Ready(Ok(()));
            }
            if self.out.written() > turn {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if is_waiting {
                ready!(wire.poll_gone(context));
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    /// Takes parts of the body until there is enough to write; true when the next one has to be waited for.
    fn gather(&mut self, context: &mut Context<'_>) -> bool {
        while !self.is_whole && !self.is_broken && !self.out.is_full() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(frame))) => match self.add(frame) {
                    Ok(is_end) => self.is_whole |= is_end,
                    Err(WrongLength) => self.is_broken = true,
                },
                Poll::Ready(Some(Err(_))) => self.is_broken = true,
                Poll::Ready(None) => {
                    self.is_broken = self.out.end(self.framing, None).is_err();
                    self.is_whole = true;
                }
            }
        }
        false
    }

    /// Adds a part of the body; true when it was the last.
    fn add(&mut self, frame: Frame<Bytes>) -> Result<bool, WrongLength> {
        match frame.into_data() {
            Ok(data) => self.out.data(&mut self.framing, data).map(|()| false),
            Err(frame) => {
                let trailers = frame.into_trailers().ok().filter(|_| self.takes_trailers);
                self.out.end(self.framing, trailers.as_ref()).map(|()| true)
            }
        }
    }
}

/// The whole of an answer to a head that could not be read; the connection ends after it.
fn refusal(response: Response<Bytes>) -> Outgoing {
    let (head, text) = response.into_parts();
    let mut out = Outgoing::default();
    out.answer(head.status, &head.headers, &Spelling::default());
    out.keep_alive(false);
    let mut framing = Framing::Length(text.len() as u64);
    out.end_head(framing);
    out.data(&mut framing, text).expect("as long as was said");
    out
}

/// Whether the request's body is read to its end; what has come of one that nobody wants is thrown away.
fn is_read(wire: &Rc<RefCell<Wire>>) -> bool {
    let is_unwanted = Rc::strong_count(wire) == 1;
    let wire = &mut *wire.borrow_mut();
    while is_unwanted && matches!(wire.decoder.decode(&mut wire.read.bytes), Ok(Some(_))) {}
    wire.decoder.is_done()
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::Request;
    use tokio::net::UnixStream;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;
    use crate::service::Whole;
    use crate::stream::Socket;

    /// Answers at once, and counts.
    #[derive(Default)]
    struct Counting(Cell<u32>);

    impl Answerer for Counting {
        type Marks = ();
        type Body = Whole;

        async fn answer(self: Rc<Self>, _: Request<RequestBody>, _: Fields) -> Response<Whole> {
            self.0.set(self.0.get() + 1);
            Response::default()
        }

        fn refuse(&self, _: &'static str, refused: &Refused) -> Response<Bytes> {
            panic!("{refused:?}")
        }
    }

    #[tokio::test]
    async fn requests_that_were_sent_ahead_leave_others_their_turn() {
        const COUNT: u32 = 1000;
        let (ours, peer) = UnixStream::pair().unwrap();
        let mut read = ReadAhead::default();
        read.bytes.extend_from_slice(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(COUNT as usize));
        let answerer = Rc::new(Counting::default());
        let (_draining, drain) = watch::channel(false);
        let serving = LocalSet::new();
        let most = serving.run_until(async {
            spawn_local(serve(Rc::clone(&answerer), Stream::Plain(Socket::Unix(ours)), read, None, drain));
            let (mut most, mut before) = (0, 0);
            while before < COUNT {
                yield_now().await;
                let _ = peer.try_read(&mut [0; 8 << 10]); // there may be nothing
                let answered = answerer.0.get();
                most = most.max(answered - before);
                before = answered;
            }
            most
        });
        assert!((1..=TURN).contains(&most.await));
    }
}
