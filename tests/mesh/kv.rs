//! Configuration in Consul's KV, over the file.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is, free_ports, get, request};
use serde_json::{Value as Json, json};

use crate::LICTOR;

const KEY: &str = "lictor/orders/config";

fn put(consul: &Consul, yaml: &str) {
    let path = format!("/v1/kv/{KEY}");
    assert_eq!(request(&consul.address(), "PUT", &path, &[], yaml.as_bytes()).unwrap().text().trim(), "true");
}

fn delete(consul: &Consul) {
    assert_eq!(request(&consul.address(), "DELETE", &format!("/v1/kv/{KEY}"), &[], b"").unwrap().text().trim(), "true");
}

/// What the sidecar wrote of it; `null` before the first time.
fn status(consul: &Consul) -> Json {
    let keys = consul.json("/v1/kv/lictor/orders/status/?keys");
    let Some(key) = keys[0].as_str() else { return Json::Null };
    consul.json(&format!("/v1/kv/{key}?raw"))
}

fn await_status(consul: &Consul, wanted: &str) -> Json {
    eventually_is("the status key has it", || status(consul), |page| page["status"] == wanted)
}

fn yaml(consul: &Consul, more: &str) -> String {
    format!(
        "registration: off\nservice: orders\nlifecycle: {{start_timeout: 200ms}}\nconsul: {{address: '{}', kv: true{more}}}\nupstreams: {{users: {{listen: 0, timeout: 7s}}}}\n",
        consul.url()
    )
}

fn users(consul: &Consul) -> Backend {
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    backend
}

fn timeout(lictor: &Sidecar) -> Json {
    lictor.page("/upstreams")["users"]["policy"]["timeout_ms"].clone()
}

fn await_timeout(lictor: &Sidecar, wanted: u64) {
    eventually_is("the timeout is in force", || timeout(lictor), |limit| *limit == wanted);
}

#[test]
fn a_value_adds_a_listener_and_changes_a_timeout_and_its_removal_takes_both_back() {
    let consul = Consul::dev();
    let (_a, b) = (users(&consul), Backend::start("b"));
    consul.register("carts", "b", b.port());
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    lictor.await_endpoints("users", 1);
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 200);
    load.await_more(50);
    let [port] = free_ports();
    let carts = format!("127.0.0.1:{port}");
    let began = Instant::now();
    put(&consul, &format!("upstreams:\n  users: {{timeout: 3s}}\n  carts: {port}\n"));
    eventually_is(
        "the new listener answers",
        || get(&carts, "/").ok().map(|answer| answer.status),
        |it| *it == Some(200),
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    await_timeout(&lictor, 3000);
    let origins = lictor.page("/config?origin=1");
    assert_eq!(origins["upstreams.users.timeout"], json!({ "value": "3s", "origin": format!("kv:{KEY}:2:20") }));
    let told = await_status(&consul, "applied");
    assert_eq!((&told["service"], &told["errors"]), (&json!("orders"), &json!([])));
    assert_eq!(told["modify_index"], consul.json(&format!("/v1/kv/{KEY}"))[0]["ModifyIndex"]);
    assert_eq!(lictor.page("/consul")["kv"]["source"], "consul");

    // The file below it may change meanwhile.
    lictor.rewrite(&yaml(&consul, "").replace("7s", "8s").replace("users: {", "users: {connect_timeout: 2s, "));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(timeout(&lictor), 3000);
    assert_eq!(lictor.page("/upstreams")["users"]["policy"]["connect_timeout_ms"], 2000);

    delete(&consul);
    await_timeout(&lictor, 8000);
    eventually_is("the listener is gone", || get(&carts, "/").is_err(), |is_gone| *is_gone);
    eventually_is("the status says so", || status(&consul), |page| page["modify_index"].is_null());
    load.await_more(50);
    load.finish().assert_flawless();
    let page = lictor.page("/config/changes");
    let [removed, reloaded, added] = &page.as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!(
        (&removed["origin"], &reloaded["origin"], &added["origin"]),
        (&json!("kv"), &json!("reload"), &json!("kv"))
    );
    let listener = json!({ "type": "added", "key": "upstreams.carts.listen", "value": port.to_string(), "origin": format!("kv:{KEY}:3:10") });
    assert!(added["changes"].as_array().unwrap().contains(&listener), "{page}");
    assert!(lictor.log().contains("upstreams.users.timeout: 7s -> 3s"), "one line says it");
}

