//! When a smaller answer is believed, without I/O.
//!
//! A server that replays its log answers with empty and partial lists (hashicorp/consul #4103), and nothing in them
//! says so. So an answer that takes away too much of what was usable lately, or anything at all after the index went
//! back, is confirmed with a consistent read before it counts. A list that is confirmed to be empty still leaves the
//! last endpoints in use for a while, as suspects: an outage of the checks is more likely than one of the service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lictor_config::Guard as Policy;

use crate::agent::Instance;
use crate::agent::health::Condition;

/// What a watch has seen, and what of it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) instances: Vec<Instance>,
    /// Usable until a moment ago, and kept because nobody usable is left.
    pub(crate) suspects: Vec<Instance>,
}

impl Observed {
    /// Everybody as last seen well, for a time when Consul cannot be asked: a suspect counts as it was.
    pub(crate) fn last_good(&self) -> Vec<Instance> {
        let is_suspect = |known: &&Instance| self.suspects.iter().any(|suspect| id(suspect) == id(known));
        let certain = self.instances.iter().filter(|known| !is_suspect(known));
        let mut all: Vec<Instance> = certain.chain(&self.suspects).cloned().collect();
        all.sort_by_key(id);
        all
    }
}

/// The memory of one watch.
#[derive(Debug)]
pub(crate) struct Guard {
    policy: Policy,
    observed: Option<Observed>,
    /// It is from before this process began.
    is_remembered: bool,
    /// When each instance was usable for the last time, as far back as the policy looks.
    lately: BTreeMap<(String, String), Instant>,
    suspected_until: Option<Instant>,
    /// ACLs hid some of the last answer that was believed.
    is_filtered: bool,
    /// ACLs hide some whom we knew.
    hides: bool,
}

/// What ACLs hide of what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// This many, and none before.
    Since(usize),
    /// Some or none, as before.
    AsBefore,
    /// None, unlike before.
    NoMore,
}

impl Guard {
    pub(crate) fn new(policy: Policy) -> Self {
        let (is_remembered, is_filtered, hides) = Default::default();
        let (observed, lately, suspected_until) = Default::default();
        Self { policy, observed, is_remembered, lately, suspected_until, is_filtered, hides }
    }

    /// What was known before this process began counts like an answer; whatever Consul says first is news all the same.
    pub(crate) fn remember(&mut self, instances: Vec<Instance>, now: Instant) {
        self.lately.extend(usable(&instances).map(|instance| (id(instance), now)));
        self.observed = Some(Observed { instances, suspects: Vec::new() });
        self.is_remembered = true;
    }

    /// Whether there was an answer that counted.
    pub(crate) fn is_known(&self) -> bool {
        self.observed.is_some()
    }

    /// Whether all that is known is from before this process began.
    pub(crate) fn is_remembered(&self) -> bool {
        self.is_remembered
    }

    /// An instance that was usable, and whose check has not run since the agent restarted, is what it was.
    pub(crate) fn carry_over(&self, instances: &mut [Instance]) {
        let Some(observed) = &self.observed else { return };
        for instance in instances.iter_mut().filter(|instance| instance.condition == Condition::Unchecked) {
            let mut before = observed.instances.iter().chain(&observed.suspects);
            let before = before.find(|old| old.node == instance.node && old.id == instance.id && old.is_usable());
            if let Some(before) = before {
                instance.condition = before.condition;
            }
        }
    }

    /// Adds to an answer that ACLs have filtered whom it hides: those who were usable and are not in it, as they were.
    /// What a token may see says nothing about them. Where ACLs hid some all along, few who are missing are gone, as from any
    /// answer; the rest is hidden.
    pub(crate) fn unhide(&mut self, instances: &mut Vec<Instance>, is_doubtful: bool, now: Instant) -> Hidden {
        let Some(observed) = &self.observed else {
            self.is_filtered = true;
            return Hidden::AsBefore;
        };
        let known = usable(&observed.instances);
        let hidden: Vec<Instance> = known.filter(|known| find(instances, &id(known)).is_none()).cloned().collect();
        let is_kept =
            !hidden.is_empty() && (!self.is_filtered || self.hides || self.doubts(instances, is_doubtful, now));
        let had = std::mem::replace(&mut self.hides, is_kept);
        if !is_kept {
            self.is_filtered = true;
            return if had { Hidden::NoMore } else { Hidden::AsBefore };
        }
        let count = hidden.len();
        instances.extend(hidden);
        instances.sort_by_key(id);
        instances.dedup_by_key(|instance| id(instance));
        if had { Hidden::AsBefore } else { Hidden::Since(count) }
    }

