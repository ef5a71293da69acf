//! What is left of what happened: events, and the failures behind refusals.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is, get, request};
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
