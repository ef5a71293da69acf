//! The command line: one small module a command. [`boot`] does what is not small.

mod check;
mod completions;
mod diff;
mod doctor;
mod events;
mod explain;
mod graph;
mod hash_key;
mod help;
mod init;
mod kv;
mod maintenance;
mod man;
mod orders;
mod output;
mod probe;
mod ps;
mod reader;
mod routes;
mod steer;
mod tap;
mod top;
mod whom;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use lictor_config::{Effective, Report, json_schema, render};
use lictor_core::plain;
use serde_json::{Value as Json, json};

use crate::cli::help::with_help;
use crate::cli::orders::Order;
use crate::cli::output::Output;
use crate::configured::Configured;
use crate::followed::Start;
use crate::term::Paint;
use crate::{boot, version};

/// A sidecar proxy for services on Consul.
#[derive(Debug, Parser)]
#[command(name = "lictor", version = version::FULL, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    Serve(Configured),
    /// Run the sidecar, and an application within it: started when egress is up, stopped before egress goes.
    Run {
        #[command(flatten)]
        configured: Configured,
        /// The application ends by itself, and lictor with it (which it does anyway; accepted for clarity).
        #[arg(long)]
        job: bool,
        /// The application's command line; default: `app.command` of the configuration.
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
        /// The sidecar's admin listener; default: where the configuration puts it.
        #[arg(long)]
        admin: Option<SocketAddr>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Ask a running sidecar whether its egress works; for HEALTHCHECK.
    Health {
        /// The sidecar's admin listener; default: where the configuration puts it.
        #[arg(long)]
        admin: Option<SocketAddr>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Check a configuration.
    Check {
        /// Files, folders (each .yaml and .yml in them), or - for standard input; default: the one that would be used.
        #[arg(value_name = "FILE | FOLDER | -", conflicts_with_all = ["config", "live"])]
        paths: Vec<PathBuf>,
        /// Against Consul and this machine too, as `lictor doctor` does.
        #[arg(long)]
        live: bool,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        configured: Configured,
    },
    /// Look for what would go wrong with this configuration, this Consul and this machine. Changes nothing.
    Doctor {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        configured: Configured,
    },
    /// Print the effective configuration.
    Config {
        #[command(flatten)]
        configured: Configured,
        /// With the place that each value comes from.
        #[arg(long)]
        origin: bool,
        /// Only what differs, and from what: `kv` is what KV says now, over the rest.
        #[arg(long, value_parser = ["kv"], conflicts_with = "origin")]
        diff: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Print what another file would change on the running sidecar, or, when none answers, in the configuration.
    Diff {
        /// The other file.
        file: PathBuf,
        #[command(flatten)]
        running: probe::Running,
    },
    /// Tell the story of a request, by its id, or what would become of one: `explain GET user-service /users/1`.
    Explain(explain::Explain),
    /// Print the endpoints of a running sidecar's upstreams, and how they are doing.
    Endpoints {
        /// Only of this upstream.
        upstream: Option<String>,
        #[command(flatten)]
        running: probe::Running,
    },
    /// Print what has changed on a running sidecar: endpoints, breakers, its configuration, Consul.
    Events(events::Events),
    /// Print requests as they end.
    Tap(tap::Tap),
    /// Show a running sidecar live: upstreams, endpoints, failures.
    Top(top::Top),
    /// List the sidecars that run on this machine.
    Ps {
        #[command(flatten)]
        output: Output,
    },
    /// Send nothing to an endpoint, for a time.
    Eject(steer::Endpoint),
    /// Send everything to an endpoint, for a time.
    Pin(steer::Endpoint),
    /// Take an order about an endpoint back, and readmit it if it was ejected for its failures.
    Undo(steer::Endpoint),
    /// Open or close an upstream's circuit breaker, for a time.
    Breaker(steer::Breaker),
    /// Publish a file as the configuration in KV that every instance of the service reads, and print what it changes.
    Push {
        /// The file.
        file: PathBuf,
        /// The ModifyIndex of the value that the file was made from, 0 for none; default: that of the value there is now.
        #[arg(long)]
        index: Option<u64>,
        /// Replace whatever is there.
        #[arg(long, conflicts_with = "index")]
        force: bool,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        configured: Configured,
    },
    /// Write a configuration from what there is: the environment, a compose file, or a service in Consul.
    Init {
        #[command(flatten)]
        look: init::Look,
        /// The file.
        #[arg(short, long, default_value = "lictor.yaml")]
        output: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
        /// Print it instead.
        #[arg(long, conflicts_with = "force")]
        stdout: bool,
    },
    /// Print who calls whom, as the sidecars say in Consul.
    Graph {
        /// For Graphviz: `lictor graph --dot | dot -Tsvg`.
        #[arg(long, conflicts_with_all = ["json", "output"])]
        dot: bool,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        configured: Configured,
    },
    /// Print the gateway's routes, in the order in which they are asked; with `gateway.from_consul` those of the running one.
    Routes(probe::Running),
    /// Leave circulation: not ready, and in maintenance in Consul. Requests that come are served.
    Drain(probe::Running),
    /// Come back into circulation.
    Undrain(probe::Running),
    /// Have a running sidecar read its configuration again: all of it, or nothing.
    Reload(probe::Running),
    /// Change what a running sidecar logs, until it is reloaded or started again.
    LogLevel {
        /// error, warn, info, debug, trace, off, or levels by where lines come from: `info,lictor_consul=debug`.
        level: String,
        #[command(flatten)]
        running: probe::Running,
    },
    /// Stop a running sidecar in order, as by SIGTERM.
    Quit(probe::Running),
    /// Put the gateway, or a route of it, into maintenance, or end that.
    Maintenance(maintenance::Maintenance),
    /// Print the hash of an API key, for `gateway.auth.keys`; the key is read from standard input.
    HashKey {
        /// Draw a key, and print it before its hash.
        #[arg(long)]
        new: bool,
        /// The argon2id hash of a password instead, for `gateway.auth.basic`.
        #[arg(long, conflicts_with = "new")]
        password: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print what a shell needs to complete lictor's command line.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// Print the version.
    Version {
        #[command(flatten)]
        output: Output,
    },
}

impl Arguments {
    /// Of this process; ends it where they make no sense, or ask for help.
    pub(crate) fn of_process() -> Self {
        let matches = with_help(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Does what was asked; the number is the exit code.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<u8> {
    match arguments.command {
        Command::Serve(configured) => boot::run(Start::read(configured)?, &[]),
        Command::Run { configured, command, .. } => {
            let start = Start::read(configured)?;
            let command = if command.is_empty() { start.loaded.config.app.command.clone() } else { command };
            if command.is_empty() {
                bail!("`lictor run` has nothing to run: say `lictor run -- ./app`, or set app.command");
            }
            boot::run(start, &command)
        }
        Command::Wait { what, timeout, admin, configured } => probe::wait(&what, &timeout, admin, &configured),
        Command::Health { admin, configured } => probe::health(admin, &configured),
        Command::Check { live: true, output, configured, .. } | Command::Doctor { output, configured } => {
            doctor::doctor(output, &configured)
        }
        Command::Check { paths, output, configured, .. } => check::check(&paths, output, &configured),
        Command::Config { configured, diff: Some(_), output, .. } => kv::diff(output, &configured),
        Command::Config { configured, origin, output, .. } => {
            let values = configured.load()?.values;
            output.print(&values_page(&values, origin), |_| render(&values, origin));
            Ok(0)
        }
        Command::Diff { file, running } => diff::diff(&file, &running),
        Command::Explain(asked) => explain::explain(&asked),
        Command::Endpoints { upstream, running } => steer::endpoints(upstream.as_deref(), &running),
        Command::Events(asked) => events::events(&asked),
        Command::Tap(asked) => tap::tap(&asked),
        Command::Top(asked) => top::top(&asked),
        Command::Ps { output } => ps::ps(output),
        Command::Eject(asked) => steer::order("eject", &asked),
        Command::Pin(asked) => steer::order("pin", &asked),
        Command::Undo(asked) => steer::order("undo", &asked),
        Command::Breaker(asked) => steer::breaker(&asked),
        Command::Push { file, index, force, output, configured } => kv::push(&file, index, force, output, &configured),
        Command::Init { look, output, force, stdout } => init::init(&look, (!stdout).then_some(&output), force),
        Command::Graph { dot, output, configured } => graph::graph(dot, output, &configured),
        Command::Routes(running) => routes::routes(&running),
        Command::Maintenance(asked) => maintenance::maintenance(&asked),
        Command::Drain(running) => orders::order(Order::Drain, &running),
        Command::Undrain(running) => orders::order(Order::Undrain, &running),
        Command::Reload(running) => orders::order(Order::Reload, &running),
        Command::LogLevel { level, running } => orders::order(Order::LogLevel(&level), &running),
        Command::Quit(running) => orders::order(Order::Quit, &running),
        Command::HashKey { password: true, output, .. } => hash_key::hash_password(output),
        Command::HashKey { new, output, .. } => hash_key::hash_key(new, output),
        Command::Schema => {
            print(&format!("{:#}\n", json_schema()));
            Ok(0)
        }
        Command::Completions { shell } => {
            print(&completions::completions(with_help(Arguments::command()), shell));
            Ok(0)
        }
        Command::Man => {
            let mut command = with_help(Arguments::command());
            command.build(); // names of values are only there then
            print(&man::man(&command));
            Ok(0)
        }
        Command::Version { output } => {
            let page = json!({ "version": version::NUMBER, "commit": version::COMMIT });
            output.print(&page, |_| format!("lictor {}\n", version::FULL));
            Ok(0)
        }
    }
}

/// Values by their keys, as `/config` of the admin listener has them.
fn values_page(values: &[Effective], with_origin: bool) -> Json {
    let told = |value: &Effective| {
        if with_origin {
            json!({ "value": value.value, "origin": value.origin.to_string() })
        } else {
            json!(value.value)
        }
    };
    let page = values.iter().map(|value| (value.path.clone(), told(value)));
    Json::Object(page.collect())
}

/// To standard output, where commands print. Nothing gets to a terminal that does more than be seen, but our own colours.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(plain::painted(text).as_bytes()); // a closed pipe is the reader's choice
}

/// Says to standard error why it failed. Mistakes in a configuration speak for themselves.
pub(crate) fn complain(error: &anyhow::Error) {
    let text = match error.downcast_ref::<Report>() {
        Some(report) => render_report(report),
        None => format!("lictor: {}", plain::line(&format!("{error:#}"))),
    };
    say(&text);
}

/// To standard error.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn render_report(report: &Report) -> String {
    report.render(Paint::stderr().is_on()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_applications() {
        let words = ["lictor", "run", "--job", "-c", "a.yaml", "--", "./app", "--set", "x=y", "-c"];
        let Command::Run { configured, job, command } = Arguments::parse_from(words).command else {
            panic!("not `run`");
        };
        assert!(job);
        assert_eq!(configured.config.as_deref(), Some("a.yaml".as_ref()));
        assert_eq!(command, ["./app", "--set", "x=y", "-c"]);
    }

    #[test]
    fn wait_is_for_ready_and_half_a_minute() {
        let Command::Wait { what, timeout, admin, .. } = Arguments::parse_from(["lictor", "wait"]).command else {
            panic!("not `wait`");
        };
        assert_eq!((what.as_str(), timeout.as_str(), admin), ("ready", "30s", None));
        assert!(Arguments::try_parse_from(["lictor", "wait", "--for", "lunch"]).is_err());
    }
}
