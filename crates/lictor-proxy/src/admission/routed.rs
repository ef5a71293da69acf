//! What a gateway's routes say of a request: to whom it goes and as what, or how it is answered. Its host and path are read
//! here, once; nothing else reads them again.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use lictor_core::gateway::maintenance::{Maintenance, Switch};
use lictor_core::gateway::split::Variant;
use lictor_core::gateway::transcode::Binding;
use lictor_core::gateway::{
    Action, Asked, Gateway, Mirror, Odd, ReadPath, Redirect, Rewrite, Route, Rules, Split, host, path,
};
use lictor_core::{Failure, Reason};
use lictor_http::target::Raw;

use crate::world::view::UpstreamState;

/// The route that a request is for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) label: Arc<str>,
    /// What it asks of its requests.
    pub(crate) rules: Arc<Rules>,
    pub(crate) says: Says,
}

impl Found {
    /// What the gateway answers itself, before any route: nothing is asked of its client, and no maintenance of all reaches it.
    pub(crate) fn ours(label: &str, told: Told) -> Self {
        let maintenance = Maintenance { switch: Switch::Never, ..Maintenance::default() };
        let rules = Rules { maintenance: Some(Arc::new(maintenance)), ..Rules::default() };
        Self { label: label.into(), rules: Arc::new(rules), says: Says::Tell(told) }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Says {
    /// It goes on.
    Send(Box<Routed>),
    /// It is answered here.
    Tell(Told),
    /// Who asks decides, among the routes that share the place of this one ([`of`]).
    Depends(usize),
}

/// An answer of the gateway's own.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) field: Option<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// Finds the route that a request is for, and what that says, once its host and path are read; whoever is asked `before`
/// may refuse them or say something else.
pub(crate) fn find(
    gateway: &Gateway,
    method: &Method,
    authority: &str,
    uri: &Uri,
    headers: &HeaderMap,
    before: impl FnOnce(&str, &ReadPath<'_>) -> Result<Option<Found>, Failure>,
) -> Result<Found, Failure> {
    let host = host::read(authority).map_err(bad)?;
    let read = path::read_allowing(uri.path(), gateway.odd).map_err(bad)?;
    if let Some(found) = before(&host, &read)? {
        return Ok(found);
    }
    let asked = Asked { host: &host, path: read.folded(), query: uri.query(), method, headers };
    let found = gateway.table.find(&asked);
    if !read.odd().is_none() {
        check_odd(gateway, &read, found, &asked)?;
    }
    let Some((index, route)) = found.and_then(|index| Some((index, gateway.routes.get(index)?))) else {
        return Err(Failure::new(Reason::NoRoute, format!("no route is for {method} {host}{}", read.as_str())));
    };
    let says = match gateway.table.shared(index) {
        Some(_) => Says::Depends(index),
        None => says(route, &read, uri)?,
    };
    Ok(Found { label: Arc::clone(&route.label), rules: Arc::clone(&route.rules), says })
}

/// What the route of this index says of a request whose path was read.
pub(crate) fn of(gateway: &Gateway, index: usize, uri: &Uri) -> Result<Found, Failure> {
    let route = gateway.routes.get(index).ok_or_else(|| bad("the route is not there"))?;
    let read = path::read_allowing(uri.path(), gateway.odd).map_err(bad)?;
    let says = says(route, &read, uri)?;
    Ok(Found { label: Arc::clone(&route.label), rules: Arc::clone(&route.rules), says })
}

fn says(route: &Route, read: &ReadPath<'_>, uri: &Uri) -> Result<Says, Failure> {
    Ok(match &route.action {
        Action::Send(send) => Says::Send(Box::new(Routed {
            upstream: Arc::clone(&send.upstream),
            label: Arc::clone(&route.label),
            index: send.index,
            has_policy: send.has_policy,
            expires: None,
            target: target(read, send.rewrite.as_ref(), uri)?,
            stripped: send.rewrite.as_ref().and_then(Rewrite::stripped).cloned(),
            split: send.split.clone(),
            mirror: send.mirror.clone(),
            is_copy: false,
            call: None,
        })),
        Action::Redirect(redirect) => {
            let location = location(redirect, read, uri)?;
            Says::Tell(Told { status: redirect.status, field: Some((LOCATION, location)), body: Bytes::new() })
        }
        Action::Answer(answer) => {
            let kind = (CONTENT_TYPE, answer.content_type.clone());
            Says::Tell(Told { status: answer.status, field: Some(kind), body: answer.body.clone() })
        }
    })
}

/// What a gateway's route has decided of a request, which goes beside it.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) upstream: Arc<str>,
    pub(crate) label: Arc<str>,
    /// Where the route stands among the upstream's.
    pub(crate) index: usize,
    /// The policy there is the route's own.
    pub(crate) has_policy: bool,
    /// When a stream ends that it opens: with what its client has shown.
    pub(crate) expires: Option<Instant>,
    /// What was matched, as the route changes it: nothing else goes on.
    pub(crate) target: PathAndQuery,
    /// What was taken off the begin of its path, and its answers do not know of.
    pub(crate) stripped: Option<Arc<str>>,
    /// The upstream is that of the first of these variants, until one is chosen.
    pub(crate) split: Option<Arc<Split>>,
    /// Where a copy goes.
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// It is a copy.
    pub(crate) is_copy: bool,
    /// The call of gRPC that it has become, and when it came.
    pub(crate) call: Option<(Arc<Binding>, Instant)>,
}

impl Routed {
    /// Where it stands among the upstream's routes, which may be others than those that it was made of.
    pub(crate) fn place(&self, upstream: &UpstreamState) -> Option<usize> {
        let routes = &upstream.upstream.routes;
        let is_it = |index: usize| {
            routes.is_gateways(index) && routes.get(index).is_some_and(|route| route.label == self.label)
        };
        if is_it(self.index) {
            return Some(self.index);
        }
        (routes.own()..routes.iter().len()).find(|index| is_it(*index))
    }

    /// Whose policy is in force.
    pub(crate) fn route(&self, upstream: &UpstreamState, method: &Method) -> Option<usize> {
        let method = if self.call.is_some() { &Method::POST } else { method };
        if self.has_policy { self.place(upstream) } else { upstream.route(method, self.target.path()) }
    }

    /// It goes to this variant.
    pub(crate) fn choose(&mut self, variant: &Variant) {
        (self.upstream, self.index, self.has_policy) =
            (Arc::clone(&variant.upstream), variant.index, variant.has_policy);
    }

    /// Gives the request the target that goes on; where a copy of it goes.
    pub(crate) fn put<B>(self, request: &mut Request<B>) -> Option<Mirrored> {
        let Self { mirror, label, call, target, .. } = self;
        let mirrored = mirror.map(|mirror| Mirrored { mirror, label });
        request.extensions_mut().remove::<Raw>();
        if call.is_some() {
            *request.method_mut() = Method::POST;
        }
        if request.uri().path_and_query() == Some(&target) {
            return mirrored;
        }
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(target);
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        mirrored
    }
}

/// Where a copy of a request goes, by which route.
#[derive(Debug)]
pub(crate) struct Mirrored {
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) label: Arc<str>,
}

/// Whether the route allows what of the path not everybody reads alike, and nobody reads it as one for a stricter route.
fn check_odd(gateway: &Gateway, read: &ReadPath<'_>, found: Option<usize>, asked: &Asked<'_>) -> Result<(), Failure> {
    let route = found.and_then(|index| gateway.routes.get(index));
    route.map_or(Odd::default(), |route| route.odd).allows(read.odd()).map_err(bad)?;
    for view in read.views() {
        let view = path::read_allowing(&view, gateway.odd).map_err(bad)?;
        let other = gateway.table.find(&Asked { path: view.folded(), ..*asked });
        if other.is_some_and(|other| gateway.table.is_before(other, found)) {
            return Err(bad("the path is for another route where its escapes are decoded first"));
        }
    }
    Ok(())
}

fn bad(why: impl ToString) -> Failure {
    Failure::new(Reason::BadRequest, why.to_string())
}

/// What goes on: the path that was matched, as the route changes it, and the query as it came.
fn target(read: &ReadPath<'_>, rewrite: Option<&Rewrite>, uri: &Uri) -> Result<PathAndQuery, Failure> {
    let came = uri.path_and_query().filter(|came| came.as_str().starts_with('/'));
    if let (None, true, Some(came)) = (rewrite, read.is_as_it_came(), came) {
        return Ok(came.clone());
    }
    let mut whole = match rewrite {
        None => read.as_str().to_owned(),
        Some(rewrite) => rewrite
            .apply(read)
            .ok_or_else(|| bad("the path has more than one reading once the route has changed it"))?,
    };
    if let Some(query) = uri.query() {
        whole.push('?');
        whole.push_str(query);
    }
    PathAndQuery::try_from(whole).map_err(bad)
}

/// It begins with an origin or with one slash, so that it leads nowhere else (RFC 3986, section 4.2).
fn location(redirect: &Redirect, read: &ReadPath<'_>, uri: &Uri) -> Result<HeaderValue, Failure> {
    let target = target(read, redirect.rewrite.as_ref(), uri)?;
    let origin = redirect.origin.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    HeaderValue::from_bytes(&[origin, target.as_str().as_bytes()].concat()).map_err(bad)
}

/// Nobody was asked who he is, where that decides: no configuration is so.
pub(crate) fn undecided() -> Failure {
    Failure::new(Reason::AuthUnavailable, "the route goes by who asks, and asks nobody")
}