#[test]
fn kv_config_and_status_are_other_keys() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let keys = "kv: {config: 'ours/${service}/lictor', status: 'ours/${service}/told'}";
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "").replace("kv: true", keys)).up();
    put(&consul, "upstreams: {users: {timeout: 1s}}\n");
    let path = "/v1/kv/ours/orders/lictor";
    let value = b"upstreams: {users: {timeout: 2s}}\n";
    assert_eq!(request(&consul.address(), "PUT", path, &[], value).unwrap().text().trim(), "true");
    await_timeout(&lictor, 2000);
    let written = || consul.json("/v1/kv/ours/orders/told/?keys")[0].clone();
    eventually_is("the status is below its key", written, Json::is_string);
    assert_eq!(status(&consul), Json::Null, "and nowhere else");
}

#[test]
fn a_value_that_is_wrong_or_forbidden_changes_nothing_and_says_why_in_kv() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    lictor.await_endpoints("users", 1);
    put(&consul, "upstreams: {users: {timeout: 3s}}\n");
    await_timeout(&lictor, 3000);
    for (value, place, message) in [
        ("upstreams: {users: [\n", "2:1", "not valid YAML"),
        ("upstreams:\n  users: {timeuot: 1s}\n", "2:11", "unknown field `timeuot`"),
        ("upstreams: {users: {timeout: 1}}\n", "1:30", "has no unit"),
        ("admin: {listen: 9902}\nupstreams: {users: {timeout: 1s}}\n", "1:1", "KV may not change `admin`"),
        ("registration: {id: x}\n", "1:1", "KV may not change `registration`"),
        ("app: {command: [sh]}\n", "1:1", "KV may not change `app`"),
        ("upstreams: {carts: '0.0.0.0:5000'}\n", "1:20", "KV may not listen on 0.0.0.0:5000"),
        ("upstreams: {carts: 80}\n", "1:20", "KV may not listen on 127.0.0.1:80"),
        ("service_token: x\n", "1:1", "KV may not change `service_token`"),
    ] {
        put(&consul, value);
        let wanted = |page: &Json| page["errors"].to_string().contains(message);
        let told = eventually_is("the status key says why", || status(&consul), wanted);
        assert_eq!((&told["status"], told["errors"].as_array().unwrap().len()), (&json!("rejected"), 1), "{told}");
        assert_eq!(told["errors"][0]["place"], format!("kv:{KEY}:{place}"), "{told}");
        assert_eq!(told["modify_index"], consul.json(&format!("/v1/kv/{KEY}"))[0]["ModifyIndex"]);
        assert_eq!(timeout(&lictor), 3000, "the last good one stays");
        assert!(lictor.metric("lictor_config_last_reload_success", &[]).abs() < 0.1);
    }
    // What cannot be done is found out by trying, and undone.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    put(&consul, &format!("upstreams: {{users: {{timeout: 1s}}, carts: {}}}\n", taken.port()));
    eventually_is("it says so", || status(&consul), |page| page.to_string().contains(&taken.to_string()));
    assert_eq!(timeout(&lictor), 3000);
    assert_eq!(lictor.get("users", "/").status, 200);
    assert!(lictor.log().contains("config_rejected"));
    put(&consul, "upstreams: {users: {timeout: 4s}}\n");
    await_timeout(&lictor, 4000);
    await_status(&consul, "applied");
    assert!(lictor.metric("lictor_config_last_reload_success", &[]) > 0.9);
}

