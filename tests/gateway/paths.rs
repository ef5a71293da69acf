//! Whatever the spelling of a path: what reaches a service is what was matched, for every way in which the service may read
//! it.

use lictor_testkit::{Sidecar, eventually_is};

use crate::{Ask, BOTH, LICTOR, Told, ask, echo, gateway};

/// Spellings of paths under `/admin`, some of which are no such thing to whoever reads them differently.
const SPELLINGS: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin/.",
    "/admin/./x",
    "/admin/../admin/x",
    "/admin/x/..",
    "/admin/x/../y",
    "//admin",
    "//admin/x",
    "///admin///x",
    "/./admin",
    "/./admin/./x",
    "/.//admin",
    "//./admin",
    "/../admin",
    "/../../../admin",
    "/public/../admin",
    "/public/../admin/x",
    "/public/./../admin",
    "/public//../admin",
    "/public//..//admin",
    "/public/x/../../admin",
    "/public/x/y/../../../admin/z",
    "/public/..//admin",
    "/public/.././admin",
    "/public/...//../../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%61%64%6D%69%6E/x",
    "/admi%6e",
    "/admi%6E/x",
    "/%2e/admin",
    "/%2E/admin",
    "/%2e%2e/admin",
    "/%2E%2E/admin",
    "/.%2e/admin",
    "/%2e./admin",
    "/.%2E/admin",
    "/public/%2e%2e/admin",
    "/public/%2E%2e/admin",
    "/public/%2e./admin",
    "/public/.%2e/admin",
    "/public/%2e/%2e%2e/admin",
    "/public/%2e%2e/%61dmin",
    "/public/x/%2e%2e/%2e%2e/admin",
    "/public%2f..%2fadmin",
    "/public%2F..%2Fadmin",
    "/public/..%2fadmin",
    "/public/..%2Fadmin",
    "/public/%2e%2e%2fadmin",
    "/public/%2e%2e%2Fadmin",
    "/public%2f%2e%2e%2fadmin",
    "/%2fadmin",
    "/%2Fadmin",
    "/admin%2f",
    "/admin%2fx",
    "/admin%2Fx",
    "/.%2fadmin",
    "/..%2fadmin",
    "/public/..\\admin",
    "/public\\..\\admin",
    "/public/\\..\\admin",
    "\\admin",
    "/\\admin",
    "/admin\\",
    "/admin\\x",
    "/public/..%5cadmin",
    "/public/..%5Cadmin",
    "/public%5c..%5cadmin",
    "/%5cadmin",
    "/admin%5cx",
    "/public/%2e%2e%5cadmin",
    "/admin;",
    "/admin;x",
    "/admin;x=y/z",
    "/admin/;/x",
    "/admin/;x/y",
    "/;/admin",
    "/;x/admin",
    "/public/..;/admin",
    "/public/..;x/admin",
    "/public/;/../admin",
    "/public/.;/../admin",
    "/admin%3b",
    "/admin%3bx",
    "/admin%3Bx=y",
    "/public/..%3b/admin",
    "/public/..%3B/admin",
    "/%3b/admin",
    "/admin%00",
    "/admin%00/x",
    "/%00/admin",
    "/admin%00.html",
    "/public%00/../admin",
    "/admin%0a",
    "/admin%0d%0ax",
    "/admin%09",
    "/admin%7f",
    "/admin%3f",
    "/admin%3Fx=y",
    "/admin%3f/x",
    "/public/%3f/../admin",
    "/admin%23",
    "/admin%23x",
    "/public%23/../admin",
    "/admin#x",
    "/public/#/../admin",
    "/%2561dmin",
    "/%25%36%31dmin",
    "/public/%252e%252e/admin",
    "/public/%252E%252E/admin",
    "/public/%25%32%65%25%32%65/admin",
    "/public/%2%65%2%65/admin",
    "/public/..%252fadmin",
    "/public/..%252Fadmin",
    "/public/..%255cadmin",
    "/public/%25252e%25252e/admin",
    "/admin%2500",
    "/admin%253b",
    "/admin%",
    "/admin%2",
    "/admin%zz",
    "/admin%u002f",
    "/%u0061dmin",
    "/public/%u002e%u002e/admin",
    "/public/%c0%ae%c0%ae/admin",
    "/public/%c0%2e%c0%2e/admin",
    "/public/..%c0%afadmin",
    "/public/..%c1%9cadmin",
    "/public/..%e0%80%afadmin",
    "/public/..%f0%80%80%afadmin",
    "/public/%e0%80%ae%e0%80%ae/admin",
    "/%c1%a1dmin",
    "/admin%ff",
    "/admin%c3",
    "/admin%c2%85",
    "/ADMIN",
    "/Admin/x",
    "/aDmIn/./x",
    "/%41DMIN",
    "/%41%44%4d%49%4e",
    "/public/../ADMIN",
    "/public/%2e%2e/Admin",
    "//ADMIN/x",
    "/ADMIN;x",
    "/ADMIN%2fx",
    "/admin?x=/public",
    "/admin/x?/public/../x",
    "/public/../admin?x",
    "/public?/../admin",
    "/public?x=/admin",
    "/public/admin",
    "/publicadmin",
    "/adminx",
    "/admin.",
    "/admin..",
    "/admin%20",
    "/admin/%20",
    "/%20/admin",
    "/admin%2e",
    "/admin%2b",
    "/%40/admin",
    "/admin%40",
    "/public/%7e/admin",
    "/public/a%25b",
    "/public/%E2%98%83",
];

