//! Whom a gateway lets in: its listeners, the proxies that it believes, and the ways to show who one is.

use lictor_config::load;
use lictor_core::Secret;
use lictor_core::tls::ClientTls;

use crate::{bad, env, good, text};

/// A gateway with these keys beside its routes.
fn with(keys: &str) -> String {
    format!(
        "registration: off\ngateway:\n  listen: 8080\n  {keys}\n  routes: {{/*: users}}\nupstreams:\n  users: {{static: ['127.0.0.1:1']}}\n"
    )
}

#[test]
fn whom_it_believes_is_a_list_of_addresses_and_ranges() {
    let proxies = |keys: &str| good(&with(keys)).gateway.unwrap().routes.proxies.clone();
    assert!(proxies("head_max: 1KiB").trusted.is_empty());
    let set = proxies("trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.1]\n  forwarded: true");
    assert!(set.tells_forwarded && set.trusted.has("10.9.9.9".parse().unwrap()));
    for (keys, said) in [
        ("trusted_proxies: [10.0.0.1/8]", "did you mean `10.0.0.0/8`"),
        ("trusted_proxies: ['*']", "is not a range of addresses"),
        ("trusted_proxies: [localhost]", "is not a range of addresses"),
        ("trusted_proxies: ['::/129']", "has 128 bits"),
        ("forwarded: maybe", "maybe"),
    ] {
        let told = bad(&with(keys)).to_string();
        assert!(told.contains(said), "{keys}: {told}");
    }
}

fn with_auth(auth: &str) -> String {
    format!(
        "registration: off\ngateway:\n  listen: 8080\n  auth: {auth}\n  routes: [{{path: /*, to: users}}]\nupstreams:\n  users: {{static: ['127.0.0.1:1']}}\n  bytes: {{static: ['127.0.0.1:1'], protocol: tcp}}\n"
    )
}

#[test]
fn ways_to_show_who_one_is_are_refused_where_they_could_not_work() {
    let one = format!("'sha256:{}'", "1".repeat(64));
    for (auth, message) in [
        ("{keys: {}}", "there is no client"),
        ("{keys: {clients: {a: s3cret-key-in-plain}}}", "a key is not written down, its hash is"),
        ("{keys: {clients: {a: 'sha256:12'}}}", "64 hexadecimal digits"),
        (&format!("{{keys: {{clients: {{a: {one}, b: [{one}]}}}}}}"), "`a` has this key already"),
        (&format!("{{keys: {{clients: {{a: [{one}, {one}]}}}}}}"), "`a` has this key already"),
        (&format!("{{keys: {{header: off, clients: {{a: {one}}}}}}}"), "in a field or in the query"),
        (&format!("{{keys: {{header: Authorization, clients: {{a: {one}}}}}}}"), "has a scheme"),
        (&format!("{{keys: {{header: Cookie, clients: {{a: {one}}}}}}}"), "meaning of its own"),
        (&format!("{{keys: {{query: 'a b', clients: {{a: {one}}}}}}}"), "is not a name"),
        (&format!("{{keys: {{clients: {{a: {{keys: {one}, scopes: ['a b']}}}}}}}}"), "is not one word"),
        ("{keys: {clients: {a: {scopes: [read]}}}}", "a client needs a key"),
        ("{basic: {}}", "there is no user"),
        ("{basic: {users: {ada: hunter2}}}", "its hash is"),
        (
            "{basic: {users: {ada: '$argon2id$v=19$m=65537,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4'}}}",
            "from 256 to 65536 KiB",
        ),
        ("{basic: {users: {'a:b': '$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'}}}", "no colon"),
        ("{basic: {users: {ada: {roles: [admin]}}}}", "needs the hash"),
        ("{certificates: true}", "nobody is asked for a certificate"),
        ("{forward: {path: /check}}", "asking a service needs `to`"),
        ("{forward: {to: users}}", "asking a service needs `path`"),
        ("{forward: {to: bytes, path: /check}}", "carries bytes"),
        ("{forward: {to: 'http://users', path: /check}}", "is a URL"),
        ("{forward: {to: users@v2, path: /check}}", "is not a service name"),
        ("{forward: {to: users, path: check}}", "is not a path"),
        ("{forward: {to: users, path: /check, method: PUT}}", "unknown value `PUT`"),
        ("{forward: {to: users, path: /check, headers_out: [Content-Length]}}", "belongs to one message"),
        ("{forward: {to: users, path: /check, headers_to_upstream: [X-Lictor-To]}}", "belongs to one message"),
        ("{forward: {to: users, path: /check, timeout: 11s}}", "from 1ms to 10s"),
        ("{forward: {to: users, path: /check, cache: 6m}}", "at most 5m"),
        ("{forward: {to: users, path: /check, answer_max: 2MiB}}", "at most 1MiB"),
        (
            &format!("{{keys: {{clients: {{a: {one}}}}}, forward: {{to: users, path: /c, headers_out: [X-API-Key]}}}}"),
            "no service sees it",
        ),
        ("{forward: {to: users, path: /check}, by: [keys]}", "has no `keys`"),
        ("{forward: {to: users, path: /check}, from: {cookie: a}}", "there is no `jwt`"),
        ("{mode: required}", "whom to believe"),
    ] {
        let report = bad(&with_auth(auth)).to_string();
        assert!(report.contains(message), "{auth}: {report}");
        assert!(!report.contains("hunter2") && !report.contains("s3cret-key"), "{auth}: {report}");
    }
    let url = "{jwt: {jwks: 'https://u:hunter2@idp.example/keys'}}";
    for yaml in [with_auth(url), format!("{}redis: 'redis://:hunter2@127.0.0.1:no'\n", with(""))] {
        let report = bad(&yaml);
        assert!(!report.to_string().contains("hunter2"), "{report}");
    }
}

