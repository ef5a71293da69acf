//! Is the head as short as its route wants it? The wire has bounds of its own, which come first.

use http::Request;
use lictor_core::gateway::Rules;
use lictor_core::{Failure, Reason};

use super::Stop;

pub(super) fn check<B>(rules: &Rules, request: &Request<B>) -> Result<(), Stop> {
    let most = rules.head_max;
    let length = length(request);
    if length <= most {
        return Ok(());
    }
    let failure = Failure::new(Reason::HeadersTooLarge, format!("a head of {length} bytes; its route takes {most}"));
    Err(Stop::Refused(failure, "the head is longer than this route takes"))
}

/// The target, and each field as HTTP/1.1 writes it.
fn length<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + fields.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_and_fields_count() {
        let request = Request::get("http://shop.example/a?b").header("x", "1").header("x", "23").body(()).unwrap();
        assert_eq!(length(&request), 4 + 6 + 7);
        assert!(check(&Rules { head_max: 17, ..Rules::default() }, &request).is_ok());
        assert!(check(&Rules { head_max: 16, ..Rules::default() }, &request).is_err());
    }
}
