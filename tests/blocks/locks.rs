//! Locks on Consul's sessions.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_testkit::{Consul, RawServer, Sidecar, connect, eventually, eventually_is};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use super::{AUTHORIZATION, LICTOR, Stream, ask, asked, sidecar, yaml};

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

/// Asks for it, and reads no answer.
fn wait_for(lictor: &Sidecar, path: &str) -> TcpStream {
    let mut waiting = connect(&lictor.admin());
    let head = format!("PUT /v1/locks/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\r\n\r\n");
    waiting.write_all(head.as_bytes()).unwrap();
    waiting
}

/// A way to Consul, for a sidecar of its own, on which answers stay for as long as somebody has the gate.
struct Way {
    gate: Arc<Mutex<()>>,
    lictor: Sidecar,
    _server: RawServer,
}

impl Way {
    /// Answers stay on connections on which this was asked for; all of them, if it is empty.
    fn new(consul: &Consul, asked: &'static str) -> Self {
        let gate = Arc::<Mutex<()>>::default();
        let (address, kept) = (consul.address(), Arc::clone(&gate));
        let server = RawServer::start(move |client| {
            let (server, is_asked) = (connect(&address), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let there = || {
                    pass(&client, &server, |bytes| {
                        if bytes.windows(asked.len().max(1)).any(|window| window.starts_with(asked.as_bytes())) {
                            is_asked.store(true, Relaxed);
                        }
                    });
                };
                scope.spawn(there);
                pass(&server, &client, |_| {
                    if is_asked.load(Relaxed) {
                        drop(kept.lock());
                    }
                });
            });
        });
        let there = format!("http://127.0.0.1:{}", server.port());
        let lictor = Sidecar::serve(LICTOR, &yaml(consul, "locks: true", "").replace(&consul.url(), &there)).up();
        Self { gate, lictor, _server: server }
    }
}

/// What comes from one goes to the other, once it has been looked at.
fn pass(mut from: &TcpStream, mut to: &TcpStream, look: impl Fn(&[u8])) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        look(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
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
    let (lock, held) = take(&lictor, "report?delay=5s");
    drop(lock);
    eventually_is("its session is gone", || sessions(&consul), |count| *count == 0);
    let left = Instant::now();
    let (status, page) = asked(&lictor, "PUT", "/v1/locks/report", b"");
    assert!(status == 409 && page["message"].as_str().unwrap().contains("after the delay"), "{page}");
    let (_lock, next) = take(&lictor, "report?wait=60s");
    assert!(left.elapsed() > Duration::from_secs(4), "{:?}", left.elapsed());
    assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64());
    assert_eq!(lictor.log().matches("lock_left").count(), 1);

    // Who does not wait any more leaves no place taken.
    drop(wait_for(&lictor, "report?wait=10m"));
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
        let (mut lock, held) = take(&lictor, "report?ttl=24h&delay=5s&wait=30s");
        let began = Instant::now();
        deed(&consul, held["owner"].as_str().unwrap());
        let lost = lock.data("lost");
        assert!(lost["reason"].is_string() && lock.next().is_none(), "{what}: {lost}");
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
        assert_eq!(release(&lictor, "report", &held).0, 409, "{what}");
        eventually_is("its session is gone", || sessions(&consul), |count| *count == 0);
    }
    eventually_is("it says so", || lictor.lines("a lock is not ours any more").len(), |count| *count == 3);
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
    let (mut lock, held) = take(&lictor, "report?ttl=2m&delay=1m");
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
    let (mut lock, held) = take(&one, "report?ttl=10s&delay=5s");
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
fn two_do_not_have_it_at_once_though_its_node_is_deregistered_and_its_holder_hears_nothing() {
    let consul = Consul::dev();
    let (way, other) = (Way::new(&consul, ""), sidecar(&consul, "locks: true"));
    let (mut lock, held) = take(&way.lictor, "report?ttl=1m&delay=5s");
    let node = consul.json("/v1/agent/self")["Config"]["NodeName"].clone();
    let closed = way.gate.lock();
    consul.put("/v1/catalog/deregister", &json!({ "Node": node }));
    assert_eq!(sessions(&consul), 0, "at once");
    consul.register("any", "any", 1); // and with it the node again
    let (lost_at, next_at) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (_lock, next) = take(&other, "report?wait=1m&delay=5s");
            (Instant::now(), next)
        });
        let lost = lock.data("lost");
        let lost_at = Instant::now();
        assert!(lost["reason"].as_str().unwrap().contains("not renewed in time"), "{lost}");
        let (next_at, next) = waiting.join().unwrap();
        assert!(next["fencing_token"].as_u64() > held["fencing_token"].as_u64(), "{next} after {held}");
        (lost_at, next_at)
    });
    drop(closed);
    assert!(lost_at < next_at, "{:?} too late", lost_at - next_at);
}

