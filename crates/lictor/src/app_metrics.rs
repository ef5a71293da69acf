//! The application's own metrics behind ours (`metrics.merge_app`), so that one scrape gets both.
//!
//! They are fetched when somebody scrapes, once, for a second at most. What an application can do wrong must not cost
//! our own metrics: an answer that is no exposition is left out whole, and a family that we have too on its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus::{IntGauge, Registry};
use tracing::{info, warn};

use crate::family::register;
use crate::openmetrics::Form;

const WITHIN: Duration = Duration::from_secs(1);
const MAX_SIZE: usize = 4 << 20;

/// Where the application has its metrics.
#[derive(Debug)]
pub(crate) struct AppMetrics {
    uri: Uri,
    client: Client<HttpConnector, Empty<Bytes>>,
    up: IntGauge,
    dropped: IntGauge,
    /// The log has been told.
    is_failing: AtomicBool,
}

/// What the application said.
#[derive(Debug)]
pub(crate) struct AppPage {
    text: String,
    pub(crate) form: Form,
}

impl AppMetrics {
    pub(crate) fn new(uri: Uri, registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help).expect("constant names"));
        Self {
            uri,
            client: Client::builder(TokioExecutor::new()).build_http(),
            up: gauge("lictor_app_metrics_up", "1 when the application's own metrics were had for this scrape."),
            dropped: gauge(
                "lictor_app_metrics_dropped",
                "Families of the application that this scrape leaves out, because lictor has them too.",
            ),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Asks for them. Without any, the reason is told once.
    pub(crate) async fn fetch(&self, form: Form) -> Option<AppPage> {
        let asked = tokio::time::timeout(WITHIN, self.ask(form)).await;
        let page = asked.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")));
        self.up.set(i64::from(page.is_ok()));
        self.dropped.set(0);
        let was_failing = self.is_failing.swap(page.is_err(), Relaxed);
        match &page {
            Err(error) if !was_failing => {
                warn!(target: "lictor::event", kind = "app_metrics_failing", %error, "the application's metrics cannot be had");
            }
            Ok(_) if was_failing => {
                info!(target: "lictor::event", kind = "app_metrics_back", "the application's metrics are back");
            }
            _ => (),
        }
        page.ok()
    }

    /// The families that are not among ours; how many are is in a gauge, so this comes before ours are written.
    pub(crate) fn others(&self, page: &AppPage, ours: &HashSet<String>) -> String {
        let families = families(&page.text).unwrap_or_default(); // it could be read before
        let all = families.len();
        let others: Vec<_> = families.iter().filter(|family| !ours.contains(base(family.name))).collect();
        self.dropped.set((all - others.len()) as i64);
        others.iter().flat_map(|family| &family.lines).flat_map(|line| [line, "\n"]).collect()
    }

    async fn ask(&self, form: Form) -> Result<AppPage, String> {
        let accept = match form {
            Form::Text => "text/plain;version=0.0.4",
            Form::OpenMetrics => "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        };
        let request = Request::get(self.uri.clone()).header(ACCEPT, accept).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response =
            self.client.request(request).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE).map_or(Ok(""), |kind| kind.to_str()).unwrap_or_default();
        let spoken = spoken(kind).filter(|spoken| form == Form::OpenMetrics || *spoken == Form::Text);
        let spoken = spoken.ok_or_else(|| format!("it answered `{kind}`"))?;
        let body = Limited::new(response.into_body(), MAX_SIZE).collect().await;
        let body = body.map_err(|error| format!("within its answer: {error}"))?.to_bytes();
        let text = String::from_utf8(body.into()).map_err(|_| "it is not UTF-8".to_owned())?;
        families(&text)?;
        Ok(AppPage { text, form: spoken })
    }
}

/// A family's name where the type does not matter: OpenMetrics has a counter's without its suffix.
pub(crate) fn base(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// The form that a content type names. Many small servers say nothing.
fn spoken(kind: &str) -> Option<Form> {
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/openmetrics-text" => Some(Form::OpenMetrics),
        "" | "text/plain" => Some(Form::Text),
        _ => None,
    }
}

/// The lines of one family.
#[derive(Debug)]
struct Family<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl Family<'_> {
    fn has(&self, sample: &str) -> bool {
        let suffix = sample.strip_prefix(self.name);
        let suffixes = ["", "_total", "_created", "_bucket", "_sum", "_count", "_gcount", "_gsum", "_info"];
        suffix.is_some_and(|suffix| suffixes.contains(&suffix))
    }
}

