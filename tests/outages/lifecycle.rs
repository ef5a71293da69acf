//! Restarts under load, stops in the middle of things, and applications that do not behave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{
    Backend, Consul, Load, RawServer, Sidecar, connect, eventually_is, free_ports, get, read_head, request,
};
use rustix::process::Signal;
use serde_json::json;

use crate::{beside, events, lictor, quiet};

const RATE: u32 = 100;
const METHODS: &[Method] = &[Method::GET, Method::POST];

/// An inbound listener: callers reach the application through its sidecar.
pub(crate) fn inbound() -> String {
    let [port] = free_ports();
    format!("inbound: {{listen: '127.0.0.1:{port}'}}\n")
}

/// Who is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Callee,
    Caller,
    Both,
}

/// `front` calls `orders`, whose application calls `users`: `orders` is callee and caller at once.
pub(crate) struct Chain {
    consul: Consul,
    users: Vec<(Backend, Sidecar)>,
    orders: Vec<(Forwarding, Sidecar)>,
    front: Sidecar,
}

/// An application that answers with what `users` says, by its sidecar.
struct Forwarding {
    port: u16,
    egress: Arc<parking_lot::Mutex<String>>,
    _server: RawServer,
}

impl Forwarding {
    fn start() -> Self {
        let egress = Arc::new(parking_lot::Mutex::new(String::new()));
        let known = Arc::clone(&egress);
        let server =
            RawServer::start(move |mut stream| while forward(&mut stream, || known.lock().clone()).is_some() {});
        Self { port: server.port(), egress, _server: server }
    }

    /// A sidecar beside it, through which it calls from now on.
    fn beside(&self, consul: &Consul) -> Sidecar {
        let yaml = format!(
            "service: orders\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\n{}upstreams: {{users: 0}}\n",
            self.port,
            consul.url(),
            inbound()
        );
        let sidecar = Sidecar::serve(lictor(), &yaml).up();
        *self.egress.lock() = sidecar.address("users");
        sidecar
    }
}

/// One request on the connection; `None` when it is over.
fn forward(stream: &mut TcpStream, egress: impl Fn() -> String) -> Option<()> {
    let head = read_head(stream);
    let mut words = head.split(' ');
    let (method, path) = (words.next().filter(|word| !word.is_empty())?, words.next()?);
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let (status, text) = match path {
        "/health" => (200, "ok".to_owned()),
        _ => match request(&egress(), method, path, &[], &body) {
            Ok(answer) => (answer.status, answer.text()),
            Err(error) => (500, format!("orders: {error}")),
        },
    };
    let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).ok()
}

impl Chain {
    pub(crate) fn start() -> Self {
        let consul = Consul::dev();
        let users = ["a", "b"].map(|name| {
            let backend = Backend::start(name);
            let sidecar = Self::user(&consul, &backend);
            (backend, sidecar)
        });
        let orders = [(); 2].map(|()| {
            let application = Forwarding::start();
            let sidecar = application.beside(&consul);
            (application, sidecar)
        });
        let yaml = format!(
            "registration: off\nservice: front\nconsul: {{address: '{}'}}\nupstreams: {{orders: 0}}\n",
            consul.url()
        );
        let front = Sidecar::serve(lictor(), &yaml).up();
        front.await_endpoints("orders", 2);
        let chain = Self { consul, users: users.into(), orders: orders.into(), front };
        chain.settle();
        chain
    }

    pub(crate) fn load(&self) -> Load {
        Load::start(&self.front.address("orders"), METHODS, RATE)
    }

    /// Ends one in order and starts its successor, as a deployment does.
    pub(crate) fn restart(&mut self, who: Who) {
        let user = (who != Who::Caller).then(|| self.users.remove(0));
        let order = (who != Who::Callee).then(|| self.orders.remove(0));
        std::thread::scope(|scope| {
            let ending: Vec<_> =
                user.iter().map(|(_, sidecar)| sidecar).chain(order.iter().map(|(_, sidecar)| sidecar)).collect();
            for sidecar in ending {
                scope.spawn(|| sidecar.signal(Signal::TERM));
            }
        });
        if let Some((backend, mut sidecar)) = user {
            assert!(sidecar.wait().success());
            let (name, port) = (backend.name().to_owned(), backend.port());
            backend.stop();
            let backend = Backend::on(&name, port);
            let sidecar = Self::user(&self.consul, &backend);
            self.users.push((backend, sidecar));
        }
        if let Some((application, mut sidecar)) = order {
            assert!(sidecar.wait().success());
            let sidecar = application.beside(&self.consul);
            self.orders.push((application, sidecar));
        }
        self.settle();
    }

    fn user(consul: &Consul, backend: &Backend) -> Sidecar {
        beside(consul, backend, &inbound())
    }

    /// Waits until everybody sees two of those it calls.
    fn settle(&self) {
        self.front.await_endpoints("orders", 2);
        for (_, sidecar) in &self.orders {
            sidecar.await_endpoints("users", 2);
        }
    }
}

