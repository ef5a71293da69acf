//! HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113) as a proxy needs them: strict, streaming, bounded, on one thread.
//!
//! It is the wire and nothing else. It knows no upstream, no policy and no log; it does not dial and does not listen. Who
//! uses it accepts a connection, makes a [`stream::Stream`] of it, finds out by [`sniff`] what is spoken, and has
//! [`http1::server::serve`] or [`http2::server::serve`] ask an [`Answerer`]. To ask somebody else there are
//! [`http1::client::Connection`] and [`http2::client::Connection`]. Bodies are [`http_body`]'s, heads are [`http`]'s;
//! [`RequestBody`] and [`AnswerBody`] are what comes, whichever version it comes in.
//!
//! What makes it a proxy's:
//!
//! - **Strict.** What could be understood in two ways is refused, never repaired, so that nobody further on understands it
//!   otherwise. [`fields`] has what RFC 9110 asks of an intermediary.
//! - **Nothing is gathered.** Bodies pass as they come, and the reader's pace is the writer's.
//! - **As it was written.** HTTP/1.1 heads keep the case of their names and their reason phrase ([`Spelling`]).
//! - **Bounded.** Heads, fields, chunk extensions, windows, streams, resets, interim answers, silence: each has a limit
//!   beside the code that keeps it.
//! - **One thread.** A connection lives on a `tokio` runtime of one thread, within a `LocalSet` or `LocalRuntime`; nothing
//!   is locked, and nothing is `Send`.
//! - **Few allocations.** Buffers and maps of fields belong to the thread ([`buffers`]); an idle connection has none.
//!
//! `laws` (a feature) is what it is held to, whatever bytes come: fuzzers and tests call it.
//!
//! `examples/hello.rs` is a server, `examples/get.rs` a client.

#![warn(missing_docs)]

pub mod buffers;
mod counted;
mod digits;
mod error;
pub mod fields;
mod framing;
pub mod http1;
pub mod http2;
mod known;
#[cfg(any(feature = "laws", test))]
pub mod laws;
mod message;
mod prelude;
pub mod proxied;
mod service;
pub mod sniff;
mod spelling;
mod stall;
pub mod stream;
pub mod target;
mod writer;

pub use self::digits::decimal;
pub use self::error::{BodyError, Refused};
pub use self::message::{AnswerBody, Either, Interim, RequestBody};
pub use self::service::{Answer, Answerer, Whole};
pub use self::spelling::Spelling;
pub use self::writer::WriteHead;
