//! Real processes for tests: a Consul agent, backends, lictor itself, and clients that show what they did.
//!
//! Everything is on loopback, on ports that the kernel chose, and ends with the value that started it. Nothing waits
//! for a time: [`eventually`] waits for a condition.

mod backend;
mod canary;
mod certificates;
mod client;
mod consul;
mod crowd;
mod delays;
mod load;
mod ports;
mod raw;
mod sidecar;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use backend::Backend;
pub use canary::{assert_clean, listen, pages, receiver};
pub use certificates::{Authority, Pair, get_over, tls_client};
pub use client::{Answer, exchange, get, request};
pub use consul::{Consul, MANAGEMENT};
pub use crowd::{Crowd, Front, Kind, Seen};
pub use delays::Delays;
pub use load::{Load, Tally};
pub use ports::free_ports;
pub use raw::{Blackhole, RawServer, connect, connect_from, read_head};
pub use sidecar::{Sidecar, lictor};

/// How long anything may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `condition` gives something; panics with what it last said.
pub fn eventually<T, E: Debug>(what: &str, mut condition: impl FnMut() -> Result<T, E>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= until => panic!("not within {PATIENCE:?}: {what}; last: {last:?}"),
            Err(_) => pause(),
        }
    }
}

/// The same for a claim; `seen` is what is shown when it never comes true.
pub fn eventually_is<T: Debug>(what: &str, mut seen: impl FnMut() -> T, claim: impl Fn(&T) -> bool) -> T {
    eventually(what, || {
        let value = seen();
        if claim(&value) { Ok(value) } else { Err(value) }
    })
}

/// Between two looks at a condition.
fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the interval of a poll, not a guess how long something takes")]
    std::thread::sleep(Duration::from_millis(5));
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(|crates| crates.parent()).expect("crates/lictor-testkit is two below the root").to_owned()
}

/// A folder of this process's own, removed by whoever made it.
pub fn scratch(name: &str) -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("lictor-test-{}-{number}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    folder
}
