//! The real lictor, a real Consul, real sockets. Without a Consul these tests fail: there is nothing to show then.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod checks;
mod clients;
mod commands;
mod configuration;
mod consul;
mod dashboard;
mod doctor;
mod documents;
mod evidence;
mod explain;
mod failover;
mod failures;
mod faults;
mod graph;
mod inbound;
mod init;
mod instances;
mod kv;
mod lifecycle;
mod listeners;
mod metrics;
mod reasons;
mod requests;
mod shares;
mod snapshot;
mod steering;
mod suspects;
mod tracing;
mod zones;

use lictor_testkit::{Backend, Consul, Sidecar};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");

/// A caller that is not registered itself, with one upstream `users` on a port of the kernel's choice.
fn caller(consul: &Consul, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nupstreams:\n  users: {{listen: 0{more}}}\n",
        consul.url()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// The same without Consul.
fn caller_of(backends: &[&Backend], more: &str) -> Sidecar {
    let endpoints: Vec<String> = backends.iter().map(|backend| format!("'127.0.0.1:{}'", backend.port())).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, static: [{}]{more}}}\n",
        endpoints.join(", ")
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// A sidecar that registers a backend as an instance of `users`.
fn beside(consul: &Consul, backend: &Backend, more: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\n{more}",
        backend.port(),
        consul.url()
    );
    Sidecar::serve(LICTOR, &yaml)
}
