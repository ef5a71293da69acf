//! PEM files (RFC 7468).

use std::path::{Path, PathBuf};

use lictor_core::tls::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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
    /// Nobody is named who could be believed: the system has no CA certificates, or the named places have none.
    #[error("this system has no CA certificates: set `tls.ca`")]
    NoRoots,
    /// It is ordered, and has not come yet.
    #[error("{} is not there yet", .0.display())]
    Awaited(PathBuf),
    /// The certificate and key do not fit, or the like.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl TlsError {
    pub(crate) fn unusable(path: &Path, error: &impl ToString) -> Self {
        Self::Unusable { path: path.to_owned(), reason: error.to_string() }
    }
}

/// At least one.
pub(crate) fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = any_certificates(path, what)?;
    if found.is_empty() {
        let reason = "it has no PEM certificate".to_owned();
        return Err(TlsError::File { what, path: path.to_owned(), reason });
    }
    Ok(found)
}

pub(crate) fn any_certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    CertificateDer::pem_file_iter(path)
        .map_err(|reason| error(reason.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| error(reason.to_string()))
}

/// A certificate's chain and its key.
pub(crate) fn key_pair(pair: &KeyPair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&pair.cert, "a certificate")?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| TlsError::File {
        what: "a private key",
        path: pair.key.clone(),
        reason: error.to_string(),
    })?;
    Ok((chain, key))
}
