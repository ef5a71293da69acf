//! Restarts under load, stops in the middle of things, and applications that do not behave.
