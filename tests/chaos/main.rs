//! Faults that take over a minute, much of the machine, or privileges: `make chaos`. What is quick is in `tests/faults`.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod crowd;
mod hardened;
mod network;
mod outside;
mod soak;

use lictor_testkit::{Sidecar, lictor};

/// A caller with one upstream, `users`, whose endpoints these are.
fn caller(endpoints: &[String], more: &str) -> Sidecar {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("'{endpoint}'")).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, static: [{}]{more}}}\n",
        endpoints.join(", ")
    );
    Sidecar::serve(lictor(), &yaml).up()
}
