//! What KV may say, over the file and under the environment.

use lictor_config::{Claims, Sources, Tagged, changes};

use super::*;

/// The file and the value of the KV key.
fn over(file: &str, kv: &str) -> Sources {
    let kv = Text { name: "kv:lictor/orders/config".to_owned(), text: kv.to_owned() };
    Sources { file: Some(text(file)), kv: Some(kv), env: env(&[]), ..Sources::default() }
}

const ORDERS: &str = "service: orders\nport: 8080\nregistration: off\nconsul: {kv: true}\nupstreams:\n  users: 3001\n  carts: {listen: 3002, timeout: 3s, retry: {on: [503, reset]}}\n";

#[test]
fn kv_is_over_the_file_and_under_the_environment() {
    let mut sources = over(
        ORDERS,
        "defaults: {timeout: 9s}\nupstreams:\n  users: {timeout: 5s}\n  carts: {retry: {on: [500]}}\n  pay: 3003\n",
    );
    sources.flags = vec![("upstreams.carts.timeout".to_owned(), "2s".to_owned())];
    let loaded = sources.load().unwrap_or_else(|report| panic!("{report}"));
    let seen = |name: &str| loaded.config.upstreams.iter().find(|upstream| upstream.name == name).unwrap();
    let seconds = |name| seen(name).policy.timeouts.total.unwrap().as_secs();
    assert_eq!((seconds("users"), seconds("carts"), seconds("pay")), (5, 2, 9));
    assert_eq!(seen("users").listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3001", "the shorthand stays");
    assert_eq!(seen("carts").policy.retry.statuses, [http::StatusCode::INTERNAL_SERVER_ERROR], "a list is replaced");
    let origin = |path: &str| loaded.values.iter().find(|value| value.path == path).unwrap().origin.to_string();
    assert_eq!(origin("defaults.timeout"), "kv:lictor/orders/config:1:21");
    assert_eq!(origin("upstreams.users.timeout"), "kv:lictor/orders/config:3:20");
    assert_eq!(origin("upstreams.users.listen"), "lictor.yaml:6:10");
    assert_eq!(origin("upstreams.carts.timeout"), "--set");
    let by_variable = env(&[("LICTOR_CONSUL_KV", "true"), ("LICTOR_CONSUL_SNAPSHOT_PATH", "/s")]);
    let consul = load(Some(&text("service: a\nregistration: off\n")), &by_variable, &[]).unwrap().config.consul;
    assert_eq!(
        (consul.kv.unwrap().config.as_str(), consul.snapshot.unwrap().path.to_str()),
        ("lictor/a/config", Some("/s"))
    );
    assert!(consul.address.is_some(), "that needs Consul");
    let keys = loaded.config.consul.kv.unwrap();
    assert_eq!((keys.config.as_str(), keys.status.as_str()), ("lictor/orders/config", "lictor/orders/status"));
    assert!(over(ORDERS, "").load().is_ok() && over(ORDERS, "upstreams:\n").load().is_ok(), "nothing says nothing");
}

#[test]
fn kv_may_not_say_who_we_are_nor_reach_out() {
    for (kv, place, message) in [
        ("admin: {listen: 9902}\n", "1:1", "KV may not change `admin`"),
        ("defaults: {timeout: 1s}\nconsul: {address: 'http://x'}\n", "2:1", "KV may not change `consul`"),
        ("service: carts\n", "1:1", "KV may not change `service`"),
        ("port: 1\n", "1:1", "KV may not change `port`"),
        ("check: /x\n", "1:1", "KV may not change `check`"),
        ("registration: {id: x}\n", "1:1", "KV may not change `registration`"),
        ("app: {command: [sh]}\n", "1:1", "KV may not change `app`"),
        ("building_blocks: {locks: true}\n", "1:1", "KV may not change `building_blocks`"),
        ("workers: 1\n", "1:1", "KV may not change `workers`"),
        ("service_token: x\n", "1:1", "KV may not change `service_token`"),
        ("metrics: {compat: false}\n", "1:1", "KV may not change `metrics`"),
        ("gateway: {listen: 8080}\n", "1:1", "KV may not change `gateway`"),
        ("redis: 127.0.0.1:6379\n", "1:1", "KV may not change `redis`"),
        ("inbound: {listen: 5000}\n", "1:11", "KV may not change `inbound.listen`"),
        ("inbound: {verify_service_token: false}\n", "1:11", "KV may not change `inbound.verify_service_token`"),
        ("inbound: true\n", "1:1", "KV may not change `inbound`"),
        ("inbound: {max_in_flight: 5}\n", "1:10", "no inbound listener"),
        ("trace: {otlp: 'http://x:4318'}\n", "1:9", "KV may not change `trace.otlp`"),
        ("log: {format: text}\n", "1:7", "KV may not change `log.format`"),
        ("upstreams: {pay: '0.0.0.0:3003'}\n", "1:18", "KV may not listen on 0.0.0.0:3003"),
        ("upstreams: {pay: 80}\n", "1:18", "KV may not listen on 127.0.0.1:80"),
        ("upstreams:\n  pay: {listen: {address: 'unix:/run/x'}}\n", "2:27", "KV may not listen on unix:/run/x"),
        ("outbound: {proxy: '10.0.0.1:3003'}\n", "1:19", "KV may not listen on 10.0.0.1:3003"),
        ("upstreams:\n  users: {tls: off}\n", "2:11", "KV may not change TLS"),
        ("upstreams:\n  pay: {listen: {address: 3003, tls: {key: /k}}}\n", "2:33", "KV may not change TLS"),
        ("upstreams: {users: {headers: {set: {A: 'file:/etc/shadow'}}}}\n", "1:40", "this machine's files"),
        ("upstreams: {users: {headers: {set: {A: '${HOME}'}}}}\n", "1:40", "this machine's environment"),
        ("defaults: {timeuot: 1s}\n", "1:12", "unknown field `timeuot`"),
        ("defualts: {timeout: 1s}\n", "1:1", "did you mean `defaults`?"),
        ("upstreams: {pay: 3001}\n", "1:18", "port 3001 is taken already by upstream users"),
        ("upstreams: {\n", "2:1", "not valid YAML"),
        ("hello\n", "1:1", "expected a map"),
    ] {
        let report = over(ORDERS, kv).load().expect_err(kv);
        let said = report.sentences();
        let expected = format!("kv:lictor/orders/config:{place}:");
        assert!(said.iter().any(|line| line.starts_with(&expected) && line.contains(message)), "{kv}: {said:#?}");
        assert_eq!(said.len(), 1, "{kv}: {said:#?}");
    }
    let inbound = "service: orders\nport: 8080\nregistration: off\ninbound: true\n";
    let loaded = over(inbound, "inbound: {max_in_flight: 5}\n").load().unwrap_or_else(|report| panic!("{report}"));
    let inbound = loaded.config.inbound.unwrap();
    assert_eq!((inbound.max_in_flight, inbound.listen.address.to_string().as_str()), (5, "0.0.0.0:18080"));
    let off = "service: orders\nport: 8080\nregistration: off\ninbound: off\n";
    assert!(over(off, "inbound: {max_in_flight: 5}\n").load().is_err());
}

/// Whom this machine's sources name, each in another way.
fn with_secrets() -> Sources {
    let file = "service: orders
registration: off
consul: {kv: true}
service_token: s3cret
outbound: {proxy: 3000, allow: [allowed, team-*]}
upstreams:
  short: 3001
  named:
  payments: {listen: {address: 3002, tls: {cert: /c, key: /k}}, service: pay, tag: [blue], headers: {set: {X-Partner-Key: s3cret}}}
  legacy: {listen: 3003, static: ['a:1']}
";
    let mut sources = over(file, "");
    sources.env = env(&[("LICTOR_UPSTREAMS", "variable:3004")]);
    sources.flags = vec![("upstreams.flag.listen".to_owned(), "3005".to_owned())];
    sources
}

#[test]
fn kv_never_chooses_who_gets_what_this_machine_sends() {
    never_leads(
        &with_secrets(),
        &["short", "named", "payments", "legacy", "variable", "flag", "PAYMENTS", "allowed", "team-a"],
    );
}

/// Nothing that KV says of them leads these elsewhere.
fn never_leads(sources: &Sources, names: &[&str]) {
    for key in [
        "service: evil",
        "query: evil",
        "failover: [evil]",
        "failover: [{service: evil}]",
        "datacenter: evil",
        "tag: evil",
        "tag: []",
        "filter: 'Node == evil'",
        "version: evil",
        "static: ['evil:80']",
        "service: evil, headers: {set: {X-Partner-Key: mine, X-Service-Auth: mine}}",
        "headers: {set: {Host: evil}}",
        "headers: {set: {hOsT: evil}}",
    ] {
        for name in names {
            for kv in [
                format!("upstreams: {{{name}: {{{key}}}}}\n"),
                format!("x: &x {{{key}}}\nupstreams: {{{name}: {{<<: *x}}}}\n"),
            ] {
                let mut sources = sources.clone();
                sources.kv.as_mut().expect("KV is read").text.clone_from(&kv);
                let said = sources.load().expect_err(&kv).sentences();
                let expected = format!("KV may not change whom this machine's `{name}` leads to");
                assert!(said.iter().any(|line| line.contains(&expected)), "{kv}: {said:#?}");
            }
        }
    }
}

/// A gateway that names services in each way that there is, of which `upstreams` says nothing; and two claim a route.
fn with_gateway() -> Sources {
    let file = "service: edge
registration: off
consul: {kv: true}
service_token: s3cret
auth: {outbound: {bearer: t0ken}}
gateway:
  listen: 8080
  auth: {forward: {to: asked, path: /validate}}
  from_consul: {allow: {claiming: /claimed/*, 'pay-*': /pay/*}}
  routes:
  - {path: /to/*, to: plain, mirror: copied}
  - {path: /version, to: versioned@v2, mirror: {to: copied-version@v3}}
  - {path: /split, split: {parted: 90, parted@v2: 5, other@v1: 5}}
";
    let claim = |service: &str, text: &str| Tagged { service: service.to_owned(), text: text.to_owned() };
    let list = vec![claim("claiming", "/claimed/a"), claim("pay-new", "/pay/*")];
    Sources { claims: Claims { tag: "lictor.route".to_owned(), list }, ..over(file, "") }
}

/// Of [`with_gateway`].
const CALLED: [&str; 9] =
    ["plain", "copied", "versioned", "copied-version", "parted", "other", "asked", "claiming", "pay-new"];

#[test]
fn kv_never_says_where_the_services_are_that_the_gateway_calls() {
    never_leads(&with_gateway(), &CALLED);
    never_leads(&with_gateway(), &["PLAIN", "Asked", "pay-unheard-of", "Pay-New"]);
    let short =
        "service: edge\nregistration: off\nconsul: {kv: true}\ngateway: {listen: 8080, routes: {/api/*: plain}}\n";
    never_leads(&over(short, ""), &["plain"]);
    for name in CALLED {
        let mut sources = with_gateway();
        sources.kv.as_mut().unwrap().text = format!("upstreams: {{{name}: {{fallback: {{body: mine}}}}}}\n");
        let said = sources.load().expect_err(name).to_string();
        assert!(said.contains("KV may not change `upstreams.") && said.contains("fallback.body"), "{said}");
    }
}

#[test]
fn what_the_gateway_calls_is_shown_the_same_whatever_kv_tunes_of_it() {
    let load = |kv: &str| {
        let mut sources = with_gateway();
        sources.kv.as_mut().unwrap().text = kv.to_owned();
        sources.load().unwrap_or_else(|report| panic!("{kv}: {report}")).config
    };
    let before = load("");
    let bearer = |upstream: &Upstream| upstream.bearer.is_some();
    let of =
        |config: &Config, name: &str| config.upstreams.iter().find(|upstream| upstream.name == name).cloned().unwrap();
    for name in CALLED {
        let after = load(&format!("upstreams: {{{name}: {{timeout: 3s, retry: off, listen: 3009}}}}\n"));
        assert_eq!(of(&after, name).policy.timeouts.total, Some(Duration::from_secs(3)), "{name}");
        assert!(bearer(&of(&after, name)) && !of(&after, name).set_headers.is_empty(), "{name}");
        // Those too that are made of it: its versions, and copies.
        for known in &before.upstreams {
            let now = of(&after, &known.name);
            assert_eq!((&now.source, &now.set_headers), (&known.source, &known.set_headers), "{name}: {}", known.name);
            assert_eq!(bearer(&now), bearer(known), "{name}: {}", known.name);
        }
    }
    // KV's own are shown nothing, also one that differs by case alone.
    let own = load("upstreams: {own: {static: ['a:1']}, PLAIN: {timeout: 1s}, paying: {service: pay-new}}\n");
    for name in ["own", "PLAIN", "paying"] {
        assert!(!bearer(&of(&own, name)) && of(&own, name).set_headers.is_empty(), "{name}");
    }
}

#[test]
fn kv_never_sets_whom_to_call_without_consul() {
    for (kv, name) in [
        ("upstreams: {payments: {bootstrap: ['evil:80']}}\n", "payments"),
        ("upstreams: {short: {bootstrap: 'evil:80'}}\n", "short"),
        ("x: &x {bootstrap: ['evil:80']}\nupstreams: {named: {<<: *x}}\n", "named"),
        ("upstreams: {own: {listen: 3008, bootstrap: ['evil:80']}}\n", "own"),
    ] {
        let mut sources = with_secrets();
        sources.kv.as_mut().unwrap().text = kv.to_owned();
        let said = sources.load().expect_err(kv).sentences();
        let expected = format!("KV may not set `bootstrap` of `{name}`");
        assert!(said.iter().any(|line| line.contains(&expected)), "{kv}: {said:#?}");
    }
}

#[test]
fn what_kv_may_say_of_an_upstream_leaves_whom_it_leads_to_and_what_is_sent() {
    let before = with_secrets().load().unwrap_or_else(|report| panic!("{report}")).config;
    for kv in [
        "upstreams: {payments: {timeout: 3s, service: pay, tag: [blue]}}\n",
        "upstreams: {payments: 3009}\n",
        "upstreams: {payments: {listen: 3009}}\n",
        "upstreams: {payments: ~, short: {timeout: 3s}, named: 3007}\n",
        "upstreams: {legacy: {listen: 3009, retry: off}, variable: {timeout: 1s}, flag: 3008}\n",
        "upstreams: {own: {listen: 3008, service: evil}, other: {static: ['evil:80']}}\n",
    ] {
        let mut sources = with_secrets();
        sources.kv.as_mut().unwrap().text = kv.to_owned();
        let after = sources.load().unwrap_or_else(|report| panic!("{kv}: {report}")).config;
        let secrets = |upstream: &Upstream| {
            let is_secret = |(_, value): &&(_, http::HeaderValue)| value == "s3cret";
            upstream.set_headers.iter().filter(is_secret).count()
        };
        for upstream in &after.upstreams {
            match before.upstreams.iter().find(|known| known.name == upstream.name) {
                Some(known) => {
                    assert_eq!((&upstream.source, secrets(upstream)), (&known.source, secrets(known)), "{kv}");
                    let tls = |upstream: &Upstream| upstream.listen.as_ref().and_then(|listen| listen.tls.clone());
                    assert_eq!(tls(upstream), tls(known), "{kv}");
                }
                None => assert_eq!(secrets(upstream), 0, "{}: KV's own gets nothing of this machine's", upstream.name),
            }
        }
    }
    let wide = "upstreams: {payments: '0.0.0.0:3009'}\n";
    let mut sources = with_secrets();
    sources.kv.as_mut().unwrap().text = wide.to_owned();
    assert!(sources.load().unwrap_err().to_string().contains("KV may not listen on 0.0.0.0:3009"));
}

/// What this machine's programs say goes to a port: whoever else listens there hears it, also where `localhost` is another
/// address than the one that was meant.
#[test]
fn kv_listens_on_no_port_that_means_something_to_this_machine() {
    let file = "service: orders
port: 8080
registration: off
consul: {kv: true, address: 'http://127.0.0.1:8501'}
admin: {listen: 9902, public: '127.0.0.1:9903'}
inbound: {listen: '127.0.0.1:8081'}
outbound: {proxy: 3000}
upstreams:
  short: 3001
  long: {listen: {address: '127.0.0.1:3002'}}
  middle: {listen: 3003}
  legacy: {static: ['localhost:5432', '[::1]:5433', 'elsewhere:5434']}
  early: {bootstrap: ['127.0.0.1:5435']}
";
    let load = |kv: &str| {
        let mut sources = over(file, kv);
        sources.env = env(&[("LICTOR_UPSTREAMS", "variable:3004")]);
        sources.flags = vec![("upstreams.flag.listen".to_owned(), "3005".to_owned())];
        sources.load()
    };
    let rows = [
        ("upstreams: {evil: '[::1]:3001'}", "short"),
        ("upstreams: {evil: '127.0.0.2:3002'}", "long"),
        ("upstreams: {short: 3009, evil: 3001}", "short"),
        ("upstreams: {long: 3009, evil: {listen: {address: 3002}}}", "long"),
        ("upstreams: {middle: {listen: {address: 3009}}, evil: {listen: '[::1]:3003'}}", "middle"),
        ("upstreams: {middle: {listen: off}, evil: 0xbbb}", "middle"),
        ("upstreams: {short: 3002, long: 3001}", "short"),
        ("upstreams: {evil: '[::1]:3004'}", "variable"),
        ("upstreams: {evil: '[::1]:3005'}", "flag"),
        ("outbound: {proxy: 3009}\nupstreams: {evil: 3000}", "the forward proxy"),
        ("outbound: {proxy: '[::1]:3001'}", "short"),
        ("upstreams: {evil: '[::1]:8080'}", "the application"),
        ("upstreams: {evil: '[::1]:8081'}", "inbound"),
        ("upstreams: {evil: '[::1]:9902'}", "the admin listener"),
        ("upstreams: {evil: '[::1]:9903'}", "the public admin listener"),
        ("upstreams: {evil: 8501}", "Consul's agent"),
        ("upstreams: {evil: 5432}", "legacy"),
        ("upstreams: {evil: '127.0.0.9:5433'}", "legacy"),
        ("upstreams: {evil: 5435}", "early"),
    ];
    for (kv, owner) in rows {
        let said = load(kv).expect_err(kv).sentences();
        assert!(
            said.iter().any(|line| line.contains("KV may not listen on") && line.contains(owner)),
            "{kv}: {said:#?}"
        );
    }
    for kv in [
        "upstreams: {short: '127.0.0.2:3001', own: 3010}",
        "upstreams: {long: 3009, middle: 3011}",
        "upstreams: {own: 5434, other: 0}",
        "outbound: {proxy: 3009}",
    ] {
        load(kv).unwrap_or_else(|report| panic!("{kv}: {report}"));
    }
}

#[test]
fn what_kv_says_in_vain_shows_no_secret() {
    let kv = "upstreams: {users: {timeuot: 1s, headers: {set: {Authorization: canary}}}}\n";
    let report = over(ORDERS, kv).load().unwrap_err();
    assert!(report.to_string().contains("timeuot"), "a person at the file sees the line");
    assert!(!report.to_string().contains("canary"), "but not the values in it");
}

#[test]
fn changes_are_what_somebody_said_and_name_secrets_by_their_key_alone() {
    let values = |kv: &str| over(ORDERS, kv).load().unwrap_or_else(|report| panic!("{report}")).values;
    let shown = |before: &str, after: &str| -> Vec<String> {
        changes(&values(before), &values(after)).iter().map(ToString::to_string).collect()
    };
    assert_eq!(shown("", "defaults: {timeout: 9s}\n"), ["defaults.timeout: 30s -> 9s"]);
    assert_eq!(shown("upstreams: {pay: 3003}\n", ""), ["upstreams.pay.listen: 3003 -> (none)"]);
    assert_eq!(shown("", "upstreams: {users: {timeout: 9s}}\n"), ["upstreams.users.timeout: 30s -> 9s"]);
    let secret = |value: &str| format!("upstreams: {{users: {{headers: {{set: {{Authorization: {value}}}}}}}}}\n");
    let key = "upstreams.users.headers.set.Authorization";
    assert_eq!(shown(&secret("canary-1"), &secret("canary-2")), [format!("{key}: *** -> ***")]);
    assert_eq!(shown(&secret("canary-1"), &secret("canary-1")), [""; 0]);
    assert_eq!(shown("", &secret("canary-1")), [format!("{key}: (none) -> ***")]);
}

proptest! {
    #[test]
    fn no_value_of_the_kv_key_is_a_panic(yaml in "[a-z:{}\\[\\]\\-0-9 \n'\"$%&*!|>#,]{0,200}") {
        let _ = over(ORDERS, &yaml).load();
    }

    #[test]
    fn no_text_is_a_panic(yaml in "[a-z:{}\\[\\]\\-0-9 \n'\"$%&*!|>#,]{0,200}") {
        let _ = load(Some(&text(&yaml)), &env(&[]), &[]);
    }

    #[test]
    fn no_value_of_a_known_key_is_a_panic(value in "[ -~]{0,24}", key in 0_usize..8) {
        let key = ["timeout", "balance", "retry", "breaker", "listen", "static", "routes", "limits"][key];
        let quoted = value.replace('\'', "''");
        let yaml = format!("registration: off\nupstreams:\n  a:\n    {key}: '{quoted}'\n");
        let _ = load(Some(&text(&yaml)), &env(&[]), &[]);
    }
}

#[test]
fn kv_may_not_answer_in_place_of_this_machines_upstreams() {
    let file = format!("{ORDERS}  rich: {{listen: 3004, fallback: {{upstream: carts, body: ours}}}}\n");
    for refused in [
        "upstreams: {users: {fallback: {upstream: carts}}}\n",
        "upstreams: {users: {fallback: {body: yes}}}\n",
        "upstreams: {users: {routes: [{match: /a}, {match: /x, fallback: {body: yes}}]}}\n",
        "upstreams: {users: {routes: [{match: /x, fallback: {upstream: pay}}]}, pay: 3005}\n",
        "upstreams: {users: {routes: {match: /x, fallback: {body: yes}}}}\n",
        "upstreams: {rich: {fallback: {upstream: users}}}\n",
        "upstreams: {rich: {fallback: {status: 201}}}\n",
        "upstreams: {rich: {fallback: {content_type: text/html}}}\n",
        "defaults: {fallback: {body: yes}}\n",
        "defaults: {fallback: {upstream: users}}\n",
    ] {
        let said = over(&file, refused).load().err().unwrap_or_else(|| panic!("accepted: {refused}")).to_string();
        let is_told = said.contains("KV may not change `") && said.contains("fallback.");
        assert!(is_told || said.contains("expected a list"), "{refused}{said}");
    }
    for taken in [
        "upstreams: {users: {fallback: {stale: 5m}}}\n",
        "upstreams: {rich: {fallback: {upstream: carts, body: ours}}}\n",
        "upstreams: {rich: {fallback: none}}\n",
        "defaults: {fallback: {stale: 5m}}\n",
        "upstreams: {pay: {listen: 3005, fallback: {body: later}}}\n",
        "upstreams: {pay: {listen: 3005, fallback: {upstream: users}}}\n",
    ] {
        over(&file, taken).load().unwrap_or_else(|report| panic!("{taken}{report}"));
    }
}