    /// ACLs hide nothing of an answer.
    pub(crate) fn sees_all(&mut self) -> Hidden {
        self.is_filtered = false;
        if std::mem::take(&mut self.hides) { Hidden::NoMore } else { Hidden::AsBefore }
    }

    /// Whether an answer takes away so much that it has to be confirmed first.
    pub(crate) fn doubts(&self, instances: &[Instance], is_doubtful: bool, now: Instant) -> bool {
        let Some(observed) = &self.observed else { return false };
        let stays = |id: &(String, String)| {
            // Somebody takes it out on purpose: that is no loss.
            find(instances, id).is_some_and(|new| new.is_usable() || new.condition == Condition::Maintenance)
        };
        let loses_now = usable(&observed.instances).map(id).any(|id| !stays(&id));
        if !loses_now {
            return false;
        }
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= self.policy.within;
        let lately = self.lately.iter().filter(|(_, at)| is_recent(at)).map(|(id, _)| id.clone());
        let all: BTreeSet<(String, String)> = usable(&observed.instances).map(id).chain(lately).collect();
        let gone = all.iter().filter(|id| !stays(id)).count();
        let is_empty = usable(instances).next().is_none();
        is_empty || is_doubtful || gone as f64 > all.len() as f64 * self.policy.max_removal
    }

    /// Takes an answer that counts; what there is now, if that is news.
    pub(crate) fn take(&mut self, instances: Vec<Instance>, now: Instant) -> Option<Observed> {
        let is_first = self.observed.is_none() || std::mem::take(&mut self.is_remembered);
        let before = self.observed.take().unwrap_or_default();
        for instance in usable(&before.instances).chain(usable(&instances)) {
            self.lately.insert(id(instance), now);
        }
        let within = self.policy.within;
        self.lately.retain(|_, at| now.saturating_duration_since(*at) <= within);
        let suspects = self.suspects(&before, &instances);
        self.suspected_until = match (suspects.is_empty(), self.suspected_until) {
            (true, _) => None,
            (false, Some(until)) => Some(until),
            (false, None) => Some(now + self.policy.keep_for),
        };
        let after = Observed { instances, suspects };
        let is_news = is_first || before != after;
        self.observed = Some(after.clone());
        is_news.then_some(after)
    }

    /// When the grace of the suspects ends.
    pub(crate) fn suspected_until(&self) -> Option<Instant> {
        self.suspected_until
    }

    /// What there is when it ends.
    pub(crate) fn without_suspects(&self) -> Observed {
        let instances = self.observed.as_ref().map(|observed| observed.instances.clone()).unwrap_or_default();
        Observed { instances, suspects: Vec::new() }
    }

    /// It has ended.
    pub(crate) fn drop_suspects(&mut self) {
        self.suspected_until = None;
        if let Some(observed) = &mut self.observed {
            observed.suspects.clear();
        }
    }

    /// For messages.
    pub(crate) fn grace(&self) -> Duration {
        self.policy.keep_for
    }

    /// Whom to keep when nobody usable is left: everybody who was usable, except who was taken out on purpose.
    fn suspects(&self, before: &Observed, now: &[Instance]) -> Vec<Instance> {
        if !self.policy.keep_on_empty || usable(now).next().is_some() {
            return Vec::new();
        }
        let is_taken_out =
            |old: &Instance| find(now, &id(old)).is_some_and(|new| new.condition == Condition::Maintenance);
        let last = usable(&before.instances).chain(&before.suspects);
        last.filter(|instance| !is_taken_out(instance)).cloned().collect()
    }
}

fn usable(instances: &[Instance]) -> impl Iterator<Item = &Instance> {
    instances.iter().filter(|instance| instance.is_usable())
}

fn id(instance: &Instance) -> (String, String) {
    (instance.node.clone(), instance.id.clone())
}

