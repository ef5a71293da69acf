//! From a configuration to a stopped process, in the order that the lifecycle contract has.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use lictor_config::{Config, Environment, Loaded};
use lictor_core::mesh::ListenerKind;
use lictor_proxy::{Bound, DataPlane, Settings, Which};
use parking_lot::RwLock;
use prometheus::Registry;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::admin::{self, Access, Admin, Order};
use crate::child::{self, Child};
use crate::cli::Configured;
use crate::events::Events;
use crate::log::Logs;
use crate::metrics::Scrape;
use crate::otlp;
use crate::signal::{Asked, Signals};

/// Runs the sidecar, with a child where there is a command. The number is the exit code.
pub(crate) fn run(configured: &Configured, command: &[String]) -> anyhow::Result<u8> {
    let loaded = configured.load()?;
    let events = Events::new();
    let logs = Logs::start(&loaded.config.log.level, loaded.config.log.format, events.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let bound = Sidecar::bind(loaded, logs.clone(), events, configured.clone()).await?;
        let running = bound.start(command).await?;
        anyhow::Ok(running.serve_and_stop().await)
    });
    if let Err(error) = &code {
        error!("{error:#}");
    }
    logs.flush();
    code
}

/// A sidecar whose listeners are open.
struct Sidecar {
    admin: Arc<Admin>,
    bound: Vec<Bound>,
    admin_address: std::net::SocketAddr,
    orders: mpsc::Receiver<Order>,
    signals: Signals,
    configured: Configured,
    export: Option<otlp::Export>,
}

/// A sidecar at work.
struct Running {
    sidecar: Sidecar,
    child: Option<Child>,
}

impl Sidecar {
    /// Opens everything; what cannot be opened is the error.
    async fn bind(loaded: Loaded, logs: Logs, events: Events, configured: Configured) -> anyhow::Result<Self> {
        let signals = Signals::listen()?;
        let config = Arc::new(loaded.config.clone());
        tell(&loaded);
        let handle = Arc::new(lictor_consul::start(Arc::clone(&config)).context("consul")?);
        let (spans, export) = match &config.trace.otlp {
            Some(settings) => otlp::start(settings).map(|(spans, export)| (Some(spans), Some(export)))?,
            None => (None, None),
        };
        let registry = Registry::new();
        let scrape = Scrape::new(registry.clone());
        scrape.reloaded(Some(&loaded.values), "start");
        let plane = DataPlane::start(Settings {
            workers: config.workers,
            mesh: handle.mesh(),
            registry,
            compat_metrics: config.metrics.compat,
            max_label_values: config.metrics.max_label_values,
            access_log: Some(logs.lines()),
            spans,
            demand: handle.demand(),
        })?;
        let listeners = handle.mesh().borrow().listeners.clone();
        let bound = plane.bind(&listeners)?;
        let (order, orders) = mpsc::channel(8);
        let admin = Arc::new(Admin {
            handle,
            plane: Arc::new(plane),
            loaded: RwLock::new(Arc::new(loaded)),
            scrape,
            events,
            logs,
            is_started: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            orders: order,
        });
        let admin_address = admin::listen(&admin, config.admin.listen, Access::Full).await?;
        info!(kind = "admin", address = %admin_address, "listening");
        if let Some(public) = config.admin.public {
            let address = admin::listen(&admin, public, Access::Public).await?;
            info!(kind = "public", %address, "listening");
        }
        bound.iter().for_each(announce);
        Ok(Self { admin, bound, admin_address, orders, signals, configured, export })
    }

    /// Waits for the first endpoints, starts the child, and registers.
    async fn start(self, command: &[String]) -> anyhow::Result<Running> {
        let config = self.config();
        let timeout = config.lifecycle.start_timeout;
        let mut mesh = self.admin.handle.mesh();
        let known = mesh.wait_for(|mesh| mesh.upstreams.values().all(|upstream| upstream.census.is_known));
        if tokio::time::timeout(timeout, known).await.is_err() {
            warn!(?timeout, "some upstreams are still unknown; their requests wait or fail until Consul answers");
        }
        self.admin.is_started.store(true, Relaxed);
        info!(target: "lictor::event", kind = "started", "egress is up");
        let child = if command.is_empty() {
            None
        } else {
            let variables = child::variables(&config, &self.bound, self.admin_address, &Environment::process());
            Some(Child::start(command, variables)?)
        };
        self.admin.handle.register();
        Ok(Running { sidecar: self, child })
    }

