//! gRPC-Web at a gateway: what comes is gRPC to everything behind this, and an answer of gRPC goes as what was asked for.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use lictor_core::gateway::grpc_web::{self, Call, Content, Writer};
use lictor_http::RequestBody;

use crate::calls::ending::ResponseBody;
use crate::calls::recoded::{Ahead, Failed, Recode};
use crate::calls::replay::Base64;

/// Makes a request of gRPC-Web one of gRPC.
pub(super) fn enter(request: &mut Request<RequestBody>) -> Option<Box<Call>> {
    let call = Call::of(request.method(), request.headers())?;
    call.enter(request.headers_mut());
    if call.is_text {
        request.extensions_mut().insert(Base64);
    }
    Some(Box::new(call))
}

/// Makes an answer one of gRPC-Web.
pub(super) fn leave(call: &Call, response: &mut Response<ResponseBody>) {
    let mut status = response.status();
    let content = call.leave(&mut status, response.headers_mut());
    *response.status_mut() = status;
    grpc_web::expose(response.headers_mut());
    let recode: Box<dyn Recode> = match content {
        Content::Messages => Box::new(Frames(call.writer())),
        Content::Nothing => Box::new(Nothing),
    };
    response.body_mut().recode(Ahead::new(), recode);
}

#[derive(Debug)]
struct Frames(Writer);

impl Recode for Frames {
    fn data(&mut self, piece: &[u8]) -> Result<Bytes, Failed> {
        let mut out = Vec::with_capacity(piece.len());
        self.0.data(piece, &mut out);
        Ok(out.into())
    }

    fn pause(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed> {
        let mut out = Vec::new();
        self.0.end(trailers.as_ref(), &mut out).map_err(|_| "the answer ended within a message")?;
        Ok((out, None))
    }
}

/// The head has said it all.
#[derive(Debug)]
struct Nothing;

impl Recode for Nothing {
    fn data(&mut self, _: &[u8]) -> Result<Bytes, Failed> {
        Ok(Bytes::new())
    }

    fn pause(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn end(&mut self, _: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed> {
        Ok((Vec::new(), None))
    }
}
