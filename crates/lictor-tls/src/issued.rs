//! Whether a certificate that has come from a CA can be shown for its host.

use std::path::Path;
use std::time::Duration;

use lictor_core::tls::{KeyPair, ServerTls};
use rustls::pki_types::{ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::certificate::{at, end};
use crate::file::TlsError;
use crate::made::Source;

/// From when to when a host's certificate is good, in seconds since the epoch, where the file has that certificate and its key,
/// and they can be shown; else why not. It waits for the disk.
pub fn issued(path: &Path, host: &str) -> Result<(u64, u64), TlsError> {
    let pair = KeyPair { cert: path.to_owned(), key: path.to_owned() };
    let tls = ServerTls { identity: pair, client_ca: None, requires: true, is_awaited: false };
    let made = tls.make(None)?;
    let unusable = |why: &dyn ToString| TlsError::unusable(path, &why.to_string());
    let own = made.chain.first().ok_or_else(|| unusable(&"it has no certificate"))?;
    let name = ServerName::try_from(host).map_err(|why| unusable(&why))?;
    let parsed = EndEntityCert::try_from(own).map_err(|why| unusable(&why))?;
    parsed.verify_is_valid_for_subject_name(&name).map_err(|_| unusable(&format!("it is not for `{host}`")))?;
    let begins =
        at(own, UnixTime::since_unix_epoch(Duration::ZERO)).ok_or_else(|| unusable(&"its time is not known"))?;
    // What the chain has besides may have ended long ago: who signed a CA for clients of old.
    let ends = end(own).ok_or_else(|| unusable(&"its time is not known"))?;
    Ok((begins, ends))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lictor_testkit::Authority;

    use super::*;

    #[test]
    fn what_was_issued_is_for_its_host_and_has_its_key() {
        let authority = Authority::new();
        let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(4_107_542_400);
        let (pair, other) =
            (authority.issue_until("a", &["shop.example"], soon), authority.issue("b", &["shop.example"]));
        let file = pair.cert.with_file_name("whole.pem");
        let whole = |cert: &Path, key: &Path| {
            let parts = [cert, key].map(|path| std::fs::read_to_string(path).unwrap());
            std::fs::write(&file, parts.concat()).unwrap();
        };
        whole(&pair.cert, &pair.key);
        let (begins, ends) = issued(&file, "shop.example").unwrap();
        assert!(begins < ends && ends == 4_107_542_400, "{begins} {ends}");
        for (what, cert, key, host, said) in [
            ("another host's", &pair.cert, &pair.key, "other.example", "not for `other.example`"),
            ("another key", &pair.cert, &other.key, "shop.example", "cannot be used"),
            ("no key", &pair.cert, &pair.cert, "shop.example", "private key"),
            ("no certificate", &pair.key, &pair.key, "shop.example", "no PEM certificate"),
        ] {
            whole(cert, key);
            let why = issued(&file, host).unwrap_err().to_string();
            assert!(why.contains(said), "{what}: {why}");
        }
        // What a chain has besides may have ended.
        let old = authority.issue_expired("old", &["lictor's tests"]);
        let parts = [&pair.cert, &old.cert, &pair.key].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&file, parts.concat()).unwrap();
        assert_eq!(issued(&file, "shop.example").unwrap(), (begins, ends));
        assert!(issued(&file.with_file_name("none.pem"), "shop.example").is_err());
    }
}
