//! Locks on Consul's sessions.

use std::io::Write;
use std::time::{Duration, Instant};

use lictor_testkit::{Consul, Sidecar, eventually, eventually_is};
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use super::{AUTHORIZATION, Stream, ask, asked, sidecar};

fn session(consul: &Consul, name: &str) -> Json {
    consul.json(&format!("/v1/kv/locks/{name}"))[0]["Session"].clone()
}

fn sessions(consul: &Consul) -> usize {
    consul.json("/v1/session/list").as_array().map_or(0, Vec::len)
}

/// Takes it, and what it is told.
fn take(lictor: &Sidecar, path: &str) -> (Stream, Json) {
    let mut lock = Stream::open(lictor, "PUT", &format!("/v1/locks/{path}"));
    let held = lock.data("held");
    (lock, held)
}

fn release(lictor: &Sidecar, name: &str, held: &Json) -> (u16, Json) {
    let owner = held["owner"].as_str().unwrap();
    asked(lictor, "DELETE", &format!("/v1/locks/{name}?owner={owner}"), b"")
}

#[test]
fn one_has_it_and_the_next_has_a_larger_token() {
    let consul = Consul::dev();
    let (one, two) = (sidecar(&consul, "locks: true"), sidecar(&consul, "locks: true"));
    let mut token = 0;
    for lictor in [&one, &two, &one] {
        let (mut lock, held) = take(lictor, "report?ttl=10s");
        assert_eq!((&held["name"], &held["ttl_ms"]), (&json!("report"), &json!(10_000)), "{held}");
        let next = held["fencing_token"].as_u64().unwrap();
        assert!(next > token, "{next} after {token}");
        token = next;
        assert_eq!(session(&consul, "report"), held["owner"]);
        for other in [&one, &two] {
            let (status, page) = asked(other, "PUT", "/v1/locks/report", b"");
            assert_eq!((status, &page["holder"]), (409, &json!("orders")), "{page}");
            let (status, page) = asked(other, "DELETE", "/v1/locks/report?owner=somebody", b"");
            assert!(status == 409 && page["message"].as_str().unwrap().starts_with("lock not owned"), "{page}");
        }
        assert_eq!(asked(lictor, "DELETE", "/v1/locks/another?owner=x", b"").0, 409);
        assert_eq!(asked(lictor, "DELETE", "/v1/locks/report", b"").0, 400);
        assert_eq!(release(lictor, "report", &held).0, 200);
        assert_eq!((lock.data("released")["name"].as_str(), lock.next()), (Some("report"), None));
        assert_eq!(release(lictor, "report", &held).0, 409, "once");
        assert_eq!((session(&consul, "report"), sessions(&consul)), (Json::Null, 0), "nothing is left");
    }
    // A folder's key is a lock of its own.
    let (_lock, held) = take(&one, "orders/42");
    assert_eq!(session(&consul, "orders/42"), held["owner"]);
}

#[test]
fn whoever_waits_has_it_when_it_is_given_back() {
    let consul = Consul::dev();
    let (one, two) = (sidecar(&consul, "locks: true"), sidecar(&consul, "locks: true"));
    let (_lock, held) = take(&one, "report");
    let began = Instant::now();
    assert_eq!(asked(&two, "PUT", "/v1/locks/report?wait=1s", b"").0, 409);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&two, "report?wait=60s").1);
        let is_waiting = || two.page("/consul")["connections"].as_u64();
        eventually_is("it waits", is_waiting, |count| count.is_some_and(|count| count >= 2));
        assert_eq!(release(&one, "report", &held).0, 200);
        let next = waiting.join().unwrap();
        assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64(), "{next}");
    });
}

#[test]
fn who_leaves_gives_it_up_and_the_next_has_it_after_the_delay() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "locks: true");
    let (lock, held) = take(&lictor, "report?delay=3s");
    drop(lock);
    eventually_is("its session is gone", || sessions(&consul), |count| *count == 0);
    let left = Instant::now();
    let (status, page) = asked(&lictor, "PUT", "/v1/locks/report", b"");
    assert!(status == 409 && page["message"].as_str().unwrap().contains("after the delay"), "{page}");
    let (_lock, next) = take(&lictor, "report?wait=60s");
    assert!(left.elapsed() > Duration::from_secs(2), "{:?}", left.elapsed());
    assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64());
    assert_eq!(lictor.log().matches("lock_left").count(), 1);

    // Who does not wait any more leaves no place taken.
    let mut waiting = lictor_testkit::connect(&lictor.admin());
    let head =
        format!("PUT /v1/locks/report?wait=10m HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\r\n\r\n");
    waiting.write_all(head.as_bytes()).unwrap();
    drop(waiting);
    let free = |number: u8| Stream::try_open(&lictor, "PUT", &format!("/v1/locks/l{number}"));
    let _all: Vec<Stream> = (0..15).map(|number| eventually("its place is free", || free(number))).collect();
}

/// What somebody does in Consul to a lock of this owner.
type Deed = fn(&Consul, &str);

