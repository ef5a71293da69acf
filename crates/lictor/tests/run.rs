//! `lictor run` and the orders to a running sidecar, as real processes; no Consul is needed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lictor_testkit::{Sidecar, eventually_is};
use rustix::process::{Pid, Signal, kill_process};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
const ALONE: &str = "registration: off\nservice: orders\nupstreams:\n  users: {listen: 0, static: ['127.0.0.1:1']}\n";
/// Its Consul never answers, so egress is up only after a minute.
const WAITING: &str = "registration: off\nconsul: {address: 'http://127.0.0.1:1'}\nupstreams: {users: {listen: 0}}\nlifecycle: {start_timeout: 1m}\n";

fn run(yaml: &str, command: &[&str]) -> Sidecar {
    let mut after = vec!["--"];
    after.extend(command);
    Sidecar::start(LICTOR, yaml, &[], &["run"], &after)
}

/// A shell that says when its traps are set.
fn shell(yaml: &str, traps: &str) -> Sidecar {
    let script = format!("{traps}; echo child is up; while :; do sleep 0.02; done");
    let lictor = run(yaml, &["sh", "-c", &script]);
    logged(&lictor, "child is up");
    lictor
}

fn logged(lictor: &Sidecar, text: &str) {
    eventually_is(&format!("the log has `{text}`"), || lictor.log(), |log| log.contains(text));
}

#[test]
fn a_program_that_cannot_start_exits_as_in_a_shell() {
    let mut missing = run(ALONE, &["no-such-program-anywhere"]);
    assert_eq!(missing.wait().code(), Some(127));
    logged(&missing, "cannot start `no-such-program-anywhere`: there is no such program in PATH");
    assert_eq!(run(ALONE, &["/etc/passwd"]).wait().code(), Some(126));
}

#[test]
fn who_was_never_ready_waits_for_nobody_who_goes_on() {
    let edge = "gateway: {listen: '127.0.0.1:0', routes: {/*: users}}\n";
    let cannot_start = format!("{ALONE}{edge}lifecycle: {{drain_delay: 5m}}\n");
    assert_eq!(run(&cannot_start, &["no-such-program-anywhere"]).wait().code(), Some(127));
    let waits = format!("{}{edge}", WAITING.replace("start_timeout: 1m", "start_timeout: 1m, drain_delay: 5m"));
    let mut waiting = run(&waits, &["true"]);
    assert_eq!(waiting.get("admin", "/startup").status, 503);
    assert_eq!(waiting.terminate().code(), Some(143));
}

#[test]
fn the_configuration_may_name_the_application() {
    let yaml = format!("{ALONE}app: {{command: [sh, -c, 'exit 9']}}\n");
    assert_eq!(run(&yaml, &[]).wait().code(), Some(9));
    let mut nothing = run(ALONE, &[]);
    assert_eq!(nothing.wait().code(), Some(1));
    logged(&nothing, "`lictor run` has nothing to run");
}

#[test]
fn a_signal_before_egress_is_up_stops_at_once_and_starts_nothing() {
    let mut lictor = run(WAITING, &["sh", "-c", "echo child is up"]);
    assert_eq!(lictor.get("admin", "/startup").status, 503);
    assert_eq!(lictor.get("admin", "/live").status, 200);
    assert_eq!(lictor.terminate().code(), Some(143), "nobody takes it for the application's success");
    assert!(!lictor.log().contains("child is up"));
}

/// An application that counts its own runs, beside lictor's configuration.
fn counting(yaml: &str, then: &str) -> Sidecar {
    let beside = "runs=$(tr '\\0' '\\n' < /proc/$PPID/cmdline | sed -n 4p).runs";
    let script = format!("{beside}; echo run >> $runs; runs=$(wc -l < $runs); {then}");
    run(yaml, &["sh", "-c", &script])
}

#[test]
fn an_application_that_fails_is_started_again_as_configured() {
    let often = "{on_failure: {delay: 20ms, max: 2}}";
    for (restart, then, runs, code) in [
        ("never", "exit 3", 1, 3),
        ("{on_failure: {delay: 20ms, max: 2}}", "exit 3", 3, 3),
        (often, "kill -9 $$", 3, 137),
        (often, "exit 0", 1, 0),
        (often, "[ $runs -lt 2 ] && exit 7; exit 0", 2, 0),
        ("{on_failure: {delay: 20ms, max: 1}}", "exit $((10 + $runs))", 2, 12),
    ] {
        let mut lictor = counting(&format!("{ALONE}app: {{restart: {restart}}}\n"), then);
        assert_eq!(lictor.wait().code(), Some(code), "{restart}, {then}");
        let told = lictor.log().matches("\"kind\":\"application_restarted\"").count();
        assert_eq!(told + 1, runs, "{restart}, {then}: {}", lictor.log());
    }
}

