//! Which sidecar a command asks: the one that is named, or configured, or, where nobody says, the one that runs here.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use lictor_config::{Environment, Origin};

use crate::configured::Configured;
use crate::neighbours::{Neighbour, neighbours};

/// Of a configuration that says nothing.
const DEFAULT_ADMIN: &str = "127.0.0.1:9901";

/// The one that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whom {
    pub(super) address: SocketAddr,
    /// Who it is and how it was found, where the user has not said it.
    pub(super) told: Option<String>,
}

/// As told; else as `lictor run` told us (we are in its child's container); else as configured; else by who runs here.
pub(super) fn whom(given: Option<SocketAddr>, configured: &Configured) -> anyhow::Result<Whom> {
    let said = |address| Ok(Whom { address, told: None });
    if let Some(address) = given {
        return said(address);
    }
    let env = Environment::process();
    if let Some(url) = env.var("LICTOR_ADDR") {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        return said(address.parse().with_context(|| format!("LICTOR_ADDR is `{url}`, not http://ADDRESS:PORT"))?);
    }
    let mut service = None;
    if let Ok(loaded) = configured.load() {
        let listen = loaded.values.iter().find(|value| value.path == "admin.listen");
        if listen.is_some_and(|value| value.origin != Origin::Default) {
            return said(loaded.config.admin.listen);
        }
        service = loaded.config.service;
    } else if let Some(text) = env.var("LICTOR_ADMIN") {
        // A health check must not depend on the whole file: the sidecar may run on an earlier, good one.
        return said(text.parse().with_context(|| format!("LICTOR_ADMIN is `{text}`, not ADDRESS:PORT"))?);
    }
    let ours = neighbours().unwrap_or_default().into_iter().filter(Neighbour::is_ours).collect::<Vec<_>>();
    by_who_runs(&ours, service.as_deref())
}

/// One of this service; else the one at the default port, which others know; else the only one.
fn by_who_runs(ours: &[Neighbour], service: Option<&str>) -> anyhow::Result<Whom> {
    let default: SocketAddr = DEFAULT_ADMIN.parse().expect("it is an address");
    let same: Vec<&Neighbour> = ours.iter().filter(|it| service.is_some_and(|service| it.serves(service))).collect();
    let found = match (same.as_slice(), ours) {
        ([one], _) => *one,
        _ if ours.iter().any(|it| it.admin == default) => return Ok(of_default(default, ours)),
        (_, []) => return Ok(Whom { address: default, told: None }),
        (_, [one]) => one,
        (_, several) => {
            let names: Vec<String> = several.iter().map(name).collect();
            bail!("several sidecars run here, say which by --admin: {}", names.join("; "))
        }
    };
    Ok(Whom { address: found.admin, told: Some(name(found)) })
}

fn of_default(default: SocketAddr, ours: &[Neighbour]) -> Whom {
    let told = ours.iter().find(|it| it.admin == default).filter(|_| ours.len() > 1).map(name);
    Whom { address: default, told }
}

/// `orders, pid 4711, at http://127.0.0.1:9902`
fn name(of: &Neighbour) -> String {
    let service = if of.service.is_empty() { "a caller without a service" } else { &of.service };
    format!("{service}, pid {}, at http://{}", of.pid, of.admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_of_the_service_is_asked_and_of_several_none_is_guessed() {
        let neighbour =
            |port: u16, service: &str| Neighbour::known(port.into(), ([127, 0, 0, 1], port).into(), service);
        let [first, second, third] = [neighbour(9901, "a"), neighbour(9902, "b"), neighbour(9903, "c")];
        let asked = |ours: &[&Neighbour], service| {
            let ours: Vec<Neighbour> = ours.iter().map(|it| (*it).clone()).collect();
            by_who_runs(&ours, service).map(|whom| (whom.address.port(), whom.told.is_some())).ok()
        };
        assert_eq!(asked(&[], None), Some((9901, false)));
        assert_eq!(asked(&[&first], None), Some((9901, false)));
        assert_eq!(asked(&[&first, &second], Some("b")), Some((9902, true)));
        assert_eq!(asked(&[&first, &second], Some("other")), Some((9901, true)));
        assert_eq!(asked(&[&second], None), Some((9902, true)));
        assert_eq!(asked(&[&second, &third], None), None);
        assert_eq!(asked(&[&second, &third], Some("c")), Some((9903, true)));
    }
}
