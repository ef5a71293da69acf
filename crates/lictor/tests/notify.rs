//! What systemd hears of lictor: real processes, and the socket that systemd would have.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use lictor_testkit::{Sidecar, eventually_is};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
const ALONE: &str = "registration: off\nservice: orders\nupstreams:\n  users: {listen: 0, static: ['127.0.0.1:1']}\n";
/// Its Consul never answers, so egress is up only after a minute.
const WAITING: &str = "registration: off\nconsul: {address: 'http://127.0.0.1:1'}\nupstreams: {users: {listen: 0}}\nlifecycle: {start_timeout: 1m}\n";

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    /// In the abstract namespace, as systemd has it for its user managers.
    fn new(test: &str) -> Self {
        let name = format!("lictor-notify-{}-{test}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a short name"))
            .expect("a free name");
        Self::of(socket, format!("@{name}"))
    }

    /// A file, as the system's manager has it.
    fn file(test: &str) -> (Self, PathBuf) {
        let path = std::env::temp_dir().join(format!("lictor-notify-{}-{test}", std::process::id()));
        (Self::of(UnixDatagram::bind(&path).expect("a free name"), path.display().to_string()), path)
    }

    fn of(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration");
        Self { socket, name }
    }

    /// `lictor` with these variables besides, told of this manager.
    fn start(&self, yaml: &str, env: &[(&str, &str)], command: &[&str], after: &[&str]) -> Sidecar {
        let env = [&[("NOTIFY_SOCKET", self.name.as_str())], env].concat();
        Sidecar::start(LICTOR, yaml, &env, command, after)
    }

    fn hears(&self) -> String {
        let mut message = [0; 512];
        let length = self.socket.recv(&mut message).expect("it is told in time");
        String::from_utf8(message[..length].to_vec()).expect("it is text")
    }

    /// All messages up to one with this assignment, and that.
    fn hears_until(&self, assignment: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|last: &String| says(last, assignment)) {
            heard.push(self.hears());
        }
        heard
    }
}

fn says(message: &str, assignment: &str) -> bool {
    message.lines().any(|line| line == assignment)
}

#[test]
fn ready_is_egress_up_and_reloads_and_the_end_are_told_in_order() {
    let (manager, path) = Manager::file("order");
    let mut lictor = manager.start(ALONE, &[], &["serve"], &[]);
    assert_eq!(manager.hears(), "STATUS=Waiting for the first endpoints");
    assert_eq!(manager.hears(), "READY=1\nSTATUS=Egress is up");
    assert_eq!(lictor.get("admin", "/startup").status, 200);

    let before = clock_gettime(ClockId::Monotonic);
    lictor.signal(Signal::HUP);
    let reloading = manager.hears();
    let (first, at) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    let (asked, began) = (before.tv_sec * 1_000_000 + before.tv_nsec / 1_000, at.parse::<i64>().unwrap());
    assert_eq!(first, "RELOADING=1");
    assert!((asked..asked + 20_000_000).contains(&began), "{began} µs is after the signal at {asked} µs");
    assert_eq!(manager.hears(), "READY=1\nSTATUS=Egress is up");

    lictor.rewrite("nonsense: true\n");
    assert_eq!(lictor.post("/reload").status, 422);
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    assert_eq!(manager.hears(), "READY=1\nSTATUS=Egress is up; the last reload was refused, the log has the reason");

    assert_eq!(lictor.terminate().code(), Some(0));
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=Draining: signal");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn nothing_is_ready_before_the_first_endpoints_are_known() {
    let manager = Manager::new("waiting");
    let mut lictor = manager.start(WAITING, &[], &["serve"], &[]);
    assert_eq!(lictor.get("admin", "/startup").status, 503);
    lictor.signal(Signal::HUP);
    eventually_is("it has reloaded", || lictor.log(), |log| log.contains("config_reloaded"));
    assert_eq!(lictor.terminate().code(), Some(0));
    let heard = manager.hears_until("STOPPING=1");
    assert_eq!(heard, ["STATUS=Waiting for the first endpoints", "STOPPING=1\nSTATUS=Draining: signal"]);
}

#[test]
fn signs_of_life_come_where_they_are_waited_for() {
    let manager = Manager::new("watchdog");
    let mut lictor = manager.start(ALONE, &[("WATCHDOG_USEC", "100000")], &["serve"], &[]);
    manager.hears_until("READY=1");
    let beats = [manager.hears(), manager.hears(), manager.hears()];
    assert_eq!(beats, ["WATCHDOG=1"; 3]);
    assert_eq!(lictor.terminate().code(), Some(0));

    let manager = Manager::new("another");
    let variables = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut lictor = manager.start(ALONE, &variables, &["serve"], &[]);
    manager.hears_until("READY=1");
    assert_eq!(lictor.terminate().code(), Some(0));
    let heard = manager.hears_until("STOPPING=1");
    assert!(!heard.iter().any(|message| says(message, "WATCHDOG=1")), "they are for another process: {heard:?}");
}

#[test]
fn the_application_is_not_told_of_the_service_managers_socket() {
    let manager = Manager::new("child");
    let script = "echo socket=${NOTIFY_SOCKET-none} every=${WATCHDOG_USEC-none} whose=${WATCHDOG_PID-none}; read end";
    let command = ["--", "sh", "-c", script];
    let mut lictor = manager.start(ALONE, &[("WATCHDOG_USEC", "60000000")], &["run"], &command);
    assert_eq!(lictor.wait().code(), Some(1), "`read` is at the end of its input");
    eventually_is("the child has said it", || lictor.log(), |log| log.contains("socket=none every=none whose=none"));
    manager.hears_until("READY=1");
    assert!(says(&manager.hears_until("STOPPING=1").pop().unwrap(), "STATUS=Draining: the application ended"));
}
