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

/// How a CA names the first certificate of a file when it is asked about its renewal (RFC 9773, section 4.1): the key of who issued
/// it, and its number. `None` where it does not say. It waits for the disk.
pub fn renewal_id(path: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    renewal_id_of(file::certificates(path, "a certificate").ok()?.first()?)
}

/// RFC 5280, sections 4.1 and 4.2.1.1.
fn renewal_id_of(certificate: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const EXTENSIONS: u8 = 0xa3;
    const KEY_IDENTIFIER: u8 = 0x80;
    const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
    let of = |bytes, tag| Values(bytes).find(|(own, _)| *own == tag).map(|(_, value)| value);
    let signed = of(of(certificate, SEQUENCE)?, SEQUENCE)?;
    let serial = of(signed, INTEGER)?;
    let extensions = of(of(signed, EXTENSIONS)?, SEQUENCE)?;
    let issuer = Values(extensions).find_map(|(_, extension)| {
        let mut values = Values(extension);
        let (_, name) = values.next()?;
        let (_, value) = values.last().filter(|_| name == AUTHORITY_KEY_IDENTIFIER)?;
        of(of(value, SEQUENCE)?, KEY_IDENTIFIER)
    })?;
    Some((issuer.to_vec(), serial.to_vec()))
}

/// Values that follow one another (DER; X.690, section 8.1): each with its tag. It ends at what is none.
struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }
}

/// When the first of a chain ends that was read.
pub(crate) fn first_end_of(chain: &[CertificateDer<'_>]) -> Option<u64> {
    chain.iter().filter_map(end).min()
}

/// When it ends itself.
pub(crate) fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    at(certificate, FAR)
}

/// What keeps a certificate from being good at that time: where it begins, or ends.
pub(crate) fn at(certificate: &CertificateDer<'_>, time: UnixTime) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], time, algorithms);
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Some(not_after.as_secs()),
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Some(not_before.as_secs())
        }
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
    fn a_certificate_is_named_by_its_issuers_key_and_its_number() {
        let authority = Authority::new();
        let pair = authority.issue("a", &["shop.example"]);
        let (issuer, serial) = renewal_id(&pair.cert).unwrap();
        assert_eq!(issuer.len(), 20, "{issuer:?}");
        assert!((1..=20).contains(&serial.len()), "{serial:?}");
        let der = file::certificates(&pair.cert, "a certificate").unwrap();
        let has = |part: &[u8]| der[0].windows(part.len()).any(|window| window == part);
        assert!(has(&[&[0x80, 20][..], &issuer].concat()) && has(&[&[2, serial.len() as u8][..], &serial].concat()));
        for length in 0..der[0].len() {
            assert_eq!(renewal_id_of(&der[0][..length]), None, "cut at {length}");
        }
        assert_eq!(renewal_id(&authority.ca()), None, "nobody issued it");
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x83\xff\xff\xff", b"\x30\x02\x30\x00"] {
            assert_eq!(renewal_id_of(bytes), None);
        }
    }

    #[test]
    fn cut_and_broken_certificates_have_no_end() {
        for bytes in [&b""[..], b"\x30", b"\x30\x05\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00"] {
            assert_eq!(end(&CertificateDer::from(bytes)), None);
        }
    }
}
