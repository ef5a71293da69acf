//! Which of a route's variants a request goes to: 95 of a hundred here, 5 there, and the same client always to the same.
//!
//! A client has a **ticket**, a random number in a cookie, and each variant runs a race with it (weighted rendezvous hashing;
//! Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005): what a variant's time is depends on the ticket and
//! on its name, and is the shorter the greater its weight. So the ticket says nothing of the inside, the choice outlives reloads,
//! and where a weight changes only as many clients move as have to, all to or all from its variant.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use lictor_jose::rules::Claim;

use crate::hash::{hash_bytes, mix, share_of};

/// Tickets that are drawn for one request, at most: for a variant that is there.
const DRAWS_MAX: usize = 256;

/// A route's variants, and how one is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// In the configuration's order; never empty, and some weight is not 0.
    pub variants: Box<[Variant]>,
    /// A variant's name in this field chooses it.
    pub header: Option<HeaderName>,
    /// A variant's name as this claim of the client's token chooses it, where no field does.
    pub claim: Option<Claim>,
    /// Clients keep their ticket in this; without one each request draws its own.
    pub cookie: Option<Cookie>,
}

/// Where a part of a route's requests goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// As written: `orders`, `orders@v2`.
    pub name: Box<str>,
    /// Its share of all weights; of 0 it gets only what asks for it by name.
    pub weight: f64,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Where the route stands among the upstream's.
    pub index: usize,
    /// Whether the policy there is the route's own.
    pub has_policy: bool,
    salt: u64,
}

/// A cookie with a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// How long clients keep it; `None`: until the browser is closed.
    pub max_age: Option<Duration>,
}

/// A client's place in the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Among the variants.
    pub variant: usize,
    /// The ticket that its client is to have from now on.
    pub ticket: Option<Ticket>,
}

impl Variant {
    /// One that is not led anywhere yet.
    pub fn new(name: &str, weight: f64) -> Self {
        let salt = hash_bytes(name.as_bytes());
        Self { name: name.into(), weight, upstream: name.into(), index: 0, has_policy: false, salt }
    }

    /// Its whole name, or what of it comes after the `@`.
    fn is_called(&self, name: &str) -> bool {
        *self.name == *name || self.name.split_once('@').is_some_and(|(_, version)| version == name)
    }

    /// The shorter, the better; `None`: it does not run.
    fn time(&self, ticket: Ticket) -> Option<f64> {
        // An exponential distribution with the weight as its rate, of a share that is never 0.
        let share = share_of(mix(ticket.0 ^ self.salt)) + f64::EPSILON / 4.0;
        (self.weight > 0.0).then(|| -share.ln() / self.weight)
    }
}

impl Split {
    /// Chooses for a request that names variants (`named`, the first that is one counts), or whose client has a ticket, or neither. A variant that nobody can
    /// answer for (`is_there`) is passed over: its clients draw anew, unless nobody is there at all.
    pub fn choose<'n>(
        &self,
        named: impl IntoIterator<Item = &'n str>,
        ticket: Option<Ticket>,
        is_there: impl Fn(&Variant) -> bool,
        mut random: impl FnMut() -> u64,
    ) -> Chosen {
        let is_it = |variant: &Variant, name: &str| variant.is_called(name) && is_there(variant);
        let mut named = named.into_iter();
        if let Some(variant) = named.find_map(|name| self.variants.iter().position(|variant| is_it(variant, name))) {
            return Chosen { variant, ticket: None };
        }
        let (mut drawn, mut is_new) = ticket.map_or_else(|| (Ticket(random()), true), |ticket| (ticket, false));
        let first = self.winner(drawn, |_| true);
        let mut winner = first;
        // Where nobody is there, no draw finds anybody.
        let is_any = self.variants.iter().any(|variant| variant.weight > 0.0 && is_there(variant));
        for _ in 0..if is_any { DRAWS_MAX } else { 0 } {
            if is_there(&self.variants[winner]) {
                return Chosen { variant: winner, ticket: (is_new && self.cookie.is_some()).then_some(drawn) };
            }
            (drawn, is_new) = (Ticket(random()), true);
            winner = self.winner(drawn, |_| true);
        }
        // Somebody whose weight is next to nothing, or nobody.
        Chosen { variant: if is_any { self.winner(drawn, &is_there) } else { first }, ticket: None }
    }

    /// Who wins with this ticket, of those that may run.
    fn winner(&self, ticket: Ticket, runs: impl Fn(&Variant) -> bool) -> usize {
        let times = self.variants.iter().enumerate().filter(|(_, variant)| runs(variant));
        let times = times.filter_map(|(index, variant)| Some((index, variant.time(ticket)?)));
        times.min_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(index, _)| index)
    }
}

