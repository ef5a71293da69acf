//! Which of many templates a path is for: a tree of segments. A literal comes before `*`, that before `**`, from the left;
//! a node is looked at once for a path, whatever that is.

use std::collections::HashMap;

use http::Method;

use super::template::{Segment, Template, decode, verb};

#[derive(Debug, Default)]
pub(super) struct Tree {
    literals: HashMap<Box<str>, Self>,
    any: Option<Box<Self>>,
    /// Whose path ends here.
    ends: Vec<Leaf>,
    /// Who takes what follows.
    rests: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    /// `None`: any.
    method: Option<Method>,
    verb: Option<Box<str>>,
    index: usize,
}

impl Tree {
    /// Gives this template a place, or says whose that is already.
    pub(super) fn insert(&mut self, template: &Template, method: Option<Method>, index: usize) -> Result<(), usize> {
        let mut node = self;
        let mut takes_rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(literal) => node = node.literals.entry(literal.clone()).or_default(),
                Segment::Any => node = node.any.get_or_insert_default(),
                Segment::Rest => takes_rest = true, // it is the last
            }
        }
        let leaves = if takes_rest { &mut node.rests } else { &mut node.ends };
        if let Some(other) = leaves.iter().find(|leaf| leaf.method == method && leaf.verb == template.verb) {
            return Err(other.index);
        }
        leaves.push(Leaf { method, verb: template.verb.clone(), index });
        Ok(())
    }

    /// The index of the template that a path is for, as that was read, and its segments.
    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(usize, Vec<&'p str>)> {
        let (bare, verb) = verb(path.trim_end_matches('/'));
        let of = |path: &'p str, verb: Option<&str>| {
            let segments: Vec<&str> = super::super::path::segments(path).collect();
            self.visit(method, verb, &segments).map(|index| (index, segments))
        };
        // A verb is the template's to know: a segment may have a `:` of its own.
        verb.and_then(|verb| of(bare, Some(verb))).or_else(|| of(path, None))
    }

    fn visit(&self, method: &Method, verb: Option<&str>, segments: &[&str]) -> Option<usize> {
        #[cfg(test)]
        tests::VISITS.set(tests::VISITS.get() + 1);
        let Some((first, after)) = segments.split_first() else {
            return leaf(&self.ends, method, verb).or_else(|| leaf(&self.rests, method, verb));
        };
        let literal = self.literals.get(&*decode(first, false)).and_then(|node| node.visit(method, verb, after));
        literal
            .or_else(|| self.any.as_ref().and_then(|node| node.visit(method, verb, after)))
            .or_else(|| leaf(&self.rests, method, verb))
    }
}

fn leaf(leaves: &[Leaf], method: &Method, verb: Option<&str>) -> Option<usize> {
    let mut own = leaves.iter().filter(|leaf| leaf.verb.as_deref() == verb);
    // A tunnel is no call (RFC 8441).
    let of_all = own.clone().find(|leaf| leaf.method.is_none() && *method != Method::CONNECT);
    own.find(|leaf| leaf.method.as_ref() == Some(method)).or(of_all).map(|leaf| leaf.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        pub(super) static VISITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    const TEMPLATES: [(&str, &str); 11] = [
        ("GET", "/v1/shelves"),
        ("GET", "/v1/{name=shelves/*}"),
        ("DELETE", "/v1/{name=shelves/*}"),
        ("GET", "/v1/shelves/main"),
        ("POST", "/v1/{name=shelves/*}:move"),
        ("GET", "/v1/{name=**}"),
        ("*", "/v2/{a}"),
        ("POST", "/v2/{a}"),
        ("GET", "/v3/*/b"),
        ("GET", "/v3/a/{c}/d"),
        ("GET", "/v1/shelves:watch"),
    ];

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for (index, (method, template)) in TEMPLATES.iter().enumerate() {
            let method = (*method != "*").then(|| method.parse().unwrap());
            tree.insert(&Template::parse(template).unwrap(), method, index).unwrap();
        }
        tree
    }

    #[test]
    fn the_most_particular_template_is_the_one() {
        let tree = tree();
        for (method, path, expected) in [
            ("GET", "/v1/shelves", Some(0)),
            ("GET", "/v1/shelves/", Some(0)),
            ("GET", "/v1/shelves/1", Some(1)),
            ("GET", "/v1/%73helves/1", Some(1)),
            ("DELETE", "/v1/shelves/1", Some(2)),
            ("GET", "/v1/shelves/main", Some(3)),
            ("DELETE", "/v1/shelves/main", Some(2)),
            ("POST", "/v1/shelves/1:move", Some(4)),
            ("POST", "/v1/shelves/a:b:move", Some(4)),
            ("POST", "/v1/shelves/1:burn", None),
            ("POST", "/v1/shelves/1%3Amove", None),
            ("GET", "/v1/shelves/1:move", Some(1)),
            ("GET", "/v1/shelves:watch", Some(10)),
            ("GET", "/v1/shelves/1/2", Some(5)),
            ("GET", "/v1", Some(5)),
            ("POST", "/v1/shelves/1", None),
            ("get", "/v1/shelves", None),
            ("PUT", "/v2/x", Some(6)),
            ("POST", "/v2/x", Some(7)),
            ("CONNECT", "/v2/x", None),
            ("GET", "/v3/a/b", Some(8)),
            ("GET", "/v3/a/b/d", Some(9)),
            ("GET", "/v3/a/b/e", None),
            ("GET", "/", None),
            ("POST", "/library.v1.Library/GetShelf", None),
        ] {
            let found = tree.find(&method.parse().unwrap(), path).map(|(index, _)| index);
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn two_of_one_shape_clash() {
        for (method, template, with) in [
            (Some("GET"), "/v1/{other=shelves/*}", Some(1)),
            (Some("GET"), "/v1/shelves/*", Some(1)),
            (Some("PUT"), "/v1/shelves/*", None),
            (None, "/v1/shelves/*", None),
            (Some("GET"), "/v1/shelves/*:move", None),
            (Some("GET"), "/v1/**", Some(5)),
            (None, "/v2/*", Some(6)),
        ] {
            let inserted = tree().insert(&Template::parse(template).unwrap(), method.map(|it| it.parse().unwrap()), 99);
            assert_eq!(inserted.err(), with, "{method:?} {template}");
        }
    }

    #[test]
    fn a_hostile_path_costs_no_more_than_the_tree_has() {
        // Each node of ten levels has a literal and `*`, and all of them take part in a path that none is for.
        let mut tree = Tree::default();
        for number in 0..1 << 10 {
            let segment = |level: usize| if number >> level & 1 == 0 { "a" } else { "*" };
            let template = format!("/{}/x", (0..10).map(segment).collect::<Vec<_>>().join("/"));
            tree.insert(&Template::parse(&template).unwrap(), None, number).unwrap();
        }
        let visits = |path: &str| {
            VISITS.set(0);
            let found = tree.find(&Method::GET, path).map(|(index, _)| index);
            (found, VISITS.get())
        };
        let nodes = (1 << 11) - 1 + (1 << 10);
        for (path, expected) in [
            ("/a".repeat(10) + "/x", Some(0)),
            ("/b".repeat(10) + "/x", Some(1023)),
            ("/a".repeat(10) + "/y", None),
            ("/a".repeat(11), None),
            ("/a".repeat(32_000), None),
            ("/a".repeat(10) + "/x:v", None),
        ] {
            let (found, visits) = visits(&path);
            assert_eq!(found, expected);
            assert!(visits <= 2 * nodes, "{visits} of {nodes}"); // with a verb, and without
        }
    }
}
