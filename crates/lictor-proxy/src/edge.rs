//! A gateway's listener: a request from somebody who is nobody of ours. Its host and path are read once, here; a route is
//! found by what was read, and that goes on and nothing else. What only peers may say is taken off before anything looks at
//! it, and what is nobody's business outside is taken off the answer after everything.

mod caller;
mod challenge;
mod redirect;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response, Version};
use lictor_core::gateway::{Gateway, ReadPath, cors, host};
use lictor_core::{Failure, Reason};
use lictor_http::fields::{self, Fields};
use lictor_http::http2::Protocol;
use lictor_http::{Answerer, Refused, RequestBody};

use crate::admission::routed::{self, Found, Says, Told};
use crate::books::record::Record;
use crate::calls::ending::ResponseBody;
use crate::calls::forward::forward;
use crate::calls::respond;
use crate::gate::{self, Stop, Visit};
use crate::names::{self, Looked};
use crate::world::client::Connection;
use crate::world::generation;

/// A connection to a gateway's listener.
#[derive(Debug)]
pub(crate) struct Edge(pub(crate) Rc<Connection>);

impl Answerer for Edge {
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
        let mut response = self.0.refuse(version, refused);
        let view = self.0.worker.view();
        gate::leave_unread(view.mesh.gateway.as_deref(), self.0.is_encrypted, &mut response);
        response
    }

    fn is_leaving(&self) -> bool {
        self.0.shall_leave()
    }
}

async fn answer(
    connection: Rc<Connection>,
    mut request: Request<RequestBody>,
    fields: Fields,
) -> Response<ResponseBody> {
    let view = connection.worker.view();
    let proxies = view.mesh.gateway.as_ref().map(|gateway| &gateway.proxies);
    let (connection, fields) = caller::of(connection, proxies, &mut request, fields);
    if *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        let mut response = Box::pin(forward(connection, request, fields, None)).await; // which refuses it
        names::seal(response.headers_mut());
        return response;
    }
    let open = |request: &Request<RequestBody>, fields: Fields| {
        let mut record = Record::open(&connection, &view.mesh, request, fields, Instant::now());
        record.is_grpc = names::is_grpc(request.headers());
        record
    };
    let Some(gateway) = &view.mesh.gateway else {
        let mut response = respond::failure(open(&request, fields), &generation::gone(), false);
        names::seal(response.headers_mut());
        return response;
    };
    let mut visit = Visit::begin(gateway, &connection, &mut request);
    let mut response = match admit(&connection, gateway, &request, fields) {
        Err(failure) => {
            let missed = visit.missed(failure, &connection, &mut request);
            let record = open(&request, visit.fields(&request, fields));
            match missed {
                Ok(told) => respond::told(record, told),
                Err(failure) => respond::failure(record, &failure, false),
            }
        }
        Ok(mut found) => {
            let entered =
                visit.enter(gateway, view.mesh.maintenance.as_deref(), &connection, &mut request, &mut found).await;
            let mut fields = visit.fields(&request, fields);
            match entered {
                Err(Stop::Refused(failure, says)) => {
                    let mut record = open(&request, fields);
                    record.told_by = Some(found.label);
                    respond::refusal(record, &failure, says)
                }
                Err(Stop::Told(told)) => tell(open(&request, fields), found.label, told),
                Ok(()) => match found.says {
                    Says::Tell(told) => tell(open(&request, fields), found.label, told),
                    Says::Depends(_) => respond::failure(open(&request, fields), &routed::undecided(), false),
                    Says::Send(mut routed) => {
                        visit.lead(&connection, &view, &mut request, &mut routed);
                        match visit.ask(&connection, &view, &mut request, &mut routed, &mut fields).await {
                            Err(failure) => {
                                let mut record = open(&request, fields);
                                record.told_by = Some(found.label);
                                respond::failure(record, &failure, false)
                            }
                            Ok(()) => {
                                // Pinned where it is made: it is large, and is moved no more.
                                let forwarded = pin!(forward(Rc::clone(&connection), request, fields, Some(routed)));
                                let mut response = forwarded.await;
                                visit.answer(&connection, &mut response).await;
                                response
                            }
                        }
                    }
                },
            }
        }
    };
    visit.leave(&mut response);
    response
}

/// Answers as a route says.
fn tell(mut record: Box<Record>, label: Arc<str>, told: Told) -> Response<ResponseBody> {
    record.told_by = Some(label);
    respond::told(record, told)
}

/// What the routes say of a request that is clear.
fn admit(
    connection: &Connection,
    gateway: &Gateway,
    request: &Request<RequestBody>,
    fields: Fields,
) -> Result<Found, Failure> {
    fields::check(request, fields).map_err(|why| Failure::new(Reason::BadRequest, why))?;
    connection.check()?;
    caller::check(connection, &gateway.proxies, request, fields)?;
    check_scheme(connection, request)?;
    let uri = request.uri();
    let named = || request.headers().get(HOST).map_or("", |host| host.to_str().unwrap_or("?"));
    let authority = uri.authority().map_or_else(named, |authority| authority.as_str());
    // In HTTP/1.1 the target's counts alone (RFC 9112, section 3.2.2).
    if request.version() == Version::HTTP_2 && !named().is_empty() && host::read(named()) != host::read(authority) {
        return Err(Failure::new(
            Reason::BadRequest,
            "`:authority` and `Host` name two hosts (RFC 9113, section 8.3.1)",
        ));
    }
    // An extended CONNECT is HTTP/2's form of a GET that asks for an upgrade (RFC 8441, section 4).
    let method = if *request.method() == Method::CONNECT { &Method::GET } else { request.method() };
    let before = |host: &str, read: &ReadPath<'_>| {
        connection.check_host(host)?;
        if let Some(found) = challenge::answer(&connection.worker.shared.challenges, method, host, read) {
            return Ok(Some(found));
        }
        redirect::to_https(connection, gateway.https_port, method, host, read, uri.query())
    };
    // A preflight is about the request that is to follow it; where nobody says whose pages may, it is a request like any.
    if let Some(method) = cors::preflight_of(request.method(), request.headers()) {
        let found = routed::find(gateway, &method, authority, uri, request.headers(), before);
        if let Some(found) = found.ok().filter(|found| found.rules.cors.is_some()) {
            return Ok(found);
        }
    }
    routed::find(gateway, method, authority, uri, request.headers(), before)
}

/// `https` without TLS is a mistake of the client's; HTTP/2's clients say it of a connection that had its TLS taken off.
fn check_scheme(connection: &Connection, request: &Request<RequestBody>) -> Result<(), Failure> {
    match request.uri().scheme_str() {
        None | Some("http") => Ok(()),
        Some("https") if connection.is_encrypted || request.version() == Version::HTTP_2 => Ok(()),
        Some(_) => Err(Failure::new(Reason::BadRequest, "the URL's scheme is not what this connection speaks")),
    }
}
