//! OpenMetrics 1.0, for whoever asks for it: the same families as Prometheus' text format, with exemplars.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::ACCEPT;
use lictor_proxy::Exemplar;
use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// The family whose buckets have exemplars.
const EXEMPLIFIED: &str = "lictor_upstream_request_duration_seconds";

/// What must come last.
pub(crate) const END: &str = "# EOF\n";

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Prometheus' text format.
    Text,
    OpenMetrics,
}

impl Form {
    /// The better one of what `Accept` takes (RFC 9110, section 12.5.1); of equals the richer one.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(ACCEPT);
        let ranges = accept.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let (mut open, mut text) = (0.0, 0.0);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let quality = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
            let quality = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
            let is_other = |parameter: &&str| parameter.starts_with("version=") && *parameter != "version=1.0.0";
            match kind.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" if !parameters.iter().any(is_other) => open = f64::max(open, quality),
                "text/plain" | "text/*" => text = f64::max(text, quality),
                _ => (),
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All families, with the latest sampled request of each bucket, by upstream. `END` is still to follow.
pub(crate) fn encode(families: &[MetricFamily], exemplars: &BTreeMap<String, Vec<Option<Exemplar>>>) -> String {
    let mut out = String::new();
    for family in families {
        write_family(&mut out, family, exemplars).expect("writing to a string cannot fail");
    }
    out
}

fn write_family(
    out: &mut String,
    family: &MetricFamily,
    exemplars: &BTreeMap<String, Vec<Option<Exemplar>>>,
) -> std::fmt::Result {
    let full = family.name();
    let kind = family.get_field_type();
    // A counter's family has no suffix, its samples have.
    let name = if kind == MetricType::COUNTER { full.strip_suffix("_total").unwrap_or(full) } else { full };
    let word = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
    };
    writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    writeln!(out, "# TYPE {name} {word}")?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            MetricType::COUNTER => {
                writeln!(out, "{name}_total{} {}", Labels(labels, None), metric.get_counter().get_value())?;
            }
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                writeln!(out, "{name}{} {}", Labels(labels, None), metric.get_gauge().get_value())?;
            }
            MetricType::HISTOGRAM => {
                let upstream = labels.iter().find(|label| label.name() == "upstream").map_or("", LabelPair::value);
                let kept = exemplars.get(upstream).filter(|_| full == EXEMPLIFIED);
                let histogram = metric.get_histogram();
                let limits = histogram
                    .get_bucket()
                    .iter()
                    .map(|bucket| (float(bucket.upper_bound()), bucket.cumulative_count()));
                let last = ("+Inf".to_owned(), histogram.get_sample_count());
                let is_open = |limit: &String| limit != "+Inf";
                let all = limits.filter(|(limit, _)| is_open(limit)).chain([last]);
                for (index, (limit, count)) in all.enumerate() {
                    write!(out, "{name}_bucket{} {count}", Labels(labels, Some(&limit)))?;
                    if let Some(exemplar) = kept.and_then(|kept| kept.get(index)).and_then(Option::as_ref) {
                        write_exemplar(out, exemplar)?;
                    }
                    out.push('\n');
                }
                writeln!(out, "{name}_sum{} {}", Labels(labels, None), histogram.get_sample_sum())?;
                writeln!(out, "{name}_count{} {}", Labels(labels, None), histogram.get_sample_count())?;
            }
        }
    }
    Ok(())
}

/// ` # {trace_id="..",span_id=".."} value timestamp`
fn write_exemplar(out: &mut String, exemplar: &Exemplar) -> std::fmt::Result {
    let Exemplar { trace_id, span_id, value, at } = exemplar;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    write!(out, " # {{trace_id=\"{trace_id:032x}\",span_id=\"{span_id:016x}\"}} {value} {at:.3}")
}

/// `{a="x",le="0.5"}`
struct Labels<'a>(&'a [LabelPair], Option<&'a str>);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs = self.0.iter().map(|label| (label.name(), label.value()));
        let mut separator = '{';
        for (name, value) in pairs.chain(self.1.map(|limit| ("le", limit))) {
            write!(out, "{separator}{name}=\"{}\"", escaped(value))?;
            separator = ',';
        }
        if separator == ',' { write!(out, "}}") } else { Ok(()) }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `1.0`, `0.005`, `5e-05`: the canonical form of a bucket's limit (OpenMetrics, "Considerations: Canonical Numbers").
fn float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) if exponent.len() == 1 => format!("{digits}e-0{exponent}"),
        _ if number.is_infinite() => "+Inf".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_form_that_is_accepted_is_given() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            Form::wanted(&headers)
        };
        // Prometheus 2.45's own.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;\
                          q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(wanted(prometheus), Form::OpenMetrics);
        for text in ["*/*", "text/plain", "application/openmetrics-text;q=0.2, text/plain;q=0.9", "text/html"] {
            assert_eq!(wanted(text), Form::Text, "{text}");
        }
        assert_eq!(wanted("application/openmetrics-text; version=2.0.0"), Form::Text);
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn limits_of_buckets_are_canonical() {
        assert_eq!([0.000_05, 0.0001, 0.005, 1.0, 36000.0].map(float), ["5e-05", "0.0001", "0.005", "1.0", "36000.0"]);
    }
}
