//! A new configuration for a running sidecar: all of it, or, with one mistake, none of it. A changed file, a changed
//! KV key and what services claim of the gateway take the same way. Files are followed: whoever changes one need not ask for a reload.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_config::{Change, Claims, Config, Diagnostic, Loaded, Refused, Report, Sources, Text, changes};
use lictor_consul::{KvEntry, KvKnown, listeners};
use lictor_core::mesh::ListenerKind;
use lictor_proxy::Bound;
use lictor_tls::TlsError;
use serde_json::{Value as Json, json};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::Admin;
use crate::changes::told;
use crate::configured::Configured;
use crate::followed::Followed;
use crate::keys;

/// Of files for a reload. A disk may hang, and whoever asks for a reload, or for the end, is not to wait for it.
const READING: Duration = Duration::from_secs(10);

/// Of tags that are no routes, so many are told at once.
const TOLD: usize = 10;

/// What is in force, and how it came to be.
#[derive(Debug)]
pub(crate) struct InForce {
    configured: Configured,
    sources: Sources,
    pub(crate) followed: Followed,
    pub(crate) bound: Vec<Bound>,
    /// What the KV key says in vain.
    refused: Option<KvKnown>,
    /// What services claim now, in force or not.
    claims: Claims,
    /// Why the files as they are now are not in force, as it was told.
    complaint: Option<String>,
    /// A thread that reads files: one that hangs is not followed by others that hang.
    reading: Option<AbortHandle>,
}

/// Why it is put together again.
#[derive(Debug)]
pub(crate) enum Cause {
    /// SIGHUP, or `POST /reload`: the file may be another one.
    Reload,
    /// A file has changed.
    File,
    /// The KV key says something else.
    Kv(KvKnown),
    /// Services claim something else of the gateway.
    Claims(Claims),
}

/// Why everything stays as it was.
#[derive(Debug)]
pub(crate) enum Refusal {
    Report(Report),
    /// It cannot be read, or not be done.
    Other(String),
}

/// Puts a configuration together and works by it.
pub(crate) async fn reload(admin: &Admin, in_force: &mut InForce, cause: Cause) -> Result<(), Refusal> {
    if matches!(cause, Cause::Kv(None)) && in_force.sources.kv.is_none() && in_force.refused.is_none() {
        admin.handle.applied(None);
        return Ok(());
    }
    if let Cause::Claims(claims) = &cause {
        in_force.claims = claims.clone();
        let known = &in_force.sources.claims;
        if claims == known || (claims.list.is_empty() && known.list.is_empty()) {
            return Ok(());
        }
    }
    let (origin, is_of_files) = (cause.as_str(), matches!(cause, Cause::Reload | Cause::File));
    let result = match renew(admin, in_force, &cause).await {
        Ok(None) => return Ok(()),
        Ok(Some(changes)) => {
            in_force.complaint.take_if(|_| is_of_files);
            if matches!(cause, Cause::Claims(_)) {
                tell_of_routes(admin);
            } else {
                info!(target: "lictor::event", kind = "config_reloaded", origin, changes = told(&changes), "the new configuration is in force");
            }
            admin.changes.add(origin, &changes);
            Ok(())
        }
        Err(refusal) => {
            admin.scrape.reloaded(None, "");
            let reason = refusal.to_string();
            // Files that are written piece by piece are refused for one reason many times.
            if !matches!(cause, Cause::File) || in_force.complaint.as_ref() != Some(&reason) {
                warn!(target: "lictor::event", kind = "config_rejected", origin, %reason, "the new configuration is refused; the old one stays in force");
                admin.changes.refused(origin, &reason);
            }
            if is_of_files {
                in_force.complaint = Some(reason);
            }
            Err(refusal)
        }
    };
    match cause {
        Cause::Kv(known) => {
            report(admin, in_force, &known, result.as_ref().err());
            in_force.refused = result.is_err().then(|| known.clone());
            if result.is_ok() {
                admin.handle.applied(known);
            }
        }
        Cause::Claims(_) => (),
        // With another file what the key says may be right.
        Cause::Reload | Cause::File => {
            if let Some(known) = in_force.refused.take_if(|_| result.is_ok()) {
                let _ = Box::pin(reload(admin, in_force, Cause::Kv(known))).await; // the log has the reason
            }
        }
    }
    result
}

impl InForce {
    pub(crate) fn new(configured: Configured, sources: Sources, followed: Followed, bound: Vec<Bound>) -> Self {
        Self {
            configured,
            sources,
            followed,
            bound,
            refused: None,
            claims: Claims::default(),
            complaint: None,
            reading: None,
        }
    }

