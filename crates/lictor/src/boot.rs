//! From a configuration to a stopped process, in the order of the lifecycle contract. Each state is made from the one
//! before it: [`Start`], then [`Bound`] with every listener open, then [`Running`], then [`Drained`].

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lictor_config::{Config, Effective, Environment, Lifecycle, Loaded, Origin};
use lictor_core::Mesh;
use lictor_proxy::{DataPlane, KeyBell, Settings, Which};
use prometheus::Registry;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::acme;
use crate::admin::{self, Access, Admin, Order};
use crate::app_metrics::AppMetrics;
use crate::application::{Again, Application, Change};
use crate::child::{self, Child};
use crate::events::Events;
use crate::exit::Exit;
use crate::followed::Start;
use crate::history;
use crate::keys;
use crate::lifecycle::grace;
use crate::log::Logs;
use crate::metrics::Scrape;
use crate::neighbours::Announced;
use crate::otlp;
use crate::process_limits::ProcessLimits;
use crate::reload::{Cause, InForce, Refusal, announce, check_tls, reload};
use crate::sagas;
use crate::signal::{Asked, Signals};
use crate::supervisor::Supervisor;
use crate::version;

/// What leaving may take when nobody waits for it any more.
const LAST_CALL: Duration = Duration::from_secs(1);

/// So many ports after the default one are tried for the admin listener.
const ADMIN_PORTS: u16 = 19;

/// At the start Consul's silence is told after so long, and then this often.
const WAITING_SOON: Duration = Duration::from_millis(500);
const WAITING_EVERY: Duration = Duration::from_secs(5);

/// What was killed and is still there is killed again.
const AGAIN: Duration = Duration::from_millis(100);

/// Certificate files are looked at this often, and what the look before found has its consequences.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(1);

/// Runs the sidecar, with an application within it where there is a command. The number is the exit code.
pub(crate) fn run(start: Start, command: &[String]) -> anyhow::Result<u8> {
    let (events, log) = (Events::new(), &start.loaded.config.log);
    let logs = Logs::start(&log.level, log.format, events.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let bound = Bound::open(start, logs.clone(), events).await?;
        let mut running = bound.start(command)?;
        let ending = running.serve().await;
        let drained = Box::pin(running.drain(ending)).await;
        anyhow::Ok(drained.finish().await)
    });
    if let Err(error) = &code {
        error!("{error:#}");
    }
    runtime.shutdown_timeout(LAST_CALL); // a lookup or a disk may hang
    logs.flush();
    code
}

/// A sidecar whose listeners are open.
struct Bound {
    admin: Arc<Admin>,
    in_force: InForce,
    admin_address: SocketAddr,
    /// How `lictor ps` finds us; `None` where the kernel would not have it.
    announced: Option<Announced>,
    orders: mpsc::Receiver<Order>,
    export: Option<otlp::Export>,
    limits: ProcessLimits,
}

/// A sidecar at work.
struct Running {
    bound: Bound,
    signals: Signals,
    supervisor: Supervisor,
    app: Application,
}

/// A sidecar that nobody uses any more.
struct Drained {
    export: Option<otlp::Export>,
    code: u8,
}

/// Why it does not run any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// SIGTERM or SIGINT; SIGQUIT where there is no application.
    Signalled(Signal),
    /// `POST /quit`.
    Quit,
    /// The application ended by itself.
    ChildExited,
    /// There is no application; with the exit code for that.
    CannotStart(u8),
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Signalled(_) => "signal",
            Self::Quit => "POST /quit",
            Self::ChildExited => "the application ended",
            Self::CannotStart(_) => "the application cannot start",
        }
    }

    /// The exit code where no application ran. One that was to run and was stopped before it did has not succeeded: the
    /// code is that of a program which the signal ended. `POST /quit` is SIGTERM to an application.
    fn code_without_child(self, was_wanted: bool) -> u8 {
        let signal = match self {
            Self::CannotStart(code) => return code,
            Self::Signalled(signal) => signal,
            Self::Quit | Self::ChildExited => Signal::TERM,
        };
        let ended = || u8::try_from(128 + signal.as_raw()).unwrap_or(1);
        if was_wanted { ended() } else { 0 }
    }
}

