//! The bearer token of our calls, and another one after a 401: tokens are replaced as files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use lictor_core::deadline::{End, sooner};
use lictor_core::retry::Next;
use lictor_core::{Failure, Reason, Secret};
use tokio::task::spawn_blocking;

use super::call::Call;
use crate::books::record::Record;
use crate::clock;

/// A token is shorter.
const TOKEN_MAX: u64 = 64 << 10;
/// A disk may hang.
const WITHIN: Duration = Duration::from_secs(1);

impl Call {
    /// Shows the upstream's token from now on, unless the application shows something of its own.
    pub(super) fn show_token(&self) {
        let upstream = &self.upstream.upstream;
        let Some(bearer) = &upstream.bearer else { return };
        let is_set = |set: &[(HeaderName, HeaderValue)]| set.iter().any(|(name, _)| *name == AUTHORIZATION);
        if !self.head.headers.contains_key(AUTHORIZATION) && !is_set(&upstream.set_headers) {
            self.token.replace(Some(bearer.header()));
        }
    }

    /// After a 401: whether the token is another one by now, and the request may be sent once more with that.
    pub(super) async fn has_newer_token(&self, record: &Record) -> bool {
        let refused = self.token.borrow().clone();
        let (Some(bearer), Some(refused)) = (&self.upstream.upstream.bearer, refused) else { return false };
        let now = Instant::now();
        let may_repeat = self.is_idempotent
            && self.body.is_replayable()
            && self.upgrade.is_none()
            && !self.has_shown_another.get()
            && (self.tried.borrow().len() as u32) < self.max_attempts
            && clock::check(self.end(), now).is_ok();
        if !may_repeat {
            return false;
        }
        if let Some(file) = bearer.file_after(&refused, now) {
            let file = file.clone();
            // On a thread of its own: this one has other requests.
            let patience = End { at: now + WITHIN, reason: Reason::Timeout };
            let read = spawn_blocking(move || read(&file));
            if let Ok(Ok(Ok(token))) = clock::within(sooner(self.end(), Some(patience)), read).await {
                bearer.renew(&token);
            }
        }
        if bearer.header() == refused || !self.upstream.budget.withdraw(Instant::now()) {
            return false;
        }
        self.has_shown_another.set(true);
        self.show_token();
        record.followed(
            &Failure::new(Reason::Status, "answered 401 to a token that has changed"),
            Next::Retry(Duration::ZERO),
        );
        self.upstream.meters.retried();
        true
    }
}

fn read(file: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(file)?.take(TOKEN_MAX).read_to_string(&mut text)?;
    Ok(Secret::new(text.trim_end()))
}
