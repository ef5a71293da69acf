//! Who gets how much: weights, newcomers, those that refuse, and routes with a balancer of their own.

use std::thread;

use lictor_testkit::{Backend, Consul, RawServer, Sidecar, get, read_head, request};
use serde_json::json;

use crate::{LICTOR, caller_of};

const ALGORITHMS: [&str; 5] = ["p2c_ewma", "round_robin", "random", "least_request", "least_connections"];

fn register(consul: &Consul, backend: &Backend, passing: u32) {
    let body = json!({
        "Name": "users", "ID": backend.name(), "Address": "127.0.0.1", "Port": backend.port(),
        "Weights": { "Passing": passing, "Warning": 1 },
    });
    consul.put("/v1/agent/service/register", &body);
}

/// The service under each balancer's name.
fn upstreams(more: &str) -> String {
    ALGORITHMS.map(|name| format!("  {name}: {{listen: 0, service: users, balance: {name}{more}}}\n")).concat()
}

/// So many requests at a time, and what each of the backends got of them.
fn shared(address: &str, callers: usize, requests: usize, backends: &[&Backend]) -> Vec<u64> {
    let before: Vec<u64> = backends.iter().map(|backend| backend.hits()).collect();
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| (0..requests / callers).for_each(|_| assert_eq!(get(address, "/").unwrap().status, 200)));
        }
    });
    backends.iter().zip(before).map(|(backend, before)| backend.hits() - before).collect()
}

