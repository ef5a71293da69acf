//! One clock for a request: whatever it waits for, it waits no longer than its time goes, and nothing is sent after that.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lictor_testkit::{
    Answer, Blackhole, RawServer, Sidecar, connect, eventually_is, free_ports, get, lictor, read_head, request,
};

use crate::caller;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What a test may be late on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

/// The fields that carry a deadline, each with 300 ms.
const FIELDS: [(&str, &str); 5] = [
    ("X-Request-Timeout-Ms", "300"),
    ("grpc-timeout", "300m"),
    ("X-Lictor-Timeout", "300ms"),
    ("x-envoy-upstream-rq-timeout-ms", "300"),
    ("l5d-timeout", "300ms"),
];

/// An instance that counts requests, and answers each as soon as it is let.
struct Gate {
    server: RawServer,
    requests: Arc<AtomicU64>,
    open: Arc<parking_lot::Mutex<bool>>,
}

impl Gate {
    fn shut() -> Self {
        let (requests, open) = (Arc::new(AtomicU64::new(0)), Arc::new(parking_lot::Mutex::new(false)));
        let (count, is_open) = (Arc::clone(&requests), Arc::clone(&open));
        let server = RawServer::start(move |mut stream| {
            loop {
                let head = read_head(&mut stream).to_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                if head.is_empty() || stream.read_exact(&mut vec![0; length.unwrap_or(0)]).is_err() {
                    return;
                }
                count.fetch_add(1, Relaxed);
                eventually_is("it is let", || *is_open.lock(), |is_open| *is_open);
                if stream.write_all(OK).is_err() {
                    return;
                }
            }
        });
        Self { server, requests, open }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    fn open(&self) {
        *self.open.lock() = true;
    }
}

/// Sends this so many times at once; each answer with the time that it took.
fn at_once(count: usize, ask: impl Fn() -> Answer + Sync) -> Vec<(Answer, Duration)> {
    let ask = || {
        let began = Instant::now();
        (ask(), began.elapsed())
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

fn assert_in_time(answers: &[(Answer, Duration)], reason: &str, after: Duration) {
    for (answer, took) in answers {
        assert_eq!((answer.status, answer.header("X-Lictor-Reason")), (504, reason), "{}", answer.text());
        assert!(*took + Duration::from_millis(1) >= after && *took < after + SLACK, "{took:?}");
    }
}

fn count(lictor: &Sidecar, name: &str, label: (&str, &str)) -> u64 {
    lictor.metric(name, &[label]) as u64
}

/// Takes the only place of `users` and runs the rest while it is taken; then every one that was sent is counted.
fn behind_a_full_queue(policy: &str, reason: &str, ask: impl Fn(&str) -> Answer + Sync) {
    let gate = Gate::shut();
    let limits = ", limits: {max_in_flight: 1, pending_timeout: 20s}";
    let lictor = caller(&[gate.server.port()], &format!("{limits}{policy}"));
    let users = lictor.address("users");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| request(&users, "POST", "/free", &[], b"order").unwrap());
        eventually_is("the only place is taken", || gate.requests(), |requests| *requests == 1);
        let answers = at_once(8, || ask(&users));
        gate.open();
        assert_in_time(&answers, reason, Duration::from_millis(300));
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(get(&users, "/free").unwrap().status, 200, "the place is free again");
    assert_eq!(gate.requests(), 2, "none of those that waited was sent");
    assert_eq!(count(&lictor, "lictor_deadline_exceeded_total", ("where", "queue")), 8);
}

#[test]
fn in_the_queue_every_field_of_the_callers_counts() {
    for field in FIELDS {
        behind_a_full_queue("", "deadline_exceeded", |users| request(users, "POST", "/", &[field], b"order").unwrap());
    }
    let twice = [("X-Request-Timeout-Ms", "9000"), ("X-Request-Timeout-Ms", "300"), ("l5d-timeout", "soon")];
    behind_a_full_queue("", "deadline_exceeded", |users| request(users, "POST", "/", &twice, b"order").unwrap());
}

#[test]
fn in_the_queue_what_is_configured_counts() {
    let post = |users: &str| request(users, "POST", "/", &[("X-Request-Timeout-Ms", "9000")], b"order").unwrap();
    let routes = ", routes: [{match: /free, timeout: 20s}, {match: /, timeout: 300ms}]";
    behind_a_full_queue(routes, "timeout", post);
    let ignored = [("X-Request-Timeout-Ms", "1")];
    behind_a_full_queue(&format!("{routes}, deadline: ignore"), "timeout", |users| {
        request(users, "POST", "/", &ignored, b"order").unwrap()
    });
}

#[test]
fn an_equal_requests_answer_is_waited_for_no_longer_than_the_callers_time() {
    for field in FIELDS {
        let gate = Gate::shut();
        let lictor = caller(&[gate.server.port()], ", routes: [{match: /, cache: {ttl: 5s, coalesce: true}}]");
        let users = lictor.address("users");
        std::thread::scope(|scope| {
            let first = scope.spawn(|| get(&users, "/").unwrap());
            eventually_is("the first is on its way", || gate.requests(), |requests| *requests == 1);
            let answers = at_once(8, || request(&users, "GET", "/", &[field], b"").unwrap());
            gate.open();
            assert_in_time(&answers, "deadline_exceeded", Duration::from_millis(300));
            assert_eq!(first.join().unwrap().status, 200);
        });
        assert_eq!(gate.requests(), 1, "none of those that waited was sent");
        assert_eq!(count(&lictor, "lictor_deadline_exceeded_total", ("where", "queue")), 8);
    }
}

/// A caller whose Consul does not answer: its endpoints stay unknown.
fn without_endpoints(more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nconsul: {{address: 'http://127.0.0.1:1'}}\noutbound: {{proxy: '127.0.0.1:0', allow: ['*']}}\n{more}"
    );
    Sidecar::serve(lictor(), &yaml)
}

#[test]
fn while_endpoints_are_unknown_the_least_limit_counts() {
    let lictor = without_endpoints(
        "lifecycle: {start_timeout: 1h}\nupstreams: {users: {listen: 0, routes: [{match: /short, timeout: 300ms}]}}\n",
    );
    let (users, forward) = (lictor.address("users"), lictor.address("forward"));
    let asked = |address: &str, path: &str, fields: &[(&str, &str)]| {
        let began = Instant::now();
        (request(address, "GET", path, fields, b"").unwrap(), began.elapsed())
    };
    for field in FIELDS {
        assert_in_time(&[asked(&users, "/", &[field])], "deadline_exceeded", Duration::from_millis(300));
    }
    assert_in_time(&[asked(&users, "/short", &[])], "timeout", Duration::from_millis(300));
    let stranger = [("Host", "strangers"), FIELDS[0]];
    assert_in_time(&[asked(&forward, "/", &stranger)], "deadline_exceeded", Duration::from_millis(300));
    // CONNECT and bytes wait by the same clock.
    let mut stream = connect(&forward);
    let began = Instant::now();
    stream.write_all(b"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\nX-Request-Timeout-Ms: 300\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 504"));
    assert!(began.elapsed() < Duration::from_millis(300) + SLACK);
}

