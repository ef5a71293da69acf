//! What people meet at a terminal: the log in words, commands and whom they ask, as real processes. No Consul is needed.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{TryRecvError, channel};

use lictor_testkit::{Backend, Sidecar, eventually_is};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
const ALONE: &str = "registration: off\nservice: orders\nupstreams:\n  users: {listen: 0, static: ['127.0.0.1:1']}\n";

fn run(yaml: &str, script: &str) -> Sidecar {
    Sidecar::start(LICTOR, yaml, &[], &["run"], &["--", "sh", "-c", script])
}

fn logged(lictor: &Sidecar, text: &str) {
    eventually_is(&format!("the log has `{text}`"), || lictor.log(), |log| log.contains(text));
}

/// A bash script as the application of a lictor whose standard output is a terminal; it has to end by itself.
fn at_a_terminal(yaml: &str, script: &str, env: &[(&str, &str)]) -> String {
    let folder = lictor_testkit::scratch("terminal");
    let (file, program) = (folder.join("lictor.yaml"), folder.join("app"));
    std::fs::write(&file, yaml).unwrap();
    std::fs::write(&program, script).unwrap();
    let line = format!(
        "{LICTOR} run -c {} --set admin.listen=127.0.0.1:0 -- bash {}",
        file.to_str().unwrap(),
        program.to_str().unwrap()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.env("TERM", "xterm").envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One request through the sidecar.
const CALL: &str = "exec 3<>/dev/tcp/127.0.0.1/$USERS_PORT
printf 'GET /hello?secret=1 HTTP/1.1\\r\\nHost: users\\r\\nX-Request-ID: r-1\\r\\nConnection: close\\r\\n\\r\\n' >&3
cat <&3 >/dev/null; exit 3";

#[test]
fn the_log_is_text_on_a_terminal_and_json_elsewhere() {
    let backend = Backend::start("a");
    let yaml = |log: &str| ALONE.replace("127.0.0.1:1", &format!("127.0.0.1:{}", backend.port())) + log;
    let coloured = at_a_terminal(&yaml(""), CALL, &[]);
    assert!(coloured.contains(" INFO  listening kind=admin address=127.0.0.1:"), "{coloured}");
    assert!(coloured.contains(" GET /hello \u{1b}[32m200\u{1b}[0m users ") && coloured.contains("r-1"), "{coloured}");
    assert!(coloured.contains("\u{1b}[31mERROR\u{1b}[0m the application ended: exit code 3 code=3"), "{coloured}");
    assert!(!coloured.contains("secret") && !coloured.contains("{\""), "{coloured}");
    for env in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = at_a_terminal(&yaml(""), CALL, &[env]);
        assert!(plain.contains(" ERROR the application ended: exit code 3") && !plain.contains('\u{1b}'), "{plain}");
        assert!(plain.contains(" GET /hello 200 users "), "{plain}");
    }
    let json = at_a_terminal(&yaml("log: {format: json}\n"), CALL, &[]);
    let lines: Vec<&str> = json.lines().filter(|line| !line.trim().is_empty()).collect();
    assert!(lines.len() > 3 && lines.iter().all(|line| line.starts_with("{\"")), "{json}");
    let mut piped = run(&yaml(""), "exit 3");
    assert_eq!(piped.wait().code(), Some(3));
    assert!(piped.log().lines().all(|line| line.starts_with("{\"")), "{}", piped.log());
    let mut text = run(&yaml("log: {format: text}\n"), "exit 3");
    assert_eq!(text.wait().code(), Some(3));
    let said = text.log();
    assert!(said.contains("Z ERROR the application ended: exit code 3") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn an_application_that_crashed_is_an_error_with_its_code_or_signal() {
    for (script, level, code, signal, told) in [
        ("exit 3", "ERROR", 3, None, "the application ended: exit code 3"),
        ("kill -SEGV $$", "ERROR", 139, Some("SIGSEGV"), "the application ended: SIGSEGV"),
        ("(kill -KILL $$)", "ERROR", 137, Some("SIGKILL"), "the application ended: SIGKILL; where nobody"),
        ("exit 137", "ERROR", 137, None, "the application ended: exit code 137, as of SIGKILL"),
        ("exit 0", "INFO", 0, None, "the application ended"),
    ] {
        let mut lictor = run(ALONE, script);
        assert_eq!(lictor.wait().code(), Some(code));
        let log = lictor.log();
        let line = log.lines().find(|line| line.contains("application_ended")).unwrap_or_else(|| panic!("{log}"));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["level"].as_str(), line["code"].as_i64()), (Some(level), Some(code.into())), "{script}");
        assert_eq!(line["signal"].as_str(), signal, "{script}");
        assert!(line["message"].as_str().unwrap().starts_with(told), "{line}");
    }
    let again = format!("{ALONE}app: {{restart: {{on_failure: {{delay: 10ms, max: 1}}}}}}\n");
    let mut lictor = run(&again, "kill -ABRT $$");
    assert_eq!(lictor.wait().code(), Some(134));
    logged(&lictor, "the application ended: SIGABRT; it is started again");
}

#[test]
fn a_tap_ends_with_whoever_reads_it() {
    let backend = Backend::start("a");
    let lictor = Sidecar::serve(LICTOR, &ALONE.replace("127.0.0.1:1", &format!("127.0.0.1:{}", backend.port()))).up();
    let mut tap = Command::new(LICTOR)
        .args(["tap", "--admin", &lictor.admin()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(tap.stdout.take().unwrap());
    let mut line = String::new();
    let (stop, stopped) = channel::<()>();
    let users = lictor.address("users");
    // It listens a moment after it has begun, so that the first call may be too early.
    let calls = std::thread::spawn(move || {
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            assert_eq!(lictor_testkit::get(&users, "/hello").unwrap().status, 200);
        }
    });
    reader.read_line(&mut line).unwrap();
    drop(stop);
    calls.join().unwrap();
    assert!(line.contains("/hello"), "{line}");
    drop(reader); // no further request comes
    let output = tap.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A command, and what it says.
fn lictor(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(LICTOR);
    command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    said(command.output().unwrap())
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_order_has_a_command() {
    let mut lictor_here = Sidecar::serve(LICTOR, ALONE).up();
    let admin = lictor_here.admin();
    let order = |words: &[&str]| lictor(&[words, &["--admin", &admin]].concat());
    let ready = |lictor: &Sidecar| lictor.page("/ready")["checks"]["drain"]["status"].clone();
    for (words, told, page) in [
        (&["drain"][..], "is out of circulation", r#""status": "draining""#),
        (&["undrain"], "is back in circulation", r#""status": "serving""#),
        (&["reload"], "has read its configuration again", r#""status": "reloaded""#),
        (&["log-level", "debug"], "logs at level debug", r#""level": "debug""#),
    ] {
        let (code, out, err) = order(words);
        assert!(code == Some(0) && out.contains(&admin) && out.contains(told), "{words:?}: {out}{err}");
        assert_eq!(ready(&lictor_here) == "not_ready", words == ["drain"]);
        let (code, out, err) = order(&[words, &["-o", "json"]].concat());
        assert!(code == Some(0) && out.contains(page), "{words:?}: {out}{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }
    let (code, out, err) = order(&["log-level", "verbose"]);
    assert!(code == Some(1) && out.is_empty() && err.contains("not `verbose`"), "{out}{err}");
    lictor_here.rewrite("upstreams: [\n");
    let (code, _, err) = order(&["reload"]);
    assert!(code == Some(1) && err.contains("lictor.yaml:"), "{err}");
    let (code, out, _) = order(&["quit"]);
    assert!(code == Some(0) && out.contains("stops in order"), "{out}");
    assert_eq!(lictor_here.wait().code(), Some(0));
    let (code, out, err) = order(&["drain"]);
    assert!(code == Some(1) && out.is_empty() && err.contains(&admin) && err.contains("does not answer"), "{err}");
}

#[test]
fn what_is_printed_is_json_where_a_program_asks() {
    let lictor_here = Sidecar::serve(LICTOR, ALONE).up();
    let (admin, file) = (lictor_here.admin(), lictor_here.file());
    let (admin, file) = (admin.as_str(), file.to_str().unwrap());
    for words in [
        &["endpoints", "--admin", admin][..],
        &["explain", "GET", "users", "/", "--admin", admin],
        &["top", "--admin", admin],
        &["eject", "127.0.0.1:1", "--admin", admin],
        &["undo", "127.0.0.1:1", "--admin", admin],
        &["breaker", "auto", "users", "--admin", admin],
        &["routes", "-c", file, "--admin", admin],
        &["diff", file, "--admin", admin],
        &["config", "-c", file],
        &["config", "--origin", "-c", file],
        &["check", "-c", file],
        &["doctor", "-c", file],
        &["hash-key", "--new"],
        &["version"],
    ] {
        for form in [&["-o", "json"][..], &["--output=json"], &["--json"]] {
            let (_, out, err) = lictor(&[words, form].concat());
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{words:?} {form:?}: {out}{err}");
        }
        let (_, text, err) = lictor(&[words, &["-o", "text"]].concat());
        let is_text = words[0] == "top" || !text.is_empty() && !text.starts_with(['{', '[']);
        assert!(is_text, "{words:?}: {text}{err}");
    }
    let (code, _, err) = lictor(&["endpoints", "-o", "yaml"]);
    assert!(code == Some(2) && err.contains("text, json"), "{err}");
}

#[test]
fn a_check_is_of_files_folders_or_standard_input() {
    let folder = lictor_testkit::scratch("check");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("b.yml", "registration: off\nupstreams: {users: {listen: 3001, static: ['127.0.0.1:1']}}\n");
    write("a.yaml", "registration: off\nlog: {format: loud}\n");
    write("c.yaml", ALONE);
    write("c.production.yaml", "log: {level: warn}\n"); // means something over c.yaml only
    write("notes.txt", "no: [yaml\n");
    let path = folder.to_str().unwrap();
    let (code, out, err) = lictor(&["check", path]);
    let verdicts: Vec<&str> = out.lines().map(|line| line.split([':', ',']).next().unwrap()).collect();
    assert_eq!((code, verdicts), (Some(1), vec!["refused", "ok", "ok", "ok"]), "{out}{err}");
    assert!(out.contains("/a.yaml") && out.contains("c.yaml, ") && err.contains("`loud`"), "{out}{err}");
    let (code, out, _) = lictor(&["check", path, "-o", "json"]);
    let page: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, page["good"].as_bool(), page["files"].as_array().unwrap().len()), (Some(1), Some(false), 4));
    let finding = &page["files"][0]["findings"][0];
    assert_eq!((finding["key"].as_str(), finding["line"].as_u64()), (Some("log.format"), Some(2)), "{out}");
    let (code, out, _) = lictor(&["check", &format!("{path}/b.yml"), &format!("{path}/c.yaml")]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    write("empty.yaml", "# soon\n");
    let (code, _, err) = lictor(&["check", &format!("{path}/empty.yaml"), "--set", "registration=off"]);
    assert!(err.contains("empty.yaml is empty: what counts is the environment"), "{code:?} {err}");
    let nothing = folder.join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let (code, _, err) = lictor(&["check", nothing.to_str().unwrap()]);
    assert!(code == Some(1) && err.contains("there is no .yaml"), "{err}");
    for (text, expected) in
        [(ALONE, (Some(0), "ok: orders, 1 upstream, from standard input\n")), ("a: [", (Some(1), ""))]
    {
        let mut command = Command::new(LICTOR);
        command.args(["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let (code, out, err) = said(process.wait_with_output().unwrap());
        assert_eq!((code, out.as_str()), expected, "{err}");
        assert_eq!(err.contains("standard input:"), code == Some(1), "{err}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn help_is_in_groups_with_examples_and_exit_codes() {
    let (code, help, _) = lictor(&["--help"]);
    assert_eq!(code, Some(0));
    for title in ["Run:", "Look:", "Steer:", "Configure:", "Tools:", "Options:"] {
        assert!(help.lines().any(|line| line == title), "{title}: {help}");
    }
    for command in ["check", "drain", "log-level", "run", "tap"] {
        let (code, help, _) = lictor(&[command, "--help"]);
        let has_both = help.contains("Examples:\n  lictor") && help.contains("Exit codes: ");
        assert!(code == Some(0) && has_both, "{command}: {help}");
    }
    let (_, page, _) = lictor(&["man"]);
    let page = page.replace('\\', "");
    assert!(page.contains("log-level") && page.contains("lictor drain"), "no orders in the manual");
}

/// A sidecar with the admin listener that nobody has configured, and where that is.
struct Plain {
    process: Child,
    folder: PathBuf,
    admin: String,
    has_moved: bool,
}

impl Plain {
    fn start(service: &str) -> Self {
        let folder = lictor_testkit::scratch("plain");
        std::fs::write(folder.join("lictor.yaml"), ALONE.replace("orders", service)).unwrap();
        let mut command = Command::new(LICTOR);
        command.arg("serve").current_dir(&folder).env_clear().stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().unwrap();
        let (mut lines, mut has_moved) = (BufReader::new(process.stdout.take().unwrap()).lines(), false);
        let admin = lines.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            has_moved |= line["message"].as_str().is_some_and(|it| it.starts_with("the default admin port is taken"));
            if line["kind"] == "admin" { line["address"].as_str().map(str::to_owned) } else { None }
        });
        std::thread::spawn(move || lines.for_each(drop)); // so that it can go on writing
        Self { process, folder, admin: admin.expect("it listens"), has_moved }
    }

    /// A command where its configuration is.
    fn command(&self, words: &[&str]) -> (Option<i32>, String, String) {
        said(Command::new(LICTOR).args(words).current_dir(&self.folder).env_clear().output().unwrap())
    }

    fn port(&self) -> u16 {
        self.admin.strip_prefix("127.0.0.1:").unwrap().parse().unwrap()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_second_sidecar_takes_the_next_admin_port_and_commands_find_it() {
    let [one, two] = ["one", "two"].map(|name| Plain::start(&format!("{name}-{}", std::process::id())));
    let ports = [one.port(), two.port()];
    assert!(ports[0] != ports[1] && ports.iter().all(|port| (9901..=9920).contains(port)), "{ports:?}");
    assert!(two.has_moved && one.has_moved == (ports[0] != 9901), "{ports:?}");
    for plain in [&one, &two] {
        let (code, out, err) = plain.command(&["endpoints"]);
        assert_eq!(code, Some(0), "{out}{err}");
        let asked = format!("pid {}, at http://{} is asked", plain.process.id(), plain.admin);
        assert!(out.contains("users") && err.contains(&asked), "{out}{err}");
        let (code, _, err) = plain.command(&["wait", "--for", "startup"]);
        assert_eq!(code, Some(0), "{err}");
        let (code, out, err) = plain.command(&["endpoints", "-o", "json"]);
        assert!(code == Some(0) && out.starts_with('{') && err.is_empty(), "{out}{err}");
    }
    let taken = format!("--set=admin.listen={}", two.admin);
    let (code, out, err) = two.command(&["serve", &taken]);
    assert!(
        code == Some(1) && err.contains(&format!("cannot listen on {}", two.admin)),
        "one that is meant: {out}{err}"
    );
}

#[test]
fn who_runs_here_is_listed_while_it_runs() {
    let service = format!("listed-{}", std::process::id());
    let mut lictor_here = Sidecar::serve(LICTOR, &ALONE.replace("orders", &service)).up();
    let pid = lictor_here.pid();
    let listed = || {
        let (code, out, err) = lictor(&["ps", "-o", "json"]);
        assert_eq!(code, Some(0), "{out}{err}");
        let page: serde_json::Value = serde_json::from_str(&out).unwrap();
        page["sidecars"].as_array().unwrap().iter().find(|it| it["pid"] == pid).cloned()
    };
    let found = listed().unwrap();
    assert_eq!(found["service"].as_str(), Some(service.as_str()));
    assert_eq!(found["admin"].as_str().unwrap(), format!("http://{}", lictor_here.admin()));
    assert_eq!((found["upstreams"].as_u64(), found["state"].as_str()), (Some(1), Some("ready")), "{found}");
    assert_eq!(found["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    let (_, text, _) = lictor(&["ps"]);
    let line = text.lines().find(|line| line.contains(&service)).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(&lictor_here.admin()) && line.ends_with("ready"), "{line}");
    let (code, _, _) = lictor(&["drain", "--admin", &lictor_here.admin()]);
    assert_eq!((code, listed().unwrap()["state"].as_str()), (Some(0), Some("leaving")));
    lictor_here.signal(rustix::process::Signal::KILL); // it has no time to say good-bye
    lictor_here.wait();
    assert_eq!(listed(), None);
}

#[test]
fn a_consul_that_does_not_answer_is_told_at_once_with_what_to_do() {
    let waits = "registration: off\nconsul: {address: 'http://127.0.0.1:1'}\nupstreams: {users: {listen: 0}}\nlifecycle: {start_timeout: 1h}\n";
    let lictor = Sidecar::serve(LICTOR, waits);
    logged(&lictor, "consul_awaited");
    let log = lictor.log();
    let line = log.lines().find(|line| line.contains("consul_awaited")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("level"), "WARN");
    assert!(text("consul").contains("127.0.0.1:1") && text("error").contains("refused"), "{line}");
    assert!(text("left").starts_with("1h") || text("left").starts_with("59m"), "{line}");
    assert!(text("message").contains("`lictor doctor`"), "{line}");
}
