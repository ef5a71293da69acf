//! Each algorithm: whom it may pick, and how often.

use std::rc::Rc;
use std::time::{Duration, Instant};

use lictor_core::balance::{Balancer, Load, Slot, hash_bytes};
use lictor_core::policy::{Algorithm, Balance, HashOn};
use proptest::prelude::*;

const RING: Algorithm = Algorithm::RingHash(HashOn::SourceIp);

fn slots(weights: &[u32]) -> Vec<Slot> {
    let slot = |(index, weight): (usize, &u32)| Slot {
        weight: *weight,
        warms_from: None,
        hash: hash_bytes(format!("10.0.0.{index}:80").as_bytes()),
        load: Rc::new(Load::default()),
    };
    weights.iter().enumerate().map(slot).collect()
}

fn balancer(algorithm: Algorithm, slots: Vec<Slot>, seed: u64) -> Balancer {
    Balancer::new(&Balance { algorithm, ..Balance::default() }, slots, seed)
}

fn any_algorithm() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(Algorithm::ALL.to_vec())
}

/// Smooth weighted round robin as nginx describes it, on lists.
fn in_turn(current: &mut [i64], weights: &[u32], eligible: &[bool]) -> Option<usize> {
    let able: Vec<usize> = (0..weights.len()).filter(|index| eligible[*index]).collect();
    for index in &able {
        current[*index] += i64::from(weights[*index]);
    }
    let largest = able.iter().map(|index| current[*index]).max()?;
    let picked = able.iter().copied().find(|index| current[*index] == largest)?;
    current[picked] -= able.iter().map(|index| i64::from(weights[*index])).sum::<i64>();
    Some(picked)
}

