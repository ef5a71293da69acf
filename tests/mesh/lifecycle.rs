//! Starting, stopping, reloading; the child; the admin listener.

use std::time::Duration;

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is, request};
use rustix::process::Signal;

use crate::{LICTOR, beside, caller_of};

fn run(yaml: &str, command: &[&str]) -> Sidecar {
    let mut after = vec!["--"];
    after.extend(command);
    Sidecar::start(LICTOR, yaml, &[], &["run"], &after)
}

const ALONE: &str = "registration: off\nupstreams:\n  user-service: {listen: 0, static: ['127.0.0.1:1']}\n";

#[test]
fn the_childs_exit_code_is_lictors() {
    assert_eq!(run(ALONE, &["sh", "-c", "exit 3"]).wait().code(), Some(3));
    assert_eq!(run(ALONE, &["sh", "-c", "kill -9 $$"]).wait().code(), Some(137));
    assert_ne!(run(ALONE, &["/no/such/program"]).wait().code(), Some(0));
}

#[test]
fn the_child_is_told_where_its_upstreams_are() {
    let mut lictor = run(ALONE, &["sh", "-c", "echo url=$USER_SERVICE_URL port=$USER_SERVICE_PORT admin=$LICTOR_ADDR"]);
    let address = lictor.address("user-service");
    assert!(lictor.wait().success());
    let port = address.rsplit(':').next().unwrap();
    eventually_is(
        "the child's line is read",
        || lictor.log(),
        |log| log.contains(&format!("url=http://{address} port={port} admin=http://127.0.0.1:")),
    );
}

#[test]
fn the_child_is_asked_to_stop_while_egress_still_works() {
    let backend = Backend::start("a");
    let yaml =
        format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n", backend.port());
    let script = "trap 'curl -s -o /dev/null -w \"last call %{http_code}\\n\" $USERS_URL/bye; exit 7' TERM; echo child is up; while :; do sleep 0.05; done";
    let mut lictor = run(&yaml, &["sh", "-c", script]);
    eventually_is("the child is up", || lictor.log(), |log| log.contains("child is up"));
    assert_eq!(lictor.terminate().code(), Some(7));
    eventually_is("the child's last line is read", || lictor.log(), |log| log.contains("last call 200"));
}

#[test]
fn a_child_that_does_not_stop_is_killed() {
    let yaml = format!("{ALONE}lifecycle: {{kill_after: 100ms}}\n");
    let mut lictor = run(&yaml, &["sh", "-c", "trap '' TERM; echo child is up; while :; do sleep 0.05; done"]);
    eventually_is("the child is up", || lictor.log(), |log| log.contains("child is up"));
    assert_eq!(lictor.terminate().code(), Some(137));
}

#[test]
fn orphans_are_reaped() {
    let script = "sh -c 'sh -c \"exit 0\" & exec true' ; echo orphaned; while :; do sleep 0.05; done";
    let lictor = run(ALONE, &["sh", "-c", script]);
    eventually_is("the orphan was made", || lictor.log(), |log| log.contains("orphaned"));
    let zombies = || {
        let pid = lictor.pid().to_string();
        let children = std::process::Command::new("ps").args(["-o", "stat=", "--ppid", &pid]).output().unwrap();
        String::from_utf8_lossy(&children.stdout).lines().filter(|line| line.starts_with('Z')).count()
    };
    eventually_is("no zombie is left", zombies, |count| *count == 0);
}

#[test]
fn a_reload_loses_no_request_and_no_breaker() {
    let (backend, broken) = (Backend::start("a"), Backend::start("b"));
    broken.answers(500);
    let yaml = |timeout: &str, extra: &str| {
        format!(
            "registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}'], timeout: {timeout}}}\n  carts: {{listen: 0, retry: off, static: ['127.0.0.1:{}']}}\n{extra}",
            backend.port(),
            broken.port()
        )
    };
    let lictor = Sidecar::serve(LICTOR, &yaml("5s", "")).up();
    for _ in 0..5 {
        lictor.get("carts", "/");
    }
    assert_eq!(lictor.page("/breakers")["carts"]["state"], "open");
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 200);
    load.await_more(50);
    lictor.rewrite(&yaml("7s", &format!("  more: {{listen: 0, static: ['127.0.0.1:{}']}}\n", backend.port())));
    assert_eq!(lictor.post("/reload").status, 200);
    load.await_more(100);
    assert_eq!(lictor.get("more", "/").status, 200, "the new listener works");
    assert_eq!(lictor.page("/upstreams")["users"]["policy"]["timeout_ms"], 7000);
    assert_eq!(lictor.page("/breakers")["carts"]["state"], "open");
    lictor.rewrite("registration: off\nupstreems: {}\n");
    let refused = lictor.post("/reload");
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("did you mean `upstreams`?"), "{}", refused.text());
    assert!(lictor.metric("lictor_config_last_reload_success", &[]).abs() < 0.1);
    lictor.rewrite(&yaml("9s", ""));
    lictor.signal(Signal::HUP);
    eventually_is(
        "the signal reloads",
        || lictor.page("/upstreams")["users"]["policy"]["timeout_ms"].clone(),
        |limit| limit == 9000,
    );
    load.await_more(50);
    load.finish().assert_flawless();
}

