//! HTTP/2 on both sides of the request path (RFC 9113; HPACK is RFC 7541).
//!
//! A connection is a [`wire`]: its streams, windows and what is to be written, shared by the tasks that use it. One task
//! drives it ([`driver`]): it reads frames, wakes whom they are for, and writes what the others have left there, all in
//! one piece. [`server`] answers each request in a task of its own, [`client`] sends them; [`body`] is what both read and
//! write. [`hpack`] (with [`huffman`]) and [`message`] turn blocks into heads.
//!
//! What a peer can make us keep is bounded: by the windows it is given, by the number of streams, by the size of lists
//! of fields, and by how often it may make us reset or answer for nothing ([`wire::Calm`]).

pub(crate) mod body;
pub(crate) mod client;
mod driver;
pub(crate) mod frame;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hpack;
mod huffman;
mod message;
pub(crate) mod server;
mod wire;

use bytes::Bytes;
use http::HeaderValue;

use self::hpack::Malformed;

pub(crate) use frame::PREFACE;
pub(crate) use hpack::Encoder;

/// What an extended CONNECT asks for (RFC 8441, section 4).
#[derive(Clone, Debug)]
pub(crate) struct Protocol(pub(crate) HeaderValue);

impl Protocol {
    fn new(protocol: Bytes) -> Result<Self, Malformed> {
        HeaderValue::from_maybe_shared(protocol).map(Self).map_err(|_| Malformed("the :protocol is not one"))
    }
}
