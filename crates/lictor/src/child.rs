//! The application under `lictor run`: its environment, its end, and everybody else's orphans.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;

use anyhow::Context;
use lictor_config::{Config, Environment};
use lictor_core::mesh::ListenerKind;
use lictor_proxy::Bound;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait};
use tokio::sync::watch;

/// A running application.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    exit: watch::Receiver<Option<u8>>,
}

impl Child {
    /// Starts it. From now on this process reaps whatever ends below it: as PID 1 of a container nobody else does.
    pub(crate) fn start(command: &[String], variables: Vec<(String, String)>) -> anyhow::Result<Self> {
        // Refused only by kernels from before 3.4; then orphans go to the system's init, as they always did.
        let _ = set_child_subreaper(Some(rustix::process::getpid()));
        let (program, arguments) = command.split_first().context("an empty command")?;
        let child = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn()
            .with_context(|| format!("cannot start `{program}`"))?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("the child has no process id")?;
        let (sender, exit) = watch::channel(None);
        thread::Builder::new().name("reaper".to_owned()).spawn(move || reap(pid, &sender))?;
        Ok(Self { pid, exit })
    }

    /// Its exit code, 128 + n for a signal; waits for it.
    pub(crate) async fn exited(&mut self) -> u8 {
        match self.exit.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or_default(),
            Err(_) => 1, // the reaper is gone: nobody knows
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Sends it a signal; a child that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.has_exited() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Waits for every child, ours and adopted ones, until ours has ended and none is left.
fn reap(ours: Pid, exit: &watch::Sender<Option<u8>>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == ours => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(signal).unwrap_or(1);
                exit.send_replace(Some(u8::try_from(code).unwrap_or(1)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(_) => return, // no child is left
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
    let mut variables = vec![("LICTOR_ADDR".to_owned(), format!("http://{admin}"))];
    if env.var("OTEL_SERVICE_NAME").is_none()
        && let Some(service) = &config.service
    {
        variables.push(("OTEL_SERVICE_NAME".to_owned(), service.clone()));
    }
    for listener in bound {
        match &listener.kind {
            ListenerKind::Upstream(name) if config.outbound.export_env => {
                let prefix = variable_name(name);
                let (ip, port) = (reachable(listener.address), listener.address.port());
                variables.push((format!("{prefix}_URL"), format!("http://{}", SocketAddr::new(ip, port))));
                variables.push((format!("{prefix}_HOST"), ip.to_string()));
                variables.push((format!("{prefix}_PORT"), port.to_string()));
            }
            ListenerKind::Forward if config.outbound.export_proxy_env => {
                let url = format!("http://{}", listener.address);
                variables.extend(["HTTP_PROXY", "http_proxy"].map(|name| (name.to_owned(), url.clone())));
                let local = "localhost,127.0.0.1,::1".to_owned();
                variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), local.clone())));
            }
            _ => (),
        }
    }
    variables
}

fn reachable(address: SocketAddr) -> std::net::IpAddr {
    if address.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { address.ip() }
}

/// `user-service` is `USER_SERVICE`.
fn variable_name(upstream: &str) -> String {
    upstream.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_become_variables_that_shells_accept() {
        assert_eq!(variable_name("user-service"), "USER_SERVICE");
        assert_eq!(variable_name("pay.v2"), "PAY_V2");
    }
}
