//! When a smaller answer is believed, and what of it is used last, without I/O.
//!
//! A server that replays its log answers with empty and partial lists (hashicorp/consul #4103), and nothing in them
//! says so. So an answer that takes away too much of what was usable lately, or anything at all after the index went
//! back, is confirmed with a consistent read before it counts. Confirmed or not, whom it takes away stays in use for a
//! while, as a suspect: after everybody else, and until a connection fails. An outage of the checks is more likely than one
//! of the service. An instance that was lost again and again is used after the others, too, until it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lictor_config::Guard as Policy;

use crate::agent::Instance;
use crate::agent::health::Condition;

/// Node and id.
pub(crate) type Id = (String, String);

/// What a watch has seen, and what of it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) instances: Vec<Instance>,
    /// Usable until a moment ago, and kept because too few are left.
    pub(crate) suspects: Vec<Instance>,
    /// Usable, but lost too often lately to be relied on.
    pub(crate) flapping: BTreeSet<Id>,
}

impl Observed {
    /// These, and nothing about them.
    pub(crate) fn of(instances: Vec<Instance>) -> Self {
        Self { instances, ..Self::default() }
    }

    /// Everybody as last seen well, for a time when Consul cannot be asked: a suspect counts as it was.
    pub(crate) fn last_good(&self) -> Vec<Instance> {
        let is_suspect = |known: &&Instance| self.suspects.iter().any(|suspect| id(suspect) == id(known));
        let certain = self.instances.iter().filter(|known| !is_suspect(known));
        let mut all: Vec<Instance> = certain.chain(&self.suspects).cloned().collect();
        all.sort_by_key(id);
        all
    }

