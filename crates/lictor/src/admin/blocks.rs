//! `/v1/..`: what the application asks of Consul through us, where `building_blocks` says so. `guard` says who may ask.

mod locks;
mod meta;
mod services;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use lictor_config::{BuildingBlocks, ConfigAccess, kv_key};
use lictor_consul::{Blocks, ConsulError};
use tokio::time::timeout;

use super::guard;
use super::query::{Query, decode};
use super::reply::{Body, not_allowed, refuse};
use super::state::Admin;

/// What all paths begin with.
pub(super) const PREFIX: &str = "/v1/";
/// For the rest of a request.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What is asked for, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Services,
    Service(String),
    WatchedService(String),
    Setting(String),
    Lock(String),
    Meta,
}

impl Block {
    /// Names are what is encoded in the path; in keys `/` stands for itself.
    fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        let (first, name) = rest.split_once('/').unwrap_or((rest, ""));
        let is_one_name = !name.is_empty() && !name.contains('/');
        match first {
            "services" if name.is_empty() => Some(Self::Services),
            "services" if is_one_name => Some(Self::Service(decode(name))),
            "watch" => {
                let name = name.strip_prefix("services/").filter(|name| !name.is_empty() && !name.contains('/'))?;
                Some(Self::WatchedService(decode(name)))
            }
            "config" if rest != "config" => Some(Self::Setting(decode(name))), // with `?recurse` it may be all
            "locks" if !name.is_empty() => Some(Self::Lock(decode(name))),
            "self" if name == "meta" => Some(Self::Meta),
            _ => None,
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Services | Self::Service(_) | Self::WatchedService(_) => "GET",
            Self::Setting(_) => "GET, PUT",
            Self::Lock(_) => "PUT, DELETE",
            Self::Meta => "PATCH",
        }
    }

    /// Which key would have to say otherwise.
    fn off(&self, config: &BuildingBlocks, method: &Method) -> Option<&'static str> {
        let (key, is_on) = match self {
            Self::Services | Self::Service(_) | Self::WatchedService(_) => ("services: true", config.services),
            Self::Setting(_) if *method == Method::PUT => ("config: write", config.config == ConfigAccess::Write),
            Self::Setting(_) => ("config: read", config.config >= ConfigAccess::Read),
            Self::Lock(_) => ("locks: true", config.locks),
            Self::Meta => ("meta: true", config.meta),
        };
        (!is_on).then_some(key)
    }
}

/// What handlers work with.
struct Asked<'a> {
    admin: &'a Arc<Admin>,
    config: &'a BuildingBlocks,
    blocks: &'a Blocks,
    query: Query,
}

impl Asked<'_> {
    /// Whether what was open when it was asked still is, for who is answered for long.
    fn goes_on(&self) -> impl Fn() -> bool + Send + 'static + use<> {
        let (admin, config) = (Arc::clone(self.admin), self.config.clone());
        move || admin.loaded.read().config.building_blocks == config
    }
}

/// The answer, or why not.
pub(super) async fn answer(admin: &Arc<Admin>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let loaded = Arc::clone(&admin.loaded.read());
    let config = &loaded.config.building_blocks;
    let block = match guard::block(&request, peer, config).and_then(|()| open(&request, config)) {
        Ok(block) => block,
        Err(refusal) => return refusal,
    };
    let Some(blocks) = admin.handle.blocks() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "Consul is not in use since the start: restart the sidecar");
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let asked = Asked { admin, config, blocks, query };
    let is_put = *request.method() == Method::PUT;
    match block {
        Block::Services => services::list(&asked).await,
        Block::Service(name) => services::one(&asked, &name).await,
        Block::WatchedService(name) => services::watch(&asked, &name).await,
        Block::Setting(name) if is_put => settings::write(&asked, &name, request.into_body()).await,
        Block::Setting(name) => settings::read(&asked, &name).await,
        Block::Lock(name) if is_put => locks::take(&asked, name).await,
        Block::Lock(name) => locks::release(&asked, &name).await,
        Block::Meta => meta::patch(admin, request.into_body()).await,
    }
}

