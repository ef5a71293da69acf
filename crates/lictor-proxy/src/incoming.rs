//! Bodies that come, whichever HTTP the other side speaks, and the way back for what is said before an answer.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::http1::head::Spelling;
use crate::{http1, http2};

/// A body, whatever the other side speaks.
#[derive(Debug)]
pub(crate) enum Either<B> {
    Http1(B),
    Http2(http2::body::Body),
}

/// A client's.
pub(crate) type RequestBody = Either<http1::server::Body>;
/// An upstream's.
pub(crate) type AnswerBody = Either<Box<http1::client::Body>>;

/// Why a body has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The connection ended within it.
    Cut,
    /// It is not what its head says.
    Malformed(&'static str),
    /// Another attempt sends it now, or nobody does any more.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the connection ended within the body"),
            Self::Malformed(why) => write!(f, "the body is malformed: {why}"),
            Self::Superseded => f.write_str("the body is not sent any more"),
        }
    }
}

impl Error for BodyError {}

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub(crate) enum Interim {
    Http1(http1::server::Interim),
    Http2(http2::server::Interim),
}

impl Interim {
    /// The client gets it before the final answer, unless it has not read the ones before.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
        match self {
            Self::Http1(interim) => interim.tell(status, headers, spelling),
            Self::Http2(interim) => interim.tell(status, headers),
        }
    }
}

impl RequestBody {
    pub(crate) fn spelling(&mut self) -> Spelling {
        match self {
            Self::Http1(body) => std::mem::take(&mut body.spelling),
            Self::Http2(_) => Spelling::default(),
        }
    }

    /// Where interim answers go; clients of HTTP/1.0 take none.
    pub(crate) fn interim(&mut self) -> Option<Interim> {
        match self {
            Self::Http1(body) => body.interim().map(Interim::Http1),
            Self::Http2(body) => Some(Interim::Http2(body.interim())),
        }
    }
}

impl AnswerBody {
    pub(crate) fn spelling(&mut self) -> Spelling {
        match self {
            Self::Http1(body) => std::mem::take(&mut body.spelling),
            Self::Http2(_) => Spelling::default(),
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
