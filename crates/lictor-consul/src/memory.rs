//! What a later process begins with: Consul's last good answers, and the file that keeps them. Knows nothing of when it is
//! read or written.

pub(crate) mod disk;
mod remembered;

pub use remembered::RememberedKeys;
pub(crate) use remembered::{Contents, Remembered, RememberedClaims, RememberedKv, Scope, now_ms};
