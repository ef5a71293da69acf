//! This machine: ports, limits, files, time to stop, secrets.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lictor_config::{Config, Environment};
use lictor_consul::{Question, Verdict, probe};
use lictor_core::Address;
use lictor_tls::check as check_tls;
use rustix::process::{Resource, getrlimit};

use super::{Code, Findings, certificates};
use crate::lifecycle::grace;

/// Secrets of tutorials, by the variable that older services read.
const TUTORIAL_SECRETS: [&str; 2] = ["internal-service-secret", "your-secret-key"];
const SECRET_VARIABLES: [&str; 4] = ["INTERNAL_SERVICE_TOKEN", "SERVICE_TOKEN", "JWT_SECRET", "LICTOR_SERVICE_TOKEN"];
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Logs, runtimes, Consul, the admin listener.
const OTHER_FILES: u64 = 64;

pub(super) async fn examine(found: &mut Findings, config: &Config, env: &Environment) {
    ports(found, config).await;
    open_files(found, config);
    tls(found, config);
    time_to_stop(found, config, env);
    secrets(found, config, env);
}

/// A port that our own sidecar has is not in anybody's way.
async fn ports(found: &mut Findings, config: &Config) {
    let admin = config.admin.listen;
    let live = Question::Get("/live".to_owned());
    if admin.port() != 0 && probe(&Address::Tcp(admin), &live, ANSWER_WITHIN).await.verdict == Verdict::Passing {
        let fix = "nothing; ports are not tried while it runs";
        found.add(Code::Running, "admin.listen", format!("a sidecar answers on {admin}"), fix);
        return;
    }
    for (key, address) in listeners(config) {
        let Err(error) = TcpListener::bind(address) else { continue };
        let what = format!("{address}: {error}");
        match error.kind() {
            ErrorKind::AddrInUse => {
                let fix = format!("choose another port; `ss -ltnp sport = :{}` names who has it", address.port());
                found.add(Code::PortInUse, key, what, fix);
            }
            ErrorKind::PermissionDenied => {
                let fix = "use a port from 1024, or give lictor CAP_NET_BIND_SERVICE";
                found.add(Code::PortPrivileged, key, what, fix);
            }
            _ => found.add(Code::CannotListen, key, what, "use an address of this machine"),
        }
    }
}

fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let upstreams = config.upstreams.iter().map(|it| (format!("upstreams.{}.listen", it.name), it.listen.as_ref()));
    let proxy = ("outbound.proxy".to_owned(), config.outbound.proxy.as_ref());
    let inbound = ("inbound.listen".to_owned(), config.inbound.as_ref().map(|inbound| &inbound.listen));
    let gateway = config.gateway.as_ref();
    let listen = ("gateway.listen".to_owned(), gateway.map(|gateway| &gateway.listen));
    let redirect = ("gateway.redirect_http".to_owned(), gateway.and_then(|gateway| gateway.redirect_http.as_ref()));
    let ours = upstreams
        .chain([proxy, inbound, listen, redirect])
        .filter_map(|(key, listen)| Some((key, listen?.address.tcp()?)));
    let admin = [("admin.listen".to_owned(), config.admin.listen)];
    let public = config.admin.public.map(|address| ("admin.public".to_owned(), address));
    ours.chain(admin).chain(public).collect()
}

/// A request in flight has two connections. lictor raises the soft limit itself; the hard one it cannot.
fn open_files(found: &mut Findings, config: &Config) {
    let inbound = config.inbound.as_ref().map(|inbound| inbound.max_in_flight);
    let limits = config.upstreams.iter().map(|upstream| upstream.policy.limits.max_in_flight);
    let wanted = limits.chain(inbound).max().map_or(0, u64::from) * 2 + OTHER_FILES;
    if let Some(hard) = getrlimit(Resource::Nofile).maximum.filter(|hard| *hard < wanted) {
        let what = format!("the hard limit is {hard}, and max_in_flight needs {wanted}");
        found.add(
            Code::OpenFiles,
            "ulimit -Hn",
            what,
            "raise it (LimitNOFILE, ulimits), or lower limits.max_in_flight",
        );
    }
}

fn tls(found: &mut Findings, config: &Config) {
    for (what, result) in
        [("listeners", check_tls(config.server_tls(), [])), ("upstreams", check_tls([], config.client_tls()))]
    {
        if let Err(error) = result {
            found.add(
                Code::TlsUnusable,
                what,
                error.to_string(),
                "name files that lictor can read and that fit together",
            );
        }
    }
    certificates::examine(found, config);
}

fn time_to_stop(found: &mut Findings, config: &Config, env: &Environment) {
    let lifecycle = &config.lifecycle;
    let total = lifecycle.drain_delay + lifecycle.drain_timeout + lifecycle.kill_after;
    let given = env.var("TERMINATION_GRACE").and_then(grace);
    if let Some(given) = given.filter(|given| *given < total) {
        let what =
            format!("drain_delay, drain_timeout and kill_after are {total:?} together, and the grace is {given:?}");
        let fix = "give the orchestrator more time, or drain for less";
        found.add(Code::Grace, "TERMINATION_GRACE", what, fix);
    }
}

fn secrets(found: &mut Findings, config: &Config, env: &Environment) {
    let fix = "make one of your own: openssl rand -hex 32";
    for variable in SECRET_VARIABLES {
        if env.var(variable).is_some_and(|value| TUTORIAL_SECRETS.contains(&value)) {
            found.add(Code::KnownToken, variable, "whoever has read the tutorial has it", fix);
        }
    }
    let mut tokens = config.inbound.iter().flat_map(|inbound| &inbound.tokens);
    if tokens.any(|token| TUTORIAL_SECRETS.contains(&token.reveal())) {
        found.add(Code::KnownToken, "service_token", "whoever has read the tutorial has it", fix);
    }
}
