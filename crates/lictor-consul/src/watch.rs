//! One watch: asks, believes or confirms, and tells the control loop. It ends when it is aborted.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use lictor_config::{Consistency, Guard, Query};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::blocking::{Ask, Cursor, Throttle, Worth};
use crate::client::{Answer, Client, Connection, ConsulError, encode};
use crate::health::{Condition, Instance, parse};
use crate::random::Random;
use crate::status::Status;

/// What a watch has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) instances: Vec<Instance>,
    /// Usable until a moment ago, and kept because the list became empty.
    pub(crate) suspects: Vec<Instance>,
}

/// News for the control loop.
#[derive(Debug)]
pub(crate) enum News {
    Seen(Query, Observed),
    /// The grace of this query's suspects is over.
    Forget(Query),
}

/// A watch's surroundings.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What the configuration asks for: the name of the news.
    pub(crate) key: Query,
    /// The same with the default datacenter filled in.
    pub(crate) query: Query,
    pub(crate) client: Arc<Client>,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    pub(crate) guard: Guard,
    pub(crate) status: Arc<Status>,
    pub(crate) news: mpsc::UnboundedSender<News>,
    pub(crate) random: Random,
}

impl Watch {
    /// Watches until aborted.
    pub(crate) async fn run(mut self) {
        let mut connection = Connection::new(&self.client, &self.connections);
        let mut cursor = Cursor::default();
        let mut throttle = Throttle::new(Instant::now());
        let mut known: Option<Observed> = None;
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let ask = cursor.ask(self.wait);
            let asked = Instant::now();
            let answer = self.fetch(&mut connection, ask, self.consistency).await;
            let (answer, instances) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    self.refused(&error);
                    tokio::time::sleep(cursor.failed(&error, self.random.share())).await;
                    continue;
                }
            };
            let worth = cursor.answered(ask, answer.index(), asked.elapsed());
            self.status.answered(&self.key, cursor.index(), instances.len());
            if worth == Worth::AskAgain {
                continue;
            }
            let observed = match self.judge(&mut connection, known.as_ref(), instances, worth).await {
                Ok(observed) => observed,
                Err(error) => {
                    // Not confirmed: what is known stays, and the list is read again.
                    self.refused(&error);
                    let pause = cursor.failed(&error, self.random.share());
                    cursor = Cursor::default();
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            if known.is_none() && observed.instances.is_empty() {
                self.hint(&answer);
            }
            if known.as_ref() == Some(&observed) {
                continue;
            }
            self.tell(&observed);
            known = Some(observed);
        }
    }

    async fn fetch(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Vec<Instance>), ConsulError> {
        let path = format!("/v1/health/service/{}", encode(&self.query.service));
        let (index, wait) = (ask.index.map(|index| index.to_string()), format!("{}ms", ask.wait.as_millis()));
        let mut query: Vec<(&str, &str)> = Vec::new();
        if let Some(index) = &index {
            query.extend([("index", index.as_str()), ("wait", wait.as_str())]);
        }
        match consistency {
            Consistency::Stale => query.push(("stale", "")),
            Consistency::Consistent => query.push(("consistent", "")),
            Consistency::Default => (),
        }
        query.extend(self.query.tags.iter().map(|tag| ("tag", tag.as_str())));
        query.extend(self.query.filter.iter().map(|filter| ("filter", filter.as_str())));
        query.extend(self.query.near.iter().map(|near| ("near", near.as_str())));
        query.extend(self.query.datacenter.iter().map(|datacenter| ("dc", datacenter.as_str())));
        // The server adds up to a sixteenth of the wait.
        let patience = if index.is_some() { ask.wait + ask.wait / 16 } else { Duration::ZERO } + Duration::from_secs(8);
        let answer = connection.get(&path, &query, patience).await?;
        let instances = parse(&answer.body).map_err(|error| ConsulError::Decode(error.to_string()))?;
        Ok((answer, instances))
    }

    /// Believes an answer, after confirming one that takes away more than the guard allows.
    async fn judge(
        &mut self,
        connection: &mut Connection,
        known: Option<&Observed>,
        instances: Vec<Instance>,
        worth: Worth,
    ) -> Result<Observed, ConsulError> {
        let Some(known) = known else { return Ok(Observed { instances, suspects: Vec::new() }) };
        let mut instances = instances;
        carry_over(known, &mut instances);
        if is_loss(&known.instances, &instances, self.guard.max_removal, worth) {
            let now = Ask { index: None, wait: self.wait };
            (_, instances) = self.fetch(connection, now, Consistency::Consistent).await?;
            carry_over(known, &mut instances);
        }
        let suspects = suspects(known, &instances, &self.guard);
        if !suspects.is_empty() && known.suspects.is_empty() {
            warn!(
                target: "lictor::event",
                kind = "empty_kept",
                service = %self.query.service,
                kept = suspects.len(),
                for_ms = self.guard.keep_for.as_millis() as u64,
                "no healthy instance is left; the last ones are kept for a while"
            );
            let (news, query, keep_for) = (self.news.clone(), self.key.clone(), self.guard.keep_for);
            tokio::spawn(async move {
                tokio::time::sleep(keep_for).await;
                let _ = news.send(News::Forget(query));
            });
        }
        Ok(Observed { instances, suspects })
    }

    fn tell(&self, observed: &Observed) {
        let usable = observed.instances.iter().filter(|instance| instance.is_usable()).count();
        info!(
            target: "lictor::event",
            kind = "endpoints_changed",
            service = %self.query.service,
            instances = observed.instances.len(),
            usable,
            "the instances of a service changed"
        );
        let _ = self.news.send(News::Seen(self.key.clone(), observed.clone()));
    }

    fn refused(&self, error: &ConsulError) {
        if error.is_denied() {
            self.client.reload_token();
        }
        self.status.failed(&self.key, error);
    }

    /// An empty first answer is what a token without rights gets too.
    fn hint(&self, answer: &Answer) {
        let is_filtered = answer.headers.get("x-consul-results-filtered-by-acls").is_some_and(|value| value == "true");
        let default_deny = answer.headers.get("x-consul-default-acl-policy").is_some_and(|value| value == "deny");
        if is_filtered || (default_deny && !self.client.has_token()) {
            warn!(service = %self.query.service, "Consul's ACLs hide instances: the token needs service:read and node:read");
        } else if !self.client.has_token() {
            info!(service = %self.query.service, "no instance is registered (or ACLs hide them: there is no Consul token)");
        }
    }
}

