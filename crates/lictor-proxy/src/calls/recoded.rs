//! A body that goes in another form than it came: compressed, or as another protocol has it. What is there goes on at once;
//! however much comes at a time, other connections have their turn in between.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

/// So much of a body is recoded at a time.
const PIECE: usize = 16 << 10;
/// After so much of it it is other connections' turn: compressing is the dearest thing that is done to a request.
const TURN: usize = 64 << 10;

pub(crate) type Failed = Box<dyn Error + Send + Sync>;
/// What comes of a body; `None` is its end.
type Came = Option<Result<Frame<Bytes>, Failed>>;
/// What has come already.
pub(crate) type Ahead = VecDeque<Came>;

/// Makes another form of a body, piece by piece.
pub(crate) trait Recode: fmt::Debug {
    /// What comes of a piece.
    fn data(&mut self, piece: &[u8]) -> Result<Bytes, Failed>;

    /// Nothing more is there at the moment: what is owed for the pieces so far.
    fn pause(&mut self) -> Vec<u8>;

    /// What comes at the end, and after it.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed>;
}

/// A body, and what makes another of it.
#[derive(Debug)]
pub(super) struct Recoded<B> {
    body: B,
    recode: Box<dyn Recode>,
    /// What has come of the body and is not looked at yet.
    ahead: Ahead,
    data: Bytes,
    /// Pieces since others had their turn.
    turn: usize,
    /// Something is owed for what has come.
    is_owing: bool,
    trailers: Option<HeaderMap>,
    is_over: bool,
}

impl<B: Body<Data = Bytes, Error = Failed> + Unpin> Recoded<B> {
    pub(super) fn new(body: B, ahead: Ahead, recode: Box<dyn Recode>) -> Self {
        let data = Bytes::new();
        Self { body, recode, ahead, data, turn: 0, is_owing: false, trailers: None, is_over: false }
    }

    pub(super) fn inner(&self) -> &B {
        &self.body
    }

