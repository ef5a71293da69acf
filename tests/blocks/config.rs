//! Keys of KV.

use lictor_testkit::{Consul, MANAGEMENT, Sidecar, request};
use serde_json::{Value as Json, json};

use super::{LICTOR, Stream, ask, asked, sidecar, yaml};

fn put(consul: &Consul, key: &str, value: &str) {
    let answer = request(&consul.address(), "PUT", &format!("/v1/kv/{key}"), &[], value.as_bytes()).unwrap();
    assert_eq!(answer.text().trim(), "true");
}

fn write(lictor: &Sidecar, key: &str, cas: u64, value: &[u8]) -> (u16, Json) {
    asked(lictor, "PUT", &format!("/v1/config/{key}?cas={cas}"), value)
}

#[test]
fn a_key_is_read_and_written_by_compare_and_set() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "config: write");
    let (status, page) = asked(&lictor, "GET", "/v1/config/database", b"");
    assert_eq!((status, &page["modify_index"]), (404, &json!(0)), "{page}");
    let (status, first) = write(&lictor, "database", 0, br#"{"host": "db"}"#);
    assert_eq!(status, 200, "{first}");
    let index = first["modify_index"].as_u64().unwrap();
    assert_eq!(consul.json("/v1/kv/config/database")[0]["ModifyIndex"], index);
    let (status, page) = asked(&lictor, "GET", "/v1/config/database", b"");
    assert_eq!((status, &page), (200, &json!({ "key": "database", "modify_index": index, "value": { "host": "db" } })));

    for cas in [0, index - 1, index + 1] {
        let (status, page) = write(&lictor, "database", cas, b"{}");
        assert_eq!((status, &page["modify_index"]), (409, &json!(index)), "{page}");
    }
    let (status, second) = write(&lictor, "database", index, b"plain: text\n");
    assert_eq!(status, 200);
    let (_, page) = asked(&lictor, "GET", "/v1/config/database", b"");
    assert_eq!((&page["value"], &page["modify_index"]), (&json!("plain: text\n"), &second["modify_index"]));

    assert_eq!(write(&lictor, "folder/of%20keys/k", 0, b"\xff\x00").0, 200);
    assert_eq!(consul.json("/v1/kv/config/folder/of%20keys/k")[0]["Value"], "/wA=");
    assert_eq!(asked(&lictor, "GET", "/v1/config/folder/of%20keys/k", b"").1["value_base64"], "/wA=");
    let raw = ask(&lictor, "GET", "/v1/config/folder/of%20keys/k?raw", b"");
    let index = consul.json("/v1/kv/config/folder/of%20keys/k")[0]["ModifyIndex"].clone();
    assert_eq!((raw.status, &raw.body[..], raw.header("etag")), (200, &b"\xff\x00"[..], &*format!("\"{index}\"")));
}

#[test]
fn who_has_heard_no_answer_writes_again_and_is_told_whether_it_is_there() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "config: write");
    let (_, first) = write(&lictor, "a", 0, b"1");
    let (status, again) = write(&lictor, "a", 0, b"1");
    let seen = (status, &again["same_value"], &again["modify_index"]);
    assert_eq!(seen, (409, &json!(true), &first["modify_index"]), "{again}");
    let (status, other) = write(&lictor, "a", 0, b"2");
    let seen = (status, &other["same_value"], &other["modify_index"]);
    assert_eq!(seen, (409, &json!(false), &first["modify_index"]), "{other}");
    let (status, next) = write(&lictor, "a", again["modify_index"].as_u64().unwrap(), b"2");
    assert_eq!((status, &consul.json("/v1/kv/config/a")[0]["ModifyIndex"]), (200, &next["modify_index"]));
    // What is written over itself has an index to go on from, too.
    let (status, same) = write(&lictor, "a", next["modify_index"].as_u64().unwrap(), b"2");
    assert_eq!((status, &consul.json("/v1/kv/config/a")[0]["ModifyIndex"]), (200, &same["modify_index"]));
    let (status, none) = write(&lictor, "none", 7, b"");
    let seen = (status, &none["same_value"], &none["modify_index"]);
    assert_eq!(seen, (409, &json!(false), &json!(0)), "no key is not an empty one: {none}");
}

