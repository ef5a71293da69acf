//! What the process keeps of what happened. None of them knows who writes.

pub(crate) mod answers;
pub(crate) mod awaited;
pub(crate) mod causes;
pub(crate) mod challenges;
pub(crate) mod date;
pub(crate) mod exemplar;
pub(crate) mod flow;
pub(crate) mod kept;
pub(crate) mod limiter;
pub(crate) mod metrics;
pub(crate) mod millis;
pub(crate) mod outcome;
pub(crate) mod passwords;
pub(crate) mod reached;
pub(crate) mod recorder;
pub(crate) mod request_id;
pub(crate) mod span;
pub(crate) mod spent;
pub(crate) mod spread;
pub(crate) mod tap;
pub(crate) mod tokens;
