//! What services say to each other, byte by byte: raw sockets on both sides of the real lictor. No Consul is needed.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod http1_requests;
mod http1_responses;
mod http2_frames;

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
