//! Clients that are slow, leave, or mean harm: what they cost, and what good clients notice of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, RawServer, Sidecar, connect, eventually_is, lictor, read_head};
use parking_lot::Mutex;

use crate::http2::frame;
use crate::{ask, caller};

const MIB: u64 = 1 << 20;
/// Of good clients' requests a second.
const RATE: u32 = 100;
/// How much later than without the attack the 99th percentile of good clients may be answered: a debug build, on a
/// machine that does other things too.
const SLOWER: Duration = Duration::from_secs(1);

/// A good instance, and a caller in front of it.
struct Siege {
    backend: Backend,
    lictor: Sidecar,
    /// Where the attack goes.
    address: String,
}

impl Siege {
    fn new(more: &str) -> Self {
        let backend = Backend::start("good");
        let lictor = caller(&[backend.port()], more);
        let address = lictor.address("users");
        Self { backend, lictor, address }
    }

    /// With a second upstream, `other`, that the attack goes to.
    fn beside(other: &RawServer, more: &str) -> Self {
        let backend = Backend::start("good");
        let yaml = format!(
            "registration: off
service: orders
upstreams:
  users: {{listen: 0, static: ['127.0.0.1:{}']}}
  other: {{listen: 0, static: ['127.0.0.1:{}']{more}}}
",
            backend.port(),
            other.port()
        );
        let lictor = Sidecar::serve(lictor(), &yaml).up();
        let address = lictor.address("users");
        Self { backend, lictor, address }
    }

    /// Good clients before and during the attack, whose value lives until they are done: none fails, the 99th percentile is
    /// at most `SLOWER`, and resident memory grows by `mib` at most.
    fn withstands<T>(&self, what: &str, mib: u64, attack: impl FnOnce(&str) -> T) {
        static ALONE: Mutex<()> = Mutex::new(()); // another siege's attack would be measured too
        let _alone = ALONE.lock();
        let calm = Load::start(&self.address, &[Method::GET], RATE);
        calm.await_more(200);
        let calm = calm.finish();
        let before = self.lictor.resident();
        let load = Load::start(&self.address, &[Method::GET], RATE);
        let attackers = attack(&self.address);
        load.await_more(200);
        let grown = self.lictor.resident().saturating_sub(before);
        let load = load.finish();
        drop(attackers);
        load.assert_flawless();
        let (usual, p99) = (calm.percentile(0.99), load.percentile(0.99));
        eprintln!("{what}: p99 {usual:.1?} before, {p99:.1?} during; {:.1} MiB more", grown as f64 / MIB as f64);
        assert!(p99 < usual + SLOWER, "{what}: p99 {p99:?} instead of {usual:?}");
        assert!(grown < mib * MIB, "{what}: {} MiB more", grown / MIB);
    }
}

/// So many connections that have each sent this.
fn connections(address: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(address);
        stream.write_all(bytes).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

/// What comes until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn slow_heads_are_ended_after_half_a_minute_whatever_trickles_in() {
    let siege = Siege::new("");
    let began = Instant::now();
    let mut slow = Vec::new();
    siege.withstands("1000 slow heads", 32, |address| {
        slow = connections(address, 1000, b"GET / HTTP/1.1\r\nHost: users\r\nX-Slow: ");
    });
    // A byte a second is progress, but no excuse.
    let trickling = slow.split_off(990);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                for mut stream in &trickling {
                    let _ = stream.write_all(b"x");
                }
                #[expect(clippy::disallowed_methods, reason = "the pace of the attack")]
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        for stream in slow.into_iter().chain(trickling.iter().map(|stream| stream.try_clone().unwrap())) {
            stream.set_read_timeout(Some(Duration::from_secs(45))).unwrap();
            let answer = rest(stream);
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
        }
        is_over.store(true, Relaxed);
    });
    let took = began.elapsed();
    assert!(took < Duration::from_secs(45), "{took:?}");
    assert!(siege.lictor.metric("lictor_requests_refused_total", &[("code", "408")]) >= 1000.0);
}

#[test]
fn slow_uploads_are_ended_and_nobody_elses_fault() {
    let siege = Siege::new(", timeout: 1s, retry: off");
    let mut slow = Vec::new();
    siege.withstands("100 slow uploads", 32, |address| {
        slow = connections(address, 100, b"POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 1000000\r\n\r\nsome");
    });
    for stream in slow {
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer:?}");
    }
    // A hundred timeouts of the instance's own would have opened the breaker.
    assert_eq!(siege.lictor.page("/breakers")["users"]["state"], "closed");
    assert_eq!(ask(&siege.address, "GET").status, 200);
    let refused = siege.lictor.metric("lictor_upstream_requests_total", &[("reason", "request_timeout")]);
    assert!((refused - 100.0).abs() < 0.5, "{refused}");
}

