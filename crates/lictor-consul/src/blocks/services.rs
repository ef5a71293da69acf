//! The catalog, as applications see it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Consistency, Query};
use serde::Serialize;

use super::shared::{Failed, tell};
use crate::agent::{Answer, Ask, Connection, ConsulError, Instance, catalog, health};
use crate::watch::Asked;

/// A service that somebody offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// The tags of all its instances.
    pub tags: Vec<String>,
}

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Found {
    /// Its id, which its agent knows once.
    pub id: String,
    /// The node of its agent.
    pub node: String,
    /// An address, or a host's name.
    pub address: String,
    /// 0: it has none.
    pub port: u16,
    /// The worst of its checks: `passing`, `warning`, `unchecked`, `critical` or `maintenance`.
    pub status: &'static str,
    /// Of requests, beside others; 0: it should get none.
    pub weight: u32,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// It may be called.
    #[serde(skip)]
    pub is_usable: bool,
}

impl From<Instance> for Found {
    fn from(instance: Instance) -> Self {
        Self {
            status: instance.condition.as_str(),
            weight: instance.weight(),
            is_usable: instance.is_usable(),
            id: instance.id,
            node: instance.node,
            address: instance.host,
            port: instance.port,
            tags: instance.tags,
            meta: instance.meta,
        }
    }
}

/// All services.
pub(super) async fn all(
    connection: &mut Connection,
    datacenter: Option<&str>,
    consistency: Consistency,
) -> Result<Vec<Offer>, ConsulError> {
    let now = Ask { index: None, wait: Duration::ZERO };
    let services = catalog::services(connection, datacenter, now, consistency).await?;
    let offers = services.into_iter().map(|(name, tags)| {
        let mut tags = tags.unwrap_or_default();
        tags.sort_unstable(); // Consul has them in any order
        Offer { name, tags }
    });
    Ok(offers.collect())
}

/// The instances of a service.
#[derive(Debug)]
pub(super) struct ServiceAsked {
    pub(super) query: Query,
    pub(super) failed: Failed,
}

impl Asked for ServiceAsked {
    type Known = Arc<Vec<Found>>;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Self::Known), ConsulError> {
        let (answer, instances) = health::get(connection, &self.query, ask, consistency).await?;
        Ok((answer, Arc::new(instances.into_iter().map(Found::from).collect())))
    }

    fn is_loss(before: &Self::Known, now: &Self::Known) -> bool {
        let usable = |found: &&Found| found.is_usable;
        let now: HashSet<(&str, &str)> = now.iter().filter(usable).map(|found| (&*found.node, &*found.id)).collect();
        before.iter().filter(usable).any(|found| !now.contains(&(&*found.node, &*found.id)))
    }

    fn answered(&self, _index: u64, _known: &Self::Known, _is_news: bool) {}

    /// That Consul is away the watches of upstreams tell.
    fn failed(&self, error: &ConsulError) {
        tell(&self.failed, error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_no_more_or_should_not_be_called_is_a_loss() {
        let found = |id: &str, is_usable| Found {
            id: id.to_owned(),
            node: "n".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 1,
            status: "passing",
            weight: 1,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            is_usable,
        };
        for (before, now, is_loss) in [
            (vec![], vec![found("a", true)], false),
            (vec![found("a", true)], vec![found("a", true), found("b", true)], false),
            (vec![found("a", true)], vec![found("a", false)], true),
            (vec![found("a", true)], vec![], true),
            (vec![found("a", false)], vec![], false),
        ] {
            assert_eq!(
                ServiceAsked::is_loss(&Arc::new(before.clone()), &Arc::new(now.clone())),
                is_loss,
                "{before:?} {now:?}"
            );
        }
    }
}
