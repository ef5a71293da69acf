//! The last good answers on disk: what a sidecar serves from when it starts while Consul is away.
//!
//! One file, a line `lictor snapshot VERSION SHA-256 LENGTH` and then JSON. It is replaced whole and never believed in
//! part: a file that is cut off, damaged, of a later version, too old or somebody else's is refused with the reason and
//! kept aside. What workers learned of an endpoint (ejections, loads) is not in it: that is about a time that is over.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lictor_config::SnapshotFile;
use ring::digest::{SHA256, digest};
use thiserror::Error;

use super::remembered::{Contents, Remembered, RememberedClaims, RememberedKeys, RememberedKv, Scope};

const MAGIC: &str = "lictor snapshot";
const VERSION: u32 = 1;
/// The longest first line, with room.
const HEADER: usize = 160;
const LARGEST: u64 = 256 << 20;

/// Why a file is not used.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not a snapshot of lictor's")]
    Foreign,
    #[error("it has version {0}, and this lictor reads version {VERSION}")]
    Version(u32),
    #[error("it is cut off: it has {has} bytes of {wants}")]
    CutOff { has: usize, wants: usize },
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is of {what} {theirs}, and this is {ours}")]
    OfAnother { what: &'static str, theirs: String, ours: String },
    #[error("it is {} s old, and consul.snapshot.max_age is {} s", age.as_secs(), max_age.as_secs())]
    TooOld { age: Duration, max_age: Duration },
}

/// Reads the file; `None` when there is none. One that is refused is moved out of the way, to `PATH.rejected`.
pub(crate) fn load(file: &SnapshotFile, scope: &Scope) -> Result<Option<Contents>, Refusal> {
    let bytes = match read(&file.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Refusal::from),
    };
    let contents = bytes.and_then(|bytes| accept(&bytes, file.max_age, scope));
    if matches!(&contents, Err(refusal) if !matches!(refusal, Refusal::Unreadable(_))) {
        let _ = fs::rename(&file.path, aside(&file.path)); // where nothing can be written either, it stays
    }
    contents.map(Some)
}

/// Where a refused file goes.
pub(crate) fn aside(path: &Path) -> PathBuf {
    suffixed(path, ".rejected")
}

fn accept(bytes: &[u8], max_age: Duration, scope: &Scope) -> Result<Contents, Refusal> {
    let mut contents = decode(bytes)?;
    admits(scope, &contents.scope)?;
    let of_kv = contents.kv.as_ref().map(RememberedKv::age);
    let of_keys = contents.keys.iter().map(RememberedKeys::age);
    let of_claims = contents.claims.as_ref().map(RememberedClaims::age);
    let youngest = contents.answers.iter().map(Remembered::age).chain(of_kv).chain(of_keys).chain(of_claims).min();
    let is_ordered = contents.maintenance.as_ref().is_some_and(|orders| !orders.is_empty());
    if let Some(age) = youngest.filter(|age| *age > max_age && !is_ordered) {
        return Err(Refusal::TooOld { age, max_age });
    }
    contents.answers.retain(|answer| answer.age() <= max_age);
    contents.kv = contents.kv.filter(|kv| kv.age() <= max_age);
    contents.keys.retain(|keys| keys.age() <= max_age);
    contents.claims = contents.claims.filter(|claims| claims.age() <= max_age);
    Ok(contents)
}

