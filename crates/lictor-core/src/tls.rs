//! TLS as the configuration names it: files and names. `lictor-tls` reads the files, and again when they change.

use std::path::PathBuf;

/// A certificate and its private key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPair {
    /// The certificate, followed by the intermediate ones.
    pub cert: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// TLS on a listener of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTls {
    /// What we show.
    pub identity: KeyPair,
    /// Clients must show a certificate of one of these CAs (PEM); `None`: they need not show any.
    pub client_ca: Option<PathBuf>,
}

/// TLS towards an upstream's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTls {
    /// PEM with the CAs that are believed; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What we show when we are asked.
    pub identity: Option<KeyPair>,
    /// For SNI, and what the certificate must name (its SAN); `None`: the endpoint's host name or IP address.
    pub server_name: Option<String>,
}
