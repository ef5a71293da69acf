//! `lictor doctor`: each code is found where it is true, on a real Consul or, where a real one cannot be made to say it,
//! from a scripted answer. Every test compares all that was found, so a code that appears without cause fails one too.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use lictor_testkit::{
    Authority, Backend, Consul, MANAGEMENT, RawServer, Sidecar, eventually_is, free_ports, read_head,
};
use serde_json::{Value as Json, json};

use crate::LICTOR;

/// What was found.
#[derive(Debug)]
struct Seen {
    page: Json,
    exit: i32,
}

impl Seen {
    /// The last three digits of the codes, in order, each once.
    fn codes(&self) -> Vec<&str> {
        let findings = self.page["findings"].as_array().into_iter().flatten();
        let mut codes: Vec<&str> = findings.map(|it| &it["code"].as_str().unwrap()["LIC-C".len()..]).collect();
        codes.dedup();
        codes
    }

    #[track_caller]
    fn is(&self, codes: &[&str]) {
        assert_eq!(self.codes(), codes, "{:#}", self.page);
    }

    fn says(&self, words: &str) -> bool {
        self.page.to_string().contains(words)
    }
}

/// Runs it through a shell line that ends in `exec "$@"`.
fn run(shell: &str, words: &[&str], yaml: &str, env: &[(&str, &str)]) -> Output {
    let file = std::env::temp_dir().join(format!("lictor-doctor-{}-{}.yaml", std::process::id(), free_ports::<1>()[0]));
    std::fs::write(&file, yaml).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh", LICTOR]).args(words).arg("-c").arg(&file);
    command.args(["--set", "admin.listen=127.0.0.1:0"]).env_clear().env("PATH", std::env::var("PATH").unwrap());
    let output = command.envs(env.iter().copied()).output().unwrap();
    std::fs::remove_file(file).unwrap();
    output
}

fn doctor_in(shell: &str, yaml: &str, env: &[(&str, &str)]) -> Seen {
    let output = run(shell, &["doctor", "--json"], yaml, env);
    let page = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    Seen { page, exit: output.status.code().unwrap() }
}

fn doctor(yaml: &str) -> Seen {
    doctor_in("exec \"$@\"", yaml, &[])
}

/// A caller of `users` that is not registered.
fn caller(consul: &str, upstream: &str) -> Seen {
    doctor(&format!("registration: off\nconsul: {{address: '{consul}'}}\nupstreams: {{users: {upstream}}}\n"))
}

/// A service with a check, without upstreams.
fn service(consul: &Consul, port: u16, more: &str) -> Seen {
    doctor(&format!("service: orders\nport: {port}\nconsul: {{address: '{}'}}\n{more}", consul.url()))
}

/// Registers an instance, and waits until the catalog has it.
fn register(consul: &Consul, name: &str, id: &str, port: u16) {
    consul.register(name, id, port);
    eventually_is("the catalog has it", || consul.passing(name), |ids| ids.iter().any(|known| known == id));
}

