//! One request, from the client to an upstream and back. Read [`forward`], then [`run`](super::run): their order is the
//! product's semantics.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, Request, Response};
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_http::fields::{self, Fields};

use super::call::Call;
use super::ending::ResponseBody;
use super::fallback::Standby;
use super::upgrade::Upgrade;
use super::{cached, mirror, respond, tunnel};
use crate::admission::cache::{self, Found};
use crate::admission::leave::admit;
use crate::admission::routed::Routed;
use crate::admission::target::{self, Target};
use crate::admission::{self, Asked};
use crate::books::record::Record;
use crate::head::forwards;
use crate::names;
use crate::world::client::Connection;
use crate::world::view::{UpstreamState, View};

/// Carries one request from the client to an upstream and back; at a gateway to whom its route has sent it.
pub(crate) fn forward(
    connection: Rc<Connection>,
    mut request: Request<RequestBody>,
    fields: Fields,
    routed: Option<Box<Routed>>,
) -> impl Future<Output = Response<ResponseBody>> {
    let view = connection.worker.view();
    let upgrade = Upgrade::of(&mut request, fields, || connection.worker.random());
    let call = routed.as_ref().and_then(|routed| routed.call.clone());
    let arrival = call.as_ref().map_or_else(Instant::now, |(_, arrival)| *arrival);
    let mut record = Record::open(&connection, &view.mesh, &request, fields, arrival);
    record.is_grpc = fields.has(Fields::CONTENT_TYPE) && names::is_grpc(request.headers());
    record.rpc = call.map(|(rpc, _)| rpc);
    // A block instead of an `async fn`, which would hold its arguments twice, in every open connection.
    async move {
        if request.method() == Method::CONNECT {
            return Box::pin(tunnel::connect(&connection, request, record)).await;
        }
        let target = match find(&connection, &view, &request, routed.as_deref(), &mut record).await {
            Ok(target) => target,
            Err(failure) => return respond::failure(record, &failure, false),
        };
        let mirrored = routed.and_then(|routed| routed.put(&mut request));
        if forwards::is_last(&mut request) {
            return respond::last(record, &request);
        }
        let policy = target.upstream.policy(record.route);
        let end = record.end();
        // What is not one answer to one request is nothing to keep, nor to be answered by what is kept.
        let found = if upgrade.is_some() || record.is_grpc {
            Found::Ask(None)
        } else {
            cache::look(&connection, &target, policy, &request)
        };
        let found = match found {
            Found::Wait(asking) => {
                let (shared, name) = (&connection.worker.shared, &target.upstream.upstream.name);
                Box::pin(cache::wait(shared, name, end, &request, asking)).await
            }
            found => found,
        };
        let mut asking = match found {
            Found::Given(given) => return respond::kept(record, given),
            Found::Nothing | Found::Wait(..) => return respond::failure(record, &cache::nothing(), false),
            Found::Ask(asking) => asking,
        };
        if let Some(asking) = &mut asking {
            asking.put_conditions(request.headers_mut());
        }
        let standby = Standby::new(&connection, &view, policy, record.is_grpc || upgrade.is_some());
        let admitted = match admit(&connection.worker, &target.upstream, &record, end).await {
            Err(failure) if standby.may_admit(&failure, asking.as_deref()) => {
                if let Some(asking) = asking.take() {
                    asking.stands_back(request.headers_mut(), failure.reason, false);
                }
                Box::pin(standby.admit(&target, &mut record, failure)).await
            }
            admitted => admitted.map(|leave| (None, leave)),
        };
        let call = admitted.and_then(|(other, leave)| {
            Call::new(&connection, other.as_ref().unwrap_or(&target), request, upgrade, &record, leave)
        });
        match call {
            Ok(call) => {
                if let Some(mirrored) = mirrored {
                    mirror::begin(&connection, mirrored, &call, &record, boxed);
                }
                cached::answer(call, record, asking, &standby).await
            }
            Err(failure) => cached::failed(record, &failure, false, asking, &standby),
        }
    }
}

/// The same, for whoever is below this.
fn boxed(
    connection: Rc<Connection>,
    request: Request<RequestBody>,
    fields: Fields,
    routed: Box<Routed>,
) -> mirror::Forwarding {
    Box::pin(forward(connection, request, fields, Some(routed)))
}

/// Finds out whom the request is for, and whether its sender may ask.
async fn find(
    connection: &Connection,
    view: &View,
    request: &Request<RequestBody>,
    routed: Option<&Routed>,
    record: &mut Record,
) -> Result<Target, Failure> {
    if routed.is_none() {
        // A gateway has looked, before it found the route.
        fields::check(request, record.fields).map_err(|why| Failure::new(Reason::BadRequest, why))?;
    }
    connection.check()?;
    let route_of = |upstream: &UpstreamState| match routed {
        None => upstream.route(request.method(), request.uri().path()),
        Some(routed) => routed.route(upstream, request.method()),
    };
    let arrived = record.deadline;
    let ends = |upstream: Option<&UpstreamState>| match upstream {
        Some(upstream) => upstream.policy(route_of(upstream)).end(arrived),
        None => arrived.end(None, arrived.arrival()),
    };
    let target = target::target(connection, view, request, routed, &ends).await?;
    record.upstream = Some(Rc::clone(&target.upstream));
    let route = route_of(&target.upstream);
    let policy = target.upstream.policy(route);
    admission::check(&Asked { client: connection, view, request, policy })?;
    record.route = route;
    record.edge = routed.and_then(|routed| routed.place(&target.upstream));
    record.expires = routed.and_then(|routed| routed.expires);
    if routed.is_some_and(|routed| routed.is_copy) {
        record.is_copy();
    }
    record.deadline = record.deadline.under(policy.deadline);
    if connection.is_inbound() {
        record.serve(view.mesh.trace.infer_parent);
    }
    Ok(target)
}
