//! What a CA sees that looks by a handshake whether a host is ours (tls-alpn-01; RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::file::TlsError;
use crate::suites::provider;

/// What such a client asks for, and nothing else (RFC 8737, section 3).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// By host: at most one for each host that has a certificate ordered.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// Whether there is any: nearly always there is none.
    is_any: AtomicBool,
    known: Mutex<HashMap<Box<str>, Arc<ServerConfig>>>,
}

impl Proofs {
    pub(crate) fn put(
        &self,
        host: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        let signs = any_supported_type(&key).map_err(|error| TlsError::unusable(host.as_ref(), &error))?;
        // Its critical extension is for the CA, and nobody else reads it (RFC 8737, section 3): it is not looked into here.
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], signs));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut known = self.known.lock();
        known.insert(host.into(), Arc::new(config));
        self.is_any.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn forget(&self, host: &str) {
        let mut known = self.known.lock();
        known.remove(host);
        self.is_any.store(!known.is_empty(), Ordering::Release);
    }

    /// What this client is to see, if it is a CA that looks.
    pub(crate) fn of(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        if !self.is_any.load(Ordering::Acquire) {
            return None;
        }
        let mut asked = hello.alpn()?;
        let is_look = asked.next() == Some(PROTOCOL) && asked.next().is_none();
        let host = hello.server_name().filter(|_| is_look)?.to_ascii_lowercase();
        self.known.lock().get(&*host).cloned()
    }
}
