//! When certificates end.
//!
//! rustls checks a certificate's time before everything else, and says in the error when it ended: asked about the far
//! future it tells the end of every certificate. So no second X.509 parser is needed.

use std::path::Path;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::file;

/// Later than any certificate lasts: the year 9999 (RFC 5280, section 4.1.2.5).
const FAR: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));

/// When the first of a PEM file's certificates ends, in seconds since the epoch. `None` where the file has none, or none
/// whose end is known. It waits for the disk.
pub fn first_end(path: &Path) -> Option<u64> {
    first_end_of(&file::certificates(path, "a certificate").ok()?)
}

/// The same of a chain that was read.
pub(crate) fn first_end_of(chain: &[CertificateDer<'_>]) -> Option<u64> {
    chain.iter().filter_map(end).min()
}

fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], FAR, algorithms);
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Some(not_after.as_secs()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use lictor_testkit::Authority;

    use super::*;

    #[test]
    fn the_first_end_of_a_chain_counts() {
        let authority = Authority::new();
        let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(4_107_542_400);
        let pair = authority.issue_until("server", &["localhost"], soon);
        assert_eq!(first_end(&pair.cert), Some(4_107_542_400));
        let chain = [pair.cert.clone(), authority.ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
        std::fs::write(&pair.cert, chain).unwrap();
        assert_eq!(first_end(&pair.cert), Some(4_107_542_400), "the authority lasts longer");
        assert!(first_end(&authority.ca()).is_some_and(|end| end > 4_107_542_400), "a CA's is told too");
        assert_eq!(first_end(&authority.issue_expired("old", &["localhost"]).cert), Some(1_609_372_800));
    }

    #[test]
    fn cut_and_broken_certificates_have_no_end() {
        for bytes in [&b""[..], b"\x30", b"\x30\x05\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00"] {
            assert_eq!(end(&CertificateDer::from(bytes)), None);
        }
    }
}