/// An agent that answers what the script says for a path; the rest is `[]`.
fn scripted(script: impl Fn(&str) -> Option<(u16, &'static str, &'static str)> + Send + Sync + 'static) -> RawServer {
    RawServer::start(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            let head = head.to_lowercase();
            let Some(path) = head.split(' ').nth(1) else { return };
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let usual = if path.starts_with("/v1/status/leader") { "\"10.0.0.1:8300\"" } else { "[]" };
            let (status, header, body) = script(path).unwrap_or((200, "", usual));
            let answer = format!("HTTP/1.1 {status} Scripted\r\n{header}Content-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let consul = Consul::dev();
    let (app, users) = (Backend::start("app"), Backend::start("a"));
    register(&consul, "users", "a", users.port());
    let yaml = format!(
        "service: orders\nport: {}\ncheck: /health\nconsul: {{address: '{}', kv: true}}\nupstreams: {{users: 0}}\n",
        app.port(),
        consul.url()
    );
    let seen = doctor(&yaml);
    seen.is(&[]);
    assert_eq!(seen.exit, 0);
    assert_eq!(seen.page["consul"]["address"], consul.url().as_str());
    assert!(seen.page["consul"]["version"].as_str().is_some_and(|version| version.contains('.')), "{:#}", seen.page);
    assert!(consul.json("/v1/agent/services").as_object().unwrap().keys().all(|id| id == "a"), "nothing is registered");
    let live = run("exec \"$@\"", &["check", "--live"], &yaml, &[]);
    let said = String::from_utf8(live.stdout).unwrap();
    assert!(live.status.success() && said.contains("0 errors, 0 warnings, 0 notes"), "{said}");
}

#[test]
fn errors_and_warnings_are_exit_codes() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    let warning = service(&consul, app.port(), "check: {http: /health, timeout: 11s}\n");
    assert_eq!((warning.exit, &warning.page["warnings"]), (1, &json!(1)), "{warning:?}");
    assert_eq!(caller(&consul.url(), "0").exit, 2);
}

#[test]
fn an_agent_that_is_not_there() {
    let [port] = free_ports();
    caller(&format!("http://127.0.0.1:{port}"), "0").is(&["001"]);
}

#[test]
fn a_cluster_without_leader() {
    let empty = scripted(|path| path.starts_with("/v1/status/leader").then_some((200, "", "\"\"")));
    caller(&format!("http://127.0.0.1:{}", empty.port()), "0").is(&["002"]);
    let error = scripted(|_| Some((500, "", "No cluster leader")));
    caller(&format!("http://127.0.0.1:{}", error.port()), "0").is(&["002"]);
}

#[test]
fn an_old_consul_with_another_clock_that_says_nothing_of_rights() {
    let agent = scripted(|path| match path {
        path if path.starts_with("/v1/status/leader") => {
            Some((200, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "\"10.0.0.1:8300\""))
        }
        "/v1/agent/self" => Some((200, "", r#"{"Config":{"Version":"1.6.10"}}"#)),
        "/v1/internal/acl/authorize" => Some((404, "", "no such endpoint")),
        _ => None,
    });
    let seen = caller(&format!("http://127.0.0.1:{}", agent.port()), "0");
    seen.is(&["201", "003", "007", "006"]);
    assert!(seen.says("this is Consul 1.6.10"), "{seen:?}");
}

#[test]
fn rights_that_a_token_lacks_are_named_as_rules() {
    let consul = Consul::with_acls();
    let app = Backend::start("a");
    let yaml = |token: &str| {
        format!(
            "service: orders\nport: {}\nconsul: {{address: '{}', token: '{token}', kv: true}}\nupstreams: {{users: 0}}\n\
             outbound: {{proxy: 0, allow: ['pay-*']}}\n",
            app.port(),
            consul.url()
        )
    };
    doctor(&yaml("99999999-2222-3333-4444-555555555555")).is(&["004"]);
    let anonymous = doctor(&yaml(""));
    anonymous.is(&["005"]);
    for rule in [
        "service \"orders\" { policy = \"write\" }",
        "service \"users\" { policy = \"read\" }",
        "service_prefix \"pay-\" { policy = \"read\" }",
        "node_prefix \"\" { policy = \"read\" }",
        "key \"lictor/orders/config\" { policy = \"read\" }",
        "key_prefix \"lictor/orders/status/\" { policy = \"write\" }",
    ] {
        let found = anonymous.page["findings"].as_array().unwrap().iter();
        assert_eq!(found.filter(|it| it["fix"].as_str().unwrap().ends_with(rule)).count(), 1, "{rule}: {anonymous:?}");
    }
    assert_eq!(anonymous.page["errors"], 6);
    let gateway = doctor(&(yaml("") + "gateway: {listen: '127.0.0.1:0', routes: {/*: users}}\n"));
    let rule = "key \"lictor/orders/maintenance\" { policy = \"read\" }";
    let found = gateway.page["findings"].as_array().unwrap().iter();
    assert_eq!(found.filter(|it| it["fix"].as_str().unwrap().ends_with(rule)).count(), 1, "{gateway:?}");
    assert_eq!(gateway.page["errors"], 7, "{gateway:?}");
    doctor(&yaml(MANAGEMENT)).is(&["201"]);
    let everything_but_kv = "service_prefix \"\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" }";
    consul.put("/v1/acl/policy", &json!({ "Name": "some", "Rules": everything_but_kv }));
    let secret = "77777777-2222-3333-4444-555555555555";
    consul.put("/v1/acl/token", &json!({ "SecretID": secret, "Policies": [{ "Name": "some" }] }));
    let some = doctor(&yaml(secret));
    assert_eq!(
        some.page["findings"].as_array().unwrap().iter().filter(|it| it["code"] == "LIC-C005").count(),
        2,
        "{some:?}"
    );
}

#[test]
fn more_watches_than_the_agent_takes() {
    let consul = Consul::dev_with("limits { http_max_conns_per_client = 5 }\n");
    let users = Backend::start("a");
    for name in ["a", "b", "c"] {
        register(&consul, name, name, users.port());
    }
    let ask = |upstreams: &str| {
        doctor(&format!("registration: off\nconsul: {{address: '{}'}}\nupstreams: {upstreams}\n", consul.url()))
    };
    ask("{a: 0, b: 0}").is(&[]);
    ask("{a: 0, b: 0, again: {service: b}}").is(&[]);
    ask("{a: 0, b: 0, c: 0}").is(&["008"]);
}

#[test]
fn what_the_file_says_wrong() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    service(&consul, app.port(), "upstreems: {}\n").is(&["100"]);
    service(&consul, app.port(), "registration: {deregister_after: 30s}\n").is(&["101"]);
    service(&consul, app.port(), "defaults: {timeout: 1s, per_try_timeout: 5s}\n").is(&["103"]);
}

#[test]
fn checks_that_cannot_work() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    let [nobody] = free_ports();
    let refused = service(&consul, nobody, "check: /health\n");
    refused.is(&["105"]);
    assert!(refused.says("refused"), "{refused:?}");
    let unwell = RawServer::answering("HTTP/1.1 500 Unwell\r\nContent-Length: 0\r\n\r\n");
    let failing = service(&consul, unwell.port(), "check: /health\n");
    failing.is(&["105"]);
    assert!(failing.says("GET /health: 500"), "{failing:?}");
    service(&consul, app.port(), "check: /health\n").is(&[]);
    service(&consul, app.port(), "check: {http: /health, interval: 5s, timeout: 5s}\n").is(&["106"]);
    service(&consul, app.port(), "check: {http: /health, interval: 2m}\n").is(&["107"]);
    // A name that is not `localhost` is not known to be this machine.
    let remote = consul.url().replace("127.0.0.1", "127.1");
    let yaml = format!("service: orders\nport: {}\nconsul: {{address: '{remote}'}}\n", app.port());
    doctor(&yaml).is(&["104", "102"]);
    doctor(&format!("{yaml}registration: {{address: 192.0.2.1}}\n")).is(&["102"]);
}

