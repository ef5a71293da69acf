//! What this build is; `build.rs` finds out the commit.

/// The package's version.
pub(crate) const NUMBER: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from; `unknown` where nobody could say.
pub(crate) const COMMIT: &str = env!("BUILT_FROM");
/// Both, as `--version` says them.
pub(crate) const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_FROM"), ")");
