//! The agent, as the rest of the crate speaks to it: calls over kept connections, the rules of a blocking query, and what
//! answers hold. Nothing here remembers what was answered.

mod blocking;
mod client;
mod error;
pub(crate) mod health;
pub(crate) mod kv;
mod random;

pub(crate) use blocking::{Ask, Backoff, Cursor, Throttle, Worth};
pub use client::encode;
pub(crate) use client::{Answer, Client, Connection, PATIENCE};
pub use error::ConsulError;
pub(crate) use health::Instance;
pub use kv::{KvEntry, KvKnown};
pub(crate) use random::Random;
