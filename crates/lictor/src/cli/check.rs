//! `lictor check`: is this configuration good?

use crate::cli::{print, render_report};
use crate::configured::Configured;
use crate::otlp;
use lictor_core::plain;

/// Mistakes are the error; warnings are told, and it is good all the same.
pub(super) fn check(configured: &Configured) -> anyhow::Result<u8> {
    let loaded = configured.load()?;
    if !loaded.warnings.is_empty() {
        tell(&render_report(&loaded.warnings));
    }
    if let Some(complaint) = loaded.config.trace.otlp.as_ref().and_then(otlp::complaint) {
        tell(&format!("warning: {complaint}"));
    }
    let config = loaded.config;
    lictor_tls::check(config.server_tls(), config.client_tls())?;
    let who = config.service.as_deref().unwrap_or("a caller without a service");
    let (count, plural) = (config.upstreams.len(), if config.upstreams.len() == 1 { "" } else { "s" });
    print(&format!("ok: {who}, {count} upstream{plural}, from {}\n", configured.source()));
    Ok(0)
}

fn tell(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{}", plain::painted(text));
}
