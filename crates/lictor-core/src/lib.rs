//! What the mesh *is* and how policy *decides*.
//!
//! This crate has no I/O, no clock and no runtime: time and randomness are arguments. The lexicon, one word an idea:
//!
//! - A **service** is what Consul names. An **upstream** is a service that we call, with our [`policy`] for it.
//! - An **endpoint** is one instance of a service: an address that can be dialled.
//! - A **listener** is a local address that applications (or, inbound, other sidecars) connect to.
//! - A **route** is a method and path pattern of an upstream, with its own policy.
//! - An **attempt** is one try at one endpoint; a request is one or more attempts.
//! - The **mesh** is the immutable snapshot of all of this that the data plane works from.

pub mod acme;
pub mod address;
pub mod balance;
pub mod bearer;
pub mod breaker;
pub mod budget;
pub mod caching;
pub mod candidates;
pub mod cidr;
pub mod deadline;
pub mod ejection;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod gateway;
mod hash;
pub mod health;
pub mod latency;
pub mod limit;
pub mod limits;
mod load;
pub mod mesh;
pub mod outcome;
pub mod plain;
pub mod policy;
pub mod redact;
mod rendezvous;
pub mod retry;
pub mod route;
pub mod saga;
pub mod secret;
pub mod standout;
pub mod steering;
pub mod story;
pub mod tls;
pub mod trace;
pub mod track;
pub mod zones;

pub use address::Address;
pub use hash::ByName;
pub use mesh::{Endpoint, EndpointKey, Mesh, Upstream};
pub use outcome::{Failure, Reason};
pub use policy::Policy;
pub use secret::Secret;