    /// What a configuration is to be made of now.
    async fn next(&mut self, cause: &Cause, key: &str) -> Result<Sources, Refusal> {
        match cause {
            Cause::Reload | Cause::File => {
                let (configured, in_force) = (self.configured.clone(), self.sources.clone());
                let (sources, files) = self.reading(move || read(&configured, &in_force)).await??;
                self.followed.tries(files);
                Ok(sources)
            }
            // The file as it is in force: whoever is editing it has not asked for a reload.
            Cause::Kv(known) => Ok(Sources { kv: text_of(known.as_ref(), key)?, ..self.sources.clone() }),
            Cause::Claims(_) => Ok(self.sources.clone()),
        }
        .map(|sources| Sources { claims: self.claims.clone(), ..sources })
    }

    /// Reads files on a thread of its own. Admin, watches and TTL beats share this one, and whoever wants this process to
    /// end waits for the reload.
    async fn reading<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        if self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) {
            return Err(Refusal::Other("a file that was to be read before still cannot be read: it hangs".to_owned()));
        }
        let read = spawn_blocking(work);
        self.reading = Some(read.abort_handle());
        match timeout(READING, read).await {
            Ok(read) => Ok(read.expect("reading does not panic")),
            Err(_) => Err(Refusal::Other(format!("it cannot be read within {} s: a file hangs", READING.as_secs()))),
        }
    }
}

/// What the file says now, with everything else as it is in force; and the files that its values are in.
fn read(configured: &Configured, in_force: &Sources) -> Result<(Sources, Vec<PathBuf>), Refusal> {
    let fresh = configured.sources().map_err(|error| Refusal::Other(format!("{error:#}")))?;
    match fresh.emptied(in_force) {
        Some(emptied) => Err(Refusal::Other(emptied)),
        None => {
            let (files, kv) = (fresh.files(), in_force.kv.clone());
            Ok((Sources { kv, ..fresh }, files))
        }
    }
}

/// What the KV key says.
fn text_of(entry: Option<&KvEntry>, key: &str) -> Result<Option<Text>, Refusal> {
    let text = entry.map(|entry| String::from_utf8(entry.value.clone())).transpose();
    let text = text.map_err(|_| Refusal::Other(format!("kv:{key}: it is not UTF-8 text")))?;
    Ok(text.map(|text| Text { name: format!("kv:{key}"), text }))
}

