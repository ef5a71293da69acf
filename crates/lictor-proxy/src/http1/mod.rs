//! HTTP/1.1 on both sides of the request path (RFC 9112): heads are parsed by httparse, everything else is here.
//!
//! One task serves a client's connection, and what it asks of an upstream is written and read by that same task: no
//! channel and no second task lie between the two sockets. [`head`] reads heads, [`body`] reads bodies, [`mod@write`]
//! writes both; [`server`] and [`client`] are the connections. Reading is strict: whatever could be understood in two
//! ways is refused, so that no one further on understands it otherwise. Names of fields keep the case that they came
//! in, for peers that should not care but do.

pub(crate) mod body;
pub(crate) mod buffers;
pub(crate) mod client;
pub(crate) mod head;
pub(crate) mod server;
pub(crate) mod write;