/// Whoever comes before waits for the rest of it, whoever comes later for nothing; a name that nobody has asked for before has
/// a start of its own.
#[test]
fn endpoints_are_awaited_as_long_as_the_start_may_take_and_then_no_more() {
    let lictor = without_endpoints(
        "lifecycle: {start_timeout: 3s}\nupstreams: {users: {listen: 0}, db: {listen: 0, protocol: tcp}}\n",
    );
    let (users, forward) = (lictor.address("users"), lictor.address("forward"));
    let asked = |address: &str, host: &str| {
        let began = Instant::now();
        let answer = request(address, "GET", "/", &[("Host", host)], b"").unwrap();
        assert_eq!((answer.status, answer.header("X-Lictor-Reason")), (503, "no_endpoints"), "{}", answer.text());
        assert!(answer.text().contains("still unknown after 3s; `lictor doctor`"), "{}", answer.text());
        began.elapsed()
    };
    let first = asked(&users, "users");
    assert!(first < Duration::from_secs(3) + SLACK, "{first:?}");
    for (address, host) in [(&users, "users"), (&forward, "users"), (&users, "users")] {
        let later = asked(address, host);
        assert!(later < SLACK, "{later:?}");
    }
    let mut stream = connect(&lictor.address("db"));
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    let new = asked(&forward, "strangers");
    assert!(new >= Duration::from_secs(2), "{new:?}");
    assert!(asked(&forward, "strangers") < SLACK);
}

