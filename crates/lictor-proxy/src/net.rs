//! Sockets: listening and dialling.

pub(crate) mod dial;
pub(crate) mod listen;
pub(crate) mod proxied;