    fn config(&self) -> Config {
        self.admin.loaded.read().config.clone()
    }
}

impl Running {
    /// Serves until somebody says stop, or the child ends; then stops in order.
    async fn serve_and_stop(mut self) -> u8 {
        loop {
            tokio::select! {
                biased;
                code = exited(&mut self.child) => return self.stop(Some(code)).await,
                asked = self.sidecar.signals.next() => match asked {
                    Asked::Stop => return self.stop(None).await,
                    Asked::Reload => {
                        let _ = self.reload().await; // the log has the reason
                    }
                    Asked::Forward(signal) => {
                        if let Some(child) = &self.child {
                            child.signal(signal);
                        }
                    }
                },
                Some(order) = self.sidecar.orders.recv() => match order {
                    Order::Quit => return self.stop(None).await,
                    Order::Reload(done) => {
                        let _ = done.send(self.reload().await);
                    }
                    Order::Drain(done) => {
                        self.mark_draining(true);
                        let _ = done.send(self.sidecar.admin.handle.enter_maintenance("drained by an operator").await);
                    }
                    Order::Undrain(done) => {
                        self.mark_draining(false);
                        let _ = done.send(self.sidecar.admin.handle.leave_maintenance().await);
                    }
                },
            }
        }
    }

    /// Reads the configuration again. On a mistake everything stays as it is.
    async fn reload(&mut self) -> Result<(), String> {
        let admin = &self.sidecar.admin;
        let refused = |reason: String| {
            admin.scrape.reloaded(None, "");
            warn!(target: "lictor::event", kind = "config_rejected", reason, "the new configuration is refused; the old one stays");
            Err(reason)
        };
        let loaded = match self.sidecar.configured.read() {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(report)) => return refused(report.to_string()),
            Err(error) => return refused(format!("{error:#}")),
        };
        let before = Arc::clone(&admin.loaded.read());
        for key in needs_restart(&before.config, &loaded.config) {
            warn!(key, "this change takes effect at the next start");
        }
        let config = Arc::new(loaded.config.clone());
        // Old and new listeners are open together while the workers turn to the new mesh.
        admin.handle.reload(Arc::clone(&config)).await;
        let listeners = admin.handle.mesh().borrow().listeners.clone();
        let bound = match admin.plane.bind(&listeners) {
            Ok(bound) => bound,
            Err(error) => {
                admin.handle.reload(Arc::new(before.config.clone())).await;
                return refused(error.to_string());
            }
        };
        bound.iter().filter(|listener| !self.sidecar.bound.contains(listener)).for_each(announce);
        if let Err(error) = admin.logs.set_level(&config.log.level) {
            warn!(%error, "the log level stays as it was");
        }
        admin.scrape.reloaded(Some(&loaded.values), "reload");
        *admin.loaded.write() = Arc::new(loaded);
        self.sidecar.bound = bound;
        info!(target: "lictor::event", kind = "config_reloaded", "the new configuration is in force");
        Ok(())
    }

    /// The lifecycle contract's stop. A second signal skips what is being waited for.
    async fn stop(self, child_code: Option<u8>) -> u8 {
        let lifecycle = self.sidecar.config().lifecycle;
        info!(target: "lictor::event", kind = "stopping", "leaving");
        self.mark_draining(true);
        let (hurry, hurried) = watch::channel(false);
        let Self { sidecar, mut child } = self;
        let Sidecar { admin, mut signals, mut orders, export, .. } = sidecar;
        let impatience = tokio::spawn(async move {
            while signals.next().await != Asked::Stop {}
            hurry.send_replace(true);
            std::future::pending::<()>().await;
        });
        // Orders that come now find nobody.
        orders.close();
        // A child that ended by itself cannot serve while callers are told: it is out at once.
        let delay = if child_code.is_some() { Duration::ZERO } else { lifecycle.drain_delay };
        if !unless(&hurried, admin.handle.leave(delay)).await {
            admin.handle.leave(Duration::ZERO).await;
        }
        unless(&hurried, finish(&admin.plane, Which::Inbound, lifecycle.drain_timeout)).await;
        let code = match (child_code, &mut child) {
            (Some(code), _) => code,
            (None, Some(child)) => end(child, lifecycle.kill_after, &hurried).await,
            (None, None) => 0,
        };
        let rest = if child.is_some() { Duration::from_secs(1) } else { lifecycle.drain_timeout };
        unless(&hurried, finish(&admin.plane, Which::All, rest)).await;
        if let Some(export) = export {
            export.finish().await;
        }
        impatience.abort();
        info!(target: "lictor::event", kind = "stopped", code, "stopped");
        code
    }

    fn mark_draining(&self, is_draining: bool) {
        let admin = &self.sidecar.admin;
        admin.is_draining.store(is_draining, Relaxed);
        admin.plane.set_draining(is_draining);
    }
}

