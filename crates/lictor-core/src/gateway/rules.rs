//! What a gateway asks of the requests of a route, and does to its answers, beside where they go. A route's own are the
//! gateway's where it says nothing.

use std::sync::Arc;

use http::HeaderName;

use super::auth::Auth;
use super::compress::Compress;
use super::cors::Cors;
use super::errors::Shape;
use super::headers::Operations;
use super::maintenance::Maintenance;
use super::security::Security;
use super::transcode::Transcode;
use crate::limit::Limit;

/// One field for each thing that may be asked; the default asks for nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Who may ask; `None`: anybody.
    pub auth: Option<Arc<Auth>>,
    /// How often somebody may ask.
    pub limits: Arc<[Limit]>,
    /// The longest head: its target, and each field's name and value with the four bytes between and behind them.
    pub head_max: usize,
    /// The longest body, in bytes as they are without framing; `None`: as long as it comes.
    pub body_max: Option<u64>,
    /// Whose pages may read the answers; `None`: nothing is said of it.
    pub cors: Option<Arc<Cors>>,
    /// Whether it is in maintenance, and for whom; `None`: as it is ordered, for everybody.
    pub maintenance: Option<Arc<Maintenance>>,
    /// What failures look like; `None`: as everywhere.
    pub errors: Option<Arc<Shape>>,
    /// What becomes of the fields of requests.
    pub request_headers: Option<Arc<Operations>>,
    /// What becomes of the fields of answers.
    pub response_headers: Option<Arc<Operations>>,
    /// Fields that make browsers careful.
    pub security: Option<Arc<Security>>,
    /// Which answers are compressed.
    pub compress: Option<Arc<Compress>>,
    /// gRPC-Web is translated.
    pub grpc_web: bool,
    /// REST and JSON become gRPC.
    pub transcode: Option<Arc<Transcode>>,
}

/// What is read at all, over HTTP/1.1.
const HEAD_MAX: usize = 128 << 10;

impl Default for Rules {
    fn default() -> Self {
        Self {
            auth: None,
            limits: [].into(),
            head_max: HEAD_MAX,
            body_max: None,
            cors: None,
            maintenance: None,
            errors: None,
            request_headers: None,
            response_headers: None,
            security: None,
            compress: None,
            grpc_web: false,
            transcode: None,
        }
    }
}

impl Rules {
    /// The fields that those behind us believe, because they are ours.
    pub fn managed(&self) -> impl Iterator<Item = &HeaderName> {
        let claims = self.auth.iter().flat_map(|auth| &auth.fields).map(|field| &field.name);
        claims.chain(self.auth.iter().flat_map(|auth| auth.methods.fields()))
    }
}