#[test]
fn nobody_is_sent_to_an_application_that_is_away() {
    let yaml = format!("{ALONE}app: {{restart: {{on_failure: {{delay: 10m}}}}}}\n");
    let mut lictor = counting(&yaml, "exit 3");
    logged(&lictor, "application_ended");
    let ready = lictor.get("admin", "/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("ended with code 3 and is started again"), "{}", ready.text());
    assert_eq!((lictor.get("admin", "/startup").status, lictor.get("admin", "/live").status), (200, 200));
    // A signal for the application meets nobody, and ends nothing.
    lictor.signal(Signal::USR1);
    lictor.signal(Signal::QUIT);
    assert_eq!(lictor.get("admin", "/live").status, 200);
    assert_eq!(lictor.terminate().code(), Some(3), "the code that it ended with");
}

#[test]
fn orphans_of_an_earlier_run_neither_hide_a_later_one_nor_stay() {
    let then = "if [ $runs = 1 ]; then (sleep 0.3 & echo orphan=$!.); exit 7; fi; echo again; sleep 1; exit 4";
    let mut lictor = counting(&format!("{ALONE}app: {{restart: {{on_failure: {{delay: 20ms, max: 1}}}}}}\n"), then);
    logged(&lictor, "again");
    let log = lictor.log();
    let process = format!("/proc/{}", log.split_once("orphan=").unwrap().1.split_once('.').unwrap().0);
    eventually_is("it is no longer there, not even as a zombie", || Path::new(&process).exists(), |is| !is);
    assert_eq!(lictor.wait().code(), Some(4));
}

#[test]
fn an_application_that_is_gone_from_the_disk_counts_as_a_failure() {
    let program = std::env::temp_dir().join(format!("lictor-gone-{}", std::process::id()));
    std::fs::write(&program, "#!/bin/sh\nrm $0\nexit 5\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let yaml = format!("{ALONE}app: {{restart: {{on_failure: {{delay: 20ms, max: 2}}}}}}\n");
    assert_eq!(run(&yaml, &[program.to_str().unwrap()]).wait().code(), Some(127));
}

#[test]
fn an_application_that_was_stopped_before_it_ran_has_not_succeeded() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let mut lictor = run(WAITING, &["true"]);
        assert_eq!(lictor.get("admin", "/startup").status, 503);
        lictor.signal(signal);
        assert_eq!(lictor.wait().code(), Some(code), "{signal:?}");
        let mut alone = Sidecar::serve(LICTOR, WAITING);
        assert_eq!(alone.get("admin", "/startup").status, 503);
        alone.signal(signal);
        assert_eq!(alone.wait().code(), Some(0), "{signal:?} without an application");
    }
    let mut lictor = run(WAITING, &["true"]);
    assert_eq!(lictor.post("/quit").status, 202);
    assert_eq!(lictor.wait().code(), Some(143), "as SIGTERM would");
}

/// By the kernel's own account.
fn ignores(pid: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("Linux has it");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("it is a mask");
    (mask >> (signal.as_raw() - 1)) & 1 == 1
}

/// lictor by way of a shell that does something first and then becomes it.
fn after(first: &str, command: &[&str], rest: &[&str]) -> Sidecar {
    let script = format!("{first}; exec {LICTOR} \"$@\"");
    let mut words = vec!["-c", &script, "sh"];
    words.extend(command);
    Sidecar::start("sh", ALONE, &[], &words, rest)
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let script = "echo app=$$.; while :; do sleep 0.02; done";
    for (ignored, heeded) in [("HUP", ""), ("INT", ""), ("HUP INT QUIT", ""), ("", "HUP")] {
        let first = if ignored.is_empty() { "trap - HUP".to_owned() } else { format!("trap '' {ignored}") };
        let mut lictor = after(&first, &["run"], &["--", "sh", "-c", script]);
        logged(&lictor, "app=");
        let log = lictor.log();
        let app = log.split_once("app=").unwrap().1.split_once('.').unwrap().0.to_owned();
        for (signal, name) in [(Signal::HUP, "HUP"), (Signal::INT, "INT"), (Signal::QUIT, "QUIT")] {
            let is_ignored = ignored.split(' ').any(|word| word == name);
            assert_eq!(ignores(&app, signal), is_ignored, "the application: {name} of `{ignored}`");
            assert_eq!(ignores(&lictor.pid().to_string(), signal), is_ignored, "lictor: {name} of `{ignored}`");
        }
        logged(&lictor, "egress is up"); // which is said later
        assert_eq!(lictor.log().contains("ignored when lictor was started"), !ignored.is_empty());
        if heeded == "HUP" {
            lictor.signal(Signal::HUP);
            logged(&lictor, "config_reloaded");
        }
        assert_eq!(lictor.terminate().code(), Some(143), "it stops in order all the same");
    }
}

