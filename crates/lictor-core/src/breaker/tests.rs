//! What opens it, and what closes it again.

use super::*;
use crate::policy::SlowCall;

const FAILED: Verdict = Verdict::Failure(Reason::ConnectRefused);

fn request(breaker: &Breaker, policy: &BreakerPolicy, verdict: Verdict, now: Instant) -> Option<Transition> {
    let admission = breaker.admit(policy, now).ok()?;
    breaker.finish(policy, admission, verdict, now)
}

fn opened(policy: &BreakerPolicy, now: Instant) -> Breaker {
    let breaker = Breaker::new(now);
    for _ in 0..policy.failure_threshold {
        request(&breaker, policy, FAILED, now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_four_do_not() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    for verdict in [FAILED, FAILED, FAILED, FAILED, Verdict::Success, FAILED, FAILED, FAILED, FAILED] {
        assert_eq!(request(&breaker, &policy, verdict, now), None);
    }
    let change = request(&breaker, &policy, FAILED, now).unwrap();
    assert_eq!((change.to, change.cause), (BreakerState::Open, "connect_refused"));
    assert_eq!(breaker.admit(&policy, now), Err(FIRST_CONNECT), "a connection is tried");
    assert_eq!(breaker.view(now).next_probe_ms, Some(60_000));
}

#[test]
fn half_of_twenty_open_it_although_never_five_in_a_row() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    let mut requests = 0;
    while breaker.state() == BreakerState::Closed {
        let at = now + Duration::from_millis(requests * 100);
        request(&breaker, &policy, if requests % 2 == 0 { Verdict::Success } else { FAILED }, at);
        requests += 1;
        assert!(requests <= 20);
    }
    assert_eq!(requests, 20);
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    for second in 0..300 {
        let at = now + Duration::from_secs(second);
        request(&breaker, &policy, if second % 2 == 0 { FAILED } else { Verdict::Success }, at);
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "10 requests in a window are too few to judge");
}

#[test]
fn one_probe_at_a_time_and_three_successes_close_it() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = opened(&policy, now);
    let later = now + policy.recovery_timeout;
    for success in 1..=3 {
        let probe = breaker.admit(&policy, later).unwrap();
        assert_eq!(probe, Admission::Probe(1));
        assert!(breaker.admit(&policy, later).is_err(), "a second probe");
        let change = breaker.finish(&policy, probe, Verdict::Success, later);
        assert_eq!(change.is_some(), success == 3);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.view(later).failures, 0);
}

#[test]
fn a_failed_probe_opens_it_again_and_an_abandoned_one_frees_its_place() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = opened(&policy, now);
    let later = now + policy.recovery_timeout;
    assert_eq!(request(&breaker, &policy, Verdict::Unknown, later), None);
    let change = request(&breaker, &policy, FAILED, later).unwrap();
    assert_eq!(change.to, BreakerState::Open);
    assert_eq!(breaker.view(later).next_probe_ms, Some(60_000));
}

#[test]
fn late_failures_do_not_disturb_a_half_open_breaker() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    let early: Vec<_> = (0..10).map(|_| breaker.admit(&policy, now).unwrap()).collect();
    for _ in 0..5 {
        request(&breaker, &policy, FAILED, now);
    }
    let later = now + policy.recovery_timeout;
    let probe = breaker.admit(&policy, later).unwrap();
    for admission in early {
        assert_eq!(breaker.finish(&policy, admission, FAILED, later), None);
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.finish(&policy, probe, Verdict::Success, later);
}

#[test]
fn a_probe_of_an_earlier_half_open_state_says_nothing_in_a_later_one() {
    let (policy, now) = (BreakerPolicy { half_open_max: 2, ..BreakerPolicy::default() }, Instant::now());
    let breaker = opened(&policy, now);
    let (later, latest) = (now + policy.recovery_timeout, now + 2 * policy.recovery_timeout);
    let slow = breaker.admit(&policy, later).unwrap();
    request(&breaker, &policy, FAILED, later);
    let probes = [(); 2].map(|()| breaker.admit(&policy, latest).unwrap());
    assert_eq!(breaker.finish(&policy, slow, FAILED, latest), None);
    assert!(breaker.admit(&policy, latest).is_err(), "a third probe at a time");
    assert_eq!((probes, breaker.state()), ([Admission::Probe(2), Admission::Probe(2)], BreakerState::HalfOpen));
}

#[test]
fn a_new_instance_ends_the_wait() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = opened(&policy, now);
    assert_eq!(breaker.topology_changed(now).unwrap().to, BreakerState::HalfOpen);
    assert_eq!(breaker.admit(&policy, now), Ok(Admission::Probe(1)));
    assert_eq!(breaker.topology_changed(now), None);
}

