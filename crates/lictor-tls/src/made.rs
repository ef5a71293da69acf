//! Something made of files, made again when they change. Who uses it never waits for who reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use lictor_core::tls::KeyPair;
use lictor_os::files::Look;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::certificate::{end, first_end_of};
use crate::file::TlsError;
use crate::trust::includes;

/// Names files.
pub(crate) trait Source {
    /// What is made of them.
    type Config;

    /// Reads them. What an earlier one was may live on in the new one.
    fn make(&self, earlier: Option<&Made<Self::Config>>) -> Result<Made<Self::Config>, TlsError>;

    /// Notes how they are now.
    fn look(&self, look: &mut Look);

    /// All of them, for the log.
    fn files(&self) -> Vec<PathBuf>;

    /// What is shown, if anything.
    fn identity(&self) -> Option<&KeyPair>;
}

/// A configuration, and what the files said.
#[derive(Debug)]
pub(crate) struct Made<C> {
    pub(crate) config: C,
    /// Who is believed; `None`: nobody is asked, or anybody is.
    pub(crate) roots: Option<Arc<RootCertStore>>,
    /// What is shown. A chain says which key belongs to it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl<C> Made<C> {
    fn says_the_same(&self, earlier: &Self) -> bool {
        let roots = |made: &Self| made.roots.as_ref().map(|roots| roots.roots.clone());
        self.chain == earlier.chain && roots(self) == roots(earlier)
    }

    /// Whether everybody who was believed earlier still is.
    fn believes_all_of(&self, earlier: &Self) -> bool {
        match (&self.roots, &earlier.roots) {
            (Some(roots), Some(earlier)) => includes(roots, earlier),
            (None, _) | (_, None) => true, // the files do not decide it
        }
    }

    /// Seconds since the epoch at which the first of the chain ends.
    pub(crate) fn not_after(&self) -> Option<u64> {
        first_end_of(&self.chain)
    }
}

/// The latest of a source.
#[derive(Debug)]
pub(crate) struct Latest<S: Source> {
    pub(crate) source: S,
    state: watch::Sender<State<S::Config>>,
    generation: AtomicU64,
    /// How often another one was made.
    made_anew: watch::Sender<u64>,
    /// Taken by who reads, and only by who reads.
    reading: Mutex<()>,
}

#[derive(Debug)]
struct State<C> {
    /// `None` until there was one that could be used.
    made: Option<Arc<Made<C>>>,
    /// What the last look saw; `None` before the first.
    seen: Option<u64>,
    /// Why what it saw cannot be used.
    refused: Option<Arc<str>>,
    /// Because it has not come yet.
    is_awaited: bool,
}

impl<S: Source> Latest<S> {
    /// Nothing is read yet.
    pub(crate) fn new(source: S) -> Self {
        let state = State { made: None, seen: None, refused: None, is_awaited: false };
        Self {
            source,
            state: watch::Sender::new(state),
            generation: AtomicU64::default(),
            made_anew: watch::Sender::default(),
            reading: Mutex::default(),
        }
    }

    /// Reads at once.
    pub(crate) fn read(source: S) -> Result<Self, TlsError> {
        let seen = Some(seen(&source));
        let made = Some(Arc::new(source.make(None)?));
        let latest = Self::new(source);
        latest.state.send_replace(State { made, seen, refused: None, is_awaited: false });
        Ok(latest)
    }

    /// What was read last, if anything was.
    pub(crate) fn get(&self) -> Option<Arc<Made<S::Config>>> {
        self.state.borrow().made.clone()
    }

