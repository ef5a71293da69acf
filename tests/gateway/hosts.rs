//! Which host a request is for, however that is spelled.

use lictor_testkit::connect;

use crate::{Ask, BOTH, Version, ask, echo, gateway, told_http1};

#[test]
fn spellings_of_a_host_lead_to_its_routes_and_no_other_text_does() {
    let (shop, under, any) = (echo("shop"), echo("under"), echo("any"));
    let routes = "  - {host: shop.example, path: /*, to: shop}
  - {host: '*.shop.example', path: /*, to: under}
  - {host: xn--bcher-kva.example, path: /*, to: under}
  - {path: /any, to: any}\n";
    let lictor = gateway(&[("shop", &shop), ("under", &under), ("any", &any)], routes);
    for version in BOTH {
        let mut reset = Vec::new();
        for (host, target, status, server) in [
            ("shop.example", "/", 200, "shop"),
            ("SHOP.Example", "/", 200, "shop"),
            ("shop.example:8080", "/", 200, "shop"),
            ("shop.example:", "/", 200, "shop"),
            ("shop.example.", "/", 200, "shop"),
            ("Shop.Example.:443", "/any", 200, "shop"),
            ("a.shop.example", "/", 200, "under"),
            ("b.A.shop.example.:1", "/any", 200, "under"),
            ("xn--bcher-kva.example", "/", 200, "under"),
            ("XN--BCHER-KVA.example:80", "/", 200, "under"),
            ("ashop.example", "/", 404, ""),
            ("shop.example.evil", "/", 404, ""),
            ("shop.example.evil", "/any", 200, "any"),
            ("[::1]:80", "/any", 200, "any"),
            ("127.0.0.1", "/any", 200, "any"),
            ("u@shop.example", "/", 400, ""),
            ("shop%2eexample", "/", 400, ""),
            ("shop.example..", "/", 400, ""),
            (".shop.example", "/", 400, ""),
            ("b\u{fc}cher.example", "/", 400, ""),
            ("shop.example,evil", "/", 400, ""),
            ("shop.example/evil", "/", 400, ""),
            ("shop.example:x", "/", 400, ""),
            ("", "/any", 400, ""),
        ] {
            let told = ask(&lictor, version, Ask { host, ..Ask::get(target) });
            if told.status == 0 {
                reset.push(host);
                continue;
            }
            assert_eq!((told.status, told.server()), (status, server), "{version:?} {host} {target}: {told:?}");
            assert!(status != 400 || told.body.contains("reason"), "{version:?} {host}: {told:?}");
        }
        // What HTTP/2 calls malformed is an error of its stream (RFC 9113, section 8.1.1).
        let malformed = ["u@shop.example", "shop%2eexample", "b\u{fc}cher.example", "shop.example/evil"];
        let malformed = if version == Version::Http1 { &[][..] } else { &malformed };
        assert_eq!(reset, malformed, "{version:?}");
    }
}

#[test]
fn a_request_has_one_host() {
    let (shop, other) = (echo("shop"), echo("other"));
    let routes = "  - {host: shop.example, path: /*, to: shop}\n  - {host: other.example, path: /*, to: other}\n";
    let lictor = gateway(&[("shop", &shop), ("other", &other)], routes);
    for text in [
        "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: other.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.example\r\nhost: shop.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let told = told_http1(connect(&lictor.address("gateway")), text.as_bytes());
        assert_eq!(told.status, 400, "{text}: {told:?}");
    }
    // The target's authority counts (RFC 9112, section 3.2.2), and the service gets no other.
    let told = ask(&lictor, Version::Http1, Ask { host: "other.example", ..Ask::get("http://shop.example/x") });
    assert_eq!((told.server(), told.target()), ("shop", "/x"), "{told:?}");
    assert!(!told.body.contains("other.example"), "{told:?}");
    let fields = [("host", "other.example")];
    let told = ask(&lictor, Version::Http2, Ask { fields: &fields, ..Ask::get("/") });
    assert_eq!(told.status, 400, "they disagree: {told:?}");
    let fields = [("host", "SHOP.example.:80")];
    let told = ask(&lictor, Version::Http2, Ask { fields: &fields, ..Ask::get("/") });
    assert_eq!(told.server(), "shop", "they do not: {told:?}");
}