#[test]
fn it_is_open_for_five_seconds_then_ten_and_so_on_until_it_was_closed() {
    let (policy, mut now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    let failed = Verdict::Failure(Reason::Status);
    for _ in 0..5 {
        request(&breaker, &policy, failed, now);
    }
    for seconds in [5, 10, 20, 40, 60, 60] {
        assert_eq!(breaker.admit(&policy, now), Err(Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
        assert_eq!(request(&breaker, &policy, failed, now).unwrap().to, BreakerState::Open);
    }
    now += policy.recovery_timeout;
    for _ in 0..policy.success_threshold {
        request(&breaker, &policy, Verdict::Success, now);
    }
    for _ in 0..5 {
        request(&breaker, &policy, failed, now);
    }
    assert_eq!(breaker.admit(&policy, now), Err(Duration::from_secs(5)), "from the beginning");
    let short = BreakerPolicy { recovery_timeout: Duration::from_secs(2), ..policy };
    let breaker = Breaker::new(now);
    for _ in 0..5 {
        request(&breaker, &short, failed, now);
    }
    assert_eq!(breaker.admit(&short, now), Err(short.recovery_timeout), "never longer than that");
}

#[test]
fn while_nobody_can_be_connected_to_that_is_tried_and_ends_the_wait() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = opened(&policy, now);
    let opening = breaker.unconnected().unwrap();
    let waits: Vec<_> = (0..8).map_while(|_| breaker.next_connect(&policy, opening, now)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs));
    assert_eq!(breaker.view(now).connects_tried, 7);
    let change = breaker.connected(opening, now).unwrap();
    assert_eq!((change.to, change.cause), (BreakerState::HalfOpen, "connected"));
    assert_eq!((breaker.connected(opening, now), breaker.next_connect(&policy, opening, now)), (None, None));
    request(&breaker, &policy, FAILED, now);
    assert!(breaker.unconnected().is_some_and(|again| again != opening), "another opening");
    assert_eq!(breaker.connected(opening, now), None, "that is over");
    breaker.force(Some((Forced::Open, now + policy.recovery_timeout)), now);
    assert_eq!(breaker.unconnected(), None, "an order is an order");
}

#[test]
fn slow_calls_open_it_where_they_count_and_a_slow_probe_opens_it_again() {
    let now = Instant::now();
    let slow_call = Some(SlowCall::default());
    let policy = BreakerPolicy { slow_call, ..BreakerPolicy::default() };
    for (policy, opens) in [(policy.clone(), true), (BreakerPolicy::default(), false)] {
        let breaker = Breaker::new(now);
        for _ in 0..10 {
            assert_eq!(request(&breaker, &policy, Verdict::Success, now), None);
        }
        let changes: Vec<_> = (0..10).filter_map(|_| request(&breaker, &policy, Verdict::Slow, now)).collect();
        assert_eq!(changes.iter().map(|change| change.cause).collect::<Vec<_>>(), ["slow_call"][..usize::from(opens)]);
    }
    let breaker = opened(&policy, now);
    let change = request(&breaker, &policy, Verdict::Slow, now + policy.recovery_timeout).unwrap();
    assert_eq!((change.to, change.cause), (BreakerState::Open, "slow_call"));
}

#[test]
fn switched_off_it_never_opens() {
    let (policy, now) = (BreakerPolicy { enabled: false, ..BreakerPolicy::default() }, Instant::now());
    let breaker = Breaker::new(now);
    for _ in 0..100 {
        assert_eq!(request(&breaker, &policy, FAILED, now), None);
    }
    assert!(breaker.admit(&policy, now).is_ok());
}

#[test]
fn an_operators_order_holds_for_its_time_and_then_it_judges_by_itself() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let (breaker, minute) = (Breaker::new(now), Duration::from_secs(60));
    let change = breaker.force(Some((Forced::Open, now + minute)), now).unwrap();
    assert_eq!((change.to, change.cause), (BreakerState::Open, "operator"));
    assert_eq!(breaker.admit(&policy, now + minute / 2), Err(minute / 2));
    let disabled = BreakerPolicy { enabled: false, ..policy.clone() };
    assert_eq!(breaker.admit(&disabled, now), Err(minute), "an order is an order");
    assert_eq!(breaker.topology_changed(now), None);
    assert_eq!(breaker.view(now).forced, Some(Forced::Open));
    assert_eq!(breaker.expire(now), None);
    assert_eq!(breaker.admit(&policy, now + minute), Ok(Admission::Closed), "its time is over");
    let (order, change) = breaker.expire(now + minute).unwrap();
    assert_eq!((order, change.unwrap().to), (Forced::Open, BreakerState::Closed));

    breaker.force(Some((Forced::Closed, now + minute)), now);
    for _ in 0..50 {
        assert_eq!(request(&breaker, &policy, FAILED, now), None);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.force(None, now), None);
    let opened = (0..5).map(|_| request(&breaker, &policy, FAILED, now).is_some());
    assert_eq!(opened.collect::<Vec<_>>(), [false, false, false, false, true], "what was before is forgotten");
    assert_eq!(breaker.force(None, now).unwrap().to, BreakerState::Closed);
}

