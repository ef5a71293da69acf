//! Choosing an endpoint. One balancer for a worker, an upstream and each way to choose that its routes name; it is made
//! again with each change of the endpoints, and goes on where the one before was. What is learnt of an endpoint is in its
//! [`Load`], which lives on.
//!
//! One rule for weights: whoever is drawn is drawn by weight, times the warmth of a new endpoint, and draws are spread
//! evenly instead of left to chance. Load and latency only decide against the drawn one, and only when they differ by more
//! than chance makes them differ; near-equal is a tie, and a tie goes to whoever was drawn.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use crate::hash::hash_bytes;
use crate::hash::share_of;
pub use crate::load::Load;
use crate::rendezvous::Rendezvous;

/// One pick in this many is random, so that an endpoint that looked bad once is looked at again.
const EXPLORE: u64 = 100;
/// How far above the mean an endpoint of a hash ring may be loaded (Mirrokni et al. 2016).
const BOUNDED_LOAD: f64 = 1.25;
/// The least share of its weight that a new endpoint has (as in Envoy's slow start).
const MIN_WARMTH: f64 = 0.1;
/// Round robin looks at all endpoints up to this many; at more of the same weight that would cost more than the request.
const LOOKED_AT: usize = 64;
/// What a failure costs, in seconds: failing or refusing fast must not look like answering fast.
const PENALTY: f64 = 1.0;
/// How many requests in flight an endpoint is like that fails always, where only those are compared.
const REFUSED: f64 = 1000.0;
/// Costs within this factor of one another, and a millisecond, are equal: so much differs between answers of one server.
const TIE: f64 = 2.0;
const TIE_SECONDS: f64 = 0.001;
/// Steps of the golden ratio's fraction of the circle divide it evenly, however many there are (Steinhaus' three gaps).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// How an endpoint is chosen for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// The algorithm. Default EWMA, power of two choices.
    pub algorithm: Algorithm,
    /// New endpoints get a growing share for this long. Default 10 s; zero is off.
    pub slow_start: Duration,
    /// Below this share (0 to 1) of endpoints that are not ejected, ejection is ignored. Default 0.5; 0 is off.
    pub panic: f64,
}

impl Default for Balance {
    fn default() -> Self {
        Self { algorithm: Algorithm::P2cEwma, slow_start: Duration::from_secs(10), panic: 0.5 }
    }
}

/// The balancing algorithms. A new one is a variant, a line in [`Algorithm::ALL`] and one in [`Algorithm::words`];
/// configuration, documentation, models and benches follow, and what else it needs the compiler asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// One drawn by weight, unless another is clearly better by latency (EWMA) and requests in flight.
    P2cEwma,
    /// Smooth weighted round robin (nginx's).
    RoundRobin,
    /// A weighted random endpoint.
    Random,
    /// One drawn by weight, unless another has fewer requests in flight.
    LeastRequest,
    /// The one with clearly the fewest requests in flight for its weight, of all; else one drawn by weight.
    LeastConnections,
    /// Consistent hashing of something of the request.
    RingHash(HashOn),
}

impl Algorithm {
    /// All of them, in the documentation's order; of the hash ring one that needs nothing else.
    pub const ALL: [Self; 6] = [
        Self::P2cEwma,
        Self::RoundRobin,
        Self::Random,
        Self::LeastRequest,
        Self::LeastConnections,
        Self::RingHash(HashOn::SourceIp),
    ];

    /// Its words in the configuration; the first is its name.
    pub fn words(&self) -> &'static [&'static str] {
        match self {
            Self::P2cEwma => &["p2c_ewma", "ewma", "peak_ewma"],
            Self::RoundRobin => &["round_robin", "weighted", "weighted_round_robin"],
            Self::Random => &["random"],
            Self::LeastRequest => &["least_request", "p2c"],
            Self::LeastConnections => &["least_connections", "least_conn"],
            Self::RingHash(_) => &["ring_hash"],
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words()[0])
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header's value.
    Header(http::HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The client's IP address.
    SourceIp,
}

/// An endpoint, as the balancer knows it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// At least 1.
    pub weight: u32,
    /// Where slow start counts from.
    pub warms_from: Option<Instant>,
    /// A stable hash of the endpoint's key.
    pub hash: u64,
    /// Shared with whoever sends.
    pub load: Rc<Load>,
}

