//! What TLS towards an https agent is made of: the operator's CA, never the system's, and a client certificate if it is
//! asked for. Reading it, and again when it changes, is `lictor-tls`'s.

use std::sync::Arc;

use lictor_config::ConsulTls;
use lictor_core::tls::KeyPair;
use lictor_tls::{Client, ClientSpec, Trust, is_name};
use thiserror::Error;

/// TLS cannot be set up as configured.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(lictor_tls::TlsError),
    /// No CA.
    #[error("an https agent needs a CA: set CONSUL_CACERT (consul.ca_file) or CONSUL_CAPATH (consul.ca_path)")]
    NoRoots,
    /// Not a name.
    #[error("`{0}` is not a name that a certificate can have: set CONSUL_TLS_SERVER_NAME")]
    Name(String),
}

impl From<lictor_tls::TlsError> for TlsError {
    fn from(error: lictor_tls::TlsError) -> Self {
        match error {
            lictor_tls::TlsError::NoRoots => Self::NoRoots,
            error => Self::File(error),
        }
    }
}

/// The client's side, towards an agent on this host.
pub(crate) fn client(settings: &ConsulTls, host: &str) -> Result<Arc<Client>, TlsError> {
    let name = settings.server_name.as_deref().unwrap_or(host);
    if !is_name(name) {
        return Err(TlsError::Name(name.to_owned()));
    }
    let identity = settings.client_cert.clone().zip(settings.client_key.clone());
    let trust = if settings.skip_verify {
        Trust::Anybody // `CONSUL_HTTP_SSL_VERIFY=false`: the operator's own word
    } else {
        Trust::Places { file: settings.ca_file.clone(), folder: settings.ca_path.clone() }
    };
    let identity = identity.map(|(cert, key)| KeyPair { cert, key });
    Ok(Arc::new(Client::read(ClientSpec { trust, identity, server_name: settings.server_name.clone() })?))
}