    /// Whether this instance was lost too often.
    pub(crate) fn is_flapping(&self, instance: &Instance) -> bool {
        !self.flapping.is_empty() && self.flapping.contains(&id(instance))
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
    lately: BTreeMap<Id, Instant>,
    /// How many were usable, until when, as far back as the policy looks.
    counts: Vec<(Instant, usize)>,
    suspicion: Option<Suspicion>,
    /// When each instance was lost, the last times within the policy's.
    losses: BTreeMap<Id, Vec<Instant>>,
    /// ACLs hid some of the last answer that was believed.
    is_filtered: bool,
    /// ACLs hide some whom we knew.
    hides: bool,
}

/// Some are kept although the last answer has them no more.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    until: Instant,
    /// How many were usable before.
    of: usize,
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
        Self {
            policy,
            observed: None,
            is_remembered: false,
            lately: BTreeMap::new(),
            counts: Vec::new(),
            suspicion: None,
            losses: BTreeMap::new(),
            is_filtered: false,
            hides: false,
        }
    }

    /// What was known before this process began counts like an answer; whatever Consul says first is news all the same.
    pub(crate) fn remember(&mut self, instances: Vec<Instance>, now: Instant) {
        self.lately.extend(usable(&instances).map(|instance| (id(instance), now)));
        self.observed = Some(Observed::of(instances));
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
        let stays = |id: &Id| {
            // Somebody takes it out on purpose: that is no loss.
            find(instances, id).is_some_and(|new| new.is_usable() || new.condition == Condition::Maintenance)
        };
        let loses_now = usable(&observed.instances).map(id).any(|id| !stays(&id));
        if !loses_now {
            return false;
        }
        let all = self.usable_lately(&observed.instances, now);
        let gone = all.iter().filter(|id| !stays(id)).count();
        let is_empty = usable(instances).next().is_none();
        is_empty || is_doubtful || gone as f64 > all.len() as f64 * self.policy.max_removal
    }

    /// Takes an answer that counts; what there is now, if that is news.
    pub(crate) fn take(&mut self, instances: Vec<Instance>, now: Instant) -> Option<Observed> {
        let is_first = self.observed.is_none() || std::mem::take(&mut self.is_remembered);
        let before = self.observed.take().unwrap_or_default();
        let of = self.most_lately(usable(&before.instances).count(), now);
        let of = self.suspicion.map_or(of, |suspicion| suspicion.of);
        for instance in usable(&before.instances).chain(usable(&instances)) {
            self.lately.insert(id(instance), now);
        }
        let within = self.policy.within;
        self.lately.retain(|_, at| now.saturating_duration_since(*at) <= within);
        self.note_losses(&before, &instances, now);
        let suspects = self.suspects(&before, &instances, of);
        let until = self.suspicion.map_or(now + self.policy.keep_for, |suspicion| suspicion.until);
        self.suspicion = (!suspects.is_empty()).then_some(Suspicion { until, of });
        let flapping = self.flapping(&instances, now);
        let after = Observed { instances, suspects, flapping };
        let is_news = is_first || before != after;
        self.observed = Some(after.clone());
        is_news.then_some(after)
    }

    /// Whether suspects are in use.
    pub(crate) fn is_suspecting(&self) -> bool {
        self.suspicion.is_some()
    }

    /// When something changes although Consul says nothing: the grace of the suspects ends (not while `is_away`: then
    /// Consul cannot be asked), or an instance has stayed for long enough.
    pub(crate) fn changes_at(&self, is_away: bool) -> Option<Instant> {
        let suspected = self.suspicion.filter(|_| !is_away).map(|suspicion| suspicion.until);
        let flapping = self.observed.iter().flat_map(|observed| &observed.flapping);
        let steady = flapping.filter_map(|id| self.steady_at(id)).min();
        suspected.into_iter().chain(steady).min()
    }

    /// That time has come; what there is now, if that is news.
    pub(crate) fn pass(&mut self, is_away: bool, now: Instant) -> Option<Observed> {
        let mut after = self.observed.clone()?;
        if !is_away && self.suspicion.is_some_and(|suspicion| suspicion.until <= now) {
            self.suspicion = None;
            after.suspects.clear();
        }
        after.flapping = self.flapping(&after.instances, now);
        self.change(after)
    }

    /// Nobody listens there: these are no suspects any more; what there is now, if that is news.
    pub(crate) fn drop_suspects(&mut self, gone: &[Id]) -> Option<Observed> {
        let mut after = self.observed.clone()?;
        after.suspects.retain(|suspect| !gone.contains(&id(suspect)));
        self.change(after)
    }

    fn change(&mut self, after: Observed) -> Option<Observed> {
        let is_news = self.observed.as_ref() != Some(&after);
        self.observed = Some(after.clone());
        is_news.then_some(after)
    }

    /// For messages.
    pub(crate) fn grace(&self) -> Duration {
        self.policy.keep_for
    }

    /// Who was usable a moment ago, or within the policy's time.
    fn usable_lately(&self, before: &[Instance], now: Instant) -> BTreeSet<Id> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= self.policy.within;
        let lately = self.lately.iter().filter(|(_, at)| is_recent(at)).map(|(id, _)| id.clone());
        usable(before).map(id).chain(lately).collect()
    }

    /// The most that were usable at a time, within the policy's time; `count` were until now.
    fn most_lately(&mut self, count: usize, now: Instant) -> usize {
        let within = self.policy.within;
        // Fewer before do not matter any more.
        self.counts.retain(|(until, earlier)| *earlier > count && now.saturating_duration_since(*until) <= within);
        self.counts.push((now, count));
        self.counts.iter().map(|(_, count)| *count).max().unwrap_or_default()
    }

    /// Whom to keep when too few of `of` are left: everybody who was usable, except who was taken out on purpose.
    fn suspects(&self, before: &Observed, now: &[Instance], of: usize) -> Vec<Instance> {
        let left = usable(now).count();
        let is_enough = left > 0 && left as f64 >= of as f64 * (1.0 - self.policy.max_removal);
        if !self.policy.keep_on_empty || is_enough {
            return Vec::new();
        }
        let is_settled = |old: &Instance| {
            find(now, &id(old)).is_some_and(|new| new.is_usable() || new.condition == Condition::Maintenance)
        };
        let last = usable(&before.instances).chain(&before.suspects);
        last.filter(|instance| !is_settled(instance)).cloned().collect()
    }

    /// Maintenance is no loss: somebody wanted it.
    fn note_losses(&mut self, before: &Observed, now: &[Instance], at: Instant) {
        let Some(damping) = self.policy.damping else { return };
        let is_recent = |loss: &Instant| at.saturating_duration_since(*loss) < damping.within;
        for lost in usable(&before.instances).map(id) {
            let is_lost =
                find(now, &lost).is_none_or(|new| !new.is_usable() && new.condition != Condition::Maintenance);
            if is_lost {
                let losses = self.losses.entry(lost).or_default();
                losses.push(at);
                // The last ones decide.
                losses.drain(..losses.len().saturating_sub(damping.losses as usize));
            }
        }
        self.losses.retain(|_, losses| losses.last().is_some_and(is_recent));
    }

    fn flapping(&self, instances: &[Instance], now: Instant) -> BTreeSet<Id> {
        if self.losses.is_empty() {
            return BTreeSet::new();
        }
        let is_flapping = |id: &Id| self.steady_at(id).is_some_and(|at| at > now);
        usable(instances).map(id).filter(is_flapping).collect()
    }

    /// When it was not lost too often any more; `None`: it was not.
    fn steady_at(&self, id: &Id) -> Option<Instant> {
        let damping = self.policy.damping?;
        let losses = self.losses.get(id).filter(|losses| losses.len() >= damping.losses as usize)?;
        losses.first().map(|first| *first + damping.within)
    }
}

fn usable(instances: &[Instance]) -> impl Iterator<Item = &Instance> {
    instances.iter().filter(|instance| instance.is_usable())
}

fn id(instance: &Instance) -> Id {
    (instance.node.clone(), instance.id.clone())
}

/// Answers are sorted when they are parsed.
fn find<'a>(instances: &'a [Instance], (node, id): &Id) -> Option<&'a Instance> {
    let at = instances.binary_search_by(|instance| (&instance.node, &instance.id).cmp(&(node, id)));
    at.ok().map(|at| &instances[at])
}

