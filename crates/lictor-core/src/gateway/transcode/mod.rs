//! gRPC-JSON transcoding: requests of REST become calls of gRPC, and their answers JSON, by a descriptor set
//! (`protoc --include_imports --descriptor_set_out`) and its `google.api.http` options or a map of the configuration's.
//!
//! | what | file |
//! |---|---|
//! | which method a path is for | [`template`], [`tree`] |
//! | path, query and body become a message | [`binding`], [`fields`], [`json`] |
//! | messages and failures become JSON | [`answer`], [`accept`] |
//! | what a descriptor set makes of it all | [`build`], [`terms`] |
//!
//! A path that no template has is nobody's: `/pkg.Service/Method` is no second door.

mod accept;
mod answer;
mod binding;
mod build;
mod fields;
mod json;
mod template;
mod terms;
#[cfg(test)]
mod tests;
mod tree;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::Method;
use prost_reflect::DescriptorPool;

use self::tree::Tree;

pub use accept::wants_lines;
pub use answer::{Answers, Unmade};
pub use binding::{Binding, Call};
pub use terms::{Mapped, Terms};

/// A longer descriptor set is not read: 4 MiB.
pub const DESCRIPTOR_MAX: usize = 4 << 20;

/// Which requests are for which methods.
#[derive(Debug)]
pub struct Transcode {
    terms: Terms,
    /// Of the descriptor set that they are of.
    fingerprint: u64,
    tree: Tree,
    bindings: Vec<Arc<Binding>>,
}

impl PartialEq for Transcode {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.terms == other.terms
    }
}

impl Transcode {
    /// Reads a descriptor set; in words why it does not do.
    pub fn new(descriptor: &[u8], terms: Terms) -> Result<Self, String> {
        let pool = DescriptorPool::decode(descriptor)
            .map_err(|why| format!("it is no descriptor set of `protoc --include_imports`: {why}"))?;
        let built = build::build(&pool, &terms)?;
        let mut hasher = DefaultHasher::new();
        descriptor.hash(&mut hasher);
        let bindings = built.bindings.into_iter().map(Arc::new).collect();
        Ok(Self { terms, fingerprint: hasher.finish(), tree: built.tree, bindings })
    }

    /// The method that a request is for, and its path's segments, which [`Binding::call`] reads.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(&Arc<Binding>, Vec<&'p str>)> {
        let (index, segments) = self.tree.find(method, path)?;
        Some((self.bindings.get(index)?, segments))
    }

    /// The longest message, and the longest body, in bytes.
    pub fn message_max(&self) -> usize {
        self.terms.message_max
    }
}
