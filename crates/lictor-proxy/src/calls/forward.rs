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
use super::upgrade::Upgrade;
use super::{respond, tunnel};
use crate::admission::cache::{self, Found};
use crate::admission::leave::admit;
use crate::admission::target::{self, Target};
use crate::admission::{self, Asked};
use crate::books::record::Record;
use crate::names;
use crate::world::client::Connection;
use crate::world::view::View;

/// Carries one request from the client to an upstream and back.
pub(crate) fn forward(
    connection: Rc<Connection>,
    mut request: Request<RequestBody>,
    fields: Fields,
) -> impl Future<Output = Response<ResponseBody>> {
    let view = connection.worker.view();
    let upgrade = Upgrade::of(&mut request, fields, || connection.worker.random());
    let mut record = Record::open(&connection, &view.mesh, &request, fields, Instant::now());
    record.is_grpc = fields.has(Fields::CONTENT_TYPE) && names::is_grpc(request.headers());
    // A block instead of an `async fn`, which would hold its arguments twice, in every open connection.
    async move {
        if request.method() == Method::CONNECT {
            return Box::pin(tunnel::connect(&connection, request, record)).await;
        }
        let target = match find(&connection, &view, &request, &mut record).await {
            Ok(target) => target,
            Err(failure) => return respond::failure(record, &failure, false),
        };
        let policy = target.upstream.policy(record.route);
        let asking =
            match cache::look(&connection.worker.shared, &target.upstream.upstream.name, policy, &request).await {
                Found::Answer(kept, how) => return respond::kept(record, &kept, how),
                Found::Ask(asking) => asking,
            };
        let call = match admit(&connection.worker, &target.upstream, &request, &record).await {
            Ok(leave) => Call::new(&connection, &target, request, upgrade, &record, leave),
            Err(failure) => Err(failure),
        };
        let answered = match call {
            Ok(mut call) => call.run(&record).await.map(|sent| (call, sent)),
            Err(failure) => Err((failure, false)),
        };
        match (answered, asking.stale) {
            (Ok((mut call, sent)), Some(stale)) if sent.response.status().is_server_error() => {
                call.judge_status(sent.response.status(), &record, sent.at);
                sent.discard();
                respond::kept(record, &stale, "stale")
            }
            (Ok((call, sent)), _) => call.answer(sent, record, asking.ticket),
            (Err((failure, _)), Some(stale)) if failure.reason.status().is_server_error() => {
                respond::kept(record, &stale, "stale")
            }
            (Err((failure, is_budget_spent)), _) => respond::failure(record, &failure, is_budget_spent),
        }
    }
}

/// Finds out whom the request is for, and whether its sender may ask.
async fn find(
    connection: &Connection,
    view: &View,
    request: &Request<RequestBody>,
    record: &mut Record,
) -> Result<Target, Failure> {
    fields::check(request, record.fields).map_err(|why| Failure::new(Reason::BadRequest, why))?;
    connection.generation.check()?;
    let target = target::target(connection, view, request).await?;
    record.upstream = Some(Rc::clone(&target.upstream));
    let route = target.upstream.route(request.method(), request.uri().path());
    let policy = target.upstream.policy(route);
    admission::check(&Asked { client: connection, view, request, policy })?;
    record.route = route;
    Ok(target)
}
