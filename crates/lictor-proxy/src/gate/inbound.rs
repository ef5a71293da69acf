//! Requests of other sidecars to our application, where `inbound` has limits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use lictor_core::limit::Facts;
use lictor_http::fields::Fields;
use lictor_http::{Answerer, Refused, RequestBody};

use super::Stop;
use super::limit::{Counted, When};
use crate::admission::inbound::is_for_us;
use crate::books::record::Record;
use crate::calls::ending::ResponseBody;
use crate::calls::forward::forward;
use crate::calls::respond;
use crate::names::{self, Looked};
use crate::world::client::Connection;

/// A connection to such a listener.
#[derive(Debug)]
pub(crate) struct Limited(pub(crate) Rc<Connection>);

impl Answerer for Limited {
    type Body = ResponseBody;
    type Marks = Looked;

    fn answer(
        self: Rc<Self>,
        request: Request<RequestBody>,
        fields: Fields,
    ) -> impl Future<Output = Response<ResponseBody>> {
        answer(Rc::clone(&self.0), request, fields)
    }

    fn refuse(&self, version: &'static str, refused: &Refused) -> Response<Bytes> {
        self.0.refuse(version, refused)
    }

    fn is_leaving(&self) -> bool {
        self.0.shall_leave()
    }
}

/// Whether it has any.
pub(crate) fn is_limited(connection: &Connection) -> bool {
    connection.is_inbound() && connection.worker.view().inbound.as_ref().is_some_and(|it| !it.inbound.limits.is_empty())
}

/// Lets a request through if it may come so often. One that is not for us is none of ours, and is told so.
async fn answer(connection: Rc<Connection>, request: Request<RequestBody>, fields: Fields) -> Response<ResponseBody> {
    let view = connection.worker.view();
    let limits = view.inbound.as_ref().map(|inbound| Arc::clone(&inbound.inbound.limits)).unwrap_or_default();
    let mut counted = Counted::default();
    if is_for_us(&view.mesh.local, request.headers()).is_ok() {
        let headers = request.headers();
        let facts = Facts { route: None, ip: connection.client, user: None, key: None, headers, claim: &|_| None };
        if let Err(stop) = counted.take(&limits, When::Before, &facts, &connection).await {
            let mut record = Record::open(&connection, &view.mesh, &request, fields, Instant::now());
            record.is_grpc = names::is_grpc(request.headers());
            let mut response = match stop {
                Stop::Refused(failure, _) => respond::failure(record, &failure, false),
                Stop::Told(told) => respond::told(record, told),
            };
            counted.leave(response.headers_mut());
            return response;
        }
    }
    let mut response = forward(connection, request, fields, None).await;
    counted.leave(response.headers_mut());
    response
}
