//! The application under `lictor run`: its environment, its start, its end, and everybody else's orphans.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lictor_config::{Config, Environment, SignalTo, is_withheld};
use lictor_core::Address;
use lictor_core::mesh::{ListenerKind, Protocol};
use lictor_proxy::Bound;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::descendants::Descendants;
use crate::exit::Exit;
use crate::supervisor;

/// How often it is looked whether something of an application is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running application.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    /// With all that it has started.
    descendants: Arc<Descendants>,
}

/// One thread that waits for whatever ends below us, for as long as there is anything: two would take one another's news.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reaper {
    awaited: Arc<Mutex<Awaited>>,
    /// Of every run of the application.
    descendants: Arc<Descendants>,
}

#[derive(Debug, Default)]
struct Awaited {
    /// The application that runs, and where it is told how it ended.
    ours: Option<(Pid, watch::Sender<Option<Exit>>)>,
    is_reaping: bool,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CannotStart {
    /// As a shell would exit: 127 when the program is not there, 126 when it cannot be executed.
    pub(crate) code: u8,
    pub(crate) sentence: String,
}

impl Child {
    /// Starts it. From now on this process reaps whatever ends below it: as PID 1 of a container nobody else does.
    pub(crate) fn start(
        reaper: &Reaper,
        command: &[String],
        variables: Vec<(String, String)>,
        withheld: &[String],
    ) -> Result<Self, CannotStart> {
        // Refused only by kernels from before 3.4; then orphans go to the system's init, as they always did.
        let _ = set_child_subreaper(Some(getpid()));
        let (program, arguments) = command.split_first().expect("the command line is not empty");
        let mut command = Command::new(program);
        for name in supervisor::VARIABLES.into_iter().chain(withheld.iter().map(String::as_str)) {
            command.env_remove(name);
        }
        // Held, so that the reaper does not meet a process that nobody has named yet.
        let mut awaited = reaper.awaited.lock();
        let spawned = command.args(arguments).envs(variables).spawn();
        let child = spawned.map_err(|error| CannotStart::because(program, &error))?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = watch::channel(None);
        awaited.ours = Some((pid, sender));
        if !awaited.is_reaping {
            let reaper = reaper.clone();
            thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper.reap()).map_err(|error| {
                let _ = kill_process(pid, Signal::KILL);
                CannotStart::because("the reaper thread", &error)
            })?;
            awaited.is_reaping = true;
        }
        Ok(Self { pid, exit, descendants: Arc::clone(&reaper.descendants) })
    }

    /// How it ended; waits for it.
    pub(crate) async fn exited(&mut self) -> Exit {
        let unknown = Exit::Code(1); // where the reaper is gone, too
        self.exit.wait_for(Option::is_some).await.map_or(unknown, |exit| exit.unwrap_or(unknown))
    }

    /// Sends it a signal, and all that it has started where that is to end with it.
    pub(crate) fn signal_all(&self, signal: Signal, whom: SignalTo) {
        if whom == SignalTo::Child || !self.descendants.signal(signal) {
            self.signal(signal);
        }
    }

    /// Ready when it has ended, and what is to end with it.
    pub(crate) async fn all_exited(&mut self, whom: SignalTo) -> Exit {
        let exit = self.exited().await;
        while whom == SignalTo::Group && !self.descendants.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await; // of what is not our child nobody tells us
        }
        exit
    }

    /// Sends it a signal; a child that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit.borrow().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Reaps whatever ends below us, where no child of ours is waited for: as PID 1 of a container nobody else does, and what
/// was started before us by a shell that became us is ours too.
pub(crate) fn reap_orphans() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        loop {
            while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(rustix::io::Errno::INTR)) {}
            if ended.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

impl CannotStart {
    fn because(program: &str, error: &io::Error) -> Self {
        let is_path = program.contains('/');
        let reason = match error.kind() {
            io::ErrorKind::NotFound if is_path && Path::new(program).exists() => {
                "it is there, but its interpreter or loader is not (another libc, or a wrong first line)".to_owned()
            }
            io::ErrorKind::NotFound if is_path => "there is no such file".to_owned(),
            io::ErrorKind::NotFound => "there is no such program in PATH".to_owned(),
            io::ErrorKind::PermissionDenied => "it is not executable for this user".to_owned(),
            _ => error.to_string(),
        };
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Self { code, sentence: format!("cannot start `{program}`: {reason}") }
    }
}

