//! TLS: who we are and who is believed. TLS 1.2 (RFC 5246) and 1.3 (RFC 8446) by rustls with the ring provider.
//!
//! This crate owns everything between the names of files and a handshake: PEM, the system's roots, certificates' ends,
//! rustls configurations, ALPN (RFC 7301), sessions, and reading all of it again when it changes. It does not own
//! sockets ([`Servers::accept`] and [`Client::connect`] work on any stream), nor what the configuration's keys are called
//! ([`lictor_core::tls`] has what they say), nor what a failed handshake means to a request.
//!
//! | who | asks |
//! |---|---|
//! | a listener | [`Credentials::listener`], once, when it is opened; [`Servers::accept`] for each connection |
//! | an upstream | [`Credentials::client`] when it is first seen; [`Client::connect`] for each connection |
//! | the way to Consul or to a receiver of spans | [`Client::read`], and [`follow`] to have its files watched |
//! | who orders certificates | [`issued()`], before one is put where it is shown; [`Credentials::prove`], while a CA looks |
//! | whoever has a runtime | [`Credentials::refresh`] every few seconds; [`Credentials::shown`] for metrics |
//!
//! # Who waits for files
//!
//! Only who reads them: [`check`], [`first_end`] and [`Client::read`] do, and belong on a thread that may wait for a
//! disk; [`Credentials`] reads on tokio's threads for blocking work. A handshake takes what was read last, by a lock that is held for as long as a pointer takes to copy.
//! The first reading of a [`Client`] happens on tokio's threads for blocking work, and handshakes wait for it, each at
//! most as long as its own limit; so a file that hangs holds up nobody but those who need it.
//!
//! # When files change
//!
//! [`Credentials::refresh`] compares device, inode, size and both times of each file (of each in a folder, too), through
//! symbolic links: a rename, a link that is swapped and an edit in place are all seen. What then cannot be used changes
//! nothing, is told once as `certificate_rejected`, and is tried again at each look. What says the same as before
//! changes nothing either. Otherwise a new configuration replaces the old one, for handshakes that begin from then on.
//!
//! - A client's sessions (RFC 8446, section 4.6.1; RFC 5077) are as old as its configuration: with other roots, or
//!   another certificate of ours, the next handshake is a full one.
//! - A server's sessions and tickets outlive a new certificate, except where clients must show theirs: there a session
//!   says who was believed.
//! - A certificate that has ended does not replace one that has not, whatever else its chain has.
//! - When a root is gone, [`Client::generation`] and [`Servers::generation`] count: connections that were made before are
//!   not to be used for new requests. A root that is added puts nobody out.
//!
//! # Limits
//!
//! A client that connects to us has 10 s for its handshake. 1024 sessions are remembered for each listener (for
//! clients that take no tickets) and for each kind of client. There is no 0-RTT, no revocation list and no OCSP.

mod certificate;
mod client;
mod credentials;
mod file;
mod issued;
mod listener;
mod made;
mod proof;
mod server;
mod suites;
mod trust;

use lictor_core::tls::{ClientTls, ServerTls};

use made::Source;

pub use certificate::{first_end, renewal_id};
pub use client::{Alpn, Client, ClientSpec, HandshakeError, follow, is_name};
pub use credentials::{Credentials, Shown};
pub use file::TlsError;
pub use issued::issued;
pub use listener::Servers;
pub use server::{Names, Peer};
pub use trust::Trust;

/// Tries to read all files that these name, and says what is wrong with the first that is of no use. It waits for the disk.
pub fn check<'a>(
    servers: impl IntoIterator<Item = &'a ServerTls>,
    clients: impl IntoIterator<Item = &'a ClientTls>,
) -> Result<(), TlsError> {
    for tls in servers {
        if tls.is_awaited {
            server::client_roots(tls)?; // what we show comes later, and may be replaced
        } else {
            tls.make(None)?;
        }
    }
    for tls in clients {
        ClientSpec::from(tls).make(None)?;
    }
    Ok(())
}
