//! The control plane: registers, watches Consul, and assembles the mesh.
//!
//! [`start`] spawns the control loop and one watch for each distinct query; [`Handle`] is how the rest of the program
//! speaks to it. The data plane never waits for anything here: it works from the last mesh that was published, for
//! as long as Consul is away.

mod agent;
mod app;
mod assemble;
mod blocking;
mod client;
mod control;
mod definition;
mod disk;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod guard;
mod handle;
mod health;
mod heartbeat;
mod kv;
mod probe;
mod random;
mod register;
mod resolve;
mod status;
mod tls;
mod watch;

pub use agent::{Agent, Reply};
pub use app::AppHealth;
pub use assemble::listeners;
pub use client::{ConsulError, encode};
pub use definition::{UPSTREAMS, named_upstreams};
pub use handle::{Handle, StartError, start};
pub use kv::{Kv, KvEntry, KvKnown};
pub use probe::probe;
pub use status::{DiskSnapshot, KvSnapshot, RegistrationState, Snapshot, Status, WatchSnapshot};
pub use tls::TlsError;