    /// The same, or why there is none; waits for the first reading.
    pub(crate) async fn ready(&self) -> Result<Arc<Made<S::Config>>, Arc<str>> {
        if let Some(made) = self.get() {
            return Ok(made);
        }
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| state.seen.is_some()).await.expect("the sender is ours");
        match (&state.made, &state.refused) {
            (Some(made), _) => Ok(Arc::clone(made)),
            (None, refused) => Err(refused.clone().unwrap_or_default()),
        }
    }

    pub(crate) fn is_rejected(&self) -> bool {
        let state = self.state.borrow();
        state.refused.is_some() && !state.is_awaited
    }

    /// How often somebody who was believed was not any more.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes when another one is made.
    pub(crate) fn made_anew(&self) -> watch::Receiver<u64> {
        self.made_anew.subscribe()
    }

    /// Looks at the files, and reads them if they are not what they were, or could not be used. It waits for the disk;
    /// while somebody else does, it does nothing.
    pub(crate) fn refresh(&self) {
        let Some(_reading) = self.reading.try_lock() else { return };
        let (earlier, before, refused) = {
            let state = self.state.borrow();
            (state.made.clone(), state.seen, state.refused.clone())
        };
        let now = Some(seen(&self.source)); // before they are read: a change meanwhile is seen by the next look
        if now == before && refused.is_none() {
            return;
        }
        match self.source.make(earlier.as_deref()).and_then(|made| self.lasts(made, earlier.as_deref())) {
            Ok(made) => self.adopt(made, earlier.as_deref(), now, refused.is_some()),
            Err(error) => {
                let is_told = now == before && refused.is_some_and(|told| *told == *error.to_string());
                self.refuse(&error, now, is_told);
            }
        }
    }

    /// Refuses a certificate that has ended in place of one that has not: an earlier backup was put back, or a renewal failed. What
    /// its chain has besides may have ended, as a cross-sign that clients need not go by; one that they do need is not told apart.
    fn lasts(&self, made: Made<S::Config>, earlier: Option<&Made<S::Config>>) -> Result<Made<S::Config>, TlsError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let has_ended = |made: &Made<S::Config>| made.chain.first().and_then(end).is_some_and(|end| end < now);
        match (self.source.identity(), earlier) {
            (Some(identity), Some(earlier)) if has_ended(&made) && !has_ended(earlier) => {
                Err(TlsError::unusable(&identity.cert, &"its certificate has ended"))
            }
            _ => Ok(made),
        }
    }

    fn adopt(&self, made: Made<S::Config>, earlier: Option<&Made<S::Config>>, seen: Option<u64>, was_refused: bool) {
        let is_new = earlier.is_none_or(|earlier| !made.says_the_same(earlier));
        let puts_out = earlier.is_some_and(|earlier| !made.believes_all_of(earlier));
        self.state.send_modify(|state| {
            (state.seen, state.refused, state.is_awaited) = (seen, None, false);
            if is_new {
                state.made = Some(Arc::new(made));
            }
        });
        if puts_out {
            // Last: who sees it finds the new configuration.
            self.generation.fetch_add(1, Ordering::Release);
        }
        if is_new && earlier.is_some() {
            self.made_anew.send_modify(|count| *count += 1);
        }
        if was_refused || (earlier.is_some() && is_new) {
            info!(target: "lictor::event", kind = "certificate_reloaded", files = self.names(), "the certificate files were read again");
        }
    }

    /// Perhaps they are only half written.
    fn refuse(&self, error: &TlsError, seen: Option<u64>, is_told: bool) {
        let had = self.get().is_some();
        let is_awaited = !had && matches!(error, TlsError::Awaited(_)); // what was there and is gone is told
        self.state.send_modify(|state| {
            (state.seen, state.refused, state.is_awaited) = (seen, Some(error.to_string().into()), is_awaited);
        });
        match (is_told || is_awaited, had) {
            (true, _) => (),
            (false, true) => {
                warn!(target: "lictor::event", kind = "certificate_rejected", files = self.names(), %error, "the earlier certificate stays in use");
            }
            (false, false) => {
                warn!(target: "lictor::event", kind = "certificate_rejected", files = self.names(), %error, "there is no TLS until they can be used");
            }
        }
    }

    fn names(&self) -> String {
        self.source.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn seen(source: &impl Source) -> u64 {
    let mut look = Look::default();
    source.look(&mut look);
    look.end()
}
