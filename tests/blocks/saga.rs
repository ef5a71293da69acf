//! Sagas: steps of services, done in their order or undone in reverse, whoever dies meanwhile.

mod kills;
mod service;

use std::time::{Duration, Instant};

use lictor_testkit::{Answer, Consul, Sidecar, eventually, eventually_is, request};
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use self::service::{Fate, Service};
use super::{AUTHORIZATION, LICTOR, TOKEN, ask, asked, sidecar_with, yaml};

/// An instance of `orders` with one upstream, `shop`.
fn instance(consul: &Consul, service: &Service) -> Sidecar {
    sidecar_with(consul, "saga: true", &shop(service))
}

fn shop(service: &Service) -> String {
    format!(
        "lifecycle: {{drain_delay: 0s, drain_timeout: 10s}}\nupstreams: {{shop: {{listen: 0, static: ['127.0.0.1:{}']}}}}\n",
        service.port()
    )
}

/// Steps of `shop` with these names, each with a compensation.
fn saga(id: &str, names: &[&str]) -> Json {
    let steps: Vec<Json> = names.iter().map(|name| step(id, name)).collect();
    json!({ "id": id, "steps": steps })
}

fn step(order: &str, name: &str) -> Json {
    json!({ "name": name, "service": "shop", "action": format!("{name}/do"), "compensation": format!("{name}/undo"),
        "payload": { "order": order } })
}

fn post(lictor: &Sidecar, query: &str, body: &Json) -> (u16, Json) {
    asked(lictor, "POST", &format!("/v1/saga{query}"), body.to_string().as_bytes())
}

fn get(lictor: &Sidecar, id: &str) -> (u16, Json) {
    asked(lictor, "GET", &format!("/v1/saga/{id}"), b"")
}

/// Its page, once it is so.
fn await_status(lictor: &Sidecar, id: &str, status: &str) -> Json {
    eventually(&format!("{id} is {status}"), || {
        let answer = ask(lictor, "GET", &format!("/v1/saga/{id}"), b"");
        let page: Json = serde_json::from_str(&answer.text()).unwrap_or(Json::Null);
        if page["status"] == status { Ok(page) } else { Err(page) }
    })
}

/// What has become of one whose holder was killed, or cut off: another goes on once the session has ended, after 10 to 20 s.
fn await_taken_over(lictor: &Sidecar, body: &Json) -> Json {
    let answers = (0..3).map(|_| post(lictor, "?wait=20s", body));
    let ended = answers.into_iter().find(|(status, _)| *status != 202);
    ended.expect("it is taken over and ends").1
}

/// The key in KV.
fn kept(consul: &Consul, key: &str) -> Json {
    consul.json(&format!("/v1/kv/{key}"))[0].clone()
}

fn keys(service: &Service) -> Vec<String> {
    service.calls().into_iter().map(|called| called.key).collect()
}

