//! The agent, as the rest of the crate speaks to it: calls over kept connections, the rules of a blocking query, and what
//! answers hold. Nothing here remembers what was answered.

mod blocking;
pub(crate) mod catalog;
mod client;
mod connection;
mod error;
pub(crate) mod health;
mod home;
pub(crate) mod kv;
mod random;
pub(crate) mod session;
mod token;
pub(crate) mod transaction;

pub(crate) use blocking::{Ask, Backoff, Cursor, Throttle, Worth};
pub(crate) use client::Client;
pub use connection::encode;
pub(crate) use connection::{Answer, Connection, PATIENCE};
pub use error::ConsulError;
pub(crate) use health::Instance;
pub use kv::{KvEntry, KvFolder, KvKnown};
pub use random::Random;
