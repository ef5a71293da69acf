//! The data plane: one request in, one answer out.
//!
//! The folders are floors: each imports only from those below it. From the top:
//!
//! | floor | what |
//! |---|---|
//! | [`plane`] | the workers as the program sees them: start, bind, drain, report |
//! | [`serve`] | one accepted connection; the wire (`lictor-http`) asks it for answers |
//! | [`edge`] | a request from outside: which of the gateway's routes is it for, and what may he know of us |
//! | [`gate`] | what a gateway asks of a request before it goes on, and does to its answer |
//! | [`calls`] | one request, from its head to the last byte of its answer; read [`calls::forward`] first |
//! | [`admission`] | what may refuse a request before anything is sent |
//! | [`head`] | what a request's head becomes |
//! | [`books`] | what happened |
//! | [`choose`] | which endpoint, and what its outcome means |
//! | [`world`] | a worker, its view of the mesh, its connections |
//! | [`net`] | sockets |
//! | [`stores`] | what the process keeps: metrics, stories, spans, answers |
//! | [`names`] | the fields that mean something to lictor |
//!
//! N threads, each with its own single-threaded runtime, its own pools and balancers: a connection, once given to a
//! worker, never leaves it, so the path has no lock and no shared reference count. What must be true for the process
//! (breakers, ejections, limits) is atomic and lives in `lictor-core`. Nothing here knows Consul or YAML: the [`Mesh`]
//! comes through a watch channel.
//!
//! [`Mesh`]: lictor_core::Mesh

mod admission;
mod books;
mod calls;
mod choose;
mod clock;
mod edge;
mod gate;
mod head;
mod names;
mod net;
mod plane;
mod serve;
mod stores;
mod world;

pub use calls::explain::{Candidate, Explanation, GatewayView, OnFailure, Question, Refusal, RouteView};
#[cfg(any(feature = "laws", test))]
pub use head::rewrite::laws::header_pass;
pub use net::listen::{BindError, Bound};
pub use plane::{DataPlane, EndpointReport, Prepared, Report, Settings, UpstreamReport, Which};
pub use stores::exemplar::Exemplar;
pub use stores::flow::Flowed;
pub use stores::span::{Span, SpanEvent, SpanKind, Value};
pub use stores::spread::quantile;
pub use stores::tap::{Fields, Tapped, Tapping};
pub use stores::tokens::KeyBell;
