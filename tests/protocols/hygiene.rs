//! Requests, answers and frames that must not be misunderstood, through the real lictor: some of each kind, and what is
//! lictor's own about them. All of them are held against `lictor-http` alone in its own tests.

use lictor_testkit::Sidecar;

use crate::LICTOR;
use crate::corpora::{Between, Fault, Speaks, Told, http1_requests, http1_responses, http2_answers, http2_frames};

/// A caller whose only upstream is what the case needs.
struct Lictor(Sidecar);

impl Between for Lictor {
    const ONE_IN: usize = 10;

    fn before(port: u16, speaks: Speaks) -> Self {
        let protocol = match speaks {
            Speaks::Http1 => "http",
            Speaks::Http2 => "h2c, timeout: 5s",
        };
        // One worker: the next request gets the connection that the answer came on, if that is kept.
        let yaml = format!(
            "registration: off\nservice: orders\nworkers: 1\nupstreams:\n  users: {{listen: 0, \
             static: ['127.0.0.1:{port}'], protocol: {protocol}, retry: off, breaker: off, ejection: off}}\n"
        );
        Self(Sidecar::serve(LICTOR, &yaml).up())
    }

    fn address(&self) -> String {
        self.0.address("users")
    }

    fn is_refusal(answer: &Told<'_>, fault: Option<Fault>) -> bool {
        let problem: serde_json::Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let Some(reason) = answer.only("x-lictor-reason") else { return false };
        let is_named = match fault {
            None => matches!(reason, "protocol_error" | "reset_before_response"),
            Some(Fault::Malformed) => reason == "protocol_error",
            Some(Fault::Ended) => reason == "reset_before_response",
        };
        is_named && (answer.body.is_empty() || problem["reason"] == reason)
    }

    fn resident(&self) -> Option<u64> {
        Some(self.0.resident())
    }

    fn complaints(&self) -> Vec<String> {
        self.0.log().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
    }
}

#[test]
fn http1_requests_are_not_misunderstood() {
    assert!(http1_requests::run::<Lictor>() >= 55);
}

#[test]
fn http1_responses_are_not_misunderstood() {
    assert!(http1_responses::run::<Lictor>() >= 48);
}

#[test]
fn http2_frames_are_not_misunderstood() {
    assert!(http2_frames::run::<Lictor>() >= 19);
}

#[test]
fn http2_answers_are_not_misunderstood() {
    assert!(http2_answers::run::<Lictor>() >= 17);
}

#[test]
fn http2_frames_without_number_cost_little_and_stop_nobody_else() {
    assert_eq!(http2_frames::floods::<Lictor>(), 15);
}

#[test]
fn requests_reset_on_their_way_are_forgotten() {
    http2_frames::requests_reset_on_their_way_are_forgotten::<Lictor>();
}

#[test]
fn a_window_holds_back_its_stream_and_no_other() {
    http2_frames::a_window_holds_back_its_stream_and_no_other::<Lictor>();
}

#[test]
fn slow_clients_hold_up_nobody_else_at_their_server() {
    http2_answers::slow_clients_hold_up_nobody_else_at_their_server::<Lictor>();
}

#[test]
fn an_upload_waits_for_each_window() {
    http2_answers::an_upload_waits_for_each_window::<Lictor>();
}

#[test]
fn an_early_answer_ends_the_upload_and_reaches_the_client() {
    http2_answers::an_early_answer_ends_the_upload_and_reaches_the_client::<Lictor>();
}

#[test]
fn a_client_that_goes_is_a_cancel_within_100_ms() {
    http2_answers::a_client_that_goes_is_a_cancel_within_100_ms::<Lictor>();
}

#[test]
fn both_sides_stream_at_the_same_time() {
    http2_answers::both_sides_stream_at_the_same_time::<Lictor>();
}

#[test]
fn interim_answers_pass_to_clients_of_both_versions() {
    http2_answers::interim_answers_pass_to_clients_of_both_versions::<Lictor>();
}
