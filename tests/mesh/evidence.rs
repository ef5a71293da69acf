//! What is left of what happened: events, the failures behind refusals, what opened a breaker, and one word for it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use lictor_testkit::{Backend, Consul, Sidecar, connect, eventually_is, get, request};
use serde_json::{Value as Json, json};

use crate::{LICTOR, caller, caller_of};

fn lictor(sidecar: &Sidecar, words: &[&str]) -> Output {
    Command::new(LICTOR).args(words).args(["--admin", &sidecar.admin()]).env_clear().output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// Those of a kind that are kept.
fn kept(sidecar: &Sidecar, kind: &str) -> Vec<Json> {
    let page = sidecar.page("/events?as=json");
    page["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).cloned().collect()
}

/// Waits for a change of endpoints that says this, by one of `came`, `went` and `turned`.
fn await_change(sidecar: &Sidecar, how: &str, told: &str) -> Json {
    let says = |event: &Json| event[how].as_str().is_some_and(|said| said.contains(told));
    let seen = || kept(sidecar, "endpoints_changed").into_iter().find(says);
    eventually_is(&format!("{how}: {told}"), seen, Option::is_some).unwrap()
}

#[test]
fn who_came_went_and_turned_and_why_is_an_event_that_a_command_tells() {
    let consul = Consul::dev();
    let backends = ["a", "b", "c"].map(Backend::start);
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let sidecar = caller(&consul, "");
    sidecar.await_endpoints("users", 3);
    let [a, b, c] = backends.each_ref().map(|it| format!("{} at 127.0.0.1:{}", it.name(), it.port()));
    let came = await_change(&sidecar, "came", &format!("{a} (passing)"));
    assert_eq!((&came["upstream"], &came["level"]), (&json!("users"), &json!("INFO")), "{came}");
    consul.put("/v1/agent/service/maintenance/a?enable=true", &Json::Null);
    await_change(&sidecar, "went", &format!("{a} (in maintenance in Consul)"));
    consul.put("/v1/agent/service/maintenance/a?enable=false", &Json::Null);
    sidecar.await_endpoints("users", 3);
    let check = json!({ "ID": "c1", "Name": "c1", "ServiceID": "b", "TTL": "1m", "Status": "passing" });
    consul.put("/v1/agent/check/register", &check);
    consul.put("/v1/agent/check/warn/c1", &Json::Null);
    await_change(&sidecar, "turned", &format!("{b} (warning; was passing)"));
    consul.put("/v1/agent/check/fail/c1", &Json::Null);
    await_change(&sidecar, "went", &format!("{b} (critical in Consul)"));
    consul.deregister("c");
    await_change(&sidecar, "turned", &format!("{c} (not in Consul any more, kept as a suspect; was passing)"));

    let told = lictor(&sidecar, &["events", "--since", "10m"]);
    let (lines, whom) = (text(&told.stdout), text(&told.stderr));
    assert!(told.status.success() && whom.contains(&format!(" events of orders at {}\n", sidecar.admin())), "{whom}");
    let went = lines.lines().find(|line| line.contains("in maintenance in Consul")).unwrap();
    assert!(went.contains("Z  endpoints_changed     users: the endpoints of an upstream changed ("), "{went}");
    let page: Json = serde_json::from_slice(&lictor(&sidecar, &["events", "-o", "json"]).stdout).unwrap();
    let ids: Vec<u64> = page["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect();
    let newest = page["newest"].as_u64().unwrap();
    assert_eq!((ids, &page["whole"]), ((1..=newest).collect::<Vec<_>>(), &json!(true)), "{page}");
    let none = lictor(&sidecar, &["events", "--since", &newest.to_string()]);
    assert_eq!((text(&none.stdout).as_str(), text(&none.stderr).starts_with("no event of orders at")), ("", true));
    let wrong = lictor(&sidecar, &["events", "--since", "soon"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("such as 10m, not `soon`"), "{wrong:?}");
}

/// The first `id:` lines of a stream.
fn streamed(sidecar: &Sidecar, target: &str, fields: &str, count: usize) -> Vec<String> {
    let mut stream = TcpStream::connect(sidecar.admin()).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.filter_map(|line| line.strip_prefix("id: ").map(str::to_owned)).take(count).collect()
}

#[test]
fn a_listener_goes_on_where_it_was_and_asks_since_when() {
    let sidecar = caller_of(&[&Backend::start("a")], "");
    let order = |order: &str| {
        let target = format!("/breakers/users?state={order}&for=1m");
        assert_eq!(request(&sidecar.admin(), "POST", &target, &[], b"").unwrap().status, 200);
    };
    ["open", "close", "open", "close"].into_iter().for_each(order);
    let newest = sidecar.page("/events?as=json")["newest"].as_u64().unwrap();
    assert!(newest >= 4, "{newest}");
    let all = streamed(&sidecar, "/events", "", newest as usize);
    let number = |mark: &String| mark.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(all.iter().map(number).collect::<Vec<_>>(), (1..=newest).collect::<Vec<_>>(), "{all:?}");
    let again = |fields: &str, target: &str| streamed(&sidecar, target, fields, 1).remove(0);
    assert_eq!(again(&format!("Last-Event-ID: {}\r\n", all[1]), "/events"), all[2]);
    assert_eq!(again(&format!("Last-Event-ID: {}\r\n", all[2]), "/events?since=1"), all[3], "where it was");
    assert_eq!(again("", "/events?since=2"), all[2]);
    assert_eq!(again("", &format!("/events?since={}", all[2])), all[3]);
    assert_eq!(again("", "/events?since=1h"), all[0]);
    assert_eq!(again("Last-Event-ID: 7-3\r\n", "/events"), all[0], "of another process");
    assert_eq!(again("Last-Event-ID: \u{fc}\r\n", "/events"), all[0]);
    assert_eq!(again("Last-Event-ID: \r\n", "/events"), all[0]);
    for wrong in ["since=soon", "since=-1", "since=", "as=yaml", "until=1"] {
        let answer = get(&sidecar.admin(), &format!("/events?{wrong}")).unwrap();
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
}

/// Requests that each get this answer, and their ids.
fn ask(sidecar: &Sidecar, times: usize, status: u16, reason: &str) -> Vec<String> {
    let answers = (0..times).map(|number| sidecar.get("users", &format!("/{number}")));
    answers
        .map(|answer| {
            assert_eq!((answer.status, answer.header("x-lictor-reason")), (status, reason), "{}", answer.text());
            answer.header("x-request-id").to_owned()
        })
        .collect()
}

#[test]
fn what_opened_a_breaker_is_kept_whatever_is_refused_after_it_and_when_it_has_closed() {
    let backend = Backend::start("a");
    backend.answers(500);
    let sidecar = caller_of(&[&backend], ", retry: off, breaker: {recovery_timeout: 1s, success_threshold: 1}");
    let id = format!("127.0.0.1:{}", backend.port());
    assert_eq!(sidecar.page("/health")["checks"]["upstream.users"]["state"], "healthy");
    let led = ask(&sidecar, 5, 500, "");
    let refused = ask(&sidecar, 1, 503, "breaker_open").remove(0);

    let breaker = sidecar.page("/breakers")["users"].clone();
    let opened = &breaker["last_opened"];
    let failures = opened["failures"].as_array().unwrap();
    let ids: Vec<&str> = failures.iter().map(|it| it["request_id"].as_str().unwrap()).collect();
    assert_eq!(
        (ids, &opened["cause"], &opened["lasted_ms"]),
        (led.iter().map(String::as_str).collect(), &json!("status"), &Json::Null)
    );
    assert!(failures.iter().all(|it| it["endpoint"] == *id && it["outcome"] == "500"), "{opened}");
    let words = format!("500 of {id} (request {})", led[0]);
    let event = kept(&sidecar, "breaker_changed").remove(0);
    assert!(event["led"].as_str().unwrap().starts_with(&words), "{event}");
    let logged =
        eventually_is("the log has it", || sidecar.lines("the circuit breaker changed"), |lines| !lines.is_empty());
    assert_eq!(logged[0]["led"], event["led"]);
    let explained = text(&lictor(&sidecar, &["explain", &refused]).stdout);
    assert!(
        explained.contains("because of status:\n") && explained.contains(&format!("request {}", led[4])),
        "{explained}"
    );
    let prospect = text(&lictor(&sidecar, &["explain", "GET", "users", "/"]).stdout);
    assert!(prospect.contains("ago because of status:\n") && prospect.contains(&led[0]), "{prospect}");

    // One word for it everywhere.
    let (health, ready) = (sidecar.page("/health"), sidecar.page("/ready"));
    let (health, ready) = (&health["checks"]["upstream.users"], &ready["checks"]["users"]);
    assert_eq!((&health["state"], &health["status"]), (&json!("breaker open"), &json!("warning")), "{health}");
    assert_eq!((&ready["state"], &ready["status"]), (&json!("breaker open"), &json!("ready")), "{ready}");
    assert_eq!(
        (&health["message"], &ready["message"]),
        (&json!("breaker open; 1 instances"), &json!("breaker open; 1 instances found"))
    );
    assert_eq!(sidecar.page("/ui/data")["upstreams"][0]["verdict"]["word"], "breaker open");

    backend.answers(200);
    eventually_is("it closes", || sidecar.get("users", "/").status, |status| *status == 200);
    let breaker =
        eventually_is("it is closed", || sidecar.page("/breakers")["users"].clone(), |it| it["state"] == "closed");
    assert!(breaker["last_opened"]["lasted_ms"].as_u64().is_some_and(|ms| ms >= 1000), "{breaker}");
    assert_eq!(breaker["last_opened"]["failures"].as_array().unwrap().len(), 5, "{breaker}");
    // It is the instance that is still told to fail, for a while: five of its six attempts did.
    let state = sidecar.page("/health")["checks"]["upstream.users"]["state"].clone();
    assert!(state == "healthy" || state == "1 of 1 failing", "{state}");
    assert!(kept(&sidecar, "breaker_closed")[0]["after_ms"].as_u64().is_some_and(|ms| ms >= 1000));
}

#[test]
fn what_was_not_sent_is_counted_and_pushes_nothing_else_out() {
    let backend = Backend::start("a");
    backend.answers(500);
    let sidecar = caller_of(&[&backend], ", retry: off");
    let order = request(&sidecar.admin(), "POST", "/breakers/users?state=close&for=1m", &[], b"").unwrap();
    assert_eq!(order.status, 200);
    let led = ask(&sidecar, 3, 500, "");
    assert_eq!(request(&sidecar.admin(), "POST", "/breakers/users?state=open&for=1h", &[], b"").unwrap().status, 200);
    let refused = ask(&sidecar, 1200, 503, "breaker_open");
    let seen = || sidecar.page("/requests?upstream=users&limit=5000");
    let page = eventually_is("all are counted", seen, |page| page["unsent"][0]["times"] == 1200);
    let unsent = &page["unsent"][0];
    assert_eq!((&unsent["upstream"], &unsent["reason"]), (&json!("users"), &json!("breaker_open")), "{unsent}");
    assert_eq!((&unsent["first"]["id"], &unsent["last"]["id"]), (&json!(refused[0]), &json!(refused[1199])));
    let listed: Vec<&str> = page["requests"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    for id in led.iter().chain([&refused[0], &refused[1199], &refused[1100]]) {
        assert!(listed.contains(&id.as_str()), "{id} is kept");
        assert_eq!(get(&sidecar.admin(), &format!("/requests/{id}")).unwrap().status, 200);
    }
    assert!(listed.len() < 300 && !listed.contains(&refused[500].as_str()), "{}", listed.len());
    let none = get(&sidecar.admin(), &format!("/requests/{}", refused[500])).unwrap();
    assert!(none.status == 404 && none.text().contains("the first and the last"), "{}", none.text());
    assert_eq!(sidecar.page("/requests?reason=overloaded")["unsent"], json!([]));
    let latest = sidecar.page("/ui/data")["failures"]["latest"].clone();
    let line = latest.as_array().unwrap().iter().find(|line| line["reason"] == "breaker_open").unwrap();
    assert_eq!((&line["times"], &line["id"]), (&json!(1200), &json!(refused[1199])), "{latest}");
    assert!(latest.as_array().unwrap().iter().any(|line| line["status"] == 500), "{latest}");
}

#[test]
fn a_connection_that_opened_a_breaker_is_among_what_did() {
    let [gone] = lictor_testkit::free_ports();
    let yaml = format!(
        "registration: off\nupstreams: {{users: {{listen: 0, protocol: tcp, retry: off, static: ['127.0.0.1:{gone}']}}}}\n"
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml).up();
    let opened = || {
        drop(connect(&sidecar.address("users")).write_all(b"hello"));
        sidecar.page("/breakers")["users"]["last_opened"].clone()
    };
    let opened = eventually_is("the breaker opens", opened, Json::is_object);
    let failure = &opened["failures"][0];
    assert_eq!((&failure["request_id"], &failure["outcome"]), (&Json::Null, &json!("connect_refused")), "{opened}");
    assert_eq!(failure["address"], format!("127.0.0.1:{gone}"), "{opened}");
}