#[test]
fn callee_caller_and_both_are_restarted_under_load_and_nothing_fails() {
    let mut chain = Chain::start();
    let load = chain.load();
    for who in [Who::Callee, Who::Caller, Who::Both, Who::Both] {
        chain.restart(who);
        load.await_more(50);
    }
    load.finish().assert_flawless();
}

#[test]
fn with_consul_away_a_callee_that_leaves_tells_its_callers_itself() {
    let mut consul = Consul::dev();
    let start = |name| {
        let backend = Backend::start(name);
        let sidecar = beside(&consul, &backend, &format!("{}lifecycle: {{drain_delay: 2s}}\n", inbound()));
        (backend, sidecar)
    };
    let (a, b) = (start("a"), start("b"));
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nupstreams: {{users: {{listen: 0, retry: off, balance: round_robin}}}}\n",
        consul.url()
    );
    let caller = Sidecar::serve(lictor(), &yaml).up();
    caller.await_endpoints("users", 2);
    let load = Load::start(&caller.address("users"), METHODS, RATE);
    load.await_more(50);
    consul.kill();
    let (backend, mut sidecar) = a;
    sidecar.signal(Signal::TERM);
    let is_draining = || {
        let page = caller.page("/endpoints/users");
        let endpoints = page["users"]["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().filter(|endpoint| endpoint["state"] == "draining").count()
    };
    eventually_is("the caller has heard of it", is_draining, |count| *count == 1);
    let hits = backend.hits();
    assert!(sidecar.wait().success());
    load.await_more(100);
    assert!(backend.hits() <= hits + 5, "nobody chose it any more: {} after {hits}", backend.hits());
    load.finish().assert_flawless();
    drop(b);
}

/// Says a head and then this, a piece every 20 ms, so many times.
fn streaming(piece: &'static str, times: usize) -> RawServer {
    RawServer::start(move |mut stream| {
        let head = read_head(&mut stream);
        if head.starts_with("GET /health") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            return;
        }
        let mut is_taken = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .is_ok();
        for _ in 0..times {
            if !is_taken {
                return;
            }
            quiet(Duration::from_millis(20));
            is_taken = stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).is_ok();
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    })
}

/// A sidecar beside it with an inbound listener, and a caller of that.
fn pair(consul: &Consul, server: &RawServer, lifecycle: &str) -> [Sidecar; 2] {
    let yaml = format!(
        "service: users\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\n{}lifecycle: {{{lifecycle}}}\n",
        server.port(),
        consul.url(),
        inbound()
    );
    let callee = Sidecar::serve(lictor(), &yaml).up();
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nlifecycle: {{{lifecycle}}}\nupstreams: {{users: 0}}\n",
        consul.url()
    );
    let caller = Sidecar::serve(lictor(), &yaml).up();
    caller.await_endpoints("users", 1);
    [callee, caller]
}

/// Begins a GET; the connection, once the first piece has come.
fn begun(address: &str) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    let mut piece = [0; 1];
    stream.read_exact(&mut piece).unwrap();
    stream
}

/// Whether it ends as chunked bodies do, and how long it was.
fn rest(mut stream: TcpStream) -> (bool, usize) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    (bytes.ends_with(b"\r\n0\r\n\r\n"), bytes.len())
}

/// Both sidecars are told to stop while a download goes on, which has so many pieces of 20 ms.
pub(crate) fn download_outlives_sigterm(pieces: usize) {
    const PIECE: &str = "0123456789abcdef0123456789abcdef";
    let consul = Consul::dev();
    let server = streaming(PIECE, pieces);
    let [mut callee, mut caller] = pair(&consul, &server, "");
    let stream = begun(&caller.address("users"));
    callee.signal(Signal::TERM);
    caller.signal(Signal::TERM);
    let (is_whole, length) = rest(stream);
    assert!(is_whole && length >= pieces * PIECE.len(), "{length} bytes, whole: {is_whole}");
    assert!(callee.wait().success() && caller.wait().success());
}

#[test]
fn a_download_outlives_the_sigterm_of_both_sidecars() {
    download_outlives_sigterm(150);
}

#[test]
fn an_endless_stream_is_cut_when_the_drain_timeout_is_over_and_not_before() {
    let consul = Consul::dev();
    let server = streaming("data: tick\n\n", usize::MAX);
    let [mut callee, caller] = pair(&consul, &server, "drain_delay: 500ms, drain_timeout: 1s");
    let stream = begun(&caller.address("users"));
    let told = Instant::now();
    callee.signal(Signal::TERM);
    let (is_whole, _) = rest(stream);
    let lasted = told.elapsed();
    assert!(!is_whole, "a stream that was cut does not look whole");
    assert!(callee.wait().success());
    let ended = told.elapsed();
    println!("cut after {lasted:?}, ended after {ended:?}");
    assert!(lasted >= Duration::from_secs(1), "{lasted:?}");
    assert!(ended < Duration::from_secs(4), "{ended:?}");
    let cut = callee.lines("connections were still open at the end of the drain timeout");
    assert_eq!(cut.iter().filter(|line| line["which"] == "Inbound").count(), 1, "{}", callee.log());
}

