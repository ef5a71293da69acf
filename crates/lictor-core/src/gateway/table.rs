//! Which route a request is for.
//!
//! All routes stand in one total order, which no order of a file or a map changes: by host (an exact one, then the longest
//! `*.`, then none), by path ([`PathPattern::order`]), then by how much else they ask for (fields and query, exact values
//! before mere presence, methods). The first that matches is the one. Two that stand on one place and may match one request
//! are a mistake ([`Clash`]). Trees of segments find the first without a look at the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use serde_json::{Map, Value};

use super::host::HostPattern;
use super::path::segments;
use super::pattern::{PathPattern, Segment};
use super::when::{Unchosen, When};
use crate::hash::ByName;

/// A place as it is called: the host, if there is one, and the path.
pub fn label(host: &HostPattern, path: &PathPattern) -> Arc<str> {
    match host {
        HostPattern::Any => path.as_str().into(),
        host => format!("{host}{}", path.as_str()).into(),
    }
}

/// What a route asks for besides host and path. All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Any of these; empty: all.
    pub methods: Vec<Method>,
    /// Fields of the request, each name once.
    pub headers: Vec<(HeaderName, Condition)>,
    /// Parameters of the query, each name once.
    pub query: Vec<(String, Condition)>,
}

/// What a field or a parameter is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There, whatever its value.
    Present,
    /// There once, with this value.
    Exactly(String),
}

/// What one route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Whom it is sent to.
    pub host: HostPattern,
    /// Where.
    pub path: PathPattern,
    /// What else.
    pub conditions: Conditions,
    /// And who.
    pub when: When,
}

/// A request, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// By [`super::host::read`].
    pub host: &'a str,
    /// [`super::ReadPath::folded`].
    pub path: &'a str,
    /// The target's query.
    pub query: Option<&'a str>,
    /// How.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// Two routes that may match one request, and nothing says which is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The one that was given first.
    pub first: usize,
    /// The other.
    pub second: usize,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Table {
    /// In the order in which they are asked, each with its index as given.
    matchers: Vec<(usize, Matcher)>,
    /// Where each stands there, by its index.
    places: Vec<usize>,
    /// Routes that share a place, in order, by the index of the first: who asks decides among them.
    shared: BTreeMap<usize, Box<[usize]>>,
    exact: ByName<Box<str>, Node>,
    under: ByName<Box<str>, Node>,
    any: Node,
}

/// Where a path has come to.
#[derive(Debug)]
struct Node {
    /// The first place of any route from here on.
    first: usize,
    literals: ByName<Box<str>, Self>,
    /// In small letters.
    folded: ByName<Box<str>, Self>,
    any: Option<Box<Self>>,
    /// Routes whose path ends here, in order.
    ends: Vec<usize>,
    /// Routes that take what follows, in order.
    rests: Vec<usize>,
}

