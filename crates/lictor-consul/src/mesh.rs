//! From the configuration and observations to the next mesh: pure, and what did not change is the same `Arc`.

mod addresses;
mod assemble;
mod comings;
mod inputs;
mod upstream;

pub(crate) use addresses::{names, names_in};
pub use assemble::listeners;
pub(crate) use assemble::{assemble, is_news};
pub(crate) use comings::{Comings, named};
pub(crate) use inputs::{Changed, Inputs};
pub(crate) use upstream::BOOTSTRAP;