#[test]
fn steps_are_done_in_their_order_and_once() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = sidecar_with(&consul, "saga: true, saga_prefix: shop/sagas/", &shop(&service));
    let body = br#"{"id":"o-1","steps":[
        {"name":"stock","service":"shop","action":"stock/do","compensation":"stock/undo","payload":{"order" : "o-1", "n":1.0}},
        {"name":"pay","service":"shop","action":"pay/do","payload":[ 1,2 ]},
        {"name":"send","service":"shop","action":"send/do","timeout":"5s"}]}"#;
    let (status, page) = asked(&lictor, "POST", "/v1/saga", body);
    assert_eq!((status, &page["status"], &page["id"]), (200, &json!("completed"), &json!("o-1")), "{page}");
    assert_eq!((&page["current"], &page["completed"]), (&json!(3), &json!(["stock", "pay", "send"])));
    assert_eq!((&page["failed"], &page["compensated"], &page["reason"]), (&json!([]), &json!([]), &Json::Null));
    assert_eq!(
        page["steps"][0],
        json!({ "name": "stock", "service": "shop", "action": "stock/do", "compensation": "stock/undo" })
    );
    let calls = service.calls();
    let seen: Vec<(&str, &str, &[u8])> =
        calls.iter().map(|call| (call.path.as_str(), call.key.as_str(), &*call.body)).collect();
    let expected: [(&str, &str, &[u8]); 3] = [
        ("/api/stock/do", "o-1:stock:do", br#"{"order" : "o-1", "n":1.0}"#),
        ("/api/pay/do", "o-1:pay:do", b"[ 1,2 ]"),
        ("/api/send/do", "o-1:send:do", b"null"),
    ];
    assert_eq!(seen, expected);
    assert!(calls.iter().all(|call| call.kind == "application/json" && call.id == "o-1"));
    assert!((lictor.metric("lictor_sagas_total", &[("status", "completed")]) - 1.0).abs() < 0.1);
    let requests = |lictor: &Sidecar| lictor.metric("lictor_upstream_requests_total", &[("upstream", "shop")]);
    eventually_is("they are requests of the upstream", || requests(&lictor), |count| *count >= 3.0);
    // What is kept of it belongs to nobody, and has no payloads.
    let entry = kept(&consul, "shop/sagas/orders/o-1");
    assert!(entry["Session"].is_null() && entry["Value"].is_string(), "{entry}");
    // The same again is the same answer, and no call; other steps are another saga's.
    assert_eq!(asked(&lictor, "POST", "/v1/saga", body), (200, page.clone()));
    let (status, refusal) = post(&lictor, "", &saga("o-1", &["stock"]));
    assert!(status == 422 && refusal["message"].as_str().unwrap().contains("other steps"), "{refusal}");
    assert_eq!(get(&lictor, "o-1"), (200, page.clone()));
    assert_eq!(service.calls().len(), 3);
    let (_, list) = asked(&lictor, "GET", "/v1/saga", b"");
    assert_eq!(list, json!({ "sagas": [{ "id": "o-1", "status": "completed", "changed": page["changed"] }] }));
    // Another instance of the same service says the same; one of another service knows nothing of it.
    let other = sidecar_with(&consul, "saga: true, saga_prefix: shop/sagas/", &shop(&service));
    assert_eq!(get(&other, "o-1"), (200, page));
    let stranger =
        Sidecar::serve(LICTOR, &yaml(&consul, "saga: true, saga_prefix: shop/sagas/", "").replace("orders", "carts"))
            .up();
    assert_eq!(get(&stranger, "o-1").0, 404);
}

#[test]
fn an_id_is_the_bodys_or_the_headers_or_made_up_and_go_is_understood() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    let send = |headers: &[(&str, &str)], body: &str| -> (u16, Json) {
        let headers: Vec<(&str, &str)> = [("Authorization", AUTHORIZATION)].iter().chain(headers).copied().collect();
        let answer = request(&lictor.admin(), "POST", "/v1/saga", &headers, body.as_bytes()).unwrap();
        (answer.status, serde_json::from_str(&answer.text()).unwrap())
    };
    let go = r#"{"ID":"ID","Steps":[{"Name":"a","Service":"shop","Action":"a/do","Compensation":"","Payload":{"x":1}}],
        "Current":0,"Status":"","Completed":null,"Failed":null}"#;
    let (status, page) = send(&[], &go.replace("\"ID\":\"ID\"", "\"ID\":\"g-1\""));
    assert_eq!((status, &page["id"]), (200, &json!("g-1")), "{page}");
    let nameless = go.replace("\"ID\":\"ID\"", "\"ID\":\"\"");
    for (header, id) in [("h-1", "h-1"), ("\"h-2\"", "h-2")] {
        assert_eq!(send(&[("Idempotency-Key", header)], &nameless).1["id"], id);
    }
    assert_eq!(send(&[("Idempotency-Key", "h-3")], &go.replace("\"ID\":\"ID\"", "\"ID\":\"g-2\"")).1["id"], "g-2");
    assert_eq!(send(&[("Idempotency-Key", "a b")], &nameless).0, 400);
    let [one, two] = [send(&[], &nameless), send(&[], &nameless)];
    assert!(one.0 == 200 && two.0 == 200 && one.1["id"] != two.1["id"], "{one:?} {two:?}");
    assert_eq!(service.calls().len(), 6);
}

