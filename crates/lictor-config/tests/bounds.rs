//! A text costs no more than its length: what is too deep, too long or too much is refused before anything is made of it.

use std::time::Duration;

use lictor_config::{Environment, Loaded, Report, Sources, Text, load};
use rustix::time::{ClockId, clock_gettime};

const FILE: &str = "registration: off\nservice: orders\n";

fn env() -> Environment {
    Environment { vars: [].into(), hostname: "host-1".to_owned() }
}

fn text(yaml: &str) -> Text {
    Text { name: "lictor.yaml".to_owned(), text: yaml.to_owned() }
}

fn file(yaml: &str) -> Result<Loaded, Report> {
    load(Some(&text(yaml)), &env(), &[])
}

fn kv(yaml: &str) -> Result<Loaded, Report> {
    let kv = Text { name: "kv:lictor/orders/config".to_owned(), text: yaml.to_owned() };
    Sources { file: Some(text(FILE)), kv: Some(kv), env: env(), ..Sources::default() }.load()
}

fn all(count: usize, each: impl Fn(usize) -> String) -> String {
    let texts: Vec<String> = (0..count).map(each).collect();
    texts.concat()
}

/// This thread's processor time: others run beside it.
fn now() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it counts from zero")
}

/// Each is about 340 KiB, which Consul takes as a value.
fn bombs() -> Vec<(&'static str, String)> {
    let many = |text: &str| text.repeat(340 * 1024 / text.len());
    let laughs = all(30, |level| format!("a{}: &a{} [{}]\n", level + 1, level + 1, format!("*a{level}, ").repeat(9)));
    vec![
        ("brackets", format!("upstreams: {}", many("["))),
        ("braces", format!("upstreams: {}", many("{"))),
        ("brackets behind quotes", format!("a: b\n  'c\nupstreams: {}", many("["))),
        ("brackets behind comments", format!("upstreams: {}", many("[#]\n"))),
        ("dashes", many("- ")),
        ("question marks", many("? ")),
        ("steps", (0..800).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n")),
        ("laughs", format!("a0: &a0 x\n{laughs}")),
        ("one list, many times", format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(80_000), "*a,".repeat(50_000))),
        ("anchors in anchors", format!("a: {}{}", "&a [".repeat(60), many("x,"))),
        ("tag directives", all(14_000, |number| format!("%TAG !a{number}! b\n")) + "---\n[]\n"),
        ("unknown keys", format!("{{{}}}", all(30_000, |number| format!("k{number}: 1,")))),
        ("long keys", (0..300).fold(String::new(), |text, _| text + &"timeout".repeat(150) + "x: 1\n")),
        ("one long key", format!("{}: 1", many("k"))),
        ("one long key in two lines", format!("? {}\n: 1", many("k"))),
        ("variables", format!("defaults: {{retry: {{on: [{}]}}}}", "'${A}',".repeat(40_000))),
        ("wrong elements", format!("outbound: {{allow: [{}]}}", "'a b',".repeat(50_000))),
        ("tags", many("! ")),
        ("documents", many("---\n")),
        ("closing brackets", many("]")),
        ("colons", format!("a: [{}]", many(": ,"))),
        ("routes", format!("upstreams: {{a: {{listen: 3001, routes: [{}]}}}}", "{match: /},".repeat(31_000))),
        ("upstreams", format!("upstreams: {{{}}}", all(30_000, |number| format!("u{number}: 1,")))),
    ]
}

#[test]
fn no_text_costs_more_than_its_length() {
    for (name, bomb) in bombs() {
        let began = now();
        let refused = |result: Result<Loaded, Report>| result.err().unwrap_or_else(|| panic!("{name} is accepted"));
        let (report, over_file) = (refused(file(&bomb)), refused(kv(&bomb)));
        // Without bounds a minute and more; half a second is usual, and it is much less when optimised.
        let took = now().saturating_sub(began);
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
        assert!(report.0.len() <= 202 && report.to_string().len() < 200_000, "{name}: {} mistakes", report.0.len());
        assert!(over_file.sentences().join("\n").len() < 100_000, "{name}");
    }
}

#[test]
fn what_is_too_much_is_refused_with_its_place() {
    for (yaml, sentence) in [
        (format!("a:\n  b: {}", "[".repeat(65)), "lictor.yaml:2:68: not valid YAML: too deep: 64 lists and maps"),
        (format!("a: {}", "[".repeat(5_000)), "lictor.yaml:1:"),
        (format!("a: {}", "- ".repeat(65)), "lictor.yaml:1:"),
        (
            (0..70).fold(String::new(), |text, at| text + &" ".repeat(at) + "a:\n"),
            "lictor.yaml:65:65: not valid YAML: too deep",
        ),
        (format!("a: b\nc: [{}]", "x,".repeat(500_000)), "lictor.yaml:2:999995: not valid YAML: too much: 500000 keys"),
        (format!("? {}\n: 1", "k".repeat(1025)), "lictor.yaml:1:3: not valid YAML: a key of 1025 bytes"),
        ("#".repeat((4 << 20) + 1), "lictor.yaml:1:1: too long: 4194305 bytes"),
        ("s\0e\0r\0v\0".to_owned(), "lictor.yaml:1:2: the character U+0000"),
        (format!("{}}}", "{a: 1}\n---\n".repeat(2)), "lictor.yaml:2:1: not valid YAML: a second document"),
        (
            format!("upstreams: {{a: {{routes: [{}]}}, b: 3001}}", "{match: /},".repeat(20_000)),
            "lictor.yaml:1:220015: upstreams.a.routes[19999]: too much: 20000 upstreams and routes are read",
        ),
    ] {
        let said = file(&yaml).err().unwrap_or_else(|| panic!("accepted: {sentence}")).sentences();
        assert!(said.iter().any(|line| line.starts_with(sentence)), "no `{sentence}` in {said:#?}");
    }
}

