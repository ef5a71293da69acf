//! Routes that services claim for themselves, by tags in Consul: what a tag says, where a service may claim at all, and what
//! of that the configuration's own routes leave to it.
//!
//! A tag is anybody's who may register a service. So it says where a route is and what its path becomes, and nothing of who
//! may ask; it is worth nothing outside the space that the gateway's configuration gives to that service; and it takes no
//! request from a route of the configuration but from one that is wider than that space.

use std::sync::Arc;

use http::Method;

use super::host::HostPattern;
use super::pattern::PathPattern;
use super::rewrite::Rewrite;
use super::table::{Conditions, Matcher, label};
use super::when::When;

/// The longest claim, in bytes.
pub const TEXT_MAX: usize = 512;

/// What a tag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which requests are claimed.
    pub matcher: Matcher,
    /// What their path becomes; `None`: it stays as it was read.
    pub rewrite: Option<Rewrite>,
}

/// Where a service may claim routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    host: HostPattern,
    path: PathPattern,
}

/// How a claim within a space stands to a route of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes no request from it.
    Beside,
    /// It takes some, and the route is wider than the space: the configuration gave them away.
    Within,
    /// It takes some that the configuration has said otherwise of.
    Against,
}

impl Claim {
    /// Parses `/api/orders/*`, `shop.example/api/orders/* strip=/api methods=GET,POST`; in words why not.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("it is longer than {TEXT_MAX} bytes"));
        }
        let mut words = text.split_ascii_whitespace();
        let (host, path) = place(words.next().unwrap_or_default())?;
        let (mut strip, mut methods) = (None, Vec::new());
        for word in words {
            match word.split_once('=') {
                Some(("strip", prefix)) if strip.is_none() => strip = Some(Rewrite::strip(prefix, &path)?),
                Some(("methods", list)) if methods.is_empty() => {
                    methods = list.split(',').map(method).collect::<Result<_, _>>()?;
                }
                Some((option @ ("strip" | "methods"), _)) => return Err(format!("`{option}` is there twice")),
                _ => {
                    let option = word.split('=').next().unwrap_or_default();
                    return Err(format!(
                        "`{option}` is none of `strip` and `methods`: a tag says nothing else of a route"
                    ));
                }
            }
        }
        let conditions = Conditions { methods, ..Conditions::default() };
        Ok(Self { matcher: Matcher { host, path, conditions, when: When::default() }, rewrite: strip })
    }
}

impl Space {
    /// Parses `/api/orders/*`, `shop.example/api/orders/*`, `*.shop.example/*`; in words why not.
    pub fn parse(text: &str) -> Result<Self, String> {
        place(text).map(|(host, path)| Self { host, path })
    }

    /// Whether each request that this one matches is in it.
    pub fn has(&self, claim: &Matcher) -> bool {
        self.host.covers(&claim.host) && self.path.covers(&claim.path)
    }

    /// What routes in it are called.
    pub fn label(&self) -> Arc<str> {
        label(&self.host, &self.path)
    }

    /// How a claim in it stands to a route of the configuration.
    pub fn standing(&self, claim: &Matcher, route: &Matcher) -> Standing {
        if !claim.takes_from(route) {
            return Standing::Beside;
        }
        let is_wider = route.host.covers(&self.host) && route.path.covers(&self.path);
        let is_same = self.host.covers(&route.host) && self.path.covers(&route.path);
        if is_wider && !is_same { Standing::Within } else { Standing::Against }
    }
}

/// A method, as routes name them: in capitals, and not CONNECT, which names no path.
pub fn method(text: &str) -> Result<Method, String> {
    let is_usual = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|method| is_usual && *method != Method::CONNECT);
    method.ok_or_else(|| format!("`{text}` is not a method of a route, such as `GET`"))
}

