//! One side of one stream, as the task that uses it has it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::frame::Code;
use super::wire::{Broken, Part, Shared, Wire, store};

/// One side of one stream.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) stream: Shared,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Channel {
    /// Gives the stream up. Nothing happens when it is over.
    pub(super) fn cancel(&self, code: Code) {
        self.wire.borrow_mut().cancel(&mut self.stream.borrow_mut(), code);
    }

    /// Ready when the stream has ended early.
    pub(super) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<Broken> {
        let stream = &mut *self.stream.borrow_mut();
        if let Some(broken) = stream.broken {
            return Poll::Ready(broken);
        }
        store(&mut stream.writer, context);
        Poll::Pending
    }

    pub(super) fn poll_read(&self, context: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
        self.wire.borrow_mut().poll_read(&mut self.stream.borrow_mut(), context)
    }

    /// Writes as much of it as may be written now, at least something; its end with its last byte.
    pub(super) fn poll_write(
        &self,
        data: &mut Bytes,
        is_last: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        let (wire, stream) = (&mut *self.wire.borrow_mut(), &mut *self.stream.borrow_mut());
        let count = ready!(wire.poll_window(stream, context))?.min(data.len());
        let part = data.split_to(count);
        wire.write_data(stream, part, is_last && data.is_empty());
        Poll::Ready(Ok(count))
    }

    /// Ready when a little more may be written.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.wire.borrow_mut().poll_room(&mut self.stream.borrow_mut(), context)
    }

    pub(super) fn poll_end(&self, trailers: &HeaderMap, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.poll_room(context))?;
        self.end(trailers);
        Poll::Ready(Ok(()))
    }

    pub(super) fn end(&self, trailers: &HeaderMap) {
        let (wire, stream) = (&mut *self.wire.borrow_mut(), &mut *self.stream.borrow_mut());
        if trailers.is_empty() {
            return wire.write_data(stream, Bytes::new(), true);
        }
        wire.write_fields(stream, true, |fields| {
            for (name, value) in trailers {
                fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            }
        });
    }
}
