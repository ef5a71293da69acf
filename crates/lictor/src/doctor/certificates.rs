//! When certificates end.
//!
//! rustls checks a certificate's time before everything else, and says in the error when it ended: asked about the far
//! future it tells the end of every certificate. So no second X.509 parser is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_config::Config;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::{Code, Findings};

const SOON: Duration = Duration::from_secs(14 * 86_400);
/// Later than any certificate lasts: the year 9999 (RFC 5280, section 4.1.2.5).
const FAR: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));

pub(super) fn examine(found: &mut Findings, config: &Config) {
    let now = UnixTime::now().as_secs();
    for path in files(config) {
        let Ok(certificates) = CertificateDer::pem_file_iter(&path) else { continue }; // told by whoever uses it
        let ends = certificates.filter_map(Result::ok).filter_map(|certificate| end(&certificate)).min();
        let Some(end) = ends else { continue };
        let (file, fix) = (path.display().to_string(), "renew it; lictor reads the file again by itself");
        let days = |seconds: u64| seconds / 86_400;
        if end < now {
            found.add(Code::TlsExpired, file, format!("it ended {} days ago", days(now - end)), fix);
        } else if end - now < SOON.as_secs() {
            found.add(Code::TlsExpires, file, format!("it ends in {} days", days(end - now)), fix);
        }
    }
}

/// All that hold certificates.
fn files(config: &Config) -> Vec<PathBuf> {
    let consul = &config.consul.tls;
    let servers = config.server_tls().flat_map(|tls| [Some(&tls.identity.cert), tls.client_ca.as_ref()]);
    let clients = config.client_tls().flat_map(|tls| [tls.ca.as_ref(), tls.identity.as_ref().map(|pair| &pair.cert)]);
    let ours = servers.chain(clients).chain([consul.ca_file.as_ref(), consul.client_cert.as_ref()]);
    let mut files: Vec<PathBuf> = ours.flatten().map(|path: &PathBuf| Path::new(path).to_owned()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// The end of its validity, in seconds since 1970.
fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], FAR, algorithms);
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Some(not_after.as_secs()),
        _ => None,
    }
}
