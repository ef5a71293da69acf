//! The answer's body on its way to the client: upstream's bytes as they come, or lictor's own sentence.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use lictor_core::Reason;
use lictor_core::trace::TraceContext;
use lictor_http::fields::strip_trailers;
use lictor_http::{Answer, Spelling};
use tokio::time::Sleep;

use super::recoded::{self, Ahead, Recode, Recoded};
use super::replay::{AnswerBody, Replay};
use super::unanswered::body_fault;
use crate::admission::cache::Keeping;
use crate::admission::permit::{Probe, Running};
use crate::books::record::{EXPIRED, Record};
use crate::choose::exchange::Exchange;
use crate::clock::Stage;
use crate::names::{self, GRPC_MESSAGE, GRPC_STATUS, X_REQUEST_ID, X_SPAN_ID, X_TRACE_ID, grpc_status};
use crate::stores::millis::Millis;
use crate::stores::request_id::RequestId;

/// A body for the client.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
    /// How the upstream wrote the head.
    spelling: Spelling,
    /// Fields of ours that the head gets as it is written.
    ids: Option<Ids>,
}

/// What an answer tells of its request.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) request: RequestId,
    /// The upstream may have set one of them.
    pub(super) may_be_set: bool,
    /// For those that ask for it by the older names.
    pub(super) trace: Option<TraceContext>,
    /// When it came, where the upstream has not said (RFC 9110, section 6.6.1).
    pub(super) date: Option<HeaderValue>,
}

impl Ids {
    /// The fields, but for those that the upstream has set.
    pub(super) fn write(&self, headers: &HeaderMap, mut write: impl FnMut(&HeaderName, &[u8])) {
        if let Some(date) = &self.date {
            write(&DATE, date.as_bytes());
        }
        let is_set = |name| self.may_be_set && headers.contains_key(name);
        if !is_set(X_REQUEST_ID) {
            write(&X_REQUEST_ID, self.request.as_bytes());
        }
        let Some(trace) = &self.trace else { return };
        if !is_set(X_TRACE_ID) {
            write(&X_TRACE_ID, &trace.trace_id_digits());
        }
        if !is_set(X_SPAN_ID) {
            write(&X_SPAN_ID, &trace.span_id_digits());
        }
    }
}

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    Stream(Box<Stream>),
    /// One of the others, in another form.
    Recoded(Box<Recoded<ResponseBody>>),
    /// It is over, but for the books of a call whose client is not told yet.
    Untold(Box<Record>),
    Over,
}

impl Kind {
    /// It is over, and so are its books, where its client sees what came.
    fn closed(record: Option<Box<Record>>) -> Self {
        match record {
            Some(record) if record.is_untold() => return Self::Untold(record),
            Some(record) => record.close(Instant::now()),
            None => (),
        }
        Self::Over
    }
}

/// An upstream's body, and everything that ends with it.
#[derive(Debug)]
struct Stream {
    incoming: Option<AnswerBody>,
    /// The request's body, where the answer has begun before that was sent.
    asked: Option<Replay>,
    /// The connection and the endpoint's load; given back at the end, dropped (and closed) otherwise.
    exchange: Option<Exchange>,
    /// The request's place among the running ones.
    running: Option<Running>,
    record: Option<Box<Record>>,
    /// Where the verdict is not given yet.
    probe: Option<Probe>,
    patience: Patience,
    keeping: Option<Keeping>,
}

/// How long a body may take.
#[derive(Debug)]
pub(super) struct Patience {
    /// The longest silence.
    pub(super) silence: Option<Duration>,
    /// The caller's own deadline.
    pub(super) until: Option<Instant>,
    /// When what opened the stream is over, and what is said then.
    expires: Option<(Instant, StreamEnd)>,
    last: Instant,
    /// Something has come since, and nobody has looked at the clock.
    has_moved: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(silence: Option<Duration>, until: Option<Instant>, now: Instant) -> Self {
        Self { silence, until, expires: None, last: now, has_moved: false, sleep: None }
    }

