//! An agent that answers by script: what Consul 1.8 cannot be brought to say, or not at will. Nothing here is a Consul.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, Sidecar, eventually, eventually_is, get};
use serde_json::{Value as Json, json};

use crate::agent::{Agent, Asked, Said, entry, index, list, of_agent, ok, status, well};
use crate::{BURST, assert_back, caller, events, is_up, lictor, quiet, warnings};

/// A burst may be over then.
const SETTLED: Duration = Duration::from_secs(4);
/// What is counted after it.
const COUNTED: Duration = Duration::from_secs(6);

type Script = Box<dyn Fn(&Asked) -> Said + Send + Sync>;

/// What an agent says, and how lictor takes it.
struct Case {
    name: &'static str,
    script: Script,
    seen: Seen,
}

/// How lictor takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Consul is away, with errors of this kind.
    Away(&'static str),
    /// It says no, and is there.
    Refused,
    /// It is an answer like any other.
    Answer,
}

fn case(name: &'static str, seen: Seen, script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Case {
    Case { name, script: Box::new(script), seen }
}

/// Two backends that are there from the start, and one that comes when the agent is well again.
struct Three([Backend; 3]);

impl Three {
    fn start() -> Self {
        Self(["a", "b", "c"].map(Backend::start))
    }

    fn two(&self) -> Vec<u8> {
        list(&self.0[..2])
    }

    fn all(&self) -> Vec<u8> {
        list(&self.0)
    }
}

/// Runs all of them side by side, each against a lictor of its own.
fn check(cases: Vec<Case>, act: impl Fn(Case) + Sync) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let act = &act;
        let running: Vec<_> = cases.into_iter().map(|case| (case.name, scope.spawn(move || act(case)))).collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "see above: {failed:?}");
}

/// Panics when these queries are more than one a second, or more than a burst before.
fn assert_calm(name: &str, agent: &Agent, what: &str) {
    let began = Instant::now();
    quiet(SETTLED);
    let (settled, burst) = (Instant::now(), agent.queries(began, what));
    quiet(COUNTED);
    let queries = agent.queries(settled, what);
    assert!(burst <= BURST + SETTLED.as_secs() as usize, "{name}: {burst} queries in the first {SETTLED:?}");
    assert!(queries <= COUNTED.as_secs() as usize + 1, "{name}: {queries} queries in {COUNTED:?}");
}

/// Errors: an agent that says no, or nothing that makes sense.
fn nonsense() -> Vec<Case> {
    let two_less = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nContent-Length: {}\r\n\r\n{body}", body.len() + 2)
    };
    let short = two_less("[{\"Node\":").into_bytes();
    vec![
        case("500", Seen::Away("status"), |_| status(500, "No cluster leader")),
        case("503 of a server that limits (1.15)", Seen::Away("status"), |_| status(503, "rate limit exceeded")),
        case("429 of a server that limits (1.15)", Seen::Away("rate_limited"), |_| status(429, "rate limit exceeded")),
        case("429 of an agent with too many connections (1.9)", Seen::Away("rate_limited"), |_| {
            let text = "Your IP is issuing too many concurrent connections, please rate limit your calls\n";
            Said::Bytes(format!("HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\r\n{text}").into_bytes())
        }),
        case("closed without a word", Seen::Away("broken"), |_| Said::Bytes(Vec::new())),
        case("a body that is too short", Seen::Away("broken"), move |_| Said::Bytes(short.clone())),
        case("not HTTP", Seen::Away("broken"), |_| Said::Bytes(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec())),
        case("JSON that ends too soon", Seen::Away("decode"), |_| ok(9, "[{\"Node\":{")),
        case("JSON of something else", Seen::Away("decode"), |_| ok(9, "{\"errors\":[]}")),
        case("null", Seen::Away("decode"), |_| ok(9, "null")),
        case("an empty body", Seen::Away("decode"), |_| ok(9, "")),
        case("a page for people", Seen::Away("decode"), |_| ok(9, "<html>Please log in</html>")),
        case("a redirect", Seen::Refused, |_| status(301, "elsewhere")),
    ]
}

