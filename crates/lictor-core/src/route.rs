//! Routes: method and path patterns of an upstream that have a policy of their own.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use thiserror::Error;

use crate::limits::InFlight;
use crate::policy::Policy;

/// An upstream's routes; the first match wins. Behind them stand those of the gateway that lead to it: they are matched there,
/// by host and path as the client has them, and are named here for their policy and label.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    all: Arc<[Route]>,
    /// How many of them are matched here.
    own: usize,
}

impl Routes {
    /// In the order of the configuration.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { own: routes.len(), all: routes.into() }
    }

    /// The same, and the gateway's behind them.
    #[must_use]
    pub fn with_gateways(&self, routes: Vec<Route>) -> Self {
        let own = self.all.iter().take(self.own).cloned();
        Self { all: own.chain(routes).collect(), own: self.own }
    }

    /// How many are matched here; the gateway's come after them.
    pub fn own(&self) -> usize {
        self.own
    }

    /// Whether it is the gateway that matches the one at this place.
    pub fn is_gateways(&self, index: usize) -> bool {
        index >= self.own && index < self.all.len()
    }

    /// Where the first route is that matches.
    pub fn position(&self, method: &Method, path: &str) -> Option<usize> {
        let path = path.strip_prefix('/').unwrap_or(path);
        self.all[..self.own].iter().position(|route| route.matches(method, path))
    }

    /// The one at this place, from 0.
    pub fn get(&self, index: usize) -> Option<&Route> {
        self.all.get(index)
    }

    /// All of them, the gateway's too.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.all.iter()
    }

    /// The same, with the counts of the routes that were there before.
    #[must_use]
    pub fn follow(&self, earlier: &Self) -> Self {
        if Arc::ptr_eq(&self.all, &earlier.all) || self.iter().all(|route| route.in_flight.is_none()) {
            return self.clone();
        }
        let bounded =
            earlier.iter().filter_map(|route| Some(((route.method(), &route.label), route.in_flight.as_ref()?)));
        let counts: HashMap<_, _> = bounded.collect();
        let follow = |route: &Route| {
            let before = counts.get(&(route.method(), &route.label)).map(|before| Arc::clone(before));
            Route { in_flight: route.in_flight.clone().map(|own| before.unwrap_or(own)), ..route.clone() }
        };
        Self { all: self.iter().map(follow).collect(), own: self.own }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One pattern and its policy.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path pattern as written: `/users/{id}`. Also the metric label.
    pub label: Arc<str>,
    /// How requests that match are called.
    pub policy: Arc<Policy>,
    /// Whether a second processing is harmless, if the route says.
    pub is_idempotent: Option<bool>,
    /// Its requests, where it has limits of its own.
    pub in_flight: Option<Arc<InFlight>>,
    method: Option<Method>,
    /// What all its paths start with, after the slash: most others are told by it alone.
    start: String,
    segments: Vec<Segment>,
    takes_rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

/// A route's text is not a pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RouteError {
    /// No text.
    #[error("a route needs a path, such as `GET /users/{{id}}`")]
    Empty,
    /// The path does not start at the root.
    #[error("the path `{0}` must start with `/`")]
    NotAbsolute(String),
    /// Not a method.
    #[error("`{0}` is not an HTTP method")]
    Method(String),
    /// A star that is not the whole last segment.
    #[error("`*` may only be the last segment of `{0}`")]
    Star(String),
    /// Braces that do not enclose a whole segment.
    #[error("`{0}`: `{{name}}` must be a whole segment with a name")]
    Brace(String),
    /// Something that is not part of a path.
    #[error("`{0}` must be a path without query, fragment or spaces")]
    NotPath(String),
}

impl Route {
    /// Parses `GET /users/{id}`, `/users/*`, `POST /orders`. `{name}` is one segment that is not empty, a last `*` is
    /// the rest of the path, which may be empty. The query is not part of the path.
    pub fn parse(text: &str, policy: Arc<Policy>, is_idempotent: Option<bool>) -> Result<Self, RouteError> {
        let text = text.trim();
        let (method, path) = match text.split_once(char::is_whitespace) {
            Some((method, path)) => (Some(parse_method(method)?), path.trim()),
            None => (None, text),
        };
        if path.is_empty() {
            return Err(RouteError::Empty);
        }
        if !path.starts_with('/') {
            return Err(RouteError::NotAbsolute(path.to_owned()));
        }
        if path.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#')) {
            return Err(RouteError::NotPath(path.to_owned()));
        }
        let (body, takes_rest) = match path.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (path, false),
        };
        let segments = parse_segments(body, path)?;
        let literals = segments.iter().map_while(|segment| match segment {
            Segment::Literal(literal) => Some(literal.as_str()),
            Segment::Any => None,
        });
        let start = literals.collect::<Vec<_>>().join("/");
        let in_flight = None;
        Ok(Self { label: Arc::from(path), policy, is_idempotent, in_flight, method, start, segments, takes_rest })
    }

    /// One that a gateway matches.
    pub fn of_gateway(label: Arc<str>, policy: Arc<Policy>, is_idempotent: Option<bool>) -> Self {
        let (method, start, segments) = (None, String::new(), Vec::new());
        Self { label, policy, is_idempotent, in_flight: None, method, start, segments, takes_rest: false }
    }

    /// The same, with its requests counted by themselves: it has limits of its own.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.in_flight = Some(Arc::default());
        self
    }

    /// The method it is for; `None` is any.
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// `path` without the slash that it begins with.
    fn matches(&self, method: &Method, path: &str) -> bool {
        if !path.starts_with(&self.start) || self.method.as_ref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let mut given = path.split('/');
        for segment in &self.segments {
            let Some(part) = given.next() else { return false };
            let fits = match segment {
                Segment::Literal(literal) => literal == part,
                Segment::Any => !part.is_empty(),
            };
            if !fits {
                return false;
            }
        }
        self.takes_rest || given.next().is_none()
    }
}