#[test]
fn json_is_shown_as_it_is_written() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "config: read");
    let value = "{\"id\": 123456789012345678901234567890,\r\n\t\"rate\": 1.10, \"a\": 1, \"a\": 2}";
    put(&consul, "config/k", value);
    assert!(ask(&lictor, "GET", "/v1/config/k", b"").text().contains(value));
    assert!(ask(&lictor, "GET", "/v1/config/?recurse", b"").text().contains(value));
    let mut watch = Stream::open(&lictor, "GET", "/v1/config/k?watch");
    let line = value.replace(['\r', '\n', '\t'], " ");
    assert!(watch.line("config").contains(&line));
}

#[test]
fn a_watch_that_consul_refuses_for_good_says_so_and_ends() {
    let consul = Consul::with_acls();
    let rules = r#"key_prefix "config/" { policy = "read" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    consul.put("/v1/acl/policy", &json!({ "Name": "reader", "Rules": rules }));
    let token = consul.answer("PUT", "/v1/acl/token", &json!({ "Policies": [{ "Name": "reader" }] }));
    let secret = token["SecretID"].as_str().unwrap();
    let yaml =
        yaml(&consul, "config: read, services: true", "").replace("consul: {", &format!("consul: {{token: {secret}, "));
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let paths = ["/v1/config/a?watch", "/v1/config/?recurse&watch", "/v1/watch/services/users"];
    let mut watches = paths.map(|path| Stream::open(&lictor, "GET", path));
    for watch in &mut watches {
        watch.next();
    }
    consul.answer("DELETE", &format!("/v1/acl/token/{}", token["AccessorID"].as_str().unwrap()), &Json::Null);
    consul.answer("PUT", "/v1/kv/config/a", &json!(1));
    consul.register("users", "users-1", 1);
    for (mut watch, path) in watches.into_iter().zip(paths) {
        let error = std::iter::from_fn(|| watch.next()).find(|(kind, _)| kind == "error");
        let message = error.unwrap_or_else(|| panic!("{path} says nothing")).1["message"].clone();
        assert!(message.as_str().unwrap().contains("the Consul token of this sidecar may not"), "{path}: {message}");
        assert_eq!(watch.next(), None, "{path}");
        assert_eq!(asked(&lictor, "GET", path, b"").0, 403, "{path}");
    }
}

#[test]
fn of_many_writers_at_once_one_wins() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "config: write");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let lictor = &lictor;
        let all: Vec<_> = (0..12)
            .map(|number| scope.spawn(move || write(lictor, "a", 0, format!("{number}").as_bytes()).0))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let consul = Consul::dev();
    put(&consul, "secret", "not for applications");
    let lictor = sidecar(&consul, "config: write");
    let large = vec![b'v'; (256 << 10) + 1];
    for (method, path, body, status, message) in [
        ("GET", "/v1/config/../secret", &b""[..], 400, "is no key of KV"),
        ("GET", "/v1/config/%2e%2e/secret", b"", 400, "is no key of KV"),
        ("GET", "/v1/config/..%2fsecret", b"", 400, "is no key of KV"),
        ("GET", "/v1/config//secret", b"", 400, "is no key of KV"),
        ("GET", "/v1/config/a%0Ab", b"", 400, "control characters"),
        ("GET", "/v1/config/a/", b"", 400, "is no key of KV"),
        ("PUT", "/v1/config/../secret?cas=0", b"x", 400, "is no key of KV"),
        ("PUT", "/v1/config/a", b"x", 428, "?cas="),
        ("PUT", "/v1/config/a?cas=first", b"x", 400, "modify_index"),
        ("PUT", "/v1/config/a?cas=0", &large, 413, "at most 262144 bytes"),
        ("GET", "/v1/config/nothing", b"", 404, "config/nothing"),
        ("DELETE", "/v1/config/a", b"", 405, "GET, PUT"),
    ] {
        let (seen, page) = asked(&lictor, method, path, body);
        assert_eq!(seen, status, "{method} {path}: {page}");
        assert!(page["message"].as_str().unwrap().contains(message), "{method} {path}: {page}");
        assert_eq!(page["status"], "error");
    }
    assert_eq!(write(&lictor, "a", 0, &large[1..]).0, 200, "as many bytes as are read");
    let reader = sidecar(&consul, "config: read, config_prefix: order-service/");
    let (status, page) = write(&reader, "a", 0, b"x");
    assert!(status == 403 && page["message"].as_str().unwrap().contains("config: write"), "{page}");
    put(&consul, "order-service/timeout", "5");
    assert_eq!(asked(&reader, "GET", "/v1/config/timeout", b"").1["value"], 5, "another prefix is another folder");
    assert_eq!(asked(&reader, "GET", "/v1/config/a", b"").0, 404);
}

