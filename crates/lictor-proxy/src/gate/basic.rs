//! Names and passwords (RFC 7617). A hash is computed on another thread, few at once; what was right is known for a while by a
//! keyed digest, so that a client pays once.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use lictor_core::Reason;
use lictor_core::deadline::End;
use lictor_core::gateway::basic::{Users, split};
use lictor_jose::{Refusal, Verified, Why};
use tokio::task::spawn_blocking;

use super::refusal::{No, busy, refusal};
use crate::clock;
use crate::world::worker::Worker;

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longer than any name and password: it is not decoded.
const SHOWN_MAX: usize = 1024;
/// A client waits no longer for its turn.
const WITHIN: Duration = Duration::from_secs(5);

/// What is shown after `Basic`; `None`: nothing, or another scheme.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut fields = headers.get_all(AUTHORIZATION).into_iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(refusal(Why::SeveralCredentials, "more than one Authorization"));
    }
    let field = field.as_bytes().trim_ascii();
    let (scheme, rest) = field.split_at(field.iter().position(|byte| *byte == b' ').unwrap_or(field.len()));
    Ok(scheme.eq_ignore_ascii_case(b"basic").then(|| rest.trim_ascii()))
}

/// Whose they are.
pub(super) async fn known(worker: &Worker, users: &Users, shown: &[u8]) -> Result<Verified, No> {
    let wrong = || refusal(Why::UnknownKey, "not the name and password of a user");
    let decoded = Some(shown).filter(|shown| shown.len() <= SHOWN_MAX).and_then(|shown| BASE64.decode(shown).ok());
    let decoded = decoded.ok_or_else(wrong)?;
    let (name, password) = split(&decoded).ok_or_else(wrong)?;
    let (user, is_his) = users.find(name);
    let turns = worker.shared.passwords.as_ref().ok_or_else(|| busy("there is nothing to compare passwords with"))?;
    let digest = turns.digest(name, password, user.password.text());
    if worker.passwords.borrow_mut().has(&digest, Instant::now()) {
        return Ok(user.known.clone());
    }
    let waiting = turns.queue().ok_or_else(|| busy("too many passwords wait to be compared"))?;
    let end = Some(End { at: Instant::now() + WITHIN, reason: Reason::AuthUnavailable });
    let late = || busy("the password was not compared in time");
    let turn = clock::within(end, waiting.turn()).await.ok().flatten().ok_or_else(late)?;
    if worker.passwords.borrow_mut().has(&digest, Instant::now()) {
        return Ok(user.known.clone()); // another request of his was first
    }
    let (password, hash) = (password.to_owned(), user.password.clone());
    let compared = spawn_blocking(move || {
        let is_right = hash.is_of(&password);
        drop(turn);
        is_right
    });
    let compared = clock::within(end, compared).await.ok().and_then(Result::ok).ok_or_else(late)?;
    let is_right = compared.ok_or_else(|| busy("there is no memory to compare the password with"))?;
    if !is_right || !is_his {
        return Err(wrong().into());
    }
    worker.passwords.borrow_mut().keep(digest, Instant::now());
    Ok(user.known.clone())
}
