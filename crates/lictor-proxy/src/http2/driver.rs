//! Drives a connection: reads frames, writes what its streams have left, and sees to it that the peer is there.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::frame::{self, Code};
use super::wire::{Broken, Event, Fatal, Output, Wire, store};
use crate::http1::buffers::ReadAhead;
use crate::stream::Stream;

/// A PING is answered within this, or nobody is there.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// And so is a field block whole.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that is told why it is left has this long to read it.
const LINGER: Duration = Duration::from_secs(1);
const KEEP_ALIVE: [u8; 8] = *b"lictor?\n";

/// The connection's task.
#[derive(Debug)]
pub(super) struct Driver {
    wire: Rc<RefCell<Wire>>,
    socket: Stream,
    read: ReadAhead,
    /// Silence after which the peer is asked whether it is there.
    silence: Duration,
    /// Only while streams are open.
    is_lazy: bool,
    heard: Instant,
    asked: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Driver {
    pub(super) fn new(wire: Wire, socket: Stream, ahead: BytesMut, silence: Duration, is_lazy: bool) -> Self {
        let now = Instant::now();
        Self {
            wire: Rc::new(RefCell::new(wire)),
            socket,
            read: ReadAhead::new(ahead),
            silence,
            is_lazy,
            heard: now,
            asked: None,
            sleep: Box::pin(tokio::time::sleep_until((now + silence).into())),
        }
    }

    pub(super) fn wire(&self) -> &Rc<RefCell<Wire>> {
        &self.wire
    }

    /// The next event; `None` when the connection is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let wire = &mut *self.wire.borrow_mut();
        wire.driver = None;
        while !wire.is_over {
            match wire.receive(&mut self.read.bytes) {
                Ok(Some(event)) => return Poll::Ready(Some(event)),
                Ok(None) => (),
                Err(fatal) => {
                    wire.fail(fatal);
                    break;
                }
            }
            match self.read.poll_fill(&mut self.socket, context) {
                Poll::Ready(Ok(1..)) => (self.heard, self.asked) = (Instant::now(), None),
                Poll::Ready(Ok(0) | Err(_)) => {
                    wire.out = Output::default();
                    wire.cut(Broken::Cut);
                }
                Poll::Pending => break,
            }
        }
        self.read.rest();
        let is_written = match wire.poll_write(&mut self.socket, context) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                wire.cut(Broken::Cut);
                return Poll::Ready(None);
            }
            Poll::Pending => false,
        };
        if is_written && wire.is_finished() {
            return Poll::Ready(None);
        }
        if is_written {
            wire.out.rest();
        }
        store(&mut wire.driver, context);
        let is_there = poll_peer(
            wire,
            (self.silence, self.is_lazy),
            &mut self.heard,
            &mut self.asked,
            self.sleep.as_mut(),
            context,
        );
        if is_there.is_ready() {
            wire.cut(Broken::Cut);
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Drives a connection on which nobody asks us anything.
    pub(super) async fn run(mut self) {
        while poll_fn(|context| self.poll(context)).await.is_some() {}
        self.close().await;
    }

    /// Lets the peer read what was said last, before what it still sends makes the kernel reset the connection.
    pub(super) async fn close(mut self) {
        let lingering = poll_fn(|context| {
            let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(context));
            loop {
                self.read.bytes.clear();
                if !matches!(ready!(self.read.poll_fill(&mut self.socket, context)), Ok(1..)) {
                    return Poll::Ready(());
                }
            }
        });
        let _ = tokio::time::timeout(LINGER, lingering).await; // it had its time
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.wire.borrow_mut().cut(Broken::Cut);
    }
}

/// Ready when the peer is not there, or not willing, any more. The timer is set again only when it fires.
fn poll_peer(
    wire: &mut Wire,
    (silence, is_lazy): (Duration, bool),
    heard: &mut Instant,
    asked: &mut Option<Instant>,
    mut sleep: Pin<&mut Sleep>,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        ready!(sleep.as_mut().poll(context));
        let now = Instant::now();
        if wire.block_began().is_some_and(|began| now >= began + BLOCK_TIMEOUT) {
            wire.fail(Fatal(Code::ENHANCE_YOUR_CALM, "a field block took too long"));
            return Poll::Ready(());
        }
        let next = match *asked {
            Some(asked) if now >= asked + PING_TIMEOUT => return Poll::Ready(()),
            Some(asked) => asked + PING_TIMEOUT,
            None if is_lazy && wire.open() == 0 => now + silence,
            None if now < *heard + silence => *heard + silence,
            None => {
                *asked = Some(now);
                frame::ping(wire.out.buffer(), 0, KEEP_ALIVE);
                wire.wake();
                now + PING_TIMEOUT
            }
        };
        sleep.as_mut().reset(next.into());
    }
}