#[test]
fn whoever_watches_a_key_is_told_each_change_and_its_end() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "config: write");
    let mut watch = Stream::open(&lictor, "GET", "/v1/config/limits?watch");
    assert_eq!(watch.data("config"), json!({ "key": "limits", "modify_index": 0, "value": null }));
    let (_, written) = write(&lictor, "limits", 0, b"{\"max\": 1}");
    let seen = watch.data("config");
    assert_eq!((&seen["value"], &seen["modify_index"]), (&json!({ "max": 1 }), &written["modify_index"]));
    let mut later = Stream::open(&lictor, "GET", "/v1/config/limits?watch=1");
    assert_eq!(later.data("config"), seen, "whoever comes later is told what is known");
    put(&consul, "config/others", "1");
    put(&consul, "config/limits", "text");
    for watch in [&mut watch, &mut later] {
        assert_eq!(watch.data("config")["value"], "text", "another key's change is not told");
    }
    request(&consul.address(), "DELETE", "/v1/kv/config/limits", &[], b"").unwrap();
    assert_eq!(watch.data("config"), json!({ "key": "limits", "modify_index": 0, "value": null }));
}

#[test]
fn a_folder_is_read_and_watched_as_one() {
    let consul = Consul::dev();
    for (key, value) in [("config/a", "1"), ("config/b/c", "two"), ("config/b/d/e", "3"), ("configuration", "no")] {
        put(&consul, key, value);
    }
    let lictor = sidecar(&consul, "config: read");
    let values = |page: &Json| -> Vec<(String, Json)> {
        let entries = page["entries"].as_array().unwrap().iter();
        entries.map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry["value"].clone())).collect()
    };
    let all = [("a", json!(1)), ("b/c", json!("two")), ("b/d/e", json!(3))].map(|(key, value)| (key.to_owned(), value));
    for (path, expected) in [
        ("/v1/config/?recurse", &all[..]),
        ("/v1/config/b/?recurse", &all[1..]),
        ("/v1/config/b?recurse", &all[1..]),
        ("/v1/config/b/d?recurse", &all[2..]),
        ("/v1/config/nothing?recurse", &[]),
    ] {
        let (status, page) = asked(&lictor, "GET", path, b"");
        assert_eq!((status, &values(&page)[..]), (200, expected), "{path}");
    }
    for path in ["/v1/config/", "/v1/config/..?recurse", "/v1/config/b//d?recurse"] {
        assert_eq!(asked(&lictor, "GET", path, b"").0, 400, "{path}");
    }
    let mut watch = Stream::open(&lictor, "GET", "/v1/config/b/?recurse&watch");
    assert_eq!(values(&watch.data("config")), all[1..]);
    put(&consul, "config/b/c", "2");
    assert_eq!(watch.data("config")["entries"][0]["value"], 2);
    request(&consul.address(), "DELETE", "/v1/kv/config/b/?recurse", &[], b"").unwrap();
    assert_eq!(watch.data("config"), json!({ "entries": [] }));
}

#[test]
fn what_consuls_acls_forbid_is_told_as_that() {
    let consul = Consul::with_acls();
    let blocks = "config: write, locks: true";
    let denied = Sidecar::serve(LICTOR, &yaml(&consul, blocks, "lifecycle: {start_timeout: 200ms}\n")).up();
    for (method, path) in
        [("GET", "/v1/config/a"), ("GET", "/v1/config/a?watch"), ("PUT", "/v1/config/a?cas=0"), ("PUT", "/v1/locks/a")]
    {
        let (status, page) = asked(&denied, method, path, b"");
        assert_eq!(status, 403, "{method} {path}: {page}");
        assert!(page["message"].as_str().unwrap().contains("Permission denied"), "{page}");
    }
    let allowed = yaml(&consul, blocks, "").replace("consul: {", &format!("consul: {{token: {MANAGEMENT}, "));
    let allowed = Sidecar::serve(LICTOR, &allowed).up();
    assert_eq!(write(&allowed, "a", 0, b"1").0, 200);
    assert_eq!(asked(&allowed, "GET", "/v1/config/a", b"").1["value"], 1);
    assert!(Stream::open(&allowed, "PUT", "/v1/locks/a").data("held")["fencing_token"].is_u64());
}