#[test]
fn a_tcp_connection_waits_no_longer_than_its_timeout() {
    let lictor = without_endpoints("upstreams: {db: {listen: 0, protocol: tcp, timeout: 300ms}}\n");
    let mut stream = connect(&lictor.address("db"));
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_millis(300) + SLACK, "{:?}", began.elapsed());
}

#[test]
fn a_dial_is_waited_for_once_whoever_dials() {
    let blackhole = Blackhole::new();
    for protocol in ["http1", "h2c", "grpc"] {
        let policy = ", connect_timeout: 1s, retry: off, breaker: off, ejection: off";
        let lictor = caller(&[blackhole.port()], &format!(", protocol: {protocol}{policy}"));
        let users = lictor.address("users");
        for (answer, took) in at_once(10, || get(&users, "/").unwrap()) {
            assert_eq!(answer.header("X-Lictor-Reason"), "connect_timeout", "{protocol}: {}", answer.text());
            assert!(took < Duration::from_millis(1900), "{protocol}: {took:?}");
        }
        let answers = at_once(4, || request(&users, "GET", "/", &[FIELDS[0]], b"").unwrap());
        assert_in_time(&answers, "deadline_exceeded", Duration::from_millis(300));
        let dialled = count(&lictor, "lictor_deadline_exceeded_total", ("where", "connect"));
        assert_eq!(dialled, 4, "{protocol}");
    }
}

/// The head that an instance gets.
fn head_for(policy: &str, fields: &[(&str, &str)]) -> String {
    let (heads, seen) = mpsc::channel();
    let heads = parking_lot::Mutex::new(heads);
    let server = RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        if !head.is_empty() {
            let _ = heads.lock().send(head);
            let _ = stream.write_all(OK);
        }
    });
    let lictor = caller(&[server.port()], policy);
    let answer = request(&lictor.address("users"), "GET", "/", fields, b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    seen.recv().unwrap().to_lowercase()
}

fn field(head: &str, name: &str) -> Vec<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn what_is_left_goes_on_in_every_field_that_the_caller_sent() {
    let number = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().unwrap();
    for (name, value) in FIELDS {
        let sent = [(name, value.replace("300", "9000"))];
        let fields: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let head = head_for("", &fields);
        let left = field(&head, name);
        assert_eq!(left.len(), 1, "{head}");
        let left = if left[0].ends_with('u') { number(&left[0]) / 1000 } else { number(&left[0]) };
        assert!((5000..9000).contains(&left), "{name}: {head}");
        let ours = field(&head, "x-request-timeout-ms");
        assert!(ours.len() == 1 && number(&ours[0]) <= 9000, "{head}");
    }
    // Twice, malformed, or none at all: never as it came.
    let head = head_for("", &[("x-request-timeout-ms", "8000"), ("x-request-timeout-ms", "9000")]);
    assert!(field(&head, "x-request-timeout-ms").len() == 1 && number(&field(&head, "x-request-timeout-ms")[0]) < 8000);
    let head = head_for("", &[("l5d-timeout", "soon"), ("x-envoy-upstream-rq-timeout-ms", "0")]);
    assert!(number(&field(&head, "l5d-timeout")[0]) <= 30_000, "{head}");
    assert!(number(&field(&head, "x-envoy-upstream-rq-timeout-ms")[0]) > 5000, "{head}");
    let head = head_for(", timeout: none", &[("x-envoy-upstream-rq-timeout-ms", "0"), ("l5d-timeout", "soon")]);
    assert!(!head.contains("timeout"), "{head}");
    let head = head_for(", timeout: none, deadline: ignore", &[("x-request-timeout-ms", "5")]);
    assert!(!head.contains("timeout"), "{head}");
}