#[test]
fn those_before_a_step_that_is_refused_are_undone_in_reverse() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/c/do", &[Fate::Says(409)]);
    let mut body = saga("o-1", &["a", "x", "b", "c", "d"]);
    body["steps"][1]["compensation"] = Json::Null;
    let (status, page) = post(&lictor, "", &body);
    assert_eq!((status, &page["status"]), (409, &json!("failed")), "{page}");
    assert_eq!((&page["completed"], &page["failed"]), (&json!(["a", "x", "b"]), &json!(["c"])));
    assert_eq!((&page["compensated"], &page["remaining"]), (&json!(["b", "a"]), &json!([])));
    assert_eq!(page["reason"], r#"step `c`: shop answered 409: {"error":"no"}"#);
    assert_eq!(
        service.effects(),
        ["/api/a/do", "/api/x/do", "/api/b/do", "/api/b/undo", "/api/a/undo"],
        "one after the other"
    );
    let calls = service.calls();
    let undo = calls.iter().find(|call| call.key == "o-1:b:undo").unwrap();
    assert_eq!(undo.body, br#"{"order":"o-1"}"#, "a compensation is told what was done");
    assert_eq!(post(&lictor, "", &body).0, 409, "it has ended");
    assert_eq!(service.calls().len(), calls.len());
}

#[test]
fn what_may_have_had_its_effect_is_asked_again_with_the_same_key() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/a/do", &[Fate::Says(500), Fate::DoneBut(500), Fate::Says(429)]);
    service.will("/api/b/do", &[Fate::Breaks { is_after: true }, Fate::Breaks { is_after: false }, Fate::Says(425)]);
    let (status, page) = post(&lictor, "", &saga("o-1", &["a", "b"]));
    assert_eq!((status, &page["status"]), (200, &json!("completed")), "{page}");
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do"]);
    let keys = keys(&service);
    assert!(keys.len() >= 8 && keys.iter().all(|key| key == "o-1:a:do" || key == "o-1:b:do"), "{keys:?}");
}

#[test]
fn a_step_of_which_nothing_is_heard_is_undone_too() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/b/do", &[Fate::DoneBut(500); 50]);
    let mut body = saga("o-1", &["a", "b", "c"]);
    body["steps"][1]["timeout"] = json!("1s");
    let began = Instant::now();
    let (status, page) = post(&lictor, "", &body);
    assert_eq!((status, &page["status"], &page["failed"]), (409, &json!("failed"), &json!(["b"])), "{page}");
    assert_eq!(page["compensated"], json!(["b", "a"]));
    assert!(page["reason"].as_str().unwrap().contains("may have had its effect"), "{page}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do", "/api/b/undo", "/api/a/undo"]);
    // One that never answers is as unknown.
    service.will("/api/b/do", &[Fate::Waits { is_after: false }]);
    body["id"] = json!("o-2");
    let (_, page) = post(&lictor, "", &body);
    assert!(page["reason"].as_str().unwrap().contains("has not answered within 1s"), "{page}");
    assert_eq!(page["compensated"], json!(["b", "a"]));
    service.open(true);
}