/// How a service may read its path: it decodes escapes once or twice, folds case, drops `;` and what follows, takes `\` for
/// `/`, merges slashes, resolves dots; all of it.
fn is_admin(path: &str) -> bool {
    let mut views = vec![path.to_owned()];
    for _ in 0..2 {
        views.push(decoded(views.last().unwrap()));
    }
    views.iter().any(|view| {
        let plain = view.replace('\\', "/").to_lowercase();
        let plain = plain.split(['?', '#', '\0']).next().unwrap_or_default().to_owned();
        let mut kept: Vec<&str> = Vec::new();
        for segment in plain.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => (),
                ".." => drop(kept.pop()),
                segment => kept.push(segment),
            }
        }
        kept.first() == Some(&"admin")
    })
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match digits.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Refused; or at the service of the route that guards what the service sees.
fn check(spelling: &str, told: &Told, tally: &mut [usize; 3]) {
    let path = told.target().split('?').next().unwrap_or_default();
    match told.server() {
        "" => {
            assert!(matches!(told.status, 0 | 400), "{spelling}: {told:?}");
            tally[0] += 1;
        }
        "guarded" => {
            assert!(is_admin(path), "{spelling}: {told:?}");
            tally[1] += 1;
        }
        "open" => {
            assert!(!is_admin(path), "{spelling} reaches the open service as {path}");
            tally[2] += 1;
        }
        other => panic!("{spelling}: {other}"),
    }
}

#[test]
fn no_spelling_of_a_path_gets_past_the_route_that_guards_it() {
    let (guarded, open) = (echo("guarded"), echo("open"));
    let routes = "  - {path: /admin/*, ignore_case: true, to: guarded}\n  - {path: /*, to: open}\n";
    let lictor = gateway(&[("guarded", &guarded), ("open", &open)], routes);
    assert!(SPELLINGS.len() >= 160);
    for version in BOTH {
        let mut tally = [0; 3];
        for spelling in SPELLINGS {
            check(spelling, &ask(&lictor, version, Ask::get(spelling)), &mut tally);
            if version == crate::Version::Http1 && spelling.starts_with('/') {
                let absolute = format!("http://shop.example{spelling}");
                check(&absolute, &ask(&lictor, version, Ask::get(&absolute)), &mut tally);
            }
        }
        let [refused, at_guarded, at_open] = tally;
        assert!(refused > 60 && at_guarded > 40 && at_open > 10, "{version:?}: {tally:?}");
        // Refused with a reason, and logged.
        let told = ask(&lictor, version, Ask::get("/public/..%2fadmin"));
        assert!(told.status == 400 && told.body.contains("an encoded slash"), "{told:?}");
    }
    let refused = || {
        let lines = lictor.lines("request");
        lines.iter().filter(|line| line["reason"] == "bad_request" && line["status"] == 400).count()
    };
    eventually_is("refusals are logged", refused, |count| *count > 60);
}

#[test]
fn no_spelling_leaves_the_place_that_strip_and_rewrite_give_it() {
    let (guarded, stripped, moved, open) = (echo("guarded"), echo("stripped"), echo("moved"), echo("open"));
    let routes = "  - {path: /admin/*, ignore_case: true, to: guarded}\n  - {path: /public/*, to: stripped, strip: /public}\n  - {path: /v1/*, to: moved, rewrite: '/v2/*'}\n  - {path: /*, to: open}\n";
    let servers = [("guarded", &guarded), ("stripped", &stripped), ("moved", &moved), ("open", &open)];
    let lictor = gateway(&servers, routes);
    for version in BOTH {
        let mut tally = [0; 3];
        for (prefix, spelling) in
            ["/public", "/v1"].into_iter().flat_map(|prefix| SPELLINGS.iter().map(move |it| (prefix, it)))
        {
            let target = format!("{prefix}{spelling}");
            let told = ask(&lictor, version, Ask::get(&target));
            let path = told.target().split('?').next().unwrap_or_default();
            match told.server() {
                // All that is below the place is the service's, `/admin` too, and only by that name.
                "stripped" => {
                    let first = path.split('/').nth(1).unwrap_or_default();
                    assert_eq!(is_admin(path), first.eq_ignore_ascii_case("admin"), "{version:?} {target}: {path}");
                    assert!(!is_admin(&format!("/public{path}")), "{version:?} {target} leaves its place as {path}");
                    tally[1] += 1;
                }
                "moved" => {
                    assert!(path == "/v2" || path.starts_with("/v2/"), "{version:?} {target}: {path}");
                    assert!(!is_admin(path), "{version:?} {target} leaves its place as {path}");
                    tally[2] += 1;
                }
                _ => check(&target, &told, &mut [0; 3]),
            }
            tally[0] += usize::from(told.status != 200);
        }
        let [refused, at_stripped, at_moved] = tally;
        assert!(refused > 120 && at_stripped > 20 && at_moved > 20, "{version:?}: {tally:?}");
    }
}

