//! HTTP/2 on both sides (RFC 9113; HPACK is RFC 7541).
//!
//! A connection is a [`wire`]: its streams, windows and what is to be written, shared by the tasks that use it. One task
//! drives it ([`driver`]): it reads frames, wakes whom they are for, and writes what the others have left there, all in
//! one piece. [`server`] answers each request in a task of its own, [`client`] sends them; what both read and write is a
//! stream's [`channel`]: a [`body`] that comes, one that is [`outgoing`], or a [`tunnel`]'s bytes. [`hpack`] (with
//! [`huffman`]) and [`message`] turn blocks into heads.
//!
//! What a peer can make us keep is bounded: by the windows it is given, by the number of streams, by the size of lists
//! of fields, and by how often it may make us reset or answer for nothing (`wire::state::Calm`).

pub(crate) mod body;
mod channel;
pub mod client;
mod driver;
mod frame;
mod hpack;
mod huffman;
pub(crate) mod interim;
#[cfg(any(feature = "laws", test))]
pub(crate) mod laws;
mod message;
mod outgoing;
pub mod server;
mod tunnel;
mod wire;

pub use self::body::Body;
pub use self::frame::PREFACE;
pub use self::hpack::Encoder;
pub use self::interim::Interim;
pub use self::message::Protocol;