#[test]
fn a_loss_is_told_at_once_where_consul_tells() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "locks: true");
    let deeds: [(&str, Deed); 3] = [
        ("its session is destroyed", |consul, owner| consul.put(&format!("/v1/session/destroy/{owner}"), &Json::Null)),
        ("its key is deleted", |consul, _| drop(consul.answer("DELETE", "/v1/kv/locks/report", &Json::Null))),
        ("it is released by somebody", |consul, owner| {
            consul.put(&format!("/v1/kv/locks/report?release={owner}"), &Json::Null);
        }),
    ];
    for (what, deed) in deeds {
        let (mut lock, held) = take(&lictor, "report?ttl=24h&delay=0s&wait=30s");
        let began = Instant::now();
        deed(&consul, held["owner"].as_str().unwrap());
        let lost = lock.data("lost");
        assert!(lost["reason"].is_string() && lock.next().is_none(), "{what}: {lost}");
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
        assert_eq!(release(&lictor, "report", &held).0, 409, "{what}");
        eventually_is("its session is gone", || sessions(&consul), |count| *count == 0);
    }
    assert_eq!(lictor.lines("a lock is not ours any more").len(), 3);
}

#[test]
fn it_is_renewed_for_as_long_as_it_is_held_and_lost_when_consul_is_away_for_its_time() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "locks: true");
    let (mut lock, held) = take(&lictor, "report?ttl=10s");
    let began = Instant::now();
    let still = || {
        assert_eq!(session(&consul, "report"), held["owner"], "{}", lictor.log());
        began.elapsed()
    };
    // Without a renewal Consul ends a session of 10 s after 20 s at the latest.
    let mut elapsed = Duration::ZERO;
    while elapsed < Duration::from_secs(23) {
        elapsed = eventually_is("time passes", still, |now| *now > elapsed + Duration::from_secs(1));
    }
    consul.pause(true);
    let began = Instant::now();
    let lost = lock.data("lost");
    let took = began.elapsed();
    consul.pause(false);
    assert!(lost["reason"].as_str().unwrap().contains("not renewed in time"), "{lost}");
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn it_stays_where_the_agent_restarts() {
    let mut consul = Consul::server();
    let lictor = sidecar(&consul, "locks: true");
    let (mut lock, held) = take(&lictor, "report?ttl=2m");
    consul.restart();
    assert_eq!(session(&consul, "report"), held["owner"]);
    assert_eq!(release(&lictor, "report", &held).0, 200);
    lock.data("released");
    let (_lock, next) = take(&lictor, "report?wait=30s");
    assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64());
}

#[test]
fn a_sidecar_that_was_stopped_beyond_its_time_says_so_first_and_nobody_had_it_with_it() {
    let consul = Consul::dev();
    let (one, two) = (sidecar(&consul, "locks: true"), sidecar(&consul, "locks: true"));
    let (mut lock, held) = take(&one, "report?ttl=10s&delay=0s");
    let began = Instant::now();
    one.signal(Signal::STOP);
    let (_next, next) = take(&two, "report?ttl=10s&wait=90s");
    assert!(began.elapsed() > Duration::from_secs(6), "not before its time: {:?}", began.elapsed());
    assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64());
    one.signal(Signal::CONT);
    let lost = lock.data("lost");
    assert!(lost["reason"].is_string(), "{lost}");
    assert_eq!(session(&consul, "report"), next["owner"], "and it took nothing from the next");
}

#[test]
fn so_many_are_held_and_a_sidecar_that_stops_loses_them_all() {
    let consul = Consul::dev();
    let mut lictor = sidecar(&consul, "locks: true");
    let mut locks: Vec<(Stream, Json)> = (0..16).map(|number| take(&lictor, &format!("l{number}"))).collect();
    let (status, page) = asked(&lictor, "PUT", "/v1/locks/one-more", b"");
    assert!(status == 503 && page["message"].as_str().unwrap().contains("as many locks"), "{page}");
    let (lock, held) = locks.pop().unwrap();
    drop(lock);
    drop(eventually("a place is free", || Stream::try_open(&lictor, "PUT", "/v1/locks/one-more")));
    assert_eq!(release(&lictor, "l15", &held).0, 409, "its connection is gone, and so is the lock");
    assert!(lictor.terminate().success());
    for (lock, _) in &mut locks {
        assert!(lock.data("lost")["reason"].as_str().unwrap().contains("stopping"));
    }
    eventually_is("no session is left", || sessions(&consul), |count| *count == 0);
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "locks: true, lock_prefix: shop/locks/");
    for (path, message) in [
        ("report?ttl=9s", "`ttl` is 10s to 1day, not 9s"),
        ("report?ttl=25h", "`ttl` is 10s to 1day"),
        ("report?ttl=soon", "takes a duration"),
        ("report?wait=11m", "`wait` is 0s to 10m"),
        ("report?delay=61s", "`delay` is 0s to 1m"),
        ("../report", "is no key of KV"),
        ("a%2f..%2fb", "is no key of KV"),
    ] {
        let (status, page) = asked(&lictor, "PUT", &format!("/v1/locks/{path}"), b"");
        assert!(status == 400 && page["message"].as_str().unwrap().contains(message), "{path}: {status} {page}");
    }
    assert_eq!(sessions(&consul), 0, "nothing was begun");
    let (_lock, held) = take(&lictor, "report");
    assert_eq!(consul.json("/v1/kv/shop/locks/report")[0]["Session"], held["owner"]);
    assert_eq!(ask(&lictor, "GET", "/v1/locks/report", b"").header("allow"), "PUT, DELETE");
}