#[test]
fn a_compensation_that_fails_is_for_people() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/c/do", &[Fate::Says(400)]);
    service.will("/api/b/undo", &[Fate::Says(403), Fate::Says(404)]);
    let body = saga("o-1", &["a", "b", "c"]);
    let (status, page) = post(&lictor, "", &body);
    assert_eq!((status, &page["status"], &page["remaining"]), (409, &json!("manual"), &json!(["b", "a"])), "{page}");
    let no = r#"{"error":"no"}"#;
    let reason = format!("step `c`: shop answered 400: {no}; compensation of `b`: shop answered 403: {no}");
    assert_eq!(page["reason"], json!(reason));
    let told = || lictor.lines("a compensation has failed: somebody has to look, then POST /v1/saga/ID/again").len();
    eventually_is("somebody is told", told, |count| *count == 1);
    assert_eq!(post(&lictor, "", &body).1["status"], "manual", "asked for again it stays so");
    let again = |lictor: &Sidecar| asked(lictor, "POST", "/v1/saga/o-1/again", b"");
    assert_eq!(again(&lictor).1["status"], "manual", "it is refused a second time");
    // Whichever instance is asked goes on.
    let other = instance(&consul, &service);
    let (status, page) = again(&other);
    assert_eq!((status, &page["status"], &page["compensated"]), (409, &json!("failed"), &json!(["b", "a"])), "{page}");
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do", "/api/b/undo", "/api/a/undo"]);
    let (status, refusal) = again(&other);
    assert!(status == 409 && refusal["message"].as_str().unwrap().contains("is `failed`"), "{refusal}");
    assert_eq!(asked(&lictor, "POST", "/v1/saga/none/again", b"").0, 404);
    // One that cannot be had is too, after ten times its time.
    service.will("/api/c/do", &[Fate::Says(400)]);
    service.will("/api/a/undo", &[Fate::Says(503); 100]);
    let mut body = saga("o-2", &["a", "c"]);
    body["steps"][0]["timeout"] = json!("100ms");
    assert_eq!(post(&lictor, "?wait=20s", &body).1["status"], "manual");
}

#[test]
fn whoever_does_not_wait_for_the_end_is_told_where_it_is() {
    let (consul, service) = (Consul::dev(), Service::start());
    let (lictor, other) = (instance(&consul, &service), instance(&consul, &service));
    service.will("/api/a/do", &[Fate::Waits { is_after: false }]);
    let body = saga("o-1", &["a", "b"]);
    let answer = ask(&lictor, "POST", "/v1/saga?wait=0s", body.to_string().as_bytes());
    assert_eq!((answer.status, answer.header("location")), (202, "/v1/saga/o-1"), "{}", answer.text());
    service.await_waiting(1);
    assert_eq!(get(&lictor, "o-1").1["status"], "running");
    assert_eq!(post(&lictor, "?wait=0s", &body).0, 202, "asked for twice it is the same one");
    assert_eq!(post(&other, "?wait=0s", &saga("o-1", &["b"])).0, 422);
    let again = asked(&other, "POST", "/v1/saga/o-1/again", b"");
    assert!(again.0 == 409 && again.1["message"].as_str().unwrap().contains("is `running`"), "{again:?}");
    // Both wait for the same end, here and elsewhere.
    std::thread::scope(|scope| {
        let waiting = [&lictor, &other].map(|lictor| scope.spawn(|| post(lictor, "?wait=25s", &body)));
        service.open(true);
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().1["status"], "completed");
        }
    });
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do"]);
    assert_eq!(keys(&service), ["o-1:a:do", "o-1:b:do"]);
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let (consul, service) = (Consul::dev(), Service::start());
    let more = shop(&service).replace(
        "upstreams: {",
        "upstreams: {redis: {protocol: tcp, listen: 0, static: ['127.0.0.1:9']}, far: {static: ['127.0.0.1:9']}, ",
    );
    let lictor = sidecar_with(&consul, "saga: true", &more);
    let of = |service: &str| {
        let mut body = saga("o", &["a"]);
        body["steps"][0]["service"] = json!(service);
        body.to_string()
    };
    let good = saga("o", &["a"]).to_string();
    for (query, body, message) in [
        ("", String::new(), "EOF"),
        ("", "{}".to_owned(), "missing field `steps`"),
        ("", "[1]".to_owned(), "a saga is a JSON object"),
        ("", json!({ "steps": [] }).to_string(), "1 to 32 steps"),
        ("", good.replace("\"payload\"", "\"retries\""), "unknown field `retries`"),
        ("", good.replace("\"id\":\"o\"", "\"id\":\"a/b\""), "an id has 1 to 64"),
        ("", good.replace("a/do", "../do"), "without empty segments"),
        ("", saga("o", &["a", "a"]).to_string(), "two steps are named `a`"),
        ("", of("nobody"), "`nobody` is no upstream"),
        ("", of("redis"), "`redis` is an upstream of bytes"),
        ("", of("far"), "`far` has no `listen`"),
        ("?wait=11m", good.clone(), "`wait` is 0s to 10m"),
        ("?wait=soon", good.clone(), "takes a duration"),
    ] {
        let (status, page) = asked(&lictor, "POST", &format!("/v1/saga{query}"), body.as_bytes());
        assert!(status == 400 && page["message"].as_str().unwrap().contains(message), "{body}: {status} {page}");
    }
    let large = good.replace("\"order\":\"o\"", &format!("\"order\":\"{}\"", "a".repeat(256 << 10)));
    assert_eq!(ask(&lictor, "POST", "/v1/saga", large.as_bytes()).status, 413);
    for path in ["/v1/saga/a%2fb", "/v1/saga/..", "/v1/saga/%c3%a4"] {
        assert_eq!(ask(&lictor, "GET", path, b"").status, 400, "{path}");
    }
    assert_eq!((get(&lictor, "none").0, ask(&lictor, "GET", "/v1/saga/a/b", b"").status), (404, 404));
    for (method, path, allowed) in
        [("DELETE", "/v1/saga/o", "GET"), ("PUT", "/v1/saga", "GET, POST"), ("GET", "/v1/saga/o/again", "POST")]
    {
        let answer: Answer = ask(&lictor, method, path, b"");
        assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{method} {path}");
    }
    assert!(consul.json("/v1/kv/sagas/?keys").is_null() && service.calls().is_empty(), "nothing was begun");
    let off = sidecar_with(&consul, "locks: true", &shop(&service));
    assert_eq!(post(&off, "", &saga("o", &["a"])).0, 403);
    let answer = request(&lictor.admin(), "POST", "/v1/saga", &[], good.as_bytes()).unwrap();
    assert_eq!(answer.status, 401);
}