#[test]
fn what_a_shell_started_before_it_became_lictor_is_reaped() {
    for (command, rest) in [(&["serve"], &[][..]), (&["run"], &["--", "sh", "-c", "while :; do sleep 0.02; done"])] {
        let lictor = after("sh -c 'sleep 0.1' & echo orphan=$!.", command, rest).up();
        let log = lictor.log();
        let process = format!("/proc/{}", log.split_once("orphan=").unwrap().1.split_once('.').unwrap().0);
        eventually_is("it is no longer there, not even as a zombie", || Path::new(&process).exists(), |is| !is);
    }
}

#[test]
fn an_application_whose_end_nobody_was_to_hear_of_has_its_exit_code() {
    let words = ["--ignore-signal=CHLD", LICTOR, "run"]; // a shell cannot: it needs the signal itself
    let mut lictor = Sidecar::start("env", ALONE, &[], &words, &["--", "sh", "-c", "exit 3"]);
    assert_eq!(lictor.wait().code(), Some(3));
}

#[test]
fn a_standard_output_that_does_not_wait_loses_no_line() {
    let (reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap(); // as Node does with what it shares with us
    let backend = lictor_testkit::Backend::start("a");
    let [admin, users] = lictor_testkit::free_ports();
    let mut lictor = std::process::Command::new(LICTOR)
        .arg("serve")
        .env("LICTOR_REGISTRATION", "off")
        .env("LICTOR_ADMIN", format!("127.0.0.1:{admin}"))
        .env("LICTOR_UPSTREAMS", format!("users:{users}=127.0.0.1:{}", backend.port()))
        .stdout(OwnedFd::from(writer))
        .spawn()
        .unwrap();
    let users = format!("127.0.0.1:{users}");
    eventually_is("it serves", || lictor_testkit::get(&users, "/").is_ok_and(|it| it.status == 200), |is| *is);
    // Nobody reads yet: more than the socket takes, and less than the queue.
    let path = format!("/{}", "x".repeat(2_000));
    for _ in 0..400 {
        assert_eq!(lictor_testkit::get(&users, &path).unwrap().status, 200);
    }
    let reading = std::thread::spawn(move || BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>().unwrap());
    kill_process(Pid::from_child(&lictor), Signal::TERM).unwrap();
    assert!(lictor.wait().unwrap().success());
    let lines = reading.join().unwrap();
    let access = lines.iter().filter(|line| line.contains("xxxx")).count();
    let broken = lines.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
    assert_eq!((access, broken), (400, 0));
}

#[test]
fn a_second_signal_skips_what_is_waited_for() {
    let mut lictor = shell(&format!("{ALONE}lifecycle: {{kill_after: 10m}}\n"), "trap 'echo told to stop' TERM");
    lictor.signal(Signal::TERM);
    logged(&lictor, "told to stop");
    assert_eq!(lictor.terminate().code(), Some(137));
}

#[test]
fn the_orchestrators_signal_after_a_quit_is_no_hurry() {
    let mut lictor = shell(ALONE, "trap 'echo told to stop; sleep 0.3; exit 5' TERM");
    assert_eq!(lictor.post("/quit").status, 202);
    logged(&lictor, "told to stop");
    assert_eq!(lictor.terminate().code(), Some(5));
}

#[test]
fn the_application_hears_the_signals_that_are_not_ours() {
    let traps = "trap 'echo heard usr1' USR1; trap 'echo heard usr2' USR2; trap 'echo heard quit' QUIT; trap 'echo heard hup' HUP; trap 'exit 4' TERM";
    let mut lictor = shell(ALONE, traps);
    for (signal, word) in [(Signal::USR1, "heard usr1"), (Signal::USR2, "heard usr2"), (Signal::QUIT, "heard quit")] {
        lictor.signal(signal);
        logged(&lictor, word);
    }
    lictor.signal(Signal::HUP);
    logged(&lictor, "config_reloaded");
    assert_eq!(lictor.terminate().code(), Some(4));
    assert!(!lictor.log().contains("heard hup"), "SIGHUP is for lictor");
}

#[test]
fn orphans_of_the_application_are_reaped() {
    let lictor = shell(ALONE, "sh -c 'sleep 0.05 & echo orphan=$!.'");
    let log = lictor.log();
    let (_, rest) = log.split_once("orphan=").unwrap();
    let process = format!("/proc/{}", rest.split_once('.').unwrap().0);
    eventually_is("the orphan is no longer there, not even as a zombie", || Path::new(&process).exists(), |is| !is);
}

#[test]
fn a_sidecar_that_is_killed_leaves_its_application_running() {
    let mut lictor = shell(ALONE, "trap 'echo still here' USR1; echo app=$$.");
    let log = lictor.log();
    let (_, rest) = log.split_once("app=").unwrap();
    let app: i32 = rest.split_once('.').unwrap().0.parse().unwrap();
    lictor.signal(Signal::KILL);
    assert_eq!(lictor.wait().code(), None, "a signal ended it");
    kill_process(Pid::from_raw(app).unwrap(), Signal::USR1).unwrap();
    logged(&lictor, "still here");
}

#[test]
fn a_port_that_is_taken_refuses_a_reload_and_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let lictor = Sidecar::serve(LICTOR, ALONE).up();
    let users = lictor.address("users");
    let port = taken.local_addr().unwrap().port();
    lictor.rewrite(&format!("{ALONE}  carts: {{listen: {port}, static: ['127.0.0.1:1']}}\n"));
    let refused = lictor.post("/reload");
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains(&format!("cannot listen on 127.0.0.1:{port} for upstream carts")));
    assert!(lictor.page("/upstreams").get("carts").is_none());
    assert!(TcpStream::connect(users).is_ok(), "the old listener is still open");
    assert!(lictor.metric("lictor_config_last_reload_success", &[]).abs() < 0.1);
}

