//! An answer whose head has come.

use std::time::{Duration, Instant};

use http::Response;
use http_body::Body as _;
use lictor_http::fields::Fields;
use tokio::task::spawn_local;

use super::replay::AnswerBody;
use crate::choose::exchange::Exchange;

/// An answer that is thrown away for a retry is read to its end up to this size, to keep its connection.
const DISCARD_MAX: u64 = 64 * 1024;

/// A response head, and what ends with its body.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) response: Response<AnswerBody>,
    /// What its head has.
    pub(super) fields: Fields,
    /// When the head came.
    pub(super) at: Instant,
    pub(super) exchange: Exchange,
}

impl Sent {
    /// Throws the answer away, but keeps the connection if that is cheap.
    pub(super) fn discard(self) {
        let Self { response, exchange, .. } = self;
        let mut body = response.into_body();
        if body.is_end_stream() {
            exchange.complete(body, Instant::now());
        } else if body.size_hint().upper().is_some_and(|size| size <= DISCARD_MAX) {
            spawn_local(async move {
                use http_body_util::BodyExt;
                let drained = async { while let Some(Ok(_)) = body.frame().await {} };
                if tokio::time::timeout(Duration::from_secs(1), drained).await.is_ok() && body.is_end_stream() {
                    exchange.complete(body, Instant::now());
                }
            });
        }
    }
}
