//! `lictor push`: a file as the configuration in KV, if it may be that, and if nobody else was there first.

use std::path::Path;

use anyhow::{Context, bail};
use lictor_config::{Sources, Text, changes};
use lictor_consul::{Kv, KvKnown};

use crate::cli::{Configured, print};

pub(super) fn push(file: &Path, index: Option<u64>, force: bool, configured: &Configured) -> anyhow::Result<u8> {
    let mut sources = configured.sources()?;
    let config = sources.load()?.config;
    let Some(key) = config.consul.kv.as_ref().map(|kv| kv.config.clone()) else {
        bail!("nobody would read it: set `consul: {{kv: true}}` in {}", configured.source());
    };
    let name = file.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    sources.kv = Some(Text { name, text: text.clone() });
    let after = sources.load()?.values;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut kv = Kv::new(&config.consul)?.context("there is no Consul agent in the configuration")?;
        let held = kv.get(&key).await.with_context(|| format!("cannot read {key}"))?;
        let now = held.as_ref().map_or(0, |entry| entry.modify_index);
        let base = index.unwrap_or(now);
        if !force && base != now {
            bail!("{}", conflict(&key, base, Some(now)));
        }
        if held.as_ref().is_some_and(|entry| entry.value == text.as_bytes()) {
            print(&format!("{key} has this value already (ModifyIndex {now})\n"));
            return Ok(0);
        }
        let before = values(&sources, &held);
        if !kv.put(&key, &text, (!force).then_some(base)).await.with_context(|| format!("cannot write {key}"))? {
            bail!("{}", conflict(&key, base, None));
        }
        let mut said = format!("{key} is written, over ModifyIndex {now}\n");
        match before {
            Some(before) => said.extend(changes(&before, &after).iter().map(|change| format!("  {change}\n"))),
            None => said += "  it replaces a value that was refused\n",
        }
        print(&said);
        Ok(0)
    })
}

/// What is in force with the value that is there now; `None` when that is refused.
fn values(sources: &Sources, held: &KvKnown) -> Option<Vec<lictor_config::Effective>> {
    let mut sources = sources.clone();
    sources.kv = match held {
        Some(entry) => Some(Text { name: "kv".to_owned(), text: String::from_utf8(entry.value.clone()).ok()? }),
        None => None,
    };
    sources.load().ok().map(|loaded| loaded.values)
}

fn conflict(key: &str, base: u64, now: Option<u64>) -> String {
    let now = now.map_or_else(|| "another one now".to_owned(), |now| format!("ModifyIndex {now} now"));
    format!("{key} was changed by somebody else: it had ModifyIndex {base} and has {now}; look at it, or use --force")
}