#[test]
fn a_value_of_brackets_or_of_very_much_holds_nothing_up() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    lictor.await_endpoints("users", 1);
    let load = Load::start(&lictor.address("users"), &[Method::GET], 200);
    let many = |entry: &str| entry.repeat(340 * 1024 / entry.len());
    for (value, message) in [
        (format!("upstreams: {}", many("[")), "too deep"),
        (format!("upstreams: {{users: {{routes: [{}]}}}}", many("{match: /},")), "too much"),
        (many("a: 1\n"), "duplicate"),
    ] {
        put(&consul, &value);
        let wanted = |page: &Json| page["errors"].to_string().contains(message);
        let told = eventually_is("the status key says why", || status(&consul), wanted);
        assert_eq!(told["status"], "rejected", "{told}");
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    put(&consul, "upstreams: {users: {timeout: 4s}}\n");
    await_timeout(&lictor, 4000);
    load.finish().assert_flawless();
}

#[test]
fn no_secret_of_a_value_is_shown_anywhere() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    let value = |secret: &str, more: &str| {
        put(
            &consul,
            &format!("upstreams: {{users: {{timeout: 3s, {more} headers: {{set: {{Authorization: {secret}}}}}}}}}\n"),
        );
    };
    value("canary-1", "");
    await_timeout(&lictor, 3000);
    await_status(&consul, "applied");
    value("canary-2", "");
    let secrets = || lictor.page("/config/changes").to_string().matches("headers.set.Authorization").count();
    eventually_is("a secret's change is a change", secrets, |count| *count == 2);
    value("canary-3", "timeuot: 1s,");
    let rejected = await_status(&consul, "rejected");
    let everything = format!(
        "{}{}{}{}{rejected}{}",
        lictor.page("/config/changes"),
        lictor.page("/config?origin=1"),
        lictor.page("/consul"),
        lictor.log(),
        lictor.post("/reload").text(),
    );
    assert!(everything.contains("***") && !everything.contains("canary"), "{everything}");
}

#[test]
fn a_refused_value_is_tried_again_when_the_file_makes_room_for_it() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let [port] = free_ports();
    let file = yaml(&consul, "");
    let crowded = file.replace("upstreams: {", &format!("upstreams: {{more: {port}, "));
    let lictor = Sidecar::serve(LICTOR, &crowded).up();
    put(&consul, &format!("upstreams: {{carts: {port}, users: {{timeout: 3s}}}}\n"));
    let told = await_status(&consul, "rejected");
    let message = format!("port {port} is taken already by upstream more");
    assert_eq!(told["errors"][0]["message"], message, "{told}");
    assert_eq!(timeout(&lictor), 7000);
    lictor.rewrite(&file);
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(timeout(&lictor), 3000);
    await_status(&consul, "applied");
    lictor.rewrite(&crowded);
    let refused = lictor.post("/reload");
    assert_eq!(refused.status, 422);
    assert!(
        refused.text().contains(&message) && refused.text().contains(&format!("kv:{KEY}:1:")),
        "{}",
        refused.text()
    );
    assert_eq!(timeout(&lictor), 3000, "nor may the file take away what KV holds");
}

fn lictor(sidecar: &Sidecar, words: &[&str], file: &str) -> Output {
    let other = sidecar.path("other.yaml");
    std::fs::write(&other, file).unwrap();
    let mut command = Command::new(LICTOR);
    command.arg(words[0]).arg(&other).args(&words[1..]).arg("-c").arg(sidecar.file()).env("NO_COLOR", "1");
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn push_checks_first_tells_what_changes_and_overwrites_nobody() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let sidecar = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    let wrong = lictor(&sidecar, &["push"], "admin: {listen: 9902}\n");
    assert!(!wrong.status.success() && said(&wrong).contains("other.yaml:1:1   admin"), "{}", said(&wrong));
    assert!(consul.json(&format!("/v1/kv/{KEY}")).is_null(), "nothing was written");

    let first = lictor(&sidecar, &["push"], "upstreams: {users: {timeout: 3s}}\n");
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains("upstreams.users.timeout: 7s -> 3s"), "{}", said(&first));
    await_timeout(&sidecar, 3000);
    let made_from = consul.json(&format!("/v1/kv/{KEY}"))[0]["ModifyIndex"].to_string();
    put(&consul, "upstreams: {users: {timeout: 4s}}\n");

    let late = lictor(&sidecar, &["push", "--index", &made_from], "upstreams: {users: {timeout: 5s}}\n");
    assert!(!late.status.success() && said(&late).contains("changed by somebody else"), "{}", said(&late));
    await_timeout(&sidecar, 4000);
    let forced = lictor(&sidecar, &["push", "--force"], "upstreams: {users: {timeout: 5s}}\n");
    assert!(said(&forced).contains("upstreams.users.timeout: 4s -> 5s"), "{}", said(&forced));
    await_timeout(&sidecar, 5000);
    let shown = Command::new(LICTOR).args(["config", "--diff", "kv", "-c"]).arg(sidecar.file()).output().unwrap();
    assert!(said(&shown).ends_with("upstreams.users.timeout: 7s -> 5s\n"), "{}", said(&shown));
    let again = lictor(&sidecar, &["push"], "upstreams: {users: {timeout: 5s}}\n");
    assert!(again.status.success() && said(&again).contains("has this value already"), "{}", said(&again));
}