impl Bound {
    /// Opens everything; what cannot be opened is the error.
    async fn open(start: Start, logs: Logs, events: Events) -> anyhow::Result<Self> {
        let Start { configured, sources, loaded, followed } = start;
        let limits = ProcessLimits::set();
        tell(&loaded);
        let config = Arc::new(loaded.config.clone());
        check_tls(&config).await?;
        let handle = lictor_consul::start(Arc::clone(&config)).context("consul")?;
        let registry = Registry::new();
        let export = config.trace.otlp.as_ref().and_then(|otlp| otlp::start_or_tell(otlp, &registry));
        let (spans, export) = export.unzip();
        let app = config.metrics.merge_app.as_deref().map(str::parse).transpose().context("metrics.merge_app")?;
        let endpoints = config.metrics.endpoints.then_some(config.metrics.max_label_values);
        let scrape = Scrape::new(registry.clone(), app.map(|uri| AppMetrics::new(uri, &registry)), endpoints);
        scrape.reloaded(Some(&loaded.values), &configured.source());
        let bell = Arc::<KeyBell>::default();
        let plane = DataPlane::start(Settings {
            workers: config.workers,
            mesh: handle.mesh(),
            registry,
            compat_metrics: config.metrics.compat,
            otel_metrics: config.metrics.otel,
            max_label_values: config.metrics.max_label_values,
            access_log: Some(logs.lines()),
            spans,
            demand: handle.demand(),
            keys: Arc::clone(&bell),
        })?;
        let wanted = handle.mesh().borrow().listeners.clone();
        let listeners = plane.adopt(plane.prepare(&wanted).await?, config.lifecycle.drain_timeout).await;
        let (order, orders) = mpsc::channel(8);
        let admin = Arc::new(Admin::new(handle, plane, loaded, scrape, events, logs, order));
        let (admin_address, announced) = listen_for_admin(&admin)?;
        if let Some(public) = config.admin.public {
            let address = admin::listen(&admin, public, Access::Public)?;
            info!(kind = "public", %address, "listening");
        }
        listeners.iter().for_each(announce);
        tokio::spawn(refresh_certificates(Arc::clone(&admin)));
        tokio::spawn(keys::run(Arc::clone(&admin), bell));
        tokio::spawn(acme::run(Arc::clone(&admin)));
        tokio::spawn(sagas::run(Arc::clone(&admin)));
        tokio::spawn(history::run(Arc::clone(&admin)));
        let in_force = InForce::new(configured, sources, followed, listeners);
        Ok(Self { admin, in_force, admin_address, announced, orders, export, limits })
    }

    /// Takes over the signals, and begins to tell the service manager.
    fn start(self, command: &[String]) -> anyhow::Result<Running> {
        let signals = Signals::listen().context("cannot listen for signals")?;
        let ignored = signals.ignored();
        if !ignored.is_empty() {
            info!(
                signals = ignored.join(", "),
                "ignored when lictor was started: they stay so, for the application too"
            );
        }
        if command.is_empty() {
            child::reap_orphans().context("cannot listen for signals")?;
        }
        let supervisor = Supervisor::of(&Environment::process());
        supervisor.starting();
        if let Some(watchdog) = supervisor.watchdog() {
            let admin = Arc::clone(&self.admin);
            tokio::spawn(watchdog.beat(async move || admin.plane.is_alive().await));
        }
        let app = Application::new(command, self.config().app.restart);
        Ok(Running { bound: self, signals, supervisor, app })
    }

    fn config(&self) -> Config {
        self.admin.loaded.read().config.clone()
    }
}

