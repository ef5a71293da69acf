//! What each endpoint gets, for each algorithm, in a small world: callers that ask again as soon as they have an answer, workers
//! with a balancer each, answers that take about as long everywhere. The naive model is the weights.

use std::rc::Rc;
use std::time::{Duration, Instant};

use lictor_core::balance::{Balancer, Load, Slot, hash_bytes};
use lictor_core::policy::{Algorithm, Balance, HashOn};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A world to be asked.
struct World<'a> {
    weights: &'a [u32],
    /// It came at the beginning.
    newcomer: Option<usize>,
    /// What it answers: how long that takes, and whether it is a failure.
    answers: &'a dyn Fn(usize) -> (Duration, bool),
    callers: usize,
    workers: usize,
}

/// An answer on its way.
struct Running {
    ends: Instant,
    worker: usize,
    endpoint: usize,
}

impl World<'_> {
    fn slots(&self, start: Instant) -> Vec<Slot> {
        let slot = |(index, weight): (usize, &u32)| Slot {
            weight: *weight,
            warms_from: (self.newcomer == Some(index)).then_some(start),
            hash: hash_bytes(format!("127.0.0.1:{index}").as_bytes()),
            load: Rc::new(Load::default()),
        };
        self.weights.iter().enumerate().map(slot).collect()
    }

    /// How many of so many requests each gets that begin between these two times.
    fn run(&self, algorithm: &Algorithm, requests: usize, from: Duration, seed: u64) -> Vec<u32> {
        let start = Instant::now();
        let balance = Balance { algorithm: algorithm.clone(), ..Balance::default() };
        let workers: Vec<Balancer> = (0..self.workers)
            .map(|worker| Balancer::new(&balance, self.slots(start), seed + worker as u64 * 77))
            .collect();
        let mut counts = vec![0; self.weights.len()];
        let mut running: Vec<Running> = Vec::new();
        let mut now = start + from;
        let mut random = seed | 1;
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        for request in 0..requests {
            // The first callers begin one after the other; then each begins again as its answer comes.
            let worker = if running.len() < self.callers {
                request % self.workers
            } else {
                let next = (0..running.len()).min_by_key(|index| running[*index].ends).expect("somebody runs");
                let Running { ends, worker, endpoint } = running.swap_remove(next);
                now = ends;
                let (latency, is_failure) = (self.answers)(endpoint);
                workers[worker].slots()[endpoint].load.finished(now, (!is_failure).then_some(latency));
                worker
            };
            let key = hash_bytes(&noise().to_be_bytes());
            let endpoint = workers[worker].pick(now, Some(key), |_| true).expect("all are eligible");
            workers[worker].slots()[endpoint].load.started();
            counts[endpoint] += 1;
            let (latency, _) = (self.answers)(endpoint);
            let ends = now + latency * (900 + (noise() % 200) as u32) / 1000;
            running.push(Running { ends, worker, endpoint });
        }
        counts
    }
}

fn share(counts: &[u32], index: usize) -> f64 {
    f64::from(counts[index]) / f64::from(counts.iter().sum::<u32>())
}

/// Answers within a few milliseconds, and good ones.
fn alike(_: usize) -> (Duration, bool) {
    (Duration::from_millis(5), false)
}

/// The shares are the weights', give or take a tenth of each, and what chance makes of so many requests.
fn assert_fair(counts: &[u32], weights: &[f64], told: &str) {
    let (requests, total) = (f64::from(counts.iter().sum::<u32>()), weights.iter().sum::<f64>());
    for (count, weight) in counts.iter().zip(weights) {
        let expected = requests * weight / total;
        let off = (f64::from(*count) - expected).abs();
        assert!(
            off <= expected * 0.1 + 3.0 * expected.sqrt().min(expected * 0.1) + 2.0,
            "{told}: {counts:?} for {weights:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_the_weights(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        weights in prop_oneof![
            prop::collection::vec(1_u32..100, 2),
            prop::collection::vec(1_u32..100, 3),
            prop::collection::vec(1_u32..20, 20),
            Just(vec![99, 1]), Just(vec![100, 1]), Just(vec![1, 1]), Just(vec![1; 20]),
        ],
        callers in prop::sample::select(vec![1_usize, 8]),
        workers in 1_usize..=2,
        seed in any::<u32>(),
    ) {
        let world = World { weights: &weights, newcomer: None, answers: &alike, callers, workers };
        let counts = world.run(&algorithm, 20_000, Duration::ZERO, seed.into());
        let told = format!("{algorithm}, {callers} callers, {workers} workers");
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        assert_fair(&counts, &weights, &told);
    }

    #[test]
    fn a_newcomers_share_grows_with_its_age(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        others in 1_usize..5,
        tenths in 0_u32..=10,
        callers in prop::sample::select(vec![1_usize, 8]),
        seed in any::<u32>(),
    ) {
        let weights = vec![10; others + 1];
        let world = World { weights: &weights, newcomer: Some(0), answers: &|_| (Duration::from_micros(20), false), callers, workers: 1 };
        // So many that they begin at about the same age.
        let age = SECOND * tenths;
        let counts = world.run(&algorithm, 4_000, age, seed.into());
        let warmth = f64::from(tenths).max(1.0) / 10.0;
        let right = warmth / (warmth + others as f64);
        let off = (share(&counts, 0) - right).abs();
        prop_assert!(off <= right * 0.15 + 0.01, "{}: {} of {} at {} s with {} callers", algorithm, share(&counts, 0), right, tenths, callers);
    }

    #[test]
    fn whoever_fails_or_refuses_fast_gets_no_more_for_it(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        others in 1_usize..5,
        callers in prop::sample::select(vec![1_usize, 8]),
        slow in 1_u64..200,
        seed in any::<u32>(),
    ) {
        let weights = vec![1; others + 1];
        let answers = |index: usize| match index {
            0 => (Duration::from_micros(100), true),
            _ => (Duration::from_millis(slow), false),
        };
        let world = World { weights: &weights, newcomer: None, answers: &answers, callers, workers: 1 };
        let requests = 2_000;
        let counts = world.run(&algorithm, requests, Duration::ZERO, seed.into());
        let fair = 1.0 / (others + 1) as f64;
        let most = match algorithm {
            Algorithm::P2cEwma | Algorithm::LeastRequest | Algorithm::LeastConnections => fair * 0.5,
            Algorithm::RoundRobin | Algorithm::Random | Algorithm::RingHash(_) => fair * 1.15 + 0.01,
        };
        prop_assert!(share(&counts, 0) <= most, "{}: {} of {}", algorithm, counts[0], requests);
    }
}

