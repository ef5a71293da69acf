//! Our own registration, and how the application is that it speaks for.

mod app;
mod definition;
mod heartbeat;
mod probe;
mod register;

pub use app::AppHealth;
pub(crate) use app::ask_app;
pub(crate) use definition::{Definition, Place, called};
pub use definition::{UPSTREAMS, named_upstreams};
pub use probe::probe;
pub(crate) use register::{Registrar, Wish};
