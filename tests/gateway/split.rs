//! Parts of a route's requests go to one upstream, and parts to another, and the same client always to the same.

use std::io::{BufRead, BufReader, Read, Write};

use lictor_testkit::{Authority, Consul, RawServer, Sidecar, connect, eventually_is};
use rustls::version::TLS13;
use serde_json::json;

use crate::issuer::{SECRET, claims, shared};
use crate::tls::tls_over;
use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask, ask_over, begun_http2, block, echo, frame, gateway, gateway_of, says,
    told_on,
};

/// An instance of `orders`, which says its name.
fn instance(consul: &Consul, id: &str, version: Option<&str>) -> RawServer {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{id}", id.len());
    let server = RawServer::start(move |stream| {
        let mut read = BufReader::new(stream);
        let mut line = String::new();
        while read.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line == "\r\n" && read.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    });
    register(consul, id, version, &server);
    server
}

fn register(consul: &Consul, id: &str, version: Option<&str>, server: &RawServer) {
    let meta = version.map_or_else(|| json!({}), |version| json!({ "version": version }));
    let body = json!({ "Name": "orders", "ID": id, "Address": "127.0.0.1", "Port": server.port(), "Meta": meta });
    consul.put("/v1/agent/service/register", &body);
}

fn yaml(consul: &Consul, upstreams: &str, route: &str) -> String {
    format!(
        "registration: off\nservice: edge\nconsul: {{address: '{}', guard: {{on_empty: drop}}}}\nupstreams: {{{upstreams}}}\ngateway:\n  listen: {{address: 127.0.0.1:0}}\n  routes:\n  - {{path: /*, {route}}}\n",
        consul.url()
    )
}

fn reload(lictor: &Sidecar, yaml: &str) {
    lictor.rewrite(yaml);
    assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
}

/// So many requests on one connection, some at a time.
fn many(lictor: &Sidecar, version: Version, count: u32) {
    const AT_ONCE: u32 = 50;
    let stream = connect(&lictor.address("gateway"));
    let (mut read, mut stream) = (BufReader::new(stream.try_clone().unwrap()), stream);
    if version == Version::Http2 {
        stream.write_all(&begun_http2()).unwrap();
    }
    for round in 0..count / AT_ONCE {
        match version {
            Version::Http1 => {
                stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n".repeat(AT_ONCE as usize).as_slice()).unwrap();
                (0..AT_ONCE).for_each(|_| assert_eq!(told_on(&mut read).status, 200));
            }
            Version::Http2 => {
                let block = block(Ask::get("/x"));
                let id = |number: u32| (round * AT_ONCE + number) * 2 + 1;
                let frames: Vec<u8> = (0..AT_ONCE).flat_map(|number| frame(1, 5, id(number), &block)).collect();
                stream.write_all(&frames).unwrap();
                ended(&mut read, AT_ONCE);
                // The window of the whole connection (RFC 9113, section 6.9.1).
                stream.write_all(&frame(8, 0, 0, &1000_u32.to_be_bytes())).unwrap();
            }
        }
    }
}

fn ended(stream: &mut impl Read, count: u32) {
    let mut ended = 0;
    while ended < count {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        assert!(!matches!(head[3], 3 | 7), "reset, or going away: {head:?}");
        ended += u32::from(matches!(head[3], 0 | 1) && head[4] & 1 == 1);
    }
}

#[test]
fn a_version_gets_5_of_a_hundred_and_the_others_95_whatever_their_number() {
    const MANY: u32 = 20_000;
    let consul = Consul::dev();
    // Without `@v2` it is whoever is not that, with a version or none.
    let _servers =
        [("old", None), ("v1", Some("v1")), ("v2-a", Some("v2")), ("v2-b", Some("v2")), ("v2-c", Some("v2"))]
            .map(|(id, version)| instance(&consul, id, version));
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "", "split: {orders: 95, orders@v2: 5}")).up();
    lictor.await_endpoints("orders@v2", 3);
    lictor.await_endpoints("orders@!v2", 2);
    let counted =
        |upstream| lictor.metric("lictor_upstream_requests_total", &[("upstream", upstream), ("route", "/*")]);
    let mut before = 0.0;
    for version in BOTH {
        many(&lictor, version, MANY);
        let all = || counted("orders@v2") + counted("orders@!v2");
        let expected = f64::from(MANY) * if version == Version::Http1 { 1.0 } else { 2.0 };
        eventually_is("all are counted", all, |all| (all - expected).abs() < 0.5);
        let canary = counted("orders@v2") - before;
        let (share, deviation) = (f64::from(MANY) * 0.05, (f64::from(MANY) * 0.05 * 0.95).sqrt());
        assert!((canary - share).abs() <= 3.0 * deviation, "{version:?}: {canary} of {MANY}");
        before = counted("orders@v2");
    }
}