    /// It ends then too.
    pub(super) fn expiring(self, expires: Option<(Instant, StreamEnd)>) -> Self {
        Self { expires, ..self }
    }

    /// How a stream ends that is over by now.
    fn expired(&self) -> Option<StreamEnd> {
        let (expires, end) = self.expires?;
        (expires <= Instant::now()).then_some(end)
    }

    fn ends(&self) -> Option<(Instant, Reason)> {
        let silence = self.silence.map(|silence| (self.last + silence, Reason::Timeout));
        let until = self.until.map(|until| (until, Reason::DeadlineExceeded));
        let expires = self.expires.map(|(expires, _)| (expires, Reason::Unauthenticated));
        [silence, until, expires].into_iter().flatten().min_by_key(|(ends, _)| *ends)
    }

    /// Ready when patience has ended. The timer is armed only when there is something to wait for, and set again only
    /// when it fires: progress just moves `last`.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Reason> {
        if std::mem::take(&mut self.has_moved) {
            self.last = Instant::now();
        }
        let Some((ends, reason)) = self.ends() else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends.into())));
        loop {
            ready!(sleep.as_mut().poll(context));
            if ends <= Instant::now() {
                return Poll::Ready(reason);
            }
            sleep.as_mut().reset(ends.into());
        }
    }
}

/// How a stream ends before its upstream ends it, so that its client knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEnd {
    /// As if it were all: an event source asks again.
    Plain,
    /// By trailers of gRPC.
    Trailers,
    /// It breaks off: nothing else tells that there was more.
    Broken,
}

impl StreamEnd {
    pub(super) fn of(headers: &HeaderMap, is_grpc: bool) -> Self {
        let is_it = |kind: &HeaderValue| names::is_media_type(kind.as_bytes(), b"text/event-stream");
        let is_events = headers.get(CONTENT_TYPE).is_some_and(is_it);
        match (is_grpc, is_events) {
            (true, _) => Self::Trailers,
            (false, true) => Self::Plain,
            (false, false) => Self::Broken,
        }
    }