fn open<B>(request: &Request<B>, config: &BuildingBlocks) -> Result<Block, Response<Body>> {
    let missing = || refuse(StatusCode::NOT_FOUND, "no such building block; docs/building-blocks.md has them");
    let block = Block::of(request.uri().path()).ok_or_else(missing)?;
    if !block.methods().split(", ").any(|method| method == request.method().as_str()) {
        return Err(not_allowed(block.methods()));
    }
    match block.off(config, request.method()) {
        Some(key) => Err(refuse(StatusCode::FORBIDDEN, &format!("that takes `building_blocks: {{{key}}}`"))),
        None => Ok(block),
    }
}

/// The key in KV.
fn key(prefix: &str, name: &str) -> Result<String, Response<Body>> {
    let key = format!("{prefix}{name}");
    kv_key(&key).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    Ok(key)
}

/// The rest of a request, of at most so many bytes.
async fn read(body: Incoming, most: usize) -> Result<Bytes, Response<Body>> {
    match timeout(BODY_WITHIN, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {most} bytes are read here")))
        }
        Ok(Err(error)) => Err(refuse(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"))),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// What Consul says, or that it says nothing.
fn unanswered(error: &ConsulError) -> Response<Body> {
    if error.is_denied() {
        return refuse(StatusCode::FORBIDDEN, &format!("the Consul token of this sidecar may not: {error}"));
    }
    let status = if error.is_outage() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
    refuse(status, &error.to_string())
}

#[cfg(test)]
mod tests {
    use lictor_core::Secret;

    use super::*;

    #[test]
    fn paths_name_blocks() {
        let name = || "a".to_owned();
        for (path, block) in [
            ("/v1/services", Some(Block::Services)),
            ("/v1/services/", Some(Block::Services)),
            ("/v1/services/a", Some(Block::Service(name()))),
            ("/v1/services/a%2Fb", Some(Block::Service("a/b".to_owned()))),
            ("/v1/services/a/b", None),
            ("/v1/watch/services/a", Some(Block::WatchedService(name()))),
            ("/v1/watch/services/", None),
            ("/v1/watch/services/a/b", None),
            ("/v1/watch/a", None),
            ("/v1/config/a", Some(Block::Setting(name()))),
            ("/v1/config/a/b%20c", Some(Block::Setting("a/b c".to_owned()))),
            ("/v1/config/", Some(Block::Setting(String::new()))),
            ("/v1/config", None),
            ("/v1/locks/a", Some(Block::Lock(name()))),
            ("/v1/locks", None),
            ("/v1/self/meta", Some(Block::Meta)),
            ("/v1/self", None),
            ("/v1/", None),
            ("/v2/services", None),
        ] {
            assert_eq!(Block::of(path), block, "{path}");
        }
    }

    #[test]
    fn each_block_has_its_methods_and_its_key() {
        let asked = |method: Method, path: &str, config: &BuildingBlocks| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            open(&request, config).map_or_else(|refusal| refusal.status().as_u16(), |_| 200)
        };
        let all = BuildingBlocks {
            services: true,
            config: ConfigAccess::Write,
            locks: true,
            meta: true,
            token: Some(Secret::new("t")),
            ..BuildingBlocks::default()
        };
        let none = BuildingBlocks::default();
        let read = BuildingBlocks { config: ConfigAccess::Read, ..BuildingBlocks::default() };
        for (method, path) in [
            (Method::GET, "/v1/services"),
            (Method::GET, "/v1/services/a"),
            (Method::GET, "/v1/watch/services/a"),
            (Method::GET, "/v1/config/a"),
            (Method::PUT, "/v1/config/a"),
            (Method::PUT, "/v1/locks/a"),
            (Method::DELETE, "/v1/locks/a"),
            (Method::PATCH, "/v1/self/meta"),
        ] {
            assert_eq!((asked(method.clone(), path, &all), asked(method.clone(), path, &none)), (200, 403), "{path}");
            assert_eq!(asked(Method::POST, path, &all), 405, "{path}");
            let is_read = method == Method::GET && path == "/v1/config/a";
            assert_eq!(asked(method, path, &read), if is_read { 200 } else { 403 }, "{path}");
        }
        assert_eq!(asked(Method::GET, "/v1/nothing", &all), 404);
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        for name in ["..", "../a", "a/../../b", "a//b", "/a", ".", "a/", "a\nb", ""] {
            assert!(key("config/", name).is_err(), "{name:?}");
        }
        assert_eq!(key("config/", "a/b").ok().as_deref(), Some("config/a/b"));
    }
}