#[test]
fn a_port_may_lead_elsewhere_after_a_reload() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let [port] = lictor_testkit::free_ports();
    let yaml = |name: &str, backend: &Backend| {
        format!(
            "registration: off\nupstreams:\n  {name}: {{listen: {port}, static: ['127.0.0.1:{}']}}\n",
            backend.port()
        )
    };
    let lictor = Sidecar::serve(LICTOR, &yaml("users", &a)).up();
    let address = format!("127.0.0.1:{port}");
    assert_eq!(lictor_testkit::get(&address, "/").unwrap().header("x-backend"), "a");
    lictor.rewrite(&yaml("carts", &b));
    let reloaded = lictor.post("/reload");
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(lictor_testkit::get(&address, "/").unwrap().header("x-backend"), "b");
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let backend = Backend::start("a");
    backend.delays(Duration::from_millis(300));
    let mut lictor = caller_of(&[&backend], "");
    let users = lictor.address("users");
    let answer = std::thread::spawn(move || lictor_testkit::get(&users, "/slow").unwrap());
    eventually_is("the backend has it", || backend.hits(), |hits| *hits == 1);
    assert!(lictor.terminate().success());
    assert_eq!(answer.join().unwrap().status, 200);
}

#[test]
fn draining_takes_it_out_and_back() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let lictor = beside(&consul, &backend, "").up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    eventually_is("it may be drained", || lictor.post("/drain").status, |status| *status == 200);
    eventually_is("nobody is told about it", || consul.passing("users").len(), |count| *count == 0);
    assert_eq!(lictor.get("admin", "/ready").status, 503);
    assert_eq!(lictor.post("/undrain").status, 200);
    eventually_is("it is back", || consul.passing("users").len(), |count| *count == 1);
    assert_eq!(lictor.get("admin", "/ready").status, 200);
}

#[test]
fn an_application_that_is_started_again_is_out_of_circulation_meanwhile() {
    let consul = Consul::dev();
    let backend = Backend::start("a"); // what it serves goes on: it is not its checks that say so
    let start = |delay: &str| {
        let yaml = format!(
            "service: users\napp: {{port: {}, restart: {{on_failure: {{delay: {delay}}}}}}}\nconsul: {{address: '{}'}}\n",
            backend.port(),
            consul.url()
        );
        let lictor = run(&yaml, &["sh", "-c", "trap 'exit 3' USR1; echo child is up; while :; do sleep 0.05; done"]);
        eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
        eventually_is("the child is up", || lictor.log(), |log| log.contains("child is up"));
        lictor.signal(Signal::USR1);
        eventually_is("nobody is told about it", || consul.passing("users").len(), |count| *count == 0);
        lictor
    };
    let notes = || consul.json("/v1/agent/checks").to_string();
    let away = "lictor: the application ended with code 3";

    let mut lictor = start("10m");
    assert!(notes().contains(away));
    assert_eq!(lictor.get("admin", "/ready").status, 503);
    assert_eq!(lictor.post("/drain").status, 200);
    assert_eq!(lictor.post("/undrain").status, 200);
    assert!(notes().contains(away), "an operator's order and its end change nothing of that");
    assert_eq!(lictor.terminate().code(), Some(3));
    assert!(!notes().contains("users"), "deregistered");

    let lictor = start("3s");
    eventually_is("it is back", || consul.passing("users").len(), |count| *count == 1);
    assert_eq!(lictor.get("admin", "/ready").status, 200);
    assert_eq!(lictor.log().matches("\"application_restarted\"").count(), 1);
}

#[test]
fn readiness_asks_the_application_and_startup_does_not() {
    let consul = Consul::dev();
    let [port] = lictor_testkit::free_ports();
    let checks = "registration: {checks: [{http: /health, interval: 1s}]}\n";
    let yaml = format!("service: users\nport: {port}\n{checks}consul: {{address: '{}'}}\n", consul.url());
    let lictor = Sidecar::serve(LICTOR, &yaml).up(); // by /startup
    let health = std::process::Command::new(LICTOR).args(["health", "--admin", &lictor.admin()]).output().unwrap();
    assert!(health.status.success(), "an application may wait for it");
    let ready = || {
        let answer = lictor.get("admin", "/ready");
        let page: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        (answer.status, page["checks"]["app"].clone())
    };
    let is_down = |(status, app): &(u16, serde_json::Value)| {
        *status == 503 && app["status"] == "not_ready" && app["message"].as_str().unwrap().contains("refused")
    };
    eventually_is("it is not ready, and says why", ready, is_down);
    assert_eq!(lictor.get("admin", "/health").status, 503);
    assert!(lictor.get("admin", "/metrics").text().contains("\nlictor_application_up 0\n"));
    let registered = || consul.json("/v1/agent/checks").to_string();
    eventually_is("it is registered as critical", registered, |checks| checks.contains("\"Status\":\"critical\""));
    assert_eq!(consul.passing("users").len(), 0, "nobody calls it early");

    let app = Backend::on("a", port);
    eventually_is("it is ready", ready, |(status, app)| *status == 200 && app["status"] == "ready");
    assert_eq!(
        (lictor.get("admin", "/health").status, lictor.page("/health")["status"].as_str()),
        (200, Some("healthy"))
    );
    assert!(lictor.metric("lictor_application_up", &[]) > 0.5);
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);

    app.kill();
    eventually_is("it is not ready any more", ready, is_down);
    assert_eq!(lictor.get("admin", "/startup").status, 200);
    let down = || lictor.log().matches("\"application_down\"").count();
    eventually_is("the log has it once", down, |count| *count == 1);
    let _app = Backend::on("b", port);
    eventually_is("it is ready again", ready, |(status, _)| *status == 200);
}

