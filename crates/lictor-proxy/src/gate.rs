//! What a gateway asks of a request before it goes on, and does to its answer. Who asks is a stranger, and the route's
//! [`Rules`] say what he may.
//!
//! | in this order | file | refuses with |
//! |---|---|---|
//! | is the head as short as it must be | [`head`] | `headers_too_large` |
//! | who asks, and may he | [`auth`] | `unauthenticated`, `forbidden`, `auth_unavailable`, `bad_request` |

mod auth;
mod head;

use std::rc::Rc;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response};
use lictor_core::Failure;
use lictor_core::gateway::auth::Identity;
use lictor_core::gateway::{Gateway, Rules};
use lictor_http::RequestBody;

use crate::admission::routed::{Found, Told};
use crate::calls::ending::ResponseBody;
use crate::names;
use crate::world::client::Connection;

/// A request at a gateway, from its head to the head of its answer.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Its route's, or the gateway's while there is none.
    rules: Arc<Rules>,
    /// The query as it came, where it had a token.
    query: Option<Box<str>>,
    /// Who asks, once he has shown it.
    identity: Option<Identity>,
    /// What a refusal asks for.
    challenge: Option<HeaderValue>,
    /// Nothing in the head says for whom the answer is.
    is_private: bool,
}

/// Why a request does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is refused. The client hears this sentence; log and story have the failure's.
    Refused(Failure, &'static str),
    /// It is answered.
    #[allow(dead_code, reason = "for the stages to come")]
    Told(Told),
}

impl Visit {
    /// Takes off a request what only the gateway says, and what only the gateway is told, before anything else looks at it.
    pub(crate) fn begin<B>(gateway: &Gateway, request: &mut Request<B>) -> Self {
        names::strip_managed(request.headers_mut(), &gateway.managed);
        let methods = gateway.rules.auth.as_ref().map(|auth| &auth.methods);
        let parameter = methods.and_then(|methods| methods.tokens.as_ref()?.sources.query.as_deref());
        let query = parameter.and_then(|name| auth::take_query(name, request));
        Self { rules: Arc::clone(&gateway.rules), query, identity: None, challenge: None, is_private: false }
    }

    /// The stages. The first that objects ends the request; their order is part of what the product does.
    pub(crate) async fn enter(
        &mut self,
        connection: &Rc<Connection>,
        request: &mut Request<RequestBody>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        self.rules = Arc::clone(&found.rules);
        head::check(&self.rules, request)?;
        auth::check(self, connection, request).await?;
        Ok(())
    }

    /// What is done to every answer, whoever made it.
    #[allow(clippy::unused_self, reason = "there are rules to come about answers")]
    pub(crate) fn leave(&mut self, response: &mut Response<ResponseBody>) {
        let status = response.status();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge.take().filter(|_| status.is_client_error()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.is_private {
            auth::make_private(headers);
        }
        names::seal(headers);
    }
}
