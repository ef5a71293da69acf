//! Routes that services in Consul claim by tags, within what the configuration allows each.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lictor_testkit::{
    Authority, Consul, RawServer, Sidecar, connect, eventually, eventually_is, get, read_head, scratch,
};
use serde_json::{Value as Json, json};

use crate::issuer::{SECRET, claims, shared};
use crate::{Ask, BOTH, LICTOR, Version, ask, echo, field, says};

/// A service with these tags, behind this server.
pub(crate) fn register(consul: &Consul, service: &str, server: &RawServer, tags: &[&str]) {
    let body = json!({ "Name": service, "ID": service, "Address": "127.0.0.1", "Port": server.port(), "Tags": tags });
    consul.put("/v1/agent/service/register", &body);
}

/// Routes of the file, and what services may claim.
fn yaml(consul: &Consul, file: &RawServer, keys: &str, allow: &str) -> String {
    format!(
        "registration: off\nservice: edge\nconsul: {{address: '{}', guard: {{on_empty: drop}}}}\nlifecycle: {{start_timeout: 3s}}\nupstreams: {{file: {{static: ['127.0.0.1:{}']}}}}\ngateway:\n  listen: {{address: 127.0.0.1:0}}\n{keys}  from_consul: {{allow: {allow}}}\n  routes: [{{path: /file/*, to: file}}, {{path: /api/orders/admin, to: file}}]\n",
        consul.url(),
        file.port()
    )
}

/// Who answers; else the status.
fn who(lictor: &Sidecar, version: Version, asked: Ask<'_>) -> String {
    let told = ask(lictor, version, asked);
    if told.status == 200 { told.server().to_owned() } else { told.status.to_string() }
}

fn await_who(lictor: &Sidecar, target: &str, expected: &str) {
    for version in BOTH {
        eventually_is(target, || who(lictor, version, Ask::get(target)), |seen| seen == expected);
    }
}

fn refused(lictor: &Sidecar) -> Vec<Json> {
    lictor.page("/gateway/routes")["refused"].as_array().cloned().unwrap_or_default()
}

fn claims_that_are(lictor: &Sidecar, state: &str) -> u64 {
    lictor.metric("lictor_gateway_claims", &[("state", state)]) as u64
}

/// Why the tag of this service is no route.
fn await_refused(lictor: &Sidecar, service: &str, why: &str) {
    let told = || refused(lictor).into_iter().find(|row| row["service"] == service);
    let told = eventually_is(why, told, Option::is_some).unwrap();
    assert!(told["reason"].as_str().unwrap().contains(why), "{told}");
}

#[test]
fn a_tag_is_a_route_while_it_is_there_and_nothing_of_the_file_is_its() {
    let (consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, "", "{orders: /api/orders/*}")).up();
    await_who(&lictor, "/file/a", "file");
    await_who(&lictor, "/api/orders/1", "404");
    let began = Instant::now();
    register(&consul, "orders", &orders, &["v1", "lictor.route=/api/orders/* strip=/api methods=GET,POST"]);
    eventually_is("it is there", || who(&lictor, Version::Http1, Ask::get("/api/orders/1")), |seen| seen == "orders");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}"); // 50 ms where nothing else runs
    for version in BOTH {
        let told = ask(&lictor, version, Ask::get("/api/orders/1?x"));
        assert_eq!((told.server(), told.target()), ("orders", "/orders/1?x"), "{version:?}");
        let put = Ask { method: "PUT", ..Ask::get("/api/orders/1") };
        assert_eq!(who(&lictor, version, put), "404", "{version:?}: it claims GET and POST");
        assert_eq!(who(&lictor, version, Ask::get("/api/orders/admin")), "file", "{version:?}");
        assert_eq!(who(&lictor, version, Ask::get("/file/a")), "file", "{version:?}");
    }
    let table = says(&["routes", "-c", lictor.file().to_str().unwrap(), "--admin", &lictor.admin()]);
    assert!(table.contains("consul:orders") && table.contains("/api/orders/*"), "{table}");
    assert_eq!(claims_that_are(&lictor, "route"), 1);
    assert_eq!(claims_that_are(&lictor, "refused"), 0);
    assert_eq!(lictor.page("/consul")["catalog"]["claims"], 1);
    consul.deregister("orders");
    await_who(&lictor, "/api/orders/1", "404");
    await_who(&lictor, "/file/a", "file");
    assert!(lictor.page("/upstreams").get("orders").is_none(), "nobody watches it any more");
}

