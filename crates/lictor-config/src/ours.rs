//! Which upstreams are this machine's: its sources declare them, or its gateway calls them. They carry what this machine
//! shows of itself, so KV may tune them, and says nothing of where they are.

use std::collections::HashSet;

use crate::config::Gateway;
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

/// Names, and how names begin (`pay-*`).
#[derive(Default)]
pub(crate) struct Names {
    whole: HashSet<String>,
    begins: HashSet<String>,
}

impl Names {
    pub(crate) fn has(&self, name: &str) -> bool {
        let mut begins = (0..=name.len()).filter_map(|end| name.get(..end));
        self.whole.contains(name) || (!self.begins.is_empty() && begins.any(|begin| self.begins.contains(begin)))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            match pattern.as_ref().strip_suffix('*') {
                Some(begin) => names.begins.insert(begin.to_owned()),
                None => names.whole.insert(pattern.as_ref().to_owned()),
            };
        }
        names
    }
}
