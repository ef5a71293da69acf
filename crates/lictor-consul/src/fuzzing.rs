//! The laws that fuzzing tries to break: each function takes any bytes, and panics when one does not hold. `fuzz/` runs
//! them on new inputs, and the tests here on those that are kept in `fuzz/corpus`.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lictor_config::{Config, Environment, Query, Text, load};
use lictor_core::Mesh;
use ring::digest::{SHA256, digest};

use crate::agent::{health, kv};
use crate::memory::{Contents, disk};
use crate::mesh::{Changed, Inputs, assemble, is_news};
use crate::watch::{Guard, Observed};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = Text { name: "test".to_owned(), text: "registration: off\nupstreams: {users: 3001}\n".to_owned() };
    load(Some(&text), &Environment::default(), &[]).expect("the file is valid").config
});

/// Answers to `/v1/health/service/:name`, one a line: each is refused or is a list of instances; whatever they say one
/// after the other, the mesh has usable endpoints only, each once, and the same answer again is no news.
pub fn consul_health(bytes: &[u8]) {
    let start = Instant::now();
    let mut guard = Guard::new(CONFIG.consul.guard.clone());
    let mut previous = mesh(&HashMap::new(), None, start);
    for (second, body) in bytes.split(|byte| *byte == b'\n').enumerate().take(16) {
        let now = start + Duration::from_secs(second as u64);
        let Ok(mut instances) = health::parse(body) else { continue };
        let ids: Vec<_> = instances.iter().map(|instance| (&instance.node, &instance.id)).collect();
        assert!(ids.is_sorted_by(|one, next| one < next), "sorted, each once");
        guard.carry_over(&mut instances);
        let doubted = guard.doubts(&instances, false, now);
        let is_known = guard.is_known();
        assert!(is_known || !doubted, "there is nothing to lose before the first answer");
        let before = guard.take(instances.clone(), now);
        assert!(before.is_some() || is_known, "the first answer is news");
        assert_eq!(guard.take(instances.clone(), now), None, "the same again is none");
        let Some(observed) = before else { continue };
        assert!(is_known || observed.suspects.is_empty(), "nobody is missed before the first answer");
        let seen = HashMap::from([(query(), observed)]);
        let next = mesh(&seen, Some(&previous), now);
        let users = &next.upstreams["users"];
        assert!(users.endpoints.windows(2).all(|pair| pair[0].key < pair[1].key), "sorted, each once");
        assert!(users.endpoints.iter().all(|endpoint| (1..=65_535).contains(&endpoint.weight)));
        assert!(users.endpoints.iter().all(|endpoint| endpoint.address.tcp().is_some_and(|tcp| tcp.port() != 0)));
        assert_eq!((users.census.total, users.census.is_known), (instances.len(), is_looked_up(&seen)));
        assert!(!is_news(&next, &mesh(&seen, Some(&next), now)), "the same again is no news");
        previous = next;
    }
}

/// An answer to `/v1/kv/:key`: refused, or a value.
pub fn consul_kv(bytes: &[u8]) {
    let first = kv::parse(bytes);
    assert_eq!(first.is_ok(), kv::parse(bytes).is_ok());
}

/// A snapshot that is believed has the checksum and the length that it says, and is what would be written of it. With
/// a first byte of 1 the rest is JSON, and gets its right first line: no fuzzer guesses a SHA-256.
pub fn snapshot(bytes: &[u8]) {
    let framed = bytes.strip_prefix(&[1]).map(disk::framed);
    let bytes = framed.as_deref().unwrap_or(bytes);
    let Ok(contents) = disk::decode(bytes) else { return };
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("there is a first line");
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).expect("the first line is text");
    let sum = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest(&SHA256, body));
    let mut words = head.rsplit(' ');
    assert_eq!(words.next().and_then(|length| length.parse().ok()), Some(body.len()));
    assert_eq!(words.next(), Some(sum.as_str()));
    assert!(
        contents.answers.iter().all(|answer| {
            answer.instances.is_sorted_by_key(|instance| (instance.node.clone(), instance.id.clone()))
        })
    );
    let again: Contents = disk::decode(&disk::encode(&contents)).expect("what is written is read");
    assert_eq!(again, contents);
}

fn query() -> Query {
    Query { service: "users".to_owned(), ..Query::default() }
}

fn mesh(observed: &HashMap<Query, Observed>, previous: Option<&Mesh>, now: Instant) -> Mesh {
    let (addresses, remembered) = (HashMap::new(), HashMap::new());
    let changed = Changed::Anything;
    let inputs = Inputs {
        config: &CONFIG,
        observed,
        remembered: &remembered,
        addresses: &addresses,
        demanded: &[],
        maintenance: None,
        changed,
    };
    assemble(&inputs, previous, now).mesh
}

/// No name is ever looked up here, so all addresses must be literal ones.
fn is_looked_up(observed: &HashMap<Query, Observed>) -> bool {
    let is_literal =
        |host: &str| host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    observed[&query()].instances.iter().all(|instance| !instance.is_usable() || is_literal(&instance.host))
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn every_kept_input_keeps_the_laws() {
        replay("consul_health", consul_health);
        replay("consul_kv", consul_kv);
        replay("snapshot", snapshot);
    }
}
