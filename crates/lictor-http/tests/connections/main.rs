//! Connections between this crate's servers and clients, or one of them and a raw peer: what lasts, ends and is carried.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod http1;
mod http1_clients;
mod http2;
mod sniffing;
mod support;
mod tls;
mod tunnels;