fn parse_method(method: &str) -> Result<Method, RouteError> {
    let is_usual = method.bytes().all(|byte| byte.is_ascii_uppercase());
    Method::from_bytes(method.as_bytes()).ok().filter(|_| is_usual).ok_or_else(|| RouteError::Method(method.to_owned()))
}

fn parse_segments(body: &str, path: &str) -> Result<Vec<Segment>, RouteError> {
    let Some(body) = body.strip_prefix('/') else { return Ok(Vec::new()) }; // `/*`
    body.split('/')
        .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) if !name.is_empty() && !name.contains(['{', '}', '*']) => Ok(Segment::Any),
            Some(_) => Err(RouteError::Brace(path.to_owned())),
            None if part.contains('*') => Err(RouteError::Star(path.to_owned())),
            None if part.contains(['{', '}']) => Err(RouteError::Brace(path.to_owned())),
            None => Ok(Segment::Literal(part.to_owned())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        Route::parse(text, Arc::default(), None).unwrap()
    }

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, expected) in [
            ("/users/{id}", "/users/1", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/1/orders", false),
            ("/users/{id}/orders", "/users/1/orders", true),
            ("/users/*", "/users/1/orders", true),
            ("/users/*", "/users/", true),
            ("/users/*", "/users", true),
            ("/users/*", "/usersx", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("//*", "//a", true),
            ("//*", "/a", false),
        ] {
            let routes = Routes::new(vec![route(pattern)]);
            assert_eq!(routes.position(&Method::GET, path).is_some(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_match_wins_and_the_method_counts() {
        let routes = Routes::new(vec![route("POST /orders"), route("/orders"), route("/orders/*")]);
        assert_eq!(routes.position(&Method::POST, "/orders"), Some(0));
        assert_eq!(routes.position(&Method::GET, "/orders"), Some(1));
        assert_eq!(routes.position(&Method::GET, "/orders/7"), Some(2));
        assert_eq!(&*routes.get(2).unwrap().label, "/orders/*");
        assert_eq!(routes.position(&Method::GET, "/users"), None);
    }

    #[test]
    fn the_requests_of_a_bounded_route_are_counted_on_through_a_reload() {
        let before = Routes::new(vec![route("GET /a").bounded(), route("/b").bounded(), route("/c")]);
        let after = Routes::new(vec![route("/b").bounded(), route("/a").bounded(), route("/c").bounded(), route("/d")]);
        let after = after.follow(&before);
        let of = |routes: &Routes, index: usize| routes.get(index).unwrap().in_flight.clone();
        assert!(Arc::ptr_eq(&of(&before, 1).unwrap(), &of(&after, 0).unwrap()));
        assert!(!Arc::ptr_eq(&of(&before, 0).unwrap(), &of(&after, 1).unwrap()), "another method, another route");
        assert!(of(&after, 2).is_some() && of(&after, 3).is_none());
    }

    #[test]
    fn what_the_gateway_matches_is_not_matched_again() {
        let of_gateway = Route::of_gateway("/*".into(), Arc::default(), Some(true));
        let routes = Routes::new(vec![route("/a")]).with_gateways(vec![of_gateway]);
        assert_eq!(routes.position(&Method::GET, "/a"), Some(0));
        assert_eq!(routes.position(&Method::GET, "/b"), None);
        assert_eq!(&*routes.get(1).unwrap().label, "/*");
        assert!(routes.is_gateways(1) && !routes.is_gateways(0) && !routes.is_gateways(2));
        assert_eq!(routes.with_gateways(Vec::new()).iter().count(), 1);
    }

    #[test]
    fn wrong_patterns_are_refused_in_words() {
        for wrong in ["", "users", "get /users", "/users/*/x", "/a*", "/u{id}", "/{}", "/a?b=1", "GET", "/a b"] {
            let error = Route::parse(wrong, Arc::default(), None).map(|route| route.label);
            assert!(error.is_err(), "{wrong}");
        }
    }
}