#[test]
fn a_service_that_is_asked_may_be_one_that_no_route_leads_to() {
    let config = good(&with_auth("{forward: {to: judges, path: /check}}"));
    let names: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert!(names.contains(&"judges"), "{names:?}");
    let gateway = config.gateway.unwrap();
    let asking = gateway.routes.rules.auth.as_ref().unwrap().methods.asking.as_ref().unwrap().clone();
    assert_eq!((&*asking.to, asking.path.as_str(), asking.method.as_str()), ("judges", "/check", "GET"));
    assert!(asking.tells_request && !asking.fail_open && asking.keep.is_none());
    assert_eq!(asking.headers_out, ["authorization"]);
}

#[test]
fn its_listeners_tell_tls_by_host_and_proxies_by_header() {
    let gateway = |keys: &str| good(&with(keys)).gateway.unwrap();
    let pair = "cert: /c, key: /k";
    let one = gateway(&format!("tls: {{{pair}}}")).listen.tls.unwrap();
    assert!(one.is_one_for_all() && one.policies()[0].client_ca.is_none());
    let two = gateway(&format!(
        "tls: [{{hosts: [a, '*.B'], {pair}}}, {{cert: /d, key: /d, client_ca: /ca, require: false}}, {{hosts: c, {pair}}}]"
    ));
    let two = two.listen.tls.unwrap();
    let policy = |host: Option<&str>| two.policies()[two.policy(host).unwrap()].identity.cert.display().to_string();
    assert_eq!(two.policies().len(), 2, "what is written twice is one policy");
    assert_eq!([Some("a"), Some("x.b"), Some("c"), Some("b"), None].map(policy), ["/c", "/c", "/c", "/d", "/d"]);
    // One policy that asks for certificates is enough for clients to be known by them.
    let asks =
        format!("auth: {{certificates: true}}\n  tls: [{{hosts: a, {pair}, client_ca: /ca}}, {{cert: /d, key: /d}}]");
    assert!(gateway(&asks).routes.rules.auth.is_some());
    assert!(
        bad(&with(&asks.replace(", client_ca: /ca", ""))).to_string().contains("nobody is asked for a certificate")
    );
    let redirect = gateway("redirect_http: {address: 81, port: 8443}");
    assert_eq!((redirect.redirect_http.unwrap().address.tcp().unwrap().port(), redirect.routes.https_port), (81, 8443));
    assert_eq!(gateway("redirect_http: 81").routes.https_port, 443);
    assert!(gateway("redirect_http: off").redirect_http.is_none());
    for (keys, said) in [
        (format!("tls: [{{hosts: [a], {pair}}}, {{hosts: [b, A.], cert: /d, key: /d}}]"), "`a` has a policy already"),
        (format!("tls: [{{{pair}}}, {{cert: /d, key: /d}}]"), "`*` has a policy already"),
        ("tls: [{hosts: [a]}]".to_owned(), "needs `cert` and `key`"),
        ("tls: [{hosts: [a], cert: /c}]".to_owned(), "belong together"),
        (format!("tls: [{{hosts: ['a:443'], {pair}}}]"), "has a port"),
        (format!("tls: [{{hosts: [a], {pair}, require: true}}]"), "needs `client_ca`"),
        (format!("tls: [{{host: a, {pair}}}]"), "unknown field `host`"),
        ("redirect_http: {port: 443}".to_owned(), "needs an `address`"),
        ("redirect_http: {address: 81, port: 0}".to_owned(), "0"),
        (format!("redirect_http: {{address: 81, tls: {{{pair}}}}}"), "unknown field `tls`"),
        ("redirect_http: 8080".to_owned(), "taken already"),
        ("redirect_http: {address: 81, proxy_protocol: true}".to_owned(), "needs `trusted_proxies`"),
        (
            "trusted_proxies: [10.0.0.0/8]\n  redirect_http: {address: 'unix:/a', proxy_protocol: true}".to_owned(),
            "is for TCP",
        ),
    ] {
        let told = bad(&with(&keys)).to_string();
        assert!(told.contains(said), "{keys}: {told}");
    }
    let both = with(&format!("tls: {{{pair}}}"))
        .replace("listen: 8080", &format!("listen: {{address: 8080, tls: {{{pair}}}}}"));
    assert!(bad(&both).to_string().contains("TLS is in `listen` already"));
    for listener in [
        "inbound: {listen: {address: 81, proxy_protocol: true}}\nport: 8082\nservice: a",
        "outbound: {proxy: {address: 81, proxy_protocol: true}}",
        "upstreams: {a: {listen: {address: 81, proxy_protocol: true}, static: ['127.0.0.1:1']}}",
    ] {
        let told = bad(&format!("registration: off\n{listener}\n")).to_string();
        assert!(told.contains("only the gateway's listeners take the PROXY protocol"), "{listener}: {told}");
    }
}