impl Running {
    /// Waits for the first endpoints, starts the application and registers; serves until there is a reason to stop.
    async fn serve(&mut self) -> Ending {
        let at_most = self.bound.config().lifecycle.start_timeout;
        tokio::spawn(tell_while_waiting(Arc::clone(&self.bound.admin), at_most));
        let mut files = self.bound.in_force.followed.changes();
        let handle = &self.bound.admin.handle;
        let (mut kv, mut claims) = (Known::of(handle.kv()), Known::of(Some(handle.claims())));
        let awaits_claims = self.bound.config().gateway.is_some_and(|gateway| gateway.from_consul.is_some());
        let (known, is_known) = watch::channel(Awaited { kv: kv.0.is_some(), claims: awaits_claims });
        let mut first_endpoints = pin!(first_endpoints(handle.mesh(), is_known, at_most));
        let mut is_up = false;
        loop {
            tokio::select! {
                biased;
                change = self.app.next() => {
                    let goes_on = match change {
                        Change::Ended(exit) => self.goes_on_after(exit),
                        Change::Due => self.start_again(),
                    };
                    if let Err(ending) = goes_on {
                        return ending;
                    }
                }
                asked = self.signals.next() => match asked {
                    Asked::Stop(signal) => return Ending::Signalled(signal),
                    Asked::Reload => {
                        let _ = self.reload(Cause::Reload).await; // the log has the reason
                    }
                    Asked::Forward(signal) => if self.forward(signal) == Forwarded::ToNobody {
                        return Ending::Signalled(signal);
                    },
                },
                Some(order) = self.bound.orders.recv() => match order {
                    Order::Quit => return Ending::Quit,
                    Order::Reload(done) => {
                        let _ = done.send(self.reload(Cause::Reload).await.map_err(|refusal| refusal.to_string()));
                    }
                },
                Ok(()) = files.changed() => {
                    let _ = self.reload(Cause::File).await; // the log has the reason
                }
                entry = kv.next() => {
                    let _ = self.reload(Cause::Kv(entry)).await; // the log has the reason
                    known.send_modify(|awaited| awaited.kv = false);
                }
                claims = claims.next() => {
                    let _ = self.reload(Cause::Claims(claims)).await; // the log has the reason
                    known.send_modify(|awaited| awaited.claims = false);
                }
                () = &mut first_endpoints, if !is_up => {
                    is_up = true;
                    if let Err(ending) = self.come_up() {
                        return ending;
                    }
                }
            }
        }
    }

    /// Egress is up: now the application may start, and may be called.
    fn come_up(&mut self) -> Result<(), Ending> {
        info!(target: "lictor::event", kind = "started", "egress is up");
        if self.app.is_wanted() {
            self.start_app().map_err(Ending::CannotStart)?;
        }
        let admin = &self.bound.admin;
        admin.started();
        admin.handle.register();
        self.supervisor.ready();
        Ok(())
    }

    /// Starts the application; the error is the exit code for that.
    fn start_app(&mut self) -> Result<(), u8> {
        let Bound { in_force, admin_address, limits, .. } = &self.bound;
        let variables =
            child::variables(&self.bound.config(), &in_force.bound, *admin_address, &Environment::process());
        let withheld = child::withheld(&self.bound.config(), &Environment::process());
        if !withheld.is_empty() {
            info!(variables = withheld.join(", "), "the application does not get these: see app.inherit");
        }
        limits.lifted(|| self.app.start(variables, &withheld)).map_err(|refusal| {
            error!(target: "lictor::event", kind = "application_cannot_start", "{}", refusal.sentence);
            refusal.code
        })
    }

    /// The application ended by itself: out of circulation until it is back, or for good.
    fn goes_on_after(&mut self, exit: Exit) -> Result<(), Ending> {
        let again = self.app.again_after(exit.code());
        tell_end(exit, again);
        if again.is_none() {
            return Err(Ending::ChildExited);
        }
        self.app.signal_rest(Signal::TERM, self.bound.config().lifecycle.signal);
        let told = match exit {
            Exit::Code(code) => format!("the application ended with code {code} and is started again"),
            Exit::Signal(_) => format!("the application was ended by {exit}; it is started again"),
        };
        self.bound.admin.handle.app_is_away(Some(told));
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), Ending> {
        self.app.signal_rest(Signal::KILL, self.bound.config().lifecycle.signal); // it may have its ports
        match self.start_app() {
            Ok(()) => {
                info!(target: "lictor::event", kind = "application_restarted", "the application was started again");
                self.bound.admin.handle.app_is_away(None);
                Ok(())
            }
            Err(code) => self.goes_on_after(Exit::Code(code)).map_err(|_| Ending::CannotStart(code)),
        }
    }

    /// SIGQUIT without an application is meant for us.
    fn forward(&self, signal: Signal) -> Forwarded {
        let is_for_us = !self.app.signal(signal) && signal == Signal::QUIT;
        if is_for_us { Forwarded::ToNobody } else { Forwarded::Yes }
    }