#[test]
fn what_is_legal_is_read_however_it_is_written() {
    let brackets = "[".repeat(500);
    for yaml in [
        format!("# {brackets}\nupstreams: {{a: 3001}}\n"),
        format!(
            "upstreams:\n  a:\n    listen: 3001\n    headers: {{set: {{X-A: '{brackets}', X-B: \"{brackets}\", X-C: a}}}}\n"
        ),
        format!("upstreams:\n  a:\n    listen: 3001\n    headers:\n      set:\n        X-A: a{brackets}\n"),
        format!("upstreams:\n  a:\n    listen: 3001\n    filter: >-\n      {brackets}\n      {brackets}\n"),
        format!("#{}\nupstreams: {{a: 3001}}\n", "x".repeat(1 << 20)),
        format!("{}upstreams: {{a: 3001}}\n", "# x\n".repeat(100_000)),
        "\u{feff}upstreams:\r\n  a: 3001\r\n".to_owned(),
        "%YAML 1.2\n---\nupstreams: {a: 3001}\n...\n".to_owned(),
        "defaults: &d {timeout: 3s}\nupstreams:\n  a: {<<: *d, listen: !!int 3001}\n".to_owned(),
        "? upstreams\n: ? a\n  : listen: 3001\n".to_owned(),
    ] {
        let loaded = file(&format!("{}registration: off\n", yaml.strip_suffix("...\n").unwrap_or(&yaml)));
        let config = loaded.unwrap_or_else(|report| panic!("{yaml:.200}: {report}")).config;
        assert_eq!(config.upstreams[0].listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3001", "{yaml:.200}");
    }
}

/// What grows, and a text with so many of it.
fn large(count: usize) -> Vec<(&'static str, String)> {
    let all = |each: &dyn Fn(usize) -> String| all(count, each);
    let port = |number: usize| 10_000 + number;
    vec![
        (
            "upstreams",
            format!(
                "upstreams:\n{}",
                all(&|number| format!("  u{number}: {{listen: {}, timeout: 5s}}\n", port(number)))
            ),
        ),
        (
            "upstreams in a line",
            format!("upstreams: {{{}}}\n", all(&|number| format!("u{number}: {}, ", port(number)))),
        ),
        (
            "routes",
            format!(
                "upstreams:\n  a:\n    listen: 3001\n    routes:\n{}",
                all(&|number| format!("      - {{match: /r{number}, timeout: 1s}}\n"))
            ),
        ),
        (
            "listeners of one port",
            format!(
                "upstreams:\n{}",
                all(&|number| format!("  u{number}: 127.{}.{}.1:3000\n", number / 250, number % 250))
            ),
        ),
        (
            "names and what is allowed",
            format!(
                "outbound: {{proxy: 3000, allow: [{}]}}\nupstreams:\n{}",
                all(&|number| self::all(60, |more| format!("b{more}-{number}, "))),
                all(&|number| format!("  u{number}: {}\n", port(number)))
            ),
        ),
        ("warnings", format!("upstreams:\n{}", all(&|number| format!("  u{number}: '0.0.0.0:{}'\n", port(number))))),
        (
            "headers",
            format!(
                "upstreams:\n  a:\n    listen: 3001\n    headers:\n      set:\n{}",
                all(&|number| format!("        x-h{number}: ${{A:-b}}\n"))
            ),
        ),
    ]
}

#[test]
fn ten_thousand_upstreams_or_routes_load() {
    for (name, yaml) in large(10_000).into_iter().filter(|(name, _)| ["upstreams", "routes"].contains(name)) {
        let loaded = file(&format!("{FILE}{yaml}")).unwrap_or_else(|report| panic!("{name}: {report}"));
        let routes: usize = loaded.config.upstreams.iter().map(|upstream| upstream.routes.iter().count()).sum();
        assert_eq!(loaded.config.upstreams.len().max(routes), 10_000, "{name}");
    }
}

#[test]
fn loading_takes_as_long_as_the_text_is() {
    let least = |yaml: &str, load: &dyn Fn(&str) -> Result<Loaded, Report>| {
        let took = |_| {
            let began = now();
            let _ = load(yaml);
            now().saturating_sub(began)
        };
        (0..2).map(took).min().unwrap()
    };
    for ((name, small), (_, large)) in large(100).into_iter().zip(large(600)) {
        for (source, load) in [("file", &file as &dyn Fn(&str) -> _), ("kv", &kv)] {
            let (short, long) = (least(&small, load), least(&large, load));
            // Six times as much; what grows by the square takes 36 times as long.
            assert!(long < short * 15, "{name} from {source}: {short:?}, then {long:?}");
        }
    }
}
