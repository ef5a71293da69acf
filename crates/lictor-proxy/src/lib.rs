//! The data plane: one request in, one answer out.
//!
//! A request's life, in the order of the modules: [`listen`] accepts a connection and gives it to the [`worker`] with
//! the fewest, [`serve`] reads HTTP from it ([`tunnel`] carries what is not HTTP), [`forward`] finds its [`target`] and
//! takes it through admission and its attempts, [`attempt`] picks an endpoint, takes a connection from the [`pool`] (or has [`connect`] dial one) and sends; the
//! answer goes back through [`body`], and [`record`] closes the books when its last byte is out, and the [`recorder`] keeps
//! the stories that may be asked for ([`refused`] those of heads that cannot be read). [`headers`] is what a
//! proxy does to a head; [`respond`] is what lictor says when there is no answer to pass on.
//!
//! N threads, each with its own single-threaded runtime, its own pools and balancers: a connection, once given to a
//! worker, never leaves it, so the path has no lock and no shared reference count. What must be true for the process
//! (breakers, ejections, limits) is atomic and lives in `lictor-core`. Nothing here knows Consul or YAML: the [`Mesh`]
//! comes through a watch channel.
//!
//! [`Mesh`]: lictor_core::Mesh

mod access;
mod attempt;
mod body;
mod cache;
mod connect;
mod exemplar;
mod explain;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod headers;
mod hedge;
mod http1;
mod http2;
mod inbound;
mod incoming;
mod listen;
mod metrics;
mod passage;
mod permit;
mod plane;
mod pool;
mod record;
mod recorder;
mod refused;
mod replay;
mod respond;
mod rewrite;
mod serve;
mod span;
mod spent;
mod spread;
mod stall;
mod steer;
mod stream;
mod tap;
mod target;
mod tunnel;
mod upgrade;
mod worker;

pub use exemplar::Exemplar;
pub use explain::{Candidate, Explanation, OnFailure, Question, Refusal, RouteView};
pub use listen::{BindError, Bound};
pub use plane::{DataPlane, EndpointReport, Report, Settings, UpstreamReport, Which};
pub use span::{Span, SpanEvent, SpanKind, Value};
pub use spread::quantile;
pub use tap::{Fields, Tapped, Tapping};
