//! What both kinds of tests need: a configuration, and conditions with a deadline.

use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Config, Environment, Text, load};
use lictor_consul::{Handle, Standing};
use lictor_core::{Mesh, Upstream};

/// Generous: a loaded machine is slow, a broken test never gets there at all.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn config(yaml: &str) -> Arc<Config> {
    let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
    Arc::new(load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config)
}

pub(crate) fn start(yaml: &str) -> Handle {
    lictor_consul::start(config(yaml)).expect("the configuration is good")
}

/// Waits until the mesh's upstream of this name is as wanted.
pub(crate) async fn upstream(handle: &Handle, name: &str, is_wanted: impl Fn(&Upstream) -> bool) -> Arc<Mesh> {
    let mut mesh = handle.mesh();
    let wanted = mesh.wait_for(|mesh| mesh.upstreams.get(name).is_some_and(|upstream| is_wanted(upstream)));
    match tokio::time::timeout(SOON, wanted).await {
        Ok(mesh) => Arc::clone(&mesh.expect("the control loop lives")),
        Err(late) => panic!("{name} never was as wanted ({late}): {:#?}", handle.mesh().borrow().upstreams.get(name)),
    }
}

/// Waits until the status is as wanted.
pub(crate) async fn status(handle: &Handle, is_wanted: impl Fn(&Standing) -> bool) -> Standing {
    eventually("the status", || {
        let standing = handle.status().standing();
        if is_wanted(&standing) { Ok(standing) } else { Err(format!("{standing:#?}")) }
    })
    .await
}

/// Waits until there is a value.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let until = tokio::time::Instant::now() + SOON;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(last) if tokio::time::Instant::now() >= until => panic!("{what}: {last}"),
            Err(_) => tick.tick().await,
        };
    }
}

/// The ids of an upstream's endpoints.
pub(crate) fn ids(mesh: &Mesh, name: &str) -> Vec<String> {
    mesh.upstreams[name].endpoints.iter().map(|endpoint| endpoint.key.id.to_string()).collect()
}
