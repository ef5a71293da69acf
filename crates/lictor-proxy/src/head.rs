//! What a request's head becomes on its way.

pub(crate) mod forwards;
pub(crate) mod rewrite;