/// Chooses among slots.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    slow_start: Duration,
    slots: Vec<Slot>,
    /// Their ways to the keys of a hash ring; empty where there is none.
    ways: Rendezvous,
    /// Weights added up, for a weighted draw by binary search.
    sums: Vec<u64>,
    /// The last endpoint's slow start ends here.
    warm_at: Option<Instant>,
    /// All weights are the same.
    is_even: bool,
    /// Smooth weighted round robin's running weights.
    running: Vec<Cell<f64>>,
    /// Whose turn it is, where not all endpoints are looked at.
    turn: Cell<usize>,
    /// Where the last draw was on the circle.
    drawn: Cell<u64>,
    random: Cell<u64>,
}

impl Balancer {
    /// A balancer for these endpoints.
    pub fn new(balance: &Balance, slots: Vec<Slot>, seed: u64) -> Self {
        let sums = slots
            .iter()
            .scan(0, |sum, slot| {
                *sum += u64::from(slot.weight.max(1));
                Some(*sum)
            })
            .collect();
        let is_even = slots.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        // Workers and sidecars that begin together do not begin with the same endpoint.
        let turn = Cell::new((seed % slots.len().max(1) as u64) as usize);
        let warm_at = slots.iter().filter_map(|slot| slot.warms_from).max().map(|from| from + balance.slow_start);
        let is_ring = matches!(balance.algorithm, Algorithm::RingHash(_));
        Self {
            algorithm: balance.algorithm.clone(),
            slow_start: balance.slow_start,
            running: vec![Cell::default(); slots.len()],
            ways: Rendezvous::new(slots.iter().filter(|_| is_ring).map(|slot| slot.hash)),
            slots,
            sums,
            warm_at,
            is_even,
            turn,
            drawn: Cell::new(seed),
            random: Cell::new(seed | 1),
        }
    }

    /// Goes on where another was: with the turns of those endpoints that both have.
    #[must_use]
    pub fn following(self, earlier: &Self) -> Self {
        let mut known = HashMap::new();
        for (slot, running) in earlier.slots.iter().zip(&earlier.running) {
            known.insert(Rc::as_ptr(&slot.load), running.get());
        }
        for (slot, running) in self.slots.iter().zip(&self.running) {
            running.set(known.get(&Rc::as_ptr(&slot.load)).copied().unwrap_or_default());
        }
        self.turn.set(earlier.turn.get() % self.slots.len().max(1));
        self.drawn.set(earlier.drawn.get());
        self.random.set(earlier.random.get());
        self
    }

    /// Whether it chooses as this policy says.
    pub fn is_for(&self, balance: &Balance) -> bool {
        self.algorithm == balance.algorithm && self.slow_start == balance.slow_start
    }

    /// The endpoints.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One of the eligible endpoints; `None` only if there is none. `hash` is of the request, for a hash ring; a
    /// request without one goes anywhere.
    pub fn pick(&self, now: Instant, hash: Option<u64>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        match self.slots.len() {
            0 => return None,
            1 => return eligible(0).then_some(0),
            _ => (),
        }
        match (&self.algorithm, hash) {
            (Algorithm::P2cEwma, _) => {
                let (first, random) = (self.draw(now, &eligible)?, self.next_random());
                if random.is_multiple_of(EXPLORE) {
                    return Some(first);
                }
                let second = self.other(first, random, &eligible);
                Some(second.filter(|second| self.is_better(*second, first, now, true)).unwrap_or(first))
            }
            (Algorithm::LeastRequest, _) => {
                let (first, random) = (self.draw(now, &eligible)?, self.next_random());
                let second = self.other(first, random, &eligible);
                Some(second.filter(|second| self.is_better(*second, first, now, false)).unwrap_or(first))
            }
            (Algorithm::LeastConnections, _) => self.least(now, &eligible),
            (Algorithm::RoundRobin, _) => self.next_in_turn(now, &eligible),
            (Algorithm::RingHash(_), Some(hash)) => self.for_key(now, hash, &eligible),
            (Algorithm::Random | Algorithm::RingHash(_), _) => self.draw(now, &eligible),
        }
    }

    /// Runs picks that leave no trace: the next real one is as if they had not been.
    pub fn preview<T>(&self, look: impl FnOnce() -> T) -> T {
        let (random, drawn, turn) = (self.random.get(), self.drawn.get(), self.turn.get());
        let running = self.running.clone();
        let seen = look();
        self.random.set(random);
        self.drawn.set(drawn);
        self.turn.set(turn);
        self.running.iter().zip(running).for_each(|(running, before)| running.set(before.get()));
        seen
    }

