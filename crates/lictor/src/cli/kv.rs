//! `lictor push` and `lictor config --diff kv`: the configuration in KV, written and read.

use std::path::Path;

use anyhow::{Context, bail};
use lictor_config::{Consul, Effective, Sources, Text, changes};
use lictor_consul::{Kv, KvEntry, KvKnown};
use serde_json::json;

use crate::cli::diff::changed;
use crate::cli::output::Output;
use crate::configured::Configured;

/// A file becomes the value, if it may be that and if nobody else was there first.
pub(super) fn push(
    file: &Path,
    index: Option<u64>,
    force: bool,
    output: Output,
    configured: &Configured,
) -> anyhow::Result<u8> {
    let (mut sources, consul, key) = sources(configured)?;
    let name = file.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    sources.kv = Some(Text { name, text: text.clone() });
    let after = sources.load()?.values;
    block_on(async {
        let mut kv = open(&consul)?;
        let held = get(&mut kv, &key).await?;
        let now = held.as_ref().map_or(0, |entry| entry.modify_index);
        let base = index.unwrap_or(now);
        if !force && base != now {
            bail!("{}", conflict(&key, base, Some(now)));
        }
        if held.as_ref().is_some_and(|entry| entry.value == text.as_bytes()) {
            let page = json!({ "key": key, "written": false, "modify_index": now, "changes": [] });
            output.print(&page, |_| format!("{key} has this value already (ModifyIndex {now})\n"));
            return Ok(0);
        }
        if !kv.put(&key, &text, (!force).then_some(base)).await.with_context(|| format!("cannot write {key}"))? {
            bail!("{}", conflict(&key, base, None));
        }
        let mut lines = vec![format!("{key} is written, over ModifyIndex {now}")];
        let mut page = json!({ "key": key, "written": true, "over": now });
        match with(&sources, &key, held) {
            Ok(before) => {
                let changes = changes(&before, &after);
                lines.extend(changes.iter().map(|change| format!("  {change}")));
                page["changes"] = changed(&changes);
            }
            Err(_) => lines.push("  it replaces a value that was refused".to_owned()),
        }
        output.print(&page, |_| lines.join("\n") + "\n");
        Ok(0)
    })
}

/// What the value that is there changes over the rest.
pub(super) fn diff(output: Output, configured: &Configured) -> anyhow::Result<u8> {
    let (sources, consul, key) = sources(configured)?;
    let held = block_on(async { get(&mut open(&consul)?, &key).await })?;
    let found = held.as_ref().map_or("no such key".to_owned(), |entry| format!("ModifyIndex {}", entry.modify_index));
    let (before, after) = (with(&sources, &key, None)?, with(&sources, &key, held)?);
    let mut lines = vec![format!("kv:{key} ({found}) over {}:", configured.source())];
    let changes = changes(&before, &after);
    lines.extend(changes.iter().map(ToString::to_string));
    let page =
        json!({ "key": key, "found": found, "compared_with": configured.source(), "changes": changed(&changes) });
    output.print(&page, |_| lines.join("\n") + "\n");
    Ok(0)
}

/// What a configuration is made of without KV, and where KV is.
fn sources(configured: &Configured) -> anyhow::Result<(Sources, Consul, String)> {
    let sources = configured.sources()?;
    let consul = sources.load()?.config.consul;
    let Some(key) = consul.kv.as_ref().map(|kv| kv.config.clone()) else {
        bail!("no sidecar would read it: set `consul: {{kv: true}}` in {}", configured.source());
    };
    Ok((sources, consul, key))
}

pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn open(consul: &Consul) -> anyhow::Result<Kv> {
    Kv::new(consul)?.context("there is no Consul agent in the configuration")
}

async fn get(kv: &mut Kv, key: &str) -> anyhow::Result<KvKnown> {
    kv.get(key).await.with_context(|| format!("cannot read {key}"))
}

/// The effective values with this value of the key.
fn with(sources: &Sources, key: &str, held: KvKnown) -> anyhow::Result<Vec<Effective>> {
    let text =
        |KvEntry { value, .. }| String::from_utf8(value).with_context(|| format!("kv:{key}: it is not UTF-8 text"));
    let text = held.map(text).transpose()?;
    let kv = text.map(|text| Text { name: format!("kv:{key}"), text });
    Ok(Sources { kv, ..sources.clone() }.load()?.values)
}

fn conflict(key: &str, base: u64, now: Option<u64>) -> String {
    let now = now.map_or_else(|| "another one".to_owned(), |now| now.to_string());
    format!(
        "{key} was changed by somebody else: its ModifyIndex was {base} and is {now}; \
         `lictor config --diff kv` shows what it says now, and --force replaces it"
    )
}