#[test]
fn a_service_without_a_listener_of_its_own_is_called_through_the_forward_proxy() {
    let (consul, service) = (Consul::dev(), Service::start());
    let more = shop(&service).replace("listen: 0, ", "") + "outbound: {proxy: '127.0.0.1:0'}\n";
    let lictor = sidecar_with(&consul, "saga: true", &more);
    assert_eq!(post(&lictor, "", &saga("o-1", &["a"])).0, 200);
    assert_eq!(keys(&service), ["o-1:a:do"]);
}

#[test]
fn an_answer_in_place_of_the_service_is_not_its_own() {
    let (consul, service) = (Consul::dev(), Service::start());
    let more = shop(&service).replace("listen: 0, ", "listen: 0, fallback: {body: '{}', status: 200}, ");
    let lictor = sidecar_with(&consul, "saga: true", &more);
    service.kill();
    let mut body = saga("o-1", &["a"]);
    body["steps"][0]["timeout"] = json!("3s");
    let (status, page) = post(&lictor, "?wait=0s", &body);
    assert_eq!(status, 202, "{page}");
    await_status(&lictor, "o-1", "compensating");
    service.run();
    let page = await_status(&lictor, "o-1", "failed");
    assert!(page["reason"].as_str().unwrap().contains("in place of the service"), "{page}");
    // A call that was given up may still come, to a service that has just come back.
    let effects = service.effects();
    assert!(effects.is_empty() || effects == ["/api/a/do", "/api/a/undo"], "{effects:?}");
}