#[test]
fn an_upload_that_the_instance_does_not_read_is_the_instances_fault() {
    let server = RawServer::start(|mut stream| {
        let _ = read_head(&mut stream);
        let _held = stream.set_read_timeout(None);
        std::thread::park(); // its thread ends with the test's process
    });
    let lictor = caller(&[server.port()], ", timeout: 500ms, retry: off");
    let mut client = connect(&lictor.address("users"));
    client.write_all(b"POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let mut upload = client.try_clone().unwrap();
    std::thread::spawn(move || while upload.write_all(&[b'x'; 16384]).is_ok() {});
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 504"), "{head}");
}

#[test]
fn readers_that_take_nothing_are_ended() {
    let endless = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 16384]).is_ok() {}
    });
    let siege = Siege::beside(&endless, ", timeout: 3s");
    let slow_at: SocketAddr = siege.lictor.address("other").parse().unwrap();
    let mut slow = Vec::new();
    siege.withstands("30 readers that take nothing", 64, |_| {
        slow.extend((0..30).map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap(); // as little as the kernel allows
            socket.connect(&slow_at.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
            stream
        }));
        endless.await_connections(30);
    });
    let running = || siege.lictor.metric("lictor_upstream_in_flight", &[("upstream", "other")]) as u64;
    eventually_is("their places are free again", running, |count| *count == 0);
    drop(slow);
    assert_eq!(siege.lictor.page("/breakers")["other"]["state"], "closed");
}

/// How a request is given up: what the client sends, what the server answers, and how far the server must have come.
fn upstream_is_cancelled(request: &'static [u8], answer: &'static [u8], is_sent_by: &str) {
    let (told, wait) = mpsc::channel();
    let (gone, ended) = mpsc::channel();
    let (told, gone) = (Mutex::new(told), Mutex::new(gone));
    let server = RawServer::start(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(answer);
        let _ = told.lock().send(());
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = gone.lock().send(Instant::now());
    });
    let lictor = caller(&[server.port()], "");
    let mut client = connect(&lictor.address("users"));
    client.write_all(request).unwrap();
    wait.recv().unwrap();
    if !answer.is_empty() {
        read_head(&mut client);
    }
    let left = Instant::now();
    drop(client);
    let took = ended.recv().unwrap().saturating_duration_since(left);
    eprintln!("left {is_sent_by}: the upstream is cancelled after {took:.1?}");
    assert!(took < Duration::from_millis(100), "left {is_sent_by}: {took:?}");
    eventually_is("nothing is left", || lictor.metric("lictor_upstream_in_flight", &[]) as u64, |count| *count == 0);
    let gone = || lictor.metric("lictor_upstream_requests_total", &[("reason", "client_gone")]);
    eventually_is("it is counted", gone, |count| *count > 0.5);
    assert!(lictor.metric("lictor_endpoint_ejections_total", &[]) < 0.5);
}

