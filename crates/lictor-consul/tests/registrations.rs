//! What `lictor check` refuses of a registration, against what a real Consul 1.8 refuses: many are made up and put to
//! both. What Consul refuses is refused; what is accepted Consul takes, finds again and gives back.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]
#![allow(clippy::print_stdout, reason = "how many were taken and refused; --nocapture shows it")]

use std::collections::BTreeMap;

use lictor_config::{Environment, Loaded, Report, Text, load};
use lictor_consul::{Agent, encode};
use lictor_testkit::{Answer, Consul, request};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value as Json, json};

const HOW_MANY: usize = 500;

/// Why `lictor check` refuses what Consul takes: words of the message, and the reason.
const OUR_OWN: [(&str, &str); 9] = [
    ("is not a service name", "what DNS and paths cannot have: newer versions of Consul warn of it"),
    ("needs the service's name", "it has none then"),
    ("neither find nor deregister", "Consul takes such an id and finds it no more"),
    ("is not an address", "nobody can dial it"),
    ("must not be empty", "an empty text is a mistake: to say nothing, leave the key out"),
    ("too short to be beaten in time", "a TTL that short is critical whenever the machine is busy"),
    ("unspecified address", "nobody can dial it, however it is written"),
    ("without an interval", "less than 1 ms is written as 0 ms"),
    ("not a duration", "no wait of more than 30 years is meant"),
];

/// A registration, before anybody has judged it.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    id: Option<String>,
    address: Option<String>,
    port: u16,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    weights: (u32, u32),
    check: Check,
}

#[derive(Clone, Debug)]
struct Check {
    kind: &'static str,
    interval_us: u64,
    timeout_us: u64,
    ttl_us: u64,
}

/// Mostly ordinary, sometimes at a bound, sometimes odd.
fn texts(ordinary: &'static str, odd: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![6 => ordinary, 1 => prop::sample::select(odd).prop_map(str::to_owned)]
}

fn long(around: usize) -> impl Strategy<Value = String> {
    (around - 2..around + 3).prop_map(|length| "k".repeat(length))
}

fn meta() -> impl Strategy<Value = BTreeMap<String, String>> {
    let keys = prop_oneof![
        20 => "[a-zA-Z0-9_-]{1,12}",
        1 => long(128),
        1 => prop::sample::select(&["a.b", "a b", "", "é", "consul-x", "Consul-x", "a:b", "protocol"][..]).prop_map(str::to_owned),
    ];
    let values =
        prop_oneof![10 => "[ -~]{1,20}", 1 => long(512), 1 => (254..259_usize).prop_map(|count| "é".repeat(count))];
    let pairs = prop_oneof![8 => 0..4_usize, 1 => 61..67_usize];
    pairs.prop_flat_map(move |count| prop::collection::btree_map(keys.clone(), values.clone(), count))
}

fn drafts() -> impl Strategy<Value = Draft> {
    let weight = || prop_oneof![4 => 0..5_u32, 1 => 65_533..65_538_u32, 1 => any::<u32>()];
    let micros = || prop_oneof![3 => 1_000_000..60_000_000_u64, 1 => 0..3_000_u64, 1 => Just(0_u64)];
    let check = (prop::sample::select(&["http", "tcp", "grpc", "ttl"][..]), micros(), micros(), micros());
    let check =
        check.prop_map(|(kind, interval_us, timeout_us, ttl_us)| Check { kind, interval_us, timeout_us, ttl_us });
    let ids =
        texts("[ -~]{1,30}", &["..", "a//b", "/a", "a/./b", "register", "maintenance/a", "é", "a/", "a%2Fb", "a?b#c"]);
    let addresses = texts(
        "10\\.[0-9]\\.0\\.[0-9]",
        &["0.0.0.0", "::", "[::]", "fd00::1", "[fd00::1]", "a_b.c", "a b", "0:0::0", ""],
    );
    let names = texts("[a-z][a-z0-9_.-]{0,20}", &["a b", "é", "A", "-a", "a/b", "9"]);
    (
        names,
        prop::option::of(ids),
        prop::option::of(addresses),
        1_u16..,
        prop::collection::vec("[ -~]{1,12}", 0..3),
        meta(),
        (weight(), weight()),
        check,
    )
        .prop_map(|(name, id, address, port, tags, meta, weights, check)| Draft {
            name,
            id,
            address,
            port,
            tags,
            meta,
            weights,
            check,
        })
}

