//! Our own registration, and how the application is that it speaks for.

mod app;
mod checks;
mod contest;
mod definition;
mod heartbeat;
mod probe;
mod register;
mod shedding;

pub use app::AppHealth;
pub(crate) use app::{Away, ask_app};
pub use checks::Relayed;
pub(crate) use definition::{Definition, Place};
pub use definition::{MetaPatch, UPSTREAMS, named_upstreams};
pub use probe::{Question, Said, Verdict, probe};
pub(crate) use register::{Registrar, Wish};
