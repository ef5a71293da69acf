//! The sidecars of this machine, as far as they are on our network. Each holds a Unix socket without a file whose name says
//! who it is (unix(7), abstract sockets): /proc/net/unix lists it for everybody who could reach its admin listener, no folder
//! has to be writable, and it is gone with its process, however that ended. Nobody has to speak on it.
//!
//! Anybody can take such a name: whoever is sent to a sidecar by it asks first whether it is held by a process of theirs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as Name, UnixDatagram};

/// All names begin so; the number is that of the shape of what follows.
const PREFIX: &str = "lictor/1/";
/// Bytes that a name may have (unix(7): 108 with the zero that begins it).
const NAME_MAX: usize = 107;
/// Bytes of /proc/net/unix that are read, and sidecars that are looked at.
const TABLE_MAX: u64 = 8 << 20;
const NEIGHBOURS_MAX: usize = 256;

/// A sidecar, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// As its own container counts.
    pub(crate) pid: u32,
    /// Where its admin listener is reached.
    pub(crate) admin: SocketAddr,
    /// The default port was taken.
    pub(crate) has_moved: bool,
    pub(crate) version: String,
    /// Cut where it is long; empty where it has none.
    pub(crate) service: String,
    /// Of its socket.
    inode: u64,
}

/// Says who this process is, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Announced {
    _socket: UnixDatagram,
}

impl Announced {
    pub(crate) fn new(admin: SocketAddr, has_moved: bool, version: &str, service: &str) -> io::Result<Self> {
        let moved = if has_moved { "moved" } else { "" };
        let name = format!("{PREFIX}{}/{admin}/{moved}/{version}/{service}", std::process::id());
        let socket = UnixDatagram::bind_addr(&Name::from_abstract_name(cut(&name, NAME_MAX))?)?;
        socket.shutdown(Shutdown::Read)?; // nobody can leave anything with us
        Ok(Self { _socket: socket })
    }
}

impl Neighbour {
    /// One of a test.
    #[cfg(test)]
    pub(crate) fn known(pid: u32, admin: SocketAddr, service: &str) -> Self {
        Self { pid, admin, has_moved: false, version: "0.1.0".to_owned(), service: service.to_owned(), inode: 0 }
    }

    /// A line of /proc/net/unix (proc_net(5)): seven fields, then the name, whose zero is shown as `@`.
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let inode = fields.nth(6)?.parse().ok()?;
        let (_, name) = line.split_once(" @")?;
        let mut parts = name.strip_prefix(PREFIX)?.splitn(5, '/');
        let mut next = || parts.next();
        Some(Self {
            pid: next()?.parse().ok()?,
            admin: next()?.parse().ok()?,
            has_moved: next()? == "moved",
            version: next()?.to_owned(),
            service: next()?.to_owned(),
            inode,
        })
    }

    /// Whether the process that it says it is holds this name: the kernel shows that of processes that are ours alone.
    pub(crate) fn is_ours(&self) -> bool {
        let socket = format!("socket:[{}]", self.inode);
        let held = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        held.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
    }

    /// Whether it is a sidecar of this service.
    pub(crate) fn serves(&self, service: &str) -> bool {
        !self.service.is_empty() && service.starts_with(&self.service) && (service == self.service || self.is_cut())
    }

    fn is_cut(&self) -> bool {
        let moved = if self.has_moved { "moved" } else { "" };
        let Self { pid, admin, version, service, .. } = self;
        format!("{PREFIX}{pid}/{admin}/{moved}/{version}/{service}").len() > NAME_MAX - 4 // a character may have four
    }
}

/// All of them, by their process ids.
pub(crate) fn neighbours() -> io::Result<Vec<Neighbour>> {
    let mut table = Vec::new();
    File::open("/proc/net/unix")?.take(TABLE_MAX).read_to_end(&mut table)?;
    let table = String::from_utf8_lossy(&table);
    let mut found: Vec<Neighbour> = table.lines().filter_map(Neighbour::read).take(NEIGHBOURS_MAX).collect();
    found.sort_by_key(|it| (it.pid, it.admin));
    Ok(found)
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_the_kernels_table() {
        let line = "0000000000000000: 00000002 00000000 00000000 0002 01 24712 @lictor/1/71/127.0.0.1:9902/moved/0.1.0/orders v2";
        let found = Neighbour::read(line).unwrap();
        assert_eq!((found.pid, found.admin, found.has_moved), (71, "127.0.0.1:9902".parse().unwrap(), true));
        assert_eq!((found.version.as_str(), found.service.as_str(), found.inode), ("0.1.0", "orders v2", 24712));
        for other in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "0: 2 0 0 2 1 24712 /run/lictor/1/71/127.0.0.1:9902//0.1.0/a",
            "0: 2 0 0 2 1 24712 @lictor/2/71/127.0.0.1:9902//0.1.0/a",
            "0: 2 0 0 2 1 24712 @lictor/1/many/127.0.0.1:9902//0.1.0/a",
            "0: 2 0 0 2 1 24712",
        ] {
            assert_eq!(Neighbour::read(other), None, "{other}");
        }
    }

    #[test]
    fn whoever_announces_itself_is_found_until_it_leaves() {
        let admin = "127.0.0.1:9".parse().unwrap();
        let service = format!("service-{}-{}", "é".repeat(60), std::process::id());
        let find = || neighbours().unwrap().into_iter().find(|it| it.pid == std::process::id() && it.admin == admin);
        let announced = Announced::new(admin, false, "0.1.0", &service).unwrap();
        let found = find().unwrap();
        assert!(found.is_ours() && found.serves(&service) && !found.serves("service"), "{found:?}");
        let stranger = Neighbour { pid: 1, ..found };
        assert!(!stranger.is_ours());
        drop(announced);
        assert_eq!(find(), None);
    }
}
