//! Where the answers of a service lead that sees paths without what the route has taken off (`strip`).

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LOCATION, Entry, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Request};
use lictor_core::gateway::location::{is_host, restored};

use crate::admission::routed::Routed;
use crate::names::X_FORWARDED_HOST;
use crate::world::view::{UpstreamState, View};

/// What an answer's `Location` is without.
#[derive(Debug)]
pub(super) struct Restores {
    prefix: Arc<str>,
    /// The host as the client names it, and as a proxy in front has told it.
    clients: [Option<HeaderValue>; 2],
    upstream: Rc<UpstreamState>,
}

impl Restores {
    /// `None`: nothing was taken off.
    pub(super) fn of<B>(view: &View, request: &Request<B>, routed: &Routed) -> Option<Box<Self>> {
        let prefix = Arc::clone(routed.stripped.as_ref()?);
        let upstream = Rc::clone(view.upstreams.get(&routed.upstream)?);
        let authority = request.uri().authority().and_then(|it| HeaderValue::try_from(it.as_str()).ok());
        let headers = request.headers();
        let clients = [authority.or_else(|| headers.get(HOST).cloned()), headers.get(X_FORWARDED_HOST).cloned()];
        Some(Box::new(Self { prefix, clients, upstream }))
    }

    pub(super) fn leave(&self, headers: &mut HeaderMap) {
        for name in [LOCATION, CONTENT_LOCATION] {
            let Entry::Occupied(mut values) = headers.entry(name) else { continue };
            for value in values.iter_mut() {
                let is = |own: &HeaderValue, host: &str| own.to_str().is_ok_and(|own| is_host(own, host));
                let is_client = |host: &str| self.clients.iter().flatten().any(|own| is(own, host));
                let is_service = |host: &str| self.is_service(host, is);
                // Some write letters as they are, in UTF-8.
                let text = str::from_utf8(value.as_bytes()).ok();
                let made = text.and_then(|text| restored(text, &self.prefix, is_client, is_service));
                if let Some(made) = made.and_then(|made| HeaderValue::try_from(made).ok()) {
                    *value = made;
                }
            }
        }
    }

    /// By what it is told that it is called, or by its address.
    fn is_service(&self, host: &str, is: impl Fn(&HeaderValue, &str) -> bool) -> bool {
        let mut endpoints = self.upstream.endpoints.iter();
        self.upstream.set_host().is_some_and(|own| is(own, host))
            || endpoints.any(|state| is(&state.host, host) || is_host(&state.endpoint.address.to_string(), host))
    }
}
