//! When keys are fetched, on a clock of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_jose::refresh::{
    Answer, COOLDOWN, FIRST_WAIT, LAST_WAIT, MAX_AGE, MIN_AGE, Miss, Next, PATIENCE, Refresh, Ticket, USUAL_AGE,
    max_age,
};
use lictor_jose::{Family, KeySet, Keys};

use super::keys;

const STALE: Duration = Duration::from_secs(3600);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn set(family: Family) -> Arc<KeySet> {
    Arc::new(keys(family))
}

fn fetch(refresh: &mut Refresh, now: Instant) -> Ticket {
    match refresh.next(now, 0) {
        Next::Fetch(ticket) => ticket,
        Next::Wait(until) => panic!("waits for {:?}", until - now),
    }
}

fn wait(refresh: &mut Refresh, now: Instant, random: u64) -> Duration {
    match refresh.next(now, random) {
        Next::Wait(until) => until - now,
        Next::Fetch(_) => panic!("fetches"),
    }
}

fn has(refresh: &Refresh, now: Instant) -> bool {
    matches!(refresh.keys(now), Keys::Known(_))
}

#[test]
fn one_fetch_at_a_time_and_the_first_at_once() {
    let start = Instant::now();
    let mut refresh = Refresh::new(STALE, start);
    assert!(refresh.is_first() && !has(&refresh, start));
    let ticket = fetch(&mut refresh, start);
    assert_eq!(wait(&mut refresh, start, 0), PATIENCE, "it is on its way");
    assert!(matches!(refresh.unknown_key(start, 0), Miss::Pending(pending) if pending == ticket));
    assert!(refresh.answered(ticket, Answer::Keys(set(Family::Ec), None), start + seconds(1), 0), "there were none");
    assert!(has(&refresh, start + seconds(1)) && !refresh.is_first());
    assert!(!refresh.answered(ticket, Answer::Keys(set(Family::Ed), None), start + seconds(2), 0), "told twice");
    assert_eq!(wait(&mut refresh, start + seconds(1), 0), USUAL_AGE * 4 / 5);
}

#[test]
fn an_answer_is_good_for_as_long_as_it_says_within_bounds() {
    let start = Instant::now();
    for (told, expected) in [
        (None, USUAL_AGE),
        (Some(Duration::ZERO), MIN_AGE),
        (Some(seconds(10)), MIN_AGE),
        (Some(seconds(3600)), seconds(3600)),
        (Some(seconds(u64::MAX)), MAX_AGE),
    ] {
        for (random, part) in [(0, 0.8), (u64::MAX / 2, 0.9), (u64::MAX, 1.0)] {
            let mut refresh = Refresh::new(STALE, start);
            let ticket = fetch(&mut refresh, start);
            refresh.answered(ticket, Answer::Keys(set(Family::Ec), told), start, random);
            let waits = wait(&mut refresh, start, 0).as_secs_f64();
            assert!((waits - expected.as_secs_f64() * part).abs() < 0.001, "{told:?} {random}: {waits}");
            assert!(matches!(refresh.next(start + expected, 0), Next::Fetch(_)), "{told:?} {random}");
        }
    }
}

#[test]
fn failures_are_waited_out_longer_and_longer_and_keys_stay() {
    let start = Instant::now();
    let failing = [Answer::Failed, Answer::Unchanged(None), Answer::Failed];
    let mut refresh = Refresh::new(STALE, start);
    let mut now = start;
    for attempt in 0..12_u32 {
        let ticket = fetch(&mut refresh, now);
        // 304 to a first question is no answer.
        refresh.answered(ticket, failing[attempt as usize % 3].clone(), now, u64::MAX);
        let least = FIRST_WAIT.saturating_mul(1 << attempt.min(16)).min(LAST_WAIT);
        let waits = wait(&mut refresh, now, 0);
        assert!(waits <= least && waits > least.mul_f64(0.99), "{attempt}: {waits:?}");
        assert!(!has(&refresh, now));
        now += least;
    }
    let ticket = fetch(&mut refresh, now);
    assert!(refresh.answered(ticket, Answer::Keys(set(Family::Ec), Some(MIN_AGE)), now, 0));
    let good = now;
    now += MIN_AGE;
    let ticket = fetch(&mut refresh, now);
    assert!(!refresh.answered(ticket, Answer::Failed, now, 0));
    assert_eq!(wait(&mut refresh, now, 0), FIRST_WAIT / 2, "begins anew, and of it a random half");
    // Stale, and used until max_stale is over.
    for (after, expected) in [(0, true), (3600, true), (3601, false), (1 << 30, false)] {
        assert_eq!(has(&refresh, good + MIN_AGE + seconds(after)), expected, "{after}");
    }
}