    /// What the algorithm compares, the lower the better; `None` where it compares nothing, or nothing is known yet.
    pub fn score(&self, index: usize, now: Instant) -> Option<f64> {
        let load = &self.slots.get(index)?.load;
        let requests = f64::from(load.in_flight());
        match self.algorithm {
            Algorithm::P2cEwma => {
                let (latency, failing) = (load.latency(now), load.failing(now) * PENALTY);
                let cost = latency.map_or((failing > 0.0).then_some(failing), |latency| Some(latency + failing));
                Some(cost? * (requests + 1.0))
            }
            Algorithm::LeastRequest | Algorithm::LeastConnections => Some(requests / self.weight(index, now)),
            Algorithm::RoundRobin | Algorithm::Random | Algorithm::RingHash(_) => None,
        }
    }

    /// The share (0 to 1) of its weight that an endpoint has: less than all of it while it is new.
    pub fn warmth(&self, index: usize, now: Instant) -> f64 {
        if self.warm_at.is_none_or(|at| at <= now) {
            return 1.0;
        }
        let Some(from) = self.slots[index].warms_from else { return 1.0 };
        let age = now.saturating_duration_since(from).as_secs_f64() / self.slow_start.as_secs_f64();
        age.clamp(MIN_WARMTH, 1.0)
    }

    /// Whether the second of two is so much better that the first, which was drawn by weight, gives way.
    ///
    /// The second is any other, each as likely. So that nothing moves where all is equal, it takes over from a heavier one
    /// only as often as its weight is to that one's (Metropolis et al. 1953): then as many pass the one way as the other.
    fn is_better(&self, second: usize, first: usize, now: Instant, is_timed: bool) -> bool {
        let (theirs, ours) = (&*self.slots[first].load, &*self.slots[second].load);
        let (w1, w2) =
            if self.is_alike(now) { (1.0, 1.0) } else { (self.weight(first, now), self.weight(second, now)) };
        if w2 < w1 && self.share() * w1 >= w2 {
            return false;
        }
        let latencies = if is_timed { theirs.latency(now).zip(ours.latency(now)) } else { None };
        let (latency1, latency2) = latencies.unwrap_or_default();
        let (cost1, cost2) = (latency1 + theirs.failing(now) * PENALTY, latency2 + ours.failing(now) * PENALTY);
        let (n1, n2) = (theirs.in_flight(), ours.in_flight());
        let (lighter, heavier) = if w1 < w2 { (w1, w2) } else { (w2, w1) };
        if cost1.max(cost2) > cost1.min(cost2) * TIE + TIE_SECONDS {
            // What one more waits for: those before it, each by its share of what the endpoint does at a time.
            let wait = |cost: f64, requests: u32, weight: f64| cost * (1.0 + f64::from(requests) * lighter / weight);
            return wait(cost2, n2, w2) < wait(cost1, n1, w1);
        }
        if heavier <= lighter {
            return n2 < n1;
        }
        // Requests come in ones: a light endpoint has more or less than its share nearly always. So one of its own is no
        // difference yet, and a part of one counts as often as it is large.
        let slack = 1.0 / lighter - 1.0 / heavier;
        (f64::from(n2) + self.share()) / w2 + slack < f64::from(n1) / w1
    }

    /// A random endpoint by weight. A few tries in constant time; when most are not eligible, a scan.
    fn draw(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let total = *self.sums.last()?;
        for _ in 0..4 {
            let index = if self.is_even {
                scale(self.step(), self.slots.len() as u64) as usize
            } else {
                let ticket = scale(self.step(), total);
                self.sums.partition_point(|sum| *sum <= ticket)
            };
            if eligible(index) && self.is_let_in(index, now) {
                return Some(index);
            }
        }
        let weigh = |index: usize| self.weight(index, now);
        let sum: f64 = (0..self.slots.len()).filter(|index| eligible(*index)).map(weigh).sum();
        // By chance now: after four that are not eligible the circle's next point is a certain one.
        let mut ticket = self.share() * sum;
        let mut last = None;
        for index in (0..self.slots.len()).filter(|index| eligible(*index)) {
            ticket -= weigh(index);
            last = Some(index);
            if ticket < 0.0 {
                break;
            }
        }
        last
    }