impl Table {
    /// Puts them in order, or says which two have none.
    pub fn new(matchers: Vec<Matcher>) -> Result<Self, Clash> {
        let mut matchers: Vec<(usize, Matcher)> = matchers.into_iter().enumerate().collect();
        matchers.sort_by_cached_key(|(index, matcher)| (matcher.order(), matcher.when.order(), *index));
        find_clash(&matchers)?;
        let mut table = Self { shared: shared(&matchers), ..Self::default() };
        let others: HashSet<usize> = table.shared.values().flat_map(|indices| &indices[1..]).copied().collect();
        // The first of a place is found for all that share it.
        for (place, (_, matcher)) in matchers.iter().enumerate().filter(|(_, (index, _))| !others.contains(index)) {
            let tree = match &matcher.host {
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                HostPattern::Under(end) => table.under.entry(end.clone()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            tree.insert(place, &matcher.path);
        }
        table.places = vec![0; matchers.len()];
        for (place, (index, _)) in matchers.iter().enumerate() {
            table.places[*index] = place;
        }
        table.matchers = matchers;
        Ok(table)
    }

    /// The index of the route that this request is for; of several that share a place, the first ([`Self::choose`]).
    pub fn find(&self, asked: &Asked<'_>) -> Option<usize> {
        self.trees(asked.host).find_map(|tree| {
            let mut search = Search { table: self, asked, best: usize::MAX, visited: 0 };
            search.visit(tree, segments(asked.path));
            self.matchers.get(search.best).map(|(index, _)| *index)
        })
    }

    /// The routes that share the place of this one, which is the first there; `None`: who asks decides nothing.
    pub fn shared(&self, first: usize) -> Option<&[usize]> {
        self.shared.get(&first).map(|indices| &**indices)
    }

    /// All places that several routes share, or one that is not for everybody.
    pub fn all_shared(&self) -> impl Iterator<Item = &[usize]> {
        self.shared.values().map(|indices| &**indices)
    }

    /// Which of the routes that share the place of this one is for whoever makes these claims; `None`: for nobody known.
    pub fn choose(&self, first: usize, claims: Option<&Map<String, Value>>) -> Result<usize, Unchosen> {
        let when = |index: usize| Some(&self.matchers.get(*self.places.get(index)?)?.1.when);
        let indices = self.shared(first).unwrap_or(std::slice::from_ref(&first));
        let holds = |index: &usize| when(*index).is_some_and(|when| when.holds(claims));
        let mut held = indices.iter().copied().filter(holds);
        let Some(found) = held.next() else { return Err(Unchosen::None) };
        match held.next() {
            Some(second) if when(found).map(When::order) == when(second).map(When::order) => Err(Unchosen::Several),
            _ => Ok(found),
        }
    }

    /// Whether the route of this index is asked before the other; each is asked before none.
    pub fn is_before(&self, index: usize, other: Option<usize>) -> bool {
        let place = |index: usize| self.places.get(index);
        other.is_none_or(|other| place(index) < place(other))
    }

    /// All of them with their indices, in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Matcher)> {
        self.matchers.iter().map(|(index, matcher)| (*index, matcher))
    }

    /// Trees of routes for this host: its own, those of the names above it, those of all.
    fn trees<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Node> {
        let dots = host.bytes().enumerate().filter(|(at, byte)| *byte == b'.' && *at > 0 && !self.under.is_empty());
        let under = dots.filter_map(|(at, _)| self.under.get(&host[at..]));
        self.exact.get(host).into_iter().chain(under).chain([&self.any])
    }
}

impl Matcher {
    /// Whether it matches this request.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.host.has(asked.host) && self.path.matches(asked.path) && self.conditions.hold(asked)
    }

    /// Whether there is a request that both match and that is this one's, or whose it is nothing says.
    pub fn takes_from(&self, other: &Self) -> bool {
        self.host.may_meet(&other.host)
            && self.path.may_meet(&other.path)
            && self.conditions.may_meet(&other.conditions)
            && self.order() <= other.order()
    }

    /// Whether nothing says which of two is meant.
    pub fn clashes(&self, other: &Self) -> bool {
        if self.shares_place(other) {
            return self.when.order() == other.when.order() && self.when.may_meet(&other.when);
        }
        self.order() == other.order() && self.conditions.may_meet(&other.conditions)
    }

    /// What it asks for besides host and path: `GET; X-Canary: 1; when plan = gold`.
    pub fn only(&self) -> String {
        let when = Some(format!("when {}", self.when)).filter(|_| !self.when.is_empty());
        let parts = [Some(self.conditions.to_string()), when].into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }

    fn order(&self) -> impl Ord + use<> {
        let host = match &self.host {
            HostPattern::Exact(_) => (0, Reverse(0)),
            HostPattern::Under(end) => (1, Reverse(end.len())),
            HostPattern::Any => (2, Reverse(0)),
        };
        (host, self.host.clone(), self.path.order(), self.conditions.order())
    }

    /// Whether both ask the same of a request, whoever makes it.
    fn shares_place(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path && self.conditions.are(&other.conditions)
    }
}

impl Conditions {
    fn hold(&self, asked: &Asked<'_>) -> bool {
        self.has_method(asked.method)
            && self.headers.iter().all(|(name, wanted)| {
                let values = asked.headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
                wanted.holds(values)
            })
            && self.query.iter().all(|(name, wanted)| wanted.holds(values_of(asked.query, name)))
    }

    fn has_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn order(&self) -> (Reverse<usize>, Reverse<usize>, bool) {
        let all = || self.headers.iter().map(|(_, wanted)| wanted).chain(self.query.iter().map(|(_, wanted)| wanted));
        let exact = all().filter(|wanted| matches!(wanted, Condition::Exactly(_))).count();
        (Reverse(all().count()), Reverse(exact), self.methods.is_empty())
    }

    /// Whether they are the same, in whatever order they were written.
    fn are(&self, other: &Self) -> bool {
        fn has_all<T: PartialEq>(own: &[T], other: &[T]) -> bool {
            own.iter().all(|one| other.contains(one))
        }
        has_all(&self.methods, &other.methods)
            && has_all(&other.methods, &self.methods)
            && self.headers.len() == other.headers.len()
            && has_all(&self.headers, &other.headers)
            && self.query.len() == other.query.len()
            && has_all(&self.query, &other.query)
    }