/// The cookie's value.
fn ticket(told: &Told) -> Option<String> {
    let at = told.head.find("canary=")?;
    let ticket = told.head.get(at + 7..at + 23)?;
    assert!(ticket.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", told.head);
    assert!(told.head[at + 23..].starts_with("; Path=/; HttpOnly; SameSite=Lax"), "{}", told.head);
    Some(ticket.to_owned())
}

fn with_cookie(lictor: &Sidecar, version: Version, ticket: &str) -> Told {
    let cookie = format!("a=b; canary={ticket}; c");
    ask(lictor, version, Ask { fields: &[("cookie", &cookie)], ..Ask::get("/x") })
}

#[test]
fn a_header_is_before_a_cookie_and_a_cookie_before_the_weights() {
    let (a, b, c) = (echo("a"), echo("b"), echo("c"));
    let route =
        "  - {path: /*, split: {a: 1, b: 1, c: 0}, split_by: {header: X-Canary, cookie: {name: canary, max_age: 1h}}}
  - {path: /plain/*, split: {a: 1, b: 1}}\n";
    let lictor = gateway(&[("a", &a), ("b", &b), ("c", &c)], route);
    for version in BOTH {
        // A ticket for either side.
        let mut tickets: [Option<String>; 2] = [None, None];
        for _ in 0..200 {
            let told = ask(&lictor, version, Ask::get("/x"));
            let side = usize::from(told.server() == "b");
            assert!(matches!(told.server(), "a" | "b"), "c has no weight: {told:?}");
            let ticket = ticket(&told).unwrap_or_else(|| panic!("a cookie for whoever has none: {told:?}"));
            assert!(told.head.contains("Max-Age=3600") && !told.head.contains("Secure"), "{}", told.head);
            assert!(told.body.contains(&format!("canary={ticket}")), "the service has it at once: {told:?}");
            tickets[side].get_or_insert(ticket);
        }
        for (ticket_of, server) in tickets.iter().zip(["a", "b"]) {
            let ticket_of = ticket_of.as_deref().unwrap();
            for _ in 0..20 {
                let told = with_cookie(&lictor, version, ticket_of);
                assert_eq!((told.server(), ticket(&told)), (server, None), "it stays, and is not told again");
            }
            for (named, expected) in [("a", "a"), ("b", "b"), ("c", "c"), ("d", server), ("", server)] {
                let fields = [("x-canary", named), ("cookie", &format!("canary={ticket_of}"))];
                let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/x") });
                assert_eq!((told.server(), ticket(&told)), (expected, None), "X-Canary: {named}");
            }
            let twice = [("x-canary", "c"), ("x-canary", "c"), ("cookie", &format!("canary={ticket_of}"))];
            assert_eq!(ask(&lictor, version, Ask { fields: &twice, ..Ask::get("/x") }).server(), server);
        }
        // What is no ticket is none.
        for wrong in ["", "c", "127.0.0.1:80", "00000000000000000", "zzzzzzzzzzzzzzzz"] {
            assert!(ticket(&with_cookie(&lictor, version, wrong)).is_some(), "{wrong}");
        }
        let told = ask(&lictor, version, Ask { fields: &[("x-canary", "c")], ..Ask::get("/plain/x") });
        assert!(matches!(told.server(), "a" | "b") && ticket(&told).is_none(), "it has no `split_by`: {told:?}");
    }
}

#[test]
fn a_reload_moves_only_those_whose_share_goes() {
    let (a, b) = (echo("a"), echo("b"));
    let servers = [("a", &a), ("b", &b)];
    let of = |weights: &str| {
        crate::configuration(
            &servers,
            "",
            "",
            &format!("  - {{path: /*, split: {{{weights}}}, split_by: {{cookie: canary}}}}\n"),
        )
        .replace("listen: 127.0.0.1:0", "listen: {address: 127.0.0.1:0}")
    };
    let lictor = Sidecar::serve(LICTOR, &of("a: 80, b: 20")).up();
    let tickets: Vec<(String, String)> = (0..100)
        .map(|_| {
            let told = ask(&lictor, Version::Http1, Ask::get("/x"));
            (ticket(&told).unwrap(), told.server().to_owned())
        })
        .collect();
    let server = |ticket: &str| {
        let [told, other] = BOTH.map(|version| with_cookie(&lictor, version, ticket).server().to_owned());
        assert_eq!(told, other, "{ticket}");
        told
    };
    let is_in_force = |weights: &str| lictor.page("/config").to_string().contains(weights);
    for (weights, grown, all) in
        [("a: 80.0, b: 20", None, false), ("a: 50, b: 50", Some("b"), false), ("a: 1, b: 0", Some("a"), true)]
    {
        let before: Vec<String> = tickets.iter().map(|(ticket, _)| server(ticket)).collect();
        reload(&lictor, &of(weights));
        eventually_is("the weights are in force", || is_in_force(weights.rsplit(' ').next().unwrap()), |is| *is);
        let mut moved = 0;
        for ((ticket, _), before) in tickets.iter().zip(&before) {
            let now = server(ticket);
            if now != *before {
                moved += 1;
                assert_eq!(Some(now.as_str()), grown, "{weights}");
            }
            assert!(!all || now == "a", "0 is nobody, whatever he had: {weights}");
        }
        assert!(grown.is_some() == (moved > 0), "{weights}: {moved} moved");
    }
}

#[test]
fn clients_of_a_version_that_is_gone_stay_with_the_other() {
    let consul = Consul::dev();
    let _one = instance(&consul, "v1", Some("v1"));
    let two = instance(&consul, "v2", Some("v2"));
    let by = "split: {orders: 1, orders@v2: 1}, split_by: {header: X-Canary, cookie: canary}";
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "", by)).up();
    lictor.await_endpoints("orders@v2", 1);
    lictor.await_endpoints("orders@!v2", 1);
    let server = |told: &Told| told.body.clone();
    for version in BOTH {
        let mut of = ["v1", "v2"].map(|wanted| {
            eventually_is("a client of it", || ask(&lictor, version, Ask::get("/x")), |told| server(told) == wanted)
        });
        let tickets = of.each_mut().map(|told| ticket(told).unwrap());
        consul.deregister("v2");
        lictor.await_endpoints("orders@v2", 0);
        let stays = with_cookie(&lictor, version, &tickets[0]);
        assert_eq!((server(&stays).as_str(), ticket(&stays)), ("v1", None));
        let moved = with_cookie(&lictor, version, &tickets[1]);
        assert_eq!((moved.status, server(&moved).as_str()), (200, "v1"), "{moved:?}");
        let other = ticket(&moved).expect("another ticket");
        let named = ask(&lictor, version, Ask { fields: &[("x-canary", "v2")], ..Ask::get("/x") });
        assert_eq!(server(&named), "v1", "who is named and not there is not asked");
        register(&consul, "v2", Some("v2"), &two);
        lictor.await_endpoints("orders@v2", 1);
        assert_eq!(server(&with_cookie(&lictor, version, &other)), "v1", "it does not come and go with the version");
        assert_eq!(server(&with_cookie(&lictor, version, &tickets[1])), "v2", "a control");
    }
    for id in ["v1", "v2"] {
        consul.deregister(id);
    }
    for upstream in ["orders@v2", "orders@!v2"] {
        lictor.await_endpoints(upstream, 0);
    }
    for version in BOTH {
        let told = ask(&lictor, version, Ask::get("/x"));
        assert!(told.status == 503 && told.body.contains("no_endpoints"), "{version:?}: {told:?}");
    }
}

#[test]
fn the_share_of_an_open_breaker_is_refused_and_no_other_variant_gets_it() {
    let (a, b) = (echo("a"), echo("b"));
    let lictor =
        gateway(&[("a", &a), ("b", &b)], "  - {path: /*, split: {a: 1, b: 1}, split_by: {header: X-Canary}}\n");
    let named = |version, name| {
        let told = ask(&lictor, version, Ask { fields: &[("x-canary", name)], ..Ask::get("/x") });
        if told.body.contains("breaker_open") { "refused".to_owned() } else { told.server().to_owned() }
    };
    assert_eq!(named(Version::Http1, "a"), "a", "the control");
    assert_eq!(lictor.post("/breakers/a?state=open").status, 200);
    for version in BOTH {
        eventually_is("it is refused", || named(version, "a"), |told| told == "refused");
        let mut counts = [0; 2];
        for _ in 0..200 {
            counts[usize::from(named(version, "") == "b")] += 1;
            let told = named(version, "b");
            assert_eq!(told, "b", "{version:?}");
        }
        // Half of 200, within four of its standard deviations of 7.
        assert!((72..=128).contains(&counts[0]), "{version:?}: {counts:?} refused and served");
    }
}

#[test]
fn a_ticket_is_for_tls_alone_where_it_came_by_tls() {
    let (authority, a) = (Authority::new(), echo("a"));
    let pair = authority.issue("edge", &["shop.example"]);
    let keys = format!("  tls: {{cert: '{}', key: '{}'}}\n", pair.cert.display(), pair.key.display());
    let routes = "  - {path: /*, split: {a: 1}, split_by: {cookie: canary}}\n";
    let lictor = gateway_of(&[("a", &a)], &keys, routes);
    for (version, alpn) in [(Version::Http1, &b"http/1.1"[..]), (Version::Http2, &b"h2"[..])] {
        let config = authority.client_config(&[alpn], &[&TLS13], None);
        let stream = tls_over(connect(&lictor.address("gateway")), &config, "shop.example").unwrap();
        let told = ask_over(stream, version, Ask::get("/x"));
        assert!(ticket(&told).is_some() && told.head.contains("; Secure"), "{version:?}: {told:?}");
    }
}

#[test]
fn what_an_upstream_balances_by_holds_among_a_versions_instances() {
    let consul = Consul::dev();
    let ids = ["v1", "v2-a", "v2-b", "v2-c"];
    let _servers = ids.map(|id| instance(&consul, id, Some(&id[..2])));
    let upstream = "orders: {balance: {ring_hash: {cookie: canary}}}";
    let by = "split: {orders: 0, orders@v2: 1}, split_by: {cookie: canary}";
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, upstream, by)).up();
    lictor.await_endpoints("orders@v2", 3);
    for version in BOTH {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let first = ask(&lictor, version, Ask::get("/x"));
            let ticket = ticket(&first).unwrap();
            for _ in 0..3 {
                assert_eq!(with_cookie(&lictor, version, &ticket).body, first.body, "from the first request on");
            }
            seen.insert(first.body);
        }
        assert!(seen.len() > 1, "{seen:?}");
    }
}

#[test]
fn a_route_may_go_to_one_version_alone_and_explain_tells_the_variants() {
    let consul = Consul::dev();
    let _servers = [("v1", "v1"), ("v2", "v2")].map(|(id, version)| instance(&consul, id, Some(version)));
    let routes = "split: {orders: 3, orders@v2: 0.5}, split_by: {header: X-Canary}}\n  - {path: /v2/*, to: orders@v2, strip: /v2";
    let lictor = Sidecar::serve(LICTOR, &yaml(&consul, "", routes)).up();
    lictor.await_endpoints("orders@v2", 1);
    for version in BOTH {
        for _ in 0..10 {
            assert_eq!(ask(&lictor, version, Ask::get("/v2/x")).body, "v2");
        }
    }
    let told = says(&["explain", "GET", "http://a/x", "-H", "X-Canary: v2", "--admin", &lictor.admin()]);
    assert!(told.contains("to orders@v2 (of orders 3, orders@v2 0.5) as /x"), "{told}");
    let table = says(&["routes", "-c", lictor.file().to_str().unwrap()]);
    assert!(table.contains("orders 3, orders@v2 0.5") && table.contains("orders@v2, without"), "{table}");
}

#[test]
fn a_claim_chooses_where_no_field_does() {
    let (a, b) = (echo("a"), echo("b"));
    let yaml = format!(
        "registration: off\ngateway: {{listen: 127.0.0.1:0, auth: {{jwt: {{secret: {SECRET}}}}}, routes: [{{path: /*, split: {{a: 1, b: 0}}, split_by: {{header: X-Canary, claim: /app/channel}}}}]}}\nupstreams: {{a: {{static: ['127.0.0.1:{}']}}, b: {{static: ['127.0.0.1:{}']}}}}\n",
        a.port(),
        b.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for version in BOTH {
        for (channel, named, server) in [
            (json!({"channel": "b"}), "", "b"),
            (json!({"channel": "b"}), "a", "a"),
            (json!({"channel": "b"}), "other", "b"),
            (json!({"channel": "other"}), "", "a"),
            (json!({"channel": ["b"]}), "", "a"),
            (json!("b"), "", "a"),
            (json!({}), "b", "b"),
        ] {
            let token = format!("Bearer {}", shared(&claims(json!({"app": channel}))));
            let fields = [("authorization", token.as_str()), ("x-canary", named)];
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/x") });
            assert_eq!(told.server(), server, "{channel} {named}: {told:?}");
        }
    }
}
