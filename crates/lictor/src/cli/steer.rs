//! `lictor endpoints`, `eject`, `pin`, `undo` and `breaker`: see and steer a running sidecar.

use std::cmp::Reverse;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use crate::cli::probe::{self, Running, encode};
use crate::term::{Paint, failure, millis, rank, shown, table};

/// An order about an endpoint.
#[derive(Args, Debug)]
pub(super) struct Endpoint {
    /// The endpoint's id, as `lictor endpoints` shows it.
    id: String,
    /// For how long; then the order ends by itself.
    #[arg(long = "for", default_value = "5m")]
    lasts: String,
    /// Only for this upstream; default: each that has the endpoint.
    #[arg(long)]
    upstream: Option<String>,
    #[command(flatten)]
    running: Running,
}

/// An order about a circuit breaker.
#[derive(Args, Debug)]
pub(super) struct Breaker {
    /// What it is to be; `auto` takes an order back.
    state: BreakerState,
    /// The upstream.
    upstream: String,
    /// For how long; then the order ends by itself.
    #[arg(long = "for", default_value = "5m")]
    lasts: String,
    #[command(flatten)]
    running: Running,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BreakerState {
    Open,
    Close,
    Auto,
}

/// Prints the endpoints of all upstreams, or of one.
pub(super) fn endpoints(upstream: Option<&str>, running: &Running) -> anyhow::Result<u8> {
    let page = upstream.map_or("endpoints".to_owned(), |name| format!("endpoints/{}", encode(name)));
    let page = probe::page(&running.admin()?, &page)?;
    running.output.print(&page, |page| in_rows(page, Paint::stdout()));
    Ok(0)
}

/// `eject`, `pin` or `undo`.
pub(super) fn order(word: &str, asked: &Endpoint) -> anyhow::Result<u8> {
    let mut page = format!("endpoints/{}/{word}?for={}", encode_id(&asked.id), encode(&asked.lasts));
    if let Some(upstream) = &asked.upstream {
        page += &format!("&upstream={}", encode(upstream));
    }
    let done = probe::call(&asked.running.admin()?, "POST", &page)?;
    asked.running.output.print(&done, |done| {
        let names: Vec<&str> = done["upstreams"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let lasts = done["for_ms"].as_f64().map_or(String::new(), |ms| format!(" for {}", millis(ms)));
        format!("{word} {} of {}{lasts}\n", asked.id, names.join(", "))
    });
    Ok(0)
}

pub(super) fn breaker(asked: &Breaker) -> anyhow::Result<u8> {
    let state = match asked.state {
        BreakerState::Open => "open",
        BreakerState::Close => "close",
        BreakerState::Auto => "auto",
    };
    let page = format!("breakers/{}?state={state}&for={}", encode_id(&asked.upstream), encode(&asked.lasts));
    let breaker = probe::call(&asked.running.admin()?, "POST", &page)?;
    asked.running.output.print(&breaker, |breaker| {
        let lasts = breaker["forced_for_ms"].as_f64();
        let lasts = lasts.map_or(" by itself".to_owned(), |ms| format!(" for {}", millis(ms)));
        format!("the breaker of {} is {}{lasts}\n", asked.upstream, breaker["state"].as_str().unwrap_or_default())
    });
    Ok(0)
}

/// A name that is one segment of a path.
fn encode_id(id: &str) -> String {
    encode(id).replace('/', "%2F")
}

fn in_rows(page: &Json, paint: Paint) -> String {
    let (page, mut text) = (shown(page), String::new());
    for (name, upstream) in page.as_object().into_iter().flatten() {
        let endpoints = upstream["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        let census = &upstream["census"];
        let unwell = ["failing", "slow", "ejected"].map(|state| {
            let count = endpoints.iter().filter(|endpoint| endpoint["state"] == state).count();
            if count > 0 { format!("; {count} {state}") } else { String::new() }
        });
        text += &format!(
            "{} ({} of {} instances, from {}{})\n",
            paint.bold(name),
            endpoints.len(),
            census["total"],
            census["source"].as_str().filter(|source| !source.is_empty()).unwrap_or("nowhere yet"),
            unwell.concat()
        );
        if !endpoints.is_empty() {
            text += &rows(endpoints, paint);
        }
    }
    text
}

/// The worst first. What is counted is of the last minute.
fn rows(endpoints: &[Json], paint: Paint) -> String {
    let heads = [
        "endpoint",
        "address",
        "state",
        "requests",
        "share",
        "failed",
        "p50",
        "p99",
        "last failure",
        "in flight",
        "weight",
        "order",
    ];
    let mut rows = vec![heads.map(|head| paint.dim(head)).to_vec()];
    let mut sorted: Vec<&Json> = endpoints.iter().collect();
    let failures = |endpoint: &Json| endpoint["recent"]["failures"].as_u64().unwrap_or_default();
    sorted.sort_by_key(|endpoint| (rank(endpoint["state"].as_str().unwrap_or_default()), Reverse(failures(endpoint))));
    for endpoint in sorted {
        let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
        let (state, order, recent) = (text("state"), &endpoint["order"], &endpoint["recent"]);
        let time = |key: &str| recent[key].as_f64().map_or("-".to_owned(), millis);
        let left = endpoint["live"]["ejected_for_ms"].as_f64().map(|ms| format!(" ({})", millis(ms)));
        let ordered = order["order"]
            .as_str()
            .map(|word| format!("{word} ({})", millis(order["for_ms"].as_f64().unwrap_or_default())));
        let last = &recent["last_failure"];
        let failed = last["cause"].as_str().zip(last["ago_ms"].as_f64());
        rows.push(vec![
            text("id"),
            text("address"),
            paint.verdict(&(state.clone() + &left.unwrap_or_default()), state == "healthy"),
            recent["requests"].to_string(),
            recent["share"].as_f64().map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0)),
            failures(endpoint).to_string(),
            time("p50_ms"),
            time("p99_ms"),
            failed.map_or("-".to_owned(), |(cause, ago)| failure(cause, ago)),
            endpoint["live"]["in_flight"].as_u64().unwrap_or_default().to_string(),
            endpoint["weight"].to_string(),
            ordered.unwrap_or_default(),
        ]);
    }
    table(&rows)
}
