//! Which upstreams are this machine's: its sources declare them, or its gateway calls them. They carry what this machine
//! shows of itself, so KV may tune them, and says nothing of where they are.

use crate::config::Gateway;
use crate::names::Names;
use crate::tree::{Tree, steps};

/// All of them, whether KV says something of them or not.
pub(crate) struct Ours<'t> {
    tree: &'t Tree,
    called: Names,
}

impl<'t> Ours<'t> {
    pub(crate) fn of(tree: &'t Tree, gateway: Option<&Gateway>) -> Self {
        Self { tree, called: gateway.into_iter().flat_map(Gateway::calls).collect() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.tree.is_kvs_own(&steps(&["upstreams", name])) || self.called.has(name)
    }
}