#[test]
fn nonsense_is_no_answer_no_busy_loop_and_no_flood_and_is_over_within_two_seconds() {
    check(nonsense(), |case| {
        let backends = Three::start();
        let agent = Agent::saying(well(5, backends.two()));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 2);
        let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 20);

        let script = case.script;
        agent.says(move |asked| script(asked));
        assert_calm(case.name, &agent, "/v1/health/service/users");
        assert_seen(case.name, &lictor, case.seen);
        assert_eq!(lictor.endpoints("users"), 2, "{}: the last endpoints stay", case.name);

        agent.says(well(8, backends.all()));
        let back = Instant::now();
        lictor.await_endpoints("users", 3);
        assert_back(case.name, back);
        assert!(is_up(&lictor), "{}", case.name);
        assert_eq!(lictor.page("/consul")["watches"][0]["last_error"], Json::Null, "{}", case.name);
        let kinds = ["consul_lost", "consul_back", "watch_refused", "watch_well"];
        let wanted = if case.seen == Seen::Refused { [0, 0, 1, 1] } else { [1, 1, 0, 0] };
        eventually_is(case.name, || kinds.map(|kind| events(&lictor, kind)), |told| *told == wanted);
        assert_eq!(warnings(&lictor).len(), 1, "{}: {:?}", case.name, warnings(&lictor));
        load.finish().assert_flawless();
        assert!(lictor.resident() < 200 << 20, "{}: {} bytes", case.name, lictor.resident());
    });
}

/// The state is on the page, in the metrics and, once, in the log.
fn assert_seen(name: &str, lictor: &Sidecar, seen: Seen) {
    let (kind, event, is_away) = match seen {
        Seen::Away(kind) => (kind, "consul_lost", true),
        Seen::Refused => ("status", "watch_refused", false),
        Seen::Answer => return,
    };
    let page = lictor.page("/consul");
    assert_eq!(page["up"], !is_away, "{name}: {page}");
    assert_eq!(is_up(lictor), !is_away, "{name}");
    assert!(page["watches"][0]["last_error"].is_string(), "{name}: {page}");
    assert!(page["errors"][kind].as_u64().unwrap_or(0) > 0, "{name}: {page}");
    assert!(lictor.metric("lictor_consul_errors_total", &[("kind", kind)]) > 0.0, "{name}: {page}");
    assert_eq!(events(lictor, event), 1, "{name}");
}

#[test]
fn an_agent_that_refuses_or_breaks_everything_is_not_asked_by_the_registration_in_a_loop_either() {
    check(nonsense(), |case| {
        let backend = Backend::start("a");
        let script = std::sync::Arc::new(case.script);
        let bad = || {
            let script = std::sync::Arc::clone(&script);
            move |asked: &Asked| script(asked)
        };
        let agent = Agent::saying(bad());
        let yaml = format!("service: users\nport: {}\nconsul: {{address: '{}'}}\n", backend.port(), agent.url());
        let lictor = Sidecar::serve(lictor(), &yaml).up();
        // `/v1/agent/self` and `/v1/agent/checks` have their own loops, of one query every five seconds.
        let calm = |outages: usize| {
            assert_calm(case.name, &agent, "/v1/agent/service/");
            assert!(warnings(&lictor).len() <= outages, "{}: {:?}", case.name, warnings(&lictor));
        };
        calm(1);
        agent.says(of_agent);
        let well = Instant::now();
        let is_registered = || lictor.metric("lictor_registration_state", &[("state", "registered")]) > 0.5;
        eventually_is("it is registered", is_registered, |is_registered| *is_registered);
        assert_back(case.name, well);
        agent.says(bad());
        calm(2);
        agent.says(|asked| {
            let looks = asked.line.starts_with("GET /v1/agent/service/") && asked.parameter("hash").is_none();
            if looks { status(404, "unknown service ID") } else { of_agent(asked) }
        });
        let back = Instant::now();
        let again = || agent.queries(back, "PUT /v1/agent/service/register");
        eventually_is("it is registered again", again, |count| *count > 0);
        assert_back(case.name, back);
    });
}

