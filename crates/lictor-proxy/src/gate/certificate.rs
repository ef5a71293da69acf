//! Who a connection's certificate says that its client is.

use lictor_core::gateway::auth::{How, Identity};
use lictor_jose::Verified;
use serde_json::Map;

use crate::world::client::Connection;

/// The names of the certificate as claims: `sub` is the first, a URI (SPIFFE's) before a DNS name. One without names is
/// nobody's, and a proxy's is not its client's.
pub(super) fn identity(connection: &Connection) -> Option<Identity> {
    let address = connection.peer.map(|peer| peer.ip().to_canonical());
    let is_its_own = connection.client.map(|client| client.to_canonical()) == address;
    let names = connection.shown.as_ref().filter(|_| is_its_own)?.names();
    let mut claims = Map::new();
    let first = names.uris.first().or(names.dns.first())?;
    claims.insert("sub".to_owned(), first.as_str().into());
    claims.insert("uri".to_owned(), names.uris.into());
    claims.insert("dns".to_owned(), names.dns.into());
    Some(Identity { how: How::Certificate, known: Verified::vouched(How::Certificate.as_str(), claims, None) })
}