    /// Any other that is eligible, each as likely as the next, if there is one.
    fn other(&self, first: usize, random: u64, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let others = self.slots.len() - 1;
        let past = |index: usize| index + usize::from(index >= first);
        let mut random = random;
        for _ in 0..others.min(4) {
            let index = past(scale(random, others as u64) as usize);
            if eligible(index) {
                return Some(index);
            }
            random = self.next_random();
        }
        let able = || (0..others).map(past).filter(|index| eligible(*index));
        able().nth(scale(random, able().count() as u64) as usize)
    }

    /// Smooth weighted round robin (nginx): the weights of those that could go add up, the largest goes and pays.
    fn next_in_turn(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        if self.slots.len() > LOOKED_AT && self.is_alike(now) {
            let next = self.turn.get();
            self.turn.set(if next + 1 < self.slots.len() { next + 1 } else { 0 });
            // Not its neighbour, which would have two turns.
            return if eligible(next) { Some(next) } else { self.draw(now, eligible) };
        }
        let mut best: Option<usize> = None;
        let mut sum = 0.0;
        for index in (0..self.slots.len()).filter(|index| eligible(*index)) {
            let weight = self.weight(index, now);
            let running = &self.running[index];
            running.set(running.get() + weight);
            sum += weight;
            if best.is_none_or(|best| running.get() > self.running[best].get()) {
                best = Some(index);
            }
        }
        let running = &self.running[best?];
        running.set(running.get() - sum);
        best
    }

    /// One drawn by weight, unless another, of all, has clearly fewer requests for its weight.
    fn least(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.draw(now, eligible)?;
        let is_alike = self.is_alike(now);
        let busy = |index: usize| {
            let load = &self.slots[index].load;
            let requests = f64::from(load.in_flight()) + load.failing(now) * REFUSED;
            if is_alike { requests } else { requests / self.weight(index, now) }
        };
        if busy(first) <= 0.0 {
            return Some(first);
        }
        let (mut least, mut equals, mut second) = (f64::INFINITY, 0, first);
        for index in 0..self.slots.len() {
            let its = busy(index);
            if its > least || !eligible(index) {
                continue;
            }
            equals = if its < least { 1 } else { equals + 1 };
            least = its;
            // Each of the equals is as likely: the last of two takes half, of three a third (reservoir sampling).
            if equals == 1 || scale(self.next_random(), equals) == 0 {
                second = index;
            }
        }
        Some(if second != first && self.is_better(second, first, now, false) { second } else { first })
    }

    /// The endpoint with the shortest way to the key, by weight: when one comes or goes, or warms up, only its own keys
    /// move. One whose load is far above the mean gives way to the next.
    fn for_key(&self, now: Instant, key: u64, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        // Most often it is the nearest of all, which is found for a third of what asking for each would cost.
        let of_all =
            if self.is_alike(now) { Some(self.ways.nearest(key)).filter(|first| eligible(*first)) } else { None };
        match of_all {
            Some(first) if self.slots[first].load.in_flight() <= 1 || !self.is_full(first, now) => Some(first),
            _ => self.for_key_among(now, key, of_all, eligible),
        }
    }

    /// Where the nearest of all may not take it, or is full, or weights differ.
    #[inline(never)]
    fn for_key_among(
        &self,
        now: Instant,
        key: u64,
        of_all: Option<usize>,
        eligible: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let is_alike = self.is_alike(now);
        let nearest = |is_able: &dyn Fn(usize) -> bool| {
            if is_alike {
                return self.ways.nearest_able(key, is_able);
            }
            self.ways.nearest_by_weight(key, |index| self.weight(index, now), is_able)
        };
        let first = of_all.or_else(|| nearest(eligible))?;
        if !self.is_full(first, now) {
            return Some(first);
        }
        let is_well = |index: usize| self.slots[index].load.failing(now) <= 0.0;
        nearest(&|index| eligible(index) && !self.is_full(index, now) && is_well(index)).or(Some(first))
    }

