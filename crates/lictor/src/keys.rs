//! Fetches the keys of the gateway's issuers, off the workers' way: at the start, before they are too old, and when a token names one that
//! nobody knows. When is lictor-jose's to say (`refresh`); here is the wire.
//!
//! Nothing waits for a fetch but a token whose key may be on its way. Nothing that an issuer says makes it be asked more often than its time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AGE, CACHE_CONTROL, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use lictor_config::Config;
use lictor_consul::RememberedKeys;
use lictor_core::gateway::Gateway;
use lictor_jose::jwks::{self, MAX_SET};
use lictor_jose::refresh::{Answer, Next, Ticket, in_force, max_age};
use lictor_jose::{KeySet, Keyring, Remote};
use lictor_proxy::KeyBell;
use lictor_tls::{Client, ClientSpec};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::admin::Admin;
use crate::outside;

/// All of a fetch: names, connection, TLS, answer.
const WITHIN: Duration = Duration::from_secs(10);

fn keyring(gateway: &Gateway) -> Option<&Arc<Keyring>> {
    let auth = gateway.rules.auth.as_ref()?;
    Some(&auth.methods.tokens.as_ref()?.keyring)
}

/// Takes over what was fetched before, so that no token waits for a reload.
pub(crate) fn inherit(next: &Config, before: &Config) {
    let of = |config: &Config| keyring(&config.gateway.as_ref()?.routes).cloned();
    if let (Some(next), Some(before)) = (of(next), of(before)) {
        next.inherit(&before);
        next.publish(Instant::now());
    }
}

/// What was fetched last from one place.
#[derive(Clone, Debug)]
struct Stored {
    etag: Option<HeaderValue>,
    /// As it is remembered for a later process.
    remembered: RememberedKeys,
    keys: Arc<KeySet>,
}

/// What a fetch has brought.
#[derive(Debug)]
enum Fetched {
    Set(Arc<KeySet>, Bytes, Option<HeaderValue>, Option<Duration>),
    Unchanged(Option<Duration>),
}

type Came = (Remote, Ticket, Result<Fetched, String>);

struct Fetcher {
    admin: Arc<Admin>,
    bell: Arc<KeyBell>,
    stored: HashMap<Arc<str>, Stored>,
    /// Why the last fetch from a place failed, as it was told.
    complaints: HashMap<Arc<str>, String>,
    tls: Arc<OnceCell<Arc<Client>>>,
    flights: JoinSet<Came>,
}

