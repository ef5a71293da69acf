//! Instances that break, each in one way; and many requests while they do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Method;
use lictor_testkit::{
    Authority, Backend, Blackhole, Load, Pair, RawServer, Sidecar, eventually_is, free_ports, lictor, read_head,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use socket2::SockRef;

use crate::table::Fault;
use crate::{Instance, ask, caller};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The head of an answer of a hundred bytes.
const HUNDRED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";

/// Reads a whole request, so that closing is a FIN; false when there is none.
fn read_request(stream: &mut TcpStream) -> bool {
    let head = read_head(stream).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    !head.is_empty() && stream.read_exact(&mut vec![0; length.unwrap_or(0)]).is_ok()
}

/// Closing it is a reset.
fn resets(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Holds a connection until the other side ends it.
fn hold(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A row for a server that does this with each connection.
fn row(what: &str, policy: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let (bad, good) = (RawServer::start(serve), Backend::start("good"));
    Fault { what, bad: bad.port(), good: good.port(), policy }.is_in_the_table();
}

/// A row for a server that reads a request, writes this and closes.
fn writing(what: &str, policy: &str, bytes: &'static [u8]) {
    row(what, policy, move |mut stream| {
        if read_request(&mut stream) {
            let _ = stream.write_all(bytes);
        }
    });
}

#[test]
fn nobody_listens() {
    let ([bad], good) = (free_ports(), Backend::start("good"));
    Fault { what: "nobody listens", bad, good: good.port(), policy: "" }.is_in_the_table();
}

#[test]
fn a_full_accept_queue() {
    let (blackhole, good) = (Blackhole::new(), Backend::start("good"));
    let what = "nothing answers to SYN (a blackhole, a full accept queue)";
    let (bad, policy) = (blackhole.port(), ", connect_timeout: 100ms");
    Fault { what, bad, good: good.port(), policy }.is_in_the_table();
}

#[test]
fn a_stopped_process() {
    let (bad, good) = (Instance::start("bad"), Backend::start("good"));
    bad.signal(Signal::STOP);
    let what = "the process hangs (SIGSTOP), `timeout` passes";
    Fault { what, bad: bad.port, good: good.port(), policy: ", timeout: 400ms" }.is_in_the_table();
    let what = "the process hangs (SIGSTOP), `per_try_timeout` passes";
    Fault { what, bad: bad.port, good: good.port(), policy: ", per_try_timeout: 400ms" }.is_in_the_table();
    let lictor = caller(&[bad.port], ", timeout: 400ms");
    assert_eq!(ask(&lictor.address("users"), "GET").reason, "timeout");
    bad.signal(Signal::CONT);
    eventually_is("it answers again", || ask(&lictor.address("users"), "GET").status, |status| *status == 200);
}

#[test]
fn a_connection_that_is_closed_at_once() {
    row("the connection is closed as soon as it is made", "", drop);
}

#[test]
fn a_reset_before_the_head() {
    row("RST after the request", "", |mut stream| {
        read_request(&mut stream);
        resets(&stream);
    });
}

#[test]
fn an_end_before_the_head() {
    writing("FIN after the request", "", b"");
}

#[test]
fn an_end_within_the_head() {
    writing("FIN within the head", "", b"HTTP/1.1 200 OK\r\nContent-Len");
}

#[test]
fn a_reset_after_the_head() {
    row("RST after the head", "", |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(HUNDRED);
        resets(&stream);
    });
}

#[test]
fn a_body_that_is_cut() {
    writing(
        "the body is cut (`Content-Length` too long)",
        "",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfifteen bytes..",
    );
}

#[test]
fn bodies_that_are_cut_open_the_breaker() {
    let cut = RawServer::start(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(HUNDRED);
    });
    let lictor = caller(&[cut.port()], ", ejection: off, breaker: {failure_threshold: 3}");
    for _ in 0..3 {
        let seen = ask(&lictor.address("users"), "GET");
        assert_eq!((seen.status, seen.is_whole), (200, false), "{seen:?}");
    }
    assert_eq!(ask(&lictor.address("users"), "GET").reason, "breaker_open");
    assert_eq!(lictor.page("/breakers")["users"]["cause"], "reset_mid_response");
}

#[test]
fn whole_bodies_between_cut_ones_keep_the_breaker_closed() {
    let turn = AtomicUsize::new(0);
    let server = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(if turn.fetch_add(1, Relaxed).is_multiple_of(3) { OK } else { HUNDRED });
    });
    let lictor = caller(&[server.port()], ", retry: off, ejection: off, breaker: {failure_threshold: 3}");
    for _ in 0..12 {
        assert_eq!(ask(&lictor.address("users"), "GET").status, 200);
    }
    assert_eq!(lictor.page("/breakers")["users"]["state"], "closed");
}

