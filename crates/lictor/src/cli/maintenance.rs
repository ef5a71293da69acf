//! `lictor maintenance on` and `off`: for all gateways of the service by KV, where their configuration has it; else for the one
//! that runs here.

use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use lictor_config::{Consul, Gateway};
use lictor_consul::Kv;
use lictor_core::gateway::maintenance::Orders;
use serde_json::{Value as Json, json};

use crate::cli::kv::block_on;
use crate::cli::probe::{self, Running, encode};
use crate::maintenance::Wanted;

/// An order about the gateway's maintenance.
#[derive(Args, Debug)]
pub(super) struct Maintenance {
    /// What it is to be.
    state: State,
    /// For how long, at most 30d; default: until it is switched off.
    #[arg(long = "for")]
    lasts: Option<String>,
    /// Only the route of this label (its host, if it has one, and its path); default: all that do not say `maintenance: off`.
    #[arg(long)]
    route: Option<String>,
    #[command(flatten)]
    running: Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    On,
    Off,
}

pub(super) fn maintenance(asked: &Maintenance) -> anyhow::Result<u8> {
    let config = asked.running.configured.load()?.config;
    let Some(gateway) = &config.gateway else { bail!("there is no gateway in this configuration") };
    let done = match &config.consul.kv {
        Some(kv) => by_kv(asked, &config.consul, &kv.maintenance, gateway)?,
        None => here(asked)?,
    };
    asked.running.output.print(&done, |done| format!("{}\n", done["message"].as_str().unwrap_or_default()));
    Ok(0)
}

/// The gateway that runs here does it.
fn here(asked: &Maintenance) -> anyhow::Result<Json> {
    let mut page = format!("maintenance?state={}", if asked.state == State::On { "on" } else { "off" });
    for (key, value) in [("for", &asked.lasts), ("route", &asked.route)] {
        page += &value.as_ref().map(|value| format!("&{key}={}", encode(value))).unwrap_or_default();
    }
    probe::call(&asked.running.admin()?, "POST", &page)
}

/// Whoever reads the key does it.
fn by_kv(asked: &Maintenance, consul: &Consul, key: &str, gateway: &Gateway) -> anyhow::Result<Json> {
    let lasts = asked.lasts.as_deref().map(|text| {
        humantime::parse_duration(text).with_context(|| format!("--for takes a duration such as 30m, not `{text}`"))
    });
    let wanted = Wanted { is_on: asked.state == State::On, lasts: lasts.transpose()?, route: asked.route.clone() };
    block_on(async {
        let now = SystemTime::now();
        let mut kv = Kv::new(consul)?.context("there is no Consul agent in the configuration")?;
        let held = kv.get(key).await.with_context(|| format!("cannot read {key}"))?;
        let index = held.as_ref().map_or(0, |entry| entry.modify_index);
        // What is none counts as none.
        let before = held.and_then(|entry| Orders::parse(&entry.value).ok()).unwrap_or_default();
        let orders = wanted.over(&before, gateway, now).map_err(anyhow::Error::msg)?;
        let text = serde_json::to_string(&orders)?;
        if !kv.put(key, &text, Some(index)).await.with_context(|| format!("cannot write {key}"))? {
            bail!("{key} was written by somebody else at the same time: order it again");
        }
        let told = format!("{key} is written, for all gateways that read it; {}", wanted.told(&orders, gateway, now));
        Ok(json!({ "key": key, "message": told }))
    })
}
