//! More requests than an instance can serve, failures that retries could multiply, and no file descriptor left.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, RawServer, Sidecar, connect, eventually_is, free_ports, get, lictor, read_head};
use parking_lot::{Condvar, Mutex};

use crate::caller;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What one load would do to the other would be measured too.
static ALONE: Mutex<()> = Mutex::new(());
/// How many requests a narrow instance works on at a time, and how long on each.
const THREADS: usize = 2;
const WORK: Duration = Duration::from_millis(20);

/// An instance with a real capacity: so many requests are worked on at a time, the others wait their turn.
fn narrow() -> RawServer {
    let (free, freed) = (Mutex::new(THREADS), Condvar::new());
    RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let mut places = free.lock();
            freed.wait_while(&mut places, |places| *places == 0);
            *places -= 1;
            drop(places);
            pause(WORK);
            *free.lock() += 1;
            freed.notify_one();
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    })
}

fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the work of an instance, the pace of a load, or a time that is measured"
    )]
    std::thread::sleep(time);
}

/// Answers a second when somebody always waits.
fn capacity(instance: &RawServer) -> f64 {
    let (answers, began) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..2 * THREADS {
            scope.spawn(|| {
                let mut stream = connect(&format!("127.0.0.1:{}", instance.port()));
                while began.elapsed() < Duration::from_secs(2) {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
                    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
                    std::io::Read::read_exact(&mut stream, &mut [0; 2]).unwrap();
                    answers.fetch_add(1, Relaxed);
                }
            });
        }
    });
    answers.load(Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// Ten times what the instance can do, for this long.
fn sheds(time: Duration) {
    let _alone = ALONE.lock();
    let instance = narrow();
    let capacity = capacity(&instance);
    let limits = format!(", limits: {{max_in_flight: {}, max_pending: 8, pending_timeout: 200ms}}", 4 * THREADS);
    let lictor = caller(&[instance.port()], &limits);
    let (users, admin) = (lictor.address("users"), lictor.admin());
    let load = Load::start(&users, &[Method::GET], (10.0 * capacity) as u32);
    load.await_more(100);
    let (before, began) = (load.tally(), Instant::now());
    let (mut slowest, mut refusals) = (Duration::ZERO, 0);
    while began.elapsed() < time {
        for page in ["/live", "/ready", "/health", "/metrics", "/upstreams"] {
            let asked = Instant::now();
            assert_eq!(get(&admin, page).unwrap().status, 200, "{page}");
            slowest = slowest.max(asked.elapsed());
        }
        let answer = get(&users, "/").unwrap();
        if answer.status == 503 {
            assert_eq!((answer.header("x-lictor-reason"), answer.header("retry-after")), ("overloaded", "1"));
            refusals += 1;
        }
        pause(Duration::from_millis(100));
    }
    let (during, took) = (load.tally(), began.elapsed().as_secs_f64());
    let over = Instant::now();
    load.finish();
    let calm = Load::start(&users, &[Method::GET], (capacity / 2.0) as u32);
    calm.await_more(u64::from((capacity / 2.0) as u32));
    let recovered = over.elapsed();
    calm.finish().assert_flawless();
    let goodput = (during.statuses[&200] - before.statuses.get(&200).unwrap_or(&0)) as f64 / took;
    let offered = (during.total() - before.total()) as f64 / took;
    eprintln!(
        "capacity {capacity:.0} a second, offered {offered:.0}, answered well {goodput:.0} ({:.0} %), the others {:?}; the slowest admin page {slowest:.1?}",
        100.0 * goodput / capacity,
        during.statuses
    );
    assert!(offered > 8.0 * capacity && refusals > 0, "{offered} offered, {refusals} refusals seen");
    assert!(goodput >= 0.9 * capacity, "{goodput} of {capacity}");
    assert!(during.broken.is_empty() && during.statuses.keys().all(|status| matches!(status, 200 | 503)), "{during:?}");
    assert!(slowest < Duration::from_secs(3), "an admin page took {slowest:?}");
    assert!(recovered < Duration::from_secs(2), "half a load was whole only after {recovered:?}");
}

#[test]
fn ten_times_the_capacity_is_shed_with_a_reason_and_the_capacity_is_used() {
    sheds(Duration::from_secs(4));
}

#[test]
#[ignore = "a minute: `make chaos`"]
fn ten_times_the_capacity_for_a_minute() {
    sheds(Duration::from_secs(60));
}

#[test]
fn an_upstream_that_always_answers_503_gets_a_fifth_more_at_a_thousand_a_second() {
    let _alone = ALONE.lock();
    let backend = Backend::start("broken");
    backend.answers(503);
    let lictor = caller(&[backend.port()], ", breaker: off, retry: {delays: [10ms], budget: {min_per_second: 0}}");
    let load = Load::start(&lictor.address("users"), &[Method::GET], 1000);
    load.await_more(6000);
    let tally = load.finish();
    // Where the machine cannot keep up, some are refused without an attempt: the budget is a share of all that came.
    let retries = lictor.metric("lictor_retries_total", &[]);
    let first = backend.hits() as f64 - retries;
    let share = 1.0 + retries / tally.total() as f64;
    eprintln!("{} requests, {first} first attempts, {retries} more", tally.total());
    assert_eq!(tally.statuses[&503], tally.total());
    assert!(first > 1000.0, "{first}");
    assert!((1.05..=1.21).contains(&share), "{share}");
}

/// What the applications of a chain pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apps {
    /// There are none: sidecars call sidecars.
    None,
    /// The status, and nothing else.
    Deaf,
    /// `X-Request-ID` of the request too.
    Named,
}