#[test]
fn the_token_grows_also_where_the_key_was_deleted() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "locks: true");
    let mut token = 0;
    for _ in 0..3 {
        let (_lock, held) = take(&lictor, "report");
        let next = held["fencing_token"].as_u64().unwrap();
        assert!(next > token, "{next} after {token}");
        assert_eq!(consul.json("/v1/kv/locks/report")[0]["ModifyIndex"], next);
        token = next;
        assert_eq!(release(&lictor, "report", &held).0, 200);
        consul.answer("DELETE", "/v1/kv/locks/report", &Json::Null);
    }
}

#[test]
fn who_waits_no_more_leaves_no_session_nor_does_a_sidecar_that_stops() {
    let consul = Consul::dev();
    let mut lictor = sidecar(&consul, "locks: true");
    let lose = || {
        let (lock, held) = take(&lictor, "report?delay=1m");
        drop(lock);
        held
    };
    let held = lose();
    let is_delayed = || (session(&consul, "report"), sessions(&consul));
    eventually_is("it is given up", is_delayed, |now| *now == (Json::Null, 0));
    // For the delay who waits has a session of his own.
    let waiting = wait_for(&lictor, "report?wait=10m&ttl=24h");
    eventually_is("he waits", || sessions(&consul), |count| *count == 1);
    drop(waiting);
    eventually_is("his session is gone", || sessions(&consul), |count| *count == 0);
    let _waiting = wait_for(&lictor, "report?wait=10m&ttl=24h");
    eventually_is("another waits", || sessions(&consul), |count| *count == 1);
    assert!(lictor.terminate().success());
    assert_eq!((sessions(&consul), session(&consul, "report")), (0, Json::Null), "{held}");
}

#[test]
fn a_session_that_is_being_made_for_who_is_gone_is_ended() {
    let consul = Consul::dev();
    let way = Way::new(&consul, "/v1/session/create");
    let closed = way.gate.lock();
    let waiting = wait_for(&way.lictor, "report?ttl=24h&delay=1m");
    eventually_is("it is made", || sessions(&consul), |count| *count == 1);
    drop(waiting);
    // So that it is known that he is gone before the answer comes.
    let requests = || way.lictor.get("admin", "/ready").status;
    eventually_is("it answers others", requests, |status| *status == 200);
    drop(closed);
    eventually_is("it is gone", || sessions(&consul), |count| *count == 0);
    assert_eq!(session(&consul, "report"), Json::Null);
}

#[test]
fn a_reload_ends_at_once_what_it_takes_away_and_nothing_else() {
    let consul = Consul::dev();
    let all = "locks: true, services: true, config: read";
    let lictor = sidecar(&consul, all);
    let (mut lock, _) = take(&lictor, "report?delay=5s");
    let mut services = Stream::open(&lictor, "GET", "/v1/watch/services/users");
    let mut key = Stream::open(&lictor, "GET", "/v1/config/a?watch");
    services.data("instances");
    key.data("config");
    let waiting = wait_for(&lictor, "report?wait=10m");
    let began = Instant::now();
    let reload = |blocks: &str| {
        lictor.rewrite(&yaml(&consul, blocks, ""));
        assert_eq!(lictor.post("/reload").status, 200);
    };
    reload("locks: true, services: true, config: write, config_prefix: others/");
    let error = key.data("error");
    assert!(error["message"].as_str().unwrap().contains("configuration") && key.next().is_none(), "{error}");
    reload("services: true");
    let lost = lock.data("lost");
    assert!(lost["reason"].as_str().unwrap().contains("configuration") && lock.next().is_none(), "{lost}");
    let mut answer = [0; 12];
    (&waiting).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403", "who waits for it, too");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    consul.register("users", "users-1", 1);
    services.await_data("instances", |page| page["instances"][0]["id"] == "users-1");
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
        ("report?delay=61s", "`delay` is 5s to 1m"),
        ("report?delay=4999ms", "`delay` is 5s to 1m"),
        ("report?delay=0s", "`delay` is 5s to 1m"),
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