#[test]
fn keys_that_are_the_same_are_no_news() {
    let start = Instant::now();
    let mut refresh = Refresh::new(STALE, start);
    let mut told = |answer: Answer, at: u64| {
        let now = start + seconds(at);
        let ticket = fetch(&mut refresh, now);
        let is_other = refresh.answered(ticket, answer, now, 0);
        (is_other, has(&refresh, now + MIN_AGE))
    };
    let age = Some(MIN_AGE);
    for (at, (answer, is_other)) in [
        (Answer::Keys(set(Family::Ec), age), true),
        (Answer::Keys(set(Family::Ec), age), false),
        (Answer::Unchanged(age), false),
        (Answer::Keys(set(Family::Ed), age), true),
        (Answer::Keys(set(Family::Ec), age), true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(told(answer, at as u64 * 60), (is_other, true), "{at}");
    }
}

/// 10,000 tokens with `kid`s that nobody has, in 10 s: one fetch, and known keys stay known all the while.
#[test]
fn a_flood_of_unknown_kids_is_one_fetch() {
    let start = Instant::now();
    let mut refresh = Refresh::new(STALE, start);
    let ticket = fetch(&mut refresh, start);
    refresh.answered(ticket, Answer::Keys(set(Family::Ec), Some(seconds(3600))), start, 0);
    let (mut fetches, mut pending, mut refused) = (0, 0, 0);
    let mut flight = None;
    for number in 0..10_000_u64 {
        let now = start + Duration::from_millis(number);
        if let Some((ticket, until)) = flight
            && now >= until
        {
            refresh.answered(ticket, Answer::Keys(set(Family::Ec), Some(seconds(3600))), now, 0);
            flight = None;
        }
        match refresh.unknown_key(now, 0) {
            Miss::Fetch(ticket) => (fetches, flight) = (fetches + 1, Some((ticket, now + Duration::from_millis(200)))),
            Miss::Pending(_) => pending += 1,
            Miss::Refuse => refused += 1,
        }
        assert!(has(&refresh, now));
    }
    assert_eq!((fetches, pending, refused), (1, 199, 9800));
    assert!(matches!(refresh.unknown_key(start + seconds(29), 0), Miss::Refuse));
    let Miss::Fetch(ticket) = refresh.unknown_key(start + COOLDOWN, 0) else { panic!("the cooldown is over") };
    // A failure is waited out for misses as well, and the cooldown too.
    refresh.answered(ticket, Answer::Failed, start + COOLDOWN, 0);
    assert!(matches!(refresh.unknown_key(start + COOLDOWN, 0), Miss::Refuse));
    assert!(matches!(refresh.unknown_key(start + COOLDOWN + COOLDOWN, 0), Miss::Fetch(_)));
}

#[test]
fn a_fetch_that_says_nothing_has_failed() {
    let start = Instant::now();
    let mut refresh = Refresh::new(STALE, start);
    let lost = fetch(&mut refresh, start);
    assert!(matches!(refresh.next(start + seconds(29), 0), Next::Wait(_)));
    let late = start + PATIENCE;
    assert_eq!(wait(&mut refresh, late, 0), FIRST_WAIT / 2);
    assert!(!refresh.is_first());
    assert!(!refresh.answered(lost, Answer::Keys(set(Family::Ec), None), late, 0), "too late");
    assert!(!has(&refresh, late));
    let ticket = fetch(&mut refresh, late + FIRST_WAIT);
    assert_ne!(ticket, lost);
    assert!(refresh.answered(ticket, Answer::Keys(set(Family::Ec), None), late + FIRST_WAIT, 0));
}

#[test]
fn remembered_keys_are_used_until_they_are_too_old() {
    let start = Instant::now() + seconds(100_000);
    for (stale_for, expected) in [(0, true), (3600, true), (3601, false)] {
        let mut refresh = Refresh::remembering(set(Family::Ec), seconds(stale_for), STALE, start);
        assert_eq!(has(&refresh, start), expected, "{stale_for}");
        assert!(matches!(refresh.next(start, 0), Next::Fetch(_)), "they are asked for all the same");
    }
    let ages = Refresh::remembering(set(Family::Ec), Duration::MAX, STALE, start);
    assert!(!has(&ages, start));
}

#[test]
fn an_answer_says_how_long_it_is_good() {
    for (fields, age, expected) in [
        (&["max-age=300"][..], None, Some(300)),
        (&["public, max-age=300, must-revalidate"], None, Some(300)),
        (&["public", "MAX-AGE=300"], None, Some(300)),
        (&["max-age=\"300\""], None, Some(300)),
        (&["max-age = 300"], None, Some(300)),
        (&["max-age=300"], Some("100"), Some(200)),
        (&["max-age=300"], Some("400"), Some(0)),
        (&["max-age=300"], Some("x"), Some(300)),
        (&["max-age=300, max-age=200"], None, Some(200)),
        (&["max-age=300, no-store"], None, Some(0)),
        (&["no-cache"], None, Some(0)),
        (&["max-age=99999999999999999999999"], None, Some(u64::MAX)),
        (&["max-age=-1"], None, Some(0)),
        (&["max-age="], None, Some(0)),
        (&["max-age"], None, Some(0)),
        (&["s-maxage=300"], None, None),
        (&["private"], None, None),
        (&[""], None, None),
        (&[], Some("10"), None),
    ] {
        assert_eq!(max_age(fields.iter().copied(), age), expected.map(seconds), "{fields:?} {age:?}");
    }
}