#[test]
fn whoever_is_killed_is_succeeded_by_another_instance() {
    let (consul, service) = (Consul::dev(), Service::start());
    let (one, two) = (instance(&consul, &service), instance(&consul, &service));
    service.will("/api/b/do", &[Fate::Waits { is_after: true }]);
    let body = saga("o-1", &["a", "b", "c"]);
    assert_eq!(post(&one, "?wait=0s", &body).0, 202);
    service.await_waiting(1);
    one.signal(Signal::KILL);
    service.open(true);
    let page = await_taken_over(&two, &body);
    assert_eq!(page["completed"], json!(["a", "b", "c"]));
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do", "/api/c/do"]);
    assert_eq!(keys(&service), ["o-1:a:do", "o-1:b:do", "o-1:b:do", "o-1:c:do"], "only what was begun is asked again");
    eventually_is("it says so", || two.lines("goes on with a saga that nobody worked on").len(), |count| *count == 1);
}

#[test]
fn whoever_stops_in_order_lets_the_call_end_and_another_instance_goes_on_at_once() {
    let (consul, service) = (Consul::dev(), Service::start());
    let (mut one, two) = (instance(&consul, &service), instance(&consul, &service));
    service.will("/api/a/do", &[Fate::Waits { is_after: false }]);
    assert_eq!(post(&one, "?wait=0s", &saga("o-1", &["a", "b"])).0, 202);
    service.await_waiting(1);
    one.signal(Signal::TERM);
    eventually_is("it leaves", || one.lines("leaving").len(), |count| *count == 1);
    service.open(true);
    let began = Instant::now();
    assert!(one.wait().success());
    await_status(&two, "o-1", "completed");
    assert!(began.elapsed() < Duration::from_secs(6), "no session had to end: {:?}", began.elapsed());
    assert_eq!(keys(&service), ["o-1:a:do", "o-1:b:do"], "what was heard is not asked again");
    // Alone it is the next process that goes on.
    service.open(false);
    service.will("/api/a/do", &[Fate::Waits { is_after: false }]);
    let mut two = two;
    assert_eq!(post(&two, "?wait=0s", &saga("o-2", &["a", "b"])).0, 202);
    service.await_waiting(1);
    two.signal(Signal::TERM);
    eventually_is("it leaves", || two.lines("leaving").len(), |count| *count == 1);
    service.open(true);
    assert!(two.wait().success());
    let three = instance(&consul, &service);
    await_status(&three, "o-2", "completed");
}

#[test]
fn while_consul_is_away_nothing_new_is_begun_and_all_goes_on_when_it_is_back() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/a/do", &[Fate::Waits { is_after: false }]);
    assert_eq!(post(&lictor, "?wait=0s", &saga("o-1", &["a", "b"])).0, 202);
    service.await_waiting(1);
    consul.pause(true);
    service.open(true);
    // What was heard is known here, and not there: the session ends first.
    eventually_is(
        "the session is lost",
        || lictor.lines("the session of this sidecar's sagas is lost: whoever finds them goes on with them").len(),
        |count| *count == 1,
    );
    assert_eq!(keys(&service), ["o-1:a:do"], "nothing is called that is not written");
    let (status, page) = post(&lictor, "", &saga("o-2", &["a"]));
    assert_eq!(status, 503, "{page}");
    consul.pause(false);
    assert_eq!(await_taken_over(&lictor, &saga("o-1", &["a", "b"]))["status"], "completed");
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do"]);
    assert!(!keys(&service).contains(&"o-2:a:do".to_owned()), "what was refused is not done later");
    assert_eq!(post(&lictor, "", &saga("o-3", &["a"])).0, 200);
}