/// An instance that was usable, and whose check has not run since the agent restarted, is what it was.
fn carry_over(known: &Observed, instances: &mut [Instance]) {
    for instance in instances.iter_mut().filter(|instance| instance.condition == Condition::Unchecked) {
        let mut before = known.instances.iter().chain(&known.suspects);
        let before = before.find(|old| old.node == instance.node && old.id == instance.id && old.is_usable());
        if let Some(before) = before {
            instance.condition = before.condition;
        }
    }
}

/// Whether so much is gone that it needs confirming.
fn is_loss(known: &[Instance], now: &[Instance], max_removal: f64, worth: Worth) -> bool {
    let usable = |instances: &[Instance]| instances.iter().filter(|instance| instance.is_usable()).count();
    let (before, after) = (usable(known), usable(now));
    let gone = before.saturating_sub(after);
    before > 0 && gone > 0 && (after == 0 || worth == Worth::Doubt || gone as f64 > before as f64 * max_removal)
}

/// Whom to keep when nobody usable is left: everybody who was usable, except who was taken out on purpose.
fn suspects(known: &Observed, now: &[Instance], guard: &Guard) -> Vec<Instance> {
    if !guard.keep_on_empty || now.iter().any(Instance::is_usable) {
        return Vec::new();
    }
    let left_on_purpose = |old: &Instance| {
        now.iter().any(|new| new.node == old.node && new.id == old.id && new.condition == Condition::Maintenance)
    };
    let before = known.instances.iter().filter(|instance| instance.is_usable()).chain(&known.suspects);
    before.filter(|instance| !left_on_purpose(instance)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn instance(id: &str, condition: Condition) -> Instance {
        Instance {
            node: "n".to_owned(),
            id: id.to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 80,
            tags: vec![],
            meta: BTreeMap::new(),
            weight_passing: 1,
            weight_warning: 1,
            condition,
        }
    }

    fn guard() -> Guard {
        let (within, keep_for) = (Duration::from_secs(10), Duration::from_secs(30));
        Guard { max_removal: 0.5, within, keep_on_empty: true, keep_for }
    }

    #[test]
    fn one_of_three_may_go_but_two_or_all_need_confirming() {
        let three: Vec<_> = ["a", "b", "c"].iter().map(|id| instance(id, Condition::Passing)).collect();
        let loss = |left: usize, worth| is_loss(&three, &three[..left], 0.5, worth);
        assert!(!loss(3, Worth::Believe) && !loss(2, Worth::Believe));
        assert!(loss(1, Worth::Believe) && loss(0, Worth::Believe));
        assert!(loss(2, Worth::Doubt), "after the index went back any loss does");
        assert!(!is_loss(&[], &three, 0.5, Worth::Doubt));
    }

    #[test]
    fn a_check_that_has_not_run_yet_changes_nothing_for_who_was_known() {
        let known = Observed { instances: vec![instance("a", Condition::Warning)], suspects: vec![] };
        let mut now = [instance("a", Condition::Unchecked), instance("b", Condition::Unchecked)];
        carry_over(&known, &mut now);
        assert_eq!((now[0].condition, now[1].condition), (Condition::Warning, Condition::Unchecked));
    }

    #[test]
    fn who_was_last_is_kept_unless_taken_out_on_purpose() {
        let known = Observed {
            instances: vec![instance("a", Condition::Passing), instance("b", Condition::Passing)],
            suspects: vec![],
        };
        assert_eq!(suspects(&known, &[], &guard()).len(), 2);
        assert_eq!(suspects(&known, &[instance("a", Condition::Critical)], &guard()).len(), 2);
        assert_eq!(suspects(&known, &[instance("a", Condition::Maintenance)], &guard()).len(), 1);
        assert!(suspects(&known, &[instance("b", Condition::Passing)], &guard()).is_empty());
        let drops = Guard { keep_on_empty: false, ..guard() };
        assert!(suspects(&known, &[], &drops).is_empty());
        let later = Observed { instances: vec![], suspects: known.instances };
        assert_eq!(suspects(&later, &[], &guard()).len(), 2, "they stay until they are forgotten");
    }
}