    /// Whether some request fulfils both.
    fn may_meet(&self, other: &Self) -> bool {
        let is_any = self.methods.is_empty() || other.methods.is_empty();
        (is_any || self.methods.iter().any(|method| other.methods.contains(method)))
            && agree(&self.headers, &other.headers)
            && agree(&self.query, &other.query)
    }
}

impl Condition {
    fn holds<'a>(&self, mut values: impl Iterator<Item = &'a str>) -> bool {
        let first = values.next();
        match self {
            Self::Present => first.is_some(),
            // A field that stands twice is read by one as the first, by another as the last.
            Self::Exactly(wanted) => first == Some(wanted) && values.next().is_none(),
        }
    }
}

impl fmt::Display for Conditions {
    /// `GET, POST; X-Canary: 1; ?v=2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = self.methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let headers = self.headers.iter().map(|(name, wanted)| match wanted {
            Condition::Present => format!("{name}: *"),
            Condition::Exactly(value) => format!("{name}: {value}"),
        });
        let query = self.query.iter().map(|(name, wanted)| match wanted {
            Condition::Present => format!("?{name}"),
            Condition::Exactly(value) => format!("?{name}={value}"),
        });
        let parts: Vec<String> =
            Some(methods).filter(|it| !it.is_empty()).into_iter().chain(headers).chain(query).collect();
        f.write_str(&parts.join("; "))
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            first: usize::MAX,
            literals: ByName::default(),
            folded: ByName::default(),
            any: None,
            ends: Vec::new(),
            rests: Vec::new(),
        }
    }
}

impl Node {
    /// Places are given in order.
    fn insert(&mut self, place: usize, pattern: &PathPattern) {
        let mut node = self;
        node.first = node.first.min(place);
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(literal) if pattern.ignores_case => node.folded.entry(literal.clone()).or_default(),
                Segment::Literal(literal) => node.literals.entry(literal.clone()).or_default(),
                Segment::Any(_) => node.any.get_or_insert_default(),
            };
            node.first = node.first.min(place);
        }
        if pattern.takes_rest { node.rests.push(place) } else { node.ends.push(place) }
    }
}

/// One way through a tree: what cannot hold a better route than the best so far is passed by.
struct Search<'a> {
    table: &'a Table,
    asked: &'a Asked<'a>,
    best: usize,
    /// Nodes that were looked at.
    visited: usize,
}

impl Search<'_> {
    fn visit<'p>(&mut self, node: &Node, mut rest: impl Iterator<Item = &'p str> + Clone) {
        if node.first >= self.best {
            return;
        }
        self.visited += 1;
        let Some(segment) = rest.next() else {
            self.take(&node.ends);
            return self.take(&node.rests);
        };
        if let Some(next) = node.literals.get(segment) {
            self.visit(next, rest.clone());
        }
        if !node.folded.is_empty() {
            let small = segment.to_ascii_lowercase();
            if let Some(next) = node.folded.get(&*small) {
                self.visit(next, rest.clone());
            }
        }
        if let Some(next) = &node.any {
            self.visit(next, rest);
        }
        self.take(&node.rests);
    }

    /// The first of these whose conditions hold, if it is better.
    fn take(&mut self, places: &[usize]) {
        let better = places.iter().take_while(|place| **place < self.best);
        let holds = |place: &&usize| {
            self.table.matchers.get(**place).is_some_and(|(_, matcher)| matcher.conditions.hold(self.asked))
        };
        if let Some(place) = better.copied().find(|place| holds(&place)) {
            self.best = place;
        }
    }
}

/// The values of a query's parameter, as they are written.
fn values_of<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(own, _)| *own == name)
        .map(|(_, value)| value)
}

/// Whether what is asked of one name by each can be true at once.
fn agree<N: PartialEq>(own: &[(N, Condition)], other: &[(N, Condition)]) -> bool {
    own.iter().all(|(name, wanted)| {
        let theirs = other.iter().find(|(known, _)| known == name).map(|(_, wanted)| wanted);
        match (wanted, theirs) {
            (Condition::Exactly(own), Some(Condition::Exactly(other))) => own == other,
            _ => true,
        }
    })
}