#[test]
fn an_agent_that_restarts_is_not_noticed() {
    let (mut consul, service) = (Consul::server(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/a/do", &[Fate::Waits { is_after: false }]);
    assert_eq!(post(&lictor, "?wait=0s", &saga("o-1", &["a", "b"])).0, 202);
    service.await_waiting(1);
    consul.restart();
    service.open(true);
    await_status(&lictor, "o-1", "completed");
    assert_eq!(service.effects(), ["/api/a/do", "/api/b/do"]);
}

#[test]
fn there_are_so_many_at_a_time() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = instance(&consul, &service);
    service.will("/api/a/do", &[Fate::Waits { is_after: false }; 16]);
    for number in 0..16 {
        assert_eq!(post(&lictor, "?wait=0s", &saga(&format!("o-{number}"), &["a"])).0, 202);
    }
    service.await_waiting(16);
    let one_more = saga("more", &["a"]).to_string();
    let answer = ask(&lictor, "POST", "/v1/saga", one_more.as_bytes());
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
    assert_eq!(post(&lictor, "?wait=0s", &saga("o-1", &["a"])).0, 202, "one of those may be asked for");
    let other = instance(&consul, &service);
    assert_eq!(ask(&other, "POST", "/v1/saga", one_more.as_bytes()).status, 200, "another instance has places");
    service.open(true);
    for number in 0..16 {
        await_status(&lictor, &format!("o-{number}"), "completed");
    }
    let large = "a".repeat(250 << 10);
    let mut body = saga("large", &["a"]);
    body["steps"][0]["payload"] = json!({ "order": "large", "text": large });
    assert_eq!(post(&lictor, "", &body).0, 200, "as large as may be");
}

#[test]
fn what_has_ended_a_day_ago_is_deleted_and_what_is_for_people_or_somebody_elses_is_not() {
    let (consul, service) = (Consul::dev(), Service::start());
    let first = instance(&consul, &service);
    assert_eq!(post(&first, "", &saga("young", &["a"])).0, 200);
    let kept = |id: &str, status: &str| json!({ "id": id, "status": status, "digest": "0", "started_ms": 1, "changed_ms": 1, "steps": [] });
    for (id, status) in [("done", "completed"), ("undone", "failed"), ("people", "manual")] {
        consul.put(&format!("/v1/kv/sagas/orders/{id}"), &kept(id, status));
    }
    consul.put("/v1/kv/sagas/orders/else", &json!({ "something": "else" }));
    consul.put("/v1/kv/sagas/orders/name", &kept("another", "running"));
    let mut broken = kept("broken", "running");
    broken["steps"] = json!([{}]);
    consul.put("/v1/kv/sagas/orders/broken", &broken);
    let names = || consul.json("/v1/kv/sagas/orders/?keys");
    let left = ["broken", "else", "name", "people", "young"].map(|id| format!("sagas/orders/{id}"));
    eventually_is("old ones are deleted", names, |names| *names == json!(left));
    eventually_is(
        "what cannot be read is told once",
        || first.lines("a saga that nobody works on is left to other instances").len(),
        |count| *count == 1,
    );
    let (status, page) = get(&first, "broken");
    assert!(status == 502 && page["message"].as_str().unwrap().contains("is no saga"), "{page}");
    assert_eq!(post(&first, "", &saga("next", &["a"])).0, 200);
    assert_eq!(first.lines("a saga that nobody works on is left to other instances").len(), 1);
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let (consul, service) = (Consul::dev(), Service::start());
    let lictor = sidecar_with(&consul, "locks: true", &shop(&service));
    assert_eq!(post(&lictor, "", &saga("o-1", &["a"])).0, 403);
    lictor.rewrite(&yaml(&consul, "saga: true", &shop(&service)));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(post(&lictor, "", &saga("o-1", &["a"])).0, 200);
    lictor.rewrite(&yaml(&consul, "locks: true", &shop(&service)).replace(TOKEN, "another-0123456789"));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(post(&lictor, "", &saga("o-1", &["a"])).0, 401);
}

#[test]
fn what_consuls_token_may_not_do_is_told() {
    let (consul, service) = (Consul::with_acls(), Service::start());
    let lictor = instance(&consul, &service);
    let (status, page) = post(&lictor, "", &saga("o-1", &["a"]));
    assert!(status == 403 && page["message"].as_str().unwrap().contains("token of this sidecar may not"), "{page}");
    assert!(service.calls().is_empty());
}