#[test]
fn shares_are_the_weights_with_every_balancer() {
    let consul = Consul::dev();
    let (heavy, light) = (Backend::start("heavy"), Backend::start("light"));
    register(&consul, &heavy, 9);
    register(&consul, &light, 1);
    for workers in [1, 2] {
        let upstreams = upstreams("");
        let yaml = format!(
            "registration: off\nservice: orders\nworkers: {workers}\nconsul: {{address: '{}'}}\nupstreams:\n{upstreams}",
            consul.url()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        for algorithm in ALGORITHMS {
            lictor.await_endpoints(algorithm, 2);
            for callers in [1, 8] {
                let got = shared(&lictor.address(algorithm), callers, 800, &[&heavy, &light]);
                // 80 by the weights, 400 without; where 8 ask at once, loads differ by chance and count too.
                let usual = if callers == 1 { 60..=100 } else { 40..=160 };
                assert!(usual.contains(&got[1]), "{algorithm}, {callers} callers, {workers} workers: {got:?}");
            }
        }
    }
}

#[test]
fn a_newcomer_begins_with_a_tenth_of_its_share() {
    let consul = Consul::dev();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    register(&consul, &old, 1);
    let upstreams = upstreams(", slow_start: 10m");
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nconsul: {{address: '{}'}}\nupstreams:\n{upstreams}",
        consul.url()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for algorithm in ALGORITHMS {
        lictor.await_endpoints(algorithm, 1);
        shared(&lictor.address(algorithm), 1, 20, &[&old]);
    }
    register(&consul, &new, 1);
    for algorithm in ALGORITHMS {
        lictor.await_endpoints(algorithm, 2);
        let got = shared(&lictor.address(algorithm), 1, 330, &[&old, &new]);
        // A tenth to one: 30 of 330, while it is younger than a minute.
        assert!((15..=45).contains(&got[1]), "{algorithm}: {got:?}");
        let page = lictor.page(&format!("/explain?method=GET&upstream={algorithm}&path=/"));
        let newcomer = page["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["id"] == "new").unwrap();
        let (warmth, share) = (newcomer["warmth"].as_f64().unwrap(), newcomer["share"].as_f64().unwrap());
        assert!((0.1..0.5).contains(&warmth) && (0.05..0.3).contains(&share), "{algorithm}: {newcomer}");
    }
}

#[test]
fn a_sequential_caller_spreads_over_equals() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let [a, b] = &backends;
    let lictor = caller_of(&[a, b], "");
    let got = shared(&lictor.address("users"), 1, 300, &[a, b]);
    assert!(got.iter().all(|hits| (100..=200).contains(hits)), "{got:?}");
}

#[test]
fn who_refuses_fast_gets_no_more_for_it() {
    for algorithm in ALGORITHMS {
        let (refusing, well) = (Backend::start("refusing"), Backend::start("well"));
        refusing.answers(429);
        let lictor = caller_of(&[&refusing, &well], &format!(", balance: {algorithm}"));
        for _ in 0..200 {
            lictor.get("users", "/");
        }
        let most = if matches!(algorithm, "round_robin" | "random") { 110 } else { 60 };
        assert!(refusing.hits() <= most, "{algorithm}: {} of 200", refusing.hits());
    }
}

/// What asks for a rest, and what does not.
const RESTS: [(&str, bool); 8] = [
    ("429 Too Many Requests\r\nRetry-After: 50\r\nContent-Length: 0\r\n\r\n", true),
    ("503 Service Unavailable\r\nRetry-After: 50\r\nContent-Length: 0\r\n\r\n", true),
    ("404 Not Found\r\nRetry-After: 50\r\nContent-Length: 0\r\n\r\n", false),
    ("200 OK\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: 50000\r\nContent-Length: 0\r\n\r\n", true),
    ("200 OK\r\ngrpc-status: 14\r\ngrpc-retry-pushback-ms: 50000\r\nContent-Length: 0\r\n\r\n", true),
    ("200 OK\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: -1\r\nContent-Length: 0\r\n\r\n", false),
    ("200 OK\r\ngrpc-status: 5\r\ngrpc-retry-pushback-ms: 50000\r\nContent-Length: 0\r\n\r\n", false),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: 50000\r\n\r\n", true),
];

#[test]
fn a_rest_that_is_asked_for_is_given_while_another_has_room() {
    for (said, is_rest) in RESTS {
        let resting = RawServer::start(move |mut stream| {
            use std::io::Write;
            while !read_head(&mut stream).is_empty() {
                let _ = write!(stream, "HTTP/1.1 {said}");
            }
        });
        let well = Backend::start("well");
        for algorithm in ALGORITHMS {
            let yaml = format!(
                "registration: off\nupstreams:\n  users: {{listen: 0, retry: off, ejection: off, breaker: off, balance: {algorithm}, static: ['127.0.0.1:{}', '127.0.0.1:{}']}}\n  alone: {{listen: 0, retry: off, static: ['127.0.0.1:{}']}}\n",
                resting.port(),
                well.port(),
                resting.port()
            );
            let lictor = Sidecar::serve(LICTOR, &yaml).up();
            let ask = |name: &str| {
                let fields =
                    if said.contains("grpc") { [("Content-Type", "application/grpc")].as_slice() } else { &[] };
                request(&lictor.address(name), "GET", "/", fields, b"").unwrap().header("x-backend") == "well"
            };
            let others = (0..60).filter(|_| !ask("users")).count();
            let page = lictor.page("/explain?method=GET&upstream=users&path=/");
            let why: Vec<_> =
                page["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["why_not"]).collect();
            assert_eq!(why.contains(&&json!("resting")), is_rest, "{said} {algorithm}: {why:?}");
            assert!(!is_rest || others == 1, "{said} {algorithm}: {others} of 60");
            assert!(!ask("alone") && !ask("alone"), "nobody else has room: it is asked");
        }
    }
}

#[test]
fn a_routes_own_balancer_chooses_for_it() {
    let backends: Vec<Backend> = ["a", "b", "c"].into_iter().map(Backend::start).collect();
    let routes = ", balance: round_robin, routes: [{match: '/carts/*', balance: {ring_hash: {header: X-User}}}]";
    let lictor = caller_of(&backends.iter().collect::<Vec<_>>(), routes);
    let asked = |path: &str, user: &str| {
        let answer = request(&lictor.address("users"), "GET", path, &[("X-User", user)], b"").unwrap();
        answer.header("x-backend").to_owned()
    };
    let mut homes = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user = user.to_string();
        let home = asked("/carts/1", &user);
        assert!((0..5).all(|_| asked("/carts/2", &user) == home), "{user}");
        homes.insert(home);
    }
    assert!(homes.len() > 1, "{homes:?}");
    let turns: std::collections::BTreeSet<String> = (0..6).map(|_| asked("/", "1")).collect();
    assert_eq!(turns.len(), 3, "the upstream's own is another: {turns:?}");
}
