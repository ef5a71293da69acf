//! Families of metrics, as they come into the registry.

use prometheus::Registry;
use prometheus::core::Collector;

/// Adds a family.
pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> C {
    registry.register(Box::new(family.clone())).expect("each family is registered once");
    family
}
