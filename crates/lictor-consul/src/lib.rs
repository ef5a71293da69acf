//! The control plane: registers, watches Consul, and assembles the mesh.
//!
//! [`start`] spawns the control loop and one watch for each distinct query; [`Handle`] is how the rest of the program
//! speaks to it. The data plane never waits for anything here: it works from the last mesh that was published, for
//! as long as Consul is away.

mod agent;
mod blocks;
mod commands;
mod control;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod handle;
mod keeper;
mod memory;
mod mesh;
mod registration;
mod status;
mod tls;
mod watch;

pub use agent::{ConsulError, KvEntry, KvFolder, KvKnown, Random, encode};
pub use blocks::{Blocks, Ended, Found, Held, Instances, LockWanted, Looking, NoLock, Offer, Written};
pub use blocks::{SagaHeld, SagaSeen, SagaSighted, SagaWatch, Sagas};
pub use commands::{Agent, Kv, Reply};
pub use handle::{Handle, StartError, start};
pub use memory::RememberedKeys;
pub use mesh::listeners;
pub use registration::{AppHealth, MetaPatch, Question, Relayed, Said, UPSTREAMS, Verdict, named_upstreams, probe};
pub use status::{CatalogStanding, DiskSnapshot, KvStanding, RegistrationState, Standing, Status, WatchStanding};
pub use tls::TlsError;
