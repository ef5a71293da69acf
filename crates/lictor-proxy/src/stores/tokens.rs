//! What a worker knows of tokens: which it has believed, and who is believed now.

use std::sync::Arc;
use std::time::SystemTime;

use lictor_jose::cache::{Cache, CacheLimits};
use lictor_jose::{Issuers, Keyring, Refusal, Verified};
use tokio::sync::Notify;

/// Between those who judge tokens and who fetches keys.
#[derive(Debug, Default)]
pub struct KeyBell {
    /// A token came with a `kid` that no key has, and a fetch is due for it.
    pub wanted: Notify,
    /// A fetch has ended, whatever came of it.
    pub ended: Notify,
}

/// One worker's.
#[derive(Debug)]
pub(crate) struct Tokens {
    cache: Cache,
    /// Of this keyring, as it was at this version.
    seen: Option<(Arc<Keyring>, u64, Arc<Issuers>)>,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { cache: Cache::new(CacheLimits::default()), seen: None }
    }

    /// What the token says, by memory or by its signature.
    pub(crate) fn verify(&mut self, token: &str, keyring: &Arc<Keyring>, now: SystemTime) -> Result<Verified, Refusal> {
        let issuers = self.issuers(keyring);
        self.cache.verify(token.as_bytes(), &issuers, now).map(|(verified, _)| verified)
    }

    fn issuers(&mut self, keyring: &Arc<Keyring>) -> Arc<Issuers> {
        let version = keyring.version();
        match &self.seen {
            Some((seen, at, issuers)) if *at == version && Arc::ptr_eq(seen, keyring) => Arc::clone(issuers),
            _ => {
                // The version first: whoever puts others there now is seen the next time.
                let issuers = keyring.issuers();
                self.seen = Some((Arc::clone(keyring), version, Arc::clone(&issuers)));
                issuers
            }
        }
    }
}
