//! The same for longer: over a minute each, so `make chaos` runs them.
