//! Keys of `consul`, of a service's registration and of whom an upstream leads to: each makes the difference that its page
//! promises, in what an agent is asked and told, and in what becomes of its answers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lictor_testkit::{Authority, Backend, Consul, RawServer, Sidecar, eventually_is, free_ports, read_head};
use serde_json::{Value as Json, json};

use crate::agent::{Agent, list, of_agent, status, well};
use crate::{caller, events, is_up, lictor};

/// A sidecar of `users` and caller of `carts`, with this in `consul` and in the upstream.
fn of(agent: &str, consul: &str, upstream: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: 1\nconsul: {{address: '{agent}'{consul}}}\nlifecycle: {{start_timeout: 100ms}}\nupstreams: {{carts: {{listen: 0{upstream}}}}}\n"
    );
    Sidecar::serve(lictor(), &yaml).up()
}

/// Each: what `consul` says, what the upstream says, and what an agent is asked for then.
#[test]
fn an_agent_is_asked_for_what_is_configured() {
    let (register, health, kv) = ("PUT /v1/agent/service/register?", "GET /v1/health/service/carts?", "GET /v1/kv/");
    for (consul, upstream, calls) in [
        (", datacenter: dc9, kv: true", "", &[(health, "dc=dc9"), (kv, "dc=dc9")][..]),
        (", datacenter: dc9", ", datacenter: dc2", &[(health, "dc=dc2")]),
        (", namespace: team", "", &[(health, "ns=team"), (register, "ns=team")]),
        // Consul Enterprise, 1.11 and later.
        (
            ", partition: blue, kv: true",
            "",
            &[(health, "partition=blue"), (kv, "partition=blue"), (register, "partition=blue")],
        ),
        (", consistency: consistent", "", &[(health, "consistent")]),
        (", kv: {config: 'ours/of/${service}'}", "", &[("GET /v1/kv/ours/of/users?", "")]),
        ("", ", tag: [one, two]", &[(health, "tag=one&tag=two")]),
        ("", ", filter: 'Service.Meta.team == a'", &[(health, "filter=Service.Meta.team")]),
        ("", ", failover: [{datacenter: dc3}]", &[(health, "dc=dc3")]),
        ("", ", failover: [{tag: old}]", &[(health, "tag=old")]),
        ("", ", failover: [{filter: 'Service.Meta.team == b'}]", &[(health, "filter=Service.Meta.team")]),
        ("", ", failover: [{service: baskets}]", &[("GET /v1/health/service/baskets?", "")]),
        ("", ", failover: [{query: nearest}]", &[("GET /v1/query/nearest/execute", "")]),
    ] {
        let agent = Agent::saying(well(5, b"[]".to_vec()));
        let began = Instant::now();
        let _lictor = of(&agent.url(), consul, upstream);
        for (path, parameter) in calls {
            let asked = || agent.lines(began).into_iter().filter(|line| line.starts_with(path)).collect();
            eventually_is(&format!("{consul}{upstream}: {path}{parameter}"), asked, |lines: &Vec<String>| {
                lines.iter().any(|line| line.contains(parameter))
            });
        }
    }
}

