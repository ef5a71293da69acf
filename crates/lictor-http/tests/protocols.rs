//! Requests, answers and frames that must not be misunderstood, all of them, against this crate alone: its servers, its
//! clients and its rules about fields, as a proxy of some 40 lines puts them together.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod corpora;
mod proxy;

use corpora::{http1_requests, http1_responses, http2_answers, http2_frames};
use proxy::Proxy;

#[test]
fn http1_requests_are_not_misunderstood() {
    assert_eq!(http1_requests::run::<Proxy>(), 545);
}

#[test]
fn http1_responses_are_not_misunderstood() {
    assert_eq!(http1_responses::run::<Proxy>(), 472);
}

#[test]
fn http2_frames_are_not_misunderstood() {
    assert_eq!(http2_frames::run::<Proxy>(), 184);
}

#[test]
fn http2_floods_stop_nobody_else() {
    assert_eq!(http2_frames::floods::<Proxy>(), 15);
}

#[test]
fn http2_answers_are_not_misunderstood() {
    assert_eq!(http2_answers::run::<Proxy>(), 161);
}

/// With these, and the floods and cases above, there are 200 of HTTP/2 clients.
#[test]
fn requests_reset_on_their_way_are_forgotten() {
    http2_frames::requests_reset_on_their_way_are_forgotten::<Proxy>();
}

#[test]
fn a_window_holds_back_its_stream_and_no_other() {
    http2_frames::a_window_holds_back_its_stream_and_no_other::<Proxy>();
}

#[test]
fn slow_clients_hold_up_nobody_else_at_their_server() {
    http2_answers::slow_clients_hold_up_nobody_else_at_their_server::<Proxy>();
}

#[test]
fn an_upload_waits_for_each_window() {
    http2_answers::an_upload_waits_for_each_window::<Proxy>();
}

#[test]
fn an_early_answer_ends_the_upload_and_reaches_the_client() {
    http2_answers::an_early_answer_ends_the_upload_and_reaches_the_client::<Proxy>();
}

#[test]
fn both_sides_stream_at_the_same_time() {
    http2_answers::both_sides_stream_at_the_same_time::<Proxy>();
}

#[test]
fn interim_answers_pass_to_clients_of_both_versions() {
    http2_answers::interim_answers_pass_to_clients_of_both_versions::<Proxy>();
}