#[test]
fn more_requests_than_connections_wait_for_one() {
    for (workers, protocol) in [(1, "http1"), (2, "http1")] {
        let gate = Gate::shut();
        let yaml = format!(
            "registration: off\nworkers: {workers}\nupstreams:\n  users: {{listen: 0, protocol: {protocol}, \
             limits: {{pending_timeout: 20s}}, static: ['127.0.0.1:{}']}}\n",
            gate.server.port()
        );
        let lictor = Sidecar::serve(lictor(), &yaml).up();
        let users = lictor.address("users");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| at_once(400, || get(&users, "/").unwrap()));
            eventually_is("all connections are in use", || gate.requests(), |requests| *requests == 256);
            let running = || count(&lictor, "lictor_upstream_in_flight", ("upstream", "users"));
            eventually_is("the others wait", running, |running| *running == 400);
            assert_eq!(gate.requests(), 256, "limits.max_connections is the process's");
            gate.open();
            for (answer, _) in asking.join().unwrap() {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        });
    }
}

#[test]
fn an_idle_connection_of_another_worker_makes_room() {
    let gate = Gate::shut();
    gate.open();
    let yaml = format!(
        "registration: off\nworkers: 2\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}'], \
         pool: {{idle: 1m}}, limits: {{max_connections: 1, pending_timeout: 20s}}}}\n",
        gate.server.port()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    let users = lictor.address("users");
    // A connection goes to the worker with the fewest: these two are not the same one's.
    let mut clients = [connect(&users), connect(&users)];
    for _ in 0..3 {
        for client in &mut clients {
            let began = Instant::now();
            client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
            assert!(read_head(client).starts_with("HTTP/1.1 200"));
            client.read_exact(&mut [0; 2]).unwrap();
            assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        }
    }
}

#[test]
fn an_endpoint_with_a_free_connection_is_preferred() {
    let (busy, free) = (Gate::shut(), Gate::shut());
    free.open();
    // One worker: a connection that idles on another looks taken until that one is asked for it.
    let yaml = format!(
        "workers: 1\nregistration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}', '127.0.0.1:{}'], \
         balance: round_robin, limits: {{max_connections: 1, pending_timeout: 20s}}}}\n",
        busy.server.port(),
        free.server.port()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    let users = lictor.address("users");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| eventually_is("one hangs", || get(&users, "/").unwrap(), |_| busy.requests() > 0));
        eventually_is("its connection is in use", || busy.requests(), |requests| *requests == 1);
        for _ in 0..8 {
            assert_eq!(get(&users, "/").unwrap().status, 200);
        }
        assert_eq!(busy.requests(), 1);
        busy.open();
        first.join().unwrap();
    });
}

