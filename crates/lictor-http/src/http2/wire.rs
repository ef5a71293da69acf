//! What the tasks of one connection share: its [streams](stream), the windows and how streams begin and end ([`state`]), and
//! what is to be written ([`output`]). Frames come in through [`receive`] and, field blocks, [`block`]; they are written by
//! [`send`]. How much of it in a row, and who is let on when, is by [`turns`]. Nothing here waits.

mod block;
#[cfg(any(feature = "laws", test))]
pub(super) mod laws;
mod output;
mod receive;
mod send;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod turns;

pub(super) use self::output::Output;
pub(super) use self::receive::Event;
pub(super) use self::state::{Fatal, Wire};
pub(super) use self::stream::{Broken, Part, Shared, Unstarted, store};
pub(super) use self::turns::Turn;
