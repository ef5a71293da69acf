//! `/v1/..`: what the application asks of Consul through us, where `building_blocks` says so. `guard` says who may ask.

mod locks;
mod meta;
mod saga;
mod services;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use lictor_config::{BuildingBlocks, ConfigAccess, kv_key};
use lictor_consul::{Blocks, ConsulError};
use tokio::time::timeout;

use super::api::{self, Block, Does, Found};
use super::guard;
use super::query::Query;
use super::reply::{Body, not_allowed, refuse};
use super::state::Admin;
use super::stream;

/// For the rest of a request.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What handlers work with.
struct Asked<'a> {
    admin: &'a Arc<Admin>,
    config: &'a BuildingBlocks,
    blocks: &'a Blocks,
    block: Block,
    query: Query,
}

impl Asked<'_> {
    /// Until a reload takes away what was open when it was asked, for who is answered for long.
    fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (admin, before) = (Arc::clone(self.admin), self.config.clone());
        let block = self.block;
        let mut reloads = admin.reloads();
        async move {
            while is_still_open(block, &before, &admin.loaded.read().config.building_blocks) {
                let _ = reloads.changed().await; // the sender is in `admin`
            }
        }
    }
}

/// The answer, or why not.
pub(super) async fn answer(admin: &Arc<Admin>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let loaded = Arc::clone(&admin.loaded.read());
    let config = &loaded.config.building_blocks;
    let open = match guard::block(&request, peer, config).and_then(|()| open(&request, config)) {
        Ok(open) => open,
        Err(refusal) => return refusal,
    };
    let Some(blocks) = admin.handle.blocks() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "Consul is not in use since the start: restart the sidecar");
    };
    let Open { block, name, query } = open;
    let asked = Asked { admin, config, blocks, block, query };
    match block {
        Block::Services => services::list(&asked).await,
        Block::Service => services::one(&asked, &name).await,
        Block::WatchService => services::watch(&asked, &name).await,
        Block::ReadSettings if asked.query.is_set("recurse") => settings::read_all(&asked, "").await,
        Block::ReadSettings => refuse(StatusCode::BAD_REQUEST, "say which key, or `?recurse` for all of them"),
        Block::ReadSetting => settings::read(&asked, &name).await,
        Block::WriteSetting => settings::write(&asked, &name, request.into_body()).await,
        Block::TakeLock => locks::take(&asked, name).await,
        Block::ReleaseLock => locks::release(&asked, &name).await,
        Block::Sagas => saga::list(&asked).await,
        Block::BeginSaga => saga::begin(&asked, request).await,
        Block::Saga => saga::one(&asked, &name).await,
        Block::SagaAgain => saga::again(&asked, &name).await,
        Block::PatchMeta => meta::patch(admin, request.into_body()).await,
    }
}

/// What is asked for, of a block that is on.
#[derive(Debug)]
struct Open {
    block: Block,
    name: String,
    query: Query,
}

fn open<B>(request: &Request<B>, config: &BuildingBlocks) -> Result<Open, Response<Body>> {
    let missing = || refuse(StatusCode::NOT_FOUND, "no such building block; docs/building-blocks.md has them");
    let Found { path, name } = api::find(request.uri().path()).ok_or_else(missing)?;
    let operation = path.operation(request.method()).ok_or_else(|| not_allowed(&path.methods()))?;
    let Does::Block(block) = operation.does else { return Err(missing()) };
    if let Some(key) = off(block, config) {
        return Err(refuse(StatusCode::FORBIDDEN, &format!("that takes `building_blocks: {{{key}}}`")));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    query.check(operation, path.who).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    Ok(Open { block, name, query })
}

/// Which key would have to say otherwise.
fn off(block: Block, config: &BuildingBlocks) -> Option<&'static str> {
    let (key, is_on) = match block {
        Block::Services | Block::Service | Block::WatchService => ("services: true", config.services),
        Block::ReadSettings | Block::ReadSetting => ("config: read", config.config >= ConfigAccess::Read),
        Block::WriteSetting => ("config: write", config.config == ConfigAccess::Write),
        Block::TakeLock | Block::ReleaseLock => ("locks: true", config.locks),
        Block::Sagas | Block::BeginSaga | Block::Saga | Block::SagaAgain => ("saga: true", config.saga),
        Block::PatchMeta => ("meta: true", config.meta),
    };
    (!is_on).then_some(key)
}

/// Whether who has opened it under another configuration may go on: he has shown the same token, and names are the same keys.
fn is_still_open(block: Block, before: &BuildingBlocks, now: &BuildingBlocks) -> bool {
    let is_same = match block {
        Block::Services | Block::Service | Block::WatchService | Block::PatchMeta => true,
        Block::ReadSettings | Block::ReadSetting | Block::WriteSetting => before.config_prefix == now.config_prefix,
        Block::TakeLock | Block::ReleaseLock => before.lock_prefix == now.lock_prefix,
        Block::Sagas | Block::BeginSaga | Block::Saga | Block::SagaAgain => before.saga_prefix == now.saga_prefix,
    };
    is_same && before.token == now.token && off(block, now).is_none()
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
    let status = match error {
        error if error.is_denied() => StatusCode::FORBIDDEN,
        error if error.is_mistaken() => StatusCode::BAD_REQUEST,
        error if error.is_outage() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    refuse(status, &stream::words(error))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use lictor_core::Secret;

    use super::*;

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
            saga: true,
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
        for (method, path) in [
            (Method::GET, "/v1/saga"),
            (Method::POST, "/v1/saga"),
            (Method::GET, "/v1/saga/a"),
            (Method::POST, "/v1/saga/a/again"),
        ] {
            assert_eq!((asked(method.clone(), path, &all), asked(method, path, &none)), (200, 403), "{path}");
            assert_eq!(asked(Method::DELETE, path, &all), 405, "{path}");
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
