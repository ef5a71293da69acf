//! `lictor doctor`, also `lictor check --live`.

use lictor_config::{Environment, Report};
use lictor_core::plain;
use serde_json::{Value as Json, json};

use crate::cli::output::Output;
use crate::configured::Configured;
use crate::doctor::{Findings, Severity, examine, refused};

/// 0: nothing but notes; 1: warnings; 2: errors.
pub(super) fn doctor(output: Output, configured: &Configured) -> anyhow::Result<u8> {
    let found = match configured.load() {
        Ok(loaded) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(examine(&loaded, &Environment::process()))
        }
        Err(error) => refused(&error.downcast::<Report>()?),
    };
    output.print(&page(&found), |_| text(&found, &configured.source()));
    Ok(match (found.count(Severity::Error), found.count(Severity::Warning)) {
        (0, 0) => 0,
        (0, _) => 1,
        _ => 2,
    })
}

fn page(found: &Findings) -> Json {
    let findings = found.sorted();
    let findings = findings.iter().map(|finding| {
        json!({
            "code": finding.code.number(),
            "severity": finding.code.severity(),
            "subject": finding.subject,
            "what": finding.what,
            "fix": finding.fix,
        })
    });
    json!({
        "findings": findings.collect::<Vec<_>>(),
        "errors": found.count(Severity::Error),
        "warnings": found.count(Severity::Warning),
        "notes": found.count(Severity::Note),
        "consul": found.consul,
    })
}

fn text(found: &Findings, source: &str) -> String {
    let mut text = String::new();
    for finding in found.sorted() {
        let (code, severity) = (finding.code.number(), finding.code.severity().as_str());
        let [subject, what, fix] = [&finding.subject, &finding.what, &finding.fix].map(|text| plain::line(text));
        text += &format!("{severity:<8} {code}  {subject}: {what}\n{:19}{fix}\n", "");
    }
    if let Some(seen) = &found.consul {
        let version = seen.version.as_deref().unwrap_or("of a version that the token may not see");
        let line = format!("Consul {version} at {}, led by {}", seen.address, seen.leader);
        text += &format!("{}\n", plain::line(&line));
    }
    let count = |severity: Severity| {
        let count = found.count(severity);
        format!("{count} {}{}", severity.as_str(), if count == 1 { "" } else { "s" })
    };
    text += &format!("{source}: {}, {}, {}\n", count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    text
}
