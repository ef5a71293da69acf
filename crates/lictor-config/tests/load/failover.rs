//! `failover` and `query`: whom an upstream leads to, and where else.

use lictor_config::Query;

use super::{bad, good};

fn queries(upstream: &str) -> Vec<String> {
    let config = good(&format!("registration: off\nupstreams:\n  users: {upstream}\n"));
    config.upstreams[0].queries().map(Query::to_string).collect()
}

#[test]
fn each_tier_says_what_differs_from_the_upstream() {
    for (upstream, expected) in [
        ("{listen: 1}", vec!["users"]),
        ("{listen: 1, failover: dc2}", vec!["users", "users in dc2"]),
        ("{listen: 1, failover: [dc2, dc3]}", vec!["users", "users in dc2", "users in dc3"]),
        ("{listen: 1, service: people, tag: a, failover: [dc2]}", vec!["people (tag a)", "people (tag a) in dc2"]),
        ("{listen: 1, tag: a, failover: [{tag: b}]}", vec!["users (tag a)", "users (tag b)"]),
        ("{listen: 1, tag: a, failover: [{service: old}]}", vec!["users (tag a)", "old"]),
        ("{listen: 1, tag: a, failover: [{filter: X}]}", vec!["users (tag a)", "users (X)"]),
        (
            "{listen: 1, version: v2, failover: [{version: v1, datacenter: dc2}, {service: users}]}",
            vec!["users (Service.Meta.version == \"v2\")", "users (Service.Meta.version == \"v1\") in dc2", "users"],
        ),
        ("{listen: 1, datacenter: dc2, failover: [{service: old}]}", vec!["users in dc2", "old in dc2"]),
        ("{listen: 1, query: q, failover: [dc2]}", vec!["the query q", "the query q in dc2"]),
        ("{listen: 1, failover: [{query: q, datacenter: dc2}]}", vec!["users", "the query q in dc2"]),
        ("{listen: 1, query: q}", vec!["the query q"]),
        ("{listen: 1, static: ['127.0.0.1:1'], failover: [{service: users}]}", vec!["users"]),
    ] {
        assert_eq!(queries(upstream), expected, "{upstream}");
    }
}

#[test]
fn what_leads_nowhere_else_is_refused() {
    for (upstream, expected) in [
        ("{listen: 1, failover: [{service: users}]}", "this is where it goes already"),
        ("{listen: 1, failover: [dc2, {datacenter: dc2}]}", "this is where it goes already"),
        ("{listen: 1, failover: [{}]}", "this is where it goes already"),
        ("{listen: 1, near: _agent}", "`near` is not in this version yet"),
        ("{listen: 1, static: ['127.0.0.1:1'], failover: [dc2]}", "the endpoints are static"),
        ("{listen: 1, static: ['127.0.0.1:1'], query: q}", "`query` asks Consul, but the endpoints are static"),
        ("{listen: 1, query: q, tag: a}", "`tag` is for the prepared query to say"),
        ("{listen: 1, query: q, service: a}", "`service` is for the prepared query to say"),
        ("{listen: 1, failover: [{query: q, version: v1}]}", "`version` is for the prepared query to say"),
        ("{listen: 1, failover: [{near: _agent}]}", "`near` is not in this version yet"),
        ("{listen: 1, failover: ['']}", "must not be empty"),
        ("{listen: 1, failover: {service: old}}", "expected a list"),
        ("{listen: 1, failover: [a, b, c, d, e, f, g, h, i]}", "at most 8"),
    ] {
        let said = bad(&format!("registration: off\nupstreams:\n  users: {upstream}\n")).to_string();
        assert!(said.contains(expected), "{upstream}: {said}");
    }
}
