//! A sidecar that starts while Consul is away: by the last good answers on disk, or by what the configuration says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is, request};
use serde_json::Value as Json;

use crate::LICTOR;

/// A file that outlives a sidecar, in a folder of its own.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lictor-snapshot-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("snapshot")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(consul: &Consul, kept: &Kept) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nlifecycle: {{start_timeout: 100ms}}\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n",
        consul.url()
    );
    let path = kept.path();
    let variables = [("LICTOR_CONSUL_SNAPSHOT_PATH", path.to_str().unwrap())];
    Sidecar::start(LICTOR, &yaml, &variables, &["serve"], &[]).up()
}

fn source(lictor: &Sidecar) -> Json {
    lictor.page("/endpoints/users")["users"]["census"]["source"].clone()
}

#[test]
fn a_sidecar_that_starts_without_consul_serves_from_the_snapshot_until_consul_answers() {
    let (mut consul, kept) = (Consul::server(), Kept::new("serves"));
    let backends = ["a", "b"].map(Backend::start);
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let mut first = start(&consul, &kept);
    first.await_endpoints("users", 2);
    assert_eq!(source(&first), "Consul");
    assert!(first.terminate().success());
    consul.kill();

    let lictor = start(&consul, &kept);
    lictor.await_endpoints("users", 2);
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 200);
    load.await_more(200);
    let page = lictor.page("/endpoints/users");
    assert_eq!(page["users"]["census"]["source"], "snapshot");
    assert!(page["users"]["census"]["age_ms"].as_u64().unwrap() > 0, "{page}");
    let page = lictor.page("/consul");
    assert_eq!((&page["watches"][0]["source"], &page["snapshot"]["in_use"]), (&"snapshot".into(), &1.into()), "{page}");
    assert!(page["watches"][0]["age_ms"].as_u64().unwrap() > 0, "{page}");
    let health = lictor.page("/health");
    assert_eq!((&health["status"], &health["checks"]["snapshot"]["status"]), (&"healthy".into(), &"warning".into()));
    assert!(lictor.metric("lictor_snapshot_in_use", &[]) > 0.9);
    assert!(lictor.metric("lictor_snapshot_age_seconds", &[]) > 0.0);

    consul.restart();
    let began = Instant::now();
    eventually_is("the endpoints are Consul's", || source(&lictor), |source| source == "Consul");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let backend = Backend::start("c");
    consul.register("users", "c", backend.port());
    lictor.await_endpoints("users", 3);
    load.await_more(100);
    load.finish().assert_flawless();
    assert!(lictor.metric("lictor_snapshot_in_use", &[]).abs() < 0.1);
    let kinds = ["snapshot_used", "snapshot_replaced"];
    assert!(kinds.iter().all(|kind| lictor.log().matches(kind).count() == 1), "each is said once");
}