/// An application that asks the next one (by its own sidecar) and answers with the same status.
fn app(next: String, apps: Apps) -> RawServer {
    RawServer::start(move |mut stream| {
        let mut onward = connect(&next);
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let is_id = |line: &&str| line.to_ascii_lowercase().starts_with("x-request-id:");
            let id = head.lines().find(is_id).filter(|_| apps == Apps::Named).map(|line| format!("{line}\r\n"));
            let asked = format!("GET / HTTP/1.1\r\nHost: next\r\n{}\r\n", id.unwrap_or_default());
            onward.write_all(asked.as_bytes()).unwrap();
            let answer = read_head(&mut onward);
            let is_length = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
            let length = answer.lines().find(is_length).and_then(|line| line[15..].trim().parse().ok()).unwrap_or(0);
            std::io::copy(&mut std::io::Read::take(&mut onward, length), &mut std::io::sink()).unwrap();
            let status = answer.split(' ').nth(1).unwrap_or("502");
            if stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// One service of a chain: its sidecar, its application if there is one, and where others call it.
struct Tier {
    lictor: Sidecar,
    _app: Option<RawServer>,
    entry: String,
}

/// Without the budget's floor for quiet services, and without what ends retries early: what is left are the 20 %.
const RETRY: &str = "breaker: off, ejection: off, retry: {delays: [10ms], budget: {min_per_second: 0}}";

impl Tier {
    fn start(next: &str, apps: Apps) -> Self {
        let [egress] = free_ports();
        let upstream = format!("upstreams:\n  users: {{listen: {egress}, static: ['{next}'], {RETRY}}}\n");
        let head = "service: users\nregistration: off\n";
        if apps == Apps::None {
            let lictor = Sidecar::serve(lictor(), &format!("{head}{upstream}")).up();
            let entry = lictor.address("users");
            return Self { lictor, _app: None, entry };
        }
        let app = app(format!("127.0.0.1:{egress}"), apps);
        let inbound = format!("port: {}\ninbound: {{listen: '127.0.0.1:0'}}\n", app.port());
        let lictor = Sidecar::serve(lictor(), &format!("{head}{inbound}{upstream}")).up();
        let entry = lictor.address("inbound");
        Self { lictor, _app: Some(app), entry }
    }
}

/// Attempts at an instance that always answers 503, for each request to the first of three services in a chain.
fn amplification(apps: Apps) -> (f64, [u64; 3]) {
    let backend = Backend::start("broken");
    backend.answers(503);
    let third = Tier::start(&format!("127.0.0.1:{}", backend.port()), apps);
    let second = Tier::start(&third.entry, apps);
    let first = Tier::start(&second.entry, Apps::None);
    let load = Load::start(&first.entry, &[Method::GET], 200);
    load.await_more(2000);
    let tally = load.finish();
    assert_eq!(tally.statuses.get(&503), Some(&tally.total()), "{:?}", tally.samples);
    let retries = [&first, &second, &third].map(|tier| tier.lictor.metric("lictor_retries_total", &[]) as u64);
    let share = backend.hits() as f64 / tally.total() as f64;
    eprintln!("{apps:?}: {} requests, {share:.3} attempts each; retries by tier: {retries:?}", tally.total());
    (share, retries)
}

#[test]
fn three_tiers_that_see_nothing_of_each_other_multiply_a_fifth_and_no_more() {
    let _alone = ALONE.lock();
    let (share, retries) = amplification(Apps::Deaf);
    assert!(share <= 1.21_f64.powi(3), "{share}"); // of one tier, as above
    // Some are refused without an attempt where the machine cannot keep up.
    assert!(retries.iter().all(|retries| *retries >= 100), "each tier tries again: {retries:?}");
}

#[test]
fn three_tiers_that_see_each_other_add_a_fifth_in_all() {
    let _alone = ALONE.lock();
    for apps in [Apps::None, Apps::Named] {
        let (share, retries) = amplification(apps);
        assert!(share <= 1.25, "{apps:?}: {share}");
        assert!(retries.iter().sum::<u64>() >= 100, "{apps:?}: {retries:?}");
    }
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[test]
fn without_a_free_file_descriptor_nothing_spins_and_everything_comes_back() {
    let backend = Backend::start("good");
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}'], pool: {{idle: 30s}}}}\n",
        backend.port()
    );
    let lictor = Sidecar::start("prlimit", &yaml, &[], &["--nofile=64:64", lictor(), "serve"], &[]).up();
    let users = lictor.address("users");
    let mut kept = connect(&users);
    let mut ask = || {
        kept.write_all(b"GET /health HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        let head = read_head(&mut kept);
        std::io::Read::read_exact(&mut kept, &mut [0; 2]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    };
    ask();
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(&users)).collect();
    eventually_is("it says so", || lictor.lines("cannot accept connections").len(), |count| *count > 0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", lictor.pid())).unwrap().count();
    assert!(open >= 60, "{open} of 64 are open");
    let before = cpu(lictor.pid());
    pause(Duration::from_secs(3));
    let spent = cpu(lictor.pid()).saturating_sub(before);
    ask(); // over connections that both exist
    let said = lictor.lines("cannot accept connections").len();
    drop(crowd);
    eventually_is("others are served again", || get(&users, "/").map_or(0, |answer| answer.status), |it| *it == 200);
    let failed = lictor.metric("lictor_accept_errors_total", &[]);
    eprintln!("3 s without a file descriptor: {spent:?} of CPU, {failed} failed accepts, {said} lines");
    assert!(spent < Duration::from_millis(300), "{spent:?} of CPU in 3 s");
    assert!(failed >= 3.0 && said <= 8, "{failed} failed accepts, {said} lines");
    assert_eq!(lictor.page("/breakers")["users"]["state"], "closed");
    assert!(lictor.metric("lictor_endpoint_ejections_total", &[]) < 0.5);
}