#[test]
fn diff_compares_with_the_running_sidecar_and_else_with_the_file() {
    let consul = Consul::dev();
    let _a = users(&consul);
    let mut sidecar = Sidecar::serve(LICTOR, &yaml(&consul, "")).up();
    put(&consul, "upstreams: {users: {connect_timeout: 2s}}\n");
    await_status(&consul, "applied");
    let other = yaml(&consul, "").replace("timeout: 7s", "timeout: 9s, retry: {attempts: 5}");
    let admin = sidecar.admin();
    let words = ["diff", "--admin", &admin, "--set", "admin.listen=127.0.0.1:0"];
    let running = lictor(&sidecar, &words, &other);
    for expected in [
        &format!("compared with the sidecar at {admin}:\n"),
        "upstreams.users.timeout: 7s -> 9s\n",
        "upstreams.users.retry.attempts: 3 -> 5\n",
        "values from KV that stay over the file: 1\n",
    ] {
        assert!(said(&running).contains(expected), "no `{expected}` in\n{}", said(&running));
    }
    assert_eq!(said(&running).lines().count(), 4, "{}", said(&running));
    assert!(said(&lictor(&sidecar, &words, &yaml(&consul, ""))).contains("nothing changes"));
    assert!(sidecar.terminate().success());
    let stopped = lictor(&sidecar, &words, &other);
    assert!(said(&stopped).contains("upstreams.users.timeout: 7s -> 9s\n"), "{}", said(&stopped));
    assert!(said(&stopped).contains("lictor.yaml ("), "{}", said(&stopped));
}

#[test]
fn the_last_good_value_survives_a_restart_while_consul_is_away() {
    let mut consul = Consul::server();
    let _a = users(&consul);
    let b = Backend::start("b");
    consul.register("carts", "b", b.port());
    let folder = std::env::temp_dir().join(format!("lictor-kv-{}", std::process::id()));
    let yaml = yaml(&consul, &format!(", snapshot: {{path: '{}'}}", folder.join("snapshot").display()));
    let [port] = free_ports();
    let carts = format!("127.0.0.1:{port}");
    put(&consul, &format!("upstreams: {{users: {{timeout: 3s}}, carts: {port}}}\n"));
    let mut first = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(timeout(&first), 3000, "it comes up with the value");
    first.await_endpoints("carts", 1);
    put(&consul, "upstreams: {users: {timeout: soon}}\n");
    await_status(&consul, "rejected");
    assert!(first.terminate().success());
    consul.kill();

    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(timeout(&lictor), 3000, "the last good one");
    let page = lictor.page("/consul");
    assert_eq!(page["kv"]["source"], "snapshot");
    assert!(page["kv"]["age_ms"].as_u64().unwrap() > 0, "{page}");
    assert_eq!(get(&carts, "/").unwrap().header("x-backend"), "b");
    consul.restart();
    eventually_is("Consul has told", || lictor.page("/consul")["kv"]["source"].clone(), |source| source == "consul");
    assert_eq!(timeout(&lictor), 3000, "the bad one is still bad");
    put(&consul, "upstreams: {users: {timeout: 5s}}\n");
    await_timeout(&lictor, 5000);
    drop(lictor); // it would write again
    std::fs::remove_dir_all(folder).unwrap();
}