/// Indexes, as a broken proxy or a broken Consul may give them. Each answer comes at once.
fn indexes(body: Vec<u8>) -> Vec<Case> {
    let says = |header: Option<String>, body: &[u8]| {
        let headers = header.into_iter().map(|value| ("X-Consul-Index".to_owned(), value)).collect();
        Said::Answer { status: 200, headers, body: body.to_vec() }
    };
    let fixed = |name, value: Option<&'static str>| {
        let body = body.clone();
        case(name, Seen::Answer, move |_| says(value.map(str::to_owned), &body))
    };
    let counted = |name, of: fn(u64) -> u64| {
        let body = body.clone();
        case(name, Seen::Answer, move |asked| says(Some(of(asked.number).to_string()), &body))
    };
    vec![
        fixed("no index", None),
        fixed("0", Some("0")),
        fixed("always the same", Some("5")),
        fixed("the largest", Some("18446744073709551615")),
        fixed("larger than the largest", Some("18446744073709551616")),
        fixed("negative", Some("-1")),
        fixed("a word", Some("NaN")),
        counted("backwards", |number| 1_000_000 - number),
        counted("forwards, without news", |number| 10 + number),
        counted("to and fro", |number| if number % 2 == 0 { 9 } else { 6 }),
        counted("0 and the largest in turn", |number| if number % 2 == 0 { 0 } else { u64::MAX }),
    ]
}

#[test]
fn no_index_makes_a_busy_loop_or_empties_the_list() {
    let backends = Three::start();
    check(indexes(backends.two()), |case| {
        let agent = Agent::saying(well(5, backends.two()));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 2);
        let script = case.script;
        agent.says(move |asked| script(asked));
        assert_calm(case.name, &agent, "/v1/health/service/users");
        assert_eq!(lictor.endpoints("users"), 2, "{}", case.name);
        assert!(is_up(&lictor), "{}", case.name);
        assert_eq!(warnings(&lictor), Vec::<String>::new(), "{}", case.name);
        agent.says(well(8, backends.all()));
        let back = Instant::now();
        lictor.await_endpoints("users", 3);
        assert_back(case.name, back);
    });
}

#[test]
fn empty_and_partial_lists_of_a_server_that_replays_its_log_are_not_believed() {
    let backends = Three::start();
    let agent = Agent::saying(well(1118, backends.all()));
    let lictor = caller(&agent.url(), "");
    lictor.await_endpoints("users", 3);
    let load = Load::start(&lictor.address("users"), &[Method::GET], 50);
    let step = AtomicU64::new(0);
    let partial = list(&backends.0[..1]);
    agent.says(move |asked| match (asked.parameter("consistent"), step.fetch_add(1, Relaxed)) {
        (Some(_), _) => status(500, "No cluster leader"),
        (None, 0..2) => ok(73, "[]"),
        (None, now) => ok(231 + now, partial.clone()),
    });
    let began = Instant::now();
    eventually_is("it was asked to confirm", || agent.queries(began, "consistent"), |count| *count >= 2);
    assert_eq!(lictor.endpoints("users"), 3);
    assert_eq!(lictor.metric("lictor_upstream_endpoints", &[("state", "suspect")]) as u64, 0);
    let page = lictor.page("/consul");
    assert!(page["watches"][0]["last_error"].as_str().unwrap_or_default().contains("No cluster leader"), "{page}");
    agent.says(well(1120, backends.two()));
    let back = Instant::now();
    lictor.await_endpoints("users", 2);
    assert_back("what is confirmed is believed", back);
    load.finish().assert_flawless();
}