#[test]
fn checks_that_lictor_runs_in_consuls_place() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    let [nobody, inbound] = free_ports();
    let yaml = |agent: &str, port: u16, check: &str| {
        format!(
            "service: orders\nport: {port}\nservice_token: secret-1\ninbound: {{listen: {inbound}}}\ncheck: {check}\n\
             registration: {{address: 192.0.2.1}}\nconsul: {{address: '{agent}'}}\n"
        )
    };
    let remote = consul.url().replace("127.0.0.1", "127.1");
    doctor(&yaml(&consul.url(), app.port(), "/health")).is(&[]);
    let seen = doctor(&yaml(&remote, app.port(), "/health"));
    seen.is(&["102", "109"]);
    assert!(seen.says("silent for 25s"), "{seen:?}");
    doctor(&yaml(&remote, nobody, "/health")).is(&["105", "102", "109"]);
    doctor(&yaml(&remote, app.port(), "{grpc: true}")).is(&["105", "102", "109"]);
    doctor(&yaml(&remote, app.port(), "{ttl: 30s, probe: /health}")).is(&["102"]);
    doctor(&yaml(&remote, nobody, "{ttl: 30s, probe: /health}")).is(&["105", "102"]);
}

#[test]
fn an_id_that_another_service_has() {
    let consul = Consul::dev();
    let app = Backend::start("a");
    register(&consul, "carts", "one", app.port());
    service(&consul, app.port(), "registration: {id: one}\n").is(&["108"]);
    register(&consul, "orders", "one", app.port());
    service(&consul, app.port(), "registration: {id: one}\n").is(&[]);
    register(&consul, "orders", "one", 1);
    service(&consul, app.port(), "registration: {id: one}\n").is(&["111"]);
}