#[test]
fn a_sequential_caller_spreads_over_equals_and_never_long_to_one() {
    for algorithm in Algorithm::ALL.iter().filter(|algorithm| **algorithm != Algorithm::RingHash(HashOn::SourceIp)) {
        for seed in 0..50 {
            let world = World { weights: &[1, 1], newcomer: None, answers: &alike, callers: 1, workers: 1 };
            let counts = world.run(algorithm, 37, Duration::ZERO, seed);
            assert!(counts.iter().all(|count| (15..=22).contains(count)), "{algorithm}: {counts:?} of 37");
        }
    }
}

#[test]
fn the_fast_one_is_preferred_and_the_slow_one_still_asked() {
    let answers = |index: usize| (Duration::from_millis(if index == 0 { 200 } else { 10 }), false);
    for callers in [1, 8] {
        let world = World { weights: &[1, 1, 1], newcomer: None, answers: &answers, callers, workers: 1 };
        let counts = world.run(&Algorithm::P2cEwma, 20_000, Duration::ZERO, 7);
        assert!(share(&counts, 0) < 0.1 && counts[0] > 20, "{callers}: {counts:?}");
    }
}

#[test]
fn one_slow_answer_is_an_accident_and_several_are_news() {
    let slots =
        World { weights: &[1, 1], newcomer: None, answers: &alike, callers: 1, workers: 1 }.slots(Instant::now());
    let balancer = Balancer::new(&Balance::default(), slots, 3);
    let mut now = Instant::now();
    let mut answer = |endpoint: usize, millis: u64| {
        now += Duration::from_millis(1);
        let load = &balancer.slots()[endpoint].load;
        load.started();
        load.finished(now, Some(Duration::from_millis(millis)));
        now
    };
    for _ in 0..50 {
        answer(0, 5);
        answer(1, 5);
    }
    let share_of_first = |now| (0..1000).filter(|_| balancer.pick(now, None, |_| true) == Some(0)).count();
    let now = answer(0, 500);
    assert!((450..=550).contains(&share_of_first(now)), "one");
    for _ in 0..9 {
        answer(0, 500);
    }
    let now = answer(1, 5);
    assert!(share_of_first(now) < 50, "ten");
}

#[test]
fn a_balancer_goes_on_where_the_one_before_was() {
    for algorithm in Algorithm::ALL {
        let balance = Balance { algorithm: algorithm.clone(), ..Balance::default() };
        let slots = World { weights: &[5, 3, 1], newcomer: None, answers: &alike, callers: 1, workers: 1 }
            .slots(Instant::now());
        let (steady, mut changing) = (Balancer::new(&balance, slots.clone(), 9), Balancer::new(&balance, slots, 9));
        let now = Instant::now();
        for request in 0..200_u32 {
            let slots = changing.slots().to_vec();
            changing = Balancer::new(&balance, slots, u64::from(request)).following(&changing);
            let key = Some(hash_bytes(&request.to_be_bytes()));
            assert_eq!(changing.pick(now, key, |_| true), steady.pick(now, key, |_| true), "{algorithm}: {request}");
        }
    }
}

#[test]
fn one_that_may_not_be_asked_leaves_the_others_their_shares() {
    for algorithm in Algorithm::ALL {
        for weights in [[1, 1, 4], [1, 3, 20], [5, 5, 1]] {
            let world = World { weights: &weights, newcomer: None, answers: &alike, callers: 1, workers: 1 };
            let balance = Balance { algorithm: algorithm.clone(), ..Balance::default() };
            let (now, mut counts) = (Instant::now(), vec![0; 3]);
            let balancer = Balancer::new(&balance, world.slots(now), 11);
            for request in 0..20_000_u32 {
                let key = Some(hash_bytes(&request.to_be_bytes()));
                counts[balancer.pick(now, key, |index| index != 2).expect("two are eligible")] += 1;
            }
            assert_fair(&counts[..2], &[f64::from(weights[0]), f64::from(weights[1])], &algorithm.to_string());
        }
    }
}
