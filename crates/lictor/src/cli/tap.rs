//! `lictor tap`: requests as they end, a line each.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value as Json;

use crate::cli::print;
use crate::cli::probe::{self, Running, encode};
use crate::cli::reader::Reader;
use crate::term::{Paint, millis, shown};

/// The server says something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Which requests.
#[derive(Args, Debug)]
pub(super) struct Tap {
    /// Only to this upstream.
    #[arg(long)]
    upstream: Option<String>,
    /// Only with this status: `503` or `5xx`.
    #[arg(long)]
    status: Option<String>,
    /// Only with this reason: `connect_refused`.
    #[arg(long)]
    reason: Option<String>,
    /// Only paths that begin so.
    #[arg(long)]
    path: Option<String>,
    /// With the fields of both heads; secrets as `***`.
    #[arg(long)]
    headers: bool,
    /// End after so many.
    #[arg(long)]
    count: Option<usize>,
    #[command(flatten)]
    running: Running,
}

/// Prints until somebody has enough.
pub(super) fn tap(asked: &Tap) -> anyhow::Result<u8> {
    let admin = asked.running.admin()?;
    let stream = probe::send(&admin, "GET", &page(asked))?;
    stream.set_read_timeout(Some(SILENCE))?;
    let reader = Reader::watch(&stream)?;
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next().transpose()?.unwrap_or_default();
    if !status.contains(" 200 ") {
        let body: String = lines.map_while(Result::ok).skip_while(|line| !line.is_empty()).collect();
        let message =
            serde_json::from_str::<Json>(&body).ok().and_then(|json| Some(json["message"].as_str()?.to_owned()));
        bail!("{}", message.unwrap_or(status));
    }
    let (paint, mut left) = (Paint::stdout(), asked.count.unwrap_or(usize::MAX));
    for line in lines {
        // Chunked framing is between the lines: an event's data is one line.
        let line = match line {
            Err(_) if reader.is_gone() => break,
            line => line?,
        };
        let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Json>(data).ok()) else {
            continue;
        };
        if let Some(dropped) = event["dropped"].as_u64() {
            print(&format!("({dropped} requests were too fast to be shown)\n"));
            continue;
        }
        print(&if asked.running.output.is_json() {
            format!("{event}\n")
        } else {
            in_a_line(&shown(&event), asked.headers, paint)
        });
        left -= 1;
        if left == 0 {
            return Ok(0);
        }
    }
    if reader.is_gone() {
        return Ok(0); // with all that it wanted
    }
    bail!("the sidecar at {admin} has ended the tap")
}

fn page(asked: &Tap) -> String {
    let filters =
        [("upstream", &asked.upstream), ("status", &asked.status), ("reason", &asked.reason), ("path", &asked.path)];
    let pairs = filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
    format!("tap?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn in_a_line(event: &Json, with_headers: bool, paint: Paint) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    let last = event["attempts"].as_array().and_then(|attempts| attempts.last());
    let status = event["status"].to_string();
    let mut line = format!(
        "{} {} {} {} {} {} {} {}",
        paint.dim(text("timestamp")),
        paint.verdict(&status, text("kept") != "failed"),
        text("method"),
        text("path"),
        text("upstream"),
        last.and_then(|last| last["address"].as_str()).unwrap_or("-"),
        millis(event["took_ms"].as_f64().unwrap_or_default()),
        paint.dim(text("id")),
    );
    if let Some(reason) = event["reason"].as_str() {
        line += &format!(" {}", paint.verdict(reason, false));
    }
    line += "\n";
    for (mark, key) in [(">", "request_headers"), ("<", "response_headers")] {
        for field in event[key].as_array().into_iter().flatten().filter(|_| with_headers) {
            line += &format!(
                "  {mark} {}: {}\n",
                field[0].as_str().unwrap_or_default(),
                field[1].as_str().unwrap_or_default()
            );
        }
    }
    line
}
