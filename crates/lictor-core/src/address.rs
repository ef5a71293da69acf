//! Where something listens: TCP, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// An address that can be listened on or dialled. As text: `10.0.3.7:8001`, `[::1]:8001`, `unix:/run/app.sock`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket, by its absolute path.
    Unix(Arc<Path>),
}

/// The text is not an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Neither form.
    #[error("`{0}` is neither `ip:port` nor `unix:/path`")]
    Unknown(String),
    /// A path that depends on where the process was started.
    #[error("`{0}` needs an absolute path: `unix:/run/app.sock`")]
    Relative(String),
    /// `sun_path` holds 108 bytes, the last of which is 0 (unix(7)).
    #[error("`{0}` is too long for a Unix socket: at most 107 bytes")]
    TooLong(String),
}

/// `sun_path`'s size, less its last byte (unix(7)).
const PATH_MAX: usize = 107;

impl Address {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The Unix socket's path, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether only processes of this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().is_loopback())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| AddressError::Unknown(text.to_owned()));
        };
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(AddressError::Relative(text.to_owned()));
        }
        if path.as_os_str().len() > PATH_MAX {
            return Err(AddressError::TooLong(text.to_owned()));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_shown() {
        for text in ["10.0.3.7:8001", "[::1]:8001", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("app".parse::<Address>(), Err(AddressError::Unknown("app".to_owned())));
        assert_eq!("unix:app".parse::<Address>(), Err(AddressError::Relative("unix:app".to_owned())));
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<Address>().is_err());
    }

    #[test]
    fn what_other_machines_reach_is_not_local() {
        let is_local = |text: &str| text.parse::<Address>().unwrap().is_local();
        assert!(is_local("127.0.0.1:1") && is_local("unix:/a"));
        assert!(!is_local("0.0.0.0:1"));
    }
}