/// Fetches for as long as the process runs.
pub(crate) async fn run(admin: Arc<Admin>, bell: Arc<KeyBell>) {
    let mut mesh = admin.handle.mesh();
    let stored =
        admin.handle.remembered_keys().into_iter().filter_map(|keys| Some((keys.url.as_str().into(), stored(keys)?)));
    let stored = stored.collect();
    let mut fetcher =
        Fetcher { admin, bell, stored, complaints: HashMap::new(), tls: Arc::default(), flights: JoinSet::new() };
    loop {
        let keyring = mesh.borrow_and_update().gateway.as_deref().and_then(keyring).cloned();
        let wake = keyring.as_ref().and_then(|keyring| fetcher.look(keyring));
        let bell = Arc::clone(&fetcher.bell);
        let mut wanted = pin!(bell.wanted.notified());
        tokio::select! {
            changed = mesh.changed() => if changed.is_err() {
                return;
            },
            () = wanted.as_mut() => (),
            Some(Ok(came)) = fetcher.flights.join_next() => {
                fetcher.take(came);
                if let Some(keyring) = &keyring {
                    keyring.publish(Instant::now());
                }
                fetcher.bell.ended.notify_waiters();
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => (),
        }
    }
}

/// What an earlier process had fetched, if it is still something.
fn stored(remembered: RememberedKeys) -> Option<Stored> {
    let keys = Arc::new(jwks::parse(remembered.text.as_bytes()).ok()?.keys);
    let etag = remembered.etag.as_deref().and_then(|etag| HeaderValue::try_from(etag).ok());
    Some(Stored { etag, remembered, keys })
}

impl Fetcher {
    /// Begins what is due, and says when to look again.
    fn look(&mut self, keyring: &Arc<Keyring>) -> Option<Instant> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        let mut sooner = |at: Instant| wake = Some(wake.map_or(at, |before| before.min(at)));
        for remote in keyring.remotes() {
            if !remote.has_begun() {
                self.begin(remote, now);
            }
            while let Some(Next::Fetch(ticket)) = remote.next(now, random()) {
                self.fetch(remote.clone(), ticket);
            }
            if let Some(Next::Wait(at)) = remote.next(now, random()) {
                sooner(at);
            }
            remote.gone(now).into_iter().for_each(|at| sooner(at + Duration::from_millis(1)));
        }
        if keyring.publish(now) {
            self.bell.ended.notify_waiters();
        }
        self.tell_gone(keyring);
        wake
    }

    fn begin(&self, remote: &Remote, now: Instant) {
        let known = self.stored.get(&remote.url).map(|stored| {
            let RememberedKeys { url, age_s, .. } = &stored.remembered;
            let stale = stored.remembered.age().saturating_sub(Duration::from_secs(*age_s));
            info!(target: "lictor::event", kind = "keys_remembered", jwks = shown(url), stale_s = stale.as_secs(), "the snapshot's keys are in use until they are fetched");
            (Arc::clone(&stored.keys), stale)
        });
        remote.begin(known, now);
    }

    fn fetch(&mut self, remote: Remote, ticket: Ticket) {
        let etag = self.stored.get(&remote.url).and_then(|stored| stored.etag.clone());
        let tls = Arc::clone(&self.tls);
        self.flights.spawn(async move {
            let fetched = timeout(WITHIN, fetch(&remote.url, etag, &tls)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
            (remote, ticket, fetched)
        });
    }

    fn take(&mut self, (remote, ticket, fetched): Came) {
        let url = Arc::clone(&remote.url);
        let (now, at_ms) = (Instant::now(), RememberedKeys::now());
        let answer = match fetched {
            Ok(Fetched::Set(keys, text, etag, age)) => {
                let remembered = RememberedKeys {
                    url: url.to_string(),
                    at_ms,
                    age_s: in_force(age).as_secs(),
                    etag: etag.as_ref().and_then(|etag| Some(etag.to_str().ok()?.to_owned())),
                    text: String::from_utf8_lossy(&text).into_owned(),
                };
                self.stored.insert(Arc::clone(&url), Stored { etag, remembered, keys: Arc::clone(&keys) });
                Answer::Keys(keys, age)
            }
            Ok(Fetched::Unchanged(age)) => match self.stored.get_mut(&url) {
                Some(stored) => {
                    stored.remembered.at_ms = at_ms;
                    stored.remembered.age_s = in_force(age).as_secs();
                    Answer::Keys(Arc::clone(&stored.keys), age)
                }
                None => Answer::Failed,
            },
            Err(why) => {
                if self.complaints.insert(Arc::clone(&url), why.clone()).is_none_or(|before| before != why) {
                    warn!(target: "lictor::event", kind = "keys_unfetched", jwks = shown(&url), %why, "keys cannot be fetched; those from before are used until they are too old, and it is tried again");
                }
                Answer::Failed
            }
        };
        let is_good = !matches!(answer, Answer::Failed);
        let is_other = remote.answered(ticket, answer, now, random());
        if is_good {
            let was_bad = self.complaints.remove(&url).is_some();
            if is_other || was_bad {
                let keys = self.stored.get(&url).map_or(0, |stored| stored.keys.len());
                info!(target: "lictor::event", kind = "keys_fetched", jwks = shown(&url), keys, "keys were fetched");
            }
            self.admin.handle.remember_keys(self.stored.values().map(|stored| stored.remembered.clone()).collect());
        }
    }

    /// What nobody asks for any more is not remembered either.
    fn tell_gone(&mut self, keyring: &Keyring) {
        let before = self.stored.len();
        self.stored.retain(|url, _| keyring.remotes().any(|remote| remote.url == *url));
        self.complaints.retain(|url, _| keyring.remotes().any(|remote| remote.url == *url));
        if self.stored.len() != before {
            self.admin.handle.remember_keys(self.stored.values().map(|stored| stored.remembered.clone()).collect());
        }
    }
}

/// Without its query, which may have a secret.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness fetches are less spread out, and nothing else.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    u64::from_ne_bytes(bytes)
}

/// One fetch, on a connection of its own: they are rare.
async fn fetch(url: &str, etag: Option<HeaderValue>, tls: &OnceCell<Arc<Client>>) -> Result<Fetched, String> {
    let uri: Uri = url.parse().map_err(|why| format!("no URL: {why}"))?;
    let response = ask(&uri, etag, tls).await?;
    let (head, body) = response.into_parts();
    let age = age(&head.headers);
    match head.status {
        StatusCode::NOT_MODIFIED => return Ok(Fetched::Unchanged(age)),
        StatusCode::OK => (),
        status if status.is_redirection() => {
            let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            return Err(format!(
                "it answers {status} and leads to `{}`: redirects are not followed, name that one",
                shown(to)
            ));
        }
        status => return Err(format!("it answers {status}")),
    }
    let body =
        Limited::new(body, MAX_SET).collect().await.map_err(|why| format!("within its answer: {why}"))?.to_bytes();
    let parsed = jwks::parse(&body).map_err(|why| why.to_string())?;
    for skipped in parsed.skipped.iter().take(3) {
        warn!(jwks = shown(url), %skipped, "a key is left out; the others are used");
    }
    Ok(Fetched::Set(Arc::new(parsed.keys), body, head.headers.get(ETAG).cloned(), age))
}

/// RFC 9111, section 4.2.1.
fn age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    max_age(fields, headers.get(AGE).and_then(|age| age.to_str().ok()))
}

async fn ask(
    uri: &Uri,
    etag: Option<HeaderValue>,
    tls: &OnceCell<Arc<Client>>,
) -> Result<Response<hyper::body::Incoming>, String> {
    let mut request = Request::get(uri.clone()).body(Full::default()).map_err(|why| why.to_string())?;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    if let Some(etag) = etag {
        headers.insert(IF_NONE_MATCH, etag);
    }
    let client = async { tls.get_or_try_init(|| outside::client(ClientSpec::default())).await.cloned() };
    outside::ask(request, client).await
}
