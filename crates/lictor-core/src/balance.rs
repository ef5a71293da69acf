//! Choosing an endpoint. One balancer a worker and upstream, rebuilt with each change of the endpoint set; what it has
//! learnt of an endpoint is in the endpoint's [`Load`], which lives on.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use crate::load::Load;

/// One pick in this many is random, so that an endpoint that looked bad once is looked at again.
const EXPLORE: u64 = 100;
/// The least share of its weight that a new endpoint has (as in Envoy's slow start).
const MIN_WARMTH: f64 = 0.1;
/// How far above the mean an endpoint of a hash ring may be loaded (Mirrokni et al. 2016).
const BOUNDED_LOAD: f64 = 1.25;
/// Round robin looks at all endpoints up to this many; at more of the same weight that would cost more than the request.
const LOOKED_AT: usize = 64;
/// Points on the ring for each unit of mean weight, bounded by `MAX_POINTS` in all.
const POINTS: usize = 100;
const MAX_POINTS: usize = 100_000;

/// How an endpoint is chosen for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// The algorithm. Default peak EWMA, power of two choices.
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
    /// Two random endpoints, the one with the lower peak-EWMA latency times load.
    P2cEwma,
    /// Smooth weighted round robin (nginx's).
    RoundRobin,
    /// A weighted random endpoint.
    Random,
    /// Two random endpoints, the one with fewer requests in flight.
    LeastRequest,
    /// The endpoint with the fewest requests in flight for its weight, of all.
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
    /// Weights added up, for a weighted draw by binary search.
    sums: Vec<u64>,
    /// Sorted points of a hash ring, each with its slot.
    ring: Vec<(u64, u32)>,
    /// The last endpoint's slow start ends here.
    warm_at: Option<Instant>,
    /// All weights are the same.
    is_even: bool,
    /// Whose turn it is, where not all endpoints are looked at.
    turn: Cell<usize>,
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
        let ring = if matches!(balance.algorithm, Algorithm::RingHash(_)) { ring(&slots) } else { Vec::new() };
        let is_even = slots.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        // Workers and sidecars that begin together do not begin with the same endpoint.
        let turn = Cell::new((seed % slots.len().max(1) as u64) as usize);
        let warm_at = slots.iter().filter_map(|slot| slot.warms_from).max().map(|from| from + balance.slow_start);
        Self {
            algorithm: balance.algorithm.clone(),
            slow_start: balance.slow_start,
            slots,
            sums,
            ring,
            warm_at,
            is_even,
            turn,
            random: Cell::new(seed | 1),
        }
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
                if self.next_random().is_multiple_of(EXPLORE) {
                    return self.draw(now, &eligible);
                }
                self.better_of_two(now, &eligible, |slot| slot.load.cost(now))
            }
            (Algorithm::LeastRequest, _) => {
                self.better_of_two(now, &eligible, |slot| f64::from(slot.load.in_flight() + 1))
            }
            (Algorithm::LeastConnections, _) => self.least(now, &eligible),
            (Algorithm::RoundRobin, _) => self.next_in_turn(now, &eligible),
            (Algorithm::RingHash(_), Some(hash)) => self.on_ring(hash, &eligible),
            (Algorithm::Random | Algorithm::RingHash(_), _) => self.draw(now, &eligible),
        }
    }

    /// Runs picks that leave no trace: the next real one is as if they had not been.
    pub fn preview<T>(&self, look: impl FnOnce() -> T) -> T {
        let (random, turn) = (self.random.get(), self.turn.get());
        let turns: Vec<f64> = self.slots.iter().map(|slot| slot.load.current.get()).collect();
        let seen = look();
        self.random.set(random);
        self.turn.set(turn);
        for (slot, turn) in self.slots.iter().zip(turns) {
            slot.load.current.set(turn);
        }
        seen
    }

    /// What the algorithm compares, the lower the better; `None` where it compares nothing.
    pub fn score(&self, index: usize, now: Instant) -> Option<f64> {
        let load = &self.slots.get(index)?.load;
        match self.algorithm {
            Algorithm::P2cEwma => Some(load.cost(now)),
            Algorithm::LeastRequest => Some(f64::from(load.in_flight() + 1)),
            Algorithm::LeastConnections => Some(f64::from(load.in_flight()) / self.weight(index, now)),
            Algorithm::RoundRobin | Algorithm::Random | Algorithm::RingHash(_) => None,
        }
    }

    /// Two draws by weight, the one with less to do (Mitzenmacher 2001). The weights are in the draw: an endpoint of
    /// twice the weight is looked at twice as often, and between two that are looked at only the load counts.
    fn better_of_two(
        &self,
        now: Instant,
        eligible: &impl Fn(usize) -> bool,
        cost: impl Fn(&Slot) -> f64,
    ) -> Option<usize> {
        let first = self.draw(now, eligible)?;
        let second = self.draw(now, &|index| index != first && eligible(index));
        match second {
            Some(second) if cost(&self.slots[second]) < cost(&self.slots[first]) => Some(second),
            _ => Some(first),
        }
    }

    /// A random endpoint by weight. A few tries in constant time; when most are not eligible, a scan.
    fn draw(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let total = *self.sums.last()?;
        for _ in 0..4 {
            let ticket = self.below(total);
            let index = self.sums.partition_point(|sum| *sum <= ticket);
            if eligible(index) && self.is_let_in(index, now) {
                return Some(index);
            }
        }
        let weigh = |index: usize| self.weight(index, now);
        let sum: f64 = (0..self.slots.len()).filter(|index| eligible(*index)).map(weigh).sum();
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

    /// Smooth weighted round robin (nginx): the weights of those that could go add up, the largest goes and pays.
    fn next_in_turn(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        if self.is_even && self.slots.len() > LOOKED_AT && self.warm_at.is_none_or(|at| at <= now) {
            let next = self.turn.get();
            self.turn.set((next + 1) % self.slots.len());
            // Not its neighbour, which would have two turns.
            return if eligible(next) { Some(next) } else { self.draw(now, eligible) };
        }
        let mut best: Option<usize> = None;
        let mut sum = 0.0;
        for index in (0..self.slots.len()).filter(|index| eligible(*index)) {
            let weight = self.weight(index, now);
            let current = &self.slots[index].load.current;
            current.set(current.get() + weight);
            sum += weight;
            if best.is_none_or(|best| current.get() > self.slots[best].load.current.get()) {
                best = Some(index);
            }
        }
        let current = &self.slots[best?].load.current;
        current.set(current.get() - sum);
        best
    }

    /// The fewest requests for its weight, of all; a draw among equals.
    fn least(&self, now: Instant, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let busy = |index: usize| f64::from(self.slots[index].load.in_flight()) / self.weight(index, now);
        let least = (0..self.slots.len()).filter(|index| eligible(*index)).map(busy).fold(f64::INFINITY, f64::min);
        self.draw(now, &|index| eligible(index) && busy(index) <= least)
    }

    /// The first eligible endpoint after the request's point whose load is not far above the mean.
    fn on_ring(&self, hash: u64, eligible: &impl Fn(usize) -> bool) -> Option<usize> {
        let total: f64 = self.slots.iter().map(|slot| f64::from(slot.load.in_flight())).sum();
        let weights = *self.sums.last()? as f64;
        let is_full = |index: usize| {
            let share = f64::from(self.slots[index].weight.max(1)) / weights;
            f64::from(self.slots[index].load.in_flight()) >= ((total + 1.0) * share * BOUNDED_LOAD).ceil()
        };
        let start = self.ring.partition_point(|(point, _)| *point < hash);
        let mut walk = (start..self.ring.len()).chain(0..start).map(|at| self.ring[at].1 as usize);
        walk.clone().find(|index| eligible(*index) && !is_full(*index)).or_else(|| walk.find(|index| eligible(*index)))
    }

    /// The weight, less while the endpoint is new.
    fn weight(&self, index: usize, now: Instant) -> f64 {
        f64::from(self.slots[index].weight.max(1)) * self.warmth(index, now)
    }

    fn warmth(&self, index: usize, now: Instant) -> f64 {
        if self.warm_at.is_none_or(|at| at <= now) {
            return 1.0;
        }
        let Some(from) = self.slots[index].warms_from else { return 1.0 };
        let age = now.saturating_duration_since(from).as_secs_f64() / self.slow_start.as_secs_f64();
        age.clamp(MIN_WARMTH, 1.0)
    }

    /// A new endpoint takes only its share of the draws that name it.
    fn is_let_in(&self, index: usize, now: Instant) -> bool {
        let warmth = self.warmth(index, now);
        warmth >= 1.0 || self.share() < warmth
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

    /// Uniform below `bound` (Lemire's multiplication; the bias of 2^-64 times the bound does not matter here).
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_random()) * u128::from(bound)) >> 64) as u64
    }

    fn share(&self) -> f64 {
        (self.next_random() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Points by weight, each a hash of the endpoint's hash: they stay where they are when others come and go.
fn ring(slots: &[Slot]) -> Vec<(u64, u32)> {
    let total: f64 = slots.iter().map(|slot| f64::from(slot.weight.max(1))).sum();
    let points = (POINTS * slots.len()).min(MAX_POINTS) as f64;
    let mut ring: Vec<(u64, u32)> = slots
        .iter()
        .enumerate()
        .flat_map(|(index, slot)| {
            let share = (f64::from(slot.weight.max(1)) / total * points).round().max(1.0) as u64;
            (0..share).map(move |point| (mix(slot.hash ^ mix(point + 1)), index as u32))
        })
        .collect();
    ring.sort_unstable();
    ring
}

/// A stable hash: FNV-1a, finished with splitmix64's mixer. Never a randomly seeded one, or every worker and every
/// sidecar would have a ring of its own.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
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
            let load = &balancer.slots()[index].load;
            load.started();
            load.finished(now, latency);
        }
        assert!(shares(&balancer, 1_000, now)[1] > 0.9);
    }

    #[test]
    fn least_connections_is_exact() {
        let balancer = balancer(Algorithm::LeastConnections, &[1, 1, 2]);
        for _ in 0..2 {
            balancer.slots().iter().for_each(|slot| slot.load.started());
        }
        assert_eq!(balancer.pick(Instant::now(), None, |_| true), Some(2), "2 in flight at weight 2 is the least");
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
        for _ in 0..30 {
            let picked = ring.pick(now, key, |_| true).unwrap();
            ring.slots()[picked].load.started();
            counts[picked] += 1;
        }
        assert!(counts.iter().all(|count| *count <= 13), "{counts:?}");
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
