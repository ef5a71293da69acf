//! What a gateway asks of a request before it goes on, and does to its answer. Who asks is a stranger, and the route's
//! [`Rules`] say what he may.
//!
//! | in this order | file | refuses with |
//! |---|---|---|
//! | is the head as short as it must be | [`head`] | `headers_too_large` |

mod head;

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use lictor_core::Failure;
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
    pub(crate) fn new(gateway: &Gateway) -> Self {
        Self { rules: Arc::clone(&gateway.rules) }
    }

    /// The stages. The first that objects ends the request; their order is part of what the product does.
    #[allow(clippy::unused_async, reason = "there are stages to come that wait")]
    pub(crate) async fn enter(
        &mut self,
        _connection: &Rc<Connection>,
        request: &mut Request<RequestBody>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        self.rules = Arc::clone(&found.rules);
        head::check(&self.rules, request)?;
        Ok(())
    }

    /// What is done to every answer, whoever made it.
    #[allow(clippy::unused_self, reason = "there are rules to come about answers")]
    pub(crate) fn leave(&mut self, response: &mut Response<ResponseBody>) {
        names::seal(response.headers_mut());
    }
}
