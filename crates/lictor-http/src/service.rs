//! What a server asks: a request in, an answer out. One trait for the whole, and it is known when a server is compiled, so
//! that nothing is boxed and nothing is called through a table.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};

use crate::error::Refused;
use crate::fields::{Fields, Marks};
use crate::message::RequestBody;
use crate::spelling::Spelling;

/// Answers the requests of a connection. It is shared by those that are answered at the same time (HTTP/2).
pub trait Answerer: 'static {
    /// What it looks for in heads besides what the wire does; `()` for nothing.
    type Marks: Marks;
    /// What its answers carry.
    type Body: Answer;

    /// Answers one request. `fields` is what its head has. Dropped, the client has gone.
    fn answer(
        self: Rc<Self>,
        request: Request<RequestBody>,
        fields: Fields,
    ) -> impl Future<Output = Response<Self::Body>>;

    /// Hears of a head that could not be read (`version` is `HTTP/1.1` or `HTTP/2`). What it returns is the answer, where
    /// one can be given: over HTTP/1.1 all of it, and the connection ends; over HTTP/2 its fields, without the body.
    fn refuse(&self, version: &'static str, refused: &Refused) -> Response<Bytes>;

    /// Whether the client is to come again, perhaps elsewhere: over HTTP/1.1 the next answer is its connection's last.
    fn is_leaving(&self) -> bool {
        false
    }
}

/// A body that can be answered with.
pub trait Answer: Body<Data = Bytes> + Unpin + 'static {
    /// How the head before it was written where it comes from; HTTP/1.1 writes it likewise.
    fn spelling(&self) -> Option<&Spelling> {
        None
    }

    /// Writes what the head gets besides its map of fields. Asked once, after all those are written.
    fn write_own(&mut self, head: &HeaderMap, write: impl FnMut(&HeaderName, &[u8])) {
        let _ = (head, write);
    }

    /// How long the body may be silent. A client that takes nothing of it for as long is cut off; where this says nothing,
    /// after 30 s.
    fn silence(&self) -> Option<Duration> {
        None
    }
}

/// An answer's body that is there.
#[derive(Clone, Debug, Default)]
pub struct Whole(pub Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

impl Answer for Whole {}