#[test]
fn clients_that_leave_cancel_the_upstream_within_100_ms() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome";
    upstream_is_cancelled(
        b"POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100\r\n\r\nsome",
        b"",
        "within the upload",
    );
    upstream_is_cancelled(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n", b"", "before the head");
    upstream_is_cancelled(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n", head, "within the answer");
}

#[test]
fn clients_that_leave_within_the_head_leave_nothing() {
    let siege = Siege::new("");
    let open = |siege: &Siege| std::fs::read_dir(format!("/proc/{}/fd", siege.lictor.pid())).unwrap().count();
    assert_eq!(ask(&siege.address, "GET").status, 200);
    let before = open(&siege);
    drop(connections(&siege.address, 500, b"GET / HTTP/1.1\r\nHost: us"));
    eventually_is("their connections are closed", || open(&siege), |now| *now <= before + 2);
    assert_eq!(siege.backend.hits(), 1);
}

#[test]
fn heads_without_an_end_are_refused() {
    let siege = Siege::new("");
    let mut bomb = b"GET / HTTP/1.1\r\nHost: users\r\n".to_vec();
    while bomb.len() < 200 << 10 {
        bomb.extend(format!("X-{}: {}\r\n", bomb.len(), "x".repeat(8000)).into_bytes());
    }
    siege.withstands("500 heads of 200 KiB", 64, |address| {
        for _ in 0..500 {
            let mut stream = connect(address);
            let _ = stream.write_all(&bomb); // it may be refused before it is whole
            let answer = rest(stream);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    });
    assert!(siege.lictor.metric("lictor_requests_refused_total", &[("code", "431")]) >= 500.0);
    siege.withstands("100 heads that stop at 120 KiB", 64, |address| connections(address, 100, &bomb[..120 << 10]));
}

#[test]
fn uploads_without_an_end_cost_no_memory() {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut chunk = b"4000\r\n".to_vec();
    chunk.extend([b'x'; 16384]);
    chunk.extend(b"\r\n");
    let drain = RawServer::start(|mut stream| {
        let mut buffer = vec![0; 1 << 16];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    let siege = Siege::beside(&drain, "");
    let drain_at = siege.lictor.address("other");
    siege.withstands("10 uploads without an end", 32, |_| {
        for _ in 0..10 {
            let (mut stream, is_over, chunk) = (connect(&drain_at), Arc::clone(&is_over), chunk.clone());
            stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            std::thread::spawn(move || while !is_over.load(Relaxed) && stream.write_all(&chunk).is_ok() {});
        }
        drain.await_connections(10);
    });
    is_over.store(true, Relaxed);
}

/// A part of a chunked body (RFC 9112, section 7.1).
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Tells how much of it there is, chunk by chunk.
fn read_chunked(stream: &mut TcpStream, told: impl Fn(usize)) -> Vec<u8> {
    let (mut reader, mut body) = (BufReader::new(stream), Vec::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut data = vec![0; size + 2];
        reader.read_exact(&mut data).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&data[..size]);
        told(body.len());
    }
}

const CHUNKED: &[u8] = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn uploads_in_single_bytes_take_no_more_than_their_bodies() {
    const LENGTH: usize = 60_000; // below `retry.max_body`: all of it is kept
    let (tell, told) = mpsc::channel();
    let silent = RawServer::start(move |mut stream| {
        let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let before = got;
            got += buffer[..count].iter().map(|byte| usize::from(*byte == 0)).sum::<usize>();
            if before < LENGTH && got >= LENGTH {
                tell.send(()).unwrap();
            }
        }
    });
    let siege = Siege::beside(&silent, "");
    let silent_at = siege.lictor.address("other");
    let upload = [CHUNKED, &chunk(&[0]).repeat(LENGTH)].concat();
    siege.withstands("8 uploads in 60,000 chunks of a byte", 8, |_| {
        let uploads = connections(&silent_at, 8, &upload);
        (0..8).for_each(|_| told.recv().unwrap());
        uploads
    });
}

#[test]
fn an_upload_in_pieces_is_sent_again_as_it_came() {
    let sizes = [1, 1, 2000, 3, 1023, 1024, 1, 5000, 7, 7, 20_000, 1, 1];
    let body: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| b'a' + (at % 26) as u8).collect();
    let mut rest = &body[..];
    let pieces: Vec<&[u8]> = sizes.iter().map(|size| rest.split_off(..*size).unwrap()).collect();
    // The first that has it all goes away without a word; the next one says what it got.
    let is_first = Arc::new(AtomicBool::new(true));
    let (tell, told) = mpsc::channel();
    let instance = || {
        let (is_first, tell) = (Arc::clone(&is_first), tell.clone());
        RawServer::start(move |mut stream| {
            read_head(&mut stream);
            let got = read_chunked(&mut stream, |length| tell.send(length).unwrap());
            if !is_first.swap(false, Relaxed) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", got.len());
                stream.write_all(&[head.into_bytes(), got].concat()).unwrap();
            }
        })
    };
    let (one, other) = (instance(), instance());
    let lictor = caller(&[one.port(), other.port()], "");
    let mut client = connect(&lictor.address("users"));
    client.write_all(CHUNKED).unwrap();
    let mut sent = 0;
    for piece in pieces {
        client.write_all(&chunk(piece)).unwrap();
        sent += piece.len();
        while told.recv().unwrap() < sent {} // else several would come as one
    }
    client.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
    let mut echoed = vec![0; body.len()];
    client.read_exact(&mut echoed).unwrap();
    assert!(echoed == body, "not what was sent");
    assert_eq!(one.connections() + other.connections(), 2);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET http://users/` (RFC 7541, appendix A).
const GET: &[u8] = b"\x82\x86\x84\x41\x05users";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Ten clients that write this again and again, each round on streams of its own, on a new connection when theirs is ended.
fn flooded(what: &str, opening: &[u8], round: impl Fn(u32) -> Vec<u8> + Sync) {
    let siege = Siege::new("");
    let (is_over, siege, round) = (AtomicBool::new(false), &siege, &round);
    let opening = [PREFACE, opening].concat();
    let flood = || {
        let _ = rustix::process::nice(10); // this thread: attackers are elsewhere, and not on the sidecar's processors
        while !is_over.load(Relaxed) {
            let mut stream = connect(&siege.address);
            let mut is_open = stream.write_all(&opening).is_ok();
            for number in (0..1_000_000).step_by(100).take_while(|_| !is_over.load(Relaxed)) {
                let bytes: Vec<u8> = (number..number + 100).flat_map(round).collect();
                is_open = is_open && stream.write_all(&bytes).is_ok();
                if !is_open {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Also when the claim fails: the flood ends, and the test with it.
        let attack = || (0..10).for_each(|_| drop(scope.spawn(flood)));
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| siege.withstands(what, 64, |_| attack())));
        is_over.store(true, Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn requests_that_are_reset_at_once_delay_nobody() {
    // CVE-2023-44487
    flooded("10 clients that reset each request", b"", |number| {
        let stream = 2 * number + 1;
        [frame(1, END_STREAM | END_HEADERS, stream, GET), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
}

#[test]
fn heads_in_continuations_without_an_end_delay_nobody() {
    // CVE-2024-27316
    let opening = frame(1, END_STREAM, 1, GET);
    let field = [&b"\0\x03x-a\x7f\xe9\x06"[..], &[b'x'; 1000]].concat(); // a literal of 1000 bytes
    flooded("10 clients whose CONTINUATION does not end", &opening, |_| frame(9, 0, 1, &field));
}
