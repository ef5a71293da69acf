//! Who may take the next request, and why another may not: one model, by which requests are sent and `explain` tells.
//!
//! Those of the lowest tier that has somebody well; of these those whose checks pass, and the others only while too few
//! pass. A wish that nobody fulfils is dropped: an endpoint that was tried already is better than one that asked to be left
//! alone, and that one better than none. An ejected endpoint takes nothing, unless so many are ejected that it does more
//! harm than good, or an operator or the client named it. How likely each of those who may is, the balancer says.

use std::sync::Arc;
use std::time::Instant;

use crate::address::Address;
use crate::ejection::is_panic;
use crate::mesh::{Endpoint, Status};
use crate::steering::Orders;

/// An upstream's endpoints, as one pick asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// All of them.
    pub endpoints: &'a [Arc<Endpoint>],
    /// Whom a request usually goes to.
    pub front: Front,
    /// An operator's.
    pub orders: &'a Orders,
    /// The one that the client named.
    pub only: Option<&'a Address>,
    /// Those that had an attempt already, by index.
    pub tried: &'a [usize],
    /// Below this share (0 to 1) of good ones the others count too.
    pub panic: f64,
    /// Now.
    pub now: Instant,
}

/// Whom a request usually goes to, while nobody is unwell: made with each change of the endpoints, so that a pick need not
/// look at all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front {
    tier: u8,
    /// Of the tier.
    total: usize,
    /// Of those.
    passing: usize,
    /// There are no others.
    is_all: bool,
}

/// How far an endpoint may take a request, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Well,
    Tried,
    /// It is stopping, or asked for a rest.
    Away,
    AwayTried,
    /// Where somebody named it.
    Ejected,
    Barred,
}

/// Who may take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    standing: Standing,
    /// The best of those who are this well.
    pub tier: u8,
    /// Also those whose checks do not pass.
    takes_second: bool,
    /// Only those that an operator pinned.
    has_pinned: bool,
    /// So many are ejected that ejection is ignored.
    pub is_panic: bool,
}

/// Why an endpoint does not take the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// An operator ejected it, or pinned others.
    Ordered,
    /// It failed too often.
    Ejected,
    /// It said that it is stopping.
    Draining,
    /// It asked for a rest (`Retry-After`).
    Resting,
    /// It had an attempt.
    Tried,
    /// Its checks do not pass, and enough others' do.
    Warning,
    /// Somebody of a lower tier is well.
    Tier,
    /// The client named another.
    Unasked,
}

impl WhyNot {
    /// The word for pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Resting => "resting",
            Self::Tried => "tried",
            Self::Warning => "warning",
            Self::Tier => "tier",
            Self::Unasked => "unasked",
        }
    }
}

impl Front {
    /// Of these endpoints.
    pub fn of(endpoints: &[Arc<Endpoint>]) -> Self {
        let tier = endpoints.iter().map(|endpoint| endpoint.tier).min().unwrap_or_default();
        let total = endpoints.iter().filter(|endpoint| endpoint.tier == tier).count();
        let is_passing = |endpoint: &&Arc<Endpoint>| endpoint.tier == tier && endpoint.status == Status::Passing;
        let passing = endpoints.iter().filter(is_passing).count();
        Self { tier, total, passing, is_all: passing == endpoints.len() }
    }

    fn has(&self, endpoint: &Endpoint, panic: f64) -> bool {
        self.is_all
            || endpoint.tier == self.tier
                && (endpoint.status == Status::Passing || is_too_few(self.passing, self.total, panic))
    }
}

/// Whether so few of a tier pass that the others are asked too.
fn is_too_few(passing: usize, total: usize, panic: f64) -> bool {
    passing == 0 || (passing as f64) < total as f64 * panic
}