#[test]
fn a_tag_that_is_no_good_is_told_with_its_reason_and_hurts_no_other() {
    let (consul, file) = (Consul::dev(), echo("file"));
    let good = echo("good");
    let allow = "{good: /good/*, twice: /twice/*, fixed: /fixed/*, named: /named/*, asked: /asked/*, odd: [/api/orders/*, shop.example/shop/*], one: /one, 'pay-*': /pay/*}";
    let yaml = yaml(&consul, &file, &format!("  auth: {{jwt: {{secret: {SECRET}}}}}\n"), allow)
        .replace(
            "upstreams: {",
            "upstreams: {fixed: {static: ['127.0.0.1:9']}, named: {service: other}, asked: {query: shop}, ",
        )
        .replace("to: file}", "to: file, auth: none}");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let table = [
        ("good", "/good/*", ""),
        ("stranger", "/good/mine", "outside of what"),
        ("stranger", "/file/x", "outside of what"),
        ("payx", "/pay/a", "outside of what"),
        ("pay-a", "/pays", "outside of what"),
        ("one", "/one/*", "outside of what"),
        ("odd", "/shop/a", "outside of what"),
        ("odd", "evil.example/shop/a", "outside of what"),
        ("odd", "/api/orders/admin", "would take requests from the configuration's `/api/orders/admin`"),
        ("odd", "shop.example/api/orders/*", "would take requests from the configuration's `/api/orders/admin`"),
        ("odd", "/api/orders/x auth=none", "`auth` is none of"),
        ("odd", "/api/orders/x auth", "`auth` is none of"),
        ("odd", "/api/orders/x Auth=off", "`Auth` is none of"),
        ("odd", "/api/orders/x to=good", "`to` is none of"),
        ("odd", "/api/orders/../x", "no request matches"),
        ("odd", "/api/orders/a%2f..%2f..%2ffile", "no request matches"),
        ("odd", "", "has no path"),
        ("odd", "/api/orders/x strip=/b", "does not begin with"),
        ("odd", "/api/orders/\u{1b}[31m", "no request matches"),
        ("odd", "/api/orders/good", ""),
        ("fixed", "/fixed/a", "leads elsewhere"),
        ("named", "/named/a", "leads elsewhere"),
        ("asked", "/asked/a", "leads elsewhere"),
    ];
    for service in ["good", "stranger", "payx", "pay-a", "one", "odd", "fixed", "named", "asked"] {
        let own = table.iter().filter(|(own, ..)| *own == service);
        let tags: Vec<String> = own.map(|(_, tag, _)| format!("lictor.route={tag}")).collect();
        register(&consul, service, &good, &tags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let bad = table.iter().filter(|(.., why)| !why.is_empty());
    let rows = eventually_is("all are told", || refused(&lictor), |rows| rows.len() == bad.clone().count());
    for (service, tag, why) in bad {
        let tag = format!("lictor.route={tag}");
        let row = rows.iter().find(|row| row["service"] == *service && row["tag"] == *tag);
        let reason = row.and_then(|row| row["reason"].as_str());
        assert!(reason.is_some_and(|reason| reason.contains(why)), "{service} {tag}: {reason:?}");
    }
    // A route from a tag asks what the gateway asks.
    let token = format!("Bearer {}", shared(&claims(json!({}))));
    for version in BOTH {
        assert_eq!(who(&lictor, version, Ask::get("/good/a")), "401", "{version:?}");
        let with = Ask { fields: &[("authorization", &token)], ..Ask::get("/good/a") };
        assert_eq!(who(&lictor, version, with), "good", "{version:?}");
        assert_eq!(who(&lictor, version, Ask { target: "/api/orders/good", ..with }), "good", "{version:?}");
        assert_eq!(who(&lictor, version, Ask { target: "/api/orders/x", ..with }), "404", "{version:?}");
        assert_eq!(who(&lictor, version, Ask::get("/file/a")), "file", "{version:?}");
    }
    let told = lictor.lines("a service's tag is no route of the gateway");
    assert!(told.iter().any(|line| line["service"] == "odd" && line["reason"].is_string()), "{told:?}");
    assert!(
        !lictor.log().contains('\u{1b}') && lictor.log().contains("further tags are no routes"),
        "{}",
        lictor.log()
    );
    let table = says(&["routes", "-c", lictor.file().to_str().unwrap(), "--admin", &lictor.admin()]);
    assert!(table.contains("tags that are no routes: 21") && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn a_service_has_sixteen_routes_at_most() {
    let (consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, "", "{orders: /api/orders/*, carts: /api/carts/*}")).up();
    let tags: Vec<String> = (10..27).map(|number| format!("lictor.route=/api/orders/{number}")).collect();
    register(&consul, "orders", &orders, &tags.iter().map(String::as_str).collect::<Vec<_>>());
    register(&consul, "carts", &orders, &["lictor.route=/api/carts/*"]);
    await_refused(&lictor, "orders", "more than 16 routes of one service");
    await_who(&lictor, "/api/carts/1", "orders"); // another's are its own
    let answers =
        (10..27).filter(|number| who(&lictor, Version::Http2, Ask::get(&format!("/api/orders/{number}"))) == "orders");
    assert_eq!((answers.count(), claims_that_are(&lictor, "route"), refused(&lictor).len()), (16, 17, 1));
}

#[test]
fn of_two_services_the_older_keeps_a_place_until_it_goes() {
    let (consul, file, one, two) = (Consul::dev(), echo("file"), echo("one"), echo("two"));
    let allow = "{zeta: /both/*, alpha: /both/*}";
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, "", allow)).up();
    register(&consul, "zeta", &one, &["lictor.route=/both/*"]);
    await_who(&lictor, "/both/a", "one");
    register(&consul, "alpha", &two, &["lictor.route=/both/{id}", "lictor.route=/both/*"]);
    await_refused(&lictor, "alpha", "`zeta` has claimed this place before, by `/both/*`");
    await_who(&lictor, "/both/a/b", "one");
    await_who(&lictor, "/both/a", "two"); // the more specific one is not the same place
    assert_eq!(lictor.post("/reload").status, 200);
    await_who(&lictor, "/both/a/b", "one");
    consul.deregister("zeta");
    await_who(&lictor, "/both/a/b", "two");
    register(&consul, "zeta", &one, &["lictor.route=/both/*"]);
    await_refused(&lictor, "zeta", "`alpha` has claimed this place before");
    await_who(&lictor, "/both/a/b", "two");
}

#[test]
fn a_wider_route_gives_a_space_away_but_not_if_it_asks_for_more() {
    let (consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let with = |auth: &str| {
        let keys = format!("  auth: {{jwt: {{secret: {SECRET}}}, mode: optional}}\n");
        yaml(&consul, &file, &keys, "{orders: /api/orders/*}")
            .replace("{path: /api/orders/admin, to: file}", &format!("{{path: /api/*, to: file{auth}}}"))
    };
    let lictor = Sidecar::serve(LICTOR, &with("")).up();
    register(&consul, "orders", &orders, &["lictor.route=/api/orders/*"]);
    await_who(&lictor, "/api/orders/1", "orders");
    await_who(&lictor, "/api/other", "file");
    for (auth, expected) in [
        (", auth: {mode: required, require: {roles: [admin]}}", "401"),
        (", auth: required", "401"),
        (", auth: none", "orders"),
        (", auth: optional", "orders"),
        (", when: {plan: gold}", "401"),
    ] {
        lictor.rewrite(&with(auth));
        assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
        await_who(&lictor, "/api/orders/1", expected);
        if expected == "401" {
            let why = if auth.contains("when") {
                "which is for `plan = gold` alone"
            } else {
                "whose `auth` is another than the gateway's"
            };
            await_refused(&lictor, "orders", why);
        }
    }
}

#[test]
fn without_consul_the_last_routes_stay_also_through_a_reload_and_a_restart() {
    let (mut consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let snapshot = scratch("claims").join("snapshot");
    let yaml = yaml(&consul, &file, "", "{orders: /api/orders/*, zeta: /both, alpha: /both}")
        .replace("guard:", &format!("snapshot: {{path: '{}'}}, guard:", snapshot.display()));
    let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
    register(&consul, "orders", &orders, &["lictor.route=/api/orders/*"]);
    register(&consul, "zeta", &orders, &["lictor.route=/both"]);
    await_who(&lictor, "/both", "orders");
    register(&consul, "alpha", &file, &["lictor.route=/both"]);
    await_refused(&lictor, "alpha", "`zeta` has claimed this place before");
    await_who(&lictor, "/api/orders/1", "orders");
    consul.kill();
    eventually_is("Consul is lost", || lictor.page("/consul")["up"].clone(), |up| *up == false);
    await_who(&lictor, "/api/orders/1", "orders");
    lictor.rewrite(&yaml.replace("path: /file/*", "path: /files/*"));
    assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
    await_who(&lictor, "/files/a", "file");
    await_who(&lictor, "/api/orders/1", "orders");
    assert!(lictor.terminate().success());
    let again = Sidecar::serve(LICTOR, &yaml).up();
    await_who(&again, "/file/a", "file");
    await_who(&again, "/api/orders/1", "orders");
    await_who(&again, "/both", "orders"); // who was first is remembered too
    assert_eq!(again.page("/consul")["catalog"]["source"], "snapshot");
    let alone = Sidecar::serve(LICTOR, &yaml.replace("snapshot: {path", "snapshot: {max_age: 1ms, path")).up();
    await_who(&alone, "/file/a", "file");
    await_who(&alone, "/api/orders/1", "404");
    assert!(alone.log().contains("nothing is known of the routes that services claim yet"), "{}", alone.log());
}

#[test]
fn routes_are_counted_as_the_place_that_is_allowed_and_shown_as_they_are_claimed() {
    let (consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let lictor =
        Sidecar::serve(LICTOR, &yaml(&consul, &file, "", "{orders: [/api/orders/*, shop.example/shop/*]}")).up();
    let tags =
        ["lictor.route=/api/orders/a/*", "lictor.route=/api/orders/b methods=GET", "lictor.route=shop.example/shop/c"];
    register(&consul, "orders", &orders, &tags);
    let claimed = [
        ("/api/orders/a/1", "/api/orders/a/*"),
        ("/api/orders/b", "/api/orders/b"),
        ("/shop/c", "shop.example/shop/c"),
    ];
    for (target, place) in claimed {
        await_who(&lictor, target, "orders");
        let told = says(&["explain", "GET", &format!("http://shop.example{target}"), "--admin", &lictor.admin()]);
        assert!(told.contains(&format!("the route {place}, to orders ")), "{told}");
        let (host, path) = match place.strip_prefix("shop.example") {
            Some(path) => ("shop.example", path),
            None => ("*", place),
        };
        let table = says(&["routes", "-c", lictor.file().to_str().unwrap(), "--admin", &lictor.admin()]);
        let is_it = |line: &str| line.split_whitespace().take(2).eq([host, path]);
        assert!(table.lines().any(is_it), "{host} {path}: {table}");
    }
    let counted =
        |route: &str| lictor.metric("lictor_upstream_requests_total", &[("upstream", "orders"), ("route", route)]);
    eventually_is(
        "they are counted",
        || (counted("/api/orders/*"), counted("shop.example/shop/*")),
        |(path, host)| *path > 3.5 && *host > 1.5,
    );
    let text = get(&lictor.admin(), "/metrics").unwrap().text();
    assert!(claimed.iter().all(|(_, place)| !text.contains(&format!("\"{place}\""))), "{text}");
    assert!(lictor.metric("lictor_consul_watch_index", &[("watch", "tags:lictor.route")]) > 0.5, "{text}");
}

#[test]
fn a_certificate_that_is_no_good_any_more_keeps_no_route_out() {
    let (consul, file, orders, authority) = (Consul::dev(), echo("file"), echo("orders"), Authority::new());
    let pair = authority.issue("edge", &["shop.example"]);
    let keys = format!("  tls: {{cert: {}, key: {}}}\n", pair.cert.display(), pair.key.display());
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, &keys, "{orders: /api/orders/*}")).up();
    std::fs::write(&pair.cert, "broken").unwrap();
    register(&consul, "orders", &orders, &["lictor.route=/api/orders/*"]);
    eventually_is("it is a route", || claims_that_are(&lictor, "route"), |count| *count == 1);
    assert_eq!(lictor.post("/reload").status, 422, "a reload says what is wrong with it");
}

#[test]
fn what_began_on_a_route_goes_on_when_the_route_goes() {
    let (consul, file) = (Consul::dev(), echo("file"));
    let events = RawServer::start(|mut stream| {
        let head = read_head(&mut stream);
        if head.is_empty() {
            return;
        }
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each byte that the client has sent is an event.
        let _ = stream.write_all(b"4\r\none\n\r\n");
        let mut size = [0; 3];
        while stream.read_exact(&mut size).is_ok() {
            let mut rest = [0; 3];
            if stream.read_exact(&mut rest).is_err() || stream.write_all(b"4\r\ntwo\n\r\n").is_err() {
                return;
            }
        }
    });
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, "", "{events: /events}")).up();
    register(&consul, "events", &events, &["lictor.route=/events"]);
    eventually_is(
        "it is there",
        || ask(&lictor, Version::Http1, Ask { method: "HEAD", ..Ask::get("/events") }).status,
        |status| *status == 200,
    );
    let mut stream = connect(&lictor.address("gateway"));
    stream.write_all(b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut event = [0; 9];
    stream.read_exact(&mut event).unwrap();
    assert_eq!(field(&head, "content-type"), Some("text/event-stream"));
    consul.deregister("events");
    let rows = || lictor.page("/gateway/routes")["routes"].as_array().map(Vec::len);
    eventually_is("the route is gone", rows, |count| *count == Some(2));
    await_who(&lictor, "/events", "404");
    for _ in 0..3 {
        stream.write_all(b"1\r\nx\r\n").unwrap();
        stream.read_exact(&mut event).unwrap();
        assert_eq!(&event, b"4\r\ntwo\n\r\n");
    }
}

#[test]
fn a_token_that_may_not_read_services_has_no_routes_from_them_and_holds_nothing_up() {
    use lictor_testkit::MANAGEMENT;
    let (consul, file, orders) = (Consul::with_acls(), echo("file"), echo("orders"));
    let yaml = yaml(&consul, &file, "", "{orders: /api/orders/*}");
    register(&consul, "orders", &orders, &["lictor.route=/api/orders/*"]);
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    await_who(&lictor, "/file/a", "file");
    await_who(&lictor, "/api/orders/1", "404");
    assert!(!lictor.log().contains("nothing is known of the routes"), "{}", lictor.log());
    let allowed = Sidecar::serve(LICTOR, &yaml.replace("guard:", &format!("token: {MANAGEMENT}, guard:"))).up();
    await_who(&allowed, "/api/orders/1", "orders");
}

#[test]
fn it_is_switched_on_and_off_with_another_tag_and_other_spaces_by_a_reload() {
    let (consul, file, orders) = (Consul::dev(), echo("file"), echo("orders"));
    let on = yaml(&consul, &file, "", "{'*': /api/orders/*}");
    let off = on.replace("from_consul: {allow: {'*': /api/orders/*}}", "from_consul: off");
    assert_ne!(on, off);
    register(
        &consul,
        "orders",
        &orders,
        &["lictor.route=/api/orders/*", "edge.route=/api/orders/edge", "lictor.route=/x"],
    );
    let lictor = Sidecar::serve(LICTOR, &on).up();
    await_who(&lictor, "/api/orders/1", "orders");
    let reload = |yaml: &str| {
        lictor.rewrite(yaml);
        assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
    };
    reload(&off);
    await_who(&lictor, "/api/orders/1", "404");
    assert_eq!(lictor.page("/consul")["catalog"], Json::Null);
    reload(&on.replace("from_consul: {", "from_consul: {tag: edge.route, "));
    await_who(&lictor, "/api/orders/edge", "orders");
    await_who(&lictor, "/api/orders/1", "404");
    let tag = [("LICTOR_GATEWAY_FROM_CONSUL_TAG", "edge.route")];
    await_who(&Sidecar::start(LICTOR, &on, &tag, &["serve"], &[]).up(), "/api/orders/edge", "orders");
    reload(&on.replace("/api/orders/*}}", "/x}}"));
    await_who(&lictor, "/x", "orders");
    await_who(&lictor, "/api/orders/1", "404");
    reload(&on.replace("from_consul: {", "from_consul: {max: 1, ").replace("/api/orders/*}}", "[/x, /api/*]}}"));
    await_refused(&lictor, "orders", "more than 1 routes from Consul");
}

#[test]
fn a_thousand_services_that_come_and_go_are_bounded_and_stop_nobody() {
    let (consul, file) = (Consul::dev_with("limits { http_max_conns_per_client = 1000 }\n"), echo("file"));
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, &file, "", "{'s-*': /s/*}")).up();
    let began = Instant::now();
    let far = json!({ "Node": "far", "Address": "127.0.0.1" });
    consul.put("/v1/catalog/register", &far);
    for round in 0..2 {
        for part in 0..20 {
            let service = |number: usize| {
                let tags = [format!("lictor.route=/s/{round}/{number}")];
                let name = format!("s-{number}");
                let service =
                    json!({ "Service": name, "ID": name, "Address": "127.0.0.1", "Port": file.port(), "Tags": tags });
                json!({ "Service": { "Verb": "set", "Node": "far", "Service": service } })
            };
            // At most 64 in one go (Consul: "Transactions").
            let all: Vec<Json> = (part * 50..(part + 1) * 50).map(service).collect();
            consul.put("/v1/txn", &Json::Array(all));
            assert_eq!(who(&lictor, Version::Http2, Ask::get("/file/a")), "file");
        }
    }
    let page = eventually("all are seen", || {
        let page = lictor.page("/gateway/routes");
        if page["refused_in_all"] == 900 { Ok(page) } else { Err(page["refused_in_all"].clone()) }
    });
    assert_eq!(page["routes"].as_array().unwrap().len(), 102);
    let why = page["refused"][0]["reason"].as_str().unwrap();
    assert!(why.contains("more than 100 routes from Consul"), "{why}");
    assert_eq!(claims_that_are(&lictor, "refused"), 900);
    let changes = lictor.lines("the routes that services claim have changed").len() as u64;
    assert!(changes <= 20 + 12 * (1 + began.elapsed().as_secs()), "{changes} changes in {:?}", began.elapsed());
    assert!(lictor.resident() < 128 << 20, "{} bytes", lictor.resident());
    eventually_is(
        "one that was taken answers",
        || {
            let taken = lictor.page("/gateway/routes");
            let taken = taken["routes"].as_array().unwrap().iter().find(|row| row["from"] != "configuration").cloned();
            who(&lictor, Version::Http1, Ask::get(taken.unwrap()["path"].as_str().unwrap()))
        },
        |seen| seen == "file",
    );
    consul.put("/v1/catalog/deregister", &json!({ "Node": "far" }));
    eventually_is(
        "all are gone",
        || lictor.page("/gateway/routes"),
        |page| page["refused_in_all"] == 0 && page["routes"].as_array().unwrap().len() == 2,
    );
}
