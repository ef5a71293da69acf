//! `lictor wait` and `lictor health`: questions to a running sidecar, cheap enough for a health check every second.

use std::convert::Infallible;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use lictor_config::Environment;
use lictor_core::{Secret, plain};
use serde_json::Value as Json;

use crate::cli::output::Output;
use crate::cli::say;
use crate::cli::whom::{Whom, whom};
use crate::configured::Configured;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Consul has to hear of some orders, and may take ten seconds.
const ORDER_WITHIN: Duration = Duration::from_secs(15);
const LARGEST_PAGE: u64 = 64 << 20;
const POLL: Duration = Duration::from_millis(50);

/// Which sidecar.
#[derive(Args, Debug)]
pub(super) struct Running {
    /// The sidecar's admin listener; default: where the configuration puts it.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Its admin.token, where it is on another machine: the token, or file:/path; default: LICTOR_ADMIN_TOKEN, or as configured.
    #[arg(long, value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)))]
    token: Option<Secret>,
    #[command(flatten)]
    pub(super) configured: Configured,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Running {
    pub(super) fn admin(&self) -> anyhow::Result<Admin> {
        let Whom { address, told } = whom(self.admin, &self.configured)?;
        if let Some(told) = told.filter(|_| !self.output.is_json()) {
            say(&format!("lictor: {} is asked", plain::line(&told)));
        }
        Ok(Admin { address, token: self.token(address)? })
    }

    /// That of the configuration goes to other machines only: whoever listens on a port of this one need not know it.
    fn token(&self, address: SocketAddr) -> anyhow::Result<Option<Secret>> {
        let env = Environment::process();
        let given = self.token.clone().or_else(|| env.var("LICTOR_ADMIN_TOKEN").map(Secret::new));
        let Some(given) = given else {
            let is_here = address.ip().is_loopback() || address.ip().is_unspecified();
            return Ok(if is_here { None } else { self.configured.load().ok().and_then(|it| it.config.admin.token) });
        };
        let Some(path) = given.reveal().strip_prefix("file:") else { return Ok(Some(given)) };
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read the token from {path}"))?;
        Ok(Some(Secret::new(token.trim_end())))
    }
}

/// A running sidecar's admin listener, and what opens it to us.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    token: Option<Secret>,
}

impl From<SocketAddr> for Admin {
    fn from(address: SocketAddr) -> Self {
        Self { address, token: None }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

pub(super) fn wait(
    what: &str,
    timeout: &str,
    admin: Option<SocketAddr>,
    configured: &Configured,
) -> anyhow::Result<u8> {
    let timeout = humantime::parse_duration(timeout)
        .with_context(|| format!("--timeout takes a duration such as 30s, not `{timeout}`"))?;
    let until = Instant::now() + timeout;
    let asked = || -> anyhow::Result<()> {
        let admin = whom(admin, configured)?.address; // it may begin only now
        match ask(admin, what).with_context(|| format!("{admin} does not answer"))? {
            200 => Ok(()),
            status => bail!("http://{admin}/{what} answers {status}"),
        }
    };
    loop {
        match asked() {
            Ok(()) => return Ok(0),
            Err(error) if Instant::now() >= until => bail!("not {what} after {timeout:?}: {error:#}"),
            Err(_) => (),
        }
        #[expect(clippy::disallowed_methods, reason = "polling another process from a command without a runtime")]
        std::thread::sleep(POLL);
    }
}

/// Asks `/startup`, never `/ready`: an application that waits for its healthy sidecar would wait for itself.
pub(super) fn health(admin: Option<SocketAddr>, configured: &Configured) -> anyhow::Result<u8> {
    let admin = whom(admin, configured)?.address;
    let status = ask(admin, "startup").with_context(|| format!("{admin} does not answer"))?;
    if status != 200 {
        bail!("egress is not up: http://{admin}/startup answers {status}");
    }
    Ok(0)
}

/// A page of the admin listener.
pub(super) fn page(admin: &Admin, page: &str) -> anyhow::Result<Json> {
    call(admin, "GET", page)
}

/// A page of the admin listener, or what it says to an order; its refusal is the error.
pub(super) fn call(admin: &Admin, method: &str, page: &str) -> anyhow::Result<Json> {
    let (status, json) = answer(admin, method, page)?;
    match status {
        200 | 202 => Ok(json),
        _ if json["message"].is_string() => bail!("{}", json["message"].as_str().unwrap_or_default()),
        status => bail!("http://{admin}/{page} answers {status}"),
    }
}

/// A page whatever its status is; null where it is no JSON.
pub(super) fn answer(admin: &Admin, method: &str, page: &str) -> anyhow::Result<(u16, Json)> {
    let mut answer = Vec::new();
    let stream = send(admin, method, page).with_context(|| {
        format!("the sidecar at {admin} does not answer to {method} http://{admin}/{page}; `lictor ps` lists those that run here")
    })?;
    if method == "POST" {
        stream.set_read_timeout(Some(ORDER_WITHIN))?;
    }
    stream.take(LARGEST_PAGE).read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer is not HTTP")?;
    let json = serde_json::from_str(body);
    Ok((status, if status < 300 { json? } else { json.unwrap_or_default() }))
}

/// Everything but what never needs it, percent-encoded (RFC 3986, section 2.1).
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
        encoded
    })
}

/// The status of one GET, without a runtime.
fn ask(admin: SocketAddr, page: &str) -> anyhow::Result<u16> {
    let mut head = [0; 12];
    send(&admin.into(), "GET", page)?.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head[9..]).ok().and_then(|digits| digits.parse().ok());
    status.context("the answer is not HTTP")
}

/// A connection on which the answer comes.
pub(super) fn send(admin: &Admin, method: &str, page: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&admin.address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let token = admin.token.as_ref();
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let request =
        format!("{method} /{page} HTTP/1.1\r\nHost: {admin}\r\n{token}Connection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answering(head: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn the_status_is_what_counts() {
        assert_eq!(ask(answering("HTTP/1.1 200 OK\r\n\r\n"), "startup").unwrap(), 200);
        assert_eq!(ask(answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "startup").unwrap(), 503);
        assert!(ask(answering("SSH-2.0-OpenSSH_9.2\r\n"), "startup").is_err());
        let not_up = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let error = health(Some(not_up), &Configured::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("egress is not up: http://{not_up}/startup answers 503"));
    }
}
