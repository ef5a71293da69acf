//! A worker and what it has: its view of the mesh, its connections, its clients.

pub(crate) mod client;
pub(crate) mod generation;
pub(crate) mod pool;
pub(crate) mod redis;
pub(crate) mod room;
pub(crate) mod shared;
pub(crate) mod view;
pub(crate) mod worker;
