//! Which endpoint, and what its outcome means.

pub(crate) mod exchange;
pub(crate) mod pick;
pub(crate) mod verdict;