#[test]
fn one_watch_that_fails_while_consul_is_well_is_told_once() {
    let backends = Three::start();
    let agent = Agent::saying(well(5, backends.two()));
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nupstreams: {{users: 0, carts: 0}}\n",
        agent.url()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    lictor.await_endpoints("users", 2);
    let fine = well(5, backends.two());
    agent.says(move |asked| if asked.line.contains("/users") { ok(9, "[{") } else { fine(asked) });
    eventually_is("it is told", || events(&lictor, "watch_failing"), |count| *count == 1);
    assert!(is_up(&lictor), "Consul is not away");
    let errors = || lictor.metric("lictor_consul_errors_total", &[("kind", "decode")]);
    eventually_is("it goes on", errors, |count| *count >= 6.0);
    assert_eq!(warnings(&lictor).len(), 1, "{:?}", warnings(&lictor));
    agent.says(well(8, backends.all()));
    lictor.await_endpoints("users", 3);
    eventually_is("so is its end", || events(&lictor, "watch_well"), |count| *count == 1);
}

#[test]
fn ten_mebibytes_of_instances_are_taken_and_more_than_can_be_is_refused() {
    let backends = Three::start();
    let agent = Agent::saying(well(5, backends.two()));
    let lictor = caller(&agent.url(), "");
    lictor.await_endpoints("users", 2);
    let before = lictor.resident();
    let load = Load::start(&lictor.address("users"), &[Method::GET], 50);
    // A thousand instances with 10 KiB of metadata each; three of them pass.
    let fat: Vec<Json> = (0..1_000)
        .map(|number| {
            let mut entry = entry(&format!("users-{number}"), backends.0[number % 3].port());
            entry["Service"]["Meta"] = json!({ "notes": "x".repeat(10 << 10) });
            if number >= 3 {
                entry["Checks"][0]["Status"] = json!("critical");
            }
            entry
        })
        .collect();
    let body = Json::from(fat).to_string().into_bytes();
    assert!(body.len() > 10 << 20);
    agent.says(well(6, body));
    let began = Instant::now();
    lictor.await_endpoints("users", 3);
    println!(
        "1,000 instances in 10 MiB: {:?}, {} MiB more",
        began.elapsed(),
        lictor.resident().saturating_sub(before) >> 20
    );
    // Four times the limit of 32 MiB, all blanks but for the brackets: it would be an empty list.
    let huge = [b"[".to_vec(), vec![b' '; 128 << 20], b"]".to_vec()].concat();
    agent.says(move |_| ok(7, huge.clone()));
    let errors = || lictor.metric("lictor_consul_errors_total", &[("kind", "too_large")]);
    eventually_is("it is refused", errors, |count| *count >= 1.0);
    assert_eq!(lictor.endpoints("users"), 3);
    agent.says(well(8, backends.two()));
    lictor.await_endpoints("users", 2);
    load.finish().assert_flawless();
}