#[test]
fn an_address_that_leads_to_several_agents() {
    let (agents, app) = (Consul::cluster(), Backend::start("a"));
    let places = [agents[0].address(), agents[1].address()];
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let balancer = RawServer::start(move |mut client| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut agent = std::net::TcpStream::connect(&places[turn % 2]).unwrap();
        let (mut back, mut answers) = (client.try_clone().unwrap(), agent.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let _ = std::io::copy(&mut client, &mut agent);
    });
    let yaml = format!(
        "service: orders\nport: {}\ncheck: /health\nconsul: {{address: 'http://127.0.0.1:{}'}}\n",
        app.port(),
        balancer.port()
    );
    let seen = doctor(&yaml);
    seen.is(&["110"]);
    assert!(seen.says("it leads to the agents of server-"), "{seen:?}");
}

#[test]
fn services_that_are_not_there_or_not_well() {
    let consul = Consul::dev();
    let users = Backend::start("a");
    register(&consul, "user-service", "other", users.port());
    let unknown = doctor(&format!(
        "registration: off\nconsul: {{address: '{}'}}\nupstreams: {{user-servise: 0}}\n",
        consul.url()
    ));
    unknown.is(&["201"]);
    assert!(unknown.says("did you mean `user-service`?"), "{unknown:?}");
    let again = |more: Json| {
        let mut body = json!({ "Name": "users", "ID": "u", "Port": users.port(), "Address": "127.0.0.1", "Tags": ["v1"],
            "Meta": { "protocol": "grpc" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let status = body["Check"]["Status"].as_str().unwrap_or_default().to_owned();
        consul.deregister("u"); // a check that is registered again keeps its state
        consul.put("/v1/agent/service/register", &body);
        let path = "/v1/health/service/users";
        let state = || consul.json(path)[0]["Checks"].to_string();
        eventually_is("the catalog has it", state, |seen| {
            seen != "null" && (status.is_empty() || seen.contains(&status))
        });
    };
    register(&consul, "users", "u", users.port());
    again(json!({}));
    caller(&consul.url(), "{listen: 0, protocol: grpc}").is(&[]);
    caller(&consul.url(), "{listen: 0, protocol: http1}").is(&["207"]);
    caller(&consul.url(), "{listen: 0, tag: v1}").is(&[]);
    let tags = caller(&consul.url(), "{listen: 0, tag: v2}");
    tags.is(&["203"]);
    assert!(tags.says("tags there: v1"), "{tags:?}");
    caller(&consul.url(), "{listen: 0, filter: 'Service.Meta.zone == a'}").is(&["203"]);
    caller(&consul.url(), "{listen: 0, filter: 'this is no filter'}").is(&["205"]);
    let check = |status: &str| json!({ "Check": { "TTL": "10m", "Status": status }, "Weights": { "Passing": 5, "Warning": 0 } });
    again(check("warning"));
    caller(&consul.url(), "0").is(&["204"]);
    again(check("passing"));
    caller(&consul.url(), "0").is(&[]);
    again(check("critical"));
    caller(&consul.url(), "0").is(&["202"]);
    doctor("registration: off\nupstreams: {users: {listen: 0, static: ['no-such-host.invalid:80']}}\n").is(&["206"]);
}

#[test]
fn ports_that_cannot_be_listened_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |address: &str| {
        format!("registration: off\nupstreams: {{users: {{listen: '{address}', static: ['127.0.0.1:9']}}}}\n")
    };
    doctor(&at(&taken.local_addr().unwrap().to_string())).is(&["301"]);
    doctor(&at("192.0.2.1:8080")).is(&["304", "103"]);
    // In a namespace of its own the first 1024 ports are privileged, whatever this machine says.
    let shell = "exec unshare --map-root-user --net setpriv --bounding-set -net_bind_service --inh-caps -net_bind_service -- \"$@\"";
    doctor_in(shell, &at("0.0.0.0:81"), &[]).is(&["303", "103"]);
}

#[test]
fn a_sidecar_that_runs_already_is_not_in_the_way() {
    let [port] = free_ports();
    let yaml = format!("registration: off\nupstreams: {{users: {{listen: {port}, static: ['127.0.0.1:9']}}}}\n");
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    let file = sidecar.file();
    let admin = format!("admin.listen={}", sidecar.admin());
    let output = Command::new(LICTOR).args(["doctor", "--json", "--set", &admin, "-c"]).arg(&file).output().unwrap();
    let seen = Seen { page: serde_json::from_slice(&output.stdout).unwrap(), exit: output.status.code().unwrap() };
    seen.is(&["302"]);
    assert_eq!(seen.exit, 0, "a note is nothing to stop at");
}

#[test]
fn limits_grace_and_secrets() {
    let yaml = "registration: off\nupstreams: {users: {listen: 0, static: ['127.0.0.1:9']}}\n";
    doctor(yaml).is(&[]);
    doctor_in("ulimit -n 512; exec \"$@\"", yaml, &[]).is(&["305"]);
    doctor_in("exec \"$@\"", yaml, &[("TERMINATION_GRACE", "30")]).is(&["309"]);
    doctor_in("exec \"$@\"", yaml, &[("TERMINATION_GRACE", "50s")]).is(&[]);
    doctor_in("exec \"$@\"", yaml, &[("JWT_SECRET", "your-secret-key")]).is(&["401"]);
    doctor_in("exec \"$@\"", yaml, &[("JWT_SECRET", "our-own")]).is(&[]);
}

#[test]
fn certificates_that_end() {
    let authority = Authority::new();
    let days = |count: u64| Duration::from_secs(count * 86_400);
    let listen = |cert: &str, key: &str| {
        doctor(&format!(
            "registration: off\nupstreams: {{users: {{listen: {{address: 0, tls: {{cert: '{cert}', key: '{key}'}}}}, static: ['127.0.0.1:9']}}}}\n"
        ))
    };
    let of = |pair: &lictor_testkit::Pair| listen(pair.cert.to_str().unwrap(), pair.key.to_str().unwrap());
    let now = SystemTime::now();
    of(&authority.issue_until("long", &["localhost"], now + days(15))).is(&[]);
    of(&authority.issue_until("short", &["localhost"], now + days(13))).is(&["307"]);
    of(&authority.issue_until("over", &["localhost"], now - days(2))).is(&["308"]);
    let (one, other) = (authority.issue("one", &["localhost"]), authority.issue("other", &["localhost"]));
    listen(one.cert.to_str().unwrap(), other.key.to_str().unwrap()).is(&["306"]);
    listen("/no/such.pem", one.key.to_str().unwrap()).is(&["306"]);
}

#[test]
fn a_person_reads_the_worst_first() {
    let consul = Consul::dev();
    eventually_is("the catalog", || consul.json("/v1/catalog/services"), Json::is_object);
    let app = Backend::start("a");
    let yaml = format!(
        "service: orders\nport: {}\ncheck: {{http: /health, timeout: 10s}}\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n",
        app.port(),
        consul.url()
    );
    let said = String::from_utf8(run("exec \"$@\"", &["doctor"], &yaml, &[]).stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("error    LIC-C201  upstreams.users: there is no service `users`"), "{said}");
    assert!(lines.iter().any(|line| line.starts_with("warning  LIC-C106")), "{said}");
    assert!(said.contains("\nConsul ") && said.trim_end().ends_with("1 error, 1 warning, 0 notes"), "{said}");
}
