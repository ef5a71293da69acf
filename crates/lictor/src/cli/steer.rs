//! `lictor endpoints`, `eject`, `pin`, `undo` and `breaker`: see and steer a running sidecar.

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use crate::cli::probe::{self, Running, encode};
use crate::term::{Paint, millis, shown, table};

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
        text += &format!(
            "{} ({} of {} instances, from {})\n",
            paint.bold(name),
            endpoints.len(),
            census["total"],
            census["source"].as_str().filter(|source| !source.is_empty()).unwrap_or("nowhere yet")
        );
        if !endpoints.is_empty() {
            text += &rows(endpoints, paint);
        }
    }
    text
}

fn rows(endpoints: &[Json], paint: Paint) -> String {
    let heads = ["endpoint", "address", "state", "weight", "in flight", "latency", "failures", "order"];
    let mut rows = vec![heads.map(|head| paint.dim(head)).to_vec()];
    for endpoint in endpoints {
        let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| endpoint["live"][key].as_u64().unwrap_or_default().to_string();
        let (state, order) = (text("state"), &endpoint["order"]);
        let left = endpoint["live"]["ejected_for_ms"].as_f64().map(|ms| format!(" ({})", millis(ms)));
        let ordered = order["order"]
            .as_str()
            .map(|word| format!("{word} ({})", millis(order["for_ms"].as_f64().unwrap_or_default())));
        rows.push(vec![
            text("id"),
            text("address"),
            paint.verdict(&(state.clone() + &left.unwrap_or_default()), state == "healthy"),
            endpoint["weight"].to_string(),
            number("in_flight"),
            endpoint["live"]["ewma_ms"].as_f64().map_or("-".to_owned(), millis),
            number("consecutive_failures"),
            ordered.unwrap_or_default(),
        ]);
    }
    table(&rows)
}
