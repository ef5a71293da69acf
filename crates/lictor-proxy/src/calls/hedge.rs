//! Hedging: when an answer is slow to come, the request is sent to another endpoint too, and the first good answer
//! counts. The other copy is abandoned, which its endpoint sees as a client that went away.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use lictor_core::Failure;
use lictor_core::policy::{Hedge, HedgeDelay};

use super::attempt::attempt;
use super::call::Call;
use super::sent::Sent;
use crate::books::record::Record;

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Sent, Failure>> + 'a>>;

/// Tries, and while that takes long tries elsewhere too.
pub(super) async fn hedged(call: &Call, hedge: Hedge, record: &Record) -> Result<Sent, Failure> {
    let Some(delay) = delay(call, hedge.after) else { return attempt(call, record).await };
    let meter = |outcome| call.worker.shared.metrics.hedged(&call.upstream.upstream.name, outcome);
    let mut running: Vec<(u32, Attempt<'_>)> = vec![(0, Box::pin(attempt(call, record)))];
    let mut sent = 0;
    let mut most = hedge.max;
    loop {
        let (copy, result) = if sent < most {
            match tokio::time::timeout(delay, first(&mut running)).await {
                Ok(ended) => ended,
                Err(_) if !call.has_other(Instant::now()) => {
                    most = sent; // nobody else to ask
                    continue;
                }
                Err(_) if !call.upstream.budget.withdraw(Instant::now()) => {
                    meter("denied");
                    most = sent;
                    continue;
                }
                Err(_) => {
                    meter("sent");
                    sent += 1;
                    running.push((sent, Box::pin(attempt(call, record))));
                    continue;
                }
            }
        } else {
            first(&mut running).await
        };
        match result {
            Ok(answer) if running.is_empty() || call.objection(&answer).is_none() => {
                if copy > 0 {
                    meter("won");
                }
                return Ok(answer);
            }
            Ok(answer) => answer.discard(), // a better one may be on its way
            Err(failure) if running.is_empty() => return Err(failure),
            Err(_) => (),
        }
    }
}

/// The first attempt to end; it is taken out.
async fn first(running: &mut Vec<(u32, Attempt<'_>)>) -> (u32, Result<Sent, Failure>) {
    poll_fn(|context| {
        for index in 0..running.len() {
            if let Poll::Ready(result) = running[index].1.as_mut().poll(context) {
                let (copy, _) = running.remove(index);
                return Poll::Ready((copy, result));
            }
        }
        Poll::Pending
    })
    .await
}

/// When an answer is slow; `None` while that is not known.
fn delay(call: &Call, after: HedgeDelay) -> Option<Duration> {
    match after {
        HedgeDelay::Fixed(delay) => Some(delay),
        HedgeDelay::Quantile(share) => call.upstream.latencies.borrow_mut().quantile(share, Instant::now()),
    }
}