#[test]
fn the_application_is_asked_as_configured_or_not_at_all() {
    let app = Backend::start("a");
    app.answers(500);
    let ready = |probe: &str| {
        let yaml = format!("service: users\nregistration: off\napp: {{port: {}, probe: {probe}}}\n", app.port());
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let asked = |page: &serde_json::Value| {
            page["checks"]["app"]["message"].as_str().is_none_or(|message| !message.ends_with("asked yet"))
        };
        let page = eventually_is("it was asked", || lictor.page("/ready"), asked);
        (page["status"] == "ready", page["checks"]["app"]["message"].as_str().map(str::to_owned))
    };
    let connected = format!("127.0.0.1:{} accepts connections", app.port());
    assert_eq!(ready("tcp"), (true, Some(connected)));
    assert_eq!(ready("/"), (false, Some("GET /: 500 Internal Server Error".to_owned())));
    assert_eq!(ready("/health"), (true, Some("GET /health: 200 OK".to_owned())));
    assert_eq!(ready("off"), (true, None));
}

#[test]
fn every_page_answers_and_browsers_do_not_get_one() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\nservice: orders\nadmin: {{public: '127.0.0.1:0'}}\nupstreams:\n  users: {{listen: 0, required: true, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    lictor.get("users", "/");
    for page in [
        "/",
        "/live",
        "/ready",
        "/health",
        "/startup",
        "/metrics",
        "/endpoints",
        "/endpoints/users",
        "/upstreams",
        "/breakers",
        "/routes",
        "/config",
        "/config?origin=1",
        "/stats",
        "/consul",
    ] {
        assert_eq!(lictor.get("admin", page).status, 200, "{page}");
    }
    let ready = lictor.page("/ready");
    assert_eq!(
        (ready["status"].as_str(), ready["checks"]["users"]["message"].as_str()),
        (Some("ready"), Some("1 healthy instances found"))
    );
    assert_eq!(lictor.page("/health")["checks"]["upstream.users"]["status"], "healthy");
    assert_eq!(lictor.page("/stats")["services"][0]["healthyInstances"], 1);
    for (page, expected) in [("/live", 200), ("/metrics", 200), ("/config", 404), ("/endpoints", 404)] {
        assert_eq!(lictor.get("public", page).status, expected, "public {page}");
    }
    let order = |listener: &str, headers: &[(&str, &str)]| {
        request(&lictor.address(listener), "POST", "/drain", headers, b"").unwrap().status
    };
    assert_eq!(order("public", &[]), 405);
    assert_eq!(order("admin", &[("Origin", "http://evil.example")]), 403);
    assert_eq!(order("admin", &[("Host", "evil.example")]), 403);
    assert_eq!(request(&lictor.admin(), "DELETE", "/config", &[], b"").unwrap().status, 405);
    assert_eq!(lictor.post("/log-level?level=debug").status, 200);
}

#[test]
fn wait_and_health_say_whether_it_is_up() {
    let lictor = Sidecar::serve(LICTOR, ALONE).up();
    let command = |words: &[&str]| std::process::Command::new(LICTOR).args(words).output().unwrap();
    let admin = lictor.admin();
    assert!(command(&["health", "--admin", &admin]).status.success());
    assert!(command(&["wait", "--for", "startup", "--timeout", "5s", "--admin", &admin]).status.success());
    let nobody = command(&["wait", "--timeout", "50ms", "--admin", "127.0.0.1:1"]);
    assert!(!nobody.status.success());
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("127.0.0.1:1 does not answer"));
}

#[test]
fn a_taken_port_is_one_clear_sentence() {
    let backend = Backend::start("a");
    let yaml =
        format!("registration: off\nupstreams:\n  users: {{listen: {}, static: ['127.0.0.1:1']}}\n", backend.port());
    let mut lictor = Sidecar::serve(LICTOR, &yaml);
    assert!(!lictor.wait().success());
    let sentence =
        format!("cannot listen on 127.0.0.1:{} for upstream users: another process listens there", backend.port());
    eventually_is("it says so", || lictor.log(), |log| log.contains(&sentence));
}