/// An exposition in either form, without its comments and its end. One line that is none spoils a whole scrape, so
/// it spoils the application's part here.
fn families(text: &str) -> Result<Vec<Family<'_>>, String> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let unreadable = || format!("line {} is neither a sample nor a comment", index + 1);
        let (name, is_new) = if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_ascii_whitespace();
            if !words.next().is_some_and(|word| matches!(word, "TYPE" | "HELP" | "UNIT")) {
                continue;
            }
            let name = words.next().filter(|name| is_name(name)).ok_or_else(unreadable)?;
            (name, families.last().is_none_or(|last| last.name != name))
        } else {
            let name = sample(line).ok_or_else(unreadable)?;
            (name, families.last().is_none_or(|last| !last.has(name)))
        };
        if is_new {
            families.push(Family { name, lines: Vec::new() });
        }
        families.last_mut().ok_or_else(unreadable)?.lines.push(line);
    }
    Ok(families)
}

/// The name in `name{label="value"} value timestamp`; the rest must look like it.
fn sample(line: &str) -> Option<&str> {
    let (name, rest) = line.split_at(line.find(|letter: char| letter == '{' || letter.is_ascii_whitespace())?);
    let rest = rest.trim_ascii_start();
    let rest = if rest.starts_with('{') { after_labels(rest)? } else { rest };
    let mut words = rest.split_ascii_whitespace();
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let has_value = is_number(words.next()?);
    let has_time = words.next().is_none_or(|word| word == "#" || is_number(word)); // `#` begins an exemplar
    (is_name(name) && has_value && has_time).then_some(name)
}

/// What follows `{..}`; a brace within quotes ends nothing.
fn after_labels(text: &str) -> Option<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return Some(&text[at + 1..]),
            _ => (),
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let may = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    name.starts_with(|letter: char| !letter.is_ascii_digit()) && name.chars().all(may)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP shop_orders_total Orders, {all} of them.
# TYPE shop_orders_total counter
shop_orders_total{kind=\"a } \\\" b\"} 3 1700000000000

# a comment
process_open_fds 12
process_open_fds_limit 1024
# TYPE shop_seconds histogram
shop_seconds_bucket{le=\"+Inf\"} 2 # {trace_id=\"a\"} 0.2 1.5
shop_seconds_sum NaN
shop_seconds_count 2
# EOF
";

    #[test]
    fn a_page_is_read_by_families() {
        let families = families(PAGE).unwrap();
        let sizes: Vec<_> = families.iter().map(|family| (family.name, family.lines.len())).collect();
        let expected =
            [("shop_orders_total", 3), ("process_open_fds", 1), ("process_open_fds_limit", 1), ("shop_seconds", 4)];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn families_that_we_have_are_left_out_and_counted() {
        let app = AppMetrics::new(Uri::from_static("http://127.0.0.1:1/metrics"), &Registry::new());
        let page = AppPage { text: PAGE.to_owned(), form: Form::Text };
        let text = app.others(&page, &["process_open_fds".to_owned(), "shop_orders".to_owned()].into());
        assert!(text.starts_with("process_open_fds_limit 1024\n# TYPE shop_seconds histogram\n"), "{text}");
        assert!(!text.contains("shop_orders") && !text.contains("EOF"), "{text}");
        assert_eq!(app.dropped.get(), 2);
    }

    #[test]
    fn what_is_no_exposition_is_refused() {
        for line in
            ["Hello, world", "{a=\"b\"} 1", "1a 1", "a", "a{b=\"c} 1", "a{b=\"c\"}", "a one", "a 1 now", "# TYPE"]
        {
            assert!(families(line).is_err(), "{line}");
        }
        assert_eq!(families("# TYPE").unwrap_err(), "line 1 is neither a sample nor a comment");
    }

    #[test]
    fn the_content_type_names_the_form() {
        assert_eq!(spoken("text/plain; version=0.0.4"), Some(Form::Text));
        assert_eq!(spoken("application/openmetrics-text; version=1.0.0; charset=utf-8"), Some(Form::OpenMetrics));
        assert_eq!((spoken(""), spoken("text/html")), (Some(Form::Text), None));
    }
}