#[test]
fn a_damaged_snapshot_is_refused_with_the_reason_and_kept_aside() {
    let (mut consul, kept) = (Consul::server(), Kept::new("damaged"));
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let first = start(&consul, &kept);
    first.await_endpoints("users", 1);
    eventually_is("it is written", || kept.path().exists(), |exists| *exists);
    drop(first); // SIGKILL: what is on disk has to do
    consul.kill();
    let mut bytes = std::fs::read(kept.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(kept.path(), bytes).unwrap();

    let lictor = start(&consul, &kept);
    let page = lictor.page("/consul");
    assert!(page["snapshot"]["refused"].as_str().unwrap().contains("damaged"), "{page}");
    assert!(lictor.log().contains("snapshot_refused"));
    assert!(lictor.page("/health")["checks"]["snapshot"]["message"].as_str().unwrap().contains("damaged"));
    assert!(!kept.path().exists() && kept.0.join("snapshot.rejected").exists());
    assert_eq!(lictor.endpoints("users"), 0);
    consul.restart();
    lictor.await_endpoints("users", 1);
    assert_eq!(lictor.get("users", "/").header("x-backend"), "a");
    eventually_is("it is written anew", || kept.path().exists(), |exists| *exists);
}

#[test]
fn services_of_the_forward_proxy_are_remembered_too() {
    let (mut consul, kept) = (Consul::dev(), Kept::new("forward"));
    let backend = Backend::start("a");
    consul.register("pay-cards", "a", backend.port());
    let yaml = format!(
        "registration: off\nconsul: {{address: '{}', snapshot: {{path: '{}'}}}}\noutbound: {{proxy: 0, allow: ['pay-*']}}\n",
        consul.url(),
        kept.path().display()
    );
    let ask = |lictor: &Sidecar| {
        request(&lictor.address("forward"), "GET", "/", &[("host", "pay-cards")], b"")
            .unwrap()
            .header("x-backend")
            .to_owned()
    };
    let mut first = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(ask(&first), "a");
    assert!(first.terminate().success());
    consul.kill();
    for _ in 0..2 {
        let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
        assert_eq!(ask(&lictor), "a");
        assert!(lictor.terminate().success());
    }
}

#[test]
fn an_answer_of_consul_beats_the_snapshot_and_an_emptied_one_is_guarded() {
    let (mut consul, kept) = (Consul::dev(), Kept::new("beaten"));
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    consul.register("users", "old", old.port());
    let mut first = start(&consul, &kept);
    first.await_endpoints("users", 1);
    assert!(first.terminate().success());

    consul.restart(); // a development agent forgets everything
    let lictor = start(&consul, &kept);
    let state = || lictor.page("/endpoints/users")["users"]["endpoints"][0]["state"].clone();
    eventually_is("nobody is registered: it is kept as a suspect", state, |state| state == "suspect");
    assert_eq!(source(&lictor), "Consul");
    assert_eq!(lictor.get("users", "/").header("x-backend"), "old");
    consul.register("users", "new", new.port());
    let only_new = || lictor.page("/endpoints/users")["users"]["endpoints"].to_string();
    eventually_is("the answer counts", only_new, |page| page.contains("\"new\"") && !page.contains("\"old\""));
    assert_eq!(lictor.get("users", "/").header("x-backend"), "new");
}

/// With endpoints for a start without Consul.
fn start_with(consul: &Consul, bootstrap: &Backend, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 2\nlifecycle: {{start_timeout: 10m}}\nconsul: {{address: '{}'{more}}}\n\
         upstreams: {{users: {{listen: 0, required: true, bootstrap: ['127.0.0.1:{}']}}}}\n",
        consul.url(),
        bootstrap.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn whom(lictor: &Sidecar) -> String {
    lictor.get("users", "/").header("x-backend").to_owned()
}

#[test]
fn bootstrap_endpoints_serve_until_a_consul_that_comes_late_replaces_them_for_good() {
    let mut consul = Consul::server();
    consul.kill();
    let (early, late) = (Backend::start("early"), Backend::start("late"));
    let lictor = start_with(&consul, &early, ", guard: {on_empty: drop, keep_for: 100ms}");
    assert_eq!(whom(&lictor), "early", "egress is up without Consul");
    assert_eq!(lictor.get("admin", "/ready").status, 200);
    let page = lictor.page("/endpoints/users");
    assert_eq!(
        (&page["users"]["census"]["source"], &page["users"]["census"]["known"]),
        (&"bootstrap".into(), &true.into())
    );
    let explained = || lictor.page("/explain?method=GET&upstream=users&path=/")["source"].clone();
    assert_eq!(explained(), "bootstrap");
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 200);
    load.await_more(100);

    // Whoever registers before lictor asks again: an answer without instances would replace them too.
    consul.restart();
    consul.register("users", "late", late.port());
    eventually_is("the endpoints are Consul's", || whom(&lictor), |whom| whom == "late");
    assert_eq!((source(&lictor), explained()), ("Consul".into(), "Consul".into()));
    let hits = early.hits();
    load.await_more(200);
    load.finish();
    assert_eq!(early.hits(), hits, "nobody asks the earlier ones any more");
    for kind in ["bootstrap_used", "bootstrap_replaced"] {
        eventually_is(kind, || lictor.log().matches(kind).count(), |count| *count == 1);
    }

    // For good: neither Consul's end nor an empty list brings them back.
    consul.kill();
    assert_eq!((whom(&lictor), source(&lictor)), ("late".to_owned(), "Consul".into()));
    consul.restart();
    consul.deregister("late");
    lictor.await_endpoints("users", 0);
    assert_eq!((lictor.get("users", "/").status, source(&lictor)), (503, "Consul".into()));
    assert_eq!(early.hits(), hits);
}

#[test]
fn a_consul_that_answers_and_a_snapshot_go_before_bootstrap() {
    let (mut consul, kept) = (Consul::server(), Kept::new("bootstrap"));
    let (early, known) = (Backend::start("early"), Backend::start("known"));
    let snapshot = format!(", snapshot: {{path: '{}'}}", kept.path().display());
    consul.register("users", "known", known.port());
    let mut lictor = start_with(&consul, &early, &snapshot);
    eventually_is("Consul has answered", || source(&lictor), |source| source == "Consul");
    assert_eq!(whom(&lictor), "known");
    assert!(lictor.terminate().success());
    consul.kill();
    let hits = early.hits();
    let lictor = start_with(&consul, &early, &snapshot);
    assert_eq!((whom(&lictor), source(&lictor)), ("known".to_owned(), "snapshot".into()));
    assert_eq!(early.hits(), hits);
    assert!(!lictor.log().contains("bootstrap_used"));
}
