//! What Consul's answers say of themselves, and what lictor makes of that: an agent of our own says it, because Consul 1.8
//! cannot (ACL filtering is told since 1.11), or not at will. Nothing here is a Consul.

use std::time::Instant;

use lictor_testkit::{Backend, Sidecar, eventually_is};
use serde_json::Value as Json;

use crate::agent::{Agent, Asked, Said, index, list, of_agent, ok, status};
use crate::{caller, events};

const FILTERED: (&str, &str) = ("X-Consul-Results-Filtered-By-Acls", "true");

/// An answer with these headers, to whoever does not have this index; consistent reads get another one.
fn says(
    at: u64,
    headers: &[(&str, &str)],
    body: Vec<u8>,
    consistent: Said,
) -> impl Fn(&Asked) -> Said + Send + Sync + 'static {
    let mut all = vec![index(at)];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    move |asked| {
        if !asked.line.contains("/v1/health/service/") {
            return of_agent(asked);
        }
        if asked.parameter("consistent").is_some() {
            return consistent.clone();
        }
        if asked.parameter("index").is_some_and(|known| known == at.to_string()) {
            return Said::Hold;
        }
        Said::Answer { status: 200, headers: all.clone(), body: body.clone() }
    }
}

fn answer(at: u64, headers: &[(&str, &str)], body: Vec<u8>) -> Said {
    let mut all = vec![index(at)];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Said::Answer { status: 200, headers: all, body }
}

fn watch_index(lictor: &Sidecar) -> Json {
    lictor.page("/consul")["watches"][0]["index"].clone()
}

#[test]
fn what_acls_hide_is_not_dropped_and_what_they_show_is_heeded() {
    let backends = ["a", "b", "c"].map(Backend::start);
    for shown in [0, 1, 2] {
        let whole = list(&backends);
        let agent = Agent::saying(says(10, &[], whole.clone(), status(500, "nobody asks")));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 3);
        let part = list(&backends[..shown]);
        let consistent = answer(11, &[FILTERED], part.clone());
        agent.says(says(11, &[FILTERED], part.clone(), consistent));
        eventually_is("it is told", || events(&lictor, "acl_filtered"), |count| *count == 1);
        eventually_is("the answer was taken", || watch_index(&lictor), |at| *at == 11);
        assert_eq!(lictor.endpoints("users"), 3, "{shown} shown");
        // Again, and it is told once.
        agent.says(says(12, &[FILTERED], part.clone(), answer(12, &[FILTERED], part.clone())));
        eventually_is("the answer was taken", || watch_index(&lictor), |at| *at == 12);
        assert_eq!((lictor.endpoints("users"), events(&lictor, "acl_filtered")), (3, 1), "{shown} shown");
        // The same list by its own word.
        let two = list(&backends[..2]);
        agent.says(says(13, &[], two.clone(), answer(13, &[], two)));
        lictor.await_endpoints("users", 2);
        assert_eq!(events(&lictor, "acl_unfiltered"), 1);
    }
}

/// Each: the headers of an answer without one of three, what a consistent read says then, and how many are in use.
#[test]
fn an_answer_of_a_server_without_a_leader_takes_nobody_away_unless_it_is_confirmed() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let two = list(&backends[..2]);
    let no_leader = || status(500, "No cluster leader");
    let confirmed = || answer(11, &[], two.clone());
    let (leaderless, led) = (("X-Consul-Knownleader", "false"), ("X-Consul-Knownleader", "true"));
    let cases = [
        ("no word on it", vec![], no_leader(), 2),
        ("a leader", vec![led, ("X-Consul-Lastcontact", "9")], no_leader(), 2),
        ("none, nobody confirms", vec![leaderless, ("X-Consul-Lastcontact", "9")], no_leader(), 3),
        ("none, confirmed", vec![leaderless], confirmed(), 2),
        ("long out of touch, nobody confirms", vec![led, ("X-Consul-Lastcontact", "30000")], no_leader(), 3),
        ("long out of touch, confirmed", vec![led, ("X-Consul-Lastcontact", "30000")], confirmed(), 2),
        ("from a stream", vec![leaderless, ("X-Consul-Query-Backend", "streaming")], no_leader(), 2),
    ];
    for (name, headers, consistent, expected) in cases {
        let agent = Agent::saying(says(10, &[], list(&backends), no_leader()));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 3);
        let since = Instant::now();
        agent.says(says(11, &headers, two.clone(), consistent));
        if expected == 2 {
            lictor.await_endpoints("users", 2);
            continue;
        }
        eventually_is("it is asked and asked again", || agent.queries(since, "consistent"), |count| *count >= 2);
        assert_eq!(lictor.endpoints("users"), 3, "{name}");
    }
}