fn admits(ours: &Scope, theirs: &Scope) -> Result<(), Refusal> {
    for (what, ours, theirs) in [
        ("service", &ours.service, &theirs.service),
        ("datacenter", &ours.datacenter, &theirs.datacenter),
        ("namespace", &ours.namespace, &theirs.namespace),
        ("partition", &ours.partition, &theirs.partition),
    ] {
        if ours != theirs {
            let show =
                |name: &Option<String>| name.as_ref().map_or_else(|| "(none)".to_owned(), |it| format!("`{it}`"));
            return Err(Refusal::OfAnother { what, theirs: show(theirs), ours: show(ours) });
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn encode(contents: &Contents) -> Vec<u8> {
    framed(&serde_json::to_vec(contents).expect("maps have text as keys"))
}

/// With its first line.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC} {VERSION} {} {}\n", checksum(body), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Contents, Refusal> {
    let is_ours = bytes.iter().zip(MAGIC.as_bytes()).all(|(is, should)| is == should);
    if !is_ours {
        return Err(Refusal::Foreign);
    }
    let head = &bytes[..bytes.len().min(HEADER)];
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        let is_short = bytes.len() < HEADER;
        let cut_off = Refusal::CutOff { has: bytes.len(), wants: HEADER };
        return Err(if is_short { cut_off } else { Refusal::Foreign });
    };
    let head = std::str::from_utf8(&head[MAGIC.len()..end]).map_err(|_| Refusal::Foreign)?;
    let [_, version, sum, length] = head.split(' ').collect::<Vec<_>>()[..] else { return Err(Refusal::Foreign) };
    let version: u32 = version.parse().map_err(|_| Refusal::Foreign)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let body = &bytes[end + 1..];
    let wants: usize = length.parse().map_err(|_| Refusal::Foreign)?;
    if body.len() < wants {
        return Err(Refusal::CutOff { has: body.len(), wants });
    }
    if body.len() > wants || checksum(body) != sum {
        return Err(Refusal::Damaged("its checksum is another".to_owned()));
    }
    let mut contents: Contents = serde_json::from_slice(body).map_err(|error| Refusal::Damaged(error.to_string()))?;
    for answer in &mut contents.answers {
        answer.instances.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
    }
    Ok(contents)
}

fn checksum(body: &[u8]) -> String {
    BASE64_STANDARD.encode(digest(&SHA256, body))
}

/// Replaces the file, or leaves it as it is. Whoever reads it meanwhile sees the old or the new one, whole.
pub(crate) fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = suffixed(path, ".tmp");
    let _ = fs::remove_file(&temporary); // of a predecessor that was killed
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use lictor_config::{Claims, Query, Tagged};
    use lictor_core::gateway::maintenance::Orders;
    use proptest::prelude::*;

    use super::super::remembered::now_ms;
    use super::*;
    use crate::agent::health::Condition;
    use crate::agent::{Instance, KvEntry};

    const DAY: Duration = Duration::from_secs(86_400);

    fn contents(age: Duration) -> Contents {
        let instance = |id: &str| Instance {
            node: "n".to_owned(),
            id: id.to_owned(),
            service: "users".to_owned(),
            host: "10.0.0.1".to_owned(),
            port: 8080,
            tags: vec!["http".to_owned()],
            meta: BTreeMap::from([("version".to_owned(), "v\"2\"".to_owned())]),
            weight_passing: 10,
            weight_warning: 1,
            condition: Condition::Warning,
        };
        let query = Query { service: "users".to_owned(), tags: vec!["a".to_owned()], ..Query::default() };
        let at_ms = now_ms() - age.as_millis() as u64;
        let answer = Remembered { query, index: 17, at_ms, instances: vec![instance("a"), instance("b")] };
        let value = b"defaults: {timeout: 1s}".to_vec();
        let kv = RememberedKv { key: "k".to_owned(), at_ms, known: Some(KvEntry { modify_index: 3, value }) };
        let url = "https://idp.example/keys".to_owned();
        let keys = RememberedKeys { url, at_ms, age_s: 60, etag: None, text: "{}".to_owned() };
        let list = vec![Tagged { service: "users".to_owned(), text: "/users/*".to_owned() }];
        let claims = RememberedClaims { at_ms, claims: Claims { tag: "lictor.route".to_owned(), list } };
        Contents {
            scope: scope("orders"),
            answers: vec![answer],
            kv: Some(kv),
            keys: vec![keys],
            claims: Some(claims),
            maintenance: None,
        }
    }

    fn scope(service: &str) -> Scope {
        Scope { service: Some(service.to_owned()), datacenter: Some("dc1".to_owned()), ..Scope::default() }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lictor-disk-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_is_written_is_read() {
        let contents = contents(Duration::ZERO);
        assert_eq!(decode(&encode(&contents)).unwrap(), contents);
    }

    #[test]
    fn no_flipped_bit_is_believed() {
        let good = encode(&contents(Duration::ZERO));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn no_part_is_believed_and_nothing_after_the_end() {
        let good = encode(&contents(Duration::ZERO));
        for length in 0..good.len() {
            let refusal = decode(&good[..length]).unwrap_err();
            assert!(matches!(refusal, Refusal::CutOff { .. }), "{length} bytes: {refusal}");
        }
        assert!(decode(&[&good[..], b" "].concat()).is_err());
    }

    #[test]
    fn a_later_version_and_foreign_files_are_named() {
        let good = String::from_utf8(encode(&contents(Duration::ZERO))).unwrap();
        let later = good.replacen("snapshot 1 ", "snapshot 2 ", 1);
        assert!(matches!(decode(later.as_bytes()), Err(Refusal::Version(2))));
        for foreign in
            ["{}", "lictor.yaml", "lictor snapshot x y z\n", "lictor snapshot 1\n", &"lictor snapshot".repeat(90)]
        {
            assert!(matches!(decode(foreign.as_bytes()), Err(Refusal::Foreign)), "{foreign}");
        }
    }

    #[test]
    fn the_old_and_the_others_are_refused() {
        let accepted = |contents: &Contents| accept(&encode(contents), DAY, &scope("orders"));
        assert!(accepted(&contents(DAY / 2)).is_ok());
        let old = accepted(&contents(DAY * 2)).unwrap_err();
        assert_eq!(old.to_string(), "it is 172800 s old, and consul.snapshot.max_age is 86400 s");
        let other = Contents { scope: scope("carts"), ..contents(Duration::ZERO) };
        assert_eq!(accepted(&other).unwrap_err().to_string(), "it is of service `carts`, and this is `orders`");
        let elsewhere = Scope { datacenter: None, ..scope("orders") };
        let elsewhere = Contents { scope: elsewhere, ..contents(Duration::ZERO) };
        assert_eq!(accepted(&elsewhere).unwrap_err().to_string(), "it is of datacenter (none), and this is `dc1`");
        let mut mixed = contents(Duration::ZERO);
        mixed.answers.extend(contents(DAY * 2).answers);
        assert_eq!(accepted(&mixed).unwrap().answers.len(), 1, "what is too old is left out");
        let future = Remembered { at_ms: u64::MAX, ..contents(DAY).answers.remove(0) };
        assert_eq!(future.age(), Duration::ZERO);
    }

    #[test]
    fn the_file_is_replaced_whole_is_ours_alone_and_a_refused_one_is_kept_aside() {
        let folder = folder("replaced");
        let path = folder.join("deep/snapshot");
        let file = SnapshotFile { path: path.clone(), max_age: DAY };
        assert!(load(&file, &scope("orders")).unwrap().is_none());
        for _ in 0..2 {
            store(&path, &encode(&contents(Duration::ZERO))).unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1, "nothing else is left");
        assert!(load(&file, &scope("orders")).unwrap().is_some());
        assert!(load(&file, &scope("carts")).is_err());
        assert!(!path.exists() && aside(&path).exists());
        fs::create_dir_all(&path).unwrap();
        assert!(matches!(load(&file, &scope("orders")), Err(Refusal::Unreadable(_))), "a folder");
        assert!(path.is_dir(), "it stays where it is");
        assert!(store(&aside(&path).join("x"), b"").is_err(), "a folder that cannot be made");
        fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #[test]
        fn no_file_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let head = format!("{MAGIC} {VERSION} {} {}\n", checksum(&bytes), bytes.len()).into_bytes();
            let _ = decode(&[head, bytes].concat());
        }
    }

    #[test]
    fn what_is_ordered_has_no_age() {
        let [hour, minute] = [3600, 60].map(Duration::from_secs);
        let orders = |text: &str| Some(Orders::parse(text.as_bytes()).unwrap());
        let stays = orders(r#"[{"route": null, "until_ms": null}]"#);
        let old = |maintenance| encode(&Contents { maintenance, ..contents(hour) });
        let read = accept(&old(stays.clone()), minute, &scope("orders")).unwrap();
        assert_eq!((read.maintenance, read.answers.len(), read.kv), (stays, 0, None));
        assert!(matches!(accept(&old(orders("[]")), minute, &scope("orders")), Err(Refusal::TooOld { .. })));
    }
}