    fn last(self) -> Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>> {
        match self {
            Self::Plain => None,
            Self::Broken => Some(Err(EXPIRED.into())),
            Self::Trailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(Reason::Unauthenticated.grpc_status())));
                trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(EXPIRED));
                Some(Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl ResponseBody {
    /// lictor's own.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(bytes), spelling: Spelling::default(), ids: None }
    }

    /// None.
    pub(super) fn empty() -> Self {
        Self { kind: Kind::Over, spelling: Spelling::default(), ids: None }
    }

    /// The same, with these.
    pub(super) fn telling(mut self, ids: Ids) -> Self {
        self.ids = Some(ids);
        self
    }

    /// The upstream's.
    pub(super) fn stream(
        mut incoming: AnswerBody,
        exchange: Exchange,
        running: Running,
        record: Box<Record>,
        probe: Option<Probe>,
        patience: Patience,
        keeping: Option<Keeping>,
    ) -> Self {
        let spelling = incoming.take_spelling();
        let is_over = incoming.is_end_stream();
        let mut stream = Stream {
            incoming: Some(incoming),
            asked: None,
            exchange: Some(exchange),
            running: Some(running),
            record: Some(record),
            probe,
            patience,
            keeping,
        };
        if is_over {
            return Self { kind: stream.close(), spelling, ids: None };
        }
        Self { kind: Kind::Stream(Box::new(stream)), spelling, ids: None }
    }

    /// The request's body is not sent yet: what is wrong with it is no fault of who answers.
    pub(super) fn asked(mut self, asked: Option<Replay>) -> Self {
        if let Kind::Stream(stream) = &mut self.kind {
            stream.asked = asked;
        }
        self
    }

    /// Reads what has come by now, up to so much. Where that is all, and shorter, it is held whole; otherwise it is given
    /// back, for [`ResponseBody::recode`].
    pub(crate) fn ahead(&mut self, most: usize) -> Option<Ahead> {
        let ahead = recoded::ahead(self, most);
        let Some(whole) = recoded::whole(&ahead).filter(|whole| whole.len() < most) else { return Some(ahead) };
        self.kind = if whole.is_empty() { Kind::Over } else { Kind::Whole(whole) };
        None
    }

    /// Why a call broke off whose client is to be told.
    pub(crate) fn broke(&self) -> Option<Reason> {
        if let Kind::Untold(record) = &self.kind { record.reason } else { None }
    }

    /// What the client of a call is told, for the books: they are closed with its body.
    pub(crate) fn told(&mut self, status: StatusCode, why: Option<(Reason, String)>) {
        let record = match &mut self.kind {
            Kind::Untold(record) => Some(record),
            Kind::Stream(stream) => stream.record.as_mut(),
            Kind::Whole(_) | Kind::Recoded(_) | Kind::Over => None,
        };
        if let Some(record) = record {
            record.told(status, why);
        }
    }

    /// These bytes go in its place, and it is over.
    pub(crate) fn turn_into(&mut self, bytes: Bytes) {
        let kind = if bytes.is_empty() { Kind::Over } else { Kind::Whole(bytes) };
        let record = match std::mem::replace(&mut self.kind, kind) {
            Kind::Untold(record) => Some(record),
            Kind::Stream(mut stream) => stream.record.take(),
            Kind::Whole(_) | Kind::Recoded(_) | Kind::Over => None,
        };
        if let Some(record) = record {
            record.close(Instant::now());
        }
    }

    /// It goes in another form; what was read ahead of it comes first.
    pub(crate) fn recode(&mut self, ahead: Ahead, recode: Box<dyn Recode>) {
        let kind = match std::mem::replace(&mut self.kind, Kind::Over) {
            Kind::Untold(record) => Kind::closed(Some(record)),
            kind => kind,
        };
        let body = Self { kind, spelling: Spelling::default(), ids: None };
        self.kind = Kind::Recoded(Box::new(Recoded::new(body, ahead, recode)));
    }
}

impl Stream {
    fn close(&mut self) -> Kind {
        let now = Instant::now();
        if let (Some(exchange), Some(record)) = (&mut self.exchange, &self.record)
            && let Some(upstream) = &record.upstream
        {
            exchange.judge(upstream, upstream.policy(record.route), record.grpc_status);
        }
        if let (Some(probe), Some(record)) = (self.probe.take(), &self.record) {
            record.breaker.set(probe.whole(record.grpc_status, now, &|word| record.blame(word)));
        }
        if let (Some(exchange), Some(incoming)) = (self.exchange.take(), self.incoming.take()) {
            exchange.complete(incoming, now);
        }
        self.running = None;
        if let Some(keeping) = self.keeping.take() {
            keeping.finish();
        }
        Kind::closed(self.record.take())
    }

    fn fail(&mut self, reason: Reason, sentence: &str) -> Kind {
        self.incoming = None;
        if let (Some(exchange), Some(record)) = (self.exchange.take(), &self.record)
            && let Some(upstream) = &record.upstream
        {
            exchange.broke_off(upstream, upstream.policy(record.route), reason);
        }
        if let (Some(probe), Some(record)) = (self.probe.take(), &self.record) {
            record.breaker.set(probe.failed(reason, &|word| record.blame(word)));
        }
        self.running = None;
        if let Some(keeping) = self.keeping.take() {
            keeping.fail(reason);
        }
        if let Some(record) = &mut self.record {
            if matches!(reason, Reason::Timeout | Reason::DeadlineExceeded) {
                record.worker.shared.metrics.deadline_exceeded(Stage::Upstream.as_str());
            }
            record.reason = Some(reason);
            record.detail = Some(sentence.to_owned());
        }
        Kind::closed(self.record.take())
    }