#[test]
fn headers_and_fields_of_newer_versions_are_understood_or_ignored() {
    let backends = Three::start();
    let newer = |id: &str, port: u16| {
        let mut entry = entry(id, port);
        // 1.11: partitions; 1.13: peers; 1.17: locality; 1.22: several ports; and what is not there yet.
        entry["Node"]["Partition"] = json!("default");
        entry["Node"]["Meta"] = json!({ "consul-version": "1.22.0", "consul-network-segment": "" });
        entry["Node"]["Locality"] = json!({ "Region": "eu-1", "Zone": "a" });
        entry["Service"]["Proxy"] = json!({ "Mode": "", "MeshGateway": {}, "Expose": {} });
        entry["Service"]["Connect"] = json!({ "PeerMeta": { "SNI": ["x"], "SpiffeID": null } });
        entry["Service"]["PeerName"] = json!("");
        entry["Service"]["Locality"] = Json::Null;
        entry["Service"]["Ports"] =
            json!([{ "Name": "http", "Port": port, "Default": true }, { "Name": "grpc", "Port": 1 }]);
        entry["Service"]["TaggedAddresses"] = json!({ "lan_ipv4": { "Address": "127.0.0.1", "Port": port } });
        entry["Checks"][0]["Type"] = json!("");
        entry["Checks"][0]["ExposedPort"] = json!(0);
        entry["Checks"][0]["Definition"] = json!({ "DisableRedirects": false, "OSService": "" });
        entry["SomethingOf2030"] = json!([1, { "a": null }]);
        entry
    };
    let body = |count: usize| {
        let entries = backends.0.iter().take(count).map(|backend| newer(backend.name(), backend.port()));
        Json::from(entries.collect::<Vec<_>>()).to_string().into_bytes()
    };
    let streaming = |at: u64, body: Vec<u8>| {
        // With the streaming backend (1.10) there is no KnownLeader and no LastContact; early ones said `false`.
        let headers = [
            ("X-Consul-Query-Backend", "streaming"),
            ("X-Consul-Knownleader", "false"),
            ("X-Consul-Default-Acl-Policy", "allow"),
            ("X-Consul-Results-Filtered-By-Acls", "true"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers: Vec<_> = headers.into_iter().chain([index(at)]).collect();
        move |asked: &Asked| {
            if asked.parameter("index").is_some_and(|known| known == at.to_string()) {
                return Said::Hold;
            }
            Said::Answer { status: 200, headers: headers.clone(), body: body.clone() }
        }
    };
    let agent = Agent::saying(streaming(5, body(2)));
    let lictor = caller(&agent.url(), "");
    lictor.await_endpoints("users", 2);
    assert_eq!(lictor.get("users", "/").status, 200);
    agent.says(streaming(6, body(3)));
    lictor.await_endpoints("users", 3);
    assert!(is_up(&lictor));
    assert_eq!(warnings(&lictor), Vec::<String>::new());
}

#[test]
fn rights_that_are_missing_are_told_as_older_and_newer_versions_show_them() {
    for (name, said) in [
        ("403 ACL not found (1.8)", status(403, "ACL not found")),
        (
            "403 Permission denied (1.16)",
            status(403, "Permission denied: token lacks permission 'service:read' on \"users\""),
        ),
        ("401 (1.15)", status(401, "Unauthorized")),
    ] {
        let backends = Three::start();
        let agent = Agent::saying(well(5, backends.two()));
        let lictor = caller(&agent.url(), "");
        lictor.await_endpoints("users", 2);
        agent.says(move |_| said.clone());
        eventually_is("the refusal is told", || events(&lictor, "watch_refused"), |count| *count == 1);
        assert!(lictor.metric("lictor_consul_errors_total", &[("kind", "denied")]) > 0.0, "{name}");
        assert!(is_up(&lictor), "{name}: a refusal is an answer");
        assert_eq!(lictor.endpoints("users"), 2, "{name}");
    }
    // An empty list is what a token without rights gets before 1.16.
    let agent = Agent::saying(|asked| match asked.parameter("index") {
        Some(_) => Said::Hold,
        None => Said::Answer {
            status: 200,
            headers: vec![index(5), ("X-Consul-Results-Filtered-By-Acls".to_owned(), "true".to_owned())],
            body: b"[]".to_vec(),
        },
    });
    let lictor = caller(&agent.url(), "");
    eventually_is("the token is named", || lictor.log(), |log| log.contains("the token needs service:read"));
    assert_eq!(lictor.get("users", "/").status, 503);
}

#[test]
fn an_answer_that_drips_is_given_up_and_costs_nobody_anything() {
    let backends = Three::start();
    let agent = Agent::saying(well(5, backends.two()));
    let lictor = caller(&agent.url(), ", wait: 1s");
    lictor.await_endpoints("users", 2);
    agent.says(|_| Said::Drip);
    let timeouts = || lictor.metric("lictor_consul_errors_total", &[]);
    eventually_is("it is given up", timeouts, |count| *count >= 1.0);
    assert_eq!(lictor.endpoints("users"), 2);
    assert_eq!(get(&lictor.address("users"), "/").unwrap().status, 200);
    agent.says(well(8, backends.all()));
    eventually("it is taken", || match lictor.endpoints("users") {
        3 => Ok(()),
        other => Err(other),
    });
}