impl Candidates<'_> {
    /// Whether an endpoint is of those whom a request usually goes to, and was not tried.
    #[inline]
    pub fn is_in_front(&self, index: usize) -> bool {
        !self.tried.contains(&index) && self.front.has(&self.endpoints[index], self.panic)
    }

    /// Whether it is neither ejected nor stopping nor resting.
    #[inline]
    pub fn is_well(&self, index: usize) -> bool {
        !self.endpoints[index].health.is_away(self.now)
    }

    /// Who may take the request; `None`: nobody.
    pub fn choice(&self) -> Option<Choice> {
        let is_panic = !self.is_named() && is_panic(self.endpoints, self.panic, self.now);
        let has_pinned = self.has_pinned();
        let all = || (0..self.endpoints.len()).map(|index| (self.standing(index, has_pinned, is_panic), index));
        let (standing, tier) = all()
            .filter(|(standing, _)| *standing != Standing::Barred)
            .map(|(standing, index)| (standing, self.endpoints[index].tier))
            .min()?;
        let of_tier = || all().filter(|(_, index)| self.endpoints[*index].tier == tier);
        let total = of_tier().count();
        let is_passing = |index: usize| self.endpoints[index].status == Status::Passing;
        let passing = of_tier().filter(|(its, index)| *its == standing && is_passing(*index)).count();
        let takes_second = is_too_few(passing, total, self.panic);
        Some(Choice { standing, tier, takes_second, has_pinned, is_panic })
    }

    /// Whether the choice is what it usually is.
    pub fn is_usual(&self, choice: &Choice) -> bool {
        let Front { tier, total, passing, .. } = self.front;
        let takes_second = is_too_few(passing, total, self.panic);
        let usual = Choice { standing: Standing::Well, tier, takes_second, has_pinned: false, is_panic: false };
        !self.is_named() && *choice == usual
    }

    /// Whether an endpoint is of the choice.
    pub fn may_take(&self, index: usize, choice: &Choice) -> bool {
        let endpoint = &self.endpoints[index];
        endpoint.tier == choice.tier
            && (endpoint.status == Status::Passing || choice.takes_second)
            && self.standing(index, choice.has_pinned, choice.is_panic) == choice.standing
    }

    /// Why an endpoint does not take the request; `None`: it may. Without a choice nobody does.
    pub fn why_not(&self, index: usize, choice: Option<&Choice>) -> Option<WhyNot> {
        let endpoint = &self.endpoints[index];
        let (health, now) = (&endpoint.health, self.now);
        let has_pinned = choice.map_or_else(|| self.has_pinned(), |choice| choice.has_pinned);
        let standing = self.standing(index, has_pinned, choice.is_some_and(|choice| choice.is_panic));
        let is_of_choice = choice.is_some_and(|choice| choice.standing == standing);
        match standing {
            Standing::Barred if self.only.is_some_and(|only| endpoint.address != *only) => Some(WhyNot::Unasked),
            Standing::Barred if !health.is_ejected(now) || self.is_named() => Some(WhyNot::Ordered),
            Standing::Barred => Some(WhyNot::Ejected),
            _ if is_of_choice && choice.is_some_and(|choice| choice.tier != endpoint.tier) => Some(WhyNot::Tier),
            _ if is_of_choice && choice.is_some_and(|choice| self.may_take(index, choice)) => None,
            _ if is_of_choice => Some(WhyNot::Warning),
            Standing::Ejected => Some(WhyNot::Ejected),
            Standing::Away | Standing::AwayTried if health.is_draining(now) => Some(WhyNot::Draining),
            Standing::Away | Standing::AwayTried => Some(WhyNot::Resting),
            Standing::Tried | Standing::Well => Some(WhyNot::Tried),
        }
    }

    /// Whether somebody well was not tried yet, of any tier.
    pub fn has_other(&self) -> bool {
        let has_pinned = self.has_pinned();
        (0..self.endpoints.len()).any(|index| self.standing(index, has_pinned, false) == Standing::Well)
    }

    /// Somebody said whom it is to be: then even an ejected one will do.
    fn is_named(&self) -> bool {
        self.only.is_some() || !self.orders.is_empty()
    }

    /// Whether an operator pinned an endpoint that is there.
    fn has_pinned(&self) -> bool {
        self.orders.pins_any(self.endpoints.iter().map(|endpoint| &endpoint.key.id))
    }

    fn standing(&self, index: usize, has_pinned: bool, is_panic: bool) -> Standing {
        let endpoint = &self.endpoints[index];
        let is_allowed = self.orders.allows(&endpoint.key.id, has_pinned);
        if !is_allowed || self.only.is_some_and(|only| endpoint.address != *only) {
            return Standing::Barred;
        }
        let health = &endpoint.health;
        let is_tried = self.tried.contains(&index);
        if !health.is_away(self.now) {
            return if is_tried { Standing::Tried } else { Standing::Well };
        }
        if health.is_ejected(self.now) && !is_panic {
            return if self.is_named() { Standing::Ejected } else { Standing::Barred };
        }
        let is_away = health.is_draining(self.now) || health.is_resting(self.now);
        match (is_away, is_tried) {
            (false, false) => Standing::Well,
            (false, true) => Standing::Tried,
            (true, false) => Standing::Away,
            (true, true) => Standing::AwayTried,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::health::EndpointHealth;
    use crate::mesh::EndpointKey;
    use crate::policy::EjectionPolicy;
    use crate::steering::{Order, Ordered, Steering};

    /// `0p` is of tier 0 and passes, `1w` of tier 1 and warns; behind it: `e` ejected, `d` draining, `r` resting.
    fn endpoint(index: usize, word: &str, now: Instant) -> Arc<Endpoint> {
        let address = Address::Tcp(([127, 0, 0, 1], index as u16 + 1).into());
        let letters: Vec<char> = word.chars().collect();
        let health = EndpointHealth::new(now);
        for letter in &letters[2..] {
            match letter {
                'e' => drop(health.eject(&EjectionPolicy::default(), now)),
                'd' => health.drain(now + Duration::from_secs(30)),
                _ => health.rest(Duration::from_secs(1), now),
            }
        }
        Arc::new(Endpoint {
            key: EndpointKey { node: "n".into(), id: index.to_string().into(), address: address.clone() },
            address,
            host: "127.0.0.1".into(),
            service: "users".into(),
            weight: 1,
            tier: letters[0].to_digit(10).unwrap() as u8,
            status: if letters[1] == 'p' { Status::Passing } else { Status::Warning },
            tags: vec![],
            meta: BTreeMap::new(),
            warms_from: None,
            health: Arc::new(health),
            connections: Arc::default(),
        })
    }

    /// Those who may take a request, by index; and why the others may not.
    fn asked(
        words: &str,
        tried: &[usize],
        pinned: &[usize],
        ordered_out: &[usize],
        panic: f64,
    ) -> (String, Vec<&'static str>) {
        let now = Instant::now();
        let endpoints: Vec<_> = words.split(' ').enumerate().map(|(index, word)| endpoint(index, word, now)).collect();
        let steering = Steering::default();
        let until = now + Duration::from_secs(60);
        for (order, indices) in [(Order::Pin, pinned), (Order::Eject, ordered_out)] {
            for index in indices {
                steering.order(Ordered { id: index.to_string().into(), order, until });
            }
        }
        let orders = steering.in_force(now);
        let front = Front::of(&endpoints);
        let candidates = Candidates { endpoints: &endpoints, front, orders: &orders, only: None, tried, panic, now };
        let choice = candidates.choice();
        let why: Vec<_> = (0..endpoints.len()).map(|index| candidates.why_not(index, choice.as_ref())).collect();
        let may = (0..endpoints.len()).filter(|index| why[*index].is_none()).map(|index| index.to_string()).collect();
        for (index, why) in why.iter().enumerate() {
            let may_take = choice.as_ref().is_some_and(|choice| candidates.may_take(index, choice));
            assert_eq!(why.is_none(), may_take, "{words}: {index}");
        }
        if let Some(choice) = choice.filter(|choice| candidates.is_usual(choice)) {
            let in_front = |index: usize| candidates.is_in_front(index) && candidates.is_well(index);
            let same = (0..endpoints.len()).all(|index| in_front(index) == candidates.may_take(index, &choice));
            assert!(same, "the short way leads elsewhere: {words}");
        }
        (may, why.into_iter().flatten().map(WhyNot::as_str).collect())
    }

    #[test]
    fn who_may_take_the_next_request() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("0p 0p", "01", &[]),
            ("0p 0p 1p", "01", &["tier"]),
            ("0pe 0pd 1p 2p", "2", &["ejected", "draining", "tier"]),
            ("0p 0w", "0", &["warning"]),
            ("0p 0w 0w", "012", &[]),
            ("0w 0w 1p", "01", &["tier"]),
            ("0p 0pr", "0", &["resting"]),
            ("0pr 0pr", "01", &[]),
            ("0pd 0pe", "0", &["ejected"]),
            ("0pe 0p 0p", "12", &["ejected"]),
            ("0pe 0pe 0p", "012", &[]),            // a third is less than half: panic
            ("0pe 0p 0w 0w", "123", &["ejected"]), // one of four passes and is well
            ("2p 1p", "1", &["tier"]),
        ];
        for (words, may, why) in cases {
            assert_eq!(asked(words, &[], &[], &[], 0.5), ((*may).to_owned(), why.to_vec()), "{words}");
        }
        assert_eq!(asked("0pe 0pe", &[], &[], &[], 0.0), (String::new(), vec!["ejected", "ejected"]), "no panic");
        assert_eq!(asked("0p 0w 0w 0w", &[], &[], &[], 0.0).0, "0", "no panic, no second rank beside the first");
    }

    #[test]
    fn a_further_attempt_goes_to_another_if_there_is_one() {
        let further = |words, tried: &[usize]| asked(words, tried, &[], &[], 0.5).0;
        assert_eq!(further("0p 0p 0p", &[1]), "02");
        assert_eq!(further("0p 0w", &[0]), "1", "rather one that warns than the same");
        assert_eq!(further("0p 1p", &[0]), "1", "rather another tier than the same");
        assert_eq!(further("0p 0pd", &[0]), "0", "rather the same than one that is stopping");
        assert_eq!(further("0p 0p", &[0, 1]), "01");
    }

    #[test]
    fn what_an_operator_says_comes_before_all_else() {
        assert_eq!(asked("0p 1pe", &[], &[1], &[], 0.5), ("1".to_owned(), vec!["ordered"]), "also an ejected one");
        assert_eq!(asked("0p 0p", &[], &[], &[0], 0.5), ("1".to_owned(), vec!["ordered"]));
        assert_eq!(asked("0p", &[], &[], &[0], 0.5), (String::new(), vec!["ordered"]));
        assert_eq!(asked("0p 0pe", &[], &[], &[0], 0.5).0, "1");
    }
}