async fn exited(child: &mut Option<Child>) -> u8 {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

/// Waits for the work unless somebody is in a hurry; whether it was done.
async fn unless(hurried: &watch::Receiver<bool>, work: impl Future<Output = ()>) -> bool {
    let mut hurried = hurried.clone();
    tokio::select! {
        biased;
        _ = hurried.wait_for(|is_hurried| *is_hurried) => false,
        () = work => true,
    }
}

async fn finish(plane: &DataPlane, which: Which, at_most: Duration) {
    let cut = plane.finish(which, at_most).await;
    if cut > 0 {
        warn!(connections = cut, ?which, "connections were still open at the end of the drain timeout");
    }
}

/// Asks the child to end, and makes it end when it does not. Egress still works meanwhile.
async fn end(child: &mut Child, kill_after: Duration, hurried: &watch::Receiver<bool>) -> u8 {
    child.signal(Signal::TERM);
    let mut hurried = hurried.clone();
    let patience = async {
        tokio::select! {
            biased;
            _ = hurried.wait_for(|is_hurried| *is_hurried) => (),
            () = tokio::time::sleep(kill_after) => (),
        }
    };
    tokio::select! {
        biased;
        code = child.exited() => return code,
        () = patience => (),
    }
    warn!(?kill_after, "the application has not stopped; it is killed");
    child.signal(Signal::KILL);
    child.exited().await
}

/// Keys whose change a running sidecar cannot follow.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut check = |is_changed: bool, key| {
        if is_changed {
            keys.push(key);
        }
    };
    check(before.service != after.service, "service");
    check(before.registration != after.registration, "registration");
    check(before.app != after.app, "app");
    check(before.consul != after.consul, "consul");
    check(before.workers != after.workers, "workers");
    check(before.admin != after.admin, "admin");
    check(before.metrics != after.metrics, "metrics");
    check(before.trace.otlp != after.trace.otlp, "trace.otlp");
    check(before.log.format != after.log.format, "log.format");
    keys
}

/// One line a listener: what it leads to, and where it really is.
fn announce(bound: &Bound) {
    let address = bound.address;
    match &bound.kind {
        ListenerKind::Upstream(name) => info!(kind = "upstream", %name, %address, "listening"),
        ListenerKind::Forward => info!(kind = "forward", %address, "listening"),
        ListenerKind::Inbound => info!(kind = "inbound", %address, "listening"),
    }
}

/// What the log should say about a configuration before anything happens.
fn tell(loaded: &Loaded) {
    for warning in &loaded.warnings.0 {
        warn!(key = %warning.path, "{}", warning.message);
    }
    if !loaded.compat_env_used.is_empty() {
        info!(variables = loaded.compat_env_used.join(", "), "variables of older services are in use");
    }
    let lifecycle = &loaded.config.lifecycle;
    let total = lifecycle.drain_delay + lifecycle.drain_timeout + lifecycle.kill_after;
    let grace = std::env::var("TERMINATION_GRACE").ok().and_then(|text| humantime::parse_duration(&text).ok());
    if let Some(grace) = grace.filter(|grace| *grace < total) {
        warn!(?grace, ?total, "stopping may take longer than the orchestrator waits");
    }
    let is_root_of_container = rustix::process::getpid().is_init();
    if is_root_of_container && !Path::new("/proc/self").exists() {
        warn!("there is no /proc: process metrics are zero");
    }
}