impl Reaper {
    /// Waits for every child, ours and adopted ones, until none is left.
    fn reap(&self) {
        loop {
            let ended = wait(WaitOptions::empty());
            let mut awaited = self.awaited.lock();
            match ended {
                Ok(Some((pid, status))) => awaited.ended(pid, status),
                Ok(None) | Err(rustix::io::Errno::INTR) => (),
                // None is left, unless one was started just now.
                Err(_) => match wait(WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) => awaited.ended(pid, status),
                    Ok(None) | Err(rustix::io::Errno::INTR) => (),
                    Err(_) => {
                        awaited.is_reaping = false;
                        return;
                    }
                },
            }
        }
    }
}

impl Awaited {
    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Some((_, exit)) = self.ours.take_if(|(ours, _)| *ours == pid) {
            let code = status.exit_status().map(|code| Exit::Code(u8::try_from(code).unwrap_or(1)));
            let ended = status.terminating_signal().map(Exit::Signal).or(code);
            exit.send_replace(Some(ended.unwrap_or(Exit::Code(1))));
        }
    }
}

/// What the application is told about its sidecar.
pub(crate) fn variables(
    config: &Config,
    bound: &[Bound],
    admin: SocketAddr,
    env: &Environment,
) -> Vec<(String, String)> {
    let mut variables = vec![("LICTOR_ADDR".to_owned(), format!("http://{}", reachable(admin)))];
    if let Some(token) = config.building_blocks.token.as_ref().filter(|_| config.building_blocks.is_on()) {
        variables.push(("LICTOR_TOKEN".to_owned(), token.reveal().to_owned()));
    }
    if env.var("OTEL_SERVICE_NAME").is_none()
        && let Some(service) = &config.service
    {
        variables.push(("OTEL_SERVICE_NAME".to_owned(), service.clone()));
    }
    let mut taken = HashSet::new();
    for listener in bound {
        match &listener.kind {
            ListenerKind::Upstream(name) if config.outbound.export_env => {
                let Some(upstream) = config.upstreams.iter().find(|upstream| *upstream.name == **name) else {
                    continue;
                };
                let prefix = upstream.variable();
                if !taken.insert(prefix.clone()) {
                    continue; // the first has them; `lictor check` tells
                }
                let address = match &listener.address {
                    Address::Tcp(address) => reachable(*address),
                    Address::Unix(path) => {
                        variables.push((format!("{prefix}_SOCKET"), path.display().to_string()));
                        continue;
                    }
                };
                let scheme = match upstream.protocol {
                    Some(Protocol::Tcp) => "tcp",
                    _ if listener.is_tls => "https",
                    _ => "http",
                };
                variables.push((format!("{prefix}_URL"), format!("{scheme}://{address}")));
                variables.push((format!("{prefix}_HOST"), address.ip().to_string()));
                variables.push((format!("{prefix}_PORT"), address.port().to_string()));
            }
            ListenerKind::Forward if config.outbound.export_proxy_env => {
                let Some(address) = listener.address.tcp() else { continue };
                let url = format!("{}://{}", if listener.is_tls { "https" } else { "http" }, reachable(address));
                variables.extend(["HTTP_PROXY", "http_proxy"].map(|name| (name.to_owned(), url.clone())));
                let direct = without_proxy(env);
                variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), direct.clone())));
            }
            // The application is told of those alone that it is to use.
            ListenerKind::Upstream(_)
            | ListenerKind::Forward
            | ListenerKind::Inbound
            | ListenerKind::Gateway
            | ListenerKind::Redirect => (),
        }
    }
    variables
}

/// What of our environment is not for the application.
pub(crate) fn withheld(config: &Config, env: &Environment) -> Vec<String> {
    env.vars.keys().filter(|name| is_withheld(name) && !config.app.inherit.contains(name)).cloned().collect()
}

/// This machine is not called through the proxy, nor is whatever was excepted already.
fn without_proxy(env: &Environment) -> String {
    let local = "localhost,127.0.0.1,::1";
    match env.var("NO_PROXY").or_else(|| env.var("no_proxy")) {
        Some(known) if !known.is_empty() => format!("{known},{local}"),
        _ => local.to_owned(),
    }
}

