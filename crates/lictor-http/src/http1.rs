//! HTTP/1.1 on both sides (RFC 9112): heads are parsed by httparse, everything else is here.
//!
//! One task serves a client's connection, and what it asks of a server is written and read by that same task: no channel
//! and no second task lie between the two sockets. [`head`] reads heads, [`body`] reads bodies, [`mod@write`] writes both;
//! [`server`] and [`client`] are the connections, [`incoming`] is what comes on the former. Reading is strict: whatever
//! could be understood in two ways is refused, so that no one further on understands it otherwise. Names of fields keep the
//! case that they came in, for peers that should not care but do.

pub(crate) mod body;
pub mod client;
pub mod head;
pub(crate) mod incoming;
pub mod server;
mod write;

pub use self::incoming::{Body, Interim};
pub use self::write::{Framing, HeadFields, Outgoing};