#[test]
fn certificates_are_ordered_for_hosts_that_are_named() {
    let gateway = |acme: &str| good(&with(&format!("redirect_http: 81\n  tls: {acme}"))).gateway.unwrap();
    let read = gateway(
        "[{hosts: [A.example, b.example], acme: {storage: /s, terms_agreed: true, contact: [ops@a.example, 'mailto:b@a.example']}}, {cert: /c, key: /k}]",
    );
    let hosts: Vec<&str> = read.orders.iter().map(|order| &*order.host).collect();
    assert_eq!(hosts, ["a.example", "b.example"]);
    let acme = &read.orders[0].acme;
    assert_eq!(acme.directory, lictor_core::acme::DIRECTORY);
    assert_eq!(acme.contact, ["mailto:ops@a.example", "mailto:b@a.example"]);
    assert_eq!((acme.challenge, acme.ca.as_ref()), (lictor_core::acme::Challenge::Http01, None));
    let tls = read.listen.tls.unwrap();
    let policy = |host: Option<&str>| &tls.policies()[tls.policy(host).unwrap()];
    assert_eq!(policy(Some("a.example")).identity.cert, read.orders[0].file());
    assert!(policy(Some("a.example")).is_awaited && policy(Some("b.example")).is_awaited && !policy(None).is_awaited);
    assert_ne!(policy(Some("a.example")), policy(Some("b.example")), "each host has its own");
    assert!(gateway("[{hosts: a.example, acme: off, cert: /c, key: /k}]").orders.is_empty());
    let no_redirect = good(&with(
        "tls: {hosts: a.example, client_ca: /ca, require: false, acme: {storage: /s, terms_agreed: true, challenge: tls-alpn-01, directory: 'https://ca.example/dir', ca: /root.pem}}",
    ));
    let order = &no_redirect.gateway.unwrap().orders[0];
    assert_eq!(
        (&*order.acme.directory, order.acme.ca.as_deref()),
        ("https://ca.example/dir", Some("/root.pem".as_ref()))
    );
    let acme = "storage: /s, terms_agreed: true";
    for (policy, said) in [
        (
            format!("hosts: a.example, acme: {{{acme}, terms_agreed: false}}").replace(", terms_agreed: true", ""),
            "does not agree to its terms",
        ),
        ("hosts: a.example, acme: {terms_agreed: true}".to_owned(), "`acme` needs `storage`"),
        (format!("hosts: a.example, cert: /c, key: /k, acme: {{{acme}}}"), "keep one"),
        (format!("hosts: '*.a.example', acme: {{{acme}}}"), "only to who changes the DNS"),
        (format!("hosts: '*', acme: {{{acme}}}"), "only to who changes the DNS"),
        (format!("acme: {{{acme}}}"), "only to who changes the DNS"),
        (format!("hosts: 127.0.0.1, acme: {{{acme}}}"), "for a name like"),
        (format!("hosts: '[::1]', acme: {{{acme}}}"), "for a name like"),
        (format!("hosts: a_b.example, acme: {{{acme}}}"), "for a name like"),
        (format!("hosts: {}.example, acme: {{{acme}}}", "a".repeat(60)), "at most 64"),
        (format!("hosts: [a.example, A.example], acme: {{{acme}}}"), "has a policy already"),
        (format!("hosts: a.example, acme: {{{acme}, directory: 'http://ca.example/dir'}}"), "by https"),
        (format!("hosts: a.example, acme: {{{acme}, directory: 'https://u:p@ca.example/dir'}}"), "may name no user"),
        (format!("hosts: a.example, acme: {{{acme}, directory: ca}}"), "by https"),
        (format!("hosts: a.example, acme: {{{acme}, contact: ops}}"), "no address of mail"),
        (format!("hosts: a.example, acme: {{{acme}, contact: 'a@b,c@d'}}"), "no address of mail"),
        (format!("hosts: a.example, acme: {{{acme}, challenge: dns-01}}"), "unknown value `dns-01`"),
        (format!("hosts: a.example, acme: {{{acme}, email: a@b}}"), "unknown field `email`"),
    ] {
        let told = bad(&with(&format!("redirect_http: 81\n  tls: {{{policy}}}"))).to_string();
        assert!(told.contains(said), "{policy}: {told}");
    }
    let told = bad(&with(&format!("tls: {{hosts: a.example, acme: {{{acme}}}}}"))).to_string();
    assert!(told.contains("http-01 is answered without TLS") && told.contains("redirect_http"), "{told}");
    let told = bad(&with("").replace("listen: 8080", &format!("listen: {{address: 8080, tls: {{acme: {{{acme}}}}}}}")))
        .to_string();
    assert!(told.contains("unknown field `acme`"), "{told}");
}

