//! Who is believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_os::files::Look;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::file::{TlsError, any_certificates, certificates};

const WHAT: &str = "CA certificates";

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those of the system's CAs: of `SSL_CERT_FILE` and `SSL_CERT_DIR` (folders, with colons between them) where either
    /// is set, else from where distributions keep them.
    #[default]
    System,
    /// Those of the CAs in a PEM file, each of which must be usable.
    File(PathBuf),
    /// Those of the CAs in a PEM file and in a folder's files, as Consul's own tools read them: one that cannot be parsed
    /// is passed over.
    Places {
        /// One file.
        file: Option<PathBuf>,
        /// Its files, not those of folders in it.
        folder: Option<PathBuf>,
    },
    /// Anybody's. Signatures still count, so it is the same peer for as long as a connection lasts.
    Anybody,
}

impl Trust {
    /// Notes how the files are now.
    pub(crate) fn look(&self, look: &mut Look) {
        let (file, folders) = self.places();
        if let Some(file) = file {
            look.at(&file);
        }
        for folder in &folders {
            look.below(folder);
        }
    }

    /// A file, and folders of them.
    pub(crate) fn places(&self) -> (Option<PathBuf>, Vec<PathBuf>) {
        match self {
            Self::System => system(),
            Self::File(file) => (Some(file.clone()), Vec::new()),
            Self::Places { file, folder } => (file.clone(), folder.iter().cloned().collect()),
            Self::Anybody => (None, Vec::new()),
        }
    }

    /// Reads them, at least one; `None` where anybody is believed.
    pub(crate) fn roots(&self) -> Result<Option<Arc<RootCertStore>>, TlsError> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::File(file) => {
                for certificate in certificates(file, WHAT)? {
                    roots.add(certificate).map_err(|error| TlsError::unusable(file, &error))?;
                }
            }
            Self::Places { file, folder } => {
                let inside = folder.as_deref().map(files).transpose()?.unwrap_or_default();
                for file in file.iter().chain(&inside) {
                    roots.add_parsable_certificates(any_certificates(file, WHAT)?);
                }
            }
            Self::Anybody => return Ok(None),
        }
        if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(Some(Arc::new(roots))) }
    }
}

/// Whether all of the earlier ones are still there.
pub(crate) fn includes(roots: &RootCertStore, earlier: &RootCertStore) -> bool {
    earlier.roots.iter().all(|root| roots.roots.contains(root))
}

/// Where the system's roots are: by the rule, and the list, of `rustls_native_certs`, which does not tell.
fn system() -> (Option<PathBuf>, Vec<PathBuf>) {
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let folders = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()).collect();
    if file.is_some() || !folders.is_empty() {
        return (file, folders);
    }
    let found = openssl_probe::probe();
    (found.cert_file, found.cert_dir)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let entries = std::fs::read_dir(folder).map_err(|error| TlsError::File {
        what: WHAT,
        path: folder.to_owned(),
        reason: error.to_string(),
    })?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.sort_unstable();
    Ok(files)
}

/// Verifies what anybody shows: [`Trust::Anybody`].
#[derive(Debug)]
pub(crate) struct Unverified(pub(crate) Arc<CryptoProvider>);

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
