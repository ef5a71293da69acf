//! A network that loses everything: an instance in a network namespace of its own, behind a firewall. Needs root, `ip` and
//! `iptables`.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, RawServer, eventually_is, get, request};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::caller;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Backend: far\r\n\r\nok";

/// A network namespace, joined to ours by a pair of interfaces; gone with its value.
pub(crate) struct Far {
    name: String,
    /// Its address there.
    pub(crate) address: String,
    /// Ours, as it is seen from there.
    pub(crate) here: String,
}

impl Far {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() * 10 + NUMBER.fetch_add(1, Relaxed);
        let (name, subnet) = (format!("lictor{id}"), format!("10.213.{}", id % 250));
        let far = Self { name, address: format!("{subnet}.2"), here: format!("{subnet}.1") };
        let (here, there) = (format!("lh{id}"), format!("lt{id}"));
        run(&["ip", "netns", "add", &far.name]);
        run(&["ip", "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &far.name]);
        run(&["ip", "address", "add", &format!("{}/24", far.here), "dev", &here]);
        run(&["ip", "link", "set", &here, "up"]);
        far.run(&["ip", "address", "add", &format!("{}/24", far.address), "dev", &there]);
        far.run(&["ip", "link", "set", &there, "up"]);
        far
    }

    /// Runs a command there.
    fn run(&self, command: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.name], command].concat());
    }

    /// `iptables -A INPUT ... -j verdict` (or `-D`).
    fn firewall(&self, order: &str, verdict: &[&str]) {
        self.run(&[&["iptables", "-w", order, "INPUT", "-p", "tcp", "-j"], verdict].concat());
    }

    /// A listener there.
    fn listen(&self) -> TcpListener {
        let address = format!("{}:0", self.address);
        self.inside(move || TcpListener::bind(address).unwrap())
    }

    /// Does something there: sockets belong to the namespace in which they are made.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = format!("/run/netns/{}", self.name);
        let inside = std::thread::spawn(move || {
            let namespace = File::open(file).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        inside.join().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status(); // its interfaces go with it
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("these tests need {}: {error}", command[0]));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn a_firewall_that_drops_or_rejects_costs_no_request_while_another_instance_is_well() {
    let far = Far::new();
    let listener = far.listen();
    let address = listener.local_addr().unwrap().to_string();
    // Its thread ends with the process: nobody here can wake it.
    let server = std::mem::ManuallyDrop::new(RawServer::on(listener, |mut stream| {
        use std::io::Write;
        while !lictor_testkit::read_head(&mut stream).is_empty() && stream.write_all(OK).is_ok() {}
    }));
    let good = Backend::start("good");
    let both = [address, format!("127.0.0.1:{}", good.port())];

    let alone = caller(&both[..1], ", retry: off, breaker: off");
    let users = alone.address("users");
    eventually_is(
        "the far instance answers",
        || get(&users, "/").map_or(0, |answer| answer.status),
        |status| *status == 200,
    );
    for (verdict, status, reason) in [
        (&["DROP"][..], 504, "connect_timeout"),
        (&["REJECT", "--reject-with", "tcp-reset"][..], 502, "connect_refused"),
        (&["REJECT", "--reject-with", "icmp-host-unreachable"][..], 502, "connect_refused"),
    ] {
        far.firewall("-A", verdict);
        let lictor = caller(&both, ", balance: round_robin");
        let began = Instant::now();
        for _ in 0..6 {
            for method in ["GET", "POST"] {
                assert_eq!(
                    request(&lictor.address("users"), method, "/", &[], b"").unwrap().status,
                    200,
                    "{verdict:?}"
                );
            }
        }
        let fresh = caller(&both[..1], ", retry: off");
        let answer = fresh.get("users", "/");
        assert_eq!((answer.status, answer.header("x-lictor-reason")), (status, reason), "{verdict:?}");
        eprintln!("{verdict:?}: {status} {reason}; 12 requests beside a good instance took {:.1?}", began.elapsed());
        far.firewall("-D", verdict);
    }
    assert!(server.connections() > 0);
}

#[test]
#[ignore = "needs root for a network namespace: `make chaos`"]
fn connections_that_fall_into_a_blackhole_are_left_after_per_try_timeout() {
    let far = Far::new();
    let listener = far.listen();
    let address = listener.local_addr().unwrap().to_string();
    let _server = std::mem::ManuallyDrop::new(RawServer::on(listener, |mut stream| {
        use std::io::Write;
        while !lictor_testkit::read_head(&mut stream).is_empty() && stream.write_all(OK).is_ok() {}
    }));
    let good = Backend::start("good");
    let endpoints = [address, format!("127.0.0.1:{}", good.port())];
    let lictor = caller(&endpoints, ", balance: round_robin, per_try_timeout: 300ms");
    let load = Load::start(&lictor.address("users"), &[Method::GET], 50);
    load.await_more(100);
    assert!(load.tally().backends.contains_key("far"), "the far instance is in use");
    far.firewall("-A", &["DROP"]); // kept connections too
    load.await_more(300);
    far.firewall("-D", &["DROP"]);
    let tally = load.finish();
    tally.assert_flawless();
    let slowest = tally.percentile(1.0);
    eprintln!("a blackhole under load: {} GETs, 0 errors, the slowest {slowest:.1?}", tally.total());
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    assert!(lictor.metric("lictor_endpoint_ejections_total", &[]) >= 1.0);
}