#[test]
fn a_reload_reads_the_file_of_the_environment_too() {
    let env = [("NODE_ENV", "production"), ("APP_ENV", "not/a/name")];
    let lictor = Sidecar::start(LICTOR, &format!("{ALONE}log: {{access: errors}}\n"), &env, &["serve"], &[]).up();
    logged(&lictor, "APP_ENV is ignored");
    let access = || {
        let value = lictor.page("/config?origin=1")["log.access"].clone();
        (value["value"].as_str().unwrap().to_owned(), value["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(access().0, "errors");
    let production = lictor.path("lictor.production.yaml");
    std::fs::write(&production, "log:\n  access: off\n").unwrap();
    assert_eq!(lictor.post("/reload").status, 200);
    let (value, origin) = access();
    assert_eq!(value, "off");
    assert!(origin.ends_with("lictor.production.yaml:2:11"), "{origin}");
    std::fs::write(&production, "log:\n  access: sometimes\n").unwrap();
    let refused = lictor.post("/reload");
    assert!(refused.status == 422 && refused.text().contains("lictor.production.yaml:2:11"), "{}", refused.text());
    std::fs::remove_file(&production).unwrap();
    assert_eq!(lictor.post("/reload").status, 422, "it was lost, or is being written");
    std::fs::write(&production, "version: 1\n").unwrap();
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(access().0, "errors");
}

#[test]
fn events_are_replayed_and_followed() {
    let lictor = Sidecar::serve(LICTOR, ALONE).up();
    let mut stream = TcpStream::connect(lictor.admin()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the event comes in time"));
    assert!(lines.any(|line| line == "event: started"));
    assert_eq!(lictor.post("/reload").status, 200);
    assert!(lines.any(|line| line == "event: config_reloaded"));
    let data = lines.find(|line| line.starts_with("data: ")).unwrap();
    let event: serde_json::Value = serde_json::from_str(data.trim_start_matches("data: ")).unwrap();
    assert_eq!((event["kind"].as_str(), event["level"].as_str()), (Some("config_reloaded"), Some("INFO")));
}

#[test]
fn a_head_has_the_status_and_no_body() {
    let lictor = Sidecar::serve(LICTOR, ALONE).up();
    let mut stream = TcpStream::connect(lictor.admin()).unwrap();
    stream.write_all(b"HEAD /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}
