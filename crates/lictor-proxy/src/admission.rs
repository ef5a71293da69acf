//! Whether a request goes out, to whom, and when: a closed list, in the order in which it is asked. A stage may refuse with a
//! `Failure`; none of them sends anything.

pub(crate) mod cache;
pub(crate) mod inbound;
pub(crate) mod leave;
pub(crate) mod permit;
pub(crate) mod target;
