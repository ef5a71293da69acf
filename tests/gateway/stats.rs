//! What the admin listener tells of a gateway: in the words of gateways that were written by hand, and for the dashboard.

use lictor_testkit::{RawServer, Sidecar, eventually_is, free_ports, get};
use serde_json::{Value as Json, json};

use crate::issuer::SECRET;
use crate::{Ask, BOTH, LICTOR, Version, ask, configuration, echo, gateway_of};

/// What a key's value is, in the words of JavaScript's `typeof`.
fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "undefined",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) | Json::Object(_) => "object",
    }
}

/// `res.json({ routes: [..{ route, target, serviceName, auth }], uptime: process.uptime(), memoryUsage: process.memoryUsage() })`
const STATS: [(&str, &str); 4] =
    [("/routes", "object"), ("/uptime", "number"), ("/memoryUsage", "object"), ("/memoryUsage/rss", "number")];
/// `res.json({ status: 'healthy', timestamp: new Date().toISOString(), uptime: process.uptime(), routes: this.routes.size })`
const HEALTH: [(&str, &str); 4] =
    [("/status", "string"), ("/timestamp", "string"), ("/uptime", "number"), ("/routes", "number")];

/// The routes of the fourth document's example, and one at a URL, in this configuration's words.
fn shop(one: &RawServer) -> Sidecar {
    let [nobody] = free_ports();
    let routes = format!(
        "    - {{path: /api/users/*, to: user-service, auth: required}}
    - {{path: /api/products/*, methods: [GET, POST], to: product-service}}
    - {{path: /api/orders/*, to: order-service, auth: optional}}
    - {{host: shop.example, path: /static/*, to: 'http://127.0.0.1:{}'}}
    - {{path: /old/*, redirect: {{to: 'https://shop.example/new'}}}}\n",
        one.port()
    );
    let keys = format!("  auth: {{jwt: {{secret: {SECRET}}}, mode: none}}\n");
    let yaml = configuration(&[], "", &keys, &routes);
    let more = format!("consul: {{address: 'http://127.0.0.1:{nobody}'}}\nlifecycle: {{start_timeout: 100ms}}\n");
    Sidecar::serve(LICTOR, &(more + &yaml))
}

#[test]
fn routes_are_told_in_the_shape_that_gateways_by_hand_had() {
    let one = echo("one");
    let lictor = shop(&one).up();
    let page = lictor.page("/gateway/stats");
    for (pointer, wanted) in STATS {
        assert_eq!(page.pointer(pointer).map(kind), Some(wanted), "{pointer}: {page}");
    }
    assert!(page["uptime"].as_f64().unwrap() >= 0.0 && page["memoryUsage"]["rss"].as_u64().unwrap() > 1 << 20);
    let target = json!(format!("http://127.0.0.1:{}", one.port()));
    let mut rows: Vec<Json> = page["routes"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["route"].to_string());
    let expected = [
        ("ALL /api/orders/*", "serviceName", json!("order-service"), false),
        ("ALL /api/users/*", "serviceName", json!("user-service"), true),
        ("ALL /old/*", "target", Json::Null, false),
        ("ALL shop.example/static/*", "target", target, false),
        ("GET /api/products/*", "serviceName", json!("product-service"), false),
        ("POST /api/products/*", "serviceName", json!("product-service"), false),
    ];
    assert_eq!(rows.len(), expected.len(), "{page}");
    for (row, (route, key, value, auth)) in rows.iter().zip(expected) {
        assert_eq!((&row["route"], &row[key], &row["auth"]), (&json!(route), &value, &json!(auth)), "{row}");
        let other = if key == "target" { "serviceName" } else { "target" };
        assert!(row.get(other).is_none(), "what a route has not is left out, as JSON.stringify does: {row}");
    }
    // The older registries' page has the same keys, beside its own.
    let all = lictor.page("/stats");
    assert_eq!((&all["routes"], kind(&all["uptime"]), kind(&all["services"])), (&page["routes"], "number", "object"));
}

#[test]
fn health_of_a_gateway_has_the_old_keys_and_says_how_many_routes_there_are() {
    let one = echo("one");
    let lictor = shop(&one).up();
    let page = lictor.page("/health");
    for (pointer, wanted) in HEALTH {
        assert_eq!(page.pointer(pointer).map(kind), Some(wanted), "{pointer}: {page}");
    }
    assert_eq!((&page["status"], &page["routes"]), (&json!("healthy"), &json!(5)), "{page}");
    let sidecar =
        Sidecar::serve(LICTOR, "registration: off\nupstreams: {users: {listen: 0, static: ['127.0.0.1:1']}}\n").up();
    assert!(sidecar.page("/health").get("routes").is_none());
    assert_eq!(get(&sidecar.admin(), "/gateway/stats").unwrap().status, 404);
    assert!(sidecar.page("/stats").get("routes").is_none());
}

#[test]
fn they_are_not_told_to_strangers() {
    let [public] = free_ports();
    let yaml = format!(
        "registration: off\nadmin: {{listen: '127.0.0.1:0', public: '127.0.0.1:{public}'}}\ngateway: {{listen: '127.0.0.1:0', routes: [{{path: /*, respond: {{body: hi}}}}]}}\n"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let public = format!("127.0.0.1:{public}");
    for (path, status) in [("/health", 200), ("/gateway/stats", 404), ("/stats", 404), ("/ui/data", 404)] {
        assert_eq!(get(&public, path).unwrap().status, status, "{path}");
    }
    assert_eq!(get(&lictor.address("gateway"), "/gateway/stats").unwrap().text(), "hi", "a route's like any path");
    assert_eq!(get(&lictor.admin(), "/gateway/stats").unwrap().status, 200);
}

#[test]
fn what_became_of_a_routes_requests_is_told() {
    let (one, copies) = (echo("one"), echo("copies"));
    let routes = "    - {path: /few, to: one, limit: {rate: 2/1h, by: []}, mirror: {to: copies}}
    - {path: /bad, to: bad}
    - {path: /told, respond: {body: told}}\n";
    let [nobody] = free_ports();
    let more = format!(
        "  copies: {{static: ['127.0.0.1:{}']}}\n  bad: {{static: ['127.0.0.1:{nobody}'], retry: off}}\n",
        copies.port()
    );
    let lictor = Sidecar::serve(LICTOR, &configuration(&[("one", &one)], &more, "", routes)).up();
    let statuses = |target| BOTH.map(|version| [(); 2].map(|()| ask(&lictor, version, Ask::get(target)).status));
    assert_eq!(statuses("/few"), [[200, 200], [429, 429]]);
    assert_eq!(statuses("/bad"), [[502, 502], [502, 502]]);
    assert_eq!(statuses("/told"), [[200, 200], [200, 200]]);
    let requests = |route: &str| {
        let page = lictor.page("/gateway/stats");
        let row = page["routes"].as_array().unwrap().iter().find(|row| row["route"] == route).cloned();
        row.unwrap()["requests"].clone()
    };
    for (route, expected) in [
        ("ALL /few", json!({"total": 4, "failed": 0, "reasons": {"rate_limited": 2}})),
        ("ALL /bad", json!({"total": 4, "failed": 4, "reasons": {"connect_refused": 4}})),
        ("ALL /told", json!({"total": 4, "failed": 0, "reasons": {}})),
    ] {
        eventually_is(&format!("{route}; copies are nobody's requests"), || requests(route), |told| *told == expected);
    }
}

#[test]
fn a_frame_has_the_routes_that_are_asked_for_with_refusals_and_limits() {
    let one = echo("one");
    let keys = format!("  auth: {{jwt: {{secret: {SECRET}}}, mode: none}}\n  limit: {{rate: 1000/1s, by: []}}\n");
    let routes = "    - {path: /few, to: one, limit: {rate: 4/1h, by: [route]}}
    - {path: /each, to: one, limit: {rate: 4/1h, by: [ip]}}
    - {path: /who, to: one, auth: required}
    - {path: /quiet, respond: {body: quiet}}\n";
    let lictor = gateway_of(&[("one", &one)], &keys, routes);
    let row = |page: &Json, route: &str| {
        let rows = page["gateway"]["rows"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["route"] == route).unwrap_or_default()
    };
    let ask_all = || {
        for (target, status) in [("/who", 401), ("/each", 200), ("/none", 404)] {
            assert!([status, 429].contains(&ask(&lictor, Version::Http1, Ask::get(target)).status), "{target}");
        }
    };
    assert_eq!([(); 2].map(|()| ask(&lictor, Version::Http2, Ask::get("/few")).status), [200, 200]);
    let page = eventually_is(
        "requests are seen while they come",
        || {
            ask_all();
            lictor.page("/ui/data")
        },
        |page| row(page, "/who")["reasons"][0]["total"].as_u64().is_some_and(|count| count >= 2),
    );
    let gateway = &page["gateway"];
    assert_eq!((&gateway["routes"], gateway["rows"].as_array().unwrap().len()), (&json!(4), 5), "{gateway}");
    assert_eq!(row(&page, "/who")["reasons"][0]["reason"], "unauthenticated", "{gateway}");
    assert_eq!(row(&page, "")["reasons"][0]["reason"], "no_route", "{gateway}");
    let few = row(&page, "/few");
    assert_eq!((&few["to"], &few["total"], &few["rate"]), (&json!("one"), &json!(2), &json!(0.0)), "{few}");
    let limit = &few["limits"][0];
    assert_eq!((&limit["requests"], &limit["by"], &limit["taken"]), (&json!(4), &json!("route"), &json!(0.5)), "{few}");
    assert!(row(&page, "/each")["limits"][0]["taken"].is_null(), "each client has its own");
    assert_eq!(row(&page, "/quiet")["total"], 0);
    assert_eq!(gateway["limits"][0]["requests"], 1000);
    assert!(gateway["limits"][0]["rates"]["admitted"].is_number(), "{gateway}");
}

#[test]
fn of_routes_that_are_gone_nothing_is_told_and_of_a_limit_that_several_have_once() {
    let yaml = |more: &str| {
        let routes = "    - {path: /here, respond: {body: x}}
    - {path: /x, methods: [GET], respond: {body: x}}
    - {path: /x, methods: [POST], respond: {body: x}, limit: 2/1s}
    - {path: /x, methods: [PUT], respond: {body: x}}\n";
        configuration(&[], "", "  limit: {rate: 1000/1s, by: []}\n", &(routes.to_owned() + more))
    };
    let lictor = Sidecar::serve(LICTOR, &yaml("    - {path: /gone, respond: {body: x}}\n")).up();
    for (target, status) in [("/here", 200), ("/gone", 200), ("/none", 404)] {
        assert_eq!(ask(&lictor, Version::Http1, Ask::get(target)).status, status, "{target}");
    }
    let rows = || lictor.page("/ui/data")["gateway"]["rows"].as_array().cloned().unwrap_or_default();
    let totals = || {
        let all =
            rows().into_iter().map(|row| (row["route"].as_str().unwrap_or_default().to_owned(), row["total"].clone()));
        let mut all: Vec<_> = all.collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        json!(all)
    };
    let before = json!([["", 1], ["/gone", 1], ["/here", 1], ["/x", 0]]);
    eventually_is("all are counted", totals, |seen| *seen == before);
    lictor.rewrite(&yaml(""));
    assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
    eventually_is("it is gone", totals, |seen| *seen == json!([["", 1], ["/here", 1], ["/x", 0]]));
    let shared = rows().into_iter().find(|row| row["route"] == "/x").unwrap();
    let rates: Vec<_> = shared["limits"].as_array().unwrap().iter().map(|limit| limit["requests"].clone()).collect();
    assert_eq!(rates, [1000, 2], "{shared}");
}

#[test]
fn ten_thousand_routes_are_fifty_on_the_page() {
    let route = |number| format!("    - {{path: /r{number}/*, respond: {{body: x}}, limit: 1000/1s}}\n");
    let routes: Vec<String> = (0..10_000).map(route).collect();
    let lictor = gateway_of(&[], "", &routes.concat());
    for number in (0..10_000).step_by(100) {
        assert_eq!(ask(&lictor, Version::Http1, Ask::get(&format!("/r{number}/"))).status, 200);
    }
    // The busiest come first, wherever they stand.
    let busy = |page: &Json| page["gateway"]["rows"][0]["route"] == "/r9900/*";
    let page = eventually_is(
        "the busiest is first",
        || {
            for _ in 0..20 {
                ask(&lictor, Version::Http1, Ask::get("/r9900/"));
            }
            get(&lictor.admin(), "/ui/data").unwrap()
        },
        |answer| busy(&serde_json::from_str(&answer.text()).unwrap()),
    );
    assert!(page.text().len() < 64 << 10, "{} bytes", page.text().len());
    let page: Json = serde_json::from_str(&page.text()).unwrap();
    assert_eq!((page["gateway"]["rows"].as_array().unwrap().len(), &page["gateway"]["routes"]), (50, &json!(10_000)));
    let stats = lictor.page("/gateway/stats");
    assert_eq!(stats["routes"].as_array().unwrap().len(), 10_000, "all of them are told where all are asked for");
}
