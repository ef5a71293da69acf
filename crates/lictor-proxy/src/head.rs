//! Heads on their way: which fields have a meaning, and what a request's head becomes.

pub(crate) mod names;