#[cfg(test)]
mod tests {
    use lictor_config::Damping;

    use super::*;

    #[test]
    fn a_check_that_has_not_run_yet_changes_nothing_for_who_was_known() {
        let mut guard = guard(true, &[], Instant::now());
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
        let damping = Some(Damping { losses: 3, within: Duration::from_secs(60) });
        let mut guard = Guard::new(Policy { max_removal: 0.5, within, keep_on_empty, keep_for, damping });
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
        assert_eq!(guard.changes_at(false), Some(until));
        assert_eq!(guard.changes_at(true), None, "it does not end while Consul is away");
        assert_eq!(guard.pass(true, until), None);
        let later = now + Duration::from_secs(20);
        assert_eq!(guard.take(vec![], later).unwrap().suspects.len(), 2);
        assert_eq!(guard.changes_at(false), Some(until), "a further empty answer does not lengthen it");
        assert_eq!(guard.pass(false, later), None, "not yet");
        assert_eq!(guard.pass(false, until), Some(Observed::default()));
        assert_eq!(guard.take(vec![instance("c", Condition::Critical)], until).unwrap().suspects, []);
        assert_eq!(guard.changes_at(false), None, "who is forgotten stays forgotten");
    }

    #[test]
    fn a_loss_of_too_many_leaves_them_in_use_until_enough_are_there_or_a_connection_fails() {
        let now = Instant::now();
        let all = ["a", "b", "c", "d", "e"];
        for (left, suspects) in [
            (&["a", "b", "c", "d"][..], &[][..]),
            (&["a", "b", "c"], &[]),
            (&["a", "b"], &["c", "d", "e"]),
            (&[], &["a", "b", "c", "d", "e"]),
            (&["v", "w", "x"], &[]), // others in their place: nothing is short
            (&["a", "x"], &["b", "c", "d", "e"]),
        ] {
            let mut guard = guard(true, &all, now);
            let kept: Vec<String> =
                guard.take(passing(left), now).unwrap().suspects.into_iter().map(|it| it.id).collect();
            assert_eq!(kept, suspects, "{left:?}");
            let gone = guard.drop_suspects(&[("n".to_owned(), "e".to_owned())]);
            assert_eq!(gone.is_some(), kept.contains(&"e".to_owned()), "{left:?}");
            let dropped = guard.take(passing(left), now).map(|observed| observed.suspects);
            assert_eq!(dropped, None, "who is gone does not come back by the same answer: {left:?}");
            let enough = guard.take(passing(&["a", "b", "z"]), now).map_or(0, |observed| observed.suspects.len());
            assert_eq!(enough, 0, "{left:?}");
        }
    }

    #[test]
    fn who_comes_and_goes_comes_last_until_it_stays() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut guard = guard(true, &["a", "b", "c"], start);
        let flapping = |guard: &Guard| -> Vec<String> {
            guard.observed.as_ref().unwrap().flapping.iter().map(|(_, id)| id.clone()).collect()
        };
        for round in 0..3 {
            assert!(flapping(&guard).is_empty(), "{round}");
            guard.take(passing(&["b", "c"]), start + seconds(10 * round));
            guard.take(passing(&["a", "b", "c"]), start + seconds(10 * round + 5));
        }
        assert_eq!(flapping(&guard), ["a"]);
        // Of the losses at 0, 10 and 20 the first is forgotten at 60.
        assert_eq!(guard.changes_at(true), Some(start + seconds(60)));
        assert_eq!(guard.pass(false, start + seconds(59)), None);
        assert!(guard.pass(false, start + seconds(60)).unwrap().flapping.is_empty());
        // The next one is the third within a minute again.
        guard.take(passing(&["b", "c"]), start + seconds(65));
        guard.take(passing(&["a", "b", "c"]), start + seconds(66));
        assert_eq!(guard.changes_at(false), Some(start + seconds(70)));
    }

    #[test]
    fn who_is_taken_out_on_purpose_does_not_flap_and_nobody_does_without_damping() {
        let start = Instant::now();
        let flaps = |damping, lost: Condition| {
            let mut guard = guard(true, &["a", "b", "c"], start);
            guard.policy.damping = damping;
            for _ in 0..5 {
                let others =
                    [instance("a", lost), instance("b", Condition::Passing), instance("c", Condition::Passing)];
                guard.take(others.to_vec(), start);
                guard.take(passing(&["a", "b", "c"]), start);
            }
            !guard.observed.unwrap().flapping.is_empty()
        };
        let damping = Some(Damping { losses: 3, within: Duration::from_secs(60) });
        assert!(flaps(damping, Condition::Critical));
        assert!(!flaps(damping, Condition::Maintenance) && !flaps(None, Condition::Critical));
    }

    #[test]
    fn somebody_usable_ends_the_grace() {
        let now = Instant::now();
        let mut guard = guard(true, &["a", "b"], now);
        guard.take(vec![], now);
        assert!(guard.take(passing(&["b"]), now).unwrap().suspects.is_empty());
        assert_eq!(guard.changes_at(false), None);
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