#[test]
fn chunks_that_are_cut() {
    writing(
        "the body is cut (chunked)",
        "",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe",
    );
}

#[test]
fn more_body_than_told() {
    writing("more body than `Content-Length`", "", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and HTTP/1.1 500");
}

#[test]
fn garbage() {
    writing("no HTTP", "", b"\x15\x03\x01\x00\x02\x02\x46 what is this?\r\n\r\n");
}

#[test]
fn a_slow_head() {
    let silent = |mut stream: TcpStream| hold(&mut stream);
    row("no head within `timeout`", ", timeout: 400ms", silent);
    row("no head within `per_try_timeout`", ", per_try_timeout: 400ms", silent);
}

#[test]
fn a_body_that_stalls() {
    row("the body stalls for `timeout`", ", timeout: 400ms", |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(HUNDRED);
        hold(&mut stream);
    });
}

#[test]
fn a_slow_body() {
    row("a slow body that takes twice `timeout`", ", timeout: 300ms", |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n");
        for _ in 0..20 {
            let _ = stream.write_all(b".");
            #[expect(clippy::disallowed_methods, reason = "how slow it is, is what is tested")]
            std::thread::sleep(Duration::from_millis(30));
        }
    });
}

#[test]
fn an_error_status() {
    row("503", "", |mut stream| {
        while read_request(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
    });
}

#[test]
fn an_address_that_is_another_services_now() {
    let (app, good, [inbound]) = (Backend::start("carts"), Backend::start("good"), free_ports());
    let yaml = format!(
        "registration: off\nservice: carts\nport: {}\ninbound: {{listen: '127.0.0.1:{inbound}'}}\n",
        app.port()
    );
    let theirs = Sidecar::serve(lictor(), &yaml).up();
    let what = "the address is another service's by now (its lictor says 421)";
    Fault { what, bad: inbound, good: good.port(), policy: "" }.is_in_the_table();
    assert_eq!(app.hits(), 0, "nothing reaches the wrong application");
    drop(theirs);
}

/// Rows for servers that answer, if the handshake succeeds.
fn tls_row(what: &str, certificate: impl Fn(&Authority) -> Pair) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let serve = |mut stream: rustls::StreamOwned<rustls::ServerConnection, TcpStream>| {
        while !read_head(&mut stream).is_empty() && stream.write_all(OK).is_ok() {}
    };
    let issuer = if what.contains("CA") { &theirs } else { &ours };
    let bad = issuer.server(&certificate(issuer), &[b"http/1.1"], false, serve);
    let good = ours.server(&ours.issue("good", &["127.0.0.1"]), &[b"http/1.1"], false, serve);
    let policy = format!(", tls: {{ca: {}}}", ours.ca().display());
    Fault { what, bad: bad.port(), good: good.port(), policy: &policy }.is_in_the_table();
}

#[test]
fn a_certificate_of_another_authority() {
    tls_row("TLS: a certificate of another CA", |theirs| theirs.issue("bad", &["127.0.0.1"]));
}

#[test]
fn an_expired_certificate() {
    tls_row("TLS: an expired certificate", |ours| ours.issue_expired("bad", &["127.0.0.1"]));
}

#[test]
fn a_certificate_for_another_name() {
    tls_row("TLS: a certificate for another name", |ours| ours.issue("bad", &["somebody.else"]));
}

/// A row for a server that was to speak TLS.
fn not_tls_row(what: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let ours = Authority::new();
    let bad = RawServer::start(serve);
    let good = ours.server(&ours.issue("good", &["127.0.0.1"]), &[b"http/1.1"], false, |mut stream| {
        while !read_head(&mut stream).is_empty() && stream.write_all(OK).is_ok() {}
    });
    let policy = format!(", tls: {{ca: {}}}, connect_timeout: 300ms", ours.ca().display());
    Fault { what, bad: bad.port(), good: good.port(), policy: &policy }.is_in_the_table();
}

