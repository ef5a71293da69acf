//! PEM files (RFC 7468), and whether they are still the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
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

/// How files are at one look: two looks that end the same saw the same files with the same content, as far as a file
/// system tells.
#[derive(Debug, Default)]
pub(crate) struct Look(DefaultHasher);

impl Look {
    /// Symbolic links are followed: what counts is what they lead to.
    pub(crate) fn at(&mut self, path: &Path) {
        path.hash(&mut self.0);
        let file = std::fs::metadata(path).ok();
        // `mtime` may be that of the original of a copy; `ctime` nobody can set.
        let seen = file.map(|file| {
            let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
            (file.dev(), file.ino(), file.size(), times)
        });
        seen.hash(&mut self.0);
    }

    /// A folder, and the files in it: those may be written in place, or be links to files elsewhere.
    pub(crate) fn below(&mut self, folder: &Path) {
        self.at(folder);
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in &paths {
            self.at(path);
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, copy, create_dir, remove_file, rename, write};
    use std::os::unix::fs::symlink;

    use lictor_testkit::Authority;

    use super::*;

    #[test]
    fn every_way_of_changing_a_file_is_seen() {
        let authority = Authority::new();
        let at = |name: &str| authority.ca().with_file_name(name);
        let (path, folder, linked) = (at("file"), at("folder"), at("link"));
        create_dir(&folder).unwrap();
        for (name, text) in [("file", "one"), ("1", "one"), ("2", "two")] {
            write(at(name), text).unwrap();
        }
        symlink(at("1"), &linked).unwrap();
        symlink(at("1"), folder.join("link")).unwrap();
        let look = || {
            let mut look = Look::default();
            look.at(&path);
            look.at(&linked);
            look.below(&folder);
            look.end()
        };
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let swap = |link: &Path| {
            symlink(at("2"), at("draft")).unwrap();
            rename(at("draft"), link).unwrap();
        };
        let changes: [(&str, &dyn Fn()); 8] = [
            ("written in place", &|| write(&path, "other").unwrap()),
            ("of the same size", &|| write(&path, "anoth").unwrap()),
            ("renamed onto it, and no younger", &|| {
                copy(&path, at("draft")).unwrap();
                File::options().write(true).open(at("draft")).unwrap().set_modified(modified).unwrap();
                rename(at("draft"), &path).unwrap();
            }),
            ("its link leads elsewhere", &|| swap(&linked)),
            ("a link in the folder leads elsewhere", &|| swap(&folder.join("link"))),
            ("what a link in the folder leads to", &|| write(at("2"), "more of it").unwrap()),
            ("a file more in the folder", &|| write(folder.join("new"), "").unwrap()),
            ("it is gone", &|| remove_file(&path).unwrap()),
        ];
        for (what, change) in changes {
            let before = look();
            assert_eq!(before, look(), "nothing has changed before: {what}");
            change();
            assert_ne!(before, look(), "{what}");
        }
    }
}
