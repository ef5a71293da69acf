//! TLS towards an https agent: rustls with the ring provider, the operator's CA, and a client certificate if asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_config::ConsulTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

/// TLS cannot be set up as configured.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file.
    #[error("cannot read {what} from {}: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No CA.
    #[error("an https agent needs a CA: set CONSUL_CACERT (consul.ca_file) or CONSUL_CAPATH (consul.ca_path)")]
    NoRoots,
    /// Not a name.
    #[error("`{0}` is not a name that a certificate can have: set CONSUL_TLS_SERVER_NAME")]
    Name(String),
    /// The certificate and key do not fit.
    #[error("the client certificate cannot be used: {0}")]
    Client(#[from] rustls::Error),
}

/// The client's side, and the name that the agent's certificate must have.
pub(crate) fn config(settings: &ConsulTls, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let name = settings.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let builder = if settings.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    let config = match (&settings.client_cert, &settings.client_key) {
        (Some(cert), Some(key)) => builder.with_client_auth_cert(certificates(cert)?, private_key(key)?)?,
        _ => builder.with_no_client_auth(),
    };
    Ok((Arc::new(config), name))
}

fn roots(settings: &ConsulTls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut files: Vec<PathBuf> = settings.ca_file.iter().cloned().collect();
    if let Some(folder) = &settings.ca_path {
        let entries = std::fs::read_dir(folder).map_err(|error| TlsError::File {
            what: "CA certificates",
            path: folder.clone(),
            reason: error.to_string(),
        })?;
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()));
    }
    for file in files {
        roots.add_parsable_certificates(certificates(&file)?);
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::File { what: "certificates", path: path.to_owned(), reason };
    CertificateDer::pem_file_iter(path)
        .map_err(|reason| error(reason.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| error(reason.to_string()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        what: "a private key",
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// `CONSUL_HTTP_SSL_VERIFY=false`: the operator's own word that any certificate will do. Signatures still count.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
