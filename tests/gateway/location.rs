//! Where answers lead of a service that sees paths without what `strip` takes off.

use lictor_testkit::{RawServer, Sidecar};

use crate::{Ask, BOTH, LICTOR, Told, Version, ask, configuration, field, gateway};

const COOKIE: &str = "Set-Cookie: a=b; Path=/\r\n";

/// Sends its clients where they say, with these fields besides.
fn sending(more: &'static str) -> RawServer {
    RawServer::saying(move |head| {
        let to = field(head, "x-to").unwrap_or_default().to_owned();
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Location: {to}\r\nCache-Control: max-age=60\r\n{more}Content-Length: 0\r\n\r\n"
        )
    })
}

fn to(lictor: &Sidecar, version: Version, target: &str, value: &str) -> Told {
    ask(lictor, version, Ask { fields: &[("x-to", value)], ..Ask::get(target) })
}

/// How often this is a field's value.
fn count(told: &Told, version: Version, value: &str) -> usize {
    match version {
        Version::Http1 => {
            let values = told.head.lines().filter_map(|line| line.split_once(": "));
            values.filter(|(name, own)| name.to_lowercase().ends_with("location") && *own == value).count()
        }
        // It stands behind its length (RFC 7541, section 5.2).
        Version::Http2 => told.head.matches(&format!("{}{value}", char::from(value.len() as u8))).count(),
    }
}

#[test]
fn what_leads_to_the_service_leads_there_by_the_gateway() {
    let one = sending(COOKIE);
    let routes = "  - {path: /api/*, to: one, strip: /api}
  - {path: /Any/*, ignore_case: true, to: one, strip: /any}
  - {path: '/v/{id}/*', to: one, rewrite: '/{id}/*'}
  - {path: /plain/*, to: one}
  - {host: named.example, path: /api/*, to: one, strip: /api}
  - {path: /set/*, to: one, strip: /set, response_headers: {set: {Location: /mine}}}\n";
    let lictor = gateway(&[("one", &one)], routes);
    let own = format!("http://127.0.0.1:{}/a?b#c", one.port());
    for version in BOTH {
        for (target, value, becomes) in [
            ("/api/x", "/a?b=/c", "/api/a?b=/c"),
            ("/api/x", "/", "/api/"),
            ("/api/x", "/../a", "/api/a"),
            ("/api/x", "/api/a", "/api/a"),
            ("/api/x", "/../caf\u{e9} au lait", "/api/caf\u{e9} au lait"),
            ("/api/x", "/\\evil.example", "/api/evil.example"),
            ("/api/x", "http://one/a", "/api/a"),
            ("/api/x", "http://one//evil.example", "/api/evil.example"),
            ("/api/x", &own, "/api/a?b#c"),
            ("/api/x", "https://shop.example/a", "https://shop.example/api/a"),
            ("/api/x", "https://SHOP.example:443/a", "https://SHOP.example:443/api/a"),
            ("/api/x", "//shop.example/a", "//shop.example/api/a"),
            ("/api/x", "https://shop.example:444/a", "https://shop.example:444/a"),
            ("/api/x", "https://idp.example/a", "https://idp.example/a"),
            ("/api/x", "//idp.example/a", "//idp.example/a"),
            ("/api/x", "a/b", "a/b"),
            ("/ANY/x", "/a", "/any/a"),
            ("/v/7/x", "/a", "/a"),
            ("/plain/x", "/a", "/a"),
            ("/plain/x", "http://one/a", "http://one/a"),
        ] {
            let told = to(&lictor, version, target, value);
            assert_eq!(
                (told.status, count(&told, version, becomes)),
                (302, 2),
                "{version:?} {target} {value}: {told:?}"
            );
            assert!(told.head.contains("a=b; Path=/"), "cookies are the service's: {told:?}");
        }
        let told = to(&lictor, version, "/set/x", "/a");
        assert_eq!([count(&told, version, "/mine"), count(&told, version, "/set/a")], [1, 1], "{told:?}");
        let named = Ask { host: "named.example", fields: &[("x-to", "http://shop.example/a")], ..Ask::get("/api/x") };
        let told = ask(&lictor, version, named);
        assert_eq!(count(&told, version, "http://shop.example/a"), 2, "another host: {told:?}");
    }
}

#[test]
fn it_is_so_of_kept_answers_of_what_the_service_is_called_and_of_what_a_proxy_tells() {
    let one = sending("");
    let more = format!(
        "  named: {{static: ['127.0.0.1:{}'], headers: {{set: {{Host: 'inner.example:8080'}}}}}}\n",
        one.port()
    );
    let keys = "  trusted_proxies: [127.0.0.0/8]\n";
    let routes = "  - {path: /api/*, to: one, strip: /api, cache: 1m}\n  - {path: /named/*, to: named, strip: /named}\n  - {path: /split/*, split: {one: 0, named: 1}, strip: /split}\n";
    let lictor = Sidecar::serve(LICTOR, &configuration(&[("one", &one)], &more, keys, routes)).up();
    for version in BOTH {
        for target in ["/named/x", "/split/x"] {
            let prefix = &target[..target.len() - 2];
            let told = to(&lictor, version, target, "http://inner.example:8080/a");
            assert_eq!(count(&told, version, &format!("{prefix}/a")), 2, "{version:?} {told:?}");
        }
        let fields = [("x-forwarded-host", "public.example"), ("x-to", "https://public.example/a")];
        let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/api/y") });
        assert_eq!(count(&told, version, "https://public.example/api/a"), 2, "{told:?}");
        let target = format!("/api/{version:?}");
        // The second is the first's, kept: the service says what it is asked to.
        for asked in ["/a", "/b"] {
            let told = to(&lictor, version, &target, asked);
            assert_eq!(count(&told, version, "/api/a"), 2, "{asked}: {told:?}");
        }
    }
}
