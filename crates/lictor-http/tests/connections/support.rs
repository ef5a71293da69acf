//! Answers by a function, and bodies by their parts.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use lictor_http::buffers::ReadAhead;
use lictor_http::fields::Fields;
use lictor_http::stream::Stream;
use lictor_http::{Answer, Answerer, BodyError, Refused, RequestBody, http1, http2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// What comes after the parts of a body.
#[derive(Clone, Copy, Default)]
pub(crate) enum Then {
    #[default]
    End,
    Break,
    Hang,
}

/// A body of these parts.
#[derive(Default)]
pub(crate) struct Parts {
    frames: VecDeque<Frame<Bytes>>,
    then: Then,
    size: Option<u64>,
    silence: Option<Duration>,
}

/// A body whose length nobody knows.
pub(crate) fn parts<const N: usize>(parts: [&'static str; N]) -> Parts {
    Parts { frames: parts.into_iter().map(|part| Frame::data(Bytes::from(part))).collect(), ..Parts::default() }
}

/// A body of these bytes and so many.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Parts {
    let bytes = bytes.into();
    let size = Some(bytes.len() as u64);
    let frames = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([Frame::data(bytes)]) };
    Parts { frames, size, ..Parts::default() }
}

impl Parts {
    pub(crate) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let field = (HeaderName::from_static(name), HeaderValue::from_static(value));
        self.frames.push_back(Frame::trailers(HeaderMap::from_iter([field])));
        self
    }

    pub(crate) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }

    /// That says it has so many bytes.
    pub(crate) fn sized(self, size: u64) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(crate) fn silent_for(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (self.frames.pop_front(), self.then) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Break) => Poll::Ready(Some(Err(BodyError::Cut))),
            (None, Then::Hang) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && matches!(self.then, Then::End)
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Answer for Parts {
    fn silence(&self) -> Option<Duration> {
        self.silence
    }
}

/// Answers by a function.
struct By<F>(F);

impl<F, R> Answerer for By<F>
where
    F: Fn(Request<RequestBody>) -> R + 'static,
    R: Future<Output = Response<Parts>>,
{
    type Marks = ();
    type Body = Parts;

    async fn answer(self: Rc<Self>, request: Request<RequestBody>, _: Fields) -> Response<Parts> {
        (self.0)(request).await
    }

    fn refuse(&self, version: &'static str, refused: &Refused) -> Response<Bytes> {
        let text = format!("{version}: {}", refused.why);
        Response::builder().status(refused.status).body(text.into()).unwrap()
    }
}

/// Answers by this function.
pub(crate) fn by<R: Future<Output = Response<Parts>> + 'static>(
    answer: impl Fn(Request<RequestBody>) -> R + 'static,
) -> Rc<impl Answerer> {
    Rc::new(By(answer))
}

/// Serves HTTP/1.1 on a task of its own, until it is to drain or is so old.
pub(crate) fn serve_http1<R: Future<Output = Response<Parts>> + 'static>(
    stream: impl Into<Stream>,
    drain: &watch::Sender<bool>,
    max_age: Option<Duration>,
    answer: impl Fn(Request<RequestBody>) -> R + 'static,
) -> JoinHandle<()> {
    let (stream, drain) = (stream.into(), drain.clone()); // without a sender it would drain
    spawn_local(async move {
        http1::server::serve(by(answer), stream, ReadAhead::default(), max_age, drain.subscribe()).await;
    })
}

/// Serves HTTP/2 on a task of its own.
pub(crate) fn serve_http2<R: Future<Output = Response<Parts>> + 'static>(
    stream: impl Into<Stream>,
    answer: impl Fn(Request<RequestBody>) -> R + 'static,
) -> JoinHandle<()> {
    spawn_local(http2::server::serve(by(answer), stream.into(), ReadAhead::default(), pending()))
}

/// Answers with what came, trailers too.
pub(crate) async fn echo(request: Request<RequestBody>) -> Response<Parts> {
    let collected = match request.into_body().collect().await {
        Ok(collected) => collected,
        Err(error) => return Response::builder().status(400).body(whole(error.to_string())).unwrap(),
    };
    let trailers = collected.trailers().cloned();
    let mut body = whole(collected.to_bytes());
    if let Some(trailers) = trailers {
        body.size = None;
        body.frames.push_back(Frame::trailers(trailers));
    }
    Response::new(body)
}

/// A server's end, and a client's.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// Runs a test on one thread, as connections are.
pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Says this and hears all that comes back until the end.
pub(crate) async fn talk(mut client: UnixStream, words: &str) -> String {
    client.write_all(words.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    String::from_utf8(heard).unwrap()
}

/// Hears so much of what comes that this is in it.
pub(crate) async fn until(client: &mut UnixStream, what: &str) -> String {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(what) {
        assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).unwrap()
}