/// The state of each endpoint of `users`.
fn states(lictor: &Sidecar) -> Vec<String> {
    let page = lictor.page("/endpoints/users");
    let endpoints = page["users"]["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["state"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A well agent with ever fewer of these; consistent reads say the same.
fn shrinking(guard: &str, backends: &[Backend], counts: &[usize]) -> (Agent, Sidecar, Instant) {
    let agent = Agent::saying(well(5, list(backends)));
    let lictor = caller(&agent.url(), &format!(", guard: {{{guard}}}"));
    lictor.await_endpoints("users", backends.len());
    let began = Instant::now();
    for (at, count) in (6..).zip(counts) {
        agent.says(well(at, list(&backends[..*count])));
        let index = || lictor.page("/consul")["watches"][0]["index"].clone();
        eventually_is("it is taken", index, |index| *index == at);
    }
    (agent, lictor, began)
}

#[test]
fn guard_says_when_a_smaller_answer_is_confirmed_first() {
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    for (guard, counts, is_confirmed) in [
        ("max_removal: 50%", &[3][..], false),
        ("max_removal: 20%", &[3], true),
        ("max_removal: 50%", &[1], true),
        ("max_removal: 90%", &[1], false),
        ("max_removal: 50%, within: 10m", &[3, 2, 1], true),
        ("max_removal: 50%, within: 1ms", &[3, 2, 1], false),
    ] {
        let (agent, _lictor, began) = shrinking(guard, &backends, counts);
        assert_eq!(agent.queries(began, "consistent") > 0, is_confirmed, "{guard} {counts:?}");
    }
}

#[test]
fn guard_says_whether_and_how_long_those_are_kept_who_are_gone() {
    let backends = ["a", "b"].map(Backend::start);
    for (guard, then) in [
        ("on_empty: keep, keep_for: 10m", &["suspect", "suspect"][..]),
        ("on_empty: keep, keep_for: 300ms", &[]),
        ("on_empty: drop, keep_for: 10m", &[]),
    ] {
        let (_agent, lictor, _) = shrinking(guard, &backends, &[0]);
        eventually_is(guard, || states(&lictor), |states| states == then);
        assert_eq!(events(&lictor, "empty_kept"), usize::from(guard.contains("keep,")), "{guard}");
    }
}

#[test]
fn guard_damping_says_who_comes_and_goes_too_often() {
    let backends = ["a", "b"].map(Backend::start);
    for (damping, states_are) in [
        ("{losses: 1, within: 10m}", ["healthy", "flapping"]),
        ("{losses: 2, within: 10m}", ["healthy", "healthy"]),
        ("{losses: 1, within: 300ms}", ["healthy", "healthy"]),
        ("off", ["healthy", "healthy"]),
    ] {
        let (_agent, lictor, _) = shrinking(&format!("damping: {damping}"), &backends, &[1, 2]);
        eventually_is(damping, || states(&lictor), |states| *states == states_are);
    }
}

#[test]
fn max_stale_says_when_old_answers_are_warned_about() {
    let backend = Backend::start("a");
    for (max_stale, told) in [("300ms", 1), ("10m", 0)] {
        let agent = Agent::saying(well(5, list([&backend])));
        let lictor = caller(&agent.url(), &format!(", max_stale: {max_stale}"));
        lictor.await_endpoints("users", 1);
        agent.says(|_| status(500, "No cluster leader"));
        let away = Instant::now();
        let asked = || (agent.queries(away, "/v1/health/service/users"), events(&lictor, "stale"));
        eventually_is("it is asked again and again", asked, |(count, stale)| *count >= 8 && *stale >= told);
        assert_eq!((events(&lictor, "stale"), lictor.endpoints("users")), (told, 1), "{max_stale}");
    }
}

#[test]
fn snapshot_max_age_says_what_is_too_old_to_start_with() {
    let backend = Backend::start("a");
    for (max_age, endpoints) in [("24h", 1), ("1ms", 0)] {
        let file = std::env::temp_dir().join(format!("lictor-keys-{}-{max_age}", std::process::id()));
        let agent = Agent::saying(well(5, list([&backend])));
        let snapshot = format!(", snapshot: {{path: '{}', max_age: {max_age}}}", file.display());
        let start = |agent: &str| {
            let yaml = format!(
                "registration: off\nservice: orders\nconsul: {{address: '{agent}'{snapshot}}}\nlifecycle: {{start_timeout: 100ms}}\nupstreams: {{users: 0}}\n"
            );
            Sidecar::serve(lictor(), &yaml).up()
        };
        let mut first = start(&agent.url());
        first.await_endpoints("users", 1);
        assert!(first.terminate().success());
        let second = start("http://127.0.0.1:1");
        assert_eq!(second.endpoints("users"), endpoints, "{max_age}");
        let refused = second.page("/consul")["snapshot"]["refused"].to_string();
        assert_eq!(refused.contains("consul.snapshot.max_age"), endpoints == 0, "{refused}");
        let _ = std::fs::remove_file(&file);
    }
}

/// An agent over TLS, with a certificate for `agent.internal` and this machine, or for the former alone.
fn secure(authority: &Authority, names: &[&str], asks: bool, instances: Vec<u8>) -> RawServer {
    let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: {}\r\n\r\n", instances.len());
    authority.server(&authority.issue("agent", names), &[], asks, move |mut stream| {
        loop {
            let asked = read_head(&mut stream);
            if asked.contains("index=5") {
                read_head(&mut stream); // who has this index waits
                return;
            }
            if asked.is_empty() || stream.write_all(&[head.as_bytes(), &instances].concat()).is_err() {
                return;
            }
        }
    })
}

fn folder_of(name: &str, file: &Path) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("lictor-keys-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(file, folder.join("ca.pem")).unwrap();
    folder
}

#[test]
fn an_agent_over_tls_is_believed_and_believes_as_configured() {
    let (ours, theirs, backend) = (Authority::new(), Authority::new(), Backend::start("a"));
    let (good, bad) = (folder_of("ours", &ours.ca()), folder_of("theirs", &theirs.ca()));
    let local = ["127.0.0.1", "agent.internal"];
    let (any, named) = (&local[..], &local[1..]);
    let (ca, folder, strangers) = (ours.ca(), good.display(), bad.display());
    let ca = ca.display();
    let me = ours.issue("orders", &["orders"]);
    let identity = format!("client_cert: '{}', client_key: '{}'", me.cert.display(), me.key.display());
    for (tls, names, asks, is_there) in [
        (format!("ssl: true, ca_path: '{folder}'"), any, false, true),
        (format!("ssl: true, ca_path: '{strangers}'"), any, false, false),
        (format!("ssl: true, ca_file: '{ca}'"), any, false, true),
        (format!("ssl: false, ca_file: '{ca}'"), any, false, false),
        (format!("ssl: true, ca_path: '{strangers}', ssl_verify: false"), any, false, true),
        ("ssl: true, ssl_verify: false".to_owned(), any, false, true),
        (format!("ssl: true, ca_file: '{ca}'"), named, false, false),
        (format!("ssl: true, ca_file: '{ca}', server_name: agent.internal"), named, false, true),
        (format!("ssl: true, ca_file: '{ca}'"), any, true, false),
        (format!("ssl: true, ca_file: '{ca}', {identity}"), any, true, true),
    ] {
        let agent = secure(&ours, names, asks, list([&backend]));
        let yaml = format!(
            "registration: off\nconsul: {{address: '127.0.0.1:{}', {tls}}}\nlifecycle: {{start_timeout: 100ms}}\nupstreams: {{users: 0}}\n",
            agent.port()
        );
        let lictor = Sidecar::serve(lictor(), &yaml).up();
        if is_there {
            lictor.await_endpoints("users", 1);
        } else {
            agent.await_connections(2); // it was tried again
        }
        assert_eq!(lictor.endpoints("users"), usize::from(is_there), "{tls}");
        assert_eq!(is_up(&lictor), is_there, "{tls}");
    }
    for folder in [good, bad] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// What an agent is told of a sidecar with this registration.
fn told(app: u16, more: &str) -> Json {
    let agent = Agent::saying(of_agent);
    let yaml = format!("service: users\nport: {app}\nconsul: {{address: '{}'}}\n{more}\n", agent.url());
    let _lictor = Sidecar::serve(lictor(), &yaml).up();
    let registered = || serde_json::from_str(&agent.registered()).unwrap_or(Json::Null);
    eventually_is("it is registered", registered, |told| told["Name"] == "users")
}

#[test]
fn a_registration_says_what_is_configured() {
    let backend = Backend::start("a");
    let ([inbound], app) = (free_ports(), backend.port());
    let listen = format!("inbound: {{listen: {inbound}}}");
    for (advertise, listen, port) in [
        ("auto", listen.as_str(), inbound),
        ("inbound", &listen, inbound),
        ("app", &listen, app),
        ("auto", "", app),
        ("app", "", app),
    ] {
        let told = told(app, &format!("registration: {{advertise: {advertise}}}\n{listen}"));
        assert_eq!(told["Port"], port, "advertise: {advertise}, {listen:?}");
    }
    let details = "interval: 7s, timeout: 3s";
    let at = format!("127.0.0.1:{app}");
    for (check, expected) in [
        (format!("{{http: /up, {details}}}"), json!({ "HTTP": format!("http://{at}/up") })),
        (format!("{{tcp: true, {details}}}"), json!({ "TCP": at })),
        (format!("{{grpc: true, {details}}}"), json!({ "GRPC": at })),
        (format!("{{grpc: shop.Users, {details}}}"), json!({ "GRPC": format!("{at}/shop.Users") })),
    ] {
        for more in [
            format!("check: {check}\nregistration: {{deregister_after: 9m}}"),
            format!("registration: {{checks: [{check}], deregister_after: 9m}}"),
        ] {
            let told = told(app, &more);
            let check = &told["Checks"][0];
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(&check[key], value, "{more}: {told}");
            }
            let times = ["Interval", "Timeout", "DeregisterCriticalServiceAfter"].map(|key| check[key].clone());
            assert_eq!(times, ["7000ms", "3000ms", "540000ms"].map(Json::from), "{more}: {told}");
        }
    }
    let told = told(app, "registration: {checks: [{ttl: 30s, probe: /up}]}");
    assert_eq!(told["Checks"][0]["TTL"], "30000ms", "{told}");
}

/// Each: a check, and how the application can be such that it fails. Short and as a list.
#[test]
fn a_check_follows_the_application_by_the_way_that_is_configured() {
    let consul = Consul::dev();
    for check in ["tcp: true, interval: 200ms, timeout: 1s", "ttl: 3s", "ttl: 3s, probe: /up"] {
        for more in [format!("check: {{{check}}}"), format!("registration: {{checks: [{{{check}}}]}}")] {
            let backend = Backend::start("a");
            let (port, probes) = (backend.port(), check.contains("probe"));
            let yaml = format!("service: users\nport: {port}\nconsul: {{address: '{}'}}\n{more}\n", consul.url());
            let mut lictor = Sidecar::serve(lictor(), &yaml).up();
            let passing = || consul.passing("users").len();
            eventually_is(&format!("{more}: it passes"), passing, |count| *count == 1);
            if probes {
                assert!(backend.hits() > 0, "{more}");
                backend.answers(500);
            } else {
                assert_eq!(backend.hits(), 0, "{more}: nothing is asked");
                backend.kill();
            }
            eventually_is(&format!("{more}: it fails"), passing, |count| *count == 0);
            assert!(lictor.terminate().success());
        }
    }
}