    /// Whether an endpoint of a hash ring has more requests than its share of all, by more than chance makes of them.
    fn is_full(&self, index: usize, now: Instant) -> bool {
        let its = f64::from(self.slots[index].load.in_flight());
        // Of a mean `m` it may have `m + 2 sqrt(m) + 1`, or a quarter more than the mean, whichever is more.
        let enough = (its.sqrt() - 1.0).max(0.0).powi(2).min(its / BOUNDED_LOAD);
        let weights = *self.sums.last().unwrap_or(&1) as f64;
        let mut missing = enough * weights / self.weight(index, now) - 1.0;
        its > 1.0
            && self.slots.iter().all(|slot| {
                missing -= f64::from(slot.load.in_flight());
                missing >= 0.0
            })
    }

    /// All weights are the same, and nobody is new.
    fn is_alike(&self, now: Instant) -> bool {
        self.is_even && self.warm_at.is_none_or(|at| at <= now)
    }

    /// The weight, less while the endpoint is new.
    fn weight(&self, index: usize, now: Instant) -> f64 {
        f64::from(self.slots[index].weight.max(1)) * self.warmth(index, now)
    }

    /// A new endpoint takes only its share of the draws that name it.
    fn is_let_in(&self, index: usize, now: Instant) -> bool {
        let warmth = self.warmth(index, now);
        warmth >= 1.0 || self.share() < warmth
    }

    /// The next point of the circle.
    fn step(&self) -> u64 {
        let next = self.drawn.get().wrapping_add(GOLDEN);
        self.drawn.set(next);
        next
    }

    /// xorshift64* (Vigna 2016).
    fn next_random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A random number, uniform in 0 to 1.
    pub fn share(&self) -> f64 {
        share_of(self.next_random())
    }
}

