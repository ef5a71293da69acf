//! What is kept in the folder: the account, how far each order is, certificates with their keys. All of it is its owner's alone
//! (mode 0600), and each file is replaced at once. Everything here waits for the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use instant_acme::AccountCredentials;
use lictor_core::acme::{Acme, Order};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longer files are none of ours.
const FILE_MAX: u64 = 1 << 20;

/// How far an order is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// The URL of an order that is not over.
    pub(super) order: Option<String>,
    /// The key (PEM) that its certificate is for.
    pub(super) key: Option<String>,
    /// What the CA is to see, while it looks.
    pub(super) proof: Option<Proof>,
    /// Failures since the last certificate.
    pub(super) failures: u32,
    /// The CA is not asked before this, in seconds since the epoch.
    pub(super) not_before: u64,
    /// Why the last try failed.
    pub(super) why: Option<String>,
    /// When the CA wants the certificate renewed, in seconds since the epoch (RFC 9773).
    pub(super) window: Option<(u64, u64)>,
    /// It is not asked that before this.
    pub(super) asked_again: u64,
}

/// What shows a CA that a host is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) token: String,
    pub(super) authorization: String,
}

/// The account at a CA.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    /// As the CA knows it.
    pub(super) contact: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

impl Progress {
    /// How far it is; what cannot be read is the beginning.
    pub(super) fn read(order: &Order) -> Self {
        read(&order.progress()).unwrap_or_default()
    }

    pub(super) fn write(&self, order: &Order) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        write(&order.progress(), &text)
    }
}

impl Account {
    pub(super) fn read(acme: &Acme) -> Option<Self> {
        read(&acme.account())
    }

    pub(super) fn write(&self, acme: &Acme) -> io::Result<()> {
        write(&acme.account(), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    /// The CA does not know it any more. One that has taken its place since is not meant.
    pub(super) fn forget(acme: &Acme, used: &[u8]) -> io::Result<()> {
        let file = acme.account();
        let is_meant = |known: Self| serde_json::to_vec(&known.credentials).is_ok_and(|text| text == used);
        if Self::read(acme).is_some_and(is_meant) { fs::rename(&file, file.with_extension("lost")) } else { Ok(()) }
    }
}

/// Puts a chain and its key where they are shown, once they are what they should be (`InvalidData` where they are not): from when to
/// when they are good.
pub(super) fn adopt(order: &Order, key: &str, chain: &str, now: u64) -> io::Result<(u64, u64)> {
    let file = order.file();
    let draft = file.with_extension("new");
    save(&draft, format!("{key}{chain}").as_bytes())?;
    let unfit = |why: &dyn ToString| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let good @ (begins, ends) = lictor_tls::issued(&draft, &order.host).map_err(|why| unfit(&why))?;
    if ends <= begins.max(now) {
        return Err(unfit(&format!("it ends at {ends}, it is {now} (Unix time), and it begins at {begins}")));
    }
    fs::rename(&draft, &file)?;
    sync_folder(&file)?;
    Ok(good)
}

/// The only one that orders for this folder, for as long as the file is open: a process that ends, however it does, lets go.
pub(super) fn lead(storage: &Path) -> io::Result<Option<File>> {
    folder(storage)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(storage.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(why)) => Err(why),
    }
}

fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let is_short = fs::metadata(path).ok()?.len() <= FILE_MAX;
    serde_json::from_slice(&fs::read(path).ok().filter(|_| is_short)?).ok()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    save(&draft, bytes)?;
    fs::rename(&draft, path)?;
    sync_folder(path)
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => (), // whose mode it had
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use lictor_core::acme::Challenge;
    use lictor_testkit::{Authority, scratch};

    use super::*;

    fn acme(storage: &Path) -> Acme {
        Acme {
            directory: "https://ca/".to_owned(),
            contact: Vec::new(),
            storage: storage.to_owned(),
            ca: None,
            challenge: Challenge::Http01,
        }
    }

    #[test]
    fn only_the_account_that_was_used_is_forgotten() {
        let storage = scratch("forgotten");
        let acme = acme(&storage);
        let account = |id: &str, contact: &str| {
            let credentials = serde_json::json!({ "id": id, "key_pkcs8": "AAAA", "directory": "https://ca/" });
            serde_json::from_value::<Account>(serde_json::json!({ "contact": [contact], "credentials": credentials }))
                .unwrap()
        };
        let used = serde_json::to_vec(&account("https://ca/1", "").credentials).unwrap();
        Account::forget(&acme, &used).unwrap(); // there is none
        for (id, contact, is_forgotten) in
            [("https://ca/2", "", false), ("https://ca/1", "", true), ("https://ca/1", "mailto:ops@shop.example", true)]
        {
            account(id, contact).write(&acme).unwrap();
            Account::forget(&acme, &used).unwrap();
            assert_eq!(Account::read(&acme).is_none(), is_forgotten, "{id} {contact}");
        }
        fs::remove_dir_all(storage).unwrap();
    }

    #[test]
    fn a_certificate_that_has_ended_is_not_put_in_place() {
        let (authority, storage) = (Authority::new(), scratch("kept"));
        let order = Order { host: "shop.example".into(), acme: Arc::new(acme(&storage)) };
        let ends = 4_107_542_400;
        let pair = authority.issue_until("shop", &["shop.example"], UNIX_EPOCH + Duration::from_secs(ends));
        let [chain, key] = [&pair.cert, &pair.key].map(|path| fs::read_to_string(path).unwrap());
        for now in [ends, ends + 1] {
            let why = adopt(&order, &key, &chain, now).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
            assert!(why.to_string().contains("ends at 4107542400") && !order.file().exists(), "{why}");
        }
        assert_eq!(adopt(&order, &key, &chain, ends - 1).unwrap().1, ends);
        assert!(order.file().exists());
        fs::remove_dir_all(storage).unwrap();
    }
}