#[test]
fn a_routes_limits_count_only_its_own_requests() {
    let gate = Gate::shut();
    let policy = ", routes: [{match: /slow, limits: {max_in_flight: 1, max_pending: 0}}]";
    let lictor = caller(&[gate.server.port()], policy);
    let users = lictor.address("users");
    std::thread::scope(|scope| {
        let others = scope.spawn(|| at_once(4, || get(&users, "/other").unwrap()));
        eventually_is("others are on their way", || gate.requests(), |requests| *requests == 4);
        let slow = scope.spawn(|| get(&users, "/slow").unwrap());
        eventually_is("and one of the route's", || gate.requests(), |requests| *requests == 5);
        let second = get(&users, "/slow").unwrap();
        assert_eq!((second.status, second.header("X-Lictor-Reason")), (503, "overloaded"));
        gate.open();
        assert_eq!(slow.join().unwrap().status, 200);
        assert!(others.join().unwrap().iter().all(|(answer, _)| answer.status == 200));
    });
}

#[test]
fn important_requests_go_first_and_take_the_place_of_others() {
    let gate = Gate::shut();
    let policy = ", limits: {max_in_flight: 1, max_pending: 1, pending_timeout: 20s}, \
                  routes: [{match: /high, priority: high}, {match: /low, priority: low}]";
    let lictor = caller(&[gate.server.port()], policy);
    let users = lictor.address("users");
    let pending = || count(&lictor, "lictor_upstream_pending", ("upstream", "users"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| get(&users, "/").unwrap());
        eventually_is("one is running", || gate.requests(), |requests| *requests == 1);
        let low = scope.spawn(|| get(&users, "/low").unwrap());
        eventually_is("one waits", pending, |pending| *pending == 1);
        let high = scope.spawn(|| get(&users, "/high").unwrap());
        let shed = low.join().unwrap();
        assert_eq!((shed.status, shed.header("X-Lictor-Reason")), (503, "overloaded"), "{}", shed.text());
        assert_eq!(get(&users, "/low").unwrap().status, 503, "nobody who waits is less important");
        gate.open();
        assert!([running, high].into_iter().all(|asked| asked.join().unwrap().status == 200));
    });
}

/// A service that, asked for anything, works for a while and asks its own upstream, which is asked with these of its
/// fields; what that upstream is told is given back.
fn told_to_the_callee(workers: u32, forwards: &'static [&'static str]) -> String {
    let (heads, seen) = mpsc::channel();
    let heads = parking_lot::Mutex::new(heads);
    let callee = RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        if !head.is_empty() {
            let _ = heads.lock().send(head);
            let _ = stream.write_all(OK);
        }
    });
    let [users] = free_ports();
    let app = RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        if head.is_empty() {
            return;
        }
        pause(Duration::from_millis(1500));
        let passed: Vec<(&str, String)> =
            forwards.iter().filter_map(|name| Some((*name, field(&head, name).first()?.clone()))).collect();
        let passed: Vec<(&str, &str)> = passed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(request(&format!("127.0.0.1:{users}"), "GET", "/", &passed, b"").unwrap().status, 200);
        let _ = stream.write_all(OK);
    });
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: {workers}\napp: {{address: '127.0.0.1:{}'}}\n\
         inbound: {{listen: '127.0.0.1:0'}}\nupstreams: {{users: {{listen: {users}, static: ['127.0.0.1:{}']}}}}\n",
        app.port(),
        callee.port()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    let answer = request(&lictor.address("inbound"), "GET", "/", &[("X-Request-Timeout-Ms", "3000")], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    seen.recv().unwrap().to_lowercase()
}

/// The work of an application.
fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a time that is measured")]
    std::thread::sleep(time);
}

#[test]
fn what_an_application_calls_for_a_request_has_no_more_time_than_the_request() {
    let told = |workers, forwards| {
        let head = told_to_the_callee(workers, forwards);
        field(&head, "x-request-timeout-ms")[0].parse::<u64>().unwrap()
    };
    for workers in [1, 2] {
        for forwards in
            [&["x-request-id"][..], &["traceparent"], &["x-request-id", "traceparent", "x-request-timeout-ms"]]
        {
            let left = told(workers, forwards);
            assert!((1..=1500).contains(&left), "{workers} {forwards:?}: {left}");
        }
        assert!(told(workers, &[]) > 20_000, "nobody knows for whom this is");
    }
}