#[test]
fn redis_is_a_url_or_keys_and_its_password_is_shown_nowhere() {
    let loaded = |redis: &str| load(Some(&text(&format!("{}redis: {redis}\n", with("")))), &env(&[]), &[]).unwrap();
    let tls = ClientTls::default();
    for (redis, username, password, database, encrypted) in [
        ("'rediss://ada:hunter2@redis.example:6380/3'", Some("ada"), Some("hunter2"), 3, Some(&tls)),
        (
            "{address: 'rediss://redis.example', username: ada, password: hunter2, database: 3}",
            Some("ada"),
            Some("hunter2"),
            3,
            Some(&tls),
        ),
        ("{address: redis.example, tls: on}", None, None, 0, Some(&tls)),
        ("{address: redis.example, tls: off}", None, None, 0, None),
        ("{address: 'redis://redis.example', tls: off}", None, None, 0, None),
        ("redis.example", None, None, 0, None),
    ] {
        let loaded = loaded(redis);
        let seen = loaded.config.redis.clone().unwrap();
        let shown =
            (seen.username.as_deref(), seen.password.as_ref().map(Secret::reveal), seen.database, seen.tls.as_ref());
        assert_eq!(shown, (username, password, database, encrypted), "{redis}");
        assert_eq!(loaded.config.client_tls().count(), usize::from(encrypted.is_some()), "{redis}");
        assert!(loaded.values.iter().all(|value| !value.value.contains("hunter2")), "{redis}: {:?}", loaded.values);
    }
    let ca = "{address: 'rediss://redis.example', tls: {ca: /certs/ca.crt, server_name: cache}}";
    let seen = loaded(ca).config.redis.unwrap().tls.clone().unwrap();
    assert_eq!((seen.ca, seen.server_name.as_deref()), (Some("/certs/ca.crt".into()), Some("cache")));
    for (redis, message) in [
        ("{address: 'rediss://redis.example', tls: off}", "is TLS"),
        ("{address: 'redis://redis.example', tls: on}", "write `rediss://`"),
        ("{address: 'redis://ada:hunter2@redis.example', username: bob}", "says that already"),
        ("{address: 'redis://:hunter2@redis.example', password: other}", "says that already"),
        ("{address: 'redis://redis.example/1', database: 2}", "says that already"),
        ("ada:hunter2@redis.example", "part of a URL"),
        ("'https://redis.example'", "`rediss://host:port`"),
    ] {
        let report = bad(&format!("{}redis: {redis}\n", with(""))).to_string();
        assert!(report.contains(message) && !report.contains("hunter2"), "{redis}: {report}");
    }
}