/// Answers are sorted when they are parsed.
fn find<'a>(instances: &'a [Instance], (node, id): &(String, String)) -> Option<&'a Instance> {
    let at = instances.binary_search_by(|instance| (&instance.node, &instance.id).cmp(&(node, id)));
    at.ok().map(|at| &instances[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_has_not_run_yet_changes_nothing_for_who_was_known() {
        let policy = Policy {
            max_removal: 0.5,
            within: Duration::from_secs(10),
            keep_on_empty: true,
            keep_for: Duration::from_secs(30),
        };
        let mut guard = Guard::new(policy);
        guard.take(vec![instance("a", Condition::Warning)], Instant::now());
        let mut now = [instance("a", Condition::Unchecked), instance("b", Condition::Unchecked)];
        guard.carry_over(&mut now);
        assert_eq!((now[0].condition, now[1].condition), (Condition::Warning, Condition::Unchecked));
    }

    fn instance(id: &str, condition: Condition) -> Instance {
        Instance {
            node: "n".to_owned(),
            id: id.to_owned(),
            service: String::new(),
            host: "127.0.0.1".to_owned(),
            port: 80,
            tags: vec![],
            meta: BTreeMap::new(),
            weight_passing: 1,
            weight_warning: 1,
            condition,
        }
    }

    fn passing(ids: &[&str]) -> Vec<Instance> {
        ids.iter().map(|id| instance(id, Condition::Passing)).collect()
    }

    fn guard(keep_on_empty: bool, ids: &[&str], now: Instant) -> Guard {
        let (within, keep_for) = (Duration::from_secs(10), Duration::from_secs(30));
        let mut guard = Guard::new(Policy { max_removal: 0.5, within, keep_on_empty, keep_for });
        guard.take(passing(ids), now).expect("the first answer is news");
        guard
    }

    #[test]
    fn the_first_answer_is_news_even_when_it_is_empty() {
        let now = Instant::now();
        let mut guard = guard(true, &[], now);
        assert!(guard.is_known());
        assert_eq!(guard.take(vec![], now), None);
    }

    #[test]
    fn one_of_three_may_go_but_two_or_all_need_confirming() {
        let now = Instant::now();
        let guard = guard(true, &["a", "b", "c"], now);
        assert!(!guard.doubts(&passing(&["a", "b", "c"]), true, now), "nothing is lost");
        assert!(!guard.doubts(&passing(&["a", "b"]), false, now));
        assert!(guard.doubts(&passing(&["a"]), false, now));
        assert!(guard.doubts(&[], false, now));
        assert!(guard.doubts(&passing(&["a", "b"]), true, now), "after the index went back any loss does");
        assert!(guard.doubts(&passing(&["x", "y", "z"]), false, now), "others instead are a loss too");
    }

    #[test]
    fn one_after_the_other_in_a_short_time_is_as_much_as_all_at_once() {
        let now = Instant::now();
        let mut slowly = guard(true, &["a", "b", "c", "d"], now);
        let mut quickly = guard(true, &["a", "b", "c", "d"], now);
        for (seconds, guard) in [(60, &mut slowly), (1, &mut quickly)] {
            let step = Duration::from_secs(seconds);
            guard.take(passing(&["a", "b", "c"]), now + step);
            guard.take(passing(&["a", "b"]), now + step * 2);
        }
        assert!(!slowly.doubts(&passing(&["a"]), false, now + Duration::from_secs(180)));
        assert!(quickly.doubts(&passing(&["a"]), false, now + Duration::from_secs(3)));
    }

    #[test]
    fn who_is_in_maintenance_leaves_without_confirming_and_at_once() {
        let now = Instant::now();
        let mut guard = guard(true, &["a"], now);
        let drained = vec![instance("a", Condition::Maintenance)];
        assert!(!guard.doubts(&drained, false, now));
        let observed = guard.take(drained, now).unwrap();
        assert!(observed.suspects.is_empty());
        assert!(guard.take(vec![], now).unwrap().suspects.is_empty(), "nor does it come back when it deregisters");
    }

    #[test]
    fn who_was_last_is_kept_for_a_while_and_no_longer() {
        let now = Instant::now();
        let mut guard = guard(true, &["a", "b"], now);
        let critical = vec![instance("a", Condition::Critical)];
        assert_eq!(guard.take(critical, now).unwrap().suspects.len(), 2);
        let until = now + Duration::from_secs(30);
        assert_eq!(guard.suspected_until(), Some(until));
        let later = now + Duration::from_secs(20);
        assert_eq!(guard.take(vec![], later).unwrap().suspects.len(), 2);
        assert_eq!(guard.suspected_until(), Some(until), "a further empty answer does not lengthen it");
        assert_eq!(guard.without_suspects(), Observed::default());
        guard.drop_suspects();
        assert_eq!(guard.take(vec![instance("c", Condition::Critical)], until).unwrap().suspects, []);
        assert_eq!(guard.suspected_until(), None, "who is forgotten stays forgotten");
    }

    #[test]
    fn somebody_usable_ends_the_grace() {
        let now = Instant::now();
        let mut guard = guard(true, &["a", "b"], now);
        guard.take(vec![], now);
        assert!(guard.take(passing(&["b"]), now).unwrap().suspects.is_empty());
        assert_eq!(guard.suspected_until(), None);
    }

    #[test]
    fn what_is_remembered_is_guarded_like_an_answer_and_the_first_answer_is_news() {
        let now = Instant::now();
        let mut guard = guard(true, &[], now);
        guard.remember(passing(&["a", "b", "c"]), now);
        assert!(guard.doubts(&[], false, now) && guard.doubts(&passing(&["a"]), false, now));
        let mut confirmed = guard.take(passing(&["a", "b", "c"]), now).expect("Consul has said so");
        assert!(confirmed.suspects.is_empty());
        assert_eq!(guard.take(passing(&["a", "b", "c"]), now), None, "once");
        confirmed = guard.take(vec![instance("a", Condition::Critical)], now).unwrap();
        assert_eq!(confirmed.last_good(), passing(&["a", "b", "c"]));
    }

    #[test]
    fn whom_acls_hide_stays_until_they_hide_nobody() {
        let now = Instant::now();
        for answer in [&[][..], &["a"], &["a", "b"], &["a", "x"]] {
            let mut guard = guard(true, &["a", "b", "c"], now);
            let mut seen = passing(answer);
            let count = 3 - answer.iter().filter(|id| **id != "x").count();
            assert_eq!(guard.unhide(&mut seen, false, now), Hidden::Since(count), "{answer:?}");
            assert!(["a", "b", "c"].iter().all(|id| seen.iter().any(|it| it.id == *id)), "{answer:?}");
            assert!(!guard.doubts(&seen, true, now), "nothing is lost");
            guard.take(seen, now);
            let mut again = passing(answer);
            assert_eq!(guard.unhide(&mut again, true, now), Hidden::AsBefore);
            assert_eq!(guard.take(again, now), None);
            assert_eq!(guard.sees_all(), Hidden::NoMore);
            assert_eq!(guard.take(passing(&["a"]), now).unwrap().instances.len(), 1, "who is not hidden is gone");
        }
        // Who is in it is what it says of him.
        let mut guard = guard(true, &["a", "b"], now);
        let mut seen = vec![instance("a", Condition::Critical)];
        guard.unhide(&mut seen, false, now);
        assert_eq!(seen.iter().map(Instance::is_usable).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn where_acls_hid_some_all_along_one_who_is_missing_is_gone() {
        let now = Instant::now();
        let mut guard = Guard::new(guard(true, &[], now).policy);
        guard.unhide(&mut passing(&["a", "b", "c"]), false, now);
        guard.take(passing(&["a", "b", "c"]), now);
        let mut seen = passing(&["a", "b"]);
        assert_eq!(guard.unhide(&mut seen, false, now), Hidden::AsBefore);
        assert_eq!(seen.len(), 2);
        guard.take(seen, now);
        let mut nobody = passing(&[]);
        assert_eq!(guard.unhide(&mut nobody, false, now), Hidden::Since(2), "too many at once");
    }

    #[test]
    fn a_guard_that_drops_keeps_nobody() {
        let now = Instant::now();
        assert!(guard(false, &["a"], now).take(vec![], now).unwrap().suspects.is_empty());
    }
}
