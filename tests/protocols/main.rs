//! What services say to each other, byte by byte: raw sockets on both sides of the real lictor. No Consul is needed.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]
#![allow(clippy::print_stdout, reason = "the figures of floods; --nocapture shows them")]

mod bearer;
mod caching;
mod coalescing;
#[path = "../../crates/lictor-http/tests/corpora/mod.rs"]
mod corpora;
mod expect;
mod fallback;
mod fields;
mod floods;
mod followed;
mod hedging;
mod hops;
mod http2_answers;
mod hygiene;
mod identity;
mod instance_floods;
mod keys;
mod shown;
mod sockets;
mod streams;
mod tcp;
mod tls;
mod trust;
mod tunnels;
mod upgrades;

use lictor_testkit::Sidecar;

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");

/// A caller with one upstream, `users`, whose endpoints are at these ports.
fn caller(ports: &[u16], more: &str) -> Sidecar {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, static: [{}]{more}}}\n",
        endpoints.join(", ")
    );
    Sidecar::serve(LICTOR, &yaml).up()
}