#[test]
fn a_second_sigterm_ends_streams_and_still_deregisters() {
    let consul = Consul::dev();
    let server = streaming("data: tick\n\n", usize::MAX);
    let [mut callee, caller] = pair(&consul, &server, "");
    let stream = begun(&caller.address("users"));
    callee.signal(Signal::TERM);
    eventually_is("it is leaving", || events(&callee, "stopping"), |count| *count == 1);
    callee.signal(Signal::TERM);
    let told = Instant::now();
    assert!(callee.wait().success());
    let took = told.elapsed();
    println!("second SIGTERM: ended after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!rest(stream).0);
    assert_eq!(consul.json("/v1/agent/services"), json!({}), "it is deregistered all the same");
}

#[test]
fn http1_clients_of_a_leaving_sidecar_are_told_to_close() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let mut sidecar = beside(&consul, &backend, &format!("{}lifecycle: {{drain_delay: 1s}}\n", inbound()));
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    // Something holds the maintenance back, so that it is still asked while it drains.
    consul.pause(true);
    let inbound = sidecar.address("inbound");
    assert_eq!(get(&inbound, "/").unwrap().header("x-lictor-draining"), "");
    sidecar.signal(Signal::TERM);
    let marked = || get(&inbound, "/").map(|answer| answer.header("x-lictor-draining").to_owned()).unwrap_or_default();
    eventually_is("answers are marked", marked, |mark| mark == "1");
    // The listener closes after the delay and, while Consul does not answer, 2 s more; this answer comes later.
    backend.delays(Duration::from_secs(4));
    let mut stream = connect(&inbound);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    assert!(head.contains("200 ok") && head.contains("connection: close"), "{head}");
    assert!(sidecar.wait().success());
    consul.pause(false);
}

#[test]
fn what_a_killed_sidecar_left_in_maintenance_is_ended_by_its_successor() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let first = beside(&consul, &backend, "registration: {id: users-1}\n");
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    assert_eq!(first.post("/drain").status, 200);
    eventually_is("it is out", || consul.passing("users").len(), |count| *count == 0);
    drop(first); // SIGKILL
    assert_eq!(consul.json("/v1/agent/services")["users-1"]["ID"], "users-1", "nobody deregistered it");
    let _second = beside(&consul, &backend, "registration: {id: users-1}\n");
    eventually_is("it is back", || consul.passing("users").len(), |count| *count == 1);
}

/// `lictor run` with a shell as the application of the service `users`.
fn run(consul: &Consul, backend: &Backend, lifecycle: &str, script: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\nlifecycle: {{{lifecycle}}}\n",
        backend.port(),
        consul.url()
    );
    let lictor = Sidecar::start(lictor(), &yaml, &[], &["run"], &["--", "sh", "-c", script]).up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    lictor
}

/// Processes whose parent it is, by state.
fn children(lictor: &Sidecar) -> Vec<String> {
    let pid = lictor.pid().to_string();
    let found = std::process::Command::new("ps").args(["-o", "pid=,stat=", "--ppid", &pid]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn an_application_that_dies_takes_its_registration_with_it_and_gives_its_exit_code() {
    for (script, code) in [("read line < /dev/null; sleep 1; exit 41", 41), ("sleep 1; kill -SEGV $$", 139)] {
        let consul = Consul::dev();
        let backend = Backend::start("a");
        let mut lictor = run(&consul, &backend, "", script);
        assert_eq!(lictor.wait().code(), Some(code), "{}", lictor.log());
        assert_eq!(consul.json("/v1/agent/services"), json!({}), "{script}");
    }
}

#[test]
fn an_application_that_hangs_is_killed_after_its_time() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let mut lictor = run(&consul, &backend, "kill_after: 300ms", "echo child is up; kill -STOP $$");
    eventually_is("the child hangs", || children(&lictor).join("\n"), |states| states.contains('T'));
    let told = Instant::now();
    assert_eq!(lictor.terminate().code(), Some(137));
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    assert_eq!(consul.json("/v1/agent/services"), json!({}));
}

#[test]
fn a_storm_of_orphans_is_reaped() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let script =
        "for i in $(seq 100); do (sleep 0.01 & sleep 0.02 &); done; echo orphaned; while :; do sleep 0.05; done";
    let lictor = run(&consul, &backend, "", script);
    eventually_is("orphans were made", || lictor.log(), |log| log.contains("orphaned"));
    let zombies = || children(&lictor).iter().filter(|line| line.contains('Z')).count();
    let adopted = || children(&lictor).len();
    eventually_is("only the application is left", adopted, |count| *count == 1);
    assert_eq!(zombies(), 0);
}

#[test]
fn an_application_that_leaves_a_daemon_behind_ends_all_the_same() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let mut lictor = run(&consul, &backend, "", "(sleep 300 &); sleep 1; exit 5");
    let began = Instant::now();
    assert_eq!(lictor.wait().code(), Some(5));
    assert!(began.elapsed() < Duration::from_secs(8), "the daemon was not waited for: {:?}", began.elapsed());
}