fn blame(breaker: &Breaker, policy: &BreakerPolicy, id: &str, now: Instant) -> Option<Transition> {
    let admission = breaker.admit(policy, now).ok()?;
    breaker.blame(policy, &admission, now, || Blame {
        request_id: Some(id.into()),
        endpoint: Some("users-1".into()),
        address: None,
        outcome: "503".into(),
        timestamp: std::time::UNIX_EPOCH,
    });
    breaker.finish(policy, admission, Verdict::Failure(Reason::Status), now)
}

fn ids(failures: &[Blame]) -> Vec<&str> {
    failures.iter().filter_map(|blame| blame.request_id.as_deref()).collect()
}

#[test]
fn what_opened_it_is_kept_and_probes_that_fail_do_not_push_it_out() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let (breaker, hour) = (Breaker::new(now), Duration::from_secs(3600));
    assert_eq!(breaker.view(now).last_opened, None);
    blame(&breaker, &policy, "long ago", now);
    request(&breaker, &policy, Verdict::Success, now);
    let now = now + hour;
    let late = breaker.admit(&policy, now).unwrap();
    let changes: Vec<_> = ["1", "2", "3", "4", "5"].iter().filter_map(|id| blame(&breaker, &policy, id, now)).collect();
    let led = changes[0].opening.as_ref().unwrap();
    assert_eq!((ids(&led.failures), led.cause, led.lasted_ms), (vec!["1", "2", "3", "4", "5"], "status", None));
    assert!(led.led().unwrap().starts_with("503 of users-1 (request 1), 503 of users-1 (request 2)"), "{led:?}");
    breaker.blame(&policy, &late, now, || panic!("it has opened before this one ended"));

    let (mut at, mut times) = (now, 0);
    for rest in [5, 10, 20] {
        at += Duration::from_secs(rest);
        times += 1;
        assert!(blame(&breaker, &policy, &format!("probe {times}"), at).is_some());
        let view = breaker.view(at).last_opened.unwrap();
        assert_eq!((ids(&view.failures).len(), view.probes_failed), (5, times));
        assert_eq!(ids(&[(*view.last_probe.unwrap()).clone()]), [format!("probe {times}")]);
    }
    at += Duration::from_secs(40);
    (0..policy.success_threshold).for_each(|_| drop(request(&breaker, &policy, Verdict::Success, at)));
    let view = breaker.view(at + hour).last_opened.unwrap();
    assert_eq!((view.lasted_ms, view.ago_ms), (Some(75_000), 3_675_000), "it stays to be seen");
    assert_eq!(ids(&view.failures).len(), 5);
    (6..=10).for_each(|id| drop(blame(&breaker, &policy, &id.to_string(), at + hour)));
    let view = breaker.view(at + hour).last_opened.unwrap();
    assert_eq!((ids(&view.failures), view.probes_failed), (vec!["6", "7", "8", "9", "10"], 0), "the next one");
}

#[test]
fn of_a_share_of_failures_the_last_of_its_window_are_kept() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let breaker = Breaker::new(now);
    blame(&breaker, &policy, "long ago", now);
    let mut at = now + Duration::from_secs(60);
    for number in 0.. {
        request(&breaker, &policy, Verdict::Success, at);
        if blame(&breaker, &policy, &number.to_string(), at).is_some() {
            break;
        }
        at += Duration::from_millis(10);
    }
    let led = breaker.view(at).last_opened.unwrap();
    assert_eq!(
        ids(&led.failures),
        ["2", "3", "4", "5", "6", "7", "8", "9"],
        "eight of the ten that are half of twenty"
    );
    let few = BreakerPolicy { failure_threshold: 2, ..policy };
    let breaker = Breaker::new(now);
    for (id, seconds) in [("a", 0), ("b", 100)] {
        blame(&breaker, &few, id, now + Duration::from_secs(seconds));
    }
    let led = breaker.view(now).last_opened.unwrap();
    assert_eq!(ids(&led.failures), ["a", "b"], "in a row, however rare");
}

#[test]
fn an_operators_order_does_not_hide_what_opened_it() {
    let (policy, now) = (BreakerPolicy::default(), Instant::now());
    let (breaker, minute) = (opened(&policy, now), Duration::from_secs(60));
    let before = breaker.view(now).last_opened.unwrap();
    assert!(before.failures.is_empty() && before.led().is_none(), "nobody was blamed");
    breaker.force(Some((Forced::Closed, now + minute)), now + minute / 2);
    breaker.force(Some((Forced::Open, now + minute)), now + minute / 2);
    let after = breaker.view(now + minute / 2).last_opened.unwrap();
    assert_eq!((after.cause, after.lasted_ms), ("connect_refused", Some(30_000)));
    // What was before an operator has closed it does not count any more, and is not told.
    let breaker = Breaker::new(now);
    blame(&breaker, &policy, "before", now);
    breaker.force(Some((Forced::Open, now + minute)), now);
    breaker.force(Some((Forced::Closed, now + minute)), now);
    breaker.force(None, now);
    (1..=5).for_each(|id| drop(blame(&breaker, &policy, &id.to_string(), now)));
    assert_eq!(ids(&breaker.view(now).last_opened.unwrap().failures), ["1", "2", "3", "4", "5"]);
}