#[test]
fn a_tag_that_vanishes_is_asked_about_again_before_its_route_goes() {
    const THERE: &str = r#"{"users": ["lictor.route=/api/*"]}"#;
    let backend = Backend::start("a");
    let instances = list([&backend]);
    let tags = |at: u64, now: &'static str, consistent: Said| {
        let instances = instances.clone();
        move |asked: &Asked| {
            let is_about_tags = asked.line.contains("/v1/catalog/services");
            if !is_about_tags && !asked.line.contains("/v1/health/service/") {
                return of_agent(asked);
            }
            if is_about_tags && asked.parameter("consistent").is_some() {
                return consistent.clone();
            }
            if asked.parameter("index").is_some_and(|known| known == at.to_string()) {
                return Said::Hold;
            }
            ok(at, if is_about_tags { now.into() } else { instances.clone() })
        }
    };
    let agent = Agent::saying(tags(10, THERE, status(500, "nobody asks")));
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{address: '{}'}}\ngateway: {{listen: '127.0.0.1:0', from_consul: {{allow: {{users: /api/*}}}}, routes: [{{path: /told, respond: {{body: told}}}}]}}\n",
        agent.url()
    );
    let lictor = Sidecar::serve(lictor_testkit::lictor(), &yaml).up();
    let route = || lictor.get("gateway", "/api/x").status;
    eventually_is("it is a route", route, |status| *status == 200);
    let catalog = || lictor.page("/consul")["catalog"]["index"].clone();
    let is_confirmed = |line: &String| line.contains("/v1/catalog/services") && line.contains("consistent");
    for (at, consistent, taken) in
        [(11, ok(11, THERE), 11), (12, status(500, "No cluster leader"), 11), (13, ok(13, "{}"), 13)]
    {
        let since = Instant::now();
        agent.says(tags(at, "{}", consistent));
        eventually_is("it is asked about again", || agent.lines(since).iter().any(is_confirmed), |is| *is);
        if at == 13 {
            eventually_is("it is gone", route, |status| *status == 404);
        }
        eventually_is("what is known is of then", catalog, |index| *index == taken);
        assert_eq!(route(), if at == 13 { 404 } else { 200 }, "{at}");
    }
}

#[test]
fn an_answer_that_is_too_large_is_not_read_and_takes_nobody_away() {
    const MIB: usize = 1 << 20;
    let backends = ["a", "b"].map(Backend::start);
    let mut large = vec![b' '; 60 * MIB];
    large[0] = b'[';
    *large.last_mut().unwrap() = b']';
    let (head, chunk) = (
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: 11\r\nTransfer-Encoding: chunked\r\n\r\n[".to_vec(),
        [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat(),
    );
    let head = [&head[..head.len() - 1], b"1\r\n[\r\n"].concat();
    let cases: [(&str, Said); 2] =
        [("with a length", answer(11, &[], large)), ("without an end", Said::Endless(head, chunk))];
    for (name, said) in cases {
        let agent = Agent::saying(says(10, &[], list(&backends[..1]), status(500, "")));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 1);
        let before = lictor.resident();
        let script = said.clone();
        agent.says(
            move |asked| if asked.line.contains("/v1/health/service/") { script.clone() } else { of_agent(asked) },
        );
        let error = || lictor.page("/consul")["watches"][0]["last_error"].as_str().unwrap_or_default().to_owned();
        eventually_is("it is told", error, |error| error.contains("larger than 32 MiB"));
        eventually_is(
            "twice",
            || lictor.metric("lictor_consul_errors_total", &[("kind", "too_large")]),
            |count| *count >= 2.0,
        );
        assert_eq!(lictor.endpoints("users"), 1, "{name}");
        let grown = lictor.resident().saturating_sub(before) / MIB as u64;
        assert!(grown < 128, "{name}: {grown} MiB more");
        agent.says(says(12, &[], list(&backends), status(500, "")));
        lictor.await_endpoints("users", 2);
    }
}
