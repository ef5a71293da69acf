//! A new configuration for a running sidecar: all of it, or, with one mistake, none of it.

use std::sync::Arc;

use lictor_config::{Config, Loaded};
use lictor_core::mesh::ListenerKind;
use lictor_proxy::{Bound, check_tls};
use tracing::{info, warn};

use crate::admin::Admin;
use crate::cli::Configured;

/// Reads the configuration again and works by it. The words are the reason why not; everything stays as it was then.
pub(crate) async fn reload(admin: &Admin, configured: &Configured, bound: &mut Vec<Bound>) -> Result<(), String> {
    let result = match configured.load() {
        Ok(loaded) => adopt(admin, loaded, bound).await,
        Err(error) => Err(format!("{error:#}")),
    };
    match &result {
        Ok(()) => {
            admin.scrape.reloaded(Some(&admin.loaded.read().values), &configured.source());
            info!(target: "lictor::event", kind = "config_reloaded", "the new configuration is in force");
        }
        Err(reason) => {
            admin.scrape.reloaded(None, "");
            warn!(target: "lictor::event", kind = "config_rejected", reason, "the new configuration is refused; the old one stays in force");
        }
    }
    result
}

async fn adopt(admin: &Admin, loaded: Loaded, bound: &mut Vec<Bound>) -> Result<(), String> {
    let before = Arc::clone(&admin.loaded.read());
    let config = Arc::new(loaded.config.clone());
    check_tls(config.server_tls(), config.client_tls()).map_err(|error| error.to_string())?;
    // The new mesh comes first, so that a new listener never sees a request for an upstream that nobody knows.
    admin.handle.reload(Arc::clone(&config)).await;
    let listeners = admin.handle.mesh().borrow().listeners.clone();
    let now_bound = match admin.plane.bind(&listeners).await {
        Ok(now_bound) => now_bound,
        Err(error) => {
            admin.handle.reload(Arc::new(before.config.clone())).await;
            return Err(error.to_string());
        }
    };
    now_bound.iter().filter(|listener| !bound.contains(listener)).for_each(announce);
    *bound = now_bound;
    if config.log.level != before.config.log.level
        && let Err(error) = admin.logs.set_level(&config.log.level)
    {
        warn!(%error, "the log level stays as it was");
    }
    for warning in &loaded.warnings.0 {
        warn!(key = %warning.path, "{}", warning.message);
    }
    for key in needs_restart(&before.config, &config) {
        warn!(key, "this change takes effect at the next start");
    }
    *admin.loaded.write() = Arc::new(loaded);
    Ok(())
}

/// One line a listener: what it leads to, and where it really is.
pub(crate) fn announce(bound: &Bound) {
    let address = &bound.address;
    match &bound.kind {
        ListenerKind::Upstream(name) => info!(kind = "upstream", %name, %address, "listening"),
        ListenerKind::Forward => info!(kind = "forward", %address, "listening"),
        ListenerKind::Inbound => info!(kind = "inbound", %address, "listening"),
    }
}

/// Keys whose change a running sidecar cannot follow.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let changes = [
        ("service", before.service != after.service),
        ("registration", before.registration != after.registration),
        ("app", before.app != after.app),
        ("consul", before.consul != after.consul),
        ("workers", before.workers != after.workers),
        ("admin", before.admin != after.admin),
        ("metrics", before.metrics != after.metrics),
        ("trace.otlp", before.trace.otlp != after.trace.otlp),
        ("log.format", before.log.format != after.log.format),
    ];
    changes.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use lictor_config::{Environment, Text, load};

    use super::*;

    fn config(yaml: &str) -> Config {
        let file = Text { name: "test.yaml".to_owned(), text: format!("registration: off\n{yaml}") };
        let env = Environment { vars: [].into(), hostname: "host".to_owned() };
        load(Some(&file), &env, &[]).unwrap().config
    }

    #[test]
    fn only_what_cannot_change_at_runtime_is_named() {
        let before = config("service: a\nworkers: 1\nupstreams: {users: {listen: 3001, static: ['a:1']}}\n");
        let upstream = config("service: a\nworkers: 1\nupstreams: {carts: {listen: 3002, static: ['a:1']}}\n");
        assert!(needs_restart(&before, &upstream).is_empty());
        let identity = config("service: b\nworkers: 2\nadmin: {listen: 9902}\n");
        assert_eq!(needs_restart(&before, &identity), ["service", "workers", "admin"]);
    }
}
