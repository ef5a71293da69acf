//! What a service has said of credentials, for as long as it holds, and what it is being asked; one worker's.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, StatusCode};
use lictor_core::Failure;
use lictor_core::gateway::asking::Asking;
use lictor_core::gateway::remembered::{Digest, Remembered};
use lictor_jose::cache::weight;
use lictor_jose::{Issuer, Verified};
use tokio::sync::watch;

/// Memory for what is known, of each worker.
const KNOWN_MAX: usize = 4 << 20;

/// What it said.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Yes(Rc<Yes>),
    No(Rc<No>),
    /// It was not there, or has failed.
    Nothing(Failure),
    /// Nobody can say what it meant.
    Nonsense(Failure),
}

/// Facts; whether they are enough for a route is asked each time.
#[derive(Debug)]
pub(crate) struct Yes {
    /// Of the answer's fields those that go on.
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    /// What its body says.
    pub(crate) known: Verified,
    /// That was a JSON object, or empty.
    pub(crate) is_readable: bool,
}

/// What the client hears.
#[derive(Debug)]
pub(crate) struct No {
    pub(crate) status: StatusCode,
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    /// It sets cookies: these are one client's.
    pub(crate) is_personal: bool,
}

/// What is known, and what is being asked.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Whose answers they are: a reload begins anew.
    of: Option<Arc<Asking>>,
    known: Remembered<Answer>,
    pub(crate) asked: HashMap<Digest, watch::Receiver<Option<Answer>>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { of: None, known: Remembered::new(KNOWN_MAX), asked: HashMap::new() }
    }
}

impl Answers {
    /// What is known of this.
    pub(crate) fn get(&mut self, asking: &Arc<Asking>, digest: &Digest, now: Instant) -> Option<Answer> {
        if !self.are_of(asking) {
            *self = Self { of: Some(Arc::clone(asking)), ..Self::default() };
        }
        self.known.get(digest, now)
    }

    /// Keeps it until then, unless somebody else is asked by now.
    pub(crate) fn keep(&mut self, asking: &Arc<Asking>, digest: Digest, answer: &Answer, until: Instant) {
        if self.are_of(asking) {
            self.known.keep(digest, answer.clone(), answer.weight(), until);
        }
    }

    fn are_of(&self, asking: &Arc<Asking>) -> bool {
        self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, asking))
    }
}

impl Answer {
    /// What it takes, as far as we can count it.
    fn weight(&self) -> usize {
        let fields = |fields: &[(HeaderName, HeaderValue)]| {
            fields.iter().map(|(name, value)| 80 + name.as_str().len() + value.len()).sum::<usize>()
        };
        match self {
            Self::Yes(yes) => fields(&yes.fields) + size_of::<Yes>() + size_of::<Issuer>() + weight(&yes.known.claims),
            Self::No(no) => fields(&no.fields),
            Self::Nothing(_) | Self::Nonsense(_) => 0,
        }
    }
}
