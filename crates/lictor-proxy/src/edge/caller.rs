//! Whose request it is. What only peers may say is taken off every head; what a trusted proxy says of its client is put
//! back, one line each.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::header::{CONNECTION, FORWARDED, HOST};
use http::{HeaderValue, Request};
use lictor_core::gateway::Proxies;
use lictor_core::gateway::client::Told;
use lictor_core::{Failure, Reason};
use lictor_http::fields::{Fields, tokens};

use crate::names::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT};
use crate::world::client::Connection;

/// The connection as it is for this request: its client is whom a trusted proxy brings. The head's fields are those that are
/// left.
pub(super) fn of<B>(
    connection: Rc<Connection>,
    proxies: Option<&Proxies>,
    request: &mut Request<B>,
    fields: Fields,
) -> (Rc<Connection>, Fields) {
    let peer = connection.peer.as_ref().map(SocketAddr::ip);
    let told = proxies.and_then(|proxies| proxies.told(peer, request.headers()));
    names::strip_outsiders(request.headers_mut());
    let (connection, fields) = match &told {
        None => (connection, fields),
        Some(told) => (believed(&connection, told), put_back(told, request, fields)),
    };
    if proxies.is_some_and(|proxies| proxies.tells_forwarded) {
        tell_forwarded(&connection, told.unwrap_or_default(), peer, request);
    }
    (connection, fields)
}

/// Refuses what a trusted proxy lets through of its client's: a `Connection` that takes off the proxy's own word (RFC 9110,
/// section 7.6.1), so that the client would pass for the proxy.
pub(super) fn check<B>(
    connection: &Connection,
    proxies: &Proxies,
    request: &Request<B>,
    fields: Fields,
) -> Result<(), Failure> {
    let is_forwarding = |token: &str| {
        let token = token.to_ascii_lowercase();
        token == "forwarded" || token.starts_with("x-forwarded-")
    };
    if fields.has(Fields::CONNECTION)
        && connection.peer.is_some_and(|peer| proxies.trusted.has(peer.ip()))
        && tokens(request.headers(), &CONNECTION).any(is_forwarding)
    {
        let sentence = "`Connection` names a field that says whose request it is: the proxy before this gateway must not pass that on";
        return Err(Failure::new(Reason::BadRequest, sentence));
    }
    Ok(())
}

fn believed(connection: &Rc<Connection>, told: &Told) -> Rc<Connection> {
    let client = told.chain.first().copied().or(connection.client);
    let is_encrypted = told.is_encrypted.unwrap_or(connection.is_encrypted);
    if client == connection.client && is_encrypted == connection.is_encrypted {
        return Rc::clone(connection);
    }
    Rc::new(connection.brings(client, is_encrypted))
}

/// `X-Forwarded-For` has the peer added when the request goes on, and `X-Forwarded-Proto` is the connection's.
fn put_back<B>(told: &Told, request: &mut Request<B>, fields: Fields) -> Fields {
    let headers = request.headers_mut();
    let chain = told.chain.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let chain = HeaderValue::try_from(chain).ok().filter(|chain| !chain.is_empty());
    let said = [(X_FORWARDED_FOR, chain), (X_FORWARDED_HOST, told.host.clone()), (X_FORWARDED_PORT, told.port.clone())];
    let mut is_any = false;
    for (name, value) in said {
        let Some(value) = value else { continue };
        headers.insert(name, value);
        is_any = true;
    }
    if is_any { names::fields_of(headers) } else { fields }
}

fn tell_forwarded<B>(connection: &Connection, told: Told, peer: Option<IpAddr>, request: &mut Request<B>) {
    let asked = request.uri().authority().map(http::uri::Authority::as_str);
    let asked = asked.or_else(|| request.headers().get(HOST)?.to_str().ok());
    let host = told.host.as_ref().and_then(|host| host.to_str().ok()).or(asked);
    let proto = if connection.is_encrypted { "https" } else { "http" };
    if let Ok(forwarded) = HeaderValue::try_from(Proxies::forwarded(&told.chain, peer, host, proto)) {
        request.headers_mut().insert(FORWARDED, forwarded);
    }
}