#[test]
fn plain_text_where_tls_was_expected() {
    not_tls_row("TLS: the instance speaks plain HTTP", |mut stream| {
        let mut first = [0; 16];
        let _ = stream.read(&mut first);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
}

#[test]
fn a_handshake_that_hangs() {
    not_tls_row("TLS: the handshake hangs", |mut stream| hold(&mut stream));
}

#[test]
fn a_kept_connection_that_closes_as_it_is_used_costs_a_get_nothing() {
    // The worst moment of the race (RFC 9112, section 9.6): the second request is on the wire when the server ends.
    let unanswered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&unanswered);
    let server = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(OK);
        counted.fetch_add(usize::from(read_request(&mut stream)), Relaxed);
    });
    let lictor = caller(&[server.port()], ", retry: off, breaker: off");
    let mut client = lictor_testkit::connect(&lictor.address("users"));
    for request in 0..200 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 200"), "request {request}: {head}");
        client.read_exact(&mut [0; 2]).unwrap();
    }
    let races = unanswered.load(Relaxed);
    assert!(races >= 100, "{races} of 200 requests met a connection that ended");
    eprintln!("{races} close races, 0 errors");
    // A POST may have been carried out: it is not sent again, and its client is told.
    let seen = [ask(&lictor.address("users"), "POST"), ask(&lictor.address("users"), "POST")];
    assert!(seen.iter().any(|seen| (seen.status, seen.reason.as_str()) == (502, "reset_before_response")), "{seen:?}");
}

/// To the microsecond, where a socket's own timeout counts the kernel's ticks.
fn comes_within(stream: &TcpStream, wait: Duration) -> bool {
    let wait = Timespec::try_from(wait).unwrap();
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&wait)).is_ok_and(|ready| ready > 0)
}

#[test]
fn keep_alive_that_ends_about_when_the_next_request_comes_costs_a_get_nothing() {
    let (waits, closed) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&closed);
    let server = RawServer::start(move |mut stream| {
        // Requests come every 10 ms. No wait is the last one's, so that no connection is kept for long.
        let keep_alive = || Duration::from_micros(9_000 + 150 * (waits.fetch_add(1, Relaxed) % 10) as u64);
        // A connection's first request is waited for: that is not keep-alive's.
        while read_request(&mut stream) && stream.write_all(OK).is_ok() && comes_within(&stream, keep_alive()) {}
        drop(stream);
        counted.fetch_add(1, Relaxed);
    });
    let lictor = caller(&[server.port()], ", retry: off, breaker: off");
    let load = Load::start(&lictor.address("users"), &[Method::GET], 100);
    eventually_is("a hundred connections are closed by the server", || closed.load(Relaxed), |count| *count >= 100);
    let tally = load.finish();
    tally.assert_flawless();
    eprintln!("{} requests, {} closed connections, 0 errors", tally.total(), closed.load(Relaxed));
}

#[test]
fn a_killed_instance_costs_no_get_and_only_the_posts_that_were_on_the_wire() {
    one_of_three_is_killed("http1");
}

/// Under load; the callees speak this.
pub(crate) fn one_of_three_is_killed(protocol: &str) {
    const RATE: u32 = 200;
    let mut instances: Vec<Instance> = ["a", "b", "c"].map(Instance::start).into();
    let addresses: Vec<String> = instances.iter().map(|instance| format!("'127.0.0.1:{}'", instance.port)).collect();
    let endpoints =
        format!("{{listen: 0, protocol: {protocol}, balance: round_robin, static: [{}]}}", addresses.join(", "));
    let yaml = format!("registration: off\nservice: orders\nupstreams:\n  gets: {endpoints}\n  posts: {endpoints}\n");
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    let gets = Load::start(&lictor.address("gets"), &[Method::GET], RATE);
    let posts = Load::start(&lictor.address("posts"), &[Method::POST], RATE);
    gets.await_more(200);
    posts.await_more(200);
    drop(instances.remove(0)); // SIGKILL
    gets.await_more(600);
    posts.await_more(600);
    gets.finish().assert_flawless();
    let posts = posts.finish();
    let metric = |reason| lictor.metric("lictor_upstream_requests_total", &[("upstream", "posts"), ("reason", reason)]);
    let lost = (metric("reset_before_response") + metric("reset_mid_response")) as u64;
    let stories = lictor.page("/requests");
    assert_eq!(posts.errors(), lost, "only what was on the wire fails: {:?} {stories}", posts.samples);
    assert!(lost <= 3, "{lost} POSTs were on the wire of one instance at {RATE} a second");
    eprintln!("{protocol}: 1 of 3 instances killed: {lost} of {} POSTs failed, no GET", posts.total());
}

#[test]
fn a_new_listener_at_the_old_port_is_used_again() {
    let (bad, good) = (TcpListener::bind("127.0.0.1:0").unwrap(), Backend::start("good"));
    let port = bad.local_addr().unwrap().port();
    drop(bad);
    let lictor = caller(&[port, good.port()], ", balance: round_robin, ejection: {base: 100ms}");
    let users = lictor.address("users");
    for _ in 0..12 {
        assert_eq!(ask(&users, "GET").status, 200);
    }
    assert!(lictor.metric("lictor_endpoint_ejections_total", &[]) >= 1.0);
    let back = Backend::on("back", port);
    eventually_is("it gets requests again", || ask(&users, "GET").status, |_| back.hits() > 0);
}