/// Routes with one order stand beside each other.
fn find_clash(matchers: &[(usize, Matcher)]) -> Result<(), Clash> {
    for group in matchers.chunk_by(have_one_order) {
        for (at, (second, matcher)) in group.iter().enumerate() {
            let earlier = group[..at].iter().find(|(_, before)| before.clashes(matcher));
            if let Some((first, _)) = earlier {
                return Err(Clash { first: *first.min(second), second: *first.max(second) });
            }
        }
    }
    Ok(())
}

fn have_one_order((_, one): &(usize, Matcher), (_, other): &(usize, Matcher)) -> bool {
    one.order() == other.order()
}

/// The places of which who asks decides: each one's routes, in order, by the first.
fn shared(matchers: &[(usize, Matcher)]) -> BTreeMap<usize, Box<[usize]>> {
    let mut shared = BTreeMap::new();
    for group in matchers.chunk_by(have_one_order) {
        let mut left: Vec<&(usize, Matcher)> = group.iter().collect();
        while let Some((first, matcher)) = left.first().copied() {
            let (mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, other)| matcher.shares_place(other));
            // What asks nothing of anybody is the last of its place.
            if !matcher.when.is_empty() {
                shared.insert(*first, mine.iter().map(|(index, _)| *index).collect());
            }
            left = others;
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use lictor_jose::rules::{Claim, Test};
    use serde_json::json;

    use super::*;

    fn matcher(text: &str) -> Matcher {
        let (mut host, mut path, mut conditions) = (HostPattern::Any, None, Conditions::default());
        let mut ignores_case = false;
        let mut when = Vec::new();
        for word in text.split(' ') {
            let of = |text: &str| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Condition::Exactly(value.to_owned())),
                None => (text.to_owned(), Condition::Present),
            };
            match word {
                "~" => ignores_case = true,
                word if word.starts_with('/') => path = Some(word),
                word if word.starts_with('?') => conditions.query.push(of(&word[1..])),
                word if word.starts_with('@') => when.push(claim(&word[1..])),
                word if word.starts_with('x') => {
                    let (name, wanted) = of(word);
                    conditions.headers.push((HeaderName::try_from(name).unwrap(), wanted));
                }
                word if word.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                    conditions.methods.push(word.parse().unwrap());
                }
                word => host = HostPattern::parse(word).unwrap(),
            }
        }
        let path = PathPattern::parse(path.unwrap(), ignores_case).unwrap();
        Matcher { host, path, conditions, when: When(when.into()) }
    }

    /// `plan=gold|silver`, or `plan`.
    fn claim(text: &str) -> (Claim, Test) {
        let (name, values) = text.split_once('=').unwrap_or((text, ""));
        let values: Vec<Value> = values.split('|').filter(|value| !value.is_empty()).map(Value::from).collect();
        let test = if values.is_empty() { Test::Exists } else { Test::OneOf(values) };
        (Claim::parse(name).unwrap(), test)
    }

    fn table(rows: &[&str]) -> Table {
        Table::new(rows.iter().map(|row| matcher(row)).collect()).unwrap()
    }

    fn found(table: &Table, text: &str) -> Option<usize> {
        let (mut headers, mut method, mut host) = (HeaderMap::new(), Method::GET, "shop.example");
        let (mut path, mut query) = ("/", None);
        for word in text.split(' ') {
            match word {
                word if word.starts_with('/') => {
                    (path, query) = word.split_once('?').map_or((word, None), |(path, query)| (path, Some(query)));
                }
                word if word.starts_with('x') => {
                    let (name, value) = word.split_once('=').unwrap();
                    headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
                }
                word if word.bytes().all(|byte| byte.is_ascii_uppercase()) => method = word.parse().unwrap(),
                word => host = word,
            }
        }
        table.find(&Asked { host, path, query, method: &method, headers: &headers })
    }

    #[test]
    fn the_most_specific_route_is_the_one_whatever_the_order_of_the_file() {
        let rows = [
            "shop.example /api/users/me",
            "shop.example /api/users/{id}",
            "shop.example /api/users/*",
            "shop.example /api/*",
            "*.shop.example /api/*",
            "*.eu.shop.example /api/*",
            "/api/users/me",
            "/*",
            "/api/{kind}/me",
            "~ /Admin/*",
            "/admin/log",
        ];
        let asks = [
            ("/api/users/me", Some(0)),
            ("/api/users/me/", Some(0)),
            ("/api/users/1", Some(1)),
            ("/api/users/1/orders", Some(2)),
            ("/api/users", Some(2)),
            ("/api/usersx", Some(3)),
            ("/api", Some(3)),
            ("a.shop.example /api/users/me", Some(4)),
            ("a.eu.shop.example /api/x", Some(5)),
            ("eu.shop.example /api/x", Some(4)),
            ("a.eu.shop.example /other", Some(7)),
            ("other.example /api/users/me", Some(6)),
            ("other.example /api/carts/me", Some(8)),
            ("other.example /api/carts/you", Some(7)),
            ("/ADMIN/x", Some(9)),
            ("/admin", Some(9)),
            ("/admin/log", Some(10)),
            ("/Admin/log", Some(9)),
        ];
        for turn in 0..rows.len() {
            let order: Vec<usize> = (0..rows.len()).map(|at| (at + turn) % rows.len()).collect();
            let table = table(&order.iter().map(|at| rows[*at]).collect::<Vec<_>>());
            for (ask, expected) in asks {
                assert_eq!(found(&table, ask).map(|at| order[at]), expected, "{ask}, turned by {turn}");
            }
        }
    }

    #[test]
    fn what_else_a_route_asks_for_comes_after_its_path() {
        let table = table(&[
            "/users/{id}",
            "GET POST /users/{id}",
            "x-canary=1 /users/{id}",
            "x-canary /users/{id}",
            "x-canary=1 ?v=2 /users/{id}",
            "DELETE /users/me",
            "?v=2 /users/me",
        ]);
        for (ask, expected) in [
            ("PUT /users/1", 0),
            ("GET /users/1", 1),
            ("x-canary=1 /users/1", 2),
            ("x-canary=2 /users/1", 3),
            ("x-canary=1 x-canary=1 /users/1", 3),
            ("x-canary=1 /users/1?v=2", 4),
            ("x-canary=1 /users/1?a&v=2&b=v", 4),
            ("x-canary=1 /users/1?v=2&v=2", 2),
            ("DELETE /users/me", 5),
            ("GET /users/me?v=2", 6),
            ("GET /users/me", 1),
        ] {
            assert_eq!(found(&table, ask), Some(expected), "{ask}");
        }
    }

    #[test]
    fn a_route_is_before_those_that_are_asked_after_it_and_before_none() {
        let table = table(&["/*", "/a/*", "/a/b"]);
        for (own, other, is_before) in
            [(2, Some(1), true), (1, Some(0), true), (0, Some(2), false), (1, Some(1), false), (0, None, true)]
        {
            assert_eq!(table.is_before(own, other), is_before, "{own} {other:?}");
        }
    }

    #[test]
    fn routes_that_nothing_tells_apart_are_a_mistake_and_name_each_other() {
        for (first, second) in [
            ("/a", "/a"),
            ("/a", "/a/"),
            ("/a", "/%61"),
            ("/users/{id}", "/users/{name}"),
            ("/a/*", "/a/*"),
            ("~ /Admin", "~ /admin"),
            ("~ /1", "/1"),
            ("a.example /", "A.example. /"),
            ("GET /a", "GET POST /a"),
            ("x-a=1 /a", "x-b=1 /a"),
            ("x-a=1 /a", "x-a=1 /a"),
            ("x-a /a", "?a /a"),
            ("@plan=gold /a", "@plan=gold /a"),
            ("@plan=gold|silver /a", "@plan=silver|free /a"),
            ("@plan=gold /a", "@tenant=acme /a"),
            ("@plan /a", "@tenant /a"),
            ("@plan=gold /a/{b}", "/a/{c}"),
            ("@plan=gold /a", "/a/"),
            ("@plan=gold GET /a", "GET PUT /a"),
            ("@plan=gold x-a=1 /a", "x-b=1 /a"),
            ("@plan=gold GET PUT /a", "@plan=gold PUT GET /a"),
        ] {
            let matchers = vec![matcher("/other"), matcher(first), matcher("/a/b"), matcher(second)];
            assert_eq!(Table::new(matchers).err(), Some(Clash { first: 1, second: 3 }), "{first} and {second}");
        }
        for (first, second) in [
            ("GET /a", "POST /a"),
            ("GET /a", "/a"),
            ("x-a=1 /a", "x-a=2 /a"),
            ("x-a=1 /a", "x-a /a"),
            ("?a=1 /a", "?a=2 /a"),
            ("~ /a", "/a"),
            ("/a/{b}", "/{a}/b"),
            ("a.example /a", "/a"),
            ("@plan=gold /a", "/a"),
            ("@plan=gold /a", "@plan=silver /a"),
            ("@plan=gold /a", "@plan /a"),
            ("@plan=gold /a", "@plan=gold @tenant=acme /a"),
            ("@plan=gold GET /a", "GET /a"),
            ("@plan=gold GET PUT /a", "PUT GET /a"),
            ("@plan=gold x-a=1 ?b /a", "?b x-a=1 /a"),
            ("@plan=gold GET /a", "PUT /a"),
            ("@plan=gold GET /a", "/a"),
        ] {
            assert!(Table::new(vec![matcher(first), matcher(second)]).is_ok(), "{first} and {second}");
        }
    }

    #[test]
    fn who_asks_decides_among_the_routes_of_a_place_and_of_no_other() {
        let rows = [
            "/a",
            "@plan=gold /a",
            "@plan=gold @tenant=acme /a",
            "@plan=silver|free /a",
            "@plan /a",
            "@plan=gold GET /b",
            "PUT /b",
            "/b",
            "@plan=gold /c",
        ];
        let none = Err(Unchosen::None);
        let asks = [
            ("/a", json!({}), Ok(0)),
            ("/a", json!({"plan": "gold"}), Ok(1)),
            ("/a", json!({"plan": "gold", "tenant": "acme"}), Ok(2)),
            ("/a", json!({"plan": "gold", "tenant": "other"}), Ok(1)),
            ("/a", json!({"plan": "free"}), Ok(3)),
            ("/a", json!({"plan": "bronze"}), Ok(4)),
            ("/a", json!({"plan": null}), Ok(0)),
            ("/a", json!({"plan": ["free", "gold", "x"], "tenant": ["x", "acme"]}), Ok(2)),
            ("/a", json!(null), Ok(0)),
            ("GET /b", json!({"plan": "gold"}), Ok(5)),
            ("GET /b", json!({"plan": "free"}), none),
            ("PUT /b", json!({"plan": "gold"}), Ok(6)),
            ("DELETE /b", json!({"plan": "gold"}), Ok(7)),
            ("/c", json!({"plan": "gold"}), Ok(8)),
            ("/c", json!({}), none),
            ("/c", json!(null), none),
        ];
        for turn in 0..rows.len() {
            let order: Vec<usize> = (0..rows.len()).map(|at| (at + turn) % rows.len()).collect();
            let table = table(&order.iter().map(|at| rows[*at]).collect::<Vec<_>>());
            for (ask, claims, expected) in &asks {
                let first = found(&table, ask).unwrap();
                let chosen = table.choose(first, claims.as_object()).map(|at| order[at]);
                assert_eq!(chosen, *expected, "{ask} of {claims}, turned by {turn}");
            }
            let shared: Vec<usize> = table.all_shared().map(<[usize]>::len).collect();
            assert_eq!((shared.len(), shared.iter().sum::<usize>()), (3, 7), "turned by {turn}");
        }
        let table = table(&["/a", "@plan=gold /a", "@plan=free /a"]);
        let both = json!({"plan": ["free", "gold"]});
        let first = found(&table, "/a").unwrap();
        assert_eq!(table.choose(first, both.as_object()), Err(Unchosen::Several));
    }

    /// What a look-up costs does not grow with the routes: it visits no more nodes than the path has segments, twice.
    #[test]
    fn ten_thousand_routes_are_looked_up_in_as_many_steps_as_ten() {
        let visits = |many: usize| {
            let path = |at: usize| match at % 4 {
                0 => format!("/api/v{}/things{at}/{{id}}", at % 7),
                1 => format!("/api/v{}/things{at}/*", at % 7),
                2 => format!("/api/v{}/things{at}", at % 7),
                _ => format!("/api/{{version}}/things{at}/parts/{{part}}"),
            };
            let matchers = (0..many).map(|at| matcher(&path(at))).chain([matcher("/*")]).collect();
            let table = Table::new(matchers).unwrap();
            let (method, headers) = (Method::GET, HeaderMap::new());
            let visit = |at: usize| {
                let path =
                    path(at).replace("{id}", "1").replace("{version}", "v3").replace("{part}", "2").replace('*', "x");
                let asked = Asked { host: "a", path: &path, query: None, method: &method, headers: &headers };
                assert_eq!(table.find(&asked), Some(at), "{path}");
                let mut search = Search { table: &table, asked: &asked, best: usize::MAX, visited: 0 };
                search.visit(&table.any, segments(&path));
                search.visited
            };
            (0..many).map(visit).max().unwrap()
        };
        let (few, many) = (visits(10), visits(10_000));
        assert!(many <= few + 2 && many <= 12, "{few} steps of 10 routes, {many} of 10,000");
    }
}
