//! The files that a configuration is read from: the configuration file, the one of the environment beside it, and those
//! that values are in (`file:/path`). A change of theirs is a reason to read them all again.
//!
//! Only regular files are followed, and links to such: what a pipe or a terminal has said it does not say again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_config::{Loaded, Sources};
use lictor_os::files::{Look, follow_settled};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::configured::Configured;

/// A configuration as it was read for a start, and where it came from.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) configured: Configured,
    pub(crate) sources: Sources,
    pub(crate) loaded: Loaded,
    pub(crate) followed: Followed,
}

/// The files that are followed.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    own: Arc<[PathBuf]>,
    named: Arc<Mutex<Named>>,
    /// How they were before they were read.
    before: u64,
}

/// Files that values are in.
#[derive(Debug, Default)]
struct Named {
    in_force: Vec<PathBuf>,
    /// Of a configuration that was refused: with another file it may be right.
    tried: Vec<PathBuf>,
}

impl Start {
    /// Reads and checks a configuration. Files are looked at first: a change that comes as they are read is seen.
    pub(crate) fn read(configured: Configured) -> anyhow::Result<Self> {
        let own: Arc<[PathBuf]> = configured.files().into();
        let mut look = Look::default();
        see(&mut look, &own);
        let sources = configured.sources()?;
        let in_force = sources.files();
        see(&mut look, &in_force);
        let loaded = sources.load()?;
        let named = Arc::new(Mutex::new(Named { in_force, tried: Vec::new() }));
        Ok(Self { configured, sources, loaded, followed: Followed { own, named, before: look.end() } })
    }
}

impl Named {
    fn all(&self) -> Vec<PathBuf> {
        [&self.in_force[..], &self.tried].concat()
    }
}

impl Followed {
    /// Changes when a file has, and is written no more.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        let Self { own, named, before } = self.clone();
        follow_settled(before, move |look| {
            see(look, &own);
            let files = named.lock().all(); // a look may hang, and nobody is to wait for this lock
            see(look, &files);
        })
    }

    /// Another configuration is tried, whose values are in these.
    pub(crate) fn tries(&self, files: Vec<PathBuf>) {
        self.named.lock().tried = files;
    }

    /// It is in force.
    pub(crate) fn holds(&self) {
        let mut named = self.named.lock();
        named.in_force = std::mem::take(&mut named.tried);
    }
}

fn see(look: &mut Look, paths: &[PathBuf]) {
    let may_change = |path: &Path| std::fs::metadata(path).map_or(true, |file| file.is_file());
    paths.iter().filter(|path| may_change(path)).for_each(|path| look.at(path));
}
