//! Strangers who take the admin listeners' places and give nothing back: a probe is answered all the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lictor_testkit::{Backend, Sidecar, connect, eventually_is, lictor};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use crate::{Seen, seen};

/// More than a listener has places.
const STRANGERS: usize = 200;
/// A probe is answered within a second; this is for a debug build, on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Ten seconds, and some for whatever is read or written before.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
const PROBES: [&str; 4] = ["/live", "/startup", "/ready", "/health"];

/// What a stranger does.
struct Habit {
    what: &'static str,
    /// Written at once.
    opening: String,
    /// Written again and again.
    then: &'static str,
    /// What is read of the answers, again and again.
    reads: Reads,
    /// It is shown the door within a while.
    is_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Nothing,
    /// A few bytes.
    Little,
    /// All that there is.
    All,
}

impl Habit {
    fn new(what: &'static str, opening: impl Into<String>) -> Self {
        Self { what, opening: opening.into(), then: "", reads: Reads::Nothing, is_ended: true }
    }

    fn again(self, then: &'static str) -> Self {
        Self { then, ..self }
    }

    fn lasting(self) -> Self {
        Self { is_ended: false, ..self }
    }
}

fn asked(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// What strangers do to either listener. None needs a token.
fn habits() -> Vec<Habit> {
    let metrics = asked("GET", "/metrics").repeat(400);
    // RFC 9113, section 3.4: a client's first words, with a SETTINGS_INITIAL_WINDOW_SIZE of 0.
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    vec![
        Habit::new("readers that do not read", &*metrics),
        Habit { reads: Reads::Little, ..Habit::new("readers of a few bytes", &*metrics) }.lasting(),
        Habit { reads: Reads::All, ..Habit::new("readers that ask again and again", "") }
            .again("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .lasting(),
        Habit::new("readers of small pages that do not read", asked("GET", "/health").repeat(400)),
        Habit::new("connections that say nothing", ""),
        Habit::new("heads that stop", "GET /live HTTP/1.1\r\nHost: local"),
        Habit::new("heads that trickle", "GET /live HTTP/1.1\r\nX-Slow: ").again("x"),
        Habit::new("connections that are kept", asked("GET", "/live")),
        Habit::new("bodies that stop", "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome"),
        Habit::new("HTTP/2 without a window", http2),
    ]
}

/// What else a program of this machine may do to the whole listener.
fn habits_here() -> Vec<Habit> {
    let body = "POST /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    let lasting = |what, path| Habit::new(what, asked("GET", path)).lasting();
    vec![
        Habit::new("bodies that trickle", body).again("x"),
        Habit::new("lists that nobody reads", asked("GET", "/config?origin").repeat(400)),
        lasting("listeners to /events", "/events"),
        lasting("listeners to /tap", "/tap"),
        lasting("lookers at /ui/live", "/ui/live"),
        Habit::new("listeners to all, many times", ["/events", "/tap", "/ui/live"].map(|it| asked("GET", it)).concat())
            .lasting(),
    ]
}

impl Habit {
    fn stranger(&self, address: &str) -> TcpStream {
        let stream = connect(address);
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = (&stream).write_all(self.opening.as_bytes()); // as much as it takes
        stream.set_nonblocking(true).unwrap();
        stream
    }

    fn goes_on(&self, mut stream: &TcpStream) {
        let _ = stream.write(self.then.as_bytes());
        let mut buffer = [0; 1 << 14];
        match self.reads {
            Reads::Nothing => (),
            Reads::Little => drop(stream.read(&mut buffer[..100])),
            Reads::All => while matches!(stream.read(&mut buffer), Ok(1..)) {},
        }
    }
}

/// An answer, and how long it took, from an address of this machine.
fn ask_from(source: [u8; 4], address: &str, path: &str) -> (Seen, Duration) {
    let began = Instant::now();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (seen(&String::from_utf8_lossy(&answer)), began.elapsed())
}

fn probe(habit: &Habit, address: &str) {
    for path in PROBES {
        let (answer, took) = ask_from([127, 0, 0, 1], address, path);
        assert!(answer.status == 200, "{}: {path}: {answer:?} after {took:?}", habit.what);
        assert!(took < AT_ONCE, "{}: {path} took {took:?}", habit.what);
    }
}

/// Of the process: sockets that it holds.
fn sockets(lictor: &Sidecar) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", lictor.pid())).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// A sidecar of its own for each habit, all of them at once: most of the time is spent waiting.
fn withstands(listener: &'static str, habits: &[Habit]) {
    let backend = Backend::start("users");
    let yaml = format!(
        "registration: off\nservice: orders\nadmin: {{public: '127.0.0.1:0'}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    std::thread::scope(|scope| {
        for habit in habits {
            let yaml = &yaml;
            scope.spawn(move || is_withstood(habit, &Sidecar::serve(lictor(), yaml).up(), listener));
        }
    });
}

fn is_withstood(habit: &Habit, lictor: &Sidecar, listener: &str) {
    static ALONE: Mutex<()> = Mutex::new(()); // another attack's beginning would be measured too
    let alone = ALONE.lock();
    let address = lictor.address(listener);
    let before = sockets(lictor);
    let strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| habit.stranger(&address)).collect();
    let began = Instant::now();
    let round = || {
        probe(habit, &address);
        for stream in &strangers {
            habit.goes_on(stream);
        }
    };
    (0..10).for_each(|_| round());
    // Of another peer at once, were it not for the time that it takes to see who is stuck.
    let scrape = || ask_from([127, 0, 0, 2], &address, "/metrics");
    eventually_is(habit.what, scrape, |(answer, took)| answer.status == 200 && answer.is_whole && *took < AT_ONCE);
    drop(alone);
    while habit.is_ended && sockets(lictor) > before {
        round();
        let took = began.elapsed();
        assert!(took < ENDED_WITHIN, "{}: {} sockets, {before} before", habit.what, sockets(lictor));
        #[expect(clippy::disallowed_methods, reason = "the pace of the attack")]
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(strangers);
    let scrape = || ask_from([127, 0, 0, 1], &address, "/metrics").0;
    eventually_is(habit.what, scrape, |answer| answer.status == 200 && answer.is_whole);
    eprintln!("{listener}: {}: withstood and over after {:.1?}", habit.what, began.elapsed());
}

#[test]
fn strangers_who_take_all_places_keep_no_probe_from_the_admin_listener() {
    withstands("admin", &habits());
}

#[test]
fn strangers_who_take_all_places_keep_no_probe_from_the_public_listener() {
    withstands("public", &habits());
}

#[test]
fn programs_of_this_machine_who_take_all_places_keep_no_probe_from_the_admin_listener() {
    withstands("admin", &habits_here());
}