impl Draft {
    /// As a configuration says it; JSON is YAML.
    fn configuration(&self) -> String {
        let micros = |micros: u64| format!("{micros}us");
        let Check { kind, interval_us, timeout_us, ttl_us } = &self.check;
        let mut check = json!({ "interval": micros(*interval_us), "timeout": micros(*timeout_us) });
        check[*kind] = match *kind {
            "http" => json!("/health"),
            "ttl" => json!(micros(*ttl_us)),
            _ => json!(true),
        };
        let mut registration = json!({
            "tags": self.tags,
            "meta": self.meta,
            "weights": { "passing": self.weights.0, "warning": self.weights.1 },
            "checks": [check],
        });
        for (key, text) in [("id", &self.id), ("address", &self.address)] {
            if let Some(text) = text {
                registration[key] = json!(text.replace('$', "_"));
            }
        }
        json!({ "service": self.name, "port": self.port, "registration": registration }).to_string().replace("${", "_{")
    }

    /// As Consul is told it, by nobody's rules.
    fn body(&self) -> Json {
        let Check { kind, interval_us, timeout_us, ttl_us } = &self.check;
        let micros = |micros: u64| format!("{micros}us");
        let mut check = json!({ "Interval": micros(*interval_us), "Timeout": micros(*timeout_us) });
        match *kind {
            "http" => check["HTTP"] = json!("http://127.0.0.1:1/health"),
            "tcp" => check["TCP"] = json!("127.0.0.1:1"),
            "grpc" => check["GRPC"] = json!("127.0.0.1:1"),
            // Without the interval, which is of no use to it and which lictor leaves out.
            _ => check = json!({ "TTL": micros(*ttl_us) }),
        }
        json!({
            "ID": self.id.clone().unwrap_or_else(|| self.name.clone()),
            "Name": self.name,
            "Address": self.address.clone().unwrap_or_default(),
            "Port": self.port,
            "Tags": self.tags,
            "Meta": self.meta,
            "Weights": { "Passing": self.weights.0, "Warning": self.weights.1 },
            "Checks": [check],
        })
    }

    fn judged(&self) -> Result<Loaded, Report> {
        let file = Text { name: "draft".to_owned(), text: self.configuration() };
        load(Some(&file), &Environment { hostname: "host".to_owned(), ..Environment::default() }, &[])
    }
}

fn ask(consul: &Consul, method: &str, path: &str, body: &str) -> Answer {
    request(&consul.address(), method, path, &[], body.as_bytes()).unwrap()
}

#[test]
fn what_consul_refuses_for_ever_is_refused_before_it_is_asked() {
    let consul = Consul::dev();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut refused_by_both, mut taken_by_both) = (0, 0);
    let mut our_own: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..HOW_MANY {
        let draft = drafts().new_tree(&mut runner).unwrap().current();
        let theirs = ask(&consul, "PUT", "/v1/agent/service/register", &draft.body().to_string());
        let says = || format!("{draft:#?}\nConsul: {} {}", theirs.status, theirs.text());
        match draft.judged() {
            Ok(loaded) => {
                assert_eq!(theirs.status, 200, "check lets it pass: {}", says());
                taken_by_both += 1;
                let agent = Agent::new(&loaded.config.consul).unwrap().unwrap();
                let body = runtime.block_on(async { agent.registration(&loaded.config).unwrap() });
                let taken = ask(&consul, "PUT", "/v1/agent/service/register", &body.to_string());
                assert_eq!(taken.status, 200, "as lictor says it: {body}\n{}", taken.text());
                let id = encode(body["ID"].as_str().unwrap());
                let held = |path: &str, method: &str| {
                    ask(&consul, method, &format!("/v1/agent/service/{path}{id}"), "").status
                };
                assert_eq!(
                    (held("", "GET"), held("deregister/", "PUT"), held("", "GET")),
                    (200, 200, 404),
                    "{}",
                    says()
                );
            }
            Err(_) if theirs.status != 200 => refused_by_both += 1,
            Err(report) => {
                for mistake in report.errors() {
                    let known = OUR_OWN.iter().find(|(words, _)| mistake.message.contains(words));
                    let (_, why) =
                        known.unwrap_or_else(|| panic!("check refuses what Consul takes: {mistake:?} {}", says()));
                    *our_own.entry(why).or_default() += 1;
                }
            }
        }
    }
    assert!(
        taken_by_both > 50 && refused_by_both > 50,
        "{taken_by_both} taken, {refused_by_both} refused, {our_own:?}"
    );
    println!(
        "{HOW_MANY}: {taken_by_both} taken by both, {refused_by_both} refused by both; lictor alone: {our_own:#?}"
    );
}
