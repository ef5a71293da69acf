//! A request from its head to the last byte of its answer: [`forward`] is where to begin to read.

mod answer;
pub(crate) mod ask;
mod attempt;
mod cached;
mod call;
pub(crate) mod ending;
pub(crate) mod explain;
mod fallback;
pub(crate) mod forward;
mod frames;
mod hedge;
mod mirror;
pub(crate) mod recoded;
pub(crate) mod replay;
pub(crate) mod respond;
mod run;
mod send;
mod sent;
mod token;
pub(crate) mod tunnel;
mod unanswered;
mod upgrade;