impl Cause {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::File => "file",
            Self::Kv(_) => "kv",
            Self::Claims(_) => "consul",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(report) => f.write_str(&report.sentences().join("; ")),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// What became different; `None`: a file was written again, and says what is in force.
async fn renew(admin: &Admin, in_force: &mut InForce, cause: &Cause) -> Result<Option<Vec<Change>>, Refusal> {
    let before = Arc::clone(&admin.loaded.read());
    let sources = in_force.next(cause, admin.handle.kv_key().unwrap_or_default()).await?;
    let together = in_force.reading(move || put_together(sources, &before)).await?;
    let (sources, loaded, changes) = together.map_err(Refusal::Report)?;
    let says_the_same = sources.says_as(&in_force.sources) && changes.is_empty();
    if matches!(cause, Cause::File) && says_the_same && in_force.complaint.is_none() {
        in_force.followed.holds();
        return Ok(None);
    }
    // No tag says anything of a certificate: one that is no good any more keeps no route out.
    if !matches!(cause, Cause::Claims(_)) {
        let config = loaded.config.clone();
        let check = move || lictor_tls::check(config.server_tls(), config.client_tls());
        in_force.reading(check).await?.map_err(|error| Refusal::Other(error.to_string()))?;
    }
    adopt(admin, loaded, &mut in_force.bound).await.map_err(Refusal::Other)?;
    let name = sources.kv.as_ref().map(|text| format!(", {}", text.name)).unwrap_or_default();
    in_force.sources = sources;
    if matches!(cause, Cause::Reload | Cause::File) {
        in_force.followed.holds();
    }
    let after = Arc::clone(&admin.loaded.read());
    admin.scrape.reloaded(Some(&after.values), &format!("{}{name}", in_force.configured.source()));
    Ok(Some(changes))
}

/// With what is different from what is in force. Values may be in files (`file:/path`), so it waits for the disk; a large
/// text takes its time, too.
fn put_together(sources: Sources, before: &Loaded) -> Result<(Sources, Loaded, Vec<Change>), Report> {
    let loaded = sources.load()?;
    let changes = changes(&before.values, &loaded.values);
    Ok((sources, loaded, changes))
}

/// Tells whoever wrote the key what became of it.
fn report(admin: &Admin, in_force: &InForce, known: &KvKnown, refusal: Option<&Refusal>) {
    let loaded = Arc::clone(&admin.loaded.read());
    let registration = loaded.config.registration.as_ref();
    let instance = registration.map_or(&in_force.sources.env.hostname, |registration| &registration.id);
    let errors: Vec<Json> = match refusal {
        None => Vec::new(),
        Some(Refusal::Report(report)) => report.errors().map(error).collect(),
        Some(Refusal::Other(reason)) => vec![json!({ "message": reason })],
    };
    let report = json!({
        "status": if refusal.is_some() { "rejected" } else { "applied" },
        "service": loaded.config.service,
        "instance": instance,
        "modify_index": known.as_ref().map(|entry| entry.modify_index),
        "at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "errors": errors,
    });
    admin.handle.report(instance, format!("{report:#}"));
}

/// Without what was written there: that may be a secret.
fn error(diagnostic: &Diagnostic) -> Json {
    let Diagnostic { message, path, place, help, .. } = diagnostic;
    json!({ "place": place.to_string(), "key": path, "message": message, "help": help })
}

async fn adopt(admin: &Admin, loaded: Loaded, bound: &mut Vec<Bound>) -> Result<(), String> {
    let before = Arc::clone(&admin.loaded.read());
    let config = Arc::new(loaded.config.clone());
    // Whatever can fail comes before anything changes.
    let prepared = admin.plane.prepare(&listeners(&config)).await.map_err(|error| error.to_string())?;
    keys::inherit(&config, &before.config);
    // The new mesh comes first, so that a new listener never sees a request for an upstream that nobody knows.
    admin.handle.reload(Arc::clone(&config)).await;
    let now_bound = admin.plane.adopt(prepared, config.lifecycle.drain_timeout).await;
    now_bound.iter().filter(|listener| !bound.contains(listener)).for_each(announce);
    *bound = now_bound;
    if config.log.level != before.config.log.level
        && let Err(error) = admin.logs.set_level(&config.log.level)
    {
        warn!(%error, "the log level stays as it was");
    }
    for warning in loaded.warnings.0.iter().filter(|warning| !before.warnings.0.contains(warning)) {
        warn!(key = %warning.path, "{}", warning.message);
    }
    tell_of_refused(&before.config, &config);
    for key in needs_restart(&before.config, &config) {
        warn!(key, "this change takes effect at the next start");
    }
    admin.adopt(loaded);
    Ok(())
}

/// Says which tags are no routes, unless it was said before.
fn tell_of_refused(before: &Config, after: &Config) {
    let known: HashSet<&Refused> = refused(before).iter().collect();
    let new: Vec<&Refused> = refused(after).iter().filter(|refused| !known.contains(refused)).collect();
    for Refused { tag, reason } in new.iter().take(TOLD) {
        let (service, tag) = (&tag.service, &tag.text);
        warn!(target: "lictor::event", kind = "route_refused", service, tag, reason, "a service's tag is no route of the gateway");
    }
    if let Some(more) = new.len().checked_sub(TOLD).filter(|more| *more > 0) {
        warn!(target: "lictor::event", kind = "route_refused", more, "further tags are no routes of the gateway; `lictor routes` lists them");
    }
}

fn refused(config: &Config) -> &[Refused] {
    let asked = config.gateway.as_ref().and_then(|gateway| gateway.from_consul.as_ref());
    asked.map_or(&[][..], |asked| &asked.refused)
}

fn tell_of_routes(admin: &Admin) {
    let loaded = Arc::clone(&admin.loaded.read());
    let Some(gateway) = &loaded.config.gateway else { return };
    let claimed = gateway.routes.routes.iter().filter(|route| route.claimed_by.is_some()).count();
    let refused = gateway.from_consul.as_ref().map_or(0, |asked| asked.refused.len());
    info!(target: "lictor::event", kind = "routes_changed", claimed, refused, "the routes that services claim have changed");
}

/// Whether all files of TLS can be used. The disk is waited for on another thread: this one has watches and health checks.
pub(crate) async fn check_tls(config: &Arc<Config>) -> Result<(), TlsError> {
    let config = Arc::clone(config);
    let checked = spawn_blocking(move || lictor_tls::check(config.server_tls(), config.client_tls()));
    checked.await.expect("reading does not panic")
}

/// One line a listener: what it leads to, and where it really is.
pub(crate) fn announce(bound: &Bound) {
    let address = &bound.address;
    match &bound.kind {
        ListenerKind::Upstream(name) => info!(kind = "upstream", %name, %address, "listening"),
        ListenerKind::Forward => info!(kind = "forward", %address, "listening"),
        ListenerKind::Inbound => info!(kind = "inbound", %address, "listening"),
        ListenerKind::Gateway => info!(kind = "gateway", %address, "listening"),
        ListenerKind::Redirect => info!(kind = "redirect_http", %address, "listening"),
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
        ("admin.listen", before.admin.listen != after.admin.listen),
        ("admin.public", before.admin.public != after.admin.public),
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
        assert_eq!(needs_restart(&before, &identity), ["service", "workers", "admin.listen"]);
    }
}