    async fn reload(&mut self, cause: Cause) -> Result<(), Refusal> {
        let Bound { admin, in_force, .. } = &mut self.bound;
        self.supervisor.reloading();
        let result = reload(admin, in_force, cause).await;
        self.supervisor.reloaded(result.is_ok());
        result
    }

    /// Leaves in order: out of circulation, out of Consul, inbound requests to their end, the application, the rest.
    async fn drain(self, ending: Ending) -> Drained {
        let Self { bound, signals, supervisor, app } = self;
        let (is_wanted, mut child) = (app.is_wanted(), app.into_child());
        let config = bound.config();
        let Bound { admin, mut orders, export, announced, .. } = bound;
        // Who was never ready has nobody who goes on.
        let unlisted = if admin.has_started() { unlisted(&config) } else { Duration::ZERO };
        let lifecycle = config.lifecycle;
        info!(target: "lictor::event", kind = "stopping", cause = ending.as_str(), "leaving");
        supervisor.stopping(ending.as_str());
        admin.stop();
        orders.close(); // who asks now is told that we are stopping
        let mut patience = Patience::new(signals, ending);
        let leaving = Box::pin(async {
            tokio::join!(admin.handle.leave(lifecycle.drain_delay), sleep(unlisted));
        });
        if patience.unless_alone(&mut child, leaving).await.is_none() {
            let _ = timeout(LAST_CALL, admin.handle.leave(Duration::ZERO)).await;
        }
        let until = Instant::now() + lifecycle.drain_timeout;
        let inbound = finish(&admin.plane, Which::Inbound, lifecycle.drain_timeout);
        let _ = patience.unless_alone(&mut child, inbound).await;
        // Requests that were being answered may have needed one until now.
        let _ = patience.unless_alone(&mut child, admin.sagas.leave(until)).await;
        let code = match (&mut child, ending) {
            (_, Ending::CannotStart(code)) => code,
            (Some(child), _) => end(child, &lifecycle, &mut patience).await,
            (None, ending) => ending.code_without_child(is_wanted),
        };
        let is_alone = child.is_some() || matches!(ending, Ending::CannotStart(_));
        let rest = if is_alone { LAST_CALL } else { until.saturating_duration_since(Instant::now()) };
        let all =
            async { tokio::join!(finish(&admin.plane, Which::All, rest), admin.sagas.leave(Instant::now() + rest)) };
        let _ = patience.unless_hurried(all).await;
        let _ = timeout(LAST_CALL, admin.plane.cut()).await; // so that the log has what was cut off, and why
        let _ = timeout(LAST_CALL, admin.handle.save()).await;
        if let Some(blocks) = admin.handle.blocks() {
            blocks.close(LAST_CALL).await;
        }
        drop(announced);
        Drained { export, code }
    }
}

