//! Drives a connection: reads frames, writes what its streams have left, and sees to it that the peer is there.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

use super::frame::{self, Code};
use super::wire::{Broken, Event, Fatal, Output, Turn, Wire, store};
use crate::buffers::ReadAhead;
use crate::stream::Stream;

/// A PING is answered within this, or nobody is there.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that was given up asks whether the peer is there, unless it was heard within this.
const DOUBT: Duration = Duration::from_secs(1);
/// A field block is whole within this.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that is told why it is left has this long to read it.
const LINGER: Duration = Duration::from_secs(1);
/// And not for more than this that it still sends.
const LINGER_MAX: usize = 1 << 20;
const KEEP_ALIVE: [u8; 8] = *b"lictor?\n";

/// The connection's task.
#[derive(Debug)]
pub(super) struct Driver {
    wire: Rc<RefCell<Wire>>,
    socket: Stream,
    read: ReadAhead,
    turn: Turn,
    presence: Presence,
}

/// Whether the peer is there.
#[derive(Debug)]
struct Presence {
    /// After so much of it the peer is asked.
    silence: Duration,
    /// Only while there is something to wait for.
    is_lazy: bool,
    heard: Instant,
    asked: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Driver {
    pub(super) fn new(wire: Wire, socket: Stream, read: ReadAhead, silence: Duration, is_lazy: bool) -> Self {
        let heard = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(heard + silence));
        Self {
            wire: Rc::new(RefCell::new(wire)),
            socket,
            read,
            turn: Turn::default(),
            presence: Presence { silence, is_lazy, heard, asked: None, sleep },
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
            match wire.receive(&mut self.read.bytes, &mut self.turn) {
                Ok(Some(event)) => return Poll::Ready(Some(event)),
                Ok(None) => (),
                Err(fatal) => {
                    wire.fail(fatal);
                    break;
                }
            }
            if self.turn.is_over() {
                context.waker().wake_by_ref(); // what is left goes on when the worker's other tasks have had their turn
                break;
            }
            self.turn.read();
            match self.read.poll_fill(&mut self.socket, context) {
                Poll::Ready(Ok(1..)) => self.presence.heard(),
                Poll::Ready(ended) => {
                    if ended.is_err() {
                        wire.out = Output::default(); // who only says no more may still read what was answered
                    }
                    wire.cut(Broken::Cut);
                }
                Poll::Pending => break,
            }
        }
        self.turn = Turn::default();
        self.read.rest();
        let is_written = match wire.poll_write(&mut self.socket, context) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                wire.cut(Broken::Cut);
                return Poll::Ready(None);
            }
            Poll::Pending => false,
        };
        // Who has made an error, and reads nothing, is not told of it.
        if wire.is_over || (is_written && wire.is_finished()) {
            return Poll::Ready(None);
        }
        if is_written {
            wire.out.rest();
        }
        if wire.let_on() {
            context.waker().wake_by_ref();
        }
        store(&mut wire.driver, context);
        if self.presence.poll(wire, context).is_ready() {
            wire.cut(Broken::Cut);
            let _ = wire.poll_write(&mut self.socket, context); // the reason, if there is one
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
        let mut left = LINGER_MAX;
        let lingering = poll_fn(|context| {
            let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(context));
            while left > 0 {
                self.read.bytes.clear();
                match ready!(self.read.poll_fill(&mut self.socket, context)) {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    Ok(0) | Err(_) => break,
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(LINGER, lingering).await; // it had its time
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.wire.borrow_mut().cut(Broken::Cut);
    }
}

impl Presence {
    fn heard(&mut self) {
        (self.heard, self.asked) = (Instant::now(), None);
    }

    /// Ready when the peer is not there, or not willing, any more. The timer is set again only when it fires.
    fn poll(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<()> {
        let is_in_doubt = std::mem::take(&mut wire.is_in_doubt);
        if is_in_doubt && self.asked.is_none() && self.heard.elapsed() >= DOUBT {
            let next = self.ask(wire);
            self.sleep.as_mut().reset(next);
        }
        loop {
            ready!(self.sleep.as_mut().poll(context));
            let now = Instant::now();
            if wire.block_began().is_some_and(|began| now >= began + BLOCK_TIMEOUT) {
                wire.fail(Fatal(Code::ENHANCE_YOUR_CALM, "a field block took too long"));
                return Poll::Ready(());
            }
            let next = match self.asked {
                Some(asked) if now >= asked + PING_TIMEOUT => return Poll::Ready(()),
                Some(asked) => asked + PING_TIMEOUT,
                None if self.is_lazy && wire.is_idle() => now + self.silence,
                None if now < self.heard + self.silence => self.heard + self.silence,
                None => self.ask(wire),
            };
            self.sleep.as_mut().reset(next);
        }
    }

    /// Says until when there must be an answer.
    fn ask(&mut self, wire: &mut Wire) -> Instant {
        let now = Instant::now();
        self.asked = Some(now);
        frame::ping(wire.out.buffer(), 0, KEEP_ALIVE);
        wire.wake();
        now + PING_TIMEOUT
    }
}
