//! What happened: each request and connection has books that are closed once, and closing them tells metrics, log, traces and
//! recorder.

mod access;
pub(crate) mod attempts;
mod closing;
pub(crate) mod passage;
pub(crate) mod record;
pub(crate) mod refused;
mod spans;
