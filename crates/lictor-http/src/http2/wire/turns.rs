//! Whose turn it is: how much a connection does before the worker's other tasks have their turn ([`Turn`]), and in which
//! order those of its own are let on ([`Queue`], [`Starters`], [`Rise`]). What is written, and whether it may be, is not
//! known here.
//!
//! The rule: a frame costs us no more than a bounded number of steps, whatever it says and however many streams are open. It
//! changes one stream, or a number of the connection's that holds for all of them. Whom that lets on, who may be many, is
//! woken a few in a turn, and no more of them than there is something for: a window that grows by one byte lets one on.

use std::collections::{HashSet, VecDeque};
use std::task::{Context, Waker};

/// So many are let on in a turn, or looked at.
pub(super) const LET_ON_MAX: usize = 64;
/// One more is let on for each such piece of a window, or of the room to write.
const SHARE: usize = 1 << 10;

/// What a connection has done since others had their turn. A unit is about a tenth of a microsecond.
#[derive(Debug, Default)]
pub(in crate::http2) struct Turn(u32);

impl Turn {
    /// Less than half a millisecond: about 32 requests, 256 KiB of DATA or a thousand empty frames.
    const MAX: u32 = 4096;
    /// With waking one that it is for.
    const FRAME: u32 = 4;
    /// Bytes of DATA, and of what is only copied, for a unit.
    const BYTES: u32 = 64;
    /// Bytes of field blocks: each may be a field.
    const BLOCK_BYTES: u32 = 4;
    const EVENT: u32 = 100;
    const READ: u32 = 64;

    pub(in crate::http2) fn is_over(&self) -> bool {
        self.0 >= Self::MAX
    }

    pub(super) fn frame(&mut self, length: usize, is_block: bool) {
        self.0 += Self::FRAME + length as u32 / if is_block { Self::BLOCK_BYTES } else { Self::BYTES };
    }

    /// Something for others to do has come.
    pub(super) fn event(&mut self) {
        self.0 += Self::EVENT;
    }

    pub(in crate::http2) fn read(&mut self) {
        self.0 += Self::READ;
    }
}

/// How many there is something for, at least one.
pub(super) fn shares(room: usize) -> usize {
    (room / SHARE).clamp(1, LET_ON_MAX)
}

/// Streams that wait for the same, by number. Those that have had some of it wait behind those that have not.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Are let on, one after the other.
    now: VecDeque<u32>,
    /// Then these, and then those behind: who comes later passes nobody.
    next: Vec<u32>,
    behind: Vec<u32>,
}

impl Queue {
    pub(super) fn push(&mut self, id: u32, has_had_some: bool) {
        (if has_had_some { &mut self.behind } else { &mut self.next }).push(id);
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        if self.now.is_empty() {
            self.now.extend(self.next.drain(..).chain(self.behind.drain(..)));
        }
        self.now.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.next.is_empty() && self.behind.is_empty()
    }
}

/// Who waits to begin a stream, in the order in which they came. Who has given up stays until it is his turn.
#[derive(Debug, Default)]
pub(super) struct Starters {
    waiting: VecDeque<(u64, Waker)>,
    newest: u64,
    /// So many of the first may look again.
    due: usize,
}

impl Starters {
    /// Waits with this ticket, or a new one: however often it is asked, its place is one.
    pub(super) fn wait(&mut self, ticket: &mut Option<u64>, context: &Context<'_>) {
        let place = ticket.and_then(|ticket| self.waiting.binary_search_by_key(&ticket, |(held, _)| *held).ok());
        match place {
            Some(at) => self.waiting[at].1.clone_from(context.waker()),
            None => {
                self.newest += 1;
                *ticket = Some(self.newest);
                self.waiting.push_back((self.newest, context.waker().clone()));
            }
        }
    }

    /// All who wait now may look again, in their turn.
    pub(super) fn admit(&mut self) {
        self.due = self.waiting.len();
    }

    pub(super) fn is_due(&self) -> bool {
        self.due > 0
    }

    pub(super) fn let_on(&mut self, at_most: usize) {
        let count = at_most.min(self.due);
        self.due -= count;
        self.waiting.drain(..count).for_each(|(_, waker)| waker.wake());
    }

    /// Nobody has anything to wait for any more.
    pub(super) fn release(&mut self) {
        self.admit();
        self.let_on(usize::MAX);
    }
}

/// The windows of all streams have grown at once: which of them were looked at since, to let them on.
#[derive(Debug, Default)]
pub(super) struct Rise {
    /// The last that was, by number.
    pub(super) after: u32,
    pub(super) left: usize,
}

/// Streams that we have reset, of which something may still be on its way: the newest, so that each frame is looked up in
/// one step.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    order: VecDeque<u32>,
    ids: HashSet<u32>,
}

impl Forgotten {
    pub(super) fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn insert(&mut self, id: u32, kept: usize) {
        if self.order.len() >= kept
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
        self.ids.insert(id);
    }

    #[cfg(any(feature = "laws", test))]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
