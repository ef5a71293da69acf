//! Our ACL token: given, or in a file that is read again when it changes. The file is read on threads that may wait: one
//! that hangs holds up nobody but the first calls, and those for a moment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_config::Consul;
use lictor_core::Secret;
use lictor_os::files;
use parking_lot::RwLock;
use tokio::sync::OnceCell;
use tracing::{info, warn};

/// Of a token's file, in bytes.
const TOKEN_MAX: usize = 64 << 10;
/// For the first reading; calls go without a token after that.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// For any later one.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// The token.
#[derive(Debug)]
pub(super) struct Token {
    now: RwLock<Option<Secret>>,
    file: Option<PathBuf>,
    first: OnceCell<()>,
}

impl Token {
    /// Nothing is read yet.
    pub(super) fn new(settings: &Consul) -> Self {
        Self { now: RwLock::new(settings.token.clone()), file: settings.token_file.clone(), first: OnceCell::new() }
    }

    /// What was read last.
    pub(super) fn now(&self) -> Option<Secret> {
        self.now.read().clone()
    }

    /// Returns once the file has been read for the first time, or has taken too long.
    pub(super) async fn first(&self) {
        let Some(path) = &self.file else { return };
        let read = async {
            self.read(FIRST_WITHIN).await;
            if self.now().is_none() {
                let path = path.display();
                warn!(%path, "the Consul token file has no token; Consul is asked without one until it does");
            }
        };
        self.first.get_or_init(|| read).await;
    }

    /// Reads the file again whenever it changes, until the token is another's no more: `is_used` says whether there is
    /// still somebody whom a new one is of use to.
    pub(super) async fn follow(self: Arc<Self>, is_used: impl Fn() -> bool) {
        let Some(path) = self.file.clone() else { return };
        self.first().await;
        let watched = path.clone();
        let mut changes = files::follow(None, move |look| look.at(&watched));
        while changes.changed().await.is_ok() {
            if self.read(AGAIN_WITHIN).await {
                info!(target: "lictor::event", kind = "token_reloaded", path = %path.display(), "there is another Consul token");
                if !is_used() {
                    return;
                }
            }
        }
    }

    /// Whether it is another token now. A file that is gone, empty or half of something changes nothing.
    async fn read(&self, at_most: Duration) -> bool {
        let Some(path) = &self.file else { return false };
        match files::read_within(path.clone(), TOKEN_MAX, at_most).await {
            Ok(text) if !text.trim().is_empty() => {
                let read = Some(Secret::new(text.trim()));
                let mut now = self.now.write();
                let is_other = *now != read;
                *now = read;
                is_other
            }
            Ok(_) => {
                tracing::debug!(path = %path.display(), "the Consul token file is empty");
                false
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the Consul token file cannot be read");
                false
            }
        }
    }
}
