//! What services claim of the gateway by their tags.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lictor_config::{Claims, Consistency, Names, Tagged};
use tokio::sync::Notify;
use tracing::warn;

use super::known::Asked;
use crate::agent::{Answer, Ask, Connection, ConsulError, catalog};
use crate::status::Status;

/// The claims of all services.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// What their tags begin with.
    pub(crate) tag: String,
    /// Who may claim something.
    pub(crate) may: Names,
    /// It was told that there are more than are kept.
    pub(crate) is_cut: AtomicBool,
    pub(crate) datacenter: Option<String>,
    pub(crate) status: Arc<Status>,
    /// There is more to remember.
    pub(crate) changed: Arc<Notify>,
}

impl Asked for Catalog {
    type Known = Claims;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Claims), ConsulError> {
        let (wanted, datacenter) = ((&*self.tag, &self.may), self.datacenter.as_deref());
        let (answer, claimed) = catalog::get(connection, wanted, datacenter, ask, consistency).await?;
        let cut = claimed.cut;
        if !self.is_cut.swap(cut > 0, Ordering::Relaxed) && cut > 0 {
            warn!(target: "lictor::event", kind = "claims_cut", cut, "there are more tags that claim a route than are looked at");
        }
        Ok((answer, Claims { tag: self.tag.clone(), list: claimed.list }))
    }

    fn after(&self, before: &Claims, now: Claims) -> Claims {
        Claims { list: aged(&before.list, now.list), ..now }
    }

    fn is_loss(before: &Claims, now: &Claims) -> bool {
        let now: HashSet<&Tagged> = now.list.iter().collect();
        before.list.iter().any(|claim| !now.contains(claim))
    }

    fn answered(&self, index: u64, claims: &Claims, is_news: bool) {
        self.status.catalog_answered(index, claims.list.len());
        if is_news {
            self.changed.notify_one();
        }
    }

    fn failed(&self, error: &ConsulError) {
        self.status.catalog_failed(error);
    }
}

/// In the order in which they were seen first: of two that are for one place the older stays.
fn aged(before: &[Tagged], now: Vec<Tagged>) -> Vec<Tagged> {
    let known: HashSet<&Tagged> = before.iter().collect();
    let (old, new): (Vec<Tagged>, Vec<Tagged>) = now.into_iter().partition(|claim| known.contains(claim));
    let still: HashSet<&Tagged> = old.iter().collect();
    before.iter().filter(|claim| still.contains(claim)).cloned().chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_comes_first_and_what_comes_back_last() {
        let claims = |names: &str| -> Vec<Tagged> {
            let claim = |name: char| Tagged { service: name.to_string(), text: "/a".to_owned() };
            names.chars().map(claim).collect()
        };
        for (before, now, expected) in
            [("", "abc", "abc"), ("c", "abc", "cab"), ("ca", "abc", "cab"), ("cab", "bd", "bd"), ("ab", "", "")]
        {
            assert_eq!(aged(&claims(before), claims(now)), claims(expected), "{before}: {now}");
        }
    }
}