/// A point of the circle as a number below `bound` (Lemire's multiplication; the bias of 2^-64 times the bound does not
/// matter here).
fn scale(point: u64, bound: u64) -> u64 {
    ((u128::from(point) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn balancer(algorithm: Algorithm, weights: &[u32]) -> Balancer {
        let slots = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Slot {
                weight: *weight,
                warms_from: None,
                hash: hash_bytes(format!("endpoint-{index}").as_bytes()),
                load: Rc::default(),
            })
            .collect();
        Balancer::new(&Balance { algorithm, ..Balance::default() }, slots, 42)
    }

    fn shares(balancer: &Balancer, picks: u32, now: Instant) -> Vec<f64> {
        let mut counts = vec![0_u32; balancer.slots().len()];
        for _ in 0..picks {
            counts[balancer.pick(now, None, |_| true).unwrap()] += 1;
        }
        counts.iter().map(|count| f64::from(*count) / f64::from(picks)).collect()
    }

    #[test]
    fn round_robin_is_smooth() {
        let balancer = balancer(Algorithm::RoundRobin, &[5, 1, 1]);
        let now = Instant::now();
        let picks: Vec<_> = (0..7).map(|_| balancer.pick(now, None, |_| true).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0], "nginx's own example");
    }

    #[test]
    fn round_robin_among_many_gives_each_its_turn_and_the_turns_of_others_to_all() {
        let (balancer, now) = (balancer(Algorithm::RoundRobin, &[3; 200]), Instant::now());
        let mut counts = [0_u32; 200];
        (0..20_000).for_each(|_| counts[balancer.pick(now, None, |_| true).unwrap()] += 1);
        assert_eq!(counts, [100; 200]);
        let mut counts = [0_u32; 200];
        (0..20_000).for_each(|_| counts[balancer.pick(now, None, |index| index >= 100).unwrap()] += 1);
        assert_eq!(counts[..100], [0; 100]);
        assert!(counts[100..].iter().all(|count| (150..260).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_preview_changes_nothing() {
        let now = Instant::now();
        for (algorithm, is_many) in
            [Algorithm::RoundRobin, Algorithm::Random, Algorithm::P2cEwma].iter().flat_map(|a| [(a, false), (a, true)])
        {
            let balancer = balancer(algorithm.clone(), if is_many { &[1; 100] } else { &[5, 3, 1, 1] });
            let pick = || balancer.pick(now, None, |_| true).unwrap();
            pick();
            let seen = balancer.preview(|| [pick(), pick(), pick(), pick(), pick()]);
            assert_eq!(seen, [pick(), pick(), pick(), pick(), pick()]);
        }
    }

    #[test]
    fn weights_are_shares() {
        let now = Instant::now();
        for algorithm in [Algorithm::Random, Algorithm::RoundRobin] {
            let shares = shares(&balancer(algorithm.clone(), &[10, 30, 60]), 20_000, now);
            for (share, expected) in shares.iter().zip([0.1, 0.3, 0.6]) {
                assert!((share - expected).abs() < 0.02, "{algorithm:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn ewma_prefers_the_fast_and_starves_nobody() {
        let balancer = balancer(Algorithm::P2cEwma, &[1, 1, 1, 1, 1]);
        let start = Instant::now();
        let mut counts = [0_u32; 5];
        for request in 0..20_000 {
            let now = start + Duration::from_millis(request * 4);
            let picked = balancer.pick(now, None, |_| true).unwrap();
            counts[picked] += 1;
            let load = &balancer.slots()[picked].load;
            load.started();
            load.finished(now, Some(Duration::from_millis(if picked == 0 { 50 } else { 5 })));
        }
        assert!(counts[0] > 20, "the slow one is still looked at: {counts:?}");
        assert!(counts[0] * 2 < counts[1..].iter().min().copied().unwrap(), "{counts:?}");
    }

    #[test]
    fn failing_fast_does_not_attract() {
        let balancer = balancer(Algorithm::P2cEwma, &[1, 1]);
        let now = Instant::now();
        for (index, latency) in [(0, None), (1, Some(Duration::from_millis(100)))] {
            for _ in 0..4 {
                let load = &balancer.slots()[index].load;
                load.started();
                load.finished(now, latency);
            }
        }
        assert!(shares(&balancer, 1_000, now)[1] > 0.9);
    }

    #[test]
    fn least_connections_is_by_weight() {
        let balancer = balancer(Algorithm::LeastConnections, &[1, 1, 2]);
        for _ in 0..20 {
            balancer.slots().iter().for_each(|slot| slot.load.started());
        }
        let shares = shares(&balancer, 1_000, Instant::now());
        assert!(shares[2] > 0.7, "20 in flight at weight 2 is the least: {shares:?}");
    }

    #[test]
    fn a_new_endpoint_warms_up() {
        let now = Instant::now();
        let mut slots = balancer(Algorithm::Random, &[1, 1]).slots().to_vec();
        slots[1].warms_from = Some(now);
        let balancer = Balancer::new(&Balance { algorithm: Algorithm::Random, ..Balance::default() }, slots, 7);
        let at = |seconds| shares(&balancer, 10_000, now + Duration::from_secs(seconds))[1];
        let (cold, half, warm) = (at(0), at(5), at(10));
        assert!((0.05..0.15).contains(&cold), "{cold}");
        assert!((0.25..0.42).contains(&half), "{half}");
        assert!((0.46..0.54).contains(&warm), "{warm}");
    }

    fn ring_of(count: usize) -> Balancer {
        balancer(Algorithm::RingHash(HashOn::SourceIp), &vec![1; count])
    }

    #[test]
    fn a_key_stays_unless_its_endpoint_goes() {
        let now = Instant::now();
        let (ten, nine) = (ring_of(10), ring_of(9));
        let keys = (0..2_000_u32).map(|key| hash_bytes(&key.to_be_bytes()));
        let moved = keys
            .filter(|key| {
                let before = ten.pick(now, Some(*key), |_| true).unwrap();
                before != 9 && nine.pick(now, Some(*key), |_| true) != Some(before)
            })
            .count();
        assert_eq!(moved, 0);
    }

    #[test]
    fn a_full_endpoint_of_the_ring_passes_its_keys_on() {
        let (now, ring) = (Instant::now(), ring_of(3));
        let key = Some(hash_bytes(b"a hot key"));
        let mut counts = [0; 3];
        for _ in 0..300 {
            let picked = ring.pick(now, key, |_| true).unwrap();
            ring.slots()[picked].load.started();
            counts[picked] += 1;
        }
        assert!(counts.iter().all(|count| *count <= 126), "{counts:?}");
    }

    proptest! {
        #[test]
        fn whoever_is_eligible_is_found(
            weights in prop::collection::vec(1_u32..50, 1..40),
            algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
            only in any::<prop::sample::Index>(),
            hash in any::<u64>(),
        ) {
            let balancer = balancer(algorithm, &weights);
            let only = only.index(weights.len());
            prop_assert_eq!(balancer.pick(Instant::now(), Some(hash), |index| index == only), Some(only));
            prop_assert_eq!(balancer.pick(Instant::now(), Some(hash), |_| false), None);
        }
    }
}
