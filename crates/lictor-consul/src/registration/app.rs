//! How the application beside us is. It is asked from the start to the end, registered or not, so that readiness, health
//! and the first registration say the same of it.
//!
//! Consul's own checks, and the beats of TTL checks (`heartbeat`), are not this: they may ask elsewhere and otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_config::{App, AppProbe, Check};
use lictor_core::Address;
use tokio::sync::watch;
use tracing::{info, warn};

use super::probe::{Question, Verdict as Judged, probe};

/// As long as Consul's checks give it by default.
const AT_MOST: Duration = Duration::from_secs(5);
/// Until it answers for the first time: soon, so that it is in circulation soon; and then without haste.
const STARTING: Duration = Duration::from_millis(100);
const STARTING_FOR: Duration = Duration::from_secs(60);
/// While it answers.
const WELL: Duration = Duration::from_secs(5);
/// While it does not, and when it has just failed.
const UNWELL: Duration = Duration::from_secs(1);
/// So many failures in a row are not one that was lost.
const FAILURES: u32 = 3;

/// What is known of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHealth {
    /// It has answered, and has not failed three times in a row since.
    pub is_up: bool,
    /// Of the last answer, or of the lack of one.
    pub message: String,
    /// How long that took.
    pub took: Duration,
}

impl AppHealth {
    /// Of one that does not run: it is known without asking.
    pub(crate) fn away(why: &str) -> Self {
        Self { is_up: false, message: why.to_owned(), took: Duration::ZERO }
    }
}

/// Why it does not run just now, if whoever starts it says so.
pub(crate) type Away = Option<Arc<str>>;

/// Begins to ask; `None` where there is nobody, or where it is not wanted.
pub(crate) fn ask_app(app: &App, checks: &[Check], away: watch::Receiver<Away>) -> Option<watch::Receiver<AppHealth>> {
    let address = app.address.clone()?;
    let path = match &app.probe {
        Some(AppProbe::Off) => return None,
        Some(AppProbe::Connect) => None,
        Some(AppProbe::Path(path)) => Some(path.clone()),
        None => path_of(checks).map(str::to_owned),
    };
    let question = Question::of(path.as_deref());
    let (health, known) = watch::channel(AppHealth::away(&format!("{address} has not been asked yet")));
    tokio::spawn(keep_asking(address, question, health, away));
    Some(known)
}

/// What the first check that has a path asks for.
fn path_of(checks: &[Check]) -> Option<&str> {
    checks.iter().find_map(|check| match check {
        Check::Http { target, .. } if target.starts_with('/') => Some(target.as_str()),
        Check::Ttl { probe, .. } => probe.as_deref(),
        Check::Http { .. } | Check::Tcp { .. } | Check::Grpc { .. } => None,
    })
}

async fn keep_asking(
    address: Address,
    question: Question,
    health: watch::Sender<AppHealth>,
    mut away: watch::Receiver<Away>,
) {
    loop {
        let why = away.borrow_and_update().clone();
        let again = match why {
            // Whoever answers there now is not it.
            Some(why) => {
                health.send_replace(AppHealth::away(&why));
                away.changed().await
            }
            None => tokio::select! {
                biased;
                again = away.changed() => again,
                () = ask_again_and_again(&address, &question, &health) => return,
            },
        };
        if again.is_err() {
            // Nobody starts it but once.
            return ask_again_and_again(&address, &question, &health).await;
        }
    }
}

async fn ask_again_and_again(address: &Address, question: &Question, health: &watch::Sender<AppHealth>) {
    let (began, mut verdict) = (Instant::now(), Verdict::default());
    loop {
        let asked = Instant::now();
        let said = probe(address, question, AT_MOST).await;
        let was_up = verdict.is_up;
        verdict.take(said.verdict == Judged::Passing);
        let message = said.words;
        match (was_up, verdict.is_up) {
            (false, true) => info!(target: "lictor::event", kind = "application_up", "{message}"),
            (true, false) => warn!(target: "lictor::event", kind = "application_down", "{message}"),
            _ => (),
        }
        health.send_replace(AppHealth { is_up: verdict.is_up, message, took: asked.elapsed() });
        tokio::time::sleep(verdict.pause(began.elapsed())).await;
    }
}

/// Whether it counts as up.
#[derive(Debug, Default)]
struct Verdict {
    is_up: bool,
    has_been_up: bool,
    failures: u32,
}

impl Verdict {
    fn take(&mut self, is_good: bool) {
        self.failures = if is_good { 0 } else { self.failures.saturating_add(1) };
        self.is_up = is_good || (self.is_up && self.failures < FAILURES);
        self.has_been_up |= is_good;
    }

    /// Until it is asked again.
    fn pause(&self, since_start: Duration) -> Duration {
        match self.failures {
            0 => WELL,
            _ if !self.has_been_up && since_start < STARTING_FOR => STARTING,
            _ => UNWELL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_answer_is_up_and_three_failures_in_a_row_are_down() {
        let mut verdict = Verdict::default();
        let seen: Vec<bool> = [false, false, false, true, false, false, true, false, false, false, false, true]
            .into_iter()
            .map(|is_good| {
                verdict.take(is_good);
                verdict.is_up
            })
            .collect();
        assert_eq!(seen, [false, false, false, true, true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn it_is_asked_often_until_it_is_up_and_soon_again_after_a_failure() {
        let mut verdict = Verdict::default();
        verdict.take(false);
        assert_eq!(verdict.pause(Duration::from_secs(59)), STARTING);
        assert_eq!(verdict.pause(Duration::from_secs(60)), UNWELL);
        verdict.take(true);
        assert_eq!(verdict.pause(Duration::ZERO), WELL);
        verdict.take(false);
        assert_eq!(verdict.pause(Duration::ZERO), UNWELL);
    }

    #[test]
    fn the_path_is_that_of_the_first_check_that_has_one() {
        let (interval, timeout) = (Duration::from_secs(10), Duration::from_secs(5));
        let http = |target: &str| Check::Http { target: target.to_owned(), interval, timeout };
        assert_eq!(path_of(&[Check::Tcp { interval, timeout }, http("http://a/x"), http("/health")]), Some("/health"));
        assert_eq!(path_of(&[Check::Ttl { ttl: interval, probe: Some("/up".to_owned()) }]), Some("/up"));
        assert_eq!(path_of(&[Check::Grpc { service: String::new(), interval, timeout }]), None);
    }
}