impl Drained {
    /// Sends what is left to tell.
    async fn finish(self) -> u8 {
        if let Some(export) = self.export {
            export.finish().await;
        }
        info!(target: "lictor::event", kind = "stopped", code = self.code, "stopped");
        self.code
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarded {
    Yes,
    ToNobody,
}

/// Certificates are replaced as files, at any time.
async fn refresh_certificates(admin: Arc<Admin>) {
    let mut tick = interval(CERTIFICATES_EVERY);
    loop {
        tick.tick().await;
        let grace = admin.loaded.read().config.lifecycle.drain_timeout;
        admin.plane.refresh_certificates(grace).await;
    }
}

/// What Consul says besides endpoints, as it becomes known.
struct Known<T>(Option<watch::Receiver<Option<T>>>);

impl<T: Clone> Known<T> {
    fn of(mut known: Option<watch::Receiver<Option<T>>>) -> Self {
        if let Some(known) = &mut known {
            known.mark_changed(); // an earlier process may have known it
        }
        Self(known)
    }

    async fn next(&mut self) -> T {
        if let Some(known) = &mut self.0 {
            while known.changed().await.is_ok() {
                if let Some(known) = known.borrow_and_update().clone() {
                    return known;
                }
            }
        }
        std::future::pending().await
    }
}

/// While Consul says nothing at the start: whom we ask, what it says instead, how long we go on waiting, and what to do.
async fn tell_while_waiting(admin: Arc<Admin>, at_most: Duration) {
    let began = Instant::now();
    let mut next = WAITING_SOON;
    while next < at_most {
        sleep_until(began + next).await;
        if admin.has_started() || admin.is_stopping() {
            return;
        }
        let standing = admin.handle.status().standing();
        let Some(consul) = standing.address else { return }; // names are looked up, or files awaited
        let errors = standing.watches.iter().map(|watch| watch.last_error.clone());
        let errors =
            errors.chain([standing.kv.as_ref().and_then(|kv| kv.last_error.clone()), standing.registration_error]);
        let error = errors.flatten().next();
        if error.is_some() || standing.up.is_none() {
            let left = humantime::format_duration(Duration::from_secs(
                at_most.saturating_sub(next).as_secs_f64().round() as u64,
            ));
            let error = error.as_deref().unwrap_or("no answer yet");
            warn!(target: "lictor::event", kind = "consul_awaited", consul, error, %left, "Consul has said nothing of the upstreams yet; lictor goes on without when lifecycle.start_timeout is over; `lictor doctor` says what is wrong");
        }
        next += WAITING_EVERY;
    }
}

/// What a start waits for, besides endpoints.
struct Awaited {
    /// What KV says besides the file.
    kv: bool,
    /// What services claim of the gateway.
    claims: bool,
}

/// Until Consul has said what there is besides the file and each upstream has had its first answer, or this has taken long
/// enough.
async fn first_endpoints(
    mut mesh: watch::Receiver<Arc<Mesh>>,
    mut awaited: watch::Receiver<Awaited>,
    at_most: Duration,
) {
    let known = async {
        let _ = awaited.wait_for(|awaited| !awaited.kv && !awaited.claims).await;
        let _ = mesh
            .wait_for(|mesh| mesh.maintenance.is_some() && mesh.upstreams.values().all(|upstream| upstream.is_known()))
            .await;
    };
    if timeout(at_most, known).await.is_ok() {
        return;
    }
    if awaited.borrow().kv {
        warn!(?at_most, "nothing is known of the configuration in KV yet; going on with the file's");
    }
    if awaited.borrow().claims {
        warn!(?at_most, "nothing is known of the routes that services claim yet; going on with the configuration's");
    }
    let mesh = mesh.borrow();
    if mesh.maintenance.is_none() {
        warn!(
            ?at_most,
            "nothing is known of orders about the gateway's maintenance yet; going on as if there were none"
        );
    }
    let unknown = mesh.upstreams.values().filter(|upstream| !upstream.is_known());
    let names: Vec<&str> = unknown.map(|upstream| upstream.name.as_ref()).collect();
    if !names.is_empty() {
        warn!(upstreams = names.join(", "), ?at_most, "nothing is known of these upstreams yet; going on without them");
    }
}

/// How the application ended. Whoever had a crash to look into has the reason here, not only a code.
fn tell_end(exit: Exit, again: Option<Again>) {
    let (code, signal) = (exit.code(), exit.signal());
    match again {
        None if code == 0 => {
            info!(target: "lictor::event", kind = "application_ended", code, "the application ended");
        }
        None => {
            error!(target: "lictor::event", kind = "application_ended", code, signal, "the application ended: {exit}");
        }
        Some(Again { after, number, max }) => {
            let after = humantime::format_duration(after);
            error!(target: "lictor::event", kind = "application_ended", code, signal, %after, number, max, "the application ended: {exit}; it is started again");
        }
    }
}

async fn exited(child: &mut Option<Child>) -> Exit {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

/// How long stopping is waited for: until a second signal.
struct Patience {
    hurried: watch::Receiver<bool>,
    listening: JoinHandle<()>,
}

impl Patience {
    fn new(mut signals: Signals, ending: Ending) -> Self {
        let (hurry, hurried) = watch::channel(false);
        // The first signal after POST /quit is the orchestrator's regular SIGTERM.
        let patient_for = u32::from(ending == Ending::Quit);
        let listening = tokio::spawn(async move {
            let mut seen = 0;
            while seen <= patient_for {
                seen += u32::from(matches!(signals.next().await, Asked::Stop(_)));
            }
            warn!("asked again to stop: nothing is waited for any more");
            hurry.send_replace(true);
            while hurry.receiver_count() > 0 {
                signals.next().await; // further ones change nothing, and do not kill
            }
        });
        Self { hurried, listening }
    }

    /// The work's result, unless somebody is in a hurry.
    async fn unless_hurried<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.hurried.wait_for(|is_hurried| *is_hurried) => None,
            result = work => Some(result),
        }
    }

    /// The same, unless the application is gone too: nobody may be sent to it, and nothing of it be finished.
    async fn unless_alone<T>(&mut self, child: &mut Option<Child>, work: impl Future<Output = T>) -> Option<T> {
        let with_child = async {
            tokio::select! {
                biased;
                _ = exited(child) => None,
                result = work => Some(result),
            }
        };
        self.unless_hurried(with_child).await.flatten()
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// How long those go on that come to us without asking Consul: by `/ready` and by our answers they learn that we leave.
fn unlisted(config: &Config) -> Duration {
    let is_found_elsewhere = config.gateway.is_some() || config.inbound.is_some() && config.registration.is_none();
    if is_found_elsewhere { config.lifecycle.drain_delay } else { Duration::ZERO }
}

async fn finish(plane: &DataPlane, which: Which, at_most: Duration) {
    let cut = plane.finish(which, at_most).await;
    if cut > 0 {
        warn!(connections = cut, ?which, "connections were still open at the end of the drain timeout");
    }
}

/// Asks the application to end, and makes it end when it does not; so with what it leaves. Egress still works meanwhile.
async fn end(child: &mut Child, lifecycle: &Lifecycle, patience: &mut Patience) -> u8 {
    let (whom, kill_after) = (lifecycle.signal, lifecycle.kill_after);
    child.signal_all(Signal::TERM, whom);
    if let Some(Ok(exit)) = patience.unless_hurried(timeout(kill_after, child.all_exited(whom))).await {
        return exit.code();
    }
    warn!(?kill_after, "the application has not stopped; it is killed");
    child.signal_all(Signal::KILL, whom);
    let code = child.exited().await.code();
    // Whoever was being started as the others were killed is found by another look.
    let _ = timeout(LAST_CALL, async {
        while timeout(AGAIN, child.all_exited(whom)).await.is_err() {
            child.signal_all(Signal::KILL, whom);
        }
    })
    .await;
    code
}

/// Opens the admin listener, and says where it is. The default port is one of many sidecars on a developer's machine: where it
/// is taken, the next free one is as good. One that was configured is meant.
fn listen_for_admin(admin: &Arc<Admin>) -> anyhow::Result<(SocketAddr, Option<Announced>)> {
    let loaded = Arc::clone(&admin.loaded.read());
    let (wanted, public) = (loaded.config.admin.listen, loaded.config.admin.public.map(|public| public.port()));
    let is_default = |value: &Effective| value.path == "admin.listen" && value.origin == Origin::Default;
    let others = if loaded.values.iter().any(is_default) { ADMIN_PORTS } else { 0 };
    let mut listening = admin::listen(admin, wanted, Access::Full);
    for port in wanted.port()..=wanted.port().saturating_add(others) {
        if !listening.as_ref().is_err_and(admin::is_taken) {
            break;
        }
        if port != wanted.port() && Some(port) != public {
            let next = admin::listen(admin, SocketAddr::new(wanted.ip(), port), Access::Full);
            listening = next.or(listening);
        }
    }
    let address = listening?;
    let has_moved = address != wanted && wanted.port() != 0;
    if has_moved {
        warn!(%wanted, %address, "the default admin port is taken, another one is used; `lictor ps` lists who is where, admin.listen says which it is to be");
    }
    let service = loaded.config.service.as_deref().unwrap_or_default();
    let announced = Announced::new(child::reachable(address), has_moved, version::NUMBER, service);
    let announced = announced.inspect_err(|error| debug!(%error, "`lictor ps` does not find this sidecar")).ok();
    info!(kind = "admin", %address, "listening");
    Ok((address, announced))
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
    let grace = std::env::var("TERMINATION_GRACE").ok().and_then(|text| grace(&text));
    if let Some(grace) = grace.filter(|grace| *grace < total) {
        warn!(
            ?grace,
            ?total,
            "drain_delay, drain_timeout and kill_after may take longer than TERMINATION_GRACE; lictor may be killed"
        );
    }
}
