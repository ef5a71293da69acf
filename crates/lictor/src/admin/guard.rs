//! Who may see which page, and give which order.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use lictor_config::BuildingBlocks;
use lictor_core::Secret;

use super::api::{self, Found, Operation, Who};
use super::reply::{Body, not_allowed, refuse, unauthorized};

/// Who may see what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Full,
    /// Health and metrics.
    Public,
}

/// Whether somebody asks only how we are.
pub(super) fn is_probe(path: &str) -> bool {
    api::find(path).is_some_and(|found| found.path.who == Who::Prober)
}

/// Who may give orders, or look at more than health and metrics: programs of this machine, and those of others that show the
/// token. Never a page in a browser.
pub(super) fn guard<B>(
    request: &Request<B>,
    peer: IpAddr,
    access: Access,
    token: Option<&Secret>,
) -> Result<(), Response<Body>> {
    if access == Access::Public {
        return Ok(());
    }
    check_browser(request)?;
    if peer.to_canonical().is_loopback() { check_host(request) } else { check_token(request, token) }
}

/// Who may use building blocks: programs of this machine that show their token.
pub(super) fn block<B>(request: &Request<B>, peer: IpAddr, config: &BuildingBlocks) -> Result<(), Response<Body>> {
    check_browser(request)?;
    if !peer.to_canonical().is_loopback() {
        return Err(refuse(StatusCode::FORBIDDEN, "building blocks are for programs of this machine"));
    }
    check_host(request)?;
    let Some(token) = config.token.as_ref().filter(|_| config.is_on()) else {
        return Err(refuse(StatusCode::NOT_FOUND, "`building_blocks` is off in this configuration"));
    };
    match shown(request) {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => Err(unauthorized("that is not building_blocks.token; send it as `Authorization: Bearer`")),
        None => Err(unauthorized("send building_blocks.token, as `Authorization: Bearer`")),
    }
}

/// Never a page in a browser.
fn check_browser<B>(request: &Request<B>) -> Result<(), Response<Body>> {
    if request.headers().contains_key(ORIGIN) {
        return Err(refuse(StatusCode::FORBIDDEN, "requests from browsers (with an Origin) are refused"));
    }
    // A page elsewhere that embeds ours, with no Origin to show (Fetch Metadata); a link to /ui may be followed.
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_foreign = matches!(header("sec-fetch-site"), Some("cross-site" | "same-site"));
    let is_link = request.method() == Method::GET && header("sec-fetch-dest") == Some("document");
    if is_foreign && !is_link {
        return Err(refuse(StatusCode::FORBIDDEN, "requests of other pages in a browser are refused"));
    }
    Ok(())
}

/// A name that resolves to loopback is how a web page would get here.
fn check_host<B>(request: &Request<B>) -> Result<(), Response<Body>> {
    let host = request.headers().get(HOST).map_or(Ok("localhost"), |host| host.to_str()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if name != "localhost" && name.parse::<IpAddr>().is_err() {
        return Err(refuse(StatusCode::FORBIDDEN, "the Host header must be localhost or an address"));
    }
    Ok(())
}

/// Other machines get what is public, and the rest for the token (RFC 6750). No web page knows it, so any Host will do.
fn check_token<B>(request: &Request<B>, token: Option<&Secret>) -> Result<(), Response<Body>> {
    if api::find(request.uri().path()).is_some_and(|found| found.path.is_public()) {
        return Ok(());
    }
    let Some(token) = token else {
        let sentence = "other machines get health and metrics only: set admin.token (LICTOR_ADMIN_TOKEN) and send it as \
                        `Authorization: Bearer`, or ask from this machine";
        return Err(refuse(StatusCode::FORBIDDEN, sentence));
    };
    match shown(request) {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => Err(unauthorized("that is not admin.token; send it as `Authorization: Bearer`")),
        None => Err(unauthorized("other machines have to send admin.token, as `Authorization: Bearer`")),
    }
}

/// The bearer token that is shown; empty where something else is.
fn shown<B>(request: &Request<B>) -> Option<&[u8]> {
    let given = request.headers().get(AUTHORIZATION)?.as_bytes().split_at_checked(7);
    Some(given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map_or(&b""[..], |(_, given)| given))
}

/// The page or order, and what stands for a name in its path; or that there is none here, or not by this method.
pub(super) fn route<B>(request: &Request<B>, access: Access) -> Result<(&'static Operation, Found), Response<Body>> {
    let is_public = access == Access::Public;
    if is_public && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(not_allowed("GET, HEAD"));
    }
    let found = api::find(request.uri().path());
    let found = found.filter(|found| found.path.who != Who::Application && (!is_public || found.path.is_public()));
    let Some(found) = found else {
        let sentence =
            if is_public { "here are /live /startup /ready /health /metrics" } else { "no such page; / lists them" };
        return Err(refuse(StatusCode::NOT_FOUND, sentence));
    };
    match found.path.operation(request.method()) {
        Some(operation) => Ok((operation, found)),
        None => Err(not_allowed(&found.path.methods())),
    }
}

#[cfg(test)]
mod tests {
    use http::header::ALLOW;

    use super::*;
    use crate::admin::pages;

    fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri(path);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn browsers_strangers_and_rebound_names_are_refused() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let stranger: IpAddr = "10.0.0.9".parse().unwrap();
        let with = |headers: &[(&str, &str)]| request(Method::POST, "/drain", headers);
        let plain = with(&[("host", "127.0.0.1:9901")]);
        assert!(guard(&plain, local, Access::Full, None).is_ok());
        assert!(guard(&plain, "::ffff:127.0.0.1".parse().unwrap(), Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "[::1]:9901")]), local, Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "localhost")]), local, Access::Full, None).is_ok());
        assert!(guard(&plain, stranger, Access::Full, None).is_err());
        assert!(guard(&with(&[("origin", "http://127.0.0.1:9901")]), local, Access::Full, None).is_err());
        assert!(
            guard(&with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "script")]), local, Access::Full, None)
                .is_err()
        );
        assert!(guard(&with(&[("sec-fetch-site", "same-origin")]), local, Access::Full, None).is_ok());
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")];
        assert!(guard(&request(Method::GET, "/ui", &link), local, Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "evil.example:9901")]), local, Access::Full, None).is_err());
        assert!(guard(&plain, stranger, Access::Public, None).is_ok());
        let form = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")];
        assert!(guard(&with(&form), local, Access::Full, None).is_err(), "an order is no link");
    }

    #[test]
    fn other_machines_show_the_token_for_all_but_health_and_metrics() {
        let (local, stranger): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        let token = Secret::new("0123456789abcdef");
        let asked = |path: &str, headers: &[(&str, &str)], token: Option<&Secret>| {
            let answer = guard(&request(Method::POST, path, headers), stranger, Access::Full, token);
            answer.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
        };
        let right = [("authorization", "Bearer 0123456789abcdef"), ("host", "orders.internal:9901")];
        assert_eq!(asked("/quit", &right, Some(&token)), 200);
        assert_eq!(asked("/config", &[("authorization", "bearer 0123456789abcdef")], Some(&token)), 200);
        assert_eq!(asked("/quit", &right, None), 403);
        for wrong in [
            "0123456789abcdef",
            "Bearer 0123456789abcdee",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Bearer ",
            "Bearer",
            "Basic MDEyMzQ1Njc4OWFiY2RlZg==",
        ] {
            assert_eq!(asked("/quit", &[("authorization", wrong)], Some(&token)), 401, "{wrong}");
        }
        assert_eq!(asked("/quit", &[], Some(&token)), 401);
        assert_eq!(asked("/quit", &[right[0], ("origin", "null")], Some(&token)), 403);
        assert_eq!((asked("/metrics", &[], Some(&token)), asked("/ready", &[], None)), (200, 200));
        let plain = request(Method::POST, "/quit", &[]);
        assert!(guard(&plain, local, Access::Full, Some(&token)).is_ok(), "none is needed on this machine");
    }

    #[test]
    fn building_blocks_are_for_programs_of_this_machine_that_show_their_token() {
        let (local, stranger): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
        let on = BuildingBlocks {
            services: true,
            token: Some(Secret::new("0123456789abcdef")),
            ..BuildingBlocks::default()
        };
        let asked = |headers: &[(&str, &str)], peer, config: &BuildingBlocks| {
            let answer = block(&request(Method::GET, "/v1/services", headers), peer, config);
            answer.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
        };
        let right = ("authorization", "Bearer 0123456789abcdef");
        for (headers, peer, status) in [
            (&[right][..], local, 200),
            (&[("authorization", "bearer 0123456789abcdef")], local, 200),
            (&[right, ("host", "localhost:9901")], "::1".parse().unwrap(), 200),
            (&[], local, 401),
            (&[("authorization", "Bearer 0123456789abcdee")], local, 401),
            (&[("authorization", "Bearer ")], local, 401),
            (&[("authorization", "0123456789abcdef")], local, 401),
            (&[right, ("host", "evil.example")], local, 403),
            (&[right, ("origin", "null")], local, 403),
            (&[right, ("sec-fetch-site", "cross-site")], local, 403),
            (&[right], stranger, 403),
        ] {
            assert_eq!(asked(headers, peer, &on), status, "{headers:?} of {peer}");
        }
        let off = BuildingBlocks { services: false, ..on };
        assert_eq!((asked(&[right], local, &off), asked(&[], local, &BuildingBlocks::default())), (404, 404));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_one() {
        let refused = |method, path, access| {
            let response = route(&request(method, path, &[]), access).unwrap_err();
            let allowed = response.headers().get(ALLOW).map_or("", |value| value.to_str().unwrap()).to_owned();
            (response.status().as_u16(), allowed)
        };
        assert_eq!(refused(Method::GET, "/drain", Access::Full), (405, "POST".to_owned()));
        assert_eq!(refused(Method::POST, "/config", Access::Full), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::GET, "/endpoints/users-1/eject", Access::Full), (405, "POST".to_owned()));
        assert_eq!(refused(Method::POST, "/endpoints/users", Access::Full), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::POST, "/breakers/users", Access::Public), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::POST, "/drain", Access::Public), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::GET, "/nothing", Access::Full), (404, String::new()));
        assert_eq!(refused(Method::GET, "/config", Access::Public), (404, String::new()));
        for page in ["/live", "/startup", "/ready", "/health", "/metrics"] {
            assert!(route(&request(Method::HEAD, page, &[]), Access::Public).is_ok(), "{page}");
        }
    }

    #[test]
    fn the_index_names_every_page_and_order() {
        for path in api::paths().filter(|path| path.who != Who::Application) {
            let plain = path.template.split('{').next().unwrap_or_default().trim_end_matches('/');
            let last = path.template.rsplit(['/', '}']).next().unwrap_or_default();
            assert!(pages::INDEX.contains(plain) && pages::INDEX.contains(last), "{}", path.template);
        }
    }
}
