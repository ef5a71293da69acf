//! Which upstream is meant. Nothing that a client sends chooses an address: a name must be an upstream's or on the
//! allow-list, an address must be one of their endpoints'.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{Request, Uri, Version};
use lictor_core::deadline::{End, sooner};
use lictor_core::mesh::ListenerKind;
use lictor_core::{Address, Failure, Reason};

use super::routed::Routed;
use crate::clock::{self, Stage};
use crate::stores::millis::Millis;
use crate::world::client::Connection;
use crate::world::generation;
use crate::world::view::{UpstreamState, View};
use crate::world::worker::Worker;

/// An upstream, and its one endpoint that will do, if an address was named.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) upstream: Rc<UpstreamState>,
    pub(crate) only: Option<Address>,
    /// Whoever asks is our own application, or is known to our service, by the token or by a certificate; or a gateway of ours speaks for
    /// him.
    pub(crate) is_peer: bool,
}

/// When the time of a request ends; it depends on the upstream, once that is known.
pub(crate) type Ends<'a> = &'a dyn Fn(Option<&UpstreamState>) -> Option<End>;

/// The upstream that a request is for, as its listener has it.
pub(crate) async fn target<B>(
    client: &Connection,
    view: &View,
    request: &Request<B>,
    routed: Option<&Routed>,
    ends: Ends<'_>,
) -> Result<Target, Failure> {
    let target = match client.kind() {
        ListenerKind::Upstream(name) => whole(&client.worker, view, name, ends).await?,
        ListenerKind::Forward => named(&client.worker, view, request, ends).await?,
        ListenerKind::Inbound => ours(client, view)?,
        ListenerKind::Gateway | ListenerKind::Redirect => {
            let routed = routed.ok_or_else(generation::gone)?;
            // What a client said of who he is has been taken off; what is there by now, the gateway says.
            whole(&client.worker, view, &routed.upstream, ends).await?
        }
    };
    scheme(client, &target.upstream, request)?;
    Ok(target)
}

/// Refuses a URL of another scheme than `http`, and one of `https` that would go on in the clear (RFC 9110, section 4.2.2).
/// A server's HTTP/2 clients say `https` of their own connection, which may have had its TLS taken off before it came here.
fn scheme<B>(client: &Connection, upstream: &UpstreamState, request: &Request<B>) -> Result<(), Failure> {
    let is_servers = !matches!(client.kind(), ListenerKind::Forward);
    let is_secure = upstream.upstream.tls.is_some()
        || (is_servers && (client.is_encrypted || request.version() == Version::HTTP_2));
    let sentence = match request.uri().scheme_str() {
        None | Some("http") => return Ok(()),
        Some("https") if is_secure => return Ok(()),
        Some("https") => format!(
            "{} is not called with TLS, so that https:// would go on in the clear: ask for http://, or by CONNECT",
            upstream.upstream.name
        ),
        Some(other) => format!("{other}:// is not HTTP: ask for http://"),
    };
    Err(Failure::new(Reason::BadRequest, sentence))
}

/// Our own application.
pub(crate) fn ours(client: &Connection, view: &View) -> Result<Target, Failure> {
    let inbound = view.inbound.as_ref().ok_or_else(generation::gone)?;
    // By the same view the token is asked for.
    let is_peer = !inbound.inbound.tokens.is_empty() || client.shown.is_some();
    Ok(Target { upstream: Rc::clone(&inbound.app), only: None, is_peer })
}

/// The upstream that a request to the forward proxy names, as soon as its endpoints are known.
pub(crate) async fn named<B>(
    worker: &Rc<Worker>,
    view: &View,
    request: &Request<B>,
    ends: Ends<'_>,
) -> Result<Target, Failure> {
    if view.mesh.forward.is_none() {
        return Err(generation::gone());
    }
    match name(request)? {
        Named::Service(name) => whole(worker, view, &name, ends).await,
        Named::Address(address) => endpoint(view, address),
    }
}

/// The upstream of this name, with all its endpoints, as soon as they are known.
pub(crate) async fn whole(
    worker: &Rc<Worker>,
    view: &View,
    name: &Arc<str>,
    ends: Ends<'_>,
) -> Result<Target, Failure> {
    let upstream = match view.named(name) {
        Some(upstream) if upstream.is_known() => Rc::clone(upstream),
        _ => Box::pin(await_endpoints(worker, name, ends)).await?,
    };
    Ok(Target { upstream, only: None, is_peer: true })
}

#[derive(Debug, PartialEq, Eq)]
enum Named {
    Service(Arc<str>),
    Address(SocketAddr),
}