    /// All of it is given, but for its trailers.
    fn is_ended(&self) -> bool {
        self.is_over && self.trailers.is_none()
    }

    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Came> {
        match self.ahead.pop_front() {
            Some(came) => Poll::Ready(came),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<Bytes, Failed> {
        self.is_over = true;
        let (made, trailers) = self.recode.end(trailers)?;
        self.trailers = trailers;
        Ok(made.into())
    }

    /// Something of the new form, which may be nothing.
    fn poll_made(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Failed>> {
        if !self.data.is_empty() {
            if self.turn >= TURN {
                self.turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = self.data.split_to(PIECE.min(self.data.len()));
            self.turn += piece.len();
            self.is_owing = true;
            let made = self.recode.data(&piece);
            self.is_over = made.is_err();
            return Poll::Ready(made);
        }
        let Poll::Ready(came) = self.poll_inner(context) else {
            self.turn = 0;
            let is_owing = std::mem::take(&mut self.is_owing);
            return if is_owing { Poll::Ready(Ok(self.recode.pause().into())) } else { Poll::Pending };
        };
        Poll::Ready(match came {
            None => self.end(None),
            Some(Err(error)) => {
                self.is_over = true;
                Err(error)
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.data = data;
                    Ok(Bytes::new())
                }
                Err(frame) => self.end(frame.into_trailers().ok()),
            },
        })
    }
}

impl<B: Body<Data = Bytes, Error = Failed> + Unpin> Body for Recoded<B> {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Came> {
        while !self.is_over {
            match ready!(self.poll_made(context)) {
                Ok(made) if made.is_empty() => (),
                made => return Poll::Ready(Some(made.map(Frame::data))),
            }
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended()
    }
}

/// What has come of a body by now, up to so much of it.
pub(super) fn ahead<B: Body<Data = Bytes, Error = Failed> + Unpin>(body: &mut B, most: usize) -> Ahead {
    // Whoever waits for it asks again, and is woken then.
    let mut context = Context::from_waker(std::task::Waker::noop());
    let (mut ahead, mut length) = (Ahead::new(), 0);
    while length < most {
        let Poll::Ready(came) = Pin::new(&mut *body).poll_frame(&mut context) else { break };
        let data = came.as_ref().and_then(|came| came.as_ref().ok()?.data_ref()).map(Bytes::len);
        ahead.push_back(came);
        match data {
            Some(more) => length += more,
            None => break,
        }
    }
    ahead
}

/// The whole of a body that has come, and has nothing but bytes.
pub(super) fn whole(ahead: &Ahead) -> Option<Bytes> {
    let (None, frames) = (ahead.back()?, ahead.len() - 1) else { return None };
    let bytes = |came: &Came| Some(came.as_ref()?.as_ref().ok()?.data_ref()?.clone());
    let parts: Vec<Bytes> = ahead.iter().take(frames).map(bytes).collect::<Option<_>>()?;
    Some(parts.concat().into())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Gives what it is told to, one by one; `Pending` where that is said.
    struct Told(VecDeque<Poll<Came>>);

    impl Body for Told {
        type Data = Bytes;
        type Error = Failed;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Came> {
            self.0.pop_front().unwrap_or(Poll::Ready(None))
        }
    }

    /// Holds everything back until it is asked for it.
    #[derive(Debug, Default)]
    struct Late(Vec<u8>);

    impl Recode for Late {
        fn data(&mut self, piece: &[u8]) -> Result<Bytes, Failed> {
            if piece == b"bad" {
                return Err("it has no other form".into());
            }
            self.0.extend_from_slice(piece);
            Ok(Bytes::new())
        }

        fn pause(&mut self) -> Vec<u8> {
            std::mem::take(&mut self.0)
        }

        fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed> {
            self.0.extend_from_slice(b".");
            Ok((self.pause(), trailers))
        }
    }

    fn data(text: &str) -> Poll<Came> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))))
    }

    fn trailers() -> Poll<Came> {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-a", http::HeaderValue::from_static("1"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn failed() -> Poll<Came> {
        Poll::Ready(Some(Err("broken".into())))
    }

    /// What a reader sees: data with `|` behind it, `?` where it waits, `#` for trailers, `!` for a failure, `$` for the end.
    fn seen(told: Vec<Poll<Came>>, most: usize) -> String {
        let mut body = Told(told.into());
        let ahead = ahead(&mut body, most);
        let mut body = Recoded::new(body, ahead, Box::new(Late::default()));
        let mut seen = String::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Pending => seen.push('?'),
                Poll::Ready(None) => return seen + "$",
                Poll::Ready(Some(Err(_))) => seen.push('!'),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => seen.extend([std::str::from_utf8(&data).unwrap(), "|"]),
                    Err(_) => seen.push('#'),
                },
            }
            assert!(seen.len() < 100, "no end: {seen}");
        }
    }

    #[test]
    fn a_recoded_body_is_given_when_nothing_more_is_there_and_ends_as_it_ended() {
        for most in [0, 1, 3, 100] {
            let waits = seen(vec![data("ab"), Poll::Pending, data("c"), data("d")], most);
            // What is read ahead is not waited for.
            assert_eq!(waits, if most < 3 { "ab|cd.|$" } else { "abcd.|$" }, "{most}");
            assert_eq!(seen(vec![data("ab"), trailers()], most), "ab.|#$", "{most}");
            let fails = seen(vec![Poll::Pending, Poll::Pending, data("ab"), Poll::Pending, failed()], most);
            assert_eq!(fails.replace('?', ""), "ab|!$", "{most}");
            assert_eq!(seen(vec![failed()], most), "!$", "{most}");
            assert_eq!(seen(vec![data("bad"), data("c"), trailers()], most), "!$", "{most}");
            assert_eq!(seen(vec![], most), ".|$", "{most}");
        }
    }

    #[test]
    fn others_have_their_turn_between_pieces_of_a_large_body() {
        let large = || Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 10 * TURN])))));
        let mut body = Recoded::new(Told([large()].into()), Ahead::new(), Box::new(Late::default()));
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        while Pin::new(&mut body).poll_frame(&mut context).is_pending() {
            turns += 1;
            assert!(turns < 100);
        }
        assert!(turns >= 9, "{turns}");
    }

    #[test]
    fn what_is_whole_and_short_is_known_to_be() {
        let whole_of = |told: Vec<_>, most| whole(&ahead(&mut Told(told.into()), most)).map(|bytes| bytes.len());
        assert_eq!(whole_of(vec![], 10), Some(0));
        assert_eq!(whole_of(vec![data("ab"), data("c")], 10), Some(3));
        assert_eq!(whole_of(vec![data("ab"), data("c")], 3), None);
        assert_eq!(whole_of(vec![data("ab"), Poll::Pending, data("c")], 10), None);
        assert_eq!(whole_of(vec![data("ab"), trailers()], 10), None);
        assert_eq!(whole_of(vec![data("ab"), failed()], 10), None);
    }
}