    /// What opened it is over: nobody's fault, so that nobody is judged by it.
    fn expire(&mut self) -> Kind {
        (self.incoming, self.exchange, self.probe, self.running) = (None, None, None, None);
        if let Some(keeping) = self.keeping.take() {
            keeping.fail(Reason::Unauthenticated);
        }
        if let Some(record) = &mut self.record {
            record.expired();
        }
        Kind::closed(self.record.take())
    }

    fn saw(&mut self, frame: &Frame<Bytes>) {
        let Some(record) = &mut self.record else { return };
        if let Some(data) = frame.data_ref() {
            record.bytes += data.len() as u64;
            self.keeping = self.keeping.take().and_then(|keeping| keeping.add(data));
        } else if let Some(trailers) = frame.trailers_ref() {
            record.grpc_status = grpc_status(trailers);
            if let Some(exchange) = &self.exchange {
                exchange.obey(record.grpc_status, trailers);
            }
            self.keeping = self.keeping.take().and_then(Keeping::give_up); // what is kept has no trailers
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let stream = match &mut this.kind {
            Kind::Untold(_) | Kind::Over => return Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Over;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Kind::Recoded(recoded) => return Pin::new(&mut **recoded).poll_frame(context),
            Kind::Stream(stream) => stream,
        };
        let Some(incoming) = &mut stream.incoming else { return Poll::Ready(None) };
        if let Some(end) = stream.patience.expired() {
            this.kind = stream.expire();
            return Poll::Ready(end.last());
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) else {
            let reason = ready!(stream.patience.poll(context));
            if let (Reason::Unauthenticated, Some((_, end))) = (reason, stream.patience.expires) {
                this.kind = stream.expire();
                return Poll::Ready(end.last());
            }
            let waited = stream.patience.silence.unwrap_or_default();
            let sentence = match reason {
                Reason::Timeout => format!("the response body was silent for {}", Millis(waited)),
                _ => "the caller's deadline passed within the response body".to_owned(),
            };
            this.kind = stream.fail(reason, &sentence);
            return Poll::Ready(Some(Err(sentence.into())));
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers);
                    if stream.record.as_ref().is_some_and(|record| record.connection.is_edge()) {
                        names::seal(trailers);
                    }
                }
                stream.patience.has_moved = true;
                stream.saw(&frame);
                if stream.incoming.as_ref().is_some_and(AnswerBody::is_end_stream) {
                    this.kind = stream.close();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // Whoever answers has not broken off what has lost its question.
                let fault = stream.asked.as_ref().and_then(body_fault);
                let (reason, why) = fault
                    .map_or((Reason::ResetMidResponse, error.to_string()), |fault| (fault.reason, fault.to_string()));
                this.kind = stream.fail(reason, &format!("the answer broke off: {why}"));
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.kind = stream.close();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Untold(_) | Kind::Over => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.incoming.as_ref().is_none_or(AnswerBody::is_end_stream),
            Kind::Recoded(recoded) => recoded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Untold(_) | Kind::Over => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.incoming.as_ref().map_or(SizeHint::with_exact(0), AnswerBody::size_hint),
            Kind::Recoded(recoded) => recoded.size_hint(),
        }
    }
}

impl Answer for ResponseBody {
    fn spelling(&self) -> Option<&Spelling> {
        Some(&self.spelling)
    }

    fn write_own(&mut self, head: &HeaderMap, write: impl FnMut(&HeaderName, &[u8])) {
        if let Some(ids) = self.ids.take() {
            ids.write(head, write);
        }
    }

    /// The longest silence of an upstream's.
    fn silence(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Stream(stream) => stream.patience.silence,
            Kind::Recoded(recoded) => recoded.inner().silence(),
            Kind::Whole(_) | Kind::Untold(_) | Kind::Over => None,
        }
    }
}