/// A path, with or without a host before it.
fn place(text: &str) -> Result<(HostPattern, PathPattern), String> {
    let Some(at) = text.find('/') else {
        return Err(format!("`{text}` has no path: write `/api/*`, or `shop.example/api/*`"));
    };
    let (host, path) = text.split_at(at);
    let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host)? };
    Ok((host, PathPattern::parse(path, false).map_err(|why| why.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(text: &str) -> Matcher {
        Claim::parse(text).unwrap().matcher
    }

    #[test]
    fn a_tag_says_where_it_is_what_its_path_becomes_and_nothing_else() {
        let claim = Claim::parse("  Shop.Example/api/orders/*   strip=/api methods=GET,POST ").unwrap();
        assert_eq!(claim.matcher.host, HostPattern::Exact("shop.example".into()));
        assert_eq!(claim.matcher.conditions.methods, [Method::GET, Method::POST]);
        assert_eq!(claim.rewrite, Some(Rewrite::Strip(1, "/api".into())));
        assert_eq!(matcher("/a").host, HostPattern::Any);
        let (long, segments) = (format!("/{}", "a".repeat(TEXT_MAX)), "/a".repeat(40));
        for (wrong, why) in [
            ("", "has no path"),
            ("   ", "has no path"),
            ("shop.example", "has no path"),
            ("shop.example:80/a", "has a port"),
            ("https://shop.example/a", "has a port"),
            ("u@shop.example/a", "is not a host"),
            ("b\u{fc}cher.example/a", "not ASCII"),
            ("*.*/a", "may only be"),
            ("/a*", "may only be the last segment"),
            ("//a", "no request matches"),
            ("/a/../b", "no request matches"),
            ("/a%2Fb", "no request matches"),
            ("/a;b", "no request matches"),
            ("/a auth=none", "`auth` is none of"),
            ("/a AUTH=none", "`AUTH` is none of"),
            ("/a auth", "`auth` is none of"),
            ("/a limit=off", "`limit` is none of"),
            ("/a to=payments", "`to` is none of"),
            ("/a rewrite=/b", "`rewrite` is none of"),
            ("/a =", "`` is none of"),
            ("/a /b", "`/b` is none of"),
            ("/a strip=/b", "does not begin with"),
            ("/a strip=", "must start with"),
            ("/{id} strip=/{id}", "does not begin with"),
            ("/a/b strip=/a strip=/a", "there twice"),
            ("/a methods=", "is not a method"),
            ("/a methods=get", "is not a method"),
            ("/a methods=GET,", "is not a method"),
            ("/a methods=CONNECT", "is not a method"),
            ("/a methods=GET methods=PUT", "there twice"),
            (&long, "longer than 512"),
            (&segments, "more than 32 segments"),
        ] {
            let told = Claim::parse(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_space_has_what_is_all_in_it() {
        for (space, claim, expected) in [
            ("/api/orders/*", "/api/orders/*", true),
            ("/api/orders/*", "/api/orders", true),
            ("/api/orders/*", "/api/orders/{id}/items/*", true),
            ("/api/orders/*", "/%61pi/orders/", true),
            ("/api/orders/*", "shop.example/api/orders/x", true),
            ("/api/orders/*", "*.shop.example/api/orders/x", true),
            ("/api/orders/*", "/api/ordersx", false),
            ("/api/orders/*", "/api/*", false),
            ("/api/orders/*", "/api/{what}/*", false),
            ("/api/orders/*", "/API/orders/x", false),
            ("/api/orders/*", "/", false),
            ("/api/orders", "/api/orders", true),
            ("/api/orders", "/api/orders/*", false),
            ("/api/{what}", "/api/{other}", true),
            ("/api/{what}", "/api/orders", true),
            ("/api/{what}", "/api/orders/1", false),
            ("/*", "/", true),
            ("shop.example/*", "shop.example/a", true),
            ("shop.example/*", "SHOP.example./a", true),
            ("shop.example/*", "/a", false),
            ("shop.example/*", "evil.example/a", false),
            ("shop.example/*", "*.shop.example/a", false),
            ("*.shop.example/*", "a.shop.example/a", true),
            ("*.shop.example/*", "*.a.shop.example/a", true),
            ("*.shop.example/*", "*.shop.example/a", true),
            ("*.shop.example/*", "shop.example/a", false),
            ("*.a.shop.example/*", "*.shop.example/a", false),
        ] {
            assert_eq!(Space::parse(space).unwrap().has(&matcher(claim)), expected, "{space}: {claim}");
        }
    }

    #[test]
    fn routes_of_the_configuration_keep_their_requests_but_those_wider_than_the_space() {
        use Standing::{Against, Beside, Within};
        for (space, claim, route, expected) in [
            ("/api/orders/*", "/api/orders/*", "/*", Within),
            ("/api/orders/*", "/api/orders/*", "/api/*", Within),
            ("/api/orders/*", "/api/orders/1", "/api/{what}/*", Within),
            ("/api/orders/*", "/api/orders/*", "/api/orders/*", Against),
            ("/api/orders/*", "/api/orders/1", "/api/orders/*", Against),
            ("/api/orders/*", "/api/orders/*", "/api/orders/admin", Beside),
            ("/api/orders/*", "/api/orders/{id}", "/api/orders/admin", Beside),
            ("/api/orders/*", "/api/orders/admin", "/api/orders/admin", Against),
            ("/api/orders/*", "/api/orders/admin", "/api/orders/{id}", Against),
            ("/api/orders/*", "shop.example/api/orders/*", "/api/orders/admin", Against),
            ("/api/orders/*", "shop.example/api/orders/x", "/api/orders/admin", Beside),
            ("/api/orders/*", "shop.example/api/orders/*", "shop.example/*", Against),
            ("/api/orders/*", "/api/orders/*", "shop.example/*", Beside),
            ("/api/orders/*", "/api/orders/*", "/api/users/*", Beside),
            ("/api/orders/*", "/api/orders/* methods=GET", "/api/orders/* methods=PUT", Beside),
            ("/api/orders/*", "/api/orders/* methods=GET", "/api/orders/*", Against),
            ("/api/orders/*", "/api/orders/*", "/api/orders/* methods=PUT", Beside),
            ("shop.example/api/*", "shop.example/api/*", "shop.example/*", Within),
            ("shop.example/api/*", "shop.example/api/*", "*.example/*", Within),
            ("shop.example/api/*", "shop.example/api/*", "/api/login", Against),
        ] {
            let space_of = Space::parse(space).unwrap();
            assert!(space_of.has(&matcher(claim)), "{space}: {claim}");
            assert_eq!(space_of.standing(&matcher(claim), &matcher(route)), expected, "{space}: {claim} and {route}");
        }
    }
}