/// What the URL names, or else `Host`.
fn name<B>(request: &Request<B>) -> Result<Named, Failure> {
    let uri = request.uri();
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<http::uri::Authority>().ok());
    let authority = uri.authority().cloned().or_else(host);
    let Some(authority) = authority.filter(|authority| !authority.host().is_empty()) else {
        return Err(Failure::new(Reason::BadRequest, "no service is named: neither the URL nor Host has one"));
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(ip) = host.parse::<IpAddr>() {
        let port = authority.port_u16().unwrap_or_else(|| default_port(uri));
        return Ok(Named::Address(SocketAddr::new(ip, port)));
    }
    let host = host.to_ascii_lowercase(); // RFC 3986, section 3.2.2: it does not differ by case
    // `user-service.service.consul` and `user-service.service.dc1.consul`, as Consul's DNS has them.
    let name = host.split_once(".service.").filter(|(_, rest)| rest.ends_with("consul")).map(|(name, _)| name);
    Ok(Named::Service(Arc::from(name.unwrap_or(&host))))
}

fn default_port(uri: &Uri) -> u16 {
    if uri.scheme_str() == Some("https") { 443 } else { 80 }
}

/// The upstream that has an endpoint at this address: otherwise this would be an open proxy.
fn endpoint(view: &View, address: SocketAddr) -> Result<Target, Failure> {
    let address = Address::Tcp(address);
    let has_it =
        |state: &&Rc<UpstreamState>| state.upstream.endpoints.iter().any(|endpoint| endpoint.address == address);
    match view.upstreams.values().find(has_it) {
        Some(upstream) => Ok(Target { upstream: Rc::clone(upstream), only: Some(address), is_peer: true }),
        None => {
            let sentence = format!("{address} is not an endpoint of a known service; name the service instead");
            Err(Failure::new(Reason::Forbidden, sentence))
        }
    }
}

/// Waits for endpoints as long as the first answer about them may take (`lifecycle.start_timeout`, since their service is
/// looked for) and the request's time goes: once that is over, no longer.
async fn await_endpoints(worker: &Rc<Worker>, name: &Arc<str>, ends: Ends<'_>) -> Result<Rc<UpstreamState>, Failure> {
    let at_most = worker.view().mesh.start_timeout;
    let asked = Instant::now();
    let mut has_asked = false;
    loop {
        let changed = worker.changed.notified();
        let view = worker.view();
        let upstream = view.named(name);
        match upstream {
            Some(upstream) if upstream.is_known() => return Ok(Rc::clone(upstream)),
            Some(_) => (),
            None if view.mesh.forward.as_ref().is_some_and(|forward| forward.allows(name)) => {
                if !has_asked {
                    has_asked = true;
                    let _ = worker.shared.demand.send(Arc::clone(name));
                }
            }
            None => return Err(unknown(&view, name)),
        }
        let since = upstream.map_or(asked, |upstream| upstream.since);
        let patience = End { at: since + at_most, reason: Reason::NoEndpoints };
        let end = sooner(ends(upstream.map(Rc::as_ref)), Some(patience));
        if let Err(end) = clock::within(end, changed).await {
            let metrics = &worker.shared.metrics;
            let sentence = match end.reason {
                Reason::NoEndpoints => format!(
                    "{name}: its endpoints are still unknown after {}; `lictor doctor` says why",
                    Millis(at_most)
                ),
                _ => format!("{name}: the time was over before its endpoints were known"),
            };
            return Err(clock::ran_out(metrics, end, Stage::Queue, sentence).retry_after(Duration::from_secs(1)));
        }
    }
}

impl UpstreamState {
    fn is_known(&self) -> bool {
        self.upstream.is_known() || !self.endpoints.is_empty()
    }
}

pub(crate) fn unknown(view: &View, name: &str) -> Failure {
    let known: Vec<&str> = view.upstreams.keys().map(AsRef::as_ref).collect();
    let sentence = format!(
        "{name} is neither an upstream of this sidecar ({}) nor in outbound.allow",
        if known.is_empty() { "none are configured".to_owned() } else { known.join(", ") }
    );
    Failure::new(Reason::UnknownUpstream, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, host: Option<&str>) -> Result<Named, Reason> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        name(&request.body(()).unwrap()).map_err(|failure| failure.reason)
    }

    #[test]
    fn names_come_from_the_url_and_then_from_host() {
        let service = |name: &str| Ok(Named::Service(Arc::from(name)));
        assert_eq!(of("http://users/1", Some("carts")), service("users"));
        assert_eq!(of("/1", Some("users:8080")), service("users"));
        assert_eq!(of("http://users.service.dc1.consul:80/", None), service("users"));
        assert_eq!(of("users:443", None), service("users"));
        assert_eq!(of("http://Users/", None), service("users"));
        assert_eq!(of("/1", Some("USERS:80")), service("users"));
        assert_eq!(of("Users.Service.DC1.Consul:443", None), service("users"));
        assert_eq!(of("/1", None), Err(Reason::BadRequest));
        assert_eq!(of("/1", Some("a b")), Err(Reason::BadRequest));
    }

    #[test]
    fn addresses_are_told_from_names() {
        let address = |text: &str| Ok(Named::Address(text.parse().unwrap()));
        assert_eq!(of("http://127.0.0.1:81/", None), address("127.0.0.1:81"));
        assert_eq!(of("http://127.0.0.1/", None), address("127.0.0.1:80"));
        assert_eq!(of("[::1]:443", None), address("[::1]:443"));
    }
}
