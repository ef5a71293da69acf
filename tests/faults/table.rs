//! The table of upstream faults in `docs/reliability.md`: each row is seen by a test and must be there word for word.

use std::collections::BTreeSet;

use lictor_testkit::{Sidecar, get, lictor, root};

use crate::{Seen, ask};

/// Enough for the bad one of two instances to be picked, and to fail, five times in a row.
const REQUESTS: usize = 12;

/// One broken instance, and how its upstream is called.
pub(crate) struct Fault<'a> {
    /// The row's first cell.
    pub(crate) what: &'a str,
    pub(crate) bad: u16,
    /// The port of an instance that is well.
    pub(crate) good: u16,
    /// More of the upstream's configuration.
    pub(crate) policy: &'a str,
}

impl Fault<'_> {
    /// Asks the broken instance alone and without retries, then `REQUESTS` times GET and POST of the two.
    pub(crate) fn is_in_the_table(&self) {
        let lictor = self.serve();
        let alone = ask(&lictor.address("alone"), "GET");
        let (get, post) = (Self::turns(&lictor, "GET"), Self::turns(&lictor, "POST"));
        let row = format!("| {} | {} | {get} | {post} | {} |", self.what, told(&alone), counted(&lictor));
        let page = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
        assert!(page.lines().any(|line| line == row), "docs/reliability.md does not have this row:\n{row}");
    }

    fn serve(&self) -> Sidecar {
        let Self { bad, good, policy, .. } = self;
        let both = format!("static: ['127.0.0.1:{bad}', '127.0.0.1:{good}'], balance: round_robin{policy}");
        let yaml = format!(
            "registration: off
service: orders
workers: 1
defaults: {{retry: {{delays: [1ms]}}}}
upstreams:
  alone: {{listen: 0, static: ['127.0.0.1:{bad}'], retry: off{policy}}}
  get: {{listen: 0, {both}}}
  post: {{listen: 0, {both}}}
"
        );
        Sidecar::serve(lictor(), &yaml).up()
    }

    /// What clients see while another instance is well, and what it took.
    fn turns(lictor: &Sidecar, method: &str) -> String {
        let upstream = method.to_lowercase();
        let address = lictor.address(&upstream);
        let well = (0..REQUESTS).filter(|_| is_well(&ask(&address, method))).count();
        let count = |metric: &str| lictor.metric(metric, &[("upstream", &upstream)]) as u64;
        let ejected = if count("lictor_endpoint_ejections_total") > 0 { ", ejected" } else { "" };
        format!("{well} of {REQUESTS}, {} retries{ejected}", count("lictor_retries_total"))
    }
}

fn is_well(seen: &Seen) -> bool {
    seen.status == 200 && seen.is_whole
}

/// An answer in one cell.
fn told(seen: &Seen) -> String {
    match seen {
        Seen { status: 0, .. } => "nothing".to_owned(),
        Seen { reason, error, status, .. } if !reason.is_empty() => format!("{status} `{reason}`, `{error}`"),
        Seen { is_whole: true, status, .. } => format!("{status}, the answer"),
        Seen { status, .. } => format!("{status}, then cut off"),
    }
}

/// How attempts failed; where they did not, how requests did.
fn counted(lictor: &Sidecar) -> String {
    let text = get(&lictor.admin(), "/metrics").unwrap().text();
    let values = |metric: &str, label: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        let values = lines.filter_map(|line| line.split_once(&format!("{label}=\""))?.1.split('"').next());
        values.filter(|value| !matches!(*value, "" | "2xx")).map(|value| format!("`{value}`")).collect()
    };
    let attempts = values("lictor_upstream_attempts_total", "outcome");
    let requests = values("lictor_upstream_requests_total", "reason");
    let all: Vec<String> = if attempts.is_empty() { requests } else { attempts }.into_iter().collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(" ") }
}
