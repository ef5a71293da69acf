//! Which variant of its route a request goes to, and what its client keeps of that.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Request};
use lictor_core::gateway::split::{Chosen, Cookie, Split, Ticket, Variant};
use serde_json::{Map, Value};

use super::routed::Routed;
use crate::world::client::Connection;
use crate::world::view::View;

/// Chooses it; the `Set-Cookie` for the answer, where the client gets another ticket.
pub(crate) fn choose<B>(
    connection: &Connection,
    view: &View,
    claims: Option<&Map<String, Value>>,
    request: &mut Request<B>,
    routed: &mut Routed,
) -> Option<HeaderValue> {
    let split = routed.split.take()?;
    let Chosen { variant, ticket } = chosen(&split, view, claims, request.headers(), || connection.worker.random());
    routed.choose(split.variants.get(variant)?);
    let (ticket, cookie) = (ticket?, split.cookie.as_ref()?);
    // The service is told already: what it balances or keeps by that cookie is the same from the first request on.
    show(request.headers_mut(), cookie, ticket);
    set_cookie(cookie, ticket, connection.is_encrypted)
}

/// The variant for a request with these fields.
pub(crate) fn chosen(
    split: &Split,
    view: &View,
    claims: Option<&Map<String, Value>>,
    headers: &HeaderMap,
    random: impl FnMut() -> u64,
) -> Chosen {
    let mut named = split.header.as_ref().into_iter().flat_map(|name| headers.get_all(name));
    // A field that stands twice names nobody.
    let named = named.next().filter(|_| named.next().is_none()).and_then(|name| name.to_str().ok());
    let claimed = split.claim.as_ref().and_then(|claim| claim.of(claims?)?.as_str());
    let ticket = split.cookie.as_ref().and_then(|cookie| ticket(headers, cookie));
    split.choose(named.into_iter().chain(claimed), ticket, |variant| is_there(view, variant), random)
}

/// Whether there is anybody, or it is not known yet that there is nobody.
fn is_there(view: &View, variant: &Variant) -> bool {
    let upstream = view.upstreams.get(&variant.upstream).map(|state| &state.upstream);
    upstream.is_some_and(|upstream| !upstream.endpoints.is_empty() || !upstream.is_known())
}

/// The first that is one: a cookie of that name may be another host's, or an older one's.
fn ticket(headers: &HeaderMap, cookie: &Cookie) -> Option<Ticket> {
    pairs(headers).filter(|(name, _)| *name == &*cookie.name).find_map(|(_, value)| Ticket::parse(value))
}

/// As lenient as RFC 6265bis, section 5.8.3, wants servers to be.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// In place of what the client has sent by that name; there is one field (RFC 6265, section 5.4).
fn show(headers: &mut HeaderMap, cookie: &Cookie, ticket: Ticket) {
    let mut line = Vec::new();
    for crumb in headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')) {
        let name = crumb.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if name != cookie.name.as_bytes() && !crumb.trim_ascii().is_empty() {
            line.extend_from_slice(crumb.trim_ascii());
            line.extend_from_slice(b"; ");
        }
    }
    line.extend_from_slice(format!("{}={ticket}", cookie.name).as_bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(COOKIE, line);
    }
}

/// RFC 6265bis, section 4.1: for the whole host, not for scripts, not with other sites' requests.
fn set_cookie(cookie: &Cookie, ticket: Ticket, is_encrypted: bool) -> Option<HeaderValue> {
    let mut value = format!("{}={ticket}; Path=/; HttpOnly; SameSite=Lax", cookie.name);
    if let Some(max_age) = cookie.max_age {
        value += &format!("; Max-Age={}", max_age.as_secs());
    }
    if is_encrypted {
        value += "; Secure";
    }
    HeaderValue::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(max_age: Option<u64>) -> Cookie {
        Cookie { name: "canary".into(), max_age: max_age.map(std::time::Duration::from_secs) }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap())).collect()
    }

    #[test]
    fn the_first_ticket_of_that_name_is_the_one() {
        for (lines, found) in [
            (&["canary=0000000000000007"][..], Some(7)),
            (&["a=b; canary=0000000000000007; canary=0000000000000008"], Some(7)),
            (&["a=b", "c=d;canary=0000000000000007"], Some(7)),
            (&["canary=orders@v2; canary=0000000000000009"], Some(9)),
            (&["canary=", "canary", "; ;", "xcanary=0000000000000007"], None),
            (&["Canary=0000000000000007"], None),
            (&[], None),
        ] {
            assert_eq!(ticket(&headers(lines), &cookie(None)), found.map(Ticket), "{lines:?}");
        }
    }

    #[test]
    fn the_service_sees_one_field_with_the_new_ticket() {
        for (lines, shown) in [
            (&[][..], "canary=0000000000000007"),
            (&["a=b; c"], "a=b; c; canary=0000000000000007"),
            (&["canary=0000000000000001; a=b", "canary=x", ";"], "a=b; canary=0000000000000007"),
        ] {
            let mut headers = headers(lines);
            show(&mut headers, &cookie(None), Ticket(7));
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), [shown], "{lines:?}");
        }
    }

    #[test]
    fn what_a_client_keeps_is_for_it_alone() {
        let told = |max_age, is_encrypted| set_cookie(&cookie(max_age), Ticket(7), is_encrypted).unwrap();
        assert_eq!(told(None, false), "canary=0000000000000007; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(told(Some(60), true), "canary=0000000000000007; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure");
    }
}