proptest! {
    #[test]
    fn nobody_who_is_refused_is_picked_and_somebody_who_is_not_is(
        algorithm in any_algorithm(),
        weights in prop::collection::vec(1_u32..100, 1..12),
        steps in prop::collection::vec((any::<u16>(), prop::option::of(any::<u64>()), any::<bool>(), 0_u64..500), 1..60),
        warming in any::<u16>(),
        seed in any::<u64>(),
    ) {
        let mut now = Instant::now();
        let mut slots = slots(&weights);
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.warms_from = (warming >> index & 1 == 1).then_some(now);
        }
        let balancer = balancer(algorithm, slots, seed);
        for (mask, hash, ends, millis) in steps {
            now += Duration::from_millis(millis);
            let is_eligible = |index: usize| mask >> index & 1 == 1;
            let picked = balancer.pick(now, hash, is_eligible);
            prop_assert_eq!(picked.is_some(), (0..weights.len()).any(is_eligible));
            let Some(picked) = picked else { continue };
            prop_assert!(is_eligible(picked));
            let load = &balancer.slots()[picked].load;
            load.started();
            if ends {
                load.finished(now, (millis % 3 != 0).then(|| Duration::from_millis(millis)));
            }
        }
    }

    #[test]
    fn round_robin_is_nginxs_whoever_may_go(
        weights in prop::collection::vec(1_u32..20, 2..8),
        masks in prop::collection::vec(any::<u8>(), 1..80),
    ) {
        let balancer = balancer(Algorithm::RoundRobin, slots(&weights), 1);
        let (now, mut current) = (Instant::now(), vec![0; weights.len()]);
        for mask in masks {
            let eligible: Vec<bool> = (0..weights.len()).map(|index| mask >> index & 1 == 1).collect();
            let picked = balancer.pick(now, None, |index| eligible[index]);
            prop_assert_eq!(picked, in_turn(&mut current, &weights, &eligible));
        }
    }

    #[test]
    fn a_round_of_round_robin_gives_each_its_weight_exactly(weights in prop::collection::vec(1_u32..20, 2..8)) {
        let balancer = balancer(Algorithm::RoundRobin, slots(&weights), 1);
        let now = Instant::now();
        let mut counts = vec![0; weights.len()];
        for _ in 0..weights.iter().sum() {
            counts[balancer.pick(now, None, |_| true).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn random_picks_are_shared_by_weight(weights in prop::collection::vec(1_u32..10, 2..6), seed in any::<u64>(), refused in 0_usize..6) {
        const PICKS: u32 = 20_000;
        let balancer = balancer(Algorithm::Random, slots(&weights), seed);
        let now = Instant::now();
        let is_eligible = |index: usize| index != refused;
        let total: u32 = (0..weights.len()).filter(|index| is_eligible(*index)).map(|index| weights[index]).sum();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..PICKS {
            counts[balancer.pick(now, None, is_eligible).unwrap()] += 1;
        }
        for (index, count) in counts.iter().enumerate().filter(|(index, _)| is_eligible(*index)) {
            let share = f64::from(weights[index]) / f64::from(total);
            // Six standard deviations of a binomial distribution: once in 10^9.
            let bound = 6.0 * (f64::from(PICKS) * share * (1.0 - share)).sqrt() + 1.0;
            let off = (f64::from(*count) - share * f64::from(PICKS)).abs();
            prop_assert!(off <= bound, "{:?} for {:?}", counts, weights);
        }
    }

    #[test]
    fn of_two_the_one_with_less_to_do_goes(
        loads in prop::collection::vec(0_u32..20, 2),
        weight in 1_u32..50,
        seed in any::<u64>(),
    ) {
        let slots = slots(&[weight, weight]);
        for (slot, load) in slots.iter().zip(&loads) {
            (0..*load).for_each(|_| slot.load.started());
        }
        let balancer = balancer(Algorithm::LeastRequest, slots, seed);
        let now = Instant::now();
        for _ in 0..50 {
            let picked = balancer.pick(now, None, |_| true).unwrap();
            prop_assert!(loads[picked] <= loads[1 - picked], "{} of {:?}", picked, loads);
        }
    }

    #[test]
    fn among_many_the_one_with_most_to_do_is_never_the_better_of_two(
        loads in prop::collection::btree_set(0_u32..100, 3..10),
        seed in any::<u64>(),
    ) {
        let loads: Vec<u32> = loads.into_iter().collect();
        let slots = slots(&vec![1; loads.len()]);
        for (slot, load) in slots.iter().zip(&loads) {
            (0..*load).for_each(|_| slot.load.started());
        }
        let balancer = balancer(Algorithm::LeastRequest, slots, seed);
        let worst = loads.len() - 1;
        let now = Instant::now();
        prop_assert!((0..200).all(|_| balancer.pick(now, None, |_| true) != Some(worst)));
    }

    #[test]
    fn the_faster_of_two_goes_but_for_one_in_a_hundred(
        millis in prop::collection::vec(1_u64..1000, 2),
        busy in prop::collection::vec(0_u32..5, 2),
        seed in any::<u64>(),
    ) {
        const PICKS: usize = 2_000;
        let slots = slots(&[1, 1]);
        let now = Instant::now();
        for ((slot, millis), busy) in slots.iter().zip(&millis).zip(&busy) {
            for _ in 0..4 {
                slot.load.started();
                slot.load.finished(now, Some(Duration::from_millis(*millis)));
            }
            (0..*busy).for_each(|_| slot.load.started());
        }
        // Latencies that are near one another are equal, and then the requests count.
        let is_tie = millis[0].max(millis[1]) <= 2 * millis[0].min(millis[1]) + 1;
        let cost = |index: usize| if is_tie { 1 } else { millis[index] } * u64::from(busy[index] + 1);
        prop_assume!(cost(0) != cost(1));
        let better = usize::from(cost(1) < cost(0));
        let balancer = balancer(Algorithm::P2cEwma, slots, seed);
        let worse = (0..PICKS).filter(|_| balancer.pick(now, None, |_| true) != Some(better)).count();
        // Half of the hundredth that explores finds it, give or take six standard deviations.
        prop_assert!(worse <= 30, "{} of {} picks were of the worse", worse, PICKS);
    }

    #[test]
    fn least_connections_is_the_least_of_all(
        weight in 1_u32..10,
        endpoints in prop::collection::vec((0_u32..30, any::<bool>()), 2..10),
        seed in any::<u64>(),
    ) {
        let slots = slots(&vec![weight; endpoints.len()]);
        for (slot, (load, _)) in slots.iter().zip(&endpoints) {
            (0..*load).for_each(|_| slot.load.started());
        }
        let balancer = balancer(Algorithm::LeastConnections, slots, seed);
        let picked = balancer.pick(Instant::now(), None, |index| endpoints[index].1);
        let least = endpoints.iter().filter(|endpoint| endpoint.1).map(|endpoint| endpoint.0).min();
        prop_assert_eq!(picked.map(|picked| endpoints[picked].0), least);
        prop_assert!(picked.is_none_or(|picked| endpoints[picked].1));
    }

    #[test]
    fn a_key_goes_the_shortest_way(
        weights in prop::collection::vec(1_u32..50, 2..12),
        key in any::<u64>(),
        mask in 1_u16..,
    ) {
        let ring = balancer(RING, slots(&weights), 1);
        let eligible = |index: usize| mask >> index & 1 == 1;
        let way = |index: usize| {
            // Of the quarters, first the first two's product and the last; then both halves of all's product with the
            // golden ratio's fraction.
            let apart = key ^ ring.slots()[index].hash;
            let quarter = |number: u32| apart >> (16 * number) & 0xffff;
            let first = (quarter(0) * quarter(1) + quarter(3)) & 0xffff;
            let product = u128::from(apart) * 0x9e37_79b9_7f4a_7c15_u128;
            let second = (product >> 64) as u64 ^ (product & u128::from(u64::MAX)) as u64;
            let word = first << 48 | second >> 16;
            let chance = 1.0 - (word >> 11) as f64 / (1_u64 << 53) as f64;
            -chance.ln() / f64::from(weights[index])
        };
        let nearest = (0..weights.len()).filter(|index| eligible(*index)).min_by(|a, b| way(*a).total_cmp(&way(*b)));
        prop_assert_eq!(ring.pick(Instant::now(), Some(key), eligible), nearest);
    }

    #[test]
    fn when_one_leaves_only_its_own_keys_move_and_those_are_about_its_share(
        count in 4_usize..30,
        leaver in any::<prop::sample::Index>(),
        keys in prop::collection::vec(any::<u64>(), 2_000),
    ) {
        let all = slots(&vec![1; count]);
        let leaver = leaver.index(count);
        let mut left = all.clone();
        left.remove(leaver);
        let now = Instant::now();
        let (before, after) = (balancer(RING, all, 1), balancer(RING, left, 1));
        let mut moved = 0;
        for key in &keys {
            let from = before.pick(now, Some(*key), |_| true).unwrap();
            let to = after.pick(now, Some(*key), |_| true).unwrap();
            let is_same = before.slots()[from].hash == after.slots()[to].hash;
            prop_assert!(is_same || from == leaver, "a key moved that was not the leaver's");
            moved += usize::from(!is_same);
        }
        // 100 points for each: a share's standard deviation is a tenth of it; then that of the keys.
        let fair = keys.len() as f64 / count as f64;
        prop_assert!(moved as f64 <= fair * 1.6 + 6.0 * fair.sqrt(), "{} of {} keys moved, fair is {}", moved, keys.len(), fair);
    }

    #[test]
    fn a_refused_endpoint_of_the_ring_gives_its_keys_to_the_next_point(
        count in 2_usize..10,
        key in any::<u64>(),
        mask in 1_u16..,
    ) {
        let ring = balancer(RING, slots(&vec![1; count]), 1);
        let now = Instant::now();
        let picked = ring.pick(now, Some(key), |index| mask >> index & 1 == 1);
        // Whoever is refused might as well have left.
        let those: Vec<Slot> = ring.slots().iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1).map(|(_, slot)| slot.clone()).collect();
        let smaller = balancer(RING, those, 1);
        let expected = smaller.pick(now, Some(key), |_| true).map(|index| smaller.slots()[index].hash);
        prop_assert_eq!(picked.map(|index| ring.slots()[index].hash), expected);
    }

    #[test]
    fn no_endpoint_of_the_ring_has_much_more_than_its_share(
        weights in prop::collection::vec(1_u32..5, 2..8),
        keys in prop::collection::vec(0_u64..4, 1..200),
    ) {
        let ring = balancer(RING, slots(&weights), 1);
        let now = Instant::now();
        let total: u32 = weights.iter().sum();
        for (running, key) in keys.iter().enumerate() {
            let picked = ring.pick(now, Some(hash_bytes(&key.to_be_bytes())), |_| true).unwrap();
            ring.slots()[picked].load.started();
            let share = (running + 1) as f64 * f64::from(weights[picked]) / f64::from(total);
            // Rounded up, that is less than one more.
            let most = (share * 1.25).max(share + 2.0 * share.sqrt() + 1.0);
            prop_assert!(f64::from(ring.slots()[picked].load.in_flight()) < most + 1.0 + 1e-9);
        }
    }
}