#[test]
fn a_target_that_is_no_path_is_not_routed() {
    let open = echo("open");
    let lictor = gateway(&[("open", &open)], "  - {path: /*, to: open}\n");
    for version in BOTH {
        let options = |target| ask(&lictor, version, Ask { method: "OPTIONS", ..Ask::get(target) });
        assert_eq!(options("*").status, 400);
        assert_eq!(options("/").server(), "open", "the control");
    }
    let connect = ask(&lictor, crate::Version::Http1, Ask { method: "CONNECT", ..Ask::get("shop.example:443") });
    assert_eq!(connect.status, 400, "{connect:?}");
    assert_eq!(ask(&lictor, crate::Version::Http1, Ask::get("ftp://shop.example/")).status, 400);
    assert_eq!(ask(&lictor, crate::Version::Http1, Ask::get("https://shop.example/")).status, 400);
    let lines = || lictor.lines("request").iter().map(|line| line["upstream"] == "open").collect::<Vec<_>>();
    let went = eventually_is("all are logged", lines, |lines| lines.len() == 7);
    assert_eq!(went.iter().filter(|went| **went).count(), 2, "the controls alone");
}

#[test]
fn what_goes_on_is_the_path_that_was_matched_and_the_query_as_it_came() {
    let (one, rest) = (echo("one"), echo("rest"));
    let routes = "  - {path: '/api/users/{id}', to: one, rewrite: '/users/{id}'}
  - {path: /api/orders/*, to: one, strip: /api}
  - {path: '/v1/*', to: one, rewrite: '/v2/*'}
  - {path: '/@scope/{name}', to: one}
  - {path: /*, to: rest}\n";
    let lictor = gateway(&[("one", &one), ("rest", &rest)], routes);
    for version in BOTH {
        for (target, server, goes_on) in [
            ("/api/users/1", "one", "/users/1"),
            ("/api/users/1?a=%2F..&b=;", "one", "/users/1?a=%2F..&b=;"),
            ("/api/users/%61%20b", "one", "/users/a%20b"),
            ("/api/users/1/2", "rest", "/api/users/1/2"),
            ("/api/./orders//7/", "one", "/orders/7/"),
            ("/api/orders", "one", "/orders"),
            ("/v1", "one", "/v2"),
            ("/v1/a/b?c", "one", "/v2/a/b?c"),
            ("/%40scope/x", "one", "/%40scope/x"),
            ("/x/../y/?", "rest", "/y/?"),
            ("/%c3%a9", "rest", "/%C3%A9"),
        ] {
            let told = ask(&lictor, version, Ask::get(target));
            assert_eq!((told.server(), told.target()), (server, goes_on), "{version:?} {target}");
        }
    }
}

#[test]
fn a_route_that_allows_an_escape_has_it_in_one_segment() {
    let (one, strict) = (echo("one"), echo("strict"));
    let yaml = format!(
        "registration: off\ngateway: {{listen: 127.0.0.1:0, routes: [{{path: '/files/{{id}}/*', to: one, allow_encoded: ['%2F', '%3b'], strip: /files}}, {{path: /files/private/*, to: strict}}, {{path: /*, to: one}}]}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}, strict: {{static: ['127.0.0.1:{}']}}}}\n",
        one.port(),
        strict.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for version in BOTH {
        for (target, status, goes_on) in [
            ("/files/group%2fproject/x", 200, "/group%2Fproject/x"),
            ("/files/a%3Bb?c=%2F", 200, "/a%3Bb?c=%2F"),
            ("/files/a/b%2Fc/", 200, "/a/b%2Fc/"),
            ("/files/a", 200, "/a"),
            ("/files/a%5Cb", 400, ""),
            ("/files/a%2F..%2Fb", 400, ""),
            ("/files/..%2Fprivate/x", 400, ""),
            ("/files/..%3Bx/private", 400, ""),
            ("/files/a%2F%2Fb", 400, ""),
            ("/files/private%2Fx", 400, ""),
            ("/files/private%3Bx/y", 400, ""),
            ("/files/a%252Fb", 400, ""),
            ("/files/a;b", 400, ""),
            ("/files%2Fa", 400, ""),
            ("/other/a%2Fb", 400, ""),
            ("/other/a", 200, "/other/a"),
        ] {
            let told = ask(&lictor, version, Ask::get(target));
            assert_eq!((told.status, told.target()), (status, goes_on), "{version:?} {target}: {told:?}");
            assert!(status != 200 || told.server() == "one");
        }
        assert_eq!(ask(&lictor, version, Ask::get("/files/private/x")).server(), "strict", "a control");
    }
    assert!((1..=2).contains(&strict.connections()), "the controls alone");
}
