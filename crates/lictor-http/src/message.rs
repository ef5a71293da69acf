//! Bodies that come, whichever HTTP the other side speaks, and the way back for what is said before an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::error::BodyError;
use crate::http1::{client, incoming};
use crate::http2::{body, interim};
use crate::spelling::Spelling;
use crate::stream::Stream;

/// A body, whatever the other side speaks.
#[derive(Debug)]
pub enum Either<B> {
    /// It came over HTTP/1.1.
    Http1(B),
    /// It came over HTTP/2.
    Http2(body::Body),
    /// It came over no wire: it is all here.
    Whole(Bytes),
}

/// A client's.
pub type RequestBody = Either<incoming::Body>;
/// A server's; `B` is the body of the request that it answers, which may still be on its way over HTTP/1.1.
pub type AnswerBody<B> = Either<Box<client::Body<B>>>;

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub enum Interim {
    /// To a client that speaks HTTP/1.1.
    Http1(incoming::Interim),
    /// To a client that speaks HTTP/2.
    Http2(interim::Interim),
}

impl Interim {
    /// The client gets it before the final answer, unless it has not read the ones before.
    pub fn tell(&self, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
        match self {
            Self::Http1(interim) => interim.tell(status, headers, spelling),
            Self::Http2(interim) => interim.tell(status, headers),
        }
    }
}

impl RequestBody {
    /// How the head was written; what is left is the usual way.
    pub fn take_spelling(&mut self) -> Spelling {
        match self {
            Self::Http1(body) => body.take_spelling(),
            Self::Http2(_) | Self::Whole(_) => Spelling::default(),
        }
    }

    /// The client waits for a 100 before it sends anything (RFC 9110, section 10.1.1). It gets one when the body is first read.
    pub fn awaits_continue(&self) -> bool {
        match self {
            Self::Http1(body) => body.awaits_continue(),
            Self::Http2(body) => body.awaits_continue(),
            Self::Whole(_) => false,
        }
    }

    /// Takes no more than so many bytes of what is still to come, as they are without their framing: then it fails
    /// ([`BodyError::TooLong`]).
    pub fn limit(&mut self, most: u64) {
        match self {
            Self::Http1(body) => body.limit(most),
            Self::Http2(body) => body.limit(most),
            Self::Whole(_) => {} // nothing is still to come
        }
    }

    /// Where interim answers go; clients of HTTP/1.0 take none.
    pub fn interim(&mut self) -> Option<Interim> {
        match self {
            Self::Http1(body) => body.interim().map(Interim::Http1),
            Self::Http2(body) => Some(Interim::Http2(body.interim())),
            Self::Whole(_) => None,
        }
    }

    /// The client's bytes, once an upgrade or CONNECT was granted. To be asked for before the request is answered.
    pub fn handover(&mut self) -> Option<oneshot::Receiver<Stream>> {
        match self {
            Self::Http1(body) => body.handover(),
            Self::Http2(body) => body.handover(),
            Self::Whole(_) => None,
        }
    }
}

impl<B> AnswerBody<B> {
    /// How the head was written; what is left is the usual way.
    pub fn take_spelling(&mut self) -> Spelling {
        match self {
            Self::Http1(body) => body.take_spelling(),
            Self::Http2(_) | Self::Whole(_) => Spelling::default(),
        }
    }

    /// The server's bytes, after an upgrade.
    pub fn into_stream(self) -> Stream {
        match self {
            Self::Http1(body) => body.into_stream(),
            Self::Http2(body) => body.into_stream(),
            Self::Whole(_) => Stream::Carried(Box::new(tokio::io::empty())),
        }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Either<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => Pin::new(body).poll_frame(context),
            Self::Whole(bytes) => Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
