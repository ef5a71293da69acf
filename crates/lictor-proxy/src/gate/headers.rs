//! Fields that the configuration changes: of a request before it goes on, of an answer before it leaves. What their values are
//! made of is the request's, as it was read.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use lictor_core::gateway::auth::Identity;
use lictor_core::gateway::headers::{Made, Operations, Variable};
use lictor_core::gateway::{host, path};
use lictor_jose::forward::{Field, Spelling, field};

use crate::names::X_REQUEST_ID;
use crate::stores::request_id::RequestId;
use crate::world::client::Connection;

/// What values are made of.
pub(super) struct Source<'a, B> {
    pub(super) connection: &'a Connection,
    pub(super) request: &'a Request<B>,
    pub(super) route: Option<&'a str>,
    pub(super) identity: Option<&'a Identity>,
}

impl<B> Source<'_, B> {
    pub(super) fn made(&self, operations: &Operations) -> Made {
        operations.made(|variable, out| self.fill(variable, out).is_some())
    }

    /// `None`: there is nothing to say.
    fn fill(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<()> {
        let Self { connection, request, route, identity } = self;
        let (uri, headers) = (request.uri(), request.headers());
        match variable {
            Variable::ClientIp => out.extend_from_slice(connection.client?.to_string().as_bytes()),
            Variable::RequestId => out.extend_from_slice(headers.get(X_REQUEST_ID)?.as_bytes()),
            Variable::Host => {
                let named = || headers.get(HOST).and_then(|host| host.to_str().ok());
                let authority = uri.authority().map(Authority::as_str).or_else(named)?;
                out.extend_from_slice(host::read(authority).ok()?.as_bytes());
            }
            Variable::Method => out.extend_from_slice(request.method().as_str().as_bytes()),
            Variable::Path => out.extend_from_slice(path::read_again(uri.path()).ok()?.as_str().as_bytes()),
            Variable::Scheme => out.extend_from_slice(if connection.is_encrypted { b"https" } else { b"http" }),
            Variable::Route => out.extend_from_slice((*route)?.as_bytes()),
            Variable::Param(at) => {
                let read = path::read_again(uri.path()).ok()?;
                out.extend_from_slice(path::segments(read.as_str()).nth(*at)?.as_bytes());
            }
            Variable::Claim(claim) => match field(claim.of(&(*identity)?.known.claims), Spelling::Plain) {
                Field::Value(value) => out.extend_from_slice(value.as_bytes()),
                Field::Absent | Field::Unfit(_) => return None,
            },
            Variable::Header(name) => out.extend_from_slice(once(headers, name)?.as_bytes()),
        }
        Some(())
    }
}

/// Gives a request a name if it has none; whether it got one.
pub(super) fn name<B>(connection: &Connection, request: &mut Request<B>) -> bool {
    let headers = request.headers_mut();
    let is_new = !headers.contains_key(X_REQUEST_ID);
    if is_new {
        headers.insert(X_REQUEST_ID, RequestId::new(|| connection.worker.random()).to_value());
    }
    is_new
}

/// Of a field that stands twice nobody knows which is meant.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}