/// What a program on this machine dials: what listens on all addresses is there at loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_listens_everywhere_is_dialled_here() {
        for (listens, at) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), at.parse().unwrap());
        }
    }

    fn told(yaml: &str, env: &[(&str, &str)]) -> BTreeMap<String, String> {
        let vars = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let env = Environment { vars, hostname: "host".to_owned() };
        let file = lictor_config::Text { name: "test.yaml".to_owned(), text: yaml.to_owned() };
        let config = lictor_config::load(Some(&file), &env, &[]).unwrap().config;
        let bound = |kind, address: &str, is_tls| Bound { kind, address: address.parse().unwrap(), is_tls };
        let upstream = |name: &str| ListenerKind::Upstream(name.into());
        let bound = [
            bound(upstream("user-service"), "127.0.0.1:3001", false),
            bound(upstream("pay.v2"), "0.0.0.0:3002", true),
            bound(upstream("db"), "127.0.0.1:3306", false),
            bound(upstream("user_service"), "127.0.0.1:3009", false),
            bound(upstream("carts"), "unix:/run/carts.sock", false),
            bound(ListenerKind::Forward, "127.0.0.1:15001", false),
        ];
        variables(&config, &bound, "0.0.0.0:9901".parse().unwrap(), &env).into_iter().collect()
    }

    const YAML: &str = "registration: off\nservice: orders\nupstreams:\n  user-service: {listen: 3001, static: ['a:1']}\n  db: {protocol: tcp}\n  pay.v2: {}\n  carts: {}\n  user_service: 3009\n";

    #[test]
    fn the_application_is_told_where_its_upstreams_are() {
        let told = told(YAML, &[]);
        assert_eq!(told["USER_SERVICE_URL"], "http://127.0.0.1:3001");
        assert_eq!((told["USER_SERVICE_HOST"].as_str(), told["USER_SERVICE_PORT"].as_str()), ("127.0.0.1", "3001"));
        assert_eq!(told["PAY_V2_URL"], "https://127.0.0.1:3002");
        assert_eq!(told["DB_URL"], "tcp://127.0.0.1:3306");
        assert_eq!(told["CARTS_SOCKET"], "/run/carts.sock");
        assert!(!told.contains_key("CARTS_URL"));
        assert_eq!(
            (told["LICTOR_ADDR"].as_str(), told["OTEL_SERVICE_NAME"].as_str()),
            ("http://127.0.0.1:9901", "orders")
        );
        assert!(!told.contains_key("HTTP_PROXY"), "only when it is asked for");
    }

    #[test]
    fn a_proxy_is_told_when_asked_for_and_what_was_set_stays() {
        let yaml = format!("{YAML}outbound: {{proxy: 15001, proxy_env: true, env: false}}\n");
        let told = told(&yaml, &[("NO_PROXY", ".corp"), ("OTEL_SERVICE_NAME", "mine")]);
        assert_eq!(
            (told["HTTP_PROXY"].as_str(), told["http_proxy"].as_str()),
            ("http://127.0.0.1:15001", "http://127.0.0.1:15001")
        );
        assert_eq!(told["no_proxy"], ".corp,localhost,127.0.0.1,::1");
        assert!(!told.contains_key("OTEL_SERVICE_NAME") && !told.contains_key("USER_SERVICE_URL"));
    }

    #[test]
    fn the_token_of_building_blocks_is_told_where_one_is_on() {
        let blocks = |on: &str| {
            let yaml = format!("{YAML}building_blocks: {{{on}token: 0123456789abcdef}}\n");
            told(&yaml, &[]).get("LICTOR_TOKEN").cloned()
        };
        assert_eq!(blocks("locks: true, ").as_deref(), Some("0123456789abcdef"));
        assert_eq!(blocks(""), None);
    }

    #[test]
    fn a_program_that_cannot_start_exits_as_in_a_shell() {
        let refused =
            |program: &str| Child::start(&Reaper::default(), &[program.to_owned()], Vec::new(), &[]).unwrap_err();
        let missing = refused("no-such-program-anywhere");
        assert_eq!(missing.code, 127);
        assert_eq!(missing.sentence, "cannot start `no-such-program-anywhere`: there is no such program in PATH");
        assert_eq!(refused("/no/such/file").sentence, "cannot start `/no/such/file`: there is no such file");
        assert_eq!(refused("/etc/passwd").code, 126);
    }
}
