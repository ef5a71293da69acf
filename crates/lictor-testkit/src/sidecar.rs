//! lictor itself, as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value as Json;

use crate::client::{self, Answer};
use crate::{eventually, root, scratch};

/// The binary, for tests outside its own package: cargo does not tell them where it is. `LICTOR_BIN` is another one;
/// otherwise it is made first, if it is not up to date, with the tests' own profile.
pub fn lictor() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Ok(binary) = std::env::var("LICTOR_BIN") {
            return binary;
        }
        let test = std::env::current_exe().expect("a test is a file");
        let folder = test.parent().and_then(Path::parent).expect("a test is in target/PROFILE/deps").to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "lictor", "--bin", "lictor"]).current_dir(root());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "lictor is built");
        folder.join("lictor").to_str().expect("paths here are UTF-8").to_owned()
    })
}

/// A running lictor. When a test fails its log is shown.
#[derive(Debug)]
pub struct Sidecar {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Sidecar {
    /// `lictor serve` with this configuration; the admin listener is where the kernel puts it.
    pub fn serve(binary: &str, yaml: &str) -> Self {
        Self::start(binary, yaml, &[], &["serve"], &[])
    }

    /// The same with further variables, any command, and arguments after `-c FILE`.
    pub fn start(binary: &str, yaml: &str, env: &[(&str, &str)], command: &[&str], after: &[&str]) -> Self {
        let folder = scratch("lictor");
        let file = folder.join("lictor.yaml");
        std::fs::write(&file, yaml).expect("the folder can be written");
        let mut process = Command::new(binary)
            .args(command)
            .arg("-c")
            .arg(&file)
            .args(["--set", "admin.listen=127.0.0.1:0"])
            .args(after)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("lictor starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = process.stdout.take().expect("piped");
        let err = process.stderr.take().expect("piped");
        collect(out, Arc::clone(&lines));
        collect(err, Arc::clone(&lines));
        Self { process, lines, folder }
    }

    /// Waits until egress is up.
    #[must_use]
    pub fn up(self) -> Self {
        eventually("egress is up", || {
            let answer = client::get(&self.admin(), "/startup").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        });
        self
    }

    /// Where a listener is: `admin`, `public`, `forward`, `inbound`, or an upstream's name.
    pub fn address(&self, name: &str) -> String {
        let found = eventually(&format!("{name} listens"), || self.listener(name).ok_or_else(|| self.log()));
        let Ok(found) = found.parse::<SocketAddr>() else { return found };
        let ip = if found.ip().is_unspecified() { [127, 0, 0, 1].into() } else { found.ip() };
        SocketAddr::new(ip, found.port()).to_string()
    }

    /// The admin listener.
    pub fn admin(&self) -> String {
        self.address("admin")
    }

    /// A page of the admin listener as JSON.
    pub fn page(&self, path: &str) -> Json {
        let answer = client::get(&self.admin(), path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()))
    }

    /// An order to the admin listener.
    pub fn post(&self, path: &str) -> Answer {
        client::request(&self.admin(), "POST", path, &[], b"").expect("the admin listener answers")
    }

    /// A GET to one of its listeners.
    pub fn get(&self, listener: &str, path: &str) -> Answer {
        client::get(&self.address(listener), path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// The sum of a metric's samples whose labels include all of these.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = client::get(&self.admin(), "/metrics").expect("the admin listener answers").text();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\""))))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// How many endpoints of an upstream may be picked.
    pub fn endpoints(&self, upstream: &str) -> usize {
        self.page(&format!("/endpoints/{upstream}"))[upstream]["endpoints"].as_array().map_or(0, Vec::len)
    }

    /// Waits until it is so many.
    pub fn await_endpoints(&self, upstream: &str, count: usize) {
        crate::eventually_is(
            &format!("{upstream} has {count} endpoints"),
            || self.endpoints(upstream),
            |seen| *seen == count,
        );
    }

    /// Changes the configuration file; a reload is another matter.
    pub fn rewrite(&self, yaml: &str) {
        std::fs::write(self.file(), yaml).expect("the folder can be written");
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        Path::new(&self.folder).join("lictor.yaml")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("lictor ends", || match self.process.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}\n{}", self.log())),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A file in its own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lines of its log with this message, as they come.
    pub fn lines(&self, message: &str) -> Vec<Json> {
        let lines = self.lines.lock();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    }

    /// Everything that it wrote.
    pub fn log(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    }

    fn listener(&self, name: &str) -> Option<String> {
        let lines = self.lines.lock();
        let listening = lines.iter().rev().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        let mut listening = listening.filter(|line| line["message"] == "listening");
        let found = listening.find(|line| line["name"] == name || (line["name"].is_null() && line["kind"] == name))?;
        found["address"].as_str().map(str::to_owned)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Its child, and its child's children, are in its group.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
        if std::thread::panicking() {
            let lines = self.lines.lock();
            let own = lines.iter().map(String::as_str).filter(|line| !line.contains("lictor::access"));
            let last = lines.iter().map(String::as_str).rev().take(5);
            let shown: Vec<&str> = own.chain(["..."]).chain(last).collect();
            eprintln!("--- lictor's log\n{}\n---", shown.join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn collect(out: impl std::io::Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            lines.lock().push(line);
        }
    });
}
