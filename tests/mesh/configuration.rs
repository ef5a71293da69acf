//! The commands about configuration.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::LICTOR;

fn lictor(words: &[&str], yaml: &str) -> Output {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("lictor-config-{}-{}.yaml", std::process::id(), NUMBER.fetch_add(1, Relaxed));
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, yaml).unwrap();
    let output = Command::new(LICTOR).args(words).arg("-c").arg(&file).env("NO_COLOR", "1").output().unwrap();
    std::fs::remove_file(file).unwrap();
    output
}

#[test]
fn five_mistakes_are_told_at_once() {
    let yaml = "service: order-service\nport: 8082\nupstreams:\n  user-service: {listen: 3001, retrys: 3}\n  product-service:\n    listen: 3001\n    breaker: {failure_threshold: 0}\n    balance: round_robbin\ndefaults:\n  timeout: 30\n";
    let output = lictor(&["check"], yaml);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("lictor: 5 errors in"), "{said}");
    for expected in [
        ":4:32",
        "did you mean `retry`?",
        ":6:13",
        ":7:34",
        ":8:14",
        "did you mean `round_robin`?",
        ":10:12",
        "write `30s`",
    ] {
        assert!(said.contains(expected), "no `{expected}` in\n{said}");
    }
}

#[test]
fn a_good_file_is_ok_and_its_values_have_origins() {
    let yaml = "service: a\nport: 8082\nconsul: {token: canary}\nupstreams: {users: 3001}\n";
    let checked = lictor(&["check"], yaml);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let shown = String::from_utf8(lictor(&["config", "--origin"], yaml).stdout).unwrap();
    assert!(shown.lines().any(|line| line.starts_with("port: 8082") && line.contains(".yaml:2:7")), "{shown}");
    assert!(
        shown.lines().any(|line| line.starts_with("defaults.retry.attempts: 3") && line.ends_with("# default")),
        "{shown}"
    );
    assert!(shown.contains("consul.token: ***") && !shown.contains("canary"), "{shown}");
}

#[test]
fn the_schema_is_json() {
    let output = Command::new(LICTOR).arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["upstreams"].is_object());
}

#[test]
fn the_examples_are_valid() {
    let folder = lictor_testkit::root().join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            // Files that an example names are beside it.
            let mut check = Command::new(LICTOR);
            check.args(["check", "-c"]).arg(&path).current_dir(lictor_testkit::root());
            let output = check.output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            count += 1;
        }
    }
    assert!(count >= 2, "{count} examples");
}
