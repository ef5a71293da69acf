//! The command line.

use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use lictor_config::{Environment, Loaded, Report, Text, json_schema, load, render};

use crate::boot;

/// Where a configuration is looked for when nobody says.
const USUAL_PLACES: [&str; 4] = ["lictor.yaml", "lictor.yml", "/etc/lictor/lictor.yaml", "/etc/lictor/lictor.yml"];
const DEFAULT_ADMIN: &str = "127.0.0.1:9901";

/// A sidecar proxy for services on Consul.
#[derive(Debug, Parser)]
#[command(name = "lictor", version = version(), about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    Serve(Configured),
    /// Run the sidecar, and an application within it: started when egress is up, stopped last.
    Run {
        #[command(flatten)]
        configured: Configured,
        /// The application ends by itself, and lictor with it (which it does anyway; accepted for clarity).
        #[arg(long)]
        job: bool,
        /// The application's command line.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Wait until a running sidecar is up; for entrypoints.
    Wait {
        /// What for: `startup` (egress works) or `ready`.
        #[arg(long = "for", default_value = "ready", value_parser = ["ready", "startup", "live"])]
        what: String,
        /// For how long.
        #[arg(long, default_value = "30s")]
        timeout: String,
        /// The sidecar's admin listener.
        #[arg(long)]
        admin: Option<SocketAddr>,
    },
    /// Ask a running sidecar whether its egress works; for HEALTHCHECK.
    Health {
        /// The sidecar's admin listener.
        #[arg(long)]
        admin: Option<SocketAddr>,
    },
    /// Check a configuration.
    Check(Configured),
    /// Print the effective configuration.
    Config {
        #[command(flatten)]
        configured: Configured,
        /// With the place that each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print the version.
    Version,
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
pub(crate) struct Configured {
    /// The file; default: LICTOR_CONFIG, ./lictor.yaml, /etc/lictor/lictor.yaml, or the environment alone.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Over everything else: `--set defaults.timeout=5s`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Does what was asked; the number is the exit code.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<u8> {
    match arguments.command {
        Command::Serve(configured) => boot::run(&configured, &[]),
        Command::Run { configured, command, .. } => {
            let loaded = configured.load()?;
            let command = if command.is_empty() { loaded.config.app.command } else { command };
            if command.is_empty() {
                bail!("`lictor run` needs a command: lictor run -- ./app");
            }
            boot::run(&configured, &command)
        }
        Command::Wait { what, timeout, admin } => wait(&what, &timeout, admin),
        Command::Health { admin } => health(admin),
        Command::Check(configured) => check(&configured),
        Command::Config { configured, origin } => {
            print(&render(&configured.load()?.values, origin));
            Ok(0)
        }
        Command::Schema => {
            print(&format!("{:#}\n", json_schema()));
            Ok(0)
        }
        Command::Version => {
            print(&format!("lictor {}\n", version()));
            Ok(0)
        }
    }
}

impl Configured {
    /// Reads and checks it. Mistakes are the error.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        self.read()?.map_err(|report| {
            complain(report.render(is_colourful()).trim_end());
            anyhow::anyhow!("the configuration is not valid")
        })
    }

    /// The same, with the mistakes for the caller.
    pub(crate) fn read(&self) -> anyhow::Result<Result<Loaded, Report>> {
        let env = Environment::process();
        let file = self.file(&env)?;
        let flags = self.set.iter().map(|flag| match flag.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("--set takes KEY=VALUE, not `{flag}`"),
        });
        let flags: Vec<_> = flags.collect::<anyhow::Result<_>>()?;
        Ok(load(file.as_ref(), &env, &flags))
    }

    fn file(&self, env: &Environment) -> anyhow::Result<Option<Text>> {
        let named = self.config.clone().or_else(|| env.var("LICTOR_CONFIG").map(PathBuf::from));
        let usual = || USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
        let Some(path) = named.or_else(usual) else { return Ok(None) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Text { name: shown(&path), text }))
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn check(configured: &Configured) -> anyhow::Result<u8> {
    let loaded = configured.load()?;
    if !loaded.warnings.is_empty() {
        complain(loaded.warnings.render(is_colourful()).trim_end());
    }
    let service = loaded.config.service.as_deref().unwrap_or("a caller without a service");
    print(&format!("ok: {service}, {} upstreams\n", loaded.config.upstreams.len()));
    Ok(0)
}

fn wait(what: &str, timeout: &str, admin: Option<SocketAddr>) -> anyhow::Result<u8> {
    let timeout = humantime::parse_duration(timeout).with_context(|| format!("`{timeout}` is not a duration"))?;
    let admin = admin_address(admin)?;
    let until = Instant::now() + timeout;
    loop {
        let answer = ask(admin, what, Duration::from_secs(2));
        if matches!(answer, Ok(200)) {
            return Ok(0);
        }
        if Instant::now() >= until {
            let last = match answer {
                Ok(status) => format!("/{what} answers {status}"),
                Err(error) => format!("{admin} does not answer: {error}"),
            };
            bail!("not {what} after {timeout:?}; {last}");
        }
        #[expect(clippy::disallowed_methods, reason = "polling another process from a command without a runtime")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn health(admin: Option<SocketAddr>) -> anyhow::Result<u8> {
    let admin = admin_address(admin)?;
    let status = ask(admin, "startup", Duration::from_secs(2)).with_context(|| format!("{admin} does not answer"))?;
    if status != 200 {
        bail!("/startup answers {status}: egress is not up");
    }
    Ok(0)
}

fn admin_address(given: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    if let Some(address) = given {
        return Ok(address);
    }
    let env = Environment::process();
    if let Some(url) = env.var("LICTOR_ADDR") {
        return url
            .trim_start_matches("http://")
            .parse()
            .with_context(|| format!("LICTOR_ADDR `{url}` is not an address"));
    }
    let configured = Configured { config: None, set: Vec::new() };
    match configured.read() {
        Ok(Ok(loaded)) => Ok(loaded.config.admin.listen),
        _ => Ok(DEFAULT_ADMIN.parse().expect("a constant address")),
    }
}

/// The status of one GET, without a runtime: a health check should cost nothing.
fn ask(admin: SocketAddr, page: &str, at_most: Duration) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&admin, at_most)?;
    stream.set_read_timeout(Some(at_most))?;
    stream.set_write_timeout(Some(at_most))?;
    write!(stream, "GET /{page} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head[9..]).ok().and_then(|digits| digits.parse().ok());
    status.context("the answer is not HTTP")
}

/// To standard output, where commands print.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes()); // a closed pipe is the reader's choice
}

/// To standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn is_colourful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The version of this build.
pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