impl Ticket {
    /// Of a cookie's value: sixteen hexadecimal digits, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::fmt::Display for Split {
    /// `orders 95, orders@v2 5`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, variant) in self.variants.iter().enumerate() {
            write!(f, "{}{} {}", if number == 0 { "" } else { ", " }, variant.name, variant.weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[(&str, f64)]) -> Split {
        let variants = weights.iter().map(|(name, weight)| Variant::new(name, *weight)).collect();
        let cookie = Some(Cookie { name: "canary".into(), max_age: None });
        Split { variants, header: None, claim: None, cookie }
    }

    /// Steele et al. 2014.
    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        }
    }

    fn of(split: &Split, ticket: u64) -> usize {
        split.choose(None, Some(Ticket(ticket)), |_| true, || 0).variant
    }

    const MANY: u64 = 40_000;

    #[test]
    fn each_variant_gets_its_share_and_0_is_nothing() {
        for weights in [
            &[("a", 95.0), ("a@v2", 5.0)][..],
            &[("a", 0.0), ("b", 1.0)],
            &[("a", 100.0), ("b", 0.0)],
            &[("a", 1.0), ("b", 1.0), ("c", 1.0)],
            &[("a", 99.5), ("b", 0.5)],
            &[("a", 5.0), ("b", 3.0), ("c", 2.0), ("d", 0.0)],
            &[("a", 1.0)],
        ] {
            let (split, mut random) = (split(weights), random(7));
            let mut counts = vec![0_u64; weights.len()];
            for _ in 0..MANY {
                counts[split.choose(None, None, |_| true, &mut random).variant] += 1;
            }
            let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
            for ((name, weight), count) in weights.iter().zip(counts) {
                let (share, many) = (weight / all, MANY as f64);
                let deviation = (many * share * (1.0 - share)).sqrt();
                assert!((count as f64 - many * share).abs() <= 4.0 * deviation, "{name} of {weights:?}: {count}");
            }
        }
    }

    fn draw_moves(old: &Split, new: &Split, ticket: u64) -> bool {
        of(old, ticket) != of(new, ticket)
    }

    #[test]
    fn a_change_moves_only_as_many_as_it_must_and_only_to_who_has_grown() {
        for (before, after) in [
            (&[("a", 95.0), ("b", 5.0)][..], &[("a", 50.0), ("b", 50.0)][..]),
            (&[("a", 95.0), ("b", 5.0)], &[("a", 100.0), ("b", 0.0)]),
            (&[("a", 50.0), ("b", 30.0), ("c", 20.0)], &[("a", 50.0), ("b", 30.0), ("c", 40.0)]),
            (&[("a", 50.0), ("b", 50.0)], &[("a", 50.0), ("b", 50.0), ("c", 50.0)]),
            (&[("a", 95.0), ("b", 5.0)], &[("b", 5.0), ("a", 95.0)]),
            (&[("a", 95.0), ("b", 5.0)], &[("a", 19.0), ("b", 1.0)]),
        ] {
            let share = |weights: &[(&str, f64)], name: &str| {
                let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
                weights.iter().find(|(own, _)| *own == name).map_or(0.0, |(_, weight)| weight / all)
            };
            let (old, new) = (split(before), split(after));
            let mut draw = random(11);
            let (mut moved, needed) =
                (0, ["a", "b", "c"].map(|name| (share(after, name) - share(before, name)).max(0.0)));
            for _ in 0..MANY {
                let ticket = draw();
                let (from, to) = (&old.variants[of(&old, ticket)].name, &new.variants[of(&new, ticket)].name);
                if from != to {
                    moved += 1;
                    assert!(share(after, to) > share(before, to), "{before:?} {after:?}: from {from} to {to}");
                }
            }
            let (moved, needed) = (f64::from(moved) / MANY as f64, needed.iter().sum::<f64>());
            assert!((moved - needed).abs() < 0.01, "{before:?} {after:?}: {moved} moved, {needed} had to");
        }
        // Two changes at once move what each would.
        let old = split(&[("a", 50.0), ("b", 30.0), ("c", 20.0)]);
        let new = split(&[("a", 40.0), ("b", 30.0), ("c", 30.0)]);
        let mut draw = random(13);
        let moved = (0..MANY).filter(|_| draw_moves(&old, &new, draw())).count();
        assert!(moved as f64 / (MANY as f64) < 0.2, "{moved}");
    }

    #[test]
    fn a_name_is_before_a_ticket_and_a_ticket_before_a_draw() {
        let split = split(&[("a", 100.0), ("a@v2", 0.0)]);
        let choose = |named, ticket: Option<u64>| split.choose(named, ticket.map(Ticket), |_| true, || 5);
        for (named, ticket, variant, kept) in [
            (Some("v2"), Some(1), 1, None),
            (Some("a@v2"), None, 1, None),
            (Some("a"), None, 0, None),
            (Some("b"), Some(1), 0, None),
            (Some(""), None, 0, Some(Ticket(5))),
            (None, Some(1), 0, None),
            (None, None, 0, Some(Ticket(5))),
        ] {
            assert_eq!(choose(named, ticket), Chosen { variant, ticket: kept }, "{named:?} {ticket:?}");
        }
        let without = Split { cookie: None, ..split };
        assert_eq!(without.choose(None, None, |_| true, || 5), Chosen { variant: 0, ticket: None });
    }

    #[test]
    fn clients_of_a_variant_that_is_gone_draw_anew_and_stay_where_they_come_to() {
        let split = split(&[("a", 90.0), ("b", 10.0), ("c", 0.0)]);
        let mut draw = random(3);
        let mut seen = 0;
        for _ in 0..2000 {
            let ticket = Ticket(draw());
            let before = split.choose(None, Some(ticket), |_| true, &mut draw);
            let now = split.choose(None, Some(ticket), |variant| &*variant.name != "b", &mut draw);
            assert_eq!(now.variant, 0);
            assert_eq!(now.ticket.is_some(), before.variant == 1, "only they get another ticket");
            if let Some(other) = now.ticket {
                seen += 1;
                assert_eq!(of(&split, other.0), 0, "it stays when the variant is back");
            }
        }
        assert!(seen > 100, "{seen} had to move");
        // Who is asked for by name and is gone is as if nobody had asked; 0 stays 0 whoever is gone.
        assert_eq!(split.choose(Some("b"), Some(Ticket(1)), |variant| &*variant.name == "a", || 1).variant, 0);
        let only_c = |variant: &Variant| &*variant.name == "c";
        for _ in 0..100 {
            assert_ne!(split.choose(None, None, only_c, &mut draw), Chosen { variant: 2, ticket: None });
        }
        let nobody = split.choose(None, Some(Ticket(9)), |_| false, &mut draw);
        assert_eq!(nobody, Chosen { variant: of(&split, 9), ticket: None }, "it tells of its own that nobody is there");
    }

    #[test]
    fn a_ticket_is_sixteen_digits_and_says_nothing_else() {
        for ticket in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let text = Ticket(ticket).to_string();
            assert!(text.len() == 16 && Ticket::parse(&text) == Some(Ticket(ticket)), "{text}");
        }
        for wrong in
            ["", "0", "00000000000000001", "000000000000000g", "+000000000000001", "orders@v2", "0000 0000000000"]
        {
            assert_eq!(Ticket::parse(wrong), None, "{wrong:?}");
        }
    }
}
