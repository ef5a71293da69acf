//! lictor: a sidecar proxy for services on Consul.
//!
//! `main` reads the command line and hands over: [`boot`] runs the sidecar, [`cli`] holds the small commands.

mod acme;
mod admin;
mod app_metrics;
mod application;
mod boot;
mod changes;
mod child;
mod cli;
mod configured;
mod descendants;
mod doctor;
mod events;
mod exit;
mod family;
mod followed;
mod history;
mod keys;
mod lifecycle;
mod log;
mod maintenance;
mod metrics;
mod neighbours;
mod openmetrics;
mod otlp;
mod outside;
mod process_limits;
mod reload;
mod routes;
mod sagas;
mod signal;
mod supervisor;
mod term;
mod version;
mod words;

use std::process::ExitCode;

/// The image's binary is musl's, whose own allocator makes a request cost a fifth to a third more.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::of_process()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
