//! Is the body as short as its route wants it? What its head says is believed at once, before the client is told to send it;
//! what comes is counted as it is read, by whoever reads it.

use http::Request;
use http_body::Body;
use lictor_core::gateway::Rules;
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;

use super::Stop;

pub(super) fn check(rules: &Rules, request: &mut Request<RequestBody>) -> Result<(), Stop> {
    let Some(most) = rules.body_max else { return Ok(()) };
    let body = request.body_mut();
    let told = body.size_hint().lower();
    if told > most {
        let failure = Failure::new(Reason::BodyTooLarge, format!("a body of {told} bytes; its route takes {most}"));
        return Err(Stop::Refused(failure, "the request's body is longer than is taken here"));
    }
    body.limit(most);
    Ok(())
}
